"""The fence around templates that are not trusted: what they may call, read, and how much make.

Jinja2's immutable sandbox keeps a template from Python's insides and from changing what
other renders see.  Added here are limits: no value and no text larger than `limit`, told
before it is made where its size can be told, and an end to the memory of a render for the
rest.  Time is limited by whoever runs the render.

Imports Jinja2, so it is itself imported where something is rendered, never before.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import re
import string
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import generate_lorem_ipsum

#: Bits of the largest whole number a template may compute.
_BITS = 100_000
#: Bytes of a list's slot.
_SLOT = 8
#: Times `limit` that a render's memory may grow, and bytes it may grow in any case.
_MEMORY = 8
_LEAST_MEMORY = 256_000_000
#: Methods that change what they belong to, besides those Jinja2 knows of.
_MUTATORS = frozenset({"intersection_update", "move_to_end", "subtract"})
#: Width and precision of a conversion, as `%` knows it.
_CONVERSION = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
_NUMBER = re.compile(r"\d+")


def environment(limit: int) -> type[Any]:
    """Return the class of environments whose renders make at most `limit` bytes."""
    return type("Sandbox", (_Sandbox,), {"limit": limit})


def is_private(path: str, state: str) -> bool:
    """Tell whether a template that is not trusted may not read a file of the project.

    Hidden files and folders, the project's Python and its declaration, and the state.

    Args:
        path: plain, project-relative, forward slashes.
        state: the state folder, project-relative.
    """
    plain = path.casefold()  # some file systems take both for one
    hidden = any(part.startswith(".") for part in plain.split("/"))
    code = plain.endswith((".py", ".pyc")) or plain == "pyproject.toml"
    return hidden or code or (plain + "/").startswith(state.casefold() + "/")


@contextlib.contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Let this process take only so much more memory, where the system can see to it.

    The limit is the process's: in a thread beside others it would be everybody's.

    Raises:
        SecurityError: it wanted more.
    """
    used = _address_space()
    if used is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + max(_MEMORY * limit, _LEAST_MEMORY)
    if resource.RLIM_INFINITY not in (soft, wanted):
        wanted = min(soft, wanted)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    except MemoryError:
        raise SecurityError(f"needs too much memory: {_words(limit)}") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int | None:
    """Return the bytes of this process's address space; None where that is not told."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _words(limit: int) -> str:
    return f"the limit is {limit} bytes (sandbox_bytes)"


class _Generator(CodeGenerator):
    """Compiles `a ~ b`, which Jinja2 lets no sandbox intercept, so that its size is seen."""

    def visit_Concat(self, node: Any, frame: Any) -> None:  # noqa: N802 -- Jinja2's name
        self.write("environment.within(")
        super().visit_Concat(node, frame)
        self.write(")")


class _Sandbox(ImmutableSandboxedEnvironment):
    """An environment for templates that are not trusted."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "*", "**", "%"))
    limit = 0

    def __init__(self, *args: Any, **named: Any):
        super().__init__(*args, **named)
        for name, size in _FILTERS.items():
            self.filters[name] = self._guarded(self.filters[name], size)
        self.globals["lipsum"] = self._guarded(generate_lorem_ipsum, _lipsum_size)

    # What may be reached ----------------------------------------------------------------

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse the insides of Python, what changes data, and everything in a module."""
        if isinstance(obj, ModuleType) or attr in _MUTATORS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    # How much may be made ---------------------------------------------------------------

    def concat(self, chunks: Iterable[str]) -> str:
        """Join what a template, block or macro puts out; stop as soon as it is too much."""
        total, parts = 0, []
        for chunk in chunks:
            total += _bytes(chunk)
            if total > self.limit:
                raise SecurityError(f"the output is larger than {self.limit} bytes (sandbox_bytes)")
            parts.append(chunk)
        return "".join(parts)

    def within(self, value: Any) -> Any:
        """Return a value that was made; refuse it if it is too large."""
        if isinstance(value, (str, bytes)):
            self._refuse(len(value))
        elif isinstance(value, (list, tuple)):
            self._refuse(len(value) * _SLOT)
        return value

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right` unless that would be too large."""
        if operator == "*":
            self._refuse(_product_size(left, right))
        elif operator == "**":
            self._refuse(_power_size(left, right))
        elif operator == "%" and isinstance(left, str):
            self._refuse(_percent_size(left, right))
        return self.within(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **named: Any) -> Any:  # noqa: N805 -- arguments may be called `self`
        """Call something unless what it returns would be too large."""
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja2 wraps `format`
        size = _METHODS.get(getattr(method, "__name__", ""))
        owner = getattr(method, "__self__", None)
        if size is not None and isinstance(owner, (str, bytes, int)):
            __self._refuse(_told(size, owner, *args, **named))
        return __self.within(super().call(__context, __obj, *args, **named))

    def _guarded(self, function: Callable[..., Any], size: Callable[..., float]) -> Any:
        """Return a filter or function that refuses to make something too large."""
        ahead = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def guarded(*args: Any, **named: Any) -> Any:
            self._refuse(_told(size, *args[ahead:], **named))
            return self.within(function(*args, **named))

        return guarded

    def _refuse(self, size: float) -> None:
        if size > self.limit:
            raise SecurityError(f"makes too large a value: {_words(self.limit)}")


# Sizes, told before anything is made -------------------------------------------------------


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _told(size: Callable[..., float], *args: Any, **named: Any) -> float:
    """Return what `size` tells; 0 for arguments that the function itself will refuse."""
    try:
        inspect.signature(size).bind(*args, **named)
        return size(*args, **named)
    except (TypeError, ValueError, AttributeError, KeyError):
        return 0


def _product_size(left: Any, right: Any) -> float:
    if isinstance(left, int) and isinstance(right, int):
        return _number_size(left.bit_length() + right.bit_length())
    for one, times in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(one, (str, bytes, bytearray)):
            return len(one) * times
        if isinstance(times, int) and isinstance(one, (list, tuple)):
            return len(one) * times * _SLOT
    return 0


def _power_size(base: Any, exponent: Any) -> float:
    if isinstance(base, int) and isinstance(exponent, int):
        return _number_size(base.bit_length() * exponent if abs(base) > 1 else 0)
    return 0


def _number_size(bits: int) -> float:
    return math.inf if bits > _BITS else 0


def _percent_size(text: str, values: Any) -> float:
    """Return at least the bytes that widths and precisions of `text % values` ask for."""
    listed = values if isinstance(values, tuple) else (values,)
    total = 0
    for found in _CONVERSION.finditer(text):
        for width in found.groups():
            if width == "*":  # any of the values, so the largest
                total += max((abs(v) for v in listed if isinstance(v, int)), default=0)
            elif width:
                total += _parsed(width)
    return total


def _format_size(text: str, *args: Any, **named: Any) -> float:
    """Return at least the bytes that the widths of `text.format(...)` ask for."""
    total = 0
    values = [*args, *named.values()]
    for _, _, spec, _ in string.Formatter().parse(text):
        total += sum(map(_parsed, _NUMBER.findall(spec or "")))
        if "{" in (spec or ""):  # a width that is itself a value: any, so the largest
            total += max((_largest(value) for value in values), default=0)
    return total


def _format_map_size(text: str, values: Mapping[str, Any]) -> float:
    return _format_size(text, *values.values())


def _largest(value: Any) -> int:
    """Return the largest number that a width made of a value could be."""
    if isinstance(value, str):
        return max(map(_parsed, _NUMBER.findall(value)), default=0)
    return abs(value) if isinstance(value, int) else 0


def _parsed(digits: str) -> int:
    # As many digits as no size has; Python would refuse to read thousands of them.
    return int(digits[:30])


def _width_size(value: Any, width: int = 0, fillchar: Any = "") -> float:
    return width


def _to_bytes_size(value: Any, length: int = 1, byteorder: str = "", *, signed: Any = 0) -> float:
    return length


def _tabs_size(text: Any, tabsize: int = 8) -> float:
    tabs = text.count(b"\t" if isinstance(text, bytes) else "\t")
    return float(len(text) + tabs * tabsize)


def _replaced_size(text: Any, old: Any, new: Any, count: int | None = -1) -> float:
    if not isinstance(text, bytes):
        text, old, new = str(text), str(old), str(new)
    found = text.count(old)
    times = found if count is None or count < 0 else min(found, count)
    return float(len(text) + times * len(new))


def _joined_size(separator: Any, values: Any) -> float:
    listed = values if isinstance(values, (list, tuple)) else ()
    texts = sum(len(value) for value in listed if isinstance(value, (str, bytes)))
    return float(texts + len(separator) * len(listed))


def _translated_size(text: str, table: Mapping[int, Any]) -> float:
    longest = max((len(v) for v in table.values() if isinstance(v, str)), default=1)
    return len(text) * longest


def _indented_size(s: Any, width: Any = 4, first: bool = False, blank: bool = False) -> float:
    lines = str(s).count("\n") + 1
    return float(len(str(s)) + lines * (len(width) if isinstance(width, str) else width))


def _round_size(value: Any, precision: int = 0, method: str = "common") -> float:
    return _number_size(4 * abs(precision))


def _batch_size(value: Any, linecount: int, fill_with: Any = None) -> float:
    return linecount * _SLOT


def _slice_size(value: Any, slices: int, fill_with: Any = None) -> float:
    return slices * _SLOT


def _json_size(value: Any, indent: int | None = None) -> float:
    return (indent or 0) * _SLOT


def _filled_size(value: Any, *args: Any, **named: Any) -> float:
    return _percent_size(str(value), (*args, *named.values()))


def _wrapped_size(
    s: str,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str | None = None,
    break_on_hyphens: bool = True,
) -> float:
    lines = len(s) // max(width, 1) + s.count("\n") + s.count(" ") + 1
    return len(s) + lines * len(wrapstring or "\n")


def _join_size(value: Any, d: Any = "", attribute: Any = None) -> float:
    return _joined_size(str(d), value)


def _lipsum_size(n: int = 5, html: bool = True, min: int = 20, max: int = 100) -> float:  # noqa: A002 -- Jinja2's names
    return n * max * 16


_FILTERS: dict[str, Callable[..., float]] = {
    "batch": _batch_size,
    "center": _width_size,
    "format": _filled_size,
    "indent": _indented_size,
    "join": _join_size,
    "replace": _replaced_size,
    "round": _round_size,
    "slice": _slice_size,
    "tojson": _json_size,
    "wordwrap": _wrapped_size,
}
_METHODS: dict[str, Callable[..., float]] = {
    "center": _width_size,
    "expandtabs": _tabs_size,
    "format": _format_size,
    "format_map": _format_map_size,
    "join": _joined_size,
    "ljust": _width_size,
    "replace": _replaced_size,
    "rjust": _width_size,
    "to_bytes": _to_bytes_size,
    "translate": _translated_size,
    "zfill": _width_size,
}
