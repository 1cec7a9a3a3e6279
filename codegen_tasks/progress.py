"""What the live view of a run tells: counts, what is under way and for how long, the time left.

Loaded when a view is shown, or counts are told; see `screen`.  Unaware of doit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, TypeAlias

#: An estimate that took so long waits for so many times that: a quarter percent of the run.
_REST = 400
#: Seconds between two estimates, at least.
_ESTIMATE = 1.0
#: Only runs of so many seconds, as estimated after so many, load rich, which takes 0.05 s.
_RICH, _SURE = 15.0, 5.0
#: Rows for what is under way, at most.
_ROWS = 8
#: Steps that took so many seconds together tell how fast this run is.
_ENOUGH = 0.2

#: Who is at work (a process id, 0 for this process, or the name of a worker elsewhere), and the
#: steps under way there.
UnderWay: TypeAlias = Sequence[tuple[int | str, Sequence[str]]]


class Work(Protocol):
    """What is asked of a runner, from another thread but for `recorded_of`."""

    def recorded_of(self, names: Iterable[str]) -> Mapping[str, float]:
        """Return what `recorded` will of some steps, though nobody has asked for them yet."""

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
        failed, hits: as in the summary.
        templates: hits and misses, as the summary tells them.
        spent: seconds that the steps of each phase took together, and how many they were.
    """

    done: int
    total: int
    failed: int = 0
    hits: int = 0
    templates: str = ""
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
    unknown = Counter(phase for name, phase in todo.items() if name not in known)
    sums: dict[str, list[float]] = {}
    for name, seconds in known.items():
        sums.setdefault(todo[name], []).append(seconds)
    expected, mean = 0.0, {}
    for phase in {*unknown, *sums}:
        seconds, number = spent.get(phase, (0.0, 0))
        of_phase = sums.get(phase, [])
        if number:
            mean[phase] = seconds / number
        elif of_phase:
            mean[phase] = sum(of_phase) / len(of_phase)
        elif unknown[phase]:
            return None
        expected += sum(of_phase) + unknown[phase] * mean.get(phase, 0.0)
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


def plain(shown: Shown, width: int, height: int) -> list[str]:
    """Return the view's one row, as it is without rich."""
    counts = shown.counts
    hits = f", {counts.hits} hit{'s' if counts.hits > 1 else ''}" if counts.hits else ""
    line = in_words(counts, shown.left) + hits
    longest = sorted((one for one in shown.running if one[0]), key=lambda one: -one[1])
    told = [f"{what} {duration(s)}" if s >= 1 else what for what, s in longest]
    for count in range(len(told), 0, -1):
        left = len(told) - count
        row = f"{line}: {', '.join(told[:count])}{f' and {left} more' if left else ''}"
        if count == 1 or columns(printable(row)) <= width:
            return [fitted(row, width)]
    return [fitted(line, width)]


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


class View:
    """What the pictures of one run are made from.

    Args:
        stream: the terminal.
        counts: returns how the run stands.
        todo: returns the steps that have not ended, with their phases.
        sample: seconds that some steps took the last time.
        environ: says whether colours are welcome.
    """

    def __init__(
        self,
        stream: Any,
        counts: Callable[[], Counts],
        todo: Callable[[], Mapping[str, str]],
        sample: Mapping[str, float],
        environ: Mapping[str, str],
    ):
        self._stream = stream
        self._counts = counts
        self._todo = todo
        self._sample = sample
        self._environ = environ
        self._since: dict[int | str, tuple[str, float]] = {}  # by worker: a step, first seen when
        self._left: float | None = None
        self._estimated = 0.0  # when the next estimate is due
        self._rows: Callable[[Shown, int, int], list[str]] = plain
        self._plain_for_good = False

    def picture(self, work: Work | None, began: float, width: int, height: int) -> list[str]:
        """Return the rows that tell how the run stands now.

        Args:
            work: the runner, if it is one of ours.
            began: when the first step did, on the monotonic clock.
            width: columns there are.
            height: rows of the terminal.
        """
        now = time.monotonic()
        running = self._running(work, now)
        counts = self._counts()
        if now >= self._estimated:
            start = time.thread_time()
            self._left = self._estimate(work, counts, running, now - began)
            took = time.thread_time() - start
            self._estimated = now + max(_ESTIMATE, took * _REST)
        elapsed = now - began
        long = elapsed >= _SURE and elapsed + (self._left or 0.0) >= _RICH
        if long and self._rows is plain and not self._plain_for_good:
            self._load_rich()
        told = [(_told(who, names), since) for who, names, since in running]
        return self._rows(Shown(counts, told, self._left), width, height)

    def _running(
        self, work: Work | None, now: float
    ) -> list[tuple[int | str, Sequence[str], float]]:
        found: list[tuple[int | str, Sequence[str], float]] = []
        since = {}
        for who, names in work.under_way() if work is not None else ():
            first = names[0] if names else ""
            before = self._since.get(who)
            since[who] = before if before is not None and before[0] == first else (first, now)
            found.append((who, names, now - since[who][1]))
        self._since = since
        return found

    def _estimate(
        self,
        work: Work | None,
        counts: Counts,
        running: Sequence[tuple[int | str, Sequence[str], float]],
        elapsed: float,
    ) -> float | None:
        recorded = chain(self._sample.items(), work.recorded() if work is not None else ())
        busy = [(names, since) for _, names, since in running if names]
        places = work.places if work is not None else 1
        return seconds_left(self._todo(), recorded, counts, busy, elapsed, places)

    def _load_rich(self) -> None:
        try:
            from .table import Table
        except ImportError:
            self._plain_for_good = True
        else:
            self._rows = Table(self._stream, self._environ).rows


def _told(who: int | str, names: Sequence[str]) -> str:
    if not names:
        return ""
    first = printable(names[0])
    told = first if len(names) == 1 else f"{first} and {len(names) - 1} more"
    return f"{printable(who)}: {told}" if isinstance(who, str) else told


def fit_rows(running: Sequence[tuple[str, float]], height: int) -> Collection[tuple[str, float]]:
    """Return what there is room for of what is under way, and a row for the rest."""
    room = max(1, min(_ROWS, height - 5))
    if len(running) <= room:
        return running
    busy = sorted((one for one in running if one[0]), key=lambda one: -one[1])
    kept = busy[: room - 1]
    return [*kept, (f"and {len(busy) - len(kept)} more", 0.0)] if len(busy) > len(kept) else kept
