"""One stage of a run: its builds, their steps by task, and what those who run steps are told.

A run has one stage, unless what its first tasks make may change the plan: then others follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from . import state
from .build import Build
from .jobs import StepsJob
from .model import Step, Trace


class Stage(dict[str, tuple[int, Step]]):
    """The steps of some builds by task, each with its build's place among these.

    Args:
        builds: these.
        dep_manager: doit's.
    """

    def __init__(self, builds: Sequence[Build], dep_manager: Any):
        super().__init__(
            (name, (index, step))
            for index, build in enumerate(builds)
            for name, step in build.plan.steps.items()
        )
        self.builds = list(builds)
        self._dep_manager = dep_manager
        self._order = {name: number for number, name in enumerate(self)}

    def build(self, name: str) -> Build:
        """Return the build that a step belongs to."""
        return self.builds[self[name][0]]

    def order(self, name: str) -> int:
        """Return a step's place in the plans; tasks of the user's come first."""
        return self._order.get(name, -1)

    # What is known of steps -------------------------------------------------------------

    def trace(self, name: str) -> Trace | None:
        """Return what is recorded of a step."""
        return state.trace(self._dep_manager, name)

    def seconds(self, names: Iterable[str]) -> dict[str, float]:
        """Return the seconds that steps took the last time, as far as that is recorded."""
        found = {name: self.trace(name) for name in names if name in self}
        return {name: trace.seconds for name, trace in found.items() if trace is not None}

    def limit(self, name: str) -> float | None:
        """Return the seconds that a step may take; None for no end."""
        return self.build(name).time_limit(self[name][1])

    def asks_afar(self, name: str) -> bool:
        """Tell whether a step may be in a remote cache.

        To ask leaves threads behind, which a process that has workers to fork must not have.
        """
        afar = self.build(name).project.settings.asks_afar
        return afar and self[name][1].phase != "templates"

    def is_apart(self, name: str) -> bool:
        """Tell whether a task is a step that runs in a worker even without `-n`."""
        return name in self and (self.limit(name) is not None or self.asks_afar(name))

    # What those who run them are told ---------------------------------------------------

    def recorded(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return for each step the digests that its targets had when they were recorded."""
        return {name: self.build(name).recorded(self[name][1], self.trace(name)) for name in names}

    def waited_for(
        self, names: Iterable[str], before: Callable[[str], Collection[str]]
    ) -> dict[str, tuple[str, ...]]:
        """Return for each step the tasks it has waited for, as far as they make files.

        Args:
            names: steps.
            before: returns what one has waited for.
        """
        found = {}
        for name in names:
            makers = tuple(one for one in before(name) if self._makes_files(one))
            if makers:
                found[name] = makers
        return found

    def _makes_files(self, name: str) -> bool:
        known = self.get(name)
        return known is None or known[1].phase != "templates"

    def kind(
        self, name: str, goes_out: Callable[[int, Step], bool] | None
    ) -> tuple[Any, ...] | None:
        """Return what steps that make one job have in common; None for what makes one alone.

        Args:
            name: a task.
            goes_out: tells whether a step leaves this machine; None if none does.
        """
        known = self.get(name)
        if known is None:
            return None
        index, step = known
        afar = goes_out is not None and goes_out(index, step)
        if step.phase == "compile" and not afar:
            return None
        return index, step.phase, self.limit(name) is not None, afar

    def job(
        self,
        names: Sequence[str],
        before: Callable[[str], Collection[str]],
        stop_early: bool,
        together: bool = False,
    ) -> StepsJob:
        """Return the job of steps of one build.

        Args:
            names: these.
            before: see `waited_for`.
            stop_early: see `StepsJob`.
            together: see `StepsJob`.
        """
        limits = tuple(map(self.limit, names))
        return StepsJob(
            self[names[0]][0],
            tuple(names),
            self.recorded(names),
            stop_early,
            () if limits.count(None) == len(limits) else limits,
            self.waited_for(names, before),
            together,
        )
