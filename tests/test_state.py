"""The database: durable per step, read-only commands leave no trace, a broken one is a miss."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Project
from doit.dependency import JSONCodec

from codegen_tasks.state import StateDB

DATABASE = ".codegen/state.db"


def opened(path: Path) -> StateDB:
    return StateDB(str(path), JSONCodec())


def test_what_is_set_is_read_back_by_another_process_after_a_flush(tmp_path: Path) -> None:
    db = opened(tmp_path / "s/state.db")
    db.set("t", "deps:", ("a", "b"))
    db.set("t", "_values_:", {"x": 1})
    db.flush()
    other = opened(tmp_path / "s/state.db")
    assert other.get("t", "deps:") == ["a", "b"]
    assert other.get("t", "_values_:") == {"x": 1}
    assert other.in_("t")
    assert other.tasks() == ["t"]


def test_reading_creates_no_file(tmp_path: Path) -> None:
    db = opened(tmp_path / "s/state.db")
    assert db.get("t", "x") is None
    assert not db.in_("t")
    db.remove("t")
    db.dump()
    assert list(tmp_path.iterdir()) == []


def test_setting_what_is_already_there_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    db = opened(path)
    db.set("t", "deps:", ())
    db.dump()
    before = path.stat().st_mtime_ns
    db = opened(path)
    db.set("t", "deps:", ())
    db.dump()
    assert path.stat().st_mtime_ns == before


def test_remove_and_remove_all_forget(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    db = opened(path)
    for name in ("a", "b", "c"):
        db.set(name, "x", 1)
    db.flush()
    db.remove("a")
    db.dump()
    assert opened(path).tasks() == ["b", "c"]
    db = opened(path)
    db.remove_all()
    db.set("d", "x", 1)
    assert db.get("b", "x") is None
    db.dump()
    assert opened(path).tasks() == ["d"]


def test_a_value_that_is_changed_after_it_was_set_is_not_changed_in_the_record(
    tmp_path: Path,
) -> None:
    db = opened(tmp_path / "state.db")
    values = {"x": 1}
    db.set("t", "_values_:", values)
    values["x"] = 2
    assert db.get("t", "_values_:") == {"x": 1}


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"SQLite format 3\x00" + b"\x00" * 90])
def test_a_broken_database_counts_as_empty_with_one_line(project: Project, content: bytes) -> None:
    project.doit()
    expected = project.files(".codegen")
    project.write(DATABASE, content)
    result = project.doit()
    assert result.code == 0
    assert "5 generated, 5 of them unchanged" in result.out
    assert result.err.count("\n") == 1
    assert result.err.startswith(f"{DATABASE}: cannot be read (")
    assert project.files(".codegen") == expected
    assert project.doit().out.startswith("5 up to date")


def test_a_truncated_database_counts_as_empty(project: Project) -> None:
    project.doit()
    path = project.path / DATABASE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = project.doit()
    assert result.code == 0, result.out + result.err
    assert project.doit().out.startswith("5 up to date")


def test_a_database_of_a_newer_version_counts_as_empty(project: Project) -> None:
    project.doit()
    with sqlite3.connect(project.path / DATABASE) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    result = project.doit()
    assert result.code == 0
    assert f"{DATABASE}: cannot be read (format 99, this version reads 1)" in result.err
    assert project.doit().out.startswith("5 up to date")


def test_a_directory_in_its_place_is_moved_aside(project: Project) -> None:
    (project.path / DATABASE).mkdir(parents=True)
    assert project.doit().code == 0
    assert project.doit().out.startswith("5 up to date")


def test_a_killed_run_repeats_no_finished_step(project: Project) -> None:
    dodo = project.read("dodo.py") + (
        "\n\n@codegen.function\ndef wait(name):\n    import time\n"
        "    time.sleep(60 if name == 'cedar' else 0)\n    return name\n"
    )
    project.write("dodo.py", dodo)
    project.write("templates/page.txt.j2", "{{ wait(name) }}\n")
    running = subprocess.Popen(
        [sys.executable, "-m", "doit"],
        cwd=project.path,
        env=project.environ,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not project.exists("generated/birch.txt") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(signal.SIGKILL)
    running.wait()
    project.write("patterns/cedar.toml", 'name = "cedar2"\n')
    out = project.doit().out
    assert "generate:cedar.txt" in out
    assert "generate:ash.txt" not in out
    assert "generate:birch.txt" not in out
