"""Jobs of `stiv studio`, in SQLite: what is to be made and in which order, what is being made, and what was.

Several processes use one file at the same time: a page that queues, a worker that takes. Each call is one transaction.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

State = Literal["queued", "running", "done", "cancelled", "failed"]
PAGE = 12
"""Videos of one page of the gallery."""
_LIKE = 50
_LAYOUT = 1  # of the table
_WAIT_SECONDS = 30  # for another process that writes
_TABLE = f"""
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    place INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN {get_args(State)}),
    is_stopping INTEGER NOT NULL DEFAULT 0,
    mode TEXT NOT NULL,
    verb TEXT NOT NULL,
    options TEXT NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    seed INTEGER NOT NULL,
    thumbnail TEXT,
    out TEXT NOT NULL DEFAULT '',
    progress TEXT NOT NULL DEFAULT '{{}}',
    queued REAL NOT NULL,
    started REAL,
    ended REAL,
    record TEXT,
    said TEXT NOT NULL DEFAULT '',
    error TEXT
);
CREATE INDEX IF NOT EXISTS in_order ON jobs (state, place);
CREATE INDEX IF NOT EXISTS as_they_ended ON jobs (state, id DESC);
"""


class Asked(NamedTuple):
    """What a job is to make: a verb of ours with options, as its command line takes them."""

    mode: str
    verb: str
    options: dict[str, Any]
    """By name, with underscores; without --out."""
    model: str
    """As people are told it."""
    thumbnail: str | None
    """File with a small picture of what is given."""


class Progress(NamedTuple):
    """How far a job is."""

    step: int = 0
    """Sampling steps done in this call of the model."""
    steps: int = 0
    """Of this call; 0 while the model is loaded."""
    call: int = 0
    """This call of the model, counted from 1."""
    calls: int = 0
    """Of the whole video; 0 where that is not known."""
    seconds: float = 0
    """Since the first step began."""

    @property
    def share(self) -> float | None:
        """Part of the work that is done, 0 to 1; None where it is not known."""
        if not self.steps or not self.calls:
            return None
        return min(1.0, (max(self.call, 1) - 1 + self.step / self.steps) / self.calls)

    @property
    def seconds_left(self) -> float | None:
        """Where the rest takes as long as what is done; None before there is something to go by."""
        share = self.share
        return self.seconds * (1 - share) / share if share else None


class Job(NamedTuple):
    """A row."""

    id: int
    state: State
    is_stopping: bool
    asked: Asked
    prompt: str
    seed: int
    out: Path
    progress: Progress
    started: float | None
    ended: float | None
    record: dict[str, Any] | None
    """The JSON beside the video, once there is one."""
    said: str
    """Lines that the command printed."""
    error: str | None
    """Why it failed, in one line."""

    @property
    def name(self) -> str:
        """That no other job has, for files."""
        return f"{self.id:06d}-seed{self.seed}"


class Videos(NamedTuple):
    """Which videos to find; None and '' allow all."""

    words: str = ""
    seed: int | None = None
    model: str | None = None


class Jobs:
    """The jobs of one studio.

    Args:
        file: of the database; made where it is not there.
        videos: folder that the videos go to.
        inside: by verb that makes a folder, the name of the video in there.

    Raises:
        ValueError: it is no database of ours.
    """

    def __init__(self, file: Path, videos: Path, inside: Mapping[str, str] | None = None) -> None:
        self._file, self._videos, self._inside = file, videos, inside or {}
        file.parent.mkdir(parents=True, exist_ok=True)
        remedy = f"move {file} away, and the studio begins with none; videos stay where they are"
        try:
            with self._open() as database:
                layout = database.execute("PRAGMA user_version").fetchone()[0]
                if layout not in (0, _LAYOUT):
                    raise ValueError(f"{file} is of layout {layout}, not {_LAYOUT}: {remedy}")
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(f"BEGIN IMMEDIATE; {_TABLE} PRAGMA user_version = {_LAYOUT}; COMMIT")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{file} holds no jobs ({error}): {remedy}") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._file, timeout=_WAIT_SECONDS, isolation_level=None)
        database.row_factory = sqlite3.Row
        try:
            database.execute("PRAGMA synchronous = NORMAL")
            yield database
        finally:
            database.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    # ---- by whoever asks

    def add(self, asked: Asked, prompt: str | None = None) -> int:
        """Queue a job behind all others, and return its number.

        Args:
            prompt: the text, where it is not an option; with a line for each prompt where there are several.
        """
        seed = int(asked.options.get("seed", 0))
        prompt = str(asked.options.get("prompt", "")) if prompt is None else prompt
        with self._change() as database:
            place = database.execute("SELECT coalesce(max(place), 0) + 1 FROM jobs").fetchone()[0]
            number = database.execute(
                "INSERT INTO jobs (place, state, mode, verb, options, model, prompt, seed, thumbnail, queued) "
                "VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(place, asked.mode, asked.verb, json.dumps(asked.options), asked.model, prompt, seed),
                    *(asked.thumbnail, time.time()),
                ),
            ).lastrowid
            assert number is not None, "a row was inserted"
            name = f"{number:06d}-seed{seed}"
            inside = self._inside.get(asked.verb)
            out = self._videos / (f"{name}.mp4" if inside is None else f"{name}/{inside}")
            database.execute("UPDATE jobs SET out = ? WHERE id = ?", (str(out), number))
        return number

    def move(self, number: int, by: int) -> None:
        """Put a queued job before the one that is before it (-1), or behind the one behind it (1)."""
        side, order = ("<", "DESC") if by < 0 else (">", "ASC")
        with self._change() as database:
            here = database.execute("SELECT place FROM jobs WHERE id = ? AND state = 'queued'", (number,)).fetchone()
            there = (
                here
                and database.execute(
                    f"SELECT id, place FROM jobs WHERE state = 'queued' AND place {side} ? ORDER BY place {order}",
                    (here["place"],),
                ).fetchone()
            )
            if there:
                database.execute("UPDATE jobs SET place = ? WHERE id = ?", (there["place"], number))
                database.execute("UPDATE jobs SET place = ? WHERE id = ?", (here["place"], there["id"]))

    def stop(self, number: int) -> None:
        """Cancel a job: one that is being made, when its sampling step is done."""
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND state = 'queued'",
                (time.time(), number),
            )
            database.execute("UPDATE jobs SET is_stopping = 1 WHERE id = ? AND state = 'running'", (number,))

    def remove(self, number: int) -> bool:
        """Forget a job that is queued, failed or cancelled, and say whether; one that has a video is not forgotten."""
        ours = "DELETE FROM jobs WHERE id = ? AND state IN ('queued', 'failed', 'cancelled')"
        with self._change() as database:
            return database.execute(ours, (number,)).rowcount == 1

    def queue_again(self, number: int) -> None:
        """Queue a failed or cancelled job once more, behind all others: a long video goes on at its next window."""
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET state = 'queued', place = (SELECT max(place) + 1 FROM jobs), is_stopping = 0, "
                "progress = '{}', queued = ?, started = NULL, ended = NULL, said = '', error = NULL "
                "WHERE id = ? AND state IN ('failed', 'cancelled')",
                (time.time(), number),
            )

    # ---- by whoever makes them

    def take(self) -> Job | None:
        """Return the next job, which is this process's to make from now on; None where none waits."""
        with self._open() as database:
            row = database.execute(
                "UPDATE jobs SET state = 'running', is_stopping = 0, started = ?, ended = NULL, error = NULL "
                "WHERE id = (SELECT id FROM jobs WHERE state = 'queued' ORDER BY place LIMIT 1) AND state = 'queued' "
                "RETURNING *",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    def is_stopping(self, number: int) -> bool:
        """Say whether somebody has cancelled a job that is being made."""
        with self._open() as database:
            row = database.execute("SELECT is_stopping FROM jobs WHERE id = ?", (number,)).fetchone()
        return bool(row and row["is_stopping"])

    def tell(self, number: int, progress: Progress) -> None:
        """Say how far a job is."""
        with self._change() as database:
            database.execute("UPDATE jobs SET progress = ? WHERE id = ?", (json.dumps(progress._asdict()), number))

    def end(
        self,
        number: int,
        state: State,
        said: str = "",
        error: str | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Say how a job ended.

        Args:
            said: what the command printed.
            error: why it failed, in one line.
            record: the JSON beside the video.
        """
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET state = ?, ended = ?, said = ?, error = ?, record = ? WHERE id = ?",
                (state, time.time(), said, error, json.dumps(record) if record else None, number),
            )

    def end_those_of_the_dead(self, error: str) -> int:
        """Say of what was being made by a process that is gone why it ended, and return how many."""
        with self._change() as database:
            return database.execute(
                "UPDATE jobs SET state = CASE is_stopping WHEN 1 THEN 'cancelled' ELSE 'failed' END, ended = ?, "
                "error = ? WHERE state = 'running'",
                (time.time(), error),
            ).rowcount

    # ---- by whoever looks

    def find(self, number: int) -> Job:
        """Return a job.

        Raises:
            LookupError: there is none of this number.
        """
        found = self._rows("WHERE id = ?", number)
        if not found:
            raise LookupError(f"there is no job {number}")
        return found[0]

    def running(self) -> Job | None:
        """Return the job that is being made."""
        return next(iter(self._rows("WHERE state = 'running' ORDER BY started LIMIT 1")), None)

    def waiting(self) -> list[Job]:
        """Return the queued jobs in their order."""
        return self._rows("WHERE state = 'queued' ORDER BY place")

    def without_video(self) -> list[Job]:
        """Return the jobs that failed or were cancelled, the latest first."""
        return self._rows("WHERE state IN ('failed', 'cancelled') ORDER BY ended DESC LIMIT 20")

    def last_change(self) -> tuple[int, float]:
        """Return how many jobs have ended, and when the last one did."""
        with self._open() as database:
            row = database.execute("SELECT count(ended), coalesce(max(ended), 0) FROM jobs").fetchone()
        return row[0], row[1]

    def videos(self, which: Videos, page: int = 0) -> tuple[int, list[Job]]:
        """Return how many videos there are, and those of one page, the latest first."""
        tests, values = ["state = 'done'"], list[Any]()
        if which.words:
            tests.append("instr(lower(prompt), lower(?)) > 0")
            values.append(which.words)
        if which.seed is not None:
            tests.append("seed = ?")
            values.append(which.seed)
        if which.model is not None:
            tests.append("model = ?")
            values.append(which.model)
        where = f"WHERE {' AND '.join(tests)}"
        with self._open() as database:
            count = database.execute(f"SELECT count(*) FROM jobs {where}", values).fetchone()[0]
        return count, self._rows(f"{where} ORDER BY id DESC LIMIT ? OFFSET ?", *values, PAGE, PAGE * page)

    def like(self, job: Job) -> list[Job]:
        """Return the latest other videos of a job's text and seed."""
        same = "WHERE state = 'done' AND prompt = ? AND seed = ? AND id != ? ORDER BY id DESC LIMIT ?"
        return self._rows(same, job.prompt, job.seed, job.id, _LIKE)

    def models(self) -> list[str]:
        """Return the models that made the videos."""
        with self._open() as database:
            rows = database.execute("SELECT DISTINCT model FROM jobs WHERE state = 'done' ORDER BY model").fetchall()
        return [row["model"] for row in rows]

    def _rows(self, rest: str, *values: Any) -> list[Job]:
        with self._open() as database:
            return [_job(row) for row in database.execute(f"SELECT * FROM jobs {rest}", values).fetchall()]


def _job(row: sqlite3.Row) -> Job:
    asked = Asked(row["mode"], row["verb"], json.loads(row["options"]), row["model"], row["thumbnail"])
    return Job(
        row["id"],
        row["state"],
        bool(row["is_stopping"]),
        asked,
        row["prompt"],
        row["seed"],
        Path(row["out"]),
        Progress(**json.loads(row["progress"])),
        row["started"],
        row["ended"],
        None if row["record"] is None else json.loads(row["record"]),
        row["said"],
        row["error"],
    )
