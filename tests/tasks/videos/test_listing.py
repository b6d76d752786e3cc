"""A listing made in a stream, beside one that is held whole (`listing_reference.py`)."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.videos import sidecars, sources
from tasks.videos.sources import Item
from tests.tasks.videos import listing_reference

STEMS = (
    *(
        "a",
        "A",
        "a b",
        "a'b",
        'a"b',
        "a\\b",
        "a\nb",
        "a\tb",
        "a.b",
        "a-1",
        "a,b",
        "a%20b",
        "NULL",
        "b",
        "c",
        "\u65e5\u672c",
    ),
    *("\u00e9", "e\u0301", "\ufb01", "\U0001f3ac", "\x01", "\uff0e", "~", "\u212b", "A\u030a"),
)
SUFFIXES = (".mp4", ".mkv", ".tar.gz", "", ".", ".txt", ".txt", ".TXT", ".mp4.txt")
FOLDERS = ("", "", "sub/", "sub/\u00e9 it's/", ".hidden/", "x.mp4/")


def drawn(seed: int) -> set[str]:
    """Return some names of files; no two texts of one name, of which the reference forgets one."""
    draw = random.Random(seed)
    names = {draw.choice(FOLDERS) + draw.choice(STEMS) + draw.choice(SUFFIXES) for _ in range(40)}
    texts: dict[str, str] = {}
    for name in sorted(names):
        if sidecars.is_text(name) and texts.setdefault(sidecars.stem(name), name) != name:
            names.remove(name)
    return names


@pytest.mark.parametrize("seed", range(8))
def test_a_folder_of_awkward_names_has_the_same_items_in_the_same_order(tmp_path: Path, seed: int):
    root = tmp_path / "raw"
    for number, name in enumerate(sorted(drawn(seed))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(number))
    for name in (b"\xff.mp4", b"\xff.txt", b"\xed\xb0\x80.mp4", b"alone\xfe.txt"):  # no UTF-8
        Path(os.fsdecode(bytes(root) + b"/" + name)).write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path)
    (root / "loop.txt").symlink_to("loop.txt")
    wanted = listing_reference.listing(root)
    sha256 = sources.write_listing(str(root), tmp_path / "listing.parquet")
    assert list(sources.read_listing(tmp_path / "listing.parquet")) == wanted
    assert sha256 == sources.listing_hash(wanted)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [], "something is left behind"


def test_a_bucket_of_awkward_names_has_the_same_items_in_the_same_order(bucket, tmp_path):
    names = sorted(name for name in drawn(0) | drawn(1) if "\x01" not in name)[:50]
    for number, name in enumerate(names):
        bucket.put_object(Key=f"in/{name}", Body=bytes(number))
    tags = {found.key: found.e_tag for found in bucket.objects.all()}
    found = [
        Item(f"s3://{bucket.name}/in/{name}", number, tags[f"in/{name}"], None, None)
        for number, name in enumerate(names)
        if not any(part.startswith(".") for part in name.split("/"))
    ]
    wanted = sorted(listing_reference.paired(found), key=lambda item: item.uri)
    assert sources.listing(f"s3://{bucket.name}/in") == wanted


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["a", ".", "/", "b.mp4", "\u00e9", "e\u0301", " ", "..", "/.x"]), min_size=1, max_size=6)
)
def test_the_name_without_its_ending_is_what_pathlib_says(parts):
    uri = "".join(parts)
    assert sidecars.stem(uri) == uri.removesuffix(Path(uri).suffix)


def test_of_two_texts_of_one_name_the_other_has_a_row(tmp_path):
    for name in ("a.mp4", "a.TXT", "a.txt", "a.Txt"):
        (tmp_path / name).write_text("x")
    assert [(item.uri, item.sidecar, item.problem) for item in sources.listing(str(tmp_path))] == [
        ("a.TXT", None, "text_without_video"),
        ("a.Txt", None, "text_without_video"),
        ("a.mp4", "a.txt", None),
    ]


def test_more_items_than_are_held_at_a_time_are_in_order(tmp_path):
    (tmp_path / "list.csv").write_text("\n".join(["uri", *(f"{number}.mp4" for number in range(5000, 0, -1))]))
    items = sources.listing(str(tmp_path / "list.csv"))
    assert [item.uri for item in items] == sorted(f"{number}.mp4" for number in range(1, 5001))
    assert {item.problem for item in items} == {"not_found"}


def test_where_a_list_is_wrong_nothing_is_left_behind(tmp_path):
    (tmp_path / "list.csv").write_text("uri\na.mp4\na.mp4\n")
    with pytest.raises(ValueError, match=r"rows 1 and 2: a\.mp4 is there twice"):
        sources.write_listing(str(tmp_path / "list.csv"), tmp_path / "listing.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


def test_the_first_wrong_row_of_a_list_is_named(tmp_path):
    (tmp_path / "list.jsonl").write_text('{"uri": "b"}\n{"uri": "a"}\n{"uri": "a"}\n{"uri": "b"}\n{"uri": 3}')
    with pytest.raises(ValueError, match=r"rows 2 and 3: a is there twice"):
        sources.listing(str(tmp_path / "list.jsonl"))
