"""A real Dask scheduler and workers: processes of their own, each with a folder and a home."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from conftest import environment
from ports import free_port, listens

_LONGEST = 120  # seconds


class Cluster:
    """A scheduler on the loopback interface, and workers that share no folder with anybody.

    Args:
        folder: for what the processes keep.
        port: of the scheduler; 0 for any.
    """

    def __init__(self, folder: Path, port: int = 0):
        self.folder = folder
        self.port = port or free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_scheduler(self, host: str = "127.0.0.1") -> None:
        """Start the scheduler, and wait until it listens."""
        where = ("--host", host, "--port", str(self.port))
        self._start("scheduler", "scheduler", *where, "--no-dashboard", "--no-jupyter")
        self._wait(lambda: listens(self.port, host), "scheduler")

    def start_worker(
        self,
        name: str,
        *options: str,
        host: str = "127.0.0.1",
        before: Sequence[str] = (),
        **environ: str,
    ) -> None:
        """Start a worker, and wait until it is registered."""
        where = ("--host", host, "--local-directory", str(self._home(name) / "scratch"))
        usual = ("--nthreads", "1", "--no-dashboard", "--name", name, "--no-nanny")
        self._start(
            name, "worker", self.address, *where, *usual, *options, before=before, **environ
        )
        self._wait(lambda: "Registered to:" in self.said(name), name)

    def _home(self, name: str) -> Path:
        home = self.folder / name
        (home / "scratch").mkdir(parents=True, exist_ok=True)
        return home

    def _start(
        self, name: str, kind: str, *options: str, before: Sequence[str] = (), **environ: str
    ) -> None:
        home = self._home(name)
        with (home / "log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [*before, sys.executable, "-m", "dask", kind, *options],
                cwd=home,
                env={**environment(), "HOME": str(home), **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        """Return all that a process has printed."""
        return (self.folder / name / "log").read_text(errors="replace")

    def pid(self, name: str) -> int:
        """Return the process of a worker, or of the scheduler."""
        return self._processes[name].pid

    def family(self, name: str) -> list[psutil.Process]:
        """Return a process and all its descendants."""
        process = psutil.Process(self.pid(name))
        return [process, *process.children(recursive=True)]

    def stop(self, name: str) -> None:
        """Have a worker stand still, with all it started: it is there, and says nothing."""
        for process in self.family(name):
            process.suspend()

    def go_on(self, name: str) -> None:
        """Let one go on that stands still."""
        for process in self.family(name):
            process.resume()

    def kill(self, name: str) -> None:
        """Kill a worker, or the scheduler, with SIGKILL; what it started is left to itself."""
        self._processes[name].kill()
        self._processes.pop(name).wait()

    def end(self) -> None:
        """End all processes."""
        for name in list(self._processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                family = self.family(name)
                for process in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGKILL)
            self.kill(name)

    def files(self, name: str) -> list[str]:
        """Return the files in a worker's scratch folder."""
        scratch = self.folder / name / "scratch"
        return [str(path.relative_to(scratch)) for path in scratch.rglob("*") if path.is_file()]

    def _wait(self, holds: object, name: str) -> None:
        end = time.monotonic() + _LONGEST
        while not holds():  # type: ignore[operator]
            assert self._processes[name].poll() is None, self.said(name)
            assert time.monotonic() < end, self.said(name)
            time.sleep(0.05)


@contextlib.contextmanager
def cluster(folder: Path, *workers: str) -> Iterator[Cluster]:
    """Start a scheduler and workers; end them."""
    found = Cluster(folder)
    try:
        found.start_scheduler()
        for name in workers:
            found.start_worker(name)
        yield found
    finally:
        found.end()
