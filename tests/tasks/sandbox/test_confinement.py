"""What a confined process can still do: everything is tried in one, whose answers the tests look at."""

import ctypes
import ctypes.util
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.sandbox import confinement

REFUSED = {
    "read another file": "open(other).read()",
    "read another file by way of the process's root": "open(f'/proc/self/root{other}').read()",
    "list a folder": "os.listdir(folder)",
    "write to its own file": "open(mine, 'ab')",
    "empty its own file": "os.open(mine, os.O_RDONLY | os.O_TRUNC)",
    "make a file": "open(f'{folder}/new', 'wb')",
    "make a nameless file": "os.open(folder, os.O_TMPFILE | os.O_RDWR)",
    "make a folder": "os.mkdir(f'{folder}/new')",
    "remove a file": "os.unlink(other)",
    "rename a file": "os.rename(other, f'{folder}/new')",
    "link to a file": "os.link(other, f'{folder}/new')",
    "change the mode of a file": "os.chmod(mine, 0o777)",
    "change the times of a file": "os.utime(mine)",
    "use the network": "socket.socket()",
    "use a local socket": "socket.socket(socket.AF_UNIX)",
    "start a process": "os.fork() or os._exit(0)",
    "run a program": "os.execv(sys.executable, [sys.executable, '-c', ''])",
    "signal another process": "os.kill(os.getppid(), 0)",
    "trace itself": "checked(libc.ptrace(0, 0, 0, 0))",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "change its root": "os.chroot(folder)",
    "make a namespace": "checked(libc.unshare(0x10000000))",
    "write a kernel setting": "os.open('/proc/self/oom_score_adj', os.O_WRONLY)",
}
ALLOWED = {
    "read its own file": "open(mine).read()",
    "load a library": "__import__('wave')",
    "start a thread": "threading.Thread(target=int).start()",
    "sleep": "time.sleep(0.001)",
    "ask for a limit": "resource.getrlimit(resource.RLIMIT_NOFILE)",
    "take memory": "bytearray(10**8)",
    "write to a file that it had open": "os.write(1, b'')",
}
PROGRAM = """
import ctypes, json, os, resource, socket, sys, threading, time
from tasks.sandbox import confinement

mine, other, folder, attempts = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)

def checked(value):
    if value < 0:
        raise OSError(ctypes.get_errno(), "refused")

def is_refused(attempt):
    try:
        eval(attempt)
    except (OSError, RuntimeError):
        return True
    return False

for restrict in [lambda: confinement.restrict_files(os.open(mine, os.O_PATH)), confinement.restrict_calls]:
    try:
        restrict()
    except OSError as error:
        print(json.dumps(str(error)))
        sys.exit()
print(json.dumps({name: is_refused(attempt) for name, attempt in attempts.items()}))
"""


def run(program: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    asked = [sys.executable, "-c", program, *arguments]
    return subprocess.run(asked, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture(scope="module")
def refused(tmp_path_factory) -> dict[str, bool]:
    folder = tmp_path_factory.mktemp("confined")
    for name in ("mine", "other"):
        (folder / name).write_text(name)
    answers = json.loads(
        run(PROGRAM, str(folder / "mine"), str(folder / "other"), str(folder), json.dumps(REFUSED | ALLOWED))
    )
    if isinstance(answers, str):
        pytest.skip(f"this kernel cannot: {answers}")
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "other"]
    return answers


@pytest.mark.parametrize("attempt", REFUSED)
def test_a_confined_process_cannot(refused, attempt):
    assert refused[attempt]


@pytest.mark.parametrize("attempt", ALLOWED)
def test_a_confined_process_can(refused, attempt):
    assert not refused[attempt]


def test_a_right_is_to_the_file_that_was_looked_at_not_to_its_name(tmp_path):
    """Another file that takes its name in between is refused."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    program = """
import os, sys
from tasks.sandbox import confinement
descriptor = os.open(sys.argv[1], os.O_PATH)
os.rename(sys.argv[2], sys.argv[1])
try:
    confinement.restrict_files(descriptor)
except OSError as error:
    print(f"cannot: {error}")
    sys.exit()
try:
    print(open(sys.argv[1]).read())
except PermissionError:
    print("refused")
"""
    answer = run(program, str(tmp_path / "a"), str(tmp_path / "b")).strip()
    if answer.startswith("cannot"):
        pytest.skip(answer)
    assert answer == "refused"


def test_memory_is_limited_above_what_is_there_already():
    program = """
from tasks.sandbox import confinement
confinement.limit(60, 200 * 2**20, 2**20)
bytearray(100 * 2**20)
try:
    bytearray(200 * 2**20)
except MemoryError:
    print("limited")
"""
    assert run(program).strip() == "limited"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_asks_the_machine_first_and_its_jumps_stay_inside(machine):
    steps = confinement.calls_filter(machine, pid=1)
    load, compare, kill = steps[:3]
    assert load[3] == 4 and compare[3] == {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    assert kill == (0x06, 0, 0, 0x80000000)
    assert steps[-1] == (0x06, 0, 0, 0x50000 | errno.ENOSYS)
    for place, (_, if_equal, otherwise, _) in enumerate(steps[:-1]):
        assert place + 1 + max(if_equal, otherwise) < len(steps)


@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="libseccomp knows the numbers; it is not here")
@pytest.mark.parametrize(("machine", "column"), [(0xC000003E, 1), (0xC00000B7, 2)])
def test_system_calls_have_the_numbers_that_libseccomp_gives_them(machine, column):
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
    for words in (call.split() for call in [*confinement._CALLS.split(","), *confinement._ASKED]):
        number = library.seccomp_syscall_resolve_name_arch(machine, words[0].encode())
        assert words[column] == (str(number) if number >= 0 else "-"), words
