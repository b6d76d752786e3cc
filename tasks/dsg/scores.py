"""DSG-Video: of many captions, how much is invented (STIV, arXiv 2412.07730, section 5).

`rate_i` is the share of invented objects, `rate_s` that of sentences with one, `rate_c` that of captions with one,
which is CHAIR's sentence (Rohrbach et al. 2018): the paper leaves open which of the two it prints.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.dsg.intervals import FEWEST_HIT, captions_needed, korn_graubard, wilson
from tasks.dsg.questions import KINDS, Graph, Kind
from tasks.dsg.verdicts import Verdict

RAREFIED = 100
"""Captions that richness is told for: the paper's number."""


class Counts(NamedTuple):
    """What was counted in one caption."""

    objects: int
    """That are decided: present or invented. Void ones are not counted anywhere."""
    invented: int
    undecided: int
    sentences: int
    """All of the caption."""
    sentences_decided: int
    """With a decided object."""
    sentences_invented: int
    """With an invented object."""
    keys: tuple[str, ...]
    """Objects that it names, whatever became of them."""
    kinds: dict[Kind, tuple[int, int, int]]
    """Decided, invented and undecided questions of each kind that it has."""


def count(graph: Graph, verdicts: dict[int, Verdict], sentences: int) -> Counts:
    """Count what became of one caption's questions.

    Args:
        verdicts: by id of the question.
        sentences: how many the caption has.
    """
    kinds: dict[Kind, list[int]] = {}
    decided: set[int] = set()
    bad: set[int] = set()
    keys = []
    for question in graph.questions:
        found = verdicts[question.id]
        if question.kind == "object":
            keys.append(question.key or question.text)
        if found == "void":
            continue
        own = kinds.setdefault(question.kind, [0, 0, 0])
        if found == "undecided":
            own[2] += 1
            continue
        own[0] += 1
        own[1] += found == "invented"
        if question.kind == "object":
            decided.update(question.sentences)
            if found == "invented":
                bad.update(question.sentences)
    objects, invented, undecided = kinds.get("object", (0, 0, 0))
    of_kinds: dict[Kind, tuple[int, int, int]] = {kind: (own[0], own[1], own[2]) for kind, own in kinds.items()}
    return Counts(objects, invented, undecided, sentences, len(decided), len(bad), tuple(keys), of_kinds)


class Rate(NamedTuple):
    """A share with its 95 % interval; None where nothing was counted."""

    hits: int
    of: int
    rate: float | None
    low: float | None
    high: float | None


class Figures(NamedTuple):
    """What is said of a set of captions."""

    captions: int
    with_invention: int
    captions_needed: int
    """How many more captions it takes until an interval is trusted (`intervals.FEWEST_HIT`); 0 where it is."""
    rate_i: Rate
    """Invented objects of decided ones; Korn-Graubard with captions as clusters."""
    rate_s: Rate
    """Sentences with an invented object, of those with a decided one; likewise."""
    rate_s_all: Rate
    """The same of all sentences."""
    rate_c: Rate
    """Captions with an invented object, of those with a decided one; Wilson, for captions are independent."""
    pooled: Rate
    """`rate_i` with the interval of Wilson that takes objects for independent: too narrow, for comparison only."""
    effective_objects: float
    """How many independent objects would tell as much."""
    undecided: float | None
    """Share of the objects that are neither present nor invented."""
    bounds: tuple[float, float] | None
    """Share of invented objects if all undecided ones were present, and if all were invented."""
    objects_per_caption: float | None
    distinct_objects: int
    rarefied_objects: float | None
    """Distinct objects to expect in `RAREFIED` of the captions; None where there are fewer."""
    kinds: dict[Kind, Rate]
    """Invented questions of each kind, of decided ones; only objects are in `rate_i`."""

    @property
    def is_trusted(self) -> bool:
        """Whether enough captions have an invention for the interval to be what it says."""
        return self.with_invention >= FEWEST_HIT


def figures(counts: Sequence[Counts]) -> Figures:
    """Return what captions say together.

    Raises:
        ValueError: there is no caption.
    """
    if not counts:
        raise ValueError("figures: there is no caption")
    objects, invented, undecided, sentences, decided, bad = np.array([one[:6] for one in counts], np.int64).T
    named, with_invention = int(objects.sum()), int((invented > 0).sum())
    total = named + int(undecided.sum())
    rate_i, effective = _clustered(invented, objects)
    pooled = wilson(np.array(rate_i.hits), np.array(named))
    answered = int((objects > 0).sum())
    keys = [set(one.keys) for one in counts]
    mentions = Counter(key for own in keys for key in own)
    return Figures(
        captions=len(counts),
        with_invention=with_invention,
        captions_needed=captions_needed(len(counts), with_invention),
        rate_i=rate_i,
        rate_s=_clustered(bad, decided)[0],
        rate_s_all=_clustered(bad, sentences)[0],
        rate_c=_rate(with_invention, answered, *wilson(np.array(with_invention), np.array(answered))),
        pooled=_rate(rate_i.hits, named, *pooled),
        effective_objects=effective,
        undecided=int(undecided.sum()) / total if total else None,
        bounds=(rate_i.hits / total, (rate_i.hits + int(undecided.sum())) / total) if total else None,
        objects_per_caption=sum(map(len, keys)) / len(counts),
        distinct_objects=len(mentions),
        rarefied_objects=rarefied(mentions, len(counts)),
        kinds=_by_kind(counts),
    )


def rarefied(mentions: Counter[str], captions: int, size: int = RAREFIED) -> float | None:
    """Return how many distinct objects `size` of the captions have, in the mean of all choices; None of fewer captions.

    Args:
        mentions: by object: how many captions name it.
    """
    if captions < size:
        return None
    choices = math.comb(captions, size)
    by_number = Counter(mentions.values())
    # whole numbers divide exactly, however large
    return sum(many * (1 - math.comb(captions - number, size) / choices) for number, many in by_number.items())


def _by_kind(counts: Sequence[Counts]) -> dict[Kind, Rate]:
    found = {}
    for kind in KINDS:
        rows = np.array([one.kinds.get(kind, (0, 0, 0)) for one in counts], np.int64)
        if rows.any():
            found[kind] = _clustered(rows[:, 1], rows[:, 0])[0]
    return found


def _clustered(hits: np.ndarray, units: np.ndarray) -> tuple[Rate, float]:
    interval = korn_graubard(hits, units)
    effective = float(interval.effective)
    return _rate(int(hits.sum()), int(units.sum()), interval.low, interval.high), effective


def _rate(hits: int, of: int, low: np.ndarray, high: np.ndarray) -> Rate:
    if not of:
        return Rate(hits, of, None, None, None)
    return Rate(hits, of, hits / of, float(low), float(high))
