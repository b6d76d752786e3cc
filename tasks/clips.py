"""Keep the shots whose scores are within the thresholds, if the table of them passes the gate."""

import logging
import math
import shutil
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from prefect import task

from tasks import manifest, resume
from tasks.expectations import GateResult, check, ranges
from tasks.settings import ClipSettings

log = logging.getLogger(__name__)


class Selection(NamedTuple):
    """What the stage reports."""

    account: manifest.Account
    funnel: list[dict]
    gate: GateResult


class GateFailedError(ValueError):
    """The table of clips is not what it must be, so nothing downstream may have it. `docs` has the pages."""

    def __init__(self, gate: GateResult, account: manifest.Account, docs: Path):
        self.gate, self.account, self.docs = gate, account, docs
        lost = ", ".join(f"{reason} {count}" for reason, count in account.reasons.items()) or "none lost"
        super().__init__(
            f"the gate on clips failed: {'; '.join(gate.failed)}. Of {account.given} shots {account.ok} were "
            f"kept ({lost}). Look at {docs / 'index.html'}; then change the key of params.yaml named above, "
            "or mend what made the scores"
        )

    def __reduce__(self):
        # Prefect pickles what a run failed with; by default that would call __init__ with the message alone
        return type(self), (self.gate, self.account, self.docs)


def judge_shot(row: dict, settings: ClipSettings) -> tuple[str, str | None]:
    """Return status and reason of one scored shot: ok is a clip, rejected names the first threshold missed.

    The limits themselves are inside. A shot that lacks a score (null, or no finite number) has failed; one
    that was not ok before stays what it was.

    Args:
        row: of schema CLIPS.
    """
    if row["status"] != "ok":
        return row["status"], row["reason"]
    limits_of = ranges(settings)
    if row["orientation"] is None or not all(_is_measured(row[score]) for score in limits_of):
        return "failed", "score_missing"
    for score, limits in limits_of.items():
        if limits.min is not None and row[score] < limits.min:
            return "rejected", f"{score}_below_min"
        if limits.max is not None and row[score] > limits.max:
            return "rejected", f"{score}_above_max"
    if row["orientation"] not in settings.orientations:
        return "rejected", "orientation_not_wanted"
    return "ok", None


def judge_shots(scores: list[dict], settings: ClipSettings) -> list[dict]:
    """Return one row of schema CLIPS for every scored shot, in the order given."""
    rows = []
    for score in scores:
        row = {**score, "seconds": _seconds(score)}
        row["status"], row["reason"] = judge_shot(row, settings)
        rows.append(row)
    return rows


def funnel(rows: list[dict], settings: ClipSettings) -> list[dict]:
    """Return how many shots and seconds each threshold in turn left and lost, from all scored to the clips.

    Args:
        rows: judged, of schema CLIPS.
    """
    left, left_seconds = len(rows), math.fsum(row["seconds"] or 0.0 for row in rows)
    steps = [_step("scored", left, left_seconds, 0, 0.0)]
    for name in ("score_missing", *ranges(settings), "orientation"):
        reasons = {name, f"{name}_below_min", f"{name}_above_max", f"{name}_not_wanted"}
        lost = [row["seconds"] or 0.0 for row in rows if row["reason"] in reasons]
        left, left_seconds = left - len(lost), left_seconds - math.fsum(lost)
        steps.append(_step(name, left, left_seconds, len(lost), math.fsum(lost)))
    return steps


@task(task_run_name="select from {scores}")
def select_clips(scores: Path, out: Path, report: Path, docs: Path, settings: ClipSettings) -> Selection:
    """Write every scored shot with its verdict to `out`/clips.parquet, the account, and the gate's pages.

    Raises:
        GateFailedError: the clips are too few or their table is wrong; its pages are in `docs`.failed.
        FileNotFoundError: there are no scores.
    """
    table = scores / manifest.SCORE_TABLE
    given = manifest.ok(manifest.read_rows(table, manifest.SCORES))
    run = {"stage": "clips", "settings": settings.model_dump(), "scores": resume.sha256_file(table)}
    product = resume.open_work(out, run) / "product"
    product.mkdir(exist_ok=True)
    rows = judge_shots(given, settings)
    account = manifest.settle("shots", (row["shot"] for row in given), rows, "shot")
    manifest.write_rows(product / manifest.CLIP_TABLE, rows, manifest.CLIPS)
    gate = pass_gate(product / manifest.CLIP_TABLE, account, docs, settings)
    selection = Selection(account, funnel(rows, settings), gate)
    manifest.write_report(report, account, funnel=selection.funnel, gate=gate._asdict())
    resume.finish(product, out)
    resume.discard_work(out)
    log.info(
        "%d of %d shots are clips, %.1f s of video",
        account.ok,
        account.given,
        selection.funnel[-1]["seconds"],
    )
    return selection


def pass_gate(clips: Path, account: manifest.Account, docs: Path, settings: ClipSettings) -> GateResult:
    """Check the written table of clips and put the pages of the result at `docs`.

    Raises:
        GateFailedError: an expectation was not met; the pages are at `docs`.failed.
    """
    docs.parent.mkdir(parents=True, exist_ok=True)
    work, failed = (docs.with_name(f"{docs.name}.{state}") for state in ("partial", "failed"))
    gate = check(pq.read_table(clips), settings, work)
    if not gate.success:
        resume.finish(work, failed)
        raise GateFailedError(gate, account, failed)
    shutil.rmtree(failed, ignore_errors=True)  # of an earlier attempt
    resume.finish(work, docs)
    return gate


def _is_measured(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _seconds(row: dict) -> float | None:
    if row["start_pts"] is None or row["end_pts"] is None or row["time_base"] is None:
        return None
    # exactly, not end - start: 0.9 s must not be a hair less than a limit of 0.9
    return float((row["end_pts"] - row["start_pts"]) * Fraction(row["time_base"]))


def _step(step: str, clips: int, seconds: float, lost: int, lost_seconds: float) -> dict:
    return {"step": step, "clips": clips, "seconds": seconds, "lost": lost, "lost_seconds": lost_seconds}
