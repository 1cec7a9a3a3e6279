"""The examples, as a clone has them."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import Project

EXAMPLES = Path(__file__).parents[1] / "examples"


def copy_into(project: Project, name: str) -> None:
    """Copy an example into an empty project, without what a build has left there."""
    left = (EXAMPLES / name / ".gitignore").read_text(encoding="utf-8").split()
    ignored = shutil.ignore_patterns(*(line.strip("/") for line in left))
    shutil.copytree(EXAMPLES / name, project.path, dirs_exist_ok=True, ignore=ignored)


def change(project: Project, name: str, old: str, new: str) -> None:
    """Exchange a text that occurs once in a file."""
    text = project.read(name)
    assert text.count(old) == 1
    (project.path / name).write_text(text.replace(old, new), encoding="utf-8")


def begun(out: str) -> list[str]:
    """Return the tasks that a run began, sorted."""
    return sorted(line.removeprefix(".  ") for line in out.splitlines() if line.startswith(".  "))
