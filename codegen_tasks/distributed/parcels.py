"""What steps read, as it is sent: by content, and what many steps need apart from them.

A file is read once for all that it is sent for, and its signature of that moment is what the
step's trace will say.  Unaware of Dask.
"""

from __future__ import annotations

import os
import pickle
import posixpath
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .. import digest, disk
from ..build import Build
from ..engines import kind_of
from ..jobs import StepsJob
from ..model import PATH_KINDS, Stat, Step
from ..toolchains.base import project_file
from .messages import Job, Load, facts, machine
from .storing import shared

#: Files that many steps need are sent in packs of so many bytes.
_PACK = 4_000_000
#: From so many bytes on, what several steps need is worth a pack of its own.
_SHARED = 65_536
#: A worker begins no step of an order that it has worked on for so many seconds.
_LONGEST = 2.0
#: So many folders' files a compiler's command may name, in files and bytes.
_MOST_FILES, _MOST_BYTES = 5_000, 50_000_000


class TooMuchError(Exception):
    """It would take more to be sent than is sensible."""


class Parcels:
    """What is sent of one `dodo.py`.

    Args:
        builds: its builds.
        dodo: absolute path of the file.
        run: name of this run.

    Raises:
        TooMuchError: the file lies outside of the project.
    """

    def __init__(self, builds: Sequence[Build], dodo: str, run: str):
        self._builds = builds
        self._root = builds[0].project.root
        self._run = run
        self._dodo = disk.relative(dodo, self._root) if dodo else ".."
        if self._dodo.startswith(".."):
            raise TooMuchError("what declares the tasks is no file of the project")
        settings = builds[0].project.settings
        # The URL may hold a password, and payloads are kept by schedulers.
        load = Load(self._dodo, replace(settings, remote_cache=""), shared(settings, run))
        self._load = pickle.dumps(load, pickle.HIGHEST_PROTOCOL)
        self._facts = facts()
        #: What was sent of each file: its digest, and the signature that it had; None for no
        #: file, and for one that was sent with several contents.
        self.sent: dict[str, tuple[str, Stat | None]] = {}
        #: Packs by name; and the names of those that every order needs.
        self.packs: dict[str, dict[str, Any]] = {}
        self.common: list[str] = []
        self._first: dict[str, str] = {}  # digests of files as they were first sent
        self._edited: set[str] = set()  # files that are no longer that
        self._packed: dict[str, int] = {}  # by path: the place of its pack
        self._own: dict[tuple[str, ...], str] = {}
        self._asked: Counter[str] = Counter()
        self._headers: set[str] = set()  # what compilers were found to read
        self._folders: dict[str, list[str]] = {}
        self._users = Counter(
            step.patterns for build in builds for step in build.plan.steps.values()
        )
        self._pack_project()

    # Packs ------------------------------------------------------------------------------

    def _pack_project(self) -> None:
        """Pack the code, and the templates that no task makes."""
        paths = {self._dodo, *self._modules()}
        whole, but = set(), set()
        for build in self._builds:
            folder = build.project.templates
            found = {f"{folder}/{name}" for name in disk.walk(build.project.full(folder))}
            made = build.plan.others.keys() | build.plan.makers.keys()
            # What Python has made of modules is of this machine.
            made |= {path for path in found if "__pycache__" in path.split("/")}
            but |= {path for path in made if path.startswith(f"{folder}/")}
            whole.add(folder)
            paths |= found - made
        self.pack(sorted(paths))
        last = {"files": {}, "contents": {}, "whole": [*whole], "but": [*but]}
        self.common.append(self._named(last))

    def _named(self, pack: dict[str, Any]) -> str:
        name = str(len(self.packs))
        self.packs[name] = pack
        return name

    def _modules(self) -> Iterator[str]:
        """Yield the files of the project's own modules."""
        files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        for build in self._builds:
            build.world.settle()
            files += build.world.sources.files()
        for file in files:
            path = disk.relative(file, self._root) if isinstance(file, str) else ".."
            if not path.startswith("..") and not _is_installed(path) and os.path.isfile(str(file)):
                yield path

    def pack(self, paths: Iterable[str]) -> None:
        """Send some files with every order from now on."""
        parcel: dict[str, Any] = {"files": {}, "contents": {}}
        size = 0
        for path in paths:
            if path in self._packed:
                continue
            self._packed[path] = len(self.common)
            size += self._add(parcel, path, modes=True)
            if size > _PACK:
                self.common.append(self._named(parcel))
                parcel, size = {"files": {}, "contents": {}}, 0
        if parcel["files"]:
            self.common.append(self._named(parcel))

    def _add(self, parcel: dict[str, Any], path: str, modes: bool = False) -> int:
        """Put a file into a parcel; return its size in bytes."""
        full = os.path.join(self._root, path)
        try:
            raw, signature = disk.read_signed(full)
        except OSError:
            self.sent[path] = "", None
            parcel["files"][path] = ("", False)
            return 0
        content = digest.of_bytes(raw)
        if self._first.setdefault(path, content) != content:
            # What comes may have read the one or the other.
            self._edited.add(path)
        known = None if path in self._edited else disk.recorded(signature)
        self.sent[path] = content, known
        executable = modes and os.access(full, os.X_OK)
        parcel["files"][path] = (content, executable)
        parcel["contents"][content] = raw
        return len(raw)

    def _parcel(self, paths: Iterable[str]) -> dict[str, Any]:
        parcel: dict[str, Any] = {"files": {}, "contents": {}}
        for path in paths:
            self._add(parcel, path)
        return parcel

    def _size(self, path: str) -> int:
        try:
            return os.path.getsize(os.path.join(self._root, path))
        except OSError:
            return 0

    def is_packed(self, path: str, packs: int) -> bool:
        """Tell whether a file is in one of the first so many packs that every order needs."""
        return path in self._packed and self._packed[path] < packs

    def ask(self, path: str) -> None:
        """Note that a step needs a file; what a second one needs is sent with every order."""
        self._asked[path] += 1
        if self._asked[path] == 2 and len(self.common) < 100:
            self.pack([path])

    # Orders -----------------------------------------------------------------------------

    def order(
        self,
        job: StepsJob,
        more: Collection[str] = (),
        stored: bool = False,
        again: bool = False,
    ) -> dict[str, Any]:
        """Return what a worker is told to do; "packs" are the names of those that it needs.

        Args:
            job: the steps.
            more: files that they need besides.
            stored: whether the remote cache may be used.
            again: a worker may have kept what they came to.

        Raises:
            CodegenError: their compiler is not installed here.
            TooMuchError: they may read too much.
        """
        build = self._builds[job.build]
        steps = tuple(build.plan.steps[name] for name in job.tasks)
        packs = dict.fromkeys(self.common)
        parcel: dict[str, Any] = {"files": {}, "contents": {}}
        for step in steps:
            own = self._own_pack(build, step)
            if own:
                packs[own] = None
            known = self.packs[own]["files"] if own else ()
            for path in self._paths(build, step):
                if path not in self._packed and path not in known and path not in parcel["files"]:
                    self._add(parcel, path, modes=path not in step.patterns)
        for path in more:
            self._add(parcel, path, modes=True)
        tools = self._tools(build, steps)
        engines = {name: build.world.declaration("environment", name) for name in engines_of(steps)}
        anew = build.workshop.anew
        more_said = (_LONGEST, engines, tools, stored, anew)
        inner = Job(build.project.name, steps, job.together, *more_said)
        return {
            **parcel,
            "packs": tuple(packs),
            "sent": {},
            "run": self._run,
            "facts": self._facts,
            "machine": machine() if tools else {},
            "load": self._load,
            "job": pickle.dumps(inner, pickle.HIGHEST_PROTOCOL),
            "tasks": tuple(job.tasks),
            "limits": tuple(job.limits),
            "again": again,
        }

    def _own_pack(self, build: Build, step: Step) -> str:
        """Name the pack of a step's patterns, if they are large and several steps need them."""
        key = step.patterns
        if not key or step.phase != "generate" or self._users[key] < 2:
            return ""
        if key not in self._own:
            large = sum(map(self._size, key)) * self._users[key] >= _SHARED
            self._own[key] = self._named(self._parcel(key)) if large else ""
        return self._own[key]

    def _tools(self, build: Build, steps: Iterable[Step]) -> dict[tuple[str, str], str]:
        found: dict[tuple[str, str], str] = {}
        for step in {(step.rule, step.link): step for step in steps}.values():
            inputs = build.world.compiler_inputs(step)
            found |= {i.key: i.digest for i in inputs if i.kind in ("toolchain", "command")}
        return found

    # What a step reads ------------------------------------------------------------------

    def _paths(self, build: Build, step: Step) -> Iterator[str]:
        """Yield the files that a step reads as far as that is known, those of the project."""
        for kind, name in build.world.declared(step):
            if kind in PATH_KINDS:
                yield name
        yield from self._program(build, step)
        trace = build.latest.get(step.task) or build.trace_before(step)
        for item in trace.inputs if trace is not None else ():
            if item.kind in PATH_KINDS and self.may_send(build, item.name):
                yield item.name
        if step.phase == "compile":
            yield from self._referred(build, step)
            yield from self._in_folders(build, step)
            yield from (path for path in self._headers if self.may_send(build, path))

    def _program(self, build: Build, step: Step) -> Iterator[str]:
        """Yield the compiler or formatter, if it is a file of the project."""
        tool = build.project.tool(step)
        if tool is not None and "/" in tool.program:
            path = project_file(self._root, tool.program)
            if path and self.may_send(build, path):
                yield path

    def may_send(self, build: Build, path: str, over: Collection[str] = ()) -> bool:
        """Tell whether a file lies in the project, and no task is to make it first.

        Args:
            build: whose step is to read it.
            path: of the file.
            over: tasks that the step has waited for.
        """
        if path.startswith("../") or os.path.isabs(path):
            return False
        maker = build.plan.maker(path)
        if maker is None or maker in over:
            return True
        return build.has_made(maker)

    def _referred(self, build: Build, step: Step) -> Iterator[str]:
        """Yield the files that a source refers to, at any remove."""
        toolchain = build.project.toolchain(step.rule, step.link)
        seen, waiting = {step.source}, [step.source]
        while waiting:
            path = waiting.pop()
            try:
                text = disk.read(build.project.full(path)).decode("utf-8", "replace")
            except OSError:
                continue
            folder = posixpath.dirname(path)
            for name in toolchain.references(text):
                found = posixpath.normpath(posixpath.join(folder, name))
                if found not in seen and self.may_send(build, found):
                    seen.add(found)
                    waiting.append(found)
                    yield found

    def _in_folders(self, build: Build, step: Step) -> Iterator[str]:
        """Yield all files of folders that a compiler's command names: it may read any of them."""
        for word in build.project.toolchain(step.rule, step.link).command:
            folder = _folder(self._root, word)
            if folder and folder not in self._folders:
                self._folders[folder] = self._files_of(folder)
            for path in self._folders.get(folder, ()):
                if self.may_send(build, path):
                    yield path

    def _files_of(self, folder: str) -> list[str]:
        found, size = [], 0
        for name in disk.walk(os.path.join(self._root, folder)):
            path = posixpath.normpath(f"{folder}/{name}")
            size += os.path.getsize(os.path.join(self._root, path))
            found.append(path)
            if len(found) > _MOST_FILES or size > _MOST_BYTES:
                raise TooMuchError(f"{folder}/ holds too much to be sent")
        return found

    def learn(self, paths: Iterable[str]) -> None:
        """Note what a compiler has read: others of its steps may read it too."""
        self._headers |= {path for path in paths if not os.path.isabs(path)}


def engines_of(steps: Iterable[Step]) -> set[str]:
    """Return the names of the engines that render some steps."""
    return {kind_of(step.template).name for step in steps if step.phase == "generate"}


def _is_installed(path: str) -> bool:
    return "site-packages/" in path or "dist-packages/" in path


def _folder(root: str, word: str) -> str:
    """Return the folder of the project that a command's word names; "" if it names none.

    Raises:
        TooMuchError: it names one in which a worker would look for other files than we.
    """
    for prefix in ("-isystem", "-iquote", "-I", "-L", ""):
        name = word.removeprefix(prefix).rpartition("=")[2]
        if not word.startswith(prefix) or not name or name.startswith("-") or "{" in name:
            continue
        full = os.path.normpath(os.path.join(root, name))
        if not os.path.isdir(full):
            continue
        inside = full.startswith(os.path.join(root, ""))
        if inside and not os.path.isabs(name):
            return disk.relative(full, root)
        if inside or full == root or not os.path.isabs(name):
            raise TooMuchError(f"its command names the folder {name}")
        return ""  # of the system: what is read there is compared
    return ""
