"""`benchmarks/device.py` on a machine without a GPU: what it says, and its paths on the CPU."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import device
from flows.params import Params, load_params

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(Path(__file__).parents[1] / "params.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_every_part_says_so_and_nothing_fails(tmp_path, capsys):
    device.main(["--json", str(tmp_path / "device.json")])
    said = capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "device.json").read_text())
    assert set(found) == {"machine", *device.SECONDS}
    for part in device.SECONDS:
        assert f"{part}: not measured: no CUDA device" in said
        assert found[part] == "not measured: no CUDA device"
    assert (found["machine"]["torch"], found["machine"]["device"]) == (torch.__version__, None)


def test_the_parts_end_within_ten_minutes():
    assert sum(device.SECONDS.values()) < 600


def test_encoding_is_measured_on_the_device_beside_the_cpu(params):
    short = params.model_copy(update={"text": params.text.model_copy(update={"batch": 1, "tokens": 4})})
    found = device.encode(params, short, CPU, clips=2)
    assert found["largest difference of latents"] == 0 and found["within the tolerance of 1e-5"]
    assert found["embedded float32"]["ratio"] > 0
    assert found["full size bfloat16"]["clips_per_second"] > 0
    assert found["captions per second, full size, bfloat16"] > 0


@pytest.mark.long
def test_stage_latents_is_compared_between_the_device_and_the_cpu(params):
    found = device.stage_on_both(params, CPU, videos=3)
    assert found["clips"] == 3 and found["tables are equal but for hashes of tensors"]
    assert found["largest difference of latents as stored"] == 0 and found["within two steps of float16"]


def test_sampling_is_measured_on_the_device_beside_the_cpu(params):
    quick = params.model_copy(update={"sampler": params.sampler.model_copy(update={"steps": 2})})
    found = device.sample(quick, quick, CPU, torch.float32, videos=1)
    assert found["largest difference of latents from the CPU, small model, float32"] == 0
    assert found["is finite"] and found["tflops"] > 0
