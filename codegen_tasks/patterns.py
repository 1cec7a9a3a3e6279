"""The pattern library: discover spec files, parse each once, validate.

Unaware of templates and rules.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from . import digest, disk, keys, texts
from .errors import StepError, cause
from .folders import Folders
from .keys import Notes, Reads
from .model import UNSETTLED, Input, Pattern, Stat

#: Names that templates get from us; a pattern's own keys must leave them free.
RESERVED = ("pattern", "patterns", "item")
#: So many parsed patterns are kept where each is rendered for itself: a pattern as Python has it
#: takes about eight times the room of its text.
FEW = 200
#: What a YAML pattern's name ends with.
YAML_SUFFIXES = (".yaml", ".yml")
#: In so many bytes of TOML or JSON no number is too large to be written, and no table too deep.
_HARMLESS = 1_000
_WILD = re.compile(r"[*?\[]")


def discover(
    folder: str,
    globs: Iterable[str],
    made: Iterable[str] = (),
    within: Iterable[str] = (),
    gone: Callable[[], Collection[str]] = tuple,
    folders: Folders | None = None,
) -> list[str]:
    """Return the paths that match any of `globs`, sorted, forward slashes, no duplicates.

    Args:
        folder: the project; the globs and the paths are relative to it.
        globs: shell patterns; `**` crosses folders.
        folders: its folders, as far as they were listed already.
        made: files that tasks make, there already or not.
        within: folders of what tasks make.
        gone: returns what tasks have made there; of that, only what they still make counts.
    """
    globs, made = list(globs), set(made)
    folders = Folders(folder) if folders is None else folders
    found = {path for pattern in globs for path in _found(folder, pattern, folders)}
    inside = tuple(f"{folder}/" for folder in within)
    if inside and any(path not in made and path.startswith(inside) for path in found):
        found -= set(gone()) - made
    found |= {path for path in made if any(matches(path, pattern) for pattern in globs)}
    return sorted(found)


def _found(root: str, pattern: str, folders: Folders) -> Iterator[str]:
    """Yield the files that a glob finds."""
    if not in_one_folder(pattern):
        for path in glob.glob(pattern, root_dir=root, recursive=True):
            if os.path.isfile(os.path.join(root, path)):
                yield path.replace(os.sep, "/")
        return
    folder, _, name = pattern.rpartition("/")
    fits = re.compile(fnmatch.translate(name)).match
    before = f"{folder}/" if folder else ""
    hidden = name.startswith(".")
    for found in folders.listing(folder or ".").files:
        if fits(found) and (hidden or not found.startswith(".")):
            yield before + found


def in_one_folder(pattern: str) -> bool:
    """Tell whether a glob is a folder's name and a wildcard for what lies right in it."""
    folder, _, name = pattern.rpartition("/")
    plain = os.sep == "/" and os.path.normpath(pattern) == pattern
    return plain and not _WILD.search(folder) and bool(_WILD.search(name)) and name != "**"


def matches(path: str, pattern: str) -> bool:
    """Tell whether `discover` would find a file at `path` by a glob."""
    return _match(path.split("/"), os.path.normpath(pattern).replace(os.sep, "/").split("/"))


def _match(parts: list[str], globs: list[str]) -> bool:
    if not parts or not globs:
        return not parts and not globs
    hidden = parts[0].startswith(".") and not globs[0].startswith(".")
    if globs[0] == "**":
        deeper = not hidden and _match(parts[1:], globs)
        last = not globs[1:] and not parts[1:]
        return deeper or (not hidden if last else _match(parts, globs[1:]))
    fits = fnmatch.fnmatchcase(parts[0], globs[0]) and not hidden
    return fits and _match(parts[1:], globs[1:])


def reaches(globs: Iterable[str], folder: str) -> bool:
    """Tell whether a glob may find something below a folder."""
    for pattern in globs:
        fixed = os.path.normpath(fixed_part(pattern) or ".").replace(os.sep, "/")
        if fixed == "." or f"{folder}/".startswith(f"{fixed}/") or fixed.startswith(f"{folder}/"):
            return True
    return False


def fixed_part(pattern: str) -> str:
    """Return the leading folders of a glob that hold no wildcard."""
    parts = pattern.split("/")[:-1]
    fixed = []
    for part in parts:
        if _WILD.search(part):
            break
        fixed.append(part)
    return "/".join(fixed)


def folder_below(path: str, globs: Iterable[str]) -> str:
    """Return a pattern's folder below the fixed part of the glob that found it."""
    folder = os.path.dirname(path)
    for pattern in globs:
        fixed = fixed_part(pattern)
        if not fixed or folder == fixed or folder.startswith(fixed + "/"):
            return folder[len(fixed) :].strip("/") if fixed else folder
    return folder


def stem(path: str) -> str:
    """Return a pattern's file name without its last suffix."""
    name = path.rpartition("/")[2]
    if name.startswith("."):
        return os.path.splitext(name)[0]
    return name.rpartition(".")[0] or name


#: More text than this is not kept to explain a change, in characters.
EXPLAINED = 2_000


def data_input(
    kind: str, path: str, data: Any, notes: Notes, stat: Stat | None, room: int = EXPLAINED
) -> Input:
    """Return a pattern or another file of data as an input, for the keys that were read.

    Args:
        kind: "pattern", or the format of another file.
        path: of the file, project-relative.
        data: what it says.
        notes: what was read of it.
        stat: its signature.
        room: characters of what was read that may be kept, so that a change can be shown.
    """
    reads = notes.reads()
    content, text = selected(kind, path, data, reads)
    return Input(kind, path, content, stat, text if len(text) <= room else "", reads)


def selected(kind: str, path: str, data: Any, reads: Reads) -> tuple[str, str]:
    """Return digest and text of what was read of a file of data, see `keys.select`."""
    is_yaml = _is_yaml(path) if kind == "pattern" else kind == "yaml"
    return keys.select(data, reads, string_keys=not is_yaml)


def _is_yaml(path: str) -> bool:
    return path.lower().endswith(YAML_SUFFIXES)


class Library:
    """The patterns of one project, each version of a file parsed once per process."""

    def __init__(self, root: str, folders: Folders | None = None):
        self.folders = folders or Folders(root)
        self._root = root
        self._inside = disk.Inside(root)
        self._parsed: dict[str, Pattern] = {}
        #: So many patterns are kept as they were parsed; None for all.
        self.keep: int | None = None

    def load(self, path: str) -> Pattern:
        """Return the parsed pattern at `path`.

        Raises:
            StepError: it cannot be read or parsed, is not a table at its top, or uses a
                reserved key.
        """
        full = os.path.join(self._root, path)
        found = self._parsed.get(path)
        # One that could have been written again unnoticed is read again.
        if found is None or found.stat != disk.stat(full):
            if not self._inside.holds(full):
                raise StepError(path, "a pattern cannot lie outside the project")
            found = self._parsed[path] = _loaded(path, full)
            if self.keep is not None and len(self._parsed) > self.keep:
                del self._parsed[next(iter(self._parsed))]
        return found

    def holds(self, path: str) -> bool:
        """Tell whether a file, by its absolute path, may be a pattern: it lies in the project."""
        return self._inside.holds(path)

    def signature(self, pattern: Pattern) -> Stat | None:
        """Return a loaded pattern's signature; if it was unsettled, by now, if it says the same."""
        if pattern.stat is None or pattern.stat[1] != UNSETTLED:
            return pattern.stat
        try:
            now = self.load(pattern.path)
            same = digest.text_of(now.data) == digest.text_of(pattern.data)
        except (StepError, TypeError, ValueError):
            return pattern.stat
        return now.stat if same else pattern.stat


def _loaded(path: str, full: str) -> Pattern:
    try:
        raw, signature = disk.read_signed(full)
    except OSError as error:
        raise StepError(path, f"cannot read: {cause(error)}") from None
    try:
        data = parse(path, raw)
        if len(raw) > _HARMLESS or _is_yaml(path):
            _refuse_unwritable(path, data)
    except RecursionError:
        raise StepError(path, "is nested too deeply") from None
    return Pattern(path, stem(path), data, disk.recorded(signature))


def _refuse_unwritable(path: str, data: dict[str, Any]) -> None:
    """Refuse what has no digest, whether a render reads it or not."""
    try:
        digest.text_of(data)
    except (TypeError, ValueError) as error:
        raise StepError(path, f"holds a value that no template can rely on: {error}") from None


def parse(path: str, raw: bytes) -> dict[str, Any]:
    """Return the data of a TOML, JSON or YAML spec.

    Raises:
        StepError: with file and line, as far as the parser tells.
    """
    data = texts.parsed(path, texts.decoded(path, raw), _parser_for(path))
    if not isinstance(data, dict):
        raise StepError(path, f"must hold a table of keys at its top, not {noun(data)}")
    for key in RESERVED:
        if key in data:
            hint = f"rename it: what templates see as '{key}' comes from the rule"
            raise StepError(path, f"the key '{key}' is reserved", hint)
    return data


def _parser_for(path: str) -> Callable[[str], Any]:
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".toml":
        return texts.toml
    if suffix == ".json":
        return json.loads
    if suffix in YAML_SUFFIXES:
        return texts.yaml
    raise StepError(path, f"unknown pattern format '{suffix}'", "use .toml, .json or .yaml")


def noun(data: Any) -> str:
    """Return what TOML and JSON call a value's type, for messages."""
    names: dict[type, str] = {dict: "a table", list: "a list", str: "a string", bool: "a boolean"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names.get(type(data), f"a {type(data).__name__}")
