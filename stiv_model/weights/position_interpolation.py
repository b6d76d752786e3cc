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


class AxisChange(NamedTuple):
    """How the rotary positions of one axis change from a parent to the model that starts from it."""

    how: Literal["interpolated", "extrapolated"]
    axis: Literal["space", "time"]
    factor: Fraction
    """A token of the parent has this many times its index in the child: 1 where extrapolated."""
    parent: CheckpointMetadata

    @property
    def check_name(self) -> str:
        """What `angle_difference` measures, in words, as the certificate says it."""
        at = "at the old points" if self.how == "interpolated" else "at the old indices"
        return f"positions {self.how} in {self.axis} give the old angles {at}"


def axis_changes(
    parents: Mapping[Role, CheckpointMetadata], settings: ModelSettings, is_video: bool, target: Trained
) -> Iterator[AxisChange]:
    """Yield how each axis changes; nothing for one that does not, or whose positions are learned.

    Args:
        parents: of which time is compared with the one that is a video model.
        settings: of the child, as `is_video`.
        is_video: whether it is a video model.
        target: what the child will be trained for.

    Raises:
        ValueError: the scale of an axis neither stays nor shrinks as the axis grows.
    """
    if isinstance(settings.positions, LearnedSettings):
        return
    child = CheckpointMetadata(model=settings, is_video=is_video, trained=target)
    of_time = next((parent for parent in parents.values() if parent.is_video), None)
    found = _change("space", parents["weights"], child), of_time and _change("time", of_time, child)
    yield from (change for change in found if change)


def _change(axis: Literal["space", "time"], parent: CheckpointMetadata, child: CheckpointMetadata) -> AxisChange | None:
    name = {"space": "spatial_scale", "time": "temporal_scale"}[axis]
    old, new = getattr(parent.model.positions, name), getattr(child.model.positions, name)
    pairs = list(zip(_sizes(axis, parent), _sizes(axis, child), strict=True))
    if old == new:
        has_grown = any(to > of for of, to in pairs)
        return AxisChange("extrapolated", axis, Fraction(1), parent) if has_grown else None
    for of, to in pairs:
        if isclose(old / new, to / of, rel_tol=1e-6):
            return AxisChange("interpolated", axis, Fraction(to, of), parent)
    grown = " x ".join(f"{of} to {to}" for of, to in pairs)
    fitting = " or ".join(sorted({f"{old * of / to:g}" for of, to in pairs}))
    raise ValueError(
        f"model.positions.{name} is {new} and was {old} in the parent, but from there to this run {axis} goes from "
        f"{grown} (tokens): set it to {fitting} in params.yaml, which interpolates, or to {old}, which extrapolates"
    )


def _sizes(axis: Literal["space", "time"], metadata: CheckpointMetadata) -> tuple[int, ...]:
    """Return the sizes of an axis in tokens."""
    model, trained = metadata.model, metadata.trained
    assert trained is not None, "metadata.check_parents refuses such a parent"
    if axis == "time":
        return (trained.frames // model.temporal_patch,)
    return trained.latent_height // model.spatial_patch, trained.latent_width // model.spatial_patch


def angle_difference(change: AxisChange, child: CheckpointMetadata) -> float:
    """Return the largest difference, in radians, between the child's angles and the parent's, point by point."""
    old, new = _sizes(change.axis, change.parent), _sizes(change.axis, child)
    p, q = change.factor.as_integer_ratio()
    steps = [min((of - 1) // q, (to - 1) // p) + 1 for of, to in zip(old, new, strict=True)]
    at_old, at_new = (
        angles[tuple(torch.meshgrid(*(stride * torch.arange(count) for count in steps), indexing="ij"))]
        for angles, stride in ((_angles(change.axis, change.parent), q), (_angles(change.axis, child), p))
    )
    return (at_old - at_new).abs().max().item()


def _angles(axis: Literal["space", "time"], metadata: CheckpointMetadata) -> Tensor:
    """Return the angles of all tokens of an axis: (R, C, H / 2) or (T, H / 2)."""
    at, sizes, head = metadata.model.positions, _sizes(axis, metadata), metadata.model.head_size
    assert at.kind == "rotary", "learned positions have no angles"
    if axis == "time":
        return rope.temporal_angles(sizes[0], head, at.base, at.temporal_scale, _CPU)
    spatial = rope.spatial_angles(sizes[0], sizes[1], head, at.base, at.spatial_scale, _CPU)
    return rearrange(spatial, "(R C) H -> R C H", R=sizes[0])


def resize(learned: Tensor, shape: torch.Size) -> Tensor:
    """Return learned positions, (R, C, D) bilinearly or (T, D) linearly, resized to another number of them."""
    mode = "bilinear" if learned.ndim == 3 else "linear"
    resized = F.interpolate(learned.movedim(-1, 0)[None], shape[:-1], mode=mode, align_corners=False)
    return resized[0].movedim(0, -1)


def resize_reference(learned: Tensor, shape: torch.Size) -> Tensor:
    """Return what `resize` must give, (R, C, D) or (T, D), axis by axis from the two nearest positions, in float64."""
    mixed = learned.double()
    for axis, size in enumerate(shape[:-1]):
        old = mixed.shape[axis]
        at = ((torch.arange(size, dtype=torch.float64) + 0.5) * old / size - 0.5).clamp(0, old - 1)
        below = at.floor().long()
        above = (below + 1).clamp(max=old - 1)
        share = (at - below).view(-1, *[1] * (mixed.ndim - axis - 1))
        mixed = mixed.index_select(axis, below) * (1 - share) + mixed.index_select(axis, above) * share
    return mixed
