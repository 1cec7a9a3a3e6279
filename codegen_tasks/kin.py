"""Who depends on a step: the steps and the tasks that read what it makes."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import disk, snapshot, state
from .build import Build
from .glance import path_of
from .model import PATH_KINDS, Step
from .ours import is_ours


@dataclass(frozen=True, slots=True)
class Kin:
    """Who depends on a step, by task.

    Args:
        compiles: steps that compile what it makes, or something that refers to it.
        renders: steps that read it while they render.
        tasks: tasks that are not ours.
    """

    compiles: tuple[str, ...] = ()
    renders: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


def kin_of(builds: Sequence[Build], step: Step, dep_manager: Any, tasks: Iterable[Any]) -> Kin:
    """Return who depends on a step of one of the builds.

    Args:
        builds: of all Codegen objects.
        step: the step.
        dep_manager: doit's database.
        tasks: doit's, those that are not ours among them.
    """
    build = next(one for one in builds if step.task in one.plan.steps)
    paths = set(step.outputs)
    if step.phase == "templates":
        paths = {f"{build.project.templates}/{step.template}"}
    found: dict[str, list[str]] = {"compile": [], "generate": [], "templates": []}
    for one in builds:
        read = _readers(one, paths, dep_manager)
        for task, other in one.plan.steps.items():
            if task != step.task and (task in read or _declares(one, other, paths)):
                found[other.phase].append(task)
    group = build.project.task(step.phase)
    theirs = tuple(task.name for task in tasks if _wants(task, step, {step.task, group}))
    return Kin(tuple(found["compile"]), tuple(found["generate"]), theirs)


def _declares(build: Build, step: Step, paths: Collection[str]) -> bool:
    if step.phase == "compile":
        return step.source in paths
    template = f"{build.project.templates}/{step.template}"
    return template in paths or any(path in paths for path in step.patterns)


def _readers(build: Build, paths: Collection[str], dep_manager: Any) -> set[str]:
    """Return the steps that have read one of the paths, at their last run."""
    still = getattr(dep_manager.backend, "still", None)
    kept = snapshot.read(path_of(build.project)) if still is not None else None
    if kept is not None and still is not None and still(kept.stamp):
        return {kept.tasks[n] for n in kept.readers_of(paths)}
    return {task for task in build.plan.steps if _has_read(task, paths, dep_manager)}


def _has_read(task: str, paths: Collection[str], dep_manager: Any) -> bool:
    trace = state.trace(dep_manager, task)
    inputs = trace.inputs if trace is not None else ()
    return any(item.kind in PATH_KINDS and item.name in paths for item in inputs)


def _wants(task: Any, step: Step, names: Collection[str]) -> bool:
    """Tell whether a task that is not ours waits for a step, by name, group, wildcard or file."""
    if is_ours(task):
        return False
    if any(name in names for name in _named(task)):
        return True
    if any(fnmatch.fnmatch(step.task, pattern) for pattern in task.wild_dep):
        return True
    return any(disk.relative(str(path)) in step.outputs for path in task.file_dep)


def _named(task: Any) -> Iterator[str]:
    yield from task.task_dep
    yield from task.setup_tasks
    yield from task.calc_dep
    yield from (given[0] for given in task.getargs.values())
    yield from (one[0].dep_name for one in task.uptodate if hasattr(one[0], "dep_name"))
