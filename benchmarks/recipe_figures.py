"""What is measured of a trained stage of `benchmarks.recipe`: the judge's figures, motion, closeness to the truth, and
how much the words matter to the loss.

Shapes: N clips, F frames, C channels, H, W latents or pixels.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks import recipe_data
from benchmarks.recipe_data import Captions, Clips
from benchmarks.recipe_settings import Stage, sampler
from benchmarks.recipe_training import load
from stiv_model.diffusion import rectified_flow
from stiv_model.diffusion.frame_conditioning import clean_frame_mask
from stiv_model.diffusion.sampler import sample
from stiv_model.latents.order import draw_seed
from stiv_model.network.conditions import FrameCondition, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Pattern, SamplerSettings
from tasks.demo import shapes
from tasks.demo.objects import centre_of, largest_part
from tasks.demo.shapes import Scene
from tasks.evaluation.judge import psnr
from tasks.scores.quality import quality

How = Literal["t2v", "ti2v", "tup", "refilled", "words"]
"""Videos from text; from text and the first frame; from text and every second frame, true ones or those that the parent
stage made from text; or no videos, but the loss of held-out clips with right and with wrong words."""
_TIMES = (0.05, 0.15, 0.3, 0.5, 0.7)
_PATTERNS: dict[str, Pattern] = {"t2v": "none", "ti2v": "first", "tup": "every_second", "refilled": "every_second"}
_AHEAD = {"left": np.array([-1, 0]), "right": np.array([1, 0]), "up": np.array([0, -1]), "down": np.array([0, 1])}
_SHOWN = 12
"""Videos on a contact sheet."""


class Look(NamedTuple):
    """One way in which a stage is looked at."""

    how: How
    prompts: int = 48
    guidance: Literal["text", "joint", "separate"] = "joint"
    scale: float = 2.0
    image_scale: float = 1.5

    @property
    def name(self) -> str:
        """Return its name in results."""
        if self == Look(self.how):
            return self.how
        scales = f"{self.scale:g}" if self.guidance != "separate" else f"{self.scale:g} {self.image_scale:g}"
        return f"{self.how} {self.guidance} {scales}"


class _View(NamedTuple):
    """What a stage is looked at with."""

    stage: Stage
    model: StivTransformer
    clips: Clips
    captions: Captions
    scenes: list[Scene]
    """Held-out ones: the prompts."""
    seed: int

    @property
    def truth(self) -> Tensor:
        """Return the held-out clips as the stage would see them, in as many frames as it makes."""
        clips = self.clips.held_latents[: len(self.scenes), :: self.stage.every]
        return clips[:, : self.stage.recipe.frames].float()

    @property
    def true_pixels(self) -> np.ndarray:
        pixels = self.clips.held_pixels[: len(self.scenes), :: self.stage.every]
        return pixels[:, : self.stage.recipe.frames].numpy()


def figures(root: Path, stage: Stage, seed: int, look: Look, sheet: Path) -> dict[str, Any]:
    """Return the figures of one way to look at a trained stage, and draw what was made on a contact sheet.

    Args:
        root: where stages and clips are.
        stage, seed: whose weights.
        look: how.
        sheet: the picture's path; `words` makes none.
    """
    size = stage.size
    prompts = min(look.prompts, size.held_out)
    clips, captions = recipe_data.load_clips(root, stage.kind, size), recipe_data.load_captions(root, size)
    view = _View(stage, load(root, stage, seed), clips, captions, recipe_data.scenes(prompts, held_out=True), seed)
    if look.how == "words":
        return word_signals(view)
    settings = sampler(
        size.sampling_steps,
        guidance=look.guidance,
        guidance_scale=look.scale,
        image_guidance_scale=look.image_scale,
    )
    given = None
    if look.how == "refilled":
        assert stage.parent is not None, "a stage that fills frames in comes from one that makes them"
        parent = view._replace(model=load(root, stage.parent, seed))
        given = make_latents(parent, "t2v", settings, None)
    elif look.how != "t2v":
        given = view.truth
    videos = recipe_data.to_rgb(make_latents(view, look.how, settings, given))
    draw_sheet(videos[:_SHOWN], sheet)
    found = judged(videos, view.scenes, view.true_pixels)
    if look.how in ("ti2v", "tup"):
        found |= closeness(videos, view, look.how)
    return found


def make_latents(view: _View, how: How, settings: SamplerSettings, given: Tensor | None) -> Tensor:
    """Return latents (N, F, C, H, W) for the held-out prompts, with the noise of the seed: equal for all arms.

    Args:
        view: model and prompts.
        how: which frames are given.
        settings: of the sampler.
        given: from which they are taken; None where none is.
    """
    count, shape = len(view.scenes), view.truth.shape[1:]
    generators = [torch.Generator().manual_seed(draw_seed(view.seed, "prompt", number)) for number in range(count)]
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    null = Text(*(part.expand(count, *part.shape[1:]) for part in view.captions.null))
    micro = recipe_data.micro_conditions(count, shape[0], view.stage.every)
    condition = None
    if given is not None:
        condition = FrameCondition(given, clean_frame_mask(_PATTERNS[how], shape[0]).expand(count, -1))
    text = view.captions.of([shapes.caption(scene) for scene in view.scenes])
    return sample(view.model, noise, text, null, micro, settings, condition)


def judged(videos: np.ndarray, scenes: Sequence[Scene], truth: np.ndarray) -> dict[str, Any]:
    """Return how many videos the judge finds right in what, and means of what is measured on each.

    Args:
        videos: uint8 RGB (N, F, H, W, 3).
        scenes: what was asked for.
        truth: the scenes themselves, as `videos`.
    """
    seen = [shapes.judge(video) for video in videos]
    right = {
        word: [getattr(one, word) == getattr(scene, word) for one, scene in zip(seen, scenes, strict=True)]
        for word in recipe_data.WORDS
        if word != "direction" or videos.shape[1] > 1
    }
    counts = {word: sum(values) for word, values in right.items()}
    counts["all_right"] = sum(all(values) for values in zip(*right.values(), strict=True))
    counts["one_object"] = sum(one.is_one_object for one in seen)
    found: dict[str, Any] = {"n": len(videos), "counts": counts}
    found["quality"] = _mean([quality(cv2.cvtColor(video[len(video) // 2], cv2.COLOR_RGB2BGR)) for video in videos])
    if videos.shape[1] > 1:
        counts["same_object"] = sum(one.is_same_object for one in seen)
        counts["moved"] = sum(one.moved for one in seen)
        found["continuity"] = _mean([one.continuity for one in seen])
        found |= motion(videos, scenes, truth)
    return found


def motion(videos: np.ndarray, scenes: Sequence[Scene], truth: np.ndarray) -> dict[str, float | None]:
    """Return how far objects move, and how evenly.

    `way` is the way of the centre from the first to the last frame in the direction that is asked for, over that in
    the scene itself: 1 is right, 0 is still, below 0 is backwards; no object counts as 0. `jerk` is the mean length
    of the second difference of the centre, in per cent of the picture's side, of videos with an object in every frame.
    """
    ways, jerks = [], []
    for video, scene, true in zip(videos, scenes, truth, strict=True):
        centres = centres_of(video) / video.shape[1]
        is_tracked = bool(np.isfinite(centres).all())
        asked = _AHEAD[scene.direction] @ (true_ends(true) / true.shape[1])
        ways.append(float(_AHEAD[scene.direction] @ (centres[-1] - centres[0]) / asked) if is_tracked else 0.0)
        if is_tracked:
            jerks.append(100 * float(np.linalg.norm(np.diff(centres, 2, axis=0), axis=1).mean()))
    return {"way": _mean(ways), "jerk": _mean(jerks), "tracked": len(jerks)}


def true_ends(video: np.ndarray) -> np.ndarray:
    """Return the way (x, y) of the centre from the first to the last frame, pixels."""
    centres = centres_of(video)
    return centres[-1] - centres[0]


def centres_of(video: np.ndarray) -> np.ndarray:
    """Return the centre (x, y) of the vivid object in each frame of uint8 RGB (F, H, W, 3), pixels; NaN where none is.

    Vivid is what has half of the strongest chroma against the video's median, as for the judge.
    """
    hues = video.astype(np.float32) / 255 @ np.exp(2j * np.pi * np.arange(3) / 3).astype(np.complex64)
    hues -= np.median(hues.real) + 1j * np.median(hues.imag)
    chroma = abs(hues)
    peak = max(float(np.percentile(chroma, 99)), 1e-6)
    parts = [largest_part(np.clip(frame / peak, 0, 1)) for frame in chroma]
    return np.array([(np.nan, np.nan) if part is None else centre_of(part) for part in parts])


def closeness(videos: np.ndarray, view: _View, how: How) -> dict[str, float | None]:
    """Return the mean PSNR, dB, to the scene of the frames that were made: it follows from what is given, nearly.

    Of filled-in frames also that of the mean of the two given neighbours, both decoded; those beside one only are left
    out.
    """
    truth, is_given = view.true_pixels, clean_frame_mask(_PATTERNS[how], videos.shape[1]).numpy()
    made = np.flatnonzero(~is_given)
    if how == "tup":
        made = made[made < len(is_given) - 1]
    pairs = [(number, frame) for number in range(len(videos)) for frame in made]
    made_psnr = [psnr(truth[number, frame], videos[number, frame]) for number, frame in pairs]
    found = {"psnr": _mean(made_psnr)}
    if how == "tup":
        means = [
            psnr(truth[number, frame], videos[number, [frame - 1, frame + 1]].mean(0).round().astype(np.uint8))
            for number, frame in pairs
        ]
        found["psnr_of_mean"] = _mean(means)
        found["psnr_over_mean"] = _mean([one - other for one, other in zip(made_psnr, means, strict=True)])
    return found


@torch.no_grad()
def word_signals(view: _View) -> dict[str, Any]:
    """Return the loss of held-out clips, and how much a wrong word adds to it (in 10^-3, and in which share it adds).

    Far less noisy than judged videos: every clip and noise level is the same for all arms and words.
    """
    data, count, frames = view.truth, len(view.scenes), view.stage.recipe.frames
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(7))
    micro = recipe_data.micro_conditions(count, frames, view.stage.every)

    def loss(scenes: Sequence[Scene]) -> Tensor:
        text = view.captions.of([shapes.caption(scene) for scene in scenes])
        total = torch.zeros(count)
        for value in _TIMES:
            timestep = torch.full((count,), value)
            predicted = view.model(rectified_flow.interpolate(data, noise, timestep), timestep, text, micro)
            total += (predicted - rectified_flow.velocity_target(data, noise)).square().flatten(1).mean(1)
        return total / len(_TIMES)

    right = loss(view.scenes)
    found: dict[str, Any] = {"n": count, "loss": _mean(right), "counts": {}}
    for word in recipe_data.WORDS:
        if word == "direction" and frames == 1:
            continue
        added = loss([recipe_data.wrong(scene, word, number) for number, scene in enumerate(view.scenes)]) - right
        found[f"{word}_signal"] = _mean(1000 * added)
        found["counts"][f"{word}_told"] = int((added > 0).sum())
    return found


def draw_sheet(videos: np.ndarray, path: Path) -> None:
    """Draw each video as a row of its frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate([np.concatenate(list(video), 1) for video in videos], 0)[..., ::-1])


def _mean(values: Sequence[float] | Tensor) -> float | None:
    """Return the mean, None where there is none or it is no number: JSON has neither."""
    mean = float(np.mean(np.asarray(values))) if len(values) else math.nan
    return round(mean, 5) if math.isfinite(mean) else None
