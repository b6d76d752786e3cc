"""Frames shared out over 2 and 4 of 4 real ranks, against one process. As a script, this file runs the ranks."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from flows.params import load_params
from stiv_model.network import sequence_parallel
from stiv_model.network.conditions import MICRO_CONDITIONS, FrameCondition, Text
from stiv_model.network.masking import TokenMask, sample_kept
from stiv_model.network.transformer import StivTransformer
from stiv_model.process_exit import die_with_parent
from stiv_model.settings import LearnedSettings, TrainingSettings

ROOT = Path(__file__).parents[3]
RANKS = 4
SHARED_BY = (2, 4)
SAMPLES, FRAMES, SIDE, MOMENTS, PLACES = 3, 8, 8, 4, 16
STEPS = 2
PARAMS = load_params(ROOT / "tests/params.yaml")
SETTINGS = PARAMS.model.model_copy(update={"width": 24, "depth": 1, "latent_channels": 4, "text_width": 12})
MASKED = 0.5
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "masked": ({}, MASKED),
    "unmasked": ({}, 0.0),
    "masked to 7 places, which no ranks share evenly": ({}, 0.56),
    "causal time": ({"causal_time": True}, MASKED),
    "learned positions": (
        {"positions": LearnedSettings(kind="learned", rows=4, columns=5, num_temporal=6, std=0.5)},
        MASKED,
    ),
    "a modulation per layer, of time too": ({"adaln": "per_layer", "temporal_modulation": True}, MASKED),
    "given frames seen by cross-attention": ({"image_condition": "both"}, MASKED),
    "recomputed activations": ({}, MASKED),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}

Seen = dict[str, Any]


def build(case: str, dtype: torch.dtype) -> StivTransformer:
    """Return a model none of whose weights is zero: as initialised, whole branches are silent."""
    torch.manual_seed(1)
    model = StivTransformer(SETTINGS.model_copy(update=CASES[case][0]), is_video=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.activation_checkpointing = case == "recomputed activations"
    return model.to(dtype)


def inputs(mask_ratio: float, dtype: torch.dtype, number: int = 0) -> tuple[Any, ...]:
    """Return what the model is called with for one micro-batch, by its number."""
    generator = torch.Generator().manual_seed(number)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    x, clean = random(SAMPLES, FRAMES, 4, SIDE, SIDE), random(SAMPLES, FRAMES, 4, SIDE, SIDE)
    text = Text(random(SAMPLES, 5, 12), torch.arange(5).expand(SAMPLES, -1) < 4, random(SAMPLES, 12))
    is_clean = (torch.arange(FRAMES) == 0) & torch.tensor([True, False, True])[:, None]
    places = torch.stack([torch.randperm(PLACES, generator=generator) for _ in range(SAMPLES)])
    time, micro = random(SAMPLES).sigmoid(), random(SAMPLES, len(MICRO_CONDITIONS))
    return x, time, text, micro, FrameCondition(clean, is_clean), TokenMask(sample_kept(places, mask_ratio), None)


def loss(velocity: Tensor, number: int) -> Tensor:
    target = torch.randn(velocity.shape, generator=torch.Generator().manual_seed(-1 - number))
    return (velocity - target.to(velocity.dtype)).square().mean()


# ---- what each rank does


def main(folder: Path) -> None:
    import stiv_model.distributed.deepspeed_engine  # noqa: F401  # DeepSpeed takes seconds: once instead of in every rank

    torch.multiprocessing.start_processes(run_rank, (folder,), nprocs=RANKS, start_method="fork")


def run_rank(rank: int, folder: Path) -> None:
    from stiv_model.distributed import deepspeed_engine, local_ranks

    die_with_parent()
    os.environ |= local_ranks.environment({}, rank, RANKS, folder)
    deepspeed_engine.start(training())
    torch.set_num_threads(1)
    groups = {ranks: sequence_parallel.new_group(ranks) for ranks in (1, *SHARED_BY)}
    number = {ranks: rank // ranks for ranks in groups}
    seen: Seen = {
        (case, dtype, ranks): one_step(build(case, DTYPES[dtype]), CASES[case][1], groups[ranks], number[ranks])
        for case in CASES
        for dtype in DTYPES
        for ranks in SHARED_BY
    }
    seen["groups"] = [dist.get_process_group_ranks(groups[2]), groups[1]]
    seen["shapes"] = shapes(groups[2])
    seen["refused"] = list(refused(groups[4]))
    seen["zero"] = under_zero(groups[2], number[2])
    torch.save(seen, folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # as torch tears gloo down, a rank may abort although all went well


def training() -> TrainingSettings:
    optimizer = PARAMS.training.optimizer.model_copy(update={"kind": "adafactor", "beta2": 0.999})
    return PARAMS.training.model_copy(update={"ranks": RANKS, "sequence_ranks": 2, "optimizer": optimizer})


def one_step(model: StivTransformer, mask_ratio: float, group: Any, number: int) -> Seen:
    """Return the velocity, and the gradients of this rank."""
    model.share_sequence(group)
    velocity = model(*inputs(mask_ratio, next(model.parameters()).dtype, number))
    loss(velocity, number).backward()
    return {"velocity": velocity.detach(), "gradients": gradients_of(model)}


def gradients_of(model: StivTransformer) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def shapes(group: Any) -> dict[str, list[int]]:
    """Return the tokens that the layers of a main block see (B, T, S, D)."""
    model, found = build("masked", torch.float32), {}
    model.share_sequence(group)
    for name, layer in model.main_blocks[0].named_children():
        layer.register_forward_hook(lambda _, given, out, name=name: found.update({name: list(given[0].shape)}))
    model(*inputs(MASKED, torch.float32))
    return found


def refused(group: Any) -> Iterator[str]:
    """Yield what is said of that which cannot be shared out by 4 ranks."""
    few = TokenMask(torch.arange(3)[None], None)
    some = TokenMask(None, torch.arange(2)[None])
    every = TokenMask(None, None)
    image = StivTransformer(SETTINGS, is_video=False)
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: sequence_parallel.own_temporal(6, PLACES, every, group),
        lambda: sequence_parallel.own_temporal(MOMENTS, PLACES, few, group),
        lambda: sequence_parallel.own_temporal(MOMENTS, PLACES, some, group),
        lambda: sequence_parallel.new_group(3),
        lambda: image.share_sequence(group),
    )
    for attempt in attempts:
        with pytest.raises(ValueError) as caught:
            attempt()
        yield str(caught.value)


def under_zero(group: Any, number: int) -> Seen:
    """Return the gradients that ZeRO-3 made in the first step, and the losses of all steps."""
    from deepspeed.utils import safe_get_full_grad

    from stiv_model.distributed import deepspeed_engine

    model = build("masked", torch.float32)
    model.share_sequence(group)
    recipe = PARAMS.train["stiv"].model_copy(update={"batch": RANKS})
    shared, seen = deepspeed_engine.engine(model, recipe, training()), {"losses": [], "gradients": {}}
    for step in range(STEPS):
        value = loss(shared(*inputs(MASKED, torch.float32, number)), number)
        shared.backward(value)
        if not step:
            seen["gradients"] = {name: safe_get_full_grad(p).clone() for name, p in model.named_parameters()}
        shared.step()
        seen["losses"].append(value.item())
    shared.destroy()
    return seen


# ---- what is checked


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    """What each rank saw."""
    folder = tmp_path_factory.mktemp("sequence")
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@cache
def alone(case: str, dtype: str, groups: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the velocities and the gradients of the mean loss of so many micro-batches, in one process."""
    model = build(case, DTYPES[dtype])
    velocities = [model(*inputs(CASES[case][1], DTYPES[dtype], number)) for number in range(groups)]
    losses = [loss(velocity, number) for number, velocity in enumerate(velocities)]
    torch.stack(losses).mean().backward()
    return velocities, gradients_of(model)


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name] - tensor).abs().max() <= tolerance * max(1, tensor.abs().max()), name


each_sharing = pytest.mark.parametrize(("case", "dtype", "ranks"), [*itertools.product(CASES, DTYPES, SHARED_BY)])


@pytest.mark.long
@each_sharing
def test_every_rank_gets_the_velocity_that_one_process_computes(seen, case, dtype, ranks):
    velocities, _ = alone(case, dtype, RANKS // ranks)
    for rank in range(RANKS):
        own = {"velocity": seen[rank][case, dtype, ranks]["velocity"]}
        assert_close(own, {"velocity": velocities[rank // ranks]}, TOLERANCE[dtype])
        assert torch.equal(own["velocity"], seen[rank // ranks * ranks][case, dtype, ranks]["velocity"])


@pytest.mark.long
@each_sharing
def test_gradients_averaged_over_all_ranks_are_those_of_one_process(seen, case, dtype, ranks):
    _, gradients = alone(case, dtype, RANKS // ranks)
    each = [own[case, dtype, ranks]["gradients"] for own in seen]
    averaged = {name: sum(own[name] for own in each) / RANKS for name in each[0]}
    assert_close(averaged, gradients, TOLERANCE[dtype])


@pytest.mark.long
def test_a_rank_holds_its_share_of_the_moments_and_in_temporal_attention_of_the_places(seen):
    whole = [SAMPLES, MOMENTS // 2, PLACES // 2, SETTINGS.width]
    assert seen[0]["shapes"] == seen[1]["shapes"]
    assert seen[0]["shapes"] == {
        "spatial_attention": whole,
        "temporal_attention": [SAMPLES, MOMENTS, PLACES // 4, SETTINGS.width],
        "cross_attention": whole,
        "ffn": whole,
    }


@pytest.mark.long
def test_neighbours_share_and_a_group_of_one_is_none(seen):
    assert [own["groups"] for own in seen] == [[[0, 1], None], [[0, 1], None], [[2, 3], None], [[2, 3], None]]


@pytest.mark.long
def test_what_cannot_be_shared_out_is_refused(seen):
    messages = (
        "6 temporal tokens cannot be shared by training.sequence_ranks = 4: use a divisor of 6",
        "3 spatial tokens cannot be shared by training.sequence_ranks = 4: use 3 at most",
        "training.temporal_mask_ratio above 0",
        "4 ranks cannot be grouped by training.sequence_ranks = 3: use a divisor of 4",
        "an image model has one temporal token",
    )
    for own in seen:
        for said, message in zip(own["refused"], messages, strict=True):
            assert message in said


@pytest.mark.long
def test_zero_reduces_to_the_gradients_of_one_process(seen):
    _, gradients = alone("masked", "float32", 2)
    assert_close(seen[0]["zero"]["gradients"], gradients, TOLERANCE["float32"])


@pytest.mark.long
def test_training_under_zero_goes_the_same_way_on_all_ranks_of_a_group(seen):
    first, second, third, fourth = (own["zero"]["losses"] for own in seen)
    assert first == second != third == fourth
    assert first[-1] < first[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranks": 4, "sequence_ranks": 3}, r"training\.sequence_ranks is 3, .*training\.ranks is 4"),
        ({"ranks": 4, "sequence_ranks": 2, "temporal_mask_ratio": 0.5}, "training.temporal_mask_ratio"),
    ],
)
def test_settings_that_share_unevenly_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings.model_validate(training().model_dump() | changes)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
