"""Our side of a Dask cluster: the connection, what was submitted, and how the workers are.

The only module on our side that knows Dask.  Nothing here raises because the cluster fails:
what was submitted then ends as "lost".
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .shim import as_source, work

#: How often, in seconds, the scheduler is asked how its workers are.
_LOOK = 0.5
#: Seconds that asking, or saying good-bye, may take.
_PATIENCE = 5.0


class UnreachableError(Exception):
    """There is no cluster to be had; the text says why, the hint what may help."""

    def __init__(self, what: str, hint: str = ""):
        self.hint = hint
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What is known of a worker.

    Args:
        name: that it was given, or its address.
        threads: how many tasks it runs at once.
        tasks: keys of ours that it has to do.
        seen: when it was last heard of changed, on our monotonic clock.
    """

    name: str
    threads: int
    tasks: tuple[Any, ...] = ()
    seen: float = 0.0


@dataclass(slots=True)
class _Sent:
    """What was submitted, and the coroutine that waits for it."""

    future: Any
    waiting: Any


class Cluster:
    """A connection to a scheduler.

    Args:
        address: of the scheduler; "" for what Dask itself is configured to use, and else for
            workers of this machine, which end with us.
        workers: how many of these.
        patience: seconds in which the scheduler must answer.

    Raises:
        UnreachableError: it does not.
    """

    def __init__(self, address: str, workers: int, patience: float):
        _quiet()
        import dask.config
        import distributed

        found = address or dask.config.get("scheduler-address", "")
        file = "" if found else os.path.expanduser(dask.config.get("scheduler-file", "") or "")
        self._local: Any = None
        try:
            if not (found or file):
                self._local = _local(workers)
            if file and not os.path.exists(file):
                raise OSError(f"there is no scheduler file {file}")
            self._client: Any = _in_time(
                lambda: distributed.Client(
                    self._local or found or None,
                    scheduler_file=file or None,
                    timeout=patience,
                    set_as_default=False,
                    name="codegen-tasks",
                ),
                patience + 1,
                f"{found or file} does not answer",
            )
        except Exception as error:  # whatever Dask makes of an address, a file, a certificate
            self._close_local()
            raise _unreachable(found or file or "workers of this machine", error) from None
        self.address = "local workers" if self._local else (found or self._client.scheduler.address)
        #: What the workers are, by address; replaced as a whole.
        self.workers: Mapping[str, WorkerState] = {}
        self._heard: queue.SimpleQueue[tuple[Any, str, Any]] = queue.SimpleQueue()
        self._sent: dict[Any, _Sent] = {}
        self._submitted = 0
        self._work = as_source(work)
        self._beats: dict[str, Any] = {}  # when the scheduler has last heard of workers
        self._loop = self._client.loop.asyncio_loop
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)

    # Submitting -------------------------------------------------------------------------

    def submit(
        self,
        key: Any,
        order: Mapping[str, Any],
        workers: Sequence[str] | None = None,
        others: bool = False,
    ) -> None:
        """Have an order carried out; `heard` tells of its end.

        Args:
            key: names it, for people too.
            order: what `Mirror.work` is given.
            workers: addresses of those that may do it; None for any.
            others: others may too, if none of these is there.
        """
        self._submitted += 1
        try:
            future = self._client.submit(
                self._work,
                order,
                key=key,
                # What came first goes first, for that takes longest.
                priority=-self._submitted,
                workers=list(workers) if workers is not None else None,
                allow_other_workers=others,
                pure=False,
            )
        except Exception as error:  # whatever a closed or strange connection raises
            self._heard.put((key, "lost", f"{type(error).__name__}: {error}"))
            return
        waiting = asyncio.run_coroutine_threadsafe(self._follow(key, future), self._loop)
        self._sent[key] = _Sent(future, waiting)

    async def _follow(self, key: Any, future: Any) -> None:
        """Wait for the end of what was submitted, and say what it was."""
        try:
            answer = await future
        except asyncio.CancelledError:
            self._heard.put((key, "lost", "it was cancelled"))
        except Exception as error:
            self._heard.put((key, _kind(error), _said(error)))
        else:
            self._heard.put((key, "answer", answer))

    def heard(self, timeout: float) -> list[tuple[Any, str, Any]]:
        """Return what has ended: key, how, and the answer or what was said.

        How is "answer"; "lost", perhaps by no fault of the order; "killed", if several workers
        died of it; or "error".

        Args:
            timeout: seconds to wait for the first.
        """
        found = []
        try:
            found.append(self._heard.get(timeout=max(0.0, timeout)))
            while True:
                found.append(self._heard.get_nowait())
        except queue.Empty:
            pass
        for key, _, _ in found:
            self._sent.pop(key, None)
        return found

    def has_ended(self, key: Any) -> bool:
        """Tell whether an order has been carried out; its answer may lie where it was."""
        sent = self._sent.get(key)
        return sent is not None and sent.future.status == "finished"

    def drop(self, keys: Sequence[Any]) -> None:
        """Wait no longer for what was submitted; workers let go of it."""
        futures = []
        for key in keys:
            sent = self._sent.pop(key, None)
            if sent is not None:
                sent.waiting.cancel()
                futures.append(sent.future)
        if futures:
            self._in_time(self._client.cancel(futures, asynchronous=True, force=True))

    # How the workers are ----------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._look(), _PATIENCE)
            await asyncio.sleep(_LOOK)

    async def _look(self) -> None:
        scheduler = self._client.scheduler
        identity = await scheduler.identity(n_workers=-1)
        processing = await scheduler.processing(workers=None)
        now, found = time.monotonic(), {}
        for address, told in identity["workers"].items():
            before, seen = self.workers.get(address), now
            if before is not None and self._beats.get(address) == told["last_seen"]:
                seen = before.seen
            self._beats[address] = told["last_seen"]
            name = shown(str(told.get("name", "")), address)
            keys = tuple(key for key in processing.get(address, ()) if key in self._sent)
            found[address] = WorkerState(name, told["nthreads"], keys, seen)
        self.workers = found

    @property
    def is_connected(self) -> bool:
        """Whether the scheduler can be spoken to."""
        return bool(self._client.status == "running")

    @property
    def is_closed(self) -> bool:
        """Whether the connection is given up."""
        return self._client.status in ("closed", "closing")

    # The end ----------------------------------------------------------------------------

    def close(self, run: str) -> None:
        """Let go of everything, and have all workers forget a run: any may be about to begin it."""
        from . import remote

        self._watching.cancel()
        self.drop(list(self._sent))
        if self._local is not None:
            for worker in self._local.workers.values():
                remote.close(worker)
        elif self.is_connected and self.workers:
            workers = list(self.workers)
            forget = functools.partial(self._client.run, remote.forget, run, workers=workers)
            self._in_time(forget(on_error="ignore", asynchronous=True))
        with contextlib.suppress(Exception):
            close = functools.partial(self._client.close, timeout=_PATIENCE)
            _in_time(close, _PATIENCE + 1, "it does not end")
        self._close_local()

    def _close_local(self) -> None:
        if self._local is not None:
            with contextlib.suppress(Exception):
                close = functools.partial(self._local.close, timeout=_PATIENCE)
                _in_time(close, _PATIENCE + 1, "they do not end")

    def _in_time(self, coroutine: Any) -> None:
        """Have something done by the loop, and wait for it a while."""

        async def bounded() -> None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(coroutine, _PATIENCE)

        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(bounded(), self._loop).result(_PATIENCE + 1)


def _unreachable(where: str, error: Exception) -> UnreachableError:
    """Return what is wrong with a cluster, in words that do not need Dask's source."""
    what = str(error).partition("\n")[0] or type(error).__name__
    if where.startswith("tls://") and (lack := _lacks(error, what)):
        hint = "distributed.comm.tls in Dask's configuration names them"
        return UnreachableError(f"{where} {lack}", hint)
    # At what comes in place of an answer.
    if "://" in where and isinstance(error, MemoryError | TypeError):
        import distributed

        return UnreachableError(
            f"what answers at {where} is no scheduler that Dask {distributed.__version__} knows"
            f" ({what})",
            "dask scheduler tells its address and, with --version, which Dask it is",
        )
    if where not in what or what.startswith("in <"):  # a connection, in Dask's words
        return UnreachableError(f"{where} cannot be used: {what.rpartition('>: ')[2]}")
    hint = "does it run, and is this the address that it tells?" if "://" in where else ""
    return UnreachableError(what, hint)


def _lacks(error: Exception, what: str) -> str:
    """Return what is amiss with certificates; "" if it is something else."""
    if "ssl_context" in what:
        return "needs certificates"
    if isinstance(error, FileNotFoundError):
        return "needs certificates, a file of which is not there"
    said = f"{type(error).__name__} {what}"
    refused = "CommClosedError" in said or "SSL" in said
    return "speaks no TLS, or takes other certificates" if refused else ""


def _local(workers: int) -> Any:
    """Return a cluster in this process: steps run in processes of their own in any case.

    Dask's `LocalCluster` would have it serve everybody on the network over HTTP.
    """
    from distributed import Scheduler, SpecCluster, Worker

    shared = {"protocol": "inproc://", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    # Our own memory is none of the workers' business.
    worker = {"cls": Worker, "options": {**shared, "nthreads": 1, "memory_limit": 0}}
    return SpecCluster(
        workers=dict.fromkeys(range(workers), worker),
        scheduler={"cls": Scheduler, "options": shared},
        silence_logs=False,
    )


def _in_time(function: Callable[[], Any], seconds: float, late: str) -> Any:
    """Return what a function returns, or raise OSError if that takes too long.

    Dask itself waits for ever for a scheduler that takes the call and says nothing.
    """
    done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def call() -> None:
        try:
            done.put((function(), None))
        except Exception as error:
            done.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        found, error = done.get(timeout=seconds)
    except queue.Empty:
        raise OSError(late) from None
    if error is not None:
        raise error
    return found


def shown(name: str, address: str) -> str:
    """Return what people call a worker: its name, unless that is its address or a number."""
    if name.isdigit():
        return f"worker {name}"
    return address.partition("://")[2] if name in ("", address) else name


def titled(name: str) -> str:
    """Return a worker's name, as `shown` gives it, in a sentence."""
    return name if name.startswith("worker ") else f"worker {name}"


def _quiet() -> None:
    """Keep Dask from telling on our screen what we tell in our words."""
    import dask.config

    parts = ("client", "scheduler", "worker", "nanny", "core", "comm", "batched", "utils")
    levels = dict.fromkeys(("distributed", *(f"distributed.{p}" for p in parts)), "critical")
    if not dask.config.get("logging", {}):
        dask.config.set({"logging": {**levels, "asyncio": "critical"}})
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})
    # Which workers differ so that they cannot make the same, is told when they are asked to.
    from distributed.versions import VersionMismatchWarning

    warnings.simplefilter("ignore", VersionMismatchWarning)


def _kind(error: BaseException) -> str:
    import distributed

    if isinstance(error, distributed.KilledWorker):
        return "killed"
    lost = type(error).__name__ in ("FutureCancelledError", "FuturesCancelledError")
    return "lost" if lost or isinstance(error, OSError) else "error"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
