"""The flow behind stage clips."""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.clips import GateFailedError, select_clips
from tasks.expectations import GateResult
from tasks.settings import ClipSettings


@flow
def select(scores: Path, out: Path, report: Path, docs: Path, clips: ClipSettings) -> None:
    """Keep the shots within the thresholds, behind the Great Expectations gate."""
    try:
        selection = select_clips(scores, out, report, docs, clips)
    except GateFailedError as error:
        _show_gate(error.gate, error.docs)
        raise
    _show_gate(selection.gate, docs)
    create_table_artifact(key="funnel", table=selection.funnel, description="What each threshold left and lost")


def _show_gate(gate: GateResult, docs: Path) -> None:
    lines = [
        f"**{'Passed' if gate.success else 'Failed'}**: {gate.evaluated} expectations evaluated.",
        *(f"- {sentence}" for sentence in gate.failed),
        f"\nData Docs: `{(docs / 'index.html').resolve()}`",
    ]
    create_markdown_artifact(key="gate", markdown="\n".join(lines), description="The gate on the table of clips")
