"""Small videos as people have them: trimmed, of changing rate, cut out of a broadcast, damaged, of high dynamic range.

Each is made of 50 frames of 128 x 72, 25 per second, in two scenes of 25, so that what should be found is known. They
are drawn here. `python -m tests.odd_videos FOLDER` writes all of them.
"""

import struct
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT, FPS, SCENE = 128, 72, 25, 25


@lru_cache(maxsize=1)
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Two pictures, uint8 RGB, twice as large as a frame."""

    def picture(seed: int, colour: Sequence[int]) -> np.ndarray:
        random = np.random.default_rng(seed)
        size = (2 * WIDTH, 2 * HEIGHT)
        coarse = cv2.resize(random.normal(0, 35, (9, 16, 3)).astype(np.float32), size)
        fine = cv2.resize(random.normal(0, 18, (36, 64, 3)).astype(np.float32), size)
        return (coarse + fine + np.array(colour, np.float32)).clip(0, 255).astype(np.uint8)

    return picture(1, (150, 90, 60)), picture(2, (60, 110, 150))


def frame(place: int) -> np.ndarray:
    """Frame `place` of the film: the first picture pans, from frame 25 on the second does."""
    x, y = place % SCENE, place % SCENE // 2
    return scenes()[place // SCENE % 2][y : y + HEIGHT, x : x + WIDTH]


def film(count: int = 2 * SCENE) -> list[np.ndarray]:
    return [frame(place) for place in range(count)]


def write(
    path: Path,
    pictures: Sequence[np.ndarray] = (),
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    fps: int = FPS,
    gop: int = 250,
    b_frames: int = 2,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
) -> Path:
    """Write a video of one stream.

    Args:
        times: of each picture, in ticks of 1/fps.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=_options(codec, b_frames) | (options or {}))
        pictures = pictures or film()
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuvj420p" if codec == "mjpeg" else "yuv420p", gop
        stream.codec_context.thread_count = 1
        prepare(stream)
        if codec.startswith("mpeg"):
            stream.codec_context.max_b_frames, stream.codec_context.bit_rate = b_frames, 2_000_000
        for number, picture in enumerate(pictures):
            given = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            given.pts, given.time_base = times[number] if times else number, Fraction(1, fps)
            container.mux(stream.encode(given))
        container.mux(stream.encode(None))
    return path


def _options(codec: str, b_frames: int) -> dict[str, str]:
    if codec == "libx264":
        return {"preset": "veryfast", "crf": "18", "bf": str(b_frames)}
    if codec == "libx265":
        return {"preset": "ultrafast", "crf": "18", "x265-params": "log-level=none:pools=1"}
    if codec.startswith("libvpx"):
        return {"deadline": "realtime", "cpu-used": "8", "b:v": "1M"}
    return {}


def remux(
    source: Path,
    path: Path,
    keep: Callable[[int, av.Packet], bool],
    shift: int = 0,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
) -> Path:
    """Copy the packets that `keep(number, packet)` wants, `shift` ticks later."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        prepare(stream)
        for number, packet in enumerate(given.demux(given.streams.video[0])):
            if packet.size and keep(number, packet):
                packet.stream = stream
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                container.mux(packet)
    return path


def trimmed(source: Path, path: Path, start: float, keep: float | None = None) -> Path:
    """Hide the first `start` seconds by an edit list, and what comes `keep` seconds later, as phones do."""
    content = bytearray(source.read_bytes())
    at = content.index(b"elst") + 4
    length, begin = struct.unpack(">Ii", content[at + 8 : at + 16])
    scales = (content.index(box) + 16 for box in (b"mvhd", b"mdhd"))
    movie, media = (struct.unpack(">I", content[scale : scale + 4])[0] for scale in scales)
    left = length - round(start * movie) if keep is None else round(keep * movie)
    content[at + 8 : at + 16] = struct.pack(">Ii", left, begin + round(start * media))
    path.write_bytes(content)
    return path


def with_cover(source: Path, path: Path) -> Path:
    """Put a cover before the tracks, as what downloads videos with their thumbnails does: it becomes stream 0."""
    content = bytearray(source.read_bytes())

    def box(kind: bytes, *parts: bytes) -> bytes:
        return struct.pack(">I4s", 8 + sum(map(len, parts)), kind) + b"".join(parts)

    if (at := content.rfind(b"udta")) > 0:
        content[at : at + 4] = b"free"
    picture = cv2.imencode(".jpg", np.full((256, 256, 3), 128, np.uint8))[1].tobytes()
    data = box(b"data", struct.pack(">II", 13, 0), picture)
    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    added = box(b"udta", box(b"meta", bytes(4), handler, box(b"ilst", box(b"covr", data))))
    moov = content.rindex(b"moov") - 4
    size = struct.unpack(">I", content[moov : moov + 4])[0]
    content[moov : moov + 4] = struct.pack(">I", size + len(added))
    content[moov + 8 : moov + 8] = added
    path.write_bytes(content)
    return path


def with_small_track(path: Path, is_first: bool) -> Path:
    """A second video track, a small preview, beside the film."""
    with av.open(str(path), "w") as container:
        streams = []
        for is_small in (is_first, not is_first):
            stream = container.add_stream("libx264", rate=FPS, options=_options("libx264", 0))
            stream.width, stream.height = (64, 64) if is_small else (WIDTH, HEIGHT)
            stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
            streams.append((stream, is_small))
        for number, picture in enumerate(film()):
            for stream, is_small in streams:
                shown = np.full((64, 64, 3), 90, np.uint8) if is_small else np.ascontiguousarray(picture)
                given = av.VideoFrame.from_ndarray(shown, format="rgb24")
                given.pts, given.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(given))
        for stream, _ in streams:
            container.mux(stream.encode(None))
    return path


def media_recorder(path: Path) -> Path:
    """What a browser's MediaRecorder writes: no length, no index, no rate, times in milliseconds that jitter."""
    random = np.random.default_rng(3)
    times = [1000 * n // FPS + int(random.integers(-9, 9)) * (n > 0) for n in range(2 * SCENE)]
    write(path, times=times, fps=1000, codec="libvpx", container_options={"live": "1"})
    content = path.read_bytes()
    at = content.index(b"\x23\xe3\x83")  # DefaultDuration, which is made a Void of the same length
    length = content[at + 3] & 0x7F
    path.write_bytes(content[:at] + bytes([0xEC, 0x80 | length + 2]) + bytes(length + 2) + content[at + 4 + length :])
    return path


def joined(parts: Sequence[Path], path: Path, skip_bytes: int = 0) -> Path:
    """Write files one after the other; of all but the first, without their first `skip_bytes`."""
    first, *others = (part.read_bytes() for part in parts)
    path.write_bytes(first + b"".join(other[skip_bytes:] for other in others))
    return path


def spoilt(source: Path, path: Path, seed: int, bits: int, start: float = 0.35, end: float = 0.6) -> Path:
    """Turn some bits around in a part of the file."""
    content = bytearray(source.read_bytes())
    random = np.random.default_rng(seed)
    for at in random.integers(int(len(content) * start), int(len(content) * end), bits):
        content[at] ^= 1 << int(random.integers(8))
    path.write_bytes(content)
    return path


_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087


def hdr_coded(light: np.ndarray, kind: str) -> np.ndarray:
    """Code light as displayed, cd/m2 (..., 3), primaries of BT.2020, by PQ or HLG of ITU-R BT.2100: 0 to 1."""
    if kind == "pq":
        power = (light / 10_000) ** (2610 / 16384)
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32)
    displayed = (light / 1000).clip(0, 1)
    luma = np.maximum(displayed @ [0.2627, 0.6780, 0.0593], 1e-6)[..., None]
    scene = displayed * luma ** (1 / 1.2 - 1)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


def hdr(path: Path, pictures: Sequence[np.ndarray], kind: str, matrix: int = 9) -> Path:
    """Write standard pictures as a camera of high dynamic range stores them: white is 203 cd/m2 (ITU-R BT.2408)."""
    transfer = {"pq": 16, "hlg": 18}[kind]
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "8", "x265-params": "range=limited:log-level=none:pools=1"}
        stream = container.add_stream("libx265", rate=FPS, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, transfer, matrix
        for picture in pictures:
            coded = hdr_coded(203 * (picture / 255) ** 2.4 @ _TO_BT2020.T, kind)
            luma = coded @ [0.2627, 0.6780, 0.0593]
            blue, red = (coded[..., 2] - luma) / 1.8814, (coded[..., 0] - luma) / 1.4746
            given = av.VideoFrame(stream.width, stream.height, "yuv420p10le")
            given.colorspace, given.color_range = matrix, 1
            halves = [plane.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean((1, 3)) for plane in (blue, red)]
            values = [64 + 876 * luma, 512 + 896 * halves[0], 512 + 896 * halves[1]]
            for plane, value in zip(given.planes, values, strict=True):
                rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                rows[:, : value.shape[1]] = np.rint(value)
                plane.update(rows.tobytes())
            container.mux(stream.encode(given))
        container.mux(stream.encode(None))
    return path


def make(folder: Path) -> dict[str, Path]:
    """Write all of them; return them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = write(folder / "plain.mp4")
    short_gops = write(folder / "short_gops.mp4", gop=10)
    first, second = (film(2 * SCENE)[half * SCENE : (half + 1) * SCENE] for half in range(2))
    slow = [*range(SCENE), *range(SCENE, 2 * SCENE, 5)]  # 25 frames a second, then 5
    found = {
        "plain": plain,
        "trimmed": trimmed(plain, folder / "trimmed.mp4", 0.4),
        "trimmed_both": trimmed(short_gops, folder / "trimmed_both.mp4", 0.36, 1.28),
        "slows_down_mkv": write(folder / "slows_down.mkv", [frame(n) for n in slow], times=slow),
        "slows_down_mp4": write(folder / "slows_down.mp4", [frame(n) for n in slow], times=slow),
        "media_recorder": media_recorder(folder / "media_recorder.webm"),
        "cover": with_cover(plain, folder / "cover.mp4"),
        "small_first": with_small_track(folder / "small_first.mkv", is_first=True),
        "small_second": with_small_track(folder / "small_second.mkv", is_first=False),
        "b_frames_avi": write(folder / "b_frames.avi", gop=20),
        "b_frames_mpeg4": write(folder / "b_frames_mpeg4.avi", codec="mpeg4", gop=20),
        "open_gops_avi": write(folder / "open_gops.avi", gop=10, options={"x264-params": "open-gop=1"}),
        "b_pyramid_avi": write(folder / "b_pyramid.avi", gop=25, b_frames=5),
    }
    one, two = (write(folder / f"{name}.ts", part) for name, part in (("one", first), ("two", second)))
    found["clock_restarts"] = joined([one, two], folder / "clock_restarts.ts")
    later = remux(two, folder / "later.ts", lambda number, packet: True, shift=90_000 * 3600)
    found["clock_jumps"] = joined([one, later], folder / "clock_jumps.ts")
    flvs = [write(folder / f"{name}.flv", part) for name, part in (("one", first), ("two", second))]
    found["clock_restarts_flv"] = joined(flvs, folder / "clock_restarts.flv", skip_bytes=13)
    stream = write(folder / "stream.ts", gop=10)
    found["stream"] = stream
    found["out_of_step"] = folder / "out_of_step.ts"
    found["out_of_step"].write_bytes(stream.read_bytes()[100:])
    found["m2ts"] = folder / "camera.ts"
    packets = [stream.read_bytes()[at : at + 188] for at in range(0, stream.stat().st_size, 188)]
    found["m2ts"].write_bytes(b"".join(struct.pack(">I", at * 2700) + packet for at, packet in enumerate(packets)))
    found["late_start_ts"] = remux(stream, folder / "late_start.ts", lambda number, packet: number >= 4)
    found["late_start_mkv"] = remux(short_gops, folder / "late_start.mkv", lambda number, packet: number >= 4)
    open_gops = write(folder / "open_gops.ts", gop=10, options={"x264-params": "open-gop=1"})
    keys = _keys(open_gops)
    found["open_start"] = remux(open_gops, folder / "open_start.ts", lambda number, packet: number >= keys[1])
    parameters = "log-level=none:pools=1:keyint=10:min-keyint=10:scenecut=0:open-gop=1"
    hevc = write(folder / "hevc.mp4", codec="libx265", options={"x265-params": parameters})
    keys = _keys(hevc)
    found["open_start_hevc"] = remux(hevc, folder / "open_start_hevc.mkv", lambda number, packet: number >= keys[1])
    return found


def _keys(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.video[0])
        return [number for number, packet in enumerate(packets) if packet.is_keyframe]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
