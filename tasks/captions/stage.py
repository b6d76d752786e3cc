"""Stage captions: one text per clip, cleaned and judged, by the first captioner with an answer; each row names it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.captions import cleaning, outcomes
from tasks.captions.captioner import Captioner, Said, Sidecar
from tasks.captions.describe import Describe
from tasks.captions.settings import CaptionSettings
from tasks.storage import atomic, queries, shards, tables
from tasks.storage.stage import Joined, Stage, alone

log = logging.getLogger(__name__)

_CAPTIONERS: tuple[Captioner, ...] = (Sidecar(), Describe())
CAPTIONERS = {captioner.name: captioner for captioner in _CAPTIONERS}
_OF_WHOLE_VIDEO = "of_whole_video"


def caption_clips(clips: list[dict[str, Any]], settings: CaptionSettings) -> list[dict[str, Any]]:
    """Return one row of schema CAPTIONS per clip, in their order.

    Args:
        clips: rows of schema CLIPS with what the captioners read, and `of_whole_video`.
    """
    said: dict[str, tuple[str, Said]] = {}
    for name in settings.captioners:
        open_clips = [clip for clip in clips if clip["clip"] not in said]
        answers = CAPTIONERS[name].caption(open_clips)
        for clip, answer in zip(open_clips, answers, strict=True):
            if answer:
                said[clip["clip"]] = (name, answer)
    return [_row(clip, *said.get(clip["clip"], (None, Said(None, reason="no_caption"))), settings) for clip in clips]


def _row(clip: dict[str, Any], captioner: str | None, said: Said, settings: CaptionSettings) -> dict[str, Any]:
    """Clean and judge what was said of a clip."""
    raw = said.text if said.raw is None else said.raw
    judged = judge(said, settings)
    return {
        "clip": clip["clip"],
        "status": "failed" if judged.reason else "ok",
        "reason": judged.reason,
        "captioner": captioner,
        "text": judged.text,
        "short": judged.short,
        "raw": raw,
        "rules": list(judged.rules),
        "of_whole_video": captioner == Sidecar.name and bool(clip.get(_OF_WHOLE_VIDEO)),
    }


def judge(said: Said, settings: CaptionSettings) -> Said:
    """Return what was said with its texts cleaned, or with the reason why they may not be trained on."""
    if said.reason is not None or said.text is None:
        return said._replace(text=None, short=None, reason=said.reason or "empty")
    if outcomes.is_refusal(cleaning.clean(said.text, ()).text):
        return Said(None, reason="refused", rules=said.rules)
    text, rules = cleaning.clean(said.text, settings.clean)
    reason = outcomes.reason_against(text, settings.checks)
    short = cleaning.clean(said.short, settings.clean).text if said.short else cleaning.sentences(text)[:1]
    if reason is not None:
        return Said(None, reason=reason, rules=(*said.rules, *rules))
    return Said(text, short if isinstance(short, str) else short[0], rules=(*said.rules, *rules))


def caption_shard(shard: shards.Shard, settings: CaptionSettings) -> None:
    """Caption one shard of clips."""
    shard.write(caption_clips(shard.read(), settings), tables.CAPTIONS)


class Captions(Stage):
    """Stage captions: one row of schema CAPTIONS per clip, in the order of the clips.

    Args:
        clips: folder with the table of clips.
        shots: folder that stage shots made.
        settings: which captioners, and what their texts must be like.
    """

    name, verb, unit = "captions", "caption", "clips"

    def __init__(self, clips: Path, shots: Path, settings: CaptionSettings) -> None:
        self.table, self.videos, self.settings = clips / tables.CLIP_TABLE, shots / tables.SPLIT_TABLE, settings
        read = {"clip"}.union(*(CAPTIONERS[name].columns for name in settings.captioners))
        self.columns = [field.name for field in tables.CLIPS if field.name in read]
        self.schema = pa.schema([*map(tables.CLIPS.field, self.columns), pa.field(_OF_WHOLE_VIDEO, pa.bool_())])

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        tables.require(self.table, tables.CLIPS)
        tables.require(self.videos, tables.SPLITS)
        clips, videos = queries.scan([self.table], numbered=True), queries.scan([self.videos])
        columns = ", ".join(f"clips.{name}" for name in self.columns)
        found = f"""SELECT {columns}, several.video IS NOT NULL AS {_OF_WHOLE_VIDEO} FROM {clips} AS clips
            LEFT JOIN (SELECT DISTINCT video FROM {videos} WHERE shots > 1) AS several USING (video)
            WHERE clips.status = 'ok' ORDER BY clips.file_row_number"""
        with queries.connect(scratch) as connection:
            yield from queries.batches(connection, found, self.schema)

    def decides(self) -> dict[str, Any]:
        return {"captions": self.settings.model_dump()}

    def inputs(self) -> dict[str, Any]:
        return {"clips": atomic.sha256_file(self.table), "videos": atomic.sha256_file(self.videos)}

    def shard_size(self) -> float:
        return self.settings.shard_clips

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(partial(caption_shard, settings=self.settings))

    def join(self, work: shards.Work, product: Path) -> Joined:
        table = product / tables.CAPTION_TABLE
        queries.write(table, shards.joined(work, tables.CAPTIONS), tables.CAPTIONS)
        account = queries.settle("clips", work.keys("clip"), queries.outcomes(table, "clip"), "clip")
        tables.check_failures(account, self.settings.max_failed_fraction, "captions.max_failed_fraction")
        return Joined((account,), counts(table))


def counts(table: Path) -> dict[str, Any]:
    """Return, of a table of captions, how often each rule of cleaning changed one, and how many are by whom."""
    rules: dict[str, int] = dict.fromkeys(cleaning.RULES, 0)
    captioners: dict[str, int] = {}
    of_whole_video = 0
    for batch in queries.read([table], ["status", "captioner", "rules", _OF_WHOLE_VIDEO]):
        for row in batch.to_pylist():
            for rule in row["rules"]:
                rules[rule] += 1
            if row["status"] == "ok":
                captioners[row["captioner"]] = captioners.get(row["captioner"], 0) + 1
                of_whole_video += row[_OF_WHOLE_VIDEO]
    return {"captioners": captioners, "rules": rules, "of_whole_video": of_whole_video}
