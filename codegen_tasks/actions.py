"""Cached results of steps: the keys under which they are found, and how one is written down.

What a step will read is known only once it has run.  So a result is found in two looks: under
what is known before (which step of which rule, what is declared for it) stand the *read sets*
of runs so far, which name inputs without what they said; under a read set and the digests that
its inputs have now stands the result.  Pure, no I/O.

Steps of one rule mostly read alike, but for their own pattern or source.  Their read sets are
kept together, with a mark in place of that name; a step that does not read like the first of its
rule has its own besides, for there may be too many to be kept together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, get_args

from . import digest
from .keys import How, Reads
from .model import PATH_KINDS, TORN, Input, Result, Step, input_of, reads_of, row_of

#: Raised when keys or results are made differently.
FORMAT = "1"
#: So many read sets are kept under one key, the newest.
SETS = 16
#: So many bundles are known of one kind.
BUNDLES = 8
#: Contents of up to so many bytes stand in the result itself.
INLINE = 16_384

#: What one step reads: kind and name of each input, and which parts of a pattern.
ReadSet: TypeAlias = tuple[tuple[str, str, Reads], ...]
#: Stands for the name of the step's own pattern or source; no file has it.
_OWN = "\0own"
_HOW: tuple[str, ...] = get_args(How)
#: No step takes longer, in seconds.
_LONGEST = 10_000_000.0

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Content:
    """One file of a result: path, digest and size (bytes) of what it holds, and that, if short."""

    path: str
    digest: str
    size: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A result as it is kept: files by their contents' digests.

    Args:
        result: the result, without its outputs.
        contents: these.
    """

    result: Result
    contents: tuple[Content, ...]


# Keys -----------------------------------------------------------------------------------


def shared_key(step: Step, declared: Sequence[tuple[str, str]], machine: str) -> str:
    """Return the key of the read sets that a step has in common with others of its rule.

    Args:
        step: the step.
        declared: kind and name of the inputs that its declaration gives it.
        machine: what of the machine shapes its outputs; "" for nothing.
    """
    own = own_name(step)
    names = [[kind, _OWN if name == own else name] for kind, name in declared]
    said = [step.phase, step.rule, step.template, step.many, step.link, step.item is not None]
    return _digest(["shared", FORMAT, machine, said, names])


def own_key(step: Step, declared: Sequence[tuple[str, str]], machine: str) -> str:
    """Return the key of a step's own read sets; arguments as of `shared_key`."""
    said = [step.phase, step.rule, step.template, step.many, step.link, step.item]
    where = [list(step.outputs), step.source, list(step.patterns)]
    return _digest(["own", FORMAT, machine, said, where, list(map(list, declared))])


def result_key(own: str, reads: ReadSet, digests: Sequence[str]) -> str:
    """Return the key of a result.

    Args:
        own: the step's `own_key`.
        reads: what it reads.
        digests: of each of these, as it is now.
    """
    return key_of_texts(own, (text_of(reads, digests),))


def text_of(reads: ReadSet, digests: Sequence[str]) -> str:
    """Return what `key_of_texts` is told of some inputs; arguments as of `result_key`."""
    return _encode([[*one, now] for one, now in zip(reads, digests, strict=True)])[1:-1]


def key_of_texts(own: str, texts: Iterable[str]) -> str:
    """Return `result_key` of the inputs of some texts; own as there."""
    said = f'["result","{own}",[{",".join(texts)}]]'
    return digest.of_bytes(said.encode("utf-8", "surrogatepass"))


def own_name(step: Step) -> str:
    """Return the name of the one pattern or source that a step has; "" if there is no such."""
    if step.source:
        return step.source
    return step.patterns[0] if len(step.patterns) == 1 else ""


def _digest(data: Any) -> str:
    return digest.of_bytes(_encode(data).encode("utf-8", "surrogatepass"))


def bundles_key(shared: str) -> str:
    """Return the key under which the bundles of a kind stand; `shared` is its `shared_key`."""
    return _digest(["bundles", FORMAT, shared])


# Read sets ------------------------------------------------------------------------------


def read_set(inputs: Iterable[Input]) -> ReadSet:
    """Return the read set of what a step has read."""
    return tuple((item.kind, item.name, item.reads) for item in inputs)


def shared(reads: ReadSet, own: str) -> ReadSet:
    """Return a read set with the mark in place of the step's own name."""
    return tuple((kind, _OWN if name == own else name, keys) for kind, name, keys in reads)


def owned(reads: ReadSet, own: str) -> ReadSet:
    """Return a shared read set as that of a step; the reverse of `shared`."""
    return tuple((kind, own if name == _OWN else name, keys) for kind, name, keys in reads)


def with_newest(sets: Sequence[ReadSet], newest: ReadSet) -> list[ReadSet]:
    """Return read sets with one more, the newest first; the first there ever was stays the last."""
    if newest in sets:
        return list(sets)
    return [newest, *sets[: SETS - 2], *sets[SETS - 2 :][-1:]]


def written_sets(sets: Sequence[ReadSet]) -> bytes:
    """Return read sets as they are kept."""
    return _sealed(_encode({"version": FORMAT, "sets": sets}))


def sets_in(raw: bytes) -> list[ReadSet]:
    """Return the read sets in what was kept; none if that is not whole."""
    try:
        data = _unsealed(raw)
        return [
            tuple(("" + kind, "" + name, _reads_in(keys)) for kind, name, keys in one)
            for one in data["sets"][:SETS]
        ]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []


#: Kinds of values that name a part of a pattern.
_PARTS = (str, int, float, bool, type(None))


def _reads_in(rows: Iterable[Any]) -> Reads:
    """Return what was read of a pattern.  Raises ValueError, TypeError: it is nothing of ours.

    What is nested could be read here, and be too deep to be written further down.
    """
    found = reads_of(rows)
    for path, how in found:
        if how not in _HOW or not all(type(part) in _PARTS for part in path):
            raise ValueError("no part of a pattern")
    return found


# Bundles --------------------------------------------------------------------------------


def written_bundles(sizes: Mapping[str, int]) -> bytes:
    """Return the list of a kind's bundles as it is kept: digests, and how large each is.

    That is the number of its steps where they are kept, and of its bytes where it travels.
    """
    return _sealed(_encode({"version": FORMAT, "bundles": list(sizes.items())}))


def with_bundle(sizes: Mapping[str, int], name: str, size: int) -> dict[str, int]:
    """Return a list of bundles with one more, the newest first.

    Where they are too many, the smallest is left out, of equal ones the oldest.
    """
    before = {one: large for one, large in sizes.items() if one != name}
    while len(before) >= BUNDLES:
        del before[min(reversed(before), key=lambda one: before[one])]
    return {name: size, **before}


def bundles_in(raw: bytes) -> dict[str, int]:
    """Return the list of bundles in what was kept, the newest first; none if it is not whole."""
    try:
        found = {"" + name: 0 + size for name, size in _unsealed(raw)["bundles"]}
        return found if all(map(digest.is_one, found)) else {}
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}


# Results --------------------------------------------------------------------------------


def without_signatures(item: Input) -> Input:
    """Return an input without its file's signature, which is of one machine."""
    return replace(item, stat=None) if item.stat is not None else item


def torn(inputs: Iterable[Input]) -> bool:
    """Tell whether nobody knows what one of the files said that were read."""
    return any(item.kind in PATH_KINDS and item.digest == TORN for item in inputs)


def written(result: Result) -> tuple[bytes, dict[str, bytes]]:
    """Return a result as it is kept, and the contents, by digest, that are kept beside it."""
    contents, beside = [], {}
    for path, data in result.outputs.items():
        content = digest.of_bytes(data)
        short = len(data) <= INLINE
        contents.append([path, content, len(data), data.decode("latin-1") if short else None])
        if not short:
            beside[content] = data
    record = {
        "version": FORMAT,
        "inputs": [row_of(without_signatures(item)) for item in result.inputs],
        "outputs": contents,
        "references": list(result.references),
        "printed": result.printed,
        "seconds": result.seconds,
    }
    return _sealed(_encode(record)), beside


def stored_in(raw: bytes, met: dict[Any, Input] | None = None) -> Stored | None:
    """Return the result in what was kept; None if that is not whole.

    Args:
        raw: what was kept.
        met: inputs of other results, by their rows; new ones are added.
    """
    try:
        data = _unsealed(raw)
        contents = tuple(_content(*fields) for fields in data["outputs"])
        inputs = tuple([_input(fields, met) for fields in data["inputs"]])
        if any(item.stat is not None for item in inputs):
            raise ValueError("of a machine")
        result = Result(
            inputs,
            {},
            tuple("" + name for name in data["references"]),
            "" + data["printed"],
            seconds_in(data["seconds"]),
        )
        result.printed.encode("utf-8", "surrogateescape")  # or nobody could print it
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
    return Stored(result, contents)


def answers(stored: Stored, step: Step, reads: ReadSet, digests: Sequence[str]) -> bool:
    """Tell whether a result is what was asked for, and not another under its name."""
    found = tuple((item.kind, item.name, item.reads, item.digest) for item in stored.result.inputs)
    asked = tuple((*one, now) for one, now in zip(reads, digests, strict=True))
    return found == asked and {one.path for one in stored.contents} == set(step.outputs)


def complete(stored: Stored, contents: Mapping[str, bytes]) -> Result:
    """Return a stored result with its outputs; contents that do not stand in it, by digest."""
    outputs = {
        one.path: one.data if one.data is not None else contents[one.digest]
        for one in stored.contents
    }
    return replace(stored.result, outputs=outputs)


def _input(fields: Sequence[Any], met: dict[Any, Input] | None) -> Input:
    if met is None or len(fields) > 5:  # it has been read in parts, so no other step has it
        return input_of(*fields)
    row = tuple(fields)
    found = met.get(row)
    if found is None:
        found = met[row] = input_of(*fields)
    return found


def _content(path: str, content: str, size: int, text: str | None) -> Content:
    "".join((path, content))
    # A digest is the name of a file in the store: nothing else may pass for one.
    if not digest.is_one(content) or type(size) is not int or size < 0:
        raise ValueError("no content")
    data = text.encode("latin-1") if text is not None else None
    if data is not None and (len(data) != size or digest.of_bytes(data) != content):
        raise ValueError("the content is not what it should be")
    return Content(path, content, size, data)


def seconds_in(found: float) -> float:
    """Return a time that was kept.  Raises ValueError, TypeError if it is none."""
    if not 0.0 <= found <= _LONGEST:
        raise ValueError("no time")
    return 0.0 + found


# A text begins with its own digest, so that a torn one is seen.


def _sealed(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return digest.of_bytes(data).encode() + b"\n" + data


def _unsealed(raw: bytes) -> Any:
    """Return the data in a sealed text.  Raises ValueError if it is not whole."""
    seal, _, text = raw.partition(b"\n")
    if seal != digest.of_bytes(text).encode():
        raise ValueError("torn")
    data = json.loads(text.decode("utf-8", "surrogatepass"))
    if not isinstance(data, dict) or data.get("version") != FORMAT:
        raise ValueError("of another version")
    return data
