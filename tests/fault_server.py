"""A server of Chat Completions on loopback that answers by rule and fails on purpose: HTTP by asyncio, in a thread.

What it answers is a function of the request alone, so that a run with faults must end as one without. It keeps a log of
what it was asked about, and of which of these it has answered.
"""

import asyncio
import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import aiohttp

from tasks.chat.settings import EndpointSettings

MODEL = "tiny-vlm"
QUICK = EndpointSettings(
    urls=("http://127.0.0.1:1/v1",),
    model=MODEL,
    answers_as=None,
    api_key_variable=None,
    in_flight=8,
    request_seconds=0.4,
    item_seconds=20,
    attempts=12,
    backoff_seconds=0.002,
    max_retry_fraction=3,
    max_answer_bytes=100_000,
)
"""An endpoint that is asked quickly and often; its address is the server's, once there is one."""
FAULTS = ("429", "429 Retry-After=0.05", "500", "reset", "stall", "truncated", "html", "no choices", "wrong model")


def caption_of(request: dict[str, Any]) -> str:
    """Return what the server says of a request: JSON with both texts, by its pictures."""
    urls = [part["image_url"]["url"] for part in request["messages"][0]["content"] if part["type"] == "image_url"]
    digest = hashlib.sha256("".join(urls).encode()).hexdigest()
    words = " ".join(
        ("amber", "brisk", "calm", "dusty", "eager", "faint", "green", "happy")[int(d, 16) % 8] for d in digest[:5]
    )
    return json.dumps({"text": f"A {words} bird flies over number {digest[:8]}.", "short": f"A bird {digest[:8]}."})


def completion(request: dict[str, Any], content: str | None, **changes: Any) -> dict[str, Any]:
    """Return a Chat Completion."""
    message = {"role": "assistant", "content": content} | changes.pop("message", {})
    choice = {"index": 0, "message": message, "finish_reason": changes.pop("finish_reason", "stop")}
    usage = {"prompt_tokens": 32, "completion_tokens": 12}
    return {
        "id": "x",
        "object": "chat.completion",
        "model": request["model"],
        "choices": [choice],
        "usage": usage,
    } | changes


class FaultServer:
    """The server, as a context.

    Args:
        answer: returns the body of the response to a request: JSON, or bytes as they are.
        fault: returns the name of a fault for the n-th request, None for none.
        seconds: how long an answer takes.
    """

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], Any] = lambda request: completion(request, caption_of(request)),
        fault: Callable[[int], str | None] = lambda number: None,
        seconds: float = 0.0,
    ) -> None:
        self.answer, self.fault, self.seconds = answer, fault, seconds
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered = Counter[str]()
        self.faults = Counter[str]()
        self.under_way = self.most_under_way = self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                request = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                try:
                    if not await self._respond(request, headers, writer):
                        return
                finally:
                    self.under_way -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _respond(self, request: dict[str, Any], headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        """Answer, or fail; return whether the connection stays open."""
        number = len(self.requests)
        self.requests.append(request)
        self.headers.append(headers)
        fault = self.fault(number)
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if fault is not None:
            self.faults[fault] += 1
            return await self._fail(fault, request, writer)
        body = await self._body(request)
        self.answered[caption_of(request)] += 1
        _write(writer, 200, body)
        await writer.drain()
        return True

    async def _body(self, request: dict[str, Any]) -> bytes:
        body = self.answer(request)
        return body if isinstance(body, bytes) else json.dumps(body).encode()

    async def _fail(self, fault: str, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault.startswith("stall"):
            await asyncio.sleep(float(fault.partition("=")[2] or 3600))
            return False
        if fault == "truncated":
            body = await self._body(request)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])
            await writer.drain()
            return False
        if fault == "html":
            _write(writer, 200, b"<html><script>alert(1)</script>502 Bad Gateway</html>", "text/html")
        elif fault == "no choices":
            _write(writer, 200, json.dumps(completion(request, "x", choices=[])).encode())
        elif fault == "wrong model":
            _write(writer, 200, json.dumps(completion(request, "x", model="another")).encode())
        elif fault.startswith("429"):
            after = fault.partition("=")[2]
            _write(writer, 429, b"{}", more=f"Retry-After: {after}\r\n" if after else "")
        else:
            _write(writer, int(fault), b'{"error": "on purpose"}')
        await writer.drain()
        return True


class FaultProxy(FaultServer):
    """A server of the same faults that hands on the other requests to a real one; gone with it: resets.

    Args:
        upstream: address of the real server, as in `urls`.
        fault: as for `FaultServer`.
        port: where it listens.
    """

    def __init__(self, upstream: str, fault: Callable[[int], str | None] = lambda number: None, port: int = 0) -> None:
        super().__init__(fault=fault)
        self.port = port
        self.upstream = upstream

    async def _body(self, request: dict[str, Any]) -> bytes:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{self.upstream}/chat/completions", json=request) as response,
            ):
                body = await response.read()
        except aiohttp.ClientError as error:
            raise ConnectionResetError from error
        assert response.status == 200, body
        return body


def _write(
    writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "application/json", more: str = ""
) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    writer.write(head.encode() + body)


def by_chance(share: float, seed: int, faults: tuple[str, ...] = FAULTS) -> Callable[[int], str | None]:
    """Return a rule by which a share of the requests fails, in every way."""
    draw = random.Random(seed)
    return lambda number: draw.choice(faults) if draw.random() < share else None
