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
        return Finished(process.returncode, _text(process.communicate()[0]), timed_out=True)
    except BaseException:
        kill_group(process)
        raise
    return Finished(process.returncode, _text(output))


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything in its group, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\r\n", "\n")
