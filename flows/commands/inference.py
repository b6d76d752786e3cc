"""What encoding and sampling will cost on the devices that settings name: behind `stiv plan` and `stiv doctor`."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from flows.commands.clip_size import latent_sides
from flows.commands.forecast import Prices
from flows.params import Params
from stiv_model.diffusion.frame_conditioning import clean_frame_mask
from stiv_model.monitoring.costs import SampleShape, sample_cost
from stiv_model.settings import Device, Precision, TextSettings, VaeSettings

KNOWN = Path("infra/encoders")
"""Configs of the hub's encoders that infra/params names, so that they are counted before they are fetched."""
MANY = 1_000_000
"""Clips that are counted for where their number is unknown."""


class Work(NamedTuple):
    """Work of networks that are not trained. FLOPs are those executed, of matrix products, convolutions, attention."""

    name: str
    """encoding, of stage latents, or sampling, of stage samples."""
    device: Device
    precision: dict[str, Precision]
    """Of each network, by the section that states it."""
    item: str
    """What is made, such as a clip."""
    parts: dict[str, int]
    """FLOPs of one item by what they are for, or by what kind of item it is."""
    items: int
    """Items."""
    flops: int
    """Of all items."""

    def hours(self, prices: Prices) -> float | None:
        """Return how long one device takes; None where nobody said what it sustains."""
        rate = prices.inference_tflops or (prices.tflops if self.device == "cuda" else None)
        return None if rate is None else self.flops / (rate * 1e12) / 3600

    def price(self, prices: Prices) -> float | None:
        """Return what these hours of a GPU cost; None where that is unknown, or it is a CPU."""
        hours = self.hours(prices)
        if hours is None or prices.gpu_rate is None or self.device == "cpu":
            return None
        return hours * prices.gpu_rate


def works(params: Params, downsampling: int, clips: int | None) -> list[Work] | str:
    """Return encoding and sampling, or why they cannot be counted.

    Args:
        params: of everything.
        downsampling: pixels that the VAE turns into one latent, on each side.
        clips: their number; None is unknown.
    """
    try:
        return [encoding(params, MANY if clips is None else clips), sampling(params, downsampling)]
    except FileNotFoundError as error:
        return str(error)


def encoding(params: Params, clips: int) -> Work:
    """Return what stage latents does with so many clips.

    Raises:
        FileNotFoundError: the config of an encoder is not here.
    """
    encoders = _encoders(params.vae, params.text, (params.latents.height, params.latents.width))
    parts = {"VAE": params.latents.frames * encoders.vae.encode_flops, "text encoder": encoders.text_flops}
    precision: dict[str, Precision] = {"vae": params.vae.precision, "text": params.text.precision}
    return Work("encoding", params.devices.encoders, precision, "clip", parts, clips, clips * sum(parts.values()))


def sampling(params: Params, downsampling: int) -> Work:
    """Return what stage samples does, at the size of the latents.

    Raises:
        FileNotFoundError: the config of an encoder is not here.
    """
    from stiv_model.monitoring.inference_costs import video_cost  # seconds of imports, for who asks

    shape = SampleShape(params.latents.frames, *latent_sides(params, downsampling), params.text.tokens)
    once = sample_cost(params.model, params.training, shape.frames > 1, shape, 0.0).forward_flops
    encoders = _encoders(params.vae, params.text, (params.latents.height, params.latents.width))
    interpolated = int(clean_frame_mask("every_second", shape.frames).sum())
    given = {"from text": 0, "from text and image": 1, "interpolated in time": interpolated}
    parts = {kind: video_cost(once, params.sampler, shape.frames, encoders, frames) for kind, frames in given.items()}
    own = params.samples
    counts = [own.text_prompts + own.seen_text_prompts, own.image_prompts + own.seen_image_prompts, own.interpolated]
    flops = sum(count * each for count, each in zip(counts, parts.values(), strict=True))
    precision = {"samples": params.samples.precision, "vae": params.vae.precision, "text": params.text.precision}
    return Work("sampling", params.devices.sampling, precision, "video", parts, sum(counts), flops)


@cache
def _encoders(vae: VaeSettings, text: TextSettings, sides: tuple[int, int]) -> Any:
    from stiv_model.monitoring.inference_costs import encoder_cost  # seconds of imports, for who asks

    return encoder_cost(vae, text, sides, KNOWN)


def figures(found: list[Work] | str, prices: Prices) -> dict[str, Any]:
    """Return the work as JSON has it, by name."""
    if isinstance(found, str):
        return {"encoding": {"unknown": found}, "sampling": {"unknown": found}}
    return {
        one.name: {
            "device": one.device,
            "precision": one.precision,
            f"{one.item}_flops": one.parts,
            f"{one.item}s": one.items,
            "flops": one.flops,
            "device_hours": one.hours(prices),
            "price": one.price(prices),
        }
        for one in found
    }
