"""`stiv server`: a Prefect server of the workspace's own, for whoever starts things by hand."""

import os
import shlex
import time
from pathlib import Path

from flows.running.server import only_one, refuse_ended, started

_HOME = Path(".prefect")
_CLIENT = _HOME / "client.env"
_UNSET = """# to be sourced; what was said to another Prefect goes
for name in $(env | sed -n 's/^\\(PREFECT_[A-Z0-9_]*\\)=.*/\\1/p'); do unset "$name"; done
"""


def server(port: int = 4200) -> None:
    """Run a Prefect server on this machine until Ctrl-C; who has the secret that is printed with its address gets in.

    It listens on the loopback interface, keeps its database and its log in .prefect/, and writes what a shell needs
    to use it to .prefect/client.env, which only you can read.

    Args:
        port: Port for the server on this machine.

    examples:
      stiv server &
      source .prefect/client.env && stiv serve

    Raises:
        ValueError: the port is in use, or another server or demo is at work in this workspace.
        OSError: the server ended.
    """
    with only_one(_HOME, port), started(_HOME, port) as (env, process):
        write_client(_CLIENT, env)
        print(f"http://127.0.0.1:{port}   (its page asks for the line in {_HOME}/auth; Ctrl-C ends it)")
        print(f"in other shells: source {_CLIENT}", flush=True)
        try:
            while True:
                refuse_ended(process, _HOME / "server.log")
                time.sleep(0.5)
        except KeyboardInterrupt:
            return
        finally:
            _CLIENT.unlink(missing_ok=True)


def write_client(path: Path, env: dict[str, str]) -> None:
    """Write what a shell needs to use the server with this environment: lines to be sourced, for the user alone."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    mine = {name: value for name, value in env.items() if os.environ.get(name) != value}
    path.write_text(_UNSET + "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(mine.items())))
