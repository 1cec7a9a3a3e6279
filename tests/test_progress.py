"""What people see while a run goes on, and at its end: on a terminal, in a pipe, interrupted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

import pytest
from conftest import Project

from codegen_tasks import failures, progress

#: They wait for what takes time.
pytestmark = pytest.mark.slow

pyte = pytest.importorskip("pyte")

#: What ends each redraw of the view: the cursor goes back up.
REDRAW = re.compile(rb"\x1b\[\d+A\r")
COLOUR = re.compile(rb"\x1b\[[\d;]*m")

DODO = """
import os
import time

from codegen_tasks import Codegen, progress, reporter, screen

screen._FIRST = 0  # however short the work
codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")


@codegen.function
def hold(name):
    open(f"begun-{name}", "w").close()
    end = time.monotonic() + 60
    while not os.path.exists(f"go-{name}") and time.monotonic() < end:
        time.sleep(0.01)
    return name


DOIT_CONFIG = codegen.doit_config
"""


@pytest.fixture
def held(empty_project: Project) -> Project:
    """Return four patterns, each of whose renders waits for `go-STEM`."""
    project = empty_project
    project.write("dodo.py", DODO)
    project.write("templates/page.j2", "{{ hold(pattern.stem) }}\n")
    for stem in "abcd":
        project.write(f"patterns/{stem}.toml", "x = 1\n")
    return project


def go(project: Project, stems: str = "abcd") -> None:
    for stem in stems:
        project.write(f"go-{stem}", "")


def without_rich(project: Project) -> None:
    project.write("rich.py", "raise ImportError\n")


def with_table(project: Project) -> None:
    """Have the table of rich for short runs as well."""
    pytest.importorskip("rich")
    project.write("dodo.py", project.read("dodo.py") + "progress._RICH = progress._SURE = 0\n")


class Terminal:
    """A command on a terminal, and its screen as a person sees it."""

    def __init__(
        self, project: Project, *command: str, columns: int = 80, rows: int = 40, **environ: str
    ):
        self._screen = pyte.HistoryScreen(columns, rows, history=5000)
        self._stream = pyte.ByteStream(self._screen)
        self.sent = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        colourful = {name: value for name, value in project.environ.items() if name != "NO_COLOR"}
        colourful.pop("CI", None)
        self._process = subprocess.Popen(
            command or (sys.executable, "-m", "doit"),
            cwd=project.path,
            env={**colourful, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environ},
            preexec_fn=lambda: os.login_tty(theirs),
        )
        os.close(theirs)

    def _read(self, seconds: float) -> bool:
        """Take in what is sent within some time; False if no more will come."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return True
        try:
            sent = os.read(self._ours, 1 << 16)
        except OSError:  # as Linux tells that the other end is closed
            return False
        self.sent += sent
        self._stream.feed(sent)
        return bool(sent)

    @property
    def lines(self) -> list[str]:
        """All lines from the first on, those that have left the screen too."""
        width = range(self._screen.columns)
        above = ["".join(row[x].data for x in width) for row in self._screen.history.top]
        found = [line.rstrip() for line in [*above, *self._screen.display]]
        while found and not found[-1]:
            found.pop()
        return found

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, pattern: str) -> str:
        """Wait until the screen shows something; return it."""
        end = time.monotonic() + 60
        while not (found := re.search(pattern, self.text, re.MULTILINE)):
            assert self._read(0.05), f"the command has ended:\n{self.text}"
            assert time.monotonic() < end, f"{pattern} is not to be seen:\n{self.text}"
        return found[0]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true, whatever the screen shows."""
        end = time.monotonic() + 60
        while not condition():
            assert self._read(0.02), f"the command has ended:\n{self.text}"
            assert time.monotonic() < end, self.text

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int:
        """Wait for the command's end; return its exit code."""
        end = time.monotonic() + 60
        while self._read(0.1) and time.monotonic() < end:
            pass
        code = self._process.wait(20)
        os.close(self._ours)
        return code


def doit(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "doit", *arguments)


def settled(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+\.\d\d s", "N s", line) for line in lines]


# On a terminal --------------------------------------------------------------------------


def test_a_long_run_tells_what_is_done_and_what_is_under_way(held: Project) -> None:
    without_rich(held)
    screen = Terminal(held)
    screen.until(r"1 of 5 done: generate:a\.txt")
    go(held, "a")
    screen.until(r"2 of 5 done(, about \d+ \w+ left)?: generate:b\.txt")
    screen.until(r"generate:b\.txt \d+ s$")  # for how long
    go(held)
    assert screen.end() == 0


def test_the_view_leaves_nothing_on_the_screen(held: Project) -> None:
    without_rich(held)
    screen = Terminal(held)
    screen.until("2 of 5|1 of 5")
    go(held)
    assert screen.end() == 0
    assert settled(screen.lines) == [
        ".  generate:a.txt",
        ".  generate:b.txt",
        ".  generate:c.txt",
        ".  generate:d.txt",
        "4 generated in N s (templates 1 miss)",
    ]


def test_nothing_of_the_terminal_is_changed_that_a_killed_run_would_leave_so(
    held: Project,
) -> None:
    """No hidden cursor, no other screen, no scrolling region, no mode."""
    with_table(held)
    screen = Terminal(held, *doit("-n", "2"))
    screen.until(r"of 5 done")
    screen.kill()
    screen.end()
    codes = set(re.findall(rb"\x1b[^A-Za-z]*[A-Za-z]", screen.sent))
    assert {code[-1:] for code in codes} <= {b"A", b"J", b"K", b"m"}
    assert not screen._screen.cursor.hidden


def test_with_rich_each_worker_has_its_row(held: Project) -> None:
    with_table(held)
    held.remove("patterns/d.toml")
    screen = Terminal(held, *doit("-n", "3", "generate"))
    screen.until(r"━ +1 of 4 done")
    row = re.compile(r"^ +\d+ s  generate:\w\.txt$", re.MULTILINE)
    screen.wait(lambda: len(row.findall(screen.text)) == 3)
    go(held, "ab")
    screen.until(r"3 of 4 done")
    idle = re.compile(r"^ +idle$", re.MULTILINE)
    screen.wait(lambda: len(idle.findall(screen.text)) == 2)
    go(held)
    assert screen.end() == 0
    assert "━" not in screen.text
    assert screen.lines[-1].startswith("3 generated in ")


def test_short_work_shows_no_view(held: Project) -> None:
    held.write("dodo.py", DODO.replace("_FIRST = 0", "_FIRST = 60"))
    go(held)
    screen = Terminal(held)
    assert screen.end() == 0
    assert b"\x1b" not in screen.sent
    assert len(screen.lines) == 5


def test_a_run_with_nothing_to_do_loads_nothing_of_it(held: Project) -> None:
    go(held)
    dodo = DODO.replace("import Codegen, progress, reporter, screen", "import Codegen")
    held.write("dodo.py", dodo.replace("screen._FIRST", "FIRST"))
    assert held.doit().code == 0
    script = (
        "import sys; from doit.doit_cmd import DoitMain\n"
        "assert DoitMain().run([]) == 0\n"
        "names = ('progress', 'screen', 'table', 'failures')\n"
        "print([name for name in names if 'codegen_tasks.' + name in sys.modules])"
    )
    screen = Terminal(held, sys.executable, "-c", script)
    assert screen.end() == 0
    assert screen.lines[-1] == "[]"
    assert b"\x1b" not in screen.sent


def test_the_view_is_redrawn_ten_times_a_second_at_most(held: Project) -> None:
    without_rich(held)
    held.write("templates/page.j2", "{{ pattern.stem }}")
    for number in range(1500):
        held.write(f"patterns/p{number}.toml", "x = 1\n")
    began = time.monotonic()
    screen = Terminal(held)
    assert screen.end() == 0
    redraws = len(REDRAW.findall(screen.sent))
    assert 0 < redraws <= 10 * (time.monotonic() - began) + 1


def test_a_view_that_does_not_change_is_not_drawn_again(held: Project) -> None:
    without_rich(held)
    screen = Terminal(held)
    told = screen.until(r"generate:a\.txt ([3-9]|\d\d) s")
    # One for each second that is told, one without, one with the estimate.
    assert len(REDRAW.findall(screen.sent)) <= int(told.split()[1]) + 5
    go(held)
    screen.end()


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (80, "1 of 9 done: generate:ash.txt 3 s, generate:birch.txt, generate:cedar.txt"),
        (72, "1 of 9 done: generate:ash.txt 3 s, generate:birch.txt and 1 more"),
        (60, "1 of 9 done: generate:ash.txt 3 s and 2 more"),
        (30, "1 of 9 done: generate:ash.t..."),
    ],
)
def test_the_one_row_names_whole_steps_where_it_can(width: int, row: str) -> None:
    running = [
        (f"generate:{stem}.txt", 3.0 * (stem == "ash")) for stem in ("ash", "birch", "cedar")
    ]
    counts = progress.Counts(1, 9, 0, 0, "", {})
    assert progress.plain(progress.Shown(counts, running, None), width, 24) == [row]


def test_a_line_fits_the_width_of_the_terminal(held: Project) -> None:
    without_rich(held)
    for number in range(3):
        held.write(f"patterns/{'寿' * 20}{number}.toml", "x = 1\n")
    for stem in "abcd":
        held.remove(f"patterns/{stem}.toml")
    screen = Terminal(held, *doit("-n", "3"), columns=50)
    shown = screen.until(r"of 4 done.*\.\.\.(?=\n|$)")
    assert "寿" in shown
    assert progress.columns(next(line for line in screen.lines if shown in line)) <= 49
    screen.type(b"\x03")
    screen.end()


def test_failures_are_told_whole_above_the_view(held: Project) -> None:
    without_rich(held)
    held.write("patterns/b.toml", "x = \n")
    screen = Terminal(held, *doit("-c"))
    screen.until("1 of 5 done")
    go(held, "ab")
    screen.until(r"3 of 5 done, 1 failed")
    at = screen.lines.index("failed: generate:b.txt")
    assert screen.lines[at : at + 4] == [
        "failed: generate:b.txt",
        "  patterns/b.toml:1: invalid value",
        "    1 | x =",
        ".  generate:c.txt",
    ]
    go(held)
    assert screen.end() == 1
    assert settled(screen.lines)[-2:] == [
        ".  generate:d.txt",
        "3 generated, 1 failed in N s (templates 1 miss)",
    ]


@pytest.mark.parametrize("arguments", [[], ["-n", "2"], ["-n", "2", "-P", "thread"]])
def test_a_task_of_the_users_has_the_screen_to_itself(held: Project, arguments: list[str]) -> None:
    """What it prints is as it would be without a view, unfinished lines too."""
    talk = (
        "def task_talk():\n"
        "    def talk():\n"
        "        print('one ', end='', flush=True)\n"
        "        time.sleep(0.3)\n"
        "        os.system('echo two')\n"
        "        print('three')\n"
        "    return {'actions': [talk], 'task_dep': ['generate'], 'verbosity': 2}\n"
    )
    held.write("dodo.py", DODO + talk)
    go(held)
    screen = Terminal(held, *doit(*arguments))
    assert screen.end() == 0
    at = screen.lines.index("one two")
    assert screen.lines[at + 1] == "three"
    assert all(re.match(r"\.  |one two|three|4 generated", line) for line in screen.lines)


def test_no_thread_lives_while_a_worker_is_forked(held: Project) -> None:
    """A lock that a thread holds in that moment would be held for ever in the worker."""
    watch = (
        "import threading\n"
        "def look():\n"
        "    with open('threads', 'a') as file:\n"
        "        file.write(f'{threading.active_count()}\\n')\n"
        "os.register_at_fork(before=look)\n"
    )
    held.write("dodo.py", DODO + watch)
    screen = Terminal(held, *doit("-n", "4"))
    screen.until("of 5 done")
    go(held)
    assert screen.end() == 0
    assert set(held.read("threads").split()) == {"1"}
    assert len(held.read("threads").split()) >= 4


def test_two_codegens_are_counted_together(held: Project) -> None:
    without_rich(held)
    more = (
        "more = Codegen(name='more', output='further')\n"
        "more.rule('page', template='more.j2', patterns='patterns/*.toml', target='{stem}')\n"
    )
    held.write("dodo.py", DODO + more)
    held.write("templates/more.j2", "more\n")
    screen = Terminal(held)
    screen.until(r"of 12 done")  # each parses two templates, and makes four targets
    go(held)
    assert screen.end() == 0
    assert screen.lines[-1].startswith("8 generated in ")


def held_again(held: Project) -> Terminal:
    """Make all pages stale, have their steps wait, and begin to build them."""
    for stem in "abcd":
        held.remove(f"go-{stem}")
    held.write("templates/page.j2", "{{ hold(pattern.stem) }}!\n")
    return Terminal(held)


def test_the_time_left_is_known_from_the_last_run(held: Project) -> None:
    without_rich(held)
    go(held)
    slow = held.read("dodo.py").replace("return name", "time.sleep(0.7)\n    return name")
    held.write("dodo.py", slow)
    assert held.doit().code == 0
    screen = held_again(held)
    screen.until(r"1 of 5 done, about ([2-9]|\d\d) s left: generate:a\.txt")
    go(held)
    assert screen.end() == 0


def test_so_is_that_of_compile_steps_which_are_decided_later(held: Project) -> None:
    without_rich(held)
    tool = (
        "import sys\n"
        "from codegen_tasks import Toolchain\n"
        "tool = Toolchain('copy', [sys.executable, 'copier.py', '{source}', '{target}'], '.out')\n"
    )
    dodo = DODO.replace("codegen.rule(", f"{tool}codegen.rule(", 1)
    held.write("dodo.py", dodo.replace('"{stem}.txt")', '"{stem}.txt", compile=tool)'))
    held.write(
        "copier.py", "import shutil, sys, time\ntime.sleep(0.5)\nshutil.copy(*sys.argv[1:])\n"
    )
    go(held)
    assert held.doit().code == 0
    screen = held_again(held)
    screen.until(r"1 of 9 done, about ([2-9]|\d\d) s left: generate:a\.txt")
    go(held)
    assert screen.end() == 0


def test_targets_found_up_to_date_are_not_to_do(held: Project) -> None:
    without_rich(held)
    go(held)
    assert held.doit().code == 0
    held.remove("go-c")
    held.write("patterns/c.toml", "x = 2\n")
    held.write("templates/page.j2", "{{ hold(pattern.stem) }}{{ x }}\n")
    held.write("patterns/d.toml", "x = 2\n")
    screen = Terminal(held, *doit("generate:c.txt", "generate:d.txt"))
    screen.until(r"of 3 done")
    go(held)
    assert screen.end() == 0


def test_a_stopped_run_leaves_the_screen_to_the_shell(held: Project) -> None:
    without_rich(held)
    screen = Terminal(held, "bash", "--norc", "-i", columns=250, PS1="$ ")
    screen.until(r"\$ *$")
    screen.type(f"{sys.executable} -m doit\n".encode())
    screen.until(r"1 of 5 done: generate:a\.txt \d+ s")
    screen.type(b"\x1a")
    screen.until(r"Stopped +\S+ -m doit$")
    screen.type(b"echo here\n")
    screen.until(r"^here$")
    screen.type(b"fg\n")
    screen.until(r"1 of 5 done: generate:a\.txt")
    go(held)
    screen.until(r"4 generated in .*\n\$ *$")
    screen.type(b"exit\n")
    assert screen.end() == 0
    assert " of 5" not in screen.text


# Elsewhere ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ", [{"TERM": "dumb"}, {"TERM": ""}, {"CI": "true"}], ids=["dumb", "none", "ci"]
)
def test_a_terminal_without_codes_and_ci_get_plain_lines(
    held: Project, environ: dict[str, str]
) -> None:
    go(held)
    screen = Terminal(held, **environ)
    assert screen.end() == 0
    assert b"\x1b" not in screen.sent
    assert len(screen.lines) == 5


@pytest.mark.parametrize("arguments", [["-o", "out"], ["-r", "console"], ["-r", "zero"]])
def test_a_file_and_other_reporters_get_no_view(held: Project, arguments: list[str]) -> None:
    go(held)
    screen = Terminal(held, *doit(*arguments))
    assert screen.end() == 0
    assert b"\x1b" not in screen.sent
    if arguments[0] == "-o":
        assert "\x1b" not in held.read("out")
        assert held.read("out").count("generate:") == 4


def test_no_color_means_none(held: Project) -> None:
    with_table(held)
    for environ in ({"NO_COLOR": "1"}, {}):
        screen = Terminal(held, **environ)
        screen.until(r"of \d done")
        screen.type(b"\x03")
        screen.end()
        assert bool(COLOUR.search(screen.sent)) == (not environ)


MANY = 260


@pytest.fixture
def many(held: Project) -> Project:
    """Return more steps than have a line each."""
    held.write("templates/page.j2", "{{ pattern.stem }}")
    for number in range(MANY - 4):
        held.write(f"patterns/p{number:03}.toml", "x = 1\n")
    return held


def test_of_very_many_steps_the_first_have_a_line_and_the_others_are_counted(
    many: Project,
) -> None:
    many.write("dodo.py", DODO + "reporter._EVERY = 0\n")
    result = many.doit()
    lines = result.out.splitlines()
    assert len(lines) > 201
    assert [line[:3] for line in lines[:200]] == [".  "] * 200
    assert re.fullmatch(rf"\.\. 201 of {MANY + 1} done, about \d+ s left", lines[200])
    assert lines[-1].startswith(f"{MANY} generated in ")
    assert all(line.startswith(".. ") for line in lines[200:-1])
    assert "\x1b" not in result.out
    assert "\r" not in result.out


def test_they_are_counted_once_a_second_at_most(many: Project) -> None:
    began = time.monotonic()
    lines = many.doit().out.splitlines()
    assert sum(line.startswith(".. ") for line in lines) <= time.monotonic() - began


def test_with_verbosity_2_each_step_has_its_line(many: Project) -> None:
    out = many.doit("-v", "2").out
    assert out.count(".  generate:") == MANY
    assert ".. " not in out


def test_a_reader_that_has_seen_enough_spoils_no_run(many: Project) -> None:
    for command in ("doit | head -1", "doit -a | head -1"):
        command = command.replace("doit", f"{sys.executable} -u -m doit")
        result = many.run("bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}")
        assert result.out.splitlines()[1:] == ["0"], result
        assert result.err == ""
    assert f"{MANY} up to date" in many.doit().out


# The end --------------------------------------------------------------------------------


def begun(screen: Terminal, project: Project, number: int) -> set[str]:
    """Wait until so many renders have begun; return their stems."""
    screen.wait(lambda: sum(project.exists(f"begun-{stem}") for stem in "abcd") == number)
    return {stem for stem in "abcd" if project.exists(f"begun-{stem}")}


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_an_interrupt_tells_what_remains_and_leaves_a_clean_screen(
    held: Project, workers: list[str]
) -> None:
    with_table(held)
    screen = Terminal(held, *doit(*workers))
    screen.until(r"1 of 5 done")
    first = min(begun(screen, held, 2 if workers else 1))
    go(held, first)
    under_way = begun(screen, held, 3 if workers else 2) - {first}
    screen.until(r"2 of 5 done")
    screen.type(b"\x03")
    assert screen.end() == 130
    told = re.search(r"^3 left to do; (.*) (was|were) under way$", screen.text, re.MULTILINE)
    assert told is not None, screen.text
    assert set(told[1].split(", ")) == {f"generate:{stem}.txt" for stem in under_way}
    assert settled(screen.lines)[-3].startswith("1 generated in N s")
    assert screen.lines[-1] == "interrupted; what was finished is kept"
    assert not screen._screen.cursor.hidden
    assert "━" not in screen.text


def test_sigterm_ends_it_as_well(held: Project) -> None:
    without_rich(held)
    screen = Terminal(held)
    screen.until(r"generate:a\.txt \d+ s")
    screen._process.send_signal(signal.SIGTERM)
    assert screen.end() == 143
    assert settled(screen.lines) == [
        ".  generate:a.txt",
        "nothing to do in N s (templates 1 miss)",
        "4 left to do; generate:a.txt was under way",
        "interrupted; what was finished is kept",
    ]


def failing(project: Project, names: list[str]) -> None:
    for name in names:
        project.write(f"patterns/{name}.toml", "y = 1\n")
    project.write("templates/page.j2", "{{ x }}\n")


def again(out: str) -> str:
    found = re.search(r"^to run (?:it|them) again: (.*)$", out, re.MULTILINE)
    assert found is not None, out
    return found[1]


def test_failures_are_told_once_more_by_reason_with_the_command_that_runs_them(
    held: Project,
) -> None:
    failing(held, ["e", "f"])
    held.write("patterns/g.toml", "x = \n")
    out = held.doit("-c").out
    end = out[out.index("4 generated, 3 failed") :]
    assert settled(end.splitlines()) == [
        "4 generated, 3 failed in N s (templates 1 miss)",
        "failed:",
        "  templates/page.j2:1: 'x' is undefined",
        "    generate:e.txt, generate:f.txt",
        "  patterns/g.toml:1: invalid value",
        "    generate:g.txt",
        "to run them again: doit -c generate:e.txt generate:f.txt generate:g.txt",
    ]


def test_one_failure_that_is_in_sight_is_not_told_again(held: Project) -> None:
    failing(held, ["e"])
    assert "again" not in held.doit("-c").out


def test_one_failure_that_is_out_of_sight_is(held: Project) -> None:
    failing(held, ["a"])
    for number in range(30):
        held.write(f"patterns/p{number}.toml", "x = 1\n")
    out = held.doit("-c").out
    assert again(out) == "doit -c generate:a.txt"


ODD = ["a b", "it's", "$HOME", "star*", "q?[x]*", "寿", "a;b", "~x", "!", "-n", 'say "a"', "#"]


@pytest.mark.parametrize(
    "arguments", [["-c"], ["-n", "2", "-c"], ["run", "-ca", "v=1", "generate"]]
)
def test_the_command_runs_exactly_what_failed_whatever_its_name(
    held: Project, arguments: list[str]
) -> None:
    """The shell, doit's wildcards and doit's variables take none of it for something else."""
    for stem in "abcd":
        held.remove(f"patterns/{stem}.toml")
    for near in ("star-other", "q1x-other"):
        held.write(f"patterns/{near}.toml", "x = 1\n")
    for some in (ODD[:6], ODD[6:]):
        failing(held, some)
        command = again(held.doit(*arguments).out)
        for name in some:
            held.write(f"patterns/{name}.toml", "x = 1\n")
        bin_folder = held.path / "bin"
        bin_folder.mkdir(exist_ok=True)
        (bin_folder / "doit").write_text(f'#!/bin/sh\nexec {sys.executable} -m doit "$@"\n')
        (bin_folder / "doit").chmod(0o755)
        path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
        result = held.run("bash", "-c", command, PATH=path)
        assert result.code == 0, command + result.out + result.err
        made = [line for line in result.out.splitlines() if line.startswith(".  generate:")]
        assert len(made) == len(some), command + result.out
        assert f"{len(some)} generated" in result.out


def test_very_many_are_run_again_by_the_command_that_ran_them(held: Project) -> None:
    names = [f"e{number:02}" for number in range(30)]
    failing(held, names)
    out = held.doit("-c", "-n", "2", "generate").out
    assert again(out) == "doit -c -n 2 generate"
    assert "and 20 more" in out
    for name in names:
        held.write(f"patterns/{name}.toml", "x = 1\n")
    assert "30 generated, 4 up to date" in held.doit(*shlex.split(again(out))[1:]).out


def test_a_users_task_that_failed_is_among_them(held: Project) -> None:
    failing(held, ["a"])
    held.write("dodo.py", DODO + "def task_bad():\n    return {'actions': ['false']}\n")
    out = held.doit("-c").out
    assert "    bad\n" in out
    assert again(out).split()[-2:] in (["bad", "generate:a.txt"], ["generate:a.txt", "bad"])


def test_the_same_failure_of_very_many_is_not_told_for_each(many: Project) -> None:
    """The messages differ in the pattern's name; another failure among them is told."""
    many.write("templates/page.j2", "{{ x + undefined }}")
    many.write("patterns/z.toml", "y = \n")
    out = many.doit("-c").out
    assert f"{MANY + 1} failed in" in out
    assert out.count("failed: generate:") == 201
    assert "failed: generate:z.txt\n  patterns/z.toml:1: invalid value" in out
    end = out[out.rindex("failed in") :].splitlines()
    assert end[2:5:2] == [
        "  templates/page.j2:1: 'undefined' is undefined",
        "  patterns/z.toml:1: invalid value",
    ]
    assert end[5:] == ["    generate:z.txt", "to run them again: doit -c"]
    assert f"and {MANY - 10} more" in end[3]


# What is reckoned -----------------------------------------------------------------------

TODO = dict.fromkeys(("a", "b", "c"), "generate")


def counts(seconds: float = 0.0, number: int = 0) -> progress.Counts:
    return progress.Counts(number, 10, spent={"generate": (seconds, number)})


@pytest.mark.parametrize(
    ("recorded", "so_far", "running", "elapsed", "places", "expected"),
    [
        pytest.param([], counts(), [], 1, 1, None, id="nothing is known"),
        pytest.param(
            [("a", 2.0), ("b", 3.0), ("c", 1.0)], counts(), [], 0, 1, 6, id="from the last run"
        ),
        pytest.param(
            [("a", 2.0), ("b", 3.0), ("c", 1.0)], counts(), [], 0, 2, 3, id="in two workers"
        ),
        pytest.param([("a", 2.0)], counts(), [], 0, 1, 6, id="new ones as those known"),
        pytest.param([], counts(2.0, 4), [], 2, 1, 1.5, id="as those of this run"),
        pytest.param([], counts(2.0, 4), [], 4, 1, 3, id="half of the time is not theirs"),
        pytest.param([("gone", 9.0)], counts(2.0, 4), [], 2, 1, 1.5, id="not of what has ended"),
        pytest.param(
            [("a", 8.0), ("b", 0.0), ("c", 0.0)], counts(), [(["a"], 2.0)], 1, 4, 6,
            id="no sooner than the longest",
        ),
        pytest.param(
            [("a", 1.0), ("b", 1.0), ("c", 1.0)], counts(), [(["a"], 5.0)], 5, 1, 2,
            id="one that is late is not waited for twice",
        ),
    ],
)  # fmt: skip
def test_the_time_left(
    recorded: list[tuple[str, float]],
    so_far: progress.Counts,
    running: list[tuple[list[str], float]],
    elapsed: float,
    places: int,
    expected: float | None,
) -> None:
    left = progress.seconds_left(TODO, recorded, so_far, running, elapsed, places)
    assert left == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.01, "1 s"), (7.4, "7 s"), (43, "45 s"), (89, "90 s"), (150, "2 min"), (9000, "2.5 h")],
)
def test_a_time_is_told_no_finer_than_it_is_known(seconds: float, told: str) -> None:
    assert progress.duration(seconds) == told


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short", 10, "short"),
        ("exactly ten", 10, "exactly..."),
        ("a\x1b[2Jb\n", 20, "a?[2Jb?"),
        ("寿寿寿寿", 8, "寿寿寿寿"),
        ("寿寿寿寿", 7, "寿寿..."),
        ("e\u0301" * 4, 4, "e\u0301" * 4),
        ("long", 2, ".."),
        ("long", 0, ""),
    ],
)
def test_a_row_takes_no_more_columns_than_there_are(text: str, width: int, expected: str) -> None:
    fitted = progress.fitted(text, width)
    assert fitted == expected
    assert progress.columns(fitted) <= width


def test_a_command_of_which_the_names_are_not_known_is_left_without_options() -> None:
    assert failures.command_for(["x"], ["-c", "generate"], None) == "doit x"
    assert failures.command_for(["x"], ["-c", "other"], ["generate"]) == "doit x"
    assert failures.command_for(["x"], ["-f", "d.py", "a=1", "g", "b=2"], ["g"]) == (
        "doit -f d.py a=1 b=2 x"
    )
