"""What stage `latents` made: its table against its shards, every clip accounted for.

Reads by itself, not through `stiv_model.latents.dataset`, so that a mistake there is found; without torch, which takes
seconds to import.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from stiv_model.latents.folder import TABLE
from stiv_model.settings import NULL_TEXT, ModelSettings

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


def read(latents: Path) -> Any:
    """Return the table's columns that say whether a clip is usable, and where its latents are.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: a clip is there twice, or is neither usable nor left out for a reason.
    """
    path = latents / TABLE
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run stage latents first")
    table = pq.read_table(path, columns=_COLUMNS)
    clips = pc.count_distinct(table["clip"]).as_py()
    if clips != len(table):
        raise ValueError(f"{path} has {len(table)} rows for {clips} clips: {_AGAIN}")
    lost = table.filter(pc.invert(_is_accounted_for(table)))["clip"].to_pylist()
    if lost:
        raise ValueError(
            f"{path}: {len(lost)} clips, such as {lost[0]}, are neither ok with a place in a shard and an aesthetic "
            f"score, nor rejected or failed with a reason: {_AGAIN}"
        )
    return table


def usable(table: Any) -> Any:
    """Return the rows of clips that can be trained on."""
    return table.filter(pc.equal(table["status"], "ok"))


def left_out(table: Any) -> dict[str, int]:
    """Return the number of clips that are not usable, by status and reason."""
    others = table.filter(pc.not_equal(table["status"], "ok"))
    counts = others.group_by(["status", "reason"], use_threads=False).aggregate([([], "count_all")]).to_pylist()
    return {f"{row['status']}: {row['reason']}": row["count_all"] for row in counts}


def per_shard(table: Any) -> dict[str, int]:
    """Return the number of rows by the name of their shard."""
    counts = table.group_by("shard", use_threads=False).aggregate([([], "count_all")]).to_pylist()
    return {row["shard"]: row["count_all"] for row in counts}


def shards(latents: Path, table: Any) -> dict[str, Shard]:
    """Return what each shard holds.

    Raises:
        ValueError: a shard is missing, not whole, or its entries are not exactly the usable clips that the table
            places in it.
    """
    placed = usable(table)
    columns = [("row", "count"), ("row", "count_distinct"), ("row", "min"), ("row", "max")]
    named = {row.pop("shard"): row for row in placed.group_by("shard").aggregate(columns).to_pylist()}
    there = {path.name for path in latents.glob("*.safetensors")} - {NULL_TEXT}
    found = {}
    for name in sorted(named.keys() | there):
        path = latents / name
        found[name] = shard = _header(path)
        entries = {
            "row_count": shard.clips,
            "row_count_distinct": shard.clips,
            "row_min": 0,
            "row_max": shard.clips - 1,
        }
        if named.get(name) != entries:
            places = named[name]["row_count_distinct"] if name in named else 0
            raise ValueError(
                f"{path} holds {shard.clips} clips, but {TABLE} has other ones in it ({places} places): what is not in "
                f"both would be lost without a reason; {_AGAIN}"
            )
    return found


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


def _is_accounted_for(table: Any) -> Any:
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
