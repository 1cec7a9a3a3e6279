"""Two runs at once in one directory: the second waits and says for whom; nothing is lost."""

from __future__ import annotations

import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import Project, Result

from codegen_tasks.lock import Lock

DODO = """
import os
import time
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")
codegen.rule("list", template="list.j2", patterns="patterns/*.toml", target="list.txt")


@codegen.function
def note(name):
    with open("rendered", "a") as file:
        file.write(name + "\\n")
    end = time.monotonic() + 90
    while os.path.exists("held") and time.monotonic() < end:
        time.sleep(0.01)
    return name


def task_mine():
    return {"actions": ["echo mine"]}


DOIT_CONFIG = codegen.doit_config
"""
WAITING = r"\.codegen: waiting for pid (\d+), building since \d\d:\d\d:\d\d\n"


@pytest.fixture
def slow(empty_project: Project) -> Project:
    """Return six patterns whose render is noted, and waits as long as there is a file `held`."""
    project = empty_project
    project.write("dodo.py", DODO)
    project.write("templates/page.j2", "{{ note(pattern.stem) }} {{ x }}\n")
    project.write("templates/list.j2", "{% for p in patterns %}{{ p.pattern.stem }} {% endfor %}")
    for stem in "abcdef":
        project.write(f"patterns/{stem}.toml", "x = 1\n")
    return project


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "doit", *arguments],
        cwd=project.path,
        env=project.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def hold(project: Project, *arguments: str) -> subprocess.Popen[str]:
    """Start a run, and return when it is at its first render, where it stays until `let_go`."""
    project.write("held", "")
    running = start(project, *arguments)
    deadline = time.monotonic() + 60
    while not project.exists("rendered"):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return running


def let_go(project: Project) -> None:
    project.remove("held")


def waited(project: Project, *command: str) -> Result:
    """Return what comes of a command that waits for a held run, which is let go then.

    Its errors are those after it has told that it waits.
    """
    waiting = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=project.path,
        env=project.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    line = waiting.stderr.readline()
    let_go(project)
    out, err = waiting.communicate(timeout=60)
    assert re.fullmatch(WAITING, line), line + err
    return Result(waiting.returncode, out, err)


def rendered(project: Project) -> list[str]:
    return sorted(project.read("rendered").split())


def test_of_two_cold_runs_one_waits_and_nothing_is_rendered_twice(slow: Project) -> None:
    slow.write("held", "")
    both = [start(slow, "-n", "2"), start(slow, "-n", "2")]
    streams = [running.stderr for running in both]
    first, _, _ = select.select(streams, [], [], 60)
    lines = [stream.readline() for stream in first if stream is not None]
    let_go(slow)
    lines += [running.communicate(timeout=60)[1] for running in both]
    assert [running.returncode for running in both] == [0, 0]
    assert rendered(slow) == list("abcdef")
    told = [re.fullmatch(WAITING, line) for line in lines if line]
    # The other may say so too, if who waits was stopped in the moment that it looked at the lock.
    assert len(told) in (1, 2)
    assert all(found and int(found[1]) in [running.pid for running in both] for found in told)
    assert slow.doit("info").code == 0
    assert not slow.exists(".codegen/lock")


def test_a_run_that_waited_sees_what_changed_meanwhile(slow: Project) -> None:
    first = hold(slow)
    second = start(slow)
    assert second.stderr is not None
    assert re.fullmatch(WAITING, second.stderr.readline())
    slow.write("patterns/new.toml", "x = 1\n")
    let_go(slow)
    assert second.communicate(timeout=60)[1] == ""
    assert first.wait() == second.returncode == 0
    assert rendered(slow) == ["a", "b", "c", "d", "e", "f", "new"]
    assert slow.read("generated/list.txt").split() == ["a", "b", "c", "d", "e", "f", "new"]


def test_no_wait_stops_at_once_with_exit_code_3(slow: Project) -> None:
    first = hold(slow)
    second = slow.doit("--no-wait", "generate")
    let_go(slow)
    assert second.code == 3
    assert re.fullmatch(
        rf"ERROR: \.codegen: pid {first.pid}, building since \d\d:\d\d:\d\d\n"
        r"  hint: without --no-wait this run waits for it\n",
        second.err,
    )
    assert first.wait(timeout=60) == 0
    assert "\n7 up to date" in slow.doit("--no-wait").out


def test_the_users_tasks_wait_for_no_build(slow: Project) -> None:
    first = hold(slow)
    mine = slow.doit("mine")
    assert (mine.code, mine.err) == (0, "")
    assert first.poll() is None
    let_go(slow)
    assert first.wait(timeout=60) == 0
    assert slow.doit("info").code == 0


@pytest.mark.parametrize("command", [["info"], ["list", "--all", "-s"], ["manifest", "status"]])
def test_readers_neither_wait_nor_fail(slow: Project, command: list[str]) -> None:
    first = hold(slow)
    reader = (slow.codegen if command[0] == "manifest" else slow.doit)(*command)
    assert (reader.code in (0, 1), reader.err) == (True, "")
    assert first.poll() is None
    let_go(slow)
    assert first.wait(timeout=60) == 0


@pytest.mark.slow
def test_clean_waits_and_leaves_nothing(slow: Project) -> None:
    first = hold(slow)
    assert waited(slow, "doit", "clean").err == ""
    assert first.wait() == 0
    assert slow.files(".codegen/state.db") == {
        name: data
        for name, data in slow.files().items()
        if not name.startswith((".codegen", "generated"))
    }
    assert slow.doit("-n", "2").code == 0
    assert len(rendered(slow)) == 12


@pytest.mark.slow
def test_prune_waits_and_removes_what_the_build_left(slow: Project) -> None:
    slow.write("patterns/old.toml", "x = 1\n")
    assert slow.doit("generate:old.txt").code == 0
    slow.remove("patterns/old.toml")
    slow.remove("rendered")
    first = hold(slow)
    prune = waited(slow, "codegen_tasks", "prune")
    assert first.wait(timeout=60) == 0
    assert prune.out == "generated/old.txt: removed\n1 orphan removed\n"
    assert not slow.exists(".codegen/lock")
    assert slow.doit("info").out.startswith("7 targets up to date\n")


@pytest.mark.parametrize("command", ["forget", "ignore"])
def test_what_forget_and_ignore_change_is_not_lost_nor_loses_anything(
    slow: Project, command: str
) -> None:
    first = hold(slow)
    changed = waited(slow, "doit", command, "generate:a.txt")
    assert (changed.code, changed.err) == (0, "")
    assert first.wait() == 0
    out = slow.doit().out
    assert (".  generate:a.txt" in out) == (command == "forget")
    assert len(rendered(slow)) == 6 + (command == "forget")


def test_a_lock_left_by_a_killed_run_is_nobodys(slow: Project) -> None:
    first = hold(slow, "-n", "2")
    first.kill()
    first.communicate()
    let_go(slow)
    assert slow.exists(".codegen/lock")
    slow.write("generated/.codegen-0123456789abcdef", "half of a f")
    slow.write(".codegen/tmp/1-x/y", "")
    second = slow.doit()
    assert (second.code, second.err) == (0, "")
    assert not slow.exists(".codegen/lock")
    assert not slow.exists("generated/.codegen-0123456789abcdef")
    assert not slow.exists(".codegen/tmp")
    assert slow.doit("info").code == 0


def test_a_run_with_nothing_to_do_takes_no_lock(slow: Project) -> None:
    slow.doit()
    state = slow.path / ".codegen"
    before = (slow.stamps("."), state.stat().st_mtime_ns)
    slow.doit()
    assert (slow.stamps("."), state.stat().st_mtime_ns) == before


@pytest.mark.slow
def test_where_files_cannot_be_locked_a_pid_stands_in(slow: Project) -> None:
    broken = (
        "import errno\nimport codegen_tasks.lock\n"
        "def _lock(handle):\n    raise OSError(errno.ENOLCK, 'No locks available')\n"
        "codegen_tasks.lock._lock = _lock\n"
    )
    slow.write("dodo.py", broken + DODO)
    said = ".codegen: files cannot be locked here (no locks available), so lock.pid stands in\n"
    first = hold(slow)
    assert waited(slow, "doit").code == 0
    assert first.communicate()[1] == said
    assert rendered(slow) == list("abcdef")
    slow.remove("rendered")
    slow.write("templates/page.j2", "{{ note(pattern.stem) }}\n")
    third = hold(slow)
    third.send_signal(signal.SIGKILL)
    third.communicate()
    let_go(slow)
    assert slow.exists(".codegen/lock.pid")
    last = slow.doit()
    assert (last.code, last.err) == (0, said)
    assert not slow.exists(".codegen/lock.pid")
    assert slow.doit("info").code == 0


def test_where_locks_lock_nobody_out_a_pid_stands_in(slow: Project) -> None:
    broken = "import codegen_tasks.lock\ncodegen_tasks.lock._lock = lambda handle: True\n"
    slow.write("dodo.py", broken + DODO)
    assert slow.doit("generate:a.txt").err == (
        ".codegen: files cannot be locked here (it locks out nobody), so lock.pid stands in\n"
    )


def test_without_a_codegen_no_wait_is_no_option(empty_project: Project) -> None:
    empty_project.write("dodo.py", "def task_a():\n    return {'actions': ['echo a']}\n")
    result = empty_project.doit("--no-wait")
    assert result.code == 3
    assert "no-wait not recognized" in result.err
    assert "no-wait" not in empty_project.doit("help", "run").out


CLEANED_MEANWHILE = """
import os
import subprocess
import sys
import codegen_tasks.runner

hold = codegen_tasks.runner.CodegenRunner._hold


def late(self):
    if os.environ.pop("CLEAN_MEANWHILE", ""):
        subprocess.run([sys.executable, "-m", "doit", "clean"], check=True, capture_output=True)
    return hold(self)


codegen_tasks.runner.CodegenRunner._hold = late
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_what_was_up_to_date_before_the_lock_was_had_is_looked_at_again(
    slow: Project, workers: list[str]
) -> None:
    slow.write("dodo.py", CLEANED_MEANWHILE + DODO)
    slow.doit()
    slow.write("patterns/f.toml", "x = 2\n")
    time.sleep(0.05)
    assert slow.run(sys.executable, "-m", "doit", *workers, CLEAN_MEANWHILE="1").code == 0
    assert slow.doit("info").code == 0
    assert len(list((slow.path / "generated").iterdir())) == 7


def test_who_waited_is_told_so_though_the_holder_came_before_it_looked(tmp_path: Path) -> None:
    first, second = Lock(str(tmp_path)), Lock(str(tmp_path))
    first.acquire()
    time.sleep(0.05)  # else it could not tell the times apart, and would say so anyway
    second.look()
    threading.Timer(0.2, first.release).start()
    assert second.acquire()
    second.release()
