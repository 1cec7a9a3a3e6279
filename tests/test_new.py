"""Starting: a new project that builds at once, a new pattern like another, nothing overwritten."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib

import pytest
from conftest import Project

from codegen_tasks.__main__ import COMMANDS

FILES = [
    ".gitignore",
    "dodo.py",
    "patterns/traffic-light.toml",
    "pyproject.toml",
    "templates/light.md.j2",
    "templates/list.md.j2",
    "templates/macros.j2",
]


@pytest.fixture
def begun(empty_project: Project) -> Project:
    """Return a new project as `new` makes it."""
    assert empty_project.codegen("new", ".").code == 0
    return empty_project


def refused(project: Project, message: str, *arguments: str) -> None:
    """Assert that `new` ends with exit code 3 and a message, and touches nothing."""
    before = project.files(".doit.db")
    result = project.codegen("new", *arguments)
    assert (result.code, result.out, result.err) == (3, "", message)
    assert project.files(".doit.db") == before


def test_new_makes_a_project_and_says_what_to_do_next(empty_project: Project) -> None:
    result = empty_project.codegen("new", "my demo")
    assert result.code == 0
    assert sorted(empty_project.files()) == [f"my demo/{path}" for path in FILES]
    assert result.out == (
        """\
made my demo/dodo.py
made my demo/pyproject.toml
made my demo/.gitignore
made my demo/patterns/traffic-light.toml
made my demo/templates/light.md.j2
made my demo/templates/macros.j2
made my demo/templates/list.md.j2
next:
  cd 'my demo'
  doit                   makes what is declared in dodo.py, in generated/
  doit info              tells what is stale, and why
  doit new pattern NAME  begins another like patterns/traffic-light.toml
  doit help              lists all commands
then change patterns/traffic-light.toml or templates/light.md.j2, and doit again
"""
    )


def test_a_new_project_builds_and_passes_its_own_info(begun: Project) -> None:
    assert begun.doit("info").code == 1
    assert begun.doit().code == 0
    assert (begun.doit("info").code, begun.doit("info").out) == (0, "2 targets up to date\n")
    assert "| red | 1 min 30 s |" in begun.read("generated/traffic-light.md")
    assert begun.read("generated/list.md").endswith("- Traffic light: red, green, amber\n")
    assert begun.doit().out.startswith("2 up to date")


def test_a_new_project_opts_in_to_every_command(begun: Project) -> None:
    found = tomllib.loads(begun.read("pyproject.toml"))
    assert found["tool"]["doit"]["plugins"]["command"] == COMMANDS
    assert begun.doit("manifest", "status").code == 0


@pytest.mark.parametrize(
    ("toolchain", "made"),
    [
        ("deno", "traffic-light.js"),
        ("python", "traffic-light.pyc"),
        pytest.param(
            "cc",
            "traffic-light.o",
            marks=pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
        ),
        pytest.param(
            "c++",
            "traffic-light.o",
            marks=pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
        ),
    ],
)
def test_each_toolchain_has_a_project_that_compiles(
    empty_project: Project, toolchain: str, made: str
) -> None:
    assert empty_project.codegen("new", ".", "--toolchain", toolchain).code == 0
    built = empty_project.doit()
    assert built.code == 0, built.out
    assert empty_project.exists(f"generated/{made}")
    assert empty_project.doit("info").code == 0


def test_a_compiler_that_is_not_installed_is_told_at_once(empty_project: Project) -> None:
    result = empty_project.run(
        sys.executable, "-m", "codegen_tasks", "new", ".", "-t", "cc", PATH="/nowhere"
    )
    assert result.code == 0
    assert "\nnote: toolchain cc: 'cc' is not installed\n" in result.out


def test_new_overwrites_nothing(begun: Project) -> None:
    begun.write("one/dodo.py", "mine = 1\n")
    begun.write("one/other.txt", "mine")
    refused(
        begun,
        "ERROR: one: dodo.py is there already, and nothing is overwritten\n"
        "  hint: give the folder of a new project\n",
        "one",
    )
    begun.remove("pyproject.toml")
    listed = "dodo.py, .gitignore, patterns/traffic-light.toml, templates/light.md.j2, "
    refused(
        begun,
        f"ERROR: .: {listed}templates/macros.j2, templates/list.md.j2 are there already, and "
        "nothing is overwritten\n  hint: give the folder of a new project\n",
        ".",
    )
    refused(begun, "ERROR: dodo.py: is there already, and is no folder\n", "dodo.py")


def test_what_cannot_be_written_whole_is_not_begun(empty_project: Project) -> None:
    """A file stands where a folder is to be: what was written before it is taken back."""
    empty_project.write("one/templates", "a file")
    refused(empty_project, "ERROR: one: cannot be written: file exists\n", "one")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "ERROR: `new` takes the folder of a new project, or `pattern NAME`\n"),
        (("a", "b"), "ERROR: `new` takes the folder of a new project, or `pattern NAME`\n"),
        (("pattern",), "ERROR: `new pattern` takes the one name of the new pattern\n"),
        (
            ("--toolchain=denno", "x"),
            "ERROR: --toolchain denno: is none of ours\n  hint: did you mean 'deno'?\n",
        ),
        (
            ("x", "--toolchain", "zzz"),
            "ERROR: --toolchain zzz: is none of ours\n  hint: known: c++, cc, deno, none, python\n",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    empty_project: Project, arguments: tuple[str, ...], message: str
) -> None:
    refused(empty_project, message, *arguments)


# A pattern ---------------------------------------------------------------------------------


def test_a_new_pattern_is_like_the_first_with_its_comments_and_builds(begun: Project) -> None:
    assert begun.doit().code == 0
    result = begun.doit("new", "pattern", "zebra-crossing")
    assert (result.code, result.out) == (
        0,
        "made patterns/zebra-crossing.toml\n"
        "  like patterns/traffic-light.toml; change it, and run doit\n",
    )
    model = begun.read("patterns/traffic-light.toml")
    expected = model.replace("traffic-light", "zebra-crossing").replace("Traffic l", "Zebra cross")
    assert begun.read("patterns/zebra-crossing.toml") == expected.replace("crossight", "crossing")
    assert begun.doit().code == 0
    assert begun.exists("generated/zebra-crossing.md")


KEYED = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.txt.j2", patterns="specs/*.@", target="{folder}{key}.txt")
DOIT_CONFIG = codegen.doit_config
"""


@pytest.mark.parametrize(
    ("suffix", "text", "expected"),
    [
        (
            "toml",
            '# ash here, not ashes\nname = "ash"  # ash\nkey = "one" # of a list\nother = "one"\n',
            '# oak here, not ashes\nname = "oak"  # ash\nkey = "oak" # of a list\nother = "one"\n',
        ),
        ("toml", "name = 'Ash'\n'key' = 'on\"e'\n", 'name = "Oak"\n\'key\' = "oak"\n'),
        (
            "json",
            '{"name": "ash", "key": "one", "list": [1, 2]}',
            '{"name": "oak", "key": "oak", "list": [1, 2]}',
        ),
        ("yaml", "# ash\nkey: one two\nname: ash\n", '# oak\nkey: "oak"\nname: "oak"\n'),
    ],
)
def test_keys_that_name_targets_are_those_of_the_new_pattern(
    empty_project: Project, suffix: str, text: str, expected: str
) -> None:
    empty_project.write("dodo.py", KEYED.replace("@", suffix))
    empty_project.write("templates/page.txt.j2", "{{ name }}\n")
    empty_project.write(f"specs/ash.{suffix}", text)
    result = empty_project.codegen("new", "pattern", "oak")
    assert (result.code, result.err) == (0, "")
    assert empty_project.read(f"specs/oak.{suffix}") == expected
    assert empty_project.doit().code == 0
    assert empty_project.read("generated/oak.txt").lower() == "oak\n"


def test_another_pattern_can_be_the_model(project: Project) -> None:
    for like in ("birch", "patterns/birch.toml", "birch.toml"):
        assert project.codegen("new", "pattern", "oak", "--like", like).code == 0
        assert project.read("patterns/oak.toml") == 'name = "oak"\ngain = 1\n'
        project.remove("patterns/oak.toml")


def test_a_generated_pattern_is_no_model(project: Project) -> None:
    project.write(
        "dodo.py",
        project.read("dodo.py")
        + 'codegen.rule("a", template="a.j2", patterns="patterns/*.toml", target="{stem}.json")\n'
        'codegen.rule("b", template="plain.txt.j2", patterns="generated/*.json", '
        'target="{stem}.b")\n',
    )
    project.write("templates/a.j2", json.dumps({"x": 1}))
    assert project.doit().code == 0
    refused(
        project,
        "ERROR: --like ash.json: there is no such pattern\n  hint: such as patterns/ash.toml\n",
        *("pattern", "oak", "--like", "ash.json"),
    )


PLAIN = "must be letters, digits, '_', '-' and '.', and begin with no '-' or '.'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a/b",), f"ERROR: new pattern 'a/b': {PLAIN}\n  hint: such as b\n"),
        (("../b",), f"ERROR: new pattern '../b': {PLAIN}\n  hint: such as b\n"),
        ((".",), f"ERROR: new pattern '.': {PLAIN}\n"),
        (("a b",), f"ERROR: new pattern 'a b': {PLAIN}\n  hint: such as a-b\n"),
        (
            ("ash",),
            "ERROR: patterns/ash.toml: is there already, and nothing is overwritten\n"
            "  hint: give another name\n",
        ),
        (
            ("ash.toml",),
            "ERROR: patterns/ash.toml: is there already, and nothing is overwritten\n"
            "  hint: give another name\n",
        ),
        (
            ("oak", "--like", "brich"),
            "ERROR: --like brich: there is no such pattern\n  hint: did you mean 'birch'?\n",
        ),
        (
            ("oak", "--like", "zzzzz"),
            "ERROR: --like zzzzz: there is no such pattern\n  hint: such as patterns/ash.toml\n",
        ),
    ],
)
def test_a_bad_name_for_a_pattern_is_refused(
    project: Project, arguments: tuple[str, ...], message: str
) -> None:
    refused(project, message, "pattern", *arguments)


def test_a_pattern_that_no_rule_would_see_is_refused(project: Project) -> None:
    project.write(
        "dodo.py", project.read("dodo.py").replace("patterns/*.toml", "patterns/?sh.toml")
    )
    refused(
        project,
        "ERROR: patterns/oak.toml: no rule would see it: they look for patterns/?sh.toml\n",
        *("pattern", "oak"),
    )


def test_a_model_that_is_broken_is_told_with_its_line(project: Project) -> None:
    project.write("patterns/ash.toml", "name = 1 2\n")
    result = project.codegen("new", "pattern", "oak")
    assert result.code == 3
    assert result.err.startswith("ERROR: patterns/ash.toml:1: ")
    assert "hint: give a whole one with --like" in result.err


def test_a_project_without_patterns_or_codegen_says_so(empty_project: Project) -> None:
    empty_project.write("dodo.py", "x = 1\n")
    refused(
        empty_project,
        "ERROR: `new pattern` needs a dodo.py that declares a Codegen\n",
        *("pattern", "oak"),
    )
    empty_project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        codegen = Codegen()
        codegen.rule("plain", template="plain.j2", target="plain.txt")
        """,
    )
    empty_project.write("templates/plain.j2", "x")
    refused(
        empty_project,
        "ERROR: new pattern: the project has no pattern whose shape could be copied\n"
        "  hint: write the first one by hand\n",
        *("pattern", "oak"),
    )
