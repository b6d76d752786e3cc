"""Which stages dvc.yaml declares, by what they make. Read as YAML, so that nobody waits for DVC."""

import shlex
from collections.abc import Sequence
from typing import Any

from flows.running.code_hash import DECLARATION, OPTIONAL, ROOT, declared


def recipes() -> tuple[str, ...]:
    """Return the stages that train, in the order of dvc.yaml."""
    return tuple(name for name, stage in _declared().items() if _words(stage)[:1] == ["train"])


def optional() -> tuple[str, ...]:
    """Return the stages that no pipeline runs unless they are named, in the order of their file."""
    return tuple(declared(ROOT / OPTIONAL))


def commands(stages: Sequence[str]) -> list[str]:
    """Return what stands behind `python -m flows` in the commands of stages: verb and options.

    Left out are those of other programs, and stages that are not declared by their own name: of another folder, or of
    a `foreach` or `matrix`.
    """
    known = declared(ROOT / OPTIONAL) | _declared()
    return [shlex.join(words) for stage in stages if (words := _words(known.get(stage, {})))]


def with_account() -> tuple[str, ...]:
    """Return the stages that make data and keep account of it in `reports/STAGE.json`, in the order of dvc.yaml."""
    return tuple(name for name, stage in _declared().items() if _makes_data(stage) and _keeps_account(name, stage))


def with_table() -> tuple[str, ...]:
    """Return the stages that keep account and have a table in `data/STAGE`, in the order of dvc.yaml."""
    known = _declared()
    return tuple(name for name in with_account() if f"data/{name}" in _paths(known[name], "outs"))


def outputs(stage: str) -> tuple[str, ...]:
    """Return the files and folders that a stage makes, without the figures that it reports."""
    return tuple(_paths(_declared()[stage], "outs"))


def metrics(stage: str) -> tuple[str, ...]:
    """Return the files of figures that a stage reports."""
    return tuple(_paths(_declared()[stage], "metrics"))


def pages() -> tuple[str, ...]:
    """Return the files and folders that stages make to be looked at, in `reports`."""
    return tuple(
        path for stage in _declared().values() for path in _paths(stage, "outs") if path.startswith("reports/")
    )


def _words(stage: dict[str, Any]) -> list[str]:
    """Return what stands behind `python -m flows` in a stage's command; nothing where that is another, or several."""
    try:
        words = shlex.split(command) if isinstance(command := stage.get("cmd"), str) else []
    except ValueError:  # a shell may read it
        return []
    return words[3:] if words[:3] == ["python", "-m", "flows"] else []


def _paths(stage: dict[str, Any], key: str) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in stage.get(key, [])]


def _makes_data(stage: dict[str, Any]) -> bool:
    return any(path.startswith("data/") for path in _paths(stage, "outs"))


def _keeps_account(name: str, stage: dict[str, Any]) -> bool:
    return f"reports/{name}.json" in _paths(stage, "metrics")


def _declared() -> dict[str, Any]:
    return declared(ROOT / DECLARATION)
