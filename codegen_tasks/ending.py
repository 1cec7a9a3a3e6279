"""What a run has come to, and what is done with that at its end.

While steps end, it is noted what the end has to know of them.  Then what was read too soon to be
sure of is recorded for good, manifests that a partial run left behind are completed, many results
are kept together, and a record of the run and the snapshot for the next one are left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from . import bundles, disk, manifest, runs, savings, state
from .build import Build
from .errors import StepError
from .glance import remember
from .model import Outcome, Trace
from .project import Project
from .stage import Stage
from .steps import iso

#: Ways in which a task may have ended that let others go on.
WELL = ("successful", "up-to-date")


class Ending:
    """The notes of one run, of all its stages.

    Args:
        dep_manager: doit's.
        selected: what the command line names; empty for all.
        workers: how many processes were asked for.
        always: steps are run whatever their state.
    """

    def __init__(self, dep_manager: Any, selected: Sequence[str], workers: int, always: bool):
        self._dep_manager = dep_manager
        self._about: Mapping[str, Any] = {
            "selected": selected,
            "workers": workers,
            "always": always,
        }
        #: For the record of the run.
        self.collected = runs.begin(dep_manager)
        #: How tasks ended, by name.
        self.over: dict[str, str] = {}
        self._stage = Stage((), dep_manager)
        self._savings: dict[str, tuple[Project, savings.Savings]] = {}  # of all stages, by project
        self._made: dict[int, list[str]] = {}  # steps the manifest has yet to hear of
        self._unsettled: dict[str, Trace] = {}  # of steps that read what was just written
        self._is_recorded = False

    def begins(self, stage: Stage) -> None:
        """Take in the builds of a stage; what they save is counted with that of those before."""
        self._stage = stage
        for build in stage.builds:
            kept = (build.project, build.savings)
            counted = self._savings.setdefault(build.project.name, kept)[1]
            if counted is not build.savings:
                counted.include(build.savings)
                build.savings = counted

    # While it runs ----------------------------------------------------------------------

    def step(self, index: int, outcome: Outcome) -> None:
        """Note what a step came to; `index` is its build's."""
        if outcome.trace is not None and outcome.trace.unsettled:
            self._unsettled[outcome.task] = outcome.trace
        self._made.setdefault(index, []).append(outcome.task)
        self._stage.builds[index].ended(outcome)
        self.collected.step(outcome)

    def task(self, name: str, how: str) -> None:
        """Note how a task has ended, be it a step or not."""
        self.over[name] = how
        for index, build in enumerate(self._stage.builds):
            if how in WELL and name == build.project.task("output"):
                self._made.pop(index, None)  # it had the manifest say all

    # At its end -------------------------------------------------------------------------

    def complete(self, values: Callable[[str], Any], went_on: bool, in_order: bool) -> list[str]:
        """Do what a run owes the builds, but for the record and the snapshot.

        Args:
            values: what is recorded of a step; None if it is to be ignored.
            went_on: nothing stopped it before all that could run had run.
            in_order: it was not broken off.

        Returns:
            What could not be done.
        """
        self._settle(went_on)
        problems = list(self._manifests())
        for build in self._stage.builds:
            if len(build.kept) >= bundles.WORTH and in_order:
                from . import ahead

                ahead.keep_together(build, values)
        savings.end(self._savings.values())
        return problems

    def _settle(self, went_on: bool) -> None:
        """Record files that were read within the tick in which they were written.

        They could have been written again unnoticed; after that tick, they are as they are.
        """
        traces, self._unsettled = self._unsettled, {}
        disk.settle(stat for trace in traces.values() for stat in trace.unsettled)
        for name, trace in traces.items():
            if name in self._stage and went_on:
                self._settle_one(name, trace)

    def _settle_one(self, name: str, trace: Trace) -> None:
        build = self._stage.build(name)
        settled = build.refreshed(self._stage[name][1], trace)
        if settled is None:
            return
        build.latest[name] = settled
        values = self._dep_manager.get_values(name)
        if Trace.from_values(values.get("trace")) == trace:
            self._dep_manager._set(name, "_values_:", {**values, "trace": settled.to_values()})

    def _manifests(self) -> Iterable[str]:
        """Complete the manifests with what a partial run changed; yield what cannot be done."""
        for index, made in self._made.items():
            build = self._stage.builds[index]
            # As it is after all steps, it has been seen to.
            if self.over.get(build.project.task("output")) in WELL:
                continue
            try:
                self._update_manifest(build, made)
            except (StepError, OSError) as error:
                yield str(error)

    def _update_manifest(self, build: Build, tasks: Iterable[str]) -> None:
        entries: manifest.Entries = {}
        for task in tasks:
            entries |= build.entries_made(task, self._stage.trace)
        merged = manifest.merged(build.manifest_now(), entries) if entries else None
        if merged is not None:
            build.write_manifest(merged, iso(time.time()), part=True)

    def keep_record(self, ended: str, begun: Iterable[str]) -> None:
        """Leave a record of the run, once, unless nothing of ours has run.

        Args:
            ended: one of `runs.ENDINGS`.
            begun: steps that were to run, and have not ended.
        """
        if self._is_recorded:
            return
        self._is_recorded = True
        self.collected.not_run(begun)
        facts = {**self._about, "ended": ended, "up_to_date": self._up_to_date()}
        runs.keep(self.collected, self._stage.builds, **facts)

    def _up_to_date(self) -> int:
        """Return how many targets were found up to date, those included that have no task."""
        names = {name for name, how in self.over.items() if how == "up-to-date"}
        for build in self._stage.builds:
            names.difference_update(build.ahead)
            names.update(
                name
                for name in build.fresh
                if build.project.task(build.plan.steps[name].phase) in self.over
            )
        steps = (self._stage[name][1].phase for name in names if name in self._stage)
        return sum(phase in ("generate", "compile") for phase in steps)

    def remember(self) -> None:
        """Leave the snapshot; with that the next run may have nothing to do, so it comes last."""
        stamp = state.fold(self._dep_manager)
        for build in self._stage.builds if stamp else ():
            remember(build, self._dep_manager, stamp)
