"""What is decided about a captioner, and why."""

import pytest
from pydantic import ValidationError

from tasks.dsg.correction import Known
from tasks.dsg.gate import Judged, decide, most_invented
from tasks.dsg.scores import Counts
from tasks.dsg.settings import DsgSettings
from tests.made_dsg import SETTINGS

GOOD, NOBODY = Known(195, 200), Known(0, 0)


def caption(objects=5, invented=0, undecided=0):
    return Counts(objects, invented, undecided, 1, 1, min(invented, 1), tuple("abcdefgh"[: objects + undecided]), {})


def decided(*counts, decoys=GOOD, confirmed=NOBODY, sequence=None, **settings):
    gate = decide(Judged(list(counts), decoys, confirmed, sequence), SETTINGS.model_copy(update=settings))
    return gate.verdict, gate.why, gate.corrected


def test_the_upper_end_of_the_corrected_interval_decides():
    some = [caption(invented=1)] * 15 + [caption()] * 285
    verdict, why, corrected = decided(*some)
    assert verdict == "passed" and "1.0% of the objects invented" in why
    assert corrected.rate > 15 / 1500  # the judge misses some
    assert decided(*some, max_invented=float(corrected.high) - 1e-6)[0] == "failed"
    assert decided(*some, max_invented=float(corrected.high) + 1e-6)[0] == "passed"


def test_few_inventions_pass_only_where_they_cannot_be_many():
    assert decided(*[caption()] * 100)[0] == "passed"
    verdict, why, _ = decided(*[caption()] * 20)
    assert verdict == "no verdict" and why.startswith("0 of 20 captions have an invention: 180 captions more")
    assert most_invented([caption()] * 100, 1.0) == pytest.approx(1 - 0.025**0.01)
    assert most_invented([caption(1)] * 50 + [caption(9)] * 50, 0.5) > 3 * most_invented([caption()] * 100, 1.0)


@pytest.mark.parametrize(
    ("decoys", "why"), [((19, 19), "19 decoys"), ((160, 200), "not fit here: it affirmed 40 of 200")]
)
def test_a_judge_that_is_not_known_or_not_fit_gives_no_figure(decoys, why):
    verdict, said, corrected = decided(*[caption(invented=3)] * 50, decoys=Known(*decoys))
    assert (verdict, corrected) == ("no verdict", None) and why in said


def test_confirmed_objects_that_it_denies_make_it_unfit():
    assert "not fit" in decided(*[caption()] * 50, confirmed=Known(40, 100))[1]


def test_undecided_objects_fail():
    assert decided(*[caption(undecided=1)] * 100)[:2] == ("failed", "16.7% of the objects are undecided")


def test_captions_that_say_too_little_fail():
    few = [caption(1)] * 90 + [caption(2)] * 10
    assert decided(*few, min_objects=2)[:2] == ("failed", "captions name 1.10 objects in the mean")


def test_captions_of_another_world_get_no_verdict_whatever_the_judge_denies():
    others = [caption(0)] * 80 + [caption(1, invented=1)] * 20
    verdict, why, corrected = decided(*others)
    assert (verdict, corrected) == ("no verdict", None) and why.startswith(
        "questions can be made of 20 of 100 captions"
    )


def test_what_the_sequence_decided_stands():
    some = [caption(invented=1)] * 8 + [caption()] * 12
    assert decided(*some, sequence="above")[0] == "failed"
    assert decided(*some, sequence="below", max_invented=0.3)[0] == "passed"
    assert decided(*some, sequence="below", max_invented=0.05)[0] != "passed"  # above it, once corrected
    assert decided(*some, sequence="open")[0] == "no verdict"


def test_where_inventions_are_taken_out_their_rate_fails_nothing():
    assert decided(*[caption(invented=4)] * 50, repair="drop")[:2] == ("passed", "what is invented was taken out")


@pytest.mark.parametrize("changes", [{}, {"captions": None, "until": "decided"}])
def test_what_is_not_judged_cannot_be_mended(changes):
    with pytest.raises(ValidationError, match=r"dsg\.repair is drop"):
        DsgSettings(**SETTINGS.model_dump() | {"repair": "drop"} | changes)
