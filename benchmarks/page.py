"""The benchmark's results as tables in a terminal, and as docs/benchmarks.md with its plots.

The page is made whole from one results file, by the template `page.md.j2`; what people have to
say about a goal stands in `notes.toml`, by the goal's key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import compiles
import goals
import jinja2
import measure
import plots
from goals import PEAK, PROCESSOR, SECONDS, Figures
from measure import Table, duration, memory
from phases import Generation
from workload import CASES, COLD, TITLES, TOOLS

import templates

_HERE = Path(__file__).parent
DASH = "–"
_LABELS = {tool.key: tool.label for tool in TOOLS}
_WORDS: Mapping[int, Callable[[float], str]] = {
    SECONDS: duration,
    PROCESSOR: duration,
    PEAK: memory,
}


def sizes(results: Mapping[str, Any]) -> list[int]:
    """Return the numbers of patterns that were measured."""
    return sorted({row["size"] for row in results["figures"]})


def cases(results: Mapping[str, Any]) -> list[str]:
    """Return the cases that were measured, in their order."""
    found = {row["case"] for row in results["figures"]}
    return [case for case in CASES if case in found]


def case_table(results: Mapping[str, Any], case: str, quantity: int = SECONDS) -> Table:
    """Return one case: a row for each tool, a column for each number of patterns."""
    found, columns = Figures(results), sizes(results)
    rows = []
    for key, label in _LABELS.items():
        values = [found(size, case, key, quantity) for size in columns]
        if any(value is not None for value in values):
            cells = [DASH if value is None else _WORDS[quantity](value) for value in values]
            rows.append([label, *cells])
    return Table(TITLES[case], ["patterns", *(f"{size:,}" for size in columns)], rows)


def left_out(results: Mapping[str, Any], case: str) -> list[str]:
    """Return why tools are missing in a case: a line for each tool and reason."""
    reasons: dict[tuple[str, str], None] = {}
    for row in results["left_out"]:
        if row["case"] == case:
            reasons[_LABELS[row["tool"]], row["reason"]] = None
    missing = {(_LABELS[key], why): None for key, why in results["missing"].items()}
    return [f"{label}: {why}" for label, why in {**reasons, **missing}]


def goal_table(results: Mapping[str, Any]) -> Table:
    """Return all goals, with what was measured and whether they are met."""
    rows = [[row.what, row.goal, row.measured, row.verdict] for row in goals.rows(results)]
    return Table("Goals", [" ", "goal", "measured", " "], rows)


def part_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of what was measured besides."""
    if results.get("templates"):
        yield templates.table(results["templates"])
    if results.get("compiles"):
        yield compiles.table(results["compiles"])
    if results.get("steps"):
        yield _steps_table(results["steps"])


def _steps_table(steps: Mapping[str, Any]) -> Table:
    rows = []
    for kind, given in steps.items():
        one = Generation(**given)
        times = [duration(value) for value in (one.serial, one.parallel, one.idle)]
        rows.append([f"they {kind}", *times, f"{one.ratio:.2f}x", f"{one.ratio_of_work:.2f}x"])
    header = [" ", "serial", "-n 3", "nothing to do", "ratio", "of the work"]
    return Table("Three patterns of 300 ms", header, rows)


def plain(results: Mapping[str, Any]) -> str:
    """Return everything for a terminal."""
    tables = [case_table(results, case) for case in cases(results)]
    found = [*tables, *part_tables(results), goal_table(results)]
    return "\n\n".join(map(measure.plain, found))


# Plots ----------------------------------------------------------------------------------


def make_plots(results: Mapping[str, Any]) -> dict[str, str]:
    """Return a plot for each case, and one of memory, by file name."""
    made = {
        f"{case}.svg": _plot(results, case, SECONDS, TITLES[case], "seconds", _seconds_word)
        for case in cases(results)
    }
    if COLD in cases(results):
        title = f"peak memory, {TITLES[COLD]}"
        made["memory.svg"] = _plot(results, COLD, PEAK, title, "megabytes", _bytes_word)
    return made


def _plot(
    results: Mapping[str, Any],
    case: str,
    quantity: int,
    title: str,
    unit: str,
    word: Callable[[float], str],
) -> str:
    found = Figures(results)
    lines = []
    for key, label in _LABELS.items():
        values = ((size, found(size, case, key, quantity)) for size in sizes(results))
        points = [(size, value) for size, value in values if value]
        if points:
            lines.append(plots.Line(key, label, points))
    return plots.plot(title, "patterns (number)", f"median ({unit})", lines, word)


def _seconds_word(value: float) -> str:
    return f"{value * 1000:g} ms" if value < 1 else f"{value:g} s"


def _bytes_word(value: float) -> str:
    return f"{value / 1e6:g} MB"


# The page -------------------------------------------------------------------------------


def body(table: Table) -> str:
    """Return a table as Markdown, without its title and notes."""
    return measure.markdown(Table("", table.header, table.rows)).split("\n", 2)[2]


def notes() -> dict[str, str]:
    """Return what people have to say about goals, by their keys."""
    with open(_HERE / "notes.toml", "rb") as file:
        return tomllib.load(file)["notes"]


def render(results: Mapping[str, Any]) -> str:
    """Return docs/benchmarks.md."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    sections = [
        {
            "case": case,
            "title": TITLES[case],
            "seconds": body(case_table(results, case)),
            "processor": body(case_table(results, case, PROCESSOR)),
            "peak": body(case_table(results, case, PEAK)),
            "left_out": left_out(results, case),
        }
        for case in cases(results)
    ]
    return environment.get_template("page.md.j2").render(
        results=results,
        goals=list(goals.rows(results)),
        notes=notes(),
        sections=sections,
        parts=[(table, body(table)) for table in part_tables(results)],
        plots=make_plots(results),
        runs=_runs(results),
    )


def _runs(results: Mapping[str, Any]) -> Sequence[str]:
    """Return how many runs the figures are medians of, by number of patterns."""
    found = []
    for size in sizes(results):
        counts = {len(row["runs"]) for row in results["figures"] if row["size"] == size}
        low, high = min(counts), max(counts)
        found.append(f"{low if low == high else f'{low} to {high}'} at {size:,}")
    return found


def write(results: Mapping[str, Any], docs: Path) -> None:
    """Write the page and its plots; plots that are no longer made are removed."""
    folder = docs / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    made = make_plots(results)
    for path in folder.glob("*.svg"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    (docs / "benchmarks.md").write_text(render(results), encoding="utf-8")
