"""Digests of Python functions, classes and values: what of them can change a render.

A value counts as it is when it is looked at, not as the text that made it.  From a function
on, everything it names is followed: functions by their compiled code, constants by value,
classes by what they consist of, other objects by what pickling would save of them.  An
installed library counts with its version.

What cannot be followed, such as an open file, counts with the modules that could have made
it: that of its type, and the one that names it with all it imports.
"""

from __future__ import annotations

import copyreg
import functools
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any

from . import digest
from .code_digest import Codes, plain
from .modules import Modules


class Sources:
    """Digests of one process's functions, each worked out once."""

    def __init__(self) -> None:
        self._codes = Codes()
        self._modules = Modules(self._codes)
        self._values: dict[int, tuple[object, str]] = {}

    def of(self, value: Any) -> str:
        """Return the digest of a function, class, module or other value."""
        kept = self._values.get(id(value))
        if kept is None or kept[0] is not value:
            found = _Walk(self._codes, self._modules).digest(value)
            kept = self._values[id(value)] = (value, found)
        return kept[1]

    def of_module(self, name: str) -> str:
        """Return the digest of a module, which need not be imported, and all it imports."""
        return self._modules.of(name)

    def of_all(self) -> str:
        """Return the digest of every module of the project that was imported."""
        return self._modules.all()

    def files(self) -> list[str]:
        """Return the files of the project's modules that were looked at."""
        return self._modules.files()


#: The parts that decide what an object does, for types that cannot be pickled.
_PARTS: dict[type, tuple[str, ...]] = {
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    types.MethodType: ("__func__", "__self__"),
    functools.cached_property: ("func", "attrname"),
    type(functools.cache(len)): ("__wrapped__", "__dict__"),
}
#: Made by Python or in C: known by name, and by what they are bound to.
_BUILT_IN = (
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
#: Installed classes whose objects are no more than their value; by module.
_VALUES = re.compile(
    "_?(abc|array|builtins|collections|contextlib|dataclasses|datetime|decimal|enum|fractions"
    "|functools|ipaddress|logging|markupsafe|numbers|operator|pathlib|re|string|types|typing|uuid"
    "|zoneinfo)"
    r"(\.|$)"
)
#: What Python keeps about a class or its source.
_NOT_OF_A_CLASS = {
    *("__module__", "__doc__", "__dict__", "__weakref__", "_abc_impl"),
    *("__firstlineno__", "__static_attributes__", "__annotations_cache__"),
}
#: Where a module lies says nothing about what it does.
_NOT_OF_A_MODULE = {"__file__", "__path__", "__spec__", "__loader__", "__cached__", "__builtins__"}
_HEAP_TYPE = 1 << 9


class _Walk:
    """One walk over all that a value hangs on.

    Each thing has the number in whose turn it was met, so cycles end and depth costs nothing.
    """

    def __init__(self, codes: Codes, modules: Modules):
        self._codes = codes
        self._modules = modules
        self._numbers: dict[int, int] = {}
        self._met: list[tuple[Any, str]] = []  # the thing, and the module that named it

    def digest(self, value: Any) -> str:
        parts = [self._ref(value, "")]
        for thing, module in self._met:  # grows meanwhile
            parts.append(digest.of_parts(*self._describe(thing, module)))
        return digest.of_parts(*parts)

    def _ref(self, value: Any, module: str) -> str:
        """Return what stands for a value: its digest if it is plain, else its number."""
        try:
            return plain(value)
        except ValueError:
            pass
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._met)
            self._met.append((value, module))
        return str(self._numbers[id(value)])

    def _refs(self, values: Iterable[Any], module: str) -> Iterator[str]:
        return (self._ref(value, module) for value in values)

    def _describe(self, value: Any, module: str) -> Iterator[str]:
        """Yield all that decides what a thing does."""
        kind = type(value)
        yield kind.__qualname__
        if isinstance(value, type):
            yield from self._class(value)
        elif kind is types.FunctionType:
            yield from self._function(value)
        elif isinstance(value, types.ModuleType):
            yield self._modules.of(value.__name__)
        elif kind in _BUILT_IN:
            yield value.__qualname__
            yield self._ref(
                getattr(value, "__self__", getattr(value, "__objclass__", None)), module
            )
        elif isinstance(value, Enum):
            yield from self._refs([kind, value.name, value.value], module)
        elif kind in (list, tuple):
            yield from self._refs(value, module)
        elif kind in (dict, types.MappingProxyType):
            yield from self._refs((part for pair in value.items() for part in pair), module)
        elif kind in (set, frozenset):
            yield from self._refs(sorted(value, key=_order), module)
        elif kind in _PARTS:
            yield from self._refs((getattr(value, name) for name in _PARTS[kind]), module)
        else:
            yield from self._object(value, module)

    # Functions --------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        module = str(function.__globals__.get("__name__", ""))
        yield function.__qualname__
        if self._modules.installed(module):
            yield self._modules.of(module)
            if _is_named(function, module):
                return
        else:
            yield from self._code(function, module)
        cells = function.__closure__ or ()
        yield from self._refs([function.__defaults__, function.__kwdefaults__], module)
        yield from self._refs([vars(function), *map(_content, cells)], module)

    def _code(self, function: types.FunctionType, module: str) -> Iterator[str]:
        known = function.__globals__
        code = self._codes.of(function.__code__)
        yield code.digest
        for name in code.names:
            if name in known and name not in _NOT_OF_A_MODULE:
                yield name
                yield self._ref(known[name], module)
        yield self._modules.imported(str(known.get("__package__") or ""), code.imports)
        if code.dynamic:
            yield self._modules.all()

    # Classes ----------------------------------------------------------------------------

    def _class(self, cls: type) -> Iterator[str]:
        module = cls.__module__
        yield cls.__qualname__
        if self._modules.installed(module):
            yield self._modules.of(module)
            if not cls.__flags__ & _HEAP_TYPE or _is_named(cls, module):
                return
        yield from self._refs([type(cls), *cls.__bases__], module)
        for name, value in list(vars(cls).items()):
            if name not in _NOT_OF_A_CLASS and not (name == "__annotations__" and not value):
                yield name
                yield self._ref(value, module)

    # Other objects ----------------------------------------------------------------------

    def _object(self, value: Any, module: str) -> Iterator[str]:
        yield self._ref(type(value), module)
        try:
            saved = self._saved(value)
        except Exception:  # pickling runs code of the object's class
            saved = None
        if saved is not None:
            yield from self._refs(saved, module)
        if saved is None or self._saves_itself(type(value)):
            yield self._modules.of(type(value).__module__)
            yield self._modules.of(module) if module else self._modules.all()

    def _saved(self, value: Any) -> list[Any] | None:
        """Return what pickling would save of an object; None if that may not be all of it."""
        if not all(map(self._is_value, type(value).__mro__)):
            return None
        reduce = copyreg.dispatch_table.get(type(value))
        saved = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        if isinstance(saved, str):
            return [saved] if self._modules.installed(type(value).__module__) else None
        made, arguments, state, items, pairs = (*saved, None, None, None)[:5]
        return [made, arguments, state, list(items or ()), list(pairs or ())]

    def _is_value(self, cls: type) -> bool:
        module = cls.__module__
        return _VALUES.match(module) is not None or not self._modules.installed(module)

    def _saves_itself(self, cls: type) -> bool:
        """Tell whether a class of the project decides what to save; it may leave things out."""
        for name in ("__reduce__", "__reduce_ex__", "__getstate__"):
            found = getattr(cls, name, None)
            module = getattr(found, "__module__", None)
            if isinstance(found, types.FunctionType) and not self._modules.installed(str(module)):
                return True
        return False


def _is_named(value: Any, module: str) -> bool:
    """Tell whether a function or class is what its module has under its name."""
    found: Any = sys.modules.get(module)
    for part in value.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found is value


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _order(value: Any) -> str:
    """Return a key to sort a set by, the same in every process."""
    if isinstance(value, (tuple, frozenset)):
        keys = map(_order, value)
        return repr(list(keys) if isinstance(value, tuple) else sorted(keys))
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{type(value).__name__} {value!r}"


def describe(function: Callable[..., Any]) -> str:
    """Return name, file and line of a function, for messages."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    if code is None:
        return name
    return f"{name} ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"
