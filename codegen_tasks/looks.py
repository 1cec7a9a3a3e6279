"""What steps would read, as it is now: each thing looked at once, for as long as nothing changes.

Digests and signatures are those by which staleness is decided, see `world`; here they are put
together for the keys of the output cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from . import actions
from .actions import ReadSet
from .keys import Reads
from .model import DATA_KINDS, PATH_KINDS, Input, Stat, Step
from .patterns import EXPLAINED
from .world import World

#: Kinds of inputs that are looked at once in a run, as a render does: what is declared, and
#: templates.
_ALIKE = frozenset({"rule", "environment", "context", "filter", "test", "function", "global"})
_ALIKE |= {"template", "missing template"}

#: Is called with each path that is about to be read; may raise.
Guard: TypeAlias = Callable[[str], None]
#: Of something that a step would read: its digest, its signature, and what shows it.
_Seen: TypeAlias = tuple[str, Stat | None, str]


@dataclass(frozen=True, slots=True)
class Look:
    """What a step would read, as it is now; a value for each input of a read set.

    Args:
        digests: of each.
        stats: the signatures that files had before they were looked at.
        shown: what explains a change of each later, as it is here: a store could say anything.
        texts: of which `actions.key_of_texts` makes a result's key.
    """

    digests: Sequence[str]
    stats: Sequence[Stat | None]
    shown: Sequence[str]
    texts: tuple[str, ...]

    def __add__(self, other: Look) -> Look:
        return Look(
            (*self.digests, *other.digests),
            (*self.stats, *other.stats),
            (*self.shown, *other.shown),
            self.texts + other.texts,
        )


class Looks:
    """The inputs of one project's steps as they are now.

    Args:
        world: the facts.
    """

    def __init__(self, world: World):
        self._world = world
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._rests: dict[ReadSet, Look | None] = {}
        self._met: dict[tuple[int, Stat | None], tuple[Input, Input]] = {}  # by identity

    def forget(self) -> None:
        """Look again from now on: time may have passed."""
        self._seen.clear()
        self._rests.clear()

    def at(self, step: Step, reads: ReadSet, guard: Guard | None) -> Look:
        """Look at all that a step would read.

        Raises:
            CodegenError, OSError, AwaitedError: something of it cannot be looked at, or not yet.
        """
        if guard is not None:
            for kind, name, _ in reads:
                if kind in PATH_KINDS:
                    guard(name)
        rest = self._rest(step, reads[1:])
        if rest is None:
            return self._all(step, reads)
        return self._all(step, reads[:1]) + rest

    def _rest(self, step: Step, reads: ReadSet) -> Look | None:
        """Return what a step reads beside its own pattern, if all of it is looked at once."""
        if reads not in self._rests:
            alike = bool(reads) and all(kind in _ALIKE for kind, _, _ in reads)
            self._rests[reads] = self._all(step, reads) if alike else None
        return self._rests[reads]

    def _all(self, step: Step, reads: ReadSet) -> Look:
        seen = [self._looked_at(step, *one) for one in reads]
        digests, stats, shown = zip(*seen, strict=True) if seen else ((), (), ())
        return Look(digests, stats, shown, (actions.text_of(reads, digests),))

    def _looked_at(self, step: Step, kind: str, name: str, keys: Reads) -> _Seen:
        if kind in _ALIKE:
            known = self._seen.get((kind, name))
            if known is not None:
                return known
        item = Input(kind, name, "", reads=keys)
        # The signature comes first: what changes in between is then found to be different.
        stat = self._world.signature(step, item)
        content, shown = self._world.current(step, item)
        found = content, stat, shown
        if kind in _ALIKE:
            self._seen[kind, name] = found
        return found

    def signed(self, inputs: Sequence[Input], look: Look) -> tuple[Input, ...]:
        """Return inputs of a result with the signatures with which they were looked at."""
        known = zip(inputs, look.stats, look.shown, strict=True)
        return tuple(self._with(*each) for each in known)

    def _with(self, item: Input, stat: Stat | None, shown: str) -> Input:
        """Return an input as it is here; what steps have in common, as the same object."""
        if not item.shown or (item.kind in DATA_KINDS and len(shown) > EXPLAINED):
            shown = ""
        if item.reads:
            return Input(item.kind, item.name, item.digest, stat, shown, item.reads, item.via)
        known = self._met.get((id(item), stat))
        if known is None:
            same = replace(item, stat=stat, shown=shown)
            known = self._met[id(item), stat] = (item, same)
        return known[1]
