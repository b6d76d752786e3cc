"""Limits of the sandbox. Values live in params.yaml, types here."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from stiv_model.settings import Fraction, Settings

DECIDE_NOTHING = {"workers", "strict"}
"""Settings that decide about no row of a stage that opens raw videos."""


class SandboxSettings(Settings):
    """Limits of the child process in which a raw video is opened (one per file)."""

    strict: bool
    """true: open no video on a machine whose kernel lacks one of the protections; false: warn and go on. `stiv doctor`
    names what is lacking."""
    seconds: PositiveFloat
    """Time in which the process that decodes one file must end, wall clock and CPU, without what `seconds_per_frame`
    adds."""
    seconds_per_frame: NonNegativeFloat
    """Seconds added to the time limit for each frame of the file, where an earlier stage has counted them."""
    max_seconds: PositiveFloat
    """Upper bound of the time limit, seconds + seconds_per_frame x frames."""
    memory_bytes: PositiveInt
    """Most resident memory that the process decoding one file may use, bytes."""
    max_result_bytes: PositiveInt
    """Largest result that the process decoding one file may write, bytes; it can write to no other file."""
    formats: list[Literal["mov", "matroska", "avi", "mpegts", "flv"]]
    """Containers that are opened, by FFmpeg's names; mov is mp4 too, matroska webm too."""
    codecs: list[Literal["h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores"]]
    """Codecs that are decoded, by FFmpeg's names."""
    max_size_bytes: PositiveInt
    """Largest file that is opened, bytes."""
    max_pixels: PositiveInt
    """Most pixels of one picture, height x width, in the container's header and in what is decoded."""
    max_side: PositiveInt
    """Largest width or height of a picture, pixels."""
    min_fps: NonNegativeFloat
    """Fewest frames per second of a video that is opened."""
    max_fps: PositiveFloat
    """Most frames per second of a video that is opened."""
    max_streams: PositiveInt
    """Most streams of a file: video, sound and subtitles together."""
    max_frames: PositiveInt
    """Most frames that are decoded of one file, whatever its header claims."""
    max_decoded_bytes: PositiveInt
    """Most bytes that all decoded frames of a file may have together; they are never in memory together."""
    max_expansion: PositiveFloat
    """Most bytes of decoded frames per byte of the file, a guard against decompression bombs; stage videos warns of a
    file whose header announces a tenth of it."""
    max_broken: Fraction
    """Largest share of a video's packets that may fail to decode."""
    max_broken_run: PositiveInt
    """Most packets in a row that may fail to decode."""
    probe_bytes: PositiveInt
    """Most bytes of a file that FFmpeg may read to find its streams."""
    workers: PositiveInt
    """Video files opened at the same time, each in a child process of its own."""
