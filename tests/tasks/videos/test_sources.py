import hashlib
import os
from pathlib import Path

import pytest

from tasks.storage.object_cache import ObjectCache
from tasks.videos import buckets, sources


def put(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def found(source: str, uri: str, sha256: str | None, cache: Path) -> Path:
    """Return where a file of a source is on this machine."""
    with sources.lend(source, uri, sha256, ObjectCache(cache)) as path:
        return path


def test_a_folder_is_listed_sorted_at_any_depth_with_its_sidecars(tmp_path):
    put(tmp_path, b_dot_mp4=b"bb", sub__a_dot_mp4=b"a", b_dot_txt=b"words", _dot_hidden=b"x", sub__notes_dot_pdf=b"p")
    items = sources.listing(str(tmp_path))
    assert [(item.uri, item.size_bytes, item.sidecar) for item in items] == [
        ("b.mp4", 2, "b.txt"),
        ("sub/a.mp4", 1, None),
        ("sub/notes.pdf", 1, None),
    ]


def test_a_listing_as_a_table_has_the_same_items_in_the_same_order(tmp_path):
    raw = put(tmp_path / "raw", b_dot_mp4=b"bb", sub__a_dot_mp4=b"a", b_dot_txt=b"words", alone_dot_txt=b"words")
    sha256 = sources.write_listing(str(raw), tmp_path / "listing.parquet")
    items = sources.listing(str(raw))
    assert list(sources.read_listing(tmp_path / "listing.parquet")) == items and len(items) == 3
    assert sha256 == sources.listing_hash(items) != sources.listing_hash(items[1:])
    put(raw, c_dot_mp4=b"c")
    assert sources.write_listing(str(raw), tmp_path / "listing.parquet") != sha256


def test_a_missing_folder_is_named_with_its_place_and_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"source is .*nowhere.*params\.yaml: source.*s3://"):
        sources.listing(str(tmp_path / "nowhere"))


def test_an_empty_folder_is_named_with_its_place_and_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"holds no file \(params\.yaml: source\); put videos there"):
        sources.listing(str(tmp_path))


def test_links_out_of_the_source_are_marked_and_links_inside_are_followed(tmp_path):
    put(tmp_path / "elsewhere", secret_dot_mp4=b"s")
    raw = put(tmp_path / "raw", a_dot_mp4=b"a")
    (raw / "out.mp4").symlink_to(tmp_path / "elsewhere" / "secret.mp4")
    (raw / "folder").symlink_to(tmp_path / "elsewhere")
    (raw / "again.mp4").symlink_to(raw / "a.mp4")
    (raw / "gone.mp4").symlink_to(raw / "nothing.mp4")
    assert {item.uri: item.problem for item in sources.listing(str(raw))} == {
        "a.mp4": None,
        "again.mp4": None,
        "folder": "outside_source",
        "gone.mp4": "not_found",
        "out.mp4": "outside_source",
    }
    with pytest.raises(ValueError, match="outside the source"):
        found(str(raw), "out.mp4", None, tmp_path / "cache")


@pytest.mark.parametrize(
    ("text", "caption", "reason"),
    [
        (b"a \n red\tcar\x00 \r\n", "a red car", None),
        ("\ufeffe\u0301t\u00e9".encode(), "\u00e9t\u00e9", None),
        ("a \u202ered\u202c car\u2066\u2069".encode(), "a red car", None),  # shown as "der"
        ("a family \U0001f468\u200d\U0001f469".encode(), "a family \U0001f468\u200d\U0001f469", None),
        (b" \n\t", None, None),
        (b"x" * 30, "x" * 30, None),
        (b"x" * 31, None, "caption_too_long"),
        (b"x" * 1000, None, "caption_too_long"),
        (b"\xff\xfe\x00", None, "caption_not_text"),
    ],
)
def test_sidecar_text_is_normalised_and_never_cut(tmp_path, text, caption, reason):
    put(tmp_path, a_dot_mp4=b"a", a_dot_txt=text)
    [item] = sources.listing(str(tmp_path))
    assert sources.caption_of(str(tmp_path), item, 30) == (caption, reason)


def test_a_changed_sidecar_changes_the_item(tmp_path):
    put(tmp_path, a_dot_mp4=b"a", a_dot_txt=b"one")
    before = sources.listing(str(tmp_path))
    os.utime(tmp_path / "a.txt", (1, 1))
    [now] = sources.listing(str(tmp_path))
    assert now.sidecar == "a.txt" and now.version != before[0].version
    assert sources.listing_hash([now]) != sources.listing_hash(before)


def test_a_link_to_itself_is_an_item_with_a_problem(tmp_path):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    assert [(item.uri, item.problem) for item in sources.listing(str(tmp_path))] == [("loop.mp4", "not_found")]


def test_a_bucket_is_listed_like_a_folder(tmp_path, bucket):
    put(tmp_path, b_dot_mp4=b"bb", sub__a_dot_mp4=b"a", b_dot_txt=b"words", _dot_hidden=b"x")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), f"in/{path.relative_to(tmp_path).as_posix()}")
    bucket.put_object(Key="in/sub/", Body=b"")
    source = f"s3://{bucket.name}/in"
    there = [(item.uri.removeprefix(f"{source}/"), item.size_bytes) for item in sources.listing(source)]
    assert there == [(item.uri, item.size_bytes) for item in sources.listing(str(tmp_path))]
    first = sources.listing(source)[0]
    assert sources.caption_of(source, first, 30) == ("words", None)


def test_an_object_is_fetched_once_under_the_hash_of_its_bytes(tmp_path, bucket):
    bucket.put_object(Key="a.mp4", Body=b"content")
    uri, sha256 = f"s3://{bucket.name}/a.mp4", hashlib.sha256(b"content").hexdigest()
    path = found(f"s3://{bucket.name}", uri, None, tmp_path)
    assert (path.name, path.read_bytes()) == (sha256, b"content")
    bucket.Object("a.mp4").delete()
    assert found(f"s3://{bucket.name}", uri, sha256, tmp_path) == path
    assert [left.name for left in tmp_path.iterdir() if not left.name.startswith(".lock")] == [sha256]


def test_objects_go_when_the_cache_is_full_but_for_those_that_are_lent_and_come_again(tmp_path, bucket):
    """One of more bytes than there may be is fetched all the same."""
    contents = {name: name.encode() * 400 for name in "abc"} | {"large": bytes(5000)}
    uris = {name: f"s3://{bucket.name}/{name}.mp4" for name in contents}
    for name, content in contents.items():
        bucket.put_object(Key=f"{name}.mp4", Body=content)
    source, cache = f"s3://{bucket.name}", ObjectCache(tmp_path, 1000)

    def there() -> set[str]:
        return {name for name, content in contents.items() if (tmp_path / hashlib.sha256(content).hexdigest()).exists()}

    for name in ("a", "b", "c", "a"):
        with sources.lend(source, uris[name], hashlib.sha256(contents[name]).hexdigest(), cache) as path:
            assert path.read_bytes() == contents[name]
    assert there() == {"a", "c"}
    with (
        sources.lend(source, uris["a"], None, cache) as lent,
        sources.lend(source, uris["large"], None, cache) as large,
    ):
        assert (lent.read_bytes(), large.read_bytes()) == (contents["a"], contents["large"])
        assert there() == {"a", "large"}
    assert there() == {"a"}


def test_an_object_that_changed_is_refused(tmp_path, bucket):
    bucket.put_object(Key="a.mp4", Body=b"other")
    with pytest.raises(ValueError, match="has changed"):
        found(f"s3://{bucket.name}", f"s3://{bucket.name}/a.mp4", "0" * 64, tmp_path)


def test_a_missing_bucket_or_object_is_named(tmp_path, bucket):
    with pytest.raises(FileNotFoundError, match="s3://no-such-bucket/x does not exist"):
        sources.listing("s3://no-such-bucket/x")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4 does not exist"):
        found(f"s3://{bucket.name}", f"s3://{bucket.name}/gone.mp4", None, tmp_path)


def test_a_store_that_does_not_answer_is_named(monkeypatch, bucket):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(buckets, "_ATTEMPTS", 2)  # with the usual number it waits for a minute
    buckets.client.cache_clear()
    with pytest.raises(ConnectionError, match="AWS_ENDPOINT_URL"):
        sources.listing("s3://somewhere/x")


def test_a_prefix_is_a_folder_and_not_the_beginning_of_others(bucket):
    for key in ("raw/a.mp4", "raw/sub/b.mp4", "raw2/c.mp4", "raw_rejected/d.mp4", "raw.mp4"):
        bucket.put_object(Key=key, Body=b"x")
    for source in (f"s3://{bucket.name}/raw", f"s3://{bucket.name}/raw/"):
        uris = [item.uri.removeprefix(f"s3://{bucket.name}/") for item in sources.listing(source)]
        assert uris == ["raw/a.mp4", "raw/sub/b.mp4"]
    assert len(sources.listing(f"s3://{bucket.name}")) == 5


def test_a_text_without_a_video_is_an_item_with_a_problem(tmp_path):
    put(tmp_path, a_dot_mp4=b"a", a_dot_txt=b"words", README_dot_txt=b"read me", b_dot_TXT=b"words")
    assert [(item.uri, item.sidecar, item.problem) for item in sources.listing(str(tmp_path))] == [
        ("README.txt", None, "text_without_video"),
        ("a.mp4", "a.txt", None),
        ("b.TXT", None, "text_without_video"),
    ]


def test_a_text_belongs_to_its_video_whether_accents_are_composed_or_not(tmp_path):
    (tmp_path / "e\u0301.mp4").write_bytes(b"a")  # as a Mac writes it
    (tmp_path / "\u00e9.txt").write_text("words")
    [item] = sources.listing(str(tmp_path))
    assert (item.sidecar, sources.caption_of(str(tmp_path), item, 30)) == ("\u00e9.txt", ("words", None))
    (tmp_path / "\u00e9.mp4").write_bytes(b"b")
    (tmp_path / "e\u0301.txt").write_text("other words")
    assert [item.sidecar for item in sources.listing(str(tmp_path))] == ["e\u0301.txt", "\u00e9.txt"]  # each its own


def test_a_sidecar_in_utf_16_is_read(tmp_path):
    put(tmp_path, a_dot_mp4=b"a", a_dot_txt="\u00e9t\u00e9".encode("utf-16"))
    [item] = sources.listing(str(tmp_path))
    assert sources.caption_of(str(tmp_path), item, 30) == ("\u00e9t\u00e9", None)


@pytest.mark.parametrize("config", ["", "[cache]\n    dir = {}\n"])
def test_links_of_dvc_into_its_own_cache_are_followed(tmp_path, config):
    """What cache.type symlink leaves in the workspace; links to elsewhere stay refused."""
    store = tmp_path / "store" if config else tmp_path / "work" / ".dvc" / "cache"
    put(store / "files" / "md5" / "ab", cdef=b"video")
    raw = put(tmp_path / "work" / "raw", a_dot_mp4=b"a")
    put(tmp_path / "work" / ".dvc", config=config.format(store).encode())
    put(tmp_path / "work" / "private", secret_dot_mp4=b"s")
    (raw / "b.mp4").symlink_to(store / "files" / "md5" / "ab" / "cdef")
    (raw / "c.mp4").symlink_to(tmp_path / "work" / "private" / "secret.mp4")
    (raw / "d.mp4").symlink_to(tmp_path / "work" / ".dvc" / "config")
    assert {item.uri: item.problem for item in sources.listing(str(raw))} == {
        "a.mp4": None,
        "b.mp4": None,
        "c.mp4": "outside_source",
        "d.mp4": "outside_source",
    }
    assert found(str(raw), "b.mp4", None, tmp_path / "cache").read_bytes() == b"video"
