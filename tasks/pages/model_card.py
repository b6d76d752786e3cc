"""The model card of a pipeline folder: README.md as model hubs take it, with the hash of every file of weights."""

import csv
import html
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCardData
from pydantic import ValidationError

from stiv_model import settings_errors
from stiv_model.network.transformer import StivTransformer
from stiv_model.pipeline import card
from stiv_model.pipeline.components import NAMES
from stiv_model.pipeline.inputs import learned_modes, named_places
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import RUN_FILE, Mode, Pattern, Run, is_mixture
from stiv_model.weights import certificate, metadata
from tasks.evaluation import judgement, sealing
from tasks.pages.templates import template
from tasks.storage import atomic

_SHOWN = ("colour", "shape", "direction", "moved", "one_object", "same_object")
"""Figures of the judge's, in the order of the table."""


def _cell(text: str) -> str:
    """Write what others wrote as text of one cell, which is no markup."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|!])", r"\\\1", plain)


def _started(parent: tuple[str, str]) -> str:
    folder, sha256 = parent
    return f"{_cell(Path(folder).name)} {sha256[:12]}"


def _given(clean_frames: Pattern | tuple[Mode, ...]) -> str:
    """Say which frames a recipe gives, by its own words: of a mixture each of its modes."""
    if is_mixture(clean_frames):
        return ", ".join(_given(mode.clean_frames) for mode in clean_frames)
    return clean_frames if isinstance(clean_frames, str) else named_places(clean_frames)


_KINDS = {"model": ("t2v", "ti2v"), "tasks": ("predict", "between"), "tup": ("tup",)}
"""The modes that each of the weights of a score card makes by itself; a cascade takes two."""
_FILTERS: dict[str, Callable[..., str]] = {
    "percent": lambda share: f"{100 * share:.1f} %",
    "number": lambda count: f"{count:,}",
    "cell": _cell,
    "started": _started,
    "given": _given,
}


class Training(NamedTuple):
    """One of the trainings that weights went through."""

    folder: Path
    """Where its weights are."""
    run: Run
    seconds: float | None
    """That its steps took; None where no table of them is left."""


class History(NamedTuple):
    """The trainings that weights went through, as far as their folders are still there."""

    trainings: list[Training]
    """The earliest first."""
    lost: list[str]
    """Hashes of weights that the first ones started from, whose trainings are not there any more."""


class Data(NamedTuple):
    """Of how many videos the trainings learned, by what is known of each."""

    licences: Counter[str]
    """By licence, as the videos' rows say."""
    sources: Counter[str]
    """By the host of the address that each was got from."""
    is_whole: bool
    """Whether every training is told; else these are the videos of some of them."""


class Figures(NamedTuple):
    """The judge's figures, or why there are none."""

    modes: dict[str, Any]
    """By mode and combinations of words; empty where there are none."""
    seal: str | None
    """The sha256 that the score card is sealed with."""
    why_none: str | None


class Named(NamedTuple):
    """What who exports a model says of it."""

    title: str
    address: str
    """What `from_pretrained` opens it by."""
    licence: str
    """Of the weights, as model hubs name it."""


def history(checkpoint: Path, weights: str, curves: Path) -> History:
    """Follow a checkpoint's starting weights to the first training.

    Args:
        checkpoint: folder of weights, with the run.json of `stiv train` where that made them.
        weights: sha256 of that file.
        curves: folder with a table of the losses of each recipe (TSV), which has the seconds.

    Raises:
        ValueError: a run.json is not what is written today.
    """
    path = checkpoint / RUN_FILE
    if not path.is_file():
        return History([], [weights])
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
            earlier = history(parent, sha256, curves)
            before += [one for one in earlier.trainings if one not in before]
            lost += earlier.lost
    return History(
        [*before, Training(checkpoint, run, _seconds(curves / f"{run.recipe_name}.tsv", run.recipe.steps))], lost
    )


def read_figures(path: Path, checkpoint: Path, weights: str) -> Figures:
    """Return the judge's figures of a checkpoint's weights.

    Args:
        path: the score card (JSON), which has figures of several models.
        checkpoint: folder of the weights, for the message.
        weights: sha256 of their file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no card of suite shapes, or was changed, or has no figures of these weights.
    """
    content = sealing.read(path)
    modes = judgement.modes(content)
    measured = content.model.weights or {}
    kinds = {kind for role, found in measured.items() if found == weights for kind in _KINDS.get(role, ())}
    own = {kind: groups for kind, groups in modes.items() if kind in kinds}
    if not own:
        told = ", ".join(f"{role} {found[:12]}" for role, found in measured.items()) or "weights that it does not name"
        raise ValueError(
            f"{path} has figures of {told}, and none of {checkpoint}, whose weights are {weights[:12]}: name another "
            "file, or measure these weights (dvc repro evaluate)"
        )
    return Figures(own, content.seal.sha256, None)


def write(
    folder: Path, pipeline: StivPipeline, weights: str, made: History, data: Data, figures: Figures, named: Named
) -> None:
    """Write README.md into a pipeline folder.

    Args:
        folder: as `save_pretrained` wrote it.
        pipeline: what it holds.
        weights: sha256 of the checkpoint's that it was made of.
    """
    model: StivTransformer = pipeline.transformer
    trained = pipeline.transformer.trained
    section: Any = {card.SECTION: {card.HASHES: card.hashes(folder, NAMES), card.CHECKPOINT: weights}}
    front = ModelCardData(
        license=named.licence,
        library_name="diffusers",
        pipeline_tag="text-to-video" if model.is_video else "text-to-image",
        tags=["stiv", "rectified-flow", "diffusion-transformer", "safetensors"],
        **section,
    )
    text = template("model_card.md.jinja", _FILTERS).render(
        front=front.to_yaml(),
        named=named,
        makes=_makes(model.is_video, trained),
        trained=trained,
        learned=_learned(trained),
        defaults=pipeline.defaults,
        model=metadata.flat(model.settings),
        parameters=sum(weight.numel() for weight in model.parameters()),
        source=pipeline.text_source,
        encoder=type(pipeline.text_encoder).__name__,
        vae=type(pipeline.vae).__name__,
        trainings=made.trainings,
        lost=made.lost,
        data=data,
        figures=figures,
        shown=_SHOWN,
    )
    with atomic.atomic_write(folder / card.FILE) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")


def _learned(trained: metadata.Trained | None) -> list[str]:
    """Return which given frames a training had, and how far apart its frames were."""
    if trained is None:
        return []
    told = [
        f"{named_places(mode.given)} given, frames {mode.stride_frames} apart"
        + (f", {mode.frames} frames" if mode.frames != trained.frames else "")
        for mode in learned_modes(trained)
    ]
    return list(dict.fromkeys(told))


def _makes(is_video: bool, trained: metadata.Trained | None) -> str:
    if not is_video:
        return "pictures from a text"
    if trained is not None and trained.clean_frames == "views":
        return "six views of an object from one picture of it"
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
