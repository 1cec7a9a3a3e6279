"""doit prune: what no rule makes any more goes, if we made it and nobody edited it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import Project

DEFAULT = "DOIT_CONFIG = codegen.doit_config"


@pytest.fixture
def built(project: Project) -> Project:
    """Return the small project after its first build, with a compiled target."""
    dodo = project.read("dodo.py").replace(
        'target="plain.txt")', 'target="m.py", compile="python")'
    )
    project.write("dodo.py", dodo)
    project.write("templates/plain.txt.j2", "x = 1\n")
    assert project.doit().code == 0
    return project


def outputs(project: Project) -> set[str]:
    return {name.removeprefix("generated/") for name in project.stamps("generated")}


def orphans(project: Project) -> Any:
    return json.loads(project.doit("info", "--json").out)["orphans"]


def settled(project: Project) -> None:
    """See that nothing is left to do or to tell."""
    assert orphans(project) == []
    assert project.codegen("prune").out == "no orphans\n"
    assert project.doit().code == 0
    assert re.match("[0-9]+ up to date in|nothing to do in", project.doit().out)
    assert project.codegen("manifest", "verify").code == 0
    assert project.doit("info").code == 0


@pytest.mark.parametrize("build_first", [False, True])
def test_the_target_of_a_removed_pattern_goes(built: Project, build_first: bool) -> None:
    built.remove("patterns/ash.toml")
    if build_first:
        built.doit()
    result = built.codegen("prune")
    assert (result.code, result.err) == (0, "")
    assert result.out == "generated/ash.txt: removed\n1 orphan removed\n"
    assert outputs(built) == {"birch.txt", "cedar.txt", "list.txt", "m.py", "m.pyc"}
    settled(built)


EDITS = {
    "the rule": (
        'codegen.rule("plain", template="plain.txt.j2", target="m.py", compile="python")',
        "",
        {"m.py", "m.pyc"},
    ),
    "compile=": (', compile="python"', "", {"m.pyc"}),
    "target=": ('target="m.py"', 'target="sub/n.py"', {"m.py", "m.pyc"}),
    "output=": (
        "Codegen(",
        'Codegen(output="elsewhere", ',
        {"ash.txt", "birch.txt", "cedar.txt", "list.txt", "m.py", "m.pyc"},
    ),
}


@pytest.mark.parametrize("build_first", [False, True])
@pytest.mark.parametrize("edit", EDITS)
def test_what_a_change_of_the_declaration_leaves_behind_goes(
    built: Project, edit: str, build_first: bool
) -> None:
    old, new, left = EDITS[edit]
    assert old in built.read("dodo.py")
    built.write("dodo.py", built.read("dodo.py").replace(old, new))
    if build_first:
        assert built.doit().code == 0
        assert built.doit().code == 0
    assert {orphan["path"] for orphan in orphans(built)} == {f"generated/{name}" for name in left}
    result = built.codegen("prune")
    assert (result.code, result.err) == (0, "")
    assert outputs(built).isdisjoint(left)
    settled(built)


def test_all_goes_when_all_rules_are_gone(built: Project) -> None:
    lines = built.read("dodo.py").splitlines(keepends=True)
    built.write("dodo.py", "".join(line for line in lines if "codegen.rule" not in line))
    assert "6 orphans removed" in built.codegen("prune").out
    assert outputs(built) == set()
    settled(built)


def test_an_edited_orphan_is_named_and_left_alone(built: Project) -> None:
    built.remove("patterns/ash.toml")
    built.remove("patterns/birch.toml")
    built.write("generated/birch.txt", "mine\n")
    for _ in range(2):
        result = built.codegen("prune")
        assert (result.code, result.err) == (0, "")
        assert "generated/birch.txt: edited by hand, left alone\n" in result.out
        assert built.read("generated/birch.txt") == "mine\n"
        assert orphans(built) == [{"path": "generated/birch.txt", "edited": True}]
        built.doit()


def test_with_edited_it_is_kept_aside_and_removed(built: Project) -> None:
    built.remove("patterns/ash.toml")
    built.write("generated/ash.txt", "mine\n")
    kept = ".codegen/kept/generated/ash.txt"
    result = built.codegen("prune", "--edited")
    assert result.code == 0
    said = f"generated/ash.txt: was edited by hand, kept aside as {kept}, removed\n"
    assert result.out == said + "1 orphan removed\n"
    assert built.read(kept) == "mine\n"
    settled(built)


@pytest.mark.parametrize("option", ["--dry-run", "-n"])
def test_a_dry_run_only_tells(built: Project, option: str) -> None:
    built.remove("patterns/ash.toml")
    before = built.stamps()
    result = built.codegen("prune", option)
    assert result.out == "generated/ash.txt: would be removed\n1 orphan to remove\n"
    assert built.stamps() == before


def test_a_file_that_is_gone_already_is_forgotten(built: Project) -> None:
    built.remove("patterns/ash.toml")
    built.remove("generated/ash.txt")
    assert built.codegen("prune").out == "no orphans\n"
    built.write("generated/ash.txt", "mine\n")
    assert orphans(built) == []
    settled(built)


def test_files_we_did_not_make_stay_whatever_their_place(built: Project) -> None:
    built.write("generated/mine.txt", "mine\n")
    built.remove("patterns/ash.toml")
    built.codegen("prune", "--edited")
    assert built.read("generated/mine.txt") == "mine\n"


def test_folders_left_empty_go_and_others_stay(built: Project) -> None:
    dodo = built.read("dodo.py")
    built.write("dodo.py", dodo.replace('"{stem}.txt"', '"deep/{stem}/{stem}.txt"'))
    built.doit()
    built.write("generated/deep/birch/mine.txt", "")
    built.write("dodo.py", dodo)
    built.doit()
    built.codegen("prune")
    assert not built.exists("generated/deep/ash")
    assert built.exists("generated/deep/birch/mine.txt")


def test_what_another_rule_or_task_makes_now_is_no_orphan(built: Project) -> None:
    dodo = built.read("dodo.py").replace('target="m.py", compile="python"', 'target="x.txt"')
    task = (
        "\ndef task_py():\n"
        "    return {'actions': ['echo mine > %(targets)s'], 'targets': ['generated/m.py']}\n"
    )
    dodo = dodo.replace('codegen.rule("page"', 'codegen.rule("other"')
    dodo = dodo.replace(
        'patterns="patterns/*.toml", target="{', 'patterns="patterns/ash.toml", target="{'
    )
    built.write("dodo.py", dodo + task)
    assert built.doit().code == 0
    assert [o["path"] for o in orphans(built)] == [
        "generated/birch.txt",
        "generated/cedar.txt",
        "generated/m.pyc",
    ]
    assert "3 orphans removed" in built.codegen("prune", "--edited").out
    assert built.read("generated/m.py") == "mine\n"
    assert built.exists("generated/ash.txt")


def test_two_codegens_leave_each_others_files_alone(project: Project) -> None:
    dodo = project.read("dodo.py")
    second = """
other = Codegen(name="other")
other.filter(shout)
other.rule("plain", template="plain.txt.j2", target="other.txt")
"""
    project.write("dodo.py", dodo + second)
    assert project.doit().code == 0
    assert project.codegen("prune").out == "no orphans\nno orphans\n"
    moved = dodo.replace('target="plain.txt"', 'target="new.txt"')
    project.write("dodo.py", moved + second.replace("other.txt", "plain.txt"))
    assert project.doit().code == 0
    assert project.codegen("prune").out.count("removed") == 2
    assert project.exists("generated/plain.txt")
    assert not project.exists("generated/other.txt")


def test_a_changed_name_of_the_codegen_removes_nothing_that_is_made(built: Project) -> None:
    built.write("dodo.py", built.read("dodo.py").replace("Codegen(", 'Codegen(name="new", '))
    assert built.doit().code == 0
    assert built.codegen("prune").out == "no orphans\n"
    assert len(outputs(built)) == 6


def test_what_a_codegen_made_under_its_former_name_is_its_own(built: Project) -> None:
    built.write("templates/json.j2", '{"number": {{ pattern.stem|length }}}')
    built.write("templates/number.j2", "{{ number }}")
    rules = """
        codegen.rule("json", template="json.j2", patterns="patterns/*.toml", target="{stem}.json")
        codegen.rule("n", template="number.j2", patterns="generated/*.json", target="{stem}.n")
        """
    rules = rules.replace("\n        ", "\n")
    built.write("dodo.py", built.read("dodo.py").replace("\n@", rules + "\n@", 1))
    assert built.doit().code == 0
    built.write("dodo.py", built.read("dodo.py").replace("Codegen(", 'Codegen(name="other", '))
    built.remove("patterns/ash.toml")
    result = built.doit()
    assert result.code == 0
    assert "ash.n" not in result.out  # its pattern is an orphan
    assert [each["path"] for each in orphans(built)] == [
        "generated/ash.json", "generated/ash.n", "generated/ash.txt"
    ]  # fmt: skip
    assert built.codegen("prune").out.endswith("3 orphans removed\n")
    settled(built)
    built.write("generated/ash.txt", "of somebody else")
    settled(built)


def test_a_failed_target_stays_ours_after_its_rule_is_gone(built: Project) -> None:
    built.write("patterns/ash.toml", "name =")
    assert built.doit("-c").code == 1
    built.remove("patterns/ash.toml")
    built.write("templates/page.txt.j2", "new\n")
    assert built.doit().code == 0
    assert orphans(built) == [{"path": "generated/ash.txt", "edited": False}]
    built.codegen("prune")
    assert not built.exists("generated/ash.txt")
    settled(built)


def test_no_link_is_followed_out_of_the_project(built: Project) -> None:
    dodo = built.read("dodo.py")
    built.write("dodo.py", dodo.replace('"{stem}.txt"', '"deep/{stem}.txt"'))
    built.doit()
    outside = built.path.parent / "outside"
    (built.path / "generated/deep").rename(outside)
    (built.path / "generated/deep").symlink_to(outside)
    built.write("dodo.py", dodo)
    assert built.codegen("prune", "--edited").code == 0
    assert sorted(path.name for path in outside.iterdir()) == ["ash.txt", "birch.txt", "cedar.txt"]
    settled(built)


def test_a_link_in_an_orphans_place_counts_as_edited(built: Project) -> None:
    built.remove("patterns/ash.toml")
    path = built.path / "generated/ash.txt"
    path.rename(built.path / "moved.txt")
    path.symlink_to("../moved.txt")
    assert "edited by hand, left alone" in built.codegen("prune").out
    assert built.codegen("prune", "--edited").code == 0
    assert not path.is_symlink()
    assert built.exists("moved.txt")


def test_the_log_of_a_pruned_target_goes(built: Project) -> None:
    built.write("patterns/ash.toml", "name =")
    built.doit("-c")
    log = ".codegen/logs/generate/ash.txt.log"
    assert built.exists(log)
    built.remove("patterns/ash.toml")
    built.codegen("prune")
    assert not built.exists(log)


def test_an_orphan_that_doit_was_told_to_forget_is_known_by_the_manifest(built: Project) -> None:
    built.doit("forget")
    built.remove("patterns/ash.toml")
    built.write("generated/cedar.txt", "mine\n")
    for _ in range(2):
        assert built.doit().code == 0
    assert orphans(built) == [{"path": "generated/ash.txt", "edited": False}]
    assert "1 orphan removed" in built.codegen("prune").out
    settled(built)


@pytest.mark.parametrize("build_first", [False, True])
@pytest.mark.parametrize("backend", ["dbm", "json", "sqlite3"])
def test_with_another_backend_the_manifest_tells_what_is_ours(
    project: Project, backend: str, build_first: bool
) -> None:
    config = f"DOIT_CONFIG = {{'backend': '{backend}', 'dep_file': 'other.db'}}"
    project.write("dodo.py", project.read("dodo.py").replace(DEFAULT, config))
    assert project.doit().code == 0
    project.remove("patterns/ash.toml")
    if build_first:
        assert project.doit().code == 0
    assert "1 orphan removed" in project.codegen("prune").out
    assert not project.exists("generated/ash.txt")
    project.doit()
    assert project.codegen("prune").out == "no orphans\n"


def test_without_any_record_nothing_is_removed(built: Project) -> None:
    built.remove("patterns/ash.toml")
    built.remove(".codegen/manifest.json")
    built.remove(".codegen/state.db")
    assert built.codegen("prune", "--edited").out == "no orphans\n"
    assert built.exists("generated/ash.txt")


def test_with_nothing_to_remove_nothing_is_written(built: Project) -> None:
    before = built.stamps()
    assert built.codegen("prune").out == "no orphans\n"
    assert built.stamps() == before


def test_names_are_refused(built: Project) -> None:
    result = built.codegen("prune", "generate:ash.txt")
    assert result.code == 3
    assert "`prune` takes no names" in result.err


def test_clean_removes_what_a_step_made_before_it_failed(project: Project) -> None:
    assert project.doit().code == 0
    project.write("patterns/ash.toml", 'name = "ash"\n')
    assert project.doit("run", "-c").code == 1
    project.remove(".codegen/manifest.json")
    assert project.exists("generated/ash.txt")
    assert project.doit("clean").code == 0
    assert not project.exists("generated/ash.txt")


def test_what_a_pattern_made_that_cannot_be_read_now_is_no_orphan(
    empty_project: Project,
) -> None:
    """It does not tell its targets; a slip of the finger must not remove them."""
    project = empty_project
    head = "from codegen_tasks import Codegen\n\ncodegen = Codegen()\n"
    rule = 'codegen.rule("m", template="m.j2", patterns="p/*.json", target="{name}.py"'
    project.write("dodo.py", f'{head}{rule}, compile="python")\n{DEFAULT}\n')
    project.write("templates/m.j2", "x = 1\n")
    for name in ("a", "b", "c"):
        project.write(f"p/{name}.json", f'{{"name": "{name}"}}')
    assert project.doit().code == 0
    project.write("p/a.json", '{"name": "a"')
    project.remove("p/b.json")
    project.doit("-c")
    assert orphans(project) == [
        {"path": f"generated/b.{suffix}", "edited": False} for suffix in ("py", "pyc")
    ]
    pruned = project.codegen("prune")
    assert (pruned.code, pruned.err) == (0, "")
    assert pruned.out == (
        "generated/b.py: removed\ngenerated/b.pyc: removed\n2 orphans removed\n"
        "  p/a.json: does not tell its targets, so none of them is an orphan\n"
    )
    assert outputs(project) == {"a.py", "a.pyc", "c.py", "c.pyc"}
    project.write("p/a.json", '{"name": "a"}')
    assert "4 up to date in" in project.doit().out
    settled(project)
    project.write("p/a.json", '{"name": "a"')
    assert project.doit("clean").code == 0
    assert not project.exists("generated"), "clean is thorough"
