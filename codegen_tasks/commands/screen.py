"""What a screen takes: colour on a terminal only, lines by the cells they fill, trees."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from ..causes import Node
from ..columns import wrap

#: Lines are no longer than this where no terminal says how wide it is.
_WIDTH = 80
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Screen:
    """Writes lines to a stream.

    Args:
        stream: where commands of doit write.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        live = _is_terminal(stream)
        self._colours = live and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        columns = shutil.get_terminal_size((_WIDTH, 24)).columns if live else _WIDTH
        self.width = max(columns, 40)
        self._plain = not _can_write(stream, "├└│─→")
        self.arrow = "->" if self._plain else "→"

    def styled(self, text: str, style: str = "") -> str:
        """Return a text in a style, if it has colours at all."""
        if not style or not self._colours or not text:
            return text
        return f"\033[{_STYLES[style]}m{text}\033[0m"

    def write(self, line: str = "", style: str = "") -> None:
        """Write one line as it is."""
        # What a terminal would obey is spelt out: names may come from anywhere.
        self._stream.write(self.styled(_shown(line), style) + "\n")

    def wrapped(self, text: str, indent: str = "", hanging: str = "", style: str = "") -> None:
        """Write a text in lines no wider than the screen, but for words that are.

        Args:
            text: what to write.
            indent: before each line.
            hanging: further indent of all lines but the first.
            style: of the text.
        """
        for line in wrap(_shown(text), self.width, indent, indent + hanging):
            begin = line[: len(line) - len(line.lstrip())]
            self._stream.write(begin + self.styled(line[len(begin) :], style) + "\n")

    def tree(self, node: Node, indent: str = "", style: str = "yellow") -> None:
        """Write a tree, its root as a heading."""
        self.wrapped(node.text, indent, "  ", style)
        for line in self.branches(node, indent):
            self.write(line)

    def field(self, head: str, text: str, style: str = "") -> None:
        """Write a text beside a label, its further lines below its own first."""
        beside = " " * len(head)
        first, *more = wrap(_shown(text), self.width - len(head))
        self._stream.write(head + self.styled(first, style) + "\n")
        for line in more:
            self._stream.write(f"{beside}  {self.styled(line, style)}\n")

    def branches(self, root: Node, before: str) -> Iterator[str]:
        """Yield the lines below a node."""
        # By hand, for a chain of targets may be longer than Python's stack is deep.
        todo: list[tuple[Node, str, bool]] = []

        def put(nodes: Sequence[Node], begin: str) -> None:
            last = len(nodes) - 1
            todo.extend([(node, begin, index == last) for index, node in enumerate(nodes)][::-1])

        put(list(root.below.values()), before)
        tee, end, bar = ("|- ", "`- ", "|  ") if self._plain else ("├─ ", "└─ ", "│  ")
        while todo:
            node, begin, last = todo.pop()
            yield f"{begin}{end if last else tee}{node.text}"
            put(list(node.below.values()), begin + ("   " if last else bar))


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _can_write(stream: Any, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (LookupError, UnicodeError):
        return False
    return True


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
