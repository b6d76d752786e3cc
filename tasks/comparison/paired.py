"""What two captioners that were asked about the same clips come to: who invents less, how much each says, per source.

Rates are told of those groups of clips only in which the judge is fit. Both captioners are judged by the same judge
about the same videos, so that what it is worth is counted over the decoys of both.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tasks.dsg.captions import counts_of, decoys_of
from tasks.dsg.compare import Compared, compare
from tasks.dsg.correction import Known, add, youden
from tasks.dsg.gate import Judged, decide, unfit
from tasks.dsg.questions import KINDS, Kind
from tasks.dsg.scores import RAREFIED, Counts, Figures, rarefied
from tasks.dsg.settings import DsgSettings


class Pair(NamedTuple):
    """One clip, captioned by both and judged."""

    clip: str
    group: str
    counts: tuple[Counts, Counts]
    decoys: tuple[dict[Kind, Known], dict[Kind, Known]]


def pair(clip: str, group: str, rows: Sequence[Mapping[str, Any]]) -> Pair:
    """Return a clip's pair of two rows as `captions.judge_caption` makes them."""
    a, b = (dict(row) for row in rows)
    return Pair(clip, group, (counts_of(a), counts_of(b)), (decoys_of(a), decoys_of(b)))


class Fit(NamedTuple):
    """What is known of the judge in a group of clips."""

    decoys: dict[Kind, Known]
    """Of both captioners together."""
    trouble: str | None
    """Why there is no figure; None where the judge is fit."""


def fit(pairs: Sequence[Pair], settings: DsgSettings) -> Fit:
    """Say whether the judge is fit for these clips."""
    decoys = known(pairs)
    judged = Judged([one for own in pairs for one in own.counts], decoys.get("object", Known(0, 0)), Known(0, 0))
    return Fit(decoys, unfit(judged, settings))


def known(pairs: Sequence[Pair]) -> dict[Kind, Known]:
    """Return of each kind of decoys how many were denied, of how many."""
    found: dict[Kind, Known] = {}
    for own in (decoys for one in pairs for decoys in one.decoys):
        for kind, more in own.items():
            found[kind] = add(found.get(kind, Known(0, 0)), more)
    return found


def differences(pairs: Sequence[Pair], decoys: Mapping[Kind, Known]) -> dict[Kind, dict[str, Any]]:
    """Return of each kind of questions that both have how the first captioner compares with the second.

    The difference is that of the observed rates; `corrected` is it without the judge's errors, which are the same for
    both: their correction is linear, so that it moves no verdict.

    Args:
        decoys: of the judge, about these clips.
    """
    told: dict[Kind, dict[str, Any]] = {}
    for kind in KINDS:
        decided, invented = _of_kind(pairs, kind)
        if not decided.any():
            continue
        try:
            found = compare(invented[:, 0], decided[:, 0], invented[:, 1], decided[:, 1])
        except ValueError as error:
            told[kind] = {"verdict": "cannot tell", "said": "cannot tell", "why": str(error)}
            continue
        told[kind] = _told(found, decoys.get(kind))
    return told


def _told(found: Compared, decoys: Known | None) -> dict[str, Any]:
    own = {name: _finite(value) for name, value in found._asdict().items()} | {"said": str(found)}
    if decoys is None or not decoys.asked or (worth := youden(decoys, Known(0, 0))) <= 0:
        return own
    scaled = {name: max(-1.0, min(1.0, getattr(found, name) / worth)) for name in ("difference", "low", "high")}
    return own | {"corrected": scaled}


def _finite(value: Any) -> Any:
    """Return a number as JSON has it, which knows no infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _of_kind(pairs: Sequence[Pair], kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Return how many questions of a kind are decided, and how many invented: int (clips, 2) each."""
    found = np.array([[one.kinds.get(kind, (0, 0, 0))[:2] for one in own.counts] for own in pairs], np.int64)
    return found[..., 0], found[..., 1]


def told(pairs: Sequence[Pair], place: int, decoys: Mapping[Kind, Known], settings: DsgSettings) -> dict[str, Any]:
    """Return the figures of one of the two captioners, observed and corrected.

    Args:
        place: 0 or 1: which.
        decoys: of the judge, about these clips.
    """
    counts = [own.counts[place] for own in pairs]
    gate = decide(Judged(counts, decoys.get("object", Known(0, 0)), Known(0, 0)), settings)
    found = in_json(gate.figures)
    if gate.corrected is not None:
        found["corrected_i"] = {name: float(value) for name, value in gate.corrected._asdict().items()}
    return found | {"gate": {"verdict": gate.verdict, "why": gate.why}}


def in_json(found: Figures) -> dict[str, Any]:
    """Return figures as JSON has them."""
    own = found._asdict()
    own |= {name: value._asdict() for name, value in own.items() if name.startswith(("rate_", "pooled"))}
    return own | {"kinds": {kind: rate._asdict() for kind, rate in found.kinds.items()}}


def richness(pairs: Sequence[Pair], place: int) -> dict[str, Any]:
    """Return how many distinct objects a captioner names, rarefied to 100 captions or to all where they are fewer.

    What it invents is among them: read it beside the rates.
    """
    counts = [own.counts[place] for own in pairs]
    size = min(RAREFIED, len(counts))
    mentions = Counter(key for one in counts for key in set(one.keys))
    return {
        "captions": size,
        "distinct_objects": rarefied(mentions, len(counts), size),
        "objects_per_caption": sum(len(one.keys) for one in counts) / max(1, len(counts)),
    }
