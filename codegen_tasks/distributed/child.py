"""The process that runs a project's steps on a worker: one version of one project, then another's.

Its parent tells it on standard input what it may read and what to run, and hears on standard
output what came of each step.  It runs in a copy of the project, see `mirror`, and writes
nothing there but what compilers need.  Unaware of Dask.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from typing import IO, Any

from ..codegen import Codegen
from ..errors import AwaitedError, CodegenError
from ..model import Result, Step
from ..outputs import names_any, written_in
from ..plan import Plan
from ..steps import Workshop, internal
from ..world import World
from .messages import Delivery, Job, Known, Load
from .storing import Storing

_LENGTH = 8  # bytes before each message, its length


def send(stream: IO[bytes], message: Any) -> None:
    """Send a message.  Raises OSError: nobody is there to read it."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(len(data).to_bytes(_LENGTH, "big") + data)
    stream.flush()


def received(stream: IO[bytes]) -> Iterator[Any]:
    """Yield messages as they come, until there are to be no more."""
    while len(length := stream.read(_LENGTH)) == _LENGTH:
        data = stream.read(int.from_bytes(length, "big"))
        yield pickle.loads(data)


def main() -> None:
    """Serve the parent until it says no more."""
    # What a step or its compiler prints must not get into what we tell.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    messages = received(sys.stdin.buffer)
    root = os.path.realpath(os.getcwd())
    load, access = next(messages)
    try:
        shops = _workshops(load, root)
    except FileNotFoundError as error:
        lacking = _inside(root, error.filename)
        send(answers, ("lacks", lacking) if lacking else ("unable", _worded(error)))
        return
    except (Exception, SystemExit) as error:
        send(answers, ("unable", _worded(error)))
        return
    send(answers, ("ready", ""))
    reads = _Reads()
    storing = Storing(access) if access is not None else None
    for known, job in messages:
        reads.learn(known)
        for answer in _answers(shops, job, reads, root, storing if job.stored else None):
            send(answers, answer)
        send(answers, ("end", asdict(storing.traffic()) if storing is not None else None))


def _workshops(load: Load, root: str) -> dict[str, Workshop]:
    """Return what runs the steps of each Codegen of the `dodo.py`, by name."""
    from doit.loader import get_module

    module = get_module(os.path.join(root, load.dodo), root)
    found: dict[str, Workshop] = {}
    for value in vars(module).values():
        if issubclass(type(value), Codegen):
            project = replace(value.project, settings=load.settings)
            world = World(project)
            world.settle()
            found[project.name] = Workshop(project, Plan(), world)
    return found


def _inside(root: str, name: Any) -> str:
    """Return a path as the project has it; "" if it lies outside."""
    path = os.path.relpath(os.path.join(root, os.fspath(name or "")), root).replace(os.sep, "/")
    return "" if path == "." or path.startswith("../") else path


def _worded(error: BaseException) -> str:
    if isinstance(error, CodegenError):
        return str(error).partition("\n")[0]
    return f"{type(error).__name__}: {error}".partition("\n")[0]


class _Reads:
    """What may be read; whoever is about to read something else hears so."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._whole: tuple[str, ...] = ()
        self._but: frozenset[str] = frozenset()

    def learn(self, known: Known) -> None:
        """Take in what else may be read."""
        self._paths |= known.paths
        self._whole += tuple(f"{folder}/" for folder in known.whole)
        self._but |= known.but

    def ask(self, path: str) -> None:
        """Let a render read a path, or raise AwaitedError."""
        if path in self._paths or (path.startswith(self._whole) and path not in self._but):
            return
        raise AwaitedError(path)

    def ask_own(self, path: str) -> None:
        """Let what was made elsewhere be held against a file; those of the machine are not sent."""
        if not os.path.isabs(path):
            self.ask(path)


def _answers(
    shops: Mapping[str, Workshop], job: Job, reads: _Reads, root: str, storing: Storing | None
) -> Iterator[tuple[str, Any]]:
    shop = shops.get(job.name)
    if shop is None:
        yield "unable", f"its dodo.py has no Codegen named '{job.name}'"
        return
    unfit = _unfit(shop, job)
    if unfit is not None:
        yield "unfit", unfit
        return
    with contextlib.suppress(CodegenError):  # the render will say it
        for step in job.steps:
            _ = step.phase == "compile" or shop.engine_for(step.template)
    known, later = _known(shop, job, reads, storing)
    yield "begun", ""
    for task, delivery in known.items():
        yield "made", (task, _pickled(delivery), 0.0)
    others = known.keys() | later
    left = replace(job, steps=tuple(step for step in job.steps if step.task not in others))
    ways = written_in(root)  # such a result fits no other folder
    for step, made in _made(shop, left, reads):
        if isinstance(made, AwaitedError):
            yield "needs", (step.task, made.path, 0.0)
        elif not isinstance(made, Result):
            yield "failed", (step.task, made, 0.0)
        elif names_any(made, ways):
            yield "bound", (step.task, "", 0.0)
        else:
            yield "made", (step.task, _pickled(made), made.seconds)
            if storing is not None:
                with contextlib.suppress(Exception):  # it has been made, whatever comes of that
                    storing.send(shop.project, shop.world, step, made)
    for task, delivery in storing.sent() if storing is not None else ():
        yield "stored", (task, _pickled(delivery), bool(delivery.afar))


def _pickled(what: Result | Delivery) -> bytes:
    return pickle.dumps(what, pickle.HIGHEST_PROTOCOL)


def _known(
    shop: Workshop, job: Job, reads: _Reads, storing: Storing | None
) -> tuple[Mapping[str, Delivery], Collection[str]]:
    """Return what the remote cache has of the steps of a job, and which are left for another."""
    if storing is None or job.anew:
        return {}, ()
    try:
        return storing.found(shop.project, shop.world, job.steps, reads.ask_own)
    except Exception:  # steps that cannot be asked about are run
        return {}, ()


def _unfit(shop: Workshop, job: Job) -> tuple[str, str] | None:
    """Return which tool or engine is another here, and what differs; None if nothing does."""
    for engine, wanted in job.engines.items():
        if shop.world.declaration("environment", engine) != wanted:
            return engine, f"{engine}, or an option or extension of it, is another there"
    for step in {step.rule: step for step in job.steps}.values():
        try:
            found = shop.world.compiler_inputs(step)
        except CodegenError as error:
            return getattr(shop.project.tool(step), "name", ""), str(error).partition("\n")[0]
        for item in found:
            wanted = job.tools.get(item.key, item.digest)
            if wanted != item.digest:
                told = f" {item.shown}" if item.kind == "toolchain" else "'s command"
                return item.name, f"{item.name}{told} there is not that of here"
    return None


def _made(shop: Workshop, job: Job, reads: _Reads) -> Iterator[tuple[Step, Any]]:
    """Yield each step, and its result, or the path that it needs, or the text of its failure."""
    if job.together and job.steps:
        yield from zip(job.steps, map(_told, shop.results(job.steps)), strict=True)
        return
    end = time.monotonic() + job.seconds
    for number, step in enumerate(job.steps):
        if number and time.monotonic() > end:
            return
        try:
            if step.phase == "compile":
                yield step, _told(shop.results([step])[0])
            else:
                yield step, shop.result(step, reads.ask)
        except AwaitedError as awaited:
            yield step, awaited
        except CodegenError as error:
            yield step, str(error)
        except (Exception, SystemExit):
            yield step, internal(step.task)


def _told(made: Result | CodegenError) -> Result | str:
    return made if isinstance(made, Result) else str(made)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # nobody is there any more
        main()
