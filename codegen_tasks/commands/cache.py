"""doit cache: what the caches hold, and how to make them hold less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from ..build import Build
from ..bytecode import figures
from ..errors import nearest
from ..steps import template_cache
from .common import builds_of, counted, options_first, sized

_ACTIONS = ("status", "cleanup", "verify", "clear")


class Cache(DoitCmdBase):
    """The template cache: status, cleanup, verify, clear."""

    name = "cache"
    doc_purpose = "show or clean the template cache"
    doc_usage = "status | cleanup [KEEP] | verify | clear"
    doc_description = (
        "status: entries, bytes, hits, misses, time saved. cleanup: keep the KEEP newest "
        "generations of each template. verify: remove entries that cannot be used. clear: "
        "remove all."
    )

    def _execute(self, pos_args: list[str]) -> int:
        _, words = self.cmdparser.parse(options_first(self.cmdparser, pos_args))
        action = words[0] if words else "status"
        if action not in _ACTIONS:
            hint = nearest(action, _ACTIONS) or f"one of {', '.join(_ACTIONS)}"
            raise InvalidCommand(f"cache: unknown action '{action}', {hint}")
        if len(words) > (2 if action == "cleanup" else 1):
            raise InvalidCommand(f"cache {action}: too many arguments")
        for build in builds_of(self.loader):
            getattr(self, f"_{action}")(build, words[1:])
        return 0

    def _say(self, line: str) -> None:
        self.outstream.write(line + "\n")

    def _status(self, build: Build, words: Sequence[str]) -> None:
        entries = template_cache(build.project).entries()
        size = sum(entry.size for entry in entries)
        templates = len({entry.template for entry in entries})
        log = figures(build.project.full(build.project.cache_log))
        self._say(
            f"templates: {_entries(len(entries))} of {counted(templates, 'template')},"
            f" {sized(size)}"
        )
        total = log.hits + log.misses
        rate = f" ({100 * log.hits / total:.0f} %)" if total else ""
        misses = "1 miss" if log.misses == 1 else f"{log.misses} misses"
        self._say(f"{counted(log.hits, 'hit')}{rate}, {misses}, {log.saved:.0f} ms saved")
        if not build.project.settings.template_cache:
            self._say("the template cache is off")

    def _cleanup(self, build: Build, words: Sequence[str]) -> None:
        keep = build.project.settings.cache_generations
        if words:
            if not words[0].isdigit():
                raise InvalidCommand(f"cache cleanup: KEEP must be a number, not '{words[0]}'")
            keep = int(words[0])
        removed = template_cache(build.project).cleanup(keep)
        size = sum(entry.size for entry in removed)
        kept = f"{keep} newest kept of each template"
        self._say(f"{_entries(len(removed))} removed, {sized(size)}, {kept}")

    def _verify(self, build: Build, words: Sequence[str]) -> None:
        from .. import disk

        cache = template_cache(build.project)
        total, broken = len(cache.entries()), cache.broken()
        for entry in broken:
            disk.remove(entry.path)
            self._say(f"{entry.template}: {entry.path} cannot be used, removed")
        self._say(f"{_entries(total)} verified, {len(broken)} removed")

    def _clear(self, build: Build, words: Sequence[str]) -> None:
        self._say(f"{_entries(template_cache(build.project).clear())} removed")


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


__all__: list[Any] = ["Cache"]
