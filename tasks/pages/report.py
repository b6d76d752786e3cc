"""One HTML page that shows what the pipeline did: self-contained, no script, the same bytes each time."""

import csv
import json
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from prefect import task

from stiv_model.errors.redaction import redacted
from tasks.clips.settings import ClipSettings, Range
from tasks.comparison.names import FIGURES as COMPARISON
from tasks.demo.shapes import CHANCE
from tasks.evaluation import judgement as judgements
from tasks.evaluation.card import FILE as CARD_FILE
from tasks.gates.data_docs import DOCS_INDEX
from tasks.pages import captions_section, categories, figures, shipped
from tasks.pages.data_uris import data_uri
from tasks.pages.templates import template
from tasks.storage import atomic, fields, parts, queries, stills, tables
from tasks.storage.fields import Fields
from tasks.storage.scores import SCORES

log = logging.getLogger(__name__)

UNITS = {score.name: score.unit for score in SCORES} | {"height": "pixels", "width": "pixels", "seconds": "s"}
EXAMPLES = 12
MAX_VIDEO_BYTES = 9_000_000  # as base64 12 MB, so that the page stays below 15


class Inputs(NamedTuple):
    """Every folder that the page is made of, and which stages it shows."""

    reports: Path
    """Accounts, loss tables, the score card and the Data Docs."""
    shots: Path
    selected: Path
    """Folder with the table of clips: every scored shot with its status."""
    captions: Path
    samples: Path
    stages: tuple[str, ...]
    """Those that keep accounts, each in `reports/STAGE.json`, in the order in which they are shown."""
    recipes: tuple[str, ...]
    """Those that train, each with its curve in `reports/losses/RECIPE.tsv`."""
    compared: Path
    """Folder with what stage comparison made."""
    shipped: Path | None = None
    """Folder of the model that comes with the package, to be shown beside this run's; None: nothing is."""


def require(path: Path, stage: str) -> Path:
    """Return `path`.

    Raises:
        FileNotFoundError: it is not there; the message names the stage that makes it.
    """
    if not path.exists():
        raise FileNotFoundError(f"the report needs {path}, which stage {stage} makes: dvc repro {stage}")
    return path


def read_json(path: Path, stage: str) -> dict[str, Any]:
    return json.loads(require(path, stage).read_text())


def accounts(reports: Path, stages: Iterable[str]) -> list[dict[str, Any]]:
    """Return one row per stage and unit, with whether given = ok + rejected + failed."""
    rows = []
    for stage in stages:
        for unit, account in read_json(reports / tables.report_name(stage), stage).items():
            if isinstance(account, dict) and "given" in account:
                total = account["ok"] + account["rejected"] + account["failed"]
                rows.append({"stage": stage, "unit": unit, "balances": account["given"] == total} | account)
    return rows


def check_columns(path: Path, stage: str, schema: pa.Schema) -> None:
    """Look whether a stage's table is there and has the columns expected.

    Raises:
        FileNotFoundError: no such table.
        ValueError: the table has other columns than the schema says.
    """
    tables.check_columns(require(path, stage), schema, f"dvc repro -f {stage}")


def histograms(selected: Path, clips: ClipSettings) -> list[dict[str, Any]]:
    """Return a figure per thresholded score, over every scored shot."""
    ranges = {name: value for name, value in clips if isinstance(value, Range)}
    path = selected / tables.CLIP_TABLE
    check_columns(path, "clips", tables.CLIPS)
    result = []
    for name, bins in binned(path, list(ranges)).items():
        limits, title = ranges[name], name.replace("_", " ")
        drawn = figures.histogram(name, bins, limits.min, limits.max)
        span = [f"{word} {value:g}" for word, value in (("min", limits.min), ("max", limits.max)) if value is not None]
        result.append(
            {
                "figure": Markup(drawn),
                "title": title,
                "unit": UNITS[name],
                "limits": " and ".join(span),
            }
        )
    return result


def binned(table: Path, scores: Sequence[str]) -> dict[str, figures.Bins | None]:
    """Return how often each score of a table of schema CLIPS is in which bin; None for one that was never measured."""
    extents: dict[str, tuple[float, float]] = {}
    for _, columns in _finite(table, scores):
        for name, (_, values) in columns.items():
            if values.size:
                low, high = extents.get(name, (math.inf, -math.inf))
                extents[name] = min(low, float(values.min())), max(high, float(values.max()))
    found = {name: figures.Bins.between(*extents[name]) if name in extents else None for name in scores}
    for is_clip, columns in _finite(table, scores):
        for name, (known, values) in columns.items():
            if (bins := found[name]) is not None:
                bins.add(values[is_clip[known]], values[~is_clip[known]])
    return found


def _finite(
    table: Path, scores: Sequence[str]
) -> Iterator[tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """Give, for some rows at a time, which are clips, and of each score which are finite numbers, and those."""
    for batch in queries.read([table], ["status", *scores]):
        columns = {}
        for name in scores:
            values = np.asarray(batch[name].cast(pa.float64()).to_numpy(zero_copy_only=False))  # null becomes NaN
            known = np.isfinite(values)
            columns[name] = known, values[known]
        yield pc.equal(batch["status"], "ok").to_numpy(zero_copy_only=False), columns


@fields.columns_of(tables.CAPTIONS)
class Caption(NamedTuple):
    """A clip that has a caption."""

    clip: str
    captioner: str
    text: str


@fields.columns_of(tables.CLIPS)
class Clip(NamedTuple):
    """What is shown of a clip."""

    clip: str
    uri: str
    seconds: float
    motion: float
    aesthetic: float


class Example(NamedTuple):
    """One clip of the page: its caption, its measures, and its stills as data URIs."""

    caption: Caption
    clip: Clip
    stills: list[str]


def examples(inputs: Inputs) -> list[Example]:
    """Return some clips with stills and captions, as many of each captioner, spread evenly over the table."""
    path, clips_path = inputs.captions / tables.CAPTION_TABLE, inputs.selected / tables.CLIP_TABLE
    check_columns(path, "captions", tables.CAPTIONS)
    check_columns(clips_path, "clips", tables.CLIPS)
    with tempfile.TemporaryDirectory(prefix="stiv-report-") as spill, queries.connect(Path(spill)) as connection:
        chosen = _spread(connection, path)
        named = [caption.clip for caption in chosen]
        found = {clip.clip: clip for clip in _of_clips(connection, clips_path, Clip, named)}
    if absent := sorted(set(named) - found.keys()):
        raise ValueError(f"{clips_path} has no row of {absent[:3]}, which captions name: dvc repro -f clips")
    require(inputs.shots / stills.FOLDER / parts.FILE, "shots")
    pictures = stills.read(inputs.shots, named)
    return [
        Example(caption, found[caption.clip], [data_uri("image/jpeg", still) for still in pictures[caption.clip]])
        for caption in chosen
    ]


def _spread(connection: duckdb.DuckDBPyConnection, captions: Path) -> list[Caption]:
    """Return captions, as many of each captioner, spread evenly over its clips by name."""
    rows = f"{queries.scan([captions], numbered=True)} WHERE status = 'ok'"
    counts = connection.sql(f"SELECT captioner, count(*) FROM {rows} GROUP BY captioner ORDER BY captioner").fetchall()
    chosen: list[Caption] = []
    for number, (captioner, own) in enumerate(counts):
        count = min(own, (EXAMPLES - len(chosen)) // (len(counts) - number))
        places = [place * own // count for place in range(count)]
        clips = connection.execute(
            f"""SELECT clip FROM (
                    SELECT clip, row_number() OVER (ORDER BY clip, file_row_number) - 1 AS place
                    FROM {rows} AND captioner = $1)
                WHERE place IN (SELECT unnest($2::BIGINT[])) ORDER BY place""",
            [captioner, places],
        ).fetchall()
        texts = {
            caption.clip: caption for caption in _of_clips(connection, captions, Caption, [clip for (clip,) in clips])
        }
        chosen += [texts[clip] for (clip,) in clips]
    return chosen


def _of_clips(connection: duckdb.DuckDBPyConnection, table: Path, kind: type[Fields], clips: list[str]) -> list[Fields]:
    """Return what is read of the rows of these clips, in any order."""
    named = ", ".join(map(queries.quoted, clips)) or "NULL"
    query = f"SELECT {', '.join(kind._fields)} FROM {queries.scan([table])} WHERE clip IN ({named})"
    return [kind._make(row) for row in connection.sql(query).fetchall()]


def read_losses(reports: Path, recipes: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return each recipe's columns of `reports/losses/RECIPE.tsv`.

    Raises:
        FileNotFoundError: a recipe has none.
        ValueError: a table is empty.
    """
    result = {}
    for recipe in recipes:
        with require(reports / "losses" / f"{recipe}.tsv", recipe).open() as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if not rows:
            raise ValueError(f"reports/losses/{recipe}.tsv has no rows: dvc repro -f {recipe}")
        result[recipe] = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    return result


def curves(losses: dict[str, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return a figure per recipe, all on one scale, with its first and last smoothed loss."""
    low, high = figures.loss_limits([columns["loss"] for columns in losses.values()])
    result = []
    for recipe, columns in losses.items():
        smooth = figures.smoothed(columns["loss"])
        drawn = figures.loss_curve(recipe, columns["step"], columns["loss"], low, high)
        result.append({"recipe": recipe, "figure": Markup(drawn), "first": smooth[0], "last": smooth[-1],
                       "steps": int(columns["step"][-1]), "seconds": columns["seconds"][-1]})  # fmt: skip
    return result


def shown_samples(folder: Path, verdicts: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples, long ones last, with their files as data URIs; beyond `MAX_VIDEO_BYTES` only named."""
    rows, spent = [], 0
    listed = read_json(folder / tables.SAMPLE_LIST, "samples")
    for sample in [*listed["samples"], *listed.get("long", [])]:
        row = sample | {"verdict": verdicts.get(sample["id"], {}), "video_uri": None, "image_uri": None}
        row |= {"truth_uri": None, "is_seen": not sample["held_out"]}
        if sample["status"] == "ok":
            contents = {
                key: require(folder / sample[key], "samples").read_bytes()
                for key in ("video", "truth", "image")
                if sample[key]
            }
            spent += sum(map(len, contents.values()))
            for key, content in contents.items():
                if key == "image" or spent <= MAX_VIDEO_BYTES:
                    row[f"{key}_uri"] = data_uri("image/png" if key == "image" else "video/mp4", content)
        rows.append(row)
    return rows


FIGURES = {
    "colour": "colour",
    "shape": "shape",
    "direction": "direction",
    "moved": "moved",
    "one_object": "one object",
    "same_object": "the same object in all frames",
}
"""What the judge counts, and its heading."""

APPLICATIONS = {
    "predict": "what comes next, of four given frames",
    "between": "between a first and a last frame",
    "tup": "between every second frame of real videos (TUP)",
    "cascade": "between every second frame of the model's own videos (TUP cascade)",
}
"""The modes that are given several frames, and their heading."""


def groups(judgement: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mode, combinations, held out or seen, and figures of everything that was judged apart."""
    return [
        {"mode": mode, "combinations": combinations.replace("_", " "), "figures": found}
        for mode, of_mode in judgement["modes"].items()
        for combinations, found in of_mode.items()
    ]


def applications(judgement: dict[str, Any]) -> list[dict[str, Any]]:
    """Return name and figures of every mode that was given several frames."""
    return [
        {"mode": mode, "name": name, "figures": judgement["modes"][mode]["held_out"]}
        for mode, name in APPLICATIONS.items()
        if "made_psnr" in judgement["modes"].get(mode, {}).get("held_out", {})
    ]


def long_videos(found: dict[str, Any]) -> dict[str, Any] | None:
    """Return the figures of the long videos, and how they drift; None where there are none."""
    if not found["videos"]:
        return None
    by_window = [found["drift"][str(window)] for window in range(1, found["windows"] + 1)]
    shares = {name: [one[name]["share"] for one in by_window] for name in ("colour", "shape")}
    return found | {"figure": Markup(figures.drift(shares)), "first": by_window[0], "last": by_window[-1]}


def judged_shares(judgement: dict[str, Any]) -> str:
    """Draw every share of held-out and of seen combinations beside chance."""
    rows = [
        figures.Shares(
            f"{mode} {name.replace('_', ' ')}",
            [figures.Interval(*(found[name][key] for key in ("share", "low", "high"))) for found in of_mode.values()],
            next(iter(of_mode.values()))[name].get("chance"),
        )
        for mode, of_mode in judgement["modes"].items()
        for name in FIGURES
    ]
    return figures.shares(rows, "judge", "per cent: held out (dot), seen (ring), 95 % (bar), chance (line)")


def learning(path: Path, losses: dict[str, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return a figure per figure of the judge, over the steps of all recipes in a row; none where none was judged.

    Args:
        path: the table that stage evaluate wrote.
        losses: of each recipe, in the order of training.
    """
    with require(path, "evaluate").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    ends = np.cumsum([columns["step"][-1] for columns in losses.values()])
    recipes = [figures.Span(name, int(end)) for name, end in zip(losses, ends, strict=True)]
    before = dict(zip(losses, [0, *map(int, ends)], strict=False))
    drawn = []
    for name, title in FIGURES.items():
        known = [row for row in rows if row.get(name) and row["recipe"] in before]
        if known:
            steps = [before[row["recipe"]] + int(row["step"]) for row in known]
            shares = [int(row[name]) / int(row["n"]) for row in known]
            figure = figures.learning_curve(name, steps, shares, CHANCE.get(name), recipes)
            last = f"{known[-1][name]} of {known[-1]['n']} at the last"
            drawn.append({"figure": Markup(figure), "title": title, "last": last, "count": len(known)})
    return drawn


def read_times(times: Path) -> list[tuple[str, float, bool]]:
    """Return name, seconds and whether skipped, of each stage; empty when the pipeline flow recorded none."""
    if not times.exists():
        return []
    stages = json.loads(times.read_text())["stages"]
    return [(name, stage["seconds"], stage["skipped"]) for name, stage in stages.items()]


def build(inputs: Inputs, times: Path, clips: ClipSettings) -> str:
    """Return the page.

    Raises:
        FileNotFoundError: an input is missing; the message names it and the stage that makes it.
        ValueError: an input is not what its stage writes.
    """
    # Everything is read before anything is drawn: a missing input must not cost the drawing.
    selection = read_json(inputs.reports / tables.report_name("clips"), "clips")
    judgement = judgements.read(require(inputs.reports / CARD_FILE, "evaluate"))
    long = read_json(inputs.reports / "long.json", "evaluate")
    made = read_json(inputs.samples / tables.SAMPLE_LIST, "samples")
    samples = shown_samples(inputs.samples, {row["id"]: row for row in judgement["verdicts"]})
    balance, shown = accounts(inputs.reports, inputs.stages), examples(inputs)
    own = "categories" in inputs.stages
    said = read_json(inputs.reports / tables.report_name("categories"), "categories") if own else {}
    caption_report = read_json(inputs.reports / tables.report_name("captions"), "captions")
    judged_captions = captions_section.judged(read_json(inputs.reports / tables.report_name("dsg"), "dsg"))
    require(inputs.compared / COMPARISON, "comparison")
    described = captions_section.compared(inputs.compared, inputs.shots)
    losses, stages = read_losses(inputs.reports, inputs.recipes), read_times(times)
    require(inputs.reports / "data_docs" / DOCS_INDEX, "clips")
    trained = {name: (int(columns["step"][-1]), float(columns["seconds"][-1])) for name, columns in losses.items()}
    comparison = shipped.compare(inputs.shipped, samples, judgement, trained) if inputs.shipped else None
    steps = [
        (row["step"].replace("_", " "), row["clips"], row["seconds"], row["lost_seconds"])
        for row in selection["funnel"]
    ]
    return template("report.html.jinja", _FILTERS).render(
        accounts=balance,
        funnel=selection["funnel"],
        funnel_figure=Markup(figures.funnel(steps)),
        gate=selection["gate"],
        histograms=histograms(inputs.selected, clips),
        orientations=clips.orientations,
        examples=shown,
        categories=categories.panel(said),
        caption_rules={rule: number for rule, number in caption_report["rules"].items() if number},
        judged_captions=judged_captions,
        described=described,
        kinds=captions_section.KINDS,
        curves=curves(losses),
        judgement=judgement,
        judged=groups(judgement),
        figure_names=FIGURES,
        judge_figure=Markup(judged_shares(judgement)),
        applications=applications(judgement),
        long=long_videos(long),
        learning=learning(inputs.reports / "learning.tsv", losses),
        samples=samples,
        comparison=comparison,
        checkpoint=made["checkpoint"],
        sampler=made["sampler"],
        given=made.get("given"),
        stages=stages,
        times_figure=Markup(figures.stage_times(stages)) if stages else None,
    )


def duration(seconds: float) -> str:
    """Return a length of time in the unit that reads best."""
    if seconds < 120:
        return f"{seconds:.1f}\u00a0s"
    return f"{seconds / 60:.1f}\u00a0min" if seconds < 7200 else f"{seconds / 3600:,.1f}\u00a0h"


_FILTERS = {
    "percent": lambda share: f"{100 * share:.0f}\u00a0%",
    "number": lambda n: f"{n:,}",
    "duration": duration,
}


@task(task_run_name="write {out.name}")
@redacted
def write_page(inputs: Inputs, out: Path, times: Path, clips: ClipSettings) -> int:
    """Write the page to `out` (HTML); return its size in bytes.

    Args:
        times: file with the time that each stage took (JSON); it may be missing.
        clips: thresholds, which the histograms show.

    Raises:
        FileNotFoundError: an input is missing; the message names it and the stage that makes it.
        ValueError: an input is not what its stage writes.
    """
    page = build(inputs, times, clips)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(out) as tmp_path:
        tmp_path.write_text(page, encoding="utf-8")
    log.info("%s: %.1f MB", out, len(page) / 1e6)
    return len(page)
