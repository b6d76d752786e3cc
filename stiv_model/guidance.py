"""Classifier-free guidance of text and image together, JIT-CFG (paper, section 2.3.2)."""

from torch import Tensor


def jit(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return F(null, null) + s (F(text, image) - F(null, null)); without an image it is plain text guidance."""
    return unconditional + scale * (conditional - unconditional)


def renormalise(guided: Tensor, conditional: Tensor) -> Tensor:
    """Give `guided` the norm of `conditional`, per sample (paper, appendix A)."""
    dims = tuple(range(1, guided.ndim))
    length = guided.square().sum(dims, keepdim=True).sqrt()
    return guided * conditional.square().sum(dims, keepdim=True).sqrt() / length.clamp_min(1e-12)
