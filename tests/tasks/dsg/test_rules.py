"""Questions are made of the words of a caption."""

import pytest

from tasks.demo import shapes
from tasks.dsg.questions import repair
from tasks.dsg.rules import decoys, questions, said, sentences


def texts(asked):
    return [one.text for one in asked]


def test_a_caption_asks_for_its_shape_its_colour_and_its_direction():
    graph = repair(questions("A red circle moves left over a striped grey background."))
    assert [(one.kind, one.text, one.parents, one.key) for one in graph.questions] == [
        ("object", "Is there a circle?", (), "circle"),
        ("attribute", "Is the circle red?", (1,), ""),
        ("relation", "Does the circle move left?", (1,), ""),
    ]
    assert graph.repairs == ()


@pytest.mark.parametrize("number", range(10))
def test_every_caption_of_the_corpus_asks_for_what_it_says(number):
    text = shapes.caption(shapes.scene(0, number, held_out=False))
    found, known = said(text), shapes.said(text)
    assert (*found.colours, *found.shapes, *found.directions) == tuple(known)
    assert len(questions(text)) == 3


def test_sentences_have_questions_of_their_own_and_an_object_named_twice_is_one():
    text = "A red circle moves left. The circle is red! Behind it stands a square?"
    graph = repair(questions(text))
    assert len(sentences(text)) == 3
    assert [(one.key, one.sentences) for one in graph.questions if one.kind == "object"] == [
        ("circle", (0, 1)),
        ("square", (2,)),
    ]


def test_what_belongs_to_what_is_not_guessed():
    assert texts(questions("a red circle and a blue square move left")) == ["Is there a circle?", "Is there a square?"]
    assert texts(questions("a red and blue circle moves left")) == ["Is there a circle?", "Does the circle move left?"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "🙂",
        "一个红色的圆。",
        "ein roter Kreis",
        "a dark landscape video, mostly grey",
        "\n" * 10_000,
        "\x00\x1b[31m",
    ],
)
def test_a_caption_without_an_object_that_is_known_asks_nothing(text):
    assert questions(text) == []


def test_decoys_are_what_another_caption_says():
    own, other = "a red circle moves left", "a blue square moves up"
    assert texts(decoys(own, [other])) == [
        "Is there a circle?",
        "Is there a square?",
        "Is the circle blue?",
        "Does the circle move up?",
    ]


def test_what_both_say_is_no_decoy():
    assert texts(decoys("a red circle moves left", ["a red circle moves up"])) == [
        "Is there a circle?",
        "Does the circle move up?",
    ]
    assert texts(decoys("a dark video", ["a red circle moves up"])) == ["Is there a circle?"]
    assert decoys("a dark video", ["a bright video"]) == decoys("a dark video", []) == []


def test_several_captions_make_one_decoy_of_each_object():
    others = ["a blue square moves up", "a green square moves up", "a cross"]
    assert texts(decoys("a dark video", others)) == ["Is there a square?", "Is there a cross?"]
