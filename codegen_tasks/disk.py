"""Every read and write of targets and state: whole or not at all, and only if bytes change.

Unaware of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import stat as modes
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from . import digest
from .errors import StepError, cause
from .model import UNSETTLED, Stat

#: Bytes that a file's name may have on any file system in use.
_NAME_MAX = 255
#: The name of a file while it is written, see `_replace`.
_TEMPORARY = re.compile(r"\.codegen-[0-9a-f]{16}")
A_FILE_STANDS_THERE = "a file stands where a folder should be"


def stat(path: str) -> Stat | None:
    """Return a file's signature; None if there is no regular file (links are followed)."""
    try:
        result = os.stat(path)
    except (OSError, ValueError):
        return None
    return signed(result) if modes.S_ISREG(result.st_mode) else None


def signed(status: os.stat_result) -> Stat:
    """Return the signature in what the system tells of a file or folder."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


#: Longer than a tick of any clock that stamps files, in nanoseconds; and where files are
#: stamped with whole seconds only, as on FAT.
_TICK = 20_000_000
_COARSE_TICK = 2_000_000_000


def signature(path: str) -> Stat | None:
    """Return a file's signature as it is recorded; None if there is no regular file.

    A file written within the clock's last tick could be written again without a change of
    its signature.  Its signature is then no file's, so that it is read again.
    """
    found = stat(path)
    return recorded(found) if found is not None else None


def recorded(found: Stat) -> Stat:
    """Return what is recorded of a signature that a file has just had, see `signature`."""
    if time.time_ns() - found[2] > tick(found):
        return found
    if found[1] != found[2]:
        return found  # as `write` leaves files: whoever writes one makes the times equal
    return unsettled(found)


def unsettled(found: Stat) -> Stat:
    """Return a signature that no file has, in place of one by which a change could be missed."""
    size, _, changed, inode = found
    return (size, UNSETTLED, changed, inode)


def tick(found: Stat) -> int:
    """Return the nanoseconds within which a file may change twice under one signature."""
    return _COARSE_TICK if found[2] % 1_000_000_000 == 0 else _TICK


def settle(stats: Iterable[Stat]) -> None:
    """Wait until files with these unsettled signatures can be told from later versions."""
    until = max((found[2] + tick(found) for found in stats), default=0)
    time.sleep(min(max(0, until - time.time_ns()), _COARSE_TICK) / 1e9)


#: Of a file that grows while it is read, so much is read at a time, in bytes.
_MORE = 1 << 16
#: Whether a file can be stamped while it is open, which spares looking for it by its name.
_STAMPS_OPEN = os.utime in os.supports_fd


def read(path: str) -> bytes:
    """Return a regular file's bytes; a pipe is never waited for.  Raises OSError."""
    return read_signed(path)[0]


def read_signed(path: str) -> tuple[bytes, Stat]:
    """Return a regular file's bytes, and the signature it had before.  Raises OSError."""
    # Without a file object, which costs more than to read a small file.
    handle = _opened_at_once(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        status = _regular(handle, path)
        data = os.read(handle, status.st_size + 1)
        while more := os.read(handle, _MORE):
            data += more
        return data, signed(status)
    finally:
        os.close(handle)


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a pipe is never waited for.  Raises OSError."""
    with open(path, "rb", opener=_opened_at_once) as file:
        _regular(file.fileno(), path)
        yield file


def _regular(handle: int, path: str) -> os.stat_result:
    """Return the status of an open file.  Raises OSError if it is no regular one."""
    status = os.fstat(handle)
    if modes.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not modes.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return status


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def append(path: str, data: bytes) -> int:
    """Append to a regular file in one write; return its size in bytes.  Raises OSError."""
    with open(path, "ab", buffering=0, opener=_opened_for_appending) as file:
        _regular(file.fileno(), path)
        file.write(data)
        return file.tell()


def _opened_for_appending(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def write(
    path: str,
    data: bytes,
    unchanged: bool | None = None,
    new: bool = False,
    mode: int | None = None,
    like: str = "",
) -> bool:
    """Make `path` hold `data`; False if it already did and nothing was written.

    The file is replaced at once: another process sees the old bytes or the new ones.

    Args:
        path: the file.
        data: its bytes.
        unchanged: whether it holds `data` already, for who knows; None: read it and see.
        new: no file is there, for who knows.
        mode: its permissions; None: those of the file that it replaces.
        like: a file that holds `data`, of which the file system may make a copy that takes
            no room until one of the two is changed.

    Raises:
        StepError: it cannot be written; the old file, if any, is untouched.
    """
    if _holds(path, data) if unchanged is None else unchanged:
        return False
    folder = os.path.dirname(path) or "."
    try:
        _replace(path, folder, data, new, mode, like)
    except OSError as error:
        raise _problem(path, folder, error) from None
    return True


def write_ours(path: str, data: bytes, home: str) -> bool:
    """Like `write`, for a file of our own: what stands in its way below `home` is moved away.

    Raises:
        StepError: it cannot be written.
    """
    try:
        return write(path, data)
    except StepError:
        if not make_way(path, home):
            raise
        return write(path, data)


def make_way(path: str, home: str) -> bool:
    """Move away what stands where a file of ours below `home`, or a folder of it, is to be.

    What was put there is not lost: a file or folder is only renamed.

    Raises:
        StepError: it cannot be moved.
    """
    blocking = blocked_by(os.path.dirname(path))
    if not blocking and os.path.lexists(path) and not os.path.isfile(path):
        blocking = path
    if not blocking.startswith(home + os.sep):
        return False
    try:
        os.rename(blocking, f"{blocking}.{os.getpid()}-{os.urandom(4).hex()}.unreadable")
    except OSError as error:
        raise _problem(path, os.path.dirname(path), error) from None
    return True


def _replace(path: str, folder: str, data: bytes, new: bool, mode: int | None, like: str) -> None:
    temporary = os.path.join(folder, f".codegen-{os.urandom(8).hex()}")
    try:
        handle = _created(temporary)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        handle = _created(temporary)
    try:
        _fill(handle, temporary, data, like)
        if mode is not None:
            os.chmod(temporary, mode)
        elif not new:
            _keep_mode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _created(path: str) -> int:
    """Return a handle to write a file that was not there."""
    # The kernel applies the umask; asking for it would change it for every thread.
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)


#: Linux's request to let one file have the blocks of another (FICLONE in linux/fs.h).
_FICLONE = 0x40049409


def _cloned(handle: int, like: str, size: int) -> bool:
    """Let a file that was just made share the blocks of another; False if that cannot be."""
    try:
        import fcntl

        with opened(like) as file:
            fcntl.ioctl(handle, _FICLONE, file.fileno())
        return os.fstat(handle).st_size == size
    except (OSError, ImportError):
        return False


def _fill(handle: int, path: str, data: bytes, like: str) -> None:
    """Write all of `data` to a file, stamp and close it."""
    try:
        written = len(data) if like and _cloned(handle, like, len(data)) else os.write(handle, data)
        while written < len(data):  # the system may take less than it is given
            written += os.write(handle, memoryview(data)[written:])
        # Now, more exactly than the clock that stamps files: see `signature`.
        now = time.time_ns()
        os.utime(handle if _STAMPS_OPEN else path, ns=(now, now))
    finally:
        os.close(handle)


def mode_of(path: str) -> int | None:
    """Return a file's permissions; None where there is no file, or the system has none."""
    try:
        return modes.S_IMODE(os.stat(path).st_mode) & 0o777 if os.name == "posix" else None
    except (OSError, ValueError):
        return None


def set_mode(path: str, mode: int) -> None:
    """Give a file its permissions, whoever took them away.

    Raises:
        StepError: they cannot be given.
    """
    try:
        os.chmod(path, mode)
    except OSError as error:
        raise StepError(path, f"cannot have mode {mode:04o}: {cause(error)}") from None


def _keep_mode(path: str, temporary: str) -> None:
    """Give a file the permissions of the one it is to replace, if there is one; a link has none."""
    try:
        status = os.lstat(path)
    except OSError:
        return
    if not modes.S_ISREG(status.st_mode):
        return
    mode = modes.S_IMODE(status.st_mode) & 0o777
    if modes.S_IMODE(os.stat(temporary).st_mode) != mode:
        os.chmod(temporary, mode)


def _holds(path: str, data: bytes) -> bool:
    try:
        return os.path.getsize(path) == len(data) and read(path) == data
    except (OSError, ValueError):
        return False


def _problem(path: str, folder: str, error: OSError) -> StepError:
    blocking = blocked_by(folder)
    if blocking:
        return StepError(blocking, A_FILE_STANDS_THERE, f"move {blocking} away")
    if os.path.isdir(path):
        return StepError(path, "a folder stands where a file should be", f"move {path} away")
    denied = isinstance(error, PermissionError) or error.errno == errno.EROFS
    hint = f"the folder {folder} must be writable" if denied else ""
    return StepError(path, f"cannot write: {cause(error)}", hint)


def blocked_by(folder: str) -> str:
    """Return the file that stands where a folder or one above it should be; "" if none does."""
    while folder and not os.path.lexists(folder):
        above = os.path.dirname(folder)
        folder = above if above != folder else ""
    return folder if folder and not os.path.isdir(folder) else ""


def are_one(path: str, other: str) -> bool:
    """Tell whether two paths that differ in case or composition are, or would be, one file.

    Found out without writing: by themselves where they exist, else by whether the nearest
    folder that does is found under its name in the other case.
    """
    try:
        return os.path.samefile(path, other)
    except OSError:
        if os.path.lexists(path) or os.path.lexists(other):
            return False
    folder = os.path.dirname(path)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return _ignores_case(folder)


def _ignores_case(folder: str) -> bool:
    """Tell whether names in a folder are found in the other case; by its own if it is empty."""
    with contextlib.suppress(OSError), os.scandir(folder) as items:
        for item in items:
            if item.name.swapcase() != item.name:
                return _is_same(item.path, os.path.join(folder, item.name.swapcase()))
    above, name = os.path.split(folder)
    return name.swapcase() != name and _is_same(folder, os.path.join(above, name.swapcase()))


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return False


def make_private(folder: str) -> None:
    """Make a folder in which only the user can write, whatever the umask, unless it is there."""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)


def open_to_others(folder: str) -> str:
    """Return how others could write in a folder; "" if they cannot, or it is not there.

    The user's group counts as others: its members change.
    """
    if not hasattr(os, "getuid"):  # elsewhere the mode says nothing
        return ""
    try:
        info = os.stat(folder)
    except OSError:
        return ""
    if info.st_uid != os.getuid():
        return "belongs to another user"
    if info.st_mode & (modes.S_IWGRP | modes.S_IWOTH):
        return "can be written by others"
    return ""


def remove(path: str) -> bool:
    """Remove a file; False if there was none."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def clear(path: str) -> None:
    """Remove a file, link or folder of our own; what cannot be removed stays."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        os.unlink(path)


def put_away(path: str) -> None:
    """Remove a file; a folder in its place may be somebody's, and is renamed."""
    if os.path.isdir(path) and not os.path.islink(path):
        os.rename(path, f"{path}.{os.getpid()}.unreadable")
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def kind(mode: int) -> str:
    """Return what to call that which stands where a file should be."""
    return "a folder" if modes.S_ISDIR(mode) else "no regular file"


def sweep(folder: str) -> None:
    """Remove the temporaries below `folder` that killed writers left."""
    for path in leftovers(folder):
        with contextlib.suppress(OSError):
            os.unlink(path)


def remove_empty_folders(folder: str, stop: str) -> None:
    """Remove `folder` and its parents as long as they are empty, up to and without `stop`."""
    while folder and folder != stop and folder.startswith(stop):
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)


def is_inside(path: str, folder: str) -> bool:
    """Tell whether a file lies below a folder once all links are followed."""
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))


def relative(path: str, folder: str = os.curdir) -> str:
    """Return a path as seen from a folder, plain, with forward slashes."""
    return os.path.relpath(path, folder).replace(os.sep, "/")


def meant(name: str, folder: str) -> tuple[str, str]:
    """Return the paths by which people name a file: its own, plain, and that below a folder."""
    path = relative(name)
    return path, f"{folder}/{path}"


def folders_in(folder: str) -> list[str]:
    """Return the paths of the folders in one, sorted; none if it cannot be read."""
    try:
        return sorted(item.path for item in os.scandir(folder) if item.is_dir())
    except OSError:
        return []


def walk(folder: str) -> list[str]:
    """Return all files below `folder`, relative to it, sorted, forward slashes."""
    return sorted(
        relative(os.path.join(path, file), folder)
        for path, _, files in os.walk(folder)
        for file in files
    )


def keep_aside(root: str, path: str, folder: str) -> str:
    """Copy a file into `folder`, its path below it; return the copy's path.

    Whatever stands there already stays: the copy, or a folder above it, then gets a number.
    What was kept before is not kept twice.

    Args:
        root: absolute path of the project.
        path: the file, relative to `root`.
        folder: relative to `root`, as is what is returned.

    Raises:
        StepError: it cannot be kept, so the caller must not overwrite the original.
    """
    full = os.path.join(root, path)
    *above, name = path.split("/")
    place = os.path.join(root, folder)
    try:
        data, mode = read(full), modes.S_IMODE(os.stat(full).st_mode) & 0o777
    except OSError as error:
        what = f"cannot be kept aside: {cause(error)}"
        raise StepError(path, what) from None
    try:
        os.makedirs(place, exist_ok=True)
        for part in above:
            place = _first(place, part, _made_folder)
        kept = _first(place, name, lambda there: _kept(there, data, mode))
    except OSError as error:
        problem = _problem(place, place, error)
        where = problem.where.removeprefix(os.path.join(root, ""))
        what = f"{path} cannot be kept aside: {problem.what}"
        hint = problem.hint.replace(os.path.join(root, ""), "")
        raise StepError(where, what, hint) from None
    return os.path.relpath(kept, root)


def _first(folder: str, name: str, usable: Callable[[str], bool]) -> str:
    """Return the first of `name`, `name.2`, `name.3`... in `folder` that is `usable`."""
    path = os.path.join(folder, name)
    for number in itertools.count(2):
        if usable(path):
            return path
        ending = f".{number}"
        short = name
        while len(os.fsencode(short + ending)) > _NAME_MAX:
            short = short[:-1]
        path = os.path.join(folder, short + ending)
    raise AssertionError("counting has no end")


def _made_folder(path: str) -> bool:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    return os.path.isdir(path)


def _kept(path: str, data: bytes, mode: int) -> bool:
    """Write `data` to a new file, or find it there; False if something else is there."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags, mode | 0o600)
    except FileExistsError:
        return os.path.isfile(path) and _holds(path, data)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    return True


def is_leftover(name: str) -> bool:
    """Tell whether a file's name is one that a file has while it is written."""
    return _TEMPORARY.fullmatch(name) is not None


def leftovers(folder: str) -> list[str]:
    """Return temporary files that killed processes left below `folder`; no link is followed."""
    return [
        os.path.join(path, name)
        for path, _, names in os.walk(folder)
        for name in names
        if is_leftover(name)
    ]


class Inside:
    """Tells which files lie below a folder once all links are followed.

    The links of a file's folder are followed again when another folder stands there.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: str):
        self._folder = folder
        self._inside: dict[tuple[str, int, int], bool] = {}

    def holds(self, path: str) -> bool:
        """Tell whether a file, or what it links to, lies below the folder."""
        try:
            if modes.S_ISLNK(os.lstat(path).st_mode):
                return is_inside(path, self._folder)
            above = os.path.dirname(path)
            there = os.stat(above)
        except (OSError, ValueError):
            return is_inside(path, self._folder)
        key = (above, there.st_dev, there.st_ino)
        if key not in self._inside:
            self._inside[key] = is_inside(path, self._folder)
        return self._inside[key]


@dataclass(slots=True)
class FileDigests:
    """Digests of files by content, each version of a file read once.

    A file whose signature is the recorded one is not read at all.
    """

    _seen: dict[tuple[str, Stat], str] = field(default_factory=dict)

    def get(self, path: str, known: tuple[Stat | None, str] | None = None) -> str | None:
        """Return the digest of `path`; None if there is no such file.

        Args:
            path: the file.
            known: signature and digest as recorded; trusted while the signature holds.

        Raises:
            OSError: the file is there but cannot be read.
        """
        now = stat(path)
        if now is None:
            return None
        if known is not None and known[0] == now:
            return known[1]
        found = self._seen.get((path, now))
        if found is None:
            found = self._seen[path, now] = digest.of_bytes(read(path))
        return found
