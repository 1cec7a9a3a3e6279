"""What workers have put into the remote cache, or found there, fetched in the background.

It is told by digest, and nothing else is taken for it.  What does not come is to be sent by the
worker; a store from which too much does not come is given nothing more by workers.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ..build import Build
from ..jobs import Parted, StepsJob
from ..model import Result
from ..remote.parcels import Blob
from ..traffic import Traffic
from . import answers
from .messages import Delivery

if TYPE_CHECKING:
    from ..remote.cache import RemoteCache

#: So many results are fetched at once.
_TOGETHER = 256
#: So many bytes are fetched at once, if more than one answer is complete with less; and not more
#: while so many that have come have not been taken.
_MUCH = 64_000_000
#: After so many results that were not there for us, workers send all.
_LOST = 8


@dataclass(slots=True)
class Opened:
    """The results in an answer.

    Args:
        results: by task, complete.
        sent: tasks of which the remote cache has the result.
        found: tasks that nobody has run, since it had.
        lost: tasks whose results it was said to have, and has not.
    """

    results: dict[str, Result] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Awaited:
    """An answer, `what` it is the answer to, and what is to be fetched of it, by task."""

    what: Any
    answer: Mapping[str, Any]
    build: int
    opened: Opened
    deliveries: Mapping[str, Delivery]

    @property
    def size(self) -> int:
        """Bytes of what is to be fetched."""
        every = self.deliveries.values()
        return sum(afar.size for delivery in every for afar in delivery.afar.values())


class Deliveries:
    """Opens the answers of workers, and fetches what they only name.

    Args:
        builds: whose steps are run.
        tell: tells the user something, once for each kind of thing.
    """

    def __init__(self, builds: Sequence[Build], tell: Callable[[str, str], None]):
        self._builds = builds
        self._tell = tell
        self._wanted: SimpleQueue[_Awaited] = SimpleQueue()
        self._came: SimpleQueue[_Awaited] = SimpleQueue()
        self._under_way: list[_Awaited] = []
        self._fetching = False
        self._taken = threading.Condition()
        self._held = 0  # bytes that have come, or are coming, and have not been taken
        self._lost: set[tuple[int, str]] = set()  # tasks, by build
        self._traffic: dict[int, Traffic] = {}  # of workers, by build

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def whats(self) -> list[Any]:
        """What the answers that are not complete yet are answers to."""
        return [one.what for one in self._under_way]

    def begin(self) -> None:
        """Have this process use the remote cache: it forks no more, unless a worker dies."""
        for build in self._builds:
            if build.project.settings.asks_afar and not build.workshop.asks_afar:
                build.workshop.settle_here()

    def use(self, job: StepsJob) -> tuple[bool, bool]:
        """Return whether the remote cache may be used for a job, and whether it was in vain."""
        again = any((job.build, name) in self._lost for name in job.tasks)
        remote = self._remote(job.build)
        useful = remote is not None and remote.answers and len(self._lost) < _LOST
        return useful and not again, again

    def _remote(self, build: int) -> RemoteCache | None:
        outputs = self._builds[build].workshop.outputs
        return outputs.remote if outputs is not None else None

    def open(self, what: Any, build: int, answer: Mapping[str, Any]) -> Opened | None:
        """Return the results in an answer; None if some of them are still to come.

        Args:
            what: it is the answer to.
            build: index of the steps' build.
            answer: see `Mirror.work`.

        Raises:
            Exception: it holds anything else.
        """
        opened, deliveries = Opened(), {}
        for task, pickled in answer.get("made", {}).items():
            made = answers.made(pickled)
            if isinstance(made, Delivery):
                opened.sent.add(task)
                opened.found |= {task} if made.found else set()
                if made.afar:
                    deliveries[task] = made
                    continue
                made = made.result
            opened.results[task] = made
        if not deliveries:
            return opened
        awaited = _Awaited(what, answer, build, opened, deliveries)
        self._under_way.append(awaited)
        self._wanted.put(awaited)
        if not self._fetching:
            self._fetching = True
            threading.Thread(target=self._fetch_all, daemon=True).start()
        return None

    def come(self) -> list[tuple[Any, Mapping[str, Any], Opened]]:
        """Return answers whose results have come since: what to, the answer, and they."""
        found = []
        try:
            while True:
                one = self._came.get_nowait()
                self._under_way = [other for other in self._under_way if other is not one]
                with self._taken:
                    self._held -= one.size
                    self._taken.notify()
                self._note_lost(one)
                found.append((one.what, one.answer, one.opened))
        except Empty:
            return found

    def _note_lost(self, one: _Awaited) -> None:
        if one.opened.lost:
            what = "what is in the remote cache for a worker is not there for us, so it is sent"
            self._tell("lost", what)
            self._lost |= {(one.build, task) for task in one.opened.lost}

    # What went to and fro ---------------------------------------------------------------

    def note(self, build: int, answer: Mapping[str, Any], worker: str) -> None:
        """Count what went between a worker and the remote cache; tell if it is left alone."""
        if answer.get("aside"):
            what = "asks nothing of the remote cache, and sends what it makes here"
            self._tell(f"aside {answer['aside']}", f"{worker} {what}: {answer['aside']}")
        if answer.get("traffic"):
            traffic = Traffic(**answer["traffic"])
            if traffic.fault:
                traffic.fault = f"for {worker} it {traffic.fault}"
            if traffic.slip:
                traffic.slip = f"for {worker} it {traffic.slip}"
            self._traffic.setdefault(build, Traffic()).include(traffic)

    def traffic(self) -> list[Parted]:
        """Return what went between the remote cache and workers, or us; have ours sent."""
        found = [Parted(build, traffic) for build, traffic in self._traffic.items()]
        self._traffic.clear()
        ours = enumerate(build.workshop.traffic() for build in self._builds)
        return [*found, *(Parted(index, traffic) for index, traffic in ours)]

    # In the thread ----------------------------------------------------------------------

    def _fetch_all(self) -> None:
        while True:
            waiting = [self._wanted.get()]
            with contextlib.suppress(Empty):
                while (
                    sum(len(one.deliveries) for one in waiting) < _TOGETHER
                    and sum(one.size for one in waiting) < _MUCH
                ):
                    waiting.append(self._wanted.get_nowait())
            with self._taken:
                self._taken.wait_for(lambda: self._held < _MUCH)
                self._held += sum(one.size for one in waiting)
            by_build: defaultdict[int, list[_Awaited]] = defaultdict(list)
            for one in waiting:
                by_build[one.build].append(one)
            for build, some in by_build.items():
                self._fetch(build, some)

    def _fetch(self, build: int, waiting: Sequence[_Awaited]) -> None:
        contents: Mapping[str, bytes] = {}
        with contextlib.suppress(Exception):  # whatever happens, nobody waits for ever
            contents = self._contents(build, waiting)
        for one in waiting:
            for task, delivery in one.deliveries.items():
                self._complete(task, delivery, contents, one.opened)
            self._came.put(one)

    def _contents(self, build: int, waiting: Sequence[_Awaited]) -> Mapping[str, bytes]:
        remote = self._remote(build)
        if remote is None:
            return {}
        wanted: dict[str, tuple[Blob, int]] = {}
        for one in waiting:
            for delivery in one.deliveries.values():
                remote.spares(delivery.result.seconds)
                wanted |= {afar.digest: (afar.blob, afar.size) for afar in delivery.afar.values()}
        return remote.contents(wanted)

    @staticmethod
    def _complete(
        task: str, delivery: Delivery, contents: Mapping[str, bytes], opened: Opened
    ) -> None:
        known = {path: contents.get(afar.digest) for path, afar in delivery.afar.items()}
        fetched = {path: data for path, data in known.items() if data is not None}
        if len(fetched) < len(known):
            opened.lost.append(task)
            return
        outputs = {**delivery.result.outputs, **fetched}
        opened.results[task] = replace(delivery.result, outputs=outputs)
