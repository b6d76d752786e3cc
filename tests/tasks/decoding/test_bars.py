import cv2
import numpy as np
import pytest

from tasks.decoding import bars

HEIGHT, WIDTH = 144, 256
LINE = 1 / HEIGHT  # of the picture; a column is less


def scene(seed: int = 0, darkest: int = 30) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(darkest, 220, (9, 16)).astype(np.float32)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).clip(darkest, 255).astype(np.uint8)


def barred(picture: np.ndarray, rows: int = 0, columns: int = 0, levels: int = 0) -> np.ndarray:
    """The picture behind bars of so many rows above and below, and columns on either side."""
    out = np.full_like(picture, levels)
    out[rows : HEIGHT - rows, columns : WIDTH - columns] = picture[rows : HEIGHT - rows, columns : WIDTH - columns]
    return out


def share(*pictures: np.ndarray) -> float | None:
    return bars.share([bars.profile(picture) for picture in pictures])


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (8, 0), (18, 0), (40, 0), (0, 32), (0, 60), (18, 32)])
def test_bars_are_measured_in_their_thickness(rows, columns):
    wanted = 1 - (1 - 2 * rows / HEIGHT) * (1 - 2 * columns / WIDTH)
    assert share(barred(scene(), rows, columns)) == pytest.approx(wanted, abs=LINE / 2)


def test_bars_are_found_in_noise_and_if_they_are_not_quite_black():
    noise = np.random.default_rng(0).normal(0, 4, (HEIGHT, WIDTH))
    picture = cv2.add(barred(scene(), rows=18, levels=6), noise, dtype=cv2.CV_8U)
    assert share(picture) == pytest.approx(2 * 18 / HEIGHT, abs=LINE)


def test_a_bar_on_one_side_counts():
    picture = scene()
    picture[:20] = 0
    assert share(picture) == pytest.approx(20 / HEIGHT, abs=LINE / 2)


def test_dark_scenes_have_no_bars():
    night = np.linspace(0, 160, HEIGHT)[:, None].repeat(WIDTH, axis=1).astype(np.uint8)  # black sky, light below
    moon = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (128, 72), 25, 255, -1)
    murky = np.random.default_rng(0).normal(14, 4, (HEIGHT, WIDTH)).clip(0, 255).astype(np.uint8)
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert [share(picture) for picture in (night, moon, murky, black)] == [0, 0, 0, 0]


def test_one_picture_with_light_at_the_edge_shows_that_darkness_there_is_no_bar():
    dark_edge = barred(scene(), rows=18)
    assert share(dark_edge, dark_edge) > 0.2
    assert share(dark_edge, scene()) == 0


def test_bars_are_found_though_most_of_the_shot_is_dark():
    assert share(barred(scene(darkest=0) // 8, rows=18), barred(scene(), rows=18)) == pytest.approx(0.25, abs=LINE)


def test_nothing_measured_is_null():
    assert share() is None
