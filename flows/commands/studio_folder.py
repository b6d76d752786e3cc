"""The folder of `stiv studio`, where its jobs, videos, given files and small pictures lie, and a job as it is run."""

from pathlib import Path
from typing import Any, NamedTuple

from flows.commands import video_record
from tasks.applications import view_files
from tasks.applications.studio_jobs import Job, Jobs
from tasks.pages.hidden_signs import visible

INSIDE = {"views": view_files.ORBIT}
"""By verb that makes a folder, the video in there."""
FOLDER = "STIV_STUDIO_FOLDER"
"""Names the folder to the page, in the environment."""


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


def files_of(job: Job) -> list[Path]:
    """Return what a job has made: the video and its record; of a verb that makes a folder all in there."""
    if job.asked.verb in INSIDE:
        return sorted(path for path in job.out.parent.iterdir() if path.is_file())
    return [job.out, video_record.beside(job.out)]


def argv_of(verb: str, options: dict[str, Any], video: Path) -> list[str]:
    """Return options as the command line of a verb has them, which makes a video."""
    words = [f"--out={video.parent if verb in INSIDE else video}"]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [] if value in (None, False) else [f"{option}={value}"]
    return words
