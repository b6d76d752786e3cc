import pytest

from stiv_model.distributed.zero_sizes import elements
from stiv_model.monitoring import costs, memory_estimate


@pytest.mark.parametrize(("precision", "per_parameter"), [("float32", 4 + 4 + 12 + 4), ("bfloat16", 2 + 2 + 12 + 4)])
def test_one_gpu_holds_weights_gradients_master_weights_moments_and_average(deep, training, precision, per_parameter):
    model = costs.build_on_meta(deep, is_video=True)
    held = memory_estimate.per_gpu(model, training.model_copy(update={"precision": precision}), world=1)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert sum(held) - held.gathered - held.buckets - held.update == per_parameter * count


def test_more_gpus_hold_a_share_each_but_the_blocks_in_use(deep, training):
    model = costs.build_on_meta(deep, is_video=True)
    one, eight = (memory_estimate.per_gpu(model, training, world) for world in (1, 8))
    outside = elements(model) - 5 * elements(model.main_blocks[0])
    assert eight.gathered == one.gathered == 4 * (outside + 2 * elements(model.main_blocks[0]))
    assert eight.buckets == one.buckets
    for part in ("parameters", "gradients", "optimizer", "ema", "update"):
        assert getattr(eight, part) == pytest.approx(getattr(one, part) / 8, rel=0.01), part


def test_lower_zero_stages_leave_parameters_and_gradients_whole(deep, training):
    model = costs.build_on_meta(deep, is_video=True)
    stages = {
        stage: memory_estimate.per_gpu(model, training.model_copy(update={"zero_stage": stage}), 8)
        for stage in range(4)
    }
    whole = 4 * elements(model)
    assert [stages[stage].parameters == whole for stage in stages] == [True, True, True, False]
    assert [stages[stage].gradients == whole for stage in stages] == [True, True, False, False]
    assert [stages[stage].ema == whole for stage in stages] == [True, False, False, False]
    assert stages[0].optimizer == 3 * whole > stages[1].optimizer == stages[3].optimizer
