"""What a shard of stage scores pays to read its stills, in folders of few and of many shots.

    python benchmarks/stills.py --shots 10000 1000000 --json stills.json

with the folder of the repository on PYTHONPATH or the package installed. The folders are made as stage shots does, of
eight shots a video, with tiny stills: what is measured is to find and open the parts, not JPEG. CPU seconds for the
stills of 64 shots, one after the other, somewhere in the table; medians of as many rounds, changing places.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from itertools import groupby
from pathlib import Path

from benchmarks import scale_stages
from tasks.storage import parts, stills, tables

SHARD = 64


def make(shots: Path, count: int) -> list[str]:
    """Write the stills of so many shots; return their ids, in the order of the table of shots."""
    videos = sorted(scale_stages.sha256(number) for number in range(count // 8))
    folder, number = shots / stills.FOLDER, parts.choose(len(videos), None)
    folder.mkdir(parents=True)
    written = {}
    for part, own in groupby(videos, key=lambda video: parts.number(video, number)):
        clips = [tables.clip_id(video, at, at + 1) for video in own for at in range(8)]
        file = stills.write_part(folder, part, [{"clip": clip, "stills": [scale_stages.STILL] * 4} for clip in clips])
        written[file.name] = "0" * 64
    parts.write(folder, number, written)
    return [tables.clip_id(video, at, at + 1) for video in videos for at in range(8)]


def measure(folder: Path, counts: list[int], rounds: int) -> dict[str, float]:
    """Return the median seconds of each count, and by how much the most shots are above the fewest."""
    made = {count: make(folder / str(count), count) for count in counts}
    found: dict[int, list[float]] = {count: [] for count in counts}
    places = random.Random(0)
    for _ in range(rounds):
        for count, clips in made.items():
            first = places.randrange(len(clips) - SHARD)
            started = time.process_time()
            stills.read(folder / str(count), clips[first : first + SHARD])
            found[count].append(time.process_time() - started)
    medians = {count: statistics.median(seconds) for count, seconds in found.items()}
    figures = {f"{count} shots": seconds for count, seconds in medians.items()}
    return figures | {"most_over_fewest": medians[max(counts)] / medians[min(counts)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stiv-stills-") as name:
        figures = measure(Path(name), options.shots, options.rounds)
    for key, value in figures.items():
        print(f"{key:18} {value:.4g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
