"""What a Dask worker is asked to run; all it keeps hangs on the worker, and goes with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from .mirror import Mirror

_MIRROR = "codegen_tasks_mirror"
_LOCK = "codegen_tasks_lock"


def answered(order: Mapping[str, Any], worker: Any) -> dict[str, Any]:
    """Return what a worker answers to an order; see `Mirror.work`."""
    with vars(worker).setdefault(_LOCK, threading.Lock()):
        mirror: Mirror = vars(worker).get(_MIRROR) or Mirror(worker.local_directory)
        vars(worker)[_MIRROR] = mirror
    return mirror.work(order, _wanted(worker))


def forget(run: str, dask_worker: Any = None) -> None:
    """End what a run left on a worker; Dask tells which."""
    mirror = vars(dask_worker).get(_MIRROR)
    if mirror is not None:
        mirror.forget(run)


def close(worker: Any) -> None:
    """End all that a worker of this process has of ours."""
    mirror = vars(worker).pop(_MIRROR, None)
    if mirror is not None:
        mirror.close()


def _wanted(worker: Any) -> Callable[[], bool]:
    """Return what tells whether the scheduler still wants the task under way."""
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state not in ("cancelled", "released", "forgotten")

    return wanted
