"""Positions when height, width or length grow from one training to the next (paper, sections 2.4 and 3.3).

Rotary positions are interpolated, where the distance of neighbours shrinks as the video grows, or extrapolated,
where it stays. Learned ones are resized.

Shapes: R rows, C columns, T temporal tokens, D width, H head size.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import isclose
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stiv_model.network import rope
from stiv_model.settings import LearnedSettings, ModelSettings
from stiv_model.weights.metadata import CheckpointMetadata, Role, Trained

_CPU = torch.device("cpu")


class Growth(NamedTuple):
    """How the rotary positions of one axis grew."""

    how: Literal["interpolated", "extrapolated"]
    axis: Literal["space", "time"]
    factor: Fraction
    """A place of the parent stands at this many times its index in the child: 1 where extrapolated."""
    parent: CheckpointMetadata

    @property
    def equality(self) -> str:
        at = "at the old points" if self.how == "interpolated" else "at the old indices"
        return f"positions {self.how} in {self.axis} give the old angles {at}"


def of(
    parents: Mapping[Role, CheckpointMetadata], settings: ModelSettings, is_video: bool, becomes: Trained
) -> Iterator[Growth]:
    """Yield how each axis grew; nothing for one that did not, or whose positions are learned.

    Raises:
        ValueError: the scale of an axis neither stayed nor shrank as the axis grew.
    """
    if isinstance(settings.positions, LearnedSettings):
        return
    here = CheckpointMetadata(model=settings, is_video=is_video, trained=becomes)
    of_time = next((card for card in parents.values() if card.is_video), None)
    found = _axis("space", parents["weights"], here), of_time and _axis("time", of_time, here)
    yield from (growth for growth in found if growth)


def _axis(axis: Literal["space", "time"], parent: CheckpointMetadata, here: CheckpointMetadata) -> Growth | None:
    name = {"space": "spatial_scale", "time": "temporal_scale"}[axis]
    old, new = getattr(parent.model.positions, name), getattr(here.model.positions, name)
    pairs = list(zip(_sizes(axis, parent), _sizes(axis, here), strict=True))
    if old == new:
        has_grown = any(to > of for of, to in pairs)
        return Growth("extrapolated", axis, Fraction(1), parent) if has_grown else None
    for of, to in pairs:
        if isclose(old / new, to / of, rel_tol=1e-6):
            return Growth("interpolated", axis, Fraction(to, of), parent)
    grown = " x ".join(f"{of} to {to}" for of, to in pairs)
    fitting = " or ".join(sorted({f"{old * of / to:g}" for of, to in pairs}))
    raise ValueError(
        f"model.positions.{name} is {new} and was {old} in the parent, but from there to this run {axis} goes from "
        f"{grown} (tokens): set it to {fitting} in params.yaml, which interpolates, or to {old}, which extrapolates"
    )


def _sizes(axis: Literal["space", "time"], card: CheckpointMetadata) -> tuple[int, ...]:
    """Return the sizes of an axis in tokens."""
    assert card.trained is not None, "card.check_parents refuses such a parent"
    if axis == "time":
        return (card.trained.frames // card.model.temporal_patch,)
    patch = card.model.spatial_patch
    return card.trained.latent_height // patch, card.trained.latent_width // patch


def difference(growth: Growth, here: CheckpointMetadata) -> float:
    """Return the largest difference, in radians, between the child's angles and the parent's, point by point."""
    old, new = _sizes(growth.axis, growth.parent), _sizes(growth.axis, here)
    p, q = growth.factor.as_integer_ratio()
    steps = [min((of - 1) // q, (to - 1) // p) + 1 for of, to in zip(old, new, strict=True)]
    at_old, at_new = (
        angles[tuple(torch.meshgrid(*(stride * torch.arange(count) for count in steps), indexing="ij"))]
        for angles, stride in ((_angles(growth.axis, growth.parent), q), (_angles(growth.axis, here), p))
    )
    return (at_old - at_new).abs().max().item()


def _angles(axis: Literal["space", "time"], card: CheckpointMetadata) -> Tensor:
    """Return the angles of all tokens of an axis: (R, C, H / 2) or (T, H / 2)."""
    at, sizes, head = card.model.positions, _sizes(axis, card), card.model.head_size
    assert at.kind == "rotary", "learned positions have no angles"
    if axis == "time":
        return rope.temporal_angles(sizes[0], head, at.base, at.temporal_scale, _CPU)
    spatial = rope.spatial_angles(sizes[0], sizes[1], head, at.base, at.spatial_scale, _CPU)
    return rearrange(spatial, "(R C) H -> R C H", R=sizes[0])


def resize(learned: Tensor, shape: torch.Size) -> Tensor:
    """Resize learned positions, (R, C, D) bilinearly or (T, D) linearly, to another number of them."""
    mode = "bilinear" if learned.ndim == 3 else "linear"
    resized = F.interpolate(learned.movedim(-1, 0)[None], shape[:-1], mode=mode, align_corners=False)
    return resized[0].movedim(0, -1)


def neighbours_mixed(learned: Tensor, shape: torch.Size) -> Tensor:
    """Return what `resize` must give, axis by axis from the two nearest old positions, in float64."""
    mixed = learned.double()
    for axis, size in enumerate(shape[:-1]):
        old = mixed.shape[axis]
        at = ((torch.arange(size, dtype=torch.float64) + 0.5) * old / size - 0.5).clamp(0, old - 1)
        below = at.floor().long()
        above = (below + 1).clamp(max=old - 1)
        share = (at - below).view(-1, *[1] * (mixed.ndim - axis - 1))
        mixed = mixed.index_select(axis, below) * (1 - share) + mixed.index_select(axis, above) * share
    return mixed
