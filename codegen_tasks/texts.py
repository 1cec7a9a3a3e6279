"""Text that people wrote: decoded and parsed, and what is wrong with it told by its line.

Unaware of what it is for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .errors import StepError


def parsed(path: str, text: str, parser: Callable[[str], Any]) -> Any:
    """Return what a parser of TOML, JSON or YAML makes of a file's text.

    Raises:
        StepError: with the line, as far as the parser tells, and what stands there.
    """
    try:
        return parser(text)
    except ValueError as error:
        line, what = _position(error, text)
        where = f"{path}:{line}" if line else path
        raise StepError(where, what, details=_source_line(text, line)) from None


def decoded(path: str, raw: bytes) -> str:
    """Return a file's text.

    Raises:
        StepError: it is not UTF-8; names the line.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 (byte 0x{raw[error.start]:02x})"
        raise StepError(f"{path}:{line}", what, "save the file as UTF-8") from None


_AT = re.compile(r"\s*\(at (?:line (\d+)(?:, column (\d+))?|end of document)\)")


def _position(error: ValueError, text: str) -> tuple[int, str]:
    """Return line (0 if unknown) and message of a parser's error."""
    if isinstance(error, json.JSONDecodeError):
        return error.lineno, _lower(error.msg)
    said = str(error)
    at = _AT.search(said)
    if at is None:
        return 0, _lower(said)
    what = _lower(said[: at.start()])
    if at.group(1) is None:
        return len(text.splitlines()), f"{what}, at the end of the file"
    return int(at.group(1)), what


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _source_line(text: str, line: int) -> list[str]:
    lines = text.splitlines()
    return [f"{line} | {lines[line - 1].rstrip()}"] if 0 < line <= len(lines) else []
