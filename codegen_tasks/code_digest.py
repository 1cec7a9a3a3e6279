"""Digests of compiled code: what it does, and which names and modules it asks for.

Comments, blank lines, formatting, docstrings and places in the source do not count, and
nothing is parsed again that importing `dodo.py` has parsed already.
"""

from __future__ import annotations

import dis
import marshal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

from . import digest

#: One `import` statement: name, level (0: absolute) and the names taken `from` it.
Import = tuple[str, int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What is known of a code object, that of the functions and classes in it included.

    Args:
        digest: of what it does.
        names: the global names it loads, in the order met.
        imports: what it imports.
        dynamic: whether it may get at names or modules that cannot be read off it.
    """

    digest: str
    names: tuple[str, ...]
    imports: tuple[Import, ...]
    dynamic: bool


class Codes:
    """The code objects of one process, each looked at once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[CodeType, Compiled]] = {}

    def of(self, code: CodeType) -> Compiled:
        """Return what is known of `code`."""
        known = self._known.get(id(code))
        if known is None:
            known = self._known[id(code)] = (code, _Reading(code, self).result())
        return known[1]


#: What a class or module body stores about its source.  Python 3.13 adds the line, and
#: attributes in the order of a set.
_OF_SOURCE = {"__doc__", "__firstlineno__", "__static_attributes__"}
_DYNAMIC = {"eval", "exec", "globals", "__import__", "import_module"}
_LOADS_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}

_NAMED = frozenset(dis.hasname)
_CONSTANT = frozenset(dis.hasconst)
_GLOBAL = frozenset(dis.opmap[name] for name in _LOADS_GLOBAL if name in dis.opmap)
_STORE_NAME = dis.opmap["STORE_NAME"]
_IMPORT_NAME = dis.opmap["IMPORT_NAME"]
_SMALL_INT = dis.opmap.get("LOAD_SMALL_INT")
#: Bits of the argument that stand below the index of the name.
_FLAGS = {
    dis.opmap["LOAD_GLOBAL"]: 1,
    **({dis.opmap["LOAD_ATTR"]: 1} if sys.version_info >= (3, 12) else {}),
    **({dis.opmap["LOAD_SUPER_ATTR"]: 2} if "LOAD_SUPER_ATTR" in dis.opmap else {}),
}
#: Set where there is a docstring, since Python 3.14.
_HAS_DOCSTRING = 0x4000000


class _Reading:
    """One pass over a code object; constants and names stand where they are used.

    Their own order does not count, so that a docstring, a constant nothing loads, shifts
    nothing.
    """

    def __init__(self, code: CodeType, codes: Codes):
        self._code = code
        self._codes = codes
        self._words: list[str] = []
        self._loaded: list[object] = []
        self._names: dict[str, None] = {}
        self._imports: dict[Import, None] = {}
        self._dynamic = not _DYNAMIC.isdisjoint(code.co_names)

    def result(self) -> Compiled:
        for operation, argument in _instructions(self._code.co_code):
            self._read(operation, argument)
        names = tuple(name for name in self._code.co_names if name not in _OF_SOURCE)
        found = digest.of_parts(
            " ".join(self._words), repr(names), *_frame(self._code), _handlers(self._code)
        )
        return Compiled(found, tuple(self._names), tuple(self._imports), self._dynamic)

    def _read(self, operation: int, argument: int) -> None:
        if operation in _CONSTANT:
            self._words.append(f"{operation}={self._constant(self._code.co_consts[argument])}")
        elif operation in _NAMED:
            self._name(operation, argument)
        else:
            if operation == _SMALL_INT:
                self._loaded.append(argument)
            self._words.append(f"{operation}.{argument}")

    def _constant(self, value: object) -> str:
        self._loaded.append(value)
        if not isinstance(value, CodeType):
            return _written(value)
        inner = self._codes.of(value)
        self._names.update(dict.fromkeys(inner.names))
        self._imports.update(dict.fromkeys(inner.imports))
        self._dynamic = self._dynamic or inner.dynamic
        return f"{value.co_name} {inner.digest}"

    def _name(self, operation: int, argument: int) -> None:
        bits = _FLAGS.get(operation, 0)
        name = self._code.co_names[argument >> bits]
        if operation == _STORE_NAME and name in _OF_SOURCE:
            self._words.pop()  # what is stored
            return
        if operation in _GLOBAL:
            self._names[name] = None
        elif operation == _IMPORT_NAME:
            level, taken = self._loaded[-2:]
            assert isinstance(level, int)
            self._imports[name, level, taken if isinstance(taken, tuple) else ()] = None
        self._words.append(f"{operation}.{argument & (1 << bits) - 1}.{name}")


def _instructions(code: bytes) -> Iterator[tuple[int, int]]:
    extended = 0
    for operation, argument in zip(code[::2], code[1::2], strict=True):
        if operation == dis.EXTENDED_ARG:
            extended = (extended | argument) << 8
        elif operation:  # 0 is room for the interpreter's own caches
            yield operation, extended | argument
            extended = 0


def _frame(code: CodeType) -> Iterator[str]:
    yield repr((code.co_varnames, code.co_freevars, code.co_cellvars))
    yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount))
    yield str(code.co_flags & ~_HAS_DOCSTRING)


def _handlers(code: CodeType) -> str:
    """Return which instructions stand in a `try`: moving one in or out may change only this."""
    return code.co_exceptiontable.hex()


def _written(value: object) -> str:
    try:
        return plain(value)
    except ValueError:
        return f"{type(value).__name__} {value!r}"  # a slice, since Python 3.14


#: What `plain` takes; `marshal` would take any buffer for bytes.
_PLAIN: set[type] = {
    *(type(None), type(...), bool, int, float, complex, str, bytes),
    *(tuple, list, dict, set, frozenset),
}


def plain(value: Any) -> str:
    """Return the digest of a constant, or of lists, dicts, sets and tuples of constants.

    Types count, and so does the order of a dict, but not that of a set.

    Raises:
        ValueError: it is none, or too deeply nested.
    """
    if type(value) not in _PLAIN:
        raise ValueError(f"{type(value).__name__} is not plain")
    # Version 2 knows no references, which would tell how often a value is used elsewhere.
    return digest.of_bytes(marshal.dumps(value, 2))
