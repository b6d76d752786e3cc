"""The report's section about captions: who wrote them, what they invent, and two captioners on the same clips.

A figure is told only of clips for which the judge is fit; elsewhere the page says that it is not, and marks nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from tasks.comparison.names import FIGURES, NOT_FIT
from tasks.pages import figures
from tasks.pages.data_uris import data_uri
from tasks.storage import stills

KINDS = {
    "object": "objects",
    "attribute": "attributes (colours)",
    "relation": "relations (where it moves)",
    "action": "actions",
    "count": "counts",
    "text": "texts",
    "global": "what is said of the whole",
}
"""What questions are about, and what the page calls it."""
WAYS = {
    "video_llm": "all stills of a clip together",
    "frames_llm": "each still by itself, then one text made of all",
    "sidecar": "the text beside the video",
    "describe": "words for what was measured",
}
"""What captioners go by, and what the page says of it."""
_EXAMPLES, _WHERE_UNFIT = 4, 2


class Judged(NamedTuple):
    """What stage dsg says of a captioner."""

    captioner: str
    captions: int
    """That were judged."""
    invented: dict[str, Any] | None
    """The share of invented objects as it was counted; None where the judge is not fit, or decided none."""
    verdict: str
    why: str


class Example(NamedTuple):
    """A clip with what both captioners say of it."""

    clip: str
    is_fit: bool
    stills: list[str]
    """As data URIs."""
    said: list[dict[str, Any]]
    """Of each captioner `pieces` of its text, with a `kind` where something is invented, and `invented` questions."""


class Compared(NamedTuple):
    """Two captioners on the same clips."""

    told: dict[str, Any]
    """What `FIGURES` says."""
    ways: list[str]
    """What each of the two goes by."""
    figure: Markup | None
    """The shares of both, over the clips for which the judge is fit; None where there is none."""
    examples: list[Example]


def judged(report: Mapping[str, Any]) -> list[Judged]:
    """Return what the report of stage dsg says of each captioner.

    Args:
        report: `reports/dsg.json`.
    """
    return [
        Judged(
            captioner,
            own["captions"],
            own["rate_i"] if own.get("rate_i", {}).get("rate") is not None else None,
            NOT_FIT if own["why"].startswith(NOT_FIT) else own["verdict"],
            own["why"].removeprefix(f"{NOT_FIT}: "),
        )
        for captioner, own in report["captioners"].items()
    ]


def compared(folder: Path, shots: Path) -> Compared:
    """Return what stage comparison made, with some of its clips.

    Args:
        folder: its output.
        shots: folder with the stills.

    Raises:
        FileNotFoundError, ValueError: something is missing, or is not what the stage writes.
    """
    told = json.loads((folder / FIGURES).read_text())
    ways = [WAYS[told["ways"][name]] for name in told["captioners"]]
    return Compared(told, ways, _figure(told), _examples(told, shots))


def _figure(told: Mapping[str, Any]) -> Markup | None:
    found = [told["figures"][name]["invented"] for name in told["captioners"]]
    rows = [
        figures.Shares(
            KINDS[kind],
            [figures.Interval(*(one["kinds"][kind][key] for key in ("rate", "low", "high"))) for one in found],
            None,
        )
        for kind in told["verdict"]["kinds"]
        if all(one["kinds"].get(kind, {}).get("rate") is not None for one in found)
    ]
    if not rows:
        return None
    a, b = told["captioners"]
    return Markup(figures.shares(rows, "invented", f"per cent invented: {a} (dot), {b} (ring), 95 % (bar)"))


def _examples(told: Mapping[str, Any], shots: Path) -> list[Example]:
    """Return some clips of each group, those first of which most is invented."""
    chosen = [
        (example, "figures" in group)
        for group in told["groups"]
        for example in group["examples"][: _EXAMPLES if "figures" in group else _WHERE_UNFIT]
    ]
    pictures = stills.read(shots, [example["clip"] for example, _ in chosen])
    return [
        Example(
            example["clip"], is_fit, [data_uri("image/jpeg", one) for one in pictures[example["clip"]]], example["said"]
        )
        for example, is_fit in chosen
    ]
