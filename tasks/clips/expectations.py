"""What the table of clips must be like, as Great Expectations suites (tasks/gates/gate.py)."""

import math
from fractions import Fraction
from pathlib import Path

import duckdb
import great_expectations.expectations as gxe
from great_expectations.expectations.row_conditions import Column

from tasks.clips.settings import ClipSettings
from tasks.clips.thresholds import NEAR_DUPLICATE, POSSIBLE, ranges
from tasks.clips.verdicts import MICROSECONDS
from tasks.gates import gate
from tasks.gates.gate import Expectations, GateResult, Held
from tasks.gates.row_counts import counted
from tasks.storage import queries
from tasks.storage.tables import CLIPS, STATUSES


def kept_suite(settings: ClipSettings, num_judged: int) -> Expectations:
    """Return what must hold for the rows kept, out of `num_judged`."""
    # Fraction(str()) because 0.07 * 100 in floating point is more than 7
    fewest = math.ceil(Fraction(str(settings.gate_min_kept_fraction)) * num_judged)
    suite: Expectations = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=settings.gate_min_clips,
            description=f"at least {settings.gate_min_clips} clips (params.yaml: clips.gate_min_clips)",
        ),
        gxe.ExpectTableRowCountToBeBetween(
            min_value=fewest,
            description=f"at least {fewest} clips, {settings.gate_min_kept_fraction} of {num_judged} shots "
            "(params.yaml: clips.gate_min_kept_fraction)",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="orientation",
            value_set=list(settings.orientations),
            description=f"orientation is one of {settings.orientations} (params.yaml: clips.orientations)",
        ),
    ]
    for score, limits in ranges(settings).items():
        suite.append(gxe.ExpectColumnValuesToNotBeNull(column=score, description=f"{score} is measured"))
        if limits.min is not None or limits.max is not None:
            within = _interval(limits.min, limits.max)
            suite.append(
                gxe.ExpectColumnValuesToBeBetween(
                    column=score,
                    min_value=limits.min,
                    max_value=limits.max,
                    description=f"{score} is {within} (params.yaml: clips.{score})",
                )
            )
    if settings.duplicate_bits is not None:
        told = "no two clips have one video hash (params.yaml: clips.duplicate_bits)"
        suite.append(gxe.ExpectColumnValuesToBeUnique(column="video_hash", description=told))
    if settings.duplicate_similarity is not None:
        told = "no two clips have one embedding (params.yaml: clips.duplicate_similarity)"
        suite.append(gxe.ExpectColumnValuesToBeUnique(column="embedding", description=told))
    return suite


def figures(
    connection: duckdb.DuckDBPyConnection, judged: Path, settings: ClipSettings, drift: dict[str, float | None]
) -> dict[str, float]:
    """Return what the gate asks of the selection as a whole: hours kept, shares lost, drift where it is known."""
    rows = queries.scan([judged])
    (microseconds,) = connection.sql(
        f"SELECT coalesce(sum({MICROSECONDS}), 0)::BIGINT FROM {rows} WHERE status = 'ok'"
    ).fetchall()[0]
    reasons = dict(connection.sql(f"SELECT reason, count(*) FROM {rows} GROUP BY reason").fetchall())
    count = max(1, sum(reasons.values()))
    return {
        "hours": microseconds / 1e6 / 3600,
        **{f"share_{reason}": reasons.get(reason, 0) / count for reason in settings.gate_max_rejected},
        **{f"drift_{score}": far for score, far in drift.items() if far is not None},
    }


def whole_suite(settings: ClipSettings, drift: dict[str, float | None]) -> Expectations:
    """Return what must hold for the one row of `figures`."""
    hours = settings.gate_min_hours
    suite: Expectations = [
        gxe.ExpectColumnValuesToBeBetween(
            column="hours",
            min_value=hours,
            description=f"at least {hours} hours of video are kept (params.yaml: clips.gate_min_hours)",
        )
    ]
    for reason, share in settings.gate_max_rejected.items():
        told = f"at most {share} of the shots are lost as {reason} (params.yaml: clips.gate_max_rejected)"
        suite.append(gxe.ExpectColumnValuesToBeBetween(column=f"share_{reason}", max_value=share, description=told))
    far = settings.gate_max_drift
    for score in [score for score, found in drift.items() if found is not None and far is not None]:
        told = (
            f"{score} is spread as in the last release: a distance (Kolmogorov-Smirnov) of at most {far} "
            "(params.yaml: clips.gate_max_drift)"
        )
        suite.append(gxe.ExpectColumnValuesToBeBetween(column=f"drift_{score}", max_value=far, description=told))
    return suite


def judged_suite() -> Expectations:
    """Return what must hold for every shot judged, kept or not: that the table can be true at all."""
    return [
        gxe.ExpectTableColumnsToMatchOrderedList(column_list=CLIPS.names, description="the columns are those of CLIPS"),
        gxe.ExpectTableRowCountToBeBetween(min_value=1, description="at least one shot was judged"),
        gxe.ExpectColumnValuesToNotBeNull(column="clip", description="every row names its shot"),
        gxe.ExpectColumnValuesToBeUnique(column="clip", description="no shot is there twice"),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="end_pts", column_B="start_pts", description="every shot ends after it starts"
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="status", description="every row has a status"),
        gxe.ExpectColumnValuesToBeInSet(
            column="status", value_set=list(STATUSES), description=f"status is one of {list(STATUSES)}"
        ),
        gxe.ExpectColumnValuesToNotBeNull(
            column="duplicate_of",
            row_condition=Column("reason") == NEAR_DUPLICATE,
            description="a near-duplicate names the clip kept instead",
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="reason", regex="^[a-z]+(?:_[a-z]+)*$", description="a reason is a short fixed code"
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=score,
                min_value=least,
                max_value=most,
                description=f"{score} is {_interval(least, most)}, or it was measured wrongly (stage scores)",
            )
            for score, (least, most) in POSSIBLE.items()
        ),
    ]


def check(
    connection: duckdb.DuckDBPyConnection,
    judged: Path,
    settings: ClipSettings,
    drift: dict[str, float | None],
    docs: Path,
) -> GateResult:
    """Hold the table of shots judged (schema CLIPS), the clips among them, and their sums to the suites.

    Writes the result as pages to the folder `docs`, as `gate.check` does.
    """

    def tables() -> dict[str, Held]:
        (num_judged,) = connection.sql(f"SELECT count(*) FROM {queries.scan([judged])}").fetchall()[0]
        return {
            "whole": (figures(connection, judged, settings, drift), whole_suite(settings, drift)),
            "kept": counted(connection, judged, "status = 'ok'", kept_suite(settings, num_judged)),
            "judged": counted(connection, judged, "true", judged_suite()),
        }

    return gate.check("clips", tables, docs)


def _interval(least: float | None, most: float | None) -> str:
    limits = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
    return " and ".join(limits)
