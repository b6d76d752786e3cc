"""What `stiv studio` can make: modes, each a command of ours with its options, and the models that are here."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flows.__main__ import COMMANDS, module_of
from flows.command_line import ROOT, describe, is_options, parser_of, plain, sections_in, told, with_options
from flows.commands.given_files import FPS, most_given
from flows.commands.long import not_trained as long_not_trained
from flows.commands.named_model import ModelFacts, resolve
from flows.commands.sections import Sections
from flows.commands.views import not_trained as views_not_trained
from flows.params import PARAMS, Params, load_params
from stiv_model.errors import redaction
from stiv_model.pipeline.folders import INDEX, SHIPPED
from stiv_model.pipeline.inputs import learned_modes, not_trained
from stiv_model.weights import metadata

_HIDDEN = frozenset(
    {
        *("out", "prompts", "image", "last_image", "video", "num_videos", "checkpoint", "pipeline", "again"),
        *("untrained", "set", "restart"),
    }
)
"""Options that the page has a place of its own for, or no use."""


class Mode(NamedTuple):
    """A way to make a video."""

    name: str
    verb: str
    given: tuple[str, ...] = ()
    """Options that name files, all of which it needs."""
    may: tuple[str, ...] = ()
    """Options that name files, which it takes and can do without."""
    first: tuple[str, ...] = ("prompt",)
    """Options that are shown at once; the rest is behind a click."""
    without: tuple[str, ...] = ()
    """Shared options that the command does not take in this mode."""
    needs_prompt: bool = True


_ALL = (
    Mode("Text", "sample"),
    Mode("Image", "sample", ("image",)),
    Mode("First and last", "sample", ("image", "last_image")),
    Mode("Continue", "predict", ("video",), first=("prompt", "given", "seconds")),
    Mode("Smoother", "interpolate", ("video",), first=("prompt", "factor"), needs_prompt=False),
    Mode(
        "Views", "views", ("image",), first=(), without=("prompt", "negative_prompt", "num_frames"), needs_prompt=False
    ),
    Mode("Long", "long", may=("image",), first=("prompt", "seconds")),
)


class Option(NamedTuple):
    """An option of a command."""

    name: str
    kind: Any
    """Its type, or `Literal[...]`."""
    default: Any
    """None takes what the model has."""
    told: str
    """What it is."""


class Model(NamedTuple):
    """A model that is here."""

    name: str
    options: Mapping[str, str]
    """That name it on a command line."""
    facts: ModelFacts | None
    trouble: str | None
    """Why it makes no videos."""


def modes() -> list[Mode]:
    """Return the modes whose command there is."""
    return [mode for mode in _ALL if mode.verb in COMMANDS]


def options_of(mode: Mode) -> list[Option]:
    """Return what its command takes, but for files, the model and where the video goes."""
    return [one for one in _options(mode.verb) if one.name not in _HIDDEN and one.name not in mode.without]


def _options(verb: str) -> Iterator[Option]:
    described = describe(module_of(verb), verb)
    texts = told(described)
    for arg in described.arguments:
        if is_options(arg.annotation):
            for name, field in arg.annotation.model_fields.items():
                yield Option(name, plain(field.annotation), field.get_default(), texts[name])
        elif not sections_in(arg) and arg.name != "set":
            yield Option(arg.name, plain(arg.annotation), arg.default, texts[arg.name])


def check(verb: str, argv: list[str]) -> None:
    """Refuse options that the command would refuse before it reads anything.

    Raises:
        ValueError: with the first of them.
    """
    described = describe(module_of(verb), verb)
    values = vars(parser_of(verb, described).parse_args(argv))
    for name, value in values.items():
        redaction.refuse(value, f"--{name.replace('_', '-')}")
    with_options(described, values)


# ---- models


def params() -> Params:
    """Return the settings that the commands take here: where there is no params.yaml, those of the embedded default.

    Raises:
        FileNotFoundError, ValueError: as `load_params`.
    """
    return load_params(_params_file())


def stamp() -> tuple[str, int, int]:
    """Return what is another one as soon as other settings are taken.

    Raises:
        FileNotFoundError: there are none.
    """
    found = _params_file().stat()
    return str(_params_file()), found.st_mtime_ns, found.st_size


def _params_file() -> Path:
    return PARAMS if PARAMS.exists() else ROOT / PARAMS


def sections_of(settings: Params) -> Sections:
    """Return the settings that a model is opened by."""
    return Sections(**{name: getattr(settings, name) for name in Sections._fields})


def models(settings: Params) -> list[Model]:
    """Return the models of checkpoints/ and pipelines/ in the order of their names, behind the one of the package."""
    sections = sections_of(settings)
    found = [_model(f"{SHIPPED.name} (of the package)", {"pipeline": str(SHIPPED)}, sections)]
    for folder in sorted(Path("pipelines").glob("*")):
        if (folder / INDEX).is_file():
            found.append(_model(str(folder), {"pipeline": str(folder)}, sections))
    for folder in sorted(Path("checkpoints").glob("*")):
        if metadata.is_checkpoint(folder):
            found.append(_model(str(folder), {"checkpoint": str(folder)}, sections))
    return found


def _model(name: str, options: dict[str, str], sections: Sections) -> Model:
    checkpoint = Path(options["checkpoint"]) if "checkpoint" in options else None
    try:
        if checkpoint is not None and not PARAMS.exists():
            raise FileNotFoundError(f"{PARAMS} is not here, and says its size and sampler")
        facts = resolve(checkpoint, options.get("pipeline")).facts(sections)
    except (OSError, ValueError) as error:
        return Model(name, options, None, str(error))
    return Model(name, options, facts, None if facts.is_video else "it holds an image model")


def why_not(mode: Mode, model: Model, asked: Mapping[str, Any]) -> str | None:
    """Say why a model was not trained for what a mode asks of it; None where it was, or nobody wrote it down.

    Args:
        asked: options by name; the prompt with a line for each of several.
    """
    if model.facts is None or not model.facts.is_video or model.facts.trained is None:
        return None
    facts = model.facts
    if mode.verb == "views":
        return views_not_trained(facts)
    if mode.verb == "long":
        seconds = asked.get("seconds")
        frames = None if seconds is None else max(2, round(seconds * (asked.get("fps") or FPS)))
        lines = len(asked.get("prompt", "").splitlines())
        return long_not_trained(facts, asked.get("num_frames"), frames, lines, has_image="image" in asked)
    frames = asked.get("num_frames") or facts.defaults.frames
    places = _places(mode, facts, frames, asked)
    if places is None:
        return None
    learned = learned_modes(model.facts.trained)
    strides = [one.stride_frames for one in learned if (one.given, one.frames) == (frozenset(places), frames)]
    is_of_any_stride = mode.verb == "interpolate" and strides  # it takes frames as far apart as they are to be
    return not_trained(places, frames, strides[0] if is_of_any_stride else facts.defaults.stride_frames, facts.trained)


def _places(mode: Mode, facts: ModelFacts, frames: int, asked: Mapping[str, Any]) -> Collection[int] | None:
    """Return the places of the frames that are given; None where only the command knows."""
    if mode.verb == "predict":
        return range(asked.get("given") or most_given(facts))
    if mode.verb == "interpolate":
        return range(0, frames, 2)
    if mode.verb == "sample":
        of_option = {"image": 0, "last_image": frames - 1}
        return [of_option[name] for name in mode.given]
    return None
