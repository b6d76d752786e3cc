"""What stage `latents` calls its files; the shards are called as the table's column `shard` says."""

TABLE = "latents.parquet"
"""One row per clip: whether it was encoded, and where in the shards it is."""
ALIGNMENT_BYTES = 64
"""In a shard, each clip's entry and each tensor in it start at a multiple of this."""
