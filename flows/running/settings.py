"""Settings of what runs the shards. Values live in params.yaml, types here."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from stiv_model.settings import Settings


class EngineSettings(Settings):
    """Who runs the shards of the data engine's stages. Decides about no byte of the output."""

    kind: Literal["local", "ray"]
    """Threads of the command over the sandbox's own processes; or the tasks of a Ray cluster."""
    shards_at_once: PositiveInt
    """Of the local engine; Ray runs as many as it has room for."""
    address: str | None
    """Of a Ray cluster that is there, such as ray://head:10001; null starts one on this machine."""
    cpus_per_shard: PositiveInt
    """That Ray gives to one shard; as many as sandbox.workers keeps them busy."""
    gpus_per_shard: NonNegativeFloat
    """That Ray gives to one shard, for scores that run on a GPU; a fraction lets several share one."""
