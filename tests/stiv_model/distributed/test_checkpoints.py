"""What ranks save, other ranks read exactly. Run as a script, this file is 2 ranks, then 1, then 3."""

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from stiv_model.distributed import checkpoints, deepspeed_engine, rank_state, run_identity
from stiv_model.distributed.checkpoints import MANIFEST, Manifest, Progress
from stiv_model.distributed.ema import Ema
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Run
from stiv_model.weights import files
from stiv_model.weights.metadata import WEIGHTS
from tests.stiv_model.held import Held
from tests.stiv_model.ranks import fork, run_script
from tests.stiv_model.runs import RECIPE, SETTINGS, TRAINING, describe

BATCH, FRAMES, CHANNELS, PIXELS = 6, 2, 4, 4
SAVED, HANDED_ON, END = 3, 4, 6  # steps
CASES: dict[str, dict[str, Any]] = {
    "float32 adamw": {"persistent_parameters": 64},
    "whole adamw": {"persistent_parameters": 1_000_000},
    "bfloat16 adafactor": {"precision": "bfloat16", "kind": "adafactor"},
    "offloaded adamw": {"precision": "bfloat16", "offload": "cpu"},
}
LONG = {"offloaded adamw"}
each_case = pytest.mark.parametrize(
    "case", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in CASES]
)


def run_of(kind: str = "adamw", **changes: Any) -> Run:
    plain = {"frames": FRAMES, "steps": END, "batch": BATCH, "warmup_steps": 1, "mask_ratio": 0.0}
    plain |= {"clean_frames": "none", "text_dropout": 0.0, "image_dropout": 0.0}
    optimizer = TRAINING.optimizer.model_copy(update={"kind": kind, "weight_decay": 0.01})
    training = TRAINING.model_copy(update={"optimizer": optimizer, **changes})
    tiny = {"width": 20, "depth": 1, "heads": 1, "ffn_ratio": 1.5, "latent_channels": CHANNELS, "text_width": 7}
    return describe(RECIPE.model_copy(update=plain), training, model=SETTINGS.model_copy(update=tiny))


# ---- what each rank does


def main(root: Path) -> None:
    for ranks, work in ((2, saves_and_goes_on), (1, goes_on_alone), (3, goes_on_with_three)):
        fork(run_rank, ranks, root, ranks, work)


def run_rank(rank: int, root: Path, ranks: int, work: Callable[[Path, Run], None]) -> None:
    runs = {path.parent: Run.model_validate_json(path.read_text()) for path in sorted(root.glob("*/run.json"))}
    deepspeed_engine.start(next(iter(runs.values())).training)
    torch.set_num_threads(1)
    for folder, run in runs.items():
        work(folder, run.model_copy(update={"training": run.training.model_copy(update={"ranks": ranks})}))


def saves_and_goes_on(folder: Path, run: Run) -> None:
    with_ema = build(run)
    for step in range(END):
        train(folder / "undisturbed.tsv", with_ema, step)
        save(folder / "undisturbed", run, with_ema, step + 1)
        if step + 1 <= SAVED:
            save(folder / "checkpoints", run, with_ema, step + 1)
    export(folder, run, with_ema[1])
    refuses(folder, run, with_ema)
    step = resume(folder / "checkpoints", run, with_ema)
    for _ in range(2):
        save(folder / "back", run, with_ema, step)
    kept = run.training.model_copy(update={"keep_every_steps": 3})
    for step in range(1, 9):
        save(folder / "kept", run.model_copy(update={"training": kept}), with_ema, step)
    with_ema[0].destroy()

    with_ema = build(run)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    for step in range(resume(folder / "checkpoints", run, with_ema), END):
        train(folder / "resumed.tsv", with_ema, step)
    save(folder / "resumed", run, with_ema, END)
    with_ema[0].destroy()


def goes_on_alone(folder: Path, run: Run) -> None:
    with_ema = build(run)
    step = resume(folder / "checkpoints", run, with_ema)
    save(folder / "alone", run, with_ema, step)
    train(folder / "elastic.tsv", with_ema, step)
    save(folder / "checkpoints", run, with_ema, step + 1)
    with_ema[0].destroy()


def goes_on_with_three(folder: Path, run: Run) -> None:
    with_ema = build(run)
    step = resume(folder / "checkpoints", run, with_ema)
    assert step == HANDED_ON
    save(folder / "three", run, with_ema, step)
    for later in range(step, END):
        train(folder / "elastic.tsv", with_ema, later)
    with_ema[0].destroy()


def build(run: Run) -> tuple[Any, Ema]:
    torch.manual_seed(0)
    engine = deepspeed_engine.engine(StivTransformer(run.model, is_video=True), run.recipe, run.training)
    return engine, Ema(engine, 0.9)


def save(folder: Path, run: Run, with_ema: tuple[Any, Ema], step: int) -> None:
    progress = Progress(step=step, position=step * BATCH, loop={"losses": [0.1, 1e-17]})
    checkpoints.save(folder, run, *with_ema, progress)


def resume(folder: Path, run: Run, with_ema: tuple[Any, Ema]) -> int:
    progress = checkpoints.resume(folder, run, *with_ema)
    assert progress and progress.loop == {"losses": [0.1, 1e-17]} and progress.position == progress.step * BATCH
    return progress.step


def export(folder: Path, run: Run, ema: Ema) -> None:
    """Write the average, and how much memory that took on each rank."""
    with Held() as held:
        if dist.get_rank() == 0:
            files.save(folder / "exported", ema.each(), run.model, is_video=True)
        else:
            for _ in ema.each():
                pass
    (folder / f"held-{dist.get_rank()}").write_text(str(held.peak))


def refuses(folder: Path, run: Run, with_ema: tuple[Any, Ema]) -> None:
    """Write what `save` says with one bit flipped on the second rank, and with no room on the disk."""
    engine = with_ema[0]
    said = {}
    for one in [one for one in engine.module.parameters() if one.ds_persist][:1]:
        bits = one.data.view(torch.int32).view(-1)
        bits[0] ^= dist.get_rank()
        said["bit"] = refusal(folder, run, with_ema)
        bits[0] ^= dist.get_rank()
    usage = shutil.disk_usage
    if dist.get_rank() == 0:  # as seen by one node: all must stop
        shutil.disk_usage = lambda path: usage(path)._replace(free=1000)
    said["disk"] = refusal(folder, run, with_ema)
    shutil.disk_usage = usage
    (folder / f"refused-{dist.get_rank()}.json").write_text(json.dumps(said))


def refusal(folder: Path, run: Run, with_ema: tuple[Any, Ema]) -> str:
    try:
        save(folder / "refused", run, with_ema, 1)
    except (RuntimeError, OSError) as error:
        return str(error)
    return "saved"


def train(curve: Path, with_ema: tuple[Any, Ema], step: int) -> None:
    """Take one step on samples that depend on their position alone; spend random numbers of all kinds as well."""
    engine, ema = with_ema
    torch.rand(1), random.random(), np.random.rand(), random.gauss(0, 1)
    generator = torch.Generator().manual_seed(step)
    own = slice(dist.get_rank(), None, dist.get_world_size())
    width = engine.module.settings.text_width
    shapes = ((FRAMES, CHANNELS, PIXELS, PIXELS), (), (3, width), (width,), (len(MICRO_CONDITIONS),))
    data = [torch.randn(BATCH, *shape, generator=generator)[own] for shape in shapes]
    x, time, tokens, pooled, micro = (part.to(next(engine.module.parameters()).dtype) for part in data)
    text = Text(tokens, torch.ones(len(x), 3, dtype=torch.bool), pooled)
    loss = (engine(x, time, text, micro).float() - data[0].roll(1, 1)).square().mean()
    engine.backward(loss)
    engine.step()
    ema.update(step)
    total = loss.detach() / dist.get_world_size()
    dist.all_reduce(total)
    if dist.get_rank() == 0:
        with curve.open("a") as file:
            file.write(f"{total.item()!r}\n")


# ---- what is checked


class Cases:
    """Folders of runs by case, which 2 ranks saved, 1 took on, and 3 ended; those of `make test` are made together."""

    def __init__(self, make: Callable[[], Path]):
        self.make = make
        self.roots: dict[bool, Path] = {}

    def __truediv__(self, place: str) -> Path:
        is_long = place.partition("/")[0] in LONG
        if is_long not in self.roots:
            root = self.roots[is_long] = self.make()
            for name, changes in CASES.items():
                if (name in LONG) == is_long:
                    (root / name).mkdir()
                    (root / name / "run.json").write_text(run_of(**changes).model_dump_json())
            run_script(__file__, TRAINING, root)
        return self.roots[is_long] / place


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return Cases(lambda: tmp_path_factory.mktemp("checkpoints"))


def name(step: int) -> str:
    return f"step-{step:08d}"


def manifest(path: Path) -> Manifest:
    return Manifest.model_validate_json((path / MANIFEST).read_text())


def losses(curve: Path) -> list[float]:
    return [float(line) for line in curve.read_text().split()]


def whole(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, the slices joined."""
    slices: dict[str, list[Tensor]] = {}
    for rank in range(len(manifest(path).files)):
        with safe_open(path / rank_state.file_name(rank), "pt") as file:
            for key in file.keys():  # noqa: SIM118
                slices.setdefault(key, []).append(file.get_tensor(key))
    return {key: torch.cat(parts) if parts[0].ndim else parts[0] for key, parts in slices.items()}


@each_case
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(root, case):
    undisturbed = losses(root / case / "undisturbed.tsv")
    assert len(set(undisturbed)) == END
    assert losses(root / case / "resumed.tsv") == undisturbed[SAVED:]
    # the files hold weights, moments, average and random states
    ends = [manifest(root / case / folder / name(END)).files for folder in ("undisturbed", "resumed")]
    assert ends[0] == ends[1]
    assert ends[0] != manifest(root / case / "undisturbed" / name(END - 1)).files


@each_case
def test_a_run_can_go_back_and_save_the_same_step_again(root, case):
    assert [path.name for path in (root / case / "back").iterdir()] == [name(SAVED)]
    saved, back = (manifest(root / case / folder / name(SAVED)) for folder in ("checkpoints", "back"))
    assert back == saved


@each_case
def test_one_rank_and_three_read_exactly_what_others_wrote(root, case):
    written = whole(root / case / "checkpoints" / name(SAVED))
    read = whole(root / case / "alone" / name(SAVED))
    assert {key.split("/")[0] for key in written} >= {"weight", "average", "moment.exp_avg"}
    assert read.keys() == written.keys()
    assert all(torch.equal(read[key], written[key]) for key in written)
    handed_on = whole(root / case / "checkpoints" / name(HANDED_ON))
    read = whole(root / case / "three" / name(HANDED_ON))
    assert all(torch.equal(read[key], handed_on[key]) for key in handed_on)


@each_case
def test_a_run_of_two_ranks_goes_on_with_one_and_with_three(root, case):
    elastic, undisturbed = losses(root / case / "elastic.tsv"), losses(root / case / "undisturbed.tsv")
    assert elastic == pytest.approx(undisturbed[SAVED:], rel=1e-4)  # sums over ranks differ in the last bits


@each_case
def test_the_average_is_exported_one_weight_at_a_time(root, case):
    exported, saved = load_file(root / case / "exported" / WEIGHTS), whole(root / case / "undisturbed" / name(END))
    assert {f"average/{key}" for key in exported} == {key for key in saved if key.startswith("average/")}
    assert all(torch.equal(weight.flatten(), saved[f"average/{key}"]) for key, weight in exported.items())
    largest = max(weight.nbytes for weight in exported.values())
    for rank in range(2):  # what is gathered, and its copy to be written
        assert int((root / case / f"held-{rank}").read_text()) <= 2 * largest


def test_the_newest_are_kept_and_for_good_those_of_every_so_many_steps(root):
    kept = root / "float32 adamw/kept"
    assert sorted(path.name for path in kept.iterdir()) == [name(step) for step in (3, 6, 7, 8)]


@each_case
def test_ranks_that_hold_different_bits_and_a_disk_without_room_make_no_checkpoint(root, case):
    for rank in range(2):
        said = json.loads((root / case / f"refused-{rank}.json").read_text())
        assert "has 1,000 bytes free, and 1 checkpoint of stiv take " in said["disk"]
        if case == "float32 adamw":  # the one that leaves parameters whole on every rank
            assert "rank 1 holds other bits of " in said["bit"]
        needed = int(said["disk"].partition("take ")[2].partition(":")[0].replace(",", ""))
        written = root / case / "checkpoints" / name(SAVED)
        size_bytes = sum(file.size_bytes for file in manifest(written).files)
        assert needed <= size_bytes <= needed * 1.5  # this small a state is a good part header
    assert not (root / case / "refused").exists()


def test_a_run_is_the_same_on_other_machines_and_elsewhere():
    run = run_of()
    training = run.training.model_copy(update={"ranks": 8, "offload": "cpu", "keep_checkpoints": 9})
    moved = run.model_copy(update={"training": training, "latents": "/elsewhere"})
    assert run_identity.identity(moved) == run_identity.identity(run)
    what = {key.split(".")[1] for key in run_identity.identity(run) if key.startswith("training.")}
    assert what == {  # a new setting is one of these, or one of how a run is computed
        "precision",
        "timestep_density",
        "timestep_shift",
        "temporal_mask_ratio",
        "clean_frame_loss",
        "outlier_sigmas",
        "seed",
        "optimizer",
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
