import json
import pickle
from pathlib import Path

import pytest
import yaml

from tasks import manifest
from tasks.clips import GateFailedError, funnel, judge_shot, judge_shots, select_clips
from tasks.expectations import GateResult
from tasks.settings import ClipSettings

LIMITS = {
    "motion": {"min": 0.5, "max": 20.0},
    "aesthetic": {"min": 2.0, "max": 9.0},
    "text_area": {"min": 0.01, "max": 0.3},
    "clarity": {"min": 1.0, "max": 90.0},
    "temporal_consistency": {"min": 0.6, "max": 0.99},
    "height": {"min": 64, "max": 2160},
    "width": {"min": 64, "max": 4096},
    "seconds": {"min": 0.9, "max": 10.0},
}
SETTINGS = ClipSettings(**LIMITS, orientations=["landscape", "square"], gate_min_clips=3, gate_min_kept_fraction=0.25)


def scored(number: int = 0, **changes) -> dict:
    """One scored shot of 24 frames that is within every threshold."""
    start, video = 24 * number, "ab" * 32
    row = {
        "shot": manifest.shot_id(video, start, start + 24),
        "video": video,
        "uri": "a.mp4",
        "start_pts": start,
        "end_pts": start + 24,
        "time_base": "1/24",
        "start": start / 24,
        "end": start / 24 + 1,
        "frames": 24,
        "transition": "cut",
        "status": "ok",
        "reason": None,
        "width": 128,
        "height": 128,
        "caption": None,
        "motion": 1.0,
        "motion_x": 0.0,
        "motion_y": 0.0,
        "clarity": 50.0,
        "temporal_consistency": 0.9,
        "brightness": 0.5,
        "saturation": 0.5,
        "aesthetic": 5.0,
        "text_area": 0.1,
        "orientation": "square",
        "colours": ["red", "grey"],
    }
    return {**row, **changes}


def judged(**changes) -> tuple[str, str | None]:
    return judge_shot({**scored(), "seconds": 1.0, **changes}, SETTINGS)


def write_scores(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    manifest.write_rows(folder / "scores.parquet", rows, manifest.SCORES)
    return folder


def mixed_rows() -> list[dict]:
    return [
        *(scored(number) for number in range(5)),
        scored(5, motion=0.1),
        scored(6, motion=99.0, text_area=0.9),
        scored(7, end_pts=24 * 7 + 12),
        scored(8, orientation="portrait"),
        scored(9, aesthetic=None),
    ]


def run(folder: Path, rows: list[dict], settings: ClipSettings = SETTINGS):
    scores = write_scores(folder / "scores", rows)
    return select_clips.fn(scores, folder / "clips", folder / "reports/clips.json", folder / "reports/docs", settings)


@pytest.mark.parametrize("score", LIMITS)
def test_a_limit_itself_is_inside_and_a_hair_beyond_it_is_not(score):
    least, most = LIMITS[score]["min"], LIMITS[score]["max"]
    assert judged(**{score: least}) == ("ok", None)
    assert judged(**{score: most}) == ("ok", None)
    assert judged(**{score: least - 1e-9}) == ("rejected", f"{score}_below_min")
    assert judged(**{score: most + 1e-9}) == ("rejected", f"{score}_above_max")


def test_a_null_limit_is_no_limit():
    settings = SETTINGS.model_copy(update={"motion": SETTINGS.motion.model_copy(update={"max": None})})
    assert judge_shot({**scored(motion=1e6), "seconds": 1.0}, settings) == ("ok", None)


def test_an_orientation_that_is_not_listed_is_rejected():
    assert judged(orientation="portrait") == ("rejected", "orientation_not_wanted")


@pytest.mark.parametrize("score", [*LIMITS, "orientation"])
def test_a_null_score_is_a_failure_and_not_a_verdict(score):
    assert judged(**{score: None}) == ("failed", "score_missing")


def test_a_score_that_is_no_number_is_a_failure():
    assert judged(motion=float("nan")) == ("failed", "score_missing")
    assert judged(clarity=float("inf")) == ("failed", "score_missing")


def test_a_shot_that_was_not_ok_before_stays_what_it_was():
    assert judged(status="failed", reason="decode_error") == ("failed", "decode_error")


def test_the_first_threshold_missed_gives_the_reason():
    assert judged(text_area=0.9, motion=0.1) == ("rejected", "motion_below_min")


def test_a_shot_exactly_as_long_as_the_limit_is_kept_wherever_it_starts():
    start = 3 * 90_000  # 3.9 - 3.0 in floating point is 0.8999999999999999
    rows = judge_shots(
        [scored(start_pts=start, end_pts=start + 81_000, time_base="1/90000")],
        SETTINGS,
    )
    assert rows[0]["seconds"] == 0.9
    assert rows[0]["status"] == "ok"


def test_the_funnel_starts_with_all_and_ends_with_the_clips():
    rows = judge_shots(mixed_rows(), SETTINGS)
    steps = funnel(rows, SETTINGS)
    assert [step["step"] for step in steps] == ["scored", "score_missing", *LIMITS, "orientation"]
    assert steps[0]["clips"] == len(rows)
    assert steps[0]["clips"] - sum(step["lost"] for step in steps) == steps[-1]["clips"] == 5
    assert steps[0]["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    lost_seconds = sum(step["lost_seconds"] for step in steps)
    assert steps[0]["seconds"] - lost_seconds == pytest.approx(steps[-1]["seconds"])
    assert steps[-1]["seconds"] == pytest.approx(5.0)


def test_the_funnel_says_at_which_step_a_shot_was_lost():
    steps = {step["step"]: step for step in funnel(judge_shots(mixed_rows(), SETTINGS), SETTINGS)}
    lost = {name: step["lost"] for name, step in steps.items() if step["lost"]}
    assert lost == {"score_missing": 1, "motion": 2, "seconds": 1, "orientation": 1}
    assert steps["seconds"]["lost_seconds"] == pytest.approx(0.5)


def test_every_scored_shot_has_one_row_and_the_account_balances(tmp_path):
    before = scored(10, status="failed", reason="decode_error")  # accounted for by the stage before
    selection = run(tmp_path, [*mixed_rows(), before])
    rows = manifest.read_rows(tmp_path / "clips/clips.parquet", manifest.CLIPS)
    assert [row["shot"] for row in rows] == [row["shot"] for row in mixed_rows()]
    account = selection.account
    assert account.given == 10 == account.ok + account.rejected + account.failed
    assert (account.ok, account.rejected, account.failed) == (5, 4, 1)
    assert sum(account.reasons.values()) == account.rejected + account.failed


def test_the_report_holds_account_funnel_and_gate(tmp_path):
    selection = run(tmp_path, mixed_rows())
    report = json.loads((tmp_path / "reports/clips.json").read_text())
    assert report["shots"]["given"] == 10
    assert report["funnel"] == selection.funnel
    assert report["gate"] == {"success": True, "evaluated": selection.gate.evaluated, "failed": []}
    assert (tmp_path / "reports/docs/index.html").exists()


def test_the_same_scores_give_the_same_bytes(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    run(tmp_path / "one", mixed_rows())
    run(tmp_path / "two", mixed_rows())
    first, second = (tmp_path / name / "clips/clips.parquet" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_a_failing_gate_hands_on_nothing_and_says_what_to_change(tmp_path):
    settings = SETTINGS.model_copy(update={"gate_min_clips": 6})
    with pytest.raises(GateFailedError) as caught:
        run(tmp_path, mixed_rows(), settings)
    for name in ("clips", "reports/docs", "reports/clips.json"):
        assert not (tmp_path / name).exists()
    page = tmp_path / "reports/docs.failed/index.html"
    assert page.exists()
    for needed in ("clips.gate_min_clips", "at least 6", "observed 5", "row_count", str(page)):
        assert needed in str(caught.value)


def test_the_failure_survives_being_handed_to_another_process():
    account = manifest.Account("shots", 2, 1, 1, 0, {"motion_below_min": 1})
    error = GateFailedError(GateResult(False, 1, ["too few"]), account, Path("docs.failed"))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.gate == error.gate


def test_a_gate_that_passes_later_clears_the_pages_of_the_failure(tmp_path):
    (tmp_path / "reports/docs.failed").mkdir(parents=True)
    run(tmp_path, mixed_rows())
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["clips.json", "docs"]
    assert not (tmp_path / "clips.partial").exists()


def test_no_scored_shot_at_all_fails_the_gate(tmp_path):
    with pytest.raises(GateFailedError, match="at least one shot"):
        run(tmp_path, [])
    assert not (tmp_path / "clips").exists()


def test_missing_scores_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"scores\.parquet"):
        select_clips.fn(tmp_path, tmp_path / "out", tmp_path / "r.json", tmp_path / "docs", SETTINGS)


def test_the_embedded_thresholds_are_valid_settings():
    params = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    assert ClipSettings(**params["clips"]).gate_min_clips > 0
