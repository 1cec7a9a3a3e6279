"""Texts that know what made their pieces, and what is known of a text that was made of such.

Knows neither templates nor patterns; imported where one is rendered once more, never before.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from markupsafe import Markup

from .maps import Origin

#: Lengths, and what made so many characters.
Spans: TypeAlias = list[tuple[int, Origin | None]]
#: Characters times sources; more is not looked through.
_MOST = 50_000_000


class Marked(str):
    """A text that knows what made its pieces."""

    codegen_spans: Spans

    def __str__(self) -> str:
        return self


class MarkedMarkup(Markup):
    """The same for a text that is safe to be in HTML."""

    codegen_spans: Spans

    def __str__(self) -> str:
        return self


def marked(kind: Any, text: str, spans: Spans) -> Any:
    """Return a text, of one of the classes above, with what made its pieces."""
    made = kind(text)
    made.codegen_spans = spans
    return made


def spans_of(value: object) -> Spans | None:
    """Return what made the pieces of a text; None if it does not know."""
    if not isinstance(value, str):  # of an undefined name even this question is an error
        return None
    found: Spans | None = getattr(value, "codegen_spans", None)
    return found


def pieces_of(text: str) -> Iterator[tuple[str, Origin | None]]:
    """Yield the pieces of a marked text, and what made each."""
    plain, at = str.__str__(text), 0
    for size, origin in spans_of(text) or []:
        yield plain[at : at + size], origin
        at += size


# Texts that were changed -------------------------------------------------------------------


def aligned(text: str, sources: Sequence[Any]) -> Spans:
    """Return what made the pieces of a text that was made of marked ones, where that is sure.

    A source counts that stands in the text as it is, as often as there are sources like it;
    otherwise its lines, where the text has as many and each is in its own, or has that line once,
    as the source has.
    """
    if not sources or len(sources) * len(text) > _MOST:
        return [(len(text), None)] if text else []
    # The longest first: a shorter one may be a part of it.
    ordered = sorted(sources, key=len, reverse=True)
    taken = bytearray(len(text))
    claims = list(_exact(text, ordered, taken))
    if not claims:
        for source in ordered:
            claims += _lines_of(text, source, taken)
    return _claimed(len(text), claims)


def _exact(text: str, sources: Sequence[Any], taken: bytearray) -> Iterator[tuple[int, int, Spans]]:
    """Yield start, end and spans of the sources that a text has as they are."""
    alike = Counter(map(str.__str__, sources))
    after: dict[str, int] = {}
    for source in sources:
        plain = str.__str__(source)
        start = text.find(plain, after.get(plain, 0)) if plain.strip() else -1
        if start < 0 or text.count(plain) != alike[plain]:
            continue
        after[plain] = end = start + len(plain)
        if _take(taken, start, end):
            yield start, end, spans_of(source) or []


def _take(taken: bytearray, start: int, end: int) -> bool:
    if 1 in taken[start:end]:
        return False
    taken[start:end] = b"\1" * (end - start)
    return True


def _lines_of(text: str, source: Any, taken: bytearray) -> Iterator[tuple[int, int, Spans]]:
    """Yield start, end and spans of the lines that a text has of a source."""
    theirs, ours = list(_stripped(text)), list(_stripped(source))
    beside = theirs if text.count("\n") != source.count("\n") else _beside(theirs, ours)
    if len(beside) == len(ours) and all(o[0] in t[0] for o, t in zip(ours, beside, strict=True)):
        pairs = list(zip(beside, ours, strict=True))
    else:
        there = Counter(line for line, *_ in theirs)
        here = Counter(line for line, *_ in ours)
        at = {line: one for one in theirs if there[line := one[0]] == 1}
        pairs = [(at[one[0]], one) for one in ours if one[0] in at and here[one[0]] == 1]
    spans = spans_of(source) or []
    ends = list(accumulate(size for size, _ in spans))
    for (shown, start, size, _), (line, place, _, _) in pairs:
        inner = shown.find(line)
        if len(shown) == size and inner > 0 and _take(taken, start, start + size):
            cut = _cut(spans, ends, place, len(line), len(line))
            rest = size - inner - len(line)
            around = [(inner, None), *cut, (rest, None)]
            yield start, start + size, [one for one in around if one[0]]
        elif inner <= 0 and _take(taken, start, start + size):
            yield start, start + size, _cut(spans, ends, place, len(line), size)


#: A line in lower case, its start, its length, and its number.
_Line: TypeAlias = tuple[str, int, int, int]


def _beside(theirs: Sequence[_Line], ours: Sequence[_Line]) -> list[_Line]:
    """Return the lines of one text that have the numbers of the other's."""
    numbered = {line[3]: line for line in theirs}
    return [numbered[line[3]] for line in ours if line[3] in numbered]


def _stripped(text: str) -> Iterator[_Line]:
    """Yield each line that is not blank."""
    start = 0
    for number, line in enumerate(str.__str__(text).split("\n")):
        said = line.strip()
        if said:
            yield said.casefold(), start + len(line) - len(line.lstrip()), len(said), number
        start += len(line) + 1


def _cut(spans: Spans, ends: Sequence[int], start: int, length: int, size: int) -> Spans:
    """Return the spans of a part, with `size` in all: what is in lower case may be longer.

    Args:
        spans: of the whole.
        ends: where each of them ends.
        start: of the part.
        length: of the part.
        size: what its spans are to come to.
    """
    cut: Spans = []
    at, index = start, bisect.bisect_right(ends, start)
    while at < start + length and index < len(spans):
        last = min(ends[index], start + length)
        cut.append((last - at, spans[index][1]))
        at, index = last, index + 1
    if sum(part for part, _ in cut) != size:
        return [(size, cut[0][1] if cut else None)]
    return cut


def _claimed(length: int, claims: Iterable[tuple[int, int, Spans]]) -> Spans:
    spans: Spans = []
    at = 0
    for start, end, found in sorted(claims, key=lambda claim: claim[0]):
        if start < at:
            continue  # two sources say so; the first one does
        if start > at:
            spans.append((start - at, None))
        spans += found
        at = end
    if at < length:
        spans.append((length - at, None))
    return spans
