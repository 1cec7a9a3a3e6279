"""Starting other programs: without a shell, in a process group of their own, with an end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Seconds to wait for the last output of a killed process.
_GRACE = 2.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program came to: its exit code, and what it printed, both streams together."""

    code: int
    output: str
    timed_out: bool = False


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
) -> Finished:
    """Run a command to its end and return what it printed.

    Args:
        command: program and arguments; no shell sees them.
        folder: its working folder.
        timeout: seconds after which it and all it started are killed.
        environ: variables set besides our own.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_group(process)
        return Finished(process.returncode, _text(_remaining(process)), timed_out=True)
    except BaseException:
        kill_group(process)
        raise
    return Finished(process.returncode, _text(output))


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, everything in its group and all it started; wait for it."""
    import psutil

    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        started = []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    for other in started:  # those that left the group
        with contextlib.suppress(psutil.Error):
            other.kill()
    process.wait()


def _remaining(process: subprocess.Popen[bytes]) -> bytes:
    """Return what a killed process printed.

    A daemon that it left behind may hold its output open for ever: so not without end.
    """
    try:
        return process.communicate(timeout=_GRACE)[0]
    except subprocess.TimeoutExpired as error:
        if process.stdout is not None:
            process.stdout.close()
        return error.output or b""


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\r\n", "\n")
