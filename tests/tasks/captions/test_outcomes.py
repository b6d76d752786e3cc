from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.params import load_params
from tasks.captions.captioner import Said
from tasks.captions.outcomes import REASONS, is_in, reason_against, repeated
from tasks.captions.stage import judge
from tasks.demo import shapes

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml").captions
CHECKS = PARAMS.checks


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a red circle is moving left in front of a shaded wall", None),
        ("a dark landscape video, 640 by 272 pixels, mostly grey, moving fast to the left", None),
        ("two bunnies", None),
        ("", "empty"),
        ("!!!!!!!!!!!!!!!!!!!!!!!!", "not_text"),
        ("😀", "not_text"),
        ("0000 0000 0000", "not_text"),
        ("ab", "too_short"),
        ("word " * 600, "too_long"),
        ("the man is " * 12, "repetition"),
        ("a car" + "r" * 30, "repetition"),
        ("Ein Mann mit einer roten Jacke fährt auf einem Fahrrad die nasse Straße hinunter.", "language"),
        ("一个穿红色夹克的男人骑着自行车沿着潮湿的街道行驶,两只狗在他旁边奔跑。", "language"),
        ("Ein Mann", None),  # too few letters to tell
    ],
)
def test_a_caption_is_judged_by_what_it_is(text, reason):
    assert reason_against(text, CHECKS) == reason


def test_what_is_accepted_is_a_setting():
    german = "Ein Mann mit einer roten Jacke fährt auf einem Fahrrad die nasse Straße hinunter."
    assert reason_against(german, CHECKS.model_copy(update={"languages": ("en", "de")})) is None
    assert not is_in(german, ("en",), ("de", "fr"))
    with pytest.raises(ValueError, match="xq"):
        is_in(german, ("en", "xq"), ())


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said("I'm sorry, but I can't help with that."), "refused"),
        (Said("As an AI language model, I cannot see the video."), "refused"),
        (Said(" \n\n " * 500), "empty"),
        (Said("There is no text visible."), "empty"),
        (Said(None, raw="{", reason="malformed"), "malformed"),
        (Said("A dog runs. I cannot tell where to."), None),
    ],
)
def test_what_a_captioner_says_is_a_caption_or_has_a_reason(said, reason):
    judged = judge(said, PARAMS)
    assert (judged.reason, judged.text is None) == (reason, reason is not None)


def test_the_short_text_is_the_captioners_or_the_first_sentence():
    assert judge(Said("A dog runs. It is brown."), PARAMS).short == "A dog runs."
    assert judge(Said("A dog runs. It is brown.", short="The video shows a dog."), PARAMS).short == "A dog."


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300))
def test_whatever_is_said_there_is_a_text_or_one_reason_of_the_list(text):
    judged = judge(Said(text), PARAMS)
    assert (judged.text is None) != (judged.reason is None)
    assert judged.reason is None or judged.reason in REASONS


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=20, unique=True), st.integers(4, 9))
def test_a_phrase_said_again_and_again_is_found_and_one_said_once_is_not(words, times):
    assert repeated(" ".join(f"word{letter}" for letter in words)) == 0
    assert repeated(" ".join(" ".join(f"word{letter}" for letter in words) for _ in range(times))) > 0.5


def test_every_caption_of_the_demo_is_ok_as_it_is():
    said = {shapes.caption(shapes.scene(0, number, held_out)) for number in range(150) for held_out in (False, True)}
    assert len(said) > 50
    for text in said:
        judged = judge(Said(text), PARAMS)
        assert (judged.text, judged.rules, judged.reason) == (text, (), None)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.characters(), st.integers(1, 30), st.text(max_size=40))
def test_twelve_of_one_sign_in_a_row_are_a_loop_wherever_they_stand(before, sign, times, after):
    text = before + sign * times + after
    runs = [len(list(run)) for letter, run in groupby(text) if not letter.isspace()]
    assert (repeated(text) == 1) == (max(runs, default=0) >= 12)
