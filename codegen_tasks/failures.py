"""The failures of a run, once each at its end, and the command that runs just those again.

Loaded when something failed.  Unaware of doit's objects.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

#: So many names are told of those that failed for one reason, and run again by name.
_NAMES = 10
#: Characters of a command that people still read.
_LONG = 300
#: A message that begins with a place tells of that; what follows may differ by target.
_PLACE = re.compile(r"[^\s:].*?:\d+: ")


def by_reason(failed: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the tasks that failed for one reason, by the first line of their messages.

    Args:
        failed: by task, its message.
    """
    groups: dict[str, list[str]] = {}
    for name, message in failed.items():
        first = message.partition("\n")[0]
        groups.setdefault(first if _PLACE.match(first) else message, []).append(name)
    return groups


def summary(failed: Mapping[str, str], command: str) -> list[str]:
    """Return the lines that tell what failed, and how to run it again."""
    lines = ["failed:"]
    for reason, names in by_reason(failed).items():
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        first = reason.strip().partition("\n")[0]
        lines += [f"  {first}", f"    {', '.join(names[:_NAMES])}{more}"]
    return [*lines, f"to run {'it' if len(failed) == 1 else 'them'} again: {command}"]


def command_for(names: Iterable[str], given: Sequence[str], asked: Sequence[str] | None) -> str:
    """Return the command that runs tasks again which failed.

    Many are run again by the command that ran them: what it has done is up to date.

    Args:
        names: the tasks.
        given: the arguments of the command that ran them.
        asked: those among them that are names of tasks and targets; None if nobody knows.
    """
    failed = list(names)
    options = _options(given, asked)
    selected = [_escaped(name) for name in failed]
    command = _joined(["doit", *options, *selected])
    sayable = not any("=" in name or name.startswith("-") for name in selected)
    if sayable and len(failed) <= _NAMES and len(command) <= _LONG:
        return command
    return _joined(["doit", *options, *(asked or ())])


def _options(given: Sequence[str], asked: Sequence[str] | None) -> list[str]:
    """Return what comes before the names: options and variables, but not to run all anew."""
    if asked is None:
        return []
    left, named = list(given), list(asked)
    variables: list[str] = []
    while named and left:
        last = left.pop()
        if last == named[-1]:
            named.pop()
        elif "=" in last and not last.startswith("-"):
            variables.insert(0, last)
        else:
            return []
    if named:
        return []
    kept = [re.sub("a", "", one) if re.fullmatch("-[acs]+", one) else one for one in left]
    return [one for one in kept if one not in ("-", "--always-execute")] + variables


def _escaped(name: str) -> str:
    """Return a name that doit takes for no wildcard but its own."""
    return re.sub(r"[*?[]", r"[\g<0>]", name) if "*" in name else name


def _joined(words: Sequence[str]) -> str:
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
