"""Captions judged some at a time, and what is said of their captioner: for stage dsg, and wherever else there are texts
and stills."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from tasks.chat.store import STORE
from tasks.dsg import audit, rules
from tasks.dsg.audit import Audited, Verdicts
from tasks.dsg.by_models import UNQUESTIONED, JudgingByModels
from tasks.dsg.captions import Caption, Other, counts_of, decoys_of, judge_caption
from tasks.dsg.correction import FEWEST_DECOYS, Known, add
from tasks.dsg.gate import Gate, Judged, decide
from tasks.dsg.judges import ShapesJudge
from tasks.dsg.questions import Kind, repair
from tasks.dsg.scores import Counts
from tasks.dsg.sequential import Sequential, rank, stop
from tasks.dsg.settings import DsgSettings
from tasks.storage import stills

log = logging.getLogger(__name__)

OF_CAPTION = ("clip", "captioner", "of_whole_video", "text")
"""What is known of a caption that is judged, by its columns of schema CAPTIONS."""
_MOST_TRIES = 64  # captions that are looked at for one that says something else
_NONE = Known(0, 0)
_NOBODY: Verdicts = MappingProxyType({})


def source_of(row: dict[str, Any]) -> str:
    """Return whose text a caption is: its captioner, whose texts of whole videos are judged apart."""
    return row["captioner"] + (" of whole videos" if row["of_whole_video"] else "")


def with_others(captions: Sequence[dict[str, Any]], settings: DsgSettings) -> Iterator[dict[str, Any]]:
    """Give captions, each with `others`: captions of which its decoys are made, for a share of them.

    The others are the next in order, of any captioner and of other clips; where rules know the words, those that name
    an object which none before them does.

    Args:
        captions: columns `OF_CAPTION`, in random order.
    """
    pick = _new_by_rules if settings.judge == "shapes" else _next
    for place, one in enumerate(captions):
        chance = int.from_bytes(rank(f"decoys of {one['clip']}", settings.seed)[:8]) / 2**64
        ahead = (captions[(place + step) % len(captions)] for step in range(1, min(_MOST_TRIES, len(captions))))
        others = pick(one, ahead, settings.decoys) if chance < settings.decoy_fraction else []
        yield one | {"others": [{"clip": other["clip"], "text": other["text"]} for other in others]}


def _new_by_rules(own: dict[str, Any], candidates: Iterable[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    known = set(rules.said(own["text"]).shapes)
    found: list[dict[str, Any]] = []
    for other in candidates:
        if len(found) == most:
            break
        named = rules.said(other["text"]).shapes
        if not known.issuperset(named):
            known.update(named)
            found.append(other)
    return found


def _next(own: dict[str, Any], candidates: Iterable[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    return list(islice((other for other in candidates if other["clip"] != own["clip"]), most))


class Judging(Protocol):
    """Judges captions, some at a time."""

    made_with: Mapping[str, Any]
    """Models and prompts; nothing without one."""

    def judge(self, captions: Sequence[Caption]) -> Iterable[dict[str, Any]]:
        """Give of each caption what `judge_caption` returns, or its status and reason where it cannot be judged."""

    def objects(self, captions: Sequence[Caption]) -> list[int]:
        """Return how many objects each caption names, before any is looked for; its stills are not needed."""


class JudgingByRules:
    """Questions by rules over the captions' words, answered by `shapes.judge`."""

    made_with: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        self._judge = ShapesJudge()

    def judge(self, captions: Sequence[Caption]) -> Iterator[dict[str, Any]]:
        """Give what was counted in each caption; one with a still that is no picture is failed."""
        for caption in captions:
            try:
                yield judge_caption(caption, self._judge)
            except ValueError as error:
                log.warning("%s: %s", caption.clip, error)
                yield {"status": "failed", "reason": "bad_still"}

    def objects(self, captions: Sequence[Caption]) -> list[int]:
        """Return how many objects each caption names."""
        return [
            sum(question.kind == "object" for question in repair(rules.questions(caption.text)).questions)
            for caption in captions
        ]


def judging_by(settings: DsgSettings, store: Path = STORE) -> Judging:
    """Return who judges captions.

    Args:
        store: file of the answers of models.

    Raises:
        FileNotFoundError, ValueError: a prompt is none.
    """
    if settings.judge == "shapes":
        return JudgingByRules()
    return JudgingByModels(settings.judge, settings.seed, store)


def judge_rows(rows: Iterable[dict[str, Any]], shots: Path, judging: Judging, at_once: int) -> Iterator[dict[str, Any]]:
    """Give the row of each caption: columns `OF_CAPTION`, status and reason, and what `judge_caption` returns.

    Args:
        rows: columns `OF_CAPTION`, and `others`.
        shots: folder with the stills of their clips.
        at_once: captions whose stills are in memory together.

    Raises:
        FileNotFoundError, ValueError: there are no stills, or they are damaged.
    """
    waiting = iter(rows)
    while some := list(islice(waiting, at_once)):
        found = stills.find(shots, [row["clip"] for row in some])
        judged = iter(judging.judge([_caption(row, found[row["clip"]]) for row in some if found.get(row["clip"])]))
        for row in some:
            is_seen = bool(found.get(row["clip"]))
            result = next(judged) if is_seen else {"status": "failed", "reason": "no_stills"}
            yield {name: row[name] for name in OF_CAPTION} | {"status": "ok", "reason": None} | result


def _caption(row: dict[str, Any], pictures: Sequence[bytes] = ()) -> Caption:
    return Caption(row["clip"], row["text"], pictures, [Other(**other) for other in row["others"]], row["captioner"])


def judge_until_decided(
    rows: list[dict[str, Any]], shots: Path, judging: Judging, settings: DsgSettings
) -> Iterator[dict[str, Any]]:
    """Give the rows of a captioner's captions, judged until it is decided and the judge is known by its decoys.

    Each has, beside what `judge_rows` gives, how many objects it `named`.

    Args:
        rows: as of `judge_rows`, in random order.
    """
    at_once = settings.shard_captions
    named = [
        count
        for first in range(0, len(rows), at_once)
        for count in judging.objects([_caption(row) for row in rows[first : first + at_once]])
    ]
    state, decoys = Sequential(settings.max_invented, max(1, *named)), 0
    judged = judge_rows(rows, shots, judging, at_once)
    for row, count in zip(rows, named, strict=True):
        if state.decision != "open" and decoys >= FEWEST_DECOYS:
            own = {name: row[name] for name in OF_CAPTION}
            yield own | {"status": "rejected", "reason": "decided", "named": count}
            continue
        one = next(judged)
        if one["status"] == "ok":
            state.add(one["invented"], one["objects"])
            decoys += decoys_of(one).get("object", _NONE).asked
        yield one | {"named": count}


def judge_texts(
    texts: Mapping[str, str], captioner: str, shots: Path, settings: DsgSettings, store: Path = STORE
) -> Iterator[dict[str, Any]]:
    """Judge all texts of one captioner; give a row per clip, in random order, as `judge_rows` does.

    What they come to say `judged_of`, `gate_of` and `summary`; rows of one clip in two such runs are of the same
    stills, so that `counts_of` them can be compared in pairs. The clients of `settings.endpoints` stay open: other
    threads may use them, and whoever calls closes them.

    Args:
        texts: by clip.
        shots: folder that stage shots made.
        store: file of the answers of models.

    Raises:
        FileNotFoundError, ValueError: there are no stills, or they are damaged; a prompt is none.
        TryLaterError: a model's endpoint is gone; what it has answered is stored.
    """
    order = sorted(texts, key=partial(rank, seed=settings.seed))
    rows = [{"clip": clip, "captioner": captioner, "of_whole_video": False, "text": texts[clip]} for clip in order]
    judging = judging_by(settings, store)
    yield from judge_rows(with_others(rows, settings), shots, judging, settings.shard_captions)


class OfCaptioner(NamedTuple):
    """What is known of one captioner."""

    counts: list[Counts]
    """Of each caption that was judged."""
    decoys: dict[Kind, Known]
    repairs: Counter[str]
    named: list[int]
    """Objects of each caption that was drawn, for `until: decided`."""
    audited: list[Audited]
    """Of each caption that was judged: how often the judge was right by what people said."""
    unquestioned: list[str]
    """Captions of which no questions could be made, by their clips."""


def judged_of(rows: Iterable[list[dict[str, Any]]], verdicts: Verdicts = _NOBODY) -> dict[str, OfCaptioner]:
    """Return what the rows of each captioner come to, by `source_of` them.

    Args:
        rows: of `judge_rows` or `judge_until_decided`, some at a time.
        verdicts: what people said of the objects that captions name.
    """
    found: dict[str, OfCaptioner] = {}
    for row in (row for some in rows for row in some):
        own = found.setdefault(source_of(row), OfCaptioner([], {}, Counter(), [], [], []))
        own.named.append(row.get("named") or 0)
        if row["status"] != "ok":
            if row["reason"] in UNQUESTIONED:
                own.unquestioned.append(row["clip"])
            continue
        own.counts.append(counts_of(row))
        own.audited.append(audit.known_of(row, verdicts))
        own.repairs.update(row["repairs"])
        for kind, known in decoys_of(row).items():
            own.decoys[kind] = add(own.decoys.get(kind, _NONE), known)
    return found


def gate_of(own: OfCaptioner, settings: DsgSettings) -> Gate:
    """Return what is decided about a captioner.

    Raises:
        ValueError: no caption of it was judged.
    """
    decided = None
    if settings.until == "decided":
        invented, objects = ([getattr(one, name) for one in own.counts] for name in ("invented", "objects"))
        decided = stop(settings.max_invented, invented, objects, max(1, *own.named)).decision
    audited = audit.total(own.audited)
    not_there = add(own.decoys.get("object", _NONE), audited.denied)
    return decide(Judged(own.counts, not_there, audited.confirmed, decided, len(own.unquestioned)), settings)


def summary(gate: Gate, own: OfCaptioner) -> dict[str, Any]:
    """Return what the report of the stage says of a captioner. There is no figure where the judge is not fit."""
    told: dict[str, Any] = {"verdict": gate.verdict, "why": gate.why, "captions": gate.figures.captions}
    told["decoys"] = {kind: {"denied": known.right, "asked": known.asked} for kind, known in own.decoys.items()}
    audited = audit.total(own.audited)
    if audited.confirmed.asked or audited.denied.asked:
        told["audit"] = audit.to_json(audited)
    if gate.corrected is None:
        return told
    figures = gate.figures._asdict()
    figures |= {name: value._asdict() for name, value in figures.items() if name.startswith(("rate_", "pooled"))}
    figures["kinds"] = {kind: rate._asdict() for kind, rate in gate.figures.kinds.items()}
    corrected = {name: float(value) for name, value in gate.corrected._asdict().items()}
    return told | figures | {"corrected_i": corrected, "graph_repairs": dict(own.repairs)}
