"""A process that holds something until it is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def holding(code: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program that prints `in` when it holds what it is about, and waits; killed when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline() == b"in\n"
        yield process
    finally:
        process.kill()
        process.wait()
