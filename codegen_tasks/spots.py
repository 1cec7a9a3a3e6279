"""On which line of a pattern file a key stands; told only where it is sure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from . import texts
from .keys import Path

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
#: A larger file would be parsed too often.
_LARGEST = 1_000_000


def line(name: str, text: str, path: Path) -> int:
    """Return the line, from 1, on which what `path` leads to is given; 0 if that is not sure.

    Args:
        name: of the file; its suffix tells the format.
        text: what the file says.
        path: keys and indices from its top.
    """
    if not path or len(text) > _LARGEST:
        return 0
    if name.endswith((".yaml", ".yml")):
        finder: Callable[[str, Path], int] = _yaml
    else:
        finder = _json if name.endswith(".json") else _toml
    try:
        return finder(text, path)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return 0


def _toml(text: str, path: Path) -> int:
    """Find the statement by which a beginning of the file has the key, and a shorter one has not.

    What ends between two statements is TOML itself; what ends within one is none.
    """
    lines = text.split("\n")
    ends: dict[int, bool | None] = {0: False}

    def has(end: int) -> bool | None:
        if end not in ends:
            try:
                ends[end] = _leads(texts.toml("\n".join(lines[:end]) + "\n"), path)
            except ValueError:
                ends[end] = None
        return ends[end]

    low, high = 0, len(lines)  # the key is not in the first, and is in the second
    if not has(high):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        while middle < high and has(middle) is None:
            middle += 1
        if middle == high:  # all of the upper half is within a statement
            middle = (low + high) // 2 - 1
            while middle > low and has(middle) is None:
                middle -= 1
            if middle == low:
                break
        if has(middle):
            high = middle
        else:
            low = middle
    told = (number for number in range(low, high) if not _says_nothing(lines[number]))
    return next(told, high - 1) + 1


def _says_nothing(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _leads(data: Any, path: Path) -> bool:
    for part in path:
        known: Any = data if isinstance(data, dict) else ()
        if isinstance(data, list) and type(part) is int:
            known = range(len(data))
        if part not in known:
            return False
        data = data[part]
    return True


def _json(text: str, path: Path) -> int:
    start = _skip(text, 0)
    told = 0
    for part in path:
        found = [at for key, at in _members(text, start) if key == part and type(key) is type(part)]
        told, start = found[-1]  # of a key that is there twice, the last one counts
    return text.count("\n", 0, told) + 1


def _members(text: str, start: int) -> Iterator[tuple[Any, tuple[int, int]]]:
    """Yield each key or index of a table or list, where it begins, and where its value does."""
    if text[start] not in "[{":
        return
    at, index = _skip(text, start + 1), 0
    while text[at] not in "]}":
        key: Any = index
        begins = at
        if text[start] == "{":
            key, at = scanstring(text, at + 1)
            at = _skip(text, _skip(text, at) + 1)
        yield key, (begins, at)
        at = _skip(text, _DECODER.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
        index += 1


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _yaml(text: str, path: Path) -> int:
    import yaml

    if "&" in text or "<<" in text:
        return 0  # what is given by an anchor stands in two places
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    told = 0
    for part in path:
        if isinstance(node, yaml.MappingNode):
            ((key, node),) = [pair for pair in node.value if pair[0].value == str(part)]
            told = key.start_mark.line
        else:
            node = node.value[part]
            told = node.start_mark.line
    return told + 1
