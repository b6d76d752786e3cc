import random
from operator import itemgetter
from pathlib import Path

import pytest

from tasks.storage import sorting


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 40, 41, 159, 640, 2000])
def test_rows_come_in_the_order_of_sorted_however_many_runs_there_are(tmp_path: Path, monkeypatch, count: int):
    """With runs of ten rows of which four are merged at a time, 2,000 rows are merged four times over."""
    monkeypatch.setattr(sorting, "_RUN_ROWS", 10)
    monkeypatch.setattr(sorting, "_RUNS", 4)
    draw = random.Random(count)
    rows = [(draw.choice(["a", "b", "\u00e9", "\U0001f3ac", "\ufb01", ""]), number) for number in range(count)]
    assert list(sorting.in_order(iter(rows), itemgetter(0), tmp_path)) == sorted(rows, key=itemgetter(0))
    assert not list(tmp_path.iterdir())


def test_rows_of_every_kind_are_read_as_they_were_written(tmp_path: Path):
    rows = [("a\0b\n", None, 2**62, b"\xed\xa0\xbc\0", True, "half \ud83c")] * 450
    sorting.write(tmp_path / "rows", rows)
    assert list(sorting.read(tmp_path / "rows")) == rows
