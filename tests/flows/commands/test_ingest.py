import io
import json
import tarfile
from pathlib import Path

import pytest

from flows.__main__ import main
from flows.commands.ingest import ingest
from flows.params import load_params


def tar(path: Path, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]
        entry = tarfile.TarInfo("0.mp4")
        entry.size = 5
        opened.addfile(entry, io.BytesIO(b"video"))
    return path


def curated(folder: Path) -> Path:
    (folder / "metas/v0").mkdir(parents=True)
    (folder / "clips").mkdir()
    (folder / "clips/u.mp4").write_bytes(b"clip")
    (folder / "metas/v0/u.json").write_text(json.dumps({"clip_location": "/there/clips/u.mp4"}))
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_tars_and_folders_become_one_source_and_the_next_ingest_replaces_it(tmp_path: Path):
    paths = [tar(tmp_path / "a.tar"), tar(tmp_path / "b.tgz", "w:gz"), curated(tmp_path / "c")]
    out = tmp_path / "out"
    main(["ingest", *map(str, paths), "--out", str(out)])
    assert files(out) == {
        "list.jsonl",
        "account.json",
        "videos/00000/00000000.mp4",
        "videos/00001/00000000.mp4",
        "videos/00002/u.mp4",
    }
    main(["ingest", str(paths[0]), "--out", str(out)])
    assert files(out) == {"list.jsonl", "account.json", "videos/00000/00000000.mp4"}


@pytest.mark.parametrize("name", ["thesis.txt", "list.jsonl"])
def test_a_folder_that_ingest_did_not_make_is_not_replaced(tmp_path: Path, name: str):
    mine = tmp_path / "mine" / name
    mine.parent.mkdir()
    mine.write_text("x")
    with pytest.raises(SystemExit, match=rf"--out {mine.parent} .*\b{name}\b"):
        main(["ingest", str(tar(tmp_path / "a.tar")), "--out", str(mine.parent)])
    assert mine.read_text() == "x"


@pytest.mark.parametrize("out", ["deep/c", "deep", "deep/c/out", "deep/c/../c", "link"])
def test_what_is_read_is_not_replaced(tmp_path: Path, out: str):
    folder = curated(tmp_path / "deep" / "c")
    (tmp_path / "link").symlink_to(folder)
    before = files(tmp_path)
    with pytest.raises(SystemExit, match=rf"--out .*{folder}\b"):
        main(["ingest", str(folder), "--out", str(tmp_path / out)])
    assert files(tmp_path) == before


def test_the_folder_of_unfinished_work_is_not_what_is_read(tmp_path: Path):
    source = tar(tmp_path / "out.partial" / "a.tar")
    with pytest.raises(SystemExit, match=rf"--out .*/out\.partial .*{source}"):
        main(["ingest", str(source), "--out", str(tmp_path / "out")])
    assert source.exists()


def test_the_empty_folder_one_stands_in_may_be_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params = load_params()
    source, here = tar(tmp_path / "a.tar"), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    ingest(source, out=Path(), videos=params.videos, sandbox=params.sandbox)
    assert files(here) == {"list.jsonl", "account.json", "videos/00000/00000000.mp4"}


def test_a_path_named_twice_is_an_error(tmp_path: Path):
    path = str(tar(tmp_path / "a.tar"))
    with pytest.raises(SystemExit, match=rf"{path} .*twice"):
        main(["ingest", path, path, "--out", str(tmp_path / "out")])
