"""The fork servers of a pipeline (`stiv_model/fork_server.py`): one each for DVC, for stages and for ranks."""

import contextlib
import os
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
_GPUS = ("nvidia*", "kfd")
"""Among the devices, those of NVIDIA's driver and of AMD's."""


@contextlib.contextmanager
def started(stages: Sequence[str], of_ranks: Mapping[str, str]) -> Iterator[None]:
    """Run the servers for as long as the block lasts, named in the environment of this process and its children.

    Where processes may not be forked from one that has imported libraries, nothing is started: not on Linux, or where
    there is a GPU, which libraries look at when they are imported.

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
    with tempfile.TemporaryDirectory(prefix="stiv-forks-") as name, contextlib.ExitStack() as running:
        own, generic = dict(os.environ), ["stiv_model.fork_server", "{}"]
        for server, words, environment in (
            (DVC, [*generic, *_OF_DVC], own),
            (STAGES, ["flows", "--serve-forks", "{}", *stage_names.commands(stages)], own),
            (RANKS, [*generic, *_OF_RANKS], of_ranks),
        ):
            running.enter_context(_server(Path(name) / server, words, environment))
        os.environ[FOLDER] = name
        try:
            yield
        finally:
            del os.environ[FOLDER]


def import_ahead() -> None:
    """Let the server of ranks import what they need; again and again costs nothing."""
    fork_server.import_ahead(RANKS)


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
