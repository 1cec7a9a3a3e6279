"""doit info: every stale target and why; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from doit.cmd_info import Info as CoreInfo
from doit.cmdparse import CmdOption, CmdParse, CmdParseError
from doit.exceptions import InvalidCommand

from ..digest import short
from ..model import Reason, Step, Trace
from .common import builds_of, counted, names_us, options_first

if TYPE_CHECKING:
    from ..build import Build

_OPT_JSON = {
    "name": "as_json",
    "long": "json",
    "type": bool,
    "default": False,
    "help": "print JSON, for programs [default: %(default)s]",
}


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
    def edited(self) -> list[Reason]:
        """Its targets that were edited by hand."""
        return [reason for reason in self.reasons if reason.change == "edited"]


@dataclass(slots=True)
class Survey:
    """The state of all steps of a build, and the files that no step makes any more.

    Args:
        states: by task, in the order of the phases.
        orphans: (path, whether it was edited since we made it).
        manifest_stale: the manifest does not say what was recorded.
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


def survey(build: Build, dep_manager: Any) -> Survey:
    """Return the state of every step, from the same verdicts that `doit` runs by."""
    states: dict[str, StepState] = {}
    for step in build.plan.steps.values():
        verdict = build.verdict(step, dep_manager.get_values(step.task))
        states[step.task] = StepState(step, verdict.trace, verdict.reasons)
    for state in states.values():
        state.follows = _follows(build, state, states)
    return Survey(states, orphans(build, dep_manager))


def _follows(build: Build, state: StepState, states: dict[str, StepState]) -> list[str]:
    """Return the stale steps whose output this one reads."""
    read = {state.step.source} if state.step.source else set()
    if state.trace is not None:
        read |= {item.name for item in state.trace.inputs}
    makers = (build.plan.makers.get(path) for path in sorted(read))
    before = [states[task] for task in makers if task is not None and task != state.step.task]
    return [other.step.task for other in before if other.reasons or other.follows]


def orphans(build: Build, dep_manager: Any) -> list[tuple[str, bool]]:
    """Return files that we made, that still lie there, and that no rule makes any more."""
    from ..state import recorded_tasks

    project = build.project
    names = recorded_tasks(dep_manager)
    made: dict[str, str] = {}
    for name in names or ():
        if name.startswith((project.task("generate") + ":", project.task("compile") + ":")):
            trace = Trace.from_values((dep_manager.get_values(name) or {}).get("trace"))
            for output in trace.outputs if trace is not None else ():
                made[output.path] = output.digest
    for key, entry in build.remember_manifest().items():
        made.setdefault(f"{project.output}/{key}", entry["checksum"])
    found = []
    for path, content in sorted(made.items()):
        if path not in build.plan.makers:
            now = build.world.file(path, None)
            if now:
                found.append((path, now != content))
    return found


class _Parser(CmdParse):
    """Core's options, in its words; besides them `--json`, which only a Codegen makes known.

    Options are parsed before `dodo.py` is loaded, so a refusal is kept until it is.
    """

    refused: CmdParseError | None = None

    @property
    def complete(self) -> CmdParse:
        """All options."""
        return CmdParse([*self.options, CmdOption(_OPT_JSON)])

    def parse_only(self, in_args: Any, params: Any = None) -> Any:
        """Parse as core does; see there."""
        try:
            found, names = super().parse_only(in_args, params)
        except CmdParseError as error:
            try:
                found, names = self.complete.parse_only(in_args, params)
            except CmdParseError:
                raise error from None
            self.refused = error
        found.setdefault("as_json", False)
        return found, names


class Info(CoreInfo):
    """Core's `info` for a task; for all of them, what is stale and why."""

    name = "info"
    _cmdparser: Any

    @property
    def cmdparser(self) -> Any:
        """The parser, made at the first call."""
        if self._cmdparser is None:
            self._cmdparser = _Parser(self.get_options())
            self._cmdparser.overwrite_defaults(self.config_vals)
        return self._cmdparser

    @property
    def _execute(self) -> Any:
        """Core's method itself where there is no Codegen: its tracebacks show no frame of ours."""
        if builds_of(self.loader):
            return self._execute_builds
        if self.cmdparser.refused is not None:
            raise self.cmdparser.refused
        return super()._execute

    def help(self) -> str:
        """Return help; it runs no `dodo.py`, so whose it is shows in the text only."""
        options = {**self.cmdparser.parse([])[0], **self.opt_vals}
        if names_us(options.get("dodoFile", "")):
            self.doc_purpose = "show what is stale and why, or all about one task"
            self.doc_usage = "[TASK|TARGET]"
            self.doc_description = (
                "Without a name: every stale target with its reasons, what follows from them, "
                "files edited by hand and files that no rule makes any more. Exits with 1 if a "
                "target is stale. Changes nothing."
            )
            self._cmdparser = self.cmdparser.complete
        return str(super().help())

    def _execute_builds(
        self, pos_args: list[str], hide_status: bool = False, as_json: bool = False
    ) -> int:
        builds = builds_of(self.loader)
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
                state = survey(build, self.dep_manager).states[task]
                if as_json:
                    self._write(json.dumps(_state_json(state), ensure_ascii=False, indent=1))
                    return int(bool(state.reasons))
                self._restored(task)
                super()._execute([task], hide_status=True)
                for line in _details(state):
                    self._write(line)
                return int(bool(state.reasons))
        return int(super()._execute([task], hide_status=hide))

    def _task_named(self, name: str) -> str:
        for task in self.task_list:
            if task.name == name or name in task.targets:
                return str(task.name)
        raise InvalidCommand(not_found=name)

    def _restored(self, name: str) -> None:
        """Show the discovered inputs among the `file_dep`, as a run would have them."""
        task = next(task for task in self.task_list if task.name == name)
        task.file_dep.update(self.dep_manager._get(name, "deps:") or ())

    # All --------------------------------------------------------------------------------

    def _all(self, builds: Sequence[Build], as_json: bool) -> int:
        surveys = [survey(build, self.dep_manager) for build in builds]
        others = self._other_tasks(builds)
        stale = any(found.stale for found in surveys)
        if as_json:
            self._write(json.dumps(_json(surveys, others), ensure_ascii=False, indent=1))
            return int(stale)
        for found in surveys:
            for line in _screen(found):
                self._write(line)
        if others:
            self._write("other tasks: " + ", ".join(f"{n} ({status})" for n, status in others))
        return int(stale)

    def _other_tasks(self, builds: Sequence[Build]) -> list[tuple[str, str]]:
        """Return the user's tasks that would run, as far as doit can tell without running."""
        tasks = {task.name: task for task in self.task_list}
        found = []
        for task in self.task_list:
            if "codegen" in (task.meta or {}) or task.has_subtask or not task._actions:
                continue
            status = self.dep_manager.get_status(task, tasks).status
            if status != "up-to-date":
                found.append((task.name, status))
        return found

    def _write(self, line: str) -> None:
        self.outstream.write(line + "\n")


def _screen(found: Survey) -> Iterable[str]:
    total = sum(state.step.phase in ("generate", "compile") for state in found.states.values())
    if not found.stale and not found.orphans:
        yield f"{counted(total, 'target')} up to date"
        return
    if found.stale:
        yield "stale:"
        yield from _grouped(found.stale)
    if found.consequences:
        yield "to follow, if what they are made from changes:"
        for state in found.consequences:
            yield f"  {state.step.task}"
            yield f"    after {', '.join(state.follows)}"
    if found.orphans:
        yield "made by no rule any more:"
        for path, edited in found.orphans:
            yield f"  {path}{' (edited by hand)' if edited else ''}"
    fresh = total - sum(
        state.step.phase in ("generate", "compile") for state in [*found.stale, *found.consequences]
    )
    yield f"{len(found.stale)} stale, {len(found.consequences)} to follow, {fresh} up to date"


def _grouped(stale: Sequence[StepState]) -> Iterable[str]:
    """Yield stale steps with their reasons; those never built together, they have but one."""
    new = [state for state in stale if state.reasons[0].change == "never built"]
    if len(new) == len(stale) > 12:
        shown = ", ".join(state.step.task for state in new[:3])
        yield f"  {len(new)} steps, {shown}, ...: never built"
        return
    for state in stale:
        yield f"  {state.step.task}"
        for reason in state.reasons:
            yield f"    {reason}"


def _details(state: StepState) -> Iterable[str]:
    step, trace = state.step, state.trace
    yield ""
    yield f"{'status':11s}: {'stale' if state.reasons else 'up to date'}"
    for reason in state.reasons:
        yield f" - {reason}"
    for name in state.follows:
        yield f" - follows {name}"
    if step.template:
        yield f"{'template':11s}: {step.template}"
    if step.patterns:
        yield f"{'patterns':11s}: {', '.join(step.patterns)}"
    if trace is None:
        return
    yield f"{'made':11s}: {trace.made}, took {trace.seconds * 1000:.1f} ms"
    yield f"{'read':11s}:"
    for item in trace.inputs:
        yield f" - {item.kind} {item.name}  {item.shown or short(item.digest) or 'absent'}"


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


def _json(surveys: Sequence[Survey], others: Sequence[tuple[str, str]]) -> dict[str, Any]:
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
        "up_to_date": sum(
            not (state.reasons or state.follows)
            for found in surveys
            for state in found.states.values()
        ),
        "other_tasks": [{"task": name, "status": status} for name, status in others],
    }
