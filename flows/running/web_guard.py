"""Who may talk to a web service of ours: programs that know its secret, and pages of its own origin.

A page of another site can make a browser send requests to 127.0.0.1, and a name of its own can be made to point there
(DNS rebinding). So a request must name the service by its own address (the header Host), and must not come from a page
of another origin (Origin, and Fetch Metadata where the browser sends it: https://www.w3.org/TR/fetch-metadata/).
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UNAUTHORIZED, FORBIDDEN, MISDIRECTED = 401, 403, 421
_SAID = {
    UNAUTHORIZED: b"open the address that the command printed: it has the token",
    FORBIDDEN: b"a page of another origin may not ask here",
    MISDIRECTED: b"this service is not known by that name",
}


class WebGuard:
    """An ASGI application around another one, which lets through only what may come in.

    Args:
        app: the application; it checks credentials itself, unless there is a token.
        port: on which it is served, on the loopback interface.
        token: what a request must show, once as `?token=` and then as a cookie; None leaves that to the application.
    """

    def __init__(self, app: App, port: int, token: str | None = None) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}
        self._token = token
        self._cookie = f"stiv-{port}"  # cookies of one host are shared by its ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if status := self._refusal(scope, headers):
            await _answer(scope, receive, send, status, [], _SAID[status])
        elif self._token and not self._has_cookie(headers):
            await self._greet(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> int | None:
        if headers.get("host", "").lower() not in self._hosts:
            return MISDIRECTED
        if headers.get("origin", next(iter(self._origins))).lower() not in self._origins:
            return FORBIDDEN
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return None
        is_link = scope.get("method") == "GET" and headers.get("sec-fetch-dest") == "document"
        return None if is_link else FORBIDDEN  # somebody who clicked a link elsewhere sees our page, and nothing else

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return found is not None and self._is_token(found.value)

    def _is_token(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), (self._token or "").encode())

    async def _greet(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Turn the token of the address that was printed into a cookie; refuse whoever has none."""
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = next((value for name, value in asked if name == "token"), "")
        if scope["type"] == "websocket" or scope["method"] != "GET" or not self._is_token(shown):
            await _answer(scope, receive, send, UNAUTHORIZED, [], _SAID[UNAUTHORIZED])
            return
        rest = urlencode([(name, value) for name, value in asked if name != "token"])
        headers = [
            (b"location", f"/{scope['path'].lstrip('/')}{f'?{rest}' if rest else ''}".encode("latin-1")),
            (b"set-cookie", f"{self._cookie}={shown}; Path=/; HttpOnly; SameSite=Strict".encode("latin-1")),
            (b"referrer-policy", b"no-referrer"),
        ]
        await _answer(scope, receive, send, 303, headers, b"")


async def _answer(
    scope: Scope, receive: Receive, send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    if scope["type"] == "websocket":
        await receive()  # the handshake; closed before it is accepted, it is answered with 403
        await send({"type": "websocket.close", "code": 1008})
        return
    content = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *content]})
    await send({"type": "http.response.body", "body": body})
