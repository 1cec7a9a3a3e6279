"""Promise 5: killed at any moment, the next run is right and repeats no finished step.

Run as a script, this file is a warm process that does the killing; see `main`.
All of it, with its numbers: `pytest -s -m slow tests/test_promise_5_killed_at_any_moment.py`;
`KILLS=1000` before it kills that many builds at random moments.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from forked import import_all

DODO = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")
codegen.rule("list", template="list.j2", patterns="patterns/*.toml", target="deep/list.txt")
codegen.rule("module", template="module.j2", patterns="patterns/*.toml", target="m/{stem}.py",
             compile="python")
DOIT_CONFIG = codegen.doit_config
"""
TEMPORARY = re.compile(r"\.codegen-[0-9a-f]{16}")
#: Functions of `os` that change a file.
WRITES = ("open", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "write", "ftruncate")


def make_project(path: Path, patterns: int) -> None:
    for name, text in (
        ("dodo.py", DODO),
        ("templates/page.j2", "{% include 'part.j2' %} {{ x }}\n"),
        ("templates/part.j2", "part\n"),
        ("templates/list.j2", "{% for p in patterns %}{{ p.x }} {% endfor %}\n"),
        ("templates/module.j2", "x = {{ x }}\n"),
        *((f"patterns/p{n:02}.toml", f"x = {n}\n") for n in range(patterns)),
    ):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)


# Children -------------------------------------------------------------------------------


def begin(folder: Path, arguments: Iterable[str], prepare: Callable[[], Any] = int) -> int:
    """Fork a process that runs doit in a folder; its output goes beside the folder."""
    child = os.fork()
    if child:
        os.setpgid(child, child)  # here too, or it might be killed before it does so
        return child
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    os.environ["XDG_STATE_HOME"] = str(folder.parent / "state-home")
    sys.path[0] = str(folder)
    sys.dont_write_bytecode = True
    from doit.doit_cmd import DoitMain

    prepare()
    code = DoitMain().run(list(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def doit(folder: Path, *arguments: str) -> tuple[int, str]:
    code = os.waitstatus_to_exitcode(os.waitpid(begin(folder, arguments), 0)[1])
    return code, Path(f"{folder}.out").read_text() + Path(f"{folder}.err").read_text()


def die_at(number: int) -> Callable[[], None]:
    """Return what makes a process kill itself when it comes to its n-th write point.

    Those lie before and after whatever changes a file, writes to a pipe or starts a process.
    Where nothing has changed since the one before, a kill would leave the same behind.
    """

    def prepare() -> None:
        from codegen_tasks import sqlite

        main, count, changed = os.getpid(), 0, True

        def point() -> None:
            nonlocal count, changed
            if changed and os.getpid() == main:
                count += 1
                if count == number:
                    os.kill(main, signal.SIGKILL)
            changed = False

        def wrapped(function: Callable[..., Any], opens: bool = False) -> Callable[..., Any]:
            def write(*arguments: Any, **named: Any) -> Any:
                nonlocal changed
                point()
                result = function(*arguments, **named)
                changed = not opens or bool(arguments[1] & (os.O_WRONLY | os.O_RDWR))
                to_be_written = opens and changed  # perhaps by what is not wrapped
                point()
                changed = to_be_written
                return result

            return write

        for name in WRITES:
            setattr(os, name, wrapped(getattr(os, name), name == "open"))
        os.fork = wrapped(os.fork)
        subprocess.Popen.__init__ = wrapped(subprocess.Popen.__init__)  # type: ignore[method-assign]
        opened = sqlite._opened

        def traced(*arguments: Any) -> Any:
            nonlocal changed
            connection = opened(*arguments)
            changed = True
            connection.set_trace_callback(before_statement)
            return connection

        def before_statement(_: str) -> None:  # "commit" too
            nonlocal changed
            point()
            changed = True

        sqlite._opened = traced

    return prepare


# What must hold -------------------------------------------------------------------------


def outputs(folder: Path) -> dict[str, bytes]:
    found = [path for path in (folder / "generated").rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def recorded(folder: Path) -> set[str]:
    """Return the tasks whose record of success has been committed."""
    from doit.dependency import JSONCodec

    from codegen_tasks.state import StateDB

    db = StateDB(str(folder / ".codegen/state.db"), JSONCodec())
    return {task for task in db.tasks() if "trace" in (db.get(task, "_values_:") or {})}


def check(folder: Path, clean: dict[str, bytes], how: str) -> set[str]:
    """Build after a kill; the tree must be right, and no finished step be repeated.

    Returns the steps that had finished.
    """
    whole = {name: data for name, data in outputs(folder).items() if not TEMPORARY.search(name)}
    assert whole.items() <= clean.items(), f"{how}: a target is torn"
    finished = recorded(folder)
    code, said = doit(folder, *(["-n", "2"] if random.random() < 0.3 else []))
    assert code == 0, (how, said)
    assert "Traceback" not in said, (how, said)
    ran = {line.removeprefix(".  ") for line in said.splitlines() if line.startswith(".  ")}
    assert ran & finished == set(), (how, said)
    assert "kept aside" not in said, (how, said)
    assert outputs(folder) == clean, how
    code, said = doit(folder, "info")
    assert code == 0, (how, said)
    left = [p.name for p in (folder / ".codegen").rglob("*") if TEMPORARY.fullmatch(p.name)]
    assert left == [], how
    return finished


class Killer:
    """Builds a project again and again, each time killed at another moment."""

    def __init__(self, home: Path, patterns: int):
        self.home = home
        self.model = home / "model"
        make_project(self.model, patterns)
        clean = self.copy("clean")
        start = time.monotonic()
        assert doit(clean)[0] == 0
        self.seconds = time.monotonic() - start
        self.clean = outputs(clean)
        self.steps = recorded(clean)
        self.kills = 0
        self.midway = 0  # kills after some step had finished, and before all had

    def copy(self, name: str) -> Path:
        folder = self.home / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.model, folder)
        return folder

    def at_each_write(self, arguments: list[str], step: int) -> None:
        number = 1
        while True:
            folder = self.copy("killed")
            child = begin(folder, arguments, die_at(number))
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
                return
            self.survived(folder, f"write {number} of {arguments}")
            number += step

    def at_random(self, count: int, midway: int) -> None:
        """Kill builds at random moments, until so many of them were killed midway.

        How long a build takes depends on what else the machine does: the moments follow it.
        """
        tried = 0
        while tried < count or (self.midway < midway and tried < 20 * count):
            tried += 1
            folder = self.copy("killed")
            arguments = random.choice([[], ["-n", "2"]])
            child = begin(folder, arguments)
            time.sleep(random.uniform(0, 1.3 * self.seconds))
            random.choice([os.kill, os.killpg])(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code != -signal.SIGKILL:
                check(folder, self.clean, f"{arguments}, over before it was killed")
                self.seconds *= 0.8
            elif not self.survived(folder, f"{arguments}, at random"):
                self.seconds *= 1.1

    def survived(self, folder: Path, how: str) -> set[str]:
        """Check what a kill left; return the steps that had finished."""
        finished = check(folder, self.clean, how)
        self.kills += 1
        self.midway += set() < finished < self.steps
        return finished


def main(home: str, what: str, patterns: int, number: int) -> None:
    """Kill builds and check what follows; print how many were killed, and how many midway."""
    import_all()
    random.seed(number)
    killer = Killer(Path(home), patterns)
    if what == "random":
        killer.at_random(number, midway=max(1, number // 5))
    else:
        killer.at_each_write(json.loads(what), number)
    print(killer.kills, killer.midway)


def kills(tmp_path: Path, what: str, patterns: int, number: int) -> int:
    """Return how many builds were killed midway."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CODEGEN_")}
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), what, str(patterns), str(number)],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, midway = map(int, done.stdout.split()[-2:])
    print(f"\n{killed} kills survived, {midway} of them of a build midway")
    return midway


def test_killed_at_some_write_points_the_next_run_repeats_nothing(tmp_path: Path) -> None:
    assert kills(tmp_path, "[]", 2, 16) >= 5


def test_killed_at_some_random_moments_the_next_run_repeats_nothing(tmp_path: Path) -> None:
    assert kills(tmp_path, "random", 10, 10) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["[]", '["-n", "2"]'])
def test_killed_at_every_write_point_the_next_run_repeats_nothing(
    tmp_path: Path, arguments: str
) -> None:
    assert kills(tmp_path, arguments, 2, 1) >= 30


@pytest.mark.slow
def test_killed_at_hundreds_of_random_moments_the_next_run_repeats_nothing(
    tmp_path: Path,
) -> None:
    count = int(os.environ.get("KILLS", "40"))
    assert kills(tmp_path, "random", 20, count) >= max(1, count // 5)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
