"""Settings of the stage latents. Values live in params.yaml, types here."""

from pydantic import PositiveInt

from stiv_model.settings import Fraction, Settings


class LatentSettings(Settings):
    height: PositiveInt
    width: PositiveInt
    frames: PositiveInt
    stride_frames: PositiveInt
    """Every how-manieth source frame is taken (paper, appendix B: 3)."""
    shard_clips: PositiveInt
    max_failed_fraction: Fraction
