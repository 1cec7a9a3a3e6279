"""What `doit help` says of our commands: what for, how, examples; options after that.

Loaded by `doit run` and `doit info` in every project of the environment, so it imports next
to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

#: Lines are no longer than this.
_WIDTH = 80


class Helped:
    """Before a class of core's commands."""

    #: Words that follow the command's name, for shells to complete.
    words: Sequence[str] = ()
    #: Arguments, and what they come to.
    examples: Sequence[tuple[str, str]] = ()

    def help(self) -> str:
        """Return core's text, with what a newcomer looks for before the options."""
        text = str(super().help())  # type: ignore[misc]
        above, options, rest = text.partition("\n\nOPTIONS\n")
        listed, head, description = rest.partition("\n\n\nDESCRIPTION\n")
        told = f"\n\nDESCRIPTION\n{description}" if head else ""
        return f"{above}{told}{self._examples()}{options}{listed}"

    def _examples(self) -> str:
        command: Any = self
        name = f"    {command.bin_name} {command.name}"
        lines = [(f"{name} {given}".rstrip(), meaning) for given, meaning in self.examples]
        return "\n".join(["\n\nEXAMPLES", *_beside(lines)]) if lines else ""


class Ours(Helped):
    """Before a class of core's commands, for a command that core does not have."""

    def parse_execute(self, in_args: Any) -> Any:
        """Execute as core does; an option that is none is told with the nearest one."""
        from doit.cmdparse import CmdParseError

        try:
            return super().parse_execute(in_args)  # type: ignore[misc]
        except CmdParseError as error:
            from .common import misspelt

            command: Any = self
            raise misspelt(command.cmdparser, in_args) or error from None


def _beside(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield commands with their meaning beside them, or below where there is no room."""
    width = max(len(command) for command, _ in lines)
    room = max(width + 2 + len(meaning) for _, meaning in lines) <= _WIDTH
    for command, meaning in lines:
        yield f"{command:{width}}  {meaning}" if room else f"{command}\n        {meaning}"
