"""A text copied as it comes, such as a stack trace, with what made each place that it names.

Knows neither templates nor targets; whoever hands it the text tells of places.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, TypeAlias

from ..dressed import dressed_for

#: A place in a text: a path or URL, a line, perhaps a column.
PLACE = re.compile(r"(?P<path>[^\s()'\"<>]+?):(?P<line>\d+)(?::(?P<column>\d+))?(?![\w/]|:\w)")
_PYTHON = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+)(?P<column>)')
_COLOURS = re.compile(r"\x1b\[[0-9;:]*[A-Za-z]")
#: Below a place Python shows the line and marks in it, further in than the place.
_BELOW_PYTHON = re.compile(r"    (?!File \")")

#: Returns lines that tell what made a place; [] if it is none of ours.
Teller: TypeAlias = Callable[[re.Match[str]], Sequence[str]]


class Annotator:
    """Copies one text, and tells of its places below the lines that name them.

    Args:
        out: where the copy goes.
        tell: tells of a place; asked again, it may be short.
    """

    def __init__(self, out: IO[str], tell: Teller):
        self._out = out
        self._tell = tell
        self._line = b""
        self._held: list[str] = []
        #: Whether anything was told.
        self.found = False

    def add(self, data: bytes) -> None:
        """Copy more of the text."""
        for part in data.splitlines(keepends=True):
            self._line += part
            if not part.endswith(b"\n"):
                # What waits for an answer has no end of line: it is shown as it is.
                if not self._held:
                    self._copy(part)
                return
            self._end_line(self._line, part)
            self._line = b""

    def end(self) -> None:
        """Tell what is left to be told."""
        if self._held and self._line:
            self._end_line(self._line, self._line)
        elif self._line:
            self._say(self._places(_plain(self._line)), newline=True)
        self._say(self._held)
        self._held = []
        self._out.flush()

    def _end_line(self, line: bytes, last: bytes) -> None:
        """Copy the rest of a line, `last` unless something was held, and tell of its places."""
        text = _plain(line)
        whole = bool(self._held)
        if self._held and not _BELOW_PYTHON.match(text):
            self._say(self._held)
            self._held = []
        self._copy(line if whole else last)
        told = self._places(text)
        if _PYTHON.search(text):
            self._held += told
        else:
            self._say(told)

    def _places(self, text: str) -> list[str]:
        indent = " " * (len(text) - len(text.lstrip()) + 2)
        matches = (*_PYTHON.finditer(text), *PLACE.finditer(text))
        told = [f"{indent}{line}" for match in matches for line in self._tell(match)]
        self.found = self.found or bool(told)
        return told

    def _say(self, lines: Iterable[str], newline: bool = False) -> None:
        told = list(lines)
        if told:
            lines_of = (dressed_for(self._out, line) for line in told)
            self._out.write("\n" * newline + "".join(f"{line}\n" for line in lines_of))

    def _copy(self, data: bytes) -> None:
        raw = getattr(self._out, "buffer", None)
        if raw is None:
            self._out.write(data.decode("utf-8", "replace"))
        else:
            self._out.flush()
            raw.write(data)
        self._out.flush()


def _plain(line: bytes) -> str:
    return _COLOURS.sub("", line.decode("utf-8", "replace")).rstrip("\r\n")


def read_in(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield what comes from a stream as soon as it comes."""
    while data := os.read(stream.fileno(), 1 << 16):
        yield data


def ran(command: Sequence[str], out: Annotator, err: Annotator) -> int:
    """Run a command, copy both its streams, and return its exit code, as a shell would.

    Args:
        command: program and arguments.
        out: gets its output.
        err: gets its errors.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    coming: queue.SimpleQueue[tuple[Annotator, bytes | None]] = queue.SimpleQueue()

    def read(stream: IO[bytes], to: Annotator) -> None:
        for data in read_in(stream):
            coming.put((to, data))
        coming.put((to, None))

    for stream, to in ((process.stdout, out), (process.stderr, err)):
        threading.Thread(target=read, args=(stream, to), daemon=True).start()
    with _signals_for(process):
        left = 2
        while left:
            to, data = coming.get()
            if data is None:
                to.end()
                left -= 1
            else:
                to.add(data)
        code = process.wait()
    return 128 - code if code < 0 else code


class _signals_for:  # noqa: N801 -- a context manager
    """Let a process have what would end us; a terminal sends it Ctrl-C itself."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process

    def __enter__(self) -> None:
        handlers: dict[Any, Any] = {signal.SIGINT: lambda *_: None}
        for name in ("SIGTERM", "SIGHUP", "SIGQUIT"):
            if hasattr(signal, name):
                handlers[getattr(signal, name)] = lambda number, _: self._process.send_signal(
                    number
                )
        self._before = {number: signal.signal(number, one) for number, one in handlers.items()}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def arguments_of(given: Sequence[str]) -> list[str]:
    """Return the words of a command as they were typed: doit takes `NAME=value` out of them."""
    typed = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    left = [word for word in typed if word.startswith("-") or "=" not in word]
    return typed if left == list(given) else list(given)
