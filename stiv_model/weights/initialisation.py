"""The initial weights of a model, one at a time: no process ever holds all of them.

The model is built twice on the meta device, which has shapes but no values. The first time says which of the
operations that fill tensors are of which parameter. The second time each of them is executed on a tensor that exists
for that moment, so that the same random numbers are drawn, in the same order, as by `StivTransformer(...)` itself.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import ModelSettings

_aten = torch.ops.aten
_DRAWS = {_aten.uniform_.default, _aten.normal_.default}
_FILLS = _DRAWS | {_aten.zero_.default, _aten.fill_.Scalar}
_MAKES = {_aten.zeros.default, _aten.ones.default}
_IGNORED = {_aten.empty.memory_format, _aten.detach.default}

Take = Callable[[str, Tensor], None]
"""Gets a parameter: its name, and its whole value."""


def fill(settings: ModelSettings, is_video: bool, seed: int, take: Take) -> None:
    """Pass each parameter of `StivTransformer(settings, is_video)`, built after `manual_seed(seed)`, to `take`.

    Args:
        take: gets the name and the whole value, float32 in the CPU's memory, which is overwritten afterwards. It gets
            each parameter once, in the order in which they are initialised.
    """
    watch = _Watch()
    model = _build(settings, is_video, watch)
    names = {_storage(parameter): name for name, parameter in model.named_parameters()}
    filled = [names.get(storage) for storage in watch.storages]
    last = {name: index for index, name in enumerate(filled) if name}
    missing = set(names.values()) - last.keys()
    assert not missing, f"nothing fills {', '.join(sorted(missing))}"
    # of one piece of memory: those of many sizes, allocated and freed, leave the heap as large as half the model
    memory = torch.empty(max(tensor.numel() for tensor in watch.held))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _build(settings, is_video, _Replay(filled, last, memory, take))


def _build(settings: ModelSettings, is_video: bool, mode: TorchDispatchMode) -> StivTransformer:
    with torch.device("meta"), mode:
        return StivTransformer(settings, is_video)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Watch(TorchDispatchMode):
    """Notes which tensors are filled, in order; they are held, so that no address is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Tensor] = []

    @property
    def storages(self) -> list[int]:
        return [_storage(tensor) for tensor in self.held]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function in _FILLS | _MAKES:
            self.held.append(out)
        else:
            assert function in _IGNORED, f"{function} initialises a weight in a way that is not followed"
        return out


class _Replay(TorchDispatchMode):
    """Executes what `_Watch` noted on real tensors, and passes on those that are final."""

    def __init__(self, filled: list[str | None], last: dict[str, int], memory: Tensor, take: Take):
        super().__init__()
        self.events: Iterator[tuple[int, str | None]] = enumerate(filled)
        self.last, self.memory, self.take = last, memory, take

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function in _FILLS | _MAKES:
            index, name = next(self.events)
            is_final = name is not None and index == self.last[name]
            if is_final or function in _DRAWS:
                value = self._execute(function, out.shape, args)
                if name is not None and is_final:
                    self.take(name, value)
        return out

    def _execute(self, function: Any, shape: torch.Size, args: Any) -> Tensor:
        if function in _MAKES:
            return function(list(shape), device="cpu")
        return function(self.memory[: shape.numel()].view(shape), *args[1:])
