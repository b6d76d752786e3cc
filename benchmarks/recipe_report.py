"""The tables of docs/recipe.md, from the results of `benchmarks.recipe`: figures, paired differences, verdicts."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from scipy import stats

from benchmarks.recipe_comparisons import Comparison, Outcome, comparisons
from benchmarks.recipe_settings import Size
from benchmarks.recipe_units import Unit
from tasks.evaluation.judge import wilson
from tasks.storage import atomic

Verdict = Literal["agrees", "disagrees", "cannot tell"]
_BEGIN = "<!-- table {name}: written by python -m benchmarks.recipe --report -->"
_END = "<!-- end of the table -->"
_LEAST_SEEDS = 2


class Difference(NamedTuple):
    """Paired differences over seeds: their mean with the 95 % interval of Student's t."""

    seeds: int
    mean: float
    low: float
    high: float


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Return the mean of `ours - theirs`, seed by seed, with its interval; infinite for a single seed.

    Raises:
        ValueError: they are not equally many, or none.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} values: pairs need one of each for every seed")
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    count, mean = len(differences), math.fsum(differences) / len(differences)
    if count < _LEAST_SEEDS:
        return Difference(count, mean, -math.inf, math.inf)
    deviation = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (count - 1))
    half = float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return Difference(count, mean, mean - half, mean + half)


def verdict(difference: Difference, better: Literal["higher", "lower"]) -> Verdict:
    """Return what a difference says of the claim: only an interval wholly on one side of zero says anything."""
    sign = 1 if better == "higher" else -1
    low, high = sorted((sign * difference.low, sign * difference.high))
    if low > 0:
        return "agrees"
    return "disagrees" if high < 0 else "cannot tell"


class Results:
    """All results of one size that are there.

    Args:
        folder: of the files.
        size: of those that count; a file of other settings does not.
    """

    def __init__(self, folder: Path, size: Size):
        self.by_arm: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
        wanted = {
            (one.letter, arm.name): Unit(one.letter, arm, 0, size)
            for one in comparisons(size).values()
            for arm in one.arms
        }
        for path in sorted(folder.glob("*.json")):
            result = json.loads(path.read_text())
            unit = wanted.get((result["comparison"], result["arm"]))
            if unit and unit.settings_sha256 == result["settings"]:
                self.by_arm[result["comparison"], result["arm"]][result["seed"]] = result

    def values(self, letter: str, arm: str, figure: str) -> dict[int, float | None]:
        """Return a figure of an arm by seed; a count as its share, None where it is no number."""
        look, _, name = figure.rpartition(".")
        found = {}
        for seed, result in self.by_arm[letter, arm].items():
            figures = result["figures"].get(look, {})
            if name in figures.get("counts", {}):
                found[seed] = figures["counts"][name] / figures["n"]
            elif name in figures:
                found[seed] = figures[name]
        return found

    def pooled(self, letter: str, arm: str, figure: str) -> tuple[int, int] | None:
        """Return how many videos of how many have it, over all seeds; None where the figure is no count."""
        look, _, name = figure.rpartition(".")
        counted = [result["figures"].get(look, {}) for result in self.by_arm[letter, arm].values()]
        counted = [figures for figures in counted if name in figures.get("counts", {})]
        if not counted:
            return None
        return sum(figures["counts"][name] for figures in counted), sum(figures["n"] for figures in counted)


def compare(results: Results, letter: str, outcome: Outcome) -> Difference | None:
    """Return the paired difference of an outcome over the seeds that both arms have; None where there is none."""
    ours, theirs = (results.values(letter, arm, outcome.figure) for arm in (outcome.arm, outcome.against))
    seeds = [seed for seed in sorted(ours.keys() & theirs.keys()) if None not in (ours[seed], theirs[seed])]
    if not seeds:
        return None
    return paired([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def write(page: Path, results: Path, size: Size) -> None:
    """Replace the tables in the page, which stand between comments, by those of the results.

    Raises:
        ValueError: the page lacks the place of a table.
    """
    found, text = Results(results, size), page.read_text()
    for name, table in tables(found, size).items():
        begin = _BEGIN.format(name=name)
        if text.count(begin) != 1:
            raise ValueError(f"{page} has {text.count(begin)} places for the table {name!r}: it needs one {begin}")
        before, _, rest = text.partition(begin)
        _, end, after = rest.partition(_END)
        if not end:
            raise ValueError(f"{page} does not say where the table {name!r} ends: put {_END} after it")
        text = f"{before}{begin}\n\n{table}\n\n{_END}{after}"
    with atomic.atomic_write(page) as tmp_path:
        tmp_path.write_text(text)


def tables(results: Results, size: Size) -> dict[str, str]:
    """Return all tables of the page by name, in Markdown."""
    made = {"overview": overview(results, size)}
    for letter, one in comparisons(size).items():
        made[letter] = f"{differences_table(results, one)}\n\n{arms_table(results, one)}"
    made["sweep"] = sweep_table(results)
    return made


def overview(results: Results, size: Size) -> str:
    """Return a line per comparison: what the deciding outcome says."""
    lines = ["| | comparison | deciding figure | difference [95 %] | seeds | the paper's claim | CPU hours |"]
    lines.append("|---|---|---|---|---|---|---|")
    for letter, one in comparisons(size).items():
        outcome, difference = one.outcomes[0], compare(results, letter, one.outcomes[0])
        said = "not measured | 0 | - "
        if difference:
            told = verdict(difference, outcome.better)
            said = f"{_interval(difference, outcome.figure)} | {difference.seeds} | **{told}** "
        figure = f"{_words(outcome.figure)}, {outcome.arm} less {outcome.against}"
        lines.append(f"| [({letter})](#{_anchor(one)}) | {one.title} | {figure} | {said}| {_hours(results, one):.2f} |")
    return "\n".join(lines)


def _hours(results: Results, one: Comparison) -> float:
    """Return the CPU hours of a comparison by itself: stages that others use too are counted here as well."""
    spent: dict[tuple[str, int], float] = {}
    looks = 0.0
    for arm in one.arms:
        for seed, result in results.by_arm[one.letter, arm.name].items():
            looks += result["look_seconds"]
            spent |= {(stage["name"], seed): stage["seconds"] for stage in result["stages"]}
    return (looks + sum(spent.values())) / 3600


def differences_table(results: Results, one: Comparison) -> str:
    """Return a line per outcome: the difference that the claim is about, and what it says."""
    lines = [
        "| figure | of | less that of | difference [95 %] | seeds | better is | |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, outcome in enumerate(one.outcomes):
        difference = compare(results, one.letter, outcome)
        said = "not measured | 0 | | |"
        if difference:
            told = verdict(difference, outcome.better)
            told = f"**{told}** (decides)" if number == 0 else told
            said = f"{_interval(difference, outcome.figure)} | {difference.seeds} | {outcome.better} | {told} |"
        lines.append(f"| {_words(outcome.figure)} | {outcome.arm} | {outcome.against} | {said}")
    return "\n".join(lines)


def arms_table(results: Results, one: Comparison) -> str:
    """Return a line per arm: what it cost, and its figures, counts with Wilson's interval over all seeds' videos."""
    heads = ["arm", "seeds", "TFLOP", "CPU s", *map(_words, one.table)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm in one.arms:
        seeds = results.by_arm[one.letter, arm.name]
        arithmetic = sum(stage.gflop for stage in arm.stage.ancestors()) / 1000
        spent = [sum(stage["seconds"] for stage in result["stages"]) for result in seeds.values()]
        seconds = f"{sum(spent) / len(spent):.0f}" if spent else "-"
        cells = [_cell(results, one.letter, arm.name, figure) for figure in one.table]
        lines.append(f"| {' | '.join([arm.name, str(len(seeds)), f'{arithmetic:.2f}', seconds, *cells])} |")
    return "\n".join(lines)


def _cell(results: Results, letter: str, arm: str, figure: str) -> str:
    pooled = results.pooled(letter, arm, figure)
    if pooled:
        share = wilson(*pooled)
        return f"{100 * share.share:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"
    values = list(results.values(letter, arm, figure).values())
    if not values:
        return "-"
    if None in values:
        return f"no number with {values.count(None)} of {len(values)} seeds"
    digits = _digits(figure)
    low, high = (f"{end:.{digits}f}" for end in (min(values), max(values)))
    return f"{sum(values) / len(values):.{digits}f} ({low} to {high})"


def sweep_table(results: Results) -> str:
    """Return what guidance does to given images: arms of (d), one line per kind and scale."""
    lines = ["| arm | guidance | scale | of the image | seeds | way | direction right | PSNR, dB |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for (letter, arm), seeds in results.by_arm.items():
        if letter != "d":
            continue
        names = {name: None for result in seeds.values() for name in result["figures"] if name.startswith("ti2v")}
        for name in names:
            kind, scale, image = (*(name.removeprefix("ti2v").split() or _default(arm)), "-")[:3]
            cells = [_cell(results, "d", arm, f"{name}.{figure}") for figure in ("way", "direction", "psnr")]
            lines.append(f"| {arm} | {kind} | {scale} | {image} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _default(arm: str) -> list[str]:
    return ["text" if "text" in arm else "joint", "2"]


_NAMES = {
    "t2v": "T2V",
    "ti2v": "TI2V",
    "tup": "TUP",
    "video": "video",
    "words": "held-out",
    "all_right": "all right",
    "one_object": "one object",
    "same_object": "same object",
    "psnr": "PSNR to the scene, dB",
    "psnr_of_mean": "PSNR of the neighbours' mean, dB",
    "psnr_over_mean": "PSNR over that of the mean, dB",
    "shape_signal": "signal of the shape's word, 10^-3",
    "jerk": "second difference of the centre, % of the side",
    "way": "way over the scene's",
}


def _words(figure: str) -> str:
    return " ".join(_NAMES.get(part, part) for part in figure.split("."))


def _digits(figure: str) -> int:
    name = figure.rpartition(".")[2]
    return {"loss": 4, "jerk": 3, "quality": 3, "shape_signal": 0, "psnr": 1, "psnr_of_mean": 1}.get(name, 2)


def _interval(difference: Difference, figure: str) -> str:
    digits = _digits(figure)
    if math.isinf(difference.low):
        return f"{difference.mean:+.{digits}f} (one seed)"
    return f"{difference.mean:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"


def _anchor(one: Comparison) -> str:
    return re.sub(r"[^a-z0-9 -]", "", f"{one.letter} {one.title}".lower()).replace(" ", "-")
