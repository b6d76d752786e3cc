"""The fork servers of a pipeline (`stiv_model/fork_server.py`): one each for DVC, for stages and for ranks."""

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from flows.running import stage_names
from stiv_model import fork_server
from stiv_model.fork_server import FOLDER
from stiv_model.process_exit import die_with_parent

log = logging.getLogger(__name__)

DVC, STAGES, RANKS = "dvc", "flows", "ranks"
_OF_RANKS = (
    "stiv_model.training.train",
    "stiv_model.monitoring.monitor",
    "stiv_model.monitoring.video_log",
    "stiv_model.monitoring.prompt_features",
    "stiv_model.encoders.text",
)
_OF_DVC = ("dvc.cli", "dvc.cli.parser", "dvc.commands.repro", "dvc.repo", "dvc.repo.reproduce")
_DEVICES = Path("/dev")
_GPUS = ("nvidia*", "kfd", "dxg")
"""Among the devices, those of NVIDIA's driver, of AMD's and of Windows' under WSL2."""
_PREFIX = "stiv-forks-"


@contextlib.contextmanager
def started(stages: Sequence[str], of_ranks: Mapping[str, str]) -> Iterator[None]:
    """Run the servers for as long as the block lasts, named in the environment of this process and its children.

    Where processes may not be forked from one that has imported libraries, nothing is started: not on Linux, or where
    there is a GPU, which libraries look at when they are imported. Where there is no place for sockets, a warning says
    so, and nothing is started either.

    Args:
        stages: those that may run, in their order.
        of_ranks: environment of the ranks of trainings.
    """
    if (
        FOLDER in os.environ
        or not sys.platform.startswith("linux")
        or any(path for name in _GPUS for path in _DEVICES.glob(name))
    ):
        yield
        return
    own, generic = dict(os.environ), ["stiv_model.fork_server", "{}"]
    servers = (
        (DVC, [*generic, *_OF_DVC], own),
        (STAGES, ["flows", "--serve-forks", "{}", *stage_names.commands(stages)], own),
        (RANKS, [*generic, *_OF_RANKS], of_ranks),
    )
    with contextlib.ExitStack() as running:
        try:
            folder = running.enter_context(_folder())
            for server, words, environment in servers:
                running.enter_context(_server(folder / server, words, environment))
        except OSError as error:
            running.close()
            log.warning(
                "stages start by themselves, in more time: no sockets in %s (TMPDIR names another folder): %s",
                tempfile.gettempdir(),
                error,
            )
        else:
            os.environ[FOLDER] = str(folder)
            running.callback(os.environ.pop, FOLDER)
        yield


def import_ahead() -> None:
    """Let the server of ranks import what they need; again and again costs nothing."""
    fork_server.import_ahead(RANKS)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder for sockets, locked for as long as the block lasts; remove those of pipelines that were killed.

    Raises:
        OSError: there is no place for one.
    """
    for other in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(other):  # else it is in use, or another user's
            if not _runs(other.name.removeprefix(_PREFIX).partition("-")[0]):
                shutil.rmtree(other)
    prefix = f"{_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name, _locked(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which ends with this process.

    Raises:
        OSError: another process holds it, or this one may not look into the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _runs(pid: str) -> bool:
    """Say whether a process runs here; of one in another container that shares the folder only its lock tells."""
    return Path("/proc", pid).exists()


@contextlib.contextmanager
def _server(path: Path, words: list[str], environment: Mapping[str, str]) -> Iterator[None]:
    """Run a server whose socket is there, and waits for it, before it has started."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", *(str(listening.fileno()) if word == "{}" else word for word in words)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
            process_group=0,  # Ctrl-C is not for it
            preexec_fn=partial(die_with_parent, parent=os.getpid()),
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()
