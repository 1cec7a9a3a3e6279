"""Results from workers, held against what we know, and taken in as if the step had run here.

A worker that saw anything else than we do, gives a result that is not taken.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..build import Build
from ..model import DATA_KINDS, FILE_KINDS, Input, Outcome, Result, Stat, Step
from ..publish import Recorded


@dataclass(frozen=True, slots=True)
class Other:
    """What a worker saw that is not so here; and the file that it lacked, if it is one."""

    what: str
    lacked: str = ""


class Adoption:
    """Takes results of one build.

    Args:
        build: the build.
        sent: digest and signature of each file that was sent; see `Parcels.sent`.
    """

    def __init__(self, build: Build, sent: Mapping[str, tuple[str, Stat | None]]):
        self._build = build
        self._sent = sent
        # What renders have in common is looked at once; None for what is another here.
        self._known: dict[tuple[Any, ...], Input | None] = {}

    def outcome(
        self,
        step: Step,
        result: Result,
        recorded: Recorded,
        worker: str,
        since: float | None = None,
        sent: bool = False,
        found: bool = False,
    ) -> Outcome | Other:
        """Return what a step came to; or what the worker saw that is not so here.

        Args:
            step: that was run.
            result: what it came to there.
            recorded: digests of its targets when they were last made.
            worker: name of who ran it.
            since: seconds ago when it began, if that is known.
            sent: the remote cache has it.
            found: nobody has run it, since it had.
        """
        if set(result.outputs) != set(step.outputs):
            return Other("it made other files")
        inputs = []
        for item in result.inputs:
            mine = self._mine(step, item)
            if mine is None:
                return Other(f"{item.kind} {item.name}", item.name if not item.digest else "")
            inputs.append(mine)
        if since is None:
            since = 0.0 if found else result.seconds
        outcome = self._build.workshop.take_in(
            step,
            replace(result, inputs=tuple(inputs)),
            recorded,
            sent,
            found=0.0 if found else None,
        )
        return replace(outcome, worker=worker, pid=0, start=time.time_ns() - int(since * 1e9))

    def _mine(self, step: Step, item: Input) -> Input | None:
        """Return an input as a step that ran here would have it; None if it is another here."""
        if item.kind in DATA_KINDS:
            return self._of_data(item)
        tool = (step.rule, step.link) if item.kind in ("toolchain", "command") else ()
        key = (item.kind, item.name, item.digest, item.shown, item.via, tool)
        if key not in self._known:
            self._known[key] = self._compared(step, item)
        return self._known[key]

    def _of_data(self, item: Input) -> Input | None:
        """Return what was read of a file of data: its bytes were ours, so it says the same."""
        content, signature = self._sent.get(item.name, ("", None))
        if bool(content) != bool(item.digest):
            return None
        return replace(item, stat=signature)

    def _compared(self, step: Step, item: Input) -> Input | None:
        if item.kind in FILE_KINDS and item.name in self._sent:
            content, signature = self._sent[item.name]
            return replace(item, stat=signature) if content == item.digest else None
        now, _ = self._build.world.current(step, item)
        return item if now == item.digest else None
