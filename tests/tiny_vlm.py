"""Video-language models of some 100,000 random weights, as folders that the hub would hold: whatever they say is noise.

Each is a real model of its family, with a processor, a template of chats, and a tokenizer of 400 tokens that is trained
here: what loads and asks a model of that family is tried whole, without a download.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DECLARED: list[Any] = []
_PIXELS, _PATCH, _WIDTH, _VOCABULARY = 28, 14, 32, 400
_WORDS = (
    "a red fox runs over the green field while the camera moves slowly to the left in the evening light",
    "user assistant describe these frames of one clip in plain sentences and say only what they show",
)
_TEXT = {
    "hidden_size": _WIDTH,
    "intermediate_size": 2 * _WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
_VISION = {
    "hidden_size": _WIDTH,
    "intermediate_size": 2 * _WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": _PIXELS,
    "patch_size": _PATCH,
}
_CHAT = (
    "{%% for message in messages %%}{{ message['role'] }}: {%% for part in message['content'] %%}"
    "{%% if part['type'] == 'image' %%}%s{%% elif part['type'] == 'video' %%}%s"
    "{%% else %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}assistant:{%% endif %%}"
)


HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None


def let_torchvision_import() -> None:
    """Declare what a torchvision that is built for GPUs imports without, beside a torch that is not.

    It registers kernels of operators that its own library would have declared; the families here call none of them.
    transformers imports torchvision with whatever handles pictures, so that this comes first.
    """
    if HAS_TORCHVISION and not _DECLARED:
        import torch

        if torch.version.cuda is None:
            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _DECLARED.append(library)  # undeclared when it is collected


def make(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a model of a family, and return its folder.

    Args:
        family: of `FAMILIES`.
        folder: for the files; made where it is not there.
        seed: of the weights.
    """
    import torch  # a test that needs no model waits for none of these
    from transformers import AutoModelForImageTextToText

    config, processor = FAMILIES[family]()
    config.update({"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
        for weights in model.parameters():  # larger than a trained one's: or it says the same of every picture
            torch.nn.init.normal_(weights, std=0.4)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer(*special: str) -> Any:
    """Return a byte-level BPE: there is no text that it does not know."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    own = ["<pad>", "<s>", "</s>", *special]
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _WORDS * 20,
        trainers.BpeTrainer(vocab_size=_VOCABULARY, special_tokens=own, initial_alphabet=letters, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=list(special),
        padding_side="left",
    )


def _llava() -> tuple[Any, Any]:
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaProcessor

    tokenizer = _tokenizer("<image>")
    vocabulary = len(tokenizer)
    config = LlavaConfig(
        text_config={"model_type": "llama", "vocab_size": vocabulary, **_TEXT},
        vision_config={"model_type": "clip_vision_model", **_VISION},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(_PIXELS // _PATCH) ** 2,
    )
    sizes = {"size": {"shortest_edge": _PIXELS}, "crop_size": {"height": _PIXELS, "width": _PIXELS}}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(**sizes),
        tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_CHAT % ("<image>", ""),
    )
    return config, processor


def _idefics3() -> tuple[Any, Any]:
    from transformers import Idefics3Config, Idefics3ImageProcessorPil, Idefics3Processor

    tokenizer = _tokenizer(*_IDEFICS)
    config = Idefics3Config(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **_TEXT},
        vision_config=_VISION,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(**_WHOLE), tokenizer, image_seq_len=1, chat_template=_CHAT % ("<image>", "")
    )
    return config, processor


def _smolvlm() -> tuple[Any, Any]:
    from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    tokenizer = _tokenizer(*_IDEFICS, "<video>")
    config = SmolVLMConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **_TEXT},
        vision_config=_VISION,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    video = SmolVLMVideoProcessor(
        size=_WHOLE["size"], max_image_size=_WHOLE["max_image_size"], video_sampling={"fps": 1, "max_frames": 8}
    )
    template = _CHAT % ("<image>", "<video>")
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**_WHOLE), tokenizer, video, image_seq_len=1, chat_template=template
    )
    return config, processor


def _qwen2_5_vl() -> tuple[Any, Any]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokenizer = _tokenizer(*_QWEN)
    vision = {"window_size": 2 * _PIXELS, "fullatt_block_indexes": [1], **_qwen_vision(_PATCH)}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3]}
    text = {**_TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_qwen_ids(tokenizer))
    sizes = {"min_pixels": _PIXELS**2, "max_pixels": 4 * _PIXELS**2}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), chat_template=_CHAT % _QWEN_PLACES
    )
    return config, processor


def _qwen3_vl() -> tuple[Any, Any]:
    from transformers import Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLProcessor, Qwen3VLVideoProcessor

    tokenizer = _tokenizer(*_QWEN)
    vision = {"num_position_embeddings": 16, "deepstack_visual_indexes": [0], **_qwen_vision(16)}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    text = {**_TEXT, "head_dim": _WIDTH // 2, "vocab_size": len(tokenizer), "rope_parameters": rope}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_qwen_ids(tokenizer))
    sizes = {"patch_size": 16, "size": {"shortest_edge": 32**2, "longest_edge": 4 * 32**2}}
    video = Qwen3VLVideoProcessor(patch_size=16, size={"shortest_edge": 32**2, "longest_edge": 32 * 32**2})
    processor = Qwen3VLProcessor(Qwen2VLImageProcessor(**sizes), tokenizer, video, chat_template=_CHAT % _QWEN_PLACES)
    return config, processor


def _llava_onevision() -> tuple[Any, Any]:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer = _tokenizer("<image>", "<video>")
    grid = [[_PIXELS, _PIXELS], [_PIXELS, 2 * _PIXELS]]
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **_TEXT},
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **_VISION},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    size = {"height": _PIXELS, "width": _PIXELS}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grid),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(_PIXELS // _PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=_CHAT % ("<image>", "<video>"),
    )
    return config, processor


_IDEFICS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
_WHOLE = {
    "size": {"longest_edge": _PIXELS},
    "max_image_size": {"longest_edge": _PIXELS},
    "do_image_splitting": False,
}
_QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_PLACES = tuple(f"<|vision_start|>{pad}<|vision_end|>" for pad in _QWEN[2:])


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, tokenizer.convert_tokens_to_ids(list(_QWEN)), strict=True))


def _qwen_vision(patch: int) -> dict[str, Any]:
    sizes = {"depth": 2, "hidden_size": _WIDTH, "intermediate_size": 2 * _WIDTH, "num_heads": 2}
    return sizes | {"patch_size": patch, "out_hidden_size": _WIDTH}


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava": _llava,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava_onevision": _llava_onevision,
}
"""Models by the names of their families; they return a config and a processor."""
WITHOUT_TORCHVISION = ("llava", "idefics3")
"""Those that load where torchvision is not installed: transformers makes a processor of videos for the others."""
