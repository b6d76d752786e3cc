"""How large a clip's latents will be, by the settings alone: without torch, which takes seconds to import."""

from flows.params import Params
from stiv_model.latents.folder import ALIGNMENT_BYTES


def latent_sides(params: Params, downsampling: int) -> tuple[int, int]:
    """Return the rows and columns of the latents that the settings will make.

    Args:
        downsampling: pixels that the VAE turns into one latent, on each side.
    Raises:
        ValueError: it does not divide the sides.
    """
    sides = params.latents.height, params.latents.width
    if downsampling < 1 or any(side % downsampling for side in sides):
        raise ValueError(
            f"--downsampling is {downsampling}, which does not divide latents.height {sides[0]} and latents.width "
            f"{sides[1]}: give the VAE's pixels per latent, such as 8"
        )
    return params.latents.height // downsampling, params.latents.width // downsampling


def clip_bytes(params: Params, downsampling: int) -> int:
    """Return the size of one clip in the latents that the settings will make, bytes: float16, and a byte per token.

    Args:
        downsampling: pixels that the VAE turns into one latent, on each side.

    Raises:
        ValueError: it does not divide the sides.
    """
    rows, columns = latent_sides(params, downsampling)
    latents = 2 * params.latents.frames * params.model.latent_channels * rows * columns
    tokens, pooled = (2 * count * params.model.text_width for count in (params.text.tokens, 1))
    parts = (latents, tokens, params.text.tokens, pooled)
    return sum(-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size in parts)
