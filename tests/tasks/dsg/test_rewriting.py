"""Captions that invent something are written again by their model, and judged again."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import made_judge
from tests.fault_server import FaultServer, completion
from tests.made_clips import by, model
from tests.made_judge import clip_of, parts_of, rewriting, text_of

CLIPS, LIAR = 6, 2  # of whose clips one is described with a boat that is not there


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return made_judge.write_clips(tmp_path_factory.mktemp("clips"), CLIPS).parent


@pytest.fixture
def texts(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("shots", "prompts"):
        (tmp_path / name).symlink_to(clips / name)
    texts = {clip_of(number): text_of(number) for number in range(CLIPS)}
    return texts | {clip_of(LIAR): f"{text_of(LIAR)} A rock is near. A dog sleeps."}


def run(url, texts, repair="rewrite", captioner="video", **columns):
    made_judge.write_captions(Path(), texts, captioner=captioner, **columns)
    dsg = made_judge.settings(url, repair=repair, decoys=5)
    report = made_judge.run(dsg, captioning=by(model(url, prompt="prompts/rewrite.txt")))
    rows = {row["clip"]: row for row in pq.read_table("dsg/dsg.parquet").to_pylist()}
    after = {row["clip"]: row for row in pq.read_table("dsg/captions.parquet").to_pylist()}
    return report, rows, after


def test_the_captioner_is_asked_once_more_and_what_it_says_is_judged_again(texts):
    texts[clip_of(LIAR)] = f"{text_of(LIAR)} A dog sleeps."
    with FaultServer(rewriting) as server:
        report, rows, after = run(server.url, texts)
        first = len(server.requests)
        (asked,) = (request for request in server.requests if "does not show" in parts_of(request)[0])
        Path("dsg").rename("before")
        assert run(server.url, texts) == (report, rows, after) and len(server.requests) == first
    text, pictures = parts_of(asked)
    assert text_of(LIAR) in text and "says of: dog." in text and len(pictures) == 3
    assert asked["response_format"]["json_schema"]["name"] == "caption"
    row = rows[clip_of(LIAR)]
    assert (row["repaired"], row["repaired_by"], row["invented"]) == (True, "rewrite", 1)
    assert after[clip_of(LIAR)]["text"] == text_of(LIAR)  # cleaned, as a caption is
    assert after[clip_of(LIAR)]["short"] == text_of(LIAR).partition(" There")[0]
    assert report["repaired"] == 1 and report["captioners"]["video"]["rate_i"]["hits"] == 1
    others = [after[clip]["text"] == text for clip, text in texts.items() if clip != clip_of(LIAR)]
    assert all(others) and {rows[clip]["repaired_by"] for clip in texts if clip != clip_of(LIAR)} == {None}
    roles = [one["role"] for one in pq.read_table("dsg/evidence.parquet").to_pylist() if one["clip"] == clip_of(LIAR)]
    assert set(roles) == {"caption", "decoy", "rewrite"}


def test_where_it_still_invents_the_sentences_go(texts):
    texts[clip_of(LIAR)] = f"{text_of(LIAR)} A dog sleeps. A bird sings."
    with FaultServer(rewriting) as server:
        _, rows, after = run(server.url, texts)
    assert rows[clip_of(LIAR)]["repaired_by"] == "rewrite_drop"
    assert after[clip_of(LIAR)]["text"] == text_of(LIAR)


@pytest.mark.parametrize("said", ["no", '{"text": "", "short": ""}', '{"text": "!!!! ????", "short": "x"}'])
def test_where_the_model_has_no_good_answer_sentences_are_taken_out(texts, said):
    def bad(request):
        return completion(request, said) if "does not show" in parts_of(request)[0] else made_judge.answer(request)

    with FaultServer(bad) as server:
        report, rows, after = run(server.url, texts)
    assert (rows[clip_of(LIAR)]["repaired_by"], report["repaired"]) == ("drop", 1)
    assert "dog" not in after[clip_of(LIAR)]["text"] and "rock" not in after[clip_of(LIAR)]["text"]


def test_captions_that_no_model_wrote_lose_sentences(texts):
    with FaultServer(rewriting) as server:
        _, rows, _ = run(server.url, texts, captioner="sidecar")
        assert not [request for request in server.requests if "does not show" in parts_of(request)[0]]
    assert rows[clip_of(LIAR)]["repaired_by"] == "drop"


def test_nobody_who_could_write_again_is_refused_at_the_door(texts):
    made_judge.write_captions(Path(), texts)
    settings = made_judge.settings("http://127.0.0.1:9/v1", repair="rewrite")
    with pytest.raises(ValueError, match=r"captions\.captioners has no model behind an endpoint .* use repair: drop"):
        made_judge.run(settings, captioning=by("sidecar"))
    with pytest.raises(ValueError, match=r"so set captions: null"):
        type(settings).model_validate(settings.model_dump() | {"captions": 100})
