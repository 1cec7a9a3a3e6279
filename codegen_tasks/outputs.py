"""The output cache: results of steps from earlier builds, found again and kept.

A result is taken only if all its inputs are now what they were, by the same facts that decide
whether a target is stale; so it is what the step would make.  A store that cannot be read or
written, or holds anything else, is a miss.  Behind the user's store there may be a remote one:
what is not in the former is asked of the latter, for many steps at once, and then kept in both.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from . import actions, digest, disk
from .actions import ReadSet, Stored
from .bundle import Bundle
from .bundles import BROKEN, Bundles, Guard
from .errors import AwaitedError, CodegenError
from .keys import Reads
from .model import DATA_KINDS, PATH_KINDS, Input, Result, Stat, Step, Trace
from .patterns import EXPLAINED
from .project import Project
from .settings import Settings
from .store import ACTIONS, CONTENTS, Held, Store, default_folder
from .world import World

if TYPE_CHECKING:
    from .remote.cache import Fetched, RemoteCache
    from .remote.fence import Fence
    from .remote.worth import Kind

#: After so many steps of a kind that were made as soon as restored, and none that was found, no
#: further ones are looked for.
_QUICK = 8
#: Kinds of inputs that are looked at once in a run, as a render does: what is declared, and
#: templates.
_ALIKE = frozenset({"rule", "environment", "context", "filter", "test", "function", "global"})
_ALIKE |= {"template", "missing template"}
#: What became of a step, as `Outcome.cached` says it; anything else is why it was not kept.
RESTORED, FETCHED, KEPT = "restored", "restored from remote", "kept"
#: With that begins why a step was not kept, if the store could not be written.
UNWRITABLE = "cannot be stored: "

#: Of something that a step would read: its digest, its signature, and what shows it.
_Seen: TypeAlias = tuple[str, Stat | None, str]


@dataclass(frozen=True, slots=True)
class Found:
    """What a step would make.

    Args:
        result: this; its inputs have the signatures of the files that are here.
        where: `RESTORED` or `FETCHED`.
        stored: bytes by which the store has grown.
    """

    result: Result
    where: str
    stored: int = 0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A result that a step may have: what it would have read, as it is now, and the result's key.

    Args:
        reads, digests: what it would have read, and the digest of each.
        stats: the signatures that files among these had before they were looked at.
        shown: what explains a change of each later, as it is here: a store could say anything.
        key: of the result.
    """

    reads: ReadSet
    digests: Sequence[str]
    stats: Sequence[Stat | None]
    shown: Sequence[str]
    key: str


@dataclass(frozen=True, slots=True)
class _Rest:
    """What many steps read alike: digests, signatures, what shows it, its text in their keys."""

    digests: tuple[str, ...]
    stats: tuple[Stat | None, ...]
    shown: tuple[str, ...]
    text: str


def step_kind(step: Step) -> Kind:
    """Return what steps have in common that read alike."""
    return (step.rule, step.phase, step.link, step.item is None)


def _written_in(folder: str) -> set[bytes]:
    """Return the ways in which outputs may tell a path: as it is, in JSON, in a URL."""
    from urllib.parse import quote

    told = [json.dumps(folder)[1:-1], json.dumps(folder, ensure_ascii=False)[1:-1]]
    with contextlib.suppress(UnicodeEncodeError):
        told.append(quote(folder))
    return {os.fsencode(folder), *(text.encode("utf-8", "surrogateescape") for text in told)}


def store_of(project: Project) -> Store:
    """Return the store that a project's settings name."""
    named = os.path.expanduser(project.settings.output_cache_folder)
    return Store(os.path.join(project.root, named) if named else default_folder())


def remote_of(project: Project) -> RemoteCache | None:
    """Return the remote cache that a project's settings name, if they name one."""
    settings = project.settings
    if not settings.remote_cache:
        return None
    from . import address
    from .remote.cache import RemoteCache

    where = address.parsed("remote_cache", settings.remote_cache)
    secret = os.fsencode(os.environ.get("CODEGEN_REMOTE_CACHE_KEY", ""))
    token = os.environ.get("CODEGEN_REMOTE_CACHE_TOKEN", "")
    return RemoteCache(where, settings.remote_cache_seconds, secret, token, writes(settings))


def too_quick(settings: Settings) -> str:
    """Return why a step is not kept that took next to no time."""
    return f"took less than {settings.output_cache_milliseconds} ms"


def writes(settings: Settings) -> bool:
    """Tell whether results are sent to the remote cache: by whoever is trusted, if not told."""
    if settings.remote_cache_write != "auto":
        return settings.remote_cache_write == "true"
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return in_ci and bool(os.environ.get("CODEGEN_REMOTE_CACHE_KEY"))


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
    kinds = (actions.stored_in, actions.sets_in, actions.bundles_in)
    return any(kind(raw) for kind in kinds)


class OutputCache:
    """The results that one process finds and keeps for one project.

    Args:
        project: what was declared.
        world: the facts.
        remote: the remote cache, if there is one that this process may ask.
        store: the user's; None for the one that the settings name.
    """

    def __init__(
        self,
        project: Project,
        world: World,
        remote: RemoteCache | None = None,
        store: Store | None = None,
    ):
        self._project = project
        self._world = world
        self._store = store if store is not None else store_of(project)
        self.remote = remote
        self._shared: dict[str, list[ReadSet]] = {}
        self._keys: dict[Kind, str] = {}
        self._expected: dict[str, list[_Candidate]] = {}
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._rests: dict[ReadSet, _Rest | None] = {}
        self._rows: dict[Any, Input] = {}
        self._met: dict[tuple[int, Stat | None], tuple[Input, Input]] = {}  # by identity
        self._roots = _written_in(project.root) | _written_in(os.path.realpath(project.root))
        self._least = project.settings.output_cache_milliseconds
        self._too_quick = too_quick(project.settings)
        self._quick: Counter[Kind] = Counter()  # in a row
        self._fence: Fence | None = None
        if remote is not None:
            self._fence = remote.fence(project.root, project.templates, project.output)
        self._bundles: Bundles | None = None
        #: Tasks of the steps that were found in bundles.
        self.bundled: set[str] = set()
        #: The `actions.shared_key` of kinds whose bundle the remote cache had, and not the store.
        self.fetched: Collection[str] = ()

    def use_bundles(self, steps: Iterable[Step]) -> None:
        """Look in bundles first, from now on: no file is changed but by the steps restored.

        Args:
            steps: one of each kind that is to be looked for.
        """
        self._bundles = Bundles(self._project, self._world, self._store)
        for step in steps:
            if actions.own_name(step):
                self._bundles.open(self._shared_key(step))

    # Finding ----------------------------------------------------------------------------

    def expect(self, steps: Sequence[Step], guards: Mapping[str, Guard]) -> None:
        """Ask the remote cache, in one go, for what steps that are to be run would make.

        Args:
            steps: to be run soon.
            guards: for each task, see `find`.
        """
        self._expected.clear()  # they were not run
        remote = self.remote
        if remote is None or not remote.answers:
            return
        asked = [step for step in steps if self._looks(step) and remote.pays(step_kind(step))]
        remote.fetch_sets([self._first_key(step) for step in asked])
        remote.fetch_sets([self._own_key(step) for step in asked if self._has_own_sets_there(step)])
        wanted: dict[str, Kind] = {}
        for step in asked:
            with remote.working():
                candidates = self._candidates_now(step, guards.get(step.task))
            if candidates and not self._store.has(ACTIONS, candidates[-1].key):
                wanted |= dict.fromkeys((one.key for one in candidates), step_kind(step))
        remote.fetch(wanted, self._holds)

    def _holds(self, content: str) -> bool:
        """Tell whether a content need not be fetched."""
        return self._store.has(CONTENTS, content)

    def _candidates_now(self, step: Step, guard: Guard | None) -> list[_Candidate]:
        """Return the results that a step may have, up to the first that is here; note them."""
        found: list[_Candidate] = []
        for one in self._candidates(step, guard):
            found.append(one)
            if self._store.has(ACTIONS, one.key):
                break
        self._expected[step.task] = found
        return found

    def _candidates(self, step: Step, guard: Guard | None) -> Iterator[_Candidate]:
        own = ""
        for reads in self._read_sets(step):
            own = own or self._own_key(step)
            try:
                digests, stats, shown, text = self._now(step, reads, guard)
            except (Exception, AwaitedError):
                # It names what is not made yet, or what cannot be read.  The step itself may
                # read it no more; if it does, it says so, and is looked for again later.
                continue
            key = actions.key_of_texts(own, text)
            yield _Candidate(reads, digests, stats, shown, key)

    def find(self, step: Step, guard: Guard | None = None) -> Found | None:
        """Return what a step would make, if that is known; None if it is not.

        Args:
            step: to be run.
            guard: is called with each path that is about to be read; may raise.
        """
        if self._bundles is not None and actions.own_name(step):
            result = self._bundles.find(step, self._shared_key(step), guard)
            if result is not None:
                self.bundled.add(step.task)
                fetched = self._shared_key(step) in self.fetched
                return Found(result, FETCHED if fetched else RESTORED)
        expected = self._expected.pop(step.task, None)
        if not self._looks(step):
            return None
        for one in expected if expected is not None else self._candidates(step, guard):
            found = self._stored(one.key)
            if found is not None and actions.answers(found, step, one.reads, one.digests):
                result = self._complete(found)
                if result is not None:
                    self._quick[step_kind(step)] = 0
                    return Found(self._signed(result, one), RESTORED)
        return self._fetched(step, expected or ())

    def knows(self, step: Step, guess: bool = False) -> bool:
        """Tell whether the user's own store has what a step would make, as far as names tell.

        Args:
            step: to be run.
            guess: what it reads may not be as it will be then.
        """
        if guess:
            found = any(True for _ in self._read_sets(step))
        else:
            found = any(self._store.has(ACTIONS, one.key) for one in self._candidates(step, None))
        return found or self._is_bundled(step, guess)

    def _is_bundled(self, step: Step, guess: bool) -> bool:
        if self._bundles is None or not actions.own_name(step):
            return False
        shared = self._shared_key(step)
        if guess:
            return self._bundles.have(step, shared)
        return self._bundles.find(step, shared, None) is not None

    def fetch_bundles(self, steps: Iterable[Step]) -> tuple[list[str], int]:
        """Fetch the bundle of each step's kind from the remote cache into the store.

        Returns:
            The `actions.shared_key` of each that came, and by how much the store has grown.
        """
        came, size = [], 0
        for step in steps:
            if self.remote is None or not self.remote.answers or not actions.own_name(step):
                continue
            shared = self._shared_key(step)
            bundles = Bundles(self._project, self._world, self._store)
            for data in self.remote.bundles(shared, partial(self._store.has, CONTENTS)):
                with contextlib.suppress(CodegenError, *BROKEN):
                    if self._may_follow(step, Bundle(data)):
                        size += bundles.put(shared, data)
                        came.append(shared)
        return came, size

    def _may_follow(self, step: Step, bundle: Bundle) -> bool:
        """Tell whether all that a bundle names may be looked at for the word of who made it."""
        if self._fence is None:
            return True
        reads = tuple((one.item.kind, one.item.name, one.item.reads) for one in bundle.reads())
        return self._fence.admits(reads, set(self._world.declared(step)))

    def forget(self) -> None:
        """Forget what was looked at: time may pass, and tasks may run, before steps do."""
        for known in (self._shared, self._seen, self._rests):
            known.clear()
        self._bundles = None

    def _looks(self, step: Step) -> bool:
        """Tell whether a step is looked for: it may be of a kind that is made as soon."""
        return self._quick[step_kind(step)] < _QUICK

    def _fetched(self, step: Step, expected: Sequence[_Candidate]) -> Found | None:
        """Return what the remote cache knows; keep it here."""
        for one in expected if self.remote is not None else ():
            came = self.remote.take(one.key) if self.remote is not None else None
            if came is None or not actions.answers(came.stored, step, one.reads, one.digests):
                continue
            added = self._keep_fetched(step, one, came)
            contents = {**came.contents}
            lacking = [c.digest for c in came.stored.contents if c.data is None]
            for name in lacking:
                data = contents.get(name) or self._store.content(name)
                if data is None:
                    break
                contents[name] = data
            else:
                self._quick[step_kind(step)] = 0
                result = actions.complete(came.stored, contents)
                return Found(self._signed(result, one), FETCHED, added)
        return None

    def _keep_fetched(self, step: Step, one: _Candidate, came: Fetched) -> int:
        """Put into the store what came; return how many bytes that took."""
        if self._store.fault:
            return 0
        try:
            needed = {c.digest for c in came.stored.contents if c.data is None}
            put = self._store.put
            size = sum(put(CONTENTS, n, d) for n, d in came.contents.items() if n in needed)
            size += put(ACTIONS, one.key, came.text)
            return size + self._keep_reads(step, self._own_key(step), one.reads)
        except CodegenError:
            return 0  # it is of use without

    def _read_sets(self, step: Step) -> Iterator[ReadSet]:
        """Yield what the step may read, as other runs have: likely sets first."""
        yield from self._read_sets_here(step)
        yield from (one for one in self._read_sets_there(step) if self._is_followed(step, one))

    def _read_sets_here(self, step: Step) -> Iterator[ReadSet]:
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

    def _read_sets_there(self, step: Step) -> Iterator[ReadSet]:
        if self.remote is None or not self.remote.answers:
            return
        name = actions.own_name(step)
        if self._has_own_sets_there(step):
            yield from self.remote.sets(self._own_key(step))
        if name:
            for one in self.remote.sets(self._shared_key(step)):
                yield actions.owned(one, name)

    def _has_own_sets_there(self, step: Step) -> bool:
        """Tell whether the remote cache may have more than the sets of its rule."""
        if self.remote is None or not actions.own_name(step):
            return True
        return len(self.remote.sets(self._shared_key(step))) >= actions.SETS

    def _is_followed(self, step: Step, reads: ReadSet) -> bool:
        """Tell whether a read set holds all that the step declares, and may be followed."""
        declared = set(self._world.declared(step))
        if not declared.issubset((kind, name) for kind, name, _ in reads):
            return False
        return self._fence is None or self._fence.admits(reads, declared)

    def _alike(self, step: Step) -> list[ReadSet]:
        """Return the read sets that a step shares with others of its rule, if they are here."""
        key = self._shared_key(step)
        if key not in self._shared:
            self._shared[key] = self._sets(key)
        return self._shared[key]

    def _first_key(self, step: Step) -> str:
        """Return the key under which a step's read sets are looked for first."""
        return self._shared_key(step) if actions.own_name(step) else self._own_key(step)

    def _shared_key(self, step: Step) -> str:
        """Return the key of these, the same for all steps of a rule that have one own name."""
        kind = step_kind(step)
        if kind not in self._keys:
            declared = self._world.declared(step)
            self._keys[kind] = actions.shared_key(step, declared, self._machine(step))
        return self._keys[kind]

    def _own_key(self, step: Step) -> str:
        return actions.own_key(step, self._world.declared(step), self._machine(step))

    def _sets(self, key: str) -> list[ReadSet]:
        raw = self._store.get(ACTIONS, key)
        return actions.sets_in(raw) if raw is not None else []

    def _now(
        self, step: Step, reads: ReadSet, guard: Guard | None
    ) -> tuple[list[str], list[Stat | None], list[str], tuple[str, ...]]:
        """Return digests, signatures and what shows it of what is read, and a key's texts."""
        if guard is not None:
            for kind, name, _ in reads:
                if kind in PATH_KINDS:
                    guard(name)
        rest = self._rest(step, reads[1:])
        own = reads[:1] if rest is not None else reads
        digests, stats, shown = [], [], []
        for kind, name, keys in own:
            digest, stat, told = self._looked_at(step, kind, name, keys)
            digests.append(digest)
            stats.append(stat)
            shown.append(told)
        text = actions.text_of(own, digests)
        if rest is None:
            return digests, stats, shown, (text,)
        digests += rest.digests
        return digests, [*stats, *rest.stats], [*shown, *rest.shown], (text, rest.text)

    def _rest(self, step: Step, reads: ReadSet) -> _Rest | None:
        """Return what a step reads beside its own pattern, if all of it is looked at once."""
        if reads in self._rests:
            return self._rests[reads]
        if not reads or not all(kind in _ALIKE for kind, _, _ in reads):
            return self._rests.setdefault(reads, None)
        seen = [self._looked_at(step, *one) for one in reads]
        digests, stats, shown = zip(*seen, strict=True)
        text = actions.text_of(reads, digests)
        return self._rests.setdefault(reads, _Rest(digests, stats, shown, text))

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

    def _signed(self, result: Result, one: _Candidate) -> Result:
        """Return a result with the signatures with which its inputs were looked at."""
        known = zip(result.inputs, one.stats, one.shown, strict=True)
        inputs = [self._with(*each) for each in known]
        return Result(
            tuple(inputs),
            result.outputs,
            result.references,
            result.printed,
            result.seconds,
            result.like,
        )

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

    def _stored(self, key: str) -> Stored | None:
        raw = self._store.get(ACTIONS, key)
        return actions.stored_in(raw, self._rows) if raw is not None else None

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
        return actions.complete(found, beside, like)

    # Keeping ----------------------------------------------------------------------------

    def passes_over(self, step: Step, seconds: float) -> str:
        """Take in how long a step took; return why it is not kept, if that is why, else ""."""
        if self.remote is not None:
            self.remote.took(step_kind(step), seconds)
        quick = seconds * 1000 < self._least
        self._quick[step_kind(step)] += quick
        return self._too_quick if quick else ""

    def keep(self, step: Step, trace: Trace, result: Result, sent: bool = False) -> tuple[str, int]:
        """Keep what a step came to; return `KEPT`, or why not, and how many bytes that took.

        Args:
            step: that has run.
            trace: what it read, with the signatures of its files.
            result: the same without them, and what it made.
            sent: the remote cache has it already.
        """
        why = self._unfit(step, trace, result)
        if why:
            return why, 0
        record, beside = actions.written(result)
        own, reads, key = self._filed(step, trace.inputs)
        if self.remote is not None and self.remote.writes and not sent:
            self.remote.send(key, record, beside)
            self._send_reads(step, own, reads)
        if self._store.fault:
            return f"the folder {self._store.fault}", 0
        try:
            size = sum(self._store.put(CONTENTS, name, data) for name, data in beside.items())
            size += self._store.put(ACTIONS, key, record)
            size += self._keep_reads(step, own, reads)
        except CodegenError as error:
            return UNWRITABLE + error.what.removeprefix("cannot write: "), 0
        return KEPT, size

    def _filed(self, step: Step, inputs: Sequence[Input]) -> tuple[str, ReadSet, str]:
        """Return a step's own key, what it has read, and the key of what it came to."""
        own, reads = self._own_key(step), actions.read_set(inputs)
        return own, reads, actions.result_key(own, reads, [item.digest for item in inputs])

    def keep_together(
        self, made: Sequence[tuple[Step, Trace, Sequence[str], str]]
    ) -> tuple[str, bytes, int]:
        """Keep what steps of one kind came to as a bundle too; arguments as of `Bundles.keep`.

        Returns:
            The kind's `actions.shared_key`, the bundle, empty if there is none, and by how much
            the store has grown.
        """
        first = made[0][0]
        if self._store.fault or not actions.own_name(first):
            return "", b"", 0
        bundles, shared = Bundles(self._project, self._world, self._store), self._shared_key(first)
        try:
            return shared, *bundles.keep(shared, made, self._unfit)
        except CodegenError:
            return "", b"", 0

    def send_bundles(self, bundles: Mapping[str, bytes]) -> None:
        """Send bundles to the remote cache, if that is written to."""
        if self.remote is None or not self.remote.writes:
            return
        for shared, data in bundles.items():
            self.remote.send_bundle(shared, data)

    def _unfit(self, step: Step, trace: Trace, result: Result) -> str:
        """Return why a result is not to be kept; "" if it is."""
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

    def _send_reads(self, step: Step, own: str, reads: ReadSet) -> None:
        """Have the remote cache know what the step read; as `_keep_reads`."""
        assert self.remote is not None
        name = actions.own_name(step)
        if name:
            alike, key = actions.shared(reads, name), self._shared_key(step)
            self.remote.send_set(key, alike)
            if alike == self.remote.sets(key)[-1]:
                return
        self.remote.send_set(own, reads)

    def _machine(self, step: Step) -> str:
        """Return what of the machine shapes a step's outputs, though no input says it."""
        if not step.starts_program:
            return ""
        posix = hasattr(os, "uname")
        machine = os.uname().machine if posix else os.environ.get("PROCESSOR_ARCHITECTURE", "")
        return f"{sys.platform} {machine}"
