"""The toolchains `cc` and `c++`: object files, and the headers they read from a depfile."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace

from .. import disk
from ..errors import StepError
from .base import Compiled, Site, Toolchain, Unit, command_words


class CFamily(Toolchain):
    """`cc` and `c++`: an object file, and the headers it read from the depfile.

    A header is compiled as if a source file included it first, which proves that it stands
    alone.
    """

    def with_flags(self, *flags: str) -> CFamily:
        """Return the same compiler with more flags, such as `CC.with_flags("-Iinclude", "-g")`.

        They come after its own, so that the last of `-O2 -O0` counts.

        Raises:
            DeclarationError: one is no word, or there is none.
        """
        words = command_words(f"toolchain {self.name}", "with_flags", flags)
        place = self.command.index("-c")
        return replace(self, command=(*self.command[:place], *words, *self.command[place:]))

    _HEADERS = (".h", ".hh", ".hpp", ".hxx", ".inc")

    def _one(self, program: str, unit: Unit, site: Site, limit: float | None) -> Compiled:
        began = time.time_ns()
        done = self._compiled(program, unit, site, limit)
        if done.error is not None:
            return done
        return replace(done, discovered=(*done.discovered, *_in_vain(unit, done, site, began)))

    def _compiled(self, program: str, unit: Unit, site: Site, limit: float | None) -> Compiled:
        if os.path.splitext(unit.source)[1].lower() not in self._HEADERS:
            if os.path.basename(unit.source).startswith("@"):
                # gcc hands the name without its folder on, and what gets it reads options
                # from a file called like its rest.
                what = f"{self.name} takes a name that begins with '@' for a list of options"
                return Compiled({}, error=StepError(unit.source, what, "rename the target"))
            return super()._one(program, unit, site, limit)
        language = "c++" if self.name == "c++" else "c"
        alone = ("-include", "{source}", "-x", language, os.devnull)
        words: list[str] = []
        for word in self.command:
            words += alone if word == "{source}" else (word,)
        return Toolchain._one(replace(self, command=tuple(words)), program, unit, site, limit)

    def references(self, text: str) -> list[str]:
        """Return the names between quotes of all #include lines."""
        return re.findall(r'^\s*#\s*include\s*"([^"\n]+)"', text, re.MULTILINE)


#: Where a compiler asks for a header that it may find elsewhere, or do without.
_ASKED = re.compile(rb'(?:^[ \t]*#[ \t]*include|\b__has_include)[ \t(]*"([^"\n]+)"', re.MULTILINE)


def _in_vain(unit: Unit, done: Compiled, site: Site, began: int) -> list[str]:
    """Return the headers that would be read if they were there, as no depfile tells.

    Those that came since the compile `began` (ns) are among them.
    """
    found: dict[str, None] = {}
    for file in (unit.source, *done.discovered):
        if os.path.isabs(file) or file.startswith("../"):
            continue
        try:
            text = disk.read(os.path.join(site.root, file))
        except OSError:
            continue
        for name in _ASKED.findall(text):
            path = os.path.normpath(os.path.join(os.path.dirname(file), os.fsdecode(name)))
            path = path.replace(os.sep, "/")
            if not os.path.isabs(path) and not path.startswith("../"):
                found[path] = None
    return [path for path in found if path not in done.discovered and _is_new(site, path, began)]


def _is_new(site: Site, path: str, began: int) -> bool:
    full = os.path.join(site.root, path)
    there = disk.stat(full)
    return there[2] > began if there is not None else not os.path.lexists(full)


_FLAGS = ("-O2", "-Wall", "-Wextra", "-c", "{source}", "-o", "{target}")
_DEPS = ("-MD", "-MF", "{depfile}")

CC = CFamily(
    "cc",
    ("cc", "-std=c11", *_FLAGS, *_DEPS),
    ".o",
    version=("cc", "--version"),
    depfile="{target}.d",
    install="install a C compiler (Debian: apt install gcc)",
)
CXX = CFamily(
    "c++",
    ("c++", "-std=c++17", *_FLAGS, *_DEPS),
    ".o",
    version=("c++", "--version"),
    depfile="{target}.d",
    install="install a C++ compiler (Debian: apt install g++)",
)
