"""Where a key of a pattern stands in its file: the line, for TOML, JSON and YAML.

Looked for only when a message needs it, so it may take its time; 0 wherever it is not sure.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from json import decoder
from typing import Any

from . import texts

#: Lines of TOML that are looked through; each takes a part of the file to be parsed.
_MOST_LINES = 5_000
_BLANK = re.compile(r"[ \t\n\r]*")
_NONE = object()


def line_of(path: str, text: str, place: Sequence[Any]) -> int:
    """Return the line of a key or item, from 1; 0 if it cannot be told.

    Args:
        path: of the file, whose suffix tells the format.
        text: what it says, free of errors.
        place: keys and indices from the top.
    """
    suffix = os.path.splitext(path)[1].lower()
    looks = {".toml": _in_toml, ".json": _in_json, ".yaml": _in_yaml, ".yml": _in_yaml}
    if suffix not in looks or not place:
        return 0
    try:
        return looks[suffix](text, place)
    except (ValueError, LookupError, RecursionError, TypeError, AttributeError):
        return 0


def _value(data: Any, place: Sequence[Any]) -> Any:
    """Return what stands at a place of data; `_NONE` if nothing does."""
    for part in place:
        if isinstance(data, Mapping):
            data = data.get(part, _NONE)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return _NONE
    return data


def _in_toml(text: str, place: Sequence[Any]) -> int:
    """Return the line on which the statement begins that gives a key its value.

    The parser itself is asked which beginnings of the file are whole: the shortest one that has
    the key ends with that statement, and the longest that lacks it ends before it.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) > _MOST_LINES or _value(_beginning(lines, len(lines)), place) is _NONE:
        return 0
    # No beginning from `whole` (without its end) to `low` is whole; that of `high` has the key.
    whole, low, high = 0, 0, len(lines)
    while high - low > 1:
        tried = middle = (low + high) // 2
        while tried > low and (found := _beginning(lines, tried)) is None:
            tried -= 1
        if tried == low:
            low = middle
        elif _value(found, place) is not _NONE:
            high = tried
        else:
            whole, low = tried, middle
    return whole + 1


def _beginning(lines: Sequence[str], count: int) -> Any:
    """Return what the first lines of a TOML text say; None if they end amid a statement."""
    try:
        return texts.toml("\n".join(lines[:count]))
    except ValueError:
        return None


def _in_json(text: str, place: Sequence[Any]) -> int:
    """Return the line of a key, or on which an item begins."""
    values, at, begins = json.JSONDecoder(), _skip(text, 0), 0
    for part in place:
        opened, found = text[at], -1
        at = _skip(text, at + 1)
        count = 0
        while text[at] not in "]}":
            begins_here, key = at, count
            if opened == "{":
                key, at = decoder.scanstring(text, at + 1, True)  # type: ignore[attr-defined]
                at = _skip(text, _skip(text, at) + 1)  # over the colon
            if key == part:  # of two equal keys the last one counts
                found, begins = at, begins_here
            _, at = values.raw_decode(text, at)
            at = _skip(text, at)
            at = _skip(text, at + 1) if text[at] == "," else at
            count += 1
        if found < 0:
            return 0
        at = found
    return text.count("\n", 0, begins) + 1


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found is not None else at


def _in_yaml(text: str, place: Sequence[Any]) -> int:
    """Return the line of a key, or on which an item begins; behind an alias, where that stands."""
    import yaml

    node, mark = yaml.compose(text, yaml.SafeLoader), None
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            mark = node.start_mark
        elif isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
            if not pairs:
                return 0
            mark, node = pairs[-1][0].start_mark, pairs[-1][1]
        else:
            return 0
    return mark.line + 1 if mark is not None else 0
