"""Features of all clips of a folder, and the protocol that they share."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasks.evaluation.clip_folder import ClipRule, FoundVideo, VideoFolder
from tasks.evaluation.features import features_of
from tasks.evaluation.protocol import Protocol
from tasks.evaluation.reference import Reference
from tasks.storage import tables

if TYPE_CHECKING:
    from stiv_model.metrics.extractors import Extractor

log = logging.getLogger(__name__)


class Measured(NamedTuple):
    """A folder whose clips have features."""

    reference: Reference
    account: dict[str, Any]
    """Of the videos: given, ok, rejected, failed, reasons; and the number of clips."""
    not_measured: list[dict[str, str | None]]
    """id, status and reason of every video that is in no figure."""


def measure(
    folder: VideoFolder,
    videos: Iterable[FoundVideo],
    rule: ClipRule,
    extractor: "Extractor",
    fps: float | None,
    mixed: bool,
) -> Measured:
    """Return the features of every clip of a folder, video by video.

    Args:
        videos: those of the folder, such as it gives them itself.
        fps: of arrays, which do not say.
        mixed: the videos may be of several rates and codecs.

    Raises:
        ValueError: the videos are of several sizes, rates, lengths or codecs; a clip is too short; or none is left.
    """
    rows: list[np.ndarray] = []
    found: list[dict[str, str | None]] = []
    first: tuple[str, dict[str, Any]] | None = None
    for video in videos:
        found.append({"id": video.id, "status": video.status, "reason": video.reason})
        if video.status != "ok":
            log.warning("%s: %s (%s)", video.id, video.reason, video.status)
        for clip in video.clips:
            facts = {"frames": len(clip), "height": clip.shape[1], "width": clip.shape[2], **video.facts}
            facts |= {"fps": "any", "codec": "any", "crf": None} if mixed else {"fps": facts["fps"] or fps}
            first = first or (video.id, facts)
            _refuse_another_kind(*first, video.id, facts)
            try:
                rows.append(features_of(clip, extractor))
            except ValueError as error:
                raise ValueError(f"{video.id}: {error}") from error
    account = tables.reconcile("videos", [str(one["id"]) for one in found], found, key="id")._asdict()
    if first is None:
        raise ValueError(f"none of {account['given']} videos has a clip to measure ({account['reasons']})")
    protocol = _protocol(first[1], folder.pixels, rule, extractor)
    left = [one for one in found if one["status"] != "ok"]
    return Measured(Reference(np.stack(rows), protocol), account | {"clips": len(rows)}, left)


def _refuse_another_kind(first: str, ours: dict[str, Any], name: str, theirs: dict[str, Any]) -> None:
    if unlike := [key for key in ours if ours[key] != theirs[key]]:
        key = unlike[0]
        remedy = {
            "frames": "state --frames",
            "height": "state --height and --width",
            "width": "state --height and --width",
        }.get(key, "put them into two folders, or say with --mixed that rates and codecs may differ")
        raise ValueError(
            f"{name} has {key} {theirs[key]}, and {first} {ours[key]}: a figure is of one kind of clips: {remedy}"
        )


def _protocol(facts: dict[str, Any], pixels: str, rule: ClipRule, extractor: "Extractor") -> Protocol:
    from stiv_model.metrics.extractors import RESIZE

    how: dict[str, Any] = {
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "resize": RESIZE,
        "pixels": pixels,
    }
    how |= {"stride": rule.stride, "clips_per_video": 1 if rule.frames is None else rule.clips}
    return Protocol.model_validate(facts | how)
