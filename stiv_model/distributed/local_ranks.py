"""Start the ranks of a run on this machine, and end with them.

`python -m stiv_model.distributed.local_ranks RANKS WORDS`, where WORDS are what Python is started with, such as
`-m stiv_model.training.train WORK`. Nothing listens for it: the ranks meet in a file of a folder that only the user can
enter. torchrun and torch's own store listen on all interfaces, ask nobody who he is, and unpickle what they are told.
Imports nothing that takes time.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from stiv_model import fork_server
from stiv_model.process_exit import STOPPED, die_with_parent

RENDEZVOUS = "STIV_RENDEZVOUS"
"""The variable with the address, file://PATH, at which the ranks of one machine meet; without it, torch's own hold."""
_OTHERS = ("TORCHELASTIC_", "OMPI_", "PMI_", "PMIX_", "SLURM_", "MASTER_")
"""What other launchers, one that started us among them, tell their ranks begins so."""
_SECONDS = 10
"""That ranks whose peer has failed get to end by themselves: what they wait for does not come."""


def inherited(caller: Mapping[str, str]) -> dict[str, str]:
    """Return what a process that no other launcher has started is told by its caller's environment."""
    return {name: value for name, value in caller.items() if not name.startswith(_OTHERS)}


def environment(caller: Mapping[str, str], rank: int, ranks: int, folder: Path) -> dict[str, str]:
    """Return the environment of one rank: the caller's, but for what another launcher said.

    Args:
        folder: where the ranks meet.
    """
    return inherited(caller) | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",  # DeepSpeed wants to see both; nobody listens there
        "MASTER_PORT": "0",
        RENDEZVOUS: f"file://{folder}/store",
    }


def run(ranks: int, words: Sequence[str]) -> int:
    """Start Python with `words` on every rank, wait for all, and return the exit code.

    A request to stop (SIGTERM; SIGINT; SIGUSR1) is passed on to the ranks. When one has failed, the others are killed
    unless they end soon.

    Returns:
        0 when all went well, STOPPED when ranks have stopped on request, else 1; the last line printed says which rank
        failed first, and how.
    """
    started: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for rank in started:
            rank.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, pass_on)
    folder = Path(tempfile.mkdtemp(prefix="stiv-ranks-"))
    try:
        for rank in range(ranks):
            if asked:
                break
            started.append(
                subprocess.Popen(
                    _command(words),
                    env=environment(os.environ, rank, ranks, folder),
                    process_group=0,  # each hears of a request once: from us
                    preexec_fn=partial(die_with_parent, parent=os.getpid()),
                )
            )
        return _wait(started) if len(started) == ranks else STOPPED
    finally:
        for process in started:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _command(words: Sequence[str]) -> list[str]:
    is_module = words[0] == "-m" and os.environ.get("DS_ACCELERATOR") == "cpu"  # what is forked can use no GPU
    return fork_server.command("ranks", *words[1:]) if is_module else [sys.executable, *words]


def _wait(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all ranks; when one has failed, not long for the others."""
    failed: int | None = None
    limit = float("inf")
    while (codes := [process.poll() for process in started]).count(None):
        if failed is None:
            failed = next((rank for rank, code in enumerate(codes) if code not in (None, 0, STOPPED)), None)
            limit = float("inf") if failed is None else time.monotonic() + _SECONDS
        if time.monotonic() > limit:
            break
        time.sleep(0.05)
    if failed is None:
        failed = next((rank for rank, code in enumerate(codes) if code not in (0, STOPPED)), None)
    if failed is None:
        return STOPPED if STOPPED in codes else 0
    print(f"rank {failed} of {len(started)} {_how(started[failed].returncode)}", file=sys.stderr, flush=True)
    return 1


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    killed = f"was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"{killed}: the kernel does that when memory is short (dmesg)" if code == -signal.SIGKILL else killed


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
