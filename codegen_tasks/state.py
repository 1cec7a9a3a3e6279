"""What is remembered between runs: a backend for doit's own database, durable per step.

doit writes its other backends when a run ends, so a killed run loses all of it.  This one
is SQLite with one row a task, committed whenever a step has finished.  It is opened at the
first read and created at the first write, so that commands which only look leave no trace.

A database that cannot be read counts as empty, with one line that says so, and is replaced
at the next write.  A power cut is outside the promise: nothing is synced to the disk.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Raised when the table changes; a database of another format counts as unreadable.
FORMAT = 1
_WAIT = 60.0  # seconds a writer waits for another process to commit


class StateDB:
    """doit's backend interface (`get`, `set`, `in_`, `remove`, `remove_all`, `dump`) on SQLite.

    Args:
        name: the file.
        codec: doit's, turns a task's record into text and back.
        module_name: part of doit's interface, not used.
    """

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None):
        self.name = name
        self.codec = codec
        self._connection: sqlite3.Connection | None = None
        self._writable = False
        self._unreadable = False
        self._records: dict[str, dict[str, Any]] = {}
        self._dirty: set[str] = set()
        self._removed: set[str] = set()
        self._removed_all = False

    # doit's interface -------------------------------------------------------------------

    def get(self, task_id: str, dependency: str) -> Any:
        """Return one value of a task's record; None if there is none."""
        return self._record(task_id).get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Change one value of a task's record; on disk after the next `flush`.

        doit records its group tasks anew at every run: what stays equal is not written.
        """
        record = self._record(task_id)
        if isinstance(value, tuple):
            value = list(value)  # as it will be read back
        elif isinstance(value, dict):
            value = dict(value)  # doit goes on changing its own
        if dependency in record and record[dependency] == value:
            return
        record[dependency] = value
        self._removed.discard(task_id)
        self._dirty.add(task_id)

    def in_(self, task_id: str) -> bool:
        """Tell whether a task has a record."""
        return bool(self._record(task_id))

    def remove(self, task_id: str) -> None:
        """Forget a task."""
        self._records[task_id] = {}
        self._dirty.discard(task_id)
        self._removed.add(task_id)

    def remove_all(self) -> None:
        """Forget every task."""
        self._records.clear()
        self._dirty.clear()
        self._removed.clear()
        self._removed_all = True

    def dump(self) -> None:
        """Write what is left to write, and close."""
        self.flush()
        self._close()

    # Ours -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Commit all changes; does nothing, and touches no file, if there are none."""
        if not (self._dirty or self._removed or self._removed_all):
            return
        if self._removed and not self._dirty and not self._removed_all and not self._exists():
            self._removed.clear()
            return
        with self._writing() as connection:
            if self._removed_all:
                connection.execute("delete from tasks")
            connection.executemany(
                "delete from tasks where id = ?", [(name,) for name in self._removed]
            )
            connection.executemany(
                "insert or replace into tasks values (?, ?)",
                [(name, self.codec.encode(self._records[name])) for name in self._dirty],
            )
        self._dirty.clear()
        self._removed.clear()
        self._removed_all = False

    def tasks(self) -> list[str]:
        """Return the names of all tasks that have a record."""
        found = set() if self._removed_all else set(self._stored_names())
        found |= self._dirty
        return sorted(found - self._removed)

    # SQLite -----------------------------------------------------------------------------

    def _exists(self) -> bool:
        return os.path.exists(self.name)

    def _record(self, task_id: str) -> dict[str, Any]:
        found = self._records.get(task_id)
        if found is None:
            found = self._records[task_id] = {} if self._removed_all else self._stored(task_id)
        return found

    def _stored(self, task_id: str) -> dict[str, Any]:
        rows = self._select("select data from tasks where id = ?", (task_id,))
        try:
            found = self.codec.decode(rows[0][0]) if rows else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _stored_names(self) -> list[str]:
        return [row[0] for row in self._select("select id from tasks", ())]

    def _select(self, query: str, values: tuple[str, ...]) -> list[Any]:
        connection = self._reader()
        if connection is None:
            return []
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            self._give_up(error)
            return []

    def _reader(self) -> sqlite3.Connection | None:
        if self._connection is None and not self._unreadable and self._exists():
            try:
                self._connection = self._open("ro")
                self._check(self._connection)
            except (sqlite3.DatabaseError, OSError) as error:
                self._give_up(error)
        return self._connection

    def _open(self, mode: str) -> sqlite3.Connection:
        url = f"{Path(self.name).absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(url, uri=True, timeout=_WAIT, isolation_level=None)
        # Safe against a killed process; only a power cut could tear it.
        connection.execute("pragma synchronous = off")
        return connection

    @staticmethod
    def _check(connection: sqlite3.Connection) -> None:
        found = connection.execute("pragma user_version").fetchone()[0]
        if found != FORMAT:
            raise sqlite3.DatabaseError(f"format {found}, this version reads {FORMAT}")

    def _give_up(self, error: Exception) -> None:
        """Take an unreadable database for an empty one."""
        self._close()
        self._unreadable = True
        print(
            f"{self.name}: cannot be read ({error}), so everything is checked anew", file=sys.stderr
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._writer()
            connection.execute("begin immediate")
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.name}: cannot be written: {error}") from None
        except sqlite3.DatabaseError as error:
            self._give_up(error)
            connection = self._writer()
            connection.execute("begin immediate")
        try:
            yield connection
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None or not self._writable:
            self._close()
            folder = os.path.dirname(self.name)
            if folder:
                os.makedirs(folder, exist_ok=True)
            if self._unreadable:
                self._discard()
            self._connection = self._open("rwc")
            self._writable = True
            self._create(self._connection)
        return self._connection

    def _create(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("pragma user_version").fetchone()[0]
        if found == 0:
            connection.execute(
                "create table if not exists tasks (id text primary key, data text) without rowid"
            )
            connection.execute(f"pragma user_version = {FORMAT}")
        else:
            self._check(connection)

    def _discard(self) -> None:
        for path in (self.name, self.name + "-journal"):
            with contextlib.suppress(OSError):
                os.unlink(path)
        if os.path.isdir(self.name):
            os.rename(self.name, f"{self.name}.{os.getpid()}.unreadable")
        self._unreadable = False

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._writable = False


def recorded_tasks(dep_manager: Any) -> list[str] | None:
    """Return the tasks recorded in doit's database; None if its backend cannot list them."""
    tasks = getattr(dep_manager.backend, "tasks", None)
    return tasks() if tasks is not None else None


def flush(dep_manager: Any) -> None:
    """Make what was recorded durable now, if the backend can."""
    flush_backend = getattr(dep_manager.backend, "flush", None)
    if flush_backend is not None:
        flush_backend()
