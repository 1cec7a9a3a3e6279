"""The pattern library: discover spec files, parse each once, validate.

Unaware of templates and rules.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable
from typing import Any

from . import digest, disk
from .errors import DeclarationError, StepError
from .model import Pattern, Stat

#: Names that templates get from us; a pattern's own keys must leave them free.
RESERVED = ("pattern", "patterns", "item")
_WILD = re.compile(r"[*?\[]")


def discover(folder: str, globs: Iterable[str]) -> list[str]:
    """Return the paths that match any of `globs`, sorted, forward slashes, no duplicates.

    Args:
        folder: the project; the globs and the paths are relative to it.
        globs: shell patterns; `**` crosses folders.
    """
    found = {
        path.replace(os.sep, "/")
        for pattern in globs
        for path in glob.glob(pattern, root_dir=folder, recursive=True)
    }
    return sorted(path for path in found if os.path.isfile(os.path.join(folder, path)))


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
    return os.path.splitext(os.path.basename(path))[0]


class Library:
    """The patterns of one project, each version of a file parsed once per process."""

    def __init__(self, root: str):
        self._root = root
        self._parsed: dict[tuple[str, Stat | None], Pattern] = {}

    def load(self, path: str) -> Pattern:
        """Return the parsed pattern at `path`.

        Raises:
            StepError: it cannot be read or parsed, is not a table at its top, or uses a
                reserved key.
        """
        full = os.path.join(self._root, path)
        signature = disk.stat(full)
        found = self._parsed.get((path, signature))
        if found is None:
            data = parse(path, _read(path, full))
            found = Pattern(path, stem(path), data, _digest(path, data), signature)
            self._parsed[path, signature] = found
        return found


def _digest(path: str, data: dict[str, Any]) -> str:
    try:
        return digest.of_data(data)
    except TypeError as error:
        raise StepError(path, f"holds a value that no template can rely on: {error}") from None


def _read(path: str, full: str) -> bytes:
    try:
        return disk.read(full)
    except OSError as error:
        raise StepError(path, f"cannot read: {(error.strerror or str(error)).lower()}") from None


def parse(path: str, raw: bytes) -> dict[str, Any]:
    """Return the data of a TOML, JSON or YAML spec.

    Raises:
        StepError: with file and line, as far as the parser tells.
    """
    text = _decoded(path, raw)
    parser = _parser_for(path)
    try:
        data = parser(text)
    except ValueError as error:
        line, what = _position(error)
        where = f"{path}:{line}" if line else path
        source = _source_line(text, line)
        raise StepError(where, what, details=source) from None
    if not isinstance(data, dict):
        raise StepError(path, f"must hold a table of keys at its top, not a {_noun(data)}")
    for key in RESERVED:
        if key in data:
            raise StepError(
                path, f"the key '{key}' is reserved", "templates get that name from the rule"
            )
    return data


def _decoded(path: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise StepError(
            f"{path}:{line}", f"not UTF-8 (byte 0x{byte:02x})", "save the file as UTF-8"
        ) from None


def _parser_for(path: str) -> Callable[[str], Any]:
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".toml":
        return tomllib.loads
    if suffix == ".json":
        return json.loads
    if suffix in (".yaml", ".yml"):
        return _yaml
    raise StepError(path, f"unknown pattern format '{suffix}'", "use .toml, .json or .yaml")


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise DeclarationError(
            "patterns", "YAML needs an extra", "pip install 'codegen-tasks[yaml]'"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ValueError(f"{error.problem or 'invalid YAML'} (at line {line})") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


_AT = re.compile(r"\s*\(at (?:line (\d+)(?:, column (\d+))?|end of document)\)")


def _position(error: ValueError) -> tuple[int, str]:
    """Return line (0 if unknown) and message of a parser's error."""
    if isinstance(error, json.JSONDecodeError):
        return error.lineno, _lower(error.msg)
    text = str(error)
    at = _AT.search(text)
    if at is None:
        return 0, _lower(text)
    what = _lower(text[: at.start()])
    if at.group(1) is None:
        return 0, f"{what}, at the end of the file"
    return int(at.group(1)), what


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _source_line(text: str, line: int) -> list[str]:
    lines = text.splitlines()
    return [f"{line} | {lines[line - 1]}"] if 0 < line <= len(lines) else []


def _noun(data: Any) -> str:
    return {list: "list", str: "string", type(None): "null"}.get(type(data), type(data).__name__)
