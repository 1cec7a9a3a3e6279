"""A bundle: the results of many steps of one kind as one content, to be restored at once.

What a step has read stands in it with the digests of the files themselves, so that nobody has to
parse a pattern to see that it is the same.  Where a pattern merely means the same, its step is not
found here, but under a key of its own: see `actions`.  Pure, no I/O.

    a line that tells the format
    a line of JSON: what was read, and the steps
    contents of files, one after the other
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .actions import INLINE, Content, seconds_in
from .digest import is_one, of_bytes
from .model import Input, Result, Step, input_of, row_of

_HEAD = b"codegen-tasks bundle 1\n"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Read:
    """An input of a step, without signature, and the digest of its file's bytes, "" if none."""

    item: Input
    raw: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What one step came to.

    Args:
        reads: numbers of what it read, see `Bundle.read`.
        contents: its files; data that does not stand in the bundle is a content of its own.
        references, printed, seconds: see `model.Result`.
    """

    reads: Sequence[int]
    contents: Sequence[Content]
    references: tuple[str, ...]
    printed: str
    seconds: float


def _own(step: Step) -> list[Any]:
    """Return what tells a step from the others of its kind."""
    return [list(step.outputs), step.source, list(step.patterns), step.item]


def written(
    results: Iterable[tuple[Step, Sequence[Read], Result]],
) -> tuple[bytes, dict[str, bytes]]:
    """Return a bundle, and the contents, by digest, that are kept beside it.

    Args:
        results: steps, what each read, and what it came to.
    """
    numbers: dict[Any, int] = {}
    rows: list[Any] = []
    steps, pieces, beside, end = [], [], {}, 0
    for step, reads, result in results:
        used = []
        for one in reads:
            # Two rows are alike if their texts are: to Python, the keys 1 and true are equal.
            row = _encode([row_of(one.item), one.raw])
            if row not in numbers:
                numbers[row] = len(rows)
                rows.append(row)
            used.append(numbers[row])
        contents: list[list[Any]] = []
        for path, data in result.outputs.items():
            content = of_bytes(data)
            if len(data) > INLINE:
                beside[content] = data
                contents.append([path, content, len(data), None])
            else:
                contents.append([path, content, len(data), end])
                pieces.append(data)
                end += len(data)
        said = [list(result.references), result.printed, round(result.seconds, 6)]
        steps.append([step.task, _own(step), used, contents, *said])
    text = f'{{"reads":[{",".join(rows)}],"steps":{_encode(steps)}}}\n'
    return b"".join([_HEAD, text.encode("utf-8", "surrogatepass"), *pieces]), beside


class Bundle:
    """A bundle as it was kept; its steps are taken apart when they are asked for.

    Args:
        raw: its bytes.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: it is none.
    """

    def __init__(self, raw: bytes):
        if not raw.startswith(_HEAD):
            raise ValueError("no bundle")
        end = raw.index(b"\n", len(_HEAD)) + 1
        data = json.loads(raw[len(_HEAD) : end].decode("utf-8", "surrogatepass"))
        self._data = memoryview(raw)[end:]
        self._rows: list[Any] = data["reads"]
        self._reads: list[Read | None] = [None] * len(self._rows)
        self._steps: Mapping[str, Any] = {task: rest for task, *rest in data["steps"]}

    def __len__(self) -> int:
        return len(self._steps)

    def read(self, number: int) -> Read:
        """Return something that steps have read; errors as of the class."""
        found = self._reads[number]
        if found is None:
            row, raw = self._rows[number]
            item = input_of(*row)
            if item.stat is not None or (raw and not is_one(raw)):
                raise ValueError("of a machine")
            found = self._reads[number] = Read(item, raw)
        return found

    def entry(self, step: Step) -> Entry | None:
        """Return what is kept of a step; None if that is nothing; errors as of the class."""
        found = self._steps.get(step.task)
        if found is None or found[0] != _own(step):
            return None
        _, reads, contents, references, printed, seconds = found
        "".join((printed, *references))
        return Entry(
            reads,
            [self._content(*one) for one in contents],
            tuple(references),
            printed,
            seconds_in(seconds),
        )

    def _content(self, path: str, content: str, size: int, at: int | None) -> Content:
        "".join((path, content))
        if not is_one(content) or type(size) is not int:
            raise ValueError("no content")
        if at is None:
            return Content(path, content, size)
        data = bytes(self._data[at : at + size])
        if len(data) != size or of_bytes(data) != content:
            raise ValueError("the content is not what it should be")
        return Content(path, content, size, data)
