import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import made_latents
from stiv_model.latents import shard_files
from stiv_model.latents.dataset import LatentData
from stiv_model.latents.shard_files import TEXT_PARTS, TEXT_SHA256, Shard, write
from stiv_model.settings import NULL_TEXT
from stiv_model.training.prefetch import ReadAhead
from tasks.storage import tables
from tests.stiv_model.runs import RECIPE, load, make_latents

MADE_BY = {"vae_sha256": "v", "text_sha256": "t"}


def edit(latents, change, clip=None) -> None:
    """Change the rows of the table, or the one of `clip`."""
    rows = tables.read_rows(latents / "latents.parquet", tables.LATENTS)
    rows = [row | change(row) if clip in (None, row["clip"]) else row for row in rows]
    tables.write_rows(latents / "latents.parquet", rows, tables.LATENTS)


def test_a_batch_holds_what_the_shards_hold(latents):
    data = LatentData(latents, RECIPE)
    batch = data.batch([7, 0, 9])
    assert batch.samples == [7, 0, 9]
    for place, clip in enumerate(data.samples.clip(sample) for sample in batch.samples):
        shard, row = clip.split("-")[1:]
        tensors = load(latents / f"shard-{shard}.safetensors")
        assert torch.equal(batch.latents_BFCHW[place], tensors["latents"][int(row)])
        assert torch.equal(batch.text.tokens_BLE[place], tensors["tokens"][int(row)])
        assert torch.equal(batch.text.mask_BL[place], tensors["mask"][int(row)])
        assert torch.equal(batch.text.pooled_BE[place], tensors["pooled"][int(row)])
    assert batch.micro_BM[0].tolist() == [48, 64, 0, 8, 3, 4]


def test_a_batch_on_a_device_is_float32_with_the_same_values(latents):
    stored = LatentData(latents, RECIPE).batch([3, 4])
    moved = stored.to(torch.device("cpu"))
    assert moved.latents_BFCHW.dtype == moved.text.tokens_BLE.dtype == moved.text.pooled_BE.dtype == torch.float32
    assert torch.equal(moved.latents_BFCHW, stored.latents_BFCHW.float())
    assert torch.equal(moved.text.mask_BL, stored.text.mask_BL)


def test_a_batch_that_is_kept_is_not_overwritten_by_later_ones(latents):
    data = LatentData(latents, RECIPE)
    kept = [data.batch([index]).latents_BFCHW[0, 1:] for index in range(5)]  # a part of each, the rest let go
    for index, latent in enumerate(kept):
        assert torch.equal(latent, LatentData(latents, RECIPE).batch([index]).latents_BFCHW[0, 1:])


def test_memory_of_a_batch_that_nobody_keeps_is_used_again(latents):
    data = LatentData(latents, RECIPE)
    assert len({data.batch([index]).latents_BFCHW.data_ptr() for index in range(5)}) == 1


def test_best_fraction_takes_the_best_by_aesthetic_score(latents):
    data = LatentData(latents, RECIPE.model_copy(update={"best_fraction": 0.3}))
    assert [sample.clip for sample in data.samples] == ["clip-0-3", "clip-0-4", "clip-0-5"]  # of two with 3, the first
    assert (data.given, data.left_out) == (10, 7)


@pytest.mark.parametrize("file", ["shard-1.safetensors", NULL_TEXT])
def test_shards_of_different_encoders_are_refused(latents, file):
    write(latents / file, load(latents / file), MADE_BY | {"vae_sha256": "another"})
    with pytest.raises(ValueError, match=r"different encoders.*another"):
        LatentData(latents, RECIPE)


def test_a_shard_that_does_not_say_who_made_it_is_refused(latents):
    save_file(load_file(latents / "shard-0.safetensors"), latents / "shard-0.safetensors")
    with pytest.raises(ValueError, match=r"shard-0.*__metadata__"):
        LatentData(latents, RECIPE)


def test_shards_of_different_shapes_are_refused(latents):
    tensors = load(latents / "shard-1.safetensors")
    tensors["latents"] = tensors["latents"][:, :2]
    write(latents / "shard-1.safetensors", tensors, MADE_BY)
    with pytest.raises(ValueError, match=r"shard-1.*other shapes"):
        LatentData(latents, RECIPE)


def test_a_shard_shorter_than_its_header_says_is_refused(latents):
    shard = latents / "shard-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"shard-1\S* .*\d+ bytes, .*\d+"):
        LatentData(latents, RECIPE)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02" + bytes(7) + b"[]"])
def test_a_file_that_is_no_shard_is_refused_by_name(latents, content):
    (latents / "shard-1.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-1.safetensors .*\((\w+Error|a header of \d+ bytes)"):
        LatentData(latents, RECIPE)


def test_a_missing_shard_is_named_with_the_clips_it_costs(latents):
    (latents / "shard-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-1.safetensors .*\b4\b"):
        LatentData(latents, RECIPE)


def open_shards(folder: Path) -> int:
    links = (link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return sum(link.parent == folder and link.name.startswith("shard-") for link in links)


def test_more_shards_than_may_be_open_are_opened_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_files, "_MOST_OPEN", 2)
    folder = make_latents(tmp_path / "latents", clips=(2, 1, 3, 2, 2))
    data = LatentData(folder, RECIPE)
    assert open_shards(folder) == 0  # every header was looked at
    for samples in ([0, 9], [3, 4, 6, 8, 1], range(10)):
        batch = data.batch(list(samples))
        for place, number in enumerate(samples):
            shard, row = data.samples[number].clip.split("-")[1:]
            assert torch.equal(
                batch.latents_BFCHW[place], load(folder / f"shard-{shard}.safetensors")["latents"][int(row)]
            )
        assert open_shards(folder) <= 2


def test_a_process_may_open_as_many_files_as_its_hard_limit_says(latents):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        LatentData(latents, RECIPE)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_shard_that_is_another_one_by_now_is_refused_with_the_clip(latents):
    data = LatentData(latents, RECIPE)
    write(latents / "shard-1.safetensors", load(latents / "shard-1.safetensors"), MADE_BY | {"vae_sha256": "another"})
    with pytest.raises(OSError, match=r"clip-1-2 \(row 2 of .*shard-1\S*\) cannot be read: .*different encoders"):
        data.batch([8])


@pytest.mark.long  # 2,000 files in a process of its own
def test_thousands_of_shards_can_be_read_with_few_descriptors(tmp_path):
    made_latents.make_latents(tmp_path / "latents", 4000, part_clips=2)
    script = (
        "import sys; from pathlib import Path; from stiv_model.latents.dataset import LatentData; "
        "from tests.stiv_model.runs import RECIPE; data = LatentData(Path(sys.argv[1]), RECIPE); "
        "print(sum(data.shards[number].rows for number in range(2000)))"
    )
    command = f"ulimit -n 256 && {sys.executable} -c '{script}' {tmp_path / 'latents'}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["4000"], done.stderr


@pytest.mark.parametrize("column", ["sha256", "text_sha256"])
def test_what_is_no_hash_is_refused_by_its_column(latents, column):
    edit(latents, lambda row: {column: "00"}, clip="clip-1-2")
    with pytest.raises(ValueError, match=rf"latents\.parquet: {column} of a clip is no sha256"):
        LatentData(latents, RECIPE)


@pytest.mark.parametrize("column", ["shard", "row", "sha256", "text_sha256", "aesthetic", "crop_top"])
def test_an_ok_row_that_lacks_something_is_refused_with_its_clip(latents, column):
    edit(latents, lambda row: {column: None}, clip="clip-1-2")
    with pytest.raises(ValueError, match=rf"clip-1-2 .*\b{column}"):
        LatentData(latents, RECIPE.model_copy(update={"best_fraction": 0.1}))


@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_beyond_its_shard_is_refused_even_where_best_fraction_leaves_it_out(latents, row):
    edit(latents, lambda _: {"row": row}, clip="clip-1-0")
    with pytest.raises(ValueError, match=rf"clip-1-0 .*\brow {row} .*shard-1.safetensors.*\b4\b"):
        LatentData(latents, RECIPE.model_copy(update={"best_fraction": 0.1}))


def test_two_clips_in_one_place_are_refused(latents):
    edit(latents, lambda _: {"row": 2}, clip="clip-1-0")
    with pytest.raises(ValueError, match=r"clip-1-\d and clip-1-\d .*\brow 2 of .*shard-1"):
        LatentData(latents, RECIPE)


def test_a_clip_with_two_rows_is_refused(latents):
    edit(latents, lambda _: {"clip": "clip-0-0"}, clip="clip-1-0")
    with pytest.raises(ValueError, match=r"clip-0-0"):
        LatentData(latents, RECIPE)


def test_no_usable_clip_is_an_error_and_not_zero_batches(latents):
    edit(latents, lambda _: {"status": "failed", "reason": "timeout"})
    with pytest.raises(ValueError, match="no usable clip"):
        LatentData(latents, RECIPE)


def flip_a_bit(latents, part="latents") -> None:
    """In the latent or text of clip-1-2, without a change to the length or header of its shard."""
    shard = latents / "shard-1.safetensors"
    tensors = load(shard)
    tensors[part][2].view(-1)[:1].view(torch.uint8)[0] ^= 1
    write(shard, tensors, MADE_BY)


@pytest.mark.parametrize("part", ["latents", *TEXT_PARTS])
def test_a_clip_with_one_bit_flipped_is_refused_when_it_is_read_and_others_are_not(latents, part):
    flip_a_bit(latents, part)
    data = LatentData(latents, RECIPE)
    index = [sample.clip for sample in data.samples].index("clip-1-2")
    data.batch([other for other in range(10) if other != index])
    what = "latents" if part == "latents" else "text features"
    with pytest.raises(ValueError, match=rf"clip-1-2 \(row 2 of .*shard-1.safetensors\) has {what} with sha256"):
        data.batch([index])


@pytest.mark.parametrize("part", TEXT_PARTS)
def test_a_null_text_with_one_bit_flipped_is_refused(latents, part):
    tensors, sha256 = load(latents / NULL_TEXT), Shard(latents / NULL_TEXT).text_sha256
    tensors[part].view(-1)[:1].view(torch.uint8)[0] ^= 1
    write(latents / NULL_TEXT, tensors, MADE_BY | {TEXT_SHA256: sha256})
    with pytest.raises(ValueError, match=r"null_text.safetensors has other text features"):
        LatentData(latents, RECIPE)


def test_a_table_of_an_earlier_release_is_refused_with_the_remedy(latents):
    table = pq.read_table(latents / "latents.parquet").drop_columns("text_sha256")
    pq.write_table(table, latents / "latents.parquet")
    with pytest.raises(ValueError, match=r"column text_sha256"):
        LatentData(latents, RECIPE)


def test_a_shard_that_ends_while_training_reads_it_names_the_clip(latents):
    data = LatentData(latents, RECIPE)
    with (latents / "shard-1.safetensors").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(OSError, match=r"clip-1-3 \(row 3 of .*shard-1.safetensors\)"):
        data.batch([9])


def test_an_error_ahead_comes_in_its_place_and_names_the_clip(latents):
    flip_a_bit(latents)
    data = LatentData(latents, RECIPE)
    with ReadAhead(lambda index: data.batch([index]).samples, range(10), depth=4) as batches:
        for number in range(8):
            assert next(batches) == [number]
        for _ in range(2):
            with pytest.raises(ValueError, match="clip-1-2"):
                next(batches)


@pytest.mark.parametrize("claimed", [2 << 30, 2**63 - 1, 2**64 - 1])
def test_a_header_that_claims_to_be_large_is_refused_unread(tmp_path, claimed):
    path = tmp_path / "shard-00000.safetensors"
    with path.open("wb") as file:
        file.write(claimed.to_bytes(8, "little"))
        file.truncate((2 << 30) + 8)  # sparse: nothing on the disk
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"a header of {claimed} bytes"):
            Shard(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
