"""The command `stiv browse`: a local page to filter shots and clips by any score, and to play them."""

import os
import secrets
import subprocess
import sys
from functools import partial
from pathlib import Path

from flows.running.server import refuse_taken
from flows.running.services import TOKEN
from stiv_model.process_exit import die_with_parent
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
    if not 1 <= port <= 65535:
        raise ValueError(f"--port is {port}: give one from 1024 to 65535, such as 8501")
    shots = Path("data/shots") / tables.SHOT_TABLE
    if not shots.exists():
        raise FileNotFoundError(f"{shots} does not exist: run stiv pipeline, or dvc repro, first")
    refuse_taken(port)
    token = secrets.token_urlsafe(24)
    command = [sys.executable, "-m", "flows.running.services", "browse", str(port)]
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    print(f"http://127.0.0.1:{port}/?token={token}   (Ctrl-C ends it)", flush=True)
    # what is set for another page of Streamlit, such as a path before its address, is not for this one
    env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    tied = partial(die_with_parent, parent=os.getpid())
    with subprocess.Popen(command, env=env | {"PYTHONPATH": path, TOKEN: token}, preexec_fn=tied) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            return
    if code:
        raise OSError(f"the page ended with exit code {code}: if port {port} is taken, name another with --port")
