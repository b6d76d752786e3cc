"""`stiv doctor`: what this machine can run, and what is missing."""

import sys
from pathlib import Path

from flows.params import load_params
from stiv_model.errors.redaction import redact
from tasks.operations.doctor import examine, render


def doctor() -> None:
    """Say what this machine can run, and what is missing; exit code 1 when something is missing.

    examples:
      stiv doctor && stiv pipeline
    """
    params = load_params()
    findings = examine(Path.cwd(), params.sandbox, params.training)
    print(redact(render(findings)))
    if any(finding.state == "missing" for finding in findings):
        sys.exit(1)
