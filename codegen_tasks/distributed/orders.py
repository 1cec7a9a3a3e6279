"""Orders: steps that Dask workers are to run, from the sending to what came of it.

What a worker answers may be that it needs more files, that it has not the compiler, or that its
process died; what became of an order itself may be that its worker or the scheduler is gone.
All of that ends in another attempt elsewhere, or here: never in a failed step, unless the step
itself is to blame.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..build import Build
from ..errors import CodegenError
from ..jobs import Died, Overdue, Part, Parted, StepsJob, Unbegun
from ..model import Outcome, Step
from .adoption import Adoption, Other
from .answers import StrangeError, check
from .cluster import Cluster, UnreachableError, WorkerState, shown, titled
from .deliveries import Deliveries, Opened
from .fitness import Fitness
from .parcels import Parcels, TooMuchError, engines_of

#: An order is sent so often at most, if workers or schedulers are lost meanwhile.
_TRIES = 3
#: So often a worker may ask for files that one order needs.
_ROUNDS = 32
#: A worker of which nothing has been heard for so many seconds is as good as gone.
_SILENT = 15.0
#: Seconds in which a scheduler must answer that is there.
_ANSWER = 10.0
#: Without anybody to listen to, so many seconds are waited.
_REST = 0.01
#: Seconds that a worker gets beyond the time limits of its steps.
_GRACE = 30.0


@dataclass(slots=True)
class _Order:
    """Steps that a worker is to run.

    Args:
        job: the steps.
        needs: files that were asked for.
        tries, rounds: how often it was sent, and how often files were asked for.
        packs: how many packs that every order needs there were when it was sent.
        begun, ended: when a worker was first seen to have it, and to have done it; 0 if not.
        lacking: packs that a worker asked for.
        where: address of the worker that is to have it, if it may; "" for any.
    """

    job: StepsJob
    needs: frozenset[str] = frozenset()
    tries: int = 0
    rounds: int = 0
    packs: int = 0
    begun: float = 0.0
    ended: float = 0.0
    lacking: tuple[str, ...] = ()
    where: str = ""


class Orders:
    """The orders of one run.

    Args:
        builds, dodo, address, workers, wait, say: see `DaskPool`.
        do_here: is called with each job that no worker does.
    """

    def __init__(
        self,
        builds: Sequence[Build],
        dodo: str,
        address: str,
        workers: int,
        wait: float,
        say: Callable[[str], None],
        do_here: Callable[[StepsJob], None],
    ):
        self._builds = builds
        self._wait = wait
        self._say = say
        self._do_here = do_here
        self._said: set[str] = set()
        self._run = os.urandom(6).hex()
        self._count = 0
        self._orders: dict[Any, _Order] = {}
        self._held: list[_Order] = []  # while there is no scheduler
        self._here: set[tuple[int, str]] = set()  # rules whose steps are run here
        self._fitness = Fitness(self._tell)
        self._strange: set[str] = set()  # addresses of workers whose answers cannot be read
        self._sent: Counter[str] = Counter()  # how often each pack was sent
        self._deaths: Counter[str] = Counter()
        self._alive = time.monotonic()  # when a worker was last seen to do something for us
        self._gone_since = 0.0
        self._cluster: Cluster | None = None
        self._connect = functools.partial(Cluster, address, workers, min(wait, _ANSWER))
        self._guess = max(2, workers)
        self._dodo = dodo
        self._deliveries = Deliveries(builds, self._tell)
        self._parcels: Parcels  # with the connection
        self._adoptions: list[Adoption]
        #: Whether workers are to be had, as far as is known.
        self.usable = True
        if any(build.project.settings.maps for build in builds):
            self.usable = False
            self._tell("maps", "source maps are made here, so all steps run here")

    def _connected(self) -> Cluster | None:
        """Return the cluster, when the first step is to go there; None if there is none."""
        if self._cluster is None and self.usable:
            try:
                self._parcels = Parcels(self._builds, self._dodo, self._run)
                self._adoptions = [Adoption(one, self._parcels.sent) for one in self._builds]
                self._cluster = self._connect()
                self._deliveries.begin()
            except (UnreachableError, TooMuchError) as error:
                self.usable = False
                hint = error.hint if isinstance(error, UnreachableError) else ""
                hint = f"\n  hint: {hint}" if hint else ""
                self._tell("cluster", f"{error}; all steps run here{hint}")
        return self._cluster

    def _tell(self, kind: str, text: str) -> None:
        """Tell the user, once for each kind of thing."""
        if kind not in self._said:
            self._said.add(kind)
            self._say(f"-P dask: {text}")

    # What is asked ----------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._orders) + len(self._held) + len(self._deliveries)

    @property
    def places(self) -> int:
        """How many can be under way at once; a guess while there is no connection."""
        return sum(worker.threads for worker in self._workers.values()) or self._guess

    @property
    def steps(self) -> int:
        """How many steps have not ended."""
        orders = (*self._orders.values(), *self._held, *self._deliveries.whats)
        return sum(len(order.job.tasks) for order in orders)

    @property
    def _workers(self) -> dict[str, WorkerState]:
        return dict(self._cluster.workers) if self._cluster is not None else {}

    def goes_out(self, build: int, step: Step) -> bool:
        """Tell whether a step is for workers: no parsing of templates, for the cache is here."""
        if not self.usable or step.problem is not None:
            return False
        return step.phase in ("generate", "compile") and (build, step.rule) not in self._here

    def under_way(self) -> list[tuple[int | str, Sequence[str]]]:
        """Return the workers and what each is doing; in any thread."""
        found: list[tuple[int | str, Sequence[str]]] = []
        for worker in self._workers.values():
            orders = [self._orders.get(key) for key in worker.tasks]
            names = next((order.job.tasks for order in orders if order is not None), ())
            found.append((worker.name, names))
        return found

    def call_off(self) -> list[str]:
        """Let be what no worker has begun; return those steps' tasks."""
        begun = {key for worker in self._workers.values() for key in worker.tasks}
        waiting = [key for key in self._orders if key not in begun]
        dropped = [self._orders.pop(key) for key in waiting] + self._held
        self._held = []
        if self._cluster is not None:
            self._cluster.drop(waiting)
        return [name for order in dropped for name in order.job.tasks]

    def learn(self, paths: Iterable[str]) -> None:
        """Note which files a compiler has read here."""
        if self._cluster is not None:
            self._parcels.learn(paths)

    def leave(self) -> None:
        """Let go of the cluster."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close(self._run)

    # There ------------------------------------------------------------------------------

    def submit(self, job: StepsJob) -> None:
        """Have a worker do a job, or do it here."""
        self._send(_Order(job))

    def _send(self, order: _Order) -> None:
        """Send an order, or do its steps here."""
        cluster = self._connected()
        if cluster is None:
            self._do_here(order.job)
            return
        if not cluster.is_connected:
            self._held.append(order)
            return
        try:
            told = self._parcels.order(order.job, order.needs, *self._deliveries.use(order.job))
        except TooMuchError as error:
            self._keep_here(order.job, f"{error}, so they run here")
            return
        except CodegenError:  # a compiler is not installed: told by the step that needs it
            self._do_here(order.job)
            return
        allowed = self._allowed(order.job)
        if allowed is not None and not allowed:
            self._do_here(order.job)
            return
        self._count += 1
        order.packs = len(self._parcels.common)
        told["sent"] = self._sent_with(told["packs"], order.lacking)
        key = self._key(order.job)
        self._orders[key] = order
        if order.where and (allowed is None or order.where in allowed):
            cluster.submit(key, told, [order.where], others=allowed is None)
        else:
            cluster.submit(key, told, allowed)
        order.lacking, order.where = (), ""

    def _sent_with(self, packs: Sequence[str], lacking: Collection[str]) -> dict[str, Any]:
        """Return the packs to send with an order: those that most workers cannot have yet.

        Which one gets it is for the scheduler to say; who lacks a pack, asks for it.
        """
        places, found = self.places, {}
        for name in packs:
            if name in lacking or self._sent[name] < places:
                self._sent[name] += 1
                found[name] = self._parcels.packs[name]
        return found

    def _key(self, job: StepsJob) -> tuple[str, str, str]:
        """Return what names an order, as Dask's dashboard shows it, which groups by the phase."""
        group, _, target = job.tasks[0].partition(":")
        more = f"+{len(job.tasks) - 1}" if len(job.tasks) > 1 else ""
        return f"codegen:{group}", f"{target}{more}", f"{self._run}.{self._count}"

    def _allowed(self, job: StepsJob) -> list[str] | None:
        """Return the workers that may do a job; None if any may."""
        build = self._builds[job.build]
        steps = [build.plan.steps[name] for name in job.tasks]
        tools = (build.project.tool(step) for step in steps)
        names = {tool.name for tool in tools if tool is not None} | engines_of(steps)
        return self._fitness.allowed(names, self._workers)

    def _keep_here(self, job: StepsJob, why: str) -> None:
        """Do a job here, and from now on all steps of its rules."""
        build = self._builds[job.build]
        for rule in {build.plan.steps[name].rule for name in job.tasks}:
            self._here.add((job.build, rule))
            self._tell(f"{job.build} {rule}", f"rule {rule}: {why}")
        self._do_here(job)

    # What is heard ----------------------------------------------------------------------

    def heard(self, timeout: float) -> list[Any]:
        """Return what has come of orders, as results of an `Executor`.

        Args:
            timeout: seconds to wait for the first.
        """
        found: list[Any] = []
        for order, answer, opened in self._deliveries.come():
            found += self._answered(order, answer, opened)
        if self._cluster is None:
            time.sleep(0.0 if found else min(timeout, _REST))
            return found
        if found or self._deliveries:
            timeout = 0.0 if found else min(timeout, _REST)
        for key, how, told in self._cluster.heard(timeout):
            order = self._orders.pop(key, None)
            if order is None:
                continue
            if how == "answer":
                self._alive = time.monotonic()
                found += self._opened(order, told)
            elif how == "killed":
                found += self._killed(order)
            elif how == "lost":
                there = self._cluster is not None and self._cluster.is_connected
                self._again(order, "an order was lost with its worker" if there else "")
            else:
                self._erred(order, told)
        return found

    def _again(self, order: _Order, what: str = "") -> None:
        """Send an order once more, which has not been carried out by no fault of its own."""
        order.tries += 1
        order.begun = order.ended = 0.0
        if order.tries < _TRIES:
            if what:
                self._tell("again", f"{what}, and is sent again")
            self._send(order)
        else:
            self._tell("given up", f"an order was lost {_TRIES} times, and its steps run here")
            self._do_here(order.job)

    def _erred(self, order: _Order, said: str) -> None:
        """Send an order elsewhere that no worker should have failed at."""
        self._tell(f"error {said}", f"an order failed on a worker: {said}")
        self._again(order)

    def _not_understood(self, order: _Order, answer: Any, error: Exception) -> None:
        """Send an order elsewhere; who answers strangely to one, does so to all."""
        known = isinstance(error, StrangeError)
        said = str(error) if known else f"{type(error).__name__}: {error}".partition("\n")[0]
        address = answer.get("address") if isinstance(answer, Mapping) else None
        what, workers = f"its answer cannot be read: {said}", self._workers
        if address not in workers:
            self._erred(order, what)
            return
        if address not in self._strange:
            self._strange.add(address)
            self._fitness.mark("", address, what, workers)
        self._again(order)

    def _killed(self, order: _Order) -> list[Any]:
        """Blame a step whose worker died again and again; of several, find out which."""
        if len(order.job.tasks) > 1 and not order.job.together:
            for name in order.job.tasks:
                self._send(_Order(part(order.job, [name])))
            return []
        return [Died(order.job, "on several workers")]

    def _opened(self, order: _Order, answer: Mapping[str, Any]) -> list[Any]:
        """Take in what a worker answers, when all of it is here."""
        try:
            check(answer, order.job.tasks)
            opened = self._deliveries.open(order, order.job.build, answer)
        except Exception as error:  # whatever a strange answer holds
            self._not_understood(order, answer, error)
            return []
        return self._answered(order, answer, opened) if opened is not None else []

    def _answered(self, order: _Order, answer: Mapping[str, Any], opened: Opened) -> list[Any]:
        job = order.job
        self._deliveries.note(job.build, answer, titled(self._named(answer)))
        outcomes = self._made(order, answer, opened)
        if opened.lost:
            self._have_sent(order, answer, opened.lost)
        if answer.get("failed"):
            self._tell("failed", "what fails on a worker is run here once more")
        for word in ("failed", "bound"):
            if answer.get(word):
                bound = part(job, answer[word])
                why = "what it makes names the folder in which it was made, so it is made here"
                self._do_here(bound) if word == "failed" else self._keep_here(bound, why)
        outcomes += self._needed(order, answer.get("needs", {}))
        found: list[Any] = [Part(tuple(outcomes))] if outcomes else []
        left = answer.get("left", ())
        if left:
            found += self._not_begun(replace(order, job=part(job, left)), answer)
        return found

    def traffic(self) -> list[Parted]:
        """Return what went to and from the remote cache; ask when all has ended."""
        return self._deliveries.traffic()

    def _have_sent(self, order: _Order, answer: Mapping[str, Any], names: Sequence[str]) -> None:
        """Have a worker send what it has put into the remote cache, and is not there for us."""
        address = str(answer["address"])
        self._send(replace(order, job=part(order.job, names), where=address))

    def _differs(self, order: _Order, name: str, other: Other, worker: str) -> None:
        """See to a step for which something was not on a worker what it is here."""
        alone, path = part(order.job, [name]), other.lacked
        build = self._builds[alone.build]
        unsent = path and path not in order.needs
        if unsent and self._parcels.may_send(build, path, alone.over.get(name, ())):
            # A compiler that finds no header may well go on without it.
            self._parcels.learn([path])
            self._send(replace(order, job=alone, needs=order.needs | {path}))
            return
        why = f"{other.what} is not on {worker} what it is here, so it runs here"
        self._keep_here(alone, why)

    def _made(self, order: _Order, answer: Mapping[str, Any], opened: Opened) -> list[Outcome]:
        outcomes, job = [], order.job
        build, adoption = self._builds[job.build], self._adoptions[job.build]
        since, worker = answer.get("since", {}), self._named(answer)
        for name, result in opened.results.items():
            step = build.plan.steps[name]
            recorded = job.recorded.get(name, {})
            how = (since.get(name), name in opened.sent, name in opened.found)
            outcome = adoption.outcome(step, result, recorded, worker, *how)
            if isinstance(outcome, Other):
                self._differs(order, name, outcome, worker)
                continue
            if step.phase == "compile":
                self._parcels.learn(i.name for i in result.inputs if i.kind == "import")
            outcomes.append(outcome)
        return outcomes

    def _named(self, answer: Mapping[str, Any]) -> str:
        name, address = str(answer["worker"]), str(answer["address"])
        known = self._workers.get(address)
        if known is not None:
            return known.name
        return shown(name, address)

    def _needed(self, order: _Order, needs: dict[str, str]) -> list[Outcome]:
        """Send what steps need that no worker has; return those that are to wait for a task."""
        job, waiting, rest, more = order.job, [], [], set(order.needs)
        build = self._builds[job.build]
        for name, path in needs.items():
            if path in order.needs or order.rounds >= _ROUNDS or build.plan.maker(path) == name:
                self._do_here(part(job, [name]))
            elif self._parcels.may_send(build, path, job.over.get(name, ())):
                self._parcels.ask(path)
                more.add(path)
                rest.append(name)
            elif build.plan.maker(path) is not None:
                waiting.append(Outcome(name, awaits=path))
            else:
                self._do_here(part(job, [name]))
        if rest:
            again = replace(order, job=part(job, rest), needs=frozenset(more))
            again.rounds += 1
            self._send(again)
        return waiting

    def _not_begun(self, order: _Order, answer: Mapping[str, Any]) -> list[Any]:
        """See to steps that a worker has not begun, or not ended."""
        job, address = order.job, str(answer["address"])
        if "unfit" in answer:
            tool, what = answer["unfit"]
            self._fitness.mark(tool, address, what, self._workers)
        elif "unable" in answer:
            self._fitness.mark("", address, str(answer["unable"]), self._workers)
        elif "lacks" in answer:
            path = str(answer["lacks"])
            if self._parcels.is_packed(path, order.packs):
                what = f"dodo.py reads {path}, which is not there"
                self._fitness.mark("", address, what, self._workers)
            else:
                self._parcels.pack([path])
        elif "packs" in answer:
            order.lacking, order.where = tuple(answer["packs"]), address
        elif "died" in answer:
            return self._died(order, str(answer["died"]))
        elif "overdue" in answer:
            return [Overdue(job)]
        elif "unwanted" in answer:
            self._again(order, "an order was lost with its worker")
            return []
        else:  # they take longer than was thought
            return [Unbegun(job)]
        order.rounds += 1
        if order.rounds > _ROUNDS:
            self._do_here(job)
        else:
            self._send(order)
        return []

    def _died(self, order: _Order, how: str) -> list[Any]:
        """Try a step once more whose process died; then it is to blame."""
        job = order.job
        if job.together:
            return [Died(job, how)]
        first, rest = job.tasks[0], job.tasks[1:]
        if rest:
            self._send(replace(order, job=part(job, rest)))
        self._deaths[first] += 1
        alone = part(job, [first])
        if self._deaths[first] > 1:
            return [Died(alone, how)]
        self._send(replace(order, job=alone))
        return []

    # What is not heard ------------------------------------------------------------------

    def look_after(self) -> None:
        """See to orders of which nothing may ever be heard."""
        cluster, now = self._cluster, time.monotonic()
        if cluster is None:
            return
        if not (self._orders or self._held):
            self._alive = now
            return
        if not cluster.is_connected:
            self._gone_since = self._gone_since or now
            if cluster.is_closed or now - self._gone_since > self._wait:
                self._give_up(f"the scheduler at {cluster.address} is gone")
            return
        self._gone_since = 0.0
        held, self._held = self._held, []
        for order in held:
            self._send(order)
        silent, workers = min(_SILENT, self._wait), self._workers
        gone = self._fitness.silent(workers, now - silent)
        for _, worker in gone:
            self._leave_silent(worker)
        begun = {key for worker in workers.values() for key in worker.tasks}
        if len(gone) < sum(bool(worker.tasks) for worker in workers.values()):
            self._alive = now
        self._end_overdue(begun, silent, now)
        # Where there are workers, an order of a silent one is first to be sent to another.
        patience = self._wait + (silent if workers else 0.0)
        if now - self._alive > patience:
            what = "no worker has come" if not workers else "no worker has begun anything"
            self._give_up(f"{what} in {patience:g} s")

    def _leave_silent(self, worker: WorkerState) -> None:
        """Have done elsewhere what a worker has to do that is heard of no more."""
        assert self._cluster is not None
        keys = [key for key in worker.tasks if key in self._orders]
        orders = [self._orders.pop(key) for key in keys]
        self._cluster.drop(keys)
        for order in orders:
            self._again(order)

    def _end_overdue(self, begun: Collection[Any], silent: float, now: float) -> None:
        """Leave orders of which something should have been heard long ago.

        Such is an answer that lies on a worker which is silent, and what a worker has not ended
        though all its steps have a time limit.
        """
        assert self._cluster is not None
        late = []
        for key, order in self._orders.items():
            if self._cluster.has_ended(key):
                order.ended = order.ended or now
            elif key in begun:
                order.begun = order.begun or now
            limits = order.job.limits
            whole = sum(limit for limit in limits if limit is not None)
            limited = bool(limits) and None not in limits and order.begun > 0
            if (order.ended and now - order.ended > silent) or (
                limited and now - order.begun > 2 * whole + _GRACE
            ):
                late.append(key)
        orders = [self._orders.pop(key) for key in late]
        self._cluster.drop(late)
        self._alive = now if late else self._alive
        for order in orders:
            self._again(order, "what was to be heard of an order was not")

    def _give_up(self, why: str) -> None:
        """Do here all that is left."""
        self._tell("cluster", f"{why}; what is left runs here")
        orders = [*self._orders.values(), *self._held]
        self._orders, self._held, self.usable = {}, [], False
        with contextlib.suppress(Exception):
            self.leave()
        for order in orders:
            self._do_here(order.job)


def part(job: StepsJob, names: Iterable[str]) -> StepsJob:
    """Return a job with some of its steps, in their order."""
    chosen = set(names)
    places = [place for place, name in enumerate(job.tasks) if name in chosen]
    return replace(
        job,
        tasks=tuple(job.tasks[place] for place in places),
        limits=tuple(job.limits[place] for place in places) if job.limits else (),
        together=job.together and len(places) > 1,
    )
