"""Take from this process what a decoder does not need: files, programs, other processes, the network.

Landlock (landlock(7)) refuses every file but the one to be read and the libraries; a seccomp filter (seccomp(2))
refuses every system call but those that decoding takes; limits are setrlimit(2). All by ctypes, for x86-64 and
64-bit ARM; what a kernel does not give is an OSError, and what then remains open is the caller's decision.
"""

import ctypes
import os
import platform
import resource
import struct
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LIBC: Any = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
MAX_OPEN_FILES = 64

# Landlock: the system calls have these numbers on every machine; the rights are bits of uapi/linux/landlock.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many there are, by version; as many in all later ones
_TCP_RIGHTS, _SCOPES = 0b11, 0b11  # bind and connect (version 4); abstract sockets and signals (version 6)

_CODE = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
READABLE = tuple(Path(path) for path in sorted({*_CODE, *_LIBRARIES, str(Path(__file__).parents[1])}))


def cut_network() -> None:
    """Move into a network namespace without interfaces; others than root need a user namespace too.

    Raises:
        OSError: the kernel gives neither.
    """
    if _LIBC.unshare(_CLONE_NEWNET):
        _checked("unshare", _LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal_number)


def limit(seconds: float, memory_bytes: int, output_bytes: int) -> None:
    """Set the limits of this process; a hard limit that is lower stays.

    Args:
        seconds: of CPU.
        memory_bytes: resident. The kernel limits address space, of which the libraries take much that is never
            touched: what is not resident now is allowed on top.
        output_bytes: of any file it writes.
    """
    size, resident = (int(pages) * resource.getpagesize() for pages in Path("/proc/self/statm").read_text().split()[:2])
    for kind, value in (
        (resource.RLIMIT_AS, size - resident + memory_bytes),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_FSIZE, output_bytes),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def restrict_files(descriptor: int | None) -> None:
    """Let this process open, from now on, only the libraries and one file, and those only to read.

    Args:
        descriptor: the file, opened with O_PATH: its name may be moved to another file, the right is not.
    Raises:
        OSError: the kernel has no Landlock, or it is switched off.
    """
    version = _checked("Landlock", _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    rights = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    handled = [rights, *([_TCP_RIGHTS] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]
    attributes = struct.pack(f"={len(handled)}Q", *handled)
    ruleset = _checked("Landlock", _LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if descriptor is not None:
        _allow(ruleset, _READ_FILE, descriptor)
    for path in READABLE:
        if path.exists():
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _allow(ruleset, _READ_FILE | _READ_FOLDER if path.is_dir() else _READ_FILE, folder)
            os.close(folder)
    _forbid_new_rights()
    _checked("Landlock", _LIBC.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _allow(ruleset: int, rights: int, descriptor: int) -> None:
    rule = struct.pack("=Qi", rights, descriptor)
    _checked("Landlock", _LIBC.syscall(_ADD_RULE, ruleset, 1, rule, 0))


def _forbid_new_rights() -> None:
    _checked("no_new_privs", _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _checked(what: str, value: int) -> int:
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return value


_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column below, AUDIT_ARCH_ of uapi/linux/audit.h
_CALLS = """
    close 3 57, dup 32 23, dup3 292 24, faccessat 269 48, faccessat2 439 439, fadvise64 221 223, fcntl 72 25,
    fdatasync 75 83, fstat 5 80, fsync 74 82, ftruncate 77 46, getcwd 79 17, getdents64 217 61, lseek 8 62,
    newfstatat 262 79, pread64 17 67, pwrite64 18 68, read 0 63, readlinkat 267 78, readv 19 65, statx 332 291,
    write 1 64, writev 20 66, access 21 -, lstat 6 -, readlink 89 -, stat 4 -,
    brk 12 214, madvise 28 233, mmap 9 222, mprotect 10 226, mremap 25 216, munmap 11 215, futex 202 98,
    get_robust_list 274 100, membarrier 324 283, rseq 334 293, sched_getaffinity 204 123, sched_yield 24 124,
    set_robust_list 273 99, set_tid_address 218 96,
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, restart_syscall 219 128, sigaltstack 131 132,
    clock_getres 229 114, clock_gettime 228 113, clock_nanosleep 230 115, getcpu 309 168, getrandom 318 278,
    gettimeofday 96 169, nanosleep 35 101, time 201 -, times 100 153, poll 7 -, ppoll 271 73, pselect6 270 72,
    select 23 -,
    arch_prctl 158 -, exit 60 93, exit_group 231 94, getegid 108 177, geteuid 107 175, getgid 104 176,
    getpid 39 172, getppid 110 173, getrlimit 97 163, getrusage 98 165, gettid 186 178, getuid 102 174,
    sysinfo 99 179, uname 63 160
"""  # allowed always: name, number on x86-64, number on 64-bit ARM, which lacks the older forms
_WRITING, _THREAD, _ALL = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC, 0x10000, 0xFFFFFFFF
_ASKED = {
    "openat 257 56": (2, _WRITING, (0,)),
    "open 2 -": (1, _WRITING, (0,)),
    "clone 56 220": (0, _THREAD, (_THREAD,)),
    "ioctl 16 29": (1, _ALL, (0x5401, 0x5450, 0x5451)),  # TCGETS, FIONCLEX, FIOCLEX: Python's, when it opens a file
    "prlimit64 302 261": (2, _ALL, (0,)),  # a question, no new limit
    "tgkill 234 131": (0, _ALL, None),
}
"""Calls that are allowed if the argument at this place, masked, is one of these values; None: the process's id."""
# BPF, uapi/linux/bpf_common.h: load a word, AND with a constant, jump if equal, return
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
# "no such call", so that a library falls back as on an older kernel
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 38, 0x80000000


class _Program(ctypes.Structure):
    """struct sock_fprog of uapi/linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def restrict_calls() -> None:
    """Let this process make, from now on, only system calls that decoding takes.

    Files are opened to read only, a new process may only be a thread of this one, signals go to itself. Calls of
    another kind fail with ENOSYS.

    Raises:
        OSError: no filter for this processor, or the kernel takes none.
    """
    if platform.machine() not in _MACHINES:
        raise OSError(f"seccomp: no filter for {platform.machine()}")
    code = b"".join(struct.pack("=HBBI", *step) for step in calls_filter(platform.machine(), os.getpid()))
    _forbid_new_rights()
    program = _Program(len(code) // 8, code)
    _checked("seccomp", _LIBC.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program)))


def calls_filter(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """Return the program for one kind of machine: (operation, steps to skip if equal, if not, constant)."""
    column, architecture = _MACHINES[machine]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for call in _CALLS.split(","):
        if (number := call.split()[1 + column]) != "-":
            steps += [(_EQUAL, 0, 1, int(number)), (_RETURN, 0, 0, _ALLOW)]
    for call, (place, mask, values) in _ASKED.items():
        if (number := call.split()[1 + column]) != "-":
            steps += _if_argument(int(number), place, mask, (pid,) if values is None else values)
    return [*steps, (_RETURN, 0, 0, _REFUSE)]


def _if_argument(number: int, place: int, mask: int, values: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Allow call `number` if its argument at `place`, masked, is one of `values`."""
    low = 16 + 8 * place
    block = [
        (_LOAD, 0, 0, low + 4),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, low),
        (_AND, 0, 0, mask),
    ]
    for value in values:
        block += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    block.append((_RETURN, 0, 0, _REFUSE))
    return [(_EQUAL, 0, len(block), number), *block]
