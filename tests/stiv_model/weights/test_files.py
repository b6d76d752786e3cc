import pytest
import torch
from safetensors.torch import load_file, save_file

from stiv_model.weights import files
from stiv_model.weights.metadata import WEIGHTS
from tests.stiv_model.held import Held


def test_saved_weights_load_as_they_were(lively, settings, inputs, tmp_path):
    model = lively(is_video=True)
    files.save(tmp_path, model.state_dict().items(), settings, is_video=True)
    assert torch.equal(files.load(tmp_path)(*inputs), model(*inputs))


def test_weights_are_written_without_being_in_memory_together(lively, settings, tmp_path):
    own = lively(is_video=True).state_dict()
    with Held() as held:
        files.save(tmp_path, ((name, weight + 1) for name, weight in own.items()), settings, is_video=True)
    largest = max(weight.nbytes for weight in own.values())
    assert largest <= held.peak <= 3 * largest  # the one written, its copy, and the next


def test_weights_of_another_model_are_not_written(lively, settings, tmp_path):
    with pytest.raises(ValueError, match=r"model\.safetensors: \d+ .*main_blocks\.0\.temporal"):
        files.save(
            tmp_path,
            lively(is_video=False).state_dict().items(),
            settings.model_copy(update={"temporal_patch": 1}),
            is_video=True,
        )


def test_weights_that_replace_others_leave_them_to_who_reads_them(lively, settings, tmp_path):
    model = lively(is_video=True)
    files.save(tmp_path, model.state_dict().items(), settings, is_video=True)
    before = files.load(tmp_path)
    files.save(tmp_path, ((n, w + 1) for n, w in model.state_dict().items()), settings, is_video=True)
    for name, weight in files.load(tmp_path).state_dict().items():
        assert torch.equal(before.state_dict()[name], model.state_dict()[name]), name
        assert torch.equal(weight, model.state_dict()[name] + 1), name


def test_weights_that_no_training_made_do_not_say_that_they_are_averaged(lively, settings, tmp_path):
    files.save(tmp_path, lively(is_video=True).state_dict().items(), settings, is_video=True)
    assert files.averaged(tmp_path / WEIGHTS) is None


def test_missing_unknown_and_misshapen_weights_are_named_with_their_file(lively, settings, tmp_path):
    files.save(tmp_path, lively(is_video=True).state_dict().items(), settings, is_video=True)
    tensors = load_file(tmp_path / WEIGHTS)
    tensors["patch_of.bias"] = tensors.pop("patch_out.bias").clone()
    tensors["mask_token"] = torch.zeros(5)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "renamed.safetensors")
    (tmp_path / "renamed.safetensors").rename(tmp_path / WEIGHTS)
    with pytest.raises(ValueError) as refused:
        files.load(tmp_path)
    for part in (
        str(tmp_path / WEIGHTS),
        "1 missing: patch_out.bias",
        "1 unknown: patch_of.bias",
        "mask_token (5,), wanted (32,)",
    ):
        assert part in str(refused.value)


def test_a_damaged_file_is_named(lively, settings, tmp_path):
    files.save(tmp_path, lively(is_video=True).state_dict().items(), settings, is_video=True)
    (tmp_path / WEIGHTS).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"model\.safetensors .*\("):
        files.load(tmp_path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="t2v"):
        files.load(tmp_path / "t2v")
