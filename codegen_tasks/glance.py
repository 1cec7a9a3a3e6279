"""What of a project may have work, seen from its snapshot before any task is made.

A run that has nothing to do gets one task for each phase and one for each step that was named;
one with little to do gets the tasks of what may have work.  Whatever the snapshot cannot vouch
for is left to the plan and its verdicts.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from . import digest, disk, lock, patterns, snapshot, state
from .errors import StepError
from .folders import Folders
from .model import PHASES, Input, Phase, Step
from .ours import is_ours
from .project import FORMAT, Project
from .snapshot import Fact, Kept, Row, Snapshot
from .state import recorded_tasks
from .world import World

if TYPE_CHECKING:
    from .build import Build
    from .plan import Plan

DOCS = {
    "templates": "parse templates into the cache",
    "generate": "render templates with patterns",
    "compile": "compile what was generated",
    "output": "complete the manifest",
}


#: So many steps are changed in the snapshot that there is; for more it is made anew.
_FEW = 1000


def path_of(project: Project) -> str:
    """Return where a project's snapshot lies, absolute."""
    return project.full(f"{project.home}/snapshot")


def declaration_of(project: Project) -> str:
    """Return the digest of what was declared, as far as the steps hang on it."""
    rules = [
        [
            *(rule.name, rule.template, rule.target, list(rule.patterns), rule.each),
            [[tool.identity, tool.files(project.root)] for tool in rule.tools],
            rule.context is not None,
        ]
        for rule in project.rules.values()
    ]
    folders = [project.templates, project.output, project.state, project.name]
    return digest.of_data([FORMAT, folders, project.settings.template_cache, rules])


def lists_of(found: Iterable[Iterable[str]]) -> str:
    """Return the digest of lists of names."""
    return digest.of_parts(*("\0".join(names) for names in found))


class Glance:
    """A project beside its snapshot.

    Args:
        project: what was declared.
        kept: the snapshot.
    """

    def __init__(self, project: Project, kept: Kept):
        self.project = project
        self.kept = kept
        self._world = World(project)
        self.sources = self._world.sources
        #: The folders that had to be listed.
        self.folders = Folders(project.root)
        files = kept.changed_files(project.root)
        facts = kept.changed_facts(self._holds)
        self._stale = kept.steps_of(files, facts)
        #: Whether the steps are those of the snapshot.
        self.planned = (
            kept.plan == declaration_of(project)
            and files.isdisjoint(kept.asked)
            and kept.places == _places(project, kept.places)
            and ((kept.listed and files.isdisjoint(kept.folders)) or kept.lists == self._lists())
        )
        #: Whether the manifest says what the steps made.
        self.complete = kept.manifest is not None and kept.manifest == disk.stat(
            project.full(project.manifest_path)
        )

    def _holds(self, fact: Fact) -> bool:
        """Tell whether an input that is no file is as it was; no program is started for it."""
        kind, name, rule, link, content, stat = fact
        step = Step("compile", "", "", rule=rule, link=link)
        item = Input(kind, name, content, stat)
        try:
            if kind == "toolchain" and (stat is None or self._world.signature(step, item) != stat):
                return False
            return self._world.current(step, item)[0] == content
        except (KeyError, IndexError):
            return False  # there is no such rule any more

    def _lists(self) -> str:
        from .plan import template_names

        project, folders = self.project, self.folders
        found = [
            patterns.discover(project.root, rule.patterns, folders=folders)
            for rule in project.rules.values()
        ]
        return lists_of([template_names(project, (), folders), *found])

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to do, and nobody else is doing anything."""
        folder = self.project.full(self.project.state)
        fresh = not self._stale and self.planned and self.complete
        return fresh and lock.Lock(folder).holder() is None

    @property
    def targets(self) -> int:
        """The number of steps that make targets."""
        phases: tuple[Phase, ...] = ("generate", "compile")
        return sum(self.kept.phases.get(self.project.task(phase), 0) for phase in phases)

    @cached_property
    def _named(self) -> dict[str, int]:
        kept = self.kept
        found = {task: number for number, task in enumerate(kept.tasks)}
        for number in range(len(kept.tasks)):
            found.update(dict.fromkeys(kept.made(number), number))
        return found

    def numbers_of(self, names: Iterable[str]) -> set[int]:
        """Return the steps that are named by task, target or wildcard."""
        found: set[int] = set()
        for name in names:
            if "*" in name:
                tasks = enumerate(self.kept.tasks)
                found.update(n for n, task in tasks if fnmatch.fnmatch(task, name))
            else:
                ways = (name, *disk.meant(name, self.project.output))
                found.update({self._named[way] for way in ways if way in self._named})
        return found

    # Nothing to do ----------------------------------------------------------------------

    def records(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return what doit's database says of the tasks that `tasks` yields, as far as it matters.

        Those of steps are left out: that there is nothing to do is known already.
        """
        named: dict[str, dict[str, Any]] = {self.kept.tasks[n]: {} for n in self.numbers_of(names)}
        return {**self.kept.records, **named}

    def go_on(self, dep_manager: Any) -> None:
        """Tie the snapshot to the database again, in which nothing of ours has changed since."""
        backend, kept = dep_manager.backend, self.kept
        stamp = backend.stamp() if backend.has_written else ""
        if not stamp or not backend.still(kept.stamp):
            return
        head = {"stamp": stamp, "manifest": kept.manifest, "records": kept.records}
        data, home = kept.renewed({}, head), self.project.full(self.project.home)
        with contextlib.suppress(StepError):
            disk.write_ours(path_of(self.project), data or b"", home)

    def tasks(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yield doit's tasks of a project with nothing to do: phases, and the steps named."""
        chosen = sorted(self.numbers_of(names))
        for phase in PHASES:
            group = self.project.task(phase)
            if phase == "output":
                yield self._fresh(phase, "", [self.project.manifest_path])
                continue
            of_phase = [n for n in chosen if self.kept.tasks[n].startswith(f"{group}:")]
            yield group_task(self.project, phase, self.kept.phases.get(group, 0) - len(of_phase))
            for number in of_phase:
                target = self.kept.tasks[number].removeprefix(f"{group}:")
                made = self.kept.made(number) if phase != "templates" else []
                yield self._fresh(phase, target, made)

    def _fresh(self, phase: Phase, target: str, made: list[str]) -> dict[str, Any]:
        task: dict[str, Any] = {
            "basename": self.project.task(phase),
            "doc": DOCS[phase],
            "actions": [(_too_late, [self.project.task(phase, target)])],
            "uptodate": [True],
            "targets": made,
            "meta": {"codegen": {"phase": phase, "target": target}},
        }
        if target:
            task["name"] = target
        else:
            task["task_dep"] = [self.project.task("generate"), self.project.task("compile")]
        return task

    # Little to do -----------------------------------------------------------------------

    def fresh(self, plan: Plan, names: Iterable[str]) -> set[str]:
        """Return the steps of a plan that have no work, whatever the others come to.

        Args:
            plan: of the project as it is.
            names: tasks, targets and wildcards; the steps they name are left out.
        """
        if not is_simple(plan):
            return set()
        kept = self.kept
        named = self.numbers_of(names)
        numbers = {task: number for number, task in enumerate(kept.tasks)}
        found = {}
        for task, step in plan.steps.items():
            number = numbers.get(task)
            if number is None or number in self._stale or number in named:
                continue
            if self.planned or kept.mark(number) == self._mark(step):
                found[number] = task
        moving = {p for t in plan.steps.keys() - set(found.values()) for p in plan.steps[t].outputs}
        while moving:
            reading = kept.readers_of(moving) & found.keys()
            moving = {path for n in reading for path in plan.steps[found.pop(n)].outputs}
        return set(found.values())

    def _mark(self, step: Step) -> int:
        return snapshot.mark_of(step, self._world.declared(step))

    def reads(self, paths: Collection[str]) -> bool:
        """Tell whether a file is or would be a pattern or template, or has been read."""
        known = bool(paths) and not set(self.kept.paths).isdisjoint(paths)
        return known or would_read(self.project, paths)


def is_simple(plan: Plan) -> bool:
    """Tell whether all steps are known before the first runs, and by this Codegen alone."""
    return not (plan.late or plan.unknown or plan.unread or plan.unmet or plan.outputs)


def are_concerned(glances: Iterable[Glance], tasks: Sequence[Any]) -> bool:
    """Tell whether tasks that are not ours want a step that has no work, or make what it reads.

    Args:
        glances: of all Codegen objects.
        tasks: doit's.
    """
    glances = list(glances)
    if want_steps(tasks):
        return True
    others = [task for task in tasks if not is_ours(task)]
    made = {disk.relative(str(target)) for task in others for target in task.targets}
    names = {task.name for task in others}
    return any(one.reads(made) or not names.isdisjoint(one.kept.tasks) for one in glances)


def want_steps(tasks: Sequence[Any]) -> bool:
    """Tell whether tasks that are not ours may want a step that has no task."""
    others = [task for task in tasks if not is_ours(task)]
    present = {task.name for task in tasks}
    ours = present.difference(task.name for task in others)
    for task in others:
        named = {*task.task_dep, *task.setup_tasks}
        asked = {given[0] for given in task.getargs.values()} & ours
        asked |= {one[0].dep_name for one in task.uptodate if hasattr(one[0], "dep_name")} & ours
        if task.loader or task.wild_dep or task.calc_dep or asked or not named <= present:
            return True
    return False


def preceding(tasks: Sequence[Any], selected: Sequence[str] | None) -> list[str]:
    """Return the tasks that are not ours and run before one of ours: they could give it work.

    Args:
        tasks: doit's.
        selected: what was selected by name; None if nothing was.
    """
    order = _order(tasks, selected)
    needed = _needed(order, _selected(tasks, selected))
    last = max((place for place, name in enumerate(order) if is_ours(order[name][0])), default=0)
    waiting = _waiting(order)
    return [
        name
        for name, (task, _) in list(order.items())[:last]
        if task._actions and name not in waiting and name in needed
    ]


def come_between(tasks: Sequence[Any], selected: Sequence[str] | None) -> bool:
    """Tell whether a task that is not ours runs after one of ours and could give work to another.

    Args:
        tasks: doit's.
        selected: what was selected by name; None if nothing was.
    """
    order = _order(tasks, selected)
    waiting, came, over = _waiting(order), False, set()
    for name, (task, _) in order.items():
        if not is_ours(task):
            came = came or bool(task._actions and name in waiting)
            continue
        ours, group = task.meta["codegen"], name.partition(":")[0]
        # All templates have been parsed for what was rendered.
        done = ours["phase"] == "templates" and group.replace("templates", "generate") in over
        if came and not done and (ours["target"] or ours.get("fresh") or ours.get("ahead")):
            return True
        over.add(name)
    return False


def _waiting(order: Mapping[str, tuple[Any, tuple[str, ...]]]) -> set[str]:
    """Return the tasks that run after one of ours for which they wait, and ours."""
    found: set[str] = set()
    for name, (task, before) in order.items():
        if is_ours(task) or not found.isdisjoint(before):
            found.add(name)
    return found


def _needed(order: Mapping[str, tuple[Any, tuple[str, ...]]], chosen: Iterable[str]) -> set[str]:
    """Return the tasks that are asked for anyway; others only set up for one that does run."""
    found: set[str] = set()
    left = [name for name in chosen if name in order]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            task, before = order[name]
            left += [one for one in before if one in order and one not in task.setup_tasks]
    return found


def _selected(tasks: Sequence[Any], selected: Sequence[str] | None) -> Iterator[str]:
    """Yield the names of tasks that are selected, by whatever name."""
    known = [task.name for task in tasks]
    makers = {target: task.name for task in tasks for target in task.targets}
    for name in known if selected is None else selected:
        yield from fnmatch.filter(known, name) if "*" in name else [makers.get(name, name)]


def _order(
    tasks: Sequence[Any], selected: Sequence[str] | None
) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Return the selected tasks, and what each waits for, in the order in which doit takes them."""
    known = {task.name: task for task in tasks}
    makers = {target: task.name for task in tasks for target in task.targets}
    found: dict[str, tuple[Any, tuple[str, ...]]] = {}
    seen: set[str] = set()
    left = [(name, False) for name in _selected(tasks, selected)][::-1]
    while left:
        name, are_taken = left.pop()
        if name not in known or (name in seen and not are_taken):
            continue
        task = known[name]
        read = (makers[path] for path in task.file_dep if path in makers)
        before = (*task.task_dep, *read, *task.setup_tasks)
        if are_taken:
            found[name] = (task, before)
            continue
        seen.add(name)
        left += [(name, True), *((one, False) for one in reversed(before))]
    return found


def group_task(project: Project, phase: Phase, fresh: int = 0, ahead: int = 0) -> dict[str, Any]:
    """Return the doit task that stands for a phase.

    Args:
        project: what was declared.
        phase: which.
        fresh: how many of its steps are up to date and have no task of their own.
        ahead: how many have none because they are restored before the others run.
    """
    return {
        "basename": project.task(phase),
        "name": None,
        "doc": DOCS[phase],
        "meta": {"codegen": {"phase": phase, "target": "", "fresh": fresh, "ahead": ahead}},
    }


def _too_late(task: str) -> TaskFailed:
    """Fail a step that had no work when we looked, and has a moment later."""
    return TaskFailed(f"{task}: its files were changed while this run began; run doit again")


def look(project: Project, dep_manager: Any) -> Glance | None:
    """Return a project beside its snapshot; None if it has none that can be trusted.

    Args:
        project: what was declared.
        dep_manager: doit's database.
    """
    still: Callable[[str], bool] | None = getattr(dep_manager.backend, "still", None)
    if still is None or not project.settings.incremental:
        return None
    kept = snapshot.read(path_of(project))
    return Glance(project, kept) if kept is not None and still(kept.stamp) else None


# Remembering ----------------------------------------------------------------------------


def remember(build: Build, dep_manager: Any, stamp: str) -> None:
    """Write the snapshot of what has been built; nothing if it says what it said before.

    It is no more than a help: where it cannot be written, the next run goes without.

    Args:
        build: the build, all of whose records have been written.
        dep_manager: doit's database.
        stamp: of that, see `StateDB.stamp`.
    """
    home = build.project.full(build.project.home)
    if not build.project.settings.incremental or not os.path.isdir(home):
        return
    if not is_simple(build.plan) or _concerns(build):
        return
    if dep_manager.backend.spoilt:
        build.glance = None  # the records may be gone that it vouches for
    data = _renewed(build, dep_manager, stamp)
    if data is None:
        data = snapshot.packed(_snapshot(build, dep_manager, stamp))
    with contextlib.suppress(StepError):
        disk.write_ours(path_of(build.project), data, home)


def _concerns(build: Build) -> bool:
    """Tell whether a step reads what a task makes that is not ours."""
    made = build.plan.others
    if not made:
        return False
    reads = {item.name for trace in build.latest.values() for item in trace.inputs}
    reads |= {path for row in build.rows.values() for path, _ in row.read}
    return would_read(build.project, made) or not reads.isdisjoint(made)


def would_read(project: Project, paths: Iterable[str]) -> bool:
    """Tell whether one of some files is, or would be, a pattern or template."""
    globs = {glob for rule in project.rules.values() for glob in rule.patterns}
    folder = f"{project.templates}/"
    return any(
        path.startswith(folder) or any(patterns.matches(path, glob) for glob in globs)
        for path in paths
    )


def _renewed(build: Build, dep_manager: Any, stamp: str) -> bytes | None:
    """Return the snapshot that there was, with what a few steps have read and made since."""
    before = build.glance
    some = {*build.latest, *build.ran}
    if before is None or not before.planned or len(some) > _FEW or build.leaves_behind:
        return None
    if before.kept.tasks != list(build.plan.steps):
        return None  # patterns that name targets were changed after they were looked at
    rows = {task: _row(build, dep_manager, task) for task in some}
    return before.kept.renewed(rows, _head(build, dep_manager, stamp))


def _head(build: Build, dep_manager: Any, stamp: str) -> dict[str, Any]:
    """Return what a snapshot says of the run that it is made after."""
    project = build.project
    groups = [project.task(phase) for phase in PHASES]
    records = {name: dep_manager.backend.record(name) for name in groups}
    return {"stamp": stamp, "manifest": build.manifest_known, "records": records}


def _folders_of(plan: Plan) -> set[str]:
    """Return the folders of all targets and patterns."""
    read = (path for step in plan.steps.values() for path in step.patterns)
    return {path.rpartition("/")[0] for path in (*plan.makers, *read)}


def _places(project: Project, folders: Iterable[str]) -> dict[str, str]:
    """Return where folders truly lie: one that was moved away and linked to is not where it was."""
    return {folder: os.path.realpath(project.full(folder)) for folder in folders}


def _snapshot(build: Build, dep_manager: Any, stamp: str) -> Snapshot:
    before = build.glance
    project, plan, library = build.project, build.plan, build.world.library
    signatures = library.folders.settled()
    globs = [glob for rule in project.rules.values() for glob in rule.patterns]
    return Snapshot(
        plan=declaration_of(project),
        lists=lists_of(plan.lists),
        listed=all(map(patterns.in_one_folder, globs)),
        folders=[(path, stat or snapshot.ABSENT) for path, stat in signatures.items()],
        places=_places(project, _folders_of(plan)),
        asked=[
            (path, library.signature(pattern) or snapshot.ABSENT)
            for path, pattern in plan.asked.items()
        ],
        tidy=_is_tidy(build, dep_manager),
        rows=dict(_rows(build, dep_manager, before)),
        **_head(build, dep_manager, stamp),
    )


def _rows(build: Build, dep_manager: Any, before: Glance | None) -> Iterator[tuple[str, Row]]:
    """Yield what is known of each step: by this run, or by the snapshot it began with."""
    kept = before.kept if before is not None else None
    numbers = {task: number for number, task in enumerate(kept.tasks)} if kept else {}
    for task, step in build.plan.steps.items():
        number = numbers.get(task)
        if kept and number is not None and task not in build.latest and task not in build.ran:
            mark = snapshot.mark_of(step, build.world.declared(step))
            if kept.mark(number) == mark:
                yield task, kept.row(number)
                continue
        yield task, _row(build, dep_manager, task)


def _row(build: Build, dep_manager: Any, task: str) -> Row:
    """Return what this run knows of a step."""
    known = build.rows.get(task)
    if known is not None:
        return known
    step, trace = build.plan.steps[task], build.latest.get(task)
    if task in build.ran and trace is None:
        trace = state.trace(dep_manager, task)
    declared = build.world.declared(step)
    row = snapshot.row_of(step, snapshot.mark_of(step, declared), trace, build.project.templates)
    if trace is not None and not {item.key for item in trace.inputs}.issuperset(declared):
        row.sure = False  # something was given to it only after it had run
    return row


def _is_tidy(build: Build, dep_manager: Any) -> bool:
    """Tell whether all that we have made is made by a rule still."""
    if build.leaves_behind:
        return False
    if build.is_tidy:
        return True
    prefixes = tuple(f"{build.project.task(phase)}:" for phase in PHASES)
    recorded = {n for n in recorded_tasks(dep_manager) or () if n.startswith(prefixes)}
    output = dep_manager.get_values(build.project.task("output")) or {}
    entries = build.remember_manifest()
    made = {f"{build.project.output}/{key}" for key in entries}
    return (
        recorded <= build.plan.steps.keys()
        and made <= build.plan.makers.keys()
        and (not output.get("left"))
    )
