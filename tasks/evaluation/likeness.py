"""Metrics of the card that want real videos: PSNR, SSIM and LPIPS of one, FVD and KVD of all."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from stiv_model.metrics import fidelity, least
from tasks.evaluation import reference, values
from tasks.evaluation.features import features_of
from tasks.evaluation.metrics import Evaluated, Features, Figure, Metric, Rows, SetMetric
from tasks.evaluation.protocol import Protocol
from tasks.evaluation.settings import EvaluationSettings

if TYPE_CHECKING:
    from stiv_model.metrics.extractors import Extractor
    from stiv_model.metrics.lpips import Lpips

CLIPS = 64
"""Of the suite shapes, FVD is of the first so many videos from text of held-out words: a second of CPU for each."""


def _has_truth(entry: Evaluated) -> bool:
    return entry.truth is not None and min(entry.video.shape[1:3]) >= least.SSIM_SIDE


def _psnr(entry: Evaluated) -> float:
    return fidelity.psnr(entry.video, _truth(entry))


def _ssim(entry: Evaluated) -> float:
    return fidelity.ssim(entry.video, _truth(entry))


def _truth(entry: Evaluated) -> np.ndarray:
    assert entry.truth is not None, "it applies to such entries only"
    return entry.truth


# The networks are imported when they are asked: torch is seconds that a card without them need not wait for.


def _sees_truth(entry: Evaluated) -> bool:
    return entry.truth is not None and _is_large(entry)


def _sees_image(entry: Evaluated) -> bool:
    return entry.image is not None and _is_large(entry)


def _is_large(entry: Evaluated) -> bool:
    return min(entry.video.shape[1:3]) >= least.LPIPS_SIDE


def _lpips(entry: Evaluated) -> float:
    from stiv_model.metrics import lpips

    return lpips.distance(_network(), entry.video, _truth(entry))


def _first_frame_lpips(entry: Evaluated) -> float:
    from stiv_model.metrics import lpips

    assert entry.image is not None, "it applies to such entries only"
    return lpips.distance(_network(), entry.video[:1], entry.image[None])


@cache
def _network() -> "Lpips":
    from stiv_model.metrics import lpips

    return lpips.load()


_OF_FRAMES = {"of": "frames, their mean", "truth": "as the suite has it, from a file where it is compressed"}
_LPIPS = {"network": "AlexNet, LPIPS 0.1"}

METRICS = (
    Metric(
        "psnr", "dB", "higher", _psnr, _has_truth, "eval", _OF_FRAMES, is_default=False,
        meaning="How close each frame is to that of the true video.",
    ),
    Metric(
        "ssim", "fraction", "higher", _ssim, _has_truth, "eval", _OF_FRAMES, is_default=False,
        meaning="How much of the structure of the true video's frames is there.",
    ),
    Metric(
        "lpips", "distance", "lower", _lpips, _sees_truth, "eval", _OF_FRAMES | _LPIPS, is_default=False,
        meaning="How far each frame looks from that of the true video.",
    ),
    Metric(
        "first_frame_lpips", "distance", "lower", _first_frame_lpips, _sees_image, "eval", _LPIPS,
        meaning="How far the first frame looks from the image that was given.",
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------- sets


def _is_counted(entry: Evaluated) -> bool:
    """Say whether FVD counts a video: of shapes the first from text of held-out words, of another suite all.

    Of videos that are too short for I3D, none: what else is measured of them stays.
    """
    if len(entry.video) < least.I3D_FRAMES:
        return False
    if entry.mode is None:
        return True
    return entry.mode == "t2v" and bool(entry.held_out) and int(entry.id.rsplit("-", 1)[-1]) < CLIPS


@cache
def _extractor() -> "Extractor":
    from stiv_model.metrics import extractors

    return extractors.published()


def _lack(facts: Mapping[str, Any]) -> str | None:
    frames = facts["frames"]
    return None if frames is None or frames >= least.I3D_FRAMES else f"{frames} frames, I3D needs {least.I3D_FRAMES}"


def _logits(entry: Evaluated) -> np.ndarray:
    return features_of(entry.video, _extractor())


def logits_in(out: Path) -> np.ndarray:
    """Return the logits in the table of an evaluation, float64 (n, 400).

    Raises:
        ValueError: it has none.
    """
    path = out / values.FILE
    column = FEATURES[0].name
    if column not in pq.read_schema(path).names:
        raise ValueError(f"{path} has no {column}: the extra eval is not installed, or the suite has no such video")
    found = pq.read_table(path, columns=[column])[column].drop_null().to_pylist()
    return np.array(found, np.float64)


def reference_for(facts: Mapping[str, Any], settings: EvaluationSettings) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the features of the real clips that videos are compared with, float64 (n, 400), and the protocol of both.

    Args:
        facts: of the videos, as the card's `videos` has them.

    Raises:
        FileNotFoundError, ValueError: as `reference.read`; or the videos are of another kind.
    """
    from stiv_model.metrics import extractors, i3d  # torch

    there = reference.read(reference.SHAPES if settings.reference is None else settings.reference)
    known = {name: facts[name] for name in ("height", "width", "frames", "fps", "pixels", "codec", "crf", "corpus")}
    if known["fps"] is None:  # arrays of nobody knows where
        known["fps"] = there.protocol.fps
    made = Protocol(
        extractor=extractors.PUBLISHED, extractor_sha256=i3d.WEIGHTS.sha256, resize=extractors.RESIZE,
        stride=1, clips_per_video=1, **known,
    )  # fmt: skip
    there.protocol.refuse_unlike(made, "the reference", "these videos")
    told = made.model_dump(mode="json") | {"reference_sha256": there.sha256}
    if facts["fps"] is None:
        told["fps_is"] = "the reference's: the videos do not say theirs"
    return there.features, told


def _fvd(rows: Rows) -> Figure:
    from tasks.evaluation import distances

    real, protocol = reference_for(rows.facts, rows.settings)
    found = distances.compare(real, rows.features)
    floor = None if found.floor is None else distances.as_json(found.floor)
    counts: dict[str, Any] = {"n_real": found.made.n_real, "n_made": found.made.n_made, "floor": floor}
    if found.made_at_floor is not None:  # the floor is of fewer clips than the figure
        counts["made_at_floor"] = distances.as_json(found.made_at_floor)
    return Figure(found.made.distance, *found.made.interval, protocol | counts)


def _kvd(rows: Rows) -> Figure:
    from tasks.evaluation import distances

    real, protocol = reference_for(rows.facts, rows.settings)
    counts = {"n_reference": distances.n_compared(len(real), len(rows.features)), "n_made": len(rows.features)}
    return Figure(distances.kernel(real, rows.features), None, None, protocol | counts)


FEATURES = (Features("i3d_logits", _logits, _is_counted, "eval"),)
SET_METRICS = (
    SetMetric(
        "fvd", None, "lower", "i3d_logits", _fvd, "eval", is_default=False,
        meaning="How far the videos as a set are from real clips, by I3D. Says little of motion, nothing without n.",
        lack=_lack,
    ),
    SetMetric(
        "kvd", None, "lower", "i3d_logits", _kvd, "eval", is_default=False,
        meaning="The same by a kernel, of which n is no part: near 0 for real clips.",
        lack=_lack,
    ),
)  # fmt: skip
