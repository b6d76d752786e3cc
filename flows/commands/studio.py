"""The command `stiv studio`: a local page on which videos are asked for, made one after the other, and looked at."""

import subprocess
import time
from pathlib import Path

from flows.commands import web_page
from flows.commands.studio_folder import FOLDER, Folder
from flows.running import locks
from flows.running.server import refuse_taken
from tasks.applications.studio_jobs import Jobs

_LOOK_SECONDS = 0.5
_YOUNG_SECONDS = 20  # a worker that ends before it is as old as this never came to work
_MOST_YOUNG = 3
_ENDED = "the studio was ended while this was being made: queue it again"


def studio(*, port: int = 8502, folder: Path = Path("studio")) -> None:
    """Serve a page that makes videos on this machine, until Ctrl-C; the address that is printed lets you in.

    The page takes what the commands take: text, pictures, a video to go on with or to fill in between. Videos are made
    one after the other by one process that keeps the model; what waits can be put in another order, and what is being
    made ends within a sampling step when it is cancelled. All of it is kept in the folder: jobs, videos with their
    settings, given files. Models are those of checkpoints/ and pipelines/, and the one that comes with the package.

    Args:
        port: Port for the page on this machine.
        folder: Folder for jobs, videos and given files.

    examples:
      stiv studio
      stiv studio --port 9000 --folder films      (elsewhere: ssh -L 9000:127.0.0.1:9000 HOST)

    Raises:
        ValueError: no port has this number, it is in use, or a studio is open on the folder.
        OSError: page or worker ended.
    """
    web_page.check_port(port, 8502)
    here = Folder(folder)
    refusal = f"{{holder}} has the studio of {folder} open: use its page, or end it; nothing was touched"
    with locks.hold(here.lock, f"port {port}", refusal):
        refuse_taken(port)
        jobs = here.jobs()
        jobs.end_those_of_the_dead(_ENDED)
        try:
            with web_page.open_page("studio", port, {FOLDER: str(folder)}) as page:
                _keep_working(page, jobs, folder)
        except KeyboardInterrupt:
            return
        finally:
            jobs.end_those_of_the_dead(_ENDED)
    raise OSError(f"the page ended with exit code {page.returncode}: if port {port} is taken, name another with --port")


def _keep_working(page: subprocess.Popen[bytes], jobs: Jobs, folder: Path) -> None:
    """Have a worker as long as the page is served: where one ends, its job is told so, and another one begins.

    Raises:
        OSError: workers end before they come to work.
    """
    young = 0
    while page.poll() is None:
        began = time.monotonic()
        with web_page.child("flows.commands.studio_worker", str(folder)) as worker:
            while page.poll() is None and worker.poll() is None:
                time.sleep(_LOOK_SECONDS)
        if page.poll() is not None:
            return
        code = worker.returncode
        had = jobs.end_those_of_the_dead(
            f"the process that made it ended with exit code {code}"
            f"{', killed from outside, as where memory is short' if code == -9 else ''}: queue it again"
        )
        young = 0 if had or time.monotonic() - began > _YOUNG_SECONDS else young + 1
        if young == _MOST_YOUNG:
            raise OSError(f"the process that makes videos ends at once, with exit code {code}: its last lines say why")
