"""A graph of questions is one after the repair, whatever it was before, and every repair is noted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dsg.questions import KINDS, Asked, read_parents, repair


def ask(number, parents=(), kind="object", **others):
    return Asked(number, kind, f"question {number}?", parents, **others)


def edges(graph):
    return {question.id: question.parents for question in graph.questions}


@pytest.mark.parametrize(
    ("written", "ids", "has_text"),
    [
        ("1, 3", (1, 3), False),
        ("0", (), False),
        (0, (), False),
        (None, (), False),
        ("", (), False),
        ([1, "2", 2], (1, 2), False),
        ("5, background", (5,), True),
        ("2,,3", (2, 3), True),
        ([True, 4], (4,), True),
        ([[1]], (), True),
        ("99999999999999999999", (), True),
        (2.5, (), True),
        ({"a": 1}, (), True),
    ],
)
def test_parents_are_the_numbers_in_what_was_written(written, ids, has_text):
    assert read_parents(written) == (ids, has_text)


@pytest.mark.parametrize(
    ("parents", "code"),
    [("7", "parent_unknown"), ("1, background", "parent_text"), ("1, 2", "parent_self")],
)
def test_what_is_no_parent_is_dropped_and_noted(parents, code):
    graph = repair([ask(1), ask(2, parents, kind="attribute")])
    assert edges(graph)[2] == (() if code == "parent_unknown" else (1,))
    assert graph.repairs == ((2, code),)


def test_a_circle_loses_the_edge_that_points_from_the_latest_sentence_to_the_earliest():
    late, early = ask(1, "2", sentences=(1,)), ask(2, "1", sentences=(0,))
    graph = repair([late, early])
    assert edges(graph) == {2: (), 1: (2,)}  # 1, of the later sentence, may depend on 2, and not the other way
    assert graph.repairs == ((2, "parent_cycle"),)


def test_within_a_sentence_a_circle_loses_the_edge_from_the_highest_id():
    graph = repair([ask(1, "3"), ask(2, "1"), ask(3, "2")])
    assert edges(graph) == {1: (), 2: (1,), 3: (2,)}
    assert graph.repairs == ((1, "parent_cycle"),)


def test_a_parent_with_a_higher_number_is_no_circle():
    graph = repair([ask(1, "2", kind="attribute"), ask(2)])
    assert [question.id for question in graph.questions] == [2, 1]
    assert graph.repairs == ()


def test_an_object_named_twice_is_one_of_both_sentences_and_keeps_its_children():
    graph = repair(
        [
            ask(1, key="cat", sentences=(0,)),
            ask(2, key="cat", sentences=(1,)),
            ask(3, "2", kind="attribute", sentences=(1,)),
        ]
    )
    assert [(one.id, one.sentences, one.parents) for one in graph.questions] == [(1, (0, 1), ()), (3, (1,), (1,))]
    assert graph.repairs == ((2, "object_merged"),)


def test_a_number_that_two_have_is_the_first_ones():
    graph = repair([ask(1), ask(1, kind="global")])
    assert [(one.id, one.kind) for one in graph.questions] == [(1, "object")]
    assert graph.repairs == ((1, "duplicate_id"),)


def test_no_question_is_a_graph_too():
    assert repair([]).questions == ()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),
            st.sampled_from(KINDS),
            st.lists(st.one_of(st.integers(-1, 8), st.text(max_size=3)), max_size=4),
            st.integers(0, 3),
            st.sampled_from(["", "a", "b"]),
        ),
        max_size=8,
    )
)
def test_every_parent_comes_before_its_child_whatever_was_written(rows):
    asked = [Asked(number, kind, "?", parents, (sentence,), key) for number, kind, parents, sentence, key in rows]
    graph = repair(asked)
    seen = set()
    for question in graph.questions:
        assert seen.issuperset(question.parents)
        seen.add(question.id)
    dropped = sum(code in ("duplicate_id", "object_merged") for _, code in graph.repairs)
    assert len(graph.questions) == len(seen) == len(asked) - dropped
    again = repair([Asked(*question) for question in graph.questions])
    assert (edges(again), again.repairs) == (edges(graph), ())
