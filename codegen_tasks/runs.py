"""Run records: what each run came to, in `.codegen/runs/`, a numbered file each, the last 50 kept.

A file has two lines of JSON, so that a list of runs reads one line of each: the head, then the
steps in columns, in which every text stands once:

    {"version": 1, "start": …, "began": "…", "seconds": …, "outcomes": {"generated": 3}, …}
    {"texts": […], "task": [0, 3, …], "start": [0, 1520, …], "took": [812, …], …}

Derived: a record that is missing or broken changes no build.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import disk
from .errors import StepError, cause
from .model import PHASES, Outcome, Reason

VERSION = 1
#: So many records are kept, unless they take more bytes together than this.
KEPT = 50
_MOST_BYTES = 64_000_000
#: Of one step so many reasons are kept, each so many characters long.
_REASONS = 6
_LONGEST = 200
#: Of the command line, so many names.
_SELECTED = 50
_FILE = re.compile(r"([1-9]\d{0,11})\.json")
#: Larger numbers are no times, counts or process ids.
_MOST = 1 << 62

_MADE = {"templates": "parsed", "generate": "generated", "compile": "compiled", "output": "written"}
#: How a step can end. "done" is a task that is not ours.
_OURS = ("parsed", "generated", "compiled", "restored", "unchanged", "written")
OUTCOMES = (*_OURS, "done", "failed", "not run")
ENDINGS = ("done", "failed", "interrupted")
#: Phases of a record's steps; "" is that of a task which is not ours.
_PHASES = (*PHASES, "")
_COLUMNS = ("task", "phase", "outcome", "pid", "start", "took", "hits", "misses", "why")


class StepRun(NamedTuple):
    """One step of a run.

    Args:
        task: its task.
        phase: its phase; "" if the task is not ours.
        outcome: one of `OUTCOMES`.
        pid: of the process that ran it, or the name of who did on another machine; 0 if none is
            known.
        start: seconds after the run's; None if that is not known.
        seconds: how long it took; of steps that shared a compiler, each has its part.
        hits, misses: templates found in the cache, templates parsed.
        reasons: why it was stale.
    """

    task: str
    phase: str
    outcome: str
    pid: int | str
    start: float | None
    seconds: float
    hits: int
    misses: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """What a record says of the whole run.

    Args:
        path: of the record.
        number: its number.
        start: when it began, nanoseconds since the epoch.
        began: the same, ISO 8601, UTC.
        seconds: how long it took.
        selected: what the command line named; empty for all.
        workers: worker processes asked for; 0 if all ran in one process.
        pid: of the process that led it.
        ended: one of `ENDINGS`.
        up_to_date: targets found up to date.
        hits, misses: templates found in the cache, templates parsed.
        outcomes: number of steps by outcome.
    """

    path: str
    number: int
    start: int
    began: str
    seconds: float
    selected: tuple[str, ...]
    workers: int
    pid: int
    ended: str
    up_to_date: int
    hits: int
    misses: int
    outcomes: Mapping[str, int]

    @property
    def steps(self) -> int:
        """How many steps ran."""
        return sum(n for how, n in self.outcomes.items() if how not in ("not run", "done"))


@dataclass(frozen=True, slots=True)
class Run:
    """A run as recorded."""

    head: Head
    steps: tuple[StepRun, ...]


# Collecting -----------------------------------------------------------------------------


class Collected:
    """What a run has come to so far: little for each step while it runs, encoded at its end."""

    def __init__(self) -> None:
        self.start = time.time_ns()
        self._since = time.perf_counter()
        self._rows: list[tuple[Any, ...]] = []
        #: Why steps are stale, by task, as it was found.
        self.reasons: dict[str, Sequence[Reason]] = {}
        #: Steps that doit was told are up to date.
        self.fresh: set[str] = set()

    def stale(self, task: str, reasons: Sequence[Reason]) -> None:
        """Take in why a step is stale."""
        self.reasons[task] = reasons

    def step(self, outcome: Outcome) -> None:
        """Take in what a step came to."""
        self._rows.append(
            (
                outcome.task,
                outcome.worker or outcome.pid,
                outcome.start,
                outcome.seconds,
                _how(outcome),
                outcome.hits,
                outcome.misses,
            )
        )

    def task(self, name: str, start: int, seconds: float, failed: bool, pid: int = 0) -> None:
        """Take in a task that is no step: `output`, or one that is not ours.

        Args:
            name: the task.
            start: when it began, nanoseconds since the epoch.
            seconds: how long it took.
            failed: whether it failed.
            pid: of the process that ran it, unless it was this one.
        """
        self._rows.append((name, pid or os.getpid(), start, seconds, "failed" * failed, 0, 0))

    def not_run(self, names: Iterable[str]) -> None:
        """Take in steps that were to run and did not."""
        self._rows += [(name, 0, 0, 0.0, "not run", 0, 0) for name in names]

    def is_empty(self, groups: Mapping[str, str]) -> bool:
        """Tell whether nothing of ours has run."""
        return not any(
            row[0].partition(":")[0] in groups and row[4] != "not run" for row in self._rows
        )

    def keep(
        self,
        folders: Iterable[str],
        groups: Mapping[str, str],
        *,
        selected: Collection[str],
        workers: int,
        ended: str,
        up_to_date: int,
        always: bool,
    ) -> None:
        """Write the record, unless nothing of ours has run; remove those that are too many.

        Args:
            folders: absolute paths of the state folders.
            groups: phases by the name of their group task.
            selected: what the command line named; empty for all.
            workers: worker processes asked for.
            ended: one of `ENDINGS`.
            up_to_date: targets found up to date.
            always: steps were to run whatever their state.

        Raises:
            StepError: it cannot be written.
        """
        if self.is_empty(groups):
            return
        columns, hits, misses = self._columns(groups, "always" if always else "never built")
        head = {
            "version": VERSION,
            "start": self.start,
            "began": iso(self.start),
            "seconds": round(time.perf_counter() - self._since, 6),
            "selected": [*selected][:_SELECTED],
            "workers": workers,
            "pid": os.getpid(),
            "ended": ended,
            "up_to_date": up_to_date,
            "hits": hits,
            "misses": misses,
            "outcomes": Counter(map(OUTCOMES.__getitem__, columns["outcome"])),
        }
        data = "".join(json.dumps(part, separators=(",", ":")) + "\n" for part in (head, columns))
        for state in folders:
            _write(os.path.join(state, "runs"), state, data.encode())

    def _columns(
        self, groups: Mapping[str, str], unsaid: str
    ) -> tuple[dict[str, list[Any]], int, int]:
        """Return the steps in columns, and their hits and misses."""
        texts = _Numbers()
        pids = _Numbers()
        whys: dict[Any, int] = {}
        why_texts: list[list[int]] = []
        found: list[tuple[Any, ...]] = []
        for name, pid, start, seconds, how, hits, misses in self._rows:
            phase = groups.get(name.partition(":")[0], "")
            reasons: Any = self.reasons.get(name)
            if reasons is None:
                reasons = unsaid if phase not in ("", "output") else ""
            if reasons not in whys:
                whys[reasons] = len(why_texts)
                why_texts.append([texts[text] for text in _worded(reasons)])
            outcome = how if how in _ENDS or (how and phase in _TARGETS) else _MADE.get(phase)
            found.append(
                (
                    texts[name],
                    _PHASES.index(phase),
                    _OUTCOME[outcome or "done"],
                    pids[pid],
                    max(0, start - self.start) // 1000 if start else -1,
                    int(seconds * 1e6),
                    hits,
                    misses,
                    whys[reasons],
                )
            )
        columns: dict[str, list[Any]] = {"texts": [*texts], "pids": [*pids], "whys": why_texts}
        columns |= dict(zip(_COLUMNS, map(list, zip(*found, strict=True)), strict=True))
        return columns, sum(columns["hits"]), sum(columns["misses"])


_ENDS = frozenset({"failed", "not run"})
_TARGETS = frozenset({"generate", "compile"})
_OUTCOME = {name: number for number, name in enumerate(OUTCOMES)}


class _Numbers(dict[Any, int]):
    """Values, each once, and their places."""

    def __missing__(self, value: Any) -> int:
        self[value] = place = len(self)
        return place


def _how(outcome: Outcome) -> str:
    """Return how a step ended; "" if it has made what steps of its phase make."""
    if outcome.error:
        return "failed"
    if outcome.cached == "restored":
        return "restored"
    return "" if outcome.changed else "unchanged"


def _worded(reasons: Sequence[Reason] | str) -> list[str]:
    if isinstance(reasons, str):
        return [reasons] if reasons else []
    texts = [_cut(str(reason)) for reason in reasons[:_REASONS]]
    if len(reasons) > _REASONS:
        texts.append("further reasons")
    return texts


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def begin(dep_manager: Any) -> Collected:
    """Return what a run that begins now has come to, for all who write with its database."""
    vars(dep_manager).pop("codegen_collected", None)
    return of(dep_manager)


def of(dep_manager: Any) -> Collected:
    """Return what the run that writes with a database has come to: one object for all."""
    known: Collected | None = vars(dep_manager).get("codegen_collected")
    if known is None:
        known = vars(dep_manager)["codegen_collected"] = Collected()
    return known


def keep(collected: Collected, builds: Iterable[Any], **facts: Any) -> None:
    """Write the record of a run of some builds, with the lock held; say so if it cannot be.

    Args:
        collected: what the run has come to.
        builds: these; their state folders may differ.
        facts: see `Collected.keep`.
    """
    projects = [build.project for build in builds]
    groups = {project.task(phase): phase for project in projects for phase in PHASES}
    folders = {project.full(project.state): None for project in projects}
    try:
        collected.keep(folders, groups, **facts)
    except (StepError, OSError) as error:
        what = error.what if isinstance(error, StepError) else cause(error)
        place = disk.relative(os.path.join(next(iter(folders)), "runs"))
        print(f"{place}: no record of this run is kept: {what}", file=sys.stderr)


def iso(nanoseconds: int) -> str:
    """Return a time since the epoch as ISO 8601 in UTC, with milliseconds."""
    second, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{rest // 1_000_000:03d}Z"


def _write(folder: str, state: str, data: bytes) -> None:
    number = max(numbers(folder), default=0) + 1
    disk.write_ours(os.path.join(folder, f"{number}.json"), data, state)
    total = 0
    for place, old in enumerate(sorted(numbers(folder), reverse=True)):
        path = os.path.join(folder, f"{old}.json")
        with contextlib.suppress(OSError):
            total += os.lstat(path).st_size
            if place and (place >= KEPT or total > _MOST_BYTES):
                os.unlink(path)


# Reading --------------------------------------------------------------------------------


def numbers(folder: str) -> list[int]:
    """Return the numbers of the records in a folder, in no order."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [int(found[1]) for name in names if (found := _FILE.fullmatch(name))]


def heads(folder: str) -> tuple[list[Head], list[str]]:
    """Return the heads of the records in a folder, the oldest first, and what cannot be read.

    Args:
        folder: absolute path.
    """
    found: list[Head] = []
    problems: list[str] = []
    for number in sorted(numbers(folder)):
        path = os.path.join(folder, f"{number}.json")
        try:
            with disk.opened(path) as file:
                found.append(_head(path, number, json.loads(file.readline())))
        except (StepError, OSError, *_UNREADABLE) as error:
            problems.append(f"{number}.json: {_problem(error)}")
    return found, problems


def load(head: Head) -> Run:
    """Return a record whole.

    Raises:
        StepError: it cannot be read.
    """
    try:
        first, _, second = disk.read(head.path).partition(b"\n")
        again = _head(head.path, head.number, json.loads(first))
        return Run(again, tuple(_steps(json.loads(second))))
    except (OSError, StepError, *_UNREADABLE) as error:
        raise StepError(f"run {head.number}", _problem(error)) from None


_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


def _problem(error: Exception) -> str:
    if isinstance(error, StepError):
        return error.what
    return cause(error) if isinstance(error, OSError) else "is no run record"


def _head(path: str, number: int, data: Any) -> Head:
    if _whole(data["version"]) != VERSION:
        raise StepError(path, f"version {data['version']} is not known")
    counts = {name: _whole(data["outcomes"].get(name, 0)) for name in OUTCOMES}
    return Head(
        path,
        number,
        _whole(data["start"]),
        iso(_whole(data["start"])),
        _duration(data["seconds"]),
        tuple(_text(name) for name in data["selected"]),
        _whole(data["workers"]),
        _whole(data["pid"]),
        ENDINGS[ENDINGS.index(data["ended"])],
        _whole(data["up_to_date"]),
        _whole(data["hits"]),
        _whole(data["misses"]),
        {name: count for name, count in counts.items() if count},
    )


def _steps(data: Any) -> Iterable[StepRun]:
    texts = [_text(text) for text in data["texts"]]
    pids = [who if type(who) is str else _whole(who) for who in data["pids"]]
    whys = [tuple(texts[_whole(place)] for place in why) for why in data["whys"]]
    for row in zip(*(data[name] for name in _COLUMNS), strict=True):
        start = row[4]
        name, phase, outcome, pid, _, took, hits, misses, why = [
            _whole(0 if place == 4 else value) for place, value in enumerate(row)
        ]
        yield StepRun(
            texts[name],
            _PHASES[phase],
            OUTCOMES[outcome],
            pids[pid],
            None if start == -1 else _whole(start) / 1e6,
            took / 1e6,
            hits,
            misses,
            whys[why],
        )


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST:  # `type`: a bool is an int too
        raise ValueError
    return value


def _duration(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < _MOST:
        raise ValueError
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    return value
