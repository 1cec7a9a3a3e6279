"""Starting other programs: without a shell, in a process group of their own, with an end.

Whatever ends us ends them: each is marked, and a run that starts any has a `Keeper`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import keeper


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program came to: its exit code, and what it printed, both streams together.

    If it was given an input, `result` is what it wrote, and `output` the complaints only.
    """

    code: int
    output: str
    timed_out: bool = False
    result: bytes = b""


def find(program: str) -> str | None:
    """Return the path of a program; None if it is not installed.

    The folder of the running Python comes first, so that a tool installed in the same
    virtual environment is found without activating it.
    """
    beside = os.path.dirname(sys.executable)
    return shutil.which(program, path=beside + os.pathsep + os.environ.get("PATH", os.defpath))


def run(
    command: Sequence[str],
    folder: str,
    timeout: float | None = None,
    environ: Mapping[str, str] | None = None,
    given: bytes | None = None,
) -> Finished:
    """Run a command to its end and return what it printed.

    Args:
        command: program and arguments; no shell sees them.
        folder: its working folder.
        timeout: seconds after which it and all it started are killed.
        environ: variables set besides our own.
        given: what it reads from its standard input; None: nothing.

    Raises:
        OSError: it cannot be started.
    """
    with started(command, folder, timeout, environ, given) as finished:
        return finished()


@contextlib.contextmanager
def started(
    command: Sequence[str],
    folder: str,
    timeout: float | None = None,
    environ: Mapping[str, str] | None = None,
    given: bytes | None = None,
) -> Iterator[Callable[[], Finished]]:
    """Start a command as `run` does, and hand out what waits for its end.

    Whoever leaves before that, kills it; the timeout counts from the start.
    """
    mark = f"{os.environ.get(keeper.MARK, '')}/{os.getpid()}.{os.urandom(4).hex()}"
    # A file, not a pipe: a daemon that a program leaves behind may hold its output open for
    # ever, and no reader of a file waits for that.
    with contextlib.ExitStack() as files:
        printed = files.enter_context(tempfile.TemporaryFile())
        source, result = None, printed
        if given is not None:
            source, result = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            source.write(given)
            source.seek(0)
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environ or {}), keeper.MARK: mark},
            stdin=subprocess.DEVNULL if source is None else source,
            stdout=result,
            stderr=printed,
            start_new_session=True,
        )
        end = None if timeout is None else time.monotonic() + timeout

        def finished() -> Finished:
            left = None if end is None else max(0.0, end - time.monotonic())
            timed_out = not _ended(process, left)
            if timed_out:
                _kill(process, mark)
            printed.seek(0)
            said, made = _text(printed.read()), b""
            if result is not printed:
                result.seek(0)
                made = result.read()
            return Finished(process.returncode, said, timed_out, made)

        try:
            yield finished
        finally:
            if process.returncode is None:
                _kill(process, mark)


def _ended(process: subprocess.Popen[bytes], timeout: float | None) -> bool:
    """Wait for a process; False if it has not ended in time."""
    if timeout is not None and hasattr(os, "pidfd_open"):
        # At once when it ends; subprocess would look at growing intervals.
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(process.pid)
            try:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                if not poll.poll(max(0, timeout) * 1000):
                    return False
            finally:
                os.close(handle)
            timeout = None
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill a process, everything in its group and all it started; wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    keeper.end_marked(mark)  # those that left the group, whoever their parent is now
    process.wait()


class Keeper:
    """Our end of the process that ends what we leave if we are killed; see `keeper`.

    Started by the first `start`; forked children let go of it by themselves.
    """

    def __init__(self) -> None:
        self.mark = f"{os.environ.get(keeper.MARK, '')}+{os.urandom(8).hex()}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs already or cannot."""
        if self._process is not None:
            return
        spec = importlib.util.find_spec("psutil")
        beside = os.path.dirname(os.path.dirname(str(spec.origin))) if spec is not None else ""
        environ = {name: value for name, value in os.environ.items() if name != keeper.MARK}
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(keeper.__file__), beside, self.mark],
                cwd=os.sep,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,  # a forked child closes its copy: nothing may be left to flush
            )
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave)

    def _leave(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process = None

    def watch(self, pid: int) -> None:
        """Let it end a worker too, which was forked and so bears no mark."""
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        """Leave a worker out that has ended: its pid may become another's."""
        self._tell(f"-{pid}\n")

    def end(self, in_order: bool) -> None:
        """End it.

        Args:
            in_order: nothing is left to end; otherwise all that is left is ended first.
        """
        if not in_order:
            keeper.end_marked(self.mark)
        self._tell("end\n")
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.communicate()
        self._process = None

    @contextlib.contextmanager
    def marking(self) -> Iterator[None]:
        """Mark what is started in this process meanwhile as the run's."""
        self.start()
        before = os.environ.get(keeper.MARK)
        os.environ[keeper.MARK] = self.mark
        try:
            yield
        finally:
            os.environ.pop(keeper.MARK)
            if before is not None:
                os.environ[keeper.MARK] = before

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line.encode())


def end_worker(mark: str, pid: int) -> None:
    """End the programs that a worker had started, which has died.

    Args:
        mark: of its run.
        pid: of the worker.
    """
    keeper.end_marked(f"{mark}/{pid}.")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\r\n", "\n")
