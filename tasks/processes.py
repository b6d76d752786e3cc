"""Run a child process with its lines in our log, and let it not outlive us."""

import logging
import subprocess
from collections.abc import Callable

from stiv_model.lifetime import die_with_parent

log = logging.getLogger(__name__)


def run(
    command: list[str],
    environment: dict[str, str] | None = None,
    on_line: Callable[[str], None] = log.info,
) -> None:
    """Run `command`, handing each line it prints to `on_line`.

    Raises:
        RuntimeError: it ended with another exit code than 0; the message carries its last lines.
    """
    last: list[str] = []
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=die_with_parent,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = [*last[-4:], line.rstrip()]
            on_line(line.rstrip())
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode} from {' '.join(command)}: " + " | ".join(last))
