"""Files of people that a model is given: what is made of their size, their rate and their oddities."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.applications import given
from tasks.applications.given import Video
from tasks.decoding import picture_file
from tasks.decoding.limits import Limits
from tasks.latents.frames import FrameSource, decoded
from tasks.latents.settings import LatentSettings
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic
from tasks.storage.object_cache import ObjectCache

HEIGHT, WIDTH = 32, 48
RED, BLUE = (230, 20, 20), (20, 20, 230)


@pytest.fixture(scope="module")
def sandbox(sandbox_settings):
    with Sandbox(sandbox_settings.model_copy(update={"workers": 1})) as opened:
        yield opened


@pytest.fixture(scope="module")
def video(sandbox, tmp_path_factory, write_video, moving_frames) -> Video:
    """A square video of 30 frames, 24 per second."""
    path = write_video(tmp_path_factory.mktemp("given") / "square.mp4", moving_frames(30))
    return given.open_video(sandbox, "--video", path)


def test_frames_of_a_video_are_those_of_a_training_clip_bit_for_bit(sandbox, video, tmp_path):
    settings = LatentSettings(
        height=HEIGHT, width=WIDTH, frames=4, stride_frames=3, shard_clips=1, part_bytes=1, max_failed_fraction=0.0
    )
    clip = {
        "clip": "c",
        "uri": video.file.name,
        "video": atomic.sha256_file(video.file),
        "start_pts": int(video.times[20]),
        "end_pts": int(video.times[-1]) + 1,
        "repairs": [],
    }
    with decoded([clip], FrameSource(str(video.file.parent), settings, sandbox, ObjectCache(tmp_path, 1))) as found:
        (trained,) = found
    last = given.last_frames(sandbox, video, 4, 3, HEIGHT, WIDTH)
    assert last.places == (20, 23, 26, 29) and last.fps == 24
    assert np.array_equal(last.frames, trained["frames"])
    assert last.shown == (96, 96) and last.used == (96, 64), "never stretched: top and bottom are cut off"
    assert last.told.endswith("square.mp4 is 96 x 96 pixels: its middle 96 x 64 pixels at 48 x 32")
    whole = given.every_frame(sandbox, video, 4, HEIGHT, WIDTH)
    assert whole.places == tuple(range(0, 30, 4)) and len(whole.frames) == 8
    assert np.array_equal(whole.frames[5], last.frames[0]), "frame 20"


def test_too_few_frames_are_refused_with_both_numbers(sandbox, video):
    with pytest.raises(
        ValueError, match=r"has 30 frames, but 11 frames that are 3 apart are to be given: that takes 31"
    ):
        given.last_frames(sandbox, video, 11, 3, HEIGHT, WIDTH)


def halves() -> np.ndarray:
    """A picture, red on its left and blue on its right, of the shape of the video."""
    picture = np.empty((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    picture[:, :WIDTH], picture[:, WIDTH:] = RED, BLUE
    return picture


def turned(path: Path) -> None:
    image = Image.fromarray(np.rot90(halves()))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter to the right when it is shown
    image.save(path.with_suffix(".jpg"), exif=exif, quality=95)


def palette(path: Path) -> None:
    Image.fromarray(halves()).quantize(4).save(path.with_suffix(".png"))


def cmyk(path: Path) -> None:
    Image.fromarray(halves()).convert("CMYK").save(path.with_suffix(".tiff"))


def webp(path: Path) -> None:
    Image.fromarray(halves()).save(path.with_suffix(".webp"), lossless=True)


@pytest.mark.parametrize("save", [turned, palette, cmyk, webp])
def test_a_picture_of_any_kind_is_upright_and_rgb(sandbox, tmp_path, save):
    save(tmp_path / "picture")
    (path,) = tmp_path.iterdir()
    found = given.read_picture(sandbox, "--image", path, HEIGHT, WIDTH)
    assert found.frames.shape == (1, HEIGHT, WIDTH, 3) and found.shown == (2 * WIDTH, 2 * HEIGHT)
    for part, colour in ((found.frames[0, :, :20], RED), (found.frames[0, :, 28:], BLUE)):
        assert np.abs(part.astype(int) - colour).max() < 12


def test_what_is_transparent_is_white_and_grey_of_16_bits_is_grey(sandbox, tmp_path):
    clear = np.dstack([halves(), np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)])
    clear[:, :WIDTH, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    found = given.read_picture(sandbox, "--image", tmp_path / "clear.png", HEIGHT, WIDTH).frames[0]
    assert np.abs(found[:, :20].astype(int) - RED).max() < 4 and found[:, 28:].min() == 255
    Image.fromarray(np.full((64, 96), 128 * 257, np.uint16)).save(tmp_path / "deep.png")
    found = given.read_picture(sandbox, "--image", tmp_path / "deep.png", HEIGHT, WIDTH).frames[0]
    assert (found == 128).all()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.png", b"words", r"--image .*no\.png cannot be used \(not_a_picture\): The file is no PNG"),
        ("half.png", None, r"\(unreadable\)"),
        ("gone.png", b"", r"\(empty_file\)"),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused_with_the_reason(sandbox, tmp_path, name, content, said):
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "whole.png")
        content = (tmp_path / "whole.png").read_bytes()[:5000]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        given.read_picture(sandbox, "--image", tmp_path / name, HEIGHT, WIDTH)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(sandbox_settings, tmp_path):
    Image.fromarray(halves()).save(tmp_path / "large.png")
    limits = Limits(**sandbox_settings.model_dump(exclude={"workers"}) | {"max_pixels": 1000})
    found = picture_file.picture_file(str(tmp_path / "large.png"), limits, HEIGHT, WIDTH)
    assert found == {"status": "rejected", "reason": "too_many_pixels"}


def test_a_file_that_is_no_video_is_refused_with_the_reason(sandbox, tmp_path):
    (tmp_path / "words.mp4").write_text("words")
    with pytest.raises(ValueError, match=r"--video .*words\.mp4 cannot be used \(not_a_video\): The first bytes"):
        given.open_video(sandbox, "--video", tmp_path / "words.mp4")
