"""Source maps: what of a generated file comes from which line of a template, and of which keys.

The format is ECMA-426, version 3.  Beside the standard's fields, `x_codegen` has what it has no
place for; a segment's name is the index of its entry there.  Lines and columns are counted from
0 here, columns in UTF-16 units, as the format does.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .keys import Path, place

#: Version of what stands in `x_codegen`.
VERSION = 1
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
#: A number of a map may be so many digits long; more is no map of ours or anybody's.
_LONGEST = 12

#: A key of a pattern: the pattern's path, and keys and indices from its top.
Key: TypeAlias = tuple[str, Path]
#: A template and a line of it, from 1.
Spot: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Origin:
    """What made a piece of text.

    Args:
        path: of the template, project-relative.
        line: of it, from 1.
        column: of it, in characters from 0.
        width: characters of the expression there; 0 if it is text of the template itself, and
            -1 if it is not known where in the line it stands.
        chain: who led there, innermost first.
        keys: of patterns, that it was made of.
    """

    path: str
    line: int
    column: int = 0
    width: int = 0
    chain: tuple[Spot, ...] = ()
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """From `column` on, a line comes from there; `source` is -1 where it is not known."""

    column: int
    source: int = -1
    line: int = 0
    from_column: int = 0
    name: int = -1


@dataclass(slots=True)
class SourceMap:
    """A source map.

    Args:
        file: the name of what it is about.
        sources: paths of what that is made from, relative to the map.
        names: what segments name.
        lines: the segments of each line, by column.
        digest: of the bytes of `file`; "" in maps that are not ours.
        notes: for each name, `width`, `chain` and `keys` of its origin.
    """

    file: str
    sources: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    lines: list[list[Segment]] = field(default_factory=list)
    digest: str = ""
    notes: list[dict[str, Any]] = field(default_factory=list)

    def at(self, line: int, column: int) -> Segment | None:
        """Return the segment of a place; None if there is none that says where it comes from."""
        segments = self.lines[line] if 0 <= line < len(self.lines) else []
        index = bisect.bisect_right(segments, column, key=lambda one: one.column) - 1
        found = segments[index] if index >= 0 else None
        return found if found is not None and found.source >= 0 else None

    def origin(self, segment: Segment) -> Origin:
        """Return what a segment says."""
        note = self.notes[segment.name] if 0 <= segment.name < len(self.notes) else {}
        return Origin(
            self.sources[segment.source],
            segment.line + 1,
            segment.from_column,
            note.get("width", 0),
            tuple((path, line) for path, line in note.get("chain", ())),
            tuple((path, tuple(key)) for path, key in note.get("keys", ())),
        )

    # Writing ----------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the map as the format has it."""
        return {
            "version": 3,
            "file": self.file,
            "sources": self.sources,
            "names": self.names,
            "mappings": ";".join(_encoded(self.lines)),
            "x_codegen": {"version": VERSION, "digest": self.digest, "origins": self.notes},
        }

    def to_bytes(self) -> bytes:
        """Return the map as a file."""
        text = json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "surrogatepass") + b"\n"


# Building ---------------------------------------------------------------------------------


def built(file: str, pieces: Iterable[tuple[str, Origin | None]], digest: str) -> SourceMap:
    """Return the map of a text made of pieces, in order, each with what made it, if known.

    Args:
        file: the name of what the text is.
        pieces: of the text; sources are their paths as they are.
        digest: of the text's bytes.
    """
    writer = _Writer(SourceMap(file, digest=digest))
    for text, origin in pieces:
        writer.add(text, origin)
    return writer.made


class _Writer:
    def __init__(self, made: SourceMap):
        self.made = made
        made.lines.append([])
        self._column = 0
        self._sources: dict[str, int] = {}
        self._names: dict[tuple[Any, ...], int] = {}

    def add(self, text: str, origin: Origin | None) -> None:
        for number, line in enumerate(text.split("\n")):
            if number:
                self.made.lines.append([])
                self._column = 0
            if line:
                self._put(origin)
                self._column += units(line)

    def _put(self, origin: Origin | None) -> None:
        """Note what made the text from here on."""
        if origin is None:
            segment = Segment(self._column)
        else:
            source = self._sources.setdefault(origin.path, len(self._sources))
            if source == len(self.made.sources):
                self.made.sources.append(origin.path)
            rest = (source, origin.line - 1, origin.column, self._name(origin))
            segment = Segment(self._column, *rest)
        self.made.lines[-1].append(segment)

    def _name(self, origin: Origin) -> int:
        if not (origin.width or origin.chain or origin.keys):
            return -1
        key = (origin.width, origin.chain, origin.keys)
        if key not in self._names:
            self._names[key] = len(self._names)
            self.made.names.append(", ".join(place(path) for _, path in origin.keys))
            note = {"width": origin.width, "chain": list(map(list, origin.chain))}
            self.made.notes.append({**note, "keys": [[p, list(k)] for p, k in origin.keys]})
        return self._names[key]


def units(text: str) -> int:
    """Return how many UTF-16 units a text has."""
    return len(text) if text.isascii() else len(text) + sum(char > "\uffff" for char in text)


def character(line: str, column: int) -> int:
    """Return the index of the character of a line that has the UTF-16 unit `column`."""
    if line.isascii():
        return min(column, len(line))
    for index, char in enumerate(line):
        column -= 2 if char > "\uffff" else 1
        if column < 0:
            return index
    return len(line)


def composed(outer: SourceMap, inner: SourceMap, digest: str) -> SourceMap:
    """Return what `outer` is made from, told by the sources of `inner`.

    Args:
        outer: the map of a compiled file; its only source is what `inner` is about.
        inner: the map of that.
        digest: of the compiled file's bytes.
    """
    made = SourceMap(outer.file, inner.sources, inner.names, [], digest, inner.notes)
    for segments in outer.lines:
        line: list[Segment] = []
        for segment in segments:
            found = inner.at(segment.line, segment.from_column) if segment.source >= 0 else None
            if found is None:
                line.append(Segment(segment.column))
            else:
                rest = (found.source, found.line, found.from_column, found.name)
                line.append(Segment(segment.column, *rest))
        made.lines.append(line)
    return made


# Reading ----------------------------------------------------------------------------------


def read(data: bytes | str) -> SourceMap | None:
    """Return the map that a file holds, ours or another's; None if it holds none."""
    try:
        return _read(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return None


def _read(found: Any) -> SourceMap:
    if found["version"] != 3:
        raise ValueError
    root = found.get("sourceRoot") or ""
    sources = [root + name if name is not None else "" for name in found["sources"]]
    own = found.get("x_codegen", {})
    own = own if own.get("version") == VERSION else {}
    made = SourceMap(
        str(found.get("file", "")),
        sources,
        [str(name) for name in found.get("names", [])],
        list(_decoded(found["mappings"], len(sources))),
        str(own.get("digest", "")),
        list(own.get("origins", [])),
    )
    for line in made.lines:
        for segment in line:
            if segment.source >= 0:
                made.origin(segment)  # raises for notes that are not as they should be
    return made


def _encoded(lines: Iterable[Sequence[Segment]]) -> Iterator[str]:
    """Yield each line of `mappings`: differences from what came before, in base 64."""
    before = [0, 0, 0, 0]
    for segments in lines:
        column, told = 0, []
        for one in segments:
            numbers = [one.column - column]
            column = one.column
            if one.source >= 0:
                now = [one.source, one.line, one.from_column]
                numbers += [new - old for new, old in zip(now, before, strict=False)]
                before[:3] = now
                if one.name >= 0:
                    numbers.append(one.name - before[3])
                    before[3] = one.name
            told.append("".join(map(_vlq, numbers)))
        yield ",".join(told)


def _vlq(number: int) -> str:
    rest = -number << 1 | 1 if number < 0 else number << 1
    digits = ""
    while True:
        digit, rest = rest & 31, rest >> 5
        digits += _DIGITS[digit | 32 if rest else digit]
        if not rest:
            return digits


def _decoded(mappings: str, sources: int) -> Iterator[list[Segment]]:
    """Yield the segments of each line; raises ValueError or KeyError for what are none."""
    before = [0, 0, 0, 0]
    for text in mappings.split(";"):
        column, segments = 0, []
        for part in text.split(",") if text else ():
            numbers = _numbers(part)
            if len(numbers) not in (1, 4, 5):
                raise ValueError
            column += numbers[0]
            for index, number in enumerate(numbers[1:]):
                before[index] += number
            if len(numbers) > 1 and not (0 <= before[0] < sources and min(before[1:]) >= 0):
                raise ValueError
            source, line, from_column, named = before
            if len(numbers) == 1:
                segments.append(Segment(column))
            else:
                name = named if len(numbers) == 5 else -1
                segments.append(Segment(column, source, line, from_column, name))
        yield sorted(segments, key=lambda one: one.column)


def _numbers(text: str) -> list[int]:
    numbers, number, shift = [], 0, 0
    for char in text:
        digit = _VALUES[char]
        number |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            numbers.append(-(number >> 1) if number & 1 else number >> 1)
            number = shift = 0
        elif shift > 5 * _LONGEST:
            raise ValueError
    if shift:
        raise ValueError
    return numbers
