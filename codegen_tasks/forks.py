"""A fork of this process that does a part of some work beside it, and tells what came of it.

Meant for work that starts nothing and leaves nothing behind: where there can be no fork, or it
does not live to tell, whoever asked does that part as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable


def may_fork() -> bool:
    """Tell whether a fork of this process could work beside it, and would be sound."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return hasattr(os, "fork") and cores > 1 and threading.active_count() == 1


class Fork:
    """Does some work in a fork of this process, on another core, and does nothing else.

    Args:
        work: is called there; returns what it is to tell.
    """

    def __init__(self, work: Callable[[], bytes]):
        self._handle, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            # Nothing of ours may happen here, whatever comes: no handler, no flush, no report.
            try:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                os.close(self._handle)
                found = work()
                with open(write, "wb") as pipe:
                    pipe.write(len(found).to_bytes(8, "big") + found)
            finally:
                os._exit(0)
        os.close(write)

    def result(self) -> bytes | None:
        """Return what the fork told; None if it did not live to tell all of it."""
        try:
            with open(self._handle, "rb") as pipe:
                size, found = int.from_bytes(pipe.read(8), "big"), pipe.read()
        finally:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
        return found if size and len(found) == size else None

    def end(self) -> None:
        """End the fork, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self.result()
