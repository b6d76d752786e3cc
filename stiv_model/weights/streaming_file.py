"""A safetensors file that is written one tensor at a time, so that what it holds is never in memory whole."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

_ALIGNMENT = 8  # of the first tensor, as safetensors itself pads the header


class StreamedFile:
    """A new file of float32 tensors whose names and shapes are known, to be put in any order; a context manager.

    When it ends without an exception the file is durable. With names in alphabetical order it is byte for byte what
    `safetensors.torch.save_file` makes of the same tensors.

    Args:
        path: must not exist.
        shapes: by name, in the order in which they lie in the file.
        metadata: text for its header.
        on_write: gets all bytes in the order in which they are written, for instance to hash them.

    Raises:
        FileExistsError: `path` exists.
    """

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, Sequence[int]],
        metadata: Mapping[str, str] | None,
        on_write: Callable[[bytes | memoryview], object] | None = None,
    ):
        self.path, self.shapes, self.on_write = path, shapes, on_write
        header, self.starts = _layout(shapes, metadata)
        self.left = set(shapes)
        self.memory = torch.empty(max(map(math.prod, shapes.values()), default=0))
        self.file = path.open("xb")
        self._write(header)

    def put(self, name: str, tensor: Tensor) -> None:
        """Write one of the tensors, float32 and of the shape announced for its name, from whatever device it is on.

        Raises:
            ValueError: it does not belong here, was put before, or is not of the shape and type that were announced.
        """
        if name not in self.left:
            raise ValueError(f"{self.path}: {name} is put once more than it was announced")
        if list(tensor.shape) != list(self.shapes[name]) or tensor.dtype != torch.float32:
            raise ValueError(
                f"{self.path}: {name} is put as {tensor.dtype} {tuple(tensor.shape)}, but was announced as "
                f"{torch.float32} {tuple(self.shapes[name])}"
            )
        self.left.remove(name)
        self.file.seek(self.starts[name])
        flat = self.memory[: tensor.numel()]  # one copy for all: those of many sizes would fragment the heap
        flat.view(tensor.shape).copy_(tensor.detach())
        self._write(flat.numpy().data)

    def _write(self, content: bytes | memoryview) -> None:
        if self.on_write:
            self.on_write(content)
        self.file.write(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make the file durable.

        Raises:
            ValueError: tensors that were announced are not in it.
        """
        with self.file:
            if kind:
                return
            if self.left:
                raise ValueError(f"{self.path}: {len(self.left)} tensors were not put, {min(self.left)} first")
            self.file.flush()
            os.fsync(self.file.fileno())


def _layout(shapes: Mapping[str, Sequence[int]], metadata: Mapping[str, str] | None) -> tuple[bytes, dict[str, int]]:
    """Return the bytes before the first tensor, and where in the file each begins."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    starts, end = {}, 0
    for name, shape in shapes.items():
        starts[name], end = end, end + torch.float32.itemsize * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [starts[name], end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    text = len(text).to_bytes(8, "little") + text
    return text, {name: len(text) + start for name, start in starts.items()}
