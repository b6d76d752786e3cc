"""The command `stiv browse`: a local page to filter shots and clips by any score, and to play them."""

from pathlib import Path

from flows.commands import web_page
from flows.running.server import refuse_taken
from tasks.storage import tables


def browse(port: int = 8501) -> None:
    """Serve a page with every shot and clip on this machine, until Ctrl-C; the address that is printed lets you in.

    The page filters shots by any score, status, reason and word of the caption; it plays them, and shows caption,
    reason and history.

    Args:
        port: Port for the page on this machine.

    examples:
      stiv browse
      stiv browse --port 9000        (elsewhere: ssh -L 9000:127.0.0.1:9000 HOST)

    Raises:
        FileNotFoundError: no shots have been made.
        ValueError: no port has this number.
        OSError: the port is taken.
    """
    web_page.check_port(port, 8501)
    shots = Path("data/shots") / tables.SHOT_TABLE
    if not shots.exists():
        raise FileNotFoundError(f"{shots} does not exist: run stiv pipeline, or dvc repro, first")
    refuse_taken(port)
    with web_page.open_page("browse", port) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            return
    if code:
        raise OSError(f"the page ended with exit code {code}: if port {port} is taken, name another with --port")
