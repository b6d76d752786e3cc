"""A byte that went bad in DVC's cache or on a remote, which DVC itself does not notice."""

import random
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows import stages


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A real DVC repository: stage `make` makes a folder of six files and one file more, stage `use` takes both."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(
        """
stages:
  make:
    cmd: mkdir -p made && for i in 1 2 3 4 5 6; do seq $i 400 > made/$i.txt; done && seq 9 99 > one.txt
    outs: [made, one.txt]
  use:
    cmd: cat made/*.txt one.txt > used.txt
    deps: [made, one.txt]
    outs: [used.txt]
"""
    )
    opened = Repo.init(no_scm=True)
    opened.reproduce()
    with opened.config.edit() as config:
        config["remote"]["store"] = {"url": str(tmp_path / "remote")}
        config["core"]["remote"] = "store"
    opened.close()
    opened = Repo()
    opened.push()
    return opened


def flip_one_byte(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def checked_out_anew(repo: Repo) -> None:
    shutil.rmtree("made")
    Path("one.txt").unlink()
    repo.checkout(force=True)


def test_what_earlier_stages_made_passes(repo: Repo):
    assert stages.check_inputs("use") == 7
    assert stages.check_inputs("make") == 0


def objects(folder: Path) -> list[Path]:
    """Return the objects that hold what stage `use` takes."""
    used = Path("used.txt").read_bytes()
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.read_bytes() != used and "runs" not in path.parts
    )


@pytest.mark.parametrize("number", range(10))
def test_a_byte_that_went_bad_in_the_cache_is_found_before_the_data_is_used(repo: Repo, number: int):
    draw = random.Random(number)
    bad = draw.choice(objects(Path(".dvc/cache/files")))
    good = bad.read_bytes()
    flip_one_byte(bad, draw)
    try:
        checked_out_anew(repo)
    except Exception as error:  # DVC notices a damaged list of files by itself, sometimes
        assert bad.suffix == ".dir", error
        return
    with pytest.raises(ValueError, match=r"\b(made|one\.txt|dvc pull)\b"):
        stages.check_inputs("use")
    assert bad.read_bytes() != good


@pytest.mark.parametrize("number", range(10))
def test_a_byte_that_went_bad_on_the_remote_is_found_before_the_data_is_used(repo: Repo, number: int):
    draw = random.Random(number)
    flip_one_byte(draw.choice(objects(Path("remote/files"))), draw)
    shutil.rmtree(".dvc/cache/files")
    shutil.rmtree("made")
    Path("one.txt").unlink()
    repo.close()
    try:
        Repo().pull()
    except Exception:  # DVC noticed by itself
        return
    with pytest.raises(ValueError, match=r"\b(made|one\.txt|dvc pull)\b"):
        stages.check_inputs("use")


def test_a_file_changed_by_hand_is_named_until_dvc_has_adopted_it(repo: Repo):
    Path("made/3.txt").chmod(0o644)
    Path("made/3.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"made/3\.txt \(1 of 7 files\).*dvc commit"):
        stages.check_inputs("use")
    repo.commit("make", force=True)
    assert stages.check_inputs("use") == 7
