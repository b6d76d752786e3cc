"""Run a child process with its lines in our log: it does not outlive us, and what we are asked it is asked too."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Self

from stiv_model.process_exit import die_with_parent

log = logging.getLogger(__name__)

_ONE_REQUEST_SECONDS = 2.0
"""Whoever stops a whole group of processes asks each of them, and we pass on what we are asked: that is one request."""


def run(
    command: list[str],
    environment: dict[str, str] | None = None,
    on_line: Callable[[str], None] = log.info,
) -> None:
    """Run `command`, handing each line it prints to `on_line`.

    SIGTERM, SIGUSR1 and Ctrl-C are passed on, as SIGTERM to the process group of the child. When it has ended, its work
    saved, they have the effect here that they would have had at once (SIGUSR1 that of SIGTERM); of Prefect's handler,
    that the flow run is cancelled. A second request, two seconds or more after the first, does not wait: the child is
    killed, and what it was saving is not saved.

    Raises:
        RuntimeError: it ended with another exit code than 0; the message carries its last lines.
    """
    last: list[str] = []
    with (
        _Requests() as requests,
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,  # of its own, so that Ctrl-C reaches it once: from us
            preexec_fn=partial(die_with_parent, parent=os.getpid()),
        ) as process,
    ):
        requests.pass_on_to(process)
        assert process.stdout is not None
        for line in process.stdout:  # ends when the last process that may write to it has ended
            last = [*last[-4:], line.rstrip()]
            on_line(line.rstrip())
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode} from {' '.join(command)}: " + " | ".join(last))


class _Requests:
    """Requests to stop while we wait for a child: passed on to it, and held back here until the block ends."""

    def __init__(self) -> None:
        self.made: int | None = None
        self.made_at = 0.0
        self.child: subprocess.Popen[str] | None = None
        self.is_passed_on = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other hears of signals
            numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
            self.before = {number: signal.getsignal(number) for number in numbers}
            for number, handler in self.before.items():
                if handler != signal.SIG_IGN:
                    signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.made is not None:
            signal.raise_signal(self.made)

    def pass_on_to(self, child: subprocess.Popen[str]) -> None:
        """Name the child; a request may have come before it was there."""
        self.child = child
        self._pass_on()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.made is None:
            # of SIGUSR1 nobody but us knows what it asks for
            self.made, self.made_at = signal.SIGTERM if number == signal.SIGUSR1 else number, time.monotonic()
            self._pass_on()
        elif self.child and time.monotonic() - self.made_at > _ONE_REQUEST_SECONDS:
            log.warning("asked to stop again: killing what is saving its work")
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)

    def _pass_on(self) -> None:
        # once: a launcher that is asked twice no longer waits for its ranks
        if self.made and self.child and not self.is_passed_on:
            self.is_passed_on = True
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGTERM)
