"""Where the pieces of a text stand after a formatter has moved them.

A formatter changes white space, quotes and commas, and leaves the words in their order, nearly
always.  So words are matched first, then the other characters between two neighbours.  What could
be one of several stays without an answer: none is better than a wrong one.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeAlias

from .maps import Origin

#: Text, and what made it, if that is known.
Piece: TypeAlias = tuple[str, Origin | None]
_WORD = re.compile(r"\w+")
#: Quotes, for which a formatter takes one another.
_QUOTES = str.maketrans('"`', "''")
#: Stretches within stretches are looked into so deep; beyond, what is left stays unmatched.
_DEEPEST = 40
#: So many words in a row are looked for that a text has once: in tables no single one is.
_ROWS = (1, 3, 9)


def moved(pieces: Sequence[Piece], after: str) -> list[Piece]:
    """Return the pieces of what has become of a text, where that is sure.

    Args:
        pieces: of the text as it was.
        after: the text as it is now.
    """
    before = "".join(text for text, _ in pieces)
    if before == after:
        return list(pieces)
    ends = list(accumulate(len(text) for text, _ in pieces))
    made: list[Piece] = []
    at = 0
    for start, old, size in _joined(before, after, _runs(before, after)):
        if start > at:
            made.append((after[at:start], None))
        at = start + size
        for length, origin in _cut(pieces, ends, old, size):
            made.append((after[start : start + length], origin))
            start += length
    if at < len(after):
        made.append((after[at:], None))
    return made


def _cut(
    pieces: Sequence[Piece], ends: Sequence[int], start: int, size: int
) -> Iterator[tuple[int, Origin | None]]:
    """Yield the lengths of the pieces of a part of a text, and what made each."""
    index, stop = bisect.bisect_right(ends, start), start + size
    while start < stop:
        text, origin = pieces[index]
        skipped = len(text) - (ends[index] - start)
        last = min(ends[index], stop)
        if origin is not None and skipped and not origin.width:
            origin = replace(origin, column=origin.column + skipped)
        yield last - start, origin
        start, index = last, index + 1


def _joined(
    before: str, after: str, runs: Iterator[tuple[int, int, int]]
) -> Iterator[tuple[int, int, int]]:
    """Yield runs; those that have the same between them in both texts are one."""
    start = old = size = 0
    for new_start, new_old, new_size in runs:
        gap = new_start - start - size
        if gap == new_old - old - size and gap >= 0 and size:
            between = after[start + size : new_start]
            if not between.strip() and between == before[old + size : new_old]:
                size += gap + new_size
                continue
        if size:
            yield start, old, size
        start, old, size = new_start, new_old, new_size
    if size:
        yield start, old, size


def _runs(before: str, after: str) -> Iterator[tuple[int, int, int]]:
    """Yield start in the new text, start in the old one, and length of what is surely the same.

    A number that was written in another way has the length of the new one, or of the old one if
    that is less.
    """
    old_words, new_words = list(_WORD.finditer(before)), list(_WORD.finditer(after))
    # By SQL's formatters and others, words change their case.
    pairs = matched(
        [one[0].casefold() for one in old_words], [one[0].casefold() for one in new_words]
    )
    last_old = last_new = -1
    old_at = new_at = 0
    for i, j in [*pairs, (len(old_words), len(new_words))]:
        old_end = old_words[i].start() if i < len(old_words) else len(before)
        new_end = new_words[j].start() if j < len(new_words) else len(after)
        if i == last_old + 1 and j == last_new + 1:
            yield from _between(before, old_at, old_end, after, new_at, new_end)
        if i < len(old_words):
            old_size, new_size = len(old_words[i][0]), len(new_words[j][0])
            yield new_end, old_end, min(old_size, new_size)
            old_at, new_at = old_end + old_size, new_end + new_size
        last_old, last_new = i, j


def _between(
    before: str, old: int, old_end: int, after: str, new: int, new_end: int
) -> Iterator[tuple[int, int, int]]:
    """Yield runs of what stands between two words, in both texts."""
    olds = [at for at in range(old, old_end) if not before[at].isspace()]
    news = [at for at in range(new, new_end) if not after[at].isspace()]
    ours = [before[at].translate(_QUOTES) for at in olds]
    theirs = [after[at].translate(_QUOTES) for at in news]
    for i, j in matched(ours, theirs, _ROWS[:1]):  # signs come in rows of their own
        yield news[j], olds[i], 1


# Matching ---------------------------------------------------------------------------------


def matched(
    old: Sequence[str], new: Sequence[str], lengths: Sequence[int] = _ROWS
) -> list[tuple[int, int]]:
    """Return which of the old ones is which of the new ones, where that is sure, in order.

    Between those that each list has once, the same again: what is there once is sure, and what
    stands beside it as before.
    """
    spare = Counter(old)
    spare.subtract(Counter(new))
    pairs: list[tuple[int, int]] = []
    todo = [(0, len(old), 0, len(new), 0)]
    while todo:
        start, end, new_start, new_end, depth = todo.pop()
        ours, theirs = old[start:end], new[new_start:new_end]
        if ours == theirs:
            pairs += zip(range(start, end), range(new_start, new_end), strict=True)
            continue
        anchors = _anchors(ours, theirs, lengths) if depth < _DEEPEST else []
        if not anchors:
            pairs += ((start + i, new_start + j) for i, j in _edges(ours, theirs, spare))
            continue
        done, new_done = start, new_start
        for i, j in [*anchors, (len(ours), len(theirs))]:
            i, j = start + i, new_start + j
            todo.append((done, i, new_done, j, depth + 1))
            if i < end:
                pairs.append((i, j))
            done, new_done = i + 1, j + 1
    return sorted(pairs)


def _anchors(
    old: Sequence[str], new: Sequence[str], lengths: Sequence[int]
) -> list[tuple[int, int]]:
    """Return as many as can be, in the order of both, of what each list has once."""
    in_another_order = len(old) == len(new) and Counter(old) == Counter(new)
    for length in _ROWS[:1] if in_another_order else lengths:
        rows, new_rows = _rows(old, length), _rows(new, length)
        counts, new_counts = Counter(rows), Counter(new_rows)
        places = {row: j for j, row in enumerate(new_rows) if new_counts[row] == 1}
        both = [(i, places.get(row, -1)) for i, row in enumerate(rows) if counts[row] == 1]
        found = _ascending([(i, j) for i, j in both if j >= 0])
        agreed = [pair for pair in found if length == 1] or list(_agreed(found, length))
        if agreed:
            return agreed
    return []


def _agreed(pairs: Sequence[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of rows that do not say something else of a word than the next ones do."""
    far = (-length, -length)
    for before, pair, after in zip([far, *pairs], pairs, [*pairs[1:], None], strict=False):
        close = [one for one in (before, after) if one and abs(one[0] - pair[0]) < length]
        if all(one[0] - pair[0] == one[1] - pair[1] for one in close):
            yield pair


def _rows(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Return each of the rows of so many words."""
    return list(zip(*(words[first:] for first in range(length)), strict=False))


def _ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the most of the pairs whose second numbers ascend, as the first ones do."""
    tails: list[int] = []
    held: list[int] = []
    before: list[int] = []
    for index, (_, j) in enumerate(pairs):
        place = bisect.bisect_left(tails, j)
        before.append(held[place - 1] if place else -1)
        tails[place : place + 1] = [j]
        held[place : place + 1] = [index]
    found = []
    index = held[-1] if held else -1
    while index >= 0:
        found.append(pairs[index])
        index = before[index]
    return found[::-1]


def _edges(
    old: Sequence[str], new: Sequence[str], spare: Counter[str]
) -> Iterator[tuple[int, int]]:
    """Yield what the beginnings and the ends of two lists have in common, where that is sure.

    Args:
        old: has nothing once that `new` has once.
        new: the other list.
        spare: how many more of each there were than there are, in all of the text.
    """
    counts, new_counts = Counter(old), Counter(new)
    if counts == new_counts or not old or not new:
        return  # put into another order, or gone
    least = min(len(old), len(new))
    head = next((n for n in range(least) if old[n] != new[n]), least)
    tail = next((n for n in range(least) if old[-1 - n] != new[-1 - n]), least)
    sure = {word for word, count in counts.items() if count == new_counts[word]}
    # Of what could belong to the beginning as well as to the end, it is not known what went.
    for n in range(min(head, least - tail)):
        if old[n] in sure:
            yield n, n
    for n in range(min(tail, least - head)):
        if old[-1 - n] in sure:
            yield len(old) - 1 - n, len(new) - 1 - n
    if head + tail + 1 == len(old) == len(new):
        gone, come = old[head], new[head]
        # A sign may as well have gone where another came.
        if _WORD.match(gone) and _WORD.match(come) and spare[gone] > 0 > spare[come]:
            yield head, head  # written in another way
