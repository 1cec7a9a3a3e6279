"""Every read and write of targets and state: whole or not at all, and only if bytes change.

Unaware of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat as modes
from dataclasses import dataclass, field

from . import digest
from .errors import StepError
from .model import Stat

_TEMPORARY = re.compile(r"\.codegen-[0-9a-f]{16}")  # as `_replace` names them
A_FILE_STANDS_THERE = "a file stands where a folder should be"


def stat(path: str) -> Stat | None:
    """Return a file's signature; None if there is no regular file (links are followed)."""
    try:
        result = os.stat(path)
    except (OSError, ValueError):
        return None
    if not modes.S_ISREG(result.st_mode):
        return None
    return (result.st_size, result.st_mtime_ns, result.st_ctime_ns, result.st_ino)


def read(path: str) -> bytes:
    """Return a file's bytes.  Raises OSError."""
    with open(path, "rb") as file:
        return file.read()


def write(path: str, data: bytes, unchanged: bool | None = None) -> bool:
    """Make `path` hold `data`; False if it already did and nothing was written.

    The file is replaced at once: another process sees the old bytes or the new ones.

    Args:
        path: the file.
        data: its bytes.
        unchanged: whether it holds `data` already, for who knows; None: read it and see.

    Raises:
        StepError: it cannot be written; the old file, if any, is untouched.
    """
    if _holds(path, data) if unchanged is None else unchanged:
        return False
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
        _replace(path, folder, data)
    except OSError as error:
        raise _problem(path, folder, error) from None
    return True


def _replace(path: str, folder: str, data: bytes) -> None:
    temporary = os.path.join(folder, f".codegen-{os.urandom(8).hex()}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    # The kernel applies the umask; asking for it would change it for every thread.
    handle = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        _keep_mode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _keep_mode(path: str, temporary: str) -> None:
    """Give a file the permissions of the one it is to replace, if there is one."""
    try:
        mode = modes.S_IMODE(os.stat(path).st_mode) & 0o777
    except OSError:
        return
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
    return StepError(path, f"cannot write: {(error.strerror or str(error)).lower()}", hint)


def blocked_by(folder: str) -> str:
    """Return the file that stands where a folder or one above it should be; "" if none does."""
    while folder and not os.path.lexists(folder):
        above = os.path.dirname(folder)
        folder = above if above != folder else ""
    return folder if folder and not os.path.isdir(folder) else ""


def remove(path: str) -> bool:
    """Remove a file; False if there was none."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def sweep(folder: str) -> None:
    """Remove the temporaries below `folder` that killed writers left."""
    for path, _, files in os.walk(folder):
        for name in files:
            if _TEMPORARY.fullmatch(name):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(path, name))


def remove_empty_folders(folder: str, stop: str) -> None:
    """Remove `folder` and its parents as long as they are empty, up to and without `stop`."""
    while folder and folder != stop and folder.startswith(stop):
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)


def walk(folder: str) -> list[str]:
    """Return all files below `folder`, relative to it, sorted, forward slashes."""
    return sorted(
        os.path.relpath(os.path.join(path, file), folder).replace(os.sep, "/")
        for path, _, files in os.walk(folder)
        for file in files
    )


def keep_aside(path: str, folder: str) -> str:
    """Copy a file into `folder` under a name not yet taken; return the copy's path.

    Raises:
        StepError: it cannot be kept, so the caller must not overwrite the original.
    """
    data = read(path)
    base = os.path.join(folder, os.path.basename(path))
    kept, number = base, 1
    while os.path.exists(kept):
        number += 1
        kept = f"{base}.{number}"
    write(kept, data)
    return kept


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
