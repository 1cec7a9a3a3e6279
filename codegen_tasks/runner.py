"""Running under doit's own control: its dispatcher decides what may run, we batch and spread.

doit's runner hands out one task at a time and, in parallel, pays for each with a queue.
This one keeps its rules (selection, up-to-date checks, setup, teardown, failures) and
changes what happens in between: compile steps wait until they can share a compiler, other
steps go to warm workers, several at a time when they are short.  Before the first step runs,
the lock is taken; a step with a time limit runs in a worker even without `-n`.
"""

from __future__ import annotations

import math
import pickle
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from doit.exceptions import (
    InvalidTask,
    SetupError,
    TaskError,
    UnmetDependency,
)
from doit.runner import ERROR, FAILURE, SUCCESS, Runner, pickle_dumps
from doit.task import DelayedLoaded

from . import lock, rows, state
from .build import Build
from .ending import WELL, Ending
from .jobs import (
    Died,
    Executor,
    Overdue,
    Part,
    Parted,
    StepsJob,
    TaskDone,
    TaskJob,
    Unbegun,
    Unreadable,
)
from .model import Outcome, Step
from .ours import is_ours
from .process import Keeper
from .ready import Ready
from .stage import Stage
from .steps import internal
from .tasks import adopt, adopt_packed, packed, record_packed
from .workers import Knowledge, Pool

#: So often, in seconds, workers are listened to while they have enough to do.
_LISTEN = 0.005
#: A job for another machine should take about this long, in seconds: beside that, the way is short.
_AFAR = 1.0
#: So many steps are worth to be sent there while doit offers more.
_MANY = 5_000
#: From so many files on, a batch is worth a second compiler beside the first.
_COMPILE_BATCH = 200


class CodegenRunner(Runner):
    """doit's runner for projects with a Codegen.

    Args:
        builds: the builds of the `dodo.py`.
        workers: how many processes; 0 runs everything in this one.
        wait: whether to wait while another process builds.
        stages: what is to be run after the first dispatcher, each when it is asked for: builds
            and a dispatcher.
        selected: what the command line names; empty for all.
        elsewhere: returns who has steps done on other machines, given the processes of this one
            and the builds; None if nobody does.
        others: returns the dispatcher of what is left when steps were restored, see `ahead`.
        given: see doit's `Runner`.
    """

    def __init__(
        self,
        *given: Any,
        builds: Sequence[Build],
        workers: int = 0,
        wait: bool = True,
        stages: Iterable[tuple[Sequence[Build], Any]] = (),
        selected: Sequence[str] = (),
        elsewhere: Callable[[Pool, Sequence[Build]], Executor] | None = None,
        others: Callable[[], Any] | None = None,
    ):
        super().__init__(*given)
        self._others = others
        self._stages = iter(stages)
        self._broken_off = False
        self._wait = wait
        always = bool(self.always_execute)
        self._ending = Ending(self.dep_manager, selected, workers, always)
        self._know(builds)
        self._locked = False
        self._locks: list[lock.Lock] = []
        self._know_locks()
        self._passed: list[Any] = []  # nodes of steps found up to date before that
        self._told: set[str] = set()  # names of those that are run after all
        self._keeper = Keeper()
        self.final_result: int = SUCCESS
        self._processes = workers  # asked for
        self._elsewhere = elsewhere
        self._workers = workers or (2 if elsewhere is not None else 0)
        self._pool: Executor | None = None
        self._nodes: dict[str, Any] = {}
        self._announced: set[str] = set()
        self._set_up: dict[str, Any] = {}  # tasks that workers are to tear down
        self._ready = Ready(self._workers, _AFAR if elsewhere is not None else None)
        self._unable = False  # to start workers
        self._compiles: dict[tuple[Any, ...], list[Any]] = {}  # nodes that may share a process
        self._done: deque[Any] = deque()  # nodes doit's dispatcher is to hear of
        self._listened = 0.0  # when
        self._packer = rows.Packer() if state.packs(self.dep_manager) else None
        self._awaited: dict[str, list[tuple[Any, str]]] = {}  # by task: nodes, and what they read
        self._may_read: dict[str, set[str]] = {}  # by step: tasks it has waited for besides
        self._here: Sequence[str] = ()  # steps under way in this process

    def _know(self, builds: Sequence[Build]) -> None:
        """Take in the builds of a stage."""
        for build in builds:
            build.workshop.anew |= (
                bool(self.always_execute) or not build.project.settings.incremental
            )
        self._stage = Stage(builds, self.dep_manager)
        self._ending.begins(self._stage)
        state.reserve(self.dep_manager, self._stage)

    def _know_locks(self) -> None:
        """Note how the locks stand; a stage may be the first that has any."""
        if not self._locks:
            self._locks = locks_of(self._stage.builds, self.dep_manager)
            for each in self._locks:
                each.look()

    # The loop ---------------------------------------------------------------------------

    def run_tasks(self, task_dispatcher: Any) -> None:
        """Run all selected tasks; doit calls this once."""
        in_order = False
        try:
            self._run_stages(self._restore(task_dispatcher))
            in_order = True
        finally:
            self._broken_off = not in_order
            self._tell("work_ends")
            if self._pool is not None:
                self._pool.kill()
            self._keeper.end(in_order)
            # What a worker set up and did not live to tear down is torn down here.
            self.teardown_list += self._set_up.values()

    def _restore(self, dispatcher: Any) -> Any:
        """Restore steps for which doit has no task; return the dispatcher of what is left."""
        if self._others is None or not any(build.ahead for build in self._stage.builds):
            return dispatcher
        from . import ahead

        self._hold()
        for index, build in enumerate(self._stage.builds):
            self._tell("restoring", {name: self._stage[name][1].phase for name in build.ahead})
            done: list[str] = []
            try:
                for outcomes in ahead.restored(build, self._values, self._ending.collected.stale):
                    for outcome in outcomes:
                        done.append(outcome.task)
                        self._finish_restored(index, outcome)
                    state.flush(self.dep_manager)
            finally:
                build.ahead = frozenset(done)
                state.flush(self.dep_manager)
        return self._others()

    def _values(self, name: str) -> Mapping[str, Any] | None:
        """Return what is recorded of a step; None if it is to be ignored."""
        ignored = self.dep_manager._get(name, "ignore:")
        return None if ignored else self.dep_manager.get_values(name)

    def _finish_restored(self, index: int, outcome: Outcome) -> None:
        """Do what `_finish_step` does, for a step without a task."""
        build, step = self._stage.builds[index], self._stage[outcome.task][1]
        build.workshop.publisher.log(step, outcome)
        record_packed(build, outcome, self.dep_manager)
        self._ending.step(index, outcome)
        self._tell("step_restored", step.phase, outcome, self.stream.effective_verbosity(None))

    def _run_stages(self, dispatcher: Any) -> None:
        self._run_stage(dispatcher)
        while not self._stop_running and (following := next(self._stages, None)):
            self._know(following[0])
            self._know_locks()
            self._tell("stage_begins", following[1].tasks, following[1].selected_tasks)
            self._nodes.clear()
            self._run_stage(following[1])

    def _run_stage(self, dispatcher: Any) -> None:
        self._tasks, self._dispatcher = dispatcher.tasks, dispatcher
        self._tell("work_begins", self)
        self._loop(dispatcher.generator)
        self._tell("work_ends")
        if self._pool is not None:
            self._report_teardown(self._pool.close())
            self._pool = None
        self._passed.clear()

    def _loop(self, generator: Any) -> None:
        exhausted, fresh = False, True
        while True:
            waiting = False
            if exhausted and self._dispatcher.ready and not self._stop_running:
                # A task nobody has selected, that makes what a step reads.
                generator = self._dispatcher._dispatcher_generator([])
                exhausted, fresh = False, True
            if not (exhausted or self._stop_running):
                try:
                    told = self._done.popleft() if self._done and not fresh else None
                    fresh = False
                    node = generator.send(told)
                except StopIteration:
                    exhausted = True
                    continue
                if node == "hold on":
                    waiting = not self._done
                else:
                    self._take(node)
            if self._done and not (exhausted or self._stop_running):
                continue
            if waiting or exhausted or self._stop_running:
                if not self._advance(exhausted or self._stop_running):
                    return
            else:
                self._collect(block=False)

    def _advance(self, ending: bool) -> bool:
        """Make progress on what was taken; False if there is nothing left to do it on."""
        if self._stop_running:
            self._ready.clear()
            self._compiles.clear()
            self._awaited.clear()
            if self._pool is not None:
                self._take_in(self._pool.call_off())
        self._dispatch()
        if self._in_flight():
            self._start_ahead()
            self._collect(block=True)
            return True
        if self._ready:
            if self._apart_first():
                self._submit(self._next_steps())
            else:
                self._run_any_here(self._nodes[self._ready.take()])
            return True
        if self._compiles:
            self._flush_compiles()
            return True
        if self._awaited:
            self._break_circle()
            return True
        if ending:
            return False
        raise InvalidTask("tasks wait for each other in a circle")

    def _in_flight(self) -> int:
        return self._pool.busy if self._pool is not None else 0

    def _take(self, node: Any) -> None:
        """Accept a node from doit's dispatcher: skip it, run it, or keep it for a batch."""
        task = node.task
        self._nodes[task.name] = node
        if task.name in self._ending.over:  # in a stage before this one
            node.run_status = self._ending.over[task.name]
            task.values = self.dep_manager.get_values(task.name)
            self._done.append(node)
            return
        selected = self.select_task(node, self._tasks)
        if selected and is_ours(task) and task._actions and self._hold():
            node.run_status = None  # the others' run may have done it
            selected = self.select_task(node, self._tasks)
        if not selected:
            if not self._locked and task.name in self._stage:
                self._passed.append(node)
            self._done.append(node)
            self._end(node)
            return
        known = self._stage.get(task.name)
        if known is not None:
            index, step = known
            key = self._stage.builds[index].workshop.compiling.shared_by(step)
            if key is not None:
                self._compiles.setdefault((index, *key), []).append(node)
            else:
                self._queue(node)
        elif self._processes and task._actions and not is_ours(task):
            self._queue(node)
        else:
            self._run_task_here(node)

    def select_task(self, node: Any, tasks_dict: Any) -> Any:
        """Tell whether a task is to run, as doit does.

        A step of which nothing is recorded is, without doit's further questions.
        """
        name = node.task.name
        known = name not in self._stage or node.run_status is not None
        if known or node.ignored_deps or node.bad_deps or self.dep_manager._in(name):
            return super().select_task(node, tasks_dict)
        self.reporter.get_status(node.task)
        node.task.overwrite_verbosity(self.stream)
        node.run_status = "run"
        return True

    # Chains -----------------------------------------------------------------------------

    def _end(self, node: Any) -> None:
        """Note how a task ended, and go on with the steps that read what it makes."""
        if node.run_status in (None, "run"):
            return  # it is to come again when its setup tasks have run
        name = node.task.name
        self._ending.task(name, node.run_status)
        for waiting, _ in self._awaited.pop(name, ()):
            self._resume(waiting, name)

    def _postpone(self, node: Any, path: str) -> None:
        """Keep a step that reads what another task makes until that has run."""
        name = node.task.name
        index, _ = self._stage[name]
        maker = self._stage.builds[index].plan.maker(path)
        assert maker is not None
        self._may_read.setdefault(name, set()).add(maker)
        if maker in self._ending.over:
            self._resume(node, maker)
            return
        self._awaited.setdefault(maker, []).append((node, path))
        wanted = self._dispatcher._gen_node(None, maker)
        if wanted is not None:
            self._dispatcher.ready.append(wanted)

    def _resume(self, node: Any, maker: str) -> None:
        if self._ending.over[maker] in (*WELL, "ignore"):
            self._queue(node)
        else:
            node.bad_deps.append(self._dispatcher.nodes[maker])
            self._finish_task(node, UnmetDependency(maker))

    def _break_circle(self) -> None:
        """Fail the steps that can never go on: what they wait for waits for them.

        A stale step that waits only because of what it read the last time may go first: it
        may not read that again.
        """
        free = [maker for maker in self._awaited if self._let_go(maker)]
        if free:
            return
        awaited, self._awaited = self._awaited, {}
        for maker, waiting in awaited.items():
            for node, path in waiting:
                self._fail([node.task.name], f"reads {path}, but {maker} waits for it in turn")

    def _let_go(self, name: str) -> bool:
        """Have a task not wait for what only its last run read; True if it can go on now."""
        node, known = self._dispatcher.nodes.get(name), self._stage.get(name)
        if known is None or node not in self._dispatcher.waiting:
            return False
        build, step = self._stage.builds[known[0]], known[1]
        hints = build.hints.pop(name, set())
        if not node.wait_run <= hints or node.wait_run_calc:
            return False
        if not build.verdict(step, self.dep_manager.get_values(name)).reasons:
            return False  # it does read that, and is made from it
        for one in node.wait_run:
            self._dispatcher.nodes[one].waiting_me.discard(node)
        node.wait_run.clear()
        node.task.task_dep[:] = [one for one in node.task.task_dep if one not in hints]
        self._dispatcher.waiting.remove(node)
        self._dispatcher.ready.append(node)
        return True

    # The lock ---------------------------------------------------------------------------

    def _hold(self) -> bool:
        """Take the lock before the first step runs; True if what was decided may be wrong."""
        if self._locked:
            return False
        self._locked = True
        taken = [each.acquire(self._wait) for each in self._locks]
        outdated = state.refresh(self.dep_manager) or any(taken)
        if any(each.left_behind for each in self._locks):
            for build in self._stage.builds:
                build.sweep()
            for each in self._locks:
                each.swept()
        for build in self._stage.builds:
            if build.glance and not self.dep_manager.backend.still(build.glance.kept.stamp):
                build.glance = None
        if outdated:
            for build in self._stage.builds:
                build.renew()
            self._look_again()
        return outdated

    def _look_again(self) -> None:
        """Run what was up to date when we looked, and is not after another process wrote.

        Nothing of ours has run yet.  doit has been told of these and will not hear again.
        """
        for node in self._passed:
            name = node.task.name
            # Asked as before, so that what is touched but equal is noted again too.
            fresh = self.dep_manager.get_status(node.task, self._tasks).status == "up-to-date"
            if not fresh and not self._stop_running:
                self._told.add(name)
                self._run_any_here(node)
            else:
                node.task.values = self.dep_manager.get_values(name)
        self._passed.clear()

    def _announce(self, names: Iterable[str]) -> None:
        """Tell the reporter what begins, when it does: what a failure stops is never told."""
        for name in names:
            if name not in self._announced:
                self._announced.add(name)
                self.reporter.execute_task(self._nodes[name].task)

    def _queue(self, node: Any) -> None:
        """Keep a node for a worker, or for this process when doit has no more to offer."""
        self._keep(node)
        if self._workers:
            self._dispatch(offered=True)

    def _keep(self, node: Any) -> None:
        # doit releases what waited for the same task in any order; ours is that of the plan.
        name = node.task.name
        self._ready.add(name, self._stage.order(name), self._seconds_before(name))

    def _seconds_before(self, name: str) -> float:
        """Return how long a task took the last time; nobody knows that of the users'."""
        if self._workers < 2:
            return 0.0  # then it does not matter
        return self._stage.seconds([name]).get(name, 0.0) if name in self._stage else math.inf

    # Here -------------------------------------------------------------------------------

    def _run_here(self, nodes: Sequence[Any]) -> None:
        """Run steps in this process."""
        names = [node.task.name for node in nodes]
        self._announce(names)
        self._here = names
        build = self._stage.build(names[0])
        chosen = [self._stage[name][1] for name in names]
        try:
            with self._marked(chosen):
                recorded, over = (
                    self._stage.recorded(names),
                    self._stage.waited_for(names, self._before),
                )
                outcomes = build.workshop.run(chosen, recorded, not self.continue_, over)
        except Exception:
            outcomes = [Outcome(name, error=internal(name)) for name in names]
        self._here = ()
        self._finish_steps(outcomes)

    def _marked(self, steps: Sequence[Step]) -> AbstractContextManager[None]:
        """Have the keeper know of what the steps start, if they start anything."""
        starting = any(step.starts_program for step in steps)
        return self._keeper.marking() if starting else nullcontext()

    def _before(self, name: str) -> set[str]:
        """Return the tasks that a step has waited for."""
        return {*self._nodes[name].task.task_dep, *self._may_read.get(name, ())}

    # Workers ----------------------------------------------------------------------------

    def _dispatch(self, offered: bool = False) -> None:
        """Give workers what is ready: to idle ones anything, to others what can wait there.

        Args:
            offered: there is more to come at once, so that others had better wait for that.
        """
        if offered and self._elsewhere is not None and len(self._ready) < _MANY:
            return  # much may be out there at once: what takes longest is to be among the first
        while self._ready and self._workers and not self._stop_running:
            pool = self._opened_pool()
            if pool is None:
                return
            ours = self._ready.first in self._stage
            if not pool.free and not (ours and pool.spare and self._may_wait(offered)):
                return
            if ours:
                self._submit(self._next_steps())
            else:
                self._submit_task(self._nodes[self._ready.take()])
        if not offered:
            self._share_out()

    def _share_out(self) -> None:
        """Where a worker has nothing to do, give it steps that another has not begun."""
        pool = self._pool
        if pool is None or self._ready or self._stop_running:
            return
        names = pool.take_back() if pool.busy and pool.free else []
        if names:
            self._again(names)

    def _may_wait(self, offered: bool) -> bool:
        """Tell whether what comes next is to be given to a worker that has something to do."""
        _, step = self._stage[self._ready.first]
        if step.phase == "compile" or self._stage.limit(step.task) is not None:
            return False
        return self._ready.may_wait(offered)

    def _opened_pool(self) -> Executor | None:
        """Return the workers; None if there can be none, and all runs here."""
        if self._pool is None and not self._unable:
            self._keeper.start()  # it gets ready while we do
            for build in self._stage.builds:
                build.workshop.warm_up()  # once here, and every fork has it
            packs = self._packer is not None and self._elsewhere is None
            mark = self._keeper.mark
            knowledge = Knowledge(self._stage.builds, self._tasks, self.stream, mark, packs)
            self._pool = pool = Pool(max(1, self._processes), knowledge, self._keeper)
            problem = pool.problem()
            if not problem and self._elsewhere is not None:
                self._pool = self._elsewhere(pool, self._stage.builds)
            if problem:
                what = "all runs in one process" if self._workers else "no render is ended in time"
                self._pool, self._workers, self._unable = None, 0, True
                print(f"{what}, for {problem}", file=sys.stderr)
        return self._pool

    def _run_any_here(self, node: Any) -> None:
        """Run one node before anything else; a step that may take too long, in a worker."""
        name = node.task.name
        if name not in self._stage:
            self._run_task_here(node)
        elif not self._stage.is_apart(name) or self._opened_pool() is None:
            self._run_here([node])
        else:
            self._submit(self._job([name]))
            while self._in_flight():
                self._collect(block=True)

    def _run_task_here(self, node: Any) -> None:
        """Run a task that is no step as doit does."""
        start, began = time.time_ns(), time.perf_counter()
        failure = self.execute_task(node.task)
        if node.task._actions:
            seconds = time.perf_counter() - began
            self._ending.collected.task(node.task.name, start, seconds, failure is not None)
        self._finish_task(node, failure)

    def _apart_first(self) -> bool:
        """Tell whether what comes next must run in a worker."""
        return self._stage.is_apart(self._ready.first) and self._opened_pool() is not None

    def _start_ahead(self) -> None:
        """Start workers for steps that wait, instead of only waiting too."""
        if self._pool is None or self._pool.is_whole:
            return
        waiting = sum(node.task.name in self._stage for node in self._dispatcher.waiting)
        if waiting > 1:
            self._pool.grow(waiting)

    def _submit(self, job: StepsJob | TaskJob) -> None:
        assert self._pool is not None
        self._announce(job.tasks)
        self._pool.submit(job)

    def _submit_task(self, node: Any) -> None:
        """Give a user's task to a worker; one that no worker can be told of runs here."""
        job = self._task_job(node.task)
        if job is None:
            self._run_any_here(node)
            return
        if node.task.teardown:
            self._set_up[node.task.name] = node.task
        self._submit(job)

    def _task_job(self, task: Any) -> TaskJob | None:
        assert self._pool is not None
        if self._pool.forks and task.loader is not DelayedLoaded:
            return TaskJob(task.name, task.pickle_safe_dict())
        try:
            return TaskJob(task.name, None, pickle_dumps(task))
        except (pickle.PicklingError, AttributeError, TypeError):
            return None

    def _next_steps(self) -> StepsJob:
        """Return the next job: one step that takes long, or several of one build."""
        return self._job(self._ready.take_job(self._kind))

    def _kind(self, name: str) -> tuple[Any, ...] | None:
        return self._stage.kind(name, self._pool.goes_out if self._pool is not None else None)

    def _job(self, names: Sequence[str], together: bool = False) -> StepsJob:
        return self._stage.job(names, self._before, not self.continue_, together)

    def _collect(self, block: bool) -> None:
        """Take in results; if `block`, wait for one."""
        if not self._in_flight():
            return
        assert self._pool is not None
        # What comes is kept, and a worker wakes us no sooner for each of many short steps.
        early = self._listened + _LISTEN - time.monotonic()
        if early > 0 and self._ready.is_short:
            if not block:
                return
            if self._pool.steps_left > 2 * self._workers:
                time.sleep(early)
        self._listened = time.monotonic()
        self._take_in(self._pool.results(None if block else 0))
        if self._elsewhere is not None:
            self._workers = self._ready.workers = self._pool.places
        self._dispatch(offered=not block and self._elsewhere is not None)

    def _take_in(self, results: Iterable[Any]) -> None:
        for result in results:
            if isinstance(result, TaskDone):
                self._finish_worker_task(result)
            elif isinstance(result, Died):
                self._bury(result)
            elif isinstance(result, Overdue):
                limit = result.job.limit(0)
                self._fail_first(result.job.tasks, f"took longer than {limit:g} s")
            elif isinstance(result, Unreadable):
                self._fail(result.job.tasks, f"what it returned cannot be read: {result.why}")
            elif isinstance(result, Unbegun):
                self._again(result.job.tasks)
            elif isinstance(result, Part):
                self._finish_steps(result.outcomes)

    def _bury(self, died: Died) -> None:
        """Fail the task that killed its worker; of some that ran together, find out which."""
        names = died.job.tasks
        if isinstance(died.job, StepsJob) and died.job.together:
            self._again(names)
        else:
            self._fail_first(names, f"the worker process died {died.how}")

    def _fail_first(self, names: Sequence[str], what: str) -> None:
        """Fail the step that was under way; those after it were not begun."""
        self._fail(names[:1], what)
        self._again(names[1:])

    def _again(self, names: Iterable[str]) -> None:
        if not self._stop_running:
            for name in names:
                self._keep(self._nodes[name])
            self._dispatch()

    def _fail(self, names: Iterable[str], what: str) -> None:
        """Fail tasks that a worker had, with one message."""
        for name in names:
            if name in self._stage:
                self._finish_steps([Outcome(name, error=f"{name}: {what}")])
            else:
                self._ending.collected.task(name, 0, 0.0, failed=True)
                self._finish_task(self._nodes[name], TaskError(f"{name}: {what}"))

    def _flush_compiles(self) -> None:
        """Start the compile steps that have gathered, each toolchain's together."""
        for nodes in self._compiles.values():
            nodes.sort(key=lambda node: self._stage.order(node.task.name))
        batches = [
            nodes[start : start + size]
            for nodes in self._compiles.values()
            for size in [max(_COMPILE_BATCH, -(-len(nodes) // max(1, self._workers)))]
            for start in range(0, len(nodes), size)
        ]
        self._compiles = {}
        for nodes in batches:
            if self._stop_running:
                return
            spread = self._workers and (len(batches) > 1 or self._elsewhere is not None)
            apart = spread or self._stage.asks_afar(nodes[0].task.name)
            pool = self._opened_pool() if apart else None
            if pool is None:
                self._run_here(nodes)
            else:
                self._submit_batch(pool, nodes)

    def _submit_batch(self, pool: Executor, nodes: Sequence[Any]) -> None:
        while not pool.free:
            self._collect(block=True)
        if self._stop_running:
            return
        names = [node.task.name for node in nodes]
        self._submit(self._job(names, together=len(names) > 1))

    # What a reporter asks ---------------------------------------------------------------

    def recorded_of(self, names: Iterable[str]) -> dict[str, float]:
        """Return the seconds that some steps took the last time, as far as that is recorded."""
        return self._stage.seconds(names)

    # The following in a thread of its own.

    @property
    def places(self) -> int:
        """How many steps can be under way at once."""
        pool = self._pool
        return pool.places if pool is not None else max(1, self._workers)

    def under_way(self) -> list[tuple[int | str, Sequence[str]]]:
        """Return who is at work, 0 for this process, and the steps under way there."""
        pool = self._pool
        if pool is None:
            return [(0, self._here)]
        return [*([(0, self._here)] if self._here else []), *pool.under_way()]

    def recorded(self) -> Iterator[tuple[str, float]]:
        """Yield steps that were asked for, and the seconds they took the last time."""
        for build in self._stage.builds:
            yield from build.seconds_before()

    # Results ----------------------------------------------------------------------------

    def _finish_steps(self, outcomes: Iterable[Outcome]) -> None:
        left = deque(outcomes)
        try:
            while left:
                self._finish_step(left.popleft())
        except KeyboardInterrupt:
            while left:  # they have finished too
                self._finish_step(left.popleft())
            raise
        state.flush(self.dep_manager)

    def _finish_step(self, outcome: Outcome) -> None:
        node = self._nodes[outcome.task]
        if outcome.skipped:
            return  # another step failed first; the run is ending
        if outcome.awaits:
            self._postpone(node, outcome.awaits)
            return
        if outcome.seconds and (self._elsewhere is None or outcome.worker):
            self._ready.took(outcome.seconds)
        index, step = self._stage[outcome.task]
        if self._packer is not None and not outcome.record:
            outcome = packed(self._stage.builds[index], outcome, self._packer)
        self._stage.builds[index].workshop.publisher.log(step, outcome)
        task = node.task
        task.executed = True
        for action in task.actions:
            action.finish(outcome)
        failure = self._adopt(task, self._stage.builds[index], outcome)
        self._ending.step(index, outcome)
        self._tell("step_finished", task, outcome)
        self._finish_task(node, failure, self._packer is not None)

    def _adopt(self, task: Any, build: Build, outcome: Outcome) -> Any:
        """Take in what a step came to; return the failure, if it is one."""
        if not outcome.record:
            return adopt(task, build, outcome)
        adopt_packed(task, build, outcome, self.dep_manager)
        return None

    def _tell(self, event: str, *details: Any) -> None:
        """Tell a reporter of ours what doit's reporters have no method for."""
        method = getattr(self.reporter, event, None)
        if method is not None:
            method(*details)

    def _finish_task(self, node: Any, failure: Any, recorded: bool = False) -> None:
        """Do what doit does with a task that has ended; a step may be `recorded` already."""
        if failure is None and node.task.name not in self._stage:
            failure = self._unstorable(node.task)
        if failure is None and recorded:
            node.run_status = "successful"
            self.reporter.add_success(node.task)
        else:
            self.process_task_result(node, failure)
        if node.task.name not in self._stage:
            state.flush(self.dep_manager)
        if node.task.name not in self._told:
            self._done.append(node)
        self._end(node)

    def _unstorable(self, task: Any) -> TaskError | None:
        """Fail a task whose values the database cannot hold, before they spoil the others'."""
        result = task.result if isinstance(task.result, dict) else None
        try:
            self.dep_manager.backend.codec.encode({"values": task.values, "result": result})
        except Exception as error:
            return TaskError(f"what the task returned cannot be stored: {error}")
        return None

    def _finish_worker_task(self, done: TaskDone) -> None:
        node = self._nodes[done.name]
        task = node.task
        task.update_from_pickle(done.state)
        task.executed = True
        for action, out, err in zip(task.actions, done.out, done.err, strict=False):
            action.out, action.err = out, err
        failed = done.failure is not None
        self._ending.collected.task(done.name, done.start, done.seconds, failed, done.pid)
        self._finish_task(node, done.failure)

    def _handle_task_error(self, node: Any, base_fail: Any) -> None:
        """Keep doit's rules, except for what a step of ours has recorded and for exit codes.

        A step that did not run because another failed keeps its trace, which is still
        true; one that failed is remembered as such.  Neither is an error of the run's own.
        """
        ours = is_ours(node.task)
        unmet = isinstance(base_fail, UnmetDependency)
        before, name = self.final_result, node.task.name
        if unmet and name in self._stage:
            self._ending.collected.not_run([name])
        if ours and unmet:
            self.dep_manager.remove, remove = _do_nothing, self.dep_manager.remove
            try:
                super()._handle_task_error(node, base_fail)
            finally:
                self.dep_manager.remove = remove
        else:
            super()._handle_task_error(node, base_fail)
        if unmet and all(is_ours(bad.task) for bad in node.bad_deps):
            self.final_result = before if before == ERROR else FAILURE
        if name in self._stage and not unmet:
            said = str(base_fail.message).splitlines()[:1]
            left = self._stage.build(name).left(name)
            self.dep_manager._set(name, "_values_:", {"failed": "".join(said), **left})

    def _report_teardown(self, told: Iterable[Any]) -> None:
        for item in told:
            if isinstance(item, Parted):
                self._stage.builds[item.build].savings.traffic.include(item.traffic)
                continue
            self._set_up.pop(item.name, None)
            self.reporter.teardown_task(self._tasks[item.name])
            if item.failure:
                error = SetupError(f"ERROR: task '{item.name}' teardown action", item.failure)
                self.reporter.cleanup_error(error)

    def finish(self) -> Any:
        """Complete the manifests with what a partial run changed, then end as doit does."""
        try:
            return self._finish()
        finally:
            self._keep_record()  # unless it is kept already
            for each in self._locks:
                each.release()

    def _finish(self) -> Any:
        complete = self._ending.complete
        for problem in complete(self._values, not self._stop_running, not self._broken_off):
            self.reporter.runtime_error(problem)
            self.final_result = self.final_result or FAILURE  # as a failed `output` is
        if not self._locked and any(each.is_abandoned for each in self._locks):
            self._hold()  # to sweep what a killed run left, though there was nothing to do
        # Before the snapshot: with that the next run may have nothing to do, and sweep nothing.
        self._keep_record()
        self._ending.remember()
        return super().finish()

    def _keep_record(self) -> None:
        """Leave a record of the run, once."""
        ended = "interrupted" if self._broken_off else "failed" if self.final_result else "done"
        nodes = self._nodes.items()
        begun = (name for name, node in nodes if node.run_status == "run" and name in self._stage)
        self._ending.keep_record(ended, begun)


def locks_of(builds: Iterable[Build], dep_manager: Any) -> list[lock.Lock]:
    """Return the locks of the builds' state folders, in the order in which all take them."""
    folders = sorted({build.project.full(build.project.state) for build in builds})
    return [lock.of(dep_manager, folder) for folder in folders]


def _do_nothing(task_id: str) -> None:
    pass
