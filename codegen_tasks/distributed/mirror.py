"""A run's project as a Dask worker has it: a copy of what was sent, and processes that run in it.

Each run has a folder of its own in the worker's scratch space; its files are replaced as a
whole, so that nobody reads half of one.  The processes are warm, one for each job that is
under way.  Unaware of Dask.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import keeper
from ..process import Keeper, end_worker
from .child import received, send
from .messages import Access, Contents, Known, Load, difference, facts, machine
from .storing import access

#: How often, in seconds, it is asked whether anybody still wants what is under way.
_LOOK = 0.2
#: Seconds in which a process must have loaded `dodo.py`.
_LOADED = 120.0
#: A run that has sent nothing for so many seconds is forgotten, should it have been killed;
#: if it lives, what it sends next is all that is needed.
_IDLE = 60.0
#: So many bytes of results are kept of a run, should they get lost in the remote cache.
_ROOM = 64_000_000
_UNLOADED = "dodo.py cannot be loaded"


class ForgottenError(Exception):
    """The run has ended, or has said nothing for so long that it seemed to."""


class Child:
    """Our end of a process that runs steps.

    Args:
        folder: the copy of the project that it runs in.
        mark: what all that it starts bears, see `keeper`.
        state: folder for what it keeps as the user's.
    """

    def __init__(self, folder: str, mark: str, state: str):
        others = {k: v for k, v in os.environ.items() if not k.startswith("CODEGEN_")}
        self._mark = mark
        self._process = subprocess.Popen(
            # -P: a module of the project is not taken for one of Python's.
            [sys.executable, "-P", "-m", "codegen_tasks.distributed.child"],
            cwd=folder,
            env={**others, keeper.MARK: mark, "XDG_STATE_HOME": state},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.known = Known()
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(Exception):
            for message in received(self._process.stdout):
                self._heard.put(message)
        self._heard.put(None)

    def tell(self, message: Any) -> None:
        """Send a message; one that has ended is met in `hear`."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            send(self._process.stdin, message)

    def hear(self, wanted: Callable[[], bool], deadline: float | None) -> tuple[str, Any]:
        """Return what it says next: "died" if it is no more, "overdue", "unwanted"."""
        while True:
            pause = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            try:
                message: tuple[str, Any] | None = self._heard.get(timeout=max(0.0, pause))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    return "overdue", ""
                if not wanted():
                    return "unwanted", ""
                continue
            return message if message is not None else ("died", self._how())

    def _how(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1)
            return f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return "without a word"

    def end(self) -> None:
        """End it and all it started, at once."""
        with contextlib.suppress(OSError, AttributeError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        end_worker(self._mark, self._process.pid)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


class Copy:
    """One run's project on this worker.

    Args:
        folder: where to put it.
        mark: see `Child`.
    """

    def __init__(self, folder: str, mark: str):
        self.folder = os.path.join(folder, "project")
        self._state = os.path.join(folder, "state")
        os.makedirs(self.folder)
        os.makedirs(self._state)
        self._mark = mark
        self._lock = threading.Lock()
        self._there: dict[str, tuple[str, bool]] = {}
        self._packs: set[str] = set()  # names of those that are here
        self._whole: frozenset[str] = frozenset()
        self._but: frozenset[str] = frozenset()
        self.access: Access | None = None  # to the remote cache
        self.refused = ""  # or why there is none
        self._kept: dict[str, bytes] = {}  # results that were put there, by task
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._closed = False
        self.used = time.monotonic()

    def place(self, order: Mapping[str, Any]) -> list[str]:
        """Put files where the project has them; return the packs that were not sent so far."""
        with self._lock:
            if self._closed:
                raise ForgottenError
            for name, pack in order["sent"].items():
                if name not in self._packs:
                    self._unpack(pack)
                    self._packs.add(name)
            lacking = [name for name in order["packs"] if name not in self._packs]
            if not lacking:
                self._unpack(order)
            return lacking

    def _unpack(self, parcel: Mapping[str, Any]) -> None:
        for path, found in parcel["files"].items():
            if self._there.get(path) != found:
                self._put(path, found, parcel["contents"])
        self._whole |= frozenset(parcel.get("whole", ()))
        self._but |= frozenset(parcel.get("but", ()))

    def _put(self, path: str, found: tuple[str, bool], contents: Contents) -> None:
        content, executable = found
        full = os.path.join(self.folder, path)
        if os.path.isabs(path) or ".." in path.split("/"):
            raise ValueError(f"{path}: lies outside of the project")
        if not content:
            with contextlib.suppress(FileNotFoundError):
                os.remove(full)
        else:
            os.makedirs(os.path.dirname(full), exist_ok=True)
            temporary = f"{full}.{threading.get_ident():x}.new"
            with open(temporary, "wb") as file:
                file.write(contents[content])
            os.chmod(temporary, 0o755 if executable else 0o644)
            os.replace(temporary, full)
        self._there[path] = found

    def child(self, load: bytes) -> tuple[Child, bool]:
        """Return a process for a job, and whether it is a new one."""
        with self._lock:
            self.used = time.monotonic()
            child = self._idle.pop() if self._idle else None
        new = child is None
        if child is None:
            child = Child(self.folder, self._mark, self._state)
            child.tell((self._opened(load), self.access))
        with self._lock:
            self._busy.add(child)
            closed = self._closed
        if closed:
            child.end()
            raise ForgottenError
        return child, new

    def _opened(self, load: bytes) -> Load:
        found: Load = pickle.loads(load)
        if found.shared is not None and self.access is None:
            given = access(found.shared, os.environ)
            self.access = given if isinstance(given, Access) else None
            self.refused = given if isinstance(given, str) else ""
        return found

    def keep(self, task: str, result: bytes) -> None:
        """Keep a result whose contents are in the remote cache, should they get lost there."""
        with self._lock:
            self._kept[task] = result
            while sum(map(len, self._kept.values())) > _ROOM:
                del self._kept[next(iter(self._kept))]

    def kept(self, tasks: Iterable[str]) -> dict[str, bytes]:
        """Return results that were kept, by task; they are asked for once."""
        with self._lock:
            return {task: self._kept.pop(task) for task in tasks if task in self._kept}

    def back(self, child: Child, alive: bool) -> None:
        """Take a process back when its job has ended."""
        with self._lock:
            self.used = time.monotonic()
            self._busy.discard(child)
            alive = alive and not self._closed
            if alive:
                self._idle.append(child)
        if not alive:
            child.end()

    def news(self, child: Child) -> Known:
        """Return what a process has not been told of yet."""
        with self._lock:
            paths, whole, but = frozenset(self._there), self._whole, self._but
        before, child.known = child.known, Known(paths, whole, but)
        return Known(paths - before.paths, whole - before.whole, but - before.but)

    @property
    def is_idle(self) -> bool:
        """Whether nothing has come for long, so that nothing more will."""
        return not self._busy and time.monotonic() - self.used > _IDLE

    def close(self) -> None:
        """End all processes and remove the files."""
        with self._lock:
            self._closed = True
            ended, self._idle = [*self._idle, *self._busy], []
        for child in ended:
            child.end()
        shutil.rmtree(os.path.dirname(self.folder), ignore_errors=True)


class Mirror:
    """All runs that this worker has something of.

    Args:
        folder: scratch space, the worker's own.
    """

    def __init__(self, folder: str):
        self._folder = os.path.join(folder, f"codegen-tasks-{os.getpid()}-{id(self):x}")
        self._lock = threading.Lock()
        self._copies: dict[str, Copy] = {}
        self._over: set[str] = set()  # runs that have told that they end
        self._keeper = Keeper()
        self._keeper.start()
        self._closed = threading.Event()
        threading.Thread(target=self._tidy, daemon=True).start()

    def _tidy(self) -> None:
        """Forget what killed runs have left."""
        while not self._closed.wait(_IDLE / 4):
            with self._lock:
                idle = [name for name, copy in self._copies.items() if copy.is_idle]
            for run in idle:
                self._remove(run)

    def _copy(self, run: str) -> Copy:
        with self._lock:
            if run in self._over:
                raise ForgottenError
            if run not in self._copies:
                self._copies[run] = Copy(os.path.join(self._folder, run), self._keeper.mark)
            found = self._copies[run]
            found.used = time.monotonic()
        return found

    def forget(self, run: str) -> None:
        """End what a run left here that ends; an order of it that is late does nothing."""
        with self._lock:
            self._over.add(run)
        self._remove(run)

    def _remove(self, run: str) -> None:
        with self._lock:
            copy = self._copies.pop(run, None)
        if copy is not None:
            copy.close()

    def close(self) -> None:
        """End everything."""
        self._closed.set()
        for run in list(self._copies):
            self.forget(run)
        self._keeper.end(True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def work(
        self,
        order: Mapping[str, Any],
        wanted: Callable[[], bool],
    ) -> dict[str, Any]:
        """Run the steps of an order; return what each came to.

        Args:
            order: see `Parcels.order`.
            wanted: tells whether somebody still waits for the answer.

        Returns:
            "made": pickled results by task; "needs": a path by task; "failed", "bound": tasks;
            "since": how many seconds ago each began that was made;
            "left": tasks that were not begun.  One of these says why, if any was not: "unfit"
            (the tool, and what differs), "unable", "lacks" (a path), "packs" (names),
            "died" (how), "overdue".
            "traffic": what went to and from the remote cache; "aside": why that is not used.
        """
        differs = difference(facts(), order["facts"])
        if not differs and order["machine"]:
            differs = difference(machine(), order["machine"])
        if differs:
            return {"unfit": ("", differs), "left": list(order["tasks"])}
        try:
            return self._worked(order, wanted)
        except ForgottenError:
            return {"unwanted": "", "left": list(order["tasks"])}
        except OSError as error:
            what = f"{error.strerror or error} there"
            return {"unable": what[:1].lower() + what[1:], "left": list(order["tasks"])}

    def _worked(self, order: Mapping[str, Any], wanted: Callable[[], bool]) -> dict[str, Any]:
        copy = self._copy(order["run"])
        lacking = copy.place(order)
        if lacking:
            return {"packs": lacking, "left": list(order["tasks"])}
        kept = copy.kept(order["tasks"]) if order["again"] else {}
        if kept:
            # What is left comes with another order.
            left = [task for task in order["tasks"] if task not in kept]
            return {"made": kept, "left": left}
        answer, loaded = self._answer(copy, order, wanted)
        if not loaded:  # a process may be killed at any moment by no fault of what it loads
            answer, _ = self._answer(copy, order, wanted)
        return {**answer, "aside": copy.refused}

    def _answer(
        self, copy: Copy, order: Mapping[str, Any], wanted: Callable[[], bool]
    ) -> tuple[dict[str, Any], bool]:
        """Return what a process answers to an order, and whether it has lived to hear it."""
        child, new = copy.child(order["load"])
        alive = False
        try:
            answer, alive = _run(child, new, copy, order, wanted)
        finally:
            copy.back(child, alive)
        return answer, answer.get("unable") != _UNLOADED


def _run(
    child: Child, new: bool, copy: Copy, order: Mapping[str, Any], wanted: Callable[[], bool]
) -> tuple[dict[str, Any], bool]:
    """Return the answer to an order, and whether the process is of further use."""
    left = list(order["tasks"])
    answer: dict[str, Any] = {"made": {}, "needs": {}, "failed": [], "bound": [], "left": left}
    if new:
        word, said = child.hear(wanted, time.monotonic() + _LOADED)
        if word != "ready":
            if word in ("overdue", "died"):
                word, said = "unable", _UNLOADED
            return {**answer, word: said}, False
    child.tell((copy.news(child), pickle.loads(order["job"])))
    deadline: float | None = None
    begun: dict[str, float] = {}
    limits = dict(zip(order["tasks"], order["limits"], strict=False))
    while True:
        word, said = child.hear(wanted, deadline)
        if word == "end":
            now = time.monotonic()
            since = {task: now - at for task, at in begun.items()}
            return {**answer, "since": since, "traffic": said}, True
        if word in ("unfit", "unable"):
            answer[word] = said
        elif word in ("died", "overdue", "unwanted"):
            return {**answer, word: said}, False
        if word == "stored":
            task, delivery, may_get_lost = said
            if may_get_lost:
                copy.keep(task, answer["made"][task])
            answer["made"][task] = delivery
        if word in ("made", "needs", "failed", "bound"):
            task, value, seconds = said
            left.remove(task)
            if word == "made":
                answer["made"][task] = value
                begun[task] = time.monotonic() - seconds
            elif word == "needs":
                answer["needs"][task] = value
            else:
                answer[word].append(task)
        limit = limits.get(left[0]) if left else None
        deadline = None if limit is None else time.monotonic() + limit
