"""Score text_area: the share of a picture that is covered by lines of text: subtitles, titles, signs, watermarks."""

from collections.abc import Sequence
from importlib import metadata, resources
from typing import Any

import cv2
import numpy as np

_MODEL = "PP-OCRv6_det_small.onnx"  # 10 MB, in the package rapidocr; Apache-2.0
_STRIDE = 32  # pixels: the network takes multiples
_CORE = 0.3  # probability from which a pixel is in the core of a line (PaddleOCR's)
_MARGIN = 3  # pixels around a core over which its probability falls
_UNCLIP = 1.6  # a line reaches beyond its core by so many times area over circumference (RapidOCR's)
_COVERED = 3.2  # the area of a line of printed text over the probability in and around its core
# Probability over the rectangle around a core: 0.8 and more for 172 lines drawn on real frames, 0.66 for a blob
_DOUBTFUL, _SURE = 0.7, 0.8
_LOWEST = 5.0  # pixels, of a line (PaddleOCR's)
# The detector takes a large plain shape for a giant letter, above all in pictures of little detail
_TALLEST = 0.5  # of the picture's shorter side: nothing higher is a line of text
_LONE = 0.25  # of the shorter side: what is higher must be a line, not one letter ...
_LINE = 2.0  # ... so many times as long as high
_STROKES_SIDE = 256


class RapidText:
    """The text detector that RapidOCR carries (PaddleOCR's PP-OCRv6, small); may serve several threads.

    It gives every pixel the probability to be in the core of a line of text. A line's area is taken from their sum, not
    from a box drawn around those above a limit, as OCR needs it: a core is a few pixels high, so that one pixel more,
    or a line that falls in two, changes a box's area by a tenth. A line of which the detector is not sure counts in
    part.

    Lines higher than half the picture, and lone letters higher than a quarter, are not counted. Text lower than
    about 10 of `pixels` is missed. Cost: 25 ms at 384 x 216, on one core.

    Args:
        pixels: longer side that pictures are brought to.

    Attributes:
        name: package, version and model, and that areas are sums.

    Raises:
        FileNotFoundError: the installed package carries no such model.
    """

    def __init__(self, pixels: int):
        from tasks.decoding import onnx  # ONNX Runtime, for the one stage that needs it

        package = f"rapidocr {metadata.version('rapidocr')} {_MODEL}"
        self.name = f"{package}, summed"
        self._pixels = pixels
        with resources.as_file(resources.files("rapidocr") / "models" / _MODEL) as model:
            if not model.is_file():
                raise FileNotFoundError(
                    f"{package}: there is no {model}: install rapidocr==3.10.0, or set scores.text_detector: strokes"
                )
            self._session: Any = onnx.load(str(model))
        (self._input,) = (one.name for one in self._session.get_inputs())

    def score(self, pictures: Sequence[np.ndarray]) -> float:
        """Return 0 to 1: the share of BGR pictures that lies in lines of text, mean over the pictures."""
        return float(np.mean([covered(self._probability(picture)) for picture in pictures]))

    def _probability(self, picture: np.ndarray) -> np.ndarray:
        """Return each pixel's probability to be in the core of a line: float32 (height, width), multiples of 32."""
        scale = self._pixels / max(picture.shape[:2]) / _STRIDE
        height, width = (_STRIDE * max(1, round(side * scale)) for side in picture.shape[:2])
        way = cv2.INTER_AREA if _STRIDE * scale < 1 else cv2.INTER_CUBIC
        sized = cv2.resize(picture, (width, height), interpolation=way).astype(np.float32) / 127.5 - 1
        (found,) = self._session.run(None, {self._input: np.ascontiguousarray(sized.transpose(2, 0, 1)[None])})
        return found[0, 0]


def covered(probability: np.ndarray) -> float:
    """Return 0 to 1: the share of a picture that lies in lines of text.

    Args:
        probability: of each pixel to be in the core of a line, float32 (height, width).
    """
    cores = (probability > _CORE).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(cores, connectivity=8)
    area = 0.0
    for label in range(1, count):
        left, top, width, height, _ = boxes[label]
        around = (
            slice(max(0, top - _MARGIN), top + height + _MARGIN),
            slice(max(0, left - _MARGIN), left + width + _MARGIN),
        )
        own, is_core, is_free = probability[around], labels[around] == label, labels[around] == 0
        height, length = _rectangle(is_core)
        sure = (own[is_core].sum(dtype=np.float64) / (height * length) - _DOUBTFUL) / (_SURE - _DOUBTFUL)
        more = _UNCLIP * height * length / (height + length)
        if sure > 0 and _is_line(height + more, length + more, min(probability.shape)):
            area += min(1.0, float(sure)) * float(own[is_core | is_free].sum(dtype=np.float64))
    return min(1.0, _COVERED * area / probability.size)


def _rectangle(core: np.ndarray) -> tuple[float, float]:
    """Return height and length of the rectangle around a core, pixels."""
    outlines, _ = cv2.findContours(core.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    _, sides, _ = cv2.minAreaRect(outlines[0])
    height, length = sorted(side + 1 for side in sides)  # from the middle of a pixel to that of another
    return height, length


def _is_line(height: float, length: float, side: int) -> bool:
    """Say whether what is so high and long, in a picture of this shorter side, can be a line of text."""
    if not _LOWEST <= height <= _TALLEST * side:
        return False
    return height <= _LONE * side or length >= _LINE * height


def _sized(picture: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(picture.shape[:2])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return picture if scale == 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=way)


class Strokes:
    """The rule without a model, `strokes`. Cost: 0.5 ms a picture of 256 x 144."""

    name = "strokes"

    def score(self, pictures: Sequence[np.ndarray]) -> float:
        """Return 0 to 1: the mean share over BGR pictures."""
        return float(np.mean([strokes(picture) for picture in pictures]))


def strokes(picture: np.ndarray) -> float:
    """Return 0 to 1: the share of a BGR picture that looks like lines of text, by a rule.

    Strong changes of brightness that lie close together are joined into bands by a morphological closing; a
    band counts when it is wider than high, low, dense, and holds many strokes. Fences may pass as text, and
    text of little contrast is missed.
    """
    grey = cv2.cvtColor(_sized(picture, _STROKES_SIDE), cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    changes = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    _, strong = cv2.threshold(changes, 80, 255, cv2.THRESH_BINARY)
    joined = cv2.morphologyEx(strong, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=4)
    edges = np.abs(np.diff(grey.astype(np.int16), axis=1)) > 60
    area = 0
    for left, top, wide, high, pixels in boxes[1:count]:
        if high < 5 or high > height / 4 or wide < 2.5 * high or pixels < 0.5 * wide * high:
            continue
        crossings = edges[top : top + high, left : min(left + wide, width - 1)].sum(axis=1).mean()
        if crossings >= wide / high:  # about two edges per letter, a letter is about half its height wide
            area += int(wide * high)
    return min(1.0, area / (height * width))
