"""Promise 7: whatever becomes of our records, it is a miss, one line, and right afterwards.

Files of the state folder are cut, flipped, emptied, exchanged for folders, pipes and links,
at random; after each, commands that look show no traceback, a build makes what a clean one
makes, and the next has nothing to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, Result, share
from doit.dependency import JSONCodec
from warm import Warm

from codegen_tasks.model import Input, Output, Trace
from codegen_tasks.state import StateDB

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs doit in forked children")

DODO = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="pages/{stem}.txt")
codegen.rule("list", template="list.j2", patterns="patterns/*.toml", target="list.txt")
codegen.rule("code", template="code.j2", target="code.py", compile="python")


@codegen.function
def say(text):
    print("said", text)
    return text


DOIT_CONFIG = codegen.doit_config
"""
PYPROJECT = """
[tool.doit.plugins.command]
cache = "codegen_tasks.commands.cache:Cache"
manifest = "codegen_tasks.commands.manifest:Manifest"
"""
FILES = {
    "dodo.py": DODO,
    "pyproject.toml": PYPROJECT,
    "templates/page.j2": '{% include "parts/head.j2" %}{{ say(name) }} {{ gain }}\n',
    "templates/parts/head.j2": "head {{ name }}\n",
    "templates/list.j2": "{% for p in patterns %}{{ p.name }} {{ p.gain }}\n{% endfor %}",
    "templates/code.j2": "CODE = {{ read_text('notes.txt') }}\n",
}
VARIANTS = 3
LOOKS = [
    ["info"],
    ["info", "--json"],
    ["info", "generate:list.txt"],
    ["list", "-s", "--all"],
    ["clean", "-n"],
    ["forget", "generate:list.txt"],
    ["forget", "-a"],
    ["clean", "generate:list.txt"],
    ["clean"],
    ["cache", "status"],
    ["cache", "verify"],
    ["cache", "cleanup", "1"],
    ["cache", "clear"],
    ["manifest", "status"],
    ["manifest", "verify"],
]


# What may become of a file --------------------------------------------------------------


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data) + 1)])


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    for _ in range(chance.choice([1, 1, 1, 5, 50])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def garble(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.choice([1, 100, 5000])))


def shuffle(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    pieces = [data[at : at + 512] for at in range(0, len(data), 512)]
    chance.shuffle(pieces)
    path.write_bytes(b"".join(pieces))


def lengthen(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.choice([1, 4096])))


def lose(path: Path, chance: random.Random) -> None:
    """Remove a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def as_folder(path: Path, chance: random.Random) -> None:
    lose(path, chance)
    path.mkdir()
    if chance.random() < 0.5:
        (path / "inside").write_text("mine\n")


def as_pipe(path: Path, chance: random.Random) -> None:
    lose(path, chance)
    os.mkfifo(path)


def as_file(path: Path, chance: random.Random) -> None:
    lose(path, chance)
    path.write_text("mine\n")


def as_loop(path: Path, chance: random.Random) -> None:
    lose(path, chance)
    path.symlink_to(path.name)


def as_dangling(path: Path, chance: random.Random) -> None:
    lose(path, chance)
    path.symlink_to("nowhere")


OF_FILES = [cut, cut, flip, flip, flip, flip, empty, garble, shuffle, lengthen, lose]
OF_FILES += [as_folder, as_pipe, as_loop, as_dangling]
OF_FOLDERS = [lose, as_file, as_pipe, as_loop, as_dangling]


# The project ----------------------------------------------------------------------------


class Spoilt:
    """A built project whose state is spoilt again and again."""

    def __init__(self, warm: Warm, seed: int):
        self.warm = warm
        self.chance = random.Random(seed)
        self.home = Path(tempfile.mkdtemp(prefix="codegen-spoilt-"))
        self.path = self.home / "project"
        for name, text in FILES.items():
            self.write(name, text)
        self.clean = []
        for variant in range(VARIANTS):
            self.edit(variant)
            self.doit("run")
            self.clean.append(self.outputs())
            shutil.rmtree(self.path / "generated")
            shutil.rmtree(self.path / ".codegen")
        assert len({str(outputs) for outputs in self.clean}) == VARIANTS
        self.variant = VARIANTS - 1
        assert self.doit("run").code == 0

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def edit(self, variant: int) -> None:
        self.variant = variant
        for number, stem in enumerate(("ash", "birch", "cedar")):
            gain = variant if stem != "cedar" else 7
            self.write(f"patterns/{stem}.toml", f'name = "{stem}"\ngain = {number + gain}\n')
        self.write("notes.txt", f"{variant}")

    def doit(self, *arguments: str) -> Result:
        self.warm.commands += 1
        result = self.warm.run(self.path, arguments)
        assert "Traceback" not in result.out + result.err, result.err
        assert "internal error" not in result.out + result.err, result.out
        return result

    def outputs(self) -> dict[str, bytes]:
        found = (path for path in (self.path / "generated").rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.read_bytes() for path in found}

    def stamps(self) -> dict[str, tuple[int, int]]:
        return {
            path.relative_to(self.path).as_posix(): (path.lstat().st_ino, path.lstat().st_mtime_ns)
            for path in self.path.rglob("*")
        }

    def leave_journal(self) -> None:
        """Have some records in the journal, as a killed run leaves them."""
        db = StateDB(str(self.path / ".codegen/state.db"), JSONCodec())
        db.steps = names = db.tasks()
        db.lock.acquire()
        for name in filter(db.in_, names):
            db._dirty[name] = {}
            db.flush()
        db.lock.release()

    def one_round(self) -> int:
        """Spoil something, look, build, build again; return how much was spoilt."""
        if self.chance.random() < 0.3:
            self.leave_journal()
        told = [self.spoil() for _ in range(self.chance.choice([1, 1, 1, 2]))]
        spoilt = len(told)
        if self.chance.random() < 0.5:
            self.edit(self.chance.randrange(VARIANTS))
        if self.chance.random() < 0.5:
            look = self.chance.choice(LOOKS)
            told.append(" ".join(look))
            result = self.doit(*look)
            assert result.code in (0, 1), (told, result)
            assert result.err.count("\n") <= len(told), (told, result)
        result = self.doit("run", *self.chance.choice([[], [], ["-n", "2"]]))
        assert result.code == 0, (told, result)
        assert result.err.count("\n") <= len(told), (told, result)
        assert self.outputs() == self.clean[self.variant], (told, result)
        before = self.stamps()
        again = self.doit("run")
        assert (again.code, again.err) == (0, ""), (told, result, again)
        assert again.out.startswith("6 up to date"), (told, result, again)
        after = self.stamps()
        assert after == before, (told, {k for k in after | before if after.get(k) != before.get(k)})
        return spoilt

    def spoil(self) -> str:
        """Spoil one file or folder of the state; return how."""
        state = self.path / ".codegen"
        kept = state / "kept"
        found = sorted(p for p in state.rglob("*") if p != kept and kept not in p.parents)
        found = [path for path in found if path.is_file() or path.is_dir()]
        found = [path for path in found if ".unreadable" not in str(path)]
        of_db = ("state.db", "state.db-log")
        weights = [8 if path.name in of_db else 2 if path.is_file() else 1 for path in found]
        path = self.chance.choices(found, weights)[0]
        how = self.chance.choice(OF_FILES if path.is_file() else OF_FOLDERS)
        how(path, self.chance)
        return f"{how.__name__} {path.relative_to(state)}"


def hold(seeds: Iterable[int], rounds: int) -> int:
    """Spoil projects at random, raise what does not hold; return how often was spoilt."""
    warm, spoilt = Warm(), 0
    try:
        for seed in seeds:
            project = Spoilt(warm, seed)
            for _ in range(rounds):
                spoilt += project.one_round()
            shutil.rmtree(project.home)
    finally:
        warm.end()
    return spoilt


def test_whatever_becomes_of_our_records_the_next_build_is_right() -> None:
    hold(seeds=[1, 2][: share(2)], rounds=20)


@pytest.mark.slow
def test_many_more_corruptions_end_in_a_right_build() -> None:
    corruptions = int(os.environ.get("CORRUPTIONS", "80"))
    spoilt = hold(seeds=range(100, 100 + corruptions // 30), rounds=30)
    print(f"\n{corruptions // 30 * 30} rounds, {spoilt} corruptions")


# One by one -----------------------------------------------------------------------------

DATABASE = ".codegen/state.db"


def rewrite(project: Project, task: str, old: str, new: str) -> None:
    """Change the text of a record, as a fault of the disk might."""
    with contextlib.closing(sqlite3.connect(project.path / DATABASE)) as connection, connection:
        (before,) = connection.execute("select data from tasks where id = ?", [task]).fetchone()
        assert old in before
        connection.execute(
            "update tasks set data = ? where id = ?", [before.replace(old, new), task]
        )


def test_a_record_that_names_another_input_is_not_believed(project: Project) -> None:
    project.doit()
    rewrite(project, "generate:ash.txt", "templates/macros.j2", "templates/base.j2")
    project.write("templates/macros.j2", "{% macro title(x) %}-- {{ x }} --{% endmacro %}\n")
    result = project.doit()
    assert result.code == 0
    assert result.err == (
        f"{DATABASE}: cannot be read (the record of generate:ash.txt cannot be decoded), so"
        " everything is checked anew\n"
    )
    assert "-- ash --" in project.read("generated/ash.txt")
    assert project.doit().err == ""


def test_a_record_of_another_task_is_not_believed(project: Project) -> None:
    project.doit()
    with contextlib.closing(sqlite3.connect(project.path / DATABASE)) as connection, connection:
        connection.execute("delete from tasks where id = 'generate:ash.txt'")
        connection.execute(
            "update tasks set id = 'generate:ash.txt' where id = 'generate:birch.txt'"
        )
    result = project.doit()
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert "2 generated, 2 of them unchanged" in result.out
    assert project.doit().out.startswith("5 up to date")


def test_one_broken_row_costs_its_own_task_only(project: Project) -> None:
    project.doit()
    rewrite(project, "generate:list.txt", '"references"', '"referencex"')
    before = project.stamps()
    looked = project.doit("info")
    assert (looked.code, looked.err.count("\n")) == (1, 1)
    assert project.stamps() == before
    result = project.doit()
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert "1 generated, 1 of them unchanged, 4 up to date" in result.out
    again = project.doit()
    assert (again.out[:14], again.err) == ("5 up to date i", "")


def test_a_database_that_breaks_while_it_is_used_keeps_what_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.db"
    db = StateDB(str(path), JSONCodec())
    for number in range(100):
        db.set(f"t{number}", "x", "y" * 500)
    db.dump()
    db = StateDB(str(path), JSONCodec())
    assert len(db.tasks()) == 100
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    db.set("t2", "x", 2)
    db.dump()
    db = StateDB(str(path), JSONCodec())
    assert (len(db.tasks()), db.get("t2", "x"), db.get("t99", "x")) == (100, 2, "y" * 500)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("make", [as_folder, as_pipe, as_loop, as_dangling])
@pytest.mark.parametrize("ending", ["", "-journal"])
def test_forgetting_in_a_database_that_is_no_file_is_no_error(
    tmp_path: Path, make: Callable[[Path, random.Random], None], ending: str
) -> None:
    path = tmp_path / f"state.db{ending}"
    path.write_bytes(b"")
    make(path, random.Random(1))
    db = StateDB(str(tmp_path / "state.db"), JSONCodec())
    db.remove("t")
    db.set("u", "x", 1)
    db.dump()
    assert StateDB(str(tmp_path / "state.db"), JSONCodec()).tasks() == ["u"]


TRACE = Trace((Input("file", "a", "0", (1, 2, 3, 4)),), (Output("b", "0", 1),), "now", 0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"version": None},
        {"inputs": None},
        {"inputs": {"a": 1}},
        {"inputs": [["file", "a", ["0"], None, ""]]},
        {"inputs": [["file", {}, "0", None, ""]]},
        {"inputs": [["file", "a", "0", [1, 2, 3], ""]]},
        {"inputs": [["file", "a", "0", ["1", "2", "3", "4"], ""]]},
        {"inputs": [["file", "a", "0", [1, 2, 3, float("nan")], ""]]},
        {"outputs": [["b", 0, 1, None]]},
        {"outputs": [["b", "0", "1", None]]},
        {"outputs": 5},
        {"made": 5},
        {"made": []},
        {"seconds": "1"},
        {"seconds": 10**400},
    ],
)
def test_a_trace_of_other_types_than_ours_is_none(change: dict[str, Any]) -> None:
    values = json.loads(json.dumps(TRACE.to_values()))
    assert Trace.from_values(values) == TRACE
    assert Trace.from_values({**values, **change}) is None


@pytest.mark.parametrize("values", [None, [], "x", 5, {}])
def test_what_is_no_trace_at_all_is_none(values: Any) -> None:
    assert Trace.from_values(values) is None


def test_cleaning_removes_pipes_and_links_from_the_state_folder(project: Project) -> None:
    project.doit()
    log, state = project.path / ".codegen/logs", project.path / ".codegen"
    (log / "generate").mkdir(exist_ok=True)
    os.mkfifo(log / "generate/ash.txt.log")
    as_loop(state / "manifest.json", random.Random(1))
    as_pipe(state / "cache", random.Random(1))
    result = project.doit("clean", "-a")
    assert (result.code, result.err) == (0, "")
    assert [name for name in os.listdir(state) if not name.startswith("state.db")] == []
