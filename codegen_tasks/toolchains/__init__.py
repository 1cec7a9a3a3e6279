"""Compilers: the built-in ones, and what a `Toolchain` of one's own is made of."""

from __future__ import annotations

import importlib

from .base import (
    Compiled,
    Site,
    Tool,
    Toolchain,
    Unit,
    check_timeout,
    command_words,
    project_file,
    refuse_surplus,
)

__all__ = [
    "Compiled",
    "Site",
    "Tool",
    "Toolchain",
    "Unit",
    "builtin",
    "check_timeout",
    "command_words",
    "names",
    "project_file",
    "references",
    "refuse_surplus",
]

#: Module and name of each; imported when somebody asks for it.
_BUILTIN = {
    "deno": ("deno", "DENO"),
    "cc": ("cfamily", "CC"),
    "c++": ("cfamily", "CXX"),
    "python": ("python", "PYTHON"),
}


def builtin(name: str) -> Toolchain | None:
    """Return the built-in toolchain called `name`; None if there is none."""
    if name not in _BUILTIN:
        return None
    module, variable = _BUILTIN[name]
    found: Toolchain = getattr(importlib.import_module(f".{module}", __package__), variable)
    return found


def names() -> list[str]:
    """Return the names of the built-in toolchains."""
    return list(_BUILTIN)


def references(text: str) -> list[str]:
    """Return what a generated text refers to in any language that is known here.

    Which toolchain compiles it may change without the text.
    """
    from .cfamily import CC
    from .deno import DENO

    return [name for tool in (DENO, CC) for name in tool.references(text)]
