"""What a checkpoint folder says of itself; readable without torch, so that a wrong request fails at once.

A checkpoint folder holds `model.safetensors` (the EMA weights, float32) and `model.json` (what they are weights of).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, ValidationError

from stiv_model import settings_errors
from stiv_model.settings import Encoders, Fraction, Mode, ModelSettings, Pattern, RecordedModel, Settings

WEIGHTS = "model.safetensors"
_FILE = "model.json"

Role = Literal["weights", "temporal"]
"""What a parent gives: all weights, or those of temporal attention only."""

_MAY_GROW = {f"positions.{name}" for name in ("spatial_scale", "temporal_scale", "rows", "columns", "num_temporal")}
_STARTS = {"positions.std", "temporal_gain", "temporal_contrast"}  # what is drawn with them is the parent's, or new
_ONLY_IN_VIDEO_MODELS = {"temporal_patch", "temporal_modulation", "causal_time"}


class Trained(Settings):
    """What the weights were trained on and for, as far as who uses them or trains on must know."""

    recipe_name: str
    steps: PositiveInt
    frames: PositiveInt
    """Latent frames per sample; 1 is an image model."""
    stride_frames: NonNegativeInt
    """Source frames from one frame to the next, as the micro-condition said: 0 for an image model."""
    latent_height: PositiveInt
    """In latents, not pixels."""
    latent_width: PositiveInt
    clean_frames: Pattern | tuple[Mode, ...]
    text_dropout: Fraction
    image_dropout: Fraction
    ema_decay: Fraction
    encoders: Encoders
    """That made the latents."""

    @property
    def averaged(self) -> str:
        """What the file of the weights says of itself."""
        return f"ema {self.ema_decay} after {self.steps} steps"


class CheckpointMetadata(Settings):
    """model.json."""

    model: RecordedModel
    is_video: bool
    trained: Trained | None
    """None of weights that no training made, which nothing can be trained from."""


def write(folder: Path, metadata: CheckpointMetadata) -> None:
    """Write model.json into a checkpoint folder, in the place of one that is there."""
    (folder / _FILE).write_text(metadata.model_dump_json(indent=2) + "\n")


def is_checkpoint(folder: Path) -> bool:
    """Say whether a folder says of itself that it is a checkpoint."""
    return (folder / _FILE).is_file()


def read(folder: Path) -> CheckpointMetadata:
    """Return what a checkpoint folder says of its model and its training.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: model.json is not what is written today.
    """
    path = folder / _FILE
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no checkpoint ({_FILE} is missing): train it first")
    try:
        return CheckpointMetadata.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: {settings_errors.lines(error)[0]}: train {folder} again") from error


def check_parents(
    parents: Mapping[Role, Path], settings: ModelSettings, is_video: bool
) -> dict[Role, CheckpointMetadata]:
    """Refuse to start a model from weights that are not of its kind, and return what the parents say.

    A parent may differ in the scale or number of its positions and in where weights start, may have no image tokens in
    cross-attention yet, and an image model in what only video models have. All else must agree.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: a parent is another model, or is of no use for this one.
    """
    if "weights" not in parents:
        raise ValueError(f"--temporal-init {parents['temporal']} gives temporal attention only: name --init too")
    found = {role: read(folder) for role, folder in parents.items()}
    for role, metadata in found.items():
        folder, differ = parents[role], _differences(metadata, settings)
        if differ:
            raise ValueError(
                f"{folder} holds a model of another size ({differ}): set model.* in params.yaml back, or train "
                f"{folder} again"
            )
        if metadata.trained is None:
            raise ValueError(f"{folder} does not say how it was trained (model.json): start from what stiv train wrote")
    if found["weights"].is_video and not is_video:
        raise ValueError(
            f"{parents['weights']} holds a video model, which an image recipe (frames: 1) cannot start from"
        )
    if "temporal" in found:
        _check_roles(parents, found, is_video)
    return found


def check_encoders(parents: Mapping[Role, Path], latents: Path, encoders: Encoders) -> None:
    """Refuse to train on latents of other encoders than those whose latents a parent was trained on.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: with both hashes.
    """
    for folder in parents.values():
        trained = read(folder).trained
        assert trained is not None, "check_parents refuses such a parent"
        for name, kind in (("vae_sha256", "VAE"), ("text_sha256", "text encoder")):
            there, here = getattr(trained.encoders, name), getattr(encoders, name)
            if there != here:
                raise ValueError(
                    f"{folder} was trained on latents of the {kind} {there[:12]}, but {latents} was made by the {kind} "
                    f"{here[:12]}: encode with the former (vae.source, text.source), or train {folder} again"
                )


def _check_roles(parents: Mapping[Role, Path], found: Mapping[Role, CheckpointMetadata], is_video: bool) -> None:
    """Temporal attention may come from a video model of its own, where all else comes from an image model."""
    kinds = {role: "video" if metadata.is_video else "image" for role, metadata in found.items()}
    if not is_video or kinds != {"weights": "image", "temporal": "video"}:
        raise ValueError(
            f"a {'video' if is_video else 'image'} model is to start from {parents['weights']}, a model of kind "
            f"{kinds['weights']}, with the temporal attention of {parents['temporal']}, of kind {kinds['temporal']}: "
            "--temporal-init is for a video model that --init starts from an image model, and names a video model"
        )


def _differences(parent: CheckpointMetadata, settings: ModelSettings) -> str:
    """Say which settings differ that must not, with both values; empty when none does."""
    there, here = flat(parent.model), flat(settings)
    if there["positions.kind"] != here["positions.kind"]:
        there = {"positions.kind": there["positions.kind"]}
    may = set() if parent.is_video else _ONLY_IN_VIDEO_MODELS
    if parent.model.image_condition == "replacement":
        may = may | {"image_condition"}
    return ", ".join(
        f"{key} {there[key]} there, {here[key]} here"
        for key in there
        if there[key] != here[key] and key not in _MAY_GROW | _STARTS | may
    )


def flat(settings: ModelSettings) -> dict[str, object]:
    """Return the values under their dotted keys."""
    values = settings.model_dump()
    positions = values.pop("positions")
    return values | {f"positions.{key}": value for key, value in positions.items()}
