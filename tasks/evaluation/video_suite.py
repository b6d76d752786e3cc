"""The suite `videos`: a folder of videos of which nothing is known but, perhaps, a text beside each.

A file of a video is a stranger's: it is opened in the sandbox only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tasks.evaluation.card import Model, Suite
from tasks.evaluation.metrics import Evaluated
from tasks.evaluation.suites import Entry, Loaded, SuiteRun, Unusable, hash_of, load_array, stamp_of
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings

ARRAY = ".npy"
FILES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
"""Endings of what is opened, in lower case."""
_MAX_TEXT_BYTES = 10_000


@contextmanager
def opened_videos(folder: Path, settings: SandboxSettings) -> Iterator[SuiteRun]:
    """Give the suite of a folder of videos, in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no video, or an array and a file.
        OSError: the sandbox cannot be started.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--videos {folder} is no folder: name the one that holds the videos")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (ARRAY, *FILES))
    if not paths:
        raise ValueError(f"--videos {folder} holds no video: it takes {', '.join((*FILES, ARRAY))}")
    files = [path for path in paths if path.suffix.lower() != ARRAY]
    if files and len(files) < len(paths):
        raise ValueError(
            f"--videos {folder} holds arrays ({ARRAY}) and compressed files ({files[0].name}), whose figures do not "
            "compare: put them into two folders"
        )
    prompts = {path: _text(path) for path in paths}
    if not files:
        yield _suite(folder, prompts, None)
        return
    with Sandbox(settings) as sandbox:
        yield _suite(folder, prompts, sandbox)


def _suite(folder: Path, prompts: dict[Path, str | None], sandbox: Sandbox | None) -> SuiteRun:
    entries = [
        Entry(
            str(path.relative_to(folder)),
            "",
            {"prompt": prompt},
            partial(stamp_of, path),
            partial(_load, path, str(path.relative_to(folder)), prompt, sandbox),
        )
        for path, prompt in prompts.items()
    ]
    return SuiteRun(Suite(name="videos", sha256=hash_of([entry.asked for entry in entries])), Model(), entries)


def _text(path: Path) -> str | None:
    """Return the text beside a video, if it is one."""
    text = path.with_suffix(".txt")
    if not text.is_file() or text.stat().st_size > _MAX_TEXT_BYTES:
        return None
    return text.read_text(encoding="utf-8", errors="replace").strip() or None


def _load(path: Path, name: str, prompt: str | None, sandbox: Sandbox | None) -> Loaded:
    if sandbox is None:
        facts = {"fps": None, "pixels": "arrays", "codec": None, "crf": None}
        return Loaded(Evaluated(name, load_array(path), prompt=prompt), facts)
    told = _ask(sandbox, "probe", {"path": str(path)})
    asked = {"path": str(path)} | {key: told[key] for key in ("repairs", "frames", "height", "width")}
    found = _ask(sandbox, "whole_video", asked)
    facts = {"fps": round(told["fps"], 4), "pixels": "file", "codec": told["codec"], "crf": found["crf"]}
    return Loaded(Evaluated(name, found["frames"], prompt=prompt), facts)


def _ask(sandbox: Sandbox, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a function of the sandbox says of a video.

    Raises:
        Unusable: it cannot be read.
    """
    answer = sandbox.call(function, arguments)
    if answer["status"] != "ok":
        raise Unusable(answer["status"], answer["reason"])
    return answer
