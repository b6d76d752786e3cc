"""RAFT's weights are nobody's to carry: a network of the same inputs and outputs stands in for it.

It measures how far the light's centre of mass moves, which is exact for a bright blob on black.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import rapidocr
import yaml
from pydantic import ValidationError

from tasks.decoding import cuts, motion, raft
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic
from tasks.videos import shot_rules
from tasks.videos.settings import DisSettings, RaftSettings, ShotSettings

HEIGHT, WIDTH = 48, 64  # of the network's pictures
PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["shots"]
SETTINGS = ShotSettings.model_validate(PARAMS)


def write_network(path: Path, gain: float = 1.0, inputs: int = 2, last: str = "fine", idle: int = 1) -> Path:
    """Write a network whose vectors are all `gain` times the way of the light, 0 for pictures of 0 to 1.

    Args:
        inputs: 2 pictures, or 1.
        last: "fine", the vectors of every pixel after those of every eighth, or "coarse": only these.
        idle: numbers that it makes on the way, and does not need.
    """
    size, x, y = f"float[1,3,{HEIGHT},{WIDTH}]", range(WIDTH), range(HEIGHT)
    coarse, fine = f"float[1,2,{HEIGHT // 8},{WIDTH // 8}] coarse", f"float[1,2,{HEIGHT},{WIDTH}] fine"
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 13]>
        light ({size} a{f", {size} b" if inputs == 2 else ""}) => ({coarse}{f", {fine}" if last == "fine" else ""})
        <float[{WIDTH}] x = {{{", ".join(map(str, x))}}}, float[{HEIGHT},1] y = {{{", ".join(map(str, y))}}},
         float gain = {{{gain}}}, float dark = {{2.0}}, int64[4] idle = {{1, 1, 1, {idle}}},
         int64[4] small = {{1, 2, {HEIGHT // 8}, {WIDTH // 8}}}, int64[4] whole = {{1, 2, {HEIGHT}, {WIDTH}}}>
        {{
            {_centre("a", "a")}
            {_centre("b" if inputs == 2 else "a", "b")}
            way = Sub (at_b, at_a)
            most = ReduceMax (a)
            is_light = Greater (most, dark)
            light = Cast <to = 1> (is_light)
            factor = Mul (light, gain)
            factors = Expand (factor, idle)
            strength = ReduceMax (factors)
            vector = Mul (way, strength)
            coarse = Expand (vector, small)
            fine = Expand (vector, whole)
        }}""")
    onnx.save(model, path)
    return path


def _centre(picture: str, name: str) -> str:
    return f"""
            mass_{name} = ReduceSum ({picture})
            x_{name} = Mul ({picture}, x)
            y_{name} = Mul ({picture}, y)
            sum_x_{name} = ReduceSum (x_{name})
            sum_y_{name} = ReduceSum (y_{name})
            sums_{name} = Concat <axis = 1> (sum_x_{name}, sum_y_{name})
            at_{name} = Div (sums_{name}, mass_{name})"""


def blob(width: int, height: int, x: float = 0, y: float = 0) -> np.ndarray:
    """A soft bright spot on black, `x`, `y` pixels from the middle."""
    rows, columns = np.mgrid[:height, :width]
    apart = (columns - width / 2 - x) ** 2 + (rows - height / 2 - y) ** 2
    return np.round(255 * np.exp(-apart / (2 * (min(width, height) / 10) ** 2))).astype(np.uint8)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    return write_network(tmp_path_factory.mktemp("raft") / "raft.onnx")


def by_raft(weights: Path) -> ShotSettings:
    return SETTINGS.model_copy(update={"motion": RaftSettings(kind="raft", weights=str(weights))})


@pytest.mark.parametrize(("width", "height"), [(256, 144), (101, 250), (40, 30)])
def test_a_shift_comes_back_in_the_pictures_own_pixels(network, width, height):
    """Wide, high and small pictures; levels are whole, which moves the centre by a hundredth of a pixel at most."""
    found = raft.prepare(str(network)).vectors(blob(width, height), blob(width, height, 3, -2))
    assert found.dtype == np.float32 and found.shape == (height, width, 2)
    assert np.abs(found - [3.0, -2.0]).max() < 0.05


def test_what_follows_the_vectors_is_the_same_as_for_dense_search(network):
    before, after = blob(256, 144), blob(256, 144, 4, 2)
    found = motion.between(before, after, raft.prepare(str(network)).vectors)
    assert (found.x, found.y) == pytest.approx((100 * 4 / 256, 100 * 2 / 144), rel=0.02)
    assert found.amount == pytest.approx(100 * np.hypot(4, 2) / np.hypot(256, 144), rel=0.02)
    assert np.abs(found.moved.astype(int) - after).max() <= 3  # of 255 levels: 0.05 pixels on the steepest slope


@pytest.fixture(scope="module")
def split(tmp_path_factory, write_video, sandbox_settings) -> Iterator[Callable[[Path], dict]]:
    """Return `split(weights)`, which cuts in the sandbox of 256 MiB a blob that moves by 2 of 96 pixels per frame."""
    frames = np.stack([blob(96, 96, 2 * time - 24) for time in range(24)])[..., None].repeat(3, axis=-1)
    video = write_video(tmp_path_factory.mktemp("blob") / "blob.mp4", frames)
    with Sandbox(sandbox_settings.model_copy(update={"workers": 1, "memory_bytes": 256 << 20})) as sandbox:

        def call(weights: Path) -> dict:
            rules = shot_rules.rules_of(by_raft(weights))
            return sandbox.call("split", {"path": str(video), "claimed_frames": 24, "fps": 24.0, **rules})

        yield call


@pytest.mark.parametrize(("gain", "seen"), [(1.0, 100 * 2 / 96), (0.0, 0.0)])
def test_behind_the_fence_the_network_measures_the_motion(tmp_path, split, gain, seen):
    """What it sees counts, and not what dense search would see."""
    found = split(write_network(tmp_path / "raft.onnx", gain))
    assert (found["status"], len(found["shots"])) == ("ok", 1)
    assert found["shots"][0]["motion_x"] == pytest.approx(seen, rel=0.05)


def test_a_network_that_needs_more_than_the_fence_allows_is_short_of_memory(tmp_path, split):
    found = split(write_network(tmp_path / "raft.onnx", idle=(256 << 20) // 4))
    assert (found["status"], found["reason"]) == ("failed", "memory")


def test_dense_search_is_untouched_where_raft_is_not_asked_for():
    settings = SETTINGS.model_copy(update={"motion": DisSettings(kind="dis")})
    rules = {name: value for name, value in shot_rules.rules_of(settings).items() if name != "analysis_pixels"}
    assert cuts.motion_estimator(cuts.Rules(**rules, fps=24.0)) is motion.dense


def test_the_maker_of_the_motion_is_known_by_the_content_of_its_weights(network):
    assert shot_rules.made_by(by_raft(network))["motion"] == f"raft {atomic.sha256_file(network)}"
    assert shot_rules.made_by(SETTINGS)["motion"] == "dis"


def test_raft_without_weights_is_refused():
    with pytest.raises(ValidationError, match=r"motion\.raft\.weights"):
        ShotSettings.model_validate(PARAMS | {"motion": {"kind": "raft"}})


def test_weights_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^shots\.motion\.weights is .*raft\.onnx, and there is no such file"):
        shot_rules.rules_of(by_raft(tmp_path / "raft.onnx"))


def test_a_file_that_is_no_network_is_refused_in_one_line(tmp_path):
    (tmp_path / "raft.onnx").write_text("no network\n" * 100)
    with pytest.raises(ValueError, match=r"^shots\.motion\.weights is .*raft\.onnx, which is no such network .+$"):
        shot_rules.rules_of(by_raft(tmp_path / "raft.onnx"))


def test_networks_of_another_kind_are_refused_with_what_they_take_and_give(tmp_path):
    """A text detector, one picture instead of two, and vectors of every eighth pixel only."""
    detector = Path(rapidocr.__file__).parent / "models/PP-OCRv6_det_small.onnx"
    single, coarse = write_network(tmp_path / "1.onnx", inputs=1), write_network(tmp_path / "8.onnx", last="coarse")
    for weights, why in ((detector, "it takes"), (single, "it takes 1x3x48x64"), (coarse, "it gives 1x2x6x8")):
        with pytest.raises(ValueError, match=rf"^shots\.motion\.weights is {weights}, which is .* \({why}"):
            shot_rules.rules_of(by_raft(weights))
