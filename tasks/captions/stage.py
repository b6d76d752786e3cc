"""Stage captions: one text per clip, cleaned and judged, by the first captioner with an answer; each row names it."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stiv_model.settings import TextSettings
from tasks.captions import cleaning, outcomes, token_lengths
from tasks.captions.accept import judge
from tasks.captions.backends import Backend
from tasks.captions.captioner import Captioner, Said, Sidecar
from tasks.captions.describe import Describe
from tasks.captions.embedded import Embedded
from tasks.captions.endpoint import EndpointBackend
from tasks.captions.frames_llm import FramesLlm
from tasks.captions.in_process import TransformersBackend
from tasks.captions.settings import CaptionSettings, EmbeddedSettings, EndpointCaptionerSettings, ModelCaptioner
from tasks.captions.video_llm import VideoLlm
from tasks.chat.client import closing
from tasks.chat.store import STORE
from tasks.gates.data_docs import DOCS_INDEX
from tasks.storage import atomic, parts, queries, shards, stills, tables
from tasks.storage.stage import Joined, Stage

if TYPE_CHECKING:
    from tasks.gates.gate import GateResult

log = logging.getLogger(__name__)

_WITHOUT_MODEL: tuple[Captioner, ...] = (Sidecar(), Describe())
_OF_WHOLE_VIDEO = "of_whole_video"


def captioners_of(settings: CaptionSettings, shots: Path, store: Path = STORE) -> list[Captioner]:
    """Return the captioners of the settings, in the order in which they are asked.

    Args:
        shots: folder that stage shots made, with the stills.
        store: file of the answers of models.

    Raises:
        FileNotFoundError, ValueError: a prompt or a model is none.
    """
    known = {captioner.name: captioner for captioner in _WITHOUT_MODEL}

    def opened(one: str | ModelCaptioner) -> Captioner:
        if isinstance(one, str):
            return known[one]
        if isinstance(one, EmbeddedSettings):
            return Embedded(one, shots)
        backend: Backend
        backend = EndpointBackend(one) if isinstance(one, EndpointCaptionerSettings) else TransformersBackend(one)
        if one.kind == "video_llm":
            return VideoLlm(one, backend, shots, store)
        return FramesLlm(one, backend, shots, store, partial(judge, settings=settings))

    return [opened(one) for one in settings.captioners]


def caption_clips(
    clips: list[dict[str, Any]], captioners: Sequence[Captioner], settings: CaptionSettings
) -> list[dict[str, Any]]:
    """Return one row of schema CAPTIONS per clip, in their order.

    Args:
        clips: rows of schema CLIPS with what the captioners read, and `of_whole_video`.
        captioners: who is asked, in order.

    Raises:
        TryLaterError, ValueError: a model's endpoint is gone, or refuses every request.
    """
    rows = {clip["clip"]: _row(clip, None, Said(None, reason="no_caption"), settings) for clip in clips}
    open_clips = clips
    for captioner in captioners:
        if not open_clips:
            break
        answers = captioner.caption(open_clips)
        asked = list(zip(open_clips, answers, strict=True))
        rows |= {clip["clip"]: _row(clip, captioner, answer, settings) for clip, answer in asked if answer}
        goes_on = bool(captioner.made_with) and settings.fallback == "next"
        open_clips = [
            clip for clip, answer in asked if not answer or (goes_on and rows[clip["clip"]]["status"] == "failed")
        ]
    return [rows[clip["clip"]] for clip in clips]


def _row(clip: dict[str, Any], captioner: Captioner | None, said: Said, settings: CaptionSettings) -> dict[str, Any]:
    """Clean and judge what was said of a clip."""
    judged = judge(said, settings)
    return {
        "clip": clip["clip"],
        "status": "failed" if judged.reason else "ok",
        "reason": judged.reason,
        "captioner": captioner.name if captioner else None,
        "text": judged.text,
        "short": judged.short,
        "raw": said.text if said.raw is None else said.raw,
        "rules": list(judged.rules),
        "of_whole_video": isinstance(captioner, Sidecar) and bool(clip.get(_OF_WHOLE_VIDEO)),
        **(captioner.made_with if captioner else {}),
    }


def caption_shard(shard: shards.Shard, settings: CaptionSettings, shots: Path, store: Path) -> None:
    """Caption one shard of clips."""
    captioners = captioners_of(settings, shots, store)
    shard.write(caption_clips(shard.read(), captioners, settings), tables.CAPTIONS)


class Captions(Stage):
    """Stage captions: one row of schema CAPTIONS per clip, in the order of the clips.

    Args:
        clips: folder with the table of clips.
        shots: folder that stage shots made.
        docs: folder for the gate's Data Docs.
        settings: which captioners, and what their texts must be like.
        text: the text encoder that the captions are for.
        store: file of the answers of models.

    Raises:
        FileNotFoundError, ValueError: a prompt is none.
    """

    name, verb, unit = "captions", "caption", "clips"

    def __init__(
        self, clips: Path, shots: Path, docs: Path, settings: CaptionSettings, text: TextSettings, store: Path = STORE
    ) -> None:
        self.table, self.shots, self.docs = clips / tables.CLIP_TABLE, shots, docs
        self.settings, self.text, self.store = settings, text, store
        self.captioners = captioners_of(settings, shots, store)
        read = {"clip"}.union(*(captioner.columns for captioner in self.captioners))
        self.columns = [field.name for field in tables.CLIPS if field.name in read]
        self.schema = pa.schema([*map(tables.CLIPS.field, self.columns), pa.field(_OF_WHOLE_VIDEO, pa.bool_())])

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        split = self.shots / tables.SPLIT_TABLE
        tables.require(self.table, tables.CLIPS)
        tables.require(split, tables.SPLITS)
        clips, videos = queries.scan([self.table], numbered=True), queries.scan([split])
        columns = ", ".join(f"clips.{name}" for name in self.columns)
        found = f"""SELECT {columns}, several.video IS NOT NULL AS {_OF_WHOLE_VIDEO} FROM {clips} AS clips
            LEFT JOIN (SELECT DISTINCT video FROM {videos} WHERE shots > 1) AS several USING (video)
            WHERE clips.status = 'ok' ORDER BY clips.file_row_number"""
        with queries.connect(scratch) as connection:
            yield from queries.batches(connection, found, self.schema)

    def decides(self) -> dict[str, Any]:
        models = [dict(captioner.made_with) for captioner in self.captioners]
        return {"captions": self.settings.model_dump(mode="json", exclude={"compared"}), "models": models}

    def inputs(self) -> dict[str, Any]:
        made_from = {"clips": self.table, "videos": self.shots / tables.SPLIT_TABLE}
        if self.settings.models:
            made_from["stills"] = self.shots / stills.FOLDER / parts.HASHES
        return {name: atomic.sha256_file(path) for name, path in made_from.items()}

    def shard_size(self) -> float:
        return self.settings.shard_clips

    @contextlib.contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[shards.Shard], None]]:
        forget_what_may_pass(product.parent)  # of an attempt that was ended
        with closing(*self.settings.endpoints):
            yield partial(caption_shard, settings=self.settings, shots=self.shots, store=self.store)

    def join(self, work: shards.Work, product: Path) -> Joined:
        table = product / tables.CAPTION_TABLE
        queries.write(table, shards.joined(work, tables.CAPTIONS), tables.CAPTIONS)
        fail_duplicates(table, self.settings.checks.max_same)
        account = queries.settle("clips", work.keys("clip"), queries.outcomes(table, "clip"), "clip")
        tables.check_failures(account, self.settings.max_failed_fraction, "captions.max_failed_fraction")
        tokens = token_lengths.cut(table, self.text)
        gate = self._pass_gate(table, account, tokens)
        return Joined((account,), counts(table) | {"text_tokens": tokens, "gate": gate._asdict()})

    def _pass_gate(self, table: Path, account: tables.Account, tokens: dict[str, Any]) -> "GateResult":
        """Check the table as it was written, and put the pages of the result in their place.

        Raises:
            ValueError: an expectation was not met.
        """
        from tasks.captions import expectations  # Great Expectations: seconds, for this stage alone
        from tasks.gates.gate import settle

        with queries.connect(table.parent) as connection:
            gate, pages = settle(
                self.docs,
                lambda work: expectations.check(connection, table, self.settings, account, tokens, work),
            )
        if not gate.success:
            raise ValueError(
                f"the gate on captions failed: {'; '.join(gate.failed)}. Look at {pages / DOCS_INDEX}; then change the "
                "key of params.yaml named above, or the captioner"
            )
        return gate


def fail_duplicates(table: Path, most: int) -> None:
    """Write a table of captions again with those failed as duplicate that a model said of more clips than `most`."""
    said = f"{queries.scan([table])} WHERE status = 'ok' AND model IS NOT NULL"
    with queries.connect(table.parent) as connection:
        found = connection.sql(f"SELECT captioner, text FROM {said} GROUP BY ALL HAVING count(*) > {most}").fetchall()
    repeated = set(found)
    if not repeated:
        return

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in queries.read([table]):
            judged = [_failed_if(repeated, row) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(judged, tables.CAPTIONS)

    with atomic.atomic_write(table) as tmp_path:
        queries.write(tmp_path, rows(), tables.CAPTIONS)


def _failed_if(repeated: set[tuple[str, str]], row: dict[str, Any]) -> dict[str, Any]:
    if row["status"] != "ok" or row["model"] is None or (row["captioner"], row["text"]) not in repeated:
        return row
    return row | {"status": "failed", "reason": "duplicate", "text": None, "short": None}


def forget_what_may_pass(work: Path) -> None:
    """Delete the shards in which a clip failed for a reason that may pass, so that this attempt asks again.

    Args:
        work: folder of the shards' tables.
    """
    shards.forget(work, outcomes.MAY_PASS)


def counts(table: Path) -> dict[str, Any]:
    """Return, of a table of captions, how often each rule of cleaning changed one, and how many are by whom."""
    rules: dict[str, int] = dict.fromkeys(cleaning.RULES, 0)
    captioners: dict[str, int] = {}
    of_whole_video = 0
    for batch in queries.read([table], ["status", "captioner", "rules", _OF_WHOLE_VIDEO]):
        for row in batch.to_pylist():
            for rule in row["rules"]:
                rules[rule] += 1
            if row["status"] == "ok":
                captioners[row["captioner"]] = captioners.get(row["captioner"], 0) + 1
                of_whole_video += row[_OF_WHOLE_VIDEO]
    return {"captioners": captioners, "rules": rules, "of_whole_video": of_whole_video}
