"""Videos of shapes as evaluation sees them, without a model."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from tasks.demo import shapes
from tasks.evaluation.metrics import Evaluated
from tasks.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings.model_validate(
    yaml.safe_load((Path(__file__).parent / "params.yaml").read_text())["evaluation"]
)


@cache
def real_videos(count: int, frames: int = 8, is_given: bool = False) -> tuple[Evaluated, ...]:
    """Return real videos of the corpus, each with itself for the real one."""
    found = []
    for number in range(count):
        scene = shapes.scene(7, number, held_out=True)
        video = shapes.render(scene, 64, frames)
        words = shapes.Combination(scene.colour, scene.shape, scene.direction)._asdict()
        given = (0,) if is_given else ()
        caption = shapes.caption(scene)
        found.append(Evaluated(f"{number}", video, prompt=caption, given_frames=given, truth=video, fps=10.0, **words))
    return tuple(found)


def frozen(entry: Evaluated) -> Evaluated:
    """Return a video that stands still at its first frame."""
    return changed(entry, video=np.repeat(entry.video[:1], len(entry.video), axis=0))


def changed(entry: Evaluated, **values: object) -> Evaluated:
    known = {name: value for name, value in vars(entry).items() if not name.startswith("_")}
    return Evaluated(**known | values)  # type: ignore[arg-type]


def shuffled(entries: Sequence[Evaluated]) -> list[Evaluated]:
    """Return the videos, each with the words of another one."""
    others = np.random.default_rng(1).permutation(len(entries))
    return [
        changed(entry, **{name: getattr(entries[other], name) for name in ("prompt", "colour", "shape", "direction")})
        for entry, other in zip(entries, others, strict=True)
    ]
