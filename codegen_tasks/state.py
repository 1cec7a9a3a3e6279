"""What is remembered between runs: a backend for doit's own database, durable per step.

doit writes its other backends when a run ends, so a killed run loses all of it.  This one
is SQLite with one row a task, committed whenever a step has finished.  It is read whole at
the first read and created at the first write, so that commands which only look leave no
trace.

A command that writes without having taken the lock of the folder takes it for the commit,
reads again what others committed meanwhile, and makes its own changes to that.  A run is
different: see `StateDB.steps`.

A database that is broken counts as empty, with one line that says so, and is replaced at
the next write.  So does a row whose checksum is wrong: a record with one byte changed might
name another input, and never be found stale.  A database that merely cannot be used now,
because it is locked or not writable, is an error: what others recorded is not ours to
delete.  A power cut is outside the promise: nothing is synced to the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from doit.dependency import get_md5

from . import disk
from .errors import LockedError, StateError
from .lock import Lock

#: Raised when the table changes; a database of another format counts as broken.
FORMAT = 2
_WAIT = 60.0  # seconds to wait for another process to commit
_ATTEMPTS = 20  # to read it while another process is undoing a killed one's commit
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DENIED = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}


class StateDB:
    """doit's backend interface (`get`, `set`, `in_`, `remove`, `remove_all`, `dump`) on SQLite.

    Every method may raise StateError: the database cannot be used now.

    Attributes:
        lock: of the folder it lies in.
        steps: set by a run: the tasks whose rows only the lock's holder may change.  Changes
            to others are committed without it; changes to these, without it, are dropped if
            another process builds, whose rows are newer.

    Args:
        name: the file.
        codec: doit's, turns a task's record into text and back.
        module_name: part of doit's interface, not used.
    """

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None):
        self.name = name
        self.codec = codec
        self.lock = Lock(os.path.dirname(name) or ".")
        self.steps: Container[str] | None = None
        self._connection: sqlite3.Connection | None = None
        self._rows: dict[str, Any] | None = None  # as stored, when first read
        self._records: dict[str, dict[str, Any]] = {}  # decoded, with what was changed since
        self._supplied: dict[str, dict[str, Any]] = {}  # see `supply`
        self._seen: tuple[int, int] | None = None  # the file as it was when it was read
        self._dirty: dict[str, dict[str, Any]] = {}  # what was changed of each record
        self._removed: set[str] = set()  # before that
        self._removed_all = False
        self._broken = False
        self._failed = False
        self._said = False

    # doit's interface -------------------------------------------------------------------

    def get(self, task_id: str, dependency: str) -> Any:
        """Return one value of a task's record; None if there is none."""
        supplied = self._supplied.get(task_id)
        if supplied is not None and dependency in supplied:
            return supplied[dependency]
        return self._record(task_id).get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Change one value of a task's record; on disk after the next `flush`.

        doit records its group tasks anew at every run: what stays equal is not written.
        """
        record = self._record(task_id)
        self._supplied.get(task_id, {}).pop(dependency, None)
        if isinstance(value, tuple):
            value = list(value)  # as it will be read back
        elif isinstance(value, dict):
            value = dict(value)  # doit goes on changing its own
        if dependency in record and record[dependency] == value:
            return
        record[dependency] = value
        self._dirty.setdefault(task_id, {})[dependency] = value

    def in_(self, task_id: str) -> bool:
        """Tell whether a task has a record."""
        return bool(self._record(task_id))

    def remove(self, task_id: str) -> None:
        """Forget a task."""
        self._records[task_id] = {}
        self._supplied.pop(task_id, None)
        self._dirty.pop(task_id, None)
        self._removed.add(task_id)

    def remove_all(self) -> None:
        """Forget every task."""
        self._rows = {}
        self._records.clear()
        self._supplied.clear()
        self._dirty.clear()
        self._removed.clear()
        self._removed_all = True

    def dump(self) -> None:
        """Write what is left to write, close, and give the lock back."""
        try:
            # doit closes after an error too: the same one twice would only hide the report.
            if not self._failed:
                self.flush()
        finally:
            self._close()
            self.lock.release()

    # Ours -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Commit all changes; does nothing, and touches no file, if there are none."""
        if not self._changed():
            return
        if self._dirty or os.path.exists(self.name):
            self._failed = True
            with self._explained("written"):
                if self.lock.held or not self._changes_steps():
                    self._commit()
                else:
                    self._commit_alone()
            self._failed = False
        self._dirty.clear()
        self._removed.clear()
        self._removed_all = False

    def refresh(self) -> bool:
        """Read again what others have committed since we read; tell whether they had.

        What was changed here and is not committed yet is changed in what is read, except of
        those `steps` that others changed: that was decided by what no longer holds.
        """
        if self._rows is None or _counter(self.name) == self._seen:
            return False
        before, self._rows = self._rows, {} if self._removed_all else None
        self._records.clear()
        now = self._stored()
        self._drop_steps({name for name in before | now if before.get(name) != now.get(name)})
        for name in self._removed:
            self._records[name] = {}
        for name, changes in self._dirty.items():
            self._record(name).update(changes)
        return True

    def supply(self, task_id: str, values: dict[str, Any]) -> None:
        """Answer with these values when a task's record is asked; nothing is recorded."""
        self._supplied[task_id] = values

    def tasks(self) -> list[str]:
        """Return the names of all tasks that have a record."""
        found = {name for name in self._stored() if name not in self._records}
        return sorted(found | {name for name, record in self._records.items() if record})

    def _changed(self) -> bool:
        return bool(self._dirty or self._removed or self._removed_all)

    def _changes_steps(self) -> bool:
        """Tell whether what is to be written needs the lock."""
        if self.steps is None or self._removed_all:
            return True
        return any(name in self.steps for name in (*self._dirty, *self._removed))

    def _drop_steps(self, others: Container[str] | None = None) -> None:
        """Undo what was changed of `steps`, of all or of those that others changed."""
        steps = self.steps
        if steps is None:
            return
        mine = [name for name in (*self._dirty, *self._removed) if name in steps]
        for name in [name for name in mine if others is None or name in others]:
            self._dirty.pop(name, None)
            self._removed.discard(name)
            self._records.pop(name, None)

    # Reading ----------------------------------------------------------------------------

    def _record(self, task_id: str) -> dict[str, Any]:
        found = self._records.get(task_id)
        if found is None:
            found = self._records[task_id] = self._decoded(task_id)
        return found

    def _decoded(self, task_id: str) -> dict[str, Any]:
        data = self._stored().get(task_id)
        if data is None:
            return {}
        try:
            found = self.codec.decode(_unsealed(task_id, data))
        except (ValueError, TypeError, AttributeError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
        self._removed.add(task_id)  # or every later run would say so again
        self._close()  # what spoilt one row may have spoilt the order of all
        self._give_up(f"the record of {task_id} cannot be decoded")
        return {}

    def _stored(self) -> dict[str, Any]:
        """Return all rows; read once, so that a command decides by one snapshot."""
        if self._rows is None:
            self._seen = _counter(self.name)
            with self._explained("read"):
                try:
                    self._rows = self._read()
                except _BrokenError as error:
                    self._give_up(error)
                    self._rows = {}
        return self._rows

    def _read(self) -> dict[str, Any]:
        if not os.path.lexists(self.name):
            return {}
        _check_regular(self.name)
        for _ in range(_ATTEMPTS):
            try:
                return _rows(self.name, "ro")
            except sqlite3.OperationalError as error:
                if _primary(error) != sqlite3.SQLITE_READONLY:
                    raise
            with contextlib.suppress(_ChangedError):
                return self._read_rolled_back()
        return _rows(self.name, "ro")

    def _read_rolled_back(self) -> dict[str, Any]:
        """Read a copy of what a process left that was killed inside a commit, that undone.

        Whoever writes next undoes it in place; reading changes nothing.
        """
        journal = self.name + "-journal"
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, "state.db")
            before = disk.stat(journal)
            try:
                shutil.copyfile(journal, copy + "-journal")
                shutil.copyfile(self.name, copy)
            except FileNotFoundError:
                raise _ChangedError from None
            if disk.stat(journal) != before:
                raise _ChangedError
            return _rows(copy, "rw")

    def _give_up(self, why: object) -> None:
        """Take a database for a broken one: the next write makes it anew of what was read."""
        self._broken = True
        if not self._said:
            line = f"{self.name}: cannot be read ({why}), so everything is checked anew"
            print(line, file=sys.stderr)
        self._said = True

    # Writing ----------------------------------------------------------------------------

    def _commit_alone(self) -> None:
        """Commit with the lock taken for just that; a run that cannot have it need not."""
        try:
            self.lock.acquire(wait=self.steps is None)
        except LockedError:
            self._drop_steps()
            if self._changed():
                self._commit()
            return
        try:
            self.refresh()
            if self._changed():
                self._commit()
        finally:
            self.lock.release()

    def _commit(self) -> None:
        try:
            self._write()
        except _BrokenError as error:
            self._close()
            self._give_up(error)
            self._write()
        except sqlite3.OperationalError as error:
            # Somebody has removed or replaced the file since it was opened.
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_DBMOVED:
                raise
            self._close()
            self._write()

    def _write(self) -> None:
        with _told_apart():
            connection = self._writer()
            # With the lock held nobody asks any more whether others have written.
            before = None if self.lock.held else _counter(self.name)
            with connection:
                connection.execute("begin immediate")
                if self._removed_all:
                    connection.execute("delete from tasks")
                connection.executemany(
                    "delete from tasks where id = ?", [(name,) for name in self._removed]
                )
                connection.executemany(
                    "insert or replace into tasks values (?, ?)",
                    [
                        (name, _sealed(name, self.codec.encode(self._records[name])))
                        for name in self._dirty
                    ],
                )
        if before is not None and before == self._seen:
            after = _counter(self.name)
            if after == (before[0], before[1] + 1):  # nobody else's is among it
                self._seen = after

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None:
            os.makedirs(os.path.dirname(self.name) or ".", exist_ok=True)
            if self._broken and self._still_broken():
                self._discard()
                # What could be read of it is written anew.
                for name in filter(self._record, self.tasks()):
                    self._dirty.setdefault(name, {})
            _check_regular(self.name)
            self._broken = False
            self._connection = _opened(self.name, "rwc")
            # Measured for many small commits: a journal deleted after each one takes 110 µs
            # a commit, truncated 85, kept with its header zeroed 75.  A killed process's
            # commit is undone in all three.
            self._connection.execute("pragma journal_mode = persist")
            self._connection.execute("pragma journal_size_limit = 1048576")
            _create(self._connection)
        return self._connection

    def _still_broken(self) -> bool:
        """Look again: another process may have replaced it meanwhile, or be creating it."""
        try:
            _check_regular(self.name)
            if os.path.getsize(self.name):
                _rows(self.name, "rw", thorough=True)
        except FileNotFoundError:
            return False
        except _BrokenError:
            return True
        return False

    def _discard(self) -> None:
        # The journal first: left alone, it would be taken for the next database's.
        for path in (self.name + "-journal", self.name):
            if os.path.isdir(path):
                os.rename(path, f"{path}.{os.getpid()}.unreadable")
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    # Errors -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what keeps the database from being used into a StateError."""
        try:
            yield
        except (sqlite3.Error, OSError, _BrokenError) as error:
            raise self._problem(what, error) from None

    def _problem(self, what: str, error: Exception) -> StateError:
        folder = os.path.dirname(self.name) or "."
        blocking = disk.blocked_by(folder)
        if blocking:
            hint = f"move it away: what is remembered between runs is kept in {folder}"
            return StateError(blocking, disk.A_FILE_STANDS_THERE, hint)
        hint = ""
        if isinstance(error, sqlite3.Error) and _primary(error) in _HELD:
            hint = "another process holds it: wait until that has ended, or end it"
        elif isinstance(error, OSError) or _primary(error) in _DENIED:
            able = "writable" if what == "written" else "readable"
            hint = f"the folder {folder} and the files in it must be {able}"
        why = error.strerror if isinstance(error, OSError) else str(error)
        return StateError(self.name, f"cannot be {what}: {str(why or error).lower()}", hint)


class _BrokenError(Exception):
    """The file holds no database of ours."""


class _ChangedError(Exception):
    """Another process was writing meanwhile, so it must be read again."""


def _check_regular(name: str) -> None:
    """Raise _BrokenError if SQLite would find no file, or wait for a pipe.

    The database may be a link to a file, its journal is what SQLite made.
    """
    for path, look in ((name, os.stat), (name + "-journal", os.lstat)):
        try:
            mode = look(path).st_mode
        except FileNotFoundError:
            if os.path.lexists(path):
                raise _BrokenError("it is a link to nowhere") from None
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _BrokenError("it is a link to itself") from None
            raise
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise _BrokenError(f"{os.path.basename(path)} is {what}")


def _primary(error: Exception) -> int:
    """Return SQLite's result code without its extension; the module's own errors have none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    """Raise _BrokenError for what is wrong inside the file; let through what is around it."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _primary(error) in _BROKEN:
            raise _BrokenError(str(error)) from None
        raise


def _counter(path: str) -> tuple[int, int] | None:
    """Return inode and SQLite's count of commits, which tell whether anybody has written.

    Not to be called inside a transaction: closing the file would free SQLite's own locks.
    """
    try:
        with disk.opened(path) as file:
            file.seek(24)
            return (os.fstat(file.fileno()).st_ino, int.from_bytes(file.read(4), "big"))
    except OSError:
        return None


def _opened(path: str, mode: str) -> sqlite3.Connection:
    url = f"{Path(path).absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(url, uri=True, timeout=_WAIT, isolation_level=None)
    # Safe against a killed process; only a power cut could tear it.
    connection.execute("pragma synchronous = off")
    return connection


def _rows(path: str, mode: str, thorough: bool = False) -> dict[str, Any]:
    """Return all rows.

    Args:
        path: the database.
        mode: how SQLite opens it.
        thorough: see whether the whole file is sound, too.
    """
    with _told_apart(), contextlib.closing(_opened(path, mode)) as connection:
        connection.text_factory = bytes
        _check(connection)
        if thorough:
            fault = connection.execute("pragma integrity_check(1)").fetchone()[0]
            if fault != b"ok":
                raise _BrokenError(_text(fault))
        found = connection.execute("select id, data from tasks").fetchall()
    rows = {_text(name): data for name, data in found}
    if thorough:
        for name, data in rows.items():
            try:
                _unsealed(name, data)
            except (ValueError, TypeError):
                raise _BrokenError(f"the record of {name} cannot be decoded") from None
    return rows


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _sealed(name: str, text: str) -> str:
    """Return what is stored of a record: eight digits of a checksum, and its text."""
    return f"{_checksum(name, text.encode()):08x}{text}"


def _unsealed(name: str, data: bytes) -> str:
    """Return the text of a record.

    Raises:
        ValueError, TypeError: this is not what was stored under that name.
    """
    if int(data[:8], 16) != _checksum(name, data[8:]):
        raise ValueError("the checksum is wrong")
    return data[8:].decode()


def _checksum(name: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(name.encode("utf-8", "surrogatepass")))


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma user_version").fetchone()[0])


def _check(connection: sqlite3.Connection) -> None:
    found = _version(connection)
    if found != FORMAT:
        raise _BrokenError(f"format {found}, this version reads {FORMAT}")


def _create(connection: sqlite3.Connection) -> None:
    if _version(connection) == 0:
        # Table and format in one: nobody may see the one without the other.
        with connection:
            connection.execute("begin immediate")
            connection.execute(
                "create table if not exists tasks (id text primary key, data text) without rowid"
            )
            connection.execute(f"pragma user_version = {FORMAT}")
    _check(connection)


def recorded_tasks(dep_manager: Any) -> list[str] | None:
    """Return the tasks recorded in doit's database; None if its backend cannot list them."""
    tasks = getattr(dep_manager.backend, "tasks", None)
    return tasks() if tasks is not None else None


def reserve(dep_manager: Any, steps: Container[str]) -> None:
    """Leave the rows of a run's steps to the lock's holder, if the backend can: `StateDB.steps`."""
    if hasattr(dep_manager.backend, "steps"):
        dep_manager.backend.steps = steps


def refresh(dep_manager: Any) -> bool:
    """Read again what others have recorded meanwhile; tell whether they had, if it can be told."""
    refresh_backend = getattr(dep_manager.backend, "refresh", None)
    return refresh_backend is not None and bool(refresh_backend())


def save(dep_manager: Any, task: Any) -> None:
    """Record that a step's task has been executed, as doit's `save_success` would.

    What doit's own file check compares is left out where the backend is ours, which answers
    it from the step's trace; see `StateDB.supply`.

    Raises:
        FileNotFoundError: a file that the step read is gone.
    """
    if hasattr(dep_manager.backend, "supply"):
        dep_manager._set(task.name, "_values_:", task.values)
        dep_manager._set(task.name, "result:", get_md5(task.result))
    else:
        dep_manager.save_success(task)


def flush(dep_manager: Any) -> None:
    """Make what was recorded durable now, if the backend can."""
    flush_backend = getattr(dep_manager.backend, "flush", None)
    if flush_backend is not None:
        flush_backend()
