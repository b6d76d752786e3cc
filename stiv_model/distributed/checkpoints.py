"""Checkpoints that are whole or absent, verified before they are read, and read by any number of ranks.

`step-N.tmp` is written, fsynced and renamed to `step-N`: one safetensors file per rank
(`stiv_model.distributed.rank_state`) and MANIFEST.json with the size and the sha256 of each, sealed by a hash of its
own. The newest checkpoint in which every byte is as written is used. A damaged one is named and kept beside it as
`step-N.damaged-K`, never deleted.
"""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from pydantic import JsonValue, NonNegativeInt, PositiveInt
from safetensors import SafetensorError, safe_open

from stiv_model.distributed import rank_state, replicas, run_identity
from stiv_model.distributed.ema import Ema
from stiv_model.settings import Run, Settings, TrainingSettings
from stiv_model.weights import durable

log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
_WHOLE = "step-????????"


class Progress(Settings):
    """Where a run stands, and what its loop must know to go on."""

    step: NonNegativeInt
    position: NonNegativeInt
    """Of the next sample in the order of the run."""
    loop: dict[str, JsonValue]
    """The loop's own memory, for instance of skipped batches; all numbers finite."""


class _File(Settings):
    size_bytes: PositiveInt
    sha256: str


class Manifest(Settings):
    """What a checkpoint is."""

    run: dict[str, JsonValue]
    """`stiv_model.distributed.run_identity`."""
    progress: Progress
    files: tuple[_File, ...]
    """One per rank."""
    seal: str = ""
    """sha256 of all the above."""

    def text(self) -> str:
        """Return the one text of this manifest, so that any changed byte shows."""
        plain = self.model_dump_json(exclude={"seal"})
        return self.model_copy(update={"seal": hashlib.sha256(plain.encode()).hexdigest()}).model_dump_json(indent=1)


def save(folder: Path, run: Run, engine: DeepSpeedEngine, ema: Ema, progress: Progress) -> None:
    """Write the state of all ranks, on all ranks, and delete what `training.keep_*` no longer keeps.

    Raises:
        RuntimeError: the ranks do not see the same folder, or hold different bits of what they hold alike.
        OSError: it would not fit on the disk; nothing of it was written.
    """
    replicas.check(engine, ema)
    check_space(folder, run, engine, ema)
    rank, name = dist.get_rank(), f"step-{progress.step:08d}"
    tmp_path = folder / f"{name}.tmp"
    if rank == 0:
        for left in folder.glob("*.tmp"):
            shutil.rmtree(left)
        tmp_path.mkdir(parents=True)
    dist.barrier()
    size_bytes, sha256 = rank_state.write(tmp_path / rank_state.file_name(rank), engine, ema)
    files: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(files, _File(size_bytes=size_bytes, sha256=sha256))
    if rank == 0:
        _complete(
            tmp_path, folder / name, Manifest(run=run_identity.identity(run), progress=progress, files=tuple(files))
        )
        _prune(folder, run.training)
    dist.barrier()


def resume(folder: Path, run: Run, engine: DeepSpeedEngine, ema: Ema) -> Progress | None:
    """Load the newest whole checkpoint on all ranks, and return where the run stands; None where there is none yet.

    Raises:
        ValueError: it is of another run, or all are damaged; the message says which settings differ.
    """
    path = newest_whole(folder)
    if path is None:
        if damaged := sorted(folder.glob("*.damaged-*")):
            raise ValueError(
                f"{folder} has no whole checkpoint, only {damaged[-1].name} and alike: put a good copy there, or "
                "delete the damaged ones to train from the start"
            )
        return None
    manifest = _read_manifest(path)
    if found := run_identity.differences(manifest.run, run_identity.identity(run)):
        raise ValueError(
            f"{path} is of another run ({run_identity.told(found)}): set it back to go on, or move or delete "
            f"{folder} to train from the start"
        )
    rank_state.read(path, len(manifest.files), engine, ema)
    if dist.get_rank() == 0:
        log.info("going on from %s, written by %d rank(s)", path, len(manifest.files))
    return manifest.progress


def newest_whole(folder: Path) -> Path | None:
    """Return the newest checkpoint that is as written; the ranks share the reading. Damaged ones are renamed."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    names: list[list[str]] = [sorted(path.name for path in folder.glob(_WHOLE))]
    dist.broadcast_object_list(names)  # one rank looks, so that all see the same
    for name in reversed(names[0]):
        path = folder / name
        found: list[str | None] = [None] * ranks
        dist.all_gather_object(found, damage(path, rank, ranks))
        if not any(found):
            return path
        if rank == 0:
            kept_as = _free_name(path)
            path.rename(kept_as)
            log.warning("checkpoint %s is damaged (%s): kept as %s", path, next(filter(None, found)), kept_as.name)
    dist.barrier()
    return None


def damage(path: Path, reader: int = 0, readers: int = 1) -> str | None:
    """Say what is wrong with a checkpoint, None when nothing is. Of several readers, each reads a part of the files."""
    try:
        manifest = _read_manifest(path)
    except (OSError, ValueError) as error:
        return f"{MANIFEST}: {str(error).splitlines()[0]}"
    wanted = {rank_state.file_name(rank): file for rank, file in enumerate(manifest.files)}
    there = {str(inside.relative_to(path)) for inside in path.rglob("*")} - {MANIFEST}
    for name in sorted(wanted.keys() ^ there):
        return f"{name} is missing" if name in wanted else f"{name} does not belong to it"
    for name in sorted(wanted)[reader::readers]:
        try:
            if said := _damage_of_file(path / name, wanted[name]):
                return f"{name} {said}"
        except OSError as error:
            return f"{name}: {error}"
    return None


def _damage_of_file(file: Path, wanted: _File) -> str | None:
    size_bytes = file.stat().st_size
    if size_bytes != wanted.size_bytes:
        return f"has {size_bytes} bytes, not {wanted.size_bytes}"
    with file.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != wanted.sha256:
            return "is not what was written"
    try:
        safe_open(file, "pt")
    except SafetensorError as error:
        return f"is no safetensors file ({error})"
    return None


def _read_manifest(path: Path) -> Manifest:
    text = (path / MANIFEST).read_text()
    manifest = Manifest.model_validate_json(text)
    if text != manifest.text():
        raise ValueError("not what was written")
    if path.name != f"step-{manifest.progress.step:08d}":
        raise ValueError(f"of step {manifest.progress.step}")
    return manifest


def _complete(tmp_path: Path, final: Path, manifest: Manifest) -> None:
    for rank, wanted in enumerate(manifest.files):
        path = tmp_path / rank_state.file_name(rank)
        if not path.exists() or path.stat().st_size != wanted.size_bytes:
            raise RuntimeError(f"{path} is not there as rank {rank} wrote it: all nodes must share {tmp_path.parent}")
    with (tmp_path / MANIFEST).open("x") as file:
        file.write(manifest.text())
    durable.sync(tmp_path / MANIFEST)
    durable.sync(tmp_path)
    replaced = final.with_name(f"{final.name}.replaced.tmp")
    if final.exists():  # a run that went back comes by again
        final.rename(replaced)
    tmp_path.rename(final)
    durable.sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _prune(folder: Path, training: TrainingSettings) -> None:
    for old in sorted(folder.glob(_WHOLE))[: -training.keep_checkpoints]:
        step = int(old.name.removeprefix("step-"))
        if not (training.keep_every_steps and step % training.keep_every_steps == 0):
            shutil.rmtree(old.rename(old.with_name(f"{old.name}.tmp")))  # half a folder never looks like a checkpoint


def check_space(folder: Path, run: Run, engine: DeepSpeedEngine, ema: Ema, count: int = 1) -> None:
    """Look, on all ranks together, whether so many more checkpoints fit on the disk.

    Raises:
        OSError: on every rank, with the bytes that are missing and what to do.
    """
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, (rank_state.size_bytes(engine, ema), shutil.disk_usage(folder.parent).free))
    needed, free = count * sum(size for size, _ in found), min(free for _, free in found)
    if needed > free:
        raise OSError(
            f"{folder} has {free:,} bytes free, and {count} checkpoint{'s' if count > 1 else ''} of {run.recipe_name} "
            f"take {needed:,}: nothing was written. Free some space or lower training.keep_checkpoints, and the same "
            "command goes on from the last checkpoint"
        )


def _free_name(path: Path) -> Path:
    number = 1
    while (free := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return free
