"""doit help: the commands, ours by what they are for; all else as core has it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from doit.cmd_help import Help as CoreHelp

from .piped import Piped

#: What people look for, and the commands that do it.
_GROUPS = {
    "build": ("run", "watch"),
    "look before and after": ("info", "diff", "lint", "where", "report"),
    "keep tidy": ("clean", "prune", "cache", "manifest"),
    "begin": ("new",),
}
_NAME, _WIDTH = 14, 80


class Help(Piped, CoreHelp):
    """Core's `help`, with another list of commands."""

    name = "help"
    unread = 0

    def print_usage(self, cmds: Mapping[str, Any]) -> None:
        """Print the list of commands."""
        print(f"usage: {self.bin_name} [COMMAND] [OPTIONS] [ARGUMENTS]")
        print(f"without a command: {self.bin_name} run")
        told = set()
        for head, names in _GROUPS.items():
            listed = [name for name in names if name in cmds]
            told.update(listed)
            if listed:
                print(f"\n{head}")
            for name in listed:
                self._print(name, self._purpose(cmds[name]))
        print("\nof doit itself")
        for name in sorted(set(cmds) - told):
            self._print(name, self._purpose(cmds[name]))
        print("\nmore")
        self._print("help COMMAND", "how a command is used, with examples")
        self._print("help TASK", "what a task is for, and its options")
        self._print("help task", "the fields of a task in dodo.py")

    def _purpose(self, command: Any) -> str:
        """Return what a command is for, here."""
        made = command(cmds=self._cmds, **self.init_kwargs)
        return str(getattr(made, "purpose", made.doc_purpose))

    def _print(self, name: str, purpose: str) -> None:
        for line in self._lines(name, purpose):
            print(line)

    def _lines(self, name: str, purpose: str) -> Iterator[str]:
        first, *more = textwrap.wrap(purpose, _WIDTH - _NAME - 4) or [""]
        yield f"  {name:{_NAME}}  {first}".rstrip()
        for line in more:
            yield f"  {'':{_NAME}}  {line}"
