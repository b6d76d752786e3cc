"""The command `stiv browse`: a local page to filter shots and clips by any score, and to play them."""

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("browse_page.py")
_QUIET = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
}


def browse(port: int = 8501) -> None:
    """Serve a page with every shot and clip at http://127.0.0.1:PORT, to this machine only, until Ctrl-C.

    It filters by any score, status, reason and word of the caption; plays the clip; shows caption, reason and history.

      stiv browse
      stiv browse --port 9000        (elsewhere: ssh -L 9000:127.0.0.1:9000 HOST)

    Raises:
        FileNotFoundError: no shots have been made.
        ValueError: no port has this number.
        OSError: the port is taken.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"--port is {port}: give one from 1024 to 65535, such as 8501")
    shots = Path("data/shots/shots.parquet")
    if not shots.exists():
        raise FileNotFoundError(f"{shots} does not exist: run stiv pipeline, or dvc repro, first")
    command = [sys.executable, "-m", "streamlit", "run", str(PAGE), "--server.address", "127.0.0.1"]
    command += ["--server.port", str(port), *(word for name, value in _QUIET.items() for word in (f"--{name}", value))]
    print(f"http://127.0.0.1:{port}   (Ctrl-C ends it)")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            return
    if code:
        raise OSError(f"the page ended with exit code {code}: if port {port} is taken, name another with --port")
