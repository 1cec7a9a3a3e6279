"""The declaration in `dodo.py`: `Codegen`, its rules and template functions.

Checks what it is given at once, so that a mistake is reported before any step begins.
"""

from __future__ import annotations

import inspect
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

from . import settings as settings_module
from . import toolchains
from .errors import DeclarationError, nearest, refuse_unknown
from .model import Rule
from .project import Project
from .toolchains import Toolchain

_F = TypeVar("_F", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
#: Jinja2's environment options that a project may set; the others are ours to set.
_OPTIONS = (
    "autoescape",
    "block_end_string",
    "block_start_string",
    "comment_end_string",
    "comment_start_string",
    "extensions",
    "finalize",
    "keep_trailing_newline",
    "line_comment_prefix",
    "line_statement_prefix",
    "lstrip_blocks",
    "newline_sequence",
    "optimized",
    "trim_blocks",
    "undefined",
    "variable_end_string",
    "variable_start_string",
)
_RULE_KEYS = ("template", "patterns", "target", "each", "compile", "context", "timeout")
_OUR_FUNCTIONS = ("read_text", "read_json", "read_toml")


class Codegen:
    """Templates, patterns and compilers, declared as doit tasks with file targets.

    doit finds the object in `dodo.py` by itself.

    Args:
        templates: folder of the templates.
        output: folder of everything generated and compiled.
        state: folder of database, manifest, caches and logs; safe to delete.
        name: prefix of the tasks, needed if `dodo.py` declares two.
        environment: Jinja2 environment options, extensions included.
        globals: further names in every template.
        sandbox: render in Jinja2's sandbox, for templates that are not trusted.

    Raises:
        DeclarationError: an unknown or unusable argument or setting.
    """

    def __init__(
        self,
        templates: str = "templates",
        output: str = "generated",
        state: str = ".codegen",
        name: str = "",
        environment: Mapping[str, Any] | None = None,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 -- the contract's name
        sandbox: bool = False,
        **unknown: Any,
    ):
        known = list(inspect.signature(Codegen.__init__).parameters)[1:-1]
        refuse_unknown("Codegen", unknown, known, "argument")
        if name and not _NAME.fullmatch(name):
            raise DeclarationError("Codegen", f"name {name!r} must be letters, digits, _ or -")
        options = dict(environment or {})
        refuse_unknown("Codegen environment", options, _OPTIONS, "option")
        folders = {"templates": templates, "output": output, "state": state}
        cleaned = {key: _folder(key, value) for key, value in folders.items()}
        _refuse_overlap(cleaned)
        root = os.getcwd()
        self.project = Project(
            root=root,
            name=name,
            options=options,
            globals=dict(globals or {}),
            sandbox=bool(sandbox),
            settings=settings_module.load(root),
            templates=cleaned["templates"],
            output=cleaned["output"],
            state=cleaned["state"],
        )
        # doit calls this on everything in dodo.py that has it, the class included: so it
        # is there on instances only.
        self.create_doit_tasks = self._create_doit_tasks
        self._build: Any = None

    # Declaring --------------------------------------------------------------------------

    def rule(
        self,
        name: str,
        template: str = "",
        patterns: str | Sequence[str] | None = None,
        target: str = "",
        each: str | None = None,
        compile: str | Toolchain | Sequence[str | Toolchain] | None = None,  # noqa: A002
        context: Mapping[str, Any] | Callable[[Mapping[str, Any]], Any] | None = None,
        timeout: float | None = None,
        **unknown: Any,
    ) -> None:
        """Declare targets: templates × patterns.

        Args:
            name: of the rule, for messages.
            template: name of a template below the templates folder.
            patterns: glob or globs of pattern files, relative to the project.
            target: path below the output folder.  `{stem}`, `{folder}` and any scalar key
                of the pattern make it one target a pattern; without a placeholder it is
                one file that sees all patterns as `patterns`.
            each: key of a list in the pattern: one target an item, seen as `item`.
            compile: built-in toolchain, `Toolchain`, or a list of them in which each
                compiles what the one before made.
            context: further variables, or a module-level function from the pattern's data
                to them.
            timeout: seconds a step of this rule may take.
            unknown: nothing; a misspelt argument is refused by name.

        Raises:
            DeclarationError: something of it is unknown, missing or unusable.
        """
        where = f"rule {name}"
        refuse_unknown(where, unknown, _RULE_KEYS, "key")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DeclarationError(where, "a rule's name must be letters, digits, _ or -")
        if name in self.project.rules:
            raise DeclarationError(where, "is declared twice")
        for key, value in (("template", template), ("target", target)):
            if not isinstance(value, str) or not value:
                raise DeclarationError(where, f"lacks {key}=")
        globs = _globs(where, patterns)
        if each is not None and not globs:
            raise DeclarationError(where, "each= needs patterns=")
        if not globs and re.search(r"\{[^{}]*\}", target):
            what = f"target '{target}' has a placeholder, but there are no patterns to fill it"
            raise DeclarationError(where, what, "add patterns=")
        if timeout is not None and (not isinstance(timeout, (int, float)) or timeout <= 0):
            raise DeclarationError(where, f"timeout must be seconds above 0, not {timeout!r}")
        self.project.rules[name] = Rule(
            name=name,
            template=template,
            target=target,
            patterns=globs,
            each=each,
            compile=_chain(where, compile),
            context=_context(where, context),
            timeout=timeout,
        )

    @overload
    def filter(self, function: _F) -> _F: ...
    @overload
    def filter(self, function: str) -> Callable[[_F], _F]: ...
    def filter(self, function: Any) -> Any:
        """Add a filter to the templates, under the function's name or a given one.

        Use as `@codegen.filter` or `@codegen.filter("name")`; the function is unchanged.
        """
        return self._added("filter", self.project.filters, function)

    @overload
    def test(self, function: _F) -> _F: ...
    @overload
    def test(self, function: str) -> Callable[[_F], _F]: ...
    def test(self, function: Any) -> Any:
        """Add a test (`x is name`) to the templates; use as `filter`."""
        return self._added("test", self.project.tests, function)

    @overload
    def function(self, function: _F) -> _F: ...
    @overload
    def function(self, function: str) -> Callable[[_F], _F]: ...
    def function(self, function: Any) -> Any:
        """Add a function to the templates; use as `filter`."""
        return self._added("function", self.project.functions, function)

    @staticmethod
    def _added(kind: str, known: dict[str, Any], function: Any) -> Any:
        if isinstance(function, str):
            name = function

            def named(inner: Any) -> Any:
                known[name] = _checked(kind, name, known, inner)
                return inner

            return named
        name = getattr(function, "__name__", "")
        known[name] = _checked(kind, name, known, function)
        return function

    @property
    def doit_config(self) -> dict[str, Any]:
        """Database and reporter for every doit command: `DOIT_CONFIG = codegen.doit_config`."""
        return {
            "backend": "codegen",
            "dep_file": f"{self.project.state}/state.db",
            "reporter": "codegen",
        }

    # doit -------------------------------------------------------------------------------

    @property
    def build(self) -> Any:
        """The build made when doit last asked for the tasks; see `codegen_tasks.build`."""
        if self._build is None:
            from .build import Build

            self._build = Build(self.project)
        return self._build

    def _create_doit_tasks(self) -> Iterator[dict[str, Any]]:
        from .build import Build
        from .tasks import tasks_of

        self._build = Build(self.project)
        yield from tasks_of(self._build)


def _folder(key: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise DeclarationError("Codegen", f"{key} must be the name of a folder, not {value!r}")
    path = posixpath.normpath(os.fspath(value).replace(os.sep, "/"))
    if os.path.isabs(path) or path == "." or path.startswith(".."):
        what = f"{key} must be a folder inside the project, not {os.fspath(value)!r}"
        raise DeclarationError("Codegen", what)
    return path


def _refuse_overlap(folders: Mapping[str, str]) -> None:
    for first, path in folders.items():
        for second, other in folders.items():
            if first != second and (path + "/").startswith(other + "/"):
                what = f"{first} folder '{path}' lies in the {second} folder '{other}'"
                raise DeclarationError("Codegen", what)


def _globs(where: str, patterns: Any) -> tuple[str, ...]:
    if patterns is None:
        return ()
    globs = (patterns,) if isinstance(patterns, (str, os.PathLike)) else tuple(patterns)
    found = tuple(os.fspath(glob).replace(os.sep, "/") for glob in globs)
    for glob in found:
        if os.path.isabs(glob) or ".." in glob.split("/"):
            raise DeclarationError(where, f"patterns '{glob}' lies outside of the project")
    return found


def _chain(where: str, compile_: Any) -> tuple[Toolchain, ...]:
    if compile_ is None:
        return ()
    links = compile_ if isinstance(compile_, (list, tuple)) else [compile_]
    chain = []
    for link in links:
        found = link if isinstance(link, Toolchain) else toolchains.builtin(str(link))
        if found is None:
            hint = nearest(str(link), toolchains.names()) or (
                f"built in: {', '.join(toolchains.names())}; or pass a Toolchain"
            )
            raise DeclarationError(where, f"unknown toolchain '{link}'", hint)
        chain.append(found)
    return tuple(chain)


def _context(where: str, context: Any) -> Any:
    if context is None or isinstance(context, Mapping):
        return context
    if not callable(context):
        raise DeclarationError(where, f"context must be a dict or a function, not {context!r}")
    if "<" in getattr(context, "__qualname__", ""):
        hint = "define it with def at the top of a module"
        raise DeclarationError(where, "context must be a module-level function", hint)
    return context


def _checked(kind: str, name: str, known: Mapping[str, Any], function: Any) -> Any:
    if not callable(function):
        raise DeclarationError(f"{kind} {name or function!r}", "is not a function")
    if not name or name == "<lambda>":
        hint = f'use @codegen.{kind}("name")'
        raise DeclarationError(kind, "a function without a name needs one", hint)
    if kind == "function" and name in _OUR_FUNCTIONS:
        raise DeclarationError(f"function {name}", "every template already has one of that name")
    if name in known:
        raise DeclarationError(f"{kind} {name}", "is declared twice")
    return function
