"""Pipeline folders: saved over another one, opened by other means, and from a hub."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from stiv_model.pipeline import StivPipeline
from stiv_model.pipeline.components import NAMES, StivTransformerModel
from stiv_model.pipeline.folders import refuse_foreign
from tests.stiv_model.pipeline import hub
from tests.stiv_model.pipeline.test_pipeline import ROOT, latents, seeded


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Saved again


@pytest.mark.parametrize(("first", "then"), [("20KB", None), (None, "20KB"), ("20KB", "40KB")])
def test_a_folder_saved_to_again_is_the_last_pipeline_however_either_was_split(pipe, tmp_path, first, then):
    split = {"first": {"max_shard_size": first} if first else {}, "then": {"max_shard_size": then} if then else {}}
    pipe.save_pretrained(tmp_path / "again", **split["first"])
    pipe.transformer.mask_token.data += 1
    pipe.save_pretrained(tmp_path / "again", **split["then"])
    pipe.save_pretrained(tmp_path / "fresh", **split["then"])
    assert content(tmp_path / "again") == content(tmp_path / "fresh")
    assert torch.equal(latents(StivPipeline.from_pretrained(tmp_path / "again")), latents(pipe))


def test_other_files_of_a_folder_stay_when_it_is_saved_to_again(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "vae" / "stale.safetensors").write_text("of an earlier save")
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "vae" / "stale.safetensors").exists()


def test_a_save_that_fails_leaves_the_earlier_pipeline_whole(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path)
    before = content(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipe.scheduler, "save_pretrained", full)  # the last part; those before it are written
    with pytest.raises(OSError, match="No space left"):
        pipe.save_pretrained(tmp_path, max_shard_size="20KB")
    assert content(tmp_path) == before


def test_a_pipeline_saved_over_the_folder_it_was_read_from_keeps_its_weights(exported):
    pipe = StivPipeline.from_pretrained(exported)
    before = latents(pipe)
    pipe.save_pretrained(exported)
    assert torch.equal(latents(pipe), before)
    assert torch.equal(latents(StivPipeline.from_pretrained(exported)), before)


@pytest.mark.parametrize("there", ["vae", "model_index.json"])
def test_what_is_of_no_pipeline_of_ours_is_not_overwritten(pipe, tmp_path, there):
    if there == "vae":
        (tmp_path / "vae").mkdir()
        (tmp_path / "vae" / "mine.txt").write_text("mine")
    else:
        (tmp_path / there).write_text(json.dumps({"_class_name": "WanPipeline"}))
    before = content(tmp_path)
    with pytest.raises(ValueError, match=f"has {there}, which is of no StivPipeline"):
        pipe.save_pretrained(tmp_path)
    assert content(tmp_path) == before


def test_a_file_is_no_folder_to_save_to(pipe, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file: name a folder"):
        pipe.save_pretrained(tmp_path / "file")


def test_a_shift_that_was_set_is_saved(pipe, tmp_path):
    pipe.scheduler.set_shift(5.0)
    pipe.save_pretrained(tmp_path)
    opened = StivPipeline.from_pretrained(tmp_path)
    assert opened.scheduler.shift == 5.0
    assert torch.equal(latents(opened, solver="heun"), latents(pipe, solver="heun"))


# Opened otherwise


@pytest.mark.parametrize("part", NAMES)
def test_a_part_that_is_left_out_is_named_with_what_to_do(exported, pipe, part):
    with pytest.raises(ValueError, match=rf"^{part} is None, but a StivPipeline needs all of vae, .*subfolder="):
        StivPipeline.from_pretrained(exported, **{part: None})
    with pytest.raises(ValueError, match=f"^{part} is None"):
        StivPipeline(**(pipe.components | {part: None}), defaults=pipe.config["defaults"])
    setattr(pipe, part, None)
    with pytest.raises(ValueError, match=f"^{part} is None"):
        pipe("abc")


def test_one_part_opens_by_itself(exported):
    model = StivTransformerModel.from_pretrained(exported, subfolder="transformer")
    expected = StivPipeline.from_pretrained(exported).transformer.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())


def test_diffusers_own_class_says_which_to_take(exported):
    with pytest.raises(ValueError, match=r"from stiv_model\.pipeline import StivPipeline"):
        DiffusionPipeline.from_pretrained(exported)


def test_a_folder_of_another_pipeline_is_refused(exported):
    index = json.loads((exported / "model_index.json").read_text())
    (exported / "model_index.json").write_text(json.dumps(index | {"_class_name": "WanPipeline"}))
    with pytest.raises(ValueError, match="is of a WanPipeline"):
        StivPipeline.from_pretrained(exported)


def indexed(**values: object) -> Callable[[Path], object]:
    """Return what gives other values to keys of model_index.json."""
    return lambda folder: (folder / "model_index.json").write_text(
        json.dumps(json.loads((folder / "model_index.json").read_text()) | values)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (indexed(_class_name=["StivPipeline", "evil.py"]), r"is of \['StivPipeline', 'evil\.py'\]"),
        (indexed(_class_name={}), "is of a {}"),
        (indexed(transformer=["StivTransformerModel"]), r"\['StivTransformerModel'\] as transformer"),
        (indexed(transformer="StivTransformerModel"), "as transformer"),
        (indexed(transformer=["os", "system"]), r"\['os', 'system'\] as transformer"),
        (indexed(scheduler=["diffusers", ["x"]]), "as scheduler"),
        (indexed(tokenizer=None), "None as tokenizer"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "is one list"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "is no JSON"),
        (lambda folder: (folder / "transformer" / "config.json").write_text("[]"), "is one list"),
        (lambda folder: (folder / "transformer" / "config.json").unlink(), r"has no config\.json"),
        (
            lambda folder: (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x80\x04]."),
            "is no whole safetensors file",
        ),
        (lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(), r"has no scheduler_config\.json"),
        (lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text("[]"), "is one list"),
    ],
)
def test_a_folder_that_is_not_what_it_says_is_refused_in_one_line(exported, change, said):
    change(exported)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as refused:
        StivPipeline.from_pretrained(exported)
    assert "\n" not in str(refused.value)
    assert str(exported) in str(refused.value)


def test_a_subclass_opens_the_folder_too(exported):
    class Own(StivPipeline):
        pass

    assert type(Own.from_pretrained(exported)) is Own


@pytest.mark.parametrize("name", ["no/such/folder", "nothing", "/no/such"])
def test_a_name_that_is_neither_folder_nor_repository_is_refused(name):
    with pytest.raises(FileNotFoundError, match=f"^{name}: no such folder, and no name of a hub repository"):
        StivPipeline.from_pretrained(name)


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no model_index\.json: name a folder that save_pretrained"):
        StivPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device_map": "balanced"}, r"device_map is 'balanced': load without it, then use \.to"),
        ({"proxies": {"http": "here"}}, "proxies is .*: set HTTPS_PROXY"),
        ({"quantization_config": 8}, "quantization_config is 8"),
        ({"dtype": "bf16"}, "dtype is 'bf16': give a torch.dtype"),
        ({"torch_dtype": {"vae": "bf16"}}, "dtype is .*: give a torch.dtype"),
    ],
)
def test_arguments_of_loading_that_cannot_be_followed_are_refused(exported, asked, message):
    with pytest.raises(ValueError, match=message):
        StivPipeline.from_pretrained(exported, **asked)


# From a hub


@pytest.fixture
def repository(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., hub.Hub]]:
    """A hub that has the folder as `org/name`, with what is not read; libraries of this process ask it."""
    (exported / "transformer" / "notes.md").write_text("of its owner")
    (exported / "vae" / "flax_model.msgpack").write_bytes(b"weights of another library")
    with hub.serve({"org/name": exported}) as here:
        hub.ask(monkeypatch, here.url)
        yield here


def test_a_repository_of_the_hub_opens_and_nothing_but_what_is_read_is_fetched(repository, exported, tmp_path):
    pipe = StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache")
    assert torch.equal(latents(pipe), latents(StivPipeline.from_pretrained(exported)))
    assert {Path(name).parts[0] for name in repository.fetched} == {*NAMES, "model_index.json"}
    assert {Path(name).suffix for name in repository.fetched} <= {".json", ".safetensors", ".txt"}
    offline = StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache", local_files_only=True)
    assert torch.equal(latents(offline), latents(pipe))


def test_a_part_that_is_handed_over_is_not_fetched(repository, pipe, tmp_path):
    own = {"vae": pipe.vae, "scheduler": FlowMatchEulerDiscreteScheduler(shift=2.0)}
    opened = StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache", **own)
    assert opened.vae is own["vae"] and opened.scheduler is own["scheduler"]
    assert {Path(name).parts[0] for name in repository.fetched} == {*NAMES, "model_index.json"} - {"vae", "scheduler"}


def test_a_repository_whose_encoder_was_exchanged_is_refused(repository, exported, tmp_path):
    (path,) = (exported / "vae").glob("*.safetensors")
    save_file({name: 2 * weight for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="vae has sha256"):
        StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache")


def test_a_repository_that_is_not_there_is_refused_in_one_line(repository, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"^org/other: no such folder here, and as a hub repository .*Repos"
    ) as e:
        StivPipeline.from_pretrained("org/other", cache_dir=tmp_path / "cache")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("transformer/model.py", "code"),
        ("vae/diffusion_pytorch_model.bin", "a pickle"),
    ],
)
def test_a_repository_with_code_or_a_pickle_is_refused_and_nothing_of_it_is_fetched(
    repository, exported, tmp_path, file, what
):
    (exported / file).parent.mkdir(exist_ok=True)
    (exported / file).write_bytes(b"raise SystemExit")
    with pytest.raises(ValueError, match=rf"^org/name has {file}, {what}.*: a repository of a StivPipeline has") as e:
        StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache")
    assert "\n" not in str(e.value)
    assert repository.fetched <= {"model_index.json", "README.md"}
    repository.faults[""] = 503  # what is in the cache of a hub that is down is refused as well
    with pytest.raises(ValueError, match=f"^org/name has {file}"):
        StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache", local_files_only=True)


def test_code_and_pickles_are_told_by_the_endings_of_files_anywhere_in_a_repository():
    for file in ("pipeline.py", "old/last.ckpt", "weights.PT", "extra.pkl", "a/b.so"):
        with pytest.raises(ValueError, match=f"^org/name has {file}, "):
            refuse_foreign("org/name", ["README.md", file])
    refuse_foreign("org/name", ["README.md", ".gitattributes", "vae/config.json", "picture.png", "notes.python"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WanPipeline", r"^org/name/model_index\.json is of a WanPipeline: open it with the class of that name"),
        (["pipeline", "StivPipeline"], r"^org/name/model_index\.json is of \['pipeline', .*: it takes a class of "),
    ],
)
def test_a_repository_of_another_class_is_refused_before_its_weights_are_fetched(
    repository, exported, tmp_path, name, message
):
    index = json.loads((exported / "model_index.json").read_text())
    (exported / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
    with pytest.raises(ValueError, match=message) as e:
        StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache")
    assert "\n" not in str(e.value) and repository.fetched <= {"model_index.json", "README.md"}


def test_a_repository_that_was_fetched_opens_when_the_hub_is_gone(repository, exported, tmp_path):
    opened = StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache")
    repository.faults[""] = 503
    again = StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache")
    assert torch.equal(latents(again), latents(opened))


FROM_HUB = """
import sys, torch
from stiv_model.pipeline import StivPipeline
pipe = StivPipeline.from_pretrained("org/name")
made = pipe("abc", generator=[torch.Generator().manual_seed(3)], output_type="latent")
torch.save(made.frames, sys.argv[1])
"""


@pytest.mark.long
def test_another_process_opens_a_repository_by_the_hub_its_environment_names(repository, exported, tmp_path):
    names = {"HF_ENDPOINT": repository.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    run = [sys.executable, "-c", FROM_HUB, tmp_path / "made.pt"]
    subprocess.run(run, check=True, cwd=ROOT, env=os.environ | names, capture_output=True, timeout=300)
    expected = latents(StivPipeline.from_pretrained(exported), generator=seeded(3))
    assert torch.equal(torch.load(tmp_path / "made.pt"), expected)
