"""The database, as SQLite keeps it: opened, checked, read, and changed in one commit.

It has a row a task and a row a part, sealed as `rows` does it.  Told apart is what is wrong
inside the file, a BrokenError, from what is around it: held by another process, or denied.
The only module that speaks SQLite, and to be imported where the database is really opened.
Unaware of the journal, of the lock, and of what a record means.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import disk, rows
from .errors import StateError
from .rows import Sealed

#: Raised when the tables or what is in them changes; another format counts as broken.
FORMAT = 4
_WAIT = 60.0  # seconds to wait for another process to commit
_ATTEMPTS = 20  # to read it while another process is undoing a killed one's commit
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


class BrokenError(Exception):
    """The file holds no database of ours."""


class MovedError(sqlite3.OperationalError):
    """Somebody has removed or replaced the file since it was opened."""

    sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED


class _ChangedError(Exception):
    """Another process was writing meanwhile, so it must be read again."""


#: All that opening, reading or writing may raise.
ERRORS = (sqlite3.Error, OSError, BrokenError)


class Database:
    """The database, as one process sees it: a connection to read rows, and one to write.

    Every method that opens it, reads or writes may raise one of `ERRORS`.

    Args:
        path: the file.
    """

    def __init__(self, path: str):
        self.path = path
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None

    @property
    def reading(self) -> bool:
        """Whether it is open to read rows one by one."""
        return self._reader is not None

    @property
    def writing(self) -> bool:
        """Whether it is open to be written: known to be sound then, and ours to write."""
        return self._writer is not None

    def open_to_read(self) -> dict[str, bytes]:
        """Open it to read rows one by one, and return its parts."""
        _check_regular(self.path)
        self._reader = _opened(self.path, "ro")
        self._reader.text_factory = bytes
        _check(self._reader)
        return _by_name(self._reader.execute("select id, data from parts").fetchall())

    def row(self, name: str) -> bytes | None:
        """Return one row, None if there is none; it is open to read."""
        assert self._reader is not None
        found = self._reader.execute("select data from tasks where id = ?", [name]).fetchone()
        return found[0] if found else None

    def read(self) -> Sealed:
        """Return all of it; nothing if there is none."""
        if not os.path.lexists(self.path):
            return Sealed()
        _check_regular(self.path)
        for _ in range(_ATTEMPTS):
            try:
                return _all(self.path, "ro")
            except sqlite3.OperationalError as error:
                if _primary(error) != sqlite3.SQLITE_READONLY:
                    raise
            with contextlib.suppress(_ChangedError):
                return self._read_rolled_back()
        return _all(self.path, "ro")

    def _read_rolled_back(self) -> Sealed:
        """Read a copy of what a process left that was killed inside a commit, that undone.

        Whoever writes next undoes it in place; reading changes nothing.
        """
        journal = self.path + "-journal"
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, "state.db")
            before = disk.stat(journal)
            try:
                shutil.copyfile(journal, copy + "-journal")
                shutil.copyfile(self.path, copy)
            except FileNotFoundError:
                raise _ChangedError from None
            if disk.stat(journal) != before:
                raise _ChangedError
            return _all(copy, "rw")

    def still_broken(self) -> bool:
        """Look again: another process may have replaced it meanwhile, or be creating it."""
        try:
            _check_regular(self.path)
            if os.path.getsize(self.path):
                _all(self.path, "rw", thorough=True)
        except FileNotFoundError:
            return False
        except BrokenError:
            return True
        return False

    def discard(self) -> None:
        """Put it away, so that it is made anew."""
        # The journal first: left alone, it would be taken for the next database's.
        for path in (self.path + "-journal", self.path):
            disk.put_away(path)

    def open_to_write(self) -> None:
        """Open it to be written; made if there is none."""
        with _told_apart_writing():
            _check_regular(self.path)
            self.close_reader()
            self._writer = _opened(self.path, "rwc")
            _create(self._writer)

    def commit(self, new: Sealed, gone: Iterable[str], *, all_gone: bool, tidy: bool) -> list[str]:
        """Make changes in one transaction; it is open to be written.

        Args:
            new: rows and parts to add, or put in the place of others.
            gone: names of rows to drop before.
            all_gone: drop all rows before.
            tidy: drop the parts that no row names any more.

        Returns:
            The names of the parts that were dropped.

        Raises:
            MovedError: it is to be opened again.
        """
        assert self._writer is not None
        with _told_apart_writing(), self._writer as connection:
            connection.execute("begin immediate")
            if all_gone:
                connection.execute("delete from tasks")
            connection.executemany("delete from tasks where id = ?", [(name,) for name in gone])
            for table, added in (("parts", new.parts), ("tasks", new.rows)):
                connection.executemany(
                    f"insert or replace into {table} values (?, ?)",
                    [(name, added[name].decode()) for name in sorted(added)],
                )
            return _drop_parts(connection) if tidy else []

    def close(self) -> None:
        """Close what is open."""
        self.close_reader()
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def close_reader(self) -> None:
        """Close what is open to read."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def _drop_parts(connection: sqlite3.Connection) -> list[str]:
    """Drop the parts that no record names any more, and return their names."""
    stored = (data for (data,) in connection.execute("select data from tasks"))
    named = rows.parts_named(data.encode() for data in stored)
    known = [name for (name,) in connection.execute("select id from parts")]
    unused = [name for name in known if name not in named]
    connection.executemany("delete from parts where id = ?", [(name,) for name in unused])
    return unused


def _opened(path: str, mode: str) -> sqlite3.Connection:
    url = f"{Path(path).absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(url, uri=True, timeout=_WAIT, isolation_level=None)
    # Safe against a killed process; only a power cut could tear it.
    connection.execute("pragma synchronous = off")
    return connection


def _all(path: str, mode: str, thorough: bool = False) -> Sealed:
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
                raise BrokenError(_text(fault))
        tables = [
            _by_name(connection.execute(f"select id, data from {table}").fetchall())
            for table in ("tasks", "parts")
        ]
    for table in tables if thorough else ():
        for name, data in table.items():
            try:
                rows.unsealed(name, data)
            except (ValueError, TypeError):
                raise BrokenError(f"the record of {name} cannot be decoded") from None
    return Sealed(*tables)


def _by_name(found: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    return {_text(name): data for name, data in found}


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma user_version").fetchone()[0])


def _check(connection: sqlite3.Connection) -> None:
    found = _version(connection)
    if found != FORMAT:
        raise BrokenError(f"format {found}, this version reads {FORMAT}")


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


def _check_regular(name: str) -> None:
    """Raise BrokenError if SQLite would find no file, or wait for a pipe.

    The database may be a link to a file, its journal is what SQLite made.
    """
    for path, look in ((name, os.stat), (name + "-journal", os.lstat)):
        try:
            mode = look(path).st_mode
        except FileNotFoundError:
            if os.path.lexists(path):
                raise BrokenError("it is a link to nowhere") from None
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise BrokenError("it is a link to itself") from None
            raise
        if not stat.S_ISREG(mode):
            raise BrokenError(f"{os.path.basename(path)} is {disk.kind(mode)}")


# Errors ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    """Raise BrokenError for what is wrong inside the file; let through what is around it."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _primary(error) in _BROKEN:
            raise BrokenError(str(error)) from None
        raise


@contextlib.contextmanager
def _told_apart_writing() -> Iterator[None]:
    try:
        with _told_apart():
            yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_DBMOVED:
            raise MovedError(*error.args) from None
        raise


@contextlib.contextmanager
def explained(path: str, what: str) -> Iterator[None]:
    """Turn what keeps a database from being used into a StateError.

    Args:
        path: the database.
        what: it cannot be: "read" or "written".
    """
    try:
        yield
    except ERRORS as error:
        raise _problem(path, what, error) from None


def _problem(path: str, what: str, error: Exception) -> StateError:
    folder = os.path.dirname(path) or "."
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
    return StateError(path, f"cannot be {what}: {str(why or error).lower()}", hint)


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
