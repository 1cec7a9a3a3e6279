"""The Jinja2 environment: rendering, and a record of everything a render read.

The only module that imports Jinja2; imported where something is rendered, never before.
"""

from __future__ import annotations

import json
import os
import re
import time
import tomllib
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import CodeType, TracebackType
from typing import Any

import jinja2
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from . import digest, disk
from .bytecode import TemplateCache
from .errors import CodegenError, StepError, nearest
from .model import Input, Stat


@dataclass(slots=True)
class Record:
    """What one render has read so far.

    Args:
        templates: names loaded, in order.
        missing: names looked for and not found.
        files: paths read through a template function, with digest and signature.
        names: variables looked up; filters, tests: those used.
    """

    templates: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    files: dict[str, tuple[str, Stat | None]] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    filters: dict[str, None] = field(default_factory=dict)
    tests: dict[str, None] = field(default_factory=dict)

    def include(self, other: Record) -> None:
        """Add all that `other` has read."""
        self.templates.update(other.templates)
        self.missing.update(other.missing)
        self.files.update(other.files)
        self.names.update(other.names)
        self.filters.update(other.filters)
        self.tests.update(other.tests)


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
    """Notes the names a template looks up, found or not."""

    def resolve_or_missing(self, key: str) -> Any:
        self.environment.record.names[key] = None  # type: ignore[attr-defined]
        return super().resolve_or_missing(key)


class _Template(jinja2.Template):
    """A template that repeats what its cached module read to everyone who imports it.

    Jinja2 runs an imported template's top level once per process; without this, only the
    first importer would know what it had loaded.
    """

    _module_record: Record | None = None

    def _get_default_module(self, ctx: Any = None) -> Any:
        environment: Any = self.environment
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


class _Loader(jinja2.BaseLoader):
    """Templates below one folder, and nothing outside of it, links included."""

    def __init__(self, root: str, folder: str):
        self._root = root
        self._folder = folder
        self._fence = os.path.realpath(os.path.join(root, folder)) + os.sep
        self.loaded: dict[str, tuple[str, Stat | None]] = {}

    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str, Callable[[], bool] | None]:
        path = f"{self._folder}/{template}"
        full = os.path.join(self._root, path)
        if ".." in template.split("/") or os.path.isabs(template):
            raise StepError(path, "a template cannot lie outside the templates folder")
        signature = disk.stat(full)
        if signature is None:
            raise jinja2.TemplateNotFound(template)
        if not os.path.realpath(full).startswith(self._fence):
            raise StepError(path, "a template cannot lie outside the templates folder")
        raw = disk.read(full)
        self.loaded[template] = (digest.of_bytes(raw), signature)
        return self._decoded(path, raw), path, None

    @staticmethod
    def _decoded(path: str, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            what = f"not UTF-8 (byte 0x{raw[error.start]:02x})"
            raise StepError(f"{path}:{line}", what, "save the file as UTF-8") from None


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
    """

    root: str
    folder: str
    options: Mapping[str, Any]
    filters: Mapping[str, Callable[..., Any]]
    tests: Mapping[str, Callable[..., Any]]
    globals: Mapping[str, Any]
    sandbox: bool


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
        base = SandboxedEnvironment if spec.sandbox else jinja2.Environment
        self._environment = _environment_class(base)(
            loader=self._loader,
            bytecode_cache=self._bytecode,
            auto_reload=False,
            cache_size=-1,
            **{"keep_trailing_newline": True, "undefined": _undefined(self), **spec.options},
        )
        self._furnish(self._environment)
        self.last_undefined: tuple[Any, str] | None = None

    def _furnish(self, environment: Any) -> None:
        environment.filters.update(self._spec.filters)
        environment.tests.update(self._spec.tests)
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

    def parse(self, name: str) -> Input:
        """Load one template, from the cache or by parsing it; return it as an input.

        Raises:
            StepError: it does not exist or has a syntax error.
        """
        self._environment.record = Record()
        with _Explained(self, name, {}):
            self._environment.get_template(name)
        return self._template_input(name)

    def entry_path(self, name: str) -> str | None:
        """Return where the cache keeps a template that was loaded; None without a cache."""
        if self._cache is None or self._bytecode is None:
            return None
        return self._cache.path(name, self._bytecode.keys[name])

    def render(
        self, name: str, variables: Mapping[str, Any], made_by: str = ""
    ) -> tuple[str, Record]:
        """Return the rendered text and the record of what was read.

        Args:
            name: the template.
            variables: what it sees besides globals.
            made_by: the pattern, for messages.

        Raises:
            StepError: whatever went wrong, with template and line.
        """
        record = self._environment.record = Record()
        self.last_undefined = None
        with _Explained(self, name, variables, made_by):
            text = self._environment.get_template(name).render(variables)
        return text, record

    def inputs(self, record: Record) -> list[Input]:
        """Return the templates and files of a record as inputs."""
        found = [self._template_input(name) for name in record.templates]
        found += [Input("missing template", name, "") for name in record.missing]
        found += [
            Input("file", path, content, signature)
            for path, (content, signature) in record.files.items()
        ]
        return found

    def _template_input(self, name: str) -> Input:
        content, signature = self._loader.loaded[name]
        return Input("template", f"{self._spec.folder}/{name}", content, signature)

    # The functions every template has -------------------------------------------------

    def _read_text(self, path: str) -> str:
        """Return a text file's content, path relative to the project; recorded as an input."""
        full = os.path.realpath(os.path.join(self._spec.root, path))
        where = path.replace(os.sep, "/")
        if not full.startswith(os.path.realpath(self._spec.root) + os.sep):
            raise StepError(where, "a template cannot read outside the project")
        signature = disk.stat(full)
        record = self._environment.record
        try:
            raw = disk.read(full)
        except OSError as error:
            record.files[where] = ("", None)
            raise StepError(where, f"cannot read: {(error.strerror or '').lower()}") from None
        record.files[where] = (digest.of_bytes(raw), signature)
        return _Loader._decoded(where, raw)

    def _read_json(self, path: str) -> Any:
        """Return a JSON file's data; recorded as an input."""
        try:
            return json.loads(self._read_text(path))
        except json.JSONDecodeError as error:
            raise StepError(f"{path}:{error.lineno}", error.msg.lower()) from None

    def _read_toml(self, path: str) -> dict[str, Any]:
        """Return a TOML file's data; recorded as an input."""
        try:
            return tomllib.loads(self._read_text(path))
        except tomllib.TOMLDecodeError as error:
            raise StepError(path, str(error)) from None

    # Messages -------------------------------------------------------------------------

    def known_names(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the variables and globals a template could have meant."""
        return [*variables, *self._environment.globals]

    def source_line(self, path: str, line: int) -> list[str]:
        """Return one line of a file of the project, numbered, for a message."""
        try:
            text = disk.read(os.path.join(self._spec.root, path)).decode("utf-8", "replace")
            return [f"{line} | {text.splitlines()[line - 1].rstrip()}"]
        except (OSError, IndexError):
            return []

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


def _environment_class(base: type[Any]) -> type[Any]:
    """Return `base` with a record of the templates it hands out."""

    class Environment(base):
        context_class = _Context
        template_class = _Template
        record = Record()

        def get_template(self, name: Any, parent: Any = None, globals: Any = None) -> Any:  # noqa: A002
            if isinstance(name, jinja2.Template):
                return name
            wanted = name if parent is None else self.join_path(name, parent)
            try:
                template = super().get_template(name, parent, globals)
            except jinja2.TemplateNotFound as error:
                if error.name == wanted:
                    self.record.missing[wanted] = None
                raise
            self.record.templates[template.name] = None
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


class _Explained:
    """Turns whatever a template raised into a StepError with its place."""

    def __init__(self, engine: Engine, name: str, variables: Mapping[str, Any], made_by: str = ""):
        self._engine = engine
        self._name = name
        self._variables = variables
        self._made_by = made_by

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or not isinstance(error, Exception):
            return
        raise self._explain(error, _places(trace, self._engine.folder)) from None

    def _explain(self, error: Exception, places: list[tuple[str, int]]) -> StepError:
        if isinstance(error, jinja2.TemplateSyntaxError):
            return self._syntax(error)
        if isinstance(error, RecursionError):
            return self._recursion(places)
        if isinstance(error, CodegenError):
            what, hint, own = error.what, error.hint, list(error.details)
            return StepError(error.where, what, hint, own + self._context(places))
        if isinstance(error, jinja2.TemplateNotFound):
            return self._not_found(error, places)
        what, hint = self._words(error)
        where = _at(places[-1]) if places else f"{self._engine.folder}/{self._name}"
        shown = self._engine.source_line(*places[-1]) if places else []
        return StepError(where, what, hint, shown + self._context(places[:-1]))

    def _words(self, error: Exception) -> tuple[str, str]:
        if isinstance(error, jinja2.UndefinedError):
            return self._undefined(error)
        if isinstance(error, jinja2.TemplateError):
            return _first_line(error), ""
        origin = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(origin.filename)}:{origin.lineno}"
        return f"{type(error).__name__} in {origin.name} ({place}): {_first_line(error)}", ""

    def _undefined(self, error: Exception) -> tuple[str, str]:
        what = _first_line(error)
        name = re.fullmatch(r"'(.+)' is undefined", what)
        if name:
            return what, nearest(name[1], self._engine.known_names(self._variables))
        last = self._engine.last_undefined
        if last and f"'{last[1]}'" in what:
            owner, key = last
            known = [k for k in owner if isinstance(k, str)] if isinstance(owner, Mapping) else []
            return f"'{key}' is undefined here", nearest(key, known)
        return what, ""

    def _syntax(self, error: jinja2.TemplateSyntaxError) -> StepError:
        path = error.filename or f"{self._engine.folder}/{error.name or self._name}"
        what = (error.message or "syntax error").rstrip(".")
        hint = _nearest_of_kind(what, self._engine)
        shown = self._engine.source_line(path, error.lineno)
        return StepError(f"{path}:{error.lineno}", _lower(what), hint, shown + self._made())

    def _not_found(
        self, error: jinja2.TemplateNotFound, places: list[tuple[str, int]]
    ) -> StepError:
        names = getattr(error, "templates", None) or [str(error.name)]
        listed = " or ".join(f"'{name}'" for name in names)
        hint = nearest(str(names[-1]), _all_templates(self._engine))
        where = _at(places[-1]) if places else f"{self._engine.folder}/{self._name}"
        shown = self._engine.source_line(*places[-1]) if places else []
        return StepError(
            where, f"there is no template {listed}", hint, shown + self._context(places[:-1])
        )

    def _recursion(self, places: list[tuple[str, int]]) -> StepError:
        circle: list[tuple[str, int]] = []
        for place in places:
            if place in circle:
                break
            circle.append(place)
        if not circle:
            return StepError(f"{self._engine.folder}/{self._name}", "recursion too deep")
        via = " → ".join(_at(place) for place in [*circle, circle[0]])
        what = "the template loops: it includes, extends or calls itself without end"
        return StepError(_at(circle[0]), what, details=[via, *self._made()])

    def _context(self, outer: Iterable[tuple[str, int]]) -> list[str]:
        chain = [f"from {_at(place)}" for place in reversed(list(outer))]
        return chain + self._made()

    def _made(self) -> list[str]:
        return [f"pattern {self._made_by}"] if self._made_by else []


def _places(trace: TracebackType | None, folder: str) -> list[tuple[str, int]]:
    """Return (path, line) of each template frame, outermost first."""
    return [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(trace)
        if frame.f_code.co_filename.startswith(folder + "/")
    ]


def _at(place: tuple[str, int]) -> str:
    return f"{place[0]}:{place[1]}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _nearest_of_kind(what: str, engine: Engine) -> str:
    found = re.match(r"No (filter|test) named '(.+?)'", what)
    if not found:
        return ""
    return nearest(found[2], engine.filter_names if found[1] == "filter" else engine.test_names)


def _all_templates(engine: Engine) -> list[str]:
    return disk.walk(os.path.join(engine._spec.root, engine.folder))
