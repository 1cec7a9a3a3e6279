"""doit where: which template line, and which keys of which pattern, made a place of a target."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from .. import disk
from ..errors import nearest
from .common import options_first, planned, say_whatever_the_encoding

if TYPE_CHECKING:
    from ..build import Build

#: A place in a text: a path or URL, a line, perhaps a column.
_PLACE = re.compile(r"(?P<path>[^\s()'\"<>]+?):(?P<line>\d+)(?::(?P<column>\d+))?(?![\w:])")
_PYTHON = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+)(?P<column>)')


class Where(DoitCmdBase):
    """Tells what made a place of a target."""

    name = "where"
    doc_purpose = "tell which template line and pattern keys made a place of a target"
    doc_usage = "TARGET:LINE[:COLUMN] ... | -"
    doc_description = (
        "Renders the file once more, in memory, and tells the template's line, who led there, and "
        "the keys of the pattern; for what was compiled with a source map, too. '-' copies "
        "standard input, such as a stack trace, and tells it of each place there. Exits with 1 if "
        "it cannot be told."
    )

    def _execute(self, pos_args: list[str]) -> int:
        say_whatever_the_encoding()
        _, names = self.cmdparser.parse(options_first(self.cmdparser, pos_args))
        if not names:
            raise InvalidCommand(f"where: name a place, such as {'generated/a.ts:12:5'}")
        builds = planned(self)
        if names == ["-"]:
            return self._annotate(builds)
        return max(self._tell(builds, name) for name in names)

    def _tell(self, builds: Sequence[Build], name: str) -> int:
        match = _PLACE.fullmatch(name)
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
        if not lines:
            print(f"{name}: there is no such place, or no map that leads from it", file=sys.stderr)
            return 1
        self._say(name)
        for line in lines:
            self._say(f"  {line}")
        return int(lines[-1].startswith("what made this cannot be told"))

    def _annotate(self, builds: Sequence[Build]) -> int:
        found = False
        for line in sys.stdin:
            self._say(line.rstrip("\n"))
            for match in (*_PYTHON.finditer(line), *_PLACE.finditer(line)):
                indent = re.match(r"\s*", line)
                told = list(_told(builds, _relative(builds, match["path"]), match))
                found = found or bool(told)
                for each in told:
                    self._say(f"{indent[0] if indent else ''}  {each}")
        return int(not found)

    def _say(self, line: str) -> None:
        self.outstream.write(f"{line}\n")


def _relative(builds: Sequence[Build], path: str) -> str:
    """Return a path or file URL as plans have it."""
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    for build in builds[:1]:
        if os.path.isabs(path):
            return disk.relative(os.path.realpath(path), os.path.realpath(build.project.root))
    return os.path.normpath(path).replace(os.sep, "/")


def _told(builds: Sequence[Build], path: str, match: re.Match[str]) -> Iterator[str]:
    """Yield what is told of a place, and keep the map that tells it."""
    column = int(match["column"] or 0)
    for build in builds:
        if path in build.plan.makers:
            origins, root = build.workshop.origins, build.project.root
            yield from origins.told(path, int(match["line"]), root, lambda _: column)
            origins.keep(path)
