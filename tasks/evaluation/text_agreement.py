"""Whether videos follow their prompts better than prompts in any other order: what tells a model that ignores text.

A permutation test over the same videos (Pitman 1937): agreement is a product of what is seen in a video with what a
prompt asks for, so that each video can be held against every prompt. For a suite of shapes the judge sees words, for
others a CLIP model, where one is named; where neither can be asked, nobody guesses. A given first frame tells colour
and shape without any text, so that of such a video only the direction counts; and not even that where the place at
which the object starts tells it.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from tasks.demo.objects import centre_of, largest_part
from tasks.demo.shapes import COLOURS, DIRECTIONS, SHAPES, judge
from tasks.evaluation.metrics import Evaluated, Features, Figure, NotApplicable, Rows, SetMetric

PERMUTATIONS = 2000
"""Orders of the prompts that are tried; p has a floor of 1 in so many."""
_SEED = 0  # of these orders
_TELLS = 0.05  # p below which the starts of given first frames fit the directions by more than chance
_SAME = 1e-9  # sums of the same numbers in another order may differ by less
_AWAY: Mapping[str, tuple[int, int]] = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}
"""On which side of the middle an object starts that moves in a direction and stays in the picture: x, y downwards."""
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (("colour", COLOURS), ("shape", SHAPES), ("direction", DIRECTIONS))


def permutation_p(agreement: np.ndarray, permutations: int = PERMUTATIONS) -> float:
    """Return the probability that prompts in a random order agree with the videos as well as in the true one.

    Args:
        agreement: float (n, n), of video i with prompt j; the true prompts are on the diagonal.

    Raises:
        ValueError: it is not square.
    """
    if agreement.ndim != 2 or agreement.shape[0] != agreement.shape[1]:
        raise ValueError(f"agreement is {agreement.shape}: it is of each video with each prompt, (n, n)")
    random, places = np.random.default_rng(_SEED), np.arange(len(agreement))
    true = agreement.diagonal().sum()
    orders = random.permuted(np.tile(places, (permutations, 1)), axis=1)
    as_good = (agreement[places, orders].sum(axis=1) >= true - _SAME).sum()
    return (1 + int(as_good)) / (1 + permutations)


def least_p(prompts: np.ndarray) -> float:
    """Return about the least p that so many videos can have: equal prompts make equal orders.

    Args:
        prompts: float (n, D), what each asks for.
    """
    _, counts = np.unique(prompts, axis=0, return_counts=True)
    orders = math.lgamma(len(prompts) + 1) - sum(math.lgamma(count + 1) for count in counts)
    return max(math.exp(-orders), 1 / (1 + PERMUTATIONS))


def is_judged(entry: Evaluated) -> bool:
    """Say whether the judge of shapes can tell what is due to the text."""
    return entry.colour is not None and (not entry.given_frames or entry.given_frames == (0,))


def _by_judge(entry: Evaluated) -> np.ndarray:
    """Return 1 for each word that is seen, else 0, float64 (14,), the same of those asked for, and `_start` (2,)."""
    verdict = entry.seen_by(judge)
    seen, asked = [], []
    for name, words in _WORDS:
        counts = not entry.given_frames or name == "direction"
        seen += [float(counts and getattr(verdict, name) == word) for word in words]
        asked += [float(counts and getattr(entry, name) == word) for word in words]
    return np.array([*seen, *asked, *_start(entry)])


def _start(entry: Evaluated) -> tuple[float, float]:
    """Return how far the object of a given first frame is from the middle, (x, y), shares of the sides; 0 without one.

    The object is the largest part of a stronger colour than the rest has.
    """
    if not entry.given_frames:
        return 0.0, 0.0
    picture = entry.image if entry.image is not None else (entry.video if entry.truth is None else entry.truth)[0]
    strength = np.ptp(picture.astype(np.float32), axis=2)
    strength -= np.median(strength)
    part = largest_part(np.clip(strength / max(1.0, float(np.percentile(strength, 99))), 0, 1))
    if part is None:
        return 0.0, 0.0
    height, width = picture.shape[:2]
    x, y = centre_of(part)
    return (x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5


def shapes_p(rows: Rows) -> Figure:
    """Return p of a group's videos of shapes, from features of `_by_judge`.

    Raises:
        NotApplicable: as `text_p`; or the given first frames tell the directions, so that who ignores the text is right
            all the same.
    """
    words, starts = rows.features[:, :-2], rows.features[:, -2:]
    asked = words[:, -len(DIRECTIONS) :]
    sides = asked @ np.array([_AWAY[name] for name in DIRECTIONS], np.float64)
    found = text_p(rows._replace(features=words))
    if starts.any() and (told := permutation_p(starts @ sides.T)) < _TELLS:
        raise NotApplicable(
            "the given first frames tell the directions without the text: where objects start fits these with "
            f"p = {told:.2g}, and a model that ignores the text may be right all the same"
        )
    return found


def text_p(rows: Rows) -> Figure:
    """Return p of a group's videos, from features whose halves are of the video and of its prompt.

    Raises:
        NotApplicable: there are so few videos, or so few different prompts, that p could never be low.
    """
    seen, asked = np.split(rows.features, 2, axis=1)
    least, limit = least_p(asked), rows.settings.alarms.text_p
    if least > limit:
        different = len(np.unique(asked, axis=0))
        raise NotApplicable(
            f"{len(asked)} videos of {different} different prompts cannot tell: p would be {least:.2g} at least"
        )
    return Figure(permutation_p(seen @ asked.T))


def set_metric(name: str, features: str, by: str, compute: Callable[[Rows], Figure] = text_p) -> SetMetric:
    """Return p by what is seen as `features`."""
    protocol = {"by": by, "permutations": PERMUTATIONS, "seed": _SEED}
    meaning = (
        "Probability that the prompts in a random order fit the videos as well: high where a model ignores the text."
    )
    return SetMetric(name, "p", "lower", features, compute, protocol=protocol, meaning=meaning)


FEATURES = (Features("text_agreement", _by_judge, is_judged),)
SET_METRICS = (set_metric("text_p", "text_agreement", "judge of shapes", shapes_p),)


def by_clip(features: Callable[[np.ndarray], np.ndarray], of_text: Callable[[str], np.ndarray]) -> Features:
    """Return features of a CLIP model: of a video without given frames the mean of its frames, and of its prompt.

    Args:
        features: from uint8 RGB (T, H, W, 3) to float (T, D), each of length 1.
        of_text: from a prompt to float (D,), of length 1.
    """
    return Features("text_agreement_clip", partial(_by_clip, features, of_text), _is_from_text)


def _is_from_text(entry: Evaluated) -> bool:
    return bool(entry.prompt) and not entry.given_frames and entry.image is None


def _by_clip(
    features: Callable[[np.ndarray], np.ndarray], of_text: Callable[[str], np.ndarray], entry: Evaluated
) -> np.ndarray:
    assert entry.prompt, "it applies to such entries only"
    return np.concatenate([features(entry.video).mean(axis=0), of_text(entry.prompt)]).astype(np.float64)
