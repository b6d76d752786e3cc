"""The page of `stiv studio`, a Streamlit script: run from top to bottom at every click."""

import os
from pathlib import Path

import streamlit as st

from flows.commands import studio_form, studio_gallery, studio_modes, studio_queue
from flows.commands.studio_folder import FOLDER, Folder
from flows.params import Params
from tasks.applications.studio_jobs import Jobs
from tasks.pages.hidden_signs import visible
from tasks.sandbox.pool import Sandbox

_STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 2.5rem }
[data-testid="stText"] { white-space: pre-wrap; font-family: inherit }
[class*="st-key-why-"] { opacity: .6; font-size: .85rem; margin-bottom: .5rem }
[class*="st-key-small-"] { gap: .5rem }
[class*="st-key-small-"] [data-testid="stText"] { display: block; height: 3em; overflow: hidden }
[class*="st-key-small-"] .stElementContainer:has([data-testid="stText"]) + .stElementContainer [data-testid="stText"]
  { height: 1.5em; font-size: .85rem; opacity: .7 }
</style>"""


@st.cache_resource
def jobs_of(folder: Path) -> Jobs:
    """Open the jobs, once."""
    return Folder(folder).jobs()


@st.cache_resource(max_entries=1)
def settings(stamp: tuple[str, int, int]) -> Params:
    """Read the settings; once per version of their file, which `stamp` tells.

    Raises:
        FileNotFoundError, ValueError: as `studio_modes.params`.
    """
    return studio_modes.params()


@st.cache_resource
def sandbox() -> Sandbox:
    """Return the page's sandbox, open as long as the page is served."""
    return Sandbox(studio_modes.params().sandbox.model_copy(update={"workers": 1})).__enter__()


def page(folder: Folder) -> None:
    """Show the form at the left, the current video and the queue at the right, and the gallery below."""
    jobs = jobs_of(folder.top)
    st.html(_STYLE)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader("STIV studio")
        try:
            models = studio_modes.models(settings(studio_modes.stamp()))
        except (OSError, ValueError) as error:
            st.error("The settings cannot be read.")
            st.text(visible(str(error)))
        else:
            studio_form.form(folder, jobs, models, sandbox)
    with right:
        studio_queue.queue(jobs)
        shown = studio_gallery.current(jobs)
    st.divider()
    studio_gallery.gallery(folder, jobs, shown)


if __name__ == "__main__":
    st.set_page_config(page_title="STIV studio", layout="wide")
    page(Folder(Path(os.environ[FOLDER])))
