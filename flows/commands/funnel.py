"""`stiv funnel`: what other thresholds would keep, without selecting anything."""

import json as jsonlib
from pathlib import Path
from typing import Any

from flows import edit_params
from flows.commands.clip_size import clip_bytes
from flows.params import PARAMS, check_params, read_params
from tasks.clips.funnel import Replay, borderline_shots, middle_stills, replay
from tasks.clips.settings import ClipSettings
from tasks.clips.thresholds import duplicate_columns
from tasks.storage import atomic, tables

SHOWN = 6
"""Shots on the sheet, on each side of a threshold."""


def funnel(
    *,
    scores: Path = Path("data/scores"),
    set: list[str] | None = None,
    preset: str | None = None,
    duplicates: bool = False,
    clips_per_hour: float | None = None,
    downsampling: int = 8,
    sheet: Path | None = None,
    shots: Path = Path("data/shots"),
    figure: Path | None = None,
    write: bool = False,
    json: bool = False,
) -> None:
    """Say how many clips the thresholds of params.yaml, or others, would leave; nothing is selected.

    Printed are the shots that each threshold in turn loses, which kinds of shots become more or less common, and what
    the next stage has to encode.

    Args:
        scores: Folder with the table of scores.
        set: Thresholds to try instead of those of params.yaml, such as clips.motion.min=0.6; applied after --preset.
        preset: Name of a selection in infra/selections, whose thresholds to try.
        duplicates: Look for near-duplicates too; for 1 million clips that takes a minute by hash, hours by embeddings.
        clips_per_hour: Clips that stage latents encodes in an hour here; without it, how long that takes is unknown.
        downsampling: Pixels that the VAE turns into one latent, on each side.
        sheet: File for a page that shows the shots nearest each threshold (HTML).
        shots: Folder with the stills that --sheet shows.
        figure: File for the funnel as a figure (SVG).
        write: Put the thresholds that were tried into params.yaml.
        json: Print JSON instead of text.

    examples:
      stiv funnel --set clips.motion.min=0.6 clips.clarity.min=null
      stiv funnel --preset sft --sheet sheet.html
      stiv funnel --preset sft --set clips.best.clips=500 --write
    """
    if clips_per_hour is not None and clips_per_hour <= 0:
        raise ValueError(f"--clips-per-hour is {clips_per_hour:g}: give what stage latents encodes, above 0")
    values = read_params()
    changed = edit_params.read_preset(preset) if preset else {}
    values = edit_params.override(edit_params.merged(values, {"clips": changed}), set or [])
    clips = values["clips"]
    asked_with = [f"--preset {preset}"] * bool(preset) + [f"--set {' '.join(set or [])}"] * bool(set)
    params = check_params(values, " ".join(asked_with) or PARAMS)
    size = clip_bytes(params, downsampling)
    table = scores / tables.SCORE_TABLE
    none = {"duplicate_bits": None, "duplicate_similarity": None}
    asked = params.clips if duplicates else params.clips.model_copy(update=none)
    found = replay(table, asked)
    costs = next_costs(found.funnel[-1]["clips"], size, clips_per_hour)
    is_whole = duplicates or not duplicate_columns(params.clips)
    if json:
        told = {"scores": str(table), "duplicates": is_whole, "funnel": found.funnel, **costs}
        print(jsonlib.dumps(told | {"shift": [shift._asdict() for shift in found.shift]}, indent=2))
    else:
        print("\n".join([*funnel_lines(table, found), "", *shift_lines(found), "", *cost_lines(costs, is_whole)]))
    if figure:
        from tasks.pages.funnel_page import picture  # Matplotlib: most of a second

        save(figure, picture(found.funnel))
    if sheet:
        save(sheet, draw_sheet(table, shots, asked, found))
    if write:
        save(PARAMS, edit_params.rewrite(PARAMS.read_text(), {"clips": clips}))
        if not json:
            print(f"{PARAMS}: the thresholds are there now; dvc repro clips selects with them")


def next_costs(clips: int, size: int, clips_per_hour: float | None) -> dict[str, Any]:
    """Return what the next stages have to do; None is unknown.

    Args:
        size: bytes of one clip's latents.
    """
    hours = None if clips_per_hour is None else clips / clips_per_hour
    return {"clips": clips, "latent_bytes": clips * size, "encode_hours": hours}


def draw_sheet(table: Path, shots: Path, clips: ClipSettings, found: Replay) -> str:
    """Return the page of the shots nearest each threshold."""
    from tasks.pages.funnel_page import page  # as above

    borderline = borderline_shots(table, clips, SHOWN)
    names = sorted({name for one in borderline for name, _ in (*one.kept, *one.lost)})
    return page(found.funnel, borderline, middle_stills(shots, names))


def funnel_lines(table: Path, found: Replay) -> list[str]:
    """Return the funnel as a table."""
    lines = [f"{table}", f"{'step':22}{'clips left':>12}{'hours left':>12}{'lost':>12}{'hours lost':>12}"]
    for row in found.funnel:
        hours, lost = row["seconds"] / 3600, row["lost_seconds"] / 3600
        lines.append(f"{row['step']:22}{row['clips']:>12,}{hours:>12,.2f}{row['lost']:>12,}{lost:>12,.2f}")
    return lines


def shift_lines(found: Replay) -> list[str]:
    """Return which kinds of shots become more or less common."""
    lines = [f"{'kind':22}{'':12}{'of scored':>12}{'of clips':>12}{'shift':>12}"]
    for category, value, scored, kept in found.shift:
        lines.append(f"{category:22}{value:12}{scored:>12.1%}{kept:>12.1%}{100 * (kept - scored):>+12.1f}")
    return lines


def cost_lines(costs: dict[str, Any], is_whole: bool) -> list[str]:
    """Return what comes next, and what was not looked for."""
    hours = costs["encode_hours"]
    rate = "unknown without --clips-per-hour" if hours is None else f"{hours:,.1f} hours"
    lines = [f"latents of {costs['clips']:,} clips: {costs['latent_bytes'] / 1e9:,.3f} GB, encoding {rate}"]
    return lines if is_whole else [*lines, "near-duplicates were not looked for: --duplicates"]


def save(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(path) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")
