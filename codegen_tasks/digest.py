"""Digests of bytes and of data; pure, no I/O."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def of_bytes(data: bytes) -> str:
    """Return the sha256 of `data`, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def of_data(value: Any) -> str:
    """Return the digest of JSON-like data, dates and times included.

    Key order counts: a template that iterates over a table sees it.  Types count: 1, 1.0
    and true are three values.

    Raises:
        TypeError: a value is neither JSON-like nor a date or time.
    """
    return of_bytes(text_of(value).encode("utf-8", "surrogatepass"))


def text_of(value: Any) -> str:
    """Return the text that `of_data` digests: JSON, dates and times as tables of their own.

    Raises:
        TypeError: a value is neither JSON-like nor a date or time.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_encode)


def of_parts(*parts: str) -> str:
    """Return the digest of a sequence of strings; no two sequences run together."""
    return of_bytes("".join(f"{len(p)}:{p}" for p in parts).encode("utf-8", "surrogatepass"))


def short(digest: str) -> str:
    """Return a digest as people are shown it: its first four digits."""
    return f"{digest[:4]}…" if len(digest) > 8 else digest


def _encode(value: Any) -> Any:
    isoformat = getattr(value, "isoformat", None)
    if isoformat is not None:
        return {f"\0{type(value).__name__}": isoformat()}  # no table has such a key
    raise TypeError(f"no digest for a {type(value).__name__}")
