"""Promise 8: targets stay below their folder, under names that every file system can keep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Project

from codegen_tasks import disk, plan

DODO = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target={target!r})


@codegen.function
def say(text):
    print("said", text[:9])
    return text


DOIT_CONFIG = codegen.doit_config
"""


def named(project: Project, *names: str, target: str = "{name}", more: str = "") -> None:
    """Make a project whose patterns give their targets these names."""
    project.write("dodo.py", DODO.format(target=target) + more)
    project.write("templates/page.j2", "{{ say(name) }}\n")
    for number, name in enumerate(names):
        project.write(f"patterns/{number}.toml", f"name = '''{name}'''\n")


def rebuilt(project: Project) -> None:
    """See that everything is built, is found up to date, and cleaned."""
    first = project.doit()
    assert (first.code, first.err) == (0, ""), first
    assert "up to date" in project.doit().out
    assert project.codegen("manifest", "verify").code == 0
    assert project.doit("clean").code == 0
    assert project.files(".codegen", "dodo", "patterns", "templates") == {}


NAMES = ["-rf", "--", ".hidden", "...", "a b", " a", "it's", 'a"b', "$(x)", "a;b", "*", "[a]"]
NAMES += [
    "~",
    "#",
    "%41",
    "{x}",
    "a&b|c",
    "é",
    "日本/語",
    "🌸",
    "a:b",
    "nul.txt",
    "a.",
    ".codegen-1",
]


def test_any_name_that_the_file_system_keeps_is_a_target(empty_project: Project) -> None:
    named(empty_project, *NAMES)
    assert empty_project.doit().code == 0
    assert set(empty_project.files(".codegen", "dodo", "patterns", "templates")) == {
        f"generated/{name}" for name in NAMES
    }
    rebuilt(empty_project)


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127 + "x", "🌸" * 63 + "xyz"], ids=len)
def test_a_name_of_255_bytes_is_built_logged_and_kept_aside(
    empty_project: Project, name: str
) -> None:
    named(empty_project, name)
    rebuilt(empty_project)
    assert empty_project.doit().code == 0
    (log,) = os.listdir(empty_project.path / ".codegen/logs/generate")
    assert empty_project.read(f".codegen/logs/generate/{log}") == f"said {name[:9]}\n"
    (empty_project.path / "generated" / name).write_text("mine\n")
    assert "kept aside" in empty_project.doit().out
    kept = [path for path in (empty_project.path / ".codegen/kept").rglob("*") if path.is_file()]
    assert [path.read_text() for path in kept] == ["mine\n"]


LONG = "xy/" * 1500 + "z"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 256, f"the target's name '{'x' * 40}…' has 256 bytes, file systems take 255"),
        ("é" * 128, f"the target's name '{'é' * 40}…' has 256 bytes, file systems take 255"),
        (f"{'x' * 256}/a", f"the target's name '{'x' * 40}…' has 256 bytes, file systems take 255"),
        (LONG, f"the target '{LONG[:40]}…' has a path longer than file systems take"),
        ("a\nb", r"the target 'a\nb' holds a character that no file's name should"),
        ("../a", "the target '../a' lies outside of generated/"),
        ("/a", "the target '/a' lies outside of generated/"),
    ],
)
def test_a_name_that_cannot_be_is_told_before_anything_is_rendered(
    empty_project: Project, name: str, said: str
) -> None:
    named(empty_project, name, "good")
    result = empty_project.doit("-c")
    assert result.code == 1
    assert f"failed: generate:patterns/0.toml\n  patterns/0.toml: {said}\n" in result.out
    assert result.err == ""
    assert os.listdir(empty_project.path / "generated") == ["good"]


def test_a_name_that_only_compiling_makes_too_long_fails_its_pattern_only(
    empty_project: Project,
) -> None:
    named(empty_project, "x" * 252 + ".a", "b.a")
    dodo = empty_project.read("dodo.py").replace("{name}')", "{name}', compile=LONGER)")
    longer = "\nfrom codegen_tasks import Toolchain\n"
    longer += "LONGER = Toolchain('cp', command=['cp', '{source}', '{target}'], suffix='.longer')\n"
    empty_project.write("dodo.py", longer + dodo)
    result = empty_project.doit("-c")
    assert result.code == 1
    assert (
        "patterns/0.toml: toolchain cp: the target's name"
        f" '{'x' * 40}…' has 259 bytes, file systems take 255\n"
    ) in result.out
    assert sorted(os.listdir(empty_project.path / "generated")) == ["b.a", "b.longer"]


def test_a_rule_whose_own_target_is_too_long_is_refused(empty_project: Project) -> None:
    named(empty_project, "a", target="x" * 256)
    result = empty_project.doit()
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        f"ERROR: rule page: the target's name '{'x' * 40}…' has 256 bytes, file systems take 255\n"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("con", "has a name that Windows keeps for a device"),
        ("a/NUL.txt", "has a name that Windows keeps for a device"),
        ("COM1.tar.gz", "has a name that Windows keeps for a device"),
        ("lpt³", "has a name that Windows keeps for a device"),
        ("nul .txt", "has a name that Windows keeps for a device"),
        ("a.", "ends a name with '.', which Windows drops"),
        ("a /b", "ends a name with ' ', which Windows drops"),
        ("a:b", "holds ':', which Windows allows in no file's name"),
        ("a\\b", "holds '\\', which Windows allows in no file's name"),
        ("a*", "holds '*', which Windows allows in no file's name"),
    ],
)
def test_names_that_windows_cannot_have_are_refused_there(name: str, said: str) -> None:
    assert plan._misnamed("out", name, name, "win32") == f"the target '{name}' {said}"
    assert plan._misnamed("out", name, name, "linux") == ""


@pytest.mark.parametrize("name", ["console.txt", "com.txt", "com10", "nully", ".nul", "a/./b", "é"])
def test_names_that_windows_can_have_are_not(name: str) -> None:
    assert plan._misnamed("out", name, name, "win32") == ""


# One file of two names ------------------------------------------------------------------


def test_names_that_differ_in_case_are_two_files_where_they_are(empty_project: Project) -> None:
    named(empty_project, "a.txt", "A.txt", "é", "e\u0301")
    if disk.are_one(f"{empty_project.path}/a", f"{empty_project.path}/A"):
        pytest.skip("the file system ignores case")
    rebuilt(empty_project)


CARELESS = """
from codegen_tasks import disk

disk._is_same = lambda path, other: path.lower() == other.lower()
"""


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        ("a.txt", "A.txt", "their case differs"),
        ("deep/A", "Deep/a", "their case differs"),
        ("é", "e\u0301", "the composition of a letter differs"),
        ("STRASSE", "straße", "their case differs"),
    ],
)
def test_they_are_refused_where_they_are_one(
    empty_project: Project, first: str, second: str, differs: str
) -> None:
    named(empty_project, first, second, more=CARELESS)
    result = empty_project.doit()
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        f"ERROR: rule page: generated/{second} and generated/{first} are one file here:"
        f" only {differs}\n"
    )


def test_a_name_is_looked_for_in_the_other_case_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    before = tmp_path.stat()
    assert not disk.are_one(f"{tmp_path}/out/a", f"{tmp_path}/out/A")
    assert tmp_path.stat() == before
    (tmp_path / "out/b").write_text("")
    os.link(tmp_path / "out/b", tmp_path / "out/B")  # as if it ignored case
    assert disk.are_one(f"{tmp_path}/out/a", f"{tmp_path}/out/A")
    assert disk.are_one(f"{tmp_path}/out/deep/a", f"{tmp_path}/out/deep/A")
    (tmp_path / "out/a").write_text("")
    assert not disk.are_one(f"{tmp_path}/out/a", f"{tmp_path}/out/A")


# Links ----------------------------------------------------------------------------------


def test_an_output_folder_may_be_a_link_elsewhere(project: Project, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (project.path / "generated").symlink_to(tmp_path / "elsewhere")
    assert project.doit().code == 0
    assert len(os.listdir(tmp_path / "elsewhere")) == 5
    assert project.doit().out.startswith("5 up to date")


@pytest.mark.parametrize("folder", ["templates", "templates/deep", ".codegen"])
def test_but_not_to_templates_or_state(project: Project, folder: str) -> None:
    (project.path / folder).mkdir(parents=True, exist_ok=True)
    (project.path / "generated").symlink_to(folder)
    result = project.doit()
    assert (result.code, result.out) == (3, "")
    inside = folder.partition("/")[0]
    assert result.err == f"ERROR: Codegen: output folder 'generated' is a link into {inside}/\n"


@pytest.mark.parametrize("to", ["..", "../patterns", "../generated-too", "/tmp"])
def test_a_folder_of_targets_that_leads_out_is_refused(project: Project, to: str) -> None:
    named(project, "deep/a")
    (project.path / "generated").mkdir()
    (project.path / "generated/deep").symlink_to(to)
    result = project.doit("-c")
    assert result.code == 1
    assert "the target 'deep/a' lies outside of generated/: generated/deep is behind a link" in (
        result.out
    )


def test_a_rule_cannot_overwrite_its_own_pattern(project: Project) -> None:
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        codegen = Codegen(output="patterns")
        codegen.rule("page", template="plain.txt.j2", patterns="patterns/*.toml",
                     target="{stem}.toml")
        """,
    )
    before = project.read("patterns/ash.toml")
    result = project.doit()
    assert (result.code, result.out) == (3, "")
    assert result.err == "ERROR: rule page: makes patterns/ash.toml out of itself\n"
    assert project.read("patterns/ash.toml") == before
