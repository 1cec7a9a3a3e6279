"""A message as a terminal shows it: broken at words, in colours that lead the eye.

Loaded when a terminal is told of a failure.  What is to be copied, and lines of files, are not
broken.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from typing import Any

from .columns import wrap

_RED, _CYAN, _BLUE = "1;31", "36", "94"
#: A line of a file: its number, a bar, the line.
_SOURCE = re.compile(r"( *\d+ \|)( .*)?")
#: What stands below such a line.
_MARK = re.compile(r"( *\|)( *[\^~]+ *)")
_HEAD = re.compile(r"( *)(failed:|hint:)( .*)?")
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
    return "\n".join(_line(line, width, plain) for line in text.split("\n"))


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
