"""Which workers may do what: what they lack, and which of them are heard of no more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from .cluster import WorkerState, titled


class Fitness:
    """What is known against workers.

    Args:
        tell: tells the user something, once for each kind of thing.
    """

    def __init__(self, tell: Callable[[str, str], None]):
        self._tell = tell
        self._unfit: dict[str, dict[str, str]] = {}  # by tool, "" for all: workers, and why
        self._silent: set[str] = set()
        self._at_work: Mapping[str, WorkerState] = {}

    def allowed(
        self, tools: Collection[str], workers: Mapping[str, WorkerState]
    ) -> list[str] | None:
        """Return the addresses of those that may do what needs some tools; None if any may.

        Args:
            tools: names of compilers and formatters.
            workers: all that there are, by address.
        """
        against = set(self._silent).union(*(self._unfit.get(tool, ()) for tool in ("", *tools)))
        if against.isdisjoint(workers):
            return None
        return [address for address in workers if address not in against]

    def mark(self, tool: str, address: str, why: str, workers: Mapping[str, WorkerState]) -> None:
        """Note that a worker cannot do what needs a tool, or nothing at all if that is ""."""
        self._unfit.setdefault(tool, {})[address] = why
        known = workers.get(address)
        who = known.name if known is not None else address
        what = f"no steps that need {tool}" if tool else "no steps"
        left = workers.keys() - self._unfit[tool].keys()
        rest = "" if left else "; they run here"
        said = f"{titled(who)} gets {what}: {why}{rest}"
        self._tell(f"unfit {tool} {why} {bool(left)}", said)

    def silent(
        self, workers: Mapping[str, WorkerState], since: float
    ) -> list[tuple[str, WorkerState]]:
        """Return workers that have something to do and are heard of no more; tell of those gone.

        Args:
            workers: as they are.
            since: who has not been heard of after this moment, is silent.
        """
        for address in self._at_work.keys() - workers.keys():
            who = self._at_work[address].name
            self._tell("gone", f"{titled(who)} is gone, what it had to do is done elsewhere")
        self._at_work = {address: worker for address, worker in workers.items() if worker.tasks}
        found = [
            (address, worker) for address, worker in self._at_work.items() if worker.seen < since
        ]
        self._silent -= {address for address, one in workers.items() if one.seen >= since}
        for address, worker in found:
            what = "is silent, what it had to do is sent again"
            self._tell("silent", f"{titled(worker.name)} {what}")
            self._silent.add(address)
        return found
