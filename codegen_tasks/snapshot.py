"""The snapshot: signatures of all that the last build read and wrote.

By them a later run sees at once, before it makes a task, which steps may have work.

It is made of the traces in doit's database and tied to it by the database's stamp: one that
another run has outdated, or that is broken in any way, is none.  It says only that *nothing
has another signature*; whatever has is left to `staleness`.

    magic, digits of a checksum, length of the header
    the header, JSON
    names of the steps and paths of files, separated by NUL
    numbers: eight bytes each for signatures, four for all others, in the machine's order
"""

from __future__ import annotations

import array
import json
import marshal
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from . import disk, forks
from .model import PATH_KINDS, Input, Stat, Step, Trace
from .rows import ByIdentity, own_inputs

_MAGIC = b"codegen-tasks snapshot 2 "
_HEAD = len(_MAGIC) + 8 + 8
#: Signatures of what is not to be there, and of what only has to be.
ABSENT: Stat = (-1, 0, 0, 0)
PRESENT: Stat = (-2, 0, 0, 0)
_LARGEST = (1 << 63) - 1
_BLOCK = 4 * 256  # numbers that are compared at once
#: From so many files on, another core looks at half of them.
_WORTH_A_FORK = 10_000

#: A file, or a folder, and its signature.
Entry: TypeAlias = tuple[str, Stat]
#: An input that is no file: kind, name, rule and link of its compiler, digest, signature.
Fact: TypeAlias = tuple[str, str, str, int, str, Stat | None]


@dataclass(slots=True)
class Row:
    """What is known of one step.

    Args:
        mark: what tells it from another step of the same name, see `mark_of`.
        made: the files it made.
        read: the files it read, and those that it found not to exist.
        facts: everything else that it read.
        sure: whether that is all; else the step is to be looked at whatever has changed.
    """

    mark: int
    made: Sequence[Entry] = ()
    read: Sequence[Entry] = ()
    facts: Sequence[Fact] = ()
    sure: bool = True


def mark_of(step: Step, declared: Sequence[tuple[str, str]]) -> int:
    """Return a number that differs between steps of one name that are made from other things.

    Args:
        step: the step.
        declared: the inputs that its declaration gives to it.
    """
    names = [part for kind_and_name in declared for part in kind_and_name]
    said = "\0".join([*names, *step.outputs, f"{step.many}{step.item!r}-{step.link}"])
    return zlib.crc32(said.encode("utf-8", "surrogatepass"))


def row_of(step: Step, mark: int, trace: Trace | None, templates: str) -> Row:
    """Return what a snapshot keeps of a step.

    Args:
        step: the step.
        mark: of the step.
        trace: what it read and wrote; None if that is not known.
        templates: the templates folder.
    """
    if trace is None:
        return Row(mark, sure=False)
    read, facts, sure = _taken_apart(step, trace.inputs, templates)
    sure = sure and _are_signed(trace) and step.problem is None
    return Row(mark, _made(trace), read, facts, sure)


def _are_signed(trace: Trace) -> bool:
    """Tell whether no output was gone before anybody looked at what had been written."""
    return all(one.stat is not None or not one.digest for one in trace.outputs)


def _made(trace: Trace) -> tuple[Entry, ...]:
    return tuple(
        [(one.path, (one.stat or ABSENT) if one.digest else PRESENT) for one in trace.outputs]
    )


def _taken_apart(
    step: Step, inputs: Iterable[Input], templates: str
) -> tuple[tuple[Entry, ...], tuple[Fact, ...], bool]:
    """Return the files among a step's inputs, all else, and whether a look at them is enough."""
    read: list[Entry] = []
    facts: list[Fact] = []
    sure = True
    for item in inputs:
        if "\0" in item.name:
            continue  # no file has such a name, now or ever
        if item.kind in PATH_KINDS:
            read.append((item.name, (item.stat or PRESENT) if item.digest else ABSENT))
            sure = sure and (item.stat is not None or not item.digest)
        elif item.kind == "missing template":
            read.append((f"{templates}/{item.name}", ABSENT))
        elif item.kind in ("toolchain", "command"):
            facts.append((item.kind, item.name, step.rule, step.link, item.digest, item.stat))
        else:
            facts.append((item.kind, item.name, "", 0, item.digest, None))
    return tuple(read), tuple(facts), sure


#: A row as one process tells another: mark, files made, files read by this step alone, what it
#: shares with others (see `Rows`), and whether that is all.
Told: TypeAlias = tuple[int, tuple[Entry, ...], tuple[Entry, ...], bytes, bool]


@dataclass(frozen=True, slots=True)
class _Common:
    """What many steps have read: as it is told, and what it says."""

    told: bytes
    keys: frozenset[tuple[str, str]]
    sure: bool


class Rows:
    """Makes the rows of steps that render; what many of them read is looked at once.

    Args:
        templates: the templates folder.
    """

    def __init__(self, templates: str):
        self._templates = templates
        self._told: ByIdentity[_Common] = ByIdentity()
        self._heard: dict[bytes, tuple[tuple[Entry, ...], tuple[Fact, ...]]] = {}

    def __reduce__(self) -> Any:
        """Pickle without what another process could not know by identity."""
        return (Rows, (self._templates,))

    def told(self, step: Step, trace: Trace, declared: Sequence[tuple[str, str]]) -> Told:
        """Return the row of a step, to be handed to another process.

        Args:
            step: the step.
            trace: what it read and wrote.
            declared: the inputs that its declaration gives to it.
        """
        own = own_inputs(trace.inputs)
        common = self._common(step, trace.inputs[own:])
        read, _, sure = _taken_apart(step, trace.inputs[:own], self._templates)
        mine = {item.key for item in trace.inputs[:own]}
        sure = sure and common.sure and _are_signed(trace) and step.problem is None
        sure = sure and all(key in mine or key in common.keys for key in declared)
        return (mark_of(step, declared), _made(trace), read, common.told, sure)

    def _common(self, step: Step, inputs: Sequence[Input]) -> _Common:
        found = self._told.get(inputs, step.link)
        if found is not None:
            return found
        read, facts, sure = _taken_apart(step, inputs, self._templates)
        told = marshal.dumps((read, facts), 2)
        common = _Common(told, frozenset(item.key for item in inputs), sure)
        return self._told.put(common, inputs, step.link)

    def heard(self, told: Told) -> Row:
        """Return the row that was told."""
        mark, made, read, common, sure = told
        known = self._heard.get(common)
        if known is None:
            known = self._heard[common] = marshal.loads(common)
        return Row(mark, made, (*read, *known[0]), known[1], sure)


@dataclass(slots=True)
class Snapshot:
    """What the last build left.

    Args:
        stamp: of the database it was made from.
        plan: digest of what was declared, as far as the steps hang on it.
        lists: digest of the lists of patterns and templates.
        listed: whether the signatures of folders vouch for these lists.
        folders: the folders that were listed.
        asked: the patterns that were read to name targets.
        places: where the folders of targets and patterns truly lie, links followed.
        tidy: whether nothing of ours was left that no rule makes any more.
        manifest: the manifest's signature; None if it may not say what the traces say.
        records: what the database holds of the tasks that stand for a whole phase.
        rows: of the steps by name, in the order of the plan.
    """

    stamp: str
    plan: str
    lists: str
    listed: bool
    folders: Sequence[Entry]
    asked: Sequence[Entry]
    places: Mapping[str, str]
    tidy: bool
    manifest: Stat | None
    records: Mapping[str, Any]
    rows: Mapping[str, Row] = field(default_factory=dict)


class _Numbered(dict[Any, int]):
    """Numbers things in the order in which they are met."""

    def __missing__(self, key: Any) -> int:
        self[key] = number = len(self)
        return number


def packed(snapshot: Snapshot) -> bytes:
    """Return a snapshot as the bytes of its file."""
    entries, facts = _Numbered(), _Numbered()
    folders = [entries[entry] for entry in snapshot.folders]
    asked = [entries[entry] for entry in snapshot.asked]
    marks, counts, uses, told = (array.array("I") for _ in range(4))
    unsure = []
    for number, row in enumerate(snapshot.rows.values()):
        marks.append(row.mark)
        counts.extend((len(row.made), len(row.read), len(row.facts)))
        uses.extend([entries[entry] for entry in row.made])
        uses.extend([entries[entry] for entry in row.read])
        told.extend([facts[fact] for fact in row.facts])
        if not row.sure:
            unsure.append(number)
    signs = array.array("q")
    for _, sign in entries:
        signs.extend(map(_small, sign))
    names = "\0".join(snapshot.rows).encode("utf-8", "surrogatepass")
    paths = "\0".join(path for path, _ in entries).encode("utf-8", "surrogatepass")
    header = {
        "stamp": snapshot.stamp,
        "plan": snapshot.plan,
        "lists": snapshot.lists,
        "listed": snapshot.listed,
        "folders": folders,
        "asked": asked,
        "places": snapshot.places,
        "tidy": snapshot.tidy,
        "manifest": snapshot.manifest,
        "records": snapshot.records,
        "facts": list(facts),
        "unsure": unsure,
        "order": sys.byteorder,
        "phases": Counter(name.partition(":")[0] for name in snapshot.rows),
        "steps": len(snapshot.rows),
        "files": len(entries),
        "bytes": [len(names), len(paths), len(uses), len(told)],
    }
    return _framed(header, names, paths, (signs, marks, counts, uses, told))


def _small(number: int) -> int:
    return number & _LARGEST if number > _LARGEST else number


def _framed(header: Mapping[str, Any], names: bytes, paths: bytes, numbers: Sequence[Any]) -> bytes:
    """Return the bytes of a snapshot's file."""
    said = json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass")
    body = b"".join([said, names, paths, *(part.tobytes() for part in numbers)])
    return _MAGIC + f"{zlib.crc32(body):08x}{len(said):08x}".encode() + body


class Kept:
    """A snapshot as it was read: looked at in the large, its steps unpacked only if need be.

    Args:
        data: of its file.

    Raises:
        ValueError: this is no snapshot, or a broken one.
    """

    def __init__(self, data: bytes):
        if len(data) < _HEAD or not data.startswith(_MAGIC):
            raise ValueError("not a snapshot")
        check, length = data[len(_MAGIC) : _HEAD - 8], data[_HEAD - 8 : _HEAD]
        body = memoryview(data)[_HEAD:]
        if int(check, 16) != zlib.crc32(body):
            raise ValueError("the checksum is wrong")
        end = int(length, 16)
        header = json.loads(bytes(body[:end]).decode("utf-8", "surrogatepass"))
        self._header: dict[str, Any] = header
        if header["order"] != sys.byteorder:
            raise ValueError("from a machine of another kind")
        self.stamp: str = header["stamp"]
        self.plan: str = header["plan"]
        self.lists: str = header["lists"]
        self.listed: bool = header["listed"]
        self.tidy: bool = header["tidy"]
        self.manifest: Stat | None = tuple(header["manifest"]) if header["manifest"] else None
        self.records: dict[str, Any] = header["records"]
        self.unsure: set[int] = set(header["unsure"])
        self.facts: list[Fact] = [_fact(values) for values in header["facts"]]
        self.folders: list[int] = header["folders"]
        self.asked: list[int] = header["asked"]
        self.places: dict[str, str] = header["places"]
        #: By the task that stands for a phase, the number of its steps.
        self.phases: dict[str, int] = header["phases"]
        steps, files = header["steps"], header["files"]
        names, paths, uses, told = header["bytes"]

        def text(size: int, count: int) -> list[str]:
            nonlocal end
            end += size
            found = bytes(body[end - size : end]).decode("utf-8", "surrogatepass")
            return found.split("\0") if count else []

        def numbers(kind: str, count: int) -> Any:
            nonlocal end
            found = array.array(kind)
            end += count * found.itemsize
            found.frombytes(body[end - count * found.itemsize : end])
            return found

        self._texts = bytes(body[end : end + names]), bytes(body[end + names : end + names + paths])
        self.tasks = text(names, steps)
        self.paths = text(paths, files)
        self._signs = numbers("q", 4 * files)
        self._marks = numbers("I", steps)
        self._counts = numbers("I", 3 * steps)
        self._uses = numbers("I", uses)
        self._told = numbers("I", told)

    # Looking ----------------------------------------------------------------------------

    def changed_files(self, root: str) -> set[int]:
        """Return the numbers of files that are not as they were."""
        now = _signatures(self.paths, root)
        if now == self._signs:
            return set()
        before, found = self._signs, set()
        for first in range(0, len(now), _BLOCK):
            if now[first : first + _BLOCK] == before[first : first + _BLOCK]:
                continue
            for at in range(first, min(first + _BLOCK, len(now)), 4):
                if now[at : at + 4] != before[at : at + 4]:
                    found.add(at // 4)
        present = {n for n in found if before[4 * n] == PRESENT[0] and now[4 * n] >= 0}
        return found - present

    def changed_facts(self, holds: Callable[[Fact], bool]) -> set[int]:
        """Return the numbers of facts that hold no longer."""
        return {number for number, fact in enumerate(self.facts) if not holds(fact)}

    def steps_of(self, files: set[int], facts: set[int]) -> set[int]:
        """Return the numbers of steps that have made or read one of these, or may have."""
        found = set(self.unsure)
        if not files and not facts:
            return found
        for number, uses, told in self._each():
            if not (files.isdisjoint(uses) and facts.isdisjoint(told)):
                found.add(number)
        return found

    def readers_of(self, paths: Container[str]) -> set[int]:
        """Return the steps that have read a file, or found that it does not exist."""
        wanted = {number for number, path in enumerate(self.paths) if path in paths}
        if not wanted:
            return set()
        return {
            number
            for number, (_, made, start, end) in enumerate(self._spans())
            if not wanted.isdisjoint(self._uses[start + made : end])
        }

    def made(self, number: int) -> list[str]:
        """Return the paths of what a step made."""
        _, outputs, start, _ = self._span[number]
        return [self.paths[use] for use in self._uses[start : start + outputs]]

    def entries(self) -> Iterator[tuple[str, Stat, bool]]:
        """Yield each file, its signature, and whether a step has made it; folders are left out."""
        made = {use for _, count, at, _ in self._spans() for use in self._uses[at : at + count]}
        for number in set(range(len(self.paths))).difference(self.folders):
            yield (*self._entry(number), number in made)

    def mark(self, number: int) -> int:
        """Return the mark of a step."""
        return int(self._marks[number])

    def row(self, number: int) -> Row:
        """Return all that is known of a step."""
        told, outputs, start, end = self._span[number]
        entries = tuple([self._entry(use) for use in self._uses[start:end]])
        last = told + self._counts[3 * number + 2]
        facts = tuple([self.facts[one] for one in self._told[told:last]])
        sure = number not in self.unsure
        return Row(self.mark(number), entries[:outputs], entries[outputs:], facts, sure)

    def renewed(self, rows: Mapping[str, Row], head: Mapping[str, Any]) -> bytes | None:
        """Return the bytes of this snapshot with the signatures of some steps changed.

        Args:
            rows: by task, of steps of this snapshot.
            head: stamp, manifest and records, as in `Snapshot`.

        Returns:
            None if they have made or read something else than before.
        """
        numbers = {task: number for number, task in enumerate(self.tasks) if task in rows}
        seen, signs = Counter(self._uses), array.array("q", self._signs)
        mine = Counter(use for number in numbers.values() for use in self._used(number))
        for task, number in numbers.items():
            row, before = rows[task], self.row(number)
            if (row.facts, row.sure, len(row.made)) != (before.facts, True, len(before.made)):
                return None
            now = [*row.made, *row.read]
            if [path for path, _ in now] != [p for p, _ in (*before.made, *before.read)]:
                return None
            for use, (_, sign) in zip(self._used(number), now, strict=True):
                changed = array.array("q", map(_small, sign))
                if changed != self._signs[4 * use : 4 * use + 4]:
                    if seen[use] != mine[use]:
                        return None  # another step has read it as it was
                    signs[4 * use : 4 * use + 4] = changed
        unsure = sorted(self.unsure - set(numbers.values()))
        header = {**self._header, **head, "unsure": unsure}
        numbers_of = (signs, self._marks, self._counts, self._uses, self._told)
        return _framed(header, *self._texts, numbers_of)

    def _used(self, number: int) -> Any:
        _, _, start, end = self._span[number]
        return self._uses[start:end]

    def _entry(self, number: int) -> Entry:
        size, changed, created, inode = self._signs[4 * number : 4 * number + 4]
        return self.paths[number], (size, changed, created, inode)

    def _each(self) -> Iterator[tuple[int, Any, Any]]:
        """Yield of each step its number, and the numbers of its files and of its facts."""
        counts = self._counts
        for number, (told, _, start, end) in enumerate(self._spans()):
            yield number, self._uses[start:end], self._told[told : told + counts[3 * number + 2]]

    def _spans(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield of each step: first fact, number of files made, the first of these, past the last.

        What it read follows what it made.
        """
        start, told, counts = 0, 0, self._counts
        for number in range(0, len(counts), 3):
            end = start + counts[number] + counts[number + 1]
            yield told, counts[number], start, end
            start, told = end, told + counts[number + 2]

    @cached_property
    def _span(self) -> list[tuple[int, int, int, int]]:
        return list(self._spans())


def _fact(values: Sequence[Any]) -> Fact:
    kind, name, rule, link, digest, stat = values
    return (kind, name, rule, link, digest, tuple(stat) if stat else None)


def _signatures(paths: Sequence[str], root: str) -> Any:
    """Return the signatures of files as they are now, four numbers each."""
    if os.path.realpath(os.curdir) != os.path.realpath(root):
        paths = [os.path.join(root, path) for path in paths]
    if len(paths) < _WORTH_A_FORK or not forks.may_fork():
        return _looked_at(paths)
    half = len(paths) // 2
    fork = forks.Fork(lambda: bytes(_looked_at(paths[half:]).tobytes())).begin()
    found = _looked_at(paths[:half])
    found.frombytes(fork.result() or _looked_at(paths[half:]).tobytes())
    return found


def _looked_at(paths: Iterable[str]) -> Any:
    found = array.array("q")
    extend, look = found.extend, os.stat
    for path in paths:
        try:
            now = look(path)
        except (OSError, ValueError):
            extend(ABSENT)
            continue
        sign = (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)
        extend(sign if now.st_ino <= _LARGEST else map(_small, sign))
    return found


def read(path: str) -> Kept | None:
    """Return the snapshot of a file; None if there is none, or a broken one."""
    try:
        return Kept(disk.read(path))
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
