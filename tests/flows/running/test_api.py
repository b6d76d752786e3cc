"""Whether a server of Prefect shows a run: asked for seconds, answered in a line without secrets."""

import base64
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.running.api import trouble

ANSWERS = {"/api": b'"3.8.8"', "/page": b"<html>", "/other": b"{}"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that asks for `me:right` below /api, and answers otherwise elsewhere; its place."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            place = self.path.removesuffix("/admin/version")
            known = self.headers.get("Authorization") == f"Basic {base64.b64encode(b'me:right').decode()}"
            self.send_response(404 if place not in ANSWERS else 401 if place == "/api" and not known else 200)
            self.end_headers()
            self.wfile.write(ANSWERS.get(place, b""))

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize(
    ("path", "secret", "said"),
    [
        ("/api", "me:right", None),
        ("/api", "me:wrong", "which answers 401: check PREFECT_API_AUTH_STRING"),
        ("/api", None, "which answers 401: check PREFECT_API_AUTH_STRING"),
        ("", None, "which answers 404: check the address"),
        ("/page", None, "which is no server of Prefect"),
        ("/other", None, "which is no server of Prefect"),
    ],
)
def test_a_server_is_asked_with_our_secret(server, path, secret, said):
    with temporary_settings({PREFECT_API_URL: f"http://{server}{path}", PREFECT_API_AUTH_STRING: secret}):
        found = trouble()
    assert found is None if said is None else found is not None and f"names {server}, {said}" in found


@pytest.mark.parametrize(("user", "is_let_in"), [("me:right", True), ("me:%72ight", True), ("me:wrong", False)])
def test_what_stands_in_an_address_is_said_to_the_server(server, user, is_let_in):
    with temporary_settings({PREFECT_API_URL: f"http://{user}@{server}/api"}):
        assert (trouble() is None) == is_let_in


def test_a_server_that_is_slow_is_there(monkeypatch):
    monkeypatch.setattr("flows.running.api._SECONDS", 0.1)

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(0.3)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'"3.8.8"')

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{http.server_port}/api"}):
            assert trouble() is None
        http.shutdown()


def test_nothing_is_asked_where_no_server_is_named():
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert trouble() == ""


@pytest.mark.parametrize("user", ["me:hidden", "hidden", "me:hid/den", "me:hid@den"])
def test_what_stands_in_an_address_is_not_told(user):
    with temporary_settings({PREFECT_API_URL: f"http://{user}@127.0.0.1:9/api"}):
        found = trouble()
    assert found == "PREFECT_API_URL names 127.0.0.1:9, where no server answers: start it, or unset PREFECT_API_URL"
