"""Small upright pictures of decoded frames, made before any colour conversion.

A linear resize commutes with the linear part of a colour conversion. So the Y, U and V planes are resized where
the decoder left them, and only the small picture is converted: a tenth of the cost of converting the frame.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from tasks.decoding import tone

# AVColorSpace (FFmpeg, libavutil/pixfmt.h) -> Kr, Kb of ITU-T H.273, table 4
_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    2: (0.299, 0.114),  # not said: FFmpeg's scaler takes BT.601
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470BG, a BT.601
    6: (0.299, 0.114),  # SMPTE 170M, the other BT.601
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
}
_NOT_SAID = 2
_MIN_ANALYSIS_PIXELS = 48  # of the shorter side: the motion estimator's patches need that much
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_TO_FULL_RANGE = np.floor((np.arange(256) - 16) * 255 / 219).clip(0, 255).astype(np.uint8)
_LAYOUTS = re.compile(r"(?P<kind>gray|yuvj?|yuva)(?:4[1-4][014]p)?(?P<depth>9|1[0-6])?(?:le)?")


def analysis_size(width: int, height: int, analysis_pixels: int) -> tuple[int, int]:
    """Return the width and height at which a video is analysed; never larger than it is, but for slivers."""
    scale = min(1.0, max(analysis_pixels / max(width, height), _MIN_ANALYSIS_PIXELS / min(width, height)))
    return max(_MIN_ANALYSIS_PIXELS, round(width * scale)), max(_MIN_ANALYSIS_PIXELS, round(height * scale))


class Shown(NamedTuple):
    """How a stream's pictures are to be shown: with square pixels, and upright."""

    width: int
    """Pixels of the upright picture."""
    height: int
    is_transposed: bool
    """Rows become columns; then come the flips."""
    is_flipped_x: bool
    is_flipped_y: bool
    hdr: int = 0
    """tone.PQ or tone.HLG if the pictures are of high dynamic range."""

    def as_coded(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height, before turning, of a picture that is to have these when upright."""
        return (height, width) if self.is_transposed else (width, height)

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """Turn a picture (height, width, ...) as its display matrix asks, in whole quarter turns."""
        if self.is_transposed:
            picture = picture.swapaxes(0, 1)
        if self.is_flipped_x:
            picture = picture[:, ::-1]
        if self.is_flipped_y:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)


def shown(frame: av.VideoFrame, pixel_aspect: Fraction | None, hdr: int = 0) -> Shown:
    """Return how `frame` is to be shown.

    Args:
        pixel_aspect: width over height of a pixel (the stream's sample aspect ratio); none or 0 is square.
            As players do, the height stays and the width is stretched.
        hdr: as of Shown.
    """
    width = max(1, round(frame.width * (pixel_aspect or 1)))
    # ISO/IEC 14496-12, 6.2.2: x' = a x + c y, y' = b x + d y
    a, b, c, d = _display_matrix(frame)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Shown(width, frame.height, False, a < 0, d < 0, hdr)
    return Shown(frame.height, width, True, c < 0, b < 0, hdr)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    buffer: Any = data  # the stub does not say of what it is a mapping
    a, b, _, c, d, *_ = np.frombuffer(buffer, np.int32).tolist()
    return a, b, c, d


def one_field(frame: av.VideoFrame) -> av.VideoFrame:
    """Return an interlaced frame's upper field as a frame of half the height; others as they are.

    Its lines are of one moment. The lower field is thrown away: that keeps the frame rate, costs nothing, and
    loses sharpness only where the target is higher than a field.
    """
    if not frame.interlaced_frame or frame.height < 4:
        return frame
    field = av.VideoFrame(frame.width, (frame.height + 1) // 2, frame.format.name)
    for source, target in zip(frame.planes, field.planes, strict=True):
        rows = _rows(source)[::2]
        to = _rows(target)
        count, size = min(len(rows), len(to)), min(rows.shape[1], to.shape[1])
        to[:count, :size] = rows[:count, :size]
    field.colorspace, field.color_range = frame.colorspace, frame.color_range
    return field


def _rows(plane: av.video.plane.VideoPlane) -> np.ndarray:
    """Return a view of a plane's bytes with their padding: uint8 (lines, bytes of a line), first line on top."""
    buffer: Any = plane  # av's stub does not say that it is one
    lines = np.frombuffer(buffer, np.uint8).reshape(plane.height, abs(plane.line_size))
    return lines if plane.line_size > 0 else lines[::-1]


class Layout(NamedTuple):
    """What the numbers in a frame's planes mean."""

    depth: int
    """Bits per sample."""
    is_grey: bool
    is_full_range: bool


@lru_cache(maxsize=64)
def _layout(pixel_format: str, colour_range: int) -> Layout | None:
    """Return the layout of a planar Y(UV) format in this machine's byte order, None for all others."""
    found = _LAYOUTS.fullmatch(pixel_format)
    if found is None:
        return None
    is_grey = found["kind"] == "gray"
    # as FFmpeg's scaler has it: yuvj is full range, and so is grey
    is_full = colour_range == _FULL_RANGE or found["kind"] == "yuvj" or is_grey
    return Layout(int(found["depth"] or 8), is_grey, is_full)


@lru_cache(maxsize=16)
def _to_bgr(colour_space: int, is_full_range: bool) -> np.ndarray:
    """Return the 3 x 4 matrix from 8-bit (Y, U, V, 1) to (B, G, R).

    FFmpeg's scaler, of which PySceneDetect's pictures come, rounds every term down, of which colours without
    chroma have one and others two or three: 3/4 of a level in the mean. In an almost black picture that decides what
    hue a pixel is, and PySceneDetect's scores count hues.
    """
    red, blue = _WEIGHTS[colour_space]
    green = 1 - red - blue
    luma, chroma, black = (1.0, 255 / 255, 0.0) if is_full_range else (255 / 219, 255 / 224, 16.0)
    v_red, u_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    rows = np.array(
        [
            (luma, u_blue, 0.0),
            (luma, -u_blue * blue / green, -v_red * red / green),
            (luma, 0.0, v_red),
        ]
    )
    return np.column_stack([rows, -rows @ (black, 128.0, 128.0) - 0.75])


class Small(NamedTuple):
    """A frame at the size of the analysis, upright."""

    bgr: np.ndarray
    """uint8 (height, width, 3)."""
    hsv: np.ndarray
    """uint8 (height, width, 3), OpenCV's: hue 0-179."""
    luma: np.ndarray
    """uint8 (height, width), as coded: black is 16 in most videos, and 0 in those of full range."""
    grey: np.ndarray | None
    """uint8 (height, width), 0 black to 255 white, without aliasing; none unless asked for."""
    still: np.ndarray | None
    """uint8 (height, width, 3): `bgr` without aliasing of its luma; none unless asked for, with `grey`."""


def shrink(frame: av.VideoFrame, how: Shown, width: int, height: int, is_fine: bool) -> Small:
    """Return a progressive frame at `width` x `height` (upright).

    Resized with two taps (bilinear), as PySceneDetect does, so that its scores come out the same; but before the
    conversion, unless the frame is small. `grey` and `still` are averaged over whole pixels first, for what measures
    detail, motion and text. Chroma is taken as centred.
    Cost at 256 x 144: 0.1 ms, with grey and still 0.3 to 0.5 ms (720p, 1080p).
    """
    size = how.as_coded(width, height)
    if how.hdr:
        return _shrink_hdr(frame, how, size, is_fine)
    layout = _layout(frame.format.name, frame.color_range)
    if layout is None or frame.colorspace not in _WEIGHTS:
        return _shrink_any(frame, how, size)
    y, *chroma = (_samples(plane, layout.depth) for plane in frame.planes[: 1 if layout.is_grey else 3])
    luma = _resize(y, size, layout.depth)
    if max(frame.width, frame.height) < 2 * max(size):
        bgr = _bgr_by_scaler(frame, size)
    elif chroma:
        yuv = cv2.merge([luma, *(_resize(_thinned(plane, size[1]), size, layout.depth) for plane in chroma)])
        bgr = cv2.transform(yuv, _to_bgr(frame.colorspace, layout.is_full_range))
    else:
        bgr = cv2.merge([luma if layout.is_full_range else cv2.LUT(luma, _TO_FULL_RANGE)] * 3)
    grey = still = None
    if is_fine:
        fine = _resize(_halved(y, size), size, layout.depth)
        grey = how.upright(fine if layout.is_full_range else cv2.LUT(fine, _TO_FULL_RANGE))
        still = how.upright(_with_luma(bgr, luma, fine, layout.is_full_range))
    bgr = how.upright(bgr)
    return Small(bgr, cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV), how.upright(luma), grey, still)


def _with_luma(bgr: np.ndarray, luma: np.ndarray, fine: np.ndarray, is_full_range: bool) -> np.ndarray:
    """Return a BGR picture with the luma `fine` in place of `luma`, in which all channels are linear, alike.

    Cost 0.03 ms.
    """
    more, less = cv2.subtract(fine, luma), cv2.subtract(luma, fine)
    if not is_full_range:
        more, less = (cv2.convertScaleAbs(part, alpha=255 / 219) for part in (more, less))
    lighter = cv2.add(bgr, cv2.cvtColor(more, cv2.COLOR_GRAY2BGR))
    return cv2.subtract(lighter, cv2.cvtColor(less, cv2.COLOR_GRAY2BGR))


def _shrink_any(frame: av.VideoFrame, how: Shown, size: tuple[int, int]) -> Small:
    """Shrink by FFmpeg's scaler, which knows every format (RGB, packed, big-endian) and is five times as slow."""
    bgr = how.upright(frame.reformat(*size, "bgr24", interpolation="AREA", threads=1).to_ndarray())
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    return Small(bgr, cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV), grey, grey, bgr)


def _shrink_hdr(frame: av.VideoFrame, how: Shown, size: tuple[int, int], is_fine: bool) -> Small:
    """Shrink a picture of high dynamic range: in its own coding, in 16 bits, then to the standard range.

    Cost at 256 x 144: 2 ms, where is_fine 4.
    """
    bgr = how.upright(_bgr_of_hdr(frame, size, how.hdr, is_fine=False))
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    fine = how.upright(_bgr_of_hdr(frame, size, how.hdr, is_fine=True)) if is_fine else None
    of_fine = None if fine is None else cv2.cvtColor(fine, cv2.COLOR_BGR2GRAY)
    return Small(bgr, cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV), grey, of_fine, fine)


def _bgr_of_hdr(frame: av.VideoFrame, size: tuple[int, int], hdr: int, is_fine: bool) -> np.ndarray:
    layout = _layout(frame.format.name, frame.color_range)
    if layout is None or layout.is_grey:
        return to_sdr(frame, size, hdr)[..., ::-1]
    planes = [_samples(plane, layout.depth) for plane in frame.planes[:3]]
    if is_fine:
        planes = [_halved(plane, size) for plane in planes]
    yuv = cv2.merge([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR).astype(np.uint16) for plane in planes])
    matrix = _to_bgr(hdr_matrix(frame), layout.is_full_range).copy()
    matrix[:, 3] += 0.75  # which imitates the scaler's rounding of 8 bits
    matrix[:, :3] /= 2 ** (layout.depth - 8)
    coded = cv2.transform(yuv, 257 * matrix)
    return tone.to_sdr(coded[..., ::-1], hdr)[..., ::-1]


def to_sdr(frame: av.VideoFrame, size: tuple[int, int], hdr: int) -> np.ndarray:
    """Return a frame of high dynamic range scaled to `size` (width, height), uint8 RGB of the standard range."""
    frame.colorspace = hdr_matrix(frame)
    # threads=1: by default a pool of threads is made for every single picture
    coded = frame.reformat(*size, "rgb48le", interpolation="AREA", threads=1).to_ndarray()
    return tone.to_sdr(coded, hdr)


def hdr_matrix(frame: av.VideoFrame) -> int:
    """Return the matrix of a frame of high dynamic range: BT.2020 where it does not say."""
    return tone.BT2020 if frame.colorspace == _NOT_SAID else frame.colorspace


def is_matrix_known(frame: av.VideoFrame) -> bool:
    """Say whether the frame's colours are by a matrix of Y, U and V that is known here."""
    return frame.colorspace in _WEIGHTS


def _bgr_by_scaler(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """Convert the whole of a small frame, then resize it: to the bit what PySceneDetect does."""
    # threads=1: by default a pool of threads is made for every single picture
    return cv2.resize(frame.reformat(format="bgr24", threads=1).to_ndarray(), size, interpolation=cv2.INTER_LINEAR)


def _samples(plane: av.video.plane.VideoPlane, depth: int) -> np.ndarray:
    rows = _rows(plane)
    return (rows if depth == 8 else rows.view(np.uint16))[:, : plane.width]


def _resize(plane: np.ndarray, size: tuple[int, int], depth: int) -> np.ndarray:
    small = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
    return small if depth == 8 else cv2.convertScaleAbs(small, alpha=0.5 ** (depth - 8))


def _thinned(plane: np.ndarray, height: int) -> np.ndarray:
    """Take the nearest line for each of `height`, if there are far more: fetching lines is half a resize's cost."""
    return plane[_nearest(len(plane), height)] if len(plane) >= 2 * height else plane


@lru_cache(maxsize=16)
def _nearest(lines: int, height: int) -> np.ndarray:
    return ((np.arange(height) + 0.5) * lines / height).astype(int)


def _halved(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Average blocks of 2 x 2 until the plane is less than twice as large as `size` (width, height)."""
    while plane.shape[1] >= 2 * size[0] and plane.shape[0] >= 2 * size[1]:
        plane = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return plane
