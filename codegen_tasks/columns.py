"""How many columns of a terminal a text fills, and texts broken to fit one."""

from __future__ import annotations

import unicodedata


def cells(text: str) -> int:
    """Return how many columns of a terminal a text fills."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def wrap(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    """Return a text in lines of at most so many cells; a longer word has a line of its own."""
    lines, line, used = [], first, cells(first)
    begun = False
    for word in text.split(" "):
        size = cells(word)
        if begun and used + 1 + size > width:
            lines.append(line)
            line, used, begun = others, cells(others), False
        if begun:
            line, used = f"{line} {word}", used + 1 + size
        else:
            line, used, begun = line + word, used + size, True
    return [*lines, line]
