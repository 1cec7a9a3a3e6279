"""Promise 6: a death, a hang or a bad result fails its target, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import Project

METHODS = ["fork", "forkserver", "spawn"]
DODO = """
import multiprocessing
from codegen_tasks import Codegen
from dying import act

if __name__ != "__mp_main__":
    multiprocessing.set_start_method("{method}")

codegen = Codegen({options})
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{{stem}}.txt"{limit})
codegen.function(act)
DOIT_CONFIG = codegen.doit_config
"""
#: What a template's function does for the pattern `bad`.
WAYS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "segfault": "ctypes.string_at(0)",
    "exit": "os._exit(7)",
    "fork and exit": "os.fork() or time.sleep(60)\n        os._exit(7)",
    "regex": "re.match('(a+)+$', 'a' * 60 + 'b')",
    "sleep": "time.sleep(60)",
    "memory": (
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1))\n"
        "        [bytearray(1 << 20) for _ in range(1 << 14)]"
    ),
}


def make(
    project: Project, way: str, method: str = "fork", limit: str = "", options: str = ""
) -> Project:
    project.write("dodo.py", DODO.format(method=method, limit=limit, options=options))
    project.write(
        "dying.py",
        "import ctypes, os, re, resource, signal, time\n\n\n"
        f"def act(name):\n    if name == 'bad':\n        {WAYS[way]}\n    return name\n",
    )
    project.write("templates/page.j2", "{{ act(pattern.stem) }}\n")
    for stem in ("bad", *(f"p{number:02}" for number in range(12))):
        project.write(f"patterns/{stem}.toml", "x = 1\n")
    return project


def left(project: Project, seconds: float = 30) -> list[psutil.Process]:
    """Return the processes that still run in the project's folder when so much time is over."""
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(project.path) and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def fails_alone(project: Project, message: str, *workers: str) -> None:
    result = project.doit("-c", *workers)
    assert result.code == 1, result
    assert f"  generate:bad.txt: {message}\n" in result.out
    assert "12 generated, 1 failed" in result.out
    assert not project.exists("generated/bad.txt")
    assert left(project) == []
    project.write("dying.py", "def act(name):\n    return name\n")
    assert project.doit(*workers).code == 0
    assert project.read("generated/bad.txt") == "bad\n"


@pytest.mark.parametrize(
    ("way", "how"),
    [
        ("SIGKILL", "by signal 9"),
        ("segfault", "by signal 11"),
        ("exit", "with exit code 7"),
        ("fork and exit", "with exit code 7"),
    ],
)
def test_a_worker_that_dies_fails_its_target_only(
    empty_project: Project, way: str, how: str
) -> None:
    make(empty_project, way)
    fails_alone(empty_project, f"the worker process died {how}", "-n", "2")


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_worker_that_dies_fails_its_target_only_however_it_was_started(
    empty_project: Project, method: str
) -> None:
    make(empty_project, "SIGKILL", method)
    fails_alone(empty_project, "the worker process died by signal 9", "-n", "2")


def test_a_worker_without_memory_fails_its_target_only(empty_project: Project) -> None:
    make(empty_project, "memory")
    result = empty_project.doit("-c", "-n", "2")
    assert result.code == 1
    assert "failed: generate:bad.txt\n" in result.out
    assert "MemoryError" in result.out
    assert "12 generated, 1 failed" in result.out
    assert "Traceback" not in result.out


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
@pytest.mark.parametrize("way", ["regex", "sleep"])
def test_a_render_past_its_rules_limit_fails_its_target_only(
    empty_project: Project, way: str, workers: list[str]
) -> None:
    make(empty_project, way, limit=", timeout=2")
    fails_alone(empty_project, "took longer than 2 s", *workers)


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_limit_holds_however_workers_are_started(empty_project: Project, method: str) -> None:
    make(empty_project, "regex", method, limit=", timeout=2")
    fails_alone(empty_project, "took longer than 2 s")


def test_a_sandboxed_render_has_a_limit_of_its_own(empty_project: Project) -> None:
    make(empty_project, "regex", options="sandbox=True")
    result = empty_project.doit("-c", CODEGEN_SANDBOX_SECONDS="2")
    assert result.code == 1
    assert "  generate:bad.txt: took longer than 2 s\n" in result.out
    assert "12 generated, 1 failed" in result.out


def test_without_c_a_render_past_its_limit_ends_the_run(empty_project: Project) -> None:
    make(empty_project, "sleep", limit=", timeout=2")
    result = empty_project.doit()
    assert result.code == 1
    assert "generate:bad.txt: took longer than 2 s" in result.out
    assert left(empty_project) == []


# Compilers ------------------------------------------------------------------------------

COMPILING = """
import multiprocessing
import sys
from codegen_tasks import Codegen, Toolchain

if __name__ != "__mp_main__":
    multiprocessing.set_start_method("{method}")

codegen = Codegen()


def tool(timeout):
    return Toolchain("tool", [sys.executable, "tool.py", "{{source}}", "{{target}}"], ".out",
                     version=[sys.executable, "--version"], timeout=timeout)


codegen.rule("bad", template="page.j2", patterns="patterns/bad.toml", target="{{stem}}.txt",
             compile=tool({timeout}))
codegen.rule("page", template="page.j2", patterns="patterns/?.toml", target="{{stem}}.txt",
             compile=tool(None))
DOIT_CONFIG = codegen.doit_config
"""
TOOL = """
import os, signal, subprocess, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "bad" in sys.argv[1]:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    if os.fork() == 0:  # a daemon: another session, no parent, our output held open
        os.setsid()
        if os.fork() == 0:
            subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])
        os._exit(0)
    open("begun", "w").close()
    time.sleep({seconds})
open(sys.argv[2], "w").write("compiled")
"""


def make_compiling(
    project: Project, timeout: float, seconds: float, method: str = "fork"
) -> Project:
    project.write("dodo.py", COMPILING.format(method=method, timeout=timeout))
    project.write("tool.py", TOOL.format(seconds=seconds))
    project.write("templates/page.j2", "{{ pattern.stem }}\n")
    for stem in ("bad", "a", "b"):
        project.write(f"patterns/{stem}.toml", "x = 1\n")
    return project


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_compiler_that_hangs_is_ended_with_all_it_started(
    empty_project: Project, workers: list[str]
) -> None:
    make_compiling(empty_project, 1.5, 60)
    result = empty_project.doit("-c", *workers)
    assert result.code == 1
    assert "failed: compile:bad.out\n  generated/bad.txt: tool took longer than 1.5 s\n" in (
        result.out
    )
    assert "3 generated, 2 compiled, 1 failed" in result.out
    assert left(empty_project) == []


def test_a_daemon_that_holds_a_compilers_output_open_holds_nothing_up(
    empty_project: Project,
) -> None:
    make_compiling(empty_project, 60, 0)
    result = empty_project.doit()
    assert result.code == 0
    assert "3 generated, 3 compiled" in result.out
    for daemon in left(empty_project, seconds=0):  # left alone: it may serve the next compile
        daemon.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals as POSIX has them")
@pytest.mark.parametrize(
    ("workers", "method", "number"),
    [
        pytest.param(
            *(workers, method, number),
            marks=[] if method == "fork" or number == signal.SIGKILL else [pytest.mark.slow],
        )
        for workers, method in [([], "fork"), *((["-n", "2"], method) for method in METHODS)]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    ],
)
def test_whatever_ends_a_run_ends_all_it_started(
    empty_project: Project, workers: list[str], method: str, number: signal.Signals
) -> None:
    project = make_compiling(empty_project, 60, 60, method)
    running = subprocess.Popen(
        [sys.executable, "-m", "doit", *workers],
        cwd=project.path,
        env=project.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not project.exists("begun"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(number)
    running.wait(timeout=60)
    assert running.returncode in (-number, 128 + number)
    assert left(project) == []
    project.write("tool.py", TOOL.format(seconds=0).replace('"bad" in', '"none" in'))
    assert project.doit().code == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_render_that_never_ends_dies_with_a_killed_run(
    empty_project: Project, method: str
) -> None:
    project = make(empty_project, "regex", method)
    running = subprocess.Popen(
        [sys.executable, "-m", "doit", "-n", "2"],
        cwd=project.path,
        env=project.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not project.exists("generated/p11.txt"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.kill()
    running.wait()
    assert left(project) == []
