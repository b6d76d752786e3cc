"""Real ranks that do not each import torch and DeepSpeed for seconds: processes forked from one that has done so.

Run as a script, this file is that process. Each attempt at a run is forked from it anew: its ranks are processes of
their own that meet over gloo, with the environment and the code of `python -m stiv_model.training.train`, and they are
killed as any others are.
"""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from stiv_model.distributed.local_ranks import environment as rank_environment
from stiv_model.process_exit import die_with_parent
from stiv_model.settings import Run, TrainingSettings
from tasks.training.launch import environment

ROOT = Path(__file__).parents[2]


def fork(function: Callable[..., None], ranks: int, *args: Any) -> None:
    """Call `function(rank, *args)` in forked processes that can join each other, until all are done.

    Raises:
        Exception: a rank raised one, or ended otherwise; the others are ended too.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:
        given = (function, ranks, Path(folder), args)
        torch.multiprocessing.start_processes(_call, given, nprocs=ranks, start_method="fork")


def _call(rank: int, function: Callable[..., None], ranks: int, folder: Path, args: tuple[Any, ...]) -> None:
    import torch.distributed as dist

    die_with_parent()
    os.environ |= rank_environment({}, rank, ranks, folder)
    function(rank, *args)
    if dist.is_initialized():
        dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # as torch tears gloo down, a rank may abort although all went well


def run_script(file: str, training: TrainingSettings, *args: Path, timeout: float = 300) -> None:
    """Run a test file as a script, in the environment of ranks."""
    done = subprocess.run(
        [sys.executable, file, *map(str, args)],
        env=environment(training) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout


def listening(process: psutil.Process) -> set[str]:
    """Return the addresses at which a process listens."""
    found = process.net_connections(kind="inet")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


class Attempt:
    """The ranks that take up one run, from their start until all have ended."""

    def __init__(self, pids: list[int], answer: Any, log: Path):
        self.pids, self.answer, self.log = pids, answer, log

    def signal(self, number: signal.Signals, *ranks: int) -> None:
        """Send a signal to some ranks; to all, if none are named."""
        for rank in ranks or range(len(self.pids)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[rank], number)

    def is_alive(self) -> bool:
        """Say whether no rank has ended yet."""
        alive = (psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in self.pids)
        with contextlib.suppress(psutil.NoSuchProcess):
            return all(alive)
        return False

    def wait(self) -> list[int]:
        """Return the exit codes of the ranks, as `subprocess` has them."""
        return json.loads(self.answer.readline())


class Forkserver:
    """The process from which ranks are forked."""

    def __init__(self, training: TrainingSettings):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment(training) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )

    def start(self, work: Path, run: Run, python_path: Path | None = None) -> Attempt:
        """Fork the ranks of a run whose folder is prepared; their output goes to `work`/log.

        Args:
            python_path: a further folder in which they find modules.
        """
        assert self.process.stdin and self.process.stdout
        asked = {"work": str(work), "ranks": run.training.ranks, "path": [str(python_path)] if python_path else []}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return Attempt(json.loads(self.process.stdout.readline()), self.process.stdout, work / "log")

    def finish(self, work: Path, run: Run, python_path: Path | None = None) -> str:
        """Run all ranks to the end, and return what they said."""
        attempt = self.start(work, run, python_path)
        assert attempt.wait() == [0] * run.training.ranks, attempt.log.read_text()
        return attempt.log.read_text()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


# ---- as a script


def serve() -> None:
    """Fork the ranks that each line asks for; answer with their numbers, and when all have ended with their codes."""
    import deepspeed
    import deepspeed.runtime.zero.muon.original_muon

    import stiv_model.monitoring.monitor
    import stiv_model.training.train  # noqa: F401

    assert deepspeed.ops.__compatible_ops__  # asks the compiler what it can, once instead of in every rank
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        work, ranks = Path(asked["work"]), asked["ranks"]
        with tempfile.TemporaryDirectory() as folder:
            told = [rank_environment({}, rank, ranks, Path(folder)) for rank in range(ranks)]
            pids = [_fork_rank(work, environment, asked["path"]) for environment in told]
            print(json.dumps(pids), flush=True)
            print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)


def _fork_rank(work: Path, told: dict[str, str], python_path: list[str]) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.environ |= told
        log = os.open(work / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        sys.path[:0] = python_path
        code = _train(work)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train(work: Path) -> int:
    """Do what the interpreter does for `python -m stiv_model.training.train WORK`, and return the exit code."""
    from stiv_model.training import train

    die_with_parent()
    sys.argv = ["stiv_model.training.train", str(work)]
    try:
        train.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve()
