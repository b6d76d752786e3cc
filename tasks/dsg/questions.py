"""Questions about a caption, each with a kind and the questions that it depends on: a Davidsonian scene graph
(Cho et al. 2024, arXiv 2310.18235). What a language model writes as a graph is often none: it is repaired here, and
every repair has a code.
"""

import re
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

Kind = Literal["object", "attribute", "relation", "action", "count", "text", "global"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PER_FRAME: frozenset[Kind] = frozenset({"object", "attribute", "text"})
"""Kinds that are asked of one frame at a time: one frame can show them. Of the others, what moves, what happens and
the whole, one question is asked with all frames in order."""

Repair = Literal["duplicate_id", "parent_text", "parent_unknown", "parent_self", "parent_cycle", "object_merged"]

_NUMBER = re.compile(r"[+-]?\d{1,9}")


class Asked(NamedTuple):
    """A question as whoever wrote it put it, before anything was checked."""

    id: int
    """Its number within the caption."""
    kind: Kind
    text: str
    """What a judge is asked: a question that is answered by yes or no."""
    parents: object = ()
    """Ids of the questions that it depends on: numbers, or text such as "1, 3"; 0 is none, as in DSG's files."""
    sentences: tuple[int, ...] = (0,)
    """Numbers, from 0, of the caption's sentences that say it."""
    key: str = ""
    """Of an object: its name without case and number, by which two mentions are known to be one."""


class Question(NamedTuple):
    """A question of a repaired graph; fields as of `Asked`."""

    id: int
    kind: Kind
    text: str
    parents: tuple[int, ...]
    sentences: tuple[int, ...]
    key: str


class Graph(NamedTuple):
    """The questions of one caption, each after those that it depends on."""

    questions: tuple[Question, ...]
    repairs: tuple[tuple[int, Repair], ...]
    """What was mended, with the id of the question where: in the order of the questions."""


def read_parents(written: object) -> tuple[tuple[int, ...], bool]:
    """Return the ids in a list of parents, each once, and whether there was anything else in it.

    Args:
        written: numbers, or texts with commas between ids; None, an empty text and 0 stand for no parent.
    """
    ids: list[int] = []
    is_clean = True
    for item in _items(written):
        if isinstance(item, int) and not isinstance(item, bool):
            ids.append(item)
        elif isinstance(item, str) and _NUMBER.fullmatch(item.strip()):
            ids.append(int(item))
        else:
            is_clean = False
    return tuple(dict.fromkeys(number for number in ids if number)), not is_clean


def _items(written: object) -> Iterable[object]:
    if written is None or written == "":
        return ()
    if isinstance(written, str):
        return written.split(",")
    if isinstance(written, Sequence):
        return [part for item in written for part in (item.split(",") if isinstance(item, str) else [item])]
    return (written,)


def repair(asked: Sequence[Asked]) -> Graph:
    """Make a graph of a caption's questions, in an order in which each comes after its parents.

    A number that two questions have is the first one's. Text among parents is dropped, and with it nothing else; so
    are parents that are no question, and the question itself. Objects of one `key` become one, of all their
    sentences. In a circle the edge goes that points furthest back: from the parent of the latest sentence to the
    child of the earliest, then from the highest to the lowest id.
    """
    repairs: list[tuple[int, Repair]] = []
    firsts, renamed = _merge(asked, repairs)
    parents = {one.id: _parents(one, firsts, renamed, repairs) for one in firsts.values()}
    order = _break_circles(firsts, parents, repairs)
    questions = tuple(
        Question(one.id, one.kind, one.text, parents[one.id], one.sentences, one.key)
        for one in (firsts[number] for number in order)
    )
    return Graph(questions, tuple(repairs))


def _merge(asked: Sequence[Asked], repairs: list[tuple[int, Repair]]) -> tuple[dict[int, Asked], dict[int, int]]:
    """Return the questions by id, each object once, and the id of the object that each dropped one became."""
    firsts: dict[int, Asked] = {}
    renamed: dict[int, int] = {}
    objects: dict[str, int] = {}
    for one in asked:
        if one.id in firsts or one.id in renamed:
            repairs.append((one.id, "duplicate_id"))
            continue
        same = objects.setdefault(one.key, one.id) if one.kind == "object" and one.key else one.id
        if same == one.id:
            firsts[one.id] = one
            continue
        renamed[one.id] = same
        repairs.append((one.id, "object_merged"))
        kept = firsts[same]
        firsts[same] = kept._replace(sentences=tuple(sorted({*kept.sentences, *one.sentences})))
    return firsts, renamed


def _parents(
    one: Asked, known: dict[int, Asked], renamed: dict[int, int], repairs: list[tuple[int, Repair]]
) -> tuple[int, ...]:
    ids, has_text = read_parents(one.parents)
    if has_text:
        repairs.append((one.id, "parent_text"))
    kept = []
    for parent in dict.fromkeys(renamed.get(number, number) for number in ids):
        if parent == one.id:
            repairs.append((one.id, "parent_self"))
        elif parent not in known:
            repairs.append((one.id, "parent_unknown"))
        else:
            kept.append(parent)
    return tuple(kept)


def _break_circles(
    known: dict[int, Asked], parents: dict[int, tuple[int, ...]], repairs: list[tuple[int, Repair]]
) -> list[int]:
    """Return the ids in order, after edges of `parents` were dropped that make circles."""
    if all(parent < number for number, own in parents.items() for parent in own):
        return sorted(parents)  # as nearly all are, and sorting them needs no graph
    while True:
        try:
            return list(TopologicalSorter(parents).static_order())
        except CycleError as error:
            circle = error.args[1]  # each is a parent of the next, and the first is the last
            edges = pairwise(circle)
            parent, child = max(edges, key=lambda edge: _backward(known[edge[0]], known[edge[1]]))
            parents[child] = tuple(number for number in parents[child] if number != parent)
            repairs.append((child, "parent_cycle"))


def _backward(parent: Asked, child: Asked) -> tuple[int, int]:
    """Say how far an edge points back, in sentences, then in ids."""
    return min(parent.sentences) - min(child.sentences), parent.id - child.id
