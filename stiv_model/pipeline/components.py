"""What a pipeline folder is made of: the transformer as diffusers stores models, and the defaults of a call."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from pydantic import NonNegativeInt, PositiveInt, ValidationError

from stiv_model import settings_errors
from stiv_model.encoders import pinned, text, vae
from stiv_model.network.transformer import StivTransformer
from stiv_model.pipeline.folders import INDEX
from stiv_model.settings import ModelSettings, SamplerSettings, Settings, of_earlier_release
from stiv_model.weights import files, metadata
from stiv_model.weights.metadata import CheckpointMetadata, Trained

_ARGUMENTS: dict[Any, str] = {"frames": "num_frames", "steps": "num_inference_steps"}
"""Of a call, where they are not called as the settings: diffusers' names."""


class PipelineDefaults(Settings):
    """What a call takes where it says nothing; part of model_index.json."""

    height: PositiveInt
    """Pixels, as the two below."""
    width: PositiveInt
    frames: PositiveInt
    stride_frames: NonNegativeInt
    """Distance of the source frames that a sample looks like; 0 for images."""
    text_tokens: PositiveInt
    """Length that prompts are padded to; longer ones are refused."""
    vae_batch_frames: PositiveInt
    """Frames that the VAE codes at once."""
    sampler: SamplerSettings

    def replaced(self, asked: dict[str, Any], sampler: dict[str, Any]) -> "PipelineDefaults":
        """Return these values with those that a call states, which are not None.

        Raises:
            ValueError: a value that is none of those allowed.
        """
        own = self.model_dump()
        own["sampler"] |= {name: value for name, value in sampler.items() if value is not None}
        try:
            return PipelineDefaults.model_validate(own | {k: value for k, value in asked.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = first["loc"][-1]
            raise ValueError(
                f"{_ARGUMENTS.get(name, name)} is {first['input']!r}: {settings_errors.reason(first)}"
            ) from error


class StivTransformerModel(StivTransformer, ModelMixin, ConfigMixin):
    """`StivTransformer` as a component of a diffusers pipeline: a folder with config.json and safetensors.

    Args:
        model: `ModelSettings`, as a dict.
        is_video: whether it makes videos, not images.
        trained: `Trained`, as a dict; None where it is not known.
    """

    config_name = pinned.CONFIG  # type: ignore[assignment]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, model: dict[str, Any], is_video: bool, trained: dict[str, Any] | None):
        super().__init__(settings_errors.checked(ModelSettings, of_earlier_release(model), "model"), is_video)
        self.trained = None if trained is None else settings_errors.checked(Trained, trained, "trained")

    @classmethod
    def from_checkpoint(cls, checkpoint: Path) -> "StivTransformerModel":
        """Return the model of a checkpoint folder, to sample from.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: weights are missing, unknown or of another shape, or the folder is a pipeline's.
        """
        found = read_checkpoint(checkpoint)
        trained = None if found.trained is None else found.trained.model_dump(mode="json")
        with torch.device("meta"):
            model = cls(found.model.model_dump(mode="json"), found.is_video, trained)
        model.load_state_dict(files.read(checkpoint / metadata.WEIGHTS, found.model, found.is_video), assign=True)
        return model.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, **kwargs: Any
    ) -> "StivTransformerModel":
        """Load what `save_pretrained` wrote, from safetensors and nothing else; arguments as in diffusers.

        Raises:
            ValueError: weights are missing or unknown.
        """
        only = {"use_safetensors": True, "output_loading_info": True}
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, **(kwargs | only))
        model, info = loaded
        pinned.check_names(pretrained_model_name_or_path, info["missing_keys"], info["unexpected_keys"])
        return model.requires_grad_(False)

    def enable_layerwise_casting(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to store weights shorter than they are computed with: the network computes in what its weights are.

        Raises:
            ValueError: always, with what to do instead.
        """
        raise ValueError("this model computes in the precision of its weights: use .to(torch.bfloat16) instead")

    def enable_group_offload(  # type: ignore[override]  # the others by keyword only
        self,
        onload_device: torch.device,
        offload_device: torch.device = torch.device("cpu"),  # noqa: B008  # as in diffusers
        offload_type: str = "block_level",
        **kwargs: Any,
    ) -> None:
        """Move parts to an accelerator as they are used, layer by layer; arguments as in diffusers.

        Raises:
            ValueError: `offload_type` is not `leaf_level`: the blocks are no lists of layers that could be cut.
        """
        if offload_type != "leaf_level":
            raise ValueError(f'offload_type is {offload_type!r}, but this model moves by layers: use "leaf_level"')
        super().enable_group_offload(onload_device, offload_device, offload_type, **kwargs)


def read_checkpoint(checkpoint: Path) -> CheckpointMetadata:
    """Return what a checkpoint folder says of itself.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the folder is a pipeline's, or as `metadata.read`.
    """
    if (checkpoint / INDEX).is_file():
        raise ValueError(
            f"{checkpoint} is a pipeline folder ({INDEX}), not a checkpoint: open it with --pipeline "
            "of stiv sample, or with StivPipeline.from_pretrained"
        )
    return metadata.read(checkpoint)


NAMES = ("vae", "text_encoder", "tokenizer", "transformer", "scheduler")
"""Of the components of a pipeline: its arguments, its attributes and the folders of its files."""


def check_present(parts: Mapping[str, Any]) -> None:
    """Refuse a pipeline of which a part was left out.

    Args:
        parts: by name; those of NAMES that are not there are not looked at.

    Raises:
        ValueError: with the name of the part.
    """
    for name in NAMES:
        if name in parts and parts[name] is None:
            raise ValueError(
                f"{name} is None, but a StivPipeline needs all of {', '.join(NAMES)}: leave the argument out. To open "
                f"one part by itself use its own class, such as StivTransformerModel.from_pretrained(FOLDER, "
                'subfolder="transformer")'
            )


def check_parts(
    autoencoder: vae.Autoencoder,
    encoder: transformers.PreTrainedModel,
    model: StivTransformer,
    defaults: PipelineDefaults,
) -> None:
    """Refuse parts of other kinds than those that the pipeline uses, and parts that were not made for each other.

    Raises:
        ValueError: with both values.
    """
    for name, part, kinds in (
        ("vae", autoencoder, tuple(vae.KINDS.values())),
        ("text_encoder", encoder, tuple(text.KINDS.values())),
        ("transformer", model, (StivTransformer,)),
    ):
        part = getattr(part, "_orig_mod", part)  # torch.compile wraps it
        if not isinstance(part, kinds):
            allowed = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{name} is a {type(part).__name__}: takes {allowed}")
    made, settings = autoencoder.config["latent_channels"], model.settings
    if made != settings.latent_channels:
        raise ValueError(
            f"the VAE makes {made} latent channels, but model.latent_channels is {settings.latent_channels}: use the "
            "VAE that the model was trained with"
        )
    width, limit = encoder.config.hidden_size, text.most_tokens(encoder)
    if width != settings.text_width:
        raise ValueError(
            f"the text encoder's features have {width} values, but model.text_width is {settings.text_width}: use the "
            "text encoder that the model was trained with"
        )
    if limit is not None and defaults.text_tokens > limit:
        raise ValueError(f"text_tokens is {defaults.text_tokens}, but the text encoder takes at most {limit}: lower it")
