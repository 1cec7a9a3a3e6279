"""How results travel: packed, signed, and looked through when they come; pure, no I/O.

What is kept of a result is one message under its key, and a blob for each content that does not
stand in it.  A blob's name is the sha256 of the bytes that are sent, for servers check that; the
message says what content it holds.  With a secret, a message is signed together with its key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .. import digest
from . import wire

#: Raised when messages are made differently.
FORMAT = "1"
#: A message, and what is packed in it, has at most so many bytes.
MESSAGE = 16_000_000
#: A content has at most so many bytes.
CONTENT = 200_000_000
_HEAD = f"codegen-tasks {FORMAT}".encode()
_PROOF = b"codegen-tasks has this key"
_UNSIGNED = b"-"


class ForeignError(ValueError):
    """What came is nothing that was ever sent from here: a page that tells an error, or junk."""


class UnsignedError(ValueError):
    """What came is not signed with our secret."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A content as it travels: the name, the digest of the packed bytes, and how many they are."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one message holds: the text that is kept here, and its contents' blobs, by digest."""

    text: bytes
    blobs: Mapping[str, Blob]


def packed(
    key: str,
    text: bytes,
    contents: Mapping[str, bytes],
    secret: bytes = b"",
    there: Mapping[str, Blob] = MappingProxyType({}),
) -> tuple[bytes, dict[str, bytes]]:
    """Return a message, and the blobs that belong to it, by name.

    Args:
        key: under which it is kept.
        text: what is kept under that key here.
        contents: the contents that are kept beside it, by digest.
        secret: to sign it with; empty for not at all.
        there: further contents, by digest, whose blobs were sent before.
    """
    blobs = {content: zlib.compress(data) for content, data in contents.items()}
    names = {content: (blob.name, blob.size) for content, blob in there.items()}
    names |= {content: (digest.of_bytes(data), len(data)) for content, data in blobs.items()}
    body = zlib.compress(json.dumps(names).encode() + b"\n" + text)
    seal = _signature(key, body, secret) if secret else _UNSIGNED
    said = b"\n".join([_HEAD, seal, body])
    files = [(content, name, size) for content, (name, size) in names.items()]
    message = wire.action_result(said, files, "codegen-tasks")
    return message, {names[content][0]: data for content, data in blobs.items()}


def opened(key: str, message: bytes, secret: bytes = b"") -> Parcel:
    """Return what a message holds.

    Args:
        key: under which it came.
        message: as it came.
        secret: that it must be signed with; empty: nobody looks at a signature.

    Raises:
        UnsignedError: it is whole, but not signed with that.
        ForeignError: it is anything else.
    """
    try:
        head, seal, body = wire.text_in(message).split(b"\n", 2)
    except ValueError:
        raise ForeignError from None
    if head != _HEAD:
        raise ForeignError
    if secret and not hmac.compare_digest(seal, _signature(key, body, secret)):
        raise UnsignedError
    try:
        listed, _, text = _unpacked(body, MESSAGE).partition(b"\n")
        blobs = {content: _blob(*said) for content, said in json.loads(listed).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ForeignError from None
    return Parcel(text, blobs)


def content(data: bytes, blob: Blob, wanted: str, size: int) -> bytes:
    """Return the content that a blob holds.

    Args:
        data: the blob's bytes as they came.
        blob: what it should be.
        wanted: the content's digest.
        size: and how many bytes it has.

    Raises:
        ForeignError: it is something else.
    """
    if len(data) != blob.size or digest.of_bytes(data) != blob.name:
        raise ForeignError
    found = _unpacked(data, min(size, CONTENT))
    if len(found) != size or digest.of_bytes(found) != wanted:
        raise ForeignError
    return found


def proof(secret: bytes, said: str) -> str:
    """Return what only who has a secret can say of something; "" if there is none.

    It is no signature of a message, whatever is `said`.
    """
    if not secret:
        return ""
    return hmac.new(secret, b"\0".join([_PROOF, said.encode()]), hashlib.sha256).hexdigest()


def _signature(key: str, body: bytes, secret: bytes) -> bytes:
    said = b"\0".join([_HEAD, key.encode(), body])
    return hmac.new(secret, said, hashlib.sha256).hexdigest().encode()


def _unpacked(data: bytes, most: int) -> bytes:
    """Return the bytes that were packed.  Raises ForeignError: that is not all, or too much."""
    opener = zlib.decompressobj()
    try:
        found = opener.decompress(data, most + 1)
    except zlib.error:
        raise ForeignError from None
    if not opener.eof or opener.unused_data or len(found) > most:
        raise ForeignError
    return found


def _blob(name: str, size: int) -> Blob:
    if not digest.is_one(name) or type(size) is not int or not 0 <= size <= CONTENT:
        raise ValueError("no blob")
    return Blob(name, size)
