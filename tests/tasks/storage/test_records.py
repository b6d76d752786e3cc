import os
import subprocess
import time
from pathlib import Path

import pytest

from tasks.storage.records import KnownHashes

DAY = 86400


def later() -> float:
    """A clock by which files of a moment ago have not changed for long."""
    return time.time() + 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of 1,000 bytes, and the record in which they are known."""
    work = tmp_path / "work"
    work.mkdir()
    for name in "abc":
        (work / name).write_bytes(name.encode() * 1000)
    known = KnownHashes(work / "record", "sha256", 30, later)
    assert [known.digest(work / name) is not None for name in "abc"] == [True] * 3
    known.save()
    return work


def reads(folder: Path, clock=later, days: float = 30) -> int:
    """Return how many of the three files are read to know their hashes; those must be the true ones."""
    known = KnownHashes(folder / "record", "sha256", days, clock)
    plain = KnownHashes(folder / "no record", "sha256", 30)
    assert [known.digest(folder / name) for name in "abc"] == [plain.digest(folder / name) for name in "abc"]
    known.save()
    return known.bytes_read // 1000


def write(file: Path, content: bytes) -> None:
    """Overwrite a file in place, with its time of change as it was."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_has_not_changed_is_not_read(folder):
    assert reads(folder) == 0


def test_a_change_with_size_and_time_restored_is_read_and_the_others_are_not(folder):
    write(folder / "b", b"x")
    assert reads(folder) == 1
    assert reads(folder) == 0


def test_what_was_hashed_too_long_ago_is_read(folder):
    assert reads(folder, lambda: later() + 29 * DAY) == 0
    assert reads(folder, lambda: later() + 31 * DAY) == 3
    assert reads(folder, days=0) == 3


def test_a_hash_from_the_future_is_not_believed(folder):
    """The clock was set back since."""
    assert reads(folder, time.time) == 3


def test_a_file_that_may_have_changed_within_the_same_tick_of_the_clock_is_read_again(folder):
    def at_their_change() -> float:
        return min((folder / name).stat().st_ctime for name in "abc")

    (folder / "record").unlink()
    write(folder / "a", b"x")
    assert reads(folder, at_their_change) == 3
    assert reads(folder, at_their_change) == 3
    assert reads(folder) == 3
    assert reads(folder) == 0


@pytest.mark.parametrize("place", [0, 20, 90, 150, -3])
def test_a_record_with_one_bit_flipped_is_not_believed(folder, caplog, place):
    content = bytearray((folder / "record").read_bytes())
    content[place] ^= 1
    (folder / "record").write_bytes(content)
    assert reads(folder) == 3
    assert "hashed again" in caplog.text
    assert reads(folder) == 0


def test_a_record_that_was_torn_is_not_believed(folder):
    content = (folder / "record").read_bytes()
    (folder / "record").write_bytes(content[: len(content) // 2])
    assert reads(folder) == 3


def test_a_record_of_other_hashes_is_not_believed(folder):
    known = KnownHashes(folder / "record", "md5", 30, later)
    assert known.digest(folder / "a") == "cabe45dcc9ae5b66ba86600cca6b8ba8"  # md5sum of 1,000 times a
    assert known.bytes_read == 1000


def test_a_copied_workspace_is_read(folder, tmp_path):
    """`cp -a` keeps sizes and times of change, and these are other files."""
    folder.rename(tmp_path / "before")
    subprocess.run(["cp", "-a", tmp_path / "before", folder], check=True)
    assert (folder / "a").stat().st_mtime_ns == (tmp_path / "before" / "a").stat().st_mtime_ns
    assert reads(folder) == 3


def test_a_hash_is_denied_only_after_the_bytes_were_read(folder):
    known = KnownHashes(folder / "record", "sha256", 30, later)
    true = known.digest(folder / "a")
    assert known.bytes_read == 0 and true
    assert known.is_as(folder / "a", true) and known.bytes_read == 0
    assert not known.is_as(folder / "a", "0" * 64) and known.bytes_read == 1000


def test_a_file_that_is_gone_has_no_hash_and_leaves_the_record(folder):
    (folder / "a").unlink()
    known = KnownHashes(folder / "record", "sha256", 30, later)
    assert known.digest(folder / "a") is None and not known.is_as(folder / "a", "0" * 64)
    write(folder / "b", b"x")
    known.digest(folder / "b")
    known.save()
    assert str(folder / "a") not in (folder / "record").read_text()


def test_a_record_may_be_gone(folder):
    (folder / "record").unlink()
    assert reads(folder) == 3
