"""The Jinja2 environment: rendering, and a record of everything a render read.

Imports Jinja2, so it is itself imported where something is rendered, never before.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
import types
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any

import jinja2
from jinja2.runtime import Context, Macro, new_context
from jinja2.utils import _PassArg, internalcode

from . import digest, keys, sandbox
from .bytecode import TemplateCache
from .engines.base import Reader
from .engines.base import Spec as Spec
from .engines.explained import first_line
from .errors import DeclarationError, StepError
from .explain import Explained
from .keys import View
from .model import Input
from .record import Record

#: Under this name, which no pattern can have, contexts hand on what a render sees.
_VIEW = "\0view"


class _Used(dict[str, Any]):
    """Filters or tests by name; notes in the current record which ones are asked for."""

    def __init__(self, content: Mapping[str, Any], note: Callable[[str], None]):
        super().__init__(content)
        self._note = note

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)


class _Context(Context):
    """Notes the names a template looks up, and which keys of a pattern it reads by them."""

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:  # the template's own, which hides all others
            return self.vars[key]
        found = self.parent.get(key, _MISSING)
        if found is _MISSING or key in self.environment.globals:
            self.environment.record.names[key] = None  # type: ignore[attr-defined]
        view = self.parent.get(_VIEW)
        return found if view is None else view.seen(key, found, _MISSING)

    @internalcode
    def call(__self, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        if type(__obj) is Macro:
            return __self._call_macro(__obj, args, kwargs)
        if _is_jinjas(__obj):
            return super().call(__obj, *args, **kwargs)
        view = __self.parent.get(_VIEW)
        # A macro that was imported without context has no view, and may be given tables.
        if view is not None and _PassArg.from_obj(__obj) is _PassArg.context:
            view.see_all()
        call = super().call
        return keys.called_with_plain(lambda *a, **k: call(__obj, *a, **k), args, kwargs)

    @internalcode
    def _call_macro(self, macro: Macro, args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a macro as Jinja2 does, without finding out again what a macro asks for."""
        kwargs.pop("_block_vars", None)
        kwargs.pop("_loop_vars", None)
        try:
            return macro(self.eval_ctx, *args, **kwargs)
        except StopIteration:
            return self.environment.undefined("what a macro called raised StopIteration")


_MISSING = jinja2.utils.missing


_UNBOUND = (types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType)


def _is_jinjas(called: Any) -> bool:
    """Tell whether what a template calls is Jinja2's or Python's: what it asks for is seen.

    Methods of lists and dicts are Python's; a function of a library written in C may look
    inside a table without asking, and so does a dict's method that is not a table's.
    """
    kind = type(called)
    if kind in _UNBOUND:
        return False
    owner = kind
    if kind in (types.FunctionType, type):
        owner = called
    elif kind is types.MethodType:
        owner = called.__func__
    elif kind is types.BuiltinFunctionType:
        owner = called if isinstance(called.__self__, types.ModuleType) else type(called.__self__)
    module = getattr(owner, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in ("jinja2", "builtins")


def _given_plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter or test that is handed plain tables."""

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        return keys.called_with_plain(function, given, named)

    return call


class _Template(jinja2.Template):
    """A template that repeats what its cached module read to everyone who imports it.

    Jinja2 runs an imported template's top level once per process; without this, only the
    first importer would know what it had loaded.
    """

    _module_record: Record | None = None

    def new_context(self, vars: Any = None, shared: bool = False, locals: Any = None) -> Context:  # noqa: A002
        # Jinja2 copies globals with every context, from a chain of maps many times slower.
        known = self.globals
        if isinstance(known, ChainMap) and len(known.maps) == 2 and not known.maps[0]:
            known = known.maps[1]
        return new_context(self.environment, self.name, self.blocks, vars, shared, known, locals)

    def _get_default_module(self, ctx: Any = None) -> Any:
        environment: Any = self.environment
        if self._module is not None and self._module_record is not None and _is_usual(ctx):
            environment.record.include(self._module_record)
            return self._module
        outer, environment.record = environment.record, Record()
        try:
            module = super()._get_default_module(ctx)
            if self._module_record is not None:
                environment.record.include(self._module_record)
            elif module is self._module:
                self._module_record = environment.record
            return module
        finally:
            outer.include(environment.record)
            environment.record = outer


def _is_usual(context: Context | None) -> bool:
    """Tell whether a context has no globals of its own, besides those of its environment."""
    return context is None or context.globals_keys <= context.environment.globals.keys()


class _Loader(jinja2.BaseLoader):
    """Jinja2's view of the templates."""

    def __init__(self, reader: Reader):
        self._reader = reader

    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str, Callable[[], bool] | None]:
        found = self._reader.source(template)
        if found is None:
            raise jinja2.TemplateNotFound(template)
        return (*found, None)


class _Bytecode(jinja2.BytecodeCache):
    """Jinja2's view of the template cache."""

    def __init__(self, cache: TemplateCache, shape: str):
        self._cache = cache
        self._shape = shape
        self._started = 0.0
        self.keys: dict[str, str] = {}
        self.hits = 0
        self.misses = 0

    def get_bucket(
        self, environment: jinja2.Environment, name: str, filename: str | None, source: str
    ) -> jinja2.bccache.Bucket:
        key = digest.of_parts(self._shape, name, digest.of_bytes(source.encode()))
        self.keys[name] = key
        bucket = jinja2.bccache.Bucket(environment, name, key)
        self.load_bytecode(bucket)
        self._started = time.perf_counter()
        return bucket

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        bucket.code = self._cache.get(bucket.key, bucket.checksum)
        self.hits += bucket.code is not None

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        milliseconds = (time.perf_counter() - self._started) * 1000
        if isinstance(bucket.code, CodeType):
            self.misses += 1
            self._cache.put(bucket.key, bucket.checksum, bucket.code, milliseconds)


def _tracks(spec: Spec) -> bool:
    """Tell whether all that may reach a pattern can be seen; else every pattern counts whole."""
    extensions = spec.options.get("extensions", ())
    given = (*spec.filters.values(), *spec.tests.values(), *spec.globals.values())
    return (
        spec.key_tracking
        and all(name in _SEEN_THROUGH for name in extensions)
        and not any(_takes_context(one) for one in (*given, spec.options.get("finalize")))
    )


#: Extensions that ask a context for nothing but what a template names.
_SEEN_THROUGH = {
    *("jinja2.ext.do", "jinja2.ext.i18n", "jinja2.ext.loopcontrols"),
    *("jinja2.ext.ExprStmtExtension", "jinja2.ext.InternationalizationExtension"),
    "jinja2.ext.LoopControlExtension",
}


def _takes_context(value: Any) -> bool:
    try:
        return callable(value) and _PassArg.from_obj(value) is _PassArg.context
    except Exception:  # an object with a `__getattr__` of its own
        return True


class Engine(Reader):
    """A warm environment: renders templates and tells what each render read.

    Args:
        spec: what to make the environment from.
        cache: the template cache, or None to parse every template in each process.
        shape: digest of what shapes the bytecode.
    """

    def __init__(self, spec: Spec, cache: TemplateCache | None, shape: str):
        super().__init__(spec)
        self._loader = _Loader(self)
        self._cache = cache
        self._bytecode = _Bytecode(cache, shape) if cache else None
        self._environment = self._made()
        self._furnish(self._environment)
        self.last_undefined: tuple[Any, str] | None = None
        #: Whether it is noted which keys of a pattern a render reads.
        self.tracks = _tracks(spec)

    @property
    def record(self) -> Record:
        """What the render has read that is going on."""
        found: Record = self._environment.record
        return found

    @property
    def hands_tables(self) -> bool:
        """Whether templates get tables that note what is read of them."""
        return self.tracks

    def _made(self) -> Any:
        limit = self._spec.sandbox_bytes
        base = sandbox.environment(limit) if self._spec.sandbox else jinja2.Environment
        ours: dict[str, Any] = {"keep_trailing_newline": True, "undefined": _undefined(self)}
        finalize = self._spec.options.get("finalize")
        theirs = {"finalize": _given_plain(finalize)} if finalize is not None else {}
        try:
            return self.environment_class(base)(
                loader=self._loader,
                bytecode_cache=self._bytecode,
                auto_reload=False,
                cache_size=-1,
                **{**ours, **self._spec.options, **theirs},
            )
        except Exception as error:
            what = f"Jinja2 refuses it: {first_line(error).rstrip('.')}"
            raise DeclarationError("Codegen environment", what) from None

    def environment_class(self, base: type[Any]) -> type[Any]:
        """Return the class of the environment, of one of Jinja2's."""
        return _environment_class(base)

    def _furnish(self, environment: Any) -> None:
        # These two look at what a table is made of.
        shown = {name: environment.filters[name] for name in ("pprint", "tojson")}
        for name, function in {**shown, **self._spec.filters}.items():
            environment.filters[name] = _given_plain(function)
        for name, function in self._spec.tests.items():
            environment.tests[name] = _given_plain(function)
        environment.globals.update(self._spec.globals)
        environment.globals.update(self.functions())
        environment.filters = _Used(
            environment.filters, lambda name: environment.record.filters.setdefault(name)
        )
        environment.tests = _Used(
            environment.tests, lambda name: environment.record.tests.setdefault(name)
        )

    @property
    def hits(self) -> int:
        """Templates this process found in the cache."""
        return self._bytecode.hits if self._bytecode else 0

    @property
    def misses(self) -> int:
        """Templates this process parsed."""
        return self._bytecode.misses if self._bytecode else len(self.loaded)

    def warm_up(self) -> None:
        """Make what every parser of templates needs, for processes that are to be forked."""
        self._environment.parse("")

    def parse(self, name: str) -> Input:
        """Load one template, from the cache or by parsing it; return it as an input.

        Raises:
            StepError: it does not exist or has a syntax error.
        """
        self._environment.record = Record()
        self.guard = None
        with Explained(self, name, {}), self._limits():
            self._environment.get_template(name)
        return self.template_input(name)

    def tree(self, name: str) -> jinja2.nodes.Template:
        """Return a template as Jinja2 parses it.

        Raises:
            StepError: it does not exist or has a syntax error.
        """
        self.guard = None
        with Explained(self, name, {}):
            source, path, _ = self._loader.get_source(self._environment, name)
            tree: jinja2.nodes.Template = self._environment._parse(source, name, path)
        return tree

    def entry_path(self, name: str) -> str | None:
        """Return where the cache keeps a template that was loaded; None without a cache."""
        if self._cache is None or self._bytecode is None:
            return None
        return self._cache.path(name, self._bytecode.keys[name])

    def render(
        self,
        name: str,
        view: View,
        made_by: str = "",
        guard: Callable[[str], None] | None = None,
    ) -> tuple[str, Record]:
        """Return the rendered text and the record of what was read.

        Args:
            name: the template.
            view: what it sees besides globals; notes what it reads of patterns.
            made_by: the pattern, for messages.
            guard: is called with each path that is about to be read; may raise.

        Raises:
            StepError: whatever went wrong, with template and line.
        """
        self.guard = guard
        record = self._environment.record = Record()
        self.last_undefined = None
        with Explained(self, name, view.variables, made_by, view), self._limits():
            template = self._environment.get_template(name)
            text = template.render({**view.variables, _VIEW: view})
        return text, record

    def _limits(self) -> contextlib.AbstractContextManager[None]:
        if not self._spec.sandbox:
            return contextlib.nullcontext()
        return sandbox.limited_memory(self._spec.sandbox_bytes)

    # Messages -------------------------------------------------------------------------

    def files_read(self) -> Iterator[tuple[str, keys.Path, Any]]:
        """Yield path, place (the top) and content of the data that the render has read so far."""
        for (_, path), read in self._environment.record.files.items():
            yield path, (), read.data

    def known_names(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the variables and globals a template could have meant."""
        return [*variables, *self._environment.globals]

    def defined_names(self, template: str) -> list[str]:
        """Return the names a template defines at its top, as far as its text tells."""
        try:
            source, _, _ = self._loader.get_source(self._environment, template)
        except (jinja2.TemplateNotFound, StepError):
            return []
        return re.findall(r"\b(?:macro|set)\s+(\w+)", source)

    @property
    def filter_names(self) -> list[str]:
        """Names of all filters."""
        return list(self._environment.filters)

    @property
    def test_names(self) -> list[str]:
        """Names of all tests."""
        return list(self._environment.tests)


_TABLES = (dict, keys.Table)
#: What of a table is no key of it, for a template that says `table.name`.
_OF_TABLES = frozenset(dir(keys.Table))


def _environment_class(base: type[Any]) -> type[Any]:
    """Return `base` with a record of the templates it hands out."""

    class Environment(base):
        context_class = _Context
        template_class = _Template
        record = Record()

        def __init__(self, *args: Any, **named: Any):
            super().__init__(*args, **named)
            self._loaded: dict[str, Any] = {}

        def getattr(self, obj: Any, attribute: str) -> Any:
            # Jinja2 tries first whether it is an attribute, which costs an exception.
            if type(obj) in _TABLES and attribute not in _OF_TABLES:
                try:
                    return obj[attribute]
                except KeyError:
                    pass
            return super().getattr(obj, attribute)

        def getitem(self, obj: Any, argument: Any) -> Any:
            # For a key that is not there, Jinja2 takes a method of that name.
            if type(obj) in _TABLES and type(argument) is str and argument in _OF_TABLES:
                found = obj.get(argument, jinja2.utils.missing)
                absent = found is jinja2.utils.missing
                return self.undefined(obj=obj, name=argument) if absent else found
            return super().getitem(obj, argument)

        def get_template(self, name: Any, parent: Any = None, globals: Any = None) -> Any:  # noqa: A002
            usual = type(name) is str and globals is None and not self.overlayed
            if usual and name in self._loaded:
                self.record.templates.setdefault(name, parent or "")
                return self._loaded[name]
            if isinstance(name, jinja2.Template):
                return name
            wanted = name if parent is None else self.join_path(name, parent)
            try:
                template = super().get_template(name, parent, globals)
            except jinja2.TemplateNotFound as error:
                if error.name == wanted:
                    self.record.missing[wanted] = None
                raise
            if usual:
                self._loaded[name] = template
            self.record.templates.setdefault(template.name, parent or "")
            return template

        def select_template(self, names: Any, parent: Any = None, globals: Any = None) -> Any:  # noqa: A002
            if isinstance(names, jinja2.Undefined):
                names._fail_with_undefined_error()
            for name in names:
                try:
                    return self.get_template(name, parent, globals)
                except jinja2.TemplateNotFound as error:
                    if error.name != name:
                        raise
            raise jinja2.TemplatesNotFound([str(name) for name in names])

    return Environment


def _undefined(engine: Engine) -> type[jinja2.Undefined]:
    """Return a strict undefined that remembers what was asked of which object."""

    class Undefined(jinja2.StrictUndefined):
        def __init__(
            self, hint: Any = None, obj: Any = jinja2.utils.missing, *rest: Any, **more: Any
        ):
            super().__init__(hint, obj, *rest, **more)
            name = more.get("name", rest[0] if rest else None)
            if obj is not jinja2.utils.missing and isinstance(name, str):
                engine.last_undefined = (obj, name)

    return Undefined
