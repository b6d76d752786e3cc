"""Scored shots with every kind of value: null, no number, on the limits and beside them."""

import math

import numpy as np

from tasks.clips.settings import ClipSettings, NonNegativeRange
from tasks.scores.embedding import embedding
from tasks.storage import tables

SCORES = [name for name, field in ClipSettings.model_fields.items() if field.annotation is NonNegativeRange]
FREE = {score: {"min": None, "max": None} for score in SCORES}
SETTINGS = ClipSettings(
    **FREE | {"motion": {"min": 0.3, "max": 0.9}, "quality": {"min": 0.1 + 0.2, "max": None},
              "flicker": {"min": 0.0, "max": None}, "height": {"min": 300, "max": None},
              "seconds": {"min": 0.9, "max": 60.0}},
    nsfw=None,
    orientations=["landscape", "square"],
    duplicate_bits=None,
    duplicate_similarity=None,
    best=None,
    earlier_releases=[],
    gate_min_clips=1,
    gate_min_kept_fraction=0.0,
    gate_min_hours=0.0,
    gate_max_rejected={},
    gate_max_drift=None,
)  # fmt: skip
ODD = (None, math.nan, math.inf, -math.inf, 0.0, -0.0, 0.3, 0.9, 0.1 + 0.2, 0.30000000000000004, math.nextafter(0.9, 1))
COLUMNS = [*(name for name in SCORES if name in tables.SCORES.names), "nsfw"]


def random_rows(seed: int, count: int) -> list[dict]:
    """Return scored shots with every kind of value, on the limits and beside them, and some that are not ok."""
    random = np.random.default_rng(seed)

    def score(odd_share: float) -> float | None:
        return ODD[random.integers(len(ODD))] if random.random() < odd_share else float(random.random())

    def pick(*values):
        return values[random.integers(len(values))]

    rows = []
    for number in range(count):
        start, time_base = int(random.integers(10**9)), pick("1/24", "1001/30000", "1/90000", "1/90000", "1")
        row = dict.fromkeys(tables.SCORES.names) | {name: score(0.02) for name in COLUMNS}
        row |= {"motion": score(0.2), "quality": score(0.2), "height": pick(299, 300, 301, 720)}
        row |= {"clip": f"s{number}", "status": "ok", "width": 640, "start_pts": pick(None, *[start] * 9)}
        row |= {
            "end_pts": start + int(random.integers(200_000) if time_base == "1/90000" else random.integers(1500)),
            "time_base": time_base,
            "caption": pick(None, "a"),
        }
        row |= {"orientation": pick("landscape", "portrait", "square"), "colours": pick(None, [], ["red"])}
        row["video_hash"] = bytes([*[0] * 31, pick(0, 1, 255)]) if random.random() < 0.3 else random.bytes(32)
        near = random.normal(size=(1, 8)) if random.random() < 0.7 else np.eye(1, 8) + random.normal(scale=0.1, size=8)
        row |= {"embedding": pick(None, *[embedding(near)] * 9), "embedder": "e"}
        rows.append(row)
    rows[0] |= {"status": "failed", "reason": "decode_error"}
    rows[1] |= {"orientation": None}
    rows[2] |= {"height": None}
    return rows
