"""The template cache: compiled templates on disk, authenticated, shared by processes.

One file an entry, `<folder>/<template>/<key>.jbc`; the key covers everything that shapes
the bytecode, so an entry is never stale, only unused.  Format of an entry, in bytes:

    0    8   magic and format version
    8   32   HMAC-SHA256 of the template's name, the key, and all that follows
    40   8   milliseconds the template took to parse, IEEE double, little endian
    48   …   marshalled code object

Nothing is unmarshalled before the HMAC was found right; the secret is the user's own, so
an entry that somebody else wrote is a miss.  Unaware of Jinja2.
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
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from urllib.parse import quote, unquote

from . import disk
from .errors import StepError

MAGIC = b"cgtjbc\x00\x01"
SUFFIX = ".jbc"
_HEAD = len(MAGIC) + 32
_LOG_LIMIT = 1 << 20  # bytes; past that the log starts a new file and keeps one old one


@dataclass(frozen=True, slots=True)
class Entry:
    """One cached generation of a template: where it lies, its size in bytes, its age."""

    template: str
    path: str
    size: int
    mtime: float


class TemplateCache:
    """Compiled templates below one folder.

    Args:
        folder: where the entries lie.
        log: file that gets one line for each hit and miss.
        keep: generations kept of each template, the newest.
    """

    def __init__(self, folder: str, log: str, keep: int):
        self._folder = folder
        self._log = log
        self._keep = keep
        self._secret: bytes | None = None
        self.hits = 0
        self.misses = 0

    def path(self, template: str, key: str) -> str:
        """Return where the entry of `template` under `key` lies or would lie."""
        return os.path.join(self._folder, _folder_name(template), key[:32] + SUFFIX)

    def get(self, template: str, key: str) -> CodeType | None:
        """Return the code object kept under `key`; None, and never an error, if there is none."""
        start = time.perf_counter()
        path = self.path(template, key)
        try:
            raw = disk.read(path)
        except OSError:
            return None
        code = self._opened(template, key, raw)
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
        with contextlib.suppress(OSError, StepError):
            disk.write(path, MAGIC + self._mac(template, key, payload) + payload)
            self._prune(os.path.dirname(path), self._keep)

    def _opened(self, template: str, key: str, raw: bytes) -> CodeType | None:
        payload = raw[_HEAD:]
        if raw[: len(MAGIC)] != MAGIC:
            return None
        if not hmac.compare_digest(raw[len(MAGIC) : _HEAD], self._mac(template, key, payload)):
            return None
        try:
            code = marshal.loads(payload[8:])
        except (EOFError, ValueError, TypeError):
            return None
        return code if isinstance(code, CodeType) else None

    def _mac(self, template: str, key: str, payload: bytes) -> bytes:
        if self._secret is None:
            self._secret = user_secret()
        name = template.encode()
        head = b"%d:%s%d:%s" % (len(name), name, len(key), key.encode())
        return hmac.digest(self._secret, head + payload, hashlib.sha256)

    def entries(self) -> list[Entry]:
        """Return all entries, newest first."""
        found = []
        for folder in _folders(self._folder):
            template = unquote(os.path.basename(folder))
            for item in _files(folder):
                info = item.stat()
                found.append(Entry(template, item.path, info.st_size, info.st_mtime))
        return sorted(found, key=lambda entry: (-entry.mtime, entry.path))

    def cleanup(self, keep: int) -> list[Entry]:
        """Remove all but the `keep` newest generations of each template; return the removed."""
        before = self.entries()
        for folder in _folders(self._folder):
            self._prune(folder, keep)
        return [entry for entry in before if not os.path.exists(entry.path)]

    def forget(self, template: str) -> int:
        """Remove all generations of one template; return how many there were."""
        folder = os.path.join(self._folder, _folder_name(template))
        removed = sum(disk.remove(item.path) for item in _files(folder))
        disk.remove_empty_folders(folder, os.path.dirname(self._folder))
        return removed

    def clear(self) -> int:
        """Remove every entry; return how many there were."""
        return sum(self.forget(unquote(os.path.basename(f))) for f in _folders(self._folder))

    def broken(self) -> list[Entry]:
        """Return the entries that would be misses whatever is looked for: not ours, or torn."""
        return [entry for entry in self.entries() if not self._sound(entry)]

    def _sound(self, entry: Entry) -> bool:
        # The file's name holds half the key only, and the HMAC covers all of it; so what
        # can be told without a template's source is the magic and a plausible size.
        try:
            raw = disk.read(entry.path)
        except OSError:
            return False
        return raw[: len(MAGIC)] == MAGIC and len(raw) > _HEAD + 8

    @staticmethod
    def _prune(folder: str, keep: int) -> None:
        aged = sorted(_files(folder), key=lambda item: item.stat().st_mtime_ns, reverse=True)
        for item in aged[keep:]:
            disk.remove(item.path)

    def _note(self, what: str, template: str, key: str, milliseconds: float) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = (
            f"{stamp}.{int(now % 1 * 1000):03}Z {what} {template} {key[:16]} {milliseconds:.3f}\n"
        )
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._log), exist_ok=True)
            # One write of one line in append mode: lines of several processes do not mix.
            with open(self._log, "ab", buffering=0) as file:
                file.write(line.encode())
                if file.tell() > _LOG_LIMIT:
                    os.replace(self._log, self._log + ".1")


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
    quoted = quote(template, safe="")
    if len(quoted) < 200:
        return quoted
    return quoted[:160] + hashlib.sha256(quoted.encode()).hexdigest()[:32]


def _folders(folder: str) -> list[str]:
    try:
        return sorted(item.path for item in os.scandir(folder) if item.is_dir())
    except OSError:
        return []


def _files(folder: str) -> list[os.DirEntry[str]]:
    try:
        return [item for item in os.scandir(folder) if item.name.endswith(SUFFIX)]
    except OSError:
        return []


def secret_path() -> str:
    """Return where the user's secret lies, by the XDG base directory rules."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join("~", ".local", "state")
    return os.path.join(os.path.expanduser(state), "codegen-tasks", "secret")


def user_secret() -> bytes:
    """Return the user's 32-byte secret, made at its first use, readable by nobody else.

    Where it cannot be kept, or others could have written it, a new one is made for this
    process alone: entries of other runs are then misses.
    """
    path = secret_path()
    with contextlib.suppress(OSError):
        found = _kept_secret(path)
        if found is None:
            _make_secret(path)
            found = _kept_secret(path)
        if found is not None:
            return found
    return secrets.token_bytes(32)


def _kept_secret(path: str) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(file.fileno())
        ours = not hasattr(os, "getuid") or info.st_uid == os.getuid()
        if not ours or stat.S_IMODE(info.st_mode) & 0o077:
            return None
        secret = file.read()
        return secret if len(secret) == 32 else None


def _make_secret(path: str) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder)  # mkstemp: mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # the first of two processes wins, both read the same
    finally:
        disk.remove(temporary)
