"""Runs that are killed, stopped or moved to other numbers of ranks, against one that nobody disturbed."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stiv_model.distributed.checkpoints import MANIFEST, Manifest
from stiv_model.latents import balance
from stiv_model.latents.dataset import LatentData
from stiv_model.latents.folder import TABLE
from stiv_model.latents.order import Order
from stiv_model.process_exit import STOPPED, stopped_at
from stiv_model.settings import RateDecay, Run
from stiv_model.training.run_files import LEDGER, LOSSES, NOISE_LEVEL_LOSSES
from tasks.storage import tables
from tests.stiv_model.ranks import ROOT, Attempt, listening
from tests.stiv_model.runs import RECIPE as SHORT
from tests.stiv_model.runs import SETTINGS, TRAINING, make_latents, prepare, table

RECIPE = SHORT.model_copy(update={"steps": 24, "decay": RateDecay(kind="linear", steps=20, floor=0.1)})

# what `stiv train` does once the run is described, without Prefect's server
STAGE = """import sys
from pathlib import Path
from stiv_model.settings import RateDecay, Run
from tasks.training import launch
work = Path(sys.argv[1])
launch.run_ranks.fn(Run.model_validate_json((work / "run.json").read_text()), work)"""


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> Path:
    """As many clips as the run draws: it is one epoch."""
    clips = RECIPE.steps * RECIPE.batch
    return make_latents(tmp_path_factory.mktemp("epoch") / "latents", clips=(clips - 40, 40))


@pytest.fixture(scope="module")
def describe(latents) -> Callable[..., Run]:
    """Return `describe(work, recipe=, ranks=, precision=)`, which makes or updates the folder of a run."""

    def describe(work: Path, **changes) -> Run:
        recipe = changes.pop("recipe", RECIPE)
        training = TRAINING.model_copy(update={"keep_every_steps": 2} | changes)
        return prepare(work, latents, recipe, training, model=SETTINGS.model_copy(update={"depth": 1}))

    return describe


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, forkserver, describe) -> Callable[[str], Path]:
    """Return `undisturbed(precision)`: the folder of a run of two ranks from its first step to its last."""
    made: dict[str, Path] = {}

    def undisturbed(precision: str) -> Path:
        if precision not in made:
            made[precision] = tmp_path_factory.mktemp("undisturbed") / precision
            forkserver.finish(made[precision], describe(made[precision], precision=precision))
        return made[precision]

    return undisturbed


def steps(work: Path) -> int:
    return len(table(work, LOSSES))


def checkpoints(work: Path) -> dict[str, Manifest]:
    """Return the manifests: hashes of weights, optimizer, moving average and random states of each rank."""
    found = (work / "checkpoints").glob(f"step-????????/{MANIFEST}")
    return {path.parent.name: Manifest.model_validate_json(path.read_text()) for path in found}


def assert_equal(work: Path, wanted: Path) -> None:
    """Compare losses (nine digits tell any two float32 apart), samples, all checkpoints and weights bit for bit."""
    assert table(work, LOSSES, columns=4) == table(wanted, LOSSES, columns=4)
    for name in (NOISE_LEVEL_LOSSES, LEDGER):
        assert table(work, name) == table(wanted, name)
    assert checkpoints(work) == checkpoints(wanted)
    weights = [folder / "weights/model.safetensors" for folder in (work, wanted)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def wait_until(is_so: Callable[[], bool], lives: Callable[[], bool], work: Path) -> None:
    """Wait, as long as the run goes on."""
    limit = time.monotonic() + 240
    while not is_so():
        assert lives() and time.monotonic() < limit, f"it ended before\n{(work / 'log').read_text()}"
        time.sleep(0.0005)


# ---- killed


def half_written(work: Path) -> set[tuple[str, int]]:
    """Return the folders that are being written or deleted, with what tells them from others of that name."""
    return {(path.name, path.stat().st_ino) for path in (work / "checkpoints").glob("*.tmp")}


def kill(attempt: Attempt, work: Path, where: str, chance: random.Random) -> str:
    """Kill all ranks at a random point of a kind, and return the kind that it was in the end."""
    begun, left = steps(work), half_written(work)
    if where == "starting":
        time.sleep(chance.uniform(0, 1.5))
    else:
        at = begun + chance.randint(1, 5)
        wait_until(lambda: steps(work) >= at, attempt.is_alive, work)
    if where == "in a step":
        time.sleep(chance.uniform(0, 0.05))
    while where == "writing":
        wait_until(lambda: bool(half_written(work) - left), attempt.is_alive, work)
        time.sleep(chance.uniform(0, 0.003))
        attempt.signal(signal.SIGSTOP)  # so that it still writes when it is killed
        if half_written(work) - left:
            break
        attempt.signal(signal.SIGCONT)
    attempt.signal(signal.SIGKILL)
    assert attempt.wait() == [-signal.SIGKILL] * 2, attempt.log.read_text()
    return "writing" if half_written(work) - left else "in a step" if steps(work) > begun else "starting"


@pytest.mark.parametrize(
    ("precision", "points"),
    [
        ("float32", ("starting", "writing", "in a step", "writing")),
        pytest.param("bfloat16", ("starting", "writing", "in a step"), marks=pytest.mark.long),
    ],
)
def test_a_run_killed_at_random_points_is_the_undisturbed_one_bit_for_bit(
    tmp_path, forkserver, describe, undisturbed, precision, points
):
    wanted, work = undisturbed(precision), tmp_path / "killed"
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, run = random.Random(seed), describe(work, precision=precision)
    found = [kill(forkserver.start(work, run), work, point, chance) for point in points]
    print(f"killed {', '.join(found)}, after step {steps(work)}")
    assert found.count("writing") >= points.count("writing")
    forkserver.finish(work, run)
    assert_equal(work, wanted)


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    tmp_path, forkserver, describe, undisturbed
):
    wanted, work = undisturbed("float32"), tmp_path / "damaged"
    run = describe(work)
    attempt = forkserver.start(work, run)
    wait_until(lambda: len(checkpoints(work)) > 1, attempt.is_alive, work)
    attempt.signal(signal.SIGKILL)
    attempt.wait()
    newest = work / "checkpoints" / max(checkpoints(work))
    victim = newest / "rank-00001.safetensors"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert f"{newest} is damaged (rank-00001.safetensors is not what was written)" in forkserver.finish(work, run)
    assert newest.with_name(f"{newest.name}.damaged-1").exists()
    assert_equal(work, wanted)


def test_a_run_that_is_made_longer_is_the_long_one_bit_for_bit(tmp_path, forkserver, describe):
    wanted, work = tmp_path / "long", tmp_path / "longer"
    short, long = (SHORT.model_copy(update={"steps": steps}) for steps in (5, 8))  # of a constant rate
    forkserver.finish(wanted, describe(wanted, recipe=long))
    forkserver.finish(work, describe(work, recipe=short))
    shutil.rmtree(work / "weights")  # as `run_folder.open_run` does, whose test is another
    forkserver.finish(work, describe(work, recipe=long))
    assert table(work, LOSSES, columns=4) == table(wanted, LOSSES, columns=4)
    assert table(work, LEDGER) == table(wanted, LEDGER)
    files = [{name: found.files for name, found in checkpoints(folder).items()} for folder in (work, wanted)]
    assert files[0] == files[1]
    weights = [folder / "weights/model.safetensors" for folder in (work, wanted)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# ---- moved to other ranks


def test_a_run_moves_from_two_ranks_to_one_and_back_within_an_epoch(
    tmp_path, forkserver, describe, undisturbed, latents
):
    wanted, work = undisturbed("float32"), tmp_path / "moved"
    for ranks in (2, 1):
        attempt = forkserver.start(work, describe(work, ranks=ranks))
        at = steps(work) + 5
        wait_until(lambda at=at: steps(work) >= at, attempt.is_alive, work)
        attempt.signal(signal.SIGTERM, ranks - 1)  # one is asked, and all stop after the same step
        assert attempt.wait() == [STOPPED] * ranks, attempt.log.read_text()
        assert stopped_at(work) == steps(work)
    run = describe(work)
    forkserver.finish(work, run)
    assert [len(manifest.files) for manifest in checkpoints(work).values()] != [2] * len(checkpoints(wanted))

    ledger = table(work, LEDGER)
    assert ledger == table(wanted, LEDGER)
    data = LatentData(latents, run.recipe)
    order, drawn = Order(len(data.samples), run.training.seed), []
    for _, first, last, sha256 in ledger:
        clips = [data.samples[order[position]].clip for position in range(int(first), int(last) + 1)]
        assert hashlib.sha256("\n".join(clips).encode()).hexdigest() == sha256
        drawn += clips
    assert sorted(drawn) == sorted(sample.clip for sample in data.samples)  # each once: one epoch

    losses, undisturbed_losses = ([float(row[1]) for row in table(one, LOSSES)] for one in (work, wanted))
    assert losses == pytest.approx(undisturbed_losses, rel=1e-4)


@pytest.mark.long  # its draws are a function of the position alone, which tests/stiv_model/latents shows in no time
def test_a_balanced_run_that_is_stopped_is_the_undisturbed_one_bit_for_bit_and_draws_by_weight(tmp_path, forkserver):
    latents = make_latents(tmp_path / "latents", clips=(20, 10))
    rows = tables.read_rows(latents / TABLE, tables.LATENTS)
    named = [row | {"category": "rare" if number < 3 else "common"} for number, row in enumerate(rows)]
    weighed = [row | {"category_weight": {"rare": 1.0, "common": 3.0}[row["category"]]} for row in named]
    tables.write_rows(latents / TABLE, weighed, tables.LATENTS)
    recipe = SHORT.model_copy(update={"steps": 32, "batch": 24, "balance": "category"})
    wanted, work = tmp_path / "wanted", tmp_path / "stopped"
    run = {}
    for folder in (wanted, work):
        training = TRAINING.model_copy(update={"keep_every_steps": 2})
        run[folder] = prepare(folder, latents, recipe, training, model=SETTINGS.model_copy(update={"depth": 1}))
    forkserver.finish(wanted, run[wanted])
    attempt = forkserver.start(work, run[work])
    wait_until(lambda: steps(work) >= 4, attempt.is_alive, work)
    attempt.signal(signal.SIGTERM, 0)
    assert attempt.wait() == [STOPPED] * 2, attempt.log.read_text()
    forkserver.finish(work, run[work])
    assert_equal(work, wanted)
    data = LatentData(latents, recipe)
    order = balance.order(len(data.samples), run[work].training.seed, data.balance)
    drawn = []
    for _, first, last, sha256 in table(work, LEDGER):
        clips = [data.samples[order[position]].clip for position in range(int(first), int(last) + 1)]
        assert hashlib.sha256("\n".join(clips).encode()).hexdigest() == sha256
        drawn += clips
    assert sum(drawn.count(row["clip"]) for row in named[:3]) == len(drawn) / 4 == 3 * 64


# ---- stopped, through the launcher


def of_run(work: Path) -> dict[str, list[psutil.Process]]:
    """Return the launchers and the ranks of a run that are alive."""
    found: dict[str, list[psutil.Process]] = {"launcher": [], "rank": []}
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if words[-1:] == [str(work)] and "stiv_model.training.train" in words and process.info["status"] != "zombie":
            found["launcher" if "stiv_model.distributed.local_ranks" in words else "rank"].append(process)
    return found


def is_importing(rank: psutil.Process) -> bool:
    try:
        return "libtorch" in Path(f"/proc/{rank.pid}/maps").read_text()
    except OSError:
        return False


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Return `stage(work)`, which starts the stage's process."""
    started: list[subprocess.Popen] = []

    def start(work: Path) -> subprocess.Popen:
        with (work / "log").open("a") as log:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            command = [sys.executable, "-c", STAGE, str(work)]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_stage_whose_launcher_is_killed_or_that_is_asked_to_stop_leaves_no_rank_and_goes_on(
    tmp_path, describe, undisturbed, stage
):
    wanted, work = undisturbed("float32"), tmp_path / "stopped"
    run = describe(work)

    process = stage(work)
    wait_until(
        lambda: sum(map(is_importing, of_run(work)["rank"])) == run.training.ranks,
        lambda: process.poll() is None,
        work,
    )
    ranks = of_run(work)["rank"]
    of_run(work)["launcher"][0].kill()
    assert process.wait(timeout=60) == 1
    psutil.wait_procs(ranks, timeout=2)  # their imports take longer
    assert of_run(work) == {"launcher": [], "rank": []}
    assert not (work / "checkpoints").exists()
    assert stopped_at(work) is None

    process = stage(work)
    wait_until(lambda: steps(work) >= 3, lambda: process.poll() is None, work)
    assert [listening(one) for one in of_run(work)["launcher"]] == [set()]
    assert [listening(one) for one in of_run(work)["rank"]] == [{"127.0.0.1"}] * run.training.ranks  # gloo's pairs
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == -signal.SIGTERM, (work / "log").read_text()
    assert of_run(work) == {"launcher": [], "rank": []}
    assert stopped_at(work) == steps(work)
    assert max(checkpoints(work)) == f"step-{steps(work):08d}"

    process = stage(work)
    assert process.wait(timeout=240) == 0, (work / "log").read_text()
    kept = checkpoints(wanted)  # that of the stop may be one more
    found = {name: manifest for name, manifest in checkpoints(work).items() if name in kept}
    assert found == kept
    assert table(work, LOSSES, columns=4) == table(wanted, LOSSES, columns=4)
    weights = [folder / "weights/model.safetensors" for folder in (work, wanted)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
