"""Settings: every optimisation can be switched off, and the output stays the same."""

from __future__ import annotations

import pytest
from conftest import Project

SWITCHES = ("TEMPLATE_CACHE", "INCREMENTAL", "PARALLEL", "BATCH")


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_output_is_the_same_with_an_optimisation_off(project: Project, switch: str) -> None:
    project.doit("-n", "2")
    expected = project.files(".codegen")
    for folder in (".codegen", "generated"):
        project.run("rm", "-r", folder)
    assert project.doit("-n", "2", **{f"CODEGEN_{switch}": "0"}).code == 0
    assert project.files(".codegen") == expected


def test_without_the_template_cache_nothing_is_kept(project: Project) -> None:
    result = project.doit(CODEGEN_TEMPLATE_CACHE="off")
    assert "(templates 5 misses)" in result.out
    assert not project.exists(".codegen/cache/templates")
    assert not project.exists(".codegen/logs/cache.log")


def test_without_incremental_everything_is_made_every_time(project: Project) -> None:
    project.doit()
    assert "5 generated, 5 of them unchanged" in project.doit(CODEGEN_INCREMENTAL="no").out
    assert "setting incremental is off: always" in project.doit("info", CODEGEN_INCREMENTAL="0").out


def test_pyproject_sets_and_the_environment_overrides(project: Project) -> None:
    project.write("pyproject.toml", "[tool.codegen]\nincremental = false\n")
    project.doit()
    assert "5 generated" in project.doit().out
    assert "5 up to date" in project.doit(CODEGEN_INCREMENTAL="true").out
