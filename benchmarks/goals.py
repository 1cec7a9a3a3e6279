"""The goals, each with what was measured, the ratio, and whether it is met.

A goal is about 10,000 patterns unless it says otherwise, and is judged on figures of one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

from compiles import HAND
from compiles import OURS as COMPILE
from measure import duration, memory
from phases import Generation
from workload import (
    COLD,
    COLD_2,
    DOIT,
    FLOOR,
    INFO,
    LOOP,
    MACRO_2,
    NINJA,
    NOTHING,
    OURS,
    PATTERN,
    SELECTED,
)

from templates import COLD as PARSED
from templates import OURS as OUR_CACHE
from templates import THEIRS, WARM

MANY, MOST = 10_000, 100_000
SECONDS, PROCESSOR, PEAK = 0, 1, 2
MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"


@dataclass(frozen=True, slots=True)
class Row:
    """One goal and what it came to.

    Args:
        key: its note's name.
        what: is measured.
        goal: in words.
        measured: figures, "" if there are none.
        verdict: met, not met or not measured.
        command: that measures it.
    """

    key: str
    what: str
    goal: str
    measured: str
    verdict: str
    command: str


class Figures:
    """Medians of the comparison, by size, case, tool and quantity."""

    def __init__(self, results: Mapping[str, Any]):
        self._runs = {
            (row["size"], row["case"], row["tool"]): row["runs"] for row in results["figures"]
        }

    def __call__(self, size: int, case: str, tool: str, quantity: int = SECONDS) -> float | None:
        """Return a median, in seconds or bytes; None if it was not measured."""
        runs = self._runs.get((size, case, tool))
        return median(run[quantity] for run in runs) if runs else None

    def count(self, size: int, case: str, tool: str) -> int:
        """Return how many runs there were."""
        return len(self._runs.get((size, case, tool), ()))


def rows(results: Mapping[str, Any]) -> Iterator[Row]:
    """Yield all goals, in the order of the table."""
    found = Figures(results)
    yield from _idle(found)
    yield from _edits(found)
    yield from _cold(found)
    yield from _steps(results)
    yield from _templates(results)
    yield from _compiles(results)
    yield from _memory(found)
    yield _database(results)


Pair: TypeAlias = tuple[float | None, float | None]
#: Size, case and tool of a figure.
Key: TypeAlias = tuple[int, str, str]


def _at_most(
    key: str,
    what: str,
    words: str,
    parts: Pair,
    limit: float,
    command: str,
    shown: Callable[[float], str] = duration,
    beside: str = "",
) -> Row:
    """Return the row of a goal that one figure is at most so many times another."""
    ours, other = parts
    times = f"{limit:g}" if limit >= 0.5 else f"1/{1 / limit:g}"
    goal = f"≤ {times} × {words}"
    if ours is None or other is None:
        return Row(key, what, goal, "", NOT_MEASURED, command)
    ratio = ours / other
    measured = f"{ratio:.2f} × ({shown(ours)} / {shown(other)}{beside})"
    return Row(key, what, goal, measured, MET if ratio <= limit else NOT_MET, command)


def _times(
    key: str, what: str, words: str, found: Figures, keys: tuple[Key, Key], limit: float
) -> Row:
    """Return the row of a goal about seconds, with the ratio of processor seconds beside."""
    cases = ",".join(dict.fromkeys(case for _, case, _ in keys))
    command = f"compare.py --sizes {keys[0][0]} --cases {cases}"
    ours, other = (found(*one, PROCESSOR) for one in keys)
    beside = f"; processor {ours / other:.2f} ×" if ours and other else ""
    parts = (found(*keys[0]), found(*keys[1]))
    return _at_most(key, what, words, parts, limit, command, beside=beside)


def _idle(found: Figures) -> Iterator[Row]:
    against = ((FLOOR, "the floor", 1.5), (NINJA, "ninja", 3.0), (DOIT, "plain doit", 1 / 6))
    for case, command in ((NOTHING, "doit"), (INFO, "doit info")):
        for tool, words, limit in against:
            keys = ((MANY, case, OURS), (MANY, NOTHING, tool))
            what = f"nothing to do, 10,000 patterns, `{command}`"
            yield _times(f"{case}-{tool}", what, words, found, keys, limit)
    keys = ((MOST, NOTHING, OURS), (MOST, NOTHING, NINJA))
    yield _times("nothing-most", "nothing to do, 100,000 patterns", "ninja", found, keys, 1)


def _edits(found: Figures) -> Iterator[Row]:
    cases = (
        (PATTERN, "one pattern of 10,000 edited", 2.0),
        (SELECTED, "one target selected of 10,000", 1.3),
    )
    for case, what, limit in cases:
        keys = ((MANY, case, OURS), (MANY, NOTHING, OURS))
        yield _times(case, what, "nothing to do", found, keys, limit)


def _cold(found: Figures) -> Iterator[Row]:
    for case, what, limit in (
        (COLD, "cold, 10,000 patterns, serial", 1.4),
        (COLD_2, "cold, 10,000 patterns, `-n 2`", 0.8),
    ):
        keys = ((MANY, case, OURS), (MANY, COLD, LOOP))
        yield _times(case, what, "the bare loop", found, keys, limit)
    keys = ((MANY, MACRO_2, OURS), (MANY, COLD_2, OURS))
    what = "a macro edited that all 10,000 use, `-n 2`"
    yield _times(MACRO_2, what, "cold `-n 2`", found, keys, 1)


def _steps(results: Mapping[str, Any]) -> Iterator[Row]:
    steps = results.get("steps", {})
    cores = results["machine"]["cores"]
    wanted = (
        ("wait", 2.7, "≥ 2.7 × faster than serial"),
        ("compute", min(cores, 3) * 0.9, f"≥ {min(cores, 3)} × (the cores), less 10 %"),
    )
    for kind, limit, goal in wanted:
        what = f"three patterns of 300 ms that {kind}, `-n 3`"
        one = Generation(**steps[kind]) if kind in steps else None
        measured, verdict = "", NOT_MEASURED
        if one is not None:
            measured = f"{one.ratio_of_work:.2f} × of the work, {one.ratio:.2f} × with start-up"
            verdict = MET if one.ratio_of_work >= limit else NOT_MET
        yield Row(f"steps-{kind}", what, goal, measured, verdict, "phases.py")


def _templates(results: Mapping[str, Any]) -> Iterator[Row]:
    suites = results.get("templates") or []
    figures = {(one["cache"], one["state"]): one["inside"] for one in _gapic(suites)}
    what, command = "gapic-generator's templates", "templates.py gapic-generator"
    cold, warm = figures.get((OUR_CACHE, PARSED)), figures.get((OUR_CACHE, WARM))
    measured, verdict = "", NOT_MEASURED
    if cold is not None and warm is not None:
        measured = f"{cold / warm:.1f} × ({duration(cold)} / {duration(warm)})"
        verdict = MET if cold / warm >= 45 else NOT_MET
    yield Row("templates-warm", f"{what}, cold / warm", "≥ 45 ×", measured, verdict, command)
    pair = (warm, figures.get((THEIRS, WARM)))
    yield _at_most("templates-jinja2", f"{what}, warm", "Jinja2's own cache", pair, 1.3, command)


def _gapic(suites: list[Any]) -> list[Any]:
    named = (suite for suite in suites if suite["suite"].startswith("gapic-generator"))
    found = next(named, None)
    return found["figures"] if found else []


def _compiles(results: Mapping[str, Any]) -> Iterator[Row]:
    sizes = {one["files"]: one["rows"] for one in results.get("compiles", [])}
    found = sizes.get(1000, {})
    pair = tuple(found[name]["seconds"] if name in found else None for name in (COMPILE, HAND))
    what, words = "compile 1,000 files", "`deno check` and `deno transpile`"
    yield _at_most("compiles", what, words, (pair[0], pair[1]), 1.3, "compiles.py 1000")


def _memory(found: Figures) -> Iterator[Row]:
    pair = (found(MANY, COLD, OURS, PEAK), found(MANY, COLD, DOIT, PEAK))
    what = "peak memory, 10,000 patterns, cold"
    command = f"compare.py --sizes {MANY} --cases {COLD}"
    yield _at_most("memory", what, "plain doit", pair, 1.5, command, memory)
    pair = (found(MOST, COLD, OURS, PEAK), found(MANY, COLD, OURS, PEAK))
    what, words = "peak memory, 100,000 patterns, cold", "that of 10,000 (linear)"
    command = f"compare.py --sizes {MANY},{MOST} --cases {COLD}"
    yield _at_most("memory-most", what, words, pair, 10, command, memory)


def _database(results: Mapping[str, Any]) -> Row:
    found = results.get("database")
    goal = "not opened, or opened in ≤ 10 ms"
    rest = ("the database, nothing to do", goal)
    if not found or found["patterns"] < MANY:
        return Row("database", *rest, "", NOT_MEASURED, "compare.py --cases database")
    took = f"{duration(found['seconds'])} to open, {found['rows']:,} rows"
    measured = f"opened: {took}" if found["opened"] else f"not opened ({took})"
    met = not found["opened"] or found["seconds"] <= 0.010
    return Row("database", *rest, measured, MET if met else NOT_MET, "compare.py --cases database")
