"""The process in which `doit watch` builds: it has everything imported, and forks for each build.

`dodo.py` is imported once, by this process itself; a build is the ordinary `doit run` in a fork.
It is asked by bytes on standard input, and tells of each fork on a pipe: its pid, then its
exit code.  When its input ends it ends what is running, and itself: so nothing outlives a
watch that is killed.

Where nothing can be forked it builds in itself, once, and the exit code is its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DodoTaskLoader, get_loader
from doit.doit_cmd import DoitMain

from ..code_digest import Codes
from ..engines import MAKO
from ..glance import path_of
from ..modules import Modules
from ..ours import is_ours
from ..reporter import CodegenReporter
from ..watch import Home, Told, sign_of
from .common import builds_of, codegens
from .run import Run
from .silence import Silence

if TYPE_CHECKING:
    from ..codegen import Codegen

#: What the build is called among doit's commands; its messages name it so.
_NAME = "watch"
#: A byte that asks for a build.
BUILD = b"b"
#: Says that `dodo.py` has started threads, which a fork would lack.
UNFIT = "unfit"
_PATIENCE = 10.0  # seconds that a build may take to end in order
_PR_SET_PDEATHSIG = 1  # of Linux


# The build ------------------------------------------------------------------------------


class _Said(CodegenReporter):
    """Keeps the summary for the status line."""

    said = ""

    def _summary(self) -> list[str]:
        self._uptodate = 0
        lines = super()._summary()
        self.said = lines[0] if lines else ""
        return lines[1:]

    def _templates(self) -> str:
        return ""


class Build(Run):
    """`doit run`, which tells afterwards what a change can matter for.

    Args:
        notes: what is known of the import of `dodo.py`.
        others: see doit's `Command`.
    """

    def __init__(self, *others: Any, notes: Notes, **named: Any):
        super().__init__(*others, **named)
        self._notes = notes
        self._said: _Said | None = None
        self._begun = time.time_ns()

    def parse_execute(self, in_args: list[str]) -> Any:
        """Run, and tell; see doit's."""
        self._notes.silence.keep(self._notes.codegens)
        try:
            return super().parse_execute(in_args)
        finally:
            self._notes.silence.heard(builds_of(self.loader))
            self._notes.tell(self._told())

    def _reporter(self, reporter: Any, stream: Any, failure_verbosity: int) -> Any:
        chosen = self.reporters[reporter] if isinstance(reporter, str) else reporter
        if chosen is not CodegenReporter:
            return super()._reporter(reporter, stream, failure_verbosity)
        self._said = _Said(stream, {"failure_verbosity": failure_verbosity})
        return self._said

    def _told(self) -> Told:
        namespace = getattr(self.loader, "namespace", None)
        has_tasks = getattr(self, "task_list", None) is not None
        root = os.getcwd()
        found = codegens(namespace)
        # Without tasks the snapshot is of an earlier build: better than none.
        homes = [self._home(one.project, one.glance is not None or not has_tasks) for one in found]
        tasks = [task for task in self._tasks() if not (is_ours(task) and self._are_kept(homes))]
        targets = {os.path.join(root, str(target)) for task in tasks for target in task.targets}
        return Told(
            root=root if namespace is not None else "",
            summary=self._said.said if self._said is not None else "",
            modules=tuple(
                sorted({*self._notes.opened, *_imported(), *_looked_at(found if has_tasks else ())})
            ),
            listed=tuple(sorted(self._notes.listed)),
            read=tuple({os.path.join(root, name) for task in tasks for name in task.file_dep}),
            made={os.path.normpath(path): sign_of(path) for path in targets},
            homes=tuple(homes),
        )

    def _tasks(self) -> list[Any]:
        known = {task.name: task for task in getattr(self, "task_list", None) or ()}
        control = getattr(self, "control", None)
        known.update(dict(control.tasks) if control is not None else {})
        return list(known.values())

    def _home(self, project: Any, glanced: bool) -> Home:
        """Return the folders of a project, and its snapshot if that is of this build."""
        path = path_of(project)
        with contextlib.suppress(OSError):
            glanced = glanced or os.stat(path).st_mtime_ns >= self._begun
        return Home(
            templates=os.path.normpath(project.full(project.templates)),
            output=os.path.normpath(project.full(project.output)),
            state=os.path.normpath(project.full(project.state)),
            snapshot=path if glanced else "",
            globs=tuple(glob for rule in project.rules.values() for glob in rule.patterns),
        )

    @staticmethod
    def _are_kept(homes: Sequence[Home]) -> bool:
        return all(home.snapshot for home in homes)


def _imported() -> Iterator[str]:
    """Yield the files of modules that are the project's."""
    modules = Modules(Codes())
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not modules.installed(name):
            yield os.path.abspath(file)


def _looked_at(found: Sequence[Any]) -> Iterator[str]:
    """Yield the files of modules that functions hang on, imported or not."""
    for one in found:
        if one.glance is not None:
            yield from one.glance.sources.files()
        if not one.quiet:
            with contextlib.suppress(Exception):  # a step has told of it
                one.build.world.settle()
                _look_at_imports(one.build)
            yield from one.build.world.sources.files()


def _look_at_imports(build: Any) -> None:
    """Look at the modules that templates import themselves, which a worker may have found."""
    if MAKO not in build.project.kinds():
        return
    found = (item for trace in build.latest.values() for item in trace.inputs)
    for name in {item.name for item in found if item.kind == "module"}:
        build.world.declaration("module", name)


# Importing ------------------------------------------------------------------------------


class Notes:
    """What the import of `dodo.py` reads besides modules: nobody else could tell.

    Args:
        path: of the file that a build tells in.
    """

    def __init__(self, path: str):
        self._path = path
        self._on = False
        self.silence = Silence(os.path.join(os.path.dirname(path), "silent"))
        self.codegens: list[Codegen] = []
        self.opened: set[str] = set()
        self.listed: set[str] = set()

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Take note meanwhile."""
        sys.addaudithook(self._heard)
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _heard(self, event: str, given: tuple[Any, ...]) -> None:
        if not self._on or event not in ("open", "os.listdir", "os.scandir"):
            return
        caller = sys._getframe(1).f_code.co_filename
        if event == "open":
            self._note(self.opened, given[0], (".pyc",))
        elif not caller.startswith("<frozen importlib"):
            self._note(self.listed, "." if given[0] is None else given[0], ())

    @staticmethod
    def _note(known: set[str], path: Any, without: tuple[str, ...]) -> None:
        with contextlib.suppress(TypeError, ValueError, OSError):
            full = os.path.abspath(os.fsdecode(path))
            if full.startswith(os.getcwd() + os.sep) and not full.endswith(without or "\0"):
                known.add(full)

    def tell(self, told: Told) -> None:
        """Write what a build told."""
        said = json.dumps(dataclasses.asdict(told))
        with contextlib.suppress(OSError), open(self._path, "w", encoding="utf-8") as file:
            file.write(said)


def _import(notes: Notes, loading: Mapping[str, Any]) -> None:
    """Import what builds need, and `dodo.py`; what is wrong with it, a build will say."""
    sys.dont_write_bytecode = True  # Python takes it for fresh by second and size: edits are faster
    before, folder = list(sys.path), os.getcwd()
    try:
        main = DoitMain()
        loader = get_loader(main.config, None, main.get_cmds())
        if type(loader) is DodoTaskLoader:
            with notes.taking():
                loader.setup(dict(loading))
            notes.codegens = codegens(loader.namespace)
            if notes.codegens:
                _import_ours(notes.codegens)
    except (Exception, SystemExit):
        return
    finally:
        sys.path[:] = before
        os.chdir(folder)


def _import_ours(found: Iterable[Any]) -> None:
    import jinja2

    for name in ("causes", "chains", "runner", "tasks", "texts"):
        importlib.import_module(f"codegen_tasks.{name}")
    for kind in {kind for one in found for kind in one.project.kinds()}:
        importlib.import_module(kind.module)
    jinja2.Environment().parse("")  # makes the lexer


# Serving --------------------------------------------------------------------------------


class _Main(DoitMain):
    """doit, of which one command is the build.

    Args:
        notes: see `Build`.
        program: what its messages call it.
    """

    def __init__(self, notes: Notes, program: str):
        super().__init__()
        self._notes = notes
        self.BIN_NAME = program

    def get_cmds(self) -> Any:
        commands = super().get_cmds()
        commands[_NAME] = functools.partial(Build, notes=self._notes)
        return commands


def main() -> None:
    """Serve as the one argument says; see `watch.Builder.start`."""
    said = json.loads(sys.argv[1])
    sys.argv[:] = ["doit", *said["arguments"]]
    notes = Notes(said["path"])
    asked = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _import(notes, said["loading"])
    if said["answers"] is None:
        _die_with(said["parent"])
        wanted = os.read(asked, 1) == BUILD
    else:
        gc.collect()
        gc.freeze()  # or each fork copies all of the memory at its first collection
        wanted = _Server(asked, said["answers"]).serve()
    try:
        if wanted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.exit(_build(notes, said["program"], said["arguments"]))
    finally:
        # A watch that was killed leaves this to its own child; a fork is none.
        if os.getppid() != said["parent"] and (not wanted or said["answers"] is None):
            shutil.rmtree(os.path.dirname(said["path"]), ignore_errors=True)


def _build(notes: Notes, program: str, arguments: Sequence[str]) -> int:
    try:
        main = _Main(notes, program)
    except Exception as error:  # whatever a parser of doit's choice raises
        print(f"ERROR: pyproject.toml or doit.cfg: {error}", file=sys.stderr)
        return 3
    return int(main.run([_NAME, *arguments]) or 0)


class _Server:
    """Forks a child for every build.

    Args:
        asked, answers: pipes.
    """

    def __init__(self, asked: int, answers: int):
        self._asked = asked
        self._answers = answers
        self._child = 0
        self._wake, self._woken = os.pipe()

    def serve(self) -> bool:
        """Serve until nobody asks any more; True in a child, which is to build."""
        if threading.active_count() > 1:
            self._say(UNFIT)
            return False
        os.set_blocking(self._woken, False)
        signal.signal(signal.SIGCHLD, lambda *given: None)
        signal.set_wakeup_fd(self._woken)
        while True:
            ready, _, _ = select.select([self._asked, self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, 1 << 10)
            self._reap(os.WNOHANG)
            if self._asked in ready:
                if os.read(self._asked, 1) != BUILD:
                    self._end()
                    return False
                if self._fork():
                    return True

    def _fork(self) -> bool:
        parent = os.getpid()
        self._child = os.fork()
        if self._child:
            self._say(f"pid {self._child}")
            return False
        signal.set_wakeup_fd(-1)
        for end in (self._asked, self._answers, self._wake, self._woken):
            os.close(end)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _die_with(parent)
        return True

    def _reap(self, how: int) -> None:
        if self._child:
            pid, status = os.waitpid(self._child, how)
            if pid:
                self._child = 0
                self._say(f"end {os.waitstatus_to_exitcode(status)}")

    def _end(self) -> None:
        """End a build whose watch is no more."""
        if not self._child:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGTERM)
        end = time.monotonic() + _PATIENCE
        while self._child and time.monotonic() < end:
            select.select([self._wake], [], [], 0.1)
            self._reap(os.WNOHANG)
        if self._child:
            os.kill(self._child, signal.SIGKILL)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._answers, f"{line}\n".encode())


def _die_with(parent: int) -> None:
    """Have the kernel end us in order when the parent ends, where it can."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we could ask
