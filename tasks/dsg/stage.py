"""Stage dsg: what captions invent. Of each captioner some captions are judged, and a gate says whether they may be
trained on. `OUT/dsg.parquet` has a row per caption that was judged, `OUT/evidence.parquet` one per answer, and
`OUT/captions.parquet` all captions as they go on."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.dsg import rules
from tasks.dsg.captions import Caption, counts_of, decoys_of, judge_caption
from tasks.dsg.correction import FEWEST_DECOYS, Known
from tasks.dsg.gate import Gate, Judged, decide
from tasks.dsg.judges import Judge, ShapesJudge
from tasks.dsg.questions import Kind, repair
from tasks.dsg.scores import Counts
from tasks.dsg.sequential import Sequential, rank, stop
from tasks.dsg.settings import DsgSettings
from tasks.storage import atomic, queries, shards, stills, tables
from tasks.storage.stage import Joined, Stage, alone

log = logging.getLogger(__name__)

DSG_TABLE = tables.table_name("dsg")
EVIDENCE_TABLE = "evidence.parquet"

_OF_CAPTION = ("clip", "captioner", "of_whole_video", "text")
_GIVEN = pa.schema(
    [
        *(tables.CAPTIONS.field(name) for name in _OF_CAPTION),
        ("others", pa.list_(pa.string())),  # captions of which decoys are made
        ("group", pa.int64()),  # number of the captioner, or of its texts of whole videos
    ]
)
_EVIDENCE = [field for field in tables.EVIDENCE if field.name not in ("clip", "captioner")]
_ROWS = pa.schema(
    [
        *(field for field in tables.DSG if field.name != "repaired"),
        ("kept_text", pa.string()),  # without sentences that name an invented object
        ("evidence", pa.list_(pa.struct(_EVIDENCE))),
    ]
)
_MOST_TRIES = 64  # captions that are looked at for one that says something else
_ROWS_AT_ONCE = 1024
_SHOTS_AGAIN = "run stage shots again (dvc repro -f shots)"


class Drawn(NamedTuple):
    """A caption that is judged."""

    order: bytes
    caption: dict[str, Any]
    """Columns `_OF_CAPTION`."""


class DsgGateError(ValueError):
    """The captions of a captioner may not be trained on."""


def draw(captions: Iterable[pa.RecordBatch], count: int | None, seed: int) -> dict[str, list[Drawn]]:
    """Return of each captioner so many captions, or all, in random order; of its texts of whole videos as many more.

    Args:
        captions: with the columns `_OF_CAPTION`.
    """
    found: dict[str, list[Drawn]] = {}
    for batch in captions:
        for row in batch.to_pylist():
            own = found.setdefault(source_of(row), [])
            own.append(Drawn(rank(row["clip"], seed), row))
            if count is not None and len(own) >= 4 * count:
                own[:] = sorted(own, key=_order)[:count]
    return {source: sorted(own, key=_order)[:count] for source, own in sorted(found.items())}


def source_of(row: dict[str, Any]) -> str:
    """Return whose text a caption is: its captioner, whose texts of whole videos are judged apart."""
    return row["captioner"] + (" of whole videos" if row["of_whole_video"] else "")


def _order(one: Drawn) -> bytes:
    return one.order


def with_others(drawn: dict[str, list[Drawn]], settings: DsgSettings) -> Iterator[dict[str, Any]]:
    """Give the rows of the stage's inputs: what is drawn, a share of it with other captions, of which decoys are made.

    The others are the next in random order, of any captioner, that name an object which none before them does.
    """
    everything = sorted((one for own in drawn.values() for one in own), key=_order)
    texts = [one.caption["text"] for one in everything]
    places = {one.order: place for place, one in enumerate(everything)}
    for group, own in enumerate(drawn.values()):
        for one in own:
            chance = int.from_bytes(rank(f"decoys of {one.caption['clip']}", settings.seed)[:8]) / 2**64
            is_asked = chance < settings.decoy_fraction
            others = _others(texts, places[one.order], settings.decoys) if is_asked else []
            yield one.caption | {"others": others, "group": group}


def _others(texts: list[str], place: int, most: int) -> list[str]:
    known = set(rules.said(texts[place]).shapes)
    found: list[str] = []
    for ahead in range(1, min(_MOST_TRIES, len(texts))):
        other = texts[(place + ahead) % len(texts)]
        named = rules.said(other).shapes
        if len(found) < most and not known.issuperset(named):
            known.update(named)
            found.append(other)
    return found


def judge_rows(rows: list[dict[str, Any]], found: dict[str, list[bytes]], judge: Judge) -> Iterator[dict[str, Any]]:
    """Give the row of each caption, of schema _ROWS.

    Args:
        rows: inputs of the stage.
        found: the stills of their clips, by clip.
    """
    for row in rows:
        own = {name: row[name] for name in _OF_CAPTION}
        if not (pictures := found.get(row["clip"])):
            yield own | {"status": "failed", "reason": "no_stills"}
            continue
        try:
            judged = judge_caption(Caption(row["text"], pictures, row["others"]), judge)
        except ValueError as error:
            log.warning("%s: %s", row["clip"], error)
            yield own | {"status": "failed", "reason": "bad_still"}
            continue
        yield own | {"status": "ok", "reason": None} | judged


def judge_shard(shard: shards.Shard, shots: Path, settings: DsgSettings) -> None:
    """Judge one shard of captions; with until: decided, those of a captioner until it is decided."""
    rows = shard.read()
    judge = ShapesJudge()
    judged = judge_rows(rows, stills.find(shots, [row["clip"] for row in rows]), judge)
    if settings.until == "decided":
        judged = _until_decided(rows, judged, settings.max_invented)
    shard.write(list(judged), _ROWS)


def _until_decided(
    rows: list[dict[str, Any]], judged: Iterator[dict[str, Any]], threshold: float
) -> Iterator[dict[str, Any]]:
    """Give the rows of a captioner's captions, judged until it is decided and the judge is known by its decoys."""
    state, decoys = Sequential(threshold, max(1, *(_objects(row["text"]) for row in rows))), 0
    for row in rows:
        if state.decision != "open" and decoys >= FEWEST_DECOYS:
            own = {name: row[name] for name in _OF_CAPTION}
            yield own | {"status": "rejected", "reason": "decided"}
            continue
        one = next(judged)
        if one["status"] == "ok":
            state.add(one["invented"], one["objects"])
            decoys += decoys_of(one).get("object", _NONE).asked
        yield one


def _objects(text: str) -> int:
    return sum(question.kind == "object" for question in repair(rules.questions(text)).questions)


class Dsg(Stage):
    """Stage dsg: one row of schema DSG per caption that is drawn, by captioner, in random order.

    Args:
        captions: folder with the table of captions.
        shots: folder with the stills.
        settings: of the section dsg.
    """

    name, verb, unit = "dsg", "judge", "captions"
    schema = _GIVEN

    def __init__(self, captions: Path, shots: Path, settings: DsgSettings) -> None:
        self.table, self.shots, self.settings = captions / tables.CAPTION_TABLE, shots, settings
        self.together = "group" if settings.until == "decided" else None  # type: ignore[misc]

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        usable = tables.usable(self.table, tables.CAPTIONS, _OF_CAPTION)
        drawn = draw(usable, self.settings.captions, self.settings.seed)
        rows = list(with_others(drawn, self.settings))
        yield from pa.Table.from_pylist(rows, schema=_GIVEN).to_batches()

    def decides(self) -> dict[str, Any]:
        return {"dsg": self.settings.model_dump()}

    def inputs(self) -> dict[str, Any]:
        return {"captions": atomic.sha256_file(self.table), "stills": stills.hashes(self.shots)}

    def shard_size(self) -> float:
        return 1 if self.settings.until == "decided" else self.settings.shard_captions

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(partial(judge_shard, shots=self.shots, settings=self.settings))

    def join(self, work: shards.Work, product: Path) -> Joined:
        of_captioners = judged_of(_rows(work), self.settings)
        if unseen := [captioner for captioner, own in of_captioners.items() if not own.counts]:
            raise ValueError(f"no caption of {unseen} could be judged, for their clips have no stills: {_SHOTS_AGAIN}")
        gates = {
            captioner: decide(judged_by(own, self.settings), self.settings) for captioner, own in of_captioners.items()
        }
        mended: dict[str, str] = {}
        table, evidence = product / DSG_TABLE, product / EVIDENCE_TABLE
        queries.write(evidence, _evidence(_rows(work)), tables.EVIDENCE)
        queries.write(table, self._table(_rows(work), gates, mended), tables.DSG)
        queries.write(product / tables.CAPTION_TABLE, _mended(self.table, mended), tables.CAPTIONS)
        account = queries.settle("captions", work.keys("clip"), queries.outcomes(table, "clip"), "clip")
        told = {captioner: summary(gate, of_captioners[captioner]) for captioner, gate in gates.items()}
        self._stop_or_say(gates, evidence)
        return Joined((account,), {"captioners": told, "repaired": len(mended)})

    def _table(
        self, rows: Iterator[list[dict[str, Any]]], gates: dict[str, Gate], mended: dict[str, str]
    ) -> Iterator[pa.RecordBatch]:
        """Give the rows of schema DSG; `mended` gets the captions that go on otherwise."""
        for some in rows:
            for row in some:
                is_sure = row["status"] == "ok" and gates[source_of(row)].verdict != "no verdict"
                row["repaired"] = bool(self.settings.repair == "drop" and is_sure and row["invented"])
                if row["repaired"]:
                    mended[row["clip"]] = row["kept_text"]
            yield from _batches(some, tables.DSG)

    def _stop_or_say(self, gates: dict[str, Gate], evidence: Path) -> None:
        """Say what was decided.

        Raises:
            DsgGateError: a captioner failed, or got no verdict where that stops the stage.
        """
        bad = []
        for captioner, gate in gates.items():
            log.info("captions of %s: %s: %s", captioner, gate.verdict, gate.why)
            if gate.verdict == "failed" or (gate.verdict == "no verdict" and self.settings.without_verdict == "stop"):
                bad.append(f"{captioner}: {gate.verdict}: {gate.why}")
        if bad:
            raise DsgGateError(
                f"captions may not be trained on ({'; '.join(bad)}): look at {evidence}, "
                "use another captioner, or change dsg in params.yaml"
            )


_NONE = Known(0, 0)


class _OfCaptioner(NamedTuple):
    """What is known of one captioner."""

    counts: list[Counts]
    decoys: dict[Kind, Known]
    repairs: Counter[str]
    named: list[int]
    """Objects of each caption that was drawn, for `until: decided`."""


def judged_of(rows: Iterable[list[dict[str, Any]]], settings: DsgSettings) -> dict[str, _OfCaptioner]:
    """Return what the rows of each captioner come to."""
    found: dict[str, _OfCaptioner] = {}
    for row in (row for some in rows for row in some):
        own = found.setdefault(source_of(row), _OfCaptioner([], {}, Counter(), []))
        own.named.append(_objects(row["text"]) if settings.until == "decided" else 0)
        if row["status"] != "ok":
            continue
        own.counts.append(counts_of(row))
        own.repairs.update(row["repairs"])
        for kind, known in decoys_of(row).items():
            before = own.decoys.get(kind, _NONE)
            own.decoys[kind] = Known(before.right + known.right, before.asked + known.asked)
    return found


def judged_by(own: _OfCaptioner, settings: DsgSettings) -> Judged:
    """Return what the gate decides by."""
    decided = None
    if settings.until == "decided":
        invented, objects = ([getattr(one, name) for one in own.counts] for name in ("invented", "objects"))
        decided = stop(settings.max_invented, invented, objects, max(1, *own.named)).decision
    return Judged(own.counts, own.decoys.get("object", _NONE), _NONE, decided)


def summary(gate: Gate, own: _OfCaptioner) -> dict[str, Any]:
    """Return what the report of the stage says of a captioner. There is no figure where the judge is not fit."""
    told: dict[str, Any] = {"verdict": gate.verdict, "why": gate.why, "captions": gate.figures.captions}
    told["decoys"] = {kind: {"denied": known.right, "asked": known.asked} for kind, known in own.decoys.items()}
    if gate.corrected is None:
        return told
    figures = gate.figures._asdict()
    figures |= {name: value._asdict() for name, value in figures.items() if name.startswith(("rate_", "pooled"))}
    figures["kinds"] = {kind: rate._asdict() for kind, rate in gate.figures.kinds.items()}
    corrected = {name: float(value) for name, value in gate.corrected._asdict().items()}
    return told | figures | {"corrected_i": corrected, "graph_repairs": dict(own.repairs)}


def _rows(work: shards.Work) -> Iterator[list[dict[str, Any]]]:
    for batch in shards.joined(work, _ROWS):
        for first in range(0, len(batch), _ROWS_AT_ONCE):
            yield batch.slice(first, _ROWS_AT_ONCE).to_pylist()


def _evidence(rows: Iterator[list[dict[str, Any]]]) -> Iterator[pa.RecordBatch]:
    for some in rows:
        answers = [
            one | {"clip": row["clip"], "captioner": row["captioner"]} for row in some for one in row["evidence"] or ()
        ]
        yield from _batches(answers, tables.EVIDENCE)


def _mended(captions: Path, mended: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """Give all captions as they go on: one of which nothing is left is failed."""
    for batch in queries.read([captions]):
        if not mended:
            yield batch.select(tables.CAPTIONS.names).cast(tables.CAPTIONS)
            continue
        rows = batch.to_pylist()
        for row in rows:
            if (text := mended.get(row["clip"])) is not None:
                row["text"] = text or None
                if not text:
                    row |= {"status": "failed", "reason": "all_invented"}
        yield from _batches(rows, tables.CAPTIONS)


def _batches(rows: list[dict[str, Any]], schema: pa.Schema) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(rows, schema=schema).to_batches()
