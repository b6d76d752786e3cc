"""Change values of params.yaml, for one run only or in the file, where every other byte stays as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from flows.params import PARAMS, RENAMED, Params, check_params, is_settings, load_params, read_params
from stiv_model.settings import Settings
from stiv_model.settings_errors import nearest
from tasks.clips.settings import Range

PRESETS = Path("infra/selections")
"""One file per named selection: the keys of section `clips` that it sets."""


def read_preset(name: str) -> dict[str, Any]:
    """Return the thresholds of a selection in `infra/selections`: keys of section `clips`, with their values.

    Raises:
        ValueError: there is no selection of this name.
    """
    path = PRESETS / f"{name}.yaml"
    known = sorted(file.stem for file in PRESETS.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"--preset is {name}, and {path} does not exist: it is one of {', '.join(known) or 'none'}")
    return yaml.safe_load(path.read_text())


def params_with(assignments: Sequence[str] | None, path: Path = PARAMS) -> Params:
    """Return what a params file says, with what --set says otherwise.

    Raises:
        FileNotFoundError, ValueError: as `load_params`; or an assignment is wrong.
    """
    if not assignments:
        return load_params(path)
    return check_params(override(read_params(path), assignments), f"--set {' '.join(assignments)}")


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the values of params.yaml with those of some assignments in their places.

    Args:
        values: as params.yaml has them.
        assignments: each `SECTION.KEY=VALUE`, the value written as in YAML.

    Raises:
        ValueError: an assignment has another form, or a key that params.yaml has not, or it sets only some keys of a
            section that is null.
    """
    before = values
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        keys = key.split(".")
        if not equals or not all(keys):
            raise ValueError(f"--set is {assignment}: write it as SECTION.KEY=VALUE, such as clips.motion.min=0.6")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"--set is {assignment}: {text} is not a value as params.yaml has them") from None
        _check_keys(values, keys, assignment)
        for part in reversed(keys):
            value = {part: value}
        values = merged(values, value)
    _check_parts(before, values, Params, "")
    return values


def _check_keys(values: dict[str, Any], keys: Sequence[str], assignment: str) -> None:
    annotation: Any = Params
    for place, key in enumerate(keys):
        known = _keys_of(annotation, values, keys[:place])
        if known is None:  # a value: whoever checks the section knows
            return
        if key not in known:
            where = ".".join(keys[:place]) or "params.yaml"
            today = RENAMED.get(".".join(keys[: place + 1]))
            asked = f": it is called {today} now" if today else nearest(key, known)
            asked = asked or f": its keys are {', '.join(known)}"
            raise ValueError(f"--set is {assignment}: {where} has no key {key}{asked}")
        annotation = _below(annotation, key)


def _keys_of(annotation: Any, values: dict[str, Any], place: Sequence[str]) -> list[str] | None:
    """Return the keys that may stand there: those of a section, or of a mapping of sections as the file has it."""
    if kinds := _sections_in(annotation):
        return list(dict.fromkeys(key for kind in kinds for key in kind.model_fields))
    if get_origin(annotation) is dict and _settings_in(get_args(annotation)[1]):
        for key in place:
            values = values.get(key) or {}
        return list(values)
    return None


def _below(annotation: Any, key: str) -> Any:
    kind = next((kind for kind in _sections_in(annotation) if key in kind.model_fields), None)
    return kind.model_fields[key].annotation if kind else get_args(annotation)[1]


def _check_parts(before: Any, values: dict[str, Any], annotation: Any, place: str) -> None:
    """Refuse a section that was null and of which only some keys are set now."""
    kinds = _sections_in(annotation)
    for key, value in values.items():
        if not isinstance(value, dict) or (kinds and not any(key in kind.model_fields for kind in kinds)):
            continue
        below = _below(annotation, key) if kinds or get_origin(annotation) is dict else None
        old = before.get(key) if isinstance(before, dict) else None
        if old is None:
            _check_whole(f"{place}{key}", value, _settings_in(below))
        else:
            _check_parts(old, value, below, f"{place}{key}.")


def _check_whole(place: str, values: dict[str, Any], kind: type[Settings] | None) -> None:
    absent = [key for key in kind.model_fields if key not in values] if kind else []
    if not kind or not absent:
        return
    blank = "null" if issubclass(kind, Range) else "..."
    words = [f"{place}.{key}={_written(values[key]) if key in values else blank}" for key in kind.model_fields]
    raise ValueError(
        f"--set gives {place} no {' and no '.join(absent)}, and it is null in params.yaml: give all of its keys, such "
        f"as --set {' '.join(words)}"
    )


def _settings_in(annotation: Any) -> type[Settings] | None:
    """Return the section that a key holds, null or not, the first of several kinds; None for any other value."""
    return next(iter(_sections_in(annotation)), None)


def _sections_in(annotation: Any) -> list[type[Settings]]:
    """Return every kind of section that a key may hold: `model.positions` has two."""
    if get_origin(annotation) is dict:
        return []
    return [one for one in (annotation, *get_args(annotation)) if is_settings(one)]


def merged(old: Any, new: Any) -> Any:
    """Return `new` over `old`: mappings are merged key by key, unless they are of another kind; else it is `new`."""
    if isinstance(old, dict) and isinstance(new, dict) and new.get("kind", old.get("kind")) == old.get("kind"):
        return old | {key: merged(old.get(key), value) for key, value in new.items()}
    return new


def rewrite(text: str, values: dict[str, Any]) -> str:
    """Return a YAML text in which some values are replaced, and every other byte is as before.

    Args:
        text: of params.yaml.
        values: by key, sections as mappings; those that the text already has change nothing.

    Raises:
        ValueError: the text lacks a key, or has its value on several lines, between which comments may stand.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), "params.yaml holds sections"
    changes = _changes(root, values, "")
    for node, value in sorted(changes, key=lambda change: -change[0].start_mark.index):
        text = text[: node.start_mark.index] + _written(value) + text[node.end_mark.index :]
    assert merged(yaml.safe_load(text), values) == yaml.safe_load(text), "the text says something else now"
    return text


def _changes(node: yaml.MappingNode, values: dict[str, Any], place: str) -> list[tuple[yaml.Node, Any]]:
    found: list[tuple[yaml.Node, Any]] = []
    children = {key.value: child for key, child in node.value}
    for key, value in values.items():
        if key not in children:
            raise ValueError(f"params.yaml has no {place}{key} whose value could be changed: write it there by hand")
        child = children[key]
        if _value(child) == value:
            continue
        if isinstance(child, yaml.MappingNode) and isinstance(value, dict) and _has_keys(child, value):
            found += _changes(child, value, f"{place}{key}.")
        elif isinstance(child, yaml.CollectionNode) and not child.flow_style:
            raise ValueError(f"{place}{key} stands on several lines of params.yaml: change it there by hand")
        else:
            found.append((child, value))
    return found


def _has_keys(node: yaml.MappingNode, values: dict[str, Any]) -> bool:
    """Say whether each key can be changed by itself: in block style there is no other way."""
    return not node.flow_style or values.keys() <= {key.value for key, _ in node.value}


def _value(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _written(value: Any) -> str:
    """Return a value on one line, as it stands behind a key."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
