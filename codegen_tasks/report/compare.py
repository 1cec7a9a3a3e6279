"""What differs between two runs, in lines for a terminal; pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..runs import Head, Run, StepRun
from .figures import causes
from .words import counted, duration, made, number, selection, some, when

#: A step counts as slower or faster from this factor and these seconds on.
_FACTOR = 1.25
_SECONDS = 0.005
_NAMED = 5


def compared(first: Run, second: Run) -> Iterator[str]:
    """Yield the lines."""
    yield from _heads(first.head, second.head)
    before, after = _ran(first), _ran(second)
    for run, own, other in ((first, before, after), (second, after, before)):
        names = sorted(name for name in own if name not in other)
        if names:
            yield f"only in run {run.head.number}: {counted(len(names), 'step')}"
            yield f"  {some(names)}"
    both = [(before[name], after[name]) for name in sorted(before) if name in after]
    if both:
        yield f"in both: {counted(len(both), 'step')}"
    yield from _changed(both)
    yield from _paces(both)
    yield from _reasons(first, second)
    if before.keys() == after.keys() and not _differ(both):
        yield "the same steps ran, and came to the same"


def _ran(run: Run) -> dict[str, StepRun]:
    return {step.task: step for step in run.steps if step.outcome != "not run"}


def _heads(first: Head, second: Head) -> Iterator[str]:
    rows = [
        ("", f"run {first.number}", f"run {second.number}"),
        ("began", when(first), when(second)),
        ("asked for", _short(selection(first)), _short(selection(second))),
        ("took", duration(first.seconds), _against(second.seconds, first.seconds)),
        ("workers", str(first.workers or "none"), str(second.workers or "none")),
        ("ended", first.ended, second.ended),
        ("steps", number(first.steps), number(second.steps)),
        ("up to date", number(first.up_to_date), number(second.up_to_date)),
        ("templates", _cache(first), _cache(second)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, left, right in rows:
        yield f"{name:{widths[0]}}  {left:{widths[1]}}  {right}".rstrip()
    yield f"run {first.number} came to: {made(first)}"
    yield f"run {second.number} came to: {made(second)}"


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:23] + "…"


def _against(now: float, before: float) -> str:
    said = duration(now)
    if before <= 0 or duration(before) == said:
        return said
    change = 100 * (now - before) / before
    if abs(change) < 0.5:
        return said
    return f"{said} ({change:+.0f} %)" if change < 900 else f"{said} ({now / before:.0f} times)"


def _cache(head: Head) -> str:
    hits, misses = counted(head.hits, "hit"), counted(head.misses, "miss", "misses")
    return f"{hits}, {misses}"


def _differ(both: Sequence[tuple[StepRun, StepRun]]) -> bool:
    return any(a.outcome != b.outcome for a, b in both)


def _changed(both: Sequence[tuple[StepRun, StepRun]]) -> Iterator[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for a, b in both:
        if a.outcome != b.outcome:
            found.setdefault((a.outcome, b.outcome), []).append(a.task)
    for (old, new), names in found.items():
        yield f"{old} → {new}: {some(names)}"


def _paces(both: Sequence[tuple[StepRun, StepRun]]) -> Iterator[str]:
    slower = [pair for pair in both if _is_slower(*pair)]
    faster = [(a, b) for a, b in both if _is_slower(b, a)]
    for word, pairs in (("slower", slower), ("faster", faster)):
        if not pairs:
            continue
        pairs.sort(key=lambda pair: -abs(pair[1].seconds - pair[0].seconds))
        yield f"{word}: {counted(len(pairs), 'step')}"
        width = max(len(a.task) for a, _ in pairs[:_NAMED])
        for a, b in pairs[:_NAMED]:
            yield f"  {a.task:{width}}  {duration(a.seconds)} → {_against(b.seconds, a.seconds)}"


def _is_slower(a: StepRun, b: StepRun) -> bool:
    return b.seconds - a.seconds >= _SECONDS and b.seconds >= a.seconds * _FACTOR


def _reasons(first: Run, second: Run) -> Iterator[str]:
    for run in (first, second):
        found = causes(run)
        if found:
            yield f"why, in run {run.head.number}:"
            for cause in found[:_NAMED]:
                yield f"  {number(len(cause.tasks))} × {cause.text}"
            if len(found) > _NAMED:
                yield f"  and {counted(len(found) - _NAMED, 'more reason')}"
