"""Decode a picture file at the size that the model sees, as a clip's frames are. Runs in the sandbox only."""

from typing import Any, BinaryIO

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.decoding import clip_frames, decode
from tasks.decoding.limits import Limits

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Of files that are opened, by Pillow's names; of one with several pictures the first is taken."""
_LEVELS_16 = 257  # of 16 bits, for one of 8


def prepare(arguments: dict[str, Any]) -> None:
    """Load the decoders before the process confines itself, after which no code can be read."""
    Image.init()


def picture_file(path: str, limits: Limits, height: int, width: int) -> dict[str, Any]:
    """Decode a picture: upright by its EXIF, RGB, scaled to cover height x width and cut out at its centre.

    What is transparent shows white. Grey, palettes, CMYK and 16 bits become 8 bits of RGB.

    Returns:
        `picture`: uint8 (height, width, 3) RGB; `shown_height`, `shown_width`: pixels of the upright file.
        Or status rejected with reason not_a_picture, too_many_pixels ..., or failed with unreadable.
    """
    try:
        with decode.open_file(path, limits) as (file, _):
            rgb = _read(file, limits)
    except decode.Refused as refused:
        return refused.result()
    shown_height, shown_width = rgb.shape[:2]
    cut = clip_frames.cut_of(shown_width, shown_height, height, width)
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
    picture = np.ascontiguousarray(cut.of(clip_frames.scaled(frame, cut.scaled_width, cut.scaled_height)))
    shown = {"shown_height": shown_height, "shown_width": shown_width}
    return {"status": "ok", "reason": None, "picture": picture, **shown}


def _read(file: BinaryIO, limits: Limits) -> np.ndarray:
    Image.MAX_IMAGE_PIXELS = None  # the limits are ours, below
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise decode.Refused("rejected", "not_a_picture") from None
    except (OSError, ValueError, SyntaxError):
        raise decode.Refused("failed", "unreadable") from None
    if image.width * image.height > limits.max_pixels or max(image.size) > limits.max_side:
        raise decode.Refused("rejected", "too_many_pixels")
    try:
        return np.array(_rgb(ImageOps.exif_transpose(image)))
    except (OSError, ValueError, SyntaxError):  # as Pillow says that a file breaks off, or is not what it begins as
        raise decode.Refused("failed", "unreadable") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        levels = np.asarray(image).clip(0, 65535) // _LEVELS_16
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
