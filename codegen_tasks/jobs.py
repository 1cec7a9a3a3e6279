"""What a runner has done elsewhere: jobs, what comes of them, and what an executor of them is.

Unaware of where jobs run: `workers` has processes of this machine, `distributed` others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .model import Outcome, Step
from .traffic import Traffic


@dataclass(frozen=True, slots=True)
class StepsJob:
    """Steps of one build to run one after the other, or together where a compiler can.

    Args:
        build: index into the worker's builds.
        tasks: the steps' tasks.
        recorded: see `Workshop.run`.
        stop_early: see `Workshop.run`.
        limits: the seconds each may take, None for no end; empty if none has a limit.
        over: see `Workshop.run`.
        together: they share a compiler, so none is under way before the others.
        first: the number by which the first of them is claimed, see `Worker`.
    """

    build: int
    tasks: tuple[str, ...]
    recorded: Mapping[str, Mapping[str, str]]
    stop_early: bool
    limits: tuple[float | None, ...] = ()
    over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    together: bool = False
    first: int = 0

    @property
    def claims(self) -> int:
        """How many claims it takes: one a step, or one for all that run together."""
        return 1 if self.together else len(self.tasks)

    @property
    def may_wait(self) -> bool:
        """Whether it can wait for the job before it, or another for it."""
        return not self.together and not self.limits

    def limit(self, number: int) -> float | None:
        """Return the seconds a step may take, by its place."""
        return self.limits[number] if number < len(self.limits) else None


@dataclass(frozen=True, slots=True)
class TaskJob:
    """One task of the user's, executed as doit's own parallel runner would.

    Args:
        name: the task.
        state: its attributes that may differ from what the worker knows.
        pickled: the whole task, for a worker that does not know it.
    """

    name: str
    state: Mapping[str, Any] | None
    pickled: bytes | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The one task, as `StepsJob` has several."""
        return (self.name,)

    @property
    def may_wait(self) -> bool:
        """Whether it can wait for the job before it, or another for it."""
        return False


@dataclass(frozen=True, slots=True)
class TaskDone:
    """What executing a user's task came to: doit's failure or None, attributes, output.

    Besides them when it began (nanoseconds since the epoch), how long it took, and where.
    """

    name: str
    failure: Any
    state: Mapping[str, Any]
    out: list[Any]
    err: list[Any]
    start: int = 0
    seconds: float = 0.0
    pid: int = 0


@dataclass(frozen=True, slots=True)
class TornDown:
    """A worker tore a task down; `failure` if that failed."""

    name: str
    failure: Any


@dataclass(frozen=True, slots=True)
class Parted:
    """What went between a worker that ends and the remote cache of one of its builds."""

    build: int
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Part:
    """Outcomes of some steps, in the order in which they ended."""

    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Unbegun:
    """A worker that is no more had this `job` to do next."""

    job: StepsJob | TaskJob


@dataclass(frozen=True, slots=True)
class Died:
    """A worker ended while it had the `job` still to do; `how` says by what signal or code."""

    job: StepsJob | TaskJob
    how: str


@dataclass(frozen=True, slots=True)
class Overdue:
    """The first step of the `job` took longer than its limit, so its worker was killed."""

    job: StepsJob


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A worker answered, but its answer cannot be unpickled here."""

    job: StepsJob | TaskJob
    why: str


class Executor(Protocol):
    """Whoever does jobs, as the runner knows it; all but `under_way` from one thread."""

    @property
    def forks(self) -> bool:
        """Whether those who do users' tasks know them already."""

    @property
    def places(self) -> int:
        """How many jobs can be under way at once."""

    @property
    def busy(self) -> int:
        """How many jobs are under way, or more; 0 if there are no results to wait for."""

    @property
    def free(self) -> int:
        """How many jobs may be submitted now."""

    @property
    def spare(self) -> bool:
        """Whether, with nothing `free`, a job that `may_wait` may be submitted all the same."""

    @property
    def steps_left(self) -> int:
        """How many tasks have been submitted and have not ended."""

    @property
    def is_whole(self) -> bool:
        """Whether `grow` can do no more."""

    def grow(self, jobs: int) -> None:
        """Get ready for so many jobs that are to come."""

    def goes_out(self, build: int, step: Step) -> bool:
        """Tell whether a step is done on another machine; `build` is the index of its build."""

    def under_way(self) -> list[tuple[int | str, Sequence[str]]]:
        """Return who is at work (a process of ours, or a name) and on what; in any thread."""

    def submit(self, job: StepsJob | TaskJob) -> None:
        """Have a job done."""

    def take_back(self) -> list[str]:
        """Return the tasks of submitted steps that nobody has begun, and now nobody will."""

    def call_off(self) -> list[Any]:
        """Let what nobody has begun be, for the run is ending; return results, as `results`."""

    def results(self, timeout: float | None = None) -> list[Any]:
        """Return results: Part, TaskDone, Died, Overdue, Unreadable or Unbegun.

        Args:
            timeout: seconds to wait for the first; None waits until there is one.
        """

    def close(self) -> list[TornDown | Parted]:
        """Let all who are idle end in order; return what they tell then."""

    def kill(self) -> None:
        """End everything, at once."""
