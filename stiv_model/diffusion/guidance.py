"""Classifier-free guidance (CFG; arXiv 2207.12598): velocities of one model, under several conditions, become one.

Pure functions.

F(x_t, c_T, c_I, t) is the model's velocity with text c_T and image c_I, ∅ the null of either. All tensors have
one shape (B, ...).
"""

from torch import Tensor


def text(conditional: Tensor, without_text: Tensor, scale: float) -> Tensor:
    """Guide by the text alone, the image being seen in both passes; the result has the shape of the velocities.

    F(x_t, ∅, c_I, t) + s (F(x_t, c_T, c_I, t) - F(x_t, ∅, c_I, t))

    Args:
        conditional: velocity (B, ...) with text and image.
        without_text: velocity with the image only.
        scale: s; 1 is no guidance.
    """
    return without_text + scale * (conditional - without_text)


def joint(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Guide by text and image together, JIT-CFG (paper, section 2.3.2); without an image it is `text`.

    F(x_t, ∅, ∅, t) + s (F(x_t, c_T, c_I, t) - F(x_t, ∅, ∅, t))

    Args:
        conditional: velocity (B, ...) with text and image.
        unconditional: velocity with neither.
        scale: s; 1 is no guidance.
    """
    return unconditional + scale * (conditional - unconditional)


def separate(
    conditional: Tensor, without_text: Tensor, unconditional: Tensor, scale: float, image_scale: float
) -> Tensor:
    """Guide by image and text with a scale each, SIT-CFG (paper, section 3.4.2); at equal scales it is `joint`.

    F(x_t, ∅, ∅, t) + s_1 (F(x_t, ∅, c_I, t) - F(x_t, ∅, ∅, t)) + s_2 (F(x_t, c_T, c_I, t) - F(x_t, ∅, c_I, t))

    Args:
        conditional: velocity (B, ...) with text and image.
        without_text: velocity with the image only.
        unconditional: velocity with neither.
        scale: of the text, s_2.
        image_scale: of the image, s_1.
    """
    return unconditional + image_scale * (without_text - unconditional) + scale * (conditional - without_text)


def renormalise(guided: Tensor, conditional: Tensor) -> Tensor:
    """Give `guided` the norm of `conditional`, both (B, ...), per sample (CFG-renormalisation; paper, appendix A).

    |F(x_t, c_T, c_I, t)| F_guided / |F_guided|
    """
    dims = tuple(range(1, guided.ndim))
    guided_norm = guided.square().sum(dims, keepdim=True).sqrt()
    return guided * conditional.square().sum(dims, keepdim=True).sqrt() / guided_norm.clamp_min(1e-12)
