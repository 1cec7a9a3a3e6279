"""Promise 3: a step that makes the same bytes writes nothing, and nothing downstream runs.

The project renders a source for each pattern and compiles it by three programs in a row; a
task of the user's reads the end of the chain.  Programs and task note that they ran.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from conftest import Project

DODO = """
import sys

from codegen_tasks import Codegen, Toolchain


def program(name, suffix, **more):
    words = ["{source}", "{target}", *(["{depfile}"] if more else [])]
    return Toolchain(name, [sys.executable, f"tools/{name}.py", *words], suffix, **more)


CHAIN = [program("strip", ".mid", depfile="{target}.d"), program("join", ".low"),
         program("seal", ".end")]

codegen = Codegen()
codegen.rule("code", template="code.j2", patterns="patterns/*.toml", target="{stem}.src",
             compile=CHAIN)
codegen.rule("facts", template="facts.j2", patterns="patterns/*.toml", target="{stem}.json")


@codegen.filter
def loud(text):
    return text.upper()


def note(targets):
    with open("started", "a") as notes:
        notes.write("mine\\n")


def task_mine():
    return {"actions": [(note, [[]])], "file_dep": ["generated/ash.end", "generated/ash.json"]}


DOIT_CONFIG = codegen.doit_config
"""
#: Notes that it runs; the first of them drops comments and includes a header.
PROGRAM = """\
import pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:3])
with open("started", "a") as notes:
    print(pathlib.Path(sys.argv[0]).stem, source.name, file=notes)
lines = [line for line in source.read_text().splitlines() if not line.startswith("#")]
if len(sys.argv) == 4:
    header = pathlib.Path("include/header")
    lines.append(header.read_text().split()[0])
    pathlib.Path(sys.argv[3]).write_text(f"{target}: {source} {header}\\n")
target.write_text("\\n".join(lines))
"""
FILES = {
    "dodo.py": DODO,
    "templates/code.j2": '{% import "macros.j2" as m %}{{ m.line(name) }}\n{{ gain > 0 }}\n',
    "templates/macros.j2": "{% macro line(x) %}= {{ x|loud }}{% endmacro %}\n",
    "templates/facts.j2": '{"facts": {{ name|length }}}\n',
    "patterns/ash.toml": 'name = "ash"\ngain = 1\n',
    "patterns/oak.toml": 'name = "oak"\ngain = 2\n',
    "include/header": "1 one\n",
    **{f"tools/{name}.py": PROGRAM for name in ("strip", "join", "seal")},
}
MANIFEST = ".codegen/manifest.json"


@pytest.fixture
def chain(empty_project: Project) -> Project:
    """Return the project after its first build."""
    for name, text in FILES.items():
        empty_project.write(name, text)
    result = empty_project.doit()
    assert result.code == 0, result.out + result.err
    assert len(started(empty_project)) == 7
    return empty_project


def started(project: Project) -> list[str]:
    """Return which programs and tasks ran, and forget it."""
    if not project.exists("started"):
        return []
    notes = project.read("started").splitlines()
    project.remove("started")
    return notes


def change(project: Project, name: str, old: str, new: str) -> None:
    text = project.read(name)
    assert old in text
    project.write(name, text.replace(old, new))


def edited(
    project: Project, *arguments: str
) -> tuple[set[str], list[str], dict[str, tuple[int, int]], bytes]:
    """Build; return targets made, programs started, stamps of outputs and the manifest."""
    result = project.doit(*arguments)
    assert result.code == 0, result.out + result.err
    made = set(re.findall(r"^\.  (?:generate|compile):(\S+)", result.out, re.MULTILINE))
    manifest = (project.path / MANIFEST).read_bytes()
    stamps = {**project.stamps("generated"), MANIFEST: project.stamps(".codegen")[MANIFEST]}
    again = project.doit(*arguments)
    assert again.out.startswith("-- mine\n10 up to date"), again.out
    return made, sorted(started(project)), stamps, manifest


SOURCES = {"ash.src", "oak.src"}
#: What is edited: file, old text, new text; and what is then made, to the same bytes.
RENDERS: dict[str, tuple[list[tuple[str, str, str]], set[str]]] = {
    "a comment in a template": ([("templates/code.j2", "{{ gain", "{# why #}{{ gain")], SOURCES),
    "a comment in a macro's template": ([("templates/macros.j2", "{%", "{# why #}{%")], SOURCES),
    "a renamed macro": (
        [("templates/macros.j2", "line(x)", "row(x)"), ("templates/code.j2", "m.line", "m.row")],
        SOURCES,
    ),
    "a macro that moved": (
        [
            ("templates/code.j2", "m.line(name)", "'= ' ~ name|loud"),
            ("templates/code.j2", '{% import "macros.j2" as m %}', ""),
        ],
        SOURCES,
    ),
    "a filter that says the same": (
        [("dodo.py", "return text.upper()", 'return "".join(c.upper() for c in text)')],
        SOURCES,
    ),
    "a value that comes to the same": (
        [("patterns/ash.toml", "gain = 1", "gain = 5")],
        {"ash.src"},
    ),
    "a target that a task of the user's reads": (
        [("templates/facts.j2", "name|length", "name|list|count")],
        {"ash.json", "oak.json"},
    ),
    "an option that changes nothing here": (
        [("dodo.py", "Codegen()", 'Codegen(environment={"autoescape": True})')],
        {*SOURCES, "ash.json", "oak.json"},
    ),
}


@pytest.mark.parametrize("what", RENDERS)
def test_a_render_of_the_same_bytes_ends_there(chain: Project, what: str) -> None:
    """No target is written, no program started, no task run, and the manifest stays."""
    edits, made = RENDERS[what]
    before = edited(chain)
    for name, old, new in edits:
        change(chain, name, old, new)
    assert edited(chain) == (made, *before[1:])


def test_the_screen_says_how_many_came_to_the_same_bytes(chain: Project) -> None:
    change(chain, "templates/code.j2", "{{ gain", "{# why #}{{ gain")
    assert "2 generated, 2 of them unchanged, 8 up to date" in chain.doit().out


def test_what_reads_nothing_that_changed_is_not_even_rendered(chain: Project) -> None:
    """A comment in a pattern or a filter, and files written again, cost no step."""
    before = edited(chain)
    change(chain, "patterns/ash.toml", "gain", "# loud\ngain")
    change(chain, "dodo.py", "    return text", "    # loud\n    return text")
    for name in ("include/header", "templates/code.j2", "tools/join.py"):
        text = chain.read(name)
        chain.remove(name)
        chain.write(name, text)
        os.utime(chain.path / name, (1, 1))
    assert edited(chain) == before


def changes(
    before: tuple[set[str], list[str], dict[str, tuple[int, int]], bytes],
    after: tuple[set[str], list[str], dict[str, tuple[int, int]], bytes],
) -> tuple[set[str], set[str]]:
    """Return the targets written, and those whose entry in the manifest changed."""
    written = {os.path.basename(name) for name in after[2] if after[2][name] != before[2][name]}
    old, new = (json.loads(manifest)["files"] for manifest in (before[3], after[3]))
    assert set(old) == set(new)
    return written, {name for name in new if new[name] != old[name]}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "parallel"])
def test_a_compile_of_the_same_bytes_ends_there(chain: Project, workers: tuple[str, ...]) -> None:
    """Sources differ by a comment that the first program drops: the others do not start."""
    before = edited(chain)
    change(chain, "templates/code.j2", "{{ gain", "# {{ name }}\n{{ gain")
    after = edited(chain, *workers)
    assert after[0] == {*SOURCES, "ash.mid", "oak.mid"}
    assert after[1] == ["strip ash.src", "strip oak.src"]
    assert changes(before, after) == ({*SOURCES, "manifest.json"}, SOURCES)


def test_the_chain_ends_wherever_bytes_are_the_same(chain: Project) -> None:
    """The source is another, and so is the first program's output, but not the second's."""
    change(chain, "tools/join.py", '"\\n".join(lines)', '" ".join(" ".join(lines).split())')
    before = edited(chain)
    change(chain, "templates/macros.j2", "= {{", "=    {{")
    after = edited(chain)
    assert after[1] == ["join ash.mid", "join oak.mid", "strip ash.src", "strip oak.src"]
    written = {*SOURCES, "ash.mid", "oak.mid"}
    assert changes(before, after) == ({*written, "manifest.json"}, written)


def test_another_compiler_of_the_same_output_ends_there(chain: Project) -> None:
    """Its outputs stay as they are, and what compiles them further does not start."""
    before = edited(chain)
    change(chain, "tools/strip.py", "import pathlib, sys", "import sys, pathlib")
    after = edited(chain)
    assert after[:2] == ({"ash.mid", "oak.mid"}, ["strip ash.src", "strip oak.src"])
    assert after[2:] == before[2:]


def test_a_header_that_comes_to_the_same_output_ends_there(chain: Project) -> None:
    """The depfile's header changed where the compiler does not look."""
    before = edited(chain)
    change(chain, "include/header", "one", "uno")
    after = edited(chain)
    assert after[:2] == ({"ash.mid", "oak.mid"}, ["strip ash.src", "strip oak.src"])
    assert after[2:] == before[2:]


def test_a_real_change_goes_all_the_way(chain: Project) -> None:
    """The test of the test: what makes other bytes reaches the end of the chain."""
    before = edited(chain)
    change(chain, "patterns/ash.toml", "gain = 1", "gain = 0")
    after = edited(chain)
    made: Any = {"ash.src", "ash.mid", "ash.low", "ash.end"}
    assert after[:2] == (made, ["join ash.mid", "mine", "seal ash.low", "strip ash.src"])
    assert changes(before, after) == ({*made, "manifest.json"}, made)
