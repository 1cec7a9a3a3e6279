"""Steps → doit tasks; the only module that speaks doit's task dictionary.

Each task carries `meta["codegen"]`, its phase and target, for reporters and runners.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from doit.action import BaseAction
from doit.dependency import UptodateCalculator, get_md5
from doit.exceptions import TaskFailed
from doit.globals import Globals

from . import digest, disk, garbage, lock, manifest, orphans, rows, runs, state, steps
from .build import Build, left_in
from .errors import StepError, cause
from .glance import DOCS, group_task
from .model import PHASES, Outcome, Step, Trace
from .orphans import Orphan
from .steps import iso


def tasks_of(build: Build) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a build: a group for each phase, and one for each step.

    Steps of `Build.fresh` have none, and the group tells their number; nor have those of
    `Build.ahead`.  Meanwhile Python does not look for garbage: there is none among tasks.
    """
    with garbage.none_among_new():
        yield from _tasks_of(build)


def _tasks_of(build: Build) -> Iterator[dict[str, Any]]:
    for phase in PHASES:
        if phase == "output":
            yield _output_task(build)
            continue
        steps_of = build.plan.of_phase(phase)
        chosen = [step for step in steps_of if build.has_task(step.task)]
        fresh = sum(step.task in build.fresh for step in steps_of) if build.fresh else 0
        yield group_task(build.project, phase, fresh, len(steps_of) - len(chosen) - fresh)
        for step in chosen:
            yield step_task(build, step)


def step_task(build: Build, step: Step) -> dict[str, Any]:
    """Return the task of one step."""
    template = f"{build.project.templates}/{step.template}"
    task: dict[str, Any] = {
        "basename": build.project.task(step.phase),
        "name": step.target,
        "doc": _doc(build, step),
        "actions": [StepAction(build, step)],
        "uptodate": [StepUptodate(build, step)],
        "targets": list(step.outputs),
        "clean": [(clean_step, [build, step])],
        "meta": {"codegen": {"phase": step.phase, "target": step.target}},
    }
    if step.phase == "templates":
        task["file_dep"] = [template]
    elif step.phase == "generate":
        task["file_dep"] = [template, *step.patterns] if step.template else list(step.patterns)
        parsed = build.project.task("templates", step.template)
        known = parsed in build.plan.steps and build.has_task(parsed)
        task["task_dep"] = [parsed] if known else []
    else:
        maker = build.plan.makers[step.source]
        if build.plan.steps[maker].phase == "generate":
            # What the source refers to is known once it was generated: its task's values
            # name the file and the tasks to wait for; see `waits_for`.
            task["calc_dep"] = [maker]
        else:
            task["file_dep"] = [step.source]
    return task


def _doc(build: Build, step: Step) -> str:
    if step.phase == "templates":
        return f"parse {build.project.templates}/{step.template}"
    if step.phase == "compile":
        toolchain = build.project.toolchain(step.rule, step.link)
        return f"compile {step.source} with {toolchain.name}"
    if len(step.patterns) == 1:
        return f"render {step.template} with {step.patterns[0]}"
    return f"render {step.template}"


def _output_task(build: Build) -> dict[str, Any]:
    project = build.project
    return {
        "basename": project.task("output"),
        "doc": DOCS["output"],
        "actions": [ManifestAction(build)],
        "uptodate": [ManifestUptodate(build)],
        "targets": [project.manifest_path],
        "task_dep": [project.task("generate"), project.task("compile")],
        "clean": [(clean_output, [build])],
        "meta": {"codegen": {"phase": "output", "target": ""}},
    }


def waits_for(build: Build, step: Step, references: Iterable[str]) -> dict[str, Any]:
    """Return what compiling a generated file waits for, as values of doit's `calc_dep`.

    A compile task names the generating task of its source as `calc_dep` and nothing else;
    from that task's values doit learns the file, and the tasks that generate what the file
    refers to, whose own values lead on.  A task that another names both as `calc_dep` and,
    by a file, as `task_dep` would be waited for forever: so files of other generating tasks
    are left to their own values.

    Args:
        build: the build.
        step: that generated the file.
        references: paths the file refers to, whether or not a rule makes them.
    """
    plan = build.plan
    if not plan.compiles:
        return {}
    output = step.outputs[0]
    made = sorted({path for path in references if plan.maker(path) is not None} - {output})
    calc = [
        path
        for path in made
        if path in plan.makers and plan.steps[plan.makers[path]].phase == "generate"
    ]
    return {
        "file_dep": [output, *(path for path in made if path not in calc)],
        "calc_dep": sorted({plan.makers[path] for path in calc}),
    }


def result_of(trace: Trace) -> str:
    """Return a task's result for doit's `result_dep`: it differs if an output's bytes do."""
    return digest.of_parts(*(f"{output.path} {output.digest}" for output in trace.outputs))


def adopt(task: Any, build: Build, outcome: Outcome) -> TaskFailed | None:
    """Give a doit task what its step came to; return the failure, if it is one."""
    if outcome.error:
        return TaskFailed(outcome.error)
    assert outcome.trace is not None
    step = build.plan.steps[outcome.task]
    task.values = build.values(outcome)
    if step.phase == "generate":
        task.values |= waits_for(build, step, outcome.references)
    task.result = result_of(outcome.trace)
    task.file_dep.update(build.inputs_inside(outcome.trace))
    return None


def packed(build: Build, outcome: Outcome, packer: rows.Packer) -> Outcome:
    """Return what a step came to with its record made, in any process.

    The record is that of `adopt`, but for `Build.left`.  The trace is left out, unless it is
    to be settled.
    """
    trace = outcome.trace
    if trace is None:
        return outcome
    step = build.plan.steps[outcome.task]
    values = build.beside(outcome.task, trace, outcome.references)
    if step.phase == "generate":
        values |= waits_for(build, step, outcome.references)
    text = packer.pack(trace, values, {"result:": get_md5(result_of(trace))})
    parts, packer.parts = packer.parts, {}
    entries = manifest.entries_of(build.project, (trace,))
    return outcome.packed(text, parts or None, entries, build.told(step, trace))


def adopt_packed(task: Any, build: Build, outcome: Outcome, dep_manager: Any) -> None:
    """Record a step whose record is made; what doit waits for next becomes its task's values."""
    step = build.plan.steps[outcome.task]
    record_packed(build, outcome, dep_manager)
    task.values = waits_for(build, step, outcome.references) if step.phase == "generate" else {}


def record_packed(build: Build, outcome: Outcome, dep_manager: Any) -> None:
    """Record a step whose record is made."""
    backend = dep_manager.backend
    backend.put(outcome.task, outcome.record, outcome.parts or {})
    made = [f"{build.project.output}/{key}" for key in outcome.entries or ()]
    left = build.left(outcome.task, made)
    if left:
        values = dep_manager.get_values(outcome.task)
        backend.set(outcome.task, "_values_:", {**values, **left})


class StepAction(BaseAction):
    """Runs one step under any of doit's runners; ours batches steps without it."""

    def __init__(self, build: Build, step: Step):
        self.build = build
        self.step = step
        self.task: Any = None
        self.out: str | None = None
        self.err: str | None = None
        self.result: Any = None
        self.values: dict[str, Any] = {}

    def execute(self, out: Any = None, err: Any = None) -> TaskFailed | None:
        """Run the step; doit calls this in whichever process or thread it likes."""
        build, step = self.build, self.step
        if Globals.dep_manager is not None:
            lock.of(Globals.dep_manager, build.project.full(build.project.state)).acquire()
        # A workshop of its own: doit's thread runner may run two actions at once.
        workshop = steps.Workshop(build.project, build.plan, build.world)
        outcome = workshop.run_one(step, build.recorded(step, None))
        workshop.publisher.log(step, outcome)
        self.finish(outcome)
        if Globals.dep_manager is not None:
            runs.of(Globals.dep_manager).step(outcome)
        if out is not None and outcome.printed:
            out.write(outcome.printed)
        return adopt_action(self, outcome)

    def finish(self, outcome: Outcome) -> None:
        """Show reporters what the step printed."""
        self.out, self.err = outcome.printed, ""

    def __str__(self) -> str:
        return f"codegen-tasks: {self.step.task}"


def adopt_action(action: StepAction, outcome: Outcome) -> TaskFailed | None:
    """Give a doit action what its step came to, as doit's own `Task.execute` expects it."""
    failure = adopt(action.task, action.build, outcome)
    if failure is None:
        action.values, action.result = action.task.values, action.task.result
    return failure


class StepUptodate(UptodateCalculator):
    """Doit's question whether a step is up to date, answered from its trace."""

    #: doit asks for the signature of each task's object; this answers at once.
    __signature__ = inspect.Signature(
        [
            inspect.Parameter("task", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            inspect.Parameter("values", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        ]
    )

    def __init__(self, build: Build, step: Step):
        super().__init__()
        self.build = build
        self.step = step
        self._dependency: Any = None

    def setup(self, dep_manager: Any, tasks_dict: Any) -> None:
        """Doit hands over its database before it asks."""
        super().setup(dep_manager, tasks_dict)
        self._dependency = dep_manager

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        """Answer; the arguments' names are how doit knows what to pass."""
        verdict = self.build.verdict(self.step, values)
        if verdict.reasons:
            runs.of(self._dependency).reasons[task.name] = verdict.reasons
            return False
        assert verdict.trace is not None
        runs.of(self._dependency).fresh.add(task.name)
        self._restore(task, verdict.trace)
        kept = dict(values)
        if verdict.refreshed is not None:
            kept["trace"] = verdict.refreshed.to_values()
        if self.step.phase == "generate":  # a file it refers to may have got or lost its rule
            kept |= waits_for(self.build, self.step, values.get("references", ()))
        if kept != values:
            self._dependency._set(task.name, "_values_:", kept)
        return True

    def _restore(self, task: Any, trace: Trace) -> None:
        """Let doit's own file check, which comes next, agree with the verdict.

        The discovered inputs become `file_dep` again, and doit is told that none of them has
        changed; of what it recorded itself, nothing is needed.
        """
        dependency, name = self._dependency, task.name
        checker = dependency.checker
        chosen = type(checker).__name__
        supply = getattr(dependency.backend, "supply", None)
        if supply is None:
            self._record_states(task, chosen)
            return
        task.file_dep.update(self.build.inputs_inside(trace))
        states: dict[str, Any] = {"checker:": chosen, "deps:": None}
        for path in task.file_dep:
            if chosen == "MD5Checker":
                states[path] = _UNCHANGED
                continue
            with contextlib.suppress(OSError):  # doit reports a missing file itself
                states[path] = checker.get_state(path, None)
        supply(name, states)

    def _record_states(self, task: Any, chosen: str) -> None:
        """Do the same in another backend than ours, which has to record it.

        A file whose bytes changed without meaning (a comment in a pattern) gets its new
        state; so do all if another of doit's checkers was chosen.
        """
        dependency, name = self._dependency, task.name
        checker = dependency.checker
        task.file_dep.update(dependency._get(name, "deps:") or ())
        same = dependency._get(name, "checker:") == chosen
        for path in task.file_dep:
            state = dependency._get(name, path) if same else None
            try:
                if state is None or checker.check_modified(path, checker.info(path), state):
                    dependency._set(name, path, checker.get_state(path, None))
            except OSError:
                continue  # doit reports a missing file itself
        if not same:
            dependency._set(name, "checker:", chosen)


class _AnyTime:
    """Equals any modification time."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


#: A state of doit's `MD5Checker` (time, size, md5) that tells it that a file has not changed.
_UNCHANGED = (_AnyTime(), 0, "")


class ManifestUptodate(UptodateCalculator):
    """Whether the manifest says what the traces say."""

    def __init__(self, build: Build):
        super().__init__()
        self.build = build

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        """Answer, and leave on the task what the manifest should say."""
        wanted = self.build.manifest_wanted(self._recorded)
        due = bool(self.build.manifest_due(wanted))
        # Kept on the task, where doit's runners carry it to the action in any process.
        task.meta["manifest"] = wanted
        left = orphans.unlisted(self.build, wanted, values) if due else values.get("left", {})
        task.meta["left"] = left
        return not due

    def _recorded(self, task: str) -> Trace | None:
        return Trace.from_values((self.get_val(task, "_values_:") or {}).get("trace"))


class ManifestAction(BaseAction):
    """Writes the complete manifest."""

    def __init__(self, build: Build):
        self.build = build
        self.task: Any = None
        self.out: str | None = ""
        self.err: str | None = ""
        self.result: Any = None
        self.values: dict[str, Any] = {}

    def execute(self, out: Any = None, err: Any = None) -> TaskFailed | None:
        """Write what `ManifestUptodate` found missing."""
        try:
            self.build.write_manifest(self.task.meta["manifest"], iso(time.time()), part=False)
        except StepError as error:
            return TaskFailed(str(error))
        left = self.task.meta["left"]
        self.values = {"left": left} if left else {}
        return None

    def __str__(self) -> str:
        return "codegen-tasks: output"


# Cleaning -------------------------------------------------------------------------------


def clean_step(build: Build, step: Step, dryrun: bool) -> None:
    """Remove a step's outputs and log; what was edited by hand is kept aside first.

    What cannot be removed stays, with a line that says why: doit would show a traceback.
    """
    project = build.project
    if not dryrun:
        hold(build, Globals.dep_manager)
    if step.phase == "templates":
        if not dryrun:
            steps.template_cache(project).forget(step.template)
        return
    values = Globals.dep_manager.get_values(step.task) if Globals.dep_manager else {}
    # A step that failed has no trace, and its record tells what it made before.
    known = build.recorded(step, Trace.from_values(values.get("trace"))) | left_in(values)
    for path in step.outputs:
        found = build.world.file(path, None)
        if found and path in known:  # else nothing is there, or nothing that we made
            _clean_file(build, step.task, Orphan(path, found != known[path]), dryrun)
    if not dryrun:
        disk.clear(project.full(project.log_path(step.phase, step.target)))
        disk.remove_empty_folders(project.full(project.output), project.root)


def _clean_file(build: Build, task: str, file: Orphan, dryrun: bool) -> bool:
    """Remove a file that we made; False if it is still there."""
    print(f"{task} - removing file '{file.path}'")
    if dryrun:
        return False
    try:
        kept = orphans.remove(build, file)
    except (StepError, OSError) as error:
        said = str(error) if isinstance(error, StepError) else cause(error)
        print(f"{task} - '{file.path}' cannot be removed: {said}")
        return False
    if kept:
        print(f"{task} - '{file.path}' was edited by hand, kept aside as '{kept}'")
    return True


def hold(build: Build, manager: Any) -> None:
    """Wait until nobody builds, and let nobody begin until this command ends.

    Args:
        build: the build.
        manager: doit's database; None if there is none.
    """
    folder = build.project.full(build.project.state)
    if manager is None or not os.path.isdir(folder):
        return
    held = lock.of(manager, folder)
    if held.held:
        return
    held.acquire()
    if held.left_behind:
        build.sweep()
        held.swept()
    if state.refresh(manager):
        build.renew()


def clean_output(build: Build, dryrun: bool) -> None:
    """Remove orphans, and all of the state folder but database and `kept/`.

    The database is doit's: other tasks have their records in it.
    """
    project, task = build.project, build.project.task("output")
    if not dryrun:
        hold(build, Globals.dep_manager)
    taken = _claimed_by_others(build)
    found = orphans.find(build, Globals.dep_manager, taken, doubtful=True)
    staying = [file.path for file in found if not _clean_file(build, task, file, dryrun)]
    print(f"{task} - removing '{project.home}' but what was kept aside")
    if dryrun:
        return
    build.remember_manifest()  # the steps cleaned after this one still ask it
    home, output = project.full(project.home), project.full(project.output)
    with contextlib.suppress(OSError):
        disk.remove(project.full(project.manifest_path))
    disk.sweep(output)
    orphans.forget(build, Globals.dep_manager, staying)
    for name in ("cache", "logs", "maps", "tmp", "snapshot"):
        disk.clear(os.path.join(home, name))
    for name in ("runs", "report.html"):
        disk.clear(project.full(f"{project.state}/{name}"))
    disk.remove_empty_folders(output, project.root)
    disk.remove_empty_folders(home, project.root)


def _claimed_by_others(build: Build) -> set[str]:
    """Return what other Codegen objects of the `dodo.py` make."""
    others = vars(Globals.dep_manager).get("codegens", ()) if Globals.dep_manager else ()
    return {path for other in others for path in other.build.plan.makers}
