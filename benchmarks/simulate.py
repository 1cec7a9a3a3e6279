"""simulate: a library of a million patterns on a hundred workers, from costs that were measured.

An event at a time: the run makes orders and takes in what comes back, one thing after the other;
the scheduler passes them on, one after the other; workers work at once; all bytes go over the
run's link.  What is busy all the time is what would break first.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from measure import Table, duration, plain

#: Seconds that an order should take on its worker, and its most steps; as `ready` has them.
_AFAR, _MOST = 1.0, 2048
#: Orders that are out at once: so many for each place, and so many more; as `pool` has them.
_DEEP, _LEAST = 6, 16


@dataclass(frozen=True, slots=True)
class Costs:
    """What things cost, in seconds and bytes.

    Args:
        step: that a step takes on its worker.
        ours: that the run has to do for each step: read, send, take in, write, record.
        order: that it has to do for each order besides.
        scheduler: that the scheduler has to do for each order.
        away: that a worker spends on each order besides its steps.
        sent, made: bytes of a step's inputs and outputs.
        link: bytes per second to and from the run.
        memory: bytes that the run holds for each step.
    """

    step: float
    ours: float = 0.0006
    order: float = 0.003
    scheduler: float = 0.001
    away: float = 0.01
    sent: int = 1_500
    made: int = 3_000
    link: float = 125e6
    memory: float = 15_000


@dataclass(frozen=True, slots=True)
class Came:
    """What a simulation came to: seconds, and the part of it for which each was busy."""

    seconds: float
    run: float
    scheduler: float
    link: float
    workers: float


def simulate(steps: int, workers: int, costs: Costs) -> Came:
    """Return what a build would come to."""
    size = max(1, min(int(_AFAR / max(costs.step, 1e-9)), _MOST, steps // workers or 1))
    orders = -(-steps // size)
    window = _DEEP * workers + _LEAST
    busy = {"run": 0.0, "scheduler": 0.0, "link": 0.0, "workers": 0.0}
    free = {"scheduler": 0.0, "up": 0.0, "down": 0.0}
    idle = [0.0] * workers  # when workers are free
    heapq.heapify(idle)
    back: list[float] = []  # when workers had answers
    now, out, sent, taken = 0.0, 0, 0, 0
    each_way = costs.ours / 2 * size

    def use(what: str, at: float, seconds: float) -> float:
        free[what] = max(free[what], at) + seconds
        busy["link" if what != "scheduler" else what] += seconds
        return free[what]

    while taken < orders:
        if back and (back[0] <= now or sent == orders or out >= window):
            came = use("down", heapq.heappop(back), size * costs.made / costs.link)
            now = max(now, came) + each_way + costs.order / 2
            busy["run"] += each_way + costs.order / 2
            taken, out = taken + 1, out - 1
            continue
        now += each_way + costs.order / 2
        busy["run"] += each_way + costs.order / 2
        sent, out = sent + 1, out + 1
        there = use("up", now, size * costs.sent / costs.link)
        begun = max(use("scheduler", there, costs.scheduler), heapq.heappop(idle))
        work = size * costs.step + costs.away
        busy["workers"] += work / workers
        heapq.heappush(idle, begun + work)
        heapq.heappush(back, begun + work)
    return Came(now, *(busy[name] / now for name in ("run", "scheduler", "link", "workers")))


def costs_in(path: Path | None) -> Costs:
    """Return the costs that `on_dask.py --json` has measured, or those of its authors' machine."""
    if path is None:
        return Costs(0.0)
    found: Mapping[str, float] = json.loads(path.read_text())["costs"]
    return replace(Costs(0.0), ours=found["dask processor"], memory=found["dask memory"])


def main() -> int:
    """Simulate and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patterns", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--costs", type=Path, help="figures of on_dask.py --json")
    chosen = parser.parse_args()
    costs = costs_in(chosen.costs)
    rows = []
    for milliseconds in (1, 10, 100, 1000):
        step = milliseconds / 1000
        came = simulate(chosen.patterns, chosen.workers, replace(costs, step=step))
        parts = [came.run, came.scheduler, came.link, came.workers]
        least = chosen.patterns * step / chosen.workers
        shares = [f"{part:.0%}" for part in parts]
        rows.append([f"{milliseconds:,} ms", duration(least), duration(came.seconds), *shares])
    header = ["a step takes", "at least", "simulated", "the run", "scheduler", "link", "workers"]
    title = f"{chosen.patterns:,} patterns on {chosen.workers} workers; for how long each was busy"
    print(plain(Table(title, header, rows)))
    rate, size = 1 / costs.ours, chosen.patterns * costs.memory / 1e9
    print(f"the run does {rate:,.0f} steps a second at most, and holds {size:.1f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
