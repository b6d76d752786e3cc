"""`stiv studio` as a person has it: the command, its page in a browser, its worker, its folder."""

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from flows.__main__ import main
from flows.commands.studio import studio
from flows.commands.studio_folder import Folder
from flows.running import locks
from flows.running.server import free_port
from stiv_model.encoders.video_file import write_video
from tasks.applications import studio_files
from tasks.applications.studio_jobs import PAGE, Asked, Jobs, Videos
from tests.browser import PROGRAM, Browser, Tab, browser
from tests.flows.commands.test_browse import answers

ROOT = Path(__file__).parents[3]
PROMPT = "a red circle moves left"
MANY = 1000
PLAYS = "[...document.querySelectorAll('video')].some((one) => one.readyState > 2 && one.currentTime > 0)"


@pytest.mark.parametrize("port", [65536, 0])
def test_a_number_that_is_no_port_is_refused_at_once(port, tmp_path):
    with pytest.raises(ValueError, match=rf"^--port is {port}: .*\b65535\b"):
        studio(port=port, folder=tmp_path / "studio")
    assert not list(tmp_path.iterdir())


def test_the_second_studio_on_a_folder_is_refused_and_a_broken_one_is_left_alone(tmp_path):
    folder = Folder(tmp_path)
    with locks.hold(folder.lock, "port 1", "{holder}"), pytest.raises(ValueError, match=r"has the studio of .* open: "):
        studio(port=free_port(), folder=tmp_path)
    (tmp_path / "jobs.sqlite").write_text("no database " * 100)
    with pytest.raises(ValueError, match="holds no jobs"):
        studio(port=free_port(), folder=tmp_path)
    assert (tmp_path / "jobs.sqlite").read_text().startswith("no database")


@contextmanager
def served() -> Iterator[tuple[int, str, subprocess.Popen[str]]]:
    """Give port, address and process of a studio of the folder `studio` here."""
    port = free_port()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows", "studio", "--port", str(port)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        address = process.stdout.readline().split()[0]
        assert answers(port) == {401}
        yield port, address, process
    finally:
        process.terminate()
        process.wait(20)


def answers_of_others(port: int) -> list[set[int]]:
    return [answers(port, Host="some.page"), answers(port, Origin="http://some.page")]


class Person:
    """Who looks at a page, and clicks."""

    def __init__(self, shown: Browser, address: str) -> None:
        self.tab: Tab = shown.open(address, 1400, 1200)
        self.sees("document.querySelector('.st-key-make button')")

    def sees(self, expression: str) -> None:
        self.tab.until(expression)

    def click(self, place: str) -> None:
        found = f"document.querySelector('{place}')"
        self.sees(f"{found} && !{found}.disabled")
        self.tab.value(f"{found}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y = self.tab.value(
            f"(() => {{ const at = {found}.getBoundingClientRect(); "
            "return [at.x + at.width / 2, at.y + at.height / 2]; })()"
        )
        self.tab.click(x, y)

    def write(self, place: str, text: str) -> None:
        found = f"document.querySelector('{place}')"
        self.sees(found)
        limit = time.monotonic() + 30
        while self.tab.value(f"{found}?.value") != text:  # a page that is drawn anew may put the old value back
            assert time.monotonic() < limit, (place, text)
            self.tab.value(f"{found}?.focus(), {found}?.select()")
            self.tab._send("Input.insertText", text=text)
            time.sleep(0.3)
        self.tab.value("document.activeElement.blur()")
        time.sleep(1)  # the page is drawn anew with it

    def give(self, place: str, file: Path) -> None:
        top = self.tab._send("DOM.getDocument")["root"]["nodeId"]
        node = self.tab._send("DOM.querySelector", nodeId=top, selector=place)["nodeId"]
        self.tab._send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def mode(self, name: str) -> None:
        self.tab.value(
            "[...document.querySelectorAll('.st-key-mode button')].find((one) => "
            f"one.innerText.trim() == '{name}').click()"
        )


def until(jobs: Jobs, state: str, count: int) -> None:
    limit = time.monotonic() + 300  # a machine may have other work
    while True:
        found = jobs.videos(Videos())[0] if state == "done" else sum(j.state == state for j in jobs.without_video())
        if found >= count:
            return
        assert time.monotonic() < limit, (state, found)
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.skipif(PROGRAM is None, reason="needs a Chromium")
def test_a_person_makes_videos_in_a_browser(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = Folder(Path("studio")).jobs()
    with browser(tmp_path / "chromium") as shown:
        with served() as (port, address, process):
            assert answers_of_others(port) == [{421}, {403}]
            listening = {one.laddr.ip for one in psutil.net_connections() if one.laddr and one.laddr.port == port}
            assert listening == {"127.0.0.1"}
            person = Person(shown, address)
            check_text_and_queue(person, jobs)
            check_cancel_and_picture(person, jobs, tmp_path)
            worker = next(
                one for one in psutil.Process(process.pid).children() if "studio_worker" in " ".join(one.cmdline())
            )
            check_worker_killed(person, jobs, worker)
            assert process.poll() is None
        assert jobs.running() is None
    assert {path.name for path in Path("studio").iterdir()} >= {"given", "jobs.sqlite", "small", "videos"}


@pytest.mark.long
@pytest.mark.skipif(PROGRAM is None, reason="needs a Chromium")
def test_a_gallery_of_many_videos_opens_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill(Folder(Path("studio")))
    with browser(tmp_path / "chromium") as shown, served() as (_, address, _):
        first, *others = [opened(shown, address) for _ in range(6)]
    with capsys.disabled():
        print(f"{MANY} videos opened in {first:.2f} s, then {', '.join(f'{each:.2f}' for each in others)} s", end=" ")
    assert statistics.median(others) < 2 and first < 5, (first, others)


def check_text_and_queue(person: Person, jobs: Jobs) -> None:
    """A prompt becomes a video that plays, after the page is loaded anew too; three jobs wait; settings come back."""
    person.write(".st-key-option-prompt textarea", PROMPT)
    person.write(".st-key-option-seed input", "3")
    person.click(".st-key-make button")
    until(jobs, "done", 1)
    person.sees(PLAYS)
    person.tab._send("Page.reload")
    time.sleep(2)  # a page that goes away answers nothing
    person.sees(PLAYS)
    (first,) = jobs.videos(Videos())[1]
    main(["sample", "--prompt", PROMPT, "--seed", "3", "--out", "same.mp4"])
    assert first.record and first.record["sha256"] == sha256(Path("same.mp4").read_bytes()).hexdigest()
    person.click(".st-key-use button")
    person.sees("document.querySelector('.st-key-option-seed input')?.value == '3'")
    person.write(".st-key-count input", "3")
    person.click(".st-key-make button")
    person.sees("document.querySelectorAll('[class*=st-key-waiting-]').length > 0")
    until(jobs, "done", 4)
    hashes = {job.seed: job.record and job.record["sha256"] for job in jobs.videos(Videos())[1]}
    assert sorted(hashes) == [3, 4, 5] and hashes[3] == first.record["sha256"]


def check_cancel_and_picture(person: Person, jobs: Jobs, folder: Path) -> None:
    """A job that is being made is cancelled; a picture that is given becomes the first frame."""
    person.write(".st-key-count input", "1")
    person.click("[data-testid=stExpander] summary")
    person.write(".st-key-option-num_inference_steps input", "5000")
    person.click(".st-key-make button")
    person.sees("/step \\d+ of 5000/.test(document.querySelector('.st-key-running')?.innerText)")
    began = time.monotonic()
    person.click(".st-key-cancel button")
    until(jobs, "cancelled", 1)
    assert time.monotonic() - began < 20
    picture = folder / "first.png"
    Image.fromarray(np.full((60, 90, 3), (0, 0, 200), np.uint8)).save(picture)
    person.mode("Image")
    person.sees("document.querySelector('.st-key-upload-image input[type=file]')")
    person.give(".st-key-upload-image input[type=file]", picture)
    person.sees("!document.querySelector('.st-key-make button').disabled")
    person.click("[data-testid=stExpander] summary")  # of another mode it is another one, and shut
    time.sleep(1)
    person.write(".st-key-option-num_inference_steps input", "2")
    person.click(".st-key-make button")
    until(jobs, "done", 5)
    latest = jobs.videos(Videos())[1][0]
    kept = f"studio/given/{sha256(picture.read_bytes()).hexdigest()}.png"
    assert latest.asked.options["image"] == kept and Path(kept).read_bytes() == picture.read_bytes()


def check_worker_killed(person: Person, jobs: Jobs, worker: psutil.Process) -> None:
    """What a process was making when it was killed is told, and the next one goes on."""
    person.write(".st-key-option-num_inference_steps input", "5000")
    person.click(".st-key-make button")
    person.sees("/step \\d+ of 5000/.test(document.querySelector('.st-key-running')?.innerText)")
    person.write(".st-key-option-num_inference_steps input", "1")
    person.click(".st-key-make button")
    person.sees("document.querySelectorAll('[class*=st-key-waiting-]').length > 0")
    worker.send_signal(signal.SIGKILL)
    until(jobs, "failed", 1)
    until(jobs, "done", 6)
    said = next(job.error for job in jobs.without_video() if job.state == "failed")
    assert said and re.search(r"exit code -9, killed from outside.*: queue it again", said)


def fill(folder: Folder) -> None:
    """Let a studio have many videos: one video, under many names."""
    jobs = folder.jobs()
    folder.videos.mkdir()
    video, picture = Path("one.mp4"), Path("one.jpg")
    write_video(video, np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3), np.uint8), 8)
    studio_files.strip(video, folder.small / picture)
    options = {"prompt": PROMPT, "pipeline": "pipelines/one"}
    for seed in range(MANY):
        jobs.add(Asked("Text", "sample", options | {"seed": seed}, "pipelines/one", None))
        added = jobs.take()
        assert added
        added.out.hardlink_to(video)
        (folder.small / f"{added.name}.jpg").hardlink_to(folder.small / picture)
        jobs.end(added.id, "done", record={"seed": seed})


def opened(shown: Browser, address: str) -> float:
    """Return the seconds until a page shows its form, its video and all of a page of small pictures."""
    began = time.monotonic()
    person = Person(shown, address)
    loaded = (
        "[...document.querySelectorAll('[class*=st-key-small-] img')].filter((one) => one.complete && one.naturalWidth)"
    )
    person.sees(f"{loaded}.length == {PAGE} && document.querySelector('video')?.readyState > 2")
    return time.monotonic() - began
