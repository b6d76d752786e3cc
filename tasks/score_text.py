"""Score text_area: the share of a picture that is covered by lines of text: subtitles, titles, signs, watermarks."""

from collections.abc import Sequence
from importlib import metadata, resources
from typing import Any

import cv2
import numpy as np

_MODEL = "PP-OCRv6_det_small.onnx"  # 10 MB, in the package rapidocr; Apache-2.0
# The detector takes a large plain shape for a giant letter, above all in pictures of little detail
_TALLEST = 0.5  # of the picture's shorter side: nothing higher is a line of text
_LONE = 0.25  # of the shorter side: what is higher must be a line, not one letter ...
_LINE = 2.0  # ... so many times as long as high
_STROKES_SIDE = 256


class RapidText:
    """The text detector of RapidOCR (PaddleOCR's PP-OCRv6, small), without recognition; may serve several threads.

    Lines higher than half the picture, and lone letters higher than a quarter, are not counted. Text lower than
    about 10 of `pixels` is missed. Cost: 25 ms at 384 x 216, on one core.

    Args:
        pixels: longer side that pictures are brought to.

    Attributes:
        name: package, version and model.

    Raises:
        FileNotFoundError: the installed package carries no such model.
    """

    def __init__(self, pixels: int):
        from rapidocr import RapidOCR  # half a second of imports, for the one stage that needs it

        self.name = f"rapidocr {metadata.version('rapidocr')} {_MODEL}"
        self._pixels = pixels
        with resources.as_file(resources.files("rapidocr") / "models" / _MODEL) as model:
            if not model.is_file():  # the package would fetch it from the network
                raise FileNotFoundError(
                    f"{self.name} has no {model}: install rapidocr==3.10.0, or set scores.text_detector: strokes"
                )
            self._detector: Any = RapidOCR(params=_parameters(str(model), pixels))

    def score(self, pictures: Sequence[np.ndarray]) -> float:
        """Return 0 to 1: the share of BGR pictures that lies in lines of text, mean over the pictures."""
        return float(np.mean([self._area(picture) for picture in pictures]))

    def _area(self, picture: np.ndarray) -> float:
        sized = _sized(picture, self._pixels)
        boxes = self._detector(sized).boxes
        lines = [box for box in ([] if boxes is None else boxes) if _is_line(box, min(sized.shape[:2]))]
        covered = np.zeros(sized.shape[:2], np.uint8)
        cv2.fillPoly(covered, [np.asarray(line).round().astype(np.int32) for line in lines], 1)
        return float(covered.mean())


def _parameters(model: str, pixels: int) -> dict[str, object]:
    return {
        "Global.use_cls": False,
        "Global.use_rec": False,
        "Global.use_preprocess_img": False,
        "Global.log_level": "critical",  # or a line on every picture without text
        "Det.model_path": model,
        "Det.limit_type": "max",
        "Det.limit_side_len": pixels,
        "Det.box_thresh": 0.6,  # PaddleOCR's; RapidOCR's 0.5 lets wheels and leaves pass
        # Shards are scored side by side, and one thread adds in one order
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }


def _is_line(box: np.ndarray, side: int) -> bool:
    """Say whether a box (4 corners in turn) in a picture of this shorter side can be a line of text."""
    edges = np.linalg.norm(box - np.roll(box, -1, axis=0), axis=1)
    height, length = sorted((float(edges[0]), float(edges[1])))
    return height <= _LONE * side or (height <= _TALLEST * side and length >= _LINE * height)


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
