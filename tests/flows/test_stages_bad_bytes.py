"""A byte that went bad in DVC's cache or on a remote, which DVC itself does not notice."""

import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from dvc.repo import Repo
from safetensors.numpy import save_file

from flows import stages

DAYS = 30


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
    content, before = bytearray(path.read_bytes()), path.stat()
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def checked_out_anew(repo: Repo) -> None:
    shutil.rmtree("made")
    Path("one.txt").unlink()
    repo.checkout(force=True)


def test_what_earlier_stages_made_passes(repo: Repo):
    assert stages.check_inputs("use", DAYS) == 7
    assert stages.check_inputs("make", DAYS) == 0


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
        stages.check_inputs("use", DAYS)
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
        stages.check_inputs("use", DAYS)


def test_a_file_changed_by_hand_is_named_until_dvc_has_adopted_it(repo: Repo):
    Path("made/3.txt").chmod(0o644)
    Path("made/3.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"made/3\.txt \(1 of 7 files\).*dvc commit"):
        stages.check_inputs("use", DAYS)
    repo.commit("make", force=True)
    assert stages.check_inputs("use", DAYS) == 7


def bytes_read() -> int:
    """Return how much this process has read from files, by the system's count."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A DVC repository whose stage `use` takes 20 files of 500 KB; return their bytes. They were checked once."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(
        """
stages:
  make:
    cmd: mkdir made && for i in `seq -w 20`; do head -c 500000 /dev/urandom > made/$i; done
    outs: [made]
  use:
    cmd: touch used
    deps: [made]
    outs: [used]
"""
    )
    with Repo.init(no_scm=True) as opened:
        opened.reproduce()
    time.sleep(0.2)  # a file that changed in the same tick of the clock as it was hashed is hashed again
    before = bytes_read()
    assert stages.check_inputs("use", DAYS) == 20
    assert bytes_read() - before >= 20 * 500_000
    return 20 * 500_000


def test_a_second_check_of_what_has_not_changed_reads_next_to_nothing(large: int):
    before = bytes_read()
    assert stages.check_inputs("use", DAYS) == 20
    assert bytes_read() - before <= 0.01 * large


def test_twenty_flips_with_size_and_time_restored_are_found_after_a_check(large: int):
    draw = random.Random(0)
    for number in range(20, 0, -1):
        flip_one_byte(Path(f"made/{number:02}"), draw)
        with pytest.raises(ValueError, match=rf"made/{number:02} \({21 - number} of 20 files\)"):
            stages.check_inputs("use", DAYS)


def test_zero_days_hash_every_file_again(large: int):
    before = bytes_read()
    assert stages.check_inputs("use", 0) == 20
    assert bytes_read() - before >= large


@pytest.mark.long
def test_a_flip_in_latents_is_named_by_the_check_or_by_the_loader():
    """The real loader, on latents of XL-256."""
    from benchmarks import check

    with check.workspace(20_000_000):
        check.bytes_read_by_a_check()
        assert check.found_in_latents(20, random.Random(3)) == 20


def test_of_latents_of_a_training_the_check_reads_length_and_header_of_each_part(tmp_path, monkeypatch):
    """What else is in a part, the loader hashes sample by sample."""
    monkeypatch.chdir(tmp_path)
    Path("made/latents").mkdir(parents=True)
    for name in ("part-00000", "part-00001", "null_text"):
        save_file({"clips": np.arange(10**6, dtype=np.uint8)}, f"made/latents/{name}.safetensors")
    Path("made/latents/latents.parquet").write_bytes(bytes(1000))
    Path("dvc.yaml").write_text(
        """
stages:
  make: {cmd: mv made data, outs: [data/latents]}
  t2v: {cmd: python -m flows train --latents data/latents --out t2v, deps: [data/latents], outs: [t2v]}
  other: {cmd: python -m flows browse --latents data/latents --out other, deps: [data/latents], outs: [other]}
"""
    )
    with Repo.init(no_scm=True) as opened:
        opened.reproduce("make")
    part, draw, before = Path("data/latents/part-00001.safetensors"), random.Random(4), bytes_read()
    assert stages.check_inputs("t2v", DAYS) == 4
    assert 10**6 < bytes_read() - before < 2 * 10**6  # table and null text
    flip_one_byte(part, draw)
    assert stages.check_inputs("t2v", DAYS) == 4
    with pytest.raises(ValueError, match=rf"{part} \(1 of 4 files\)"):
        stages.check_inputs("other", DAYS)
    for name in ("null_text.safetensors", "latents.parquet"):
        flip_one_byte(part.with_name(name), draw)
        with pytest.raises(ValueError, match=rf"{name} \(\d of 4 files\)"):
            stages.check_inputs("t2v", DAYS)
    part = part.with_name("part-00000.safetensors")
    part.chmod(0o644)
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"\(3 of 4 files\)"):
        stages.check_inputs("t2v", DAYS)
