import logging
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args, get_type_hints
from urllib.parse import urlsplit

import great_expectations as gx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.clips import expectations
from tasks.clips.expectations import kept_suite
from tasks.clips.settings import ClipSettings, NonNegativeRange
from tasks.clips.thresholds import POSSIBLE
from tasks.gates.gate import GateResult
from tasks.sandbox.answer_schemas import Shot
from tasks.storage import queries
from tasks.storage.tables import CLIPS

SCORES = [name for name, field in ClipSettings.model_fields.items() if field.annotation is NonNegativeRange]
FREE = {score: {"min": None, "max": None} for score in SCORES}
SETTINGS = ClipSettings(
    **FREE | {"motion": {"min": 0.5, "max": None}, "text_area": {"min": None, "max": 0.3}},
    nsfw=None,
    orientations=["landscape", "square"],
    duplicate_bits=24,
    duplicate_similarity=0.95,
    best=None,
    earlier_releases=[],
    gate_min_clips=3,
    gate_min_kept_fraction=0.5,
    gate_min_hours=0.001,
    gate_max_rejected={"motion_below_min": 0.5},
    gate_max_drift=0.2,
)
CLIP = {
    "video": "ab" * 32,
    "uri": "a.mp4",
    "time_base": "1/24",
    "frames": 24,
    "transition": "cut",
    "status": "ok",
    **dict.fromkeys(SCORES, 0.5),
    "height": 128,
    "width": 128,
    "motion": 1.0,
    "text_area": 0.1,
    "orientation": "square",
    "colours": ["red"],
    "seconds": 1.0,
}


def unlike(number: int) -> dict:
    return {"video_hash": b"%32d" % number, "embedding": b"%32d" % number, "embedder": "e"}


def check(judged: pa.Table, settings: ClipSettings, drift: dict, docs: Path) -> GateResult:
    """Hold a table to the suites as the stage does: as it was written."""
    docs.parent.mkdir(exist_ok=True)
    written = docs.parent / "clips.parquet"
    pq.write_table(judged, written)
    with queries.connect(docs.parent) as connection:
        return expectations.check(connection, written, settings, drift, docs)


def table(*changes: dict) -> pa.Table:
    """Five good clips, and one with each of the changes given."""
    rows = [
        {**CLIP, "clip": f"ab-{n}", "start_pts": 24 * n, "end_pts": 24 * n + 24, **unlike(n), **change}
        for n, change in enumerate([{}] * 5 + list(changes))
    ]
    return pa.Table.from_pylist(rows, schema=CLIPS)


# What a sentence says -> the change to a good row that it is about, and nothing else.
BAD_ROWS = {
    "clips.motion": {"motion": 0.4},
    "clips.text_area": {"text_area": 0.4},
    "clips.orientations": {"orientation": "portrait"},
    "clarity is measured": {"clarity": None},
    "aesthetic is at least 0 and at most 10": {"aesthetic": 11.0},
    "temporal_consistency is at least 0 and at most 1": {"temporal_consistency": 1.1},
    "no shot is there twice": {"clip": "ab-0"},
    "every row names its shot": {"clip": None},
    "every shot ends after it starts": {"end_pts": 0},
    "status is one of": {"status": "good"},
    "a reason is a short fixed code": {"status": "rejected", "reason": "It moves too little."},
    "no two clips have one video hash": {"video_hash": b"%32d" % 1},
    "no two clips have one embedding": {"embedding": b"%32d" % 1},
    "a near-duplicate names the clip kept instead": {"status": "rejected", "reason": "near_duplicate"},
    "quality is at least 0 and at most 1": {"status": "rejected", "reason": "x", "quality": 1.5},
    "text_area is at least 0 and at most 1": {"status": "rejected", "reason": "x", "text_area": 7.0},
}


class Resources(HTMLParser):
    """What a page loads by itself, and its links."""

    def __init__(self, page: Path):
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        values = [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]
        (self.links if tag == "a" else self.loaded).extend(values)


@pytest.fixture(scope="module")
def docs(tmp_path_factory) -> Path:
    """Pages of a gate that failed, which have more on them than those of one that passed."""
    folder = tmp_path_factory.mktemp("gate") / "docs"
    assert not check(table({"motion": -1.0}), SETTINGS, {}, folder).success
    return folder


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> list[str]:
    """What the gate says of a table with each of the bad rows."""
    return check(table(*BAD_ROWS.values()), SETTINGS, {}, tmp_path_factory.mktemp("gate") / "docs").failed


@pytest.mark.parametrize("told", BAD_ROWS)
def test_a_bad_row_fails_the_gate_by_name(sentences, told):
    (sentence,) = [sentence for sentence in sentences if told in sentence]
    rows = 2 if told.startswith("no ") else 1
    assert f"observed {rows} of " in sentence


# What a sentence says -> what else it names: of a table that is wrong as a whole.
WHOLE = {
    "clips.gate_min_kept_fraction": ("at least 6", "observed 5"),
    "clips.gate_max_rejected": ("at most 0.5 of the shots are lost as motion_below_min", "0.54"),
    "clips.gate_min_hours": ("at least 0.002 hours", "0.0013"),
    "clips.gate_max_drift": ("motion is spread as in the last release", "at most 0.2", "0.21"),
}
LOST = {"status": "rejected", "reason": "motion_below_min", "motion": 0.1}


@pytest.fixture(scope="module")
def wrong_as_a_whole(tmp_path_factory) -> list[str]:
    settings = SETTINGS.model_copy(update={"gate_min_hours": 0.002})
    drift = {"motion": 0.21, "clarity": 0.2, "quality": None}
    return check(table(*[LOST] * 6), settings, drift, tmp_path_factory.mktemp("gate") / "docs").failed


@pytest.mark.parametrize("key", WHOLE)
def test_what_is_wrong_as_a_whole_names_its_key_and_both_figures(wrong_as_a_whole, key):
    (sentence,) = [sentence for sentence in wrong_as_a_whole if key in sentence]
    for told in WHOLE[key]:
        assert told in sentence


def test_nothing_else_is_found_wrong_as_a_whole(wrong_as_a_whole):
    assert len(wrong_as_a_whole) == len(WHOLE)


def test_a_good_table_passes_every_expectation_and_limits_are_inside(tmp_path):
    settings = SETTINGS.model_copy(update={"gate_min_hours": 5 / 3600})
    result = check(table(*[LOST] * 5), settings, {"motion": 0.2}, tmp_path / "docs")
    assert result.success
    assert result.failed == []
    assert result.evaluated > len(kept_suite(SETTINGS, 10))


def test_an_empty_table_fails(tmp_path):
    result = check(CLIPS.empty_table(), SETTINGS, {}, tmp_path / "docs")
    assert not result.success
    assert any("clips.gate_min_clips" in sentence for sentence in result.failed)


@pytest.mark.parametrize("column", ["motion", "status", "clip"])
def test_a_missing_column_fails(tmp_path, column):
    result = check(table().drop_columns([column]), SETTINGS, {}, tmp_path / "docs")
    assert not result.success
    assert any(column in sentence for sentence in result.failed)


def test_a_validator_that_crashes_is_a_gate_that_failed(tmp_path, monkeypatch, caplog):
    def crash(*_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr(gx.Checkpoint, "run", crash)
    with caplog.at_level(logging.CRITICAL):
        result = check(table(), SETTINGS, {}, tmp_path / "docs")
    assert not result.success
    assert "RuntimeError: out of order" in result.failed[0]
    assert (tmp_path / "docs/index.html").exists()


def test_an_expectation_that_was_not_evaluated_fails(tmp_path, monkeypatch):
    whole = gx.Checkpoint.run

    def forgetful(*args, **kwargs):
        outcome = whole(*args, **kwargs)
        for run in outcome.run_results.values():
            run.results.pop()
        return outcome

    monkeypatch.setattr(gx.Checkpoint, "run", forgetful)
    assert not check(table(), SETTINGS, {}, tmp_path / "docs").success


def test_pages_load_nothing_from_elsewhere(docs):
    pages = list(docs.rglob("*.html"))
    assert len(pages) == 7  # index, and for each of three suites the suite and its result
    for page in pages:
        loaded = Resources(page).loaded
        assert not [url for url in loaded if urlsplit(url).scheme or url.startswith("//")]
        names = {Path(url).name for url in loaded}
        assert {"bootstrap.min.css", "all.min.css", "bootstrap.min.js", "popper.min.js"} <= names
        assert any(name.startswith("jquery") for name in names)


def test_everything_pages_load_or_link_to_is_there(docs):
    for page in docs.rglob("*.html"):
        resources = Resources(page)
        for url in (*resources.loaded, *resources.links):
            if not urlsplit(url).scheme and not url.startswith("#"):
                assert (page.parent / urlsplit(url).path).resolve().exists(), f"{page.name}: {url}"


def test_stylesheets_find_their_fonts(docs):
    assert list((docs / "assets/webfonts").glob("fa-solid*.woff2"))


def test_pages_call_no_library_that_is_not_there(docs):
    for page in docs.rglob("*.html"):
        text = page.read_text()
        assert "bootstrapTable(" not in text
        assert "vegaEmbed(" not in text


def test_the_first_page_links_to_every_result_without_a_script(docs):
    links = Resources(docs / "index.html").links
    for result in (docs / "validations").rglob("*.html"):
        assert str(result.relative_to(docs)) in links


def test_the_page_of_a_failure_shows_the_row(docs):
    (page,) = (docs / "validations/kept").rglob("*.html")
    assert "ab-5" in page.read_text()
    assert "params.yaml: clips.motion" in page.read_text()


def test_no_video_can_stop_the_gate_by_a_score_that_cannot_be():
    kinds = get_type_hints(Shot, include_extras=True)
    scores = [name for name in POSSIBLE if name in kinds]
    assert len(scores) == 10
    for name in scores:
        (least, most), (at_least, at_most) = POSSIBLE[name], get_args(kinds[name])[0].__metadata__[0].metadata
        assert at_least.ge >= least and at_most.le <= (most or at_most.le), name
