"""The page of `stiv browse`, run by Streamlit itself."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from flows.commands.browse import browse
from flows.running.server import free_port
from tasks.storage import tables
from tests.made_stills import write_stills

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shots with clips, of which one is rejected, and captions."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests/params.yaml", "params.yaml")
    shots = [
        {"clip": f"a{place}", "video": "v", "uri": f"{place}.mp4", "start": 0.0, "end": 2.0, "motion": float(place)}
        for place in range(3)
    ]
    clips = [row | {"status": "ok"} for row in shots]
    clips[2] |= {"status": "rejected", "reason": "motion_above_max"}
    captions = [{"clip": "a0", "text": "a red car", "status": "ok"}]
    for stage, rows, schema in (
        ("shots", shots, tables.SHOTS),
        ("clips", clips, tables.CLIPS),
        ("captions", captions, tables.CAPTIONS),
    ):
        Path("data", stage).mkdir(parents=True)
        tables.write_rows(Path("data", stage, f"{stage}.parquet"), rows, schema)
    write_stills(Path("data/shots"), {})
    return tmp_path


def shown(page: AppTest) -> list[str]:
    return page.dataframe[0].value["clip"].tolist()


def test_the_page_shows_every_shot_and_then_those_that_are_asked_for(workspace, monkeypatch):
    # AppTest leaves its page as __main__, which every process of multiprocessing that a later test starts would run
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    page = AppTest.from_file(str(ROOT / "flows/commands/browse_page.py"), default_timeout=60).run()
    assert not page.exception
    assert shown(page) == ["a0", "a1", "a2"]
    page.multiselect(key="statuses").set_value(["rejected"]).run()
    assert shown(page) == ["a2"]
    page.multiselect(key="statuses").set_value([])
    page.multiselect(key="scores").set_value(["motion"]).run()
    page.slider(key="range-motion").set_range(0.5, 2.0).run()
    assert shown(page) == ["a1", "a2"]
    page.text_input(key="words").set_value("red CAR")
    page.multiselect(key="scores").set_value([]).run()
    assert shown(page) == ["a0"]
    assert not page.exception


def answers(port: int, **headers: str) -> set[int]:
    """Return the statuses of what Streamlit serves: page, script, stream, health, media, upload."""
    seen = set()
    for path in ("", "_stcore/health", "_stcore/host-config", "_stcore/stream", "static/index.js", "media/a.mp4", "x"):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            urlopen(Request(f"http://127.0.0.1:{port}/{path}", headers=named), timeout=20)
            seen.add(200)
        except HTTPError as error:
            seen.add(error.code)
    return seen


def test_the_page_is_served_to_this_machine_only_and_ends_with_its_command(workspace):
    port = free_port()
    command = [sys.executable, "-m", "flows", "browse", "--port", str(port)]
    env = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)}
    env |= {
        "STREAMLIT_SERVER_BASE_URL_PATH": "elsewhere",
        "STREAMLIT_SERVER_ADDRESS": "0.0.0.0",
        "WEB_CONCURRENCY": "4",
    }
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    address = process.stdout.readline().split()[0]
    browser = build_opener(HTTPCookieProcessor())
    try:
        assert b"Streamlit" in browser.open(address, timeout=20).read(), "it answers once it is told"
        listening = {one.laddr.ip for one in psutil.net_connections() if one.laddr and one.laddr.port == port}
        assert listening == {"127.0.0.1"}
        assert answers(port) == {401}
        assert answers(port, Host="some.page") == {421}
        assert answers(port, Origin="http://some.page") == {403}
        assert answers(port, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == {403}
        assert answers(port, Cookie=f"stiv-{port}=guessed") == {401}
    finally:
        process.terminate()
    process.wait(timeout=20)
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


@pytest.mark.parametrize("port", [99999999, 65536, 0, -1])
def test_a_number_that_is_no_port_is_refused_at_once(port):
    with pytest.raises(ValueError, match=rf"^--port is {port}: .*\b65535\b"):
        browse(port)


def test_without_shots_the_command_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data/shots/shots\.parquet .*dvc repro"):
        browse()
