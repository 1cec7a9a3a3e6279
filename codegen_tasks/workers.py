"""Worker processes: warm, each on a pipe of its own, so that one's death hangs nobody.

A worker knows the builds and the doit tasks from the moment it was forked; what it is sent
are names.  Where there is no fork it is sent pickles.  Unaware of scheduling.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import pickle
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .build import Build
from .model import Outcome
from .steps import internal


@dataclass(frozen=True, slots=True)
class StepsJob:
    """Steps of one build to run one after the other, or together where a compiler can.

    Args:
        build: index into the worker's builds.
        tasks: the steps' tasks.
        recorded: see `Workshop.run`.
        stop_early: see `Workshop.run`.
    """

    build: int
    tasks: tuple[str, ...]
    recorded: Mapping[str, Mapping[str, str]]
    stop_early: bool


@dataclass(frozen=True, slots=True)
class TaskJob:
    """One task of the user's, executed as doit's own parallel runner would.

    Args:
        name: the task.
        state: its attributes that may differ from what the worker knows.
        pickled: the whole task, for a worker that does not know it.
    """

    name: str
    state: Mapping[str, Any] | None
    pickled: bytes | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The one task, as `StepsJob` has several."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class TaskDone:
    """What executing a user's task came to: doit's failure or None, attributes, output."""

    name: str
    failure: Any
    state: Mapping[str, Any]
    out: list[Any]
    err: list[Any]


@dataclass(frozen=True, slots=True)
class TornDown:
    """A worker tore a task down; `failure` if that failed."""

    name: str
    failure: Any


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a worker is born with: builds and doit's tasks by name, and doit's stream."""

    builds: Sequence[Build]
    tasks: Mapping[str, Any]
    stream: Any


@dataclass(slots=True)
class Worker:
    """The parent's end of a worker."""

    process: Any
    pipe: Any
    job: StepsJob | TaskJob | None = None


@dataclass(slots=True)
class Died:
    """A worker ended while it had a job; `how` says by what signal or exit code."""

    job: StepsJob | TaskJob
    how: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A worker answered, but its answer cannot be unpickled here."""

    job: StepsJob | TaskJob
    why: str


@dataclass(slots=True)
class Pool:
    """Up to `size` workers, started when there is work for them.

    Args:
        size: how many at most.
        knowledge: what each is born with.
    """

    size: int
    knowledge: Knowledge
    _workers: list[Worker] = field(default_factory=list)
    _context: Any = field(default_factory=lambda: _start_context())

    @property
    def forks(self) -> bool:
        """Whether workers inherit what the parent knows."""
        return bool(self._context.get_start_method() == "fork")

    def problem(self) -> str:
        """Return what keeps workers from being started; empty if nothing does."""
        try:
            pickle.dumps(self._inheritance)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            how = self._context.get_start_method()
            return f"what the {how} of a worker needs cannot be pickled: {error}"
        return ""

    @property
    def _inheritance(self) -> Knowledge | None:
        """What must be pickled for a worker: not the tasks, which may hold closures."""
        return None if self.forks else replace(self.knowledge, tasks={})

    @property
    def busy(self) -> int:
        """Workers that have a job."""
        return sum(worker.job is not None for worker in self._workers)

    @property
    def free(self) -> int:
        """Jobs that could be submitted at once."""
        return self.size - self.busy

    def submit(self, job: StepsJob | TaskJob) -> None:
        """Give a job to an idle worker, starting one if need be; `free` must not be 0."""
        worker = next((w for w in self._workers if w.job is None), None) or self._start()
        worker.job = job
        with contextlib.suppress(OSError):  # a worker that has just died is met in `wait`
            worker.pipe.send(job)

    def results(self, timeout: float | None = None) -> list[Any]:
        """Return results: lists of Outcome, TaskDone, Died or Unreadable.

        Args:
            timeout: seconds to wait for the first; None waits until there is one.
        """
        pipes = [worker.pipe for worker in self._workers if worker.job is not None]
        ready = multiprocessing.connection.wait(pipes, timeout)
        return [self._result(w) for w in list(self._workers) if w.pipe in ready]

    def close(self) -> list[TornDown]:
        """Let idle workers tear down their tasks and end; return what they tore down."""
        torn_down: list[TornDown] = []
        for worker in self._workers:
            with contextlib.suppress(OSError, EOFError):
                worker.pipe.send(None)
                torn_down += worker.pipe.recv()
        for worker in self._workers:
            worker.process.join(timeout=5)
        self.kill()
        return torn_down

    def kill(self) -> None:
        """End all workers and everything they started, at once."""
        for worker in self._workers:
            if worker.process.is_alive():
                _kill_tree(worker.process.pid)
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _start(self) -> Worker:
        for build in self.knowledge.builds:
            build.workshop.prepare()
        ours, theirs = self._context.Pipe()
        others = [worker.pipe for worker in self._workers] if self.forks else []
        inherited = [*others, ours] if self.forks else []
        process = self._context.Process(
            target=_main, args=(theirs, inherited, self._inheritance or self.knowledge)
        )
        sys.stdout.flush()
        sys.stderr.flush()
        process.start()
        theirs.close()
        worker = Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _result(self, worker: Worker) -> Any:
        job, worker.job = worker.job, None
        assert job is not None
        try:
            return worker.pipe.recv()
        except (EOFError, OSError) as error:
            how = type(error).__name__
        except Exception as error:  # whatever a user's class raises when it is unpickled
            return Unreadable(job, f"{type(error).__name__}: {error}")
        worker.process.join(timeout=1)
        code = worker.process.exitcode
        if code is not None:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        else:
            _kill_tree(worker.process.pid)
            worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        return Died(job, how)


def _start_context() -> Any:
    """Fork where it is sound, for then workers know the user's closures too."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen is None and sys.platform == "linux":
        chosen = "fork"
    return multiprocessing.get_context(chosen)


def _kill_tree(pid: int) -> None:
    import psutil

    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


# In the worker --------------------------------------------------------------------------


def _main(pipe: Any, inherited: Sequence[Any], knowledge: Knowledge) -> None:
    """Do jobs until the parent says it is over, or is no more."""
    # Ends of other workers' pipes: while we hold them, those would not see the parent die.
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torn: list[Any] = []
    try:
        while (job := pipe.recv()) is not None:
            if isinstance(job, StepsJob):
                pipe.send(_run_steps(job, knowledge))
            else:
                pipe.send(_execute(job, knowledge, torn))
        pipe.send([_tear_down(task, knowledge.stream) for task in reversed(torn)])
    except (EOFError, OSError):
        return  # the parent died, or closed our pipe


def _run_steps(job: StepsJob, knowledge: Knowledge) -> list[Outcome]:
    build = knowledge.builds[job.build]
    chosen = [build.plan.steps[name] for name in job.tasks]
    try:
        return build.workshop.run(chosen, job.recorded, job.stop_early)
    except Exception:
        return [Outcome(name, error=internal(name)) for name in job.tasks]


def _execute(job: TaskJob, knowledge: Knowledge, torn: list[Any]) -> TaskDone | bytes:
    from doit.exceptions import TaskError

    task = pickle.loads(job.pickled) if job.pickled is not None else knowledge.tasks[job.name]
    if job.state is not None:
        task.update_from_pickle(job.state)
    if task.teardown:
        torn.append(task)
    try:
        failure = task.execute(knowledge.stream)
    except SystemExit as error:
        failure = TaskError(f"the task ended its process, exit code {error.code}")
    out = [action.out for action in task.actions]
    err = [action.err for action in task.actions]
    done = TaskDone(job.name, failure, task.pickle_safe_dict(), out, err)
    try:
        pickle.dumps(done)
    except Exception as error:
        what = f"what the task returned cannot be passed between processes: {error}"
        return TaskDone(job.name, TaskError(what), {}, out, err)
    return done


def _tear_down(task: Any, stream: Any) -> TornDown:
    return TornDown(task.name, task.execute_teardown(stream))
