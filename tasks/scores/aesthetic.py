"""Score aesthetic: how good a picture looks, 0 to 10, estimated without weights.

The learnt score is another (tasks/scores/aesthetic_clip.py), and not comparable: thresholds chosen for one say nothing
of the other. The stage's report names the one that was used.
"""

from collections.abc import Sequence

import cv2
import numpy as np

_SIDE = 128  # pixels of the longer side at which the estimate is made: the same picture at two sizes looks as good


class Estimate:
    """The estimate without weights. Cost: 0.2 ms a picture.

    Mean of four parts, each 0 to 10: colourfulness (Hasler and Süsstrunk 2003; 60 is "quite colourful"), contrast
    (standard deviation of grey; 64 is full), exposure (mean grey; full between 0.25 and 0.75), sharpness (standard
    deviation of the Laplacian; 40 is full). It tells dull, dark and blurred pictures from others, and has no taste.
    """

    name = "estimator"

    def score(self, pictures: Sequence[np.ndarray]) -> float:
        """Return the mean estimate over BGR pictures."""
        return float(np.mean([estimate(picture) for picture in pictures]))


def estimate(picture: np.ndarray) -> float:
    """Return 0 to 10 for one BGR picture, as `Estimate` says."""
    scale = min(1.0, _SIDE / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    blue, green, red = (small[..., channel].astype(np.float64) for channel in range(3))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    colourfulness = np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    mean = grey.mean(dtype=np.float64) / 255
    parts = (
        colourfulness / 60,
        grey.std(dtype=np.float64) / 64,
        4 * min(mean, 1 - mean),
        cv2.Laplacian(grey, cv2.CV_32F).std(dtype=np.float64) / 40,
    )
    return 10 * float(np.mean(np.clip(parts, 0, 1)))
