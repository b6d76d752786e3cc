"""Select as clips the shots whose scores are within the thresholds, if the table of clips passes the gate."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from prefect import task

from stiv_model.errors.redaction import redacted
from tasks.clips import releases, thresholds, verdicts
from tasks.clips.expectations import check
from tasks.clips.settings import ClipSettings
from tasks.clips.thresholds import Amount
from tasks.gates.data_docs import DOCS_INDEX
from tasks.gates.gate import GateResult, settle
from tasks.storage import atomic, queries, tables

log = logging.getLogger(__name__)

_VERDICT = pa.schema([tables.CLIPS.field(name) for name in ("status", "reason", "seconds", "duplicate_of")])


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


def judge_shots(connection: duckdb.DuckDBPyConnection, scores: Path, settings: ClipSettings, out: Path) -> None:
    """Write one row of schema CLIPS for every scored shot of a table that is ok, in its order.

    Raises:
        FileNotFoundError, ValueError: as `verdicts.judge`.
    """
    verdicts.judge(connection, scores, settings)
    # as enumerations, one byte each: all of them are sorted
    reasons, statuses = (
        f"ENUM ({', '.join(map(queries.quoted, names))})" for names in (thresholds.reasons(settings), tables.STATUSES)
    )
    found = f"""SELECT row, ({verdicts.STATUS})::{statuses} AS status, reason::{reasons} AS reason,
                    seconds, duplicate_of
                FROM (SELECT row, coalesce(judged.reason, later.reason) AS reason, seconds, duplicate_of
                      FROM judged LEFT JOIN later USING (row)) ORDER BY row"""
    judged = queries.even(queries.batches(connection, found, _VERDICT), _VERDICT)
    scored = queries.even(_ok(scores), tables.SCORES)
    rows = (_with_verdict(*both) for both in zip(scored, judged, strict=True))
    queries.write(out, rows, tables.CLIPS)


def _ok(scores: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    for batch in queries.read([scores], columns):
        yield batch.filter(pc.equal(batch["status"], "ok"))


def _with_verdict(scored: pa.RecordBatch, verdict: pa.RecordBatch) -> pa.RecordBatch:
    columns = [(verdict if name in _VERDICT.names else scored)[name] for name in tables.CLIPS.names]
    return pa.record_batch(columns, tables.CLIPS)


def count(connection: duckdb.DuckDBPyConnection, judged: Path) -> dict[str | None, Amount]:
    """Return how many shots of a table of schema CLIPS there are by reason, and how long they are together."""
    amounts = connection.sql(
        f"SELECT reason, count(*), sum({verdicts.MICROSECONDS})::BIGINT FROM {queries.scan([judged])} GROUP BY reason"
    )
    return {reason: Amount(clips, microseconds) for reason, clips, microseconds in amounts.fetchall()}


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
    check_inputs(table, settings)
    work = atomic.open_workdir(out, _run(table, settings))
    product = work / "product"
    product.mkdir(exist_ok=True)
    judged = product / tables.CLIP_TABLE
    with queries.connect(work) as connection:
        judge_shots(connection, table, settings, judged)
        given = _ok(table, ["clip", "status"])
        account = queries.settle("shots", given, queries.outcomes(judged, "clip"), "clip")
        funnel = thresholds.funnel(count(connection, judged), settings)
        drift = releases.drift(connection, judged, settings)
        gate = pass_gate(connection, judged, drift, account, docs, settings)
    selection = Selection(account, funnel, gate, drift)
    tables.write_report(report, account, funnel=selection.funnel, gate=gate._asdict(), drift=drift)
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    length = selection.funnel[-1]["seconds"]
    log.info("%d of %d shots are clips, %.1f s of video", account.ok, account.given, length)
    return selection


def check_inputs(table: Path, settings: ClipSettings) -> None:
    """Check, before anything is written, that the tables that are read have what is read of them.

    Raises:
        FileNotFoundError, ValueError: one is gone, or lacks a column.
    """
    verdicts.check_scores(table)
    for release in settings.earlier_releases:
        releases.check(release, ("clip", *thresholds.duplicate_columns(settings)))
    for release in settings.earlier_releases[-1:]:
        releases.check(release, list(thresholds.ranges(settings)))


def pass_gate(
    connection: duckdb.DuckDBPyConnection,
    judged: Path,
    drift: dict[str, float | None],
    account: tables.Account,
    docs: Path,
    settings: ClipSettings,
) -> GateResult:
    """Check the table of clips as it was written and put the pages of the result at `docs`.

    Raises:
        GateFailedError: an expectation was not met; the pages are at `docs`.failed.
    """
    gate, pages = settle(docs, lambda work: check(connection, judged, settings, drift, work))
    if not gate.success:
        raise GateFailedError(gate, account, pages)
    return gate


def _run(table: Path, settings: ClipSettings) -> dict[str, Any]:
    """Return what makes this selection the same one."""
    earlier = {release: atomic.sha256_file(Path(release)) for release in settings.earlier_releases}
    own = {"settings": settings.model_dump(), "scores": atomic.sha256_file(table), "earlier": earlier}
    return {"stage": "clips", **own}
