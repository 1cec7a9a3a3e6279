"""What the benchmarks share: running a command and what it took, medians, tables, the machine.

Seconds are wall-clock seconds of whole processes; processor seconds (user and system) are
those of a process and everything it started and waited for; peak memory is that of the
largest single process among them.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Where the benchmarks keep what they fetch.
CACHE = ROOT / "benchmarks" / ".cache"
_LAUNCH = Path(__file__).with_name("launch.py")
#: Seconds after which a command is taken for one that would never end.
LIMIT = 1200.0
_SHOWN = 20  # last lines of a failed command's output


class MeasurementError(Exception):
    """A run did not do what its figure would claim."""


# Running --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command came to: seconds, processor seconds, peak bytes, what it printed."""

    seconds: float
    processor: float
    peak: int
    output: str = ""


def run(
    command: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    limit: float = LIMIT,
    codes: Sequence[int] = (0,),
) -> Ran:
    """Run a command in a process of its own.

    Raises:
        MeasurementError: it is not there, took longer than `limit` seconds, or ended with
            another exit code than `codes` allows.
    """
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        raise MeasurementError(f"{command[0]}: not installed")
    with tempfile.TemporaryDirectory(prefix="launch-") as scratch:
        output = Path(scratch, "output")
        own = [sys.executable, "-I", "-S", str(_LAUNCH), str(limit), str(output)]
        launched = subprocess.run(
            [*own, program, *command[1:]],
            cwd=folder,
            env=dict(environ),
            capture_output=True,
            text=True,
            check=False,
        )
        if launched.returncode:
            raise MeasurementError(f"{_shown(command)}: {launched.stderr.strip()}")
        said = output.read_text("utf-8", "replace")
    seconds, processor, peak, code = launched.stdout.split()
    ran = Ran(float(seconds), float(processor), int(peak), said)
    if int(code) not in codes:
        took = f" after {ran.seconds:.0f} s" if int(code) < 0 else ""
        tail = "\n".join(said.rstrip().splitlines()[-_SHOWN:])
        raise MeasurementError(f"{_shown(command)}: exit code {code}{took}\n{tail}")
    return ran


def _shown(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:]])[:200]


def clean_environ(scratch: Path) -> dict[str, str]:
    """Return our environment without settings, with a state home of the benchmark's own.

    The output cache is off, or nothing would be made a second time.

    Python keeps bytecode below `scratch`: else a package installed in editable mode might
    be compiled anew by every process, which pip has done for an installed one.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CODEGEN_", "DOIT_"))}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        kept.pop(name, None)
    own = {"XDG_STATE_HOME": "state-home", "PYTHONPYCACHEPREFIX": "bytecode"}
    folders = {name: str(scratch / folder) for name, folder in own.items()}
    return {**kept, **folders, "NO_COLOR": "1", "CODEGEN_OUTPUT_CACHE": "false"}


# Figures --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians of several runs of one thing: seconds, processor seconds, peak bytes."""

    seconds: float
    processor: float
    peak: float
    runs: int


def figure(samples: Iterable[Ran]) -> Figure:
    """Return the medians of samples, of which there must be one at least."""
    found = list(samples)
    return Figure(
        median(ran.seconds for ran in found),
        median(ran.processor for ran in found),
        median(ran.peak for ran in found),
        len(found),
    )


def milliseconds(seconds: float) -> str:
    """Return a time as whole milliseconds."""
    return f"{seconds * 1000:.0f} ms"


def duration(seconds: float) -> str:
    """Return a time with three significant digits, in the unit that suits it."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:.0f} s"


def memory(size: float) -> str:
    """Return an amount of memory in megabytes."""
    return f"{size / 1e6:.0f} MB"


# Tables ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header and rows of text; the first column is words, the others figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def plain(table: Table) -> str:
    """Return a table for a terminal."""
    rows = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join([table.title, "", lines[0], rule, *lines[1:], *("", *table.notes)]).rstrip()


def markdown(table: Table) -> str:
    """Return a table for a README."""
    rows = [table.header, [":--", *["--:"] * (len(table.header) - 1)], *table.rows]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"**{table.title}**", "", *lines, *("", *notes)]).rstrip()


# The machine ----------------------------------------------------------------------------


def tell(name: str, make: Callable[[], Table], render: Callable[[Table], str] = plain) -> int:
    """Print what a benchmark measures; return its exit code."""
    try:
        table = make()
    except MeasurementError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(render(table))
    return 0


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(runs: int) -> str:
    """Say on what was measured, and how often."""
    tools = [f"{name} {metadata.version(name)}" for name in ("doit", "jinja2")]
    where = [f"{cores()} cores", f"Python {platform.python_version()}", *tools]
    system = f"{platform.system()} {platform.machine()}"
    return f"{', '.join([*where, system])}; medians of {runs} runs"


def machine_facts() -> dict[str, Any]:
    """Return what the results say of the machine, nothing that tells whose it is."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": cores(),
        "processor": _processor(),
        "memory": _memory(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _memory() -> int:
    """Return the machine's memory in bytes; 0 where it cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


# The command line -----------------------------------------------------------------------


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


# What is fetched ------------------------------------------------------------------------


def fetched(name: str, requirements: Sequence[str]) -> Path:
    """Return a folder below the cache with packages from PyPI, without what they require.

    Raises:
        MeasurementError: pip cannot fetch them.
    """
    folder = CACHE / name
    if folder.exists():
        return folder
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        target = Path(scratch, name)
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
        pip(Path(sys.executable), [*options, "--target", str(target), *requirements])
        target.rename(folder)
    return folder


def pip(python: Path, arguments: Sequence[str]) -> None:
    """Run `pip install`.

    Raises:
        MeasurementError: it failed; the message is pip's last line.
    """
    command = [str(python), "-m", "pip", "install", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MeasurementError(f"pip install: {last}")
