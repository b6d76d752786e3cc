import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from stiv_model.weights.streaming_file import StreamedFile

TENSORS = {
    "a.bias": torch.arange(5.0),
    "a.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "b": torch.tensor(7.0),
    "none": torch.zeros(0, 2),
    "turned": torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).T,
}
SHAPES = {name: tensor.shape for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("metadata", [None, {"averaged": 'ema 0.9 after "7" steps'}])
@pytest.mark.parametrize("order", [sorted, lambda names: reversed(sorted(names))], ids=["in order", "backwards"])
def test_a_streamed_file_is_what_safetensors_writes(tmp_path, metadata, order):
    with StreamedFile(tmp_path / "streamed", SHAPES, metadata) as file:
        for name in order(TENSORS):
            file.put(name, TENSORS[name])
    save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, tmp_path / "saved", metadata)
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "saved").read_bytes()


def test_all_bytes_are_seen_in_the_order_in_which_they_are_written(tmp_path):
    digest = hashlib.sha256()
    with StreamedFile(tmp_path / "file", SHAPES, {"random": "7"}, digest.update) as file:
        for name, tensor in TENSORS.items():
            file.put(name, tensor)
    assert digest.hexdigest() == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()


def test_tensors_lie_in_the_order_in_which_they_were_announced(tmp_path):
    with StreamedFile(tmp_path / "file", {"z": [2], "a": [1]}, None) as file:
        file.put("a", torch.tensor([3.0]))
        file.put("z", torch.tensor([1.0, 2.0]))
    assert (tmp_path / "file").read_bytes()[-12:] == torch.tensor([1.0, 2.0, 3.0]).numpy().tobytes()
    assert load_file(tmp_path / "file")["a"].tolist() == [3.0]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("c", torch.zeros(5), r"file: c\b"),
        ("b", torch.tensor(7.0), "b is put once more"),
        (
            "a.bias",
            torch.zeros(4),
            r"a\.bias is put as torch\.float32 \(4,\), but was announced as torch\.float32 \(5,\)",
        ),
        ("a.bias", torch.zeros(5).half(), r"a\.bias is put as torch\.float16 \(5,\)"),
    ],
)
def test_what_was_not_announced_is_refused(tmp_path, name, tensor, message):
    with pytest.raises(ValueError, match=message), StreamedFile(tmp_path / "file", SHAPES, None) as file:
        file.put("b", TENSORS["b"])
        file.put(name, tensor)


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path):
    message = r"4 tensors were not put, a\.bias first"
    with pytest.raises(ValueError, match=message), StreamedFile(tmp_path / "file", SHAPES, None) as file:
        file.put("b", TENSORS["b"])


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "file").write_bytes(b"of another")
    with pytest.raises(FileExistsError):
        StreamedFile(tmp_path / "file", SHAPES, None)
    assert (tmp_path / "file").read_bytes() == b"of another"
