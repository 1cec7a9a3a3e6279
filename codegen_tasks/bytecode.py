"""The template cache: compiled templates on disk, authenticated, shared by processes.

One file an entry, `<folder>/<template>/<key>.jbc`; the key covers everything that shapes
the bytecode, so an entry is never stale, only unused.  Format of an entry, in bytes:

    0    8   magic and format version
    8   32   HMAC-SHA256 of the template's folder, the key, and all that follows
    40   8   milliseconds the template took to parse, IEEE double, little endian
    48   …   marshalled code object

Nothing is unmarshalled before the HMAC was found right; the secret is the user's own, so
an entry that somebody else wrote is a miss.  The HMAC covers what the path says, so an
entry can be verified without its template.  A folder in which others can write is not used
at all: they could put back what was removed.  Unaware of Jinja2.
"""

from __future__ import annotations

import contextlib
import errno
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
from .errors import StepError, cause

MAGIC = b"cgtjbc\x00\x02"
SUFFIX = ".jbc"
_HEAD = len(MAGIC) + 32
_LONGEST = 64  # bytes read of a secret: enough to see that it is too long
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
        self._faults: dict[str, str] = {}  # what is wrong with a folder, by its path
        self._said = False
        self.hits = 0
        self.misses = 0

    def path(self, template: str, key: str) -> str:
        """Return where the entry of `template` under `key` lies or would lie."""
        return os.path.join(self._folder, _folder_name(template), key + SUFFIX)

    def get(self, template: str, key: str) -> CodeType | None:
        """Return the code object kept under `key`; None, and never an error, if there is none."""
        start = time.perf_counter()
        path = self.path(template, key)
        folder = os.path.dirname(path)
        if not self._usable(folder):
            return None
        try:
            raw = disk.read(path)
        except OSError:
            return None
        code = self._opened(folder, key, raw)
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
            disk.make_private(self._folder)
            disk.make_private(folder)
            if self._usable(folder):
                disk.write_ours(path, MAGIC + mac + payload, self._home)
                _prune(folder, self._keep)

    def prepare(self) -> None:
        """Find out and say now what workers would each say; they inherit that it was said."""
        self._usable(self._folder)
        if self._secret is None:
            self._secret, self._unkept = user_secret()
        self._say_if_unkept()

    def fault(self) -> str:
        """Return why the cache is not used, beginning with the folder; "" if it can be."""
        folders = (self._folder, *disk.folders_in(self._folder))
        found = [(path, disk.open_to_others(path)) for path in folders]
        return next((f"{_shown(path)}: {why}" for path, why in found if why), "")

    def _usable(self, folder: str) -> bool:
        """Tell whether nobody else can write in an entry's folder; say once if somebody can."""
        for path in (self._folder, folder):
            if path not in self._faults:
                why = disk.open_to_others(path)
                if not why and not os.path.isdir(path):
                    continue  # it is not there yet
                self._faults[path] = why
            if self._faults[path]:
                self._say_unused(path)
                return False
        return True

    def _say_unused(self, folder: str) -> None:
        if not self._said and sys.__stderr__ is not None:
            lines = (
                f"{_shown(folder)}: {self._faults[folder]}, so the template cache is not used",
                f"  hint: {_mend(folder)}, or template_cache = false in [tool.codegen]",
            )
            print("\n".join(lines), file=sys.__stderr__, flush=True)
        self._said = True

    def _opened(self, folder: str, key: str, raw: bytes) -> CodeType | None:
        if not self._authentic(folder, key, raw):
            return None
        try:
            code = marshal.loads(memoryview(raw)[_HEAD + 8 :])
        except (EOFError, ValueError, TypeError):
            return None
        return code if isinstance(code, CodeType) else None

    def _authentic(self, folder: str, key: str, raw: bytes) -> bool:
        if raw[: len(MAGIC)] != MAGIC:
            return False
        mac = self._mac(folder, key, memoryview(raw)[_HEAD:])
        return hmac.compare_digest(raw[len(MAGIC) : _HEAD], mac)

    def _mac(self, folder: str, key: str, payload: bytes | memoryview) -> bytes:
        if self._secret is None:
            self._secret, self._unkept = user_secret()
        name = os.fsencode(os.path.basename(folder))
        head = b"%d:%s%d:%s" % (len(name), name, len(key), os.fsencode(key))
        mac = hmac.new(self._secret, head, hashlib.sha256)
        mac.update(payload)  # some 100 KB, which putting it behind the head would copy
        return mac.digest()

    def _say_if_unkept(self) -> None:
        if self._unkept and sys.__stderr__ is not None:
            # Not `sys.stderr`: what is printed there while a step runs is the step's own.
            line = f"{secret_path()}: {self._unkept}, so the template cache is of no use later"
            print(line, file=sys.__stderr__, flush=True)
        self._unkept = ""

    def entries(self) -> list[Entry]:
        """Return all entries, newest first."""
        found = [entry for folder in disk.folders_in(self._folder) for entry in _entries(folder)]
        return sorted(found, key=lambda entry: (-entry.mtime, entry.path))

    def cleanup(self, keep: int) -> list[Entry]:
        """Remove all but the `keep` newest generations of each template; return the removed."""
        return [entry for entry in self.surplus(keep) if remove(entry)]

    def surplus(self, keep: int) -> list[Entry]:
        """Return all but the `keep` newest generations of each template."""
        folders = disk.folders_in(self._folder)
        return [entry for folder in folders for entry in _entries(folder)[keep:]]

    def forget(self, template: str) -> int:
        """Remove all generations of one template; return how many there were."""
        return self._empty(os.path.join(self._folder, _folder_name(template)))

    def clear(self) -> int:
        """Remove every entry that can be removed; return how many."""
        return sum(self._empty(folder) for folder in disk.folders_in(self._folder))

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
        if os.path.exists(entry.path) and disk.stat(entry.path) is None:
            return False
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
        # One write of one line in append mode: lines of several processes do not mix.
        data = line.encode("utf-8", "backslashreplace")
        try:
            return disk.append(self._log, data)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._log), exist_ok=True)
            return disk.append(self._log, data)


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


def _mend(folder: str) -> str:
    if os.stat(folder).st_uid != os.getuid():
        return f"remove {_shown(folder)}"
    return f"chmod go-w {_shown(folder)}"


def _shown(path: str) -> str:
    """Return a path as people know it: relative to the project, in which doit runs."""
    relative = os.path.relpath(path)
    return (path if relative.startswith("..") else relative).replace(os.sep, "/")


def remove(entry: Entry) -> bool:
    """Remove an entry; False if it is gone already or cannot be removed."""
    try:
        return disk.remove(entry.path)
    except OSError:
        return False


def secret_path() -> str:
    """Return where the user's secret lies, by the XDG base directory rules.

    They say that a relative path is to be ignored.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser(os.path.join("~", ".local", "state"))
    return os.path.join(state, "codegen-tasks", "secret")


def user_secret() -> tuple[bytes, str]:
    """Return the user's 32-byte secret, made at its first use, readable by nobody else; and "".

    Where it cannot be kept, or others could have written it, a new one is made for this
    process alone, and the second value says why: entries of other runs are then misses.
    """
    path = secret_path()
    try:
        if not os.path.isabs(path):
            raise FileNotFoundError(errno.ENOENT, "there is no home folder")
        found = _kept_secret(path)
        if found is None or len(found) != 32:
            if found is not None:
                disk.remove(path)  # torn, and ours
            _make_secret(path)
            found = _kept_secret(path)
        why = "cannot be kept"
    except OSError as error:
        found, why = None, cause(error)
    if found is None or len(found) != 32:
        return secrets.token_bytes(32), why
    return found, ""


def _kept_secret(path: str) -> bytes | None:
    """Return what is kept at `path`, which may be torn; None if there is no file."""
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # a pipe would keep us waiting
        flags |= getattr(os, flag, 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError("is a link") from None
        raise
    why = disk.open_to_others(os.path.dirname(path))
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError("is not a regular file")
        if why:
            raise PermissionError(f"lies in a folder that {why}")
        if hasattr(os, "getuid"):  # elsewhere the mode says nothing
            if info.st_uid != os.getuid():
                raise PermissionError("belongs to another user")
            if stat.S_IMODE(info.st_mode) & 0o077:
                raise PermissionError("is open to other users")
        return file.read(_LONGEST)


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
