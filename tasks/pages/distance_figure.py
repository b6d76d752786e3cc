"""Distances of sets of clips as figures: SVG text, the same bytes for the same numbers."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from stiv_model.metrics.frechet import Curve
from tasks.storage import atomic

_COLOURS = {"made": "#c2410c", "real": "#2563a8"}
_NAMES = {"made": "made clips", "real": "other real clips"}


def write(path: Path, curves: Mapping[str, Curve], name: str) -> dict[str, Any]:
    """Write curves over n as SVG, and as JSON beside it; return them as JSON has them.

    Args:
        curves: as `over_n`.
        name: of the distance.
    """
    told = {side: one._asdict() | {"points": [point._asdict() for point in one.points]} for side, one in curves.items()}
    texts = {path: over_n(curves, name), path.with_suffix(".json"): json.dumps(told, indent=2) + "\n"}
    for target, text in texts.items():
        with atomic.atomic_write(target) as tmp_path:
            tmp_path.write_text(text, encoding="utf-8")
    return told


def over_n(curves: Mapping[str, Curve], name: str) -> str:
    """Draw a distance over 1/n with its line to infinity.

    Args:
        curves: of `made` clips, and of `real` ones.
        name: of the distance.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    counts: set[int] = set()
    for side, curve in curves.items():
        inverse = np.array([1 / point.n for point in curve.points])
        distances = np.array([point.distance for point in curve.points])
        slope = np.polyfit(inverse, distances, 1)[0]
        ends = np.array([0.0, inverse.max()])
        axes.plot(inverse, distances, "o", color=_COLOURS[side], markersize=4, label=_NAMES[side])
        axes.plot(ends, curve.at_infinity + slope * ends, color=_COLOURS[side], linewidth=1)
        axes.annotate(
            f"{curve.at_infinity:.0f}",
            (0, curve.at_infinity),
            color=_COLOURS[side],
            xytext=(4, 4),
            textcoords="offset points",
        )
        counts |= {curve.points[0].n, curve.points[-1].n}
    axes.set_xticks([0, *(1 / n for n in sorted(counts))], ["infinity", *(str(n) for n in sorted(counts))])
    axes.set_xlabel("clips of either side, over 1/n")
    axes.set_ylabel(name)
    axes.legend(frameon=False)
    axes.grid(axis="y", linewidth=0.5, color="#cccccc")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "distance"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
