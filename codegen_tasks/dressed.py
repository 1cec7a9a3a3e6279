"""A message as a terminal shows it: broken at words, in colours that lead the eye.

Loaded when a terminal is told of a failure.  What is to be copied is not broken; lines of files
are cut around what is marked in them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from typing import Any

from .columns import cells, wrap

_RED, _CYAN, _BLUE = "1;31", "36", "94"
#: A line of a file: its number, a bar, the line.
_SOURCE = re.compile(r"( *\d+ \|)( .*)?")
#: What stands below such a line.
_MARK = re.compile(r"( *\|)( *[\^~]+ *)")
_HEAD = re.compile(r"( *)(failed:|hint:)( .*)?")
#: On fewer columns than this nothing is to be seen of a line.
_LEAST = 20
#: What people copy.
_COMMAND = re.compile(r"to run (?:it|them) again: ")


def dressed_for(stream: Any, text: str) -> str:
    """Return a message for whatever a stream is: as it is, if that is no terminal."""
    if not getattr(stream, "isatty", bool)():
        return text
    return dressed(text, shutil.get_terminal_size().columns, os.environ)


def dressed(text: str, width: int, environ: Mapping[str, str]) -> str:
    """Return a message for a terminal.

    Args:
        text: lines.
        width: columns of the terminal.
        environ: `NO_COLOR` is obeyed.
    """
    plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
    lines = text.split("\n")
    for place, line in enumerate(lines):
        if _SOURCE.fullmatch(line):
            _fit(lines, place, width)
    return "\n".join(_line(line, width, plain) for line in lines)


def _fit(lines: list[str], place: int, width: int) -> None:
    """Cut a line of a file, and the mark below it, to the width of a terminal."""
    head, _, text = lines[place].partition(" | ")
    mark = lines[place + 1] if place + 1 < len(lines) else ""
    marked = _MARK.fullmatch(mark)
    room = width - len(head) - len(" | ")
    # Of what fills more or less than a column a character, the mark would lie elsewhere.
    if len(text) <= room or room < _LEAST or "\t" in text or cells(text) != len(text):
        return
    start = mark.index("^") - len(head) - len(" | ") if marked and "^" in mark else 0
    length = mark.count("^") if marked else 0
    first = max(min(start - room // 3, len(text) - room), 0)
    last = first + room
    shown = text[first + bool(first) : last - (last < len(text))]
    lines[place] = f"{head} | {'…' if first else ''}{shown}{'…' if last < len(text) else ''}"
    if marked and "^" in mark:
        below = "^" * max(min(length, room - (start - first)), 1)
        lines[place + 1] = f"{mark.partition('|')[0]}| {' ' * (start - first)}{below}"


def _line(line: str, width: int, plain: bool) -> str:
    if _COMMAND.match(line):
        return line
    if found := _SOURCE.fullmatch(line):
        return _styled(found[1], _BLUE, plain) + (found[2] or "")
    if found := _MARK.fullmatch(line):
        return _styled(found[1], _BLUE, plain) + _styled(found[2], _RED, plain)
    indent = " " * (len(line) - len(line.lstrip()))
    whole = "\n".join(wrap(line.lstrip(), width, indent, f"{indent}  "))
    if found := _HEAD.match(whole):
        style = _RED if found[2] == "failed:" else _CYAN
        return found[1] + _styled(found[2], style, plain) + whole[found.end(2) :]
    return whole


def _styled(text: str, style: str, plain: bool) -> str:
    return text if plain else f"\x1b[{style}m{text}\x1b[0m"
