"""What is written for clips is what is read of them, and nothing is believed that a file says of itself."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from stiv_model.latents.shard_files import Shard, block_bytes, cut, entries, write
from tests.stiv_model.runs import MADE_BY, load

SIDES = st.lists(st.integers(1, 5), min_size=4, max_size=4)


def some_tensors(clips: int, frames: list[int], tokens: int, width: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "latents": torch.randn(clips, *frames).half(),
        "tokens": torch.randn(clips, tokens, width).half(),
        "mask": torch.rand(clips, tokens) < 0.5,
        "pooled": torch.randn(clips, width),
    }


@settings(deadline=None, max_examples=40)
@given(clips=st.integers(1, 4), sides=SIDES, tokens=st.integers(1, 70), width=st.integers(1, 40))
def test_what_is_written_is_read(tmp_path_factory, clips, sides, tokens, width):
    path = tmp_path_factory.mktemp("shard") / "part.safetensors"
    tensors = some_tensors(clips, sides, tokens, width)
    write(path, tensors, MADE_BY)
    read = load(path)
    assert list(read) == list(tensors)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    shard = Shard(path)
    assert shard.made_by == MADE_BY
    out = cut(torch.empty(block_bytes(shard.tensors, 1), dtype=torch.uint8), shard.tensors, 1)
    assert shard.read_from_memory(clips - 1, entries(out)[0])  # in one call: it was just written
    assert all(torch.equal(out[name][0], tensor[-1]) for name, tensor in tensors.items())


def test_an_entry_is_contiguous_in_a_file_that_safetensors_reads(tmp_path):
    path, tensors = tmp_path / "part.safetensors", some_tensors(3, [2, 4, 3, 3], 5, 12)
    write(path, tensors, MADE_BY)
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["clips"]
        clips, entry = file.get_tensor("clips"), json.loads(file.metadata()["entry"])
    for name, _, shape, start in entry:
        part = tensors[name][1].contiguous().view(torch.uint8).flatten()
        assert start % 64 == 0
        assert shape == list(tensors[name].shape[1:])
        assert torch.equal(clips[1][start : start + len(part)], part)
    assert clips.shape[1] % 64 == 0


def test_the_same_tensors_give_the_same_bytes_in_whatever_order_they_come(tmp_path):
    tensors = some_tensors(2, [2, 4, 3, 3], 5, 12)
    write(tmp_path / "one", tensors, MADE_BY)
    write(tmp_path / "two", dict(reversed(tensors.items())), dict(reversed(MADE_BY.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_system_that_gives_less_than_asked_is_asked_again(tmp_path, monkeypatch):
    path, tensors = tmp_path / "part.safetensors", some_tensors(2, [2, 4, 3, 3], 5, 12)
    write(path, tensors, MADE_BY)
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, place: whole(fd, [views[0][:7] or views[1][:7]], place))
    assert all(torch.equal(load(path)[name], tensor) for name, tensor in tensors.items())


def test_what_has_no_place_in_an_entry_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"part .*no place for motion"):
        write(tmp_path / "part", {"motion": torch.zeros(1, 1)}, {})
    with pytest.raises(ValueError, match=r"torch\.float64"):
        write(tmp_path / "part", {"latents": torch.zeros(1, 1, dtype=torch.float64)}, {})


def test_a_shard_of_an_earlier_release_is_refused_with_the_remedy(tmp_path):
    save_file(some_tensors(2, [2, 4, 3, 3], 5, 12), tmp_path / "shard-00000.safetensors", metadata=MADE_BY)
    with pytest.raises(ValueError, match=r"^[^\n]*shard-00000\.safetensors .*earlier release.*make the latents again"):
        Shard(tmp_path / "shard-00000.safetensors")


def with_entry(header: dict, *entry: object) -> dict:
    return header | {"__metadata__": {"entry": json.dumps(entry)}}


def of_clips(header: dict, **values: object) -> dict:
    return header | {"clips": header["clips"] | values}


@pytest.mark.parametrize(
    "change",
    [
        lambda header: with_entry(header, ["latents", "F64", [4], 0]),
        lambda header: with_entry(header, ["latents", "F16", [4], -2]),
        lambda header: with_entry(header, ["latents", "F16", [4], 0.0]),
        lambda header: with_entry(header, ["latents", "F16", [0], 0]),
        lambda header: with_entry(header, ["latents", "F16", [-1, -4], 0]),
        lambda header: with_entry(header, ["latents", "F16", [2**70], 0]),
        lambda header: with_entry(header, ["latents", "F16", "4", 0]),
        lambda header: with_entry(header, ["latents", "F16", [4], 64]),
        lambda header: with_entry(header, ["latents", "F16", [4], 0], ["tokens", "F16", [4], 4]),
        lambda header: with_entry(header, ["latents", "F16", [4], 0], ["tokens", "F16", [4], 72]),
        lambda header: with_entry(header, ["latents", "F16", [4], 0], ["latents", "F16", [4], 8]),
        lambda header: with_entry(header),
        lambda header: header | {"__metadata__": {}},
        lambda header: header | {"__metadata__": {"entry": "["}},
        lambda header: header | {"more": header["clips"]},
        lambda header: {"__metadata__": header["__metadata__"]},
        lambda header: of_clips(header, dtype="I8"),
        lambda header: of_clips(header, shape=[4, 64]),
        lambda header: of_clips(header, shape=[2.0, 128.0]),
        lambda header: of_clips(header, shape=[0, 128], data_offsets=[0, 0]),
        lambda header: of_clips(header, data_offsets=[64, 320]),
    ],
)
def test_a_header_that_lies_is_refused_by_the_name_of_its_file(tmp_path: Path, change):
    path = tmp_path / "part-00000.safetensors"
    write(path, {"latents": torch.zeros(2, 4).half(), "tokens": torch.zeros(2, 4).half()}, {})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = json.dumps(change(json.loads(content[8 : 8 + length]))).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(ValueError, match=r"part-00000\.safetensors is not a shard of latents \("):
        Shard(path)


def test_a_file_longer_or_shorter_than_its_entries_is_refused(tmp_path):
    path = tmp_path / "part-00000.safetensors"
    write(path, {"latents": torch.zeros(2, 4).half()}, {})
    content = path.read_bytes()
    for other in (content[:-1], content + b"\0"):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=rf"part-00000\.safetensors has {len(other)} bytes, .* {len(content)}:"):
            Shard(path)
