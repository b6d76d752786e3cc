"""Clips of moving shapes as tensors in memory, for `benchmarks.recipe`: made once, and kept in a folder.

Shapes: N clips, F frames, C channels, H, W latents or pixels, L text tokens, E width of the text features.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.recipe_settings import LOOK, MICRO, PARAMS, SIDES, TEXT, Kind, Part, Size
from stiv_model.encoders import vae as vaes
from stiv_model.encoders.pixels import to_frames, to_pixels
from stiv_model.encoders.text import TextEncoder
from stiv_model.encoders.vae import Vae
from stiv_model.network.conditions import Text
from tasks.demo import shapes
from tasks.demo.shapes import Scene
from tasks.scores.quality import quality
from tasks.storage import atomic

FRAMES = 20
"""Frames of a clip."""
_DRAWN = 128
_BLUR, _NOISE = (0.8, 2.5), (0.0, 12.0)
"""Standard deviations of what spoils nine clips in ten: of a blur in pixels, of noise in grey levels."""
WORDS = {"colour": shapes.COLOURS, "shape": shapes.SHAPES, "direction": shapes.DIRECTIONS}


class Clips(NamedTuple):
    """Clips of one kind: those that are trained on, and those of combinations that are held out."""

    latents: Tensor
    """(N, F, C, H, W), float16."""
    held_latents: Tensor
    held_pixels: Tensor
    """(N, F, H, W, 3), uint8 RGB."""
    scores: Tensor
    """The platform's own score of technical quality, of the frame in the middle (`tasks.scores.quality`)."""


class Captions(NamedTuple):
    """Features of all captions of the corpus."""

    text: Text
    rows: dict[str, int]
    """Of the caption's features; that of the empty one is 0."""

    def of(self, captions: list[str]) -> Text:
        rows = torch.tensor([self.rows[caption] for caption in captions])
        return Text(*(part[rows] for part in self.text))

    @property
    def null(self) -> Text:
        return Text(*(part[:1] for part in self.text))


def scenes(count: int, held_out: bool) -> list[Scene]:
    """Return so many scenes; their combinations of words come in rounds, so that counts stay even."""
    return [shapes.scene(0, number, held_out, LOOK) for number in range(count)]


def frames_of(scene: Scene, side: int) -> np.ndarray:
    """Return the frames of a scene, uint8 RGB (F, side, side, 3), scaled down as stage latents does."""
    drawn = shapes.render(scene, _DRAWN, FRAMES)
    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in drawn])


def spoil(frames: np.ndarray, number: int) -> np.ndarray:
    """Blur a clip and add noise to it, differently strong for each number; every tenth is left as it is."""
    if number % 10 == 0:
        return frames
    random = np.random.default_rng([1, number])
    blur, noise = random.uniform(*_BLUR), random.uniform(*_NOISE)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), blur) for frame in frames])
    return (blurred + random.normal(0, noise, blurred.shape)).round().clip(0, 255).astype(np.uint8)


def make_clips(kind: Kind, size: Size, path: Path) -> None:
    """Draw, spoil and encode the clips of a kind, and write them to `path`."""
    vae, side = load_vae(), SIDES[kind]
    latents, scores = [], []
    for number, scene in enumerate(scenes(size.clips, held_out=False)):
        frames = frames_of(scene, side)
        if kind == "spoilt":
            frames = spoil(frames, number)
            scores.append(quality(cv2.cvtColor(frames[FRAMES // 2], cv2.COLOR_RGB2BGR)))
        latents.append(vae.encode(to_pixels(frames)).half())
    held = [frames_of(scene, side) for scene in scenes(size.held_out, held_out=True)]
    made = {
        "latents": torch.stack(latents),
        "held_latents": torch.stack([vae.encode(to_pixels(frames)).half() for frames in held]),
        "held_pixels": torch.from_numpy(np.stack(held)),
        "scores": torch.tensor(scores),
    }
    with atomic.atomic_write(path) as tmp_path:
        save_file(made, tmp_path)


def make_captions(size: Size, path: Path) -> None:
    """Encode all captions, and write their features to `path`."""
    text = TextEncoder(TEXT).encode(all_captions(size), cut=False)
    with atomic.atomic_write(path) as tmp_path:
        save_file({name: part.contiguous() for name, part in text._asdict().items()}, tmp_path)


def all_captions(size: Size) -> list[str]:
    """Return the empty caption, those of all scenes, and of the held-out ones those with a wrong word."""
    held = scenes(size.held_out, held_out=True)
    wrong_ones = [wrong(scene, word, number) for word in WORDS for number, scene in enumerate(held)]
    found = [shapes.caption(scene) for scene in (*scenes(size.clips, held_out=False), *held, *wrong_ones)]
    return ["", *dict.fromkeys(found)]


def wrong(scene: Scene, word: str, number: int) -> Scene:
    """Return the scene with another colour, shape or direction in its words: each of the others in turn."""
    values, here = WORDS[word], getattr(scene, word)
    return scene._replace(**{word: values[(values.index(here) + 1 + number % (len(values) - 1)) % len(values)]})


def clips_path(root: Path, kind: Kind, size: Size) -> Path:
    return root / f"clips-{kind}-{size.clips}-{size.held_out}.safetensors"


def captions_path(root: Path, size: Size) -> Path:
    return root / f"captions-{size.clips}-{size.held_out}.safetensors"


@lru_cache
def load_clips(root: Path, kind: Kind, size: Size) -> Clips:
    """Return the clips that `make_clips` made."""
    return Clips(**load_file(clips_path(root, kind, size)))


@lru_cache
def load_captions(root: Path, size: Size) -> Captions:
    """Return what `make_captions` made."""
    rows = {caption: row for row, caption in enumerate(all_captions(size))}
    return Captions(Text(**load_file(captions_path(root, size))), rows)


@lru_cache
def load_vae() -> Vae:
    """Return the embedded VAE, laid out in memory as convolutions on a CPU are fastest."""
    vae = vaes.load(PARAMS.vae)
    vae.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as diffusers wraps it
    return vae


def numbers_of(part: Part, clips: Clips) -> list[int]:
    """Return the numbers of the clips that a training sees.

    Of spoilt ones, `best_tenth` is the tenth with the highest score, `any_tenth` one that no score chose.
    """
    count = len(clips.latents)
    if part == "all":
        return list(range(count))
    if part == "any_tenth":
        return sorted(np.random.default_rng(2).permutation(count)[: count // 10].tolist())
    return sorted(clips.scores.argsort(descending=True, stable=True)[: count // 10].tolist())


def micro_conditions(count: int, frames: int, every: int) -> Tensor:
    """Return the micro-conditions of so many samples whose neighbouring frames are `every` frames of a clip apart."""
    return torch.tensor([[*MICRO, float(every if frames > 1 else 0), float(frames)]]).repeat(count, 1)


def to_rgb(latents: Tensor) -> np.ndarray:
    """Decode latents (N, F, C, H, W) to videos, uint8 RGB (N, F, H, W, 3)."""
    pixels = load_vae().decode(rearrange(latents, "N F C H W -> (N F) C H W"))
    return rearrange(to_frames(pixels), "(N F) H W C -> N F H W C", N=len(latents))
