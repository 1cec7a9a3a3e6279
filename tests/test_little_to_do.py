"""What a run with little to do costs: tasks, looks at files, modules, records; by counting."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Project

from codegen_tasks import forks, snapshot

MANY = 200

#: Runs doit with what it does counted, and writes the counts to a file.
COUNTING = """
import collections, json, os, sys
counts, arguments = collections.Counter(), sys.argv[2:]

def count(event, given):
    if event == "open" and isinstance(given[0], str):
        counts[f"open {os.path.basename(given[0])}"] += 1
        counts["read"] += isinstance(given[1], str) and "r" in given[1]
    counts[event] += event in ("subprocess.Popen", "os.scandir", "sqlite3.connect")

import doit.loader, doit.doit_cmd
load, look = doit.loader.load_tasks, os.stat
def counted(*given, **named):
    tasks = load(*given, **named)
    counts["task"] = len(tasks)
    return tasks
def stat(*given, **named):
    counts["stat"] += 1
    return look(*given, **named)
doit.loader.load_tasks, os.stat = counted, stat
sys.addaudithook(count)
code = doit.doit_cmd.DoitMain().run(arguments)
counts["code"] = code
modules = sorted(name for name in sys.modules if name.partition(".")[0] in
                 ("jinja2", "sqlite3", "tomli", "codegen_tasks", "multiprocessing", "subprocess"))
with open(sys.argv[1], "w") as file:
    json.dump([counts, modules], file)
"""


@dataclass(frozen=True)
class Counts:
    """What a run did, and the modules it had imported at its end."""

    of: dict[str, int]
    modules: list[str]
    out: str


def counted(project: Project, *arguments: str, started: bool = True) -> Counts:
    """Run doit and count; where it is of no interest what it imports, it need not be started."""
    if started:
        result = project.run(sys.executable, "-c", COUNTING, "../counts", *arguments)
    else:
        script = project.write("../counting.py", COUNTING)
        result = project.script(str(script), "../counts", *arguments)
    assert result.err == "", result
    counts, modules = json.loads(project.read("../counts"))
    return Counts(counts, modules, result.out)


@pytest.fixture
def many(project: Project) -> Project:
    """Return a built project with many patterns."""
    for number in range(MANY):
        project.write(f"patterns/p{number:03d}.toml", f'name = "p{number}"\ngain = {number}\n')
    assert project.doit().code == 0
    return project


def test_with_nothing_to_do_there_is_one_task_a_phase_and_nothing_is_imported(
    many: Project,
) -> None:
    before = many.stamps()
    found = counted(many)
    assert found.out.startswith(f"{MANY + 5} up to date in ")
    assert found.of["task"] == 4
    assert not any(name.startswith(("jinja2", "sqlite3", "tomli")) for name in found.modules)
    assert {"codegen_tasks.plan", "codegen_tasks.runner"}.isdisjoint(found.modules)
    # Each pattern and each target once, and what does not grow with them.
    assert found.of["stat"] <= 2 * MANY + 100
    assert found.of.get("open state.db", 0) <= 2  # once; Python tells of it twice
    assert found.of.get("subprocess.Popen", 0) == found.of.get("sqlite3.connect", 0) == 0
    assert many.stamps() == before


def test_info_with_nothing_to_do_costs_as_little(many: Project) -> None:
    found = counted(many, "info")
    assert found.out == f"{MANY + 5} targets up to date\n"
    assert (found.of["task"], found.of["code"]) == (4, 0)
    assert not any(name.startswith(("jinja2", "sqlite3", "tomli")) for name in found.modules)
    assert json.loads(many.doit("info", "--json").out)["up_to_date"] == MANY + 5


@pytest.mark.parametrize("name", ["generate:p007.txt", "generated/p007.txt"])
def test_one_selected_target_adds_one_task(many: Project, name: str) -> None:
    found = counted(many, name)
    assert found.out.startswith("1 up to date in ")
    assert found.of["task"] == 5
    assert "jinja2" not in found.modules


def test_a_wildcard_selects_steps_that_have_no_work_too(many: Project) -> None:
    assert many.doit("generate:p00*").out.startswith("10 up to date in ")
    assert many.doit("-n", "2", "generate").out.startswith(f"{MANY + 5} up to date in ")
    assert many.doit("templates").out.startswith("nothing to do in ")


def test_an_edited_pattern_gets_the_tasks_of_what_reads_it(many: Project) -> None:
    many.write("patterns/p007.toml", 'name = "p7"\ngain = 1000\n')
    found = counted(many)
    assert found.out.splitlines()[0] == ".  generate:p007.txt"
    assert f"1 generated, {MANY + 4} up to date in" in found.out
    # Of the list that all patterns make only the names count, so it is asked and is not made.
    assert found.of["task"] == 6
    assert "== p7 == P7! 1000" in many.read("generated/p007.txt")
    assert counted(many).of["task"] == 4


def test_after_an_edit_the_snapshot_is_changed_in_place(many: Project) -> None:
    anew = "import codegen_tasks.snapshot\n\ndel codegen_tasks.snapshot.packed\n"
    many.write("dodo.py", anew + many.read("dodo.py"))
    many.write("patterns/p007.toml", 'name = "p7"\ngain = 1000\n')
    result = many.doit()
    assert (result.code, result.err) == (0, "")
    assert f"1 generated, {MANY + 4} up to date in" in result.out
    assert counted(many).of["task"] == 4


def test_a_touched_pattern_is_read_once_and_never_again(many: Project) -> None:
    many.write("patterns/p007.toml", 'name = "p7"\ngain = 7\n')
    assert "p007.toml" in str(counted(many).of)
    before = many.stamps()
    assert "p007.toml" not in str(counted(many).of)
    assert many.stamps() == before


def test_a_new_pattern_and_a_removed_one_are_seen(many: Project) -> None:
    many.write("patterns/new.toml", 'name = "new"\ngain = 1\n')
    many.remove("patterns/p007.toml")
    result = many.doit()
    assert result.out.splitlines()[:-1] == [".  generate:new.txt", ".  generate:list.txt"]
    assert "made by no rule any more" in many.doit("info").out
    assert "generated/p007.txt" in many.doit("info").out
    assert f"{MANY + 5} up to date" in many.doit().out


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("text.upper() + '!'", MANY + 3),
        ("(text.upper() + '!')", MANY + 3),
    ],
)
def test_an_edited_filter_gets_all_the_tasks_that_used_it(
    many: Project, edit: str, expected: int
) -> None:
    many.write("dodo.py", many.read("dodo.py").replace('text.upper() + "!"', f"str({edit})"))
    assert f"{expected} generated" in many.doit("-n", "2").out


def test_all_commands_but_run_and_info_see_every_task(many: Project) -> None:
    assert len(many.doit("list", "--all").out.splitlines()) == 4 + MANY + 5 + 5
    assert len(many.doit("list", "-s", "--all", "-q").out.split("U generate:")) == MANY + 6
    assert "generate:p007.txt" in many.doit("clean", "-n", "generate:p007.txt").out
    assert many.doit("forget", "generate:p007.txt").code == 0
    assert many.doit().out.splitlines()[0] == ".  generate:p007.txt"


def test_always_and_reporters_that_tell_of_every_task_get_every_task(many: Project) -> None:
    assert f"{MANY + 5} generated" in many.doit("-a").out
    assert many.doit("-r", "console").out.count("-- generate:p") == MANY + 1
    assert len(json.loads(many.doit("-r", "json").out)["tasks"]) > MANY


@pytest.mark.parametrize("spoilt", [b"", b"codegen-tasks snapshot 1 ", None])
def test_a_broken_snapshot_is_a_miss_and_made_anew(many: Project, spoilt: bytes | None) -> None:
    whole = (many.path / ".codegen/snapshot").read_bytes()
    many.write(".codegen/snapshot", whole[:-1] + b"\1" if spoilt is None else spoilt)
    assert many.doit("info").out == f"{MANY + 5} targets up to date\n"
    assert many.doit().out.startswith(f"{MANY + 5} up to date")
    assert counted(many).of["task"] == 4


def test_a_snapshot_of_another_state_of_the_database_counts_for_nothing(many: Project) -> None:
    old = (many.path / ".codegen/snapshot").read_bytes()
    pattern = many.read("patterns/p007.toml")
    many.write("patterns/p007.toml", 'name = "p7"\ngain = 1000\n')
    assert "1 generated" in many.doit().out
    many.write("patterns/p007.toml", pattern)
    many.write(".codegen/snapshot", old)
    assert "1 generated" in many.doit().out
    assert "P7! 7" in many.read("generated/p007.txt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("ending", ["in order", "killed", "refused"])
def test_many_files_are_looked_at_by_two_processes_of_which_one_may_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    names = [str(tmp_path / str(number)) for number in range(40)]
    for number, name in enumerate(names[:30]):
        Path(name).write_text("x" * number)
    expected = snapshot._looked_at(names)
    forked, fork = [], os.fork
    monkeypatch.setattr(snapshot, "_WORTH_A_FORK", 40)
    monkeypatch.setattr(forks, "may_fork", lambda: ending != "refused")

    def forking() -> int:
        forked.append(fork())
        if ending == "killed" and forked[-1] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return forked[-1]

    monkeypatch.setattr(os, "fork", forking)
    assert snapshot._signatures(names, str(tmp_path)) == expected
    assert len(forked) == (ending != "refused")
    assert expected[4 * 7] == 7
    assert tuple(expected[4 * 35 : 4 * 36]) == snapshot.ABSENT


# Beside tasks that are not ours ---------------------------------------------------------

WRITES = """
import pathlib

def write():
    for path in pathlib.Path("next").glob("*"):
        path.rename(f"patterns/{path.name}")

def task_fetch():  # says of no file that it makes it
    return {"actions": [write]}
"""


def test_a_task_that_runs_before_ours_may_change_patterns_unannounced(many: Project) -> None:
    many.write("dodo.py", many.read("dodo.py") + WRITES)
    assert "1 up to date" not in many.doit().out
    many.write("next/p007.toml", 'name = "p7"\ngain = 1000\n')
    many.write("next/new.toml", 'name = "new"\ngain = 1\n')
    out = many.doit("fetch", "generate").out.splitlines()
    assert out[:4] == [
        ".  fetch",
        ".  generate:new.txt",
        ".  generate:p007.txt",
        ".  generate:list.txt",
    ]
    assert "P7! 1000" in many.read("generated/p007.txt")
    assert many.doit().out.splitlines()[0] == ".  fetch"
    assert counted(many).of["task"] == 5


def test_a_task_that_waits_for_a_phase_runs_after_it(many: Project) -> None:
    many.write(
        "dodo.py",
        many.read("dodo.py")
        + """
def task_pack():
    return {"actions": ["cat generated/p007.txt > packed"], "task_dep": ["generate"]}

def task_check():
    return {"actions": ["true"], "file_dep": ["generated/p008.txt"], "targets": ["checked"]}
""",
    )
    assert many.doit("pack").out.splitlines()[0] == ".  pack"
    assert "P7! 7" in many.read("packed")
    many.write("patterns/p007.toml", 'name = "p7"\ngain = 1000\n')
    out = many.doit("pack").out
    assert out.index("generate:p007.txt") < out.index("pack")
    assert "P7! 1000" in many.read("packed")


@pytest.mark.parametrize(
    "wish",
    [
        '"task_dep": ["generate:p007.txt"]',
        '"setup": ["generate:p007.txt"]',
        '"getargs": {"values": ("generate", None)}',
        '"uptodate": [result_dep("generate:p007.txt")]',
        '"task_dep": ["generate:p00*"]',
        '"targets": ["patterns/p007.toml"]',
    ],
)
def test_what_another_task_asks_of_a_step_it_gets(many: Project, wish: str) -> None:
    task = f"""
from doit.tools import result_dep

def wanted():
    return {{"actions": ["true"], {wish}}}

def task_wanting():
    return wanted()
"""
    many.write("dodo.py", many.read("dodo.py") + task)
    for arguments in (["wanting"], [], ["generate:p007.txt"], ["-n", "2"]):
        result = many.doit(*arguments)
        assert (result.code, result.err) == (0, ""), (arguments, result)


def test_a_run_in_which_only_others_had_work_leaves_the_next_one_as_little(many: Project) -> None:
    always = '\ndef task_always():\n    return {"actions": ["true"]}\n'
    many.write("dodo.py", many.read("dodo.py") + always)
    many.doit()
    for _ in range(2):
        found = counted(many)
        assert found.of["task"] == 5
        assert f"{MANY + 5} up to date" in found.out


def test_a_long_chain_of_other_tasks_is_followed_to_its_end(many: Project) -> None:
    chain = """
def task_link():
    for number in range(3000):
        yield {"name": str(number), "actions": [], "task_dep": [f"link:{number + 1}"]}
    yield {"name": "3000", "actions": []}
"""
    many.write("dodo.py", many.read("dodo.py") + chain)
    result = many.doit("link:1000", "generate")
    assert (result.code, result.err) == (0, "")
    assert f"{MANY + 5} up to date" in result.out
