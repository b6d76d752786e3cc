"""A page of ours, served to this machine only, as long as a command shows it."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flows.running.services import TOKEN
from stiv_model.process_exit import die_with_parent


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
    """Serve a page, and say where it is: the address lets in whoever has it.

    Args:
        service: as `flows.running.services` names it.
        env: as of `child`.
    """
    token = secrets.token_urlsafe(24)
    print(f"http://127.0.0.1:{port}/?token={token}   (Ctrl-C ends it)", flush=True)
    with child("flows.running.services", service, str(port), env={**(env or {}), TOKEN: token}) as process:
        yield process
