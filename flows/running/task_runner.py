"""What runs a stage's shards: threads of this process, or a Ray cluster (`engine` of params.yaml)."""

import contextlib
import os
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.running.settings import EngineSettings

_INSTALL = "engine.kind is ray, and the package {} is not installed: pip install 'stiv-platform[ray]'"


def runner(settings: EngineSettings) -> TaskRunner[Any]:
    """Return Prefect's task runner for an engine.

    Raises:
        ValueError: Ray is not installed.
    """
    if settings.kind == "local":
        return ThreadPoolTaskRunner(max_workers=settings.shards_at_once)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read at import
    try:
        from prefect_ray import RayTaskRunner
    except ModuleNotFoundError as error:
        raise ValueError(_INSTALL.format(error.name)) from None
    if settings.address:
        return RayTaskRunner(address=settings.address)
    # a cluster of this machine alone, for as long as the flow runs
    return RayTaskRunner(init_kwargs={"include_dashboard": False, "log_to_driver": False})


def resources(settings: EngineSettings) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which to submit shards, so that Ray reserves CPUs and GPUs for each."""
    if settings.kind == "local":
        return contextlib.nullcontext()
    from prefect_ray.context import remote_options

    return remote_options(num_cpus=settings.cpus_per_shard, num_gpus=settings.gpus_per_shard)
