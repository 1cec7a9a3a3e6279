"""The live view of a run: its counts, what is under way and for how long, the time left.

It is drawn below what the run prints, by a thread of its own, so that a step costs it
nothing.  The cursor rests in an empty row above it: whatever another process prints in
between lands there.  It hides no cursor and changes no mode of the terminal, so that there
is nothing to restore if it is killed.  Unaware of doit.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

#: Seconds for which nothing is shown: short work ends without a view.
_FIRST = 0.5
#: Seconds between two redraws, at least.
_EVERY = 0.1
#: A redraw that took so long waits for so many times that: half a percent of the run.
_REST = 200
#: Seconds between two estimates, at least.
_ESTIMATE = 1.0
#: Only runs of so many seconds may load rich, which takes 0.05 s.
_RICH = 10.0
#: Rows for what is under way, at most.
_ROWS = 8
#: Steps that took so many seconds together tell how fast this run is.
_ENOUGH = 0.2

#: Who is at work (a process id, 0 for this process), and the steps under way there.
UnderWay: TypeAlias = Sequence[tuple[int, Sequence[str]]]


class Work(Protocol):
    """What is asked of a runner, from another thread."""

    @property
    def places(self) -> int:
        """How many steps can be under way at once."""

    def under_way(self) -> UnderWay:
        """Return what is being done; those without work have no steps."""

    def recorded(self) -> Iterable[tuple[str, float]]:
        """Return steps, and the seconds that they took the last time."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How a run stands.

    Args:
        done: steps that have ended, however they did.
        total: these, and those that are to run as far as is known.
        failed, hits, misses: as in the summary.
        spent: seconds that the steps of each phase took together, and how many they were.
    """

    done: int
    total: int
    failed: int = 0
    hits: int = 0
    misses: int = 0
    spent: Mapping[str, tuple[float, int]] | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What one picture of the view tells.

    Args:
        counts: these.
        running: for each worker, what it does and for how many seconds; "" for nothing.
        left: seconds, as estimated; None if nobody knows.
    """

    counts: Counts
    running: Sequence[tuple[str, float]]
    left: float | None


def seconds_left(
    todo: Mapping[str, str],
    recorded: Iterable[tuple[str, float]],
    counts: Counts,
    running: Sequence[tuple[Sequence[str], float]],
    elapsed: float,
    places: int,
) -> float | None:
    """Estimate how long a run goes on.

    A step is expected to take as long as the last time; one of which nothing is recorded, as
    long as others of its phase in this run, or else the last time.  How much of that fits
    into a second of this run is seen from the run itself.

    Args:
        todo: the steps that have not ended, with their phases.
        recorded: see `Work`.
        counts: how the run stands.
        running: steps under way together, and for how many seconds.
        elapsed: seconds since the first step began.
        places: how many can be under way at once.

    Returns:
        seconds; None if a phase has steps to do of which nothing is known.
    """
    spent = counts.spent or {}
    known = {name: seconds for name, seconds in recorded if name in todo}
    unknown: dict[str, int] = {}
    sums: dict[str, list[float]] = {}
    for name, phase in todo.items():
        if name in known:
            sums.setdefault(phase, []).append(known[name])
        else:
            unknown[phase] = unknown.get(phase, 0) + 1
    expected, mean = 0.0, {}
    for phase in {*unknown, *sums}:
        seconds, number = spent.get(phase, (0.0, 0))
        of_phase = sums.get(phase, [])
        if number:
            mean[phase] = seconds / number
        elif of_phase:
            mean[phase] = sum(of_phase) / len(of_phase)
        elif unknown.get(phase):
            return None
        expected += sum(of_phase) + unknown.get(phase, 0) * mean.get(phase, 0.0)
    rests = []
    for names, since in running:
        whole = sum(known.get(n, mean.get(todo.get(n, ""), 0.0)) for n in names)
        expected -= min(since, whole)
        rests.append(max(0.0, whole - since))
    taken = sum(seconds for seconds, _ in spent.values()) + sum(since for _, since in running)
    pace = elapsed / taken if taken >= _ENOUGH else 1 / max(1, places)
    return max([expected * pace, *rests])


def duration(seconds: float) -> str:
    """Return a time as people tell it, no finer than it can be known."""
    if seconds < 20:
        return f"{max(1, round(seconds))} s"
    if seconds < 90:
        return f"{round(seconds / 5) * 5} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def in_words(counts: Counts, left: float | None) -> str:
    """Return how a run stands, as part of a line."""
    parts = [f"{counts.done} of {counts.total} done"]
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    if left is not None and counts.done < counts.total:
        parts.append(f"about {duration(left)} left")
    return ", ".join(parts)


def templates(hits: int, misses: int) -> str:
    """Return how often compiled templates were found in the cache, and how often not."""
    counts = ((hits, "hit", "hits"), (misses, "miss", "misses"))
    return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts if n)


def plain(shown: Shown, width: int, height: int) -> list[str]:
    """Return the view's one row, as it is without rich."""
    counts = shown.counts
    hits = f", {templates(counts.hits, 0)}" if counts.hits else ""
    line = in_words(counts, shown.left) + hits
    longest = sorted((one for one in shown.running if one[0]), key=lambda one: -one[1])
    running = ", ".join(f"{what} {duration(s)}" if s >= 1 else what for what, s in longest)
    return [fitted(f"{line}: {running}" if running else line, width)]


def printable(text: str) -> str:
    """Return a text without what would move the cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def fitted(text: str, width: int) -> str:
    """Return a text cut to so many columns of a terminal."""
    text = printable(text)
    if columns(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += columns(character)
        if used > width - 3:
            break
        kept.append(character)
    return "".join(kept) + "..."[: max(0, width)]


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(
        0 if combining(c) or c == "\u200d" else 1 + (east_asian_width(c) in "WF") for c in text
    )


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


class View:
    """The live view on a terminal.

    Args:
        stream: the terminal.
        counts: returns how the run stands.
        todo: returns the steps that have not ended, with their phases.
        work: the runner, if it is one of ours.
        environ: says whether colours are welcome.
    """

    def __init__(
        self,
        stream: Any,
        counts: Callable[[], Counts],
        todo: Callable[[], Mapping[str, str]],
        work: Work | None,
        environ: Mapping[str, str],
    ):
        self._stream = stream
        self._counts = counts
        self._todo = todo
        self.work = work
        self._environ = environ
        self._lock = threading.Lock()
        self._printed: list[str] = []  # what is to stand above with the next redraw
        self._picture: list[str] = []  # as it stands on the screen; empty if it does not
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._began = time.monotonic()
        self._quiet_until = 0.0
        self._since: dict[int, tuple[str, float]] = {}  # by worker: a step, first seen when
        self._left: float | None = None
        self._estimated = 0.0  # when the next estimate is due
        self._rows: Callable[[Shown, int, int], list[str]] = plain
        self._plain_for_good = False
        if hasattr(os, "register_at_fork"):
            # No thread lives while a worker is forked, so that none can hold a lock there.
            os.register_at_fork(
                before=self._rest, after_in_parent=self._go_on, after_in_child=self._leave
            )

    @property
    def visible(self) -> bool:
        """Whether it stands on the screen."""
        return bool(self._picture)

    def write(self, text: str) -> None:
        """Print above the view: at once, or with the next redraw if it is visible."""
        with self._lock:
            if self._picture:
                self._printed.append(text)
            else:
                self._stream.write(text)

    def begin(self) -> None:
        """Show it soon, if nobody ends it before."""
        if self._thread is None:
            self._quiet_until = time.monotonic() + _FIRST
            self._go()

    def end(self) -> None:
        """Take it off the screen; what was printed stays."""
        self._rest()
        self._thread = None
        with self._lock:
            if self._picture or self._printed:
                self._put("\r\x1b[J" + "".join(self._printed))
            self._picture, self._printed = [], []

    # The thread -------------------------------------------------------------------------

    def _go(self) -> None:
        self._ending.clear()
        self._thread = threading.Thread(target=self._draw_on, name="progress", daemon=True)
        self._thread.start()

    def _rest(self) -> None:
        """End the thread, not the view."""
        if self._thread is not None:
            self._ending.set()
            self._thread.join(1)

    def _go_on(self) -> None:
        if self._thread is not None:
            self._go()

    def _leave(self) -> None:
        """Be nothing in a forked child."""
        self._lock = threading.Lock()
        self._thread, self._picture, self._printed = None, [], []

    def _draw_on(self) -> None:
        pause = max(_EVERY, self._quiet_until - time.monotonic())
        while not self._ending.wait(pause):
            began = time.thread_time()
            try:
                self._draw()
            except OSError:
                return  # the terminal is gone
            pause = max(_EVERY, (time.thread_time() - began) * _REST)

    def _draw(self) -> None:
        if not _in_foreground(self._stream):
            return
        size = os.get_terminal_size(self._stream.fileno())
        rows = self._picture_of(self._shown(), size.columns - 1, size.lines)
        with self._lock:
            if rows == self._picture and not self._printed:
                return
            text = "".join(self._printed)
            self._printed = []
            above = "\r\x1b[J" + text if text else "\r"
            below = "".join(f"\r\n{row}\x1b[K" for row in rows)
            if not self._picture:
                self._stream.flush()
            self._picture = rows
            self._put(f"{above}\x1b[K{below}\x1b[J\x1b[{len(rows)}A\r")

    def _put(self, text: str) -> None:
        """Write at once: a terminal that is sent half a picture shows it."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        left = text.encode(encoding, "backslashreplace")
        self._stream.flush()
        while left:
            left = left[os.write(self._stream.fileno(), left) :]

    # What it shows ----------------------------------------------------------------------

    def _shown(self) -> Shown:
        now = time.monotonic()
        running = self._running(now)
        counts = self._counts()
        if now >= self._estimated:
            began = time.thread_time()
            self._left = self._estimate(counts, running, now - self._began)
            took = time.thread_time() - began
            self._estimated = now + max(_ESTIMATE, took * _REST)
        told = [(_told(names), since) for names, since in running]
        return Shown(counts, told, self._left)

    def _running(self, now: float) -> list[tuple[Sequence[str], float]]:
        under_way = self.work.under_way() if self.work is not None else ()
        found, since = [], {}
        for who, names in under_way:
            first = names[0] if names else ""
            before = self._since.get(who)
            since[who] = before if before is not None and before[0] == first else (first, now)
            found.append((names, now - since[who][1]))
        self._since = since
        return found

    def _estimate(
        self, counts: Counts, running: Sequence[tuple[Sequence[str], float]], elapsed: float
    ) -> float | None:
        todo, work = self._todo(), self.work
        recorded = work.recorded() if work is not None else ()
        busy = [one for one in running if one[0]]
        places = work.places if work is not None else 1
        return seconds_left(todo, recorded, counts, busy, elapsed, places)

    def _picture_of(self, shown: Shown, width: int, height: int) -> list[str]:
        if self._rows is plain and not self._plain_for_good:
            elapsed = time.monotonic() - self._began
            if elapsed + (shown.left or 0.0) >= _RICH:
                self._load_rich()
        return self._rows(shown, width, height)

    def _load_rich(self) -> None:
        try:
            from .table import Table
        except ImportError:
            self._plain_for_good = True
        else:
            self._rows = Table(self._stream, self._environ).rows


def _told(names: Sequence[str]) -> str:
    if not names:
        return ""
    first = printable(names[0])
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def _in_foreground(stream: Any) -> bool:
    """Tell whether the terminal is ours to draw on, and not a shell's or another program's."""
    if not hasattr(os, "tcgetpgrp"):
        return True
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:
        return True  # not our session's terminal


def fit_rows(running: Sequence[tuple[str, float]], height: int) -> Collection[tuple[str, float]]:
    """Return what there is room for of what is under way, and a row for the rest."""
    room = max(1, min(_ROWS, height - 5))
    if len(running) <= room:
        return running
    busy = sorted((one for one in running if one[0]), key=lambda one: -one[1])
    kept = busy[: room - 1]
    return [*kept, (f"and {len(busy) - len(kept)} more", 0.0)] if len(busy) > len(kept) else kept
