"""What the output cache has done for a project, counted over its runs; derived, never needed.

What a run has to say of a remote cache, it says here, in one line and a hint.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from . import address, disk
from .errors import CodegenError
from .model import Outcome
from .outputs import FETCHED, KEPT, RESTORED, UNWRITABLE, store_of
from .project import Project
from .settings import Settings
from .store import Store
from .traffic import COUNTS, Traffic

VERSION = 1
_KEY = "CODEGEN_REMOTE_CACHE_KEY must be that of who writes there"


@dataclass(slots=True)
class Savings:
    """Steps by what became of them in the output cache.

    Args:
        restored: steps whose outputs were taken from it.
        fetched: steps whose outputs came from the remote cache.
        kept: steps whose outputs were added to it.
        unkept: the others, by why.
        seconds: what the restored ones had taken, less what restoring them took.
        added: bytes by which the store has grown.
        traffic: what went to and from the remote cache.
    """

    restored: int = 0
    fetched: int = 0
    kept: int = 0
    unkept: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    added: int = 0
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def steps(self) -> int:
        """All that asked it."""
        return self.restored + self.fetched + self.kept + self.unkept.total()

    def take(self, outcome: Outcome) -> None:
        """Count a step."""
        if not outcome.cached:
            return
        self.added += outcome.stored
        if outcome.cached == RESTORED:
            self.restored += 1
            self.seconds += outcome.saved
        elif outcome.cached == FETCHED:
            self.fetched += 1
            self.seconds += outcome.saved
        elif outcome.cached == KEPT:
            self.kept += 1
        else:
            self.unkept[outcome.cached] += 1

    def include(self, other: Savings) -> None:
        """Add those of other runs."""
        self.added += other.added
        self.restored += other.restored
        self.kept += other.kept
        self.unkept += other.unkept
        self.seconds += other.seconds
        self.fetched += other.fetched
        self.traffic.include(other.traffic)

    def _add_to(self, project: Project) -> None:
        """Add these to the project's count."""
        total = load(project)
        total.include(self)
        data = {
            "version": VERSION,
            "restored": total.restored,
            "kept": total.kept,
            "unkept": total.unkept,
            "seconds": round(total.seconds, 3),
            "fetched": total.fetched,
            "remote": {name: getattr(total.traffic, name) for name in COUNTS},
        }
        text = json.dumps(data, indent=1) + "\n"
        with contextlib.suppress(CodegenError):
            disk.write_ours(project.full(_path(project)), text.encode(), project.full(project.home))


def end(counted: Iterable[tuple[Project, Savings]]) -> None:
    """Add what a run has counted to each project's count, and let the stores tidy up."""
    traffic: dict[str, Traffic] = {}
    added: dict[str, int] = {}
    faults: dict[str, str] = {}
    settings: dict[str, Settings] = {}
    for project, one in counted:
        if not one.steps:
            continue
        traffic.setdefault(project.settings.remote_cache, Traffic()).include(one.traffic)
        folder = store_of(project).folder
        added[folder] = added.get(folder, 0) + one.added
        settings[folder] = project.settings
        for why in one.unkept:
            if why.startswith(UNWRITABLE):
                faults.setdefault(folder, why.removeprefix(UNWRITABLE))
        one._add_to(project)
    for url, total in traffic.items():
        _say(url, total)
    for folder, fault in faults.items():
        print(f"{folder}: {fault}, so outputs are not kept for other builds", file=sys.stderr)
    for folder, size in added.items():
        limits = settings[folder].output_cache_bytes, settings[folder].output_cache_days
        if size:
            Store(folder).grown(size, *limits)


def _say(url: str, traffic: Traffic) -> None:
    """Say what a run has to say of a remote cache, if that is anything."""
    if traffic.foreign and not traffic.found:
        traffic.note("has nothing that is signed with our key", _KEY)
    said = [why] if (why := traffic.fault or traffic.slip) else []
    if traffic.unsent:
        results = "1 result" if traffic.unsent == 1 else f"{traffic.unsent} results"
        said.append(f"{results} not sent")
    if said:
        where = address.parsed("remote_cache", url).url
        hint = f"\n  hint: {traffic.hint}" if traffic.hint else ""
        print(f"remote cache {where}: {'; '.join(said)}{hint}", file=sys.stderr)


def load(project: Project) -> Savings:
    """Return a project's count; what cannot be read counts as nothing."""
    try:
        data: Any = json.loads(disk.read(project.full(_path(project))))
        if data["version"] != VERSION:
            return Savings()
        unkept = Counter({"" + why: 0 + number for why, number in data["unkept"].items()})
        said = data.get("remote", {})
        return Savings(
            0 + data["restored"],
            0 + data.get("fetched", 0),
            0 + data["kept"],
            unkept,
            0.0 + data["seconds"],
            traffic=Traffic(**{name: 0 + said.get(name, 0) for name in COUNTS}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Savings()


def forget(project: Project) -> None:
    """Begin to count anew."""
    disk.clear(project.full(_path(project)))


def _path(project: Project) -> str:
    return f"{project.cache_folder}/outputs.json"
