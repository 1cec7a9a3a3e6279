"""What every input and output is *now*, each looked at once while it stays the same.

`staleness` decides, this tells the facts.  Unaware of traces and of doit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import digest, disk, texts
from .engines import JINJA2, KINDS, Kind, kind_of
from .errors import StepError
from .folders import Folders
from .functions import Sources
from .model import DATA_KINDS, FILE_KINDS, PATH_KINDS, Input, Output, Stat, Step
from .patterns import Library, selected
from .process import find
from .project import Project
from .record import ANY_MODULE
from .toolchains import Tool


def compiled_by(kind: Kind) -> str:
    """Return the name of what shapes an engine's compiled templates, an input "environment"."""
    return "bytecode" if kind is JINJA2 else f"{kind.name} bytecode"


class World:
    """The facts of one project in one process.

    Args:
        project: what was declared.
        folders: its folders, as far as they were listed already.
    """

    def __init__(self, project: Project, folders: Folders | None = None):
        self.project = project
        self.library = Library(project.root, folders)
        self.sources = Sources()
        self.files = disk.FileDigests()
        self._declared: dict[str, str] = {}
        self._inputs: dict[tuple[str, str], Input] = {}
        self._shown: dict[tuple[str, str], str] = {}
        self._versions: dict[tuple[Any, ...], tuple[str, str]] = {}
        self._programs: dict[str, str | None] = {}
        self._identities: dict[Tool, str] = {}

    def __reduce__(self) -> Any:
        """Pickle without what was looked at: a worker looks for itself."""
        return (World, (self.project,))

    # What follows from the declaration --------------------------------------------------

    def declared(self, step: Step) -> list[tuple[str, str]]:
        """Return kind and name of each input that the declaration gives to a step."""
        if step.phase == "templates":
            shape = compiled_by(kind_of(step.template))
            return [("template", self._template(step)), ("environment", shape)]
        if step.phase == "compile":
            toolchain = self.project.toolchain(step.rule, step.link)
            return [
                ("source", step.source),
                ("toolchain", toolchain.name),
                ("command", toolchain.name),
                *(("file", name) for name in toolchain.files(self.project.root)),
            ]
        found = [
            ("rule", step.rule),
            ("environment", kind_of(step.template).name),
            ("template", self._template(step)),
            *(("pattern", path) for path in step.patterns),
        ]
        rule = self.project.rules[step.rule]
        if rule.context is not None:
            found.append(("context", step.rule))
        if rule.schema is not None:
            found.append(("json", rule.schema))
        if rule.format is not None:
            found += [("toolchain", rule.format.name), ("command", rule.format.name)]
            found += [("file", name) for name in rule.format.files(self.project.root)]
        return found

    def _template(self, step: Step) -> str:
        return f"{self.project.templates}/{step.template}"

    # What is now ------------------------------------------------------------------------

    def current(self, step: Step, item: Input) -> tuple[str, str]:
        """Return digest and wording of an input as it is now; digest "" if there is none."""
        if item.kind in FILE_KINDS:
            return self.file(item.name, item), ""
        if item.kind == "missing template":
            return self.file(f"{self.project.templates}/{item.name}", None), ""
        if item.kind in DATA_KINDS:
            return self._data(item)
        if item.kind in ("toolchain", "command"):
            return self._compiler(step, item)
        found = self.declaration(item.kind, item.name)
        return found, "" if found == item.digest else self.shown(item.kind, item.name)

    def signed(self, step: Step, item: Input) -> Input:
        """Return an input with the signature its file has now, if that still says the same."""
        # The signature comes first: what changes in between is then found to be different.
        now = self.signature(step, item)
        if now in (item.stat, None):
            return item
        same = self.current(step, replace(item, stat=None))[0] == item.digest
        return replace(item, stat=now) if same else item

    def signature(self, step: Step, item: Input) -> Stat | None:
        """Return the signature of the file behind an input, as it is now; None if there is none."""
        if item.kind in PATH_KINDS:
            return disk.signature(self.project.full(item.name))
        if item.kind == "toolchain":
            tool = self.project.tool(step)
            program = self._program(tool) if tool is not None else None
            return disk.stat(program) if program is not None else None
        return None

    def file(self, path: str, known: Input | None) -> str:
        """Return the digest of a file; "" if there is none or it cannot be read."""
        recorded = (known.stat, known.digest) if known is not None else None
        try:
            return self.files.get(self.project.full(path), recorded) or ""
        except OSError:
            return ""

    def _data(self, item: Input) -> tuple[str, str]:
        """Return digest and text of what was read of a pattern or another file of data."""
        signature = disk.stat(self.project.full(item.name))
        if signature is None:
            return "", ""
        if signature == item.stat:
            return item.digest, item.shown
        try:
            if item.kind == "pattern":
                data = self.library.load(item.name).data
            else:
                data = texts.load(self.project.full(item.name), item.kind)
            return selected(item.kind, item.name, data, item.reads)
        except (StepError, TypeError, OSError):
            return digest.of_parts("unreadable", self.file(item.name, None)), ""

    def on_disk(self, output: Output) -> str | None:
        """Return the digest of an output as it lies on disk; None if it does not."""
        path = self.project.full(output.path)
        if not output.digest:  # an entry of a cache, which vouches for itself
            return None if disk.stat(path) is None else ""
        try:
            return self.files.get(path, (output.stat, output.digest))
        except OSError:
            return None

    def settle(self) -> None:
        """Look at everything declared now, before a render.

        A filter may fill a dict of its module while it works; what counts is how it began.
        """
        project = self.project
        kinds = (
            ("filter", project.filters),
            ("test", project.tests),
            ("function", project.functions),
            ("global", {**project.globals, **project.functions}),
            ("context", project.rules),
        )
        for kind, names in kinds:
            for name in names:
                self.declaration(kind, name)

    def declaration(self, kind: str, name: str) -> str:
        """Return the digest of something declared in dodo.py; "" if it no longer is."""
        key = f"{kind} {name}"
        if key not in self._declared:
            self._declared[key] = self._of_declaration(kind, name)
        return self._declared[key]

    def shown(self, kind: str, name: str) -> str:
        """Return what explains a change of something declared: facts as JSON, or a value."""
        key = (kind, name)
        if key not in self._shown:
            self._shown[key] = self._shown_of(kind, name)
        return self._shown[key]

    def _shown_of(self, kind: str, name: str) -> str:
        project = self.project
        if kind == "environment" and name in KINDS:
            return digest.text_of(project.environment_facts(self.sources, name))
        if kind == "rule" and name in project.rules:
            return digest.text_of(project.rule_facts(name))
        if kind == "global" and name in project.globals:
            return _worded(project.globals[name])
        return ""

    def declared_input(self, kind: str, name: str) -> Input:
        """Return something declared as an input, the same object each time."""
        found = self._inputs.get((kind, name))
        if found is None:
            now = self.declaration(kind, name)
            found = Input(kind, name, now, None, self.shown(kind, name))
            self._inputs[kind, name] = found
        return found

    def _of_declaration(self, kind: str, name: str) -> str:
        project = self.project
        if kind == "environment":
            return self._of_environment(name)
        if kind == "module":
            return self.sources.of_module(name) if name != ANY_MODULE else self.sources.of_all()
        if kind == "rule":
            return project.rule_digest(name) if name in project.rules else ""
        if kind == "context":
            rule = project.rules.get(name)
            return self.sources.of(rule.context) if rule is not None else ""
        known = {
            "filter": project.filters,
            "test": project.tests,
            "function": project.functions,
            "global": {**project.globals, **project.functions},
        }
        functions = known.get(kind, {})
        return self.sources.of(functions[name]) if name in functions else ""

    def _of_environment(self, name: str) -> str:
        if name in KINDS:
            return self.project.environment_digest(self.sources, name)
        engine = name.removesuffix("bytecode").strip() or JINJA2.name
        return self.project.shape_digest(self.sources, engine) if engine in KINDS else ""

    # Compilers --------------------------------------------------------------------------

    def _compiler(self, step: Step, item: Input) -> tuple[str, str]:
        toolchain = self.project.tool(step)
        if toolchain is None:
            return "", ""  # it was formatted once
        if item.kind == "command":
            return self._identity(toolchain), digest.text_of(toolchain.facts)
        program = self._program(toolchain)
        if program is None:
            return "", ""
        if item.stat is not None and disk.stat(program) == item.stat:
            return item.digest, item.shown
        try:
            return self.version(toolchain, program)
        except StepError:
            return "", ""  # the step itself will tell what is wrong

    def _identity(self, toolchain: Tool) -> str:
        if toolchain not in self._identities:
            self._identities[toolchain] = toolchain.identity
        return self._identities[toolchain]

    def _program(self, toolchain: Tool) -> str | None:
        """Return the path of a compiler, looked for once; None while it is not installed."""
        name = toolchain.program
        if self._programs.get(name) is None:
            self._programs[name] = find(name)
        return self._programs[name]

    def version(self, toolchain: Tool, program: str) -> tuple[str, str]:
        """Return digest and wording of a compiler's version; asks each program at most once.

        Raises:
            StepError: it cannot be asked.
        """
        key = (program, disk.stat(program), toolchain.version)
        if key not in self._versions:
            self._versions[key] = toolchain.read_version(program, self.project.root)
        return self._versions[key]

    def compiler_inputs(self, step: Step) -> list[Input]:
        """Return the inputs that stand for a step's compiler or formatter; ask before it runs.

        Raises:
            StepError: it is not installed.
        """
        toolchain = self.project.tool(step)
        if toolchain is None:
            return []
        program = toolchain.find()
        signature = disk.stat(program)
        version, shown = self.version(toolchain, program)
        return [
            Input("toolchain", toolchain.name, version, signature, shown),
            Input(
                "command",
                toolchain.name,
                toolchain.identity,
                shown=digest.text_of(toolchain.facts),
            ),
            *(self.read_file("file", name) for name in toolchain.files(self.project.root)),
        ]

    def read_file(self, kind: str, path: str) -> Input:
        """Return a file as an input that a step is about to read.

        The signature is the older of the two facts: a file that changes in between is
        looked at again by the next run, instead of being taken for what it was.
        """
        signature = disk.signature(self.project.full(path))
        return Input(kind, path, self.file(path, None), signature)


#: A value that takes more room is told by its digest.
_SHORT = 60


def _worded(value: Any) -> str:
    """Return a plain value as people read it; "" for any other."""
    if not isinstance(value, (str, int, float, bool, type(None))):
        return ""
    text = repr(value)
    return text if len(text) <= _SHORT else ""
