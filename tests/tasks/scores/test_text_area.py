from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.demo import shapes
from tasks.scores import text_area
from tasks.scores.text_area import RapidText, Strokes, covered, strokes

LINES = ("the ducks land", "on a lake near", "the old mill")
Drawn = Callable[[np.ndarray, int, float], np.ndarray]


@pytest.fixture(scope="module")
def detector() -> RapidText:
    return RapidText(384)


def stroke_font(picture: np.ndarray, lines: int, height: float) -> np.ndarray:
    """Return a BGR picture with lines of white, black-rimmed text, its letters this share of the height."""
    drawn, letter = picture.copy(), height * picture.shape[0]
    for line in range(lines):
        place, text = (int(0.05 * picture.shape[1]), int((2 * line + 2) * letter)), LINES[line]
        for colour, thickness in (((0, 0, 0), letter / 4), ((255, 255, 255), letter / 9)):
            cv2.putText(
                drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, letter / 22, colour, round(thickness), cv2.LINE_AA
            )
    return drawn


def outline_font(picture: np.ndarray, lines: int, height: float) -> np.ndarray:
    """Return the same in a font of outlines, as subtitles have it."""
    image, letter = Image.fromarray(picture[..., ::-1]), height * picture.shape[0]
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(1.4 * letter)
    for line in range(lines):
        place = (0.05 * picture.shape[1], (2 * line + 1) * letter)
        draw.text(place, LINES[line], (255, 255, 255), font, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)[..., ::-1].copy()


@pytest.mark.parametrize("drawn", [stroke_font, outline_font])
@pytest.mark.parametrize("height", [0.05, 0.1])
def test_more_lines_of_text_have_more_area(detector, real_frames, still, drawn: Drawn, height):
    areas = [detector.score([still(drawn(real_frames[0], lines, height))]) for lines in range(4)]
    assert areas[0] == 0
    assert all(more > 1.3 * fewer for fewer, more in pairwise(areas[1:])), areas


@pytest.mark.parametrize("drawn", [stroke_font, outline_font])
def test_larger_text_has_more_area(detector, real_frames, still, drawn: Drawn):
    areas = [detector.score([still(drawn(real_frames[1], 2, height))]) for height in (0.05, 0.08, 0.14)]
    assert areas[0] > 0
    assert all(larger > 1.3 * smaller for smaller, larger in pairwise(areas)), areas


def test_text_area_is_about_that_of_the_lines(detector):
    page = np.full((288, 512, 3), 200, np.uint8)
    (width, height), below = cv2.getTextSize("many words here", cv2.FONT_HERSHEY_SIMPLEX, 1.4, 3)
    for line in range(3):
        cv2.putText(page, "many words here", (20, 80 + 80 * line), cv2.FONT_HERSHEY_SIMPLEX, 1.4, (0, 0, 0), 3)
    assert detector.score([page]) == pytest.approx(3 * width * (height + below) / (288 * 512), rel=0.25)


def probabilities(*cores: tuple[slice, slice], level: float = 0.95) -> np.ndarray:
    """What the detector gives for cores of lines, with edges that fall over a pixel to each side."""
    found = np.zeros((224, 384), np.float32)
    for core in cores:
        found[core] = level
    return cv2.GaussianBlur(found, (0, 0), 0.7)


LINE = np.s_[50:58, 40:200]


def test_a_core_that_is_half_a_pixel_higher_or_in_two_parts_hardly_changes_the_area():
    line = probabilities(LINE)
    higher = (line + probabilities(np.s_[50:59, 40:200])) / 2
    apart = probabilities(np.s_[50:58, 40:118], np.s_[50:58, 121:200])
    assert covered(higher) / covered(line) == pytest.approx(8.5 / 8, rel=0.01)
    assert covered(apart) == pytest.approx(covered(line), rel=0.05)


def test_the_less_sure_the_detector_is_the_less_a_line_counts():
    found = [covered(probabilities(LINE, level=level)) for level in (0.95, 0.82, 0.78, 0.6)]
    assert all(less < more for more, less in pairwise(found))
    assert found[-1] == 0


def test_neither_a_speck_nor_a_giant_letter_is_a_line():
    assert covered(probabilities(np.s_[50:51, 40:44])) == 0
    assert covered(probabilities(np.s_[50:90, 40:80])) == 0


def test_real_frames_and_large_plain_shapes_have_no_text(detector, real_frames, still):
    scenes = [
        shapes.render(shapes.scene(0, number, held_out=False), 128, 1)[0, ..., ::-1].copy() for number in range(6)
    ]
    assert detector.score([still(picture) for picture in (*real_frames, *scenes)]) == 0


def test_the_mean_is_over_the_pictures(detector, real_frames, still):
    titled, plain = still(outline_font(real_frames[0], 2, 0.1)), still(real_frames[0])
    assert detector.score([titled, plain]) == pytest.approx(detector.score([titled]) / 2)


def test_the_same_picture_has_the_same_area_to_the_last_bit(detector, real_frames):
    titled = stroke_font(real_frames[0], 2, 0.1)
    assert detector.score([titled]) == RapidText(384).score([titled])


def test_a_package_without_the_model_is_named(monkeypatch):
    monkeypatch.setattr(text_area, "_MODEL", "absent.onnx")
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx.*set scores\.text_detector: strokes"):
        RapidText(384)


def test_strokes_find_lines_of_text_and_nothing_in_plain_pictures():
    page = np.full((144, 256, 3), 200, np.uint8)
    assert strokes(page) == 0
    for line in range(3):
        cv2.putText(page, "many words here", (10, 40 + 35 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
    assert 0.1 < strokes(page) < 0.6
    assert Strokes().score([page, np.zeros_like(page)]) == pytest.approx(strokes(page) / 2)
    smooth = np.broadcast_to(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (144, 256, 3)).copy()
    assert strokes(smooth) == 0
