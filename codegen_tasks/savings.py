"""What the output cache has done for a project, counted over its runs; derived, never needed."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from . import disk
from .errors import CodegenError
from .model import Outcome
from .outputs import KEPT, RESTORED, store_of
from .project import Project

VERSION = 1


@dataclass(slots=True)
class Savings:
    """Steps by what became of them in the output cache.

    Args:
        restored: steps whose outputs were taken from it.
        kept: steps whose outputs were added to it.
        unkept: the others, by why.
        seconds: what the restored ones had taken, less what restoring them took.
        added: bytes by which the store has grown.
    """

    restored: int = 0
    kept: int = 0
    unkept: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    added: int = 0

    @property
    def steps(self) -> int:
        """All that asked it."""
        return self.restored + self.kept + self.unkept.total()

    def take(self, outcome: Outcome) -> None:
        """Count a step."""
        if not outcome.cached:
            return
        if outcome.cached == RESTORED:
            self.restored += 1
            self.seconds += outcome.saved
        elif outcome.cached == KEPT:
            self.kept += 1
            self.added += outcome.stored
        else:
            self.unkept[outcome.cached] += 1

    def include(self, other: Savings) -> None:
        """Add those of other runs."""
        self.restored += other.restored
        self.kept += other.kept
        self.unkept += other.unkept
        self.seconds += other.seconds

    def end(self, project: Project) -> None:
        """Add what a run has counted to the project's count, and let the store tidy up."""
        if not self.steps:
            return
        if self.kept:
            settings = project.settings
            most, days = settings.output_cache_bytes, settings.output_cache_days
            store_of(project).grown(self.added, most, days)
        total = load(project)
        total.include(self)
        data = {
            "version": VERSION,
            "restored": total.restored,
            "kept": total.kept,
            "unkept": total.unkept,
            "seconds": round(total.seconds, 3),
        }
        text = json.dumps(data, indent=1) + "\n"
        with contextlib.suppress(CodegenError):
            disk.write_ours(project.full(_path(project)), text.encode(), project.full(project.home))


def load(project: Project) -> Savings:
    """Return a project's count; what cannot be read counts as nothing."""
    try:
        data: Any = json.loads(disk.read(project.full(_path(project))))
        if data["version"] != VERSION:
            return Savings()
        unkept = Counter({"" + why: 0 + number for why, number in data["unkept"].items()})
        return Savings(0 + data["restored"], 0 + data["kept"], unkept, 0.0 + data["seconds"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Savings()


def forget(project: Project) -> None:
    """Begin to count anew."""
    disk.clear(project.full(_path(project)))


def _path(project: Project) -> str:
    return f"{project.cache_folder}/outputs.json"
