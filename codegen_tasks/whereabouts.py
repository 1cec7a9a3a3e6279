"""Where a table stands that a template holds: in which file, and under which keys.

Asked only for a message, of a render that has failed; so it compares, and keeps no books.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from . import disk, keys, places, texts
from .errors import CodegenError

#: Path of a file, keys that lead to some data in it, and the data.
Root: TypeAlias = tuple[str, keys.Path, Any]


def told(owner: Any, roots: Iterable[Root], root: str) -> tuple[str, str]:
    """Return path and place, such as `chips/a.json:3: registers[2]`, of a table; or two "".

    Of tables that are alike the first is told.

    Args:
        owner: the table.
        roots: what it may be a part of.
        root: absolute path of the project.
    """
    wanted = _plain(owner)
    for path, above, data in roots:
        place = next(_found(wanted, _plain(data), above), None)
        if place:  # what stands at the top of a file is told by its name
            line = _line(os.path.join(root, path), path, place)
            return path, f"{path}:{line}: {keys.place(place)}" if line else ""
    return "", ""


def _found(wanted: Any, data: Any, place: keys.Path) -> Iterator[keys.Path]:
    """Yield the places at which data is what is wanted, outermost first."""
    if type(data) is dict:
        if data == wanted:
            yield place
        for key, part in data.items():
            yield from _found(wanted, part, (*place, key))
    elif type(data) is list:
        for index, part in enumerate(data):
            yield from _found(wanted, part, (*place, index))


def _plain(data: Any) -> Any:
    """Return data without tables that note what is read of them."""
    if isinstance(data, dict):
        return {key: _plain(part) for key, part in dict.items(data)}
    return [_plain(part) for part in data] if type(data) is list else data


def _line(full: str, path: str, place: keys.Path) -> int:
    try:
        return places.line_of(path, texts.decoded(path, disk.read(full)), place)
    except (OSError, CodegenError):
        return 0
