"""The declaration in `dodo.py`: `Codegen`, its rules and template functions.

Checks what it is given at once, so that a mistake is reported before any step begins.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import WeakMethod

from doit.globals import Globals

from . import checks
from . import settings as settings_module
from .engines import check as check_template
from .engines import checked_options
from .errors import DeclarationError, refuse_unknown
from .model import Rule
from .project import Project
from .toolchains import Toolchain, check_timeout, refuse_surplus
from .young import Young

if TYPE_CHECKING:
    from .build import Build
    from .formats import Formatter
    from .glance import Glance

#: Set while a command that may do with a part of the tasks loads them: returns what was
#: selected by name, None if it needs all.
ASKED: ContextVar[WeakMethod[Callable[[], Collection[str] | None]] | None] = ContextVar(
    "ASKED", default=None
)


class ToRun(tuple[str, ...]):
    """What is selected by a command that makes it."""

    __slots__ = ()


class NoTasks(tuple[str, ...]):
    """What is selected by a command that needs the plan of a build, and no task of its steps."""

    __slots__ = ()


_F = TypeVar("_F", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_RULE_KEYS = (
    *("name", "template", "patterns", "target", "each", "compile", "context", "timeout"),
    *("schema", "format", "mode", "newline"),
)


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
        sandbox: render in a sandbox, for templates that are not trusted.
        engines: options of the engines for other template formats, by engine:
            `{"mako": {...}, "mustache": {...}}`.

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
        engines: Mapping[str, Mapping[str, Any]] | None = None,
        *surplus: Any,
        **unknown: Any,
    ):
        known = list(inspect.signature(Codegen.__init__).parameters)[1:-2]
        refuse_unknown("Codegen", unknown, known, "argument")
        refuse_surplus("Codegen", (*known, *surplus), known)
        if not isinstance(name, str) or (name and not _NAME.fullmatch(name)):
            raise DeclarationError("Codegen", f"name {name!r} must be letters, digits, _ or -")
        options = checks.table("environment", environment)
        checks.options("Codegen environment", options)
        names = checks.table("globals", globals)
        checks.refuse_taken(names)
        folders = {"templates": templates, "output": output, "state": state}
        cleaned = {key: checks.folder(key, value) for key, value in folders.items()}
        checks.refuse_overlap(cleaned)
        root = os.getcwd()
        self.project = Project(
            root=root,
            name=name,
            options=options,
            globals=names,
            sandbox=bool(sandbox),
            settings=settings_module.load(root),
            engines=checked_options(engines),
            templates=cleaned["templates"],
            output=cleaned["output"],
            state=cleaned["state"],
        )
        # doit calls this on everything in dodo.py that has it, the class included: so it
        # is there on instances only.
        self.create_doit_tasks = self._create_doit_tasks
        self._build: Build | None = None
        #: The project beside its snapshot, if doit was given only the tasks that may have work.
        self.glance: Glance | None = None
        #: Whether it has been seen at once that there is nothing to do.
        self.quiet = False
        self._supposed: list[str] = []  # tasks whose records were not read for that

    # Declaring --------------------------------------------------------------------------

    def rule(
        self,
        name: str = "",
        template: str = "",
        patterns: str | Sequence[str] | None = None,
        target: str = "",
        each: str | None = None,
        compile: str | Toolchain | Sequence[str | Toolchain] | None = None,  # noqa: A002
        context: Mapping[str, Any] | Callable[[Mapping[str, Any]], Any] | None = None,
        timeout: float | None = None,
        schema: str | None = None,
        format: Formatter | Sequence[str] | None = None,  # noqa: A002
        mode: int | None = None,
        newline: str | None = None,
        *surplus: Any,
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
            each: key of a list in the pattern, or of a table: one target an item, seen as
                `item`, in a table under `key`.  Dots lead into tables: "components.schemas".
            compile: built-in toolchain, `Toolchain`, or a list of them in which each
                compiles what the one before made.
            context: further variables, or a module-level function from the template's
                variables to them.
            timeout: seconds one render, or one compiler process, may take.
            schema: path of a JSON Schema that every pattern must fit.
            format: `Formatter`, or a command that formats from standard input to standard
                output; targets are written as it leaves them.
            mode: permissions of the targets, such as 0o755.
            newline: what ends every line of the targets: a line feed, or carriage return
                and line feed.
            surplus: nothing; too many arguments are refused.
            unknown: nothing; a misspelt argument is refused by name.

        Raises:
            DeclarationError: something of it is unknown, missing or unusable.
        """
        if not name:
            raise DeclarationError("codegen.rule", "lacks the rule's name")
        where = f"rule {name}"
        refuse_unknown(where, unknown, _RULE_KEYS, "key")
        refuse_surplus(where, (*_RULE_KEYS, *surplus), _RULE_KEYS)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DeclarationError(where, "a rule's name must be letters, digits, _ or -")
        if name in self.project.rules:
            raise DeclarationError(where, "is declared twice")
        for key, value in (("template", template), ("target", target)):
            if not isinstance(value, str):
                raise DeclarationError(where, f"{key} must be a string, not {value!r}")
            if not value:
                raise DeclarationError(where, f"lacks {key}=")
        check_template(where, template, self.project.sandbox)
        globs = checks.globs(where, patterns)
        if each is not None and not isinstance(each, str):
            raise DeclarationError(
                where, f"each must be the name of a list or a table, not {each!r}"
            )
        if each is not None and not globs:
            raise DeclarationError(where, "each= needs patterns=")
        if not globs and re.search(r"\{[^{}]*\}", target):
            what = f"target '{target}' has a placeholder, but there are no patterns to fill it"
            raise DeclarationError(where, what, "add patterns=")
        check_timeout(where, timeout)
        self.project.rules[name] = Rule(
            name=name,
            template=template,
            target=target,
            patterns=globs,
            each=each,
            compile=checks.chain(where, compile),
            context=checks.context(where, context),
            timeout=timeout,
            schema=checks.schema(where, schema, globs),
            format=checks.formatter(where, format),
            mode=checks.mode(where, mode),
            newline=checks.newline(where, newline),
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
                known[name] = checks.function(kind, name, known, inner)
                return inner

            return named
        name = getattr(function, "__name__", "")
        known[name] = checks.function(kind, name, known, function)
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
    def build(self) -> Build:
        """The build made when doit last asked for the tasks; see `codegen_tasks.build`."""
        if self._build is None:
            from .build import Build

            self._build = Build(self.project, before=self._before, glance=self.glance)
        return self._build

    def _create_doit_tasks(self) -> Iterator[dict[str, Any]] | None:
        """Return our tasks; None if doit has met us under another name of the `dodo.py`."""
        if not self._is_first_request():
            return None
        _tell_interrupts_shortly()
        self._build, self.glance, self.quiet = None, None, False
        Young(self.project.root).forget()
        reference = ASKED.get()
        asked = reference() if reference is not None else None
        names = asked() if asked is not None else None
        if isinstance(names, NoTasks):
            self.build.fresh = self.build.plan.steps.keys()
        elif names is not None and Globals.dep_manager is not None:
            self.look()
        if self.glance is not None and names is not None:
            if self.quiet:
                supposed = self.glance.records(names)
                Globals.dep_manager.backend.suppose(supposed)
                self._supposed = [name for name, record in supposed.items() if not record]
                return self.glance.tasks(names)
            self.build.fresh = self.glance.fresh(self.build.plan, names)
        if isinstance(names, ToRun) and self.project.settings.output_cache:
            from . import ahead

            self.build.ahead = ahead.likely(self.build, names)
        from .tasks import tasks_of

        return tasks_of(self.build)

    def look(self) -> bool:
        """Look at the project beside its snapshot; tell whether there is nothing to do."""
        from .glance import look

        self.glance = look(self.project, Globals.dep_manager)
        self.quiet = self.glance is not None and self.glance.quiet
        return self.quiet

    def look_closer(self) -> Build:
        """Return the build, in which every step counts as one that may have work."""
        if self._supposed:
            Globals.dep_manager.backend.doubt(self._supposed)
        self.glance, self.quiet, self._supposed = None, False, []
        self.build.fresh = self.build.ahead = frozenset()
        return self.build

    @property
    def is_ahead(self) -> bool:
        """Whether there are steps that are to be restored before doit has tasks for them."""
        return self._build is not None and bool(self._build.ahead)

    @property
    def is_abridged(self) -> bool:
        """Whether there are steps for which doit has no task."""
        return self.glance is not None or self.is_ahead

    def plan_again(self, others: Mapping[str, str], outputs: tuple[str, ...] = ()) -> Build:
        """Return a new build, which knows what tasks make that are not ours; see `chains`.

        Args:
            others: path → task of all they make.
            outputs: output folders of the other Codegen objects.

        Raises:
            DeclarationError: the rules cannot be turned into steps.
        """
        from .build import Build

        self._build = Build(self.project, others, outputs, self._before)
        return self._build

    def _before(self) -> Collection[str]:
        """Return what we have made so far."""
        from . import orphans

        manager = Globals.dep_manager
        asked = vars(manager).get("codegens", ()) if manager is not None else ()
        projects = (self.project, *(other.project for other in asked))
        return {path for project in projects for path in orphans.made(project, manager)}

    def _is_first_request(self) -> bool:
        """Tell whether this doit command has not asked us before, nor a namesake of ours."""
        # Each command has a database of its own, so what it knows of is this command's.
        if Globals.dep_manager is None:
            return True
        asked: list[Codegen] = vars(Globals.dep_manager).setdefault("codegens", [])
        if any(other is self for other in asked):
            return False
        checks.refuse_namesakes(codegen.project.name for codegen in (*asked, self))
        asked.append(self)
        return True


def _tell_interrupts_shortly() -> None:
    """Have Ctrl-C end a command with a line where nothing else minds it, as while it plans."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _told_shortly


def _told_shortly(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
