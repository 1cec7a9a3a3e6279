"""What `each` of a rule names: the items of a list, or the entries of a table, one a target.

An item is known by its index or its key.  A render notes what named its target, too: as long as
that is the same, no other item has come into its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import keys
from .errors import StepError, nearest
from .keys import Notes, Path, Table
from .patterns import noun

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SCALARS = (str, int, float, bool)


def scalars(data: Mapping[str, Any]) -> dict[str, str]:
    """Return what may fill placeholders of that name."""
    return {key: str(value) for key, value in data.items() if isinstance(value, _SCALARS)}


def names_of(item: Any, place: int | str) -> dict[str, str]:
    """Return what an item has to fill placeholders.

    Args:
        item: the item.
        place: its index, or its key.
    """
    own = scalars(item) if isinstance(item, Mapping) else {"item": str(item)}
    return own if isinstance(place, int) else {**own, "key": place}


def items_of(each: str, path: str, data: Mapping[str, Any], rule: str) -> list[tuple[Any, Any]]:
    """Return the index or key of each item, and the item.

    Args:
        each: what the rule names.
        path: of the pattern.
        data: what that says.
        rule: its name.

    Raises:
        StepError: there is no such list or table.
    """
    asked = f"rule {rule} makes a target for each of its items"
    found: Any = data
    above: Path = ()
    for key in path_of(each, data):
        if not isinstance(found, Mapping):
            what = f"'{keys.place(above)}' must be a table, not {noun(found)}"
            raise StepError(path, what, details=[asked])
        if key not in found:
            missing = keys.place((*above, key))
            hint = _nearest(missing, key, above, found)
            raise StepError(path, f"lacks the list or table '{missing}'", hint, [asked])
        found, above = found[key], (*above, key)
    if isinstance(found, Mapping):
        return list(found.items())
    if isinstance(found, list):
        return list(enumerate(found))
    what = f"'{each}' must be a list or a table, not {noun(found)}"
    raise StepError(path, what, details=[asked])


def _nearest(missing: str, key: str, above: Path, table: Mapping[str, Any]) -> str:
    """Return a hint for a key that a table lacks: one like it, or the same a table deeper."""
    deeper = [one for one, value in table.items() if isinstance(value, Mapping) and key in value]
    if deeper:
        return f"did you mean '{keys.place((*above, deeper[0], key))}'?"
    return nearest(missing, [keys.place((*above, one)) for one in table])


def path_of(each: str, data: Mapping[str, Any]) -> Path:
    """Return the keys to what `each` names: one of the pattern's, or of nested tables by dots."""
    return (each,) if each in data else tuple(each.split("."))


def told(each: str | None, place: int | str) -> str:
    """Return which item is meant, for messages."""
    which = f"item {place + 1}" if isinstance(place, int) else f"entry '{place}'"
    return f"{which} of '{each}'"


def told_both(each: str | None, first: int | str, second: int | str) -> str:
    """Return which two items are meant, for messages."""
    if isinstance(first, int) and isinstance(second, int):
        return f"items {first + 1} and {second + 1} of '{each}'"
    return f"entries '{first}' and '{second}' of '{each}'"


def layers(
    each: str, place: int | str, target: str, top: Table, data: Mapping[str, Any], notes: Notes
) -> tuple[Any, list[Table]]:
    """Return an item as a render may have it, and the tables whose keys are variables.

    Args:
        each: what the rule names.
        place: index or key of the item.
        target: of the rule.
        top: the pattern, as the render has it.
        data: what the pattern says.
        notes: where it is noted what is read of the pattern.

    Raises:
        LookupError: there is no such item any more.
    """
    path = path_of(each, data)
    if len(path) > 1:
        notes.add((each,), "there")
    found: Any = data
    for key in (*path, place):
        found = found[key]
    item = keys.handed(found, notes, path=(*path, place))
    seen = [item, top] if isinstance(item, Table) else [top]
    for name in PLACEHOLDER.findall(target):
        if name != "key" or isinstance(place, int):
            _note_name(name, seen)
    return item, seen


def _note_name(name: str, seen: Sequence[Table]) -> None:
    """Note what fills a placeholder: that of the first table that has a scalar of that name."""
    for table in seen:
        if isinstance(table.get(name), _SCALARS):
            return


def keyed(each: str, place: int | str, top: Mapping[str, Any]) -> Iterator[tuple[str, Any, Path]]:
    """Yield variables of an item, their values, and the keys to them; those of its own first.

    Args:
        each: what the rule names.
        place: index or key of the item.
        top: the pattern.
    """
    path = path_of(each, top)
    holder: Any = top
    for key in path:
        holder = holder[key]
    item = holder[place]
    if isinstance(item, dict):
        for name, value in item.items():
            yield name, value, (*path, place, name)
    if isinstance(holder, dict):
        yield "key", next(key for key in holder if key == place), (*path, place)
    yield "item", item, (*path, place)
