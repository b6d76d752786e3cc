import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.storage.object_cache import ObjectCache
from tasks.videos import source_lists, sources

ROWS = [
    {"uri": "a.mp4", "caption": "a red car, fast", "licence": "CC0", "source_url": "https://example.org/a"},
    {"uri": "sub/b.mp4", "caption": None, "licence": None, "source_url": None},
]


def found(source: str, uri: str, sha256: str | None, cache: Path) -> Path:
    """Return where a file of a source is on this machine."""
    with sources.lend(source, uri, sha256, ObjectCache(cache)) as path:
        return path


def as_csv(rows: list[dict]) -> bytes:
    lines = ["uri,caption,licence,source_url,more"]
    lines += [
        ",".join(f'"{row[name] or ""}"' for name in ("uri", "caption", "licence", "source_url")) + ",x" for row in rows
    ]
    return "\n".join(lines).encode()


def as_jsonl(rows: list[dict]) -> bytes:
    return "\n".join(json.dumps(row | {"more": [1]}) for row in rows).encode()


def as_parquet(rows: list[dict]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row | {"more": 1} for row in rows]), sink)
    return sink.getvalue().to_pybytes()


FORMATS = {".csv": as_csv, ".jsonl": as_jsonl, ".parquet": as_parquet}


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_rows_are_read_from_each_format(suffix):
    assert [row._asdict() for row in source_lists.read(FORMATS[suffix](ROWS), f"list{suffix}")] == ROWS


def test_license_is_read_as_licence():
    [row] = source_lists.read(b'{"uri": "a.mp4", "license": "CC0"}', "list.jsonl")
    assert row.licence == "CC0"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("list.csv", b"file,caption\na.mp4,x\n", r"list\.csv: no column uri, only \['file', 'caption'\]"),
        ("list.csv", b"uri,licence,license\na.mp4,x,y\n", r"'licence' and 'license' are both the licence: keep one"),
        ("list.csv", b"uri,caption,caption\na.mp4,x,y\n", r"'caption' and 'caption' are both the caption: keep one"),
        ("list.csv", b"uri,caption, Caption\na.mp4,x,y\n", r"'caption' and ' Caption' are both the caption"),
        ("list.csv", b"uri\na.mp4\n./a.mp4\n", r"rows 1 and 2: a\.mp4 is there twice"),
        ("list.csv", b"uri,caption\n,x\n", r"list\.csv, row 1: uri is empty"),
        ("list.csv", b"uri,caption\na.mp4,x\nb.mp4\n", r"list\.csv, row 2: 2 columns expected"),
        ("list.csv", b"uri\na.mp4\nb.mp4\na.mp4\n", r"rows 1 and 3: a\.mp4 is there twice"),
        ("list.jsonl", b'{"uri": "a.mp4"}\n{"uri": ', r"list\.jsonl, row 2 is no JSON"),
        ("list.jsonl", b'{"file": "a.mp4"}', r"row 1: no column uri, only \['file'\]"),
        ("list.jsonl", b'{"uri": "a.mp4", "uri": "b.mp4"}', r"row 1 is no JSON: uri is there twice"),
        ("list.jsonl", b"[" * 100_000, r"row 1 is no JSON: maximum recursion"),
        ("list.jsonl", b'{"uri": "a.mp4", "licence": "\\ud83c"}', r"row 1: licence is .*, which is no text"),
        ("list.jsonl", b"[1]", r"row 1 is no JSON object"),
        ("list.jsonl", b'{"uri": "a.mp4", "caption": 3}', r"row 1: caption is 3, which is no text"),
        ("list.jsonl", b"\xff\xfe", r"list\.jsonl cannot be read as jsonl"),
        ("list.parquet", b"PAR1 or not", r"list\.parquet cannot be read as parquet"),
    ],
)
def test_a_wrong_list_is_named_with_its_row(name, content, said):
    with pytest.raises(ValueError, match=said):
        source_lists.read(content, name)


def test_a_parquet_with_two_columns_of_one_name_or_without_uri_is_named_in_one_line():
    for names, said in {
        ("uri", "uri"): "list.parquet: columns 'uri' and 'uri' are both the uri: keep one",
        ("path", "path"): "list.parquet: no column uri, only ['path', 'path']: every list needs one",
    }.items():
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table([["a.mp4"], ["b.mp4"]], names=list(names)), sink)
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            source_lists.read(sink.getvalue().to_pybytes(), "list.parquet")


def test_a_column_that_is_ignored_may_be_there_twice():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([["a.mp4"], [1], [2]], names=["uri", "x", "x"]), sink)
    assert [row.uri for row in source_lists.read(sink.getvalue().to_pybytes(), "list.parquet")] == ["a.mp4"]
    assert [row.uri for row in source_lists.read(b"uri,x,x\na.mp4,1,2\n", "list.csv")] == ["a.mp4"]


def test_names_of_columns_may_have_capitals_and_spaces_around():
    [row] = source_lists.read(b"URI, Caption,License \na.mp4,x,CC0\n", "list.csv")
    assert row == ("a.mp4", "x", "CC0", None)


def test_only_a_line_feed_ends_a_row_of_json_lines():
    rows = source_lists.read('{"uri": "a", "caption": "x\u2028y\x85z"}\r\n\n{"uri": "b"}'.encode(), "list.jsonl")
    assert [(row.uri, row.caption) for row in rows] == [("a", "x\u2028y\x85z"), ("b", None)]


def test_one_file_has_one_spelling_and_a_step_up_stays():
    uris = ["./a.mp4", "sub//b.mp4", "../c.mp4", "sub/../d.mp4", "s3://bucket/./e.mp4"]
    rows = source_lists.read("\n".join(["uri", *uris]).encode(), "list.csv")
    assert [row.uri for row in rows] == ["a.mp4", "sub/b.mp4", "../c.mp4", "sub/../d.mp4", "s3://bucket/./e.mp4"]


@pytest.mark.parametrize(("name", "content"), [("a.csv", b""), ("a.csv", b"uri,caption\n"), ("a.jsonl", b"\n")])
def test_a_list_without_a_row_is_refused(tmp_path: Path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"a list without a row \(params\.yaml: source\): it needs one for each video"):
        sources.listing(str(tmp_path / name))


def test_names_that_no_file_can_have_become_items_with_their_problem(tmp_path: Path, bucket):
    (tmp_path / "a.mp4").write_bytes(b"aa")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    far = f"s3://{bucket.name}/"
    wanted = {
        "a.mp4": None,
        "nul\0.mp4": "name_not_text",
        "half\ud83c.mp4": "name_not_text",
        f"{far}half\ud83c": "name_not_text",
        "x" * 5000: "not_found",
        "a.mp4/b.mp4": "not_found",
        "loop.mp4": "not_found",
        "folder.mp4": "not_a_file",
        "https://example.org/a.mp4": "web_address",
        f"{far}{'x' * 5000}": "not_found",
        far: "not_found",
        "s3://": "not_found",
    }
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"uri": uri}) for uri in wanted))
    items = sources.listing(str(tmp_path / "list.jsonl"))
    assert {item.listed.uri: item.problem for item in items} == wanted
    sha256 = sources.write_listing(str(tmp_path / "list.jsonl"), tmp_path / "listing.parquet")
    assert list(sources.read_listing(tmp_path / "listing.parquet")) == items
    assert sha256 == sources.listing_hash(items)
    written = {item.uri for item in items}
    assert {"nul\\x00.mp4", "half\\ud83c.mp4"} < written
    assert all("\0" not in uri and uri.encode() for uri in written)


def test_a_caption_of_half_a_character_is_refused_by_its_row(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"aa")
    (tmp_path / "list.jsonl").write_text('{"uri": "a.mp4", "caption": "\\ud83c"}')
    [item] = sources.listing(str(tmp_path / "list.jsonl"))
    sources.write_listing(str(tmp_path / "list.jsonl"), tmp_path / "listing.parquet")
    assert [item] == list(sources.read_listing(tmp_path / "listing.parquet"))
    assert sources.caption_of(str(tmp_path / "list.jsonl"), item, 100) == (None, "caption_not_text")


def test_every_row_of_a_list_gets_an_item_with_its_texts_or_its_problem(tmp_path: Path):
    (tmp_path / "secret.mp4").write_bytes(b"s")
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"aa")
    (folder / "unlisted.mp4").write_bytes(b"u")
    uris = ["a.mp4", "gone.mp4", "../secret.mp4", str(tmp_path / "secret.mp4")]
    (folder / "list.jsonl").write_bytes(as_jsonl([ROWS[0] | {"uri": uri} for uri in uris]))
    source = str(folder / "list.jsonl")
    items = {item.uri: item for item in sources.listing(source)}
    assert {uri: item.problem for uri, item in items.items()} == {
        "a.mp4": None,
        "gone.mp4": "not_found",
        "../secret.mp4": "outside_source",
        str(tmp_path / "secret.mp4"): "outside_source",
    }
    assert sources.caption_of(source, items["a.mp4"], 100) == ("a red car, fast", None)
    assert sources.caption_of(source, items["a.mp4"], 5) == (None, "caption_too_long")
    assert found(source, "a.mp4", None, tmp_path / "cache") == folder / "a.mp4"


def test_a_list_of_objects_is_looked_up_in_the_bucket(bucket, tmp_path: Path):
    bucket.put_object(Key="in/a.mp4", Body=b"aa")
    uris = [f"s3://{bucket.name}/in/{name}.mp4" for name in ("a", "gone")]
    bucket.put_object(Key="list.csv", Body=as_csv([ROWS[0] | {"uri": uri} for uri in uris]))
    source = f"s3://{bucket.name}/list.csv"
    items = sources.listing(source)
    assert [(item.size_bytes, item.problem, item.listed.licence) for item in items if item.listed] == [
        (2, None, "CC0"),
        (0, "not_found", "CC0"),
    ]
    assert found(source, uris[0], None, tmp_path).read_bytes() == b"aa"


def test_a_list_in_a_bucket_that_names_local_files_is_refused(bucket):
    bucket.put_object(Key="list.jsonl", Body=b'{"uri": "/etc/hostname"}')
    with pytest.raises(ValueError, match=r"/etc/hostname: a list in a bucket names objects"):
        sources.listing(f"s3://{bucket.name}/list.jsonl")


CANARY = "caNary7"


@pytest.mark.parametrize(
    "uri",
    [
        f"https://b.s3.amazonaws.com/x.mp4?X-Amz-Signature={CANARY}",
        f"s3://key:{CANARY}@bucket/x.mp4",
        f"https://user:{CANARY}@host/x.mp4",
        f" s3://key:{CANARY}@bucket/x.mp4",
    ],
)
@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_password_or_signature_in_a_row_is_refused_unprinted(name, uri):
    rows = ["a.mp4", uri]
    lines = ["uri", *rows] if name.endswith("csv") else [json.dumps({"uri": one}) for one in rows]
    with pytest.raises(ValueError, match=f"{name}, row 2: uri") as refused:
        source_lists.read("\n".join(lines).encode(), name)
    assert CANARY not in str(refused.value)


def test_a_signature_in_the_address_that_a_video_came_from_is_taken_out():
    content = f"uri,source_url\na.mp4,https://host/x.mp4?v=7&X-Amz-Signature={CANARY}\n".encode()
    [row] = source_lists.read(content, "list.csv")
    assert row.source_url == "https://host/x.mp4?v=7&X-Amz-Signature=***"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_list_may_be_written_as_windows_does_and_with_spaces_around_a_path(tmp_path: Path, name: str, encoding: str):
    (tmp_path / "\u00e9t\u00e9 1.mp4").write_bytes(b"a")
    said = {"uri": " \u00e9t\u00e9 1.mp4\t", "caption": "\u00e9t\u00e9"}
    text = json.dumps(said) if name.endswith("jsonl") else "uri,caption\n" + ",".join(said.values())
    (tmp_path / name).write_bytes(text.encode(encoding))
    [item] = sources.listing(str(tmp_path / name))
    assert (item.uri, item.problem, item.size_bytes) == ("\u00e9t\u00e9 1.mp4", None, 1)
    assert sources.caption_of(str(tmp_path / name), item, 30) == ("\u00e9t\u00e9", None)


def test_a_listed_name_is_found_whether_its_accents_are_composed_or_not(tmp_path: Path):
    (tmp_path / "e\u0301.mp4").write_bytes(b"a")  # as a Mac writes it
    (tmp_path / "list.csv").write_text("uri\n\u00e9.mp4\n")
    [item] = sources.listing(str(tmp_path / "list.csv"))
    assert (item.uri, item.problem) == ("e\u0301.mp4", None)
