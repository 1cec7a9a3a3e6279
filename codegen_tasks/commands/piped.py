"""Commands whose output may go into a pipe that nobody reads to its end, such as `| head`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any


class Piped:
    """Before a class of core's commands: a pipe that is closed ends it in order."""

    #: Its exit code then, if what it would have been is not known yet.
    unread = 1

    def parse_execute(self, in_args: Any) -> Any:
        """Execute as core does; all that was written is passed on before the command ends."""
        try:
            code = super().parse_execute(in_args)  # type: ignore[misc]
            sys.stdout.flush()
        except BrokenPipeError:
            let_go_of(sys.stdout)
            return self.unread
        return code


def let_go_of(stream: Any) -> None:
    """Have nothing more be written to a pipe that nobody reads, as `doit info | head` leaves it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
