"""The page: one HTML file that needs nothing else, rendered by the engine that renders targets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..keys import View
from ..runs import Head, Run, StepRun
from ..templates import Engine, Spec
from . import words
from .figures import (
    Bar,
    Lane,
    Unit,
    bars,
    causes,
    critical_path,
    lanes,
    phase_sums,
    slowest,
    units,
)
from .graph import COLUMNS, Graph

#: So many causes, and so many names of each, are written out.
_CAUSES = 40
_NAMES = 200
_PHASES = ("templates", "generate", "compile", "output", "")


@dataclass(frozen=True, slots=True)
class Story:
    """What a page is made from.

    Args:
        name: of the project.
        run: the run that it is about.
        history: recent runs, the oldest first; that run is among them.
        graph: the dependency graph as it is now.
        problems: records that could not be read.
    """

    name: str
    run: Run
    history: Sequence[Head]
    graph: Graph
    problems: Sequence[str]

    def critical(self) -> list[Unit]:
        """Return the critical path."""
        return critical_path(units(self.run.steps), self.graph.waits)


def page(story: Story) -> str:
    """Return the text of the page.

    Raises:
        StepError: a fault in our template.
    """
    folder = os.path.dirname(os.path.abspath(__file__))
    filters: dict[str, Callable[..., Any]] = {
        "duration": words.duration,
        "number": words.number,
        "when": words.when,
        "selection": words.selection,
        "made": words.made,
        "script": _script,
        "named": _named,
        "percent": _percent,
    }
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    spec = Spec(folder, "html", options, filters, {}, {"counted": words.counted}, False)
    text, _ = Engine(spec, None, "").render("page.html.j2", View([], _variables(story), {}))
    return text


def _variables(story: Story) -> dict[str, Any]:
    run = story.run
    found = units(run.steps)
    path = critical_path(found, story.graph.waits)
    on_path = {id(unit) for unit in path}
    total = max([run.head.seconds, *(unit.end for unit in found)])
    rows = lanes(run, found)
    why = causes(run)
    return {
        "name": story.name,
        "head": run.head,
        "lanes": [_lane(lane, total, on_path) for lane in rows],
        "total": total,
        "ticks": _ticks(total),
        "path": [(unit, gap) for unit, gap in zip(path, _gaps(path), strict=True)],
        "path_seconds": sum(unit.seconds for unit in path),
        "work_seconds": sum(unit.seconds for unit in found),
        "phases": phase_sums(found),
        "slowest": slowest(run),
        "causes": why[:_CAUSES],
        "more_causes": max(0, len(why) - _CAUSES),
        "names_shown": _NAMES,
        "failed": [step.task for step in run.steps if step.outcome == "failed"],
        "unrun": [step.task for step in run.steps if step.outcome == "not run"],
        "history": story.history,
        "longest": max((head.seconds for head in story.history), default=0) or 1,
        "most_asked": max((head.hits + head.misses for head in story.history), default=0) or 1,
        "groups": _groups(story.graph),
        "columns": COLUMNS,
        "problems": story.problems,
        "data": {
            "total": total,
            "bars": [_bar_data(lane, on_path) for lane in rows],
            "graph": _graph_data(story.graph, run.steps),
        },
    }


def _lane(lane: Lane, total: float, on_path: Collection[int]) -> dict[str, Any]:
    rows = [bars(row, total, on_path) for row in lane.rows]
    return {"lane": lane, "rows": [[_drawn(bar, total) for bar in row] for row in rows]}


def _drawn(bar: Bar, total: float) -> dict[str, Any]:
    """Return a bar with its place, in thousandths of the timeline."""
    scale = 1000 / (total or 1)
    return {
        "bar": bar,
        "x": round(bar.start * scale, 2),
        "width": round(max(2.5 if bar.failed else 0.8, bar.seconds * scale), 2),
    }


def _ticks(total: float) -> list[tuple[float, str]]:
    """Return round times to mark on the timeline: place in thousandths, and wording."""
    step = 10.0**-6
    for factor in (2, 2.5, 2) * 12:
        if total / step <= 10:
            break
        step *= factor
    count = int(total / step) if total else 0
    return [(1000 * n * step / total, words.tick(round(n * step, 9))) for n in range(1, count + 1)]


def _gaps(path: Sequence[Unit]) -> list[float]:
    """Return for each unit how long nothing of the path had run before it."""
    ends = [0.0, *(unit.end for unit in path)]
    return [max(0.0, unit.start - end) for unit, end in zip(path, ends, strict=False)]


def _bar_data(lane: Lane, on_path: Collection[int]) -> list[list[list[Any]]]:
    """Return a lane's rows for the script.

    Of each unit: start and length in microseconds, phase, whether critical, failed, label.
    """
    return [
        [
            [
                round(unit.start * 1e6),
                round(unit.seconds * 1e6),
                _PHASES.index(unit.phase),
                int(id(unit) in on_path),
                int(unit.failed),
                unit.label,
            ]
            for unit in row
        ]
        for row in lane.rows
    ]


def _groups(graph: Graph) -> list[dict[str, Any]]:
    """Return the groups for the table: what each is made from, and what is made from it."""
    group_of = {node: place for place, group in enumerate(graph.groups) for node in group.nodes}
    above: list[dict[int, None]] = [{} for _ in graph.groups]
    below: list[dict[int, None]] = [{} for _ in graph.groups]
    for node, sources in enumerate(graph.sources):
        for source in sources:
            a, b = group_of[source], group_of[node]
            if a != b:
                above[b][a] = None
                below[a][b] = None
    return [
        {
            "name": group.name,
            "column": COLUMNS[group.column],
            "count": len(group.nodes),
            "above": [graph.groups[one].name for one in above[place]],
            "below": [graph.groups[one].name for one in below[place]],
        }
        for place, group in sorted(enumerate(graph.groups), key=lambda item: item[1].column)
    ]


def _graph_data(graph: Graph, steps: Sequence[StepRun]) -> dict[str, Any]:
    """Return the graph for the script; `came` is what a node came to in the run, "" for nothing."""
    came = {step.task: step.outcome for step in steps}
    return {
        "columns": COLUMNS,
        "names": graph.names,
        "came": [came.get(task, "") for task in graph.tasks],
        "groups": [[group.column, group.name, group.nodes] for group in graph.groups],
        "sources": [list(sources) for sources in graph.sources],
    }


def _script(data: Any) -> Any:
    """Return data as JSON that may stand in a script element."""
    from markupsafe import Markup

    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _named(outcome: str) -> str:
    """Return what to call an outcome that is counted."""
    names = {"parsed": "templates parsed", "written": "manifest written", "done": "other tasks"}
    return names.get(outcome, outcome)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}" if whole else "0"
