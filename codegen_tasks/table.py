"""The live view as rich draws it: a bar, a row for each worker, what went wrong.

The only module that knows rich, an extra; loaded when a long run is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from .progress import Shown, duration, fit_rows, fitted, in_words

_BAR = 32  # columns
_TIME = 6  # columns


class Table:
    """Draws pictures of the view.

    Args:
        stream: the terminal; it tells how many colours there are, and which characters.
        environ: `NO_COLOR` is obeyed to the letter, bold type is none either.
    """

    def __init__(self, stream: Any, environ: Mapping[str, str]):
        plain = bool(environ.get("NO_COLOR"))
        self._console = Console(
            file=stream,
            force_terminal=True,
            color_system=None if plain else "auto",
            no_color=plain,
            highlight=False,
        )

    def rows(self, shown: Shown, width: int, height: int) -> list[str]:
        """Return the rows of a picture that fits."""
        console = self._console
        console.width = max(1, width)
        parts = [self._head(shown, width), *self._running(shown, width, height)]
        if shown.counts.templates:
            told = f"{'':{_TIME}}  templates {shown.counts.templates}"
            parts.append(Text(told, style="bright_black", no_wrap=True, overflow="ellipsis"))
        with console.capture() as captured:
            console.print(Group(*parts), end="")
        return captured.get().rstrip("\n").split("\n")[: max(1, height - 2)]

    def _head(self, shown: Shown, width: int) -> Any:
        counts = shown.counts
        bar = ProgressBar(
            total=max(1, counts.total),
            completed=counts.done,
            width=max(4, min(_BAR, width // 3)),
            complete_style="red" if counts.failed else "green",
            finished_style="red" if counts.failed else "green",
            style="bright_black",
        )
        words = Text(in_words(counts, shown.left), no_wrap=True, overflow="ellipsis")
        words.highlight_regex(r"\d+ failed", "red")
        grid = Grid.grid(padding=(0, 2))
        grid.add_row(bar, words)
        return grid

    def _running(self, shown: Shown, width: int, height: int) -> Iterator[Any]:
        """Yield a row for each worker, the time first: names differ in length."""
        for what, since in fit_rows(shown.running, height):
            took = duration(since) if what and since >= 1 else ""
            row = Text(f"{took:>{_TIME}}  ", style="cyan", no_wrap=True)
            told = fitted(what, width - _TIME - 2)
            row.append(told or "idle", style="default" if what else "bright_black")
            yield row
