"""doit info: every stale target and why; changes nothing."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.cmd_info import Info as CoreInfo
from doit.exceptions import InvalidCommand

from .. import disk
from ..codegen import NoTasks
from ..errors import nearest
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
from .piped import let_go_of

if TYPE_CHECKING:
    from ..build import Build
    from ..survey import StepState, Survey

_OPT_JSON = {
    "name": "as_json",
    "long": "json",
    "type": bool,
    "default": False,
    "help": "print JSON, for programs",
}
_OPT_TREE = {
    "name": "tree",
    "long": "tree",
    "type": bool,
    "default": False,
    "help": "show the templates between a cause and its targets, and what follows from those",
}
_OPT_ALL = {
    "name": "whole",
    "long": "all",
    "type": bool,
    "default": False,
    "help": "name every target, however many; of one task, show what doit knows of it too",
}
_OPT_SCHEMA = {
    "name": "schema",
    "long": "schema",
    "type": bool,
    "default": False,
    "help": "print the JSON Schema of what --json prints",
}
_OWN = (_OPT_TREE, _OPT_ALL, _OPT_JSON, _OPT_SCHEMA)


class Info(OverCore, CoreInfo):
    """Core's `info` for a task; for all of them, what is stale and why."""

    name = "info"
    own = _OWN
    needs_tidy = True
    task_list: Any

    def describe(self) -> None:
        """Say what it does for all targets."""
        self.doc_purpose = "show what is stale and why, or all about one target"
        self.doc_usage = "[TASK|TARGET]"
        self.doc_description = (
            "Without a name: what made targets stale, and which; what follows from them; files "
            "edited by hand, and files that no rule makes any more. With one: what it was made "
            "from, what it read, and what depends on it. Exits with 1 if a target is stale. "
            "Changes nothing."
        )
        self.examples = (
            ("", "what is stale, and why"),
            ("generated/bloom.ts", "all about one target"),
            ("--tree", "how a change reaches its targets"),
        )

    def _execute_builds(
        self,
        pos_args: list[str],
        hide_status: bool = False,
        tree: bool = False,
        whole: bool = False,
        as_json: bool = False,
        schema: bool = False,
    ) -> int:
        say_whatever_the_encoding()
        parser = self.cmdparser.complete
        params, names = parser.parse(options_first(parser, pos_args))
        self._tree, self._whole = tree or params["tree"], whole or params["whole"]
        self._as_json = as_json or params["as_json"]
        if schema or params["schema"]:
            from .info_json import schema as text_of_schema

            self.outstream.write(text_of_schema())
            return 0
        if len(names) > 1:
            raise InvalidCommand("`info` takes one task or target, or none for all")
        if names and self._tree:
            raise InvalidCommand("`info --tree` takes no name: it is for all targets")
        with _not_collecting():
            builds = self._planned_for(names[0]) if names else planned(self)
            try:
                if names:
                    return self._one(builds, names[0], hide_status or params["hide_status"])
                return self._all(builds)
            except BrokenPipeError:
                let_go_of(self.outstream)
                return 1

    def names(self, params: Mapping[str, Any], args: Sequence[str]) -> Collection[str] | None:
        """Return that nothing is selected; for one name, that no task is needed."""
        named = [arg for arg in args if not arg.startswith("-")]
        return NoTasks(named) if len(named) == 1 else () if not named else None

    # One --------------------------------------------------------------------------------

    def _planned_for(self, name: str) -> list[Build]:
        """Return the builds; with doit's tasks of all steps, if one of them is not enough."""
        from .. import chains

        found = codegens(self.loader.namespace)
        # Each Codegen knows by the others' tasks what they make.
        builds = planned(self) if len(found) == 1 else []
        if _step_named(builds, name) is None:
            self.task_list = chains.unabridged(found, self.task_list)
            builds = planned(self)
        return builds

    def _one(self, builds: Sequence[Build], name: str, hide_status: bool) -> int:
        found = _step_named(builds, name)
        if found is None:
            return int(CoreInfo._execute(self, [self._task_named(builds, name)], hide_status))
        build, task = found
        from .. import chains, kin, survey

        others = chains.OnDemand({task.name: task for task in self.task_list}, builds)
        would_run = [name for name, _ in self._other_tasks(others)] if build.plan.others else ()
        for each in builds:
            each.fresh = frozenset()  # their verdicts are asked for one by one
        state = survey.States(builds, self.dep_manager, would_run).followed(task)
        known = kin.kin_of(builds, state.step, self.dep_manager, self.task_list)
        if self._as_json:
            from . import info_json

            self._print(info_json.of_one(state, known))
        else:
            from .info_text import One
            from .screen import Screen

            One(Screen(self.outstream), build, state, known, self._whole).show()
            if self._whole:
                self._doits_own(build, state)
        return int(bool(state.reasons or state.follows))

    def _task_named(self, builds: Sequence[Build], name: str) -> str:
        """Return a task that makes no target of ours, by its name or a target."""
        for task in self.task_list:
            if task.name == name or name in task.targets:
                return str(task.name)
        known = {task.name for task in self.task_list}
        known |= {known for build in builds for known in (*build.plan.steps, *build.plan.makers)}
        hint = nearest(name, known)
        if not hint:
            raise InvalidCommand(not_found=name)
        what = f'command `info` invalid parameter: "{name}". Must be a task, or a target.'
        raise InvalidCommand(f"{what}\n  hint: {hint}")

    def _doits_own(self, build: Build, state: StepState) -> None:
        """Show what doit knows of a step's task, all inputs in order, none of our own marks."""
        from doit.loader import generate_tasks

        from .. import chains
        from ..tasks import step_task

        *_, task = generate_tasks("codegen", (step_task(build, step) for step in [state.step]))
        self.task_list = [*(one for one in self.task_list if one.name != task.name), task]
        chains.order([build], self.task_list, self.dep_manager)
        inputs = build.inputs_inside(state.trace) if state.trace is not None else ()
        task.file_dep = sorted({*task.file_dep, *inputs})
        task.meta = None
        CoreInfo._execute(self, [task.name], hide_status=True)

    # All --------------------------------------------------------------------------------

    def _all(self, builds: Sequence[Build]) -> int:
        others = self._other_tasks({task.name: task for task in self.task_list})
        surveys = self._surveys(builds, {name for name, _ in others}) if builds else []
        quiet = [
            one.glance.targets
            for one in codegens(self.loader.namespace)
            if one.quiet and one.glance is not None
        ]
        stale = any(_is_stale(found) for found in surveys)
        if self._as_json:
            from . import info_json

            self._print(info_json.of_all(surveys, others, sum(quiet)))
            return int(stale)
        if surveys:
            self._show(builds, surveys)
        for count in quiet:
            self._write(f"{counted(count, 'target')} up to date")
        if others:
            self._write("other tasks: " + ", ".join(f"{n} ({status})" for n, status in others))
        return int(stale)

    def _show(self, builds: Sequence[Build], surveys: Sequence[Survey]) -> None:
        from .info_text import All
        from .screen import Screen

        screen = Screen(self.outstream)
        opted_in = "prune" in self.config.get("COMMAND", {})
        prune = "doit prune" if opted_in else "python -m codegen_tasks prune"
        alone = len(builds) == 1
        for build, found in zip(builds, surveys, strict=True):
            All(screen, build, found, alone, self._whole, prune).show(self._tree)

    def _surveys(self, builds: Sequence[Build], would_run: Collection[str]) -> list[Survey]:
        """Return what is to be said of all builds.

        Raises:
            DeclarationError: nothing is stale, and a rule lacks what no task makes.
        """
        from .. import chains
        from ..survey import survey

        taken = claimed(task for task in self.task_list if not is_ours(task))
        taken = taken.union(*(build.plan.makers for build in builds))
        found = survey(builds, self.dep_manager, taken, would_run)
        if not any(_is_stale(each) for each in found):
            chains.refuse_unmet(codegens(self.loader.namespace))
        return found

    def _other_tasks(self, tasks: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the user's tasks that would run, as far as doit can tell without running.

        Args:
            tasks: all of doit's, by name.
        """
        found = []
        for task in self.task_list:
            if is_ours(task) or task.has_subtask or not task._actions:
                continue
            status = self.dep_manager.get_status(task, tasks).status
            if status != "up-to-date":
                found.append((task.name, status))
        return found

    def _print(self, found: Mapping[str, Any]) -> None:
        self._write(json.dumps(found, ensure_ascii=False, indent=1))

    def _write(self, line: str) -> None:
        self.outstream.write(line + "\n")


@contextlib.contextmanager
def _not_collecting() -> Iterator[None]:
    """Have Python not look for circular garbage: what a look at all makes, it keeps to its end."""
    collecting = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)  # Python looks through all of it again when it ends
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _is_stale(found: Survey) -> bool:
    return any(state.step.phase != "templates" for state in found.stale)


def _step_named(builds: Sequence[Build], name: str) -> tuple[Build, str] | None:
    """Return a step by its task, its target, or its target's name in the output folder."""
    for build in builds:
        if name in build.plan.steps:
            return build, name
    for build in builds:
        for known in disk.meant(name, build.project.output):
            if known in build.plan.makers and build.plan.makers[known] in build.plan.steps:
                return build, build.plan.makers[known]
    return None
