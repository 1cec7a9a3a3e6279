"""A run as a trace of Chrome's format, for Perfetto and other viewers.

One complete event ("X") a step, times in microseconds, on the thread of the process that ran
it; see the Trace Event Format of the Chromium project.  Steps that shared a compiler lie one
after the other inside the event of their batch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from ..runs import Run, StepRun
from .figures import Lane, Unit, lanes, units

#: Larger than any process id.
_ELSEWHERE = 1 << 22


def trace(run: Run, name: str, critical: Collection[str]) -> str:
    """Return the text of the trace file.

    Args:
        run: what to show.
        name: of the project.
        critical: tasks on the critical path.
    """
    found = lanes(run, units(run.steps))
    head = run.head
    document = {
        "displayTimeUnit": "ms",
        "otherData": {"run": head.number, "began": head.began, "ended": head.ended},
        "traceEvents": [
            _named("process_name", head.pid, head.pid, f"{name}, run {head.number}"),
            *(
                event
                for number, lane in enumerate(found)
                for event in _events(lane, number, head.pid, critical)
            ),
        ],
    }
    return json.dumps(document, separators=(",", ":"))


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _events(
    lane: Lane, place: int, pid: int, critical: Collection[str]
) -> Iterator[dict[str, Any]]:
    # A thread needs a number; what ran elsewhere gets one that no process here has.
    own = _ELSEWHERE + place if lane.where == "elsewhere" else lane.pid
    for number, row in enumerate(lane.rows):
        tid = own if number == 0 else own * 100 + number
        yield _named("thread_name", pid, tid, f"{lane.name} ({lane.where})")
        ends = [*(round(unit.start * 1e6) for unit in row[1:]), None]
        for unit, end in zip(row, ends, strict=True):
            yield from _event(unit, pid, tid, critical, end)


def _event(
    unit: Unit, pid: int, tid: int, critical: Collection[str], end: int | None
) -> Iterator[dict[str, Any]]:
    """Yield the events of a unit, none of which goes on after `end`: viewers refuse an overlap."""
    common = {"ph": "X", "pid": pid, "tid": tid, "cat": unit.phase or "other"}
    start = round(unit.start * 1e6)
    last = start + round(unit.seconds * 1e6)
    last = last if end is None else min(last, end)
    if len(unit.steps) > 1:
        name = f"{len(unit.steps)} together"
        yield {**common, "name": name, "ts": start, "dur": last - start}
    for step in unit.steps:
        length = min(round(step.seconds * 1e6), last - start)
        args = _arguments(step, step.task in critical)
        yield {**common, "name": step.task, "ts": start, "dur": length, "args": args}
        start += length


def _arguments(step: StepRun, critical: bool) -> dict[str, Any]:
    args: dict[str, Any] = {"outcome": step.outcome, "reasons": list(step.reasons)}
    if step.hits or step.misses:
        args |= {"hits": step.hits, "misses": step.misses}
    if critical:
        args["critical"] = True
    return args
