"""What is probably a mistake in templates and patterns, though it builds.

Renders everything in memory and looks at what that has read; for the rest, at the templates as
they were parsed.  Whatever is not sure is not told.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from jinja2 import meta, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.filters import FILTERS
from jinja2.tests import TESTS

from . import digest, disk, places
from .build import Build
from .checks import OUR_FUNCTIONS
from .engines import JINJA2, is_template, kind_of
from .errors import CodegenError
from .keys import How, Reads
from .model import Step
from .steps import Rendered, Workshop, internal
from .templates import Engine

#: What can be found, and what it means.
CODES = {
    "undefined-variable": "a template uses a variable that no pattern defines",
    "unused-key": "no template uses a key of the patterns",
    "unused-template": "no rule and no template names a template",
    "unused-macro": "no template uses a macro",
    "undeclared-read": "a render reads what is not recorded as an input",
    "unsteady": "a render differs when it is repeated",
    "shadowed": "a name hides another one",
    "fails": "a target cannot be rendered, and so not be looked at",
}
#: A comment that silences findings: in its line, or if it begins one, in the next too.
_IGNORE = re.compile(r"(^\W*)?codegen:\s*ignore(-file)?\[([^\]]*)\]")
#: What a dot finds in a table before any key.
_METHODS = {name for name in dir(dict) if not name.startswith("_")}
#: Names that a template has without anybody defining them.
_SPECIAL = {"self", "super", "caller", "varargs", "kwargs", "loop", "_"}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One probable mistake.

    Args:
        path: of the file it is in, project-relative.
        line: in that file, from 1; 0 if no line is to blame.
        code: which of `CODES`.
        text: what is wrong, one line.
        hint: what to do about it.
    """

    path: str
    line: int
    code: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}: {self.text} [{self.code}]{hint}"


@dataclass(slots=True)
class _Read:
    """What is to be known of one parsed template.

    Args:
        undeclared: variables that it does not define itself, and where each is first used.
        stored: names that it gives a value.
        loops: names that its loops give a value, and where.
        mentioned: every name and text in it that could mean a key or a macro.
        macros: those that it defines, and where.
        methods: of tables, that it names and does not call, and where.
        names: of templates that it names; globs where only a part of a name is told.
        problem: why it cannot be parsed.
    """

    undeclared: dict[str, int] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    loops: dict[str, int] = field(default_factory=dict)
    mentioned: set[str] = field(default_factory=set)
    macros: dict[str, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    problem: str = ""


#: File and line of code that did something while a template rendered, what, and with what.
_Seen: TypeAlias = tuple[str, int, str, str]


def findings(
    builds: Sequence[Build], again: Callable[[Build, Mapping[str, str]], Mapping[str, str]]
) -> list[Finding]:
    """Return what is found, in order of files and lines.

    Args:
        builds: of one `dodo.py`; nothing of them is changed.
        again: renders a build once more elsewhere; given the digest of each target by task,
            returns the texts that differ.
    """
    all_of = [(build, set(_Lint(build, again).run())) for build in builds]
    kept = set()
    for build, found in all_of:
        folder = build.project.templates
        beside = [others for other, others in all_of if other.project.templates == folder]
        for one in found:
            # What one Codegen has no use for, another may have.
            if not one.code.startswith("unused-t") or all(one in others for others in beside):
                kept.add(one)
    return sorted(kept)


def differing(build: Build, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of targets, by task, that have another digest than they had elsewhere.

    Args:
        build: the build.
        digests: of targets as they were rendered there, by task.
    """
    workshop, found = _bare(build), {}
    for step in build.plan.of_phase("generate"):
        made = _one(workshop, step) if step.task in digests else ""
        if isinstance(made, Rendered) and digest.of_bytes(made.data) != digests[step.task]:
            found[step.task] = made.data.decode("utf-8", "replace")
    return found


def _one(workshop: Workshop, step: Step) -> Rendered | str:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return workshop.rendered(step)
    except CodegenError as problem:
        return str(problem)
    except Exception:
        return internal(step.task)


def _bare(build: Build) -> Workshop:
    """Return what renders the bare texts: what becomes of them afterwards is not looked at."""
    rules = {
        name: replace(rule, schema=None, format=None, newline=None)
        for name, rule in build.project.rules.items()
    }
    settings = replace(build.project.settings, template_cache=False)
    return Workshop(replace(build.project, settings=settings, rules=rules), build.plan, build.world)


class _Lint:
    def __init__(
        self, build: Build, again: Callable[[Build, Mapping[str, str]], Mapping[str, str]]
    ):
        self._build = build
        self._project = build.project
        self._again = again
        self._workshop = _bare(build)
        self._found: list[Finding] = []
        self._texts: dict[str, list[str]] = {}
        self._templates: dict[str, _Read] = {}
        self._loaded: dict[str, set[str]] = {name: set() for name in self._project.rules}
        self._variables: dict[str, set[str]] = {name: set() for name in self._project.rules}
        self._reads: dict[str, list[tuple[str, Reads]]] = {}  # by pattern: rule, what it read
        self._made: dict[str, tuple[Step, bytes]] = {}

    def run(self) -> list[Finding]:
        """Look at all; return what is found."""
        self._parse()
        self._render()
        self._undefined()
        self._keys()
        self._unused()
        self._shadowed()
        self._hidden_keys()
        self._unsteady()
        return self._found

    def _tell(self, path: str, line: int, code: str, text: str, hint: str = "") -> None:
        if not self._ignored(path, line, code):
            self._found.append(Finding(path, line, code, text, hint))

    # Comments that silence a finding ----------------------------------------------------

    def _lines(self, path: str) -> list[str]:
        if path not in self._texts:
            try:
                text = disk.read(self._project.full(path)).decode("utf-8", "replace")
            except OSError:
                text = ""
            self._texts[path] = text.split("\n")
        return self._texts[path]

    def _ignored(self, path: str, line: int, code: str) -> bool:
        for number, text in enumerate(self._lines(path), 1):
            for above, whole, codes in _IGNORE.findall(text):
                near = whole or number == line or (above and number == line - 1)
                if near and code in [one.strip() for one in codes.split(",")]:
                    return True
        return False

    # Looking ----------------------------------------------------------------------------

    def _parse(self) -> None:
        """Parse all templates."""
        folder = self._project.full(self._project.templates)
        named = {rule.template for rule in self._project.rules.values()}
        kinds = self._project.kinds()
        found = {name for name in disk.walk(folder) if is_template(name, kinds)}
        for name in sorted({*found, *named}):
            self._add_template(name)

    def _add_template(self, name: str) -> None:
        if name in self._templates:
            return
        if kind_of(name) is not JINJA2:
            self._templates[name] = self._unparsed(name)
            return
        try:
            tree = self._engine.tree(name)
        except CodegenError as problem:
            self._templates[name] = _Read()
            self._templates[name].problem = str(problem).partition("\n")[0]
            return
        self._templates[name] = _seen(tree)

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self._workshop.spec_of(JINJA2), None, "")

    def _unparsed(self, name: str) -> _Read:
        """Return what is known of a template of another engine: the words in it."""
        text = "\n".join(self._lines(f"{self._project.templates}/{name}"))
        found = _Read(mentioned=set(re.findall(r"[\w-]+", text)))
        for word in re.findall(r"[\w./-]+", text):
            plain = word.lstrip("./")
            found.names |= {plain, f"*/{plain}", f"{plain}.mustache", f"*/{plain}.mustache"}
        if "file=" in text and "${" in text:
            found.names.add("*")
        return found

    def _render(self) -> None:
        """Render all targets, and take down what each render reads."""
        watch = _Watch(self._project.root)
        for step in self._build.plan.of_phase("generate"):
            with watch:
                made = _one(self._workshop, step)
            if isinstance(made, str):
                path = step.patterns[0] if len(step.patterns) == 1 else step.outputs[0]
                self._tell(path, 0, "fails", f"{step.task}: {made.partition(chr(10))[0]}")
                continue
            self._made[step.task] = (step, made.data)
            self._variables[step.rule] |= self._workshop.names_for(step)
            for item in made.inputs:
                if item.kind == "template":
                    name = item.name.removeprefix(f"{self._project.templates}/")
                    self._loaded[step.rule].add(name)
                    self._add_template(name)
                elif item.kind == "pattern":
                    self._reads.setdefault(item.name, []).append((step.rule, item.reads))
            self._undeclared(step, watch.seen, {item.name for item in made.inputs})

    def _undeclared(self, step: Step, seen: Iterable[_Seen], known: set[str]) -> None:
        """Tell of what the project's own functions have read without telling us."""
        for path, line, verb, what in seen:
            real = os.path.realpath(os.path.join(self._project.root, what))
            name = disk.relative(real, os.path.realpath(self._project.root))
            shown = what if name.startswith("../") else name
            own = name.startswith((f"{self._project.state}/", "/dev/"))
            if name in known or own or name.endswith((".py", ".pyc")) or real.startswith("/dev/"):
                continue
            hint = "hand it what read_text(), read_json(), read_toml() or read_yaml() returns"
            if verb != "reads":
                hint = "what it tells can change, and no target is stale then"
            self._tell(path, line, "undeclared-read", f"{verb} {shown} in {step.task}", hint)

    # Variables and keys -----------------------------------------------------------------

    def _reach(self, rule: str) -> set[str]:
        """Return the templates that the renders of a rule can load."""
        found: set[str] = set()
        todo = {self._project.rules[rule].template, *self._loaded[rule]}
        while todo:
            name = todo.pop()
            if name not in found and name in self._templates:
                found.add(name)
                globs = self._templates[name].names
                todo |= {one for one in self._templates if _fits(one, globs)}
        return found

    def _undefined(self) -> None:
        """Tell of variables that are defined by nothing that a template is used with."""
        known: dict[str, set[str]] = {}
        rendered_rules = {step.rule for step, _ in self._made.values()}
        unsure: set[str] = set()
        for rule in self._project.rules:
            reach = self._reach(rule)
            if rule not in rendered_rules:
                unsure |= reach
                continue
            names = self._variables[rule].union(*(self._templates[n].stored for n in reach))
            for name in reach:
                known.setdefault(name, set()).update(names)
        for template, names in known.items():
            for name, line in self._templates[template].undeclared.items():
                if name not in names and template not in unsure:
                    path = f"{self._project.templates}/{template}"
                    text = f"nothing defines '{name}'"
                    self._tell(path, line, "undefined-variable", text)

    def _keys(self) -> None:
        """Tell of keys that no render has read, and that no template mentions."""
        found: dict[tuple[str, ...], list[tuple[str, int]]] = {}
        read_by_any: set[tuple[Any, ...]] = set()
        unread: list[tuple[str, tuple[Any, ...]]] = []
        for path, reads in self._reads.items():
            try:
                data = self._build.world.library.load(path).data
            except CodegenError:
                continue
            mentioned = self._mentioned(rule for rule, _ in reads)
            taken = {read for _, one in reads for read in one}
            for place in _places(data):
                if _is_read(place, taken):
                    read_by_any.add(place)
                elif str(place[-1]) not in mentioned:
                    unread.append((path, place))
        known = set(unread)
        for path, place in unread:
            above = {(path, place[:length]) for length in range(1, len(place))}
            if place in read_by_any or not above.isdisjoint(known):
                continue  # read elsewhere, or told with the table that it is in
            line = places.line_of(path, "\n".join(self._lines(path)), place)
            if not self._ignored(path, line, "unused-key"):
                found.setdefault(tuple(map(str, place)), []).append((path, line))
        for name, where in found.items():
            more = f", and in {len(where) - 1} more" if len(where) > 1 else ""
            path, line = where[0]
            text = f"no template uses the key '{'.'.join(name)}'{more}"
            self._tell(path, line, "unused-key", text)

    def _mentioned(self, rules: Iterable[str]) -> set[str]:
        """Return what the templates of some rules, and the rules themselves, name."""
        found: set[str] = set()
        for name in set(rules):
            rule = self._project.rules[name]
            found |= {*(rule.each or "").split("."), *re.findall(r"\{([^{}]*)\}", rule.target)}
            found.update(*(self._templates[one].mentioned for one in self._reach(name)))
        return found

    # Templates and macros ---------------------------------------------------------------

    def _unused(self) -> None:
        named = {rule.template for rule in self._project.rules.values()}
        named = named.union(*self._loaded.values())
        globs = {glob for read in self._templates.values() for glob in read.names}
        mentioned = set().union(*(read.mentioned for read in self._templates.values()))
        for name, read in self._templates.items():
            path = f"{self._project.templates}/{name}"
            if name not in named and not _fits(name, globs):
                self._tell(path, 0, "unused-template", "no rule and no template names it")
                continue
            if read.problem:
                self._tell(path, 0, "fails", read.problem)
            for macro, line in read.macros.items():
                if macro not in mentioned:
                    self._tell(path, line, "unused-macro", f"no template uses the macro '{macro}'")

    # Names that hide others -------------------------------------------------------------

    def _hidden_keys(self) -> None:
        """Tell where a template writes the name of a key, and gets a method of the table."""
        keys: dict[str, set[str]] = {name: set() for name in self._project.rules}
        for rule, path in dict.fromkeys(
            (step.rule, path)
            for step in self._build.plan.of_phase("generate")
            for path in step.patterns
        ):
            with contextlib.suppress(CodegenError):
                keys[rule] |= set(_names_in(self._build.world.library.load(path).data))
        for rule, names in keys.items():
            for template in self._reach(rule):
                for name, line in self._templates[template].methods.items():
                    if name in names:
                        path = f"{self._project.templates}/{template}"
                        text = f"the method '{name}' of tables hides the key of that name"
                        self._tell(path, line, "shadowed", text, f"write ['{name}'], not .{name}")

    def _shadowed(self) -> None:
        ours = {**self._project.globals, **self._project.functions}
        taken = {*DEFAULT_NAMESPACE, *ours, *OUR_FUNCTIONS}
        told: set[str] = set()
        for path in self._reads:
            with contextlib.suppress(CodegenError):
                for key in self._build.world.library.load(path).data:
                    if key in taken and key not in told:
                        line = places.line_of(path, "\n".join(self._lines(path)), (key,))
                        what = "function" if callable(ours.get(key, len)) else "global"
                        told.add(key)
                        text = f"the key '{key}' hides the {what} of that name in its templates"
                        self._tell(path, line, "shadowed", text)
        kinds = (
            ("filter", self._project.filters, FILTERS),
            ("test", self._project.tests, TESTS),
        )
        for kind, declared, builtin in kinds:
            for name in declared.keys() & builtin.keys():
                path, line = self._place_of(declared[name])
                self._tell(path, line, "shadowed", f"the {kind} '{name}' hides Jinja2's own")
        for rule in self._project.rules:
            for template in self._reach(rule):
                read = self._templates[template]
                for name in read.loops.keys() & self._variables[rule]:
                    path = f"{self._project.templates}/{template}"
                    text = f"the loop's '{name}' hides the variable of that name"
                    self._tell(path, read.loops[name], "shadowed", text)

    def _place_of(self, function: Any) -> tuple[str, int]:
        """Return file and line of a function of the project."""
        code = getattr(function, "__code__", None)
        if code is None:
            return "dodo.py", 0
        return disk.relative(code.co_filename, self._project.root), code.co_firstlineno

    # Rendering again --------------------------------------------------------------------

    def _unsteady(self) -> None:
        digests = {task: digest.of_bytes(data) for task, (_, data) in self._made.items()}
        for task, text in self._again(self._build, digests).items():
            step, data = self._made[task]
            before, after = data.decode("utf-8", "replace").split("\n"), text.split("\n")
            pairs = enumerate(zip(before, after, strict=False), 1)
            line, one, other = next(((n, a, b) for n, (a, b) in pairs if a != b), (0, "", ""))
            path = f"{self._project.templates}/{step.template}"
            where = f", in its line {line}" if line else ""
            text = f"{step.task} differs when it is rendered again{where}"
            hint = f"{_short(one)} became {_short(other)}: the time, chance, or the order of a set"
            self._tell(path, 0, "unsteady", text, hint if line else "it became longer or shorter")


def _fits(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _places(data: Mapping[str, Any], above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of all keys in tables of tables; what is in lists counts with the list."""
    for key, value in data.items():
        yield (*above, key)
        if isinstance(value, Mapping):
            yield from _places(value, (*above, key))


def _names_in(data: Any) -> Iterator[str]:
    """Yield the names of all keys, those of tables in lists too."""
    if isinstance(data, Mapping):
        yield from map(str, data)
    if isinstance(data, (Mapping, list)):
        for value in data.values() if isinstance(data, Mapping) else data:
            yield from _names_in(value)


def _is_read(place: tuple[Any, ...], taken: Set[tuple[tuple[Any, ...], How]]) -> bool:
    """Tell whether something was read of a key, or all of what is around it."""
    whole = any((place[:length], "value") in taken for length in range(len(place) + 1))
    return whole or any(read[: len(place)] == place for read, _ in taken)


# What a parsed template says ------------------------------------------------------------


def _seen(tree: nodes.Template) -> _Read:
    found = _Read()
    undeclared = meta.find_undeclared_variables(tree) - _SPECIAL
    for node in _walk(tree):
        _note(node, found, undeclared)
    for name in _guarded(tree):
        found.undeclared.pop(name, None)
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    for one in tree.find_all(nodes.Getattr):
        if one.attr in _METHODS and id(one) not in called:
            found.methods.setdefault(one.attr, one.lineno)
    return found


def _walk(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _walk(child)


def _note(node: nodes.Node, found: _Read, undeclared: set[str]) -> None:
    if isinstance(node, nodes.Name):
        if node.ctx == "load":
            found.mentioned.add(node.name)
            if node.name in undeclared:
                found.undeclared.setdefault(node.name, node.lineno)
        else:
            found.stored.add(node.name)
    elif isinstance(node, nodes.Getattr):
        found.mentioned.add(node.attr)
    elif isinstance(node, nodes.Const) and isinstance(node.value, str):
        found.mentioned.update(re.split(r"[^\w-]+", node.value), [node.value])
    elif isinstance(node, nodes.Macro):
        found.macros[node.name] = node.lineno
        found.stored.add(node.name)
    elif isinstance(node, nodes.For):
        targets = node.target.find_all(nodes.Name)
        names = [node.target] if isinstance(node.target, nodes.Name) else list(targets)
        for name in names:
            found.loops.setdefault(name.name, name.lineno)
    if isinstance(node, nodes.FromImport):
        for given in node.names:
            original, alias = given if isinstance(given, tuple) else (given, given)
            found.mentioned.add(original)
            found.stored.add(alias)
    if isinstance(node, nodes.Import):
        found.stored.add(node.target)
    if isinstance(node, (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        found.names |= set(_globs(node.template))


def _guarded(tree: nodes.Template) -> Iterator[str]:
    """Yield the variables that a template asks whether they are defined."""
    for test in tree.find_all(nodes.Test):
        if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name):
            yield test.node.name
    for one in tree.find_all(nodes.Filter):
        if one.name in ("default", "d") and isinstance(one.node, nodes.Name):
            yield one.node.name


def _globs(expression: nodes.Expr) -> Iterator[str]:
    """Yield the names that an expression for a template can be; `*` for what is not known."""
    if isinstance(expression, nodes.Const):
        value = expression.value
        values = value if isinstance(value, (list, tuple)) else [value]
        yield from (_literal(one) for one in values if isinstance(one, str))
    elif isinstance(expression, (nodes.List, nodes.Tuple)):
        for item in expression.items:
            yield from _globs(item)
    elif isinstance(expression, nodes.CondExpr):
        yield from _globs(expression.expr1)
        yield from _globs(expression.expr2) if expression.expr2 is not None else ()
    elif isinstance(expression, nodes.Concat):
        parts = expression.nodes
        yield "".join(_literal(str(p.value)) if isinstance(p, nodes.Const) else "*" for p in parts)
    elif isinstance(expression, nodes.Add):
        sides = (list(_globs(expression.left)), list(_globs(expression.right)))
        yield from (left + right for left in sides[0] for right in sides[1])
    else:
        yield "*"


def _literal(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)


# What code of the project does while something renders -----------------------------------

_WATCHED = {
    "open": "reads",
    "os.listdir": "lists",
    "os.scandir": "lists",
    "subprocess.Popen": "starts",
    "socket.connect": "connects to",
}


_OURS = os.path.join(os.path.dirname(__file__), "")


class _Watch:
    """Takes down which files the project's own functions open while it is entered.

    Python never lets go of an audit hook; this one does nothing outside.

    Args:
        root: absolute path of the project.
    """

    def __init__(self, root: str):
        self._root = os.path.join(root, "")
        self._on = False
        self.seen: dict[_Seen, None] = {}
        sys.addaudithook(self._hook)

    def __enter__(self) -> None:
        self.seen, self._on = {}, True

    def __exit__(self, *_: object) -> None:
        self._on = False

    def _hook(self, event: str, given: tuple[Any, ...]) -> None:
        if not self._on or event not in _WATCHED:
            return
        self._on = False
        try:
            what = given[1] if event == "socket.connect" else given[0]
            mode = given[1] if event == "open" else ""
            writes = isinstance(mode, str) and not {*"wax"}.isdisjoint(mode)
            place = None if isinstance(what, int) or writes else self._caller()
            if place is not None:
                text = os.fsdecode(what) if isinstance(what, (bytes, os.PathLike)) else str(what)
                self.seen[(*place, _WATCHED[event], text)] = None
        finally:
            self._on = True

    def _caller(self) -> tuple[str, int] | None:
        """Return file and line of the project's code that is at work; None if none is."""
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith("<frozen importlib"):
                return None  # a module is imported, which counts with whoever uses it
            installed = "site-packages" in name or name.startswith(_OURS)
            if name.startswith(self._root) and name.endswith(".py") and not installed:
                return name.removeprefix(self._root), frame.f_lineno
            above = frame.f_back
            if above is None:
                return None
            frame = above
        return None
