"""What captions, sidecars, file names and prompts bring along runs on no page, and stays in its field.

The quick tests read the pages as a parser does; the long one opens them in Chromium.
"""

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import uvicorn

from flows.running.server import free_port
from flows.running.web_guard import WebGuard
from tasks.captions.stage import Captions
from tasks.comparison.stage import FIGURES, PAGE
from tasks.dsg.audit import Claim
from tasks.pages import compare_page, report
from tasks.pages.audit_page import Audit
from tasks.storage import stage, tables
from tests.browser import PROGRAM, browser
from tests.made_clips import TEXT, by
from tests.made_comparison import Made, clip_of
from tests.made_stills import write_stills
from tests.tasks.pages.test_report import CLIPS, make_inputs

RUN = "window.ran&&ran.push('x')"
HOSTILE = (
    f"a red circle <script>{RUN}</script> moves left",
    f'a red circle "><img src=x onerror="{RUN}"> moves left',
    f"a red circle </bdi></p></article><svg onload={RUN}> moves left",
    f"a red circle [moves](javascript:{RUN}) left {{{{7*7}}}} {{% for x in y %}} ${{7*7}} <%= 7*7 %>",
    "a red circle \x00\x1b[31mmoves\x1b]8;;http://a.b\x07 left",
    "a red circle \u202etfel sevom\u202c moves \u2066left\u200f",
    "a red circle moves left" + "\n" * 10_000 + "23:59:59 forged: all clips are fine",
    "</textarea></script><!-- a red circle moves left",
)
ROOT = Path(__file__).parents[3]
PLAIN = "a blue square moves up"
COUNT = 2 * len(HOSTILE)
URIS = {number: f"{text.replace('/', ' ')[:160]}.mp4" for number, text in enumerate(HOSTILE)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison in which a model, the texts beside the videos, file names and the prompt are hostile."""
    top = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        made = Made(top, COUNT, 0, URIS)
        (top / "prompts/test.txt").write_text("{frames} frames. " + "\n".join(HOSTILE[:4]))
        for number, text in enumerate(HOSTILE):
            made.said[clip_of(number)] = text
            made.rows[number]["caption"] = HOSTILE[-1 - number]
        for number in range(len(HOSTILE), COUNT):
            made.said[clip_of(number)] = PLAIN
        made.write_clips()
        made.messages, log = _Messages(), logging.getLogger()
        before = log.level
        log.setLevel(logging.INFO)
        log.addHandler(made.messages)
        with made.server() as server:
            made.folder = made.compare(server.url, partial(compare_page.write, shots=top / "shots"))
            made.captioners = made.settings(server.url).compared
        log.removeHandler(made.messages)
        log.setLevel(before)
        yield made


class _Messages(logging.Handler):
    def __init__(self):
        super().__init__(logging.INFO)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


class _Parsed(HTMLParser):
    """Names of the elements of a page, and attributes that would run something."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.runs = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.runs += [
            (tag, name, value)
            for name, value in attrs
            if name.startswith("on") or (name in ("href", "src") and not (value or "").startswith("data:"))
        ]


def claims():
    return [
        Claim(clip_of(number), f"Is there a {text}?", (("video", text), (text, text)), "present")
        for number, text in enumerate(HOSTILE)
    ]


def test_every_row_is_its_own_clips_and_has_one_visible_line(made):
    rows = pq.read_table(made.folder / tables.CAPTION_TABLE).to_pylist()[::2]  # by the model
    rows.sort(key=lambda row: row["clip"])
    assert [row["clip"] for row in rows] == [clip_of(number) for number in range(COUNT)]
    assert [row["text"] for row in rows[len(HOSTILE) :]] == [PLAIN] * len(HOSTILE)
    for row, text in zip(rows, HOSTILE, strict=False):
        assert json.loads(row["raw"])["text"] == text  # as it came, beside
        if row["status"] == "ok":
            assert row["text"].isprintable() and "circle" in row["text"] and row["text"] != PLAIN
    assert sum(row["status"] == "ok" for row in rows[: len(HOSTILE)]) > len(HOSTILE) // 2


def test_no_log_line_is_forged(made):
    said = made.messages.said
    assert said and all(message.isprintable() and "forged" not in message for message in said)


def test_the_page_of_a_comparison_has_no_element_of_theirs(made):
    page = (made.folder / PAGE).read_text()
    parsed = _Parsed(page)
    assert not parsed.runs and not {"script", "svg", "textarea", "form", "a"} & set(parsed.elements)
    assert parsed.elements.count("article") == json.loads((made.folder / FIGURES).read_text())["clips"]["compared"]
    assert "{{7*7}}" in page  # as it was said, and not 49
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_the_page_of_an_audit_has_no_element_of_theirs(made):
    for claim in claims():
        answer = Audit([claim], made.top / "shots", made.top / "audits", "ada")._show(None)  # type: ignore[arg-type]
        page = answer.body.decode()
        parsed = _Parsed(page)
        assert parsed.elements.count("script") == 1 and not parsed.runs
        assert not {"svg", "textarea", "a"} & set(parsed.elements) and parsed.elements.count("img") == 4


def write_data_docs(made):
    """Let stage captions make its Data Docs of them, from the answers that are stored."""
    settings, folders = by(*made.captioners, max_failed_fraction=0.9), [made.top / name for name in _FOLDERS]
    declared = Captions(*folders, settings, TEXT, made.top / "answers.sqlite")
    stage.run(declared, made.top / "captions", made.top / "captions.json", "code", earlier=made.top / "earlier")


_FOLDERS = ("clips", "shots", "docs")


_SCORES = {"motion": 0.5, "aesthetic": 4.0, "text_area": 0.1, "clarity": 9.0, "temporal_consistency": 0.9}


def report_of(folder):
    """Return the report of captions and file names that nobody cleaned."""
    folder.mkdir()
    inputs = make_inputs(folder)._replace(shots=folder / "hostile_shots")
    still = next(iter(pq.read_table(next((folder / "shots/stills").glob("*.parquet")))["stills"].to_pylist()))
    rows = [
        {"clip": f"a{n}", "status": "ok", "uri": text, "seconds": 1.0, "height": 64, "width": 64, **_SCORES}
        for n, text in enumerate(HOSTILE)
    ]
    tables.write_rows(inputs.selected / tables.CLIP_TABLE, rows, tables.CLIPS)
    captions = [{"clip": f"a{n}", "status": "ok", "captioner": "video", "text": text} for n, text in enumerate(HOSTILE)]
    tables.write_rows(inputs.captions / tables.CAPTION_TABLE, captions, tables.CAPTIONS)
    write_stills(inputs.shots, {row["clip"]: still for row in rows})
    return report.build(inputs, folder / "times.json", CLIPS)


@contextmanager
def served(app, port):
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.05)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(20)


_PICKED = "document.querySelector('[data-testid=stHeading] h3')?.textContent"


def browse_in(shown, folder):
    """Look at every hostile shot on the page of `stiv browse`."""
    (folder / "params.yaml").write_text((ROOT / "tests/params.yaml").read_text())
    shots = [{"clip": f"a{n}", "video": "v", "uri": text, "start": 0.0, "end": 2.0, "motion": n / 8, "caption": text}
             for n, text in enumerate(HOSTILE)]  # fmt: skip
    captions = [{"clip": f"a{n}", "status": "ok", "text": HOSTILE[-1 - n]} for n in range(len(HOSTILE))]
    made = {"shots": (shots, tables.SHOTS), "captions": (captions, tables.CAPTIONS)}
    made["clips"] = ([row | {"status": "ok"} for row in shots], tables.CLIPS)
    for name, (rows, schema) in made.items():
        (folder / "data" / name).mkdir(parents=True)
        tables.write_rows(folder / "data" / name / f"{name}.parquet", rows, schema)
    write_stills(folder / "data/shots", {})
    port = free_port()
    command = [sys.executable, "-m", "flows", "browse", "--port", str(port)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            tab = shown.open(first_answer(process.stdout.readline().split()[0]))
            box = "document.querySelector('[data-testid=stDataFrame] canvas')"
            tab.until(box)
            seen = set()
            for place in range(len(HOSTILE)):
                x, y = tab.value(f"(() => {{const at = {box}.getBoundingClientRect(); return [at.x, at.y]}})()")
                tab.click(x + 15, y + 35 * (place + 1.5))
                tab.until(f"{_PICKED} && !{sorted(seen)}.includes({_PICKED})")
                seen.add(tab.value(_PICKED))
                tab.until("document.querySelector('[data-testid=stExpander]')")  # the last that is shown of it
                assert "red circle" in tab.value("document.body.innerText") and tab.value("window.ran") == []
            assert len(seen) == len(HOSTILE)
        finally:
            process.terminate()
            process.wait(20)


def first_answer(address):
    """Return the address once the page is served."""
    port = int(address.partition("/?")[0].rpartition(":")[2])
    limit = time.monotonic() + 120
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < limit
            time.sleep(0.2)
    return address


@pytest.mark.long
@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
def test_in_a_browser_nothing_of_theirs_runs_on_any_page(made, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(report_of(tmp_path / "report"))
    write_data_docs(made)
    port = free_port()
    app = WebGuard(Audit(claims(), made.top / "shots", tmp_path / "audits", "ada").app(), port, "secret")
    docs = sorted(path for path in (made.top / "docs").rglob("*.html"))
    with browser(tmp_path / "chromium") as shown, served(app, port):
        for path in (made.folder / PAGE, page, *docs):
            tab = shown.open(path.as_uri())
            assert tab.value("document.body.innerText.length") > 100 and tab.value("window.ran") == [], path
            assert RUN not in tab.value("[...document.scripts].map(one => one.textContent).join()"), path
        tab = shown.open(f"http://127.0.0.1:{port}/?token=secret")
        for key in "ynsyynny"[: len(HOSTILE)]:
            assert tab.value("window.ran") == [] and tab.value("document.querySelectorAll('img').length") == 4
            tab.press(key)
        assert "That was all" in tab.value("document.body.innerText")
        tab.press("u")
        assert "7 of 8 objects" in tab.value("document.body.innerText")
        browse_in(shown, tmp_path)
    own = ("data:", "file:", "blob:", "http://127.0.0.1:")
    fetched = [url for url in shown.requested if not url.startswith(own)]
    assert fetched == []
