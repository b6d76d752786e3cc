"""A pipeline folder that names its text encoder: where that comes from, and that it is the one of the training."""

import importlib
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from stiv_model.encoders.text import TextEncoder
from stiv_model.pipeline import StivPipeline
from stiv_model.pipeline.text_source import TextSource
from tests.stiv_model.pipeline import hub
from tests.stiv_model.pipeline.test_pipeline import from_checkpoint, latents

PACKAGE = "carried_text_encoder"


@pytest.fixture
def package(encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python package that carries the text encoder in its folder `model`."""
    folder = tmp_path / "packages" / PACKAGE
    shutil.copytree(encoders / "text", folder / "model")
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder.parent)
    importlib.invalidate_caches()
    return folder


@pytest.fixture
def source(package: Path, clip) -> TextSource:
    sha256 = TextEncoder(clip[1]).sha256
    return TextSource(source=f"package:{PACKAGE}/model", revision=None, kind="clip", sha256=sha256)


@pytest.fixture
def named(tmp_path: Path, trained: Path, clip, source: TextSource) -> Path:
    """A pipeline folder that names its text encoder."""
    pipe = from_checkpoint(trained, clip)
    pipe.text_source = source
    pipe.save_pretrained(tmp_path / "named")
    assert pipe.text_encoder is not None and pipe.tokenizer is not None
    return tmp_path / "named"


def parts(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def another(folder: Path) -> None:
    """Give the text encoder in `folder` other weights."""
    (path,) = folder.glob("*.safetensors")
    save_file({name: 2 * weight for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})


def test_a_named_text_encoder_is_not_in_the_folder_and_makes_the_same_videos(named, exported, source):
    assert parts(named) == {"vae", "transformer", "scheduler"}
    opened = StivPipeline.from_pretrained(named)
    assert opened.text_source == source
    assert torch.equal(latents(opened), latents(StivPipeline.from_pretrained(exported)))


def test_a_folder_saved_again_goes_on_naming_it_unless_told_to_store_it(named, tmp_path):
    opened = StivPipeline.from_pretrained(named, dtype=torch.bfloat16)
    opened.save_pretrained(tmp_path / "again")
    assert parts(tmp_path / "again") == {"vae", "transformer", "scheduler"}
    opened.text_source = None
    opened.save_pretrained(tmp_path / "again")
    assert parts(tmp_path / "again") == {"vae", "transformer", "scheduler", "text_encoder", "tokenizer"}
    assert StivPipeline.from_pretrained(tmp_path / "again").text_source is None
    StivPipeline.from_pretrained(named).save_pretrained(tmp_path / "again")
    assert parts(tmp_path / "again") == {"vae", "transformer", "scheduler"}


def test_a_pipeline_of_the_same_parts_names_the_same(named, pipe):
    opened = StivPipeline.from_pretrained(named)
    assert StivPipeline.from_pipe(opened).text_source == opened.text_source
    assert StivPipeline.from_pipe(opened, dtype=torch.bfloat16).text_source == opened.text_source
    assert StivPipeline.from_pipe(opened, text_encoder=pipe.text_encoder).text_source is None


def test_another_text_encoder_at_its_place_is_refused_with_both_hashes(named, package, source):
    another(package / "model")
    with pytest.raises(ValueError, match=rf"with sha256 {source.sha256[:12]}, but here it has [0-9a-f]{{12}}: ") as e:
        StivPipeline.from_pretrained(named)
    assert source.source in str(e.value) and "\n" not in str(e.value)


def test_a_package_that_is_missing_is_named_with_the_remedy_unless_parts_are_handed_over(named, package, tmp_path):
    shutil.move(package, tmp_path / "elsewhere")
    importlib.invalidate_caches()
    with pytest.raises(FileNotFoundError, match=rf"there is no package '{PACKAGE}' here: install it") as refused:
        StivPipeline.from_pretrained(named)
    assert f"{named}/model_index.json" in str(refused.value) and "\n" not in str(refused.value)
    folder = tmp_path / "elsewhere" / "model"
    own = {"text_encoder": CLIPTextModel.from_pretrained(folder), "tokenizer": CLIPTokenizer.from_pretrained(folder)}
    opened = StivPipeline.from_pretrained(named, **own)
    assert opened.text_encoder is own["text_encoder"] and opened.tokenizer is own["tokenizer"]
    assert opened.text_source is None


def test_one_part_that_is_handed_over_takes_the_place_of_the_named_one(named, package):
    own = CLIPTextModel.from_pretrained(package / "model")
    opened = StivPipeline.from_pretrained(named, text_encoder=own)
    assert opened.text_encoder is own
    assert len(opened.tokenizer) == len(CLIPTokenizer.from_pretrained(package / "model"))


def test_a_pipeline_with_another_text_encoder_is_not_saved_as_if_it_had_the_named_one(named):
    opened = StivPipeline.from_pretrained(named)
    before = (named / "model_index.json").read_bytes()
    opened.text_encoder.get_input_embeddings().weight.data += 1
    with pytest.raises(ValueError, match="the text encoder of this pipeline is another: set text_source to None"):
        opened.save_pretrained(named)
    assert (named / "model_index.json").read_bytes() == before


@pytest.mark.parametrize("changes", [{"kind": "bert"}, {"sha256": None}, {"source": "/home/me/model"}])
def test_an_index_that_names_no_such_text_encoder_is_refused_in_one_line(named, source, changes):
    index = named / "model_index.json"
    for key, value in changes.items():
        written = getattr(source, key)
        text = index.read_text().replace(
            f'"{key}": "{written}"', f'"{key}": {"null" if value is None else f"{value!r}"}'
        )
        index.write_text(text.replace("'", '"'))
    with pytest.raises(
        ValueError, match=rf"^{index}|names a CLIPTextModel as text_encoder: takes BertModel"
    ) as refused:
        StivPipeline.from_pretrained(named)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("where", "revision"), [("/home/me/model", None), ("model", None), ("org/text", None), ("org/text", "main")]
)
def test_only_what_is_the_same_on_every_machine_can_be_named(source, where, revision):
    with pytest.raises(ValidationError, match=f"the text encoder {where}, revision .* cannot be named"):
        TextSource(source=where, revision=revision, kind="clip", sha256=source.sha256)


def test_a_commit_of_the_hub_can_be_named(named, package, source, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    pipe = StivPipeline.from_pretrained(named)
    with hub.serve({"org/text": package / "model"}) as here:
        hub.ask(monkeypatch, here.url)
        pipe.text_source = source.model_copy(update={"source": "org/text", "revision": hub.COMMIT})
        pipe.save_pretrained(named)
        opened = StivPipeline.from_pretrained(named)
    assert opened.text_source == pipe.text_source
    assert torch.equal(latents(opened), latents(pipe))
    assert "model.safetensors" in here.fetched
