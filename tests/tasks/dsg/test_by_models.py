"""Captions are judged by models behind endpoints, whatever those answer."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stiv_model.errors.failures import TryLaterError
from tasks.chat.answers import MalformedError
from tasks.dsg import by_models
from tasks.dsg.captions import counts_of, decoys_of
from tasks.dsg.judging import gate_of, judged_of, summary
from tasks.dsg.questions import repair
from tasks.dsg.stage import Dsg, DsgGateError
from tasks.dsg.written import FORMAT, read_questions
from tests import made_judge
from tests.fault_server import FaultServer, by_chance, completion
from tests.made_judge import STILLS, answer, clip_of, judged, kinds_of, parts_of, question, shown, text_of

CLIPS = 8


@pytest.fixture
def shots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made_judge.write_clips(tmp_path, CLIPS)


TEXTS = {clip_of(number): text_of(number) for number in range(CLIPS)}
LIES = {clip: text_of(number, "boat") for number, clip in enumerate(TEXTS)}  # some of the boats are there


def test_what_is_there_is_affirmed_and_decoys_are_denied(shots):
    with FaultServer(answer) as server:
        rows = judged(TEXTS, server.url)
    (own,) = judged_of([rows]).values()
    assert {(row["status"], row["objects"], row["invented"], row["undecided"]) for row in rows} == {("ok", 3, 0, 0)}
    assert counts_of(rows[0]).kinds == {"object": (3, 0, 0), "attribute": (1, 0, 0), "action": (1, 0, 0)}
    assert own.decoys["object"].asked >= 20 and own.decoys["object"].share == 1
    gate = gate_of(own, made_judge.settings(server.url))
    assert gate.verdict == "no verdict" and "0 of 8 captions have an invention" in gate.why
    assert summary(gate, own)["rate_i"]["of"] == 3 * CLIPS


def test_it_asks_the_middle_first_and_stops_at_the_first_yes(shots):
    with FaultServer(answer) as server:
        judged(TEXTS, server.url, decoy_fraction=0.0)
        first = kinds_of(server.requests)
        assert first == {0: CLIPS, 1: 4 * CLIPS, STILLS: CLIPS}  # questions; middle frames; the action with all frames
        all_in_order = [pictures for _, pictures in map(parts_of, server.requests) if len(pictures) > 1]
        assert all(pictures == sorted(pictures) for pictures in all_in_order)
        judged(TEXTS, server.url, decoy_fraction=0.0)
    assert kinds_of(server.requests) == first  # nothing changed: nothing is asked


def test_an_invention_is_denied_in_all_frames_and_its_sentence_goes(shots):
    lies = TEXTS | {clip_of(3): f"{text_of(3)} A dog is far away. A dog sleeps."}
    assert "dog" not in shown(3)
    with FaultServer(answer) as server:
        rows = judged(lies, server.url, decoy_fraction=0.0)
    assert [row["invented"] for row in rows] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert rows[3]["kept_text"] == text_of(3) and rows[3]["repairs"] == ["object_merged"]
    asked = [one for one in rows[3]["evidence"] if one["text"] == "Is there a dog?"]
    assert [(one["frame"], one["answer"], one["sentences"]) for one in asked] == [
        (frame, "no", [2, 3]) for frame in (2, 0, 3, 1)
    ]
    assert {one["model"] for one in asked} == {"tiny-vlm"} and len(asked[0]["prompt_sha256"]) == 64


def test_frames_are_numbered_as_the_stills_are(shots):
    with FaultServer(answer) as server:
        rows = judged({clip_of(0): "A car is there."}, server.url, frames=2)
    assert [one["frame"] for one in rows[0]["evidence"]] == [3, 1]


def test_many_questions_are_under_way_together(shots):
    with FaultServer(answer, seconds=0.05) as server:
        judged(TEXTS, server.url, in_flight=8, shard_captions=CLIPS)
    assert server.most_under_way == 8


def test_a_judge_that_says_yes_to_everything_is_not_fit(shots):
    with FaultServer(lambda request: completion(request, "yes") if parts_of(request)[1] else answer(request)) as server:
        (own,) = judged_of([judged(TEXTS, server.url)]).values()
        gate = gate_of(own, made_judge.settings(server.url))
    asked = own.decoys["object"].asked
    assert gate.why == f"judge not fit here: it affirmed {asked} of {asked} objects that are not there"
    assert "rate_i" not in summary(gate, own)


def test_an_affirmed_decoy_counts_whatever_else_is_denied(shots):
    def lying(request):
        text, pictures = parts_of(request)
        if not pictures:
            return answer(request)
        return completion(request, "no" if "a dog" in text else "yes")

    with FaultServer(lying) as server:
        rows = judged({clip_of(0): "A dog sleeps.", clip_of(1): "A cat sleeps."}, server.url)
    assert rows[0]["invented"] == 1
    assert decoys_of(rows[0])["object"] == (0, 1)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("yes.", "present"),
        ("YES", "present"),
        ("no.", "invented"),
        ("Yes, there is a dog.", "undecided"),
        ("no bus", "undecided"),
        ("0000", "undecided"),
        ("", "undecided"),
        (None, "undecided"),
        ("1", "undecided"),
        ("true", "undecided"),
        ('{"answer": "yes"}', "undecided"),
        ("<think>a dog?</think>yes", "undecided"),
        ("yes\x00", "undecided"),
        ("y" * 1_000_000, "undecided"),
    ],
)
def test_only_yes_and_no_are_answers(shots, said, verdict):
    with FaultServer(lambda request: completion(request, said) if parts_of(request)[1] else answer(request)) as server:
        rows = judged({clip_of(0): "A dog."}, server.url, max_answer_bytes=2_000_000)
    assert {one["verdict"] for one in rows[0]["evidence"]} == {verdict}


@pytest.mark.parametrize("content", [1, True, ["yes"], {"yes": 1}])
def test_an_answer_that_is_no_text_is_none(shots, content):
    with FaultServer(
        lambda request: completion(request, content) if parts_of(request)[1] else answer(request)
    ) as server:
        rows = judged({clip_of(0): "A dog."}, server.url, attempts=1)
    assert {one["answer"] for one in rows[0]["evidence"]} == {"missing"}
    assert rows[0]["undecided"] == 1


def test_an_answer_that_is_too_long_to_read_is_missing(shots):
    def long(request):
        return completion(request, "yes" + " " * 1_000_000) if parts_of(request)[1] else answer(request)

    with FaultServer(long) as server:
        rows = judged({clip_of(0): "A dog."}, server.url)
    assert {one["answer"] for one in rows[0]["evidence"]} == {"missing"}


DOG = question(1, "object", "Is there a dog?", [], 1, "dog")


def written(*questions, **more) -> str:
    return json.dumps({"questions": questions} | more)


@pytest.mark.parametrize(
    ("parents", "repairs"),
    [
        ([7], ["parent_unknown"]),
        (["background"], ["parent_text"]),
        ([1, "2"], []),
        ([3], ["parent_self"]),
        ({"a": 1}, ["parent_text"]),
        ([True], ["parent_text"]),
        (10**30, ["parent_unknown"]),
    ],
)
def test_parents_that_are_none_are_mended(parents, repairs):
    cat = question(2, "object", "Is there a cat?", None, 1, "cat")
    asked = read_questions(written(DOG, cat, question(3, "attribute", "Is it red?", parents)), 1)
    assert [code for _, code in repair(asked).repairs] == repairs


def test_circles_and_objects_named_twice_are_mended():
    asked = read_questions(
        written(
            DOG | {"parents": [2]},
            question(2, "attribute", "Is it red?", [1]),
            question(3, "object", "Is there another dog?", [], 2, "Dog "),
        ),
        2,
    )
    graph = repair(asked)
    assert sorted(code for _, code in graph.repairs) == ["object_merged", "parent_cycle"]
    assert [one.sentences for one in graph.questions if one.kind == "object"] == [(0, 1)]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no questions",
        "[]",
        written(DOG) + written(DOG),
        written(DOG, more=1),
        json.dumps({"questions": DOG}),
        json.dumps({"questions": [DOG["text"]]}),
        *(written(DOG | changed) for changed in ({"kind": "thing"}, {"kind": ["object"]}, {"id": True}, {"id": "1"})),
        *(written(DOG | changed) for changed in ({"id": 0}, {"id": 2**40}, {"id": 1.0}, {"sentence": 2})),
        *(written(DOG | changed) for changed in ({"sentence": 0}, {"object": ""}, {"object": None}, {"more": 1})),
        *(written(DOG | changed) for changed in ({"text": ""}, {"text": " \n\x00"}, {"text": "x" * 301}, {"text": 5})),
        written({key: value for key, value in DOG.items() if key != "parents"}),
        written(*[DOG] * 201),
        '{"questions": [], "questions": []}',
        '{"questions": [NaN]}',
        '{"questions": ' + "[" * 10_000 + "]" * 10_000 + "}",
        '{"questions": ' + " " * 1_000_000,
        written(DOG)[:-2],
    ],
)
def test_what_is_no_list_of_questions_is_malformed(content):
    with pytest.raises(MalformedError) as refused:
        read_questions(content, 1)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 80


def test_a_fence_and_a_thought_around_the_list_are_taken_off():
    assert len(read_questions(f"<think>a dog?</think>\n```json\n{written(DOG)}\n```", 1)) == 1


HOSTILE = "Is \x00there\x1b[2J\u202e <script>alert(1)</script> {{7*7}} {question} {frames}" + "\n" * 10_000 + "a dog?"


def test_hostile_questions_are_asked_without_what_nobody_sees_and_stay_in_their_row(shots):
    def hostile(request):
        text, pictures = parts_of(request)
        if pictures or "A dog" not in text:
            return completion(request, "no")
        return completion(request, written(DOG | {"text": HOSTILE, "object": "\u202edog\x00"}))

    with FaultServer(hostile) as server:
        rows = judged({clip_of(0): "A dog.", clip_of(1): "A cat."}, server.url)
    assert [(row["status"], row["reason"]) for row in rows] == [("ok", None), ("failed", by_models.MALFORMED)]
    (text,) = {one["text"] for one in rows[0]["evidence"]}
    assert text == "Is there <script>alert(1)</script> {{7*7}} {question} {frames} a dog?"
    assert rows[0]["keys"] == ("dog",)
    sent = [text for text, pictures in map(parts_of, server.requests) if pictures]
    assert all("{question} {frames} a dog?" in one for one in sent)


@pytest.mark.parametrize(
    ("caption", "asked"),
    [
        ("😀", 0),
        ("…", 0),
        ("Stillness and light.", 1),
        ("一只狗在草地上奔跑。它是红色的。", 2),
        ("Ein roter Hund läuft. Dr. Meier sieht zu.", 2),
        ("{caption} {{7*7}} <script>alert(1)</script>", 1),
        ("\n1. A car.\n" * 3, 3),
    ],
)
def test_whatever_a_caption_is_each_has_one_row(shots, caption, asked):
    with FaultServer(lambda request: completion(request, written())) as server:
        (row,) = judged({clip_of(0): caption}, server.url)
    assert (row["status"], row["objects"], row["sentences"]) == ("ok", 0, asked)
    assert len(server.requests) == bool(asked)
    if asked:
        (text,) = (text for text, _ in map(parts_of, server.requests))
        assert re.findall(r"^(\d)\. ", text.rpartition("The caption:")[2], re.MULTILINE) == list("123"[:asked])
        assert server.requests[0]["response_format"] == json.loads(json.dumps(FORMAT))


def test_where_no_questions_come_the_caption_is_failed_and_others_are_judged(shots):
    with FaultServer(answer, fault=lambda number: "422" if number == 0 else None) as server:
        rows = judged(TEXTS, server.url, in_flight=1, decoy_fraction=0.0)
        reasons = [row["reason"] for row in rows]
        assert sorted(reasons, key=str) == [None] * (CLIPS - 1) + [by_models.MISSING]
        before = len(server.requests)
        assert [row["reason"] for row in judged(TEXTS, server.url, decoy_fraction=0.0)] == [None] * CLIPS
    (own,) = judged_of([rows]).values()
    assert own.unquestioned == [rows[reasons.index(by_models.MISSING)]["clip"]]
    assert len(server.requests) == before + 6  # of that caption: its questions, their middle frames, its action


def test_captions_of_which_no_questions_come_are_not_judged_by_the_others(shots):
    with FaultServer(lambda request: answer(request) if "boat" in str(request) else completion(request, "?")) as server:
        (own,) = judged_of([judged(TEXTS, server.url)]).values()
        why = gate_of(own._replace(decoys={"object": own.decoys["object"]._replace(right=40, asked=40)}),
                      made_judge.settings(server.url)).why  # fmt: skip
    assert len(own.counts) < CLIPS / 2 and "captions only" in why


def test_faults_change_nothing_but_the_number_of_requests(shots):
    with FaultServer(answer) as server:
        without = judged(LIES, server.url)
    (shots.parent / "answers.sqlite").rename(shots.parent / "before.sqlite")
    with FaultServer(answer, by_chance(0.2, 1, ("429", "500", "reset", "html", "truncated"))) as server:
        assert judged(LIES, server.url) == without
    assert server.faults


def test_a_gone_endpoint_ends_it_for_now_and_nothing_that_was_answered_is_asked_again(shots):
    with FaultServer(answer, fault=lambda number: "500" if number >= 30 else None) as server:
        with pytest.raises(TryLaterError, match="20 failures in a row"):
            judged(LIES, server.url, attempts=1)
        before = [json.dumps(request) for request in server.requests[:30]]
        first, server.fault = len(server.requests), lambda number: None
        rows = judged(LIES, server.url, attempts=1)
    assert {row["status"] for row in rows} == {"ok"}
    again = {json.dumps(request) for request in server.requests[first:]}
    assert len(again) == len(server.requests) - first and not again.intersection(before)


def test_the_stage_goes_on_where_the_endpoint_left_it_and_asks_nothing_when_nothing_changed(shots):
    made_judge.write_captions(shots.parent, TEXTS, prompt_sha256="0" * 64)
    with FaultServer(answer, fault=lambda number: "500" if number >= 40 else None) as server:
        settings = made_judge.settings(server.url, attempts=1, shard_captions=3)
        with pytest.raises(TryLaterError):
            made_judge.run(settings)
        assert not Path("dsg").exists() and not Path("report.json").exists()
        answered, server.fault = server.requests[:40], lambda number: None
        report = made_judge.run(settings)
        asked = [json.dumps(request) for request in answered + server.requests[-1:]]
        first = len(server.requests)
        assert made_judge.run(settings, "again") == report
        assert len(server.requests) == first and len(set(asked)) == len(asked)
        path = Path("prompts/answer.txt")
        path.write_text(path.read_text() + "Be quick.")
        changed = made_judge.run(settings, "changed")
    again = kinds_of(server.requests[first:])
    assert again[0] == 0 and again[STILLS] == CLIPS  # the questions are the same
    assert (
        changed["judge"]["answers"]
        != report["judge"]["answers"]
        == {
            "model": "tiny-vlm",
            "prompt_sha256": pq.read_table("dsg/evidence.parquet")["prompt_sha256"][0].as_py(),
        }
    )
    assert report["captioners"]["video"]["decoys"]["object"]["asked"] >= 20
    assert report["captioners"]["video"]["prompts"] == ["0" * 64]
    assert report["captions"]["ok"] == CLIPS


def test_what_is_missing_is_asked_for_again_when_the_stage_failed_for_it(shots):
    made_judge.write_captions(shots.parent, TEXTS)

    def is_about(number, words, pictures):
        text, shown = parts_of(server.requests[number])
        return words in text and bool(shown) == pictures

    with FaultServer(answer) as server:
        settings = made_judge.settings(server.url, shard_captions=2)
        without_decoys = settings.model_copy(update={"decoy_fraction": 0})
        server.fault = lambda number: "422" if is_about(number, "The caption:", False) else None
        with pytest.raises(ValueError, match=r"could be judged \(questions_missing 8\): run the stage again"):
            made_judge.run(without_decoys)
        server.fault = lambda number: "422" if is_about(number, "a tree?", True) else None
        with pytest.raises(DsgGateError, match=r"video: failed: 12\.5% of the objects are undecided"):
            made_judge.run(settings)
        first, server.fault = len(server.requests), lambda number: None
        report = made_judge.run(settings)
        asked = [parts_of(request)[0] for request in server.requests[first:]]
    assert asked and all("tree" in text for text in asked)
    assert report["captions"]["ok"] == CLIPS


def test_captions_are_judged_one_after_the_other_until_it_is_decided(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_judge.write_clips(tmp_path, 40)
    made_judge.write_captions(tmp_path, {clip_of(number): text_of(number) for number in range(40)})
    with FaultServer(answer) as server:
        settings = made_judge.settings(server.url, until="decided", max_invented=0.4, shard_captions=5)
        report = made_judge.run(settings)
    judged = 40 - report["captions"]["reasons"]["decided"]
    assert f"decided after {judged} captions" in report["captioners"]["video"]["why"] and judged <= 30
    seen = {pictures[0].partition(".")[0] for _, pictures in map(parts_of, server.requests) if pictures}
    assert judged <= len(seen) < judged + 5  # some are judged together
    assert kinds_of(server.requests)[0] == 40  # for how much one caption may name must be known before


def test_a_prompt_that_is_none_is_refused_at_the_door(shots):
    made_judge.write_captions(shots.parent, TEXTS)
    Path("prompts/answer.txt").write_text("Is it there? {frames}")
    with pytest.raises(ValueError, match=r"prompts/answer\.txt does not say \{question\}, which becomes the question"):
        Dsg(Path("captions"), shots, made_judge.settings("http://127.0.0.1:1/v1"), Path("audits"))
    Path("prompts/questions.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"prompts/questions\.txt .*dsg\.judge\.questions\.prompt"):
        Dsg(Path("captions"), shots, made_judge.settings("http://127.0.0.1:1/v1"), Path("audits"))
