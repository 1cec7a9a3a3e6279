"""What a watch adds to the work: from saving a macro that all use to the last finished target."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from measure import MeasurementError, Table, clean_environ, machine, milliseconds, positive, tell
from workload import MACRO, OURS, OUTPUT, TOOLS, edit_macro, make_project, stem

_LIMIT = 60.0  # seconds that a build may take
_LOOK = 0.001  # seconds between two looks at the targets
_GOAL = 0.150


class Watch:
    """A running watch of a project, whose targets tell when it has built.

    Args:
        folder: the project.
        count: of patterns.
        environ: of the process.
        options: of the watch.
    """

    def __init__(self, folder: Path, count: int, environ: dict[str, str], options: list[str]):
        self._targets = [folder / OUTPUT / f"{stem(number)}.ts" for number in range(count)]
        self._log = folder / "watch.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "codegen_tasks", "watch", *options],
                cwd=folder,
                env=environ,
                stdout=log,
                stderr=log,
            )
        self.until(lambda: "watching" in self._log.read_text())

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something holds.

        Raises:
            MeasurementError: it never does.
        """
        end = time.monotonic() + _LIMIT
        while not reached():
            if time.monotonic() > end or self._process.poll() is not None:
                raise MeasurementError(f"the watch does not build\n{self._log.read_text()}")
            time.sleep(_LOOK)

    def until_holds(self, text: str) -> float:
        """Wait until every target holds a text; return when the last was written."""
        # One after the other: a target that holds it is not looked at again.
        for target in self._targets:
            self.until(lambda target=target: text in target.read_text())
        return max(target.stat().st_ctime for target in self._targets)

    def end(self) -> None:
        """End it.

        Raises:
            MeasurementError: not with 0.
        """
        self._process.send_signal(signal.SIGTERM)  # which a shell has no background job ignore
        if self._process.wait(_LIMIT):
            raise MeasurementError(f"the watch ended badly\n{self._log.read_text()}")


def saved(watch: Watch, folder: Path, turn: int) -> float:
    """Save the macro; return the seconds until the last target was written."""
    begun = time.time()
    edit_macro(folder, turn)
    seconds = watch.until_holds(f"// {turn}: ") - begun
    time.sleep(0.3)  # the watch comes to rest
    return seconds


def alone(folder: Path, turn: int, environ: dict[str, str], options: list[str]) -> float:
    """Return the seconds that the same work takes `doit run`, as a whole process."""
    edit_macro(folder, turn)
    begun = time.perf_counter()
    command = [sys.executable, "-m", "doit", "run", *options]
    subprocess.run(command, cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def in_its_words(folder: Path, turn: int, environ: dict[str, str], options: list[str]) -> float:
    """Return the seconds that `doit run` says the same work took, start-up left out."""
    edit_macro(folder, turn)
    command = [sys.executable, "-m", "doit", "run", *options]
    done = subprocess.run(
        command, cwd=folder, env=environ, check=True, capture_output=True, text=True
    )
    words = done.stdout.splitlines()[-1].split()
    return float(words[words.index("in") + 1])


def measured(count: int, runs: int) -> Table:
    """Return the table of a library of patterns."""
    tool = next(one for one in TOOLS if one.key == OURS)
    rows = []
    with tempfile.TemporaryDirectory(prefix="watch-") as scratch:
        environ = clean_environ(Path(scratch))
        folder = Path(scratch, "project")
        make_project(folder, tool, count, sys.executable)
        turn = 1
        for options in ([], ["-n", "2"], ["--fresh"]):
            watch = Watch(folder, count, environ, options)
            figures = [saved(watch, folder, turn + number) for number in range(runs)]
            watch.end()
            turn += runs
            own = [one for one in options if one != "--fresh"]
            whole = [alone(folder, turn + n, environ, own) for n in range(runs)]
            turn += runs
            inner = [in_its_words(folder, turn + n, environ, own) for n in range(runs)]
            turn += runs
            took, run, work = median(figures), median(whole), median(inner)
            name = " ".join(["doit watch", *options])
            rows.append([name, *map(milliseconds, (took, run, took - run, work))])
    header = ["", "save to done", "doit run", "beyond it", "doit run as it tells"]
    goal = f"goal: at most {milliseconds(_GOAL)} beyond the same doit run, for 1,000 patterns"
    return Table(f"{MACRO}, {count:,} patterns", header, rows, [goal, machine(runs)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=positive, default=1_000, help="patterns [%(default)s]")
    parser.add_argument("--runs", type=positive, default=5, help="of each figure [%(default)s]")
    given = parser.parse_args()
    return tell("watch.py", lambda: measured(given.count, given.runs))


if __name__ == "__main__":
    sys.exit(main())
