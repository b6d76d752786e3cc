"""The flow behind stage captions."""

from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from tasks.captions.settings import CaptionSettings
from tasks.captions.stage import Captions


@flow
def caption(
    clips: Path, shots: Path, out: Path, report: Path, captions: CaptionSettings, engine: EngineSettings
) -> None:
    """Write one caption per clip.

    Args:
        clips: Folder with the table of clips.
        shots: Folder that stage shots made.
        out: Folder for the table of captions.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.

    examples:
      stiv caption --clips data/clips --shots data/shots --out data/captions --report reports/captions.json
    """
    run_stage(Captions(clips, shots, captions), out, report, engine)
