"""Workers and schedulers on Dask that die, stand still, lack something or lie: no build fails."""

from __future__ import annotations

import pickle
import pickletools
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Project, Result
from dask_cluster import Cluster, cluster
from test_dask import made, notes, on_dask

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

SLEEPING = """
import os, signal, sys, time
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")


@codegen.function
def work(name):
    time.sleep(0.05)
    return name


DOIT_CONFIG = codegen.doit_config
"""
MANY = 60


@pytest.fixture
def sleeping(empty_project: Project) -> Project:
    """Return a project whose renders take a while."""
    project = empty_project
    project.write("dodo.py", SLEEPING)
    project.write("templates/page.j2", "{{ work(pattern.stem) }}\n")
    for number in range(MANY):
        project.write(f"patterns/p{number:02}.toml", "x = 1\n")
    return project


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster of two workers, to be harmed."""
    with cluster(tmp_path / "cluster", "first", "second") as found:
        yield found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster of two workers that stays as it is."""
    with cluster(tmp_path_factory.mktemp("cluster"), "first", "second") as found:
        yield found


def started(project: Project, there: Cluster, **environ: str) -> Running:
    """Begin a build there, and wait until something is made; the rest waits for `let_go`."""
    held = project.write("../held", "")
    is_held = f"os.path.exists({str(held.resolve())!r}) and time.time() < {time.time() + 300}"
    waits = f"    while name > 'p01' and {is_held}:\n"
    project.write(
        "dodo.py",
        project.read("dodo.py").replace(
            "    return name\n", f"{waits}        time.sleep(0.01)\n    return name\n", 1
        ),
    )
    running = Running(project, there, (), environ)
    end = time.monotonic() + 120
    while not made(project):
        assert running.process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    return running


def let_go(project: Project) -> None:
    project.remove("../held")


class Running:
    """A build under way."""

    def __init__(
        self, project: Project, there: Cluster, arguments: tuple[str, ...], environ: dict[str, str]
    ):
        asked = ("-P", "dask", "--scheduler", there.address, *arguments)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "doit", *asked],
            cwd=project.path,
            env={**project.environ, "CODEGEN_DASK_WAIT": "8", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self) -> Result:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=300)
        return Result(self.process.returncode, out, err)


def right(project: Project, result: Result) -> None:
    """See that all was made as it would be here, and nothing is left to do."""
    assert (result.code, result.err) == (0, ""), result
    assert made(project) == {f"generated/p{n:02}.txt": f"p{n:02}\n".encode() for n in range(MANY)}
    assert project.doit().out.startswith(f"{MANY} up to date in ")


# What dies ------------------------------------------------------------------------------


def test_what_a_killed_worker_had_to_do_is_done_elsewhere(
    sleeping: Project, there: Cluster
) -> None:
    running = started(sleeping, there, CODEGEN_DASK_WAIT="60")
    there.kill("first")
    let_go(sleeping)
    result = running.ended()
    right(sleeping, result)
    assert notes(result) == ["-P dask: worker first is gone, what it had to do is done elsewhere"]


def test_what_a_silent_worker_had_to_do_is_done_elsewhere(
    sleeping: Project, there: Cluster
) -> None:
    running = started(sleeping, there)
    there.stop("first")
    let_go(sleeping)
    result = running.ended()
    right(sleeping, result)
    assert "-P dask: worker first is silent, what it had to do is sent again" in notes(result)
    assert not any("runs here" in note for note in notes(result))


def test_without_workers_what_is_left_runs_here(sleeping: Project, there: Cluster) -> None:
    running = started(sleeping, there)
    there.kill("first")
    there.kill("second")
    let_go(sleeping)
    result = running.ended()
    right(sleeping, result)
    assert re.fullmatch(
        "-P dask: no worker has (come|begun anything) in (8|16) s; what is left runs here",
        notes(result)[-1],
    )


def test_without_the_scheduler_what_is_left_runs_here(sleeping: Project, there: Cluster) -> None:
    running = started(sleeping, there)
    there.kill("scheduler")
    let_go(sleeping)
    result = running.ended()
    right(sleeping, result)
    what = f"the scheduler at {there.address} is gone"
    assert notes(result) == [f"-P dask: {what}; what is left runs here"]


def test_a_scheduler_that_stands_still_costs_a_wait(sleeping: Project, there: Cluster) -> None:
    running = started(sleeping, there, CODEGEN_DASK_WAIT="5")
    there.stop("scheduler")
    let_go(sleeping)
    result = running.ended()
    right(sleeping, result)
    assert notes(result)[-1].endswith("; what is left runs here")


def test_a_build_goes_on_with_a_scheduler_that_was_started_again(
    sleeping: Project, there: Cluster
) -> None:
    running = started(sleeping, there, CODEGEN_DASK_WAIT="120")
    there.kill("scheduler")
    there.start_scheduler()
    there.start_worker("third")
    let_go(sleeping)
    result = running.ended()
    right(sleeping, result)
    assert not any("runs here" in note for note in notes(result))


def test_workers_that_come_later_are_used(sleeping: Project, tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as there:
        running = Running(sleeping, there, ("-v", "2"), {"CODEGEN_DASK_WAIT": "60"})
        there.start_worker("late")
        result = running.ended()
    right(sleeping, result)
    assert len(re.findall(r"generate:\S+  \(late, \d+ ms\)", result.out)) == MANY


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_workers_free(
    sleeping: Project, usual: Cluster, number: signal.Signals
) -> None:
    sleeping.write("dodo.py", SLEEPING.replace("sleep(0.05)", "sleep(300 if name > 'p01' else 0)"))
    running = started(sleeping, usual)
    running.process.send_signal(number)
    result = running.ended()
    assert result.code == (-number if number == signal.SIGKILL else 128 + number)
    end = time.monotonic() + 60
    while any("sleep" in status for status in busy(usual)):
        assert time.monotonic() < end, busy(usual)
        time.sleep(0.1)
    if number == signal.SIGKILL:
        return  # then workers find out by themselves that nobody needs it any more
    while any("codegen-tasks" in f for name in ("first", "second") for f in usual.files(name)):
        assert time.monotonic() < end
        time.sleep(0.1)


def busy(there: Cluster) -> list[str]:
    """Return what processes of the workers are in the middle of a step."""
    import distributed

    with distributed.Client(there.address, set_as_default=False) as client:
        return ["sleeping" for tasks in client.processing().values() for _ in tasks]


def test_a_process_that_is_killed_while_it_loads_is_started_again(
    sleeping: Project, usual: Cluster, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    killed = (
        f"if sys.argv[0].endswith('child.py') and not os.path.exists({str(mark)!r}):\n"
        f"    open({str(mark)!r}, 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    sleeping.write("dodo.py", SLEEPING.replace("\ncodegen = ", f"\n{killed}codegen = ", 1))
    result = on_dask(sleeping, usual, "-v", "2")
    assert mark.exists()
    right(sleeping, result)
    assert notes(result) == []


# What is to blame -----------------------------------------------------------------------


def test_a_step_that_kills_its_process_fails_and_no_other(
    sleeping: Project, usual: Cluster
) -> None:
    bad = "os.kill(os.getpid(), signal.SIGKILL) if name == 'p07' else time.sleep(0.01)"
    sleeping.write("dodo.py", SLEEPING.replace("time.sleep(0.05)", bad))
    result = on_dask(sleeping, usual, "-c")
    assert result.code == 1
    message = "failed: generate:p07.txt\n  generate:p07.txt: the worker process died by signal 9\n"
    assert message in result.out
    assert len(made(sleeping)) == MANY - 1


def test_a_step_that_takes_too_long_is_ended_there(sleeping: Project, usual: Cluster) -> None:
    text = SLEEPING.replace('.txt")', '.txt", timeout=3)')
    slow = "time.sleep(60 if name == 'p07' else 0.01)"
    sleeping.write("dodo.py", text.replace("time.sleep(0.05)", slow))
    result = on_dask(sleeping, usual, "-c")
    assert result.code == 1
    assert "generate:p07.txt: took longer than 3 s" in result.out
    assert len(made(sleeping)) == MANY - 1


def test_what_fails_is_told_as_here(sleeping: Project, usual: Cluster) -> None:
    sleeping.write(
        "templates/page.j2",
        "{{ work(pattern.stem) }}\n{% if bad is defined %}{{ nothing }}{% endif %}",
    )
    sleeping.write("patterns/p07.toml", "bad = true\n")
    there = on_dask(sleeping, usual)
    here = sleeping.doit()
    assert there.code == here.code == 1
    told = [result.out.partition("failed: ")[2].split("\n")[1:5] for result in (there, here)]
    assert told[0] == told[1]
    assert "'nothing' is undefined" in there.out


# What differs there ---------------------------------------------------------------------


TOOL = """
from codegen_tasks import Codegen, Toolchain

codegen = Codegen()
tool = Toolchain("tool", ["mytool", "{source}", "{target}"], suffix=".out",
                 version=["mytool", "--version"])
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt",
             compile=tool)
DOIT_CONFIG = codegen.doit_config
"""


@pytest.fixture
def compiled(empty_project: Project) -> Project:
    """Return a project with a compiler that only some machines have."""
    project = empty_project
    project.write("dodo.py", TOOL)
    project.write("templates/page.j2", "{{ pattern.stem }}\n")
    for number in range(12):
        project.write(f"patterns/p{number:02}.toml", "x = 1\n")
    project.environ["PATH"] = path_with(tool(project.path.parent / "here", 1))
    return project


def tool(folder: Path, version: int) -> Path:
    folder.mkdir()
    script = folder / "mytool"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\ncp "$1" "$2"\n')
    script.chmod(0o755)
    return folder


def path_with(folder: Path) -> str:
    return f"{folder}:/usr/bin:/bin"


def ran(result: Result, phase: str) -> set[str]:
    """Return who ran the steps of a phase; "pid" stands for processes of this machine."""
    found = re.findall(rf"^\.  {phase}:\S+  \((\w+)", result.out, re.MULTILINE)
    assert found
    return set(found)


def test_workers_without_the_compiler_do_the_rest(compiled: Project, tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("bare")
        alone = on_dask(compiled, there, "-v", "2")
        assert alone.code == 0
        assert ran(alone, "generate") == {"bare"}
        assert ran(alone, "compile") == {"pid"}
        lacks = "toolchain tool: 'mytool' is not installed"
        assert notes(alone) == [
            f"-P dask: worker bare gets no steps that need tool: {lacks}; they run here"
        ]
        there.start_worker("equipped", PATH=path_with(tool(tmp_path / "there", 1)))
        shutil.rmtree(compiled.path / "generated")
        both = on_dask(compiled, there, "-v", "2")
        assert both.code == 0
        assert ran(both, "compile") == {"equipped"}
        assert set(notes(both)) <= {
            f"-P dask: worker bare gets no steps that need tool: {lacks}",
        }


def test_a_worker_with_another_version_of_the_compiler_does_not_compile(
    compiled: Project, tmp_path: Path
) -> None:
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("other", PATH=path_with(tool(tmp_path / "there", 2)))
        result = on_dask(compiled, there, "-v", "2")
    assert result.code == 0
    assert (ran(result, "generate"), ran(result, "compile")) == ({"other"}, {"pid"})
    what = "tool 2 there is not that of here; they run here"
    assert notes(result) == [f"-P dask: worker other gets no steps that need tool: {what}"]


#: What a worker's Python runs when it starts, for it to be another than ours.
LYING = """
import importlib.metadata as metadata
really = metadata.version
metadata.version = lambda name: "2.0" if name == "jinja2" else really(name)
"""
LACKING = """
import sys
sys.modules["codegen_tasks"] = None
"""


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (LYING, "jinja2 is 2.0 there, 3"),
        (LACKING, "codegen-tasks cannot be imported there: "),
    ],
    ids=["another Jinja2", "without this package"],
)
def test_a_worker_that_cannot_make_the_same_makes_nothing(
    sleeping: Project, tmp_path: Path, start: str, why: str
) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start/sitecustomize.py").write_text(start)
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("strange", PYTHONPATH=str(tmp_path / "start"))
        alone = on_dask(sleeping, there, "-v", "2")
        right(sleeping, alone)
        assert ran(alone, "generate") == {"pid"}
        assert any(why in note and note.endswith("they run here") for note in notes(alone))
        there.start_worker("fine")
        shutil.rmtree(sleeping.path / "generated")
        both = on_dask(sleeping, there, "-v", "2")
        right(sleeping, both)
        assert ran(both, "generate") == {"fine"}


def test_what_dask_unpickles_is_the_same_for_every_python_and_any_scheduler() -> None:
    import cloudpickle

    from codegen_tasks.distributed.shim import as_source

    once = pickle.dumps(as_source(doubled))
    again = cloudpickle.dumps(pickle.loads(once))  # as a scheduler does
    for pickled in (once, again):
        named = {
            strings[-2:] if op.name == "STACK_GLOBAL" else argument
            for op, argument, strings in pickle_ops(pickled)
            if op.name in ("GLOBAL", "STACK_GLOBAL")
        }
        assert named == {("functools", "partial"), ("builtins", "eval")}
    assert pickle.loads(again)({"value": 21}) == {"doubled": 42}


def doubled(order: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": 2 * order["value"]}


def pickle_ops(pickled: bytes) -> Iterator[tuple[Any, Any, tuple[str, ...]]]:
    """Yield each opcode, its argument, and the texts that came before it."""
    strings: tuple[str, ...] = ()
    for op, argument, _ in pickletools.genops(pickled):
        yield op, argument, strings
        if "UNICODE" in op.name:
            strings = (*strings, argument)


def test_a_worker_that_cannot_write_gets_no_steps(sleeping: Project, tmp_path: Path) -> None:
    sleeping.write("templates/large.inc", "x" * 1_000_000)
    limit = (
        "import os, resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (500_000, 500_000)); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("full", before=(sys.executable, "-c", limit))
        alone = on_dask(sleeping, there, "-v", "2")
        right(sleeping, alone)
        assert ran(alone, "generate") == {"pid"}
        what = "worker full gets no steps: file too large there; they run here"
        assert notes(alone) == [f"-P dask: {what}"]
        there.start_worker("fine")
        shutil.rmtree(sleeping.path / "generated")
        both = on_dask(sleeping, there, "-v", "2")
        right(sleeping, both)
        assert ran(both, "generate") == {"fine"}


def test_what_depends_on_the_machine_is_made_here(sleeping: Project, usual: Cluster) -> None:
    sleeping.write(
        "dodo.py",
        SLEEPING.replace("Codegen()", "Codegen(globals={'root': os.getcwd()})").replace(
            "@codegen.function",
            'codegen.rule("own", template="own.j2", patterns="patterns/p0*.toml", '
            'target="{stem}.own")\n'
            'codegen.rule("named", template="named.j2", patterns="patterns/p0*.toml", '
            'target="{stem}.named")\n\n\n'
            "@codegen.function\ndef where():\n    return os.getcwd()\n\n\n@codegen.function",
        ),
    )
    sleeping.write("templates/own.j2", "{{ root|length > 0 }}\n")
    sleeping.write("templates/named.j2", "{{ where() }}\n")
    result = on_dask(sleeping, usual, "-v", "2")
    assert result.code == 0
    assert sleeping.read("generated/p07.named") == f"{sleeping.path}\n"
    assert len(notes(result)) == 2
    assert "what it makes names the folder in which it was made" in "".join(notes(result))
    assert re.search(r"rule own: global root is not on \w+ what it is here", result.out)
    assert {"pid", "first"} <= ran(result, "generate")


def test_a_network_that_is_cut_is_a_silent_worker(
    sleeping: Project, tmp_path: Path, cut_network: Network
) -> None:
    there = Cluster(tmp_path / "cluster")
    there.address = f"tcp://{cut_network.here}:{there.port}"
    try:
        there.start_scheduler(host=cut_network.here)
        inside = ("ip", "netns", "exec", cut_network.name)
        there.start_worker("near", host=cut_network.here)
        there.start_worker("far", host=cut_network.there, before=inside)
        running = started(sleeping, there)
        cut_network.cut()
        let_go(sleeping)
        result = running.ended()
    finally:
        there.end()
    right(sleeping, result)
    # Silent it is in any case, be it at work or with an answer that nobody can fetch.
    assert notes(result)
    assert all(note.endswith("sent again") for note in notes(result))


class Network:
    """A name space with a link to this one."""

    name = "codegen-tasks-test"
    here, there = "198.51.100.1", "198.51.100.2"

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def make(self) -> None:
        """Make it.  Raises CalledProcessError, OSError: this machine does not allow it."""
        self._ip("netns", "add", self.name)
        self._ip("link", "add", "cgt0", "type", "veth", "peer", "cgt1", "netns", self.name)
        self._ip("addr", "add", f"{self.here}/24", "dev", "cgt0")
        self._ip("link", "set", "cgt0", "up")
        inside = ("-n", self.name)
        self._ip(*inside, "addr", "add", f"{self.there}/24", "dev", "cgt1")
        self._ip(*inside, "link", "set", "cgt1", "up")
        self._ip(*inside, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Pull the cable."""
        self._ip("link", "set", "cgt0", "down")

    def remove(self) -> None:
        """Remove it."""
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", "cgt0"], check=False, capture_output=True)


@pytest.fixture
def cut_network() -> Iterator[Network]:
    """Return a network whose cable can be pulled."""
    network = Network()
    try:
        network.make()
    except (OSError, subprocess.CalledProcessError) as error:
        network.remove()
        pytest.skip(f"no network namespaces here: {error}")
    yield network
    network.remove()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_of_this_machine_end_with_the_run(sleeping: Project, number: int) -> None:
    sleeping.write("dodo.py", SLEEPING.replace("sleep(0.05)", "sleep(300 if name > 'p01' else 0)"))
    command = [sys.executable, "-m", "doit", "-P", "dask", "-n", "2"]
    process = subprocess.Popen(
        command, cwd=sleeping.path, env=sleeping.environ, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not made(sleeping):
        assert time.monotonic() < end
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("codegen_tasks.distributed.child" in member.cmdline() for member in family)
    process.send_signal(number)
    process.wait(60)
    _, left = psutil.wait_procs(family, timeout=60)
    assert [member.cmdline() for member in left if member.status() != "zombie"] == []


def test_a_process_of_a_worker_that_is_gone_ends_without_a_word(sleeping: Project) -> None:
    from codegen_tasks.distributed.child import send
    from codegen_tasks.distributed.messages import Load
    from codegen_tasks.settings import Settings

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "codegen_tasks.distributed.child"],
        cwd=sleeping.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    send(process.stdin, (Load("dodo.py", Settings()), None))
    assert process.communicate(timeout=60)[1] == b""
