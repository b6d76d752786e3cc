"""Settings of the stage latents. Values live in params.yaml, types here."""

from pydantic import PositiveInt

from stiv_model.settings import Fraction, Settings


class LatentSettings(Settings):
    """The size of the videos that are encoded, and so of those that the models are trained on and make."""

    height: PositiveInt
    width: PositiveInt
    """Pixels, before the VAE."""
    frames: PositiveInt
    """Frames of a clip that are encoded; a clip with fewer fails."""
    stride_frames: PositiveInt
    """Take every n-th source frame (paper, appendix B: n = 3)."""
    shard_clips: PositiveInt
    """Clips in one shard of the work. It has whole parts, and one at least."""
    part_bytes: PositiveInt
    """Bytes of one file of latents at most, on average over all: there are more files where there would be more in
    each. Usually there are fewer, for a file has the clips of one video or two."""
    max_failed_fraction: Fraction
    """Share of the clips that may fail to be encoded before the stage stops."""
