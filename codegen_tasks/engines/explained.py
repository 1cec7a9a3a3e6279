"""Whatever a template raised, told with its place; what engines other than Jinja2 share of that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, TypeAlias

from .. import blame, disk
from ..errors import CodegenError, StepError

if TYPE_CHECKING:
    from .base import Reader

#: A template's path and a line of it, from 1; 0 if that is not known.
Place: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Said:
    """What an engine's exception comes to.

    Args:
        what: happened.
        hint: what to do about it.
        place: where, if that is not the innermost place of all.
        word: of that line, which the message is about.
    """

    what: str
    hint: str = ""
    place: Place | None = None
    word: str = ""


class Explained:
    """Turns whatever a template raised into a StepError with its place.

    Args:
        reader: the engine.
        name: the template that is rendered.
        made_by: the pattern.
    """

    def __init__(self, reader: Reader, name: str, made_by: str = ""):
        self._reader = reader
        self._path = f"{reader.folder}/{name}"
        self._made_by = made_by

    def places(self, error: BaseException) -> list[Place]:
        """Return the places in templates that led to an exception, outermost first."""
        raise NotImplementedError

    def said(self, error: BaseException, places: Sequence[Place]) -> Said:
        """Return what an exception comes to, which is none of ours."""
        raise NotImplementedError

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
            raise self._explain(error) from None

    def _explain(self, error: BaseException) -> StepError:
        places = self.places(error)
        if isinstance(error, CodegenError):
            details = [*error.details, *self._context(places, error.where)]
            return StepError(error.where, error.what, error.hint, details)
        if isinstance(error, RecursionError) and (circle := circle_of(places)):
            where = at(circle[0])
            via = " → ".join(at(place) for place in [*circle, circle[0]])
            before = self._context(places[: places.index(circle[0])], where)
            return StepError(where, "loops: it loads itself without end", details=[via, *before])
        said = self.said(error, places)
        place = said.place or (places[-1] if places else (self._path, 0))
        outer = places[:-1] if places and places[-1][0] == place[0] else places
        details = [*self._shown(place, said.word), *self._context(outer, at(place))]
        return StepError(at(place), said.what, said.hint, details)

    def _shown(self, place: Place, word: str) -> list[str]:
        path, number = place
        try:
            text = disk.read(os.path.join(self._reader.root, path)).decode("utf-8", "replace")
        except OSError:
            return []
        lines = text.splitlines()
        if not 1 <= number <= len(lines):
            return []
        line = lines[number - 1]
        found = list(re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", line)) if word else []
        # If it stands there twice, nobody knows which one is meant.
        start, end = found[0].span() if len(found) == 1 else (0, 0)
        return blame.pointed(line, number, start, end)

    def _context(self, outer: Iterable[Place], where: str) -> list[str]:
        """Return who led to the place `where`; the pattern only if `where` does not name it."""
        chain = [f"from {at(place)}" for place in reversed(list(outer))]
        told = not self._made_by or f"{where}:".startswith(f"{self._made_by}:")
        return chain if told else [*chain, f"pattern {self._made_by}"]


def at(place: Place) -> str:
    """Return a place as messages have it."""
    return f"{place[0]}:{place[1]}" if place[1] else place[0]


def circle_of(places: Sequence[Place]) -> list[Place]:
    """Return the first places between a place and its return; [] if none comes twice."""
    seen: dict[Place, int] = {}
    for index, place in enumerate(places):
        if place in seen:
            return list(places[seen[place] : index])
        seen[place] = index
    return []


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def raised_in(called: Sequence[tuple[CodeType, int]], root: str) -> str:
    """Return ` in function (file:line)` of what a template called; "" for the template itself.

    Of several, the innermost of the project's own, for there the fault is looked for.

    Args:
        called: code and line of what was called, outermost first.
        root: absolute path of the project.
    """
    if not called:
        return ""
    own = [(code, line) for code, line in called if _is_own(code.co_filename, root)]
    code, line = (own or called)[-1]
    path = os.path.relpath(code.co_filename, root) if own else code.co_filename
    shown = path.replace(os.sep, "/") if own else os.path.basename(path)
    return f" in {code.co_name} ({shown}:{line})"


def _is_own(path: str, root: str) -> bool:
    return path.startswith(root + os.sep) and "site-packages" not in path
