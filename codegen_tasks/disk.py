"""Every read and write of targets and state: whole or not at all, and only if bytes change.

Unaware of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, field

from . import digest
from .errors import StepError
from .model import Stat


def stat(path: str) -> Stat | None:
    """Return a file's signature; None if there is no regular file (links are followed)."""
    try:
        result = os.stat(path)
    except (OSError, ValueError):
        return None
    if not _is_file(result.st_mode):
        return None
    return (result.st_size, result.st_mtime_ns, result.st_ctime_ns, result.st_ino)


def _is_file(mode: int) -> bool:
    return (mode & 0o170000) == 0o100000


def read(path: str) -> bytes:
    """Return a file's bytes.  Raises OSError."""
    with open(path, "rb") as file:
        return file.read()


def write(path: str, data: bytes) -> bool:
    """Make `path` hold `data`; False if it already did and nothing was written.

    The file is replaced at once: another process sees the old bytes or the new ones.

    Raises:
        StepError: it cannot be written; the old file, if any, is untouched.
    """
    if _holds(path, data):
        return False
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
        _replace(path, folder, data)
    except OSError as error:
        raise StepError(path, f"cannot write: {_plain(error)}", _hint(error, folder)) from None
    return True


def _replace(path: str, folder: str, data: bytes) -> None:
    mode = _mode_for(path)
    handle, temporary = tempfile.mkstemp(prefix=".codegen-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _mode_for(path: str) -> int:
    """Keep an existing file's permissions; else what the umask leaves of rw-rw-rw-."""
    try:
        return os.stat(path).st_mode & 0o777
    except OSError:
        umask = os.umask(0o077)
        os.umask(umask)
        return 0o666 & ~umask


def _holds(path: str, data: bytes) -> bool:
    try:
        return os.path.getsize(path) == len(data) and read(path) == data
    except (OSError, ValueError):
        return False


def _plain(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _hint(error: OSError, folder: str) -> str:
    if isinstance(error, PermissionError) or error.errno == 30:
        return f"the folder {folder} must be writable"
    if isinstance(error, (NotADirectoryError, FileExistsError, IsADirectoryError)):
        return "a file stands where a folder should be, or the other way round"
    return ""


def remove(path: str) -> bool:
    """Remove a file; False if there was none."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


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
