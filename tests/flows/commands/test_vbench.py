"""`stiv vbench`: a noun with verbs; `score` says by which convention."""

import json

import pytest

from flows.__main__ import main
from tests.tasks.evaluation.vbench import published


@pytest.fixture
def result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, raw = published.row(published.TEXT_TO_VIDEO["M-512"], published.T2V)
    (tmp_path / "quality.json").write_text(json.dumps({name: raw[name] for name in published.T2V[:7]}))
    (tmp_path / "semantic.json").write_text(json.dumps({name: [raw[name], [{}]] for name in published.T2V[7:]}))
    return "quality.json", "semantic.json"


def refused(*words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["vbench", *words])
    assert "\n" not in str(stop.value.code)
    return str(stop.value.code)


def test_the_noun_alone_says_its_verbs(capsys):
    main(["vbench"])
    told = capsys.readouterr().out
    assert told.startswith("usage: stiv vbench VERB") and "\n  stiv vbench score " in told
    main(["vbench", "--help"])
    assert capsys.readouterr().out == told


def test_a_verb_that_the_noun_has_not_is_refused_with_those_it_has():
    assert refused("scor") == "stiv: no verb vbench scor: did you mean score?"
    assert refused("zzzz") == "stiv: no verb vbench zzzz: it is one of prompts, sample, weights, run, score"


def test_several_results_make_one_score_with_its_convention(result, capsys):
    main(["vbench", "score", *result, "--convention", "t2v"])
    told = capsys.readouterr().out
    assert told.startswith("convention t2v: Vchitect/VBench at git 45e79ec")
    assert "\nquality     82.26 " in told and "\nsemantic    76.96 " in told and "\ntotal       81.20 " in told
    main(["vbench", "score", *result, "--convention", "t2v", "--json"])
    assert json.loads(capsys.readouterr().out)["scores"]["total"] == pytest.approx(81.20, abs=0.005)


def test_a_total_needs_every_dimension_and_its_parts_can_be_asked_for(result, capsys):
    assert refused("score", "quality.json", "--convention", "t2v").startswith(
        "stiv vbench score: no total by convention t2v: missing object_class, multiple_objects, "
    )
    main(["vbench", "score", "quality.json", "--convention", "t2v", "--partial"])
    told = capsys.readouterr().out
    assert "\nquality     82.26 " in told and "\ntotal " not in told and "\nsemantic " not in told


def test_the_convention_must_be_named(result, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["vbench", "score", *result])
    assert stop.value.code == 2 and "required: --convention" in capsys.readouterr().err


def test_a_result_that_is_not_there_and_none_at_all_are_refused(result):
    assert "nothing.json" in refused("score", "nothing.json", "--convention", "t2v")
    assert "no result is named" in refused("score", "--convention", "t2v")
