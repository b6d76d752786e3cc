"""Objects that are looked up; and stores whose answers end too early or come too slowly, on a server of our own."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tasks.videos import buckets, sources

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
    assert list(buckets.look_up([secret, URI])) == ["not_permitted", buckets.Object(URI, len(TEXT), '"tag"')]
    store.cut = 10**6
    with pytest.raises(buckets.Unavailable) as broken:
        buckets.head(URI)
    assert broken.value.reason == "object_broken"


@pytest.fixture(params=[100, pytest.param(1000, marks=pytest.mark.long)])
def many(request, bucket, monkeypatch) -> list[str]:
    """The uris of five pages of objects in four folders, put there without a request for each."""
    from moto.s3.models import s3_backends

    monkeypatch.setattr(buckets, "_PAGE", request.param)
    (backend,) = (regions["aws"] for regions in s3_backends.values() if bucket.name in regions["aws"].buckets)
    keys = [f"in/{number % 4}/clip {number:05}.mp4" for number in range(5 * request.param)]
    for key in keys:
        backend.put_object(bucket.name, key, key.encode())
    return sorted(f"s3://{bucket.name}/{key}" for key in keys)


@pytest.fixture
def requests() -> list[str]:
    """What is asked of a store from now on, by the name of the operation."""
    asked: list[str] = []
    buckets.client().meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    return asked


def test_five_pages_of_objects_are_listed_by_five_requests(many, requests, bucket, tmp_path):
    sources.write_listing(f"s3://{bucket.name}/in", tmp_path / "listing.parquet")
    assert [item.uri for item in sources.read_listing(tmp_path / "listing.parquet")] == many
    assert requests == ["ListObjectsV2"] * 5


def test_a_list_of_two_pages_of_objects_is_looked_up_by_a_few_requests(many, requests, tmp_path):
    page = len(many) // 5
    wanted = many[page // 2 : page // 2 + 2 * page]
    (tmp_path / "list.csv").write_text("\n".join(["uri", *reversed(wanted)]))
    items = sources.listing(str(tmp_path / "list.csv"))
    assert [item.uri for item in items] == wanted
    assert {item.problem for item in items} == {None} and items[0].size_bytes == len("in/0/clip 02000.mp4")
    assert 2 <= len(requests) <= 4 and set(requests) == {"ListObjectsV2"}


def test_objects_with_others_between_and_missing_ones_are_found_as_one_by_one(many, requests):
    folder = many[0].rpartition("/")[0]
    wanted = sorted([*many[::3], *(f"{uri}.gone" for uri in many[::10]), f"{folder}!", f"{many[-1]}~"])
    found = list(buckets.look_up(wanted))
    there = set(many)
    assert [one if isinstance(one, str) else one.uri for one in found] == [
        uri if uri in there else "not_found" for uri in wanted
    ]
    assert len(requests) <= 8, "a page has dozens of them"


def test_objects_far_apart_are_asked_for_one_by_one(many, requests):
    wanted = many[:: len(many) // 25]  # five in a page
    assert [found.uri for found in buckets.look_up(wanted)] == wanted
    assert requests.count("HeadObject") >= len(wanted) - 6 and requests.count("ListObjectsV2") == 1
    requests.clear()
    few = wanted[:10]
    assert [found.uri for found in buckets.look_up(few)] == few
    assert requests == ["HeadObject"] * len(few)


def test_a_bucket_that_may_not_be_listed_or_is_not_there_is_asked_for_each_object(bucket, requests):
    assert set(buckets.look_up([f"s3://no-such-bucket/{number:03}" for number in range(20)])) == {"not_found"}
    assert requests.count("HeadObject") == 20
