"""What a terminal shows of failures and patches: colours that lead the eye, lines that fit."""

from __future__ import annotations

import re
import sys

import pytest
from conftest import Project
from test_progress import Terminal, doit

from codegen_tasks.dressed import dressed

MESSAGE = """failed: generate:a.ts
  templates/a.ts.j2:3: a message of quite a few words
    3 | {{ name }}
      |    ^^^^
    hint: did you mean 'nam'?
to run it again: doit generate:a.ts generate:another.ts"""


def test_a_message_has_colours_where_the_eye_is_to_go() -> None:
    assert dressed(MESSAGE, 80, {}) == (
        "\x1b[1;31mfailed:\x1b[0m generate:a.ts\n"
        "  templates/a.ts.j2:3: a message of quite a few words\n"
        "\x1b[94m    3 |\x1b[0m {{ name }}\n"
        "\x1b[94m      |\x1b[0m\x1b[1;31m    ^^^^\x1b[0m\n"
        "    \x1b[36mhint:\x1b[0m did you mean 'nam'?\n"
        "to run it again: doit generate:a.ts generate:another.ts"
    )


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours_it_is_the_same_text(environ: dict[str, str]) -> None:
    assert dressed(MESSAGE, 80, environ) == MESSAGE


def test_words_are_not_broken_and_neither_are_commands() -> None:
    lines = dressed(MESSAGE, 30, {"NO_COLOR": "1"}).split("\n")
    assert lines[1:4] == ["  templates/a.ts.j2:3: a", "    message of quite a few", "    words"]
    assert lines[-1] == MESSAGE.split("\n")[-1]


def test_a_line_of_a_file_is_cut_around_its_mark_to_the_width_of_a_terminal() -> None:
    text = f"  a.j2:1: what\n    1 | {'x' * 60}{{{{ name }}}}{'y' * 60}\n      | {' ' * 63}^^^^"
    head, source, mark = dressed(text, 40, {"NO_COLOR": "1"}).split("\n")
    assert head == "  a.j2:1: what"
    assert (len(source), source[:8], source[-1]) == (40, "    1 | ", "…")
    assert source[8] == "…"
    assert source[mark.index("^") : mark.index("^") + 4] == "name"
    assert mark.count("^") == 4
    short = "    1 | short\n      | ^^^^^"
    assert dressed(short, 40, {"NO_COLOR": "1"}) == short


def test_a_failing_run_is_dressed_on_a_terminal_and_plain_elsewhere(project: Project) -> None:
    project.write("templates/page.txt.j2", "{{ nam }}\n")
    plain = project.doit("generate:ash.txt").out
    assert "\x1b" not in plain
    for environ in ({}, {"NO_COLOR": "1"}):
        terminal = Terminal(project, *doit("generate:ash.txt"), columns=60, **environ)
        assert terminal.end() == 1
        assert (b"\x1b[1;31mfailed:" in terminal.sent) is not bool(environ)
        said = "\n".join(terminal.lines)
        assert "    hint: did you mean 'name'?" in said
        assert max(map(len, terminal.lines)) <= 60
        words = [re.sub(r"[\d.]+ s", "", " ".join(text.split())) for text in (plain, said)]
        assert words[0].partition("(templates")[0] == words[1].partition("(templates")[0]


def test_one_reason_is_told_once_though_many_came_to_it_on_ways_of_their_own(
    project: Project,
) -> None:
    project.write("templates/macros.j2", "{% macro title(x) %}{{ nothing }}{% endmacro %}\n")
    out = project.doit("-c", "generate:ash.txt", "generate:birch.txt").out
    assert out.count("{{ nothing }}") == 1
    assert (
        "failed: generate:birch.txt\n"
        "  for the same reason as generate:ash.txt\n"
        "  pattern patterns/birch.toml\n"
    ) in out


def test_a_terminal_is_not_filled_with_one_long_line_of_a_patch(project: Project) -> None:
    assert project.doit().code == 0
    project.write("templates/plain.txt.j2", f"plain\n{'x' * 5000}\n")
    assert f"+{'x' * 5000}\n" in project.codegen("diff").out
    terminal = Terminal(project, *doit("diff")[:2], "codegen_tasks", "diff")
    assert terminal.end() == 1
    assert f"+{'x' * 119}… (4881 more characters)" in terminal.text.replace("\n", "")


def test_places_are_dressed_on_a_terminal(project: Project) -> None:
    assert project.doit().code == 0
    for more in (["generated/ash.txt:2"], ["--", "echo", "generated/ash.txt:2"]):
        terminal = Terminal(project, sys.executable, "-m", "codegen_tasks", "where", *more)
        assert terminal.end() == 0
        assert b"\x1b[94m  1 |\x1b[0m" in terminal.sent
        assert "\n  by templates/macros.j2:1\n  1 | " in terminal.text
