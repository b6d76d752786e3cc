"""Videos of fixed prompts from the EMA weights while a training runs, from the same noise each time.

The ranks sample together, each of them all videos: under ZeRO-3 none can compute alone. The first one shows them
(`stiv_model.monitoring.video_log`).

Shapes: V videos, F latent frames, C channels, H, W latents, M micro-conditions.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from stiv_model.diffusion.frame_conditioning import clean_frame_mask, null_image
from stiv_model.diffusion.sampler import sample
from stiv_model.latents.dataset import Batch, LatentData
from stiv_model.latents.order import draw_seed
from stiv_model.monitoring import prompt_features
from stiv_model.network.conditions import MICRO_CONDITIONS, FrameCondition, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Mode, RecipeSettings, Run, SamplerSettings, TrainingSettings
from stiv_model.training.loss import micro_conditions, take_frames


class ValidationVideos(NamedTuple):
    """Some videos by name, and what they are sampled from."""

    names: list[str]
    text: Text
    micro_VM: Tensor
    condition: FrameCondition | None
    noise_VFCHW: Tensor


def validation_videos(run: Run, work: Path, data: LatentData) -> list[ValidationVideos]:
    """Return the videos of a run: one per prompt, and where the recipe gives frames as many of clips of the data.

    A prompt has the micro-conditions of the clip with its number, as if that were not cropped.

    Raises:
        FileNotFoundError: the features of the prompts are missing.
    """
    count = len(run.training.validation_prompts)
    batch = data.batch([number * len(data.samples) // count for number in range(count)]).to(torch.device("cpu"))
    prompts = Text(**load_file(work / prompt_features.FILE))
    modes = [(frames, mode) for frames, modes in run.recipe.lengths.items() for mode in modes]
    of_number = [modes[number % len(modes)] for number in range(count)]
    found: list[ValidationVideos] = []
    for frames in run.recipe.lengths:
        numbers = [number for number, (length, _) in enumerate(of_number) if length == frames]
        if numbers:
            own = [of_number[number][1] for number in numbers]
            found += _of_length(run.training.seed, frames, own, numbers, batch, prompts)
    return found


def _of_length(
    seed: int, frames: int, modes: list[Mode], numbers: list[int], batch: Batch, prompts: Text
) -> list[ValidationVideos]:
    """Return the videos of these numbers, all of one length, by the prompts and of the clips that have them."""
    stride_V = torch.tensor([mode.stride for mode in modes])
    latents_VFCHW = take_frames(batch.latents_BFCHW[numbers], torch.zeros_like(stride_V), stride_V, frames)
    micro_VM = micro_conditions(batch.micro_BM[numbers], stride_V, frames)
    micro_VM[:, [MICRO_CONDITIONS.index(name) for name in ("crop_top", "crop_left")]] = 0
    is_clean_VF = torch.stack([clean_frame_mask(mode.clean_frames, frames) for mode in modes])

    def names(kind: str) -> list[str]:
        return [f"{kind} {number}" for number in numbers]

    def noise(kind: str) -> Tensor:
        seeds = [draw_seed(seed, f"validation {kind}", number) for number in numbers]
        shape = latents_VFCHW.shape[1:]
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    texts, captions = (Text(*(part[numbers] for part in text)) for text in (prompts, batch.text))
    found = [ValidationVideos(names("prompt"), texts, micro_VM, None, noise("prompt"))]
    if is_clean_VF.any():
        condition = FrameCondition(latents_VFCHW, is_clean_VF)
        found.append(ValidationVideos(names("clip"), captions, micro_VM, condition, noise("clip")))
    return found


class Validation:
    """Makes the videos of a run, on all ranks together, without touching a random state.

    Raises:
        FileNotFoundError: the features of the prompts are missing.
    """

    def __init__(self, run: Run, work: Path, data: LatentData, device: torch.device):
        self.run, self.device, self.null_text = run, device, data.null_text
        self.videos = validation_videos(run, work, data)

    def make(self, model: StivTransformer) -> dict[str, Tensor]:
        """Return the latents (F, C, H, W) of every video by its name."""
        made = [self._sample(model, one) for one in self.videos]
        return {
            name: video
            for one, videos in zip(self.videos, made, strict=True)
            for name, video in zip(one.names, videos, strict=True)
        }

    def _sample(self, model: StivTransformer, one: ValidationVideos) -> Tensor:
        def move(x: Tensor) -> Tensor:
            return x.to(self.device)

        videos = len(one.names)
        return sample(
            model,
            move(one.noise_VFCHW),
            Text(*map(move, one.text)),
            Text(*(move(part).expand(videos, *part.shape[1:]) for part in self.null_text)),
            move(one.micro_VM),
            sampling(self.run.recipe, self.run.training),
            None if one.condition is None else FrameCondition(*map(move, one.condition)),
            null_image(self.run.recipe.clean_frames),
        )


def sampling(recipe: RecipeSettings, training: TrainingSettings) -> SamplerSettings:
    """Return how validation samples: guided only by what the recipe drops, which it has learnt to do without."""
    return SamplerSettings(
        solver="euler",
        steps=training.validation_sampling_steps,
        shift=1.0,
        guidance="joint" if recipe.image_dropout else "text",
        guidance_scale=training.validation_guidance_scale if recipe.text_dropout else 1.0,
        image_guidance_scale=1.0,
        guidance_start=0.0,
        guidance_end=1.0,
        renormalise=False,
        batch_guidance=True,
        original_height=1,  # of the micro-conditions, which are those of the data's clips
        original_width=1,
    )
