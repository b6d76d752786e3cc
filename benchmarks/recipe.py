"""The paper's claims in miniature: nine comparisons at equal compute, with several seeds and intervals.

    python -m benchmarks.recipe --list
    python -m benchmarks.recipe --only adg --jobs 2
    python -m benchmarks.recipe --report

from the top of the repository. `--list` says what is there, what is missing and how long it would take. Without
either option what is missing is made: each unit (comparison, arm, seed) leaves one file in benchmarks/results/recipe;
killed anywhere, the same command goes on. `--report` writes the tables of docs/recipe.md.
"""

import argparse
import fcntl
import sys
import time
from pathlib import Path

from benchmarks import recipe_report
from benchmarks.recipe_comparisons import comparisons
from benchmarks.recipe_settings import Size
from benchmarks.recipe_units import RESULTS, ROOT, Unit, estimated_seconds, run, units

PAGE = Path("docs/recipe.md")
SIZE = Size()


def listing(some: list[Unit], results: Path) -> list[str]:
    """Return a line per comparison and unit: how long it takes, in CPU seconds of one core, and has taken.

    A stage that several units need counts for the first of them.
    """
    seen: set[object] = set()
    lines, totals = [], [0.0, 0.0]
    for unit in some:
        own = [stage for stage in unit.arm.stage.ancestors() if (stage, unit.seed) not in seen]
        seen |= {(stage, unit.seed) for stage in own}
        estimated = sum(estimated_seconds(stage) for stage in own) + unit.estimated_seconds
        result = unit.result(results)
        spent = 0.0
        if result:
            names = {stage.name for stage in own}
            spent = result["look_seconds"] + sum(one["seconds"] for one in result["stages"] if one["name"] in names)
        totals = [totals[0] + estimated, totals[1] + spent]
        state = f"{spent:6.0f} s spent" if result else "      missing"
        lines.append(f"({unit.letter}) {unit.arm.name:32} seed {unit.seed}  {estimated:6.0f} s estimated {state}")
    left = sum(unit.result(results) is None for unit in some)
    hours = f"{totals[0] / 3600:.2f} h of one core estimated, {totals[1] / 3600:.2f} h spent"
    lines.append(f"{len(some)} units, {left} missing: {hours}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="say what is there, what is missing, and what it costs")
    parser.add_argument("--report", action="store_true", help=f"write the tables of {PAGE}")
    parser.add_argument("--only", default="abcdefghi", help="letters of the comparisons; all by default")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each arm; 3 by default")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, of one thread each")
    options = parser.parse_args()
    if unknown := sorted(set(options.only) - comparisons(SIZE).keys()):
        parser.error(f"--only names {', '.join(unknown)}, but comparisons are {''.join(comparisons(SIZE))}")
    if options.seeds < 1 or options.jobs < 1:
        parser.error(f"--seeds is {options.seeds} and --jobs {options.jobs}: both must be 1 or more")
    some = units(SIZE, options.seeds, options.only)
    if options.list:
        print("\n".join(listing(some, RESULTS)))
    elif options.report:
        recipe_report.write(PAGE, RESULTS, SIZE)
    else:
        _run_alone(some, options.jobs)


def _run_alone(some: list[Unit], jobs: int) -> None:
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{ROOT} is in use by another run of this command: wait for it, or end it")
        for line in run(some, jobs, ROOT, RESULTS):
            print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    main()
