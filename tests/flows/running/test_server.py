"""The Prefect server of `stiv server` and `stiv demo`: whom it answers, what of the caller's environment it takes."""

import asyncio
import base64
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_connection
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Pending, Scheduled
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from flows.running import dead_runs
from flows.running.server import environment, free_port, only_one, refuse_ended, secret
from tests.holding import holding

ROOT = Path(__file__).parents[3]
OTHERS = (
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_API_URL",
    "http_proxy",
)


class Running(NamedTuple):
    """A server that is up."""

    home: Path
    url: str
    env: dict[str, str]
    canary: Path
    said: str


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Running]:
    """`stiv server`, started in an environment in which another one's database, address and proxy are exported."""
    home, canary = tmp_path_factory.mktemp("home") / ".prefect", tmp_path_factory.mktemp("lab") / "lab.db"
    with pytest.MonkeyPatch.context() as patch:
        for name in OTHERS[:2]:
            patch.setenv(name, f"sqlite+aiosqlite:///{canary}")
        patch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        command = [sys.executable, "-m", "flows", "server", "--port", str(port := free_port())]
        patch.setenv("PYTHONPATH", str(ROOT))
        shutil.copy(ROOT / "tests/params.yaml", home.parent / "params.yaml")
        (home.parent / "prefect.toml").write_text(f"""[server.database]
connection_url = "sqlite+aiosqlite:///{canary}"
[server.docket]
url = "redis://127.0.0.1:9/0"
[server.api]
base_path = "/lab"
""")
        process = subprocess.Popen(command, cwd=home.parent, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        said = process.stdout.readline() + process.stdout.readline()
        told = subprocess.check_output(
            ["bash", "-c", "source .prefect/client.env && env -0"], cwd=home.parent, text=True
        )
        env = dict(line.split("=", 1) for line in told.split("\0") if line)
        try:
            yield Running(home, f"http://127.0.0.1:{port}", env, canary, said)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
            assert not (home / "client.env").exists()


def ask(url: str, method: str = "GET", **headers: str) -> int:
    """Return the status of an answer, asked without a proxy."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = b"{}" if method != "GET" else None
    try:
        with build_opener(ProxyHandler({})).open(Request(url, body, named, method=method), timeout=20) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def routes(running: Running) -> list[tuple[str, str]]:
    """Return (method, path) of everything that the server says it answers."""
    with build_opener(ProxyHandler({})).open(f"{running.url}/openapi.json", timeout=20) as answer:
        paths = json.load(answer)["paths"]
    return [
        (method.upper(), "/api" + path.translate(dict.fromkeys(map(ord, "{}"))))
        for path in paths
        for method in paths[path]
    ]


def test_without_the_secret_no_route_of_the_api_answers(running):
    asked = [one for one in routes(running) if one[1] not in ("/api/health", "/api/ready")]  # probes of an orchestrator
    assert len(asked) > 100
    let_in = [one for one in asked if ask(running.url + one[1], one[0]) not in (401, 403)]
    assert let_in == []


def test_a_page_of_another_origin_is_refused_whatever_it_asks(running):
    for method, path in [
        *routes(running),
        ("GET", "/"),
        ("GET", "/ui-settings"),
        ("OPTIONS", "/api/deployments/filter"),
    ]:
        assert ask(running.url + path, method, Origin="http://some.page") == 403, path
        assert ask(running.url + path, method, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403, path


def test_a_name_of_somebody_elses_that_points_here_is_refused(running):
    for method, path in [*routes(running), ("GET", "/"), ("GET", "/docs")]:
        assert ask(running.url + path, method, Host="some.page") == 421, path


SOCKETS = ("events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled", "work_pools/p/workers/connect")


@pytest.mark.parametrize("path", SOCKETS)
def test_no_socket_is_opened_for_another_origin_another_name_or_without_the_secret(running, path):
    place = f"{running.url.replace('http', 'ws')}/api/{path}"
    port = int(running.url.rpartition(":")[2])
    for address, origin in ((place, "http://some.page"), (place.replace("127.0.0.1", "some.page"), None)):
        with pytest.raises(InvalidStatus) as refused:
            connect(
                address, origin=origin, subprotocols=["prefect"], sock=create_connection(("127.0.0.1", port))
            ).close()
        assert refused.value.response.status_code == 403
    for told in (None, json.dumps({"type": "auth", "token": "stiv:guessed"})):
        try:
            with connect(place, subprotocols=["prefect"] if told else None, proxy=None) as opened:
                if told:
                    opened.send(told)
                said = opened.recv(timeout=20)
        except (InvalidStatus, ConnectionClosed):
            continue
        assert "fail" in said  # and nothing else is answered


def test_who_has_the_secret_is_answered_and_a_person_sees_the_page(running):
    key = base64.b64encode(running.env["PREFECT_API_AUTH_STRING"].encode()).decode()
    assert ask(f"{running.url}/api/admin/version", Authorization=f"Basic {key}") == 200
    assert ask(f"{running.url}/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document") == 200
    assert ask(f"{running.url}/", Origin=running.url) == 200


def test_its_address_and_where_the_secret_is_are_printed_and_the_secret_is_not(running):
    assert running.said.startswith(running.url)
    assert ".prefect/auth" in running.said
    assert "source .prefect/client.env" in running.said
    assert running.env["PREFECT_API_AUTH_STRING"] not in running.said


def test_a_shell_that_sources_what_it_wrote_forgets_other_servers(running):
    assert not {*OTHERS[:2]} & running.env.keys()
    assert running.env["PREFECT_API_URL"] == f"{running.url}/api"


def test_only_the_user_can_read_the_secret(running):
    assert running.home.stat().st_mode & 0o077 == 0
    for name in ("auth", "client.env"):
        assert (running.home / name).stat().st_mode & 0o077 == 0
    assert secret(running.home) == running.env["PREFECT_API_AUTH_STRING"]


def test_a_client_reaches_it_and_nothing_of_another_server_is_touched(running):
    code = """import asyncio
from prefect import get_client
async def count():
    async with get_client() as client:
        print(len(await client.read_flows()))
asyncio.run(count())"""
    done = subprocess.run([sys.executable, "-c", code], env=running.env, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "0\n", done.stderr
    assert (running.home / "prefect.db").exists()
    assert not running.canary.exists()


def test_of_a_shared_server_only_our_runs_are_closed_and_of_our_own_all_that_nobody_works_on(running, monkeypatch):
    @flow(name="some-flow")
    def some_flow(): ...

    async def make() -> list[FlowRun]:
        async with get_client() as client:
            later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1))
            return [
                await client.create_flow_run(some_flow, state=state, tags=tags)
                for tags in ([dead_runs.tag(), "night"], ["lab:/home/lab"], [])
                for state in (Pending(), Scheduled(), later, Completed())
            ]

    async def states(runs: list[FlowRun]) -> list[str]:
        async with get_client() as client:
            found = [await client.read_flow_run(run.id) for run in runs]
            return [run.state.name for run in found if run.state]

    secret_url = {
        PREFECT_API_URL: f"{running.url}/api",
        PREFECT_API_AUTH_STRING: running.env["PREFECT_API_AUTH_STRING"],
    }
    monkeypatch.setenv("NO_PROXY", running.env["NO_PROXY"])
    with temporary_settings(secret_url):
        runs = asyncio.run(make())
        untouched = ["Pending", "Scheduled", "Scheduled", "Completed"]
        assert asyncio.run(states(runs)) == 3 * untouched
        assert asyncio.run(dead_runs.close(is_own_server=False)) == 1
        assert asyncio.run(states(runs)) == ["Crashed", *untouched[1:], *untouched, *untouched]
        assert asyncio.run(dead_runs.close(is_own_server=True)) == 5
        assert asyncio.run(states(runs)) == 3 * ["Crashed", "Crashed", "Scheduled", "Completed"]


def test_children_get_no_setting_of_another_prefect(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_HOST", "lab")
    monkeypatch.setenv("PREFECT_PROFILE", "lab")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("NO_PROXY", "lab.example")
    env = environment(tmp_path / "home", 4200)
    assert not {"PREFECT_SERVER_DATABASE_HOST", "PREFECT_PROFILE"} & env.keys()
    assert env["AWS_PROFILE"] == "mine"
    assert env["NO_PROXY"].split(",") == ["lab.example", "127.0.0.1", "localhost"]


def test_a_second_one_in_a_workspace_is_told_who_is_there(tmp_path):
    code = (
        "import sys, pathlib\nfrom flows.running.server import only_one\n"
        "with only_one(pathlib.Path(sys.argv[1]), 1234):\n    print('in', flush=True)\n    sys.stdin.read()"
    )
    with (
        holding(code, str(tmp_path)) as first,
        pytest.raises(ValueError, match=rf"{first.pid}.*127\.0\.0\.1:1234"),
        only_one(tmp_path, 5678),
    ):
        pass
    # one that was killed does not stand in the way
    with only_one(tmp_path, 5678):
        pass


def test_a_child_that_ended_is_told_by_its_last_line(tmp_path):
    log = tmp_path / "serve.log"
    log.write_text("Traceback\n  ...\nSCMError: this is not a git repository\n\n")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    with pytest.raises(OSError, match=r"not a git repository.*serve\.log.*3"):
        refuse_ended(process, log)


CANARY = "caNary7cAnary"
ONE_ATTEMPT = """import sys
from flows.__main__ import main
from tasks.videos import buckets
buckets._ATTEMPTS = 1
main(sys.argv[1:])"""


def test_of_a_flow_that_fails_no_password_is_printed_or_stored_by_the_server(running, tmp_path):
    env = {name: value for name, value in running.env.items() if name != "http_proxy"} | {
        "AWS_ENDPOINT_URL": f"http://user:{CANARY}@127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    options = ["probe", "--source", "s3://raw/x", "--out", f"{tmp_path}/out", "--report", f"{tmp_path}/out.json"]
    words = [sys.executable, "-c", ONE_ATTEMPT, *options]
    done = subprocess.run(words, env=env, capture_output=True, text=True, cwd=ROOT, timeout=120)
    printed = done.stdout + done.stderr
    stored = {path: path.read_bytes() for path in running.home.rglob("*") if path.is_file()}
    assert done.returncode == 1
    assert "http://***@127.0.0.1:9/" in printed, "the place that was asked is said"
    assert CANARY not in printed
    assert any(b"http://***@127.0.0.1:9/" in content for content in stored.values()), "that it failed is stored"
    assert [path.name for path, content in stored.items() if CANARY.encode() in content] == []
