"""A temporary project, and the real doit to run in it."""

from __future__ import annotations

import compileall
import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import Server
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# A shell has its background jobs ignore SIGINT, and so would all we start, unless we heed it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Nothing is taken from builds of the user's, nor left there.
os.environ["CODEGEN_OUTPUT_CACHE"] = "false"
os.environ["CODEGEN_OUTPUT_CACHE_FOLDER"] = os.path.join(tempfile.gettempdir(), "no-store")

# The same examples in each run, so that none is refused by chance, and however long they take;
# `--hypothesis-profile=others` looks at others each time, `few` at a quarter.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("same", _UNTIMED, derandomize=True, database=None)
settings.register_profile("few", settings.get_profile("same"), max_examples=25)
settings.register_profile("others", _UNTIMED)
settings.load_profile("same")


def share(examples: int) -> int:
    """Return how many of so many examples the profile of hypothesis asks for, one at least."""
    return max(1, examples * settings.default.max_examples // 100)


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package, once: what the tests start keeps no bytecode, see `environment`."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(ROOT / "codegen_tasks", quiet=2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return two workers a core where cores are few: many tests wait for other processes."""
    cores = os.cpu_count() or 1
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or cores > 4 else 2 * cores


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have workers take tests that follow each other, for they share what is made but once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@dataclass(frozen=True)
class Result:
    """What a doit command came to: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """Return the environment that projects begin with, but for the home of their state."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CODEGEN_")}
    environ["NO_COLOR"] = "1"
    environ["CODEGEN_OUTPUT_CACHE"] = "false"
    environ["CODEGEN_OUTPUT_CACHE_FOLDER"] = os.path.join(tempfile.gettempdir(), "no-store")
    # Python takes a dodo.py of the same second and size for the one it compiled before.
    environ["PYTHONDONTWRITEBYTECODE"] = "1"
    return environ


@functools.cache
def servers() -> Iterator[Server]:
    """Return two servers in turn, so that a run sees no order of sets of the one before."""
    return itertools.cycle([Server(environment(), seed) for seed in (1, 2)])


class Project:
    """A folder with a `dodo.py`, and the means to change it and to run doit in it."""

    def __init__(self, path: Path, state_home: Path):
        self.path = path
        self.environ = {**environment(), "XDG_STATE_HOME": str(state_home)}

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file, parents included; text is dedented and loses its leading newline."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(textwrap.dedent(text).removeprefix("\n"), encoding="utf-8")
        return path

    def read(self, name: str) -> str:
        """Return a file's text."""
        return (self.path / name).read_text(encoding="utf-8")

    def exists(self, name: str) -> bool:
        """Tell whether a file exists."""
        return (self.path / name).exists()

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.path / name).unlink()

    def run(self, *command: str, **environ: str) -> Result:
        """Run a command in the project's folder."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def doit(self, *arguments: str, **environ: str) -> Result:
        """Run doit, in a fork of a process that has it imported."""
        return self._module("doit", arguments, environ)

    def started_doit(self, *arguments: str, **environ: str) -> Result:
        """Run doit as a shell does, for tests of what its start imports and does."""
        return self.run(sys.executable, "-m", "doit", *arguments, **environ)

    def codegen(self, *arguments: str, **environ: str) -> Result:
        """Run `python -m codegen_tasks`, for commands a project has not opted in to."""
        return self._module("codegen_tasks", arguments, environ)

    def script(self, path: str, *arguments: str, **environ: str) -> Result:
        """Run a file of Python, in a fork of a process that has doit imported."""
        return self._module(path, arguments, environ)

    def _module(self, module: str, arguments: tuple[str, ...], environ: dict[str, str]) -> Result:
        if hasattr(os, "fork"):
            whole = {**self.environ, **environ}
            ran = next(servers()).run(self.path, whole, module, arguments)
            if ran is not None:
                code, *told = ran
                return Result(code, *(text.decode().replace("\r\n", "\n") for text in told))
        words = (module,) if module.endswith(".py") else ("-m", module)
        return self.run(sys.executable, *words, *arguments, **environ)

    def files(self, *ignored: str) -> dict[str, bytes]:
        """Return all files by name, those below the `ignored` folders left out."""
        return {
            name: path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
            and not (name := path.relative_to(self.path).as_posix()).startswith(ignored)
            and "__pycache__" not in name
        }

    def stamps(self, folder: str = ".") -> dict[str, tuple[int, int]]:
        """Return inode and mtime (ns) of every file below a folder: equal if none was written."""
        return {
            path.relative_to(self.path).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in sorted((self.path / folder).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }


@pytest.fixture(scope="session")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home for the user's secret that is not the user's."""
    return tmp_path_factory.mktemp("state-home")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what has a folder filled by the first of all workers of this run that needs it."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def filled(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = home / name, home / f"{name}.done"
        with locked(home / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return filled


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock against all processes."""
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def empty_project(tmp_path: Path, state_home: Path) -> Project:
    """Return a project with nothing in it."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder, state_home)


DODO = """
from codegen_tasks import Codegen

codegen = Codegen(environment={"trim_blocks": True})
codegen.rule("page", template="page.txt.j2", patterns="patterns/*.toml", target="{stem}.txt")
codegen.rule("list", template="list.txt.j2", patterns="patterns/*.toml", target="list.txt")
codegen.rule("plain", template="plain.txt.j2", target="plain.txt")


@codegen.filter
def shout(text):
    return text.upper() + "!"


DOIT_CONFIG = codegen.doit_config
"""


@pytest.fixture
def project(empty_project: Project) -> Project:
    """Return a small project without a compiler.

    Three patterns, a page for each, a list of all, a plain file; `page` extends `base`,
    imports `macros` and uses the filter `shout`.
    """
    return fill(empty_project)


def fill(project: Project) -> Project:
    """Write the files of `project` into an empty one."""
    project.write("dodo.py", DODO)
    project.write("templates/base.j2", "begin\n{% block body %}{% endblock %}\nend\n")
    project.write("templates/macros.j2", "{% macro title(x) %}== {{ x }} =={% endmacro %}\n")
    project.write(
        "templates/page.txt.j2",
        """
        {% extends "base.j2" %}
        {% import "macros.j2" as m %}
        {% block body %}
        {{ m.title(name) }} {{ name|shout }} {{ gain }}
        {% endblock %}
        """,
    )
    project.write("templates/list.txt.j2", "{% for p in patterns %}{{ p.name }}\n{% endfor %}")
    project.write("templates/plain.txt.j2", "plain\n")
    for number, stem in enumerate(("ash", "birch", "cedar")):
        project.write(f"patterns/{stem}.toml", f'name = "{stem}"\ngain = {number}\n')
    return project
