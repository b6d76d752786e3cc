"""The program behind `tasks/sandbox/pool.py`: opens each raw video in a forked child with limits.

`python -m tasks.sandbox.worker` imports the decoders once, cuts itself off the network, then reads one JSON
request per line from stdin and answers each with one JSON line on stdout. Every request is served by a fresh
child, so a decoder that crashes, hangs or is taken over by the file it reads loses that one file. It imports
neither torch (but for `shots.detector: transnet`) nor Prefect: a fork costs milliseconds because this process stays
small and has one thread.
"""

import errno
import gc
import json
import os
import select
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import av
import av.subtitles.stream  # by PyAV when it opens a file: here it is once, and not in every child
import cv2
import numpy as np
import numpy.ma  # by np.median

from tasks.decoding import clip_frames, cuts, frame_times, picture_file, probe, whole_video
from tasks.decoding.limits import Limits
from tasks.sandbox import confinement, wire_format

_MEMORY_EXIT, _OUTPUT_EXIT = 77, 78


def _prove_time(limits: Limits) -> dict[str, Any]:
    while True:
        time.sleep(1)


def _prove_memory(limits: Limits) -> dict[str, Any]:
    bytearray(limits.memory_bytes)
    return {"status": "ok"}


def _prove_output(limits: Limits) -> dict[str, Any]:
    return {"status": "ok", "zeros": np.zeros(limits.max_result_bytes, np.uint8)}


def _prove_crash(limits: Limits) -> dict[str, Any]:
    os.abort()


def _refused(kind: str, attempt: Callable[[], Any]) -> dict[str, Any]:
    """Fail with reason `kind`, as wanted, when the system refuses the attempt."""
    try:
        attempt()
    except OSError:
        return {"status": "failed", "reason": kind}
    return {"status": "ok"}


def _prove_network(limits: Limits) -> dict[str, Any]:
    """Look for a route to a documentation address (RFC 5737); nothing is sent."""

    def route() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))

    return _refused("network", route)


def _prove_read(limits: Limits, file: str) -> dict[str, Any]:
    return _refused("read", lambda: Path(file).read_bytes())


def _prove_write(limits: Limits, file: str) -> dict[str, Any]:
    return _refused("write", lambda: Path(file).write_bytes(b"reached"))


def _prove_exec(limits: Limits) -> dict[str, Any]:
    return _refused("exec", lambda: os.execv(sys.executable, [sys.executable, "-c", ""]))


def _prove_processes(limits: Limits) -> dict[str, Any]:
    def start() -> None:
        if os.fork() == 0:
            os._exit(0)

    started, signalled = _refused("processes", start), _refused("processes", lambda: os.kill(os.getppid(), 0))
    return started if started["status"] == "ok" else signalled


PREPARATIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "split": cuts.prepare,
    "picture_file": picture_file.prepare,
}
"""What this process does before it forks a function's child, which inherits what was loaded; cheap the second time."""

FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "probe": probe.probe,
    "split": cuts.split,
    "clip_frames": clip_frames.clip_frames,
    "frame_times": frame_times.frame_times,
    "picture_file": picture_file.picture_file,
    "whole_video": whole_video.whole_video,
    # For `sandbox.prove`: each does what its sandbox must stop.
    "prove_network": _prove_network,
    "prove_read": _prove_read,
    "prove_write": _prove_write,
    "prove_exec": _prove_exec,
    "prove_processes": _prove_processes,
    "prove_memory": _prove_memory,
    "prove_time": _prove_time,
    "prove_output": _prove_output,
    "prove_crash": _prove_crash,
}


def _child(request: dict[str, Any], limits: Limits, missing: dict[str, str], parent: int) -> NoReturn:
    code = 1
    try:
        confinement.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the line above
        os.closerange(3, confinement.MAX_OPEN_FILES)  # the worker's own pipes
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        with Path(request["result"]).open("xb") as file:
            _answer(file, request, limits, missing)
        code = 0
    except MemoryError:
        code = _MEMORY_EXIT
    except OSError as error:
        code = _OUTPUT_EXIT if error.errno == errno.EFBIG else 1
    finally:
        os._exit(code)


def _answer(file: BinaryIO, request: dict[str, Any], limits: Limits, missing: dict[str, str]) -> None:
    """Confine this process, call the function, write what it gives."""
    arguments = request["arguments"]
    video, refusal = _find(arguments["path"]) if "path" in arguments else (None, None)
    if refusal:
        wire_format.write(file, refusal, missing)
        return
    confinement.limit(request["seconds"], limits.memory_bytes, limits.max_result_bytes)
    missing = missing | _confine(video, limits.strict)
    try:
        values = FUNCTIONS[request["name"]](limits=limits, **arguments)
    except Exception as error:  # a fault of ours, or of a library, that this video brought out: the caller logs it
        if _is_shortage(error):
            raise MemoryError from error
        told = traceback.format_exc(limit=-3)[-wire_format.MAX_TRACEBACK :]
        values = {"status": "failed", "reason": "crashed", "traceback": told}
    wire_format.write(file, values, missing)


def _is_shortage(error: Exception) -> bool:
    is_opencvs = isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
    return is_opencvs or isinstance(error, MemoryError | av.error.MemoryError)


def _find(path: str) -> tuple[int | None, dict[str, Any] | None]:
    """Return a descriptor that names the file `path`, or the verdict on what is there instead."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, {"status": "failed", "reason": "not_found"}
    except (OSError, ValueError):  # no permission on a folder, too long a name, a null byte in it
        return None, {"status": "failed", "reason": "not_permitted"}
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None, {"status": "rejected", "reason": "not_a_file"}
    return descriptor, None


def _confine(video: int | None, strict: bool) -> dict[str, str]:
    """Give up all that can be given up; return what the kernel refused.

    Raises:
        OSError: something was refused, and that is not allowed.
    """
    steps: dict[str, Callable[[], None]] = {
        "Landlock": lambda: confinement.restrict_files(video),
        "seccomp": confinement.restrict_calls,
    }
    missing = {}
    for name, step in steps.items():
        try:
            step()
        except OSError as error:
            if strict:
                raise
            missing[name] = str(error)
    return missing


def _outcome(status: int) -> dict[str, Any]:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # killed: by the kernel, short of memory
        reasons: dict[int, str] = {signal.SIGXCPU: "timeout", signal.SIGKILL: "killed"}
        return {"status": "failed", "reason": reasons.get(number, "crashed")}
    code = os.WEXITSTATUS(status)
    reason = {_MEMORY_EXIT: "memory", _OUTPUT_EXIT: "too_much_output"}.get(code, "crashed")
    return {"status": "ok"} if code == 0 else {"status": "failed", "reason": reason}


def _serve(request: dict[str, Any], missing: dict[str, str]) -> dict[str, Any]:
    """Run one request in a child; kill it at its wall time, or when nobody waits for the answer any more."""
    limits = Limits(**request["limits"])
    if request["name"] in PREPARATIONS:
        PREPARATIONS[request["name"]](request["arguments"])
    me = os.getpid()
    child = os.fork()
    if child == 0:
        _child(request, limits, missing, me)
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(sys.stdin.fileno(), 0)  # only POLLHUP: the parent is gone
    try:
        ended = any(found == descriptor for found, _ in poll.poll(request["seconds"] * 1000))
        if not ended:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    finally:
        os.close(descriptor)
    outcome = _outcome(status) if ended else {"status": "failed", "reason": "timeout"}
    return outcome | {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * 1024}


def main() -> None:
    """Serve requests until stdin closes."""
    cv2.setNumThreads(0)  # threads do not survive a fork
    av.logging.set_level(None)
    missing = {}
    try:
        confinement.cut_network()
    except OSError as error:
        missing["network namespace"] = str(error)
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    answers.write(json.dumps({"started": os.getpid()}) + "\n")
    while line := sys.stdin.readline():
        answers.write(json.dumps(_serve(json.loads(line), missing)) + "\n")


if __name__ == "__main__":
    main()
