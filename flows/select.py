"""The flow behind stage clips."""

import logging
from base64 import b64encode
from pathlib import Path

from prefect import flow

from flows.running.progress import show
from tasks.clips.select import GateFailedError, select_clips
from tasks.clips.settings import ClipSettings
from tasks.gates.data_docs import DOCS_INDEX
from tasks.gates.gate import GateResult
from tasks.operations.task_runs import call
from tasks.pages.funnel_page import picture

log = logging.getLogger(__name__)


@flow
def select(scores: Path, out: Path, report: Path, docs: Path, clips: ClipSettings) -> None:
    """Select the shots within the thresholds as clips, and let the gate (Great Expectations) judge the selection.

    Args:
        scores: Folder with the table of scores.
        out: Folder for the table of clips.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.
        docs: Folder for the Data Docs, which show what the gate found (HTML that opens offline).

    examples:
      stiv select --scores data/scores --out data/clips --report reports/clips.json --docs reports/data_docs
    """
    try:
        selection = call(select_clips, scores, out, report, docs, clips)
    except GateFailedError as error:
        _show_gate(error.gate, error.docs)
        raise
    _show_gate(selection.gate, docs)
    _show_drift(selection.drift)
    show("table", "funnel", table=selection.funnel, description="What each threshold left and lost")
    drawn = b64encode(picture(selection.funnel).encode()).decode()
    show("image", "funnel-figure", image_url=f"data:image/svg+xml;base64,{drawn}", description="The funnel")


def _show_gate(gate: GateResult, docs: Path) -> None:
    first = (docs / DOCS_INDEX).resolve()
    lines = [
        f"**{'Passed' if gate.success else 'Failed'}**: {gate.evaluated} expectations evaluated.",
        *(f"- {sentence}" for sentence in gate.failed),
        # browsers follow no link from a page of a server to a file: the path is there to be copied
        f"\n[Data Docs]({first.as_uri()}), on the machine that ran this: `{first}`",
    ]
    show("markdown", "gate", markdown="\n".join(lines), description="The gate on the table of clips")


def _show_drift(drift: dict[str, float | None]) -> None:
    if not drift:
        log.info("no drift: there is no earlier release to compare with (clips.earlier_releases)")
        return
    rows = [
        {"score": score, "distance": "not in the last release" if far is None else far} for score, far in drift.items()
    ]
    show("table", "drift", table=rows, description="Distance (Kolmogorov-Smirnov) from the last release")
