"""doit info: every stale target and why; changes nothing."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.cmd_info import Info as CoreInfo
from doit.exceptions import InvalidCommand

from ..digest import short
from ..ours import is_ours
from .common import (
    OverCore,
    claimed,
    codegens,
    counted,
    options_first,
    planned,
    say_whatever_the_encoding,
)

if TYPE_CHECKING:
    from ..build import Build
    from ..survey import StepState, Survey

#: More names than this are not all shown.
_NAMED = 12

_OPT_JSON = {
    "name": "as_json",
    "long": "json",
    "type": bool,
    "default": False,
    "help": "print JSON, for programs [default: %(default)s]",
}


class Info(OverCore, CoreInfo):
    """Core's `info` for a task; for all of them, what is stale and why."""

    name = "info"
    own = (_OPT_JSON,)
    needs_tidy = True

    def describe(self) -> None:
        """Say what it does for all targets."""
        self.doc_purpose = "show what is stale and why, or all about one task"
        self.doc_usage = "[TASK|TARGET]"
        self.doc_description = (
            "Without a name: every stale target with its reasons, what follows from them, "
            "files edited by hand and files that no rule makes any more. Exits with 1 if a "
            "target is stale. Changes nothing."
        )

    def _execute_builds(
        self, pos_args: list[str], hide_status: bool = False, as_json: bool = False
    ) -> int:
        say_whatever_the_encoding()
        builds = planned(self)
        parser = self.cmdparser.complete
        params, names = parser.parse(options_first(parser, pos_args))
        hide_status = hide_status or params["hide_status"]
        as_json = as_json or params["as_json"]
        if len(names) > 1:
            raise InvalidCommand("`info` takes one task or target, or none for all")
        if names:
            return self._one(builds, names[0], hide_status, as_json)
        return self._all(builds, as_json)

    # One --------------------------------------------------------------------------------

    def _one(self, builds: Sequence[Build], name: str, hide: bool, as_json: bool) -> int:
        task = self._task_named(name)
        for build in builds:
            if task in build.plan.steps:
                stale = {name for name, _ in self._other_tasks()} if build.plan.others else ()
                from ..survey import survey

                state = survey(build, self.dep_manager, stale=stale).states[task]
                if as_json:
                    self._write(json.dumps(_state_json(state), ensure_ascii=False, indent=1))
                else:
                    self._prepare(task, build.inputs_inside(state.trace) if state.trace else ())
                    CoreInfo._execute(self, [task], hide_status=True)
                    for line in _details(state):
                        self._write(line)
                return int(bool(state.reasons or state.follows))
        return int(CoreInfo._execute(self, [task], hide_status=hide))

    def _task_named(self, name: str) -> str:
        for task in self.task_list:
            if task.name == name or name in task.targets:
                return str(task.name)
        raise InvalidCommand(not_found=name)

    def _prepare(self, name: str, inputs: Iterable[str]) -> None:
        """Let core show the discovered inputs too, in order, and none of our own marks."""
        task = next(task for task in self.task_list if task.name == name)
        task.file_dep = sorted({*task.file_dep, *inputs})
        task.meta = None

    # All --------------------------------------------------------------------------------

    def names(self, params: Mapping[str, Any], args: Sequence[str]) -> Collection[str] | None:
        """Return that nothing is selected; None if one is, which is looked at closely."""
        return () if all(arg.startswith("-") for arg in args) else None

    def _all(self, builds: Sequence[Build], as_json: bool) -> int:
        taken = claimed(self.task_list)
        others = self._other_tasks()
        would_run = {name for name, _ in others}
        surveys = self._surveys(builds, taken, would_run) if builds else []
        quiet = [
            one.glance.targets
            for one in codegens(self.loader.namespace)
            if one.quiet and one.glance is not None
        ]
        stale = any(s.step.phase != "templates" for each in surveys for s in each.stale)
        if as_json:
            found = _json(surveys, others, sum(quiet))
            self._write(json.dumps(found, ensure_ascii=False, indent=1))
            return int(stale)
        for each in surveys:
            for line in _screen(each):
                self._write(line)
        for count in quiet:
            self._write(f"{counted(count, 'target')} up to date")
        if others:
            self._write("other tasks: " + ", ".join(f"{n} ({status})" for n, status in others))
        return int(stale)

    def _surveys(
        self, builds: Sequence[Build], taken: Collection[str], would_run: Collection[str]
    ) -> list[Survey]:
        """Return what is to be said of all builds.

        Raises:
            DeclarationError: nothing is stale, and a rule lacks what no task makes.
        """
        from .. import chains
        from ..survey import survey

        found = [survey(build, self.dep_manager, taken, would_run) for build in builds]
        if not any(s.step.phase != "templates" for each in found for s in each.stale):
            chains.refuse_unmet(codegens(self.loader.namespace))
        return found

    def _other_tasks(self) -> list[tuple[str, str]]:
        """Return the user's tasks that would run, as far as doit can tell without running."""
        tasks = {task.name: task for task in self.task_list}
        found = []
        for task in self.task_list:
            if is_ours(task) or task.has_subtask or not task._actions:
                continue
            status = self.dep_manager.get_status(task, tasks).status
            if status != "up-to-date":
                found.append((task.name, status))
        return found

    def _write(self, line: str) -> None:
        self.outstream.write(line + "\n")


def _screen(found: Survey) -> Iterable[str]:
    """Yield the lines that say what is stale; templates are no targets and take one line."""
    total = found.fresh + sum(state.is_target for state in found.states.values())
    stale = [state for state in found.stale if state.step.phase != "templates"]
    if stale:
        yield "stale:"
        yield from _grouped(stale)
    if found.consequences:
        yield "to follow, if what they are made from changes:"
        yield from _grouped(found.consequences)
    for rule, tasks in found.unknown.items():
        yield from _wrapped(f"rule {rule}: further targets after {_some(tasks)}", "")
    yield from _parsed_again(found)
    if found.orphans:
        yield "made by no rule any more, remove them if nothing needs them:"
        for path, edited in found.orphans:
            yield f"  {path}{' (edited by hand)' if edited else ''}"
    concerned = [state for state in [*stale, *found.consequences] if state.is_target]
    fresh = total - len(concerned)
    if not concerned and not stale:
        yield f"{counted(total, 'target')} up to date"
    else:
        yield f"{len(stale)} stale, {len(found.consequences)} to follow, {fresh} up to date"


def _parsed_again(found: Survey) -> Iterable[str]:
    names = [s.step.target for s in found.stale if s.step.phase == "templates"]
    if names:
        named = ": " + ", ".join(names) if len(names) <= 3 else ""
        yield f"{counted(len(names), 'template')} to parse{named}"


def _grouped(states: Sequence[StepState]) -> Iterable[str]:
    """Yield steps with what is said of them; those of which the same is said, together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for state in states:
        said = [str(reason) for reason in state.reasons] or [f"after {', '.join(state.follows)}"]
        groups.setdefault(tuple(said), []).append(state.step.task)
    for reasons, tasks in groups.items():
        yield from _wrapped(_some(tasks), "  ")
        for reason in reasons:
            yield from _wrapped(reason, "    ")


def _some(names: Sequence[str]) -> str:
    """Return names for reading: all of a few, the first of many and their number."""
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        80,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _details(state: StepState) -> Iterable[str]:
    step, trace = state.step, state.trace
    yield ""
    status = "stale" if state.reasons else "to follow" if state.follows else "up to date"
    yield f"{'status':11s}: {status}"
    for reason in state.reasons:
        yield f" - {reason}"
    for name in state.follows:
        yield f" - after {name}"
    if step.template:
        yield f"{'template':11s}: {step.template}"
    if step.patterns:
        yield f"{'patterns':11s}: {', '.join(step.patterns)}"
    if trace is None:
        return
    yield f"{'made':11s}: {trace.made}, took {trace.seconds * 1000:.1f} ms"
    yield f"{'read':11s}:"
    for item in trace.inputs:
        if not item.digest and item.kind != "missing template":
            continue  # a name of Jinja2's own, recorded in case the project declares it
        shown = item.shown or short(item.digest) or "absent"
        yield f" - {' '.join(f'{item.kind} {item.name}'.split())}  {shown}"


def _state_json(state: StepState) -> dict[str, Any]:
    step, trace = state.step, state.trace
    return {
        "task": step.task,
        "phase": step.phase,
        "targets": list(step.outputs),
        "stale": bool(state.reasons),
        "reasons": [reason.to_json() for reason in state.reasons],
        "follows": state.follows,
        "patterns": list(step.patterns),
        "template": step.template,
        "inputs": [
            {"kind": item.kind, "name": item.name, "digest": item.digest, "shown": item.shown}
            for item in (trace.inputs if trace is not None else ())
        ],
        "made": trace.made if trace is not None else None,
        "seconds": trace.seconds if trace is not None else None,
    }


def _json(
    surveys: Sequence[Survey], others: Sequence[tuple[str, str]], fresh: int
) -> dict[str, Any]:
    stale = [state for found in surveys for state in found.stale]
    return {
        "version": 1,
        "stale": [_state_json(state) for state in stale],
        "follows": [_state_json(s) for found in surveys for s in found.consequences],
        "edited": [
            reason.name for state in stale for reason in state.reasons if reason.change == "edited"
        ],
        "orphans": [
            {"path": path, "edited": edited} for found in surveys for path, edited in found.orphans
        ],
        "unknown": [
            {"rule": rule, "after": tasks}
            for found in surveys
            for rule, tasks in found.unknown.items()
        ],
        "up_to_date": fresh
        + sum(
            found.fresh
            + sum(s.is_target and not (s.reasons or s.follows) for s in found.states.values())
            for found in surveys
        ),
        "other_tasks": [{"task": name, "status": status} for name, status in others],
    }
