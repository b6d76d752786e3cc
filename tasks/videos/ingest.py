"""Take in what other tools wrote: WebDataset tars, and the clips of cosmos-curate and NeMo Curator.

The outcome is a folder of video files with `list.jsonl`, a source as `tasks/videos/source_lists.py` reads it, and an
account with a row for every sample found.
"""

import bz2
import errno
import gzip
import json
import logging
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Self

from stiv_model.errors.redaction import redact
from tasks.storage import atomic, tables

log = logging.getLogger(__name__)

LIST, ACCOUNT, VIDEOS = "list.jsonl", "account.json", "videos"
_MAX_TEXT_BYTES = 1 << 20
_REPEATED = "repeated_member"
_PROBLEMS = (_REPEATED, "too_many_bytes", "text_too_long")  # of a member, which cost its sample
_TEXT_KEYS = {  # column of the list: what it is called in JSON beside a video, the first found counts
    "caption": ("caption", "text"),
    "licence": ("licence", "license"),
    "source_url": ("source_url", "url"),
}
_PACKERS: dict[bytes, Callable[[Path, str], Any]] = {  # by the first bytes of the file
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}

Row = dict[str, str | None]


class _Entry(tarfile.TarInfo):
    """A member's header, read strictly: tarfile takes a missing, cut or spoilt one for the end of the tar."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros; two of them end a tar
            assert tarfile_.fileobj is not None, "it is being read"
            if tarfile_.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end marker, only half of it") from None
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} where a member or the end marker should be") from None


class Found(NamedTuple):
    """One sample of a foreign collection: its name, what became of it, and its row of the list if ok."""

    name: str
    status: str
    reason: str | None
    row: Row | None


def from_tars(tars: list[Path], product: Path, extensions: list[str], max_size_bytes: int) -> Iterator[Found]:
    """Unpack the videos of WebDataset tars, each with the text and JSON of the same key.

    Members of a sample share the path up to the first dot of the file name, as WebDataset has it, wherever they
    stand. Where two have the same name, none of the sample is used. Only regular members are read, and files are
    named by number: nothing of a member's name reaches the file system. A tar that breaks off, or lacks its end
    marker, gives the samples before its last and a failed row.

    Raises:
        OSError: there is no space to unpack them.
    """
    for number, tar in enumerate(tars):
        folder = product / VIDEOS / f"{number:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        samples: dict[str, _Members] = {}
        copies: list[str] = []
        problem: Exception | None = None
        try:
            with _unpacked(tar) as content, tarfile.open(fileobj=content, mode="r|", tarinfo=_Entry) as opened:
                _gather(opened, samples, copies, folder, extensions, max_size_bytes)
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # not the tar is at fault
                raise
            problem = error
            if samples:
                samples.popitem()  # what it broke off in
        for count, (key, members) in enumerate(samples.items()):
            yield _sample(f"{tar}/{key}", members, product, folder / f"{count:08d}")
        for key in copies:
            yield Found(f"{tar}/{key} (another)", "rejected", _REPEATED, None)
        if problem:
            log.warning("%s breaks off after %d samples: %s", tar, len(samples), problem)
            yield Found(str(tar), "failed", "tar_broken", None)
        for tmp_path in folder.glob(".member*"):
            tmp_path.unlink()


def _unpacked(tar: Path) -> IO[bytes]:
    """Open what is in the compressed file, whatever its name, or the file: tarfile's own streams end too early."""
    with tar.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _PACKERS.items() if start.startswith(magic)), open)
    return opener(tar, "rb")


_Members = dict[str, Path | bytes | str]


def _gather(
    opened: tarfile.TarFile,
    samples: dict[str, _Members],
    copies: list[str],
    folder: Path,
    extensions: list[str],
    max_size_bytes: int,
) -> None:
    """Fill in each key's members by extension: videos as temporary files, texts as bytes, problems as words.

    Args:
        samples: takes them; the key that was met last stands last.
        copies: takes the key of every member that another of the same name went before.
    """
    for number, member in enumerate(opened):
        if not member.isfile():
            continue
        path = PurePosixPath(member.name)
        stem, _, extension = path.name.partition(".")
        key, extension = str(path.parent / stem), f".{extension.lower()}"
        members = samples[key] = samples.pop(key, {})
        if extension in members:  # which of them belongs to what else has this key, nobody can say
            members[extension] = _REPEATED
            copies.append(key)
            continue
        content = opened.extractfile(member)
        assert content is not None, f"{member.name} is a file"
        tmp_path = folder / f".member{number}"
        members[extension] = _member(content, member.size, extension, tmp_path, extensions, max_size_bytes)


def _member(
    content: IO[bytes], size_bytes: int, extension: str, tmp_path: Path, extensions: list[str], max_size_bytes: int
) -> Path | bytes | str:
    if _suffix(extension) in extensions:
        if size_bytes > max_size_bytes:
            return "too_many_bytes"
        with tmp_path.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        if tmp_path.stat().st_size != size_bytes:
            raise EOFError(f"{size_bytes} bytes expected, {tmp_path.stat().st_size} found")
        return tmp_path
    if extension in (".txt", ".json"):
        return content.read() if size_bytes <= _MAX_TEXT_BYTES else "text_too_long"
    return "other_member"


def _sample(name: str, members: _Members, product: Path, target: Path) -> Found:
    videos = {extension: value for extension, value in members.items() if isinstance(value, Path)}
    problem = next((value for value in members.values() if value in _PROBLEMS), None)
    if problem or len(videos) != 1:
        for tmp_path in videos.values():
            tmp_path.unlink()
        return Found(name, "rejected", str(problem or ("no_video" if not videos else "several_videos")), None)
    [(extension, tmp_path)] = videos.items()
    path = target.with_suffix(_suffix(extension))
    try:
        row = _texts(_said(members))
        reason = None if _are_texts(row) else "not_text"
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or nested without end
        reason = "text_unreadable"
    if reason:
        tmp_path.unlink()
        return Found(name, "failed", reason, None)
    with tmp_path.open("rb") as file:
        os.fsync(file.fileno())
    tmp_path.replace(path)
    return Found(name, "ok", None, {"uri": str(path.relative_to(product)), **row})


def _suffix(extension: str) -> str:
    """Return `.mp4` of `.left.mp4`."""
    return f".{extension.rpartition('.')[2]}"


def _said(members: _Members) -> dict[str, Any]:
    """Return what the sample's JSON says; a text beside it is the caption."""
    texts, text = members.get(".json"), members.get(".txt")
    said = json.loads(texts) if isinstance(texts, bytes) else {}
    caption = text.decode("utf-8-sig") if isinstance(text, bytes) else ""
    return (said if isinstance(said, dict) else {}) | ({"caption": caption} if caption else {})


def _texts(said: dict[str, Any]) -> Row:
    """Return the columns of the list, which need not be texts yet: see `_are_texts`."""
    found = {
        column: next((said[name] for name in names if said.get(name) not in (None, "")), None)
        for column, names in _TEXT_KEYS.items()
    }
    if isinstance(url := found["source_url"], str):
        found["source_url"] = redact(url)  # handed on with the clip
    return found


def _are_texts(row: Row) -> bool:
    """Say whether tables can hold what was said: texts only, and no half of a surrogate pair, which UTF-8 has not."""
    given = [value for value in row.values() if value is not None]
    return all(isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value for value in given)


def from_curator(folders: list[Path], product: Path, first: int) -> Iterator[Found]:
    """Link the clips that `ClipWriterStage` of cosmos-curate or NeMo Curator wrote, with their captions.

    Per clip there is `metas/v0/UUID.json` (`span_uuid`, `source_video`, `duration_span`, `clip_location`, `windows`
    with one caption per model, `valid`); the video is below `clips/`. Of several captions of the first window the
    enhanced one counts, else the first by name. A clip is linked (copied where the file system has no links); one in
    a bucket stays there.

    Args:
        first: number of the first folder: two folders may have clips of the same name.
    """
    in_buckets = set[str]()
    for number, folder in enumerate(folders, first):
        videos = product / VIDEOS / f"{number:05d}"
        videos.mkdir(parents=True, exist_ok=True)
        for meta in sorted((folder / "metas" / "v0").glob("*.json")):
            state, reason, row = _clip(meta, folder, videos, product, in_buckets)
            yield Found(f"{folder}/{meta.name}", state, reason, row)


def _clip(
    meta: Path, folder: Path, videos: Path, product: Path, in_buckets: set[str]
) -> tuple[str, str | None, Row | None]:
    try:
        said = json.loads(meta.read_bytes())
        location, windows = str(said["clip_location"]), said.get("windows", [])
        caption = _window_caption(windows[0]) if windows else None
        licences = {name: said.get(name) for name in _TEXT_KEYS["licence"]}
        row = _texts({"caption": caption, "source_url": said.get("source_video"), **licences})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "failed", "meta_unreadable", None
    if not said.get("valid", True):
        return "rejected", "not_valid", None
    if not _are_texts(row):
        return "failed", "not_text", None
    if location.startswith("s3://"):
        if location in in_buckets:
            return "rejected", "listed_twice", None
        in_buckets.add(location)
        return "ok", None, {"uri": location, **row}
    clip = _below(folder, location)
    if clip is None:
        return "failed", "not_found", None
    target = videos / f"{meta.stem}{clip.suffix}"
    atomic.link(clip, target)
    return "ok", None, {"uri": str(target.relative_to(product)), **row}


def _below(folder: Path, location: str) -> Path | None:
    """Find a clip by the end of the path that it had where it was written, from `clips` on."""
    parts = PurePosixPath(location).parts
    start = max((place for place, part in enumerate(parts) if part == "clips"), default=None)
    if start is None:
        return None
    path = folder.joinpath(*parts[start:]).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _window_caption(window: dict[str, Any]) -> Any:
    captions = {name: text for name, text in sorted(window.items()) if name.endswith("_caption") and text}
    enhanced = (text for name, text in captions.items() if name.endswith("_enhanced_caption"))
    return next(enhanced, None) or next(iter(captions.values()), None)


def write_list(product: Path, found: list[Found], report: Path) -> tables.Account:
    """Write the list and the account of what was found.

    Raises:
        ValueError: nothing was found, or nothing of it is usable.
    """
    if not found:
        raise ValueError("no sample was found: name tars with files in them, or folders with metas/v0/*.json")
    rows = [{"name": one.name, "status": one.status, "reason": one.reason} for one in found]
    account = tables.reconcile("samples", (one.name for one in found), rows, "name")
    tables.check_failures(account, 1.0, "ingest", rows, "name")
    with atomic.atomic_write(product / LIST) as tmp_path:
        tmp_path.write_text("".join(json.dumps(one.row) + "\n" for one in found if one.row))
    tables.write_report(report, account, not_used=[row for row in rows if row["status"] != "ok"])
    return account
