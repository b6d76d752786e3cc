"""The folder of `stiv studio`, where its jobs, videos, given files and small pictures lie, and a job as it is run."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from tasks.applications import view_files
from tasks.applications.studio_jobs import Job, Jobs
from tasks.pages.hidden_signs import visible

INSIDE = {"views": view_files.ORBIT}
"""By verb that makes a folder, the video in there."""
FOLDER = "STIV_STUDIO_FOLDER"
"""Names the folder to the page, in the environment."""
_MARKDOWN = re.compile(r"[!-/:-@\[-`{-~]")  # every sign that Markdown may read


class Folder(NamedTuple):
    """Places in it."""

    top: Path

    @property
    def videos(self) -> Path:
        """Each with its record beside it."""
        return self.top / "videos"

    @property
    def given(self) -> Path:
        """Pictures and videos that people gave, by hash."""
        return self.top / "given"

    @property
    def small(self) -> Path:
        """Small pictures, which are made anew where they are missing."""
        return self.top / "small"

    @property
    def lock(self) -> Path:
        """Held as long as a studio is open here."""
        return self.top / "open"

    def jobs(self) -> Jobs:
        """Return the jobs.

        Raises:
            ValueError: there is a file of another program in their place.
        """
        return Jobs(self.top / "jobs.sqlite", self.videos, INSIDE)


def text_of(job: Job) -> str:
    """Return what a job shows, safe to be shown; of several prompts one after the other."""
    return " / ".join(visible(line) for line in job.prompt.splitlines()) or "no text"


def facts_of(job: Job) -> str:
    """Return by what a job is made, as Markdown that shows every sign as it is."""
    return f"{job.asked.mode}, seed {job.seed}, {as_it_is(job.asked.model)}"


def as_it_is(text: str) -> str:
    """Return Markdown that shows a text as it is: a name of a folder may have any sign."""
    return _MARKDOWN.sub(r"\\\g<0>", visible(text))


def argv_of(verb: str, options: dict[str, Any], video: Path) -> list[str]:
    """Return options as the command line of a verb has them, which makes a video."""
    words = [f"--out={video.parent if verb in INSIDE else video}"]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [] if value in (None, False) else [f"{option}={value}"]
    return words
