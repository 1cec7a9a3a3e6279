"""doit prune: removes what no rule makes any more, if we made it and nobody edited it."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from .. import orphans
from ..build import Build
from ..errors import StepError, cause
from ..orphans import Orphan
from ..tasks import hold
from .common import claimed, counted, options_first, planned, say_whatever_the_encoding
from .helped import Ours
from .piped import Piped

_OPT_DRY_RUN = {
    "name": "dry_run",
    "short": "n",
    "long": "dry-run",
    "type": bool,
    "default": False,
    "help": "only tell what would be removed",
}
_OPT_EDITED = {
    "name": "edited",
    "long": "edited",
    "type": bool,
    "default": False,
    "help": "remove files edited by hand too, after they were kept aside",
}


class Prune(Piped, Ours, DoitCmdBase):
    """Removes orphans: files, and what is remembered of them."""

    name = "prune"
    doc_purpose = "remove files that no rule makes any more"
    doc_usage = ""
    doc_description = (
        "Removes only what we made ourselves, as recorded. A file edited by hand is named and "
        "left alone. Exits with 1 if a file cannot be removed."
    )
    examples = (("--dry-run", "only tell what would be removed"),)
    cmd_options = (_OPT_DRY_RUN, _OPT_EDITED)

    def _execute(self, pos_args: list[str], dry_run: bool, edited: bool) -> int:
        say_whatever_the_encoding()
        params, names = self.cmdparser.parse(options_first(self.cmdparser, pos_args))
        if names:
            raise InvalidCommand(f"`prune` takes no names, such as '{names[0]}'")
        self._dry = dry_run or params["dry_run"]
        self._edited = edited or params["edited"]
        builds = planned(self)
        taken = claimed(self.task_list)
        for build in builds:
            if not self._dry:
                hold(build, self.dep_manager)
        codes = [self._prune(build, taken) for build in builds]
        if not self._dry:
            self.dep_manager.close()
        return max(codes, default=0)

    def _prune(self, build: Build, taken: Collection[str]) -> int:
        found = orphans.find(build, self.dep_manager, taken)
        chosen = [orphan for orphan in found if self._edited or not orphan.edited]
        if self._dry:
            for orphan in chosen:
                self._say(f"{orphan.path}: would be removed")
        gone = {orphan.path for orphan in chosen if self._dry or self._removed(build, orphan)}
        left = [orphan for orphan in found if orphan not in chosen]
        for orphan in left:
            self._say(f"{orphan.path}: edited by hand, left alone")
        if not self._dry:
            known = orphans.find(build, self.dep_manager, taken, doubtful=True)
            staying = {orphan.path for orphan in [*found, *known]} - gone
            orphans.forget(build, self.dep_manager, staying)
        self._say(_summary(len(gone), len(left), self._dry))
        for path in sorted(build.plan.unread):
            self._say(f"  {path}: does not tell its targets, so none of them is an orphan")
        if left:
            self._say("  hint: doit prune --edited keeps them aside and removes them")
        return int(len(gone) < len(chosen))

    def _removed(self, build: Build, orphan: Orphan) -> bool:
        """Remove an orphan and say so; False if it cannot be removed."""
        try:
            kept = orphans.remove(build, orphan)
        except StepError as error:
            print(error, file=sys.stderr)
            return False
        except OSError as error:
            print(f"{orphan.path}: cannot be removed: {cause(error)}", file=sys.stderr)
            return False
        how = f"was edited by hand, kept aside as {kept}, removed" if kept else "removed"
        self._say(f"{orphan.path}: {how}")
        return True

    def _say(self, line: str) -> None:
        out: Any = self.outstream
        # A file's name may be bytes that are no text.
        out.write(line.encode("utf-8", "backslashreplace").decode() + "\n")


def _summary(gone: int, left: int, dry: bool) -> str:
    if not gone and not left:
        return "no orphans"
    removed = f"{counted(gone, 'orphan')} {'to remove' if dry else 'removed'}"
    return f"{removed}, {left} left alone" if left else removed
