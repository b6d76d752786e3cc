"""The report's section about captions: figures with intervals where the judge is fit, none where it is not."""

import html
import json
import re

import pytest

from tasks.pages import captions_section, report
from tests.tasks.pages.test_report import CLIPS, make_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> report.Inputs:
    return make_inputs(tmp_path_factory.mktemp("captions"))


@pytest.fixture(scope="module")
def section(inputs) -> str:
    page = report.build(inputs, inputs.reports / "times.json", CLIPS)
    start = page.index('<section id="captions">')
    return re.sub(r"<svg.*?</svg>", "", page[start : page.index("</section>", start)], flags=re.DOTALL)


@pytest.fixture(scope="module")
def words(section) -> str:
    text = html.unescape(re.sub(r"<[^>]+>", " ", section))
    return re.sub(r" (?=[.,:])", "", " ".join(text.split()))


def test_each_captioner_has_its_verdict_and_a_figure_only_where_the_judge_is_fit(words):
    assert "sidecar 100 3 % 1 % to 8 %, 3 of 100 passed" in words
    assert "describe 7 no figure judge not fit here it affirmed 7 of 28 objects that are not there" in words


def test_lost_and_cleaned_captions_are_told_by_reason_and_rule(words):
    assert "3 clips = 3 with a caption + 0 failed." in words
    assert "Cleaned: quotes 2." in words


def test_two_captioners_are_told_by_kind_and_source_with_intervals(words):
    assert "video goes by all stills of a clip together, frames by each still by itself" in words
    assert "frames invents more relations (where it moves)." in words
    assert "relations (where it moves) 0 % 0 % to 4 % 0 of 93 66 % 55 % to 75 % 61 of 93 better" in words
    assert "real 7 clips judge not fit here it affirmed 6 of 36 objects that are not there" in words
    assert "frames failed at 2 (malformed)." in words


def test_what_is_invented_is_marked_in_the_examples_but_not_where_the_judge_is_not_fit(section):
    assert re.findall(r"<mark>(.*?)</mark>", section) == ["right", "marked"]
    assert section.count("Does the circle move right? No.") == 1
    assert section.count("nothing is marked") == 1
    assert section.count('<img src="data:image/jpeg') == 4


def test_where_the_judge_is_fit_for_nothing_no_figure_is_drawn(inputs, tmp_path):
    path = inputs.compared / "compare.json"
    told = json.loads(path.read_text())
    told["verdict"] = {"said": "judge not fit here", "clips": 0, "kinds": {}}
    for name in told["captioners"]:
        told["figures"][name]["invented"] = None
    told["groups"] = told["groups"][1:]
    (tmp_path / "compare.json").write_text(json.dumps(told))
    described = captions_section.compared(tmp_path, inputs.shots)
    assert described.figure is None and [one.is_fit for one in described.examples] == [False]
