"""Programs run in forks of a process that has them imported: the same, without their start-up.

Run as a script, this file is that process.  It runs no doit itself, so that each of its
children begins as `python -m doit` does once its imports are done.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.metadata
import inspect
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

_LONGEST = 120  # seconds
#: What Python or the C library reads when a process starts: not to be changed in a fork.
_OF_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "TZ")


#: What commands import sooner or later; of engines only what they are made of.
_IMPORTED = (
    *("ctypes", "email.parser", "encodings.unicode_escape", "multiprocessing.popen_fork"),
    *("jinja2", "jsonschema", "mako.lookup", "psutil", "pystache", "tomli", "yaml"),
    *("codegen_tasks.chains", "codegen_tasks.reporter", "codegen_tasks.runner"),
    *("codegen_tasks.sqlite", "codegen_tasks.survey", "codegen_tasks.templates"),
    *("codegen_tasks.toolchains.deno", "codegen_tasks.toolchains.python"),
    *(
        f"codegen_tasks.commands.{name}"
        for name in ("cache", "diff", "info", "info_json", "info_text", "prune", "run", "where")
    ),
)


def at_start(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that only a new process obeys."""
    return {name: value for name, value in environ.items() if name.startswith(_OF_THE_START)}


class Server:
    """A process that forks a child for every command.

    Args:
        environ: its environment; commands may bring another, but for what `at_start` tells.
        seed: of its string hashes: servers of other seeds must come to the same results.
        python: its interpreter, if that is of an environment which may have doit alone.
    """

    def __init__(self, environ: Mapping[str, str], seed: int, python: str = ""):
        self._at_start = at_start(environ)
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="codegen-forked-")
        self._process = subprocess.Popen(
            [python, __file__, "doit"] if python else [sys.executable, __file__],
            bufsize=0,  # so that `select` tells whether there is an answer
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environ, "PYTHONHASHSEED": str(seed)},
        )

    def run(
        self, folder: Path, environ: Mapping[str, str], module: str, arguments: tuple[str, ...]
    ) -> tuple[int, bytes, bytes] | None:
        """Run a module as `python -m` does, or a file; return exit code, output and errors.

        None, with nothing run, means that it needs a process of its own.
        """
        if at_start(environ) != self._at_start or not self._lock.acquire(blocking=False):
            return None
        try:
            return self._run(folder, environ, module, arguments)
        finally:
            self._lock.release()

    def _run(
        self, folder: Path, environ: Mapping[str, str], module: str, arguments: tuple[str, ...]
    ) -> tuple[int, bytes, bytes]:
        told = [os.path.join(self._folder.name, name) for name in ("out", "err")]
        asked = [str(folder), dict(environ), told, module, arguments]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        answers = self._process.stdout
        child = int(answers.readline())
        if not select.select([answers], [], [], _LONGEST)[0]:
            os.kill(child, signal.SIGKILL)
            answers.readline()
            raise subprocess.TimeoutExpired([module, *arguments], _LONGEST)
        code = int(answers.readline())
        out, err = (Path(name).read_bytes() for name in told)
        return code, out, err


def import_all() -> None:
    """Import what commands import, and have this process ready to be forked."""
    for name in _IMPORTED:  # children inherit it
        importlib.import_module(name)
    import_doit()


def import_doit() -> None:
    """Import doit and no plugin of it, and have this process ready to be forked."""
    import doit.doit_cmd
    import doit.plugin

    assert doit.doit_cmd
    inspect.getsourcelines(import_all)  # doit does so: its regular expressions are compiled here
    # doit asks three times in each run what is installed, and each time every package is looked at.
    installed = importlib.metadata.entry_points()
    groups = [f"doit.{kind}" for kind in ("COMMAND", "BACKEND", "REPORTER", "LOADER")]
    found = {group: installed.select(group=group) for group in groups}
    doit.plugin.entry_points = lambda group: found[group]
    gc.collect()
    gc.freeze()  # or each child copies all of the memory at its first collection
    gc.get_freeze_count = lambda: 1  # who asks whether anything is frozen: it is counted one by one


def serve(what: str = "") -> None:
    """Read commands from standard input; answer with a process id, then an exit code."""
    import_doit() if what else import_all()
    answers = os.dup(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.close(answers)
            begun = set(sys.modules)
            end(become(*json.loads(line)), begun)
        os.write(answers, b"%d\n" % child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(answers, b"%d\n" % code)


def become(
    folder: str, environ: dict[str, str], told: list[str], module: str, arguments: list[str]
) -> int:
    """Do in a child what `python -m module` or `python FILE` does; return the exit code."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(told, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv[1:] = arguments
    try:
        if module.endswith(".py"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as asked:
        if not isinstance(asked.code, int | None):
            raise
        return asked.code or 0
    return 0


def end(code: int, begun: set[str]) -> None:
    """End a child as Python does, but for the modules that it began with.

    Taking those down copies all of their memory, which is half the time of a short command.
    What the command itself has loaded is let go: what acts on its own end does so.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for name in set(sys.modules) - begun:
        del sys.modules[name]
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(*sys.argv[1:])
