"""What dvc.yaml says: its stages in order, and how to bring one up to date. The only code that knows DVC."""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import networkx
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.lock import make_lock
from dvc.output import Output
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK
from dvc.scm import SCMError
from dvc.stage import PipelineStage
from safetensors import SafetensorError, safe_open

from flows.running import stage_names
from flows.running.code_hash import OPTIONAL, file_hashes, is_code
from stiv_model import fork_server
from stiv_model.settings import NULL_TEXT
from tasks.operations import processes
from tasks.storage import atomic
from tasks.storage.records import KnownHashes

CODE = Path(".cache/code")
"""A file per stage: the hashes of every file of its code when it was last up to date."""

_TAKEN_UP = "views/dvc.yaml"
"""Where DVC finds the optional stages once one of them was asked for."""

CHECKED = Path(".cache/checked.json")
"""What is known of the files that stages took: `tasks/storage/records.py`."""

TIMES = Path(".cache/times.json")
"""Seconds that each stage took when the pipeline last ran it."""

_SKIPPED = "didn't change, skipping"
_HASHED_AT_ONCE = 4


@contextlib.contextmanager
def _repository() -> Iterator[Repo]:
    """Open the workspace as DVC sees it.

    Raises:
        ValueError: it is no repository of DVC in one of git, or dvc.yaml is none.
    """
    try:
        with Repo() as repo:
            yield repo
    except SCMError:
        raise ValueError(
            f"{Path.cwd()} is not in a git repository, which DVC needs: git init makes one; or "
            "dvc config core.no_scm true lets DVC do without"
        ) from None
    except DvcException as error:
        raise ValueError(f"DVC cannot read this workspace: {' '.join(str(error).split())}") from None


def make_workspace(folder: Path) -> None:
    """Let DVC keep a folder as a workspace of its own, without git, whose cache links as that of this one does.

    Raises:
        ValueError: DVC cannot read this workspace.
    """
    if (folder / Repo.DVC_DIR).exists():
        return
    with _repository() as repo:
        linked = repo.config["cache"].get("type")
    with atomic.scratch(folder / Repo.DVC_DIR) as aside:
        with Repo.init(str(aside), no_scm=True) as made, made.config.edit("repo") as settings:
            settings["core"] |= {"analytics": False, "check_update": False}
            if linked:
                settings["cache"]["type"] = linked
        (aside / Repo.DVC_DIR).rename(folder / Repo.DVC_DIR)


def in_order() -> list[str]:
    """Return the names of the pipeline's stages, each after every stage it depends on; none of the optional ones.

    Raises:
        ValueError: DVC cannot read the workspace; the message says why.
    """
    with _repository() as repo:
        upstream_first = networkx.topological_sort(repo.index.graph.reverse())
        return [name for stage in upstream_first if stage.cmd and not (name := stage.addressing).startswith(_TAKEN_UP)]


def optional() -> list[str]:
    """Return the names of the stages that run only where they are named, in their order; none where they are not."""
    return list(stage_names.optional()) if Path(OPTIONAL).is_file() else []


def _address(stage: str) -> str:
    """Return what DVC calls a stage: an optional one by its file too."""
    return f"{_TAKEN_UP}:{stage}" if stage in stage_names.optional() else stage


def take_up(stages: Collection[str]) -> None:
    """Let DVC know the optional stages where one of them is to run; from then on they are in all that it tells.

    Before, `dvc status` and `dvc pull` would miss the outputs of stages that nobody has asked for.
    """
    if not Path(_TAKEN_UP).exists() and not {*stages}.isdisjoint(optional()):
        Path(_TAKEN_UP).symlink_to(Path(OPTIONAL).name)


class Changes(NamedTuple):
    """What DVC finds changed about a stage since it last ran, by name."""

    code: list[str]
    """Modules of ours, and the command; a room where it is not known which of its modules it is."""
    others: list[str]
    """Data and settings."""
    removes: bool
    """Whether there is an output that DVC would remove before it runs the stage."""


def changes(stage: str) -> Changes | None:
    """Return what has changed about a stage; None where it need not run.

    A stage that never ran is one whose data has changed. Outputs that are missing or were changed by hand count not.
    """
    with Repo() as repo, repo.lock:
        found = repo.stage.get_target(_address(stage))
        status = found.status().get(found.addressing, [])
        if not status:
            return None
        locked = _locked_code(found)
    code: list[str] = []
    others: list[str] = []
    for entry in status:
        if entry == "changed command":
            code.append("its command in dvc.yaml")
        elif isinstance(entry, dict):
            for name, what in entry.get("changed deps", {}).items():
                if is_code(name):
                    code.extend(_changed_files(stage, name, locked.get(name)) or [name])
                else:
                    others.extend([f"{name}: {key}" for key in what] if isinstance(what, dict) else [name])
    if not any(out.hash_info for out in found.outs):
        others.append("it has never run")
    return Changes(code, others, any(Path(out.fs_path).exists() for out in found.outs))


def note_code(stage: str) -> None:
    """Note the files that the code of a stage consists of, for one that is up to date.

    DVC keeps one hash of a room, by which nobody can tell which of its modules has changed.
    """
    with Repo() as repo:
        locked = _locked_code(repo.stage.get_target(_address(stage)))
    CODE.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(CODE / f"{stage}.json") as tmp_path:
        noted = {dep: {"md5": md5, "files": file_hashes(dep)} for dep, md5 in locked.items()}
        tmp_path.write_text(json.dumps(noted, indent=1))


def _locked_code(stage: PipelineStage) -> dict[str, str]:
    """Return the hash in dvc.lock of each module and room that a stage depends on."""
    return {dep.def_path: dep.hash_info.value for dep in stage.deps if is_code(dep.def_path) and dep.hash_info}


def _changed_files(stage: str, dep: str, locked: str | None) -> list[str]:
    """Name the files of a room that are not what they were; none where what was noted is not what dvc.lock is about."""
    try:
        noted = json.loads((CODE / f"{stage}.json").read_text())[dep]
    except (FileNotFoundError, KeyError, ValueError):
        return []
    if noted["md5"] != locked:
        return []
    now = file_hashes(dep) if Path(dep).exists() else {}
    return sorted(file for file in noted["files"].keys() | now.keys() if noted["files"].get(file) != now.get(file))


def command(stage: str) -> list[str]:
    """Return the words behind `python -m flows` of a stage's command: verb and options.

    Raises:
        ValueError: dvc.yaml has no such stage, or its command is another program's.
    """
    with _repository() as repo:
        try:
            words = shlex.split(repo.stage.get_target(_address(stage)).cmd)
        except DvcException as error:
            raise ValueError(f"dvc.yaml has no stage {stage}: {error}") from None
    if words[:3] != ["python", "-m", "flows"]:
        raise ValueError(
            f"the command of stage {stage} in dvc.yaml is {' '.join(words)}: it must be python -m flows ..."
        )
    return words[3:]


def data_of(stage: str) -> list[Path]:
    """Return the files and folders of data that a stage depends on, those in a bucket left out."""
    with Repo() as repo:
        deps = repo.stage.get_target(_address(stage)).deps
        here = Path(repo.root_dir)
        named = [Path(dep.fs_path) for dep in deps if dep.protocol == "local" and not isinstance(dep, ParamsDependency)]
    return [path for path in named if not (path.is_relative_to(here) and is_code(str(path.relative_to(here))))]


def reproduce(stage: str, force: bool, environment: dict[str, str], on_line: Callable[[str], None]) -> bool:
    """Run one stage through DVC, which skips it when nothing it depends on has changed.

    Returns:
        whether it ran.
    Raises:
        RuntimeError: it failed; the message says why.
    """
    mend()
    ran, said = True, ""

    def listen(line: str) -> None:
        nonlocal ran, said
        ran = ran and _SKIPPED not in line
        said = line if line.startswith("stiv ") else said  # the one line with which our command ends
        on_line(line)

    try:
        _dvc(["repro", "--single-item", _address(stage), *(["--force"] if force else [])], environment, listen)
    except RuntimeError as error:
        raise RuntimeError(f"stage {stage} failed: {said or error}") from None
    note_code(stage)
    return ran


def reproduce_all(on_line: Callable[[str], None]) -> None:
    """Bring everything up to date, as `dvc repro` does in a shell.

    Raises:
        RuntimeError: a stage failed.
    """
    mend()
    _dvc(["repro"], dict(os.environ), on_line)


def mend() -> None:
    """Remove what a DVC that is killed leaves half made, on which the next `dvc repro` would end.

    Empty folders in its run cache, of what a stage made ("join() argument must be str, bytes, or os.PathLike object"),
    and a list of who reads and writes what that is no JSON ("Unable to read RWLock-file").
    """
    with Repo() as repo, repo.lock:  # another DVC may be about to fill one
        for folder in Path(repo.stage_cache.cache_dir).glob("*/*"):
            with contextlib.suppress(OSError):  # it is not empty, as it should be
                folder.rmdir()
        place = str(repo.tmp_dir)
        with make_lock(
            str(Path(place) / RWLOCK_LOCK), tmp_dir=place, hardlink_lock=repo.config["core"]["hardlink_lock"]
        ):
            listed = Path(place) / RWLOCK_FILE
            try:
                json.loads(listed.read_bytes())
            except FileNotFoundError:
                pass
            except ValueError:
                listed.unlink()


def clear_cache(on_line: Callable[[str], None]) -> None:
    """Delete from DVC's cache what the workspace does not use, earlier versions of the data among it.

    Raises:
        RuntimeError: DVC could not.
    """
    _dvc(["gc", "--workspace", "--force"], dict(os.environ), on_line)


def check_inputs(stage: str, days: float) -> int:
    """Compare the files that a stage takes from earlier stages with what those made; return how many.

    DVC itself trusts a file that is read-only: one whose bytes went bad in its cache or on a remote is checked out,
    pulled and pushed without a word. Hashed is what has changed since it was hashed last. Of the latents of a training
    a part's length and header are looked at: the loader hashes each sample before a step uses it.

    Args:
        days: a file that was hashed so long ago is hashed again.

    Raises:
        ValueError: a file is not what dvc.lock says, or is missing; the message names it and the remedy.
    """
    known = KnownHashes(CHECKED, "md5", days)
    with Repo() as repo:
        made = {out.fs_path: out for out in repo.index.outs if out.use_cache}
        asked = repo.stage.get_target(_address(stage))
        inputs = [made[dep.fs_path] for dep in asked.deps if dep.fs_path in made]
        wanted = {path: md5 for out in inputs for path, md5 in _files(out, known)}
        parts = _parts_of_latents(asked.cmd, wanted)
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:
        right = threads.map(lambda path: _is_part(path) if path in parts else known.is_as(path, wanted[path]), wanted)
        wrong = [path for path, is_right in zip(wanted, right, strict=True) if not is_right]
    known.save()
    if wrong:
        raise ValueError(
            f"{wrong[0]} ({len(wrong)} of {len(wanted)} files) is not what dvc.lock says: its bytes went bad in DVC's "
            "cache or remote, or it was changed by hand. Changed by hand: `dvc commit` adopts it. Else delete it and "
            f"{repo.cache.local.path}, then `dvc pull`, or `dvc repro` to make it again"
        )
    return len(wanted)


def _files(out: Output, known: KnownHashes) -> Iterator[tuple[Path, str]]:
    """Give every file of an output with the md5 that it must have."""
    root = Path(out.fs_path)
    if not out.hash_info.isdir:
        yield root, out.hash_info.value
        return
    listing = Path(out.cache.oid_to_path(out.hash_info.value))
    if not known.is_as(listing, out.hash_info.value.removesuffix(".dir")):
        raise ValueError(
            f"DVC's list of the files in {root}, {listing}, is missing or damaged: delete it, then dvc pull"
        )
    for entry in json.loads(listing.read_text()):
        yield root / entry["relpath"], entry["md5"]


def _parts_of_latents(command: str, files: Iterable[Path]) -> set[Path]:
    """Return those of a stage's files whose samples are hashed one by one as they are read: what a training loads."""
    words = shlex.split(command)
    if words[:4] != ["python", "-m", "flows", "train"] or "--latents" not in words:
        return set()
    folder = Path(words[words.index("--latents") + 1]).absolute()
    return {path for path in files if path.parent == folder and path.suffix == ".safetensors"} - {folder / NULL_TEXT}


def _is_part(path: Path) -> bool:
    """Say whether a file is a whole one of safetensors, by its header and its length."""
    try:
        with safe_open(path, framework="numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def _dvc(words: list[str], environment: dict[str, str], on_line: Callable[[str], None]) -> None:
    # dvc.yaml says `python`: that must be this one, also when the environment is not activated
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    # bash makes way for a single command: a stage is then DVC's own child, and hears when DVC is killed
    environment = environment | {"PATH": path, "SHELL": "/bin/bash"}
    processes.run(fork_server.command("dvc", "dvc", *words), environment, on_line)
