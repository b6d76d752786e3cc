"""What the report shows of stage categories: shares with intervals, and how far they have drifted."""

from typing import Any, NamedTuple

from markupsafe import Markup

from tasks.pages import figures


class Panel(NamedTuple):
    """The report's section on categories."""

    figure: Markup
    rows: list[dict[str, Any]]
    """Of each category, the most frequent first: name, clips, share, low, high and, where a release came before,
    `drift`: before, change, low, high, verdict."""
    videos: int
    drift: dict[str, Any] | None


def panel(report: dict[str, Any]) -> Panel | None:
    """Return the section by the report of the stage; None where no clip has a category.

    Args:
        report: what the stage wrote: accounts, categories, drift.
    """
    found = report.get("categories")
    if not found:
        return None
    drift = report.get("drift")
    changes = (drift or {}).get("categories", {})
    known = sorted(found.items(), key=lambda item: (-item[1]["clips"], item[0]))
    rows = [{"name": name} | one | {"drift": changes.get(name)} for name, one in known]
    drawn = [
        figures.CategoryShare(
            row["name"], figures.Interval(row["share"], row["low"], row["high"]), (row["drift"] or {}).get("before")
        )
        for row in rows
        if row["share"] is not None
    ]
    return Panel(Markup(figures.category_shares(drawn)), rows, report["videos"], drift)
