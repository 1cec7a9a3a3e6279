"""Mustache, as pystache parses and renders it; names are looked up here.

All that a template can do is ask for a name or a partial, and both are asked for here, so that
it is seen which keys of a pattern it reads.  A tree of pystache's is kept as long as the process
lives; parsing one takes as long as reading it from the template cache would.

Imports pystache, so it is itself imported where something is rendered, never before.
"""

from __future__ import annotations

import contextlib
import html
import posixpath
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pystache import parser
from pystache.parsed import ParsedTemplate
from pystache.renderengine import RenderEngine

from ..bytecode import TemplateCache
from ..errors import StepError, known_or_nearest, nearest
from ..keys import View
from ..model import Input
from ..record import Record
from . import MUSTACHE, owner_of
from .base import Reader, Spec
from .explained import Explained, Place, Said, first_line, raised_in

_SUFFIX = MUSTACHE.suffixes[0]
_DELIMITERS = ("{{", "}}")


class Engine(Reader):
    """A warm set of Mustache templates.

    Args:
        spec: what to make it from.
        cache, shape: as other engines have them; there is no use for them.
    """

    def __init__(self, spec: Spec, cache: TemplateCache | None = None, shape: str = ""):
        super().__init__(spec, MUSTACHE)
        self._trees: dict[tuple[str, tuple[str, str]], ParsedTemplate] = {}
        self._texts: dict[str, str] = {}
        self.tracks = spec.key_tracking
        self.hits = 0
        self.globals: dict[str, Any] = {**spec.globals, **self.functions()}
        self.escape = _escape(spec.options.get("escape", True))
        self.strict_sections = bool(spec.options.get("strict_sections", False))

    @property
    def hands_tables(self) -> bool:
        """Whether templates get tables that note what is read of them."""
        return self.tracks

    @property
    def misses(self) -> int:
        """Templates this process parsed."""
        return len(self._texts)

    def warm_up(self) -> None:
        """Make what every parser of templates needs, for processes that are to be forked."""
        parser.parse("")

    def parse(self, name: str) -> Input:
        """Parse one template; return it as an input.

        Raises:
            StepError: it does not exist or has a syntax error.
        """
        self._record, self.guard = Record(), None
        with _Explained(self, name, View([], {}, {})):
            self.tree(self.text(name))
        return self.template_input(name)

    def entry_path(self, name: str) -> str | None:
        """Return None: the cache keeps nothing of it."""
        return None

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
        with _Explained(self, name, view, made_by), self._limits():
            self._record.templates[name] = ""
            made = _Render(self, view).render(self.text(name), _Stack(), name=name)
            self._refuse_large(made)
        return made, self._record

    def _limits(self) -> contextlib.AbstractContextManager[None]:
        if not self._spec.sandbox:
            return contextlib.nullcontext()
        from ..sandbox import limited_memory

        return limited_memory(self._spec.sandbox_bytes)

    def _refuse_large(self, made: str) -> None:
        limit = self._spec.sandbox_bytes
        if self._spec.sandbox and len(made.encode("utf-8", "surrogatepass")) > limit:
            what = f"the output is larger than {limit} bytes (sandbox_bytes)"
            raise StepError(f"{self.folder}/{next(iter(self._record.templates))}", what)

    # Templates --------------------------------------------------------------------------

    def text(self, name: str) -> str:
        """Return the text of a template, read at most once in this process.

        Raises:
            StepError: there is none.
        """
        if name not in self._texts:
            found = self.source(name)
            if found is None:
                self._record.missing[name] = None
                hint = nearest(name, self.template_names())
                raise StepError(f"{self.folder}/{name}", "there is no such template", hint)
            self._texts[name] = found[0]
        return self._texts[name]

    def partial(self, named: str, by: str) -> str:
        """Return the name of the template that another one means, by the name it says.

        It is looked for beside the other one, then in the templates folder.

        Raises:
            _MissingPartial: there is none.
        """
        wanted = (named if owner_of(named) else named + _SUFFIX).lstrip("/")
        folder = "" if named.startswith("/") else posixpath.dirname(by)
        beside = posixpath.normpath(posixpath.join(folder, wanted))
        for name in dict.fromkeys([beside, posixpath.normpath(wanted)]):
            if name in self._record.missing:
                continue  # no need to look for it at each item of a list
            if name not in self._texts and (found := self.source(name)) is not None:
                self._texts[name] = found[0]
            if name in self._texts:
                self._record.templates.setdefault(name, by)
                return name
            self._record.missing[name] = None
        raise _MissingPartial(named, wanted)

    def tree(self, text: str, delimiters: Any = None) -> ParsedTemplate:
        """Return the tree of a text, which is parsed at most once in this process.

        Raises:
            ParsingError: it is none.
        """
        key = (text, tuple(delimiters or _DELIMITERS))
        if key not in self._trees:
            tree = parser.parse(text, delimiters, raise_on_mismatch=True)
            _refuse_unclosed(text, key[1], tree)
            self._trees[key] = tree
        return self._trees[key]


def _escape(given: Any) -> Callable[[str], str]:
    if callable(given):
        return lambda text: str(given(text))
    return html.escape if given else str


class _Missing:
    """Stands for what there is not; a section takes it for false."""

    def __bool__(self) -> bool:
        return False


_MISSING = _Missing()


class _MissingPartial(Exception):  # noqa: N818
    """No template has the name of a partial: that which is said, and that which is meant."""


class _Undefined(Exception):  # noqa: N818
    """A name that nothing defines: all of it, the part that is not there, what is known there."""


class _Unclosed(Exception):  # noqa: N818
    """A tag that is opened and not closed: the line it begins in."""


class _Stack(list[Any]):
    """The values of the sections around a tag, the innermost last."""

    push = list.append


@dataclass(frozen=True, slots=True)
class _Applied:
    """A function, and the text between the tags of the section that it is applied to."""

    function: Callable[[str], Any]
    text: str


class _Render(RenderEngine):
    """One render: looks names and partials up, and notes which."""

    def __init__(self, engine: Engine, view: View):
        super().__init__(
            literal=str,
            escape=engine.escape,
            resolve_context=self.found,
            resolve_partial=self.partial,
            to_str=_worded,
        )
        self._engine = engine
        self._view = view
        self._named = {**engine.spec.filters, **engine.globals, **view.variables}
        self._names: list[str] = []  # of the templates that are being rendered, innermost last
        self._next = ""

    def render(
        self, template: str, context_stack: Any, delimiters: Any = None, name: str = ""
    ) -> str:
        """Render a template, a partial, or what stands in a section.

        Args:
            template: its text.
            context_stack: the values of the sections around it.
            delimiters: of its tags.
            name: of the template; "" if it is a partial that was just found, or a section.
        """
        name, self._next = name or self._next or self._names[-1], ""
        self._names.append(name)
        made: str = self._engine.tree(template, delimiters).render(self, context_stack)
        self._names.pop()
        return made

    def partial(self, named: str) -> str:
        """Return the text of a partial."""
        self._next = self._engine.partial(named, self._names[-1])
        return self._engine.text(self._next)

    # Names ------------------------------------------------------------------------------

    def found(self, stack: _Stack, name: str) -> Any:
        """Return what a tag's name stands for; `_MISSING` for nothing."""
        if name == ".":
            return stack[-1] if stack else self._absent(stack, name)
        first, *rest = name.split(".")
        value = self._first(stack, first)
        if value is _MISSING:
            return self._absent(stack, name)
        for part in rest:
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
            if value is _MISSING:
                return self._absent(stack, name)
        return value

    def _absent(self, stack: _Stack, name: str) -> Any:
        if self._engine.strict_sections:
            raise self._undefined(stack, name)
        return _MISSING

    def _undefined(self, stack: _Stack, name: str) -> _Undefined:
        """Return what to raise for a name that nothing defines."""
        first, *rest = name.split(".") if name != "." else ["."]
        owner = self._first(stack, first)
        while rest and isinstance(owner, dict) and rest[0] in owner:
            owner = owner[rest.pop(0)]
        if rest and isinstance(owner, dict):
            return _Undefined(name, rest[0], owner)
        known = [] if rest else self.known_names(stack)
        return _Undefined(name, name, known)

    def _first(self, stack: _Stack, name: str) -> Any:
        for table in reversed(stack):
            value = table.get(name, _MISSING) if isinstance(table, dict) else _MISSING
            if value is not _MISSING:
                return value
        view, record = self._view, self._engine.record
        if name not in view.variables:
            record.names[name] = None
            if name not in self._engine.globals:
                record.filters[name] = None
        return view.seen(name, self._named.get(name, _MISSING), _MISSING)

    def known_names(self, stack: Any) -> list[str]:
        """Return what a template could have meant by a name."""
        above = [key for table in stack if isinstance(table, dict) for key in dict.keys(table)]
        return [*map(str, above), *self._named]

    # Values -----------------------------------------------------------------------------

    def fetch_string(self, context: Any, name: str) -> Any:
        """Return what a variable puts out; a function is called."""
        value = self.resolve_context(context, name)
        if value is _MISSING:
            raise self._undefined(context, name)
        return _worded(value() if callable(value) else value)

    def fetch_section_data(self, context: Any, name: str) -> Any:
        """Return the values that a section is rendered with, one after the other."""
        value = self.resolve_context(context, name)
        if callable(value):
            function = value
            return [lambda text: _Applied(function, text)]
        if isinstance(value, (list, tuple)):
            return value
        return [value] if value else []

    def _render_value(self, val: Any, context: Any, delimiters: Any = None) -> str:
        """Return what a function makes of a section; it gets the text that this comes to."""
        return _worded(val.function(self.render(val.text, context, delimiters)))


def _worded(value: Any) -> str:
    return "" if value is None else str(value)


# Places ----------------------------------------------------------------------------------


def _refuse_unclosed(text: str, delimiters: tuple[str, str], tree: Any) -> None:
    """Refuse a tag that is opened only: pystache takes it for text."""
    nodes = list(_nodes(tree))
    if any(isinstance(node, parser._ChangeNode) for node in nodes):
        return  # which of them are tags, hangs on where they stand
    last = 0
    for match in parser._compile_template_re(delimiters).finditer(text):
        if delimiters[0] in text[last : match.start()]:
            break
        last = match.end()
    start = text.find(delimiters[0], last)
    if start >= 0 and not parser._compile_template_re(delimiters).match(text, start):
        raise _Unclosed(text.count("\n", 0, start) + 1)


def _nodes(tree: Any) -> Iterator[Any]:
    """Yield the tags of a tree, in the order in which they begin."""
    for node in tree._parse_tree:
        if not isinstance(node, str):
            yield node
            inner = getattr(node, "parsed", None) or getattr(node, "parsed_section", None)
            if inner is not None:
                yield from _nodes(inner)


def _lines(text: str, delimiters: tuple[str, str]) -> Iterator[int]:
    """Yield the lines in which the tags of a text begin, but those that end a section."""
    written, start = parser._compile_template_re(delimiters), 0
    while match := written.search(text, start):
        start = match.end()
        if match["change"] is not None:
            written = parser._compile_template_re(match["delims"].split())
        if match["tag"] != "/":
            opened = match.start() + len(match["whitespace"])
            yield text.count("\n", 0, opened) + 1


class _Explained(Explained):
    def __init__(self, engine: Engine, name: str, view: View, made_by: str = ""):
        super().__init__(engine, name, made_by)
        self._engine = engine
        self._view = view

    def places(self, error: BaseException) -> list[Place]:
        """Return the places in templates that led to an exception, outermost first."""
        found: list[Place] = []
        lines: dict[int, int] = {}
        above = 0  # lines of the template above what is rendered by itself
        begun = 0  # the same, of the section met last
        for frame, _ in traceback.walk_tb(error.__traceback__):
            known = frame.f_locals
            if frame.f_code is _Render.render.__code__:
                path = f"{self._engine.folder}/{known['name']}"
                above = 0
                if known["delimiters"] is not None:  # of a section that a function is given
                    found.pop()
                    above = begun
                lines = self._lines_of(known["template"], known["delimiters"])
                found.append((path, 0))
            elif frame.f_code.co_name == "render" and id(known.get("self")) in lines:
                node = known["self"]
                found[-1] = (found[-1][0], lines[id(node)] + above)
                if isinstance(node, parser._SectionNode):
                    begun = node.template.count("\n", 0, node.index_begin) + above
        return found

    def _lines_of(self, text: str, delimiters: Any) -> dict[int, int]:
        try:
            tree = self._engine.tree(text, delimiters)
        except Exception:  # it is what is to be explained
            return {}
        numbers = _lines(text, tuple(delimiters or _DELIMITERS))
        return {id(node): line for node, line in zip(_nodes(tree), numbers, strict=False)}

    def said(self, error: BaseException, places: Sequence[Place]) -> Said:
        """Return what an exception comes to, which is none of ours."""
        inner = places[-1][0] if places else self._path
        if isinstance(error, _MissingPartial):
            named, wanted = error.args
            hint = nearest(wanted, self._engine.template_names())
            return Said(f"there is no template '{wanted}'", hint, word=named)
        if isinstance(error, _Undefined):
            return self._undefined(error)
        if isinstance(error, _Unclosed):
            return Said("a tag is not closed", place=(inner, error.args[0]))
        if isinstance(error, parser.ParsingError):
            return self._unmatched(error, inner)
        told = f": {first_line(error)}" if str(error) else ""
        called = [
            (frame.f_code, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if not _is_engines(frame.f_code.co_filename)
        ]
        kind = type(error).__name__
        if kind == "SecurityError":  # says all that there is to say
            return Said(first_line(error))
        return Said(kind + raised_in(called, self._engine.root) + told)

    def _undefined(self, error: _Undefined) -> Said:
        name, part, known = error.args
        if not isinstance(known, dict):
            return Said(f"'{part}' is undefined", nearest(part, known), word=name)
        keys = [key for key in dict.keys(known) if isinstance(key, str)]
        hint = known_or_nearest(part, keys) if keys else "the table is empty"
        return Said(f"the table has no key '{part}'", hint, word=name)

    def _unmatched(self, error: parser.ParsingError, path: str) -> Said:
        """Return what to say of sections that are not closed, or close what is not open."""
        info = error.info
        text = self._engine.text(path.removeprefix(f"{self._engine.folder}/"))
        line = text.count("\n", 0, text.rfind(info.tag_key, 0, info.position))
        if info.tag_type == "/":
            what = f"'{{{{/{info.tag_key}}}}}' closes a section that is not the one open"
        else:
            what = f"section '{info.tag_key}' is not closed"
        return Said(what, place=(path, line + 1), word=info.tag_key)


def _is_engines(path: str) -> bool:
    """Tell whether a file is this one or pystache's."""
    return path == __file__ or f"{posixpath.sep}pystache{posixpath.sep}" in path.replace("\\", "/")
