"""Which code makes a stage's output: what dvc.yaml lists, hashed."""

import hashlib
from functools import cache
from pathlib import Path

import yaml


@cache
def code_of(stage: str) -> str:
    """Return one hash of the modules that decide about the bytes of a stage's output.

    Rows that other code made are not mixed with new ones: neither those of an attempt that was killed, nor those that
    are taken over from an earlier run.
    """
    root = Path(__file__).parents[2]
    deps = yaml.safe_load((root / "dvc.yaml").read_text())["stages"][stage]["deps"]
    modules = sorted(dep for dep in deps if isinstance(dep, str) and dep.endswith(".py"))
    digest = hashlib.sha256()
    for module in modules:
        digest.update(f"{module}\0".encode() + (root / module).read_bytes() + b"\0")
    return digest.hexdigest()
