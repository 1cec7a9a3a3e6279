"""A store in a folder: results under their keys in `ac/`, contents under their digests in `cas/`.

Laid out like a disk cache of Bazel, two digits of a name making a folder each.  It belongs to
one user, for all of the user's checkouts.  What is in it may vanish at any moment, and may be
anything: whoever asks checks what comes.  What was asked for longest ago goes first when the
store is larger than it may be.  Unaware of steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from . import digest, disk
from .actions import Content
from .errors import StepError

ACTIONS, CONTENTS = "ac", "cas"
#: Seconds after which it is noted that something was asked for once more.
_NOTED = 3600
#: Seconds after which it is looked for what is too old, whatever the size.
_DAY = 86_400
#: Of a store that is too large, so much is left.
_LEFT = 0.8
_TALLY = "size.json"


@dataclass(frozen=True, slots=True)
class Held:
    """One file in a store: what it is, where, its size in bytes, when it was last used (ns)."""

    kind: str
    name: str
    path: str
    size: int
    used: int


def default_folder() -> str:
    """Return the user's cache folder for us, by the XDG base directory rules."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.expanduser(os.path.join("~", ".cache"))
    return os.path.join(cache, "codegen-tasks")


class Store:
    """What one user's builds have come to.

    Args:
        folder: absolute path.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self._fault: str | None = None

    @property
    def fault(self) -> str:
        """Why it is not used; "" if it can be.  Others could put anything in it."""
        if self._fault is None:
            homeless = "" if os.path.isabs(self.folder) else "there is no home folder"
            self._fault = homeless or disk.open_to_others(self.folder)
        return self._fault

    def path(self, kind: str, name: str) -> str:
        """Return where something lies or would lie."""
        return os.path.join(self.folder, kind, name[:2], name)

    def get(self, kind: str, name: str) -> bytes | None:
        """Return the bytes kept under a name; None, and never an error, if there are none."""
        if self.fault:
            return None
        path = self.path(kind, name)
        try:
            raw, found = disk.read_signed(path)
        except OSError:
            return None
        if time.time_ns() - found[1] > _NOTED * 1_000_000_000:
            with contextlib.suppress(OSError):
                os.utime(path)
        return raw

    def content(self, name: str) -> bytes | None:
        """Return the content of a digest; what is something else is removed, and None."""
        raw = self.get(CONTENTS, name)
        if raw is None or digest.of_bytes(raw) == name:
            return raw
        self.remove(CONTENTS, name)
        return None

    def filled(self, contents: Iterable[Content]) -> tuple[dict[str, bytes], dict[str, str]] | None:
        """Return the bytes of a result's files, by path; None if one of them is not here.

        Returns:
            Beside them, for those that lie here by themselves, where.
        """
        outputs: dict[str, bytes] = {}
        like: dict[str, str] = {}
        for one in contents:
            data = one.data
            if data is None:
                data = self.content(one.digest)
                like[one.path] = self.path(CONTENTS, one.digest)
            if data is None:
                return None
            outputs[one.path] = data
        return outputs, like

    def has(self, kind: str, name: str) -> bool:
        """Tell whether something is kept under a name."""
        return os.path.exists(self.path(kind, name))

    def put(self, kind: str, name: str, data: bytes) -> int:
        """Keep bytes under a name; return how many more that makes.

        Raises:
            StepError: they cannot be written.
        """
        path = self.path(kind, name)
        before = disk.stat(path)
        if kind == CONTENTS and before is not None and before[0] == len(data):
            return 0
        self._make()
        disk.write(path, data, unchanged=False, new=before is None)
        return len(data) - (before[0] if before is not None else 0)

    def remove(self, kind: str, name: str) -> bool:
        """Remove what is kept under a name; False if it is gone, or cannot be removed."""
        try:
            return disk.remove(self.path(kind, name))
        except OSError:
            return False

    def _make(self) -> None:
        if os.path.isdir(self.folder):
            return
        try:
            disk.make_private(self.folder)
        except OSError as error:
            raise StepError(self.folder, f"cannot be made: {error.strerror or error}") from None

    # As a whole -------------------------------------------------------------------------

    def held(self) -> Iterator[Held]:
        """Yield all that is in it; other processes may be removing some."""
        for kind in (ACTIONS, CONTENTS):
            for folder in disk.folders_in(os.path.join(self.folder, kind)):
                yield from _held(kind, folder)

    def grown(self, added: int, most: int, days: int) -> int:
        """Note that so many bytes were added; tidy up if that is due; return what that removed.

        Args:
            added: bytes.
            most: bytes that it may hold.
            days: that something may lie there unasked for.
        """
        with self._locked():
            size, looked = self._tally()
            due = size + added > most or time.time() - looked > _DAY
            if not due:
                self._note(size + added, looked)
                return 0
            return self._tidy(most, days)

    def tidy(self, most: int, days: int) -> int:
        """Remove what is too old or too much; return the bytes that were removed."""
        with self._locked():
            return self._tidy(most, days)

    def _tidy(self, most: int, days: int) -> int:
        self._sweep(older=_NOTED)
        now = time.time_ns()
        found = sorted(self.held(), key=lambda one: one.used)
        for one in found:
            if one.used > now:  # the clock was ahead: it ages from now on
                with contextlib.suppress(OSError):
                    os.utime(one.path)
        total = sum(one.size for one in found)
        oldest = now - days * _DAY * 1_000_000_000
        left = int(most * _LEFT) if total > most else total
        removed = 0
        for one in found:
            if one.used >= oldest and total - removed <= left:
                break
            removed += one.size if self.remove(one.kind, one.name) else 0
        self._note(total - removed, time.time())
        return removed

    def clear(self) -> int:
        """Remove all; return how many files that were."""
        with self._locked():
            self._sweep(older=0)
            removed = sum(self.remove(one.kind, one.name) for one in self.held())
            self._note(0, time.time())
        return removed

    def _sweep(self, older: float) -> None:
        """Remove what killed writers left half written so many seconds ago."""
        for path in disk.leftovers(self.folder):
            with contextlib.suppress(OSError):
                if time.time() - os.stat(path).st_mtime >= older:
                    os.unlink(path)

    def _tally(self) -> tuple[int, float]:
        """Return its size in bytes, as far as it is known, and when it was last looked at."""
        try:
            data = json.loads(disk.read(os.path.join(self.folder, _TALLY)))
            size, looked = data["bytes"], data["looked"]
            # Else it is not ours, or the clock was put back: then it is time to look.
            if type(size) is int and size >= 0 and 0 <= looked <= time.time():
                return size, looked
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, 0.0

    def _note(self, size: int, looked: float) -> None:
        data = json.dumps({"bytes": size, "looked": looked}).encode()
        with contextlib.suppress(StepError):
            disk.write(os.path.join(self.folder, _TALLY), data)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change the tally and tidy up, where the system can."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError, ImportError):
                import fcntl

                path = os.path.join(self.folder, "lock")
                file = stack.enter_context(open(path, "ab"))
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _held(kind: str, folder: str) -> Iterator[Held]:
    with contextlib.suppress(OSError), os.scandir(folder) as items:
        for item in items:
            with contextlib.suppress(OSError):
                info = item.stat()
                if disk.is_leftover(item.name):
                    continue  # or it is being written
                yield Held(kind, item.name, item.path, info.st_size, info.st_mtime_ns)
