"""Hand weights on from one training to the next, with a certificate (paper, sections 2.4 and 3.3, appendix B).

`python -m stiv_model.hand_over WORK` makes WORK/start for the run that WORK/run.json describes: the starting
weights, and the certificate without which `stiv_model.train` refuses them.
"""

import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from einops import repeat
from torch import Tensor

from stiv_model import card, certificate, equalities, growth, weights
from stiv_model.card import Card, Role, Trained
from stiv_model.certificate import CERTIFICATE, START, Certificate, Parent, Row, Source, Transform
from stiv_model.conditions import MICRO_CONDITIONS
from stiv_model.equalities import Loaded, Parents, is_modulation
from stiv_model.growth import Growth
from stiv_model.initial import Take
from stiv_model.latent_data import LatentData
from stiv_model.lifetime import die_with_parent
from stiv_model.settings import Encoders, Pattern, Run, is_mixture
from stiv_model.transformer import StivTransformer

log = logging.getLogger(__name__)

_CUBIFIED: dict[str, Transform] = {
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


def hand_over(child: StivTransformer, parents: Mapping[Role, Path], becomes: Trained, out: Path) -> Certificate:
    """Give `child` its starting weights, and write them with their certificate into the new folder `out`.

    What happens follows from what the parents' cards say and from nothing else. Nothing is written where an
    equality does not hold. The child then uses the parents' files, mapped into memory, where nothing was changed.

    Args:
        child: as initialised; what no parent gives stays so.
        parents: `weights`, and for a video model from an image model also `temporal`.
        becomes: what the child is trained for.
        out: gets model.safetensors and certificate.json.

    Raises:
        FileNotFoundError: a parent is missing.
        ValueError: the parents do not suit the child, a name or shape has no counterpart, or an equality fails.
    """
    here = Card(model=child.settings, is_video=child.is_video, trained=becomes)
    cards = card.check_parents(parents, child.settings, child.is_video)
    grown = tuple(growth.of(cards, child.settings, child.is_video, becomes))
    loaded = {role: load_parent(folder, cards[role]) for role, folder in parents.items()}
    rows = table(child, loaded)
    _fill(child, rows, loaded)
    start = child.state_dict()
    checks = equalities.execute(start, here, rows, loaded, grown)

    out.mkdir(parents=True)
    weights.write(out / card.WEIGHTS, start, None)
    made = Certificate(
        kind=_kind(cards, here, rows, grown),
        parents={role: one.parent for role, one in loaded.items()},
        model=child.settings,
        is_video=child.is_video,
        becomes=becomes,
        rows=rows,
        checks=checks,
        weights_sha256=certificate.sha256(out / card.WEIGHTS),
    )
    (out / CERTIFICATE).write_text(made.model_dump_json(indent=1) + "\n")
    return made


def load_parent(folder: Path, found: Card) -> Loaded:
    """Return a parent, its weights mapped into memory, and the hash of their file."""
    path = folder / card.WEIGHTS
    read = weights.read(path, found.model, found.is_video)
    said = weights.averaged(path) or ""
    return Loaded(folder, found, Parent(folder=str(folder), sha256=certificate.sha256(path), averaged=said), read)


def table(child: StivTransformer, parents: Parents) -> tuple[Row, ...]:
    """Say for every parameter of the child where it comes from, and how.

    Raises:
        ValueError: a parameter, on either side, has no counterpart.
    """
    rows = tuple(_row(name, weight.shape, child, parents) for name, weight in child.state_dict().items())
    for role, parent in parents.items():
        used = {source.parameter for row in rows for source in row.sources if source.parent == role}
        given = {name for name in parent.weights if role == "weights" or is_temporal(name)}
        if left := sorted(given - used):
            raise ValueError(f"{parent.folder} has weights for which the new model has no place: {', '.join(left)}")
    return rows


def _row(name: str, shape: torch.Size, child: StivTransformer, parents: Parents) -> Row:
    main, becomes_video = parents["weights"], child.is_video and not parents["weights"].card.is_video
    role: Role = "temporal" if becomes_video and is_temporal(name) else "weights"
    source = Source(parent=role, parameter=name)
    if role not in parents or (name.startswith("given_in.") and name not in main.weights):
        return Row(parameter=name, sources=(), transform="initialised")
    if name not in parents[role].weights:
        raise ValueError(f"{parents[role].folder} has no {name}, which the new model needs")
    there = parents[role].weights[name].shape
    if becomes_video and name in _CUBIFIED:
        return Row(parameter=name, sources=(source,), transform=_CUBIFIED[name])
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


def _fill(child: StivTransformer, rows: tuple[Row, ...], parents: Parents) -> None:
    """Let the child use the parents' weights: what it was initialised with is freed, and not copied over."""
    own = child.state_dict()
    child.load_state_dict({row.parameter: _value(row, own[row.parameter], parents) for row in rows}, assign=True)


def _value(row: Row, own: Tensor, parents: Parents) -> Tensor:
    """Return the starting value of one parameter, which is `own` as initialised.

    The patch kernel is spread evenly over the frames of a temporal patch, so that a repeated frame gives the image
    model's token, and the last layer is repeated for each of them. What temporal attention adds is silent: its gain
    and the learned positions in time start at zero, and so do its shift, scale and gate where it is modulated.
    """
    given = [parents[source.parent].weights[source.parameter] for source in row.sources]
    match row.transform:
        case "taken":
            return given[0]
        case "inflated in time":
            frames = own.shape[1] // given[0].shape[1]
            return repeat(given[0], "D patch -> D (frames patch)", frames=frames) / frames
        case "repeated":
            return repeat(given[0], "patch ... -> (frames patch) ...", frames=len(own) // len(given[0]))
        case "widened with zeros":
            return torch.cat([given[0], torch.zeros_like(own[len(given[0]) :])])
        case "joined":
            return torch.cat([given[0], given[1][len(given[0]) :]])
        case "interpolated":
            return growth.resize(given[0], own.shape)
        case "initialised":
            is_silent = row.parameter == "moments" or row.parameter.endswith("temporal_gain")
            return torch.zeros_like(own) if is_silent else own


def _kind(cards: Mapping[Role, Card], child: Card, rows: tuple[Row, ...], grown: tuple[Growth, ...]) -> str:
    parts = [f"{' + '.join(map(_purpose, cards.values()))} -> {_purpose(child)}"]
    parts += [f"{one.how} in {one.axis}" for one in grown]
    parts += [f"{row.parameter} resized" for row in rows if row.transform == "interpolated"]
    return ", ".join(parts)


def _purpose(of: Card) -> str:
    assert of.trained is not None, "card.check_parents refuses such a parent"
    clean = of.trained.clean_frames
    if not of.is_video:
        return "T2I"
    if not is_mixture(clean):
        return _pattern(clean)
    return "mixture of " + " and ".join(f"{_pattern(mode.clean_frames)} at stride {mode.stride}" for mode in clean)


def _pattern(clean: Pattern) -> str:
    return _PURPOSES[clean] if isinstance(clean, str) else f"video with frames {', '.join(map(str, clean))} given"


def outcome(run: Run, data: LatentData) -> Trained:
    """Return what a run trains for: what the card of its weights will say."""
    recipe = run.recipe
    shape = next(iter(data.shards.values())).tensors["latents"][1]
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
    """Hand each of the weights in `folder` to `take`, once their certificate is found to be for them and for this run.

    They are mapped into memory: of each file only those pages are read that `take` looks at.

    Raises:
        ValueError: as `certificate.check`, or the weights are not of this run's model.
    """
    certificate.check(folder, run)
    for name, weight in weights.read(folder / card.WEIGHTS, run.model, run.recipe.frames > 1).items():
        take(name, weight)


def make_start(work: Path) -> None:
    """Make `work`/start, whole or not at all.

    Raises:
        FileNotFoundError, ValueError: as `hand_over`; or a parent is not what run.json says.
    """
    run = Run.model_validate(json.loads((work / "run.json").read_text()))
    torch.manual_seed(run.training.seed)
    child = StivTransformer(run.model, is_video=run.recipe.frames > 1)
    aside = work / f"{START}.tmp"
    if aside.exists():
        shutil.rmtree(aside)
    data = LatentData(Path(run.latents), run.recipe.best_fraction)
    parents = {role: Path(folder) for role, (folder, _) in run.parents.items()}
    made = hand_over(child, parents, outcome(run, data), aside)
    certificate.check(aside, run)
    aside.rename(work / START)
    counts = Counter(row.transform for row in made.rows)
    log.info(
        "%s: %s; %d equalities hold",
        made.kind,
        ", ".join(f"{count} weights {how}" for how, count in counts.items()),
        len(made.checks),
    )


def main() -> None:
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        make_start(Path(sys.argv[1]))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
