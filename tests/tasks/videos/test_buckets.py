"""Stores whose answers end too early or come too slowly, on a loopback server of our own."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tasks.videos import buckets

TEXT = b"a red circle moves left over a blue square that does not move"
URI = "s3://raw/x.txt"


class Store(http.server.ThreadingHTTPServer):
    """Answers every request with TEXT: the first `cut` times half of it, with `pause` seconds between bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.cut, self.pause, self.asked = 0, 0.0, 0
        self.denied = ""
        """An object that nobody may read."""


class Answer(http.server.BaseHTTPRequestHandler):
    server: Store

    def do_HEAD(self) -> None:
        if self.server.denied and self.path.endswith(self.server.denied):
            self.send_error(403)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.send_header("ETag", '"tag"')
        self.end_headers()

    def do_GET(self) -> None:
        self.server.asked += 1
        self.do_HEAD()
        if self.server.denied and self.path.endswith(self.server.denied):
            return
        try:
            if self.server.asked <= self.server.cut:
                self.wfile.write(TEXT[: len(TEXT) // 2])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            for byte in TEXT:
                self.wfile.write(bytes([byte]))
                time.sleep(self.server.pause)
        except OSError:
            pass

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def store(monkeypatch) -> Iterator[Store]:
    with Store() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(buckets, "_FIRST_WAIT", 0.001)
        buckets.client.cache_clear()
        yield server
        buckets.client.cache_clear()
        server.shutdown()


@pytest.mark.parametrize("size_bytes", [None, 1024, len(TEXT)])
def test_a_text_whose_connection_was_cut_is_fetched_again_until_it_is_whole(store, size_bytes):
    store.cut = 3
    assert buckets.head(URI, size_bytes) == TEXT
    assert store.asked == 4


def test_half_a_text_is_never_the_text(store):
    store.cut = 10**6
    with pytest.raises(ConnectionError, match=URI):
        buckets.head(URI, 1024)


def test_the_first_bytes_are_no_half_of_a_text(store):
    assert buckets.head(URI, 5) == TEXT[:5]
    assert store.asked == 1


def test_half_a_video_is_never_the_video(store, tmp_path):
    store.cut = 1
    buckets.download(URI, tmp_path / "video")
    assert (tmp_path / "video").read_bytes() == TEXT


@pytest.mark.parametrize("size_bytes", [None, 1024])
def test_an_object_that_comes_byte_by_byte_costs_itself_and_not_the_night(store, tmp_path, monkeypatch, size_bytes):
    monkeypatch.setattr(buckets, "_PATIENCE_SECONDS", 0.3)
    store.pause = 0.1
    began = time.monotonic()
    with pytest.raises(ConnectionError, match=f"{URI} did not come within 0 s"):
        buckets.head(URI, size_bytes)
    with pytest.raises(ConnectionError, match="did not come"):
        buckets.download(URI, tmp_path / "video")
    assert time.monotonic() - began < len(TEXT) * store.pause, "it waited for all of it"


def test_an_object_that_may_not_be_read_or_never_comes_whole_costs_itself(store, tmp_path):
    store.denied = "secret.txt"
    secret = "s3://raw/secret.txt"
    for get in (buckets.head, lambda uri: buckets.download(uri, tmp_path / "video")):
        with pytest.raises(buckets.Unavailable) as denied:
            get(secret)
        assert denied.value.reason == "not_permitted"
    assert buckets.look_up([URI, secret]) == [buckets.Object(URI, len(TEXT), '"tag"'), "not_permitted"]
    store.cut = 10**6
    with pytest.raises(buckets.Unavailable) as broken:
        buckets.head(URI)
    assert broken.value.reason == "object_broken"
