"""The flow behind stage captions."""

from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from stiv_model.settings import TextSettings
from tasks.captions.settings import CaptionSettings
from tasks.captions.stage import Captions


@flow
def caption(
    clips: Path,
    shots: Path,
    out: Path,
    report: Path,
    docs: Path,
    captions: CaptionSettings,
    text: TextSettings,
    engine: EngineSettings,
) -> None:
    """Write one caption per clip, and let the gate (Great Expectations) judge the table.

    Args:
        clips: Folder with the table of clips.
        shots: Folder that stage shots made, whose stills a model sees.
        out: Folder for the table of captions.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.
        docs: Folder for the Data Docs, which show what the gate found (HTML that opens offline).

    examples:
      stiv caption --clips data/clips --shots data/shots --out data/captions --report reports/captions.json \\
        --docs reports/captions_docs
    """
    run_stage(Captions(clips, shots, docs, captions, text), out, report, engine)
