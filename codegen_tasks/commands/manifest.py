"""doit manifest: the manifest's totals, or each file held against its checksum."""

from __future__ import annotations

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from .. import manifest
from ..build import Build
from ..digest import short
from ..errors import nearest
from .common import builds_of, counted, options_first, sized
from .helped import Ours
from .piped import Piped

_ACTIONS = ("status", "verify")


class Manifest(Piped, Ours, DoitCmdBase):
    """The manifest: status, verify."""

    name = "manifest"
    doc_purpose = "show the manifest, or verify files against it"
    doc_usage = "status | verify"
    doc_description = (
        "status: how many files, how large, when last changed. verify: read every file and "
        "compare its checksum; exits with 1 if one differs or is missing."
    )
    words = ("status", "verify")
    examples = (("verify", "are all files what was recorded?"),)

    def _execute(self, pos_args: list[str]) -> int:
        _, words = self.cmdparser.parse(options_first(self.cmdparser, pos_args))
        action = words[0] if words else "status"
        if action not in _ACTIONS or len(words) > 1:
            hint = nearest(action, _ACTIONS) or "one of status, verify"
            raise InvalidCommand(f"manifest: unknown action '{' '.join(words)}', {hint}")
        act = self._status if action == "status" else self._verify
        return max((act(build) for build in builds_of(self.loader)), default=0)

    def _say(self, line: str) -> None:
        # A file's name may be bytes that are no text.
        self.outstream.write(line.encode("utf-8", "backslashreplace").decode() + "\n")

    def _status(self, build: Build) -> int:
        path = build.project.manifest_path
        entries, problem = manifest.read(build.project)
        if problem:
            self._say(f"{path}: {problem}; the next doit makes it anew")
            return 0
        if not entries:
            self._say(f"{path}: no files yet")
            return 0
        size = sum(int(entry["size"]) for entry in entries.values())
        newest = max(str(entry["last_compiled"]) for entry in entries.values())
        self._say(f"{path}: {counted(len(entries), 'file')}, {sized(size)}, newest {newest}")
        return 0

    def _verify(self, build: Build) -> int:
        entries, problem = manifest.read(build.project)
        if problem:
            self._say(f"{build.project.manifest_path}: {problem}; the next doit makes it anew")
            return 1
        results = manifest.verify(build.project, entries)
        bad = [result for result in results if result.state != "ok"]
        for result in bad:
            found = f": {short(result.expected)} → {short(result.found)}" if result.found else ""
            self._say(f"{result.path}: {result.state}{found}")
        total = counted(len(results), "file")
        self._say(f"{len(bad)} of {total} differ" if bad else f"{total} verified, all as recorded")
        return int(bool(bad))
