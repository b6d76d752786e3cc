"""Settings of what runs the shards. Values live in params.yaml, types here."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from stiv_model.settings import Settings


class EngineSettings(Settings):
    """What runs the shards of the data engine's stages; it changes no byte of their output."""

    kind: Literal["local", "ray"]
    """local: threads on this machine, over the sandbox's processes; ray: the tasks of a Ray cluster."""
    shards_at_once: PositiveInt
    """Shards that the local engine runs at the same time; Ray runs as many as it has room for."""
    address: str | None
    """Address of a running Ray cluster, such as ray://head:10001; null starts one on this machine."""
    cpus_per_shard: PositiveInt
    """CPUs Ray reserves per shard; a shard keeps `sandbox.workers` of them busy."""
    gpus_per_shard: NonNegativeFloat
    """GPUs Ray reserves per shard, for scores and encoders on one; a fraction lets several shards share a GPU."""
    source_cache_bytes: PositiveInt
    """Most bytes of a bucket's objects that a machine keeps in `.cache/media`. Those used least recently go; those in
    use stay, and what is needed again is fetched again. Of no matter where `source` is a folder."""


class PipelineSettings(Settings):
    """When the pipeline repeats a stage that has changed."""

    retrain_hours: NonNegativeFloat
    """A training whose last run took longer than this, hours, is not repeated when only code has changed;
    `stiv pipeline --retrain NAME` repeats it."""


class CheckSettings(Settings):
    """How what stages take from earlier ones is compared with what those made; it changes no byte of an output."""

    days: NonNegativeFloat
    """A file is hashed when anything about it has changed, and when it was hashed last more than this many days ago;
    0 hashes every file before every stage."""
