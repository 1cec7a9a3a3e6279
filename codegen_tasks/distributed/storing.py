"""The remote cache as a process of a worker uses it: what is there is told, what is made is sent.

Contents are not fetched: whoever leads the run does that itself.  Unaware of Dask.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

from .. import actions, address
from ..actions import Stored
from ..errors import DeclarationError
from ..model import Result, Step, Trace
from ..outputs import OutputCache, writes
from ..project import Project
from ..remote import parcels
from ..remote.cache import RemoteCache
from ..remote.parcels import Blob
from ..settings import Settings, switch
from ..store import Store
from ..traffic import Traffic
from ..world import World
from .messages import Access, Afar, Delivery, Shared

_VARIABLE = "CODEGEN_REMOTE_CACHE"
#: Once so many bytes are to be fetched for one order, its other steps are left for another.
_MUCH = 64_000_000
#: To wait for what is sent may take so many times the limit of one transfer, and besides that a
#: part of the time for which steps have run, and what so many bytes a second take.
_BUDGET, _PART, _RATE = 2, 0.1, 5_000_000


def shared(settings: Settings, run: str) -> Shared | None:
    """Return what workers are told of the remote cache, if there is one.

    Args:
        settings: of the run.
        run: its name.
    """
    if not settings.asks_afar:
        return None
    url = address.parsed("remote_cache", settings.remote_cache).url
    secret = os.fsencode(os.environ.get(f"{_VARIABLE}_KEY", ""))
    said = f"{run} {url}"
    proof = parcels.proof(secret, said)
    return Shared(url, settings.remote_cache_seconds, writes(settings), proof, said)


def access(shared: Shared, environ: Mapping[str, str]) -> Access | str:
    """Return how a worker may use the remote cache of a run; or why it may not.

    Args:
        shared: what the run says of it.
        environ: of the worker: what is secret is told nowhere else.
    """
    secret = os.fsencode(environ.get(f"{_VARIABLE}_KEY", ""))
    if parcels.proof(secret, shared.said) != shared.proof:
        return "its key is not that of here" if secret else "it has no key"
    url = environ.get(_VARIABLE) or shared.url
    try:
        address.parsed(_VARIABLE, url)
    except DeclarationError as error:
        return f"its {error.where} {error.what}"
    # Whatever else it says is no leave to write.
    said = environ.get(f"{_VARIABLE}_WRITE", "").strip().lower()
    may_write = said in ("", "auto") or switch(said) is True
    token = environ.get(f"{_VARIABLE}_TOKEN", "")
    return Access(url, shared.seconds, shared.writes and may_write, secret, token)


class Storing:
    """The remote cache as one process uses it, for all projects of a `dodo.py`.

    Args:
        access: how.
    """

    def __init__(self, access: Access):
        where = address.parsed(_VARIABLE, access.url)
        self._remote = RemoteCache(
            where, access.seconds, access.secret, access.token, access.writes
        )
        self._shelves: dict[str, _Shelf] = {}
        self._told = Traffic()
        self._left = _BUDGET * access.seconds  # to be waited

    def found(
        self,
        project: Project,
        world: World,
        steps: Sequence[Step],
        ask: Callable[[str], None],
    ) -> tuple[dict[str, Delivery], set[str]]:
        """Return what is there of some steps that are to be run, by task, and whom to leave.

        Those that are left are neither to be run nor asked about now: whoever leads the run has
        much to fetch before.

        Args:
            project: theirs.
            world: its facts.
            steps: these.
            ask: is called with each path that is about to be looked at; may raise.
        """
        shelf = self._shelf(project, world)
        shelf.expect(steps, dict.fromkeys((step.task for step in steps), ask))
        known: dict[str, Delivery] = {}
        left: set[str] = set()
        room = _MUCH
        for step in steps:
            if room <= 0:
                left.add(step.task)
                continue
            found = shelf.delivery(step)
            if found is not None:
                known[step.task] = found
                room -= sum(afar.size for afar in found.afar.values())
        return known, left

    def send(self, project: Project, world: World, step: Step, result: Result) -> None:
        """Have what a step came to sent there, if it is kept and may be sent."""
        size = sum(map(len, result.outputs.values()))
        self._left += _PART * result.seconds + size / _RATE
        self._shelf(project, world).send(step, result)

    def sent(self) -> Iterator[tuple[str, Delivery]]:
        """Wait for what is being sent, for a limited time; yield task and delivery of what is.

        What is there later than that, is told nobody any more: its result travels by itself.
        """
        self._left = self._remote.settle(max(0.0, self._left))
        for shelf in self._shelves.values():
            yield from shelf.sent()

    def traffic(self) -> Traffic:
        """Return what went to and fro since this was asked last; what was not sent, others do."""
        before, self._told = self._told, replace(self._remote.so_far(), unsent=0)
        return self._told.since(before)

    def _shelf(self, project: Project, world: World) -> _Shelf:
        if project.name not in self._shelves:
            self._shelves[project.name] = _Shelf(project, world, self._remote)
        return self._shelves[project.name]


class _Shelf(OutputCache):
    """What the remote cache has of one project; on the worker itself nothing is kept."""

    def __init__(self, project: Project, world: World, remote: RemoteCache):
        nowhere = Store(os.path.join(project.full(project.home), "no store"))
        super().__init__(project, world, remote, nowhere)
        self._remote = remote
        self._sent: SimpleQueue[tuple[int, str, Delivery]] = SimpleQueue()
        self._round = 0  # how often it was asked what has been sent

    def _holds(self, content: str) -> bool:
        return True  # it is not we who need it

    def delivery(self, step: Step) -> Delivery | None:
        """Return what is there of a step, if it was expected and is there."""
        for one in self._expected.pop(step.task, ()):
            came = self._remote.take(one.key)
            if came is None or not actions.answers(came.stored, step, one.reads, one.look.digests):
                continue
            # As it is here: a store could say anything of what it was.
            look = replace(one.look, stats=(None,) * len(one.reads))
            inputs = self._looks.signed(came.stored.result.inputs, look)
            result = replace(came.stored.result, inputs=inputs)
            delivery = _delivery(replace(came.stored, result=result), came.blobs, True)
            if delivery is not None:
                return delivery
        return None

    def send(self, step: Step, result: Result) -> None:
        """See `Storing.send`."""
        if self.passes_over(step, result.seconds) or not self._remote.writes:
            return
        if self._unfit(step, Trace(result.inputs, (), ""), result):
            return
        text, beside = actions.written(result)
        own, reads, key = self._filed(step, result.inputs)
        stored = actions.stored_in(text)
        if stored is None:
            return  # nobody could read it
        told = partial(self._is_there, self._round, step.task, stored)
        self._remote.send(key, text, beside, told)
        self._sets.send(step, own, reads)

    def _is_there(self, number: int, task: str, stored: Stored, blobs: Mapping[str, Blob]) -> None:
        """Note, in another thread, that a result has been sent."""
        delivery = _delivery(stored, blobs, False)
        if delivery is not None:
            self._sent.put((number, task, delivery))

    def sent(self) -> Iterator[tuple[str, Delivery]]:
        """Yield task and delivery of what was given since this was asked last, and is sent."""
        now, self._round = self._round, self._round + 1
        with contextlib.suppress(Empty):
            while True:
                number, task, delivery = self._sent.get_nowait()
                if number == now:
                    yield task, delivery


def _delivery(stored: Stored, blobs: Mapping[str, Blob], found: bool) -> Delivery | None:
    """Return a result as it is told; None if it is not known how its contents travel."""
    afar: dict[str, Afar] = {}
    outputs: dict[str, bytes] = {}
    for one in stored.contents:
        if one.data is not None:
            outputs[one.path] = one.data
        elif one.digest in blobs:
            afar[one.path] = Afar(one.digest, one.size, blobs[one.digest])
        else:
            return None
    return Delivery(replace(stored.result, outputs=outputs), afar, found)
