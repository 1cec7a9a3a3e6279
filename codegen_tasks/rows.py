"""What is stored of a task's record: text under a checksum, what many records share apart.

The record of a step is its trace and what doit keeps.  Most of a trace stands in the next
one too: the rule, the environment, the templates.  So an input that is met again, or the
keys that were read of a pattern, is stored as a *part* of its own, and a record names it by
its digest.  Parts never change, and each is decoded once.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from . import digest
from .keys import Reads
from .model import Input, Trace, input_of, output_of, reads_of, row_of

_T = TypeVar("_T")
_VALUES = "_values_:"  # doit's name for what an action has returned
_ID = 16  # digits of a part's digest
_NAMED = re.compile(rb'"([0-9a-f]{%d})"' % _ID)
#: How a record with a trace begins; one without is as doit's codec writes it, a table.
_PACKED = "["
#: Between the JSON and the texts that stand after it as they are: no JSON holds it.
_NEXT = "\x1f"
#: So many rows of inputs are known by identity at most.
_KNOWN = 1_000
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class ByIdentity(Generic[_T]):
    """What was made of some inputs, found by the identity of each: the cheapest way to look.

    The inputs are kept, or others could come to have their identity.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[Sequence[Input], _T]] = {}

    def get(self, inputs: Sequence[Input], mark: int = 0) -> _T | None:
        """Return what was made of these inputs, and of a further number; None if nothing was."""
        known = self._known.get((mark, *map(id, inputs)))
        return known[1] if known is not None else None

    def put(self, made: _T, inputs: Sequence[Input], mark: int = 0) -> _T:
        """Keep what was made of them, and return it."""
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[(mark, *map(id, inputs))] = (inputs, made)
        return made


class Packer:
    """Turns the records of steps into text; remembers what it has met.

    Attributes:
        parts: text by name of the parts made since they were last taken from here.
    """

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self._met: dict[Any, str] = {}  # the part's name; "" if it was met only once
        self._texts: ByIdentity[str] = ByIdentity()

    def pack(self, trace: Trace, values: Mapping[str, Any], rest: Mapping[str, Any]) -> str:
        """Return the text of a record.

        Args:
            trace: the step's.
            values: what doit keeps of it besides.
            rest: the record's other entries.

        Raises:
            TypeError, ValueError: something in it is no JSON.
        """
        texts: list[str] = []
        own = own_inputs(trace.inputs)
        inputs = [self._row(item, texts) for item in trace.inputs[:own]]
        outputs = [[one.path, one.digest, one.size, one.stat] for one in trace.outputs]
        said = _encode([outputs, inputs, {_VALUES: values, **rest}, trace.made, trace.seconds])
        return _NEXT.join((f"[{self._common(trace.inputs[own:])},{said[1:]}", *texts))

    def _common(self, inputs: Sequence[Input]) -> str:
        """Return the text of inputs that others have too."""
        known = self._texts.get(inputs)
        if known is not None:
            return known
        found = [self._shared(item, item) for item in inputs]
        text = _encode(found)
        named = all(type(one) is str for one in found)
        return self._texts.put(text, inputs) if named else text

    def _row(self, item: Input, texts: list[str]) -> list[Any]:
        """Return the row of an input that only one step has."""
        # Not to be looked up as a whole: to Python, the keys 1 and true are equal.
        row = row_of(item)
        if item.reads:
            row[5] = self._shared(marshal.dumps(item.reads, 2), item.reads)
        shown = item.shown
        if '"' in shown and shown.isascii() and shown.isprintable():
            # Each quote of it would take a backslash, and time to read.
            texts.append(shown)
            row[4] = len(texts)
        return row

    def _shared(self, key: Any, what: Any) -> Any:
        """Return the name of a part; when met first, what it would hold."""
        name = self._met.get(key)
        if name:
            return name
        row = row_of(what) if isinstance(what, Input) else what
        if name is None:
            self._met[key] = ""
            return row
        text = _encode(row)
        name = self._met[key] = digest.of_bytes(text.encode())[:_ID]
        self.parts[name] = text
        return name


def own_inputs(inputs: Sequence[Input]) -> int:
    """Return how many of a step's inputs, which stand first, no other step has as they are."""
    return next((n for n, item in enumerate(inputs) if not item.reads), len(inputs))


class Unpacker:
    """Turns text into the record again.

    Args:
        decode: doit's, for the records without a trace.
        part: returns a part's text by its name, or raises KeyError or ValueError.
    """

    def __init__(self, decode: Callable[[str], Any], part: Callable[[str], str]):
        self._decode = decode
        self._part = part
        self._inputs: dict[str, Input] = {}
        self._reads: dict[str, Reads] = {}

    def unpack(self, text: str) -> dict[str, Any]:
        """Return the record; a step's trace is a `Trace` among its values.

        Raises:
            ValueError, TypeError, LookupError, AttributeError, RecursionError: it is none, or
                a part of it is missing.
        """
        if not text.startswith(_PACKED):
            found = self._decode(text)
            if not isinstance(found, dict):
                raise TypeError("no record")
            return found
        head, *texts = text.split(_NEXT)
        common, outputs, own, record, made, seconds = json.loads(head)
        "".join((made,))
        trace = Trace(
            tuple([self._input(one, texts) for one in (*own, *common)]),
            tuple([output_of(*one) for one in outputs]),
            made,
            0.0 + seconds,
        )
        record[_VALUES]["trace"] = trace
        return dict(record)

    def _input(self, row: Any, texts: list[str]) -> Input:
        if type(row) is not str:
            if len(row) > 5:
                if type(row[4]) is int:
                    row[4] = texts[row[4] - 1]
                if type(row[5]) is str:
                    row[5] = self._reads_named(row[5])
            return input_of(*row)
        found = self._inputs.get(row)
        if found is None:
            found = self._inputs[row] = input_of(*json.loads(self._part(row)))
        return found

    def _reads_named(self, name: str) -> Reads:
        found = self._reads.get(name)
        if found is None:
            found = self._reads[name] = reads_of(json.loads(self._part(name)))
        return found


def text_of(packer: Packer, encode: Callable[[Any], str], record: Mapping[str, Any]) -> str:
    """Return the text of any task's record.

    Args:
        packer: for what has a trace.
        encode: doit's, for what has none.
        record: as `Unpacker.unpack` returns it.
    """
    values = record.get(_VALUES)
    if not isinstance(values, dict) or not isinstance(values.get("trace"), Trace):
        return encode(record)
    trace = values["trace"]
    others = {key: value for key, value in values.items() if key != "trace"}
    rest = {key: value for key, value in record.items() if key != _VALUES}
    return packer.pack(trace, others, rest)


def parts_named(rows: Iterable[bytes]) -> set[str]:
    """Return what may be names of parts in sealed records."""
    return {name.decode() for row in rows for name in _NAMED.findall(row)}


# Sealing --------------------------------------------------------------------------------


def sealed(name: str, text: str) -> bytes:
    """Return what is stored under a name: eight digits of a checksum, and the text."""
    data = text.encode()
    return b"%08x%b" % (_checksum(name, data), data)


def unsealed(name: str, data: bytes) -> str:
    """Return the text again.

    Raises:
        ValueError, TypeError: this is not what was stored under that name.
    """
    if int(data[:8], 16) != _checksum(name, data[8:]):
        raise ValueError("the checksum is wrong")
    return data[8:].decode()


def _checksum(name: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(name.encode("utf-8", "surrogatepass")))


@dataclass(slots=True)
class Sealed:
    """Rows and parts by name, as they are stored."""

    rows: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)

    def clear(self) -> None:
        """Drop all of them."""
        self.rows.clear()
        self.parts.clear()


def sound(parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the parts that hold; who names one of the others is a miss, and stores it anew."""
    found = {}
    for name, data in parts.items():
        with contextlib.suppress(ValueError, TypeError):
            unsealed(name, data)
            found[name] = data
    return found
