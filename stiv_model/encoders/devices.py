"""Where networks compute that are not trained, and the copies between there and the host.

On CUDA the copies go through pinned memory, and nothing waits before `Pending.result`; elsewhere the same functions
make plain copies.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def check(device: str | torch.device, place: str) -> torch.device:
    """Return a device that networks can be put on.

    Args:
        device: as `stiv_model.settings.Device`, or another of torch's.
        place: the setting that names it, for the message.

    Raises:
        ValueError: it is cuda, and torch finds no GPU.
    """
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"{place} is {device}, but torch {torch.__version__} finds no GPU here: set it to cpu in params.yaml, or "
            "run where `stiv doctor` names one"
        )
    return found


class Pending:
    """A tensor on its way to the host.

    Args:
        x: on any device, any shape; what computes it may still be at work.
    """

    def __init__(self, x: Tensor):
        self._arrived: torch.cuda.Event | None = None
        if x.is_cuda:
            self._host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
            self._host.copy_(x.contiguous(), non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._host = x.cpu().contiguous()

    def result(self) -> Tensor:
        """Wait for the tensor (...), and return it, contiguous, in ordinary memory of the host."""
        if self._arrived is None:
            return self._host
        self._arrived.synchronize()
        return self._host.clone()  # pinned memory is scarce, and is free for the next one then


def send(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor (...) on a device; one that goes from the host to a GPU may still be on its way."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


@contextmanager
def repeatable(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Let convolutions on a GPU be those of `dtype`, and the same bits for the same input.

    Unless told so, cuDNN rounds factors of float32 to ten bits (TF32), and takes whatever kernel was the fastest.
    """
    if device.type != "cuda":
        yield
        return
    is_short = dtype != torch.float32
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=is_short):
        yield
