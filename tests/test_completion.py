"""Help and the shell's completion, as doit makes them, know our commands and options."""

from __future__ import annotations

import os
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
    ],
    ids=" ".join,
)
def test_bash_completes_commands_and_targets(
    opted_in: Project, typed: list[str], completed: str
) -> None:
    path = f"{DOIT.parent}{os.pathsep}{os.environ['PATH']}"
    result = opted_in.run("bash", "-c", HARNESS, "bash", *typed, PATH=path)
    assert result.out == f"{completed}\n", result.err


def test_zsh_is_told_the_options_of_info_where_a_codegen_is_declared(opted_in: Project) -> None:
    ours = opted_in.doit("tabcompletion", "--shell", "zsh").out
    for option in ("--json[print JSON, for programs]", "--tree[", "--toolchain}", "--dry-run}"):
        assert option in ours
    opted_in.write("dodo.py", "def task_x():\n    return {'actions': []}\n")
    theirs = opted_in.doit("tabcompletion", "--shell", "zsh").out
    assert "--json[print JSON, for programs]" not in theirs


def test_what_zsh_is_told_of_our_options_is_text_to_it(opted_in: Project) -> None:
    """For doit quotes neither apostrophes nor what a shell expands."""
    script = opted_in.doit("tabcompletion", "--shell", "zsh").out
    ours = [line for line in script.splitlines() if line.lstrip().startswith(tuple(OURS))]
    assert len(ours) >= len(OURS)
    assert not [line for line in ours if set("`$\\") & set(line.replace("\\]", "").rstrip("\\"))]


OURS = ['"--tree', '"--all', '"--json', '"--schema', '"(-t|--toolchain', '"(-l|--like']


@pytest.mark.parametrize("command", ["info", "run", *COMMANDS])
def test_help_says_what_a_command_does(opted_in: Project, command: str) -> None:
    result = opted_in.doit("help", command)
    assert result.code == 0
    purpose, _, rest = result.out.removeprefix("PURPOSE\n").partition("\n")
    assert purpose.strip()
    assert f" {command}" in rest.partition("OPTIONS")[0]
    description = rest.partition("\nDESCRIPTION\n")[2]
    assert description.strip().endswith(".")
    assert max(map(len, description.splitlines())) <= 80
