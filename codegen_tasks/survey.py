"""The state of a whole build: what is stale, what follows from it, what is orphaned; read only.

Asks for the same verdicts that `doit` runs by.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from . import orphans
from .build import Build
from .model import PATH_KINDS, Reason, Step, Trace


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


def survey(
    build: Build,
    dep_manager: Any,
    claimed: Collection[str] = (),
    stale: Collection[str] = (),
) -> Survey:
    """Return the state of every step.

    Args:
        build: the build.
        dep_manager: doit's database.
        claimed: paths that any task makes, so that they are no orphans.
        stale: tasks that are not ours and would run.
    """
    states: dict[str, StepState] = {}
    for step in build.plan.steps.values():
        if step.task in build.fresh:
            continue
        verdict = build.verdict(step, dep_manager.get_values(step.task))
        states[step.task] = StepState(step, verdict.trace, verdict.reasons)
    follows = _Follows(build, states, stale)
    for state in states.values():
        state.follows = follows.of(state)
    if not any(state.reasons and state.is_target for state in states.values()):
        output = _manifest_state(build, states, dep_manager)
        states[output.step.task] = output
    fresh = sum(build.plan.steps[task].phase != "templates" for task in build.fresh)
    return Survey(states, _orphans(build, dep_manager, claimed), build.plan.unknown, fresh)


def _orphans(build: Build, dep_manager: Any, claimed: Collection[str]) -> list[tuple[str, bool]]:
    if build.is_tidy:
        return []
    found = orphans.find(build, dep_manager, claimed)
    return [(orphan.path, orphan.edited) for orphan in found]


class _Follows:
    """For each step the stale tasks whose output it reads."""

    def __init__(self, build: Build, states: dict[str, StepState], stale: Collection[str]):
        self._plan = build.plan
        self._templates = build.project.templates
        self._states = states
        self._stale = stale
        self._known: dict[str, list[str]] = {}

    def of(self, state: StepState) -> list[str]:
        """Return them for one step."""
        task = state.step.task
        found = self._known.get(task)
        if found is None:
            self._known[task] = []  # until it is known: what was read may be a circle by now
            found = self._known[task] = [name for name in self._makers(state) if self._moves(name)]
        return found

    def _makers(self, state: StepState) -> list[str]:
        step = state.step
        read = {step.source}
        if step.phase != "compile":
            read = {f"{self._templates}/{step.template}", *step.patterns}
        if state.trace is not None:
            read |= {item.name for item in state.trace.inputs if item.kind in PATH_KINDS}
        makers = (self._plan.maker(path) for path in sorted(read))
        return list(dict.fromkeys(name for name in makers if name and name != step.task))

    def _moves(self, name: str) -> bool:
        state = self._states.get(name)
        if state is None:
            return name in self._stale
        return bool(state.reasons or self.of(state))


def _manifest_state(build: Build, states: dict[str, StepState], dep_manager: Any) -> StepState:
    """Return the state of the `output` task while no target is stale."""

    def recorded(task: str) -> Trace | None:
        if task in states:
            return states[task].trace
        return Trace.from_values((dep_manager.get_values(task) or {}).get("trace"))

    project = build.project
    step = Step("output", "", project.task("output"), (project.manifest_path,))
    return StepState(step, None, build.manifest_due(build.manifest_wanted(recorded)))
