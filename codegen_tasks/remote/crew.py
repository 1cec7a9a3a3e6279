"""Threads that do jobs in the background, and keep no process alive.

`concurrent.futures` has a process wait at its end for whatever its threads do, for ever if that
is a read from a network folder that is gone.  Whoever gives jobs here waits as long as it likes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

#: Is to raise nothing.
Job: TypeAlias = Callable[[], None]


class Crew:
    """Up to `size` threads, started as there are jobs for them.

    Args:
        size: how many.
    """

    def __init__(self, size: int):
        self._size = size
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._threads = 0

    def give(self, job: Job) -> None:
        """Have a job done, after those that were given before."""
        self._jobs.put(job)
        if self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name="codegen-transfer", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()
