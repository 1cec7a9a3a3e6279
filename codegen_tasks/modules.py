"""Digests of modules: the project's own by their code, installed ones by their version.

A module of the project counts together with all it imports, wherever in its code.  What a
run happens to have imported so far makes no difference: a module that a function imports
when it is called is found, not imported.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from types import CodeType, ModuleType

from . import digest, young
from .code_digest import Codes, Import

_STDLIB = tuple(
    {
        os.path.join(os.path.dirname(os.__file__), ""),
        *(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")),
    }
)
_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
#: Counts as installed where it is not: what matters of it, `project.FORMAT` tells.
_THIS_PACKAGE = __name__.partition(".")[0]


class Modules:
    """The modules of one process, each looked at once.

    Args:
        codes: the code objects of the process.
    """

    def __init__(self, codes: Codes):
        self._codes = codes
        self._before = frozenset(sys.modules)  # before steps import more
        self._digests: dict[str, str] = {}
        self._used: dict[str, frozenset[str]] = {}
        self._installed: dict[str, bool] = {}

    def of(self, *names: str) -> str:
        """Return the digest of modules and all they import."""
        return digest.of_parts(*map(self._digest, sorted(self._reached(names))))

    def all(self) -> str:
        """Return the digest of every module of the project: for what can be tied to none."""
        loaded = [name for name in self._before if _origin(name) and not self.installed(name)]
        return self.of(*(name for name in loaded if name not in ("__main__", "__mp_main__")))

    def imported(self, package: str, imports: Iterable[Import]) -> str:
        """Return the digest of what code in a package imports; "" if it imports nothing."""
        names = {name for one in imports for name in self._named(package, one)}
        return self.of(*names) if names else ""

    def installed(self, name: str) -> bool:
        """Tell whether a module belongs to Python or to an installed package."""
        found = self._installed.get(name)
        if found is None:
            found = self._installed[name] = _is_installed(name)
        return found

    def files(self) -> list[str]:
        """Return the files of the project's modules that were looked at, imported or not."""
        found = (_origin(name) for name in self._used if not self.installed(name))
        return [file for file in found if file]

    def _reached(self, names: Iterable[str]) -> set[str]:
        reached: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += self._uses(name)
        return reached

    def _uses(self, name: str) -> frozenset[str]:
        found = self._used.get(name)
        if found is None:
            ours = not self.installed(name)
            found = self._used[name] = frozenset(self._find_uses(name) if ours else ())
        return found

    def _find_uses(self, name: str) -> Iterator[str]:
        code = _code(name)
        if code is not None:
            for one in self._codes.of(code).imports:
                yield from self._named(_package(name), one)
        if name in self._before:
            for value in list(vars(sys.modules[name]).values()):
                module = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
                if isinstance(module, str) and module in self._before:
                    yield module

    def _named(self, package: str, imported: Import) -> Iterator[str]:
        """Yield the modules that an `import` statement runs."""
        name, level, taken = imported
        if level:
            parts = package.split(".")
            name = ".".join([*parts[: len(parts) - level + 1], *filter(None, [name])])
        yield from accumulate(name.split("."), "{}.{}".format)
        if not self.installed(name):
            candidates = [f"{name}.{part}" for part in taken if part != "*"]
            yield from (each for each in candidates if _spec(each) is not None)

    def _digest(self, name: str) -> str:
        found = self._digests.get(name)
        if found is None:
            found = self._digests[name] = self._find_digest(name)
        return found

    def _find_digest(self, name: str) -> str:
        if self.installed(name):
            return digest.of_parts(name, _version(name.partition(".")[0]))
        code = _code(name)
        if code is not None:
            return digest.of_parts(name, self._codes.of(code).digest)
        try:
            with open(_origin(name) or "", "rb") as file:
                return digest.of_parts(name, digest.of_bytes(file.read()))
        except OSError:
            return digest.of_parts(name)


def _is_installed(name: str) -> bool:
    top, file = name.partition(".")[0], _origin(name)
    if file is None or top == _THIS_PACKAGE:
        return top in sys.stdlib_module_names or top == _THIS_PACKAGE
    inside = file.startswith(_STDLIB) or any(folder in file for folder in _PACKAGES)
    return inside or file in ("built-in", "frozen")


def _module_of(value: object) -> object:
    try:
        return getattr(value, "__module__", None)
    except Exception:  # an object with a `__getattr__` of its own
        return None


def _spec(name: str) -> ModuleSpec | None:
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    found, path = None, None
    for part in accumulate(name.split("."), "{}.{}".format):
        try:
            found = PathFinder.find_spec(part, path)
        except (ImportError, ValueError):
            return None
        if found is None:
            return None
        path = found.submodule_search_locations or []
    return found


def _origin(name: str) -> str | None:
    """Return the file of a module, or the folder of a package without one."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if isinstance(file, str):
        return file
    spec = _spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    return spec.origin or (os.path.join(folders[0], "") if folders else None)


def _package(name: str) -> str:
    spec = _spec(name)
    return spec.parent or "" if spec is not None else name.rpartition(".")[0]


def _code(name: str) -> CodeType | None:
    spec = _spec(name)
    get_code = getattr(spec.loader, "get_code", None) if spec is not None else None
    try:
        code = get_code(name) if get_code is not None else None
    except (ImportError, OSError, SyntaxError, ValueError):
        return None
    if spec is not None and spec.origin and spec.cached and not sys.dont_write_bytecode:
        young.forget(spec.origin, spec.cached)
    return code if isinstance(code, CodeType) else None


@cache
def _version(package: str) -> str:
    """Return the version of Python, or of an installed package."""
    if package == _THIS_PACKAGE:
        return ""
    if package in sys.stdlib_module_names:
        return f"{sys.implementation.name} {sys.hexversion:x}"
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        found = {
            f"{one.name} {one.version}" for one in metadata.distributions() if _brings(one, package)
        }
        return " ".join(sorted(found))


def _brings(distribution: metadata.Distribution, package: str) -> bool:
    """Tell whether a distribution installs a package that is not named as itself."""
    files = distribution.read_text("RECORD") or ""
    tops = distribution.read_text("top_level.txt") or ""
    return package in tops.split() or f"\n{package}/" in files or f"\n{package}." in files
