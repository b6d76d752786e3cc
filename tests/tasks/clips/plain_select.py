"""The selection as it is defined, row by row in Python and all clips with all: what DuckDB's is held to."""

import math
from fractions import Fraction
from typing import Any

import numpy as np

from tasks.clips import thresholds
from tasks.clips.settings import ClipSettings
from tasks.clips.thresholds import Amount
from tasks.storage import tables


def judge_shots(
    scores: list[dict[str, Any]], settings: ClipSettings, released: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Return one row of schema CLIPS for every scored shot, in the order given.

    Args:
        released: clips of earlier releases, in order.
    """
    wanted, rows = thresholds.rules(settings), []
    for score in scores:
        row = {**score, "seconds": seconds(score), "duplicate_of": None}
        row["status"], row["reason"] = thresholds.judge_shot(row, wanted)
        rows.append(row)
    if wanted.duplicate_columns:
        names = {row["clip"] for row in rows}
        reject_duplicates(rows, settings, [clip for clip in released or [] if clip["clip"] not in names])
    if settings.best is not None:
        passed = sorted(tables.ok(rows), key=lambda row: (-row[settings.best.by], row["clip"]))
        for row in passed[settings.best.clips :]:
            row |= {"status": "rejected", "reason": "not_among_best"}
    return rows


def reject_duplicates(rows: list[dict[str, Any]], settings: ClipSettings, released: list[dict[str, Any]]) -> None:
    """Compare each shot that passed, the best first, with every clip kept so far."""
    kept = list(released)
    merits = ("quality", "width", "height", "seconds")
    for row in sorted(tables.ok(rows), key=lambda row: (*_best_first(*(row[name] for name in merits)), row["clip"])):
        near = next((clip for clip in kept if is_near(clip, row, settings)), None)
        if near is None:
            kept.append(row)
        else:
            row |= {"status": "rejected", "reason": "near_duplicate", "duplicate_of": near["clip"]}


def _best_first(quality: float, width: int, height: int, length: float) -> tuple[float, float, float]:
    return -quality, -width * height, -length


def is_near(one: dict[str, Any], other: dict[str, Any], settings: ClipSettings) -> bool:
    if settings.duplicate_bits is not None:
        first, second = (int.from_bytes(row["video_hash"]) for row in (one, other))
        if (first ^ second).bit_count() <= settings.duplicate_bits:
            return True
    if settings.duplicate_similarity is not None:
        first, second = (np.frombuffer(row["embedding"], "<i2").astype(int) for row in (one, other))
        # Python's integers: exact
        product, squares = int(first @ second), int(first @ first) * int(second @ second)
        return product > 0 and product * product >= settings.duplicate_similarity**2 * squares
    return False


def seconds(row: dict[str, Any]) -> float | None:
    """Return the duration of a shot, seconds; None when its times are unknown."""
    if row["start_pts"] is None or row["end_pts"] is None or row["time_base"] is None:
        return None
    # exactly, not end - start: 0.9 s must not be a hair less than a limit of 0.9
    return float((row["end_pts"] - row["start_pts"]) * Fraction(row["time_base"]))


def tally(rows: list[dict[str, Any]]) -> dict[str | None, Amount]:
    """Count the judged rows by reason."""
    found: dict[str | None, Amount] = {}
    for row in rows:
        amount = found.get(row["reason"], Amount(0, 0))
        length = 0 if row["seconds"] is None else math.floor(row["seconds"] * 1e6 + 0.5)
        found[row["reason"]] = Amount(amount.clips + 1, amount.microseconds + length)
    return found
