"""Samples of shapes whose truth is known, and the card of a folder of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.demo import shapes
from tasks.evaluation import judgement, measure, sealing, suites
from tasks.evaluation.card import Card, Dimension
from tasks.evaluation.evaluate import Evaluation, evaluate_all
from tasks.evaluation.judge import wilson
from tasks.evaluation.settings import EvaluationSettings
from tasks.pages import card_page
from tests import made_evaluated

SETTINGS = made_evaluated.SETTINGS.model_copy(update={"metrics": [], "worst": 3})


def write_sample(folder: Path, name: str, mode: str = "t2v", video: np.ndarray | None = None, **changes: Any) -> dict:
    """Write one sample of which the truth is known; return its row."""
    scene = shapes.scene(3, int(name[-1]), held_out=True)
    video = shapes.render(scene, 64, 8) if video is None else video
    np.save(folder / f"{name}.npy", video)
    truth = {"colour": scene.colour, "shape": scene.shape, "direction": scene.direction}
    row = {"id": name, "mode": mode, "held_out": True, "prompt": shapes.caption(scene), **truth, "file": f"{name}.npy"}
    return row | {"video": f"{name}.mp4", "image": None, "status": "ok"} | changes


def list_samples(folder: Path, rows: Sequence[dict]) -> None:
    (folder / "samples.json").write_text(json.dumps({"checkpoint": "c", "sampler": {}, "samples": list(rows)}))


def made_card(groups: Mapping[str, Mapping[str, Dimension]], **changes: Any) -> Card:
    """Return a sealed card with figures by group and name, and nothing else that is known."""
    dimensions = [
        one.model_copy(update={"group": group, "name": name})
        for group, named in groups.items()
        for name, one in named.items()
    ]
    none = dict.fromkeys(("height", "width", "frames", "fps", "pixels"))
    content = {
        "suite": {"name": "shapes", "sha256": "0"}, "model": {}, "videos": none, "not_measured": [], "alarms": [],
        "values": None,
        "machine": {"device": "cpu", "driver": None, "kernels": None, "versions": {}},
        "account": {"given": 1, "ok": 1, "rejected": 0, "failed": 0, "reasons": {}},
        "dimensions": [one.model_dump(mode="json") for one in dimensions],
    }  # fmt: skip
    return sealing.seal(content | changes, None)


def share(right: int, total: int, **protocol: float) -> Dimension:
    found = wilson(right, total)
    about: dict[str, Any] = {"unit": "share", "better": "higher", "n": total, "low": found.low, "high": found.high}
    return Dimension(name="", value=found.share, protocol=dict(protocol), **about)


def evaluate(
    run: suites.SuiteRun, out: Path, card: Path, settings: EvaluationSettings = SETTINGS, shard: str | None = None
) -> Card | None:
    asked = Evaluation(run, settings, measure.choose(settings.metrics, settings), "cpu")
    return evaluate_all.fn(asked, out, card, shard, card_page.build)


def write_card(samples: Path, reports: Path) -> dict[str, Any]:
    """Evaluate a folder of samples into `reports`, as the stage does; return the judge's figures."""
    evaluate(suites.shapes(samples), reports / "evaluation", reports / "card.json")
    return judgement.read(reports / "card.json")
