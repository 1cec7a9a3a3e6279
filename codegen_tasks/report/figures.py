"""What a run record comes to: lanes of a timeline, the critical path, causes; pure, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..model import PHASES
from ..runs import Run, StepRun
from .words import some

#: Bars narrower than this part of the timeline are drawn as one where they are neighbours.
_NARROW = 1 / 1200
#: Units of one process that overlap by less than this, in seconds, do not.
_TOGETHER = 2e-4


@dataclass(frozen=True, slots=True)
class Unit:
    """What one process did at one time: a step, or compile steps that shared a compiler.

    Args:
        steps: one, or several.
        start: seconds after the run's.
        seconds: how long it took.
    """

    steps: tuple[StepRun, ...]
    start: float
    seconds: float

    @property
    def phase(self) -> str:
        """The phase of its steps."""
        return self.steps[0].phase

    @property
    def pid(self) -> int | str:
        """The process, or the name of who ran it elsewhere."""
        return self.steps[0].pid

    @property
    def end(self) -> float:
        """Seconds after the run's start."""
        return self.start + self.seconds

    @property
    def failed(self) -> bool:
        """Whether a step of it failed."""
        return any(step.outcome == "failed" for step in self.steps)

    @property
    def label(self) -> str:
        """Its name: the task, or how many that shared a compiler."""
        if len(self.steps) == 1:
            return self.steps[0].task
        return f"{len(self.steps)} compiled together: {some([s.task for s in self.steps])}"


def units(steps: Iterable[StepRun]) -> list[Unit]:
    """Return what ran when, in order; steps of which it is not known are left out."""
    shared: dict[tuple[int | str, float], list[StepRun]] = {}
    found: list[Unit] = []
    for step in steps:
        if step.start is None or step.outcome == "not run":
            continue
        if step.phase == "compile":
            shared.setdefault((step.pid, step.start), []).append(step)
        else:
            found.append(Unit((step,), step.start, step.seconds))
    for (_, start), group in shared.items():
        found.append(Unit(tuple(group), start, sum(step.seconds for step in group)))
    return sorted(found, key=lambda unit: (unit.start, unit.end))


def critical_path(found: Sequence[Unit], waits: Mapping[str, Collection[str]]) -> list[Unit]:
    """Return the longest chain of units each of which waits for the one before.

    Args:
        found: units, in order of their start.
        waits: by task, the tasks that it waits for.
    """
    unit_of = {step.task: place for place, unit in enumerate(found) for step in unit.steps}
    longest: list[float] = []
    before: list[int | None] = []
    for place, unit in enumerate(found):
        # Who began later was not waited for, whatever the dependencies are by now.
        earlier = {
            known
            for step in unit.steps
            for name in waits.get(step.task, ())
            if (known := unit_of.get(name, place)) < place
        }
        last = max(earlier, key=lambda one: (longest[one], -one), default=None)
        before.append(last)
        longest.append(unit.seconds + (longest[last] if last is not None else 0.0))
    at = max(range(len(found)), key=longest.__getitem__, default=None)
    chain: list[Unit] = []
    while at is not None:
        chain.append(found[at])
        at = before[at]
    return chain[::-1]


# The timeline ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """Something to draw: one unit, or neighbours that are too narrow to be told apart."""

    phase: str
    start: float
    seconds: float
    label: str
    count: int
    critical: bool
    failed: bool

    @property
    def end(self) -> float:
        """Seconds after the run's start."""
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Lane:
    """One process: what ran there, in rows of units that do not overlap.

    Args:
        pid: the process; 0 if it is not known, or on another machine.
        name: what to call it.
        where: the process, in words.
        rows: units in order; more than one row if it had threads.
        busy: seconds in which a step ran.
        phases: number of steps by phase.
    """

    pid: int
    name: str
    where: str
    rows: tuple[tuple[Unit, ...], ...]
    busy: float
    phases: Mapping[str, int]

    @property
    def steps(self) -> int:
        """How many steps it ran."""
        return sum(self.phases.values())


def lanes(run: Run, found: Sequence[Unit]) -> list[Lane]:
    """Return the processes of a run: first the one that led it, then in order of appearance."""
    by_pid: dict[int | str, list[Unit]] = {run.head.pid: []}
    for unit in found:
        by_pid.setdefault(unit.pid, []).append(unit)
    lanes_found = []
    for number, (pid, ran) in enumerate((item for item in by_pid.items() if item[1]), start=0):
        led = pid == run.head.pid
        count = number + (run.head.pid not in (p for p, r in by_pid.items() if r))
        name = "main process" if led else f"worker {count}"
        name, process = (pid, 0) if isinstance(pid, str) else (name, pid)
        phases = {
            phase: sum(len(unit.steps) for unit in ran if unit.phase == phase)
            for phase in (*PHASES, "")
        }
        rows = tuple(map(tuple, _rows(ran)))
        busy = sum(unit.seconds for unit in ran)
        where = "elsewhere" if isinstance(pid, str) else str(pid or "unknown")
        lanes_found.append(Lane(process, name, where, rows, busy, phases))
    return lanes_found


def _rows(found: Iterable[Unit]) -> list[list[Unit]]:
    rows: list[list[Unit]] = []
    for unit in found:
        # Starts and lengths are told by different clocks, and rounded.
        free = (row for row in rows if row[-1].end <= unit.start + _TOGETHER)
        row = next(free, None)
        if row is None:
            rows.append([unit])
        else:
            row.append(unit)
    return rows


def bars(row: Sequence[Unit], total: float, critical: Collection[int]) -> list[Bar]:
    """Return the bars of a row; neighbours of one phase that are too narrow become one.

    Args:
        row: units in order.
        total: seconds that the timeline shows.
        critical: identities of the units on the critical path.
    """
    narrow = total * _NARROW
    found: list[Bar] = []
    for unit in row:
        on_path = id(unit) in critical
        bar = Bar(
            unit.phase, unit.start, unit.seconds, unit.label, len(unit.steps), on_path, unit.failed
        )
        last = found[-1] if found else None
        if last is not None and _may_merge(last, bar, narrow):
            count = last.count + bar.count
            label = f"{count:,} × {bar.phase or 'other tasks'}"
            length = max(last.end, bar.end) - last.start
            found[-1] = Bar(bar.phase, last.start, length, label, count, on_path, bar.failed)
        else:
            found.append(bar)
    return found


def _may_merge(last: Bar, bar: Bar, narrow: float) -> bool:
    alike = (last.phase, last.critical, last.failed) == (bar.phase, bar.critical, bar.failed)
    close = bar.start - last.end < narrow and bar.seconds < narrow
    return alike and close and (last.count > 1 or last.seconds < narrow)


# Tables ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PhaseSum:
    """A phase of a run: its steps, the seconds they took together, and when it was under way."""

    phase: str
    steps: int
    seconds: float
    first: float
    last: float


def phase_sums(found: Sequence[Unit]) -> list[PhaseSum]:
    """Return the phases that had anything to do, in order."""
    sums = []
    for phase in (*PHASES, ""):
        of_phase = [unit for unit in found if unit.phase == phase]
        if of_phase:
            sums.append(
                PhaseSum(
                    phase,
                    sum(len(unit.steps) for unit in of_phase),
                    sum(unit.seconds for unit in of_phase),
                    min(unit.start for unit in of_phase),
                    max(unit.end for unit in of_phase),
                )
            )
    return sums


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason, and the tasks of the steps that were stale for it."""

    text: str
    tasks: tuple[str, ...]


#: Stands for all reasons that name what another step of the same run made.
FOLLOWS = "what it is made from was made anew"


def causes(run: Run) -> list[Cause]:
    """Return why steps were stale, the reason of most of them first.

    To be stale for what another step of the same run made is to follow from that step.
    """
    made = {step.task.partition(":")[2] for step in run.steps if step.outcome in _WRITES}
    found: dict[str, list[str]] = {}
    for step in run.steps:
        texts = dict.fromkeys(FOLLOWS if _is_made(text, made) else text for text in step.reasons)
        for text in texts:
            found.setdefault(text, []).append(step.task)
    several = [Cause(text, tuple(tasks)) for text, tasks in found.items()]
    return sorted(several, key=lambda cause: (cause.text == FOLLOWS, -len(cause.tasks)))


_WRITES = frozenset({"generated", "compiled", "failed", "not run"})


def _is_made(text: str, made: Collection[str]) -> bool:
    """Tell whether a reason names a file that one of some targets is, and that it changed."""
    path, _, what = text.rpartition(": ")
    if "→" not in what:
        return False
    # A target's task is named by its path below the output folder, wherever that is.
    while path not in made and path:
        path = path.partition("/")[2]
    return bool(path)


def slowest(run: Run, most: int = 20) -> list[StepRun]:
    """Return the steps that took longest."""
    ran = [step for step in run.steps if step.outcome != "not run"]
    return sorted(ran, key=lambda step: -step.seconds)[:most]
