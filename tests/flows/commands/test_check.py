from pathlib import Path

import pytest
import torch

from flows.commands.check import check_device
from flows.params import load_params

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("key", ["encoders", "sampling"])
def test_a_gpu_that_a_stage_needs_and_this_machine_lacks_is_refused_at_the_door(key):
    devices = PARAMS.devices.model_copy(update={key: "cuda"})
    with pytest.raises(ValueError, match=rf"^devices\.{key} is cuda, .*set it to cpu"):
        check_device(key, {"devices": devices, "engine": PARAMS.engine})


def test_the_gpus_of_other_machines_are_not_looked_for_here():
    devices = PARAMS.devices.model_copy(update={"encoders": "cuda"})
    check_device("encoders", {"devices": devices, "engine": PARAMS.engine.model_copy(update={"kind": "ray"})})
