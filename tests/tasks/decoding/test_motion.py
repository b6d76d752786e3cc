import cv2
import numpy as np
import pytest

from tasks.decoding import decode, motion
from tasks.decoding.limits import Limits
from tasks.demo import corpus

HEIGHT, WIDTH = 144, 256
DIAGONAL = float(np.hypot(HEIGHT, WIDTH))
TENTH_OF_A_PIXEL = 100 * 0.1 / DIAGONAL


def texture(seed: int = 0, height: int = 400, width: int = 500) -> np.ndarray:
    """Grey blobs of all sizes, uint8."""
    random, picture = np.random.default_rng(seed), np.zeros((height, width))
    for size in (4, 8, 16, 32):
        coarse = random.uniform(-1, 1, (height // size + 2, width // size + 2)).astype(np.float32)
        picture += size * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(picture, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture(scope="module", params=["made", "bigbuckbunny", "bikes"])
def scene(request, sandbox_settings) -> np.ndarray:
    """A large grey picture to look at through a window: made, or a frame of a real video."""
    if request.param == "made":
        return texture()
    limits = Limits(**{name: getattr(sandbox_settings, name) for name in Limits._fields})
    with decode.open_video(str(corpus.packaged_file(request.param)), limits) as opened:
        frames = decode.decoded(opened)
        frame = next(frame for index, frame in enumerate(frames) if index == 100)
        picture = frame.to_ndarray(format="gray")
        frames.close()
    return cv2.resize(picture, (500, 500 * picture.shape[0] // picture.shape[1]), interpolation=cv2.INTER_AREA)


def window(scene: np.ndarray, x: float = 0, y: float = 0, zoom: float = 1.0) -> np.ndarray:
    """What a camera sees that looks `x`, `y` pixels from the middle."""
    middle = np.array([scene.shape[1] / 2 + x, scene.shape[0] / 2 + y])
    transform = np.array([[zoom, 0, middle[0] - zoom * WIDTH / 2], [0, zoom, middle[1] - zoom * HEIGHT / 2]])
    return cv2.warpAffine(
        scene, transform, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )


def with_object(picture: np.ndarray, left: int, seed: int = 7) -> np.ndarray:
    """The picture with a textured square of 40 pixels before it."""
    picture = picture.copy()
    picture[60:100, left : left + 40] = texture(seed)[:40, :40]
    return picture


@pytest.mark.parametrize(("x", "y"), [(3, 0), (-3, 0), (0, 2), (0, -2)])
def test_motion_has_the_amount_and_sign_of_a_pan(x, y):
    scene = texture()
    found = motion.between(window(scene), window(scene, -x, -y))  # what is seen moves against the camera
    assert found.x == pytest.approx(100 * x / WIDTH, abs=2 * TENTH_OF_A_PIXEL)
    assert found.y == pytest.approx(100 * y / HEIGHT, abs=4 * TENTH_OF_A_PIXEL)
    assert found.camera == pytest.approx(100 * np.hypot(x, y) / DIAGONAL, abs=TENTH_OF_A_PIXEL)


def test_the_faster_the_pan_the_more_motion_all_of_it_the_cameras(scene):
    found = [motion.between(window(scene), window(scene, x)) for x in (0, 1, 2, 4, 8, 16)]
    assert np.all(np.diff([one.amount for one in found]) > 0)
    wanted = [100 * x / DIAGONAL for x in (0, 1, 2, 4, 8, 16)]
    np.testing.assert_allclose([one.camera for one in found], wanted, atol=TENTH_OF_A_PIXEL)
    assert all(one.objects < 2 * TENTH_OF_A_PIXEL + 0.1 * one.amount for one in found)


@pytest.mark.parametrize("zoom", [0.98, 1.02])
def test_a_zoom_is_the_cameras(scene, zoom):
    """A zoom by 2 % moves a pixel by 2 % of its distance from the middle."""
    found = motion.between(window(scene), window(scene, zoom=zoom))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(x - WIDTH / 2, y - HEIGHT / 2).mean()
    assert found.camera == pytest.approx(100 * 0.02 * distance / DIAGONAL, rel=0.2)
    assert found.objects < found.camera


def test_the_faster_an_object_the_more_object_motion_and_the_camera_stands_still(scene):
    before = with_object(window(scene), 80)
    found = [motion.between(before, with_object(window(scene), 80 + x)) for x in (0, 1, 2, 4, 8)]
    assert np.all(np.diff([one.objects for one in found]) > 0)
    assert max(one.camera for one in found) < TENTH_OF_A_PIXEL


def test_an_objects_motion_is_told_from_the_cameras_while_both_move(scene):
    both = motion.between(with_object(window(scene), 80), with_object(window(scene, 3), 83))
    pan = motion.between(window(scene), window(scene, 3))
    assert both.camera == pytest.approx(pan.camera, abs=2 * TENTH_OF_A_PIXEL)
    assert both.objects > 5 * max(pan.objects, TENTH_OF_A_PIXEL)


def test_what_moves_over_a_flat_background_is_an_object():
    before, after = np.full((HEIGHT, WIDTH), 90, np.uint8), np.full((HEIGHT, WIDTH), 90, np.uint8)
    before[50:90, 60:100], after[50:90, 63:103] = 200, 200
    found = motion.between(before, after)
    assert found.camera == 0
    assert found.objects > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_an_edge_does_not_slide_along_itself(seed):
    """A flat square tells how it moves at its corners alone: along its edges the estimator's vectors are guesses."""
    random = np.random.default_rng(seed)
    ground = np.tile(np.linspace(60, 120, WIDTH), (HEIGHT, 1))
    pictures = []
    for top in (30, 33):
        picture = ground + random.normal(0, 1, ground.shape)
        picture[top : top + 70, 90:160] = 170
        pictures.append(picture.round().astype(np.uint8))
    found = motion.between(*pictures)
    assert found.amount == pytest.approx(100 * 3 / DIAGONAL, rel=0.25)
    assert found.y == pytest.approx(100 * 3 / HEIGHT, rel=0.25)
    assert abs(found.x) * WIDTH < 0.1 * found.y * HEIGHT


def test_what_goes_all_ways_at_once_goes_nowhere(scene):
    """A zoom has every direction; a pan has one, and its parts are those of the whole motion."""
    zoom = motion.between(window(scene), window(scene, zoom=0.96))
    pan = motion.between(window(scene), window(scene, 4, 2))
    for found, least, most in ((zoom, 0.0, 0.3), (pan, 0.8, 1.0)):
        length = np.hypot(found.x * WIDTH, found.y * HEIGHT) / (found.amount * DIAGONAL)
        assert least <= length <= most + 1e-6


def test_a_still_picture_a_flash_and_noise_do_not_move(scene):
    still, random = window(scene), np.random.default_rng(0)
    noisy = [cv2.add(still, random.normal(0, 3, still.shape), dtype=cv2.CV_8U) for _ in range(2)]
    for before, after in ((still, still), (still, cv2.convertScaleAbs(still, alpha=0.85)), noisy):
        found = motion.between(before, after)
        assert max(found.amount, found.camera, found.objects) < 3 * TENTH_OF_A_PIXEL


def test_fog_that_drifts_and_lifts_does_not_move(scene):
    random = np.random.default_rng(0)
    drifts = cv2.GaussianBlur(random.normal(0, 1, (HEIGHT, WIDTH + 1)), (0, 0), 25)
    fog = 180 + 25 * drifts / drifts.std()
    before, after = (
        np.clip((1 - thick) * window(scene) + thick * one + random.normal(0, 1, one.shape), 0, 255).astype(np.uint8)
        for thick, one in ((0.9, fog[:, :-1]), (0.87, fog[:, 1:]))
    )
    found = motion.between(before, after)
    assert max(found.amount, found.objects) < TENTH_OF_A_PIXEL


def test_the_cameras_motion_goes_with_the_background_and_is_not_switched():
    """A part of the picture pans, the rest moves at random: the camera's motion comes with that part's width."""
    at_random = np.random.default_rng(0).uniform(-20, 20, (HEIGHT, WIDTH, 2)).astype(np.float32)
    found = []
    for width in range(WIDTH // 8, WIDTH, 8):
        vectors = at_random.copy()
        vectors[:, :width] = 3, 0
        found.append(motion.camera_transform(texture()[:HEIGHT, :WIDTH], vectors)[0, 2])
    steps = np.diff(found)
    assert found[0] == pytest.approx(0) and found[-1] == pytest.approx(3, abs=0.1)
    assert steps.min() > -0.1 and steps.max() < 1


@pytest.mark.parametrize("height", [48, 49, 50, 51])
@pytest.mark.parametrize("width", [60, 61, 62, 63])
def test_a_pan_is_seen_at_any_size(height, width):
    before, after = (texture()[100 : 100 + height, x : x + width].copy() for x in (102, 100))
    found = motion.between(before, after)
    assert found.camera == pytest.approx(100 * 2 / np.hypot(height, width), rel=0.1)
    assert found.x == pytest.approx(100 * 2 / width, rel=0.3)


def test_the_same_pair_gives_the_same_values(scene):
    first, second = window(scene), with_object(window(scene, 2, 1, 0.99), 50)
    assert motion.between(first, second)[:5] == motion.between(first, second)[:5]


def test_motion_does_not_depend_on_pictures_that_were_measured_before():
    before, after = (window(texture(), x) for x in (0, 2))
    alone = motion.dense(before, after)
    motion.dense(before[:16, :16].copy(), after[:16, :16].copy())
    np.testing.assert_array_equal(motion.dense(before, after), alone)
