"""Take in what other tools wrote: WebDataset tars, and the clips of cosmos-curate and NeMo Curator.

The outcome is a folder of video files with `list.jsonl`, a source as `tasks/source_lists.py` reads it, and an account
with a row for every sample found.
"""

import json
import logging
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tasks import manifest, resume

log = logging.getLogger(__name__)

LIST, VIDEOS = "list.jsonl", "videos"
_MAX_TEXT_BYTES = 1 << 20
_TEXT_KEYS = {  # column of the list: what it is called in JSON beside a video, the first found counts
    "caption": ("caption", "text"),
    "licence": ("licence", "license"),
    "source_url": ("source_url", "url"),
}


Row = dict[str, str | None]


class Found(NamedTuple):
    """One sample of a foreign collection: its name, what became of it, and its row of the list if ok."""

    name: str
    status: str
    reason: str | None
    row: Row | None


def from_tars(tars: list[Path], product: Path, extensions: list[str], max_size_bytes: int) -> Iterator[Found]:
    """Unpack the videos of WebDataset tars, each with the text and JSON of the same key.

    Members of a sample stand together and share the path up to the first dot of the file name, as WebDataset
    has it. Only regular members are read, and files are named by number: nothing of a member's name reaches the
    file system. A tar that breaks off gives its whole samples and a failed row.
    """
    for number, tar in enumerate(tars):
        folder = product / VIDEOS / f"{number:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        try:
            with tarfile.open(tar, "r|*") as opened:
                for key, members in _samples(opened, folder, extensions, max_size_bytes):
                    yield _sample(f"{tar}/{key}", members, product, folder / f"{count:08d}")
                    count += 1
        except (tarfile.TarError, EOFError, OSError) as error:
            log.warning("%s breaks off after %d samples: %s", tar, count, error)
            yield Found(str(tar), "failed", "tar_broken", None)
        for aside in folder.glob(".member*"):
            aside.unlink()


_Members = dict[str, Path | bytes | str]


def _samples(
    opened: tarfile.TarFile, folder: Path, extensions: list[str], max_size_bytes: int
) -> Iterator[tuple[str, _Members]]:
    """Give each key with its members by extension: videos as files aside, texts as bytes, problems as words."""
    key, members = "", _Members()
    for member in opened:
        if not member.isfile():
            continue
        path = PurePosixPath(member.name)
        stem, _, extension = path.name.partition(".")
        name = str(path.parent / stem)
        if name != key and members:
            yield key, members
            members = {}
        key, extension = name, f".{extension.lower()}"
        content = opened.extractfile(member)
        assert content is not None, f"{member.name} is a file"
        members[extension] = _member(content, member.size, extension, folder, extensions, max_size_bytes)
    if members:
        yield key, members


def _member(
    content: IO[bytes], size_bytes: int, extension: str, folder: Path, extensions: list[str], max_size_bytes: int
) -> Path | bytes | str:
    if _suffix(extension) in extensions:
        if size_bytes > max_size_bytes:
            return "too_many_bytes"
        aside = folder / f".member{extension}"
        with aside.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        if aside.stat().st_size != size_bytes:
            raise EOFError(f"{size_bytes} bytes expected, {aside.stat().st_size} found")
        return aside
    if extension in (".txt", ".json"):
        return content.read() if size_bytes <= _MAX_TEXT_BYTES else "text_too_long"
    return "other_member"


def _sample(name: str, members: _Members, product: Path, target: Path) -> Found:
    videos = {extension: value for extension, value in members.items() if isinstance(value, Path)}
    problem = next((value for value in members.values() if value in ("too_many_bytes", "text_too_long")), None)
    if problem or len(videos) != 1:
        for aside in videos.values():
            aside.unlink()
        return Found(name, "rejected", str(problem or ("no_video" if not videos else "several_videos")), None)
    [(extension, aside)] = videos.items()
    path = target.with_suffix(_suffix(extension))
    texts, text = members.get(".json"), members.get(".txt")
    try:
        said = json.loads(texts) if isinstance(texts, bytes) else {}
        row = _texts(said if isinstance(said, dict) else {})
        if isinstance(text, bytes):
            row["caption"] = text.decode("utf-8-sig")
    except ValueError:  # no JSON, or no UTF-8
        aside.unlink()
        return Found(name, "failed", "text_unreadable", None)
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)
    return Found(name, "ok", None, {"uri": str(path.relative_to(product)), **row})


def _suffix(extension: str) -> str:
    """Return `.mp4` of `.left.mp4`."""
    return f".{extension.rpartition('.')[2]}"


def _texts(said: dict[str, Any]) -> Row:
    found: Row = {}
    for column, names in _TEXT_KEYS.items():
        values = (said[name] for name in names if isinstance(said.get(name), str))
        found[column] = next(values, None)
    return found


def from_curator(folder: Path, product: Path) -> Iterator[Found]:
    """Link the clips that `ClipWriterStage` of cosmos-curate or NeMo Curator wrote, with their captions.

    Per clip there is `metas/v0/UUID.json` (`span_uuid`, `source_video`, `duration_span`, `clip_location`, `windows`
    with one caption per model, `valid`); the video is below `clips/`. Of several captions of the first window the
    enhanced one counts, else the first by name. A clip is linked (copied where the file system has no links); one in
    a bucket stays there.
    """
    (product / VIDEOS).mkdir(parents=True, exist_ok=True)
    for meta in sorted((folder / "metas" / "v0").glob("*.json")):
        try:
            said = json.loads(meta.read_text())
            location, windows = str(said["clip_location"]), said.get("windows", [])
            caption = _window_caption(windows[0]) if windows else None
        except (ValueError, KeyError, TypeError, AttributeError):
            yield Found(meta.name, "failed", "meta_unreadable", None)
            continue
        if not said.get("valid", True):
            yield Found(meta.name, "rejected", "not_valid", None)
            continue
        row: Row = {"caption": caption, "licence": None, "source_url": str(said.get("source_video") or "") or None}
        if location.startswith("s3://"):
            yield Found(meta.name, "ok", None, {"uri": location, **row})
            continue
        clip = _below(folder, location)
        if clip is None:
            yield Found(meta.name, "failed", "not_found", None)
            continue
        target = product / VIDEOS / f"{meta.stem}{clip.suffix}"
        target.unlink(missing_ok=True)
        resume.link(clip, target)
        yield Found(meta.name, "ok", None, {"uri": str(target.relative_to(product)), **row})


def _below(folder: Path, location: str) -> Path | None:
    """Find a clip by the end of the path that it had where it was written, from `clips` on."""
    parts = PurePosixPath(location).parts
    start = max((place for place, part in enumerate(parts) if part == "clips"), default=None)
    if start is None:
        return None
    path = folder.joinpath(*parts[start:]).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _window_caption(window: dict[str, Any]) -> str | None:
    captions = {name: text for name, text in sorted(window.items()) if name.endswith("_caption") and text}
    enhanced = (text for name, text in captions.items() if name.endswith("_enhanced_caption"))
    return next(enhanced, None) or next(iter(captions.values()), None)


def settle(product: Path, found: list[Found], report: Path) -> manifest.Account:
    """Write the list and the account of what was found.

    Raises:
        ValueError: nothing of it is usable.
    """
    rows = [{"name": one.name, "status": one.status, "reason": one.reason} for one in found]
    account = manifest.settle("samples", (one.name for one in found), rows, "name")
    manifest.check_failures(account, 1.0, "ingest")
    with resume.whole(product / LIST) as aside:
        aside.write_text("".join(json.dumps(one.row) + "\n" for one in found if one.row))
    manifest.write_report(report, account, not_used=[row for row in rows if row["status"] != "ok"])
    return account
