"""Clips of a folder of videos, for a figure of all of them: arrays as they are, files through the sandbox."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.evaluation.suites import Unusable, load_array
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings

ARRAY = ".npy"


class ClipRule(NamedTuple):
    """Which clips are taken of a video."""

    frames: int | None
    """Of a clip; None: all of a video make one clip."""
    stride: int
    """Distance of a clip's frames in its video."""
    clips: int
    """Of a video, at most, one after the other from its first frame on."""
    size: tuple[int, int] | None
    """Height and width that files are scaled to cover, and cut out at their centre; None: their own."""


class FoundVideo(NamedTuple):
    """What became of a video."""

    id: str
    status: str
    reason: str | None
    clips: list[np.ndarray]
    """Each uint8 RGB (T, H, W, 3)."""
    facts: dict[str, Any]
    """fps, codec and crf; None where nobody knows."""


class VideoFolder:
    """The videos of a folder, in the order of their names."""

    def __init__(self, paths: list[Path], folder: Path, rule: ClipRule, sandbox: Sandbox | None) -> None:
        self.pixels = "arrays" if sandbox is None else "file"
        self._paths, self._folder, self._rule, self._sandbox = paths, folder, rule, sandbox

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[FoundVideo]:
        for path in self._paths:
            name = str(path.relative_to(self._folder))
            if self._sandbox is None:
                yield _of_array(path, name, self._rule)
            else:
                yield _of_file(path, name, self._rule, self._sandbox)


@contextmanager
def opened(
    folder: Path, extensions: tuple[str, ...], rule: ClipRule, settings: SandboxSettings
) -> Iterator[VideoFolder]:
    """Give the videos of a folder and of those in it.

    Args:
        extensions: endings of files that are opened, in lower case.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no video; arrays and files; or arrays, which are not resized, and a size is asked for.
        OSError: the sandbox cannot be started.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: name one that holds videos")
    endings = (ARRAY, *extensions)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in endings)
    if not paths:
        raise ValueError(f"{folder} holds no video: it takes {', '.join(endings)}")
    arrays = [path for path in paths if path.suffix.lower() == ARRAY]
    if arrays and len(arrays) < len(paths):
        raise ValueError(
            f"{folder} holds {len(arrays)} arrays and {len(paths) - len(arrays)} compressed files, of which one figure "
            "would measure the compression too: put them into two folders"
        )
    if arrays and rule.size is not None:
        raise ValueError(f"{folder} holds arrays, which are taken as they are: leave --height and --width out")
    with ExitStack() as stack:
        sandbox = None if arrays else stack.enter_context(Sandbox(settings))
        yield VideoFolder(paths, folder, rule, sandbox)


def _of_array(path: Path, name: str, rule: ClipRule) -> FoundVideo:
    facts = {"fps": None, "codec": None, "crf": None}
    try:
        video = load_array(path)
    except Unusable as verdict:
        return FoundVideo(name, verdict.status, verdict.reason, [], facts)
    taken = [video[frames] for frames in _places(len(video), rule)]
    if not taken:
        return FoundVideo(name, "failed", "too_few_frames", [], facts)
    return FoundVideo(name, "ok", None, taken, facts)


def _of_file(path: Path, name: str, rule: ClipRule, sandbox: Sandbox) -> FoundVideo:
    facts: dict[str, Any] = {"fps": None, "codec": None, "crf": None}
    file = {"path": str(path)}
    probed = sandbox.call("probe", file)
    if probed["status"] != "ok":
        return FoundVideo(name, probed["status"], probed["reason"], [], facts)
    facts |= {"fps": round(probed["fps"], 4), "codec": probed["codec"]}
    file |= {"repairs": probed["repairs"]}
    timed = sandbox.call("frame_times", file | {"claimed_frames": probed["frames"]})
    if timed["status"] != "ok":
        return FoundVideo(name, timed["status"], timed["reason"], [], facts)
    times = timed["times"]
    if probed["codec"] == "h264":  # libx264's rate factor, where the file says it
        small = {"frames": probed["frames"], "height": 2, "width": 2}  # the frames themselves are not needed
        told = sandbox.call("whole_video", file | small)
        if told["status"] != "ok":
            return FoundVideo(name, told["status"], told["reason"], [], facts)
        facts["crf"] = told["crf"]
    height, width = rule.size or (probed["height"], probed["width"])
    taken = []
    for frames in _places(len(times), rule):
        asked = {"frames": len(range(*frames.indices(len(times)))), "stride_frames": rule.stride}
        asked |= {"height": height, "width": width, "start_pts": int(times[frames.start])}
        found = sandbox.call("clip_frames", file | asked | {"end_pts": int(times[frames.stop - 1]) + 1})
        if found["status"] != "ok":
            return FoundVideo(name, found["status"], found["reason"], [], facts)
        taken.append(found["frames"])
    if not taken:
        return FoundVideo(name, "failed", "too_few_frames", [], facts)
    return FoundVideo(name, "ok", None, taken, facts)


def _places(there: int, rule: ClipRule) -> list[slice]:
    """Return where the clips of a video are among its frames."""
    if rule.frames is None:
        return [slice(0, there, rule.stride)]
    span = (rule.frames - 1) * rule.stride + 1
    starts = range(0, there - span + 1, span)
    return [slice(start, start + span, rule.stride) for start in starts[: rule.clips]]
