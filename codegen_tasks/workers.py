"""Worker processes: warm, each on a pipe of its own, so that one's death hangs nobody.

A worker knows the builds and the doit tasks from the moment it was forked; what it is sent
are names.  Where there is no fork it is sent pickles.  Each step's outcome is sent when it
is known, its record made, so that the step under way is known: the one to blame if the
worker dies, and the one whose time runs.  The parent reads all that has come at once, and
may give a worker a second job, so that it has one to go on with.  Unaware of scheduling.

A worker claims each step before it begins it: it takes the step's number from a pipe, and
so can the parent, who then gives the step to another worker.  Whoever has it, runs it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import keeper, rows
from .build import Build
from .jobs import (
    Died,
    Overdue,
    Part,
    Parted,
    StepsJob,
    TaskDone,
    TaskJob,
    TornDown,
    Unbegun,
    Unreadable,
)
from .model import Outcome, Step
from .process import Keeper, end_worker
from .steps import internal
from .tasks import packed

#: How often, in seconds, workers are looked after whose death their pipe may not tell:
#: something they forked may hold its other end open.
_LOOK = 0.5
_PR_SET_PDEATHSIG = 1  # of Linux
_CHUNK = 1 << 16  # bytes that are read at once
_NUMBER = 8  # bytes of a claim: pipes take and give so few whole
_LENGTH = 4  # bytes before each message, its length; -1 stands for one of eight that follow


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a worker is born with: builds and doit's tasks by name, and doit's stream.

    Args:
        builds, tasks, stream: these.
        mark: what the programs it starts bear, see `keeper`.
        packs: whether it makes the records of steps, see `tasks.packed`.
    """

    builds: Sequence[Build]
    tasks: Mapping[str, Any]
    stream: Any
    mark: str = ""
    packs: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """From now on the time of a job's first step runs."""


@dataclass(slots=True)
class Worker:
    """The parent's end of a worker.

    Args:
        process, pipe: these.
        claims: both ends of the pipe that holds the numbers of steps it has not begun.
        jobs: what it has to do, the one under way first.
        done: how many of that job's steps it has answered for.
        deadline: when the time of the step under way is over, if it has a limit.
    """

    process: Any
    pipe: Any
    claims: tuple[Any, Any] | None = None
    jobs: deque[StepsJob | TaskJob] = field(default_factory=deque)
    done: int = 0
    deadline: float | None = None
    _given: int = 0
    _read: bytearray = field(default_factory=bytearray)

    @property
    def ends(self) -> list[Any]:
        """The ends of pipes that we hold."""
        return [self.pipe, *(self.claims or ())]

    @property
    def job(self) -> StepsJob | TaskJob | None:
        """The job under way."""
        return self.jobs[0] if self.jobs else None

    @property
    def left(self) -> StepsJob | TaskJob:
        """The rest of its job, the step under way first."""
        job = self.jobs[0]
        if isinstance(job, TaskJob):
            return job
        return replace(job, tasks=job.tasks[self.done :], limits=job.limits[self.done :])

    @property
    def under_way(self) -> Sequence[str]:
        """The step under way, or those that run together; a moment ago, to another thread."""
        try:
            job = self.jobs[0]
        except IndexError:
            return ()
        if isinstance(job, StepsJob) and job.together:
            return job.tasks
        return job.tasks[self.done : self.done + 1]

    @property
    def takes_another(self) -> bool:
        """Whether it has one job, and one that another can wait for."""
        return len(self.jobs) == 1 and self.jobs[0].may_wait

    def give(self, job: StepsJob | TaskJob) -> None:
        """Send it a job.  Raises OSError: it is no more."""
        if isinstance(job, StepsJob) and self.claims is not None:
            job = replace(job, first=self._given)
            numbers = range(self._given, self._given + job.claims)
            self._given += job.claims
            os.write(self.claims[1].fileno(), b"".join(map(_number, numbers)))
        self.jobs.append(job)
        self.pipe.send(job)

    def take_back(self) -> list[str]:
        """Return the tasks of steps that it has not begun, and now will not."""
        left = sum(len(job.tasks) for job in self.jobs) - self.done
        steps = all(isinstance(job, StepsJob) for job in self.jobs)
        if self.claims is None or not steps or left < 2:
            return []
        try:
            taken = os.read(self.claims[0].fileno(), _CHUNK)
        except BlockingIOError:
            return []
        found = self._without(len(taken) // _NUMBER)
        if self.jobs and self.done == len(self.jobs[0].tasks):
            self._job_ended()  # it had not begun its next step
        return found

    def _without(self, claims: int) -> list[str]:
        """Take the last steps from its jobs; return their tasks."""
        found: list[str] = []
        while claims > 0:
            job = self.jobs.pop()
            assert isinstance(job, StepsJob)
            kept = job.tasks[: job.claims - claims] if claims < job.claims else ()
            claims -= job.claims
            found = [*job.tasks[len(kept) :], *found]
            if kept:
                self.jobs.append(replace(job, tasks=kept))
        return found

    def begin_next(self) -> None:
        """Let the time of the next step run."""
        job = self.job
        limit = job.limit(self.done) if isinstance(job, StepsJob) else None
        self.deadline = None if limit is None else time.monotonic() + limit

    def ended(self) -> None:
        """Note that a step has ended; the job is over with its last."""
        self.done += 1
        if self.done < len(self.jobs[0].tasks):
            self.begin_next()
            return
        self._job_ended()

    def _job_ended(self) -> None:
        self.jobs.popleft()
        self.done, self.deadline = 0, None

    def messages(self) -> list[bytes]:
        """Return the messages that have come; call when there is something to read.

        Raises:
            EOFError, OSError: the worker is no more.
        """
        if sys.platform == "win32":
            return [self.pipe.recv_bytes()]
        chunk = os.read(self.pipe.fileno(), _CHUNK)
        if not chunk:
            raise EOFError
        self._read += chunk
        found = []
        start = 0
        while (end := self._end_of_message(start)) is not None:
            body, stop = end
            found.append(bytes(self._read[body:stop]))
            start = stop
        del self._read[:start]
        return found

    def _end_of_message(self, start: int) -> tuple[int, int] | None:
        """Return where the body of a message begins and ends, if all of it has come."""
        body = start + _LENGTH
        length = int.from_bytes(self._read[start:body], "big", signed=True)
        if length < 0:
            start, body = body, body + 2 * _LENGTH
            length = int.from_bytes(self._read[start:body], "big")
        if len(self._read) < body or len(self._read) < body + length:
            return None
        return body, body + length


@dataclass(slots=True)
class Pool:
    """Up to `size` workers, started when there is work for them.

    Args:
        size: how many at most.
        knowledge: what each is born with.
        keeper: ends them if we are killed.
    """

    size: int
    knowledge: Knowledge
    keeper: Keeper
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
        """Jobs that could be begun at once."""
        return self.size - self.busy

    @property
    def spare(self) -> bool:
        """Whether a job that `may_wait` could be given to a worker that has one."""
        return any(worker.takes_another for worker in self._workers)

    @property
    def steps_left(self) -> int:
        """How many tasks the workers have still to do, those under way included."""
        return sum(len(job.tasks) for w in self._workers for job in w.jobs) - sum(
            worker.done for worker in self._workers
        )

    @property
    def places(self) -> int:
        """How many jobs can be under way at once."""
        return self.size

    def goes_out(self, build: int, step: Step) -> bool:
        """Tell whether a step is done on another machine: none is."""
        return False

    def call_off(self) -> list[Any]:
        """Leave it to the workers what they have not begun: they hear of failures in time."""
        return []

    def under_way(self) -> list[tuple[int | str, Sequence[str]]]:
        """Return each worker's process id and what it is doing; in any thread, at any moment."""
        return [(worker.process.pid, worker.under_way) for worker in list(self._workers)]

    def submit(self, job: StepsJob | TaskJob) -> None:
        """Give a job to an idle worker, starting one if need be; if `free` is 0, to a spare one."""
        worker = next((w for w in self._workers if w.job is None), None)
        if worker is None:
            spare = (w for w in self._workers if w.takes_another)
            worker = self._start() if self.free else next(spare)
        with contextlib.suppress(OSError):  # a worker that has just died is met in `wait`
            worker.give(job)

    def take_back(self) -> list[str]:
        """Return the tasks of steps that one of the workers has not begun, and now will not."""
        found = (worker.take_back() for worker in self._workers)
        return next(filter(None, found), [])

    @property
    def is_whole(self) -> bool:
        """Whether all workers have been started."""
        return len(self._workers) >= self.size

    def grow(self, jobs: int) -> None:
        """Start workers for so many jobs that are to come."""
        while len(self._workers) < min(self.size, jobs):
            self._start()

    def results(self, timeout: float | None = None) -> list[Any]:
        """Return results: Part, TaskDone, Died, Overdue, Unreadable or Unbegun.

        Args:
            timeout: seconds to wait for the first; None waits until there is one.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            busy = [worker for worker in self._workers if worker.job is not None]
            until = [worker.deadline for worker in busy if worker.deadline is not None]
            until += [end] if end is not None else []
            now = time.monotonic()
            pause = min([_LOOK, *(max(0.0, moment - now) for moment in until)])
            ready = multiprocessing.connection.wait([worker.pipe for worker in busy], pause)
            found: list[Any] = []
            for worker in busy:
                if worker.pipe in ready:
                    found += self._received(worker)
                elif worker.deadline is not None and time.monotonic() >= worker.deadline:
                    found.append(self._end_overdue(worker))
                elif not ready and pause and not worker.process.is_alive():
                    # A dead worker's pipe has no end while something it forked lives on.
                    found += self._received(worker) if worker.pipe.poll() else self._died(worker)
            if found or not busy or (end is not None and time.monotonic() >= end):
                return found

    def close(self) -> list[TornDown | Parted]:
        """Let idle workers tear down their tasks and end; return what they tore down and sent."""
        told: list[TornDown | Parted] = []
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        for worker in self._workers:
            with contextlib.suppress(OSError, EOFError):
                told += worker.pipe.recv()
        for worker in self._workers:
            worker.process.join(timeout=5)
        self.kill()
        return told

    def kill(self) -> None:
        """End all workers and everything they started, at once."""
        for worker in list(self._workers):
            self._end(worker)

    def _start(self) -> Worker:
        for build in self.knowledge.builds:
            build.workshop.prepare()
        ours, theirs = self._context.Pipe()
        claims = _claims_pipe()
        others = [end for worker in self._workers for end in worker.ends]
        own = [ours, claims[1]] if claims is not None else [ours]
        inherited = [*others, *own] if self.forks else []
        # Whom a worker is to die with; under forkserver that is the server, which dies with us.
        parent = 0 if self._context.get_start_method() == "forkserver" else os.getpid()
        process = self._context.Process(
            target=_main,
            args=(
                theirs,
                claims[0] if claims is not None else None,
                inherited,
                self._inheritance or self.knowledge,
                parent,
            ),
        )
        self.keeper.start()
        if self.forks:
            _parent_death_signal()  # imported once here, and every fork has it
        sys.stdout.flush()
        sys.stderr.flush()
        process.start()
        self.keeper.watch(process.pid)
        theirs.close()
        worker = Worker(process, ours, claims)
        self._workers.append(worker)
        return worker

    def _received(self, worker: Worker) -> list[Any]:
        """Return all that a worker has sent."""
        try:
            messages = worker.messages()
        except (EOFError, OSError) as error:
            return self._died(worker, type(error).__name__)
        found: list[Any] = []
        outcomes: list[Outcome] = []
        for message in messages:
            try:
                answer = pickle.loads(message)
            except Exception as error:  # whatever a user's class raises when it is unpickled
                found += self._unreadable(worker, f"{type(error).__name__}: {error}")
                break
            if isinstance(answer, Outcome):
                outcomes.append(answer)
                worker.ended()
            elif isinstance(answer, Begun):
                worker.begin_next()
            else:
                worker.jobs.popleft()
                found.append(answer)
        return [Part(tuple(outcomes)), *found] if outcomes else found

    def _unreadable(self, worker: Worker, why: str) -> list[Any]:
        found: list[Any] = [Unreadable(worker.left, why), *self._unbegun(worker)]
        if isinstance(worker.job, StepsJob):
            self._end(worker)  # it would go on answering for this job
        else:
            worker.jobs.clear()
        return found

    def _died(self, worker: Worker, how: str = "without a word") -> list[Any]:
        worker.process.join(timeout=1)
        code = worker.process.exitcode
        if code is not None:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self._end(worker)
        return [Died(worker.left, how), *self._unbegun(worker)]

    @staticmethod
    def _unbegun(worker: Worker) -> list[Unbegun]:
        return [Unbegun(job) for job in list(worker.jobs)[1:]]

    def _end_overdue(self, worker: Worker) -> Overdue:
        job = worker.left
        assert isinstance(job, StepsJob)
        self._end(worker)
        return Overdue(job)

    def _end(self, worker: Worker) -> None:
        """End a worker and all it started."""
        pid = worker.process.pid
        busy = worker.process.is_alive() or worker.job is not None
        if worker.process.is_alive():
            _kill_tree(pid)
        worker.process.join()
        self.keeper.forget(pid)
        if busy:  # what its children started, or it before it died
            end_worker(self.knowledge.mark, pid)
            with contextlib.suppress(OSError, AttributeError):
                os.killpg(pid, signal.SIGKILL)
        for end in worker.ends:
            end.close()
        self._workers.remove(worker)


def _claims_pipe() -> tuple[Any, Any] | None:
    """Return both ends of a pipe for claims; None where two processes cannot read one."""
    if sys.platform == "win32":
        return None
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    connection = multiprocessing.connection.Connection
    return connection(reading, writable=False), connection(writing, readable=False)


def _number(number: int) -> bytes:
    return number.to_bytes(_NUMBER, "big")


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
    with contextlib.suppress(OSError, AttributeError):
        os.killpg(pid, signal.SIGKILL)  # those whose parent is gone


# In the worker --------------------------------------------------------------------------


def _main(
    pipe: Any, claims: Any, inherited: Sequence[Any], knowledge: Knowledge, parent: int
) -> None:
    """Do jobs until the parent says it is over, or is no more."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # so that what it forks can be ended with it
    _die_with(parent)
    os.environ[keeper.MARK] = knowledge.mark
    # Ends of other workers' pipes: while we hold them, those would not see the parent die.
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for build in knowledge.builds:
        build.workshop.settle_here()
    torn: list[Any] = []
    claim, packer, stopped = _Claim(claims), rows.Packer(), False
    try:
        while (job := pipe.recv()) is not None:
            if isinstance(job, StepsJob):
                stopped = _run_steps(pipe, job, knowledge, packer, claim, stopped)
            else:
                pipe.send(_execute(job, knowledge, torn))
        torn_down = [_tear_down(task, knowledge.stream) for task in reversed(torn)]
        pipe.send([*torn_down, *_parted(knowledge)])
    except (EOFError, OSError):
        return  # the parent died, or closed our pipe


class _Claim:
    """Tells by its number whether a step is ours to begin.

    Args:
        pipe: that holds the numbers of those that nobody has claimed, in order; None if all
            that we are given is ours.
    """

    def __init__(self, pipe: Any):
        self._pipe = pipe
        self._next: int | None = None  # claimed, and those before it have been taken back

    def __call__(self, number: int) -> bool:
        if self._pipe is None:
            return True
        if self._next is None:
            try:
                taken = os.read(self._pipe.fileno(), _NUMBER)
            except BlockingIOError:
                return False
            self._next = int.from_bytes(taken, "big")
        if self._next != number:
            return False
        self._next = None
        return True


def _die_with(parent: int) -> None:
    """Have the kernel end us when the parent ends, where it can: even inside a regex."""
    set_signal = _parent_death_signal()
    if set_signal is not None:
        set_signal(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent and os.getppid() != parent:
            os._exit(1)  # it ended before we could ask


def _parent_death_signal() -> Any:
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None).prctl


def _run_steps(
    pipe: Any,
    job: StepsJob,
    knowledge: Knowledge,
    packer: rows.Packer,
    claim: _Claim,
    stopped: bool,
) -> bool:
    """Run steps and tell of each; return whether nothing is to be run after them."""
    if not stopped:
        _expect(knowledge.builds[job.build], job)
    if job.limit(0) is not None:
        _warm_up(knowledge.builds[job.build])
        pipe.send(Begun())
    units = [job.tasks] if job.together else [(name,) for name in job.tasks]
    for number, names in enumerate(units, job.first):
        if not claim(number):
            continue
        if stopped:
            outcomes = iter([Outcome(name, skipped=True) for name in names])
        else:
            outcomes = _outcomes(job, names, knowledge, packer)
        for outcome in outcomes:
            pipe.send_bytes(pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL))
            stopped = stopped or (bool(outcome.error) and job.stop_early)
    return stopped


def _warm_up(build: Build) -> None:
    """Make the engines, whose making is no part of a render."""
    with contextlib.suppress(Exception):  # the render will say it
        build.workshop.make_engines()


def _expect(build: Build, job: StepsJob) -> None:
    """Ask a remote cache about all of a job at once, before the time of its first step runs."""
    with contextlib.suppress(Exception):  # a step that cannot be asked about is run
        build.workshop.expect([build.plan.steps[name] for name in job.tasks], job.over)


def _parted(knowledge: Knowledge) -> list[Parted]:
    builds = enumerate(knowledge.builds)
    return [Parted(index, build.workshop.traffic()) for index, build in builds]


def _outcomes(
    job: StepsJob, names: Sequence[str], knowledge: Knowledge, packer: rows.Packer
) -> Iterator[Outcome]:
    build = knowledge.builds[job.build]
    chosen = [build.plan.steps[name] for name in names]
    done = 0
    try:
        for outcome in build.workshop.outcomes(chosen, job.recorded, job.stop_early, job.over):
            yield packed(build, outcome, packer) if knowledge.packs else outcome
            done += 1
    except Exception:
        for name in names[done:]:
            yield Outcome(name, error=internal(name))


def _execute(job: TaskJob, knowledge: Knowledge, torn: list[Any]) -> TaskDone | bytes:
    from doit.exceptions import InvalidTask, TaskError

    task = pickle.loads(job.pickled) if job.pickled is not None else knowledge.tasks[job.name]
    if job.state is not None:
        task.update_from_pickle(job.state)
    if task.teardown:
        torn.append(task)
    start, began = time.time_ns(), time.perf_counter()
    try:
        failure = task.execute(knowledge.stream)
    except SystemExit as error:
        failure = TaskError(f"the task ended its process, exit code {error.code}")
    except InvalidTask as error:
        failure = TaskError(str(error))
    out = [action.out for action in task.actions]
    err = [action.err for action in task.actions]
    timed = (start, time.perf_counter() - began, os.getpid())
    done = TaskDone(job.name, failure, task.pickle_safe_dict(), out, err, *timed)
    try:
        pickle.dumps(done)
    except Exception as error:
        what = f"what the task returned cannot be passed between processes: {error}"
        return TaskDone(job.name, TaskError(what), {}, out, err, *timed)
    return done


def _tear_down(task: Any, stream: Any) -> TornDown:
    return TornDown(task.name, task.execute_teardown(stream))
