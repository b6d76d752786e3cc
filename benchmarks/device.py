"""What one GPU does: encode, sample, and train the paper's XL and M for a few steps; ten minutes in all at most.

    python benchmarks/device.py --json device.json
    python benchmarks/device.py --parts encode sample

Each part is a process of its own with a time limit. Where there is no GPU, or a part fails, its line says `not
measured` and why, and the exit code is 0. Nothing is fetched: networks of full size have random weights, shaped by the
configs in `infra/encoders`; what is compared between CPU and GPU are the embedded ones.

encode    clips per second of the VAE, as stage latents hands them over (`Vae.submit`, the result of one asked for
          while the next is at work), on the GPU and on the CPU in turn: embedded in float32, whose latents must agree
          within the tolerance of `tests/stiv_model/encoders/test_vae.py`; full size in float32 and bfloat16, against
          float32 on the CPU. Captions per second.
stage     stage latents with the embedded encoders, on made videos, on the CPU and on the GPU: the tables must be equal
          but for the hashes of tensors, and these tensors, as stored, within two steps of float16.
sample    seconds per video of the XL model in bfloat16 with the sampler of `infra/params/xl-256.yaml`; FLOP/s reached
          against a measured matrix product; the same noise on CPU and GPU through a small model in float32.
train_xl  `benchmarks/mfu.py`: T2V of XL-256.
train_m   the same of M-512, with activation checkpointing and without EMA: parameters, gradients and optimizer take
          111 GB.
"""

import argparse
import copy
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flows.params import Params, load_params
from stiv_model.diffusion.sampler import sample as sample_latents
from stiv_model.encoders import text as text_encoders
from stiv_model.encoders import vae as vaes
from stiv_model.encoders.vae import Vae
from stiv_model.latents import shard_files
from stiv_model.latents.folder import TABLE
from stiv_model.monitoring import costs
from stiv_model.monitoring.inference_costs import find_config, model_passes
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import SamplerSettings
from tasks.demo import shapes
from tasks.demo.corpus import make_shape, shape_name
from tasks.latents.encode import Latents
from tasks.storage import atomic, tables
from tasks.storage.stage import run

ROOT = Path(__file__).parents[1]
KNOWN = ROOT / "infra/encoders"
TOLERANCE = 1e-5
"""Of float32 latents: tests/stiv_model/encoders/test_vae.py."""
SECONDS = {"encode": 110, "stage": 50, "sample": 100, "train_xl": 110, "train_m": 220}
"""Time limits of the parts; together under ten minutes."""
TRAIN = {
    "train_xl": ["--params", "infra/params/xl-256.yaml", "--recipe", "t2v", "--micro-batch", "8", "--checkpointing"],
    "train_m": ["--params", "infra/params/m-512.yaml", "--recipe", "t2v", "--micro-batch", "2", "--checkpointing"],
}
STEPS = {"train_xl": ["--steps", "8", "--warmup", "3"], "train_m": ["--steps", "3", "--warmup", "1"]}
EMBEDDED, FULL = ROOT / "params.yaml", ROOT / "infra/params/xl-256.yaml"


def random_vae(params: Params, device: torch.device, precision: torch.dtype) -> Vae:
    """Return a VAE of the shape that `vae.source` has, with random weights."""
    config = find_config("vae", params.vae.source, params.vae.revision, KNOWN)
    torch.manual_seed(0)
    model: Any = vaes.KINDS[config["_class_name"]].from_config(config)
    return Vae(model.to(device, precision), params.vae.batch_frames, "of random weights")


def clips_per_second(vae: Vae, clip: np.ndarray, clips: int) -> float:
    """Return the rate at which clips become latents on the host, one being at work while the last is fetched."""
    vae.submit(clip).result()  # memory, kernels
    started = time.perf_counter()
    waiting = vae.submit(clip)
    for _ in range(clips - 1):
        following = vae.submit(clip)
        waiting.result()
        waiting = following
    waiting.result()
    return clips / (time.perf_counter() - started)


def captions_per_second(params: Params, device: torch.device, precision: torch.dtype, batches: int) -> float:
    """Return the rate of a text encoder of the shape that `text.source` has, with random weights, in its batches."""
    config = find_config("text", params.text.source, params.text.revision, KNOWN)
    kind: Any = text_encoders.KINDS[params.text.kind]
    with device:
        model = kind(kind.config_class.from_dict(config.get("text_config", config))).to(precision).eval()
    ids = torch.ones(params.text.batch, params.text.tokens, dtype=torch.long)

    def encode_some() -> None:
        with torch.inference_mode():
            model(input_ids=ids.to(device), attention_mask=ids.to(device)).last_hidden_state.half().cpu()

    encode_some()
    started = time.perf_counter()
    for _ in range(batches):
        encode_some()
    return batches * params.text.batch / (time.perf_counter() - started)


def encode(embedded: Params, full: Params, device: torch.device, clips: int) -> dict[str, Any]:
    """Return what encoding reaches on a device and on the CPU, and how far their latents are apart.

    Args:
        embedded: settings whose encoders are here.
        full: settings whose encoders need not be.
        device: beside the CPU.
        clips: that are encoded on the device; the CPU encodes two, or one of full size.
    """
    cpu = torch.device("cpu")
    own = embedded.latents
    scene = shapes.render(shapes.scene(99, 0, held_out=True), own.height, 3 * own.frames)[:: own.stride_frames]
    here, there = (vaes.load(embedded.vae, place) for place in (cpu, device))
    pixels = torch.from_numpy(scene).permute(0, 3, 1, 2).float() / 127.5 - 1
    difference = (here.encode(pixels) - there.encode(pixels)).abs().max().item()
    stored = (here.submit(scene).result().float() - there.submit(scene).result().float()).abs().max().item()
    found: dict[str, Any] = {
        "embedded float32": rates(clips_per_second(here, scene, 2), clips_per_second(there, scene, clips)),
        "largest difference of latents": difference,
        "largest difference of latents as stored, float16": stored,
        "within the tolerance of 1e-5": difference <= TOLERANCE,
    }
    size = (full.latents.frames, full.latents.height, full.latents.width, 3)
    clip = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    on_cpu = clips_per_second(random_vae(full, cpu, torch.float32), clip, 1)
    for precision in (torch.float32, torch.bfloat16):
        fast = clips_per_second(random_vae(full, device, precision), clip, clips)
        found[f"full size {str(precision).removeprefix('torch.')}"] = rates(on_cpu, fast)
    found["captions per second, full size, bfloat16"] = captions_per_second(full, device, torch.bfloat16, 4)
    return found


def rates(on_cpu: float, on_device: float) -> dict[str, float]:
    """Return clips per second on both, and their ratio."""
    return {"cpu_clips_per_second": on_cpu, "clips_per_second": on_device, "ratio": on_device / on_cpu}


def write_inputs(folder: Path, params: Params, videos: int) -> None:
    """Write made videos, each of which is a clip with a caption, as the stages before latents would."""
    clips, captions = [], []
    (folder / "raw").mkdir()
    for number in range(videos):
        make_shape(number, folder / "raw", params.corpus)
        path = folder / "raw" / shape_name(number)
        video, end_pts = atomic.sha256_file(path), params.corpus.shapes_frames * 512
        clip = {"clip": tables.clip_id(video, 0, end_pts), "status": "ok"}
        side = params.corpus.shapes_pixels
        place = {"video": video, "uri": path.name, "start_pts": 0, "end_pts": end_pts, "width": side, "height": side}
        clips.append(clip | place | {"time_base": "1/12288", "aesthetic": 5.0, "motion": 1.0})
        captions.append(clip | {"captioner": "sidecar", "text": path.with_suffix(".txt").read_text().strip()})
    for rows in (clips, captions):
        rows.sort(key=lambda row: row["clip"])
    for name, table, rows, schema in (
        ("clips", tables.CLIP_TABLE, clips, tables.CLIPS),
        ("captions", tables.CAPTION_TABLE, captions, tables.CAPTIONS),
    ):
        (folder / name).mkdir()
        tables.write_rows(folder / name / table, rows, schema)


def run_stage(folder: Path, params: Params, device: torch.device, out: Path) -> tuple[list[dict], list[torch.Tensor]]:
    """Run stage latents on the inputs in a folder; return its table, without hashes of tensors, and the tensors."""
    inputs = str(folder / "raw"), folder / "clips", folder / "captions"
    stage = Latents(*inputs, params.latents, params.vae, params.text, params.sandbox, device=device.type)
    run(stage, out, out.with_suffix(".json"), "benchmark", earlier=folder / f"{out.name}-earlier")
    rows = tables.read_rows(out / TABLE, tables.LATENTS)
    tensors = [shard_files.Shard(out / row["shard"]).clip(row["row"])["latents"] for row in tables.ok(rows)]
    return [{name: row[name] for name in row if name not in ("sha256", "text_sha256")} for row in rows], tensors


def stage_on_both(params: Params, device: torch.device, videos: int) -> dict[str, Any]:
    """Return how stage latents on a device differs from the same on the CPU."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, params, videos)
        (here, exact), (there, near) = (
            run_stage(folder, params, place, folder / out)
            for place, out in ((torch.device("cpu"), "first"), (device, "second"))
        )
    pairs = [(one.float(), other.float()) for one, other in zip(exact, near, strict=True)]
    return {
        "clips": len(exact),
        "tables are equal but for hashes of tensors": here == there,
        "largest difference of latents as stored": max((one - other).abs().max().item() for one, other in pairs),
        "within two steps of float16": all(torch.allclose(one, other, rtol=2**-9, atol=1e-5) for one, other in pairs),
    }


def lively(params: Params) -> StivTransformer:
    """Return a video model none of whose weights is zero: as initialised, whole branches are silent."""
    torch.manual_seed(0)
    model = StivTransformer(params.model, is_video=True)
    weights = {name: weight + 0.02 * torch.randn(weight.shape) for name, weight in model.state_dict().items()}
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def made(
    model: StivTransformer, params: Params, sampler: SamplerSettings, device: torch.device, videos: int
) -> tuple[torch.Tensor, float]:
    """Return latents (B, F, C, H, W) on the host and the seconds that they took, of the same noise on each device."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    side = params.latents.height // 8, params.latents.width // 8
    noise = draw(videos, params.latents.frames, params.model.latent_channels, *side)
    tokens, width = params.text.tokens, params.model.text_width
    is_text = torch.ones(videos, tokens, dtype=torch.bool, device=device)
    texts = [Text(draw(videos, tokens, width), is_text, draw(videos, width)) for _ in range(2)]
    micro = torch.ones(videos, len(MICRO_CONDITIONS), device=device)
    started = time.perf_counter()
    latents = sample_latents(model, noise, *texts, micro, sampler, draw_noise=lambda: draw(*noise.shape)).cpu()
    return latents, time.perf_counter() - started


def sample(small: Params, full: Params, device: torch.device, precision: torch.dtype, videos: int) -> dict[str, Any]:
    """Return what sampling reaches on a device, and how far a small model's latents are from those of the CPU.

    Args:
        small: settings of a model that the CPU samples in seconds.
        full: settings of the model that is timed.
        device: beside the CPU.
        precision: of the model that is timed, and of the VAE.
        videos: at once.
    """
    twins = [(copy.deepcopy(lively(small)).to(place), place) for place in (torch.device("cpu"), device)]
    near = [made(model, small, small.sampler, place, 1)[0] for model, place in twins]
    with device:  # where billions of numbers are drawn at once
        model = StivTransformer(full.model, is_video=True).to(precision).eval().requires_grad_(False)
    made(model, full, full.sampler.model_copy(update={"steps": 1}), device, videos)  # memory, kernels
    latents, seconds = made(model, full, full.sampler, device, videos)
    vae = random_vae(full, device, precision)
    vae.decode(latents[0])
    started = time.perf_counter()
    vae.decode(latents[0])
    decoding = time.perf_counter() - started
    shape = costs.SampleShape(full.latents.frames, *latents.shape[3:], full.text.tokens)
    once = costs.sample_cost(full.model, full.training, True, shape, 0.0).forward_flops
    reached = videos * model_passes(full.sampler, False) * once / seconds
    return {
        "largest difference of latents from the CPU, small model, float32": (near[0] - near[1]).abs().max().item(),
        "is finite": bool(latents.isfinite().all()),
        "videos at once": videos,
        "seconds per video, model": seconds / videos,
        "seconds per video, decoding": decoding,
        "tflops": reached / 1e12,
        "mfu_of_measured_matmul": reached / costs.matmul_peak(device, precision),
    }


def measure(part: str, json_path: Path) -> None:
    """Measure one part on the GPU, and write the figures."""
    embedded, full, device = load_params(EMBEDDED), load_params(FULL), torch.device("cuda")
    if part == "encode":
        found = encode(embedded, full, device, 32)
    elif part == "stage":
        found = stage_on_both(embedded, device, 64)
    else:
        found = sample(embedded, full, device, torch.bfloat16, 4)
    found["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    json_path.write_text(json.dumps(found))


def in_a_process(part: str) -> dict[str, Any] | str:
    """Return the figures of one part, or why there are none."""
    if not torch.cuda.is_available():
        return "not measured: no CUDA device"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        own = [__file__, "--measure", part, "--json", str(out)]
        mfu = [str(Path(__file__).with_name("mfu.py")), *TRAIN.get(part, []), *STEPS.get(part, []), "--json", str(out)]
        command = [sys.executable, *(mfu if part in TRAIN else own)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS[part])
        except subprocess.TimeoutExpired:
            return f"not measured: not done after {SECONDS[part]} s"
        if done.returncode or not out.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return f"not measured: exit code {done.returncode}, {last[-300:]}"
        return json.loads(out.read_text())


def machine() -> dict[str, Any]:
    """Return what the figures are of."""
    found = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
    if not torch.cuda.is_available():
        return found | {"device": None, "driver": None}
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown: nvidia-smi does not say"
    memory = torch.cuda.get_device_properties(0).total_memory
    return found | {"device": torch.cuda.get_device_name(), "memory_bytes": memory, "driver": driver}


def show(part: str, found: dict[str, Any] | str) -> None:
    """Print what one part found."""
    if isinstance(found, str):
        print(f"{part}: {found}")
        return
    for name, value in found.items():
        print(f"{part}: {name}: {value}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=SECONDS, default=list(SECONDS))
    parser.add_argument("--json", type=Path, help="write all figures there, after each part")
    parser.add_argument("--measure", choices=("encode", "stage", "sample"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        measure(options.measure, options.json)
        return
    figures: dict[str, Any] = {"machine": machine()}
    print(json.dumps(figures["machine"]))
    for part in options.parts:
        started = time.perf_counter()
        figures[part] = in_a_process(part)
        show(part, figures[part])
        if isinstance(figures[part], dict):
            figures[part]["seconds of the part"] = time.perf_counter() - started
        if options.json:
            options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
