"""Digests of Python functions and classes: what of their source can change a render.

A function counts with its own source and that of the project's module-level functions it
calls.  Whatever cannot be followed (constants, closures, defaults, classes) counts with
the whole module that defines it, an installed library with its version.

The source is taken as Python compiled it, instructions, names and constants without line
numbers: comments, blank lines and formatting do not count, and nothing is parsed again
that importing `dodo.py` has parsed already.
"""

from __future__ import annotations

import builtins
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from types import CodeType, FunctionType, ModuleType
from typing import Any

from . import digest

_INSTALLED = tuple(
    {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
)


class Sources:
    """Digests of one process's functions, each worked out once."""

    def __init__(self) -> None:
        self._modules: dict[str, str] = {}
        self._values: dict[int, tuple[object, str]] = {}

    def of(self, value: Any) -> str:
        """Return the digest of a function, class, module or plain value."""
        kept = self._values.get(id(value))
        if kept is None or kept[0] is not value:
            kept = self._values[id(value)] = (value, self._of(value))
        return kept[1]

    def _of(self, value: Any) -> str:
        if isinstance(value, FunctionType):
            return digest.of_parts(*sorted(set(self._parts(value, set()))))
        try:
            return digest.of_data(value)
        except (TypeError, ValueError):
            pass
        if isinstance(value, (list, tuple)):
            return digest.of_parts(type(value).__name__, *(self.of(item) for item in value))
        if isinstance(value, dict):
            return digest.of_parts(*(self.of(part) for pair in value.items() for part in pair))
        if isinstance(value, ModuleType):
            return self._module(value.__name__)
        named = value if hasattr(value, "__qualname__") else type(value)
        module = getattr(named, "__module__", None) or "builtins"
        return digest.of_parts(getattr(named, "__qualname__", ""), self._module(module))

    def _parts(self, function: FunctionType, seen: set[FunctionType]) -> Iterator[str]:
        """Yield a digest for each thing the function's result may hang on."""
        if function in seen:
            return
        seen.add(function)
        if _installed(function.__module__) or _opaque(function):
            yield self._module(function.__module__)
            return
        yield digest.of_parts(function.__qualname__, *_compiled(function.__code__))
        for name in _global_names(function.__code__):
            if name not in function.__globals__:
                continue  # a builtin, or an attribute's name
            yield from self._named(function, name, seen)

    def _named(self, function: FunctionType, name: str, seen: set[FunctionType]) -> Iterator[str]:
        value = function.__globals__[name]
        if isinstance(value, FunctionType) and not _installed(value.__module__):
            yield from self._parts(value, seen)
        elif isinstance(value, ModuleType):
            yield self._module(value.__name__)
        elif _installed(getattr(value, "__module__", None) or ""):
            yield self._module(value.__module__)
        else:
            yield self._module(function.__module__)

    def _module(self, name: str) -> str:
        found = self._modules.get(name)
        if found is None:
            found = self._modules[name] = _module_digest(name)
        return found


def _module_digest(name: str) -> str:
    if _installed(name):
        return digest.of_parts(name, _version(name))
    code = _module_code(name)
    if code is None:
        return digest.of_parts(name, _version(name))
    return digest.of_parts(name, *_compiled(code))


def _module_code(name: str) -> CodeType | None:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    get_code = getattr(getattr(spec, "loader", None), "get_code", None)
    try:
        code = get_code(name) if get_code is not None else None
    except (ImportError, OSError, SyntaxError):
        return None
    return code if isinstance(code, CodeType) else None


def _compiled(code: CodeType) -> Iterator[str]:
    """Yield all of a code object that decides what it does, places in the source left out."""
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags))
    for constant in code.co_consts:
        yield from _constant(constant)


def _constant(value: Any) -> Iterator[str]:
    if isinstance(value, CodeType):
        yield from _compiled(value)
    elif isinstance(value, tuple):
        yield f"tuple {len(value)}"
        for item in value:
            yield from _constant(item)
    elif isinstance(value, frozenset):
        yield repr(sorted(map(repr, value)))  # its own order differs from run to run
    else:
        yield f"{type(value).__name__} {value!r}"


def _installed(module: str) -> bool:
    """Tell whether a module belongs to Python or to an installed package."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or module == builtins.__name__:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and file.startswith(_INSTALLED)


def _version(module: str) -> str:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return sys.version
    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(top), "__version__", ""))


def _opaque(function: FunctionType) -> bool:
    """Tell whether a function carries values its source does not show."""
    return bool(function.__closure__ or function.__defaults__ or function.__kwdefaults__)


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def describe(function: Callable[..., Any]) -> str:
    """Return name, file and line of a function, for messages."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    if code is None:
        return name
    return f"{name} ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"
