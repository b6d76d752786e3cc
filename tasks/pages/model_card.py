"""The model card of a pipeline folder: README.md as model hubs take it, with the hash of every file of weights."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCardData
from pydantic import ValidationError

from stiv_model import settings_errors
from stiv_model.network.transformer import StivTransformer
from stiv_model.pipeline import card
from stiv_model.pipeline.components import NAMES
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import RUN_FILE, Run, is_mixture
from stiv_model.weights import certificate, metadata
from tasks.evaluation import judgement, sealing
from tasks.pages.templates import template
from tasks.storage import atomic

_SHOWN = ("colour", "shape", "direction", "moved", "one_object", "same_object")
"""Figures of the judge's, in the order of the table."""
_FILTERS = {"percent": lambda share: f"{100 * share:.1f} %", "number": lambda count: f"{count:,}"}


class Training(NamedTuple):
    """One of the trainings that weights went through."""

    run: Run
    seconds: float | None
    """That its steps took; None where no table of them is left."""


class History(NamedTuple):
    """The trainings that weights went through, as far as their folders are still there."""

    trainings: list[Training]
    """The earliest first."""
    lost: list[str]
    """Hashes of weights that the first ones started from, whose trainings are not there any more."""


def history(checkpoint: Path, curves: Path) -> History:
    """Follow a checkpoint's starting weights to the first training.

    Args:
        checkpoint: folder of weights, with the run.json of `stiv train` where that made them.
        curves: folder with a table of the losses of each recipe (TSV), which has the seconds.

    Raises:
        ValueError: a run.json is not what is written today.
    """
    path = checkpoint / RUN_FILE
    if not path.is_file():
        return History([], [certificate.sha256(checkpoint / metadata.WEIGHTS)])
    try:
        run = Run.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: {settings_errors.lines(error)[0]}: train {checkpoint} again") from error
    before: list[Training] = []
    lost: list[str] = []
    for folder, sha256 in run.parents.values():
        if (parent := _found([Path(folder), checkpoint.parent / Path(folder).name], sha256)) is None:
            lost.append(sha256)
        else:
            earlier = history(parent, curves)
            before += [one for one in earlier.trainings if one not in before]
            lost += earlier.lost
    return History([*before, Training(run, _seconds(curves / f"{run.recipe_name}.tsv", run.recipe.steps))], lost)


def read_figures(path: Path, checkpoint: Path) -> dict[str, Any]:
    """Return the judge's figures of a checkpoint's model, by mode and combinations of words.

    Args:
        path: the score card (JSON), which has figures of several models.
        checkpoint: folder of weights; of which modes its figures are, its training says.

    Raises:
        FileNotFoundError: there is no such file, or no checkpoint.
        ValueError: it is no card of suite shapes, or was changed, or has no figures of such a model.
    """
    modes = judgement.modes(sealing.read(path))
    model = metadata.read(checkpoint)
    given = model.trained.clean_frames if model.trained is not None else "none"
    kinds: tuple[str, ...] = ("tup",) if given == "every_second" else ("t2v", "ti2v")
    if is_mixture(given):
        kinds = ("predict", "between")
    if not model.is_video:
        kinds = ()
    if not (own := {kind: groups for kind, groups in modes.items() if kind in kinds}):
        raise ValueError(
            f"{path} has figures of {', '.join(modes)} and none of {checkpoint}: name another file, or leave "
            "--figures out"
        )
    return own


def write(folder: Path, pipeline: StivPipeline, made: History, modes: dict[str, Any], licence: str, name: str) -> None:
    """Write README.md into a pipeline folder.

    Args:
        folder: as `save_pretrained` wrote it.
        pipeline: what it holds.
        modes: as `read_figures` returns them; empty where nothing was measured.
        licence: of the weights, as model hubs name it.
        name: of the pipeline.
    """
    model: StivTransformer = pipeline.transformer
    trained = pipeline.transformer.trained
    hashes: Any = {card.SECTION: {card.HASHES: card.hashes(folder, NAMES)}}
    data = ModelCardData(
        license=licence,
        library_name="diffusers",
        pipeline_tag="text-to-video" if model.is_video else "text-to-image",
        tags=["stiv", "rectified-flow", "diffusion-transformer", "safetensors"],
        **hashes,
    )
    text = template("model_card.md.jinja", _FILTERS).render(
        front=data.to_yaml(),
        name=name,
        makes=_makes(model.is_video, trained),
        trained=trained,
        defaults=pipeline.defaults,
        model=metadata.flat(model.settings),
        parameters=sum(weight.numel() for weight in model.parameters()),
        source=pipeline.text_source,
        encoder=type(pipeline.text_encoder).__name__,
        vae=type(pipeline.vae).__name__,
        trainings=made.trainings,
        lost=made.lost,
        modes=modes,
        shown=_SHOWN,
    )
    with atomic.atomic_write(folder / card.FILE) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")


def _makes(is_video: bool, trained: metadata.Trained | None) -> str:
    if not is_video:
        return "pictures from a text"
    given = trained is not None and trained.clean_frames != "none"
    return f"videos from a text{', and from a text and given frames' if given else ''}"


def _found(folders: list[Path], sha256: str) -> Path | None:
    """Return the first of the folders that has weights of this hash: another training may be at the place of one."""
    for folder in folders:
        weights = folder / metadata.WEIGHTS
        if weights.is_file() and certificate.sha256(weights) == sha256:
            return folder
    return None


def _seconds(curve: Path, steps: int) -> float | None:
    """Return how long a training took, by the last row of its table, if that is of its last step."""
    if not curve.is_file():
        return None
    with curve.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or int(rows[-1]["step"]) != steps:
        return None
    return float(rows[-1]["seconds"])
