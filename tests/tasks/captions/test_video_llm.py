"""Captioner `video_llm` against a real server on loopback that answers by rule, and fails on purpose."""

import base64
import hashlib
import json
import multiprocessing
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stiv_model.errors.failures import TryLaterError
from tasks.captions.answers import said_by
from tasks.captions.endpoint import EndpointBackend
from tasks.captions.outcomes import REASONS
from tasks.captions.settings import EndpointCaptionerSettings
from tasks.captions.stage import Captions, judge
from tasks.chat.answers import Answer, MalformedError, read_answer, read_object
from tasks.chat.prompts import read_prompt
from tasks.chat.store import key_of
from tasks.storage import tables
from tests.fault_server import MODEL, FaultServer, by_chance, caption_of, completion
from tests.made_clips import PARAMS, PROMPT, TEXT, Workspace, by, jpeg, model


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


def test_every_clip_has_both_texts_and_its_row_says_how_they_were_made(workspace):
    with FaultServer() as server:
        rows = workspace.run(by(model(server.url)))
    assert [row["clip"] for row in rows] == workspace.clips
    for row in rows:
        said = json.loads(row["raw"])
        assert (row["text"], row["short"], row["captioner"]) == (said["text"], said["short"], "video")
        assert (row["status"], row["reason"], row["rules"], row["of_whole_video"]) == ("ok", None, [], False)
        made_with = {"model": MODEL, "frames": 3, "temperature": 0, "seed": 5, "max_tokens": 99}
        assert {name: row[name] for name in made_with} == made_with
        assert row["prompt_sha256"] == hashlib.sha256(PROMPT.encode()).hexdigest()
    assert len({row["text"] for row in rows}) == len(rows)


def test_the_model_sees_the_bytes_of_the_stills_and_is_told_how_many(workspace):
    with FaultServer() as server:
        workspace.run(by(model(server.url)))
    seen = {}
    for request in server.requests:
        *pictures, text = request["messages"][0]["content"]
        assert text == {"type": "text", "text": "These 3 frames are of one clip. Describe it."}
        urls = [picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,") for picture in pictures]
        shown = list(map(base64.b64decode, urls))
        seen[shown[0].split()[0]] = shown
        assert (request["temperature"], request["seed"], request["max_tokens"]) == (0, 5, 99)
        assert request["response_format"]["json_schema"]["schema"]["required"] == ["text", "short"]
    assert sorted(seen.values()) == sorted([of[0], of[2], of[3]] for of in workspace.stills.values())


def test_answers_that_are_stored_keep_their_key():
    settings = model("http://127.0.0.1:1/v1")
    decides = {"kind": "video_llm", "prompt": PROMPT, "answer": "json", "frames": 3}
    asked = key_of(EndpointBackend(settings).decides | decides)
    assert asked == "b9dd08e4ffbc2e7327cee17912da81bc3ee55033a652014bbd44cc823b90bbb8"


def test_with_faults_rows_are_those_of_a_run_without_and_nobody_is_asked_twice(workspace):
    with FaultServer() as sound:
        plain = workspace.run(by(model(sound.url)), "plain")
    Path("answers.sqlite").unlink()
    with FaultServer(fault=by_chance(0.3, 2)) as faulty:
        rows = workspace.run(by(model(faulty.url)), "faulty")
    assert rows == plain and faulty.faults.total() > 2
    assert set(faulty.answered.values()) == {1}


def asked_again(workspace, captioner: EndpointCaptionerSettings, shots: str = "shots", **changes) -> int:
    with FaultServer() as server:
        url = captioner.model_copy(update={"endpoint": captioner.endpoint.model_copy(update={"urls": (server.url,)})})
        rows = workspace.caption(by(url, **changes), shots)
    assert all(row["status"] == "ok" for row in rows)
    return len(server.requests)


def test_what_has_changed_is_asked_for_and_nothing_else(workspace):
    first = model("http://127.0.0.1:1/v1", request_seconds=10)  # one repeated on a slow machine would count twice
    count = len(workspace.clips)
    assert asked_again(workspace, first) == count
    assert asked_again(workspace, first) == 0
    assert asked_again(workspace, first, clean=[]) == 0
    assert asked_again(workspace, first, checks=PARAMS.checks.model_dump() | {"min_letters": 4}) == 0
    assert asked_again(workspace, first.model_copy(update={"frames": 2})) == count
    assert asked_again(workspace, first.model_copy(update={"seed": 6})) == count
    renamed = first.endpoint.model_copy(update={"model": "another", "answers_as": "another"})
    assert asked_again(workspace, first.model_copy(update={"endpoint": renamed})) == count
    Path("prompts/test.txt").write_text(PROMPT + " Briefly.")
    assert asked_again(workspace, first) == count
    Path("prompts/test.txt").write_text(PROMPT)
    assert asked_again(workspace, first) == 0
    workspace.stills[workspace.clips[3]][0] = jpeg("another")
    workspace.write_stills("other-shots")
    assert asked_again(workspace, first, "other-shots") == 1


ENDLESS = '{"text": "' + " " * 5000
HOSTILE = (
    "A dog\x00 runs \x1b[2J\x1b]0;x\x07\u202e<script>alert(1)</script> {{7*7}} ${7*7}" + "\n" * 10_000 + "over a field."
)


def as_json(text: str, short: str = "A dog runs.") -> str:
    return json.dumps({"text": text, "short": short})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"content": as_json("A dog runs over a field.")}, None),
        ({"content": "```json\n" + as_json("A dog runs over a field.") + "\n```"}, None),
        ({"content": "<think>a dog?</think>\n" + as_json("A dog runs over a field.")}, None),
        ({"content": as_json(HOSTILE)}, None),
        ({"content": None, "message": {"reasoning": "well"}, "finish_reason": "length"}, "thinking_spent_budget"),
        ({"content": "", "message": {"reasoning_content": "well"}, "finish_reason": "length"}, "thinking_spent_budget"),
        ({"content": "<think>a dog, or", "finish_reason": "length"}, "thinking_spent_budget"),
        ({"content": None, "message": {"reasoning": "well"}}, "empty"),
        ({"content": None}, "empty"),
        ({"content": "   "}, "empty"),
        ({"content": as_json(" ")}, "empty"),
        ({"content": as_json("A dog runs over a")[:-9], "finish_reason": "length"}, "truncated"),
        ({"content": ENDLESS, "finish_reason": "length"}, "truncated"),
        ({"content": "I'm sorry, but I can't help with that."}, "refused"),
        ({"content": as_json("I cannot describe this.")}, "refused"),
        ({"content": "", "message": {"refusal": "no"}}, "refused"),
        ({"content": "x", "finish_reason": "content_filter"}, "refused"),
        ({"content": as_json("the dog runs " * 20)}, "repetition"),
        ({"content": as_json("!" * 400)}, "not_text"),
        ({"content": as_json("Ein Hund rennt schnell über ein großes grünes Feld.")}, "language"),
        ({"content": as_json("ok")}, "too_short"),
        ({"content": as_json("".join(f"word{n} " for n in range(600)))}, "too_long"),
        ({"content": "A dog runs over a field."}, "malformed"),
        ({"content": '{"text": "A dog"}'}, "malformed"),
        ({"content": '{"text": "A dog", "text": "A cat", "short": "x"}'}, "malformed"),
        ({"content": '{"text": NaN, "short": "x"}'}, "malformed"),
        ({"content": '{"text": true, "short": 5}'}, "malformed"),
        ({"content": '{"text": "A dog", "short": "x", "more": 1}'}, "malformed"),
        ({"content": '{"text": ' + "[" * 10_000 + "]" * 10_000 + "}"}, "malformed"),
        ({"content": as_json("A dog runs.") + as_json("A cat.")}, "malformed"),
        ({"content": '{"text": "\\ud800 dog runs over a field", "short": "a dog"}'}, None),
    ],
)
def test_each_answer_is_a_caption_or_has_its_reason(changes, reason):
    body = json.dumps(completion({"model": MODEL}, changes.pop("content"), **changes)).encode()
    answer, _ = read_answer(body, MODEL)
    said = said_by(answer, "json")
    judged = judge(said, PARAMS)
    assert judged.reason == reason
    if reason is None:
        assert judged.text.isprintable() and judged.short
        judged.text.encode()


def test_hostile_answers_stay_in_their_own_row(workspace):
    said = [as_json(HOSTILE), '{"a":' * 3000, as_json("A\x00B" * 9), '"},{"clip":"x"}', "\ud800", as_json("x" * 90_000)]

    def answer(request):
        number = int(hashlib.sha256(caption_of(request).encode()).hexdigest(), 16) % 7
        return completion(request, said[number] if number < len(said) else caption_of(request))

    with FaultServer(answer=answer) as server:
        rows = workspace.run(by(model(server.url), max_failed_fraction=1.0))
    assert [row["clip"] for row in rows] == workspace.clips
    for row in rows:
        assert (row["status"] == "ok") == (row["text"] is not None) == (row["reason"] is None)
        if row["text"]:
            assert row["text"].isprintable()
    assert {row["reason"] for row in rows} - {None} <= set(REASONS)


def test_a_text_said_of_too_many_clips_is_a_duplicate(workspace):
    same = as_json("A dog runs over a field.")
    with FaultServer(answer=lambda request: completion(request, same)) as server:
        few = by(model(server.url), max_failed_fraction=1.0, checks=PARAMS.checks.model_dump() | {"max_same": 3})
        with pytest.raises(ValueError, match="duplicate 12"):
            workspace.run(few)
        many = few.model_copy(update={"checks": PARAMS.checks.model_copy(update={"max_same": 12})})
        assert {row["status"] for row in workspace.run(many)} == {"ok"}


def test_too_many_failures_fail_the_stage_and_the_next_run_asks_for_those_alone(workspace):
    with FaultServer(fault=lambda number: "422" if number in (2, 5) else None) as server:
        model_of = by(model(server.url, in_flight=1))
        with pytest.raises(ValueError, match=r"2 of 12 clips failed \(endpoint_error 2\).*max_failed_fraction"):
            workspace.run(model_of)
        assert not Path("captions").exists()
        before = len(server.requests)
        rows = workspace.run(model_of)
    assert len(server.requests) == before + 2
    assert {row["status"] for row in rows} == {"ok"}


def test_a_model_that_is_down_ends_the_stage_for_now_and_nobody_else_speaks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path, 60, caption="beside the video")
    with FaultServer(fault=lambda number: "500" if number >= 10 else None) as server:
        captioner = by(model(server.url, attempts=2))
        with pytest.raises(TryLaterError, match="20 failures in a row"):
            workspace.run(captioner)
        assert not Path("captions").exists()
        answered = server.answered.copy()
        server.fault = lambda number: None
        rows = workspace.run(captioner)
    assert {(row["captioner"], row["status"]) for row in rows} == {("video", "ok")}
    assert answered and set(server.answered.values()) == {1}


def test_another_captions_what_a_model_failed_at_only_where_that_is_asked_for(workspace):
    with FaultServer(answer=lambda request: completion(request, None)) as server:
        measured = {"width": 4, "height": 4, "orientation": "square", "colours": ["grey"], "brightness": 0.5}
        measured |= {"motion": 1.0, "motion_x": 1.0, "motion_y": 0.0}
        rows = [
            dict.fromkeys(tables.CLIPS.names) | {"clip": clip, "status": "ok", **measured} for clip in workspace.clips
        ]
        tables.write_rows(Path("clips") / tables.CLIP_TABLE, rows, tables.CLIPS)
        rows = workspace.run(by(model(server.url), "describe", fallback="next"))
    assert {(row["captioner"], row["model"]) for row in rows} == {("describe", None)}
    with pytest.raises(ValueError, match="describe after video"):
        by(model(server.url), "describe")
    with pytest.raises(ValueError, match="twice"):
        by(model(server.url), model(server.url), fallback="next")


def test_a_still_that_is_no_whole_picture_is_not_sent(workspace):
    workspace.stills[workspace.clips[0]] = [jpeg("x")[:-1]]
    workspace.stills[workspace.clips[1]] = []
    workspace.stills[workspace.clips[2]] = [jpeg("one frame")]
    workspace.write_stills("other-shots")
    with FaultServer() as server:
        rows = workspace.run(by(model(server.url), max_failed_fraction=0.5), shots="other-shots")
    assert [row["reason"] for row in rows[:4]] == ["malformed", "malformed", None, None]
    assert len(server.requests) == len(rows) - 2


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b" \n", "empty"), (b"Describe it.", "{frames}"), (b"\xff{frames}", "UTF-8")]
    + [(f"{{frames}} a{sign}b".encode(), "nobody sees") for sign in ("\x00", "\x1b", "\u202e", "\u200b")],
)
def test_a_prompt_that_is_none_is_refused_at_the_door(workspace, content, said):
    Path("prompts/test.txt").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        Captions(Path("clips"), Path("shots"), Path("docs"), by(model("http://127.0.0.1:1/v1")), TEXT)


def test_a_prompt_that_is_not_there_is_refused_at_the_door(workspace):
    Path("prompts/test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"prompts/test\.txt"):
        Captions(Path("clips"), Path("shots"), Path("docs"), by(model("http://127.0.0.1:1/v1")), TEXT)


@pytest.mark.parametrize(
    "changes",
    [
        *({"prompt": path} for path in ("../x.txt", "prompts/../x.txt", "/etc/passwd", "prompts/a\nb.txt", "prompts/")),
        *(
            {"urls": [url]}
            for url in ("file:///x", "http://h/v1?key=1", "http://h/v1/", "http://h /v1", "http://h\n/v1")
        ),
        {"urls": []},
        {"api_key_variable": "sk-a-key-itself"},
        {"item_seconds": 0.1},
        {"name": "Video"},
        {"frames": 0},
    ],
)
def test_a_model_that_cannot_be_asked_is_refused(changes):
    with pytest.raises(ValueError, match=r"prompt|urls|api_key_variable|item_seconds|name|frames"):
        model("http://127.0.0.1:1/v1", **changes)


def test_braces_of_a_prompt_stay_as_they_are(tmp_path):
    (tmp_path / "p.txt").write_text("{frames} of {{7*7}} {0} {frames}")
    prompt = read_prompt(tmp_path / "p.txt")
    assert prompt.about(4) == "4 of {{7*7}} {0} 4"
    assert prompt.filled({"frames": "{0}{frames}"}) == "{0}{frames} of {{7*7}} {0} {0}{frames}"


@pytest.mark.parametrize(("name", "places"), [("video", ["frames"]), ("frame", []), ("merge", ["frames", "captions"])])
def test_the_prompts_of_the_project_are_some(name, places):
    prompt = read_prompt(Path(__file__).parents[3] / f"prompts/{name}.txt", dict.fromkeys(places, ""))
    filled = prompt.filled(dict.fromkeys(("frames", "captions"), "<here>"))
    assert filled.count("<here>") == len(places) and not {"{frames}", "{captions}"} & set(filled.split())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from([MODEL, "x"]) | JSON,
        "id": JSON,
        "choices": JSON | st.lists(st.fixed_dictionaries({"message": JSON | st.fixed_dictionaries({"content": JSON})})),
        "usage": JSON,
    },
)


@settings(max_examples=150, deadline=None)
@given(CHOICES.map(json.dumps).map(str.encode) | st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
def test_whatever_a_server_sends_is_an_answer_or_malformed(body):
    try:
        answer, named = read_answer(body, MODEL)
    except MalformedError as error:
        assert str(error).isprintable() and len(str(error)) < 60
        return
    assert isinstance(named, str)
    answer.content.encode()
    for form in ("json", "text"):
        judged = judge(said_by(answer, form), PARAMS)
        assert (judged.text is None) != (judged.reason is None)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_two_texts_come_out_of_json_as_they_went_in(text, short):
    content = json.dumps({"text": text, "short": short}, ensure_ascii=False)
    said = said_by(Answer(content, "stop", False, False, None, None), "json")
    assert (said.text, said.short, said.raw) == (text, short, content)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_strict_json_is_what_json_is(value):
    text = json.dumps(value)
    try:
        assert read_object(text) == value and isinstance(value, dict)
    except MalformedError:
        assert not isinstance(value, dict) or "NaN" in text or "Infinity" in text


FORKS = multiprocessing.get_context("forkserver")  # one process imports the stage, and each that is killed is its copy
FORKS.set_forkserver_preload(["tests.made_clips"])


def stored() -> set[str]:
    """Return the clips whose answers are stored."""
    if not Path("answers.sqlite").exists():
        return set()
    with sqlite3.connect("answers.sqlite") as connection:
        return {item.split()[0] for (item,) in connection.execute("SELECT item FROM answers")}


def asked_about(requests: list[dict]) -> set[str]:
    """Return the clips of some requests."""
    urls = [request["messages"][0]["content"][0]["image_url"]["url"] for request in requests]
    return {base64.b64decode(url.partition(",")[2])[4:].split()[0].decode() for url in urls}


def killed_at_random(workspace, kills: int) -> None:
    """Kill the stage at random moments, then let it end; no clip may be asked for once its answer is stored."""
    draw = random.Random(4)
    with FaultServer(seconds=0.02) as server:
        captioner = by(model(server.url, in_flight=2))
        for _ in range(kills):
            known, first = stored(), len(server.requests)
            process = FORKS.Process(target=workspace.run_there, args=(captioner,))
            process.start()
            moment = first + draw.randint(-1, 12)
            while len(server.requests) <= moment and process.is_alive():
                time.sleep(0.002)
            process.kill()
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
            assert not known & asked_about(server.requests[first:])
        known, first = stored(), len(server.requests)
        rows = workspace.run(captioner)
    assert known and not known & asked_about(server.requests[first:])
    assert [row["clip"] for row in rows] == workspace.clips
    assert {row["status"] for row in rows} == {"ok"}


def test_a_kill_asks_for_no_answer_that_is_stored(workspace):
    killed_at_random(workspace, 1)


@pytest.mark.long
def test_twenty_kills_ask_for_no_answer_that_is_stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    killed_at_random(Workspace(tmp_path, 300), 20)
