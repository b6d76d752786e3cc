"""What a check of a stage's inputs reads, and which bytes that went bad it finds.

    python benchmarks/check.py --bytes 1000000000 --json check.json

Makes a workspace of DVC in which a training takes 20 tables and latents of XL-256, half of the bytes each, and checks
it twice with nothing changed between. Then bytes are flipped, with size and time of change as they were: 20 in tables,
which `check_inputs` must name before the stage starts; and 20 in parts of latents, one by one, which it or the loader
must name before a step uses them. Printed: the bytes that each check reads, by the system's count, and what was found.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dvc.repo import Repo

from benchmarks import loader
from flows import stages
from stiv_model.latents.dataset import LatentData
from stiv_model.settings import NULL_TEXT

DAYS, TABLES, FLIPS = 30, 20, 20
STAGES = """
stages:
  make:
    cmd: mv made data
    outs: [data/tables, data/latents]
  t2v:
    cmd: python -m flows train --latents data/latents --out checkpoints/t2v
    deps: [data/tables, data/latents]
    outs: [checkpoints/t2v]
"""


@contextlib.contextmanager
def workspace(size_bytes: int, shapes: loader.Shapes = loader.LARGE) -> Iterator[int]:
    """Work in a workspace of DVC whose stage t2v takes about so many bytes; give how many they are."""
    before, draw = Path.cwd(), random.Random(0)
    with tempfile.TemporaryDirectory(prefix="stiv-check-") as folder:
        os.chdir(folder)
        try:
            Path("dvc.yaml").write_text(STAGES)
            tables = Path("made/tables")
            tables.mkdir(parents=True)
            for number in range(TABLES):
                (tables / f"{number:02}.parquet").write_bytes(draw.randbytes(size_bytes // 2 // TABLES))
            of_one = sum(dtype.itemsize * math.prod(shape) for dtype, shape in shapes.parts.values())
            loader.make(Path("made"), max(FLIPS, size_bytes // 2 // of_one), shapes)
            shutil.rmtree("made/tar")
            Path("made/shards").rename("made/latents")
            with Repo.init(no_scm=True) as repo:
                repo.reproduce("make")
            time.sleep(0.2)  # what has changed within the same tick of the clock is hashed again
            yield sum(path.stat().st_size for path in Path("data").rglob("*") if path.is_file())
        finally:
            os.chdir(before)


def bytes_read_by_a_check() -> int:
    """Check the inputs of stage t2v; return how much this process has read from files meanwhile."""
    before = _read()
    stages.check_inputs("t2v", DAYS)
    return _read() - before


def _read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@contextlib.contextmanager
def flipped(path: Path, draw: random.Random) -> Iterator[None]:
    """Flip a bit of a file, with size and time of change as they were, for as long as the context is open."""
    place, bit = draw.randrange(path.stat().st_size), 1 << draw.randrange(8)
    _flip(path, place, bit)
    try:
        yield
    finally:
        _flip(path, place, bit)


def _flip(path: Path, place: int, bit: int) -> None:
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.chmod(before.st_mode)


def found_in_tables(flips: int, draw: random.Random) -> int:
    """Flip a bit in each of so many tables; return in how many cases the check named the table."""
    found = 0
    for path in sorted(Path("data/tables").iterdir())[:flips]:
        with flipped(path, draw):
            try:
                stages.check_inputs("t2v", DAYS)
            except ValueError as error:
                found += path.name in str(error)
    return found


def found_in_latents(flips: int, draw: random.Random) -> int:
    """Flip bits in parts of latents, one by one; return how many were named before a step had the sample.

    A bit between two tensors is of no sample, and another is flipped for it.
    """
    parts = sorted(path for path in Path("data/latents").glob("*.safetensors") if path.name != NULL_TEXT)
    good, done, found = _samples(), 0, 0
    while done < flips:
        path = draw.choice(parts)
        with flipped(path, draw):
            try:
                stages.check_inputs("t2v", DAYS)
                done += _samples() != good
            except ValueError as error:
                found += path.name in str(error)
                done += 1
    return found


def _samples() -> str:
    """Return one hash of what a training is given: latents and text features of all samples."""
    data, digest = LatentData(Path("data/latents"), loader.EVERY_CLIP), hashlib.sha256()
    for index in range(len(data.samples)):
        batch = data.batch([index])
        for x in (batch.latents_BFCHW, *batch.text):
            digest.update(x.numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    draw = random.Random(1)
    with workspace(options.bytes) as size_bytes:
        first, second = bytes_read_by_a_check(), bytes_read_by_a_check()
        figures = {
            "bytes": size_bytes,
            "first_check_read": first / size_bytes,
            "second_check_read": second / size_bytes,
            "found_in_tables": found_in_tables(FLIPS, draw),
            "found_in_latents": found_in_latents(FLIPS, draw),
        }
    print(f"{size_bytes / 1e9:.2f} GB: the first check reads {first / size_bytes:.3f} of it, the second "
          f"{second / size_bytes:.5f} (at most 0.01)")  # fmt: skip
    tables, latents = figures["found_in_tables"], figures["found_in_latents"]
    print(f"found {tables}/{FLIPS} flips in tables, {latents}/{FLIPS} in latents")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
