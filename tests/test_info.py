"""doit info: what is stale and why, what follows, what is orphaned; and its exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Project


@pytest.fixture
def built(project: Project) -> Project:
    """Return the small project after its first build."""
    assert project.doit().code == 0
    return project


def info(project: Project, *arguments: str) -> Any:
    return json.loads(project.doit("info", "--json", *arguments).out)


def reasons(project: Project) -> dict[str, list[str]]:
    """Return the wording of each stale step's reasons."""
    return {s["task"]: [r["text"] for r in s["reasons"]] for s in info(project)["stale"]}


def test_a_built_project_is_up_to_date_with_exit_code_0(built: Project) -> None:
    result = built.doit("info")
    assert (result.code, result.out) == (0, "5 targets up to date\n")


def test_before_the_first_build_all_is_stale_with_exit_code_1(project: Project) -> None:
    result = project.doit("info")
    assert result.code == 1
    assert "never built" in result.out
    assert "5 templates to parse\n5 stale, 0 to follow, 0 up to date\n" in result.out


def test_a_changed_template_is_named_with_its_digests(built: Project) -> None:
    built.write("templates/plain.txt.j2", "new\n")
    found = reasons(built)
    assert set(found) == {"templates:plain.txt.j2", "generate:plain.txt"}
    (text,) = found["generate:plain.txt"]
    assert text.startswith("templates/plain.txt.j2: ")
    assert "… → " in text


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (("patterns/ash.toml", 'name = "x"\ngain = 0\n'), 'patterns/ash.toml: name "ash" → "x"'),
        (("templates/macros.j2", "{% macro title(x) %}{% endmacro %}"), "templates/macros.j2: "),
        (("generated/ash.txt", "x"), "generated/ash.txt: edited"),
    ],
)
def test_each_kind_of_edit_has_its_reason(
    built: Project, edit: tuple[str, str], expected: str
) -> None:
    built.write(*edit)
    assert any(text.startswith(expected) for text in reasons(built)["generate:ash.txt"])


def test_a_changed_filter_an_option_and_a_rule_have_theirs(built: Project) -> None:
    dodo = built.read("dodo.py")
    built.write("dodo.py", dodo.replace('"!"', '"?"'))
    assert any(t == "filter shout: source changed" for t in reasons(built)["generate:ash.txt"])
    built.write("dodo.py", dodo.replace("trim_blocks", "lstrip_blocks"))
    found = reasons(built)["generate:plain.txt"]
    assert found == [
        "environment trim_blocks: True → default",
        "environment lstrip_blocks: default → True",
    ]
    built.write("dodo.py", dodo.replace('template="plain.txt.j2"', 'template="base.j2"'))
    found = reasons(built)["generate:plain.txt"]
    assert found == ["rule plain: template plain.txt.j2 → base.j2", "templates/base.j2: added"]


def test_an_added_and_a_removed_pattern_are_reasons_of_the_list(built: Project) -> None:
    built.write("patterns/oak.toml", 'name = "oak"\ngain = 0\n')
    built.remove("patterns/ash.toml")
    found = reasons(built)
    assert found["generate:list.txt"] == [
        "patterns/ash.toml: removed",
        "patterns/oak.toml: added",
    ]
    assert found["generate:oak.txt"] == ["never built"]


def test_a_missing_target_is_a_reason(built: Project) -> None:
    built.remove("generated/ash.txt")
    assert reasons(built) == {"generate:ash.txt": ["generated/ash.txt: missing"]}


def test_orphans_are_listed_and_hand_edited_ones_marked(built: Project) -> None:
    built.remove("patterns/ash.toml")
    built.remove("patterns/birch.toml")
    built.write("generated/birch.txt", "mine")
    assert info(built)["orphans"] == [
        {"path": "generated/ash.txt", "edited": False},
        {"path": "generated/birch.txt", "edited": True},
    ]
    out = built.doit("info").out
    heading = "made by no rule any more, remove them if nothing needs them:"
    assert f"{heading}\n  generated/ash.txt\n" in out
    assert "  generated/birch.txt (edited by hand)\n" in out


def test_what_a_stale_step_feeds_is_listed_as_to_follow(built: Project) -> None:
    dodo = built.read("dodo.py").replace('target="plain.txt")', 'target="m.py", compile="python")')
    built.write("dodo.py", dodo)
    built.write("templates/plain.txt.j2", "x = 1\n")
    assert built.doit().code == 0
    built.write("templates/plain.txt.j2", "x = 2\n")
    found = info(built)
    assert [s["task"] for s in found["follows"]] == ["compile:m.pyc"]
    assert found["follows"][0]["follows"] == ["generate:m.py"]
    assert "  compile:m.pyc\n    after generate:m.py\n" in built.doit("info").out


def test_info_of_a_task_shows_doits_own_and_ours(built: Project) -> None:
    result = built.doit("info", "generate:ash.txt")
    assert result.code == 0
    for part in (
        "generate:ash.txt",
        "file_dep",
        " - patterns/ash.toml",
        " - templates/macros.j2",
        "targets",
        "status     : up to date",
        "template   : page.txt.j2",
        "patterns   : patterns/ash.toml",
        " - filter shout",
    ):
        assert part in result.out


def test_info_takes_a_target_and_options_after_it(built: Project) -> None:
    found = info(built, "generated/ash.txt")
    assert found["task"] == "generate:ash.txt"
    after = built.doit("info", "generated/ash.txt", "--json")
    assert json.loads(after.out) == found
    built.remove("generated/ash.txt")
    assert built.doit("info", "generated/ash.txt").code == 1


def test_info_of_something_unknown_is_an_error(built: Project) -> None:
    result = built.doit("info", "generate:nothing")
    assert result.code == 3
    assert 'invalid parameter: "generate:nothing"' in result.err


def test_other_tasks_are_listed_apart_and_leave_the_exit_code_alone(built: Project) -> None:
    built.write(
        "dodo.py", built.read("dodo.py") + "\ndef task_hi():\n    return {'actions': ['echo hi']}\n"
    )
    result = built.doit("info")
    assert result.code == 0
    assert "other tasks: hi (run)" in result.out


def test_info_says_what_doit_then_does(built: Project) -> None:
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    built.write("patterns/oak.toml", 'name = "oak"\ngain = 0\n')
    said = {task for task in reasons(built) if task.startswith("generate:")}
    out = built.doit().out
    assert {line[3:] for line in out.splitlines() if line.startswith(".  ")} == said


def test_targets_with_the_same_reasons_are_listed_together(built: Project) -> None:
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    out = built.doit("info").out
    assert "  generate:ash.txt, generate:birch.txt, generate:cedar.txt\n    template" in out
    assert "1 template to parse: macros.j2\n3 stale, 0 to follow, 2 up to date\n" in out


def test_a_template_that_is_not_in_the_cache_makes_nothing_stale(built: Project) -> None:
    built.codegen("cache", "clear")
    result = built.doit("info")
    assert (result.code, result.out) == (0, "5 templates to parse\n5 targets up to date\n")


def test_a_missing_manifest_is_stale_as_it_is_for_doit(built: Project) -> None:
    built.remove(".codegen/manifest.json")
    result = built.doit("info")
    assert result.code == 1
    assert "  output\n    manifest .codegen/manifest.json: missing\n" in result.out
    assert built.doit().code == 0
    assert built.doit("info").code == 0


def test_a_failed_step_says_why_it_failed(built: Project) -> None:
    built.write("patterns/ash.toml", "name = 1 2\n")
    assert built.doit("-c").code == 1
    assert "    failed last time: patterns/ash.toml:1: " in built.doit("info").out


def test_what_follows_a_stale_step_is_not_called_up_to_date(built: Project) -> None:
    dodo = built.read("dodo.py").replace('target="plain.txt")', 'target="m.py", compile="python")')
    built.write("dodo.py", dodo)
    built.write("templates/plain.txt.j2", "x = 1\n")
    assert built.doit().code == 0
    built.write("templates/plain.txt.j2", "x = 2\n")
    result = built.doit("info", "compile:m.pyc")
    assert result.code == 1
    assert "status     : to follow\n - after generate:m.py\n" in result.out


def test_a_screen_without_arrows_is_no_error(built: Project) -> None:
    built.write("templates/plain.txt.j2", "new\n")
    result = built.doit("info", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert result.code == 1
    assert "\\u2026 \\u2192 " in result.out
