"""One video measured: a row with a value of each metric that applies to it."""

import importlib.util
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from stiv_model.settings_errors import nearest
from tasks.evaluation import networks, registry
from tasks.evaluation.metrics import Evaluated, Features, Metric, SetMetric
from tasks.evaluation.rows import Row
from tasks.evaluation.settings import EvaluationSettings
from tasks.evaluation.suites import Entry, Unusable

log = logging.getLogger(__name__)


class Chosen(NamedTuple):
    """What is measured."""

    metrics: tuple[Metric, ...]
    features: tuple[Features, ...]
    set_metrics: tuple[SetMetric, ...]
    named: frozenset[str]
    """Those that were asked for by name."""

    def told(self) -> dict[str, Any]:
        """Return what decides about rows, as JSON has it: name, protocol, and whether it can be measured here."""
        parts: list[Metric | SetMetric] = [*self.metrics, *self.set_metrics]
        return {one.name: [dict(one.protocol), is_installed(one.needs)] for one in parts}


def choose(names: Sequence[str], settings: EvaluationSettings) -> Chosen:
    """Return every metric that is measured by default, and those that are named.

    Args:
        settings: that name networks, which are loaded.

    Raises:
        FileNotFoundError: a network that is named is not there.
        ValueError: there is no metric of such a name, or a network is not what it should be.
    """
    known = {one.name for one in registry.figures()} | set(networks.NAMED_BY)
    for name in names:
        if name not in known:
            raise ValueError(
                f"evaluation.metrics: {name} is no metric{nearest(name, known)}: it is one of {_list(known)}"
            )
    named = networks.load(settings)
    metrics = tuple(one for one in registry.METRICS if _is_chosen(one, names))
    sets = tuple(one for one in registry.SET_METRICS if _is_chosen(one, names))
    wanted = {one.features for one in sets}
    features = tuple(one for one in registry.FEATURES if one.name in wanted)
    return Chosen(metrics + named.metrics, features + named.features, sets + named.set_metrics, frozenset(names))


def _is_chosen(one: Metric | SetMetric, names: Sequence[str]) -> bool:
    """Say whether a figure stands in the card: one that lacks its extra always does, as not installed."""
    return one.is_default or one.name in names or not is_installed(one.needs)


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))


@cache
def is_installed(extra: str | None) -> bool:
    """Say whether the packages of an extra are there; they are looked for, not imported."""
    return extra is None or all(importlib.util.find_spec(name) for name in registry.EXTRAS[extra])


def measure(entry: Entry, sha256: str, chosen: Chosen) -> Row:
    """Return the row of a video; one that cannot be measured is rejected or failed, with a reason."""
    row: Row = {"id": entry.id, "group": entry.group, "sha256": sha256, "status": "ok", "reason": None}
    row |= {"facts": {}, "values": {}, "features": {}, "not_installed": []}
    try:
        loaded = entry.load()
        frames, height, width = loaded.entry.video.shape[:3]
        facts = {"height": height, "width": width, "frames": frames} | loaded.facts
        return row | {"facts": facts} | _measured(replace(loaded.entry, fps=facts["fps"]), chosen)
    except Unusable as verdict:
        return row | {"status": verdict.status, "reason": verdict.reason}


def _measured(entry: Evaluated, chosen: Chosen) -> dict[str, Any]:
    values: dict[str, Any] = {}
    absent: list[str] = []
    for metric in chosen.metrics:
        if (found := _ask(metric, entry, absent)) is not None:
            values[metric.name] = found if isinstance(found, bool | str) else float(found)
            _check_finite(entry.id, metric.name, [] if isinstance(found, str) else [values[metric.name]])
    features: dict[str, list[float]] = {}
    for one in chosen.features:
        if (numbers := _ask(one, entry, absent)) is not None:
            features[one.name] = [float(number) for number in numbers]
            _check_finite(entry.id, one.name, features[one.name])
    return {"values": values, "features": features, "not_installed": absent}


def _ask(one: Metric | Features, entry: Evaluated, absent: list[str]) -> Any:
    """Return what is measured of a video; None where nothing is.

    Args:
        absent: takes the name where an extra would be needed.

    Raises:
        Unusable: it cannot be measured, as of a video that is too short.
    """
    if not one.applies(entry):
        return None
    if not is_installed(one.needs):
        absent.append(one.name)
        return None
    try:
        return one.measure(entry)
    except ValueError as error:
        log.warning("%s: %s: %s", entry.id, one.name, error)
        raise Unusable("failed", "not_measured") from None


def _check_finite(video: str, name: str, numbers: list[float]) -> None:
    """Refuse what no figure can be made of.

    Raises:
        Unusable: a number is infinite, or none.
    """
    if not all(math.isfinite(number) for number in numbers):
        log.warning("%s: %s is not finite", video, name)
        raise Unusable("failed", "not_finite")
