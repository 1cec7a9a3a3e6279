"""The real doit many times over: everything is imported once, and each command is a fork."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from conftest import Result
from forked import import_all

_LONGEST = 60  # seconds; a command that hangs is killed then


class Warm:
    """A process that has everything imported, and forks a child for every doit command.

    A command's output goes to files beside the folder it runs in.

    Args:
        broken: a rule of codegen-tasks that its children break; see `broken.py`.
    """

    def __init__(self, broken: str = ""):
        self.commands = 0
        self.kills = 0
        self.process = subprocess.Popen(
            [sys.executable, __file__, broken],
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
        return self._ask(folder, [list(arguments)])[0]

    def run_at_once(self, folder: Path, commands: Iterable[Sequence[str]]) -> list[Result]:
        """Begin several doit commands in a folder at the same moment."""
        return self._ask(folder, [list(arguments) for arguments in commands])

    def kill(
        self, folder: Path, arguments: Iterable[str], seconds: float, group: bool, wait: bool
    ) -> Result:
        """Run doit in a folder and kill it.

        Args:
            folder: the project.
            arguments: of doit.
            seconds: until it is killed, if it has not ended.
            group: kill its whole process group.
            wait: until no worker of it is left either.
        """
        result = self._ask(folder, [list(arguments)], {"seconds": seconds, "group": group}, wait)[0]
        self.kills += result.code == -signal.SIGKILL
        return result

    def _ask(
        self,
        folder: Path,
        commands: list[list[str]],
        kill: dict[str, float] | None = None,
        wait: bool = False,
    ) -> list[Result]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.commands += len(commands)
        self.process.stdin.write(json.dumps([str(folder), commands, kill, wait]) + "\n")
        self.process.stdin.flush()
        codes = json.loads(self.process.stdout.readline())
        return [
            Result(code, *((folder.parent / f"{name}{number}").read_text("utf-8") for name in _TO))
            for number, code in enumerate(codes)
        ]

    def end(self) -> None:
        self.process.communicate()


_TO = ("out", "err")


def serve(broken: str) -> None:
    """Read commands from standard input, answer with exit codes."""
    from broken import break_rule

    from codegen_tasks import ahead, bundles

    import_all()
    # Projects here are small, and are to be restored as large ones are.
    ahead.WORTH, ahead.WORTH_A_FORK, bundles.WORTH = 4, 6, 2
    if broken:
        break_rule(broken)
    # Python takes bytecode for fresh by its source's size and second: edits here are faster.
    sys.dont_write_bytecode = True
    answers = os.dup(1)
    for line in sys.stdin:
        folder, commands, kill, wait = json.loads(line)
        alive, held = os.pipe()
        children = [_begin(folder, number, each) for number, each in enumerate(commands)]
        os.close(held)
        if kill is not None:
            time.sleep(kill["seconds"])
            (os.killpg if kill["group"] else os.kill)(children[0], signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if wait:
            os.read(alive, 1)  # what the children forked has the other end
        os.close(alive)
        os.write(answers, json.dumps(codes).encode() + b"\n")


def _begin(folder: str, number: int, arguments: list[str]) -> int:
    """Fork a child that runs doit."""
    child = os.fork()
    if child:
        os.setpgid(child, child)  # here too, or it might be killed before it does so
        return child
    from doit.doit_cmd import DoitMain

    home = os.path.dirname(folder)
    os.setpgid(0, 0)
    for stream, name in ((1, "out"), (2, "err")):
        path = os.path.join(home, f"{name}{number}")
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    signal.alarm(_LONGEST)
    os.environ["XDG_STATE_HOME"] = os.path.join(home, "state-home")
    os.environ["XDG_CACHE_HOME"] = os.path.join(home, "cache")
    os.chdir(folder)
    sys.path[0] = folder
    code = DoitMain().run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    serve(sys.argv[1])
