"""What the benchmark of scale demands, and that it can be run."""

import pyarrow.parquet as pq
import pytest

from benchmarks import made_tables, scale
from benchmarks.scale_points import POINTS

MB = 10**6


def found(seconds: tuple[float, float], megabytes: tuple[int, int]) -> dict:
    return {
        str(rows): {"cpu_seconds": cpu, "peak_bytes": peak * MB}
        for rows, cpu, peak in zip((10_000, 1_000_000), seconds, megabytes, strict=True)
    }


def test_growth_is_held_to_its_limits():
    lines = {line.figure: line for line in scale.required({"clips": found((0.1, 20.0), (400, 800))}, [10_000, 10**6])}
    assert lines["memory over that of the fewest rows"].found == 2.0
    assert lines["memory"].found == 800
    assert lines["exponent of CPU time"].found == pytest.approx(1.1505, abs=1e-4)
    assert (lines["CPU time"].found, lines["CPU time"].most) == (20.0, 15)


def test_memory_that_each_row_may_add_is_told_by_row():
    (line,) = scale.required({"clips, 24 bits": found((0.1, 50.0), (400, 697))}, [10_000, 10**6])
    assert (line.figure, line.found, line.most) == ("further memory a row", 300.0, 700)


def test_made_names_rise_and_none_is_there_twice(tmp_path):
    made_tables.write_scores(tmp_path / "scores.parquet", 4000)
    videos = pq.read_table(tmp_path / "scores.parquet", columns=["video"])["video"].to_pylist()
    assert videos == sorted(videos)
    assert len(set(videos)) == 4000 // 8
    assert videos[0].startswith("0000") and videos[-1].startswith("ff")


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
def test_a_million_rows_need_what_is_allowed(point, tmp_path):
    rows = [10_000, 1_000_000]
    lines = scale.required({point: scale.measure(point, rows, 1, tmp_path)}, rows)
    assert not [line for line in lines if line.found > line.most]
