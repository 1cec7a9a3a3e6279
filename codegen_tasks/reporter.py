"""What a run prints: a line for each step that runs, failures in full, a summary at the end.

Tasks that are not ours are reported as doit's console reporter does.  Loaded by doit in
every project of the environment, so it imports next to nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from doit.exceptions import UnmetDependency
from doit.reporter import ConsoleReporter

from .ours import phase_of

_DONE = {"generate": "generated", "compile": "compiled"}


class CodegenReporter(ConsoleReporter):
    """Console output for code generation: steps that run, failures, one summary line."""

    desc = "console output of codegen-tasks: what ran, what failed, one summary"

    def __init__(self, outstream: Any, options: Any):
        super().__init__(outstream, options)
        self._start = time.perf_counter()
        self._done: Counter[str] = Counter()
        self._unchanged = 0
        self._uptodate = 0
        self._failed: list[str] = []
        self._said: dict[str, str] = {}  # a failure's message, and the first task that had it
        self._unmet = 0
        self._hits = 0
        self._misses = 0
        self._finished: set[str] = set()
        self._others = 0

    def initialize(self, tasks: Any, selected_tasks: Any) -> None:
        """Take in what is to run; doit calls it once."""
        super().initialize(tasks, selected_tasks)
        self.stage_begins(tasks, selected_tasks)

    def stage_begins(self, tasks: Any, selected_tasks: Any) -> None:
        """Count the steps that are up to date and have no task: their phase tells how many."""
        left, seen = list(selected_tasks), set(selected_tasks)
        while left:
            task = tasks.get(left.pop())
            if task is not None and phase_of(task) in _DONE:
                self._uptodate += task.meta["codegen"].get("fresh", 0)
            before = set(task.task_dep) - seen if task is not None else set()
            seen |= before
            left += before

    # What doit tells --------------------------------------------------------------------

    def execute_task(self, task: Any) -> None:
        """Print what begins; with verbosity 2 a step's line comes when its time is known."""
        phase = phase_of(task)
        self._others += phase is None
        if phase is None or (phase in _DONE and _is_step(task) and task.verbosity != 2):
            super().execute_task(task)

    def add_success(self, task: Any) -> None:
        """Count a step that ran under one of doit's own runners, which tell no more of it."""
        phase = phase_of(task)
        if phase is not None and _is_step(task) and task.name not in self._finished:
            self._done[phase] += 1

    def skip_uptodate(self, task: Any) -> None:
        """Count our targets that are up to date; show other tasks as doit does."""
        if phase_of(task) is None:
            super().skip_uptodate(task)
        elif phase_of(task) in _DONE and _is_step(task):
            self._uptodate += 1

    def add_failure(self, task: Any, fail: Any) -> None:
        """Print a step's failure at once and whole; count what it kept from running."""
        phase = phase_of(task)
        if phase is None and isinstance(fail, UnmetDependency):
            self.write(f"not run: {task.name}, for {fail.message} failed or was not run\n")
        elif phase is None:
            super().add_failure(task, fail)
        elif isinstance(fail, UnmetDependency):
            self._unmet += phase in _DONE and _is_step(task)
        else:
            self._failed.append(task.name)
            self.write(f"failed: {task.name}\n{_indented(self._unsaid(task.name, fail))}\n")

    def _unsaid(self, name: str, fail: Any) -> str:
        """Return a failure's message, or whose it was if it has been said already."""
        message = str(fail.message)
        first = self._said.setdefault(message, name)
        return message if first == name else f"for the same reason as {first}"

    # What our runner tells besides ------------------------------------------------------

    def step_finished(self, task: Any, outcome: Any) -> None:
        """Take in what a step came to.

        Args:
            task: doit's task.
            outcome: a `codegen_tasks.model.Outcome`.
        """
        phase = phase_of(task)
        self._finished.add(task.name)
        self._hits += outcome.hits
        self._misses += outcome.misses
        if not outcome.error:
            self._done[str(phase)] += 1
            self._unchanged += phase in _DONE and not outcome.changed
        if task.verbosity == 2:
            took = f"pid {outcome.pid}, {outcome.seconds * 1000:.0f} ms"
            self.write(f".  {task.name}  ({took})\n")
        for note in outcome.notes:
            self.write(f"   {note}\n")
        if outcome.printed and not outcome.error and self._shows(task, phase):
            self.write(_indented(outcome.printed.rstrip()) + "\n")

    @staticmethod
    def _shows(task: Any, phase: str | None) -> bool:
        """Compilers' warnings are shown as doit shows stderr, templates' prints as stdout."""
        needed = 1 if phase == "compile" else 2
        return int(task.verbosity or 0) >= needed

    def complete_run(self) -> None:
        """Print what doit prints of other tasks' failures, then our summary."""
        super().complete_run()
        for line in self._summary():
            self.write(line + "\n")

    def _summary(self) -> list[str]:
        parts = [
            f"{self._done[phase]} {word}" for phase, word in _DONE.items() if self._done[phase]
        ]
        if self._unchanged:
            parts.append(f"{self._unchanged} of them unchanged")
        if self._uptodate:
            parts.append(f"{self._uptodate} up to date")
        if self._failed:
            parts.append(f"{len(self._failed)} failed")
        if self._unmet:
            parts.append(f"{self._unmet} not run")
        if not parts and self._others:
            return []  # the user's tasks were run, none of ours: doit has said it all
        text = ", ".join(parts) or "nothing to do"
        seconds = time.perf_counter() - self._start
        lines = [f"{text} in {seconds:.2f} s{self._templates()}"]
        if len(self._failed) > 1:
            lines.append("failed: " + " ".join(self._failed))
        return lines

    def _templates(self) -> str:
        counts = [
            f"{count} {one if count == 1 else many}"
            for count, one, many in ((self._hits, "hit", "hits"), (self._misses, "miss", "misses"))
            if count
        ]
        return f" (templates {', '.join(counts)})" if counts else ""


def _is_step(task: Any) -> bool:
    return bool(task.meta["codegen"]["target"]) or task.meta["codegen"]["phase"] == "output"


def _indented(text: str) -> str:
    return "\n".join("  " + line if line else line for line in str(text).splitlines())
