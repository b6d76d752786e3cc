"""Stage categories: what each caption is about, for the shares of the categories and for trainings balanced by them."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stiv_model.settings import Device
from tasks.captions.outcomes import MAY_PASS
from tasks.categories import nearest
from tasks.categories.asked import Asked
from tasks.categories.found import Found
from tasks.categories.settings import AskedSettings, CategorySettings, NearestSettings
from tasks.categories.shares import check_release, drift, shares, told
from tasks.chat.client import closing
from tasks.chat.store import STORE
from tasks.storage import atomic, queries, shards, tables
from tasks.storage.stage import Joined, Stage

_GIVEN = ("clip", "text")
_DECIDE_NOTHING = {"weights", "earlier_release", "max_failed_fraction", "shard_captions"}
"""Settings by which no caption gets another category."""


def categorise(
    captions: list[dict[str, Any]], settings: CategorySettings, device: Device, store: Path
) -> list[dict[str, Any]]:
    """Return one row of schema CATEGORIES per caption, in their order, without weights.

    Args:
        captions: with `clip` and `text`.
        settings: who decides, and the list.
        device: where an encoder computes.
        store: file of the answers of a model.

    Raises:
        TryLaterError, FileNotFoundError, ValueError: as the encoder and the model say.
    """
    found: list[Found]
    by, prompt = settings.by, None
    if by is None:
        return [_row(caption, None, None, None) for caption in captions]
    if isinstance(by, NearestSettings):
        model = by.encoder.source
        found = nearest.categorise([caption["text"] for caption in captions], settings.listed, by, device)
    else:
        model, one = by.endpoint.model, Asked(by, settings.listed, store)
        found, prompt = one.categorise(captions), one.prompt.sha256
    return [_row(caption, one, model, prompt) for caption, one in zip(captions, found, strict=True)]


def _row(caption: dict[str, Any], found: Found | None, model: str | None, prompt: str | None) -> dict[str, Any]:
    values = {name: value for name, value in found._asdict().items() if name != "reason"} if found else {}
    reason = found.reason if found else None
    return {
        "clip": caption["clip"],
        "status": "failed" if reason else "ok",
        "reason": reason,
        "model": model,
        "prompt_sha256": prompt,
        **values,
    }


def categorise_shard(shard: shards.Shard, settings: CategorySettings, device: Device, store: Path) -> None:
    """Categorise one shard of captions."""
    shard.write(categorise(shard.read(), settings, device, store), tables.CATEGORIES)


class Categories(Stage):
    """One row of schema CATEGORIES per caption that goes on, in their order.

    Args:
        captions: folder with the table of captions.
        settings: of the section categories.
        device: where an encoder computes, which decides nothing but by rounding.
        store: file of the answers of models.

    Raises:
        FileNotFoundError, ValueError: the encoder, the prompt or the earlier release is not there; a description is
            longer than the encoder takes.
    """

    name, verb, unit = "categories", "categorise", "captions"
    schema = pa.schema([tables.CAPTIONS.field(name) for name in _GIVEN])

    def __init__(self, captions: Path, settings: CategorySettings, device: Device = "cpu", store: Path = STORE) -> None:
        self.table, self.settings, self.device, self.store = captions / tables.CAPTION_TABLE, settings, device, store
        self._prompt: str | None = None
        if isinstance(settings.by, NearestSettings):
            nearest.check_descriptions(settings.listed, settings.by)
        elif settings.by is not None:
            self._prompt = Asked(settings.by, settings.listed, store).prompt.sha256
        if settings.earlier_release is not None:
            check_release(settings.earlier_release)

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        return tables.usable(self.table, tables.CAPTIONS, _GIVEN)

    def decides(self) -> dict[str, Any]:
        return {
            "categories": self.settings.model_dump(mode="json", exclude=_DECIDE_NOTHING),
            "prompt_sha256": self._prompt,
        }

    def inputs(self) -> dict[str, Any]:
        return {"captions": atomic.sha256_file(self.table), "shard_captions": self.settings.shard_captions}

    def shard_size(self) -> float:
        return self.settings.shard_captions

    @contextlib.contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[shards.Shard], None]]:
        shards.forget(product.parent, MAY_PASS)  # of an attempt that was ended: it is asked for again
        by = self.settings.by
        with closing(*([by.endpoint] if isinstance(by, AskedSettings) else [])):
            yield partial(categorise_shard, settings=self.settings, device=self.device, store=self.store)

    def join(self, work: shards.Work, product: Path) -> Joined:
        table = product / tables.CATEGORY_TABLE
        queries.write(table, self._weighed(shards.joined(work, tables.CATEGORIES)), tables.CATEGORIES)
        account = queries.settle("captions", work.keys("clip"), queries.outcomes(table, "clip"), "clip")
        tables.check_failures(account, self.settings.max_failed_fraction, "categories.max_failed_fraction")
        return Joined((account,), self._told(table) if self.settings.by is not None else {})

    def _weighed(self, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Give rows with the weights of their categories."""
        weights = {name: self.settings.weight(name) for name in self.settings.names}
        at = tables.CATEGORIES.get_field_index("weight")
        for batch in rows:
            coded = pc.index_in(batch["category"], pa.array(list(weights), pa.string()))
            column = pa.array(list(weights.values()), pa.float64()).take(coded)
            yield batch.set_column(at, tables.CATEGORIES.field(at), column)

    def _told(self, table: Path) -> dict[str, Any]:
        """Return what the report says: the shares, and the drift from the last release where one is named."""
        with queries.connect(table.parent) as connection:
            now = shares(connection, table, self.settings.names)
            found: dict[str, Any] = {"categories": told(now), "videos": now.videos}
            if self.settings.earlier_release is not None:
                release = check_release(self.settings.earlier_release)
                before = shares(connection, release, self.settings.names)
                of_both = shares(connection, table, list(before.counts))
                found["drift"] = {"release": str(release)} | drift(of_both, before)
        return found
