"""What Dask itself unpickles: it travels by value, since a worker that cannot import it would end.

So it names nothing of this package before it runs, and says so where the package is lacking.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any


def work(order: Mapping[str, Any]) -> dict[str, Any]:
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


class ByValue:
    """A function that is unpickled as it is here, whatever is installed there.

    Args:
        function: the function; it imports what it needs.
    """

    def __init__(self, function: Callable[..., Any]):
        import cloudpickle

        module = __import__(function.__module__, fromlist=[""])
        cloudpickle.register_pickle_by_value(module)
        try:
            self._pickled = cloudpickle.dumps(function)
        finally:
            cloudpickle.unregister_pickle_by_value(module)
        self._function = function

    def __call__(self, *given: Any) -> Any:
        """Call it, here."""
        return self._function(*given)

    def __reduce__(self) -> Any:
        return (pickle.loads, (self._pickled,))
