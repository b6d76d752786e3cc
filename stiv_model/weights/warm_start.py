"""Start a training from the weights of earlier ones, with a certificate (paper, sections 2.4 and 3.3, appendix B).

`python -m stiv_model.weights.warm_start WORK` makes WORK/start for the run that WORK/run.json describes: the starting
weights, and the certificate without which `stiv_model.training.train` refuses them.
"""

import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange, repeat
from torch import Tensor

from stiv_model.latents.dataset import LatentData
from stiv_model.latents.order import draw_seed
from stiv_model.network.conditions import MICRO_CONDITIONS
from stiv_model.process_exit import die_with_parent, noting_failure
from stiv_model.settings import RUN_FILE, Encoders, Pattern, Run, is_mixture, modes_by_length
from stiv_model.weights import (
    certificate,
    durable,
    files,
    initialisation,
    metadata,
    position_interpolation,
    warm_start_checks,
)
from stiv_model.weights.certificate import CERTIFICATE, START, Certificate, Parent, Row, Source, Transform
from stiv_model.weights.initialisation import Take
from stiv_model.weights.metadata import CheckpointMetadata, Role, Trained
from stiv_model.weights.position_interpolation import AxisChange
from stiv_model.weights.warm_start_checks import LoadedParent, Parents, is_modulation, starts_at_zero

log = logging.getLogger(__name__)

_INFLATED: dict[str, Transform] = {
    "patch_in.weight": "inflated in time",
    "patch_out.weight": "repeated",
    "patch_out.bias": "repeated",
}
_PURPOSES = {
    "none": "T2V",
    "first": "STIV",
    "first_four": "V2V",
    "first_and_last": "interpolation",
    "every_second": "TUP",
    "views": "multi-view",
}


def write_start(child: CheckpointMetadata, seed: int, parents: Mapping[Role, Path], out: Path) -> Certificate:
    """Write the starting weights of `child` and their certificate into the new folder `out`.

    What happens follows from what the parents' metadata say and from nothing else. The certificate is written last, and
    only where every check passes on the weights as they are in the file. They are written one at a time, and those
    of the parents are mapped into memory: no process ever holds a model.

    Args:
        child: the model, and what it is to be trained for.
        seed: of the weights that no parent gives, which are those of `StivTransformer(...)` after `manual_seed(seed)`.
        parents: `weights`, and for a video model from an image model also `temporal`.
        out: gets model.safetensors and certificate.json.

    Raises:
        FileNotFoundError: a parent is missing.
        ValueError: the parents do not suit the child, a name or shape has no counterpart, or a check fails.
    """
    assert child.trained is not None, "a child is trained for something"
    found = metadata.check_parents(parents, child.model, child.is_video)
    changes = tuple(position_interpolation.axis_changes(found, child.model, child.is_video, child.trained))
    loaded = {role: load_parent(folder, found[role]) for role, folder in parents.items()}
    rows = table(child, loaded)

    out.mkdir(parents=True)
    path = out / metadata.WEIGHTS
    _write(path, child, seed, rows, loaded)
    checks = warm_start_checks.execute(files.read(path, child.model, child.is_video), child, rows, loaded, changes)
    made = Certificate(
        kind=_kind(found, child, rows, changes),
        parents={role: one.parent for role, one in loaded.items()},
        model=child.model,
        is_video=child.is_video,
        target=child.trained,
        rows=rows,
        checks=checks,
        weights_sha256=certificate.sha256(path),
    )
    (out / CERTIFICATE).write_text(made.model_dump_json(indent=1) + "\n")
    return made


def load_parent(folder: Path, found: CheckpointMetadata) -> LoadedParent:
    """Return a parent, its weights mapped into memory, and the hash of their file.

    Raises:
        FileNotFoundError, ValueError: as `files.read`, or the file is not of the average that its metadata state.
    """
    assert found.trained is not None, "metadata.check_parents refuses such a parent"
    path, wanted = folder / metadata.WEIGHTS, found.trained.averaged
    read, said = files.read(path, found.model, found.is_video), files.averaged(path) or ""
    if said != wanted:
        raise ValueError(
            f"{path} says of itself {said or 'nothing of an average'!r}, but its training ended with {wanted!r}: only "
            f"only EMA weights start a training; train {folder} again"
        )
    return LoadedParent(folder, found, Parent(folder=str(folder), sha256=certificate.sha256(path), averaged=said), read)


def table(child: CheckpointMetadata, parents: Parents) -> tuple[Row, ...]:
    """Say for every parameter of the child where it comes from, and how.

    Raises:
        ValueError: a parameter, on either side, has no counterpart.
    """
    shapes = files.shapes(child.model, child.is_video)
    rows = tuple(_row(name, shape, child, parents) for name, shape in shapes.items())
    for role, parent in parents.items():
        used = {source.parameter for row in rows for source in row.sources if source.parent == role}
        given = {name for name in parent.weights if role == "weights" or is_temporal(name)}
        if left := sorted(given - used):
            raise ValueError(f"{parent.folder} has weights for which the new model has no place: {', '.join(left)}")
    return rows


def _row(name: str, shape: torch.Size, child: CheckpointMetadata, parents: Parents) -> Row:
    main = parents["weights"]
    becomes_video = child.is_video and not main.metadata.is_video
    role: Role = "temporal" if becomes_video and is_temporal(name) else "weights"
    source = Source(parent=role, parameter=name)
    if role not in parents or (name.startswith("given_in.") and name not in main.weights):
        return Row(parameter=name, sources=(), transform="initialised")
    if name not in parents[role].weights:
        raise ValueError(f"{parents[role].folder} has no {name}, which the new model needs")
    there = parents[role].weights[name].shape
    if becomes_video and name in _INFLATED:
        return Row(parameter=name, sources=(source,), transform=_INFLATED[name])
    if there == shape:
        return Row(parameter=name, sources=(source,), transform="taken")
    if becomes_video and is_modulation(name) and "temporal" in parents:
        beside = Source(parent="temporal", parameter=name)
        return Row(parameter=name, sources=(source, beside), transform="joined")
    if becomes_video and is_modulation(name):
        return Row(parameter=name, sources=(source,), transform="widened with zeros")
    if name in ("places", "moments"):
        return Row(parameter=name, sources=(source,), transform="interpolated")
    raise ValueError(f"{parents[role].folder} has {name} of shape {tuple(there)}, the new model of {tuple(shape)}")


def is_temporal(name: str) -> bool:
    """Whether a parameter belongs to temporal attention, its gain, or the learned positions in time."""
    return ".temporal_" in name or name == "moments"


def _write(path: Path, child: CheckpointMetadata, seed: int, rows: tuple[Row, ...], parents: Parents) -> None:
    """Write the starting weights, of which one is in memory at a time."""
    shapes = files.shapes(child.model, child.is_video)
    new = [row.parameter for row in rows if row.transform == "initialised"]
    drawn = {name for name in new if not starts_at_zero(name, child.model)}
    with files.create(path, child.model, child.is_video, None) as file:

        def take(name: str, value: Tensor) -> None:
            if name in drawn:
                file.put(name, value)

        for row in rows:
            if row.parameter not in drawn:
                contrast = child.model.temporal_contrast
                file.put(row.parameter, _value(row, shapes[row.parameter], parents, contrast, seed))
        if drawn:
            initialisation.fill(child.model, child.is_video, seed, take)


def _value(row: Row, shape: torch.Size, parents: Parents, contrast: float, seed: int) -> Tensor:
    """Return the starting value of a parameter that no parent lacks, or that starts at zero.

    The patch kernel is spread over the frames of a temporal patch, evenly but for the contrast, so that a repeated
    frame gives the image model's token, and the last layer is repeated for each of them. Unless `model.temporal_gain`
    says otherwise, temporal attention adds nothing yet: its gain and the learned positions in time start at zero, and
    so do its shift, scale and gate where it is modulated.
    """
    given = [parents[source.parent].weights[source.parameter] for source in row.sources]
    match row.transform:
        case "taken":
            return given[0]
        case "inflated in time":
            frames = shape[1] // given[0].shape[1]
            even = repeat(given[0], "D patch -> D (frames patch)", frames=frames) / frames
            return even + _contrast(given[0], frames, contrast, seed) if contrast else even
        case "repeated":
            return repeat(given[0], "patch ... -> (frames patch) ...", frames=shape[0] // len(given[0]))
        case "widened with zeros":
            return torch.cat([given[0], torch.zeros(shape[0] - len(given[0]), *shape[1:])])
        case "joined":
            return torch.cat([given[0], given[1][len(given[0]) :]])
        case "interpolated":
            return position_interpolation.resize(given[0], shape)
        case "initialised":
            return torch.zeros(shape)


def _contrast(kernel: Tensor, frames: int, contrast: float, seed: int) -> Tensor:
    """Return what tells the frames of a temporal patch apart (D, frames * patch): random kernels whose sum is zero.

    Without it, both halves of the last layer, and of the kernel, get the same gradient but for the noise, and a video
    model shows the frames of a patch as one until that has added up.

    Args:
        kernel: the image model's (D, patch).
        frames: of a temporal patch, two at least.
        contrast: `model.temporal_contrast`.
        seed: of the run.
    """
    generator = torch.Generator().manual_seed(draw_seed(seed, "temporal contrast", 0))
    drawn = torch.randn(len(kernel), frames, kernel.shape[1], generator=generator)
    drawn -= drawn.mean(1, keepdim=True)
    size = contrast * warm_start_checks.root_mean_square(kernel) / frames
    return rearrange(drawn * (size / warm_start_checks.root_mean_square(drawn)), "D frames patch -> D (frames patch)")


def _kind(
    parents: Mapping[Role, CheckpointMetadata],
    child: CheckpointMetadata,
    rows: tuple[Row, ...],
    changes: tuple[AxisChange, ...],
) -> str:
    parts = [f"{' + '.join(map(_purpose, parents.values()))} -> {_purpose(child)}"]
    parts += [f"{one.how} in {one.axis}" for one in changes]
    parts += [f"{row.parameter} resized" for row in rows if row.transform == "interpolated"]
    parts += [f"temporal gain {child.model.temporal_gain:g}"] if warm_start_checks.new_gains(rows, child.model) else []
    if warm_start_checks.has_contrast(rows, child.model):
        parts.append(f"temporal contrast {child.model.temporal_contrast:g}")
    return ", ".join(parts)


def _purpose(of: CheckpointMetadata) -> str:
    assert of.trained is not None, "metadata.check_parents refuses such a parent"
    clean = of.trained.clean_frames
    if not of.is_video:
        return "T2I"
    if not is_mixture(clean):
        return _pattern(clean)
    frames = of.trained.frames
    return "mixture of " + " and ".join(
        f"{_pattern(mode.clean_frames)} at stride {mode.stride}" + (f" in {length} frames" if length < frames else "")
        for length, modes in modes_by_length(clean, frames).items()
        for mode in modes
    )


def _pattern(clean: Pattern) -> str:
    return _PURPOSES[clean] if isinstance(clean, str) else f"video with frames {', '.join(map(str, clean))} given"


def target(run: Run, data: LatentData) -> Trained:
    """Return what a run trains for: what the metadata of its weights will say."""
    recipe = run.recipe
    shape = data.parts["latents"].shape
    stride = data.samples[0].micro[MICRO_CONDITIONS.index("stride_frames")]
    return Trained(
        recipe_name=run.recipe_name,
        steps=recipe.steps,
        frames=recipe.frames,
        stride_frames=int(stride) if recipe.frames > 1 else 0,
        latent_height=shape[2],
        latent_width=shape[3],
        clean_frames=recipe.clean_frames,
        text_dropout=recipe.text_dropout,
        image_dropout=recipe.image_dropout,
        ema_decay=run.training.optimizer.ema_decay,
        encoders=Encoders.model_validate(data.made_by),
    )


def load_start(run: Run, folder: Path, take: Take) -> None:
    """Pass each of the weights in `folder` to `take`, once their certificate is found to be for them and for this run.

    They are mapped into memory: of each file only those pages are read that `take` looks at.

    Raises:
        ValueError: as `certificate.check`, or the weights are not of this run's model.
    """
    certificate.check(folder, run)
    for name, weight in files.read(folder / metadata.WEIGHTS, run.model, run.recipe.frames > 1).items():
        take(name, weight)


def make_start(work: Path) -> None:
    """Make `work`/start, whole or not at all.

    Raises:
        FileNotFoundError, ValueError: as `write_start`; or a parent is not what run.json says.
    """
    run = Run.model_validate(json.loads((work / RUN_FILE).read_text()))
    tmp_path = work / f"{START}.tmp"
    if tmp_path.exists():
        shutil.rmtree(tmp_path)
    data = LatentData(Path(run.latents), run.recipe)
    child = CheckpointMetadata(model=run.model, is_video=run.recipe.frames > 1, trained=target(run, data))
    parents = {role: Path(folder) for role, (folder, _) in run.parents.items()}
    made = write_start(child, run.training.seed, parents, tmp_path)
    certificate.check(tmp_path, run)
    durable.sync_tree(tmp_path)
    tmp_path.rename(work / START)
    durable.sync(work)
    counts = Counter(row.transform for row in made.rows)
    log.info(
        "%s: %s; %d checks passed",
        made.kind,
        ", ".join(f"{count} weights {how}" for how, count in counts.items()),
        len(made.checks),
    )


def main() -> None:
    """Make the starting weights of the run whose folder is on the command line."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    work = Path(sys.argv[1])
    try:
        with noting_failure(work):
            make_start(work)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
