import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import source_lists, sources

ROWS = [
    {"uri": "a.mp4", "caption": "a red car, fast", "licence": "CC0", "source_url": "https://example.org/a"},
    {"uri": "sub/b.mp4", "caption": None, "licence": None, "source_url": None},
]


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
        ("list.csv", b"file,caption\na.mp4,x\n", r"list\.csv, row 1: no uri, only \['caption', 'file'\]"),
        ("list.csv", b"uri,caption\na.mp4,x\nb.mp4\n", r"list\.csv, row 2: 2 columns expected"),
        ("list.csv", b"uri\na.mp4\nb.mp4\na.mp4\n", r"rows 1 and 3: a\.mp4 is there twice"),
        ("list.jsonl", b'{"uri": "a.mp4"}\n{"uri": ', r"list\.jsonl, row 2 is no JSON"),
        ("list.jsonl", b"[1]", r"row 1 is no JSON object"),
        ("list.jsonl", b'{"uri": "a.mp4", "caption": 3}', r"row 1: caption is 3, which is no text"),
        ("list.jsonl", b"\xff\xfe", r"list\.jsonl cannot be read as jsonl"),
        ("list.parquet", b"PAR1 or not", r"list\.parquet cannot be read as parquet"),
    ],
)
def test_a_wrong_list_is_named_with_its_row(name, content, said):
    with pytest.raises(ValueError, match=said):
        source_lists.read(content, name)


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
    assert sources.local_file(source, "a.mp4", None, tmp_path / "cache") == folder / "a.mp4"


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
    assert sources.local_file(source, uris[0], None, tmp_path).read_bytes() == b"aa"


def test_a_list_in_a_bucket_that_names_local_files_is_refused(bucket):
    bucket.put_object(Key="list.jsonl", Body=b'{"uri": "/etc/hostname"}')
    with pytest.raises(ValueError, match=r"/etc/hostname: a list in a bucket names objects"):
        sources.listing(f"s3://{bucket.name}/list.jsonl")
