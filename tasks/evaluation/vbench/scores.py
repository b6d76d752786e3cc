"""Quality, Semantic, I2V and Total of VBench, from the means of its dimensions."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.evaluation.vbench.conventions import Convention, limits

TOTAL = "total"


class Scores(NamedTuple):
    """Scores by one convention, in percent."""

    convention: Convention
    groups: dict[str, float]
    """The groups that are whole, and `total` where all are."""
    missing: tuple[str, ...]
    """Dimensions that the convention counts and nobody measured."""
    not_counted: tuple[str, ...]
    """Dimensions that were measured and the convention does not count."""
    raw: dict[str, float]
    """Means as they were measured, fractions."""


def normalised(dimension: str, raw: float) -> float:
    """Return a mean on VBench's scale, (raw - min) / (max - min); not clipped, as there: it may leave 0 to 1."""
    low, high, _ = limits()[dimension]
    return (raw - low) / (high - low)


def score(raw: Mapping[str, float], convention: Convention, is_partial: bool = False) -> Scores:
    """Return the scores of a convention: weighted means of normalised dimensions, and the weighted mean of those.

    Args:
        raw: the mean of each dimension, a fraction.
        is_partial: score the groups that are whole where others are not; a dimension that is missing is never a 0.

    Raises:
        ValueError: a dimension is missing; or, of a partial score, there is one missing in every group.
    """
    missing = tuple(dimension for dimension in convention.counted if dimension not in raw)
    whole = {name: group for name, group in convention.groups.items() if not set(group.dimensions) & set(missing)}
    if missing and not (is_partial and whole):
        what = "no group is whole" if is_partial else "no total"
        remedy = "measure them" if is_partial else "measure them, or ask for the groups that are whole: --partial"
        raise ValueError(f"{what} by convention {convention.name}: missing {', '.join(missing)}: {remedy}")
    groups = {name: 100 * _weighted(group.dimensions, raw) for name, group in whole.items()}
    if not missing:
        weights = [group.weight for group in convention.groups.values()]
        groups[TOTAL] = sum(w * s for w, s in zip(weights, groups.values(), strict=True)) / sum(weights)
    not_counted = tuple(dimension for dimension in convention.not_counted if dimension in raw)
    return Scores(convention, groups, missing, not_counted, dict(raw))


def _weighted(dimensions: tuple[str, ...], raw: Mapping[str, float]) -> float:
    weights = [limits()[dimension].weight for dimension in dimensions]
    values = [normalised(dimension, raw[dimension]) for dimension in dimensions]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def table(scores: Scores) -> str:
    """Return the scores for people, the convention first."""
    lines = [f"convention {scores.convention.name}: {scores.convention.source}"]
    for name, value in scores.groups.items():
        lines.append(f"{name:10s}{value:7.2f}   {_made_of(name, scores.convention)}")
    if scores.missing:
        lines.append(f"missing: {', '.join(scores.missing)}; no total, and none of the groups that need them")
    if scores.not_counted:
        lines.append(f"measured, and not counted by this convention: {', '.join(scores.not_counted)}")
    return "\n".join(lines)


def _made_of(name: str, convention: Convention) -> str:
    if name != TOTAL:
        return f"{len(convention.groups[name].dimensions)} dimensions"
    return " + ".join(f"{group.weight:g} x {key}" for key, group in convention.groups.items()) + ", by their weights"


def as_json(scores: Scores) -> str:
    """Return the scores for programs: percent, and of every dimension its mean (a fraction) and that normalised."""
    of: dict[str, Any] = {
        "convention": scores.convention.name,
        "source": scores.convention.source,
        "unit": "percent",
        "scores": scores.groups,
        "missing": list(scores.missing),
        "not_counted": list(scores.not_counted),
        "dimensions": {name: {"mean": raw, "normalised": normalised(name, raw)} for name, raw in scores.raw.items()},
    }
    return json.dumps(of, indent=2)
