"""On what something is computed, as far as it decides figures: device, driver, kernels, versions."""

import platform
import re
from importlib import metadata
from pathlib import Path

from pydantic import JsonValue

from tasks.evaluation.card import Machine

PACKAGES = ("numpy", "opencv-python-headless", "torch", "torchmetrics", "diffusers", "av", "scipy")
_DRIVER = Path("/proc/driver/nvidia/version")


def facts(device: str, has_networks: bool) -> Machine:
    """Return what this process computes on.

    Args:
        device: of networks, cpu or cuda.
        has_networks: whether torch computes, so that its switches and the device count.
    """
    if not has_networks:
        device = "cpu"
    return Machine(
        device=_name(device),
        driver=_driver() if device != "cpu" else None,
        kernels=_kernels() if has_networks else None,
        versions={"python": platform.python_version()} | {name: _version(name) for name in PACKAGES if _version(name)},
    )


def _name(device: str) -> str:
    if device == "cpu":
        return f"cpu, {platform.machine()}"
    import torch  # seconds, where nothing else needs it

    return torch.cuda.get_device_name(device)


def _driver() -> str | None:
    found = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", _DRIVER.read_text()) if _DRIVER.exists() else None
    return found[1] if found else None


def _kernels() -> dict[str, JsonValue]:
    """Return torch's switches."""
    import torch  # seconds, where nothing else needs it

    return {
        "matmul_tf32": bool(torch.backends.cuda.matmul.allow_tf32),
        "cudnn_tf32": bool(torch.backends.cudnn.allow_tf32),
        "deterministic": bool(torch.are_deterministic_algorithms_enabled()),
        "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
