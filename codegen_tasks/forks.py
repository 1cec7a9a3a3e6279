"""A fork of this process that does a part of some work beside it, and tells what came of it.

Meant for work that starts nothing and leaves nothing behind: where there can be no fork, or it
does not live to tell, whoever asked does that part as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM)


def is_sound() -> bool:
    """Tell whether a fork of this process would be sound, be it only one that is waited for."""
    # Elsewhere than on Linux, what the system's libraries have begun may not outlive a fork.
    return hasattr(os, "sched_getaffinity") and threading.active_count() == 1


def room() -> int:
    """Return how many forks of this process could work beside it, and would be sound."""
    return len(os.sched_getaffinity(0)) - 1 if is_sound() else 0


def may_fork() -> bool:
    """Tell whether a fork of this process could work beside it, and would be sound."""
    return room() > 0


@contextlib.contextmanager
def undisturbed() -> Iterator[Iterable[int]]:
    """Have an interrupt wait meanwhile; gives the signals that were blocked before."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class Fork:
    """Does some work in a fork of this process, on another core, and does nothing else.

    Args:
        work: is called there; returns what it is to tell.
    """

    def __init__(self, work: Callable[[], bytes]):
        self._work = work
        self._pid = 0  # none yet
        self._handle, self._write = os.pipe()

    def begin(self) -> Fork:
        """Begin; whatever is raised here or later, `end` leaves nothing behind."""
        # An interrupt waits until it is known whom there is to end.
        with undisturbed() as blocked:
            with contextlib.suppress(OSError):  # the system may have no room for one more
                self._pid = os.fork()
                if self._pid == 0:
                    self._go(blocked)
            os.close(self._write)
        return self

    def _go(self, mask: Iterable[int]) -> NoReturn:
        """Work, in the fork.

        Nothing of ours may happen here besides, whatever comes: no handler, no flush, no report.
        """
        try:
            for number in _ENDING:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(self._handle)
            found = self._work()
            with open(self._write, "wb") as pipe:
                pipe.write(len(found).to_bytes(8, "big") + found)
        finally:
            os._exit(0)

    def result(self) -> bytes | None:
        """Return what the fork told; None if it did not live to tell all of it."""
        try:
            with open(self._handle, "rb", closefd=False) as pipe:
                size, found = int.from_bytes(pipe.read(8), "big"), pipe.read()
        except BaseException:
            self.end()
            raise
        self._reap()
        return found if size and len(found) == size else None

    def end(self) -> None:
        """End the fork, whatever it is doing."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        pid, self._pid = self._pid, 0
        if pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        handle, self._handle = self._handle, -1
        with contextlib.suppress(OSError):
            os.close(handle)
