"""The decision what is stale, and why: pure, no I/O.

One walk over what a step's trace recorded yields the verdict and its explanation, so that
`doit info` and `doit` cannot disagree.  Up to date is the empty tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from .digest import short
from .model import Input, Output, Reason, Trace

#: Returns digest and wording of an input as it is now; digest "" if it does not exist.
Current: TypeAlias = Callable[[Input], tuple[str, str]]
#: Returns the digest of an output as it lies on disk; None if it does not.
OnDisk: TypeAlias = Callable[[Output], str | None]


def verify(
    trace: Trace | None,
    declared: Sequence[tuple[str, str]],
    targets: Sequence[str],
    current: Current,
    on_disk: OnDisk,
) -> tuple[Reason, ...]:
    """Return why a step must run again; empty if what it made is as a new run would make it.

    Args:
        trace: what its last run read and wrote; None if there was none.
        declared: (kind, name) of the inputs that follow from the declaration alone.
        targets: paths of the files it is to make; empty if only the step can tell.
        current: tells an input's digest now.
        on_disk: tells an output's digest now.
    """
    if trace is None:
        return (Reason("never built"),)
    reasons = [
        *_inputs(trace, declared, current),
        *_outputs(trace, targets, on_disk),
    ]
    return tuple(reasons)


def _inputs(
    trace: Trace, declared: Sequence[tuple[str, str]], current: Current
) -> Iterator[Reason]:
    expected = set(declared)
    recorded = set()
    for item in trace.inputs:
        recorded.add(item.key)
        # Only patterns are both declared and many; one that no glob finds any more is gone
        # from the declaration, whether or not its file still exists.
        if item.kind == "pattern" and item.key not in expected:
            yield Reason("removed", item.kind, item.name, short(item.digest))
            continue
        digest, shown = current(item)
        if digest != item.digest:
            yield _difference(item, digest, shown)
    for kind, name in declared:
        if (kind, name) not in recorded:
            yield Reason("added", kind, name)


def _difference(item: Input, digest: str, shown: str) -> Reason:
    if item.kind == "missing template":
        return Reason("added", "template", item.name)
    if not item.digest:
        return Reason("added", item.kind, item.name)
    if not digest:
        return Reason("missing", item.kind, item.name, item.shown or short(item.digest))
    return Reason(
        "changed", item.kind, item.name, item.shown or short(item.digest), shown or short(digest)
    )


def _outputs(trace: Trace, targets: Sequence[str], on_disk: OnDisk) -> Iterator[Reason]:
    made = {output.path for output in trace.outputs}
    for path in targets:
        if path not in made:
            yield Reason("added", "target", path)
    for output in trace.outputs:
        digest = on_disk(output)
        if digest is None:
            yield Reason("missing", "target", output.path)
        elif digest != output.digest:
            yield Reason("edited", "target", output.path, short(output.digest), short(digest))
