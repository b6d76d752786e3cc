"""The model that a command names, by --checkpoint or --pipeline, or that is taken where neither is."""

import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import NamedTuple

import diffusers
import transformers

from flows.commands.sections import Sections
from stiv_model.encoders import pinned
from stiv_model.pipeline.components import NAMES, PipelineDefaults
from stiv_model.pipeline.folders import INDEX, SHIPPED, find, hashes
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings_errors import checked
from stiv_model.weights import metadata
from stiv_model.weights.metadata import WEIGHTS, Trained
from tasks.generation.videos import load, open_folder
from tasks.storage import atomic

TRAINED = Path("checkpoints/unmask_sft")
"""The weights that the pipeline's last recipe makes."""
_TASKS = TRAINED.with_name("tasks")
_OF_THE_MACHINE = ("devices", "samples", "sandbox")
"""Sections of params.yaml that act on a pipeline folder too: device, precision, and limits on files that are given."""


class ModelFacts(NamedTuple):
    """What a model says of itself before it is loaded."""

    defaults: PipelineDefaults
    """Of a call that says nothing."""
    trained: Trained | None
    """None where nobody wrote it down."""
    is_video: bool
    temporal_patch: int
    """Frames of a token; 1 where it is not known before the model is loaded."""


class NamedModel(NamedTuple):
    """A checkpoint, or a pipeline folder or its name on a hub: one of the two, as `resolve` returns it."""

    checkpoint: Path | None
    pipeline: str | None
    folder: Path
    """Where its files lie; of a repository of a hub those of one commit, wherever its branch moves meanwhile."""

    @property
    def is_shipped(self) -> bool:
        """Whether it is the one that comes with the package."""
        return self.pipeline == str(SHIPPED)

    def facts(self, settings: Sections) -> ModelFacts:
        """Return what it says of itself, in milliseconds.

        Raises:
            FileNotFoundError, ValueError: as `open`.
        """
        if self.pipeline is not None:
            index, model = (pinned.read_json(self.folder / name) for name in (INDEX, f"transformer/{pinned.CONFIG}"))
            trained = None if model.get("trained") is None else checked(Trained, model["trained"], self.folder)
            defaults = checked(PipelineDefaults, index.get("defaults"), self.folder / INDEX)
            patch = int(model.get("model", {}).get("temporal_patch", 1))
            return ModelFacts(defaults, trained, bool(model.get("is_video")), patch)
        size = settings.latents
        defaults = PipelineDefaults(
            height=size.height,
            width=size.width,
            frames=size.frames,
            stride_frames=size.stride_frames,
            text_tokens=settings.text.tokens,
            vae_batch_frames=settings.vae.batch_frames,
            sampler=settings.sampler,
        )
        if not metadata.is_checkpoint(self.folder):
            return ModelFacts(defaults, None, True, 1)  # what it is else, `open` says
        said = metadata.read(self.folder)
        return ModelFacts(defaults, said.trained, said.is_video, said.model.temporal_patch)

    def open(self, settings: Sections, assignments: list[str] | None) -> StivPipeline:
        """Load it, on the device and in the precision of params.yaml, without progress bars.

        Args:
            assignments: of --set, of which a pipeline folder takes some only.

        Raises:
            FileNotFoundError: it is not there, or a part of it.
            ValueError: it is not what it is named as, makes no videos, or has values of its own for what --set says.
        """
        opened = partial(self._load, settings, assignments)
        keeper = KEEPER.get()
        return opened() if keeper is None else keeper(self, settings, opened)

    def files(self) -> list[Path]:
        """Return the files that it is read from."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def _load(self, settings: Sections, assignments: list[str] | None) -> StivPipeline:
        for library in (diffusers, transformers):
            library.utils.logging.disable_progress_bar()  # of the second in which they load
        sampler, vae, text, latents, samples, devices = settings
        if self.pipeline is not None:
            _check_set(assignments or [], self.pipeline)
            return open_folder(str(self.folder), samples.precision, devices.sampling)
        return load(self.folder, vae, text, latents, sampler, samples.precision, devices.sampling)

    def sha256(self) -> dict[str, str]:
        """Return the sha256 of its files of weights, and of the index, which names encoders, by their names within it.

        To be asked before it is loaded, so that files which are replaced meanwhile are found. Nothing where it has no
        weights: what it is else, `open` says.

        Raises:
            OSError: one cannot be read.
            ValueError: as `folders.hashes`.
        """
        if self.pipeline is not None:
            return hashes(self.folder, NAMES)
        weights = self.folder / WEIGHTS
        return {WEIGHTS: atomic.sha256_file(weights)} if weights.is_file() else {}


Keeper = Callable[[NamedModel, Sections, Callable[[], StivPipeline]], StivPipeline]
KEEPER: ContextVar[Keeper | None] = ContextVar("keeper", default=None)
"""Who opens a model in the place of the command: a process that makes several videos keeps it. It is told which one
with which settings, and what loads it."""


def for_tasks() -> Path:
    """Return the weights that go on from several frames, fill in between two and make long videos, if they are here."""
    return _TASKS if _TASKS.exists() else TRAINED


def choose(checkpoint: Path | None, pipeline: str | None, trained: Path = TRAINED) -> NamedModel:
    """Return the model that was asked for; where none was, say which is taken, and why.

    Args:
        trained: the checkpoint that is taken where it is here.

    Raises:
        FileNotFoundError: there is no model at all; or as `resolve`.
        ValueError: both were asked for; or as `resolve`.
    """
    if checkpoint is not None and pipeline is not None:
        raise ValueError(f"--checkpoint {checkpoint} and --pipeline {pipeline} are two models: name one of them")
    if checkpoint is not None or pipeline is not None:
        return resolve(checkpoint, pipeline)
    if trained.exists():
        print(f"made by {trained}, which was trained here", file=sys.stderr)
        return resolve(trained, None)
    if (SHIPPED / INDEX).is_file():
        print(f"{trained} is not here: made by the model that comes with the package, {SHIPPED.name}", file=sys.stderr)
        return resolve(None, str(SHIPPED))
    raise FileNotFoundError(
        f"{trained} is not here, nor a model that came with the package ({SHIPPED}): train one (make demo), or name "
        "--checkpoint or --pipeline"
    )


def resolve(checkpoint: Path | None, pipeline: str | None) -> NamedModel:
    """Return a model with the folder of its files, which are fetched where they are on a hub.

    Args:
        checkpoint: a folder; or None, and `pipeline` a folder or `ORGANISATION/NAME`.

    Raises:
        FileNotFoundError, ValueError: as `folders.find`.
    """
    if pipeline is not None:
        return NamedModel(None, pipeline, find(pipeline, NAMES))
    assert checkpoint is not None, "one of the two is named"
    return NamedModel(checkpoint, None, checkpoint)


def _check_set(assignments: list[str], pipeline: str) -> None:
    """Refuse settings of params.yaml that a pipeline folder has its own values for.

    Raises:
        ValueError: with the first of them.
    """
    for assignment in assignments:
        if assignment.partition("=")[0].partition(".")[0] not in _OF_THE_MACHINE:
            raise ValueError(
                f"--set {assignment}: the pipeline folder {pipeline} has size and sampler of its own ({INDEX}): leave "
                "it out, name a checkpoint, or call StivPipeline in Python with other values"
            )
