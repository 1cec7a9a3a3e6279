"""`doit where`: the errors of programs that were generated, told with template and pattern."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import Project
from hypothesis import given
from hypothesis import strategies as st
from test_maps import needs_cc, needs_deno

from codegen_tasks import process
from codegen_tasks.commands import annotate

DODO = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("x", template="x.j2", patterns="patterns/*", target="{{stem}}{suffix}",
             compile="{compile}")
DOIT_CONFIG = codegen.doit_config
"""
BY = "by templates/x.j2:"


def built(project: Project, suffix: str, compiler: str, template: str) -> Project:
    """Build one file, of a pattern whose second line says that `value` is 3."""
    project.write("dodo.py", DODO.format(suffix=suffix, compile=compiler))
    project.write("templates/x.j2", template)
    project.write("patterns/a.toml", "# a\nvalue = 3\n")
    assert project.doit().code == 0
    return project


@pytest.fixture
def failing(empty_project: Project) -> Project:
    """Return a project with a Python program that fails in line 2, called in line 3."""
    text = "def f(x):\n    return x / {{ value - 3 }}\nprint(f('ä'.index('ä')))\n"
    return built(empty_project, ".py", "python", text)


# Errors of real programs ----------------------------------------------------------------


@needs_deno
def test_a_stack_of_javascript_is_told_with_template_and_pattern(empty_project: Project) -> None:
    text = (
        "type Gone = {\n  a: number;\n};\n"
        "function inner(level: number): never {\n  throw new Error('too fast: ' + level);\n}\n"
        "export function outer(): void {\n  inner({{ value }});\n}\nouter();\n"
    )
    project = built(empty_project, ".ts", "deno", text)
    deno = str(process.find("deno"))
    result = project.codegen("where", "--", deno, "run", "generated/a.js")
    assert result.code == 1
    said = re.sub(r"\x1b\[[0-9;]*m", "", result.err).replace(f"file://{project.path}/", "")
    assert said.endswith(
        "    at inner (generated/a.ts:5:9)\n"
        "      by templates/x.j2:5\n"
        "      5 |   throw new Error('too fast: ' + level);\n"
        "        |         ^^^\n"
        "    at outer (generated/a.ts:8:3)\n"
        "      by templates/x.j2:8\n"
        "      8 |   inner({{ value }});\n"
        "        |   ^^^^^\n"
        "      with patterns/a.toml:2: value = 3\n"
        "    at generated/a.ts:10:1\n"
        "      by templates/x.j2:10\n"
        "      10 | outer();\n"
        "         | ^^^^^\n"
    )
    command = f"{deno} run generated/a.js 2>&1 | {sys.executable} -m codegen_tasks where -"
    assert project.run("sh", "-c", command).out == result.err
    # A browser knows nothing of the first map.
    project.write("trace.txt", b"    at inner (http://localhost:8000/generated/a.js:2:9)\n")
    command = f"{sys.executable} -m codegen_tasks where - < trace.txt"
    assert project.run("sh", "-c", command).out.splitlines()[1:3] == [
        "      from generated/a.ts:5:9",
        "      by templates/x.j2:5",
    ]


@needs_cc
def test_what_a_c_program_says_of_itself_is_told(empty_project: Project) -> None:
    text = "#include <assert.h>\nint main(void)\n{\n    assert(0 > {{ value }});\n}\n"
    project = built(empty_project, ".c", "cc", text)
    project.run("cc", "generated/a.o", "-o", "a")
    result = project.codegen("where", "--", "./a")
    assert result.code == 128 + signal.SIGABRT
    assert result.err.partition("\n")[0].startswith("a: generated/a.c:4: ")
    assert result.err.partition("\n")[2] == (
        "  by templates/x.j2:4\n"
        "  4 |     assert(0 > {{ value }});\n"
        "  with patterns/a.toml:2: value = 3\n"
    )


@needs_cc
@pytest.mark.skipif(not shutil.which("gdb"), reason="no gdb")
@pytest.mark.slow
def test_what_a_sanitizer_and_a_debugger_say_of_c_is_told(empty_project: Project) -> None:
    text = (
        "static int zero(int x)\n{\n    return *(int *)(long)(x - {{ value }});\n}\n"
        "int main(int argc, char **argv)\n{\n    (void)argv;\n    return zero(argc + 2);\n}\n"
    )
    project = built(empty_project, ".c", "cc", text)
    flags = ["-g", "-fsanitize=address,undefined"]
    project.run("cc", *flags, "generated/a.c", "-o", "checked")
    err = project.codegen("where", "--", "./checked", ASAN_OPTIONS="detect_leaks=0").err
    assert re.search(r"generated/a\.c:3:\d+: runtime error: .*\n  by templates/x.j2:3\n", err)
    assert re.search(r"#0 .* in zero .*generated/a\.c:3\n +by templates/x.j2:3\n", err)
    project.run("cc", "-g", "generated/a.c", "-o", "plain")
    gdb = ["gdb", "-nx", "-batch", "-ex", "run", "-ex", "bt", "./plain"]
    out = project.codegen("where", "--", *gdb).out
    assert re.search(r"#1 .* at generated/a\.c:8\n  by templates/x.j2:8\n", out), out


def test_a_traceback_of_compiled_python_is_told_below_the_lines_it_shows(failing: Project) -> None:
    result = failing.codegen("where", "--", sys.executable, "generated/a.pyc")
    assert result.code == 1
    said = re.sub(r"\n +[~^]+(?=\n)", "", result.err)  # Python's marks, since 3.11
    assert said == (
        "Traceback (most recent call last):\n"
        '  File "generated/a.py", line 3, in <module>\n'
        "    print(f('ä'.index('ä')))\n"
        "    by templates/x.j2:3\n"
        "    3 | print(f('ä'.index('ä')))\n"
        '  File "generated/a.py", line 2, in f\n'
        "    return x / 0\n"
        "    by templates/x.j2:2\n"
        "    2 |     return x / {{ value - 3 }}\n"
        "    with patterns/a.toml:2: value = 3\n"
        "ZeroDivisionError: division by zero\n"
    )


# Running a command ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "out"),
    [
        ("echo one; exit 7", 7, "one\n"),
        ("kill -TERM $$", 128 + signal.SIGTERM, ""),
        ("echo $A -x --help", 0, "b=c -x --help\n"),
        ("printf 'no end'", 0, "no end"),
        ("printf '\\303\\244\\377\\n'", 0, "ä\ufffd\n"),
    ],
)
def test_a_command_s_output_and_exit_code_are_its_own(
    failing: Project, script: str, code: int, out: str
) -> None:
    command = [sys.executable, "-m", "codegen_tasks", "where", "--", "env", "A=b=c", "sh", "-c"]
    done = subprocess.run(
        [*command, script],
        cwd=failing.path,
        env=failing.environ,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr) == (
        code,
        out,
        b"",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--", "no-such-command"], 127, "where: cannot run 'no-such-command': no such file or"),
        (["--", "./dodo.py"], 126, "where: cannot run './dodo.py': permission denied\n"),
        (["--"], 3, "ERROR: where: after -- comes a command, before it nothing\n"),
        (["a.py:1", "--", "true"], 3, "ERROR: where: after -- comes a command, before it nothing"),
    ],
)
def test_a_command_that_cannot_be_run_is_told(
    failing: Project, arguments: list[str], code: int, said: str
) -> None:
    result = failing.codegen("where", *arguments)
    assert result.code == code
    assert result.err.startswith(said)
    assert result.out == ""


def test_what_is_to_end_us_ends_the_command_and_its_exit_code_is_told(failing: Project) -> None:
    script = "trap 'echo ended; exit 9' TERM; echo begun; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [sys.executable, "-m", "codegen_tasks", "where", "--", "sh", "-c", script],
        cwd=failing.path,
        env=failing.environ,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"begun\n"
        running.terminate()
        assert running.stdout.read() == b"ended\n"
    assert running.returncode == 9


def test_a_question_is_shown_before_its_line_ends(failing: Project) -> None:
    script = 'printf "name? "; read name; echo "hello $name"'
    with subprocess.Popen(
        [sys.executable, "-m", "codegen_tasks", "where", "--", "sh", "-c", script],
        cwd=failing.path,
        env=failing.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        asked = b""
        end = time.monotonic() + 60
        while len(asked) < 6 and time.monotonic() < end:
            asked += os.read(running.stdout.fileno(), 100)
        assert asked == b"name? "
        running.stdin.write(b"ash\n")
        assert running.stdout.read() == b"hello ash\n"


# The copy -------------------------------------------------------------------------------


def copied(text: bytes, cuts: list[int]) -> str:
    """Return a copy of a text that came in parts, of whose places each is told as itself."""
    out = io.StringIO()
    copy = annotate.Annotator(out, lambda match: [f"{match['path']} at {match['line']}"])
    at = 0
    for cut in [*sorted(cuts), len(text)]:
        copy.add(text[at:cut])
        at = max(at, cut)
    copy.end()
    return out.getvalue()


@given(st.lists(st.integers(0, 80), max_size=6))
def test_it_does_not_matter_in_which_parts_a_text_comes(cuts: list[int]) -> None:
    text = b'ok\n  File "a.py", line 2\n    x = 1\n    ^\n\x1b[1mb.c\x1b[0m:3: no, c.c:4:5.\nd:6'
    assert copied(text, [cut for cut in cuts if cut < len(text)]) == (
        'ok\n  File "a.py", line 2\n    x = 1\n    ^\n    a.py at 2\n'
        "\x1b[1mb.c\x1b[0m:3: no, c.c:4:5.\n  b.c at 3\n  c.c at 4\nd:6\n  d at 6\n"
    )


@pytest.mark.parametrize("text", ["http://localhost:8000/a", "a:b", "x.c:12ab", ":3"])
def test_what_only_looks_like_a_place_is_none(text: str) -> None:
    assert not list(annotate.PLACE.finditer(text))


def test_what_was_told_once_is_told_in_short_the_next_time(failing: Project) -> None:
    failing.write("trace.txt", "a.py:2: one\ngenerated/a.py:2: two\nelsewhere/b.py:2\n")
    failing.write("b.py", "")
    command = f"{sys.executable} -m codegen_tasks where - < trace.txt"
    assert failing.run("sh", "-c", command).out == (
        "a.py:2: one\n"
        "  by templates/x.j2:2\n"
        "  2 |     return x / {{ value - 3 }}\n"
        "  with patterns/a.toml:2: value = 3\n"
        "generated/a.py:2: two\n"
        "  by templates/x.j2:2\n"
        "elsewhere/b.py:2\n"
    )


def test_a_file_of_one_s_own_is_not_taken_for_a_target_of_that_name(failing: Project) -> None:
    failing.write("a.py", "# mine\n\n")
    failing.write("trace.txt", "a.py:2: mine\n")
    command = f"{sys.executable} -m codegen_tasks where - < trace.txt"
    result = failing.run("sh", "-c", command)
    assert (result.code, result.out) == (1, "a.py:2: mine\n")
