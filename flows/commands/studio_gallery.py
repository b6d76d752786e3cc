"""The videos that `stiv studio` made: one large, two beside each other, and all of them in pages."""

import contextlib
import io
import shlex
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from flows.commands import studio_form, video_record
from flows.commands.studio_folder import INSIDE, Folder, argv_of, facts_of, text_of
from tasks.applications import studio_files
from tasks.applications.studio_jobs import PAGE, Job, Jobs, Videos
from tasks.pages.hidden_signs import visible

_WIDTH = 290  # of what is shown of a video, pixels: four of them side by side where there is room
_TOLD = ("prompt", "prompts", "seed", "pipeline", "checkpoint")  # options that are told of each video anyway
_HASH = 8  # digits by which two given files are told apart
_TOGETHER = """
<button id="together">Play together</button>
<style>#together { font: inherit; font-size: .875rem; padding: .3rem .8rem;
border: 1px solid #8888; border-radius: .5rem; background: transparent; color: inherit; cursor: pointer }</style>
<script>
(() => {
  const both = () => [...document.querySelectorAll(".st-key-compared video")];
  const play = () => both().forEach((one) => { one.currentTime = 0; one.play(); });
  document.getElementById("together").onclick = play;
  const loaded = () => both().length == 2 && both().every((one) => one.readyState > 2);
  const wait = setInterval(() => { if (loaded()) { clearInterval(wait); play(); } }, 100);
  setTimeout(() => clearInterval(wait), 20000);
})();
</script>
"""


def current(jobs: Jobs) -> Job | None:
    """Show the video that was opened, or the latest one, with what can be done with it; return it."""
    job = _opened(jobs)
    if job is None:
        st.caption("The first video will be shown here.")
        return None
    other = _find(jobs, st.session_state.get("other"))
    if not job.out.is_file():
        st.warning("The file of this video is gone.")
        st.text(visible(str(job.out)))
        return job
    if other is not None and other.id != job.id and other.out.is_file():
        _both(job, other)
    else:
        st.video(str(job.out), loop=True, autoplay=True, muted=True, width=420)
        _told(job)
    _actions(job)
    _compare(jobs, job)
    return job


def _opened(jobs: Jobs) -> Job | None:
    chosen = _find(jobs, st.session_state.get("opened"))
    latest = jobs.videos(Videos())[1]
    return chosen or next((job for job in latest if job.out.is_file()), next(iter(latest), None))


def _find(jobs: Jobs, number: int | None) -> Job | None:
    try:
        return None if number is None else jobs.find(number)
    except LookupError:
        return None


def _told(job: Job) -> None:
    st.text(text_of(job))
    st.caption(facts_of(job))


def _both(first: Job, second: Job) -> None:
    with st.container(key="compared"):
        for column, job in zip(st.columns(2), (first, second), strict=True):
            with column:
                st.video(str(job.out), loop=True, muted=True)
                _told(job)
                st.text(visible(_differences(job, second if job is first else first)))
    st.html(_TOGETHER, unsafe_allow_javascript=True)


def _differences(job: Job, other: Job) -> str:
    """Return the options of a job that are not those of another one."""
    ours, theirs = job.asked.options, other.asked.options
    names = [name for name in ours if ours[name] != theirs.get(name) and name not in _TOLD]
    return ", ".join(_option(name, ours[name]) for name in names)


def _option(name: str, value: Any) -> str:
    """Return an option in words; of a given file, which lies under its hash, the first digits."""
    said = Path(value).name[:_HASH] if name in studio_form.GIVEN_NAMES else value
    return name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {said}"


def _actions(job: Job) -> None:
    with st.container(horizontal=True):
        st.button("Use these settings", key="use", on_click=studio_form.fill, args=(job,))
        st.button("Continue from this", key="continue", on_click=studio_form.go_on_from, args=(job,))
        st.download_button(
            "Download with settings",
            partial(zipped, job),
            f"{job.name}.zip",
            "application/zip",
            key="download",
            on_click="ignore",
        )
    shown = st.expander("Settings", key="settings", on_change="rerun")
    if not shown.open:
        return  # what shows code and JSON costs a browser half a second
    with shown:
        words = ["stiv", job.asked.verb, *argv_of(job.asked.verb, job.asked.options, job.out)]
        st.code(shlex.join(words), language=None, wrap_lines=True)
        st.json(job.record or {}, expanded=1)
        if job.said:
            st.text(visible(job.said.strip()))


def files_of(job: Job) -> list[Path]:
    """Return what a job has made: the video and its record; of a verb that makes a folder all in there."""
    if job.asked.verb in INSIDE:
        return sorted(path for path in job.out.parent.iterdir() if path.is_file())
    return [job.out, video_record.beside(job.out)]


def zipped(job: Job) -> bytes:
    """Return what a job has made as a zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in files_of(job):
            archive.write(path, path.name)
    return content.getvalue()


def _compare(jobs: Jobs, job: Job) -> None:
    names = {one.id: _named(one, job) for one in jobs.like(job)}
    if (chosen := st.session_state.get("other")) is not None and chosen not in names:
        found = _find(jobs, chosen)
        if found and found.id != job.id:
            names[chosen] = _named(found, job)
        else:
            del st.session_state["other"]
    st.selectbox(
        "Compare with",
        list(names),
        index=None,
        format_func=lambda number: visible(names[number]),
        key="other",
        placeholder="a video of the same text and seed, or Compare below",
    )


def _named(job: Job, other: Job) -> str:
    return f"{job.id}: {job.asked.model}, {_differences(job, other) or job.asked.mode}"


def gallery(folder: Folder, jobs: Jobs, shown: Job | None) -> None:
    """Show a page of all videos, by the words of their prompt, seed and model.

    Args:
        shown: the video that is shown large.
    """
    left, middle, right = st.columns([3, 1, 2])
    words = left.text_input("Words of the prompt", key="find-words").strip()
    seed = middle.number_input("Seed", value=None, step=1, key="find-seed", placeholder="any")
    model = right.selectbox("Model", jobs.models(), index=None, key="find-model", placeholder="any")
    which = Videos(words, None if seed is None else int(seed), model)
    page = st.session_state.get("page", 0)
    count, found = jobs.videos(which, page)
    pages = max(1, -(-count // PAGE))
    if page >= pages:
        page = st.session_state["page"] = pages - 1
        count, found = jobs.videos(which, page)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("◀", key="before", help="Newer videos", disabled=page == 0, on_click=_turn, args=(page - 1,))
        st.text(f"{count} video{'s' * (count != 1)}, page {page + 1} of {pages}")
        st.button("▶", key="after", help="Older videos", disabled=page == pages - 1, on_click=_turn, args=(page + 1,))
    with st.container(horizontal=True):
        for job in found:
            _small(folder, job, is_shown=shown is not None and shown.id == job.id)


def _turn(page: int) -> None:
    st.session_state["page"] = page


def _small(folder: Folder, job: Job, is_shown: bool) -> None:
    with st.container(border=True, width=_WIDTH, key=f"small-{job.id}"):
        picture = folder.small / f"{job.name}.jpg"
        if not job.out.is_file():
            st.text("its file is gone")
        elif not picture.is_file():
            with contextlib.suppress(OSError, ValueError, IndexError):  # somebody put another file in its place
                studio_files.strip(job.out, picture)
        if picture.is_file():
            st.image(str(picture), width="stretch", alt=f"First, middle and last frame: {text_of(job)}")
        st.text(text_of(job))
        st.text(visible(f"seed {job.seed}, {job.asked.model}"))  # captions and hints here cost a browser 0.4 s
        with st.container(horizontal=True):
            st.button("Open", key=f"open-{job.id}", on_click=_open, args=(job.id, "opened"))
            st.button("Compare", key=f"other-{job.id}", disabled=is_shown, on_click=_open, args=(job.id, "other"))


def _open(number: int, name: str) -> None:
    if name == "opened":
        st.session_state["other"] = None
    st.session_state[name] = number
