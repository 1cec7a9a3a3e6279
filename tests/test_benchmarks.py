"""benchmarks/phases.py: its tables have their shape, and no figure stands for a run that cheated.

Counts and shapes only: how long anything takes is nobody's promise.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

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
def phases() -> ModuleType:
    """Import the benchmark."""
    spec = importlib.util.spec_from_file_location("phases", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["phases"] = module
    spec.loader.exec_module(module)
    return module


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
def printed() -> str:
    """Run the benchmark small; return what it prints."""
    done = run("--patterns", "7")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


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
    made = f"{count} generated, {count} compiled"
    assert f"cold: {made}, {TEMPLATES} templates parsed" in lines
    assert f"warm: {made}, {TEMPLATES} templates from the cache, none parsed" in lines
    assert f"nothing changed: {2 * count} up to date, none made, no file written" in lines


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
    summary = "5 generated, 4 compiled, 1 up to date in 0.31 s (templates 18 misses)"
    done = phases.counted(0.5, f".  compile:bloom.js\n{summary}\n")

    with pytest.raises(phases.MeasurementError) as caught:
        phases.check(bench, "Total", "cold", done)
    assert str(caught.value) == "Total, cold: compiled is 4, should be 5"


@pytest.mark.parametrize(
    ("row", "state", "summary"),
    [
        ("Templates", "cold", "nothing to do in 0.09 s (templates 18 misses)"),
        ("Templates", "warm", "nothing to do in 0.05 s (templates 18 hits)"),
        ("Generation", "cold", "5 generated in 0.07 s (templates 15 hits)"),
        ("Compilation", "warm", "5 compiled, 5 up to date in 0.90 s"),
        ("Output", "cold", "10 up to date in 0.04 s"),
        ("Total", "cold", "5 generated, 5 compiled in 1.06 s (templates 18 misses)"),
        ("Total", "warm", "5 generated, 5 compiled in 1.01 s (templates 18 hits)"),
        ("Total", "nothing changed", "10 up to date in 0.05 s"),
        ("doit -n 3", "cold", "5 generated, 5 compiled in 1.2 s (templates 15 hits, 19 misses)"),
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
