"""The process of `stiv studio` that owns the model: it makes the jobs of a folder, one after the other.

A job is a command line of ours and is run as one, so that a video of the studio is the video of the command.
"""

import contextlib
import gc
import io
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.__main__ import call, explain
from flows.commands import named_model, video_record
from flows.commands.named_model import NamedModel
from flows.commands.sections import Sections
from flows.commands.studio_folder import Folder, argv_of
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.applications import studio_files
from tasks.applications.studio_jobs import Job, Jobs, Progress

log = logging.getLogger(__name__)

_IDLE_SECONDS = 0.3  # between two looks at an empty queue: a tenth of a millisecond of work each
_TELL_SECONDS = 0.2  # between two notes of how far a job is, at least
_SAID = 2000  # signs that are kept of what a command printed


class StoppedError(Exception):
    """The job was cancelled."""


class Follower:
    """Keeps the model while the same one is asked for, tells how far a job is, and ends it when it is cancelled.

    A pipeline of diffusers shows its sampling steps through `progress_bar`: here the follower takes its place.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._key: object = None
        self._model: StivPipeline | None = None
        self._number, self._calls = 0, 0
        self._progress = Progress()
        self._began = self._told = 0.0

    def begin(self, job: Job) -> None:
        """Follow a job from now on."""
        self._number, self._calls = job.id, 1 if job.asked.verb == "sample" else 0
        self._progress, self._began, self._told = Progress(calls=self._calls), 0.0, 0.0
        self._jobs.tell(job.id, self._progress)

    def open(self, named: NamedModel, settings: Sections, opened: Callable[[], StivPipeline]) -> StivPipeline:
        """Return the model that is kept, or load another one when the kept one is gone (`named_model.Keeper`).

        Raises:
            StoppedError: the job was cancelled.
        """
        self._check()
        stamps = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in named.files()]
        key = (named, settings, stamps)
        if self._model is None or key != self._key:
            self._model = self._key = None
            gc.collect()  # two do not fit where one does
            self._model = opened()
            self._key = key
            vars(self._model)["progress_bar"] = self._bar
        self._check()
        return self._model

    @contextmanager
    def _bar(self, iterable: Any = None, total: int | None = None) -> Iterator["Follower"]:
        """Begin a call of the model, of so many sampling steps."""
        self._check()
        self._began = self._began or time.monotonic()
        self._progress = self._progress._replace(step=0, steps=total or 0, call=self._progress.call + 1)
        yield self

    def update(self, steps: int = 1) -> None:
        """Take down that sampling steps are done.

        Raises:
            StoppedError: the job was cancelled.
        """
        now = time.monotonic()
        self._progress = self._progress._replace(step=self._progress.step + steps, seconds=now - self._began)
        self._check()
        if now - self._told > _TELL_SECONDS:
            self._jobs.tell(self._number, self._progress)
            self._told = now

    def _check(self) -> None:
        if self._jobs.is_stopping(self._number):
            raise StoppedError


def make(job: Job, jobs: Jobs, folder: Folder, follower: Follower) -> None:
    """Make a job, and say how it ended."""
    said = io.StringIO()
    follower.begin(job)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            call(job.asked.verb, argv_of(job.asked.verb, job.asked.options, job.out))
        record = json.loads(video_record.beside(job.out).read_text(encoding="utf-8"))
        studio_files.strip(job.out, folder.small / f"{job.name}.jpg")
    except StoppedError:
        jobs.end(job.id, "cancelled")
    except (Exception, SystemExit) as error:  # whatever stops one job stops no other
        lines = said.getvalue().strip().splitlines()
        reason = explain(error) if isinstance(error, Exception) else str(error.code)
        if isinstance(error, SystemExit) and not isinstance(error.code, str) and lines:
            reason = lines[-1]  # which argparse printed
        if not isinstance(error, ValueError | OSError | SystemExit):
            log.exception("job %d", job.id)
        jobs.end(job.id, "failed", said.getvalue()[-_SAID:], reason)
    else:
        jobs.end(job.id, "done", said.getvalue()[-_SAID:], record=record)


def main(place: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = Folder(Path(place))
    jobs = folder.jobs()
    follower = Follower(jobs)
    named_model.KEEPER.set(follower.open)
    while True:
        job = jobs.take()
        if job is None:
            time.sleep(_IDLE_SECONDS)
        else:
            make(job, jobs, folder, follower)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
