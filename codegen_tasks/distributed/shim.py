"""What Dask itself unpickles: it travels as source, since a worker that cannot import it would end.

So it names nothing of this package before it runs, and says so where the package is lacking.  As
bytecode it could end a worker too, or worse: that is for one version of Python only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def work(order: dict[str, Any]) -> dict[str, Any]:
    """Run the steps of an order on a worker, if it has what that takes."""
    from distributed import get_worker

    worker = get_worker()
    try:
        from codegen_tasks.distributed.remote import answered
    except Exception as error:
        what = f"codegen-tasks cannot be imported there: {error}"
        answer = {"unfit": ("", what), "left": list(order["tasks"])}
    else:
        answer = answered(order, worker)
    return {**answer, "worker": str(worker.name), "address": worker.address}


def as_source(function: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Return what does the same as a function, whatever is installed where it is unpickled.

    Not its bytecode: schedulers read what they pass on, and write it anew as they know it.

    Args:
        function: that imports what it needs; what it is given is a table.
    """
    # Whose annotations are no names that it needs.
    source = f"from __future__ import annotations\n\n{inspect.getsource(function)}"
    called = f"space[{function.__name__!r}](globals())"
    # What it is called with becomes the globals of this.
    return functools.partial(eval, f"(lambda space: (exec({source!r}, space), {called})[1])({{}})")
