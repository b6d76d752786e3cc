"""A headless Chromium that tests look at pages with, over its DevTools protocol."""

import asyncio
import base64
import shutil
import subprocess
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SECONDS = 120
_HOOK = """
window.ran = [];
for (const name of ["alert", "confirm", "prompt", "print"]) window[name] = (said) => window.ran.push(`${name} ${said}`);
"""


class Browser:
    """One Chromium; `open` shows a page in a tab of its own."""

    def __init__(self, port: int, path: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._number, self._waiting = 0, dict[int, asyncio.Future[Any]]()
        self._loaded = dict[str, asyncio.Event]()
        self.requested: list[str] = []
        """Addresses that pages asked for, but those of data."""
        self._call(self._connect(f"ws://127.0.0.1:{port}{path}"))

    def _call(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(_SECONDS)

    async def _connect(self, url: str) -> None:
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(url, max_msg_size=0)
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            if said.get("id") in self._waiting:
                self._waiting.pop(said["id"]).set_result(said)
            elif said.get("method") == "Page.loadEventFired":
                self._loaded[said["sessionId"]].set()
            elif said.get("method") == "Network.requestWillBeSent":
                self.requested.append(said["params"]["request"]["url"])

    async def _send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        answer = self._waiting[self._number] = self._loop.create_future()
        own = {"sessionId": session} if session else {}
        await self._socket.send_json({"id": self._number, "method": method, "params": params, **own})
        said = await asyncio.wait_for(answer, _SECONDS)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        return said["result"]

    def open(self, url: str, width: int = 1100, height: int = 900) -> "Tab":
        """Return a tab with the page, when it has loaded."""
        return Tab(self, self._call(self._open(url, width, height)))

    async def _open(self, url: str, width: int, height: int) -> str:
        target = (await self._send("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self._send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        self._loaded[session] = asyncio.Event()
        for domain in ("Page", "Runtime", "Network"):
            await self._send(f"{domain}.enable", session)
        await self._send("Page.addScriptToEvaluateOnNewDocument", session, source=_HOOK)
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self._send("Emulation.setDeviceMetricsOverride", session, **shape)
        self._loaded[session].clear()  # of about:blank
        gone = await self._send("Page.navigate", session, url=url)
        if "errorText" in gone:
            raise RuntimeError(f"{url}: {gone['errorText']}")
        await asyncio.wait_for(self._loaded[session].wait(), _SECONDS)
        return session

    def close(self) -> None:
        async def end() -> None:
            self._listening.cancel()
            await self._session.close()

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)


class Tab:
    """A page that is open."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser._call(self._browser._send(method, self._session, **params))

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is, as JSON."""
        found = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a letter, and wait for the page that comes of it."""
        loaded = self._browser._loaded[self._session]
        self._browser._loop.call_soon_threadsafe(loaded.clear)
        for kind in ("keyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key=key, text=key, code=f"Key{key.upper()}")
        self._browser._call(asyncio.wait_for(loaded.wait(), _SECONDS))

    def click(self, x: float, y: float) -> None:
        """Click at a place, in pixels from the top left corner of what is seen."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def until(self, expression: str) -> None:
        """Wait until an expression is true; the page may still be at work."""
        limit = time.monotonic() + _SECONDS
        while not self.value(f"!!({expression})"):
            if time.monotonic() > limit:
                raise TimeoutError(expression)
            time.sleep(0.2)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._send("Page.captureScreenshot", captureBeyondViewport=False)["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Give a Chromium that keeps what it writes in a folder, and end it."""
    assert PROGRAM
    command = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stderr
            line = next(line for line in process.stderr if line.startswith("DevTools listening on "))
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or it would wait for a reader
            port, _, path = line.split("127.0.0.1:", 1)[1].strip().partition("/")
            shown = Browser(int(port), f"/{path}")
            try:
                yield shown
            finally:
                shown.close()
        finally:
            process.terminate()
            process.wait(20)
