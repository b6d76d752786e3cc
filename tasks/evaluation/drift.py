"""How far long videos drift from what they were asked for, and whether they jump where windows meet."""

import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from prefect import task

from stiv_model.errors.redaction import redacted
from stiv_model.metrics.motion import flicker
from tasks.demo.shapes import CHANCE, judge, said
from tasks.evaluation.between import repeated
from tasks.evaluation.judge import Share, psnr, wilson
from tasks.evaluation.suites import load_array
from tasks.storage import atomic, tables

log = logging.getLogger(__name__)


_LEAST = 0.1
"""Levels (of 255): where all frames inside windows are as good as equal, they count as so far apart."""


class Seams(NamedTuple):
    """Differences between neighbouring frames, in levels (of 255), the mean over a picture."""

    at: float
    """Largest where one of the two is a key frame at which two windows meet."""
    inside: float
    """Largest of all others."""

    @property
    def ratio(self) -> float:
        """Above 1: the video jumps more at seams than inside windows. Of a video that stands still it is 0."""
        return self.at / max(self.inside, _LEAST)


class Drift(NamedTuple):
    """How many videos are still what they were asked for, in one window."""

    window: int
    """From 1."""
    colour: Share
    shape: Share


def seams(video: np.ndarray, window: int) -> Seams:
    """Return how much neighbouring frames differ at seams and inside windows.

    Args:
        video: uint8 RGB (T, H, W, 3), of two windows at least.
        window: frames of a window, 4 at least, both its key frames among them.

    Raises:
        ValueError: there is no seam, or nothing beside seams.
    """
    if window < 4 or len(video) < window + 1:
        raise ValueError(f"{len(video)} frames in windows of {window} have no seam, or nothing beside seams")
    apart = np.array([np.abs(after.astype(int) - one).mean() for one, after in pairwise(video)])
    ends = np.arange(len(apart) + 1)
    is_seam = (ends % (window - 1) == 0) & (ends > 0) & (ends < len(apart))
    touches = is_seam[:-1] | is_seam[1:]
    return Seams(float(apart[touches].max()), float(apart[~touches].max()))


def drift(videos: Sequence[np.ndarray], prompts: Sequence[str], window: int) -> list[Drift]:
    """Return for each window in how many videos the judge sees colour and shape as their prompts ask.

    Args:
        videos: uint8 RGB (T, H, W, 3), all of one length.
        prompts: what each shows, as captions of the embedded corpus `shapes` say it.
        window: frames of a window, both its key frames among them.

    Raises:
        ValueError: there is no video, or a prompt that says no colour and shape.
    """
    asked = [said(prompt) for prompt in prompts]
    for prompt, one in zip(prompts, asked, strict=True):
        if one is None:
            raise ValueError(f'"{prompt}" says no colour, shape and direction of one object')
    found = []
    for number, first in enumerate(range(0, len(videos[0]) - 1, window - 1), 1):
        seen = [judge(video[first : first + window]) for video in videos]
        pairs = [(one, wanted) for one, wanted in zip(seen, asked, strict=True) if wanted is not None]
        right = [
            sum(getattr(one, each) == getattr(wanted, each) for one, wanted in pairs) for each in ("colour", "shape")
        ]
        found.append(Drift(number, *(wilson(count, len(videos)) for count in right)))
    return found


class Long(NamedTuple):
    """A long video of the embedded corpus, and what is known of it. Pictures are uint8 RGB."""

    video: np.ndarray
    """(T, H, W, 3)."""
    truth: np.ndarray
    """Where the object really goes, of the same shape; its first frame was given."""
    prompts: list[str]
    """Of the key frames: what leads up to each."""
    window: int
    """Frames of a window, both its key frames among them."""


def read(samples: Path) -> list[Long]:
    """Return the long videos that stage samples made.

    Raises:
        FileNotFoundError: there is no list of samples.
        Unusable: a video is not what the stage wrote.
    """
    rows = json.loads((samples / tables.SAMPLE_LIST).read_text())["long"]
    return [
        Long(load_array(samples / row["file"]), load_array(samples / row["truth_array"]), row["prompts"], row["window"])
        for row in rows
    ]


class Way(NamedTuple):
    """Frames of a long video that are asked for by one prompt, both counted from 0 and inclusive."""

    start: int
    end: int
    prompt: str


def ways(prompts: Sequence[str], window: int) -> list[Way]:
    """Return the ways of a long video: from a key frame on, as long as the prompt stays the same; none cut short.

    Args:
        prompts: of the key frames: what leads up to each.
        window: frames of a window, both its key frames among them.
    """
    found, start = [], 0
    for key in range(1, len(prompts)):
        if key + 1 == len(prompts) or prompts[key + 1] != prompts[key]:
            found.append(Way(start * (window - 1), key * (window - 1), prompts[key]))
            start = key
    return [way for way in found if way.end - way.start >= found[0].end]


def measure(videos: Sequence[Long]) -> dict[str, Any]:
    """Return the figures of long videos of one length, as JSON has them; of none but their number.

    Raises:
        ValueError: as `seams` and `drift`.
    """
    if not videos:
        return {"videos": 0}
    window = videos[0].window
    kept = [
        (asked := said(way.prompt)) is not None
        and judge(one.video[way.start : way.end + 1]).direction == asked.direction
        for one in videos
        for way in ways(one.prompts, window)
    ]
    jumps = sorted(seams(one.video, window).ratio for one in videos)
    return {
        "videos": len(videos),
        "windows": len(videos[0].prompts) - 1,
        "window_frames": window,
        "direction": wilson(sum(kept), len(kept))._asdict() | {"of": len(kept), "chance": CHANCE["direction"]},
        "seams": {"median": float(np.median(jumps)), "least": jumps[0], "most": jumps[-1]},
        "true_seams": float(np.median([seams(one.truth, window).ratio for one in videos])),
        "made_psnr": _mean_psnr([(one.truth[1:], one.video[1:]) for one in videos]),
        "repeated_psnr": _mean_psnr([(one.truth[1:], repeated(one.video, (0,))[1:]) for one in videos]),
        "given_psnr": _mean_psnr([(one.truth[:1], one.video[:1]) for one in videos]),
        "flicker": float(np.mean([flicker(one.video) for one in videos])),
        "drift": {
            str(one.window): {"colour": one.colour._asdict(), "shape": one.shape._asdict()}
            for one in drift([one.video for one in videos], [one.prompts[0] for one in videos], window)
        },
    }


def _mean_psnr(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    return float(np.mean([psnr(true, made) for truth, video in pairs for true, made in zip(truth, video, strict=True)]))


@task(task_run_name="measure the long videos of {samples}")
@redacted
def measure_long(samples: Path, out: Path) -> None:
    """Write the figures of the long videos that stage samples made to `out` (JSON).

    Raises:
        FileNotFoundError, ValueError: as `read` and `measure`.
    """
    found = measure(read(samples))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(out) as tmp_path:
        tmp_path.write_text(json.dumps(found, indent=2) + "\n")
    log.info("measured %d long videos", found["videos"])
