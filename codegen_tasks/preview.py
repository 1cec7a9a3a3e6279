"""What a build would make of its targets, in memory: nothing in the project is written.

Renders run where they are.  A compiler needs files to read: if one of them would change, it
runs in a *shadow*, a temporary folder that looks like the project as the build would leave
it; otherwise in the project, with its scratch folder elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import disk
from .build import Build
from .errors import CodegenError
from .model import Step
from .project import Project
from .steps import Workshop, internal
from .toolchains import Site

#: Folders that may be very large, and are looked into from above only.
_LINKED = ("node_modules", "__pycache__")


@dataclass(frozen=True, slots=True)
class Difference:
    """A target that a build would change: its bytes now (None: there is none), and then.

    `modes` are its permissions now and then, where its rule declares them and they differ.
    """

    path: str
    before: bytes | None
    after: bytes
    modes: tuple[int | None, int] | None = None


@dataclass(slots=True)
class Preview:
    """What a build would come to.

    Args:
        differences: in the order of the steps.
        failures: the whole message of each failing step.
        printed: what steps printed.
    """

    differences: list[Difference] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    printed: str = ""


def preview(build: Build, dep_manager: Any, tasks: Collection[str]) -> Preview:
    """Return what running the steps named by `tasks` would change."""
    with tempfile.TemporaryDirectory(prefix="codegen-") as folder:
        return _Rehearsal(build, dep_manager, tasks, os.path.realpath(folder)).run()


class _Rehearsal:
    def __init__(self, build: Build, dep_manager: Any, tasks: Collection[str], folder: str):
        self._build = build
        self._dep_manager = dep_manager
        self._steps = [step for step in build.plan.steps.values() if step.task in tasks]
        self._folder = folder
        settings = replace(build.project.settings, template_cache=False)
        self._project = replace(build.project, settings=settings)
        self._workshop = Workshop(self._project, build.plan, build.world)
        self._found = Preview()
        self._made: dict[str, bytes] = {}  # by path: only what differs from the disk
        self._failed: set[str] = set()  # paths that would not be made
        self._shadow: _Shadow | None = None

    def run(self) -> Preview:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            for step in self._steps:
                if step.phase == "generate" and self._is_stale(step):
                    self._render(step)
        links = [step.link for step in self._steps if step.phase == "compile"]
        for link in range(max(links, default=-1) + 1):
            self._compile_all(link)
        self._found.printed = printed.getvalue() + self._found.printed
        return self._found

    def _is_stale(self, step: Step) -> bool:
        """Tell whether a step would run, what was rehearsed before it included."""
        verdict = self._build.verdict(step, self._dep_manager.get_values(step.task) or {})
        if verdict.reasons or verdict.trace is None or step.source in self._made:
            return True
        return any(item.name in self._made for item in verdict.trace.inputs)

    def _render(self, step: Step) -> None:
        try:
            rendered = self._workshop.rendered(step)
        except CodegenError as problem:
            self._fail(step, str(problem))
            return
        except Exception:
            self._fail(step, internal(step.task))
            return
        for path in dict.fromkeys(item.name for item in rendered.inputs if item.name in self._made):
            # Renders read the project as it is; another diff after the build tells the rest.
            print(f"{step.outputs[0]}: reads {path}, which differs, as it is now")
        self._compare(step, {step.outputs[0]: rendered.data})

    def _compare(self, step: Step, made: Mapping[str, bytes]) -> None:
        for path, data in made.items():
            try:
                before = _there(self._project.full(path))
            except OSError as error:
                # As a build says it of the same.
                what = "a folder stands where a file should be"
                if not isinstance(error, IsADirectoryError):
                    what = "cannot read what stands there, so it is left alone"
                self._fail(step, f"{path}: {what}")
                continue
            modes = self._modes(step, path)
            if before != data:
                self._made[path] = data
            if before != data or modes is not None:
                self._found.differences.append(Difference(path, before, data, modes))

    def _modes(self, step: Step, path: str) -> tuple[int | None, int] | None:
        """Return a target's permissions now and as they would be, if these are declared."""
        wanted = self._project.rules[step.rule].mode if step.phase == "generate" else None
        found = disk.mode_of(self._project.full(path))
        return None if wanted is None or found == wanted else (found, wanted)

    def _fail(self, step: Step, message: str) -> None:
        self._failed.update(step.outputs)
        self._found.failures.append(f"{step.task}\n{message}")

    # Compiling --------------------------------------------------------------------------

    def _compile_all(self, link: int) -> None:
        """Compile what would be, one link of the chains; what lacks its source is left out."""
        batches: dict[object, list[Step]] = {}
        for step in self._steps:
            if step.phase != "compile" or step.link != link or not self._is_stale(step):
                continue
            if step.source in self._failed:
                self._failed.update(step.outputs)
                continue
            key = self._workshop.compiling.shared_by(step)
            batches.setdefault(step.task if key is None else key, []).append(step)
        for steps in batches.values():
            self._compile(steps)

    def _compile(self, steps: Sequence[Step]) -> None:
        results = self._workshop.compiling.made(steps, self._site())
        for step, result in zip(steps, results, strict=True):
            self._found.printed += result.printed if result.error is None else ""
            if result.error is not None:
                self._fail(step, str(result.error))
            else:
                self._compare(step, result.outputs)

    def _site(self) -> Site:
        """Return where to compile: in the project itself, unless something there would change."""
        scratch = tempfile.mkdtemp(dir=self._folder)
        root = self._project.root
        if self._made:
            if self._shadow is None:
                self._shadow = _Shadow(self._project, f"{self._folder}/shadow")
            self._shadow.update(self._made)
            root = self._shadow.root
        return Site(root, scratch, self._compilers_cache())

    def _compilers_cache(self) -> str:
        """Return a copy of the compilers' own caches, made once."""
        copy = f"{self._folder}/cache"
        if not os.path.exists(copy):
            os.makedirs(copy)
            original = self._project.full(self._project.cache_folder)
            for name in os.listdir(original) if os.path.isdir(original) else ():
                if name != "templates":
                    with contextlib.suppress(OSError, shutil.Error):
                        shutil.copytree(f"{original}/{name}", f"{copy}/{name}", symlinks=True)
        return copy


def _there(full: str) -> bytes | None:
    """Return the bytes of a target as it is; None if there is none.  Raises OSError."""
    if os.path.isdir(full):
        raise IsADirectoryError
    return disk.read(full) if disk.stat(full) is not None else None


class _Shadow:
    """A folder like the project: links to files that stay as they are, copies of outputs.

    Its folders are its own, since `..` of one that is a link would lead into the project;
    only those that hold what no build reads by such a path are links.
    """

    def __init__(self, project: Project, folder: str):
        self.root = folder
        self._real = project.root
        self._output = project.output
        self._linked = {project.state, *_LINKED}
        os.makedirs(folder)
        self._fill("")

    def _fill(self, folder: str) -> None:
        with os.scandir(os.path.join(self._real, folder)) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                there = os.path.join(self.root, path)
                is_output = path == self._output or path.startswith(self._output + "/")
                if entry.is_dir(follow_symlinks=path == self._output):
                    if self._is_linked(path) and not is_output:
                        os.symlink(entry.path, there)
                    else:
                        os.mkdir(there)
                        with contextlib.suppress(OSError):  # one that cannot be read
                            self._fill(path)
                elif is_output and entry.is_file():
                    with contextlib.suppress(OSError):
                        shutil.copyfile(entry.path, there)
                else:
                    os.symlink(entry.path, there)

    def _is_linked(self, path: str) -> bool:
        name = os.path.basename(path)
        hidden = name.startswith(".") and not f"{self._output}/".startswith(f"{path}/")
        return path in self._linked or name in self._linked or hidden

    def update(self, made: Mapping[str, bytes]) -> None:
        """Make files what a build would make of them."""
        for path, data in made.items():
            disk.write(os.path.join(self.root, path), data)
