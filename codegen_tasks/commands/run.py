"""doit run: doit's own command, with our runner where the dodo.py declares a Codegen."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from doit.action import PythonAction
from doit.cmd_run import Run as CoreRun
from doit.control import TaskControl
from doit.exceptions import InvalidCommand
from doit.runner import Runner
from doit.task import Stream

from .. import disk
from ..codegen import ToRun
from ..errors import DeclarationError, known_or_nearest
from ..ours import is_ours
from ..settings import check_address
from . import named
from .common import (
    OverCore,
    builds_of,
    codegens,
    planned,
    say_whatever_the_encoding,
)

if TYPE_CHECKING:
    from ..codegen import Codegen

#: Reporters that show no task which is up to date.
_TELLING_WHAT_RAN = ("codegen", "executed-only", "error-only", "zero")

#: Ways to run tasks in parallel.
_PARALLEL = ("process", "thread", "dask")
_OPT_NO_WAIT = {
    "name": "no_wait",
    "long": "no-wait",
    "type": bool,
    "default": False,
    "help": "if another process builds here, stop at once with exit code 3 [default: %(default)s]",
}
_OPT_SCHEDULER = {
    "name": "scheduler",
    "long": "scheduler",
    "type": str,
    "default": "",
    "help": "address of the Dask scheduler for '-P dask' [default: CODEGEN_DASK_SCHEDULER, "
    "[tool.codegen] dask_scheduler, what Dask is configured to use; else workers of this machine]",
}


class Run(OverCore, CoreRun):
    """Core's `run`; with a Codegen in dodo.py, steps are batched and spread over workers."""

    name = "run"
    control: Any
    sel_tasks: Any
    task_list: Any
    own = (_OPT_NO_WAIT, _OPT_SCHEDULER)
    #: Tasks that are not ours and could give work to ours, which have none so far.
    first: Sequence[str] = ()

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self._given: dict[str, Any] = {}  # by task, arguments that it got before any was parsed

    def describe(self) -> None:
        """Say what it does for targets."""
        self.doc_purpose = "make targets that are stale, and run other tasks"
        self.doc_description = (
            "Without a name: templates are parsed, targets generated and compiled, and other tasks "
            "run as doit decides. Names are tasks, wildcards such as 'generate:b*', or targets. "
            "What is up to date is left alone: `doit info` tells before what is not, and why. "
            "Exits with 0; with 1 if a step failed; with 3 for what is wrong before any step "
            "begins."
        )
        self.doc_usage = "[TASK|TARGET ...]"
        self.examples = (
            ("", "everything; the same as doit alone"),
            ("-n 4 generate", "all targets, in four processes"),
            ("generated/bloom.js", "one target, and what it is made from"),
        )

    def may_be_short(self, found: Sequence[Codegen]) -> bool:
        """Tell whether nothing runs before ours that could give it work, or can be looked after."""
        from ..glance import come_between, preceding

        self._resolve()
        self.first = preceding(self.task_list, self.sel_tasks)
        if come_between(self.task_list, self.sel_tasks):
            return False
        return not self.first or all(one.quiet for one in found)

    def _resolve(self) -> None:
        """Take names below the output folder for the targets that they mean."""
        found = codegens(self.loader.namespace)
        self.sel_tasks = named.resolved(self.sel_tasks, self.task_list, found)

    def names(self, params: Mapping[str, Any], args: Sequence[str]) -> Collection[str] | None:
        """Return what is selected; None if all tasks are to run, or each is to be told of."""
        quiet = params["reporter"] in _TELLING_WHAT_RAN
        # Core's runner of threads knows only the tasks that there are.
        core = params["num_process"] and params["par_type"] == "thread"
        whole = params["always"] or params["single"] or core or not quiet
        if whole:
            return None
        selected = self.sel_tasks or ()
        # What is restored before it has a task is told of by our reporter alone.
        return selected if params["reporter"] == "executed-only" else ToRun(selected)

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
        pos_args: Sequence[str] = (),
        no_wait: bool = False,
        scheduler: str = "",
    ) -> Any:
        say_whatever_the_encoding()
        if par_type not in _PARALLEL:
            hint = known_or_nearest(par_type, _PARALLEL)
            raise DeclarationError("-P", f"unknown kind of workers '{par_type}'", hint)
        afar = par_type == "dask"
        address = self._scheduler(scheduler, afar)
        builds: Sequence[Any] = planned(self)
        if not all(build.project.settings.parallel for build in builds):
            num_process, afar = 0, False
        if num_process and par_type == "thread" and not self._late():
            self._say_if_less_durable()
            code = CoreRun._execute(
                self,
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
            self._keep_record(builds, num_process, always, code)
            return code
        PythonAction.pm_pdb = pdb
        select = functools.partial(self._select, single, auto_delayed_regex)
        begin = self._begin(select)
        self._say_if_less_durable()
        signal.signal(signal.SIGTERM, _terminate)
        try:
            if self._waited_for_others(builds, not no_wait):
                builds = self._load_again(pos_args)
                begin = self._begin(select)
            with _opened(outfile) as stream:
                self.outstream = stream
                told = self._reporter(reporter, stream, failure_verbosity)
                if hasattr(told, "names_given"):  # a reporter of ours
                    told.names_given = pos_args
                screen = Stream(verbosity, force_verbosity)
                shared = [self.dep_manager, told, continue_, always, screen]
                elsewhere = self._on_dask(address, num_process, told) if afar else None
                ended = self._run(
                    shared, builds, num_process, not no_wait, begin, elsewhere, select
                )
                self._go_on()
                return ended
        except KeyboardInterrupt as interrupt:
            # Everything has ended in order: workers are gone, what was finished is recorded.
            number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
            print("interrupted; what was finished is kept", file=sys.stderr)
            return 128 + number

    def _run(
        self,
        shared: list[Any],
        builds: Sequence[Any],
        workers: int,
        wait: bool,
        stages: Iterator[tuple[Sequence[Any], Any]],
        elsewhere: Callable[..., Any] | None,
        select: Callable[[], None],
    ) -> Any:
        if not (builds or workers or self.first):
            return Runner(*shared).run_all(self.control.task_dispatcher())
        from ..runner import CodegenRunner

        runner = CodegenRunner(
            *shared,
            builds=builds,
            workers=workers,
            wait=wait,
            stages=stages,
            selected=self.sel_tasks or (),
            elsewhere=elsewhere,
            others=functools.partial(self._others, select),
        )
        return runner.run_all(self.control.task_dispatcher())

    def _scheduler(self, given: str, afar: bool) -> str:
        """Return the address of the scheduler that is to be used, "" if none is told.

        Raises:
            DeclarationError: it is none, or Dask is not installed.
        """
        if not afar:
            if given:
                raise DeclarationError("--scheduler", "is for Dask's workers only", "-P dask")
            return ""
        if importlib.util.find_spec("distributed") is None:
            raise DeclarationError("-P dask", "needs Dask", "pip install 'codegen-tasks[dask]'")
        project = codegens(self.loader.namespace)[0].project
        if given:
            check_address("--scheduler", given)
        elif project.settings.dask_scheduler:
            check_address("dask_scheduler", project.settings.dask_scheduler)
        return given or project.settings.dask_scheduler

    def _on_dask(self, address: str, processes: int, told: Any) -> Callable[..., Any]:
        """Return what has steps done by Dask's workers, when the first one is to run."""

        def say(line: str) -> None:
            if hasattr(told, "names_given"):  # a reporter of ours
                told.write(f"{line}\n")
            else:
                print(line, file=sys.stderr)

        def opened(local: Any, builds: Sequence[Any]) -> Any:
            from ..distributed.pool import DaskPool

            dodo = str(self.loader.namespace.get("__file__", ""))
            workers = processes or os.cpu_count() or 1
            wait = float(builds[0].project.settings.dask_wait)
            return DaskPool(local, builds, dodo, address, workers, wait, say)

        return opened

    def _keep_record(self, builds: Sequence[Any], workers: int, always: bool, code: Any) -> None:
        """Leave a record of a run under core's runner of threads."""
        from .. import runs

        collected = runs.of(self.dep_manager)
        fresh = (step for build in builds for step in build.plan.steps.values())
        runs.keep(
            collected,
            builds,
            selected=self.sel_tasks or (),
            workers=workers,
            ended="failed" if code else "done",
            up_to_date=sum(s.task in collected.fresh and s.phase != "templates" for s in fresh),
            always=always,
        )

    def _go_on(self) -> None:
        """Have the next run know that ours had nothing to do, though others have run."""
        for one in codegens(self.loader.namespace):
            if one.quiet and one.glance is not None:
                one.glance.go_on(self.dep_manager)

    def _begin(self, select: Callable[[], None]) -> Iterator[tuple[Sequence[Any], Any]]:
        """Decide what is to run first; return what is to run when that has ended.

        Where tasks make patterns that name targets, these tasks come first: what they made
        may change the plan.
        """
        if self.first and not builds_of(self.loader):
            select()
            self.control.selected_tasks = list(self.first)
            return self._after_others(select)
        late = self._late()
        if not late or self._concerns_others_only(select):
            select()
            return iter(())
        self._select_late(late)
        return self._after(late, select)

    def _others(self, select: Callable[[], None]) -> Any:
        """Return the dispatcher of what is left when steps were restored, see `ahead`."""
        from .. import chains

        found = codegens(self.loader.namespace)
        self.task_list = chains.abridged(found, self.task_list)
        chains.order([one.build for one in found], self.task_list, self.dep_manager)
        select()
        return self.control.task_dispatcher()

    def _after_others(self, select: Callable[[], None]) -> Iterator[tuple[Sequence[Any], Any]]:
        """Yield what is selected, with all of our tasks if there is anything to do by now."""
        from .. import chains

        found = codegens(self.loader.namespace)
        looks = [one.look() for one in found]
        if not all(looks):
            self.task_list = chains.unabridged(found, self.task_list)
        builds = planned(self)
        select()
        yield builds, self.control.task_dispatcher()

    def _after(
        self, done: set[str], select: Callable[[], None]
    ) -> Iterator[tuple[Sequence[Any], Any]]:
        from .. import chains

        while True:
            found = codegens(self.loader.namespace)
            self.task_list = chains.again(found, self.task_list)
            builds = [one.build for one in found]
            chains.order(builds, self.task_list, self.dep_manager)
            late = self._late(done)
            if not late:
                chains.refuse_unmet(found)
                select()
                yield builds, self.control.task_dispatcher()
                return
            self._select_late(late)
            done |= late
            yield builds, self.control.task_dispatcher()

    def _late(self, done: Collection[str] = ()) -> set[str]:
        """Return the tasks that make patterns which name targets, if it is known that they are.

        A target that is itself named by what has not been made yet may never be.
        """
        builds = builds_of(self.loader)
        found = {task for build in builds for task in build.plan.late}.difference(done)
        makers = {task: build.plan for build in builds for task in build.plan.steps}

        known: dict[str, bool] = {}

        def may_vanish(task: str) -> bool:
            if task not in known:
                known[task] = False  # should it be its own pattern, by way of another Codegen
                plan = makers.get(task)
                above = {plan.maker(path) for path in plan.steps[task].patterns} if plan else ()
                known[task] = any(maker in found or may_vanish(maker) for maker in above if maker)
            return known[task]

        return {task for task in found if not may_vanish(task)}

    def _concerns_others_only(self, select: Callable[[], None]) -> bool:
        """Tell whether what is selected has nothing to do with us, whatever the plan will be."""
        try:
            select()
        except InvalidCommand:
            return False  # perhaps a target that is not known yet
        outputs = tuple(f"{build.project.output}/" for build in builds_of(self.loader))
        needed = self._needed()
        return not any(
            task is None
            or is_ours(task)
            or task.loader
            or any(disk.relative(str(path)).startswith(outputs) for path in task.file_dep)
            for task in needed
        )

    def _select_late(self, late: Iterable[str]) -> None:
        self.control = TaskControl(self.task_list)
        with contextlib.suppress(InvalidCommand):  # perhaps a target that is not known yet
            self._parse_anew()
            self._resolve()
            self.control.process(self.sel_tasks)
        self.control.selected_tasks = sorted(late)

    def _waited_for_others(self, builds: Sequence[Any], wait: bool) -> bool:
        """Wait while another process builds what is to be built here; True if one did."""
        if not builds:
            return False
        from ..runner import locks_of

        locks = locks_of(builds, self.dep_manager)
        waited = [each.wait(wait) for each in locks] if self._selects_ours() else []
        return any(waited)

    def _selects_ours(self) -> bool:
        """Tell whether a task of ours is to run, as far as it is known before the run."""
        return any(task is not None and is_ours(task) for task in self._needed())

    def _needed(self) -> Iterator[Any]:
        """Yield the selected tasks and what they wait for; None for one that is not known."""
        tasks, seen = self.control.tasks, set(self.control.selected_tasks)
        left = list(seen)
        while left:
            task = tasks.get(left.pop())
            yield task
            if task is not None:
                needed = {*task.task_dep, *task.setup_tasks, *task.calc_dep} - seen
                seen |= needed
                left += needed

    def _load_again(self, pos_args: Sequence[str]) -> Sequence[Any]:
        """Ask for the tasks anew: while we waited, patterns may have come and gone."""
        from ..state import refresh

        refresh(self.dep_manager)
        self.dep_manager.codegens = []  # of those that doit has asked, see `Codegen`
        self.task_list = self.loader.load_tasks(cmd=self, pos_args=pos_args)
        return planned(self)

    def _select(self, single: bool, auto_delayed_regex: bool) -> None:
        """Decide what is to run, as core does."""
        self.control = TaskControl(self.task_list, auto_delayed_regex=auto_delayed_regex)
        self._parse_anew()
        self._resolve()
        found = codegens(self.loader.namespace)
        named.process(self.control, self.sel_tasks, found, self.task_list)
        if any(build.fresh or build.ahead for build in builds_of(self.loader)):
            from .. import chains

            self.control.tasks = chains.OnDemand(self.control.tasks, builds_of(self.loader))
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

    def _parse_anew(self) -> None:
        """Have doit parse the tasks' arguments again, which it does for each task only once."""
        for task in self.task_list:
            if task.name in self._given:
                task.options, task.pos_arg_val = None, self._given[task.name]
            else:
                self._given[task.name] = task.pos_arg_val

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
