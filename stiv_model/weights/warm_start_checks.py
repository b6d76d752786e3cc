"""What must hold of starting weights, executed: on the weights themselves, and on what the networks answer.

The weights of child and parents are mapped files: one parameter at a time is compared, and the networks that answer
compute with the mapped pages, which the kernel drops where memory is short.

Shapes: B batch, F latent frames, C channels, D width.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stiv_model.network.block import Modulations
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import LearnedSettings, ModelSettings
from stiv_model.weights import files as weights
from stiv_model.weights import metadata, position_interpolation
from stiv_model.weights.certificate import Check, Parent, Row, sha256
from stiv_model.weights.metadata import CheckpointMetadata, Role
from stiv_model.weights.position_interpolation import Growth

_ROUNDING = 1e-4
"""Of the largest output; the sum over an inflated kernel is rounded in another order than the image model's."""
_ANGLE = 1e-4
"""Radians; a scale of 1/3 is written with a few digits."""


class Loaded(NamedTuple):
    """A parent: where it is, what it says of itself, and its weights."""

    folder: Path
    card: CheckpointMetadata
    parent: Parent
    weights: dict[str, Tensor]


Parents = Mapping[Role, Loaded]


def check(name: str, measured: float, tolerance: float) -> Check:
    """Return an equality that holds.

    Raises:
        ValueError: it does not.
    """
    if not measured <= tolerance:  # also when it is no number
        raise ValueError(
            f"these weights cannot be handed on, since this does not hold: {name} (off by {measured:.3g}, tolerance "
            f"{tolerance:.3g}): train the parent again, or report how it was made"
        )
    return Check(name=name, measured=measured, tolerance=tolerance)


def execute(
    start: Mapping[str, Tensor],
    child: CheckpointMetadata,
    rows: tuple[Row, ...],
    parents: Parents,
    grown: tuple[Growth, ...],
) -> tuple[Check, ...]:
    """Execute every equality that a hand-over must keep.

    Args:
        start: the child's starting weights, as they were written.
        child: what they are weights of.
        rows: where each came from.
        parents: the models they came from.
        grown: how the axes of rotary positions grew.

    Raises:
        ValueError: one does not hold; the message names it.
    """
    checks = [is_average(role, loaded) for role, loaded in parents.items()]
    checks += [are_taken(role, start, rows, parents) for role in parents]
    checks += [check(one.equality, position_interpolation.difference(one, child), _ANGLE) for one in grown]
    checks += [is_resized(row, start, parents) for row in rows if row.transform == "interpolated"]
    checks.append(answers_alike(_in_place(start, rows, parents), child, parents))
    return tuple(checks)


def is_average(role: Role, loaded: Loaded) -> Check:
    """The weights of a parent are the EMA of its training, and its file did not change meanwhile."""
    path = loaded.folder / metadata.WEIGHTS
    if (again := sha256(path)) != loaded.parent.sha256:
        raise ValueError(f"{path} changed while it was read (sha256 {loaded.parent.sha256}, then {again}): try again")
    return check(f"the {role} parent's weights are the averaged ones: {loaded.parent.averaged}", 0, 0)


def are_taken(role: Role, start: Mapping[str, Tensor], rows: tuple[Row, ...], parents: Parents) -> Check:
    """What was taken over from a parent is its own, and what was added beside it is zero."""
    wrong = {row.parameter: count for row in rows if (count := _different(row, role, start, parents))}
    name = f"what is taken from the {role} parent is the parent's, bit for bit"
    if wrong:
        name += f" (not so: {', '.join(list(wrong)[:3])}{', ...' if len(wrong) > 3 else ''})"
    return check(name, sum(wrong.values()), 0)


def _different(row: Row, role: Role, start: Mapping[str, Tensor], parents: Parents) -> int:
    """Count the numbers of a parameter that are not as a copy would be."""
    mine = start[row.parameter]
    if row.transform == "taken" and row.sources[0].parent == role:
        return int((mine != parents[role].weights[row.sources[0].parameter]).sum())
    if row.transform == "widened with zeros":
        theirs = parents[role].weights[row.sources[0].parameter]
        return int((mine[: len(theirs)] != theirs).sum() + mine[len(theirs) :].count_nonzero())
    if row.transform == "joined":
        border = len(parents["weights"].weights[row.sources[0].parameter])
        part = slice(0, border) if role == "weights" else slice(border, None)
        source = row.sources[0 if role == "weights" else 1]
        theirs = parents[role].weights[source.parameter]
        return int((mine[part] != (theirs if role == "weights" else theirs[border:])).sum())
    return 0


def is_resized(row: Row, start: Mapping[str, Tensor], parents: Parents) -> Check:
    """Resized learned positions are the mix of their old neighbours."""
    (source,), mine = row.sources, start[row.parameter]
    wanted = position_interpolation.neighbours_mixed(parents[source.parent].weights[source.parameter], mine.shape)
    off = (mine - wanted).abs().max().item() / max(wanted.abs().max().item(), 1e-30)
    return check(f"{row.parameter} are the mix of their old neighbours", off, _ROUNDING)


def _in_place(start: Mapping[str, Tensor], rows: tuple[Row, ...], parents: Parents) -> dict[str, Tensor]:
    """Return the child's weights, those that `are_taken` found to be a parent's as they lie in the parent's file.

    Where in memory a matrix begins decides the order of sums, and so the last bits of a product.
    """
    taken = {row.parameter: row.sources[0] for row in rows if row.transform == "taken"}
    return {
        name: parents[taken[name].parent].weights[taken[name].parameter] if name in taken else weight
        for name, weight in start.items()
    }


def answers_alike(start: Mapping[str, Tensor], child: CheckpointMetadata, parents: Parents) -> Check:
    """The child answers as its parent does; at the child's positions, since those are compared apart."""
    there = parents["weights"]
    settings = there.card.model.model_copy(update={"positions": child.model.positions})
    own = {name: weight for name, weight in start.items() if name in ("places", "moments")}
    theirs = {name: own.get(name, weight) for name, weight in there.weights.items()}
    parent = weights.build(settings, there.card.is_video, theirs)
    mine = weights.build(child.model, child.is_video, start)
    name, tolerance = "the output is the parent's, bit for bit", 0.0
    if child.is_video and not there.card.is_video:
        name, tolerance = "one repeated frame gives what the image model gives", _ROUNDING
        if "temporal" in parents:
            name = f"with temporal attention silent, {name}"
            silence(mine)
    x_BFCHW, *conditions = probe(child)
    with torch.no_grad():
        out = mine(x_BFCHW, *conditions)
        frames = x_BFCHW.shape[1] if there.card.is_video else 1
        wanted = parent(x_BFCHW[:, :frames], *conditions).expand_as(out)
    return check(name, _relative(out, wanted), tolerance)


def silence(model: StivTransformer) -> None:
    """Put the gain or gate of temporal attention, and the vectors of moments, at zero.

    The gates are silenced as they come out: weights that make none would be a copy as large as those that do.
    """
    for name, vector in model.named_parameters():
        if is_silent(name):
            vector.data = torch.zeros_like(vector)
    for module in model.modules():
        if isinstance(module, Modulations) and module.sublayers == 3:
            module.linear.register_forward_hook(_without_last_gate)


def _without_last_gate(linear: torch.nn.Module, given: tuple[Tensor, ...], out_BV: Tensor) -> None:
    out_BV[:, -out_BV.shape[1] // 9 :] = 0  # three sub-layers, each with shift, scale and gate


def is_silent(name: str) -> bool:
    """Whether a parameter starts at zero where no parent gives it, so that the model answers as the parent does."""
    return name == "moments" or name.endswith("temporal_gain")


def is_modulation(name: str) -> bool:
    """Whether a parameter makes shift, scale and gate of attention: three for each modulated sub-layer."""
    return name.removesuffix(".weight").removesuffix(".bias").endswith("modulation.linear")


def probe(card: CheckpointMetadata) -> Iterator:
    """Yield small random inputs of a model: one sample, one picture repeated over two moments, its conditions."""
    settings, generator = card.model, torch.Generator().manual_seed(0)
    rows, columns, moments = _few(settings)
    frames = moments * settings.temporal_patch if card.is_video else 1
    patch = settings.spatial_patch
    picture = torch.randn(1, 1, settings.latent_channels, rows * patch, columns * patch, generator=generator)
    tokens = torch.randn(1, 3, settings.text_width, generator=generator)
    yield picture.expand(-1, frames, -1, -1, -1).contiguous()
    yield torch.tensor([0.3])
    yield Text(tokens, torch.tensor([[True, True, False]]), tokens[:, 1])
    yield 100 * torch.rand(1, len(MICRO_CONDITIONS), generator=generator)


def _few(settings: ModelSettings) -> tuple[int, int, int]:
    """Return rows, columns and moments of the probe: two, or as many as there are learned positions."""
    at = settings.positions
    if not isinstance(at, LearnedSettings):
        return 2, 2, 2
    return min(2, at.rows), min(2, at.columns), min(2, at.num_temporal)


def _relative(out: Tensor, wanted: Tensor) -> float:
    """Return the largest difference in terms of the largest number wanted."""
    difference, largest = (out - wanted).abs().max().item(), wanted.abs().max().item()
    return difference / largest if largest else difference or (math.nan if math.isnan(largest) else 0.0)
