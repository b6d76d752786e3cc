from pathlib import Path

import pytest

from flows.params import load_params
from tasks.captions import stage as captions
from tasks.captions.describe import Measured, describe, movement
from tasks.captions.stage import Captions
from tasks.storage import stage, tables
from tasks.storage.fields import take

SETTINGS = load_params(Path(__file__).parents[2] / "params.yaml")
PARAMS, TEXT = SETTINGS.captions, SETTINGS.text
CHECKS = PARAMS.checks.model_copy(update={"min_letters": 1})
BOTH = PARAMS.model_copy(update={"captioners": ("sidecar", "describe"), "shard_clips": 2, "checks": CHECKS})


def caption_clips(clips: list[dict], settings) -> list[dict]:
    return captions.caption_clips(clips, captions.captioners_of(settings, Path("shots")), settings)


def clip(number: int = 0, **changes) -> dict:
    row = dict.fromkeys(tables.CLIPS.names) | {"clip": f"clip-{number}", "width": 640, "height": 360}
    row |= {"brightness": 0.5, "orientation": "landscape", "colours": ["grey", "green"]}
    return row | {"motion": 1.0, "motion_x": 1.0, "motion_y": 0.0} | changes


def test_the_first_captioner_with_an_answer_is_named():
    rows = caption_clips([clip(0, caption="a red car"), clip(1)], BOTH)
    assert [(row["captioner"], row["status"]) for row in rows] == [("sidecar", "ok"), ("describe", "ok")]
    assert rows[0]["text"] == "a red car"


def test_the_order_of_the_settings_decides():
    rows = caption_clips([clip(0, caption="a red car")], BOTH.model_copy(update={"captioners": ("describe",)}))
    assert rows[0]["captioner"] == "describe"


def test_a_clip_without_an_answer_is_failed_and_keeps_its_row():
    rows = caption_clips([clip(0), clip(1, caption="x")], BOTH.model_copy(update={"captioners": ("sidecar",)}))
    assert [(row["clip"], row["status"], row["reason"]) for row in rows] == [
        ("clip-0", "failed", "no_caption"),
        ("clip-1", "ok", None),
    ]


def test_describe_says_what_was_measured():
    text = describe(take(Measured, clip(brightness=0.1, motion=2.0, motion_x=-2.2)))
    assert text == "a dark landscape video, 640 by 360 pixels, mostly grey and green, moving fast to the left"


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (1.1, 0.0, "moving slowly to the right"),
        (-1.1, 0.1, "moving slowly to the left"),
        (0.0, 2.0, "moving slowly down"),
        (0.0, -2.0, "moving slowly up"),
        (0.1, 0.1, "moving slowly in several directions"),
    ],
)
def test_movement_has_the_direction_of_the_moving_part(x, y, words):
    assert movement(take(Measured, clip(motion=1.0, motion_x=x, motion_y=y))) == words


def test_what_hardly_moves_is_called_still():
    assert movement(take(Measured, clip(motion=0.05))) == "almost still"


def test_a_killed_stage_goes_on_to_the_same_bytes(tmp_path):
    clips = [clip(number, caption="text" if number % 2 else None, status="ok") for number in range(7)]
    (tmp_path / "clips").mkdir()
    tables.write_rows(tmp_path / "clips" / tables.CLIP_TABLE, clips, tables.CLIPS)
    (tmp_path / "shots").mkdir()
    tables.write_rows(tmp_path / "shots" / tables.SPLIT_TABLE, [], tables.SPLITS)

    def run(name: str, kill_after: int | None) -> bytes:
        def run_shards(declared, work_on, parts):
            assert kill_after is None or not any(part.is_done for part in parts)
            stage.in_turn(declared, work_on, parts[:kill_after])
            if kill_after is not None:
                raise KeyboardInterrupt

        declared, out = Captions(tmp_path / "clips", tmp_path / "shots", tmp_path / "docs", BOTH, TEXT), tmp_path / name
        (account,) = stage.run(declared, out, tmp_path / "report.json", "code", run_shards, tmp_path / "earlier")
        assert account.ok == 7
        return (out / tables.CAPTION_TABLE).read_bytes()

    with pytest.raises(KeyboardInterrupt):
        run("disturbed", 2)
    assert not (tmp_path / "disturbed").exists()
    assert len(list((tmp_path / "disturbed.partial").glob("shard-*"))) == 2
    assert run("disturbed", None) == run("undisturbed", None)
