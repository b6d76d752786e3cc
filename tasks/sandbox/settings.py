"""Limits of the sandbox. Values live in params.yaml, types here."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from stiv_model.settings import Fraction, Settings

DECIDE_NOTHING = {"workers", "strict"}
"""Settings that decide about no row of a stage that opens raw videos."""


class SandboxSettings(Settings):
    """Limits of the child process in which a raw video is opened (one per file)."""

    strict: bool
    """Refuse to open any video on a machine that cannot confine the child in every way; else warn and go on."""
    seconds: PositiveFloat
    """Wall and CPU time for one file, before `seconds_per_frame` is added."""
    seconds_per_frame: NonNegativeFloat
    """Added to `seconds` for each frame that an earlier stage counted."""
    max_seconds: PositiveFloat
    """Upper bound of seconds + seconds_per_frame x frames."""
    memory_bytes: PositiveInt
    """Upper bound of the child's resident memory."""
    max_result_bytes: PositiveInt
    """Upper bound of the child's result file, the only file that it can write."""
    formats: list[Literal["mov", "matroska", "avi", "mpegts", "flv"]]
    """Containers that are opened, by FFmpeg's names; mov is mp4 too, matroska webm too."""
    codecs: list[Literal["h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores"]]
    """Codecs that are decoded, by FFmpeg's names."""
    max_size_bytes: PositiveInt
    """Largest file that is opened."""
    max_pixels: PositiveInt
    """Most pixels of one picture; a limit on the container's parser and on the decoder."""
    max_side: PositiveInt
    """Largest width or height of a picture, pixels."""
    min_fps: NonNegativeFloat
    """Frames per second of a video, at least."""
    max_fps: PositiveFloat
    """Frames per second of a video, at most."""
    max_streams: PositiveInt
    """Streams of a container: pictures, sound and texts together."""
    max_frames: PositiveInt
    """Frames that are decoded, whatever the header claims."""
    max_decoded_bytes: PositiveInt
    """Bytes of all decoded frames together (they are never in memory together)."""
    max_expansion: PositiveFloat
    """Bytes of decoded frames per byte of the file; above a tenth of it, by the first look, stage videos warns."""
    max_broken: Fraction
    """Share of a video's packets that may fail to decode."""
    max_broken_run: PositiveInt
    """How many packets in a row may fail to decode."""
    probe_bytes: PositiveInt
    """How much of a file FFmpeg may read to detect its streams."""
    workers: PositiveInt
    """Video files opened at the same time, each in a child process of its own."""
