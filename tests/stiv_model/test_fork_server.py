"""Stand-ins and the processes that a real fork server forks for them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from stiv_model.distributed import local_ranks
from stiv_model.fork_server import FOLDER

ROOT = Path(__file__).parents[2]
WORK = """
import os, signal, sys, time
verb, *words = sys.argv[1:]
if verb == "show":
    import json
    set_by = os.environ.get("SET_BY")
    import needed_later
    own = os.environ.get("STIV_OWN")
    print(json.dumps({"words": words, "folder": os.getcwd(), "own": own, "main": __name__, "set_by": set_by,
        "had": needed_later.MADE_IN, "ready": ready.MADE_IN, "in": os.getpid(), "read": sys.stdin.read()}))
    print("to stderr", file=sys.stderr)
elif verb == "start":
    import subprocess
    sys.exit(subprocess.run([sys.executable, "-m", "stiv_model.fork_server", "ask", *words]).returncode)
elif verb == "exit":
    sys.exit(int(words[0]))
elif verb == "say":
    import atexit, threading
    atexit.register(print, "at its end")
    threading.Thread(target=lambda: (time.sleep(0.1), print("a thread"))).start()
    sys.exit(words[0])
elif verb == "raise":
    raise KeyError("raised")
elif verb == "die":
    os.kill(os.getpid(), signal.SIGKILL)
elif verb == "leave":
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
        print(os.getpid(), flush=True)
        while True:
            time.sleep(60)
    os._exit(0)
elif verb == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    try:
        print(os.getpid(), flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with modules: `work`, which is run, `ready`, which the server imports, and one imported later."""
    made = tmp_path_factory.mktemp("forks")
    (made / "work.py").write_text(f"import ready\n{WORK}")
    for name in ("ready", "needed_later"):
        (made / f"{name}.py").write_text(f"import os\nMADE_IN = os.getpid()\nos.environ['SET_BY'] = '{name}'\n")
    return made


@pytest.fixture(scope="module")
def env(folder) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", FOLDER: str(folder)}


@pytest.fixture(scope="module")
def server(folder, env) -> Iterator[subprocess.Popen]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "made"))
        listening.listen()
        words = ["-m", "stiv_model.fork_server", str(listening.fileno()), "ready"]
        pass_fds = [listening.fileno()]
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=env, pass_fds=pass_fds, stderr=subprocess.PIPE, text=True
        )
    yield process
    process.kill()
    process.wait()


def stand_in(folder: Path, env: dict[str, str], *words: str, name: str = "made", **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "stiv_model.fork_server", "ask", name, "work", *words]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen(command, cwd=folder, env=env, text=True, **(pipes | options))


def shown(folder: Path, env: dict[str, str], *words: str, before: Sequence[str] = (), **options) -> dict:
    process = stand_in(folder, env, *before, "show", *words, **options)
    out, err = process.communicate("said to it", timeout=20)
    assert process.returncode == 0, err
    assert err.endswith("to stderr\n")
    return json.loads(out) | {"stand-in": process.pid}


def is_gone(pid: int, within: float = 10) -> bool:
    limit = time.monotonic() + within
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def waiting(folder: Path, env: dict[str, str]) -> tuple[subprocess.Popen, int]:
    process = stand_in(folder, env, "wait")
    return process, int(process.stdout.readline())


def test_the_work_is_done_in_a_process_of_the_server_with_what_the_stand_in_was_given(server, folder, env):
    found = shown(folder, env | {"STIV_OWN": "its own"}, "a word", "")
    assert found["ready"] == server.pid
    assert found["in"] not in (server.pid, found["stand-in"])
    assert (found["words"], found["read"], found["own"]) == (["a word", ""], "said to it", "its own")
    assert (found["folder"], found["main"]) == (str(folder), "__main__")


def test_what_one_process_imports_besides_the_next_one_finds(server, folder, env):
    shown(folder, env)
    limit = time.monotonic() + 10
    while shown(folder, env)["had"] != server.pid:  # the server imports it when nobody asks
        assert time.monotonic() < limit


def test_a_server_that_is_told_imports_before_anybody_asks(folder, env, monkeypatch, tmp_path):
    (folder / "noted.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "early"))
        listening.listen()
        words = ["-m", "stiv_model.fork_server", str(listening.fileno()), "noted"]
        server = subprocess.Popen([sys.executable, *words], cwd=folder, env=env, pass_fds=[listening.fileno()])
    ask = "from stiv_model import fork_server; fork_server.import_ahead('early')"
    other = env | {FOLDER: str(tmp_path), "OTHER": "1"}
    subprocess.run([sys.executable, "-c", ask], cwd=folder, env=other, check=True, timeout=20)
    limit = time.monotonic() + 10
    while not (tmp_path / "imported").exists():
        assert time.monotonic() < limit
        time.sleep(0.01)
    server.kill()
    server.wait()


@pytest.mark.parametrize(("words", "code"), [(["exit", "0"], 0), (["exit", "3"], 3), (["die"], -signal.SIGKILL)])
def test_the_stand_in_ends_as_the_work_ends(server, folder, env, words, code):
    process = stand_in(folder, env, *words)
    process.communicate(timeout=20)
    assert process.returncode == code


def test_what_a_library_sets_when_it_is_imported_keeps_nobody_who_is_started_then_from_the_server(server, folder, env):
    found = shown(folder, env, name="made", before=["start", "made", "work"])
    assert found["ready"] == server.pid
    assert found["set_by"] is not None


@pytest.mark.parametrize("words", [["say", "a last word"], ["raise"]])
def test_what_python_does_at_the_end_of_a_process_is_done(server, folder, env, words):
    alone = subprocess.run([sys.executable, "-m", "work", *words], cwd=folder, env=env, capture_output=True, text=True)
    process = stand_in(folder, env, *words)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.splitlines()[-1]) == (1, alone.stdout, alone.stderr.splitlines()[-1])
    assert alone.returncode == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGUSR1, -10)])
def test_signals_are_passed_on(server, folder, env, number, code):
    process, worker = waiting(folder, env)
    assert psutil.Process(worker).ppid() != process.pid
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert is_gone(worker)


def test_the_work_ends_when_its_stand_in_is_killed(server, folder, env):
    process, worker = waiting(folder, env)
    process.kill()
    process.communicate()
    assert is_gone(worker)


def test_the_work_goes_on_without_the_server_and_the_next_does_it_itself(folder, env, tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "short"))
        listening.listen()
        words = ["-m", "stiv_model.fork_server", str(listening.fileno()), "ready"]
        own = env | {FOLDER: str(tmp_path)}
        server = subprocess.Popen([sys.executable, *words], cwd=folder, env=own, pass_fds=[listening.fileno()])
    process = stand_in(folder, own, "wait", name="short")
    worker = int(process.stdout.readline())
    assert worker != process.pid
    server.kill()
    server.wait()
    found = shown(folder, own, name="short")
    assert found["in"] == found["stand-in"]
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 75


@pytest.mark.parametrize(
    ("other", "options", "said"),
    [({"PREFECT_API_URL": "http://other"}, {}, "PREFECT_API_URL"), ({}, {"cwd": "/"}, "folder")],
)
def test_whoever_is_not_as_the_server_does_the_work_itself(server, folder, env, other, options, said):
    process = stand_in(options.get("cwd", folder), env | other, "show")
    out, _ = process.communicate("", timeout=20)
    found = json.loads(out)
    assert found["in"] == process.pid
    assert said in server.stderr.readline()


@contextlib.contextmanager
def another(folder: Path, place: Path, env: dict[str, str], *modules: str, **options) -> Iterator[subprocess.Popen]:
    """Run a server of its own, whose socket is `place`."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        words = ["-m", "stiv_model.fork_server", str(listening.fileno()), *modules]
        pass_fds = [listening.fileno()]
        process = subprocess.Popen([sys.executable, *words], cwd=folder, env=env, pass_fds=pass_fds, **options)
    yield process
    process.kill()
    process.wait()


def test_of_a_stand_in_that_is_gone_before_its_work_is_taken_nothing_is_left(folder, env, tmp_path):
    asks = """import os, socket, sys
from stiv_model import fork_server
send = socket.socket.sendall
def gone(connection, said):
    send(connection, said)
    os._exit(0)
socket.socket.sendall = gone
fork_server.stand_in("gone", "work", ["show"])
"""
    own = env | {FOLDER: str(tmp_path)}
    with another(folder, tmp_path / "gone", own, "ready") as server:
        done = subprocess.run([sys.executable, "-c", asks], cwd=folder, env=own, capture_output=True, timeout=20)
        assert done.returncode == 0  # whoever reads from its pipes has not waited for ever
        assert shown(folder, own, name="gone")["ready"] == server.pid
        limit = time.monotonic() + 10
        while any(child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process(server.pid).children()):
            assert time.monotonic() < limit


def test_a_forked_process_that_fails_before_its_work_ends_and_is_no_second_server(folder, env, tmp_path):
    (folder / "no_second_fork.py").write_text(
        "import os\nfork, server = os.fork, os.getpid()\n"
        "def limited():\n    if os.getpid() != server:\n        raise BlockingIOError(11, 'no more processes')\n"
        "    return fork()\nos.fork = limited\n"
    )
    own = env | {FOLDER: str(tmp_path)}
    with another(folder, tmp_path / "full", own, "no_second_fork"):
        process = stand_in(folder, own, "show", name="full")
        _, err = process.communicate("", timeout=20)
        assert (process.returncode, err) == (1, "stiv: the process that did the work was killed\n")


def test_what_the_work_has_started_is_waited_for_and_killed_with_a_stand_in_that_was_asked(server, folder, env):
    """As processes.run has it of a command in its own process group: asked twice, nothing goes on."""
    process = stand_in(folder, env, "leave", process_group=0)
    left = int(process.stdout.readline())  # the work ends, and leaves this, which saves for ever
    time.sleep(0.1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    assert process.stdout.readline() == "heard\n"
    assert not is_gone(left, within=0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert is_gone(left)


def test_a_file_that_changes_while_it_is_imported_is_not_run_from_memory(folder, env, tmp_path):
    (folder / "edited.py").write_text("from pathlib import Path\nPath(__file__).write_text('')\n")
    own = env | {FOLDER: str(tmp_path)}
    with another(folder, tmp_path / "edits", own, "edited", stderr=subprocess.PIPE, text=True) as server:
        for _ in range(2):
            found = shown(folder, own, name="edits")
            assert found["in"] == found["stand-in"]
            assert "edited.py has changed" in server.stderr.readline()


def test_a_server_goes_on_when_what_it_is_told_to_import_ends_the_process(folder, env, tmp_path):
    (folder / "ends.py").write_text("import sys\nsys.exit('ended')\n")
    own = env | {FOLDER: str(tmp_path)}
    with another(folder, tmp_path / "ending", own, "ends", stderr=subprocess.PIPE, text=True) as server:
        for _ in range(2):
            found = shown(folder, own, name="ending")
            assert found["in"] == found["stand-in"]
            assert "SystemExit: ended" in server.stderr.readline()


def test_a_rank_is_forked_also_where_another_launcher_has_started_us(folder, env, tmp_path):
    own = env | {FOLDER: str(tmp_path), "SLURM_JOB_ID": "1", "OMPI_COMM_WORLD_RANK": "0", "DS_ACCELERATOR": "cpu"}
    words = ["-m", "stiv_model.distributed.local_ranks", "1", "-m", "work", "show"]
    with another(folder, tmp_path / "ranks", local_ranks.inherited(own), "ready") as server:
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=own, input="", capture_output=True, text=True, timeout=20
        )
        assert json.loads(done.stdout)["ready"] == server.pid, done.stderr


def test_code_that_has_changed_is_not_run_from_memory(server, folder, env):
    assert shown(folder, env)["ready"] == server.pid
    (folder / "ready.py").write_text("import os\nMADE_IN = -os.getpid()\n")
    found = shown(folder, env)
    assert found["ready"] == -found["stand-in"]
    assert "ready.py has changed" in server.stderr.readline()
