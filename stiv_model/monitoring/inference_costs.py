"""What encoding and sampling cost: FLOPs of networks that are not trained, counted without running them.

They stand on the meta device, as in `costs`, built from their configs alone: no weights are read, and nothing is
fetched. FLOPs are of matrix products, convolutions and attention; a multiply-add counts as two.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from torch.utils.flop_counter import FlopCounterMode

from stiv_model.diffusion.sampler import guidance_of, solve, timestep_schedule
from stiv_model.encoders import pinned, text, vae
from stiv_model.settings import SamplerSettings, TextSettings, VaeSettings

PASSES = {"none": 1, "text": 2, "joint": 2, "separate": 3}
"""How often guidance lets the model see one sample in one evaluation."""


class VaeCost(NamedTuple):
    """FLOPs of one frame."""

    encode_flops: int
    decode_flops: int


class EncoderCost(NamedTuple):
    """What the frozen encoders cost."""

    vae: VaeCost
    """Of one frame."""
    text_flops: int
    """Of one caption."""


def encoder_cost(
    vae_settings: VaeSettings, text_settings: TextSettings, sides: tuple[int, int], known: Path
) -> EncoderCost:
    """Return what the encoders of two settings cost.

    Args:
        vae_settings: of the VAE.
        text_settings: of the text encoder.
        sides: height and width of a frame, pixels.
        known: folder of the configs of encoders that need not be here.

    Raises:
        FileNotFoundError: a config is neither here nor known.
        ValueError: one is not of an encoder that we can use.
    """
    vae_config = find_config("vae", vae_settings.source, vae_settings.revision, known)
    text_config = find_config("text", text_settings.source, text_settings.revision, known)
    return EncoderCost(vae_cost(vae_config, *sides), text_cost(text_settings.kind, text_config, text_settings.tokens))


def find_config(section: str, source: str, revision: str | None, known: Path) -> dict[str, Any]:
    """Return an encoder's config without fetching anything.

    Args:
        section: of the settings, for messages.
        source: a folder, `package:NAME/FOLDER`, or a hub name.
        revision: the commit of a hub repository.
        known: folder of configs of hub repositories, `ORGANISATION--NAME.json` with the commit that each is of.

    Raises:
        FileNotFoundError: it is not here, and not known of this commit.
    """
    note = known / f"{source.replace('/', '--')}.json"
    if note.is_file() and (noted := pinned.read_json(note))["revision"] == revision:
        return noted["config"]
    if revision is None:
        return pinned.read_json(pinned.find(section, source, None, [pinned.CONFIG]) / pinned.CONFIG)
    cached = try_to_load_from_cache(source, pinned.CONFIG, revision=revision)
    if not isinstance(cached, str):
        raise FileNotFoundError(f"{section}.source is {source}, which has not been fetched here at commit {revision}")
    return pinned.read_json(Path(cached))


def vae_cost(config: dict[str, Any], height: int, width: int) -> VaeCost:
    """Return what one frame costs.

    Args:
        config: of a diffusers autoencoder.
        height: of the frame, pixels, as `width`.

    Raises:
        ValueError: it is of a class that is not one of ours.
    """
    name = config.get("_class_name")
    if name not in vae.KINDS:
        raise ValueError(f"the VAE's config is of the class {name}: takes {' or '.join(vae.KINDS)}")
    with torch.device("meta"):
        model: Any = vae.KINDS[name].from_config(config)
        frame = torch.empty(1, 3, height, width)
    with FlopCounterMode(display=False) as counter:
        latent = vae.encode(model, frame, 1)
        encode_flops = counter.get_total_flops()
        vae.decode(model, latent, 1)
        return VaeCost(encode_flops, counter.get_total_flops() - encode_flops)


def text_cost(kind: str, config: dict[str, Any], tokens: int) -> int:
    """Return the FLOPs of one caption of so many tokens, padding included.

    Args:
        kind: as `TextSettings.kind`.
        config: of the transformers model.
        tokens: that the caption is padded to.
    """
    architecture: Any = text.KINDS[kind]
    with torch.device("meta"):
        model = architecture(architecture.config_class.from_dict(config.get("text_config", config)))
        ids = torch.ones(1, tokens, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids)  # a mask's values decide about kernels, and there are none
    return counter.get_total_flops()


def model_passes(sampler: SamplerSettings, has_given: bool) -> int:
    """Return how often the model sees one sample until it is made: by the solver itself, on one number.

    Args:
        sampler: solver, steps and guidance.
        has_given: whether frames are given.
    """
    passes = 0

    def velocity(x: torch.Tensor, timestep_B: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += PASSES[guidance_of(sampler, has_given, timestep_B[0].item())]
        return torch.zeros_like(x)

    x = torch.zeros(1, 1)
    solve(velocity, x, timestep_schedule(sampler.steps, sampler.shift), sampler.solver, lambda: x)
    return passes


def video_cost(
    forward_flops: int, sampler: SamplerSettings, frames: int, encoders: EncoderCost, given_frames: int
) -> int:
    """Return the FLOPs of one video: of the model, of the two texts, and of the frames that the VAE codes.

    Args:
        forward_flops: of the model on one sample, as `costs.sample_cost` without a mask returns them.
        sampler: solver, steps and guidance.
        frames: of the video.
        encoders: what they cost.
        given_frames: how many frames are given; none is text to video.
    """
    coded = given_frames * encoders.vae.encode_flops + frames * encoders.vae.decode_flops
    return model_passes(sampler, given_frames > 0) * forward_flops + 2 * encoders.text_flops + coded
