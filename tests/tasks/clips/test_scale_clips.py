"""That stage clips holds no table: its memory, and that of the gate's counts, does not grow with the rows."""

import multiprocessing
from pathlib import Path

import pytest

from benchmarks import made_tables
from flows.params import load_params
from tasks.clips import expectations, select
from tasks.clips.settings import ClipSettings
from tasks.gates import row_counts
from tasks.storage import queries

FEW, MANY = 8000, 40_000  # both of several groups of rows
A_ROW = 2000
"""Bytes: less than a row takes as a Python dict, 2.3 KB at least."""


def peak_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def judged(scores: Path, settings: ClipSettings, out: Path) -> tuple[int, dict[str, int]]:
    """Judge a table, and return the most memory that this process had meanwhile, and the gate's counts."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with queries.connect(out.parent) as connection:
        select.judge_shots(connection, scores, settings, out)
        counts, _ = row_counts.counted(connection, out, "true", expectations.judged_suite())
    return peak_bytes(), counts


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> dict[int, Path]:
    """Tables of scores by number of rows, made beforehand: their making takes memory too."""
    folder = tmp_path_factory.mktemp("scores")
    for rows in (FEW, MANY):
        made_tables.write_scores(folder / f"{rows}.parquet", rows)
    return {rows: folder / f"{rows}.parquet" for rows in (FEW, MANY)}


@pytest.mark.parametrize("changes", [{"duplicate_bits": None}, {"duplicate_bits": 24}])
def test_more_rows_need_no_more_memory(tmp_path, scores, changes):
    settings = load_params(Path("params.yaml")).clips.model_copy(update=changes)
    peaks = {}
    # in a process of its own: this one holds what the tests before it left, of which more or less may be resident
    with multiprocessing.get_context("spawn").Pool(1) as child:
        for rows in (FEW, FEW, MANY, MANY):
            peak, counts = child.apply(judged, (scores[rows], settings, tmp_path / f"{rows}.parquet"))
            assert counts["rows"] == rows and counts["clip repeated"] == 0
            peaks[rows] = min(
                peak, peaks.get(rows, peak)
            )  # what libraries keep from their first use is not of the rows
    assert peaks[MANY] - peaks[FEW] < (MANY - FEW) * A_ROW
