from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks import score_text, shapes
from tasks.score_text import RapidText, Strokes, strokes

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


def test_text_area_is_that_of_the_same_frames_encoded_again_or_at_twice_the_size(
    detector, real_frames, through_h264, twice_the_size, still
):
    titled = [outline_font(frame, 2, height) for frame in real_frames[1:3] for height in (0.08, 0.12)]
    area = detector.score([still(picture) for picture in titled])
    assert detector.score([still(through_h264(picture, 23)) for picture in titled]) == pytest.approx(area, rel=0.05)
    assert detector.score([still(twice_the_size(picture)) for picture in titled]) == pytest.approx(area, rel=0.05)


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
    monkeypatch.setattr(score_text, "_MODEL", "absent.onnx")
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
