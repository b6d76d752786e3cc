"""How large a clip's latents will be, by the settings alone: without torch, which takes seconds to import."""

from flows.params import Params
from stiv_model.latents import folder


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
    latents = params.latents.frames * params.model.latent_channels * rows * columns
    return folder.clip_bytes(latents, params.text.tokens, params.model.text_width)
