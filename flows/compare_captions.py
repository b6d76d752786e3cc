"""The flow behind stage comparison."""

from functools import partial
from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from stiv_model.settings import TextSettings
from tasks.captions.settings import CaptionSettings
from tasks.comparison.stage import Comparison, refuse_folder
from tasks.dsg.settings import DsgSettings
from tasks.pages import compare_page


@flow
def compare(
    a: str,
    b: str,
    /,
    *,
    selected: Path = Path("data/clips"),
    shots: Path = Path("data/shots"),
    out: Path = Path("reports/captions"),
    report: Path = Path("reports/comparison.json"),
    clips: int = 100,
    captions: CaptionSettings,
    dsg: DsgSettings,
    text: TextSettings,
    engine: EngineSettings,
) -> None:
    """Have two captioners caption the same clips, and say which of them invents less.

    Nobody trains on what they say. Both are found by name in captions.captioners and captions.compared of params.yaml.
    Answers that a model has given already are taken from .cache/answers.sqlite. compare.json in the folder has the
    figures; compare.html shows the clips with what is invented marked.

    Args:
        a: Name of the captioner that the verdict is about.
        b: Name of the captioner that it is held against.
        selected: Folder with the table of clips.
        shots: Folder that stage shots made, whose stills the captioners and the judge look at.
        out: Folder for figures, page, captions and answers; one of another comparison is replaced.
        report: File for the account of the stage (JSON): how many clips both captioned, and why others not.
        clips: Number of clips that are captioned, drawn at random, as many of each source of videos; all of them where
            there are fewer.

    examples:
      stiv captions compare video frames
      stiv captions compare video sidecar --clips 400 --out reports/against_sidecar \\
        --report reports/against_sidecar.json
    """
    refuse_folder(out)
    page = partial(compare_page.write, shots=shots)
    run_stage(Comparison((a, b), selected, shots, clips, captions, dsg, text, page), out, report, engine)
