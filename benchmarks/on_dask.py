"""on_dask: steps of known length on Dask workers of this machine, beside `doit -n`.

Each step waits for 10, 100 or 1,000 ms, as a compiler on another machine would have us wait, so
that more workers than cores can be measured.  Steps of no length tell what a step costs besides.
README.md tells what is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
from measure import Figure, MeasurementError, Table, duration

#: Milliseconds that a step takes, and how many steps a worker gets.
STEPS = {10: 300, 100: 60, 1000: 8}
WORKERS = (1, 2, 4)
#: Steps of no length.
EMPTY = 5_000

_DODO = '''\
"""Steps that wait."""

import time

from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{{stem}}.txt")


@codegen.function
def wait():
    time.sleep({seconds})
    return ""


DOIT_CONFIG = codegen.doit_config
'''
_TEMPLATE = """\
{{ wait() }}{{ name }} has {{ nodes|length }} nodes:
{% for node in nodes %}
{{ node.kind }} at {{ node.at }}, {{ node.gain }}
{% endfor %}
"""


def make_project(folder: Path, count: int, seconds: float) -> None:
    """Write a project of so many steps that wait so long."""
    (folder / "templates").mkdir(parents=True)
    (folder / "patterns").mkdir()
    (folder / "dodo.py").write_text(_DODO.format(seconds=seconds))
    (folder / "templates/page.j2").write_text(_TEMPLATE)
    node = '[[nodes]]\nkind = "mirror"\nat = 0.5\ngain = 2\n'
    for number in range(count):
        text = f'name = "p{number}"\n{node * 10}'
        (folder / f"patterns/p{number:06}.toml").write_text(text)


@contextlib.contextmanager
def cluster(folder: Path, workers: int, environ: Mapping[str, str]) -> Iterator[str]:
    """Start a scheduler and workers; yield the scheduler's address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    where = ("--host", "127.0.0.1", "--no-dashboard")
    commands = [["scheduler", *where, "--port", str(port), "--no-jupyter"]]
    for number in range(workers):
        scratch = str(folder / f"worker-{number}")
        own = ("--nthreads", "1", "--no-nanny", "--local-directory", scratch)
        commands.append(["worker", address, *where, *own])
    processes = []
    try:
        for command in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                env=dict(environ),
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            processes.append(process)
        _wait_for(address, workers)
        yield address
    finally:
        for process in processes:
            process.kill()  # asked to end all at once, workers may wait for the scheduler for ever
            process.wait()


def _wait_for(address: str, workers: int) -> None:
    import distributed

    with distributed.Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=60)


def build(project: Path, environ: Mapping[str, str], count: int, *options: str) -> measure.Ran:
    """Build everything anew, and see that it was.

    Raises:
        MeasurementError: it was not.
    """
    for name in (".codegen", "generated"):
        shutil.rmtree(project / name, ignore_errors=True)
    ran = measure.run([sys.executable, "-m", "doit", *options, "generate"], project, environ)
    made = len(list((project / "generated").iterdir()))
    if made != count or "-P dask: " in ran.output:
        raise MeasurementError(f"{made} of {count} made\n{ran.output[-500:]}")
    return ran


def measure_waits(runs: int, scratch: Path, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a row for each length of a step and number of workers."""
    found = []
    for workers in WORKERS:
        with cluster(scratch, workers, environ) as address:
            there = ("-P", "dask", "--scheduler", address)
            for step, each in STEPS.items():
                count = each * workers
                project = scratch / f"{step}-{workers}"
                make_project(project, count, step / 1000)
                on_dask, here = (
                    measure.figure(build(project, environ, count, *how) for _ in range(runs))
                    for how in (there, ("-n", str(workers)))
                )
                print(f"{step} ms, {workers} workers: {duration(on_dask.seconds)}", file=sys.stderr)
                found.append(_row(step, workers, count, on_dask, here))
    return found


def _row(step: int, workers: int, count: int, there: Figure, here: Figure) -> dict[str, Any]:
    least = count * step / 1000 / workers
    return {
        "step": step,
        "workers": workers,
        "steps": count,
        "least": least,
        "dask": there.seconds,
        "n": here.seconds,
    }


def measure_costs(runs: int, scratch: Path, environ: Mapping[str, str]) -> dict[str, float]:
    """Return what a step costs, in seconds: as a whole, and of the processor of who leads."""
    few, costs = 100, {}
    with cluster(scratch, 2, environ) as address:
        there = ("-P", "dask", "--scheduler", address)
        figures = {}
        for count in (few, EMPTY):
            project = scratch / f"empty-{count}"
            make_project(project, count, 0)
            for name, how in (("dask", there), ("n", ("-n", "2"))):
                ran = (build(project, environ, count, *how) for _ in range(runs))
                figures[name, count] = measure.figure(ran)
    for name in ("dask", "n"):
        more, less = figures[name, EMPTY], figures[name, few]
        costs[f"{name} wall"] = (more.seconds - less.seconds) / (EMPTY - few)
        costs[f"{name} processor"] = (more.processor - less.processor) / (EMPTY - few)
        costs[f"{name} start"] = less.seconds
        costs[f"{name} memory"] = (more.peak - less.peak) / (EMPTY - few)
    return costs


def tables(rows: Sequence[Mapping[str, Any]], costs: Mapping[str, float]) -> list[Table]:
    """Return what was measured, for people."""
    waits = [
        [
            f"{row['step']:,} ms",
            f"{row['workers']}",
            f"{row['steps']:,}",
            duration(row["least"]),
            duration(row["dask"]),
            duration(row["n"]),
        ]
        for row in rows
    ]
    header = ["a step takes", "workers", "steps", "at least", "-P dask", "-n"]
    named = {"dask": "-P dask, 2 workers", "n": "-n 2"}
    rest = [
        [
            label,
            duration(costs[f"{name} start"]),
            duration(costs[f"{name} wall"]),
            duration(costs[f"{name} processor"]),
            f"{costs[f'{name} memory'] / 1000:.1f} KB",
        ]
        for name, label in named.items()
    ]
    columns = ["", "100 steps", "each further", "of the leading process", "memory"]
    return [
        Table("Steps that wait", header, waits),
        Table("Steps of no length", columns, rest),
    ]


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=measure.positive, default=3, help="runs of each (3)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="on-dask-") as folder:
        scratch = Path(folder)
        # Else the second run would find what the first has made.
        environ = {**measure.clean_environ(scratch), "CODEGEN_OUTPUT_CACHE": "false"}
        try:
            costs = measure_costs(chosen.runs, scratch, environ)
            rows = measure_waits(chosen.runs, scratch, environ)
        except MeasurementError as error:
            print(f"on_dask: {error}", file=sys.stderr)
            return 1
        if chosen.json:
            chosen.json.write_text(json.dumps({"costs": costs, "waits": rows}, indent=1) + "\n")
    for table in tables(rows, costs):
        print(f"{measure.plain(table)}\n")
    print(f"measured in {duration(time.monotonic() - began)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
