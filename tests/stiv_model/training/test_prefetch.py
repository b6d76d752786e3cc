import threading
import time

import pytest

from stiv_model.training.prefetch import ReadAhead


def test_what_is_read_ahead_comes_in_order_and_ends():
    with ReadAhead(lambda number: number**2, range(100), depth=3) as squares:
        assert list(squares) == [number**2 for number in range(100)]
        assert next(squares, "the end") == "the end"


def test_no_more_than_depth_is_read_ahead():
    made = []
    with ReadAhead(made.append, range(100), depth=3) as ahead:
        next(ahead)
        while len(made) < 4:
            time.sleep(0.01)
        time.sleep(0.05)
        assert made == [0, 1, 2, 3]


def test_reading_ahead_stops_when_it_is_left():
    before = threading.active_count()
    with pytest.raises(KeyError), ReadAhead(lambda number: number, iter(int, 1), depth=2):
        raise KeyError
    assert threading.active_count() == before


def test_waiting_is_measured_and_readiness_is_not():
    with ReadAhead(lambda _: time.sleep(0.05), range(2), depth=2) as ahead:
        next(ahead)
        waited = ahead.stall_seconds
        time.sleep(0.2)
        next(ahead)
        assert waited > 0.04
        assert ahead.stall_seconds - waited < 0.04
