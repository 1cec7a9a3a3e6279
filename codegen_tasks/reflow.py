"""What made the pieces of a text after a formatter: words that stayed keep what made them.

Formatters change the space between words, add and drop punctuation, and move little.  So both
texts are walked through at once; where they differ, both are looked through for the next few words
that are alike.  What was added, or not found again, comes from nowhere.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from .maps import Origin

_WORD = re.compile(r"\w+|[^\w\s]")
#: So many words are passed over, in both texts together, to find alike ones again.
_FARTHEST = 80
#: So many words in a row must be alike where they are found again.
_ALIKE = 3

Piece = tuple[str, Origin | None]
#: Its text, and where it begins.
_Word = tuple[str, int]


def reflowed(pieces: Sequence[Piece], text: str) -> Iterator[Piece]:
    """Yield the pieces of a formatted text, and what made each.

    Args:
        pieces: of the text that was formatted.
        text: what the formatter made of it.
    """
    before = _words("".join(part for part, _ in pieces))
    after = _words(text)
    ends = list(accumulate(len(part) for part, _ in pieces))
    at = 0
    for (_, start), (word, place) in _pairs(before, after):
        if place > at:
            yield text[at:place], None
        yield from _cut(pieces, ends, start, word)
        at = place + len(word)
    if at < len(text):
        yield text[at:], None


def _words(text: str) -> list[_Word]:
    return [(found[0], found.start()) for found in _WORD.finditer(text)]


def _pairs(before: Sequence[_Word], after: Sequence[_Word]) -> Iterator[tuple[_Word, _Word]]:
    """Yield the words of both texts that are one."""
    i = j = 0
    while i < len(before) and j < len(after):
        if before[i][0] == after[j][0]:
            yield before[i], after[j]
            i, j = i + 1, j + 1
        else:
            more, other = _next_alike(before, i, after, j)
            i, j = i + more, j + other


def _next_alike(before: Sequence[_Word], i: int, after: Sequence[_Word], j: int) -> tuple[int, int]:
    """Return how many words of each text to pass over."""
    one, other = before[i][0], after[j][0]
    marks = not one[0].isalnum(), not other[0].isalnum()
    if all(marks) and _is_same(before, i + 1, after, j + 1, 2):
        return 1, 1  # other quotes
    if marks[1] and _is_same(before, i, after, j + 1, 1):
        return 0, 1  # a comma more
    if marks[0] and _is_same(before, i + 1, after, j, 1):
        return 1, 0
    for far in range(1, _FARTHEST):
        for more in range(far + 1):
            if _is_same(before, i + more, after, j + far - more, _ALIKE):
                return more, far - more
    return 1, 1


def _is_same(before: Sequence[_Word], i: int, after: Sequence[_Word], j: int, count: int) -> bool:
    if i >= len(before) or j >= len(after):
        return i >= len(before) and j >= len(after)
    pairs = zip(before[i : i + count], after[j : j + count], strict=False)
    return all(one[0] == other[0] for one, other in pairs)


def _cut(pieces: Sequence[Piece], ends: Sequence[int], start: int, word: str) -> Iterable[Piece]:
    """Yield a word that begins at `start` of the text before, by what made it."""
    index, done = bisect_right(ends, start), 0
    while done < len(word) and index < len(pieces):
        size = min(ends[index] - start, len(word)) - done
        origin = pieces[index][1]
        if origin is not None and origin.width == 0:  # text of the template itself
            into = start + done - (ends[index] - len(pieces[index][0]))
            origin = replace(origin, column=origin.column + into)
        if size:
            yield word[done : done + size], origin
        done, index = done + size, index + 1
