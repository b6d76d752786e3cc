"""`stiv check`: whether a stage could start now, before anything is removed or made."""

from pathlib import Path
from typing import Any

from flows import stages
from flows.__main__ import module_of
from flows.command_line import describe, parser_of
from flows.params import Params, is_settings, load_params, section_of


def check(*names: str) -> None:
    """Say whether stages could start now: their options, settings and inputs; of a training its plan, device and disk.

    The pipeline does this before DVC removes what a stage made last time. Nothing is made.

    examples:
      stiv check t2v
      stiv check shots t2i

    Args:
        names: stages of dvc.yaml; none is all of them.

    Raises:
        FileNotFoundError, ValueError, OSError: one could not start; the message says why.
    """
    params = load_params()
    for name in names or stages.in_order():
        check_one(name, params)
        print(f"{name}: could start")


def check_one(name: str, params: Params) -> None:
    """Make one stage's checks.

    Raises:
        FileNotFoundError, ValueError, OSError: it could not start.
    """
    verb, *options = stages.command(name)
    described = describe(module_of(verb, options), verb)
    values = vars(parser_of(verb, described).parse_args(options))
    for arg in described.arguments:
        if is_settings(arg.annotation):
            values[arg.name] = section_of(params, values[arg.name], arg.annotation, f"--{arg.name}")
    for dep in stages.data_of(name):
        if not dep.exists():
            raise FileNotFoundError(f"{dep} does not exist: run the stage that makes it (stiv pipeline, or dvc repro)")
    if verb == "train":
        check_training(values)
    if verb == "probe":
        from tasks.videos.sources import listing  # boto3, for who asks

        listing(values["source"])


def check_training(values: dict[str, Any]) -> None:
    from tasks.training.launch import check_start, describe_run  # torch, for who asks

    named: dict[Any, Path | None] = {"weights": values["init"], "temporal": values["temporal_init"]}
    parents = {role: folder for role, folder in named.items() if folder}
    settings = (values[name] for name in ("model", "recipe", "training", "monitoring"))
    run = describe_run(values["latents"], parents, values["out"].name, *settings)
    check_start(run, values["out"])
