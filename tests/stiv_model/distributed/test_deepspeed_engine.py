"""Models built, filled and shared out by ZeRO on real ranks. As a script, this file is 1 rank, then 2, then 3."""

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from stiv_model.distributed import deepspeed_engine, rank_state
from stiv_model.distributed.ema import Ema
from stiv_model.network.block import StivBlock
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import LearnedSettings, ModelSettings, TrainingSettings
from stiv_model.training.spike_guard import Guard
from stiv_model.weights import initialisation
from tests.stiv_model import ranks as real
from tests.stiv_model import runs

SEED, STEPS = 7, 3
RECIPE = runs.RECIPE.model_copy(update={"batch": 6})
HOW: dict[str, dict[str, Any]] = {
    "0": {"zero_stage": 0},
    "1": {"zero_stage": 1},
    "2": {"zero_stage": 2},
    "2 offloaded": {"zero_stage": 2, "offload": "cpu"},
    "3": {"zero_stage": 3},
    "3 persistent": {"zero_stage": 3, "persistent_parameters": 100},
    "3 whole": {"zero_stage": 3, "persistent_parameters": 1_000_000},
    "3 offloaded": {"zero_stage": 3, "activation_checkpointing": True, "offload": "cpu"},
    "0 bfloat16": {"zero_stage": 0, "precision": "bfloat16"},
    "1 bfloat16": {"zero_stage": 1, "precision": "bfloat16"},
    "2 bfloat16": {"zero_stage": 2, "precision": "bfloat16"},
    "3 bfloat16": {"zero_stage": 3, "precision": "bfloat16"},
    "3 whole bfloat16": {"zero_stage": 3, "persistent_parameters": 1_000_000, "precision": "bfloat16"},
}


def training_of(**changes: Any) -> TrainingSettings:
    return runs.TRAINING.model_copy(update={"seed": SEED, **changes})


# ---- what each rank does


def main(root: Path) -> None:
    settings = ModelSettings.model_validate_json((root / "model.json").read_text())
    for ranks in (1, 2, 3):
        real.fork(run_rank, ranks, root, ranks, settings)


def run_rank(rank: int, root: Path, ranks: int, settings: ModelSettings) -> None:
    deepspeed_engine.start(training_of(ranks=ranks))
    torch.set_num_threads(1)
    seen: dict[str, Any] = {
        precision: started(settings, training_of(ranks=ranks, precision=precision))
        for precision in ("float32", "bfloat16")
    }
    if ranks == 2:
        seen |= {name: trained(settings, training_of(**how)) for name, how in HOW.items()}
        seen["resumed"] = resumed(settings, root)
    if ranks == 1:
        seen["refused"] = refused(settings)
    if rank == 0:
        torch.save(seen, root / f"{ranks}.pt")


def started(settings: ModelSettings, training: TrainingSettings) -> dict[str, Any]:
    """Return what a rank holds of a model that was built, and what the model starts from."""
    model = deepspeed_engine.build(settings, True, RECIPE, training)
    parameters: dict[str, Any] = dict(model.named_parameters())
    slices = {name: (p.numel(), p.ds_tensor.numel(), p.ds_tensor.dtype) for name, p in parameters.items()}
    engine = deepspeed_engine.engine(model, RECIPE, training)
    deepspeed_engine.start_from(engine, partial(initialisation.fill, settings, True, SEED))
    end = {"slices": slices, "masters": whole(engine), "computing": computing(engine)}
    engine.destroy()
    return end


def whole(engine: Any) -> dict[str, Tensor]:
    return average(Ema(engine, 0.9))


def average(ema: Ema) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in ema.each()}


def computing(engine: Any) -> dict[str, Tensor]:
    """Return the weights that the next forward pass will use."""
    from deepspeed import zero as deepspeed_zero

    parameters = dict(engine.module.named_parameters())
    with deepspeed_zero.GatheredParameters(list(parameters.values())):
        return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def trained(settings: ModelSettings, training: TrainingSettings) -> dict[str, Any]:
    model = deepspeed_engine.build(settings, True, RECIPE, training)
    model.activation_checkpointing = training.activation_checkpointing
    engine = deepspeed_engine.engine(model, RECIPE, training)
    deepspeed_engine.start_from(engine, partial(initialisation.fill, settings, True, SEED))
    norms: list[float] = []
    guard = Guard(training, {})

    def judge(norm: float) -> bool:
        norms.append(norm)
        return guard.judge(1.0, norm) is None

    deepspeed_engine.judge_before_update(engine, judge)
    end = {"losses": [step(engine, number) for number in range(STEPS)], "masters": whole(engine)}
    step(engine, STEPS, poisoned=True)
    end["after a NaN"] = whole(engine)
    step(engine, STEPS)
    engine.destroy()
    return end | {"after a good step": whole(engine), "norms": norms}


def resumed(settings: ModelSettings, root: Path) -> dict[tuple[str, int, int], list[Any]]:
    """Return what a run does that goes on in another stage, by optimizer and the stages before and after."""
    seen = {}
    for kind in ("adamw", "adafactor"):
        optimizer = runs.TRAINING.optimizer.model_copy(update={"kind": kind})
        for before in range(4):
            folder = root / f"{kind}-{before}"
            if dist.get_rank() == 0:
                folder.mkdir()
            dist.barrier()
            for after in (before, *(stage for stage in range(4) if stage != before)):
                training = training_of(zero_stage=after, optimizer=optimizer)
                engine = deepspeed_engine.engine(
                    deepspeed_engine.build(settings, True, RECIPE, training), RECIPE, training
                )
                deepspeed_engine.start_from(engine, partial(initialisation.fill, settings, True, SEED))
                ema = Ema(engine, 0.9)
                if after == before:
                    for number in range(STEPS):
                        step(engine, number)
                        ema.update(number)
                    rank_state.write(folder / rank_state.file_name(dist.get_rank()), engine, ema)
                    dist.barrier()
                else:
                    rank_state.read(folder, 2, engine, ema)
                seen[kind, before, after] = [whole(engine), average(ema), step(engine, STEPS), whole(engine)]
                engine.destroy()
    return seen


def step(engine: Any, number: int, poisoned: bool = False) -> float:
    """Take a step; `poisoned`: one value of one sample of the last rank is not a number."""
    generator = torch.Generator().manual_seed(number)
    width, dtype = engine.module.settings.text_width, next(engine.module.parameters()).dtype
    shapes = ((4, 4, 8, 8), (), (3, width), (width,), (len(MICRO_CONDITIONS),))
    own = slice(dist.get_rank(), None, dist.get_world_size())
    x, time, tokens, pooled, micro = (torch.randn(RECIPE.batch, *shape, generator=generator)[own] for shape in shapes)
    if poisoned and dist.get_rank() == dist.get_world_size() - 1:
        x[0, 0, 0, 0, 0] = torch.nan
    x, time, tokens, pooled, micro = (part.to(dtype) for part in (x, time, tokens, pooled, micro))
    text = Text(tokens, torch.ones(len(x), 3, dtype=torch.bool), pooled)
    loss = (engine(x, time, text, micro).float() - x.roll(1, 1).float()).square().mean()
    engine.backward(loss)
    engine.step()
    total = loss.detach() / dist.get_world_size()
    dist.all_reduce(total)
    return total.item()


def hand_out(given: dict[str, Tensor], take: initialisation.Take) -> None:
    for name, value in given.items():
        take(name, value)


def refused(settings: ModelSettings) -> list[str]:
    """Return what is said to weights that are not those of the model."""
    training, said = training_of(ranks=1), []
    engine = deepspeed_engine.engine(deepspeed_engine.build(settings, True, RECIPE, training), RECIPE, training)
    bias = torch.zeros(dict(engine.module.named_parameters())["patch_out.bias"].ds_shape)
    for given in ({}, {"patch_out.bias": bias[1:]}, {"patch_of.bias": bias}):
        try:
            deepspeed_engine.start_from(engine, partial(hand_out, given))
        except ValueError as error:
            said.append(str(error))
    engine.destroy()
    return said


# ---- what is checked

# A minute of real ranks. What `make test` needs of this is in test_train, test_adafactor and test_checkpoints: stage 3.
of_ranks = pytest.mark.long


@pytest.fixture(scope="module")
def small() -> ModelSettings:
    """No dimension is a multiple of 2 and 3 alike, so that slices are padded on 2 or on 3 ranks."""
    positions = LearnedSettings(kind="learned", rows=4, columns=4, num_temporal=2, std=0.5)
    return runs.SETTINGS.model_copy(
        update={"width": 20, "heads": 1, "ffn_ratio": 1.5, "positions": positions, "temporal_gain": 0.2}
    )


@pytest.fixture(scope="module")
def plain(small: ModelSettings) -> dict[str, Tensor]:
    """The weights of a model that is built whole."""
    torch.manual_seed(SEED)
    return {name: weight.detach() for name, weight in StivTransformer(small, is_video=True).named_parameters()}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, small: ModelSettings) -> dict[int, dict[str, Any]]:
    """What the first rank of 1, 2 and 3 saw."""
    root = tmp_path_factory.mktemp("zero")
    (root / "model.json").write_text(small.model_dump_json())
    real.run_script(__file__, training_of(), root, timeout=600)
    return {ranks: torch.load(root / f"{ranks}.pt") for ranks in (1, 2, 3)}


@of_ranks
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_any_number_of_ranks_starts_from_the_weights_of_a_model_built_whole(seen, plain, ranks, precision):
    masters = seen[ranks][precision]["masters"]
    assert masters.keys() == plain.keys()
    for name, weight in plain.items():
        assert torch.equal(masters[name], weight), name  # not rounded to bfloat16


@of_ranks
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_weights_that_compute_are_those_rounded(seen, plain, ranks, precision):
    for name, weight in seen[ranks][precision]["computing"].items():
        assert torch.equal(weight, plain[name].to(getattr(torch, precision))), name


@of_ranks
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_built_model_is_in_no_process_whole(seen, plain, ranks):
    for name, (here, share, dtype) in seen[ranks]["bfloat16"]["slices"].items():
        assert (here, dtype) == (0, torch.bfloat16), name
        assert share == -(-plain[name].numel() // ranks), name


@of_ranks
@pytest.mark.parametrize("how", [how for how in HOW if "bfloat16" not in how])
def test_every_zero_stage_learns_the_same(seen, how):
    """Within rounding: gradients are added up in another order, and AdamW's first steps are as long for tiny ones."""
    assert seen[2][how]["losses"] == pytest.approx(seen[2]["3"]["losses"], rel=1e-5)
    for name, weight in seen[2][how]["masters"].items():
        torch.testing.assert_close(weight, seen[2]["3"]["masters"][name], atol=2 * STEPS * RECIPE.learning_rate, rtol=0)


@of_ranks
@pytest.mark.parametrize("how", HOW)
def test_a_nan_in_one_sample_on_one_rank_changes_no_weight_and_the_next_good_step_does(seen, how):
    run = seen[2][how]
    assert [math.isfinite(norm) for norm in run["norms"]] == [*[True] * STEPS, False, True]
    for name, weight in run["after a NaN"].items():
        assert torch.equal(weight, run["masters"][name]), name
    assert all(weight.isfinite().all() for weight in run["after a good step"].values())
    assert not torch.equal(run["after a good step"]["patch_out.weight"], run["after a NaN"]["patch_out.weight"])


@of_ranks
@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_a_checkpoint_of_one_stage_goes_on_in_another(seen, kind, before, after):
    weights, average, loss, then = seen[2]["resumed"][kind, before, after]
    same_weights, same_average, same_loss, same_then = seen[2]["resumed"][kind, before, before]
    assert loss == pytest.approx(same_loss, rel=1e-5)
    for name, weight in weights.items():
        assert torch.equal(weight, same_weights[name]), name
        assert torch.equal(average[name], same_average[name]), name
        # the step after needs the moments: without them AdamW's and Adafactor's would be several times as long
        torch.testing.assert_close(then[name], same_then[name], atol=RECIPE.learning_rate / 10, rtol=0)


@of_ranks
def test_weights_of_another_model_are_refused(seen):
    nothing, misshapen, unknown = seen[1]["refused"]
    assert "parameters are not given" in nothing
    assert "patch_out.bias is given as (31,), the model has (32,)" in misshapen
    assert "patch_of.bias" in unknown


VARIANTS = {
    "image": (False, {}),
    "video": (True, {}),
    "learned positions, not silent": (
        True,
        {
            "positions": LearnedSettings(kind="learned", rows=4, columns=4, num_temporal=2, std=0.5),
            "temporal_gain": 0.2,
        },
    ),
    "per layer": (True, {"adaln": "per_layer", "temporal_modulation": True, "image_condition": "both"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_initial_weights_one_at_a_time_are_those_of_a_model_built_whole(settings, variant):
    is_video, changes = VARIANTS[variant]
    settings = settings.model_copy(update=changes)
    torch.manual_seed(SEED)
    wanted = dict(StivTransformer(settings, is_video).named_parameters())
    given: dict[str, Tensor] = {}
    initialisation.fill(settings, is_video, SEED, lambda name, value: given.update({name: value.clone()}))
    assert given.keys() == wanted.keys()
    for name, value in given.items():
        assert torch.equal(value, wanted[name]), name


def test_only_whole_blocks_are_gathered_and_the_buckets_are_one_block(settings):
    model = StivTransformer(settings, is_video=True)
    how = deepspeed_engine.configuration(model, RECIPE, training_of())["zero_optimization"]
    block = next(module for module in model.modules() if isinstance(module, StivBlock))
    assert how["reduce_bucket_size"] == sum(parameter.numel() for parameter in block.parameters())
    assert how["stage3_max_live_parameters"] < sum(parameter.numel() for parameter in model.parameters())


def test_an_nvme_drive_without_libaio_is_refused_at_the_door(monkeypatch):
    monkeypatch.setattr(deepspeed_engine.AsyncIOBuilder, "is_compatible", lambda self: False)
    with pytest.raises(ValueError, match=r"training\.offload is nvme, .*libaio"):
        deepspeed_engine.start(training_of(offload="nvme", nvme_path="/nowhere"))


@pytest.mark.parametrize(
    "changes",
    [
        {"offload": "nvme"},
        {"nvme_path": "drive"},
        {"offload": "nvme", "nvme_path": "drive", "zero_stage": 2},
        {"offload": "cpu", "zero_stage": 0},
    ],
)
def test_an_offload_that_cannot_be_is_refused(changes):
    with pytest.raises(ValueError, match=r"training\.offload is"):
        TrainingSettings.model_validate(training_of(**changes).model_dump())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
