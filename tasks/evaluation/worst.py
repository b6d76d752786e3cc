"""Which videos are the worst: those to look at first."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.evaluation.metrics import Metric


def worst(rows: Sequence[Mapping[str, Any]], metrics: Sequence[Metric], count: int) -> list[str]:
    """Return the ids of the worst measured videos, the worst first.

    A video is as bad as its metrics say in the mean: of what is right or wrong, 1 for wrong; of numbers, the share of
    its group that is better. Metrics that are neither good nor bad do not count.

    Args:
        rows: of the table of values, in the order of the suite, which decides between equals.
    """
    measured = [row for row in rows if row["status"] == "ok"]
    counted = [one for one in metrics if one.better and one.is_dimension]
    marks: dict[str, list[float]] = {row["id"]: [] for row in measured}
    for group in dict.fromkeys(row["group"] for row in measured):
        these = [row for row in measured if row["group"] == group]
        for metric in counted:
            _mark(metric, [row for row in these if row.get(metric.name) is not None], marks)
    badness = {name: sum(found) / len(found) for name, found in marks.items() if found}
    return sorted(badness, key=lambda name: -badness[name])[:count]


def _mark(metric: Metric, rows: Sequence[Mapping[str, Any]], marks: dict[str, list[float]]) -> None:
    sign = 1 if metric.better == "higher" else -1
    values = [sign * row[metric.name] for row in rows]
    if metric.unit == "share":
        found = [float(row[metric.name] != (metric.better == "higher")) for row in rows]
    else:
        order = sorted(-value for value in values)
        found = [bisect_left(order, -value) / len(values) for value in values]
    for row, mark in zip(rows, found, strict=True):
        marks[row["id"]].append(mark)
