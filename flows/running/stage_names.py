"""Which stages dvc.yaml declares, by what they make. Read as YAML, so that nobody waits for DVC."""

import shlex
from typing import Any

import yaml

from flows.running.code_hash import ROOT


def recipes() -> tuple[str, ...]:
    """Return the stages that train, in the order of dvc.yaml."""
    return tuple(name for name, stage in _declared().items() if shlex.split(stage["cmd"])[3] == "train")


def with_account() -> tuple[str, ...]:
    """Return the stages that make data and keep account of it in `reports/STAGE.json`, in the order of dvc.yaml."""
    return tuple(name for name, stage in _declared().items() if _makes_data(stage) and _keeps_account(name, stage))


def with_table() -> tuple[str, ...]:
    """Return the stages that keep account and have a table in `data/STAGE`, in the order of dvc.yaml."""
    declared = _declared()
    return tuple(name for name in with_account() if f"data/{name}" in declared[name]["outs"])


def _makes_data(stage: dict[str, Any]) -> bool:
    return any(isinstance(out, str) and out.startswith("data/") for out in stage.get("outs", []))


def _keeps_account(name: str, stage: dict[str, Any]) -> bool:
    return any(f"reports/{name}.json" in metric for metric in stage.get("metrics", []))


def _declared() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
