"""`StivPipeline`: a trained model with its frozen encoders, used and stored as a pipeline of diffusers.

Shapes: P prompts, B videos (P times those per prompt), F frames, C channels, H height, W width, M micro-conditions.
"""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.configuration_utils import FrozenDict
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils.import_utils import is_accelerate_available
from diffusers.utils.outputs import BaseOutput
from diffusers.video_processor import VideoProcessor
from PIL.Image import Image
from torch import Tensor

from stiv_model import settings_errors
from stiv_model.diffusion.frame_conditioning import null_image
from stiv_model.diffusion.sampler import SamplingControl, sample, scheduler_timesteps
from stiv_model.encoders import pinned
from stiv_model.encoders.text import TextEncoder
from stiv_model.encoders.vae import Autoencoder, decode, downsampling
from stiv_model.encoders.vae import load as load_vae
from stiv_model.network.conditions import FrameCondition
from stiv_model.pipeline import card, folders, text_source
from stiv_model.pipeline import encoders as pipeline_encoders
from stiv_model.pipeline.applications import Applications
from stiv_model.pipeline.calls import Call, CallProperties, Calls
from stiv_model.pipeline.components import NAMES, PipelineDefaults, StivTransformerModel, check_parts, check_present
from stiv_model.pipeline.inputs import (
    Generators,
    Texts,
    callback_inputs_of,
    changed_latents,
    check_call,
    check_guidance,
    check_size,
    check_trained,
    count_of,
    latents_of,
    micro_of,
    negatives_of,
    noise_of,
    prompts_of,
    texts_of,
)
from stiv_model.pipeline.pictures import Pictures, Video, given_of, given_pictures
from stiv_model.pipeline.text_source import TextSource
from stiv_model.settings import SamplerSettings, TextSettings, VaeSettings

OnStepEnd = Callable[["StivPipeline", int, float, dict[str, Tensor]], dict[str, Tensor] | None]
_FROM_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision")
_TO_HUB = ("repo_id", "commit_message", "private", "token", "create_pr")
_FILES = "StivPipeline reads and writes plain safetensors only; leave it out"
_REFUSED = dict.fromkeys(("trust_remote_code", "custom_pipeline", "variant", "use_onnx", "use_flashpack"), _FILES) | {
    "proxies": "set HTTPS_PROXY in the environment",
    "device_map": "load without it, then use .to(DEVICE) or enable_model_cpu_offload()",
    "quantization_config": "the encoders are those of the training, in floats: use dtype",
}
"""Arguments that cannot be followed, with the reason or the remedy."""
_CHECKED = "_is_checked"


@dataclass
class StivPipelineOutput(BaseOutput):
    """Videos: lists of PIL images, an array (B, F, H, W, 3) or a tensor (B, F, 3, H, W) from 0 to 1, or latents."""

    frames: list[list[Image]] | np.ndarray | Tensor


class StivPipeline(CallProperties, Applications, DiffusionPipeline):
    """Text to video, and text and given frames to video.

    Several threads, pipelines of `from_pipe` and callbacks may call it at the same time: each call makes what it makes
    alone. What may be read and changed of a call while it runs: `CallProperties`. What takes several calls:
    `Applications`.

    Args:
        vae: an image autoencoder, applied to each frame by itself.
        text_encoder: a CLIP text tower, a T5 encoder or a BERT.
        tokenizer: of the text encoder.
        transformer: the model.
        scheduler: its times are those of every solver, `set_shift` and its options included; the steps of `euler` it
            makes itself. Each call takes a copy of it.
        defaults: `PipelineDefaults`, as a dict.

    Attributes:
        text_source: the text encoder that `save_pretrained` names, instead of storing it and its tokenizer; None stores
            them. A pipeline has it whose folder named the text encoder, and one to which it is set.

    Raises:
        ValueError: a part is missing, of another kind, or does not fit the others.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"  # type: ignore[assignment]
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012  # as in every pipeline of diffusers

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
        check_present(
            {
                "vae": vae,
                "text_encoder": text_encoder,
                "tokenizer": tokenizer,
                "transformer": transformer,
                "scheduler": scheduler,
            }
        )
        if defaults is None:
            raise ValueError("defaults is None: give PipelineDefaults as a dict, or use from_checkpoint")
        checked = settings_errors.checked(PipelineDefaults, defaults, "defaults")
        check_parts(vae, text_encoder, transformer, checked)
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer, scheduler=scheduler
        )
        self.register_to_config(defaults=checked.model_dump(mode="json"))
        self.text_source: TextSource | None = None
        self.video_processor = VideoProcessor(do_resize=False)
        self._calls = Calls(last=Call(checked.sampler.guidance_scale, checked.sampler.steps))

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
        A part that is handed over, such as `vae=...`, is neither read nor fetched. A text encoder that the folder names
        comes from the package, or the commit of the hub, that it names. Where the model card states hashes, all weights
        are read once more to compare them, which takes seconds for an XL model.

        Raises:
            FileNotFoundError: there is no such folder, and no such repository that can be reached; weights of the model
                card are missing; or a text encoder that is named is not there.
            ValueError: a repository of the hub has code or a pickle; weights are missing, unknown or not those of the
                model card, an encoder is not the one that was written with the transformer, the folder names another
                class, a part is None, or an argument cannot be followed or would let in code or other files.
        """
        _refuse(kwargs, _REFUSED)
        check_present(kwargs)
        dtype = kwargs.get("dtype") or kwargs.get("torch_dtype")
        _check_dtype(dtype)
        hub = {key: kwargs.pop(key) for key in _FROM_HUB if key in kwargs}
        kinds, parts = [each.__name__ for each in cls.__mro__], set(NAMES) - kwargs.keys()
        folder = folders.find(str(pretrained_model_name_or_path), parts, kinds, **hub)
        index = pinned.read_json(folder / cls.config_name)
        folders.check(folder, index, kinds, parts, NAMES)
        encoders = pipeline_encoders.read(folder, index, set(pipeline_encoders.PARTS) - kwargs.keys(), dtype)
        # without accelerate, diffusers would warn that it falls back to this
        memory = {"low_cpu_mem_usage": is_accelerate_available()}
        checked = {"use_safetensors": True, _CHECKED: True}
        pipeline = super().from_pretrained(folder, **(memory | encoders | kwargs | checked))
        if not kwargs.keys() & set(text_source.PARTS):
            pipeline.text_source = pipeline_encoders.source_of(folder, index)
        return pipeline

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Take apart model_index.json, for `from_pretrained` of this class only.

        Raises:
            ValueError: `DiffusionPipeline.from_pretrained` came here, which compares no hashes, leaves weights that are
                missing at random, and would read pickles.
        """
        if not kwargs.pop(_CHECKED, False):
            raise ValueError(
                "this folder is of a StivPipeline, whose encoders and weights DiffusionPipeline does not check: open "
                "it with `from stiv_model.pipeline import StivPipeline` and StivPipeline.from_pretrained"
            )
        return super().extract_init_dict(config_dict, **kwargs)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> "StivPipeline":
        """Return a pipeline of the parts of another one, which both then share; arguments as in diffusers.

        Unlike diffusers', it leaves the parts in the precision they have where no `dtype` is asked for: they are the
        other pipeline's too.

        Raises:
            ValueError: the other pipeline has not all parts, or they do not fit.
        """
        if isinstance(pipeline, StivPipeline) and not {"dtype", "torch_dtype"} & kwargs.keys():
            shared = cls(**(pipeline.components | {"defaults": pipeline.config["defaults"]} | kwargs))
        else:
            shared = super().from_pipe(pipeline, **kwargs)
        if isinstance(pipeline, StivPipeline) and not kwargs.keys() & set(text_source.PARTS):
            shared.text_source = pipeline.text_source
        return shared

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """Write a folder that opens on another machine: no path of this one, safetensors only.

        It takes the place of a pipeline that was saved there before, whatever that was split into; other files of the
        folder stay, and a model card, which loses its hashes where the weights are others now. The scheduler is written
        with the shift it has, `set_shift` included. Text encoder and tokenizer are stored, or named where `text_source`
        is set; they are then compared with what it names, which is read for that.

        Args:
            save_directory: the folder.
            kwargs: as in diffusers; `safe_serialization` is true, whatever it says. With `push_to_hub` the pipeline is
                uploaded as well, by `repo_id` or the name of the folder.

        Raises:
            FileNotFoundError: what `text_source` names is not there.
            ValueError: an argument would write other files, the folder holds what is of no `StivPipeline`, or the text
                encoder is not the one of `text_source`.
        """
        _refuse(kwargs, dict.fromkeys(("variant", "use_flashpack"), _FILES))
        hub = {key: kwargs.pop(key) for key in _TO_HUB if key in kwargs}
        is_pushed = kwargs.pop("push_to_hub", False)
        check_present(self.components)
        for part in (self, self.vae, self.transformer):
            part.register_to_config(_name_or_path=None)
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            self.scheduler.register_to_config(shift=self.scheduler.shift)
        folder, stored = Path(save_directory), self
        if self.text_source is not None:
            text_source.check_same(self.text_source, self.defaults.text_tokens, self.text_encoder, self.tokenizer)
            stored = copy.copy(self)  # diffusers writes the components that are in its config
            parts = {name: value for name, value in self.config.items() if name not in text_source.PARTS}
            vars(stored)["_internal_dict"] = FrozenDict(parts)
        with folders.replaced(folder, type(self).__name__, NAMES) as new:
            super(StivPipeline, stored).save_pretrained(new, **(kwargs | {"safe_serialization": True}))
            self.save_config(new)
        if is_pushed:
            self.push_to_hub(**({"repo_id": folder.absolute().name} | hub))

    def save_config(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write model_index.json: the last file of `save_pretrained`, with the hashes of the encoders beside it."""
        written: dict[str, Any] = {**pipeline_encoders.hashes(Path(save_directory))}
        if self.text_source is not None:
            written["text_encoder"] = self.text_source.model_dump(mode="json")
        self.register_to_config(**{pipeline_encoders.HASHES: written})
        super().save_config(save_directory, push_to_hub, **kwargs)

    def _upload_folder(self, working_dir: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Upload as diffusers does, which puts the card that the repository has beside weights that it knows not of."""
        card.keep_true(Path(working_dir), Path(working_dir), NAMES)
        return super()._upload_folder(working_dir, *args, **kwargs)

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
        prompt: Texts,
        negative_prompt: Texts | None = None,
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
        latents: Tensor | None = None,
        callback_on_step_end: OnStepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        *,
        last_image: Pictures | None = None,
        video: Video | None = None,
        untrained: bool = False,
    ) -> StivPipelineOutput | tuple:
        """Make videos; what is None is taken from `defaults`.

        Args:
            prompt: one or several.
            negative_prompt: what a video shall not show, in the place of the empty text; one, or one per prompt.
            image: the first frame, `height` x `width`, in any form that a call returns: RGB as PIL, an array
                (H, W, 3) or a tensor (3, H, W), uint8 or floats from 0 to 1; one, or one per prompt.
            frames: given frames by their place in the video, each as `image`.
            num_frames: 1 with an image model.
            height: pixels, as `width`.
            stride_frames: distance of the source frames that the video looks like.
            num_inference_steps: sampling steps.
            solver: `euler`, by the scheduler; `heun`; or of the SDE `euler_maruyama`, `heun_sde`.
            guidance: `text` (CFG), `joint` (JIT-CFG) or `separate` (SIT-CFG, which reads image_guidance_scale).
            guidance_scale: 1 is none, 0 is the negative prompt alone.
            image_guidance_scale: of the image, with `separate`; 1 is none.
            num_videos_per_prompt: videos of one prompt lie next to each other.
            generator: one, from which videos draw in turn, or one per video, which then depends on its own seed only.
            latents: normal noise (B, F, C, H, W) of latents to start from; None draws it from `generator`. The solvers
                of the SDE draw what they add from `generator` all the same.
            callback_on_step_end: called with the pipeline, the sampling step from 0, its timestep
                (`num_train_timesteps` of the scheduler, 1000, is noise, 0 data) and the tensors by name; `latents`
                (B, F, C, H, W) in the dict that it returns take their place. One of diffusers' classes for callbacks
                says itself which tensors it wants. While it runs, `guidance_scale`, `num_timesteps` and `interrupt`
                are those of its own call: `pipe._interrupt = True` leaves out the sampling steps that are left,
                `pipe._guidance_scale = ...` holds for them.
            callback_on_step_end_tensor_inputs: names of the tensors that the callback is given; `latents` is all.
            output_type: `pil`, `np`, `pt` or `latent`.
            return_dict: whether a `StivPipelineOutput` or a tuple is returned.
            last_image: the last frame, as `image`.
            video: the first frames, in their order, the same for all prompts: what a video begins with that is to go
                on; a list of pictures, an array (T, H, W, 3) or a tensor (T, 3, H, W).
            untrained: whether to go on where the model has never learned from such given frames, such a length or such
                a stride; what it makes then is nothing that it was trained for.

        Returns:
            the videos, or a tuple of them where not `return_dict`.

        Raises:
            ValueError: what is asked does not fit the model or its training, or what the callback returned its latents,
                with both values.
        """
        check_present(self.components)
        check_call(self.scheduler, output_type)
        scheduler = copy.deepcopy(self.scheduler)  # it counts its steps, and other calls have theirs
        asked = self.defaults.replaced(
            {"height": height, "width": width, "frames": num_frames, "stride_frames": stride_frames},
            {
                "steps": num_inference_steps,
                "shift": scheduler.shift,
                "solver": solver,
                "guidance": guidance,
                "guidance_scale": guidance_scale,
                "image_guidance_scale": image_guidance_scale,
            },
        )
        check_parts(self.vae, self.text_encoder, self.transformer, asked)
        settings, model, device, scale = asked.sampler, self.transformer, self._execution_device, downsampling(self.vae)
        timesteps = scheduler_timesteps(scheduler, settings.steps)
        prompts = prompts_of(prompt)
        negatives = negatives_of(negative_prompt, len(prompts))
        per_prompt = count_of("num_videos_per_prompt", num_videos_per_prompt)
        names = callback_inputs_of(
            callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs
        )
        check_size(model.settings, model.is_video, asked.frames, asked.height, asked.width, scale)
        pictures = given_pictures(image, frames, asked.frames, model.trained, last_image, video)
        if not untrained:
            check_trained(pictures, asked.frames, asked.stride_frames, model.trained)
        check_guidance(settings, bool(pictures), model.trained)

        videos = len(prompts) * per_prompt
        shape = (asked.frames, model.settings.latent_channels, asked.height // scale, asked.width // scale)
        draw_noise = noise_of(shape, videos, generator, device)
        noise = None if latents is None else latents_of(latents, shape, videos, device)
        control = SamplingControl(settings)
        with self._calls.run(Call(settings.guidance_scale, settings.steps)) as call:
            texts = texts_of(
                self.text_encoder, self.tokenizer, prompts, negatives, per_prompt, asked.text_tokens, device
            )
            clean = given_of(self.vae, pictures, len(prompts), shape, asked, device)
            given = (
                None if clean is None else FrameCondition(*(part.repeat_interleave(per_prompt, 0) for part in clean))
            )
            micro_BM = micro_of(asked).to(device).expand(videos, -1)
            with self.progress_bar(total=settings.steps) as bar:

                def follow() -> None:
                    control.is_stopped = call.interrupt
                    if call.guidance_scale != control.settings.guidance_scale:
                        now = asked.replaced({}, {"guidance_scale": call.guidance_scale}).sampler
                        check_guidance(now, bool(pictures), model.trained)
                        control.settings = now

                def on_step(done: int, x: Tensor) -> Tensor | None:
                    bar.update()
                    call.current_timestep = scheduler.config["num_train_timesteps"] * (1 - timesteps[done - 1].item())
                    changed = None
                    if callback_on_step_end is not None:
                        tensors = {name: x for name in names}  # `latents` is the only one
                        returned = callback_on_step_end(self, done - 1, call.current_timestep, tensors)
                        changed = changed_latents(returned, x)
                    follow()
                    return changed

                follow()
                made = sample(
                    model,
                    draw_noise() if noise is None else noise,
                    *texts,
                    micro_BM,
                    settings,
                    given,
                    null_image(model.trained.clean_frames if model.trained else "none"),
                    draw_noise,
                    on_step,
                    scheduler if settings.solver == "euler" else None,
                    timesteps,
                    control,
                )
            videos_made = self._to_frames(made, output_type)
        self.maybe_free_model_hooks()
        return StivPipelineOutput(frames=videos_made) if return_dict else (videos_made,)

    def _to_frames(self, latents_BFCHW: Tensor, output_type: str) -> list[list[Image]] | np.ndarray | Tensor:
        if output_type == "latent":
            return latents_BFCHW.clone()  # a tensor that may be changed, which one made in inference mode may not
        pixels_TCHW = decode(self.vae, latents_BFCHW.flatten(0, 1), self.defaults.vae_batch_frames).float()
        pixels_BCFHW = pixels_TCHW.unflatten(0, latents_BFCHW.shape[:2]).transpose(1, 2)
        return self.video_processor.postprocess_video(pixels_BCFHW, output_type)


def _refuse(arguments: dict[str, Any], reasons: Mapping[str, str]) -> None:
    for name, reason in reasons.items():
        if value := arguments.pop(name, None):
            raise ValueError(f"{name} is {value!r}: {reason}")


def _check_dtype(dtype: Any) -> None:
    for one in dtype.values() if isinstance(dtype, dict) else [dtype]:
        if not isinstance(one, torch.dtype | None):
            raise ValueError(
                f"dtype is {dtype!r}: give a torch.dtype, such as torch.bfloat16, or a dict of them by part"
            )


diffusers.StivPipeline = StivPipeline  # type: ignore[attr-defined]  # the name in model_index.json, for diffusers' own
