"""The videos of the condition matrix, made and measured cell by cell; killed, it goes on with the next one."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from stiv_model.diffusion.frame_conditioning import clean_frame_mask
from stiv_model.latents.order import draw_seed
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.pipeline.inputs import not_trained
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import Device
from tasks.demo import shapes
from tasks.demo.settings import CorpusSettings
from tasks.evaluation import matrix
from tasks.evaluation.matrix import Cell
from tasks.evaluation.metrics import Evaluated
from tasks.evaluation.settings import EvaluationSettings
from tasks.generation.samples import batch_threads, source_video
from tasks.generation.videos import make_videos
from tasks.storage import atomic

log = logging.getLogger(__name__)

MATRIX = "matrix.json"
_SHOWN = 3  # videos of a cell on its picture
_FRAMES = 5  # of each, evenly spread


class Scene(NamedTuple):
    """What is asked for in every cell alike."""

    prompt: str
    seed: int
    """Of the starting noise."""
    real: np.ndarray
    """The video whose frames are given, uint8 RGB (T, H, W, 3)."""
    asked: shapes.Combination | None
    """What the prompt says, where the judge of shapes knows its words."""


def shape_scenes(settings: EvaluationSettings, size: PipelineDefaults, corpus: CorpusSettings) -> list[Scene]:
    """Return the first scenes of combinations of words that training never saw."""
    found = []
    for number in range(settings.matrix.videos):
        scene = shapes.scene(settings.seed, number, held_out=True, look=corpus.look)
        asked = shapes.Combination(scene.colour, scene.shape, scene.direction)
        real = source_video(scene, size, corpus)
        found.append(Scene(shapes.caption(scene), draw_seed(settings.seed, "matrix", number), real, asked))
    return found


def given_frames(mode: str, frames: int) -> tuple[int, ...]:
    """Return which frames of a video a mode gives."""
    return tuple(clean_frame_mask(matrix.MODES[mode], frames).nonzero().flatten().tolist())


def make_matrix(
    pipeline: StivPipeline,
    scenes: Sequence[Scene],
    out: Path,
    told: dict[str, Any],
    settings: EvaluationSettings,
    device: Device,
) -> dict[str, Any]:
    """Make and measure every cell, and write `out` with `matrix.json` and a picture of each cell that was made.

    Args:
        told: which model it is and of what, as JSON has it.

    Returns:
        the content of `matrix.json`.
    """
    scales = settings.matrix.scales
    told = told | {"evaluation": settings.model_dump(mode="json"), "size": pipeline.defaults.model_dump(mode="json")}
    product = atomic.open_workdir(out, told) / "product"
    product.mkdir(exist_ok=True)
    listed, frames = matrix.cells(scales), pipeline.defaults.frames
    made = [
        one
        for one in listed
        if not matrix.meaningless(one, len(given_frames(one.mode, frames)), frames)
        and matrix.same_as(one, scales) == one
    ]
    with batch_threads(device) as threads:
        waiting = [threads.submit(_cell, pipeline, cell, scenes, settings, product) for cell in made]
        for number, (cell, part) in enumerate(zip(made, waiting, strict=True), 1):
            part.result()
            log.info("%d of %d conditions: %s", number, len(made), cell.name)
    figures = {cell: json.loads((product / f"{cell.name}.json").read_text()) for cell in made}
    content = told | {"cells": [_listed(pipeline, cell, figures, scales) for cell in listed]}
    for cell in made:
        (product / f"{cell.name}.json").unlink()
    (product / MATRIX).write_text(json.dumps(content, indent=2) + "\n")
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    return content


def _listed(
    pipeline: StivPipeline, cell: Cell, figures: dict[Cell, dict[str, Any]], scales: Sequence[float]
) -> dict[str, Any]:
    """Return a cell of the list: measured, the same as another one, refused by the model, or without a meaning.

    `untrained` says what of it the model never learnt, None where it did, or nobody knows how it was trained.
    """
    size, given = pipeline.defaults, given_frames(cell.mode, pipeline.defaults.frames)
    untrained = not_trained(given, size.frames, size.stride_frames, pipeline.transformer.trained)
    about: dict[str, Any] = cell._asdict() | {"name": cell.name, "untrained": untrained}
    if why := matrix.meaningless(cell, len(given), size.frames):
        return about | {"status": "means_nothing", "reason": why}
    same = matrix.same_as(cell, scales)
    if same == cell:
        return about | figures[cell]
    return about | figures[same] | {"same_as": same.name}


def _cell(
    pipeline: StivPipeline, cell: Cell, scenes: Sequence[Scene], settings: EvaluationSettings, folder: Path
) -> None:
    """Make and measure the videos of a cell, unless its figures are there."""
    done = folder / f"{cell.name}.json"
    if done.exists():
        return
    try:
        videos = _make(pipeline, cell, scenes)
    except ValueError as error:  # the pipeline refuses guidance away from what the model has never gone without
        figures: dict[str, Any] = {"status": "refused", "reason": " ".join(str(error).split())}
    else:
        given = given_frames(cell.mode, len(videos[0]))
        entries = [_evaluated(scene, video, given) for scene, video in zip(scenes, videos, strict=True)]
        figures = {"status": "ok", "reason": None} | matrix.measure(entries, cell.text == "text", settings)
        cv2.imwrite(str(folder / f"{cell.name}.png"), _picture(videos)[..., ::-1])
    with atomic.atomic_write(done) as tmp_path:
        tmp_path.write_text(json.dumps(figures))


def _make(pipeline: StivPipeline, cell: Cell, scenes: Sequence[Scene]) -> list[np.ndarray]:
    prompts = [scene.prompt if cell.text == "text" else "" for scene in scenes]
    pattern = matrix.MODES[cell.mode]
    sources = None if pattern == "none" else [scene.real for scene in scenes]
    asked = {"guidance": cell.guidance, "guidance_scale": cell.scale, "untrained": True}
    return make_videos(pipeline, prompts, [scene.seed for scene in scenes], pattern, sources, asked)


def _evaluated(scene: Scene, video: np.ndarray, given: tuple[int, ...]) -> Evaluated:
    words = {} if scene.asked is None else scene.asked._asdict()
    return Evaluated(scene.prompt, video, prompt=scene.prompt, given_frames=given, truth=scene.real, **words)


def _picture(videos: Sequence[np.ndarray]) -> np.ndarray:
    rows = [
        np.concatenate(
            list(video[np.linspace(0, len(video) - 1, min(_FRAMES, len(video))).round().astype(int)]), axis=1
        )
        for video in videos[:_SHOWN]
    ]
    return np.concatenate(rows)
