"""The real doit many times over: everything is imported once, and each command is a fork."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from conftest import Result

_LONGEST = 60  # seconds; a command that hangs is killed then


class Warm:
    """A process that has everything imported, and forks a child for every doit command.

    A command's output goes to the files `out` and `err` beside the folder it runs in.

    Args:
        blind: a kind of input that its children do not look at; see the test of the test.
    """

    def __init__(self, blind: str = ""):
        self.commands = 0
        self.process = subprocess.Popen(
            [sys.executable, __file__, blind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("CODEGEN_")},
                # Python takes a dodo.py of the same second and size for the one it compiled.
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )

    def run(self, folder: Path, arguments: Iterable[str]) -> Result:
        """Run doit in a folder."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(folder), *arguments]) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        out, err = ((folder.parent / name).read_text("utf-8") for name in ("out", "err"))
        return Result(code, out, err)

    def end(self) -> None:
        self.process.communicate()


def serve(blind: str) -> None:
    """Read commands from standard input, answer with exit codes."""
    import jinja2  # noqa: F401 -- children inherit what is imported here
    from doit.doit_cmd import DoitMain

    import codegen_tasks.commands.info
    import codegen_tasks.runner
    import codegen_tasks.templates
    from codegen_tasks.world import World

    assert codegen_tasks
    current = World.current
    if blind:
        World.current = lambda self, step, item: (  # type: ignore[method-assign]
            (item.digest, "") if item.kind == blind else current(self, step, item)
        )
    # Python takes bytecode for fresh by its source's size and second: edits here are faster.
    sys.dont_write_bytecode = True
    gc.freeze()  # or each child copies all of the memory at its first collection
    answers = os.dup(1)
    for line in sys.stdin:
        folder, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            home = os.path.dirname(folder)
            for number, name in ((1, "out"), (2, "err")):
                path = os.path.join(home, name)
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            signal.alarm(_LONGEST)
            os.environ["XDG_STATE_HOME"] = os.path.join(home, "state-home")
            os.chdir(folder)
            sys.path[0] = folder
            code = DoitMain().run(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(answers, b"%d\n" % code)


if __name__ == "__main__":
    serve(sys.argv[1])
