"""Made tables of any length, with the columns and the kinds of values that the stages write."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.storage import atomic, parts, queries, stills, tables

_BATCH = 65_536  # rows made at once
COLOURS = np.array(["grey", "blue", "brown", "black", "white", "green", "red", "yellow"])


def write_scores(path: Path, rows: int, seed: int = 0) -> None:
    """Write a table of scores; its scores spread over the thresholds, and no two video hashes are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    queries.write(path, _batches(scored, rows, seed), tables.SCORES)


def write_clips(path: Path, rows: int, seed: int = 0) -> None:
    """Write a table of clips: all scored shots, of which every fourth is rejected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    queries.write(path, _batches(_judged, rows, seed), tables.CLIPS)


def write_captions(path: Path, rows: int, seed: int = 0) -> None:
    """Write captions of the clips of such a table, by two captioners."""
    path.parent.mkdir(parents=True, exist_ok=True)
    queries.write(path, _batches(_captioned, rows, seed), tables.CAPTIONS)


def write_stills(shots: Path, rows: int, seed: int = 0) -> None:
    """Write the stills of such a table's shots into the folder of stage shots, far smaller than real ones are."""
    folder = shots / stills.FOLDER
    folder.mkdir(parents=True)
    number = parts.choose(rows // 8, None)
    written: dict[str, str] = {}
    of_part: list[dict[str, Any]] = []
    for batch in _batches(scored, rows, seed):
        names = batch["clip"].to_pylist()
        for name, part in zip(names, parts.numbers(names, number).tolist(), strict=True):
            if of_part and part != parts.number(of_part[-1]["clip"], number):
                _write_part(folder, of_part, number, written)
                of_part = []
            of_part.append({"clip": name, "stills": [b"a still", b"another"]})
    _write_part(folder, of_part, number, written)
    parts.write(folder, number, written)


def _write_part(folder: Path, rows: list[dict[str, Any]], number: int, written: dict[str, str]) -> None:
    path = stills.write_part(folder, parts.number(rows[0]["clip"], number), rows)
    written[path.name] = atomic.sha256_file(path)


def _batches(make: Callable[[int, int, int, int], pa.RecordBatch], rows: int, seed: int) -> Iterator[pa.RecordBatch]:
    for first in range(0, rows, _BATCH):
        yield make(first, min(_BATCH, rows - first), rows, seed)


def scored(first: int, count: int, rows: int, seed: int) -> pa.RecordBatch:
    """Return rows as stage scores writes them, with scores that spread over the thresholds."""
    random = np.random.default_rng([seed, first])
    number = np.arange(first, first + count)
    sides = np.array([256, 480, 720, 1080, 2160])[random.integers(0, 5, count)]
    scores = [field.name for field in tables.SCORES if field.type == pa.float64()]
    made = {name: random.beta(2, 2, count) for name in scores}
    made |= {"motion": random.gamma(2, 0.6, count), "aesthetic": 10 * random.beta(5, 3, count)}
    made |= {"text_area": random.beta(1, 12, count), "temporal_consistency": random.beta(20, 1, count)}
    made |= {"flicker": random.beta(1, 30, count), "frozen": random.beta(1, 20, count)}
    made |= {"black_bars": random.beta(1, 20, count), "nsfw": np.full(count, np.nan)}
    # rising, and spread over all that there can be
    videos = [f"{((int(n) // 8) << 64) // -(-rows // 8):016x}".ljust(64, "0") for n in number]
    start, length = 9000 * (number % 8), 100 * random.integers(10, 90, count)
    choice = random.integers(0, 8, (count, 2))
    caption = [f"video {n}: a person walks along a street in the evening" if n % 3 else None for n in number]
    columns = made | {
        "clip": [f"{video[:20]}-{a}-{a + b}" for video, a, b in zip(videos, start, length, strict=True)],
        "video": videos,
        "uri": [f"{video}.mp4" for video in videos],
        "start_pts": start * 30,
        "end_pts": (start + length) * 30,
        "time_base": ["1/90000"] * count,
        "frames": length // 100,
        "transition": np.array(["cut", "fade", "start"])[random.integers(0, 3, count)],
        "status": ["ok"] * count,
        "width": sides * 16 // 9,
        "height": sides,
        "caption": caption,
        "orientation": np.array(["landscape", "portrait", "square"])[random.integers(0, 3, count)],
        "colours": COLOURS[choice].tolist(),
        "video_hash": [row.tobytes() for row in random.integers(0, 256, (count, 32), np.uint8)],
    }
    arrays = [
        pa.array(columns[name], type=kind, from_pandas=True) if name in columns else pa.nulls(count, kind)
        for name, kind in zip(tables.SCORES.names, tables.SCORES.types, strict=True)
    ]
    return pa.record_batch(arrays, tables.SCORES)


def _judged(first: int, count: int, rows: int, seed: int) -> pa.RecordBatch:
    given, is_lost = scored(first, count, rows, seed), np.arange(first, first + count) % 4 == 3
    lengths = pa.array((given["end_pts"].to_numpy() - given["start_pts"].to_numpy()) / 90_000)
    changed = {
        "status": pa.array(np.where(is_lost, "rejected", "ok")),
        "reason": pa.array(np.where(is_lost, "motion_below_min", ""), mask=~is_lost),
        "seconds": lengths,
        "duplicate_of": pa.nulls(count, pa.string()),
    }
    columns = [changed[name] if name in changed else given[name] for name in tables.CLIPS.names]
    return pa.record_batch(columns, tables.CLIPS)


def _captioned(first: int, count: int, rows: int, seed: int) -> pa.RecordBatch:
    clips = _judged(first, count, rows, seed)
    clips = clips.filter(pc.equal(clips["status"], "ok"))
    is_sidecar = np.array(clips["caption"].is_valid())
    texts = pc.coalesce(clips["caption"], "A bright picture that moves.")
    captioners = pa.array(np.where(is_sidecar, "sidecar", "describe"))
    known = {name: clips[name] for name in ("clip", "status", "reason")} | {"captioner": captioners, "text": texts}
    columns = [
        known.get(name, pa.nulls(len(clips), kind))
        for name, kind in zip(tables.CAPTIONS.names, tables.CAPTIONS.types, strict=True)
    ]
    return pa.record_batch(columns, tables.CAPTIONS)
