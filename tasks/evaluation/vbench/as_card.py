"""VBench's results as a score card, so that they are compared by the same rules as other figures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.evaluation import machine, sealing
from tasks.evaluation.card import SCHEMA, Card, Dimension, Model, Suite, Videos
from tasks.evaluation.vbench import results, suite
from tasks.evaluation.vbench.sampled import MANIFEST, read_settings
from tasks.evaluation.vbench.scores import Scores
from tasks.storage import atomic

NAME = "vbench"
SCORES = "scores"
"""Group of Quality, Semantic, I2V and Total."""


def make(files: Iterable[Path], scores: Scores, sampled: Path | None) -> Card:
    """Return a card of a score.

    Args:
        files: that the score was made of.
        sampled: folder of `stiv vbench sample`, which says what made the videos; None: nobody knows.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder is not what `stiv vbench sample` writes.
    """
    counts = {name: _count(value) for file in files for name, value in results.parse(file).items()}
    told = {} if sampled is None else read_settings(sampled / MANIFEST)
    dimensions = [_dimension(name, raw, counts[name]) for name, raw in scores.raw.items()]
    videos = max(counts.values(), default=0)
    dimensions += [
        Dimension(name=name, group=SCORES, value=value, unit="percent", better="higher", n=videos)
        for name, value in scores.groups.items()
    ]
    account = {"given": videos, "ok": videos, "rejected": 0, "failed": 0, "reasons": {}}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "suite": _suite(scores.convention.name, told).model_dump(mode="json"),
        "model": _model(told).model_dump(mode="json"),
        "videos": _videos(told).model_dump(mode="json"),
        "machine": machine.facts("cpu", has_networks=False).model_dump(mode="json"),
        "account": account,
        "not_measured": [],
        "dimensions": [one.model_dump(mode="json") for one in dimensions],
        "alarms": [],
        "values": None,
    }
    return sealing.seal(content, sealing.key())


def _count(value: Any) -> int:
    """Return of how many videos a dimension's mean is; 0 where the result does not say."""
    return len(value[1]) if isinstance(value, list) and len(value) > 1 and isinstance(value[1], list) else 0


def _dimension(name: str, raw: float, count: int) -> Dimension:
    protocol: dict[str, Any] = {"of": "VBench"}
    return Dimension(name=name, value=raw, unit="fraction", better="higher", n=count, protocol=protocol)


def _suite(convention: str, told: Mapping[str, Any]) -> Suite:
    prompts, is_t2v = told.get("prompts") or {}, convention == "t2v"  # other suites are the user's copy
    return Suite(
        name=NAME,
        sha256=(told.get("suite") or {}).get("sha256") or (atomic.sha256_file(suite.SUITE) if is_t2v else "not known"),
        convention=convention,
        prompts_sha256=prompts.get("sha256"),
        prompts_are_rewritten=prompts.get("are_rewritten"),
        seeds=told.get("seeds"),
    )


def _model(told: Mapping[str, Any]) -> Model:
    made = told.get("makes") or {}
    return Model(
        weights=(told.get("model") or {}).get("sha256"), sampler=made.get("sampler"), precision=told.get("precision")
    )


def _videos(told: Mapping[str, Any]) -> Videos:
    made, file = told.get("makes") or {}, told.get("file") or {}
    pixels: Any = "file" if file else None
    return Videos(
        height=made.get("height"), width=made.get("width"), frames=made.get("frames"), fps=file.get("fps"),
        pixels=pixels, codec=file.get("codec"), crf=file.get("crf"),
    )  # fmt: skip
