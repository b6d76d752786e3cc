"""One caption judged: its questions, its decoys, and its text without what is invented."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from tasks.dsg import rules
from tasks.dsg.answers import Answer, parse
from tasks.dsg.correction import Known
from tasks.dsg.judges import Answering, Judge, Look, ShapesJudge
from tasks.dsg.questions import Graph, Kind, Question, repair
from tasks.dsg.scores import Counts, count
from tasks.dsg.verdicts import Examined, Verdict, examine

Role = Literal["caption", "decoy", "decoy_parent", "rewrite"]
"""What a question is of: what the caption says; what it does not say; what a decoy depends on; what the caption
says after it was written again."""


class Other(NamedTuple):
    """A caption of another clip."""

    clip: str
    text: str


class Caption(NamedTuple):
    """A caption that is judged."""

    clip: str
    """Id of its clip."""
    text: str
    stills: Sequence[bytes]
    """JPEG bytes, in order of time."""
    others: Sequence[Other]
    """Captions of other clips, of which decoys are made; none makes none."""
    captioner: str = ""
    """Who wrote it, for whoever has it written again."""


class Questioned(NamedTuple):
    """Questions that were answered."""

    graph: Graph
    examined: Examined


def judge_caption(caption: Caption, judge: Judge) -> dict[str, Any]:
    """Return what was asked and answered, as `judged_row`, of a caption by rules over its words.

    Raises:
        ValueError: the stills are no pictures.
    """
    look = judge.look(caption.stills)
    own = _questioned(repair(rules.questions(caption.text)), caption.stills, look)
    decoys = None
    if caption.others:
        asked = rules.decoys(caption.text, [other.text for other in caption.others])
        decoys = _questioned(repair(asked), caption.stills, look, early_exit=False)  # `_steady` looks at all of them
    return judged_row(rules.sentences(caption.text), own, decoys, judge, rules.DECOY_PARENT)


def judged_row(
    sentences: Sequence[str],
    own: Questioned,
    decoys: Questioned | None,
    judge: Answering,
    decoy_parent: int | None = None,
) -> dict[str, Any]:
    """Return what was asked and answered, in columns of schema DSG and, in `evidence`, rows of schema EVIDENCE.

    Args:
        sentences: of the caption.
        decoy_parent: id of the question among the decoys that is none, if there is one.
    """
    row = count(own.graph, own.examined.verdicts, len(sentences))._asdict()
    del row["kinds"]
    evidence = evidence_rows(own, judge, lambda question: "caption")
    if decoys is not None:
        evidence += evidence_rows(
            decoys, judge, lambda question: "decoy_parent" if question.id == decoy_parent else "decoy"
        )
    return row | {
        "repairs": [code for _, code in own.graph.repairs],
        "kept_text": without_inventions(sentences, own.graph, own.examined.verdicts),
        "evidence": evidence,
    }


def _questioned(graph: Graph, stills: Sequence[bytes], look: Look, early_exit: bool = True) -> Questioned:
    def ask(question: Question, frame: int | None) -> Answer:
        return parse(look(question, frame))

    return Questioned(graph, examine(graph, len(stills), ask, early_exit))


def without_inventions(said: Sequence[str], graph: Graph, verdicts: dict[int, Verdict]) -> str:
    """Return the sentences that name no invented object, one after the other."""
    invented = {
        number
        for question in graph.questions
        if question.kind == "object" and verdicts[question.id] == "invented"
        for number in question.sentences
    }
    return " ".join(sentence for number, sentence in enumerate(said) if number not in invented)


def evidence_rows(asked: Questioned, judge: Answering, role_of: Callable[[Question], Role]) -> list[dict[str, Any]]:
    """Return a row per answer, and one without an answer of a question that was not asked."""
    graph, examined = asked
    answers: dict[int, list[tuple[int | None, str | None]]] = {}
    for one in examined.evidence:
        answers.setdefault(one.question, []).append((one.frame, one.answer))
    rows = []
    for question in graph.questions:
        own: dict[str, Any] = {
            "role": role_of(question),
            "question": question.id,
            "kind": question.kind,
            "parents": list(question.parents),
            "sentences": list(question.sentences),
            "text": question.text,
            "verdict": examined.verdicts[question.id],
            "model": judge.name,
            "prompt_sha256": judge.prompt_sha256,
        }
        rows += [own | {"frame": at, "answer": answer} for at, answer in answers.get(question.id, [(None, None)])]
    return rows


def counts_of(row: dict[str, Any]) -> Counts:
    """Return the counts of a judged caption from its row."""
    kinds = {kind: (present + invented, invented, undecided)
             for kind, (present, invented, undecided) in _verdicts_of(row, "caption").items()}  # fmt: skip
    own = {name: row[name] for name in Counts._fields if name in row}
    return Counts(**own | {"keys": tuple(row["keys"]), "kinds": kinds})


def decoys_of(row: dict[str, Any]) -> dict[Kind, Known]:
    """Return of each kind of decoys of a judged caption how many were denied, of how many decided ones.

    Shapes exclude each other, and so do colours and directions of one: where the caption's own is denied, a decoy may
    be what is there instead. So of questions by rules, for each that is denied one decoy is not counted that is
    affirmed in every frame: a shape that is there is seen in all of them, one that is not rarely is.
    """
    found, own = _verdicts_of(row, "decoy"), _verdicts_of(row, "caption")
    if any(one["model"] != ShapesJudge.name for one in row["evidence"]):
        own = {}
    steady = _steady(row)
    return {
        kind: Known(denied, denied + affirmed - min(steady[kind], own.get(kind, [0, 0, 0])[1]))
        for kind, (affirmed, denied, _) in found.items()
    }


def _steady(row: dict[str, Any]) -> Counter[Kind]:
    """Return how many decoys of each kind are affirmed whenever they are asked about."""
    answers: dict[int, set[str]] = {}
    kinds: dict[int, Kind] = {}
    for one in row["evidence"]:
        if one["role"] == "decoy":
            kinds[one["question"]] = one["kind"]
            answers.setdefault(one["question"], set()).add(one["answer"])
    return Counter(kinds[question] for question, found in answers.items() if found == {"yes"})


def _verdicts_of(row: dict[str, Any], role: Role) -> dict[Kind, list[int]]:
    """Return how many questions of each kind are present, invented and undecided."""
    verdicts = {one["question"]: (one["kind"], one["verdict"]) for one in row["evidence"] if one["role"] == role}
    found: dict[Kind, list[int]] = {}
    for kind, verdict in verdicts.values():
        if verdict != "void":
            found.setdefault(kind, [0, 0, 0])[_COUNTED.index(verdict)] += 1
    return found


_COUNTED: tuple[Verdict, ...] = ("present", "invented", "undecided")
