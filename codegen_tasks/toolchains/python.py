"""The toolchain `python`: hash-based bytecode, made in the process that runs the step."""

from __future__ import annotations

import os
import py_compile
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from typing import Any

from .. import digest, disk
from ..errors import StepError
from .base import Compiled, Site, Toolchain, Unit


class PythonBytecode(Toolchain):
    """`python`: a hash-based `.pyc` (PEP 552), importable without its source, no timestamp."""

    @property
    def program(self) -> str:
        """The running interpreter."""
        return sys.executable

    @property
    def identity(self) -> str:
        """Digest of the bytecode's format."""
        return digest.of_parts("python", "checked hash", "1")

    @property
    def shares_process(self) -> bool:
        """It starts no process at all."""
        return False

    def find(self) -> str:
        """Return the running interpreter's path."""
        return sys.executable

    def read_version(self, program: str, folder: str) -> tuple[str, str]:
        """Return digest and wording of the bytecode's version; no process is needed."""
        tag = sys.implementation.cache_tag or sys.version
        return digest.of_parts(tag, sysconfig.get_python_version()), f"python {tag}"

    def character(self, line: str, column: int) -> int:
        """Return a column as it is: Python counts characters."""
        return column

    def compile(self, units: Sequence[Unit], site: Site, timeout: float | None) -> list[Compiled]:
        """Compile each unit in this process."""
        return [self._bytecode(unit, site) for unit in units]

    def _bytecode(self, unit: Unit, site: Site) -> Compiled:
        # Not the target's name: Python writes to a longer one first.
        target = os.path.join(site.scratch, "module.pyc")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("default")
                py_compile.compile(
                    os.path.join(site.root, unit.source),
                    cfile=target,
                    dfile=unit.source,
                    doraise=True,
                    optimize=0,  # whatever -O doit itself runs with
                    invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
                )
        except py_compile.PyCompileError as error:
            return Compiled({}, error=_python_error(unit, error))
        said = [f"{unit.source}:{w.lineno}: {w.category.__name__}: {w.message}\n" for w in caught]
        return Compiled({unit.outputs[0]: disk.read(target)}, (), "".join(said))


def _python_error(unit: Unit, error: py_compile.PyCompileError) -> StepError:
    value: Any = error.exc_value
    line = getattr(value, "lineno", None)
    where = f"{unit.source}:{line}" if line else unit.source
    error = StepError(where, str(getattr(value, "msg", value)))
    return error.at_column(getattr(value, "offset", None) or 0)


PYTHON = PythonBytecode("python", ("python", "{source}", "{target}"), ".pyc")
