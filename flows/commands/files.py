"""`stiv probe FILE...` and `stiv shots FILE...`: what the data engine makes of single files, in the sandbox."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings
from tasks.storage import atomic
from tasks.videos import shot_rules, video_rules
from tasks.videos.settings import ShotSettings, VideoSettings


def probe(*files: str, videos: VideoSettings, sandbox: SandboxSettings) -> None:
    """Say what files are, and whether the pipeline would use them: a line of JSON per file.

    A line has status, reason, codec, width, height, fps, seconds, frames and repairs. Status and reason are those
    that stage videos would find; captions, and copies of a file, only the stage itself looks at. Exit code 1 when
    no file would be used. With --source this verb does the work of stage videos instead, as dvc.yaml calls it:
    stiv probe --source data/raw --out data/videos --report reports/videos.json

    Args:
        files: Video files on this machine.

    examples:
      stiv probe film.mp4
      stiv probe downloads/*.webm
    """
    with Sandbox(sandbox) as opened:
        _say(judged(_named(files), videos, opened))


def shots(*files: str, shots: ShotSettings, sandbox: SandboxSettings) -> None:
    """Cut files into shots: a line of JSON per shot; a file that cannot be cut has one line that says why.

    A line has start and end of the shot in seconds and in frames (the end is where the next shot begins), the
    transition that begins it (start, cut, fade, dissolve, split), status, reason, and the scores of the decoding pass.
    Lines rejected as `transition` are the frames between two shots. Exit code 1 when no file could be cut.

    Args:
        files: Video files on this machine.

    examples:
      stiv shots film.mp4
      stiv shots film.mp4 > film.jsonl
    """
    named, rules = _named(files), shot_rules.rules_of(shots)
    with Sandbox(sandbox) as opened:
        _say(cut(named, rules, opened))


def judged(files: Sequence[Path], videos: VideoSettings, sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """Give the dicts of `probed`, rejected where the stage videos would reject the file."""
    for file, known in zip(files, probed(files, sandbox), strict=True):
        reason = None
        if known["reason"] not in ("not_found", "not_a_file"):
            reason = video_rules.refused_name(file.name, videos)
        if known["status"] == "ok" and not reason:
            is_forgotten = bool(videos.forgotten) and atomic.sha256_file(file) in videos.forgotten
            outside = video_rules.refused_video(known, videos)
            reason = "forgotten" if is_forgotten else outside
        yield known | ({"status": "rejected", "reason": reason} if reason else {})


def probed(files: Sequence[Path], sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """Give one dict per file: its name, and what the sandboxed `probe.probe` says."""
    for file, found in zip(files, sandbox.map("probe", [{"path": str(file)} for file in files]), strict=True):
        yield {"file": str(file), **found}


def cut(files: Sequence[Path], rules: dict[str, Any], sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """Give one dict per shot, or one for a file that has none.

    Args:
        rules: of `shot_rules.rules_of`.
    """
    for known in probed(files, sandbox):
        found = known
        if known["status"] == "ok":
            asked = {"path": known["file"], "fps": known["fps"], "repairs": known["repairs"], **rules}
            found = sandbox.call("split", asked | {"claimed_frames": known["frames"]})
        if found["status"] != "ok":
            yield {"file": known["file"], "status": found["status"], "reason": found["reason"]}
            continue
        first = 0
        for shot in found["shots"]:
            last = first + shot["frames"]
            rest = {name: value for name, value in shot.items() if name not in ("stills", "frames", "start", "end")}
            times = {"start": shot["start"], "end": shot["end"], "start_frame": first, "end_frame": last}
            yield {"file": known["file"], **times, **rest}
            first = last


def _named(files: Sequence[str]) -> list[Path]:
    if not files:
        raise ValueError("no file is named: give one or more")
    if remote := next((file for file in files if "://" in file), None):
        raise ValueError(f"{remote} is no file on this machine: fetch it, or set `source` in params.yaml to its bucket")
    return [Path(file) for file in files]


def _say(lines: Iterator[dict[str, Any]]) -> None:
    was_any_read = False
    for line in lines:
        was_any_read |= line["status"] == "ok" or "transition" in line  # a shot may be rejected
        print(json.dumps(line), flush=True)
    if not was_any_read:
        sys.exit(1)
