"""Compilers: the built-in ones, and what a `Toolchain` of one's own is made of."""

from __future__ import annotations

from .base import Compiled, Site, Toolchain, Unit, check_timeout, refuse_surplus
from .cfamily import CC, CXX
from .deno import DENO
from .python import PYTHON

__all__ = [
    "Compiled",
    "Site",
    "Toolchain",
    "Unit",
    "builtin",
    "check_timeout",
    "names",
    "references",
    "refuse_surplus",
]

_BUILTIN: dict[str, Toolchain] = {tool.name: tool for tool in (DENO, CC, CXX, PYTHON)}


def builtin(name: str) -> Toolchain | None:
    """Return the built-in toolchain called `name`; None if there is none."""
    return _BUILTIN.get(name)


def names() -> list[str]:
    """Return the names of the built-in toolchains."""
    return list(_BUILTIN)


def references(text: str) -> list[str]:
    """Return what a generated text refers to in any language that is known here.

    Which toolchain compiles it may change without the text.
    """
    return [name for tool in (DENO, CC) for name in tool.references(text)]
