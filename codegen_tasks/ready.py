"""What is ready to run: in which order, and how many steps make one job.

What takes long goes first where others could have to wait for it, the rest in the order of the
plan.  Short steps go to a worker many at a time.  Unaware of doit, and of workers.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Hashable

#: A job for a worker should take about this long, in seconds: long enough that a message
#: costs little beside it, short enough that a failure elsewhere is heard of soon.
_JOB_SECONDS = 0.05
_JOB_STEPS = 256
#: Steps that take longer than this part of a job are jobs of their own, and begun first.
_LONG = 0.4


class Ready:
    """Names of tasks that are ready.

    Args:
        workers: how many processes run them; 0 if all run in this one.
        seconds: that a job should take; None for those of this machine.
    """

    def __init__(self, workers: int, seconds: float | None = None):
        self.workers = workers
        self._far = seconds is not None
        self._seconds = _JOB_SECONDS if seconds is None else seconds
        self._heap: list[tuple[float, int, int, str]] = []
        self._serial = itertools.count()
        self._pace = 0.0  # seconds that a step takes, as far as is known: the last count most

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, name: str, place: int, seconds: float) -> None:
        """Add a task.

        Args:
            name: its name.
            place: in the plan; tasks of one place go in the order in which they were added.
            seconds: that it took the last time, 0 if that is not known.
        """
        if self._far and not self._pace and 0 < seconds < math.inf:
            self._pace = seconds  # what goes far is not sent to find that out
        long = seconds if self.workers > 1 and seconds > self._long else 0.0
        heapq.heappush(self._heap, (-long, place, next(self._serial), name))

    @property
    def first(self) -> str:
        """The one that goes next."""
        return self._heap[0][-1]

    def take(self) -> str:
        """Take the one that goes next."""
        return heapq.heappop(self._heap)[-1]

    def take_job(self, kind: Callable[[str], Hashable]) -> list[str]:
        """Take what goes next as one job: by itself if it takes long, or with others of a kind.

        Args:
            kind: tells what may go together; None goes alone.
        """
        alone = bool(self._heap[0][0])
        chosen = [self.take()]
        first = kind(chosen[0])
        most = 1 if alone or first is None else self._job_size()
        while self._heap and len(chosen) < most and kind(self.first) == first:
            chosen.append(self.take())
        return chosen

    def clear(self) -> None:
        """Drop all of them."""
        self._heap.clear()

    # How long steps take ----------------------------------------------------------------

    def took(self, seconds: float) -> None:
        """Learn how long a step took."""
        self._pace += (seconds - self._pace) / (8 if self._pace else 1)

    @property
    def is_short(self) -> bool:
        """Whether steps are known to be short, so that a worker may have some in advance."""
        return 0 < self._pace <= self._long

    @property
    def _long(self) -> float:
        return _LONG * self._seconds

    def may_wait(self, offered: bool) -> bool:
        """Tell whether what goes next may be given to a worker that has something to do.

        Args:
            offered: more is to come at once, so that a job had better wait for that.
        """
        short = self.is_short and not self._heap[0][0]
        return short and (not offered or len(self._heap) >= self._worth())

    def _job_size(self) -> int:
        """Return how many steps the next job takes: one, until we know how long they are."""
        if not self._pace:
            return 1
        fair = len(self._heap) // max(1, self.workers)
        return max(1, min(self._worth(), fair))

    def _worth(self) -> int:
        """Return how many steps are worth a job."""
        most = _JOB_STEPS * (8 if self._far else 1)
        return max(1, min(int(self._seconds / self._pace), most))
