"""What steps of a kind have read in other runs: under which keys it is kept, and how it is found.

Most steps of a rule read alike but for their own pattern, so what one has read stands under a key
of their kind, with a mark in place of that name; a step that has read otherwise has a key of its
own beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from . import actions
from .actions import ReadSet
from .model import Step
from .store import ACTIONS, Store
from .world import World

if TYPE_CHECKING:
    from .remote.cache import RemoteCache
    from .remote.fence import Fence
    from .remote.worth import Kind


def step_kind(step: Step) -> Kind:
    """Return what steps have in common that read alike."""
    return (step.rule, step.phase, step.link, step.item is None)


class ReadSets:
    """The read sets of one project's steps.

    Args:
        world: the facts.
        store: the user's.
        remote: the remote cache, if there is one that this process may ask.
        fence: tells which of those that come from there may be followed.
    """

    def __init__(self, world: World, store: Store, remote: RemoteCache | None, fence: Fence | None):
        self._world = world
        self._store = store
        self._remote = remote
        self._fence = fence
        self._shared: dict[str, list[ReadSet]] = {}
        self._keys: dict[Kind, str] = {}

    def forget(self) -> None:
        """Look again from now on: others may have come to know more."""
        self._shared.clear()

    # Keys -------------------------------------------------------------------------------

    def shared_key(self, step: Step) -> str:
        """Return the key of what is read alike, the same for all steps of a kind."""
        kind = step_kind(step)
        if kind not in self._keys:
            declared = self._world.declared(step)
            self._keys[kind] = actions.shared_key(step, declared, _machine(step))
        return self._keys[kind]

    def own_key(self, step: Step) -> str:
        """Return the key of what only this step has read; its results' keys are made of it."""
        return actions.own_key(step, self._world.declared(step), _machine(step))

    def _first_key(self, step: Step) -> str:
        """Return the key under which a step's read sets are looked for first."""
        return self.shared_key(step) if actions.own_name(step) else self.own_key(step)

    # Finding ----------------------------------------------------------------------------

    def expect(self, steps: Sequence[Step]) -> None:
        """Ask the remote cache, in one go, for what some steps may read."""
        if self._remote is None:
            return
        self._remote.fetch_sets([self._first_key(step) for step in steps])
        self._remote.fetch_sets([self.own_key(step) for step in steps if self._has_own_there(step)])

    def of(self, step: Step) -> Iterator[ReadSet]:
        """Yield what a step may read, as other runs have: likely sets first."""
        yield from self._here(step)
        yield from (one for one in self._there(step) if self._is_followed(step, one))

    def _here(self, step: Step) -> Iterator[ReadSet]:
        name = actions.own_name(step)
        alike = self._alike(step) if name else []
        common = [actions.owned(one, name) for one in alike]
        if name and len(alike) < actions.SETS:  # else it is more likely that its own is right
            yield from common
        if not name or len(alike) > 1:
            own = self._under(self.own_key(step))
            yield from own
            if len(alike) >= actions.SETS:
                yield from (one for one in common if one not in own)

    def _there(self, step: Step) -> Iterator[ReadSet]:
        if self._remote is None or not self._remote.answers:
            return
        name = actions.own_name(step)
        if self._has_own_there(step):
            yield from self._remote.sets(self.own_key(step))
        if name:
            for one in self._remote.sets(self.shared_key(step)):
                yield actions.owned(one, name)

    def _has_own_there(self, step: Step) -> bool:
        """Tell whether the remote cache may have more than the sets of its kind."""
        if self._remote is None or not actions.own_name(step):
            return True
        return len(self._remote.sets(self.shared_key(step))) >= actions.SETS

    def _is_followed(self, step: Step, reads: ReadSet) -> bool:
        """Tell whether a read set holds all that the step declares, and may be followed."""
        declared = set(self._world.declared(step))
        if not declared.issubset((kind, name) for kind, name, _ in reads):
            return False
        return self._fence is None or self._fence.admits(reads, declared)

    def _alike(self, step: Step) -> list[ReadSet]:
        """Return the read sets that a step shares with others of its kind, if they are here."""
        key = self.shared_key(step)
        if key not in self._shared:
            self._shared[key] = self._under(key)
        return self._shared[key]

    def _under(self, key: str) -> list[ReadSet]:
        raw = self._store.get(ACTIONS, key)
        return actions.sets_in(raw) if raw is not None else []

    # Keeping ----------------------------------------------------------------------------

    def keep(self, step: Step, own: str, reads: ReadSet) -> int:
        """Keep what a step read: with others' of its kind, and apart if the first read unlike.

        Args:
            step: that has run.
            own: its `own_key`.
            reads: what it has read.

        Returns:
            By how many bytes the store has grown.

        Raises:
            StepError: the store cannot be written.
        """
        name, size = actions.own_name(step), 0
        if name:
            alike, key = actions.shared(reads, name), self.shared_key(step)
            if alike not in self._alike(step):
                # Another process may have come to know more.
                sets = self._shared[key] = actions.with_newest(self._under(key), alike)
                size = self._store.put(ACTIONS, key, actions.written_sets(sets))
            if alike == self._shared[key][-1]:
                return size
        known = self._under(own)
        if reads in known:
            return size
        listed = actions.with_newest(known, reads)
        return size + self._store.put(ACTIONS, own, actions.written_sets(listed))

    def send(self, step: Step, own: str, reads: ReadSet) -> None:
        """Have the remote cache know what a step read; as `keep`."""
        if self._remote is None:
            return
        name = actions.own_name(step)
        if name:
            alike, key = actions.shared(reads, name), self.shared_key(step)
            self._remote.send_set(key, alike)
            if alike == self._remote.sets(key)[-1]:
                return
        self._remote.send_set(own, reads)


def _machine(step: Step) -> str:
    """Return what of the machine shapes a step's outputs, though no input says it."""
    if not step.starts_program:
        return ""
    posix = hasattr(os, "uname")
    machine = os.uname().machine if posix else os.environ.get("PROCESSOR_ARCHITECTURE", "")
    return f"{sys.platform} {machine}"
