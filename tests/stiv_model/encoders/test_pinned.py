"""A folder of an encoder that is not what it says ends in one line, whichever library would open it."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stiv_model.encoders import pinned, text, vae
from stiv_model.pipeline import encoders as pipeline_encoders
from stiv_model.settings import TextSettings, VaeSettings

Change = Callable[[Path], object]
WEIGHTS = {"text": "model", "vae": "diffusion_pytorch_model"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A text encoder and a VAE of a few thousand parameters, by their section of the settings."""
    names = {"text": tmp_path_factory.mktemp("text"), "vae": tmp_path_factory.mktemp("vae")}
    words = ["a", "b", "a</w>", "b</w>", "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=[]).save_pretrained(names["text"])
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPTextConfig(vocab_size=6, projection_dim=8, max_position_embeddings=6, eos_token_id=5, **sizes)
    CLIPTextModel(config).save_pretrained(names["text"])
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(names["vae"])
    return names


def opened(section: str, folder: Path) -> object:
    """Open a folder as the settings of a section name it."""
    pinned_by = {"source": str(folder), "revision": None, "sha256": None}
    if section == "text":
        return text.TextEncoder(TextSettings(**pinned_by, kind="clip", tokens=6, precision="float32", batch=2))
    return vae.load(VaeSettings(**pinned_by, precision="float32", batch_frames=2))


def refused(section: str, folder: Path) -> str:
    """Return the line in which a folder is refused, with the setting that names it."""
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        opened(section, folder)
    said = str(raised.value)
    assert said.startswith(f"{section}.source is {folder}, ")
    assert "\n" not in said
    assert len(said) < 900
    return said


def configured(**values: object) -> Change:
    """Return what gives other values to keys of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def written(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name.format(weights=WEIGHTS[folder.name])).write_bytes(content)


def removed(name: str) -> Change:
    return lambda folder: (folder / name.format(weights=WEIGHTS[folder.name])).unlink()


def as_pickle(folder: Path) -> None:
    path = folder / f"{WEIGHTS[folder.name]}.safetensors"
    path.write_bytes(pickle.dumps({"weight": [0.0] * 100}))


def only_pickle(folder: Path) -> None:
    path = folder / f"{WEIGHTS[folder.name]}.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def cut(folder: Path) -> None:
    path = folder / f"{WEIGHTS[folder.name]}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def indexed(value: object) -> Change:
    def change(folder: Path) -> None:
        (folder / f"{WEIGHTS[folder.name]}.safetensors").unlink()
        (folder / f"{WEIGHTS[folder.name]}.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": 1}, "weight_map": value})
        )

    return change


@pytest.fixture
def copied(folders, tmp_path) -> Callable[[str], Path]:
    return lambda section: Path(shutil.copytree(folders[section], tmp_path / section))


@pytest.mark.parametrize("section", ["text", "vae"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removed("config.json"), "no config.json"),
        (removed("{weights}.safetensors"), "has no"),
        (written("config.json", b"{"), "is no JSON"),
        (written("config.json", b"\xff{}"), "is no JSON"),
        (written("config.json", b"[" * 100_000), "is no JSON"),
        (written("config.json", b'["AutoencoderTiny"]'), "is one list"),
        (as_pickle, "is no whole safetensors file"),
        (written("{weights}.safetensors", b""), "is no whole safetensors file"),
        (cut, "is no whole safetensors file"),
        (only_pickle, "only pytorch_model.bin, a pickle"),
        (indexed({"weight": "../other/model.safetensors"}), "'../other/model.safetensors'"),
        (indexed({"weight": "model-00001-of-00002.safetensors"}), "has no model-00001-of-00002.safetensors"),
        (indexed({"weight": "pytorch_model.bin"}), "'pytorch_model.bin'"),
        (indexed(["model.safetensors"]), "has no weight_map"),
        (configured(_attn_implementation="kernels-community/flash-attn"), "'kernels-community/flash-attn'"),
        (configured(attn_implementation="someone/attention:forward"), "'someone/attention:forward'"),
        (configured(attn_implementation=["someone/attention"]), "someone/attention"),
        (configured(text_config={"_attn_implementation_internal": "someone/attention"}), "text_config."),
        (configured(attn_implementation={"vision_config": "someone/attention"}), "someone/attention"),
        (configured(use_kernels=True), "use_kernels is True"),
        (configured(quantization_config=["nothing"]), "does not open as"),
    ],
)
def test_a_folder_that_is_not_what_it_says_is_refused_in_one_line(copied, section, change, said):
    folder = copied(section)
    change(folder)
    assert said in refused(section, folder)


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("vae", configured(_class_name=["AutoencoderTiny", "evil.py"]), "['AutoencoderTiny', 'evil.py']"),
        ("vae", configured(_class_name=None), "None"),
        ("vae", configured(_class_name={"a": 1}), "takes an AutoencoderKL"),
        ("vae", configured(encoder_block_out_channels="8, 8"), "does not open as an AutoencoderTiny"),
        ("vae", configured(in_channels=-1), "does not open as an AutoencoderTiny"),
        ("text", configured(hidden_size="8"), "does not open as a CLIPTextModel"),
        ("text", configured(num_attention_heads=3), "does not open as a CLIPTextModel"),
        ("text", configured(hidden_act=["gelu"]), "does not open as a CLIPTextModel"),
        ("text", written("tokenizer_config.json", b"{"), "does not open as a tokenizer"),
        ("text", written("tokenizer_config.json", b'{"tokenizer_class": ["a"]}'), "does not open as a tokenizer"),
        ("text", written("tokenizer.json", b"[]"), "does not open as a tokenizer"),
    ],
)
def test_values_that_a_library_stumbles_over_are_refused_in_one_line(copied, section, change, said):
    folder = copied(section)
    change(folder)
    assert said in refused(section, folder)


@pytest.mark.parametrize("section", ["text", "vae"])
@pytest.mark.parametrize(
    "change", [configured(), configured(attn_implementation="eager"), configured(use_kernels=False)]
)
def test_a_whole_folder_opens(copied, section, change):
    folder = copied(section)
    change(folder)
    assert opened(section, folder)


@pytest.mark.parametrize("section", ["text", "vae"])
def test_a_folder_of_several_files_opens(copied, section):
    folder = copied(section)
    path = folder / f"{WEIGHTS[section]}.safetensors"
    tensors = list(load_file(path).items())
    parts = {f"{WEIGHTS[section]}-0000{part}-of-00002.safetensors": dict(tensors[part - 1 :: 2]) for part in (1, 2)}
    for name, part in parts.items():
        save_file(part, folder / name, metadata={"format": "pt"})
    indexed({key: name for name, part in parts.items() for key in part})(folder)
    assert opened(section, folder)


@pytest.mark.parametrize(
    "named", [[["AutoencoderKL"], "vae"], ["diffusers", ["AutoencoderKL"]], {}, None, "Vae", ["a"]]
)
def test_a_pipeline_that_names_no_class_of_its_encoders_is_refused_in_one_line(folders, named):
    with pytest.raises(ValueError, match=r"model_index\.json names .* as vae: takes AutoencoderKL") as raised:
        pipeline_encoders.read(folders["vae"].parent, {"vae": named}, {"vae"}, None)
    assert "\n" not in str(raised.value)


def test_an_error_of_the_machine_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="input/output") as raised, pinned.opening(tmp_path, "a model"):
        raise OSError(5, "input/output error")
    assert raised.value.errno == 5
