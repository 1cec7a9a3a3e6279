"""compare: time us and other tools side by side on one generated pattern library.

The tools take turns within each case, so that what else the machine does meets them all.
After every run it is counted what it made and changed: a run that did less, or more, than its
figure claims ends the benchmark.  README.md tells what is measured, and how.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import compiles
import measure
import page
import phases
import workload
from measure import MeasurementError, Ran
from workload import CASES, LOOP, NINJA, OURS, TOOLS, Tool

import templates

SIZES = (100, 1_000, 10_000, 100_000)
QUICK = (100, 1_000)
#: The most patterns -> runs of each figure, for those that do not take too long.
RUNS = {1_000: 5, 10_000: 3, 100_000: 1}
#: Seconds a tool may spend on the runs of one case, after which one run must do.
BUDGET = 15.0
QUICK_BUDGET = 1.0
RESULTS = measure.ROOT / "benchmarks" / "results"
DOCS = measure.ROOT / "docs"

STEPS, TEMPLATES, COMPILES, DATABASE = PARTS = ("steps", "templates", "compiles", "database")
#: What pip installs beside the tools: what their projects need, in the versions that we run on.
_PEERS = ("ninja", "scons", "pytask")
_SAME = ("doit", "jinja2")


# The tools ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peers:
    """Where the other tools are.

    Args:
        python: an interpreter that has doit and Jinja2, and not us.
        programs: the folder it lies in, with the programs that pip installed.
        missing: key of a tool -> why it is left out.
    """

    python: Path
    programs: Path
    missing: Mapping[str, str] = field(default_factory=dict)


def find_peers() -> Peers:
    """Return the other tools, installed below the cache folder at the first time.

    Where they cannot be installed, those that need nothing but doit and Jinja2 run with our
    interpreter.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = measure.CACHE / f"peers-{version}"
    python = _programs(folder) / Path(sys.executable).name
    missing = {} if shutil.which("make") else {workload.MAKE: "make is not installed"}
    try:
        if not folder.exists():
            _install(folder, python)
    except MeasurementError as error:
        missing |= dict.fromkeys((NINJA, workload.SCONS, workload.PYTASK), str(error))
        return Peers(Path(sys.executable), Path(sys.executable).parent, missing)
    return Peers(python, python.parent, missing)


def _programs(folder: Path) -> Path:
    return folder / ("Scripts" if os.name == "nt" else "bin")


def _install(folder: Path, python: Path) -> None:
    print("installing the other tools", file=sys.stderr)
    try:
        venv.create(folder, with_pip=True)
        same = [f"{name}=={metadata.version(name)}" for name in _SAME]
        measure.pip(python, ["--quiet", "--disable-pip-version-check", *_PEERS, *same])
    except (MeasurementError, OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise MeasurementError(str(error)) from None


def versions(peers: Peers) -> dict[str, str]:
    """Return the version of every tool that is there, as people know it."""
    asked = (
        "import importlib.metadata as m, json, sys\n"
        "known = {d.name.lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: known[n] for n in sys.argv[1:] if n in known}))"
    )
    command = [str(peers.python), "-c", asked, *_PEERS, *_SAME]
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    found = json.loads(subprocess.check_output(command, env=environ, text=True))
    if workload.MAKE not in peers.missing:
        said = subprocess.check_output(["make", "--version"], text=True)
        found["make"] = said.splitlines()[0].split()[-1]
    return {"codegen-tasks": metadata.version("codegen-tasks"), **found}


# One project ----------------------------------------------------------------------------


@dataclass(slots=True)
class Project:
    """A tool's project, and what has been done in it.

    Args:
        folder: of the project.
        tool: whose it is.
        count: patterns.
        peers: where the programs are.
        environ: variables of the processes.
        reference: digest of all targets as the loop makes them; "" if it is not known.
        built: it has been built.
        settled: nothing was done since a run that had nothing to do.
        turn: how often it was edited.
    """

    folder: Path
    tool: Tool
    count: int
    peers: Peers
    environ: Mapping[str, str]
    reference: str = ""
    built: bool = False
    settled: bool = False
    turn: int = 0

    def run(self, case: str) -> Ran:
        """Run the tool's command of a case."""
        values = {
            "ours": sys.executable,
            "python": self.peers.python,
            "peers": self.peers.programs,
            "selected": f"{workload.OUTPUT}/{workload.stem(self.edited)}.ts",
            "task": workload.stem(self.edited),
        }
        command = [word.format(**values) for word in self.tool.commands[case].split()]
        return measure.run(command, self.folder, self.environ)

    @property
    def edited(self) -> int:
        """The pattern that is edited, and whose target is selected."""
        return self.count // 2

    def sample(self, case: str) -> Ran:
        """Bring the project into the state of a case, run its command, and check what it did.

        Raises:
            MeasurementError: it failed, or did less or more than it should.
        """
        if case in (workload.COLD, workload.COLD_2):
            workload.make_cold(self.folder, self.tool)
        else:
            self._settle()
            self._edit(case)
        before, kept = self._targets(), self._state()
        ran = self.run(case)
        self._check(case, before, ran)
        if self.tool.key == OURS and case in _IDLE and self._state() != kept:
            raise MeasurementError(f"{self._where(case)}: the state folder was written")
        self.built = True
        self.settled = case in _IDLE
        return ran

    def _settle(self) -> None:
        """Build what is stale, unmeasured, and give the tool a run that has nothing to do."""
        if not self.built:
            self._build()
        if not self.settled:
            self.run(workload.NOTHING)
        self.built = self.settled = True

    def _build(self) -> None:
        """Build everything, unmeasured.

        A tool that starts a process for each target finds the loop's targets; if it keeps a
        record, an empty `step` too: it does what it does when it builds, without the work.
        """
        if not self.tool.processes:
            self.run(workload.NOTHING)
            return
        measure.run([str(self.peers.python), "loop.py"], self.folder, self.environ)
        if self.tool.state:
            step = self.folder / "step"
            text = step.read_text("utf-8")
            step.write_text("", encoding="utf-8")
            self.run(workload.COLD_2)
            step.write_text(text, encoding="utf-8")

    def _edit(self, case: str) -> None:
        self.turn += 1
        if case in (workload.MACRO, workload.MACRO_2):
            workload.edit_macro(self.folder, self.turn)
        if case in (workload.PATTERN, workload.SELECTED_EDITED):
            workload.edit_pattern(self.folder, self.edited, self.turn)
        if case == workload.SELECTED_EDITED:
            workload.edit_pattern(self.folder, 0, self.turn)

    # Checks -----------------------------------------------------------------------------

    def _targets(self) -> dict[str, tuple[int, int]]:
        return _stamps(self.folder / workload.OUTPUT)

    def _state(self) -> dict[str, tuple[int, int]]:
        folder = self.folder / ".codegen"
        found = (path for path in folder.rglob("*") if path.is_file())
        return {str(path): _stamp(path.stat()) for path in found}

    def _check(self, case: str, before: Mapping[str, Any], ran: Ran) -> None:
        after = self._targets()
        changed = {name for name, stamp in after.items() if before.get(name) != stamp}
        wanted = self._wanted(case)
        if changed != wanted or len(after) != (self.count if self.tool.makes else 0):
            what = f"{len(changed)} of {len(after)} targets were made, should be {len(wanted)}"
            raise MeasurementError(f"{self._where(case)}: {what}")
        if self.tool.key == OURS and case not in (workload.INFO, workload.LIST):
            said = phases.counted(0, ran.output).generated
            if said != len(wanted):
                what = f"it says that it generated {said}, should be {len(wanted)}"
                raise MeasurementError(f"{self._where(case)}: {what}")
        if case in (workload.COLD, workload.COLD_2):
            self._check_bytes(case)
        elif wanted:
            self._check_edit(case)

    def _wanted(self, case: str) -> set[str]:
        """Return the targets that a case's run has to make."""
        if not self.tool.makes or case in _IDLE:
            return set()
        if case in (workload.PATTERN, workload.SELECTED_EDITED):
            return {f"{workload.stem(self.edited)}.ts"}
        return {f"{workload.stem(number)}.ts" for number in range(self.count)}

    def _check_bytes(self, case: str) -> None:
        found = content(self.folder / workload.OUTPUT)
        if self.reference and found != self.reference:
            raise MeasurementError(f"{self._where(case)}: its targets differ from the loop's")

    def _check_edit(self, case: str) -> None:
        target = self.folder / workload.OUTPUT / f"{workload.stem(self.edited)}.ts"
        macro = case in (workload.MACRO, workload.MACRO_2)
        sign = f"// {self.turn}:" if macro else f"edited {self.turn} times"
        if sign not in target.read_text("utf-8"):
            raise MeasurementError(f"{self._where(case)}: the edit is not in {target.name}")

    def _where(self, case: str) -> str:
        return f"{self.tool.label}, {workload.TITLES[case]}, {self.count:,} patterns"


_IDLE = (workload.NOTHING, workload.SELECTED, workload.INFO, workload.LIST)


def _stamp(info: os.stat_result) -> tuple[int, int]:
    return (info.st_ino, info.st_mtime_ns)


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and mtime (ns) of each target: the same again only if it was not made."""
    try:
        with os.scandir(folder) as items:
            return {item.name: _stamp(item.stat()) for item in items if item.name.endswith(".ts")}
    except FileNotFoundError:
        return {}


def content(folder: Path) -> str:
    """Return one digest of the names and bytes of all targets in a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.ts")):
        found.update(f"{path.name}\n".encode() + path.read_bytes())
    return found.hexdigest()


# All of them ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured.

    Args:
        sizes: numbers of patterns.
        tools: keys of the tools.
        cases: of the tools.
        runs: of each figure; 0: as many as `RUNS` says.
        budget: seconds for a tool's runs of one case.
        quick: leave out what takes long.
    """

    sizes: Sequence[int]
    tools: Sequence[str]
    cases: Sequence[str]
    runs: int
    budget: float
    quick: bool = False

    def has(self, tool: Tool, count: int, peers: Peers) -> bool:
        """Tell whether a tool has anything to do with so many patterns."""
        if tool.key not in self.tools or tool.key in peers.missing:
            return False
        return not all(tool.reason_against(case, count, self.quick) for case in self.cases)

    def runs_at(self, count: int) -> int:
        """Return how often each figure is measured with so many patterns."""
        return self.runs or next((runs for most, runs in RUNS.items() if count <= most), 1)


def compare(wanted: Wanted, peers: Peers) -> dict[str, Any]:
    """Measure; return figures and what is left out, as JSON can hold them.

    Raises:
        MeasurementError: a run failed, or did not do what its figure would claim.
    """
    figures: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for count in wanted.sizes:
        with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
            projects = make_projects(Path(scratch), count, wanted, peers)
            for case in wanted.cases:
                left_out += _left_out(count, case, wanted, peers)
                for tool, runs in measure_case(projects, case, wanted):
                    samples = [[ran.seconds, ran.processor, ran.peak] for ran in runs]
                    figures.append(_row(count, case, tool, runs=samples))
    missing = {key: why for key, why in peers.missing.items() if key in wanted.tools}
    return {"figures": figures, "left_out": left_out, "missing": missing}


def _left_out(count: int, case: str, wanted: Wanted, peers: Peers) -> Iterator[dict[str, Any]]:
    for tool in TOOLS:
        if tool.makes and tool.key in wanted.tools and tool.key not in peers.missing:
            why = tool.reason_against(case, count, wanted.quick)
            if why:
                yield _row(count, case, tool, reason=why)


def _row(count: int, case: str, tool: Tool, **more: Any) -> dict[str, Any]:
    return {"size": count, "case": case, "tool": tool.key, **more}


def make_projects(scratch: Path, count: int, wanted: Wanted, peers: Peers) -> list[Project]:
    """Make the projects of all chosen tools, and warm Python's own caches up.

    The loop's is made in any case: its targets are what the others' are held against.
    """
    environ = measure.clean_environ(scratch)
    foreign = {k: v for k, v in environ.items() if k != "PYTHONPATH"}
    projects = []
    for tool in TOOLS:
        if tool.key != LOOP and not wanted.has(tool, count, peers):
            continue
        for folder, number in ((scratch / "warm" / tool.key, 2), (scratch / tool.key, count)):
            own = environ if tool.key == OURS else foreign
            project = Project(folder, tool, number, peers, own)
            patterns = number if tool.makes else 0
            workload.make_project(folder, tool, patterns, str(peers.python))
            if number == 2:
                _warm_up(project, wanted.cases)
        projects.append(project)
    loop = next(one for one in projects if one.tool.key == LOOP)
    loop.run(workload.COLD)
    reference = content(loop.folder / workload.OUTPUT)
    for project in projects:
        project.reference = reference if project.tool.makes else ""
    return [one for one in projects if one.tool.key in wanted.tools]


def _warm_up(project: Project, cases: Sequence[str]) -> None:
    """Let a tool do everything once on two patterns: Python keeps its bytecode."""
    for case in cases:
        if case in project.tool.commands:
            project.run(case)


def measure_case(
    projects: Sequence[Project], case: str, wanted: Wanted
) -> Iterator[tuple[Tool, list[Ran]]]:
    """Run the tools in turn; yield each with its runs, of which there is one at least."""
    able = [one for one in projects if not one.tool.reason_against(case, one.count, wanted.quick)]
    found: dict[str, list[Ran]] = defaultdict(list)
    for _ in range(wanted.runs_at(able[0].count) if able else 0):
        for project in able:
            runs = found[project.tool.key]
            if sum(ran.seconds for ran in runs) < wanted.budget:
                runs.append(project.sample(case))
    for project in able:
        runs = found[project.tool.key]
        middle = measure.figure(runs)
        took = f"{measure.duration(middle.seconds)}, {measure.memory(middle.peak)}"
        say(f"{project.count:>7,}  {case:<16} {project.tool.label:<20} {took}, {len(runs)} runs")
        yield project.tool, runs


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


# What is measured besides ---------------------------------------------------------------


def measure_parts(parts: Sequence[str], count: int, quick: bool) -> dict[str, Any]:
    """Measure parallel generation, template suites, compile batches, and the database."""
    found: dict[str, Any] = {}
    if STEPS in parts:
        say("three slow patterns")
        found[STEPS] = _steps(1 if quick else 5)
    if TEMPLATES in parts:
        say("template suites")
        suites = [templates.SUITES[0].name] if quick else []
        measured = templates.measure_all(3 if quick else 9, suites)
        found[TEMPLATES] = [loads.as_data() for loads in measured]
    if COMPILES in parts and not shutil.which("deno", path=_beside()):
        say("compile batches: left out, deno is not installed")
    elif COMPILES in parts:
        say("compile batches")
        sizes = compiles.SIZES[1:2] if quick else compiles.SIZES
        found[COMPILES] = compiles.measure_all(sizes, 1 if quick else 3)
    if DATABASE in parts:
        say("the database of a run that has nothing to do")
        found[DATABASE] = measure_database(count)
    return found


def _beside() -> str:
    return os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath)


def _steps(runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="steps-") as scratch:
        environ = measure.clean_environ(Path(scratch))
        found = {
            kind: phases.measure_steps(phases.make_steps(Path(scratch), kind, 0.3), runs, environ)
            for kind in phases.KINDS
        }
    return {
        kind: {"serial": one.serial, "parallel": one.parallel, "idle": one.idle}
        for kind, one in found.items()
    }


#: Runs doit, and prints what of the state folder Python or SQLite opened.
_WATCHED = """\
import json, os, sys
opened = []
def hook(event, given):
    if event in ("open", "sqlite3.connect"):
        opened.append(os.fsdecode(given[0]) if isinstance(given[0], bytes) else str(given[0]))
sys.addaudithook(hook)
from doit.doit_cmd import DoitMain
code = DoitMain().run([])
print(json.dumps([name for name in opened if ".codegen" in name]))
sys.exit(code)
"""
#: Prints the seconds that opening the database and looking for a task in it takes, and its rows.
_OPENED = """\
import json, sys, time
sys.path.insert(0, ".")
from doit.dependency import JSONCodec
from dodo import DOIT_CONFIG
from codegen_tasks.state import StateDB
start = time.perf_counter()
database = StateDB(DOIT_CONFIG["dep_file"], JSONCodec())
database.in_("nothing")
print(json.dumps([time.perf_counter() - start, DOIT_CONFIG["dep_file"], len(database.tasks())]))
"""


def measure_database(count: int) -> dict[str, Any]:
    """Return whether a run that has nothing to do opens the database, and how long that takes."""
    peers = Peers(Path(sys.executable), Path(sys.executable).parent)
    ours = next(tool for tool in TOOLS if tool.key == OURS)
    with tempfile.TemporaryDirectory(prefix="database-") as scratch:
        environ = measure.clean_environ(Path(scratch))
        project = Project(Path(scratch, "project"), ours, count, peers, environ)
        workload.make_project(project.folder, ours, count, sys.executable)
        project.sample(workload.NOTHING)
        watched = measure.run([sys.executable, "-c", _WATCHED], project.folder, environ)
        runs = [
            measure.run([sys.executable, "-c", _OPENED], project.folder, environ) for _ in range(3)
        ]
    opened = json.loads(watched.output.splitlines()[-1])
    seconds, name, rows = sorted(json.loads(ran.output.splitlines()[-1]) for ran in runs)[1]
    base = os.path.basename(name)
    return {
        "patterns": count,
        "rows": rows,
        "opened": any(base in path for path in opened),
        "seconds": seconds,
    }


# The command ----------------------------------------------------------------------------


def _listed(known: Sequence[str]) -> Any:
    def read(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r} among {', '.join(known)}")
        return names

    return read


def _sizes(text: str) -> list[int]:
    return [measure.positive(word) for word in text.replace("_", "").split(",")]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    keys = [tool.key for tool in TOOLS]
    parser.add_argument("--sizes", type=_sizes, metavar="N,...", help="numbers of patterns")
    parser.add_argument("--runs", type=measure.positive, default=0, help="runs of each figure")
    parser.add_argument("--only", type=_listed(keys), default=keys, metavar="TOOL,...")
    parser.add_argument(
        "--cases",
        type=_listed([*CASES, *PARTS]),
        default=[*CASES, *PARTS],
        metavar="CASE,...",
        help=f"of {', '.join([*CASES, *PARTS])}",
    )
    parser.add_argument("--quick", action="store_true", help="100 and 1,000 patterns, few runs")
    parser.add_argument("--write", action="store_true", help="write the page and plots in docs/")
    parser.add_argument("--docs", type=Path, default=DOCS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="the file for the results, JSON")
    parser.add_argument("--load", type=Path, metavar="FILE", help="measure nothing, read results")
    return parser.parse_args(given)


def measured(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure all that was chosen; return the results."""
    sizes = chosen.sizes or (QUICK if chosen.quick else SIZES)
    cases = [case for case in CASES if case in chosen.cases]
    runs = chosen.runs or (2 if chosen.quick else 0)
    budget = QUICK_BUDGET if chosen.quick else BUDGET
    start = datetime.now(UTC)
    peers = find_peers()
    for key, why in peers.missing.items():
        say(f"{key}: left out, {why}")
    parts = [part for part in PARTS if part in chosen.cases]
    found = compare(Wanted(sizes, chosen.only, cases, runs, budget, chosen.quick), peers)
    most = max((size for size in sizes if size <= 10_000), default=min(sizes))
    return {
        "date": start.isoformat(timespec="seconds"),
        "machine": measure.machine_facts(),
        "versions": versions(peers),
        **found,
        **measure_parts(parts, most, chosen.quick),
        "took": round((datetime.now(UTC) - start).total_seconds()),
    }


def main() -> int:
    """Measure, keep the results, print tables, write the docs; return the exit code."""
    chosen = arguments()
    try:
        results = json.loads(chosen.load.read_text("utf-8")) if chosen.load else measured(chosen)
    except MeasurementError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    if not chosen.load:
        stamp = results["date"].replace(":", "")[:17]
        path = chosen.out or RESULTS / f"{stamp}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        say(f"results: {path}")
    print(page.plain(results))
    if chosen.write:
        page.write(results, chosen.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
