"""The hashes that the model card of a pipeline folder states: compared when it opens, never left to lie."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.utils import hub_utils
from huggingface_hub.repocard import metadata_load, metadata_save

from stiv_model.pipeline import StivPipeline, card
from stiv_model.pipeline.components import NAMES
from tests.stiv_model.pipeline.test_pipeline import latents

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def carded(exported: Path) -> Path:
    """A pipeline folder whose card states the hashes of its weights."""
    (exported / card.FILE).write_text("\n# A model\n\nIts story.\n")
    stated = {"license": "apache-2.0", "stiv": {"sha256": card.hashes(exported, NAMES)}}
    metadata_save(exported / card.FILE, stated)
    return exported


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of a number: the file stays whole
    path.write_bytes(content)


def test_the_hashes_are_of_every_file_of_weights_and_a_folder_opens_by_them(carded, pipe):
    assert set(card.stated(carded)) == {f"transformer/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.safetensors"}
    StivPipeline.from_pretrained(carded)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_byte_of_the_weights_that_was_changed_is_refused_with_both_hashes_and_the_remedy(carded, part):
    (path,) = (carded / part).glob("*.safetensors")
    before = card.hashes(carded, NAMES)
    change(path)
    name = f"{part}/{path.name}"
    with pytest.raises(ValueError) as refused:
        StivPipeline.from_pretrained(carded)
    found = card.hashes(carded, NAMES)[name]
    said = str(refused.value)
    assert said.startswith(f"{path} has sha256 {found[:12]}, but README.md says {before[name][:12]}: ")
    assert f"`git checkout -- {carded}` brings back what was committed" in said and "\n" not in said


def test_a_file_of_the_card_that_is_missing_is_refused(carded):
    (carded / "transformer" / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=rf"has no transformer/{WEIGHTS}, whose hash its README\.md states: "):
        StivPipeline.from_pretrained(carded)


def test_weights_that_are_not_in_the_card_are_refused(carded):
    (carded / "transformer" / "more.safetensors").write_bytes((carded / "transformer" / WEIGHTS).read_bytes())
    with pytest.raises(ValueError, match=r"more\.safetensors is not in README\.md \(stiv\.sha256\)"):
        StivPipeline.from_pretrained(carded)


@pytest.mark.parametrize("text", ["mine", "---\nlicense: mit\n---\nmine", "---\nstiv: {steps: 3}\n---\n", "---\n---\n"])
def test_a_card_without_hashes_is_compared_with_nothing(carded, text):
    (carded / card.FILE).write_text(text)
    change(carded / "transformer" / WEIGHTS)
    StivPipeline.from_pretrained(carded)


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("a: [", "does not begin with YAML that can be read"),
        ("- a", "does not begin with YAML that can be read"),
        ("stiv: {sha256: abc}", r"stiv\.sha256 does not map files to hashes"),
        ("stiv: {sha256: {vae/a.safetensors: abc}}", r"stiv\.sha256 does not map files to hashes"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused_in_one_line_and_nothing_is_saved_beside_it(carded, front, said):
    pipe = StivPipeline.from_pretrained(carded)
    (carded / card.FILE).write_text(f"---\n{front}\n---\nmine")
    before = {path: path.stat().st_mtime_ns for path in carded.rglob("*") if path.is_file()}
    for does in (StivPipeline.from_pretrained, pipe.save_pretrained):
        with pytest.raises(ValueError, match=said) as refused:
            does(carded)
        assert "\n" not in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in carded.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["", "/etc/passwd", "vae/../../other.safetensors"])
def test_a_name_that_is_of_no_file_of_weights_is_missing(carded, name):
    stated = {"stiv": {"sha256": card.hashes(carded, NAMES) | {name: 64 * "0"}}}
    metadata_save(carded / card.FILE, stated)
    with pytest.raises(FileNotFoundError, match=f"has no {name}, whose hash"):
        StivPipeline.from_pretrained(carded)


def test_the_card_of_a_repository_of_the_hub_is_compared_too(carded, repository, tmp_path):
    StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "cache")
    assert card.FILE in repository.fetched
    change(carded / "transformer" / WEIGHTS)
    with pytest.raises(ValueError, match=r"has sha256 [0-9a-f]{12}, but README\.md says"):
        StivPipeline.from_pretrained("org/name", cache_dir=tmp_path / "another")


def test_a_part_that_is_handed_over_is_not_compared(carded):
    own = AutoencoderKL.from_pretrained(carded / "vae", low_cpu_mem_usage=False)
    (carded / "vae" / WEIGHTS).unlink()
    assert StivPipeline.from_pretrained(carded, vae=own).vae is own


def test_a_card_stays_as_it_is_where_the_same_weights_are_saved_again(carded):
    before = (carded / card.FILE).read_bytes()
    StivPipeline.from_pretrained(carded).save_pretrained(carded)
    assert (carded / card.FILE).read_bytes() == before


def test_a_card_states_no_hashes_of_weights_that_were_replaced_and_says_so(carded):
    tuned = StivPipeline.from_pretrained(carded)
    tuned.transformer.mask_token.data += 1
    tuned.save_pretrained(carded)
    assert metadata_load(carded / card.FILE) == {"license": "apache-2.0"}
    text = (carded / card.FILE).read_text()
    assert "Its story." in text and text.index("were saved again after it was written") < text.index("# A model")
    assert torch.equal(latents(StivPipeline.from_pretrained(carded)), latents(tuned))


def test_a_card_of_the_hub_is_not_pushed_beside_weights_that_it_is_not_of(carded, pipe, tmp_path, monkeypatch):
    pushed = {}

    def upload(folder_path, **_):
        pushed.update(card=(Path(folder_path) / card.FILE).read_text(), stated=card.stated(Path(folder_path)))

    on_hub = (carded / card.FILE).read_text()
    monkeypatch.setattr(hub_utils, "create_repo", lambda name, **_: SimpleNamespace(repo_id=name))
    monkeypatch.setattr(hub_utils, "upload_folder", upload)
    monkeypatch.setattr(hub_utils, "load_or_create_model_card", lambda *_, **__: hub_utils.ModelCard(on_hub))
    pipe.transformer.mask_token.data += 1
    pipe.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="org/name")
    assert "Its story." in pushed["card"] and "were saved again" in pushed["card"]
    assert pushed["stated"] is None
