"""Installing this package changes nothing in doit projects that do not use it.

Every command runs twice, in an environment with doit alone and in one with this package
besides; exit code, both streams and the files they leave must be the same.  Most commands are
forks of a process there that has doit imported, those that begin a test are started.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked import Server

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
DOIT = f"doit=={importlib.metadata.version('doit')}"

#: What differs between two runs of one program: addresses, times, process ids.
VOLATILE = [
    (re.compile(r"0x[0-9a-f]+"), "ADDRESS"),
    (re.compile(r"\b\d{9,10}\.\d+"), "SECONDS"),
    (re.compile(r"\d+\.\d+e-\d+|(?<=\"elapsed\": )[\d.e-]+"), "SECONDS"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?"), "TIME"),
    (re.compile(r"\d\d:\d\d:\d\d( [AP]M)?"), "TIME"),
    (re.compile(r"(Process-|pid=?\s?)\d+"), r"\1PID"),
]


@dataclass(frozen=True)
class Said:
    """What a command came to, freed of what differs from run to run."""

    code: int
    out: list[str]
    err: list[str]
    files: dict[str, bytes | str]


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder of the projects it is tried on."""

    home: Path
    projects: Path
    server: Server

    def run(
        self, project: str, command: Sequence[str], unordered: bool = False, started: bool = False
    ) -> Said:
        """Run a module or a file in a project, in a fork of a process that has doit imported.

        Args:
            project: the folder to be in.
            command: the module or file, and its arguments.
            unordered: whether output is compared as a bag of lines.
            started: whether it is a process of its own, as from a shell.
        """
        folder = self.projects / project
        environ = {**environment_of(self.home), "HOME": str(folder)}
        if started:
            code, *told = self._start(folder, environ, command)
        else:
            ran = self.server.run(folder, environ, command[0], tuple(command[1:]))
            assert ran is not None
            code, *told = ran
        out, err = (self._normal(text.decode(), unordered) for text in told)
        return Said(code, out, err, dict(self._files(folder)))

    def _start(
        self, folder: Path, environ: dict[str, str], command: Sequence[str]
    ) -> tuple[int, bytes, bytes]:
        words = command if command[0].endswith(".py") else ["-m", *command]
        done = subprocess.run(
            [python_of(self.home), *words],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def _normal(self, text: str, unordered: bool) -> list[str]:
        for path, name in ((self.projects, "PROJECTS"), (self.home, "HOME")):
            text = text.replace(str(path), name)
        for pattern, word in VOLATILE:
            text = pattern.sub(word, text)
        return sorted(text.splitlines()) if unordered else text.splitlines()

    def _files(self, folder: Path) -> Iterable[tuple[str, bytes | str]]:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                # doit's databases hold times; `dumpdb` and `list -s` compare their meaning.
                database = path.name.startswith(".doit.db")
                yield path.relative_to(folder).as_posix(), "" if database else path.read_bytes()


@dataclass(frozen=True)
class Pair:
    """Doit alone, and doit with this package installed."""

    alone: Environment
    beside: Environment

    def write(self, project: str, files: dict[str, str]) -> None:
        """Write the files of a project for both."""
        for environment in (self.alone, self.beside):
            for name, text in files.items():
                path = environment.projects / project / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(textwrap.dedent(text).removeprefix("\n"), encoding="utf-8")

    def same(
        self, project: str, *command: str, unordered: bool = False, started: bool = False
    ) -> Said:
        """Run a module or a file in both, assert that nothing differs, return what was said."""
        with ThreadPoolExecutor(2) as pool:
            alone, beside = pool.map(
                lambda environment: environment.run(project, command, unordered, started),
                (self.alone, self.beside),
            )
        assert beside == alone, command
        return alone

    def doit(self, project: str, *arguments: str, started: bool = False) -> Said:
        """Run doit in both; with workers, in whatever order they finish."""
        return self.same(project, "doit", *arguments, unordered="-n" in arguments, started=started)


def python_of(home: Path) -> str:
    """Return the interpreter of a virtual environment."""
    return str(home / "bin" / "python")


def environment_of(home: Path) -> dict[str, str]:
    """Return the variables of processes in a virtual environment."""
    return {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
    }


def make(home: Path, *requirements: str) -> None:
    """Make a virtual environment with some packages; skip if they cannot be had."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python_of(home), "install", "--quiet"]
    done = subprocess.run(
        [*pip, *requirements], capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        pytest.skip(f"pip cannot install {' '.join(requirements)}: {done.stderr[-300:]}")


@pytest.fixture(scope="session")
def environments(once: Callable[..., Path]) -> list[tuple[Path, Server]]:
    """Return two virtual environments, made once, each with a process that runs doit there."""
    homes = (
        once("alone", lambda home: make(home, DOIT)),
        once("beside", lambda home: make(home, DOIT, str(REPOSITORY))),
    )
    return [(home, Server(environment_of(home), 0, python_of(home))) for home in homes]


@pytest.fixture
def pair(environments: list[tuple[Path, Server]], tmp_path: Path) -> Pair:
    """Both environments, each with a folder for its copies of a project."""
    folders = (tmp_path / "alone", tmp_path / "beside")
    for folder in folders:
        folder.mkdir()
    return Pair(
        *(
            Environment(home, folder, server)
            for (home, server), folder in zip(environments, folders, strict=True)
        )
    )


EVERYDAY = """
import sys
from doit import create_after

DOIT_CONFIG = {"default_tasks": ["copy", "say", "group", "later"]}


def task_copy():
    "copy a file"
    return {"actions": ["cp in.txt out.txt"], "file_dep": ["in.txt"], "targets": ["out.txt"],
            "clean": True}


def task_say():
    def say(who, pos):
        print("hello", who, pos)
        return {"said": who}
    return {"actions": [say], "params": [{"name": "who", "short": "w", "default": "you"}],
            "pos_arg": "pos", "verbosity": 2, "uptodate": [False]}


def task_group():
    for name in ("one", "two", "three"):
        yield {"name": name, "actions": [f"echo {name} > {name}.txt"],
               "targets": [f"{name}.txt"], "clean": True, "uptodate": [True]}


@create_after(executed="group", target_regex=".*\\\\.late")
def task_later():
    yield {"name": "x", "actions": ["echo late > x.late"], "targets": ["x.late"]}


def task_heard():
    return {"actions": ["echo %(said)s"], "getargs": {"said": ("say", "said")}, "verbosity": 2}


def task_fails():
    return {"actions": ["echo broken >&2; exit 3"]}


def task_raises():
    def action():
        raise ValueError("never mind")
    return {"actions": [action]}


def task_after():
    return {"actions": ["echo not reached"], "task_dep": ["fails"]}
"""

COMMANDS = [
    "",
    "",
    "list",
    "list --all -s",
    "list --deps -q",
    "info copy",
    "info --no-status copy",
    "info group:one",
    "info",
    "info copy say",
    "info nothing",
    "info copy --no-status",
    "info --json copy",
    "info --nonsense",
    "dumpdb",
    "-a",
    "-s heard",
    "say -w me a b",
    "x.late",
    "group:*",
    "out.txt",
    "nothing",
    "fails after",
    "-c fails after raises copy",
    "--failure-verbosity 2 fails",
    "raises",
    "forget copy",
    "list -s",
    "-n 2 copy group heard",
    "-n 2 -a",
    "-n 2 -c fails after group",
    "-n 2 -P thread -a group",
    "-n 2 -P nonsense",
    "-P nonsense",
    "-v 0 say",
    "-r zero -a",
    "-r executed-only copy",
    "-r error-only fails",
    "-r json copy group",
    "-o report.txt -a group",
    "ignore group",
    "",
    "list --all -s",
    "forget group",
    "forget",
    "list --all -s",
    "--backend json --db-file .doit.db.json",
    "--backend sqlite3 --db-file .doit.db.sqlite copy",
    "reset-dep copy",
    "clean -n",
    "clean group",
    "clean --clean-all",
    "help",
    "--help",
    "help task",
    "help say",
    "help nothing",
    "tabcompletion",
    "tabcompletion --shell zsh",
    "tabcompletion --hardcode-tasks",
    "-f nowhere.py",
    "-f nowhere.py info copy",
    "--nonsense",
]


def test_every_command_says_and_does_what_it_did(pair: Pair) -> None:
    """A project with tasks of all kinds sees the same exit codes, output and files."""
    pair.write("everyday", {"dodo.py": EVERYDAY, "in.txt": "in\n"})
    for number, command in enumerate(COMMANDS):
        pair.doit("everyday", *command.split(), started=number < 2)


HELP_OF = ["run", "info", "list", "clean", "forget", "ignore", "dumpdb", "strace", "help"]


@pytest.mark.parametrize("command", HELP_OF)
def test_help_differs_by_the_names_we_register_only(pair: Pair, command: str) -> None:
    """`doit help COMMAND` lists one more backend and one more reporter, and is else the same."""
    pair.write("help", {"dodo.py": EVERYDAY})
    alone, beside = (
        " ".join(environment.run("help", ["doit", "help", command]).out)
        for environment in (pair.alone, pair.beside)
    )
    known = beside.replace("choices: codegen, dbm", "choices: dbm")
    known = re.sub(r"codegen: console output of codegen-tasks: .*? one\s+summary", "", known)
    assert " ".join(known.split()) == " ".join(alone.split())


@pytest.mark.parametrize(
    "name", ["cache", "manifest", "prune", "watch", "report", "diff", "codegen", "generate"]
)
def test_names_of_our_commands_stay_free_for_tasks(pair: Pair, name: str) -> None:
    """A task may be called as one of our commands or phases."""
    dodo = f"""
    def task_{name}():
        return {{"actions": ["echo {name}"], "verbosity": 2}}
    """
    pair.write("names", {"dodo.py": dodo})
    assert pair.doit("names", name).out == [f".  {name}", name]
    assert pair.doit("names", "list").code == 0
    assert pair.doit("names", "info", name).code == 1
    assert pair.doit("names", "-n", "2").code == 0


def test_configuration_files_mean_what_they_meant(pair: Pair) -> None:
    """doit.cfg, pyproject.toml and DOIT_CONFIG are read as before; `[tool.codegen]` is not ours."""
    pair.write(
        "configured",
        {
            "dodo.py": """
            from doit.reporter import ConsoleReporter

            class Mine(ConsoleReporter):
                def execute_task(self, task):
                    self.outstream.write("mine " + task.name + "\\n")

            DOIT_CONFIG = {"reporter": Mine, "verbosity": 2, "backend": "json",
                           "dep_file": "mine.json", "check_file_uptodate": "timestamp"}

            def task_one():
                return {"actions": ["echo one"], "uptodate": [True]}
            """,
            "doit.cfg": "[list]\nstatus = True\n",
            "pyproject.toml": """
            [tool.doit.commands.info]
            hide_status = true
            [tool.codegen]
            nonsense = true
            """,
        },
    )
    for command in ("", "", "list", "info one", "run -v 0", "-n 2 -a", "forget one", "dumpdb"):
        pair.doit("configured", *command.split())


BROKEN = {
    "syntax": "def task_a(:\n",
    "raises": "raise RuntimeError('at import')\n",
    "nothing": "x = 1\n",
    "invalid task": "def task_a():\n    return {'actions': 3}\n",
    "unknown dependency": "def task_a():\n    return {'actions': None, 'task_dep': ['b']}\n",
    "cycle": "def task_a():\n    return {'actions': None, 'task_dep': ['a']}\n",
    "unknown backend": "DOIT_CONFIG = {'backend': 'none'}\ndef task_a():\n    return {}\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_mistakes_are_reported_as_before(pair: Pair, name: str) -> None:
    """A broken dodo.py gets doit's own message or traceback, without a frame of ours in it."""
    pair.write("broken", {"dodo.py": BROKEN[name]})
    for command in ("", "-n 2", "info a", "info b", "list"):
        said = pair.doit("broken", *command.split(), started=not command)
        assert "codegen_tasks" not in "".join(said.err)


def test_what_looks_like_ours_is_left_alone(pair: Pair) -> None:
    """Objects named like ours, and lazy proxies that must not be woken, are not touched."""
    dodo = """
    class Codegen:
        build = property(lambda self: print("touched"))

    class Lazy:
        @property
        def __class__(self):
            print("woken")
            return int

    codegen = Codegen()
    lazy = Lazy()

    def task_one():
        return {"actions": ["echo one"], "verbosity": 2}
    """
    pair.write("alike", {"dodo.py": dodo})
    assert pair.doit("alike").out == [".  one", "one"]
    pair.doit("alike", "info", "one")


def test_programs_on_top_of_doit_are_not_changed(pair: Pair) -> None:
    """Programs that call doit's API, own loaders and own commands work as before."""
    pair.write(
        "programs",
        {
            "run.py": """
            import doit

            def task_one():
                return {"actions": ["echo one"], "verbosity": 2}

            doit.run(globals())
            """,
            "loader.py": """
            import sys
            from doit.cmd_base import Command, TaskLoader2
            from doit.cmd_run import Run
            from doit.doit_cmd import DoitMain
            from doit.task import dict_to_task

            class Loader(TaskLoader2):
                namespace = "not a mapping"
                def setup(self, opt_values): pass
                def load_doit_config(self): return {"verbosity": 2}
                def load_tasks(self, cmd, pos_args):
                    return [dict_to_task({"name": "one", "actions": ["echo one"]})]

            sys.exit(DoitMain(Loader()).run(sys.argv[1:]))
            """,
            "tasks.py": """
            import sys
            from doit.api import run_tasks
            from doit.cmd_base import ModuleTaskLoader

            def task_one():
                return {"actions": [lambda word: print(word)], "params": [
                    {"name": "word", "default": "nothing"}], "verbosity": 2}

            sys.exit(run_tasks(ModuleTaskLoader(globals()), {"one": {"word": "hello"}}))
            """,
        },
    )
    for command in (
        "run.py",
        "run.py list",
        "run.py -n 2",
        "run.py info one",
        "loader.py",
        "loader.py info one",
        "loader.py info",
        "tasks.py",
    ):
        pair.same("programs", *command.split(), started=True)


# doit's own samples ---------------------------------------------------------------------

#: Samples that are not run, and why.
LEFT_OUT = {
    "download": "needs a network",
    "longrunning": "runs for ever",
    "settrace": "needs a terminal",
}


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fetch the folder of samples in doit's source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-binary", ":all:", "--dest", folder, DOIT],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"doit's source distribution cannot be had: {done.stderr[-300:]}")
    with tarfile.open(next(folder.glob("doit-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("doit-*/doc/samples"))


def test_samples_of_doit_run_as_before(pair: Pair, samples: Path) -> None:
    """Each sample of doit's documentation is listed, run, run again and cleaned the same."""
    names = sorted(path.stem for path in samples.glob("*.py") if path.stem not in LEFT_OUT)
    assert len(names) > 40
    differing = [name for name in names if not _sample_is_same(pair, samples, name)]
    assert differing == []


def _sample_is_same(pair: Pair, samples: Path, name: str) -> bool:
    for environment in (pair.alone, pair.beside):
        shutil.copytree(samples, environment.projects / name)
    program = "__main__" in (samples / f"{name}.py").read_text(encoding="utf-8")
    start = [f"{name}.py"] if program else ["doit", "-f", f"{name}.py"]
    first = pair.same(name, *start, "list", "--all", "-q").out
    commands = [["list", "--all", "-s"], [], [], ["-n", "2", "-c"], ["clean"]]
    commands += [["info", task.strip()] for task in first[:1]]
    try:
        for command in commands:
            arguments = [*start[:1], *command, *start[1:]]
            # Tasks that wait for the same one go on in an order that doit leaves to chance.
            pair.same(name, *arguments, unordered=command in ([], ["-n", "2", "-c"]))
    except AssertionError as error:
        print(f"{name}: {error}")
        return False
    return True
