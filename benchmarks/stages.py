"""How long each stage of the embedded default takes, over several runs from nothing.

    python benchmarks/stages.py --rounds 3 --json stages.json

Each round runs `stiv demo` in a fresh clone of this repository with this environment. Printed: seconds per stage,
median [smallest, largest], and its share of the whole in the same run, which is what can be compared between machines.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def one_round() -> dict[str, float]:
    """Run everything from nothing and return the seconds of each stage."""
    with tempfile.TemporaryDirectory(prefix="stiv-stages-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        subprocess.run(
            [sys.executable, "-m", "flows", "demo"], cwd=clone, env=os.environ | {"PYTHONPATH": "."}, check=True
        )
        times = json.loads((clone / ".cache/times.json").read_text())["stages"]
        return {stage: entry["seconds"] for stage, entry in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    rounds = [one_round() for _ in range(options.rounds)]
    for stage in rounds[0]:
        seconds = [one[stage] for one in rounds]
        shares = [one[stage] / sum(one.values()) for one in rounds]
        median, share = statistics.median(seconds), statistics.median(shares)
        print(f"{stage:12} {median:6.1f} s [{min(seconds):.1f}, {max(seconds):.1f}]  {share:5.1%}")
    wholes = [sum(one.values()) for one in rounds]
    print(f"{'all':12} {statistics.median(wholes):6.1f} s [{min(wholes):.1f}, {max(wholes):.1f}]")
    if options.json:
        options.json.write_text(json.dumps({"rounds": rounds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
