"""doit watch: builds, then builds again whenever something changes that can matter.

This process only watches: it imports no `dodo.py`.  What builds is `warm`, a process that is
started anew when `dodo.py`, or what it imports, has changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from doit import doit_cmd
from doit.cmd_base import Command
from doit.cmdparse import CmdOption

from ..errors import DeclarationError
from ..watch import GRACE, Changes, Known, Need, Told, around
from .common import say_whatever_the_encoding
from .helped import Ours
from .run import Run
from .warm import BUILD, UNFIT

_OPT_FRESH = {
    "name": "fresh",
    "long": "fresh",
    "type": bool,
    "default": False,
    "help": "build each time in a process that is started anew, instead of a fork of a warm one",
}
#: So long, in milliseconds, nothing may change before changes are looked at; at most so long.
_STEP, _LONGEST = 20, 500
_PATIENCE = 15.0  # seconds that a build may take to end when we are to


class Watch(Ours, Command):
    """Builds on every change; its arguments are those of `run`."""

    name = "watch"
    doc_purpose = "build, and build again whenever something changes"
    doc_usage = "[TASK|TARGET ...]"
    doc_description = (
        "Takes what `run` takes, and hands it on to each build. Goes on after errors, and when "
        "dodo.py itself is edited. Ends with Ctrl-C, and then with 0; with 3 if there is nothing "
        "to begin with."
    )
    examples = (
        ("", "everything"),
        ("generated/bloom.js", "one target, and what it is made from"),
        ("-n 4 generate", "in four processes"),
    )

    def __init__(self, task_loader: Any, cmds: Any = None, **named: Any):
        super().__init__(**named)
        self._loader = task_loader
        self._run = Run(task_loader=task_loader, cmds=cmds, **named)

    def get_options(self) -> list[CmdOption]:
        """Return those of `run`, and ours."""
        return [*self._run.cmdparser.complete.options, CmdOption(_OPT_FRESH)]

    def parse_execute(self, in_args: list[str]) -> int:
        """Check the options, and hand them on as they are."""
        say_whatever_the_encoding()
        params, names = self.cmdparser.parse(in_args)
        params.update(self.opt_vals)
        options = in_args[: len(in_args) - len(names)]
        arguments = [*self._before(), *(one for one in options if one != "--fresh"), *names]
        variables = [f"{name}={value}" for name, value in (doit_cmd._CMDLINE_VARS or {}).items()]
        loading = {one["name"]: params[one["name"]] for one in self._loader.cmd_options}
        if importlib.util.find_spec("watchfiles") is None:
            hint = "pip install 'codegen-tasks[watch]'"
            raise DeclarationError("watch", "needs the package watchfiles", hint)
        folder = tempfile.mkdtemp(prefix="codegen-watch-")
        try:
            given = [*arguments, *variables]
            builder = Builder(self.bin_name, given, loading, folder, params["fresh"])
            return _Watching(builder, *_place(loading)).run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _before(self) -> Iterator[str]:
        """Yield the options that stood before the command's name."""
        for option in self._loader.cmd_options:
            value = self.opt_vals.get(option["name"])
            if value is not None and value is not False:
                yield f"--{option['long']}" + ("" if value is True else f"={value}")


def _place(loading: Mapping[str, Any]) -> tuple[str, str]:
    """Return the project's folder and its `dodo.py`, as far as it is known without loading it."""
    dodo = os.path.abspath(loading.get("dodoFile") or "dodo.py")
    folder, name = os.path.split(dodo)
    while (
        loading.get("seek_file") and not os.path.exists(dodo) and folder != os.path.dirname(folder)
    ):
        folder = os.path.dirname(folder)
        dodo = os.path.join(folder, name)
    return os.path.realpath(loading.get("cwdPath") or folder), os.path.realpath(dodo)


# Building -------------------------------------------------------------------------------


class Builder:
    """The process that builds, seen from here; what it says comes as events.

    Args:
        program: what it is called.
        arguments: of each build.
        loading: what doit's loader is given.
        folder: for what builds tell.
        fresh: whether each build has a process of its own.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        loading: Mapping[str, Any],
        folder: str,
        fresh: bool,
    ):
        self._program = program
        self._arguments = arguments
        self._loading = loading
        self._path = os.path.join(folder, "told")
        self._fresh = fresh or not hasattr(os, "fork")
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False
        self._building = 0  # pid
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def start(self) -> None:
        """Start the process, in place of the one there is."""
        self.stop()
        ends = None if self._fresh else os.pipe()
        said = {
            "program": self._program,
            "path": self._path,
            "arguments": self._arguments,
            "loading": self._loading,
            "answers": ends[1] if ends else None,
            "parent": os.getpid(),
        }
        script = "from codegen_tasks.commands.warm import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(said)],
            stdin=subprocess.PIPE,
            pass_fds=ends[1:] if ends else (),
            start_new_session=True,  # Ctrl-C is for us: we tell it
            bufsize=0,
        )
        if ends:
            os.close(ends[1])
        given = (self._process, ends[0] if ends else None)
        threading.Thread(target=self._listen, args=given, daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes], answers: int | None) -> None:
        """Pass on what a process says; without a pipe, that it has ended."""
        if answers is None:
            self.events.put(("end", (process, process.wait())))
            return
        with open(answers, encoding="ascii") as lines:
            for line in lines:
                word, _, number = line.strip().partition(" ")
                self.events.put((word, (process, int(number or 0))))
        self.events.put(("gone", (process, 0)))

    def ask(self) -> None:
        """Ask for a build."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        if self._process is None or self._process.poll() is not None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._asked, self._building = True, self._process.pid if self._fresh else 0
        with contextlib.suppress(OSError):  # it is gone: an event tells
            self._process.stdin.write(BUILD)

    def ended(self, word: str, given: Any) -> int | None:
        """Return the exit code of the build, if an event tells it."""
        process, number = given
        if process is not self._process:
            return None
        if word == "pid":
            self._building = number
        elif word == UNFIT:
            self._fresh = True
            self.start()
            if self._asked:
                self.ask()
        elif word == "gone":
            self.interrupt(signal.SIGTERM)
            self._process, self._asked = None, False
            return 2
        elif word == "end":
            return self._over(int(number))
        return None

    def _over(self, code: int) -> int | None:
        """Take in the end of a build, and prepare for the next; None if nobody had asked."""
        asked, self._asked, self._building = self._asked, False, 0
        if self._fresh:
            self._process = None
        if self._fresh and asked:
            self.start()
        return code if asked else None

    def told(self) -> Told | None:
        """Return what the last build told; None if it could not."""
        try:
            with open(self._path, encoding="utf-8") as file:
                return Told.from_json(json.load(file))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def interrupt(self, number: int) -> None:
        """Send the build a signal."""
        if self._building and os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._building, number)

    def stop(self) -> None:
        """Stop the process; a build that it is at ends in order first."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._building = 0


# Watching -------------------------------------------------------------------------------


class _Watcher:
    """Has a thread look at folders; changes come as events.

    Args:
        folders: absolute paths.
        events: where they go.
        polling: look at them again and again, where the system tells of no change.
    """

    def __init__(self, folders: set[str], events: Any, polling: bool):
        self.folders = folders
        self._events = events
        self._polling = polling
        self._end = math.inf
        self._begun = threading.Event()
        self._problem: Exception | None = None
        threading.Thread(target=self._look, daemon=True).start()
        self._begun.wait()
        if self._problem is not None:
            raise self._problem

    def is_set(self) -> bool:
        """Tell whether to stop; the first who asks has begun to look."""
        self._begun.set()
        return time.monotonic() > self._end

    def _look(self) -> None:
        import watchfiles

        try:
            for changes in watchfiles.watch(
                *sorted(self.folders),
                watch_filter=None,
                debounce=_LONGEST,
                step=_STEP,
                stop_event=self,
                force_polling=self._polling or None,
                recursive=False,
                ignore_permission_denied=True,
            ):
                self._events.put(("changes", [(int(kind), path) for kind, path in changes]))
        except Exception as error:  # the system's, or Rust's
            self._problem = error
            self._events.put(("blind", None))
        finally:
            self._begun.set()

    def stop(self) -> None:
        """Stop looking, when what it has seen so far has been told."""
        self._end = time.monotonic() + 2 * _LONGEST / 1000


class _Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP: all that Ctrl-C ends, it ends too."""


def _end(number: int, frame: Any) -> None:
    raise _Ended


class _Watching:
    """A watch, from its first build to Ctrl-C.

    Args:
        builder: builds.
        root: the project, as far as it is known.
        dodo: the path of its `dodo.py`.
    """

    def __init__(self, builder: Builder, root: str, dodo: str):
        self._builder = builder
        self._events = builder.events
        self._dodo = dodo
        self._status = _Status(sys.stdout)
        self._known = Known(root, dodo, Told(), failed=True, loaded=False)
        self._changes = Changes()
        self._watcher: _Watcher | None = None
        self._polling = False
        self._waiting = False  # a build is under way

    def run(self) -> int:
        """Watch until somebody ends it; return the exit code."""
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _end)
        try:
            self._builder.start()
            self._arm(self._around())
            if self._build() == 3 and not os.path.exists(self._dodo):
                return 3
            while True:
                self._next()
        except KeyboardInterrupt:
            self._status.clear()
            return 0
        except BrokenPipeError:  # nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        finally:
            self._finish()

    def _next(self) -> None:
        """Wait for something to do, and do it."""
        need = self._wait()
        if need is Need.RESTART:
            self._builder.start()
        self._build()

    def _finish(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # a second one does not wait
            if self._waiting:
                self._builder.interrupt(signal.SIGINT)
                self._until_ended(_PATIENCE)
            self._builder.stop()
            return
        self._builder.interrupt(signal.SIGKILL)

    # Building ---------------------------------------------------------------------------

    def _build(self) -> int:
        """Build, and take in what can matter from now on; return the exit code."""
        while True:
            self._status.clear()
            begun, self._waiting = time.perf_counter(), True
            self._builder.ask()
            code = self._until_ended()
            self._learn(code, time.perf_counter() - begun)
            needed = self._known.folders()
            if self._watcher is None or needed <= self._watcher.folders:
                return code
            self._arm(needed | self._around())
            if not self._known.outdated() or self._known.failed:
                return code

    def _until_ended(self, patience: float | None = None) -> int:
        while True:
            try:
                word, given = self._events.get(timeout=patience)
            except queue.Empty:
                return 2
            if word == "changes":
                self._changes.add(given)
            elif word != "blind" and (code := self._builder.ended(word, given)) is not None:
                self._waiting = False
                return code

    def _learn(self, code: int, seconds: float) -> None:
        before, told = self._known, self._builder.told() or Told()
        modules = tuple({*told.modules, *before.modules})
        whole = replace(told if told.root else before.told, modules=modules)
        loaded = bool(told.root)
        self._known = Known(before.root, self._dodo, whole, failed=bool(code), loaded=loaded)
        self._ended = time.time()
        self._status.show(self._known, told.summary, code, seconds)

    # Waiting ----------------------------------------------------------------------------

    def _wait(self) -> Need:
        """Return what is to be done, as soon as something is; changes are then taken in."""
        grace = None
        while True:
            need, writing = self._changes.needing(self._known, self._ended)
            if need is Need.NOTHING:
                self._follow()
                grace = None
                self._take(self._events.get())
                continue
            if writing and grace is None:
                grace = time.monotonic() + GRACE
            if writing and grace is not None and (left := grace - time.monotonic()) > 0:
                with contextlib.suppress(queue.Empty):
                    self._take(self._events.get(timeout=left))
                continue
            self._changes.answer(need)
            self._follow()
            return need

    def _take(self, event: tuple[str, Any]) -> None:
        word, given = event
        if word == "changes":
            self._changes.add(given)
        elif word == "blind":
            self._arm(self._known.folders())
        else:
            self._builder.ended(word, given)

    def _follow(self) -> None:
        """Forget the changes, and watch folders that came or came back."""
        watched = self._watcher.folders if self._watcher is not None else set()
        moved = {path for path in self._changes.moved if path in watched or os.path.isdir(path)}
        self._changes.clear()
        if moved:
            self._arm(self._known.folders() | self._around())

    def _around(self) -> set[str]:
        return around(self._known.root, self._known.states)

    def _arm(self, folders: set[str]) -> None:
        """Watch other folders; where the system cannot watch so many, look again and again."""
        before, self._watcher = self._watcher, None
        try:
            self._watcher = _Watcher(folders, self._events, self._polling)
        except Exception as error:
            if self._polling:
                raise DeclarationError("watch", f"folders cannot be watched: {error}") from None
            self._status.say(f"watch: looking at files again and again, for {error}")
            self._polling = True
            self._watcher = _Watcher(folders, self._events, True)
        if before is not None:
            before.stop()


class _Status:
    """The line that tells what is watched: rewritten in place on a terminal.

    Args:
        stream: where it is written.
    """

    def __init__(self, stream: Any):
        from .screen import Screen

        self._stream = stream
        self._screen = Screen(stream)
        self._live = bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
        self._shown = False
        self._is_news = True  # that there is nothing to do

    def clear(self) -> None:
        """Remove it, so that something else can be written."""
        if self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
        self._shown = False

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self.clear()
        print(line, file=sys.stderr, flush=True)

    def show(self, known: Known, summary: str, code: int, seconds: float) -> None:
        """Write it.

        Args:
            known: what is watched.
            summary: what the build did; "" if it did not say.
            code: its exit code.
            seconds: how long it took.
        """
        idle = not code and summary.startswith("nothing to do")
        words = summary or f"{'failed' if code else 'done'} in {seconds:.2f} s"
        count = f"{known.count:,} {'file' if known.count == 1 else 'files'}"
        text = f"watching {count}: {words} at {time.strftime('%H:%M:%S')}"
        if not self._live:
            if not idle or self._is_news:
                self._stream.write(f"{text}\n")
        else:
            style = "red" if code else "dim" if idle else "green"
            self._stream.write(self._screen.styled(text[: self._screen.width - 1], style))
            self._shown = True
        self._stream.flush()
        self._is_news = bool(code)
