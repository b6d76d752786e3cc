"""Score embedding: what a shot shows, as an image encoder sees it, in whole numbers.

The mean direction of the stills' features, as int16 (little-endian) with a length of about 4000. Whole numbers, because
the product of two embeddings is then a sum of integers that stays below 2**24, whatever its order: float32 holds each
of them exactly, so that a similarity is one number on every machine, with any BLAS and any number of threads
(tasks/clips/near_embeddings.py). Against float32 a similarity of 512 numbers moves by about 0.0001.
"""

import numpy as np

LENGTH = 4000.0
"""Rounding adds sqrt(width) / 2 at most: below 4096 = 2**12 for widths up to 36,000."""


def embedding(features: np.ndarray) -> bytes:
    """Return the embedding of a shot: 2 bytes per number of a feature.

    Args:
        features: float (stills, width), each of length 1.

    Raises:
        ValueError: the features are no finite numbers, or they cancel out.
    """
    mean = features.astype(np.float64).mean(axis=0)
    length = float(np.sqrt(np.square(mean).sum()))
    if not length > 1e-6:  # NaN too
        raise ValueError(
            f"the image encoder of scores.embedding gives features of length {length}: is it on a device that works, "
            "and are its weights what was trained?"
        )
    return np.rint(LENGTH / length * mean).astype("<i2").tobytes()
