"""The pages of the site's Reference, read from the code: keys of params.yaml, verbs, tables, reasons, refusals.

python -m docs.generate.reference     # prints them as JSON: Markdown by file name
"""

import inspect
import json
import types
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
import pyarrow as pa
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.generate import reason_tables, refusals
from flows import __main__ as verbs
from flows.command_line import describe, documented, parser_of
from flows.params import Params
from stiv_model.latents import folder as latents
from tasks.pages.columns import described
from tasks.storage import stills, tables

FULL_SIZE = "infra/params/xl-256.yaml"
TABLES = {
    "VIDEOS": (f"data/videos/{tables.VIDEO_TABLE}", "Stage videos: one row per raw file."),
    "SPLITS": (
        f"data/shots/{tables.SPLIT_TABLE}",
        "Stage shots: one row per video that was split, and what became of it.",
    ),
    "SHOTS": (
        f"data/shots/{tables.SHOT_TABLE}",
        "Stage shots: one row per shot, with what the decoding pass measured.",
    ),
    "STILLS": (f"data/shots/{stills.FOLDER}/part-*{stills.SUFFIX}", "Stage shots: small pictures of each shot."),
    "SCORES": (f"data/scores/{tables.SCORE_TABLE}", "Stage scores: all shots, with all scores."),
    "CLIPS": (f"data/clips/{tables.CLIP_TABLE}", "Stage clips: every scored shot; those that are ok are the clips."),
    "CAPTIONS": (f"data/captions/{tables.CAPTION_TABLE}", "Stage captions: one text per clip."),
    "DSG": ("data/dsg/dsg.parquet", "Stage dsg: a row per caption that was judged."),
    "EVIDENCE": ("data/dsg/evidence.parquet", "Stage dsg: a row per answer."),
    "CATEGORIES": (
        f"data/categories/{tables.CATEGORY_TABLE}",
        "Stage categories: a row per caption that goes on, and its category.",
    ),
    "LATENTS": (f"data/latents/{latents.TABLE}", "Stage latents: one row per captioned clip, and where its latent is."),
}


class Key(NamedTuple):
    """One key of params.yaml."""

    name: str
    kind: str
    meaning: str
    value: Any
    full_size: Any


def pages(root: Path) -> dict[str, str]:
    """Return the Markdown of each page, by file name.

    Args:
        root: folder with params.yaml.
    """
    return {
        "params.md": params_page(root),
        "verbs.md": verbs_page(),
        "tables.md": tables_page(),
        "reasons.md": reasons_page(),
        "refusals.md": refusals.page(),
    }


# ------------------------------------------------------------------------------------------------------- params.yaml


def params_page(root: Path) -> str:
    """Return one table per section of params.yaml."""
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    full_size = yaml.safe_load((root / FULL_SIZE).read_text(encoding="utf-8"))
    lines = [
        "# Keys of params.yaml",
        "",
        "Every value stands in `params.yaml` and nowhere else; a key that is unknown, missing or of the wrong type is "
        "refused before anything runs. *Value* is that of the embedded default; behind *XL*, where it differs, that of "
        f"`{FULL_SIZE}`.",
    ]
    for name, field in Params.model_fields.items():
        models = list(settings_in(field.annotation))
        lines += ["", f"## {name}", ""]
        if not models:
            keys = [Key(name, _kind(field.annotation, field.metadata), "", values[name], full_size.get(name))]
            lines += [_comment(root, name) or "", "", *_table(keys)]
            continue
        lines.append(inspect.getdoc(models[0]) or "")
        own, paper = values[name], full_size.get(name, {})
        if get_origin(field.annotation) is dict:  # a section whose keys are named by the user: the recipes
            lines += ["", f"Of each of {', '.join(f'`{name}.{key}`' for key in own)}:"]
            lines += ["", *_table(list(keys_of(models[0], f"{name}.NAME", None, None, root)))]
            lines += ["", *_recipes(own)]
        else:
            lines += ["", *_table(list(keys_of(models[0], name, own, paper, root)))]
    return "\n".join(lines) + "\n"


def keys_of(model: type[BaseModel], place: str, values: Any, full_size: Any, root: Path) -> Iterator[Key]:
    """Give every key of a section, those of sections within it after their own."""
    meanings = documented(model)
    for name, field in model.model_fields.items():
        key = f"{place}.{name}"
        value = values.get(name) if isinstance(values, dict) else None
        other = full_size.get(name) if isinstance(full_size, dict) else None
        inner = list(settings_in(field.annotation))
        meaning = field.description or meanings.get(name) or _comment(root, key) or ""
        if not meaning and len(inner) == 1:
            meaning = inspect.getdoc(inner[0]) or ""
        yield Key(key, _kind(field.annotation, field.metadata), " ".join(meaning.split()), value, other)
        if {"min", "max"} <= {key for kind in inner for key in kind.model_fields}:
            continue  # a range, which its own line shows whole
        for kind in inner:
            suffix = f"[{_discriminator(kind)}]" if len(inner) > 1 else ""
            yield from keys_of(
                kind, f"{key}{suffix}", value if not suffix else None, other if not suffix else None, root
            )


def settings_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Give the settings classes in an annotation."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from settings_in(part)


def _discriminator(model: type[BaseModel]) -> str:
    told_by = model.model_fields.get("backend") or model.model_fields.get("kind")
    return ", ".join(map(str, get_args(told_by.annotation))) if told_by else model.__name__


def _kind(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """Return in words what a value may be."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(args[0], [*args[1:], *metadata])
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in args)
    if origin in (Union, types.UnionType):
        kinds = [_kind(part, metadata if part is not types.NoneType else ()) for part in args]
        return " or ".join(dict.fromkeys(kinds))
    if origin in (list, tuple) and get_origin(args[0]) is Literal:
        return "any of " + ", ".join(f"`{value}`" for value in get_args(args[0]))
    if origin in (list, tuple):
        return "list of " + _kind(args[0])
    if origin is dict:
        return f"{_kind(args[1])} by name"
    if annotation is types.NoneType:
        return "`null`"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "`{" + ", ".join(annotation.model_fields) + "}`"
    name = {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(annotation, str(annotation))
    return " ".join([name, *_limits(metadata)])


def _limits(metadata: list[Any] | tuple[Any, ...]) -> Iterator[str]:
    signs = {"gt": "above", "ge": "from", "lt": "below", "le": "up to", "multiple_of": "a multiple of"}
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _limits(item.metadata)
            continue
        for attribute, sign in signs.items():
            if (limit := getattr(item, attribute, None)) is not None:
                yield f"{sign} {limit}"
        if isinstance(item, annotated_types.MinLen):
            yield f"at least {item.min_length} long"
        if pattern := getattr(item, "pattern", None):
            yield f"like `{pattern}`"


@lru_cache
def _comments(root: Path) -> dict[str, str]:
    """Return what params.yaml says behind each of its keys."""
    text = (root / "params.yaml").read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}

    def visit(node: yaml.Node, place: str) -> None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name = f"{place}.{key.value}" if place else key.value
            _, sign, comment = lines[key.start_mark.line].partition(" #")
            if sign and (not isinstance(node, yaml.MappingNode) or not node.flow_style):
                found[name] = comment.strip()
            visit(value, name)

    visit(yaml.compose(text), "")
    return found


def _comment(root: Path, key: str) -> str | None:
    return _comments(root).get(key)


def _table(keys: list[Key]) -> list[str]:
    lines = ["| key | value | may be | meaning |", "|---|---|---|---|"]
    for key in keys:
        is_other = key.full_size is not None and key.full_size != key.value
        value = " ".join([_written(key.value), *([f"<br>XL: {_written(key.full_size)}"] if is_other else [])])
        lines.append(f"| `{key.name}` | {value} | {_cell(key.kind)} | {_cell(key.meaning)} |")
    return lines


def _recipes(recipes: dict[str, dict[str, Any]]) -> list[str]:
    """Return the values of the recipes side by side."""
    keys = list(next(iter(recipes.values())))
    lines = [f"| | {' | '.join(recipes)} |", "|---|" + "---|" * len(recipes)]
    return lines + [f"| `{key}` | {' | '.join(_written(own.get(key)) for own in recipes.values())} |" for key in keys]


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict) and value.keys() == {"min", "max"}:
        ends = [f"{end} {limit}" for end, limit in value.items() if limit is not None]
        return f"`{', '.join(ends)}`" if ends else "no limit"
    if isinstance(value, dict) and len(str(value)) > 60:
        return "below"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value) or "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# ------------------------------------------------------------------------------------------------------------- verbs


def verbs_page() -> str:
    """Return the help of every verb, as the terminal prints it."""
    lines = [
        "# Verbs",
        "",
        "What `stiv` and `stiv VERB --help` print.",
        "",
        "```text",
        verbs.HELP.strip(),
        "```",
    ]
    for verb in verbs.FLOWS | verbs.COMMANDS:
        parser = parser_of(verb, describe(verbs.module_of(verb), verb))
        lines += ["", f"## stiv {verb}", "", "```text", parser.format_help().strip(), "```"]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ tables


def tables_page() -> str:
    """Return the columns of every table that a stage hands on."""
    lines = [
        "# Tables",
        "",
        "Parquet files; each stage writes one row for everything it was given. Columns that two tables share mean the "
        "same. "
        "How the scores are measured: [Scores](../scores.md).",
    ]
    for name, (path, what) in TABLES.items():
        schema: pa.Schema = getattr(tables, name)
        lines += ["", f"## {path}", "", what, "", "| column | type | meaning |", "|---|---|---|"]
        meanings = described(name, schema.names)
        lines += [f"| `{field.name}` | {field.type} | {_cell(meanings[field.name])} |" for field in schema]
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------------------------------------------------- reasons


def reasons_page() -> str:
    """Return every reason with its meaning and what to do."""
    lines = [
        "# Reasons",
        "",
        "A row that is not `ok` has one of these in its column `reason`. `rejected` is fit but not wanted, `failed` "
        "could not be done; when more than a stage's `max_failed_fraction` failed, the stage stops. `stiv why CLIP` "
        "shows them for one clip, `reports/STAGE.json` counts them.",
    ]
    lines += ["", *reason_tables.tables("##")]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(json.dumps(pages(Path.cwd())))
