"""The state of a whole build: what is stale, what follows from it, what is orphaned; read only.

Asks for the same verdicts that `doit` runs by.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from . import manifest, orphans
from .build import Build
from .model import Reason, Step, Trace


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
    """

    states: dict[str, StepState]
    orphans: list[tuple[str, bool]]

    @property
    def stale(self) -> list[StepState]:
        """Steps that must run, whatever the others come to."""
        return [state for state in self.states.values() if state.reasons]

    @property
    def consequences(self) -> list[StepState]:
        """Steps that run if what they hang on changes its output."""
        return [s for s in self.states.values() if s.follows and not s.reasons]


def survey(build: Build, dep_manager: Any, claimed: Collection[str] = ()) -> Survey:
    """Return the state of every step.

    Args:
        build: the build.
        dep_manager: doit's database.
        claimed: paths that any task makes, so that they are no orphans.
    """
    states: dict[str, StepState] = {}
    for step in build.plan.steps.values():
        verdict = build.verdict(step, dep_manager.get_values(step.task))
        states[step.task] = StepState(step, verdict.trace, verdict.reasons)
    for state in states.values():
        state.follows = _follows(build, state, states)
    if not any(state.reasons and state.is_target for state in states.values()):
        output = _manifest_state(build, states)
        states[output.step.task] = output
    found = orphans.find(build, dep_manager, claimed)
    return Survey(states, [(orphan.path, orphan.edited) for orphan in found])


def _follows(build: Build, state: StepState, states: dict[str, StepState]) -> list[str]:
    """Return the stale steps whose output this one reads."""
    read = {state.step.source} if state.step.source else set()
    if state.trace is not None:
        read |= {item.name for item in state.trace.inputs}
    makers = (build.plan.makers.get(path) for path in sorted(read))
    before = [states[task] for task in makers if task is not None and task != state.step.task]
    return [other.step.task for other in before if other.reasons or other.follows]


def _manifest_state(build: Build, states: dict[str, StepState]) -> StepState:
    """Return the state of the `output` task while no target is stale."""
    project = build.project
    made = [state.trace for state in states.values() if state.is_target]
    step = Step("output", "", project.task("output"), (project.manifest_path,))
    return StepState(step, None, build.manifest_due(manifest.entries_of(project, made)))
