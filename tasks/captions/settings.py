"""Settings of the stage captions. Values live in params.yaml, types here."""

from typing import Literal

from pydantic import PositiveInt

from stiv_model.settings import Settings


class CaptionSettings(Settings):
    captioners: list[Literal["sidecar", "describe"]]
    """Asked in this order; the first that has an answer for a clip captions it, and the row names it."""
    shard_clips: PositiveInt
    """Clips in one shard of work."""
