"""Names and patterns that are hostile: paths that lead out, options in disguise, bombs.

No name chosen by a pattern, a template or a folder becomes an option, a response file, a
package or a glob of a compiler; nothing is made or read outside of its folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Project

from codegen_tasks import patterns, process
from codegen_tasks.errors import StepError
from codegen_tasks.toolchains import Site, Toolchain, Unit, builtin

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
needs_deno = pytest.mark.skipif(process.find("deno") is None, reason="no deno")

# Compilers ------------------------------------------------------------------------------

#: Folders and stems that programs could take for something else.
FOLDERS = ["-x", "--output", "@files", "+plus", "-", "--", "npm:chalk", "https:", "a b", "$(x)"]
STEMS = ["-o", "--flag", "-rf", "@response", "a b", "a'b", 'a"b', "a;b", "a&b", "$HOME", "`id`"]
STEMS += ["a*b", "a?b", "[ab]", "{a,b}", "%41", "a#b", "a\\b", "~", "ä", "-"]


def site(root: Path) -> Site:
    (root / "scratch").mkdir(exist_ok=True)
    return Site(str(root), str(root / "scratch"), str(root / "cache"))


def write(root: Path, name: str, text: str) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return name


def names(suffix: str) -> list[str]:
    """Return paths of sources, each with something hostile in its folder or its name."""
    found = [f"{folder}/a{suffix}" for folder in FOLDERS]
    return [*found, *(f"{'-x' if i % 2 else 'src'}/{s}{suffix}" for i, s in enumerate(STEMS))]


def compiled(tool: Toolchain | None, root: Path, sources: list[str]) -> dict[str, Any]:
    """Compile sources; return the bytes of each target, by source, and insist on them."""
    assert tool is not None
    units = [Unit(source, tool.outputs(source)) for source in sources]
    results = tool.compile(units, site(root), 120)
    assert [str(result.error) for result in results if result.error] == []
    return {u.source: r.outputs[u.outputs[0]] for u, r in zip(units, results, strict=True)}


def everything(root: Path) -> set[str]:
    kept = ("scratch", "cache")
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith(kept)}


@needs_cc
@pytest.mark.parametrize("suffix", [".c", ".h"])
def test_cc_takes_every_name_for_a_file(tmp_path: Path, suffix: str) -> None:
    found = [name for name in names(suffix) if suffix == ".h" or "/@" not in name]
    sources = [write(tmp_path, name, "int a;\n") for name in found]
    before = everything(tmp_path)
    made = compiled(builtin("cc"), tmp_path, sources)
    assert set(made) == set(sources)
    assert all(b"\x7fELF" in data or data for data in made.values())
    assert everything(tmp_path) == before


@needs_cc
@pytest.mark.parametrize("folder", ["", "src/"])
def test_options_are_not_read_from_a_file(tmp_path: Path, folder: str) -> None:
    name = write(tmp_path, f"{folder}@response.c", "int a;\n")
    write(tmp_path, "response.c", f"-o {tmp_path}/owned -fplugin=x\n")
    before = everything(tmp_path)
    tool = builtin("cc")
    assert tool is not None
    (result,) = tool.compile([Unit(name, ("a.o",))], site(tmp_path), 60)
    assert str(result.error) == (
        f"{name}: cc takes a name that begins with '@' for a list of options\n"
        "  hint: rename the target"
    )
    assert everything(tmp_path) == before


@needs_cc
def test_what_a_depfile_names_is_the_file_with_the_odd_name(tmp_path: Path) -> None:
    for header in ("-x/a b.h", "-x/$HOME.h", "-x/a#b.h", "-x/@r.h"):
        write(tmp_path, header, "#define A 1\n")
        name = Path(header).name
        write(tmp_path, "-x/m.c", f'#include "{name}"\nint a = A;\n')
        tool = builtin("cc")
        assert tool is not None
        (result,) = tool.compile([Unit("-x/m.c", ("-x/m.o",))], site(tmp_path), 60)
        assert result.error is None
        assert header in result.discovered


@needs_deno
def test_deno_takes_every_name_for_a_file(tmp_path: Path) -> None:
    # On a URL's way through deno, a backslash in a name becomes a slash.
    sources = [name for name in names(".ts") if "\\" not in name]
    for name in sources:
        write(tmp_path, name, "export const a: number = 1;\n")
    before = everything(tmp_path)
    made = compiled(builtin("deno"), tmp_path, sources)
    assert set(made) == set(sources)
    assert all(data.startswith(b"export const a = 1;") for data in made.values())
    assert everything(tmp_path) == before


@needs_deno
def test_deno_checks_the_file_itself_and_nothing_like_it(tmp_path: Path) -> None:
    write(tmp_path, "src/[ab].ts", 'export const a: number = "text";\n')
    write(tmp_path, "src/a.ts", "export const a: number = 1;\n")
    tool = builtin("deno")
    assert tool is not None
    units = [Unit(name, tool.outputs(name)) for name in ("src/[ab].ts", "src/a.ts")]
    bad, good = tool.compile(units, site(tmp_path), 120)
    assert bad.error is not None
    assert good.error is None


ECHO = "import json, sys; a = sys.argv[1:]; open(a[-1], 'w').write(json.dumps(a[:-1]))"
BATCH = (
    "import json, os, sys\n"
    "for name in sys.argv[2:]:\n"
    "    base = os.path.splitext(os.path.basename(name))[0]\n"
    "    open(os.path.join(sys.argv[1], base + '.out'), 'w').write(json.dumps(name))\n"
)


def test_a_custom_command_gets_each_name_as_one_word_and_as_no_option(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ECHO, "{source}", "--in={source}", "{target}"]
    tool = Toolchain("echo", command=command, suffix=".out")
    sources = [write(tmp_path, name, "x") for name in [*names(".in"), "-o.in", "@r.in", "--.in"]]
    for source, data in compiled(tool, tmp_path, sources).items():
        word, option = json.loads(data)
        assert option == f"--in={word}"
        assert word[0] not in "-@+"
        assert os.path.normpath(word) == source


def test_a_batch_gets_each_name_as_one_word_and_as_no_option(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BATCH, "{folder}", "{sources}"]
    tool = Toolchain("batch", command=command, suffix=".out", batch=True)
    sources = [write(tmp_path, name, "x") for name in [*names(".in"), "-o.in", "@r.in", "--.in"]]
    made = compiled(tool, tmp_path, sources)
    assert {os.path.normpath(json.loads(data)) for data in made.values()} == set(sources)
    assert all(json.loads(data)[0] not in "-@+" for data in made.values())


def test_no_shell_sees_a_command(tmp_path: Path) -> None:
    words = ["$HOME", "`id`", "$(id)", "; id", "| id", "> owned", "*", "a\nb", "'", '"', "\\", ""]
    script = "import json, sys; print(json.dumps(sys.argv[1:]))"
    done = process.run([sys.executable, "-c", script, *words], str(tmp_path))
    assert json.loads(done.output) == words
    assert list(tmp_path.iterdir()) == []


@needs_cc
def test_a_project_whose_output_folder_looks_like_an_option_builds(empty_project: Project) -> None:
    project = empty_project
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        codegen = Codegen(output="-x")
        codegen.rule("unit", template="u.c.j2", patterns="patterns/*.toml",
                     target="{name}.c", compile="cc")
        DOIT_CONFIG = codegen.doit_config
        """,
    )
    project.write("templates/u.c.j2", "int {{ pattern.stem }};\n")
    hostile = {"a": "-o", "b": "$(id)", "c": "--flag", "d": "a b", "e": "-rf"}
    for stem, name in hostile.items():
        project.write(f"patterns/{stem}.toml", f"name = {json.dumps(name)}\n")
    assert project.doit().code == 0
    assert {p.name for p in (project.path / "-x").glob("*.o")} == {
        f"{name}.o" for name in hostile.values()
    }
    assert "up to date" in project.doit().out


# Targets --------------------------------------------------------------------------------

#: What a pattern's key may try to name a target, and what is said.
TARGETS = {
    "../out.txt": "the target '../out.txt' lies outside of generated/",
    "a/../../out.txt": "the target 'a/../../out.txt' lies outside of generated/",
    "/etc/out.txt": "the target '/etc/out.txt' lies outside of generated/",
    "up/out.txt": "the target 'up/out.txt' lies outside of generated/: generated/up is behind",
    "up/deep/out.txt": "the target 'up/deep/out.txt' lies outside of generated/",
    "..": "lies outside of generated/",
    ".": "names a folder, not a file",
    "": "names a folder, not a file",
    "a/": "names a folder, not a file",
    "a\x00b": "holds a character that no file's name should",
    "a\nb": "holds a character that no file's name should",
    "\x1b[2J": "holds a character that no file's name should",
    "\u202egpj.exe": "holds a character that no file's name should",
    "a=b": "holds '='",
}


@pytest.mark.parametrize("sandbox", [False, True])
def test_no_pattern_names_a_target_outside_of_the_output_folder(
    project: Project, sandbox: bool
) -> None:
    project.write(
        "dodo.py",
        f"""
        from codegen_tasks import Codegen

        codegen = Codegen(sandbox={sandbox})
        codegen.rule("page", template="plain.txt.j2", patterns="hostile/*.json", target="{{to}}")
        DOIT_CONFIG = codegen.doit_config
        """,
    )
    (project.path / "generated").mkdir()
    (project.path / "generated/up").symlink_to("..")
    for number, target in enumerate([*TARGETS, "good.txt"]):
        project.write(f"hostile/{number:02}.json", json.dumps({"to": target}))
    outside = set(os.listdir(project.path.parent))
    result = project.doit("-c")
    assert (result.code, result.err) == (1, "")
    assert "Traceback" not in result.out
    for number, said in enumerate(TARGETS.values()):
        line = re.search(rf"^  hostile/{number:02}.json: .*", result.out, re.MULTILINE)
        assert line is not None
        assert said in line[0]
    assert "\x1b" not in result.out
    assert project.read("generated/good.txt") == "plain\n"
    assert set(os.listdir(project.path.parent)) == outside
    assert not project.exists("out.txt")


# Patterns -------------------------------------------------------------------------------


def laughs(levels: int, how: str) -> str:
    """Return YAML whose aliases stand for 9**levels values."""
    lines = ["a0: &a0 {k: lol}" if how == "merge" else "a0: &a0 [lol]"]
    for level in range(1, levels + 1):
        many = ", ".join([f"*a{level - 1}"] * 9)
        text = f"{{<<: [{many}]}}" if how == "merge" else f"[{many}]"
        lines.append(f"a{level}: &a{level} {text}")
    return "\n".join(lines)


HOSTILE = {
    "deep.toml": ("x = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "deep.json": ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "deep.yaml": ("x: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "dots.toml": (".".join(["a"] * 5000) + " = 1", "nested too deeply"),
    "number.toml": ("x = " + "9" * 5000, "exceeds the limit"),
    "hex.toml": ("x = 0x" + "f" * 100_000, "xceeds the limit"),
    "number.json": ('{"x": ' + "9" * 5000 + "}", "exceeds the limit"),
    "number.yaml": ("x: " + "9" * 5000, "xceeds the limit"),
    "laughs.yaml": (laughs(12, "list"), "its aliases make it too large"),
    "merges.yaml": (laughs(12, "merge"), "its aliases make it too large"),
    "text.yaml": (
        f"a: &a {'x' * 10_000}\nb: &b [{', '.join(['*a'] * 99)}]\nc: [{', '.join(['*b'] * 99)}]",
        "its aliases make it too large",
    ),
    "circle.yaml": ("x: &x [*x]", "holds a value that no template can rely on"),
    "object.yaml": ("x: !!python/object/apply:os.system ['touch owned']", "constructor"),
    "name.yaml": ("x: !!python/name:os.system ''", "constructor"),
    "key.yaml": ("? [a]\n: 1", "unhashable key"),
    "keys.yaml": ("? {a: 1}\n: 1", "unhashable key"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pattern_fails_as_a_step(tmp_path: Path, name: str) -> None:
    text, said = HOSTILE[name]
    write(tmp_path, name, text)
    with pytest.raises(StepError) as caught:
        patterns.Library(str(tmp_path)).load(name)
    assert caught.value.where.startswith(name)
    assert said in caught.value.what
    assert not (tmp_path / "owned").exists()


def test_hostile_patterns_spoil_no_other_target(project: Project) -> None:
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        codegen = Codegen(sandbox=True)
        codegen.rule("page", template="plain.txt.j2", patterns="hostile/*", target="{stem}.txt")
        DOIT_CONFIG = codegen.doit_config
        """,
    )
    for number, (name, (text, _)) in enumerate(HOSTILE.items()):
        project.write(f"hostile/{number}{name}", text)
    project.write("hostile/good.toml", "x = 1\n")
    result = project.doit("-c", "generate")
    assert (result.code, result.err) == (1, "")
    assert "Traceback" not in result.out
    assert os.listdir(project.path / "generated") == ["good.txt"]


def test_ordinary_aliases_and_merges_are_followed(tmp_path: Path) -> None:
    text = "base: &b {k: [1, 2]}\none: {<<: *b, n: 1}\nall: [*b, *b]\nempty:\n"
    write(tmp_path, "a.yaml", text)
    assert patterns.Library(str(tmp_path)).load("a.yaml").data == {
        "base": {"k": [1, 2]},
        "one": {"k": [1, 2], "n": 1},
        "all": [{"k": [1, 2]}, {"k": [1, 2]}],
        "empty": None,
    }


def test_a_pattern_behind_a_link_out_of_the_project_is_refused(project: Project) -> None:
    (project.path.parent / "secret.toml").write_text("s3cret = \n")
    (project.path / "patterns/oak.toml").symlink_to("../../secret.toml")
    (project.path.parent / "others").mkdir()
    (project.path.parent / "others/elm.toml").write_text('name = "elm"\ngain = 1\n')
    (project.path / "patterns/birch.toml").unlink()
    (project.path / "patterns/birch.toml").symlink_to("../kept.toml")
    project.write("kept.toml", 'name = "birch"\ngain = 1\n')
    result = project.doit("-c")
    assert result.code == 1
    assert "patterns/oak.toml: a pattern cannot lie outside the project" in result.out
    assert "s3cret" not in result.out
    assert "BIRCH!" in project.read("generated/birch.txt")


def test_pipes_and_devices_among_the_patterns_are_passed_over(project: Project) -> None:
    os.mkfifo(project.path / "patterns/pipe.toml")
    (project.path / "patterns/zero.toml").symlink_to("/dev/zero")
    assert project.doit().code == 0
    assert not project.exists("generated/pipe.txt")


@pytest.mark.parametrize("command", ["list", "info", "clean"])
def test_no_command_waits_for_a_pipe(project: Project, command: str) -> None:
    project.doit()
    for name in ("patterns/ash.toml", "templates/plain.txt.j2", "generated/plain.txt"):
        project.remove(name)
        os.mkfifo(project.path / name)
    try:
        result = project.doit(command)
    except subprocess.TimeoutExpired:
        pytest.fail(f"doit {command} waits for a pipe")
    assert "Traceback" not in result.err
