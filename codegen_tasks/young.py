"""Bytecode that Python has kept of modules so young that their next edit could go unnoticed.

Python takes a source of the same second and size for the one that it compiled before.  What it
keeps of the project's modules is removed while that can happen; the next process compiles them
anew, and keeps them when they are old enough.
"""

from __future__ import annotations

import contextlib
import os
import sys

#: Bytecode that was written so many seconds after its source, or later, is of no other source:
#: one second is what Python sees, the other what an import may take.
_OLD = 2.0
_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


class Young:
    """The young modules of one process.

    Args:
        root: absolute path of the project.
    """

    def __init__(self, root: str):
        self._inside = os.path.join(root, "")
        self._seen = 0

    def forget(self) -> None:
        """Remove what Python has kept of them, if it has imported anything since the last time."""
        if sys.dont_write_bytecode or len(sys.modules) == self._seen:
            return
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            kept = getattr(module, "__cached__", None)
            if isinstance(file, str) and isinstance(kept, str) and self._is_ours(file):
                forget(file, kept)
        self._seen = len(sys.modules)

    def _is_ours(self, file: str) -> bool:
        return file.startswith(self._inside) and not any(folder in file for folder in _PACKAGES)


def forget(source: str, kept: str) -> None:
    """Remove bytecode if it is too young to be told from that of another source."""
    with contextlib.suppress(OSError):
        if os.stat(kept).st_mtime - os.stat(source).st_mtime < _OLD and kept != source:
            os.unlink(kept)
