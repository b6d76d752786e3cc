"""The flow behind stage dsg."""

from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from tasks.captions.settings import CaptionSettings
from tasks.dsg.settings import DsgSettings
from tasks.dsg.stage import Dsg


@flow
def check_captions(
    captions: Path,
    shots: Path,
    audits: Path,
    out: Path,
    report: Path,
    dsg: DsgSettings,
    captioning: CaptionSettings,
    engine: EngineSettings,
) -> None:
    """Count what captions invent, and stop where it is too much.

    Args:
        captions: Folder with the table of captions.
        shots: Folder with the stills of shots, which the judge looks at.
        audits: Folder with what people said of the objects that captions name (stiv captions audit); it may be empty.
        out: Folder for the captions as they go on, what became of those that were judged, and every answer.
        report: File for the account of the stage (JSON), with the figures and the gate of each captioner.
        captioning: Section with the captioners, one of which is asked once more with `dsg.repair: rewrite`.

    examples:
      stiv check-captions --captions data/captions --captioning captions --shots data/shots --audits audits \\
        --out data/dsg --report reports/dsg.json
    """
    run_stage(Dsg(captions, shots, dsg, audits, captioning=captioning), out, report, engine)
