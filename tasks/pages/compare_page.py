"""The page of `stiv captions compare`: the verdict, a table, and the clips with what is invented of them marked."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from tasks.comparison.marks import Piece, mark
from tasks.comparison.stage import Shown
from tasks.pages.data_uris import data_uri
from tasks.pages.hidden_signs import visible
from tasks.pages.templates import template
from tasks.storage import stills

MOST_SHOWN = 48
"""Clips on the page: one of 4 stills of 256 pixels is 60 kB of it."""
_STILLS = 4  # of a clip, evenly spread
_MOST_LETTERS = 1000  # of a caption: more are no use here, and 10,000 would push the next clip out of sight
_NAMES = {"object": "objects", "attribute": "attributes", "relation": "relations", "action": "actions"}
_NAMES |= {"count": "counts", "text": "texts", "global": "of the whole"}


class _Said(NamedTuple):
    """What one captioner says of a clip, as the template shows it."""

    pieces: list[Piece]
    invented: list[dict[str, Any]]
    """Questions that the judge denies, with the answers."""
    is_cut: bool


class _Clip(NamedTuple):
    clip: str
    group: str
    uri: str
    is_fit: bool
    pictures: list[str]
    said: list[_Said]


def write(path: Path, told: Mapping[str, Any], shown: Sequence[Shown], shots: Path) -> None:
    """Write the page (HTML, self-contained, no script).

    Args:
        told: what `comparison.FIGURES` says.
        shown: the clips, the worst first.
        shots: folder with the stills.

    Raises:
        FileNotFoundError, ValueError: there are no stills.
    """
    first = shown[:MOST_SHOWN]
    pictures = stills.read(shots, [one.clip for one in first])
    clips = [_clip(one, pictures[one.clip]) for one in first]
    page = template("compare.html.jinja", _FILTERS)
    path.write_text(
        page.render(told=told, clips=clips, names=_NAMES, left_out=len(shown) - len(first)), encoding="utf-8"
    )


def _clip(one: Shown, pictures: Sequence[bytes]) -> _Clip:
    step = max(1, len(pictures) / _STILLS)
    chosen = [pictures[int(place * step)] for place in range(min(_STILLS, len(pictures)))]
    said = [_said(row["text"], answers, one.is_fit) for row, answers in zip(one.captions, one.evidence, strict=True)]
    uris = [data_uri("image/jpeg", picture) for picture in chosen]
    return _Clip(visible(one.clip), visible(one.group), visible(one.uri[:200]), one.is_fit, uris, said)


def _said(text: str, evidence: Sequence[Mapping[str, Any]], is_fit: bool) -> _Said:
    """Return a caption in pieces; nothing is marked where the judge is not fit."""
    pieces = mark(text, evidence) if is_fit else [Piece(text, None)]
    left, kept = _MOST_LETTERS, []
    for piece in pieces:
        if left > 0:
            kept.append(Piece(visible(piece.text[:left]), piece.kind))
            left -= len(piece.text)
    invented = {one["question"]: one for one in evidence if is_fit and one["verdict"] == "invented"}
    told = [
        {"kind": one["kind"], "text": visible(one["text"]), "frames": _frames(evidence, one["question"])}
        for one in invented.values()
    ]
    return _Said(kept, told, left < 0)


def _frames(evidence: Sequence[Mapping[str, Any]], question: int) -> str:
    """Say what the judge looked at before it denied."""
    frames = [one["frame"] for one in evidence if one["question"] == question and one["answer"] is not None]
    if None in frames:
        return "no, of all frames in order"
    return f"no in {len(frames)} of {len(frames)} frames"


def _percent(share: float | None) -> Markup:
    return Markup("&ndash;") if share is None else Markup(html.escape(f"{100 * share:.1f} %"))


def _signed(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.1f}".replace("-", "−")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds >= 1
        else f"{1000 * seconds:.1f} ms"
        if seconds < 0.01
        else f"{1000 * seconds:.0f} ms"
    )


_FILTERS = {"percent": _percent, "signed": _signed, "duration": _duration}
