"""Raw videos are opened only behind this fence: in child processes with limits on time, memory and reach.

A hostile or broken file costs its own child process, not the stage: the caller gets a reason for its row. The
other side is `tasks/fence_worker.py`.
"""

import contextlib
import json
import logging
import os
import queue
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tasks.settings import FenceSettings

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[1]
_START_SECONDS = 120
_GRACE_SECONDS = 15
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD")  # the interpreter may need them to start


class _Worker:
    """One `tasks.fence_worker` process."""

    def __init__(self, folder: Path) -> None:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.fence_worker"],
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
        self.network_cut: bool | None = None

    def ask(self, request: dict, seconds: float) -> dict | None:
        """Return the worker's answer, or None if it died or did not answer in time."""
        if self.network_cut is None:
            hello = self._line(_START_SECONDS)
            if hello is None:
                return None
            self.network_cut = hello["network_cut"]
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        except BrokenPipeError:
            return None
        return self._line(seconds)

    def _line(self, seconds: float) -> dict | None:
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


class Fence:
    """A pool of `settings.workers` fenced processes; a context manager, usable from several threads.

    Args:
        settings: the limits. A child that crosses one is killed, and its file is `failed` with a reason:
            timeout, memory, killed, crashed.
    """

    def __init__(self, settings: FenceSettings) -> None:
        self.settings = settings
        self._limits = settings.model_dump(exclude={"workers"})
        self._idle: queue.Queue[_Worker] = queue.Queue()

    def __enter__(self) -> "Fence":
        self._folder = tempfile.TemporaryDirectory(prefix="stiv-fence-")
        self._threads = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="fence")
        for _ in range(self.settings.workers):
            self._idle.put(_Worker(Path(self._folder.name)))
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().stop()
        self._folder.cleanup()

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run one function of `fence_worker.FUNCTIONS` in a fresh child and return what it gave.

        Returns:
            The function's result, arrays included (at least `status`, and `reason` unless ok), or
            `{"status": "failed", "reason": timeout | memory | killed | crashed}`.
        Raises:
            RuntimeError: no worker can be started on this machine.
        """
        worker = self._idle.get()
        try:
            with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
                path = Path(folder) / "result.json"
                request = {"name": name, "arguments": arguments, "limits": self._limits, "result": str(path)}
                answer = worker.ask(request, self.settings.seconds + _GRACE_SECONDS)
                if answer is None:
                    worker = self._replace(worker)
                    return {"status": "failed", "reason": "crashed"}
                return _result(path) if answer["status"] == "ok" else answer
        finally:
            self._idle.put(worker)

    def map(self, name: str, arguments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Call one function for each of many files, `workers` at once; results in the order given."""
        return list(self._threads.map(lambda one: self.call(name, one), arguments))

    def _replace(self, worker: _Worker) -> _Worker:
        worker.process.kill()
        worker.stop()
        if worker.network_cut is None:
            raise RuntimeError(
                f"the video process does not start (exit code {worker.process.returncode}): "
                "run `python -m tasks.fence_worker` to see why"
            )
        log.warning("a video process died (exit code %s) and was started again", worker.process.returncode)
        return _Worker(Path(self._folder.name))


def _result(path: Path) -> dict[str, Any]:
    result = json.loads(path.read_text())
    arrays = path.with_suffix(".npz")
    if arrays.exists():
        with np.load(arrays, allow_pickle=False) as loaded:
            result |= {name: loaded[name] for name in loaded.files}
    return result


def available() -> dict[str, bool]:
    """Return which fences this machine gives, by running into each: time, memory, crash, network."""
    limits = FenceSettings(seconds=1.0, memory_bytes=1 << 30, max_size_bytes=1, max_pixels=1, max_frames=1, workers=1)
    wanted = {"time": "timeout", "memory": "memory", "crash": "crashed", "network": "network"}
    with Fence(limits) as fence:
        return {kind: fence.call(f"prove_{kind}", {}).get("reason") == reason for kind, reason in wanted.items()}
