"""What `doit watch` looks at: which folders, and what a change in one of them asks for.

A change counts if it can matter for a build: a file that was read or made has another signature
than the build knew, one that was looked for in vain is there, a folder that was listed has
another entry.  So what a run itself writes never counts, and a target edited by hand does.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from . import patterns, snapshot
from .engines import is_template
from .snapshot import ABSENT, PRESENT, Kept

#: Names of files that we write and rename, see `disk`.
_OURS = re.compile(r"\.codegen-[0-9a-f]{16}$")
#: Folders that hold nothing a project's author edits.
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv"}
#: So many folders are watched at most only because they are there.
_MANY = 4_000
#: So long, in seconds, a file that is gone, or empty, may take to be written.
GRACE = 0.15


class Need(IntEnum):
    """What a change asks for; the greater includes the smaller.

    Args:
        NOTHING: it cannot matter.
        BUILD: a build.
        RESTART: a build in a new process: what `dodo.py` is made from has changed.
    """

    NOTHING = 0
    BUILD = 1
    RESTART = 2


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one Codegen: absolute paths, and globs relative to the project."""

    templates: str
    output: str
    state: str
    snapshot: str
    globs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What a build told of itself; all paths are absolute.

    Args:
        root: the project; "" if `dodo.py` could not be loaded.
        summary: what was done, in a few words; "" if that is not known.
        seconds: how long it took.
        modules: files that `dodo.py` is made from: modules, what they read when imported.
        listed: folders whose content they asked for.
        read: files that tasks depend on.
        made: files that tasks make, as they were when the build ended.
        homes: of the Codegen objects.
    """

    root: str = ""
    summary: str = ""
    seconds: float = 0.0
    modules: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    made: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    homes: tuple[Home, ...] = ()

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Told:
        """Return what was sent as JSON."""
        made = {path: tuple(sign) for path, sign in said["made"].items()}
        homes = tuple(Home(**{**home, "globs": tuple(home["globs"])}) for home in said["homes"])
        lists = {name: tuple(said[name]) for name in ("modules", "listed", "read")}
        return cls(said["root"], said["summary"], said["seconds"], made=made, homes=homes, **lists)


class Known:
    """What is known of a project after a build.

    Args:
        root: the project's folder, absolute.
        dodo: the path of `dodo.py`, absolute.
        told: what the build told; what earlier ones told of modules is in there.
        failed: whether a step failed or `dodo.py` could not be loaded.
        loaded: whether `dodo.py` could be loaded; if not, an earlier build told the rest.
    """

    def __init__(self, root: str, dodo: str, told: Told, failed: bool, loaded: bool = True):
        self.root = told.root or root
        self.failed = failed
        self.told = told
        self._loaded = loaded
        self._homes = told.homes
        beside = (os.path.join(self.root, name) for name in ("pyproject.toml", "doit.cfg"))
        #: The files that `dodo.py` is made from.
        self.modules = {dodo, *beside, *told.modules}
        self._listed = set(told.listed)
        self._outputs = tuple(f"{home.output}{os.sep}" for home in told.homes)
        #: The state folders, each with a separator at its end.
        self.states = tuple(f"{home.state}{os.sep}" for home in told.homes)
        #: By path, the signatures that a file may have; none if any is another one.
        self._files: dict[str, set[tuple[int, ...]]] = {path: set() for path in told.read}
        self._made: set[str] = set(told.made)
        for home in told.homes:
            self._take(snapshot.read(home.snapshot))
        for path, sign in told.made.items():
            # One that was made, and was gone when the build ended, somebody has removed.
            if sign != ABSENT or not self._files.get(path):
                self._files.setdefault(path, set()).add(sign)
        self._above = self._found_above()
        self._beside = {self.root, *map(os.path.dirname, self.modules)}
        inside = f"{self.root}{os.sep}"
        outside = (one for one in (*self._files, *self.modules) if not one.startswith(inside))
        self._outside = set(map(os.path.dirname, outside))

    def _take(self, kept: Kept | None) -> None:
        """Take in what a snapshot says of files."""
        for path, sign, made in kept.entries() if kept is not None else ():
            full = os.path.normpath(os.path.join(self.root, path))
            self._files.setdefault(full, set())
            if made:
                self._made.add(full)
            if made and sign == ABSENT:
                continue  # it was gone at once, and is to come back
            self._files[full].add(sign)
            if os.path.islink(full):  # what it leads to is edited elsewhere
                self._files.setdefault(os.path.realpath(full), set()).add(sign)

    def _found_above(self) -> set[str]:
        """Return all folders in which, at whatever depth, something is that is looked at."""
        homes = [(home.templates, home.output) for home in self._homes]
        globs = [g for home in self._homes for g in home.globs]
        fixed = (os.path.join(self.root, patterns.fixed_part(glob)) for glob in globs)
        named = {*self._listed, *map(os.path.normpath, fixed), *itertools.chain(*homes)}
        left = {os.path.dirname(path) for path in (*self._files, *self.modules)} | named
        found: set[str] = set()
        for path in left:
            while path not in found and not path.startswith(self.states):
                found.add(path)
                path = os.path.dirname(path)
        return found

    # Counting ---------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """The number of files, not made by us, that are there and can matter."""
        read = (path for path, signs in self._files.items() if signs != {ABSENT})
        mine = {p for p in read if p not in self._made and not p.startswith(self.states)}
        there = {path for path in self.modules if os.path.exists(path)}
        return len(mine | there)

    # Folders ----------------------------------------------------------------------------

    def folders(self) -> set[str]:
        """Return the folders that must be watched, as far as they are there."""
        found = {path for path in self._above if self._is_near(path) and os.path.isdir(path)}
        for home in self._homes:
            found |= set(_walk(home.templates, lambda path: True))
            if home.globs:
                found |= set(_walk(self.root, self._may_hold_patterns))
        return found

    def _is_near(self, path: str) -> bool:
        """Tell whether a folder is inside the project, or holds files that count."""
        inside = path == self.root or path.startswith(f"{self.root}{os.sep}")
        return inside or path in self._outside

    def _may_hold_patterns(self, path: str) -> bool:
        if f"{path}{os.sep}".startswith(self.states):
            return False
        name = self._relative(path)
        # A wildcard goes into no hidden folder.
        hidden = os.path.basename(path).startswith(".") and path not in self._above
        return not hidden and any(patterns.reaches(home.globs, name) for home in self._homes)

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    # Changes ----------------------------------------------------------------------------

    def need(self, path: str, came_or_went: bool, ended: float = 0.0) -> Need:
        """Return what a change asks for.

        Args:
            path: of what has changed, absolute.
            came_or_went: whether it may be new, or gone; else only its content has changed.
            ended: when the build was over, in seconds since the epoch.
        """
        if f"{path}{os.sep}".startswith(self.states) or _OURS.search(path):
            return Need.NOTHING
        parent = os.path.dirname(path)
        if path in self.modules or (came_or_went and parent in self._listed):
            return Need.RESTART
        signs = self._files.get(path)
        if signs is not None:
            return self._changes(Need.BUILD) if self._has_changed(path, signs) else Need.NOTHING
        if came_or_went and self._may_be_a_module(path, parent):
            return Need.RESTART
        if came_or_went and (self._holds_changes(path) or self._may_be_listed(path)):
            return self._changes(Need.BUILD)
        if self.failed and self._may_mend(path) and sign_of(path)[2] > ended * 1e9:
            return self._changes(Need.BUILD)
        return Need.NOTHING

    def _changes(self, need: Need) -> Need:
        return need if self._loaded else Need.RESTART

    def _may_be_a_module(self, path: str, parent: str) -> bool:
        beside = parent in self._beside and not path.startswith(self._outputs)
        return path.endswith(".py") and beside

    def _holds_changes(self, path: str) -> bool:
        """Tell whether a folder that came or went takes files with it that count."""
        if path not in self._above:
            return False
        below = f"{path}{os.sep}"
        inside = ((one, signs) for one, signs in self._files.items() if one.startswith(below))
        return any(self._has_changed(one, signs) for one, signs in inside)

    def _has_changed(self, path: str, signs: Collection[tuple[int, ...]]) -> bool:
        """Tell whether a file is another than the last build has seen."""
        # Steps that a failure kept from running still tell of a file as it was before.
        seen = self.failed and sign_of(path) in signs
        return not seen and _differs(path, signs)

    def _may_be_listed(self, path: str) -> bool:
        """Tell whether a path that is not known may be a pattern, a template, or hold some."""
        if not os.path.lexists(path):
            return False
        folder = os.path.isdir(path)
        name = self._relative(path)
        for home in self._homes:
            inside = f"{path}{os.sep}".startswith(f"{home.templates}{os.sep}")
            if inside and (folder or is_template(path)):
                return True
            if folder and patterns.reaches(home.globs, name):
                return True
            if any(patterns.matches(name, glob) for glob in home.globs):
                return True
        return False

    def _may_mend(self, path: str) -> bool:
        """Tell whether a step that failed may have read a file: nobody knows what it read."""
        inside = path.startswith(f"{self.root}{os.sep}") and not path.startswith(self._outputs)
        parts = self._relative(path).split("/")
        return inside and not any(part in _SKIPPED or part.startswith(".") for part in parts)

    def is_on_its_way(self, path: str) -> bool:
        """Tell whether a file that counts is gone or empty, as while it is being written."""
        try:
            return os.stat(path).st_size == 0
        except OSError:
            return path in self.modules or self._files.get(path, {ABSENT}) != {ABSENT}

    def outdated(self) -> bool:
        """Tell whether a file has changed that nobody may have been told of."""
        return any(_differs(path, signs) for path, signs in self._files.items() if signs)


def _differs(path: str, signs: Collection[tuple[int, ...]]) -> bool:
    now = sign_of(path)
    if now != ABSENT and PRESENT in signs:
        return False
    return len(signs) != 1 or now not in signs


def sign_of(path: str) -> tuple[int, int, int, int]:
    """Return the signature of a file as a snapshot has it."""
    try:
        now = os.stat(path)
    except (OSError, ValueError):
        return ABSENT
    return (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)


def around(root: str, states: tuple[str, ...] = ()) -> set[str]:
    """Return the folders of a project in which somebody may edit a file, if they are not too many.

    Watched from the beginning, they spare beginning to watch them later.

    Args:
        root: the project.
        states: folders that are left out, each with a separator at its end.
    """
    found: set[str] = set()
    for path in _walk(root, lambda path: _is_plain(path) and f"{path}{os.sep}" not in states):
        if len(found) >= _MANY:
            return {root}
        found.add(path)
    return found or {root}


def _is_plain(path: str) -> bool:
    name = os.path.basename(path)
    own = os.path.exists(os.path.join(path, "pyvenv.cfg"))
    return not (name.startswith(".") or name in _SKIPPED or own)


def _walk(folder: str, enters: Callable[[str], bool]) -> Iterator[str]:
    """Yield a folder and all below it; links to folders are not followed."""
    left = [folder] if os.path.isdir(folder) else []
    while left:
        path = left.pop()
        yield path
        try:
            with os.scandir(path) as entries:
                inside = [one.path for one in entries if one.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        left += [one for one in inside if enters(one)]


class Changes:
    """Changes that came and were not looked at yet."""

    def __init__(self) -> None:
        self._found: dict[str, bool] = {}  # by path, whether it came or went
        # What was restarted for, and as it was before: of one change may be told twice.
        self._answered: dict[str, tuple[int, ...]] = {}

    def add(self, changes: Iterable[tuple[int, str]]) -> None:
        """Take in changes: kind (2 for another content, 1 and 3 for what came and went), path."""
        for kind, path in changes:
            self._found[path] = self._found.get(path, False) or kind != 2

    def clear(self) -> None:
        """Forget all."""
        self._found.clear()

    @property
    def moved(self) -> set[str]:
        """What came or went."""
        return {path for path, moved in self._found.items() if moved}

    def needing(self, known: Known, ended: float) -> tuple[Need, bool]:
        """Return what the changes ask for, and whether a file of them is being written.

        Args:
            known: what is known since the last build.
            ended: when that was over, in seconds since the epoch.
        """
        need, writing = Need.NOTHING, False
        for path, moved in self._found.items():
            asked = known.need(path, moved, ended)
            if asked is Need.RESTART and self._answered.get(path) == sign_of(path):
                continue
            need = max(need, asked)
            writing = writing or (asked > Need.NOTHING and known.is_on_its_way(path))
        return need, writing

    def answer(self, need: Need) -> None:
        """Note that what they need is about to be done."""
        if need is Need.RESTART:
            self._answered = {path: sign_of(path) for path in self._found}
