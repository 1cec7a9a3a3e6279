"""What is remembered between runs: a backend for doit's own database, durable per step.

doit writes its other backends when a run ends, so a killed run loses all of it.  This one
has a database with one row a task (`sqlite`), and a journal beside it (`journal`): a run
appends what a step has come to when it has finished, and folds the journal into the database
every second and at its end.  Only the holder of the folder's lock writes to the journal, and
only steps, so what stands there is always the newest; what a killed run left of it is read
over the database's rows, and folded by the next holder before its own changes.

The database is created at the first write, so that commands which only look leave no trace.
Rows are read one by one until many were asked for, then whole.  `rows` tells what is in them.
SQLite is imported when the database is first read or written: a run that has nothing to do
knows by the `stamp` what it holds.

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
import os
import sys
import time
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from . import disk, rows
from .errors import LockedError
from .journal import Journal
from .lock import Lock
from .model import Trace
from .rows import Sealed

if TYPE_CHECKING:
    from .sqlite import Database

_ATTEMPTS = 20  # to read it while another process is folding its journal
_SINGLES = 100  # rows that are read one by one
_FOLD = 1.0  # seconds between two commits of what the journal has
#: From so many parts on, those that no record names any more are dropped.
_PARTS = 256
_NO_RECORD = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)

#: Inode of the database and SQLite's count of commits; inode and size of the journal.
_Stand: TypeAlias = tuple[tuple[int, int] | None, tuple[int, int] | None]


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
        self._opened: Database | None = None
        self._journal = Journal(f"{name}-log")
        self._packer = rows.Packer()
        self._unpacker = rows.Unpacker(codec.decode, self._part)
        self._stored: Sealed | None = None  # all of the database, once it was read whole
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
        self._unfolded = Sealed()  # what the journal has and the database has not
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
        self._stored = Sealed()
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

    @property
    def has_written(self) -> bool:
        """Whether the file has been changed by this object."""
        return self._commits > 0

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
        self._stored = Sealed() if self._removed_all else None
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
                self._parts.update(rows.sound(found.parts))

    def _stand(self) -> _Stand:
        return (_counter(self.name), self._journal.stand())

    def _read_single(self, name: str) -> bool:
        """Read one row into `_singles`; False if all are to be read instead.

        So they are if another process has written: those it left are of one moment then.
        """
        from . import sqlite

        database = self._database()
        try:
            if not database.reading:
                if not os.path.lexists(self.name):
                    self._singles[name] = None
                    return self._stand() == self._seen
                self._parts = {**rows.sound(database.open_to_read()), **self._parts}
            self._singles[name] = database.row(name)
        except sqlite.ERRORS:
            self._close_reader()  # what it is will be met, and told, again
            return False
        return self._stand() == self._seen

    def _whole(self) -> Sealed:
        """Return all of the database; read once, so that a command decides by one snapshot."""
        if self._stored is None:
            if self._seen is None:
                self._begin()
            self._close_reader()
            self._singles.clear()
            self._stored = self._read_or_nothing()
            self._parts = {**rows.sound(self._stored.parts), **self._parts}
        return self._stored

    def _read_or_nothing(self) -> Sealed:
        from . import sqlite

        with self._explained("read"):
            try:
                return self._read()
            except sqlite.BrokenError as error:
                self._give_up(error)
                return Sealed()

    def _read(self) -> Sealed:
        """Read the database, and the journal anew if another process has folded it meanwhile."""
        for _ in range(_ATTEMPTS):
            before = self._stand()
            found = self._database().read()
            if before == self._seen or self._journal.written:
                break
            # What it had may be gone from there since, and in the database only by now.
            newer, _ = self._journal.read()
            if self._stand()[0] == before[0]:
                self._newer = {**newer.rows, **self._put}
                self._parts.update(rows.sound(newer.parts))
                break
        return found

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
        if not (self._database().writing and self.lock.held) or self.steps is None:
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
        from . import sqlite

        try:
            self._write()
        except sqlite.BrokenError as error:
            self._close()
            self._give_up(error)
            self._write()
        except sqlite.MovedError:
            self._close()
            self._unfolded.parts.update(self._parts)
            self._write()

    def _write(self) -> None:
        if not self._database().writing:
            self._open_to_write()
        if self.lock.held and not self._journal.written:
            self._adopt_journal()
        self._encode_changes(self._dirty.copy())
        before = self._stand()
        self._change()
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

    def _change(self) -> None:
        """Commit all changes to the database."""
        known = self._ending and self.lock.held and self._stored is not None
        dropped = self._database().commit(
            Sealed({**self._unfolded.rows, **self._put}, self._unfolded.parts),
            self._removed,
            all_gone=self._removed_all,
            tidy=known and len(self._parts) > _PARTS,
        )
        for name in dropped:
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
            self._unfolded.parts = {**rows.sound(found.parts), **self._unfolded.parts}

    def _open_to_write(self) -> None:
        os.makedirs(os.path.dirname(self.name) or ".", exist_ok=True)
        database = self._database()
        if self._broken and database.still_broken():
            # What could be read of it is written anew.
            for name in filter(self._record, self.tasks()):
                self._dirty.setdefault(name, {})
            database.discard()
            self._unfolded.parts.update(self._parts)
        self._broken = False
        database.open_to_write()

    def _database(self) -> Database:
        if self._opened is None:
            from .sqlite import Database

            self._opened = Database(self.name)
        return self._opened

    def _explained(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Turn what keeps the database from being used into a StateError."""
        from .sqlite import explained

        return explained(self.name, what)

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _close_reader(self) -> None:
        if self._opened is not None:
            self._opened.close_reader()


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


def recorded_tasks(dep_manager: Any) -> list[str] | None:
    """Return the tasks recorded in doit's database; None if its backend cannot list them."""
    tasks = getattr(dep_manager.backend, "tasks", None)
    return tasks() if tasks is not None else None


def trace(dep_manager: Any, task: str) -> Trace | None:
    """Return the trace that is recorded of a step; None if there is none."""
    return Trace.from_values((dep_manager.get_values(task) or {}).get("trace"))


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
