"""Chains: our steps wait for the tasks of the same `dodo.py` that make what they read.

What a rule names is known before a run: a pattern or template that another task makes.  What
else a step read is known from its last run.  A file met for the first time is waited for when
it is met, see `CodegenRunner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.loader import generate_tasks

from . import disk, patterns
from .build import Build
from .glance import would_read
from .model import PHASES, Step
from .ours import is_ours
from .tasks import step_task, tasks_of

if TYPE_CHECKING:
    from .codegen import Codegen


def complete(codegens: Sequence[Codegen], tasks: Sequence[Any]) -> list[Any]:
    """Return doit's tasks with ours as they are once it is known what the others make.

    Args:
        codegens: of the `dodo.py`.
        tasks: all that doit has loaded.

    Raises:
        DeclarationError: a rule lacks its template or patterns, and no task makes them.
    """
    found = _agreed(codegens, tasks)
    if not any(codegen.build.plan.late for codegen in codegens):
        refuse_unmet(codegens)
    return found


def again(codegens: Sequence[Codegen], tasks: Sequence[Any]) -> list[Any]:
    """Return doit's tasks with ours planned anew: tasks have made patterns that name targets."""
    return _agreed(codegens, tasks, anew=True)


def unabridged(codegens: Sequence[Codegen], tasks: Sequence[Any]) -> list[Any]:
    """Return doit's tasks with one for each of our steps, those with no work included."""
    found = list(tasks)
    for codegen in codegens:
        build = codegen.look_closer()
        found = _replaced(found, set(_names(build)), build)
    return found


def abridged(codegens: Sequence[Codegen], tasks: Sequence[Any]) -> list[Any]:
    """Return doit's tasks with ours as the builds are now: see `Build.has_task`."""
    found = list(tasks)
    for codegen in codegens:
        found = _replaced(found, set(_names(codegen.build)), codegen.build)
    return found


def refuse_unmet(codegens: Sequence[Codegen]) -> None:
    """Raise what a rule lacks, unless patterns are still to come that may bring it.

    Raises:
        DeclarationError: a rule lacks its template or patterns, and no task makes them.
    """
    plans = [codegen.build.plan for codegen in codegens]
    if not any(plan.unread for plan in plans):
        for problem in (problem for plan in plans for problem in plan.unmet):
            raise problem


def _agreed(codegens: Sequence[Codegen], tasks: Sequence[Any], anew: bool = False) -> list[Any]:
    """Return doit's tasks when each Codegen knows what the others, and all tasks, make.

    Args:
        codegens: of the `dodo.py`.
        tasks: doit's.
        anew: patterns that name targets may say something else by now.
    """
    found = list(tasks)
    for turn in range(len(codegens) + 1):
        agreed = True
        for codegen in codegens:
            plan = codegen.build.plan
            ours = set(_names(codegen.build))
            others = {
                disk.relative(str(target)): task.name
                for task in found
                if task.name not in ours
                for target in task.targets
            }
            news = {path for path, _ in others.items() ^ plan.others.items()}
            outputs = _outputs_read(codegen, codegens)
            renewed = (anew and plan.late and not turn) or plan.outputs != outputs
            if renewed or would_read(codegen.project, news):
                found = _replaced(found, ours, codegen.plan_again(others, outputs))
                agreed = False
            else:
                plan.others = others
        if agreed:
            break
    return found


def _outputs_read(codegen: Codegen, codegens: Iterable[Codegen]) -> tuple[str, ...]:
    """Return the output folders of other Codegen objects in which a rule may find patterns."""
    globs = [glob for rule in codegen.project.rules.values() for glob in rule.patterns]
    found = {one.project.output for one in codegens if one is not codegen}
    return tuple(sorted(f for f in found - {codegen.project.output} if patterns.reaches(globs, f)))


def _names(build: Build) -> Iterator[str]:
    yield from map(build.project.task, PHASES)
    yield from build.plan.steps


def _replaced(tasks: Sequence[Any], old: set[str], build: Build) -> list[Any]:
    # A namesake that is not ours stays, for doit to refuse.
    gone = [task.name in old and is_ours(task) for task in tasks]
    place = gone.index(True) if True in gone else len(tasks)
    new = generate_tasks("codegen", tasks_of(build))
    left = [task for task, out in zip(tasks, gone, strict=True) if not out]
    return [*left[:place], *new, *left[place:]]


class OnDemand(dict[str, Any]):
    """doit's tasks by name; one of our steps that has no work gets its task when it is asked for.

    Args:
        tasks: those that there are.
        builds: of all Codegen objects.
    """

    def __init__(self, tasks: Mapping[str, Any], builds: Sequence[Build]):
        super().__init__(tasks)
        self._builds = builds

    def __missing__(self, name: str) -> Any:
        build = next((one for one in self._builds if not one.has_task(name)), None)
        if build is None:
            raise KeyError(name)
        steps = [build.plan.steps[name]]
        *_, task = generate_tasks("codegen", (step_task(build, step) for step in steps))
        # Among those of which the task of its phase tells the number.
        task.meta["codegen"]["counted"] = build.project.task(steps[0].phase)
        self[name] = task
        return task

    def __reduce__(self) -> Any:
        """Pickle what there is."""
        return (dict, (dict(self),))


# Waiting --------------------------------------------------------------------------------


def order(builds: Iterable[Build], tasks: Sequence[Any], dep_manager: Any) -> None:
    """Have each task of ours wait for the tasks that make what it is known to read.

    What it read the last time it may not read again: so that never makes a circle.
    """
    known = {task.name: task for task in tasks}
    graph = _Graph(known)
    for build in builds:
        for step in build.plan.steps.values():
            if step.task not in known:
                continue
            task = known[step.task]
            for name in _declared(build, step):
                _wait(task, name)
            for name in _read_before(build, step, dep_manager):
                if name in known and not graph.leads(name, step.task):
                    if name not in task.task_dep:
                        build.hints.setdefault(step.task, set()).add(name)
                    _wait(task, name)


def _wait(task: Any, name: str) -> None:
    if name not in task.task_dep and name != task.name:
        task.task_dep.append(name)


def _declared(build: Build, step: Step) -> Iterator[str]:
    """Yield tasks that are not ours and make a step's template or pattern."""
    others = build.plan.others
    if not others or step.phase == "compile":
        return
    rule = build.project.rules.get(step.rule)
    schema = (rule.schema,) if rule is not None and rule.schema is not None else ()
    for path in (f"{build.project.templates}/{step.template}", *step.patterns, *schema):
        if path in others:
            yield others[path]


def _read_before(build: Build, step: Step, dep_manager: Any) -> Iterator[str]:
    """Yield the tasks that make what a step read the last time besides what its rule names."""
    if step.phase == "templates":
        return
    # A compile task knows by `calc_dep` what of ours it waits for: see `tasks.waits_for`.
    maker = build.plan.maker if step.phase == "generate" else build.plan.others.get
    for path in dep_manager.get_values(step.task).get("chained", ()):
        name = maker(path)
        if name is not None:
            yield name


class _Graph:
    """Who waits for whom among doit's tasks, as they are when it is asked."""

    def __init__(self, tasks: Mapping[str, Any]):
        self._tasks = tasks
        self._makers = {target: task.name for task in tasks.values() for target in task.targets}

    def leads(self, name: str, to: str) -> bool:
        """Tell whether a task waits for another, at any remove."""
        seen, todo = {name}, [name]
        while todo:
            current = todo.pop()
            if current == to:
                return True
            new = self._waits_for(current) - seen
            seen |= new
            todo += new
        return False

    def _waits_for(self, name: str) -> set[str]:
        task = self._tasks.get(name)
        if task is None:
            return set()
        made = {self._makers[path] for path in task.file_dep if path in self._makers}
        return {*task.task_dep, *task.calc_dep, *task.setup_tasks, *made}
