"""Where a clip comes from and went: over the tables of a small workspace, and the records of runs."""

import hashlib
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from flows.params import load_params
from flows.running import stage_names
from stiv_model.latents import data_plan, training_set
from stiv_model.latents.order import Order
from stiv_model.latents.shard_files import write
from stiv_model.settings import Encoders, Run
from stiv_model.training.run_files import LEDGER
from tasks.chat.answers import Answer
from tasks.chat.store import Answers
from tasks.lineage import lineage, takedown
from tasks.lineage.lineage import Workspace
from tasks.storage import tables

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
VIDEOS = [f"{index}" * 64 for index in range(3)]


def shot(video: int, part: int) -> str:
    return tables.clip_id(VIDEOS[video], 100 * part, 100 * part + 100)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """Three videos of four shots each; the last shot of each is rejected, all others are clips with latents."""
    found = Workspace.below(tmp_path, stage_names.with_table(), stage_names.pages())
    raw = tmp_path / "raw"
    raw.mkdir()
    videos = [{"uri": f"{index}.mp4", "video": video, "status": "ok"} for index, video in enumerate(VIDEOS)]
    videos[0] |= {"licence": "CC0", "source_url": "https://example.org/0"}
    videos.append({"uri": "again.mp4", "video": VIDEOS[0], "status": "rejected", "reason": "duplicate"})
    for row in videos:
        (raw / str(row["uri"])).write_bytes(str(row["video"]).encode())
    (raw / "0.txt").write_text("a caption")
    shots: list[dict[str, Any]] = [
        {"clip": shot(video, part), "video": VIDEOS[video], "uri": f"{video}.mp4", "status": "ok", "motion": 1.0}
        for video in range(3)
        for part in range(4)
    ]
    rejected = {"status": "rejected", "reason": "motion_below_min"}
    clips = [row | (rejected if place % 4 == 3 else {}) for place, row in enumerate(shots)]
    kept = [row for row in clips if row["status"] == "ok"]
    captions = [{"clip": row["clip"], "status": "ok", "captioner": "sidecar", "text": "a caption"} for row in kept]
    latents = [
        {"clip": row["clip"], "video": row["video"], "uri": row["uri"], "status": "ok", "aesthetic": 5.0}
        | {"shard": "shard-00000.safetensors", "row": place, "licence": "CC0" if row["video"] == VIDEOS[0] else None}
        for place, row in enumerate(kept)
    ]
    for stage, rows, schema in (
        ("videos", videos, tables.VIDEOS),
        ("shots", shots, tables.SHOTS),
        ("scores", shots, tables.SCORES),
        ("clips", clips, tables.CLIPS),
        ("captions", captions, tables.CAPTIONS),
        ("latents", latents, tables.LATENTS),
    ):
        found.table(stage).parent.mkdir(parents=True)
        tables.write_rows(found.table(stage), rows, schema)
    tensors = {"latents": torch.zeros(len(kept), 4, 8, 8, 8), "tokens": torch.zeros(len(kept), 3, 384)}
    write(found.data / "latents" / "shard-00000.safetensors", tensors, {})
    return found


def train(space: Workspace, name: str, steps: int, batch: int, parent: str | None = None, skipped: int = 0) -> Path:
    """Write what a run of `steps` steps leaves behind; the `skipped` after the first were passed over."""
    recipe = PARAMS.train["stiv"].model_copy(update={"frames": 4, "batch": batch, "steps": steps, "best_fraction": 1.0})
    nothing = dict.fromkeys(("parent", "parent_sha256", "temporal_parent", "temporal_parent_sha256"))
    run = Run(
        recipe_name=name,
        latents=str(space.data / "latents"),
        latents_sha256="",
        encoders=Encoders(vae_sha256="v", text_sha256="t"),
        **nothing | ({"parent": str(space.checkpoints / parent), "parent_sha256": "p"} if parent else {}),
        model=PARAMS.model,
        recipe=recipe,
        training=PARAMS.training,
    )
    folder = space.checkpoints / name
    folder.mkdir(parents=True)
    planned = data_plan.make(Path(run.latents), name, run.model, recipe, run.training)
    training_set.write(run, planned, folder)
    (folder / "run.json").write_text(run.model_dump_json())
    lines = ["step\tfirst_position\tlast_position\tclips_sha256"]
    for step in range(1, steps + 1):
        is_tried = not 1 < step <= 1 + skipped
        seen = f"{(step - 1) * batch}\t{step * batch - 1}\tx" if is_tried else "\t\tpassed over"
        lines.append(f"{step}\t{seen}")
    (folder / LEDGER).write_text("\n".join(lines) + "\n")
    return folder


def positions(steps: int, batch: int) -> list[str]:
    """Return which clip stood at every position, worked out one by one."""
    names = sorted(shot(video, part) for video in range(3) for part in range(3))
    order = Order(len(names), PARAMS.training.seed)
    return [names[order[position]] for position in range(steps * batch)]


@pytest.mark.parametrize(("steps", "batch", "skipped"), [(1, 4, 0), (7, 4, 0), (9, 4, 0), (11, 6, 2), (5, 8, 1)])
def test_every_clip_was_seen_as_often_as_its_positions_say(space: Workspace, steps: int, batch: int, skipped: int):
    folder = train(space, "t2v", steps, batch, skipped=skipped)
    clips = positions(steps, batch)
    of_step = {step: clips[(step - 1) * batch : step * batch] for step in range(1, steps + 1)}
    for step in range(2, 2 + skipped):
        del of_step[step]
    tried = [clip for clips in of_step.values() for clip in clips]
    assert dict(
        zip(*lineage.trained_on(folder).select(["clip", "times"]).to_pydict().values(), strict=True)
    ) == Counter(tried)
    for clip in (shot(0, 0), shot(2, 1)):
        [(_, seen)] = lineage.seen_by(space, clip)
        first = next((step for step, clips in of_step.items() if clip in clips), None)
        assert seen == (tried.count(clip), first)


def test_the_history_of_a_clip_has_a_row_of_every_stage_and_every_run_that_saw_it(space: Workspace):
    train(space, "t2i", 3, 4)
    found = lineage.history(space, shot(0, 1))
    assert found["videos"]["source_url"] == "https://example.org/0"
    assert [found[stage]["status"] for stage in ("shots", "scores", "clips", "captions", "latents")] == ["ok"] * 5
    assert found["checkpoints"]["t2i"]["times"] == positions(3, 4).count(shot(0, 1))


def test_the_history_of_a_rejected_shot_ends_where_it_was_rejected(space: Workspace):
    train(space, "t2i", 3, 4)
    found = lineage.history(space, shot(1, 3))
    assert found["clips"]["reason"] == "motion_below_min"
    assert (found["captions"], found["latents"], found["checkpoints"]) == (None, None, {})


@pytest.mark.parametrize("name", [VIDEOS[1], VIDEOS[1][:8], "1.mp4"])
def test_a_video_means_all_its_shots(space: Workspace, name: str):
    assert lineage.find(space, name) == [shot(1, part) for part in range(4)]


def test_a_name_that_is_nowhere_is_refused(space: Workspace):
    with pytest.raises(ValueError, match=rf"^holiday\.mp4 .*{space.data}\b"):
        lineage.find(space, "holiday.mp4")


def test_samples_are_not_written_for_latents_that_have_changed(space: Workspace):
    folder = train(space, "t2i", 3, 4)
    run = Run.model_validate_json((folder / "run.json").read_text())
    planned = data_plan.make(Path(run.latents), "t2i", run.model, run.recipe, run.training)
    other = planned.model_copy(update={"samples_sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"\bt2i\b"):
        training_set.write(run, other, folder)


def test_a_checkpoint_answers_for_its_parents_too(space: Workspace):
    train(space, "t2i", 3, 4)
    train(space, "t2v", 2, 4, parent="t2i")
    child = train(space, "stiv", 1, 4, parent="t2v")
    assert [folder.name for folder in lineage.ancestry(child)] == ["t2i", "t2v", "stiv"]


def test_the_videos_of_runs_are_counted_once_by_licence(space: Workspace):
    runs = [lineage.trained_on(train(space, name, 9, 4)) for name in ("t2i", "t2v")]
    assert lineage.licences(runs) == {"CC0": 1, "not stated": 2}
    assert lineage.licences([]) == {}
    lost = runs[0].set_column(3, "licence", pa.array([None] * len(runs[0]), pa.string()))
    assert lineage.licences([*runs, lost]) == {"not stated": 3}
    told = runs[0].set_column(
        4, "source_url", pa.array(["https://me:secret@Example.org/0"] * len(runs[0]), pa.string())
    )
    assert lineage.hosts(runs) == {"not stated": 3}
    assert set(lineage.hosts([told])) == {"example.org"}


def without(space: Workspace, checkpoint: Path, video: str) -> None:
    """Make as if the run had never had a clip of this video."""
    table = pq.read_table(checkpoint / training_set.SAMPLES)
    pq.write_table(table.set_column(1, "video", pa.array(["x" * 64] * len(table))), checkpoint / training_set.SAMPLES)


def test_a_takedown_names_what_has_the_video_and_spares_checkpoints_that_never_saw_it(space: Workspace, tmp_path: Path):
    for name, parent in (("clean", None), ("t2i", None), ("t2v", "t2i")):
        train(space, name, 9, 4, parent=parent)
    without(space, space.checkpoints / "clean", VIDEOS[0])
    without(space, space.checkpoints / "t2v", VIDEOS[0])  # its parent saw it all the same
    found = takedown.trace(space, str(tmp_path / "raw"), tmp_path / "cache", "again.mp4")
    assert (found.video, found.raw, found.texts) == (VIDEOS[0], ["0.mp4", "again.mp4"], ["0.txt"])
    assert (found.shots, found.clips) == (4, 3)
    assert [folder.name for folder in found.untouched] == ["clean"]
    assert {folder.name for folder in found.checkpoints} == {"t2i", "t2v"}


def test_after_a_takedown_nothing_of_the_video_is_left(space: Workspace, tmp_path: Path):
    for name in ("clean", "t2i"):
        train(space, name, 9, 4)
    without(space, space.checkpoints / "clean", VIDEOS[0])
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / VIDEOS[0]).write_bytes(VIDEOS[0].encode())
    found = takedown.trace(space, str(tmp_path / "raw"), tmp_path / "cache", VIDEOS[0])
    for _ in range(2):  # twice does no harm
        takedown.carry_out(found, str(tmp_path / "raw"), tmp_path / "earlier")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path).parts[:2] for path in left} == {
        ("raw", "1.mp4"),
        ("raw", "2.mp4"),
        ("checkpoints", "clean"),
    }


def test_no_link_to_a_part_with_the_video_is_left(space: Workspace, tmp_path: Path):
    """Parts of stills and latents are linked into what is kept for reuse, and into the output of a killed run."""
    outputs = {"latents/part-00001.safetensors": b"latents", "shots/stills/part-00001.parquet": b"stills"}
    places = ("data/{}", "data/{}.partial/product", "cache/earlier/{}/key", "cache/earlier/{}/key.tmp")
    for name, content in outputs.items():
        stage, _, file = name.partition("/")
        files = [tmp_path / place.format(stage) / file for place in places]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
        files[0].write_bytes(content)
        for path in files[1:]:
            path.hardlink_to(files[0])
    shutil.rmtree(space.data / "latents")  # killed while it was made again
    found = takedown.trace(space, str(tmp_path / "raw"), tmp_path / "cache", VIDEOS[0])
    takedown.carry_out(found, str(tmp_path / "raw"), tmp_path / "cache/earlier")
    assert [path for path in tmp_path.rglob("*") if path.name.startswith("part-")] == []


def test_what_models_have_said_of_its_clips_is_forgotten(space: Workspace, tmp_path: Path):
    file, said = tmp_path / "answers.sqlite", "a dog that nobody shall read of"
    items = [f"{tables.clip_id(video, 0, 5)} 0123" for video in VIDEOS[:2]]
    with Answers(file) as answers:
        for item in items:
            answers.put("asked", item, Answer(f"{said} {item}", "stop", False, False, None, None))
    found = takedown.trace(space, str(tmp_path / "raw"), tmp_path / "cache", VIDEOS[0])
    takedown.carry_out(found, str(tmp_path / "raw"), tmp_path / "earlier", file)
    with Answers(file) as answers:
        assert list(answers.find("asked", items)) == items[1:]
    assert not [path for path in tmp_path.glob("answers*") if f"{said} {items[0]}".encode() in path.read_bytes()]


def as_read(space: Workspace) -> str:
    """Give the rows of the first video the sha256 and the size that its file has, and return the sha256."""
    sha256 = hashlib.sha256(VIDEOS[0].encode()).hexdigest()
    rows = tables.read_rows(space.table("videos"), tables.VIDEOS)
    known = [row | {"size_bytes": 64, "video": sha256} if row["video"] == VIDEOS[0] else row for row in rows]
    tables.write_rows(space.table("videos"), known, tables.VIDEOS)
    return sha256


def test_a_takedown_finds_the_copies_that_no_table_knows(space: Workspace, tmp_path: Path):
    """By a name that is not UTF-8, an extension that is none of a video's, a hidden one, and one that came later."""
    video, content = as_read(space), VIDEOS[0].encode()
    copies = [b"bad\xff.mp4", b"new\nline.mp4", b"film.dat", b".hidden.mp4"]
    for name in copies:
        (tmp_path / "raw" / os.fsdecode(name)).write_bytes(content)
    (tmp_path / "raw" / os.fsdecode(b"bad\xff.txt")).write_text("its caption")
    (tmp_path / "raw/other.dat").write_bytes(b"x" * 64)
    (tmp_path / "raw/link.mp4").symlink_to("/dev/null")
    found = takedown.trace(space, str(tmp_path / "raw"), tmp_path / "cache", video)
    assert {os.fsencode(uri) for uri in found.raw} == {b"0.mp4", b"again.mp4", *copies}
    assert {os.fsencode(uri) for uri in found.texts} == {b"0.txt", b"bad\xff.txt"}
    takedown.carry_out(found, str(tmp_path / "raw"), tmp_path / "earlier")
    left = sorted(path.name for path in (tmp_path / "raw").iterdir())
    assert left == ["1.mp4", "2.mp4", "link.mp4", "other.dat"]


def test_a_copy_that_a_list_names_and_no_table_knows_is_found(space: Workspace, tmp_path: Path):
    video = as_read(space)
    (tmp_path / "raw/film.dat").write_bytes(VIDEOS[0].encode())
    (tmp_path / "raw/other.dat").write_bytes(b"x" * 64)
    (tmp_path / "raw/list.csv").write_text("uri\n0.mp4\nfilm.dat\nother.dat\n")
    found = takedown.trace(space, str(tmp_path / "raw/list.csv"), tmp_path / "cache", video)
    assert found.raw == ["0.mp4", "film.dat"]


@pytest.mark.parametrize("name", ["new\nline.mp4", "bad\udcff.mp4", "bell\x07.mp4"])
def test_an_odd_name_is_shown_on_one_line_of_plain_text(name: str):
    told = takedown.shown(name)
    assert told.isprintable()
    assert told == repr(name)
    assert takedown.shown("naïve 視頻.mp4") == "naïve 視頻.mp4"


def test_a_takedown_that_means_two_videos_is_refused(space: Workspace, tmp_path: Path):
    rows = tables.read_rows(space.table("videos"), tables.VIDEOS)
    rows[1]["uri"] = "0.mp4"
    tables.write_rows(space.table("videos"), rows, tables.VIDEOS)
    with pytest.raises(ValueError, match=r"^0\.mp4 .*\b2 videos"):
        takedown.trace(space, str(tmp_path / "raw"), tmp_path / "cache", "0.mp4")
