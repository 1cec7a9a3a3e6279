"""nothing: where the time of a run goes that has nothing to do, part by part.

Each figure is the median of whole `doit` processes on the workload of compare.py, in which a
stopwatch is put around what is named; it costs some microseconds itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import measure
import workload
from measure import MeasurementError, Table, milliseconds

#: Runs doit with a stopwatch; the last line it prints is what that said, in seconds.
STOPWATCH = """
import sys, time
began, marks = float(sys.argv[1]), []
def mark(name):
    marks.append((name, time.time() - began))
mark("Python starts")
import doit.doit_cmd, doit.loader
mark("`import doit`")
import codegen_tasks.commands.run
mark("our modules, as far as `dodo.py` needs them")
import codegen_tasks.glance as glance, codegen_tasks.state
mark("those that look at the snapshot")
snapshot, load = glance.snapshot, doit.loader.load_tasks
def timed(where, name, called):
    function = getattr(where, name)
    def call(*given, **named):
        value = function(*given, **named)
        mark(called)
        return value
    setattr(where, name, call)
def loading(*given, **named):
    mark("doit finds its plugins, reads the command line and runs `dodo.py`")
    tasks = load(*given, **named)
    mark("the plan, the manifest and the lock looked at, tasks of the phases made")
    return tasks
doit.loader.load_tasks = loading
timed(snapshot, "read", "the snapshot read and its checksum taken")
timed(snapshot, "_signatures", "each file looked at, once")
timed(snapshot.Kept, "changed_facts", "filters, options, versions and compilers looked at")
doit.doit_cmd.DoitMain().run(sys.argv[2:])
mark("doit runs the tasks of the phases")
import json
print(json.dumps(marks))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return an exit code."""
    parser = argparse.ArgumentParser(prog="nothing", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--patterns", type=measure.positive, default=10_000)
    parser.add_argument("--runs", type=measure.positive, default=9, help="runs (%(default)s)")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args(arguments)
    render = measure.markdown if options.markdown else measure.plain
    return measure.tell("nothing", lambda: parts(options.patterns, options.runs), render)


def parts(count: int, runs: int) -> Table:
    """Return what each part of a run with nothing to do takes.

    Raises:
        MeasurementError: a run failed, or had something to do.
    """
    with tempfile.TemporaryDirectory(prefix="nothing-") as scratch:
        folder = Path(scratch, "project")
        environ = measure.clean_environ(Path(scratch))
        us = next(tool for tool in workload.TOOLS if tool.key == "us")
        workload.make_project(folder, us, count, sys.executable)
        measure.run([sys.executable, "-m", "doit"], folder, environ)
        samples = [_parts(folder, environ, count) for _ in range(runs + 1)][1:]
    names = [name for name, _ in samples[0]]
    columns = list(zip(*([seconds for _, seconds in sample] for sample in samples), strict=True))
    rows = [[name, milliseconds(median(c))] for name, c in zip(names, columns, strict=True)]
    rows.append(["all of it", milliseconds(median(sum(s for _, s in one) for one in samples))])
    title = f"A run with nothing to do, {count:,} patterns"
    return Table(title, ["", "takes"], rows, [])


def _parts(folder: Path, environ: dict[str, str], count: int) -> list[tuple[str, float]]:
    """Return name and seconds of each part of one run."""
    command = [sys.executable, "-c", STOPWATCH, repr(time.time())]
    lines = measure.run(command, folder, environ).output.splitlines()
    if not lines[-2].startswith(f"{count} up to date"):
        raise MeasurementError(f"it had something to do: {lines[-2]}")
    marks = [("", 0.0), *json.loads(lines[-1])]
    return [(name, at - marks[i][1]) for i, (name, at) in enumerate(marks[1:])]


if __name__ == "__main__":
    sys.exit(main())
