"""The commands `stiv why`, `stiv blame` and `stiv forget`: where a clip comes from, and where it went."""

import json as json_format
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from flows import stages
from flows.edit_params import rewrite
from flows.params import PARAMS, load_params
from flows.running import stage_names
from tasks.clips import thresholds
from tasks.clips.settings import ClipSettings
from tasks.lineage import lineage, takedown
from tasks.lineage.lineage import Workspace
from tasks.lineage.takedown import shown
from tasks.pages.reasons import meaning_of
from tasks.storage import atomic, reuse
from tasks.videos import sources

log = logging.getLogger(__name__)

HERE = Workspace.below(Path(), stage_names.with_table(), stage_names.pages())
LOCK = Path("dvc.lock")  # where DVC keeps the settings that each stage was last run with
_CHANGED = "params.yaml has changed since the selection: `dvc repro clips` selects anew"


def why(clip: str, /, clips: ClipSettings, json: bool = False) -> None:
    """Tell the history of a clip: where it comes from, why it is or is not used, and which checkpoints saw it.

    Told are its file, times, scores with their thresholds, gate, caption, latents and checkpoints. The thresholds are
    those that the selection was made with, where DVC has recorded them.

    Args:
        clip: Id of a shot or clip; or a raw video by uri or sha256, to tell of all its shots.
        json: Print JSON instead of text.

    examples:
      stiv why 1f0c2a...-0-12800
      stiv why holiday/beach.mp4
      stiv why 1f0c2a...-0-12800 --json | jq .clips.reason

    Raises:
        ValueError, FileNotFoundError: nothing of that name, or no tables.
    """
    shots = lineage.find(HERE, clip)
    if not shots:  # a video that no shot came of
        for row in lineage.videos_of(HERE, clip):
            split = lineage.split_of(HERE, row["video"]) if row["status"] == "ok" else None
            if json:
                print(json_format.dumps(row | {"split": split}))
            else:
                print(f"{shown(row['uri'])}: {_state(row)}" + (f"; in stage shots {_state(split)}" if split else ""))
        return
    recorded = selected_with(LOCK) or clips
    for shot in shots:
        found = lineage.history(HERE, shot)
        if json:
            print(json_format.dumps(found, default=lambda value: f"{len(value)} bytes"))
        else:
            print("\n".join(_told(shot, found, clips, recorded)) + "\n")


def selected_with(lock: Path) -> ClipSettings | None:
    """Return the settings that stage clips was last run with; None if DVC did not run it, or when keys were others."""
    if not lock.exists():
        return None
    try:
        stage = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]["clips"]
        return ClipSettings.model_validate(stage["params"]["params.yaml"]["clips"])
    except (KeyError, TypeError, ValidationError):
        return None


def _told(shot: str, found: dict[str, Any], today: ClipSettings, recorded: ClipSettings) -> list[str]:
    video, cut, row = found["videos"], found["shots"], found["clips"] or found["scores"] or found["shots"]
    lines = [shot]
    if video:
        lines += [
            f"  file      {shown(video['uri'])}  sha256 {video['video']}  {video['codec']} "
            f"{video['width']}x{video['height']} {video['fps']:.3g} fps {video['seconds']:.2f} s",
            f"  source    licence {video['licence'] or 'not stated'}, {video['source_url'] or 'no URL stated'}",
        ]
    lines.append(
        f"  shot      {cut['start']:.3f} s to {cut['end']:.3f} s, {cut['frames']} frames, "
        f"begins with {cut['transition']}: {_state(cut)}"
    )
    if found["scores"]:
        settings = _that_decided(found["clips"], today, recorded)
        lines += [f"  score     {line}" for line in _scores(row, thresholds.ranges(settings or today), settings)]
        lines += [f"  note      {_CHANGED}"] * (settings != today)
    if found["clips"]:
        kept = f", near-duplicate of {row['duplicate_of']}" if row["duplicate_of"] else ""
        lines.append(f"  selection {_state(found['clips'])}{kept}")
    if gate := found["gate"]:
        said = "passed" if gate["success"] else f"failed: {'; '.join(gate['failed'])}"
        lines.append(f"  gate      {said} ({gate['evaluated']} expectations; reports/data_docs/index.html)")
    if caption := found["captions"]:
        lines.append(f"  caption   {caption['text']!r} by {caption['captioner']}: {_state(caption)}")
    if (category := found.get("categories")) and category["category"]:
        lines.append(f"  category  {_category(category)}")
    if latent := found["latents"]:
        where = f", {latent['shard']} row {latent['row']}, sha256 {latent['sha256']}" if latent["shard"] else ""
        lines.append(f"  latents   {_state(latent)}{where}")
    for name, seen in found["checkpoints"].items():
        first = f", first in step {seen['first_step']}" if seen["first_step"] else ""
        lines.append(f"  {name:<9} {'saw' if seen['times'] else 'never saw'} it {seen['times']} times{first}")
    if not found["checkpoints"]:
        lines.append("  training  no checkpoint saw it")
    return lines


def _category(row: dict[str, Any]) -> str:
    """Return a category, and how sure it is."""
    said = f"{row['category']} by {row['model']}"
    if row["similarity"] is not None:
        said += f", nearest {row['nearest']} ({row['similarity']:.2f}"
        said += ")" if row["margin"] is None else f", {row['margin']:.2f} before the second)"
    return f"{said}: {_state(row)}"


def _that_decided(clip: dict[str, Any] | None, *candidates: ClipSettings) -> ClipSettings | None:
    """Return the last settings that come to the verdict in the table; None if none of them do."""
    if clip is None:
        return candidates[0]
    return next((one for one in reversed(candidates) if lineage.agrees(clip, one)), None)


def _scores(row: dict[str, Any], names: Iterable[str], settings: ClipSettings | None) -> list[str]:
    """Return a line per score, with its limits if the settings that decided are known."""
    lines = []
    limits = thresholds.rules(settings).limits if settings else ()
    for name in names:
        if name not in row:
            continue
        value = row[name]
        wanted = [f"at {'least' if one.is_min else 'most'} {one.value}" for one in limits if one.score == name]
        said = "not measured" if value is None else f"{value:.4g}"
        lines.append(f"{name} {said}" + (f"  ({', '.join(wanted)})" if wanted else ""))
    return lines


def _state(row: dict[str, Any]) -> str:
    if row["reason"] is None:
        return str(row["status"])
    reason = meaning_of(row["reason"])
    return f"{row['status']}, {row['reason']}. {reason.meaning} {reason.remedy}"


def blame(checkpoint: Path, /, out: Path | None = None, json: bool = False) -> None:
    """Tell which videos a checkpoint learned from, its parents' training included, and under which licences.

    Args:
        checkpoint: Folder of trained weights, as a training stage wrote it.
        out: Parquet file for one row per training and clip: clip, video, uri, licence, source_url, times, checkpoint.
        json: Print JSON instead of text.

    examples:
      stiv blame checkpoints/sft
      stiv blame checkpoints/sft --out seen.parquet

    Raises:
        FileNotFoundError: no checkpoint, or one of its parents is gone.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    runs = {folder: lineage.trained_on(folder) for folder in lineage.ancestry(checkpoint)}
    licences = lineage.licences(runs.values())
    videos = licences.total()
    if out:
        told = [
            table.append_column("checkpoint", pa.array([str(folder)] * len(table))) for folder, table in runs.items()
        ]
        pq.write_table(pa.concat_tables(told), out, compression="zstd")
    seen = {folder: pc.sum(table["times"]).as_py() or 0 for folder, table in runs.items()}
    if json:
        counts = {str(folder): {"clips": len(table), "samples": seen[folder]} for folder, table in runs.items()}
        print(json_format.dumps({"runs": counts, "videos": videos, "licences": licences}, indent=2))
        return
    for folder, table in runs.items():
        print(f"{folder}: {len(table)} clips, {seen[folder]} samples")
    print(f"{videos} videos in all; by licence:")
    for licence, count in licences.most_common():
        print(f"  {count:>8}  {licence}")


def forget(video: str, /, yes: bool = False, rebuild: bool = False) -> None:
    """Take a video out again: say what holds it or was made from it; with --yes, delete that and never use it again.

    Deleted are the raw file, its copies, what models have said of it, the outputs that hold it, and the checkpoints
    that saw it or come from one that did; its sha256 goes to videos.forgotten of params.yaml.

    Args:
        video: Raw video by sha256 or uri, or by the id of one of its shots.
        yes: Delete what the command names; without it, nothing is changed.
        rebuild: With --yes, also make the rest again (dvc repro) and clear DVC's cache of all that is not in use.

    examples:
      stiv forget holiday/beach.mp4                     says what it would do
      stiv forget holiday/beach.mp4 --yes --rebuild

    Raises:
        ValueError: no such video.
    """
    params = load_params()
    found = takedown.trace(HERE, params.source, sources.CACHE, video)
    print(f"video {found.video}: {found.shots} shots, {found.clips} clips in the latents")
    for what, things in (
        ("raw file", [*found.raw, *found.texts]),
        ("copy", found.cached),
        ("made from it", found.stages),
        ("never saw it, stays", found.untouched),
    ):
        for thing in things:
            print(f"  {what:<20} {shown(str(thing))}")
    if not yes:
        print("nothing was touched: --yes deletes all but the last kind, and refuses the video from now on")
        return
    forgotten = [*dict.fromkeys([*params.videos.forgotten, found.video])]
    with atomic.atomic_write(PARAMS) as tmp_path:
        tmp_path.write_text(rewrite(PARAMS.read_text(), {"videos": {"forgotten": forgotten}}))
    takedown.carry_out(found, params.source, reuse.EARLIER)
    if rebuild:
        stages.reproduce_all(lambda line: log.info("%s", line))
        stages.clear_cache(lambda line: log.info("%s", line))
        print("made again without it; DVC's cache holds nothing of it any more")
    else:
        print("now `dvc repro` makes the rest again, and `dvc gc --workspace` clears DVC's cache")
        print("until `dvc repro` has run, reports/*.json still count what is gone")
    print(
        "remote copies: `dvc gc --workspace --cloud`; Git's history and other clones are yours to look at",
        file=sys.stderr,
    )
