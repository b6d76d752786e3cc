"""A Prefect server of our own, for as long as a block lasts. Everything that is started is stopped again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from stiv_model.process_exit import die_with_parent

START_SECONDS = 120
_STOP_SECONDS = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refuse_taken(port: int) -> None:
    """Fail at the door when something listens already.

    Raises:
        ValueError: the port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(
                f"--port {port}: 127.0.0.1:{port} is in use: stop what listens there, or leave --port away to take "
                "a free one"
            ) from error


def environment(home: Path, port: int) -> dict[str, str]:
    """Return what this process and its children need to use the server: its address, and no telemetry."""
    return os.environ | {
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "DO_NOT_TRACK": "1",
    }


@contextlib.contextmanager
def child(command: list[str], home: Path, name: str, env: dict[str, str]) -> Iterator[subprocess.Popen]:
    """Run a Python module for as long as the block lasts, its output in `home`/NAME.log."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=env, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def server(home: Path, port: int) -> Iterator[dict[str, str]]:
    """Run a Prefect server with its database in `home`; give the environment in which it is used.

    Raises:
        ValueError: the port is in use.
        OSError: the server ended, or did not answer in time.
    """
    refuse_taken(port)
    env = environment(home, port)
    with child(["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)], home, "server", env) as it:
        limit = time.monotonic() + START_SECONDS
        while True:
            if it.poll() is not None:
                raise OSError(f"the Prefect server ended with exit code {it.returncode}: see {home}/server.log")
            if time.monotonic() > limit:
                raise TimeoutError(f"no answer from the Prefect server in {START_SECONDS} s: see {home}/server.log")
            health = f"{env['PREFECT_API_URL']}/health"
            with contextlib.suppress(URLError, ConnectionError, TimeoutError), urlopen(health, timeout=2):
                break
            time.sleep(0.3)
        yield env
