"""Raw videos are opened only in the sandbox: in child processes with limits on time, memory and reach.

A hostile or broken file costs its own child process, not the stage: the caller gets a reason for its row. The
other side is `tasks/sandbox/worker.py`.
"""

import atexit
import contextlib
import json
import logging
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.sandbox import answer_schemas, wire_format
from tasks.sandbox.settings import SandboxSettings

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 120
_GRACE_SECONDS = 15
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD")  # the interpreter may need them to start

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment of a child: it has one core, and the idle threads of OpenBLAS spin on the others."""

REACH = ("network", "read", "write", "exec", "processes")
"""What a child must not reach: any network, files other than its own, other programs and processes."""
_LIMITS = {"memory": "memory", "time": "timeout", "output": "too_much_output", "crash": "crashed"}


class _Worker:
    """One `tasks.sandbox.worker` process."""

    def __init__(self, folder: Path) -> None:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {"PYTHONPATH": str(_ROOT)} | ONE_THREAD
        environment["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime's sender is a thread, which does not survive a fork
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.sandbox.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=environment,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is for the stage; the worker ends when its stdin closes
        )
        assert self.process.stdin is not None and self.process.stdout is not None, "both are pipes"
        self._requests, self._answers = self.process.stdin, self.process.stdout
        self.has_started = False

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Return the worker's answer, or None if it died or did not answer in time."""
        if not self.has_started:
            if self._line(_START_SECONDS) is None:
                return None
            self.has_started = True
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        except BrokenPipeError:
            return None
        return self._line(seconds)

    def _line(self, seconds: float) -> dict[str, Any] | None:
        if not select.select([self._answers], [], [], seconds)[0]:
            return None
        line = self._answers.readline()
        return json.loads(line) if line else None

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._answers.close()


class Sandbox:
    """A pool of `settings.workers` sandboxed processes; a context manager, usable from several threads.

    Entering it attempts what a child must not do on this machine: a warning names what the kernel does not forbid.

    Args:
        settings: the limits. A child that crosses one is killed, and its file is `failed` with a reason:
            timeout, memory, too_much_output, killed, crashed, bad_result.
    Raises:
        OSError: on entering, no child can be started; or with `settings.strict`, a protection is missing.
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.cpu_seconds = 0.0
        """CPU time of all children so far, seconds."""
        self.peak_bytes = 0
        """Largest resident memory of any child so far, bytes."""
        self.restarts = 0
        """Worker processes that died and were replaced; the end of a child does not end its worker."""
        self._limits = settings.model_dump(exclude={"workers"})
        self._idle: queue.Queue[_Worker] = queue.Queue()
        self._counting = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # in another process, such as a worker of Ray, it is that process's own sandbox
        return _own, (self.settings.model_dump_json(),)

    def __enter__(self) -> "Sandbox":
        self._folder = tempfile.TemporaryDirectory(prefix="stiv-sandbox-")
        self._threads = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="sandbox")
        for _ in range(self.settings.workers):
            self._idle.put(_Worker(Path(self._folder.name)))
        try:
            self._examine()
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().stop()
        self._folder.cleanup()
        log.debug("children used %.1f s of CPU and at most %.0f MiB", self.cpu_seconds, self.peak_bytes / 2**20)

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run one function of `worker.FUNCTIONS` in a fresh child and return its checked answer.

        Args:
            name: of the function.
            arguments: the function's own; `path`, if there is one, is the only file that the child may read.

        Returns:
            status, reason, and what `answer_schemas` declares of the function; `failed` with a reason where the child
            crossed a limit.

        Raises:
            OSError: no worker can be started on this machine.
        """
        return self._run(name, arguments, self._limits).values

    def map(self, name: str, arguments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Call one function with each of several arguments, `workers` at once; answers in the arguments' order."""
        return list(self._threads.map(lambda one: self.call(name, one), arguments))

    def seconds(self, arguments: dict[str, Any]) -> float:
        """Return the time that a call may take, by the frames that an earlier stage counted."""
        frames = arguments.get("claimed_frames", 0) or arguments.get("frames", 0) * arguments.get("stride_frames", 1)
        wanted = self.settings.seconds + frames * self.settings.seconds_per_frame
        return min(wanted, self.settings.max_seconds)

    def prove(self, kinds: Iterable[str]) -> tuple[dict[str, bool], dict[str, str]]:
        """Attempt what each of some protections forbids.

        Returns:
            By kind, whether it holds; and by name, the ways of confining that the kernel refused, and why.
        """
        holds: dict[str, bool] = {}
        missing: dict[str, str] = {}
        limits = self._limits | {"strict": False}  # a child that refuses to go on cannot say what is missing
        canary = Path(self._folder.name) / "canary"
        canary.touch()
        for kind in kinds:
            found = self._run(f"prove_{kind}", {"file": str(canary)} if kind in ("read", "write") else {}, limits)
            holds[kind] = found.values.get("reason") == _LIMITS.get(kind, kind)
            missing |= found.missing
        return holds, missing

    def _examine(self) -> None:
        holds, missing = self.prove(REACH)
        if all(holds.values()):
            return
        why = "; ".join(f"{name}: {problem}" for name, problem in missing.items())
        problem = f"this machine does not confine the process that opens a video: {_absent(holds)} ({why})"
        if self.settings.strict:
            raise OSError(f"{problem}; sandbox.strict is true: run where `stiv doctor` finds every sandbox")
        log.warning("%s: open only videos you trust here; sandbox.strict: true would refuse", problem)

    def _run(self, name: str, arguments: dict[str, Any], limits: dict[str, Any]) -> wire_format.Result:
        if "path" in arguments:
            arguments = arguments | {"path": str(Path(arguments["path"]).absolute())}  # the worker's folder is another
        worker = self._idle.get()
        try:
            with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
                path = Path(folder) / "result"
                seconds = self.seconds(arguments)
                request = {"name": name, "arguments": arguments, "limits": limits, "seconds": seconds}
                answer = worker.ask(request | {"result": str(path)}, seconds + _GRACE_SECONDS)
                if answer is None:
                    worker = self._replace(worker)
                    return _failed("crashed")
                self._count(answer)
                if answer["status"] != "ok":
                    return _failed(answer["reason"])
                return self._read(path, name, arguments)
        finally:
            self._idle.put(worker)

    def _read(self, path: Path, name: str, arguments: dict[str, Any]) -> wire_format.Result:
        try:
            result = wire_format.read(path, self.settings.max_result_bytes)
            values = answer_schemas.check(name, result.values, answer_schemas.Asked(arguments, self.settings))
        except ValueError as error:
            log.warning("%r: bad_result: %s", arguments.get("path"), error)
            return _failed("bad_result")
        if fault := values.pop("traceback", None):
            log.warning("%r: the video process failed: %r", arguments.get("path"), fault)
        return wire_format.Result(values, result.missing)

    def _count(self, answer: dict[str, Any]) -> None:
        with self._counting:
            self.cpu_seconds += answer["cpu_seconds"]
            self.peak_bytes = max(self.peak_bytes, answer["peak_bytes"])

    def _replace(self, worker: _Worker) -> _Worker:
        worker.process.kill()
        worker.stop()
        if not worker.has_started:
            raise OSError(
                f"the video process does not start (exit code {worker.process.returncode}): "
                "run `python -m tasks.sandbox.worker` to see why"
            )
        self.restarts += 1
        log.warning("a video process died (exit code %s) and was started again", worker.process.returncode)
        return _Worker(Path(self._folder.name))


@lru_cache(maxsize=1)
def _own(settings: str) -> Sandbox:
    sandbox = Sandbox(SandboxSettings.model_validate_json(settings)).__enter__()
    atexit.register(sandbox.__exit__)
    return sandbox


def _failed(reason: str) -> wire_format.Result:
    return wire_format.Result({"status": "failed", "reason": reason}, {})


def _absent(holds: dict[str, bool]) -> str:
    return ", ".join(kind for kind, does in holds.items() if not does)


def available(settings: SandboxSettings) -> tuple[dict[str, bool], dict[str, str]]:
    """Attempt on this machine what each protection forbids.

    Returns:
        By protection, whether it held; and by protection that the kernel refused to set up, why.

    Raises:
        OSError: no child can be started.
    """
    small = {"strict": False, "seconds": 1.0, "max_result_bytes": 1 << 20, "memory_bytes": 1 << 30, "workers": 1}
    with Sandbox(settings.model_copy(update=small)) as sandbox:
        return sandbox.prove([*REACH, *_LIMITS])
