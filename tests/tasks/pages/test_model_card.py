"""What a model card tells of the trainings that weights went through."""

from pathlib import Path

import pytest

from stiv_model.settings import RUN_FILE, Mode
from stiv_model.weights import certificate, metadata
from tasks.pages.model_card import _cell, _given, _started, history
from tests.stiv_model.runs import describe


def trained(folder: Path, name: str, parent: Path | None = None, **changes: object) -> Path:
    """Leave what a training leaves that a card reads; a parent is named as the command named it."""
    folder = folder / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / metadata.WEIGHTS).write_text(f"weights of {name}")
    said = {} if parent is None else {"parent": f"checkpoints/{parent.name}", "parent_sha256": sha256(parent)}
    (folder / RUN_FILE).write_text(describe(recipe_name=name, **said | changes).model_dump_json())
    return folder


def sha256(folder: Path) -> str:
    return certificate.sha256(folder / metadata.WEIGHTS)


def curve(folder: Path, name: str, *rows: tuple[int, float]) -> None:
    folder.mkdir(exist_ok=True)
    lines = ["step\tloss\tseconds", *(f"{step}\t1.0\t{seconds}" for step, seconds in rows)]
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")


def test_the_trainings_are_told_from_the_first_with_the_seconds_that_are_known(tmp_path):
    t2i = trained(tmp_path, "t2i")
    t2v = trained(tmp_path, "t2v", t2i)
    stiv = trained(tmp_path, "stiv", t2v)
    curve(tmp_path / "losses", "t2i", (6, 20.0), (12, 41.5))
    curve(tmp_path / "losses", "t2v", (6, 20.0))  # of another training: this one had 12 steps
    made = history(stiv, sha256(stiv), tmp_path / "losses")
    assert [(run.recipe_name, seconds) for _, run, seconds in made.trainings] == [
        ("t2i", 41.5),
        ("t2v", None),
        ("stiv", None),
    ]
    assert made.lost == []


def test_a_training_that_two_parents_share_is_told_once(tmp_path):
    t2i = trained(tmp_path, "t2i")
    high, t2v = trained(tmp_path, "t2i_high", t2i), trained(tmp_path, "t2v", t2i)
    temporal = {"temporal_parent": "checkpoints/t2v", "temporal_parent_sha256": sha256(t2v)}
    both = trained(tmp_path, "t2v_high", high, **temporal)
    made = history(both, sha256(both), tmp_path)
    assert [run.recipe_name for _, run, _ in made.trainings] == ["t2i", "t2i_high", "t2v", "t2v_high"]


@pytest.mark.parametrize("lost", ["gone", "trained again"])
def test_weights_that_are_not_at_their_place_any_more_are_told_by_their_hash(tmp_path, lost):
    t2i = trained(tmp_path, "t2i")
    t2v = trained(tmp_path, "t2v", t2i)
    before = sha256(t2i)
    (t2i / metadata.WEIGHTS).unlink() if lost == "gone" else (t2i / metadata.WEIGHTS).write_text("others")
    made = history(t2v, sha256(t2v), tmp_path)
    assert ([run.recipe_name for _, run, _ in made.trainings], made.lost) == (["t2v"], [before])


def test_a_record_that_cannot_be_read_is_refused(tmp_path):
    t2i = trained(tmp_path, "t2i")
    (t2i / RUN_FILE).write_text("{}")
    with pytest.raises(ValueError, match=rf"^{t2i / RUN_FILE}: .*train {t2i} again"):
        history(t2i, sha256(t2i), tmp_path)


@pytest.mark.parametrize(
    ("clean_frames", "said"),
    [
        ("first", "first"),
        ((0, 1), "frames 0 and 1"),
        (
            (Mode(clean_frames="first", stride=9, weight=1), Mode(clean_frames=(0, 3), stride=1, weight=2)),
            "first, frames 0 and 3",
        ),
    ],
)
def test_a_training_is_told_with_the_frames_that_it_gave(clean_frames, said):
    assert _given(clean_frames) == said


def test_what_others_wrote_is_text_in_a_table_and_no_markup():
    assert _cell("CC0 | <b>x</b>\n[a](b)") == r"CC0 \| &lt;b&gt;x&lt;/b&gt; \[a\](b)"
    assert _started(("a/b/t2_v", 64 * "0")) == r"t2\_v 000000000000"
