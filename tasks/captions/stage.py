"""Stage captions: one text per clip, by the first captioner with an answer; each row names its captioner."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from tasks.captions.settings import CaptionSettings
from tasks.storage import atomic, fields, queries, shards, tables
from tasks.storage.stage import Joined, Stage, alone

log = logging.getLogger(__name__)

_STILL = 0.15  # motion, per cent of the diagonal per frame, below which a clip is called still
_FAST = 1.5  # motion, likewise, from which it is called fast


class Captioner(Protocol):
    """Writes captions for clips, many at a time, from their rows alone: it sees no pictures."""

    name: str
    """Its name in `captions.captioners`, and in the column captioner."""
    columns: Sequence[str]
    """Of schema CLIPS, those that it reads."""

    def caption(self, clips: list[dict[str, Any]]) -> list[str | None]:
        """Return one caption per clip, None where it has none.

        Args:
            clips: rows of schema CLIPS with the id and `columns`; they may have more.
        """


class Sidecar:
    """The text that lies beside the video: it is of the whole video, and becomes the caption of each of its clips."""

    name = "sidecar"
    columns: Sequence[str] = ("caption",)

    def caption(self, clips: list[dict[str, Any]]) -> list[str | None]:
        return [clip["caption"] for clip in clips]


@fields.columns_of(tables.CLIPS)
class Measured(NamedTuple):
    """What a description says of a clip."""

    width: int
    height: int
    orientation: str
    colours: list[str]
    brightness: float
    motion: float
    motion_x: float
    motion_y: float


class Describe:
    """A plain sentence from what was measured: brightness, shape of the picture, main colours, motion."""

    name = "describe"
    columns: Sequence[str] = Measured._fields

    def caption(self, clips: list[dict[str, Any]]) -> list[str | None]:
        return [describe(clip) for clip in fields.take_all(Measured, clips)]


_CAPTIONERS: tuple[Captioner, ...] = (Sidecar(), Describe())
CAPTIONERS = {captioner.name: captioner for captioner in _CAPTIONERS}


def describe(clip: Measured) -> str:
    """Return e.g. "a dark landscape video, 640 by 272 pixels, mostly grey, moving fast to the left"."""
    brightness = "dark" if clip.brightness < 0.25 else "bright" if clip.brightness > 0.65 else "evenly lit"
    article = "an" if brightness[0] == "e" else "a"
    colours = clip.colours
    listed = " and ".join([", ".join(colours[:-1]), colours[-1]] if len(colours) > 1 else colours)
    size = f"{clip.width} by {clip.height} pixels"
    return f"{article} {brightness} {clip.orientation} video, {size}, mostly {listed}, {movement(clip)}"


def movement(clip: Measured) -> str:
    """Say how much moves, and where to unless it goes several ways at once."""
    if clip.motion < _STILL:
        return "almost still"
    # per cent of the width and of the height are no common measure; the picture's own sides make them one
    x, y = clip.motion_x * clip.width, clip.motion_y * clip.height
    amount = "slowly" if clip.motion < _FAST else "fast"
    diagonal = (clip.width**2 + clip.height**2) ** 0.5
    if (x * x + y * y) ** 0.5 < 0.5 * clip.motion * diagonal:
        return f"moving {amount} in several directions"
    if abs(x) >= abs(y):
        return f"moving {amount} to the {'right' if x > 0 else 'left'}"
    return f"moving {amount} {'down' if y > 0 else 'up'}"


def caption_clips(clips: list[dict[str, Any]], settings: CaptionSettings) -> list[dict[str, Any]]:
    """Return one row of schema CAPTIONS per clip (row of schema CLIPS), in their order."""
    texts: dict[str, tuple[str, str]] = {}
    for name in settings.captioners:
        open_clips = [clip for clip in clips if clip["clip"] not in texts]
        answers = CAPTIONERS[name].caption(open_clips)
        for clip, text in zip(open_clips, answers, strict=True):
            if text:
                texts[clip["clip"]] = (name, text)
    return [_row(clip["clip"], *texts.get(clip["clip"], (None, None))) for clip in clips]


def _row(clip: str, captioner: str | None, text: str | None) -> dict[str, Any]:
    status, reason = ("ok", None) if text else ("failed", "no_caption")
    return {"clip": clip, "status": status, "reason": reason, "captioner": captioner, "text": text}


def caption_shard(shard: shards.Shard, settings: CaptionSettings) -> None:
    """Caption one shard of clips."""
    shard.write(caption_clips(shard.read(), settings), tables.CAPTIONS)


class Captions(Stage):
    """Stage captions: one row of schema CAPTIONS per clip, in the order of the clips.

    Args:
        clips: folder with the table of clips.
        settings: which captioners.
    """

    name, verb, unit = "captions", "caption", "clips"

    def __init__(self, clips: Path, settings: CaptionSettings) -> None:
        self.table, self.settings = clips / tables.CLIP_TABLE, settings
        read = {"clip"}.union(*(CAPTIONERS[name].columns for name in settings.captioners))
        self.schema = pa.schema([field for field in tables.CLIPS if field.name in read])

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        return tables.usable(self.table, tables.CLIPS, self.schema.names)

    def decides(self) -> dict[str, Any]:
        return {"captions": self.settings.model_dump()}

    def inputs(self) -> dict[str, Any]:
        return {"clips": atomic.sha256_file(self.table)}

    def shard_size(self) -> float:
        return self.settings.shard_clips

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(partial(caption_shard, settings=self.settings))

    def join(self, work: shards.Work, product: Path) -> Joined:
        table = product / tables.CAPTION_TABLE
        queries.write(table, shards.joined(work, tables.CAPTIONS), tables.CAPTIONS)
        account = queries.settle("clips", work.keys("clip"), queries.outcomes(table, "clip"), "clip")
        tables.check_failures(account, 1.0, "captions.captioners")
        return Joined((account,))
