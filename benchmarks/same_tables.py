"""Stages clips and captions of this checkout beside those of an earlier one: whether their tables are equal.

    git worktree add --detach /tmp/before d9d645e
    python benchmarks/same_tables.py --before /tmp/before --rows 100000 --json same_tables.json

with the folder of the repository on PYTHONPATH or the package installed. Both are run by their commands, on one
generated table of scores: with ties, missing values, and shots whose hashes are alike; once with the thresholds of
params.yaml and once without any, so that near-duplicates are looked for among all. Compared are all rows of all
tables, and the accounts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from benchmarks.made_tables import scored
from benchmarks.scale_points import passing_gate, without_limits
from flows.params import load_params
from tasks.captions.describe import Measured
from tasks.storage import queries, tables

ROOT = Path(__file__).parents[1]
_BATCH = 8192
_BITS = 24
STAGES = {
    "clips": "select --scores ../scores --out clips --report clips.json --docs docs",
    "captions": "caption --clips clips --shots ../shots --out captions --report captions.json --docs captions_docs",
}


def write_scores(path: Path, rows: int) -> None:
    """Write scores of two digits, some of them missing; a fifth of the shots are near another."""
    path.parent.mkdir()
    queries.write(path, _batches(rows), tables.SCORES)


def _batches(rows: int) -> Iterator[pa.RecordBatch]:
    for first in range(0, rows, _BATCH):
        batch = scored(first, min(_BATCH, rows - first), rows, seed=0)
        draw = np.random.default_rng([1, first])
        columns = {name: batch[name] for name in batch.schema.names}
        for field in batch.schema:
            if field.type == pa.float64():
                columns[field.name] = pc.round(columns[field.name], 2)
            if field.type == pa.float64() and field.name not in Measured._fields:  # these, captions must have
                is_lost = pa.array(draw.random(len(batch)) < 0.02)
                columns[field.name] = pc.if_else(is_lost, None, columns[field.name])
        columns["video_hash"] = pa.array(_near(batch["video_hash"].to_pylist(), draw), pa.binary())
        yield pa.record_batch(list(columns.values()), batch.schema)


def _near(hashes: list[bytes], draw: np.random.Generator) -> list[bytes]:
    """Return the hashes, a fifth of them those of another shot with up to 40 bits flipped: some within the limit."""
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1), axis=1)
    for row in np.flatnonzero(draw.random(len(hashes)) < 0.2):
        bits[row] = bits[draw.integers(len(hashes))]
        bits[row, draw.integers(0, bits.shape[1], draw.integers(0, 40))] ^= 1
    return [row.tobytes() for row in np.packbits(bits, axis=1)]


def run_stages(checkout: Path, folder: Path, clips: dict[str, Any]) -> None:
    """Run the stages of a checkout, with its own settings but for the section `clips`, in a folder that is made.

    Raises:
        CalledProcessError: one failed.
    """
    folder.mkdir()
    settings = yaml.safe_load((checkout / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(settings | {"clips": clips}))
    environment = os.environ | {"PYTHONPATH": str(checkout), "GX_ANALYTICS_ENABLED": "false"}
    for arguments in STAGES.values():
        command = [sys.executable, "-m", "flows", *arguments.split()]
        subprocess.run(command, cwd=folder, env=environment, check=True)


def compare(before: Path, now: Path) -> dict[str, Any]:
    """Return of each stage how many rows there are, how many of them differ, and whether the accounts are equal."""
    found = {}
    for stage in STAGES:
        one, other = (pq.read_table(folder / stage / f"{stage}.parquet") for folder in (before, now))
        reports = [json.loads((folder / f"{stage}.json").read_text())[_unit(stage)] for folder in (before, now)]
        pairs = zip(one.to_pylist(), other.to_pylist(), strict=False)
        found[stage] = {
            "rows": len(one),
            "columns are equal": one.schema.equals(other.schema),
            "rows that differ": abs(len(one) - len(other)) + sum(repr(row) != repr(beside) for row, beside in pairs),
            "accounts are equal": reports[0] == reports[1],
            "account": reports[1],
        }
    return found


def _unit(stage: str) -> str:
    return {"clips": "shots", "captions": "clips"}[stage]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="folder of the earlier checkout")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    settings = load_params(ROOT / "params.yaml").clips
    cases = {"thresholds of params.yaml": passing_gate(settings), "without thresholds": without_limits(settings)}
    found = {}
    with tempfile.TemporaryDirectory(prefix="stiv-same-") as name:
        for number, (case, changed) in enumerate(cases.items()):
            folder = Path(name) / str(number)
            folder.mkdir()
            write_scores(folder / "scores" / tables.SCORE_TABLE, options.rows)
            (folder / "shots").mkdir()
            queries.write(folder / "shots" / tables.SPLIT_TABLE, [], tables.SPLITS)
            clips = changed.model_copy(update={"duplicate_bits": _BITS}).model_dump(mode="json")
            for checkout, out in ((options.before.resolve(), "before"), (ROOT, "now")):
                run_stages(checkout, folder / out, clips)
            found[case] = compare(folder / "before", folder / "now")
    print(text := json.dumps({"rows": options.rows, **found}, indent=2))
    if options.json:
        options.json.write_text(text + "\n")
    sys.exit(any(one["rows that differ"] for stages in found.values() for one in stages.values()))


if __name__ == "__main__":
    main()
