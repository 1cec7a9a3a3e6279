"""The process that outlives a run to end what it left: workers, compilers, their daemons.

A killed run can end nothing, and what a compiler has put into the background has no parent
to be found by.  So each program we start carries a mark in its environment, and a run that
starts any has a keeper, waiting on a pipe whose other end closes when the run is no more.
Run as a script, with the standard library and psutil only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Container, Iterator
from typing import Any

#: The variable that marks what was started: "run/pid.call", see `process.run`.
MARK = "_CODEGEN_STARTED_BY"
_ROUNDS = 20  # looks, 0.1 s apart, at what may still be starting others


def end_marked(mark: str, pids: Container[int] = ()) -> None:
    """Kill every process whose mark begins with `mark`, and those of `pids`.

    Args:
        mark: of a run, or of one call.
        pids: of processes that carry no mark, having been forked; their children go too.
    """
    import psutil

    for number in range(_ROUNDS):
        found = list(_found(mark, pids if number == 0 else ()))
        for process in found:
            try:
                process.kill()
            except psutil.Error:
                continue
        if not found:
            return
        psutil.wait_procs(found, timeout=0.1)


def _found(mark: str, pids: Container[int]) -> Iterator[Any]:
    import psutil

    for process in psutil.process_iter():
        try:
            if process.pid in pids:
                yield from process.children(recursive=True)
                yield process
            elif process.pid != os.getpid() and _is_marked(process, mark):
                yield process
        except psutil.Error:
            continue


def _is_marked(process: Any, mark: str) -> bool:
    import psutil

    try:
        found = process.environ().get(MARK, "")
        return bool(found.startswith(mark)) and process.status() != psutil.STATUS_ZOMBIE
    except OSError:
        return False


def main(mark: str) -> None:
    """Wait for the run's end; "end" says that it left nothing, silence that it was killed.

    Args:
        mark: of the run.
    """
    workers: set[int] = set()
    for line in sys.stdin:
        if line == "end\n":
            return
        change = workers.add if line.startswith("+") else workers.discard
        change(int(line[1:]))
    end_marked(mark, workers)
    time.sleep(0.2)  # one that was being started when we looked
    end_marked(mark)


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    main(sys.argv[2])
