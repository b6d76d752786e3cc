"""What stage `latents` made: its table against its shards, every clip accounted for.

Reads by itself, not through `stiv_model.latents.dataset`, so that a mistake there is found; without torch, which takes
seconds to import.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError, safe_open

from stiv_model.latents import table_columns
from stiv_model.latents.folder import TABLE
from stiv_model.settings import NULL_TEXT, LearnedSettings, ModelSettings

_COLUMNS = ["clip", "status", "reason", "aesthetic", "shard", "row"]
_AGAIN = "run stage latents again"


class Shape(NamedTuple):
    """Of the latents of one clip: latent frames, and rows and columns of each."""

    frames: int
    rows: int
    columns: int


class Shard(NamedTuple):
    """What one file of latents holds."""

    clips: int
    shape: Shape
    channels: int
    text_width: int
    file_bytes: int


class Table(NamedTuple):
    """What the table says of each clip, by its number there."""

    clips: pa.LargeStringArray
    by_name: np.ndarray
    """Numbers of all clips, in the order of their names."""
    is_ok: np.ndarray
    """Whether it can be trained on."""
    left_out: dict[str, int]
    """The number of clips that cannot, by status and reason."""
    shards: list[str]
    shard_numbers: np.ndarray
    """Which of `shards` it is in, -1 if in none."""
    rows: np.ndarray
    """Where it is in its shard."""
    aesthetic: np.ndarray

    def per_shard(self, clips: np.ndarray) -> dict[str, int]:
        """Return how many of some clips, by their numbers (n,), are in each shard, by its name."""
        counts = np.bincount(self.shard_numbers[clips], minlength=len(self.shards))
        return dict(zip(self.shards, counts.tolist(), strict=True))


def read(latents: Path) -> Table:
    """Return the table's columns that say whether a clip is usable, and where its latents are.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: a clip is there twice, or is neither usable nor left out for a reason.
    """
    path = latents / TABLE
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run stage latents first")
    count = table_columns.count_rows(path)
    names, shards, left_out = table_columns.Names(count), table_columns.Numbered(), Counter[str]()
    is_ok, aesthetic = np.zeros(count, bool), np.zeros(count)
    shard_numbers, rows = np.full(count, -1, np.int32), np.zeros(count, np.int32)
    lost, an_example, first = 0, "", 0
    for batch in table_columns.batches(path, _COLUMNS):
        here = slice(first, first + len(batch))
        first += len(batch)
        names.extend(batch["clip"])
        is_ok[here] = table_columns.is_ok(batch)
        aesthetic[here] = pc.fill_null(batch["aesthetic"], np.nan).to_numpy()
        shard_numbers[here] = shards.numbers(batch["shard"])
        rows[here] = pc.fill_null(batch["row"], -1).to_numpy()
        left_out.update(_left_out(batch))
        unaccounted = batch["clip"].filter(pc.invert(_is_accounted_for(batch)))
        lost, an_example = lost + len(unaccounted), an_example or (str(unaccounted[0]) if len(unaccounted) else "")
    clips = names.array()
    by_name = table_columns.in_order(clips)
    if twice := sum(1 for _ in table_columns.repeated(clips, by_name)):
        raise ValueError(f"{path} has {count} rows for {count - twice} clips: {_AGAIN}")
    if lost:
        raise ValueError(
            f"{path}: {lost} clips, such as {an_example}, are neither ok with a place in a shard and an aesthetic "
            f"score, nor rejected or failed with a reason: {_AGAIN}"
        )
    return Table(clips, by_name, is_ok, dict(left_out), shards.texts, shard_numbers, rows, aesthetic)


def shards(latents: Path, table: Table) -> dict[str, Shard]:
    """Return what each shard holds.

    Raises:
        ValueError: a shard is missing, not whole, or its entries are not exactly the usable clips that the table
            places in it.
    """
    placed = _rows_by_shard(table)
    there = {path.name for path in latents.glob("*.safetensors")} - {NULL_TEXT}
    found = {}
    for name in sorted(placed.keys() | there):
        path = latents / name
        found[name] = shard = _header(path)
        rows = np.sort(placed.get(name, np.array([], np.int32)))
        if not np.array_equal(rows, np.arange(shard.clips)):
            raise ValueError(
                f"{path} holds {shard.clips} clips, but {TABLE} has other ones in it ({len(np.unique(rows))} places): "
                f"what is not in both would be lost without a reason; {_AGAIN}"
            )
    return found


def _rows_by_shard(table: Table) -> dict[str, np.ndarray]:
    """Return the places of the usable clips in each shard that has some, by its name."""
    usable = np.flatnonzero(table.is_ok)
    numbers = table.shard_numbers[usable]
    grouped = usable[np.argsort(numbers, kind="stable")]
    ends = np.cumsum(np.bincount(numbers, minlength=len(table.shards)))
    parts = np.split(table.rows[grouped], ends[:-1]) if len(ends) else []
    return {name: rows for name, rows in zip(table.shards, parts, strict=True) if len(rows)}


def check_model(latents: Path, found: dict[str, Shard], model: ModelSettings) -> None:
    """Refuse latents that the model cannot take.

    Raises:
        ValueError: the setting, its value and what the shard has.
    """
    for name, shard in found.items():
        path = latents / name
        for key, is_so in (("latent_channels", shard.channels), ("text_width", shard.text_width)):
            if getattr(model, key) != is_so:
                raise ValueError(f"model.{key} is {getattr(model, key)}, but {path} has {is_so}: set it in params.yaml")
        if shard.shape.rows % model.spatial_patch or shard.shape.columns % model.spatial_patch:
            raise ValueError(
                f"model.spatial_patch is {model.spatial_patch}, which divides not both sides of the latents in {path}, "
                f"{shard.shape.rows} x {shard.shape.columns}: change it, or latents.height and latents.width"
            )
        _check_positions(path, shard.shape, model)


def _check_positions(path: Path, shape: Shape, model: ModelSettings) -> None:
    """Refuse latents of more tokens in space than there are learned positions."""
    if not isinstance(model.positions, LearnedSettings):
        return
    for key, latents in (("rows", shape.rows), ("columns", shape.columns)):
        have, wanted = getattr(model.positions, key), latents // model.spatial_patch
        if have < wanted:
            raise ValueError(
                f"model.positions.{key} is {have}, but the latents in {path}, {shape.rows} x {shape.columns}, are "
                f"{wanted} {key} of tokens at model.spatial_patch {model.spatial_patch}: set it to {wanted}"
            )


def _left_out(batch: pa.RecordBatch) -> dict[str, int]:
    others = pa.table(batch).filter(pc.not_equal(batch["status"], "ok"))
    counts = others.group_by(["status", "reason"], use_threads=False).aggregate([([], "count_all")]).to_pylist()
    return {f"{row['status']}: {row['reason']}": row["count_all"] for row in counts}


def _is_accounted_for(table: pa.RecordBatch) -> Any:
    """Return a column of truth values. What is missing is null, and null counts as no."""
    has_place = pc.and_(pc.is_valid(table["shard"]), pc.is_valid(table["row"]))
    is_used = pc.and_(pc.equal(table["status"], "ok"), pc.and_(has_place, pc.is_finite(table["aesthetic"])))
    has_reason = pc.is_valid(table["reason"])
    is_dropped = pc.and_(pc.is_in(table["status"], pa.array(["rejected", "failed"])), has_reason)
    return pc.or_(pc.fill_null(is_used, False), pc.fill_null(is_dropped, False))


def _header(path: Path) -> Shard:
    """Read what a shard says it holds. Opening it checks that the file has the length that its header says."""
    try:
        with safe_open(path, "numpy") as opened:
            clips, _ = opened.get_slice("clips").get_shape()
            shapes = {name: shape for name, _, shape, _ in json.loads(opened.metadata()["entry"])}
        frames, channels, rows, columns = shapes["latents"]
        text_width = shapes["tokens"][-1]
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist, but {TABLE} has clips in it: {_AGAIN}") from None
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not a whole shard ({error}): {_AGAIN}") from None
    return Shard(clips, Shape(frames, rows, columns), channels, text_width, path.stat().st_size)
