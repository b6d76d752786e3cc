"""The form of `stiv studio`: what shall be made, by the options of the command that makes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import streamlit as st

from flows.commands.studio_folder import Folder, argv_of, as_it_is
from flows.commands.studio_modes import Mode, Model, Option, check, modes, options_of, why_not
from tasks.applications import studio_files
from tasks.applications.studio_jobs import Asked, Job, Jobs
from tasks.pages.hidden_signs import visible
from tasks.sandbox.pool import Sandbox

_NAMES = {"num_frames": "Frames", "num_inference_steps": "Steps", "fps": "Frames per second", "given": "Frames given"}
GIVEN_NAMES = {"image": "First picture", "last_image": "Last picture", "video": "Video"}
_TYPES = {
    "image": ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"],
    "video": ["mp4", "mov", "mkv", "webm", "avi", "m4v", "mpg", "ts"],
}
_TYPES["last_image"] = _TYPES["image"]
_CHOICES: dict[str, tuple[int, ...]] = {"factor": (2, 4)}
"""What an option takes, where its type does not say it."""
_MOST_VIDEOS = 16


def key(name: str) -> str:
    """Return the key of an option's widget."""
    return f"option-{name}"


def fill(job: Job) -> None:
    """Put the settings of a job into the form."""
    state = st.session_state
    for name in [name for name in state if str(name).startswith(("option-", "given-", "upload-"))]:
        del state[name]
    options = job.asked.options
    state["mode"] = job.asked.mode
    state["model"] = job.asked.model
    state["untrained"] = bool(options.get("untrained"))
    state[key("prompt")] = job.prompt
    for name, value in options.items():
        if name in GIVEN_NAMES:
            state[f"given-{name}"] = value
        elif name == "prompts":
            continue  # the prompt is all of them
        else:
            state[key(name)] = value


def go_on_from(job: Job) -> None:
    """Make the form one that goes on from a video."""
    fill(job)
    state = st.session_state
    for name in [name for name in state if str(name).startswith(("option-", "given-"))]:
        if name not in (key("prompt"), key("seed")):
            del state[name]
    state["mode"] = "Continue"
    if job.asked.verb == "long":
        state[key("prompt")] = job.prompt.rpartition("\n")[2]  # of the last key frame
    state["given-video"] = str(job.out)


def form(folder: Folder, jobs: Jobs, models: list[Model], sandbox: Callable[[], Sandbox]) -> None:
    """Show the form, and queue what it says when asked to."""
    by_name = {mode.name: mode for mode in modes()}
    st.session_state.setdefault("mode", "Text")
    chosen = st.pills("Mode", list(by_name), key="mode", required=True, label_visibility="collapsed", wrap=True)
    mode = by_name[chosen or "Text"]
    files = {name: _file(name, folder, is_needed=name in mode.given) for name in (*mode.given, *mode.may)}
    found = {name: str(file) for name, file in files.items() if file is not None}
    options = options_of(mode)
    values = {one.name: _widget(one) for one in options if one.name in mode.first}
    if mode.verb == "long":
        st.caption("More than one line: a prompt for each key frame.")
    left, right = st.columns(2)
    with left:
        st.session_state.setdefault(key("seed"), 0)
        seed = int(st.number_input("Seed", step=1, value=None, key=key("seed"), help=_told(options, "seed")) or 0)
    with right:
        count = int(
            st.number_input("Videos", 1, _MOST_VIDEOS, key="count", help="with this seed and the next ones, a job each")
        )
    with st.expander("More settings"):
        for one in options:
            if one.name not in (*mode.first, "seed"):
                values[one.name] = _widget(one)
    plain = {one.name: one.default for one in options}
    said = {name: value for name, value in values.items() if value is not None and value != ""}
    asked = {name: value for name, value in said.items() if name == "prompt" or value != plain[name]}
    asked |= found
    model, is_untrained = _model(mode, models, asked)
    missing = [GIVEN_NAMES[name].lower() for name in mode.given if name not in found]
    if st.button("Make it", type="primary", width="stretch", disabled=bool(missing) or model is None, key="make"):
        assert model is not None, "or the button is off"
        asked |= dict(model.options)
        asked |= {"untrained": True} if is_untrained else {}
        _queue(mode, asked, seed, count, model, folder, jobs, sandbox)
    if missing:
        st.caption(f"Needs a {' and a '.join(missing)}.")


def _told(options: list[Option], name: str) -> str:
    return next(one.told for one in options if one.name == name)


def _widget(one: Option) -> Any:
    """Show an option, and return its value; None where the model's own is meant."""
    name = _NAMES.get(one.name, one.name.replace("_", " ").capitalize())
    if one.name == "prompt":
        return st.text_area(name, key=key(one.name), help=one.told, height=90).strip()
    how: dict[str, Any] = {"key": key(one.name), "help": one.told}
    if known := _CHOICES.get(one.name):
        first = one._replace(default=one.default or known[0])
        return st.segmented_control(name, known, required=True, **_with_default(first, how, "default"))
    if get_origin(one.kind) is Literal:
        choices = list(get_args(one.kind))
        return st.selectbox(name, choices, index=None, placeholder="the model's own", **how)
    if one.kind is bool:
        return st.checkbox(name, value=bool(one.default), **how)
    if one.kind in (int, float):
        step = 1 if one.kind is int else 0.5
        how = {"value": None} | _with_default(one, how, "value")
        return st.number_input(name, step=step, placeholder="the model's own", **how)
    return st.text_input(name, **how).strip()


def _with_default(one: Option, how: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the arguments of a widget with its default, unless its value was put into it: Streamlit warns of both."""
    return how if how["key"] in st.session_state else how | {name: one.default}


def _file(name: str, folder: Folder, is_needed: bool) -> Path | None:
    """Show where a file is given, and return where it lies: what was uploaded, or what was chosen of the gallery."""
    chosen = st.session_state.get(f"given-{name}")
    if chosen is not None:
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.text(f"{GIVEN_NAMES[name]}: {visible(Path(chosen).name)}")
        right.button("✕", key=f"clear-{name}", help="Take another one", on_click=_clear, args=(name,))
        return Path(chosen)
    loaded = st.file_uploader(
        GIVEN_NAMES[name] if is_needed else f"{GIVEN_NAMES[name]}, if it shall begin with one",
        type=_TYPES[name],
        key=f"upload-{name}",
        max_upload_size=studio_files.MOST_BYTES // 2**20,
    )
    if loaded is None:
        return None
    try:
        return studio_files.keep(folder.given, loaded.name, loaded.getvalue())
    except OSError as error:
        st.error("It cannot be kept.")
        st.text(visible(str(error)))
        return None


def _clear(name: str) -> None:
    del st.session_state[f"given-{name}"]


def _model(mode: Mode, models: list[Model], asked: dict[str, Any]) -> tuple[Model | None, bool]:
    """Show the models, greyed where they have not learned the mode; return the chosen one, and whether as untrained."""
    reasons = {model.name: why_not(mode, model, asked) for model in models}
    is_untrained = bool(st.session_state.get("untrained"))
    usable = [model for model in models if model.trouble is None and (is_untrained or reasons[model.name] is None)]
    wanted = st.session_state.get("model")
    model = next((one for one in usable if one.name == wanted), None if wanted else next(iter(usable), None))
    label = f"Model: {as_it_is(model.name)}" if model else "Model: none is chosen that has learned this"
    with st.popover(label, width="stretch", key="models"):
        for one in models:
            _model_button(one, model, reasons[one.name], is_usable=one in usable)
    if any(reasons.values()):
        st.checkbox(
            "Use a model for what it has not learned",
            key="untrained",
            help="What it makes then is nothing that it was trained for; the settings of the video say so.",
        )
    if model is not None and (reason := reasons[model.name]):
        st.text(visible(reason))
    return model, bool(model is not None and reasons[model.name])


def _model_button(one: Model, chosen: Model | None, reason: str | None, is_usable: bool) -> None:
    kind: Any = "primary" if one is chosen else "secondary"
    st.button(
        as_it_is(one.name),
        key=f"model-{one.name}",
        type=kind,
        width="stretch",
        disabled=not is_usable,
        on_click=lambda: st.session_state.update(model=one.name),
    )
    if said := one.trouble or reason:
        with st.container(key=f"why-{one.name}"):
            st.text(visible(said))


def _queue(
    mode: Mode,
    asked: dict[str, Any],
    seed: int,
    count: int,
    model: Model,
    folder: Folder,
    jobs: Jobs,
    sandbox: Callable[[], Sandbox],
) -> None:
    try:
        prompt = asked.get("prompt", "")
        if mode.needs_prompt and not prompt:
            raise ValueError("no prompt is given: say what the video shall show")
        thumbnail = None
        given = [name for name in (*mode.given, *mode.may) if name in asked]
        for name in given[:1]:
            option = f"--{name.replace('_', '-')}"
            thumbnail = str(studio_files.thumbnail(sandbox(), option, Path(asked[name]), folder.small))
        if mode.verb == "long" and "\n" in prompt:
            asked = {name: value for name, value in asked.items() if name != "prompt"}
            asked["prompts"] = str(studio_files.keep(folder.given, "prompts.txt", f"{prompt}\n".encode()))
        for one in range(seed, seed + count):
            options = asked | {"seed": one}
            check(mode.verb, argv_of(mode.verb, options, folder.videos / mode.verb))
            jobs.add(Asked(mode.name, mode.verb, options, model.name, thumbnail), prompt)
    except (OSError, ValueError) as error:
        st.error("It cannot be made.")
        st.text(visible(str(error)))
