"""Settings of the stage evaluate. Values live in params.yaml, types here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from stiv_model.settings import Device, Settings
from tasks.scores.settings import ImageEncoderSettings

DECIDE_NO_ROW = {"worst", "matrix", "alarms"}
"""Settings of an evaluation that decide about no row: what they show or say is made of all of them."""
SuiteName = Literal["shapes", "videos", "prompts"]


class AlarmSettings(Settings):
    """When an alarm fires (docs/evaluation.md)."""

    still_above_real: Annotated[float, Field(ge=0, lt=1)]
    """`still video`: the share of videos that stand still is by more above the real clips', at the lower end of its
    interval."""
    text_p: Annotated[float, Field(gt=0, lt=1)]
    """`ignores the text`: with a higher probability shuffled prompts agree with the videos as well as the true ones."""


class FlowNetworkSettings(Settings):
    """RAFT-small, in a file of TorchScript (`stiv_model/metrics/flow.py`)."""

    weights: Path
    """The file."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """sha256 that it must have."""
    device: Device
    """Where it runs."""


class MatrixSettings(Settings):
    """The condition matrix of `stiv matrix`."""

    videos: PositiveInt
    """Videos of each condition."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """Scales of guidance; 1 is none."""


class EvaluationSettings(Settings):
    """What is measured of videos, and what the page shows of it; docs/evaluation.md."""

    metrics: list[str]
    """Metrics that are measured besides those that always are, such as fvd."""
    reference: Path | None
    """File of features of real clips that FVD and KVD are measured against (`stiv fvd REAL --save FILE`); null: that of
    the demo's corpus, which comes with the package."""
    videos_per_prompt: PositiveInt
    """Videos made of each prompt, by a suite of prompts."""
    seed: NonNegativeInt
    """Seed from which that of each of these videos follows."""
    worst: PositiveInt
    """Videos on the page's sheet of the worst."""
    clip: ImageEncoderSettings | None
    """CLIP model (both sides, with its tokenizer) that tells whether videos follow prompts, also others than of shapes:
    metric `text_p_clip`; null: nobody tells."""
    raft_small: FlowNetworkSettings | None
    """RAFT-small, for the metric `dynamics_raft_small`; null makes no such figure."""
    alarms: AlarmSettings
    """Thresholds of the alarms."""
    matrix: MatrixSettings
    """What `stiv matrix` makes."""
