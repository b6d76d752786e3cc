"""Adafactor that is exact under DeepSpeed's ZeRO (paper, section 3.1).

DeepSpeed hands an optimizer flat float32 partitions in which nothing tells one matrix from the next: a stock Adafactor
then neither factors nor agrees with itself on another number of ranks, and it reads the uninitialised padding behind
each parameter. This one knows which elements of which matrix a partition holds, and adds up over the ranks what goes
into the factored second moment: one small vector per sub-group and step, and no other communication.

Shapes: R rows, C columns of a parameter seen as a matrix (in `values_RC` only the rows that the partition
touches), N elements of a parameter in the partition of one rank, S = R + C.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from deepspeed.accelerator import get_accelerator
from torch import Tensor
from torch.nn.functional import pad

from stiv_model.distributed import partitions

_EPSILON = 1e-30  # added to squared gradients, as in axlearn and in the paper of Adafactor

_SECOND_MOMENT = "second_moment"


class MatrixPiece(NamedTuple):
    """A `partitions.Piece` of a parameter that is seen as a matrix."""

    name: str
    rows: int
    columns: int
    start: int
    """Where its elements begin in the parameter."""
    length: int
    offset: int
    """Where they begin in the partition."""

    def of(self, partition: Tensor) -> Tensor:
        """Return a view of these elements (N) of a flat partition."""
        return partition[self.offset : self.offset + self.length]

    def touched(self) -> slice:
        """Return the rows that hold one of these elements or more."""
        return slice(self.start // self.columns, -(-(self.start + self.length) // self.columns))

    def as_rows(self, values_N: Tensor) -> Tensor:
        """Return these elements as whole rows (touched, C), zero where another rank holds the element."""
        before, behind = self.start % self.columns, -(self.start + self.length) % self.columns
        touched = self.touched()
        return pad(values_N, (before, behind)).view(touched.stop - touched.start, self.columns)

    def from_rows(self, values_RC: Tensor) -> Tensor:
        """Undo `as_rows`."""
        before = self.start % self.columns
        return values_RC.flatten()[before : before + self.length]


class Adafactor(torch.optim.Optimizer):
    """Adafactor with momentum and constant betas; for partitions of ZeRO only (`bind`).

    For the gradient G of a matrix W, with learning rate h, weight decay w and e = 1e-30:

        R = beta2 R + (1 - beta2) mean of G² + e over each row;  C likewise over each column
        M = beta1 M + (1 - beta1) h G / sqrt(R C / mean(R))
        W = W - M - h w W

    This is `adafactor_optimizer` of axlearn, the library of the STIV paper (section 3.1: beta1 0.9, beta2 0.999, no
    weight decay), with `multiply_by_parameter_scale=False` and `clipping_threshold=None`: no bias correction, so that
    the first updates are too long (up to 6.6 times at beta2 0.999) and a warm-up is needed. Parameters of three and
    more dimensions are matrices of their first dimension against the rest. A vector is a matrix of one column, for
    which R C / mean(R) = R: the second moment of a vector is not factored.

    M is partitioned like the weights (`exp_avg`). R and C are equal on all ranks and do not depend on their number;
    they are kept by parameter name in `param_groups[0]`.
    """

    def __init__(self, params: Any, lr: float, beta1: float, beta2: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay})
        self.param_groups[0][_SECOND_MOMENT] = {}
        self._pieces: dict[Tensor, list[MatrixPiece]] = {}

    def bind(self, engine: DeepSpeedEngine) -> None:
        """Learn what lies where in the partitions of this rank."""
        self._is_cut = partitions.is_cut(engine)
        rows = partitions.pieces(engine, dist.get_rank())
        for master, row in zip(partitions.masters(engine), rows, strict=True):
            self._pieces[master] = [_as_matrix(piece) for piece in row]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the partitions in `param_groups`: DeepSpeed calls this once per sub-group, of which each is one.

        Raises:
            RuntimeError: `bind` was not called.
        """
        for group in self.param_groups:
            for master in group["params"]:
                if master not in self._pieces:
                    raise RuntimeError("Adafactor does not know this partition: call bind(engine) before step")
                self._update(master, group)

    def _update(self, master: Tensor, group: dict[str, Any]) -> None:
        pieces, gradient, state = self._pieces[master], master.grad, self.state[master]
        assert gradient is not None, "DeepSpeed sets it before each step"
        second_moment = self.param_groups[0][_SECOND_MOMENT]
        if not state:
            state |= {"exp_avg": torch.zeros_like(master)}
            second_moment |= {piece.name: master.new_zeros(piece.rows + piece.columns) for piece in pieces}
        for piece, mean_S in zip(pieces, self._mean_squares(pieces, gradient), strict=True):
            # a loaded checkpoint leaves it in the CPU's memory
            factors_S = second_moment[piece.name] = second_moment[piece.name].to(master.device)
            factors_S.lerp_(mean_S + _EPSILON, 1 - group["beta2"])
            rows_R, columns_C = factors_S.split([piece.rows, piece.columns])
            row_scale_R = (rows_R / rows_R.mean()).rsqrt()[piece.touched()]
            update_RC = piece.as_rows(piece.of(gradient)) * row_scale_R[:, None] * columns_C.rsqrt()
            momentum_N, weight_N = piece.of(state["exp_avg"]), piece.of(master)
            momentum_N.lerp_(piece.from_rows(update_RC) * group["lr"], 1 - group["beta1"])
            weight_N.sub_(momentum_N.add(weight_N, alpha=group["lr"] * group["weight_decay"]))

    def _mean_squares(self, pieces: list[MatrixPiece], gradient: Tensor) -> list[Tensor]:
        """Return for each parameter the mean of the squared gradient over each row, then each column (S)."""
        means = []
        for piece in pieces:
            square_RC = piece.as_rows(piece.of(gradient)).square()
            row_R = gradient.new_zeros(piece.rows)
            row_R[piece.touched()] = square_RC.sum(1)
            means.append(torch.cat([row_R / piece.columns, square_RC.sum(0) / piece.rows]))
        # offloaded partitions lie in the CPU's memory, which NCCL does not reach
        whole = torch.cat(means).to(get_accelerator().current_device_name())
        if self._is_cut:
            dist.all_reduce(whole)
        return list(whole.to(gradient.device).split([piece.rows + piece.columns for piece in pieces]))


def _as_matrix(piece: partitions.Piece) -> MatrixPiece:
    rows = piece.shape[0] if piece.shape else 1
    return MatrixPiece(piece.name, rows, piece.size // rows, piece.start, piece.length, piece.offset)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of all tensors that an optimizer keeps on this rank, weights and gradients apart."""
    kept = [*optimizer.state.values(), *(group.get(_SECOND_MOMENT, {}) for group in optimizer.param_groups)]
    return sum(value.nbytes for own in kept for value in own.values() if isinstance(value, Tensor))
