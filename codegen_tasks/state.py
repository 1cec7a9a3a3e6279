"""What is remembered between runs: a backend for doit's own database, durable per step.

doit writes its other backends when a run ends, so a killed run loses all of it.  This one
is SQLite with one row a task, and a journal beside it: a run appends what a step has come to
when it has finished, and folds the journal into the database every second and at its end.
Only the holder of the folder's lock writes to the journal, and only steps, so what stands
there is always the newest; what a killed run left of it is read over the database's rows,
and folded by the next holder before its own changes.

The database is created at the first write, so that commands which only look leave no trace.
Rows are read one by one until many were asked for, then whole.  `rows` tells what is in them.

A command that writes without having taken the lock takes it for the commit, reads again what
others committed meanwhile, and makes its own changes to that.  A run is different: see
`StateDB.steps`.

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
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from . import disk, rows
from .errors import LockedError, StateError
from .lock import Lock
from .model import Trace

#: Raised when the tables or what is in them changes; another format counts as broken.
FORMAT = 3
_WAIT = 60.0  # seconds to wait for another process to commit
_ATTEMPTS = 20  # to read it while another process is undoing a killed one's commit
_SINGLES = 100  # rows that are read one by one
_FOLD = 1.0  # seconds between two commits of what the journal has
#: From so many parts on, those that no record names any more are dropped.
_PARTS = 256
#: A record of a kilobyte has to fit into a page several times, or it takes a page of its own.
_PAGE = 16384
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DENIED = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}
_NO_RECORD = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)

#: Inode of the database and SQLite's count of commits; inode and size of the journal.
_Stand: TypeAlias = tuple[tuple[int, int] | None, tuple[int, int] | None]


@dataclass(slots=True)
class _Sealed:
    """Rows and parts by name, as they are stored."""

    rows: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)

    def update(self, other: _Sealed) -> None:
        self.rows.update(other.rows)
        self.parts.update(other.parts)

    def clear(self) -> None:
        self.rows.clear()
        self.parts.clear()


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
        self._connection: sqlite3.Connection | None = None  # to write
        self._reader: sqlite3.Connection | None = None
        self._journal = _Journal(f"{name}-log")
        self._packer = rows.Packer()
        self._unpacker = rows.Unpacker(codec.decode, self._part)
        self._stored: _Sealed | None = None  # all of the database, once it was read whole
        self._singles: dict[str, bytes | None] = {}  # of it, while it was not
        self._parts: dict[str, bytes] = {}  # as far as they are known
        self._newer: dict[str, bytes] = {}  # rows of the journal, and ours, since then
        self._records: dict[str, dict[str, Any]] = {}  # decoded, with what was changed since
        self._supplied: dict[str, dict[str, Any]] = {}  # see `supply`
        self._seen: _Stand | None = None  # how it stood when it was first read
        self._put: dict[str, bytes] = {}  # rows to be written
        self._dirty: dict[str, dict[str, Any]] = {}  # what was changed of each record
        self._removed: set[str] = set()  # before that
        self._removed_all = False
        self._unfolded = _Sealed()  # what the journal has and the database has not
        self._folded = 0.0  # when
        self._broken = False
        self._failed = False
        self._said = False
        self._commits = 0  # of ours
        self._spoilt = False  # the journal: to be put away, or every run would say so again
        self._ending = False  # no record is to come that might name a part

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
            trace = Trace.from_values(value.get("trace"))
            if trace is not None:
                value["trace"] = trace
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
        for kept in (self._supplied, self._dirty, self._put, self._unfolded.rows, self._newer):
            kept.pop(task_id, None)
        self._removed.add(task_id)

    def remove_all(self) -> None:
        """Forget every task."""
        self._stored = _Sealed()
        for kept in (self._records, self._supplied, self._dirty, self._put, self._newer):
            kept.clear()
        self._unfolded.clear()
        self._removed.clear()
        self._removed_all = True

    def dump(self) -> None:
        """Write what is left to write, close, and give the lock back."""
        try:
            # doit closes after an error too: the same one twice would only hide the report.
            if not self._failed:
                self.fold()
        finally:
            self._close()
            self.lock.release()

    # Ours -------------------------------------------------------------------------------

    def put(self, task_id: str, text: str, parts: Mapping[str, str]) -> None:
        """Replace a step's record by what `rows.Packer` made of the new one, not decoded."""
        self._ending = False
        self._dirty.pop(task_id, None)
        self._records.pop(task_id, None)
        self._supplied.pop(task_id, None)
        self._take_parts(parts)
        self._put[task_id] = self._newer[task_id] = rows.sealed(task_id, text)

    def flush(self) -> None:
        """Make all changes durable; does nothing, and touches no file, if there are none."""
        if not self._changed():
            return
        if self._dirty or self._put or self._spoilt or os.path.exists(self.name):
            self._failed = True
            with self._explained("written"):
                if not (self.lock.held or not self._changes_steps()):
                    self._commit_alone()
                elif not self._append():
                    self._commit()
            self._failed = False
        self._dirty.clear()
        self._removed.clear()
        self._removed_all = self._spoilt = False

    def fold(self) -> None:
        """Make all changes durable, in the database alone: nothing is left to be written."""
        self._ending = True
        self.flush()
        if self.lock.held and (self._unfolded.rows or self._journal.exists()):
            self._failed = True
            with self._explained("written"):
                self._commit()
            self._failed = False
        if self.lock.held:
            self._journal.close()

    def stamp(self) -> str:
        """Return what differs whenever anything recorded does; "" if that cannot be told.

        Nothing is opened by SQLite.  There is none while there is no database, or a journal:
        of a run under way, or left by a killed one.
        """
        if os.path.lexists(self.name + "-journal") or self._journal.exists():
            return ""
        counter = _counter(self.name)
        try:
            found = os.stat(self.name)
        except OSError:
            return ""
        if counter is None or counter[0] != found.st_ino or not counter[1]:
            return ""
        times = f"{found.st_mtime_ns}-{found.st_ctime_ns}"
        return f"{found.st_ino}-{counter[1]}-{found.st_size}-{times}"

    def still(self, stamp: str) -> bool:
        """Tell whether nobody but this object has written since the database had a stamp."""
        if not self._commits:
            return self.stamp() == stamp
        if self._journal.exists() and not self._journal.written:
            return False
        inode, count, *_ = map(int, stamp.split("-"))
        return _counter(self.name) == (inode, count + self._commits)

    def refresh(self) -> bool:
        """Read again what others have committed since we read; tell whether they had.

        What was changed here and is not committed yet is changed in what is read, except of
        those `steps` that others changed: that was decided by what no longer holds.
        """
        self._close_reader()
        if self._seen is None or self._stand() == self._seen:
            return False
        mine = {*self._dirty, *self._removed}
        before = {name: self._known(name) for name in mine}
        self._stored = _Sealed() if self._removed_all else None
        self._seen = None
        self._newer = dict(self._put)
        for kept in (self._singles, self._records, self._supplied):
            kept.clear()
        self._drop_steps({name for name in mine if before[name] != self._row(name)})
        for name in self._removed:
            self._records[name] = {}
        for name, changes in self._dirty.items():
            self._record(name).update(changes)
        return True

    def record(self, task_id: str) -> dict[str, Any]:
        """Return all that is recorded of a task."""
        return self._record(task_id)

    def suppose(self, records: Mapping[str, dict[str, Any]]) -> None:
        """Take records for what is stored, so that it need not be read.

        Args:
            records: by task, as they were when the database had the stamp it has.
        """
        for name, record in records.items():
            self._records.setdefault(name, dict(record))

    def doubt(self, names: Iterable[str]) -> None:
        """Read the records of some tasks after all, which were only supposed."""
        for name in names:
            if name not in self._dirty:
                self._records.pop(name, None)

    @property
    def spoilt(self) -> bool:
        """Whether something of it could not be read."""
        return self._said

    def supply(self, task_id: str, values: dict[str, Any]) -> None:
        """Answer with these values when a task's record is asked; nothing is recorded."""
        self._supplied[task_id] = values

    def tasks(self) -> list[str]:
        """Return the names of all tasks that have a record."""
        found = {*self._whole().rows, *self._newer}.difference(self._records)
        return sorted(found | {name for name, record in self._records.items() if record})

    def _changed(self) -> bool:
        changes = (self._dirty, self._put, self._removed, self._removed_all, self._spoilt)
        return any(changes)

    def _changes_steps(self) -> bool:
        """Tell whether what is to be written needs the lock."""
        if self.steps is None or self._removed_all or self._put or self._spoilt:
            return True
        return any(name in self.steps for name in (*self._dirty, *self._removed))

    def _drop_steps(self, others: Container[str] | None = None) -> None:
        """Undo what was changed of `steps`, of all or of those that others changed."""
        steps = self.steps
        if steps is None:
            return
        mine = [name for name in (*self._dirty, *self._removed) if name in steps]
        for name in [name for name in mine if others is None or name in others]:
            self._forget_changes(name)

    def _forget_changes(self, name: str) -> None:
        self._dirty.pop(name, None)
        self._removed.discard(name)
        self._records.pop(name, None)

    def _take_parts(self, parts: Mapping[str, str]) -> None:
        for name, text in parts.items():
            if name not in self._parts:
                self._parts[name] = self._unfolded.parts[name] = rows.sealed(name, text)
                self._journal.parts[name] = self._parts[name]

    # Reading ----------------------------------------------------------------------------

    def _record(self, task_id: str) -> dict[str, Any]:
        found = self._records.get(task_id)
        if found is None:
            found = self._records[task_id] = self._decoded(task_id)
        return found

    def _decoded(self, task_id: str) -> dict[str, Any]:
        data = self._row(task_id)
        if data is None:
            return {}
        with contextlib.suppress(*_NO_RECORD):
            return self._unpacker.unpack(rows.unsealed(task_id, data))
        self._removed.add(task_id)  # or every later run would say so again
        self._close()  # what spoilt one row may have spoilt the order of all
        self._give_up(f"the record of {task_id} cannot be decoded")
        return {}

    def _part(self, name: str) -> str:
        if name not in self._parts:
            self._whole()  # a row of the journal may name what the database has
        return rows.unsealed(name, self._parts[name])

    def _known(self, name: str) -> bytes | None:
        """Return a row as far as it was read."""
        found = self._newer.get(name)
        if found is None and self._stored is not None:
            return self._stored.rows.get(name)
        return found if found is not None else self._singles.get(name)

    def _row(self, name: str) -> bytes | None:
        """Return a row; by itself, if few have been asked for."""
        if self._stored is None and self._seen is None:
            self._begin()
        found = self._known(name)
        if found is not None or self._stored is not None or name in self._singles:
            return found
        if len(self._singles) < _SINGLES and self._read_single(name):
            return self._singles[name]
        return self._whole().rows.get(name, self._newer.get(name))

    def _begin(self) -> None:
        """Note how things stand, and what the journal has."""
        with self._explained("read"):
            self._seen = self._stand()
            if not self._journal.written:
                found, fault = self._journal.read()
                if fault:
                    self._spoilt = True
                    self._give_up(fault)
                self._newer = {**found.rows, **self._put}
                self._parts.update(_sound(found.parts))

    def _stand(self) -> _Stand:
        return (_counter(self.name), self._journal.stand())

    def _read_single(self, name: str) -> bool:
        """Read one row into `_singles`; False if all are to be read instead.

        So they are if another process has written: those it left are of one moment then.
        """
        try:
            if self._reader is None:
                if not os.path.lexists(self.name):
                    self._singles[name] = None
                    return self._stand() == self._seen
                _check_regular(self.name)
                self._reader = _opened(self.name, "ro")
                self._reader.text_factory = bytes
                _check(self._reader)
                parts = self._reader.execute("select id, data from parts").fetchall()
                self._parts = {**_sound(_by_name(parts)), **self._parts}
            question = "select data from tasks where id = ?"
            found = self._reader.execute(question, [name]).fetchone()
        except (sqlite3.Error, OSError, _BrokenError):
            self._close_reader()  # what it is will be met, and told, again
            return False
        self._singles[name] = found[0] if found else None
        return self._stand() == self._seen

    def _whole(self) -> _Sealed:
        """Return all of the database; read once, so that a command decides by one snapshot."""
        if self._stored is None:
            if self._seen is None:
                self._begin()
            self._close_reader()
            self._singles.clear()
            with self._explained("read"):
                try:
                    self._stored = self._read()
                except _BrokenError as error:
                    self._give_up(error)
                    self._stored = _Sealed()
            self._parts = {**_sound(self._stored.parts), **self._parts}
        return self._stored

    def _read(self) -> _Sealed:
        """Read the database, and the journal anew if another process has folded it meanwhile."""
        for _ in range(_ATTEMPTS):
            before = self._stand()
            found = self._read_database()
            if before == self._seen or self._journal.written:
                break
            # What it had may be gone from there since, and in the database only by now.
            newer, _ = self._journal.read()
            if self._stand()[0] == before[0]:
                self._newer = {**newer.rows, **self._put}
                self._parts.update(_sound(newer.parts))
                break
        return found

    def _read_database(self) -> _Sealed:
        if not os.path.lexists(self.name):
            return _Sealed()
        _check_regular(self.name)
        for _ in range(_ATTEMPTS):
            try:
                return _all(self.name, "ro")
            except sqlite3.OperationalError as error:
                if _primary(error) != sqlite3.SQLITE_READONLY:
                    raise
            with contextlib.suppress(_ChangedError):
                return self._read_rolled_back()
        return _all(self.name, "ro")

    def _read_rolled_back(self) -> _Sealed:
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
            return _all(copy, "rw")

    def _give_up(self, why: object) -> None:
        """Take a database for a broken one: the next write makes it anew of what was read."""
        self._broken = True
        if not self._said:
            line = f"{self.name}: cannot be read ({why}), so everything is checked anew"
            print(line, file=sys.stderr)
        self._said = True

    # Writing ----------------------------------------------------------------------------

    def _append(self) -> bool:
        """Append the steps' rows to the journal; False if there is more to be written.

        It is begun after a first commit: by then what a killed run left is folded, and the
        database is known to be sound, and ours to write.
        """
        if self._connection is None or not self.lock.held or self.steps is None:
            return False
        self._encode_changes(self.steps)
        try:
            self._journal.append(self._put)
        except OSError:
            return False  # the database will tell what is wrong
        self._unfolded.rows.update(self._put)
        self._removed.difference_update(self._put)
        self._put.clear()
        recent = time.monotonic() - self._folded < _FOLD
        return recent and not self._changed()

    def _encode_changes(self, names: Container[str]) -> None:
        """Turn changed records into rows to be written."""
        for name in [name for name in self._dirty if name in names]:
            text = rows.text_of(self._packer, self.codec.encode, self._records[name])
            self._put[name] = self._newer[name] = rows.sealed(name, text)
            del self._dirty[name]
        self._take_parts(self._packer.parts)
        self._packer.parts.clear()

    def _commit_alone(self) -> None:
        """Commit with the lock taken for just that; a run that cannot have it need not."""
        try:
            self.lock.acquire(wait=self.steps is None)
        except LockedError:
            self._drop_steps()
            self._spoilt = False
            if self._changed():
                self._commit()
            return
        try:
            self.refresh()
            if self._changed():
                self._commit()
        finally:
            self._journal.close()
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
            self._unfolded.parts.update(self._parts)
            self._write()

    def _write(self) -> None:
        with _told_apart():
            connection = self._writer()
            if self.lock.held and not self._journal.written:
                self._adopt_journal()
            self._encode_changes(self._dirty.copy())
            before = self._stand()
            with connection:
                connection.execute("begin immediate")
                self._change(connection)
            self._commits += 1
            if self.lock.held:
                self._journal.empty()
                self._unfolded.clear()
                self._folded = time.monotonic()
            else:
                for name in self._put:
                    self._unfolded.rows.pop(name, None)
            self._put.clear()
        self._note(before)

    def _change(self, connection: sqlite3.Connection) -> None:
        """Make all changes, in a transaction."""
        if self._removed_all:
            connection.execute("delete from tasks")
        gone = [(name,) for name in self._removed]
        connection.executemany("delete from tasks where id = ?", gone)
        changed = {**self._unfolded.rows, **self._put}
        for table, new in (("parts", self._unfolded.parts), ("tasks", changed)):
            connection.executemany(
                f"insert or replace into {table} values (?, ?)",
                [(name, new[name].decode()) for name in sorted(new)],
            )
        known = self._ending and self.lock.held and self._stored is not None
        if known and len(self._parts) > _PARTS:
            self._drop_parts(connection)

    def _drop_parts(self, connection: sqlite3.Connection) -> None:
        """Drop the parts that no record names any more."""
        stored = (data for (data,) in connection.execute("select data from tasks"))
        named = rows.parts_named(data.encode() for data in stored)
        known = [name for (name,) in connection.execute("select id from parts")]
        unused = [name for name in known if name not in named]
        connection.executemany("delete from parts where id = ?", [(name,) for name in unused])
        for name in unused:
            self._parts.pop(name, None)

    def _note(self, before: _Stand) -> None:
        """Take what we have committed ourselves for seen, if nobody else's is among it."""
        if self._seen is None or before[0] != self._seen[0] or before[0] is None:
            return
        after = self._stand()
        if after[0] == (before[0][0], before[0][1] + 1):
            self._seen = after

    def _adopt_journal(self) -> None:
        """Take over what a killed run left in its journal; ours goes on from there."""
        found, _ = self._journal.read()
        gone = self._removed | set(self._put)
        left = {name: data for name, data in found.rows.items() if name not in gone and data}
        if not self._removed_all:
            self._unfolded.rows = {**left, **self._unfolded.rows}
            self._unfolded.parts = {**_sound(found.parts), **self._unfolded.parts}

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None:
            os.makedirs(os.path.dirname(self.name) or ".", exist_ok=True)
            if self._broken and self._still_broken():
                # What could be read of it is written anew.
                for name in filter(self._record, self.tasks()):
                    self._dirty.setdefault(name, {})
                self._discard()
                self._unfolded.parts.update(self._parts)
            _check_regular(self.name)
            self._broken = False
            self._close_reader()
            self._connection = _opened(self.name, "rwc")
            _create(self._connection)
        return self._connection

    def _still_broken(self) -> bool:
        """Look again: another process may have replaced it meanwhile, or be creating it."""
        try:
            _check_regular(self.name)
            if os.path.getsize(self.name):
                _all(self.name, "rw", thorough=True)
        except FileNotFoundError:
            return False
        except _BrokenError:
            return True
        return False

    def _discard(self) -> None:
        # The journal first: left alone, it would be taken for the next database's.
        for path in (self.name + "-journal", self.name):
            _put_away(path)

    def _close(self) -> None:
        self._close_reader()
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

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
        if _primary(error) == sqlite3.SQLITE_CANTOPEN:
            error = _refused_file() or error
        if isinstance(error, sqlite3.Error) and _primary(error) in _HELD:
            hint = "another process holds it: wait until that has ended, or end it"
        elif isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            pass
        elif isinstance(error, OSError) or _primary(error) in _DENIED:
            able = "writable" if what == "written" else "readable"
            hint = f"the folder {folder} and the files in it must be {able}"
        why = error.strerror if isinstance(error, OSError) else str(error)
        return StateError(self.name, f"cannot be {what}: {str(why or error).lower()}", hint)


class _Journal:
    """The journal beside the database, as one process sees it.

    Attributes:
        parts: to be appended with the next rows.
        written: whether this process has begun to write it.
    """

    def __init__(self, path: str):
        self.path = path
        self.parts: dict[str, bytes] = {}
        self.written = False
        self._handle: int | None = None
        self._size = 0

    def exists(self) -> bool:
        """Tell whether there is one, or something in its place."""
        return os.path.lexists(self.path)

    def stand(self) -> tuple[int, int] | None:
        """Return its inode and size; None if there is none."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return None
        return (found.st_ino, found.st_size)

    def read(self) -> tuple[_Sealed, str]:
        """Return what it has, and what is wrong with it, if anything.

        Raises:
            OSError: it cannot be read.
        """
        try:
            mode = os.lstat(self.path).st_mode
            if not stat.S_ISREG(mode):
                return _Sealed(), f"{os.path.basename(self.path)} is {_kind(mode)}"
            data = disk.read(self.path)
        except FileNotFoundError:
            return _Sealed(), ""
        records, parts, fault = rows.read_lines(data)
        return _Sealed(records, parts), fault

    def append(self, records: Mapping[str, bytes]) -> None:
        """Append rows, and the parts they name.  Raises OSError: nothing of them is there."""
        data = rows.lines(records, self.parts)
        if self._handle is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._handle = os.open(self.path, flags | getattr(os, "O_BINARY", 0), 0o666)
            self._size = 0
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError:
            os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)
        self.parts.clear()

    def empty(self) -> None:
        """Drop what has been folded."""
        self.written = True
        self.parts.clear()
        if self._handle is not None and self._size:
            os.ftruncate(self._handle, 0)
            self._size = 0
        elif self._handle is None and self.exists():
            _put_away(self.path)

    def close(self) -> None:
        """Remove it, if it is ours."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            _put_away(self.path)
        self.written = False


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
            raise _BrokenError(f"{os.path.basename(path)} is {_kind(mode)}")


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "no regular file"


def _put_away(path: str) -> None:
    """Remove a file; a folder in its place may be somebody's, and is renamed."""
    if os.path.isdir(path) and not os.path.islink(path):
        os.rename(path, f"{path}.{os.getpid()}.unreadable")
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _primary(error: Exception) -> int:
    """Return SQLite's result code without its extension; the module's own errors have none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _refused_file() -> OSError | None:
    """Return why no file can be opened at all, which SQLite does not tell."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error
    return None


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


def _all(path: str, mode: str, thorough: bool = False) -> _Sealed:
    """Return all rows and parts.

    Args:
        path: the database.
        mode: how SQLite opens it.
        thorough: see whether the whole file is sound, too.
    """
    with _told_apart(), contextlib.closing(_opened(path, mode)) as connection:
        connection.text_factory = bytes
        connection.execute("begin")
        _check(connection)
        if thorough:
            fault = connection.execute("pragma integrity_check(1)").fetchone()[0]
            if fault != b"ok":
                raise _BrokenError(_text(fault))
        tables = [
            _by_name(connection.execute(f"select id, data from {table}").fetchall())
            for table in ("tasks", "parts")
        ]
    for table in tables if thorough else ():
        for name, data in table.items():
            try:
                rows.unsealed(name, data)
            except (ValueError, TypeError):
                raise _BrokenError(f"the record of {name} cannot be decoded") from None
    return _Sealed(*tables)


def _by_name(found: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    return {_text(name): data for name, data in found}


def _sound(parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the parts that hold; who names one of the others is a miss, and stores it anew."""
    found = {}
    for name, data in parts.items():
        with contextlib.suppress(ValueError, TypeError):
            rows.unsealed(name, data)
            found[name] = data
    return found


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma user_version").fetchone()[0])


def _check(connection: sqlite3.Connection) -> None:
    found = _version(connection)
    if found != FORMAT:
        raise _BrokenError(f"format {found}, this version reads {FORMAT}")


def _create(connection: sqlite3.Connection) -> None:
    if _version(connection) == 0:
        connection.execute(f"pragma page_size = {_PAGE}")
        # Tables and format in one: nobody may see the one without the other.
        with connection:
            connection.execute("begin immediate")
            for table in ("tasks", "parts"):
                connection.execute(
                    f"create table if not exists {table}"
                    " (id text primary key, data text) without rowid"
                )
            connection.execute(f"pragma user_version = {FORMAT}")
    _check(connection)


def recorded_tasks(dep_manager: Any) -> list[str] | None:
    """Return the tasks recorded in doit's database; None if its backend cannot list them."""
    tasks = getattr(dep_manager.backend, "tasks", None)
    return tasks() if tasks is not None else None


def fold(dep_manager: Any) -> str:
    """Make all that was recorded durable and return the database's `StateDB.stamp`.

    Nothing is written after that unless something is recorded; "" if the backend is not ours.
    """
    backend = dep_manager.backend
    if not isinstance(backend, StateDB):
        return ""
    backend.fold()
    return backend.stamp()


def packs(dep_manager: Any) -> bool:
    """Tell whether the backend takes records as `rows.Packer` makes them."""
    return isinstance(dep_manager.backend, StateDB)


def reserve(dep_manager: Any, steps: Container[str]) -> None:
    """Leave the rows of a run's steps to the lock's holder, if the backend can: `StateDB.steps`."""
    if hasattr(dep_manager.backend, "steps"):
        dep_manager.backend.steps = steps


def refresh(dep_manager: Any) -> bool:
    """Read again what others have recorded meanwhile; tell whether they had, if it can be told."""
    refresh_backend = getattr(dep_manager.backend, "refresh", None)
    return refresh_backend is not None and bool(refresh_backend())


def flush(dep_manager: Any) -> None:
    """Make what was recorded durable now, if the backend can."""
    flush_backend = getattr(dep_manager.backend, "flush", None)
    if flush_backend is not None:
        flush_backend()
