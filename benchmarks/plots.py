"""Plots as SVG: lines on two logarithmic axes, one a tool; text stays text.

Colors follow the reader's light or dark scheme, background included, so that a plot can be
read wherever it is shown.  Every line has a marker of its own shape besides its color.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 88, 204, 44, 56
#: The gap between lines of the legend, which are in the order of the lines' right ends.
_LEGEND = 22

#: Name of a line -> its color on light and on dark, and its marker.
_STYLES = {
    "us": ("#c2410c", "#fb923c", "circle"),
    "loop": ("#52525b", "#a1a1aa", "bar"),
    "doit": ("#1d4ed8", "#60a5fa", "square"),
    "ninja": ("#15803d", "#4ade80", "triangle"),
    "make": ("#7e22ce", "#c084fc", "diamond"),
    "scons": ("#a16207", "#facc15", "cross"),
    "pytask": ("#be185d", "#f472b6", "star"),
    "floor": ("#0f766e", "#2dd4bf", "plus"),
}
_DASHED = ("floor", "loop")

_STYLE = """
svg { font: 13px system-ui, sans-serif; }
.back { fill: #ffffff; }
text { fill: #27272a; }
.title { font-size: 15px; font-weight: 600; }
.grid { stroke: #e4e4e7; stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; }
.strong { stroke-width: 3.2; }
.dashed { stroke-dasharray: 5 4; }
.mark { fill: none; stroke-width: 1.8; }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: the name its style goes by, what the legend says, and its points."""

    name: str
    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values, which are above 0, to places between `start` and `stop`, logarithmically."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = math.log10(value / self.low) / math.log10(self.high / self.low)
        return self.start + share * (self.stop - self.start)

    def decades(self) -> Iterator[float]:
        """Yield the powers of ten in range."""
        first, last = (math.log10(value) for value in (self.low, self.high))
        for power in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1):
            yield 10.0**power


def plot(
    title: str,
    across: str,
    up: str,
    lines: Sequence[Line],
    word: Callable[[float], str],
) -> str:
    """Return a plot as SVG.

    Args:
        title: stands above it.
        across: label of the axis to the right, with its unit.
        up: label of the axis upwards, with its unit.
        lines: one at least, each with one point at least; all values are above 0.
        word: value on the upward axis -> its tick's text.
    """
    shown = sorted(lines, key=lambda line: -line.points[-1][1])
    x, y = _scales(shown)
    marks = ", ".join(line.label for line in shown)
    body = [
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(f'{up} by {across}: {marks}')}</desc>",
        f"<style>{_STYLE}{_colors()}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        _text(_LEFT, 26, title, "start", "title"),
        *_axes(x, y, across, up, word),
        *(part for line in shown for part in _drawn(line, x, y)),
        *(part for index, line in enumerate(shown) for part in _legend(index, line)),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' width="{WIDTH}" height="{HEIGHT}" role="img">'
    )
    return "\n".join([head, *body, "</svg>", ""])


def _scales(lines: Sequence[Line]) -> tuple[_Scale, _Scale]:
    xs, ys = zip(*(point for line in lines for point in line.points), strict=True)
    low, high = min(xs), max(xs)
    if low == high:
        low, high = low / 2, high * 2
    # Room for the markers at both ends.
    x = _Scale(low / 1.15, high * 1.15, _LEFT, WIDTH - _RIGHT)
    lowest, highest = (math.log10(value) for value in (min(ys), max(ys)))
    floor = math.floor(lowest)
    ceiling = max(math.ceil(highest), floor + 1)
    return x, _Scale(10.0**floor, 10.0**ceiling, HEIGHT - _BOTTOM, _TOP)


def _axes(
    x: _Scale, y: _Scale, across: str, up: str, word: Callable[[float], str]
) -> Iterator[str]:
    for value in y.decades():
        yield _path("grid", [(x.start, y(value)), (x.stop, y(value))])
        yield _text(_LEFT - 9, y(value) + 4, word(value), "end")
    for value in x.decades():
        yield _path("grid", [(x(value), y.start), (x(value), y.stop)])
        yield _text(x(value), HEIGHT - _BOTTOM + 20, f"{value:,.0f}", "middle")
    yield _text((x.start + x.stop) / 2, HEIGHT - 14, across, "middle")
    middle = (y.start + y.stop) / 2
    turned = f'transform="rotate(-90 18 {middle:.0f})"'
    yield f'<text x="18" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(up)}</text>'


def _drawn(line: Line, x: _Scale, y: _Scale) -> Iterator[str]:
    places = [(x(value), y(height)) for value, height in line.points]
    yield _path(_classes(line), places, line.label)
    for place in places:
        yield _mark(line, *place)


def _classes(line: Line) -> str:
    strong = " strong" * (line.name == "us")
    return f"line {line.name}{strong}{' dashed' * (line.name in _DASHED)}"


def _legend(index: int, line: Line) -> Iterator[str]:
    left, height = WIDTH - _RIGHT + 18, _TOP + 12 + index * _LEGEND
    strong = " strong" * (line.name == "us")
    dashed = " dashed" * (line.name in _DASHED)
    ends = [(left, height), (left + 28, height)]
    yield _path(f"key line {line.name}{strong}{dashed}", ends)
    yield _mark(line, left + 14, height)
    yield _text(left + 38, height + 4, line.label, "start")


_SHAPES: Mapping[str, Sequence[Sequence[tuple[float, float]]]] = {
    "square": [[(-4, -4), (4, -4), (4, 4), (-4, 4), (-4, -4)]],
    "triangle": [[(-5, 4), (0, -5), (5, 4), (-5, 4)]],
    "diamond": [[(-5, 0), (0, -5), (5, 0), (0, 5), (-5, 0)]],
    "cross": [[(-4, -4), (4, 4)], [(-4, 4), (4, -4)]],
    "plus": [[(-5, 0), (5, 0)], [(0, -5), (0, 5)]],
    "star": [[(-5, 0), (5, 0)], [(-3, -4), (3, 4)], [(-3, 4), (3, -4)]],
    "bar": [[(0, -5), (0, 5)]],
}


def _mark(line: Line, x: float, y: float) -> str:
    shape = _STYLES[line.name][2]
    if shape == "circle":
        return f'<circle class="mark {line.name}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    strokes = ([(x + right, y + down) for right, down in stroke] for stroke in _SHAPES[shape])
    return f'<path class="mark {line.name}" d="{" ".join(map(_steps, strokes))}"/>'


def _path(classes: str, places: Sequence[tuple[float, float]], label: str = "") -> str:
    named = f" data-tool={quoteattr(label)}" if label else ""
    return f'<path class="{classes}"{named} d="{_steps(places)}"/>'


def _steps(places: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _text(x: float, y: float, words: str, anchor: str, classes: str = "") -> str:
    named = f' class="{classes}"' if classes else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text{named} {place}>{escape(words)}</text>"


def _colors() -> str:
    light = "".join(f".{name} {{ stroke: {one[0]}; }}\n" for name, one in _STYLES.items())
    dark = "".join(f".{name} {{ stroke: {one[1]}; }}\n" for name, one in _STYLES.items())
    plain = ".back { fill: #18181b; }\ntext { fill: #e4e4e7; }\n.grid { stroke: #3f3f46; }\n"
    return f"{light}@media (prefers-color-scheme: dark) {{\n{plain}{dark}}}\n"
