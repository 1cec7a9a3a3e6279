"""doit where: which template line, and which keys of which pattern, made a place of a target."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from .. import disk
from ..dressed import dressed_for
from ..errors import cause, nearest
from . import annotate
from .common import options_first, planned, say_whatever_the_encoding
from .helped import Ours
from .piped import Piped

if TYPE_CHECKING:
    from ..build import Build

_EMPTY = "the line is empty"
#: What a command comes to that is not there, or cannot be run; of shells.
_NOT_FOUND, _NOT_RUNNABLE = 127, 126


class Where(Piped, Ours, DoitCmdBase):
    """Tells what made a place of a target."""

    name = "where"
    doc_purpose = "tell which template line and pattern key made a place"
    doc_usage = "TARGET:LINE[:COLUMN] ... | - | -- PROGRAM ..."
    doc_description = (
        "Renders the file once more, in memory, and tells the template's line, who led there, and "
        "the keys of the pattern; for what was compiled with a source map, too. '-' copies "
        "standard input, such as a stack trace, and tells it of each place there. What comes "
        "after '--' is run, its output copied in the same way, and its exit code returned. "
        "Otherwise exits with 1 if it cannot be told."
    )
    examples = (
        ("generated/bloom.ts:12:5", "what made this character"),
        ("-- deno run generated/bloom.js", "run it, its errors explained"),
        ("- < trace.txt", "explain a stack trace"),
    )
    #: What is to be run.
    command: Sequence[str] | None = None

    def parse_execute(self, in_args: Sequence[str]) -> Any:
        """Execute as core does; what follows `--` is nothing of ours."""
        given = list(in_args)
        if "--" in given:
            place = given.index("--")
            self.command = annotate.arguments_of(given[place + 1 :])
            del given[place:]
        return super().parse_execute(given)

    def _execute(self, pos_args: list[str]) -> int:
        say_whatever_the_encoding()
        _, names = self.cmdparser.parse(options_first(self.cmdparser, pos_args))
        if self.command is not None:
            return self._run(self.command, names)
        if not names:
            raise InvalidCommand(f"where: name a place, such as {'generated/a.ts:12:5'}")
        builds = planned(self)
        if names == ["-"]:
            copy = annotate.Annotator(self.outstream, _Teller(builds))
            for data in annotate.read_in(sys.stdin.buffer):
                copy.add(data)
            copy.end()
            return int(not copy.found)
        return max(self._tell(builds, name) for name in names)

    def _run(self, command: Sequence[str], names: Sequence[str]) -> int:
        if names or not command:
            raise InvalidCommand("where: after -- comes a command, before it nothing")
        tell = _Teller(planned(self))
        out, err = (annotate.Annotator(one, tell) for one in (self.outstream, sys.stderr))
        try:
            return annotate.ran(command, out, err)
        except OSError as error:
            print(f"where: cannot run '{command[0]}': {cause(error)}", file=sys.stderr)
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUNNABLE

    def _tell(self, builds: Sequence[Build], name: str) -> int:
        match = annotate.PLACE.fullmatch(name)
        if match is None:
            raise InvalidCommand(f"where: '{name}' is not like generated/a.ts:12 or …:12:5")
        known = {target for build in builds for target in build.plan.makers}
        path = _relative(builds, match["path"])
        for build in builds:  # as `doit info` takes it: the path below the output folder
            below = f"{build.project.output}/{path}"
            path = below if path not in known and below in known else path
        if path not in known:
            hint = nearest(path, known)
            print(f"{path}: is no target of ours{f', {hint}' if hint else ''}", file=sys.stderr)
            return 1
        lines = list(_told(builds, path, match))
        empty = any(_is_blank(build.project.full(path), match) for build in builds)
        if not lines:
            what = "there is no such place, or no map that leads from it"
            print(f"{name}: {_EMPTY if empty else what}", file=sys.stderr)
            return 1
        lines = [_EMPTY, *lines] if empty else lines
        self._say(name)
        for line in lines:
            self._say(f"  {line}")
        return int(lines[-1].startswith("what made this cannot be told"))

    def _say(self, line: str) -> None:
        self.outstream.write(f"{dressed_for(self.outstream, line)}\n")


class _Teller:
    """Tells of places in a text; what was told before, in short."""

    def __init__(self, builds: Sequence[Build]):
        self._builds = builds
        self._told: dict[tuple[str, str, str], list[str]] = {}
        self._tails: dict[str, list[str]] | None = None

    def __call__(self, match: re.Match[str]) -> Sequence[str]:
        path = self._path(match["path"])
        place = (path, match["line"], match["column"] or "")
        if place not in self._told:
            lines = list(_told(self._builds, path, match))
            self._told[place] = [line for line in lines if line.startswith("by ")]
            return lines
        return self._told[place]

    def _path(self, named: str) -> str:
        """Return the target that is meant: one alone may be named by the end of its path."""
        path = _relative(self._builds, named)
        targets = [build.plan.makers for build in self._builds]
        if any(path in makers for makers in targets) or os.path.exists(named):
            return path
        if "://" in named:
            path = unquote(urlsplit(named).path).lstrip("/")
        elif os.path.isabs(named):
            return path
        if self._tails is None:
            self._tails = {}
            for target in (target for makers in targets for target in makers):
                self._tails.setdefault(posixpath.basename(target), []).append(target)
        found = [
            target
            for target in self._tails.get(posixpath.basename(path), [])
            if f"/{target}".endswith(f"/{path}") or f"/{path}".endswith(f"/{target}")
        ]
        return found[0] if len(found) == 1 else path


def _relative(builds: Sequence[Build], path: str) -> str:
    """Return a path or file URL as plans have it."""
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    for build in builds[:1]:
        if os.path.isabs(path):
            return disk.relative(os.path.realpath(path), os.path.realpath(build.project.root))
    return os.path.normpath(path).replace(os.sep, "/")


def _is_blank(full: str, match: re.Match[str]) -> bool:
    """Tell whether a file has a line in which nothing stands."""
    with contextlib.suppress(OSError):
        lines = disk.read(full).removesuffix(b"\n").split(b"\n")
        number = int(match["line"])
        return 0 < number <= len(lines) and not lines[number - 1].strip()
    return False


def _told(builds: Sequence[Build], path: str, match: re.Match[str]) -> Iterator[str]:
    """Yield what is told of a place, and keep the map that tells it."""
    column = int(match["column"] or 0)
    for build in builds:
        if path in build.plan.makers:
            origins, root = build.workshop.origins, build.project.root
            yield from origins.told(path, int(match["line"]), root, lambda _: column)
            origins.keep(path)
