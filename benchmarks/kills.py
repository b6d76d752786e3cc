"""Kill a training run again and again, and compare it bit for bit with one that nobody disturbed.

    python benchmarks/kills.py --kills 30 --precision bfloat16 --json kills.json

One run of two ranks on `data/latents` is left alone and keeps every checkpoint. Another one of the same settings is
killed (SIGKILL of launcher and ranks) at random points: every second one while it writes a checkpoint, every sixth one
while it starts or loads, the others anywhere in a step; each time it is started again, from what it finds. Compared
are all its checkpoints, whose hashes cover weights, optimizer, moving average and random states; losses (six digits, as
written down) and samples of all steps; and the weights at the end. With the same --work it goes on where it was
stopped, but not with other code: the two runs could then differ, or agree, for another reason.
"""

import argparse
import contextlib
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from flows.params import load_params
from stiv_model.distributed.checkpoints import MANIFEST, Manifest
from stiv_model.latents import data_plan
from stiv_model.settings import Encoders, Run
from stiv_model.training.run_files import LEDGER
from tasks.training.launch import environment

ROOT = Path(__file__).parents[1]
EVERY = 2  # steps per checkpoint


def describe(options: argparse.Namespace, keep_every_steps: int) -> Run:
    params = load_params()
    training = params.training.model_copy(
        update={
            "ranks": options.ranks,
            "device": "cpu",
            "precision": options.precision,
            "checkpoint_steps": EVERY,
            "checkpoint_seconds": 1e6,
            "keep_checkpoints": 2,
            "keep_every_steps": keep_every_steps,
            "validation_steps": 0,
        }
    )
    recipe = params.train["stiv"].model_copy(update={"steps": EVERY * options.kills + 6, "batch": 2 * options.ranks})
    return Run(
        recipe_name="stiv",
        latents=str(options.latents.resolve()),
        latents_sha256="",
        encoders=Encoders(vae_sha256="v", text_sha256="t"),
        parent=None,
        parent_sha256=None,
        temporal_parent=None,
        temporal_parent_sha256=None,
        model=params.model.model_copy(update={"width": 64, "depth": 2, "heads": 2}),
        recipe=recipe,
        training=training,
    )


def start(work: Path, run: Run) -> subprocess.Popen:
    work.mkdir(parents=True, exist_ok=True)
    (work / "run.json").write_text(run.model_dump_json())
    planned = data_plan.make(Path(run.latents), run.recipe_name, run.model, run.recipe, run.training)
    (work / data_plan.FILE).write_text(planned.model_dump_json())
    ranks = str(run.training.ranks)
    launcher = [sys.executable, "-m", "stiv_model.distributed.local_ranks", ranks]
    with (work / "log").open("a") as log:
        command = [*launcher, "-m", "stiv_model.training.train", str(work)]
        return subprocess.Popen(command, env=environment(run.training), stdout=log, stderr=subprocess.STDOUT)


def finish(work: Path, run: Run) -> None:
    if not (work / "weights").exists() and start(work, run).wait() != 0:
        raise SystemExit(f"training failed: see {work}/log")


def half_written(work: Path) -> dict[str, int]:
    """Return the folders that are being written or deleted, with what tells them from others of that name."""
    return {path.name: path.stat(follow_symlinks=False).st_ino for path in (work / "checkpoints").glob("*.tmp")}


def kill(work: Path, run: Run, number: int, kills: int, limit: float) -> str:
    """Start the run, kill it, and return where: in `writing`, `starting` or `a step`."""
    chance = random.Random(number)
    kind = "starting" if number % 6 == 5 else "writing" if number % 2 == 0 else "a step"
    done, at_step = len(losses(work)), number * (run.recipe.steps - 4) // kills
    before = half_written(work)
    process = start(work, run)
    began, patience = time.monotonic(), chance.uniform(0, 12)
    while True:
        seconds, steps = time.monotonic() - began, len(losses(work))
        if process.poll() is not None or seconds > limit:
            kill_all(process)
            raise SystemExit(f"the run ended by itself, or was not to be killed in {limit:.0f} s: see {work}/log")
        if kind == "starting" and (seconds > patience or steps > done):
            break
        if kind == "a step" and steps > at_step:
            time.sleep(chance.uniform(0, 0.3))
            break
        if kind == "writing" and steps > at_step and half_written(work).items() - before.items():
            time.sleep(chance.uniform(0, 0.02))
            break
        time.sleep(0.0005)
    kill_all(process)
    if half_written(work).items() - before.items():
        return "writing"
    return "starting" if len(losses(work)) <= done else "a step"


def kill_all(process: subprocess.Popen) -> None:
    """Kill the launcher and its ranks: those that still import have not asked yet to die with it."""
    if process.poll() is None:
        everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everyone[1:], timeout=30)
    process.wait()


def code() -> str:
    """Return a hash of all code that a run executes."""
    files = sorted(path for folder in ("stiv_model", "tasks") for path in (ROOT / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def losses(work: Path) -> list[list[str]]:
    """Return step, loss, gradient norm and learning rate of each step so far."""
    curve = work / "losses.tsv"
    return [line.split("\t")[:4] for line in curve.read_text().splitlines()[1:]] if curve.exists() else []


def differing(work: Path, undisturbed: Path, equal: set[str]) -> list[str]:
    """Return the checkpoints of a run that are not as the undisturbed run wrote them; the others join `equal`."""
    files = {
        path.parent.name: Manifest.model_validate_json(path.read_text()).files
        for path in (work / "checkpoints").glob(f"step-????????/{MANIFEST}")
    }
    for name, found in files.items():
        wanted = Manifest.model_validate_json((undisturbed / "checkpoints" / name / MANIFEST).read_text())
        equal |= {name} if found == wanted.files else set()
    return sorted(files.keys() - equal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--latents", type=Path, default=Path("data/latents"))
    parser.add_argument("--work", type=Path, help="folder of the runs; a temporary one otherwise")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one start; longer is a failure")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="stiv-kills-"))
    undisturbed, killed = work / "undisturbed", work / "killed"
    work.mkdir(parents=True, exist_ok=True)
    code_file, code_now = work / "code.sha256", code()
    if code_file.exists() and code_file.read_text() != code_now:
        raise SystemExit(f"{work} was begun with other code: choose another --work")
    code_file.write_text(code_now)
    finish(undisturbed, describe(options, keep_every_steps=EVERY))

    note = work / "kills.json"
    places: list[str] = json.loads(note.read_text()) if note.exists() else []
    equal: set[str] = set()
    wrong: list[str] = []
    run = describe(options, keep_every_steps=0)
    while len(places) < options.kills:
        places.append(kill(killed, run, len(places), options.kills, options.limit))
        note.write_text(json.dumps(places))
        wrong += differing(killed, undisturbed, equal)
        said = "DIFFERS" if wrong else "equal"
        print(f"kill {len(places):3} in {places[-1]:8}  after step {len(losses(killed))}  {said}", flush=True)
    finish(killed, run)
    wrong += differing(killed, undisturbed, equal)
    if code() != code_now:
        raise SystemExit("the code was changed while it ran: the result says nothing")
    weights = [sha256(folder / "weights/model.safetensors") for folder in (undisturbed, killed)]
    result = {
        "code_sha256": code_now,
        "precision": options.precision,
        "ranks": options.ranks,
        "kills": len(places),
        "kills_by_place": {place: places.count(place) for place in sorted(set(places))},
        "checkpoints_equal": len(equal),
        "checkpoints_differing": sorted(set(wrong)),
        "losses_equal": losses(killed) == losses(undisturbed),
        "samples_equal": (killed / LEDGER).read_text() == (undisturbed / LEDGER).read_text(),
        "weights_equal": weights[0] == weights[1],
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if wrong or not (result["losses_equal"] and result["samples_equal"] and result["weights_equal"]):
        raise SystemExit("the killed run is not the undisturbed one")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
