"""What a message points at in a template: the lines, and a mark below the word that it is about.

Jinja2 tells the line only.  The word is looked for by what the message says, and if it cannot be
told which one it is, there is no mark: better none than a wrong one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from . import disk
from .columns import cells

#: An expression may go on for so many lines after the one that Jinja2 tells.
_LINES = 8
#: A longer line is shown around the mark only, so many characters of it.
_LONG = 120
_AROUND = 50

_TAG = re.compile(r"\{\{.*?(?:\}\}|$)|\{%.*?(?:%\}|$)|\{#.*?(?:#\}|$)")
_OPEN = re.compile(r"\{[{%]")
_CLOSE = re.compile(r"[%}]\}")

#: What messages say, and how the word stands in a template; `@` is the word.
_WORDS = (
    (r"'(.+)' is undefined", r"(?<![\w.'\"])(@)(?![\w'\"])(?!\s*=(?!=))"),
    (r"the table has no key '(.+)'", r"(?:\.\s*(@)(?!\w)|\[\s*['\"](@)['\"]\s*\])"),
    (r"'.+' has no attribute '(.+)'", r"(?:\.\s*(@)(?!\w)|\[\s*['\"](@)['\"]\s*\])"),
    (r"template '.+' defines no '(.+?)'.*", r"(?<![\w'\"])(@)(?![\w'\"])"),
    (r"no filter named '(.+)'", r"(?:\||\bfilter\s)\s*(@)(?!\w)"),
    (r"no test named '(.+)'", r"\bis\s+(?:not\s+)?(@)(?!\w)"),
    (r"there is no template '([^']+)'.*", r"['\"](@)['\"]"),
    (r"encountered unknown tag '(.+)'", r"\{%[-+]?\s*(@)(?!\w)"),
    (r"unexpected '([^\w\s]{1,2})'.*", r"(@)"),
    (r"unexpected 'end of print statement'()", r"([-+]?\}\})"),
    (r"unexpected 'end of statement block'()", r"([-+]?%\})"),
    (r"\w+ in (\w+) \(.*", r"(?<![\w'\"])(@)(?![\w'\"])"),
)
#: Of these the first that there is made the render fail, for all fail alike.
_FIRST = ("is undefined", "no filter", "no test", "there is no template")


def shown(root: str, path: str, line: int, what: str) -> list[str]:
    """Return lines of a template, numbered, with a mark below what a message is about.

    Args:
        root: absolute path of the project.
        path: of the template, project-relative.
        line: the one that Jinja2 tells, from 1.
        what: the message.
    """
    try:
        text = disk.read(os.path.join(root, path)).decode("utf-8", "replace")
        return marked(text.splitlines(), line, what)
    except OSError:
        return []


def marked(lines: Sequence[str], line: int, what: str) -> list[str]:
    """Return what `shown` does of the lines of a template."""
    if not 1 <= line <= len(lines):
        return []
    number, start, end = _place(lines, line, what) or (line, 0, 0)
    width = len(str(number))
    before = [f"{n:{width}} | {_cut(lines[n - 1].rstrip(), 0, 0)[0]}" for n in range(line, number)]
    return before + pointed(lines[number - 1], number, start, end)


def pointed(source: str, number: int, start: int, end: int) -> list[str]:
    """Return a line with its number, and a mark below from `start` to `end`, if that is not 0."""
    width = len(str(number))
    source, start, end = _cut(source.rstrip(), start, end)
    told = [f"{number:{width}} | {source}"]
    if end:
        before = "".join("\t" if c == "\t" else " " * cells(c) for c in source[:start])
        told.append(f"{'':{width}} | {before}{'^' * max(cells(source[start:end]), 1)}")
    return told


def marked_by(line: str, shown: Sequence[str]) -> int:
    """Return which character, from 1, a compiler has marked that shows a line; 0 if it has not."""
    for code, mark in pairwise(shown):
        number, bar, text = code.partition("|")
        start = mark.find("^" if "^" in mark else "~")
        if not bar or not number.strip().isdigit() or text.strip() != line.strip() or start < 0:
            continue
        column = start - len(number) - len(bar)
        widths = accumulate(map(cells, text), initial=0)
        index = next((i for i, width in enumerate(widths) if width >= column), 0)
        # It may show another indentation, of spaces for tabs.
        found = index - _indent(text) + _indent(line)
        return found + 1 if 0 <= found < len(line) else 0
    return 0


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _place(lines: Sequence[str], line: int, what: str) -> tuple[int, int, int] | None:
    """Return line, start and end of the word that a message is about; None if it is not sure."""
    for said, written in _WORDS:
        match = re.fullmatch(said, what)
        if match is None:
            continue
        word = re.compile(written.replace("@", re.escape(match[1])))
        for number, spans in _spans(lines, line):
            found = [
                _span(one)
                for start, end in spans
                for one in word.finditer(lines[number - 1], start, end)
            ]
            if len(found) == 1 or (found and any(one in what for one in _FIRST)):
                return number, *found[0]
            if found:
                return None
    return None


def _span(match: re.Match[str]) -> tuple[int, int]:
    """Return where the group lies that took part."""
    index = next(number for number in range(1, len(match.regs)) if match.start(number) >= 0)
    return match.span(index)


def _spans(lines: Sequence[str], line: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield lines, the first and those that its last tag goes on for, and what is code in each."""
    text = lines[line - 1]
    spans = [match.span() for match in _TAG.finditer(text) if not match[0].startswith("{#")]
    closed = _CLOSE.search(text)
    opened = _OPEN.search(text)
    if closed and (opened is None or closed.start() < opened.start()):
        spans.insert(0, (0, closed.end()))
    yield line, spans or [(0, len(text))]
    if spans and _CLOSE.search(text, spans[-1][0]):
        return
    for number in range(line + 1, min(line + _LINES, len(lines)) + 1):
        text = lines[number - 1]
        closed = _CLOSE.search(text)
        yield number, [(0, closed.end() if closed else len(text))]
        if closed:
            return


def _cut(source: str, start: int, end: int) -> tuple[str, int, int]:
    """Return a line that is not too long to read, and where the mark lies in it."""
    if len(source) <= _LONG:
        return source, start, end
    first = max(min(start - _AROUND, len(source) - _LONG), 0)
    last = max(first + _LONG, end)
    head, tail = "…" if first else "", "…" if last < len(source) else ""
    moved = len(head) - first
    return f"{head}{source[first:last]}{tail}", start + moved, end + moved
