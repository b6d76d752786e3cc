"""What comes out of a file is upright, progressive, of square pixels, and in its own colours, however it was coded."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tasks.decoding import decode, planes, probe
from tasks.decoding.clip_frames import clip_frames
from tasks.decoding.limits import Limits
from tasks.demo import corpus

# Of coding flat areas at crf 1 to 10, and rounding twice: 8-bit limited range has 219 levels for 255.
LEVELS = 4
BT601, BT709 = 5, 1  # as PyAV numbers the target of a conversion


@pytest.fixture(scope="session")
def limits(sandbox_settings) -> Limits:
    return Limits(**{name: getattr(sandbox_settings, name) for name in Limits._fields})


def patches(height: int = 64, width: int = 128) -> np.ndarray:
    """A picture of six flat colours, no two corners alike, uint8 RGB."""
    colours = [[(200, 40, 40), (40, 200, 40), (40, 40, 200)], [(230, 230, 230), (20, 20, 20), (210, 180, 60)]]
    return cv2.resize(np.array(colours, np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)


def write(
    path: Path,
    pictures: list[np.ndarray],
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    options: dict | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
    pts: list[int] | None = None,
    **conversion: int,
) -> Path:
    """Write RGB pictures; `prepare` changes the stream before the first, `conversion` how they become Y, U, V."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "4"} if options is None else options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        prepare(stream)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt, **conversion)
            frame.pts, frame.time_base = number if pts is None else pts[number], Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def small(path: Path, limits: Limits, pixels: int = 128, measure_every: int = 2) -> list[decode.Picture]:
    with decode.open_video(str(path), limits) as opened:
        return list(decode.pictures(opened, decode.decoded(opened), pixels, measure_every))


def clip(path: Path, limits: Limits, height: int, width: int, frames: int = 1) -> dict:
    return clip_frames(str(path), limits, 0, 10**9, frames, 1, height, width)


def middles(picture: np.ndarray) -> np.ndarray:
    """The colours in the middle of the six patches: away from the edges, which coding and scaling soften."""
    rows, columns = picture.shape[0] * np.array([1, 3]) // 4, picture.shape[1] * np.array([1, 3, 5]) // 6
    return picture[np.ix_(rows, columns)].astype(int)


def assert_colours(path: Path, limits: Limits, wanted: np.ndarray) -> None:
    """Both readers give the colours of `wanted` (RGB), at its size."""
    shown = small(path, limits, max(wanted.shape))[0].bgr[..., ::-1]
    taken = clip(path, limits, *wanted.shape[:2])["frames"][0]
    for found in (shown, taken):
        assert found.shape == wanted.shape
        assert np.abs(middles(found) - middles(wanted)).max() <= LEVELS


@pytest.mark.parametrize(
    ("degrees", "across", "down"),
    [
        (0, False, False),
        (90, False, False),
        (180, False, False),
        (-90, False, False),
        (0, True, False),
        (90, False, True),
    ],
)
def test_what_was_filmed_on_its_side_or_mirrored_is_upright(tmp_path, limits, degrees, across, down):
    def turn(stream: av.VideoStream) -> None:
        stream.set_display_rotation(degrees, hflip=across, vflip=down)

    path = write(tmp_path / "a.mp4", [patches()], prepare=turn)
    wanted = np.rot90(patches(), degrees // 90)
    wanted = wanted[:, ::-1] if across else wanted
    wanted = wanted[::-1] if down else wanted
    probed = probe.probe(str(path), limits)
    assert (probed["height"], probed["width"]) == wanted.shape[:2]
    shown, taken = small(path, limits)[0].bgr[..., ::-1], clip(path, limits, *wanted.shape[:2])["frames"][0]
    for found in (shown, taken):
        assert np.abs(found.astype(int) - wanted).mean() <= LEVELS


def test_pixels_that_are_not_square_are_stretched(tmp_path, limits):
    def stretch(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    path = write(tmp_path / "a.mp4", [patches(64, 64)], prepare=stretch)
    probed = probe.probe(str(path), limits)
    assert (probed["width"], probed["height"]) == (128, 64)
    assert_colours(path, limits, patches(64, 128))


def test_pixels_too_odd_to_show_are_refused(tmp_path, limits):
    def stretch(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(9, 1)

    path = write(tmp_path / "a.mkv", [patches()], prepare=stretch)
    assert (probe.probe(str(path), limits)["reason"], clip(path, limits, 64, 64)["reason"]) == ("pixel_aspect",) * 2


def test_of_an_interlaced_frame_one_field_is_taken(tmp_path, limits):
    upper, lower = patches(), 255 - patches()
    woven = upper.copy()
    woven[1::2] = lower[1::2]
    options = {"x264-params": "interlaced=1:tff=1", "crf": "1"}
    # 4:2:2, because in 4:2:0 made of a woven picture each line of chroma is of both fields
    path = write(tmp_path / "a.mp4", [woven] * 3, "yuv422p", options=options)
    assert_colours(path, limits, upper)


@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "nv12", "yuv420p10le", "yuv422p10le", "yuv444p10le"],
)
def test_every_layout_of_planes_gives_the_same_colours(tmp_path, limits, pix_fmt):
    assert_colours(write(tmp_path / "a.mp4", [patches()], pix_fmt), limits, patches())


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgra", "gbrp", "yuyv422", "yuva420p", "yuv411p", "gray", "gray10le"])
def test_other_layouts_are_shrunk_too(pix_fmt):
    wanted = patches()
    if "gray" in pix_fmt:
        wanted = cv2.cvtColor(cv2.cvtColor(wanted, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    frame = av.VideoFrame.from_ndarray(wanted, format="rgb24").reformat(format=pix_fmt)
    found = planes.shrink(frame, planes.shown(frame, None), 96, 48, is_fine=True)
    assert np.abs(middles(found.bgr[..., ::-1]) - middles(wanted)).max() <= LEVELS
    assert np.abs(middles(found.grey) - middles(cv2.cvtColor(wanted, cv2.COLOR_RGB2GRAY))).max() <= LEVELS


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv420p10le"])
def test_a_still_keeps_its_colours_and_is_the_mean_of_what_is_too_fine_for_it(pix_fmt):
    """Of 8 x 8 pixels and more, in place of the 2 x 2 of a bilinear resize: a quarter of the deviation."""
    grainy = patches(480, 960)
    grainy[:, 480:] = np.random.default_rng(0).integers(30, 220, (480, 480, 1))
    frame = av.VideoFrame.from_ndarray(grainy, format="rgb24").reformat(format=pix_fmt)
    found = planes.shrink(frame, planes.shown(frame, None), 96, 48, is_fine=True)
    assert found.still is not None
    assert np.abs(middles(found.still)[:, :1, ::-1] - middles(grainy)[:, :1]).max() <= LEVELS
    assert found.still[:, 50:].std() < found.bgr[:, 50:].std() / 3


@pytest.mark.parametrize(("width", "height"), [(127, 65), (101, 99), (66, 98)])
def test_odd_sizes_keep_their_colours_and_size(tmp_path, limits, width, height):
    path = write(tmp_path / "a.webm", [patches(height, width)], codec="libvpx-vp9", options={"crf": "4", "b:v": "0"})
    probed = probe.probe(str(path), limits)
    assert (probed["width"], probed["height"]) == (width, height)
    assert_colours(path, limits, patches(height, width))


@pytest.mark.parametrize("colour_space", [BT601, BT709])
@pytest.mark.parametrize("colour_range", [1, 2])
def test_colours_are_those_of_the_videos_own_matrix_and_range(tmp_path, limits, colour_space, colour_range):
    def declare(stream: av.VideoStream) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_range = colour_space, colour_range

    conversion = {"dst_colorspace": colour_space, "dst_color_range": colour_range}
    assert_colours(write(tmp_path / "a.mp4", [patches()], prepare=declare, **conversion), limits, patches())


def test_times_are_presentation_timestamps_of_whatever_rate(tmp_path, limits):
    pts = [0, 1, 2, 10, 11, 40, 45]
    path = write(tmp_path / "a.mkv", [patches()] * 7, pts=pts)
    with decode.open_video(str(path), limits) as opened:
        seconds = [
            float(one.pts * opened.stream.time_base) for one in decode.pictures(opened, decode.decoded(opened), 64, 5)
        ]
    assert seconds == pytest.approx([time / 25 for time in pts], abs=0.001)  # Matroska counts milliseconds


def test_a_picture_that_changes_its_size_keeps_the_size_of_the_analysis_and_makes_no_clip(tmp_path, limits):
    first = write(tmp_path / "1.ts", [patches()] * 10)
    second = write(tmp_path / "2.ts", [patches(96, 96)] * 10, pts=list(range(30, 40)))
    path = tmp_path / "a.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    found = small(path, limits)
    assert len(found) == 20
    assert {one.bgr.shape for one in found} == {(64, 128, 3)}
    start, end = found[0].pts, found[-1].pts
    taken = clip_frames(str(path), limits, start, end, 12, 1, 64, 64)
    assert (taken["status"], taken["reason"]) == ("rejected", "size_changes")
    assert clip_frames(str(path), limits, start, end, 8, 1, 64, 64)["status"] == "ok"


def test_what_is_free_of_aliasing_is_made_where_it_is_measured_and_on_the_frame_before(tmp_path, limits):
    found = small(write(tmp_path / "a.mp4", [patches()] * 12), limits, measure_every=5)
    assert [one.index for one in found if one.is_measured] == [5, 10]
    assert [one.index for one in found if one.grey is not None] == [0, 4, 5, 9, 10]
    assert [one.still is None for one in found] == [one.grey is None for one in found]


def test_a_small_picture_is_like_one_made_of_the_frame_in_full_colour(limits):
    """PySceneDetect converts the whole frame, then resizes it: its scores must come out the same from ours."""
    scores: dict[str, list[float]] = {"ours": [], "full": []}
    with decode.open_video(str(corpus.packaged_file("bikes")), limits) as opened:
        before = None
        for index, frame in enumerate(decode.decoded(opened)):
            if index == 60:
                break
            how = decode.shown(opened, frame)
            size = planes.analysis_size(how.width, how.height, 256)
            full = cv2.resize(frame.to_ndarray(format="bgr24"), size, interpolation=cv2.INTER_LINEAR)
            now = (planes.shrink(frame, how, *size, is_fine=False).hsv, cv2.cvtColor(full, cv2.COLOR_BGR2HSV))
            if before is not None:
                for name, one, other in zip(scores, before, now, strict=True):
                    scores[name].append(cv2.norm(one, other, cv2.NORM_L1) / one.size)
            before = now
    assert np.corrcoef(scores["ours"], scores["full"])[0, 1] > 0.99
    assert np.abs(np.subtract(scores["ours"], scores["full"])).max() < 2.7  # a tenth of what makes a cut


def test_a_thin_stripe_pattern_is_grey_at_the_size_of_the_analysis(tmp_path, limits):
    """Lines as fine as a pixel: without averaging, every size would show another pattern of them."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    found = small(write(tmp_path / "a.mp4", [stripes] * 2, options={"crf": "1"}), limits, measure_every=1)[1]
    assert found.grey is not None
    assert found.grey.std() < 10
    assert found.grey.mean() == pytest.approx(127, abs=6)
