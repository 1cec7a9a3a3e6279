"""Sending in the background: what waits to be sent is bounded, and so is the wait for it.

Unaware of what is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from .crew import Crew

#: Sendings under way at once.
AT_ONCE = 8
#: Bytes that may wait to be sent; what comes on top of them is not sent.
ROOM = 64_000_000


class Uploads:
    """What one process has yet to send."""

    def __init__(self) -> None:
        self._crew = Crew(AT_ONCE)
        self._changed = threading.Condition()
        self._waiting = 0  # jobs
        self._bytes = 0
        self._dropped = False

    def add(self, job: Callable[[], None], size: int) -> None:
        """Have something sent, unless too much waits already.

        Args:
            job: sends it; is to raise nothing.
            size: bytes that it holds until then.
        """
        with self._changed:
            if self._dropped or (self._waiting and self._bytes + size > ROOM):
                return
            self._waiting += 1
            self._bytes += size
        self._crew.give(partial(self._do, job, size))

    def _do(self, job: Callable[[], None], size: int) -> None:
        try:
            if not self._dropped:
                job()
        finally:
            with self._changed:
                self._waiting -= 1
                self._bytes -= size
                self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until all is sent, or for so many seconds; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, seconds)

    def flush(self, seconds: float) -> None:
        """Wait until all is sent, or for so many seconds; what is not sent by then is dropped."""
        self.wait(seconds)
        self._dropped = True
