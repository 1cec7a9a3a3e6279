"""The nouns: what a build consists of, frozen, standard library only.

Paths are strings with forward slashes, relative to the project (the folder of `dodo.py`)
unless they lead outside of it.  Digests are lower-case hexadecimal sha256.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Phase: TypeAlias = Literal["templates", "generate", "compile", "output"]
PHASES: tuple[Phase, ...] = ("templates", "generate", "compile", "output")

#: The stat signature of a file: size in bytes, mtime and ctime in nanoseconds, inode.
Stat: TypeAlias = tuple[int, int, int, int]

#: Kinds of input whose digest is that of a file's bytes; `name` is the path.
FILE_KINDS = frozenset({"file", "source", "import", "template"})
#: Kinds whose digest is that of what a file says; `name` is the path.
DATA_KINDS = frozenset({"pattern", "toml", "json"})
PATH_KINDS = FILE_KINDS | DATA_KINDS


@dataclass(frozen=True, slots=True)
class Input:
    """One thing a step read, declared or discovered, as it was when it was read.

    Args:
        kind: what it is, such as "template", "pattern", "filter" or "toolchain".
        name: which one: a path, a template's name, a filter's name.
        digest: of what matters of it; "" where the step found that it does not exist.
        stat: the file's signature, so that an untouched file need not be read again.
        shown: the few words `doit info` shows for it instead of the digest (a version).
    """

    kind: str
    name: str
    digest: str
    stat: Stat | None = None
    shown: str = ""

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
class Trace:
    """What a finished step read and wrote; kept in doit's database, verified by `staleness`.

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

    def to_values(self) -> dict[str, Any]:
        """Return the trace as JSON-able data; `from_values` reads it back."""
        return {
            "version": 1,
            "inputs": [[i.kind, i.name, i.digest, i.stat, i.shown] for i in self.inputs],
            "outputs": [[o.path, o.digest, o.size, o.stat] for o in self.outputs],
            "made": self.made,
            "seconds": self.seconds,
        }

    @classmethod
    def from_values(cls, values: Any) -> Trace | None:
        """Return the trace kept in a task's values; None if there is none we can read."""
        try:
            if values["version"] != 1:
                return None
            return cls(
                tuple(_input(*fields) for fields in values["inputs"]),
                tuple(_output(*fields) for fields in values["outputs"]),
                "" + values["made"],
                0.0 + values["seconds"],
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None


# Joining and adding raise a TypeError for what is no text and no number, at next to no cost:
# these run for everything that is recorded, at every run.


def _input(kind: str, name: str, digest: str, stat: Iterable[int] | None, shown: str) -> Input:
    "".join((kind, name, digest, shown))
    return Input(kind, name, digest, _stat(stat), shown)


def _output(path: str, digest: str, size: int, stat: Iterable[int] | None) -> Output:
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


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a target is stale; its `str` is the one wording used by CLI, logs and JSON."""

    change: Change
    kind: str = ""
    name: str = ""
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} {self.name}".strip()
        if self.change == "changed" and (self.old or self.new):
            return f"{what}: {self.old or 'absent'} → {self.new or 'absent'}"
        if self.change == "failed last time" and self.new:
            return f"{self.change}: {self.new}"
        return f"{what}: {self.change}" if what else self.change

    def to_json(self) -> dict[str, str]:
        """Return the reason as data, with its wording under "text"."""
        return {
            "change": self.change,
            "kind": self.kind,
            "name": self.name,
            "old": self.old,
            "new": self.new,
            "text": str(self),
        }


@dataclass(frozen=True, slots=True)
class Pattern:
    """One parsed spec file: where it lies, what it says, and the digest of what it says."""

    path: str
    stem: str
    data: Mapping[str, Any]
    digest: str
    stat: Stat | None = None

    def variables(self) -> dict[str, Any]:
        """Return what a template sees of it: its top-level keys, and `pattern`."""
        return {**self.data, "pattern": {"stem": self.stem, "path": self.path}}


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
        item: index into the list named by the rule's `each`, if any.
        source: the file a compile step reads.
        link: index into the rule's compile steps.
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
    item: int | None = None
    source: str = ""
    link: int = 0
    problem: Exception | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What running one step came to; crosses process borders, so plain data only.

    Args:
        task: the step's task.
        trace: what it read and wrote; None if it failed.
        changed: an output's bytes are not what they were before.
        error: the whole message of a failed step, else "".
        printed: what the step printed, or its compiler.
        references: files that a generated one seems to refer to, and its compiler to read.
        hits, misses: templates found in the cache, templates parsed.
        pid: of the process that ran it.
        seconds: wall time.
        notes: lines the user is shown whatever the verbosity, such as a file kept aside.
        skipped: it was not begun, because another step failed first.
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
