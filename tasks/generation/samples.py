"""Videos from a checkpoint: for held-out `shapes` prompts as a stage, for any prompt as a command."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from prefect import task

from stiv_model.diffusion import frame_conditioning
from stiv_model.encoders.video_file import write_video
from stiv_model.latents.dataset import draw_seed
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import Pattern, SamplerSettings, TextSettings, VaeSettings
from stiv_model.weights import metadata
from tasks.demo import shapes
from tasks.generation.settings import SampleSettings
from tasks.latents.settings import LatentSettings
from tasks.storage import atomic

log = logging.getLogger(__name__)

_SCENE_PIXELS, _SCENE_FRAMES = 128, 24  # as the corpus is made


def load(
    checkpoint: Path, vae: VaeSettings, text: TextSettings, latents: LatentSettings, sampler: SamplerSettings
) -> StivPipeline:
    """Load a checkpoint of a video model with the frozen encoders, without progress bars.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is of an image model, or the encoders are not those it was trained with.
    """
    size = (latents.height, latents.width, latents.frames, latents.stride_frames)
    pipeline = StivPipeline.from_checkpoint(checkpoint, vae, text, *size, sampler)
    if not pipeline.transformer.is_video:
        raise ValueError(f"{checkpoint} holds an image model: videos need one of t2v and what comes after it")
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    return pipeline


def make_videos(
    pipeline: StivPipeline,
    prompts: list[str],
    seeds: list[int],
    pattern: Pattern,
    given: list[np.ndarray] | None,
) -> list[np.ndarray]:
    """Return one video, uint8 RGB (T, H, W, 3), per prompt.

    Args:
        pipeline: as `load` returns it.
        prompts: captions.
        seeds: of the noise, one per prompt; a video depends on its own seed only.
        pattern: which frames are given.
        given: a video (T, H, W, 3) per prompt whose frames at the pattern are kept, None for `none`.
    """
    frames = {}
    if given is not None:
        places = frame_conditioning.clean_frame_mask(pattern, len(given[0])).nonzero().flatten().tolist()
        frames = {place: [video[place] for video in given] for place in places}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    (videos,) = pipeline(prompts, frames=frames, generator=generators, output_type="np", return_dict=False)
    return list((255 * videos).round().astype(np.uint8))


class Wanted(NamedTuple):
    """One sample of the stage: what is asked, and what is given."""

    id: str
    mode: str
    scene: shapes.Scene
    number: int


def wanted_samples(settings: SampleSettings) -> list[Wanted]:
    """Return what the stage generates: held-out scenes, which no training video shows."""
    counts = {"t2v": settings.text_prompts, "ti2v": settings.image_prompts, "tup": settings.image_prompts}
    return [
        Wanted(f"{mode}-{number:03d}", mode, shapes.scene(settings.seed, number, held_out=True), number)
        for mode, count in counts.items()
        for number in range(count)
    ]


PATTERNS: dict[str, Pattern] = {"t2v": "none", "ti2v": "first", "tup": "every_second"}


def source_video(scene: shapes.Scene, size: PipelineDefaults) -> np.ndarray:
    """Return the scene as training would see it: uint8 RGB (T, H, W, 3)."""
    frames = shapes.render(scene, _SCENE_PIXELS, _SCENE_FRAMES)[:: size.stride_frames][: size.frames]
    return np.stack([cv2.resize(f, (size.width, size.height), interpolation=cv2.INTER_AREA) for f in frames])


@task(task_run_name="generate {batch[0].id}", retries=1)
def generate_batch(
    pipeline: StivPipeline, batch: list[Wanted], settings: SampleSettings, product: Path
) -> list[dict[str, Any]]:
    """Generate one batch of one mode, unless it is there from an earlier attempt."""
    done = product / f"{batch[0].id}.json"
    if not done.exists():
        mode = batch[0].mode
        size = pipeline.defaults
        given = None if mode == "t2v" else [source_video(wanted.scene, size) for wanted in batch]
        prompts = [shapes.caption(wanted.scene) for wanted in batch]
        seeds = [draw_seed(settings.seed, mode, wanted.number) for wanted in batch]
        videos = make_videos(pipeline, prompts, seeds, PATTERNS[mode], given)
        rows = [
            _write(wanted, prompt, video, given[place] if given is not None else None, settings, product)
            for place, (wanted, prompt, video) in enumerate(zip(batch, prompts, videos, strict=True))
        ]
        with atomic.atomic_write(done) as tmp_path:
            tmp_path.write_text(json.dumps(rows))
    return json.loads(done.read_text())


def _write(
    wanted: Wanted,
    prompt: str,
    video: np.ndarray,
    given: np.ndarray | None,
    settings: SampleSettings,
    folder: Path,
) -> dict[str, Any]:
    np.save(folder / f"{wanted.id}.npy", video)
    write_video(folder / f"{wanted.id}.mp4", video, settings.fps)
    row: dict[str, Any] = {
        "id": wanted.id,
        "mode": wanted.mode,
        "prompt": prompt,
        "colour": wanted.scene.colour,
        "shape": wanted.scene.shape,
        "direction": wanted.scene.direction,
        "file": f"{wanted.id}.npy",
        "video": f"{wanted.id}.mp4",
        "image": None,
        "status": "ok",
    }
    if wanted.mode == "ti2v":
        assert given is not None, "all modes but t2v are given frames"
        row["image"] = f"{wanted.id}.png"
        cv2.imwrite(str(folder / row["image"]), given[0][..., ::-1])
    if wanted.mode == "tup":
        row["given_frames"] = (
            frame_conditioning.clean_frame_mask("every_second", len(video)).nonzero().flatten().tolist()
        )
    return row


def generate_all(
    checkpoint: Path,
    tup: Path,
    out: Path,
    settings: SampleSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    sampler: SamplerSettings,
) -> None:
    """Generate all samples of the stage: from `checkpoint`, and those that interpolate in time from `tup`.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    everything = wanted_samples(settings)
    run = {
        "samples": settings.model_dump(),
        "latents": latents.model_dump(),
        "sampler": sampler.model_dump(),
        "weights": [atomic.sha256_file(folder / metadata.WEIGHTS) for folder in (checkpoint, tup)],
    }
    product = atomic.open_workdir(out, run) / "product"
    product.mkdir(exist_ok=True)
    rows = []
    for folder, modes in ((checkpoint, ("t2v", "ti2v")), (tup, ("tup",))):
        pipeline = load(folder, vae, text, latents, sampler)
        for mode in modes:
            these = [wanted for wanted in everything if wanted.mode == mode]
            for start in range(0, len(these), settings.batch):
                rows += generate_batch(pipeline, these[start : start + settings.batch], settings, product)
                log.info("%d of %d samples", len(rows), len(everything))
    assert [row["id"] for row in rows] == [wanted.id for wanted in everything], "a sample is missing"
    for batch in product.glob("*.json"):
        batch.unlink()
    content = {"checkpoint": str(checkpoint), "sampler": sampler.model_dump(), "samples": rows}
    (product / "samples.json").write_text(json.dumps(content, indent=2) + "\n")
    atomic.finish(product, out)
    atomic.discard_workdir(out)
