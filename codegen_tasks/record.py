"""What one render has read so far: templates, files, names; unaware of engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import StepError
from .keys import Notes
from .model import TORN, Input, Stat
from .patterns import data_input

#: Stands among modules for every one of the project: an import whose name nobody can tell.
ANY_MODULE = "any of the project"


@dataclass(slots=True)
class Read:
    """One file that a render has read through a template function.

    Args:
        content: digest of its bytes; "" if there is none.
        stat: its signature.
        data: what it says, if it was parsed.
        notes: which keys of that were read.
        torn: it was read twice and had changed in between.
        shared: notes of other records of the file; a template that was imported is kept,
            and what is read of its tables is still added to them.
    """

    content: str
    stat: Stat | None
    data: Any = None
    notes: Notes = field(default_factory=Notes)
    torn: bool = False
    shared: list[Notes] = field(default_factory=list)

    def include(self, other: Read) -> None:
        """Add what was read of the same file another time."""
        self.torn = self.torn or other.torn or self.content != other.content
        self.shared += [other.notes, *other.shared]

    def followed(self) -> Read:
        """Return another record of the same, that knows what is still added to this one."""
        shared = [self.notes, *self.shared]
        return Read(self.content, self.stat, self.data, torn=self.torn, shared=shared)

    def as_input(self, kind: str, path: str) -> Input:
        """Return the file as an input."""
        if self.torn:
            return Input(kind, path, TORN)
        if kind == "file" or not self.content:
            return Input(kind, path, self.content, self.stat)
        notes = Notes()
        for each in (self.notes, *self.shared):
            notes.include(each)
        try:
            return data_input(kind, path, self.data, notes, self.stat)
        except (TypeError, ValueError) as error:
            raise StepError(path, f"holds a value that no template can rely on: {error}") from None


@dataclass(slots=True)
class Record:
    """What one render has read so far.

    Args:
        templates: names loaded, in order, and the template that first loaded each.
        missing: names looked for and not found.
        files: by kind and path, those read through a template function.
        names: variables looked up; filters, tests: those used.
        modules: of Python, that a template imports itself.
    """

    templates: dict[str, str] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    files: dict[tuple[str, str], Read] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    filters: dict[str, None] = field(default_factory=dict)
    tests: dict[str, None] = field(default_factory=dict)
    modules: dict[str, None] = field(default_factory=dict)

    def include(self, other: Record) -> None:
        """Add all that `other` has read."""
        for name, via in other.templates.items():
            self.templates.setdefault(name, via)
        self.missing.update(other.missing)
        for key, read in other.files.items():
            self.add_file(key, read.followed())
        self.names.update(other.names)
        self.filters.update(other.filters)
        self.tests.update(other.tests)
        self.modules.update(other.modules)

    def used(self) -> tuple[tuple[Any, ...], ...]:
        """Return all that was read but files, to compare it with another record's."""
        return (
            tuple(self.templates.items()),
            *map(tuple, (self.missing, self.names, self.filters, self.tests, self.modules)),
        )

    def file_inputs(self) -> list[Input]:
        """Return the files as inputs."""
        return [read.as_input(kind, path) for (kind, path), read in self.files.items()]

    def add_file(self, key: tuple[str, str], read: Read) -> Read:
        """Note a file; return what is known of it, all times it was read taken together."""
        known = self.files.setdefault(key, read)
        if known is not read:
            known.include(read)
        return known
