"""The remote cache: results of steps that others have made, and ours for them.

Laid out as Bazel's HTTP caches are, `ac/` and `cas/` below the URL, so that servers made for
those serve us.  What comes is not trusted: it is checked like a file that anybody could have
written, and what is not whole, not signed where it must be, or not what was asked for, is a miss.
Nothing is asked for one at a time: see `fetch`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from .. import actions, digest
from ..actions import ReadSet, Stored
from ..address import Address
from ..store import ACTIONS, CONTENTS
from ..traffic import Traffic
from . import parcels
from .faults import Fault
from .fence import Fence
from .parcels import Blob, ForeignError, Parcel, UnsignedError
from .transfers import Transfers
from .uploads import Uploads
from .worth import TRIED, Kind, Worth

#: So many questions are under way before it is looked whether they pay.
_CHUNK = TRIED
#: Bytes of contents that are asked for at once; a result beyond that is a miss.
_ROOM = 400_000_000
#: At the end of a run, so many times the limit of one transfer is waited for what is to be sent.
_FLUSH = 6


@dataclass(frozen=True, slots=True)
class Fetched:
    """A result as it came.

    Args:
        text: that the store keeps.
        stored: what it says.
        contents: by digest, unless they are held.
        blobs: how contents travel, by digest.
    """

    text: bytes
    stored: Stored
    contents: Mapping[str, bytes]
    blobs: Mapping[str, Blob]


class RemoteCache:
    """The remote cache as one process uses it.

    Args:
        address: where it is.
        seconds: that one transfer may take.
        secret: to sign what is sent, and that what comes must be signed with; empty for neither.
        token: see `Transfers`.
        writes: whether results are sent there.
    """

    def __init__(
        self,
        address: Address,
        seconds: float,
        secret: bytes = b"",
        token: str = "",
        writes: bool = False,
    ):
        self.address = address
        self.writes = writes
        self.signs = bool(secret)
        self._seconds = seconds
        self._secret = secret
        self._link = Transfers(address, seconds, token, writes)
        self._uploads = Uploads()
        self._to_send = 0
        self._sets: dict[str, list[ReadSet]] = {}
        self._found: dict[str, Fetched] = {}
        self._worth: defaultdict[Kind, Worth] = defaultdict(Worth)
        self._process = os.getpid()

    # Finding ----------------------------------------------------------------------------

    @property
    def answers(self) -> bool:
        """Whether there is any use in asking."""
        # What was begun in a process does not go on in its forks.
        return self._link.fault is None and self._process == os.getpid()

    def fence(self, root: str, templates: str, output: str) -> Fence | None:
        """Return what tells which read sets are followed; None if all that come are signed.

        Args:
            root: of the project, see `Fence`.
            templates: its folder of templates.
            output: its folder of targets.
        """
        return None if self.signs else Fence(root, templates, output)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Have the store answer for the time that it takes to follow what it has told."""
        began = time.monotonic()
        yield
        self._link.costs(time.monotonic() - began)

    def pays(self, kind: Kind) -> bool:
        """Tell whether steps of a kind are worth asking about."""
        return self._worth[kind].pays

    def sets(self, key: str) -> list[ReadSet]:
        """Return the read sets under a key, as far as they were fetched."""
        return self._sets.get(key, [])

    def fetch_sets(self, keys: Iterable[str]) -> None:
        """Ask for the read sets under some keys, each once."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._sets]
        for key, parcel in zip(unknown, self._parcels(unknown), strict=True):
            self._sets[key] = actions.sets_in(parcel.text) if parcel is not None else []

    def fetch(self, wanted: Mapping[str, Kind], held: Callable[[str], bool]) -> None:
        """Ask for results in one go, as long as that pays.

        Args:
            wanted: their keys, and the kinds of their steps.
            held: tells by its digest whether a content is here already.
        """
        self._found.clear()  # nobody has asked for these
        by_kind: defaultdict[Kind, list[str]] = defaultdict(list)
        for key, kind in wanted.items():
            by_kind[kind].append(key)
        for kind, keys in by_kind.items():
            for start in range(0, len(keys), _CHUNK):
                if not (self.answers and self._worth[kind].pays):
                    break
                self._fetch(keys[start : start + _CHUNK], self._worth[kind], held)

    def _fetch(self, keys: Sequence[str], worth: Worth, held: Callable[[str], bool]) -> None:
        began = time.monotonic()
        came: dict[str, tuple[Parcel, Stored]] = {}
        for key, parcel in zip(keys, self._parcels(keys), strict=True):
            stored = actions.stored_in(parcel.text) if parcel is not None else None
            if parcel is not None and stored is not None:
                came[key] = parcel, stored
        contents = self._contents(came.values(), held)
        for key, (parcel, stored) in came.items():
            lacking = (one.digest for one in stored.contents if one.data is None)
            if all(name in contents or held(name) for name in lacking):
                self._found[key] = Fetched(parcel.text, stored, contents, parcel.blobs)
                worth.step(stored.result.seconds)
                self._link.spares(stored.result.seconds)
        worth.learn(len(keys), len(came), time.monotonic() - began)

    def take(self, key: str) -> Fetched | None:
        """Return the result under a key, if it was asked for and came."""
        return self._found.pop(key, None)

    def _parcels(self, keys: Sequence[str]) -> list[Parcel | None]:
        asked = [(f"{ACTIONS}/{key}", parcels.MESSAGE) for key in keys]
        return [
            self._opened(key, message, self._link.was_foreign) if message is not None else None
            for key, message in zip(keys, self._link.get(asked), strict=True)
        ]

    def _opened(
        self, key: str, message: bytes, foreign: Callable[[], None] = lambda: None
    ) -> Parcel | None:
        try:
            parcel = parcels.opened(key, message, self._secret)
        except UnsignedError:
            foreign()
            return None
        except ForeignError:
            self._link.is_junk()
            return None
        self._link.is_sound()
        return parcel

    def _contents(
        self, came: Iterable[tuple[Parcel, Stored]], held: Callable[[str], bool]
    ) -> dict[str, bytes]:
        """Return contents that are not held, by digest."""
        wanted: dict[str, tuple[Blob, int]] = {}
        room = _ROOM
        for parcel, stored in came:
            for one in stored.contents:
                blob = parcel.blobs.get(one.digest)
                if one.data is not None or blob is None or one.digest in wanted:
                    continue
                room -= max(0, one.size) + blob.size
                if room >= 0 and not held(one.digest):
                    wanted[one.digest] = (blob, one.size)
        return self.contents(wanted)

    def contents(self, wanted: Mapping[str, tuple[Blob, int]]) -> dict[str, bytes]:
        """Return contents, by digest; what does not come, or is something else, is left out.

        Args:
            wanted: by digest, how each travels, and how many bytes it has.
        """
        asked = [(f"{CONTENTS}/{blob.name}", blob.size) for blob, _ in wanted.values()]
        found: dict[str, bytes] = {}
        for (name, (blob, size)), data in zip(wanted.items(), self._link.get(asked), strict=True):
            try:
                found.update({name: parcels.content(data, blob, name, size)} if data else {})
            except ForeignError:
                self._link.is_junk()
        return found

    # Keeping ----------------------------------------------------------------------------

    def spares(self, seconds: float) -> None:
        """Take in how long it would have taken to make what came."""
        self._link.spares(seconds)

    def took(self, kind: Kind, seconds: float) -> None:
        """Take in how long a step of a kind took here."""
        self._worth[kind].step(seconds)

    def send(
        self,
        key: str,
        text: bytes,
        contents: Mapping[str, bytes],
        told: Callable[[Mapping[str, Blob]], None] | None = None,
    ) -> None:
        """Have a result sent, in the background.

        Args:
            key: of the result.
            text: as the store keeps it.
            contents: those that do not stand in it, by digest.
            told: is called by another thread when all is there, with how contents travel.
        """
        size = len(text) + sum(map(len, contents.values()))
        if size > parcels.CONTENT or len(text) > parcels.MESSAGE:
            return  # nobody would take it
        self._to_send += 1
        self._uploads.add(partial(self._send, key, text, contents, told), size)

    def _send(
        self,
        key: str,
        text: bytes,
        contents: Mapping[str, bytes],
        told: Callable[[Mapping[str, Blob]], None] | None = None,
        there: Mapping[str, Blob] = MappingProxyType({}),
    ) -> None:
        message, blobs = parcels.packed(key, text, contents, self._secret, there)
        # The message comes last: with it there, so is all that it names.
        named = [(f"{CONTENTS}/{name}", data) for name, data in blobs.items()]
        if all(self._link.put(*one) for one in [*named, (f"{ACTIONS}/{key}", message)]):
            self._link.sent_one()
            if told is not None:
                names = zip(contents, blobs.items(), strict=True)
                told({one: Blob(name, len(data)) for one, (name, data) in names})

    def bundles(self, shared: str, held: Callable[[str], bool]) -> list[bytes]:
        """Return the bundles of a kind of steps that are not held, the newest last.

        Args:
            shared: the kind's `actions.shared_key`.
            held: tells by its digest whether a content is here already.
        """
        (parcel,) = self._parcels([actions.bundles_key(shared)])
        if parcel is None:
            return []
        sizes = actions.bundles_in(parcel.text)
        blobs = {name: parcel.blobs[name] for name in sizes if name in parcel.blobs}
        lacking = [name for name in reversed(blobs) if not held(name)]
        asked = [(f"{CONTENTS}/{blobs[name].name}", blobs[name].size) for name in lacking]
        found = []
        for name, data in zip(lacking, self._link.get(asked), strict=True):
            try:
                if data is not None:
                    found.append(parcels.content(data, blobs[name], name, sizes[name]))
            except ForeignError:
                self._link.is_junk()
        return found

    def send_bundle(self, shared: str, data: bytes) -> None:
        """Have a bundle sent, in the background, beside those that are there."""
        if len(data) <= parcels.CONTENT:
            self._to_send += 1
            self._uploads.add(partial(self._send_bundle, shared, data), len(data))

    def _send_bundle(self, shared: str, data: bytes) -> None:
        key = actions.bundles_key(shared)
        message = self._link.fetch(f"{ACTIONS}/{key}", parcels.MESSAGE)
        parcel = self._opened(key, message) if message is not None else None
        before = actions.bundles_in(parcel.text) if parcel is not None else {}
        blobs = parcel.blobs if parcel is not None else {}
        name = digest.of_bytes(data)
        known = {one: size for one, size in before.items() if one in blobs}
        listed = actions.with_bundle(known, name, len(data))
        others = {one: blobs[one] for one in listed if one != name}
        text = actions.written_bundles(listed)
        self._send(key, text, {name: data}, there=others)

    def send_set(self, key: str, newest: ReadSet) -> None:
        """Have a read set sent, unless it is known to be there."""
        if newest in self.sets(key):
            return
        self._sets[key] = actions.with_newest(self.sets(key), newest)
        self._uploads.add(partial(self._send_set, key, newest), 0)

    def _send_set(self, key: str, newest: ReadSet) -> None:
        # Others have sent theirs meanwhile.
        message = self._link.fetch(f"{ACTIONS}/{key}", parcels.MESSAGE)
        parcel = self._opened(key, message) if message is not None else None
        known = actions.sets_in(parcel.text) if parcel is not None else []
        text = actions.written_sets(actions.with_newest(known, newest))
        self._link.put(f"{ACTIONS}/{key}", parcels.packed(key, text, {}, self._secret)[0])

    # As a whole -------------------------------------------------------------------------

    def trouble(self) -> Fault | None:
        """Ask once; return what is wrong, if anything is."""
        return self._link.trouble()

    # At the end -------------------------------------------------------------------------

    def settle(self, seconds: float) -> float:
        """Wait until all is sent, or for so many seconds; return how many of them are left.

        If not all is, nothing more will be.
        """
        began = time.monotonic()
        if not self._uploads.wait(seconds):
            self._link.stop_sending(Fault("takes what is sent too slowly"))
            self._uploads.flush(0.0)
        return seconds - (time.monotonic() - began)

    def so_far(self) -> Traffic:
        """Return what went to and fro until now."""
        traffic = self._link.traffic
        return replace(traffic, unsent=self._to_send - traffic.kept)

    def end(self) -> Traffic:
        """Have what is left sent, for a limited time; return what went to and fro."""
        if self._process != os.getpid():
            return Traffic()
        self._uploads.flush(_FLUSH * self._seconds)
        return self.so_far()
