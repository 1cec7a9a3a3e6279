"""doit run: doit's own command, with our runner where the dodo.py declares a Codegen."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from doit.action import PythonAction
from doit.cmd_run import Run as CoreRun
from doit.control import TaskControl
from doit.exceptions import InvalidCommand
from doit.task import Stream

from .common import builds_of, say_whatever_the_encoding


class Run(CoreRun):
    """Core's `run`; with a Codegen in dodo.py, steps are batched and spread over workers."""

    name = "run"

    @property
    def _execute(self) -> Any:
        """Core's method itself where there is no Codegen: its tracebacks show no frame of ours."""
        return self._execute_builds if builds_of(self.loader) else super()._execute

    def _execute_builds(
        self,
        outfile: Any,
        verbosity: int | None = None,
        always: bool = False,
        continue_: bool = False,
        reporter: Any = "console",
        num_process: int = 0,
        par_type: str = "process",
        single: bool = False,
        auto_delayed_regex: bool = False,
        force_verbosity: bool = False,
        failure_verbosity: int = 0,
        pdb: bool = False,
    ) -> Any:
        say_whatever_the_encoding()
        builds = builds_of(self.loader)
        if not all(build.project.settings.parallel for build in builds):
            num_process = 0
        if num_process and par_type == "thread":
            self._say_if_less_durable()
            return super()._execute(
                outfile,
                verbosity,
                always,
                continue_,
                reporter,
                num_process,
                par_type,
                single,
                auto_delayed_regex,
                force_verbosity,
                failure_verbosity,
                pdb,
            )
        if num_process and par_type != "process":
            raise InvalidCommand(f"Invalid parallel type {par_type}")
        PythonAction.pm_pdb = pdb
        self._select(single, auto_delayed_regex)
        self._say_if_less_durable()
        with _opened(outfile) as stream:
            self.outstream = stream
            told = self._reporter(reporter, stream, failure_verbosity)
            shared = [self.dep_manager, told, continue_, always, Stream(verbosity, force_verbosity)]
            return self._run(shared, builds, num_process)

    def _run(self, shared: list[Any], builds: Sequence[Any], workers: int) -> Any:
        """Run, and end in order if someone interrupts: workers gone, state kept, one line."""
        from ..runner import CodegenRunner

        runner = CodegenRunner(*shared, builds=builds, workers=workers)
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return runner.run_all(self.control.task_dispatcher())
        except KeyboardInterrupt as interrupt:
            number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
            print("interrupted; what was finished is kept", file=sys.stderr)
            return 128 + number

    def _select(self, single: bool, auto_delayed_regex: bool) -> None:
        """Decide what is to run, as core does."""
        self.control = TaskControl(self.task_list, auto_delayed_regex=auto_delayed_regex)
        self.control.process(self.sel_tasks)
        if not single:
            return
        for name in self.control.selected_tasks:
            task = self.control.tasks[name]
            alone = (
                [self.control.tasks[sub] for sub in task.task_dep] if task.has_subtask else [task]
            )
            for one in alone:
                one.task_dep = []
                one.calc_dep = set()

    def _reporter(self, reporter: Any, stream: Any, failure_verbosity: int) -> Any:
        chosen = self.reporters[reporter] if isinstance(reporter, str) else reporter
        if isinstance(chosen, type):
            return chosen(stream, {"failure_verbosity": failure_verbosity})
        return chosen

    def _say_if_less_durable(self) -> None:
        from ..state import StateDB

        if not isinstance(self.dep_manager.backend, StateDB):
            print(
                "dodo.py: DOIT_CONFIG is not codegen.doit_config, so what a killed run had"
                " finished is done again",
                file=sys.stderr,
            )


class _Terminated(KeyboardInterrupt):
    """Someone ended us with SIGTERM; all that ends a run for Ctrl-C ends it for this too."""


def _terminate(number: int, frame: Any) -> None:
    raise _Terminated


def _opened(outfile: Any) -> AbstractContextManager[Any]:
    if isinstance(outfile, str):
        return open(outfile, "w", encoding="utf-8", newline="")
    return nullcontext(outfile)
