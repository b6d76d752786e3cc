"""The rows that stages hand on, their Parquet files, and the account that each stage must balance.

Identity: a raw video is the sha256 of its bytes; a clip, from the shot that it is at first, is `(video, start_pts,
end_pts, time_base)`, written as one string by `clip_id`. Times are presentation timestamps.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.storage.scores import measured_in

# The table in each stage's folder.
VIDEO_TABLE, SPLIT_TABLE, SHOT_TABLE = "videos.parquet", "splits.parquet", "shots.parquet"
SCORE_TABLE, CLIP_TABLE, CAPTION_TABLE = "scores.parquet", "clips.parquet", "captions.parquet"
CATEGORY_TABLE = "categories.parquet"
SAMPLE_LIST = "samples.json"  # in the folder of stage samples

STATUSES = ("ok", "rejected", "failed")
_STATE = [("status", pa.string()), ("reason", pa.string())]  # reason: a short fixed code, null when ok

VIDEOS = pa.schema(
    [
        ("uri", pa.string()),  # path below the source, or s3://...: where the bytes are
        ("video", pa.string()),  # sha256 of the bytes; null when they could not be read
        ("size_bytes", pa.int64()),
        *_STATE,
        ("codec", pa.string()),
        ("width", pa.int32()),  # as shown: upright, with square pixels
        ("height", pa.int32()),
        ("fps", pa.float64()),  # in the mean, where the rate changes
        ("seconds", pa.float64()),
        ("frames", pa.int64()),  # that are shown, by their packets
        ("repairs", pa.list_(pa.string())),  # what is repaired whenever it is read: tasks/decoding/packets.py
        ("transfer", pa.string()),  # transfer function, primaries and range of the colours, null where it does not say
        ("primaries", pa.string()),
        ("colour_range", pa.string()),
        ("caption", pa.string()),  # the text beside the video, null without one
        ("licence", pa.string()),  # as the source's list says, null without one
        ("source_url", pa.string()),
    ]
)

# One row per video that was split: what became of it.
SPLITS = pa.schema([("video", pa.string()), *_STATE, ("frames", pa.int64()), ("shots", pa.int32())])

SHOTS = pa.schema(
    [
        ("clip", pa.string()),
        ("video", pa.string()),
        ("uri", pa.string()),
        ("repairs", pa.list_(pa.string())),  # the video's
        ("start_pts", pa.int64()),  # of the first frame
        ("end_pts", pa.int64()),  # of the frame after the last
        ("time_base", pa.string()),  # seconds per pts tick, "1/12800"
        ("start", pa.float64()),  # seconds
        ("end", pa.float64()),
        ("frames", pa.int32()),
        ("transition", pa.string()),  # what begins it: start, cut, fade, dissolve, split
        *_STATE,
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("caption", pa.string()),  # the video's
        ("licence", pa.string()),
        ("source_url", pa.string()),
        # cheap scores of the same decoding pass: tasks/decoding/measures.py says what each is
        *((name, pa.float64()) for name in measured_in("shots")),
    ]
)

# Small JPEG pictures of each shot, evenly spread over it: in parts, tasks/storage/stills.py.
STILLS = pa.schema([("clip", pa.string()), ("stills", pa.list_(pa.binary()))])

SCORES = pa.schema(
    [
        *SHOTS,
        *((name, pa.float64()) for name in measured_in("scores")),  # nsfw: null without a classifier
        ("orientation", pa.string()),
        ("colours", pa.list_(pa.string())),  # names of the main colours, most of the picture first
        ("video_hash", pa.binary()),  # perceptual, of the stills in order; near-duplicates differ in few bits
        ("embedding", pa.binary()),  # what the stills show: tasks/scores/embedding.py; null without an encoder
        ("embedder", pa.string()),  # what made it: embeddings of two do not compare
    ]
)

# Every scored shot: ok is a clip, rejected says by which threshold.
CLIPS = pa.schema([*SCORES, ("seconds", pa.float64()), ("duplicate_of", pa.string())])  # the clip kept instead

CAPTIONS = pa.schema(
    [
        ("clip", pa.string()),
        *_STATE,
        ("captioner", pa.string()),
        ("text", pa.string()),  # what trains; null unless ok
        ("short", pa.string()),  # one sentence
        ("raw", pa.string()),  # as it came
        ("rules", pa.list_(pa.string())),  # of cleaning that changed something: tasks/captions/cleaning.py
        ("of_whole_video", pa.bool_()),  # a text of a video of several shots, of which the clip is one
        ("model", pa.string()),  # null unless a model wrote it, as are those that follow
        ("prompt_sha256", pa.string()),
        ("frames", pa.int32()),
        ("temperature", pa.float64()),
        ("seed", pa.int64()),
        ("max_tokens", pa.int32()),
    ]
)

# One row per caption that was judged, and one per answer.
DSG = pa.schema(
    [
        ("clip", pa.string()),
        *_STATE,
        ("captioner", pa.string()),
        ("of_whole_video", pa.bool_()),  # as in CAPTIONS
        ("text", pa.string()),  # that was judged
        ("repaired", pa.bool_()),  # what it invents was taken out of it
        ("repaired_by", pa.string()),  # drop, rewrite, or rewrite_drop; null unless repaired
        ("objects", pa.int32()),  # that are decided
        ("invented", pa.int32()),
        ("undecided", pa.int32()),
        ("sentences", pa.int32()),
        ("sentences_decided", pa.int32()),  # that name a decided object
        ("sentences_invented", pa.int32()),
        ("keys", pa.list_(pa.string())),  # of all objects that it names
        ("repairs", pa.list_(pa.string())),  # of its graph of questions: tasks/dsg/questions.py
    ]
)
EVIDENCE = pa.schema(
    [
        ("clip", pa.string()),
        ("captioner", pa.string()),
        ("role", pa.string()),  # caption, decoy, decoy_parent, rewrite
        ("question", pa.int32()),
        ("kind", pa.string()),
        ("parents", pa.list_(pa.int32())),
        ("sentences", pa.list_(pa.int32())),
        ("text", pa.string()),  # of the question
        ("verdict", pa.string()),
        ("frame", pa.int32()),  # null: all frames, or not asked
        ("answer", pa.string()),  # null: not asked
        ("model", pa.string()),
        ("prompt_sha256", pa.string()),
    ]
)

# One row per caption that goes on. Without `categories.by` it has no category.
CATEGORIES = pa.schema(
    [
        ("clip", pa.string()),
        *_STATE,
        ("category", pa.string()),  # a name of categories.listed, or other
        ("nearest", pa.string()),  # the most similar, whether it is the category or not; null of a model's answer
        ("similarity", pa.float64()),  # cosine, to the nearest
        ("margin", pa.float64()),  # by which the nearest is more similar than the second
        ("model", pa.string()),  # what decided
        ("prompt_sha256", pa.string()),
        ("weight", pa.float64()),  # of the category, in the draws of a training that is balanced
    ]
)

LATENTS = pa.schema(
    [
        ("clip", pa.string()),
        ("video", pa.string()),
        ("uri", pa.string()),
        ("licence", pa.string()),
        ("source_url", pa.string()),
        *_STATE,
        ("captioner", pa.string()),
        ("text", pa.string()),
        ("aesthetic", pa.float64()),
        ("motion", pa.float64()),
        ("width", pa.int32()),  # of the source, a micro-condition
        ("height", pa.int32()),
        ("crop_top", pa.int32()),  # of the crop, in pixels of the resized picture
        ("crop_left", pa.int32()),
        ("stride_frames", pa.int32()),
        ("frames", pa.int32()),
        ("shard", pa.string()),
        ("row", pa.int32()),  # within the shard
        ("sha256", pa.string()),  # of the latent's bytes
        ("text_sha256", pa.string()),  # of the text features' bytes: stiv_model.latents.shard_files.text_sha256
        ("category", pa.string()),  # null without categories.weights, as is
        ("category_weight", pa.float64()),  # by which `train.*.balance: category` draws
    ]
)

# Columns that had another name in tables of earlier versions.
RENAMED = {"shot": "clip", "twin": "duplicate_of"}


_SHOWN_NAMES = 3  # of each reason, in a message
_READ_ROWS = 4096


class Account(NamedTuple):
    """What became of a stage's inputs: `given == ok + rejected + failed`, always."""

    unit: str
    """What the inputs are, in the plural."""
    given: int
    """How many there were."""
    ok: int
    rejected: int
    failed: int
    reasons: dict[str, int]
    """How many were rejected or failed, by reason code, the most frequent first."""


def clip_id(video: str, start_pts: int, end_pts: int) -> str:
    """Return the id of a piece of a video.

    Args:
        video: sha256 of the video's bytes.
        start_pts: presentation timestamp of its first frame, in ticks of the time base.
        end_pts: that of the frame after its last.
    """
    return f"{video[:20]}-{start_pts}-{end_pts}"


def reconcile(unit: str, given: Iterable[str], rows: list[dict[str, Any]], key: str) -> Account:
    """Count the outcomes of a stage's inputs, after checking that each input has exactly one output row.

    Args:
        unit: what the inputs are, in the plural, for the account and its messages.
        given: the key of every input.
        rows: the output rows, with `status`, `reason` and `key`.
        key: the column that names a row's input.

    Raises:
        AssertionError: an input has no output row or several, a row is of no input, or a row that is not ok has no
            reason. The stage is wrong then, and must not hand on its output.
    """
    wanted, found = Counter(list(given)), Counter(row[key] for row in rows)
    lost, extra = wanted - found, found - wanted
    assert not lost and not extra, (
        f"the account of {unit} does not balance: {lost.total()} without a row {sorted(lost)[:3]}, "
        f"{extra.total()} rows too many {sorted(extra)[:3]}"
    )
    for row in rows:
        assert row["status"] in STATUSES, f"{unit} {row[key]}: status {row['status']!r}"
        assert (row["reason"] is None) == (row["status"] == "ok"), f"{unit} {row[key]}: {row['reason']!r}"
    states = Counter(row["status"] for row in rows)
    reasons = Counter(row["reason"] for row in rows if row["reason"])
    return Account(
        unit,
        wanted.total(),
        states["ok"],
        states["rejected"],
        states["failed"],
        dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    )


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet, in their order, the same bytes for the same rows.

    Raises:
        ValueError: a row has a column that the schema has not.
    """
    for row in rows:
        if unknown := row.keys() - set(schema.names):
            raise ValueError(f"{path.name}: no column for {sorted(unknown)}")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def check_columns(path: Path, schema: pa.Schema, remedy: str = "make it again") -> None:
    """Check that a table has the columns of `schema`, and no others, in that order.

    Raises:
        ValueError: it has others, or names of an earlier version; the message ends with `remedy`.
    """
    found = pq.read_schema(path).names
    refuse_renamed(path, found, schema.names, remedy)
    if found != schema.names:
        raise ValueError(f"{path} has columns {found}, expected {schema.names}: {remedy}")


def refuse_renamed(path: Path, found: Sequence[str], wanted: Iterable[str], remedy: str) -> None:
    """Refuse a table of an earlier version, in which a column that is wanted has its old name.

    Raises:
        ValueError: it is one, and says both names.
    """
    absent = set(wanted) - set(found)
    for old, new in RENAMED.items():
        if old in found and new in absent:
            raise ValueError(f"{path} is of an earlier version: its column {old} is called {new} now: {remedy}")


def require(path: Path, schema: pa.Schema) -> None:
    """Check that a table is there and has the columns of `schema`.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it has other columns.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run the stage that makes it (dvc repro, or stiv pipeline)")
    check_columns(path, schema)


def read_rows(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Return all rows of a table, after `require`."""
    require(path, schema)
    return pq.read_table(path).to_pylist()


def usable(path: Path, schema: pa.Schema, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Give the rows of a table with status ok, which go on to the next stage, a few thousand at a time.

    Args:
        schema: all columns that the table must have: `require`.
        columns: those that are read.
    """
    require(path, schema)
    wanted = [*columns, *(["status"] if "status" not in columns else [])]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_READ_ROWS, columns=wanted):
            yield batch.filter(pc.equal(batch["status"], "ok")).select(columns)


def ok(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with status ok, which go on to the next stage."""
    return [row for row in rows if row["status"] == "ok"]


def check_failures(
    account: Account, limit: float, place: str, rows: Iterable[dict[str, Any]] = (), key: str = ""
) -> None:
    """Stop the stage when too many of its inputs have failed.

    Args:
        limit: largest share of the inputs that may fail, 0 to 1.
        place: the setting that says so, for the message.
        rows: those of the account, of which the message names some.
        key: the column that names a row.

    Raises:
        ValueError: a larger share has failed, or nothing is ok.
    """
    why = ", ".join(f"{reason} {count}" for reason, count in account.reasons.items()) or "no reason"
    if account.given and account.failed / account.given > limit:
        raise ValueError(
            f"{account.failed} of {account.given} {account.unit} failed ({why}): more than "
            f"{place} = {limit} allows; look at them, or raise it in params.yaml"
            f"{_some(rows, key, ('failed',))}"
        )
    if not account.ok:
        raise ValueError(
            f"none of {account.given} {account.unit} is usable ({why}){_some(rows, key, ('failed', 'rejected'))}"
        )


def _some(rows: Iterable[dict[str, Any]], key: str, statuses: Sequence[str]) -> str:
    """Name a row or three of each reason, as the end of a message; nothing without rows."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] in statuses:
            names.setdefault(row["reason"], []).append(str(row[key]))
    told = [
        f"{reason}: {', '.join(map(repr, some[:_SHOWN_NAMES]))}{' ...' if len(some) > _SHOWN_NAMES else ''}"
        for reason, some in names.items()
    ]
    return f" ({'; '.join(told)})" if told else ""


def table_name(stage: str) -> str:
    """Return the name of a stage's own table, in the stage's folder."""
    return f"{stage}.parquet"


def report_name(stage: str) -> str:
    """Return the name of a stage's report among those of all stages."""
    return f"{stage}.json"


def write_report(path: Path, *accounts: Account, **others: object) -> None:
    """Write a stage's accounts, and `others` beside them, as the JSON that `dvc metrics show` prints."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {account.unit: {k: v for k, v in account._asdict().items() if k != "unit"} for account in accounts}
    path.write_text(json.dumps(content | others, indent=2) + "\n")
