"""Checkpoints of real ranks. Run as a script, this file is 2 ranks, then 1, then 3."""

import hashlib
import os
import pickle
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor

from stiv_model import checkpoints, rank_state, zero
from stiv_model.checkpoints import MANIFEST, Manifest, Progress
from stiv_model.conditions import MICRO_CONDITIONS, Text
from stiv_model.ema import Ema
from stiv_model.lifetime import die_with_parent
from stiv_model.settings import (
    ModelSettings,
    OptimizerSettings,
    RecipeSettings,
    RotarySettings,
    Run,
    TrainingSettings,
)
from stiv_model.transformer import StivTransformer

BATCH, FRAMES, CHANNELS, PIXELS = 6, 2, 4, 4
SAVED, HANDED_ON, END = 3, 4, 6  # steps
CASES: dict[str, dict[str, Any]] = {
    "float32 adamw": {},
    "bfloat16 adafactor": {"precision": "bfloat16", "optimizer": "adafactor"},
    "offloaded adamw": {"precision": "bfloat16", "offload": "cpu"},
}


def run_of(settings: Any, precision: str = "float32", offload: str = "none", optimizer: str = "adamw") -> Run:
    recipe = RecipeSettings(
        frames=FRAMES,
        steps=END,
        batch=BATCH,
        learning_rate=1e-3,
        warmup_steps=1,
        mask_ratio=0.0,
        clean_frames="none",
        text_dropout=0.0,
        image_dropout=0.0,
        best_fraction=1.0,
    )
    training = {
        "ranks": 2,
        "nodes": 1,
        "launcher": "{work}",
        "sequence_ranks": 1,
        "device": "cpu",
        "precision": precision,
        "accumulation": 1,
        "activation_checkpointing": False,
        "offload": offload,
        "compile": False,
        "timestep_density": "uniform",
        "timestep_shift": 1.0,
        "temporal_mask_ratio": 0.0,
        "clean_frame_loss": False,
        "outlier_sigmas": 6.0,
        "hang_seconds": 60.0,
        "checkpoint_seconds": 1000,
        "checkpoint_steps": 1000,
        "keep_checkpoints": 2,
        "keep_every_steps": 0,
        "seed": 0,
        "optimizer": OptimizerSettings(
            kind=optimizer, beta1=0.9, beta2=0.99, weight_decay=0.01, clip_norm=1.0, ema_decay=0.9
        ),
    }
    return Run(
        recipe_name="t2v",
        latents="latents",
        latents_sha256="1",
        parent=None,
        parent_sha256=None,
        temporal_parent=None,
        temporal_parent_sha256=None,
        model=settings,
        recipe=recipe,
        training=TrainingSettings(**training),
    )


# ---- what each rank does


def main(root: Path) -> None:
    for ranks in (2, 1, 3):
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
        # forked, so that torch and DeepSpeed are imported once and not six times
        torch.multiprocessing.start_processes(run_rank, (root, ranks, address), nprocs=ranks, start_method="fork")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_rank(rank: int, root: Path, ranks: int, address: dict[str, str]) -> None:
    die_with_parent()
    os.environ |= address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    runs = {path.parent: Run.model_validate_json(path.read_text()) for path in sorted(root.glob("*/run.json"))}
    zero.start(next(iter(runs.values())).training)
    torch.set_num_threads(1)
    for folder, run in runs.items():
        run = run.model_copy(update={"training": run.training.model_copy(update={"ranks": ranks})})
        {1: goes_on_alone, 2: saves_and_goes_on, 3: goes_on_with_three}[ranks](folder, run)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # as torch tears gloo down, a rank may abort although all went well


def saves_and_goes_on(folder: Path, run: Run) -> None:
    with_ema = build(run)
    for step in range(END):
        train(folder / "undisturbed.tsv", with_ema, step)
        save(folder / "undisturbed", run, with_ema, step + 1)
        if step + 1 <= SAVED:
            save(folder / "checkpoints", run, with_ema, step + 1)
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
    engine = zero.engine(StivTransformer(run.model, is_video=True), run.recipe, run.training)
    return engine, Ema(engine, 0.9)


def save(folder: Path, run: Run, with_ema: tuple[Any, Ema], step: int) -> None:
    progress = Progress(step=step, position=step * BATCH, loop={"losses": [0.1, 1e-17]})
    checkpoints.save(folder, run, *with_ema, progress)


def resume(folder: Path, run: Run, with_ema: tuple[Any, Ema]) -> int:
    progress = checkpoints.resume(folder, run, *with_ema)
    assert progress and progress.loop == {"losses": [0.1, 1e-17]} and progress.position == progress.step * BATCH
    return progress.step


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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Folders of runs by case, which 2 ranks saved, 1 took on, and 3 ended."""
    root = tmp_path_factory.mktemp("checkpoints")
    settings = request.getfixturevalue("tiny")
    for name, changes in CASES.items():
        (root / name).mkdir()
        (root / name / "run.json").write_text(run_of(settings, **changes).model_dump_json())
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    done = subprocess.run(
        [sys.executable, __file__, str(root)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return root


@pytest.fixture(scope="module")
def tiny() -> Any:
    return ModelSettings(
        width=20,
        depth=1,
        unmasked_depth=1,
        heads=1,
        ffn_ratio=1.5,
        spatial_patch=2,
        temporal_patch=2,
        latent_channels=CHANNELS,
        text_width=7,
        norm_epsilon=1e-6,
        qk_norm=True,
        sandwich_norm=True,
        cross_attention_norm=False,
        condition_norm=True,
        micro_conditions=True,
        adaln="shared",
        temporal_modulation=False,
        causal_time=False,
        image_condition="replacement",
        positions=RotarySettings(kind="rotary", base=10000.0, spatial_scale=1.0, temporal_scale=1.0),
    )


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


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(root, case):
    undisturbed = losses(root / case / "undisturbed.tsv")
    assert len(set(undisturbed)) == END
    assert losses(root / case / "resumed.tsv") == undisturbed[SAVED:]
    # the files hold weights, moments, average and random states
    ends = [manifest(root / case / folder / name(END)).files for folder in ("undisturbed", "resumed")]
    assert ends[0] == ends[1]
    assert ends[0] != manifest(root / case / "undisturbed" / name(END - 1)).files


@pytest.mark.parametrize("case", CASES)
def test_a_run_can_go_back_and_save_the_same_step_again(root, case):
    assert [path.name for path in (root / case / "back").iterdir()] == [name(SAVED)]
    saved, back = (manifest(root / case / folder / name(SAVED)) for folder in ("checkpoints", "back"))
    assert back == saved


@pytest.mark.parametrize("case", CASES)
def test_one_rank_and_three_read_exactly_what_others_wrote(root, case):
    written = whole(root / case / "checkpoints" / name(SAVED))
    read = whole(root / case / "alone" / name(SAVED))
    assert {key.split("/")[0] for key in written} >= {"weight", "average", "moment.exp_avg"}
    assert read.keys() == written.keys()
    assert all(torch.equal(read[key], written[key]) for key in written)
    handed_on = whole(root / case / "checkpoints" / name(HANDED_ON))
    read = whole(root / case / "three" / name(HANDED_ON))
    assert all(torch.equal(read[key], handed_on[key]) for key in handed_on)


@pytest.mark.parametrize("case", CASES)
def test_a_run_of_two_ranks_goes_on_with_one_and_with_three(root, case):
    elastic, undisturbed = losses(root / case / "elastic.tsv"), losses(root / case / "undisturbed.tsv")
    assert elastic == pytest.approx(undisturbed[SAVED:], rel=1e-4)  # sums over ranks differ in the last bits


def test_the_newest_are_kept_and_for_good_those_of_every_so_many_steps(root):
    kept = root / "float32 adamw/kept"
    assert sorted(path.name for path in kept.iterdir()) == [name(step) for step in (3, 6, 7, 8)]


# ---- damage


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """This process is the only rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def folder(root: Path, tmp_path: Path, alone: None) -> Path:
    """A folder with two checkpoints of two ranks."""
    return Path(shutil.copytree(root / "float32 adamw/undisturbed", tmp_path / "checkpoints"))


def victim(path: Path, chance: random.Random) -> Path:
    """A file of a checkpoint, the manifest among them."""
    return chance.choice(sorted(path.iterdir()))


def flip_a_bit(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return file.name


def truncate(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])
    return file.name


def zero_a_page(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    content = bytearray(file.read_bytes())
    start = chance.randrange(0, len(content), 4096)
    assert any(content[start : start + 4096])
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    file.write_bytes(content)
    return file.name


def remove(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    file.unlink()
    return file.name


def add(path: Path, chance: random.Random) -> str:
    added = chance.choice(["rank-00002.safetensors", "optim_states.pt", "latest", "weights"])
    (path / added).write_bytes(chance.randbytes(chance.randrange(9)))
    return added


def swap(path: Path, chance: random.Random) -> str:
    one, other = sorted(path.glob("rank-*"))
    one.rename(path / "aside")
    other.rename(one)
    (path / "aside").rename(other)
    return "rank-"


def take_from_another(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    shutil.copy(path.with_name(name(END - 1)) / file.name, file)
    return file.name


def tear_the_manifest(path: Path, chance: random.Random) -> str:
    content = (path / MANIFEST).read_bytes()
    (path / MANIFEST).write_bytes(content[: chance.choice([0, 1, len(content) // 2, len(content) - 1])])
    return MANIFEST


DAMAGES = (flip_a_bit, truncate, zero_a_page, remove, add, swap, take_from_another, tear_the_manifest)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_kept_aside_and_the_older_one_used(folder, damage):
    older, newest = folder / name(END - 1), folder / name(END)
    for number in range(1, 26):
        path = checkpoints.newest_whole(folder)
        assert path == newest
        sound = folder / "sound"
        shutil.copytree(newest, sound)
        wrong = damage(newest, random.Random(f"{damage} {number}"))
        assert wrong in (checkpoints.damage(newest) or "")
        assert checkpoints.newest_whole(folder) == older
        assert (folder / f"{name(END)}.damaged-{number}").exists()
        sound.rename(newest)


def test_each_reader_of_several_finds_the_damage_in_its_part(folder):
    file = folder / name(END) / rank_state.file_name(1)
    file.write_bytes(file.read_bytes()[::-1])
    assert checkpoints.damage(folder / name(END), reader=0, readers=2) is None
    assert "rank-00001" in checkpoints.damage(folder / name(END), reader=1, readers=2)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(root, folder):
    run = Run.model_validate_json((root / "float32 adamw/run.json").read_text())
    for path in folder.glob("step-*"):
        remove(path, random.Random(0))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"no whole checkpoint, only step-00000006\.damaged-1"):
            checkpoints.resume(folder, run, None, None)


def test_a_half_written_checkpoint_is_none(folder):
    shutil.copytree(folder / name(END), folder / f"{name(END + 1)}.tmp")
    assert checkpoints.newest_whole(folder) == folder / name(END)
    assert checkpoints.newest_whole(folder / "new") is None


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.marker!r}, 'w').close()",)


@pytest.mark.parametrize("write", [torch.save, lambda payload, path: path.write_bytes(pickle.dumps(payload))])
def test_a_malicious_pickle_is_not_executed_even_with_a_manifest_that_agrees(root, folder, tmp_path, write):
    marker, path = tmp_path / "executed", folder / name(END)
    for rank in (0, 1):
        write(Payload(marker), path / rank_state.file_name(rank))
    files = [
        {"size_bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(path.glob("rank-*"))
    ]
    forged = Manifest.model_validate(manifest(path).model_dump() | {"files": files})
    (path / MANIFEST).write_text(forged.text())
    assert "no safetensors file" in checkpoints.damage(path)
    assert checkpoints.newest_whole(folder) == folder / name(END - 1)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload is none"


def test_a_checkpoint_of_another_run_is_refused_by_the_settings_that_differ(root, folder):
    run = Run.model_validate_json((root / "float32 adamw/run.json").read_text())
    recipe = run.recipe.model_copy(update={"learning_rate": 0.5})
    with pytest.raises(ValueError, match=r"of another run \(recipe.learning_rate was 0.001, is 0.5\)"):
        checkpoints.resume(folder, run.model_copy(update={"recipe": recipe}), None, None)
    with pytest.raises(ValueError, match="latents_sha256 was 1, is 2"):
        checkpoints.resume(folder, run.model_copy(update={"latents_sha256": "2"}), None, None)
    assert len(list(folder.iterdir())) == 2


def test_a_run_is_the_same_on_other_machines_and_elsewhere(root):
    run = Run.model_validate_json((root / "float32 adamw/run.json").read_text())
    training = run.training.model_copy(update={"ranks": 8, "offload": "cpu", "keep_checkpoints": 9})
    moved = run.model_copy(update={"training": training, "latents": "/elsewhere"})
    assert checkpoints.identity(moved) == checkpoints.identity(run)
    what = {key.split(".")[1] for key in checkpoints.identity(run) if key.startswith("training.")}
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
