"""The model that a command names: where its files come from, and what its hashes are."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from flows.commands.named_model import choose, resolve
from flows.commands.studio_modes import sections_of
from flows.params import load_params
from stiv_model.pipeline import card
from stiv_model.pipeline.components import NAMES
from stiv_model.pipeline.folders import INDEX
from tests.stiv_model.pipeline import hub


def test_a_repository_is_of_one_commit_for_all_of_a_command_although_its_branch_moves(workspace, named, monkeypatch):
    files = {path.relative_to(named).as_posix(): path.read_bytes() for path in named.rglob("*") if path.is_file()}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(workspace / "cache"))
    sections = sections_of(load_params())
    with hub.serve({}) as here:
        hub.ask(monkeypatch, here.url)
        repository = here.uploaded["org/small"] = hub.Repository(private=False)
        repository.commit("main", files)
        chosen = choose(None, "org/small")
        repository.commit("main", files | {"transformer/config.json": b"{}", INDEX: b"{}"})
        asked = len(here.asked)
        assert chosen.facts(sections) == resolve(None, str(named)).facts(sections)
        assert chosen.sha256() == resolve(None, str(named)).sha256()
        assert chosen.open(sections, None).transformer.settings == load_params().model
        assert len(here.asked) == asked, "the hub is asked once"


def test_hashes_are_those_of_the_files_with_a_card_and_without(workspace, named):
    with_card, without = resolve(None, str(named)), Path(shutil.copytree(named, "without"))
    (without / card.FILE).unlink()
    assert with_card.sha256() == resolve(None, str(without)).sha256()
    assert with_card.sha256().items() > card.hashes(named, NAMES).items()


def test_a_checkpoint_without_weights_has_no_hash_and_opening_it_says_what_it_is(workspace):
    chosen = resolve(Path("checkpoints/none"), None)
    assert chosen.sha256() == {}
    with pytest.raises(FileNotFoundError, match="checkpoints/none"):
        chosen.open(sections_of(load_params()), None)
