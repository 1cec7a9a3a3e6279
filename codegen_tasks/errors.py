"""The one tree of exceptions: every error reads `where: what`, with a hint where one helps.

    doit.InvalidDodoFile
    └── CodegenError          where: what
        ├── DeclarationError  dodo.py, a rule or a setting is wrong: exit 3, before any step
        ├── StateError        the database cannot be used now: exit 3, what it holds is kept
        ├── LockedError       another process builds here, and we are not to wait: exit 3
        └── StepError         one step failed: exit 1, other steps go on as doit decides
            └── PatternError  raised by a project's own template functions

They derive from doit's `InvalidDodoFile` because every core command prints those as one
line; any other exception would reach the user as a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

from doit.exceptions import InvalidDodoFile


class CodegenError(InvalidDodoFile):
    """An error with its place.

    Args:
        where: the file (`path:line` where a line is known), rule or setting.
        what: what is wrong there, one line, lower case, no full stop.
        hint: what to do about it, or "".
        details: further lines, shown indented between the message and the hint.
    """

    #: The column in the line that `where` tells, from 1, as whoever complains counts; 0: unknown.
    column = 0

    def __init__(self, where: str, what: str, hint: str = "", details: Iterable[str] = ()):
        self.where = where
        self.what = what
        self.hint = hint
        self.details = tuple(details)
        super().__init__(where, what, hint, self.details)

    def at_column(self, column: int) -> Self:
        """Return the same error, its column told."""
        self.column = column
        return self

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}"]
        lines += [f"  {line}" for line in self.details]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return _shown("\n".join(lines))


def _shown(text: str) -> str:
    """Return a text that only says something: what a terminal would obey is spelt out.

    Names, keys and source lines in a message may come from a file that nobody has looked at.
    """
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


class DeclarationError(CodegenError):
    """`dodo.py`, a rule or a setting is wrong; found before any step began."""


class StateError(CodegenError):
    """The database is locked, or cannot be read or written where it lies; it is left alone."""


class LockedError(CodegenError):
    """Another process builds here, and whoever asked did not want to wait."""


class StepError(CodegenError):
    """One step failed; the build's other targets are not concerned."""


class PatternError(StepError):
    """A pattern's content is wrong; for projects to raise from filters and functions.

    Example: `raise PatternError("bloom.toml: node 'mirror'", "unknown kind 'miror'")`.
    """


class AwaitedError(BaseException):
    """A render reads a file that another task makes, and may not have made yet.

    Not an `Exception`: whatever a template or a function catches, this reaches the runner.

    Args:
        path: of the file, project-relative.
    """

    def __init__(self, path: str):
        self.path = path
        super().__init__(path)


def cause(error: OSError) -> str:
    """Return what the system says of a failed call, as messages have it."""
    return (error.strerror or str(error)).lower()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the known word nearest to `name`, or "" if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def known_or_nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the known word nearest to `name`, or all of them if none is near."""
    words = list(known)
    return nearest(name, words) or f"known: {', '.join(sorted(words))}"


def refuse_unknown(where: str, given: Iterable[str], known: Iterable[str], noun: str) -> None:
    """Raise DeclarationError for the first of `given` that is not `known`.

    The hint names the nearest known word, or lists all of them if none is near.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise DeclarationError(where, f"unknown {noun} '{name}'", known_or_nearest(name, known))
