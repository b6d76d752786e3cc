"""How much memory tensors hold at the same time."""

from typing import Any

from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Held(TorchDispatchMode):
    """Notes the most bytes that tensors made inside it hold at any moment.

    What operations are given and none of them made is not counted: tensors from before, and mapped files.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {one.cdata for one, _ in _storages((args, kwargs))}
        out = function(*args, **(kwargs or {}))
        self.made = {place: one for place, one in self.made.items() if not one[0].expired()}
        self.made |= {one.cdata: (one, size) for one, size in _storages(out) if one.cdata not in given}
        self.peak = max(self.peak, sum(size for _, size in self.made.values()))
        return out


def _storages(tree: Any) -> list[tuple[StorageWeakRef, int]]:
    """Return all storages, those of tensors on the meta device excepted, and their bytes."""
    leaves = (leaf.untyped_storage() if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(tree))
    storages = [leaf for leaf in leaves if isinstance(leaf, UntypedStorage) and leaf.device.type != "meta"]
    return [(StorageWeakRef(storage), storage.nbytes()) for storage in storages]
