"""Only yes and no are answers."""

import time

import pytest

from tasks.dsg.answers import parse


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("yes", "yes"),
        ("yes.", "yes"),
        (" YES!\n", "yes"),
        ("No.", "no"),
        ("no", "no"),
        ("Yes, there is a bus.", "unclear"),
        ("no bus", "unclear"),
        ("yes no", "unclear"),
        ("yes?", "unclear"),
        ("0000", "unclear"),
        ("", "unclear"),
        ("unanswerable", "unclear"),
        ("\x00yes", "unclear"),
        ('"yes"', "unclear"),
        ("да", "unclear"),
        (1, "unclear"),
        (0.0, "unclear"),
        (True, "unclear"),
        (False, "unclear"),
        (["yes"], "unclear"),
        ({"answer": "yes"}, "unclear"),
        (None, "missing"),
    ],
)
def test_what_is_not_exactly_yes_or_no_is_unclear(said, answer):
    assert parse(said) == answer


def test_a_megabyte_is_not_searched_for_a_yes():
    began = time.process_time()
    assert parse(" " * 1_000_000 + "yes") == "unclear"
    assert time.process_time() - began < 0.01
