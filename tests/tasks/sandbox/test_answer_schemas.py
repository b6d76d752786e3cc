"""What a process in the hands of its video may answer: results written by hand, read as the sandbox reads them."""

import ast
import copy
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import cv2
import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decoding import clip_frames, cuts, decode, frame_times, picture_file, probe, whole_video
from tasks.decoding.limits import Limits
from tasks.sandbox import answer_schemas, wire_format, worker
from tasks.sandbox.pool import Sandbox
from tasks.storage import tables
from tasks.videos import shot_rules
from tasks.videos.settings import ShotSettings

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
BAD = {"status": "failed", "reason": "bad_result"}
ASKED: dict[str, dict[str, Any]] = {
    "probe": {},
    "split": {"claimed_frames": 48, "fps": 24.0, **shot_rules.rules_of(ShotSettings.model_validate(PARAMS["shots"]))},
    "clip_frames": {"start_pts": 0, "end_pts": 48 * 512, "frames": 3, "stride_frames": 2, "height": 16, "width": 24},
    "whole_video": {"frames": 48, "height": 96, "width": 96},
    "frame_times": {"claimed_frames": 48},
    "picture_file": {"height": 16, "width": 24},
}


@pytest.fixture(scope="module")
def sandbox(sandbox_settings) -> Sandbox:
    """With no process behind it: what one answers is written by hand."""
    return Sandbox(sandbox_settings)


@pytest.fixture(scope="module")
def honest(sandbox_settings, video_with_cut, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What each function says of a video with a cut."""
    limits = Limits(**sandbox_settings.model_dump(exclude={"workers"}))
    path, picture = str(video_with_cut), tmp_path_factory.mktemp("pictures") / "grey.png"
    cv2.imwrite(str(picture), np.full((32, 32, 3), 90, np.uint8))
    return {
        "probe": probe.probe(path, limits),
        "split": cuts.split(path, limits, **ASKED["split"]),
        "clip_frames": clip_frames.clip_frames(path, limits, **ASKED["clip_frames"]),
        "whole_video": whole_video.whole_video(path, limits, **ASKED["whole_video"]),
        "frame_times": frame_times.frame_times(path, limits, **ASKED["frame_times"]),
        "picture_file": picture_file.picture_file(str(picture), limits, **ASKED["picture_file"]),
    }


@pytest.fixture(scope="module")
def answer(sandbox, tmp_path_factory) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """Return `answer(name, values)`: what the sandbox makes of it that the function's process writes these values."""
    path = tmp_path_factory.mktemp("answers") / "result"

    def give(name: str, values: dict[str, Any]) -> dict[str, Any]:
        with path.open("wb") as file:
            wire_format.write(file, values, {})
        return sandbox._read(path, name, ASKED[name] | {"path": "a.mp4"}).values

    return give


def test_every_function_says_what_it_may_answer():
    assert answer_schemas.ANSWERS.keys() == worker.FUNCTIONS.keys()


def test_what_is_true_comes_through_as_it_is(answer, honest):
    assert answer("probe", honest["probe"]) == honest["probe"]
    pictures = answer("clip_frames", honest["clip_frames"])
    np.testing.assert_array_equal(pictures["frames"], honest["clip_frames"]["frames"])
    whole = answer("whole_video", honest["whole_video"])
    assert whole["frames"].shape == (48, 96, 96, 3) and whole["crf"] == 23.0, "libx264's own where none is named"
    split = answer("split", honest["split"])
    assert [len(shot.pop("stills")) for shot in split["shots"]] == [4, 4]
    told = [{name: value for name, value in shot.items() if name != "stills"} for shot in honest["split"]["shots"]]
    assert split["shots"] == told and split["frames"] == 48
    assert answer("frame_times", honest["frame_times"])["times"].tolist() == [512 * place for place in range(48)]
    assert (answer("picture_file", honest["picture_file"])["picture"] == 90).all()


def test_a_shot_has_the_columns_of_the_table():
    of_video = {"clip", "video", "uri", "repairs", "width", "height", "caption", "licence", "source_url"}
    assert set(get_type_hints(answer_schemas.Shot)) - {"stills"} == set(tables.SHOTS.names) - of_video


LIES: list[tuple[str, str, Any]] = [
    ("probe", "width", "x"),
    ("probe", "width", 0),
    ("probe", "width", 10**300),
    ("probe", "width", 64.5),
    ("probe", "width", True),
    ("probe", "height", None),
    ("probe", "codec", "<script>"),
    ("probe", "codec", "\ud800"),
    ("probe", "fps", float("nan")),
    ("probe", "fps", 1e9),
    ("probe", "seconds", float("nan")),
    ("probe", "seconds", float("inf")),
    ("probe", "seconds", 10**400),
    ("probe", "seconds", -1.0),
    ("probe", "frames", 10**7),
    ("probe", "caption", "words" * 10**5),
    ("probe", "reason", "duplicate"),
    ("split", "frames", 47),
    ("split", "frames", 10**300),
    ("split", "shots", None),
    ("split", "shots", [{}]),
    ("split", "shots", [dict.fromkeys(map(str, range(10**5)))]),
    ("split", "more", {}),
    ("clip_frames", "frames", [1, 2]),
    ("clip_frames", "frames", np.zeros((3, 16, 24, 3), np.float32)),
    ("clip_frames", "frames", np.zeros((2, 16, 24, 3), np.uint8)),
    ("clip_frames", "frames", np.zeros((3, 24, 16, 3), np.uint8)),
    ("clip_frames", "frames", np.zeros((3, 16, 24), np.uint8)),
    ("clip_frames", "crop_top", -1),
    ("clip_frames", "crop_left", 1 << 31),
    ("clip_frames", "status", np.zeros(3, np.uint8)),
    ("whole_video", "frames", [1, 2]),
    ("whole_video", "frames", np.zeros((49, 96, 96, 3), np.uint8)),
    ("whole_video", "frames", np.zeros((0, 96, 96, 3), np.uint8)),
    ("whole_video", "frames", np.zeros((48, 96, 64, 3), np.uint8)),
    ("whole_video", "frames", np.zeros((48, 96, 96, 3), np.float32)),
    ("whole_video", "crf", -1.0),
    ("whole_video", "crf", float("nan")),
    ("whole_video", "crf", "12"),
    ("frame_times", "times", [1, 2]),
    ("frame_times", "times", np.zeros(0, np.int64)),
    ("frame_times", "times", np.arange(48, dtype=np.int32)),
    ("frame_times", "times", np.arange(48, 0, -1)),
    ("frame_times", "times", np.arange(48) + (1 << 60)),
    ("picture_file", "picture", np.zeros((24, 16, 3), np.uint8)),
    ("picture_file", "picture", "x"),
    ("picture_file", "shown_width", 0),
    ("picture_file", "shown_height", 1e9),
]


@pytest.mark.parametrize(("name", "field", "lie"), LIES)
def test_a_value_that_cannot_be_costs_the_file(answer, honest, name, field, lie):
    assert answer(name, honest[name] | {field: lie}) == BAD


LIES_OF_A_SHOT: list[dict[str, Any]] = [
    {"motion": float("nan")},
    {"motion": -0.1},
    {"clarity": 1.01},
    {"motion_x": 1e300},
    {"flicker": "0"},
    {"transition": "<b>"},
    {"status": "failed", "reason": "crashed"},
    {"status": "rejected"},
    {"reason": "too_short"},
    {"status": "rejected", "reason": "too_short"},  # and has stills
    {"stills": []},
    {"stills": ["AAAA"]},
    {"frames": 0},
    {"start": 1e6},
    {"start_pts": -(1 << 60)},
    {"end_pts": 0},
    {"time_base": "1/0"},
    {"time_base": "1/25"},
    {"caption": "a dog"},
    {"video": "0" * 64},
]


@pytest.mark.parametrize("lies", LIES_OF_A_SHOT)
@pytest.mark.parametrize("number", [0, 1])
def test_a_shot_that_cannot_be_costs_the_file(answer, honest, lies, number):
    split = copy.deepcopy(honest["split"])
    split["shots"][number] |= lies
    assert answer("split", split) == BAD


def test_what_a_shot_contradicts_itself_in_goes_to_the_log(answer, honest, caplog):
    split = copy.deepcopy(honest["split"])
    split["shots"][0]["start"] = 1.0
    answer("split", split)
    assert "'shots.0': start and end are other times than start_pts and end_pts" in caplog.text


def test_more_stills_than_were_asked_for_cost_the_file(answer, honest):
    split = copy.deepcopy(honest["split"])
    split["shots"][0]["stills"] *= 2
    assert answer("split", split) == BAD


@pytest.mark.parametrize("shots", [[0], [1, 0], [0, 0, 1], [0, 1, 1]])
def test_shots_that_overlap_or_leave_something_out_cost_the_file(answer, honest, shots):
    found = [copy.deepcopy(honest["split"]["shots"][number]) for number in shots]
    told = sum(shot["frames"] for shot in found) if shots != [0] else 48
    assert answer("split", honest["split"] | {"shots": found, "frames": told}) == BAD


@pytest.mark.parametrize("status", ["failed", "rejected", "ok", "", None, 3, [], {}])
@pytest.mark.parametrize("reason", ["duplicate", "forgotten", "timeout", "<b>", "", 3, [], {}])
def test_a_reason_that_is_no_function_s_own_costs_the_file(answer, status, reason):
    """The stage videos takes a duplicate of an earlier run for a video that opens."""
    assert answer("probe", {"status": status, "reason": reason}) == BAD


def test_what_a_function_refuses_with_is_declared(answer):
    """Every `Refused(status, reason)` in the modules in the sandbox, and every reason of `DecodeBudget`."""
    told = set()
    for module in (decode, probe, cuts, clip_frames, whole_video):
        for call in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Refused"):
                told.add(tuple(getattr(argument, "value", None) for argument in call.args))
    assert len(told) > 15 and ("rejected", "not_a_video") in told
    told = {(status, reason) for status, reason in told if isinstance(reason, str)}
    told |= {("failed", "decode_error"), ("rejected", "too_many_frames"), ("rejected", "expands_too_much")}
    told |= {("rejected", "too_many_decoded_bytes"), ("failed", "crashed"), ("failed", "not_permitted")}
    for status, reason in told:
        assert answer("probe", {"status": status, "reason": reason}) == {"status": status, "reason": reason}


def test_a_traceback_goes_to_the_log_and_no_further(answer):
    crashed = {"status": "failed", "reason": "crashed"}
    assert answer("split", crashed | {"traceback": "KeyError: 'x'"}) == crashed
    assert answer("split", crashed | {"traceback": "x" * 10**5}) == BAD
    assert answer("split", crashed | {"traceback": ["x"]}) == BAD


NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from([1 << 31, 1 << 63, 10**300, -1, 0, 1, 24, 48]),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(st.characters(), max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
    max_leaves=8,
)


def places(values: Any, above: tuple = ()) -> list[tuple]:
    """Return where in nested dicts and lists there is a value, and one place in each dict where there is none."""
    if isinstance(values, dict):
        inside = [place for key, value in values.items() for place in places(value, (*above, key))]
        return [*([above] if above else []), *inside, (*above, "another")]
    if isinstance(values, list):
        return [above, *(place for key, value in enumerate(values) for place in places(value, (*above, key)))]
    return [above]


def leaves(values: Any) -> list[Any]:
    if isinstance(values, dict | list):
        return [leaf for inner in (values.values() if isinstance(values, dict) else values) for leaf in leaves(inner)]
    return [values]


@pytest.mark.parametrize("name", ASKED)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_anything_anywhere_is_a_bad_result_or_fits_the_tables(answer, honest, name, data):
    values = {key: value for key, value in honest[name].items() if not isinstance(value, np.ndarray)}
    *above, last = data.draw(st.sampled_from(places(values)))
    values = copy.deepcopy(values)
    inside: Any = values
    for key in above:
        inside = inside[key]
    inside[last] = data.draw(ANYTHING)
    arrays = {key: value for key, value in honest[name].items() if isinstance(value, np.ndarray)}
    found = answer(name, values | arrays)
    if found == BAD:
        return
    told = [leaf for leaf in leaves(found) if not isinstance(leaf, bytes | np.ndarray)]
    json.dumps(told, allow_nan=False)
    assert all(abs(leaf) < 1 << 63 for leaf in told if isinstance(leaf, int))
    if name == "split":
        shots = [{key: shot[key] for key in shot if key != "stills"} for shot in found["shots"]]
        assert pa.Table.from_pylist(shots, tables.SHOTS).num_rows == len(shots)


def test_what_is_null_where_nothing_was_measured_is_allowed(answer, honest):
    split = copy.deepcopy(honest["split"])
    scores = [name for name, kind in get_type_hints(answer_schemas.Shot).items() if type(None) in get_args(kind)]
    split["shots"][0] |= dict.fromkeys(scores)
    assert "motion" in scores and answer("split", split)["shots"][0]["motion"] is None
