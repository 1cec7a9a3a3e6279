"""One project as declared: its folders, rules, functions and settings; no build state.

Picklable as long as its functions are, so that a worker that was not forked can have it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from . import digest
from .engines import JINJA2, KINDS, Kind, kind_of
from .functions import Sources
from .model import FORMATTER, Rule, Step
from .settings import Settings
from .toolchains import Tool, Toolchain

#: Raised when a new version of this package renders or records something differently.
FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Project:
    """What a `Codegen` object declared.

    Args:
        root: absolute path of the project.
        name: prefix of its tasks, "" for the only one.
        templates: the templates folder, project-relative.
        output: the output folder, project-relative.
        state: the state folder, project-relative; `home` is this project's part of it.
        options: Jinja2 environment options.
        globals: further names in every template.
        sandbox: templates are not trusted.
        settings: of the machine or the moment.
        engines: options of the other engines, by engine.
        rules, filters, tests, functions: by name, in declared order.
    """

    root: str
    name: str
    templates: str
    output: str
    state: str
    options: Mapping[str, Any]
    globals: Mapping[str, Any]
    sandbox: bool
    settings: Settings
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    filters: dict[str, Callable[..., Any]] = field(default_factory=dict)
    tests: dict[str, Callable[..., Any]] = field(default_factory=dict)
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """The part of the state folder that is this project's alone."""
        return f"{self.state}/{self.name}" if self.name else self.state

    @property
    def manifest_path(self) -> str:
        """The manifest, project-relative."""
        return f"{self.home}/manifest.json"

    @property
    def cache_folder(self) -> str:
        """The folder of all caches, project-relative."""
        return f"{self.home}/cache"

    @property
    def cache_log(self) -> str:
        """The file with a line for each hit and miss, project-relative."""
        return f"{self.home}/logs/cache.log"

    @property
    def kept_folder(self) -> str:
        """The folder of what was kept aside before it was made again, project-relative."""
        return f"{self.home}/kept"

    def map_path(self, path: str) -> str:
        """Return the source map of a target, both project-relative."""
        folder, _, name = path.removeprefix(f"{self.output}/").rpartition("/")
        if len(os.fsencode(name)) > 251:
            name = f"{name[:40]}-{digest.of_parts(name)}"
        return f"{self.maps_folder}/{folder}/{name}.map".replace("//", "/")

    @property
    def maps_folder(self) -> str:
        """The folder of source maps, project-relative."""
        return f"{self.home}/maps"

    def log_path(self, phase: str, target: str) -> str:
        """Return the log file of one target, project-relative."""
        folder, _, name = f"{phase}/{target}".rpartition("/")
        if len(os.fsencode(name)) > 251:  # with its suffix it would be too long for a name
            name = f"{name[:40]}-{digest.of_parts(name)}"
        return f"{self.home}/logs/{folder}/{name}.log"

    def full(self, path: str) -> str:
        """Return the absolute path of a project-relative one."""
        return os.path.join(self.root, path)

    def task(self, phase: str, target: str = "") -> str:
        """Return the name of a phase's group task, or of the task of one target."""
        group = f"{self.name}.{phase}" if self.name else phase
        return f"{group}:{target}" if target else group

    def toolchain(self, rule: str, link: int) -> Toolchain:
        """Return the compiler of a rule's compile step."""
        chain: Toolchain = self.rules[rule].compile[link]
        return chain

    def tool(self, step: Step) -> Tool | None:
        """Return the program that a step starts; None if it starts none."""
        if step.link == FORMATTER:
            formatter: Tool | None = self.rules[step.rule].format
            return formatter
        return self.toolchain(step.rule, step.link) if step.phase == "compile" else None

    # Digests of what was declared -------------------------------------------------------

    def options_of(self, engine: str) -> Mapping[str, Any]:
        """Return the options of an engine."""
        return self.options if engine == JINJA2.name else self.engines.get(engine, {})

    def kinds(self) -> list[Kind]:
        """Return the engines that the rules' templates need, and Jinja2."""
        return list(dict.fromkeys([JINJA2, *(kind_of(r.template) for r in self.rules.values())]))

    def environment_digest(self, sources: Sources, engine: str = JINJA2.name) -> str:
        """Return the digest of what every render hangs on besides templates and patterns."""
        options = sorted(self.options_of(engine).items())
        return digest.of_parts(
            FORMAT,
            "sandbox 2" if self.sandbox else "",
            *(f"{name}={sources.of(value)}" for name, value in options),
            *map(sources.of_module, self._modules(engine)),
            *map(_version, KINDS[engine].packages),
            metadata.version("tomli"),
            sys.implementation.cache_tag or sys.version,
        )

    def environment_facts(self, sources: Sources, engine: str = JINJA2.name) -> dict[str, str]:
        """Return what the digest of the environment is of, by name, in a few words each."""
        options = {
            f"environment {name}": _words(value) or digest.short(sources.of(value))
            for name, value in sorted(self.options_of(engine).items())
        }
        modules = {
            f"extension {name}": digest.short(sources.of_module(name))
            for name in self._modules(engine)
        }
        return {
            **options,
            **modules,
            "sandbox": str(self.sandbox),
            **{name: _version(name) for name in KINDS[engine].packages},
            "tomli": metadata.version("tomli"),
            "python": sys.implementation.cache_tag or sys.version,
            "codegen-tasks format": FORMAT,
        }

    def _modules(self, engine: str) -> list[str]:
        """Return the modules that an engine's options name."""
        return self._extension_modules() if engine == JINJA2.name else []

    def _extension_modules(self) -> list[str]:
        """Return the modules of extensions given by name; Jinja2's own have its version."""
        given = [name for name in self.options.get("extensions", ()) if isinstance(name, str)]
        modules = [n.partition(":")[0] if ":" in n else n.rpartition(".")[0] for n in given]
        return [name for name in modules if name.partition(".")[0] not in ("jinja2", "")]

    def shape_digest(self, sources: Sources, engine: str = JINJA2.name) -> str:
        """Return the digest of what shapes compiled templates: options, and what is folded in.

        Jinja2 folds filters of constants while it compiles, so their source is in there.
        Everything else declared is looked at too, before a render can change what a function
        keeps in a constant: the next process will find it as it was.
        """
        parts = [self.environment_digest(sources, engine), self.templates]
        functions = {"filter": self.filters, "test": self.tests}
        for kind, known in functions.items() if engine == JINJA2.name else ():
            parts += [f"{kind} {n} {sources.of(f)}" for n, f in sorted(known.items())]
        for value in (*self.functions.values(), *self.globals.values()):
            sources.of(value)
        return digest.of_parts(*parts)

    def rule_digest(self, name: str) -> str:
        """Return the digest of what a rule's renders hang on besides their inputs."""
        template, each, patterns, *more = self.rule_facts(name).items()
        return digest.of_data([template[1], each[1], patterns[1], *map(list, more)])

    def rule_facts(self, name: str) -> dict[str, str]:
        """Return the same by name."""
        rule = self.rules[name]
        patterns = ("one" if "{" in rule.target else "all") if rule.patterns else "none"
        facts = {"template": rule.template, "each": rule.each or "none", "patterns": patterns}
        # What few rules have is told only of these.
        if rule.schema is not None:
            facts |= {"schema": rule.schema, "jsonschema": _version("jsonschema")}
        if rule.format is not None:
            facts["format"] = rule.format.name
        if rule.mode is not None:
            facts["mode"] = f"{rule.mode:04o}"
        if rule.newline is not None:
            facts["newline"] = repr(rule.newline)
        return facts


def _version(package: str) -> str:
    """Return the version of a package that may not be installed, and is then missed elsewhere."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _words(value: Any) -> str:
    plain = isinstance(value, (str, int, bool, type(None)))
    names = isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value)
    return repr(value) if plain or names else ""
