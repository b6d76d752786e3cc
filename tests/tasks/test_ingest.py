import io
import json
import tarfile
from pathlib import Path

import pytest

from tasks import ingest, sources


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def take_in(tars: list[Path], product: Path) -> dict[str, tuple]:
    found = list(ingest.from_tars(tars, product, [".mp4", ".webm"], 100))
    ingest.settle(product, found, product / "account.json")
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
        },
    )
    assert take_in([tar], tmp_path / "out") == {
        "a.tar/x/0": ("ok", None),
        "a.tar/x/1": ("rejected", "no_video"),
        "a.tar/x/2": ("rejected", "too_many_bytes"),
        "a.tar/x/3": ("rejected", "several_videos"),
        "a.tar/x/4": ("failed", "text_unreadable"),
    }
    [item] = sources.listing(str(tmp_path / "out" / ingest.LIST))
    assert (item.uri, item.size_bytes, item.problem) == ("videos/00000/00000000.mp4", 5, None)
    assert item.listed is not None
    assert item.listed[1:] == ("a red car", "CC0", "https://e.org/0")
    account = json.loads((tmp_path / "out" / "account.json").read_text())["samples"]
    assert (account["given"], account["ok"], account["rejected"], account["failed"]) == (5, 1, 3, 1)


def test_a_tar_that_breaks_off_gives_its_whole_samples_and_a_failed_row(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {f"{index}.mp4": b"v" * 90 for index in range(3)})
    tar.write_bytes(tar.read_bytes()[: 512 * 4 + 512 + 40])  # in the third member's bytes
    assert take_in([tar], tmp_path / "out") == {
        "a.tar/0": ("ok", None),
        "a.tar/1": ("ok", None),
        "a.tar": ("failed", "tar_broken"),
    }
    assert len(list((tmp_path / "out" / "videos" / "00000").iterdir())) == 2


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
    with pytest.raises(ValueError, match="none of 0 samples is usable"):
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


def test_curated_clips_are_linked_with_their_best_caption(tmp_path: Path):
    folder, product = tmp_path / "curated", tmp_path / "out"
    (folder / "metas/v0").mkdir(parents=True)
    (folder / "clips/ab").mkdir(parents=True)
    (folder / "clips/ab/abc.mp4").write_bytes(b"clip")
    (tmp_path / "secret.mp4").write_bytes(b"s")
    for name, content in {
        "a": meta(),
        "b": meta(valid=False),
        "c": meta(clip_location="/elsewhere/clips/gone.mp4"),
        "d": meta(clip_location="/x/clips/../../secret.mp4"),
        "e": meta(clip_location="s3://store/clips/e.mp4", windows=[]),
        "f": b"[]",
    }.items():
        (folder / f"metas/v0/{name}.json").write_bytes(content)
    found = {one.name: one for one in ingest.from_curator(folder, product)}
    assert {name: (one.status, one.reason) for name, one in found.items()} == {
        "a.json": ("ok", None),
        "b.json": ("rejected", "not_valid"),
        "c.json": ("failed", "not_found"),
        "d.json": ("failed", "not_found"),
        "e.json": ("ok", None),
        "f.json": ("failed", "meta_unreadable"),
    }
    assert found["a.json"].row == {
        "uri": "videos/a.mp4",
        "caption": "rich",
        "licence": None,
        "source_url": "/data/film.mp4",
    }
    assert (product / "videos/a.mp4").samefile(folder / "clips/ab/abc.mp4")
    assert found["e.json"].row is not None and found["e.json"].row["uri"] == "s3://store/clips/e.mp4"
