"""The report's figures: plain numbers in, SVG text out, the same bytes for the same numbers.

Colours are CSS variables, so that a figure follows the page from light to dark. matplotlib only knows fixed
colours: each variable has a stand-in that no figure shows, replaced in the finished text.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

INK, MUTED, GRID, ACCENT, SOFT, WARM = "#010101", "#010102", "#010103", "#010104", "#010105", "#010106"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", ACCENT: "accent", SOFT: "soft", WARM: "warm"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
}
_NUM_BINS = 30  # of a histogram

styled = matplotlib.rc_context(_STYLE)
"""Decorator: the style holds while a figure is drawn, and no longer."""


@styled
def funnel(steps: Sequence[tuple[str, int, float, float]]) -> str:
    """Draw what each step of the selection leaves and loses.

    Args:
        steps: name, clips left, seconds left, seconds lost at this step.
    """
    figure, axes = _panel(5.2, 0.55 + 0.27 * len(steps))
    names, clips, seconds, lost = zip(*steps, strict=True)
    rows = range(len(steps))
    axes.barh(rows, seconds, color=ACCENT, height=0.68)
    axes.barh(rows, lost, left=seconds, color=WARM, height=0.68)
    widest = max(left + gone for left, gone in zip(seconds, lost, strict=True)) or 1.0
    for row, count in enumerate(clips):
        axes.text(seconds[row] + lost[row] + 0.015 * widest, row, f"{count:,} clips", va="center", fontsize=8.5)
    axes.set_xlim(0, widest * 1.24)
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_xlabel("seconds of video left (blue) and lost at the step (orange)")
    return _svg(figure, "funnel")


class Bins(NamedTuple):
    """How often a score is in which bin, of shots that were kept and of those that were not."""

    edges: np.ndarray
    """Of all bins, from the first's lower to the last's upper; each bin has its lower edge, the last one both."""
    kept: np.ndarray
    lost: np.ndarray

    @classmethod
    def between(cls, low: float, high: float) -> "Bins":
        """Return empty bins from the smallest value to the largest."""
        edges = np.linspace(low, high if high > low else low + 1.0, _NUM_BINS + 1)
        return cls(edges, np.zeros(_NUM_BINS, np.int64), np.zeros(_NUM_BINS, np.int64))

    def add(self, kept: np.ndarray, lost: np.ndarray) -> None:
        """Count more values, all between the smallest and the largest."""
        for counts, values in ((self.kept, kept), (self.lost, lost)):
            places = np.searchsorted(self.edges, values, side="right") - 1
            counts += np.bincount(np.minimum(places, _NUM_BINS - 1), minlength=_NUM_BINS)


@styled
def histogram(name: str, bins: Bins | None, smallest: float | None, largest: float | None) -> str:
    """Draw the spread of one score over kept and rejected shots, with the thresholds as dashed lines.

    Args:
        bins: None of a score without a value.
    """
    figure, axes = _panel(4.2, 2.0)
    if bins is not None:
        values = [bins.edges[:-1]] * 2  # each edge stands for all values of its bin
        axes.hist(values, bins.edges, weights=[bins.kept, bins.lost], stacked=True, color=[ACCENT, WARM])
    for limit in (smallest, largest):
        if limit is not None:
            axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
            label = f"{'min' if limit == smallest else 'max'} {limit:g}"
            # blended transform: the label sits at the line's x and above the panel, clear of the bars
            place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            axes.text(limit, 1.02, label, fontsize=8.5, **place)
    axes.margins(x=0.08)
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    axes.grid(axis="y")
    return _svg(figure, f"score-{name}")


@styled
def loss_curve(recipe: str, steps: np.ndarray, loss: np.ndarray, bottom: float, top: float) -> str:
    """Draw one recipe's training loss, raw and smoothed, on the scale from `bottom` to `top`."""
    figure, axes = _panel(4.2, 2.2)
    axes.plot(steps, loss, color=SOFT, linewidth=0.9)
    axes.plot(steps, smoothed(loss), color=ACCENT, linewidth=1.8)
    axes.set_ylim(bottom, top)
    axes.yaxis.get_major_locator().set_params(nbins=4)
    axes.grid(axis="y")
    axes.set_xlabel("step")
    return _svg(figure, f"loss-{recipe}")


class Interval(NamedTuple):
    """A share with its 95 % interval."""

    share: float
    low: float
    high: float


class Shares(NamedTuple):
    """One row of `shares`."""

    label: str
    intervals: Sequence[Interval]
    """Of the first group and, where there is one, of the second."""
    chance: float | None


@styled
def shares(rows: Sequence[Shares], name: str, label: str) -> str:
    """Draw shares with their intervals beside chance: filled dots of the first group, open ones of the second.

    Args:
        name: of the figure, for its ids.
        label: of its axis.
    """
    figure, axes = _panel(5.2, 0.6 + 0.3 * len(rows))
    for row, (_, intervals, chance) in enumerate(rows):
        for place, (share, low, high) in enumerate(intervals):
            y = row + (place - (len(intervals) - 1) / 2) * 0.34
            axes.plot([100 * low, 100 * high], [y, y], color=SOFT, linewidth=4, solid_capstyle="round")
            fill = {"color": ACCENT} if place == 0 else {"markerfacecolor": "none", "markeredgecolor": ACCENT}
            axes.plot([100 * share], [y], "o", markersize=5.5, **fill)
        if chance is not None:
            axes.plot([100 * chance] * 2, [row - 0.36, row + 0.36], color=WARM, linewidth=2)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(-2, 102)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_xlabel(label)
    return _svg(figure, name)


class CategoryShare(NamedTuple):
    """One row of `category_shares`."""

    name: str
    interval: Interval
    before: float | None
    """Its share in the last release; None without one."""


@styled
def category_shares(rows: Sequence[CategoryShare]) -> str:
    """Draw the share of each category as a bar with its interval, and that of the last release as a ring."""
    figure, axes = _panel(5.2, 0.6 + 0.28 * len(rows))
    for row, (_, (share, low, high), before) in enumerate(rows):
        axes.barh(row, 100 * share, color=SOFT, height=0.62)
        axes.plot([100 * low, 100 * high], [row, row], color=ACCENT, linewidth=1.8)
        if before is not None:
            axes.plot([100 * before], [row], "o", markersize=5.5, markerfacecolor="none", markeredgecolor=WARM)
    axes.set_yticks(range(len(rows)), [row.name.replace("_", " ") for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(0, 102)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x")
    ring = ", last release (ring)" if any(row.before is not None for row in rows) else ""
    axes.set_xlabel(f"per cent of the clips (bar), 95 % (line){ring}")
    return _svg(figure, "categories")


class Span(NamedTuple):
    """A recipe's part of a row of recipes."""

    name: str
    end: int
    """The last of its steps, counted through all recipes."""


@styled
def learning_curve(
    name: str, steps: Sequence[int], shares: Sequence[float], chance: float | None, recipes: Sequence[Span]
) -> str:
    """Draw one share over the steps of all recipes in a row, with a line where a recipe ends and one at chance.

    Args:
        steps: counted through all recipes.
        shares: 0 to 1, one per step.
    """
    figure, axes = _panel(4.2, 2.2)
    axes.plot(steps, 100 * np.asarray(shares), "o-", color=ACCENT, linewidth=1.4, markersize=3)
    if chance is not None:
        axes.axhline(100 * chance, color=WARM, linewidth=1.2, linestyle=(0, (4, 2)))
    last = recipes[-1].end
    for start, (recipe, end) in zip([0, *(one.end for one in recipes)], recipes, strict=False):
        axes.axvline(end, color=GRID, linewidth=0.8)
        if end - start > 0.07 * last:  # narrower than its name
            place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            axes.text((start + end) / 2, 1.02, recipe.replace("_", " "), fontsize=7.5, color=MUTED, **place)
    axes.set_xlim(0, last)
    axes.set_ylim(-4, 104)
    axes.yaxis.get_major_locator().set_params(nbins=4)
    axes.grid(axis="y")
    axes.set_xlabel("training steps, all recipes in a row; per cent right")
    return _svg(figure, f"learning-{name}")


@styled
def drift(shares: Mapping[str, Sequence[float]]) -> str:
    """Draw shares over the windows of long videos, which are counted from 1.

    Args:
        shares: 0 to 1, one per window, by what is right; two at most.
    """
    figure, axes = _panel(5.2, 2.2)
    for (name, values), style in zip(shares.items(), ({"color": ACCENT}, {"color": WARM}), strict=False):
        windows = np.arange(1, len(values) + 1)
        axes.plot(windows, 100 * np.asarray(values), "o-", linewidth=1.4, markersize=4, label=name, **style)
    axes.set_ylim(-4, 104)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    axes.set_xlabel("window; per cent right")
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")
    return _svg(figure, "drift")


@styled
def stage_times(stages: Sequence[tuple[str, float, bool]]) -> str:
    """Draw the seconds that each stage took.

    Args:
        stages: name, seconds, whether it was up to date and so skipped.
    """
    figure, axes = _panel(5.2, 0.55 + 0.24 * len(stages))
    names, seconds, skipped = zip(*stages, strict=True)
    rows = range(len(stages))
    axes.barh(rows, seconds, color=[SOFT if skip else ACCENT for skip in skipped], height=0.66)
    widest = max(seconds) or 1.0
    for row in rows:
        label = f"{seconds[row]:.1f} s" + (", up to date" if skipped[row] else "")
        axes.text(seconds[row] + 0.015 * widest, row, label, va="center", fontsize=8.5)
    axes.set_xlim(0, widest * 1.3)
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_xlabel("seconds")
    return _svg(figure, "times")


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return the exponential moving average over a twentieth of the curve, unbiased at its start."""
    keep = 1 - 1 / max(2.0, len(values) / 20)
    total, weight, result = 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(total / weight)
    return np.array(result)


def _panel(width: float, height: float) -> tuple[Figure, Any]:
    """Return a figure of `width` x `height` inches and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an `<svg>` element whose ids are its own and whose colours are the page's."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg, count=1)
    # Several figures share one page: each id gets the figure's name in front.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def loss_limits(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the scale that all loss curves share.

    Raises:
        ValueError: a curve is empty or not finite.
    """
    values = np.concatenate(curves) if curves else np.array([])
    if not values.size or not np.isfinite(values).all():
        raise ValueError("a loss curve is empty or holds a value that is not finite: train that recipe again")
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * math.fabs(high) or 1.0
    return low - margin, high + margin
