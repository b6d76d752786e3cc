"""`stiv serve`: offer the deployments to a Prefect server and run what it asks for, in this process's children."""

import asyncio
import os
from hashlib import sha256
from pathlib import Path
from typing import cast

import prefect
from prefect.deployments.runner import EntrypointType, RunnerDeployment

from flows import stages
from flows.pipeline import SERVED_BY, pipeline
from flows.running import dead_runs, locks
from flows.running.api import trouble
from flows.running.server import make_private
from stiv_model.errors.redaction import has_secret, redact

NAME = "full-pipeline"
_HOME = Path(".prefect")


def serve() -> None:
    """Serve stiv/full-pipeline, and stiv/STAGE for each stage, to the server at PREFECT_API_URL, until stopped.

    example:
      stiv server &
      source .prefect/client.env && stiv serve &
      prefect deployment run stiv/full-pipeline --watch

    Raises:
        ValueError: no server is named, or none answers there, or another process serves this workspace to it.
    """
    if not (url := os.environ.get("PREFECT_API_URL")):
        raise ValueError(
            "PREFECT_API_URL is not set, so there is no server to serve to: start one (stiv server), "
            "then: source .prefect/client.env"
        )
    if has_secret(url):
        raise ValueError(
            f"PREFECT_API_URL is {redact(url)}, with a password in it, which Prefect prints with the addresses of its "
            "pages: export PREFECT_API_AUTH_STRING=user:password instead, and the URL without"
        )
    if said := trouble():
        raise ValueError(said)
    offered = deployments()
    make_private(_HOME)
    lock = _HOME / f"serve-{sha256(url.encode()).hexdigest()[:12]}.lock"
    with locks.hold(lock, "stiv serve", "{holder} serves this workspace to that server already: stop it first"):
        asyncio.run(dead_runs.close(is_own_server=False))
        os.environ[SERVED_BY] = str(os.getpid())  # what it runs ends with it
        prefect.serve(*offered, limit=1)  # one at a time: DVC locks the repository


def deployments() -> list[RunnerDeployment]:
    """Return the whole pipeline, and one deployment per stage."""
    # by module, not by file: the context that a stage inherits names the flow's module
    whole = pipeline.to_deployment(
        NAME,
        tags=[dead_runs.tag()],
        description="Every stage of dvc.yaml that is out of date.",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    single = [
        pipeline.to_deployment(
            stage,
            tags=[dead_runs.tag()],
            parameters={"stages": [stage]},
            description=f"Only stage {stage}.",
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for stage in stages.in_order()
    ]
    return cast(list[RunnerDeployment], [whole, *single])  # a coroutine only where an event loop runs
