"""What stage `latents` calls its files; the shards are called as the table's column `shard` says."""

TABLE = "latents.parquet"
"""One row per clip: whether it was encoded, and where in the shards it is."""
