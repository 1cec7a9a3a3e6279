"""What `doit info --json` prints: version 1, as `info.schema.json` beside this describes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from .. import keys
from ..causes import causes_of, edited
from ..kin import Kin
from ..model import Input
from ..survey import StepState, Survey

VERSION = 1


def schema() -> str:
    """Return the JSON Schema of both documents."""
    folder = resources.files("codegen_tasks.commands")
    return folder.joinpath("info.schema.json").read_text(encoding="utf-8")


def of_one(state: StepState, kin: Kin) -> dict[str, Any]:
    """Return one step, and who depends on it."""
    dependents = {name: list(getattr(kin, name)) for name in ("compiles", "renders", "tasks")}
    return {"version": VERSION, **_state(state), "dependents": dependents}


def of_all(
    surveys: Sequence[Survey], others: Iterable[tuple[str, str]], fresh: int
) -> dict[str, Any]:
    """Return the state of all builds.

    Args:
        surveys: one of each build that may have work.
        others: name and status of tasks that are not ours and would run.
        fresh: the number of targets of the other builds.
    """
    stale = [state for found in surveys for state in found.stale]
    return {
        "version": VERSION,
        "causes": [
            {**cause.reason.to_json(), "text": cause.text, "chain": list(cause.through)}
            | {"tasks": [state.step.task for state in cause.states]}
            for cause in causes_of(s for s in stale if s.step.phase != "templates")
        ],
        "stale": [_state(state) for state in stale],
        "follows": [_state(s) for found in surveys for s in found.consequences],
        "edited": edited(stale),
        "orphans": [
            {"path": path, "edited": changed}
            for found in surveys
            for path, changed in found.orphans
        ],
        "unknown": [
            {"rule": rule, "after": tasks}
            for found in surveys
            for rule, tasks in found.unknown.items()
        ],
        "up_to_date": fresh + sum(found.up_to_date for found in surveys),
        "other_tasks": [{"task": name, "status": status} for name, status in others],
    }


def _state(state: StepState) -> dict[str, Any]:
    step, trace = state.step, state.trace
    return {
        "task": step.task,
        "phase": step.phase,
        "rule": step.rule,
        "targets": list(step.outputs),
        "stale": bool(state.reasons),
        "reasons": [reason.to_json() for reason in state.reasons],
        "follows": state.follows,
        "patterns": list(step.patterns),
        "template": step.template,
        "source": step.source,
        "inputs": [_input(item) for item in (trace.inputs if trace is not None else ())],
        "made": trace.made if trace is not None else None,
        "seconds": trace.seconds if trace is not None else None,
    }


def _input(item: Input) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "name": item.name,
        "digest": item.digest,
        "shown": item.shown,
        "via": item.via,
        "reads": [{"place": keys.place(path), "how": how} for path, how in item.reads],
    }
