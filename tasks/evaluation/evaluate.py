"""A suite evaluated: every video measured once, whoever is killed; then the card, the table and the page."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from prefect import task

from stiv_model.errors.redaction import redacted
from tasks.evaluation import machine, measure, rows, sealing, summary, values
from tasks.evaluation.card import SCHEMA, Card, Machine
from tasks.evaluation.metrics import Features, Metric
from tasks.evaluation.rows import Row, RowLog
from tasks.evaluation.settings import DECIDE_NO_ROW, EvaluationSettings
from tasks.evaluation.suites import Entry, SuiteRun, Unusable
from tasks.evaluation.worst import worst
from tasks.storage import atomic

log = logging.getLogger(__name__)

PAGE = "card.html"
_SHOWN_NAMES = 5

Pictures = Mapping[str, np.ndarray]
"""By id, the frames of a video: uint8 RGB (T, H, W, 3)."""
Page = Callable[[Card, Sequence[dict[str, Any]], Sequence[str], Pictures], str]
"""Returns the page (HTML) of a card, its table's rows, the ids of the worst videos and their frames."""


class Evaluation(NamedTuple):
    """What is evaluated, and how."""

    run: SuiteRun
    settings: EvaluationSettings
    chosen: measure.Chosen
    device: str
    """Of networks: cpu or cuda."""
    decided_by: Mapping[str, Any] = MappingProxyType({})
    """What decides about rows besides: the code that measures, and the limits within which files are opened."""

    def on(self) -> Machine:
        """Return what it is measured on; torch's switches count where a metric has a network."""
        parts: list[Metric | Features] = [*self.chosen.metrics, *self.chosen.features]
        has_network = any(one.needs is not None and measure.is_installed(one.needs) for one in parts)
        has_network |= self.settings.clip is not None or self.settings.raft_small is not None
        return machine.facts(self.device, has_network)

    def identity(self) -> dict[str, Any]:
        """Return what decides about rows, as JSON has it."""
        return {
            "schema": SCHEMA,
            "suite": self.run.suite.model_dump(mode="json"),
            "model": self.run.model.model_dump(mode="json"),
            "metrics": self.chosen.told(),
            "settings": self.settings.model_dump(mode="json", exclude=DECIDE_NO_ROW),
            "machine": self.on().model_dump(mode="json"),
            **self.decided_by,
        }


@task(task_run_name="evaluate into {out}")
@redacted
def evaluate_all(asked: Evaluation, out: Path, card: Path, shard: str | None, page: Page) -> Card | None:
    """Measure every video that has no row yet; then write `card` and the folder `out` with the table and the page.

    Args:
        shard: measure only this part of the videos, and leave their rows beside `out`: nothing is joined.
        page: makes the page.

    Returns:
        the card; None of a shard.
    Raises:
        ValueError: there is no video; the videos are of several kinds; none could be measured.
    """
    entries = asked.run.entries
    work = RowLog(out, asked.identity(), shard)
    found = _measure_missing(work, rows.share(entries, shard, asked.run.together), asked.chosen, is_whole=shard is None)
    if shard is not None:
        summary.common(found)
        log.info("%s: rows of shard %s; the same command without --shard joins them", work.work, shard)
        return None
    content = _content(asked, found, os.path.relpath(out / values.FILE, card.parent))
    return _publish(asked, found, content, work.work, out, card, page)


def _measure_missing(work: RowLog, entries: Sequence[Entry], chosen: measure.Chosen, is_whole: bool) -> list[Row]:
    """Return a row of each entry, in their order; those that are there already are not made again."""
    there = work.read()
    stamps = {entry.id: entry.stamp() for entry in entries}
    missing = [entry for entry in entries if (entry.id, stamps[entry.id]) not in there]
    if there and missing:
        names = ", ".join(entry.id for entry in missing[:_SHOWN_NAMES])
        what = "of the whole" if is_whole else "of the shard"
        more = " ..." if len(missing) > _SHOWN_NAMES else ""
        log.warning("%d of %d rows %s are missing and made now: %s%s", len(missing), len(entries), what, names, more)
    ours = (there[key] for key in stamps.items() if key in there)  # others are of videos that were changed, or are gone
    first = next((row for row in ours if row["status"] == "ok"), None)
    for entry in missing:
        row = measure.measure(entry, stamps[entry.id], chosen)
        first = first or (row if row["status"] == "ok" else None)
        summary.common([first or row, row])  # a folder of two kinds of videos is refused before all is measured
        work.add(row)
        there[entry.id, stamps[entry.id]] = row
    return [there[entry.id, stamps[entry.id]] for entry in entries]


def _content(asked: Evaluation, found: list[Row], place: str) -> dict[str, Any]:
    """Return all of the card but seal and hash of the table."""
    account = summary.account([entry.id for entry in asked.run.entries], found)
    if not account.ok:
        raise ValueError(f"none of {account.given} videos could be measured ({account.reasons})")
    videos = summary.common(found)
    dimensions = summary.dimensions(found, asked.chosen, videos, asked.settings)
    log.info("measured %d of %d videos", account.ok, account.given)
    return {
        "schema": SCHEMA,
        "suite": asked.run.suite.model_dump(mode="json"),
        "model": asked.run.model.model_dump(mode="json"),
        "videos": videos.model_dump(mode="json"),
        "machine": asked.on().model_dump(mode="json"),
        "account": account.model_dump(mode="json"),
        "not_measured": [one.model_dump(mode="json") for one in summary.not_measured(found)],
        "dimensions": [one.model_dump(mode="json") for one in dimensions],
        "alarms": [one.model_dump(mode="json") for one in summary.alarms(dimensions, asked.settings)],
        "values": {"file": place},
    }


def _publish(
    asked: Evaluation, found: list[Row], content: dict[str, Any], work: Path, out: Path, path: Path, page: Page
) -> Card:
    """Write table and page into the folder, whole; then the card, which names the table by its hash."""
    product = work / "product"
    product.mkdir(exist_ok=True)
    prompts = {entry.id: entry.asked.get("prompt") for entry in asked.run.entries}
    units = {one.name: one.unit for one in asked.chosen.metrics}
    table = values.table(found, prompts, units, [one.name for one in asked.chosen.features])
    content["values"]["sha256"] = values.write(product / values.FILE, table)
    card = sealing.seal(content, sealing.key())
    shown = worst(table.to_pylist(), asked.chosen.metrics, asked.settings.worst)
    text = page(card, table.to_pylist(), shown, _frames(asked.run.entries, shown))
    (product / PAGE).write_text(text, encoding="utf-8")
    atomic.finish(product, out)
    sealing.write(card, path)
    atomic.discard_workdir(out)
    return card


def _frames(entries: Sequence[Entry], ids: Sequence[str]) -> dict[str, np.ndarray]:
    wanted, found = set(ids), {}
    for entry in entries:
        if entry.id in wanted:
            try:
                found[entry.id] = entry.load().entry.video
            except Unusable as verdict:
                log.warning("%s was measured and cannot be shown: %s", entry.id, verdict.reason)
    return found
