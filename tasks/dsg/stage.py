"""Stage dsg: what captions invent. Of each captioner some captions are judged, and a gate says whether they may be
trained on. `OUT/dsg.parquet` has a row per caption that was judged, `OUT/evidence.parquet` one per answer, and
`OUT/captions.parquet` all captions as they go on."""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.captions.settings import CaptionSettings
from tasks.chat.client import closing
from tasks.chat.store import STORE
from tasks.dsg import audit
from tasks.dsg.by_models import MISSING, sentences_of
from tasks.dsg.gate import Gate
from tasks.dsg.judging import (
    OF_CAPTION,
    Judging,
    gate_of,
    judge_rows,
    judge_until_decided,
    judged_of,
    judging_by,
    source_of,
    summary,
    with_others,
)
from tasks.dsg.rewriting import Rewriting
from tasks.dsg.sequential import rank
from tasks.dsg.settings import DsgSettings
from tasks.storage import atomic, queries, shards, stills, tables
from tasks.storage.stage import Joined, Stage

log = logging.getLogger(__name__)

DSG_TABLE = tables.table_name("dsg")
EVIDENCE_TABLE = "evidence.parquet"

_GIVEN = pa.schema(
    [
        *(tables.CAPTIONS.field(name) for name in OF_CAPTION),
        ("others", pa.list_(pa.struct([("clip", pa.string()), ("text", pa.string())]))),  # of which decoys are made
        ("group", pa.int64()),  # number of the captioner, or of its texts of whole videos
    ]
)
_EVIDENCE = [field for field in tables.EVIDENCE if field.name not in ("clip", "captioner")]
JUDGED = pa.schema(
    [
        *(field for field in tables.DSG if field.name != "repaired"),
        ("named", pa.int32()),  # objects that it names, with until: decided
        ("kept_text", pa.string()),  # without what it invents
        ("evidence", pa.list_(pa.struct(_EVIDENCE))),
    ]
)
"""Columns of a judged caption with all its answers."""
_ROWS_AT_ONCE = 1024
_ASK_OTHERS = "run the stage again, or change the prompt or the model of dsg.judge.questions"
_SHOTS_AGAIN = "run stage shots again (dvc repro -f shots)"


class Drawn(NamedTuple):
    """A caption that is judged."""

    order: bytes
    caption: dict[str, Any]
    """Columns `OF_CAPTION`."""


class DsgGateError(ValueError):
    """The captions of a captioner may not be trained on."""


def draw(captions: Iterable[pa.RecordBatch], count: int | None, seed: int) -> dict[str, list[Drawn]]:
    """Return of each captioner so many captions, or all, in random order; of its texts of whole videos as many more.

    Args:
        captions: with the columns `OF_CAPTION`.
    """
    found: dict[str, list[Drawn]] = {}
    for batch in captions:
        for row in batch.to_pylist():
            own = found.setdefault(source_of(row), [])
            own.append(Drawn(rank(row["clip"], seed), row))
            if count is not None and len(own) >= 4 * count:
                own[:] = sorted(own, key=_order)[:count]
    return {source: sorted(own, key=_order)[:count] for source, own in sorted(found.items())}


def _order(one: Drawn) -> bytes:
    return one.order


def grouped(drawn: dict[str, list[Drawn]], settings: DsgSettings) -> Iterator[dict[str, Any]]:
    """Give the rows of the stage's inputs: one captioner's captions after the other's, with others of any."""
    everything = sorted((one for own in drawn.values() for one in own), key=_order)
    captions = with_others([one.caption for one in everything], settings)
    with_all = dict(zip((one.order for one in everything), captions, strict=True))
    for group, own in enumerate(drawn.values()):
        yield from (with_all[one.order] | {"group": group} for one in own)


def judging_of(settings: DsgSettings, captioning: CaptionSettings | None, store: Path) -> Judging:
    """Return who judges captions, and has them written again where that is asked for.

    Raises:
        FileNotFoundError, ValueError: a prompt is none, or nobody could write a caption again.
    """
    judging = judging_by(settings, store)
    if settings.repair != "rewrite":
        return judging
    if captioning is None:
        raise ValueError("dsg.repair is rewrite, but nothing is known of the captioners: use repair: drop")
    return Rewriting(judging, captioning, settings.rewrite_prompt, store)


def judge_shard(
    shard: shards.Shard, shots: Path, settings: DsgSettings, captioning: CaptionSettings | None, store: Path
) -> None:
    """Judge one shard of captions; with until: decided, those of a captioner until it is decided."""
    rows, judging = shard.read(), judging_of(settings, captioning, store)
    if settings.until == "decided":
        judged = judge_until_decided(rows, shots, judging, settings)
    else:
        judged = judge_rows(rows, shots, judging, settings.shard_captions)
    shard.write(list(judged), JUDGED)


def forget_what_may_pass(work: Path) -> None:
    """Delete the shards in which a question or an answer is missing, so that this attempt asks again.

    Args:
        work: folder of the shards' tables.
    """
    for path in shards.done(work):
        rows = pq.read_table(path, columns=["reason", "evidence"])
        answers = pc.struct_field(pc.list_flatten(rows["evidence"]), "answer")
        if pc.any(pc.equal(rows["reason"], MISSING)).as_py() or pc.any(pc.equal(answers, "missing")).as_py():
            path.unlink()


class Dsg(Stage):
    """Stage dsg: one row of schema DSG per caption that is drawn, by captioner, in random order.

    Args:
        captions: folder with the table of captions.
        shots: folder with the stills.
        settings: of the section dsg.
        audits: folder with what people said of the objects that captions name.
        store: file of the answers of models.
        captioning: settings of the captioners, for repair: rewrite.

    Raises:
        FileNotFoundError, ValueError: a prompt is none, or nobody could write a caption again.
    """

    name, verb, unit = "dsg", "judge", "captions"
    schema = _GIVEN

    def __init__(
        self,
        captions: Path,
        shots: Path,
        settings: DsgSettings,
        audits: Path,
        store: Path = STORE,
        captioning: CaptionSettings | None = None,
    ) -> None:
        self.table, self.shots, self.settings, self.store = captions / tables.CAPTION_TABLE, shots, settings, store
        self.audits = audits
        self.captioning = captioning if settings.repair == "rewrite" else None
        self.made_with = dict(judging_of(settings, captioning, store).made_with)
        self.together = "group" if settings.until == "decided" else None  # type: ignore[misc]

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        usable = tables.usable(self.table, tables.CAPTIONS, OF_CAPTION)
        drawn = draw(usable, self.settings.captions, self.settings.seed)
        rows = list(grouped(drawn, self.settings))
        yield from pa.Table.from_pylist(rows, schema=_GIVEN).to_batches()

    def decides(self) -> dict[str, Any]:
        captioning = self.captioning.model_dump(mode="json") if self.captioning else None
        return {"dsg": self.settings.model_dump(mode="json"), "models": self.made_with, "captions": captioning}

    def inputs(self) -> dict[str, Any]:
        return {"captions": atomic.sha256_file(self.table), "stills": stills.hashes(self.shots)}

    def shard_size(self) -> float:
        return 1 if self.settings.until == "decided" else self.settings.shard_captions

    @contextlib.contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[shards.Shard], None]]:
        endpoints = (*self.settings.endpoints, *(self.captioning.endpoints if self.captioning else ()))
        if endpoints:
            forget_what_may_pass(product.parent)  # of an attempt that was ended
        with closing(*endpoints):
            yield partial(
                judge_shard,
                shots=self.shots,
                settings=self.settings,
                captioning=self.captioning,
                store=self.store,
            )

    def join(self, work: shards.Work, product: Path) -> Joined:
        of_captioners = judged_of(_rows(work), audit.read(self.audits))
        if unseen := [captioner for captioner, own in of_captioners.items() if not own.counts]:
            reasons = Counter(row["reason"] for some in _rows(work) for row in some if row["status"] == "failed")
            if reasons["no_stills"] + reasons["bad_still"] < reasons.total():
                said = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
                raise ValueError(f"no caption of {unseen} could be judged ({said}): {_ASK_OTHERS}")
            raise ValueError(f"no caption of {unseen} could be judged, for their clips have no stills: {_SHOTS_AGAIN}")
        gates = {captioner: gate_of(own, self.settings) for captioner, own in of_captioners.items()}
        mended: dict[str, str] = {}
        table, evidence = product / DSG_TABLE, product / EVIDENCE_TABLE
        queries.write(evidence, _evidence(_rows(work)), tables.EVIDENCE)
        queries.write(table, self._table(_rows(work), gates, mended), tables.DSG)
        queries.write(product / tables.CAPTION_TABLE, _mended(self.table, mended), tables.CAPTIONS)
        account = queries.settle("captions", work.keys("clip"), queries.outcomes(table, "clip"), "clip")
        told = {captioner: summary(gate, of_captioners[captioner]) for captioner, gate in gates.items()}
        self._stop_or_say(gates, evidence)
        for captioner, prompts in prompts_of(self.table).items():
            if captioner in told:
                told[captioner]["prompts"] = prompts
        others: dict[str, Any] = {"captioners": told, "repaired": len(mended)}
        return Joined((account,), others | ({"judge": self.made_with} if self.made_with else {}))

    def _table(
        self, rows: Iterator[list[dict[str, Any]]], gates: dict[str, Gate], mended: dict[str, str]
    ) -> Iterator[pa.RecordBatch]:
        """Give the rows of schema DSG; `mended` gets the captions that go on otherwise."""
        for some in rows:
            for row in some:
                is_sure = row["status"] == "ok" and gates[source_of(row)].verdict != "no verdict"
                row["repaired"] = bool(self.settings.repair != "none" and is_sure and row["invented"])
                row["repaired_by"] = (row["repaired_by"] or "drop") if row["repaired"] else None
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


def prompts_of(captions: Path) -> dict[str, list[str]]:
    """Return the hashes of the prompts by which the captions of each captioner were asked for, if any."""
    found: dict[str, set[str]] = {}
    columns = ["captioner", "of_whole_video", "prompt_sha256"]
    for batch in queries.read([captions], columns):
        asked = pa.Table.from_batches([batch]).filter(pc.is_valid(batch["prompt_sha256"]))
        for row in asked.group_by(columns).aggregate([]).to_pylist():
            found.setdefault(source_of(row), set()).add(row["prompt_sha256"])
    return {captioner: sorted(own) for captioner, own in found.items()}


def _rows(work: shards.Work) -> Iterator[list[dict[str, Any]]]:
    for batch in shards.joined(work, JUDGED):
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
                row["short"] = sentences_of(text)[0] if row["short"] and text else None
                if not text:
                    row |= {"status": "failed", "reason": "all_invented"}
        yield from _batches(rows, tables.CAPTIONS)


def _batches(rows: list[dict[str, Any]], schema: pa.Schema) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(rows, schema=schema).to_batches()
