"""The journal beside the database: what a run has come to since its last commit.

A line holds a record or a part, sealed as `rows` does it; what names a part comes after it.
Only the holder of the folder's lock writes, so what stands there is always the newest.
Unaware of the database, and of when the journal is folded into it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping

from . import disk, rows
from .rows import Sealed


class Journal:
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

    def read(self) -> tuple[Sealed, str]:
        """Return what it has, and what is wrong with it, if anything.

        Raises:
            OSError: it cannot be read.
        """
        try:
            mode = os.lstat(self.path).st_mode
            if not stat.S_ISREG(mode):
                return Sealed(), f"{os.path.basename(self.path)} is {disk.kind(mode)}"
            data = disk.read(self.path)
        except FileNotFoundError:
            return Sealed(), ""
        records, parts, fault = _read_lines(data)
        return Sealed(records, parts), fault

    def append(self, records: Mapping[str, bytes]) -> None:
        """Append rows, and the parts they name.  Raises OSError: nothing of them is there."""
        data = _lines(records, self.parts)
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
            disk.put_away(self.path)

    def close(self) -> None:
        """Remove it, if it is ours."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            disk.put_away(self.path)
        self.written = False


def _lines(records: Mapping[str, bytes], parts: Mapping[str, bytes]) -> bytes:
    """Return lines of the journal; what names a part comes after it."""
    found = [b"=%b\t%b\n" % (name.encode(), data) for name, data in parts.items()]
    found += [b"%b\t%b\n" % (json.dumps(name).encode(), data) for name, data in records.items()]
    return b"".join(found)


def _read_lines(data: bytes) -> tuple[dict[str, bytes], dict[str, bytes], str]:
    """Return the records and parts of a journal, sealed, and what is wrong with it, if anything.

    A record that does not hold is empty, and so a miss; a line without an end was being
    written when its writer was killed, and counts for nothing.
    """
    records: dict[str, bytes] = {}
    parts: dict[str, bytes] = {}
    fault = ""
    *whole, _ = data.split(b"\n")
    for line in whole:
        said, _, stored = line.partition(b"\t")
        try:
            is_part = said.startswith(b"=")
            name = said[1:].decode() if is_part else "" + json.loads(said)
        except (ValueError, TypeError, RecursionError):
            fault = "a line of its journal is broken"
            continue
        try:
            rows.unsealed(name, stored)
        except (ValueError, TypeError):
            fault, stored = "a line of its journal is broken", b""
        (parts if is_part else records)[name] = stored
    return records, parts, fault
