"""Change values of params.yaml, in thought or in the file, where every other byte stays as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PRESETS = Path("infra/selections")
"""One file per named selection: the keys of section `clips` that it sets."""


def read_preset(name: str) -> dict[str, Any]:
    """Return the values of a named selection.

    Raises:
        ValueError: there is none of this name.
    """
    path = PRESETS / f"{name}.yaml"
    known = sorted(file.stem for file in PRESETS.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"--preset is {name}, and {path} does not exist: it is one of {', '.join(known) or 'none'}")
    return yaml.safe_load(path.read_text())


def assign(section: dict[str, Any], name: str, assignments: Sequence[str]) -> dict[str, Any]:
    """Return a section with values set by `NAME.key=value` or `NAME.key.key=value`, the values as YAML has them.

    Raises:
        ValueError: no such form; or another section.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        first, *keys = key.split(".")
        if not equals or first != name or not keys:
            raise ValueError(f"--set is {assignment}: write it as {name}.KEY=VALUE, such as {name}.motion.min=0.6")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"--set is {assignment}: {text} is not a value as params.yaml has them") from None
        for part in reversed(keys):
            value = {part: value}
        section = merged(section, value)
    return section


def merged(old: Any, new: Any) -> Any:
    """Return `old` with what `new` says otherwise; mappings are merged key by key."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: merged(old.get(key), value) for key, value in new.items()}
    return new


def rewrite(text: str, values: dict[str, Any]) -> str:
    """Return a YAML text with other values in the places of those that differ, and nothing else touched.

    Raises:
        ValueError: a key is not there, or its value is written in block style, where comments may stand between.
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
