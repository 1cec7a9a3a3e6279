"""The output cache: results of steps from earlier builds, found again and kept.

A result is taken only if all its inputs are now what they were, by the same facts that decide
whether a target is stale; so it is what the step would make.  A store that cannot be read or
written, or holds anything else, is a miss.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

from . import actions, digest, disk
from .actions import ReadSet, Stored
from .errors import CodegenError
from .model import PATH_KINDS, Input, Result, Step, Trace
from .project import Project
from .store import ACTIONS, CONTENTS, Held, Store, default_folder
from .world import World

#: After so many steps of a kind that were made as soon as restored, and none that was found, no
#: further ones are looked for.
_QUICK = 8
#: What became of a step, as `Outcome.cached` says it; anything else is why it was not kept.
RESTORED, KEPT = "restored", "kept"


#: What steps have in common that read alike: rule, phase, link, whether each has an item.
_Kind: TypeAlias = tuple[str, str, int, bool]


def _kind(step: Step) -> _Kind:
    return (step.rule, step.phase, step.link, step.item is None)


def store_of(project: Project) -> Store:
    """Return the store that a project's settings name."""
    named = os.path.expanduser(project.settings.output_cache_folder)
    return Store(os.path.join(project.root, named) if named else default_folder())


def is_sound(held: Held) -> bool:
    """Tell whether a file of a store is one that could be used; one that is gone is."""
    try:
        raw = disk.read(held.path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if held.kind == CONTENTS:
        return digest.of_bytes(raw) == held.name
    return actions.stored_in(raw) is not None or bool(actions.sets_in(raw))


class OutputCache:
    """The results that one process finds and keeps for one project.

    Args:
        project: what was declared.
        world: the facts.
    """

    def __init__(self, project: Project, world: World):
        self._project = project
        self._world = world
        self._store = store_of(project)
        self._shared: dict[str, list[ReadSet]] = {}
        self._keys: dict[_Kind, str] = {}
        self._roots = {os.fsencode(project.root), os.fsencode(os.path.realpath(project.root))}
        self._quick: Counter[_Kind] = Counter()  # in a row
        self._unwritable = False

    # Finding ----------------------------------------------------------------------------

    def find(self, step: Step, guard: Callable[[str], None] | None = None) -> Result | None:
        """Return what a step would make, if that is known; None if it is not.

        Args:
            step: to be run.
            guard: is called with each path that is about to be read; may raise.
        """
        own, kind = "", _kind(step)
        if self._quick[kind] >= _QUICK:
            return None
        for reads in self._read_sets(step):
            own = own or self._own_key(step)
            digests = self._now(step, reads, guard)
            found = self._stored(actions.result_key(own, reads, digests))
            if found is not None and actions.answers(found, step, reads, digests):
                result = self._complete(found)
                if result is not None:
                    self._quick[kind] = 0
                    return result
        return None

    def _read_sets(self, step: Step) -> Iterator[ReadSet]:
        """Yield what the step may read, as other runs have: likely sets first."""
        name = actions.own_name(step)
        alike = self._alike(step) if name else []
        common = [actions.owned(one, name) for one in alike]
        if name and len(alike) < actions.SETS:  # else it is more likely that its own is right
            yield from common
        if not name or len(alike) > 1:
            own = self._sets(self._own_key(step))
            yield from own
            if len(alike) >= actions.SETS:
                yield from (one for one in common if one not in own)

    def _alike(self, step: Step) -> list[ReadSet]:
        """Return the read sets that a step shares with others of its rule."""
        key = self._shared_key(step)
        if key not in self._shared:
            self._shared[key] = self._sets(key)
        return self._shared[key]

    def _shared_key(self, step: Step) -> str:
        """Return the key of these, the same for all steps of a rule that have one own name."""
        kind = _kind(step)
        if kind not in self._keys:
            declared = self._world.declared(step)
            self._keys[kind] = actions.shared_key(step, declared, self._machine(step))
        return self._keys[kind]

    def _own_key(self, step: Step) -> str:
        return actions.own_key(step, self._world.declared(step), self._machine(step))

    def _sets(self, key: str) -> list[ReadSet]:
        raw = self._store.get(ACTIONS, key)
        return actions.sets_in(raw) if raw is not None else []

    def _now(self, step: Step, reads: ReadSet, guard: Callable[[str], None] | None) -> list[str]:
        digests = []
        for kind, name, keys in reads:
            if guard is not None and kind in PATH_KINDS:
                guard(name)
            digests.append(self._world.current(step, Input(kind, name, "", reads=keys))[0])
        return digests

    def _stored(self, key: str) -> Stored | None:
        raw = self._store.get(ACTIONS, key)
        return actions.stored_in(raw) if raw is not None else None

    def _complete(self, found: Stored) -> Result | None:
        beside: dict[str, bytes] = {}
        like: dict[str, str] = {}
        for one in found.contents:
            if one.data is None:
                data = self._store.content(one.digest)
                if data is None:
                    return None
                beside[one.digest] = data
                like[one.path] = self._store.path(CONTENTS, one.digest)
        return replace(actions.complete(found, beside), like=like)

    # Keeping ----------------------------------------------------------------------------

    def keep(self, step: Step, trace: Trace, result: Result) -> tuple[str, int]:
        """Keep what a step came to; return `KEPT`, or why not, and how many bytes that took.

        Args:
            step: that has run.
            trace: what it read, with the signatures of its files.
            result: the same without them, and what it made.
        """
        why = self._unfit(step, trace, result)
        if why:
            return why, 0
        record, beside = actions.written(result)
        own = self._own_key(step)
        reads = actions.read_set(trace.inputs)
        key = actions.result_key(own, reads, [item.digest for item in trace.inputs])
        try:
            size = sum(self._store.put(CONTENTS, name, data) for name, data in beside.items())
            size += self._store.put(ACTIONS, key, record)
            size += self._keep_reads(step, own, reads)
        except CodegenError as error:
            self._say_unwritable(error)
            return error.what, 0
        return KEPT, size

    def _unfit(self, step: Step, trace: Trace, result: Result) -> str:
        """Return why a result is not to be kept; "" if it is."""
        least = self._project.settings.output_cache_milliseconds
        quick = result.seconds * 1000 < least
        self._quick[_kind(step)] += quick
        if quick:
            return f"took less than {least} ms"
        if self._store.fault:
            return f"the folder {self._store.fault}"
        said = (*result.outputs.values(), result.printed.encode("utf-8", "replace"))
        if any(root in data for data in said for root in self._roots):
            return "holds the path of the checkout"
        if actions.torn(trace.inputs) or not self._still(step, trace.inputs):
            return "an input changed meanwhile"
        return ""

    def _still(self, step: Step, inputs: Iterable[Input]) -> bool:
        """Tell whether all files are what they were when they were read."""
        return all(
            self._world.current(step, item)[0] == item.digest
            for item in inputs
            if item.kind in PATH_KINDS
        )

    def _keep_reads(self, step: Step, own: str, reads: ReadSet) -> int:
        """Keep what the step read: with others' of its rule, and apart if the first read unlike."""
        name, size = actions.own_name(step), 0
        if name:
            alike, key = actions.shared(reads, name), self._shared_key(step)
            if alike not in self._alike(step):
                # Another process may have come to know more.
                sets = self._shared[key] = actions.with_newest(self._sets(key), alike)
                size = self._store.put(ACTIONS, key, actions.written_sets(sets))
            if alike == self._shared[key][-1]:
                return size
        known = self._sets(own)
        if reads in known:
            return size
        return size + self._store.put(
            ACTIONS, own, actions.written_sets(actions.with_newest(known, reads))
        )

    def _say_unwritable(self, error: CodegenError) -> None:
        if not self._unwritable and sys.__stderr__ is not None:
            line = f"{error.where}: {error.what}, so outputs are not kept for other builds"
            print(line, file=sys.__stderr__, flush=True)
        self._unwritable = True

    def _machine(self, step: Step) -> str:
        """Return what of the machine shapes a step's outputs, though no input says it."""
        if not step.starts_program:
            return ""
        posix = hasattr(os, "uname")
        machine = os.uname().machine if posix else os.environ.get("PROCESSOR_ARCHITECTURE", "")
        return f"{sys.platform} {machine}"
