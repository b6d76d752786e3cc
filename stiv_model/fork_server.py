"""Processes that start in a moment: forked from one that has imported what they need.

    python -m stiv_model.fork_server DESCRIPTOR MODULE...      a server, which imports the modules when first asked
    python -m stiv_model.fork_server ask SERVER MODULE WORDS   does what `python -m MODULE WORDS` does, by a server

Whoever starts the second has a process like any other, a stand-in: it hands over its words, folder, environment and
standard streams, passes on the signals that it gets, and ends as the forked process ends, which ends when its stand-in
is killed, and not with the server. Where no server is named, or none that suits, it does the work itself.

A server refuses whoever is not as itself: in another folder, with another environment (but for what is read when it is
used), or when a file has changed of what it has imported. It has one thread: a lock that another thread holds at the
moment of a fork is held in the new process for ever. It touches no GPU: a process that was forked after that can use
none. Imports nothing that takes time.
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from stiv_model.process_exit import die_with_parent

FOLDER = "STIV_FORK_SERVERS"
"""The variable with the folder of the servers' sockets; each has the name of its server."""

_ASK = "ask"
_OWN = {"PATH", "SHELL", "PWD", "OLDPWD", "SHLVL", "_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
_OWN |= {"MASTER_ADDR", "MASTER_PORT", "LINES", "COLUMNS"}
_OWN_PREFIXES = ("DVC_", "STIV_")
"""Variables in which processes may differ that a server forks: no library reads one of them when it is imported."""
_CHANGED = "STIV_CHANGED_BY_IMPORTS"
"""The variable with the names of those that a library has set, when it was imported, in the process that starts one."""
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_TAKEN = b"y"
_LENGTH_BYTES = _STATUS_BYTES = 4
_SECONDS = 10.0
"""That a stand-in gets to say what it wants."""
_TOLD_BYTES = 2**20
_SINGLE = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""What keeps libraries from starting threads when they are imported; pyarrow's allocator would."""
_AT_START = dict(os.environ)
_STARTED = time.time_ns()
_TICK = 10_000_000
"""Nanoseconds by which the clock of files may be behind."""
_UNSURE = (-1, -1, -1)
"""Of a file that may have changed between its import and the look at it."""


class Request(NamedTuple):
    """What a stand-in hands over."""

    module: str
    words: list[str]
    python: str
    folder: str
    environment: dict[str, str]
    ignored: list[int]
    """Signals that it ignores."""


def command(server: str, module: str, *words: str) -> list[str]:
    """Return the command that does what `python -m MODULE WORDS` does, by a server where servers are named."""
    asked = ["stiv_model.fork_server", _ASK, server] if FOLDER in os.environ else []
    return [sys.executable, "-m", *asked, module, *words]


# ---- the stand-in


def stand_in(server: str, module: str, words: Sequence[str]) -> None:
    """Let a process of a server do the work of this one, and end as that ends.

    Returns:
        where there is no such server, or it refuses: this process is to do the work itself.
    """
    if (folder := os.environ.get(FOLDER)) is None:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # what comes meanwhile is passed on as well
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            if _is_taken(connection, Path(folder) / server, module, words):
                _end_as(_status(connection, before))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_taken(connection: socket.socket, path: Path, module: str, words: Sequence[str]) -> bool:
    """Hand the work over to a server, and say whether it takes it; without a module there is none to take."""
    ignored = [int(number) for number in _PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    request = Request(module, list(words), sys.executable, os.getcwd(), dict(os.environ), ignored)  # noqa: PTH109
    said = json.dumps(request).encode()
    try:
        connection.connect(str(path))
        socket.send_fds(connection, [len(said).to_bytes(_LENGTH_BYTES)], [0, 1, 2])
        connection.sendall(said)
        return bool(module) and connection.recv(1) == _TAKEN
    except OSError:
        return False


def import_ahead(server: str) -> None:
    """Let a server, where there is one, import what it is for before somebody asks."""
    if folder := os.environ.get(FOLDER):
        with socket.socket(socket.AF_UNIX) as connection:
            _is_taken(connection, Path(folder) / server, "", [])


def _status(connection: socket.socket, unblocked: set[int]) -> int | None:
    """Pass on each signal, and return the status with which the forked process ended; None where nobody knows."""

    def pass_on(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):
            connection.send(bytes([number]))

    for number in _PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    said = b""
    with contextlib.suppress(OSError):
        while len(said) < _STATUS_BYTES and (more := connection.recv(_STATUS_BYTES - len(said))):
            said += more
    return int.from_bytes(said) if len(said) == _STATUS_BYTES else None


def _end_as(status: int | None) -> NoReturn:
    if status is None:
        print("stiv: the process that did the work was killed", file=sys.stderr, flush=True)
        os._exit(1)
    _end_with(os.waitstatus_to_exitcode(status))


def _end_with(code: int) -> NoReturn:
    """End with an exit code, or with the signal of which it is the negative number."""
    if code < 0:
        with contextlib.suppress(OSError, ValueError):  # of SIGKILL there is no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


# ---- the server


def serve(
    descriptor: int, prepare: Callable[[Request], None], ahead: Callable[[Request], Sequence[str]] = lambda request: ()
) -> Request:
    """Fork a process for each stand-in that asks, for ever; return in each of those, with its request.

    What such a process has imported besides, the next one finds: the server imports it while nobody asks.

    Args:
        descriptor: of the socket on which it is asked, in a folder that nobody else can enter.
        prepare: imports what the process of a request will need.
        ahead: names the modules to import next, while nobody asks.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who wait
    os.environ |= _SINGLE
    imported, later = _Imported(), list[str]()
    told, tell = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with socket.socket(fileno=descriptor) as listening, told, tell:
        server = Path(listening.getsockname()).name
        poll = select.poll()
        for place in (listening, told):
            poll.register(place, select.POLLIN)
        while True:
            places = [place for place, _ in poll.poll(0 if later else None)]
            if listening.fileno() not in places:
                imported.add(_names_of(lambda: json.loads(told.recv(_TOLD_BYTES))) if places else [later.pop(0)])
                continue
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError, ValueError):
                request, streams = _receive(connection)
                with contextlib.ExitStack() as closing:
                    for stream in streams:
                        closing.callback(os.close, stream)
                    refusal = (_refusal(request) if request.module else None) or imported.refusal(request, prepare)
                    if refusal:
                        said = f"{request.module or 'what comes'} starts by itself, in more time: {refusal}"
                        print(f"fork server {server}: {said}", file=sys.stderr, flush=True)
                        continue
                    if request.module and os.fork() == 0:
                        with _ending_if_it_fails():
                            closing.pop_all()
                            listening.close()
                            _keep(connection, streams)  # returns in the process that does the work
                            _become(request, streams, tell.dup())
                            return request
                later = _names_of(lambda: ahead(request))  # noqa: B023  # it is called at once
            _reap()


def _names_of(named: Callable[[], Sequence[str]]) -> list[str]:
    """Return the names of modules to import; none where they cannot be told, which is no reason for a server to end."""
    try:
        return list(named())
    except Exception:
        return []


def _receive(connection: socket.socket) -> tuple[Request, list[int]]:
    """Return what a stand-in wants, and its standard streams.

    Raises:
        OSError, ValueError: it did not say.
    """
    connection.settimeout(_SECONDS)
    length, streams, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, 3)
    with connection.makefile("rb") as file:
        said = json.loads(file.read(int.from_bytes(length)))
    connection.settimeout(None)
    return Request(*said), streams


def _refusal(request: Request) -> str | None:
    """Say in what a stand-in is not as this server is; None where it is."""
    if request.python != sys.executable or request.folder != os.getcwd():  # noqa: PTH109
        return "it is of another environment or folder"
    other, changed = request.environment, request.environment.get(_CHANGED, "").split()
    differ = {name for name in _AT_START.keys() | other.keys() if _AT_START.get(name) != other.get(name)}
    names = sorted(name for name in differ if name not in changed and not _is_own(name))
    return f"its environment differs in {', '.join(names)}" if names else None


def _is_own(name: str) -> bool:
    return name in _OWN or name.startswith(_OWN_PREFIXES)


class _Imported:
    """The modules of this process, with what their files were when they were imported."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, int, int] | None] = {}
        self._note(_STARTED)

    def refusal(self, request: Request, prepare: Callable[[Request], None]) -> str | None:
        """Import what a request needs, and say why a process that is forked then would not be as a new one."""
        if changed := [file for file, was in self.files.items() if _stamp(file) != was]:
            return f"{changed[0]} has changed"
        since = time.time_ns()
        try:
            prepare(request)
        except (Exception, SystemExit) as error:  # whatever an import may raise: the process itself will say it
            return f"{type(error).__name__}: {error}"
        finally:
            self._note(since)
        if changed := [file for file, was in self.files.items() if was == _UNSURE]:
            return f"{changed[0]} has changed"
        _end_idle_threads()
        if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
            return f"what it imports has started {threads - 1} threads"
        return None

    def add(self, names: list[str]) -> None:
        """Import what a process has imported; what cannot be imported here is for the next one."""
        since = time.time_ns()
        for name in names:
            with contextlib.suppress(Exception, SystemExit):
                importlib.import_module(name)
        self._note(since)

    def _note(self, since: int) -> None:
        """Note the files of modules that were imported since a moment, in ns of the epoch."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if file is not None and file not in self.files:
                self.files[file] = _stamp(file, since)


def _stamp(file: str, since: int | None = None) -> tuple[int, int, int] | None:
    """Return what changes with a file; one that has changed since, while it was imported, is as no file ever is."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    if since is not None and max(found.st_mtime_ns, found.st_ctime_ns) >= since - _TICK:
        return _UNSURE
    return found.st_mtime_ns, found.st_size, found.st_ino


def _end_idle_threads() -> None:
    """Let OpenBLAS end its threads, which it does before a fork and which come back when there is work for them."""
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


@contextlib.contextmanager
def _ending_if_it_fails() -> Iterator[None]:
    """Let no error of a forked process come to the code of the server, which it would then go on with."""
    try:
        yield
    except BaseException:  # whatever it is: whoever waits hears that nobody took the work, or that it was killed
        os._exit(1)


def _keep(connection: socket.socket, streams: Sequence[int]) -> None:
    """Fork the process that does the work, and see to it until it ends; return in that process.

    It is in a process group of its own, with this one: each signal comes once, from its stand-in.
    """
    os.setpgid(0, 0)
    connection.sendall(_TAKEN)
    keeper = os.getpid()
    worker = os.fork()
    if worker == 0:
        die_with_parent(parent=keeper)
        connection.close()
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for own in (0, 1, 2):
        os.dup2(nothing, own)
    for stream in streams:  # else whoever reads from a pipe would wait for this process
        os.close(stream)
    _attend(connection, worker)


def _attend(connection: socket.socket, worker: int) -> NoReturn:
    """Pass on the signals of a stand-in, and report how the work ended when nothing is left that it has started.

    What it has started is what else is in this process group. A process group that is killed takes with it what its
    members have started; of one whose leader is a stand-in these are not members. So they are killed here when the
    stand-in was killed after it was asked to stop, and until they have ended there is a stand-in to kill. Where it was
    killed without a word, what the work has started hears of its end as if nobody had stood in.
    """
    status, asked, running = None, False, [os.pidfd_open(worker)]
    while running:
        said = _heard(connection, running)
        if said is None:
            status = os.waitpid(worker, 0)[1] if status is None else status
            for descriptor in running:
                os.close(descriptor)
            running = _others_of_group()
        elif said:
            asked = True
            for descriptor in running:
                for number in said:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(descriptor, number)
        elif asked:
            os.killpg(0, signal.SIGKILL)
        else:
            if status is None:
                os.kill(worker, signal.SIGKILL)
                os.waitpid(worker, 0)
            os._exit(0)
    with contextlib.suppress(OSError):
        connection.sendall((status or 0).to_bytes(_STATUS_BYTES))
    os._exit(0)


def _heard(connection: socket.socket, running: Sequence[int]) -> bytes | None:
    """Wait; return the signals that a stand-in passes on, none where it is gone; None when a process has ended."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    for place in running:
        poll.register(place, select.POLLIN)
    places = {place for place, _ in poll.poll()}
    return None if not places.isdisjoint(running) else _signals(connection)


def _others_of_group() -> list[int]:
    """Return descriptors of the processes in the group of this one that run."""
    found, own = [], os.getpid()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ends meanwhile
            if entry.name.isdecimal() and int(entry.name) != own:
                state, _, group = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
                if int(group) == own and state not in "ZX":  # a zombie waits for its parent, which may never look
                    found.append(os.pidfd_open(int(entry.name)))
    return found


def _signals(connection: socket.socket) -> bytes:
    try:
        return connection.recv(64)
    except OSError:
        return b""


def _become(request: Request, streams: Sequence[int], tell: socket.socket) -> None:
    """Make of this process what its stand-in is; at its end it tells the server what it has imported besides."""
    for number in _PASSED_ON:
        signal.signal(number, signal.SIG_IGN if number in request.ignored else signal.SIG_DFL)
    if signal.SIGINT not in request.ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    changed = {
        name: value for name, value in os.environ.items() if _AT_START.get(name) != value and name not in _SINGLE
    }
    os.environ.clear()
    os.environ.update({**request.environment, **changed})
    os.environ[_CHANGED] = " ".join(sorted({*changed, *request.environment.get(_CHANGED, "").split()}))
    for own, stream in enumerate(streams):
        os.dup2(stream, own)
        os.close(stream)
    for text in (sys.stdout, sys.stderr):
        by_line = text is sys.stderr or text.isatty() or bool(request.environment.get("PYTHONUNBUFFERED"))
        text.reconfigure(line_buffering=by_line)  # type: ignore[union-attr]  # as Python has opened them
    if random := sys.modules.get("numpy.random"):
        random.seed()  # else each process would draw the same; Python's own does it itself
    sys.argv = [sys.argv[0], *request.words]
    atexit.register(_tell, tell, set(sys.modules))


def _tell(tell: socket.socket, before: set[str]) -> None:
    """Tell the server the names of modules that were imported since, in their order."""
    found = [(name, getattr(module, "__spec__", None)) for name, module in list(sys.modules.items())]
    names = [name for name, spec in found if name not in before and spec is not None and spec.name == name]
    with contextlib.suppress(OSError):  # it is gone, or has enough to read
        tell.send(json.dumps(names).encode(), socket.MSG_DONTWAIT)


def finish(work: Callable[[], object]) -> NoReturn:
    """Do the work of a forked process and end it as Python does, except that what is imported is not taken apart.

    That would take as long as it is much, and libraries that are taken apart in another order than they know complain.
    """
    try:
        work()
        code = 0
    except SystemExit as error:
        code = _code(error)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads; these two are what multiprocessing calls
    atexit._run_exitfuncs()
    for text in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            text.flush()
    _end_with(code)


def _code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def main() -> None:
    """Serve, or stand in for a process of a server."""
    if sys.argv[1] == _ASK:
        server, module, *words = sys.argv[2:]
        stand_in(server, module, words)
        os.execv(sys.executable, [sys.executable, "-m", module, *words])
    descriptor, *modules = sys.argv[1:]

    def prepare(request: Request) -> None:
        for name in modules:
            importlib.import_module(name)

    request = serve(int(descriptor), prepare)
    if not hasattr(sys.modules.get(request.module), "__path__"):
        sys.modules.pop(request.module, None)  # it is run anew, by another name
    finish(partial(runpy.run_module, request.module, run_name="__main__", alter_sys=True))


if __name__ == "__main__":
    main()
