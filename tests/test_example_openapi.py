"""The example of an API client: it builds, its client works, and an edit costs what it must."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Project
from executed import play

from codegen_tasks import process

EXAMPLE = Path(__file__).parents[1] / "examples/openapi"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(process.find("deno") is None, reason="no deno"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, state_home: Path) -> Project:
    """Return a copy of the example, built once for all tests here."""
    project = Project(tmp_path_factory.mktemp("example") / "project", state_home)
    ignored = shutil.ignore_patterns(".*_cache", ".codegen", ".venv", "generated", "__pycache__")
    shutil.copytree(EXAMPLE, project.path, ignore=ignored)
    result = project.doit("-v", "2")
    assert result.code == 0, result.out + result.err
    assert "18 requests answered as they should be\n" in result.out
    return project


@pytest.fixture
def example(built: Project, empty_project: Project) -> Project:
    """Return a copy of what was built."""
    shutil.copytree(built.path, empty_project.path, dirs_exist_ok=True)
    return empty_project


def edited(project: Project, name: str, old: str, new: str) -> list[str]:
    """Return the tasks that ran after one edit, with nothing left to do."""
    text = project.read(name)
    assert text.count(old) == 1
    project.write(name, text.replace(old, new).encode())
    ran = sorted(line[3:] for line in project.doit().out.splitlines() if line.startswith(".  "))
    assert "-- check\n46 up to date in" in project.doit().out
    return ran


def test_the_compiled_client_needs_no_typescript(example: Project) -> None:
    for path in (example.path / "generated").rglob("*.ts"):
        path.unlink()
    ran = example.run(str(process.find("deno")), "run", "--allow-net=127.0.0.1", "check/client.js")
    assert ran.code == 0, ran.err


def test_a_schema_costs_itself_and_what_imports_it(example: Project) -> None:
    assert edited(example, "openapi.yaml", "van, lorry]", "van, train]") == [
        *("check", "compile:couriers.js", "compile:index.js", "compile:parcels.js"),
        *("compile:schemas/Courier.js", "compile:schemas/Parcel.js"),
        *("compile:schemas/ParcelPage.js", "generate:schemas/Courier.ts"),
    ]


def test_an_operation_costs_its_own_module(example: Project) -> None:
    assert edited(example, "openapi.yaml", "summary: All depots", "summary: Each depot") == [
        *("check", "compile:depots.js", "compile:index.js", "generate:depots.ts"),
    ]


def test_a_comment_costs_nothing(example: Project) -> None:
    assert edited(example, "openapi.yaml", "\npaths:", "\n# Where all is\npaths:") == []


def test_nothing_is_to_be_said_against_it(example: Project) -> None:
    assert example.doit("lint").out == ""


def test_its_readme_shows_what_happens(example: Project) -> None:
    play(example, example.read("README.md"))
