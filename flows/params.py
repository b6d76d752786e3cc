"""The one reader of params.yaml."""

import inspect
import re
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import model_validator
from typing_extensions import TypeIs

from flows.running.settings import CheckSettings, EngineSettings, PipelineSettings
from stiv_model import settings_errors
from stiv_model.errors import redaction
from stiv_model.settings import (
    DeviceSettings,
    LearnedSettings,
    ModelSettings,
    MonitoringSettings,
    RecipeSettings,
    SamplerSettings,
    Settings,
    TextSettings,
    TrainingSettings,
    VaeSettings,
)
from tasks.captions.settings import CaptionSettings
from tasks.categories.settings import CategorySettings
from tasks.clips.settings import ClipSettings
from tasks.demo.settings import CorpusSettings
from tasks.dsg.settings import DsgSettings
from tasks.evaluation.settings import EvaluationSettings
from tasks.generation.settings import SampleSettings
from tasks.latents.settings import LatentSettings
from tasks.sandbox.settings import SandboxSettings
from tasks.scores.settings import ScoreSettings
from tasks.videos.settings import ShotSettings, VideoSettings
from tasks.views.settings import ViewSettings

PARAMS = Path("params.yaml")
RENAMED = {"fence": "sandbox", "model.positions.moments": "model.positions.num_temporal"}
"""Sections and keys of earlier versions of params.yaml, by dotted name, and what each is called now."""
_LAUNCHED, _ONCE_LAUNCHED = "stiv_model.training.train", re.compile(r"\bstiv_model\.train\b")
"""The module that training.launcher starts on every rank, and its earlier name."""
Section = TypeVar("Section", bound=Settings)


class Params(Settings):
    """Every section of params.yaml. A section missing here, or misspelt there, is an error."""

    source: str
    corpus: CorpusSettings
    engine: EngineSettings
    devices: DeviceSettings
    pipeline: PipelineSettings
    check: CheckSettings
    sandbox: SandboxSettings
    videos: VideoSettings
    shots: ShotSettings
    scores: ScoreSettings
    clips: ClipSettings
    captions: CaptionSettings
    dsg: DsgSettings
    categories: CategorySettings
    vae: VaeSettings
    text: TextSettings
    latents: LatentSettings
    model: ModelSettings
    training: TrainingSettings
    monitoring: MonitoringSettings
    train: dict[str, RecipeSettings]
    sampler: SamplerSettings
    samples: SampleSettings
    evaluation: EvaluationSettings
    views: ViewSettings

    @model_validator(mode="after")
    def sections_agree(self) -> Self:
        if self.clips.duplicate_similarity is not None and self.scores.embedding is None:
            raise ValueError(
                f"clips.duplicate_similarity is {self.clips.duplicate_similarity}, but scores.embedding is null: name "
                "an image encoder there, or set clips.duplicate_similarity: null"
            )
        tasks = self.train.get("tasks")
        if self.samples.long and not (tasks and tasks.makes_long_videos):
            raise ValueError(
                f"samples.long is {self.samples.long}, but train.tasks has no modes for key frames and what lies "
                "between them: set it to 0, or add the modes (docs/model.md, long_video)"
            )
        for name, recipe in self.train.items():
            if recipe.clean_frames != "views" and recipe.span > self.latents.frames:  # those of views have their own
                apart = "" if recipe.span == recipe.frames else f" at strides up to {recipe.span} frames of a clip"
                raise ValueError(
                    f"train.{name}.frames is {recipe.frames}{apart}, but latents.frames is only {self.latents.frames}"
                )
            for frames in recipe.lengths:
                if frames > 1 and frames % self.model.temporal_patch:
                    raise ValueError(
                        f"train.{name}.{recipe.length_key(frames)} is {frames}, but model.temporal_patch is "
                        f"{self.model.temporal_patch}: use a multiple of {self.model.temporal_patch}"
                    )
            num_temporal = recipe.frames // self.model.temporal_patch if recipe.frames > 1 else 1
            at = self.model.positions
            if isinstance(at, LearnedSettings) and at.num_temporal < num_temporal:
                raise ValueError(
                    f"model.positions.num_temporal is {at.num_temporal}, but train.{name}.frames {recipe.frames} / "
                    f"model.temporal_patch {self.model.temporal_patch} are {num_temporal} temporal tokens: set it to "
                    f"{num_temporal}"
                )
        return self


def load_params(path: Path = PARAMS) -> Params:
    """Return the settings of a params file, read and checked whole.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: every wrong key: its dotted name, what is wrong, and the value found.
    """
    return check_params(read_params(path), path)


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """Return the values of a params file as YAML has them, unchecked.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: it is no YAML, or holds no sections.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist here: run stiv at the top of the repository")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: put the file of settings there, such as Git has it")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start} ({error.object[error.start]:#04x}): save it so"
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        found = "is empty" if values is None else f"is one {type(values).__name__}, without sections"
        raise ValueError(f"{path} {found}: `git checkout {path}` gets back the one that was committed")
    return values


def check_params(values: dict[str, Any], place: object = PARAMS) -> Params:
    """Return settings from values as a params file has them.

    Args:
        values: sections by name.
        place: the file or option that they come from, for the message.

    Raises:
        ValueError: as `load_params`; or a key, or the module in training.launcher, has an earlier name: the message
            says the one of today; or a value has a password or a signature in it.
    """
    old = [f"{name} is called {new} now: rename it" for name, new in RENAMED.items() if _found(values, name)]
    if any(
        _ONCE_LAUNCHED.search(command) for command in _found(values, "training.launcher") if isinstance(command, str)
    ):
        old.append(f"training.launcher: stiv_model.train is called {_LAUNCHED} now: rename it")
    if old:
        raise ValueError("; ".join(f"{place}: {line}" for line in old))
    redaction.refuse(values, "")
    return settings_errors.checked(Params, values, place)


def _found(values: Any, name: str) -> list[Any]:
    """Return the value under a dotted name, in a list that is empty where there is none."""
    for key in name.split("."):
        if not isinstance(values, dict) or key not in values:
            return []
        values = values[key]
    return [values]


def section(params: Params, name: str) -> Any:
    """Return one section by its dotted name, such as `train.t2i`.

    Raises:
        ValueError: there is no such section.
    """
    value: Any = params
    for key in name.split("."):
        try:
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        except (KeyError, AttributeError):
            known = sorted(value) if isinstance(value, dict) else sorted(type(value).model_fields)
            meant = settings_errors.nearest(key, known)
            raise ValueError(f"params.yaml has no section {name}: {key} is none of {', '.join(known)}{meant}") from None
    return value


def section_of(params: Params, name: str, kind: type[Section], option: str) -> Section:
    """Return one section by its dotted name, if it is of the kind that an option takes.

    Raises:
        ValueError: there is no such section, or it is of another kind.
    """
    value = section(params, name)
    if not isinstance(value, kind):
        parts = dict(params) | {f"train.{recipe}": part for recipe, part in params.train.items()}
        known = ", ".join(part for part, found in parts.items() if isinstance(found, kind))
        raise ValueError(f"{option} is {name}, which in params.yaml is no section of that kind: it is one of {known}")
    return value


def is_settings(annotation: object) -> TypeIs[type[Settings]]:
    """Say whether an annotation is a settings class: a section of params.yaml."""
    return inspect.isclass(annotation) and issubclass(annotation, Settings)
