"""The structure: lower modules import no higher ones, and importing the package is cheap."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import codegen_tasks

PACKAGE = Path(codegen_tasks.__file__).parent
#: From the bottom up; a module imports only what stands in an earlier line, or left of it.
LAYERS = [
    [
        "errors",
        "digest",
        "keeper",
        "ours",
        "garbage",
        "ready",
        "columns",
        "young",
        "traffic",
        "forks",
    ],
    ["address"],
    ["code_digest", "keys"],
    ["modules"],
    ["model"],
    ["yamls"],
    ["disk", "process", "texts"],
    ["actions"],
    ["store"],
    ["bundle"],
    ["remote"],
    ["lock", "folders", "rows", "blame", "runs", "maps", "places"],
    ["whereabouts"],
    ["journal", "sqlite"],
    [
        "settings",
        "functions",
        "patterns",
        "bytecode",
        "staleness",
        "toolchains",
        "state",
        "sandbox",
        "snapshot",
    ],
    ["formats", "items", "record"],
    ["engines"],
    ["explain", "project", "checks", "scaffold", "marks", "moved", "schemas"],
    ["templates"],
    ["tracing"],
    ["world", "plan"],
    ["glance", "watch"],
    ["views", "publish"],
    ["origins", "looks"],
    ["bundles", "readsets"],
    ["outputs", "complaints"],
    ["compiling"],
    ["steps"],
    ["manifest", "savings", "misses"],
    ["build"],
    ["orphans", "preview", "lint"],
    ["tasks", "survey"],
    ["causes", "kin", "ahead"],
    ["jobs", "chains"],
    ["stage"],
    ["workers", "ending"],
    ["screen", "progress", "failures", "dressed"],
    ["table"],
    ["codegen", "reporter"],
    ["runner", "report", "distributed"],
    ["commands"],
    ["__init__", "__main__"],
]
#: Imported where it is used, or for its type only.
LATE = {
    ("chains", "codegen"),
    ("codegen", "ahead"),
    ("codegen", "build"),
    ("codegen", "tasks"),
    ("commands", "__main__"),
    ("explain", "templates"),
    ("glance", "build"),
    ("progress", "table"),
    ("origins", "steps"),
}


def imports(path: Path) -> set[str]:
    """Return the package's modules that a module imports, first part of the name only."""
    found = set()
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            parts = [*base, *(node.module or "").split(".")]
            parts = [part for part in parts if part]
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            found |= set(names)
    return found


@pytest.mark.one_python
def test_lower_modules_import_no_higher_ones() -> None:
    level = {name: index for index, names in enumerate(LAYERS) for name in names}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE).with_suffix("")
        name = relative.parts[0]
        assert name in level, f"{name} has no layer"
        for used in imports(path):
            same = name == used and (PACKAGE / name).is_dir()
            if not same and (name, used) not in LATE and level[used] >= level[name]:
                wrong.append(f"{relative} imports {used}")
    assert wrong == []


@pytest.mark.one_python
def test_contributing_lists_every_module_in_the_order_of_layers() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| module | owns |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    level = {name: index for index, layer in enumerate(LAYERS[:-1]) for name in layer}
    assert sorted(names) == sorted(level)
    assert [level[name] for name in names] == sorted(level.values())


def test_importing_the_package_loads_no_template_engine() -> None:
    script = (
        "import sys, doit\n"
        "before = set(sys.modules)\n"
        "import codegen_tasks\n"
        "heavy = {'jinja2', 'mako', 'pystache', 'psutil', 'sqlite3', 'multiprocessing', 'yaml'}\n"
        "heavy |= {'asyncio', 'dask', 'tornado'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n"
