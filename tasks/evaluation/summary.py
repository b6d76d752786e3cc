"""The card's figures, from the rows of all videos."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import special

from tasks.evaluation import networks, registry
from tasks.evaluation.card import Accounted, Alarm, Dimension, Unmeasured, Videos
from tasks.evaluation.judge import wilson
from tasks.evaluation.measure import Chosen, is_installed
from tasks.evaluation.metrics import Metric, NotApplicable, Rows, SetMetric
from tasks.evaluation.rows import Row
from tasks.evaluation.settings import EvaluationSettings
from tasks.storage import tables

_SAME = ("height", "width", "frames", "fps", "pixels", "codec", "crf", "corpus")


def common(rows: Iterable[Row]) -> Videos:
    """Return what all measured videos have in common.

    Raises:
        ValueError: two of them differ in size, length, rate, or in where their pixels come from.
    """
    first: Row | None = None
    for row in rows:
        if row["status"] != "ok":
            continue
        first = first or row
        for key in _SAME:
            ours, theirs = first["facts"].get(key), row["facts"].get(key)
            if ours != theirs:
                raise ValueError(
                    f"{row['id']} has {key} {theirs}, and {first['id']} {ours}: a card is of one kind of videos; put "
                    "others into a folder of their own, or bring all to one kind"
                )
    facts = first["facts"] if first else dict.fromkeys(_SAME)
    return Videos(**{key: facts.get(key) for key in _SAME})


def dimensions(rows: Sequence[Row], chosen: Chosen, videos: Videos, settings: EvaluationSettings) -> list[Dimension]:
    """Return every figure, group by group in the order of the suite."""
    measured = [row for row in rows if row["status"] == "ok"]
    groups = {group: [row for row in measured if row["group"] == group] for group in _groups(rows)}
    found = [_of_each(one, group, these) for group, these in groups.items() for one in chosen.metrics]
    facts = videos.model_dump()
    for one in chosen.set_metrics:
        parts = groups if one.by_group else {"": measured}
        everyone = _features(one, measured)
        found += [_of_set(one, group, these, everyone, facts, settings) for group, these in parts.items()]
    there = [one for one in found if one is not None]
    lacks = {one.name: one.lack(facts) for one in chosen.set_metrics}
    return there + [
        _not_applicable(name, lacks.get(name)) for name in sorted(chosen.named - {one.name for one in there})
    ]


def _groups(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["group"] for row in rows))


def _not_applicable(name: str, lack: str | None) -> Dimension:
    key = networks.NAMED_BY.get(name)
    reason = f"{key} is null: it names no network" if key else lack or "no video of the suite"
    return Dimension(name=name, value=None, unit=None, better=None, n=0, status="not_applicable", reason=reason)


def _of_each(metric: Metric, group: str, rows: list[Row]) -> Dimension | None:
    """Return the share or the mean of what each video has; None where it applies to none, or is never summed up."""
    if not metric.is_dimension or metric.unit == "word":
        return None
    if any(metric.name in row["not_installed"] for row in rows):
        return _not_installed(metric, group)
    values = [row["values"][metric.name] for row in rows if metric.name in row["values"]]
    if not values:
        return None
    value, low, high = _share(values) if metric.unit == "share" else _mean(values)
    chance = {} if metric.chance is None else {"chance": metric.chance}
    return Dimension(
        name=metric.name, group=group, value=value, unit=metric.unit, better=metric.better, n=len(values), low=low,
        high=high, protocol=dict(metric.protocol) | chance,
    )  # fmt: skip


def _share(values: Sequence[bool]) -> tuple[float, float, float]:
    found = wilson(sum(values), len(values))
    return found.share, found.low, found.high


def _mean(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the mean with Student's interval; one value tells nothing of others."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = float(special.stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _features(metric: SetMetric, rows: list[Row]) -> np.ndarray:
    """Return what a metric of sets is computed from, (n, D), of the videos that have it."""
    found = [row["features"][metric.features] for row in rows if metric.features in row["features"]]
    return np.array(found, np.float64)


def _of_set(
    metric: SetMetric,
    group: str,
    rows: list[Row],
    everyone: np.ndarray,
    facts: dict[str, Any],
    settings: EvaluationSettings,
) -> Dimension | None:
    if not is_installed(metric.needs) or any(metric.features in row["not_installed"] for row in rows):
        return _not_installed(metric, group)
    features = _features(metric, rows)
    if not len(features):
        return None
    about: dict[str, Any] = {"name": metric.name, "group": group, "unit": metric.unit, "better": metric.better}
    about |= {"n": len(features), "protocol": dict(metric.protocol)}
    try:
        figure = metric.compute(Rows(features, group, facts, settings, everyone))
    except NotApplicable as why:
        return Dimension(value=None, status="not_applicable", reason=str(why), **about)
    except ValueError as error:
        return Dimension(value=None, status="failed", reason=" ".join(str(error).split()), **about)
    about["protocol"] |= dict(figure.protocol)
    return Dimension(value=figure.value, low=figure.low, high=figure.high, **about)


def _not_installed(metric: Metric | SetMetric, group: str) -> Dimension:
    return Dimension(
        name=metric.name, group=group, value=None, unit=metric.unit, better=metric.better, n=0,
        status="not_installed", reason=f"pip install -e '.[{metric.needs}]'", protocol=dict(metric.protocol),
    )  # fmt: skip


def alarms(found: Sequence[Dimension], settings: EvaluationSettings) -> list[Alarm]:
    """Return what every rule says of the figures."""
    return [alarm for rule in registry.ALARMS for alarm in rule(found, settings)]


def account(given: Sequence[str], rows: Sequence[Row]) -> Accounted:
    """Return how many videos there were and what became of them.

    Raises:
        ValueError: a video has no row, or two.
    """
    found = tables.reconcile("videos", given, list(rows), key="id")
    return Accounted(**{key: value for key, value in found._asdict().items() if key != "unit"})


def not_measured(rows: Iterable[Row]) -> list[Unmeasured]:
    """Return every video that is in no figure, and why."""
    return [
        Unmeasured(id=row["id"], status=row["status"], reason=row["reason"]) for row in rows if row["status"] != "ok"
    ]
