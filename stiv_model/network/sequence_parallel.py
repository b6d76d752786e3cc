"""Sequence parallelism: the temporal tokens of each sample shared out over a few ranks (docs/sequence.md).

A rank holds all spatial tokens of its share of the temporal ones. All of a block but temporal attention needs no other
temporal token; there, an all-to-all gives each rank all temporal tokens of its share of the spatial ones, and a second
one takes them back (as DeepSpeed-Ulysses does, arXiv 2309.14509, which shares out heads instead). Masking keeps the
same spatial tokens in all frames, so the shares are even under it too.

Shapes: B batch, T temporal tokens, S spatial tokens, D width, R ranks of the group. A group of None is one rank:
nothing is shared, nothing moves.
"""

from typing import Any

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from stiv_model.network.masking import TokenMask


def new_group(ranks: int) -> ProcessGroup | None:
    """Return the group of this rank and its neighbours, or None for a group of one; all ranks call this together.

    Rank r of the run is in group r // ranks: ranks that stand next to each other, on one node.

    Raises:
        ValueError: the ranks of the run cannot be grouped evenly.
    """
    world = dist.get_world_size()
    if world % ranks:
        raise ValueError(
            f"{world} ranks cannot be grouped by training.sequence_ranks = {ranks}: use a divisor of {world}"
        )
    return dist.new_subgroups(ranks)[0] if ranks > 1 else None


def own_temporal(num_temporal: int, num_spatial: int, token_mask: TokenMask, group: ProcessGroup | None) -> slice:
    """Return which of the temporal tokens are this rank's.

    Args:
        num_temporal: temporal tokens of a sample.
        num_spatial: spatial tokens of a frame.
        token_mask: the tokens that the main blocks see.
        group: the ranks that share them.

    Raises:
        ValueError: the ranks would not have equally many temporal tokens, or one of them no spatial token; or temporal
            tokens are masked.
    """
    if group is None:
        return slice(0, num_temporal)
    ranks = dist.get_world_size(group)
    if num_temporal % ranks:
        raise ValueError(
            f"{num_temporal} temporal tokens cannot be shared by training.sequence_ranks = {ranks}: "
            f"use a divisor of {num_temporal}"
        )
    if token_mask.temporal_BK is not None:
        raise ValueError(
            f"training.sequence_ranks is {ranks} and training.temporal_mask_ratio above 0: each sample drops temporal "
            "tokens of its own, which leaves the ranks unequal shares; set the former to 1 or the latter to 0"
        )
    num_kept = num_spatial if token_mask.spatial_BK is None else token_mask.spatial_BK.shape[1]
    if num_kept < ranks:
        raise ValueError(
            f"{num_kept} spatial tokens cannot be shared by training.sequence_ranks = {ranks}: use {num_kept} at most"
        )
    own = num_temporal // ranks
    first = dist.get_rank(group) * own
    return slice(first, first + own)


def shard_spatial(x_BTSD: Tensor, group: ProcessGroup | None) -> Tensor:
    """Exchange own temporal tokens, all spatial (B, T / R, S, D), for own spatial ones, all temporal (B, T, S / R, D).

    Where R does not divide S, the first ranks get one spatial token more.
    """
    if group is None:
        return x_BTSD
    sizes = _shares(x_BTSD.shape[2], group)
    own = [sizes[dist.get_rank(group)]] * len(sizes)
    x_SBTD: Tensor = _AllToAll.apply(rearrange(x_BTSD, "B T S D -> S B T D"), sizes, own, group)
    return rearrange(x_SBTD, "(R S) B T D -> B (R T) S D", R=len(sizes))


def shard_temporal(x_BTSD: Tensor, num_spatial: int, group: ProcessGroup | None) -> Tensor:
    """Undo `shard_spatial`: take (B, T, S / R, D), return (B, T / R, S, D) with all S = `num_spatial` tokens."""
    if group is None:
        return x_BTSD
    sizes = _shares(num_spatial, group)
    own = [x_BTSD.shape[2]] * len(sizes)
    x_SBTD: Tensor = _AllToAll.apply(rearrange(x_BTSD, "B (R T) S D -> (R S) B T D", R=len(sizes)), own, sizes, group)
    return rearrange(x_SBTD, "S B T D -> B T S D")


def gather(x_BTSD: Tensor, group: ProcessGroup | None) -> Tensor:
    """Take own temporal tokens (B, T / R, S, D); return all of them (B, T, S, D), the same on every rank.

    Each rank computes the whole loss, and gets R times its share's part of the gradient: so the average over all
    ranks of the run, which data parallelism takes, is the gradient.
    """
    if group is None:
        return x_BTSD
    return _Gather.apply(x_BTSD, group)


def _shares(num_spatial: int, group: ProcessGroup) -> list[int]:
    """Return how many spatial tokens each rank gets: the first ones have one more where they cannot be equal."""
    least, more = divmod(num_spatial, dist.get_world_size(group))
    return [least + (rank < more) for rank in range(dist.get_world_size(group))]


class _AllToAll(torch.autograd.Function):
    """Send rows (dim 0) to the ranks in turn, receive theirs; the gradient goes the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sends: list[int], receives: list[int], group: ProcessGroup) -> Tensor:
        ctx.sends, ctx.receives, ctx.group = sends, receives, group
        return _all_to_all(rows, sends, receives, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(rows, ctx.receives, ctx.sends, ctx.group), None, None, None


def _all_to_all(rows: Tensor, sends: list[int], receives: list[int], group: ProcessGroup) -> Tensor:
    received = rows.new_empty(sum(receives), *rows.shape[1:])
    dist.all_to_all_single(received, rows.contiguous(), receives, sends, group=group)
    return received


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTSD: Tensor, group: ProcessGroup) -> Tensor:
        ctx.rank, ctx.ranks = dist.get_rank(group), dist.get_world_size(group)
        parts = x_BTSD.new_empty(ctx.ranks * len(x_BTSD), *x_BTSD.shape[1:])
        dist.all_gather_single(parts, x_BTSD.contiguous(), group=group)
        return rearrange(parts, "(R B) T S D -> B (R T) S D", R=ctx.ranks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx_BTSD: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks * dx_BTSD.chunk(ctx.ranks, dim=1)[ctx.rank], None
