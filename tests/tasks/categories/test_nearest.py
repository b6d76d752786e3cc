"""Categories by the nearest description, of the encoder that is installed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.categories import nearest
from tests.made_categories import ENCODER, LISTED, NEAREST, run, settings, write_captions

TEXTS = {
    "a red circle moves left over a plain grey background": "shapes",
    "A brown dog runs through deep snow.": "animals",
    "Several cars and a bicycle wait in front of a train.": "vehicles",
    "Tax law.": "other",
}


def test_a_caption_is_of_the_category_that_it_is_about_and_of_none_where_it_is_about_none():
    listed = settings().listed
    found = nearest.categorise([*TEXTS, *TEXTS], listed, NEAREST, "cpu")
    assert [one.category for one in found] == [*TEXTS.values()] * 2
    assert found[:4] == found[4:] and all(one.reason is None for one in found)
    assert all(one.similarity >= 0.2 and one.margin >= 0.02 for one in found if one.category != "other")
    alone = nearest.categorise([list(TEXTS)[1]], listed, NEAREST, "cpu")
    assert alone[0][:2] == found[1][:2]
    assert alone[0].similarity == pytest.approx(found[1].similarity, abs=2e-4)


@given(
    similarities=st.lists(st.integers(-100, 100).map(lambda n: n / 100), min_size=1, max_size=5),
    least=st.sampled_from([-1.0, 0.0, 0.25]),
    margin=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_what_is_too_far_or_between_two_is_other(similarities, least, margin):
    names = [f"c{number}" for number in range(len(similarities))]
    limits = NEAREST.model_copy(update={"min_similarity": least, "min_margin": margin})
    found = nearest.nearest(np.array(similarities, np.float32), names, limits)
    ordered = sorted(similarities, reverse=True)
    assert found.nearest == names[similarities.index(ordered[0])]
    apart = ordered[0] - ordered[1] if len(ordered) > 1 else None
    assert (found.margin is None) == (apart is None)
    is_clear = ordered[0] >= least and (apart is None or round(apart, 4) >= margin)
    assert found.category == (found.nearest if is_clear else "other")


def test_a_description_that_the_encoder_would_cut_is_refused_with_its_length():
    long = settings(listed=[*LISTED, {"name": "long", "description": "a word and " * 20}])
    with pytest.raises(ValueError, match=r"description of long has 62 tokens, .*encoder\.tokens is 32"):
        nearest.check_descriptions(long.listed, NEAREST)


def test_an_encoder_that_is_not_there_is_refused():
    nowhere = NEAREST.model_copy(update={"encoder": ENCODER.model_copy(update={"source": "nowhere"})})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        nearest.check_descriptions(settings().listed, nowhere)


def test_the_nearest_description_decides_and_the_report_has_the_shares(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_captions(
        tmp_path / "captions",
        ["A dog runs.", "a red circle", None, "A car.", "Tax law.", "A dog runs.", "Birds fly.", "a blue square"],
    )
    rows, report = run(settings(by=NEAREST, weights="equal"))
    assert [row["category"] for row in rows] == [
        "animals", "shapes", "vehicles", "other", "animals", "animals", "shapes",
    ]  # fmt: skip
    assert {row["weight"] for row in rows} == {1.0} and {row["model"] for row in rows} == {NEAREST.encoder.source}
    shares = report["categories"]
    assert {name: one["clips"] for name, one in shares.items()} == {
        "shapes": 2, "animals": 3, "vehicles": 1, "other": 1,
    }  # fmt: skip
    assert all(0 <= one["low"] <= one["share"] <= one["high"] <= 1 for one in shares.values())
    assert sum(one["share"] for one in shares.values()) == pytest.approx(1)
