"""Which keys of a pattern a render reads: tables that note it, and their digest.

A render is handed a pattern as `Table`s, which behave as plain dicts and note what is asked
of them, and as lists, which count whole.  What was noted (`Reads`) selects the same parts of
a later version of the pattern, so that a change of anything else makes nothing stale.

A table that leaves the templates, for a filter of the project or any other function that is
not Jinja2's, leaves as a plain dict and counts whole: what becomes of it there cannot be seen.
"""

from __future__ import annotations

import json
import marshal
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, TypeAlias

from . import digest

#: Keys and indices from the top of a pattern.
Path: TypeAlias = tuple[Any, ...]
#: What was read there: the whole "value" or that there is none, which "keys" a table has,
#: whether a key is "there", or that it is a "table".
How: TypeAlias = Literal["value", "keys", "there", "table"]
Reads: TypeAlias = tuple[tuple[Path, How], ...]
WHOLE: Reads = (((), "value"),)
_MISSING = object()
_HOLDERS = (dict, list)
_get = dict.get


class Notes:
    """What was read of one pattern so far.

    Args:
        known: what others that noted the same have come to; it is one object for all.
    """

    __slots__ = ("_found", "_known")

    def __init__(self, known: dict[Reads, Reads] | None = None) -> None:
        self._found: dict[tuple[Path, How], None] = {}
        self._known = {} if known is None else known

    def add(self, path: Path, how: How) -> None:
        """Note that something was read."""
        self._found[path, how] = None

    def include(self, other: Notes) -> None:
        """Note all that another has noted."""
        self._found.update(other._found)

    def reads(self) -> Reads:
        """Return what was read, without what a whole value covers."""
        found = tuple(self._found)
        reads = self._known.get(found)
        if reads is None:
            reads = self._known[found] = _uncovered(found)
        return reads


def _uncovered(found: Reads) -> Reads:
    whole = {path for path, how in found if how == "value"}
    return tuple(
        (path, how)
        for path, how in found
        if not (how != "value" and path in whole)
        and not any(path[:length] in whole for length in range(len(path)))
    )


class Table(dict[Any, Any]):
    """A private copy of a pattern's table that notes what is read of it.

    Args:
        content: the table; its strings are the only keys.
        notes: where reads are noted.
        path: of the table in its pattern.
    """

    __slots__ = ("_codegen_handed", "_codegen_notes", "_codegen_path")

    def __init__(self, content: Mapping[str, Any], notes: Notes, path: Path = ()):
        dict.__init__(self, content)
        self._codegen_notes = notes
        self._codegen_path = path
        self._codegen_handed: set[Any] = set()  # keys whose value is the render's own already

    def __getitem__(self, key: Any) -> Any:
        value = _get(self, key, _MISSING)
        if value is _MISSING:
            self._codegen_notes.add((*self._codegen_path, _noted(key)), "value")
            raise KeyError(key)
        if key in self._codegen_handed:
            return value
        self._codegen_handed.add(key)
        handed = _handed(value, self._codegen_notes, (*self._codegen_path, key))
        if handed is not value:
            super().__setitem__(key, handed)
        return handed

    def _codegen_hand_all(self) -> None:
        self._codegen_notes.add(self._codegen_path, "keys")
        for key in list(super().keys()):
            self[key]

    def _codegen_keys(self) -> None:
        self._codegen_notes.add(self._codegen_path, "keys")

    def _codegen_give(self, key: str, value: Any) -> None:
        """Add a key that is not the pattern's."""
        self._codegen_handed.add(key)
        super().__setitem__(key, value)

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: Any) -> bool:
        self._codegen_notes.add((*self._codegen_path, _noted(key)), "there")
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        self._codegen_keys()
        return super().__iter__()

    def __reversed__(self) -> Iterator[Any]:
        self._codegen_keys()
        return super().__reversed__()

    def __len__(self) -> int:
        self._codegen_keys()
        return super().__len__()

    def keys(self) -> Any:
        self._codegen_keys()
        return super().keys()

    def values(self) -> Any:
        self._codegen_hand_all()
        return super().values()

    def items(self) -> Any:
        self._codegen_hand_all()
        return super().items()

    def __eq__(self, other: object) -> bool:
        return bool(plain(self) == other)

    def __ne__(self, other: object) -> bool:
        return bool(plain(self) != other)

    __hash__ = None  # as a dict's

    def __repr__(self) -> str:
        return repr(plain(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (dict, (plain(self),))

    def copy(self) -> dict[Any, Any]:
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()


def _mutator(name: str) -> Callable[..., Any]:
    """Return a dict's method of that name, for a table that has handed out everything first."""
    method = getattr(dict, name)

    def change(self: Table, *given: Any, **named: Any) -> Any:
        self._codegen_hand_all()
        try:
            return method(self, *given, **named)
        finally:
            self._codegen_handed.update(dict.keys(self))

    change.__name__ = name
    return change


for _name in (
    *("__setitem__", "__delitem__", "__ior__"),
    *("pop", "popitem", "setdefault", "update", "clear"),
):
    setattr(Table, _name, _mutator(_name))
# Messages, and classes of undefined values that print what they lack, say "dict object".
Table.__name__ = Table.__qualname__ = "dict"
Table.__module__ = "builtins"


def handed(data: Any, notes: Notes, tracked: bool = True, path: Path = ()) -> Any:
    """Return data of a file as a render may have it.

    Args:
        data: what the file says at `path`.
        notes: where it is noted what is read.
        tracked: hand out a table that notes each key; else all is noted, and copied.
        path: in the file.
    """
    if tracked:
        return _handed(data, notes, path)
    notes.add(path, "value")
    return copied(data)


def _handed(value: Any, notes: Notes, path: Path) -> Any:
    """Return a value of a pattern as a render may have it, and note that it does."""
    kind = type(value)
    if kind is dict and all(type(key) is str for key in value):
        # Code in C (that of `json`) sees without asking that a table is empty.
        notes.add(path, "table" if value else "keys")
        return Table(value, notes, path)
    notes.add(path, "value")
    return copied(value) if kind in _HOLDERS else value


def _noted(key: Any) -> Any:
    """Return a key that was asked for as a path has it; the pattern's own are strings."""
    return key if isinstance(key, (str, int)) else str(key)


def copied(value: Any) -> Any:
    """Return a copy of JSON-like data that shares no table and no list with it."""
    if type(value) not in _HOLDERS:
        return value
    try:
        return marshal.loads(marshal.dumps(value))  # twice as fast as in Python
    except ValueError:  # it holds a date, or a table that notes
        return _copied(value)


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _copied(part) for key, part in value.items()}
    if kind is list:
        return [_copied(part) for part in value]
    return value


def give(table: Table, key: str, value: Any) -> None:
    """Add a key that is not the pattern's to a table; nothing is noted when it is read."""
    table._codegen_give(key, value)


class View:
    """What one render sees of its patterns: variables, and a note of what is read of them.

    Args:
        layers: tables whose keys are variables; the first that has a key gives it.
        fixed: variables that are no pattern's keys; they hide what is.
        notes: all that is noted of each pattern, by path.
    """

    def __init__(
        self, layers: Sequence[Table], fixed: Mapping[str, Any], notes: Mapping[str, Notes]
    ):
        self.fixed = fixed
        self.notes = notes
        self._layers = layers
        self.variables: dict[str, Any] = {}
        for layer in reversed(layers):
            self.variables.update(dict.items(layer))
        self.variables.update(fixed)

    def see_all(self) -> None:
        """Note that everything was read."""
        for notes in self.notes.values():
            notes.add((), "value")

    def roots(self) -> Iterator[tuple[str, Path, Table]]:
        """Yield the tables that it shows, with their patterns' paths and their places there."""
        paths = {id(notes): path for path, notes in self.notes.items()}
        many = self.fixed.get("patterns", ())
        for table in (*self._layers, *(many if isinstance(many, list) else ())):
            if type(table) is Table and id(table._codegen_notes) in paths:
                yield paths[id(table._codegen_notes)], table._codegen_path, table

    def seen(self, key: str, found: Any, missing: Any) -> Any:
        """Return what a template that looks for a variable sees.

        Args:
            key: the variable.
            found: what its context has: the pattern's own value, or another that hides it.
            missing: stands for none.
        """
        if key in self.fixed or found is not self.variables.get(key, found):
            return found
        for layer in self._layers:
            value = layer.get(key, missing)
            if value is not missing:
                return value
        return found


# Leaving the templates ------------------------------------------------------------------


def plain(value: Any, made: dict[int, tuple[Table, dict[Any, Any]]] | None = None) -> Any:
    """Return a table as a plain dict, and note that all of it was read; else the value.

    Args:
        value: any.
        made: by `id`, tables that were done already and their plain dicts; is added to.
    """
    if type(value) is not Table:
        return value
    made = {} if made is None else made
    if id(value) not in made:
        value._codegen_notes.add(value._codegen_path, "value")
        content: dict[Any, Any] = {}
        made[id(value)] = value, content
        content.update((key, plain(value[key], made)) for key in list(dict.keys(value)))
    return made[id(value)][1]


#: Iterators of these modules yield what they were made of and hide nothing else.
_PLAIN_ITERATORS = ("builtins", "itertools")
_ITEMS: Any = type({}.items())
_VALUES: Any = type({}.values())


def unwrapped(value: Any, seen: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Return a value without tables that note anything, for a function that is not Jinja2's.

    Lists and dicts that the template made are changed in place: the function may be there
    to change them.

    Args:
        value: any.
        seen: by `id`, what was done already and what became of it: data may hold itself, or
            the same twice.
    """
    kind = type(value)
    if kind is Table:
        return plain(value)
    if kind in (str, int, float, bool, NoneType):
        return value
    if isinstance(value, Iterator) and kind.__module__ in _PLAIN_ITERATORS:
        return (unwrapped(part) for part in value)
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, value
    new = _unwrapped_parts(value, seen)
    seen[id(value)] = value, new
    return new


def _unwrapped_parts(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """Return what holds other values without tables, itself if it can be changed."""
    kind = type(value)
    if isinstance(value, tuple):
        parts = [unwrapped(part, seen) for part in value]
        if all(map(operator.is_, parts, value)):
            return value
        return kind._make(parts) if hasattr(kind, "_make") else tuple(parts)
    if kind is _ITEMS:
        return {key: unwrapped(part, seen) for key, part in value}.items()
    if kind is _VALUES:
        return dict(enumerate(unwrapped(part, seen) for part in value)).values()
    if (kind.__module__, kind.__name__) == ("jinja2.utils", "Namespace"):
        unwrapped(object.__getattribute__(value, "_Namespace__attrs"), seen)
    elif isinstance(value, (list, dict)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            part = value[key]
            new = unwrapped(part, seen)
            if new is not part:
                value[key] = new
    return value


def called_with_plain(call: Callable[..., Any], given: Any, named: Any) -> Any:
    """Call a function that is not Jinja2's; what it changes in a table, the template sees."""
    made: dict[int, tuple[Table, dict[Any, Any]]] = {}

    def handed(value: Any) -> Any:
        return plain(value, made) if type(value) is Table else unwrapped(value)

    try:
        return call(*map(handed, given), **{k: handed(v) for k, v in named.items()})
    finally:
        _put_back(made.values())


def _put_back(made: Collection[tuple[Table, dict[Any, Any]]]) -> None:
    """Give tables what their plain dicts have become; those below them stay the same tables."""
    tables = {id(content): table for table, content in made}
    for table, content in made:
        now = [(key, tables.get(id(part), part)) for key, part in content.items()]
        if [(key, id(part)) for key, part in now] != [
            (key, id(part)) for key, part in dict.items(table)
        ]:  # else a template may be iterating over it
            dict.clear(table)
            dict.update(table, now)
            table._codegen_handed.update(content)


# Selecting ------------------------------------------------------------------------------


def select(data: Any, reads: Reads, string_keys: bool = False) -> tuple[str, str]:
    """Return the digest of what was read of a pattern's data, and the text it is made from.

    Args:
        data: what the pattern says.
        reads: what was read of it.
        string_keys: all keys in it are known to be strings.
    """
    text = digest.text_of([_selected(data, path, how) for path, how in reads], string_keys)
    return digest.of_bytes(text.encode("utf-8", "surrogatepass")), text


def _selected(data: Any, path: Path, how: How) -> list[Any]:
    """Return a list of what was read; an empty one if there is no such thing."""
    if how == "value" and len(path) == 1 and type(data) is dict:  # as most are
        return [data[path[0]]] if path[0] in data else []
    for part in path:
        if isinstance(data, dict):
            if part not in data:
                return [] if how != "there" else [False]
        elif not (isinstance(data, list) and type(part) is int and 0 <= part < len(data)):
            return []
        data = data[part]
    if how == "keys":
        return [list(data)] if isinstance(data, dict) else []
    if how == "value":
        return [data]
    return [True] if how == "there" else [isinstance(data, dict)]


def changes(reads: Reads, old: str, new: str) -> list[tuple[str, str, str]]:
    """Return (place, old value, new value) of all that differs; texts are those of `select`.

    Empty if a text is not to be had.
    """
    try:
        before, after = json.loads(old), json.loads(new)
    except ValueError:
        return []
    found: list[tuple[str, str, str]] = []
    for (path, how), one, other in zip(reads, before, after, strict=False):
        if _same(one, other):
            continue
        if how == "keys" and not (one and other):
            was, now = ("a table" if token else "no table" for token in (one, other))
            found.append((place(path), was, now))
        elif how in ("keys", "table"):
            found += _differences(path, _told(one), _told(other))
        else:
            found += _differences(path, one, other)
    return list(dict.fromkeys(found))


class _Said(str):
    """What is told of a value instead of the value."""

    __slots__ = ()


def _told(token: list[Any]) -> list[Any]:
    """Return which keys a table has, or whether there is one, in words."""
    if token and isinstance(token[0], list):
        return [dict.fromkeys(token[0], _Said("present"))]
    return [_Said("a table" if part else "no table") for part in token]


def _differences(path: Path, old: list[Any], new: list[Any]) -> Iterator[tuple[str, str, str]]:
    if not old or not new:
        yield place(path), _shown(old), _shown(new)
        return
    one, other = old[0], new[0]
    keys: Iterable[Any]
    if _is_table(one) and _is_table(other):
        keys = dict.fromkeys([*one, *other])
        found = [
            each
            for key in keys
            if not _same(_part(one, key), _part(other, key))
            for each in _differences((*path, key), _part(one, key), _part(other, key))
        ]
        yield from found or [(place(path), "keys in one order", "in another")]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            if not _same(*pair):
                yield from _differences((*path, index), [pair[0]], [pair[1]])
    else:
        yield place(path), _shown(old), _shown(new)


#: What the text of a digest has for a date or time is a table of one of these.
_TIMES = {"\0date", "\0time", "\0datetime"}


def _is_table(value: Any) -> bool:
    """Tell whether a value of a digest's text is a table, and not a date or time."""
    return isinstance(value, dict) and value.keys().isdisjoint(_TIMES)


def _same(one: Any, other: Any) -> bool:
    """Tell whether a digest takes two values for one: 1 and 1.0 are two, as are two orders."""
    return digest.text_of(one) == digest.text_of(other)


def _part(table: Mapping[str, Any], key: str) -> list[Any]:
    return [table[key]] if key in table else []


def place(path: Path) -> str:
    """Return a path as people write it: `nodes[2].decay`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".").replace("\0", "")  # see `digest`: a key's type


def _shown(token: list[Any]) -> str:
    if not token:
        return "absent"
    if isinstance(token[0], _Said):
        return token[0]
    if isinstance(token[0], dict) and not _is_table(token[0]):
        return " ".join(map(str, token[0].values()))
    text = json.dumps(token[0], ensure_ascii=False)
    if len(text) <= 40:
        return text
    if isinstance(token[0], (list, dict)):
        noun = "items" if isinstance(token[0], list) else "keys"
        return f"{len(token[0])} {noun}"
    return text[:39] + "…"
