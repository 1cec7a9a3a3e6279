"""Numbers and names as the report and the terminal show them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..runs import Head


def duration(seconds: float) -> str:
    """Return a length of time with about three digits, such as `1.25 s` or `840 µs`."""
    if seconds >= 99.95:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    if seconds >= 0.9995:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    if seconds >= 0.0009995:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.00995 else f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e6:.0f} µs"


def tick(seconds: float) -> str:
    """Return a round length of time, such as `2.5 s` or `500 ms`."""
    if seconds >= 1:
        return f"{seconds:g} s"
    return f"{seconds * 1e3:g} ms" if seconds >= 0.001 else f"{seconds * 1e6:g} µs"


def number(count: int) -> str:
    """Return a count with its thousands apart."""
    return f"{count:,}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return `1 step`, `2 steps`, `2 misses`."""
    return f"{number(count)} {noun if count == 1 else plural or noun + 's'}"


def when(head: Head) -> str:
    """Return when a run began, in the time of this machine."""
    try:
        return datetime.fromtimestamp(head.start / 1e9).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return head.began


def selection(head: Head) -> str:
    """Return what a run was asked for."""
    return " ".join(head.selected) or "everything"


def made(head: Head) -> str:
    """Return what the steps of a run came to: `12 generated, 3 compiled`."""
    parts = [
        f"{number(count)} {how}"
        for how, count in head.outcomes.items()
        if how not in ("done", "written")
    ]
    return ", ".join(parts) or "nothing"


def some(names: Sequence[str], most: int = 3) -> str:
    """Return names for reading: all of a few, the first of many and their number."""
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {number(len(names) - most)} more"
