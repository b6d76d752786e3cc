"""Which videos are the worst: those to look at first."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.evaluation.metrics import Metric


def worst(rows: Sequence[Mapping[str, Any]], metrics: Sequence[Metric], count: int) -> list[str]:
    """Return the ids of the worst measured videos, the worst first.

    First those with more that is wrong, of what is right or wrong; among equals those of whose group, in the mean over
    the figures that are numbers, a larger share is better. Metrics that are neither good nor bad do not count.

    Args:
        rows: of the table of values, in the order of the suite, which decides between equals.
    """
    measured = [row for row in rows if row["status"] == "ok"]
    counted = [one for one in metrics if one.better and one.is_dimension]
    wrong = {row["id"]: sum(_is_wrong(one, row) for one in counted if one.unit == "share") for row in measured}
    behind: dict[str, list[float]] = {row["id"]: [] for row in measured}
    for group in dict.fromkeys(row["group"] for row in measured):
        for metric in (one for one in counted if one.unit != "share"):
            _rank(metric, [row for row in measured if row["group"] == group and _has(metric, row)], behind)
    mean = {name: sum(found) / len(found) if found else 0.0 for name, found in behind.items()}
    return sorted(wrong, key=lambda name: (-wrong[name], -mean[name]))[:count]


def _has(metric: Metric, row: Mapping[str, Any]) -> bool:
    return row.get(metric.name) is not None


def _is_wrong(metric: Metric, row: Mapping[str, Any]) -> bool:
    return _has(metric, row) and row[metric.name] != (metric.better == "higher")


def _rank(metric: Metric, rows: Sequence[Mapping[str, Any]], behind: dict[str, list[float]]) -> None:
    """Note of each video which share of its group is better."""
    sign = 1 if metric.better == "lower" else -1
    order = sorted(sign * row[metric.name] for row in rows)
    for row in rows:
        behind[row["id"]].append(bisect_left(order, sign * row[metric.name]) / len(rows))
