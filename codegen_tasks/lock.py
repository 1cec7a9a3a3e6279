"""The lock of a state folder: at most one process builds with it at a time.

It is the kernel's lock on the file `lock`, which tells who holds it and since when.  The
kernel frees it when its holder ends, however that ends; the file is removed by a holder
that ended in order, so one that is there and free was left by a killed run.  Where the file
system cannot lock, the file `lock.pid` stands in, and whether its writer lives is asked of
the processes.  Readers never look at either.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from . import disk
from .errors import LockedError, StateError, cause

_PAUSE = 0.05  # seconds between two looks at a lock that is held
#: So often a lock is tried before it counts as held: who only looks at it holds it briefly.
_TRIES = 4
_TICK = 20_000_000  # nanoseconds in which two changes may bear one time
_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock: pid, since when (seconds since the epoch), on which machine."""

    pid: int
    since: float
    host: str = ""
    born: float = 0.0  # when the process began, where nothing else tells whether it lives

    def __str__(self) -> str:
        where = f" on {self.host}" if self.host not in ("", socket.gethostname()) else ""
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"pid {self.pid}{where}, building since {since}"


class Lock:
    """The lock of one state folder, as one process sees it.

    Args:
        folder: the state folder; made when the lock is taken.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self.path = os.path.join(folder, "lock")
        self._handle: int | None = None
        self._by_pid = False  # held by the file that stands in
        self._known_at_fork = False
        self._stamp: int | None = None
        self.left_behind = False

    @property
    def held(self) -> bool:
        """Whether this process holds it."""
        return self._handle is not None or self._by_pid

    @property
    def is_abandoned(self) -> bool:
        """Whether a killed run has left its file, and nobody builds."""
        return not self.held and os.path.lexists(self.path) and self.holder() is None

    def look(self) -> None:
        """Note how things are now; `acquire` tells whether somebody has held it since."""
        now, self._stamp = time.time_ns(), self._changed()
        if self._stamp is not None and abs(now - self._stamp) < _TICK:
            self._stamp = -1  # what comes next may bear the same time

    def _changed(self) -> int | None:
        """Return when a file was last made or removed beside the lock, as each holder does."""
        try:
            return os.stat(self.folder).st_mtime_ns
        except OSError:
            return None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; return whether somebody else may have held it since `look`.

        Afterwards `left_behind` tells whether its last holder was killed.

        Raises:
            LockedError: another process holds it, and we are not to wait.
            StateError: its file cannot be written.
        """
        tries, taken = 0, self._changed() != self._stamp
        try:
            while not (self.held or self._try()):
                tries += 1
                if tries == _TRIES:
                    self._refuse_or_say(wait)
                time.sleep(_PAUSE if tries > _TRIES else _PAUSE / 10)
        except OSError as error:
            raise self._problem(error) from None
        return taken or tries > 0

    def _problem(self, error: OSError) -> StateError:
        folder = disk.relative(self.folder)
        blocking = disk.blocked_by(self.folder)
        if blocking:
            hint = f"move it away: what is remembered between runs is kept in {folder}"
            return StateError(disk.relative(blocking), disk.A_FILE_STANDS_THERE, hint)
        what = f"cannot be written: {cause(error)}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "" if full else f"the folder {folder} and the files in it must be writable"
        return StateError(disk.relative(self.path), what, hint)

    def wait(self, wait: bool = True) -> bool:
        """Wait, without taking the lock, until nobody holds it; return whether somebody did.

        Raises:
            LockedError: another process holds it, and we are not to wait.
        """
        if self.holder() is None:
            return False
        self._refuse_or_say(wait)
        while self.holder() is not None:
            time.sleep(_PAUSE)
        return True

    def _refuse_or_say(self, wait: bool) -> None:
        who = self.holder() or _read(self.path) or "another process"
        where = disk.relative(self.folder)
        if not wait:
            raise LockedError(where, str(who), "without --no-wait this run waits for it")
        _say(f"{where}: waiting for {who}")

    def holder(self) -> Holder | None:
        """Return who else holds the lock; None if nobody does.  Writes nothing."""
        if self.held:
            return None
        stand_in = _read(_stand_in(self.path))
        if stand_in is not None and _lives(stand_in):
            return stand_in
        found = _read(self.path)
        if found is None or (found.host == socket.gethostname() and not _exists(found.pid)):
            return None
        return found if _is_locked(self.path) else None

    def swept(self) -> None:
        """Note that what a killed holder left is gone."""
        self.left_behind = False

    def release(self) -> None:
        """Give the lock back; its file goes, unless it still tells of a killed run."""
        path = _stand_in(self.path) if self._by_pid else self.path
        if self.held and not self.left_behind:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._close()

    def _close(self) -> None:
        handle, self._handle, self._by_pid = self._handle, None, False
        if handle is not None:
            os.close(handle)

    # The kernel's -----------------------------------------------------------------------

    def _try(self) -> bool:
        os.makedirs(self.folder, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        handle = os.open(self.path, flags, 0o666)
        try:
            if not _lock(handle) or not _is_same(handle, self.path):
                os.close(handle)
                return False
            if not _is_locked(self.path):
                raise OSError(errno.ENOLCK, "it locks out nobody")
        except OSError as error:
            os.close(handle)
            return self._try_stand_in(error)
        self._handle = handle
        self.left_behind = self.left_behind or os.fstat(handle).st_size > 0
        os.ftruncate(handle, 0)
        os.write(handle, _said(0.0))  # the kernel knows whether we live
        self._leave_at_fork()
        return True

    def _leave_at_fork(self) -> None:
        """Let go of the lock in whatever is forked: it would outlive us there."""
        if hasattr(os, "register_at_fork") and not self._known_at_fork:
            os.register_at_fork(after_in_child=self._close)
            self._known_at_fork = True

    # What stands in ---------------------------------------------------------------------

    def _try_stand_in(self, error: OSError) -> bool:
        path = _stand_in(self.path)
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        found = _read(path)
        if found is not None and _lives(found):
            return False
        if os.path.exists(path):
            self._discard(path, found)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(_said(_born(os.getpid())))
        self._by_pid = True
        self._leave_at_fork()
        reason = cause(error)
        what = f"files cannot be locked here ({reason}), so {os.path.basename(path)} stands in"
        _say(f"{disk.relative(self.folder)}: {what}")
        return True

    def _discard(self, path: str, found: Holder | None) -> None:
        """Remove a dead process's file, unless it has become another's meanwhile."""
        if found is None and time.time() - os.path.getmtime(path) < 1:
            return  # it is being written
        aside = f"{path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            os.rename(path, aside)
            if _read(aside) != found:
                os.rename(aside, path)
                return
            os.unlink(aside)
        self.left_behind = True


def of(dep_manager: Any, folder: str) -> Lock:
    """Return the lock of a state folder: one object for all who write with one database.

    Args:
        dep_manager: doit's; its backend's own lock, if that is of the same folder.
        folder: absolute path.
    """
    own = getattr(getattr(dep_manager, "backend", None), "lock", None)
    if isinstance(own, Lock) and os.path.realpath(own.folder) == os.path.realpath(folder):
        return own
    known: dict[str, Lock] = vars(dep_manager).setdefault("codegen_locks", {})
    return known.setdefault(folder, Lock(folder))


def _say(line: str) -> None:
    # doit catches what actions print, `clean`'s too; this is for whoever waits.
    print(line, file=sys.__stderr__ or sys.stderr, flush=True)


def _stand_in(path: str) -> str:
    return f"{path}.pid"


def _said(born: float) -> bytes:
    said = {"pid": os.getpid(), "since": time.time(), "host": socket.gethostname()}
    return json.dumps({**said, "born": born}).encode()


def _read(path: str) -> Holder | None:
    try:
        said = json.loads(disk.read(path))
        return Holder(int(said["pid"]), float(said["since"]), str(said["host"]), said["born"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _is_same(handle: int, path: str) -> bool:
    """Tell whether a path still leads to an open file: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _is_locked(path: str) -> bool:
    """Tell whether somebody holds the kernel's lock, by trying it."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(handle)
    except OSError:
        return False
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Take the kernel's lock on an open file; False if another has it.  Raises OSError."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, 1 << 20, os.SEEK_SET)  # past what the file says: that is read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def _exists(pid: int) -> bool:
    if sys.platform == "linux":
        return os.path.exists(f"/proc/{pid}")
    import psutil

    return bool(psutil.pid_exists(pid))


def _born(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def _lives(holder: Holder) -> bool:
    """Tell whether a process that left its pid still runs; of other machines, suppose so."""
    if holder.host != socket.gethostname():
        return True
    return _exists(holder.pid) and abs(_born(holder.pid) - holder.born) < 1
