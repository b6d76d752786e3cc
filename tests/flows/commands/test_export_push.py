"""`stiv export --push`: what reaches a hub, what is refused, and how others then open it by its name."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_api

from flows.__main__ import main
from stiv_model.pipeline import StivPipeline, publishing
from tests.flows.commands.test_export import write_card
from tests.stiv_model.pipeline import hub

ROOT = Path(__file__).parents[3]


@pytest.fixture
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    """A hub that libraries of this process ask by a token that may write, with a cache of its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(workspace / "cache"))
    with hub.serve({}) as found:
        hub.ask(monkeypatch, found.url, hub.TOKEN)
        monkeypatch.setattr(hf_api.api, "endpoint", found.url)
        yield found


@pytest.fixture
def folder(named: Path, workspace: Path) -> Path:
    """An export of the checkpoint, in the workspace."""
    return shutil.copytree(named, workspace / "small")


def push(folder: Path, checkpoint: Path, *words: str) -> None:
    name = () if "--push" in words else ("--push", "org/small")
    main(["export", "--checkpoint", str(checkpoint), "--out", str(folder.relative_to(Path.cwd())), *name, *words])


def refused(folder: Path, checkpoint: Path, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        push(folder, checkpoint, *words)
    said = str(stop.value.code)
    assert said.startswith("stiv export: ") and "\n" not in said
    return said


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_is_pushed_whole_in_one_commit_and_opens_by_its_name(here, workspace, checkpoint, capsys):
    out = workspace / "new"
    write_card(workspace / "reports/card.json", model=64 * "0")
    push(out, checkpoint, "--text-encoder", "named", "--set", "sampler.steps=2")
    told = capsys.readouterr()
    printed = told.out.splitlines()
    assert "the card has no figures: reports/card.json has figures of model 000000000000, and none of" in told.err
    repository = here.uploaded["org/small"]
    made, last = repository.commits
    assert printed == ["new", f"{here.url}/org/small/commit/{last}"]
    assert repository.commits[last] == repository.commits[made] | content(out)
    assert not repository.private
    text = (out / "README.md").read_text()
    assert 'from_pretrained("org/small")' in text and "stiv sample --pipeline org/small" in text
    assert "There are none: the score card that was there is not of these weights" in text
    assert StivPipeline.from_pretrained("org/small").transformer.settings.width
    asked = ["--num-inference-steps", "2", "--untrained", "--out", "made.mp4"]
    main(["sample", "--pipeline", "org/small", "--prompt", "a red circle", *asked])
    assert Path("made.mp4").stat().st_size
    here.uploaded["org/small"].commit("main", repository.commits[last] | {"extra.py": b""})
    with pytest.raises(SystemExit, match=r"^stiv sample: org/small has extra\.py, code: a repository of a StivPipe"):
        main(["sample", "--pipeline", "org/small", "--prompt", "a red circle", "--out", "other.mp4"])


def test_a_folder_of_the_same_weights_is_pushed_as_it_is_to_a_private_branch(here, folder, checkpoint, capsys):
    push(folder, checkpoint, "--private", "--branch", "trial", "--message", "The second try")
    repository = here.uploaded["org/small"]
    assert repository.private and set(repository.commits[repository.branches["main"]]) == {".gitattributes"}
    assert content(folder).items() <= repository.commits[repository.branches["trial"]].items()
    assert "small was exported from these weights before: it is uploaded as it is" in capsys.readouterr().err
    assert repository.messages[-1] == "The second try"


def test_of_an_earlier_pipeline_what_the_new_one_lacks_is_gone_and_other_files_stay(here, folder, checkpoint):
    push(folder, checkpoint)
    repository = here.uploaded["org/small"]
    old = {
        "vae/diffusion_pytorch_model-00001-of-00002.safetensors": b"",
        "picture.png": b"",
        "text_encoder/config.json": b"",
    }
    repository.commit("main", repository.commits[repository.branches["main"]] | old)
    push(folder, checkpoint)
    there = repository.commits[repository.branches["main"]]
    assert set(there) == {*content(folder), ".gitattributes", "picture.png"}


@pytest.mark.parametrize("stray", ["train.py", ".env", "vae/model.bin", "notes.md", "tokenizer/id_rsa", "vae/own.json"])
def test_a_file_that_no_export_made_is_refused_by_its_name_and_nothing_is_uploaded(here, folder, checkpoint, stray):
    (folder / stray).parent.mkdir(exist_ok=True)
    (folder / stray).write_text("SECRET=1")
    said = refused(folder, checkpoint)
    assert f"small/{stray} is none of the files that an export makes: move it away; nothing was uploaded" in said
    assert here.uploaded == {} and here.stored == {}


def test_a_link_and_changed_weights_are_not_uploaded(here, folder, checkpoint, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    config = folder / "vae" / "config.json"
    kept = config.read_bytes()
    config.unlink()
    config.symlink_to(secret)
    assert "small/vae/config.json is a link" in refused(folder, checkpoint)
    config.unlink()
    config.write_bytes(kept)
    with (folder / "vae" / "diffusion_pytorch_model.safetensors").open("ab") as file:
        file.write(b"0")
    assert "has sha256" in refused(folder, checkpoint)
    assert here.uploaded == {}


def test_a_folder_of_other_weights_or_of_no_export_is_refused(here, folder, checkpoint):
    card = folder / "README.md"
    text = card.read_text()
    before = next(line for line in text.splitlines() if line.startswith("  checkpoint: "))
    card.write_text(text.replace(before, f"  checkpoint: {64 * 'f'}"))
    assert "--out small was exported from weights ffffffffffff, and those of" in refused(folder, checkpoint)
    card.unlink()
    assert "--out small exists already: name a new folder, or delete it" in refused(folder, checkpoint)
    assert here.uploaded == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("small", "it has no organisation"),
        ("org/na me", "alphanumeric"),
        ("org/a/b", "form"),
        ("org/small.git", "cannot end by '.git'"),
    ],
)
def test_a_malformed_name_is_refused_before_the_hub_is_asked(here, folder, checkpoint, name, words):
    said = refused(folder, checkpoint, "--push", name)
    assert f"--push '{name}' is no ORGANISATION/NAME of a hub (" in said and words in said
    assert here.asked == []


def test_options_of_a_repository_without_one_are_refused(here, folder, checkpoint, capsys):
    for words in (["--private"], ["--branch", "x"], ["--message", "x"]):
        with pytest.raises(SystemExit, match=f"^stiv export: {words[0]} is of a repository: name one"):
            main(["export", "--checkpoint", str(checkpoint), "--out", "new", *words])
    with pytest.raises(SystemExit):
        main(["export", "--checkpoint", str(checkpoint), "--out", "new", "--push", "org/small", "--token", "hf_x"])
    assert "--token" in capsys.readouterr().err and here.asked == []


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "there is no token of a hub here: set HF_TOKEN or use `hf auth login`"),
        ("hf_wrong", "the hub knows no such token"),
        (hub.READING, "the token 'mine' may only read"),
    ],
)
def test_who_may_not_write_is_refused_before_anything_is_made(here, workspace, checkpoint, monkeypatch, token, words):
    hub.ask(monkeypatch, here.url, token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(workspace / "none"))
    said = refused(workspace / "new", checkpoint)
    assert f"--push org/small: {words}" in said and (token or "hf_") not in said
    assert here.uploaded == {} and not Path("new").exists() and not Path("new.partial").exists()


def test_an_organisation_of_others_and_what_else_is_in_a_repository_are_refused(here, folder, checkpoint):
    assert "the token may not write there" in refused(folder, checkpoint, "--push", "others/small")
    push(folder, checkpoint)
    repository = here.uploaded["org/small"]
    mine = repository.commits[repository.branches["main"]]
    assert "--private: org/small is there and public" in refused(folder, checkpoint, "--private")
    repository.commit("main", mine | {"run.py": b""})
    assert "org/small has run.py, code" in refused(folder, checkpoint)
    repository.commit("main", mine | {"model_index.json": b'{"_class_name": "FluxPipeline"}'})
    assert "--push org/small: it holds a FluxPipeline, no StivPipeline: name another" in refused(folder, checkpoint)
    assert len(repository.commits) == 4


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("/stored/", 403, "the hub cannot be reached, or went away"),
        ("/commit/", 412, "somebody else changed the repository meanwhile"),
        ("/commit/", 0, "the folder is whole, and the same command uploads it later"),
        ("/repos/create", 500, "the hub does not take it"),
        ("/models/org/small", 404, "it may be a data set or a space"),
    ],
)
def test_an_upload_that_fails_leaves_nothing_of_it_in_the_repository(here, folder, checkpoint, words, status, told):
    target = publishing.Target("org/small", "main", False, "try")
    here.faults[words] = status
    with pytest.raises(OSError, match=told) as error:
        publishing.push(folder, target)
    assert "\n" not in str(error.value)
    repository = here.uploaded.get("org/small")
    assert repository is None or list(map(set, repository.commits.values())) == [{".gitattributes"}]
    here.faults.clear()
    publishing.push(folder, target)  # the same again, when the hub is well


def test_a_hub_that_is_not_there_is_told_in_one_line(here, workspace, checkpoint, monkeypatch):
    hub.ask(monkeypatch, "http://127.0.0.1:9", hub.TOKEN)
    said = refused(workspace / "new", checkpoint)
    assert "--push org/small: the hub cannot be reached, or went away (ConnectError" in said
    assert not Path("new").exists()


@pytest.mark.long
def test_another_process_pushes_it_and_another_opens_it_by_its_name_and_again_without_the_hub(
    here, folder, checkpoint, tmp_path
):
    names = {"HF_ENDPOINT": here.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    env = os.environ | names | {"HF_TOKEN": hub.TOKEN, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    sample = ["sample", "--pipeline", "org/small", "--prompt", "abc", "--num-inference-steps", "2", "--untrained"]

    def run(*words: str, **changes: str) -> None:
        command = [sys.executable, "-m", "flows", *words]
        subprocess.run(command, check=True, env=env | changes, capture_output=True, timeout=300)

    run("export", "--checkpoint", str(checkpoint), "--out", "small", "--push", "org/small", "--private")
    run(*sample, "--out", "one.mp4")
    run(*sample, "--out", "two.mp4", HF_ENDPOINT="http://127.0.0.1:9")
    assert Path("one.mp4").read_bytes() and Path("two.mp4").read_bytes()
