"""The program behind `tasks/fence.py`: opens each raw video in a forked child with limits.

`python -m tasks.fence_worker` imports the decoders once, cuts itself off the network, then reads one JSON
request per line from stdin and answers each with one JSON line on stdout. Every request is served by a fresh
child, so a decoder that crashes, hangs or is taken over by the file it reads loses that one file. It imports
neither torch nor Prefect: a fork costs milliseconds because this process stays small and has one thread.

Limits and flags: prctl(2), unshare(2), setrlimit(2).
"""

import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import av
import cv2
import numpy as np

from tasks import cuts, decode

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MAX_OPEN_FILES = 64
_MAX_RESULT_BYTES = 1 << 30
_MEMORY_EXIT = 77


class Limits(NamedTuple):
    """What one child may use; the fields of FenceSettings that it needs."""

    seconds: float
    memory_bytes: int
    max_size_bytes: int
    max_pixels: int
    max_frames: int


def _prove_time(limits: Limits) -> dict:
    while True:
        time.sleep(1)


def _prove_memory(limits: Limits) -> dict:
    return {"status": "ok", "bytes": len(bytearray(2 * limits.memory_bytes))}


def _prove_crash(limits: Limits) -> dict:
    os.abort()


def _prove_network(limits: Limits) -> dict:
    """Fail as wanted when not even a route to a documentation address (RFC 5737) is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return {"status": "failed", "reason": "network"}
    return {"status": "ok"}


FUNCTIONS: dict[str, Callable[..., dict]] = {
    "probe": decode.probe,
    "split": cuts.split,
    "clip_frames": decode.clip_frames,
    # For `fence.available`: each does what its fence must stop.
    "prove_time": _prove_time,
    "prove_memory": _prove_memory,
    "prove_crash": _prove_crash,
    "prove_network": _prove_network,
}


def _cut_network() -> bool:
    """Move into a network namespace without interfaces; others than root need a user namespace too."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0


def _confine(limits: Limits, parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the line above
    os.closerange(3, _MAX_OPEN_FILES)  # the worker's own pipes
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, int(limits.seconds) + 1),
        (resource.RLIMIT_FSIZE, _MAX_RESULT_BYTES),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _write(result: dict[str, Any], path: Path) -> None:
    """Write arrays to `path`.npz and everything else to `path`, as JSON; never a pickle."""
    arrays: dict[str, Any] = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
    if arrays:
        np.savez(path.with_suffix(".npz"), **arrays)
    rest = {name: value for name, value in result.items() if name not in arrays}
    path.write_text(json.dumps(rest))


def _child(request: dict, limits: Limits, parent: int) -> NoReturn:
    code = 1
    try:
        _confine(limits, parent)
        result = FUNCTIONS[request["name"]](limits=limits, **request["arguments"])
        _write(result, Path(request["result"]))
        code = 0
    except (MemoryError, av.error.MemoryError):
        code = _MEMORY_EXIT
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        code = _MEMORY_EXIT
    finally:
        sys.stderr.flush()
        os._exit(code)


def _outcome(status: int) -> dict:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        reasons: dict[int, str] = {
            signal.SIGXCPU: "timeout",
            signal.SIGKILL: "killed",
        }  # killed: by the kernel, short of memory
        return {"status": "failed", "reason": reasons.get(number, "crashed")}
    code = os.WEXITSTATUS(status)
    if code == _MEMORY_EXIT:
        return {"status": "failed", "reason": "memory"}
    return {"status": "ok"} if code == 0 else {"status": "failed", "reason": "crashed"}


def _serve(request: dict) -> dict:
    """Run one request in a child; kill it at its wall time, or when nobody waits for the answer any more."""
    limits = Limits(**request["limits"])
    me = os.getpid()
    child = os.fork()
    if child == 0:
        _child(request, limits, me)
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(sys.stdin.fileno(), 0)  # only POLLHUP: the parent is gone
    try:
        ended = any(found == descriptor for found, _ in poll.poll(limits.seconds * 1000))
        if not ended:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(descriptor)
    return _outcome(status) if ended else {"status": "failed", "reason": "timeout"}


def main() -> None:
    """Serve requests until stdin closes."""
    cv2.setNumThreads(0)  # threads do not survive a fork
    av.logging.set_level(None)
    is_offline = _cut_network()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    answers.write(json.dumps({"network_cut": is_offline}) + "\n")
    while line := sys.stdin.readline():
        answers.write(json.dumps(_serve(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
