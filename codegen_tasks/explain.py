"""Whatever a template raised, told with its place: file, line, include chain and pattern.

Knows Jinja2's exceptions and tracebacks; imported with `templates`, never before.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinMethodType, FrameType, MethodType, TracebackType
from typing import TYPE_CHECKING, Any, cast

import jinja2
from jinja2.environment import TemplateModule
from jinja2.utils import missing

from . import blame, disk, whereabouts
from .engines.explained import at, circle_of, first_line, raised_in
from .errors import CodegenError, StepError, known_or_nearest, nearest

if TYPE_CHECKING:
    from .keys import View
    from .templates import Engine


#: Where Jinja2's own functions lie.
_JINJA = os.path.dirname(jinja2.__file__)


#: Of a name that a template would see, but for how it came to be loaded.
_UNSEEN = "not seen where imported without context: hand it on, or add 'with context'"
#: What a tag of Jinja2's own may be called.
_TAGS = ["autoescape", "block", "call", "filter", "for", "if", "macro", "set", "trans", "with"]
_OTHER_TAGS = ["elif", "else", "extends", "from", "import", "include", "pluralize", "print"]


class Explained:
    """Turns whatever a template raised into a StepError with its place."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        variables: Mapping[str, Any],
        made_by: str = "",
        view: View | None = None,
    ):
        self._engine = engine
        self._name = name
        self._variables = variables
        self._made_by = made_by
        self._view = view
        self._lacking: Any = None  # the table that lacks a key, once that is known

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A function that ends its process would end the whole run with it.
        if isinstance(error, (Exception, SystemExit)):
            raise self._explain(error, _places(trace, self._engine.folder)) from None

    def _explain(self, error: BaseException, places: list[tuple[str, int]]) -> StepError:
        if isinstance(error, jinja2.TemplateSyntaxError):
            return self._syntax(error, places)
        if isinstance(error, RecursionError) and (circle := circle_of(places)):
            return self._endless(places[: places.index(circle[0])], circle)
        if isinstance(error, CodegenError):
            what, hint, own = error.what, error.hint, list(error.details)
            return StepError(error.where, what, hint, own + self._context(places, error.where))
        what, hint = self._words(error)
        where = at(places[-1]) if places else f"{self._engine.folder}/{self._name}"
        shown = self._shown(places[-1], what) if places else []
        return StepError(where, what, hint, shown + self._context(places[:-1], where))

    def _shown(self, place: tuple[str, int], what: str) -> list[str]:
        return blame.shown(self._engine.root, *place, what)

    def _words(self, error: BaseException) -> tuple[str, str]:
        """Return what happened, and a hint."""
        handed = _handed_undefined(error, self._engine.folder)
        if handed is not None:
            return self._handed(error, handed)
        if isinstance(error, jinja2.UndefinedError):
            return self._undefined(error)
        if isinstance(error, jinja2.TemplateNotFound):
            return self._not_found(error)
        if isinstance(error, jinja2.TemplateError):
            return self._unknown_kind(first_line(error))
        said = f": {first_line(error)}" if str(error) else ""
        hint = _UNCALLED if re.search(_METHOD, said) else ""
        return type(error).__name__ + _raised_in(error, self._engine) + said, hint

    def _undefined(self, error: Exception) -> tuple[str, str]:
        what, last = first_line(error), self._engine.last_undefined
        return self._absence(error, what, last if last and f"'{last[1]}'" in what else None)

    def _handed(self, error: BaseException, value: jinja2.Undefined) -> tuple[str, str]:
        """Return what to say of an undefined value that made a function fail."""
        owner, name = value._undefined_obj, value._undefined_name
        known = owner is not missing and isinstance(name, str)
        return self._absence(error, value._undefined_message, (owner, str(name)) if known else None)

    def _absence(
        self, error: BaseException, what: str, last: tuple[Any, str] | None
    ) -> tuple[str, str]:
        """Return what to say of a name that is no variable, or that `last` lacks."""
        if name := re.fullmatch(r"'(.+)' is undefined", what):
            if name[1] in self._variables:
                return what, _UNSEEN
            known = self._engine.known_names(self._variables)
            return what, nearest(name[1], [*known, *_locals(error, self._engine.folder)])
        if last is not None:
            self._lacking = last[0] if isinstance(last[0], Mapping) else None
            return _absent(what, *last)
        asked = re.fullmatch(
            r"the template '(.+?)' \((.+?) in .*\) does not export .* '(.+)'", what
        )
        if asked:
            hint = nearest(asked[3], self._engine.defined_names(asked[1]))
            return f"template '{asked[1]}' defines no '{asked[3]}' ({asked[2]})", hint
        return what, ""

    def _unknown_kind(self, said: str) -> tuple[str, str]:
        """Return the message in our spelling; for an unknown filter or test with the nearest."""
        what = said.rstrip(".").removesuffix(" found")
        what = _lower(what)
        tag = re.fullmatch(r"encountered unknown tag '(.+)'", what)
        if tag:
            known = [*_TAGS, *_OTHER_TAGS, *(f"end{name}" for name in _TAGS)]
            return what, "" if tag[1] in known else nearest(tag[1], known)
        found = re.match(r"no (filter|test) named '(.+?)'", what)
        if not found:
            return what, ""
        engine = self._engine
        known = engine.filter_names if found[1] == "filter" else engine.test_names
        return found[0], nearest(found[2], known)

    def _not_found(self, error: jinja2.TemplateNotFound) -> tuple[str, str]:
        names = getattr(error, "templates", None) or [str(error.name)]
        listed = " or ".join(f"'{name}'" for name in names)
        known = disk.walk(os.path.join(self._engine.root, self._engine.folder))
        return f"there is no template {listed}", nearest(str(names[-1]), known)

    def _syntax(
        self, error: jinja2.TemplateSyntaxError, places: list[tuple[str, int]]
    ) -> StepError:
        # Jinja2's lexer gives some errors the file as their name.
        path = error.filename or error.name or f"{self._engine.folder}/{self._name}"
        said, *more = (error.message or "syntax error").split(". ")
        what, hint = self._unknown_kind(said)
        place = (path, error.lineno)
        shown = self._shown(place, what)
        outer = places[:-1] if places and places[-1] == place else places
        details = [
            *shown,
            *(_lower(line.rstrip(".")) for line in more),
            *self._context(outer, at(place)),
        ]
        return StepError(at(place), what, hint, details)

    def _endless(self, before: list[tuple[str, int]], circle: list[tuple[str, int]]) -> StepError:
        via = " → ".join(at(place) for place in [*circle, circle[0]])
        what = "loops: it includes, extends or calls itself without end"
        return StepError(at(circle[0]), what, details=[via, *self._context(before, at(circle[0]))])

    def _context(self, outer: Iterable[tuple[str, int]], where: str) -> list[str]:
        """Return who led to the place `where`; the pattern only if `where` does not name it."""
        chain = [f"from {at(place)}" for place in reversed(list(outer))]
        path, place = self._whereabouts()
        if place and path != self._made_by:
            chain.insert(0, f"in {place}")
        told = not self._made_by or f"{where}:".startswith(f"{self._made_by}:")
        return chain if told else [*chain, f"pattern {self._made_by}"]

    def _whereabouts(self) -> tuple[str, str]:
        """Return path and place of the table that lacks a key; "" if that is not what happened."""
        if self._lacking is None or self._view is None:
            return "", ""
        roots = [*self._view.roots(), *self._engine.files_read()]
        return whereabouts.told(self._lacking, roots, self._engine.root)


def _frames(trace: TracebackType | None, folder: str) -> Iterator[tuple[FrameType, int]]:
    """Yield frame and line of each template on the stack, outermost first."""
    for frame, line in traceback.walk_tb(trace):
        if frame.f_code.co_filename.startswith(folder + "/"):
            # Jinja2 has put the template's lines into an Exception's trace, but in no other's.
            template = frame.f_globals.get("__jinja_template__")
            yield frame, template.get_corresponding_lineno(line) if template else line


def _places(trace: TracebackType | None, folder: str) -> list[tuple[str, int]]:
    """Return (path, line) of each template frame, outermost first."""
    return [(frame.f_code.co_filename, line) for frame, line in _frames(trace, folder)]


def _locals(error: BaseException, folder: str) -> list[str]:
    """Return the names the innermost template knew, its loop variables among them."""
    frames = [frame for frame, _ in _frames(error.__traceback__, folder)]
    return [name for name in frames[-1].f_locals if isinstance(name, str)] if frames else []


def _called(error: BaseException, folder: str) -> list[tuple[FrameType, int]]:
    """Return frame and line of what the innermost template called, outermost first."""
    called: list[tuple[FrameType, int]] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        called = (
            [] if frame.f_code.co_filename.startswith(folder + "/") else [*called, (frame, line)]
        )
    return called


def _handed_undefined(error: BaseException, folder: str) -> jinja2.Undefined | None:
    """Return the undefined value that a template handed to the function that failed.

    A function that does not expect one fails as if it were wrong itself.  Only its own
    variables tell: what it calls in turn may have undefined values of its own.
    """
    if isinstance(error, jinja2.TemplateError):
        return None
    for frame, _ in _called(error, folder):
        for value in _values(frame):
            # By `type`: an undefined value answers most questions with an exception.
            if issubclass(type(value), jinja2.Undefined):
                return cast("jinja2.Undefined", value)
        if not frame.f_code.co_filename.startswith(_JINJA):
            break
    return None


def _values(frame: FrameType) -> Iterator[object]:
    """Yield the variables of a frame, those in `*args` and `**kwargs` one by one."""
    for value in frame.f_locals.values():
        yield value
        if type(value) is tuple:
            yield from value
        elif type(value) is dict:
            yield from value.values()


#: How Python tells of a method that was not called.
_METHOD = r"'(method|builtin_function_or_method)'|<(bound|built-in) method "
_UNCALLED = "a table's methods come before its keys: a key 'items' is ['items'], not .items"


def _absent(what: str, owner: Any, key: str) -> tuple[str, str]:
    """Return what to say of a key that an object lacks, and the nearest it has."""
    if isinstance(owner, Mapping):
        keys = [name for name in owner if isinstance(name, str)]
        hint = known_or_nearest(key, keys) if keys else "the table is empty"
        return f"the table has no key '{key}'", hint
    if isinstance(owner, (MethodType, BuiltinMethodType)):
        name = owner.__name__
        return (
            what,
            f"'{name}' is a method of tables: a key of that name is ['{name}'], not .{name}",
        )
    known = [name for name in dir(owner) if not name.startswith("_")]
    if isinstance(owner, TemplateModule):
        return f"template '{owner.__name__}' defines no '{key}'", nearest(key, known)
    return what, nearest(key, known)


def _raised_in(error: BaseException, engine: Engine) -> str:
    """Return ` in function (file:line)` of what a template called; "" for the template itself.

    Of several, the innermost of the project's own, for there the fault is looked for.
    """
    called = [
        (frame.f_code, line)
        for frame, line in _called(error, engine.folder)
        if not frame.f_code.co_filename.startswith(_JINJA)
    ]
    return raised_in(called, engine.root)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
