"""doit diff: a patch from the disk to what a build would make; it writes nothing."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project

from codegen_tasks.commands.diff import patch
from codegen_tasks.preview import Difference

CHAIN = '''
import sys
from codegen_tasks import Codegen, Toolchain

COPY = """import sys
_, source, target = sys.argv
text = open(source).read() + open("generated/b.txt").read()
open(target, "w").write(text)
"""
join = Toolchain("join", [sys.executable, "-c", COPY, "{source}", "{target}"], ".out")
codegen = Codegen()
codegen.rule("a", template="a.j2", target="a.txt", compile=join)
codegen.rule("b", template="b.j2", target="b.txt")
DOIT_CONFIG = codegen.doit_config
'''


@pytest.fixture
def built(project: Project) -> Project:
    """Return the small project after its first build."""
    assert project.doit().code == 0
    return project


@pytest.fixture
def chain(empty_project: Project) -> Project:
    """Return a built project with a compiler that reads another target too."""
    empty_project.write("dodo.py", CHAIN)
    empty_project.write("templates/a.j2", "one\n")
    empty_project.write("templates/b.j2", "two\n")
    assert empty_project.doit().code == 0
    return empty_project


def everything(project: Project) -> dict[str, tuple[int, int, int]]:
    """Return inode, mtime and size of every file and folder."""
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in [project.path, *project.path.rglob("*")]
        if "__pycache__" not in path.parts
    }


def test_nothing_differs_after_a_build(built: Project) -> None:
    result = built.codegen("diff")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_a_change_is_shown_from_the_disk_to_what_would_be_made(built: Project) -> None:
    built.write("templates/plain.txt.j2", "plain\nand simple\n")
    result = built.codegen("diff")
    assert (result.code, result.err) == (1, "1 target differs\n")
    assert result.out == (
        "--- a/generated/plain.txt\n+++ b/generated/plain.txt\n@@ -1 +1,2 @@\n plain\n+and simple\n"
    )


def test_a_hand_edit_is_shown_as_what_would_be_undone(built: Project) -> None:
    built.write("generated/plain.txt", "mine\n")
    assert "@@ -1 +1 @@\n-mine\n+plain\n" in built.codegen("diff").out
    assert built.read("generated/plain.txt") == "mine\n"


@pytest.mark.parametrize("state", ["built", "fresh"])
def test_nothing_at_all_is_written(project: Project, state: str) -> None:
    if state == "built":
        project.doit()
        project.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
        project.write("generated/plain.txt", "mine\n")
        project.remove("patterns/cedar.toml")
    before = everything(project)
    assert project.codegen("diff").code == 1
    assert everything(project) == before


def test_nothing_is_written_where_compilers_run(chain: Project) -> None:
    chain.write("templates/a.j2", "three\n")
    before = everything(chain)
    result = chain.codegen("diff")
    assert (result.code, result.err) == (1, "2 targets differ\n")
    assert everything(chain) == before


def test_a_compiled_target_is_shown_as_it_would_be_with_its_new_inputs(chain: Project) -> None:
    chain.write("templates/a.j2", "1\n")
    chain.write("templates/b.j2", "2\n")
    result = chain.codegen("diff")
    assert "+++ b/generated/a.out\n@@ -1,2 +1,2 @@\n-one\n-two\n+1\n+2\n" in result.out
    assert result.err == "3 targets differ\n"


def test_a_compiler_runs_only_if_what_it_reads_would_change(chain: Project) -> None:
    dodo = chain.read("dodo.py")
    chain.write("dodo.py", dodo.replace("import sys\n_", "import sys\nopen('ran', 'w')\n_"))
    chain.doit()
    chain.remove("ran")
    chain.write("templates/a.j2", "{# a comment #}one\n")
    assert chain.codegen("diff").code == 0
    assert not chain.exists("ran")


def test_a_failing_step_is_told_and_the_others_are_shown(built: Project) -> None:
    built.write("patterns/ash.toml", "name =")
    built.write("templates/plain.txt.j2", "new\n")
    result = built.codegen("diff")
    assert result.code == 1
    assert "failed: generate:ash.txt\n  patterns/ash.toml:1: " in result.err
    assert "+new\n" in result.out
    assert "patterns" not in result.out


def test_a_failing_compiler_is_told_with_what_made_its_source(chain: Project) -> None:
    dodo = chain.read("dodo.py")
    chain.write("dodo.py", dodo.replace("import sys\n_", "import nothing\n_"))
    result = chain.codegen("diff")
    assert (result.code, result.out) == (1, "")
    assert "failed: compile:a.out\n" in result.err
    assert "made from templates/a.j2" in result.err


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["generate:ash.txt"], ["ash.txt"]),
        (["generated/ash.txt", "generate:birch.txt"], ["ash.txt", "birch.txt"]),
        (["generate:*"], ["ash.txt", "birch.txt", "cedar.txt"]),
        (["generate"], ["ash.txt", "birch.txt", "cedar.txt"]),
        (["output"], ["ash.txt", "birch.txt", "cedar.txt"]),
        (["compile"], []),
        (["mine"], ["birch.txt"]),
    ],
)
def test_names_choose_as_they_do_for_doit(
    built: Project, names: list[str], shown: list[str]
) -> None:
    task = "\ndef task_mine():\n    return {'actions': None, 'file_dep': ['generated/birch.txt']}\n"
    built.write("dodo.py", built.read("dodo.py") + task)
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    result = built.codegen("diff", *names)
    found = [line[16:] for line in result.out.splitlines() if line.startswith("+++ ")]
    assert found == shown
    assert result.code == int(bool(shown))


def test_a_compiled_target_brings_what_it_is_made_from(chain: Project) -> None:
    chain.write("templates/a.j2", "1\n")
    out = chain.codegen("diff", "generated/a.out").out
    assert "+++ b/generated/a.txt" in out
    assert "+++ b/generated/a.out" in out


def test_an_unknown_name_is_doits_own_error(built: Project) -> None:
    result = built.codegen("diff", "generate:nothing")
    assert result.code == 3
    assert 'invalid parameter: "generate:nothing"' in result.err


def test_a_reader_that_has_seen_enough_is_no_error(project: Project) -> None:
    project.write("templates/plain.txt.j2", "plain\n" * 100_000)
    command = f"set -o pipefail; {sys.executable} -m codegen_tasks diff | head -n 1"
    result = project.run("bash", "-c", command)
    assert (result.code, result.err) == (1, "")
    assert result.out.count("\n") == 1


def test_a_render_that_reads_a_target_which_differs_says_so(built: Project) -> None:
    built.write("templates/list.txt.j2", "{{ read_text('generated/ash.txt') }}")
    assert built.doit().code == 0
    built.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    said = "generated/list.txt: reads generated/ash.txt, which differs, as it is now\n"
    assert said in built.codegen("diff").err


def test_options_may_come_after_names(built: Project) -> None:
    assert built.codegen("diff", "generate:ash.txt", "--db-file", ".codegen/state.db").code == 0
    assert built.codegen("diff", "generate:ash.txt", "--nothing").code == 3


def test_orphans_are_named_and_do_not_count(built: Project) -> None:
    built.remove("patterns/ash.toml")
    built.write("patterns/oak.toml", 'name = "oak"\ngain = 0\n')
    built.doit()
    result = built.codegen("diff")
    said = "generated/ash.txt: made by no rule any more, doit prune would remove it\n"
    assert (result.code, result.out, result.err) == (0, "", said)


def test_a_folder_in_a_targets_place_is_a_failure(built: Project) -> None:
    built.remove("generated/plain.txt")
    built.write("generated/plain.txt/mine", "x")
    result = built.codegen("diff")
    assert result.code == 1
    assert "generated/plain.txt: a folder stands where a file should be" in result.err


def test_two_codegens_are_shown_together(project: Project) -> None:
    dodo = project.read("dodo.py").replace("DOIT_CONFIG", "CONFIG")
    second = """
other = Codegen(name="other", output="elsewhere")
other.rule("plain", template="plain.txt.j2", target="plain.txt")
DOIT_CONFIG = other.doit_config
"""
    project.write("dodo.py", dodo + second)
    out = project.codegen("diff").out
    assert "+++ b/generated/plain.txt\n" in out
    assert "+++ b/elsewhere/plain.txt\n" in out
    out = project.codegen("diff", "other.generate").out
    assert "generated/plain.txt" not in out
    assert "+++ b/elsewhere/plain.txt\n" in out


def test_what_templates_print_is_no_part_of_the_patch(built: Project) -> None:
    dodo = built.read("dodo.py").replace("return text", "print('noise'); return text")
    built.write("dodo.py", dodo)
    result = built.codegen("diff")
    assert (result.code, result.out) == (0, "")
    assert "noise\n" in result.err


HEADER = """
from codegen_tasks import Codegen

codegen = Codegen(output="made/generated")
codegen.rule("c", template="a.c.j2", target="a.c", compile="cc")
codegen.rule("h", template="b.h.j2", target="b.h")
DOIT_CONFIG = codegen.doit_config
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_a_compiler_sees_new_headers_whatever_way_leads_to_them(empty_project: Project) -> None:
    project = empty_project
    project.write("dodo.py", HEADER)
    project.write("templates/a.c.j2", '#include "../../src/deep/c.h"\nint a = B;\n')
    project.write("templates/b.h.j2", "#define B 1\n")
    project.write("src/deep/c.h", '#include "../../made/generated/b.h"\n')
    assert project.doit().code == 0
    project.write("templates/b.h.j2", "#define B 2\n")
    before = everything(project)
    out = project.codegen("diff").out
    assert out.endswith("Binary files a/made/generated/a.o and b/made/generated/a.o differ\n")
    assert "+#define B 2\n" in out
    assert everything(project) == before


TYPED = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("a", template="a.ts.j2", target="a.ts", compile="deno")
codegen.rule("b", template="b.ts.j2", target="b.ts", compile="deno")
DOIT_CONFIG = codegen.doit_config
"""


@pytest.mark.slow
def test_a_typechecker_sees_the_new_sources(empty_project: Project) -> None:
    project = empty_project
    project.write("dodo.py", TYPED)
    project.write("templates/a.ts.j2", 'import { b } from "../src/c.ts";\nconsole.log(b + 1);\n')
    project.write("src/c.ts", 'export { b } from "../generated/b.ts";\n')
    project.write("templates/b.ts.j2", "export const b: number = 1;\n")
    assert project.doit().code == 0
    before = everything(project)
    project.write("templates/b.ts.j2", "export const b: number = 2;\n")
    result = project.codegen("diff")
    assert (result.code, result.err) == (1, "3 targets differ\n")
    assert "+export const b = 2;\n" in result.out
    project.write("templates/b.ts.j2", "export const b: boolean = false;\n")
    result = project.codegen("diff")
    assert "failed: compile:a.js\n  generated/a.ts:2: " in result.err
    assert "made from templates/a.ts.j2" in result.err
    assert "+export const b = false;\n" in result.out
    project.write("templates/b.ts.j2", "export const b: number = 1;\n")
    after = everything(project)
    assert {name for name in after if after[name] != before.get(name)} == {
        str(project.path / "templates/b.ts.j2")
    }


PATCHERS = [
    pytest.param(["patch", "-p1", "-s", "-i"], id="patch"),
    pytest.param(["git", "apply"], id="git"),
]
TEXTS = {
    "longer": "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\n",
    "no end": "a\nb",
    "end": "a\nb\n",
    "empty": "",
    "carriage": "a\r\nb\x0c\x0b\x85 \u2028c\n",
    "dashes": "-- a\n++ b\n",
    "none": None,
}


@pytest.mark.parametrize("patcher", PATCHERS)
@pytest.mark.parametrize("name", ["a.txt", "with spaces and ü.txt", 'quo"te\\s.txt'])
@pytest.mark.parametrize("before", TEXTS)
def test_a_patch_makes_what_a_build_would(
    tmp_path: Path, patcher: list[str], name: str, before: str
) -> None:
    if shutil.which(patcher[0]) is None:
        pytest.skip(f"{patcher[0]} is not installed")
    for number, (key, text) in enumerate(TEXTS.items()):
        if text is None or text == TEXTS[before]:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        if (old := TEXTS[before]) is not None:
            (folder / name).write_bytes(old.encode())
        now = old.encode() if old is not None else None
        lines = b"".join(patch(Difference(name, now, text.encode())))
        (tmp_path / "patch").write_bytes(lines)
        done = subprocess.run(
            [*patcher, "../patch"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (key, lines, done.stderr)
        assert (folder / name).read_bytes() == text.encode(), (key, lines)


@pytest.mark.parametrize("patcher", PATCHERS)
def test_after_the_patch_the_next_build_writes_no_target(
    built: Project, patcher: list[str]
) -> None:
    if shutil.which(patcher[0]) is None:
        pytest.skip(f"{patcher[0]} is not installed")
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    built.write("patterns/oak.toml", 'name = "oak"\ngain = 0\n')
    found = built.codegen("diff").out
    (built.path.parent / "patch").write_text(found)
    assert built.run(*patcher, "../patch").code == 0
    before = built.stamps("generated")
    assert built.codegen("diff").code == 0
    result = built.doit()
    assert "kept aside" not in result.out
    assert built.stamps("generated") == before


def test_binary_targets_take_one_line() -> None:
    def said(before: bytes | None) -> bytes:
        return b"".join(patch(Difference("a.o", before, b"\0\1")))

    assert said(b"\0\2") == b"Binary files a/a.o and b/a.o differ\n"
    assert said(None) == b"Binary files /dev/null and b/a.o differ\n"


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_is_for_a_terminal_and_not_with_no_color(built: Project, no_color: str) -> None:
    built.write("templates/plain.txt.j2", "new\n")
    parent, child = pty.openpty()
    environ = {**built.environ, "NO_COLOR": no_color}
    command = [sys.executable, "-m", "codegen_tasks", "diff"]
    subprocess.run(command, cwd=built.path, env=environ, stdout=child, check=False)
    os.close(child)
    shown = os.read(parent, 4096)
    os.close(parent)
    assert (b"\x1b[32m+new\x1b[m" in shown) is not bool(no_color)
    assert b"\x1b" not in built.codegen("diff", NO_COLOR="").out.encode()
