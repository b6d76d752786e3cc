"""The limits of the sandbox, as the child process knows them, and what a decoding pass has used of them."""

from typing import NamedTuple

MIN_DECODED = 0.9
"""Share of the claimed frames below which a video counts as truncated."""
_MIN_PACKETS = 10  # before a share of broken ones means anything


class Limits(NamedTuple):
    """The fields of SandboxSettings that hold for one file; the settings say what each means."""

    strict: bool
    seconds: float
    seconds_per_frame: float
    max_seconds: float
    memory_bytes: int
    max_result_bytes: int
    formats: list[str]
    codecs: list[str]
    max_size_bytes: int
    max_pixels: int
    max_side: int
    min_fps: float
    max_fps: float
    max_streams: int
    max_frames: int
    max_decoded_bytes: int
    max_expansion: float
    max_broken: float
    max_broken_run: int
    probe_bytes: int


class DecodeBudget:
    """Frames, bytes and errors of one decoding pass, counted where they occur: no header is believed.

    Args:
        limits: what may be used.
        size_bytes: of the file.
    """

    def __init__(self, limits: Limits, size_bytes: int) -> None:
        self._limits = limits
        self._max_bytes = min(limits.max_decoded_bytes, limits.max_expansion * size_bytes)
        self._packets = self._broken = self._broken_run = self._frames = self._bytes = 0

    def packet(self, is_broken: bool) -> str | None:
        """Count a packet; return the reason to stop, None to go on."""
        self._packets += 1
        if not is_broken:
            self._broken_run = 0
            return None
        self._broken += 1
        self._broken_run += 1
        share = self._broken / (self._packets + _MIN_PACKETS)
        is_too_much = share > self._limits.max_broken or self._broken_run > self._limits.max_broken_run
        return "decode_error" if self._broken > 1 and is_too_much else None

    def frame(self, size_bytes: int) -> str | None:
        """Count a decoded frame of so many bytes; return the reason to stop, None to go on."""
        self._frames += 1
        self._bytes += size_bytes
        if self._frames > self._limits.max_frames:
            return "too_many_frames"
        if self._bytes <= self._max_bytes:
            return None
        return "expands_too_much" if self._bytes <= self._limits.max_decoded_bytes else "too_many_decoded_bytes"
