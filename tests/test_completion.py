"""Help and the shell's completion, as doit makes them, know our commands and options."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from conftest import Project

from codegen_tasks.__main__ import COMMANDS

#: What bash-completion brings, as far as doit's script needs it.
HARNESS = """
_get_comp_words_by_ref() {
    words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD
    cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}
}
__ltrim_colon_completions() { :; }
source <(doit tabcompletion)
COMP_WORDS=(doit "$@"); COMP_CWORD=$#
_doit
echo "${COMPREPLY[@]}"
"""
#: Commands of core's that ours stand in for in projects that opt in.
OF_DOIT = {"help", "tabcompletion"}
DOIT = Path(sys.executable).with_name("doit")


@pytest.fixture
def opted_in(project: Project) -> Project:
    """Return the small project, with all commands."""
    lines = [f'{name} = "{place}"\n' for name, place in COMMANDS.items()]
    project.write("pyproject.toml", "[tool.doit.plugins.command]\n" + "".join(lines))
    return project


@pytest.mark.skipif(not shutil.which("bash") or not DOIT.exists(), reason="no bash, or no doit")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["ne"], "new"),
        (["man"], "manifest"),
        (["info", "gene"], "generate"),
        (["info", "generate:a"], "generate:ash.txt"),
        (["diff", "generate:b"], "generate:birch.txt"),
        (["generate:ce"], "generate:cedar.txt"),
        (["info", "--js"], "--json"),
        (["run", "--no-w"], "--no-wait"),
        (["run", "--no-c"], "--no-continue"),
        (["report", "--comp"], "--compare"),
        (["prune", "--e"], "--edited"),
        (["cache", ""], "status cleanup verify clear"),
        (["manifest", "v"], "verify"),
        (["new", "temp"], "templates"),
        (["new", "patter"], "pattern patterns"),
        (["where", "dod"], "dodo.py"),
    ],
    ids=" ".join,
)
def test_bash_completes_commands_and_targets(
    opted_in: Project, typed: list[str], completed: str
) -> None:
    path = f"{DOIT.parent}{os.pathsep}{os.environ['PATH']}"
    result = opted_in.run("bash", "-c", HARNESS, "bash", *typed, PATH=path)
    assert sorted(result.out.split()) == sorted(completed.split()), result.err


def test_zsh_is_told_the_options_of_info_where_a_codegen_is_declared(opted_in: Project) -> None:
    ours = opted_in.doit("tabcompletion", "--shell", "zsh").out
    for option in ("--json[print JSON, for programs]", "--tree[", "--toolchain}", "--dry-run}"):
        assert option in ours
    opted_in.write("dodo.py", "def task_x():\n    return {'actions': []}\n")
    assert "'1:what:(status cleanup verify clear)'" in ours
    assert "%(" not in ours
    theirs = opted_in.doit("tabcompletion", "--shell", "zsh").out
    assert "--json[print JSON, for programs]" not in theirs


def test_what_zsh_is_told_of_our_options_is_text_to_it(opted_in: Project) -> None:
    """For doit quotes neither apostrophes nor what a shell expands."""
    script = opted_in.doit("tabcompletion", "--shell", "zsh").out
    ours = [line for line in script.splitlines() if line.lstrip().startswith(tuple(OURS))]
    assert len(ours) >= len(OURS)
    assert not [line for line in ours if set("`$\\") & set(line.replace("\\]", "").rstrip("\\"))]


OURS = ['"--tree', '"--all', '"--json', '"--schema', '"(-t|--toolchain', '"(-l|--like']


@pytest.mark.parametrize("command", sorted({"info", "run", *COMMANDS} - OF_DOIT))
def test_help_says_what_a_command_does_before_its_options(opted_in: Project, command: str) -> None:
    result = opted_in.doit("help", command)
    assert result.code == 0
    heads = re.findall("^[A-Z]+$", result.out, re.MULTILINE)
    assert heads == ["PURPOSE", "USAGE", "DESCRIPTION", "EXAMPLES", "OPTIONS"]
    purpose, usage, description, examples = re.split("\n\n[A-Z]+\n", result.out)[:4]
    assert purpose.removeprefix("PURPOSE\n    ").islower()
    name, *_ = usage.split()
    assert usage.startswith(f"    {name} {command}")
    assert description.endswith(".")
    assert examples.startswith(f"    {name} {command}")
    assert max(map(len, result.out.splitlines())) <= 80


def test_help_tells_of_no_option_that_is_not_for_people(opted_in: Project) -> None:
    options = re.findall(r"^ +--(\w+)", opted_in.doit("help", "lint").out, re.MULTILINE)
    assert {"json", "ignore"} <= set(options)
    assert "again" not in options


@pytest.mark.parametrize("command", ["help", "help lint", "tabcompletion", "manifest status"])
def test_a_pipe_that_is_closed_ends_a_command_in_order(opted_in: Project, command: str) -> None:
    assert opted_in.doit().code == 0
    result = opted_in.run("bash", "-c", f'(sleep 0.2; exec "{DOIT}" {command}) | true; echo done')
    assert (result.out, result.err) == ("done\n", "")


@pytest.mark.slow
def test_the_examples_of_help_do_what_they_say(opted_in: Project) -> None:
    """But for those that need a browser, a compiler or a pattern of its own, or do not end."""
    left_out = ("watch", "where", "report --open", "new")
    assert opted_in.doit().code == 0
    opted_in.write("patterns/ash.toml", 'name = "oak"\ngain = 9\n')
    assert opted_in.doit().code == 0
    ran = []
    for command in sorted({"info", "run", *COMMANDS} - OF_DOIT):
        text = opted_in.doit("help", command).out.partition("\nEXAMPLES\n")[2]
        for line in text.partition("\n\n")[0].splitlines():
            given = re.sub(r"bloom\.\w+", "ash.txt", re.split(" {2,}|$", line.strip())[0])
            words = shlex.split(given.partition(" > ")[0])[1:]
            if words and not " ".join(words).startswith(left_out):
                result = opted_in.doit(*words)
                assert result.code in (0, 1), (words, result)
                assert "ERROR" not in result.err, (words, result)
                ran.append(words)
    assert len(ran) >= 15


@pytest.mark.parametrize("how", ["doit", "codegen"])
def test_the_list_of_commands_fits_a_narrow_terminal_and_ours_come_first(
    opted_in: Project, how: str
) -> None:
    result = opted_in.doit("help") if how == "doit" else opted_in.codegen("--help")
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= 80
    listed = re.findall(r"^  (\w[\w-]*) {2}", result.out, re.MULTILINE)
    assert listed[:2] == ["run", "watch"]
    assert {"run", "info", *COMMANDS} <= set(listed)
    assert "  info            show what is stale and why, or all about one target" in lines
    assert lines.index("begin") < lines.index("of doit itself")
