import os
import signal

import pytest

from stiv_model import process_exit
from stiv_model.training import stop_request

NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_request_to_stop_is_remembered_and_ends_nothing(number):
    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        request = stop_request.StopRequest()
        assert not request.is_made
        os.kill(os.getpid(), number)
        assert request.is_made
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_that_a_run_was_stopped_is_known_until_it_goes_on(tmp_path):
    assert process_exit.stopped_at(tmp_path) is None
    process_exit.mark_stopped(tmp_path, 7)
    assert process_exit.stopped_at(tmp_path) == 7
    process_exit.mark_stopped(tmp_path, None)
    assert process_exit.stopped_at(tmp_path) is None
