"""What a render costs, counted: calls of the system, texts of digests, objects kept."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace

import pytest
from conftest import Project

from codegen_tasks import Codegen, patterns
from codegen_tasks.build import Build
from codegen_tasks.model import Outcome

COUNT = 12


@pytest.fixture
def build(empty_project: Project, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Return the build of a rule with many patterns, a base template and a macro."""
    project = empty_project
    project.write("templates/base.j2", "{% block body %}{% endblock %}")
    project.write("templates/macros.j2", "{% macro line(x) %}{{ x.name | upper }}\n{% endmacro %}")
    project.write(
        "templates/page.j2",
        """
        {% extends "base.j2" %}{% from "macros.j2" import line %}
        {% block body %}{{ title }}{% for x in parts %}{{ line(x) }}{% endfor %}{% endblock %}
        """,
    )
    for number in range(COUNT):
        parts = '[[parts]]\nname = "a"\n[[parts]]\nname = "b"\n'
        project.write(f"patterns/p{number}.toml", f'title = "No. {number}"\n{parts}')
    monkeypatch.chdir(project.path)
    codegen = Codegen()
    codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")
    return Build(codegen.project)


def rendered(build: Build, which: slice = slice(None)) -> list[Outcome]:
    """Run renders of a build."""
    steps = [step for step in build.plan.steps.values() if step.phase == "generate"][which]
    outcomes = build.workshop.run(steps, {}, over={})
    assert [outcome.error for outcome in outcomes] == [""] * len(steps)
    return outcomes


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, *names: str) -> Counter[str]:
    """Return a count of the calls of functions from now on."""
    calls: Counter[str] = Counter()

    def counting(name: str) -> None:
        real = getattr(owner, name)

        def call(*given: object, **named: object) -> object:
            calls[name] += 1
            return real(*given, **named)

        monkeypatch.setattr(owner, name, call)

    for name in names:
        counting(name)
    return calls


def test_patterns_are_not_all_kept_that_are_rendered_each_for_itself(build: Build) -> None:
    library = build.world.library
    assert library.keep == patterns.FEW
    library.keep = 3
    rendered(build)
    assert len(library._parsed) == 3
    rule = replace(build.project.rules["page"], name="all", target="all.txt")
    build.project.rules["all"] = rule
    assert Build(build.project).world.library.keep is None


def test_a_render_asks_the_system_for_no_more_than_it_needs(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered(build, slice(1))  # templates are loaded, folders made, links followed
    calls = counted(
        monkeypatch,
        os,
        *("open", "read", "write", "close", "stat", "lstat", "fstat"),
        *("utime", "replace", "mkdir", "scandir", "readlink", "chmod"),
    )
    rendered(build, slice(1, None))
    assert {name: calls[name] / (COUNT - 1) for name in calls} == {
        "open": 2,  # the pattern, the target
        "fstat": 1,
        "read": 2,  # to its end
        "write": 1,
        "utime": 1,
        "close": 2,
        "replace": 1,
        "lstat": 1,  # whether the pattern is a link
        "stat": 3,  # of the pattern's folder; of the target, before and after
    }


def test_a_render_writes_what_it_read_as_text_once(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered(build, slice(1))
    calls = counted(monkeypatch, json.JSONEncoder, "encode")
    rendered(build, slice(1, None))
    assert calls["encode"] == COUNT - 1


def test_renders_that_read_the_same_keep_it_once(build: Build) -> None:
    """What is kept of ten thousand of them is encoded, and sent by workers, once."""
    first, *others = (outcome.trace.inputs for outcome in rendered(build) if outcome.trace)
    assert [item.kind for item in first] == [
        *("pattern", "rule", "environment", "template", "template", "template", "filter"),
    ]
    for inputs in others:
        assert [item.name for item in inputs[1:]] == [item.name for item in first[1:]]
        assert all(one is other for one, other in zip(inputs[1:], first[1:], strict=True))
        assert inputs[0].reads is first[0].reads
        assert inputs[0].digest != first[0].digest
