"""Steps done by Dask workers, the rest and whatever they cannot do by processes of this machine.

What fails on a worker is run here once more, to say so in our words.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..build import Build
from ..jobs import Part, Parted, StepsJob, TaskJob, TornDown
from ..model import Outcome, Step
from ..workers import Pool
from .orders import Orders, part

#: Orders that are out at once: enough that none waits for us, and that a cluster which adapts to
#: what there is to do sees that there is much.
_DEEP, _LEAST = 6, 16
#: How often, in seconds, it is looked after what may never be heard of.
_LOOK = 0.25
#: How long, in seconds, processes here are listened to while workers may answer.
_LISTEN = 0.02


class DaskPool:
    """An `Executor`.

    Args:
        local: processes of this machine, for users' tasks and what workers cannot do.
        builds: of the `dodo.py`.
        dodo: its absolute path.
        address: see `Cluster`.
        workers: of this machine, where no scheduler is told.
        wait: seconds to wait for workers before all is done here.
        say: tells the user a line.
    """

    def __init__(
        self,
        local: Pool,
        builds: Sequence[Build],
        dodo: str,
        address: str,
        workers: int,
        wait: float,
        say: Callable[[str], None],
    ):
        self._local = local
        self._builds = builds
        self._home: deque[StepsJob | TaskJob] = deque()
        self._waiting: list[Outcome] = []  # found without any worker, to be told
        self._looked = 0.0
        # Before there are threads, which no fork should meet.
        local.grow(local.size)
        self._orders = Orders(builds, dodo, address, workers, wait, say, self._do_here)

    # What the runner asks ---------------------------------------------------------------

    @property
    def forks(self) -> bool:
        """Whether those who do users' tasks know them already."""
        return self._local.forks

    @property
    def places(self) -> int:
        """How many jobs can be under way at once."""
        return self._orders.places if self._orders.usable else self._local.places

    @property
    def busy(self) -> int:
        """Orders and jobs that have not ended."""
        return len(self._orders) + len(self._waiting) + len(self._home) + self._local.busy

    @property
    def free(self) -> int:
        """Jobs that may be submitted now."""
        if not self._orders.usable:
            return max(0, self._local.free - len(self._home))
        return max(0, _DEEP * self.places + _LEAST - len(self._orders))

    @property
    def spare(self) -> bool:
        """Nothing waits for another job here, but at the scheduler."""
        return False

    @property
    def steps_left(self) -> int:
        """How many tasks have not ended."""
        return (
            self._orders.steps + sum(len(job.tasks) for job in self._home) + self._local.steps_left
        )

    @property
    def is_whole(self) -> bool:
        """Workers come and go as they like."""
        return True

    def grow(self, jobs: int) -> None:
        """Leave that to the cluster."""

    def goes_out(self, build: int, step: Step) -> bool:
        """Tell whether a step is for workers."""
        return self._orders.goes_out(build, step)

    def under_way(self) -> list[tuple[int | str, Sequence[str]]]:
        """Return who is at work and on what; in any thread."""
        return [*self._orders.under_way(), *(one for one in self._local.under_way() if one[1])]

    def submit(self, job: StepsJob | TaskJob) -> None:
        """Have a job done, by a worker if it can be."""
        if isinstance(job, TaskJob) or not self._all_go_out(job):
            self._do_here(job)
            return
        found = self._found(job)
        self._waiting += found
        left = set(job.tasks).difference(outcome.task for outcome in found)
        if left:
            self._orders.submit(part(job, left))

    def _all_go_out(self, job: StepsJob) -> bool:
        steps = self._builds[job.build].plan.steps
        return all(self.goes_out(job.build, steps[name]) for name in job.tasks)

    def _found(self, job: StepsJob) -> list[Outcome]:
        """Return what the output cache has of a job's steps."""
        build = self._builds[job.build]
        outcomes = (
            build.workshop.known(
                build.plan.steps[name], job.recorded.get(name, {}), job.over.get(name, ())
            )
            for name in job.tasks
        )
        return [outcome for outcome in outcomes if outcome is not None]

    def take_back(self) -> list[str]:
        """Return nothing: the scheduler shares out."""
        return []

    def call_off(self) -> list[Any]:
        """Let be what nobody has begun; return those steps as skipped."""
        left = [job for job in self._home if isinstance(job, StepsJob)]
        self._home = deque(job for job in self._home if not isinstance(job, StepsJob))
        names = [*self._orders.call_off(), *(name for job in left for name in job.tasks)]
        return [Part(tuple(Outcome(name, skipped=True) for name in names))] if names else []

    def results(self, timeout: float | None = None) -> list[Any]:
        """Return results; see `Executor`."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._waiting:
                known, self._waiting = self._waiting, []
                return [Part(tuple(known))]
            self._start_here()
            now = time.monotonic()
            pause = _LOOK if end is None else max(0.0, min(_LOOK, end - now))
            here = self._local.results(min(pause, _LISTEN)) if self._local.busy else []
            rest = 0.0 if here or self._local.busy else pause
            found = [*map(self._noted, here), *self._orders.heard(rest)]
            if now - self._looked >= _LOOK:
                self._looked = now
                self._orders.look_after()
            if found or not self.busy or (end is not None and time.monotonic() >= end):
                return found

    def close(self) -> list[TornDown | Parted]:
        """Let go of the cluster; idle processes here end in order."""
        self._orders.leave()
        return [*self._orders.traffic(), *self._local.close()]

    def kill(self) -> None:
        """End everything that is ours, here and there."""
        self._local.kill()
        self._orders.leave()

    # Here -------------------------------------------------------------------------------

    def _do_here(self, job: StepsJob | TaskJob) -> None:
        """Keep a job for this machine, each step for itself unless they run together."""
        if isinstance(job, TaskJob) or job.together:
            self._home.append(job)
        else:
            self._home.extend(part(job, [name]) for name in job.tasks)

    def _start_here(self) -> None:
        while self._home and self._local.free:
            self._local.submit(self._home.popleft())

    def _noted(self, result: Any) -> Any:
        """Learn from what ran here which files compilers read."""
        for outcome in result.outcomes if isinstance(result, Part) else ():
            if outcome.trace is not None:
                read = (item.name for item in outcome.trace.inputs if item.kind == "import")
                self._orders.learn(read)
        return result
