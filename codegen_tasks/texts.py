"""Text that people wrote: decoded and parsed, and what is wrong with it told by its line.

Unaware of what it is for.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

from .errors import StepError


def toml(text: str) -> Any:
    """Return what a TOML text says."""
    import tomli

    return tomli.loads(text)


def yaml(text: str) -> Any:
    """Return what a YAML text says.

    Raises:
        ImportError: PyYAML is not installed.
    """
    from . import yamls

    return yamls.load(text)


def warm_up() -> None:
    """Import what parses patterns, for processes that are to be forked."""
    toml("")


#: Parsers of the formats that templates read data from, by kind of input.
PARSERS: dict[str, Callable[[str], Any]] = {"toml": toml, "json": json.loads, "yaml": yaml}


def load(path: str, kind: str) -> Any:
    """Return what a TOML, JSON or YAML file says.

    Raises:
        StepError: it is not UTF-8 or not of its format, or PyYAML is not installed.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return parsed(path, decoded(path, file.read()), PARSERS[kind])


def parsed(path: str, text: str, parser: Callable[[str], Any]) -> Any:
    """Return what a parser of TOML, JSON or YAML makes of a file's text.

    Raises:
        StepError: with the line, as far as the parser tells, and what stands there; or
            PyYAML is not installed.
    """
    try:
        return parser(text)
    except ImportError:
        from . import yamls

        raise StepError(path, "to read it needs PyYAML", yamls.HINT) from None
    except RecursionError:
        raise StepError(path, "is nested too deeply") from None
    except ValueError as error:
        line, what = _inside(text, *_position(error, text))
        where = f"{path}:{line}" if line else path
        raise StepError(where, what, details=source_line(text, line)) from None


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
#: A key as tomli tells it: a tuple of its parts.
_KEY = re.compile(r"""\((?:'[^']*'|"[^"]*")(?:, ?(?:'[^']*'|"[^"]*")?)+\)""")


def _position(error: ValueError, text: str) -> tuple[int, str]:
    """Return line (0 if unknown) and message of a parser's error."""
    if isinstance(error, json.JSONDecodeError):
        return error.lineno, _lower(error.msg).removesuffix(" at")
    said = _KEY.sub(lambda found: ".".join(ast.literal_eval(found[0])), str(error))
    at = _AT.search(said)
    if at is None:
        return 0, _lower(said)
    what = _lower(said[: at.start()])
    if at.group(1) is None:
        return len(_lines(text)) + 1, what
    return int(at.group(1)), what


def _inside(text: str, line: int, what: str) -> tuple[int, str]:
    """Return the last line instead of one beyond it, and say so."""
    last = len(_lines(text))
    return (last, f"{what}, at the end of the file") if line > last else (line, what)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def source_line(text: str, line: int) -> list[str]:
    """Return a line of a text as messages show it; none if there is no such line."""
    lines = _lines(text)
    return [f"{line} | {lines[line - 1]}".rstrip()] if 0 < line <= len(lines) else []
