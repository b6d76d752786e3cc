import gzip
import io
import json
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.videos import ingest, source_lists, sources


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def take_in(tars: list[Path], product: Path) -> dict[str, tuple]:
    found = list(ingest.from_tars(tars, product, [".mp4", ".webm"], 100))
    ingest.write_list(product, found, product / "account.json")
    return {one.name.removeprefix(f"{tars[0].parent}/"): (one.status, one.reason) for one in found}


def test_every_sample_of_a_webdataset_tar_is_accounted_for(tmp_path: Path):
    tar = write_tar(
        tmp_path / "a.tar",
        {
            "x/0.mp4": b"video",
            "x/0.json": json.dumps({"text": "from json", "license": "CC0", "url": "https://e.org/0"}).encode(),
            "x/0.txt": b"a red car",
            "x/1.jpg": b"picture",
            "x/2.webm": b"v" * 101,
            "x/3.left.mp4": b"left",
            "x/3.right.mp4": b"right",
            "x/4.mp4": b"video",
            "x/4.json": b"{",
            "x/5.mp4": b"video",
            "x/5.json": b'{"caption": 5}',
            "x/6.mp4": b"video",
            "x/6.json": b'{"caption": ["a", "b"], "license": {"id": "CC0"}}',
            "x/6.txt": b"a caption",
            "x/7.mp4": b"video",
            "x/7.json": b'{"caption": "half a pair \\ud800"}',
            "x/8.mp4": b"video",
            "x/8.json": b"[" * 100_000,
        },
    )
    assert take_in([tar], tmp_path / "out") == {
        "a.tar/x/0": ("ok", None),
        "a.tar/x/1": ("rejected", "no_video"),
        "a.tar/x/2": ("rejected", "too_many_bytes"),
        "a.tar/x/3": ("rejected", "several_videos"),
        "a.tar/x/4": ("failed", "text_unreadable"),
        "a.tar/x/5": ("failed", "not_text"),
        "a.tar/x/6": ("failed", "not_text"),
        "a.tar/x/7": ("failed", "not_text"),
        "a.tar/x/8": ("failed", "text_unreadable"),
    }
    [item] = sources.listing(str(tmp_path / "out" / ingest.LIST))
    assert (item.uri, item.size_bytes, item.problem) == ("videos/00000/00000000.mp4", 5, None)
    assert item.listed is not None
    assert item.listed[1:] == ("a red car", "CC0", "https://e.org/0")
    account = json.loads((tmp_path / "out" / "account.json").read_text())["samples"]
    assert (account["given"], account["ok"], account["rejected"], account["failed"]) == (9, 1, 3, 5)


def test_a_tar_that_breaks_off_gives_its_whole_samples_and_a_failed_row(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {f"{index}.mp4": b"v" * 90 for index in range(3)})
    tar.write_bytes(tar.read_bytes()[: 512 * 4 + 512 + 40])  # in the third member's bytes
    assert take_in([tar], tmp_path / "out") == {
        "a.tar/0": ("ok", None),
        "a.tar/1": ("ok", None),
        "a.tar": ("failed", "tar_broken"),
    }
    assert len(list((tmp_path / "out" / "videos" / "00000").iterdir())) == 2


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "gz"])
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(6 * 512, id="after the video of the last sample"),
        pytest.param(6 * 512 + 300, id="in the header of its text"),
        pytest.param(8 * 512, id="after the last member"),
        pytest.param(8 * 512 + 512, id="in the end marker"),
    ],
)
def test_a_tar_without_its_end_marker_is_broken_and_its_last_sample_is_not_used(
    tmp_path: Path, size: int, pack: Callable[[bytes], bytes]
):
    members = {f"{index}.{kind}": b"v" * 90 for index in range(2) for kind in ("mp4", "txt")}
    tar = write_tar(tmp_path / "a.tar", members)
    tar.write_bytes(pack(tar.read_bytes()[:size]))
    assert take_in([tar], tmp_path / "out") == {"a.tar/0": ("ok", None), "a.tar": ("failed", "tar_broken")}
    assert len(list((tmp_path / "out" / "videos" / "00000").iterdir())) == 1


def test_a_tar_is_whole_with_its_end_marker_and_no_padding(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {"0.mp4": b"video"})
    tar.write_bytes(tar.read_bytes()[: 4 * 512])
    assert take_in([tar], tmp_path / "out") == {"a.tar/0": ("ok", None)}


def test_a_tar_compressed_in_pieces_is_read_to_its_end(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {f"{index}.mp4": b"video" for index in range(3)})
    content = tar.read_bytes()
    tar.write_bytes(gzip.compress(content[:1500]) + gzip.compress(content[1500:]))
    assert set(take_in([tar], tmp_path / "out").values()) == {("ok", None)}
    assert len(list((tmp_path / "out" / "videos" / "00000").iterdir())) == 3


@pytest.mark.parametrize("size", [0, 3, 30])
def test_a_compressed_tar_that_breaks_off_at_its_beginning_is_broken(tmp_path: Path, size: int):
    broken, whole = write_tar(tmp_path / "a.tar.gz", {"0.mp4": b"v"}), write_tar(tmp_path / "b.tar", {"0.mp4": b"v"})
    broken.write_bytes(gzip.compress(broken.read_bytes())[:size])
    assert take_in([broken, whole], tmp_path / "out") == {
        "a.tar.gz": ("failed", "tar_broken"),
        "b.tar/0": ("ok", None),
    }


def test_a_tar_with_a_spoilt_header_is_broken(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {f"{index}.mp4": b"v" for index in range(4)})
    content = bytearray(tar.read_bytes())
    content[4 * 512 : 5 * 512] = b"?" * 512  # of the third member
    tar.write_bytes(content)
    assert take_in([tar], tmp_path / "out") == {"a.tar/0": ("ok", None), "a.tar": ("failed", "tar_broken")}


def test_a_member_with_an_endless_extension_costs_no_other_sample(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {"0.mp4": b"v", f"1.{'x' * 260}.mp4": b"v", "2.mp4": b"v"})
    assert set(take_in([tar], tmp_path / "out").values()) == {("ok", None)}
    assert len(list((tmp_path / "out" / "videos" / "00000").iterdir())) == 3


def test_no_space_for_a_video_is_no_fault_of_the_tar(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {"0.mp4": b"v" * 90})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            list(ingest.from_tars([tar], tmp_path / "out", [".mp4"], 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", ["../../escape.mp4", "/etc/escape.mp4", "a/../../b.mp4"])
def test_nothing_of_a_members_name_reaches_the_file_system(tmp_path: Path, name: str):
    take_in([write_tar(tmp_path / "a.tar", {name: b"video"})], tmp_path / "deep" / "out")
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"a.tar", "deep/out/videos/00000/00000000.mp4", "deep/out/list.jsonl", "deep/out/account.json"}


def test_links_in_a_tar_are_not_followed(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("0.mp4")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(entry)
    with pytest.raises(ValueError, match="no sample was found: name tars with files in them"):
        take_in([tmp_path / "a.tar"], tmp_path / "out")


def meta(**changes: object) -> bytes:
    said = {
        "span_uuid": "u",
        "source_video": "/data/film.mp4",
        "duration_span": [0.0, 5.0],
        "clip_location": "/elsewhere/out/clips/ab/abc.mp4",
        "windows": [{"start_frame": 0, "end_frame": 9, "qwen_caption": "plain", "qwen_lm_enhanced_caption": "rich"}],
        "valid": True,
    }
    return json.dumps(said | changes).encode()


def curated(folder: Path, metas: dict[str, bytes], clip: bytes = b"clip") -> Path:
    (folder / "metas/v0").mkdir(parents=True)
    (folder / "clips/ab").mkdir(parents=True)
    (folder / "clips/ab/abc.mp4").write_bytes(clip)
    for name, content in metas.items():
        (folder / f"metas/v0/{name}.json").write_bytes(content)
    return folder


def test_curated_clips_are_linked_with_their_best_caption(tmp_path: Path):
    product = tmp_path / "out"
    (tmp_path / "secret.mp4").write_bytes(b"s")
    metas = {
        "a": meta(license="CC0"),
        "b": meta(valid=False),
        "c": meta(clip_location="/elsewhere/clips/gone.mp4"),
        "d": meta(clip_location="/x/clips/../../secret.mp4"),
        "e": meta(clip_location="s3://store/clips/e.mp4", windows=[]),
        "f": b"[]",
        "g": meta(windows=[{"a_caption": {"x": 1}}]),
        "h": meta(licence="CC-BY"),
        "i": meta(license=4),
    }
    folder = curated(tmp_path / "curated", metas)
    found = {Path(one.name).name: one for one in ingest.from_curator([folder], product, 0)}
    assert {name: (one.status, one.reason) for name, one in found.items()} == {
        "a.json": ("ok", None),
        "b.json": ("rejected", "not_valid"),
        "c.json": ("failed", "not_found"),
        "d.json": ("failed", "not_found"),
        "e.json": ("ok", None),
        "f.json": ("failed", "meta_unreadable"),
        "g.json": ("failed", "not_text"),
        "h.json": ("ok", None),
        "i.json": ("failed", "not_text"),
    }
    assert found["a.json"].row == {
        "uri": "videos/00000/a.mp4",
        "caption": "rich",
        "licence": "CC0",
        "source_url": "/data/film.mp4",
    }
    assert (product / "videos/00000/a.mp4").samefile(folder / "clips/ab/abc.mp4")
    assert found["e.json"].row is not None and found["e.json"].row["uri"] == "s3://store/clips/e.mp4"
    assert found["h.json"].row is not None and found["h.json"].row["licence"] == "CC-BY"


def test_clips_of_one_name_in_two_folders_keep_their_pixels_and_captions(tmp_path: Path):
    product, bucket = tmp_path / "out", meta(clip_location="s3://store/clips/e.mp4")
    folders = [
        curated(tmp_path / text, {"u": meta(windows=[{"a_caption": text}]), "v": bucket}, clip=text.encode())
        for text in ("first", "second")
    ]
    found = list(ingest.from_curator(folders, product, 3))
    assert [one.reason for one in found] == [None, None, None, "listed_twice"]
    ingest.write_list(product, found, product / ingest.ACCOUNT)
    rows = source_lists.read((product / ingest.LIST).read_bytes(), ingest.LIST)
    assert [(row.uri, row.caption) for row in rows] == [
        ("videos/00003/u.mp4", "first"),
        ("s3://store/clips/e.mp4", "rich"),
        ("videos/00004/u.mp4", "second"),
    ]
    assert all((product / row.uri).read_text() == row.caption for row in (rows[0], rows[2]))


def test_members_of_one_name_cost_their_sample_and_members_apart_find_each_other(tmp_path: Path):
    """A tar that was appended to has two of a name; one that was sorted by kind has its texts at the end."""
    tar = tmp_path / "a.tar"
    members = [
        ("0.mp4", b"one"),
        ("0.txt", b"text of one"),
        ("1.mp4", b"apart"),
        ("0.mp4", b"two"),
        ("2.mp4", b"plain"),
        ("1.txt", b"text of apart"),
    ]
    with tarfile.open(tar, "w") as opened:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    assert take_in([tar], tmp_path / "out") == {
        "a.tar/0": ("rejected", "repeated_member"),
        "a.tar/0 (another)": ("rejected", "repeated_member"),
        "a.tar/1": ("ok", None),
        "a.tar/2": ("ok", None),
    }
    rows = [json.loads(line) for line in (tmp_path / "out" / ingest.LIST).read_text().splitlines()]
    said = {(tmp_path / "out" / row["uri"]).read_bytes(): row["caption"] for row in rows}
    assert said == {b"apart": "text of apart", b"plain": None}
    assert len(list((tmp_path / "out" / "videos" / "00000").iterdir())) == 2
