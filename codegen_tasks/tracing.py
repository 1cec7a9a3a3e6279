"""Rendering once more, in memory, with a note of what made each piece of the text.

Nothing is noted in a usual render: it would cost more than the render does.  Here Jinja2 compiles
each output with a call that marks the text with the template's line, and what joins text joins
the marks.  The values of patterns are strings and numbers that know their key.  A text that a
filter has changed is matched with what it was line by line, and where that is not sure, it comes
from the line that called the filter.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Macro
from markupsafe import Markup, escape

from .keys import View
from .maps import Key, Origin, Spot
from .marks import Marked, MarkedMarkup, Spans, aligned, marked, pieces_of, spans_of
from .templates import Engine, Spec, _is_jinjas, _Template

#: More keys are not told of one expression.
_KEYS = 12
#: What Jinja2 takes for the end of a line.
_LINE_END = re.compile(r"\r\n|\r|\n")
#: A line with its end.
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


# Values that know where they come from -----------------------------------------------------


class _KeyedStr(str):
    codegen_key: Key


class _KeyedInt(int):
    codegen_key: Key


class _KeyedFloat(float):
    codegen_key: Key


_KEYED: dict[type, Any] = {str: _KeyedStr, int: _KeyedInt, float: _KeyedFloat}
#: Of these kinds all that a pattern has knows its key.
_ALL_KNOWN = (str, int, float, dict, list)
_PLAIN: dict[type, Any] = {_KeyedStr: str.__str__, _KeyedInt: int, _KeyedFloat: float}


class _Const(str):
    """What an output's child is known to put out before anything is rendered."""

    codegen_place: tuple[int, int, int]


@dataclass(slots=True)
class Trace:
    """What one render notes.

    Args:
        environment: what renders.
        holders: by `id`, the tables and lists of patterns, and their keys.
        tops: by name, the variables that are a pattern's, and their keys.
        made: the marked texts, in the order in which they were made.
        reads: what was read of patterns, by each output that is being made.
        given: keys of what the function was given that is being called.
        lacked: the key of the table that was asked last for what it lacks, and that.
    """

    environment: Any
    holders: dict[int, tuple[Any, Key]] = field(default_factory=dict)
    tops: dict[str, tuple[Any, Key]] = field(default_factory=dict)
    made: list[Any] = field(default_factory=list)
    reads: list[dict[Key, None]] = field(default_factory=list)
    given: tuple[Key, ...] = ()
    lacked: tuple[Key, str] | None = None
    _origins: dict[Origin, Origin] = field(default_factory=dict)

    def keyed(self, data: Any, key: Key) -> Any:
        """Return a copy of a pattern's data whose values know their keys."""
        kind = type(data)
        path, place = key
        made: Any
        if kind is dict:
            made = {
                self._keyed_name(name, (path, (*place, name))): self.keyed(
                    value, (path, (*place, name))
                )
                for name, value in data.items()
            }
        elif kind is list:
            made = [self.keyed(value, (path, (*place, i))) for i, value in enumerate(data)]
        elif kind in _KEYED:
            made = _KEYED[kind](data)
            made.codegen_key = key
            return made
        else:
            return data
        self.holders[id(made)] = made, key
        return made

    def _keyed_name(self, name: Any, key: Key) -> Any:
        if type(name) is not str:
            return name
        made = _KeyedStr(name)
        made.codegen_key = key
        return made

    # What is read -----------------------------------------------------------------------

    def key_of(self, value: Any) -> Key | None:
        """Return the key that a value is of, if it is a pattern's."""
        if type(value) in _PLAIN:
            key: Key = value.codegen_key
            return key
        holder = self.holders.get(id(value))
        return holder[1] if holder is not None and holder[0] is value else None

    def read(self, value: Any) -> None:
        """Note that an output is made of a value."""
        key = self.key_of(value)
        if key is not None and self.reads:
            self.reads[-1][key] = None

    def got(self, owner: Any, name: Any, value: Any) -> None:
        """Note that an output is made of what a table or list has under a name."""
        holder = self.holders.get(id(owner))
        if holder is None or holder[0] is not owner:
            return
        if type(owner) is dict and name not in owner:
            self.lacked = holder[1], str(name)
        if not self.reads:
            return
        if type(value) in _ALL_KNOWN and self.key_of(value) is None:
            return  # what no pattern has, such as `pattern`
        path, place = holder[1]
        if type(owner) is dict and name not in owner:
            return
        if type(owner) is list and not (type(name) is int and -len(owner) <= name < len(owner)):
            return
        index = name % len(owner) if type(owner) is list else _plain(name)
        self.reads[-1][path, (*place, index)] = None

    @contextlib.contextmanager
    def calling(self, values: Iterable[Any]) -> Iterator[None]:
        """Note what a function is given; where it fails, that stays noted."""
        before = self.given
        self.given = self._told(key for value in values if (key := self.key_of(value)))
        yield
        self.given = before

    def blamed(self, what: str) -> tuple[Key, ...]:
        """Return the keys that a render was at when it failed.

        Args:
            what: the failure.
        """
        if self.lacked is not None and f"'{self.lacked[1]}'" in what:
            return self._told([self.lacked[0]])
        return self.given or self._told(self.reads[-1] if self.reads else ())

    def _told(self, reads: Iterable[Key]) -> tuple[Key, ...]:
        """Return keys without those on the way to others."""
        found = dict.fromkeys(reads)
        outer = {(path, place[:n]) for path, place in found for n in range(len(place))}
        return tuple(key for key in found if key[1] and key not in outer)[:_KEYS]

    # What is put out --------------------------------------------------------------------

    def begin(self) -> tuple[int, int]:
        """Begin an output; what is returned is for `mark`."""
        self.reads.append({})
        return len(self.reads) - 1, len(self.made)

    def mark(
        self,
        begun: tuple[int, int],
        place: tuple[int, int, int],
        names: Iterable[tuple[str, Any]],
        value: Any,
    ) -> str:
        """Return what an expression puts out, marked.

        Args:
            begun: what `begin` returned.
            place: line, and which of how many expressions of that line it is.
            names: the variables in the expression; the name is "" for the template's own.
            value: the text.
        """
        depth, first = begun
        reads = self.reads[depth]
        del self.reads[depth:]
        holders = []
        for name, one in names:
            key = self.key_of(one)
            if key is None and name in self.tops and self.tops[name][0] is one:
                key = self.tops[name][1]
            if key is not None and isinstance(one, (dict, list)):
                holders.append(key)
            elif key is not None:
                reads[key] = None
        if not reads:  # else what was read of a table tells more than its being named
            reads.update(dict.fromkeys(holders))
        origin = self._origin(place, self._told(reads))
        spans = spans_of(value)
        if spans is None:
            spans = aligned(value, self.made[first:])
        made: str = marked(Marked, value, [(size, found or origin) for size, found in spans])
        return made

    def consts(self, items: Iterable[tuple[str, int, int, int]]) -> str:
        """Return texts that are known before anything is rendered, marked.

        Args:
            items: each text, and its place as `mark` has it; of no expression (the last number
                is 0), it is the template's own text.
        """
        spans: Spans = []
        for text, line, index, count in items:
            if count:
                spans.append((len(text), self._origin((line, index, count), ())))
                continue
            for number, part in enumerate(_LINES.findall(text)):
                spans.append((len(part), self._own_text(line + number, part, number > 0)))
        return marked(Marked, "".join(item[0] for item in items), spans)  # type: ignore[no-any-return]

    def joined(self, parts: Sequence[str], text: str) -> str:
        """Return a text that was joined of parts, marked as they are."""
        spans: Spans = []
        for part in parts:
            spans += spans_of(part) or [(len(part), None)]
        made = marked(Marked, text, spans)
        if any(origin is not None for _, origin in spans):
            self.made.append(made)
        return made  # type: ignore[no-any-return]

    def carried(self, result: Any, given: Iterable[Any], first: int) -> Any:
        """Return what a filter made, marked with what it was made of."""
        if not isinstance(result, str) or spans_of(result) is not None:
            return result
        parts = itertools.chain.from_iterable(
            one if type(one) in (list, tuple) else (one,) for one in given
        )
        sources = [one for one in parts if spans_of(one) is not None] + self.made[first:]
        if not sources:
            return result
        kind = MarkedMarkup if isinstance(result, Markup) else Marked
        return marked(kind, result, aligned(result, sources))

    # Places -----------------------------------------------------------------------------

    def _origin(self, place: tuple[int, int, int], told: tuple[Key, ...]) -> Origin:
        """Return what an expression of the innermost template makes."""
        here, *chain = self._stack(place[0])
        column, width = self.environment.codegen_sources.expression(*here, *place[1:])
        return self._same(Origin(*here, column, width, tuple(chain), told))

    def _own_text(self, line: int, text: str, whole: bool) -> Origin:
        """Return what a line of text of the innermost template makes, its own."""
        here, *chain = self._stack(line)
        column = 0 if whole else self.environment.codegen_sources.text(*here, text)
        known = 0 if column >= 0 else -1
        return self._same(Origin(*here, max(column, 0), known, tuple(chain)))

    def _same(self, origin: Origin) -> Origin:
        return self._origins.setdefault(origin, origin)

    def _stack(self, line: int) -> list[Spot]:
        """Return path and line of each template that is being rendered, innermost first."""
        found: list[Spot] = []
        inner: Any = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            template = frame.f_globals.get("__jinja_template__")
            if template is not None:
                spot = (str(template.filename), line if not found else _line(frame, template))
                if found and frame.f_code.co_name == "root" and _extends(frame, inner):
                    extends = self.environment.codegen_sources.extends
                    spot = (spot[0], extends.get(template.name, spot[1]))
                found.append(spot)
                inner = template
            frame = frame.f_back
        return found


def _line(frame: FrameType, template: Any) -> int:
    line: int = template.get_corresponding_lineno(frame.f_lineno)
    return line


def _extends(frame: FrameType, inner: Any) -> bool:
    return frame.f_locals.get("parent_template") is inner


def _plain(value: Any) -> Any:
    """Return a value that knows its key as one that does not."""
    plain = _PLAIN.get(type(value))
    return value if plain is None else plain(value)


# The environment ---------------------------------------------------------------------------


class _Sources:
    """The templates' texts, and where in a line of one an expression stands."""

    def __init__(self, start: str, end: str):
        self._tag = re.compile(f"{re.escape(start)}.*?(?:{re.escape(end)}|$)")
        self._lines: dict[str, list[str]] = {}
        #: The line of each template's `extends`, by its name.
        self.extends: dict[str, int] = {}

    def add(self, path: str, text: str) -> None:
        """Keep a template's text."""
        self._lines[path] = _LINE_END.split(text)

    def line(self, path: str, line: int) -> str:
        """Return a line of a template; "" if there is none."""
        lines = self._lines.get(path, [])
        return lines[line - 1] if 0 < line <= len(lines) else ""

    def expression(self, path: str, line: int, index: int, count: int) -> tuple[int, int]:
        """Return column and width of one of `count` expressions of a line; (0, -1) if unsure."""
        found = list(self._tag.finditer(self.line(path, line)))
        if len(found) != count or index >= count:
            return 0, -1
        return found[index].start(), len(found[index][0])

    def text(self, path: str, line: int, text: str) -> int:
        """Return the column of a text in a line; -1 if it is not there once."""
        source, wanted = self.line(path, line), text.rstrip("\r\n")
        return source.find(wanted) if wanted and source.count(wanted) == 1 else -1


class _Generator:
    """Compiles outputs with calls that mark them; before a generator of Jinja2's.

    What is overridden here is what Jinja2's own `NativeCodeGenerator` overrides.
    """

    environment: Any
    name: str
    write: Callable[[str], None]
    _which: dict[int, tuple[int, int]]

    def visit_Template(self, node: Any, frame: Any = None) -> None:  # noqa: N802 -- Jinja2's name
        by_line: dict[int, list[Any]] = {}
        for child in _expressions(node):
            by_line.setdefault(child.lineno, []).append(child)
        self._which = {
            id(child): (index, len(children))
            for children in by_line.values()
            for index, child in enumerate(children)
        }
        self._writing: list[bool] = []
        for extends in node.find_all(nodes.Extends):
            self.environment.codegen_sources.extends[self.name] = extends.lineno
        super().visit_Template(node, frame)  # type: ignore[misc]

    def _output_child_to_const(self, node: Any, frame: Any, finalize: Any) -> Any:
        const = _Const(super()._output_child_to_const(node, frame, finalize))  # type: ignore[misc]
        const.codegen_place = (node.lineno, *self._which.get(id(node), (0, 0)))
        return const

    def _output_const_repr(self, group: Iterable[_Const]) -> str:
        items = [(str.__str__(const), *const.codegen_place) for const in group]
        return f"environment.codegen_trace.consts({items!r})"

    def _output_child_pre(self, node: Any, frame: Any, finalize: Any) -> None:
        place = (node.lineno, *self._which.get(id(node), (0, 0)))
        trace = "environment.codegen_trace"
        names = "".join(f"({name!r}, {ref}), " for name, ref in _variables(node, frame))
        self.write(f"{trace}.mark({trace}.begin(), {place!r}, ({names}), ")
        super()._output_child_pre(node, frame, finalize)  # type: ignore[misc]

    def start_write(self, frame: Any, node: Any = None) -> None:
        """Begin what a `call` or `filter` block puts out; others put out what is marked."""
        super().start_write(frame, node)  # type: ignore[misc]
        if node is not None:
            trace = "environment.codegen_trace"
            self.write(f"{trace}.mark({trace}.begin(), ({node.lineno}, 0, 0), (), ")
        self._writing.append(node is not None)

    def end_write(self, frame: Any) -> None:
        """End it."""
        if self._writing.pop():
            self.write(")")
        super().end_write(frame)  # type: ignore[misc]

    def _output_child_post(self, node: Any, frame: Any, finalize: Any) -> None:
        super()._output_child_post(node, frame, finalize)  # type: ignore[misc]
        self.write(")")


def _expressions(node: Any) -> Iterator[Any]:
    """Yield what a template puts out besides its own text, in the order of its text."""
    for child in node.iter_child_nodes():
        if isinstance(node, nodes.Output) and not isinstance(child, nodes.TemplateData):
            yield child
        yield from _expressions(child)


def _variables(node: Any, frame: Any) -> Iterator[tuple[str, str]]:
    """Yield the variables in an expression: the name, "" if not a render's own, and Python's."""
    named = [node] if isinstance(node, nodes.Name) else []
    seen = dict.fromkeys(one.name for one in [*named, *node.find_all(nodes.Name)])
    for name in seen:
        ref = frame.symbols.find_ref(name)
        if ref is not None:
            load = frame.symbols.find_load(ref)
            yield (name if load is not None and load[0] == "resolve" else ""), ref


class _TracingTemplate(_Template):
    """A template whose code joins and escapes texts without losing their marks."""

    @classmethod
    def _from_namespace(cls, environment: Any, namespace: Any, globals: Any) -> Any:  # noqa: A002
        def safe(value: Any = "") -> Any:
            spans = spans_of(value)
            return Markup(value) if spans is None else marked(MarkedMarkup, str(value), spans)

        def escaped(value: Any) -> Any:
            spans = None if hasattr(value, "__html__") else spans_of(value)
            if spans is None:
                return value if type(value) is MarkedMarkup else escape(value)
            parts = [(str(escape(part)), origin) for part, origin in pieces_of(value)]
            told = [(len(part), origin) for part, origin in parts]
            return marked(MarkedMarkup, "".join(part for part, _ in parts), told)

        def join(parts: Iterable[Any]) -> str:
            joined: str = environment.concat(map(str, parts))
            return joined

        namespace.update(Markup=safe, escape=escaped, str_join=join)
        return super()._from_namespace(environment, namespace, globals)


def _tracing_class(base: Any) -> Any:
    """Return an environment class of ours whose renders note what makes the text."""

    class Context(base.context_class):
        def call(__self, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
            if not _is_traced(__obj):
                trace = __self.environment.codegen_trace
                for value in (*args, *kwargs.values()):
                    trace.read(value)
                with trace.calling((*args, *kwargs.values())):
                    args = tuple(map(_unmarked, args))
                    kwargs = {name: _unmarked(value) for name, value in kwargs.items()}
                    return super().call(__obj, *args, **kwargs)
            return super().call(__obj, *args, **kwargs)

    class Environment(base):
        code_generator_class = type("Generator", (_Generator, base.code_generator_class), {})
        template_class = _TracingTemplate
        context_class = Context
        codegen_trace: Trace
        codegen_sources: _Sources

        def concat(self, parts: Iterable[str]) -> str:
            seen: list[str] = []

            def noted() -> Iterator[str]:
                for part in parts:
                    seen.append(part)
                    yield part

            return self.codegen_trace.joined(seen, super().concat(noted()))

        def _parse(self, source: str, name: Any, filename: Any) -> Any:
            self.codegen_sources.add(str(filename), source)
            return super()._parse(source, name, filename)

        def getattr(self, obj: Any, attribute: str) -> Any:
            value = super().getattr(obj, attribute)
            self.codegen_trace.got(obj, attribute, value)
            return value

        def getitem(self, obj: Any, argument: Any) -> Any:
            value = super().getitem(obj, argument)
            self.codegen_trace.got(obj, argument, value)
            return value

    return Environment


def _is_traced(called: Any) -> bool:
    return type(called) is Macro or _is_jinjas(called)


class Tracing(Engine):
    """An engine whose renders tell what made each piece of the text."""

    def __init__(self, spec: Spec):
        super().__init__(spec, None, "")
        filters = self._environment.filters
        for name, function in list(dict.items(filters)):
            filters[name] = self._noted(function, name in spec.filters)

    def environment_class(self, base: type[Any]) -> type[Any]:
        """Return the class of the environment."""
        made: type[Any] = _tracing_class(super().environment_class(base))
        options = self._spec.options
        made.codegen_sources = _Sources(
            options.get("variable_start_string", "{{"), options.get("variable_end_string", "}}")
        )
        return made

    def pieces(
        self, name: str, variables: Callable[[Trace], Mapping[str, Any]]
    ) -> list[tuple[str, Origin | None]]:
        """Return what a template renders to, in pieces with what made each.

        Args:
            name: of the template.
            variables: makes what it sees; what is a pattern's by `Trace.keyed`.

        Raises:
            StepError: it cannot be rendered.
        """
        trace = self.trace = self._environment.codegen_trace = Trace(self._environment)
        for template in self._environment._loaded.values():
            template._module = None  # what was imported notes who imported it
        text, _ = self.render(name, View([], variables(trace), {}))
        return list(pieces_of(text))

    def _noted(self, function: Callable[..., Any], is_the_projects: bool) -> Callable[..., Any]:
        """Return a filter that notes what it was given, and what its result is made of."""
        environment = self._environment

        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            trace = environment.codegen_trace
            values = [*given, *named.values()]
            first = len(trace.made)
            for value in values:
                trace.read(value)
            with trace.calling(values):
                if is_the_projects:
                    plain = {name: _unmarked(value) for name, value in named.items()}
                    result = function(*map(_unmarked, given), **plain)
                else:
                    result = function(*given, **named)
            return trace.carried(result, values, first)

        return call


def _unmarked(value: Any) -> Any:
    """Return a value as a function of the project may have it."""
    if type(value) is Marked:
        return str.__str__(value)
    return Markup(str.__str__(value)) if type(value) is MarkedMarkup else _plain(value)
