"""The state of a whole build: what is stale, what follows from it, what is orphaned; read only.

Asks for the same verdicts that `doit` runs by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import orphans, state
from .build import Build, Verdict
from .model import DATA_KINDS, PATH_KINDS, Reason, Step, Trace


@dataclass(slots=True)
class StepState:
    """What is to be said of one step.

    Args:
        step: the step.
        trace: what its last run recorded.
        reasons: why it is stale by itself.
        follows: tasks of stale steps that it hangs on.
    """

    step: Step
    trace: Trace | None
    reasons: tuple[Reason, ...]
    follows: list[str] = field(default_factory=list)

    @property
    def is_target(self) -> bool:
        """Whether it makes targets, which a template put into the cache is not."""
        return self.step.phase in ("generate", "compile")


@dataclass(slots=True)
class Survey:
    """The state of all steps of a build, and the files that no step makes any more.

    Args:
        states: by task, in the order of the phases.
        orphans: (path, whether it was edited since we made it).
        unknown: rule → tasks that must run before it is known what all it makes.
        fresh: the number of targets besides, which are known to be up to date.
    """

    states: dict[str, StepState]
    orphans: list[tuple[str, bool]]
    unknown: dict[str, list[str]]
    fresh: int = 0

    @property
    def stale(self) -> list[StepState]:
        """Steps that must run, whatever the others come to."""
        return [state for state in self.states.values() if state.reasons]

    @property
    def consequences(self) -> list[StepState]:
        """Steps that run if what they hang on changes its output."""
        return [s for s in self.states.values() if s.follows and not s.reasons]

    @property
    def up_to_date(self) -> int:
        """The number of targets that are not stale and follow nothing that is."""
        looked_at = self.states.values()
        return self.fresh + sum(s.is_target and not (s.reasons or s.follows) for s in looked_at)


class States(Mapping[str, StepState]):
    """The state of each step of all builds, found out when it is asked for.

    Args:
        builds: of all Codegen objects, for the steps of one may read what another makes.
        dep_manager: doit's database.
        would_run: tasks that are not ours and would run.
    """

    def __init__(self, builds: Sequence[Build], dep_manager: Any, would_run: Collection[str] = ()):
        self._home = {task: build for build in builds for task in build.plan.steps}
        self._dep_manager = dep_manager
        self._would_run = would_run
        self._verdicts: dict[str, Verdict] = {}
        self._states: dict[str, StepState] = {}
        self._follows: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._home)

    def __iter__(self) -> Iterator[str]:
        return iter(self._home)

    def __getitem__(self, task: str) -> StepState:
        """Return a step's state, without what it follows: see `followed`."""
        found = self._states.get(task)
        if found is None:
            build, verdict = self._home[task], self._verdict(task)
            reasons = tuple(r for r in verdict.reasons if not self._passes(task, r))
            step = build.plan.steps[task]
            found = self._states[task] = StepState(step, verdict.trace, reasons)
        return found

    def _verdict(self, task: str) -> Verdict:
        found = self._verdicts.get(task)
        if found is None:
            build = self._home[task]
            step = build.plan.steps[task]
            found = self._verdicts[task] = build.verdict(step, self._dep_manager.get_values(task))
        return found

    def _passes(self, task: str, reason: Reason) -> bool:
        """Tell whether a reason may be none any more when the step's turn comes.

        It read a target that was edited or removed since, and is made anew first.
        """
        if reason.kind not in PATH_KINDS or reason.change not in ("changed", "missing"):
            return False
        maker = self._home[task].plan.maker(reason.name)
        if maker is None or maker == task or maker not in self._home:
            return False
        if maker in self._home[maker].fresh:
            return False
        anew = self._verdict(maker)
        spoilt = any(
            r.change in ("edited", "missing") and (r.kind, r.name) == ("target", reason.name)
            for r in anew.reasons
        )
        return spoilt and _read_as_made(self._verdict(task).trace, anew.trace, reason)

    def followed(self, task: str) -> StepState:
        """Return a step's state, and with it the stale tasks that it hangs on."""
        state = self[task]
        state.follows = self._of(task)
        return state

    def _of(self, task: str) -> list[str]:
        """Return the stale tasks that a step hangs on, by way of those that these hang on.

        By hand, for a chain of steps may be longer than Python's stack is deep.
        """
        todo, begun = [task], set[str]()
        while todo:
            current = todo[-1]
            makers = [] if current in self._follows else self._makers(self[current])
            begun.add(current)
            new = [name for name in makers if name not in begun and self._is_open(name)]
            todo += new
            if not new:
                # What was read may be a circle by now: then one of them is not known yet.
                self._follows.setdefault(current, [name for name in makers if self._moves(name)])
                todo.pop()
        return self._follows[task]

    def _is_open(self, task: str) -> bool:
        """Tell whether it must be found out what a step hangs on, for one that reads it."""
        if task in self._follows or task not in self._home or task in self._home[task].fresh:
            return False
        return not self[task].reasons

    def _makers(self, state: StepState) -> list[str]:
        build, step = self._home[state.step.task], state.step
        read = {step.source}
        if step.phase != "compile":
            read = {f"{build.project.templates}/{step.template}", *step.patterns}
        if state.trace is not None:
            read |= {item.name for item in state.trace.inputs if item.kind in PATH_KINDS}
        makers = (build.plan.maker(path) for path in sorted(read))
        return list(dict.fromkeys(name for name in makers if name and name != step.task))

    def _moves(self, task: str) -> bool:
        build = self._home.get(task)
        if build is None or task in build.fresh:
            return task in self._would_run
        return bool(self[task].reasons or self._follows.get(task))


def _read_as_made(reader: Trace | None, maker: Trace | None, reason: Reason) -> bool:
    """Tell whether a step had read a file as the one that makes it had left it."""
    if reader is None or maker is None:
        return False
    if reason.kind in DATA_KINDS:  # what was read of it has another digest than all of it
        return reader.made >= maker.made
    made = {output.digest for output in maker.outputs if output.path == reason.name}
    return any(item.digest in made for item in reader.inputs if item.name == reason.name)


def survey(
    builds: Sequence[Build],
    dep_manager: Any,
    claimed: Collection[str] = (),
    would_run: Collection[str] = (),
) -> list[Survey]:
    """Return the state of every step, for each build.

    Args:
        builds: of all Codegen objects.
        dep_manager: doit's database.
        claimed: paths that any task makes, so that they are no orphans.
        would_run: tasks that are not ours and would run.
    """
    states = States(builds, dep_manager, would_run)
    return [_surveyed(build, states, dep_manager, claimed) for build in builds]


def _surveyed(build: Build, states: States, dep_manager: Any, claimed: Collection[str]) -> Survey:
    plan, fresh = build.plan, build.fresh
    found = {task: states.followed(task) for task in plan.steps if task not in fresh}
    if not any(state.reasons and state.is_target for state in found.values()):
        output = _manifest_state(build, found, dep_manager)
        found[output.step.task] = output
    count = sum(plan.steps[task].phase != "templates" for task in fresh)
    return Survey(found, _orphans(build, dep_manager, claimed), plan.unknown, count)


def _orphans(build: Build, dep_manager: Any, claimed: Collection[str]) -> list[tuple[str, bool]]:
    if build.is_tidy:
        return []
    found = orphans.find(build, dep_manager, claimed)
    return [(orphan.path, orphan.edited) for orphan in found]


def _manifest_state(build: Build, states: dict[str, StepState], dep_manager: Any) -> StepState:
    """Return the state of the `output` task while no target is stale."""

    def recorded(task: str) -> Trace | None:
        if task in states:
            return states[task].trace
        return state.trace(dep_manager, task)

    project = build.project
    step = Step("output", "", project.task("output"), (project.manifest_path,))
    return StepState(step, None, build.manifest_due(build.manifest_wanted(recorded)))
