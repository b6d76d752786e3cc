"""Motion by the network RAFT (Teed and Deng, arXiv 2003.12039), as an option: `shots.motion: {kind: raft, ...}`.

The network is a file that you name, in ONNX with a fixed size, such as `optical_flow_estimation_raft_2023aug.onnx` of
the OpenCV Zoo (360 x 480). It takes two pictures, float32 (1, 3, HEIGHT, WIDTH), red first, 0 to 255, and the last of
its outputs of shape (1, 2, HEIGHT, WIDTH) says where each pixel of the first is in the second: pixels to the right, and
down. The sandbox's worker loads it once, before it opens any video (`prepare`), and each video's process inherits it.
"""

from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from tasks.decoding import onnx

_FAULTS = (
    faults.Fail,
    faults.InvalidArgument,
    faults.InvalidGraph,
    faults.InvalidProtobuf,
    faults.NotImplemented,
    faults.RuntimeException,
)


@lru_cache(maxsize=1)
def prepare(weights: str) -> "Raft":
    """Load the network, once in a process.

    Args:
        weights: its ONNX file.
    Raises:
        ValueError: the file is none, or of another kind of network.
    """
    try:
        return Raft(onnx.load(weights))
    except (ValueError, *_FAULTS) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(
            f"shots.motion.weights is {weights}, which is no such network ({why}): name RAFT as ONNX with two inputs "
            "float 1x3xHxW and an output 1x2xHxW of fixed size, or set shots.motion: {kind: dis}"
        ) from error


class Raft:
    """The network, ready to run.

    Raises:
        ValueError: the session is of a network with other inputs or outputs.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        inputs = session.get_inputs()
        shapes = [one.shape for one in inputs]
        is_sized = all(len(shape) == 4 and all(isinstance(size, int) for size in shape) for shape in shapes)
        is_pair = len(shapes) == 2 and shapes[0] == shapes[1] and is_sized and shapes[0][:2] == [1, 3]
        if not is_pair or any(one.type != "tensor(float)" for one in inputs):
            raise ValueError(f"it takes {_listed(shapes)}")
        self._inputs = [one.name for one in inputs]
        self._height, self._width = shapes[0][2:]
        self._output = self._full_size()

    def _full_size(self) -> str:
        """Return the name of the output that is read, by running the network once: a file may not say the shapes."""
        blank = np.zeros((1, 3, self._height, self._width), np.float32)
        found = self._session.run(None, dict.fromkeys(self._inputs, blank))
        names = [output.name for output in self._session.get_outputs()]
        shapes = [np.shape(value) for value in found]
        fitting = [name for name, shape in zip(names, shapes, strict=True) if shape == (1, 2, *blank.shape[2:])]
        if not fitting:
            raise ValueError(f"it gives {_listed(shapes)}")
        return fitting[-1]

    def vectors(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Return the motion of every pixel from one grey picture to the next, float32 (height, width, 2): pixels.

        A `motion.Estimator`. Grey thrice instead of colours: of the pictures that the decoding pass makes, only the
        grey ones are free of aliasing. They are resized with their aspect kept; what the network's size has beyond
        that is filled with the pixels at their edges.
        """
        height, width = before.shape
        scale = min(self._height / height, self._width / width)
        fitted = max(1, round(scale * width)), max(1, round(scale * height))
        left, top = (self._width - fitted[0]) // 2, (self._height - fitted[1]) // 2
        given = [self._framed(picture, fitted, left, top) for picture in (before, after)]
        inner = self._run(given)[0, :, top : top + fitted[1], left : left + fitted[0]].transpose(1, 2, 0)
        vectors = cv2.resize(np.ascontiguousarray(inner), (width, height), interpolation=cv2.INTER_LINEAR)
        return vectors * np.array([width / fitted[0], height / fitted[1]], np.float32)

    def _run(self, given: list[np.ndarray]) -> np.ndarray:
        try:
            return self._session.run([self._output], dict(zip(self._inputs, given, strict=True)))[0]
        except faults.Fail as error:
            if "bad_alloc" in str(error):
                raise MemoryError(str(error)) from error  # by which the sandbox tells a small limit from a fault
            raise

    def _framed(self, picture: np.ndarray, size: tuple[int, int], left: int, top: int) -> np.ndarray:
        """Return a picture at `size` (width, height) with edges around it, as the network takes it."""
        how = cv2.INTER_AREA if size[0] < picture.shape[1] else cv2.INTER_LINEAR
        resized = cv2.resize(picture, size, interpolation=how)
        right, bottom = self._width - left - size[0], self._height - top - size[1]
        framed = cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_REPLICATE)
        return np.repeat(framed[None, None].astype(np.float32), 3, axis=1)


def _listed(shapes: Iterable[Iterable[object]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
