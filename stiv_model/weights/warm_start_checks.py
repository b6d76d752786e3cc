"""What must hold of starting weights, executed: on the weights themselves, and on what the networks answer.

The weights of child and parents are mapped files: one parameter at a time is compared, and the networks that answer
compute with the mapped pages, which the kernel drops where memory is short.

Shapes: B batch, F latent frames, C channels, H, W latents, M micro-conditions, V a modulation's output, D
width, P values of a patch.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from stiv_model.network.block import Modulations
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import LearnedSettings, ModelSettings
from stiv_model.weights import files as weights
from stiv_model.weights import metadata, position_interpolation
from stiv_model.weights.certificate import Check, Parent, Row, sha256
from stiv_model.weights.metadata import CheckpointMetadata, Role
from stiv_model.weights.position_interpolation import AxisChange

_ROUNDING = 1e-4
"""Of the largest output; the sum over an inflated kernel is rounded in another order than the image model's."""
_PATCH_KERNEL = "patch_in.weight"
_ANGLE = 1e-4
"""Radians; a scale of 1/3 is written with a few digits."""


class LoadedParent(NamedTuple):
    """A parent: where it is, what it says of itself, and its weights."""

    folder: Path
    metadata: CheckpointMetadata
    parent: Parent
    weights: dict[str, Tensor]


Parents = Mapping[Role, LoadedParent]


def check(name: str, measured: float, tolerance: float) -> Check:
    """Return a check that passed.

    Args:
        name: what was compared, in words.
        measured: how far off it is, in units of `tolerance`.
        tolerance: at most.

    Raises:
        ValueError: it did not pass.
    """
    if not measured <= tolerance:  # also when it is no number
        raise ValueError(
            f"no training can start from these weights, since this does not hold: {name} (off by {measured:.3g}, "
            f"tolerance {tolerance:.3g}): train the parent again, or report how it was made"
        )
    return Check(name=name, measured=measured, tolerance=tolerance)


def execute(
    start: Mapping[str, Tensor],
    child: CheckpointMetadata,
    rows: tuple[Row, ...],
    parents: Parents,
    changes: tuple[AxisChange, ...],
) -> tuple[Check, ...]:
    """Execute every check that a warm start must pass.

    Args:
        start: the child's starting weights by name, in the shapes of `files.shapes`, as they were written.
        child: what they are weights of.
        rows: where each came from.
        parents: the models they came from.
        changes: of the axes of rotary positions.

    Raises:
        ValueError: one did not pass; the message names it.
    """
    checks = [check_average(role, loaded) for role, loaded in parents.items()]
    checks += [check_taken(role, start, rows, parents) for role in parents]
    checks += [check(one.check_name, position_interpolation.angle_difference(one, child), _ANGLE) for one in changes]
    checks += [check_resized(row, start, parents) for row in rows if row.transform == "interpolated"]
    if new_gains(rows, child.model):
        checks.append(check_gain(start, rows, child.model))
    if has_contrast(rows, child.model):
        checks.append(check_contrast(start, parents["weights"], child.model))
    checks.append(check_output(_in_place(start, rows, parents), child, parents))
    return tuple(checks)


def check_average(role: Role, loaded: LoadedParent) -> Check:
    """Check that the weights of a parent are the EMA of its training, and that its file did not change meanwhile.

    Raises:
        ValueError: it did.
    """
    path = loaded.folder / metadata.WEIGHTS
    if (again := sha256(path)) != loaded.parent.sha256:
        raise ValueError(f"{path} changed while it was read (sha256 {loaded.parent.sha256}, then {again}): try again")
    return check(f"the {role} parent's weights are the averaged ones: {loaded.parent.averaged}", 0, 0)


def check_taken(role: Role, start: Mapping[str, Tensor], rows: tuple[Row, ...], parents: Parents) -> Check:
    """Check that of the weights in `start`, those taken from a parent are its own, and those added beside are zero.

    Args:
        role: of the parent.
        start: the child's starting weights by name, in the shapes of `files.shapes`.
        rows: where each came from.
        parents: all of them.

    Raises:
        ValueError: they are not; the message names the first.
    """
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


def check_resized(row: Row, start: Mapping[str, Tensor], parents: Parents) -> Check:
    """Check that resized learned positions, (R, C, D) or (T, D), are the mix of their old neighbours.

    Raises:
        ValueError: they are not.
    """
    (source,), mine = row.sources, start[row.parameter]
    wanted = position_interpolation.resize_reference(parents[source.parent].weights[source.parameter], mine.shape)
    off = (mine - wanted).abs().max().item() / max(wanted.abs().max().item(), 1e-30)
    return check(f"{row.parameter} are the mix of their old neighbours", off, _ROUNDING)


def check_gain(start: Mapping[str, Tensor], rows: tuple[Row, ...], settings: ModelSettings) -> Check:
    """Check that every gain that no parent gives, (D), is the one of the settings; for gains that are not zero.

    Raises:
        ValueError: one is not.
    """
    off = max((start[name] - settings.temporal_gain).abs().max().item() for name in new_gains(rows, settings))
    return check(
        f"temporal attention, which no parent gives, starts with a gain of {settings.temporal_gain:g}, so that a video "
        "model does not yet answer as its image model does",
        off,
        0,
    )


def has_contrast(rows: tuple[Row, ...], settings: ModelSettings) -> bool:
    """Return whether a patch kernel is inflated into kernels that differ from frame to frame."""
    return settings.temporal_contrast > 0 and any(row.transform == "inflated in time" for row in rows)


def check_contrast(start: Mapping[str, Tensor], image: LoadedParent, settings: ModelSettings) -> Check:
    """Check that the kernels of the frames of a patch, (D, frames * patch), lie as far apart as the settings say.

    That their sum is the image kernel is seen at the answer to a repeated frame.

    Raises:
        ValueError: they do not.
    """
    kernel, frames = image.weights[_PATCH_KERNEL], settings.temporal_patch
    mine = rearrange(start[_PATCH_KERNEL], "D (frames patch) -> D frames patch", frames=frames)
    apart = root_mean_square(frames * mine - kernel[:, None]) / root_mean_square(kernel)
    return check(
        f"the kernels of the frames of a patch start apart by {settings.temporal_contrast:g} of the image kernel",
        abs(apart / settings.temporal_contrast - 1),
        _ROUNDING,
    )


def root_mean_square(values: Tensor) -> float:
    """Return the root mean square of a patch kernel (D, P), or of one per frame (D, frames, P)."""
    return values.double().square().mean().sqrt().item()


def new_gains(rows: tuple[Row, ...], settings: ModelSettings) -> list[str]:
    """Return the names of the gains of temporal attention that no parent gives and that do not start at zero."""
    new = [row.parameter for row in rows if row.transform == "initialised" and _is_gain(row.parameter)]
    return new if settings.temporal_gain else []


def _in_place(start: Mapping[str, Tensor], rows: tuple[Row, ...], parents: Parents) -> dict[str, Tensor]:
    """Return the child's weights, those that `check_taken` found to be a parent's as they lie in the parent's file.

    Where in memory a matrix begins decides the order of sums, and so the last bits of a product.
    """
    taken = {row.parameter: row.sources[0] for row in rows if row.transform == "taken"}
    return {
        name: parents[taken[name].parent].weights[taken[name].parameter] if name in taken else weight
        for name, weight in start.items()
    }


def check_output(start: Mapping[str, Tensor], child: CheckpointMetadata, parents: Parents) -> Check:
    """Check that the child, on a probe (1, F, C, H, W), answers as its parent does.

    A video model whose temporal attention is not silent at the start answers otherwise than its image model: then all
    but temporal attention is compared, and the check says so. Both have the child's positions, since those are compared
    apart.

    Raises:
        ValueError: it does not.
    """
    there = parents["weights"]
    settings = there.metadata.model.model_copy(update={"positions": child.model.positions})
    own = {name: weight for name, weight in start.items() if name in ("places", "moments")}
    theirs = {name: own.get(name, weight) for name, weight in there.weights.items()}
    parent = weights.build(settings, there.metadata.is_video, theirs)
    mine = weights.build(child.model, child.is_video, start)
    name, tolerance = "the output is the parent's, bit for bit", 0.0
    if child.is_video and not there.metadata.is_video:
        name, tolerance = "one repeated frame gives what the image model gives", _ROUNDING
        if "temporal" in parents or child.model.temporal_gain:
            name = f"with temporal attention silent, {name}"
            zero_temporal_output(mine)
    x_BFCHW, *conditions = probe(child)
    with torch.no_grad():
        out = mine(x_BFCHW, *conditions)
        frames = x_BFCHW.shape[1] if there.metadata.is_video else 1
        wanted = parent(x_BFCHW[:, :frames], *conditions).expand_as(out)
    return check(name, _relative(out, wanted), tolerance)


def zero_temporal_output(model: StivTransformer) -> None:
    """Put the gain or gate of temporal attention, and the learned positions in time, at zero.

    The gates are put at zero as they come out: weights that make them so would be a copy as large as those that are.
    """
    for name, vector in model.named_parameters():
        if _adds_time(name):
            vector.data = torch.zeros_like(vector)
    for module in model.modules():
        if isinstance(module, Modulations) and module.sublayers == 3:
            module.linear.register_forward_hook(_without_last_gate)


def _without_last_gate(linear: torch.nn.Module, given: tuple[Tensor, ...], out_BV: Tensor) -> None:
    out_BV[:, -out_BV.shape[1] // 9 :] = 0  # three sub-layers, each with shift, scale and gate


def starts_at_zero(name: str, settings: ModelSettings) -> bool:
    """Whether a parameter starts at zero where no parent gives it, so that the model answers as the parent does."""
    return _adds_time(name) and not settings.temporal_gain


def _adds_time(name: str) -> bool:
    """Whether all that a model knows of time is gone from its answer once such parameters are zero."""
    return name == "moments" or _is_gain(name)


def _is_gain(name: str) -> bool:
    return name.endswith("temporal_gain")


def is_modulation(name: str) -> bool:
    """Whether a parameter makes shift, scale and gate of attention: three for each modulated sub-layer."""
    return name.removesuffix(".weight").removesuffix(".bias").endswith("modulation.linear")


def probe(metadata: CheckpointMetadata) -> Iterator[Any]:
    """Yield small random inputs of a model: one picture repeated over two temporal tokens, and its conditions.

    They are the arguments of its `forward`: x (1, F, C, H, W), the timestep (1), the text and the
    micro-conditions (1, M).
    """
    settings, generator = metadata.model, torch.Generator().manual_seed(0)
    rows, columns, num_temporal = _probe_tokens(settings)
    frames = num_temporal * settings.temporal_patch if metadata.is_video else 1
    patch = settings.spatial_patch
    picture = torch.randn(1, 1, settings.latent_channels, rows * patch, columns * patch, generator=generator)
    tokens = torch.randn(1, 3, settings.text_width, generator=generator)
    yield picture.expand(-1, frames, -1, -1, -1).contiguous()
    yield torch.tensor([0.3])
    yield Text(tokens, torch.tensor([[True, True, False]]), tokens[:, 1])
    yield 100 * torch.rand(1, len(MICRO_CONDITIONS), generator=generator)


def _probe_tokens(settings: ModelSettings) -> tuple[int, int, int]:
    """Return rows, columns and temporal tokens of the probe: two, or as many as there are learned positions."""
    at = settings.positions
    if not isinstance(at, LearnedSettings):
        return 2, 2, 2
    return min(2, at.rows), min(2, at.columns), min(2, at.num_temporal)


def _relative(out: Tensor, wanted: Tensor) -> float:
    """Return the largest difference in terms of the largest number wanted."""
    difference, largest = (out - wanted).abs().max().item(), wanted.abs().max().item()
    return difference / largest if largest else difference or (math.nan if math.isnan(largest) else 0.0)
