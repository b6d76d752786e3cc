"""What stage `latents` calls its files; the shards are called as the table's column `shard` says."""

TABLE = "latents.parquet"
"""One row per clip: whether it was encoded, and where in the shards it is."""
ALIGNMENT_BYTES = 64
"""In a shard, each clip's entry and each tensor in it start at a multiple of this."""


def clip_bytes(latents: int, tokens: int, text_width: int) -> int:
    """Return the bytes of one clip's entry in a shard: float16, and a byte per token for the mask.

    Args:
        latents: numbers in its latents.
    """
    sizes = (2 * latents, 2 * tokens * text_width, tokens, 2 * text_width)
    return sum(-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size in sizes)
