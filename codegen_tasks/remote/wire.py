"""Bazel's `ActionResult` as bytes, as far as a cache server looks at one; pure, no I/O.

Servers that know what they keep (bazel-remote) refuse under `/ac/` what is no such message, and
hand one out, or evict it, together with the contents that it names.  The field numbers are those
of `build/bazel/remote/execution/v2/remote_execution.proto`, the encoding that of Protocol Buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_OUTPUT_FILES, _STDOUT_RAW, _METADATA = 2, 5, 9  # of ActionResult
_PATH, _DIGEST = 1, 2  # of OutputFile
_HASH, _SIZE = 1, 2  # of Digest
_WORKER = 1  # of ExecutedActionMetadata
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST = 10  # bytes of a number


def action_result(text: bytes, blobs: Iterable[tuple[str, str, int]], worker: str) -> bytes:
    """Return the message.

    Args:
        text: what the action printed; for us, all that we have to say.
        blobs: contents that belong to it: a path, a sha256 and a size in bytes each.
        worker: who made it; a server would else write its own word there.
    """
    files = b"".join(
        _field(
            _OUTPUT_FILES,
            _field(_PATH, path.encode())
            + _field(_DIGEST, _field(_HASH, name.encode()) + _number(_SIZE, size)),
        )
        for path, name, size in blobs
    )
    metadata = _field(_METADATA, _field(_WORKER, worker.encode()))
    return files + _field(_STDOUT_RAW, text) + metadata


def text_in(message: bytes) -> bytes:
    """Return what the action of a message printed.

    Raises:
        ValueError: it is no such message.
    """
    found = [value for number, value in _fields(message) if number == _STDOUT_RAW]
    if not found or not isinstance(found[-1], bytes):
        raise ValueError("says nothing")
    return found[-1]


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field.  Raises ValueError: it is no message."""
    place = 0
    while place < len(message):
        tag, place = _read(message, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _read(message, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, place = _read(message, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("no such kind of field")
        if place + size > len(message):
            raise ValueError("cut off")
        yield tag >> 3, message[place : place + size]
        place += size


def _read(message: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place, and the place after it."""
    value = 0
    for index, byte in enumerate(message[place : place + _LONGEST]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("no number")
