"""The client against a real server on loopback that fails in every way."""

import json
import logging
import socket
import threading
import time
from email.utils import formatdate

import pytest

from stiv_model.errors.failures import TryLaterError
from tasks.chat import client as chat
from tasks.chat.breaker import IN_ROW, Breaker
from tasks.chat.client import Client, Question
from tasks.chat.store import Answers
from tests.fault_server import FAULTS, MODEL, QUICK, FaultServer, by_chance, caption_of, completion


def question(number: int, model: str = MODEL) -> Question:
    url = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{number:08d}"}}
    body = {"model": model, "messages": [{"role": "user", "content": [url]}]}
    return Question(f"clip-{number}", json.dumps(body).encode())


@pytest.fixture
def answers(tmp_path):
    with Answers(tmp_path / "answers.sqlite") as store:
        yield store


def ask(server_or_settings, answers, count=1, first=0, **changes):
    settings = server_or_settings
    if isinstance(settings, FaultServer):
        settings = QUICK.model_copy(update={"urls": (settings.url,), **changes})
    client = Client(settings)
    try:
        return client.ask([question(number) for number in range(first, first + count)], "asked", answers)
    finally:
        client.close()


def test_with_faults_every_item_has_one_answer_the_same_as_without(answers):
    with FaultServer() as sound:
        plain = ask(sound, answers, 120)
    with FaultServer(fault=by_chance(0.3, 1)) as faulty:
        replies = ask(faulty, answers, 120)
    assert set(faulty.faults) == set(FAULTS)
    assert replies == plain
    assert all(reply.answer is not None for reply in replies)
    assert set(faulty.answered.values()) == {1} and len(faulty.answered) == 120
    items = [question(number).item for number in range(120)]
    found = answers.find("asked", items)
    assert [found[item] for item in items] == [reply.answer for reply in replies]


def test_requests_under_way_are_bounded_and_servers_share_them(answers):
    with FaultServer(seconds=0.01) as one, FaultServer(seconds=0.01) as other:
        ask(QUICK.model_copy(update={"urls": (one.url, other.url), "in_flight": 3}), answers, 60)
    assert (one.most_under_way, other.most_under_way) == (3, 3)
    assert min(len(one.requests), len(other.requests)) > 20


def test_a_server_that_is_gone_leaves_its_work_to_the_others(answers):
    with FaultServer() as sound:
        gone = f"http://127.0.0.1:{free_port()}/v1"
        replies = ask(QUICK.model_copy(update={"urls": (gone, sound.url)}), answers, 60)
    assert all(reply.answer is not None for reply in replies)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "422", "302"])
def test_what_will_come_again_is_asked_once(answers, status):
    with FaultServer(fault=lambda number: status) as server:
        (reply,) = ask(server, answers)
    assert (reply.answer, reply.reason, len(server.requests)) == (None, "endpoint_error", 1)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        *((code, "endpoint_error") for code in ("408", "409", "429", "500", "503", "reset", "truncated")),
        *((code, "malformed") for code in ("html", "no choices", "wrong model")),
        ("stall", "timeout"),
    ],
)
def test_what_may_pass_is_tried_as_often_as_the_settings_allow_and_then_has_its_reason(answers, fault, reason):
    with FaultServer(fault=lambda number: fault) as server:
        (reply,) = ask(server, answers, attempts=3, request_seconds=0.1)
    assert (reply.answer, reply.reason, len(server.requests)) == (None, reason, 3)
    assert answers.find("asked", ["clip-0"]) == {}


def test_retry_after_is_obeyed(answers):
    with FaultServer(fault=lambda number: "429 Retry-After=0.05" if number < 2 else None) as server:
        before = time.monotonic()
        (reply,) = ask(server, answers)
    assert reply.answer is not None
    assert time.monotonic() - before >= 0.1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), ("3", 3), ("0.5", 0.5), ("-1", 0), ("inf", 0), ("nan", 0), ("soon", 0), ("Mon, 99 Foo", 0)],
)
def test_retry_after_is_a_number_or_nothing(value, seconds):
    assert chat._retry_after(value) == seconds


def test_retry_after_may_be_a_date():
    assert 58 < chat._retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60


def test_who_asks_to_be_left_alone_for_long_ends_the_stage_for_now(answers):
    with FaultServer(fault=lambda number: "429 Retry-After=3600") as server, pytest.raises(TryLaterError, match="3600"):
        ask(server, answers)
    assert len(server.requests) == 1


def test_the_stage_has_a_budget_of_further_attempts(answers):
    with FaultServer(fault=lambda number: "500" if number % 2 == 0 or number > 9 else None) as server:
        ask(server, answers, 19, max_retry_fraction=0.0, attempts=8, in_flight=1, backoff_seconds=0.0001)
    assert len(server.requests) <= 19 + 50


def test_an_item_has_a_budget_of_time(answers):
    with FaultServer(fault=lambda number: "500") as server:
        before = time.monotonic()
        (reply,) = ask(server, answers, attempts=1000, item_seconds=0.5, backoff_seconds=0.05)
    assert reply.reason == "endpoint_error"
    assert time.monotonic() - before < 2
    assert 2 < len(server.requests) < 10


def test_a_dead_endpoint_ends_the_stage_for_now_and_what_it_answered_is_stored(answers):
    with FaultServer(fault=lambda number: "500" if number >= 30 else None) as server:
        settings = QUICK.model_copy(update={"urls": (server.url,), "attempts": 2})
        client = Client(settings)
        assert len(client.ask([question(number) for number in range(30)], "asked", answers)) == 30
        with pytest.raises(TryLaterError, match="20 failures in a row"):
            client.ask([question(number) for number in range(30, 300)], "asked", answers)
        with pytest.raises(TryLaterError):
            client.ask([question(301)], "asked", answers)
        client.close()
    assert len(server.requests) < 30 + 2 * (IN_ROW + 2 * QUICK.in_flight)
    assert not any("00000301" in json.dumps(request) for request in server.requests)
    assert len(answers.find("asked", [f"clip-{number}" for number in range(300)])) == 30


def test_an_endpoint_that_refuses_every_request_is_a_wrong_request(answers):
    with FaultServer(fault=lambda number: "404") as server, pytest.raises(ValueError, match="status 404"):
        ask(server, answers, 60)


def test_half_of_the_last_two_hundred_open_the_breaker():
    breaker = Breaker()
    for number in range(198):
        breaker.failed(True) if number % 2 else breaker.succeeded()
    assert breaker.tripped is None
    breaker.failed(True)
    breaker.failed(True)
    breaker.failed(True)
    assert breaker.tripped is not None and breaker.tripped.may_pass


def test_a_client_that_is_closed_ends_who_waits(answers):
    with FaultServer(fault=lambda number: "stall") as server:
        client = Client(QUICK.model_copy(update={"urls": (server.url,), "request_seconds": 60, "item_seconds": 60}))
        closing = threading.Timer(0.2, client.close)
        closing.start()
        with pytest.raises(TryLaterError, match="asked to stop"):
            client.ask([question(1)], "asked", answers)
        closing.join()


def test_an_answer_of_another_request_is_not_believed(answers):
    ids: list[str] = []

    def answer(request):
        ids.append(server.headers[-1]["x-request-id"])
        return completion(request, caption_of(request), id=f"chatcmpl-{ids[0]}")

    with FaultServer(answer=answer) as server:
        first, *others = ask(server, answers, 4, attempts=2, in_flight=1)
    assert first.answer is not None
    assert [other.reason for other in others] == ["malformed"] * 3


def test_an_answer_of_a_megabyte_is_not_read_to_its_end(answers):
    with FaultServer(answer=lambda request: completion(request, "a" * 1_000_000)) as server:
        (reply,) = ask(server, answers)
    assert (reply.answer, reply.reason, len(server.requests)) == (None, "too_long", 1)


def test_the_key_goes_to_the_server_and_nowhere_else(answers, tmp_path, monkeypatch, caplog):
    secret = "sk-very-secret-0123"
    monkeypatch.setenv("STIV_TEST_KEY", secret)
    with FaultServer() as server:
        server.fault = lambda number: "401" if number == 0 else None
        with caplog.at_level(logging.DEBUG):
            replies = ask(server, answers, 3, api_key_variable="STIV_TEST_KEY")
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {secret}"}
    assert sum(reply.answer is not None for reply in replies) == 2
    assert secret not in caplog.text
    assert not [file for file in tmp_path.rglob("*") if secret.encode() in file.read_bytes()]
    assert "401" in caplog.text


def test_a_key_that_is_not_set_is_said(monkeypatch):
    monkeypatch.delenv("STIV_TEST_KEY", raising=False)
    with pytest.raises(ValueError, match="STIV_TEST_KEY"):
        Client(QUICK.model_copy(update={"api_key_variable": "STIV_TEST_KEY"}))


def test_a_servers_words_are_one_line_of_the_log_without_the_key(monkeypatch):
    monkeypatch.setenv("STIV_TEST_KEY", "sk-secret")
    client = Client(QUICK.model_copy(update={"api_key_variable": "STIV_TEST_KEY"}))
    said = client._words(b"no\x1b[31m\nWARNING forged: key sk-secret of https://me:pw@host \xff\x00" + b"x" * 5000)
    client.close()
    assert said.isprintable() and len(said) <= 160
    assert "sk-secret" not in said and "pw@" not in said
