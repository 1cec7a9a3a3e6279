"""The dependency graph: patterns and files, templates, generated and compiled targets.

Made from the plan and from what the database says that steps have read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..build import Build
from ..model import PATH_KINDS, PHASES, Phase, Step, Trace
from ..ours import is_ours

COLUMNS = ("patterns and files", "templates", "generated", "compiled")


@dataclass(slots=True)
class Group:
    """Nodes that are shown as one until somebody opens it: a rule's targets, a folder."""

    column: int
    name: str
    nodes: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Graph:
    """Nodes by number, each in one group, and what each is made from.

    Args:
        names: what a node is called.
        tasks: the task that makes it; "" for what no task makes.
        groups: see `Group`.
        sources: for each node, the nodes that it is made from.
        waits: by task, the tasks that it waits for.
    """

    names: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    sources: list[dict[int, None]] = field(default_factory=list)
    waits: dict[str, set[str]] = field(default_factory=dict)
    _places: dict[tuple[str, str], int] = field(default_factory=dict)
    _group_places: dict[tuple[int, str], int] = field(default_factory=dict)

    def node(self, kind: str, name: str, column: int, group: str, task: str = "") -> int:
        """Return the number of a node, which is added if it is new."""
        key = (kind, name)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self.names)
            self.names.append(name)
            self.tasks.append(task)
            self.sources.append({})
            self._group(column, group).nodes.append(place)
        return place

    def _group(self, column: int, name: str) -> Group:
        place = self._group_places.get((column, name))
        if place is None:
            place = self._group_places[column, name] = len(self.groups)
            self.groups.append(Group(column, name))
        return self.groups[place]


def graph_of(builds: Iterable[Build], tasks: Iterable[Any], dep_manager: Any) -> Graph:
    """Return the graph of some builds.

    Args:
        builds: these.
        tasks: doit's, for those that are not ours.
        dep_manager: doit's database.
    """
    graph = Graph()
    phases: dict[str, list[str]] = {}
    for build in builds:
        _Drawer(graph, build, dep_manager).draw()
        for phase in PHASES:
            group = build.project.task(phase)
            phases[group] = [step.task for step in build.plan.of_phase(phase)]
        output = build.project.task("output")
        before: tuple[Phase, ...] = ("generate", "compile")
        graph.waits[output] = {
            name for phase in before for name in phases[build.project.task(phase)]
        }
    _wait_as_doit_says(graph, tasks, phases)
    return graph


def _wait_as_doit_says(graph: Graph, tasks: Iterable[Any], phases: Mapping[str, list[str]]) -> None:
    """Add what tasks that are not ours wait for."""
    tasks = list(tasks)
    makers = {str(path): task.name for task in tasks for path in task.targets}
    for task in tasks:
        if is_ours(task):
            continue
        names = {*task.task_dep, *task.setup_tasks, *task.calc_dep}
        names |= {makers[path] for path in task.file_dep if path in makers}
        graph.waits[task.name] = {one for name in names for one in phases.get(name, [name])}


class _Drawer:
    """Adds one build to a graph."""

    def __init__(self, graph: Graph, build: Build, dep_manager: Any):
        self._graph = graph
        self._project = build.project
        self._plan = build.plan
        self._database = dep_manager
        self._folder = f"{build.project.templates}/"
        self._prefix = f"{build.project.output}/"
        self._before = f"{build.project.name}: " if build.project.name else ""

    def draw(self) -> None:
        """Add all steps."""
        for step in self._plan.steps.values():
            if step.phase == "templates":
                self._template(step.template)
            else:
                self._target(step)

    def _template(self, name: str) -> int:
        task = self._project.task("templates", name)
        above = posixpath.dirname(self._folder + name)
        known = task if task in self._plan.steps else ""
        place = self._graph.node("template", self._before + name, 1, f"{above}/", known)
        maker = self._plan.maker(self._folder + name)
        if maker is not None:
            self._graph.sources[place][self._made(maker)] = None
        return place

    def _made(self, task: str) -> int:
        """Return the node of what a task makes."""
        step = self._plan.steps.get(task)
        if step is None:
            return self._graph.node("task", task, 0, "other tasks", task)
        if step.phase == "compile":
            toolchain = self._project.toolchain(step.rule, step.link).name
            group, column = f"{self._before}{step.rule}, by {toolchain}", 3
        else:
            group, column = f"{self._before}{step.rule}", 2
        name = step.outputs[0] if step.outputs else step.target
        return self._graph.node("target", name.removeprefix(self._prefix), column, group, task)

    def _target(self, step: Step) -> None:
        graph = self._graph
        place = self._made(step.task)
        sources, waits = graph.sources[place], graph.waits.setdefault(step.task, set())
        values = self._database.get_values(step.task) or {}
        trace = Trace.from_values(values.get("trace"))
        if step.template and step.phase == "generate":
            sources[self._template(step.template)] = None
            waits.add(self._project.task("templates", step.template))
        read = dict.fromkeys(step.patterns if step.phase == "generate" else [step.source])
        for item in trace.inputs if trace is not None else ():
            if item.kind == "template":
                self._loaded(item.name, item.via)
            elif item.kind in PATH_KINDS and item.digest:
                read[item.name] = None
        for path in read:
            maker = self._plan.maker(path)
            if maker is not None and maker != step.task:
                sources[self._made(maker)] = None
                waits.add(maker)
            elif maker is None and not path.startswith(("/", "../")):
                sources[self._file(path)] = None

    def _file(self, path: str) -> int:
        return self._graph.node("file", path, 0, f"{posixpath.dirname(path) or '.'}/")

    def _loaded(self, path: str, via: str) -> None:
        """Note that one template loads another."""
        if via and path.startswith(self._folder) and via.startswith(self._folder):
            loader = self._template(via.removeprefix(self._folder))
            loaded = self._template(path.removeprefix(self._folder))
            if loader != loaded:
                self._graph.sources[loader][loaded] = None
