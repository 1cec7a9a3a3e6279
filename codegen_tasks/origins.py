"""Which template line, and which keys of which pattern, made a place of a target.

A generated file is rendered once more, in memory, when somebody asks; its source map is kept, and
serves as long as the file has the bytes that it was made for.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import blame, digest, disk, formats, items, keys, maps, moved, places
from .engines import JINJA2, kind_of
from .errors import CodegenError, StepError
from .maps import Key, Origin, SourceMap, Spot
from .model import Pattern, Step
from .moved import Piece

if TYPE_CHECKING:
    from .steps import Workshop
    from .tracing import Trace, Tracing

#: So many lines of templates are shown of one generated line, and so many keys.
_SHOWN = 3
#: So many maps are kept in memory; the same file is asked about again at once, or not at all.
_KEPT = 8
#: So many failed renders are rendered once more; where there are more, they are mostly alike.
_FAILURES = 200
#: A longer value is shown in part.
_LONG = 40
#: A line of which nothing is known is near one that is so many lines before it.
_NEAR = 20
_WORD = re.compile(r"\w+")
_UNSURE = "what made this cannot be told: rendered again, it is not the same"
_UNTOLD = "what made this cannot be told: there are no source maps for"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a target.

    Args:
        path: of the target, project-relative.
        line: of it, from 1.
        column: of it, in characters from 1; 0 for the whole line.
    """

    path: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" + (f":{self.column}" if self.column else "")


class Origins:
    """What made the targets of one workshop's plan.

    Args:
        workshop: renders; its project may be a copy whose targets lie elsewhere.
    """

    def __init__(self, workshop: Workshop):
        self._workshop = workshop
        self._project = workshop.project
        self._engine: Tracing | None = None
        self._failures = 0
        self._known: dict[tuple[str, str], SourceMap | None] = {}

    # Telling ----------------------------------------------------------------------------

    def told(
        self, path: str, line: int, root: str, column_in: Callable[[str], int] = lambda _: 0
    ) -> list[str]:
        """Return lines that tell what made a place; [] for what is no target of ours.

        Args:
            path: of the target.
            line: of it, from 1.
            root: absolute path of the folder in which the targets lie.
            column_in: returns which character of that line is meant, from 1; 0 for all of it.
        """
        via: list[str] = []
        text = _line(os.path.join(root, path), line)
        if text is None:
            return []
        place: Place | None = Place(path, line, column_in(text))
        while place is not None and self._phase(place.path) == "compile":
            place = self._before(place, root)
            via += [f"from {place}"] if place is not None else []
        if place is None or self._phase(place.path) != "generate":
            return via
        kind = kind_of(self._template(place.path))
        if kind is not JINJA2:
            template = f"{self._project.templates}/{self._template(place.path)}"
            return [*via, f"by {template}", f"{_UNTOLD} {kind.label}"]
        data = _bytes(os.path.join(root, place.path))
        found = self.source_map(place.path, data) if data is not None else None
        if data is None or found is None:
            return via if data is None else [*via, _UNSURE]
        return via + self._lines(place, found, data)

    def told_of(self, path: str, line: int, data: bytes, shown: Sequence[str] = ()) -> list[str]:
        """Return lines that tell what made a line of a rendered text that was not written.

        Args:
            path: of the target that it was to be.
            line: of the text, from 1.
            data: the text, before any formatter.
            shown: what was said of it, perhaps with a mark below the line.
        """
        step = self._workshop.plan.steps[self._workshop.plan.makers[path]]
        for pieces in self._renders(step):
            if _encoded(pieces) == data:
                found = maps.built(posixpath.basename(path), pieces, "")
                there = _nth(data.decode("utf-8", "replace"), line)
                column = blame.marked_by(there, shown) if there is not None else 0
                return self._lines(Place(path, line, column), found, data)
        return [_UNSURE]

    def _phase(self, path: str) -> str:
        maker = self._workshop.plan.makers.get(path)
        return self._workshop.plan.steps[maker].phase if maker else ""

    def _template(self, path: str) -> str:
        """Return the template of a generated file."""
        plan = self._workshop.plan
        return plan.steps[plan.makers[path]].template

    def _before(self, place: Place, root: str) -> Place | None:
        """Return the place in the source of a compiled file, which its compiler's map tells."""
        data = _bytes(os.path.join(root, f"{place.path}.map"))
        found = maps.read(data) if data is not None else None
        line = _line(os.path.join(root, place.path), place.line)
        if found is None or line is None:
            return None
        column = maps.units(line[: max(place.column - 1, 0)])
        segment = found.at(place.line - 1, column)
        if segment is None and not place.column:
            told = found.lines[place.line - 1 : place.line]
            segment = next((one for one in (told[0] if told else []) if one.source >= 0), None)
        if segment is None:
            return None
        path = posixpath.join(posixpath.dirname(place.path), found.sources[segment.source])
        path = posixpath.normpath(path)
        source = _line(os.path.join(root, path), segment.line + 1)
        if source is None:
            return None
        exact = maps.character(source, segment.from_column) + 1 if place.column else 0
        return Place(path, segment.line + 1, exact)

    def _lines(self, place: Place, found: SourceMap, data: bytes) -> list[str]:
        """Return the template's lines that made a place, who led there, and the keys."""
        line = _nth(data.decode("utf-8", "replace"), place.line)
        if line is None:
            return []
        pieces = list(_pieces(found, place.line - 1, line))
        if not pieces:
            return _near(found, place.line - 1)
        here = next((one for one in pieces if one[0] <= place.column <= one[1]), None)
        chosen = [here] if here is not None else [one for one in pieces if one[3].strip()]
        shown: dict[Spot, Origin] = {}
        for _, _, origin, _ in chosen:
            shown.setdefault((origin.path, origin.line), origin)
        told: list[str] = []
        for spot, origin in list(shown.items())[:_SHOWN]:
            told.append(f"by {spot[0]}:{spot[1]}")
            offset = place.column - here[0] if here is not None else -1
            told += self._pointed(origin, offset)
            told += [f"from {path}:{number}" for path, number in origin.chain]
        if len(shown) > _SHOWN:
            told.append(f"and {len(shown) - _SHOWN} other lines")
        of = here[2].keys if here is not None else ()
        each = dict.fromkeys(key for piece in pieces for key in piece[2].keys)
        return told + self._told_keys(of or each)

    def _pointed(self, origin: Origin, offset: int) -> list[str]:
        """Return a template's line, with a mark if `offset` (-1: none) tells what is meant."""
        line = _line(os.path.join(self._project.root, origin.path), origin.line)
        if line is None:
            return []
        if offset < 0 or origin.width < 0:
            return blame.pointed(line, origin.line, 0, 0)
        if origin.width:
            return blame.pointed(line, origin.line, origin.column, origin.column + origin.width)
        start = origin.column + offset
        word = _WORD.match(line, start)
        return blame.pointed(line, origin.line, start, word.end() if word else start + 1)

    def _told_keys(self, found: Iterable[Key]) -> list[str]:
        listed = list(found)
        told = [f"with {self._told_key(*key)}" for key in listed[:_SHOWN]]
        more = len(listed) - _SHOWN
        return told + [f"with {more} other {'key' if more == 1 else 'keys'}"] * (more > 0)

    def _told_key(self, path: str, key: keys.Path) -> str:
        """Return where a key of a pattern stands, and what it says."""
        place = keys.place(key)
        text = _bytes(os.path.join(self._project.root, path))
        try:
            value = self._workshop.world.library.load(path).data
            for part in key:
                value = value[part]
            line = places.line_of(path, (text or b"").decode(), key)
        except (CodegenError, ValueError, LookupError, TypeError):
            return f"{path}: {place}"
        where = f"{path}:{line}" if line else path
        return f"{where}: {place} = {_shown(value)}"

    # Maps -------------------------------------------------------------------------------

    def source_map(self, path: str, data: bytes) -> SourceMap | None:
        """Return the map of a generated file with these bytes, sources by their paths.

        None if it is not to be had: rendered again, the file is not the same.
        """
        content = digest.of_bytes(data)
        if (path, content) not in self._known:
            found = self._kept(path, content) or self._made(path, data, content)
            if len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[path, content] = found
        return self._known[path, content]

    def _kept(self, path: str, content: str) -> SourceMap | None:
        kept = self._project.map_path(path)
        data = _bytes(self._project.full(kept))
        found = maps.read(data) if data is not None else None
        if found is None or found.digest != content:
            return None
        folder = posixpath.dirname(kept)
        found.sources = [posixpath.normpath(posixpath.join(folder, s)) for s in found.sources]
        return found

    def _made(self, path: str, data: bytes, content: str) -> SourceMap | None:
        maker = self._workshop.plan.makers.get(path)
        if maker is None:
            return None
        step = self._workshop.plan.steps[maker]
        if kind_of(step.template) is not JINJA2:
            return None
        for pieces in self._renders(step):
            if pieces and (found := self._finished(step, pieces, data)) is not None:
                return maps.built(posixpath.basename(path), found, content)
        return None

    def _finished(self, step: Step, pieces: list[Piece], data: bytes) -> Iterable[Piece] | None:
        """Return the pieces of what a text came to when it was written; None if not to `data`."""
        text = _encoded(pieces)
        if text == data:
            return pieces
        rule = self._project.rules[step.rule]
        if rule.format is None and rule.newline is None:
            return None
        with contextlib.suppress(CodegenError, ValueError):
            if formats.finished(rule, text, step.outputs[0], self._project.root) == data:
                return moved.moved(pieces, data.decode())
        return None

    def _renders(self, step: Step) -> Iterator[list[Piece]]:
        """Yield what a render comes to, of values that know their keys, and of such that do not.

        The first are no plain strings, which a project's function may mind.
        """
        for keyed in (True, False):
            yield self._rendered(step, keyed)

    def _rendered(self, step: Step, keyed: bool) -> list[Piece]:
        """Render a file once more; [] if that fails."""
        try:
            return self._traced(step, keyed)
        except Exception:  # whatever a template or function raises that did not before
            return []

    def _traced(self, step: Step, keyed: bool) -> list[Piece]:
        with _silence():
            if self._engine is None:
                from .tracing import Tracing

                self._engine = Tracing(self._workshop.spec_of(JINJA2))
            loaded = [self._workshop.world.library.load(path) for path in step.patterns]
            return self._engine.pieces(
                step.template, lambda trace: self._variables(step, loaded, trace, keyed)
            )

    def blamed(self, step: Step, error: StepError) -> list[str]:
        """Return lines that tell which keys a render was at when it failed; [] if unsure."""
        self._failures += 1
        if self._failures > _FAILURES:
            return []
        try:
            self._traced(step, keyed=True)
        except StepError as again:
            if (again.where, again.what) == (error.where, error.what) and self._engine is not None:
                return self._told_keys(self._engine.trace.blamed(error.what))
        except Exception:  # values that know their keys are no plain strings
            return []
        return []

    def _variables(
        self, step: Step, loaded: list[Pattern], trace: Trace, keyed: bool
    ) -> Mapping[str, Any]:
        """Return what a template sees, of which `trace` knows where it comes from."""
        plain = self._workshop.views.plain(step, loaded)
        if not keyed:
            return plain
        tops = [trace.keyed(dict(one.data), (one.path, ())) for one in loaded]
        if step.many:
            for top, pattern in zip(tops, loaded, strict=True):
                top["pattern"] = pattern.names()
            return {**plain, **({"patterns": tops} if _same(tops, plain["patterns"]) else {})}
        if not loaded:
            return plain
        path, seen = loaded[0].path, dict(tops[0])
        above_of: dict[str, keys.Path] = {name: (name,) for name in seen}
        if step.item is not None:
            each = str(self._project.rules[step.rule].each)
            for name, value, key in list(items.keyed(each, step.item, seen)):
                seen[name], above_of[name] = value, key
        # A context function may have put something else in a key's place.
        ours = {name: value for name, value in seen.items() if _same(value, plain.get(name))}
        trace.tops.update({name: (value, (path, above_of[name])) for name, value in ours.items()})
        return {**plain, **ours}

    def keep(self, path: str) -> None:
        """Keep the map of a generated file, and those of what was compiled from it.

        Args:
            path: of a target.
        """
        root = self._project.root
        while self._phase(path) == "compile":
            path = self._workshop.plan.steps[self._workshop.plan.makers[path]].source
        data = _bytes(os.path.join(root, path))
        found = self.source_map(path, data) if data is not None else None
        if found is None:
            return
        self._write(path, found)
        for step in self._compiles.get(path, ()):
            outer = _bytes(os.path.join(root, f"{step.outputs[0]}.map"))
            compiled = _bytes(os.path.join(root, step.outputs[0]))
            told = maps.read(outer) if outer is not None else None
            if told is not None and compiled is not None and len(told.sources) == 1:
                content = digest.of_bytes(compiled)
                self._write(step.outputs[0], maps.composed(told, found, content))

    @cached_property
    def _compiles(self) -> dict[str, list[Step]]:
        """The compile steps of each source."""
        found: dict[str, list[Step]] = {}
        for step in self._workshop.plan.steps.values():
            if step.phase == "compile":
                found.setdefault(step.source, []).append(step)
        return found

    def _write(self, path: str, found: SourceMap) -> None:
        kept = self._project.map_path(path)
        folder = posixpath.dirname(kept)
        sources = [posixpath.relpath(source, folder) for source in found.sources]
        told = SourceMap(
            found.file, sources, found.names, found.lines, found.digest, found.notes
        ).to_bytes()
        home = self._project.full(self._project.home)
        with contextlib.suppress(CodegenError, OSError):
            disk.write_ours(self._project.full(kept), told, home)


def _pieces(found: SourceMap, number: int, line: str) -> Iterable[tuple[int, int, Origin, str]]:
    """Yield first and last column (from 1) of each piece of a line, what made it, and its text."""
    segments = found.lines[number] if number < len(found.lines) else []
    starts = [maps.character(line, one.column) for one in segments] + [len(line)]
    for segment, start, end in zip(segments, starts, starts[1:], strict=False):
        if segment.source >= 0:
            yield start + 1, end, found.origin(segment), line[start:end]


def _near(found: SourceMap, number: int) -> list[str]:
    """Return what tells of the nearest line before one of which nothing is known."""
    for segments in reversed(found.lines[max(number - _NEAR, 0) : number]):
        for segment in reversed(segments):
            if segment.source >= 0:
                origin = found.origin(segment)
                return [f"near {origin.path}:{origin.line}"]
    return []


def _encoded(pieces: Iterable[Piece]) -> bytes:
    return "".join(part for part, _ in pieces).encode("utf-8", "replace")


def _same(value: Any, other: Any) -> bool:
    """Tell whether two values are the same data of a pattern."""
    plain = isinstance(other, (str, int, float, list, dict, type(None)))
    return plain and isinstance(value, type(other)) and bool(value == other)


def _bytes(full: str) -> bytes | None:
    try:
        return disk.read(full)
    except OSError:
        return None


def _line(full: str, number: int) -> str | None:
    """Return a line of a file; None if there is none."""
    data = _bytes(full)
    return _nth(data.decode("utf-8", "replace"), number) if data is not None else None


def _nth(text: str, number: int) -> str | None:
    lines = text.split("\n")
    return lines[number - 1].rstrip("\r") if 0 < number <= len(lines) else None


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        noun = "item" if isinstance(value, list) else "key"
        return f"{len(value)} {noun}{'' if len(value) == 1 else 's'}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop what functions print; a thread lets it pass, where others would fall silent too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
