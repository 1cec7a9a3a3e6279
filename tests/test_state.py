"""The database: durable per step, read-only commands leave no trace, a broken one is a miss."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project
from doit.dependency import JSONCodec
from test_bad_input import bound_by_permissions

from codegen_tasks import sqlite, state
from codegen_tasks.errors import StateError
from codegen_tasks.model import Input, Output, Trace
from codegen_tasks.rows import Packer
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
    assert f"{DATABASE}: cannot be read (format 99, this version reads 4)" in result.err
    assert project.doit().out.startswith("5 up to date")


def test_a_directory_in_its_place_is_moved_aside(project: Project) -> None:
    (project.path / DATABASE).mkdir(parents=True)
    assert project.doit().code == 0
    assert project.doit().out.startswith("5 up to date")


def test_a_record_that_cannot_be_decoded_is_a_miss_with_one_line(project: Project) -> None:
    project.doit()
    with sqlite3.connect(project.path / DATABASE) as connection:
        connection.execute("update tasks set data = '{' where id = 'generate:ash.txt'")
        connection.execute("update tasks set data = x'ff' where id = 'generate:birch.txt'")
        connection.execute("insert into tasks values (x'ff', 5)")
    connection.close()
    result = project.doit()
    assert result.code == 0
    assert "2 generated, 2 of them unchanged" in result.out
    assert re.fullmatch(
        rf"{DATABASE}: cannot be read \(the record of generate:(ash|birch).txt cannot be decoded\),"
        " so everything is checked anew\n",
        result.err,
    )
    assert project.doit().out.startswith("5 up to date")


# What is recorded -----------------------------------------------------------------------


def test_a_steps_record_is_its_trace_and_no_file_is_read_for_doits_own_check(
    project: Project,
) -> None:
    forbid = (
        "import doit.dependency\n\n"
        "def refuse(path):\n    raise AssertionError(path)\n\n"
        "doit.dependency.get_file_md5 = refuse\n"
    )
    project.write("dodo.py", project.read("dodo.py") + forbid)
    assert project.doit().code == 0
    db = opened(project.path / DATABASE)
    assert set(db._record("generate:ash.txt")) == {"_values_:", "result:"}
    project.write("patterns/ash.toml", '# a comment\nname = "ash"\ngain = 0\n')
    again = project.doit()
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("5 up to date")


def test_what_doit_recorded_of_files_itself_is_ignored(project: Project) -> None:
    project.doit()
    db = opened(project.path / DATABASE)
    db.set("generate:ash.txt", "checker:", "TimestampChecker")
    db.set("generate:ash.txt", "deps:", ["patterns/ash.toml", "gone.txt"])
    db.set("generate:ash.txt", "patterns/ash.toml", 5)
    db.dump()
    project.doit()
    before = project.stamps()
    for arguments in ([], ["info"], ["list", "-s", "--all"]):
        result = project.doit(*arguments)
        assert (result.code, result.err) == (0, "")
    assert "R generate:ash.txt" not in result.out
    assert project.doit().out.startswith("5 up to date")
    assert project.stamps() == before


def traced(number: int, shared: int = 0) -> Trace:
    """Return a trace of which all but the pattern is that of every other one."""
    reads = ((("name",), "value"), (("gain",), "value"))
    return Trace(
        (
            Input("pattern", f"p{number}.toml", "0" * 64, (1, 2, 3, number), '["x"]', reads),
            Input("environment", "jinja2", "1" * 64, None, f"of {shared} " * 100),
            Input("template", "t.j2", "2" * 64, (1, 2, 3, 4)),
        ),
        (Output(f"{number}.txt", "3" * 64, 5),),
        "now",
        0.5,
    )


def with_steps(path: Path, traces: dict[str, Trace]) -> StateDB:
    db, packer = opened(path), Packer()
    db.steps = set(traces)
    db.lock.acquire()
    for name, trace in traces.items():
        db.put(name, packer.pack(trace, {"references": []}, {"result:": "r"}), packer.parts)
        packer.parts = {}
        db.flush()
    return db


def test_what_many_steps_read_is_stored_once_and_is_one_object_when_it_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    traces = {f"t{number}": traced(number) for number in range(100)}
    with_steps(path, traces).dump()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("select sum(length(data)) from tasks").fetchone()
        assert connection.execute("select count(*) from parts").fetchone() == (3,)
    assert size / 100 < 400
    db = opened(path)
    found = {name: db.get(name, "_values_:")["trace"] for name in traces}
    assert found == traces
    assert db.get("t7", "_values_:") == {"references": [], "trace": traces["t7"]}
    assert len({id(trace.inputs[1]) for trace in found.values()}) == 2  # the first is whole
    assert len({id(trace.inputs[0].reads) for trace in found.values()}) == 2


def test_what_a_step_read_is_the_same_again_whatever_its_texts_hold(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    texts = ['"', 'a"b', '\x1f"', '"\n', '"ü"', '"\ud800"', "", '["\\"]', "plain"]
    reads = ((("a", 1, True, None), "keys"), ((), "value"))
    traces = {
        f"t{number}": Trace(
            (Input("pattern", text, "0", None, text, reads, text), Input("file", text, "1")),
            (Output(text, "", number, (1, 2, 3, 4)),),
            text,
        )
        for number, text in enumerate(texts * 2)
    }
    with_steps(path, traces).lock.release()
    for _ in range(2):  # from the journal, from the database
        db = opened(path)
        for name, trace in traces.items():
            found = db.get(name, "_values_:")["trace"]
            assert found == trace
            assert repr(found) == repr(trace)  # 1 and true are equal
        db.lock.acquire()
        db.dump()


def test_a_row_of_the_journal_finds_what_it_names_in_the_database(tmp_path: Path) -> None:
    path, packer = tmp_path / "state.db", Packer()
    traces = {f"t{number}": traced(number) for number in range(6)}
    db = opened(path)
    db.steps = set(traces)
    db.lock.acquire()
    for name, trace in traces.items():
        db.put(name, packer.pack(trace, {}, {}), packer.parts)
        packer.parts = {}
        db.flush()
        if name == "t3":
            db.fold()
    db.lock.release()
    assert b"=" not in (tmp_path / "state.db-log").read_bytes()
    for name in ("t5", "t0"):
        assert opened(path).get(name, "_values_:")["trace"] == traces[name]


def test_keys_that_are_equal_to_python_are_not_taken_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    keys = [1, True, 1.0, "1"]
    traces = {
        f"t{n}": Trace((Input("pattern", "p", "0", reads=(((key,), "value"),)),), (), "now")
        for n, key in enumerate(keys * 3)
    }
    with_steps(path, traces).dump()
    db = opened(path)
    found = [db.get(name, "_values_:")["trace"].inputs[0].reads[0][0][0] for name in traces]
    assert [repr(key) for key in found] == [repr(key) for key in keys * 3]


def test_a_part_that_is_gone_or_broken_is_a_miss_of_all_that_name_it(project: Project) -> None:
    for number in range(20):
        project.write(f"patterns/p{number:02}.toml", f'name = "p{number}"\ngain = 1\n')
    project.doit()
    for change in ("delete from parts", "update parts set data = replace(data, '2', '3')"):
        with contextlib.closing(sqlite3.connect(project.path / DATABASE)) as connection:
            connection.execute(change)
            connection.commit()
        result = project.doit()
        assert (result.code, result.err.count("\n")) == (0, 1)
        assert re.match(r"(2\d) generated, \1 of them unchanged", result.out.splitlines()[-1])
        again = project.doit()
        assert (again.out[:16], again.err) == ("25 up to date in", "")


def test_parts_that_no_record_names_any_more_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_PARTS", 4)
    path = tmp_path / "state.db"
    for shared in range(10):
        traces = {f"t{number}": traced(number, shared) for number in range(5)}
        db = with_steps(path, traces)
        db.tasks()
        db.set("t0", "ignore:", "1")  # written when all was read
        db.dump()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("select count(*) from parts").fetchone()[0] <= 5
        db = opened(path)
        assert {name: db.get(name, "_values_:")["trace"] for name in traces} == traces


# The journal ----------------------------------------------------------------------------

JOURNAL = f"{DATABASE}-log"


def left_by_a_killed_run(path: Path) -> StateDB:
    """Return a database as a run has it at work: t0 committed, t1 to t9 in the journal only."""
    db = opened(path)
    db.steps = {f"t{number}" for number in range(10)}
    db.lock.acquire()
    for number in range(10):
        db.set(f"t{number}", "x", number)
        db.flush()
    db.lock.release()
    return db


def rows_in_sqlite(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("select count(*) from tasks").fetchone()[0])


def test_what_the_journal_holds_is_read_over_the_database_and_folded_by_the_next_holder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, journal = tmp_path / "state.db", tmp_path / "state.db-log"
    left_by_a_killed_run(path)
    assert (rows_in_sqlite(path), journal.read_bytes().count(b"\n")) == (1, 9)
    before = (path.read_bytes(), journal.read_bytes())
    for db in (opened(path), opened(path)):
        assert [db.get(f"t{number}", "x") for number in range(10)] == list(range(10))
        assert len(db.tasks()) == 10
        db.dump()
    assert (path.read_bytes(), journal.read_bytes()) == before
    db = opened(path)
    db.remove("t3")
    db.set("t4", "x", "new")
    db.dump()
    assert (rows_in_sqlite(path), journal.exists()) == (9, False)
    db = opened(path)
    assert (db.get("t3", "x"), db.get("t4", "x"), db.get("t9", "x")) == (None, "new", 9)
    assert capsys.readouterr().err == ""


def test_who_only_takes_the_lock_folds_what_a_killed_run_left(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    left_by_a_killed_run(path)
    db = opened(path)
    db.lock.acquire()
    db.dump()
    assert (rows_in_sqlite(path), (tmp_path / "state.db-log").exists()) == (10, False)


def test_a_run_commits_once_a_second_and_appends_the_rest_to_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(state.time, "monotonic", lambda: clock[0])
    commits: list[str] = []
    really_opened = sqlite._opened

    def traced(*arguments: str) -> sqlite3.Connection:
        connection = really_opened(*arguments)
        connection.set_trace_callback(commits.append)
        return connection

    monkeypatch.setattr(sqlite, "_opened", traced)
    db = opened(tmp_path / "state.db")
    db.steps = {f"t{number}" for number in range(1000)}
    db.lock.acquire()
    for number in range(1000):
        clock[0] += 0.01
        db.set(f"t{number}", "x", number)
        db.flush()
    db.dump()
    # The tables, the first row, ten seconds, the end.
    assert commits.count("COMMIT") <= 13
    assert rows_in_sqlite(tmp_path / "state.db") == 1000


def test_rows_that_are_no_steps_and_removals_are_committed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    db = left_by_a_killed_run(path)
    db.lock.acquire()
    db.set("mine", "x", 1)
    db.set("t5", "x", "again")
    db.flush()
    assert rows_in_sqlite(path) == 11
    assert (tmp_path / "state.db-log").read_bytes() == b""
    db.set("t6", "x", "again")
    db.flush()
    db.remove("t6")
    db.flush()
    assert rows_in_sqlite(path) == 10
    assert opened(path).tasks() == ["mine", *(f"t{n}" for n in range(10) if n != 6)]
    db.dump()
    assert opened(path).get("t5", "x") == "again"


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.999])
def test_a_line_that_was_being_written_counts_for_nothing(
    tmp_path: Path, kept: float, capsys: pytest.CaptureFixture[str]
) -> None:
    path, journal = tmp_path / "state.db", tmp_path / "state.db-log"
    left_by_a_killed_run(path)
    data = journal.read_bytes()
    journal.write_bytes(data[: int(len(data) * kept)])
    whole = 1 + journal.read_bytes().count(b"\n")
    assert opened(path).tasks() == [f"t{number}" for number in range(whole)]
    db = opened(path)
    db.set("u", "x", 1)
    db.dump()
    assert rows_in_sqlite(path) == whole + 1
    assert capsys.readouterr().err == ""


def test_a_broken_line_of_the_journal_is_a_miss_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, journal = tmp_path / "state.db", tmp_path / "state.db-log"
    left_by_a_killed_run(path)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"3", b"4")  # t3, of which nothing holds any more
    lines[5] = lines[5].replace(b"x", b"y")
    journal.write_bytes(b"".join(lines))
    db = opened(path)
    assert [db.get(f"t{n}", "x") for n in range(10)] == [0, 1, 2, None, 4, 5, None, 7, 8, 9]
    assert capsys.readouterr().err == (
        f"{path}: cannot be read (a line of its journal is broken), so everything is checked anew\n"
    )
    db.set("t3", "x", "new")
    db.dump()
    assert not journal.exists()
    again = opened(path)
    assert [again.get(f"t{n}", "x") for n in (3, 4, 6, 9)] == ["new", 4, None, 9]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_a_journal_that_is_no_file_is_told_and_moved_away(
    tmp_path: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path, journal = tmp_path / "state.db", tmp_path / "state.db-log"
    filled(path)
    make(journal)
    db = opened(path)
    assert db.get("t7", "x") == "7" * 100
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"\S*: cannot be read \(state.db-log is (a folder|no regular file)\), .*\n", said
    )
    db.set("t7", "x", 1)
    db.dump()
    assert not os.path.lexists(journal)
    assert (opened(path).get("t7", "x"), len(opened(path).tasks())) == (1, 200)
    assert capsys.readouterr().err == ""


def test_a_run_with_nothing_to_do_tells_once_of_a_journal_that_is_no_file(
    project: Project,
) -> None:
    project.doit()
    (project.path / JOURNAL).mkdir()
    looked = project.doit("info")
    assert (looked.code, looked.err.count("\n")) == (0, 1)
    told = project.doit()
    assert (told.code, told.err) == (0, looked.err)
    assert told.out.startswith("5 up to date")
    again = project.doit()
    assert (again.out[:12], again.err) == ("5 up to date", "")


def test_a_journal_that_cannot_be_written_leaves_it_to_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    db = opened(path)
    db.steps = {"t1", "t2", "t3"}
    db.lock.acquire()
    really_write, full = os.write, [False]

    def write(handle: int, data: bytes) -> int:
        if full[0] and len(data) <= 10:
            raise OSError(errno.ENOSPC, "no space left on device")
        return really_write(handle, data[:10] if full[0] else data)

    monkeypatch.setattr(os, "write", write)
    for number in (1, 2, 3):
        full[0] = number == 3
        db.set(f"t{number}", "x", number)
        db.flush()
    assert rows_in_sqlite(path) == 3
    assert opened(path).tasks() == ["t1", "t2", "t3"]


def test_the_stamp_differs_with_whatever_is_recorded_and_is_empty_beside_a_journal(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    assert opened(path).stamp() == ""
    seen = set()
    for number in range(3):
        db = opened(path)
        db.lock.acquire()
        db.set("t", "x", number)
        db.fold()
        stamp = db.stamp()
        db.dump()
        assert stamp
        assert opened(path).stamp() == stamp
        assert stamp not in seen
        seen.add(stamp)
    left_by_a_killed_run(path)
    assert opened(path).stamp() == ""
    (tmp_path / "state.db-log").unlink()
    assert opened(path).stamp() not in {"", *seen}
    (tmp_path / "state.db-journal").touch()
    assert opened(path).stamp() == ""


KNOWN = """
import sys
from doit.dependency import JSONCodec
from codegen_tasks.state import StateDB

db = StateDB(sys.argv[1], JSONCodec())
stamp = db.stamp()
db.suppose({"t": {"x": 1}})
print(db.still(stamp), db.get("t", "x"), db.in_("t"), db.refresh())
db.set("t", "x", 1)
db.dump()
print("sqlite3" in sys.modules)
db.tasks()
print("sqlite3" in sys.modules)
"""


def test_sqlite_is_imported_only_when_the_database_is_read_or_written(tmp_path: Path) -> None:
    filled(tmp_path / "state.db")
    done = subprocess.run(
        [sys.executable, "-c", KNOWN, str(tmp_path / "state.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True 1 True False\nFalse\nTrue\n", "")


# In use, or not writable ----------------------------------------------------------------


def filled(path: Path) -> None:
    db = opened(path)
    for number in range(200):
        db.set(f"t{number}", "x", str(number) * 100)
    db.dump()


def with_hot_journal(path: Path, folder: Path) -> None:
    """Make `folder` hold the database `path` as a process leaves it that is killed in a commit."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma cache_size = 2")  # pages are written before the commit
    connection.execute("begin immediate")
    connection.execute("update tasks set data = '{\"torn\": 1}'")
    connection.execute("create table padding as select hex(zeroblob(20000)) from tasks")
    folder.mkdir(parents=True, exist_ok=True)
    for ending in ("", "-journal"):
        shutil.copyfile(f"{path}{ending}", f"{folder}/state.db{ending}")
    connection.close()
    read_only = sqlite3.connect(f"file:{folder}/state.db?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        read_only.execute("select * from tasks").fetchall()
    read_only.close()


def test_a_commit_that_a_killed_process_left_half_done_is_undone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path / "state.db")
    with_hot_journal(tmp_path / "state.db", tmp_path / "s")
    db = opened(tmp_path / "s/state.db")
    assert db.get("t7", "x") == "7" * 100
    assert len(db.tasks()) == 200
    db.set("t7", "x", 1)
    db.dump()
    assert opened(tmp_path / "s/state.db").get("t7", "x") == 1
    assert opened(tmp_path / "s/state.db").get("t8", "x") == "8" * 100
    assert capsys.readouterr().err == ""


READS = """
import sys
from doit.dependency import JSONCodec
from codegen_tasks.state import StateDB

db = StateDB(sys.argv[1], JSONCodec())
print(len(db.tasks()), db.get("t7", "x")[:3])
"""


def test_who_may_not_write_reads_past_such_a_commit_too(tmp_path: Path) -> None:
    bound = bound_by_permissions()
    filled(tmp_path / "state.db")
    folder = tmp_path / "s"
    with_hot_journal(tmp_path / "state.db", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    try:
        done = subprocess.run(
            [*bound, sys.executable, "-c", READS, str(folder / "state.db")],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        folder.chmod(0o755)
    assert (done.stdout, done.stderr) == ("200 777\n", "")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_info_reads_past_such_a_commit_and_changes_nothing(project: Project) -> None:
    project.doit()
    database = project.path / DATABASE
    with_hot_journal(database, project.path / "s")
    for ending in ("", "-journal"):
        shutil.copyfile(project.path / f"s/state.db{ending}", f"{database}{ending}")
    shutil.rmtree(project.path / "s")
    before = project.stamps()
    result = project.doit("info")
    assert (result.code, result.err) == (0, "")
    assert project.stamps() == before
    assert project.doit().out.startswith("5 up to date")


def test_a_locked_database_is_an_error_and_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_WAIT", 0.05)
    path = tmp_path / "state.db"
    filled(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin exclusive")
    db = opened(path)
    with pytest.raises(StateError) as caught:
        db.get("t1", "x")
    assert str(caught.value) == (
        f"{path}: cannot be read: database is locked\n"
        "  hint: another process holds it: wait until that has ended, or end it"
    )
    other.execute("commit")
    db = opened(path)
    db.set("t1", "x", 0)
    other.execute("begin exclusive")
    with pytest.raises(StateError, match="cannot be written: database is locked"):
        db.flush()
    db.dump()  # as doit does after an error; the first one is the one to tell
    other.execute("commit")
    other.close()
    assert opened(path).get("t1", "x") == "1" * 100
    assert len(opened(path).tasks()) == 200


def test_a_broken_database_that_another_process_has_replaced_is_not_replaced_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"garbage" * 100)
    first, second = opened(path), opened(path)
    for db, name in ((first, "a"), (second, "b")):
        assert db.get(name, "x") is None
    first.set("a", "x", 1)
    first.flush()
    second.set("b", "x", 1)
    second.dump()
    first.set("c", "x", 1)
    first.dump()
    assert opened(path).tasks() == ["a", "b", "c"]


def test_a_database_that_is_removed_meanwhile_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "s/state.db"
    db = opened(path)
    db.set("a", "x", 1)
    db.flush()
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    db.set("b", "x", 1)
    db.dump()
    assert opened(path).tasks() == ["b"]


def test_a_command_decides_by_one_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    filled(path)
    db = opened(path)
    assert len(db.tasks()) == 200
    other = opened(path)
    other.set("t2", "x", 0)
    other.dump()
    assert db.get("t2", "x") == "2" * 100
    assert db.refresh()
    assert db.get("t2", "x") == 0


def test_rows_read_one_by_one_are_of_one_moment_from_the_first_that_differs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    filled(path)
    db = opened(path)
    assert db.get("t1", "x") == "1" * 100
    for value in (0, 5):
        other = opened(path)
        other.set("t2", "x", value)
        other.set("t3", "x", value)
        other.dump()
        assert (db.get("t2", "x"), db.get("t3", "x")) == (0, 0)
    assert db.refresh()  # what was decided by the rows before
    assert db.get("t3", "x") == 5


def test_a_few_rows_are_read_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    filled(path)
    db = opened(path)
    for number in range(state._SINGLES):
        assert db.get(f"t{number}", "x") == str(number) * 100
    assert db._stored is None
    assert db.get("t199", "x") == "199" * 100
    assert db._stored is not None


def test_a_file_in_place_of_the_state_folder_is_named(project: Project) -> None:
    project.write(".codegen", "mine\n")
    result = project.doit()
    assert result.code == 3
    assert result.err == (
        "ERROR: .codegen: a file stands where a folder should be\n"
        "  hint: move it away: what is remembered between runs is kept in .codegen\n"
    )
    assert project.read(".codegen") == "mine\n"


@pytest.mark.parametrize("name", [DATABASE, ".codegen"])
def test_a_database_that_cannot_be_written_is_one_clear_error(project: Project, name: str) -> None:
    command = [*bound_by_permissions(), sys.executable, "-m", "doit"]
    project.doit()
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    before = (project.path / DATABASE).read_bytes()
    (project.path / f"{DATABASE}-journal").unlink(missing_ok=True)
    path = project.path / name
    path.chmod(0o555)
    try:
        result = project.run(*command)
    finally:
        path.chmod(0o755)
    assert result.code == 3
    what = f"{DATABASE}: cannot be written: attempt to write a readonly database"
    if name != DATABASE:
        what = ".codegen/lock: cannot be written: permission denied"
    assert result.err == (
        f"ERROR: {what}\n  hint: the folder .codegen and the files in it must be writable\n"
    )
    assert (project.path / DATABASE).read_bytes() == before
    assert project.doit().code == 0
    assert project.doit().out.startswith("5 up to date")


# Killed ---------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, time
from doit.dependency import JSONCodec
from codegen_tasks.state import StateDB

path, expected = sys.argv[1], {}


def shown(value):
    return f"{value[:12]!r}+{len(value)}"


def commit_for_ever(out, life):
    random.seed(life)
    db, n = StateDB(path, JSONCodec()), 0
    while True:
        n += 1
        name, value = f"t{random.randrange(40)}", f"{life}.{n} " * random.randrange(1, 600)
        db.set(name, "x", value)
        os.write(out, f"{name} {shown(value)}\\n".encode())
        db.flush()
        os.write(out, b"flushed\\n")


life = 0
while life < 50 or (not expected and life < 500):
    life += 1
    end, out = os.pipe()
    child = os.fork()
    if not child:
        commit_for_ever(out, life)
    os.close(out)
    time.sleep(random.uniform(0.002, 0.03) * (1 + life // 50))  # longer, as none came to a commit
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(end, "rb") as file:
        lines = file.read().decode().splitlines()
    pending = {}
    for line in lines:
        if line == "flushed":
            expected.update(pending)
            pending = {}
        else:
            pending = dict([line.split(" ", 1)])
    db = StateDB(path, JSONCodec())
    found = {name: shown(db.get(name, "x")) for name in db.tasks()}
    assert found in (expected, {**expected, **pending}), (life, pending)
    expected = found
print(len(expected))
"""


def test_what_a_killed_process_had_flushed_is_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "state.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # One that was killed before its first commit left an empty file, and an empty file is told.
    said = f"{tmp_path}/state.db: cannot be read (format 0, this version reads 4), so"
    assert all(line.startswith(said) for line in done.stderr.splitlines())
    assert int(done.stdout) > 0


def test_a_killed_run_repeats_no_finished_step(project: Project) -> None:
    dodo = project.read("dodo.py") + (
        "\n\n@codegen.function\ndef wait(name):\n    import time\n"
        "    open('begun-' + name, 'w').close()\n"
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
    deadline = time.monotonic() + 60
    while not project.exists("begun-cedar"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    project.write("patterns/cedar.toml", 'name = "cedar2"\n')
    out = project.doit().out
    assert "generate:cedar.txt" in out
    assert "generate:ash.txt" not in out
    assert "generate:birch.txt" not in out
