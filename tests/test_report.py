"""`doit report`: the page, the trace, the comparison, against the records they are made from."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, found
from conftest import Project, fill
from test_little_to_do import counted

from codegen_tasks import report, runs
from codegen_tasks.report.figures import FOLLOWS, bars, causes, critical_path, lanes, units
from codegen_tasks.report.trace import trace
from codegen_tasks.report.words import duration, tick
from codegen_tasks.runs import Head, Run, StepRun

NO_BROWSER = pytest.mark.skipif(found() is None, reason="no chromium")
#: What the page's script and style do with figures of which other tests see that they are right.
IN_A_BROWSER = pytest.mark.one_python


def last(project: Project) -> Run:
    """Return the newest record."""
    return runs.load(runs.heads(str(project.path / ".codegen/runs"))[0][-1])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, state_home: Path) -> Project:
    """Return a project with a few runs to tell of: cold, one pattern, a failure, a macro."""
    folder = tmp_path_factory.mktemp("built") / "project"
    folder.mkdir()
    project = fill(Project(folder, state_home))
    assert project.doit("-n", "2").code == 0
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 7\n')
    assert project.doit("generate:ash.txt").code == 0
    project.write("patterns/birch.toml", "gain = 7\n")
    assert project.doit("-c").code == 1
    project.write("patterns/birch.toml", 'name = "birch"\ngain = 1\n')
    project.write("templates/macros.j2", "{% macro title(x) %}++ {{ x }} ++{% endmacro %}\n")
    assert project.doit("-n", "2").code == 0
    return project


@pytest.fixture
def told(built: Project, tmp_path: Path) -> Project:
    """Return a copy of the built project."""
    shutil.copytree(built.path, tmp_path / "project")
    copy = Project(tmp_path / "project", tmp_path)
    copy.environ = built.environ
    return copy


# On the terminal ------------------------------------------------------------------------


def test_list_tells_each_run_in_a_line(told: Project) -> None:
    result = told.codegen("report", "--list")
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +[\d.]+ (s|ms)  "
    expected = [
        " +1  " + stamp + "5 parsed, 5 generated",
        " +2  " + stamp + "1 generated  of generate:ash.txt",
        " +3  " + stamp + r".*failed.*  \(failed\)",
        " +4  " + stamp + "1 parsed, 3 generated, 1 unchanged",
    ]
    lines = result.out.splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_compare_tells_what_differed(told: Project) -> None:
    out = told.codegen("report", "--compare", "1", "2").out
    assert "only in run 1: 10 steps\n" in out
    assert "in both: 1 step\n" in out
    assert "only in run 2" not in out
    assert "run 1 came to: 5 parsed, 5 generated\n" in out
    assert "run 2 came to: 1 generated\n" in out
    assert "asked for   everything" in out
    assert "why, in run 1:\n  10 × never built\n" in out
    assert "why, in run 2:\n  1 × patterns/ash.toml: gain 0 → 7\n" in out
    failing = told.codegen("report", "--compare", "1", "3").out
    assert "generated → failed: generate:birch.txt" in failing


@pytest.mark.parametrize(
    "names", [(), ("-2",), ("-2", "last"), ("-2", "-1"), ("3",), ("3", "4"), ("last", "4")]
)
def test_runs_are_named_by_number_or_by_how_far_back_they_are(
    told: Project, names: tuple[str, ...]
) -> None:
    result = told.codegen("report", "--compare", *names)
    first = "4" if names[:1] == ("last",) else "3"
    assert result.code == 0
    assert re.match(rf" +run {first} +run 4\n", result.out), result
    assert told.codegen("report", *names, "--compare").out == result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["7"], "report: no run '7' is recorded\n  hint: 1 to 4, `last`, or -1 for the last"),
        (["-9"], "report: no run '-9' is recorded\n  hint: 1 to 4, `last`, or -1 for the last"),
        (["ash"], "report: no run 'ash' is recorded\n  hint: 1 to 4, `last`, or -1 for the last"),
        (["1", "2"], "report: too many runs, such as '2'"),
        (["--compare", "1", "2", "3"], "report: too many runs, such as '3'"),
        (["--list", "1"], "report: too many runs, such as '1'"),
        (["--list", "--compare"], "report: --compare and --list are two things to do"),
        (["--trace", "t", "--list"], "report: --trace and --list are two things to do"),
        (["--list", "-o", "x"], "report: --list writes no page, so it takes no -o or --open"),
        (
            ["-o", "patterns"],
            "report: patterns: a folder stands where a file should be\n  hint: move patterns away",
        ),
        (
            ["-o", "plain/x"],
            "report: plain: a file stands where a folder should be\n  hint: move plain away",
        ),
    ],
)
def test_bad_input_is_one_error_before_anything_is_written(
    told: Project, arguments: list[str], message: str
) -> None:
    told.write("plain", "")
    before = told.stamps()
    result = told.codegen("report", *arguments)
    assert (result.code, result.out) == (3, "")
    assert result.err == f"ERROR: {message}\n"
    assert told.stamps() == before


def test_without_a_run_or_a_codegen_it_says_so(empty_project: Project, tmp_path: Path) -> None:
    empty_project.write("dodo.py", "def task_a():\n    return {'actions': []}\n")
    result = empty_project.codegen("report")
    assert (result.code, result.err) == (
        3,
        "ERROR: dodo.py: declares no Codegen, so no run is recorded\n",
    )
    declared = "from codegen_tasks import Codegen\ncodegen = Codegen()\n"
    empty_project.write("dodo.py", declared + "DOIT_CONFIG = codegen.doit_config\n")
    result = empty_project.codegen("report")
    assert result.code == 3
    assert result.err == (
        "ERROR: report: .codegen/runs: no run is recorded\n"
        "  hint: `doit` records each run that has something to do\n"
    )
    assert not empty_project.exists(".codegen")


def test_what_tells_of_records_only_makes_no_tasks(told: Project) -> None:
    opted_in = '[tool.doit.plugins.command]\nreport = "codegen_tasks.commands.report:Report"\n'
    told.write("pyproject.toml", opted_in)
    assert told.doit().code == 0
    for what in ("--list", "--compare"):
        found = counted(told, "report", what)
        assert found.out != ""
        assert (found.of["task"], "jinja2" in found.modules) == (4, False)


# The trace ------------------------------------------------------------------------------


def test_the_trace_has_an_event_for_every_step_on_its_process(told: Project) -> None:
    assert (
        told.codegen("report", "1", "--trace", "trace.json").out == "trace.json: run 1, 11 steps\n"
    )
    document = json.loads(told.read("trace.json"))
    events = document["traceEvents"]
    run = runs.load(runs.heads(str(told.path / ".codegen/runs"))[0][0])
    steps = {event["name"]: event for event in events if event["ph"] == "X"}
    assert steps.keys() == {step.task for step in run.steps}
    for step in run.steps:
        assert step.start is not None
        event = steps[step.task]
        assert event["ts"] == round(step.start * 1e6)
        assert 0 <= round(step.seconds * 1e6) - event["dur"] <= 200  # by two clocks, in µs
        assert (event["pid"], event["tid"]) == (run.head.pid, step.pid)
        assert event["args"]["outcome"] == step.outcome
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert threads.keys() == {step.pid for step in run.steps}
    assert any(name.startswith("worker 1") for name in threads.values())
    assert any(event["args"].get("critical") for event in steps.values())


def test_a_pipe_gets_the_trace_and_nothing_else_and_a_link_stays_one(told: Project) -> None:
    out = told.run("sh", "-c", f"{sys.executable} -m codegen_tasks report --trace /dev/stdout|cat")
    assert json.loads(out.out)["otherData"]["run"] == 4
    told.write("page.html", "")
    (told.path / "link.html").symlink_to("page.html")
    assert told.codegen("report", "-o", "link.html").code == 0
    assert (told.path / "link.html").is_symlink()
    assert told.read("page.html").startswith("<!DOCTYPE html>")
    for what in ("--list", "--compare", "--trace=/dev/stdout"):
        script = f"{sys.executable} -u -m codegen_tasks report {what} | true"
        assert told.run("bash", "-c", script).err == ""


def test_events_of_a_batch_lie_inside_it_and_none_overlaps_the_next() -> None:
    together = [a_step(f"compile:{n}.js", 1.0, 0.25) for n in range(4)]
    run = a_run(*together, a_step("generate:a", 1.9999, 0.5), a_step("generate:b", 2.5, 0.1))
    events = [e for e in json.loads(trace(run, "p", {"generate:a"}))["traceEvents"] if "ts" in e]
    spans = [(e["name"], e["ts"], e["ts"] + e["dur"]) for e in events]
    assert spans[:2] == [
        ("4 together", 1_000_000, 1_999_900),
        ("compile:0.js", 1_000_000, 1_250_000),
    ]
    assert spans[4:] == [
        ("compile:3.js", 1_750_000, 1_999_900),
        ("generate:a", 1_999_900, 2_499_900),
        ("generate:b", 2_500_000, 2_600_000),
    ]
    assert [e["name"] for e in events if e.get("args", {}).get("critical")] == ["generate:a"]


# Figures, by tables ---------------------------------------------------------------------


def a_step(task: str, start: float | None, seconds: float, pid: int = 1, **more: Any) -> StepRun:
    phase = task.partition(":")[0] if ":" in task else ""
    given = {"outcome": "generated", "hits": 0, "misses": 0, "reasons": (), **more}
    return StepRun(task, phase, given["outcome"], pid, start, seconds, 0, 0, given["reasons"])


def a_run(*steps: StepRun, seconds: float = 10) -> Run:
    head = Head("", 1, 0, "", seconds, (), 0, 1, "done", 0, 0, 0, {})
    return Run(head, steps)


def test_the_critical_path_is_the_longest_chain_of_those_that_waited_for_each_other() -> None:
    steps = [
        a_step("templates:t", 0, 1),
        a_step("generate:long", 1, 5, pid=2),
        a_step("generate:short", 1, 1, pid=3),
        a_step("compile:short", 2, 2, pid=3),
        a_step("compile:long", 6, 1, pid=2),
        a_step("generate:alone", 0, 6.5, pid=4),
    ]
    waits = {
        "generate:long": {"templates:t"},
        "generate:short": {"templates:t"},
        "compile:short": {"generate:short"},
        "compile:long": {"generate:long", "unknown"},
    }
    found = [unit.label for unit in critical_path(units(steps), waits)]
    assert found == ["templates:t", "generate:long", "compile:long"]


def test_what_began_later_was_not_waited_for_so_a_circle_ends() -> None:
    steps = [a_step("generate:a", 0, 1), a_step("generate:b", 1, 1)]
    waits = {"generate:a": {"generate:b"}, "generate:b": {"generate:a", "generate:b"}}
    assert [unit.label for unit in critical_path(units(steps), waits)] == [
        "generate:a",
        "generate:b",
    ]
    assert critical_path([], {}) == []


def test_steps_that_shared_a_compiler_are_one_unit_as_long_as_all() -> None:
    steps = [a_step(f"compile:{n}.js", 3.0, 0.5) for n in range(4)]
    steps += [a_step("compile:x.js", 3.0, 0.5, pid=2), a_step("generate:a", None, 1)]
    steps.append(a_step("generate:b", 1.0, 0, outcome="not run"))
    together, alone = sorted(units(steps), key=lambda unit: -len(unit.steps))
    assert (len(together.steps), together.seconds, together.start) == (4, 2.0, 3.0)
    assert "4 compiled together: compile:0.js" in together.label
    assert alone.label == "compile:x.js"


def test_lanes_are_processes_and_threads_get_rows_of_their_own() -> None:
    run = a_run(
        a_step("generate:a", 1, 2, pid=5),
        a_step("generate:b", 2, 2, pid=5),
        a_step("generate:c", 4, 1, pid=5),
        a_step("output", 6, 1, pid=1),
    )
    main, worker = lanes(run, units(run.steps))
    assert (main.name, main.steps, main.busy) == ("main process", 1, 1)
    assert (worker.name, worker.pid, worker.steps) == ("worker 1", 5, 3)
    assert [[unit.label for unit in row] for row in worker.rows] == [
        ["generate:a", "generate:c"],
        ["generate:b"],
    ]


def test_neighbours_too_narrow_to_see_are_one_bar_and_nothing_is_lost() -> None:
    steps = [a_step(f"generate:{n}", n * 0.001, 0.0009) for n in range(9_000)]
    steps.append(a_step("generate:failed", 9.5, 0.001, outcome="failed"))
    row = units(steps)
    drawn = bars(row, 10, {id(row[4_000])})
    assert sum(bar.count for bar in drawn) == 9_001
    assert len(drawn) == 4
    assert [bar.critical for bar in drawn] == [False, True, False, False]
    assert drawn[-1].failed
    assert drawn[0].label == "4,000 × generate"


def test_reasons_that_follow_from_another_step_are_one_cause() -> None:
    run = a_run(
        a_step("generate:a/b.ts", 0, 1, reasons=("templates/m.j2: 1a → 2b", "x: edited")),
        a_step("generate:c.ts", 0, 1, reasons=("templates/m.j2: 1a → 2b",)),
        a_step("compile:a/b.js", 0, 1, reasons=("out/gen/a/b.ts: 1 → 2", "out/gen/c.ts: 1 → 2")),
        a_step("compile:c.js", 0, 1, reasons=("out/gen/c.ts: 1 → 2",)),
        a_step("generate:d.ts", 0, 1, reasons=("out/gen/d.ts: edited",)),
    )
    found = [(cause.text, len(cause.tasks)) for cause in causes(run)]
    assert found == [
        ("templates/m.j2: 1a → 2b", 2),
        ("x: edited", 1),
        ("out/gen/d.ts: edited", 1),
        (FOLLOWS, 2),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (0.00084, "840 µs"),
        (0.0012, "1.2 ms"),
        (0.0123, "12 ms"),
        (0.99951, "1.00 s"),
        (12.345, "12.3 s"),
        (125, "2 min 05 s"),
    ],
)
def test_durations_have_about_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert tick(2.5) == "2.5 s"


# The page -------------------------------------------------------------------------------


class _Reader(HTMLParser):
    """Collects what a page loads from elsewhere, and its elements' ids."""

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if tag != "a":
            self.loads += [str(given[name]) for name in ("src", "href", "data") if name in given]


def test_the_page_is_one_file_and_all_that_is_written(told: Project) -> None:
    before = told.stamps()
    result = told.codegen("report")
    assert (result.code, result.err) == (0, "")
    assert result.out == ".codegen/report.html: run 4, 6 steps\n"
    assert set(told.stamps().items()) - set(before.items()) == {
        (".codegen/report.html", told.stamps()[".codegen/report.html"])
    }
    reader = _Reader(told.read(".codegen/report.html"))
    assert reader.loads == ["data:,"]
    assert "@import" not in told.read(".codegen/report.html")
    assert told.codegen("report", "-o", "deep/er/page.html", "2").code == 0
    assert "<title>project: run 2</title>" in told.read("deep/er/page.html")


def test_hostile_names_stay_text(project: Project) -> None:
    hostile = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
    project.doit()
    path = project.path / ".codegen/runs/1.json"
    head, steps = map(json.loads, path.read_text().splitlines())
    head["selected"] = [hostile]
    steps["texts"] = [f"{text} {hostile} \u2028 \ud800" for text in steps["texts"]]
    path.write_text(json.dumps(head) + "\n" + json.dumps(steps) + "\n")
    assert project.codegen("report").code == 0
    text = project.read(".codegen/report.html")
    assert text.count("<script") == 2
    assert "<img" not in text
    assert project.codegen("report", "--list").code == 0
    assert project.codegen("report", "--compare", "1", "1").code == 0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def shown(told: Project, browser: Browser) -> Callable[..., Run]:
    """Return what shows a run's page and returns the run."""

    def show(number: int = 4) -> Run:
        assert told.codegen("report", str(number)).code == 0
        browser.emulate()
        browser.open(told.path / ".codegen/report.html")
        return runs.load(runs.heads(str(told.path / ".codegen/runs"))[0][number - 1])

    return show


@NO_BROWSER
@IN_A_BROWSER
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_page_loads_without_a_complaint_or_a_request_and_tells_the_record(
    shown: Callable[..., Run], browser: Browser, number: int
) -> None:
    run = shown(number)
    assert browser.complaints() == []
    assert all(address.startswith("file:") for address in browser.requests())
    assert len(browser.requests()) == 1
    text = "document.querySelector('{}').textContent"
    assert browser.value(text.format("#took")) == duration(run.head.seconds)
    assert browser.value(text.format("#hits")) == str(run.head.hits)
    assert browser.value(text.format("#misses")) == str(run.head.misses)
    assert browser.value(text.format("#up-to-date")) == str(run.head.up_to_date)
    tiles = "Object.fromEntries([...document.querySelectorAll('[data-outcome]')]"
    tiles += ".map((e) => [e.dataset.outcome, Number(e.textContent)]))"
    assert browser.value(tiles) == dict(run.head.outcomes)
    cells = "[...document.querySelectorAll('#slowest tbody th')].map((e) => e.textContent)"
    ran = sorted(run.steps, key=lambda step: -step.seconds)
    assert browser.value(cells) == [step.task for step in ran if step.outcome != "not run"]
    history = "[...document.querySelectorAll('#history tbody th')].map((e) => e.textContent)"
    assert browser.value(history) == ["4", "3", "2", "1"]
    assert browser.value("document.querySelectorAll('#lanes rect.bar').length") >= len(
        {step.pid for step in run.steps if step.pid}
    )


@NO_BROWSER
@IN_A_BROWSER
def test_the_timeline_obeys_keys_and_says_what_they_reach(
    shown: Callable[..., Run], browser: Browser
) -> None:
    run = shown(1)
    readout = "document.getElementById('readout').textContent"
    browser.value("document.getElementById('lanes').focus()")
    browser.press("ArrowRight")
    first = browser.value(readout)
    assert any(first.startswith(f"{step.task}: ") for step in run.steps), first
    browser.press("ArrowDown")
    second = browser.value(readout)
    assert second != first
    browser.press("Enter", 13)
    assert browser.value(readout).startswith("shown: ")
    shown_now = browser.value("[...document.querySelectorAll('rect.bar title')].length")
    browser.press("0", 48, "0")
    whole = browser.value("[...document.querySelectorAll('rect.bar title')].length")
    assert shown_now < whole
    assert browser.value("document.activeElement.id") == "lanes"
    assert browser.complaints() == []


@NO_BROWSER
@IN_A_BROWSER
def test_tab_reaches_every_control_in_order_and_all_have_names(
    shown: Callable[..., Run], browser: Browser
) -> None:
    shown()
    reached = []
    for _ in range(60):
        browser.press("Tab", 9)
        said = browser.value(
            "(() => { const e = document.activeElement; return e === document.body ? '' :"
            " `${e.id || e.tagName}|${e.textContent || e.ariaLabel || e.labels?.[0]?.textContent}`"
            " })()"
        )
        reached.append(said)
    names = [said.partition("|")[0] for said in reached if said]
    assert all(said.partition("|")[2].strip() not in ("", "undefined") for said in reached if said)
    assert names.index("lanes") < names.index("search") < names.index("clear")
    assert names[0] == "A"  # the link that skips to the content
    titled = "document.getElementById(s.getAttribute('aria-labelledby'))"
    sections = f"[...document.querySelectorAll('section')].every((s) => {titled})"
    assert browser.value(sections) is True
    unnamed = "[...document.querySelectorAll('button')].filter((b) => !b.textContent.trim()).length"
    assert browser.value(unnamed) == 0


@NO_BROWSER
@IN_A_BROWSER
def test_the_graph_is_found_in_opened_and_followed(
    shown: Callable[..., Run], browser: Browser
) -> None:
    shown()
    groups = "[...document.querySelectorAll('.group > button')].map((e) => e.textContent)"
    assert browser.value(groups) == ["patterns/3", "templates/5", "page3", "list1", "plain1"]
    browser.value("document.getElementById('search').focus()")
    browser.write("macros")
    assert browser.value("document.getElementById('matches').textContent") == "1 of 13 found"
    browser.press("Enter", 13)
    picked = browser.value("document.getElementById('picked').innerText")
    assert "macros.j2" in picked
    assert "used by 4" in picked  # page.txt.j2 and three pages
    counts = browser.value(groups)
    assert counts == [
        "patterns/0 of 3",
        "templates/2 of 5",
        "page3 of 3",
        "list0 of 1",
        "plain0 of 1",
    ]
    browser.press("Escape", 27)
    assert browser.value(groups)[0] == "patterns/3"
    assert browser.value("document.activeElement.id") == "search"
    browser.value("document.querySelector('.group > button').focus()")
    browser.press("Enter", 13, "\r")
    members = "[...document.querySelectorAll('.group li button')].map((e) => e.textContent)"
    assert browser.value(members) == [f"patterns/{n}.toml" for n in ("ash", "birch", "cedar")]
    assert browser.value("document.activeElement.getAttribute('aria-expanded')") == "true"
    browser.press("ArrowDown")
    assert browser.value("document.activeElement.textContent") == "patterns/ash.toml"


@NO_BROWSER
@IN_A_BROWSER
def test_the_page_fits_a_phone_paper_and_the_dark(
    shown: Callable[..., Run], browser: Browser
) -> None:
    shown()
    light = browser.value("getComputedStyle(document.body).backgroundColor")
    browser.emulate(width=360, dark=True)
    assert browser.value("getComputedStyle(document.body).backgroundColor") != light
    assert browser.value("document.documentElement.scrollWidth") <= 360
    browser.emulate()
    assert browser.paper().startswith(b"%PDF")
    assert browser.value("document.querySelectorAll('section > details:not([open])').length") == 0
    assert browser.complaints() == []


@NO_BROWSER
@IN_A_BROWSER
def test_a_page_without_script_still_tells_everything(told: Project, browser: Browser) -> None:
    assert told.codegen("report").code == 0
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(told.path / ".codegen/report.html")
        assert browser.value("document.querySelectorAll('#lanes rect.bar').length") > 0
        assert browser.value("document.querySelectorAll('#groups tbody tr').length") == 5
        assert browser.value("document.getElementById('graph-tools').hidden") is True
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.slow
@NO_BROWSER
@IN_A_BROWSER
def test_thousands_of_targets_are_shown_as_few_and_found_at_once(
    project: Project, browser: Browser
) -> None:
    for number in range(2_000):
        project.write(f"patterns/p{number:04d}.toml", f'name = "p{number}"\ngain = {number}\n')
    assert project.doit("-n", "2").code == 0
    assert project.codegen("report").code == 0
    browser.emulate()
    browser.open(project.path / ".codegen/report.html")
    assert browser.complaints() == []
    elements = "document.querySelectorAll('*').length"
    assert browser.value(elements) < 5_000
    assert browser.value("document.querySelectorAll('#boxes button').length") == 5
    browser.value("document.getElementById('search').focus()")
    browser.write("p01")
    assert browser.value("document.getElementById('matches').textContent").startswith("200 of ")
    assert browser.value("document.querySelectorAll('#boxes button').length") < 60
    browser.value("document.querySelector('#boxes li button').click()")
    assert browser.value("document.querySelectorAll('#boxes li button').length") == 3
    assert "used by 2" in browser.value("document.getElementById('picked').innerText")
    assert last(project).head.outcomes["generated"] == 2_005


# Whoever reads it -----------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Return how bright a colour is, by WCAG 2.2."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, by WCAG 2.2."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_the_colours_of_the_page_can_be_told_apart() -> None:
    """By WCAG 2.2, AA: text has a contrast of 4.5 at least, what is drawn has 3."""
    css = (Path(report.__file__).parent / "html/page.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", one))
        for one in re.findall(r":root {(.*?)}", css, re.DOTALL)
    ]
    assert len(schemes) == 3  # light, dark, paper
    for scheme in schemes:
        told = {
            name: c if len(c) == 7 else "#" + "".join(2 * x for x in c[1:])
            for name, c in scheme.items()
        }
        for ground in (told["paper"], told["card"]):
            for name in ("ink", "soft", "bad", "good"):
                assert contrast(told[name], ground) >= 4.5, (name, ground)
            for name in ("templates", "generate", "compile", "output", "other", "critical"):
                assert contrast(told[name], ground) >= 3, (name, ground)
            assert contrast(told.get("focus", "#000000"), ground) >= 3
        assert contrast(told["card"], told["generate"]) >= 4.5  # of the button that is pressed


@NO_BROWSER
@IN_A_BROWSER
def test_landmarks_headings_and_names_are_there_for_those_who_hear_the_page(
    shown: Callable[..., Run], browser: Browser
) -> None:
    shown()
    count = "document.querySelectorAll('{}').length"
    assert [browser.value(count.format(one)) for one in ("header", "nav", "main", "footer")] == [
        1
    ] * 4
    assert browser.value("document.documentElement.lang") == "en"
    levels = browser.value(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((e) => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    unnamed = "[...document.querySelectorAll('svg')].filter((e) => e.closest('[hidden]') === null"
    unnamed += " && !e.ariaLabel && e.ariaHidden !== 'true').length"
    assert browser.value(unnamed) == 0
    assert browser.value(count.format("th:not([scope])")) == 0
    links = "[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))"
    assert browser.value(links) is True


@NO_BROWSER
@IN_A_BROWSER
def test_what_is_too_wide_is_scrolled_by_keys_and_nothing_moves_that_should_not(
    shown: Callable[..., Run], browser: Browser
) -> None:
    shown()
    reached = "[...document.querySelectorAll('.wide')].filter((e) => e.tabIndex === 0)"
    assert browser.value(f"{reached}.length") == 0
    browser.emulate(width=360)
    end = time.monotonic() + 60
    while not browser.value(f"{reached}.length") and time.monotonic() < end:
        time.sleep(0.02)
    assert browser.value(f"{reached}.length") > 0
    wide = "[...document.querySelectorAll('.wide')].filter((e) => e.checkVisibility()"
    wide += " && e.scrollWidth > e.clientWidth)"
    assert browser.value(f"{wide}.every((e) => e.tabIndex === 0 && e.role === 'region')") is True
    named = "document.getElementById(e.getAttribute('aria-labelledby')).textContent"
    assert browser.value(f"{reached}.every((e) => {named})") is True
    motion = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.ask("Emulation.setEmulatedMedia", features=motion)
    assert browser.value("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert browser.value("document.getAnimations().length") == 0
    browser.emulate()


@NO_BROWSER
@IN_A_BROWSER
def test_names_of_folders_are_broken_at_slashes_and_commands_not_at_all(
    project: Project, browser: Browser
) -> None:
    project.write("templates/quite/deep/part.j2", "part\n")
    project.write("templates/plain.txt.j2", "{% include 'quite/deep/part.j2' %}")
    assert project.doit().code == 0
    assert project.codegen("report").code == 0
    browser.emulate(width=360)
    browser.open(project.path / ".codegen/report.html")
    names = "[...document.querySelectorAll('.group > button span:first-of-type')]"
    broken = browser.value(f"{names}.map((e) => e.innerHTML)")
    assert "templates/<wbr>quite/<wbr>deep/" in broken
    assert "patterns/" in broken
    assert browser.value("document.querySelector('code.whole').getClientRects().length") == 1
    assert browser.value("document.documentElement.scrollWidth") <= 360
    browser.emulate()
