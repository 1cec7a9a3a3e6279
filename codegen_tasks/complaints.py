"""What templates, formatters and compilers complain about, told with what is to blame for it.

That is a line of a generated file, the template and pattern that made it, and the place in these.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import disk
from .errors import CodegenError, StepError
from .model import Step
from .plan import Plan
from .project import Project

if TYPE_CHECKING:
    from .origins import Origins


class Complaints:
    """Adds to complaints of one project's tools what is to blame.

    Args:
        project: what was declared.
        plan: its steps.
        origins: returns what tells which template line made a place; asked when it is needed.
    """

    def __init__(self, project: Project, plan: Plan, origins: Callable[[], Origins]):
        self._project = project
        self._plan = plan
        self._origins = origins

    def of_template(self, step: Step, error: StepError) -> StepError:
        """Add to what a template raised the keys that it was at, with their lines."""
        if not self._may_render_again(step):
            return error
        told = self._origins().blamed(step, error)
        details = [line for line in error.details if not told or not line.startswith("pattern ")]
        return StepError(error.where, error.what, error.hint, [*details, *told])

    def of_formatter(self, step: Step, error: CodegenError, rendered: bytes) -> CodegenError:
        """Add to a formatter's complaint what made the text that it was given, `rendered`."""
        place = self._place(error)
        details = list(error.details)
        if place is not None and self._may_render_again(step):
            details += self._origins().told_of(*place, rendered, details)
        return self._with_makers(step, error, details)

    def of_compiler(self, step: Step, error: CodegenError, root: str) -> CodegenError:
        """Add to a compiler's complaint the generated line, and what made it.

        Args:
            step: that fails.
            error: the complaint.
            root: absolute path of the folder in which targets lie.
        """
        place = self._place(error)
        details = list(error.details)
        if place is not None:
            first, others = _apart(details)
            line = _line(root, *place, first)
            details = [*line, *first, *self._origin(step, error, place, root), *others]
        return self._with_makers(step, error, details)

    def _place(self, error: CodegenError) -> tuple[str, int] | None:
        """Return the target and the line that an error is about; None if it is about no target."""
        path, _, line = error.where.rpartition(":")
        return (path, int(line)) if line.isdigit() and path in self._plan.makers else None

    def _may_render_again(self, step: Step) -> bool:
        """Tell whether a step that fails may render once more, which has no limit of its own."""
        return not self._project.sandbox and self._project.rules[step.rule].timeout is None

    def _with_makers(self, step: Step, error: CodegenError, details: list[str]) -> CodegenError:
        if error.where.startswith("toolchain "):
            return error  # no source is to blame
        path, _, line = error.where.rpartition(":")
        maker = self._plan.makers.get(path if line.isdigit() else step.source)
        origin = self._plan.steps[maker] if maker else step
        made_from = f"made from {self._project.templates}/{origin.template}"
        if len(origin.patterns) == 1:
            made_from += f" and {origin.patterns[0]}"
        return StepError(error.where, error.what, error.hint, [*details, made_from])

    def _origin(
        self, step: Step, error: CodegenError, place: tuple[str, int], root: str
    ) -> list[str]:
        """Return what made the place that a compiler complains about."""
        if self._project.sandbox:
            return []  # to render once more has no limit here
        from .blame import marked_by

        tool = self._project.toolchain(step.rule, step.link)
        return self._origins().told(
            *(*place, root),
            lambda text: tool.character(text, error.column) or marked_by(text, error.details),
        )


def _line(root: str, path: str, line: int, shown: Sequence[str]) -> list[str]:
    """Return a line of a generated file, unless the compiler has `shown` it itself."""
    try:
        text = disk.read(os.path.join(root, path)).decode("utf-8", "replace")
        wanted = text.split("\n")[line - 1].rstrip()
    except (OSError, IndexError):
        return []
    return [] if any(wanted in said for said in shown[:1]) else [f"{line} | {wanted}"]


def _apart(details: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what is said of a compiler's first complaint, and the complaints after it."""
    places = (n for n, said in enumerate(details) if re.match(r"\S+:\d+(?::\d+)?: ", said))
    first = next(places, len(details))
    return list(details[:first]), list(details[first:])
