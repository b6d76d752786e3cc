import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from flows.params import load_params
from stiv_model.latents import shard_files
from tasks.latents import encoders
from tasks.latents.encode import SUFFIX, Latents
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic, parts, queries, tables
from tasks.storage.shards import Shard
from tasks.storage.stage import RunShards, Stage, in_turn, run

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


VIDEOS = 6


@pytest.fixture(scope="module")
def raw(write_video, moving_frames, tmp_path_factory) -> Path:
    """Videos of a second."""
    folder = tmp_path_factory.mktemp("raw")
    for number in range(VIDEOS):
        write_video(folder / f"{number}.mp4", moving_frames(24, x_step=1, background=60 + 30 * number))
    return folder


@pytest.fixture
def workspace(raw, tmp_path, monkeypatch) -> Path:
    """Some videos, each of which is a clip, in the order of their sha256, as stage clips has them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(raw, tmp_path / "raw")
    clips = []
    for number in range(VIDEOS):
        video = atomic.sha256_file(raw / f"{number}.mp4")
        clips.append(
            {"clip": tables.clip_id(video, 0, 24 * 512), "video": video, "uri": f"{number}.mp4", "status": "ok"}
            | {"start_pts": 0, "end_pts": 24 * 512, "time_base": "1/12288", "width": 96, "height": 96, "licence": "CC0"}
            | {"aesthetic": 5.0 + number, "motion": 1.0}
        )
    (tmp_path / "clips").mkdir()
    tables.write_rows(tmp_path / "clips" / tables.CLIP_TABLE, sorted(clips, key=lambda row: row["video"]), tables.CLIPS)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def sandbox() -> Iterator[Sandbox]:
    """One for all runs: to start it takes longer than they do."""
    with Sandbox(PARAMS.sandbox) as opened:
        OPENED.append(opened)
        yield opened
    OPENED.clear()


OPENED: list[Sandbox] = []


def captioned(workspace: Path) -> list[dict]:
    return tables.read_rows(workspace / "clips" / tables.CLIP_TABLE, tables.CLIPS)


def encode(
    workspace: Path,
    out: str,
    captions: list[str],
    run_shards: RunShards = in_turn,
    categories: Path | None = None,
    **settings: float,
) -> tables.Account:
    """Encode the clips that have a caption, in the order of the table."""
    rows = [
        {"clip": clip["clip"], "status": "ok", "captioner": "sidecar", "text": text}
        for clip, text in zip(captioned(workspace), captions, strict=False)
    ]
    (workspace / "captions").mkdir(exist_ok=True)
    tables.write_rows(workspace / "captions" / tables.CAPTION_TABLE, rows, tables.CAPTIONS)
    stage = Latents(
        "raw",
        workspace / "clips",
        workspace / "captions",
        PARAMS.latents.model_copy(update={"shard_clips": 2, "max_failed_fraction": 0.5} | settings),
        PARAMS.vae,
        PARAMS.text,
        PARAMS.sandbox,
        lambda _: nullcontext(OPENED[0]),
        categories=categories,
    )
    (account,) = run(stage, workspace / out, workspace / f"{out}.json", "c", run_shards)
    return account


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    for clip in captioned(workspace)[:2]:
        (workspace / "raw" / clip["uri"]).unlink()  # so that it cannot be
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
    part, *_ = (workspace / ".cache").rglob("part-*.safetensors")
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    encode(workspace, "second", ["one", "two"])
    assert by_clip(workspace / "second") == good


def test_a_raw_video_that_is_gone_costs_its_clip_a_row(workspace):
    (workspace / "raw" / captioned(workspace)[1]["uri"]).unlink()
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
    before = {file.name: file.stat().st_mtime_ns for file in (workspace / "at_once.partial/product").glob("part-*")}
    encode(workspace, "at_once", captions, at_once)
    assert before and {name: (workspace / "at_once" / name).stat().st_mtime_ns for name in before} == before
    made, again = contents(workspace / "in_turn"), contents(workspace / "at_once")
    numbers = {parts.number(clip["clip"], 4) for clip in captioned(workspace)[:4]}
    assert made.keys() == {"encoders.json", "latents.parquet", "null_text.safetensors", parts.FILE, parts.HASHES} | {
        parts.file_name(number, SUFFIX) for number in numbers
    }
    assert made == again
    assert not (workspace / "at_once.partial").exists()


FEW, ALL = ["one", "two", "three", "four", "five"], ["one", "two", "three", "four", "five", "six"]


def part_of(workspace: Path, clip: int) -> str:
    """Return the name of the part of one of the clips, where there are four."""
    return parts.file_name(parts.number(captioned(workspace)[clip]["clip"], 4), SUFFIX)


ANEW: dict[tuple[str, ...], dict[str, bytes]] = {}


def anew(workspace: Path, captions: list[str]) -> dict[str, bytes]:
    """Return what a run makes from nothing, the same for all tests."""
    if tuple(captions) not in ANEW:
        shutil.rmtree(workspace / ".cache", ignore_errors=True)
        encode(workspace, "anew", captions)
        ANEW[tuple(captions)] = contents(workspace / "anew")
    return ANEW[tuple(captions)]


def written(before: Path, after: Path) -> set[str]:
    """Return the parts of a folder that are no links to files of another."""
    known = {file.stat().st_ino for file in before.iterdir()}
    return {file.name for file in parts.files(after, SUFFIX) if file.stat().st_ino not in known}


def test_an_added_video_writes_its_part_and_no_other(workspace):
    encode(workspace, "first", FEW)
    encode(workspace, "second", ALL)
    assert written(workspace / "first", workspace / "second") == {part_of(workspace, 5)}
    assert contents(workspace / "second") == anew(workspace, ALL)


def test_a_caption_that_changed_writes_the_part_of_its_clip_and_no_other(workspace):
    encode(workspace, "first", FEW)
    changed = ["other", *FEW[1:]]
    encode(workspace, "second", changed)
    assert written(workspace / "first", workspace / "second") == {part_of(workspace, 0)}
    assert contents(workspace / "second") == anew(workspace, changed)


def test_a_score_that_changed_writes_no_part_and_is_in_the_row(workspace):
    encode(workspace, "first", FEW)
    rows = [row | {"aesthetic": 1.0} for row in captioned(workspace)]
    tables.write_rows(workspace / "clips" / tables.CLIP_TABLE, rows, tables.CLIPS)
    encode(workspace, "second", FEW)
    assert not written(workspace / "first", workspace / "second")
    found = tables.read_rows(workspace / "second" / "latents.parquet", tables.LATENTS)
    assert [row["aesthetic"] for row in found] == [1.0] * len(FEW)


def categorised(workspace: Path, kinds: list[str], weight: float | None) -> Path:
    """Give the clips categories; of the last the model's answer was none."""
    rows = [
        {"clip": clip["clip"], "status": "ok", "category": kind, "weight": weight}
        for clip, kind in zip(captioned(workspace), kinds, strict=False)
    ]
    rows[-1] |= {"status": "failed", "reason": "malformed"}
    folder = workspace / "categories"
    folder.mkdir(exist_ok=True)
    tables.write_rows(folder / tables.CATEGORY_TABLE, rows, tables.CATEGORIES)
    return folder


def test_categories_are_in_the_rows_where_they_have_weights_and_a_change_of_them_writes_no_part(workspace):
    kinds = [f"kind{number % 2}" for number in range(len(FEW))]
    encode(workspace, "first", FEW)
    encode(workspace, "second", FEW, categories=categorised(workspace, kinds, None))
    assert contents(workspace / "second") == contents(workspace / "first")
    encode(workspace, "third", FEW, categories=categorised(workspace, kinds, 0.5))
    assert not written(workspace / "first", workspace / "third")
    found = tables.read_rows(workspace / "third" / "latents.parquet", tables.LATENTS)
    assert [(row["category"], row["category_weight"]) for row in found] == [(kind, 0.5) for kind in kinds]


def test_a_clip_without_a_category_is_not_lost_in_silence(workspace):
    few = categorised(workspace, ["kind"] * (len(FEW) - 1), 1.0)
    with pytest.raises(AssertionError, match="does not balance: 1 without a row"):
        encode(workspace, "first", FEW, categories=few)


def test_a_clip_that_is_gone_writes_its_part_and_no_other(workspace):
    encode(workspace, "first", ALL)
    encode(workspace, "second", FEW)
    assert written(workspace / "first", workspace / "second") <= {part_of(workspace, 5)}
    assert contents(workspace / "second") == anew(workspace, FEW)


def test_a_clip_that_failed_is_tried_again_and_its_part_is_another(workspace):
    gone = workspace / "raw" / captioned(workspace)[1]["uri"]
    content = gone.read_bytes()
    gone.unlink()
    assert encode(workspace, "first", FEW).failed == 1
    gone.write_bytes(content)
    assert encode(workspace, "second", FEW).failed == 0
    assert written(workspace / "first", workspace / "second") == {part_of(workspace, 1)}
    assert contents(workspace / "second") == anew(workspace, FEW)


KILLED = {
    "link": (atomic, "link_anew", 2),
    "parts": (parts, "write", 1),
    "table": (queries, "write", 1),
    "rename": (Path, "rename", 1),
}


@pytest.mark.parametrize("place", KILLED)
def test_killed_anywhere_the_output_is_the_same(workspace, monkeypatch, place):
    encode(workspace, "out", FEW)
    room, name, times = KILLED[place]
    left, original = [None] * (times - 1), getattr(room, name)

    def killed(*args, **kwargs):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return original(*args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(room, name, killed)
        encode(workspace, "out", ALL)
    encode(workspace, "out", ALL)
    assert contents(workspace / "out") == anew(workspace, ALL)


def test_a_part_that_is_left_of_a_killed_attempt_goes_when_its_clips_fail_now(workspace):
    with pytest.raises(KeyboardInterrupt):
        encode(workspace, "out", FEW, killed_after_writing)
    lost = captioned(workspace)[:1]
    (workspace / "raw" / lost[0]["uri"]).unlink()
    encode(workspace, "out", FEW)
    named = {row["shard"] for row in tables.read_rows(workspace / "out" / "latents.parquet", tables.LATENTS)} - {None}
    assert {file.name for file in parts.files(workspace / "out", SUFFIX)} == named
    assert parts.read(workspace / "out").sha256.keys() == named


def killed_after_writing(stage: Stage, work_on: Callable[[Shard], None], parts: list[Shard]) -> None:
    """Leave the files of the first shard's parts, but not its table."""
    work_on(parts[0])
    parts[0].path.unlink()
    raise KeyboardInterrupt


def fewer(folder: Path) -> None:
    (folder / parts.FILE).write_text((folder / parts.FILE).read_text().replace('"parts": 4', '"parts": 2'))


def without_one(folder: Path) -> None:
    parts.files(folder, SUFFIX)[0].unlink()


def cut_short(folder: Path) -> None:
    file = parts.files(folder, SUFFIX)[0]
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("change", [fewer, without_one, cut_short])
def test_parts_that_are_not_what_was_written_are_named_and_made_again(workspace, caplog, change):
    encode(workspace, "first", FEW)
    wanted = contents(workspace / "first")
    [earlier] = (workspace / ".cache" / "earlier" / "latents").glob("*/")
    change(earlier)
    encode(workspace, "second", FEW)
    assert "nothing is reused" in caplog.text and ("part-" in caplog.text or parts.FILE in caplog.text)
    assert contents(workspace / "second") == wanted


def test_parts_are_bounded_in_bytes(workspace):
    each = encoders.entry_bytes(encoders.Encoding(PARAMS.vae, PARAMS.text, "cpu"), PARAMS.latents)
    encode(workspace, "first", FEW)
    file = parts.files(workspace / "first", SUFFIX)[0]
    held = shard_files.Shard(file)
    assert held.entry_bytes == each
    encode(workspace, "second", FEW, part_bytes=len(FEW) * each / 5)
    assert (parts.read(workspace / "first").number, parts.read(workspace / "second").number) == (4, 8)
    assert by_clip(workspace / "first") == by_clip(workspace / "second")
    with pytest.raises(
        ValueError, match=rf"latents.part_bytes is 1, but 5 clips of {each} bytes .*: set it to \d+ or more$"
    ):
        encode(workspace, "third", FEW, part_bytes=1)


def test_a_worker_with_other_encoders_than_the_stage_is_refused(workspace):
    def with_others(stage: Stage, work_on: Callable[[Shard], None], todo: list[Shard]) -> None:
        partial(work_on, made_by={"vae_sha256": "0", "text_sha256": "1"})(todo[0])

    with pytest.raises(ValueError, match=r"vae.source .* on this machine, and .* where the stage was started"):
        encode(workspace, "out", FEW, with_others)


def test_tables_that_are_not_in_the_order_of_their_videos_are_refused(workspace):
    rows = captioned(workspace)
    tables.write_rows(workspace / "clips" / tables.CLIP_TABLE, rows[::-1], tables.CLIPS)
    with pytest.raises(ValueError, match=r"clips\.parquet is not in the order of its videos: run the stage"):
        encode(workspace, "out", FEW)
