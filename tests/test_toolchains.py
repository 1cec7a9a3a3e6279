"""Toolchains: what is compiled, when again, what a failure says, and how many processes it takes.

The compilers are the real ones.  Where processes are counted, a script that notes its
arguments stands before the real program.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import psutil
import pytest
from conftest import Project, Result

from codegen_tasks import process
from codegen_tasks.errors import DeclarationError
from codegen_tasks.toolchains import Site, Toolchain, Unit, base, deno

CC = shutil.which("cc")
CXX = shutil.which("c++")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler")
needs_cxx = pytest.mark.skipif(CXX is None, reason="no C++ compiler")
needs_deno = pytest.mark.skipif(process.find("deno") is None, reason="no deno")

# A pattern is the text of what it becomes, so that a test shows what is compiled.
COPIES = """
import sys
from codegen_tasks import Codegen, Toolchain

PYTHON = sys.executable
codegen = Codegen()
codegen.rule("copy", template="copy.j2", patterns="patterns/**/*.json",
             target="{{folder}}/{{stem}}{suffix}", compile={compile})
DOIT_CONFIG = codegen.doit_config
"""


def copies(project: Project, suffix: str, compiler: str, **sources: str) -> Project:
    """Declare one generated file for each of `sources`, and what compiles it."""
    project.write("dodo.py", COPIES.format(suffix=suffix, compile=compiler))
    project.write("templates/copy.j2", "{{ text }}")
    for name, text in sources.items():
        source(project, name, text)
    return project


def source(project: Project, name: str, text: str) -> None:
    """Write the pattern of one generated file."""
    project.write(f"patterns/{name}.json", json.dumps({"text": text}))


def ran(result: Result, phase: str = "compile") -> set[str]:
    """Return the targets of a phase that a run says it made or tried to."""
    return set(re.findall(rf"^\.  {phase}:(.*?)(?:  \(pid .*)?$", result.out, re.MULTILINE))


def succeed(project: Project, *arguments: str, **environ: str) -> Result:
    """Run doit and insist that it worked."""
    result = project.doit(*arguments, **environ)
    assert result.code == 0, result.out + result.err
    return result


def outputs(project: Project, *suffixes: str) -> dict[str, bytes]:
    """Return what was compiled, by name."""
    return {n: b for n, b in project.files(".codegen").items() if n.endswith(suffixes)}


# --- cc -----------------------------------------------------------------------------------------

UNIT = """
#include "{{ include }}"
int {{ pattern.stem }}(void) { return {{ value }}; }
"""


@pytest.fixture
def units(empty_project: Project) -> Project:
    """Three C files; `a` and `b` include `shared.h`, `b` by way of `other.h`, `c` neither."""
    project = empty_project
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        codegen = Codegen()
        codegen.rule("unit", template="unit.c.j2", patterns="patterns/*.toml",
                     target="{stem}.c", compile="cc")
        DOIT_CONFIG = codegen.doit_config
        """,
    )
    project.write("templates/unit.c.j2", UNIT)
    project.write("include/shared.h", "#define SHARED 1\n")
    project.write("include/other.h", '#include "shared.h"\n')
    project.write("include/lone.h", "#define LONE 3\n")
    for stem, header, value in (("a", "shared", "SHARED"), ("b", "other", "2"), ("c", "lone", "3")):
        text = f'include = "../include/{header}.h"\nvalue = "{value}"\n'
        project.write(f"patterns/{stem}.toml", text)
    return project


@needs_cc
def test_generated_c_becomes_object_files_that_link_and_run(units: Project) -> None:
    succeed(units)
    text = "int a(void), b(void), c(void); int main(void) { return a() * 100 + b() * 10 + c(); }"
    units.write("main.c", text)
    objects = [f"generated/{stem}.o" for stem in "abc"]
    linked = units.run("cc", "main.c", *objects, "-o", "program")
    assert linked.code == 0, linked.err
    assert units.run("./program").code == 123


@needs_cc
def test_editing_a_header_recompiles_exactly_its_users(units: Project) -> None:
    succeed(units)
    units.write("include/shared.h", "#define SHARED 7\n")
    edited = succeed(units)
    assert ran(edited) == {"a.o", "b.o"}
    assert ran(edited, "generate") == set()
    assert ran(succeed(units)) == set()


@needs_cc
def test_touching_a_header_recompiles_nothing(units: Project) -> None:
    succeed(units)
    before = units.stamps("generated")
    os.utime(units.path / "include/shared.h", (1, 1))
    assert ran(succeed(units)) == set()
    assert units.stamps("generated") == before


@needs_cc
def test_a_header_that_vanishes_is_an_error_of_its_users_only(units: Project) -> None:
    succeed(units)
    units.remove("include/lone.h")
    result = units.doit("-c")
    assert result.code == 1
    assert ran(result) == {"c.o"}
    assert "generated/c.c:1: ../include/lone.h: No such file or directory" in result.out


@needs_cc
@pytest.mark.parametrize("made", [False, True], ids=["written", "generated"])
def test_a_header_that_was_looked_for_in_vain_counts_once_it_is_there(
    units: Project, made: bool
) -> None:
    text = """
        #include "stdbool.h"
        #if __has_include("extra.h")
        #include "extra.h"
        #else
        #define EXTRA 1
        #endif
        int {{ pattern.stem }}(void) { return true + EXTRA; }
        """
    units.write("templates/unit.c.j2", text)
    for name, header in (("stdbool.h", "#define true 40\n"), ("extra.h", "#define EXTRA 2\n")):
        succeed(units)
        assert ran(succeed(units)) == set()
        before = outputs(units, "a.o")
        if made:
            rule = f'codegen.rule("{name[:-2]}", template="{name}", target="{name}")\nDOIT_CONFIG'
            units.write(f"templates/{name}", header)
            units.write("dodo.py", units.read("dodo.py").replace("DOIT_CONFIG", rule, 1))
        else:
            units.write(f"generated/{name}", header)
        assert f"generated/{name}: " in units.doit("info", "--all").out or made
        assert ran(succeed(units)) == {"a.o", "b.o", "c.o"}
        assert outputs(units, "a.o") != before


@needs_cc
def test_info_names_headers_by_their_plain_path_from_the_project(units: Project) -> None:
    succeed(units)
    units.write("include/shared.h", "#define SHARED 7\n")
    result = units.doit("info")
    assert result.code == 1
    assert "  include/shared.h: changed\n" in result.out
    assert ".." not in result.out


GENERATED_HEADER = """
codegen.rule("zeta", template="zeta.h.j2", target="zeta.h")
DOIT_CONFIG"""


@pytest.fixture
def with_generated_header(units: Project) -> Project:
    """All three include a generated header too; its name comes last in every order."""
    units.write("dodo.py", units.read("dodo.py").replace("\nDOIT_CONFIG", GENERATED_HEADER))
    units.write("templates/zeta.h.j2", "#define ZETA 1\n")
    units.write("templates/unit.c.j2", UNIT.replace("\nint", '\n#include "zeta.h"\nint'))
    return units


@needs_cc
@pytest.mark.parametrize(
    ("arguments", "objects"),
    [
        (("compile:a.o",), {"a.o"}),
        (("generated/a.o",), {"a.o"}),
        (("-n", "3"), {"a.o", "b.o", "c.o"}),
        (("-n", "3", "compile"), {"a.o", "b.o", "c.o"}),
        (("-n", "2", "-P", "thread", "compile:b.o"), {"b.o"}),
    ],
)
def test_a_generated_header_is_made_before_what_includes_it_is_compiled(
    with_generated_header: Project, arguments: tuple[str, ...], objects: set[str]
) -> None:
    project = with_generated_header
    assert ran(succeed(project, *arguments)) == objects
    assert project.exists("generated/zeta.h")
    assert ran(succeed(project, *arguments)) == set()


@needs_cc
def test_compiles_in_threads_do_not_meet(units: Project) -> None:
    for number in range(12):
        text = 'include = "../include/lone.h"\nvalue = "1"\n'
        units.write(f"patterns/unit{number}.toml", text)
    succeed(units, "-n", "4", "-P", "thread")
    assert len(outputs(units, ".o")) == 15
    assert list((units.path / ".codegen/tmp").iterdir()) == []


@needs_cc
def test_a_changed_generated_header_recompiles_its_users(with_generated_header: Project) -> None:
    succeed(with_generated_header)
    with_generated_header.write("templates/zeta.h.j2", "#define ZETA 2\n")
    assert ran(succeed(with_generated_header, "compile:a.o")) == {"a.o"}
    assert ran(succeed(with_generated_header)) == {"b.o", "c.o"}


@needs_cc
def test_a_header_that_becomes_a_generated_one_is_made_first(units: Project) -> None:
    units.write("templates/unit.c.j2", UNIT.replace("\nint", '\n#include "zeta.h"\nint'))
    assert units.doit("compile:a.o").code == 1
    units.write("dodo.py", units.read("dodo.py").replace("\nDOIT_CONFIG", GENERATED_HEADER))
    units.write("templates/zeta.h.j2", "#define ZETA 1\n")
    assert ran(succeed(units, "compile:a.o")) == {"a.o"}


@needs_cc
def test_a_generated_header_that_becomes_a_handwritten_one_is_no_longer_waited_for(
    with_generated_header: Project,
) -> None:
    project = with_generated_header
    succeed(project, "compile")
    project.write("dodo.py", project.read("dodo.py").replace(GENERATED_HEADER, "\nDOIT_CONFIG"))
    project.write("generated/zeta.h", "#define ZETA 3\n")
    assert ran(succeed(project, "compile:a.o")) == {"a.o"}
    assert ran(succeed(project)) == {"b.o", "c.o"}


@needs_cc
def test_a_compile_error_names_generated_line_template_and_pattern(units: Project) -> None:
    units.write("patterns/b.toml", 'include = "../include/other.h"\nvalue = "nowhere"\n')
    result = units.doit("-c")
    assert result.code == 1
    assert ran(result) == {"a.o", "b.o", "c.o"}
    message = result.out[result.out.index("failed: compile:b.o") :]
    assert message.splitlines()[1].startswith("  generated/b.c:2: 'nowhere' undeclared")
    assert message.splitlines()[2].strip() == "2 | int b(void) { return nowhere; }"
    assert message.splitlines()[3].strip().endswith("^~~~~~~")
    assert "    made from templates/unit.c.j2 and patterns/b.toml" in message
    assert "'nowhere' undeclared" in units.read(".codegen/logs/compile/b.o.log")
    assert units.exists("generated/a.o")
    assert not units.exists("generated/b.o")


@needs_cc
def test_warnings_of_a_successful_compile_are_shown_and_logged(units: Project) -> None:
    unused = UNIT.replace("{ return", "{ int unused_here; return")
    units.write("templates/unit.c.j2", unused)
    result = succeed(units, "compile:a.o")
    assert "  generated/a.c:2:" in result.out
    assert "warning: unused variable 'unused_here'" in result.out
    log = ".codegen/logs/compile/a.o.log"
    assert "warning: unused variable 'unused_here'" in units.read(log)
    units.write("templates/unit.c.j2", UNIT)
    succeed(units, "compile:a.o")
    assert not units.exists(log)


@needs_cc
def test_a_header_edited_while_it_is_compiled_is_compiled_again(units: Project) -> None:
    # This compiler reads the header, and then somebody else writes it.
    real = CC or ""
    script = f'#!/bin/sh\n"{real}" "$@" || exit\n[ -z "$MEDDLE" ] || eval "$MEDDLE"\n'
    path = wrapper(units, "cc", script)
    meddle = "echo '#define SHARED 9' > include/shared.h"
    succeed(units, "compile:a.o", PATH=path, MEDDLE=meddle)
    assert ran(succeed(units, "compile:a.o", PATH=path)) == {"a.o"}
    assert ran(succeed(units, "compile:a.o", PATH=path)) == set()


# --- c++ ----------------------------------------------------------------------------------------

HEADERS = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("table", template="table.hpp.j2", patterns="patterns/*.toml",
             target="{stem}.hpp", compile="c++")
codegen.rule("page", template="page.txt.j2", patterns="patterns/*.toml", target="{stem}.txt")
DOIT_CONFIG = codegen.doit_config
"""

TABLE = """
#pragma once
#include <array>
namespace tables {
inline constexpr std::array<int, {{ values|length }}> {{ pattern.stem }}{
    {% for value in values %}{{ value }}, {% endfor %}
};
}
"""


@pytest.fixture
def headers(empty_project: Project) -> Project:
    """Declare a second rule that makes C++ headers of the same patterns."""
    project = empty_project
    project.write("dodo.py", HEADERS)
    project.write("templates/table.hpp.j2", TABLE)
    project.write("templates/page.txt.j2", "{{ values|sum }}\n")
    project.write("patterns/odd.toml", "values = [1, 3, 5]\n")
    return project


@needs_cxx
def test_generated_headers_stand_alone_and_serve_a_program(headers: Project) -> None:
    succeed(headers)
    headers.write(
        "main.cpp",
        """
        #include "generated/odd.hpp"
        #include <iostream>
        int main() { for (int value : tables::odd) std::cout << value << ' '; }
        """,
    )
    built = headers.run("c++", "-std=c++17", "-Wall", "-Werror", "main.cpp", "-o", "main")
    assert built.code == 0, built.err
    assert headers.run("./main").out == "1 3 5 "
    assert ran(succeed(headers)) == set()


@needs_cxx
def test_a_generated_header_that_needs_another_include_first_is_an_error(headers: Project) -> None:
    headers.write("templates/table.hpp.j2", TABLE.replace("#include <array>\n", ""))
    result = headers.doit()
    assert result.code == 1
    assert "failed: compile:odd.o\n  generated/odd.hpp:3: " in result.out
    assert "made from templates/table.hpp.j2 and patterns/odd.toml" in result.out
    assert not headers.exists("generated/odd.o")


@needs_cxx
def test_a_built_in_compiler_with_more_flags_is_the_same_compiler(headers: Project) -> None:
    plain = headers.read("dodo.py")
    assert plain.count('compile="c++"') >= 1

    def flags(*given: str) -> None:
        words = ", ".join(map(repr, given))
        text = plain.replace('compile="c++"', f"compile=CXX.with_flags({words})")
        text = text.replace("import Codegen", "import CXX, Codegen")
        headers.write("dodo.py", text)

    headers.write("include/own.hpp", "#define OWN 1\n")
    table = (
        '#include "own.hpp"\n' + TABLE + "static_assert(LEVEL == OWN && __cplusplus > 201703L);\n"
    )
    headers.write("templates/table.hpp.j2", table)
    flags("-Iinclude", "-DLEVEL=1", "-std=c++20")
    assert "odd.o" in ran(succeed(headers))
    assert ran(succeed(headers)) == set()
    headers.write("include/own.hpp", "#define OWN 2\n")  # what it reads is an input still
    assert "static assertion failed" in headers.doit().out
    flags("-Iinclude", "-DLEVEL=2", "-std=c++20")
    assert "odd.o" in ran(succeed(headers))
    flags("-Iinclude", "-DLEVEL=2", "-std=c++20", "-g")
    assert "command c++: " in headers.doit("info").out


def test_a_flag_that_is_no_word_is_refused(headers: Project) -> None:
    text = headers.read("dodo.py").replace('compile="c++"', "compile=CXX.with_flags(1)")
    headers.write("dodo.py", text.replace("import Codegen", "import CXX, Codegen"))
    result = headers.doit()
    assert result.code == 3
    assert "toolchain c++: with_flags must be a list of words, not (1,)\n" in result.err


# --- python -------------------------------------------------------------------------------------

MODULE = "def answer():\n    return 42\n\n\ndef place():\n    return answer.__code__.co_filename\n"


def test_python_becomes_a_hash_based_pyc_importable_without_its_source(
    empty_project: Project, tmp_path: Path
) -> None:
    project = copies(empty_project, ".py", '"python"', module=MODULE)
    succeed(project)
    compiled = (project.path / "generated/module.pyc").read_bytes()
    # PEP 552: bit 0 says that a hash of the source follows, bit 1 that it is checked.
    assert compiled[4:8] == (0b11).to_bytes(4, "little")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "module.pyc").write_bytes(compiled)
    code = "import module; print(module.answer(), module.place())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True
    )
    assert done.stdout == "42 generated/module.py\n"


def test_python_bytes_hang_neither_on_the_checkout_nor_on_flags_of_the_interpreter(
    empty_project: Project, tmp_path: Path, state_home: Path
) -> None:
    other = Project(tmp_path / "another place", state_home)
    for project in (empty_project, other):
        copies(project, ".py", '"python"', module=MODULE + "assert answer()\n")
    succeed(empty_project)
    succeed(other, PYTHONOPTIMIZE="2")
    assert outputs(empty_project, ".pyc") == outputs(other, ".pyc") != {}


def test_a_syntax_error_in_generated_python_names_line_template_and_pattern(
    empty_project: Project,
) -> None:
    project = copies(empty_project, ".py", '"python"', good="x = 1\n", bad="y = 2\nz = = 3\n")
    result = project.doit("-c")
    assert result.code == 1
    message = """
failed: compile:bad.pyc
  generated/bad.py:2: invalid syntax
    2 | z = = 3
    by templates/copy.j2:1
    1 | {{ text }}
      | ^^^^^^^^^^
    with patterns/bad.json:1: text = "y = 2\\nz = = 3\\n"
    made from templates/copy.j2 and patterns/bad.json
"""
    assert message in result.out
    assert "Traceback" not in result.out + result.err
    assert set(outputs(project, ".pyc")) == {"generated/good.pyc"}


def test_a_warning_of_pythons_compiler_is_shown_and_logged(empty_project: Project) -> None:
    project = copies(empty_project, ".py", '"python"', module="x = 1 is 1\n")
    result = succeed(project)
    warning = "generated/module.py:1: SyntaxWarning: "
    assert warning in result.out
    assert result.err == ""
    assert warning in project.read(".codegen/logs/compile/module.pyc.log")


# --- deno: imports ------------------------------------------------------------------------------

USER = """\
import { one } from "./base.ts";
import type { Shape } from './base.ts';
import { type Shape as Again, two } from "./base.ts"; import { one as uno } from "./base.ts";
export { two } from "./base.ts";
export type { Shape } from "./base.ts";
export * from "./more.ts";
import "./effect.ts";
const ärger = "é 😀😀"; const lazy = await import("./base.ts"); const more = import('./more.ts');
const twice = [(await import("./base.ts")).one, (await import(`./base.ts`)).two];
type Late = import("./base.ts").Shape;
const text = 'import { one } from "./base.ts"';
const template = `import "./base.ts"; export * from "./more.ts"`;
// import "./base.ts"
const shape: Shape & Again & Late = { side: one + two + uno };
console.log(JSON.stringify([shape, ärger, lazy.two, (await more).three, twice, text, template]));
"""
IMPORTS = {
    "base": "export interface Shape { side: number }\n"
    "export const one = 1;\nexport const two = 2;\n",
    "more": "export const three: number = 3;\n",
    "effect": 'console.log("effect");\n',
    "user": USER,
    "sub/deep/inner": 'import { one } from "../../base.ts";\nimport { side } from "./twin.ts";\n'
    "console.log(one + side);\n",
    "sub/deep/twin": "export const side: number = 10;\n",
    "marked": '\ufeffimport { one } from "./base.ts"; export { two } from "./base.ts";\n'
    "console.log(one);\n",
    "crlf": 'import { one } from "./base.ts";\r\nexport const plus = one + 1;\r\n',
    """it's "named" [so] 100%25 #1""": "export const odd: number = 1;\n",
    "names": """import { odd } from "./it's \\"named\\" [so] 100%2525 %231.ts";\n"""
    "console.log(odd);\n",
}


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory, state_home: Path) -> Project:
    """Every way to import, compiled."""
    project = Project(tmp_path_factory.mktemp("imports"), state_home)
    copies(project, ".ts", '"deno"', **IMPORTS)
    succeed(project)
    return project


def play(project: Project, name: str, folder: Path) -> str:
    """Run a compiled module in a folder without any TypeScript; return what it printed."""
    for path, content in outputs(project, ".js", ".mjs").items():
        copy = folder / path.removeprefix("generated/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    done = subprocess.run(
        [str(process.find("deno")), "run", "--no-config", "--no-lock", "--no-prompt", name],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_deno
def test_compiled_javascript_imports_javascript_wherever_it_imports(
    imports: Project, tmp_path: Path
) -> None:
    printed = play(imports, "user.js", tmp_path).splitlines()
    assert printed[0] == "effect"
    text = 'import { one } from "./base.ts"'
    template = 'import "./base.ts"; export * from "./more.ts"'
    assert json.loads(printed[1]) == [{"side": 4}, "é 😀😀", 2, 3, [1, 2], text, template]


@needs_deno
def test_no_import_is_left_that_names_typescript(imports: Project) -> None:
    lines = imports.read("generated/user.js").splitlines()
    harmless = ("const text", "const template", "//")
    assert [line for line in lines if ".ts" in line and not line.startswith(harmless)] == []


@needs_deno
def test_imports_lead_from_folder_to_folder(imports: Project, tmp_path: Path) -> None:
    assert play(imports, "sub/deep/inner.js", tmp_path) == "11\n"


@needs_deno
@pytest.mark.parametrize(("name", "printed"), [("marked", "1\n"), ("crlf", ""), ("names", "1\n")])
def test_imports_are_found_behind_byte_order_mark_crlf_and_odd_names(
    imports: Project, tmp_path: Path, name: str, printed: str
) -> None:
    assert play(imports, f"{name}.js", tmp_path) == printed


@needs_deno
def test_mts_becomes_mjs_and_imports_follow(empty_project: Project, tmp_path: Path) -> None:
    project = copies(
        empty_project,
        ".mts",
        '"deno"',
        part="export const part: number = 5;\n",
        whole='import { part } from "./part.mts";\nconsole.log(part);\n',
    )
    succeed(project)
    compiled = {"part.mjs", "part.mjs.map", "whole.mjs", "whole.mjs.map"}
    assert set(outputs(project, ".mjs", ".map")) == {f"generated/{name}" for name in compiled}
    assert play(project, "whole.mjs", tmp_path) == "5\n"


# --- deno: source maps --------------------------------------------------------------------------

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def decoded(mappings: str) -> list[tuple[int, int, int, int]]:
    """Return (line, column, source line, source column), all from 0, of each mapping.

    Source map revision 3: base64 VLQ, five bits a digit, the sign in the lowest bit.
    """
    found = []
    origin = [0, 0, 0]  # source, line, column
    for line, group in enumerate(mappings.split(";")):
        column = 0
        for segment in filter(None, group.split(",")):
            fields, value, shift = [], 0, 0
            for digit in map(BASE64.index, segment):
                value |= (digit & 31) << shift
                shift += 5
                if not digit & 32:
                    fields.append(-(value >> 1) if value & 1 else value >> 1)
                    value = shift = 0
            column += fields[0]
            if len(fields) >= 4:
                origin = [a + b for a, b in zip(origin, fields[1:4], strict=True)]
                found.append((line, column, origin[1], origin[2]))
    return found


@needs_deno
def test_source_maps_lead_back_to_the_generated_typescript(imports: Project) -> None:
    code = imports.read("generated/user.js")
    assert code.endswith("\n//# sourceMappingURL=user.js.map\n")
    assert code.count("sourceMappingURL") == 1
    found = json.loads(imports.read("generated/user.js.map"))
    assert (found["version"], found["file"]) == (3, "user.js")
    assert (found["sources"], found["sourcesContent"]) == (["user.ts"], [USER])
    here, there = code.splitlines(), USER.splitlines()
    line = next(n for n, text in enumerate(here) if "console.log" in text)
    known = (line, here[line].index("console"))
    origin = (len(there) - 1, there[-1].index("console"))
    assert (*known, *origin) in decoded(found["mappings"])


@needs_deno
def test_nothing_compiled_names_a_path_of_the_machine(imports: Project) -> None:
    for name, content in outputs(imports, ".js", ".map").items():
        assert str(imports.path).encode() not in content, name
    assert not (imports.path / "deno").exists()


# --- deno: types, batches, processes ------------------------------------------------------------

CHAIN = {
    "shape": "export interface Shape { side: number }\n",
    "square": 'import type { Shape } from "./shape.ts";\n'
    "export const square: Shape = { side: 1 };\n",
    "area": 'import { square } from "./square.ts";\n'
    "export const area: number = square.side ** 2;\n",
    "alone": "export const alone: number = 1;\n",
}


def counted_deno(project: Project, folder: Path) -> tuple[str, Path]:
    """Return a Python beside which a deno lies that notes how it is called, and its notes.

    The folder is a virtual environment that sees what this one sees; deno is looked for
    beside the interpreter first.
    """
    binaries = folder / "bin"
    binaries.mkdir(parents=True)
    base = os.path.realpath(sys.executable)
    (folder / "pyvenv.cfg").write_text(f"home = {os.path.dirname(base)}\n")
    (binaries / "python").symlink_to(base)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in seen]
    (packages / "outer.pth").write_text("".join(lines))
    notes = folder / "notes"
    real = process.find("deno")
    script(binaries / "deno", f'#!/bin/sh\necho "$1" >> "{notes}"\nexec "{real}" "$@"\n')
    return str(binaries / "python"), notes


def script(path: Path, text: str) -> None:
    """Write a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def wrapper(project: Project, name: str, text: str) -> str:
    """Put a program before all others of its name; return the PATH that does it."""
    folder = project.path.parent / "wrappers"
    script(folder / name, text)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def noted(notes: Path) -> list[str]:
    """Return the notes taken, and begin anew."""
    found = notes.read_text().splitlines() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return found


@needs_deno
def test_many_files_are_one_check_and_one_transpile_and_none_when_nothing_changed(
    empty_project: Project, tmp_path: Path
) -> None:
    project = copies(empty_project, ".ts", '"deno"', **CHAIN)
    python, notes = counted_deno(project, tmp_path / "environment")
    result = project.run(python, "-m", "doit")
    assert result.code == 0, result.out + result.err
    cold = noted(notes)
    assert (cold.count("check"), cold.count("transpile")) == (1, 1)
    before = project.stamps()
    assert project.run(python, "-m", "doit", "-n", "2").code == 0
    assert project.stamps() == before
    os.utime(project.path / "generated/shape.ts", (1, 1))
    assert project.run(python, "-m", "doit").code == 0
    assert project.run(python, "-m", "doit", "info").code == 0
    assert noted(notes) == []


@needs_deno
def test_files_are_transpiled_while_they_are_checked(
    empty_project: Project, tmp_path: Path
) -> None:
    project = copies(empty_project, ".ts", '"deno"', **CHAIN)
    python, notes = counted_deno(project, tmp_path / "environment")
    waits = f"""#!/bin/sh
        echo "$1" >> "{notes}"
        tries=0
        while [ "$1" = check ] && ! grep -q transpile "{notes}"; do
            tries=$((tries + 1))
            [ $tries -lt 600 ] || exit 9
            sleep 0.05
        done
        exec "{process.find("deno")}" "$@"
        """
    script(notes.parent / "bin" / "deno", waits)
    result = project.run(python, "-m", "doit")
    assert result.code == 0, result.out + result.err
    assert set(outputs(project, ".js")) == {f"generated/{name}.js" for name in CHAIN}


def test_a_program_that_is_left_before_its_end_is_killed(tmp_path: Path) -> None:
    code = "import os, sys, time; print(os.getpid(), file=open('pid', 'w')); time.sleep(60)"
    pid = tmp_path / "pid"
    with process.started([sys.executable, "-c", code], str(tmp_path)):
        while not (pid.exists() and pid.read_text().endswith("\n")):
            time.sleep(0.01)
    assert not psutil.pid_exists(int(pid.read_text()))


@needs_deno
@pytest.mark.slow
def test_a_changed_type_is_reported_where_it_no_longer_fits(empty_project: Project) -> None:
    project = copies(empty_project, ".ts", '"deno"', **CHAIN)
    succeed(project)
    source(project, "shape", "export interface Shape { side: number; name: string }\n")
    result = project.doit("-c")
    assert result.code == 1
    assert ran(result) == {"shape.js", "square.js", "area.js"}
    error = "failed: compile:square.js\n  generated/square.ts:2: Property 'name' is missing in type"
    assert error in result.out
    message = result.out[result.out.index("failed: compile:square.js") :]
    assert "    2 | export const square: Shape = { side: 1 };" in message
    assert "    made from templates/copy.j2 and patterns/square.json" in message
    assert "failed: compile:area.js\n  generated/area.ts: imports generated/square.ts" in result.out
    source(project, "shape", CHAIN["shape"])
    assert ran(succeed(project)) == {"shape.js", "square.js", "area.js"}
    assert ran(succeed(project)) == set()


@needs_deno
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            'export const bad: number = "text";\n',
            "Type 'string' is not assignable to type 'number'",
        ),
        pytest.param("export const bad = ;\n", "Expression expected", marks=pytest.mark.slow),
        pytest.param('import "./nowhere.ts";\n', "Cannot find module", marks=pytest.mark.slow),
    ],
    ids=["type", "syntax", "import"],
)
def test_one_bad_file_keeps_no_other_from_being_compiled(
    empty_project: Project, bad: str, message: str
) -> None:
    project = copies(empty_project, ".ts", '"deno"', bad=bad, **CHAIN)
    result = project.doit("-c")
    assert result.code == 1
    assert f"failed: compile:bad.js\n  generated/bad.ts:1: {message}" in result.out
    assert set(outputs(project, ".js")) == {f"generated/{name}.js" for name in CHAIN}


@needs_deno
@pytest.mark.slow
def test_one_file_a_process_makes_the_same_bytes_as_a_batch(
    empty_project: Project, tmp_path: Path, state_home: Path
) -> None:
    single = Project(tmp_path / "single", state_home)
    bad = 'export const bad: number = "text";\n'
    for project, batch in ((empty_project, "1"), (single, "0")):
        copies(project, ".ts", '"deno"', bad=bad, **CHAIN)
        assert project.doit("-c", CODEGEN_BATCH=batch).code == 1
    assert outputs(empty_project, ".js", ".map") == outputs(single, ".js", ".map")
    assert len(outputs(single, ".js", ".map")) == 2 * len(CHAIN)


# --- custom toolchains --------------------------------------------------------------------------

# Doubles every line, and notes its arguments.
DOUBLE = """\
import pathlib, sys
with open("notes", "a") as notes:
    print(*sys.argv[1:], file=notes)
if "--version" in sys.argv:
    sys.exit(print(pathlib.Path("VERSION").read_text()))
flags = [word for word in sys.argv[1:] if word.startswith("--")]
read, written = [word for word in sys.argv[1:] if not word.startswith("--")][:2]
text = pathlib.Path(read).read_text()
pathlib.Path(written).write_text("".join(line + line for line in text.splitlines(True)))
"""
DOUBLED = (
    'Toolchain("double", [PYTHON, "tools/double.py", {flags}"{{source}}", "{{target}}"], ".out"'
)


def doubled(project: Project, flags: str = "", more: str = "") -> Project:
    """Declare two files and the toolchain that doubles their lines."""
    compile_ = DOUBLED.format(flags=flags) + more + ")"
    copies(project, ".txt", compile_, a="one\n", b="two\n")
    project.write("tools/double.py", DOUBLE)
    return project


def test_a_custom_toolchain_compiles_each_file(empty_project: Project) -> None:
    project = doubled(empty_project)
    assert ran(succeed(project)) == {"a.out", "b.out"}
    assert project.read("generated/a.out") == "one\none\n"
    assert len(noted(project.path / "notes")) == 2


def test_up_to_date_starts_no_process(empty_project: Project) -> None:
    more = ', version=[PYTHON, "tools/double.py", "--version"]'
    project = doubled(empty_project, more=more)
    project.write("VERSION", "1.0")
    succeed(project)
    assert "--version" in noted(project.path / "notes")
    succeed(project)
    succeed(project, "-n", "2")
    assert project.doit("info").code == 0
    assert noted(project.path / "notes") == []


@pytest.mark.parametrize("version", ["", ', version=[PYTHON, "--version"]'])
def test_editing_a_script_that_the_command_names_recompiles(
    empty_project: Project, version: str
) -> None:
    project = doubled(empty_project, more=version)
    succeed(project)
    project.write("tools/double.py", DOUBLE.replace("line + line", "line * 3"))
    assert "tools/double.py: " in project.doit("info").out
    assert ran(succeed(project)) == {"a.out", "b.out"}
    assert project.read("generated/b.out") == "two\n" * 3
    os.utime(project.path / "tools/double.py", (1, 1))
    assert ran(succeed(project)) == set()


def test_a_file_named_behind_an_option_is_an_input_too(empty_project: Project) -> None:
    project = doubled(empty_project, flags='"--settings=tools/double.ini", ')
    project.write("tools/double.ini", "a = 1\n")
    succeed(project)
    project.write("tools/double.ini", "a = 2\n")
    assert ran(succeed(project)) == {"a.out", "b.out"}


def test_a_program_without_version_counts_by_its_content(empty_project: Project) -> None:
    copies(
        empty_project,
        ".txt",
        'Toolchain("up", ["tools/up", "{source}", "{target}"], ".up")',
        a="x\n",
    )
    up = empty_project.path / "tools/up"
    script(up, '#!/bin/sh\ntr a-z A-Z < "$1" > "$2"\n')
    succeed(empty_project)
    assert empty_project.read("generated/a.up") == "X\n"
    script(up, '#!/bin/sh\ntr a-z 0-9 < "$1" > "$2"\n')
    assert re.search(r"^  up \w{4}… → \w{4}…$", empty_project.doit("info").out, re.MULTILINE)
    assert ran(succeed(empty_project)) == {"a.up"}
    os.utime(up, (1, 1))
    assert ran(succeed(empty_project)) == set()


def test_changed_flags_recompile(empty_project: Project) -> None:
    project = doubled(empty_project)
    succeed(project)
    doubled(project, flags='"--loud", ')
    assert "command double: " in project.doit("info").out
    assert ran(succeed(project)) == {"a.out", "b.out"}
    assert ran(succeed(project)) == set()


def tool(project: Project, name: str, version: str) -> str:
    """Install a program that copies and tells its version, on PATH; return the PATH."""
    text = f'#!/bin/sh\necho "$*" >> notes\n[ "$1" = --version ] && exec echo "{name} {version}"\n'
    return wrapper(project, name, text + 'cp "$1" "$2"\n')


@pytest.fixture
def versioned(empty_project: Project) -> Project:
    """One file, compiled by a program on PATH that tells its version."""
    return copies(
        empty_project,
        ".txt",
        'Toolchain("tool", ["tool", "{source}", "{target}"], ".out",'
        ' version=["tool", "--version"])',
        a="x\n",
    )


def test_a_changed_version_recompiles(versioned: Project) -> None:
    path = tool(versioned, "tool", "1.0")
    succeed(versioned, PATH=path)
    tool(versioned, "tool", "2.0")
    assert "tool 1.0 → 2.0" in versioned.doit("info", PATH=path).out
    assert ran(succeed(versioned, PATH=path)) == {"a.out"}
    assert ran(succeed(versioned, PATH=path)) == set()


def test_a_program_installed_anew_is_asked_for_its_version_once(versioned: Project) -> None:
    notes = versioned.path / "notes"
    path = tool(versioned, "tool", "1.0")
    succeed(versioned, PATH=path)
    noted(notes)
    tool(versioned, "tool", "1.0")
    assert ran(succeed(versioned, PATH=path)) == set()
    assert noted(notes) == ["--version"]
    assert ran(succeed(versioned, PATH=path)) == set()
    assert noted(notes) == []


def test_a_file_that_the_version_command_reads_is_an_input(empty_project: Project) -> None:
    project = doubled(empty_project, more=', version=["cat", "VERSION"]')
    project.write("VERSION", "1.0\n")
    succeed(project)
    project.write("VERSION", "2.0\n")
    assert ran(succeed(project)) == {"a.out", "b.out"}
    assert "  compiler      double: 2.0\n" in project.doit("info", "compile:a.out").out


def test_two_toolchains_of_one_program_have_each_their_version(empty_project: Project) -> None:
    other = 'Toolchain("cat", ["cp", "{source}", "{target}"], ".cat", version=["echo", "second"])'
    first = 'Toolchain("cp", ["cp", "{source}", "{target}"], ".cp", version=["echo", "first"])'
    project = copies(empty_project, ".txt", f"[{first}, {other}]", a="x\n")
    succeed(project)
    assert "  compiler      cp: first\n" in project.doit("info", "compile:a.cp").out
    assert "  compiler      cat: second\n" in project.doit("info", "compile:a.cat").out


INCLUDER = """\
import pathlib, sys
source, target, depfile = map(pathlib.Path, sys.argv[1:])
text, read = source.read_text(), [source]
for name in text.split():
    if name.startswith("@"):
        read.append(pathlib.Path(name[1:].replace("~", " ")))
        text = text.replace(name, read[-1].read_text())
target.write_text(text)
names = " ".join(str(path).replace(" ", "\\\\ ").replace("$", "$$") for path in read)
depfile.write_text(f"{target}: \\\\\\n  {names}\\n")
"""


def test_what_a_depfile_names_is_an_input(empty_project: Project) -> None:
    project = copies(
        empty_project,
        ".txt",
        'Toolchain("include", [PYTHON, "tools/include.py", "{source}", "{target}", "{depfile}"],'
        ' ".out", depfile="{target}.d")',
        a="@parts/one~$1.txt ",
        b="@parts/two.txt ",
    )
    project.write("tools/include.py", INCLUDER)
    project.write("parts/one $1.txt", "first")
    project.write("parts/two.txt", "second")
    succeed(project)
    assert project.read("generated/a.out") == "first "
    project.write("parts/one $1.txt", "changed")
    assert ran(succeed(project)) == {"a.out"}
    assert project.read("generated/a.out") == "changed "
    assert ran(succeed(project)) == set()


BATCH = """\
import pathlib, sys
folder, *sources = map(pathlib.Path, sys.argv[1:])
with open("notes", "a") as notes:
    print(len(sources), file=notes)
for source in sources:
    text = source.read_text()
    if "bad" in text:
        sys.exit(f"{source}:1: error: bad text")
    if "odd" in text:
        print(f"{source}: is odd\\n  a line more")
    if "none" not in text:
        (folder / source.with_suffix(".out").name).write_text(text.upper())
"""
BATCHED = (
    'Toolchain("batch", [PYTHON, "tools/batch.py", "{folder}", "{sources}"], ".out", batch=True)'
)


def batched(project: Project, **sources: str) -> Project:
    """Declare files and a toolchain that compiles many at a time."""
    copies(project, ".txt", BATCHED, **sources)
    project.write("tools/batch.py", BATCH)
    return project


def test_a_batch_is_one_process_for_many_files(empty_project: Project) -> None:
    project = batched(empty_project, a="one\n", b="two\n", c="three\n")
    succeed(project)
    assert noted(project.path / "notes") == ["3"]
    assert project.read("generated/b.out") == "TWO\n"
    source(project, "b", "four\n")
    assert ran(succeed(project)) == {"b.out"}
    assert noted(project.path / "notes") == ["1"]
    batched(project, a="5\n", b="6\n", c="7\n")
    succeed(project, CODEGEN_BATCH="0")
    assert noted(project.path / "notes") == ["1", "1", "1"]


def test_files_of_one_name_in_two_folders_do_not_meet_in_a_batch(empty_project: Project) -> None:
    project = batched(empty_project, **{"x/a": "in x\n", "y/a": "in y\n", "y/b": "none\n"})
    result = project.doit("-c")
    assert result.code == 1
    assert "failed: compile:y/b.out\n  generated/y/b.txt: batch made no .out file" in result.out
    assert project.read("generated/x/a.out") == "IN X\n"
    assert project.read("generated/y/a.out") == "IN Y\n"


def test_a_bad_file_in_a_batch_spoils_no_other(empty_project: Project) -> None:
    project = batched(empty_project, a="one\n", b="bad\n", c="three\n")
    result = project.doit("-c")
    assert result.code == 1
    assert "failed: compile:b.out\n  generated/b.txt:1: bad text\n    1 | bad\n" in result.out
    assert set(outputs(project, ".out")) == {"generated/a.out", "generated/c.out"}
    assert ran(project.doit("-c")) == {"b.out"}


def test_what_a_batch_prints_is_shown_once_and_logged_with_its_file(empty_project: Project) -> None:
    project = batched(empty_project, a="one\n", b="odd\n", c="odd\n")
    result = succeed(project)
    assert result.out.count("is odd") == 2
    log = ".codegen/logs/compile"
    assert not project.exists(f"{log}/a.out.log")
    assert project.read(f"{log}/b.out.log") == "generated/b.txt: is odd\n  a line more\n"
    assert project.read(f"{log}/c.out.log") == "generated/c.txt: is odd\n  a line more\n"


# --- pipelines ----------------------------------------------------------------------------------

MINIFY = """\
import pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
lines = [line for line in source.read_text().splitlines() if not line.startswith("//")]
target.write_text("".join(lines) + "\\n")
"""


@needs_deno
@pytest.mark.slow
def test_each_link_of_a_pipeline_compiles_what_the_one_before_made(
    empty_project: Project,
) -> None:
    minify = 'Toolchain("minify", [PYTHON, "tools/minify.py", "{source}", "{target}"], ".min.js")'
    project = copies(empty_project, ".ts", f'["deno", {minify}]', a="export const a: number = 1;\n")
    project.write("tools/minify.py", MINIFY)
    assert ran(succeed(project, "compile:a.min.js")) == {"a.js", "a.min.js"}
    assert project.read("generated/a.min.js") == "export const a = 1;\n"
    project.write("tools/minify.py", MINIFY.replace(' + "\\n"', ""))
    assert ran(succeed(project)) == {"a.min.js"}
    assert project.read("generated/a.min.js") == "export const a = 1;"
    # Types leave no trace in the code, so the next link has nothing to do.
    source(project, "a", "type Erased = string;\nexport const a: number = 1;\n")
    assert ran(succeed(project)) == {"a.js"}
    source(project, "a", "export const a: number = 2;\n")
    assert ran(succeed(project, "-n", "2")) == {"a.js", "a.min.js"}
    assert project.read("generated/a.min.js") == "export const a = 2;"


# --- failures -----------------------------------------------------------------------------------


def failing(project: Project, script: str, **more: str) -> Result:
    """Compile one file with a Python script as the compiler; return what doit said."""
    extra = "".join(f", {key}={value}" for key, value in more.items())
    compile_ = f'Toolchain("tool", [PYTHON, "tool.py", "{{source}}", "{{target}}"], ".out"{extra})'
    copies(project, ".txt", compile_, a="one\n")
    project.write("tool.py", script)
    result = project.doit()
    assert "Traceback" not in result.err
    assert not project.exists("generated/a.out")
    return result


def test_a_compiler_that_fails_is_quoted(empty_project: Project) -> None:
    result = failing(empty_project, 'import sys\nprint("no idea")\nsys.exit(3)\n')
    assert result.code == 1
    message = """
failed: compile:a.out
  generated/a.txt: tool exited with 3
    no idea
    made from templates/copy.j2 and patterns/a.json
"""
    assert message in result.out
    assert empty_project.read(".codegen/logs/compile/a.out.log").startswith("no idea\n")


def test_a_compiler_that_makes_nothing_is_an_error(empty_project: Project) -> None:
    result = failing(empty_project, "pass\n")
    assert result.code == 1
    assert "failed: compile:a.out\n  generated/a.txt: tool made no .out file\n" in result.out


def test_a_program_that_is_not_installed_is_named_with_what_to_install(
    empty_project: Project,
) -> None:
    compile_ = 'Toolchain("tool", ["no-such-tool", "{source}", "{target}"], ".out"%s)'
    copies(empty_project, ".txt", compile_ % "", a="one\n")
    result = empty_project.doit()
    assert result.code == 1
    assert "toolchain tool: 'no-such-tool' is not installed\n" in result.out
    assert "hint: install no-such-tool, or put it on PATH\n" in result.out
    copies(empty_project, ".txt", compile_ % ', install="brew install tool"', a="one\n")
    assert "hint: brew install tool\n" in empty_project.doit().out


#: A shell, which has all that begun long before its time is over.
SLEEPER = """\
#!/bin/sh
sleep 60 &
one=$!
setsid sleep 60 &
echo $$ $one $! >pids
echo working
sleep 60
"""


@pytest.mark.parametrize("where", ["toolchain", "rule"])
def test_a_compiler_that_takes_too_long_is_killed_with_all_it_started(
    empty_project: Project, where: str
) -> None:
    project = empty_project
    compile_ = 'Toolchain("tool", ["./tool", "{source}", "{target}"], ".out"'
    limit = ", timeout=1.5"
    compile_ += limit + ")" if where == "toolchain" else ")" + limit
    copies(project, ".txt", compile_, a="one\n")
    project.write("tool", SLEEPER).chmod(0o755)
    start = time.monotonic()
    result = project.doit()
    assert time.monotonic() - start < 50
    assert result.code == 1
    text = "failed: compile:a.out\n  generated/a.txt: tool took longer than 1.5 s\n    working\n"
    assert text in result.out
    assert [pid for pid in map(int, project.read("pids").split()) if alive(pid)] == []


def alive(pid: int) -> bool:
    """Tell whether a process still runs; one that only waits to be buried does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            '["x", "{sauce}", "{source}", "{target}"], ".out"',
            "toolchain t: unknown placeholder 'sauce'\n  hint: did you mean 'source'?",
        ),
        (
            '"x {source} {target}", ".out"',
            "toolchain t: command must be a list of words\n"
            '  hint: command=["x", ...]: no shell splits it',
        ),
        (
            '["x", "{source}", "{target}"], ".out", version="x --version"',
            "toolchain t: version must be a list of words\n"
            '  hint: version=["x", ...]: no shell splits it',
        ),
        ('["x", "{source}"], ".out"', "toolchain t: command lacks {target}"),
        ('[], ".out"', "toolchain t: command is empty"),
        (
            '["x", "{source}", "{target}"], "out"',
            "toolchain t: suffix must be like '.css', not 'out'",
        ),
        (
            '["x", "{source}", "{target}"], "./../../evil"',
            "toolchain t: suffix must be like '.css', not './../../evil'",
        ),
        (
            '["x", "{source}", "{target}"], None',
            "toolchain t: suffix must be like '.css', not None",
        ),
        ('5, ".out"', "toolchain t: command must be a list of words, not 5"),
        ('["x", 5], ".out"', "toolchain t: command must be a list of words, not ['x', 5]"),
        (
            '["x", "{source}", "{target}"], ".out", version=5',
            "toolchain t: version must be a list of words, not 5",
        ),
        (
            '["x", "{source}", "{target}"], ".out", version=[]',
            "toolchain t: version is empty",
        ),
        (
            '["x", "{source}", "{target}"], ".out", timeout="3"',
            "toolchain t: timeout must be seconds above 0, not '3'",
        ),
        (
            '["x", "{source}", "{target}"], ".out", timeout=-1',
            "toolchain t: timeout must be seconds above 0, not -1",
        ),
        (
            '["x", "{source}", "{target}"], ".out", install=3',
            "toolchain t: install must be a string, not 3",
        ),
        (
            'comand=["x", "{source}", "{target}"], suffix=".out"',
            "toolchain t: unknown argument 'comand'\n  hint: did you mean 'command'?",
        ),
        (
            '["x"], ".out", None, None, False, None, "", 9',
            "toolchain t: takes 8 arguments at most, not 9\n"
            "  hint: by name: name=, command=, suffix=, version=, depfile=, batch=, timeout=,"
            " install=",
        ),
        ('["x", "{sources}"], ".out", batch=True', "toolchain t: command lacks {folder}"),
        (
            '["x", "--in={sources}", "{folder}"], ".out", batch=True',
            "toolchain t: {sources} must be a word of its own",
        ),
        (
            '["x", "{sources}", "{folder}", "{target}"], ".out", batch=True',
            "toolchain t: unknown placeholder 'target'\n  hint: known: folder, sources",
        ),
        (
            '["x", "{source}", "{target}"], ".out", depfile="{target}.d"',
            "toolchain t: depfile is set, but command lacks {depfile}",
        ),
        (
            '["x", "{source}", "{target}", "{depfile}"], ".out"',
            "toolchain t: command has {depfile}, but depfile is not set\n"
            '  hint: depfile="{target}.d"',
        ),
        (
            '["x", "{source}", "{target}", "{depfile}"], ".out", depfile="../{target}.d"',
            "toolchain t: the depfile '../{target}.d' lies outside of the scratch folder",
        ),
        (
            '["x", "{source}", "{target}", "{depfile}"], ".out", depfile="/tmp/d"',
            "toolchain t: the depfile '/tmp/d' lies outside of the scratch folder",
        ),
        (
            '["x", "{source}", "{target}", "{depfile}"], ".out", depfile="./{target}"',
            "toolchain t: the depfile cannot be './{target}'",
        ),
        (
            '["x", "{source}", "{target}", "{depfile}"], ".out", depfile="{source}.d"',
            "toolchain t: unknown placeholder 'source'\n  hint: known: target",
        ),
        (
            '["x", "{source}", "{target}", "{depfile}"], ".out", depfile=3',
            "toolchain t: depfile must be a path, not 3",
        ),
        (
            '["x", "{sources}", "{folder}"], ".out", batch=True, depfile="d"',
            "toolchain t: batch=True cannot have a depfile",
        ),
    ],
)
def test_a_toolchain_that_cannot_work_is_refused_before_any_step(
    empty_project: Project, arguments: str, message: str
) -> None:
    copies(empty_project, ".txt", f'Toolchain("t", {arguments})', a="one\n")
    result = empty_project.doit()
    assert result.code == 3
    assert result.err == f"ERROR: {message}\n"
    assert not empty_project.exists("generated")


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_toolchain_needs_a_name(name: object) -> None:
    with pytest.raises(DeclarationError) as caught:
        Toolchain(name, ["x", "{source}", "{target}"], ".out")  # type: ignore[arg-type]
    assert str(caught.value) == f"toolchain: name must be a string, not {name!r}"


def test_a_toolchain_is_a_plain_value() -> None:
    """It crosses to workers, and equal declarations are one."""
    chosen = Toolchain("t", command=["x", "{source}", "{target}"], suffix=".min.css", timeout=2)
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert hash(pickle.loads(pickle.dumps(chosen))) == hash(chosen)
    assert replace(chosen, suffix=".css").outputs("a/b.scss") == ("a/b.css",)


def test_braces_that_are_the_programs_own_are_left_to_it(empty_project: Project) -> None:
    words = '["sh", "-c", "awk \'{print $1}\' \\"$0\\" > \\"$1\\"", "{source}", "{target}"]'
    copies(empty_project, ".txt", f'Toolchain("first", {words}, ".out")', a="one two\n")
    succeed(empty_project)
    assert empty_project.read("generated/a.out") == "one\n"


DEPENDS = """
import os, sys
source, target, depfile = sys.argv[1:]
with open(target, "w") as out:
    out.write(open(source).read() + open("extra.txt").read())
assert not os.path.exists(depfile), depfile
with open(depfile, "w") as out:
    out.write(f"{target}: {source} extra.txt\\n")
print(os.path.basename(os.path.dirname(depfile)), os.path.basename(depfile))
"""


def test_the_depfile_lies_where_it_was_declared(empty_project: Project) -> None:
    words = '[PYTHON, "tool.py", "{source}", "{target}", "{depfile}"]'
    compile_ = f'Toolchain("tool", {words}, ".out", depfile="deps/{{target}}.dep")'
    project = copies(empty_project, ".txt", compile_, a="a ", b="b ")
    project.write("tool.py", DEPENDS)
    project.write("extra.txt", "one")
    assert ran(succeed(project)) == {"a.out", "b.out"}
    assert project.read(".codegen/logs/compile/a.out.log") == "deps a.out.dep\n"
    assert project.read("generated/b.out") == "b one"
    project.write("extra.txt", "two")
    assert ran(succeed(project)) == {"a.out", "b.out"}
    assert project.read("generated/b.out") == "b two"


# --- single functions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x.o: a.c b.h\n", ("a.c", "b.h")),
        ("x.o: a.c \\\n b.h \\\n  c.h\n", ("a.c", "b.h", "c.h")),
        ("x.o: a.c \\\r\n b.h\r\n", ("a.c", "b.h")),
        ("x.o: with\\ space.h cost$$.h ha\\#sh.h\n", ("with space.h", "cost$.h", "ha#sh.h")),
        ("x.o: a.c b.h a.c\n\nb.h:\n", ("a.c", "b.h")),
        ("", ()),
    ],
)
def test_a_depfile_names_what_was_read(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    path = tmp_path / "x.d"
    path.write_bytes(text.encode())
    assert base.parse_depfile(str(path)) == names
    assert base.parse_depfile(str(tmp_path / "none.d")) == ()


@pytest.mark.parametrize("path", ["C:\\project\\a b.ts", "D:\\ünï\\x.ts", "\\\\host\\share\\x.ts"])
def test_a_file_url_of_windows_is_the_path_it_was_made_from(path: str) -> None:
    assert deno._local(PureWindowsPath(path).as_uri(), windows=True) == path


def test_a_file_url_is_the_path_it_was_made_from() -> None:
    path = "/project/a b#c%20.ts"
    assert deno._local(PurePosixPath(path).as_uri(), windows=False) == path
    assert deno._local("https://jsr.io/x.ts") is None


def test_results_come_in_the_order_of_the_units(tmp_path: Path) -> None:
    (tmp_path / "batch.py").write_text(BATCH)
    command = [sys.executable, str(tmp_path / "batch.py"), "{folder}", "{sources}"]
    chosen = Toolchain("batch", command, ".out", batch=True)
    units = []
    for name in ("x/b", "y/b", "x/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_text(name)
        units.append(Unit(f"{name}.txt", (f"{name}.out",)))
    site = Site(str(tmp_path), str(tmp_path / "scratch"), str(tmp_path / "cache"))
    found = chosen.compile(units, site, None)
    assert [dict(result.outputs) for result in found] == [
        {"x/b.out": b"X/B"},
        {"y/b.out": b"Y/B"},
        {"x/a.out": b"X/A"},
    ]
