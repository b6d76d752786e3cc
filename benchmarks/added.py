"""What one per cent more videos costs stage shots in bytes that are written, of stills of real size.

    python benchmarks/added.py --shots 100000 --json added.json

with the folder of the repository on PYTHONPATH or the package installed. The stage runs over generated videos of eight
shots each, then over these and one per cent more, then over all of them from nothing; its shards are made of nothing
(42 kB of stills a shot), as in benchmarks/scale.py. `written_over_output` is the bytes of files of the second output
that are no links to the first one's, over all its bytes. The third output must be the second, byte for byte. It takes
twice the bytes of the stills on the disk: 9 GB for 100,000 shots.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import scale_stages

if TYPE_CHECKING:
    from tasks.storage.shards import Shard

STILL_BYTES = 10_500  # a quarter of 42 kB: 4.9 to 13.6 kB were measured at 256 pixels


def make_shard(shard: "Shard", product: Path) -> None:
    """Make a shard of stage shots, with stills that differ from shot to shot and are always the same."""
    scale_stages.make_shot_shard(shard, product, lambda clip: [_still(f"{clip} {number}") for number in range(4)])


def _still(name: str) -> bytes:
    return random.Random(name).randbytes(STILL_BYTES)


def run_stage(folder: Path) -> dict[str, Path]:
    """Run the stage on the videos of a folder; return the files of its output."""
    from flows.params import load_params
    from tasks.videos.split import Shots

    params = load_params(scale_stages.ROOT / "params.yaml")
    scale_stages.run_alone(Shots("raw", folder / "videos", params.shots, params.sandbox), folder, make_shard)
    out = folder / "shots"
    return {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}


def measure(
    folder: Path, few: int, more: int, make: Callable[[Path, int], None], run: Callable[[Path], dict[str, Path]]
) -> dict[str, float]:
    """Run a stage three times: on few inputs, on these and more, and on all of them from nothing.

    Args:
        make: writes so many inputs into a folder.
        run: runs the stage on the inputs of a folder, where `earlier` is kept; returns the output's files by name.

    Raises:
        AssertionError: the output depends on what was there before.
    """
    make(folder, few)
    run(folder)
    before = {path.stat().st_ino for path in (folder / "earlier").rglob("*")}
    make(folder, more)
    added = run(folder)
    size = sum(path.stat().st_size for path in added.values())
    written = sum(path.stat().st_size for path in added.values() if path.stat().st_ino not in before)
    anew = folder / "anew"
    make(anew, more)
    for name, path in run(anew).items():
        assert path.read_bytes() == added.pop(name).read_bytes(), f"{name} is not that of a run from nothing"
    assert not added, f"a run from nothing has no {sorted(added)[:3]}"
    return {"output_bytes": size, "written_bytes": written, "written_over_output": written / size}


def report(figures: dict[str, float], path: Path | None) -> None:
    """Print the figures, and write them as JSON where that is asked for."""
    for key, value in figures.items():
        print(f"{key:22} {value:.6g}")
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def arguments(what: str | None, inputs: str, default: int) -> argparse.Namespace:
    """Return what is on the command line: how many `inputs`, `--folder` and `--json`."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{inputs}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="where the outputs are made; the default is among temporary files")
    parser.add_argument("--json", type=Path, help="write all figures there")
    return parser.parse_args()


def main() -> None:
    options = arguments(__doc__, "shots", 100_000)
    with tempfile.TemporaryDirectory(prefix="stiv-added-", dir=options.folder) as name:
        more = options.shots + options.shots // 100
        figures = measure(Path(name), options.shots, more, scale_stages.make_videos, run_stage)
    report(figures, options.json)


if __name__ == "__main__":
    main()
