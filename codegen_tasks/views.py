"""What a template sees of patterns: their keys, or its rule's item, list and context, with notes.

Unaware of template engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import items, keys
from .errors import CodegenError, StepError
from .functions import describe
from .keys import Notes, Reads, Table, View
from .model import Pattern, Rule, Step
from .project import Project


class Views:
    """What the templates of one project see.

    Args:
        project: what was declared.
        tracks: tells of a template whether it can be noted what it reads.
    """

    def __init__(self, project: Project, tracks: Callable[[str], bool]):
        self._project = project
        self._tracks = tracks
        self._reads: dict[Reads, Reads] = {}

    def of(self, step: Step, loaded: Sequence[Pattern]) -> View:
        """Return what the template sees, in copies of its own."""
        notes = {pattern.path: Notes(self._reads) for pattern in loaded}
        rule = self._project.rules[step.rule]
        tops = [Table(pattern.data, notes[pattern.path]) for pattern in loaded]
        more = {} if _may_read_all(rule) else rule.context or {}
        if step.many:
            for table, pattern in zip(tops, loaded, strict=True):
                keys.give(table, "pattern", pattern.names())
            view = View([], {"patterns": tops, **more}, notes)
        elif step.item is not None:
            view = self._of_item(step, loaded[0], tops[0], notes, more)
        else:
            named: dict[str, Any] = {"pattern": loaded[0].names()} if loaded else {}
            view = View(tops, {**named, **more}, notes)
        if self._tracks(step.template) and not _may_read_all(rule):
            return view
        return self._without_notes(step, view)

    def plain(self, step: Step, loaded: Sequence[Pattern]) -> dict[str, Any]:
        """Return what the template sees as plain data; what is noted of it is lost."""
        view = self.of(step, loaded)
        if _may_read_all(self._project.rules[step.rule]):
            return view.variables
        return {name: keys.copied(keys.unwrapped(v)) for name, v in view.variables.items()}

    def _of_item(
        self,
        step: Step,
        pattern: Pattern,
        top: Table,
        notes: Mapping[str, Notes],
        more: Mapping[str, Any],
    ) -> View:
        """Return what a template sees that renders one item of a list or table."""
        rule = self._project.rules[step.rule]
        each, place = str(rule.each), step.item if step.item is not None else 0
        try:
            item, layers = items.layers(
                each, place, rule.target, top, pattern.data, notes[pattern.path]
            )
        except (LookupError, TypeError):
            what = f"{items.told(each, place)} is gone meanwhile"
            raise StepError(pattern.path, what) from None
        named = {"pattern": pattern.names(), "item": item, **more}
        if isinstance(place, str):
            named.setdefault("key", place)
        return View(layers, named, notes)

    def _without_notes(self, step: Step, view: View) -> View:
        """Return plain copies of what a view shows, for code that can do anything with it."""
        view.see_all()
        rule = self._project.rules[step.rule]
        data = {name: keys.copied(keys.unwrapped(v)) for name, v in view.variables.items()}
        if _may_read_all(rule):
            data.update(_context(rule.name, rule.context, data, step.patterns))
        return View([], data, view.notes)


def _may_read_all(rule: Rule) -> bool:
    """Tell whether a rule's context is a function, which may read all of a pattern."""
    return rule.context is not None and not isinstance(rule.context, Mapping)


def _context(
    rule: str, context: Any, data: Mapping[str, Any], made_by: Sequence[str]
) -> Mapping[str, Any]:
    details = [f"pattern {path}" for path in made_by[:1]]
    try:
        found = context(data)
    except CodegenError:
        raise
    except (Exception, SystemExit) as error:
        what = f"context function {describe(context)}: {type(error).__name__}: {error}"
        raise StepError(f"rule {rule}", what, details=details) from None
    if not isinstance(found, Mapping):
        returned = type(found).__name__
        what = f"context function {describe(context)} must return a dict, not {returned}"
        raise StepError(f"rule {rule}", what, details=details)
    return found
