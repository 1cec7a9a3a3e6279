"""Which of doit's tasks are ours: those that carry `meta["codegen"]`.

Loaded by doit in every project of the environment, so it imports next to nothing.
"""

from __future__ import annotations

from typing import Any


def is_ours(task: Any) -> bool:
    """Tell whether a task is one of ours."""
    return "codegen" in (task.meta or {})


def phase_of(task: Any) -> str | None:
    """Return the phase of one of our tasks; None for another's."""
    return str(task.meta["codegen"]["phase"]) if is_ours(task) else None
