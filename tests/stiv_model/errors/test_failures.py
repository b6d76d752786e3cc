"""What is tried again, and what is not: by the error itself, by a process's note of it, and by Prefect."""

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from stiv_model import process_exit
from stiv_model.errors.failures import PermanentError, StopRequestedError, may_pass


@pytest.mark.parametrize(
    "error",
    [
        ValueError("model.depth is 0"),
        FloatingPointError("the loss is nan"),
        FileNotFoundError(errno.ENOENT, "no such file", "x"),
        PermissionError(errno.EACCES, "not permitted", "x"),
        OSError(errno.ENOSPC, "no space left"),
        KeyError("clip"),
        TypeError("2 arguments"),
        AssertionError("a sample is missing"),
        ModuleNotFoundError("no package"),
        PermanentError("model.depth is 0"),
        StopRequestedError("asked to stop"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
)
def test_an_error_of_the_request_is_not_tried_again(error):
    assert not may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "reset by peer"),
        TimeoutError("no answer"),
        OSError(errno.EIO, "input/output error"),
        OSError(errno.EMFILE, "too many open files"),
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        RuntimeError("exit code 1 from python: rank 1 of 2 was ended by signal 9 (SIGKILL)"),
        SafetensorError("of a file that is being replaced"),
    ],
)
def test_what_may_pass_is_tried_again(error):
    assert may_pass(error)


@pytest.mark.parametrize(("error", "passes"), [(FloatingPointError("nan"), False), (ConnectionError("gone"), True)])
def test_a_process_notes_whether_its_error_may_pass(tmp_path: Path, error, passes):
    with pytest.raises(type(error)), process_exit.noting_failure(tmp_path):
        raise error
    assert process_exit.failure(tmp_path) == (str(error), passes)


def test_the_error_that_came_first_decides_not_that_of_a_rank_whose_peer_is_gone(tmp_path: Path, monkeypatch):
    for rank, error in (("1", ValueError("latents are others")), ("0", ConnectionError("closed by peer"))):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(type(error)), process_exit.noting_failure(tmp_path):
            raise error
    assert process_exit.failure(tmp_path) == ("latents are others", False)
