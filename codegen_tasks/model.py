"""The nouns: what a build consists of, frozen, standard library only.

Paths are strings with forward slashes, relative to the project (the folder of `dodo.py`)
unless they lead outside of it.  Digests are lower-case hexadecimal sha256.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .keys import Reads

Phase: TypeAlias = Literal["templates", "generate", "compile", "output"]
PHASES: tuple[Phase, ...] = ("templates", "generate", "compile", "output")

#: The stat signature of a file: size in bytes, mtime and ctime in nanoseconds, inode.
Stat: TypeAlias = tuple[int, int, int, int]

#: Stands for the time of a file that was read within a tick of its being written.
UNSETTLED = -1

#: In place of a file's digest: it changed while it was read, and nobody knows what it said.
TORN = "changed while it was read"

#: Kinds of input whose digest is that of a file's bytes; `name` is the path.
FILE_KINDS = frozenset({"file", "source", "import", "template"})
#: Kinds whose digest is that of what a file says; `name` is the path.
DATA_KINDS = frozenset({"pattern", "toml", "json", "yaml"})
PATH_KINDS = FILE_KINDS | DATA_KINDS
#: Kinds that are told by named facts, as JSON in `Input.shown`: an option, a version.
FACT_KINDS = frozenset({"environment", "rule", "command"})


@dataclass(frozen=True, slots=True)
class Input:
    """One thing a step read, declared or discovered, as it was when it was read.

    Args:
        kind: what it is, such as "template", "pattern", "filter" or "toolchain".
        name: which one: a path, a template's name, a filter's name.
        digest: of what matters of it; "" where the step found that it does not exist.
        stat: the file's signature, so that an untouched file need not be read again.
        shown: what it was, as far as an explanation of a change needs it: a compiler's
            version, an option's value, the parts of a pattern that were read.
        reads: which parts of a pattern were read; the digest is that of these.
        via: the template that loaded this one.
    """

    kind: str
    name: str
    digest: str
    stat: Stat | None = None
    shown: str = ""
    reads: Reads = ()
    via: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the input within its step."""
        return (self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Output:
    """One file a step made: its path, the digest and size (bytes) of its content."""

    path: str
    digest: str
    size: int
    stat: Stat | None = None


@dataclass(frozen=True, slots=True)
class Trace(Mapping[str, Any]):
    """What a finished step read and wrote; kept in doit's database, verified by `staleness`.

    It is among the values that doit hands to users' tasks; to those, it is the table that
    `to_values` returns.

    Args:
        inputs: everything that was read, in the order it was met.
        outputs: everything that was written.
        made: when the outputs' bytes last changed, ISO 8601, UTC.
        seconds: how long the step took.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    made: str
    seconds: float = 0.0

    @property
    def unsettled(self) -> list[Stat]:
        """The signatures of inputs that could have changed again unnoticed."""
        return [item.stat for item in self.inputs if item.stat and item.stat[1] == UNSETTLED]

    def __getitem__(self, key: str) -> Any:
        return self.to_values()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(_TABLE)

    def __len__(self) -> int:
        return len(_TABLE)

    def to_values(self) -> dict[str, Any]:
        """Return the trace as JSON-able data; `from_values` reads it back."""
        return {
            "version": _VERSION,
            "inputs": [row_of(item) for item in self.inputs],
            "outputs": [[o.path, o.digest, o.size, o.stat] for o in self.outputs],
            "made": self.made,
            "seconds": self.seconds,
        }

    @classmethod
    def from_values(cls, values: Any) -> Trace | None:
        """Return the trace kept in a task's values; None if there is none we can read."""
        if isinstance(values, cls):
            return values  # as our own backend keeps it
        try:
            if values["version"] != _VERSION:
                return None
            return cls(
                tuple(input_of(*fields) for fields in values["inputs"]),
                tuple(output_of(*fields) for fields in values["outputs"]),
                "" + values["made"],
                0.0 + values["seconds"],
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None


_VERSION = 2
_TABLE = ("version", "inputs", "outputs", "made", "seconds")


def row_of(item: Input) -> list[Any]:
    """Return an input as a list, without what is empty at its end."""
    row = [item.kind, item.name, item.digest, item.stat, item.shown, item.reads, item.via]
    while not row[-1] and len(row) > 3:
        row.pop()
    return row


# Joining and adding raise a TypeError for what is no text and no number, at next to no cost:
# these run for everything that is recorded, at every run.


def input_of(
    kind: str,
    name: str,
    digest: str,
    stat: Iterable[int] | None = None,
    shown: str = "",
    reads: Iterable[Any] = (),
    via: str = "",
) -> Input:
    """Return the input of a row; `reads` that are a tuple are taken as they are.

    Raises:
        TypeError, ValueError: it is no such row.
    """
    "".join((kind, name, digest, shown, via))
    known: Reads = reads if type(reads) is tuple else reads_of(reads)
    return Input(kind, name, digest, _stat(stat), shown, known, via)


def reads_of(rows: Iterable[Any]) -> Reads:
    """Return what was read of a pattern, from lists."""
    return tuple((tuple(path), how) for path, how in rows)


def output_of(path: str, digest: str, size: int, stat: Iterable[int] | None) -> Output:
    """Return the output of a row.

    Raises:
        TypeError, ValueError: it is no such row.
    """
    "".join((path, digest))
    return Output(path, digest, 0 + size, _stat(stat))


def _stat(values: Iterable[int] | None) -> Stat | None:
    if values is None:
        return None
    size, mtime, ctime, inode = values
    size | mtime | ctime | inode
    return (size, mtime, ctime, inode)


#: How an input or output differs from what the trace recorded.
Change: TypeAlias = Literal[
    "never built",
    "failed last time",
    "failing",
    "always",
    "changed",
    "added",
    "removed",
    "missing",
    "edited",
]


#: Kinds whose name says all: a path.
_NAMED_BY_PATH = PATH_KINDS | {"target", "missing template"}
#: Kinds of which only the digest is kept, for they are code.
_CODE_KINDS = frozenset({"filter", "test", "function", "context", "module"})


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a target is stale; its `str` is the one wording used by CLI, logs and JSON.

    Args:
        change: what happened.
        kind, name: of the input or output it happened to.
        old, new: what it was and is, as far as that can be shown; "" for what is not there.
        key: which part of it: `nodes[2].decay` of a pattern, an option of the environment.
        chain: the templates between it and the step, that which loaded it first.
    """

    change: Change
    kind: str = ""
    name: str = ""
    old: str = ""
    new: str = ""
    key: str = ""
    chain: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.change == "failed last time" and self.new:
            return f"{self.change}: {self.new}"
        through = f" (through {', '.join(self.chain)})" if self.chain else ""
        return f"{self._said()}{through}"

    def _said(self) -> str:
        what = self.name if self.kind in _NAMED_BY_PATH else f"{self.kind} {self.name}".strip()
        if self.change != "changed":
            return f"{what}: {self.change}" if what else self.change
        values = f"{self.old or 'absent'} → {self.new or 'absent'}"
        if self.kind == "toolchain":
            return f"{self.name} {values}"
        if self.kind == "environment":
            return f"{self.key or what}: {values}"
        if self.kind in _CODE_KINDS and self.old and self.new:
            return f"{what}: source changed"
        return f"{what}: {self.key} {values}" if self.key else f"{what}: {values}"

    def to_json(self) -> dict[str, Any]:
        """Return the reason as data, with its wording under "text"."""
        return {
            "change": self.change,
            "kind": self.kind,
            "name": self.name,
            "key": self.key,
            "old": self.old,
            "new": self.new,
            "chain": list(self.chain),
            "text": str(self),
        }


@dataclass(frozen=True, slots=True)
class Pattern:
    """One parsed spec file: where it lies and what it says."""

    path: str
    stem: str
    data: Mapping[str, Any]
    stat: Stat | None = None

    def names(self) -> dict[str, str]:
        """Return what a template sees as `pattern`."""
        return {"stem": self.stem, "path": self.path}


@dataclass(frozen=True, slots=True)
class Rule:
    """A declaration: templates × patterns → targets.  See `Codegen.rule` for the fields."""

    name: str
    template: str
    target: str
    patterns: tuple[str, ...] = ()
    each: str | None = None
    compile: tuple[Any, ...] = ()
    context: Any = None
    timeout: float | None = None
    schema: str | None = None
    format: Any = None
    mode: int | None = None
    newline: str | None = None

    @property
    def tools(self) -> tuple[Any, ...]:
        """All programs that have a part in its targets."""
        return self.compile if self.format is None else (*self.compile, self.format)


#: The `Step.link` of a render whose text goes through a formatter.
FORMATTER = -1


@dataclass(frozen=True, slots=True)
class Step:
    """One render, one compile, one template put into the cache: a pure function of inputs.

    Args:
        phase: which of the four phases it belongs to.
        target: its name within the phase: the target relative to the output folder, or
            the template's name.
        task: the doit task that runs it.
        outputs: the files it makes, project-relative.
        rule: the rule's name; "" for template steps.
        template: the template's name below the templates folder.
        patterns: paths of the patterns it sees.
        many: it sees its patterns as the list `patterns`, not one pattern's keys.
        item: index into the list, or key in the table, that the rule's `each` names, if any.
        source: the file a compile step reads.
        link: index into the rule's compile steps; of a render, 0 or `FORMATTER`.
        problem: set when the step is known to fail; it then only raises this.
    """

    phase: Phase
    target: str
    task: str
    outputs: tuple[str, ...] = ()
    rule: str = ""
    template: str = ""
    patterns: tuple[str, ...] = ()
    many: bool = False
    item: int | str | None = None
    source: str = ""
    link: int = 0
    problem: Exception | None = None

    @property
    def starts_program(self) -> bool:
        """Whether running it starts a program."""
        return self.phase == "compile" or self.link == FORMATTER


@dataclass(frozen=True, slots=True)
class Result:
    """What a step came to wherever it was run, its bytes included: nothing in it is of a machine.

    Args:
        inputs: everything that was read, in the order it was met, without signatures.
        outputs: the bytes of each file, by its path.
        references: see `Outcome`.
        printed: what the step printed, or its compiler.
        seconds: how long it took.
        like: by path, a file here that holds the same bytes, see `disk.write`.
    """

    inputs: tuple[Input, ...]
    outputs: Mapping[str, bytes]
    references: tuple[str, ...] = ()
    printed: str = ""
    seconds: float = 0.0
    like: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What running one step came to; crosses process borders, so plain data only.

    Args:
        task: the step's task.
        trace: what it read and wrote; None if it failed, or if `record` says it all.
        changed: an output's bytes are not what they were before.
        error: the whole message of a failed step, else "".
        printed: what the step printed, or its compiler.
        references: files that a generated one seems to refer to, and its compiler to read.
        hits, misses: templates found in the cache, templates parsed.
        pid: of the process that ran it.
        seconds: wall time.
        notes: lines the user is shown whatever the verbosity, such as a file kept aside.
        skipped: it was not begun, because another step failed first.
        awaits: a file it reads that another task is to make first; it is to run again.
        start: when it began, nanoseconds since the epoch; steps that share a compiler, alike.
        cached: what the output cache did: "restored", "kept", or why not; "" if it was not asked.
        stored: bytes by which the output cache has grown.
        saved: seconds that the output cache spared.
        worker: name of the machine or worker that ran it, if it was not this machine's.
        record: the text of its record, if that was made already; see `rows`.
        parts: what the text names that is to be stored with it.
        entries: what the manifest is to say, beside such a record.
        row: what the snapshot is to say, beside such a record, see `snapshot.Told`; None if
            that is to be made of the record.
    """

    task: str
    trace: Trace | None = None
    changed: bool = False
    error: str = ""
    printed: str = ""
    references: tuple[str, ...] = ()
    hits: int = 0
    misses: int = 0
    pid: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    skipped: bool = False
    awaits: str = ""
    start: int = 0
    cached: str = ""
    stored: int = 0
    saved: float = 0.0
    worker: str = ""
    record: str = ""
    parts: Mapping[str, str] | None = None
    entries: Mapping[str, Any] | None = None
    row: tuple[Any, ...] | None = None

    def packed(
        self,
        record: str,
        parts: Mapping[str, str] | None,
        entries: Mapping[str, Any],
        row: tuple[Any, ...] | None,
    ) -> Outcome:
        """Return the same with its record made; the trace stays only if it is to be settled."""
        trace = self.trace if self.trace is not None and self.trace.unsettled else None
        others = [getattr(self, name) for name in _BEFORE_RECORD]
        return Outcome(*[self.task, trace, *others, record, parts, entries, row])

    def __reduce__(self) -> Any:
        # Thousands of them are sent; a frozen class with slots is slow to pickle by itself.
        return (Outcome, tuple([getattr(self, name) for name in self.__slots__]))


#: What stands between trace and record.
_BEFORE_RECORD = Outcome.__slots__[2 : Outcome.__slots__.index("record")]
