"""Stage samples: videos from a checkpoint, for `shapes` prompts that training never saw."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from prefect import task

from stiv_model.diffusion import frame_conditioning
from stiv_model.encoders.video_file import write_video
from stiv_model.errors.failures import is_worth_retrying
from stiv_model.errors.redaction import redacted
from stiv_model.latents.order import draw_seed
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import Device, Pattern, SamplerSettings, TextSettings, VaeSettings
from stiv_model.weights import metadata
from tasks.demo import shapes
from tasks.demo.settings import CorpusSettings
from tasks.evaluation import machine
from tasks.generation import there_and_back
from tasks.generation.settings import SampleSettings
from tasks.generation.videos import load, make_videos
from tasks.latents.settings import LatentSettings
from tasks.operations.task_runs import call
from tasks.storage import atomic, tables

log = logging.getLogger(__name__)


class SampleRequest(NamedTuple):
    """One sample that the stage generates."""

    id: str
    mode: str
    """A key of PATTERNS."""
    held_out: bool
    """No training video shows the scene's combination of words; if not, training saw others of the same words."""
    scene: shapes.Scene
    """What the prompt says, and what the clean frames show."""
    seed: int
    """Of the starting noise."""


def sample_requests(settings: SampleSettings, corpus: CorpusSettings) -> list[SampleRequest]:
    """Return what the stage generates, none of which is a video of the corpus: by mode, held-out scenes first."""
    held_out = {
        "t2v": settings.text_prompts,
        "ti2v": settings.image_prompts,
        "predict": settings.predicted,
        "between": settings.between,
        "long": settings.long,
        "tup": settings.interpolated,
        "cascade": settings.cascaded,
    }
    seen = {"t2v": settings.seen_text_prompts, "ti2v": settings.seen_image_prompts}
    return [
        _request(mode, is_held_out, number, settings.seed, corpus)
        for mode in PATTERNS
        for is_held_out, counts in ((True, held_out), (False, seen))
        for number in range(counts.get(mode, 0))
    ]


def _request(mode: str, held_out: bool, number: int, seed: int, corpus: CorpusSettings) -> SampleRequest:
    name = mode if held_out else f"{mode}-seen"
    # seen scenes are those after the last of the corpus: with its seed, the first ones are what it trains on
    scene = shapes.scene(seed, number if held_out else corpus.shapes + number, held_out, corpus.look)
    return SampleRequest(f"{name}-{number:03d}", mode, held_out, scene, draw_seed(seed, name, number))


LONG = "long"
"""The mode of videos that are longer than those of the corpus, which are measured apart."""
PATTERNS: dict[str, Pattern] = {
    "t2v": "none",
    "ti2v": "first",
    "predict": "first_four",
    "between": "first_and_last",
    LONG: "first",
    "tup": "every_second",
    "cascade": "every_second",
}
"""The frames that each mode is given: from text; from text and a first frame; what comes next (prediction); what lies
between (interpolation); a long video from a first frame; temporal upsampling of real frames, and of those that the
model made as mode ti2v."""
_BY_MODEL = {"model": ("t2v", "ti2v"), "tasks": ("predict", "between", LONG), "tup": ("tup", "cascade")}
"""The modes that each model makes, in the order of `PATTERNS`."""


def is_of_several(mode: str) -> bool:
    """Say whether a mode is given several frames, with what is made beside or between them."""
    return mode not in (*_BY_MODEL["model"], LONG)


def source_video(scene: shapes.Scene, size: PipelineDefaults, corpus: CorpusSettings) -> np.ndarray:
    """Return the scene as the corpus has it, at the size and stride of the latents: uint8 RGB (T, H, W, 3).

    Where they take more frames than the corpus' videos have, it is drawn in that many.
    """
    span = 1 + (size.frames - 1) * size.stride_frames
    drawn = shapes.render(scene, corpus.shapes_pixels, max(corpus.shapes_frames, span))
    frames = drawn[:: size.stride_frames][: size.frames]
    return np.stack([cv2.resize(f, (size.width, size.height), interpolation=cv2.INTER_AREA) for f in frames])


@task(task_run_name="generate {batch[0].id}", retries=1, retry_condition_fn=is_worth_retrying)
@redacted
def generate_batch(
    pipeline: StivPipeline,
    batch: list[SampleRequest],
    settings: SampleSettings,
    corpus: CorpusSettings,
    product: Path,
) -> list[dict[str, Any]]:
    """Generate one batch of one mode, unless it is there from an earlier attempt."""
    done = product / f"{batch[0].id}.json"
    if not done.exists():
        mode = batch[0].mode
        size = pipeline.defaults
        sources = None if mode == "t2v" else [source_video(request.scene, size, corpus) for request in batch]
        given = [np.load(product / f"{_cascaded(request)}.npy") for request in batch] if mode == "cascade" else sources
        prompts = [shapes.caption(request.scene) for request in batch]
        seeds = [request.seed for request in batch]
        asked = {"guidance_scale": settings.given_guidance_scale, "num_inference_steps": settings.given_steps}
        more: list[dict[str, Any]] = [{} for _ in batch]
        if mode == LONG:
            assert sources is not None, "all modes but t2v have clean frames"
            own = {"between_prompt": settings.long_between_prompt}
            made = [
                there_and_back.make(pipeline, request.scene, source, settings.long_windows, request.seed, asked | own)
                for request, source in zip(batch, sources, strict=True)
            ]
            videos = [one.video for one in made]
            sources = [one.truth for one in made]
            more = [{"prompts": one.prompts, "window": one.window} for one in made]
        else:
            videos = make_videos(pipeline, prompts, seeds, PATTERNS[mode], given, asked if is_of_several(mode) else {})
        rows = [
            _write(request, prompt, video, sources[place] if sources is not None else None, settings, product)
            | more[place]
            for place, (request, prompt, video) in enumerate(zip(batch, prompts, videos, strict=True))
        ]
        with atomic.atomic_write(done) as tmp_path:
            tmp_path.write_text(json.dumps(rows))
    return json.loads(done.read_text())


def _cascaded(request: SampleRequest) -> str:
    """Return the sample of mode ti2v, of the same scene, whose frames one of mode cascade is given."""
    return request.id.replace("cascade", "ti2v")


def _write(
    request: SampleRequest,
    prompt: str,
    video: np.ndarray,
    source: np.ndarray | None,
    settings: SampleSettings,
    folder: Path,
) -> dict[str, Any]:
    np.save(folder / f"{request.id}.npy", video)
    write_video(folder / f"{request.id}.mp4", video, settings.fps)
    row: dict[str, Any] = {
        "id": request.id,
        "mode": request.mode,
        "held_out": request.held_out,
        "prompt": prompt,
        "colour": request.scene.colour,
        "shape": request.scene.shape,
        "direction": request.scene.direction,
        "file": f"{request.id}.npy",
        "video": f"{request.id}.mp4",
        "image": None,
        "truth": None,
        "status": "ok",
    }
    if source is not None:
        row["truth"] = f"{request.id}-truth.mp4"
        write_video(folder / row["truth"], source, settings.fps)
    if request.mode in ("ti2v", LONG):
        assert source is not None, "all modes but t2v have clean frames"
        row["image"] = f"{request.id}.png"
        cv2.imwrite(str(folder / row["image"]), source[0][..., ::-1])
    if request.mode not in _BY_MODEL["model"]:
        assert source is not None, "all modes but t2v have clean frames"
        # frames are measured against it: an mp4 blurs colours, which blended frames would gain by
        row["truth_array"] = f"{request.id}-truth.npy"
        np.save(folder / row["truth_array"], source)
        row["given_frames"] = (
            frame_conditioning.clean_frame_mask(PATTERNS[request.mode], len(video)).nonzero().flatten().tolist()
        )
    return row


def _batches(requests: list[SampleRequest], mode: str, size: int) -> list[list[SampleRequest]]:
    these = [request for request in requests if request.mode == mode]
    return [these[start : start + size] for start in range(0, len(these), size)]


@contextmanager
def batch_threads(device: Device) -> Iterator[ThreadPoolExecutor]:
    """Give threads for the batches, those that have not begun left out where one fails.

    On the CPU as many compute at a time as torch would use threads, each by one of torch's: they wait for each other
    less than torch's do, and the last bits of its sums are the same on every machine. A GPU computes one at a time.
    """
    one_each = partial(torch.set_num_threads, 1)
    at_once = (torch.get_num_threads(), "batches", one_each) if device == "cpu" else (1, "batches")
    with ThreadPoolExecutor(*at_once) as threads:
        try:
            yield threads
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def generate_all(
    checkpoint: Path,
    tup: Path,
    tasks: Path,
    out: Path,
    settings: SampleSettings,
    corpus: CorpusSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    sampler: SamplerSettings,
    device: Device,
) -> None:
    """Generate all samples of the stage into `out`, each mode by the weights that were trained for it.

    Starting noise is drawn on the CPU, so that a seed means the same on each device, which decides but by rounding.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    requests = sample_requests(settings, corpus)
    folders = {"model": checkpoint, "tasks": tasks, "tup": tup}
    run = {
        "samples": settings.model_dump(),
        "corpus": corpus.model_dump(),
        "latents": latents.model_dump(),
        "sampler": sampler.model_dump(),
        "precision": {"vae": vae.precision, "text": text.precision},
        "weights": [atomic.sha256_file(folder / metadata.WEIGHTS) for folder in folders.values()],
    }
    made = {
        "weights": dict(zip(folders, run["weights"], strict=True)),
        "recipes": {name: recipe_of(folder) for name, folder in folders.items()},
    }

    def opened(folder: Path) -> StivPipeline:
        return load(folder, vae, text, latents, sampler, settings.precision, device)

    models = [(partial(opened, folder), _BY_MODEL[name]) for name, folder in folders.items()]
    listed: dict[str, Any] = {"checkpoint": str(checkpoint), "sampler": sampler.model_dump()}
    listed["given"] = {
        "guidance_scale": settings.given_guidance_scale,
        "steps": settings.given_steps,
    }
    listed["made"] = made | facts_of(requests, settings, corpus, latents, device)
    generate_requests(models, requests, out, run, listed, settings, corpus, device)


def recipe_of(checkpoint: Path) -> str | None:
    """Return the last recipe that a checkpoint was trained by; None where it does not say."""
    trained = metadata.read(checkpoint).trained
    return trained.recipe_name if trained else None


def facts_of(
    requests: list[SampleRequest],
    settings: SampleSettings,
    corpus: CorpusSettings,
    size: LatentSettings | PipelineDefaults,
    device: Device,
) -> dict[str, Any]:
    """Return what else the score card says of how samples are made."""
    seeds = json.dumps([[request.id, request.seed] for request in requests])
    return {
        "precision": settings.precision,
        "fps": settings.fps,
        "corpus": corpus.look_sha256(size.height, size.width, size.frames, size.stride_frames),
        "seeds": f"sha256 {hashlib.sha256(seeds.encode()).hexdigest()}",
        "machine": machine.facts(device, has_networks=True).model_dump(mode="json"),
    }


def generate_requests(
    models: Sequence[tuple[Callable[[], StivPipeline], tuple[str, ...]]],
    requests: list[SampleRequest],
    out: Path,
    run: dict[str, Any],
    listed: dict[str, Any],
    settings: SampleSettings,
    corpus: CorpusSettings,
    device: Device,
    manifest: str | None = None,
) -> None:
    """Generate what is requested into `out`.

    Args:
        models: what loads a model, and the modes that it makes; in the order of the requests.
        run: what decides about the videos, by which unfinished work is known again.
        listed: what samples.json says beside the samples.
        manifest: name of a file beside samples.json that says `run`; None writes none.
    """
    product = atomic.open_workdir(out, run) / "product"
    product.mkdir(exist_ok=True)
    rows = []
    for opened, modes in models:
        pipeline = opened()
        sizes = {mode: 1 if mode == LONG else settings.batch for mode in modes}
        batches = [batch for mode in modes for batch in _batches(requests, mode, sizes[mode])]
        with batch_threads(device) as threads:
            parts: list[Future[list[dict[str, Any]]]] = []
            for batch in batches:
                work = partial(call, generate_batch, pipeline, batch, settings, corpus, product)
                parts.append(threads.submit(copy_context().run, work))
            for part in parts:
                rows += part.result()
                log.info("%d of %d samples", len(rows), len(requests))
    assert [row["id"] for row in rows] == [request.id for request in requests], "a sample is missing"
    for note in product.glob("*.json"):
        note.unlink()
    content = listed | {
        "samples": [row for row in rows if row["mode"] != LONG],
        LONG: [row for row in rows if row["mode"] == LONG],
    }
    (product / tables.SAMPLE_LIST).write_text(json.dumps(content, indent=2) + "\n")
    if manifest is not None:
        (product / manifest).write_text(json.dumps(run))
    atomic.finish(product, out)
    atomic.discard_workdir(out)
