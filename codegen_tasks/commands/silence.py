"""What the builds of a watch know of each other's remote caches: which one was of no use lately.

Each build is a run of its own, and would wait once more for a store that does not answer.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..build import Build
    from ..codegen import Codegen

#: For so many seconds it is left alone.
SECONDS = 60.0


class Silence:
    """The note of this, in a file: builds are processes.

    Args:
        path: of the file.
    """

    def __init__(self, path: str):
        self._path = path

    def keep(self, codegens: Iterable[Codegen]) -> None:
        """Have a build that begins, of these, ask no remote cache if none was of use lately."""
        try:
            age = time.time() - os.stat(self._path).st_mtime
        except OSError:
            return
        if not 0 <= age < SECONDS:
            return
        for one in codegens:
            alone = replace(one.project.settings, remote_cache="")
            one.project = replace(one.project, settings=alone)

    def heard(self, builds: Iterable[Build]) -> None:
        """Note, when these have ended, whether a remote cache was of no use."""
        if any(build.savings.traffic.fault for build in builds):
            with contextlib.suppress(OSError), open(self._path, "wb"):
                os.utime(self._path)
