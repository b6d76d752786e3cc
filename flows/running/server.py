"""A Prefect server of our own, for as long as a block lasts. Everything that is started is stopped again."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from flows.running import locks
from flows.running.code_hash import ROOT
from stiv_model.process_exit import die_with_parent
from tasks.storage import atomic

START_SECONDS = 120
_STOP_SECONDS = 20
_TAKEN_ON = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "NO_PROXY",
    "no_proxy",
)
"""Of the caller's environment, by a server's process."""


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
    """Return what this process and its children need to use the server: its address, its secret, and no telemetry.

    Of the caller's environment everything goes on but what is said to another Prefect, such as a database or a server
    that is exported for all shells; and the loopback interface is reached without a proxy.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    return others | {
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_PROFILES_PATH": str(home.resolve() / "profiles.toml"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_AUTH_STRING": secret(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "DO_NOT_TRACK": "1",
    }


def make_private(home: Path) -> None:
    """Make a folder that only the user can enter: in it are what ran, with its log, and the secret of who may ask."""
    home.mkdir(0o700, parents=True, exist_ok=True)
    home.chmod(0o700)


def secret(home: Path) -> str:
    """Return the authentication string of the server in `home`, `stiv:` and 32 random characters; make it at first.

    It stands in a file that only the user can read, in a folder that only the user can enter.
    """
    make_private(home)
    path = home / "auth"
    if not path.exists():
        with atomic.atomic_write(path) as tmp_path:
            tmp_path.touch(0o600)
            tmp_path.write_text(f"stiv:{secrets.token_urlsafe(24)}\n")
    return path.read_text().strip()


def _of_the_server(env: dict[str, str], home: Path, port: int) -> dict[str, str]:
    """Return the environment of the server's own process: made from what is named here, not from the caller's."""
    origin = f"http://127.0.0.1:{port}"
    return {name: env[name] for name in _TAKEN_ON if name in env} | {
        **{name: value for name, value in env.items() if name.startswith("PREFECT_")},
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")])),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_API_BASE_PATH": "/api",
        "PREFECT_SERVER_API_AUTH_STRING": env["PREFECT_API_AUTH_STRING"],
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home.resolve()}/prefect.db",
        "PREFECT_SERVER_UI_API_URL": f"{origin}/api",
        "PREFECT_UI_API_URL": f"{origin}/api",
        "PREFECT_MESSAGING_BROKER": "prefect.server.utilities.messaging.memory",
        "PREFECT_MESSAGING_CACHE": "prefect.server.utilities.messaging.memory",
    }


@contextlib.contextmanager
def child(
    command: list[str], home: Path, name: str, env: dict[str, str], folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module for as long as the block lasts, its output in `home`/NAME.log.

    Args:
        folder: where it runs; here, unless told otherwise.
    """
    make_private(home)
    with (home / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=env,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(die_with_parent, parent=os.getpid()),
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


def refuse_ended(process: subprocess.Popen[bytes], log: Path) -> None:
    """Fail when a child that is to go on has ended.

    Raises:
        OSError: it has; the message is its last line.
    """
    if process.poll() is not None:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "it said nothing"
        raise OSError(f"{last} ({log}, exit code {process.returncode})")


def only_one(home: Path, port: int) -> contextlib.AbstractContextManager[None]:
    """Return the lock on the workspace's place for a server of its own.

    Raises:
        ValueError: another process holds it.
    """
    make_private(home)
    refusal = "{holder} is at work in this workspace: wait for it, or stop it; nothing was touched"
    return locks.hold(home / "lock", f"http://127.0.0.1:{port}", refusal)


@contextlib.contextmanager
def server(home: Path, port: int) -> Iterator[dict[str, str]]:
    """Run a Prefect server as `started` does; give the environment in which it is used."""
    with started(home, port) as (env, _):
        yield env


@contextlib.contextmanager
def started(home: Path, port: int) -> Iterator[tuple[dict[str, str], subprocess.Popen[bytes]]]:
    """Run a Prefect server with its database in `home`; give the environment in which it is used, and its process.

    Raises:
        ValueError: the port is in use.
        OSError: the server ended, or did not answer in time.
    """
    refuse_taken(port)
    env = environment(home, port)
    command = ["flows.running.services", "prefect", str(port)]
    # in a folder of its own: a prefect.toml, pyproject.toml or .env here would be read as its settings
    with child(command, home, "server", _of_the_server(env, home, port), home) as process:
        wait_until_healthy(process, env["PREFECT_API_URL"], home)
        yield env, process


def wait_until_healthy(process: subprocess.Popen[bytes], api: str, home: Path) -> None:
    """Return when the server answers.

    Raises:
        OSError: it ended, or did not answer in time.
    """
    limit = time.monotonic() + START_SECONDS
    opener = build_opener(ProxyHandler({}))
    while True:
        refuse_ended(process, home / "server.log")
        if time.monotonic() > limit:
            raise TimeoutError(f"no answer from the Prefect server in {START_SECONDS} s: see {home}/server.log")
        with contextlib.suppress(URLError, ConnectionError, TimeoutError), opener.open(f"{api}/health", timeout=2):
            return
        time.sleep(0.3)
