"""The README is true: its commands are run, its files are used, its screens are compared."""

from __future__ import annotations

import re
import shutil
import tomllib

import pytest
from conftest import Project
from executed import ROOT, blocks, play

from codegen_tasks.__main__ import COMMANDS

README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = "## In your own project"


@pytest.fixture
def clone(empty_project: Project) -> Project:
    """Return a copy of the project as a fresh clone has it."""
    for name in ("templates", "codegen_tasks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, empty_project.path / name, ignore=ignored)
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, empty_project.path / name)
    return empty_project


def test_what_you_see_is_what_the_readme_shows(clone: Project) -> None:
    play(clone, README.partition(OWN)[0])


def test_your_own_project_works_as_the_readme_says(empty_project: Project) -> None:
    play(empty_project, README.partition(OWN)[2])


@pytest.mark.one_python
def test_the_two_commands_are_there_and_ci_runs_them() -> None:
    commands = re.findall(r"^python3 -m venv \.venv.*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith(".venv/bin/doit")
    assert commands[1].endswith(".venv/bin/pytest -q -n auto")
    ci = (ROOT / ".ci/run").read_text()
    assert "readme_command 1" in ci
    assert "readme_command 2" in ci


@pytest.mark.one_python
def test_every_setting_is_in_the_reference_with_its_default() -> None:
    from dataclasses import fields

    from codegen_tasks.settings import PREFIX, Settings

    for field in fields(Settings):
        default = str(field.default).lower()
        row = f"| `{field.name}` | `{PREFIX}{field.name.upper()}` | `{default}` |"
        assert row in (ROOT / "docs/reference.md").read_text(encoding="utf-8")


@pytest.mark.one_python
@pytest.mark.parametrize("page", ["README.md", "docs/reference.md", "pyproject.toml"])
def test_all_commands_are_there_for_those_who_opt_in(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    tables = [text] if page.endswith(".toml") else [b.content for b in blocks(text, "toml")]
    found = [tomllib.loads(table).get("tool", {}).get("doit", {}) for table in tables]
    assert {"plugins": {"command": COMMANDS}} in found


@pytest.mark.one_python
@pytest.mark.parametrize("number", range(1, 10))
def test_each_promise_has_its_row_and_its_test(number: int) -> None:
    page = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| {number} \| .*", page, re.MULTILINE)
    assert len(rows) == 1
    named = re.findall(r"\.\./tests/(test_promise_\w+\.py)", rows[0])
    found = [path.name for path in (ROOT / "tests").glob(f"test_promise_{number}_*.py")]
    assert named == found
    assert f"tests/test_promise_{number}_*`" in rows[0] or number == 8


@pytest.mark.one_python
def test_every_test_that_the_promises_name_is_there() -> None:
    page = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    for name in re.findall(r"tests/([\w*.]+)", page):
        assert list((ROOT / "tests").glob(name)), name
