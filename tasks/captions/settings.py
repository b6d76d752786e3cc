"""Settings of the stage captions. Values live in params.yaml, types here."""

from typing import Literal

from pydantic import PositiveInt

from stiv_model.settings import Settings


class CaptionSettings(Settings):
    captioners: list[Literal["sidecar", "describe"]]
    """sidecar: the text beside the video; describe: words for what was measured. The first that has a text for a clip
    captions it, and the row names it."""
    shard_clips: PositiveInt
    """Clips captioned together, as one shard of work."""
