"""A page of ours, served to this machine only, as long as a command shows it."""

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flows.running.services import TOKEN
from stiv_model.process_exit import die_with_parent

_LOOK_SECONDS = 0.1


def check_port(port: int, example: int) -> None:
    """Refuse a number that is no port.

    Raises:
        ValueError: it is none.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"--port is {port}: give one from 1024 to 65535, such as {example}")


@contextmanager
def child(module: str, *words: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of ours as a process that ends with the block, and with this process however that ends.

    Args:
        env: of the process, beside what this one has.
    """
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    # what is set for another page of Streamlit, such as a path before its address, is not for ours
    own = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    tied = partial(die_with_parent, parent=os.getpid())
    command = [sys.executable, "-m", module, *words]
    with subprocess.Popen(command, env=own | {"PYTHONPATH": path} | dict(env or {}), preexec_fn=tied) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def open_page(service: str, port: int, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a page, and say where it is as soon as it can be opened: the address lets in whoever has it.

    Args:
        service: as `flows.running.services` names it.
        env: as of `child`.
    """
    print("the page is being opened: its address comes as soon as it answers", file=sys.stderr)
    token = secrets.token_urlsafe(24)
    said = f"http://127.0.0.1:{port}/?token={token}   (Ctrl-C ends it)"
    with child("flows.running.services", service, str(port), env={**(env or {}), TOKEN: token}) as process:
        threading.Thread(target=_say, args=(said, port, process), daemon=True).start()
        yield process


def _say(said: str, port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                print(said, flush=True)
                return
        time.sleep(_LOOK_SECONDS)
