"""Stage comparison: two captioners on the same clips, judged, and which of them invents less.

`OUT/compare.json` has what it comes to, `OUT/compare.html` the same to be looked at, `OUT/captions.parquet` what both
said (schema CAPTIONS, two rows per clip) and `OUT/evidence.parquet` every answer of the judge.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from stiv_model.settings import TextSettings
from tasks.captions import stage as caption_stage
from tasks.captions import token_lengths
from tasks.captions.captioner import Asks, Captioner
from tasks.captions.settings import CaptionSettings, name_of
from tasks.chat.answers import Answer
from tasks.chat.client import closing
from tasks.chat.store import STORE
from tasks.comparison import clip_groups, paired
from tasks.comparison.clip_groups import Source
from tasks.comparison.marks import mark
from tasks.comparison.names import FIGURES, NOT_FIT, PAGE
from tasks.comparison.paired import Pair
from tasks.dsg.judging import OF_CAPTION, judge_texts, judging_by
from tasks.dsg.settings import DsgSettings
from tasks.dsg.stage import EVIDENCE_TABLE, JUDGED
from tasks.storage import atomic, queries, shards, stills, tables
from tasks.storage.stage import Joined, Stage

log = logging.getLogger(__name__)

VERSION = 1
"""Of the layout of `FIGURES`."""
SHARD_CLIPS = 128
"""Clips worked on together: decoys of each are made of captions of the others."""

_EXAMPLES = 6  # clips of each group that `FIGURES` has, those first of which most is invented
_MOST_LETTERS = 400  # of a caption among them

_COST = [
    ("seconds", pa.float64()),  # in the mean of those of its shard that were asked; null where the answer was there
    ("answers", pa.int32()),  # of a model elsewhere; null without one
    ("prompt_tokens", pa.int64()),  # null where the server does not say
    ("completion_tokens", pa.int64()),
]
_ROWS = pa.schema(
    [
        ("clip", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("group", pa.string()),
        ("uri", pa.string()),
        ("captions", pa.list_(pa.struct(list(tables.CAPTIONS)))),
        ("judged", pa.list_(pa.struct(list(JUDGED)))),
        ("costs", pa.list_(pa.struct(_COST))),
    ]
)
_SHOWN = ("clip", "group", "uri")
_TOKENS = ("prompt_tokens", "completion_tokens")
_NONE_BY_BOTH = "no clip has a caption by both"


class Shown(NamedTuple):
    """What the page shows of one clip."""

    clip: str
    group: str
    uri: str
    captions: tuple[dict[str, Any], dict[str, Any]]
    """Rows of schema CAPTIONS."""
    evidence: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    """Rows of schema EVIDENCE, of the captions' own questions."""
    is_fit: bool
    """Whether the judge is fit in its group."""

    @property
    def invented(self) -> tuple[int, int]:
        """How much both invented together: objects, and questions of all kinds."""
        kinds = [one["kind"] for rows in self.evidence for one in _invented(rows)]
        return kinds.count("object"), len(kinds)


WritePage = Callable[[Path, dict[str, Any], list[Shown]], None]
"""Writes the page: path, what `FIGURES` says, and the clips, the worst first."""


def two_of(settings: CaptionSettings, names: Sequence[str]) -> CaptionSettings:
    """Return the settings with these two captioners, found by name in captioners and compared, and no other.

    Raises:
        ValueError: there is none of a name, or they are one.
    """
    known = {name_of(one): one for one in (*settings.captioners, *settings.compared)}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"no captioner is called {unknown[0]}: captions.captioners and captions.compared have {', '.join(known)}; "
            "name one of them, or add it to captions.compared in params.yaml"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{names[0]} is compared with itself: name two captioners of {', '.join(known)}")
    return settings.model_copy(update={"captioners": tuple(known[name] for name in names)})


def refuse_folder(out: Path) -> None:
    """Refuse to replace a folder that no comparison made.

    Raises:
        ValueError: it has other files in it.
    """
    if out.exists() and not (out / FIGURES).exists() and any(out.iterdir()):
        raise ValueError(f"--out is {out}, which has files and no {FIGURES} among them: name a folder of its own")


class Comparison(Stage):
    """Stage comparison: one row per clip that is drawn.

    Args:
        names: of the two captioners.
        clips: folder with the table of clips.
        shots: folder that stage shots made.
        count: clips that are drawn, or all where there are fewer.
        captions, dsg, text: sections of params.yaml.
        write_page: writes the page.
        store: file of the answers of models.

    Raises:
        FileNotFoundError, ValueError: there is no such captioner, or it has no prompt.
    """

    name, verb, unit = "comparison", "compare", "clips"

    def __init__(
        self,
        names: tuple[str, str],
        clips: Path,
        shots: Path,
        count: int,
        captions: CaptionSettings,
        dsg: DsgSettings,
        text: TextSettings,
        write_page: WritePage,
        store: Path = STORE,
    ) -> None:
        if count < 2:
            raise ValueError(f"--clips is {count}: a comparison needs 2 at least")
        self.names, self.count, self.shots, self.dsg, self.text = names, count, shots, dsg, text
        self.settings, self.write_page, self.store = two_of(captions, names), write_page, store
        # clips and columns as stage captions takes them; it is not run, and writes no Data Docs
        self.asked = caption_stage.Captions(clips, shots, shots, self.settings, text, store)
        self.table = self.asked.table
        self.schema = pa.schema([*self.asked.schema, ("group", pa.string()), ("uri", pa.string())])

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        uris: dict[str, str] = {}
        sources: list[Source] = []
        for batch in tables.usable(self.table, tables.CLIPS, ("clip", "uri", "caption")):
            uris |= dict(zip(batch["clip"].to_pylist(), batch["uri"].to_pylist(), strict=True))
            has_text = pc.is_valid(batch["caption"]).to_pylist()
            sources += map(Source, batch["clip"].to_pylist(), batch["uri"].to_pylist(), has_text)
        drawn = clip_groups.draw(clip_groups.group(sources), self.count, self.dsg.seed)
        if len(drawn) < 2:
            raise ValueError(f"{self.table} has {len(drawn)} clips to compare captions of: a comparison needs 2")
        rows: dict[str, dict[str, Any]] = {}
        for batch in self.asked.given(scratch, reusable):
            chosen = batch.filter(pc.is_in(batch["clip"], pa.array(list(drawn), pa.string())))
            rows |= {row["clip"]: row for row in chosen.to_pylist()}
        listed = [rows[clip] | {"group": group, "uri": uris[clip]} for clip, group in drawn.items()]
        yield from pa.Table.from_pylist(listed, schema=self.schema).to_batches()

    def decides(self) -> dict[str, Any]:
        dsg = self.dsg.model_dump(mode="json", exclude={"captions", "until"})
        judge = dict(judging_by(self.dsg, self.store).made_with)
        return self.asked.decides() | {"dsg": dsg, "judge": judge, "clips": self.count, "compared": list(self.names)}

    def inputs(self) -> dict[str, Any]:
        return self.asked.inputs() | {"stills": stills.hashes(self.shots)}

    def shard_size(self) -> float:
        return SHARD_CLIPS

    @contextlib.contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[shards.Shard], None]]:
        caption_stage.forget_what_may_pass(product.parent)  # of an attempt that was ended
        with closing(*self.settings.endpoints, *self.dsg.endpoints):
            yield partial(compare_shard, settings=self.settings, shots=self.shots, store=self.store, dsg=self.dsg)

    def join(self, work: shards.Work, product: Path) -> Joined:
        queries.write(product / tables.CAPTION_TABLE, _captions(work), tables.CAPTIONS)
        queries.write(product / EVIDENCE_TABLE, _evidence(work), tables.EVIDENCE)
        account = queries.settle("clips", work.keys("clip"), shards.joined(work, _ROWS), "clip")
        rows = [row for batch in shards.joined(work, _ROWS) for row in batch.to_pylist()]
        told, shown = self.compare(rows)
        with atomic.atomic_write(product / FIGURES) as tmp_path:
            tmp_path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        self.write_page(product / PAGE, told, shown)
        kinds = {kind: one["said"] for kind, one in told["verdict"]["kinds"].items()}
        said = "; ".join(f"{kind}: {one}" for kind, one in kinds.items()) or told["verdict"]["said"]
        log.info("%s against %s: %s", *self.names, said)
        return Joined((account,), {"verdict": told["verdict"]["said"], "verdicts": kinds})

    def compare(self, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[Shown]]:
        """Return what `FIGURES` says of the clips, and the clips as the page shows them, the worst first."""
        ok = tables.ok(list(rows))
        pairs = [paired.pair(row["clip"], row["group"], row["judged"]) for row in ok]
        by_group: dict[str, list[Pair]] = {row["group"]: [] for row in rows}
        for one in pairs:
            by_group[one.group].append(one)
        fits = {name: paired.fit(own, self.dsg) for name, own in by_group.items() if own}
        fit = [name for name, found in fits.items() if found.trouble is None]
        pooled = [one for one in pairs if one.group in fit]
        shown = [_shown(row, row["group"] in fit) for row in ok]
        shown.sort(key=lambda one: (one.is_fit, one.invented), reverse=True)
        examples = {name: [one for one in shown if one.group == name][:_EXAMPLES] for name in by_group}
        groups = [
            self._of_group(name, own, fits.get(name)) | {"examples": [_example(one) for one in examples[name]]}
            for name, own in sorted(by_group.items())
        ]
        told = {
            "version": VERSION,
            "captioners": list(self.names),
            "ways": {name_of(one): one if isinstance(one, str) else one.kind for one in self.settings.captioners},
            "judge": self.dsg.judge if isinstance(self.dsg.judge, str) else self.dsg.judge.answers.endpoint.model,
            "seed": self.dsg.seed,
            "clips": self._account(rows),
            "verdict": _verdict(pooled, bool(ok)),
            "figures": self._figures(pooled, ok),
            "pooled": sorted(fit),
            "groups": groups,
        }
        return told, shown

    def _account(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        failed: dict[str, dict[str, list[str]]] = {name: {} for name in self.names}
        for row in rows:
            for name, judged in zip(self.names, row["judged"], strict=True):
                if judged["status"] != "ok":
                    failed[name].setdefault(judged["reason"], []).append(row["clip"])
        return {"drawn": len(rows), "compared": len(tables.ok(list(rows))), "failed": failed}

    def _of_group(self, name: str, own: list[Pair], found: paired.Fit | None) -> dict[str, Any]:
        if found is None:
            return {"group": name, "clips": 0, "judge": NOT_FIT, "why": _NONE_BY_BOTH}
        decoys = {kind: {"denied": known.right, "asked": known.asked} for kind, known in found.decoys.items()}
        told = {"group": name, "clips": len(own), "decoys": decoys}
        if found.trouble is not None:
            return told | {"judge": NOT_FIT, "why": found.trouble}
        figures = {of: paired.told(own, place, found.decoys, self.dsg) for place, of in enumerate(self.names)}
        return told | {
            "judge": "fit",
            "why": None,
            "differences": paired.differences(own, found.decoys),
            "figures": figures,
        }

    def _figures(self, pooled: list[Pair], ok: list[dict[str, Any]]) -> dict[str, Any]:
        count = token_lengths.tokens_of(self.text) if ok else None
        told = {}
        for place, name in enumerate(self.names):
            texts = [row["captions"][place]["text"] for row in ok]
            lengths = count(texts) if count else []
            told[name] = {
                "invented": paired.told(pooled, place, paired.known(pooled), self.dsg) if pooled else None,
                "richness": paired.richness(pooled, place) if pooled else None,
                "length": _length(texts, lengths, self.text.tokens),
                "cost": _costs([row["costs"][place] for row in ok]),
            }
        return told


def compare_shard(shard: shards.Shard, settings: CaptionSettings, shots: Path, store: Path, dsg: DsgSettings) -> None:
    """Caption one shard of clips by each captioner of the settings, and judge what they say."""
    clips = shard.read()
    said, costs = [], []
    for captioner in caption_stage.captioners_of(settings, shots, store):
        rows, spent = _caption(captioner, clips, settings)
        costs.append(spent)
        said.append([row | {"captioner": captioner.name} for row in rows])  # also where it has nothing to say
    names = [name_of(one) for one in settings.captioners]
    judged = [_judge(rows, name, shots, dsg, store) for name, rows in zip(names, said, strict=True)]
    found = []
    for place, clip in enumerate(clips):
        own = [rows[clip["clip"]] for rows in judged]
        row = {name: clip[name] for name in _SHOWN} | _outcome(own)
        found.append(
            row | {"captions": [rows[place] for rows in said], "judged": own, "costs": [own[place] for own in costs]}
        )
    shard.write(found, _ROWS)


def _caption(
    captioner: Captioner, clips: list[dict[str, Any]], settings: CaptionSettings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row of schema CAPTIONS per clip, and what it cost."""
    names = [clip["clip"] for clip in clips]
    before = captioner.answered(names) if isinstance(captioner, Asks) else {}
    begun = time.perf_counter()
    rows = caption_stage.caption_clips(clips, [captioner], settings)
    each = (time.perf_counter() - begun) / max(1, len(clips) - len(before))
    after = captioner.answered(names) if isinstance(captioner, Asks) else None
    return rows, [_cost(None if clip in before else each, after, clip) for clip in names]


def _cost(seconds: float | None, answered: Mapping[str, Sequence[Answer]] | None, clip: str) -> dict[str, Any]:
    if answered is None:
        return {"seconds": seconds, "answers": None, "prompt_tokens": None, "completion_tokens": None}
    own = answered.get(clip, [])
    return {"seconds": seconds, "answers": len(own), **{name: _sum(own, name) for name in _TOKENS}}


def _sum(answers: Sequence[Answer], name: str) -> int | None:
    counts = [getattr(one, name) for one in answers]
    return None if None in counts else sum(counts)


def _judge(
    said: list[dict[str, Any]], name: str, shots: Path, dsg: DsgSettings, store: Path
) -> dict[str, dict[str, Any]]:
    """Return the judged row of each caption, by clip; of a clip without one, why."""
    texts = {row["clip"]: row["text"] for row in tables.ok(said)}
    found = {row["clip"]: row for row in judge_texts(texts, name, shots, dsg, store)}
    return {row["clip"]: dict.fromkeys(JUDGED.names) | found.get(row["clip"], _not_judged(row)) for row in said}


def _verdict(pooled: list[Pair], is_any: bool) -> dict[str, Any]:
    """Return who invents less, over the groups in which the judge is fit; `is_any`: a clip has two captions."""
    if not pooled:
        return {"said": NOT_FIT if is_any else _NONE_BY_BOTH, "clips": 0, "kinds": {}}
    kinds = paired.differences(pooled, paired.known(pooled))
    objects = kinds.get("object", {"said": "cannot tell"})
    return {"said": objects["said"], "clips": len(pooled), "kinds": kinds}


def _outcome(judged: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what became of a clip: failed for the reason of the first captioner that failed at it."""
    reasons = [own["reason"] for own in judged if own["status"] != "ok"]
    return {"status": "failed", "reason": reasons[0]} if reasons else {"status": "ok", "reason": None}


def _not_judged(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in (*OF_CAPTION, "status", "reason")}


def _length(texts: Sequence[str], lengths: Sequence[int], most: int) -> dict[str, Any]:
    captions = max(1, len(texts))
    return {
        "words": sum(len(text.split()) for text in texts) / captions,
        "tokens": sum(lengths) / captions,
        "cut": sum(length > most for length in lengths) / captions,
        "distinct_texts": len(set(texts)),
    }


def _costs(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a clip costs in the mean; null is not known."""
    return {name: _mean([one[name] for one in costs]) for name in ("answers", *_TOKENS)} | {
        "seconds": _mean([one["seconds"] for one in costs if one["seconds"] is not None])
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _shown(row: dict[str, Any], is_fit: bool) -> Shown:
    own = [[one for one in judged["evidence"] if one["role"] == "caption"] for judged in row["judged"]]
    return Shown(row["clip"], row["group"], row["uri"], tuple(row["captions"]), (own[0], own[1]), is_fit)


def _example(shown: Shown) -> dict[str, Any]:
    """Return what both say of a clip, in pieces with the kind of what is invented in them, and the denied questions."""
    said = []
    for caption, answers in zip(shown.captions, shown.evidence, strict=True):
        own = answers if shown.is_fit else []
        pieces = [piece._asdict() for piece in mark(caption["text"][:_MOST_LETTERS], own)]
        said.append({"pieces": pieces, "invented": [one["text"] for one in _invented(own)]})
    return {"clip": shown.clip, "said": said}


def _invented(evidence: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the invented questions among the answers about a caption, each once."""
    found = {one["question"]: one for one in evidence if one["verdict"] == "invented"}
    return list(found.values())


def _captions(work: shards.Work) -> Iterator[pa.RecordBatch]:
    for batch in shards.joined(work, _ROWS):
        rows = [caption for row in batch.to_pylist() for caption in row["captions"]]
        yield from pa.Table.from_pylist(rows, schema=tables.CAPTIONS).to_batches()


def _evidence(work: shards.Work) -> Iterator[pa.RecordBatch]:
    for batch in shards.joined(work, _ROWS):
        rows = [
            one | {"clip": row["clip"], "captioner": judged["captioner"]}
            for row in batch.to_pylist()
            for judged in row["judged"]
            for one in judged["evidence"] or ()
        ]
        yield from pa.Table.from_pylist(rows, schema=tables.EVIDENCE).to_batches()
