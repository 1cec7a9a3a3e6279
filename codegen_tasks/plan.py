"""Rules × patterns → steps: which files are to be made, from what, by which task.

Reads folder listings, and patterns only where a target's name hangs on their content.
"""

from __future__ import annotations

import importlib.util
import os
import posixpath
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import disk, items, patterns, schemas, yamls
from .engines import is_template
from .errors import DeclarationError, StepError, nearest
from .folders import Folders
from .model import FORMATTER, Pattern, Phase, Rule, Step
from .project import Project

#: Bytes that a file's name may have, on every file system that is in use.
_LONGEST_NAME = 255
#: Bytes of a folder's path below which a file with a temporary name can be opened.
_LONGEST_FOLDER = 4096 - 1 - _LONGEST_NAME - 1
_DEVICE = re.compile("(?i:con|prn|aux|nul|conin\\$|conout\\$|(com|lpt)[0-9¹²³])")
#: Names that are a path below their folder, as it is written, on every file system but Windows'.
_PLAIN = re.compile(r"(?:\w[\w.-]{0,99}/)*\w[\w.-]{0,99}", re.ASCII)


@dataclass(slots=True)
class Plan:
    """All steps of a project by task name, in the order of the phases.

    Args:
        steps: by task name.
        makers: output path → name of the task that makes it.
        others: path → name of the task that is not ours and makes it.
        outputs: output folders of the other Codegen objects.
        compiles: whether any step compiles.
        late: tasks that make patterns which name targets: when one has run, the plan may be
            another.
        unknown: rule → tasks that are to make patterns of it first, for these name targets.
        unread: patterns that should name targets and are not there yet, or cannot.
        unmet: what rules lack, unless a task makes it of which this plan does not know.
        lists: names of the templates, and each rule's patterns, as they were found.
        asked: the patterns that were read to name targets, by path.
    """

    steps: dict[str, Step] = field(default_factory=dict)
    makers: dict[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    compiles: bool = False
    late: set[str] = field(default_factory=set)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    unmet: list[DeclarationError] = field(default_factory=list)
    lists: list[Sequence[str]] = field(default_factory=list)
    asked: dict[str, Pattern] = field(default_factory=dict)

    def maker(self, path: str) -> str | None:
        """Return the task that makes a file; None if none does."""
        return self.makers.get(path) or self.others.get(path)

    def of_phase(self, phase: Phase) -> list[Step]:
        """Return the steps of one phase."""
        return [step for step in self.steps.values() if step.phase == phase]


def make_plan(
    project: Project,
    library: patterns.Library,
    others: Mapping[str, str] | None = None,
    outputs: tuple[str, ...] = (),
    before: Callable[[], Collection[str]] = tuple,
    sound: bool = False,
) -> Plan:
    """Return the plan of a project as its folders are now.

    Args:
        project: what was declared.
        library: its patterns.
        others: path → task of all that is made by tasks which are not ours; None while that
            is not known.
        outputs: output folders of the other Codegen objects of the `dodo.py`.
        before: returns what we have made so far.
        sound: no target stands in another's way, as was found the last time.

    Raises:
        DeclarationError: a rule's template does not exist, it finds no pattern, two steps
            make one file, or a target lies outside of the output folder.
    """
    plan, fence = Plan(others=others or {}, outputs=outputs), Fence(project)
    plan.lists.append(template_names(project, plan.others, library.folders))
    for name in plan.lists[0]:
        _add(project, plan, _template_step(project, name))
    made = dict(plan.others)
    rendered: list[Step] = []
    compiled: list[Step] = []
    for rule in project.rules.values():
        try:
            steps = list(_Renders(project, rule, library, fence, plan, made, before).steps())
        except UnmetError as error:
            plan.unmet.append(error)
            continue
        chain = [each for step in steps for each in _compile_steps(fence, rule, step)]
        for step in (*steps, *chain):
            for path in step.outputs:
                made[path] = step.task
        rendered += steps
        compiled += chain
    plan.compiles = bool(compiled)
    for step in (*rendered, *compiled):
        _add(project, plan, step)
    if not sound:
        _refuse_folders(plan)
        _refuse_name_twins(project, plan)
    _refuse_later_patterns(project, plan)
    return plan


class UnmetError(DeclarationError):
    """A rule lacks its template or patterns, unless a task that is not ours makes them."""


def _refuse_later_patterns(project: Project, plan: Plan) -> None:
    """Refuse a rule whose patterns are made by itself, or by a rule declared after it."""
    order = list(project.rules)
    for index, rule in enumerate(project.rules.values()):
        if not patterns.reaches(rule.patterns, project.output):
            continue
        for path, task in plan.makers.items():
            maker = plan.steps[task].rule
            found = any(patterns.matches(path, pattern) for pattern in rule.patterns)
            if found and maker == rule.name:
                raise DeclarationError(
                    f"rule {rule.name}", f"its own target {path} is a pattern of it"
                )
            if found and maker in order[index:]:
                what = f"its pattern {path} is made by rule {maker}"
                raise DeclarationError(f"rule {rule.name}", what, f"declare rule {maker} first")


def template_names(
    project: Project, others: Iterable[str] = (), folders: Folders | None = None
) -> list[str]:
    """Return the names of all templates: by suffix of an engine in use, and those a rule names.

    One whose name cannot be a task's, because doit allows no `=` there, is left to the
    steps that load it.

    Args:
        project: what was declared.
        others: what other tasks make, templates perhaps.
        folders: of the project, as far as they were listed already.
    """
    if not project.settings.template_cache:
        return []
    folder, kinds = f"{project.templates}/", project.kinds()
    folders = folders or Folders(project.root)
    found = {name for name in folders.walk(project.templates) if is_template(name, kinds)}
    found |= {rule.template for rule in project.rules.values()}
    made = (p.removeprefix(folder) for p in others if p.startswith(folder))
    found |= {name for name in made if is_template(name, kinds)}
    return sorted(name for name in found if "=" not in name)


def _template_step(project: Project, name: str) -> Step:
    return Step("templates", name, project.task("templates", name), template=name)


def _add(project: Project, plan: Plan, step: Step) -> None:
    for path in step.outputs:
        other = plan.makers.get(path)
        if other is not None:
            _refuse_twin(project, plan.steps[other], step, path)
        plan.makers[path] = step.task
    plan.steps[step.task] = step


def _refuse_twin(project: Project, first: Step, second: Step, path: str) -> None:
    where = f"rule {second.rule}"
    if first.rule != second.rule:
        what = f"makes {path}, which rule {first.rule} makes too"
        raise DeclarationError(where, what, "give one of them another target=")
    if first.patterns != second.patterns:
        both = f"{', '.join(first.patterns)} and {', '.join(second.patterns)}"
        hint = "tell them apart in target=, with {folder} or a key of the patterns"
        raise DeclarationError(where, f"{both} both make {path}", hint)
    if first.item != second.item and first.item is not None and second.item is not None:
        each = project.rules[second.rule].each
        both = items.told_both(each, first.item, second.item)
        hint = f"tell them apart in target= of rule {second.rule}, with a key of the items"
        raise DeclarationError(second.patterns[0], f"{both} both make {path}", hint)
    what = f"makes {path} twice, as {first.task} and as {second.task}"
    raise DeclarationError(where, what, "give the compile step another suffix")


def _refuse_folders(plan: Plan) -> None:
    """Refuse a target in whose place another one needs a folder."""
    sound: set[str] = set()
    for path in plan.makers:
        folder = path.rpartition("/")[0]
        while folder and folder not in sound:
            if folder in plan.makers:
                rule = plan.steps[plan.makers[path]].rule
                what = f"makes {path}, but {folder} is itself a target"
                raise DeclarationError(f"rule {rule}", what)
            sound.add(folder)
            folder = folder.rpartition("/")[0]


def _refuse_name_twins(project: Project, plan: Plan) -> None:
    """Refuse names that differ only in case or composition where that makes them one file."""
    seen: dict[str, str] = {}
    for path in plan.makers:
        other = seen.setdefault(_folded(path), path)
        if other != path and disk.are_one(project.full(path), project.full(other)):
            rule = plan.steps[plan.makers[path]].rule
            what = f"{path} and {other} are one file here: only {_difference(path, other)}"
            raise DeclarationError(f"rule {rule}", what)


def _folded(path: str) -> str:
    """Return what a file system that is careless about names takes a path for."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _difference(path: str, other: str) -> str:
    same_case = unicodedata.normalize("NFC", path) == unicodedata.normalize("NFC", other)
    return "the composition of a letter differs" if same_case else "their case differs"


def _check_template(project: Project, rule: Rule, others: Mapping[str, str]) -> None:
    name, folder = rule.template, project.full(project.templates)
    if os.path.isabs(name) or ".." in name.split("/"):
        what = f"the template '{name}' lies outside of {project.templates}/"
        raise DeclarationError(f"rule {rule.name}", what)
    made = posixpath.normpath(f"{project.templates}/{name}") in others
    if made or disk.stat(os.path.join(folder, name)) is not None:
        return
    hint = nearest(name, disk.walk(folder))
    if not os.path.isdir(folder):
        hint = f"there is no folder {project.templates}"
    what = f"there is no template {project.templates}/{name}"
    raise UnmetError(f"rule {rule.name}", what, hint)


def _check_target(project: Project, rule: Rule) -> None:
    """Refuse what no pattern can mend: whatever fills the placeholders, it stays wrong."""
    fault = _misnamed(project.output, items.PLACEHOLDER.sub("x", rule.target), rule.target)
    if fault:
        raise DeclarationError(f"rule {rule.name}", fault)


def _check_schema(project: Project, rule: Rule, made: Mapping[str, str]) -> None:
    if rule.schema is None:
        return
    schemas.need_library(f"rule {rule.name}")
    if rule.schema not in made and disk.stat(project.full(rule.schema)) is None:
        what = f"there is no schema {rule.schema}"
        raise UnmetError(f"rule {rule.name}", what, "its path is relative to the folder of dodo.py")


def _check_yaml(rule: Rule, found: Sequence[str]) -> None:
    first = next((path for path in found if path.endswith(patterns.YAML_SUFFIXES)), None)
    if first is not None and importlib.util.find_spec("yaml") is None:
        raise DeclarationError(f"rule {rule.name}", f"reading {first} needs PyYAML", yamls.HINT)


class Fence:
    """Keeps targets below the output folder; each folder's links are followed once a plan."""

    def __init__(self, project: Project):
        self.project = project
        self._real = os.path.realpath(project.full(project.output))
        self._inside: dict[str, bool] = {}
        self._plain: dict[str, bool] = {}  # folders in which nothing is wrong with a plain name
        for folder in (project.templates, project.state):
            real = os.path.realpath(project.full(folder)) + os.sep
            if (self._real + os.sep).startswith(real):
                what = f"output folder '{project.output}' is a link into {folder}/"
                raise DeclarationError("Codegen", what)

    def is_plain(self, target: str) -> bool:
        """Tell at once that nothing is wrong with a target, as with nearly all."""
        if _PLAIN.fullmatch(target) is None or sys.platform == "win32":
            return False
        folder = target.rpartition("/")[0]
        if folder not in self._plain:
            self._plain[folder] = not self._fault(f"{folder}/x" if folder else "x")
        return self._plain[folder]

    def fault(self, target: str) -> str:
        """Return why there can be no such target, a path below the output folder; else ""."""
        return "" if self.is_plain(target) else self._fault(target)

    def _fault(self, target: str) -> str:
        output = self.project.output
        fault = _misnamed(output, target, target)
        folder = posixpath.dirname(posixpath.normpath(f"{output}/{target}"))
        if not fault and len(os.fsencode(self.project.full(folder))) > _LONGEST_FOLDER:
            shown = f"{target[:40]}…"
            fault = f"the target '{shown}' has a path longer than file systems take"
        if fault or self._holds(folder):
            return fault
        return f"the target '{target}' lies outside of {output}/: {folder} is behind a link"

    def _holds(self, folder: str) -> bool:
        found = self._inside.get(folder)
        if found is None:
            real = os.path.realpath(self.project.full(folder)) + os.sep
            found = real.startswith(self._real + os.sep)
            self._inside[folder] = found
        return found


@dataclass(frozen=True, slots=True)
class _Renders:
    """The render steps of one rule."""

    project: Project
    rule: Rule
    library: patterns.Library
    fence: Fence
    plan: Plan
    made: Mapping[str, str]
    before: Callable[[], Collection[str]]

    def steps(self) -> Iterator[Step]:
        """Yield one step a target."""
        _check_template(self.project, self.rule, self.plan.others)
        _check_target(self.project, self.rule)
        _check_schema(self.project, self.rule, self.made)
        if not self.rule.patterns:
            self.plan.lists.append(())
            yield self._step(self.rule.target, (), many=False)
            return
        found = self._patterns()
        self.plan.lists.append(found)
        if not found:
            globs = ", ".join(self.rule.patterns)
            hint = "check the patterns= of the rule, relative to the folder of dodo.py"
            raise UnmetError(f"rule {self.rule.name}", f"no file matches {globs}", hint)
        _check_yaml(self.rule, found)
        names = items.PLACEHOLDER.findall(self.rule.target)
        if not names and self.rule.each is None:
            yield self._step(self.rule.target, tuple(found), many=True)
            return
        needs_content = self.rule.each is not None or bool(set(names) - {"stem", "folder"})
        for path in found:
            yield from self._of_pattern(path, needs_content)

    def _patterns(self) -> list[str]:
        """Return the rule's patterns: on disk, or to be made by another task or rule."""
        globs, output = self.rule.patterns, self.project.output
        chained = patterns.reaches(globs, output)
        made = self.made if chained else self.plan.others
        within = [*self.plan.outputs, output] if chained else self.plan.outputs
        return patterns.discover(
            self.project.root, globs, made, within, self.before, self.library.folders
        )

    def _of_pattern(self, path: str, needs_content: bool) -> Iterator[Step]:
        known = {"stem": patterns.stem(path)}
        if "{folder}" in self.rule.target:
            known["folder"] = patterns.folder_below(path, self.rule.patterns)
        try:
            if not needs_content and "folder" not in known:
                target = self.rule.target.replace("{stem}", known["stem"])
                yield self._step(target, (path,), many=False)
                return
            if not needs_content:
                yield self._step(self._filled(path, known, {}), (path,), many=False)
                return
            if path in self.made:
                self.plan.late.add(self.made[path])
                if disk.stat(self.project.full(path)) is None:
                    self.plan.unknown.setdefault(self.rule.name, []).append(self.made[path])
                    self.plan.unread.add(path)
                    return
            pattern = self.library.load(path)
            data, self.plan.asked[path] = pattern.data, pattern
            if self.rule.each is None:
                target = self._filled(path, {**items.scalars(data), **known}, data)
                yield self._step(target, (path,), many=False)
                return
            for place, item in items.items_of(str(self.rule.each), path, data, self.rule.name):
                values = {**items.scalars(data), **known, **items.names_of(item, place)}
                seen = {**data, **item} if isinstance(item, Mapping) else data
                target = self._filled(self._place(path, place), values, seen)
                yield self._step(target, (path,), False, place)
        except StepError as problem:
            # The pattern cannot tell its target's name; it fails as a step of its own.
            self.plan.unread.add(path)
            name = path.replace("=", "%3D")  # doit allows no `=` in a task's name
            task = self.project.task("generate", name)
            yield Step(
                "generate", name, task, rule=self.rule.name, patterns=(path,), problem=problem
            )

    def _place(self, path: str, item: int | str | None) -> str:
        return path if item is None else f"{path}: {items.told(self.rule.each, item)}"

    def _filled(self, where: str, values: Mapping[str, str], data: Mapping[str, Any]) -> str:
        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name in values:
                return values[name]
            if name in data:
                what = f"the key '{name}' names its target, so it cannot be "
                raise StepError(where, what + patterns.noun(data[name]))
            what = f"lacks the key '{name}' that names its target '{self.rule.target}'"
            raise StepError(where, what, nearest(name, values))

        filled = items.PLACEHOLDER.sub(value, self.rule.target)
        # An empty {folder} leaves a leading or doubled slash.
        return (
            re.sub(r"/{2,}", "/", filled).lstrip("/") if "{folder}" in self.rule.target else filled
        )

    def _step(
        self, target: str, found: tuple[str, ...], many: bool, item: int | str | None = None
    ) -> Step:
        plain = self.fence.is_plain(target)
        fault = "" if plain else self.fence.fault(target)
        fault = fault or self._fault_of_compiled(target)
        if fault and len(found) == 1 and items.PLACEHOLDER.search(self.rule.target):
            raise StepError(self._place(found[0], item), fault)
        if fault:
            raise DeclarationError(f"rule {self.rule.name}", fault)
        output, name = f"{self.project.output}/{target}", target
        if not plain:
            output = posixpath.normpath(output)
            name = _below(self.project.output, output)
        if output in found:
            raise DeclarationError(f"rule {self.rule.name}", f"makes {output} out of itself")
        return Step(
            "generate",
            name,
            self.project.task("generate", name),
            (output,),
            self.rule.name,
            self.rule.template,
            found,
            many,
            item,
            link=0 if self.rule.format is None else FORMATTER,
        )

    def _fault_of_compiled(self, target: str) -> str:
        """Return why a compile step could not name its files after `target`; else ""."""
        if len(target) <= _LONGEST_NAME // 8 or not self.rule.compile:
            return ""  # no name gets too long, and what else is wrong is every pattern's
        toolchain = self.rule.compile[0]
        made = toolchain.outputs(posixpath.normpath(f"{self.project.output}/{target}"))
        names = (_below(self.project.output, posixpath.normpath(path)) for path in made)
        fault = next(filter(None, map(self.fence.fault, names)), "")
        return f"toolchain {toolchain.name}: {fault}" if fault else ""


def _misnamed(output: str, target: str, shown: str, platform: str = sys.platform) -> str:
    """Return what is wrong with a target's name; "" if nothing is."""
    if not target.isprintable():
        return f"the target {shown!r} holds a character that no file's name should"
    if "=" in target:
        return f"the target '{shown}' holds '=', which doit allows in no task's name"
    path = posixpath.normpath(f"{output}/{target}")
    if path == output or target.endswith("/"):
        return f"the target '{shown}' names a folder, not a file"
    if os.path.isabs(target) or not path.startswith(output + "/"):
        return f"the target '{shown}' lies outside of {output}/"
    for part in target.split("/"):
        length = len(os.fsencode(part))
        if length > _LONGEST_NAME:
            name = f"{part[:40]}…"
            return (
                f"the target's name '{name}' has {length} bytes, file systems take {_LONGEST_NAME}"
            )
    return windows_fault(target, shown) if platform == "win32" else ""


def windows_fault(target: str, shown: str) -> str:
    """Return why Windows can have no file of that name; "" if it can."""
    for part in target.split("/"):
        held = next((char for char in part if char in '<>:"|?*\\'), "")
        if held:
            return f"the target '{shown}' holds '{held}', which Windows allows in no file's name"
        if part not in (".", "..") and part.endswith((".", " ")):
            return f"the target '{shown}' ends a name with '{part[-1]}', which Windows drops"
        if _DEVICE.fullmatch(part.partition(".")[0].rstrip(" ")):
            return f"the target '{shown}' has a name that Windows keeps for a device"
    return ""


def _below(folder: str, path: str) -> str:
    inside = path.startswith(folder + "/")
    return path[len(folder) + 1 :] if inside else posixpath.relpath(path, folder)


def _compile_steps(fence: Fence, rule: Rule, step: Step) -> Iterator[Step]:
    """Yield the chain of compile steps of one generated file, each reading the one before.

    Raises:
        DeclarationError: a toolchain would write outside of the output folder.
    """
    project = fence.project
    source = step.outputs[0] if step.outputs else ""
    for link, toolchain in enumerate(rule.compile):
        if not source:
            return
        outputs = tuple(map(posixpath.normpath, toolchain.outputs(source)))
        names = [_below(project.output, path) for path in outputs]
        fault = next(filter(None, map(fence.fault, names)), "")
        if fault:
            raise DeclarationError(f"rule {rule.name}", f"toolchain {toolchain.name}: {fault}")
        yield Step(
            "compile",
            names[0],
            project.task("compile", names[0]),
            outputs,
            rule.name,
            rule.template,
            step.patterns,
            item=step.item,
            source=source,
            link=link,
        )
        source = outputs[0]
