"""Asks models over HTTP: Chat Completions by aiohttp, with every attempt, wait and limit in sight.

One client per process and settings: a thread with an event loop, one session, requests of all shards' threads under
way in it. An answer is stored the moment it is there. Nothing is tried again behind our back.
"""

import asyncio
import contextlib
import email.utils
import logging
import os
import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import aiohttp

from stiv_model.errors.failures import TryLaterError
from stiv_model.errors.redaction import MARK, redact
from tasks.chat.answers import Answer, MalformedError, read_answer
from tasks.chat.breaker import Breaker
from tasks.chat.settings import EndpointSettings
from tasks.chat.store import Answers

log = logging.getLogger(__name__)

T = TypeVar("T")
_PASSING = frozenset({408, 409, 429})
_CONNECT_SECONDS = 10
_FREE_RETRIES = 50  # beyond the share of the settings: a few items must not have none
_REMEMBERED = 20_000  # ids of requests, by which another request's answer is known
_SAID = 160  # characters of a server's words in the log
_LONGEST_REST, _LONGEST_WAIT = 30.0, 60.0  # that we choose ourselves, seconds


class Question(NamedTuple):
    """What is asked about one item."""

    item: str
    """What identifies the item, with all of it that is shown to the model."""
    body: bytes
    """Of the request, as Chat Completions has it."""


class Reply(NamedTuple):
    """What came of a question: an answer, or why there is none."""

    answer: Answer | None
    reason: str | None
    """timeout, endpoint_error, malformed or too_long where there is no answer."""


class _Failure(NamedTuple):
    """What came of one attempt."""

    reason: str
    may_pass: bool
    said: str
    """For the log: a kind of failure, not more kinds than codes and sentences of ours."""
    after: float = 0.0
    """Seconds that the server wants to be left alone."""


class _Server:
    """One server, and how many requests it has to answer."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/chat/completions"
        self.outstanding = 0
        self.rests_until = 0.0
        self.rest = 1.0


class Client:
    """Asks the servers of one endpoint; threads may share it.

    Args:
        settings: servers, model, limits.

    Raises:
        ValueError: the variable that names the key is not set.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self._key = _key(settings.api_key_variable)
        self._servers = [_Server(url) for url in settings.urls]
        self._breaker, self._first, self._again = Breaker(), 0, 0
        self._sent, self._ids = deque[str](), set[str]()
        self._failures = Counter[str]()
        self._under_way, self._is_closed = set[asyncio.Task[Reply]](), False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat", daemon=True)
        self._thread.start()
        self._session, self._room, self._begun = self._call(self._open())

    def close(self) -> None:
        """Close the session and end the thread; requests that are under way are dropped."""
        for failure, count in self._failures.most_common():
            log.info("%s: %d attempts ended in: %s", self.settings.model, count, failure)
        self._is_closed = True
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, questions: Sequence[Question], asked: str, answers: Answers) -> list[Reply]:
        """Return a reply to each question, in their order, when all are there.

        Args:
            questions: of different items.
            asked: `store.key_of` what else decides the answers.
            answers: where they are stored as they come.

        Raises:
            TryLaterError: the endpoint is gone, or the client was closed; what it has answered is stored.
            ValueError: it refuses every request.
        """
        self._refuse_if_ended()
        replies = self._call(self._ask(questions, asked, answers))
        self._refuse_if_ended()
        return replies

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work of the event loop from another thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> tuple[aiohttp.ClientSession, asyncio.Semaphore, asyncio.Semaphore]:
        room = self.settings.in_flight * len(self._servers)
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=room), headers=headers, auto_decompress=False, trust_env=False
        )
        # items that wait for their next attempt let others be asked meanwhile, but not all of a stage
        return session, asyncio.Semaphore(room), asyncio.Semaphore(2 * room)

    async def _close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._session.close()

    async def _ask(self, questions: Sequence[Question], asked: str, answers: Answers) -> list[Reply]:
        self._refuse_if_ended()  # here no other thread comes between

        async def one_of_few(question: Question) -> Reply:
            async with self._begun:
                return await self._ask_one(question, asked, answers)

        tasks = [asyncio.ensure_future(one_of_few(question)) for question in questions]
        self._under_way.update(tasks)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        self._under_way.difference_update(tasks)
        for one in found:
            if isinstance(one, Exception):
                raise one
        return [one for one in found if isinstance(one, Reply)]  # the others were cancelled: `ask` says why

    async def _ask_one(self, question: Question, asked: str, answers: Answers) -> Reply:
        """Make as many attempts as the settings allow and the failures are worth."""
        settings, failure, deadline = self.settings, None, float("inf")
        for attempt in range(settings.attempts):
            if attempt and not self._may_ask_again():
                break
            async with self._server(deadline) as server:
                if server is None:
                    break
                now = time.monotonic()
                if attempt == 0:
                    self._first += 1
                    deadline = now + settings.item_seconds
                result = await self._attempt(server, question.body, min(settings.request_seconds, deadline - now))
            if isinstance(result, Answer):
                answers.put(asked, question.item, result)
                self._breaker.succeeded()
                return Reply(result, None)
            failure = result
            self._note(server, failure)
            wait = max(failure.after, self._backoff(attempt))
            if not failure.may_pass or time.monotonic() + wait >= deadline:
                break
            if attempt + 1 < settings.attempts:
                await asyncio.sleep(wait)
        assert failure is not None, "the first attempt is made"
        self._give_up(failure)
        return Reply(None, failure.reason)

    def _may_ask_again(self) -> bool:
        if self._again >= _FREE_RETRIES + self.settings.max_retry_fraction * self._first:
            return False
        self._again += 1
        return True

    def _backoff(self, attempt: int) -> float:
        return min(_LONGEST_WAIT, self.settings.backoff_seconds * 2**attempt) * (1 - random.random() / 2)

    def _note(self, server: _Server, failure: _Failure) -> None:
        """Count a failed attempt, say so once of each kind, and leave a server alone that wants or needs it."""
        if not self._failures[failure.said]:
            log.warning("%s at %s: %s", self.settings.model, redact(server.url), failure.said)
        self._failures[failure.said] += 1
        now = time.monotonic()
        if failure.after > self.settings.item_seconds and len(self._servers) == 1:
            self._breaker.trip(f"it asks to be left alone for {failure.after:.0f} s")
        elif failure.after:
            server.rests_until = max(server.rests_until, now + min(failure.after, self.settings.item_seconds))
        elif failure.said.startswith("no connection") and len(self._servers) > 1 and now >= server.rests_until:
            # one that refuses at once has the fewest requests under way, and would be asked most
            server.rests_until, server.rest = now + server.rest, min(_LONGEST_REST, 2 * server.rest)

    def _give_up(self, failure: _Failure) -> None:
        """Count an item that has no answer; where that opens the breaker, end all that is under way."""
        self._breaker.failed(failure.may_pass)
        if self._breaker.tripped:
            for task in self._under_way:
                task.cancel()

    def _refuse_if_ended(self) -> None:
        tripped = self._breaker.tripped
        if tripped is None:
            if self._is_closed:
                raise TryLaterError("the stage was asked to stop: what was answered is stored")
            return
        seen = ", ".join(f"{failure} ({count})" for failure, count in self._failures.most_common(3))
        where = f"{self.settings.model} at {', '.join(map(redact, self.settings.urls))}: {tripped.said}: {seen}"
        if tripped.may_pass:
            raise TryLaterError(f"{where}; what was answered is stored: the same command goes on there")
        raise ValueError(
            f"{where}; mend the request or the server: the section `captions` or `dsg` of params.yaml names both"
        )

    @contextlib.asynccontextmanager
    async def _server(self, deadline: float) -> AsyncIterator[_Server | None]:
        """Lend the server with the fewest requests under way; None when none is free before the deadline."""
        async with self._room:
            while True:
                now = time.monotonic()
                free = [one for one in self._servers if one.outstanding < self.settings.in_flight]
                awake = [one for one in free if one.rests_until <= now]
                if awake:
                    break
                until = min((one.rests_until for one in free), default=now)
                if until >= deadline:
                    yield None
                    return
                await asyncio.sleep(max(0.01, min(1.0, until - now)))
            server = min(awake, key=lambda one: one.outstanding)
            server.outstanding += 1
            try:
                yield server
            finally:
                server.outstanding -= 1

    async def _attempt(self, server: _Server, body: bytes, seconds: float) -> "Answer | _Failure":
        own = uuid.uuid4().hex
        self._remember(own)
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, _CONNECT_SECONDS))
        try:
            async with self._session.post(
                server.url, data=body, headers={"X-Request-Id": own}, timeout=limit, allow_redirects=False
            ) as response:
                received = await self._read(response)
                if received is None:
                    return _Failure("too_long", False, f"more than {self.settings.max_answer_bytes} bytes of answer")
                if response.status != 200:
                    return self._refused(response, received)
                echoed = response.headers.get("X-Request-Id", own)
        except aiohttp.ClientConnectorError as error:
            return _Failure("endpoint_error", True, f"no connection ({type(error.os_error).__name__})")
        except TimeoutError:
            return _Failure("timeout", True, f"no answer within {self.settings.request_seconds:g} s")
        except (aiohttp.ClientError, ConnectionError) as error:
            return _Failure("endpoint_error", True, f"connection lost ({type(error).__name__})")
        server.rest = 1.0
        if self._key:
            received = received.replace(self._key.encode(), MARK.encode())  # a server that tells it again
        return self._answer(received, own, echoed)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """Return the body; None when it is longer than the settings allow."""
        received = bytearray()
        async for chunk in response.content.iter_any():
            received += chunk
            if len(received) > self.settings.max_answer_bytes:
                response.close()
                return None
        return bytes(received)

    def _answer(self, received: bytes, own: str, echoed: str) -> "Answer | _Failure":
        try:
            answer, named = read_answer(received, self.settings.answering_model)
        except MalformedError as error:
            return _Failure("malformed", True, str(error))
        if self._ids.intersection((echoed, *named.split("-"))) - {own}:
            return _Failure("malformed", True, "the answer is another request's")
        return answer

    def _refused(self, response: aiohttp.ClientResponse, received: bytes) -> _Failure:
        status = response.status
        may_pass = status in _PASSING or status >= 500
        said = f"status {status}"
        if not may_pass and not self._failures[said]:
            log.warning("%s answered %d: %s", self.settings.model, status, self._words(received))
        return _Failure("endpoint_error", may_pass, said, _retry_after(response.headers.get("Retry-After")))

    def _words(self, received: bytes) -> str:
        """Return the beginning of a server's words as one line without secrets and controls."""
        text = received[: 4 * _SAID].decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, MARK)
        return redact("".join(letter if letter.isprintable() else " " for letter in text))[:_SAID]

    def _remember(self, own: str) -> None:
        self._sent.append(own)
        self._ids.add(own)
        if len(self._sent) > _REMEMBERED:
            self._ids.discard(self._sent.popleft())


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key or not key.isprintable():
        raise ValueError(f"api_key_variable is {variable}, but the environment has no such variable, or no key in it")
    return key


def _retry_after(value: str | None) -> float:
    """Return the seconds that a header Retry-After asks for, as a number or as a date; 0 for what is neither."""
    if value is None:
        return 0.0
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else 0.0
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


_CLIENTS: dict[EndpointSettings, Client] = {}
_OPENING = threading.Lock()


def client(settings: EndpointSettings) -> Client:
    """Return this process's client of an endpoint, opened when it is asked for first."""
    with _OPENING:
        if settings not in _CLIENTS:
            _CLIENTS[settings] = Client(settings)
        return _CLIENTS[settings]


@contextlib.contextmanager
def closing(*endpoints: EndpointSettings) -> Iterator[None]:
    """Close this process's clients of some endpoints at the end of the block: counts and breakers are of one run."""
    try:
        yield
    finally:
        with _OPENING:
            for settings in endpoints:
                if (opened := _CLIENTS.pop(settings, None)) is not None:
                    opened.close()
