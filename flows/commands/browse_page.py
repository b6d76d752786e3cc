"""The page of `stiv browse`, a Streamlit script: run from top to bottom at every click."""

from pathlib import Path
from typing import Any

import streamlit as st

from flows.params import load_params
from flows.running import stage_names
from tasks.lineage import lineage
from tasks.lineage.lineage import Workspace
from tasks.pages.columns import COLUMNS
from tasks.pages.gallery import SHOWN, Filters, Gallery
from tasks.pages.hidden_signs import visible
from tasks.pages.preview import Piece, preview
from tasks.sandbox.pool import Sandbox
from tasks.storage import fields
from tasks.storage.object_cache import ObjectCache
from tasks.storage.tables import STATUSES
from tasks.videos import sources

_IN_TABLE = (
    "status",
    "reason",
    "text",
    "seconds",
    "motion",
    "aesthetic",
    "clarity",
    "text_area",
    "uri",
    "clip",
)


@st.cache_resource
def gallery(stamp: int) -> Gallery:
    """Open the tables; once per version of them, which `stamp` tells."""
    return Gallery(Path("data"))


@st.cache_resource
def sandbox() -> Sandbox:
    """Return the page's sandbox, open as long as the page is served."""
    return Sandbox(load_params().sandbox).__enter__()


def filters(shown: Gallery) -> tuple[Filters, str, bool]:
    """Show the controls at the side and return what they say."""
    st.sidebar.header("Filter")
    words = st.sidebar.text_input("Words in caption or file name", key="words")
    statuses = st.sidebar.multiselect("Status", STATUSES, key="statuses")
    reasons = st.sidebar.multiselect("Reason", shown.reasons(), key="reasons")
    extent = shown.extent()
    chosen = st.sidebar.multiselect("Scores", list(extent), default=[], key="scores")
    within = {}
    for name in chosen:
        least, most = extent[name]
        if least == most:
            st.sidebar.caption(f"{name} is {least:g} everywhere")
            continue
        within[name] = st.sidebar.slider(
            name, least, most, (least, most), key=f"range-{name}", help=COLUMNS["CLIPS"][name]
        )
    st.sidebar.header("Order")
    order = st.sidebar.selectbox("By", ["uri", *extent], key="order")
    descending = st.sidebar.toggle("Largest first", key="descending")
    return Filters(within, statuses, reasons, words), order, descending


def table(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Show the rows and return the one that is picked."""
    columns = [name for name in _IN_TABLE if rows and name in rows[0]]
    found = st.dataframe(
        [{name: row[name] for name in columns} for row in rows],
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        key="table",
        width="stretch",
    )
    picked = found["selection"]["rows"]
    return rows[picked[0]] if picked and picked[0] < len(rows) else None


def details(shown: Gallery, row: dict[str, Any]) -> None:
    """Show one shot: the video from its start to its end, the stills, caption, reason, scores, history."""
    st.subheader(row["clip"])
    left, right = st.columns([3, 2])
    with left:
        play(row)
        if stills := shown.stills(row["clip"]):
            st.image(stills, width=150)
    with right:
        st.markdown(f"**{row['status']}**" + (f": {row['reason']}" if row["reason"] else ""))
        if kept := row.get("duplicate_of"):
            st.markdown(f"kept instead: `{kept}`")
        st.text(visible(row.get("text") or row.get("caption") or "no caption"))
        st.dataframe(
            [{"score": name, "value": row[name]} for name in shown.extent() if row.get(name) is not None],
            hide_index=True,
            width="stretch",
        )
    with st.expander("History"):
        here = Workspace.below(Path(), stage_names.with_table(), stage_names.pages())
        st.json(lineage.history(here, row["clip"]))


def play(row: dict[str, Any]) -> None:
    """Play the shot, decoded in the sandbox, where its raw video is at hand."""
    try:
        params = load_params()
        cache = ObjectCache(sources.CACHE, params.engine.source_cache_bytes)
        with sources.lend(params.source, row["uri"], row["video"], cache) as path:
            film = preview(fields.take(Piece, row), path, sandbox())
    except (OSError, ValueError) as error:
        st.warning("The shot cannot be played.")
        st.text(visible(str(error)))  # it may name a file, and a warning is Markdown
        return
    st.video(film, loop=True, autoplay=True, muted=True)


def page() -> None:
    """Show the filters, the table, and what was chosen in it."""
    shown = gallery(max(path.stat().st_mtime_ns for path in Path("data").glob("*/*.parquet")))
    chosen, order, descending = filters(shown)
    count, hours, rows = shown.find(chosen, order, descending)
    st.markdown(f"**{count}** shots, {hours:.2f} hours" + (f"; the first {SHOWN} are shown" if count > SHOWN else ""))
    if row := table(rows):
        details(shown, row)


if __name__ == "__main__":
    st.set_page_config(page_title="STIV clips", layout="wide")
    page()
