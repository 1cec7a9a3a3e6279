"""Digests of bytes and of data; pure, no I/O."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_DIGITS = 64
#: Types of keys that JSON writes as if they were strings, besides null.
_KEYS = (bool, int, float)


def _encode(value: Any) -> Any:
    isoformat = getattr(value, "isoformat", None)
    if isoformat is not None:
        return {f"\0{type(value).__name__}": isoformat()}  # no table has such a key
    raise TypeError(f"no digest for a {type(value).__name__}")


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_encode)


def of_bytes(data: bytes) -> str:
    """Return the sha256 of `data`, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def is_one(text: str) -> bool:
    """Tell whether a text is a digest, as `of_bytes` returns them."""
    return len(text) == _DIGITS and not text.strip("0123456789abcdef")


def of_data(value: Any) -> str:
    """Return the digest of JSON-like data, dates and times included.

    Key order counts: a template that iterates over a table sees it.  Types count: 1, 1.0
    and true are three values.

    Raises:
        TypeError: a value is neither JSON-like nor a date or time.
        ValueError: it is a number with more digits than Python writes.
    """
    return of_bytes(text_of(value).encode("utf-8", "surrogatepass"))


def text_of(value: Any, string_keys: bool = False) -> str:
    """Return the text that `of_data` digests: JSON, dates and times as tables of their own.

    Args:
        value: the data.
        string_keys: all keys in it are known to be strings, as in TOML and JSON.

    Raises:
        TypeError: a value is neither JSON-like nor a date or time.
        ValueError: it is a number with more digits than Python writes.
    """
    text = _JSON.encode(value)  # refuses what holds itself
    if string_keys or not _has_other_keys(value):
        return text
    return _JSON.encode(_keyed(value))


def _has_other_keys(value: Any) -> bool:
    """Tell whether a table in JSON-like data has a key that is no string; YAML allows it.

    JSON would make the same of 1 and "1".
    """
    if type(value) is dict:
        return any(type(key) is not str for key in value) or _has_other_keys(list(value.values()))
    if type(value) is list:
        return any(type(part) in (dict, list) and _has_other_keys(part) for part in value)
    return False


def _keyed(value: Any) -> Any:
    """Return data with the type of each key in it; what JSON knows for none is left to fail."""
    if type(value) is dict:
        return {
            f"\0{type(key).__name__} {key}" if key is None or type(key) in _KEYS else key: _keyed(
                part
            )
            for key, part in value.items()
        }
    return [_keyed(part) for part in value] if type(value) is list else value


def of_parts(*parts: str) -> str:
    """Return the digest of a sequence of strings; no two sequences run together."""
    return of_bytes("".join(f"{len(p)}:{p}" for p in parts).encode("utf-8", "surrogatepass"))


def short(digest: str) -> str:
    """Return a digest as people are shown it: its first four digits."""
    return f"{digest[:4]}…" if len(digest) > 8 else digest
