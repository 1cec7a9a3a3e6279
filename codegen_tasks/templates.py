"""The Jinja2 environment: rendering, and a record of everything a render read.

Imports Jinja2, so it is itself imported where something is rendered, never before.
"""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import re
import time
import types
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import jinja2
from jinja2.runtime import Context, Macro, new_context
from jinja2.utils import _PassArg, internalcode

from . import digest, disk, keys, sandbox, texts
from .bytecode import TemplateCache
from .errors import DeclarationError, StepError
from .explain import Explained, first_line
from .keys import View
from .model import Input, Stat
from .record import Read, Record

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
    """Templates below one folder, and nothing outside of it, links included."""

    def __init__(self, root: str, folder: str):
        self._root = root
        self._folder = folder
        self._fence = os.path.realpath(os.path.join(root, folder)) + os.sep
        self.loaded: dict[str, tuple[str, Stat | None]] = {}
        self.guard: Callable[[str], None] | None = None

    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str, Callable[[], bool] | None]:
        path = f"{self._folder}/{template}"
        full = os.path.join(self._root, path)
        if ".." in template.split("/") or os.path.isabs(template):
            raise StepError(path, "a template cannot lie outside the templates folder")
        if self.guard is not None:
            self.guard(posixpath.normpath(path))
        signature = disk.signature(full)
        if signature is None:
            raise jinja2.TemplateNotFound(template)
        if not os.path.realpath(full).startswith(self._fence):
            raise StepError(path, "a template cannot lie outside the templates folder")
        raw = disk.read(full)
        self.loaded[template] = (digest.of_bytes(raw), signature)
        return texts.decoded(path, raw), path, None


class _Bytecode(jinja2.BytecodeCache):
    """Jinja2's view of the template cache."""

    def __init__(self, cache: TemplateCache, shape: str):
        self._cache = cache
        self._shape = shape
        self._started = 0.0
        self.keys: dict[str, str] = {}

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

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        milliseconds = (time.perf_counter() - self._started) * 1000
        if isinstance(bucket.code, CodeType):
            self._cache.put(bucket.key, bucket.checksum, bucket.code, milliseconds)


@dataclass(frozen=True, slots=True)
class Spec:
    """What an environment is made from.

    Args:
        root: absolute path of the project.
        folder: the templates folder, relative to it.
        options: Jinja2's options, extensions included.
        filters, tests, globals: what the project adds to the templates.
        sandbox: render in Jinja2's sandbox.
        sandbox_bytes: how much one render may make there.
        state: the state folder, project-relative, which no template may read there.
        key_tracking: note which keys of a pattern a render reads.
    """

    root: str
    folder: str
    options: Mapping[str, Any]
    filters: Mapping[str, Callable[..., Any]]
    tests: Mapping[str, Callable[..., Any]]
    globals: Mapping[str, Any]
    sandbox: bool
    sandbox_bytes: int = 0
    state: str = ""
    key_tracking: bool = True

    @property
    def tracks(self) -> bool:
        """Whether all that may reach a pattern can be seen; else every pattern counts whole."""
        extensions = self.options.get("extensions", ())
        given = (*self.filters.values(), *self.tests.values(), *self.globals.values())
        return (
            self.key_tracking
            and all(name in _SEEN_THROUGH for name in extensions)
            and not any(_takes_context(one) for one in (*given, self.options.get("finalize")))
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


class Engine:
    """A warm environment: renders templates and tells what each render read.

    Args:
        spec: what to make the environment from.
        cache: the template cache, or None to parse every template in each process.
        shape: digest of what shapes the bytecode.
    """

    def __init__(self, spec: Spec, cache: TemplateCache | None, shape: str):
        self._spec = spec
        self._loader = _Loader(spec.root, spec.folder)
        self._cache = cache
        self._bytecode = _Bytecode(cache, shape) if cache else None
        self._environment = self._made()
        self._furnish(self._environment)
        self.last_undefined: tuple[Any, str] | None = None
        self._data: dict[tuple[str, str], Any] = {}
        #: Whether it is noted which keys of a pattern a render reads.
        self.tracks = spec.tracks

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
        environment.globals.update(
            read_text=self._read_text, read_json=self._read_json, read_toml=self._read_toml
        )
        environment.filters = _Used(
            environment.filters, lambda name: environment.record.filters.setdefault(name)
        )
        environment.tests = _Used(
            environment.tests, lambda name: environment.record.tests.setdefault(name)
        )

    @property
    def hits(self) -> int:
        """Templates this process found in the cache."""
        return self._cache.hits if self._cache else 0

    @property
    def misses(self) -> int:
        """Templates this process parsed."""
        return self._cache.misses if self._cache else len(self._loader.loaded)

    def warm_up(self) -> None:
        """Make what every parser of templates needs, for processes that are to be forked."""
        self._environment.parse("")

    def parse(self, name: str) -> Input:
        """Load one template, from the cache or by parsing it; return it as an input.

        Raises:
            StepError: it does not exist or has a syntax error.
        """
        self._environment.record = Record()
        self._loader.guard = None
        with Explained(self, name, {}), self._limits():
            self._environment.get_template(name)
        return self._template_input(name)

    def tree(self, name: str) -> jinja2.nodes.Template:
        """Return a template as Jinja2 parses it.

        Raises:
            StepError: it does not exist or has a syntax error.
        """
        self._loader.guard = None
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
        self._loader.guard = guard
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

    def template_inputs(self, record: Record) -> list[Input]:
        """Return the templates of a record, those that are missing too, as inputs."""
        found = [self._template_input(name, via) for name, via in record.templates.items()]
        return found + [Input("missing template", name, "") for name in record.missing]

    def _template_input(self, name: str, via: str = "") -> Input:
        content, signature = self._loader.loaded[name]
        folder = self._spec.folder
        loader = f"{folder}/{via}" if via else ""
        return Input("template", f"{folder}/{name}", content, signature, via=loader)

    # The functions every template has -------------------------------------------------

    def _read_text(self, path: str) -> str:
        """Return a text file's content, path relative to the project; recorded as an input."""
        return self._read(path, "file")[0]

    def _refuse_hostile(self, where: str, full: str, signature: Stat | None) -> None:
        """Refuse what would never end, and to a template in the sandbox what is not its own."""
        if signature is None and os.path.exists(full) and not os.path.isdir(full):
            raise StepError(where, "cannot read: not a regular file")
        if not self._spec.sandbox:
            return
        real = disk.relative(full, os.path.realpath(self._spec.root))
        if any(sandbox.is_private(path, self._spec.state) for path in (where, real)):
            raise StepError(where, "a template in the sandbox cannot read this file")
        if signature is not None and signature[0] > self._spec.sandbox_bytes:
            what = f"is larger than {self._spec.sandbox_bytes} bytes (sandbox_bytes)"
            raise StepError(where, what)

    def _read_json(self, path: str) -> Any:
        """Return a JSON file's data; recorded as an input."""
        return self._read_data(path, "json")

    def _read_toml(self, path: str) -> dict[str, Any]:
        """Return a TOML file's data; recorded as an input."""
        found: dict[str, Any] = self._read_data(path, "toml")
        return found

    def _read(self, path: str, kind: str) -> tuple[str, Read]:
        """Return a file's text, and what is recorded of it."""
        where = posixpath.normpath(path.replace(os.sep, "/"))
        if "\0" in path:
            raise StepError(repr(path), "no file has such a name")
        full = os.path.realpath(os.path.join(self._spec.root, path))
        if not disk.is_inside(full, self._spec.root):
            raise StepError(where, "a template cannot read outside the project")
        if self._loader.guard is not None:
            self._loader.guard(where)
        record = self._environment.record
        signature = disk.signature(full)
        self._refuse_hostile(where, full, signature)
        try:
            raw = disk.read(full)
        except OSError as error:
            record.add_file((kind, where), Read("", None))
            raise StepError(where, f"cannot read: {(error.strerror or '').lower()}") from None
        read = record.add_file((kind, where), Read(digest.of_bytes(raw), signature))
        return texts.decoded(where, raw), read

    def _read_data(self, path: str, kind: str) -> Any:
        """Parse a text once in this process; every caller gets a copy of its own to change.

        Recorded as an input by the keys that are read, as patterns are, not by its bytes.
        """
        text, read = self._read(path, kind)
        if (kind, text) not in self._data:
            self._data[kind, text] = texts.parsed(path, text, texts.PARSERS[kind])
        read.data = self._data[kind, text]
        return keys.handed(read.data, read.notes, self.tracks)

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
    def spec(self) -> Spec:
        """What the environment is made from."""
        return self._spec

    @property
    def root(self) -> str:
        """Absolute path of the project."""
        return self._spec.root

    @property
    def folder(self) -> str:
        """The templates folder, relative to the project."""
        return self._spec.folder

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
