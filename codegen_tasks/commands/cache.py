"""doit cache: what the caches hold, and how to make them hold less."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from .. import disk, misses, outputs, savings
from ..build import Build
from ..bytecode import Entry, figures, remove
from ..errors import nearest
from ..model import Step
from ..outputs import store_of
from ..savings import Savings
from ..steps import template_cache
from ..store import ACTIONS, CONTENTS, Store
from ..traffic import Traffic
from .common import builds_of, counted, options_first, sized
from .helped import Ours
from .piped import Piped

_ACTIONS = ("status", "cleanup", "verify", "clear", "why")
#: So many words each takes beside its name, at most.
_WORDS = {"cleanup": 1, "why": 1}


class Cache(Piped, Ours, DoitCmdBase):
    """The caches of templates and outputs: status, cleanup, verify, clear, why."""

    name = "cache"
    doc_purpose = "show or clean the caches of templates and outputs"
    doc_usage = "status | cleanup [KEEP] | verify | clear | why TARGET"
    doc_description = (
        "status: entries, bytes, hits, misses, time saved. cleanup: keep the KEEP newest "
        "generations of each template, and of outputs what is neither too old nor too much. "
        "verify: read every entry, remove those that cannot be used. clear: remove all; outputs "
        "are kept for all checkouts of the user. A remote cache is only looked at. Exits with 1 "
        "if something cannot be removed. why: in what the nearest result that is kept differs from "
        "what TARGET would be made of now."
    )
    words = _ACTIONS
    examples = (
        ("status", "hits, misses, and the time they saved"),
        ("cleanup 2", "keep the two newest of each template"),
        ("why bloom.ts", "what has changed since it was kept"),
    )

    def _execute(self, pos_args: list[str]) -> int:
        _, words = self.cmdparser.parse(options_first(self.cmdparser, pos_args))
        action = words[0] if words else "status"
        if action not in _ACTIONS:
            hint = nearest(action, _ACTIONS) or f"one of {', '.join(_ACTIONS)}"
            raise InvalidCommand(f"cache: unknown action '{action}', {hint}")
        if len(words) - 1 > _WORDS.get(action, 0):
            raise InvalidCommand(f"cache {action}: too many arguments")
        if action == "why":
            return self._why(words[1:])
        act = getattr(self, f"_{action}")
        builds = builds_of(self.loader)
        code = max((act(build, words[1:]) for build in builds), default=0)
        used = [b for b in builds if b.project.settings.output_cache or action == "status"]
        stores = {(store := store_of(build.project)).folder: (store, build) for build in used}
        of_store = getattr(self, f"_{action}_outputs")
        code = max([code, *(int(of_store(store, build)) for store, build in stores.values())])
        for build in {build.project.settings.remote_cache: build for build in builds}.values():
            self._say_remote(build, action)
        return code

    def _say(self, line: str) -> None:
        self.outstream.write(line + "\n")

    def _say_left(self, build: Build, left: Sequence[Entry]) -> int:
        """Name what should have been removed and is still there; return the exit code."""
        for entry in left:
            self._say(f"{_shown(build, entry)}: cannot be removed")
        return int(bool(left))

    def _status(self, build: Build, words: Sequence[str]) -> int:
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
        elif fault := template_cache(build.project).fault():
            self._say(f"{fault}, so the template cache is not used")
        return 0

    def _cleanup(self, build: Build, words: Sequence[str]) -> int:
        keep = build.project.settings.cache_generations
        if words:
            if not words[0].isdigit():
                raise InvalidCommand(f"cache cleanup: KEEP must be a number, not '{words[0]}'")
            keep = int(words[0])
        cache = template_cache(build.project)
        removed = cache.cleanup(keep)
        size = sum(entry.size for entry in removed)
        kept = f"{keep} newest kept of each template"
        self._say(f"{_entries(len(removed))} removed, {sized(size)}, {kept}")
        return self._say_left(build, cache.surplus(keep))

    def _verify(self, build: Build, words: Sequence[str]) -> int:
        cache = template_cache(build.project)
        total, broken = len(cache.entries()), cache.broken()
        gone = [entry for entry in broken if remove(entry)]
        for entry in gone:
            self._say(f"{_shown(build, entry)}: cannot be used, removed")
        self._say(f"{_entries(total)} verified, {len(gone)} removed")
        return self._say_left(build, [entry for entry in broken if os.path.lexists(entry.path)])

    def _clear(self, build: Build, words: Sequence[str]) -> int:
        cache = template_cache(build.project)
        self._say(f"{_entries(cache.clear())} removed")
        return self._say_left(build, cache.entries())

    # Outputs ----------------------------------------------------------------------------

    def _status_outputs(self, store: Store, build: Build) -> int:
        settings = build.project.settings
        found = Counter(one.kind for one in store.held())
        size = sum(one.size for one in store.held())
        self._say(
            f"outputs: {counted(found[ACTIONS] + found[CONTENTS], 'file')},"
            f" {sized(size)} of {sized(settings.output_cache_bytes)}, in {_homely(store.folder)}"
        )
        for each in builds_of(self.loader):
            self._say_savings(savings.load(each.project))
        if not settings.output_cache:
            self._say("the output cache is off")
        elif store.fault:
            self._say(f"{store.folder}: {store.fault}, so the output cache is not used")
        return 0

    def _say_savings(self, total: Savings) -> None:
        if not total.steps:
            return
        parts = [f"{total.restored} restored", f"{total.kept} kept"]
        parts += [f"{number} not kept: {why}" for why, number in total.unkept.most_common()]
        if total.fetched:
            parts.insert(0, f"{total.fetched} fetched")
        self._say(f"{', '.join(parts)}; {total.seconds:.1f} s saved")

    def _cleanup_outputs(self, store: Store, build: Build) -> int:
        settings = build.project.settings
        size = store.tidy(settings.output_cache_bytes, settings.output_cache_days)
        limits = f"{settings.output_cache_days} days, {sized(settings.output_cache_bytes)}"
        self._say(f"outputs: {sized(size)} removed, kept are {limits}")
        return 0

    def _verify_outputs(self, store: Store, build: Build) -> int:
        total, broken = 0, []
        for one in store.held():
            total += 1
            if not outputs.is_sound(one):
                broken.append(one)
        gone = [one for one in broken if store.remove(one.kind, one.name)]
        for one in gone:
            self._say(f"{one.path}: cannot be used, removed")
        self._say(f"outputs: {counted(total, 'file')} verified, {len(gone)} removed")
        left = [one for one in broken if os.path.lexists(one.path)]
        for one in left:
            self._say(f"{one.path}: cannot be removed")
        return int(bool(left))

    def _clear_outputs(self, store: Store, build: Build) -> int:
        self._say(f"outputs: {counted(store.clear(), 'file')} removed")
        for each in builds_of(self.loader):
            savings.forget(each.project)
        left = list(store.held())
        for one in left:
            self._say(f"{one.path}: cannot be removed")
        return int(bool(left))

    def _why(self, words: Sequence[str]) -> int:
        if not words:
            raise InvalidCommand("cache why: needs a TARGET, a file that is made")
        build, step = self._step(words[0])
        name = step.outputs[0]
        if outputs.OutputCache(build.project, build.world).find(step) is not None:
            made = (
                f", made from {step.source} as it is now"
                if step.source in build.plan.makers
                else ""
            )
            self._say(f"{name}: is in the output cache{made}")
            return 0
        miss = misses.explained(step, store_of(build.project), build.world)
        if not miss.results:
            self._say(f"{name}: the output cache has nothing for it")
            if least := build.project.settings.output_cache_milliseconds:
                self._say(f"  hint: what took less than {least} ms is not kept")
            return 0
        count = counted(miss.results, "result")
        if not miss.reasons:
            self._say(f"{name}: the output cache has {count}, of other machines or declarations")
            return 0
        self._say(f"{name}: the output cache has {count}, the nearest differs:")
        for reason in miss.reasons:
            self._say(f"  {reason}")
        return 0

    def _step(self, name: str) -> tuple[Build, Step]:
        """Return the step of a task, or that makes a target: its path, or that below `output`."""
        builds = builds_of(self.loader)
        known: list[str] = []
        for build in builds:
            plan = build.plan
            for path in (name, f"{build.project.output}/{name}"):
                if path in plan.makers:
                    return build, plan.steps[plan.makers[path]]
            if name in plan.steps and plan.steps[name].phase != "templates":
                return build, plan.steps[name]
            known += plan.makers
        known += [
            path.removeprefix(f"{b.project.output}/") for b in builds for path in b.plan.makers
        ]
        hint = nearest(name, known)
        raise InvalidCommand(f"cache why: no target '{name}'" + (f", {hint}" if hint else ""))

    # The remote cache -------------------------------------------------------------------

    def _say_remote(self, build: Build, action: str) -> None:
        """Say what the remote cache is, or that it is left alone: it is others' too."""
        remote = outputs.remote_of(build.project)
        if remote is None:
            return
        if action != "status":
            self._say(f"remote {remote.address.url}: left alone")
            return
        use = "read and written" if remote.writes else "only read"
        if outputs.lacks_key(build.project.settings):
            use += " (CI writes with a CODEGEN_REMOTE_CACHE_KEY)"
        signed = "signed" if remote.signs else "not signed"
        fault = remote.trouble()
        state = fault.what if fault is not None else "answers"
        self._say(f"remote {remote.address.url}: {state}, {use}, {signed}")
        if fault is not None and fault.hint:
            self._say(f"  hint: {fault.hint}")
        if not build.project.settings.output_cache:
            self._say("the remote cache is off with the output cache")
        for each in builds_of(self.loader):
            self._say_traffic(savings.load(each.project).traffic)

    def _say_traffic(self, traffic: Traffic) -> None:
        if not (traffic.found or traffic.missed or traffic.kept):
            return
        parts = [
            counted(traffic.found, "hit"),
            "1 miss" if traffic.missed == 1 else f"{traffic.missed} misses",
            f"{sized(traffic.received)} received in {traffic.waited:.1f} s",
            f"{counted(traffic.kept, 'result')} sent, {sized(traffic.sent)}",
        ]
        if traffic.unsent:
            parts.append(f"{traffic.unsent} not sent")
        if traffic.foreign:
            parts.append(f"{traffic.foreign} of the misses signed by nobody with this key")
        self._say(", ".join(parts))


def _shown(build: Build, entry: Entry) -> str:
    return disk.relative(entry.path, build.project.root)


def _homely(path: str) -> str:
    """Return a path as people write it who are at home there."""
    home = os.path.expanduser("~") + os.sep
    return "~/" + path.removeprefix(home) if path.startswith(home) else path


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"
