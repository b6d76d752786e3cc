"""Which videos are used, by `videos` of the settings: of the stage videos, and of `stiv probe FILE`."""

from pathlib import PurePosixPath

from tasks.videos.settings import VideoSettings


def refused_name(name: str, settings: VideoSettings) -> str | None:
    """Return the reason code if a file of this name is not even opened."""
    return None if PurePosixPath(name).suffix.lower() in settings.extensions else "not_a_video_extension"


def refused_video(seconds: float, width: int, height: int, settings: VideoSettings) -> str | None:
    """Return the reason code if a video that opens, of so many seconds and pixels, is outside the settings."""
    if seconds < settings.min_seconds:
        return "too_short"
    if seconds > settings.max_seconds:
        return "too_long"
    return "too_small" if min(width, height) < settings.min_side else None
