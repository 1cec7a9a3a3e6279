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
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from . import actions, digest, disk
from .actions import ReadSet, Stored
from .bundle import Bundle
from .bundles import BROKEN, Bundles
from .errors import AwaitedError, CodegenError
from .looks import Guard, Look, Looks
from .model import PATH_KINDS, Input, Result, Step, Trace
from .project import Project
from .readsets import ReadSets, step_kind
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
#: What became of a step, as `Outcome.cached` says it; anything else is why it was not kept.
RESTORED, FETCHED, KEPT = "restored", "restored from remote", "kept"
#: With that begins why a step was not kept, if the store could not be written.
UNWRITABLE = "cannot be stored: "


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
    """A result that a step may have.

    Args:
        reads: what it would have read.
        look: the same, as it is now.
        key: of the result.
    """

    reads: ReadSet
    look: Look
    key: str

    def signed(self, result: Result, looks: Looks) -> Result:
        """Return the result, as it was kept, with the signatures that its inputs have here."""
        return replace(result, inputs=looks.signed(result.inputs, self.look))


def written_in(folder: str) -> set[bytes]:
    """Return the ways in which outputs may tell a path: as it is, in JSON, in a URL."""
    from urllib.parse import quote

    told = [json.dumps(folder)[1:-1], json.dumps(folder, ensure_ascii=False)[1:-1]]
    with contextlib.suppress(UnicodeEncodeError):
        told.append(quote(folder))
    return {os.fsencode(folder), *(text.encode("utf-8", "surrogateescape") for text in told)}


def names_any(result: Result, ways: Collection[bytes]) -> bool:
    """Tell whether a result names a folder in any of the ways in which it may be told."""
    said = (*result.outputs.values(), result.printed.encode("utf-8", "replace"))
    return any(way in data for data in said for way in ways)


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
    return _in_ci() and bool(os.environ.get("CODEGEN_REMOTE_CACHE_KEY"))


def lacks_key(settings: Settings) -> bool:
    """Tell whether it is for want of a key only that nothing is sent to the remote cache."""
    return settings.remote_cache_write == "auto" and _in_ci() and not writes(settings)


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


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
        self._expected: dict[str, list[_Candidate]] = {}
        self._rows: dict[Any, Input] = {}
        self._roots = written_in(project.root) | written_in(os.path.realpath(project.root))
        self._least = project.settings.output_cache_milliseconds
        self._too_quick = too_quick(project.settings)
        self._quick: Counter[Kind] = Counter()  # in a row
        self._fence: Fence | None = None
        if remote is not None:
            self._fence = remote.fence(project.root, project.templates, project.output)
        self._looks = Looks(world)
        self._sets = ReadSets(world, self._store, remote, self._fence)
        self._bundles: Bundles | None = None
        self._bundled: set[str] = set()  # tasks of the steps that were found there
        #: The `actions.shared_key` of kinds whose bundle the remote cache had, and not the store.
        self.fetched: Collection[str] = ()

    def use_bundles(self, steps: Iterable[Step]) -> None:
        """Look in bundles first, from now on: no file is changed but by the steps restored.

        Args:
            steps: one of each kind that is to be looked for.
        """
        self._bundles = self._all_bundles()
        for step in steps:
            if actions.own_name(step):
                self._bundles.open(self._sets.shared_key(step))

    def _all_bundles(self) -> Bundles:
        return Bundles(self._project, self._world, self._store)

    def take_bundled(self) -> set[str]:
        """Return the tasks that were found in bundles since this was asked last."""
        found, self._bundled = self._bundled, set()
        return found

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
        asked = [one for one in steps if self._is_looked_for(one) and remote.pays(step_kind(one))]
        self._sets.expect(asked)
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
        for reads in self._sets.of(step):
            own = own or self._sets.own_key(step)
            try:
                look = self._looks.at(step, reads, guard)
            except (Exception, AwaitedError):
                # It names what is not made yet, or what cannot be read.  The step itself may
                # read it no more; if it does, it says so, and is looked for again later.
                continue
            yield _Candidate(reads, look, actions.key_of_texts(own, look.texts))

    def find(self, step: Step, guard: Guard | None = None) -> Found | None:
        """Return what a step would make, if that is known; None if it is not.

        Args:
            step: to be run.
            guard: is called with each path that is about to be read; may raise.
        """
        if self._bundles is not None and actions.own_name(step):
            result = self._bundles.find(step, self._sets.shared_key(step), guard)
            if result is not None:
                self._bundled.add(step.task)
                fetched = self._sets.shared_key(step) in self.fetched
                return Found(result, FETCHED if fetched else RESTORED)
        expected = self._expected.pop(step.task, None)
        if not self._is_looked_for(step):
            return None
        for one in expected if expected is not None else self._candidates(step, guard):
            found = self._stored(one.key)
            if found is not None and actions.answers(found, step, one.reads, one.look.digests):
                result = self._complete(found)
                if result is not None:
                    self._quick[step_kind(step)] = 0
                    return Found(one.signed(result, self._looks), RESTORED)
        return self._fetched(step, expected or ())

    def knows(self, step: Step, guess: bool = False) -> bool:
        """Tell whether the user's own store has what a step would make, as far as names tell.

        Args:
            step: to be run.
            guess: what it reads may not be as it will be then.
        """
        if guess:
            found = any(True for _ in self._sets.of(step))
        else:
            found = any(self._store.has(ACTIONS, one.key) for one in self._candidates(step, None))
        return found or self._is_bundled(step, guess)

    def _is_bundled(self, step: Step, guess: bool) -> bool:
        if self._bundles is None or not actions.own_name(step):
            return False
        shared = self._sets.shared_key(step)
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
            shared = self._sets.shared_key(step)
            bundles = self._all_bundles()
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
        self._sets.forget()
        self._looks.forget()
        self._bundles = None

    def _is_looked_for(self, step: Step) -> bool:
        """Tell whether a step is looked for: it may be of a kind that is made as soon."""
        return self._quick[step_kind(step)] < _QUICK

    def _fetched(self, step: Step, expected: Sequence[_Candidate]) -> Found | None:
        """Return what the remote cache knows; keep it here."""
        for one in expected if self.remote is not None else ():
            came = self.remote.take(one.key) if self.remote is not None else None
            if came is None or not actions.answers(came.stored, step, one.reads, one.look.digests):
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
                return Found(one.signed(result, self._looks), FETCHED, added)
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
            return size + self._sets.keep(step, self._sets.own_key(step), one.reads)
        except CodegenError:
            return 0  # it is of use without

    def _stored(self, key: str) -> Stored | None:
        raw = self._store.get(ACTIONS, key)
        return actions.stored_in(raw, self._rows) if raw is not None else None

    def _complete(self, found: Stored) -> Result | None:
        filled = self._store.filled(found.contents)
        return replace(found.result, outputs=filled[0], like=filled[1]) if filled else None

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
            self._sets.send(step, own, reads)
        if self._store.fault:
            return f"the folder {self._store.fault}", 0
        try:
            size = sum(self._store.put(CONTENTS, name, data) for name, data in beside.items())
            size += self._store.put(ACTIONS, key, record)
            size += self._sets.keep(step, own, reads)
        except CodegenError as error:
            return UNWRITABLE + error.what.removeprefix("cannot write: "), 0
        return KEPT, size

    def _filed(self, step: Step, inputs: Sequence[Input]) -> tuple[str, ReadSet, str]:
        """Return a step's own key, what it has read, and the key of what it came to."""
        own, reads = self._sets.own_key(step), actions.read_set(inputs)
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
        shared = self._sets.shared_key(first)
        try:
            return shared, *self._all_bundles().keep(shared, made, self._unfit)
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
        if names_any(result, self._roots):
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
