"""Make what will be needed while earlier things are used."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Iterator[T], Generic[T]):
    """Makes things in a thread while earlier ones are used; `next` returns them in the order of the schedule.

    An error in the thread is raised by `next` where the thing would come. Reading files and computing with tensors
    need no interpreter lock, so that one thread does what worker processes would, and no tensor changes process.

    Args:
        make: called in the thread with one entry of the schedule after the other.
        schedule: what to make, in order.
        depth: how many are kept ready.
    """

    def __init__(self, make: Callable[..., T], schedule: Iterable, depth: int):
        self.stall_seconds = 0.0
        """What the consumer has waited so far."""
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._free = threading.Semaphore(depth)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, args=(make, schedule), name="read ahead", daemon=True)
        self._thread.start()

    def _run(self, make: Callable[..., T], schedule: Iterable) -> None:
        try:
            for entry in schedule:
                self._free.acquire()
                if self._is_closed:
                    break
                self._ready.put((make(entry), None))
            self._ready.put((None, StopIteration()))
        except BaseException as error:
            self._ready.put((None, error))

    def __next__(self) -> T:
        started = time.perf_counter()
        made, error = self._ready.get()
        self.stall_seconds += time.perf_counter() - started
        if error:
            self._ready.put((None, error))
            raise error
        self._free.release()
        return made

    def __enter__(self) -> "ReadAhead[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread, after what it is making now."""
        self._is_closed = True
        self._free.release()
        self._thread.join()
