"""Writing what steps make: targets, what is kept aside before, and logs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

from . import digest, disk
from .errors import StepError
from .folders import Folders
from .model import Input, Outcome, Output, Step
from .project import Project

#: Digests of a target's bytes as its trace recorded them, by path: anything else that
#: stands there was put there by somebody else.
Recorded: TypeAlias = Mapping[str, str]


@dataclass(slots=True)
class Made:
    """What the work of a step came to, before it is timed and recorded."""

    inputs: Sequence[Input] = ()
    outputs: tuple[Output, ...] = ()
    references: tuple[str, ...] = ()
    changed: bool = False
    notes: tuple[str, ...] = ()
    data: Mapping[str, bytes] = field(default_factory=dict)


class Publisher:
    """Writes the targets and logs of one project.

    Args:
        project: what was declared.
        files: what is known of the files that there are.
    """

    def __init__(self, project: Project, files: disk.FileDigests):
        self._project = project
        self._files = files

    def publish(
        self,
        made: Mapping[str, bytes],
        recorded: Recorded,
        mode: int | None = None,
        like: Mapping[str, str] = MappingProxyType({}),
    ) -> Made:
        """Write what differs; keep aside what somebody else put at a target's place."""
        outputs, notes, changed = [], [], False
        for path, data in made.items():
            full = self._project.full(path)
            content = digest.of_bytes(data)
            there = self._there(path, full)
            if there and there not in (content, recorded.get(path)):
                how = "edited by hand" if path in recorded else "there before"
                notes.append(f"{path}: was {how}, kept aside as {self.keep(path)}")
            if there != content:
                self._write(path, full, data, there is None, mode, like.get(path, ""))
                changed = True
            elif mode is not None and disk.mode_of(full) not in (mode, None):
                disk.set_mode(full, mode)
            outputs.append(Output(path, content, len(data), disk.stat(full)))
        return Made((), tuple(outputs), (), changed, tuple(notes))

    def _there(self, path: str, full: str) -> str | None:
        """Return the digest of what stands at a target's place; None if no file does."""
        try:
            return self._files.get(full)
        except OSError:
            what = "cannot read what stands there, so it is left alone"
            raise StepError(path, what, "remove it, or make it readable") from None

    def keep(self, path: str) -> str:
        """Copy a target that somebody else wrote into `kept/`; return where.

        Raises:
            StepError: it cannot be kept, so it must not be overwritten.
        """
        kept = disk.keep_aside(self._project.root, path, self._project.kept_folder)
        return kept.replace(os.sep, "/")

    def _write(
        self, path: str, full: str, data: bytes, new: bool, mode: int | None, like: str
    ) -> None:
        try:
            disk.write(full, data, unchanged=False, new=new, mode=mode, like=like)
        except StepError as error:
            hint = error.hint.replace(self._project.root + os.sep, "")
            raise StepError(path, error.what, hint) from None

    def log(self, step: Step, outcome: Outcome) -> None:
        """Keep a log for a step that printed or failed; remove an older one otherwise."""
        if not (outcome.printed or outcome.error or self._logs):
            return
        path = self._project.log_path(step.phase, step.target)
        full = self._project.full(path)
        text = outcome.printed
        if outcome.error:
            text = f"{text.rstrip()}\n\n{outcome.error}\n".lstrip("\n")
        with contextlib.suppress(StepError, OSError):
            if text.strip():
                home = self._project.full(self._project.home)
                disk.write_ours(full, text.encode("utf-8", "replace"), home)
                self._logs.add(path)
            elif path in self._logs:
                disk.remove(full)

    @cached_property
    def _logs(self) -> set[str]:
        """The logs that there are; whoever keeps logs does so under the lock."""
        folder = f"{self._project.home}/logs"
        return {f"{folder}/{name}" for name in Folders(self._project.root).walk(folder)}
