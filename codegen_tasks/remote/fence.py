"""What a read set from a remote store may have us look at.

To ask for a result tells the store the digest of what was looked at.  A read set that nobody of
us has signed may name anything, and whoever made it could find out what is in a file by asking
itself what would be asked.  So it may name what lies in the project and is not hidden, and what
systems keep for all of their users, such as a compiler's own headers.
"""

from __future__ import annotations

import os
import stat as modes
import sys
from collections.abc import Collection

from .. import disk
from ..actions import ReadSet
from ..model import PATH_KINDS

#: Where systems and compilers keep what all users may read.
_OF_ALL = ("/usr/", "/opt/", "/nix/store/", "/gnu/store/", "/Library/", "/Applications/")
#: A file of more bytes is not read for somebody else's word.
_LARGEST = 200_000_000


class Fence:
    """Tells which read sets of somebody else are followed in one project.

    Args:
        root: absolute path of the project.
        templates: its folder of templates, relative to that.
        output: its folder of targets.
    """

    def __init__(self, root: str, templates: str, output: str):
        self._root = root
        self._templates = templates
        self._own = (f"{templates}/", f"{output}/")
        self._inside = disk.Inside(root)
        self._of_all = (*_OF_ALL, os.path.join(os.path.realpath(sys.base_prefix), "lib", ""))
        self._known: dict[tuple[str, str], bool] = {}  # steps mostly read alike

    def admits(self, reads: ReadSet, declared: Collection[tuple[str, str]]) -> bool:
        """Tell whether a read set may be followed.

        Args:
            reads: as it came.
            declared: kind and name of what the step is declared to read, whoever says so.
        """
        return all(
            (kind, name) in declared or self._is_open(kind, name)
            for kind, name, _ in reads
            if kind in PATH_KINDS or kind == "missing template"
        )

    def _is_open(self, kind: str, name: str) -> bool:
        found = self._known.get((kind, name))
        if found is None:
            found = self._known[kind, name] = self._find_open(kind, name)
        return found

    def _find_open(self, kind: str, name: str) -> bool:
        path = f"{self._templates}/{name}" if kind == "missing template" else name
        try:
            if os.path.isabs(path):
                return kind == "import" and self._is_public(path)
            if self._is_hidden(path):
                return False
            full = os.path.join(self._root, path)
            if not self._inside.holds(full):
                return kind == "import" and self._is_public(full)
            found = disk.stat(full)
            return found is None or found[0] <= _LARGEST
        except ValueError:  # no file can have such a name
            return False

    def _is_hidden(self, path: str) -> bool:
        """Tell whether a part of a path begins with a dot, but for folders that are declared."""
        own = max((len(folder) for folder in self._own if path.startswith(folder)), default=0)
        return any(part.startswith(".") for part in path[own:].split("/"))

    def _is_public(self, path: str) -> bool:
        """Tell whether a file is one of the system's, readable for all."""
        path = os.path.realpath(path)
        try:
            found = os.stat(path)
        except OSError:
            return False
        readable = modes.S_ISREG(found.st_mode) and bool(found.st_mode & modes.S_IROTH)
        return readable and found.st_size <= _LARGEST and path.startswith(self._of_all)
