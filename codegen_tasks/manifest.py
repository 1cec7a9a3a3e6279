"""The manifest: `.codegen/manifest.json`, one entry for each generated or compiled file.

    {"version": "1.0", "timestamp": "…", "files": {"bloom.ts": {"checksum": "…",
     "size": 1234, "last_compiled": "…"}, …}}

Keys are relative to the output folder, checksums sha256, sizes bytes, times ISO 8601 in
UTC; `last_compiled` is when the file's bytes last changed.  It is derived: what is stale is
decided from the traces, and a manifest that cannot be read is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from . import digest, disk
from .errors import StepError, cause
from .model import Trace
from .project import Project

VERSION = "1.0"
_FIELDS = ("checksum", "size", "last_compiled")
Entries: TypeAlias = dict[str, dict[str, Any]]


def read(project: Project, ours: bool = False) -> tuple[Entries, str]:
    """Return the entries, and "" or what is wrong with the manifest.

    A manifest that does not exist has no entries and nothing wrong.  An entry of a file
    that would lie outside the output folder is left out.

    Args:
        project: what was declared.
        ours: the file is known to be as we wrote it, so that each entry is sound.
    """
    path = project.full(project.manifest_path)
    try:
        document = json.loads(disk.read(path).decode("utf-8", "surrogateescape"))
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, cause(error)
    except (ValueError, RecursionError):
        return {}, "not a manifest"
    if not isinstance(document, dict) or not isinstance(document.get("version"), str):
        return {}, "not a manifest"
    if document["version"] != VERSION:
        return {}, f"version {document['version']!r} is not known"
    files = document.get("files")
    if ours and isinstance(files, dict):
        return files, ""
    if not isinstance(files, dict) or not all(map(_is_entry, files.values())):
        return {}, "not a manifest"
    return {
        key: {name: entry[name] for name in _FIELDS}
        for key, entry in files.items()
        if _is_inside(key)
    }, ""


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    checksum, size, last_compiled = map(entry.get, _FIELDS)
    texts = all(isinstance(text, str) and text.isascii() for text in (checksum, last_compiled))
    return texts and type(size) is int and 0 <= size < 1 << 63  # `type`: a bool is an int too


def _is_inside(key: str) -> bool:
    """Tell whether a key is the path of a file below the output folder, as we write it."""
    try:
        os.fsencode(key)
    except UnicodeEncodeError:
        return False
    parts = key.replace(os.sep, "/").split("/")
    return not ("\0" in key or "" in parts or ".." in parts or os.path.splitdrive(key)[0])


def entries_of(project: Project, traces: Iterable[Trace | None]) -> Entries:
    """Return the entries for what traces say was made."""
    found: Entries = {}
    prefix = project.output + "/"
    for trace in traces:
        if trace is None:
            continue
        for output in trace.outputs:
            if output.path.startswith(prefix):
                found[output.path.removeprefix(prefix)] = {
                    "checksum": output.digest,
                    "size": output.size,
                    "last_compiled": trace.made,
                }
    return found


def merged(found: tuple[Entries, str], changes: Entries) -> Entries | None:
    """Return the manifest's entries with `changes` made; None if nothing would change.

    Args:
        found: what `read` returned.
        changes: entries by key.
    """
    before, problem = found
    after = {**before, **changes}
    return None if after == before and not problem else after


def write(project: Project, entries: Mapping[str, Any], timestamp: str) -> None:
    """Replace the manifest.

    Raises:
        StepError: it cannot be written.
    """
    text = _text(entries, timestamp)
    path, home = project.full(project.manifest_path), project.full(project.home)
    try:
        disk.write_ours(path, text.encode("utf-8", "surrogateescape"), home)
    except StepError as error:
        hint = error.hint.replace(project.root + os.sep, "")
        raise StepError(project.manifest_path, error.what, hint) from None


def _text(entries: Mapping[str, Any], timestamp: str) -> str:
    """Return the text of a manifest; `json` itself indents in Python, at ten times the time."""
    said = json.encoder.encode_basestring
    files = ",\n".join(
        f'  {said(key)}: {{\n   "checksum": {said(entry["checksum"])},\n   "size": {entry["size"]},'
        f'\n   "last_compiled": {said(entry["last_compiled"])}\n  }}'
        for key, entry in sorted(entries.items())
    )
    files = f"{{\n{files}\n }}" if files else "{}"
    head = f'{{\n "version": {said(VERSION)},\n "timestamp": {said(timestamp)},\n "files": '
    return f"{head}{files}\n}}\n"


@dataclass(frozen=True, slots=True)
class Checked:
    """A file of the manifest held against the disk: "ok", "changed" or "missing"."""

    path: str
    state: str
    expected: str
    found: str


def verify(project: Project, entries: Entries) -> list[Checked]:
    """Hold each entry's checksum against the file; every file is read."""
    results = []
    for key, entry in entries.items():
        path = f"{project.output}/{key}"
        try:
            found = digest.of_bytes(disk.read(os.path.join(project.root, path)))
        except OSError:
            results.append(Checked(path, "missing", entry["checksum"], ""))
            continue
        state = "ok" if found == entry["checksum"] else "changed"
        results.append(Checked(path, state, entry["checksum"], found))
    return results
