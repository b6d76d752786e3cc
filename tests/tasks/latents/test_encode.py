import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.params import load_params
from stiv_model.latents import shard_files
from tasks.latents.encode import Latents
from tasks.storage import atomic, tables
from tasks.storage.shards import Shard
from tasks.storage.stage import RunShards, Stage, in_turn, run

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture
def workspace(tmp_path, write_video, moving_frames, monkeypatch) -> Path:
    """Four videos of a second, each of which is a clip with a caption."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    clips = []
    for number in range(4):
        path = write_video(tmp_path / "raw" / f"{number}.mp4", moving_frames(24, x_step=1, background=60 + 30 * number))
        video = atomic.sha256_file(path)
        clips.append(
            {"clip": tables.clip_id(video, 0, 24 * 512), "video": video, "uri": path.name, "status": "ok"}
            | {"start_pts": 0, "end_pts": 24 * 512, "time_base": "1/12288", "width": 96, "height": 96, "licence": "CC0"}
            | {"aesthetic": 5.0 + number, "motion": 1.0}
        )
    (tmp_path / "clips").mkdir()
    tables.write_rows(tmp_path / "clips" / tables.CLIP_TABLE, clips, tables.CLIPS)
    return tmp_path


def encode(workspace: Path, out: str, captions: list[str], run_shards: RunShards = in_turn) -> tables.Account:
    """Encode the clips that have a caption, in the order of the table."""
    clips = tables.read_rows(workspace / "clips" / tables.CLIP_TABLE, tables.CLIPS)
    rows = [
        {"clip": clip["clip"], "status": "ok", "captioner": "sidecar", "text": text}
        for clip, text in zip(clips, captions, strict=False)
    ]
    (workspace / "captions").mkdir(exist_ok=True)
    tables.write_rows(workspace / "captions" / tables.CAPTION_TABLE, rows, tables.CAPTIONS)
    stage = Latents(
        "raw",
        workspace / "clips",
        workspace / "captions",
        PARAMS.latents.model_copy(update={"shard_clips": 2, "max_failed_fraction": 0.5}),
        PARAMS.vae,
        PARAMS.text,
        PARAMS.sandbox,
    )
    (account,) = run(stage, workspace / out, workspace / f"{out}.json", "c", run_shards)
    return account


def by_clip(folder: Path) -> dict[str, tuple]:
    """Return the clip's tensors as bytes, and its row without its place."""
    found = {}
    for row in tables.ok(tables.read_rows(folder / "latents.parquet", tables.LATENTS)):
        tensors = shard_files.Shard(folder / row["shard"]).clip(row["row"])
        parts = tuple(tensors[name].numpy().tobytes() for name in sorted(tensors))
        found[row["clip"]] = (parts, {name: value for name, value in row.items() if name not in ("shard", "row")})
    return found


def test_what_was_encoded_is_not_encoded_again_when_clips_are_added(workspace):
    encode(workspace, "first", ["one", "two"])
    for number in (0, 1):
        (workspace / "raw" / f"{number}.mp4").unlink()  # so that it cannot be
    assert encode(workspace, "second", ["one", "two", "three", "four"])[:5] == ("clips", 4, 4, 0, 0)
    before, after = by_clip(workspace / "first"), by_clip(workspace / "second")
    assert {clip: after[clip] for clip in before} == before
    assert {row["licence"] for _, row in after.values()} == {"CC0"}


def test_a_clip_with_another_caption_is_encoded_again(workspace):
    encode(workspace, "first", ["one", "two"])
    encode(workspace, "second", ["one", "another"])
    before, after = by_clip(workspace / "first"), by_clip(workspace / "second")
    assert [before[clip] == after[clip] for clip in before] == [True, False]


def test_a_latent_that_went_bad_since_is_encoded_again(workspace):
    encode(workspace, "first", ["one", "two"])
    good = by_clip(workspace / "first")
    [shard] = (workspace / ".cache").rglob("shard-*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    encode(workspace, "second", ["one", "two"])
    assert by_clip(workspace / "second") == good


def test_a_raw_video_that_is_gone_costs_its_clip_a_row(workspace):
    (workspace / "raw" / "1.mp4").unlink()
    account = encode(workspace, "latents", ["one", "two", "three"])
    assert account[1:] == (3, 2, 0, 1, {"not_found": 1})


def at_once(stage: Stage, work_on: Callable[[Shard], None], parts: list[Shard]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work_on, reversed([part for part in parts if not part.is_done])))


def killed_after_one(stage: Stage, work_on: Callable[[Shard], None], parts: list[Shard]) -> None:
    work_on(parts[0])
    raise KeyboardInterrupt


def test_the_files_are_the_same_bytes_whoever_runs_the_shards_and_wherever_it_was_killed(workspace):
    captions = ["one", "two", "three", "four"]
    encode(workspace, "in_turn", captions)
    shutil.rmtree(workspace / ".cache")  # so that nothing is taken over
    with pytest.raises(KeyboardInterrupt):
        encode(workspace, "at_once", captions, killed_after_one)
    first = workspace / "at_once.partial/product/shard-00000.safetensors"
    before = first.stat().st_mtime_ns
    encode(workspace, "at_once", captions, at_once)
    assert (workspace / "at_once/shard-00000.safetensors").stat().st_mtime_ns == before
    made, again = (
        {path.name: path.read_bytes() for path in (workspace / out).iterdir()} for out in ("in_turn", "at_once")
    )
    assert sorted(made) == [
        "encoders.json",
        "latents.parquet",
        "null_text.safetensors",
        "shard-00000.safetensors",
        "shard-00001.safetensors",
    ]
    assert made == again
    assert not (workspace / "at_once.partial").exists()
