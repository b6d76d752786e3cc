import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tasks.clips import releases, select, verdicts
from tasks.clips.select import GateFailedError, Selection, select_clips
from tasks.clips.settings import BestSettings, ClipSettings
from tasks.clips.thresholds import funnel, judge_shot, rules
from tasks.gates.gate import GateResult
from tasks.scores.embedding import embedding
from tasks.storage import queries, tables
from tests.tasks.clips.plain_select import tally

LIMITS = {
    "motion": {"min": 0.5, "max": 20.0},
    "camera_motion": {"min": 0.1, "max": 10.0},
    "object_motion": {"min": 0.1, "max": 10.0},
    "aesthetic": {"min": 2.0, "max": 9.0},
    "text_area": {"min": 0.01, "max": 0.3},
    "clarity": {"min": 0.1, "max": 0.9},
    "temporal_consistency": {"min": 0.6, "max": 0.99},
    "flicker": {"min": 0.001, "max": 0.1},
    "frozen": {"min": 0.001, "max": 0.9},
    "black_bars": {"min": 0.001, "max": 0.5},
    "brightness": {"min": 0.1, "max": 0.9},
    "saturation": {"min": 0.1, "max": 0.9},
    "quality": {"min": 0.1, "max": 0.9},
    "nsfw": {"min": 0.001, "max": 0.2},
    "height": {"min": 64, "max": 2160},
    "width": {"min": 64, "max": 4096},
    "seconds": {"min": 0.9, "max": 10.0},
}
SETTINGS = ClipSettings(
    **LIMITS,
    orientations=["landscape", "square"],
    duplicate_bits=None,
    duplicate_similarity=None,
    best=None,
    earlier_releases=[],
    gate_min_clips=3,
    gate_min_kept_fraction=0.25,
    gate_min_hours=0.0,
    gate_max_rejected={},
    gate_max_drift=0.2,
)


def scored(number: int = 0, **changes) -> dict:
    """One scored shot of 24 frames that is within every threshold."""
    start, video = 24 * number, "ab" * 32
    row = {
        "clip": tables.clip_id(video, start, start + 24),
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
        "camera_motion": 0.5,
        "object_motion": 1.0,
        "motion_x": 0.0,
        "motion_y": 0.0,
        "clarity": 0.5,
        "temporal_consistency": 0.9,
        "flicker": 0.01,
        "frozen": 0.1,
        "brightness": 0.5,
        "saturation": 0.5,
        "black_bars": 0.1,
        "aesthetic": 5.0,
        "text_area": 0.1,
        "quality": 0.5,
        "nsfw": 0.1,
        "orientation": "square",
        "colours": ["red", "grey"],
        "video_hash": np.random.default_rng(number).bytes(32),
        "embedding": embedding(np.eye(1, 128, number)),
        "embedder": "e",
    }
    return {**row, **changes}


def judged(**changes) -> tuple[str, str | None]:
    return judge_shot({**scored(), "seconds": 1.0, **changes}, rules(SETTINGS))


def judge_shots(shots: list[dict], settings: ClipSettings) -> list[dict]:
    """Return what the stage makes of a table of these shots."""
    with tempfile.TemporaryDirectory() as folder:
        scores, out = write_scores(Path(folder) / "scores", shots) / "scores.parquet", Path(folder) / "clips.parquet"
        with queries.connect(Path(folder)) as connection:
            select.judge_shots(connection, scores, settings, out)
        return tables.read_rows(out, tables.CLIPS)


def released(folder: Path, present: list[dict], columns: list[str], release: Path) -> int:
    """Return how many clips of an earlier release count when these shots are judged."""
    scores = write_scores(folder / f"scores-{len(present)}-{len(columns)}", present) / "scores.parquet"
    with queries.connect(folder) as connection:
        verdicts.judge_alone(connection, scores, SETTINGS)
        releases.open_released(connection, [str(release)], columns)
        return len(connection.sql("FROM released").fetchall())


def write_scores(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    tables.write_rows(folder / "scores.parquet", rows, tables.SCORES)
    return folder


HASH = bytes(range(32))


def with_twins(**changes) -> ClipSettings:
    return SETTINGS.model_copy(update={"duplicate_bits": 24, **changes})


def write_release(folder: Path, shots: list[dict]) -> Path:
    path = folder / "release.parquet"
    tables.write_rows(path, judge_shots(shots, SETTINGS), tables.CLIPS)
    return path


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
    assert judge_shot({**scored(motion=1e6), "seconds": 1.0}, rules(settings)) == ("ok", None)


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


def test_a_score_without_a_range_need_not_be_measured():
    settings = SETTINGS.model_copy(update={"nsfw": None})
    assert judge_shot({**scored(nsfw=None), "seconds": 1.0}, rules(settings)) == ("ok", None)


def test_a_shot_without_a_hash_fails_only_where_twins_are_looked_for():
    row = {**scored(video_hash=None), "seconds": 1.0}
    assert judge_shot(row, rules(SETTINGS)) == ("ok", None)
    assert judge_shot(row, rules(with_twins())) == ("failed", "score_missing")


@pytest.mark.parametrize("lacking", ["embedding", "embedder"])
def test_a_shot_without_an_embedding_fails_only_where_embeddings_are_compared(lacking):
    row = {**scored(), "seconds": 1.0, lacking: None}
    assert judge_shot(row, rules(with_twins())) == ("ok", None)
    assert judge_shot(row, rules(with_twins(duplicate_similarity=0.95))) == ("failed", "score_missing")


def test_a_share_of_a_reason_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"gate_max_rejected .*motion_below_mim"):
        ClipSettings.model_validate(SETTINGS.model_dump() | {"gate_max_rejected": {"motion_below_mim": 0.1}})


def test_of_near_duplicates_the_best_stays_and_the_others_name_it():
    shots = [scored(0, video_hash=HASH), scored(1, video_hash=HASH, quality=0.6), scored(2, video_hash=HASH)]
    rows = judge_shots(shots, with_twins())
    assert [(row["status"], row["reason"], row["duplicate_of"]) for row in rows] == [
        ("rejected", "near_duplicate", shots[1]["clip"]),
        ("ok", None, None),
        ("rejected", "near_duplicate", shots[1]["clip"]),
    ]


def test_a_shot_that_misses_a_threshold_costs_its_twin_nothing():
    shots = [scored(0, video_hash=HASH), scored(1, video_hash=HASH, quality=0.6, motion=0.1)]
    rows = judge_shots(shots, with_twins())
    assert [row["reason"] for row in rows] == [None, "motion_below_min"]


def test_a_clip_released_before_comes_not_again_under_another_name(tmp_path):
    release = write_release(tmp_path, [scored(90, video_hash=HASH), scored(91, motion=0.1)])
    settings = with_twins(earlier_releases=[str(release)], gate_max_drift=None)
    shots = [scored(0, video_hash=HASH, quality=0.6), *(scored(number) for number in range(1, 4))]
    run(tmp_path, shots, settings)
    first, *others = tables.read_rows(tmp_path / "clips/clips.parquet", tables.CLIPS)
    assert (first["reason"], first["duplicate_of"]) == ("near_duplicate", scored(90)["clip"])
    assert [row["status"] for row in others] == ["ok"] * 3


def test_a_clip_that_shows_the_same_is_a_near_duplicate_whatever_its_hash():
    shots = [scored(0), scored(1, embedding=scored(0)["embedding"], quality=0.6), scored(2)]
    settings = SETTINGS.model_copy(update={"duplicate_similarity": 0.95})
    rows = judge_shots(shots, settings)
    assert [(row["reason"], row["duplicate_of"]) for row in rows] == [
        ("near_duplicate", shots[1]["clip"]),
        (None, None),
        (None, None),
    ]
    assert funnel(tally(rows), settings)[-1]["step"] == "near_duplicate"


def test_an_earlier_release_without_embeddings_is_refused_only_where_they_are_compared(tmp_path):
    release = write_release(tmp_path, [scored(90, embedding=None)])
    assert released(tmp_path, [], ["video_hash"], release) == 1
    assert released(tmp_path, [scored(90)], ["embedding"], release) == 0
    with pytest.raises(ValueError, match=rf"{release} has 1 clips .*\bembedding\b.*clips\.earlier_releases"):
        released(tmp_path, [], ["video_hash", "embedding", "embedder"], release)


def test_a_clip_released_before_is_no_twin_of_itself(tmp_path):
    release = write_release(tmp_path, [scored(0, video_hash=HASH)])
    (row,) = judge_shots([scored(0, video_hash=HASH)], with_twins(earlier_releases=[str(release)]))
    assert row["status"] == "ok"


def test_a_release_of_an_earlier_version_is_refused_with_both_names_of_its_column(tmp_path):
    release = write_release(tmp_path, [scored(0)])
    table = pq.read_table(release)
    names = ["shot" if name == "clip" else name for name in table.schema.names]
    pq.write_table(table.rename_columns(names), release)
    with pytest.raises(ValueError, match=rf"{release} .*\bshot\b.*\bclip\b.*clips\.earlier_releases"):
        releases.check(str(release), ["clip", "video_hash"])


def test_only_the_best_are_kept_and_equals_by_name():
    settings = SETTINGS.model_copy(update={"best": BestSettings(clips=2, by="aesthetic")})
    shots = [scored(0, aesthetic=4.0), scored(1, aesthetic=6.0), scored(2, aesthetic=4.0), scored(3, aesthetic=3.0)]
    rows = judge_shots(shots, settings)
    assert [row["reason"] for row in rows] == [None, None, "not_among_best", "not_among_best"]
    assert funnel(tally(rows), settings)[-1] | {"seconds": 0} == {
        "step": "best", "clips": 2, "seconds": 0, "lost": 2, "lost_seconds": 2.0,
    }  # fmt: skip


def test_drift_from_the_last_release_stops_the_stage(tmp_path):
    release = write_release(tmp_path, [scored(number, brightness=0.8) for number in range(5)])
    with pytest.raises(GateFailedError, match=r"\bbrightness\b.*clips\.gate_max_drift"):
        run(tmp_path, [scored(number) for number in range(5)], with_twins(earlier_releases=[str(release)]))
    assert not (tmp_path / "clips").exists()


def test_an_earlier_release_that_is_gone_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"releases/gone\.parquet .*clips\.earlier_releases"):
        run(tmp_path, mixed_rows(), with_twins(earlier_releases=["releases/gone.parquet"]))
    assert not (tmp_path / "clips.partial").exists()


def test_the_funnel_starts_with_all_and_ends_with_the_clips():
    rows = judge_shots(mixed_rows(), SETTINGS)
    steps = funnel(tally(rows), SETTINGS)
    assert [step["step"] for step in steps] == ["scored", "score_missing", *LIMITS, "orientation"]
    assert steps[0]["clips"] == len(rows)
    assert steps[0]["clips"] - sum(step["lost"] for step in steps) == steps[-1]["clips"] == 5
    assert steps[0]["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    lost_seconds = sum(step["lost_seconds"] for step in steps)
    assert steps[0]["seconds"] - lost_seconds == pytest.approx(steps[-1]["seconds"])
    assert steps[-1]["seconds"] == pytest.approx(5.0)


def test_the_funnel_says_at_which_step_a_shot_was_lost():
    judged_rows = judge_shots(mixed_rows(), SETTINGS)
    steps = {step["step"]: step for step in funnel(tally(judged_rows), SETTINGS)}
    lost = {name: step["lost"] for name, step in steps.items() if step["lost"]}
    assert lost == {"score_missing": 1, "motion": 2, "seconds": 1, "orientation": 1}
    assert steps["seconds"]["lost_seconds"] == pytest.approx(0.5)


BEFORE = scored(10, status="failed", reason="decode_error")  # accounted for by the stage before


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, Selection]:
    """The stage after a run, in a folder where an earlier attempt had failed the gate."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "reports/docs.failed").mkdir(parents=True)
    return folder, run(folder, [*mixed_rows(), BEFORE])


def test_every_scored_shot_has_one_row_and_the_account_balances(done):
    folder, selection = done
    rows = tables.read_rows(folder / "clips/clips.parquet", tables.CLIPS)
    assert [row["clip"] for row in rows] == [row["clip"] for row in mixed_rows()]
    account = selection.account
    assert account.given == 10 == account.ok + account.rejected + account.failed
    assert (account.ok, account.rejected, account.failed) == (5, 4, 1)
    assert sum(account.reasons.values()) == account.rejected + account.failed


def test_the_report_holds_account_funnel_and_gate(done):
    folder, selection = done
    report = json.loads((folder / "reports/clips.json").read_text())
    assert report["shots"]["given"] == 10
    assert report["funnel"] == selection.funnel
    assert report["gate"] == {"success": True, "evaluated": selection.gate.evaluated, "failed": []}
    assert report["drift"] == {}
    assert (folder / "reports/docs/index.html").exists()


def test_the_same_scores_give_the_same_bytes(done, tmp_path):
    run(tmp_path, [*mixed_rows(), BEFORE])
    first, second = (folder / "clips/clips.parquet" for folder in (done[0], tmp_path))
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
    account = tables.Account("shots", 2, 1, 1, 0, {"motion_below_min": 1})
    error = GateFailedError(GateResult(False, 1, ["too few"]), account, Path("docs.failed"))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.gate == error.gate


def test_a_gate_that_passes_later_clears_the_pages_of_the_failure(done):
    folder, _ = done
    assert sorted(path.name for path in (folder / "reports").iterdir()) == ["clips.json", "docs"]
    assert not (folder / "clips.partial").exists()


def test_no_scored_shot_at_all_fails_the_gate(tmp_path):
    with pytest.raises(GateFailedError, match=r"Of 0 shots 0 "):
        run(tmp_path, [])
    assert not (tmp_path / "clips").exists()


def test_missing_scores_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/scores\.parquet"):
        select_clips.fn(tmp_path, tmp_path / "out", tmp_path / "r.json", tmp_path / "docs", SETTINGS)


def test_the_embedded_thresholds_are_valid_settings():
    params = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text())
    assert ClipSettings(**params["clips"]).gate_min_clips > 0
