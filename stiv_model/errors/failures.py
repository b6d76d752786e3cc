"""Which failures may pass when the same is tried again, and which will come again: what decides whether it is.

Imports nothing that takes time.
"""

import errno

_PASSING = (ConnectionError, TimeoutError, MemoryError, InterruptedError, BlockingIOError, ChildProcessError)
_COMING_AGAIN = (
    *(ValueError, TypeError, ArithmeticError, LookupError, AttributeError, NameError, AssertionError),
    *(ImportError, NotImplementedError, RecursionError, SyntaxError),
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ENOEXEC)
"""Of an operating system's error: somebody has to do something first."""


class PermanentError(RuntimeError):
    """A failure that will come again, and was noticed in another process; its message is that of the error there."""


class StopRequestedError(RuntimeError):
    """Not a failure: somebody asked for the end."""


class TryLaterError(RuntimeError):
    """What the work needs is away for now; what is done is saved, and the same command goes on there."""


def may_pass(error: BaseException) -> bool:
    """Say whether what failed may go well when it is tried again.

    What is wrong about the request, its files or our code will be so again. A lost connection, a rank that was killed
    or memory that a neighbour took may be otherwise the next time, and so may an error of which this is not known.
    """
    if isinstance(error, PermanentError | StopRequestedError | TryLaterError):
        return False
    if isinstance(error, _PASSING):
        return True
    if isinstance(error, OSError):
        return not isinstance(error, _COMING_AGAIN) and error.errno not in _FULL
    return not isinstance(error, _COMING_AGAIN)


def is_worth_retrying(task: object, task_run: object, state: object) -> bool:
    """Say the same of a failed task of Prefect's, which calls this: its `retry_condition_fn`.

    Args:
        state: of the run that failed, with the error that it ended in.
    """
    error = getattr(state, "data", None)  # nothing here imports Prefect
    return may_pass(error) if isinstance(error, BaseException) else True
