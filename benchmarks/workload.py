"""What compare.py has every tool do: a generated pattern library, and each tool's project file.

The same work everywhere: parse a pattern of 41 lines of TOML, render it with a template that
has a base and a macro file, write the target in one step.  All but ours call the same function
for it, `render.py` in their project, so that what differs is the tool.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The library, in every project.
TEMPLATES = "templates"
PATTERNS = "templates/patterns"
OUTPUT = "generated"

#: What is measured; the tools' commands are by these names.
COLD, COLD_2, NOTHING, PATTERN, MACRO, MACRO_2, SELECTED, SELECTED_EDITED, INFO, LIST = CASES = (
    "cold",
    "cold-2",
    "nothing",
    "pattern",
    "macro",
    "macro-2",
    "selected",
    "selected-edited",
    "info",
    "list",
)
TITLES = {
    COLD: "cold, serial",
    COLD_2: "cold, two at a time",
    NOTHING: "nothing to do",
    PATTERN: "one pattern edited",
    MACRO: "a macro edited that all use, serial",
    MACRO_2: "a macro edited that all use, two at a time",
    SELECTED: "one target selected, nothing to do",
    SELECTED_EDITED: "one target selected, its pattern and another edited",
    INFO: "asking what is stale, nothing is",
    LIST: "listing the tasks",
}

_LIBRARY = {
    "base.ts.j2": """\
// Generated from {{ pattern.path }}.
{% block head %}{% endblock %}
export class {{ name }} {
{% block body %}{% endblock %}
}
""",
    "macros.j2": """\
{% macro field(name, value) %}  {{ name }} = {{ value }};
{% endmacro %}
{% macro node(item) %}  // {{ item.kind }}: {{ item.label }}
  {{ item.id }} = { gain: {{ item.gain }}, decay: {{ item.decay }}, on: {{ item.on | lower }} };
{% endmacro %}
""",
    "pattern.ts.j2": """\
{% extends "base.ts.j2" %}
{% from "macros.j2" import field, node %}
{% block head %}// {{ title }}: {{ description }}
{% endblock %}
{% block body %}
{{ field("speed", speed) }}{{ field("brightness", brightness) }}{{ field("length", length) }}
{% for item in nodes %}{{ node(item) }}{% endfor %}
{% for color in colors %}  color{{ loop.index }} = "{{ color }}";
{% endfor %}
{% endblock %}
""",
}
_NODES = 4


def stem(number: int) -> str:
    """Return the name of a pattern, and so of its target."""
    return f"p{number:06}"


def pattern_text(number: int, turn: int = 0) -> str:
    """Return a pattern; another `turn` is what an edit makes of it."""
    nodes = "".join(_node_text(number, index) for index in range(_NODES))
    title = f"Pattern number {number}" + f", edited {turn} times" * bool(turn)
    return f"""\
# pattern {number}

name = "Pattern{number:06}"
title = "{title}"
description = "The {number}th of many"
speed = {number % 10 + 1}
brightness = 0.{number % 9 + 1}
length = {60 + number % 100}
colors = ["#ff0000", "#00ff00", "#0000ff"]
{nodes}"""


def _node_text(number: int, index: int) -> str:
    return f"""
[[nodes]]
id = "node{index}"
kind = "wave"
label = "node {index} of {number}"
gain = {0.5 + index + number % 7}
decay = 0.{number % 9 + 1}
on = {"true" if (number + index) % 2 else "false"}
"""


def write_library(folder: Path, count: int) -> None:
    """Write the templates and `count` patterns."""
    (folder / PATTERNS).mkdir(parents=True)
    for name, text in _LIBRARY.items():
        (folder / TEMPLATES / name).write_text(text, encoding="utf-8")
    for number in range(count):
        (folder / PATTERNS / f"{stem(number)}.toml").write_text(pattern_text(number))


def edit_pattern(folder: Path, number: int, turn: int) -> None:
    """Change a pattern so that its target changes; `turn` is another one every time, from 1."""
    (folder / PATTERNS / f"{stem(number)}.toml").write_text(pattern_text(number, turn))


def edit_macro(folder: Path, turn: int) -> None:
    """Change the macro that every target has in it; `turn` as in `edit_pattern`."""
    text = _LIBRARY["macros.j2"].replace("// {{ item.kind }}", f"// {turn}: {{{{ item.kind }}}}")
    (folder / TEMPLATES / "macros.j2").write_text(text, encoding="utf-8")


# Projects -------------------------------------------------------------------------------

_RENDER = '''\
"""Render one pattern: what every project but ours calls for it."""

import functools
import os
import sys
import tomllib

import jinja2


@functools.cache
def template():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader("templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("pattern.ts.j2")


def render(path, target):
    with open(path, "rb") as file:
        data = tomllib.load(file)
    stem = os.path.basename(path)[:-5]
    text = template().render(**data, pattern={"stem": stem, "path": path})
    folder, name = os.path.split(target)
    temporary = f"{folder}/.{name}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, target)


if __name__ == "__main__":
    render(sys.argv[1], sys.argv[2])
'''

_LOOP = '''\
"""Render every pattern, whatever is there already."""

import glob
import os

from render import render

os.makedirs("generated", exist_ok=True)
for path in sorted(glob.glob("templates/patterns/*.toml")):
    render(path, f"generated/{os.path.basename(path)[:-5]}.ts")
'''

_OURS = """\
from codegen_tasks import Codegen

codegen = Codegen(templates="templates", output="generated")
codegen.rule(
    "pattern",
    template="pattern.ts.j2",
    patterns="templates/patterns/*.toml",
    target="{stem}.ts",
)
DOIT_CONFIG = codegen.doit_config
"""

_DOIT = """\
import glob
import os

from render import render

TEMPLATES = sorted(glob.glob("templates/*.j2"))


def task_generate():
    os.makedirs("generated", exist_ok=True)
    for path in sorted(glob.glob("templates/patterns/*.toml")):
        name = os.path.basename(path)[:-5] + ".ts"
        yield {
            "name": name,
            "file_dep": [path, *TEMPLATES],
            "targets": [f"generated/{name}"],
            "actions": [(render, [path, f"generated/{name}"])],
        }
"""

_EMPTY = """\
def task_nothing():
    return {"actions": []}
"""

_MAKE = """\
TEMPLATES := $(wildcard templates/*.j2)
PATTERNS := $(wildcard templates/patterns/*.toml)

all: $(PATTERNS:templates/patterns/%.toml=generated/%.ts)

generated/%.ts: templates/patterns/%.toml $(TEMPLATES) | generated
\t@$(PYTHON) render.py $< $@

generated:
\t@mkdir $@
"""

_SCONS = """\
import glob
import os

from render import render


def build(target, source, env):
    render(str(source[0]), str(target[0]))


environment = Environment()
environment.Append(BUILDERS={"Render": Builder(action=Action(build, "render $TARGET"))})
templates = sorted(glob.glob("templates/*.j2"))
for path in sorted(glob.glob("templates/patterns/*.toml")):
    target = environment.Render(f"generated/{os.path.basename(path)[:-5]}.ts", path)
    environment.Depends(target, templates)
"""

_PYTASK = """\
import os
import sys
from pathlib import Path
from typing import Annotated

from pytask import Product, task

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from render import render

TEMPLATES = sorted(ROOT.glob("templates/*.j2"))

for path in sorted(ROOT.glob("templates/patterns/*.toml")):

    @task(id=path.stem)
    def task_generate(
        path: Path = path,
        templates: list[Path] = TEMPLATES,
        target: Annotated[Path, Product] = ROOT / "generated" / f"{path.stem}.ts",
    ) -> None:
        render(os.path.relpath(path), os.path.relpath(target))
"""


def ninja_file(count: int) -> str:
    """Return a build file in which every target is made by a process of its own.

    What makes it stands in `step`, for ninja takes a target for stale whose command was
    another one: `step` is empty while ninja is made to believe that it has built them all.
    """
    shared = " ".join(f"{TEMPLATES}/{name}" for name in sorted(_LIBRARY))
    rule = "rule render\n  command = in=$in out=$out . ./step\n  description = $out\n"
    builds = (
        f"build {OUTPUT}/{stem(n)}.ts: render {PATTERNS}/{stem(n)}.toml | {shared}\n"
        for n in range(count)
    )
    return f"{rule}\n{''.join(builds)}"


STEP = '{python} render.py "$in" "$out"\n'


# Tools ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool, its project file, and how it is asked for each case.

    Args:
        key: what the command line and the results call it.
        label: what people read.
        commands: case -> command; `{python}`, `{peers}` (a folder of programs), `{selected}`
            (a target's path), `{task}` (its name) stand for what they say.
        files: file name -> text; `{python}` is replaced in none but `step`.
        made: files that depend on how many patterns there are, made with that number.
        state: what it remembers, as globs; gone when it is cold.
        limits: case -> the most patterns it is measured with, and why not with more; "" is
            for all other cases.
        quick: case -> the most patterns it is measured with in a quick run, as `limits`.
        cannot: case -> why it has none such, where it is not plain.
        processes: one process a target, so its outputs are made by the loop where there are
            many, and it is made to believe that it made them.
        makes: it makes targets at all.
    """

    key: str
    label: str
    commands: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, Callable[[int], str]] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    limits: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    quick: Mapping[str, int] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    processes: bool = False
    makes: bool = True

    def reason_against(self, case: str, count: int, quick: bool = False) -> str:
        """Return why a case is not measured with so many patterns; "" if it is."""
        if case not in self.commands:
            return self.cannot.get(case, self.cannot.get("", "it has no such command"))
        if quick and count > self.quick.get(case, self.quick.get("", count)):
            return "left out of a quick run"
        most, why = self.limits.get(case, self.limits.get("", (count, "")))
        return f"more than {most:,} patterns: {why}" if count > most else ""


def _doit_commands(python: str, info: str) -> dict[str, str]:
    doit = f"{python} -m doit"
    return {
        COLD: doit,
        COLD_2: f"{doit} -n 2",
        NOTHING: doit,
        PATTERN: doit,
        MACRO: doit,
        MACRO_2: f"{doit} -n 2",
        SELECTED: f"{doit} {{selected}}",
        SELECTED_EDITED: f"{doit} {{selected}}",
        INFO: f"{doit} {info}",
        LIST: f"{doit} list",
    }


def _commands(
    command: str, parallel: str, select: str, dry: str, cannot: Container[str] = ()
) -> dict[str, str]:
    """Return the commands of a tool that has a serial run, options for two, and a dry run."""
    found = {
        COLD: command,
        COLD_2: f"{command} {parallel}",
        NOTHING: command,
        PATTERN: command,
        MACRO: command,
        MACRO_2: f"{command} {parallel}",
        SELECTED: f"{command} {select}",
        SELECTED_EDITED: f"{command} {select}",
        INFO: f"{command} {dry}",
    }
    return {case: words for case, words in found.items() if case not in cannot}


_OWN_PROCESS = "it starts a process a target"
_MANY = (1_000, f"{_OWN_PROCESS}, 10,000 take a quarter of an hour")
_FEW = (100, f"{_OWN_PROCESS}, 1,000 take minutes, as the cold run two at a time shows")
_ONE_BY_ONE = {COLD: _FEW, COLD_2: _MANY, MACRO_2: _FEW}
_AS_COLD = {MACRO: "it takes as long as cold"}
_SLOW = "it takes long even when there is nothing to do, which is shown"
_NOT_QUICK = dict.fromkeys(_ONE_BY_ONE, 0)
_PLUGIN = {COLD_2: "it needs a plugin", MACRO_2: "it needs a plugin"}
_STATELESS = {"": "it remembers nothing: always as long as cold"}

OURS, LOOP, DOIT, NINJA, MAKE, SCONS, PYTASK, FLOOR = (
    "us",
    "loop",
    "doit",
    "ninja",
    "make",
    "scons",
    "pytask",
    "floor",
)

TOOLS = (
    Tool(
        OURS,
        "codegen-tasks",
        _doit_commands("{ours}", "info"),
        {"dodo.py": _OURS},
        state=(".codegen",),
        limits={MACRO: (10_000, "it is measured two at a time")},
    ),
    Tool(LOOP, "bare loop", {COLD: "{python} loop.py"}, cannot=_STATELESS),
    Tool(
        DOIT,
        "plain doit",
        _doit_commands("{python}", "list --all --status"),
        {"dodo.py": _DOIT},
        state=(".doit.db*",),
        limits={
            COLD_2: (10_000, "it takes longer than serial already"),
            MACRO: (10_000, "it takes as long as cold"),
            MACRO_2: (10_000, "it takes longer than serial already"),
            SELECTED_EDITED: (10_000, _SLOW),
            INFO: (10_000, _SLOW),
        },
    ),
    Tool(
        NINJA,
        "ninja",
        _commands("{peers}/ninja --quiet -j1", "-j2", "{selected}", "-n", _AS_COLD),
        made={"build.ninja": ninja_file},
        state=(".ninja_log", ".ninja_deps"),
        limits=_ONE_BY_ONE,
        quick=_NOT_QUICK,
        cannot=_AS_COLD,
        processes=True,
    ),
    Tool(
        MAKE,
        "make",
        _commands("make -s PYTHON={python}", "-j2", "{selected}", "-n", _AS_COLD),
        {"Makefile": _MAKE},
        limits={
            **_ONE_BY_ONE,
            COLD_2: _FEW,
            NOTHING: (100_000, "it was not tried"),
            "": (10_000, _SLOW),
        },
        quick=_NOT_QUICK,
        cannot=_AS_COLD,
        processes=True,
    ),
    Tool(
        SCONS,
        "SCons",
        _commands("{peers}/scons -Q -s", "-j2", "{selected}", "-n"),
        {"SConstruct": _SCONS},
        state=(".sconsign*",),
        limits={
            **dict.fromkeys((COLD, NOTHING, PATTERN), (10_000, "it takes minutes")),
            "": (1_000, _SLOW),
        },
    ),
    Tool(
        PYTASK,
        "pytask",
        _commands("{peers}/pytask build --verbose 0", "", "-k {task}", "--dry-run", _PLUGIN),
        {"task_generate.py": _PYTASK},
        state=(".pytask", "pytask.lock"),
        limits={
            **dict.fromkeys((COLD, NOTHING, PATTERN), (1_000, "it takes minutes")),
            "": (100, _SLOW),
        },
        quick={"": 0},
        cannot=_PLUGIN,
    ),
    Tool(
        FLOOR,
        "doit, empty dodo.py",
        {NOTHING: "{python} -m doit"},
        {"dodo.py": _EMPTY},
        cannot={"": "it is the host's own floor, for nothing to do"},
        makes=False,
    ),
)


def make_project(folder: Path, tool: Tool, count: int, python: str) -> None:
    """Make a tool's project: the library, its project file, and what all projects share.

    Args:
        folder: is made.
        tool: whose project it is.
        count: of patterns.
        python: the interpreter of targets that are made in a process each.
    """
    folder.mkdir(parents=True)
    write_library(folder, count)
    made = {name: make(count) for name, make in tool.made.items()}
    shared = {"render.py": _RENDER, "loop.py": _LOOP, "step": STEP.format(python=python)}
    for name, text in {**shared, **tool.files, **made}.items():
        (folder / name).write_text(text, encoding="utf-8")


def make_cold(folder: Path, tool: Tool) -> None:
    """Remove outputs, and all that a tool remembers; Python's bytecode stays."""
    shutil.rmtree(folder / OUTPUT, ignore_errors=True)
    for pattern in tool.state:
        for path in list(folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
