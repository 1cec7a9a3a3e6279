"""Bytes by name, from and to a store at a URL, through obstore: what fails, and what that costs.

A store that fails a few times in a row, or takes longer than it is worth, is left alone for the
rest of the run.  Nothing is raised: what does not come is not there.  To be made in the process
that uses it, which must not fork afterwards: the threads of obstore do not survive that.
Unaware of what the bytes mean.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from ..address import Address
from ..traffic import Traffic
from . import faults
from .crew import Crew
from .faults import Fault

#: Transfers under way at once.
AT_ONCE = 32
#: Failures in a row after which a store is left alone.
_STRIKES = 3
#: Seconds beyond its limit after which a transfer is taken for one that never ends.
_GRACE = 1.0
#: A store may cost so many times the limit of one transfer, in all, more than it has spared.
_BUDGET = 2
_TOO_SLOW = Fault("is too slow to be of use")
_SILENT = Fault("does not answer")
_ABSENT = Fault("needs obstore", "pip install 'codegen-tasks[remote]'")
#: Nothing that comes is taken to have spared more seconds: who has sent it could say anything.
_MOST_SPARED = 60.0


class Transfers:
    """One process's way to a store.

    Args:
        address: of the store.
        seconds: that one transfer may take.
        token: to be sent as a bearer token; "" for none.
        writes: whether anything is to be sent there.
    """

    def __init__(self, address: Address, seconds: float, token: str = "", writes: bool = False):
        self._address = address
        self._seconds = seconds
        self._token = token
        self._makes = writes
        self._store: Any = None
        self._lock = threading.Lock()
        self._crew = Crew(AT_ONCE)
        self._failed = {"get": 0, "put": 0}  # in a row
        self._junk = 0  # in a row
        self._spared = self._cost = 0.0
        self.traffic = Traffic()
        #: Why nothing is asked for any more, and why nothing is sent; None as long as it is.
        self.fault: Fault | None = None
        self.refusal: Fault | None = None

    # Getting ----------------------------------------------------------------------------

    def get(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """Return what stands under some names; None for what does not come.

        Args:
            wanted: names, and how many bytes each may have at most.
        """
        found: list[bytes | None] = [None] * len(wanted)
        if not wanted or not self._opened():
            return found
        came: SimpleQueue[tuple[int, bytes | None]] = SimpleQueue()
        began = time.monotonic()
        for number, (name, most) in enumerate(wanted):
            self._crew.give(partial(self._get, number, name, most, came))
        until = began + self._left
        for _ in wanted:
            left = max(0.0, until - time.monotonic())
            try:
                number, data = came.get(timeout=min(self._seconds + _GRACE, left))
            except Empty:
                self._give_up(_TOO_SLOW if left < self._seconds else _SILENT)
                break
            found[number] = data
        self._count(found, time.monotonic() - began)
        return found

    def trouble(self) -> Fault | None:
        """Ask for something once; return what is wrong with that, if anything is."""
        self._failed["get"] = _STRIKES - 1
        self.get([(f"{'0' * 64}", 1)])
        return self.fault

    def fetch(self, name: str, most: int) -> bytes | None:
        """Return what stands under a name; for threads that nobody waits for."""
        if not self._opened():
            return None
        came: SimpleQueue[tuple[int, bytes | None]] = SimpleQueue()
        self._get(0, name, most, came)
        return came.get()[1]

    def _get(
        self, number: int, name: str, most: int, came: SimpleQueue[tuple[int, bytes | None]]
    ) -> None:
        data = None
        try:
            if not self.fault:
                data = self._read(name, most)
        except BaseException as error:  # what Rust panics with is no `Exception`
            self._struck("get", faults.of(error, self._address.scheme, "get"))
        came.put((number, data))

    def _read(self, name: str, most: int) -> bytes | None:
        try:
            result = self._store.get(name)
        except FileNotFoundError:
            self._went_well("get")
            return None
        data = _body(result, most, self._address.scheme == "file")
        if data is None:
            self.is_junk()
            return None
        self._went_well("get")
        return data

    def was_foreign(self) -> None:
        """Take in that something which came was sent by nobody with our key: a miss."""
        self.traffic.found -= 1
        self.traffic.missed += 1
        self.traffic.foreign += 1

    def _count(self, found: Sequence[bytes | None], waited: float) -> None:
        traffic = self.traffic
        traffic.found += sum(data is not None for data in found)
        traffic.missed += found.count(None)
        traffic.received += sum(len(data) for data in found if data is not None)
        traffic.waited += waited
        self.costs(waited)

    @property
    def _left(self) -> float:
        """Seconds that the store may still cost."""
        return self._spared + _BUDGET * self._seconds - self._cost

    def costs(self, seconds: float) -> None:
        """Take in what the store has cost."""
        self._cost += seconds
        if self._left < 0:
            self._give_up(_TOO_SLOW)

    def spares(self, seconds: float) -> None:
        """Take in how long it would have taken to make what came."""
        self._spared += min(seconds, _MOST_SPARED)

    # Putting ----------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> bool:
        """Put bytes under a name; False if that fails, or is not tried any more."""
        if self.refusal or not self._opened():
            return False
        try:
            # In parts, a large object could be seen half written.
            self._store.put(name, data, use_multipart=False)
        except BaseException as error:
            self._struck("put", faults.of(error, self._address.scheme, "put"))
            return False
        self._went_well("put")
        with self._lock:
            self.traffic.sent += len(data)
        return True

    def sent_one(self) -> None:
        """Count a result that was sent."""
        with self._lock:
            self.traffic.kept += 1

    # How it goes ------------------------------------------------------------------------

    def _opened(self) -> bool:
        with self._lock:
            if self._store is None and not self.fault:
                scheme = self._address.scheme
                self.fault = faults.of_endpoint(scheme, os.environ)
                try:
                    if self.fault is None:
                        self._store = _store(self._address, self._seconds, self._token, self._makes)
                except ImportError:
                    self.fault = _ABSENT
                except Exception as error:
                    self.fault = faults.of(error, scheme, "get")
        if self.fault is not None:
            self._give_up(self.fault)
        return self.fault is None

    def is_junk(self) -> None:
        """Note that something came which nobody of us has sent."""
        with self._lock:
            self._junk += 1
        if self._junk >= _STRIKES:
            self._give_up(Fault("answers with something else", "does the URL lead to a store?"))

    def is_sound(self) -> None:
        """Note that something came which one of us has sent."""
        self._junk = 0

    def _went_well(self, what: str) -> None:
        self._failed[what] = 0

    def _struck(self, what: str, how: Fault) -> None:
        with self._lock:
            self._failed[what] += 1
            self.traffic.note(*how)
        if self._failed[what] < _STRIKES:
            return
        if what == "get":
            self._give_up(how)
        else:
            self.stop_sending(how)

    def stop_sending(self, why: Fault) -> None:
        """Send nothing more."""
        self.refusal = self.refusal or why
        self.traffic.note(*why, then="nothing more was sent there")

    def _give_up(self, why: Fault) -> None:
        self.fault = self.fault or why
        self.refusal = self.refusal or why
        self.traffic.note(*why, then="it was left alone")


def _store(address: Address, seconds: float, token: str, makes: bool) -> Any:
    """Return obstore's store for an address."""
    from datetime import timedelta
    from urllib.parse import unquote

    from obstore.store import HTTPStore, LocalStore, from_url

    if address.scheme == "file":
        return LocalStore(unquote(address.url.removeprefix("file://")), mkdir=makes)
    limit = timedelta(seconds=seconds)
    options: Any = {
        "timeout": limit,
        "connect_timeout": limit / 2,
        "allow_http": True,  # or it would refuse what the URL asks for
        "pool_max_idle_per_host": str(AT_ONCE),
    }
    # One more try costs less than a miss; a store that needs more of them is too slow for us.
    retry: Any = {"max_retries": 0, "retry_timeout": limit}
    if address.scheme not in ("http", "https"):
        return from_url(address.url, client_options=options, retry_config=retry)
    said = f"Bearer {token}" if token else f"Basic {address.login}" if address.login else ""
    if said:
        options["default_headers"] = {"authorization": said}
    return HTTPStore(address.url, client_options=options, retry_config=retry)


def _body(result: Any, most: int, is_file: bool) -> bytes | None:
    """Return what an answer holds; None, without reading on, if that is more than it may be."""
    size = result.meta["size"]
    if size > most:
        return None
    if is_file:  # which has no more than its size
        return bytes(result.bytes())
    found = bytearray()
    # The size is what a server says; what it sends may have no end.
    for chunk in result.stream(min_chunk_size=max(1, size)):
        found += chunk
        if len(found) > most:
            return None
    return bytes(found)
