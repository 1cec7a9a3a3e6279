"""Orphans: files that we made and no rule makes any more; found by record, never by folder.

What is ours is known from the traces in doit's database, from what they say was left
behind, and from the manifest, where a step's own record is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import disk, manifest, state
from .build import Build, left_in
from .model import Phase, Trace
from .project import Project
from .state import recorded_tasks
from .steps import iso

_PHASES: tuple[Phase, ...] = ("templates", "generate", "compile")


@dataclass(frozen=True, slots=True)
class Orphan:
    """One file: its path, and whether its bytes are not (as far as can be told) ours any more."""

    path: str
    edited: bool


def find(
    build: Build, dep_manager: Any, claimed: Collection[str] = (), doubtful: bool = False
) -> list[Orphan]:
    """Return the orphans that still lie there, sorted by path.

    Args:
        build: the build.
        dep_manager: doit's database; None if there is none.
        claimed: paths that other tasks make now, so that they are theirs.
        doubtful: those too that may be made of a pattern which cannot be read now, and so
            does not tell its targets.
    """
    names = list(_records(build.project, dep_manager, build.plan.steps))
    known = _made(build.project, dep_manager, names, build.remember_manifest())
    if build.plan.unread and not doubtful:
        sure = _of_others(build.plan.unread, dep_manager, names)
        known = {path: content for path, content in known.items() if path in sure}
    found = []
    for path, content in sorted(known.items()):
        if content and path not in build.plan.makers and path not in claimed:
            edited = _edited(build, path, content)
            if edited is not None:
                found.append(Orphan(path, edited))
    return found


def _of_others(unread: Collection[str], dep_manager: Any, names: Iterable[str]) -> set[str]:
    """Return what was made, as recorded, of other patterns than those that cannot be read."""
    made = [
        ({each.name for each in trace.inputs}, {each.path for each in trace.outputs})
        for name in names
        if (trace := state.trace(dep_manager, name))
    ]
    doubtful: set[str] = set()
    more = set(unread)
    while more:  # what is made of that in turn is as doubtful
        doubtful |= more
        more = {path for read, paths in made if read & more for path in paths} - doubtful
    return {path for _, paths in made for path in paths} - doubtful


def made(project: Project, dep_manager: Any) -> Collection[str]:
    """Return all that we have made, as far as database and manifest remember."""
    listed, _ = manifest.read(project)
    return _made(project, dep_manager, _records(project, dep_manager), listed)


def _made(
    project: Project, dep_manager: Any, names: Iterable[str], listed: manifest.Entries
) -> dict[str, str]:
    """Return what we have made, and its digest.

    Args:
        project: what was declared.
        dep_manager: doit's database.
        names: tasks that may have a record.
        listed: the manifest's entries.
    """
    found: dict[str, str] = {}
    for name in names:
        values = dep_manager.get_values(name) or {}
        trace = Trace.from_values(values.get("trace"))
        for output in trace.outputs if trace is not None else ():
            found[output.path] = output.digest
        for path, content in left_in(values).items():
            found.setdefault(path, content)
    for key, entry in listed.items():
        found.setdefault(f"{project.output}/{key}", entry["checksum"])
    for name in _of_former_names(project, dep_manager):
        for path, content in _in_output(project, dep_manager, name).items():
            found.setdefault(path, content)
    return found


def _of_former_names(project: Project, dep_manager: Any) -> Iterator[str]:
    """Yield our recorded tasks of names that no Codegen has any more: one may have been renamed."""
    if dep_manager is None:
        return
    present = {project.name}
    present |= {other.project.name for other in vars(dep_manager).get("codegens", ())}
    for name in recorded_tasks(dep_manager) or ():
        codegen, _, phase = name.partition(":")[0].rpartition(".")
        if phase in _PHASES and codegen not in present:
            yield name


def _in_output(project: Project, dep_manager: Any, name: str) -> dict[str, str]:
    """Return what a task has made in the output folder of a project, and its digest."""
    values = dep_manager.get_values(name) or {}
    trace = Trace.from_values(values.get("trace"))
    made = {each.path: each.digest for each in trace.outputs} if trace is not None else {}
    prefix = f"{project.output}/"
    all_of_it = {**left_in(values), **made}.items()
    return {path: content for path, content in all_of_it if path.startswith(prefix)}


def _records(project: Project, dep_manager: Any, planned: Iterable[str] = ()) -> Iterator[str]:
    """Yield the names of our tasks that may have a record, those of former rules included.

    Args:
        project: what was declared.
        dep_manager: doit's database; None if there is none.
        planned: tasks to be asked for if the database cannot list its own.
    """
    if dep_manager is None:
        return
    prefixes = tuple(project.task(phase) + ":" for phase in _PHASES)
    names = recorded_tasks(dep_manager)
    for name in planned if names is None else names:
        if name.startswith(prefixes):
            yield name
    yield project.task("output")


def unlisted(build: Build, wanted: manifest.Entries, values: Mapping[str, Any]) -> dict[str, str]:
    """Return path and digest of orphans that the manifest is about to list no more.

    The task `output` keeps them, as steps do in their records: those may be forgotten, and
    not every database can list them.

    Args:
        build: the build.
        wanted: what the manifest is to say.
        values: what doit's database holds for the task `output`.
    """
    project = build.project
    listed, _ = build.manifest_now()
    found = left_in(values)
    for key, entry in listed.items():
        if key not in wanted:
            found[f"{project.output}/{key}"] = entry["checksum"]
    return {
        path: content
        for path, content in found.items()
        if path not in build.plan.makers and disk.stat(project.full(path)) is not None
    }


def _edited(build: Build, path: str, content: str) -> bool | None:
    """Tell whether what lies at `path` is not what we left there; None if nothing does."""
    full = build.project.full(path)
    if not _is_within(build.project, path) or disk.stat(full) is None:
        return None
    # We make no links, and what cannot be read cannot be known to be ours.
    return os.path.islink(full) or build.world.file(path, None) != content


def _is_within(project: Project, path: str) -> bool:
    """Tell whether no link leads from the project to what lies at `path` now."""
    folder = os.path.realpath(os.path.dirname(project.full(path))) + os.sep
    within = (project.root, project.full(project.output))
    return any(folder.startswith(os.path.realpath(place) + os.sep) for place in within)


def remove(build: Build, orphan: Orphan) -> str:
    """Remove an orphan and the folders that it leaves empty; an edited one is kept aside first.

    Returns:
        Where it was kept aside, or "".

    Raises:
        StepError: it cannot be kept aside.
        OSError: it cannot be removed.
    """
    project = build.project
    kept = build.workshop.publisher.keep(orphan.path) if orphan.edited else ""
    full, output = project.full(orphan.path), project.full(project.output)
    disk.remove(full)
    stop = output if full.startswith(output + os.sep) else project.root
    disk.remove_empty_folders(os.path.dirname(full), stop)
    return kept


def forget(build: Build, dep_manager: Any, staying: Collection[str]) -> None:
    """Drop records, logs and manifest entries of what no rule makes any more.

    Args:
        build: the build.
        dep_manager: doit's database; None if there is none.
        staying: paths of orphans that still lie there, and are to be remembered.
    """
    for name in list(_records(build.project, dep_manager, build.plan.steps)):
        _forget_record(build, dep_manager, name, staying)
    for name in list(_of_former_names(build.project, dep_manager)):
        made = _in_output(build.project, dep_manager, name)
        if made and not any(path in staying for path in made):
            dep_manager.remove(name)
    entries, problem = manifest.read(build.project)
    prefix = f"{build.project.output}/"
    wanted = {prefix + key: entry for key, entry in entries.items()}
    gone = [p for p in wanted if p not in build.plan.makers and p not in staying]
    if gone and not problem:
        for path in gone:
            _forget_unlisted(build, dep_manager, path.removeprefix(prefix))
            del entries[path.removeprefix(prefix)]
        manifest.write(build.project, entries, iso(time.time()))


def _forget_record(build: Build, dep_manager: Any, name: str, staying: Collection[str]) -> None:
    values = dep_manager.get_values(name) or {}
    left = left_in(values)
    if name in build.plan.steps or name == build.project.task("output"):
        # What a failed step made before is no orphan, and still known by this alone.
        kept = {*staying, *build.plan.makers}
        still = {path: content for path, content in left.items() if path in kept}
        if still != left:
            rest = {key: value for key, value in values.items() if key != "left"}
            dep_manager._set(name, "_values_:", {**rest, **({"left": still} if still else {})})
        return
    trace = Trace.from_values(values.get("trace"))
    outputs = [output.path for output in trace.outputs] if trace is not None else []
    if any(path in staying for path in (*outputs, *left)):
        return
    group, _, target = name.partition(":")
    phase = group.rpartition(".")[2]
    if phase == "templates" and not build.project.settings.template_cache:
        return  # there are no such tasks while the cache is off
    dep_manager.remove(name)
    disk.remove(build.project.full(build.project.log_path(phase, target)))
    disk.remove(build.project.full(build.project.map_path(f"{build.project.output}/{target}")))


def _forget_unlisted(build: Build, dep_manager: Any, target: str) -> None:
    """Drop the record of a target from a database that cannot list its records."""
    for phase in _PHASES:
        name = build.project.task(phase, target)
        if dep_manager is not None and name not in build.plan.steps:
            dep_manager.remove(name)
