"""A picture at the foot of the terminal, below what a run prints; redrawn by a thread.

The cursor rests in an empty row above the picture: whatever another process prints lands
there.  No cursor is hidden and no mode of the terminal changed, so that there is nothing to
restore if we are killed.  Loaded when a step begins on a terminal, so it imports next to
nothing.  Unaware of what the picture shows.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

#: Seconds for which nothing is shown: short work ends without a picture.
_FIRST = 0.5
#: Seconds between two redraws: at least, and at most.
_EVERY = 0.1
_SELDOM = 1.0
#: A redraw that took so long waits for so many times that: a quarter percent of the run.
_REST = 400


def can_show(stream: Any, environ: Mapping[str, str]) -> bool:
    """Tell whether a stream is a terminal that can show a view, and somebody may look at it."""
    if environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    known = environ.get("TERM", "dumb" if sys.platform != "win32" else "windows")
    if known in ("", "dumb") or (sys.platform == "win32" and "WT_SESSION" not in environ):
        return False
    try:
        return bool(stream.isatty()) and stream.fileno() >= 0
    except (AttributeError, OSError, ValueError):
        return False


class Screen:
    """A terminal with a picture at its foot.

    Args:
        stream: the terminal.
        picture: returns the picture's rows for a width and a height, in the thread.
    """

    def __init__(self, stream: Any, picture: Callable[[int, int], list[str]]):
        self._stream = stream
        self._picture = picture
        self._lock = threading.RLock()  # a signal may find us holding it
        self._printed: list[str] = []  # what is to stand above with the next redraw
        self._rows: list[str] = []  # of the picture, as it stands; empty if it does not
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._quiet_until = 0.0
        if hasattr(os, "register_at_fork"):
            # No thread lives while a worker is forked, so that none can hold a lock there.
            os.register_at_fork(
                before=_weak(self._rest),
                after_in_parent=_weak(self._go_on),
                after_in_child=_weak(self._leave),
            )

    @property
    def visible(self) -> bool:
        """Whether the picture stands on the screen."""
        return bool(self._rows)

    def write(self, text: str) -> None:
        """Print above the picture: at once, or with the next redraw if it is visible."""
        with self._lock:
            if self._rows:
                self._printed.append(text)
            else:
                self._stream.write(text)

    def begin(self) -> None:
        """Show the picture soon, if nobody ends it before."""
        if self._thread is None:
            self._quiet_until = time.monotonic() + _FIRST
            self._go()
            self._watch(signal.SIG_DFL, self._stop)

    def end(self) -> None:
        """Take the picture off the screen; what was printed stays."""
        self._watch(self._stop, signal.SIG_DFL)
        self._rest()
        self._thread = None
        with self._lock:
            if self._rows or self._printed:
                self._put("\r\x1b[J" + "".join(self._printed))
            self._rows, self._printed = [], []

    def _watch(self, before: Any, handler: Any) -> None:
        """Exchange what Ctrl-Z does, if it did what was known to us."""
        stop = getattr(signal, "SIGTSTP", None)
        if stop is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(stop) == before:
            signal.signal(stop, handler)

    def _stop(self, number: int, frame: Any) -> None:
        """Leave the screen to the shell for as long as we are stopped."""
        self.end()
        os.kill(os.getpid(), number)
        self.begin()

    # The thread -------------------------------------------------------------------------

    def _go(self) -> None:
        self._ending.clear()
        self._thread = threading.Thread(target=self._draw_on, name="progress", daemon=True)
        self._thread.start()

    def _rest(self) -> None:
        """End the thread; the picture stands."""
        if self._thread is not None:
            self._ending.set()
            self._thread.join()

    def _go_on(self) -> None:
        if self._thread is not None:
            self._go()

    def _leave(self) -> None:
        """Be nothing in a forked child."""
        self._lock = threading.RLock()
        self._thread, self._rows, self._printed = None, [], []

    def _draw_on(self) -> None:
        pause = max(_EVERY, self._quiet_until - time.monotonic())
        while not self._ending.wait(pause):
            began = time.thread_time()
            try:
                self._draw()
            except OSError:
                return  # the terminal is gone
            pause = min(_SELDOM, max(_EVERY, (time.thread_time() - began) * _REST))

    def _draw(self) -> None:
        if not _in_foreground(self._stream):
            return
        size = os.get_terminal_size(self._stream.fileno())
        # The last column stays free: terminals differ in where the cursor is after it.
        rows = self._picture((size.columns or 80) - 1, size.lines or 24)
        with self._lock:
            if rows == self._rows and not self._printed:
                return
            above = "\r\x1b[J" + "".join(self._printed) if self._printed else "\r"
            self._printed = []
            below = "".join(f"\r\n{row}\x1b[K" for row in rows)
            self._rows = rows
            self._put(f"{above}\x1b[K{below}\x1b[J\x1b[{len(rows)}A\r")

    def _put(self, text: str) -> None:
        """Write at once: a terminal that is sent half a picture shows it."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        left = text.encode(encoding, "backslashreplace")
        self._stream.flush()
        while left:
            left = left[os.write(self._stream.fileno(), left) :]


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """Return what calls a method as long as its object lives: Python keeps it for ever."""
    known = weakref.WeakMethod(method)

    def call() -> None:
        alive = known()
        if alive is not None:
            alive()

    return call


def _in_foreground(stream: Any) -> bool:
    """Tell whether the terminal is ours to draw on, and not a shell's or another program's."""
    if not hasattr(os, "tcgetpgrp"):
        return True
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:
        return True  # not our session's terminal
