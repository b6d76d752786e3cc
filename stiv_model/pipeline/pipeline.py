"""`StivPipeline`: a trained model with its frozen encoders, used and stored as a pipeline of diffusers.

Shapes: P prompts, B videos (P times those per prompt), F frames, C channels, H height, W width, M micro-conditions.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils.import_utils import is_accelerate_available
from diffusers.utils.outputs import BaseOutput
from diffusers.video_processor import VideoProcessor
from PIL.Image import Image
from torch import Tensor

from stiv_model import settings_errors
from stiv_model.diffusion.frame_conditioning import null_image
from stiv_model.diffusion.sampler import OnStep, sample, timestep_schedule
from stiv_model.encoders.text import TextEncoder
from stiv_model.encoders.vae import Autoencoder, decode, downsampling
from stiv_model.encoders.vae import load as load_vae
from stiv_model.network.conditions import FrameCondition
from stiv_model.pipeline import encoders as pipeline_encoders
from stiv_model.pipeline.components import PipelineDefaults, StivTransformerModel, check_parts
from stiv_model.pipeline.inputs import (
    Generators,
    Pictures,
    check_call,
    check_guidance,
    check_size,
    given_of,
    given_pictures,
    micro_of,
    noise_of,
    texts_of,
)
from stiv_model.settings import SamplerSettings, TextSettings, VaeSettings

OnStepEnd = Callable[["StivPipeline", int, float, dict[str, Tensor]], dict[str, Tensor]]
_FROM_HUB = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision")
_REFUSED = ("trust_remote_code", "custom_pipeline", "variant", "use_onnx", "use_flashpack")


@dataclass
class StivPipelineOutput(BaseOutput):
    """Videos: lists of PIL images, an array (B, F, H, W, 3) or a tensor (B, F, 3, H, W) from 0 to 1, or latents."""

    frames: list[list[Image]] | np.ndarray | Tensor


class StivPipeline(DiffusionPipeline):
    """Text to video, and text and given frames to video.

    Args:
        vae: an image autoencoder, applied to each frame by itself.
        text_encoder: a CLIP text tower, a T5 encoder or a BERT.
        tokenizer: of the text encoder.
        transformer: the model.
        scheduler: its shift places the sampling steps of every solver; those of `euler` it makes itself.
        defaults: `PipelineDefaults`, as a dict.

    Raises:
        ValueError: the parts do not fit each other.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"  # type: ignore[assignment]

    def __init__(
        self,
        vae: Autoencoder,
        text_encoder: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        transformer: StivTransformerModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        defaults: dict[str, Any] | None = None,  # diffusers takes what has a default for no component
    ):
        super().__init__()
        if defaults is None:
            raise ValueError("defaults is None: give PipelineDefaults as a dict, or use from_checkpoint")
        checked = settings_errors.checked(PipelineDefaults, defaults, "defaults")
        check_parts(vae, text_encoder, transformer, checked)
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer, scheduler=scheduler
        )
        self.register_to_config(defaults=checked.model_dump(mode="json"))
        self.video_processor = VideoProcessor(do_resize=False)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Path,
        vae: VaeSettings,
        text: TextSettings,
        height: int,
        width: int,
        frames: int,
        stride_frames: int,
        sampler: SamplerSettings,
    ) -> "StivPipeline":
        """Return the pipeline of a checkpoint folder with the encoders it was trained with.

        Args:
            height: of a frame in pixels, as `width`: what a call makes where it says nothing, as the three below.
            frames: 1 is taken for an image model, whatever stands here.

        Raises:
            FileNotFoundError: there is no checkpoint, VAE or text encoder.
            ValueError: they do not fit each other, or are not the encoders that made the latents of the training.
        """
        transformer = StivTransformerModel.from_checkpoint(checkpoint)
        autoencoder, encoder = load_vae(vae), TextEncoder(text)
        pipeline_encoders.check(checkpoint, transformer.trained, autoencoder, encoder)
        defaults = PipelineDefaults(
            height=height,
            width=width,
            frames=frames if transformer.is_video else 1,
            stride_frames=stride_frames,
            text_tokens=text.tokens,
            vae_batch_frames=vae.batch_frames,
            sampler=sampler,
        )
        return cls(
            vae=autoencoder.model,
            text_encoder=encoder.model,
            tokenizer=encoder.tokenizer,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=sampler.shift),
            defaults=defaults.model_dump(mode="json"),
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "StivPipeline":
        """Load a folder that `save_pretrained` wrote, or such a repository of the hub; arguments as in diffusers.

        Only safetensors and only classes of diffusers, transformers and this package are read: no code and no pickle.

        Raises:
            ValueError: weights are missing or unknown, an encoder is not the one that was written with the transformer,
                the folder names another class, or an argument would let in code or other files.
        """
        _refuse(kwargs, _REFUSED)
        name, hub = str(pretrained_model_name_or_path), {key: kwargs.pop(key) for key in _FROM_HUB if key in kwargs}
        folder = Path(name) if Path(name).is_dir() else Path(cls.download(name, use_safetensors=True, **hub))
        index = json.loads((folder / cls.config_name).read_text())
        missing = set(pipeline_encoders.PARTS) - kwargs.keys()
        encoders = pipeline_encoders.read(folder, index, missing, kwargs.get("dtype") or kwargs.get("torch_dtype"))
        # without accelerate, diffusers would warn that it falls back to this
        memory = {"low_cpu_mem_usage": is_accelerate_available()}
        return super().from_pretrained(folder, **(memory | encoders | kwargs | {"use_safetensors": True}))

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """Write a folder that opens on another machine: no path of this one, safetensors only.

        Raises:
            ValueError: an argument would write other files.
        """
        _refuse(kwargs, ("variant", "use_flashpack"))
        for part in (self, self.vae, self.transformer):
            part.register_to_config(_name_or_path=None)
        super().save_pretrained(save_directory, **(kwargs | {"safe_serialization": True}))

    def save_config(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write model_index.json: the last file of `save_pretrained`, with the hashes of the encoders beside it."""
        self.register_to_config(**{pipeline_encoders.HASHES: pipeline_encoders.hashes(Path(save_directory))})
        super().save_config(save_directory, push_to_hub, **kwargs)

    @property
    def defaults(self) -> PipelineDefaults:
        """What a call takes where it says nothing."""
        return PipelineDefaults.model_validate(self.config["defaults"])

    def enable_vae_slicing(self) -> None:
        """Let the VAE code one frame at a time."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Let the VAE code `defaults.vae_batch_frames` frames at a time."""
        self.vae.disable_slicing()

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        image: Pictures | None = None,
        frames: Mapping[int, Pictures] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        stride_frames: int | None = None,
        num_inference_steps: int | None = None,
        solver: str | None = None,
        guidance: str | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        callback_on_step_end: OnStepEnd | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> StivPipelineOutput | tuple:
        """Make videos; what is None is taken from `defaults`.

        Args:
            prompt: one or several.
            negative_prompt: what a video shall not show, in the place of the empty text; one, or one per prompt.
            image: the first frame, `height` x `width`; one, or one per prompt.
            frames: given frames by their place in the video, each as `image`.
            num_frames: 1 with an image model.
            height: pixels, as `width`.
            stride_frames: distance of the source frames that the video looks like.
            num_inference_steps: sampling steps.
            solver: `euler`, by the scheduler; `heun`; or of the SDE `euler_maruyama`, `heun_sde`.
            guidance: `text` (CFG), `joint` (JIT-CFG) or `separate` (SIT-CFG, which reads image_guidance_scale).
            guidance_scale: 1 is none.
            generator: one, from which videos draw in turn, or one per video, which then depends on its own seed only.
            callback_on_step_end: called with the pipeline, the sampling step from 0, its timestep (1000 is noise, 0
                data) and {"latents": (B, F, C, H, W)}; latents in what it returns take their place.
            output_type: `pil`, `np`, `pt` or `latent`.

        Returns:
            the videos, or a tuple of them where not `return_dict`.

        Raises:
            ValueError: what is asked does not fit the model, with both values.
        """
        check_call(self.scheduler, output_type)
        asked = self.defaults.replaced(
            {"height": height, "width": width, "frames": num_frames, "stride_frames": stride_frames},
            {
                "steps": num_inference_steps,
                "shift": self.scheduler.config.shift,
                "solver": solver,
                "guidance": guidance,
                "guidance_scale": guidance_scale,
                "image_guidance_scale": image_guidance_scale,
            },
        )
        settings, model, device, scale = asked.sampler, self.transformer, self._execution_device, downsampling(self.vae)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        check_size(model.settings, model.is_video, asked.frames, asked.height, asked.width, scale)
        pictures = given_pictures(image, frames, asked.frames, model.trained)
        check_guidance(settings, bool(pictures), model.trained)

        videos = len(prompts) * num_videos_per_prompt
        shape = (asked.frames, model.settings.latent_channels, asked.height // scale, asked.width // scale)
        draw_noise = noise_of(shape, videos, generator, device)
        negative = negative_prompt if isinstance(negative_prompt, list) else [negative_prompt or ""] * len(prompts)
        texts = texts_of(
            self.text_encoder, self.tokenizer, prompts, negative, num_videos_per_prompt, asked.text_tokens, device
        )
        clean = given_of(self.vae, pictures, len(prompts), shape, asked, device)
        given = (
            None
            if clean is None
            else FrameCondition(*(part.repeat_interleave(num_videos_per_prompt, 0) for part in clean))
        )
        micro_BM = micro_of(asked).to(device).expand(videos, -1)
        with self.progress_bar(total=settings.steps) as bar:
            latents = sample(
                model,
                draw_noise(),
                *texts,
                micro_BM,
                settings,
                given,
                null_image(model.trained.clean_frames if model.trained else "none"),
                draw_noise,
                self._on_step(settings, callback_on_step_end, bar),
                self.scheduler if settings.solver == "euler" else None,
            )
        made = self._to_frames(latents, output_type)
        self.maybe_free_model_hooks()
        return StivPipelineOutput(frames=made) if return_dict else (made,)

    def _on_step(self, settings: SamplerSettings, callback: OnStepEnd | None, bar: Any) -> OnStep:
        timesteps = [1000 * (1 - time) for time in timestep_schedule(settings.steps, settings.shift).tolist()]

        def on_step(done: int, x: Tensor) -> Tensor | None:
            bar.update()
            if callback is None:
                return None
            return callback(self, done - 1, timesteps[done - 1], {"latents": x}).get("latents")

        return on_step

    def _to_frames(self, latents_BFCHW: Tensor, output_type: str) -> list[list[Image]] | np.ndarray | Tensor:
        if output_type == "latent":
            return latents_BFCHW.clone()  # a tensor that may be changed, which one made in inference mode may not
        pixels_TCHW = decode(self.vae, latents_BFCHW.flatten(0, 1), self.defaults.vae_batch_frames).float()
        pixels_BCFHW = pixels_TCHW.unflatten(0, latents_BFCHW.shape[:2]).transpose(1, 2)
        return self.video_processor.postprocess_video(pixels_BCFHW, output_type)


def _refuse(arguments: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if value := arguments.pop(name, None):
            raise ValueError(f"{name} is {value!r}: StivPipeline reads and writes plain safetensors only; leave it out")
