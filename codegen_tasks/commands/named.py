"""What people name on the command line: targets below the output folder, and names misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from doit.cmdparse import CmdParseError
from doit.control import TaskControl
from doit.exceptions import InvalidCommand

from .. import disk
from ..codegen import Codegen
from ..errors import nearest


class Unknown(InvalidCommand):
    """A name that is no task and no target, told as doit tells it, with the nearest known one."""

    def __init__(self, name: str, hint: str):
        super().__init__(not_found=name)
        self._hint = hint

    def __str__(self) -> str:
        said = super().__str__()
        return f"{said.partition(chr(10))[0]}\n  hint: {self._hint}" if self._hint else said


def resolved(
    names: Sequence[str] | None, tasks: Sequence[Any], found: Sequence[Codegen]
) -> Sequence[str] | None:
    """Return what was selected, with whole paths for targets named below the output folder.

    What a task takes as its own arguments is left alone.

    Args:
        names: as they were given; None if none were.
        tasks: doit's.
        found: the Codegen objects.
    """
    if not names or not found:
        return names
    known = {task.name: task for task in tasks}
    targets = {str(target) for task in tasks for target in task.targets}
    whole: list[str] = []
    for place, name in enumerate(names):
        task = known.get(name)
        if name.startswith("-") or (task is not None and task.pos_arg is not None):
            return [*whole, *names[place:]]
        meant = (path for one in found for path in disk.meant(name, one.project.output))
        is_known = task is not None or name in targets or "*" in name
        whole.append(name if is_known else next((p for p in meant if p in targets), name))
    return whole


def process(
    control: TaskControl,
    names: Sequence[str] | None,
    found: Sequence[Codegen],
    tasks: Sequence[Any],
) -> None:
    """Have doit select tasks by name.

    Raises:
        InvalidCommand: there is no such task or target.
        CmdParseError: an option follows names, and their task has none such.
    """
    try:
        control.process(names)
    except CmdParseError as error:
        late = next((name for name in names or () if name.startswith("-")), "")
        if not (late and found and f"option {late} not recognized" in str(error)):
            raise
        hint = f"what is doit's own comes before names: doit {late} … {names[0] if names else ''}"
        raise CmdParseError(f"option {late} not recognized by a task\n  hint: {hint}") from None
    except InvalidCommand as error:
        if error.not_found is None or not found:
            raise
        raise Unknown(error.not_found, hint_for(error.not_found, tasks, found)) from None


def hint_for(name: str, tasks: Sequence[Any], found: Sequence[Codegen]) -> str:
    """Return a hint naming the task or target nearest to a name that is neither."""
    from .. import chains

    whole = chains.unabridged(found, tasks)
    known = {str(one) for task in whole for one in (task.name, *task.targets)}
    return nearest(name, known) or nearest(name, _below(known, found))


def _below(known: Iterable[str], found: Sequence[Codegen]) -> list[str]:
    folders = [f"{one.project.output}/" for one in found]
    return [
        path.removeprefix(folder) for path in known for folder in folders if path.startswith(folder)
    ]
