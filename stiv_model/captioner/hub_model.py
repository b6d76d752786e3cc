"""A video-language model of transformers: a prompt and pictures to words, greedily, many questions at a time.

Only architectures that transformers knows are run: code that lies in a folder or on the hub never is.
"""

import importlib.util
import io
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from PIL import Image
from transformers.video_utils import VideoMetadata

from stiv_model.encoders import devices, pinned
from stiv_model.settings import Device, Precision

_TICKS = 1000  # a second: times of frames are told to processors as numbers of frames


def read_picture(content: bytes) -> Image.Image:
    """Return a picture as models take them: RGB, in memory.

    Args:
        content: JPEG that we wrote.

    Raises:
        ValueError: it is none.
    """
    try:
        return Image.open(io.BytesIO(content), formats=["JPEG"]).convert("RGB")
    except OSError as error:
        raise ValueError(f"a picture of {len(content)} bytes is no JPEG ({error})") from error


class Look(NamedTuple):
    """What is asked of a model, and what it is shown."""

    text: str
    """The prompt. What a tokenizer has a meaning of its own for, such as `<image>`, is broken by a space."""
    pictures: Sequence[Image.Image] = ()
    """As `read_picture` returns them, in order of time."""
    times: Sequence[float] = ()
    """Where the pictures are frames of one video: the second of each. Else they are pictures by themselves."""
    seconds: float = 0.0
    """Length of that video."""


class Words(NamedTuple):
    """What a model says."""

    text: str
    is_whole: bool
    """Whether it came to an end of its own, before its tokens were spent."""
    prompt_tokens: int
    tokens: int


class HubModel:
    """A model with its processor, loaded once; threads may share it.

    Args:
        folder: as `hub_files.find` returns it.
        precision: of weights and activations.
        device: where it computes.
        place: the setting that names it, for messages.

    Raises:
        FileNotFoundError, ValueError: the folder is not what it says, weights are missing, its processor has no
            template of chats, a package that it needs is not installed, or there is no such device.
    """

    def __init__(self, folder: Path, precision: Precision, device: Device, place: str) -> None:
        self._device, dtype = devices.check(device, f"{place}.device"), getattr(torch, precision)
        self._place, self._lock = place, threading.Lock()
        with pinned.naming(place, str(folder)):
            pinned.check_folder(folder, pinned.TRANSFORMERS_WEIGHTS)
            self._processor = _read_processor(folder)
            with pinned.opening(folder, "a video-language model"):
                loaded: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                    folder, dtype=dtype, use_safetensors=True, output_loading_info=True, trust_remote_code=False
                )
            self._model, info = loaded
            pinned.check_names(folder, info["missing_keys"], ())
            self._prepare(folder)
        self._model.eval().requires_grad_(False).to(self._device)

    def _prepare(self, folder: Path) -> None:
        """Let the model say the likeliest words, and its processor pad where a model goes on from the right."""
        if getattr(self._processor, "chat_template", None) is None:
            raise ValueError(
                f"{folder} has no template of chats (chat_template.jinja): name a model that was tuned to answer"
            )
        tokenizer, given = self._processor.tokenizer, self._model.generation_config
        ends = given.eos_token_id if given.eos_token_id is not None else tokenizer.eos_token_id
        if ends is None:
            raise ValueError(
                f"{folder} does not say with which token an answer ends (eos_token_id): name another model"
            )
        self._ends = {ends} if isinstance(ends, int) else set(ends)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(self._ends))
        tokenizer.padding_side = "left"
        self._model.generation_config = transformers.GenerationConfig(
            do_sample=False, num_beams=1, eos_token_id=sorted(self._ends), pad_token_id=tokenizer.pad_token_id
        )
        marks = [token.content for token in tokenizer.added_tokens_decoder.values() if not _is_plain(token.content)]
        self._marks = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))
        self._positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)

    def answer(self, looks: Sequence[Look], max_tokens: int) -> list[Words]:
        """Return what the model says to each, in their order; they are one batch.

        Args:
            looks: with the same number of pictures each.
            max_tokens: that an answer may have.

        Raises:
            ValueError: they have more tokens than the model has positions, or more than the device has memory for.
        """
        with self._lock, torch.inference_mode(), devices.repeatable(self._device, self._model.dtype):
            given = self._processor.apply_chat_template(
                [self._chat(look) for look in looks],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True, **_video_arguments(looks)},
            ).to(self._device, dtype=self._model.dtype)
            length = given["input_ids"].shape[1]
            if self._positions is not None and length + max_tokens > self._positions:
                raise ValueError(
                    f"{self._place}.max_tokens is {max_tokens}, after {length} tokens of prompt and pictures, but the "
                    f"model has {self._positions} positions: lower it, or show fewer frames"
                )
            try:
                ids_BL = self._model.generate(**given, max_new_tokens=max_tokens)
            except torch.OutOfMemoryError as error:
                raise ValueError(
                    f"{self._place}.batch is {len(looks)}, which {self._device} has no memory for: lower it, or show "
                    "fewer frames"
                ) from error
        asked_B = given["attention_mask"].sum(dim=1).tolist()
        return [self._words(row, count) for row, count in zip(ids_BL[:, length:].tolist(), asked_B, strict=True)]

    def _chat(self, look: Look) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = [{"type": "image", "image": picture} for picture in look.pictures]
        if look.times:
            shown = [{"type": "video", "video": list(look.pictures)}]
        # a caption that says <image> would ask for a picture that is not there, and one that says </s> end the question
        text = self._marks.sub(lambda found: f"{found[0][0]} {found[0][1:]}", look.text)
        return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]

    def _words(self, ids: list[int], prompt_tokens: int) -> Words:
        end = next((place for place, token in enumerate(ids) if token in self._ends), None)
        own = ids if end is None else ids[:end]
        text = self._processor.tokenizer.decode(own, skip_special_tokens=True)
        return Words(text, end is not None, prompt_tokens, len(own) + (end is not None))


def _read_processor(folder: Path) -> Any:
    try:
        with pinned.opening(folder, "a processor of pictures and text"):
            return transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        if importlib.util.find_spec("torchvision") is not None:
            raise
        raise ValueError(
            f"{error}; or install the extra vlm, since torchvision is not here, which most families of models need "
            "(docs/captions.md)"
        ) from error


def _is_plain(token: str) -> bool:
    return token.isalnum() or not token.strip() or len(token) == 1


def _video_arguments(looks: Sequence[Look]) -> dict[str, Any]:
    """Return what a processor must know of videos: which moments it is shown, and that it shall choose no others."""
    if not looks[0].times:
        return {}
    told = [
        [
            VideoMetadata(
                total_num_frames=max(1, round(look.seconds * _TICKS)),
                fps=_TICKS,
                duration=look.seconds,
                frames_indices=[round(time * _TICKS) for time in look.times],
            )
        ]
        for look in looks
    ]
    return {"do_sample_frames": False, "video_metadata": told}
