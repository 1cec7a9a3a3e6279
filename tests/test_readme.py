"""The README is true: its commands are run, its files are used, its screens are compared."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = "## In your own project"
_BLOCK = re.compile(r"(?:^`([^`\n]+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> Iterator[tuple[str | None, str, str]]:
    """Yield file name (if it is a file's content), language and content of each fenced block."""
    for found in _BLOCK.finditer(text):
        yield found[1], found[2], found[3]


def screens(content: str) -> Iterator[tuple[str, str]]:
    """Yield command and expected output of a console block."""
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def settled(text: str, in_order: bool) -> list[str]:
    """Return the lines of a screen without what differs from run to run."""
    for pattern, word in (
        (r"\b\d+\.\d\d s\b", "T s"),
        (r"\b\d+ ms\b", "T ms"),
        (r"\bpid \d+", "pid P"),
        (r"\b[0-9a-f]{4}…", "H…"),
        (r"\b\d+(\.\d)? (bytes|KB)\b", "N bytes"),
        (r"\(templates [^)]*\)", "(templates …)"),
        (r"\bof 5\.0 GB, in \S+", "of 5.0 GB, in FOLDER"),
        (r"\b\d+\.\d s saved", "T s saved"),
    ):
        text = re.sub(pattern, word, text)
    lines = [line.rstrip() for line in text.splitlines()]
    return lines if in_order else sorted(lines)


def play(project: Project, text: str) -> None:
    """Write the files and run the commands of a part of the README, comparing every screen."""
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    project.environ |= {
        "CODEGEN_OUTPUT_CACHE": "true",
        "CODEGEN_OUTPUT_CACHE_FOLDER": str(project.path.parent / "store"),
        "CODEGEN_OUTPUT_CACHE_MILLISECONDS": "60000",  # how long something takes, nobody knows
    }
    for name, language, content in blocks(text):
        if name is not None:
            project.write(name, content)
        if language != "console":
            continue
        for command, expected in screens(content):
            done = project.run("bash", "-c", command, PATH=path)
            in_order = "-n" not in command.split()
            shown = settled(done.out + done.err, in_order)
            wanted = settled(expected, in_order)
            assert shown == wanted, f"$ {command}\n{done.out}{done.err}"


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


def test_the_two_commands_are_there_and_ci_runs_them() -> None:
    commands = re.findall(r"^python3 -m venv \.venv.*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith(".venv/bin/doit")
    assert commands[1].endswith(".venv/bin/pytest -q -n auto")
    ci = (ROOT / ".ci/run").read_text()
    assert "readme_command 1" in ci
    assert "readme_command 2" in ci


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    from dataclasses import fields

    from codegen_tasks.settings import PREFIX, Settings

    for field in fields(Settings):
        default = str(field.default).lower()
        row = f"| `{field.name}` | `{PREFIX}{field.name.upper()}` | `{default}` |"
        assert row in README


def test_links_to_files_lead_somewhere() -> None:
    pages = (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "docs/glossary.md",
        "docs/promises.md",
        "docs/reference.md",
        "docs/speed.md",
        "docs/benchmarks.md",
        "examples/openapi/README.md",
    )
    for name in pages:
        page = ROOT / name
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{name}: {target}"


@pytest.mark.parametrize("number", range(1, 10))
def test_each_promise_has_its_row_and_its_test(number: int) -> None:
    page = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| {number} \| .*", page, re.MULTILINE)
    assert len(rows) == 1
    named = re.findall(r"\.\./tests/(test_promise_\w+\.py)", rows[0])
    found = [path.name for path in (ROOT / "tests").glob(f"test_promise_{number}_*.py")]
    assert named == found
    assert f"tests/test_promise_{number}_*`" in rows[0] or number == 8


def test_every_test_that_the_promises_name_is_there() -> None:
    page = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    for name in re.findall(r"tests/([\w*.]+)", page):
        assert list((ROOT / "tests").glob(name)), name
