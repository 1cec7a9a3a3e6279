"""What all engines have in common: the protocol, templates inside their fence, files they read."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .. import digest, disk, keys, texts
from ..errors import StepError, nearest
from ..keys import View
from ..model import Input, Stat
from ..record import Read, Record
from . import JINJA2, Kind, refuse_foreign


@dataclass(frozen=True, slots=True)
class Spec:
    """What an engine is made from.

    Args:
        root: absolute path of the project.
        folder: the templates folder, relative to it.
        options: the engine's own.
        filters, tests, globals: what the project adds to the templates.
        sandbox: templates are not trusted.
        sandbox_bytes: how much one render may make there.
        state: the state folder, project-relative, which no template may read there.
        key_tracking: note which keys of a pattern a render reads.
    """

    root: str
    folder: str
    options: Mapping[str, Any]
    filters: Mapping[str, Callable[..., Any]]
    tests: Mapping[str, Callable[..., Any]]
    globals: Mapping[str, Any]
    sandbox: bool
    sandbox_bytes: int = 0
    state: str = ""
    key_tracking: bool = True


class Engine(Protocol):
    """Renders the templates of one format, and tells what each render read.

    One is made per process and kept warm; what it loaded stays as it was loaded.
    """

    @property
    def spec(self) -> Spec:
        """What it is made from."""

    @property
    def tracks(self) -> bool:
        """Whether it is noted which keys of a pattern a render reads; else each counts whole."""

    @property
    def hits(self) -> int:
        """Templates this process found in the cache."""

    @property
    def misses(self) -> int:
        """Templates this process parsed."""

    def warm_up(self) -> None:
        """Make what every render needs, for processes that are to be forked."""

    def parse(self, name: str) -> Input:
        """Load one template, from the cache or by parsing it; return it as an input.

        Raises:
            StepError: it does not exist or has a syntax error.
        """

    def entry_path(self, name: str) -> str | None:
        """Return where the cache keeps a template that was loaded; None if it keeps none."""

    def render(
        self,
        name: str,
        view: View,
        made_by: str = "",
        guard: Callable[[str], None] | None = None,
    ) -> tuple[str, Record]:
        """Return the rendered text and the record of what was read.

        Args:
            name: the template.
            view: what it sees besides globals; notes what it reads of patterns.
            made_by: the pattern, for messages.
            guard: is called with each path that is about to be read; may raise.

        Raises:
            StepError: whatever went wrong, with template and line.
        """

    def template_inputs(self, record: Record) -> list[Input]:
        """Return the templates of a record, those that are missing too, as inputs."""


class Reader:
    """Reads templates and other files for one engine, records them, and stays in the fence.

    Args:
        spec: what the engine is made from.
        kind: which engine it is.
    """

    def __init__(self, spec: Spec, kind: Kind = JINJA2):
        self._spec = spec
        self._kind = kind
        self._fence = os.path.realpath(os.path.join(spec.root, spec.folder)) + os.sep
        self._data: dict[tuple[str, str], Any] = {}
        self._record = Record()
        #: Digest and signature of each template that was read, by name.
        self.loaded: dict[str, tuple[str, Stat | None]] = {}
        #: Is called with each path that is about to be read.
        self.guard: Callable[[str], None] | None = None

    @property
    def record(self) -> Record:
        """What the render has read that is going on."""
        return self._record

    @property
    def hands_tables(self) -> bool:
        """Whether templates get tables that note what is read of them."""
        return False

    @property
    def spec(self) -> Spec:
        """What the engine is made from."""
        return self._spec

    @property
    def root(self) -> str:
        """Absolute path of the project."""
        return self._spec.root

    @property
    def folder(self) -> str:
        """The templates folder, relative to the project."""
        return self._spec.folder

    # Templates ---------------------------------------------------------------------------

    def source(self, name: str) -> tuple[str, str] | None:
        """Return text and path of a template below the folder; None if there is none.

        Raises:
            StepError: it lies outside, links followed, or is no text.
        """
        path = f"{self._spec.folder}/{name}"
        full = os.path.join(self._spec.root, path)
        if ".." in name.split("/") or os.path.isabs(name):
            raise StepError(path, "a template cannot lie outside the templates folder")
        if self.guard is not None:
            self.guard(posixpath.normpath(path))
        signature = disk.signature(full)
        if signature is None:
            return None
        if not os.path.realpath(full).startswith(self._fence):
            raise StepError(path, "a template cannot lie outside the templates folder")
        refuse_foreign(self._kind, name, path)
        raw = disk.read(full)
        self.loaded[name] = (digest.of_bytes(raw), signature)
        return texts.decoded(path, raw), path

    def template_names(self) -> list[str]:
        """Return the names of all files below the templates folder."""
        return list(disk.walk(os.path.join(self._spec.root, self._spec.folder)))

    def template_inputs(self, record: Record) -> list[Input]:
        """Return the templates of a record, those that are missing too, as inputs."""
        found = [self.template_input(name, via) for name, via in record.templates.items()]
        return found + [Input("missing template", name, "") for name in record.missing]

    def template_input(self, name: str, via: str = "") -> Input:
        """Return a template that was read as an input; `via` is the one that loaded it."""
        content, signature = self.loaded[name]
        folder = self._spec.folder
        loader = f"{folder}/{via}" if via else ""
        return Input("template", f"{folder}/{name}", content, signature, via=loader)

    # The functions every template has ----------------------------------------------------

    def functions(self) -> dict[str, Callable[[str], Any]]:
        """Return the functions that read files, by name."""
        return {
            "read_text": self._read_text,
            "read_json": self._read_json,
            "read_toml": self._read_toml,
            "read_yaml": self._read_yaml,
        }

    def _read_text(self, path: str) -> str:
        """Return a text file's content, path relative to the project; recorded as an input."""
        return self._read(path, "file")[0]

    def _refuse_hostile(self, where: str, full: str, signature: Stat | None) -> None:
        """Refuse what would never end, and to a template in the sandbox what is not its own."""
        if signature is None and os.path.exists(full) and not os.path.isdir(full):
            raise StepError(where, "cannot read: not a regular file")
        if not self._spec.sandbox:
            return
        from .. import sandbox

        real = disk.relative(full, os.path.realpath(self._spec.root))
        if any(sandbox.is_private(path, self._spec.state) for path in (where, real)):
            raise StepError(where, "a template in the sandbox cannot read this file")
        if signature is not None and signature[0] > self._spec.sandbox_bytes:
            what = f"is larger than {self._spec.sandbox_bytes} bytes (sandbox_bytes)"
            raise StepError(where, what)

    def _read_json(self, path: str) -> Any:
        """Return a JSON file's data; recorded as an input."""
        return self._read_data(path, "json")

    def _read_toml(self, path: str) -> dict[str, Any]:
        """Return a TOML file's data; recorded as an input."""
        found: dict[str, Any] = self._read_data(path, "toml")
        return found

    def _read_yaml(self, path: str) -> Any:
        """Return a YAML file's data; recorded as an input."""
        return self._read_data(path, "yaml")

    def _read(self, path: str, kind: str) -> tuple[str, Read]:
        """Return a file's text, and what is recorded of it."""
        where = posixpath.normpath(path.replace(os.sep, "/"))
        if "\0" in path:
            raise StepError(repr(path), "no file has such a name")
        full = os.path.realpath(os.path.join(self._spec.root, path))
        if not disk.is_inside(full, self._spec.root):
            raise StepError(where, "a template cannot read outside the project")
        if self.guard is not None:
            self.guard(where)
        record = self.record
        signature = disk.signature(full)
        self._refuse_hostile(where, full, signature)
        try:
            raw = disk.read(full)
        except OSError as error:
            record.add_file((kind, where), Read("", None))
            what, hint = f"cannot read: {(error.strerror or '').lower()}", self._near(where)
            raise StepError(where, what, hint if signature is None else "") from None
        read = record.add_file((kind, where), Read(digest.of_bytes(raw), signature))
        return texts.decoded(where, raw), read

    def _near(self, where: str) -> str:
        """Return a hint naming the file beside one that is missing whose name is nearest."""
        if self._spec.sandbox:
            return ""  # what lies there is nothing for a template that is not trusted
        folder = posixpath.dirname(where)
        try:
            beside = os.listdir(os.path.join(self._spec.root, folder))
        except OSError:
            return ""
        return nearest(where, [posixpath.join(folder, name) for name in sorted(beside)])

    def _read_data(self, path: str, kind: str) -> Any:
        """Parse a text once in this process; every caller gets a copy of its own to change.

        Recorded as an input by the keys that are read, as patterns are, not by its bytes.
        """
        text, read = self._read(path, kind)
        if (kind, text) not in self._data:
            self._data[kind, text] = texts.parsed(path, text, texts.PARSERS[kind])
        read.data = self._data[kind, text]
        return keys.handed(read.data, read.notes, self.hands_tables)
