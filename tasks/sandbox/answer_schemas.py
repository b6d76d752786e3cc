"""What each function in the sandbox may answer: the type and range of every value, and how it fits what was asked.

The child that answers may be in the hands of the video that it read. `check` is the one place where its answer is
held to what is declared here; what passes goes into tables as it is, and lies no more than a video could.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NotRequired

import numpy as np
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    InstanceOf,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    with_config,
)
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from stiv_model import settings_errors
from tasks.decoding import stills
from tasks.sandbox.settings import SandboxSettings
from tasks.sandbox.wire_format import MAX_TRACEBACK
from tasks.storage.scores import SCORES, Score

_MAX_KEYS = 64  # no answer has as many, and an error is kept for each that is not declared
_MAX_PTS = 1 << 50  # so that what differs in ticks does in seconds too; of nanoseconds these are 13 days
_MAX_SIDE = 1 << 27  # pixels as shown: of FFmpeg's largest picture, with the widest pixels
_MAX_CRF = 63  # of VP9 and AV1; 51 of H.264
_MAX_SCORE = 10_000  # where a score has no limit of its own, as motion: a hundred times the picture's diagonal

_exact = with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


class Asked(NamedTuple):
    """What an answer must fit."""

    arguments: Mapping[str, Any]
    settings: SandboxSettings


def _few(answer: Any) -> Any:
    if isinstance(answer, dict) and len(answer) > _MAX_KEYS:
        raise ValueError(f"there are {len(answer)} keys")
    return answer


def _agrees(shot: "Shot", info: ValidationInfo[Asked]) -> "Shot":
    ticks, per_seconds = map(int, shot["time_base"].split("/"))
    tick = ticks / per_seconds
    if (shot["start"], shot["end"]) != (shot["start_pts"] * tick, shot["end_pts"] * tick):
        raise ValueError("start and end are other times than start_pts and end_pts")
    if shot["end_pts"] - shot["start_pts"] < shot["frames"]:  # each frame has a time of its own
        raise ValueError(f"{shot['frames']} frames from {shot['start_pts']} to {shot['end_pts']}")
    is_ok = shot["status"] == "ok"
    if is_ok != (shot["reason"] is None):
        raise ValueError(f"{shot['status']} with reason {shot['reason']}")
    wanted = range(1, info.context.arguments["stills"] + 1) if is_ok else (0,)
    if len(shot["stills"]) not in wanted:
        raise ValueError(f"{shot['status']} with {len(shot['stills'])} stills")
    return shot


def _covers(split: "Split", info: ValidationInfo[Asked]) -> "Split":
    shots = split["shots"]
    for number, (before, after) in enumerate(pairwise(shots), 1):
        if (after["start_pts"], after["time_base"]) != (before["end_pts"], before["time_base"]):
            raise ValueError(f"shot {number} does not begin where the one before it ends")
    if split["frames"] > info.context.settings.max_frames:
        raise ValueError(f"{split['frames']} frames")
    if sum(shot["frames"] for shot in shots) != split["frames"]:
        raise ValueError(f"the shots do not have {split['frames']} frames together")
    return split


def _is_allowed(video: "Probed", info: ValidationInfo[Asked]) -> "Probed":
    limits = info.context.settings
    if video["codec"] not in limits.codecs:
        raise ValueError("codec is none of sandbox.codecs")
    if not limits.min_fps <= video["fps"] <= limits.max_fps:
        raise ValueError(f"fps is {video['fps']}")
    if video["frames"] > limits.max_frames:
        raise ValueError(f"frames is {video['frames']}")
    return video


def _as_asked(frames: np.ndarray, info: ValidationInfo[Asked]) -> np.ndarray:
    asked = info.context.arguments
    if frames.dtype != np.uint8 or frames.shape != (asked["frames"], asked["height"], asked["width"], 3):
        raise ValueError(f"it is an array of {frames.dtype} {frames.shape}")
    return frames


def _are_times(times: np.ndarray, info: ValidationInfo[Asked]) -> np.ndarray:
    if times.dtype != np.int64 or times.ndim != 1 or not 1 <= len(times) <= info.context.settings.max_frames:
        raise ValueError(f"it is an array of {times.dtype} {times.shape}")
    if (np.diff(times) <= 0).any() or max(-int(times[0]), int(times[-1])) > _MAX_PTS:
        raise ValueError("its times do not rise, or are too far away")
    return times


def _is_picture(picture: np.ndarray, info: ValidationInfo[Asked]) -> np.ndarray:
    asked = info.context.arguments
    if picture.dtype != np.uint8 or picture.shape != (asked["height"], asked["width"], 3):
        raise ValueError(f"it is an array of {picture.dtype} {picture.shape}")
    return picture


def _at_most_as_asked(frames: np.ndarray, info: ValidationInfo[Asked]) -> np.ndarray:
    asked = info.context.arguments
    size = asked["height"], asked["width"], 3
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != size:
        raise ValueError(f"it is an array of {frames.dtype} {frames.shape}")
    if not 1 <= len(frames) <= asked["frames"]:
        raise ValueError(f"there are {len(frames)} frames")
    return frames


ColourName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,20}$")] | None
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Pts = Annotated[int, Field(ge=-_MAX_PTS, le=_MAX_PTS)]
Side = Annotated[int, Field(ge=1, le=_MAX_SIDE)]
Margin = Annotated[int, Field(ge=0, lt=1 << 31)]
Still = Annotated[bytes, BeforeValidator(stills.from_base64)]


@_exact
class Rejected(TypedDict):
    """A file that is not used."""

    status: Literal["rejected"]
    reason: Literal[
        "codec_not_allowed",
        "empty_file",
        "expands_too_much",
        "format_not_allowed",
        "fps_out_of_range",
        "hdr_matrix",
        "no_video_stream",
        "not_a_file",
        "not_a_picture",
        "not_a_video",
        "pixel_aspect",
        "size_changes",
        "too_many_bytes",
        "too_many_decoded_bytes",
        "too_many_frames",
        "too_many_pixels",
        "too_many_streams",
    ]


@_exact
class Failed(TypedDict):
    """A file that cannot be read, or not as asked; the last five reasons are of `sandbox.prove`, which wants them."""

    status: Literal["failed"]
    reason: Literal[
        "bad_timestamps",
        "crashed",
        "damaged",
        "decode_error",
        "frame_not_found",
        "no_frames",
        "not_found",
        "not_permitted",
        "too_few_frames",
        "truncated",
        "unreadable",
        "exec",
        "network",
        "processes",
        "read",
        "write",
    ]
    traceback: NotRequired[Annotated[str, Field(max_length=MAX_TRACEBACK)]]


@_exact
class Reached(TypedDict):
    """What a function of `sandbox.prove` says when it could do what it should not."""

    status: Literal["ok"]


@_exact
class Probed(TypedDict):
    """What `probe.probe` says of a video: upright, with square pixels."""

    status: Literal["ok"]
    reason: None
    codec: str
    width: Side
    height: Side
    fps: float
    seconds: Annotated[float, Field(ge=0)]
    frames: Count
    repairs: Annotated[
        list[Literal["clock_restarts", "frame_order", "late_start", "repeated_times"]], Field(max_length=4)
    ]
    transfer: ColourName
    primaries: ColourName
    colour_range: Literal["limited", "full"] | None


def _possible(score: Score) -> Any:
    """Return what a video process may say of a score; null where nothing was measured."""
    least = -_MAX_SCORE if score.least is None else score.least
    most = _MAX_SCORE if score.most is None else score.most
    return Annotated[float, Field(ge=least, le=most)] | None


_MEASURED = {score.name: _possible(score) for score in SCORES if score.stage == "shots"}
if TYPE_CHECKING:  # which cannot follow names that come from rows

    class MeasuredScores(TypedDict):
        """The scores of the decoding pass (tasks/storage/scores.py)."""
else:
    MeasuredScores = TypedDict("MeasuredScores", _MEASURED)


@_exact
class Shot(MeasuredScores):
    """What `cuts.split` says of a shot, its scores included; tables.SHOTS says what the columns mean."""

    start_pts: Pts
    end_pts: Pts
    time_base: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,9}/[1-9][0-9]{0,9}$")]
    start: float
    end: float
    frames: Count
    transition: Literal["start", "cut", "fade", "dissolve", "split"]
    status: Literal["ok", "rejected"]
    reason: Literal["damaged", "too_few_frames", "too_short", "transition"] | None
    stills: Annotated[list[Still], FailFast()]


@_exact
class Split(TypedDict):
    """What `cuts.split` says of a video, or of a part of it in which there may be no frame."""

    status: Literal["ok"]
    reason: None
    frames: Annotated[int, Field(ge=0)]
    shots: Annotated[list[Annotated[Shot, BeforeValidator(_few), AfterValidator(_agrees)]], FailFast()]


@_exact
class ClipFrames(TypedDict):
    """What `clip_frames.clip_frames` gives."""

    status: Literal["ok"]
    reason: None
    frames: Annotated[InstanceOf[np.ndarray], AfterValidator(_as_asked)]
    crop_top: Margin
    crop_left: Margin


@_exact
class FrameTimes(TypedDict):
    """What `frame_times.frame_times` gives."""

    status: Literal["ok"]
    reason: None
    times: Annotated[InstanceOf[np.ndarray], AfterValidator(_are_times)]


@_exact
class PictureFile(TypedDict):
    """What `picture_file.picture_file` gives."""

    status: Literal["ok"]
    reason: None
    picture: Annotated[InstanceOf[np.ndarray], AfterValidator(_is_picture)]
    shown_height: Side
    shown_width: Side


@_exact
class WholeVideo(TypedDict):
    """What `whole_video.whole_video` gives."""

    status: Literal["ok"]
    reason: None
    frames: Annotated[InstanceOf[np.ndarray], AfterValidator(_at_most_as_asked)]
    crf: Annotated[float, Field(ge=0, le=_MAX_CRF)] | None


_REFUSAL: TypeAdapter[Any] = TypeAdapter(Annotated[Rejected | Failed, Field(discriminator="status")])
_REACHED: TypeAdapter[Any] = TypeAdapter(Reached)

ANSWERS: dict[str, TypeAdapter[Any]] = {
    "probe": TypeAdapter(Annotated[Probed, AfterValidator(_is_allowed)]),
    "split": TypeAdapter(Annotated[Split, AfterValidator(_covers)]),
    "clip_frames": TypeAdapter(ClipFrames),
    "frame_times": TypeAdapter(FrameTimes),
    "picture_file": TypeAdapter(PictureFile),
    "whole_video": TypeAdapter(WholeVideo),
    "prove_network": _REACHED,
    "prove_read": _REACHED,
    "prove_write": _REACHED,
    "prove_exec": _REACHED,
    "prove_processes": _REACHED,
    "prove_memory": _REACHED,
    "prove_time": _REACHED,
    "prove_output": _REACHED,
    "prove_crash": _REACHED,
}
"""Of each function of `worker.FUNCTIONS`, where it did what was asked."""


def check(name: str, values: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """Return the answer of function `name`: what it gave, or Rejected or Failed.

    Args:
        values: as the child wrote them, arrays included.

    Raises:
        ValueError: they are something else than declared; names the first that is.
    """
    declared = ANSWERS[name] if values.get("reason") is None else _REFUSAL
    if len(values) > _MAX_KEYS:
        raise ValueError(f"the video process handed back {len(values)} values")
    try:
        return declared.validate_python(values, context=asked)
    except ValidationError as error:
        raise ValueError(f"the video process handed back {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"])
    return f"{place!r}: {settings_errors.reason(first)}"
