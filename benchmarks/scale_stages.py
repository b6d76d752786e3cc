"""Points of benchmarks/scale.py for the stages that work in shards: their own process's part, from inputs to output.

The shards are worked on by another process, which makes rows out of nothing: what that costs is not counted.
"""

import hashlib
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from tasks.storage.shards import Shard
    from tasks.storage.stage import Stage

ROOT = Path(__file__).parents[1]
_GROUP = 100_000
_SHOTS_OF_VIDEO = 8
STILL = b"\xff\xd8 a still \xff\xd9"

Run = Callable[[Path], None]


def filled(count: int, schema: pa.Schema, columns: dict[str, Any]) -> pa.RecordBatch:
    """Return rows with these columns; the others hold one number, or nothing."""
    arrays = [
        pa.array(columns[field.name], type=field.type)
        if field.name in columns
        else pa.array(np.full(count, 0.5))
        if field.type == pa.float64()
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _write(path: Path, rows: int, schema: pa.Schema, columns: Callable[[int, int], dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, rows, _GROUP):
            count = min(_GROUP, rows - first)
            writer.write_batch(filled(count, schema, columns(first, count)), 4096)


def sha256(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def make_listing(folder: Path, rows: int) -> None:
    from tasks.videos import sources

    def columns(first: int, count: int) -> dict[str, Any]:
        names = [f"{number:09d}.mp4" for number in range(first, first + count)]
        return {"uri": names, "size_bytes": np.full(count, 10**7), "version": ["1700000000000000000"] * count}

    _write(folder / "listing.parquet", rows, sources.LISTING, columns)


def make_videos(folder: Path, rows: int) -> None:
    """As many videos as have so many shots."""
    from tasks.storage import tables

    def columns(first: int, count: int) -> dict[str, Any]:
        numbers = range(first, first + count)
        known = {"uri": [f"{number:09d}.mp4" for number in numbers], "video": [sha256(number) for number in numbers]}
        return known | {"status": ["ok"] * count, "seconds": np.full(count, 20.0), "fps": np.full(count, 24.0)}

    _write(folder / "videos" / tables.VIDEO_TABLE, rows // _SHOTS_OF_VIDEO, tables.VIDEOS, columns)


def _clips(first: int, count: int) -> dict[str, Any]:
    from tasks.storage import tables

    videos = [f"{number // _SHOTS_OF_VIDEO << 20:016x}{'0' * 48}" for number in range(first, first + count)]
    clips = [tables.clip_id(video, number % 8, number % 8 + 1) for number, video in enumerate(videos, first)]
    known = {"clip": clips, "video": videos, "uri": [f"{video}.mp4" for video in videos], "status": ["ok"] * count}
    words = ["a person walks along a street in the evening"] * count
    return known | {"caption": words, "start_pts": np.arange(count), "end_pts": np.arange(count) + 1}


def make_shots(folder: Path, rows: int) -> None:
    """Shots with a folder of stills that has no file: none is read."""
    from tasks.storage import parts, stills, tables

    _write(folder / "shots" / tables.SHOT_TABLE, rows, tables.SHOTS, _clips)
    (folder / "shots" / stills.FOLDER).mkdir()
    parts.write(folder / "shots" / stills.FOLDER, parts.choose(rows // _SHOTS_OF_VIDEO, None), {})


def make_scored(folder: Path, rows: int) -> None:
    """Shots that an earlier run has scored, all of them."""
    make_shots(folder, rows)
    scores()(folder)
    shutil.rmtree(folder / "scores")


def make_clips(folder: Path, rows: int) -> None:
    from tasks.storage import tables

    def columns(first: int, count: int) -> dict[str, Any]:
        return _clips(first, count) | {"orientation": ["landscape"] * count, "colours": [["grey", "green"]] * count}

    def splits(first: int, count: int) -> dict[str, Any]:
        videos = [f"{video << 20:016x}{'0' * 48}" for video in range(first, first + count)]
        return {"video": videos, "status": ["ok"] * count, "shots": [_SHOTS_OF_VIDEO] * count}

    _write(folder / "clips" / tables.CLIP_TABLE, rows, tables.CLIPS, columns)
    _write(folder / "shots" / tables.SPLIT_TABLE, rows // _SHOTS_OF_VIDEO, tables.SPLITS, splits)


def run_alone(stage: "Stage", folder: Path, make_shard: Callable[["Shard", Path], None]) -> None:
    """Run a stage here whose shards are made by `make_shard` (shard, product) in another process."""
    from tasks.storage import stage as stages

    def run_shards(declared: "Stage", work_on: Callable[["Shard"], None], parts: "list[Shard]") -> None:
        product = folder / f"{declared.name}.partial/product"
        worker = multiprocessing.get_context("spawn").Process(target=make_all, args=(make_shard, parts, product))
        worker.start()
        worker.join()
        assert worker.exitcode == 0, f"the shards of {declared.name} were not made"

    out, report = folder / stage.name, folder / f"{stage.name}.json"
    stages.run(stage, out, report, "code", run_shards, folder / "earlier")


def make_all(make_shard: Callable[["Shard", Path], None], parts: "list[Shard]", product: Path) -> None:
    for part in parts:
        make_shard(part, product)


def _given(shard: "Shard") -> pa.Table:
    from tasks.storage import shards

    return pa.Table.from_batches(shards.batches_of(shard)).combine_chunks()


def _made(path: Path, count: int, schema: pa.Schema, columns: dict[str, Any]) -> None:
    pq.write_table(pa.Table.from_batches([filled(count, schema, columns)]), path, compression="zstd")


def make_video_shard(shard: "Shard", product: Path) -> None:
    from tasks.storage import tables

    uris = _given(shard)["uri"].combine_chunks()
    videos = [hashlib.sha256(uri.encode()).hexdigest() for uri in uris.to_pylist()]
    _made(shard.path, len(uris), tables.VIDEOS, {"uri": uris, "video": videos, "status": ["ok"] * len(uris)})


def no_pictures(clip: str) -> list[bytes]:
    return [STILL] * 4


def make_shot_shard(shard: "Shard", product: Path, pictures: Callable[[str], list[bytes]] = no_pictures) -> None:
    from tasks.storage import stills, tables
    from tasks.videos.split import shots_of

    given = _given(shard).to_pylist()
    videos = [row["video"] for row in given]
    numbers = range(_SHOTS_OF_VIDEO)
    clips = [tables.clip_id(video, number, number + 1) for video in videos for number in numbers]
    of_clips = [video for video in videos for _ in numbers]
    known = {"clip": clips, "video": of_clips, "uri": of_clips, "status": ["ok"] * len(clips)}
    _made(shots_of(shard), len(clips), tables.SHOTS, known)
    of_parts: dict[int, list[dict[str, Any]]] = {}
    for row in given:
        own = (tables.clip_id(row["video"], number, number + 1) for number in numbers)
        of_parts.setdefault(row["part"], []).extend({"clip": clip, "stills": pictures(clip)} for clip in own)
    for part, rows in of_parts.items():
        stills.write_part(product / stills.FOLDER, part, rows)
    counts = {"shots": [_SHOTS_OF_VIDEO] * len(videos), "frames": [480] * len(videos)}
    _made(shard.path, len(videos), tables.SPLITS, {"video": videos, "status": ["ok"] * len(videos)} | counts)


def make_score_shard(shard: "Shard", product: Path) -> None:
    from tasks.storage import tables

    given = _given(shard)
    known = {name: given[name].combine_chunks() for name in tables.SHOTS.names}
    hashes = [digest.encode()[:32] for digest in map(sha256, range(len(given)))]
    _made(shard.path, len(given), tables.SCORES, known | {"video_hash": hashes})


def make_caption_shard(shard: "Shard", product: Path) -> None:
    from tasks.storage import tables

    given = _given(shard)
    known = {"clip": given["clip"].combine_chunks(), "status": ["ok"] * len(given)}
    words = {"captioner": ["sidecar"] * len(given), "text": given["caption"].combine_chunks()}
    words["short"] = words["text"]
    words |= {"rules": [[]] * len(given), "of_whole_video": given["of_whole_video"].combine_chunks()}
    _made(shard.path, len(given), tables.CAPTIONS, known | words)


def videos() -> Run:
    """Stage videos, over a source that is listed already."""
    from flows.params import load_params
    from tasks.storage import queries
    from tasks.videos.probe import Videos

    params = load_params(ROOT / "params.yaml")

    class Listed(Videos):
        def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
            return queries.read([Path(self.source)])

    def run(folder: Path) -> None:
        run_alone(Listed(str(folder / "listing.parquet"), params.videos, params.sandbox), folder, make_video_shard)

    return run


def shots() -> Run:
    """Stage shots, of eight to each video."""
    from flows.params import load_params
    from tasks.videos.split import Shots

    params = load_params(ROOT / "params.yaml")

    def run(folder: Path) -> None:
        run_alone(Shots("raw", folder / "videos", params.shots, params.sandbox), folder, make_shot_shard)

    return run


def scores() -> Run:
    """Stage scores; where an earlier run has made all of them, it takes them over."""
    from flows.params import load_params
    from tasks.scores.stage import Scores

    settings = load_params(ROOT / "params.yaml").scores.model_copy(update={"text_detector": "strokes"})

    def run(folder: Path) -> None:
        run_alone(Scores(folder / "shots", settings), folder, make_score_shard)

    return run


def captions() -> Run:
    """Stage captions by Sidecar and Describe."""
    from flows.params import load_params
    from tasks.captions.stage import Captions

    params = load_params(ROOT / "params.yaml")

    def run(folder: Path) -> None:
        run_alone(
            Captions(folder / "clips", folder / "shots", folder / "docs", params.captions, params.text),
            folder,
            make_caption_shard,
        )

    return run
