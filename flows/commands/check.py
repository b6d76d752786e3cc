"""`stiv check`: whether a stage could start now, before anything is removed or made."""

from typing import Any

from flows import stages
from flows.__main__ import module_of
from flows.command_line import describe, parser_of, with_sections
from flows.params import Params, load_params


def check(*names: str) -> None:
    """Say whether stages could start now; nothing is made, and nothing removed.

    Checked are options, settings and inputs; for a training also its plan on the data, the device and the free disk.
    The pipeline does the same before DVC removes what a stage made last time.

    examples:
      stiv check t2v
      stiv check shots t2i

    Args:
        names: Stages of dvc.yaml; without any, all of them.

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
    values = with_sections(described, vars(parser_of(verb, described).parse_args(options)), params)
    for dep in stages.data_of(name):
        if not dep.exists():
            raise FileNotFoundError(f"{dep} does not exist: run the stage that makes it (stiv pipeline, or dvc repro)")
    if verb == "train":
        check_training(values)
    if verb in _DEVICES:
        check_device(_DEVICES[verb], values)
    if verb == "probe":
        from tasks.videos.sources import listing  # boto3, for who asks

        listing(values["source"])


_DEVICES = {"encode": "encoders", "generate": "sampling"}
"""The key of `devices` that says where a verb's networks compute."""


def check_device(key: str, values: dict[str, Any]) -> None:
    """Refuse a device that is not here; where Ray's workers do the work, they are elsewhere.

    Raises:
        ValueError: there is no such device.
    """
    from stiv_model.encoders.devices import check  # torch, for who asks

    engine = values.get("engine")
    if engine is None or engine.kind == "local":
        check(getattr(values["devices"], key), f"devices.{key}")


def check_training(values: dict[str, Any]) -> None:
    from stiv_model.monitoring import trackers
    from tasks.training.launch import check_start, describe_run, parents_of  # torch, for who asks

    parents = parents_of(values["init"], values["temporal_init"])
    settings = (values[name] for name in ("model", "recipe", "training", "monitoring"))
    trackers.load(values["monitoring"].trackers)
    run = describe_run(values["latents"], parents, values["out"].name, *settings)
    check_start(run, values["out"])
