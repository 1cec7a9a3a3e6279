"""The bundles of the output cache: written when a run has kept many results, read at once.

They are no more than a faster way to what `outputs` finds step by step: what cannot be used for
any reason is looked for there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from . import actions, digest, disk
from .bundle import Bundle, Entry, Read, written
from .errors import AwaitedError
from .looks import Guard
from .model import DATA_KINDS, PATH_KINDS, Input, Result, Stat, Step, Trace
from .project import Project
from .store import ACTIONS, CONTENTS, Store
from .world import World

#: So many results are worth a bundle.
WORTH = 64
#: What may be raised by a bundle that is none.
BROKEN = (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError)


class _Opened:
    """A bundle, and what of its inputs was looked at, each once.

    Args:
        bundle: the bundle.
        look: returns an input as it is now; None if it says something else.
    """

    def __init__(self, bundle: Bundle, look: Callable[[Step, Read], Input | None]):
        self.bundle = bundle
        self._look = look
        self._seen: dict[int, tuple[str, Input | None]] = {}  # path, "" if it is no file

    def now(self, step: Step, number: int, guard: Guard | None) -> Input | None:
        """Return an input as it is now; None if it says something else than it did."""
        known = self._seen.get(number)
        if known is None:
            read = self.bundle.read(number)
            path = read.item.name if read.item.kind in PATH_KINDS else ""
            if path and guard is not None:
                guard(path)
            known = self._seen[number] = path, self._look(step, read)
        elif known[0] and guard is not None:
            guard(known[0])
        return known[1]


class Bundles:
    """The bundles of one project's steps, for a time in which no file is changed.

    Args:
        project: what was declared.
        world: the facts.
        store: where they lie.
    """

    def __init__(self, project: Project, world: World, store: Store):
        self._project = project
        self._world = world
        self._store = store
        self._opened: dict[str, list[_Opened]] = {}

    # Finding ----------------------------------------------------------------------------

    def find(self, step: Step, shared: str, guard: Guard | None) -> Result | None:
        """Return what a step would make, if a bundle has it.

        Args:
            step: to be run.
            shared: the `actions.shared_key` of its kind.
            guard: is called with each path that is about to be read; may raise.
        """
        for opened in self.open(shared):
            with contextlib.suppress(*BROKEN, AwaitedError):
                entry = opened.bundle.entry(step)
                found = self._result(step, opened, entry, guard) if entry is not None else None
                if found is not None:
                    return found
        return None

    def open(self, shared: str) -> Sequence[_Opened]:
        """Read the bundles of a kind, once."""
        found = self._opened.get(shared)
        if found is None:
            found = self._opened[shared] = list(self._of(shared))
        return found

    def have(self, step: Step, shared: str) -> bool:
        """Tell whether one has a step, whatever it may have been made of."""
        with contextlib.suppress(*BROKEN):
            return any(one.bundle.entry(step) is not None for one in self.open(shared))
        return False

    def _of(self, shared: str) -> Iterator[_Opened]:
        for name in self._known(actions.bundles_key(shared)):
            raw = self._store.content(name)
            if raw is not None:
                with contextlib.suppress(*BROKEN):
                    yield _Opened(Bundle(raw), self._as_now)

    def _known(self, key: str) -> dict[str, int]:
        raw = self._store.get(ACTIONS, key)
        return actions.bundles_in(raw) if raw is not None else {}

    def _result(
        self,
        step: Step,
        opened: _Opened,
        entry: Entry,
        guard: Guard | None,
    ) -> Result | None:
        inputs = []
        for number in entry.reads:
            item = opened.now(step, number, guard)
            if item is None:
                return None
            inputs.append(item)
        if {one.path for one in entry.contents} != set(step.outputs):
            return None
        filled = self._store.filled(entry.contents)
        if filled is None:
            return None
        outputs, like = filled
        said = (entry.references, entry.printed, entry.seconds)
        return Result(tuple(inputs), outputs, *said, like)

    def _as_now(self, step: Step, read: Read) -> Input | None:
        """Return an input with the signature it has now; None if it says something else."""
        item = read.item
        if item.kind in DATA_KINDS:
            full = self._project.full(item.name)
            try:
                if not self._world.library.holds(full):
                    return None
                raw, stat = disk.read_signed(full)
            except OSError:
                return None
            same = bool(read.raw) and digest.of_bytes(raw) == read.raw
            return replace(item, stat=disk.recorded(stat), shown=_proven(item)) if same else None
        # The signature comes first: what changes in between is then found to be different.
        asked = Input(item.kind, item.name, "", reads=item.reads)
        now = self._world.signature(step, asked)
        content, shown = self._world.current(step, asked)
        if content != item.digest:
            return None
        return replace(item, stat=now, shown=shown if item.shown else "")

    # Keeping ----------------------------------------------------------------------------

    def keep(
        self,
        shared: str,
        made: Iterable[tuple[Step, Trace, Sequence[str], str]],
        unfit: Callable[[Step, Trace, Result], str],
    ) -> tuple[bytes, int]:
        """Keep what steps of one kind came to; return the bundle, and by how much the store grew.

        Args:
            shared: the `actions.shared_key` of the kind.
            made: steps, what is recorded of each, what it refers to, and what it printed.
            unfit: returns why a result is not to be kept, "" if it is.

        Raises:
            StepError: the store cannot be written.
        """
        raws: dict[tuple[str, Stat | None], str] = {}
        results = []
        for step, trace, references, printed in made:
            outputs = self._outputs(trace)
            reads = self._reads(trace, raws) if outputs is not None else None
            if outputs is not None and reads is not None:
                said = (tuple(references), printed, trace.seconds)
                result = Result((), outputs, *said)
                results += [] if unfit(step, trace, result) else [(step, reads, result)]
        if len(results) < WORTH:
            return b"", 0
        data, beside = written(results)
        size = sum(self._store.put(CONTENTS, one, content) for one, content in beside.items())
        return data, size + self.put(shared, data)

    def put(self, shared: str, data: bytes) -> int:
        """Keep a bundle; otherwise as `keep`."""
        name, key = digest.of_bytes(data), actions.bundles_key(shared)
        size = self._store.put(CONTENTS, name, data)
        listed = actions.with_bundle(self._known(key), name, len(Bundle(data)))
        return size + self._store.put(ACTIONS, key, actions.written_bundles(listed))

    def _outputs(self, trace: Trace) -> dict[str, bytes] | None:
        """Return what a step has made; None if it is not there any more."""
        found = {}
        for output in trace.outputs:
            try:
                data = disk.read(self._project.full(output.path))
            except OSError:
                return None
            if digest.of_bytes(data) != output.digest:
                return None
            found[output.path] = data
        return found

    def _reads(self, trace: Trace, raws: dict[tuple[str, Stat | None], str]) -> list[Read] | None:
        """Return what a step has read; None if a file of data is not what it was then."""
        found = []
        for item in trace.inputs:
            raw = ""
            if item.kind in DATA_KINDS:
                known = raws.get((item.name, item.stat))
                raw = raws[item.name, item.stat] = self._raw(item) if known is None else known
                if not raw:
                    return None
            found.append(Read(actions.without_signatures(item), raw))
        return found

    def _raw(self, item: Input) -> str:
        """Return the digest of a file that has not been changed since it was read; else ""."""
        try:
            raw, stat = disk.read_signed(self._project.full(item.name))
        except OSError:
            return ""
        return digest.of_bytes(raw) if stat == item.stat else ""


def _proven(item: Input) -> str:
    """Return what shows what was read of a file of data, if its digest is of that; else ""."""
    said = item.shown.encode("utf-8", "surrogatepass")
    return item.shown if digest.of_bytes(said) == item.digest else ""
