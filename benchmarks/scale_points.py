"""The points of benchmarks/scale.py: for each, how its inputs are made, and how the stage is run on them.

A stage more is a `make` (folder, rows), which writes what the stage reads into an empty folder; a `load`, which imports
what the stage needs and returns a function that runs it on that folder, as often as it is called; and a line in POINTS.
What is imported by `load` is not counted as the stage's time, so imports belong in it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import scale_listing, scale_stages

if TYPE_CHECKING:
    from tasks.clips.settings import ClipSettings

Run = Callable[[Path], None]
ROOT = Path(__file__).parents[1]


class Point(NamedTuple):
    """One stage, or one way to run it, over a table of any number of rows."""

    make: Callable[[Path, int], None]
    load: Callable[[], Run]
    most_seconds: float | None = None
    """CPU time that it may take at 1 million rows."""
    further_bytes_per_row: float | None = None
    """Memory that each row may add; None asks for memory that does not grow."""


def make_scores(folder: Path, rows: int) -> None:
    from benchmarks import made_tables
    from tasks.storage import tables

    made_tables.write_scores(folder / "scores" / tables.SCORE_TABLE, rows)


def passing_gate(settings: "ClipSettings") -> "ClipSettings":
    """Return these thresholds with a gate that lets any table pass, and no shot lost but by them."""
    gate = {"gate_min_kept_fraction": 0.0, "gate_min_clips": 1, "gate_min_hours": 0.0, "gate_max_rejected": {}}
    return settings.model_copy(update=gate | {"duplicate_bits": None, "best": None})


def without_limits(settings: "ClipSettings") -> "ClipSettings":
    """Return settings with which nearly every shot is a clip."""
    from tasks.clips import thresholds

    none = {"min": None, "max": None}
    changes = {name: kind.model_copy(update=none) for name, kind in thresholds.ranges(settings).items()}
    return passing_gate(settings).model_copy(update=changes | {"orientations": ["landscape", "portrait", "square"]})


def clips(duplicate_bits: int | None) -> Callable[[], Run]:
    """Stage clips with the thresholds of params.yaml, and a gate that passes.

    Near-duplicates are looked for among all shots: without limits, so that nearly all pass.
    """

    def load() -> Run:
        from flows.params import load_params
        from tasks.clips.select import select_clips

        settings = load_params(ROOT / "params.yaml").clips
        settings = passing_gate(settings) if duplicate_bits is None else without_limits(settings)
        settings = settings.model_copy(update={"duplicate_bits": duplicate_bits})

        def run(folder: Path) -> None:
            reports = folder / "reports"
            select_clips.fn(folder / "scores", folder / "clips", reports / "clips.json", reports / "docs", settings)

        return run

    return load


def make_report(folder: Path, rows: int) -> None:
    from benchmarks import made_tables
    from tasks.storage import tables

    made_tables.write_clips(folder / "clips" / tables.CLIP_TABLE, rows)
    made_tables.write_captions(folder / "captions" / tables.CAPTION_TABLE, rows)
    made_tables.write_stills(folder / "shots", rows)
    reports, samples = folder / "reports", folder / "samples"
    step = {"step": "scored", "clips": rows, "seconds": 3.0 * rows, "lost": 0, "lost_seconds": 0.0}
    gate = {"success": True, "evaluated": 1, "failed": []}
    account = {"given": rows, "ok": rows, "rejected": 0, "failed": 0, "reasons": {}}
    for path, content in {
        reports / "videos.json": {"videos": account},
        reports / "clips.json": {"funnel": [step], "gate": gate},
        samples / tables.SAMPLE_LIST: {"checkpoint": "none", "sampler": {}, "samples": []},
        reports / "data_docs/index.html": "",
        reports / "learning.tsv": "recipe\tstep\tn\n",
        reports / "losses/t2v.tsv": "step\tloss\tseconds\n1\t1\t1\n2\t0.5\t2\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    _write_card(reports, account)


def _write_card(reports: Path, account: dict[str, Any]) -> None:
    """Write a card with the judge's figures of one sample, which no table has."""
    from tasks.evaluation import sealing, values

    table = reports / "evaluation" / values.FILE
    table.parent.mkdir()
    sha256 = values.write(table, values.FIRST.empty_table())
    counted = ("colour", "shape", "direction", "moved", "one_object", "same_object", "unseen")
    share = {"value": 1.0, "unit": "share", "better": "higher", "n": 1, "low": 0.5, "high": 1.0}
    card = {
        "suite": {"name": "shapes", "sha256": "none"},
        "model": {},
        "videos": dict.fromkeys(("height", "width", "frames", "fps", "pixels")),
        "machine": {"device": "cpu", "driver": None, "kernels": None, "versions": {}},
        "account": account,
        "not_measured": [],
        "dimensions": {"t2v held_out": dict.fromkeys(counted, share | {"protocol": {"chance": 0.2}})},
        "alarms": [],
        "values": {"file": f"evaluation/{values.FILE}", "sha256": sha256},
    }
    sealing.write(sealing.seal(card, None), reports / "card.json")


def report() -> Run:
    """The report, without samples, with one curve."""
    from flows.params import load_params
    from tasks.pages.report import Inputs, write_page

    settings = load_params(ROOT / "params.yaml").clips

    def run(folder: Path) -> None:
        places: dict[str, Any] = {name: folder / name for name in ("reports", "shots", "captions", "samples")}
        inputs = Inputs(**places, selected=folder / "clips", stages=("videos",), recipes=("t2v",))
        write_page.fn(inputs, folder / "report.html", folder / "times.json", settings)

    return run


def make_latents(folder: Path, rows: int) -> None:
    from benchmarks import made_latents

    made_latents.make_latents(folder / "latents", rows)


def rank() -> Run:
    """The start of a rank: it opens the latents, and trains on all of them."""
    from flows.params import load_params
    from stiv_model.latents.dataset import LatentData

    recipe = load_params(ROOT / "params.yaml").train["t2i"].model_copy(update={"best_fraction": 1.0})

    def run(folder: Path) -> None:
        LatentData(folder / "latents", recipe)

    return run


def make_checkpoints(folder: Path, rows: int) -> None:
    from benchmarks import made_latents

    made_latents.make_checkpoints(folder / "checkpoints", rows)


def why() -> Run:
    """What `stiv why` asks the checkpoints: how often each saw one clip, and when first."""
    import pyarrow.parquet as pq

    from stiv_model.latents.training_set import SAMPLES
    from tasks.lineage import lineage

    def run(folder: Path) -> None:
        space = lineage.Workspace.below(folder, (), ())
        with pq.ParquetFile(space.trained[0] / SAMPLES) as file:
            last = file.read_row_group(file.num_row_groups - 1, ["clip"])["clip"][-1].as_py()
        found = dict(lineage.seen_by(space, last))
        assert len(found) == len(space.trained), f"{len(found)} checkpoints have {last}"

    return run


def make_captioned(folder: Path, rows: int) -> None:
    from benchmarks import made_tables
    from tasks.storage import tables

    made_tables.write_clips(folder / "clips" / tables.CLIP_TABLE, rows)
    made_tables.write_captions(folder / "captions" / tables.CAPTION_TABLE, rows)


def make_encoded(folder: Path, rows: int) -> None:
    make_captioned(folder, rows)
    latents()(folder)


def latents() -> Run:
    """Stage latents but for what is encoded: of each part there is an empty file, and the hashes are made up.

    Where it has run in the folder before, it takes all parts over.
    """
    from benchmarks import unencoded
    from tasks.storage.stage import run

    unencoded.load_encoders()

    def run_stage(folder: Path) -> None:
        stage = unencoded.stage(folder)
        run(stage, folder / "latents", folder / "latents.json", "code", unencoded.pretend, folder / "earlier")

    return run_stage


POINTS = {
    "listing": Point(scale_listing.make, lambda: scale_listing.listing("bucket")),
    "listing, texts": Point(scale_listing.make, lambda: scale_listing.listing("texts")),
    "listing, list": Point(scale_listing.make, lambda: scale_listing.listing("list")),
    "videos": Point(scale_stages.make_listing, scale_stages.videos),
    "shots": Point(scale_stages.make_videos, scale_stages.shots),
    "scores": Point(scale_stages.make_shots, scale_stages.scores),
    "scores, taken over": Point(scale_stages.make_scored, scale_stages.scores),
    "captions": Point(scale_stages.make_clips, scale_stages.captions, most_seconds=12),
    "clips": Point(make_scores, clips(None), most_seconds=15),
    "clips, 24 bits": Point(make_scores, clips(24), further_bytes_per_row=700),
    "latents": Point(make_captioned, latents),
    "latents, taken over": Point(make_encoded, latents),
    "report": Point(make_report, report),
    "rank": Point(make_latents, rank, further_bytes_per_row=150),
    "why": Point(make_checkpoints, why, most_seconds=5),
}
