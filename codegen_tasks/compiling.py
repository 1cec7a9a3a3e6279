"""Compile steps: which of them share a compiler, and what it makes of them.

Nothing is written but in a scratch folder; who publishes, keeps or sends it is for the caller.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from . import disk
from .complaints import Complaints
from .errors import CodegenError, StepError
from .model import TORN, Input, Step
from .project import Project
from .toolchains import Compiled, Site, Unit
from .world import World

#: What steps have in common that can share a process.
Key: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compilation:
    """What one step came to.

    Args:
        made: what the compiler made of it, or how it failed.
        known: what it reads as far as that is known before: its source, its compiler.
        began: when (nanoseconds since the epoch).
        seconds: that it took; of steps that shared a process, its part.
    """

    made: Compiled
    known: Sequence[Input]
    began: int
    seconds: float


class Compiling:
    """Runs the compilers of one project.

    Args:
        project: what was declared.
        world: the facts.
        complaints: adds to compilers' complaints what is to blame.
    """

    def __init__(self, project: Project, world: World, complaints: Complaints):
        self._project = project
        self._world = world
        self._complaints = complaints

    def shared_by(self, step: Step) -> Key | None:
        """Return what compile steps have in common that can share a process; None if none can."""
        if step.phase != "compile" or not self._project.settings.batch:
            return None
        toolchain = self._project.toolchain(step.rule, step.link)
        if not toolchain.shares_process:
            return None
        return (toolchain.name, toolchain.identity, str(self._project.rules[step.rule].timeout))

    def run(self, steps: Sequence[Step]) -> list[Compilation]:
        """Return what steps come to, in order; they share a process if there are several."""
        began, start = time.time_ns(), time.perf_counter()
        # Before the compiler runs: what changes meanwhile is then found to be different.
        sources = [self._world.read_file("source", step.source) for step in steps]
        tools: Sequence[Input] = ()
        try:
            tools = self._world.compiler_inputs(steps[0])
            with self._site() as site:
                made = self.made(steps, site)
        except (CodegenError, OSError) as problem:
            made = self._all_failed(steps, problem)
        seconds = (time.perf_counter() - start) / len(steps)
        return [
            Compilation(one, [source, *tools], began, seconds)
            for one, source in zip(made, sources, strict=True)
        ]

    def made(self, steps: Sequence[Step], site: Site) -> list[Compiled]:
        """Return what a compiler makes of steps that share a process; written in the site only."""
        toolchain = self._project.toolchain(steps[0].rule, steps[0].link)
        units = [Unit(step.source, step.outputs) for step in steps]
        try:
            results = toolchain.compile(units, site, self._project.rules[steps[0].rule].timeout)
        except (CodegenError, OSError) as problem:
            return self._all_failed(steps, problem)
        return [
            replace(result, error=self._complaints.of_compiler(step, result.error, site.root))
            if result.error is not None
            else result
            for step, result in zip(steps, results, strict=True)
        ]

    def inputs(self, compilation: Compilation) -> list[Input]:
        """Return all that a step has read, what its compiler tells of that included.

        Raises:
            CodegenError: it cannot be looked at.
        """
        discovered = compilation.made.discovered
        return [*compilation.known, *(self._read(name, compilation.began) for name in discovered)]

    def _read(self, name: str, began: int) -> Input:
        """Return what a compiler read as an input.

        It is digested only now: if it changed since the compile `began` (ns), nobody knows
        what the compiler saw, and with no file's digest the next run compiles again.
        """
        found = self._world.read_file("import", name)
        if found.stat is not None and found.stat[2] > began:
            return replace(found, digest=TORN, stat=None)
        return found

    def _all_failed(self, steps: Sequence[Step], problem: CodegenError | OSError) -> list[Compiled]:
        if isinstance(problem, OSError):
            toolchain = self._project.toolchain(steps[0].rule, steps[0].link)
            what = f"cannot run: {problem.strerror or problem}"
            problem = StepError(f"toolchain {toolchain.name}", what)
        return [Compiled({}, error=problem)] * len(steps)

    @contextlib.contextmanager
    def _site(self) -> Iterator[Site]:
        project = self._project
        folder = project.full(f"{project.home}/tmp")
        if not os.path.isdir(folder):
            disk.make_way(f"{folder}/any", project.full(project.home))
            os.makedirs(folder, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=folder)
        try:
            yield Site(project.root, scratch, project.full(project.cache_folder))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
