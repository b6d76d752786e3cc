import numpy as np
import pytest

from tasks.scores.colours import colour_shares, main_colours, orientation


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.broadcast_to(np.array([blue, green, red], np.uint8), (72, 128, 3)).copy()


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 20, 20), "red"),
        ((250, 130, 10), "orange"),
        ((240, 230, 30), "yellow"),
        ((30, 180, 40), "green"),
        ((20, 210, 220), "cyan"),
        ((20, 40, 220), "blue"),
        ((110, 20, 190), "purple"),
        ((240, 30, 230), "pink"),
        ((110, 60, 20), "brown"),
        ((5, 5, 5), "black"),
        ((250, 250, 250), "white"),
        ((128, 128, 128), "grey"),
    ],
)
def test_colours_have_their_names(rgb, name):
    assert main_colours([plain(*rgb)]) == [name]


def test_the_colour_that_fills_most_comes_first():
    picture = plain(220, 20, 20)
    picture[:20] = (220, 40, 20)
    assert main_colours([picture]) == ["red", "blue"]


def test_colour_shares_add_up():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert sum(colour_shares(noise).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("width", "height", "name"), [(640, 360, "landscape"), (360, 640, "portrait"), (100, 98, "square")]
)
def test_orientation(width, height, name):
    assert orientation(width, height) == name
