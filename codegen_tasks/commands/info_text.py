"""What `doit info` shows to people: of all targets by cause, as a tree, or of one step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .. import keys
from ..build import Build
from ..causes import MANY, Cause, Forest, Node, causes_of, edited, few, left_out, some
from ..digest import short
from ..engines import JINJA2, KINDS
from ..kin import Kin
from ..model import DATA_KINDS, FACT_KINDS, Input
from ..survey import StepState, Survey
from .common import counted
from .screen import Screen

#: So many causes are shown one by one, the others counted.
_CAUSES = 20


class All:
    """Shows the state of all targets of one build.

    Args:
        screen: where.
        build: the build.
        found: its state.
        alone: there is no other, so that targets are known by their name in the output folder.
        whole: leave nothing out.
        prune: how the command is called that removes orphans.
    """

    def __init__(
        self,
        screen: Screen,
        build: Build,
        found: Survey,
        alone: bool = True,
        whole: bool = False,
        prune: str = "doit prune",
    ):
        self._screen = screen
        self._build = build
        self._found = found
        self._alone = alone
        self._whole = whole
        self._prune = prune
        self._stale = [state for state in found.stale if state.step.phase != "templates"]

    def name(self, state: StepState) -> str:
        """Return how people read of a step: by its target."""
        step, project = state.step, self._build.project
        if self._alone or step.phase not in ("generate", "compile"):
            return step.target or step.task
        return f"{project.output}/{step.target}"

    def show(self, tree: bool = False) -> None:
        """Write all of it.

        Args:
            tree: show templates and consequences below each cause.
        """
        if tree:
            self._trees()
        else:
            self._causes()
            self._consequences(self._found.consequences)
        self._edited()
        for rule, tasks in self._found.unknown.items():
            self._screen.wrapped(f"rule {rule}: further targets after {some(tasks)}")
        self._parsed_again()
        self._orphans()
        self._total()

    def _causes(self) -> None:
        shown, rest = self._shown()
        if shown:
            self._screen.write("stale:", "bold")
        for cause in shown:
            through = f" (through {', '.join(cause.through)})" if cause.through else ""
            self._screen.wrapped(cause.text + through, "  ", "  ", "yellow")
            self._screen.wrapped(f"{self._screen.arrow} {self._targets(cause)}", "    ", "  ")
        self._rest(rest)

    def _shown(self) -> tuple[Sequence[Cause], Sequence[Cause]]:
        """Return the causes to show, and those to count."""
        causes = causes_of(self._stale)
        return (causes, ()) if self._whole else (causes[:_CAUSES], causes[_CAUSES:])

    def _rest(self, rest: Sequence[Cause]) -> None:
        for said, count in left_out(rest):
            self._screen.write(
                f"  and {said} {self._screen.arrow} {counted(count, 'target')}", "dim"
            )
        if rest:
            self._screen.write("  hint: --all shows each of them", "dim")

    def _targets(self, cause: Cause) -> str:
        names = [self.name(state) for state in cause.states]
        count = f"{counted(len(names), 'target')}: " if len(names) > MANY else ""
        return count + some(names, self._whole)

    def _consequences(self, following: Sequence[StepState]) -> None:
        if following:
            self._screen.write("to follow, if what they are made from changes:", "bold")
        groups: dict[tuple[str, ...], list[StepState]] = {}
        for state in following:
            groups.setdefault(tuple(state.follows), []).append(state)
        if len(groups) > MANY and not self._whole:
            self._consequences_by_rule(following)
            return
        for tasks, states in groups.items():
            names = [self.name(state) for state in states]
            self._screen.wrapped(some(names, self._whole), "  ", "  ")
            after = some([self._by_task(task) for task in tasks], self._whole)
            self._screen.wrapped(f"after {after}", "    ", "  ", "dim")

    def _consequences_by_rule(self, following: Sequence[StepState]) -> None:
        groups: dict[tuple[str, str], list[StepState]] = {}
        for state in following:
            groups.setdefault((state.step.rule, state.step.phase), []).append(state)
        for (rule, phase), states in groups.items():
            names = [self.name(state) for state in states]
            what = "compiled" if phase == "compile" else "generated"
            said = f"{counted(len(names), 'target')} {what} by rule {rule}: {some(names)}"
            self._screen.wrapped(said, "  ", "  ")

    def _by_task(self, task: str) -> str:
        state = self._found.states.get(task)
        return self.name(state) if state is not None else task

    def _trees(self) -> None:
        shown, rest = self._shown()
        forest = Forest(self._found.states.values(), self.name, self._whole)
        for cause in shown:
            self._screen.tree(forest.tree(cause))
        self._rest(rest)
        told = forest.following(
            s.step.task for cause in causes_of(self._stale) for s in cause.states
        )
        self._consequences([s for s in self._found.consequences if s.step.task not in told])

    def _edited(self) -> None:
        paths = edited(self._stale)
        kept = self._build.project.kept_folder
        if paths:
            self._screen.wrapped(
                f"edited by hand; doit keeps a copy in {kept}/ and makes them anew:", style="bold"
            )
            self._listed(paths)

    def _orphans(self) -> None:
        found = self._found.orphans
        if not found:
            return
        self._screen.write("made by no rule any more, remove them if nothing needs them:", "bold")
        self._listed([f"{path}{' (edited by hand)' if changed else ''}" for path, changed in found])
        if any(not changed for _, changed in found):
            self._screen.write(f"  hint: {self._prune} removes those that nobody edited", "dim")
        else:
            self._screen.write(f"  hint: {self._prune} --edited keeps them aside first", "dim")

    def _listed(self, lines: Sequence[str]) -> None:
        shown, more = few(lines, self._whole)
        for line in shown:
            self._screen.write(f"  {line}")
        if more:
            self._screen.write(f"  and {more} more", "dim")

    def _parsed_again(self) -> None:
        names = [s.step.target for s in self._found.stale if s.step.phase == "templates"]
        if names:
            named = ": " + ", ".join(names) if len(names) <= 3 else ""
            self._screen.wrapped(f"{counted(len(names), 'template')} to parse{named}")

    def _total(self) -> None:
        stale, follows = len(self._stale), len(self._found.consequences)
        fresh = self._found.up_to_date
        if not stale and not follows:
            self._screen.write(f"{counted(fresh, 'target')} up to date", "green")
        else:
            self._screen.write(f"{stale} stale, {follows} to follow, {fresh} up to date", "bold")


# One ------------------------------------------------------------------------------------

#: How inputs of a kind are headed, in the order in which they are shown; others come last.
_HEADS = {
    "source": "source",
    "pattern": "patterns",
    "template": "templates",
    "missing template": "templates not there",
    "import": "imports",
    "file": "files",
    "toml": "files",
    "json": "files",
    "yaml": "files",
    "context": "context",
    "filter": "filters",
    "test": "tests",
    "function": "functions",
    "module": "modules",
    "global": "globals",
    "toolchain": "compiler",
    "command": "command line",
    "environment": "environment",
    "rule": "rule",
}
#: Arguments of a rule, as its facts name them.
_RULE = ("template", "each", "patterns", "schema", "format", "mode", "newline")
#: Kinds that are told by their names alone, side by side.
_NAMES = ("filter", "test", "function", "module")
#: Kinds of which there is one, so that its name says nothing.
_UNNAMED = ("environment", "rule", "command", "context")
_COLUMN = 16


class One:
    """Shows all about one step.

    Args:
        screen: where.
        build: its build.
        state: its state.
        kin: who depends on it.
        whole: leave nothing out.
    """

    def __init__(
        self, screen: Screen, build: Build, state: StepState, kin: Kin, whole: bool = False
    ):
        self._screen = screen
        self._build = build
        self._state = state
        self._kin = kin
        self._whole = whole

    def show(self) -> None:
        """Write all of it."""
        self._status()
        self._origin()
        self._inputs()
        self._dependents()

    def _status(self) -> None:
        state, step = self._state, self._state.step
        status, style = "up to date", "green"
        if state.reasons or state.follows:
            status, style = ("stale", "yellow") if state.reasons else ("to follow", "cyan")
        name = ", ".join(step.outputs) if state.is_target else step.task
        self._screen.write(name, "bold")
        self._field("status", [status], style)
        for reason in state.reasons:
            self._screen.wrapped(f"- {reason}", " " * _COLUMN, "  ")
        for task in self._some(state.follows):
            self._screen.wrapped(f"- after {task}", " " * _COLUMN, "  ")

    def _origin(self) -> None:
        state, step, project = self._state, self._state.step, self._build.project
        self._field("task", [step.task])
        if step.phase == "compile":
            self._field("made from", [step.source])
            self._field("compiler", [project.toolchain(step.rule, step.link).name])
        else:
            each = project.rules[step.rule].each if step.rule else None
            self._field("template", [f"{project.templates}/{step.template}"])
            if len(step.patterns) == 1:
                place = f": {keys.place((each, step.item))}" if each else ""
                self._field("pattern", [step.patterns[0] + place])
            elif step.patterns:
                self._field("patterns", [str(len(step.patterns))])
        self._field("rule", [step.rule] if step.rule else [])
        if state.trace is not None:
            when = state.trace.made.partition(".")[0].replace("T", " ")
            self._field("made", [f"{when} UTC, took {_duration(state.trace.seconds)}"])

    def _inputs(self) -> None:
        trace = self._state.trace
        if trace is None:
            return
        self._screen.write("what it read; it is stale when any of this changes:", "bold")
        groups: dict[str, list[Input]] = {head: [] for head in _HEADS.values()}
        for item in trace.inputs:
            # A name of Jinja2's own is recorded with no digest, in case the project declares it.
            if item.digest or item.kind in ("missing template", *DATA_KINDS, "file"):
                head = _HEADS.get(item.kind, item.kind)
                if item.kind == "toolchain" and self._state.step.phase == "generate":
                    head = "formatter"
                groups.setdefault(head, []).append(item)
        for head, items in groups.items():
            if head == "templates":
                self._templates(items)
            elif items:
                self._field(head, list(self._told(items)))
        if self._state.is_target:
            self._field("itself", ["as it was made: not edited, not missing"])

    def _told(self, items: Sequence[Input]) -> Iterator[str]:
        by_name = {item.name: item for item in items}
        if all(item.kind in _NAMES for item in items):
            yield some(list(by_name), self._whole)
            return
        shown, more = few(list(by_name), self._whole)
        for name in shown:
            said = _said(by_name[name], self._whole)
            if said and by_name[name].kind in _UNNAMED:
                yield said
            else:
                yield f"{name}: {said}" if said else name
        if more:
            yield f"and {more} more"

    def _templates(self, items: Sequence[Input]) -> None:
        """Write the templates as they load each other."""
        nodes = {item.name: Node(item.name) for item in items}
        loaders: dict[str, str] = {}
        for item in items:
            if item.via in nodes and not _leads(loaders, item.via, item.name):
                loaders[item.name] = item.via
                nodes[item.via].below[item.name] = nodes[item.name]
        label = "templates"
        for name, node in nodes.items():
            if name not in loaders:
                self._field(label, [name])
                label = ""
                for line in self._screen.branches(node, " " * _COLUMN):
                    self._screen.write(line)

    def _dependents(self) -> None:
        kin = self._kin
        if not (kin.compiles or kin.renders or kin.tasks):
            self._screen.write("nothing depends on it", "bold")
            return
        self._screen.write("what depends on it:", "bold")
        self._field("compiled", self._some(kin.compiles))
        self._field("read by", self._some(kin.renders))
        self._field("tasks", self._some(kin.tasks))

    def _some(self, names: Iterable[str]) -> list[str]:
        """Return names for a line each: all of a few, the first of many and their number."""
        shown, more = few(list(names), self._whole)
        return [*shown, f"and {more} more"] if more else list(shown)

    def _field(self, label: str, lines: Sequence[str], style: str = "") -> None:
        """Write a label and what stands beside it, a line each."""
        pad = " " * _COLUMN
        if len(label) > _COLUMN - 3 and lines:
            self._screen.write(f"  {label}")
            label = ""
        for line in lines:
            head = f"  {label}".ljust(_COLUMN) if label else pad
            self._screen.field(head, line, style)
            label = ""


def _leads(loaders: Mapping[str, str], name: str, to: str) -> bool:
    """Tell whether a template was loaded by another, at any remove, or is it."""
    while name != to and name in loaders:
        name = loaders[name]
    return name == to


def _said(item: Input, whole: bool) -> str:
    """Return what of an input was read, or what it was."""
    if item.kind == "missing template" or not item.digest:
        return "" if item.kind == "missing template" else "absent"
    if item.kind in DATA_KINDS:
        return _keys_read(item, whole)
    if item.kind == "environment" and item.name not in KINDS:
        engine = KINDS.get(item.name.removesuffix(" bytecode"), JINJA2)
        return f"options and version of {engine.label}"
    if item.kind in ("environment", "command"):
        return _facts(item.shown)
    if item.kind == "context":
        return f"that of rule {item.name}"
    if item.kind == "rule":
        *others, last = [f"{name}=" for name in _RULE if name in item.shown]
        return f"its {', '.join(others)} and {last}"
    if item.kind in FACT_KINDS or item.kind in ("toolchain", "global"):
        return item.shown or short(item.digest)
    return ""


def _keys_read(item: Input, whole: bool) -> str:
    """Return which keys of a pattern were read; all if it was handed on whole."""
    told: dict[str, None] = {}
    for path, how in item.reads:
        place = keys.place(path)
        if how == "keys":
            told.setdefault(f"the names in {place}" if place else "the names of its keys")
        elif how == "value" or place:
            told.setdefault(place or "all of it")
    names = list(told)
    return some(names, whole) if names else "nothing of it"


def _facts(shown: str) -> str:
    try:
        facts = json.loads(shown)
    except ValueError:
        return ""
    if not isinstance(facts, Mapping):
        return ""
    named = ((name.removeprefix("environment "), value) for name, value in facts.items())
    return ", ".join(f"{name} {value}".strip() for name, value in named)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
