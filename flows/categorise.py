"""The flow behind stage categories."""

from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from stiv_model.settings import DeviceSettings
from tasks.categories.settings import CategorySettings
from tasks.categories.stage import Categories


@flow
def categorise(
    captions: Path,
    out: Path,
    report: Path,
    categories: CategorySettings,
    devices: DeviceSettings,
    engine: EngineSettings,
) -> None:
    """Say what every caption is about, by a list of categories.

    Args:
        captions: Folder with the captions as they go on, such as data/dsg.
        out: Folder for the table of categories.
        report: File for the account of the stage (JSON), with the share of each category and the drift from the last
            release.

    examples:
      stiv categorise --captions data/dsg --out data/categories --report reports/categories.json
    """
    run_stage(Categories(captions, categories, devices.encoders), out, report, engine)
