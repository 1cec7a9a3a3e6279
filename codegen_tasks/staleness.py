"""The decision what is stale, and why: pure, no I/O.

One walk over what a step's trace recorded yields the verdict and its explanation, so that
`doit info` and `doit` cannot disagree.  Up to date is the empty tuple.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from . import keys
from .digest import short
from .model import DATA_KINDS, FACT_KINDS, Input, Output, Reason, Trace

#: So many changes of one input are named, the others counted.
_NAMED = 3
_VERSION = re.compile(r"\d+(?:\.\d+)+\S*")

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
            chain = _chain(trace, item)
            for reason in _differences(item, digest, shown):
                yield replace(reason, chain=chain) if chain else reason
    for kind, name in declared:
        if (kind, name) not in recorded:
            yield Reason("added", kind, name)


def _chain(trace: Trace, item: Input) -> tuple[str, ...]:
    """Return the templates through which a step came to load another."""
    if not item.via:
        return ()
    loaders = {one.name: one.via for one in trace.inputs if one.kind == "template"}
    chain: list[str] = []
    name = item.via
    while name and name not in chain:
        chain.append(name)
        name = loaders.get(name, "")
    return tuple(chain[:-1])  # the last is the rule's own, which the target is known by


def _differences(item: Input, digest: str, shown: str) -> Iterator[Reason]:
    if item.kind == "missing template":
        yield Reason("added", "template", item.name)
    elif not item.digest:
        yield Reason("added", item.kind, item.name)
    elif not digest:
        yield Reason("missing", item.kind, item.name, _known(item) or short(item.digest))
    elif found := _parts(item, shown):
        for key, old, new in found[:_NAMED]:
            yield Reason("changed", item.kind, item.name, old, new, key)
        if len(found) > _NAMED:
            more = f"{len(found) - _NAMED} more"
            yield Reason("changed", item.kind, item.name, short(item.digest), short(digest), more)
    elif item.kind == "toolchain":
        yield Reason("changed", item.kind, item.name, *_versions(item, shown, digest))
    else:
        yield Reason("changed", item.kind, item.name, short(item.digest), short(digest))


def _known(item: Input) -> str:
    return item.shown if item.kind == "toolchain" else ""


def _parts(item: Input, shown: str) -> list[tuple[str, str, str]]:
    """Return (which, old, new) of the parts of an input that differ; [] if that is not known."""
    if item.kind in DATA_KINDS:
        return keys.changes(item.reads, item.shown, shown)
    if item.kind == "global" and item.shown and shown:
        return [("", item.shown, shown)]
    if item.kind not in FACT_KINDS:
        return []
    try:
        before, after = json.loads(item.shown), json.loads(shown)
    except ValueError:
        return []
    return [
        (key, before.get(key, "default"), after.get(key, "default"))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def _versions(item: Input, shown: str, digest: str) -> tuple[str, str]:
    """Return two versions of a compiler as short as they can be told apart."""
    numbers = [_VERSION.search(text) for text in (item.shown, shown)]
    first, second = ((found[0] if found else "") for found in numbers)
    if first and second and first != second:
        return first, second
    if item.shown != shown:
        return item.shown, shown
    return short(item.digest), short(digest)


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
