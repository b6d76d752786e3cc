"""`stiv serve`: offer the deployments to a Prefect server and run what it asks for, in this process's children."""

import os
from typing import cast

import prefect
from prefect.deployments.runner import EntrypointType, RunnerDeployment

from flows import stages
from flows.pipeline import pipeline

NAME = "full-pipeline"


def serve() -> None:
    """Serve stiv/full-pipeline, and stiv/STAGE for each stage, to the server at PREFECT_API_URL, until stopped.

    example:
      prefect server start &
      export PREFECT_API_URL=http://127.0.0.1:4200/api
      stiv serve &
      prefect deployment run stiv/full-pipeline --watch
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ValueError(
            "PREFECT_API_URL is not set, so there is no server to serve to: start one (prefect server start) "
            "and export PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    prefect.serve(*deployments(), limit=1)  # one at a time: DVC locks the repository


def deployments() -> list[RunnerDeployment]:
    """Return the whole pipeline, and one deployment per stage."""
    # by module, not by file: the context that a stage inherits names the flow's module
    whole = pipeline.to_deployment(
        NAME,
        description="Every stage of dvc.yaml that is out of date.",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    single = [
        pipeline.to_deployment(
            stage,
            parameters={"stages": [stage]},
            description=f"Only stage {stage}.",
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for stage in stages.in_order()
    ]
    return cast(list[RunnerDeployment], [whole, *single])  # a coroutine only where an event loop runs
