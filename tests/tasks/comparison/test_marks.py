"""What is invented is marked in the words of the caption."""

import pytest

from tasks.comparison.marks import Piece, mark


def answered(number, kind, text, verdict="invented", parents=(), sentences=(0,)):
    row = {"role": "caption", "question": number, "kind": kind, "text": text, "verdict": verdict}
    return row | {"parents": list(parents), "sentences": list(sentences)}


def test_an_object_and_the_words_that_belong_to_one():
    text = "A red circle moves left. A dog runs behind the circle."
    pieces = mark(
        text,
        [
            answered(1, "object", "Is there a circle?", "present", sentences=(0, 1)),
            answered(2, "attribute", "Is the circle red?", parents=(1,)),
            answered(3, "relation", "Does the circle move left?", "present", parents=(1,)),
            answered(4, "object", "Is there a dog?", sentences=(1,)),
            answered(5, "object", "Is there a house?", "void", sentences=(1,)),
        ],
    )
    assert [piece for piece in pieces if piece.kind] == [Piece("red", "attribute"), Piece("dog", "object")]
    assert "".join(piece.text for piece in pieces) == text


def test_where_a_question_has_other_words_its_sentence_is_marked():
    pieces = mark("It rains. A puppy sleeps.", [answered(1, "object", "Is there a dog?", sentences=(1,))])
    assert pieces == [Piece("It rains. ", None), Piece("A puppy sleeps.", "object")]


@pytest.mark.parametrize("role", ["decoy", "decoy_parent"])
def test_decoys_are_no_words_of_the_caption(role):
    assert mark("a cat", [answered(1, "object", "Is there a cat?") | {"role": role}]) == [Piece("a cat", None)]
