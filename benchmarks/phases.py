"""phases: time each phase of `doit`, cold, warm and with nothing changed.

Everything runs as real `doit` processes in temporary copies of the project; what each one
printed as its summary is held against what it had to do, so that no figure can come of a
run that did less.  README.md tells what is measured and where the prototype's figures are
from.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import tomli_w
from measure import (
    ROOT,
    MeasurementError,
    Table,
    clean_environ,
    cores,
    machine,
    markdown,
    milliseconds,
    plain,
    positive,
)

PATTERNS = "templates/patterns"
#: Targets of the project that are not made from a pattern each: index.ts and runtime.ts, which
#: are compiled, and preview.html, which is not.
OTHER_TARGETS = 2
PAGES = 1
WORKERS = 3

COLD, WARM, UNCHANGED = STATES = ("cold", "warm", "nothing changed")
START = "Start-up"
TOTAL = "Total"
PARALLEL = f"doit -n {WORKERS}"
#: Row -> the arguments of `doit`, in the order in which they have to run.
PHASES: dict[str, tuple[str, ...]] = {
    "Templates": ("templates",),
    "Generation": ("generate",),
    "Compilation": ("compile",),
    "Output": ("output",),
}
#: What is run from one prepared state: all phases one after the other, or a whole run.
BUILDS: tuple[dict[str, tuple[str, ...]], ...] = (
    PHASES,
    {TOTAL: ()},
    {PARALLEL: ("-n", str(WORKERS))},
)

#: Milliseconds, from the prototype's own report (README.md); it had three patterns.
PROTOTYPE = {
    ("Templates", COLD): 567,
    ("Templates", WARM): 48,
    ("Compilation", UNCHANGED): 725,
    (TOTAL, COLD): 1665,
    (TOTAL, WARM): 1157,
}
PROTOTYPE_NOTE = (
    "prototype: whole run aimed at ~380 ms, stopped at 1163 ms;"
    " templates 567 -> 48 ms = 11.8x; three patterns of 300 ms in parallel 900 -> 330 ms = 2.7x"
)

#: (row, state) -> seconds, one of each run.
Samples: TypeAlias = dict[tuple[str, str], list[float]]


# Running doit ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """What one `doit` process came to: its wall-clock seconds, and the counts it summed up.

    Args:
        seconds: from starting the process to its end.
        generated, compiled, uptodate: targets.
        hits, misses: templates loaded from the cache, and parsed.
    """

    seconds: float
    generated: int = 0
    compiled: int = 0
    uptodate: int = 0
    hits: int = 0
    misses: int = 0


def doit(folder: Path, arguments: Sequence[str], environ: Mapping[str, str]) -> Done:
    """Run `doit` in a process of its own.

    Raises:
        MeasurementError: it failed.
    """
    command = [sys.executable, "-m", "doit", *arguments]
    start = time.perf_counter()
    ran = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if ran.returncode:
        said = (ran.stdout + ran.stderr).rstrip()
        raise MeasurementError(f"{shown(arguments)}: exit code {ran.returncode}\n{said}")
    return counted(seconds, ran.stdout)


def counted(seconds: float, output: str) -> Done:
    """Return the counts of the summary, the last line that a run prints."""
    last = (output.splitlines() or [""])[-1]

    def count(words: str) -> int:
        found = re.search(rf"(\d+) {words}\b", last)
        return int(found[1]) if found else 0

    return Done(
        seconds,
        count("generated"),
        count("compiled"),
        count("up to date"),
        count("hits?"),
        count("miss(?:es)?"),
    )


def shown(arguments: Sequence[str]) -> str:
    """Return a command as a user types it."""
    return " ".join(["doit", *arguments])


# The projects that are measured ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bench:
    """A copy of the project, and what a full build of it has to do.

    Args:
        folder: the copy.
        empty: a folder whose `dodo.py` has one task, without actions and without us.
        environ: variables of the processes.
        patterns, templates: how many files of each there are.
    """

    folder: Path
    empty: Path
    environ: Mapping[str, str]
    patterns: int
    templates: int

    @property
    def generated(self) -> int:
        """Generated files."""
        return self.compiled + PAGES

    @property
    def compiled(self) -> int:
        """Compiled files."""
        return self.patterns + OTHER_TARGETS


def make_bench(scratch: Path, patterns: int | None = None) -> Bench:
    """Copy the project into `scratch`; with `patterns`, so many varied copies of its own."""
    folder = scratch / f"project-{patterns or 'own'}"
    folder.mkdir()
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "templates", folder / "templates")
    if patterns is not None:
        scale(folder, patterns)
    templates = sum(1 for _ in (folder / "templates").rglob("*.j2"))
    found = sum(1 for _ in (folder / PATTERNS).glob("*.toml"))
    environ = clean_environ(scratch)
    return Bench(folder, make_empty(scratch), environ, found, templates)


def make_empty(scratch: Path) -> Path:
    """Return a project that has nothing to do, for the time that doit takes to start."""
    folder = scratch / "empty"
    folder.mkdir(exist_ok=True)
    text = 'def task_nothing():\n    return {"actions": []}\n'
    (folder / "dodo.py").write_text(text, encoding="utf-8")
    return folder


def scale(folder: Path, count: int) -> None:
    """Replace the patterns of a copy by `count` copies of them, each with other parameters."""
    library = folder / PATTERNS
    originals = {path.stem: path for path in sorted(library.glob("*.toml"))}
    sources = {stem: tomllib.loads(path.read_text("utf-8")) for stem, path in originals.items()}
    kinds = tomllib.loads((folder / "templates/nodes.toml").read_text("utf-8"))["kinds"]
    for path in originals.values():
        path.unlink()
    stems = list(sources)
    for number in range(count):
        stem = stems[number % len(stems)]
        data = varied(sources[stem], kinds, number)
        (library / f"{stem}-{number:05}.toml").write_text(tomli_w.dumps(data), encoding="utf-8")


def varied(pattern: Mapping[str, Any], kinds: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a pattern with a title and parameters of its own, all of them within range."""
    nodes = [
        {
            **node,
            "params": {
                name: other_value(value, kinds[node["kind"]]["params"][name], number)
                for name, value in node.get("params", {}).items()
            },
        }
        for node in pattern["nodes"]
    ]
    return {**pattern, "title": f"{pattern['title']} {number}", "nodes": nodes}


def other_value(value: Any, spec: Mapping[str, Any], number: int) -> Any:
    """Return another value of the same parameter; the same `number` always gives the same."""
    if spec["type"] == "color":
        return f"#{(int(value[1:], 16) + number * 4099) % (1 << 24):06x}"
    if spec["type"] == "number":
        moved = round(value * (1 + number % 97 / 1000), 4)
        return min(max(moved, spec.get("min", moved)), spec.get("max", moved))
    return value


# States and what must hold in them ------------------------------------------------------


def prepare(folder: Path, state: str) -> None:
    """Bring a project that was built into a state.

    Cold: no state folder, no outputs.  Warm: no outputs, and of the state folder only the
    template cache (database, manifest, logs and the compiler's own cache are gone).
    """
    if state == UNCHANGED:
        return
    templates, kept = folder / ".codegen/cache/templates", folder / "kept-templates"
    if state == WARM:
        templates.rename(kept)
    for name in (".codegen", "generated"):
        shutil.rmtree(folder / name, ignore_errors=True)
    if state == WARM:
        templates.parent.mkdir(parents=True)
        kept.rename(templates)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and mtime (ns) of every file: the same again only if none was written."""
    found = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {str(path): (info.st_ino, info.st_mtime_ns) for path, info in found}


def expected(bench: Bench, row: str, state: str) -> dict[str, int]:
    """Return the counts that the summary of a run has to have; those not named may be any."""
    nothing = {"generated": 0, "compiled": 0, "hits": 0, "misses": 0}
    whole = row in (TOTAL, PARALLEL)
    if state == UNCHANGED:
        return {**nothing, "uptodate": bench.generated + bench.compiled} if whole else nothing
    cold = {"misses": bench.templates}
    loaded = cold if state == COLD else {"hits": bench.templates, "misses": 0}
    if row == PARALLEL:  # several workers may load the same template
        loaded = {} if state == COLD else {"misses": 0}
    return {
        "Templates": {**nothing, **loaded},
        "Generation": {"generated": bench.generated, "compiled": 0, "misses": 0},
        "Compilation": {**nothing, "compiled": bench.compiled},
        "Output": nothing,
    }.get(row) or {"generated": bench.generated, "compiled": bench.compiled, **loaded}


def check(bench: Bench, row: str, state: str, done: Done) -> None:
    """Refuse a run that did less, or more, than its figure claims.

    Raises:
        MeasurementError: names the count.
    """
    for name, wanted in expected(bench, row, state).items():
        found = getattr(done, name)
        if found != wanted:
            raise MeasurementError(f"{row}, {state}: {name} is {found}, should be {wanted}")


# Measuring phases -----------------------------------------------------------------------


def measure(bench: Bench, runs: int) -> Samples:
    """Return the seconds of every row in every state, `runs` of each.

    Raises:
        MeasurementError: see `check`.
    """
    warm_up(bench)
    samples: Samples = defaultdict(list)
    for _ in range(runs):
        for state in STATES:
            samples[START, state].append(doit(bench.empty, (), bench.environ).seconds)
            for rows in BUILDS:
                for row, seconds in one_build(bench, state, rows):
                    samples[row, state].append(seconds)
    return samples


def warm_up(bench: Bench) -> None:
    """Fill the caches of Python and the operating system, which are warm in every state."""
    doit(bench.empty, (), bench.environ)
    prepare(bench.folder, COLD)
    for arguments in PHASES.values():
        doit(bench.folder, arguments, bench.environ)
    prepare(bench.folder, COLD)
    doit(bench.folder, ("-n", str(WORKERS), "generate"), bench.environ)


def one_build(
    bench: Bench, state: str, rows: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, float]]:
    """Bring the project into a state, then run one process a row; yield the seconds of each."""
    prepare(bench.folder, state)
    for row, arguments in rows.items():
        before = stamps(bench.folder) if state == UNCHANGED else {}
        done = doit(bench.folder, arguments, bench.environ)
        check(bench, row, state, done)
        if state == UNCHANGED and stamps(bench.folder) != before:
            raise MeasurementError(f"{row}, {state}: a file was written")
        yield row, done.seconds


# Measuring parallel generation ----------------------------------------------------------

_STEPS_DODO = '''\
"""Three patterns whose template takes {seconds} seconds: it {kind}s."""

import time

from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("step", template="step.txt.j2", patterns="patterns/*.toml", target="{{stem}}.txt")


@codegen.function
def wait(seconds):
    time.sleep(seconds)
    return ""


@codegen.function
def compute(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return ""


DOIT_CONFIG = codegen.doit_config
'''

KINDS = {
    "wait": "steps that sleep, as the prototype's did",
    "compute": "steps that compute",
}


def make_steps(scratch: Path, kind: str, seconds: float) -> Path:
    """Return a project with three patterns whose rendering takes so long; no compiler."""
    folder = scratch / f"steps-{kind}"
    for name in ("templates", "patterns"):
        (folder / name).mkdir(parents=True)
    dodo = _STEPS_DODO.format(kind=kind, seconds=seconds)
    (folder / "dodo.py").write_text(dodo, encoding="utf-8")
    template = f"{{{{ {kind}({seconds}) }}}}{{{{ name }}}}\n"
    (folder / "templates/step.txt.j2").write_text(template, encoding="utf-8")
    for name in ("bloom", "pulse", "spectrum"):
        (folder / f"patterns/{name}.toml").write_text(f'name = "{name}"\n', encoding="utf-8")
    return folder


@dataclass(frozen=True, slots=True)
class Generation:
    """Median seconds of generating three targets: in turn, in parallel, nothing to do."""

    serial: float
    parallel: float
    idle: float

    @property
    def ratio(self) -> float:
        """Whole processes."""
        return self.serial / self.parallel

    @property
    def ratio_of_work(self) -> float:
        """Without what the same process takes when there is nothing to do."""
        return (self.serial - self.idle) / (self.parallel - self.idle)


def measure_steps(folder: Path, runs: int, environ: Mapping[str, str]) -> Generation:
    """Time the generation of three targets whose template is in the cache.

    Raises:
        MeasurementError: a run did not do what its figure would claim.
    """
    serial, parallel = ("generate",), ("-n", str(WORKERS), "generate")
    doit(folder, serial, environ)
    plan = ((serial, WARM, 3), (serial, UNCHANGED, 0), (parallel, WARM, 3))
    seconds: dict[Any, list[float]] = defaultdict(list)
    for _ in range(runs):
        for arguments, state, count in plan:
            prepare(folder, state)
            done = doit(folder, arguments, environ)
            if (done.generated, done.misses) != (count, 0):
                what = f"generated {done.generated}, should be {count}"
                raise MeasurementError(f"{shown(arguments)}: {what}")
            seconds[arguments, state].append(done.seconds)
    medians = {key: median(values) for key, values in seconds.items()}
    return Generation(medians[serial, WARM], medians[parallel, WARM], medians[serial, UNCHANGED])


# Tables ---------------------------------------------------------------------------------


def phase_table(bench: Bench, samples: Samples, beside: bool) -> Table:
    """Return the prototype's table; with its own figures where they can stand beside ours."""
    columns = [column for state in STATES for column in (state, "prototype")[: 1 + beside]]

    def cells(row: str) -> Iterator[str]:
        for state in STATES:
            yield milliseconds(median(samples[row, state]))
            if beside:
                theirs = PROTOTYPE.get((row, state))
                yield f"{theirs} ms" if theirs is not None else "-"

    notes = [
        f"{START} is an empty doit; every other figure is a process of its own and includes it",
        *counts_notes(bench),
        *([PROTOTYPE_NOTE] if beside else []),
    ]
    rows = [[row, *cells(row)] for row in (START, *PHASES, TOTAL)]
    return Table(f"{bench.patterns} patterns", [" ", *columns], rows, notes)


def counts_notes(bench: Bench) -> list[str]:
    """Say what each run was made to prove by the counts in its summary."""
    made = f"{bench.generated} generated, {bench.compiled} compiled"
    return [
        f"{COLD}: {made}, {bench.templates} templates parsed",
        f"{WARM}: {made}, {bench.templates} templates from the cache, none parsed",
        f"{UNCHANGED}: {bench.generated + bench.compiled} up to date, none made, no file written",
    ]


def whole_table(measured: Sequence[tuple[Bench, Samples]]) -> Table:
    """Return whole runs, one after the other and parallel, as they are."""
    rows = [
        [f"{bench.patterns} patterns, {name}"]
        + [milliseconds(median(samples[row, state])) for state in STATES]
        for bench, samples in measured
        for row, name in ((TOTAL, "doit"), (PARALLEL, PARALLEL))
    ]
    return Table("Whole runs", [" ", *STATES], rows)


def steps_table(scratch: Path, runs: int, seconds: float, environ: Mapping[str, str]) -> Table:
    """Measure parallel generation and return its table.

    Args:
        scratch: where the projects are made.
        runs: of each kind.
        seconds: that one step takes.
        environ: variables of the processes.
    """
    rows = []
    for kind, words in KINDS.items():
        found = measure_steps(make_steps(scratch, kind, seconds), runs, environ)
        times = [milliseconds(value) for value in (found.serial, found.parallel, found.idle)]
        rows.append([words, *times, f"{found.ratio:.1f}x", f"{found.ratio_of_work:.1f}x"])
    rows.append(["prototype, steps of 300 ms", "900 ms", "330 ms", "-", "-", "2.7x"])
    return Table(
        f"Generation alone, 3 patterns, steps of {milliseconds(seconds)}",
        [" ", "doit generate", f"{PARALLEL} generate", "nothing to do", "ratio", "of the work"],
        rows,
        [
            "of the work: without what the process takes when there is nothing to do",
            f"steps that compute share the processors, {cores()} here, and cannot gain more",
        ],
    )


# The command ----------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=positive, default=5, help="runs of each figure (5)")
    parser.add_argument(
        "--patterns", type=positive, help="measure a project of so many patterns too"
    )
    parser.add_argument(
        "--step",
        type=positive,
        default=300,
        metavar="MS",
        help="length of a step in parallel generation, milliseconds (300)",
    )
    parser.add_argument("--markdown", action="store_true", help="print tables for a README")
    return parser.parse_args()


def report(scratch: Path, chosen: argparse.Namespace) -> list[Table]:
    """Measure everything and return its tables.

    Raises:
        MeasurementError: a run did not do what its figure would claim.
    """
    sizes = [None, *([chosen.patterns] if chosen.patterns else [])]
    benches = [make_bench(scratch, size) for size in sizes]
    measured = [(bench, measure(bench, chosen.runs)) for bench in benches]
    tables = [
        phase_table(bench, samples, beside=index == 0)
        for index, (bench, samples) in enumerate(measured)
    ]
    steps = steps_table(scratch, chosen.runs, chosen.step / 1000, benches[0].environ)
    return [*tables, whole_table(measured), steps]


def main() -> int:
    """Measure and print; return the exit code."""
    chosen = arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="phases-") as scratch:
            tables = report(Path(scratch), chosen)
    except MeasurementError as error:
        print(f"phases: {error}", file=sys.stderr)
        return 1
    form = markdown if chosen.markdown else plain
    print("\n\n".join([machine(chosen.runs), *map(form, tables)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
