import fcntl
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.storage.object_cache import Lease, ObjectCache

ROOT = Path(__file__).parents[3]


def content(number: int, size: int = 100) -> bytes:
    return f"{number:04}".encode() * (size // 4)


def name(number: int, size: int = 100) -> str:
    return hashlib.sha256(content(number, size)).hexdigest()


def fetch(cache: ObjectCache, number: int, size: int = 100) -> Lease:
    return cache.fetch(size, lambda path: path.write_bytes(content(number, size)) and None)


def there(cache: ObjectCache) -> set[int]:
    return {number for number in range(50) if (cache.folder / name(number)).exists()}


def bytes_there(cache: ObjectCache) -> int:
    sizes = 0
    for path in cache.folder.iterdir():
        try:
            sizes += 0 if path.name == ".lock" else path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


def test_a_file_is_lent_under_its_hash_and_again_without_fetching(tmp_path):
    cache = ObjectCache(tmp_path / "cache", 1000)
    with fetch(cache, 1) as path:
        assert (path.name, path.read_bytes()) == (name(1), content(1))
    lease = cache.take(name(1))
    assert lease
    with lease as path:
        assert path.read_bytes() == content(1)
    assert cache.take(name(2)) is None


def test_the_least_recently_used_go_first(tmp_path):
    cache = ObjectCache(tmp_path, 1000)
    for number in range(10):
        with fetch(cache, number) as path:
            os.utime(path, (number, number))
    with cache.take(name(0)) as path:  # used now
        assert path.stat().st_mtime > 10
    with fetch(cache, 10):
        assert there(cache) == {0, 3, 4, 5, 6, 7, 8, 9, 10}
    assert bytes_there(cache) <= 1000


def test_what_is_lent_stays_whatever_comes_and_goes_when_it_is_given_back(tmp_path):
    cache = ObjectCache(tmp_path, 250)
    with fetch(cache, 0) as first, cache.take(name(0)) as again:
        for number in range(1, 9):
            with fetch(cache, number):
                assert first.read_bytes() == again.read_bytes() == content(0)
    for number in (8, 9):
        with fetch(cache, number):
            pass
    assert there(cache) == {8, 9}


def test_what_another_process_has_lent_stays_until_that_process_has_ended(tmp_path):
    cache = ObjectCache(tmp_path, 250)
    with fetch(cache, 0):
        pass
    code = (
        "import sys; from pathlib import Path; from tasks.storage.object_cache import ObjectCache\n"
        f"with ObjectCache(Path(sys.argv[1]), 250).take({name(0)!r}):\n    print('lent', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout and other.stdout.readline() == b"lent\n"
        for number in range(1, 5):
            with fetch(cache, number):
                assert 0 in there(cache)
        other.kill()
    with fetch(cache, 5):
        assert 0 not in there(cache)


def test_a_file_larger_than_the_limit_is_lent_and_goes(tmp_path):
    cache = ObjectCache(tmp_path, 250)
    with fetch(cache, 1), fetch(cache, 2, 4000) as path:
        assert path.read_bytes() == content(2, 4000)
        assert there(cache) == {1}
    assert bytes_there(cache) <= 250


def test_a_download_that_fails_leaves_nothing_and_takes_no_room(tmp_path):
    cache = ObjectCache(tmp_path, 1000)

    def broken(path: Path) -> None:
        path.write_bytes(bytes(50))
        raise ConnectionError("cut")

    with fetch(cache, 0):
        pass
    for _ in range(20):
        with pytest.raises(ConnectionError):
            cache.fetch(800, broken)
    assert there(cache) == {0}
    assert bytes_there(cache) == 100


def test_what_a_killed_process_has_left_half_fetched_goes(tmp_path):
    (tmp_path / ".arriving-900-x").write_bytes(bytes(900))
    cache = ObjectCache(tmp_path, 1000)
    for number in range(4):
        with fetch(cache, number):
            pass
    assert not (tmp_path / ".arriving-900-x").exists()
    assert there(cache) == {0, 1, 2, 3}


@pytest.mark.parametrize("noted", [b"", b"x" * 20, b"1" * 20, b"9" * 5])
def test_a_count_that_is_wrong_is_mended_by_looking(tmp_path, noted):
    cache = ObjectCache(tmp_path, 1000)
    for number in range(3):
        with fetch(cache, number):
            pass
    (tmp_path / ".lock").write_bytes(noted)
    for number in range(3, 9):
        with fetch(cache, number):
            pass
    assert there(cache) == set(range(9))
    for number in range(9, 14):
        with fetch(cache, number):
            assert bytes_there(cache) <= 1000


def test_threads_that_fetch_lend_and_give_back_find_every_file_whole_and_the_limit_kept(tmp_path):
    """Objects in use are at most 4 x 100 bytes, so that there is always room within 1,000."""
    cache, most, stop = ObjectCache(tmp_path, 1000), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        with (tmp_path / ".lock").open("a") as lock:
            while not stop.is_set():
                fcntl.flock(lock, fcntl.LOCK_EX)  # no name comes or goes while files are counted
                most = max(most, bytes_there(cache))
                fcntl.flock(lock, fcntl.LOCK_UN)
                time.sleep(0.001)

    def work(seed: int) -> int:
        draw, fetched = random.Random(seed), 0
        for _ in range(60):
            number = draw.randrange(30)
            lease = cache.take(name(number))
            fetched += lease is None
            with lease or fetch(cache, number) as path:
                assert path.read_bytes() == content(number)
                assert path.name == name(number)
        return fetched

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(4) as threads:
            fetched = sum(threads.map(work, range(4)))
    finally:
        stop.set()
        watcher.join()
    assert fetched > 60, "nothing ever went"
    assert 500 < most <= 1000
    assert (tmp_path / ".lock").read_text() == f"{bytes_there(cache):020}"
