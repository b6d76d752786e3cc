"""`stiv doctor`: what this machine can run, and what is missing."""

import sys
from pathlib import Path

from flows.commands import inference
from flows.commands.inference import Work
from flows.params import Params, load_params
from stiv_model.errors.redaction import redact
from tasks.operations.doctor import Workload, examine, render


def doctor(*, gpu_rate: float | None = None, downsampling: int = 8) -> None:
    """Say what this machine can run, and what is missing; exit code 1 when something is missing.

    It times a matrix product, and says how long the device that is named takes to encode a million clips, and to make
    the videos of stage samples.

    Args:
        gpu_rate: Price of one GPU for one hour, in any currency.
        downsampling: Pixels that the VAE turns into one latent, on each side.

    examples:
      stiv doctor && stiv pipeline
      stiv doctor --gpu-rate 2.5
    """
    params = load_params()
    works = inference.works(params, downsampling, None)
    known = [] if isinstance(works, str) else workloads(params, works)
    findings = examine(Path.cwd(), params.sandbox, params.training, known, gpu_rate)
    print(redact(render(findings)))
    if any(finding.state == "missing" for finding in findings):
        sys.exit(1)


def workloads(params: Params, works: list[Work]) -> list[Workload]:
    """Return encoding and sampling as they are judged on this machine."""
    told = {
        "encoding": ("devices.encoders", params.vae.precision),
        "sampling": ("devices.sampling", params.samples.precision),
    }
    return [Workload(one.name, *told[one.name], one.device, one.item, one.items, one.flops) for one in works]
