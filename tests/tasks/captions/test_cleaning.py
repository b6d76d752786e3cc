import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.captions import cleaning
from tasks.captions.cleaning import clean, sentences

ALL = cleaning.RULES
HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\x00\x1b[]31m\x07\u202e\u200f\ufeff\u2028<>{}*_#`\"'“”.!? \n\t-7"),
    ),
    max_size=200,
)
PIECES = st.lists(
    st.sampled_from(
        [
            *(
                "The video shows ",
                "Sure! ",
                "Here is a caption: ",
                "**",
                "# ",
                "- ",
                "\n",
                "`",
                '"',
                "<think>",
                "</think>",
            ),
            *(
                "a red car",
                "There is no text visible.",
                " I cannot tell.",
                "\x1b[31m",
                "\x00",
                "\u202e",
                "<script>x</script>",
            ),
            *("{{7*7}}", "😀", "schÃ¶n", "[a](b)", ". ", "一个人。"),
        ]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("raw", "text", "rules"),
    [
        ("a red car", "a red car", ()),
        ("The video shows a red car.", "A red car.", ("prefix",)),
        ("In this video, there is a red car.", "A red car.", ("prefix",)),
        ("Sure! Here is a detailed caption: the clip depicts a red car.", "A red car.", ("prefix",)),
        ("the scene shows rain", "rain", ("prefix",)),
        ("Caption: **A red car** on a `road`", "A red car on a road", ("markdown", "prefix")),
        ("# A car\n\n- it is red\n- it is fast", "A car it is red it is fast", ("markdown", "spaces")),
        ('"A red car."', "A red car.", ("quotes",)),
        ('"A" and "B"', '"A" and "B"', ()),
        ("A red car. There is no text visible.", "A red car.", ("limits",)),
        ("The image does not contain any imaginary content. A cat.", "A cat.", ("limits",)),
        ("A man says that no text can wait.", "A man says that no text can wait.", ()),
        ("ein schÃ¶nes Haus", "ein schönes Haus", ("mojibake",)),
        ("<think>what is it?</think>A red car.", "A red car.", ("thinking",)),
        ("a\x00 red\x1b[31m \u202ecar\x1b]0;title\x07", "a red car", ("controls",)),
        ("a  red\n\n car", "a red car", ("spaces",)),
        ("A 3-day race, 4*4 cars, snake_case_name", "A 3-day race, 4*4 cars, snake_case_name", ()),
        ("the videos of shows ended", "the videos of shows ended", ()),
        ("The video shows", "The video shows", ()),
    ],
)
def test_each_rule_takes_out_what_it_names_and_says_so(raw, text, rules):
    assert clean(raw, ALL) == (text, rules)


def test_a_rule_that_is_not_asked_for_is_not_applied_but_for_what_nobody_sees():
    assert clean("The video shows\x00 **a  car**", ()) == ("The video shows **a car**", ("controls", "spaces"))


@settings(max_examples=150, deadline=None)
@given(st.one_of(HOSTILE, PIECES))
def test_whatever_comes_the_text_is_one_line_that_a_terminal_and_a_table_may_have(raw):
    text, rules = clean(raw, ALL)
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Co") for letter in text)
    assert not any(letter in text for letter in "\u202a\u202b\u202d\u202e\u2066\u200e\u200f\ufeff")
    assert text == " ".join(text.split())
    text.encode("utf-8")
    assert (text != raw) == bool(rules)
    assert list(rules) == [rule for rule in ALL if rule in rules]


@settings(max_examples=100, deadline=None)
@given(st.one_of(HOSTILE, PIECES))
def test_cleaning_adds_no_word(raw):
    text, rules = clean(raw, set(ALL) - {"mojibake"})
    left = iter(raw.casefold())
    assert all(letter in left for letter in text.casefold().replace(" ", "")), rules


@pytest.mark.parametrize("piece", ["<think>", "\x1b]", '"', "[a](", "**a", "The video shows ", "I cannot ", "!'"])
def test_a_long_hostile_text_takes_no_time_to_speak_of(piece):
    before = time.process_time()
    clean(piece * (40_000 // len(piece)), ALL)
    assert time.process_time() - before < 2


def test_sentences_end_where_they_end():
    assert sentences("Dr. Smith waits. It rains! Does it? Yes") == ["Dr. Smith waits.", "It rains!", "Does it?", "Yes"]
    assert sentences("一个人走。下雨了。") == ["一个人走。", "下雨了。"]
    assert sentences("") == []
