"""The flow behind stage report."""

from pathlib import Path

from prefect import flow

from flows.running import stage_names
from flows.running.progress import show
from tasks.clips.settings import ClipSettings
from tasks.operations.task_runs import call
from tasks.pages.report import Inputs, write_page


@flow
def report(
    reports: Path,
    shots: Path,
    selected: Path,
    captions: Path,
    samples: Path,
    compared: Path,
    times: Path,
    out: Path,
    clips: ClipSettings,
    shipped: Path | None = None,
) -> None:
    """Write one page with the accounts, figures, curves and samples of all stages.

    Args:
        reports: Folder with the accounts and curves of all stages.
        shots: Folder with the table of shots and their stills.
        selected: Folder with the table of clips.
        captions: Folder with the table of captions.
        samples: Folder with the generated videos.
        compared: Folder with what two captioners said of the same clips.
        times: File with the time that each stage took (JSON).
        out: File for the page (HTML).
        shipped: Folder of the model that comes with the package, as stiv learn wrote it: its samples are shown beside.

    examples:
      stiv report --reports reports --shots data/shots --selected data/clips --captions data/captions \\
        --samples data/samples --compared reports/captions --times .cache/times.json --out reports/report.html
    """
    stages, recipes = stage_names.with_account(), stage_names.recipes()
    inputs = Inputs(reports, shots, selected, captions, samples, stages, recipes, compared, shipped)
    call(write_page, inputs, out, times, clips)
    show("link", "report", link=out.resolve().as_uri(), description="The report")
