"""The funnel as a figure that stands alone, and a page of the shots nearest each threshold."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tasks.clips.funnel import BorderlineShots
from tasks.pages import figures

# What the figure's colours are where no page says otherwise.
_COLOURS = "--ink:#1d2330;--muted:#5b6472;--line:#d9dde3;--accent:#2f6fde;--soft:#a9c4f2;--warm:#e08a2e"
_STYLE = f"""
:root{{{_COLOURS}}}
body{{font:15px/1.5 system-ui,sans-serif;color:var(--ink);max-width:70rem;margin:2rem auto;padding:0 1rem}}
table{{one-collapse:collapse}} td,th{{padding:.15rem .7rem;text-align:right}}
td:first-child,th:first-child{{text-align:left}} svg{{max-width:46rem}}
.row{{display:flex;flex-wrap:wrap;gap:.6rem}}
figure{{margin:0;width:10.5rem;font-size:.75rem;overflow-wrap:anywhere}} figure img{{width:100%;display:block}}
.kept figure{{one-top:4px solid var(--accent)}} .lost figure{{one-top:4px solid var(--warm)}}
"""


def picture(funnel: Sequence[dict[str, Any]]) -> str:
    """Return the funnel as an SVG document with its own colours.

    Args:
        funnel: rows of `thresholds.funnel`.
    """
    drawn = _drawn(funnel)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" style="{_COLOURS};background:white;font-family:sans-serif"'
    return drawn.replace("<svg", head, 1)


def page(funnel: Sequence[dict[str, Any]], borderline: Sequence[BorderlineShots], stills: Mapping[str, bytes]) -> str:
    """Return a page (HTML, self-contained) with the funnel and what lies on both sides of each threshold.

    Args:
        stills: a JPEG for each shot that `borderline` names.
    """
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>stiv funnel</title>", f"<style>{_STYLE}</style>"]
    parts += ["<h1>The funnel, and what is nearest each threshold</h1>", _drawn(funnel), _table(funnel)]
    for one in borderline:
        sign = "at least" if one.limit.is_min else "at most"
        parts.append(f"<h2>{escape(one.limit.score)}: {sign} {one.limit.value:g}</h2>")
        parts.append(f"<p><code>{escape(one.limit.key)}</code>")
        for side, shots in (("kept", one.kept), ("lost", one.lost)):
            parts.append(f"<h3>nearest, {side}</h3><div class='row {side}'>")
            parts += [_shot(name, value, stills[name]) for name, value in shots] or ["<p>none</p>"]
            parts.append("</div>")
    return "\n".join(parts) + "\n"


def _drawn(funnel: Sequence[dict[str, Any]]) -> str:
    rows = [(row["step"].replace("_", " "), row["clips"], row["seconds"], row["lost_seconds"]) for row in funnel]
    return figures.funnel(rows)


def _table(funnel: Sequence[dict[str, Any]]) -> str:
    lines = ["<table><tr><th>step</th><th>clips left</th><th>hours left</th><th>lost</th></tr>"]
    for row in funnel:
        cells = (escape(row["step"]), f"{row['clips']:,}", f"{row['seconds'] / 3600:,.2f}", f"{row['lost']:,}")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "".join(lines) + "</table>"


def _shot(name: str, value: float, still: bytes) -> str:
    source = f"data:image/jpeg;base64,{b64encode(still).decode()}"
    return f"<figure><img alt='' src='{source}'><figcaption><b>{value:.4g}</b> {escape(name)}</figcaption></figure>"
