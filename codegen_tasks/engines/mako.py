"""Mako: templates compiled to Python modules, which the template cache keeps as code objects.

What a template is handed it asks a context for, by name; there it is seen which names it asks
for.  What its Python does with a value cannot be seen, so each variable counts whole, and the
modules that a template imports count as those of a filter do.

Imports Mako, so it is itself imported where something is rendered, never before.
"""

from __future__ import annotations

import ast
import inspect
import os
import posixpath
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from types import CodeType, ModuleType
from typing import Any

import mako
from mako import codegen, exceptions, runtime
from mako.cache import CacheImpl, register_plugin
from mako.lexer import Lexer
from mako.lookup import TemplateCollection
from mako.template import ModuleInfo, ModuleTemplate
from mako.util import FastEncodingBuffer

from .. import digest, keys
from ..bytecode import TemplateCache
from ..errors import StepError, nearest
from ..keys import Table, View
from ..model import Input
from ..record import ANY_MODULE, Record
from . import MAKO
from .base import Reader, Spec
from .explained import Explained, Place, Said, first_line, raised_in

_MISSING = object()
#: Where Mako's own functions lie.
_MAKO = os.path.dirname(mako.__file__)
#: What a template's module keeps of what it imports: for each import its name and the names taken
#: from it; and whether it may import what cannot be read off it.
_IMPORTS, _DYNAMIC = "_codegen_imports", "_codegen_dynamic"
#: And whether it asks for all variables that its caller has not named.
_WHOLE = "_codegen_whole"
#: By these, code gets at modules whose names nobody can read off it.
_IMPORTERS = {"__import__", "import_module", "importlib", "eval", "exec", "globals"}
#: Variables by which a template gets at all others at once.
_ALL = re.compile(r"\bpageargs\b")
#: Where Mako says in a message which file and line it means.
_PLACE = re.compile(r"( in file '.*')?,? at line: \d+ char: \d+$")

#: How Mako tells that an expression is no Python.
_PYTHON = re.compile(r"^\(\w+\) (.*) \(<unknown>, line \d+\) \((.*)\)$")


class _NoCache(CacheImpl):
    """What keeps nothing of `cached="True"`: what is rendered hangs on all that is read for it."""

    def get_or_create(self, key: str, creation_function: Callable[[], Any], **kw: Any) -> Any:
        """Return what is made anew."""
        return creation_function()


register_plugin("codegen", __name__, "_NoCache")


class Engine(Reader):
    """A warm set of Mako templates.

    Args:
        spec: what to make it from.
        cache: the template cache, or None to compile every template in each process.
        shape: digest of what shapes the compiled modules.
    """

    def __init__(self, spec: Spec, cache: TemplateCache | None, shape: str):
        super().__init__(spec, MAKO)
        self._cache = cache
        self._shape = shape
        self._lookup = _Lookup(self)
        self._templates: dict[str, ModuleTemplate] = {}
        self._keys: dict[str, str] = {}
        self.tracks = spec.key_tracking
        self.hits = 0
        self.misses = 0
        self.globals: dict[str, Any] = {**spec.globals, **self.functions()}

    def warm_up(self) -> None:
        """Make what every parser of templates needs, for processes that are to be forked."""
        Lexer("").parse()

    def parse(self, name: str) -> Input:
        """Compile one template, or find it in the cache; nothing of it is executed.

        Raises:
            StepError: it does not exist or has a syntax error.
        """
        self._record, self.guard = Record(), None
        with _Explained(self, name, View([], {}, {})):
            self._code(name)
        return self.template_input(name)

    def entry_path(self, name: str) -> str | None:
        """Return where the cache keeps a template that was loaded; None without a cache."""
        return self._cache.path(name, self._keys[name]) if self._cache is not None else None

    def render(
        self,
        name: str,
        view: View,
        made_by: str = "",
        guard: Callable[[str], None] | None = None,
    ) -> tuple[str, Record]:
        """Return the rendered text and the record of what was read.

        Raises:
            StepError: whatever went wrong, with template and line.
        """
        self._record, self.guard = Record(), guard
        with _Explained(self, name, view, made_by):
            template = self.template(name)
            buffer = FastEncodingBuffer()
            context, names = self._context(buffer, view)
            context._with_template = template
            # The body that runs is that of the template from which the others inherit.
            body, inner = runtime._populate_self_namespace(context, template)
            body(inner, **_arguments(body, names, view))
            text = str(buffer.getvalue())
        self._note_imports()
        return text, self._record

    def _context(self, buffer: Any, view: View) -> tuple[Any, _Names]:
        """Return a context that notes what is asked of it, and its variables."""
        context = runtime.Context(buffer)
        names = _Names(_Shared(self, view))
        names.update(context._data)
        context._data, context._kwargs = names, _Whole(view)
        return context, names

    # Loading ----------------------------------------------------------------------------

    def template(self, name: str, via: str = "") -> ModuleTemplate:
        """Return a template, loaded at most once in this process; note that it was loaded.

        Raises:
            TopLevelLookupException: there is none.
            StepError: it lies outside, or is another engine's.
        """
        found = self._templates.get(name)
        if found is None:
            code = self._code(name)
            module = ModuleType(re.sub(r"\W", "_", f"codegen_{name}"))
            exec(code, vars(module))
            path = f"{self.folder}/{name}"
            found = ModuleTemplate(
                module,
                template_filename=path,
                lookup=self._lookup,
                cache_impl="codegen",
                cache_enabled=False,
            )
            self._templates[name] = found
        self._record.templates.setdefault(name, via)
        return found

    def _code(self, name: str) -> CodeType:
        """Return the code object of a template's module, from the cache or compiled."""
        found = self.source(name)
        if found is None:
            self._record.missing[name] = None
            raise exceptions.TopLevelLookupException(name)
        source, path = found
        key = digest.of_parts(self._shape, name, digest.of_bytes(source.encode()))
        self._keys[name] = key
        code = self._cache.get(name, key) if self._cache is not None else None
        if code is not None:
            self.hits += 1
            return code
        start = time.perf_counter()
        code = self._compiled(name, path, source)
        self.misses += 1
        if self._cache is not None:
            self._cache.put(name, key, code, (time.perf_counter() - start) * 1000)
        return code

    def _compiled(self, name: str, path: str, source: str) -> CodeType:
        options = self._spec.options
        loop = options.get("enable_loop", True)
        with warnings.catch_warnings():
            # Of single expressions, which know no line; the module's own would be told.
            warnings.simplefilter("ignore")
            text = codegen.compile(
                Lexer(source, path).parse(),
                name,
                path,
                default_filters=list(options.get("default_filters", ["str"])),
                buffer_filters=list(options.get("buffer_filters", ())),
                imports=list(options.get("imports", ())),
                strict_undefined=True,
                enable_loop=loop,
                reserved_names=codegen.RESERVED_NAMES.difference([] if loop else ["loop"]),
            )
        tree = _at_home(text, path)
        told = {**_told_imports(tree), _WHOLE: _ALL.search(source) is not None}
        for key, value in told.items():
            tree.body += ast.parse(f"{key} = {value!r}").body
        return compile(tree, path, "exec", dont_inherit=True)

    def _note_imports(self) -> None:
        """Note which modules the loaded templates import themselves."""
        for name in self._record.templates:
            module = vars(self._templates[name].module)
            if module[_DYNAMIC]:
                self._record.modules[ANY_MODULE] = None
            for one, taken in module[_IMPORTS]:
                for each in _modules_of(one, taken):
                    self._record.modules[each] = None

    def known_names(self, view: View) -> list[str]:
        """Return what a template could have meant by a name."""
        return [*view.variables, *self.globals, *self._spec.filters]


def _arguments(body: Any, names: _Names, view: View) -> dict[str, Any]:
    """Return what a template's body asks for as `<%page args>`, or as `pageargs`."""
    if body.__globals__.get(_WHOLE):
        return _Whole(view).copy()
    wanted = list(inspect.signature(body).parameters.values())[1:]
    given = (one.name for one in wanted if one.kind is one.POSITIONAL_OR_KEYWORD)
    return {name: names[name] for name in given if name in names}


def _at_home(text: str, path: str) -> ast.Module:
    """Return the tree of a module's source, in which each line is that of the template."""
    lines = ModuleInfo.get_module_source_metadata(text, full_line_map=True)["full_line_map"]

    def line(number: int) -> int:
        return max(lines[min(number, len(lines)) - 1], 1) if lines else 1

    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        error.filename, error.lineno = path, line(error.lineno or 1)
        raise
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            place: Any = node
            place.lineno = place.end_lineno = line(place.lineno)
            place.col_offset = place.end_col_offset = 0
    return tree


# What a template imports -----------------------------------------------------------------


def _told_imports(tree: ast.Module) -> dict[str, Any]:
    """Return what a template's module is to keep of its imports."""
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    dynamic = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(((one.name, ()), None) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            found[node.module or "", tuple(one.name for one in node.names)] = None
        elif isinstance(node, ast.keyword) and node.arg == "module":
            # Of a namespace; its name may be an expression.
            name = node.value.value if isinstance(node.value, ast.Constant) else None
            dynamic = dynamic or not isinstance(name, str)
            found[str(name), ()] = None
        dynamic = dynamic or not _IMPORTERS.isdisjoint(_words(node))
    kept = tuple(one for one in found if _top(one[0]) != "mako")
    return {_IMPORTS: kept, _DYNAMIC: dynamic}


def _words(node: ast.AST) -> set[Any]:
    """Return the name that a node of a module is about; a template's own are texts there."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    return {getattr(node, "id", None), getattr(node, "attr", None)}


def _top(name: str) -> str:
    return name.partition(".")[0]


def _modules_of(name: str, taken: Sequence[str]) -> Iterator[str]:
    """Yield the modules that an import has run; one that lies in Python may be the project's."""
    yield from accumulate(name.split("."), "{}.{}".format)
    yield from (each for part in taken if (each := f"{name}.{part}") in sys.modules)


# What a template sees --------------------------------------------------------------------


class _Shared:
    """The variables of one render, and a note of which are asked for."""

    def __init__(self, engine: Engine, view: View):
        self._engine = engine
        self._view = view
        self.ours = {**engine.spec.filters, **engine.globals, **view.variables}
        self._handed: dict[str, Any] = {}

    def handed(self, name: str) -> Any:
        """Return what a template gets by a name, each time the same; `_MISSING` for nothing."""
        if name not in self._handed:
            self._handed[name] = self._found(name)
        return self._handed[name]

    def _found(self, name: str) -> Any:
        view, record = self._view, self._engine.record
        found = view.seen(name, self.ours.get(name, _MISSING), _MISSING)
        if name not in view.variables:
            record.names[name] = None
            if name not in self._engine.globals:
                record.filters[name] = None
            return found
        # Code that cannot be looked into gets no table that notes what is read of it.
        many = name == "patterns" and name in view.fixed
        return keys.unwrapped(found) if many or type(found) is Table else found

    def see_all(self) -> None:
        """Note that everything was read."""
        self._view.see_all()


class _Names(dict[str, Any]):
    """The data of a context: what Mako puts there itself, above what a render is given."""

    def __init__(self, shared: _Shared):
        super().__init__()
        self._shared = shared

    def _find(self, name: str) -> Any:
        value = super().get(name, _MISSING)
        return self._shared.handed(name) if value is _MISSING else value

    def __getitem__(self, name: str) -> Any:
        value = self._find(name)
        if value is _MISSING:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not _MISSING

    def get(self, name: str, default: Any = None) -> Any:
        value = self._find(name)
        return default if value is _MISSING else value

    def copy(self) -> _Names:
        made = _Names(self._shared)
        made.update(dict.items(self))  # not itself, for that is all the variables, too
        return made

    def keys(self) -> Any:
        self._shared.see_all()
        return {**self._shared.ours, **dict(dict.items(self))}.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


class _Whole:
    """All variables of a render, for a template that asks for them at once."""

    def __init__(self, view: View):
        self._view = view

    def copy(self) -> dict[str, Any]:
        """Return them, plain; all that patterns say counts as read."""
        self._view.see_all()
        variables = self._view.variables.items()
        return {name: keys.copied(keys.unwrapped(value)) for name, value in variables}


class _Lookup(TemplateCollection):
    """What finds the templates that others load by name, at run time."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._via = ""

    def adjust_uri(self, uri: str, relativeto: str | None) -> str:
        """Return the name of a template as another one names it."""
        self._via = relativeto or ""
        folder = "" if uri.startswith("/") else posixpath.dirname(self._via)
        return posixpath.normpath(posixpath.join(folder, uri.lstrip("/")))

    def get_template(self, uri: str, relativeto: str | None = None) -> ModuleTemplate:
        """Return a template by its name."""
        via, self._via = relativeto or self._via, ""
        return self._engine.template(posixpath.normpath(uri.lstrip("/")), via)


# Messages --------------------------------------------------------------------------------


class _Explained(Explained):
    def __init__(self, engine: Engine, name: str, view: View, made_by: str = ""):
        super().__init__(engine, name, made_by)
        self._engine = engine
        self._view = view

    def places(self, error: BaseException) -> list[Place]:
        """Return the places in templates that led to an exception, outermost first."""
        return [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if self._is_template(frame.f_code)
        ]

    def _is_template(self, code: CodeType) -> bool:
        return code.co_filename.startswith(f"{self._engine.folder}/")

    def said(self, error: BaseException, places: Sequence[Place]) -> Said:
        """Return what an exception comes to, which is none of ours."""
        if isinstance(error, (exceptions.SyntaxException, exceptions.CompileException)):
            what = _lower(_PYTHON.sub(r"\1: \2", _PLACE.sub("", first_line(error))))
            return Said(what, place=(error.filename or self._path, error.lineno))
        if isinstance(error, SyntaxError):
            place = (error.filename or self._path, error.lineno or 0)
            return Said(_lower(error.msg), place=place)
        if isinstance(error, exceptions.TemplateLookupException):
            return self._not_found()
        called = self._called(error)
        if isinstance(error, NameError) and not called:
            return self._undefined(error, places)
        told = f": {first_line(error)}" if str(error) else ""
        what = type(error).__name__ + raised_in(called, self._engine.root) + told
        return Said(what, word=_word(error))

    def _not_found(self) -> Said:
        name = next(reversed(self._engine.record.missing), "")
        hint = nearest(name, self._engine.template_names())
        return Said(f"there is no template '{name}'", hint, word=name)

    def _called(self, error: BaseException) -> list[tuple[CodeType, int]]:
        """Return code and line of what the innermost template called, outermost first."""
        called: list[tuple[CodeType, int]] = []
        for frame, line in traceback.walk_tb(error.__traceback__):
            code = frame.f_code
            called = [] if self._is_template(code) else [*called, (code, line)]
        return [one for one in called if not one[0].co_filename.startswith(_MAKO)]

    def _undefined(self, error: BaseException, places: Sequence[Place]) -> Said:
        """Return what to say of a name that nothing defines."""
        found = re.search(r"'(.+?)' is not defined", str(error))
        name = found[1] if found else str(getattr(error, "name", "") or "")
        if not name:  # printed, though nothing had it
            return Said("an undefined name is used", "is each name defined that the line uses?")
        known = self._engine.known_names(self._view)
        hint = f"say context['{name}'] here" if name in known else nearest(name, known)
        return Said(f"'{name}' is undefined", hint, self._first_use(name, places), name)

    def _first_use(self, name: str, places: Sequence[Place]) -> Place | None:
        """Return where a template first uses a name: Mako asks for all at once, at its top."""
        path, line = places[-1] if places else (self._path, 1)
        try:
            found = self._engine.source(path.removeprefix(f"{self._engine.folder}/"))
            nodes = Lexer(found[0] if found else "", path).parse()
        except (StepError, exceptions.MakoException):
            return None
        uses = [one.lineno for one in _walk(nodes) if _uses(one, name)]
        after = [number for number in uses if number >= line]
        if not uses:
            return None
        first = min(after or uses)  # of what may be a block of Python
        lines = found[0].splitlines()[first - 1 :] if found else []
        words = (n for n, text in enumerate(lines, first) if re.search(rf"\b{name}\b", text))
        return path, next(words, first)


def _walk(node: Any) -> Iterator[Any]:
    """Yield a node of a parsed template and all that stand in it."""
    yield node
    for child in node.get_children():
        yield from _walk(child)


def _uses(node: Any, name: str) -> bool:
    """Tell whether a node of a template itself asks for a name."""
    asked = getattr(node, "undeclared_identifiers", None)
    return asked is not None and name in asked()


def _word(error: BaseException) -> str:
    """Return the word of a template that an exception is about, as far as it tells."""
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return error.args[0]
    return str(getattr(error, "name", "") or "") if isinstance(error, AttributeError) else ""


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
