"""What a snapshot of the last build must not hide: changes that no signature in it tells."""

from __future__ import annotations

import pytest
from conftest import Project


def appended(project: Project, text: str) -> None:
    project.write("dodo.py", project.read("dodo.py") + text)


def replaced(project: Project, old: str, new: str) -> None:
    text = project.read("dodo.py")
    assert old in text
    project.write("dodo.py", text.replace(old, new))


def built(project: Project) -> None:
    """Build, and look again, so that the snapshot says all it can."""
    assert project.doit().code == 0
    assert "up to date" in project.doit().out


def test_a_patterns_folder_that_appears_later_is_seen(project: Project) -> None:
    globs = '["patterns/*.toml", "more/*.toml"]'
    replaced(project, '"patterns/*.toml", target="{stem}', f'{globs}, target="{{stem}}')
    built(project)
    project.write("more/dogwood.toml", 'name = "dogwood"\ngain = 4\n')
    assert "dogwood.txt" in project.doit("info").out
    assert "dogwood.txt" in project.doit().out


COMPILED = """
import sys
from codegen_tasks import Toolchain

COPY = '''
import pathlib, sys
source, target, extra = map(pathlib.Path, sys.argv[1:])
target.write_text(source.read_text() + (extra.read_text() if extra.exists() else ""))
'''
copy = Toolchain(
    "copy",
    command=[sys.executable, "-c", COPY, "{source}", "{target}", "extra.conf"],
    suffix=".out",
    version=[sys.executable, "--version"],
)
codegen.rule("compiled", template="plain.txt.j2", target="compiled.txt", compile=copy)
"""


def test_a_file_that_a_compiler_is_given_and_that_appears_later_is_seen(project: Project) -> None:
    appended(project, COMPILED)
    built(project)
    project.write("extra.conf", "extra\n")
    assert "compiled.out" in project.doit("info").out
    assert "compiled.out" in project.doit().out
    assert "extra" in project.read("generated/compiled.out")


def test_threads_of_core_get_all_tasks_that_compile_steps_wait_for(project: Project) -> None:
    appended(project, COMPILED)
    built(project)
    project.remove("generated/compiled.out")
    result = project.doit("-n", "2", "-P", "thread")
    assert (result.code, result.err) == (0, "")
    assert project.exists("generated/compiled.out")


def test_a_setup_task_runs_only_for_a_task_that_runs(project: Project) -> None:
    appended(
        project,
        """
def task_env():
    return {"actions": ["echo x >> env.log"]}

def task_test():
    return {"actions": ["touch tested"], "setup": ["env"], "uptodate": [True],
            "targets": ["tested"]}
""",
    )
    ours = ["generate", "templates", "compile", "output"]
    assert project.doit("test", *ours).code == 0
    for arguments in (["test", *ours], ["-n", "2", "test", *ours]):
        assert project.doit(*arguments).code == 0
        assert project.read("env.log") == "x\n"


def test_what_a_task_asks_of_a_step_that_is_selected_too_it_gets(project: Project) -> None:
    appended(
        project,
        """
from doit.tools import result_dep

def show(value):
    print("version", value["version"])

def task_shown():
    return {"actions": [show], "getargs": {"value": ("generate:ash.txt", "trace")},
            "uptodate": [False], "verbosity": 2}

def task_built():
    return {"actions": ["true"], "uptodate": [result_dep("generate:ash.txt")]}
""",
    )
    built(project)
    for names in (["built", "generate:ash.txt"], ["generate:ash.txt", "built"], ["built"]):
        assert project.doit(*names).out.startswith("-- built\n1 up to date"), names
    for names in (["shown", "generate:*"], ["-n", "2", "generate:ash.txt", "shown"]):
        result = project.doit(*names)
        assert (result.code, result.err) == (0, ""), names
        assert "version" in result.out, names
        assert " generated" not in result.out, names


TWO = """
other = Codegen(name="b", templates="templates_b", output="gen_b", state=".codegen_b")
other.rule("x", template="x.j2", patterns="patterns_b/*.toml", target="{stem}.txt")
"""


def test_a_step_that_reads_what_another_codegen_makes_follows_it(project: Project) -> None:
    appended(project, TWO)
    project.write("templates_b/x.j2", "b {{ v }}\n")
    for stem in ("x", "y"):
        project.write(f"patterns_b/{stem}.toml", "v = 1\n")
    project.write("templates/plain.txt.j2", "plain {{ read_text('gen_b/x.txt') }}\n")
    built(project)
    project.write("patterns_b/x.toml", "v = 2\n")
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 77\n')
    assert project.doit("generate", "b.generate").code == 0
    assert "b 2" in project.read("generated/plain.txt")


@pytest.mark.parametrize("name", [r"x\u0000y.j2", r"x\ud800.j2", r"x\udc80.j2"])
def test_a_missing_template_with_a_name_no_file_has_stays_missing(
    project: Project, name: str
) -> None:
    old = 'template="plain.txt.j2", '
    replaced(project, old, f'{old}context={{"asked": "{name}"}}, ')
    project.write("templates/plain.txt.j2", "{% include [asked, 'base.j2'] %}")
    first = project.doit()
    assert (first.code, first.err) == (0, "")
    for arguments in ([], ["info"], []):
        result = project.doit(*arguments)
        assert (result.code, result.err) == (0, ""), arguments
        assert "up to date" in result.out
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 77\n')
    assert "1 generated" in project.doit().out


def test_a_manifest_that_a_later_task_spoils_is_written_again(project: Project) -> None:
    appended(
        project,
        """
def task_spoil():
    return {"actions": ["echo '{}' > .codegen/manifest.json"], "task_dep": ["output"]}
""",
    )
    for edited in (False, True):
        if edited:
            project.write("patterns/ash.toml", 'name = "ash"\ngain = 77\n')
        assert project.doit().code == 0
        assert project.read(".codegen/manifest.json") == "{}\n"
        assert project.doit("info").code == 1
        assert project.doit("output").code == 0
        assert "ash.txt" in project.read(".codegen/manifest.json")


def test_a_partial_run_does_not_vouch_for_a_spoilt_manifest(project: Project) -> None:
    built(project)
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 77\n')
    project.write(".codegen/manifest.json", "{}\n")
    assert "1 generated" in project.doit("generate:ash.txt").out
    assert project.doit("info").code == 1
    assert project.doit().code == 0
    assert "birch.txt" in project.read(".codegen/manifest.json")


def test_a_task_of_the_name_of_a_step_is_refused_with_nothing_to_do_too(project: Project) -> None:
    built(project)
    appended(
        project,
        """
def task_x():
    yield {"basename": "generate:ash.txt", "actions": ["true"]}
""",
    )
    assert project.doit().code == 3


@pytest.mark.parametrize(
    ("before", "names"),
    [("generate:ash.txt", ["generate:ash.txt", "pack", "generate:birch.txt"]), ("templates", [])],
)
def test_a_task_between_two_steps_may_change_patterns_of_the_second(
    project: Project, before: str, names: list[str]
) -> None:
    appended(
        project,
        f"""
import pathlib

def write():
    for path in pathlib.Path("next").glob("*"):
        path.rename(f"patterns/{{path.name}}")

def task_pack():
    return {{"actions": [write], "task_dep": ["{before}"]}}
""",
    )
    built(project)
    project.write("next/birch.toml", 'name = "birch"\ngain = 1000\n')
    assert project.doit(*names).code == 0
    assert "1000" in project.read("generated/birch.txt")


def test_an_output_folder_that_becomes_a_link_outwards_is_refused(project: Project) -> None:
    replaced(project, 'target="{stem}.txt"', 'target="sub/{stem}.txt"')
    built(project)
    (project.path / "generated/sub").rename(project.path.parent / "sub")
    (project.path / "generated/sub").symlink_to(project.path.parent / "sub")
    assert project.doit().code == 1


def test_patterns_that_name_targets_and_are_moved_outside_are_refused(project: Project) -> None:
    replaced(project, 'target="{stem}.txt"', 'target="{name}.txt"')
    built(project)
    (project.path / "patterns").rename(project.path.parent / "patterns")
    (project.path / "patterns").symlink_to(project.path.parent / "patterns")
    assert project.doit().code == 1


def test_a_target_that_is_removed_as_soon_as_it_is_written_is_made_again(project: Project) -> None:
    removing = """
import os
import codegen_tasks.disk

really = codegen_tasks.disk.write


def write(path, *given, **named):
    written = really(path, *given, **named)
    if path.endswith("ash.txt"):
        os.unlink(path)
    return written


codegen_tasks.disk.write = write
"""
    declared = project.read("dodo.py")
    project.write("dodo.py", removing + declared)
    project.doit()
    project.write("dodo.py", declared)
    assert not project.exists("generated/ash.txt")
    assert "1 generated" in project.doit().out
    assert project.exists("generated/ash.txt")
