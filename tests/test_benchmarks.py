"""benchmarks/: tables and plots have their shape, and no figure stands for a run that cheated.

Counts and shapes only: how long anything takes is nobody's promise.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

#: Nobody runs benchmarks but developers, on one Python.
pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "phases.py"
SEARCH_PATH = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
NEEDS_DENO = pytest.mark.skipif(
    shutil.which("deno", path=SEARCH_PATH) is None, reason="deno is not installed"
)
ROWS = ["Start-up", "Templates", "Generation", "Compilation", "Output", "Total"]
OWN = len(list((ROOT / "templates/patterns").glob("*.toml")))
TEMPLATES = len(list((ROOT / "templates").rglob("*.j2")))


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], ModuleType]]:
    """Return what imports a module of the benchmarks, which lie in no package."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)
    for name, module in list(sys.modules.items()):
        if os.path.dirname(getattr(module, "__file__", None) or "") == folder:
            del sys.modules[name]


@pytest.fixture(scope="module")
def phases(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("phases")


@pytest.fixture(scope="module")
def measure(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("measure")


@pytest.fixture(scope="module")
def workload(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("workload")


@pytest.fixture(scope="module")
def compare(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("compare")


@pytest.fixture(scope="module")
def page(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("page")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--runs", "1", "--step", "20", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def section(text: str, title: str) -> list[str]:
    """Return the lines of one table and its notes."""
    lines = text.splitlines()
    start = lines.index(title)
    titles = (f"{OWN} patterns", "7 patterns", "Whole runs", "Generation alone")
    ends = [n for n, line in enumerate(lines) if n > start and line.startswith(titles)]
    ends = [n for n in ends if not re.search(r"\d ms$", lines[n])]
    return lines[start : ends[0] if ends else None]


@pytest.fixture(scope="module")
def printed(once: Callable[..., Path]) -> str:
    """Run the benchmark small; return what it prints."""

    def measured(folder: Path) -> None:
        done = run("--patterns", "7")
        assert (done.returncode, done.stderr) == (0, "")
        (folder / "printed").write_text(done.stdout)

    return (once("phases", measured) / "printed").read_text()


@pytest.mark.slow
@NEEDS_DENO
def test_the_table_has_the_prototypes_rows_and_columns_and_its_figures(printed: str) -> None:
    _, _, header, _, *lines = section(printed, f"{OWN} patterns")

    rows = [cells(line) for line in lines[: len(ROWS)]]
    theirs = "prototype"
    assert cells(header) == ["cold", theirs, "warm", theirs, "nothing changed", theirs]
    assert [row[0] for row in rows] == ROWS
    assert all(re.fullmatch(r"[1-9]\d* ms", cell) for row in rows for cell in row[1::2])
    assert {row[0]: row[2::2] for row in rows} == {
        "Start-up": ["-", "-", "-"],
        "Templates": ["567 ms", "48 ms", "-"],
        "Generation": ["-", "-", "-"],
        "Compilation": ["-", "-", "725 ms"],
        "Output": ["-", "-", "-"],
        "Total": ["1665 ms", "1157 ms", "-"],
    }
    assert "1163 ms" in lines[-2] + lines[-1]


@pytest.mark.slow
@NEEDS_DENO
@pytest.mark.parametrize("patterns", [OWN, 7])
def test_cold_makes_everything_and_a_run_with_nothing_changed_makes_nothing(
    printed: str, patterns: int
) -> None:
    lines = section(printed, f"{patterns} patterns")

    count = patterns + 2  # index.ts and runtime.ts
    made = f"{count + 1} generated, {count} compiled"  # and preview.html
    assert f"cold: {made}, {TEMPLATES} templates parsed" in lines
    assert f"warm: {made}, {TEMPLATES} templates from the cache, none parsed" in lines
    assert f"nothing changed: {2 * count + 1} up to date, none made, no file written" in lines


@pytest.mark.slow
@NEEDS_DENO
def test_whole_runs_and_generation_alone_are_shown_serial_and_parallel(printed: str) -> None:
    lines = section(printed, "Whole runs")
    names = [cells(line)[0] for line in lines[4:8]]
    runs = [f"{n} patterns, {command}" for n in (OWN, 7) for command in ("doit", "doit -n 3")]
    assert names == runs

    _, _, header, _, *rows = section(printed, "Generation alone, 3 patterns, steps of 20 ms")
    assert cells(header)[-2:] == ["ratio", "of the work"]
    assert [cells(row)[0].split(",")[0] for row in rows[:3]] == [
        "steps that sleep",
        "steps that compute",
        "prototype",
    ]
    assert cells(rows[2])[1:] == ["900 ms", "330 ms", "-", "-", "2.7x"]


def test_a_run_that_did_less_than_its_figure_claims_is_refused(phases: ModuleType) -> None:
    bench = phases.Bench(Path(), Path(), {}, patterns=3, templates=18)
    summary = "6 generated, 4 compiled, 1 up to date in 0.31 s (templates 18 misses)"
    done = phases.counted(0.5, f".  compile:bloom.js\n{summary}\n")

    with pytest.raises(phases.MeasurementError) as caught:
        phases.check(bench, "Total", "cold", done)
    assert str(caught.value) == "Total, cold: compiled is 4, should be 5"


@pytest.mark.parametrize(
    ("row", "state", "summary"),
    [
        ("Templates", "cold", "nothing to do in 0.09 s (templates 18 misses)"),
        ("Templates", "warm", "nothing to do in 0.05 s (templates 18 hits)"),
        ("Generation", "cold", "6 generated in 0.07 s (templates 15 hits)"),
        ("Compilation", "warm", "5 compiled, 6 up to date in 0.90 s"),
        ("Output", "cold", "11 up to date in 0.04 s"),
        ("Total", "cold", "6 generated, 5 compiled in 1.06 s (templates 18 misses)"),
        ("Total", "warm", "6 generated, 5 compiled in 1.01 s (templates 18 hits)"),
        ("Total", "nothing changed", "11 up to date in 0.05 s"),
        ("doit -n 3", "cold", "6 generated, 5 compiled in 1.2 s (templates 15 hits, 19 misses)"),
    ],
)
def test_a_run_that_did_all_its_figure_claims_is_accepted(
    phases: ModuleType, row: str, state: str, summary: str
) -> None:
    bench = phases.Bench(Path(), Path(), {}, patterns=3, templates=18)

    phases.check(bench, row, state, phases.counted(0.5, summary))


def test_the_scaled_library_has_patterns_that_all_differ_and_are_always_the_same(
    phases: ModuleType, tmp_path: Path
) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        bench = phases.make_bench(tmp_path / name, 30)
        paths = sorted((bench.folder / "templates/patterns").iterdir())
        made.append({path.name: path.read_text("utf-8") for path in paths})

    assert bench.patterns == len(made[0]) == 30
    assert made[0] == made[1]
    specs = [tomllib.loads(text) for text in made[0].values()]
    assert len({repr(spec["nodes"]) for spec in specs}) == 30
    assert len({spec["title"] for spec in specs}) == 30


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_runs_must_be_a_whole_number_from_1(value: str) -> None:
    done = run("--runs", value)

    assert done.returncode == 2
    assert f"argument --runs: must be a whole number from 1, not '{value}'" in done.stderr


@pytest.mark.parametrize("form", ["plain", "markdown"])
def test_tables_are_aligned_text_or_markdown(phases: ModuleType, form: str) -> None:
    table = phases.Table("3 patterns", [" ", "cold"], [["Output", "5 ms"], ["Total", "12 ms"]])

    expected = {
        "plain": "3 patterns\n\n         cold\n-------------\nOutput   5 ms\nTotal   12 ms",
        "markdown": "**3 patterns**\n\n|   | cold |\n| :-- | --: |\n"
        "| Output | 5 ms |\n| Total | 12 ms |",
    }
    assert getattr(phases, form)(table) == expected[form]


# What all benchmarks share ---------------------------------------------------------------


def test_a_program_is_not_charged_with_the_memory_of_who_measures_it(
    measure: ModuleType, tmp_path: Path
) -> None:
    ballast = b"x" * 200_000_000

    ran = measure.run([sys.executable, "-S", "-c", "print(1)"], tmp_path, dict(os.environ))

    assert ran.output == "1\n"
    assert 0 < ran.peak < len(ballast) / 2


def test_what_a_program_starts_counts_as_its_own(measure: ModuleType, tmp_path: Path) -> None:
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'b\\'x\\' * 10**8'])"

    ran = measure.run([sys.executable, "-c", inner], tmp_path, dict(os.environ))

    assert ran.peak > 10**8


@pytest.mark.parametrize(
    ("code", "limit", "said"),
    [
        ("print('why'); raise SystemExit(3)", 120, "exit code 3\nwhy"),
        ("while 1: pass", 0.2, "exit code -9"),
    ],
)
def test_a_command_that_fails_or_never_ends_has_no_figure(
    measure: ModuleType, tmp_path: Path, code: str, limit: float, said: str
) -> None:
    with pytest.raises(measure.MeasurementError) as caught:
        measure.run([sys.executable, "-c", code], tmp_path, dict(os.environ), limit=limit)

    assert said in str(caught.value)


# The comparison --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peers(compare: ModuleType) -> Any:
    """Return what is there without the network: our own Python, and make."""
    missing = dict.fromkeys(("ninja", "scons", "pytask"), "not asked for")
    return compare.Peers(Path(sys.executable), Path(sys.executable).parent, missing)


def a_project(
    compare: ModuleType, workload: ModuleType, folder: Path, peers: Any, **commands: str
) -> Any:
    """Make a project of three patterns for a tool that does what it is told."""
    tool = workload.Tool("loop", "a tool", {k.replace("_", "-"): v for k, v in commands.items()})
    workload.make_project(folder / "project", tool, 3, sys.executable)
    return compare.Project(folder / "project", tool, 3, peers, dict(os.environ))


def test_a_pattern_has_41_lines_and_an_edit_changes_its_title_alone(workload: ModuleType) -> None:
    text = workload.pattern_text(7)

    assert len(text.splitlines()) == 41
    one, two = tomllib.loads(text), tomllib.loads(workload.pattern_text(7, turn=2))
    assert {key for key in one if one[key] != two[key]} == {"title"}


@pytest.mark.slow
def test_tools_are_compared_on_the_same_targets_and_every_case_is_checked(
    compare: ModuleType, workload: ModuleType, peers: Any
) -> None:
    tools = ["us", "loop", "doit", "make", "ninja"]
    cases = ["cold", "nothing", "pattern", "macro-2"]

    found = compare.compare(compare.Wanted([3], tools, cases, runs=1, budget=9), peers)

    measured = {(row["case"], row["tool"]) for row in found["figures"]}
    there = ["us", "doit", *(["make"] if shutil.which("make") else [])]
    assert measured == {("cold", "loop"), *((case, tool) for case in cases for tool in there)}
    assert all(len(row["runs"]) == 1 and row["size"] == 3 for row in found["figures"])
    assert all(
        seconds > 0 and peak > 10**6 for row in found["figures"] for seconds, _, peak in row["runs"]
    )
    assert found["missing"] == {"ninja": "not asked for"}
    why = {(row["case"], row["tool"]): row["reason"] for row in found["left_out"]}
    assert why["nothing", "loop"] == "it remembers nothing: always as long as cold"


@pytest.mark.parametrize(
    ("case", "command", "said"),
    [
        ("cold", "true", "cold, serial, 3 patterns: 0 of 0 targets were made, should be 3"),
        ("nothing", "{python} loop.py", "3 of 3 targets were made, should be 0"),
        ("pattern", "true", "0 of 3 targets were made, should be 1"),
        ("pattern", "{python} loop.py", "3 of 3 targets were made, should be 1"),
        ("macro", "{python} render.py templates/patterns/p000001.toml {selected}", "1 of 3"),
    ],
)
def test_a_tool_that_did_less_or_more_than_its_figure_claims_is_refused(
    compare: ModuleType,
    workload: ModuleType,
    measure: ModuleType,
    peers: Any,
    tmp_path: Path,
    case: str,
    command: str,
    said: str,
) -> None:
    project = a_project(compare, workload, tmp_path, peers, **{"nothing": "true", case: command})
    subprocess.run([sys.executable, "loop.py"], cwd=project.folder, check=True)
    project.built = project.settled = True

    with pytest.raises(measure.MeasurementError) as caught:
        project.sample(case)
    assert said in str(caught.value)


def test_a_tool_that_makes_other_bytes_than_the_loop_is_refused(
    compare: ModuleType, workload: ModuleType, measure: ModuleType, peers: Any, tmp_path: Path
) -> None:
    project = a_project(compare, workload, tmp_path, peers, cold="{python} loop.py")
    project.sample("cold")
    project.reference = compare.content(project.folder / "generated")
    project.sample("cold")

    workload.edit_macro(project.folder, 1)
    with pytest.raises(measure.MeasurementError) as caught:
        project.sample("cold")
    assert str(caught.value).endswith("its targets differ from the loop's")


@pytest.mark.skipif(shutil.which("ninja") is None, reason="ninja is not installed")
def test_ninja_believes_that_it_built_what_the_loop_did_and_rebuilds_what_is_edited(
    compare: ModuleType, workload: ModuleType, tmp_path: Path
) -> None:
    folder = Path(str(shutil.which("ninja"))).parent
    there = compare.Peers(Path(sys.executable), folder)
    ninja = next(tool for tool in workload.TOOLS if tool.key == "ninja")
    workload.make_project(tmp_path / "project", ninja, 3, sys.executable)
    project = compare.Project(tmp_path / "project", ninja, 3, there, dict(os.environ))

    project.sample("nothing")
    project.sample("pattern")
    assert len((project.folder / ".ninja_log").read_text().splitlines()) >= 4


def test_hopeless_combinations_are_left_out_with_a_reason(workload: ModuleType) -> None:
    tools = {tool.key: tool for tool in workload.TOOLS}

    assert "a process a target" in tools["ninja"].reason_against("cold", 10_000)
    assert tools["ninja"].reason_against("nothing", 100_000) == ""
    assert tools["scons"].reason_against("nothing", 100_000) != ""
    assert tools["pytask"].reason_against("cold-2", 100) == "it needs a plugin"
    assert tools["us"].reason_against("cold", 100_000) == ""
    assert tools["make"].reason_against("cold", 100, quick=True) != ""


@pytest.mark.slow
def test_the_database_of_a_run_with_nothing_to_do_is_watched(compare: ModuleType) -> None:
    found = compare.measure_database(3)

    assert found["patterns"] == 3
    assert found["rows"] >= 3
    assert found["seconds"] > 0
    assert isinstance(found["opened"], bool)


# The page and its plots ------------------------------------------------------------------


def some_results(**more: Any) -> dict[str, Any]:
    """Return results in which every goal is just met."""
    times = {
        ("nothing", "us"): 0.15,
        ("nothing", "floor"): 0.1,
        ("nothing", "ninja"): 0.15,
        ("nothing", "doit"): 1.0,
        ("info", "us"): 0.15,
        ("pattern", "us"): 0.3,
        ("selected", "us"): 0.19,
        ("cold", "us"): 4.1,
        ("cold", "loop"): 3.0,
        ("cold", "doit"): 9.0,
        ("cold-2", "us"): 2.4,
        ("macro-2", "us"): 2.3,
    }
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "took": 600,
        "machine": {"system": "S", "processor": "P", "cores": 2, "memory": 8e9, "python": "C 3"},
        "versions": {"codegen-tasks": "1", "ninja": "2"},
        "figures": [
            {
                "size": size,
                "case": case,
                "tool": tool,
                "runs": [[seconds * size / 10_000, seconds, 10_000 * size]] * 3,
            }
            for size in (1_000, 10_000, 100_000)
            for (case, tool), seconds in times.items()
        ],
        "left_out": [{"size": 1_000, "case": "cold", "tool": "make", "reason": "it is <slow>"}],
        "missing": {"scons": "pip cannot"},
        "steps": {
            kind: {"serial": 1.0, "parallel": parallel, "idle": 0.1}
            for kind, parallel in (("wait", 0.43), ("compute", 0.55))
        },
        "templates": [
            {
                "suite": "gapic-generator 1",
                "templates": 70,
                "figures": [
                    {"cache": cache, "state": state, "inside": seconds, "whole": 0.2, "runs": 1}
                    for cache, state, seconds in (
                        ("ours", "cold", 1.0),
                        ("ours", "warm", 0.02),
                        ("jinja2", "cold", 0.9),
                        ("jinja2", "warm", 0.016),
                    )
                ],
            }
        ],
        "compiles": [
            {
                "files": 1000,
                "rows": {
                    row: {"seconds": seconds, "processor": seconds, "runs": 1}
                    for row, seconds in (
                        ("doit compile", 2.6),
                        ("doit -n 2 compile", 2.6),
                        ("by hand", 2.0),
                        ("nothing", 0.2),
                    )
                },
            }
        ],
        "database": {"patterns": 10_000, "rows": 20_000, "opened": False, "seconds": 0.5},
        **more,
    }


def test_a_goal_is_met_or_not_by_the_figures_of_one_run(load: Callable[[str], ModuleType]) -> None:
    goals = load("goals")
    results = some_results()

    verdicts = {row.key: row.verdict for row in goals.rows(results)}
    assert set(verdicts.values()) == {"met"}
    assert len(verdicts) == 20

    for row in results["figures"]:
        if (row["case"], row["tool"]) == ("cold", "loop"):
            row["runs"] = [[0.29 * row["size"] / 1_000, 0.3, 1]] * 3
    results["database"]["opened"] = True
    worse = {row.key: row.verdict for row in goals.rows(results)}
    changed = {key for key in verdicts if worse[key] != verdicts[key]}
    assert changed == {"cold", "cold-2", "database"}
    assert {worse[key] for key in changed} == {"not met"}


def test_what_was_not_measured_meets_no_goal(load: Callable[[str], ModuleType]) -> None:
    results = some_results(figures=[], templates=[], compiles=[], steps={}, database=None)

    assert {row.verdict for row in load("goals").rows(results)} == {"not measured"}


def test_each_case_has_a_plot_with_one_line_for_each_tool_and_all_its_words_as_text(
    page: ModuleType,
) -> None:
    made = page.make_plots(some_results())

    assert set(made) == {
        *("cold.svg", "cold-2.svg", "nothing.svg", "pattern.svg", "macro-2.svg"),
        *("selected.svg", "info.svg", "memory.svg"),
    }
    root = ElementTree.fromstring(made["nothing.svg"])
    space = "{http://www.w3.org/2000/svg}"
    lines = [path.get("data-tool") for path in root.iter(space + "path")]
    tools = ["codegen-tasks", "doit, empty dodo.py", "ninja", "plain doit"]
    assert sorted(line for line in lines if line) == tools
    words = [text.text for text in root.iter(space + "text")]
    assert {*tools, "nothing to do", "patterns (number)", "median (seconds)"} <= set(words)
    assert {"1,000", "10,000", "100,000", "100 ms", "1 s"} <= set(words)
    assert "prefers-color-scheme: dark" in made["nothing.svg"]
    for text in made.values():
        ElementTree.fromstring(text)


def test_a_single_size_and_a_single_tool_make_a_plot_too(
    load: Callable[[str], ModuleType],
) -> None:
    plots = load("plots")
    line = plots.Line("us", "a < b & c", [(100.0, 0.02)])

    root = ElementTree.fromstring(plots.plot("t", "x", "y", [line], str))
    marks = [one for one in root.iter() if one.get("class") == "mark us"]
    assert len(marks) == 2  # its only point, and the legend
    assert "a < b & c" in [one.text for one in root.iter()]


def test_the_page_is_made_whole_from_results_and_says_what_is_left_out_and_why(
    tmp_path: Path,
) -> None:
    docs, file = tmp_path / "docs", tmp_path / "results.json"
    (docs / "plots").mkdir(parents=True)
    (docs / "plots" / "old.svg").write_text("")
    file.write_text(json.dumps(some_results()))
    options = ["--load", str(file), "--write", "--docs", str(docs)]
    command = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), *options]

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

    text = (docs / "benchmarks.md").read_text("utf-8")
    assert "| cold, 10,000 patterns, serial | ≤ 1.4 × the bare loop | 1.37 ×" in text
    assert text.count("| met") == 20
    assert "make: it is <slow>." in text
    assert "SCons: pip cannot." in text
    shown = re.findall(r"\]\(plots/([\w-]+\.svg)\)", text)
    assert sorted(shown) == sorted(path.name for path in (docs / "plots").iterdir())
    assert "codegen-tasks  410 ms" in done.stdout


def test_an_unknown_case_is_refused(
    compare: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        compare.arguments(["--cases", "warm"])

    assert "argument --cases: no 'warm' among cold, cold-2" in capsys.readouterr().err


# Template suites and compile batches -----------------------------------------------------


def a_suite(templates: ModuleType, folder: Path) -> Any:
    """Make a suite of two templates that use a filter and a test of their generator's own."""
    folder.mkdir()
    (folder / "a.j2").write_text("{{ name | camel }}{% if name is odd_one %}{% endif %}\n")
    (folder / "b.j2").write_text("{% include 'a.j2' %}\n")
    return templates.Suite("own", "1", ".", ".j2", {"trim_blocks": True})


def test_a_suite_is_parsed_when_cold_and_found_when_warm_through_both_caches(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    templates = load("templates")
    suite = a_suite(templates, tmp_path / "suite")

    found = templates.measure_suite(suite, tmp_path / "suite", 1, tmp_path).as_data()

    assert found["templates"] == 2
    ways = [(one["cache"], one["state"]) for one in found["figures"]]
    assert ways == [("ours", "cold"), ("ours", "warm"), ("jinja2", "cold"), ("jinja2", "warm")]
    assert templates.table([found]).rows[0][0] == "own 1, 2 templates"


def test_a_suite_that_does_not_compile_is_refused(
    load: Callable[[str], ModuleType], measure: ModuleType, tmp_path: Path
) -> None:
    templates = load("templates")
    suite = a_suite(templates, tmp_path / "suite")
    (tmp_path / "suite" / "b.j2").write_text("{% nothing %}")

    with pytest.raises(measure.MeasurementError, match=r"own: b\.j2: Encountered unknown tag"):
        templates.order_of(suite, tmp_path / "suite")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_the_templates_of_real_generators_compile(
    load: Callable[[str], ModuleType], measure: ModuleType, number: int
) -> None:
    templates = load("templates")
    suite = templates.SUITES[number]
    try:
        folder = templates.fetch(suite)
    except measure.MeasurementError as error:
        pytest.skip(f"{suite.name} cannot be fetched: {error}")

    assert len(templates.order_of(suite, folder)["names"]) >= 38


@pytest.mark.slow
@NEEDS_DENO
def test_compiling_is_measured_on_as_many_files_by_hand_as_by_doit(
    load: Callable[[str], ModuleType],
) -> None:
    compiles = load("compiles")

    [found] = compiles.measure_all([2], 1)
    assert found["files"] == 2
    assert set(found["rows"]) == {"doit compile", "doit -n 2 compile", "by hand", "nothing"}
    assert compiles.table([found]).rows[0][0] == "2"
