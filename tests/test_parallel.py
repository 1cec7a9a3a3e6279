"""Parallel runs: really at once, the same bytes, failures that stop or do not stop."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import Project

SLOW = """
import os
import time
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")


@codegen.function
def work(name):
    start = time.time()
    open(f"begun/{name}", "w").close()
    end = start + 60
    while len(os.listdir("begun")) < TOGETHER and time.time() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    with open(f"times/{name}", "w") as file:
        file.write(f"{start} {time.time()}")
    return name


DOIT_CONFIG = codegen.doit_config
"""


@pytest.fixture
def slow(empty_project: Project) -> Project:
    """Return three patterns whose render takes a while and notes when it ran."""
    project = empty_project
    together(project, 1)
    project.write("templates/page.j2", "{{ work(pattern.stem) }}\n")
    for stem in ("a", "b", "c"):
        project.write(f"patterns/{stem}.toml", "x = 1\n")
    (project.path / "times").mkdir()
    (project.path / "begun").mkdir()
    return project


def together(project: Project, number: int) -> None:
    """Have each render wait until so many have begun."""
    project.write("dodo.py", SLOW.replace("TOGETHER", str(number)))


def spans(project: Project) -> list[tuple[float, float]]:
    found = [path.read_text().split() for path in (project.path / "times").iterdir()]
    return [(float(start), float(end)) for start, end in found]


def overlapping(project: Project) -> int:
    """Return how many renders were under way at the same moment, at most."""
    times = spans(project)
    return max(sum(start <= moment < end for start, end in times) for moment, _ in times)


def test_three_workers_render_three_at_once(slow: Project) -> None:
    together(slow, 3)
    result = slow.doit("-n", "3", "-v", "2", "generate")
    assert result.code == 0
    assert overlapping(slow) == 3
    pids = re.findall(r"generate:\w\.txt  \(pid (\d+), \d\d+ ms\)", result.out)
    assert len(set(pids)) == 3


def test_two_workers_render_two_at_once(slow: Project) -> None:
    together(slow, 2)
    assert slow.doit("-n", "2", "generate").code == 0
    assert overlapping(slow) == 2


def test_without_n_one_process_renders_one_after_the_other(slow: Project) -> None:
    result = slow.doit("-v", "2", "generate")
    assert overlapping(slow) == 1
    assert len(set(re.findall(r"pid (\d+)", result.out))) == 1


def test_parallel_can_be_switched_off(slow: Project) -> None:
    assert slow.doit("-n", "3", CODEGEN_PARALLEL="0").code == 0
    assert overlapping(slow) == 1


def test_many_short_steps_share_messages_and_all_are_made(project: Project) -> None:
    for number in range(200):
        project.write(f"patterns/p{number:03}.toml", f'name = "p{number}"\ngain = {number}\n')
    result = project.doit("-n", "3")
    assert result.code == 0
    assert "205 generated in" in result.out
    assert "P77!" in project.read("generated/p077.txt")
    assert "205 up to date in" in project.doit("-n", "3").out


COUNTING = """
import codegen_tasks.ready, codegen_tasks.rows, codegen_tasks.workers

codegen_tasks.ready._JOB_SECONDS = 5  # however slow the machine


def noted(owner, name, what):
    really = getattr(owner, name)

    def noting(self, first):
        with open(name, "a") as file:
            file.write(f"{what(first)}\\n")
        return really(self, first)

    setattr(owner, name, noting)


noted(codegen_tasks.workers.Pool, "submit", lambda job: len(job.tasks))
noted(codegen_tasks.rows.Unpacker, "unpack", lambda text: text[:1])
"""


def test_a_job_holds_many_steps_and_what_they_came_to_is_not_decoded(project: Project) -> None:
    project.write("dodo.py", project.read("dodo.py") + COUNTING)
    for number in range(400):
        project.write(f"patterns/p{number:03}.toml", f'name = "p{number}"\ngain = {number}\n')
    assert "405 generated in" in project.doit("-n", "2").out
    jobs = [int(line) for line in project.read("submit").split()]
    assert sum(jobs) >= 405 + 5  # and the templates; near the end some are given to another
    assert len(jobs) < 100
    # Manifest and snapshot are made of what the workers have told.
    assert "[" not in (project.read("unpack") if project.exists("unpack") else "")


def test_no_step_waits_behind_a_long_one_while_a_worker_has_nothing_to_do(slow: Project) -> None:
    waits = "len(os.listdir('times')) < (63 if name == 'm' else 0)"
    noting = slow.read("dodo.py").replace("sleep(0.05)", "sleep(0)")
    noting = noting.replace('times/{name}", "w"', 'times/{name}", "a"')
    slow.write("dodo.py", noting.replace('len(os.listdir("begun")) < 1', waits))
    for number in range(60):
        slow.write(f"patterns/{'amz'[number % 3]}{number}.toml", "x = 1\n")
    slow.write("patterns/m.toml", "x = 1\n")
    assert slow.doit("-n", "3").code == 0
    times = {path.name: path.read_text().split() for path in (slow.path / "times").iterdir()}
    assert len(times) == 64
    assert all(len(noted) == 2 for noted in times.values()), "each was rendered once"
    last = times.pop("m")[1]
    assert max(end for _, end in times.values()) < last


def test_what_took_long_is_begun_first(slow: Project) -> None:
    dodo = slow.read("dodo.py").replace("sleep(0.05)", "sleep(0.1)")
    slow.write("dodo.py", dodo.replace("sleep(0.1)", "sleep(2 if name == 'z' else 0.1)"))
    for stem in "defz":
        slow.write(f"patterns/{stem}.toml", "x = 1\n")
    slow.doit("-n", "2")
    slow.write("dodo.py", dodo)
    slow.write("templates/page.j2", "{{ work(pattern.stem) }}!\n")
    out = slow.doit("-n", "2").out
    told = [line for line in out.splitlines() if "generate:" in line]
    assert len(told) == 7
    assert ".  generate:z.txt" in told[:3]  # two began when they were the first to be ready


def test_serial_and_parallel_make_the_same_bytes(project: Project) -> None:
    project.doit()
    serial = project.files(".codegen")
    for folder in (".codegen", "generated"):
        project.run("rm", "-r", folder)
    project.doit("-n", "4")
    assert project.files(".codegen") == serial


def test_without_c_the_first_failure_stops_new_work(slow: Project) -> None:
    slow.doit("templates")  # else doit starts what waited for them in any order
    slow.write("patterns/a.toml", "broken")
    for stem in "defghi":
        slow.write(f"patterns/{stem}.toml", "x = 1\n")
    result = slow.doit("-n", "2")
    assert result.code == 1
    assert result.out.count("failed: generate:a.txt") == 1
    assert len(spans(slow)) <= 2


def test_with_c_the_rest_is_finished(slow: Project) -> None:
    slow.write("patterns/a.toml", "broken")
    result = slow.doit("-c", "-n", "2")
    assert result.code == 1
    assert {path.name for path in (slow.path / "generated").iterdir()} == {"b.txt", "c.txt"}
    assert "2 generated, 1 failed" in result.out


def test_a_failed_run_keeps_what_was_finished(slow: Project) -> None:
    slow.write("patterns/b.toml", "broken")
    assert slow.doit("generate:a.txt", "generate:b.txt").code == 1
    slow.write("patterns/b.toml", "x = 2")
    out = slow.doit().out
    assert "generate:a.txt" not in out
    assert "2 generated, 1 up to date" in out


def test_a_worker_that_dies_fails_its_step_and_no_other(project: Project) -> None:
    dodo = project.read("dodo.py") + (
        "\n\n@codegen.function\ndef die(name):\n    import os, signal\n"
        "    if name == 'birch':\n        os.kill(os.getpid(), signal.SIGKILL)\n    return name\n"
    )
    project.write("dodo.py", dodo)
    project.write("templates/page.txt.j2", "{{ die(name) }}")
    for number in range(40):
        project.write(f"patterns/p{number:02}.toml", f'name = "p{number}"\n')
    started = time.monotonic()
    result = project.doit("-c", "-n", "2")
    assert time.monotonic() - started < 60
    assert result.code == 1
    assert "generate:birch.txt: the worker process died by signal 9" in result.out
    assert project.read("generated/p39.txt") == "p39"
    assert not project.exists("generated/birch.txt")


# Logs -----------------------------------------------------------------------------------


def test_a_log_exists_only_for_what_printed_or_failed(project: Project) -> None:
    dodo = project.read("dodo.py") + (
        "\n\n@codegen.function\ndef say(text):\n    print(text)\n    return ''\n"
    )
    project.write("dodo.py", dodo)
    project.write("templates/plain.txt.j2", "{{ say('hello') }}plain\n")
    project.write("patterns/ash.toml", "name = ")
    assert project.doit("-c").code == 1
    logs = {
        path.relative_to(project.path / ".codegen/logs").as_posix()
        for path in (project.path / ".codegen/logs/generate").rglob("*.log")
    }
    assert logs == {"generate/plain.txt.log", "generate/ash.txt.log", "generate/list.txt.log"}
    assert project.read(".codegen/logs/generate/plain.txt.log") == "hello\n"
    assert "patterns/ash.toml" in project.read(".codegen/logs/generate/ash.txt.log")


def test_a_log_goes_when_its_step_succeeds_in_silence(project: Project) -> None:
    project.write("patterns/ash.toml", "name = ")
    project.doit("-c")
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 0\n')
    project.doit()
    assert not project.exists(".codegen/logs/generate/ash.txt.log")


def test_what_a_step_prints_is_shown_with_verbosity_2_only(project: Project) -> None:
    dodo = project.read("dodo.py") + (
        "\n\n@codegen.function\ndef say(text):\n    print(text)\n    return ''\n"
    )
    project.write("dodo.py", dodo)
    project.write("templates/plain.txt.j2", "{{ say('hello') }}plain\n")
    assert "hello" not in project.doit().out
    assert "hello" in project.doit("-v", "2", "-a").out


# Summary --------------------------------------------------------------------------------


def test_the_summary_counts_what_was_made_and_what_was_not(project: Project) -> None:
    project.doit()
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    out = project.doit().out
    assert out.splitlines()[:-1] == [".  generate:ash.txt", ".  generate:list.txt"]
    last = out.splitlines()[-1]
    assert re.fullmatch(r"2 generated, 3 up to date in \d+\.\d\d s \(templates 4 hits\)", last)


def test_targets_that_are_up_to_date_are_shown_if_asked_for(project: Project) -> None:
    project.doit()
    assert "-- generate:ash.txt" in project.doit("-r", "console").out
    assert "--" not in project.doit().out


# Compilers ------------------------------------------------------------------------------

UPPER_AND_COPY = """
import sys
from codegen_tasks import Codegen, Toolchain

codegen = Codegen()
for name in ("upper", "copy"):
    tool = Toolchain(name, [sys.executable, f"tool_{name}.py", "{source}", "{target}"], f".{name}")
    target = "{stem}-%s.txt" % name
    codegen.rule(name, template="page.j2", patterns="patterns/*.toml", target=target, compile=tool)
DOIT_CONFIG = codegen.doit_config
"""


def test_each_file_is_compiled_by_its_own_rules_toolchain(empty_project: Project) -> None:
    project = empty_project
    project.write("dodo.py", UPPER_AND_COPY)
    project.write("templates/page.j2", "{{ pattern.stem }}\n")
    for name, change in (("upper", ".upper()"), ("copy", "")):
        project.write(
            f"tool_{name}.py",
            f"import sys\nopen(sys.argv[2], 'w').write(open(sys.argv[1]).read(){change})\n",
        )
    for number in range(20):
        project.write(f"patterns/p{number}.toml", "x = 1\n")
    assert project.doit("-n", "2").code == 0
    for number in range(20):
        assert project.read(f"generated/p{number}-upper.upper") == f"P{number}\n"
        assert project.read(f"generated/p{number}-copy.copy") == f"p{number}\n"


def test_serial_runs_go_in_the_order_of_the_plan(project: Project) -> None:
    for number in range(30):
        project.write(f"patterns/p{number:02}.toml", f'name = "p{number}"\n')
    project.write("templates/page.txt.j2", "{{ name }}")
    lines = [line for line in project.doit().out.splitlines() if line.startswith(".  ")]
    pages = [line for line in lines if "list" not in line and "plain" not in line]
    assert pages == sorted(pages)


# Interrupts -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_in_order(
    slow: Project, workers: list[str], number: int, code: int
) -> None:
    slow.write(
        "dodo.py", slow.read("dodo.py").replace("sleep(0.05)", "sleep(60 if name == 'b' else 0)")
    )
    slow.doit("templates")  # else doit starts what waited for them in any order
    running = subprocess.Popen(
        [sys.executable, "-m", "doit", *workers],
        cwd=slow.path,
        env=slow.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # What comes after it tells that the run has heard of the first.
    after = "times/c" if workers else "begun/b"
    deadline = time.monotonic() + 60
    while not slow.exists(after):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert err == "interrupted; what was finished is kept\n"
    assert " generated in " in out
    psutil.wait_procs(family, timeout=30)
    assert [process for process in family if process.is_running()] == []
    assert "generate:a.txt" not in slow.doit("info").out
