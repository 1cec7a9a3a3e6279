"""The template cache: compiled templates on disk, authenticated, shared by processes.

One file an entry, `<folder>/<template>/<key>.jbc`; the key covers everything that shapes
the bytecode, so an entry is never stale, only unused.  Format of an entry, in bytes:

    0    8   magic and format version
    8   32   HMAC-SHA256 of the template's folder, the key, and all that follows
    40   8   milliseconds the template took to parse, IEEE double, little endian
    48   …   marshalled code object

Nothing is unmarshalled before the HMAC was found right; the secret is the user's own, so
an entry that somebody else wrote is a miss.  The HMAC covers what the path says, so an
entry can be verified without its template.  Unaware of Jinja2.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import marshal
import os
import secrets
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from urllib.parse import quote, unquote

from . import disk
from .errors import StepError

MAGIC = b"cgtjbc\x00\x02"
SUFFIX = ".jbc"
_HEAD = len(MAGIC) + 32
_LOG_LIMIT = 1 << 20  # bytes; past that the log starts a new file and keeps one old one


@dataclass(frozen=True, slots=True)
class Entry:
    """One cached generation of a template: where it lies, its size in bytes, its age in ns.

    The template's name is as its folder tells it, which is cut where the name is very long.
    """

    template: str
    path: str
    size: int
    mtime: int


class TemplateCache:
    """Compiled templates below one folder.

    Args:
        folder: where the entries lie.
        log: file that gets one line for each hit and miss.
        keep: generations kept of each template, the newest.
    """

    def __init__(self, folder: str, log: str, keep: int):
        self._folder = folder
        self._home = os.path.dirname(os.path.dirname(folder))
        self._log = log
        self._keep = keep
        self._secret: bytes | None = None
        self._unkept = ""  # why entries of this process are of no use to a later one
        self.hits = 0
        self.misses = 0

    def path(self, template: str, key: str) -> str:
        """Return where the entry of `template` under `key` lies or would lie."""
        return os.path.join(self._folder, _folder_name(template), key + SUFFIX)

    def get(self, template: str, key: str) -> CodeType | None:
        """Return the code object kept under `key`; None, and never an error, if there is none."""
        start = time.perf_counter()
        path = self.path(template, key)
        try:
            raw = disk.read(path)
        except OSError:
            return None
        code = self._opened(os.path.dirname(path), key, raw)
        if code is not None:
            self.hits += 1
            self._note("hit", template, key, (time.perf_counter() - start) * 1000)
        return code

    def put(self, template: str, key: str, code: CodeType, milliseconds: float) -> None:
        """Keep `code`; a cache that cannot be written is no error."""
        self.misses += 1
        self._note("miss", template, key, milliseconds)
        payload = struct.pack("<d", milliseconds) + marshal.dumps(code)
        path = self.path(template, key)
        folder = os.path.dirname(path)
        mac = self._mac(folder, key, payload)
        self._say_if_unkept()
        with contextlib.suppress(OSError, StepError):
            disk.write_ours(path, MAGIC + mac + payload, self._home)
            _prune(folder, self._keep)

    def _opened(self, folder: str, key: str, raw: bytes) -> CodeType | None:
        if not self._authentic(folder, key, raw):
            return None
        payload = raw[_HEAD:]
        try:
            code = marshal.loads(payload[8:])
        except (EOFError, ValueError, TypeError):
            return None
        return code if isinstance(code, CodeType) else None

    def _authentic(self, folder: str, key: str, raw: bytes) -> bool:
        if raw[: len(MAGIC)] != MAGIC:
            return False
        return hmac.compare_digest(raw[len(MAGIC) : _HEAD], self._mac(folder, key, raw[_HEAD:]))

    def _mac(self, folder: str, key: str, payload: bytes) -> bytes:
        if self._secret is None:
            self._secret, self._unkept = user_secret()
        name = os.fsencode(os.path.basename(folder))
        head = b"%d:%s%d:%s" % (len(name), name, len(key), os.fsencode(key))
        return hmac.digest(self._secret, head + payload, hashlib.sha256)

    def _say_if_unkept(self) -> None:
        if self._unkept and sys.__stderr__ is not None:
            # Not `sys.stderr`: what is printed there while a step runs is the step's own.
            line = f"{secret_path()}: {self._unkept}, so the template cache is of no use later"
            print(line, file=sys.__stderr__, flush=True)
        self._unkept = ""

    def entries(self) -> list[Entry]:
        """Return all entries, newest first."""
        found = [entry for folder in _folders(self._folder) for entry in _entries(folder)]
        return sorted(found, key=lambda entry: (-entry.mtime, entry.path))

    def cleanup(self, keep: int) -> list[Entry]:
        """Remove all but the `keep` newest generations of each template; return the removed."""
        return [entry for entry in self.surplus(keep) if remove(entry)]

    def surplus(self, keep: int) -> list[Entry]:
        """Return all but the `keep` newest generations of each template."""
        return [entry for folder in _folders(self._folder) for entry in _entries(folder)[keep:]]

    def forget(self, template: str) -> int:
        """Remove all generations of one template; return how many there were."""
        return self._empty(os.path.join(self._folder, _folder_name(template)))

    def clear(self) -> int:
        """Remove every entry that can be removed; return how many."""
        return sum(self._empty(folder) for folder in _folders(self._folder))

    def _empty(self, folder: str) -> int:
        removed = len(_prune(folder, 0))
        disk.remove_empty_folders(folder, os.path.dirname(self._folder))
        return removed

    def broken(self) -> list[Entry]:
        """Return the entries that would be misses whatever is looked for: not ours, or torn."""
        found = [entry for entry in self.entries() if not self._sound(entry)]
        self._say_if_unkept()
        return found

    def _sound(self, entry: Entry) -> bool:
        folder, name = os.path.split(entry.path)
        try:
            raw = disk.read(entry.path)
        except FileNotFoundError:
            return True  # another process has removed it
        except OSError:
            return False
        return self._opened(folder, name.removesuffix(SUFFIX), raw) is not None

    def _note(self, what: str, template: str, key: str, milliseconds: float) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = (
            f"{stamp}.{int(now % 1 * 1000):03}Z {what} {template} {key[:16]} {milliseconds:.3f}\n"
        )
        with contextlib.suppress(OSError, StepError):
            try:
                size = self._append(line)
            except OSError:
                disk.make_way(self._log, self._home)
                size = self._append(line)
            if size > _LOG_LIMIT:
                os.replace(self._log, self._log + ".1")

    def _append(self, line: str) -> int:
        os.makedirs(os.path.dirname(self._log), exist_ok=True)
        # One write of one line in append mode: lines of several processes do not mix.
        return disk.append(self._log, line.encode("utf-8", "backslashreplace"))


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """What the cache log tells: loads found, templates parsed, and milliseconds saved."""

    hits: int
    misses: int
    saved: float


def figures(log: str) -> CacheFigures:
    """Return the totals of a cache log, its older half included.

    Milliseconds saved are, for each hit, what the template's last miss took less what the
    hit took; a hit whose miss is no longer in the log counts as nothing.
    """
    cost: dict[tuple[str, str], float] = {}
    hits = misses = 0
    saved = 0.0
    for what, template, key, milliseconds in _lines(log):
        if what == "miss":
            misses += 1
            cost[template, key] = milliseconds
        else:
            hits += 1
            saved += max(0.0, cost.get((template, key), milliseconds) - milliseconds)
    return CacheFigures(hits, misses, saved)


def _lines(log: str) -> Iterator[tuple[str, str, str, float]]:
    for path in (log + ".1", log):
        try:
            text = disk.read(path).decode("utf-8", "replace")
        except OSError:
            continue
        for line in text.splitlines():
            fields = line.split(" ", 2)
            ending = line.rsplit(" ", 2)
            if len(fields) == 3 and len(ending) == 3 and fields[1] in ("hit", "miss"):
                with contextlib.suppress(ValueError):
                    template = fields[2].rsplit(" ", 2)[0]
                    yield fields[1], template, ending[1], float(ending[2])


def _folder_name(template: str) -> str:
    """Return a file name for a template's name: readable, reversible unless very long."""
    quoted = quote(template, safe="", errors="surrogatepass")
    if quoted in (".", ".."):
        return quoted.replace(".", "%2E")
    if len(quoted) < 200:
        return quoted
    return quoted[:160] + hashlib.sha256(quoted.encode()).hexdigest()[:32]


def _folders(folder: str) -> list[str]:
    try:
        return sorted(item.path for item in os.scandir(folder) if item.is_dir())
    except OSError:
        return []


def _entries(folder: str) -> list[Entry]:
    """Return the entries of one folder, newest first; other processes may be removing some."""
    template = unquote(os.path.basename(folder))
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as items:
        for item in items:
            if item.name.endswith(SUFFIX):
                with contextlib.suppress(OSError):
                    info = item.stat()
                    found.append(Entry(template, item.path, info.st_size, info.st_mtime_ns))
    return sorted(found, key=lambda entry: (-entry.mtime, entry.path))


def _prune(folder: str, keep: int) -> list[Entry]:
    """Remove all but the newest entries of a folder; return those that are removed."""
    return [entry for entry in _entries(folder)[keep:] if remove(entry)]


def remove(entry: Entry) -> bool:
    """Remove an entry; False if it is gone already or cannot be removed."""
    try:
        return disk.remove(entry.path)
    except OSError:
        return False


def secret_path() -> str:
    """Return where the user's secret lies, by the XDG base directory rules."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join("~", ".local", "state")
    return os.path.join(os.path.expanduser(state), "codegen-tasks", "secret")


def user_secret() -> tuple[bytes, str]:
    """Return the user's 32-byte secret, made at its first use, readable by nobody else; and "".

    Where it cannot be kept, or others could have written it, a new one is made for this
    process alone, and the second value says why: entries of other runs are then misses.
    """
    path = secret_path()
    try:
        found = _kept_secret(path)
        if found is None or len(found) != 32:
            if found is not None:
                disk.remove(path)  # torn, and ours
            _make_secret(path)
            found = _kept_secret(path)
        why = "cannot be kept"
    except OSError as error:
        found, why = None, (error.strerror or str(error)).lower()
    if found is None or len(found) != 32:
        return secrets.token_bytes(32), why
    return found, ""


def _kept_secret(path: str) -> bytes | None:
    """Return what is kept at `path`, which may be torn; None if there is no file."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(file.fileno())
        if hasattr(os, "getuid"):  # elsewhere the mode says nothing
            if info.st_uid != os.getuid():
                raise PermissionError("belongs to another user")
            if stat.S_IMODE(info.st_mode) & 0o077:
                raise PermissionError("is open to other users")
        return file.read()


def _make_secret(path: str) -> None:
    """Make the secret unless another process has."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder)  # mkstemp: mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
        _link(temporary, path)
    finally:
        disk.remove(temporary)


def _link(temporary: str, path: str) -> None:
    """Give the secret its name; the first of two processes wins, and both read the same."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except (OSError, AttributeError):  # a file system, or a platform, without hard links
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        try:
            handle = os.open(path, flags, 0o600)
        except FileExistsError:
            return
        with os.fdopen(handle, "wb") as file:
            file.write(disk.read(temporary))
