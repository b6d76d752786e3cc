"""Select as clips the shots whose scores are within the thresholds, if the table of clips passes the gate."""

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task

from stiv_model.errors.redaction import redacted
from tasks.clips import duplicates, releases, thresholds
from tasks.clips.expectations import GateResult, check
from tasks.clips.settings import DOCS_INDEX, BestSettings, ClipSettings
from tasks.storage import atomic, tables

log = logging.getLogger(__name__)


class Selection(NamedTuple):
    """What the stage reports."""

    account: tables.Account
    funnel: list[dict[str, Any]]
    gate: GateResult
    drift: dict[str, float | None]
    """Distance of each score's distribution from the last earlier release, 0 to 1; empty where there is none."""


class GateFailedError(ValueError):
    """The gate found the table of clips wrong, so no later stage may use it. `docs` has the pages that say why."""

    def __init__(self, gate: GateResult, account: tables.Account, docs: Path):
        self.gate, self.account, self.docs = gate, account, docs
        lost = ", ".join(f"{reason} {count}" for reason, count in account.reasons.items()) or "none lost"
        super().__init__(
            f"the gate on clips failed: {'; '.join(gate.failed)}. Of {account.given} shots {account.ok} were "
            f"kept ({lost}). Look at {docs / DOCS_INDEX}; then change the key of params.yaml named above, "
            "or mend what made the scores"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Prefect pickles what a run failed with; by default that would call __init__ with the message alone
        return type(self), (self.gate, self.account, self.docs)


def judge_shots(scores: list[dict[str, Any]], settings: ClipSettings, earlier: pa.Table) -> list[dict[str, Any]]:
    """Return one row of schema CLIPS for every scored shot, in the order given.

    Each shot is judged by itself first. Near-duplicates are looked for among those that pass, so that none that
    is rejected costs another its place; the best of the rest are chosen last.

    Args:
        earlier: clips of earlier releases, with the columns by which they are compared (`releases.released_clips`).
    """
    wanted, rows = thresholds.rules(settings), []
    for score in scores:
        row = {**score, "seconds": thresholds.seconds(score), "duplicate_of": None}
        row["status"], row["reason"] = thresholds.judge_shot(row, wanted)
        rows.append(row)
    if wanted.duplicate_columns:
        reject_duplicates(rows, settings, earlier)
    if settings.best is not None:
        keep_best(rows, settings.best)
    return rows


def reject_duplicates(rows: list[dict[str, Any]], settings: ClipSettings, earlier: pa.Table) -> None:
    """Reject, of the rows that are ok, those that are near-duplicates, and name in each the clip that stays instead.

    Raises:
        ValueError: hashes or embeddings cannot be compared, as `duplicates.find_duplicates` says.
    """
    columns = ("clip", *duplicates.MERITS, *thresholds.duplicate_columns(settings))
    passed = [{name: row[name] for name in columns} for row in tables.ok(rows)]
    table = pa.Table.from_pylist(passed, schema=pa.schema([tables.CLIPS.field(name) for name in columns]))
    near = duplicates.find_duplicates(table, settings.duplicate_bits, settings.duplicate_similarity, earlier)
    for row in rows:
        if row["clip"] in near:
            row |= {"status": "rejected", "reason": thresholds.NEAR_DUPLICATE, "duplicate_of": near[row["clip"]]}


def keep_best(rows: list[dict[str, Any]], best: BestSettings) -> None:
    """Reject, of the rows that are ok, all but those of the highest score."""
    lost = set(thresholds.not_best({row["clip"]: row[best.by] for row in tables.ok(rows)}, best.clips))
    for row in rows:
        if row["clip"] in lost:
            row |= {"status": "rejected", "reason": thresholds.NOT_BEST}


@task(task_run_name="select from {scores}")
@redacted
def select_clips(scores: Path, out: Path, report: Path, docs: Path, settings: ClipSettings) -> Selection:
    """Write every scored shot with its status and reason to `out`/clips.parquet, the account, and the gate's pages.

    Args:
        scores: folder with the table of scores.
        out: folder that is written, whole or not at all.
        report: file for the account and the funnel (JSON).
        docs: folder for the gate's Data Docs.

    Raises:
        GateFailedError: the clips are too few, or their table is wrong; its pages are in `docs`.failed.
        FileNotFoundError: there are no scores, or an earlier release is gone.
        ValueError: a table lacks a column, or near-duplicates cannot be compared.
    """
    table = scores / tables.SCORE_TABLE
    scored = tables.ok(tables.read_rows(table, tables.SCORES))
    present = [row["clip"] for row in scored]
    earlier = releases.released_clips(settings.earlier_releases, present, thresholds.duplicate_columns(settings))
    product = atomic.open_workdir(out, _run(table, settings)) / "product"
    product.mkdir(exist_ok=True)
    rows = judge_shots(scored, settings, earlier)
    account = tables.reconcile("shots", present, rows, "clip")
    tables.write_rows(product / tables.CLIP_TABLE, rows, tables.CLIPS)
    judged = pq.read_table(product / tables.CLIP_TABLE)
    drift = releases.drift(judged.filter(pc.equal(judged["status"], "ok")), settings)
    gate = pass_gate(judged, drift, account, docs, settings)
    selection = Selection(account, thresholds.funnel(thresholds.tally(rows), settings), gate, drift)
    tables.write_report(report, account, funnel=selection.funnel, gate=gate._asdict(), drift=drift)
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    length = selection.funnel[-1]["seconds"]
    log.info("%d of %d shots are clips, %.1f s of video", account.ok, account.given, length)
    return selection


def pass_gate(
    judged: pa.Table, drift: dict[str, float | None], account: tables.Account, docs: Path, settings: ClipSettings
) -> GateResult:
    """Check the table of clips as it was written and put the pages of the result at `docs`.

    Raises:
        GateFailedError: an expectation was not met; the pages are at `docs`.failed.
    """
    docs.parent.mkdir(parents=True, exist_ok=True)
    work, failed = (docs.with_name(f"{docs.name}.{state}") for state in ("partial", "failed"))
    gate = check(judged, settings, drift, work)
    if not gate.success:
        atomic.finish(work, failed)
        raise GateFailedError(gate, account, failed)
    shutil.rmtree(failed, ignore_errors=True)  # of an earlier attempt
    atomic.finish(work, docs)
    return gate


def _run(table: Path, settings: ClipSettings) -> dict[str, Any]:
    """Return what makes this selection the same one."""
    earlier = {release: atomic.sha256_file(Path(release)) for release in settings.earlier_releases}
    own = {"settings": settings.model_dump(), "scores": atomic.sha256_file(table), "earlier": earlier}
    return {"stage": "clips", **own}
