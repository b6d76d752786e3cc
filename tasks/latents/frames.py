"""The frames of clips, decoded in the sandbox ahead of those who use them."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tasks.latents.settings import LatentSettings
from tasks.sandbox.pool import Sandbox
from tasks.storage.object_cache import ObjectCache
from tasks.videos import sources

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Clips that are decoded together, at most, while as many wait in memory: 40 frames of 512 by 512 pixels are 31 MB."""


class FrameSource(NamedTuple):
    """Where the frames of clips come from, and which they are."""

    source: str
    """Folder, bucket or list of raw videos."""
    settings: LatentSettings
    sandbox: Sandbox
    cache: ObjectCache
    """Where objects of a bucket are kept."""


class Decoded:
    """What came of decoding clips, in their order: `status`, and `frames` or `reason`.

    Args:
        clips: rows of CLIPS.
        thread: one, in which the next clips are decoded.

    Attributes:
        waited: seconds for which nothing was there to give.
    """

    def __init__(self, clips: list[dict[str, Any]], frames: FrameSource, thread: ThreadPoolExecutor) -> None:
        self.waited = 0.0
        self._frames, self._thread = frames, thread
        at_once = min(_AT_ONCE, sources.lent_at_once(frames.source, frames.sandbox.settings.workers))
        self._groups = iter([clips[first : first + at_once] for first in range(0, len(clips), at_once)])
        self._ahead = self._begin()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self._ahead is not None:
            began = time.monotonic()
            results = self._ahead.result()
            self.waited += time.monotonic() - began
            self._ahead = self._begin()
            yield from results

    def _begin(self) -> Future[list[dict[str, Any]]] | None:
        group = next(self._groups, None)
        return None if group is None else self._thread.submit(_decode, group, self._frames)


@contextmanager
def decoded(clips: list[dict[str, Any]], frames: FrameSource) -> Iterator[Decoded]:
    """Give what comes of decoding clips; the first are begun at once."""
    with ThreadPoolExecutor(1, thread_name_prefix="frames") as thread:
        yield Decoded(clips, frames, thread)


def _decode(clips: list[dict[str, Any]], frames: FrameSource) -> list[dict[str, Any]]:
    with ExitStack() as lent:
        return _decode_files(clips, [_local(clip, frames, lent) for clip in clips], frames)


def _decode_files(clips: list[dict[str, Any]], found: list[Path | str], frames: FrameSource) -> list[dict[str, Any]]:
    settings = frames.settings
    asked = [
        {
            "path": str(path),
            "start_pts": clip["start_pts"],
            "end_pts": clip["end_pts"],
            "repairs": clip["repairs"] or [],
            "frames": settings.frames,
            "stride_frames": settings.stride_frames,
            "height": settings.height,
            "width": settings.width,
        }
        for clip, path in zip(clips, found, strict=True)
        if isinstance(path, Path)
    ]
    results = iter(frames.sandbox.map("clip_frames", asked))
    return [next(results) if isinstance(path, Path) else {"status": "failed", "reason": path} for path in found]


def _local(clip: dict[str, Any], frames: FrameSource, lent: ExitStack) -> Path | str:
    """Return the clip's raw video, held by `lent`, or the reason code if it is gone or not that of its shots."""
    try:
        return lent.enter_context(sources.lend(frames.source, clip["uri"], clip["video"], frames.cache))
    except (*sources.ABSENT, ValueError) as error:
        log.warning("%s: %s", clip["clip"], error)
        return sources.reason_of(error) if isinstance(error, OSError) else "not_found"
