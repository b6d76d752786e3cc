"""The options of a verb and their help, read from the source of the function behind it.

Importing a flow imports Prefect, and often torch: seconds that `--help` and a misspelt option need not wait. So
signature and docstring are read from the syntax tree, and of the module's imports only those are done that its
annotations name.
"""

import argparse
import ast
import importlib
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from typing_extensions import TypeIs

from flows.params import PARAMS, Params, is_settings, section_of
from stiv_model import settings_errors
from stiv_model.errors.redaction import redact
from stiv_model.settings import Settings

ROOT = Path(__file__).parents[1]
_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}


class Options(BaseModel):
    """Options that several verbs share: each field is one, and the text under it what its help says."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def is_options(annotation: object) -> TypeIs[type[Options]]:
    """Say whether an annotation is a class of options that verbs share."""
    return inspect.isclass(annotation) and issubclass(annotation, Options)


class Verb(NamedTuple):
    """Signature and docstring of the function behind a verb."""

    signature: inspect.Signature
    doc: str

    @property
    def arguments(self) -> list[inspect.Parameter]:
        return list(self.signature.parameters.values())

    @property
    def sections(self) -> dict[str, type[Settings]]:
        """The settings that it reads, by the name of the option that says which section of params.yaml they are."""
        return {name: kind for arg in self.arguments for name, kind in sections_in(arg).items()}


def sections_in(arg: inspect.Parameter) -> dict[str, type[Settings]]:
    """Return the settings that an argument stands for, by name: itself, or each field of a NamedTuple of settings."""
    if is_settings(arg.annotation):
        return {arg.name: arg.annotation}
    is_named_tuple = inspect.isclass(arg.annotation) and hasattr(arg.annotation, "_fields")
    fields = get_type_hints(arg.annotation) if is_named_tuple else {}
    return {name: kind for name, kind in fields.items() if is_settings(kind)}


def function_name(verb: str) -> str:
    """Return the name of the function behind a verb: its last word, with underscores where that has hyphens."""
    return verb.split()[-1].replace("-", "_")


def describe(module: str, name: str) -> Verb:
    """Read the signature and the docstring of a function at the top of a module, without importing that.

    Args:
        name: of the function, or of its verb.

    Raises:
        LookupError: the module has no such function.
    """
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function_name(name):
            return Verb(_signature(node, _names(tree)), inspect.cleandoc(ast.get_docstring(node) or ""))
    raise LookupError(f"{path} has no function {name}")


def _names(tree: ast.Module) -> dict[str, tuple[str, str | None] | ast.expr]:
    """Return where each name at the top of a module comes from: (module, name there), or the expression assigned."""
    found: dict[str, tuple[str, str | None] | ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: (alias.name, None) for alias in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    return found


def _signature(node: ast.FunctionDef, names: dict[str, tuple[str, str | None] | ast.expr]) -> inspect.Signature:
    def value(expression: ast.expr) -> Any:
        used = {one.id for one in ast.walk(expression) if isinstance(one, ast.Name)} & names.keys()
        scope = {name: resolve(names[name]) for name in used}
        return eval(compile(ast.Expression(expression), "<signature>", "eval"), scope)  # our own source

    def resolve(origin: tuple[str, str | None] | ast.expr) -> Any:
        if isinstance(origin, ast.expr):
            return value(origin)
        module = importlib.import_module(origin[0])
        return getattr(module, origin[1]) if origin[1] else module

    def parameter(arg: ast.arg, kind: Any, default: ast.expr | None = None) -> inspect.Parameter:
        annotation = value(arg.annotation) if arg.annotation else inspect.Parameter.empty
        otherwise = inspect.Parameter.empty if default is None else value(default)
        return inspect.Parameter(arg.arg, kind, default=otherwise, annotation=annotation)

    args, kinds = node.args, inspect.Parameter
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    parameters = [
        parameter(arg, kinds.POSITIONAL_ONLY if arg in args.posonlyargs else kinds.POSITIONAL_OR_KEYWORD, default)
        for arg, default in zip(positional, defaults, strict=True)
    ]
    parameters += [parameter(args.vararg, kinds.VAR_POSITIONAL)] if args.vararg else []
    keywords = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    parameters += [parameter(arg, kinds.KEYWORD_ONLY, default) for arg, default in keywords]
    return inspect.Signature(parameters)


class _Parser(argparse.ArgumentParser):
    """A parser that repeats no password of a command line that it refuses."""

    def error(self, message: str) -> NoReturn:
        super().error(redact(message))


def parser_of(name: str, verb: Verb) -> argparse.ArgumentParser:
    """Return the parser of one verb: an option for each argument, its help what `told` says.

    A settings argument is an option that names a section of params.yaml; one that is no section's name is required. A
    NamedTuple of settings, which several verbs share, is an option for each of them.
    Every verb that reads settings takes `--set` too, unless it has an option of that name.
    """
    helps = told(verb)
    description, examples = _examples(_parts(verb.doc)[0])
    parser = _Parser(
        prog=f"stiv {name}",
        description=description,
        epilog="\n\n".join(filter(None, [examples, *_sections(verb)])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for arg in verb.arguments:
        for name in sections_in(arg).keys() - Params.model_fields.keys():
            parser.add_argument(_option(name), metavar="SECTION", required=True, help=_joined(helps.get(name, "")))
        if not sections_in(arg):
            for option in _shared(arg) if is_options(arg.annotation) else [arg]:
                _add(parser, option, helps.get(option.name, ""))
    if verb.sections and "set" not in verb.signature.parameters:
        parser.add_argument(
            "--set",
            metavar="KEY=VALUE",
            nargs="+",
            help="use other values than those of params.yaml for this run only, such as training.ranks=8. The pipeline "
            "does not know of them: it makes the output again from params.yaml. To keep a value, edit params.yaml, or "
            "use dvc exp run -S",
        )
    for name in verb.sections:
        if name in Params.model_fields:  # last: what a user asks for stands before
            text = f"section of params.yaml to read these settings from (default: {name})"
            parser.add_argument(_option(name), metavar="SECTION", default=name, help=text)
    return parser


def told(verb: Verb) -> dict[str, str]:
    """Return what options are, by name: as the section Args of the docstring says, else as a class of options does."""
    shared = [documented(arg.annotation) for arg in verb.arguments if is_options(arg.annotation)]
    return {name: text for texts in [*shared, _parts(verb.doc)[1]] for name, text in texts.items()}


def with_sections(verb: Verb, values: dict[str, Any], params: Params) -> dict[str, Any]:
    """Return the parsed options of a verb, with sections of params.yaml in place of their names.

    Raises:
        ValueError: there is no such section, or it is of another kind.
    """
    found = {name: section_of(params, values[name], kind, f"--{name}") for name, kind in verb.sections.items()}
    values = values | found
    for arg in verb.arguments:
        if (sections := sections_in(arg)) and not is_settings(arg.annotation):
            values[arg.name] = arg.annotation(**{name: values.pop(name) for name in sections})
    return values


def with_options(verb: Verb, values: dict[str, Any]) -> dict[str, Any]:
    """Return the parsed options of a verb, those that verbs share put together.

    Raises:
        ValueError: a value that an option does not take.
    """
    values = dict(values)
    for arg in verb.arguments:
        if is_options(kind := arg.annotation):
            own = {name: values.pop(name) for name in kind.model_fields}
            values[arg.name] = settings_errors.checked(kind, own, "options")
    return values


def _shared(arg: inspect.Parameter) -> Iterator[inspect.Parameter]:
    for name, field in arg.annotation.model_fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.default
        yield inspect.Parameter(name, arg.KEYWORD_ONLY, default=default, annotation=field.annotation)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add(parser: argparse.ArgumentParser, arg: inspect.Parameter, text: str) -> None:
    option = _option(arg.name)
    kind = plain(arg.annotation)
    if get_origin(kind) is Literal:
        asked: dict[str, Any] = {"required": True} if arg.default is arg.empty else {"default": arg.default}
        parser.add_argument(option, choices=get_args(kind), help=_joined(text), **asked)
        return
    if arg.kind is arg.POSITIONAL_ONLY:
        parser.add_argument(arg.name, metavar=arg.name.upper(), type=kind, help=text)
        return
    if arg.kind is arg.VAR_POSITIONAL:
        parser.add_argument(arg.name, metavar=arg.name.rstrip("s").upper(), type=kind, nargs="*", help=text)
        return
    needed = arg.default is arg.empty
    values = arg.default if isinstance(arg.default, list | tuple) else [arg.default]
    shown = "" if needed or arg.default is None or kind is bool else f"default: {' '.join(map(str, values))}"
    how: dict[str, Any] = {"help": _joined(text, shown)} | ({"required": True} if needed else {"default": arg.default})
    if kind is bool:
        parser.add_argument(option, action="store_true", help=how["help"])
    elif getattr(kind, "__origin__", None) in (list, Sequence):
        parser.add_argument(option, type=get_args(kind)[0], nargs="+", **how)
    else:
        parser.add_argument(option, type=kind, **how)


def _joined(*parts: str) -> str:
    return "; ".join(part.rstrip(".") for part in parts if part).replace("%", "%%")


def plain(annotation: Any) -> Any:
    """Return what remains of `X | None`, and of a type with limits."""
    if get_origin(annotation) in (types.UnionType, Union):
        annotation = next(kind for kind in get_args(annotation) if kind is not types.NoneType)
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _parts(doc: str) -> tuple[str, dict[str, str]]:
    """Return a docstring without its sections for callers, and what its section Args says of each argument."""
    text: list[str] = []
    helps: dict[str, str] = {}
    section = name = ""
    for line in doc.splitlines():
        if found := re.fullmatch(r"(Args|Raises|Returns):", line):
            section = found[1]
        elif section and (line.startswith(" ") or not line):
            if section == "Args" and (entry := re.fullmatch(r" {4}(\w+): (.*)", line)):
                name = entry[1]
                helps[name] = entry[2]
            elif section == "Args" and line.strip():
                helps[name] += f" {line.strip()}"
        else:
            section = ""
            text.append(line)
    return "\n".join(text).strip(), helps


def _examples(text: str) -> tuple[str, str]:
    """Part the description from the examples, which stand at its end."""
    body, mark, examples = text.partition("\nexample")
    return body.strip(), f"example{examples}" if mark else ""


# ---- what the settings are


def _sections(verb: Verb) -> Iterator[str]:
    """Give a text for each section that a verb reads: its keys, with type, value and meaning."""
    values = yaml.load(PARAMS.read_text(encoding="utf-8"), yaml.CSafeLoader) if PARAMS.is_file() else {}
    for name, kind in verb.sections.items():
        known = values.get(name) if isinstance(values, dict) else None
        title = name if name in Params.model_fields else f"--{name} SECTION"
        lines = [line for key in _keys(kind, known, "") for line in key]
        yield "\n".join([f"settings: {title}", *lines])


def _keys(kind: type[Settings], values: Any, prefix: str) -> Iterator[list[str]]:
    docs = documented(kind)
    for name, field in kind.model_fields.items():
        value = values.get(name) if isinstance(values, dict) else None
        now = f"; now {_short(value)}" if isinstance(values, dict) and name in values else _default(field)
        head = f"  {prefix}{name}  ({type_of(field)}{now})"
        body = textwrap.wrap(docs.get(name, ""), 108, initial_indent=" " * 6, subsequent_indent=" " * 6)
        yield [*textwrap.wrap(head, 114, subsequent_indent=" " * 6), *body]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    return f"; default {_short(field.default.model_dump() if isinstance(field.default, Settings) else field.default)}"


def _short(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("\n")
    text = text.removesuffix("\n...")
    return text if len(text) <= 60 else f"{text[:56]} ..."


def type_of(field: FieldInfo) -> str:
    """Return what a key takes, in words: `one of a, b`, `integer above 0`, `number or null`."""
    limits = [limit for mark in field.metadata for limit in _limits(mark)]
    return " ".join([_named(field.annotation), *limits])


def _limits(mark: Any) -> Iterator[str]:
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "to", "multiple_of": "multiple of", "pattern": "like"}
    for name, word in words.items():
        if (limit := getattr(mark, name, None)) is not None:
            yield f"{word} {limit}"


def _named(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if hasattr(annotation, "__metadata__"):  # Annotated
        limits = [limit for mark in annotation.__metadata__ for limit in _limits(mark)]
        return " ".join([_named(parts[0]), *limits])
    if origin in (list, tuple, set):
        return f"list of {_named(parts[0])}" if parts else "list"
    if origin is dict:
        return f"mapping to {_named(parts[1])}"
    if parts:
        return " or ".join(dict.fromkeys(map(_named, parts)))
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        return f"section of {', '.join(annotation.model_fields)}"
    return _TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))


@cache
def documented(kind: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of each key of a class of settings or options, those of the classes that it extends too."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if not (is_settings(one) or is_options(one)) or one in (Settings, Options):
            continue
        try:
            source = inspect.getsource(one)
        except OSError:  # made, not written: its fields say themselves what they are
            found |= {name: field.description for name, field in one.model_fields.items() if field.description}
            continue
        (node,) = ast.parse(textwrap.dedent(source)).body
        assert isinstance(node, ast.ClassDef)
        for field, text in zip(node.body, node.body[1:], strict=False):
            if not isinstance(text, ast.Expr) or not isinstance(text.value, ast.Constant):
                continue
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found | {name: field.description for name, field in kind.model_fields.items() if field.description}
