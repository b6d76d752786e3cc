"""Which videos are used, by `videos` of the settings: of the stage videos, and of `stiv probe FILE`."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from tasks.videos.settings import VideoSettings

_HDR = ("smpte2084", "arib-std-b67")  # FFmpeg's names of the transfer functions PQ and HLG


def refused_name(name: str, settings: VideoSettings) -> str | None:
    """Return the reason code if a file of this name is not even opened."""
    return None if PurePosixPath(name).suffix.lower() in settings.extensions else "not_a_video_extension"


def refused_video(found: Mapping[str, Any], settings: VideoSettings) -> str | None:
    """Return the reason code if a video that opens is outside the settings.

    Args:
        found: what `probe.probe` says of it.
    """
    if found["seconds"] < settings.min_seconds:
        return "too_short"
    if found["seconds"] > settings.max_seconds:
        return "too_long"
    if settings.hdr == "reject" and found["transfer"] in _HDR:
        return "hdr"
    return "too_small" if min(found["width"], found["height"]) < settings.min_side else None
