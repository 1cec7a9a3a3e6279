"""Why the output cache does not know what a step would make: by the nearest result that it has.

Told by the walk that tells why a target is stale, with a kept result in place of the last run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from . import actions, disk
from .actions import Stored
from .model import Output, Reason, Step, Trace
from .staleness import verify
from .store import ACTIONS, Store
from .world import World


@dataclass(frozen=True, slots=True)
class Miss:
    """Results that there are for a step's targets, none of which is what it would make now.

    Args:
        results: how many.
        reasons: in what the nearest differs; empty if that is not in its inputs.
    """

    results: int
    reasons: tuple[Reason, ...] = ()


def explained(step: Step, store: Store, world: World) -> Miss:
    """Return why a step is a miss; looks through all of the store."""
    found = [_differences(step, stored, world) for stored in _results(step, store)]
    return Miss(len(found), min(found, key=len)) if found else Miss(0)


def _results(step: Step, store: Store) -> Iterator[Stored]:
    """Yield the results for a step's targets, the newest first."""
    named = json.dumps(step.outputs[0], ensure_ascii=False).encode("utf-8", "surrogatepass")
    held = [one for one in store.held() if one.kind == ACTIONS]
    for one in sorted(held, key=lambda one: one.used, reverse=True):
        try:
            raw = disk.read(one.path)
        except OSError:
            continue
        stored = actions.stored_in(raw) if named in raw else None
        if stored is not None and {made.path for made in stored.contents} == set(step.outputs):
            yield stored


def _differences(step: Step, stored: Stored, world: World) -> tuple[Reason, ...]:
    outputs = tuple(Output(one.path, one.digest, one.size) for one in stored.contents)
    return verify(
        Trace(stored.result.inputs, outputs, ""),
        world.declared(step),
        step.outputs,
        lambda item: world.current(step, item),
        lambda output: output.digest,
    )
