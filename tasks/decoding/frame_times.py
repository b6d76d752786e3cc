"""The times of a video's frames, by which some of them are then asked for. Runs in the sandbox only."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from tasks.decoding import decode
from tasks.decoding.limits import Limits


@decode.answering("decode_error")
def frame_times(path: str, limits: Limits, claimed_frames: int, repairs: Sequence[str] = ()) -> dict[str, Any]:
    """Decode a video, and say when each of its frames is shown.

    Args:
        claimed_frames: that `probe.probe` counted.
        repairs: what it said of the video.

    Returns:
        `times`: int64 (frames,), ticks, in the order in which they are shown; `clip_frames.clip_frames` takes them.
    """
    with decode.open_video(path, limits, repairs) as opened:
        times = [cast(int, frame.pts) for frame in decode.decoded(opened)]  # none without a time is given
        decode.check_decoded(opened, len(times), claimed_frames)
    return {"status": "ok", "reason": None, "times": np.array(times, np.int64)}
