"""What `stiv studio` makes now, what waits, and what came to nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from flows.commands.studio_folder import facts_of, text_of
from tasks.applications import parts
from tasks.applications.studio_jobs import Job, Jobs, Progress
from tasks.pages.hidden_signs import visible

_LOOK_SECONDS = 1.0
_SHOWN_WAITING = 30


def queue(jobs: Jobs) -> None:
    """Show the queue; as long as something is in it, look again every second."""
    is_at_work = jobs.running() is not None or bool(jobs.waiting())

    @st.fragment(run_every=_LOOK_SECONDS if is_at_work else None)
    def shown() -> None:
        seen = st.session_state.setdefault("seen", jobs.last_change())
        if seen != (now := jobs.last_change()):
            st.session_state["seen"] = now
            st.rerun()  # all of the page: the gallery has one more
        running, waiting = jobs.running(), jobs.waiting()
        if running:
            _running(jobs, running)
        for place, job in enumerate(waiting[:_SHOWN_WAITING]):
            _waiting(jobs, job, is_first=place == 0, is_last=place == len(waiting) - 1)
        if len(waiting) > _SHOWN_WAITING:
            st.caption(f"and {len(waiting) - _SHOWN_WAITING} more")
        if not running and not waiting:
            st.caption("Nothing waits. What you ask for is made here, one video after the other.")

    shown()
    if lost := jobs.without_video():
        with st.expander(f"Without a video: {len(lost)}", expanded=lost[0].state == "failed"):
            for job in lost:
                _lost(jobs, job)


def told(progress: Progress) -> str:
    """Say how far a job is, in words."""
    if not progress.steps:
        return "the model is loaded"
    call = "" if progress.calls == 1 else f"window {progress.call}{f' of {progress.calls}' * bool(progress.calls)}, "
    left = progress.seconds_left
    rest = "" if left is None else f", about {int(left) // 60}:{int(left) % 60:02d} left"
    return f"{call}step {progress.step} of {progress.steps}{rest}"


def _running(jobs: Jobs, job: Job) -> None:
    with st.container(border=True, key="running"):
        left, right = st.columns([4, 1], vertical_alignment="center")
        with left:
            _prompt(job)
        right.button(
            "Stopping" if job.is_stopping else "Cancel",
            key="cancel",
            disabled=job.is_stopping,
            on_click=jobs.stop,
            args=(job.id,),
            width="stretch",
        )
        progress = job.progress
        share = progress.share if progress.share is not None else progress.step / max(progress.steps, 1)
        st.progress(share, told(progress))


def _waiting(jobs: Jobs, job: Job, is_first: bool, is_last: bool) -> None:
    with st.container(border=True, key=f"waiting-{job.id}"):
        columns = st.columns([6, 1, 1, 1], vertical_alignment="center")
        with columns[0]:
            _prompt(job)
        buttons: list[tuple[str, str, bool, Callable[..., None], tuple[Any, ...]]] = [
            ("↑", "Earlier", is_first, jobs.move, (job.id, -1)),
            ("↓", "Later", is_last, jobs.move, (job.id, 1)),
            ("✕", "Take it out of the queue", False, forget, (jobs, job)),
        ]
        for column, (sign, told_as, is_off, action, args) in zip(columns[1:], buttons, strict=True):
            column.button(
                sign,
                key=f"{told_as}-{job.id}",
                help=told_as,
                disabled=is_off,
                on_click=action,
                args=args,
                width="stretch",
            )


def _lost(jobs: Jobs, job: Job) -> None:
    left, middle, right = st.columns([6, 2, 1], vertical_alignment="center")
    with left:
        _prompt(job)
        st.text(visible(job.error or job.state))
    middle.button("Queue again", key=f"again-{job.id}", on_click=jobs.queue_again, args=(job.id,), width="stretch")
    right.button("✕", key=f"forget-{job.id}", help="Forget it", on_click=forget, args=(jobs, job), width="stretch")


def forget(jobs: Jobs, job: Job) -> None:
    """Forget a job that has no video, and delete the windows that were made of it."""
    if jobs.remove(job.id):
        shutil.rmtree(parts.folder_of(job.out), ignore_errors=True)


def _prompt(job: Job) -> None:
    picture = job.asked.thumbnail
    if picture and Path(picture).is_file():
        left, right = st.columns([1, 6], vertical_alignment="center")
        left.image(picture, width=48, alt="What is given")
    else:
        right = st.container()
    right.text(text_of(job))
    right.caption(facts_of(job))
