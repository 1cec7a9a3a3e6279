"""Everything that plain doit offers keeps working beside a Codegen."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil

import pytest
from conftest import Project, Result

HEADER = """
import os
import signal
import sys

from doit import create_after
from doit.tools import result_dep

from codegen_tasks import Codegen, Toolchain

codegen = Codegen()
codegen.rule(
    "page", template="page.txt.j2", patterns="patterns/*.toml", target="{stem}.txt",
    compile=Toolchain("copy", command=["cp", "{source}", "{target}"], suffix=".out"),
)
DOIT_CONFIG = {**codegen.doit_config, "verbosity": 2}
PARENT = os.getpid()
"""

EVERYTHING = [
    "templates:page.txt.j2",
    *(f"generate:{stem}.txt" for stem in ("ash", "birch", "cedar")),
    *(f"compile:{stem}.out" for stem in ("ash", "birch", "cedar")),
]
ASH = ["compile:ash.out", "generate:ash.txt", "templates:page.txt.j2"]

#: One process, and two workers: each behaviour must hold with both.
both_ways = pytest.mark.parametrize("workers", ["0", "2"])


@pytest.fixture
def library(empty_project: Project) -> Project:
    """Write a project with three patterns, each rendered and then copied by a toolchain."""
    project = empty_project
    project.write("dodo.py", HEADER)
    project.write("templates/page.txt.j2", "{{ name }} {{ gain }}\n")
    for stem in ("ash", "birch", "cedar"):
        project.write(f"patterns/{stem}.toml", f'name = "{stem}"\ngain = 1\n')
    return project


def declare(project: Project, tasks: str, header: str = HEADER) -> None:
    """Write a `dodo.py` with tasks of the user's own."""
    project.write("templates/page.txt.j2", "{{ name }} {{ gain }}\n")
    project.write("dodo.py", header)
    with (project.path / "dodo.py").open("a", encoding="utf-8") as file:
        file.write(tasks)


def ran(result: Result) -> list[str]:
    """Return the tasks that ran, sorted."""
    return sorted(re.findall(r"^\.  (\S+)", result.out, re.MULTILINE))


def ok(result: Result) -> Result:
    """Expect exit code 0 and nothing on stderr."""
    assert (result.code, result.err) == (0, ""), result
    return result


# Dependencies on ours -------------------------------------------------------------------


@both_ways
def test_file_dep_on_a_generated_file(library: Project, workers: str) -> None:
    """A task that reads a generated file runs after it was generated, and when it changed."""
    declare(
        library,
        """
def task_reads():
    return {"actions": ["cat generated/ash.txt"], "file_dep": ["generated/ash.txt"]}
""",
    )
    assert "ash 1" in ok(library.doit("-n", workers, "reads")).out
    assert "-- reads" in ok(library.doit("-n", workers, "reads")).out
    library.write("patterns/birch.toml", 'name = "birch"\ngain = 2\n')
    assert "-- reads" in ok(library.doit("-n", workers)).out
    library.write("patterns/ash.toml", 'name = "ash"\ngain = 2\n')
    assert "ash 2" in ok(library.doit("-n", workers, "reads")).out


@both_ways
@pytest.mark.parametrize(
    ("dependency", "seen"),
    [
        ("generate", "ash.txt birch.txt cedar.txt"),
        ("generate:ash.txt", "ash.txt"),
        ("generate:*h.txt", "ash.txt birch.txt"),
        ("compile", "ash.out ash.txt birch.out birch.txt cedar.out cedar.txt"),
    ],
)
def test_task_dep_on_ours(library: Project, workers: str, dependency: str, seen: str) -> None:
    """A task that depends on a phase, a wildcard or one step finds what it made, and no more."""
    declare(
        library,
        f"""
def task_after():
    return {{"actions": ["echo saw $(ls generated)"], "task_dep": ["{dependency}"]}}
""",
    )
    assert f"saw {seen}\n" in ok(library.doit("-n", workers, "after")).out


@both_ways
def test_getargs_from_ours_and_from_theirs(library: Project, workers: str) -> None:
    """Values of a step, of a whole phase and of the user's own tasks reach an action."""
    declare(
        library,
        """
def show(**values):
    print({key: sorted(value) for key, value in values.items()})

def task_one():
    return {"actions": [show], "getargs": {"one": ("generate:ash.txt", "trace")}}

def task_group():
    return {"actions": [show], "getargs": {"group": ("generate", "trace")}}

def task_makes():
    return {"actions": [lambda: {"value": "xyz"}]}

def task_takes():
    return {"actions": [show], "getargs": {"theirs": ("makes", "value")}}
""",
    )
    out = ok(library.doit("-n", workers, "one", "group", "takes")).out
    assert "'outputs'" in out
    assert "{'group': ['ash.txt', 'birch.txt', 'cedar.txt']}" in out
    assert "{'theirs': ['x', 'y', 'z']}" in out


@both_ways
def test_result_dep_follows_the_bytes(library: Project, workers: str) -> None:
    """A `result_dep` on a step runs when its bytes changed; on a phase, when any of them did."""
    declare(
        library,
        """
def task_one():
    return {"actions": ["true"], "uptodate": [result_dep("generate:ash.txt")]}

def task_all():
    return {"actions": ["true"], "uptodate": [result_dep("generate")]}
""",
    )

    def build() -> list[str]:
        done = ok(library.doit("-n", workers, "one", "all"))
        return [name for name in ran(done) if ":" not in name]

    assert build() == ["all", "one"]
    assert build() == []
    library.write("patterns/ash.toml", '# a comment\nname = "ash"\ngain = 1\n')
    library.write("templates/page.txt.j2", "{# as well #}{{ name }} {{ gain }}\n")
    assert build() == []
    library.write("patterns/birch.toml", 'name = "birch"\ngain = 2\n')
    assert build() == ["all"]
    library.write("patterns/ash.toml", 'name = "ash"\ngain = 2\n')
    assert build() == ["all", "one"]


@both_ways
def test_calc_dep_setup_and_delayed_tasks(library: Project, workers: str) -> None:
    """Calculated dependencies, setup, teardown and tasks made after `generate` see our files."""
    declare(
        library,
        """
def task_finds():
    return {"actions": [lambda: {"file_dep": ["generated/birch.txt"]}]}

def task_calculated():
    return {"actions": ["cat %(dependencies)s"], "calc_dep": ["finds"]}

def task_prepare():
    return {"actions": ["echo prepared"], "teardown": ["echo torn down"]}

def task_body():
    return {"actions": ["cat generated/ash.txt"], "setup": ["prepare", "generate:ash.txt"]}

@create_after(executed="generate")
def task_later():
    for name in sorted(os.listdir("generated")):
        if name.endswith(".txt"):
            yield {"name": name, "actions": [f"echo late {name}"]}
""",
    )
    out = ok(library.doit("-n", workers, "body", "calculated", "later")).out
    assert "birch 1" in out
    assert out.index("prepared") < out.index("ash 1") < out.index("torn down")
    assert [f"late {stem}.txt" in out for stem in ("ash", "birch", "cedar")] == [True] * 3
    assert "3 generated in" in out


# The user's tasks under our runner ------------------------------------------------------


def test_closures_run_in_workers(library: Project) -> None:
    """Actions that are closures run in worker processes, several at once."""
    declare(
        library,
        """
def make(number):
    def action():
        with open(f"closure-{number}", "w") as file:
            print(os.getpid() != PARENT, file=file)
    return action

def task_closures():
    for number in range(3):
        yield {"name": str(number), "actions": [make(number)]}

@create_after(executed="generate")
def task_late():
    yield {"name": "x", "actions": [make("late")]}
""",
    )
    ok(library.doit("-n", "2", "closures", "late"))
    assert [library.read(f"closure-{number}") for number in range(3)] == ["True\n"] * 3
    # It was made after the workers, which cannot know it; doit sends it to them if it can.
    sent = importlib.util.find_spec("cloudpickle") is not None
    assert library.read("closure-late") == f"{sent}\n"


@both_ways
def test_parameters_and_positional_arguments(library: Project, workers: str) -> None:
    """Options and positional arguments of a task reach it, beside targets of ours."""
    declare(
        library,
        """
def task_say():
    return {"actions": [lambda who, rest: print("said", who, rest)], "pos_arg": "rest",
            "params": [{"name": "who", "short": "w", "default": "nobody"}]}
""",
    )
    out = ok(library.doit("-n", workers, "generated/ash.txt", "say", "-w", "me", "a", "b")).out
    assert "said me ['a', 'b']" in out
    assert "1 generated" in out


@both_ways
def test_verbosity_and_capture(library: Project, workers: str) -> None:
    """Output is shown by the task's verbosity, or the one on the command line."""
    declare(
        library,
        """
def task_quiet():
    return {"actions": ["echo heard; echo warned >&2"], "verbosity": 0}

def task_loud():
    return {"actions": ["echo free; false"], "io": {"capture": False}}

def task_prepare():
    return {"actions": None, "teardown": ["echo teardown-warning >&2"]}

def task_prepared():
    return {"actions": ["true"], "setup": ["prepare"], "verbosity": 1}
""",
    )
    quiet = library.doit("-n", workers, "quiet")
    assert ("heard" in quiet.out, "warned" in quiet.err) == (False, False)
    assert "heard" in library.doit("-n", workers, "-v", "2", "quiet").out
    assert "free" in library.doit("-n", workers, "loud").out
    failing = library.doit("-n", workers, "-v", "0", "--failure-verbosity", "2", "loud")
    assert failing.code == 1
    assert "teardown-warning" in library.doit("-n", workers, "prepared").err


FAILING = """
def task_fails():
    return {"actions": ["echo because >&2; exit 3"]}

def task_after():
    return {"actions": ["echo not-reached"], "task_dep": ["fails"]}

def task_raises():
    def action():
        raise ValueError("never mind")
    return {"actions": [action]}
"""


@both_ways
def test_a_failing_task_ends_the_run(library: Project, workers: str) -> None:
    """Without -c nothing new begins after a failure, and the exit code is doit's."""
    declare(library, FAILING)
    failed = library.doit("-n", workers, "fails", "after", "compile")
    assert failed.code == 1
    assert "Command failed: 'echo because >&2; exit 3' returned 3" in failed.out + failed.err
    assert "not-reached" not in failed.out
    assert not library.exists("generated/ash.out")
    raised = library.doit("-n", workers, "raises")
    assert raised.code == 2
    assert "ValueError: never mind" in raised.out


@both_ways
def test_with_continue_the_rest_is_finished(library: Project, workers: str) -> None:
    """With -c everything that does not depend on the failure is built."""
    declare(library, FAILING)
    failed = library.doit("-n", workers, "-c", "fails", "after", "raises", "compile")
    assert failed.code == 2
    assert "not-reached" not in failed.out
    assert "3 generated, 3 compiled" in failed.out


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "the worker process died by signal 9"),
        ("os._exit(4)", "the worker process died with exit code 4"),
        ("sys.exit(4)", "the task ended its process, exit code 4"),
    ],
)
def test_a_task_that_ends_its_worker_fails_alone(
    library: Project, ending: str, message: str
) -> None:
    """Nothing hangs: the task fails by name, the rest is built, what was set up is torn down."""
    declare(
        library,
        f"""
def task_prepare():
    return {{"actions": ["true"], "teardown": ["echo torn down"]}}

def task_ends():
    return {{"actions": [lambda: {ending}], "setup": ["prepare"]}}
""",
    )
    failed = library.doit("-n", "2", "-c", "ends", "compile")
    assert failed.code == 2
    assert "TaskError - taskid:ends" in failed.out
    assert message in failed.out
    assert "3 generated, 3 compiled" in failed.out
    assert failed.out.count("torn down") == 1


@both_ways
def test_values_that_cannot_be_kept_fail_their_task_alone(library: Project, workers: str) -> None:
    """A task that returns what the database cannot hold fails; what else was built is kept."""
    declare(
        library,
        """
def task_strange():
    return {"actions": [lambda: {"value": {1, 2}}]}

def task_stranger():
    return {"actions": [lambda: {"value": lambda: 1}]}
""",
    )
    failed = library.doit("-n", workers, "-c", "strange", "stranger", "generate")
    assert failed.code == 2
    assert "what the task returned cannot be stored: Object of type set" in failed.out
    assert "TaskError - taskid:stranger" in failed.out
    assert "3 up to date in" in ok(library.doit("generate")).out


def test_summary_is_not_printed_for_the_users_tasks_alone(library: Project) -> None:
    """A run that touches none of ours ends as doit ends it."""
    declare(library, 'def task_say():\n    return {"actions": ["echo hello"]}\n')
    assert ok(library.doit("say")).out == ".  say\nhello\n"


# Selection and options ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ([], [*EVERYTHING]),
        (["generate:ash.txt"], ASH[1:]),
        (["generated/ash.txt"], ASH[1:]),
        (["generated/ash.out"], ASH),
        (["compile:ash*"], ASH),
        (["generate:*h.txt"], ["generate:ash.txt", "generate:birch.txt", ASH[2]]),
        (["generated/ash.txt", "generate:birch.txt"], ["generate:birch.txt", *ASH[1:]]),
        (["-s", "generate:ash.txt"], ["generate:ash.txt"]),
        (["output"], [*EVERYTHING]),
    ],
)
def test_selection(library: Project, selection: list[str], expected: list[str]) -> None:
    """Tasks are selected by name, wildcard and target path, and bring what they need."""
    done = ok(library.doit("-n", "2", *selection))
    assert [name for name in ran(done) if name != "output"] == sorted(expected)
    assert ran(ok(library.doit(*selection))) == []


def test_an_unknown_name_is_refused(library: Project) -> None:
    """A name that is neither task nor target gets doit's message and exit code 3."""
    refused = library.doit("generated/oak.txt")
    assert refused.code == 3
    assert refused.err.startswith('ERROR: Invalid parameter: "generated/oak.txt".')
    assert not library.exists(".codegen")


@both_ways
def test_always_runs_all_again(library: Project, workers: str) -> None:
    """With -a every step runs, and what comes out the same is not written."""
    ok(library.doit())
    before = library.stamps("generated")
    always = ok(library.doit("-n", workers, "-a", "generate", "compile"))
    assert ran(always) == sorted(EVERYTHING)
    assert "3 generated, 3 compiled, 6 of them unchanged in" in always.out
    assert library.stamps("generated") == before


def test_single_ignores_what_a_step_is_made_from(library: Project) -> None:
    """With -s only the named step runs, though its source is stale."""
    ok(library.doit())
    library.write("patterns/ash.toml", 'name = "ash"\ngain = 2\n')
    library.remove("generated/ash.out")
    assert ran(ok(library.doit("-s", "compile:ash.out"))) == ["compile:ash.out"]
    assert library.read("generated/ash.out") == "ash 1\n"


# The other commands ---------------------------------------------------------------------


def test_clean(library: Project) -> None:
    """`clean -n` only tells; `clean TASK` removes that task's files; `clean` removes all."""
    ok(library.doit())
    before = library.files()
    assert "removing file 'generated/ash.txt'" in ok(library.doit("clean", "-n")).out
    assert library.files() == before
    ok(library.doit("clean", "compile:ash.out"))
    assert set(before) - set(library.files()) == {"generated/ash.out"}
    ok(library.doit("clean", "generate"))
    assert set(library.files("templates", "patterns", ".codegen", "dodo.py")) == {
        "generated/birch.out",
        "generated/cedar.out",
    }
    assert "3 generated, 1 compiled" in ok(library.doit()).out
    ok(library.doit("clean"))
    assert library.files("templates", "patterns", ".codegen", "dodo.py") == {}


def test_forget_makes_a_step_stale(library: Project) -> None:
    """A forgotten step runs again; nothing that hangs on it does, for its bytes are the same."""
    ok(library.doit())
    ok(library.doit("forget", "generate:ash.txt"))
    again = ok(library.doit("generate", "compile"))
    assert ran(again) == ["generate:ash.txt"]
    ok(library.doit("forget", "--all"))
    assert ran(ok(library.doit("generate", "compile"))) == sorted(EVERYTHING)


@both_ways
def test_ignore_until_it_is_forgotten(library: Project, workers: str) -> None:
    """An ignored step is left alone with what hangs on it, until the ignoring is forgotten."""
    ok(library.doit())
    ok(library.doit("ignore", "generate:ash.txt"))
    library.write("patterns/ash.toml", 'name = "ash"\ngain = 2\n')
    ignoring = ok(library.doit("-n", workers))
    assert "!! generate:ash.txt" in ignoring.out
    assert library.read("generated/ash.out") == "ash 1\n"
    ok(library.doit("forget", "generate:ash.txt"))
    ok(library.doit("-n", workers))
    assert library.read("generated/ash.out") == "ash 2\n"


def test_list(library: Project) -> None:
    """The phases are listed, with --all the steps, with --deps their inputs."""
    declare(library, 'def task_mine():\n    return {"actions": ["true"]}\n')
    names = ok(library.doit("list", "-q")).out.split()
    assert names == ["compile", "generate", "mine", "output", "templates"]
    assert set(EVERYTHING) < set(ok(library.doit("list", "--all", "-q")).out.split())
    deps = ok(library.doit("list", "--deps", "generate:ash.txt")).out
    assert " -  patterns/ash.toml\n" in deps
    assert " -  templates/page.txt.j2\n" in deps
    assert not library.exists(".codegen")


def test_list_knows_what_is_up_to_date(library: Project) -> None:
    """`list -s` says U of every step after a build, and R of what an edit makes stale."""

    def status() -> dict[str, str]:
        lines = ok(library.doit("list", "--all", "-s", "-q")).out.splitlines()
        found = dict(reversed(line.split()) for line in lines)
        return {name: found[name] for name in [*EVERYTHING, "output"]}

    assert set(status().values()) == {"R"}
    ok(library.doit("-n", "2"))
    assert set(status().values()) == {"U"}
    library.write("patterns/ash.toml", 'name = "ash"\ngain = 2\n')
    assert [name for name, letter in status().items() if letter != "U"] == ["generate:ash.txt"]


def test_info_about_a_task_of_the_users(library: Project) -> None:
    """`info TASK` on a task that is not ours is doit's own."""
    declare(
        library,
        """
def task_reads():
    "read a page"
    return {"actions": ["true"], "file_dep": ["generated/ash.txt"]}
""",
    )
    ok(library.doit("compile"))
    told = library.doit("info", "reads")
    assert told.code == 1
    assert told.out == (
        "\nreads\n\nread a page\n\nstatus     : run\n"
        " * The following file dependencies have changed:\n    - generated/ash.txt\n"
        "\nfile_dep   : \n - generated/ash.txt\n"
    )
    ok(library.doit("reads"))
    assert library.doit("info", "reads").code == 0


@pytest.mark.parametrize("command", ["dumpdb", "reset-dep", "tabcompletion", "help", "info nope"])
def test_no_command_shows_a_traceback_of_ours(library: Project, command: str) -> None:
    """Whatever core makes of its other commands, we do not break in them."""
    ok(library.doit())
    assert "codegen_tasks" not in library.doit(*command.split()).err
    assert "6 up to date in" in ok(library.doit()).out


def test_reset_dep_does_not_hide_a_change(library: Project) -> None:
    """`reset-dep` takes user's files as they are; a stale target of ours stays stale."""
    ok(library.doit())
    library.write("patterns/ash.toml", 'name = "ash"\ngain = 2\n')
    ok(library.doit("reset-dep"))
    ok(library.doit())
    assert library.read("generated/ash.out") == "ash 2\n"


# Reporters and streams ------------------------------------------------------------------


@both_ways
def test_json_reporter(library: Project, workers: str) -> None:
    """`-r json` lists every task with its result."""
    told = json.loads(ok(library.doit("-n", workers, "-r", "json", "generate", "compile")).out)
    results = {task["name"]: task["result"] for task in told["tasks"]}
    assert {name: results[name] for name in EVERYTHING} == dict.fromkeys(EVERYTHING, "success")
    told = json.loads(ok(library.doit("-n", workers, "-r", "json", "generate", "compile")).out)
    results = {task["name"]: task["result"] for task in told["tasks"]}
    assert {results[name] for name in EVERYTHING} == {"up-to-date"}


@pytest.mark.parametrize("reporter", ["zero", "executed-only", "error-only", "console"])
def test_reporters_of_doit(library: Project, reporter: str) -> None:
    """Each of doit's reporters shows our steps as it shows any task, failures included."""
    done = ok(library.doit("-r", reporter, "generate", "compile"))
    assert ran(done) == (sorted(EVERYTHING) if reporter in ("executed-only", "console") else [])
    library.write("patterns/ash.toml", "name = \n")
    failed = library.doit("-n", "2", "-r", reporter, "generate")
    assert failed.code == 1
    assert "Traceback" not in failed.out + failed.err
    assert ("patterns/ash.toml:1: " in failed.out + failed.err) == (reporter != "zero")


def test_output_file(library: Project) -> None:
    """`-o FILE` holds what the reporter would have printed."""
    done = ok(library.doit("-o", "out.log", "compile"))
    assert done.out == ""
    assert "3 generated, 3 compiled in" in library.read("out.log")


# Databases ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["dbm", "json", "sqlite3"])
def test_another_backend_builds_the_same(library: Project, backend: str) -> None:
    """Another database gives the same files and a null second run; one line says what is lost."""
    ok(library.doit())
    wanted = {k: v for k, v in library.files().items() if k.startswith("generated")}
    ok(library.doit("clean"))
    other = ["--backend", backend, "--db-file", "other.db"]
    first = library.doit(*other, "-n", "2")
    assert (first.code, first.err) == (
        0,
        "dodo.py: DOIT_CONFIG is not codegen.doit_config, so what a killed run had finished"
        " is done again\n",
    )
    assert {k: v for k, v in library.files().items() if k.startswith("generated")} == wanted
    assert ran(library.doit(*other)) == []
    assert library.doit("info", *other).out == "6 targets up to date\n"


def test_without_our_config(library: Project) -> None:
    """A `dodo.py` without DOIT_CONFIG builds as correctly, reported as doit reports."""
    library.write("dodo.py", HEADER.replace("DOIT_CONFIG", "UNUSED"))
    first = library.doit()
    assert first.code == 0
    assert first.err.count("\n") == 1
    assert ran(first) == sorted([*EVERYTHING, "output"])
    assert ran(library.doit()) == []


# Configuration --------------------------------------------------------------------------


def test_default_tasks(library: Project) -> None:
    """`default_tasks` in an extended `doit_config` decides what `doit` alone builds."""
    declare(library, 'DOIT_CONFIG["default_tasks"] = ["generate:ash.txt"]\n')
    assert ran(ok(library.doit())) == ASH[1:]


def test_doit_cfg(library: Project) -> None:
    """Options in doit.cfg hold for our runner as well."""
    library.write("doit.cfg", "[run]\nnum_process = 2\nverbosity = 2\n")
    library.write("dodo.py", HEADER.replace(', "verbosity": 2', ""))
    done = ok(library.doit())
    assert len(set(re.findall(r"generate:\S+  \(pid (\d+),", done.out))) >= 1
    assert "3 generated, 3 compiled" in done.out


def test_another_dodo_file(library: Project) -> None:
    """`-f` takes the folder of its dodo.py for the project; `-d` takes another for it."""
    outside = library.path / "elsewhere"
    outside.mkdir()
    shutil.move(library.path / "dodo.py", outside / "rules.py")
    ok(library.doit("-f", "elsewhere/rules.py", "-d", "."))
    assert library.exists("generated/ash.out")
    for folder in ("templates", "patterns"):
        shutil.copytree(library.path / folder, outside / folder)
    ok(library.doit("-f", "elsewhere/rules.py", "-n", "2"))
    assert library.exists("elsewhere/generated/ash.out")
    assert library.doit("info", "-f", "elsewhere/rules.py").code == 0


def test_from_a_folder_below(library: Project) -> None:
    """`-k` finds the project above, and builds there."""
    below = Project(library.path / "patterns", library.path)
    below.environ = library.environ
    ok(below.doit("-k", "compile"))
    assert library.exists("generated/ash.out")
    assert below.doit("info", "-k").out == "6 targets up to date\n"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_strace(library: Project) -> None:
    """`strace` shows what a task of the user's reads, and runs a step of ours."""
    declare(
        library,
        """
def task_reads():
    return {"actions": ["cat generated/ash.txt"], "file_dep": ["generated/ash.txt"]}
""",
    )
    traced = library.doit("strace", "reads")
    assert f"R {os.path.realpath(library.path)}/generated/ash.txt" in traced.out
    assert library.doit("strace", "generate:birch.txt").code == 0
    assert library.exists("generated/birch.txt")


def test_two_declarations_in_one_file(library: Project) -> None:
    """Two Codegen objects with different names keep apart, and a task may read from both."""
    declare(
        library,
        """
other = Codegen(name="other", output="other", state=".other")
other.rule("page", template="page.txt.j2", patterns="patterns/a*.toml", target="{stem}.txt")

def task_both():
    return {"actions": ["cat generated/ash.txt other/ash.txt"],
            "file_dep": ["generated/ash.txt", "other/ash.txt"]}
""",
    )
    assert "4 generated, 3 compiled" in ok(library.doit("-n", "2")).out
    again = ok(library.doit())
    assert ran(again) == []
    assert "7 up to date" in again.out
    library.write("patterns/ash.toml", 'name = "ash"\ngain = 2\n')
    assert "ash 2\nash 2\n" in ok(library.doit("both")).out
    ok(library.doit("clean", "other.generate"))
    assert library.exists("generated/ash.txt")
    assert not library.exists("other/ash.txt")


# Processes and threads ------------------------------------------------------------------

SHOUT = """
@codegen.filter
def shout(text):
    return text.upper()

def act():
    with open("acted", "w") as file:
        print(os.getpid() != PARENT_PROCESS, file=file)

def task_act():
    return {"actions": [act]}

def task_closure():
    return {"actions": [lambda: open("closed", "w").close()]}
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_start_methods(library: Project, method: str) -> None:
    """`-n 2` works however Python starts processes: here for our steps and the user's tasks."""
    header = HEADER.replace(
        "PARENT = os.getpid()",
        f"""
import multiprocessing
if multiprocessing.get_start_method(allow_none=True) is None:
    multiprocessing.set_start_method("{method}")
PARENT_PROCESS = os.environ.setdefault("PARENT_PROCESS", str(os.getpid())) and int(
    os.environ["PARENT_PROCESS"])
""",
    )
    declare(library, SHOUT, header)
    library.write("templates/page.txt.j2", "{{ name|shout }} {{ gain }}\n")
    out = ok(library.doit("-n", "2")).out
    assert "3 generated, 3 compiled in" in out
    assert library.read("acted") == "True\n"
    assert library.exists("closed")
    assert library.read("generated/ash.out") == "ASH 1\n"
    assert ran(ok(library.doit("-n", "2", "generate", "compile", "output"))) == []


def test_what_no_worker_can_be_told_of_runs_here(library: Project) -> None:
    """A filter that cannot be pickled keeps workers from being spawned; one line says so."""
    header = HEADER.replace(
        "PARENT = os.getpid()",
        'import multiprocessing\nmultiprocessing.set_start_method("spawn", force=True)',
    )
    declare(library, 'codegen.filter("shout")(lambda text: text.upper())\n', header)
    library.write("templates/page.txt.j2", "{{ name|shout }} {{ gain }}\n")
    done = library.doit("-n", "2")
    assert done.code == 0
    assert done.err.startswith("all runs in one process, for what the spawn of a worker needs")
    assert done.err.count("\n") == 1
    assert library.read("generated/ash.out") == "ASH 1\n"


def test_threads(library: Project) -> None:
    """`-P thread -n 2` builds the same under doit's own thread runner."""
    declare(library, 'def task_say():\n    return {"actions": ["echo hello"]}\n')
    done = ok(library.doit("-P", "thread", "-n", "2"))
    assert "hello" in done.out
    assert "3 generated, 3 compiled in" in done.out
    assert library.read("generated/cedar.out") == "cedar 1\n"
    assert ran(ok(library.doit("-P", "thread", "-n", "2", "generate", "compile", "output"))) == []
    assert ran(ok(library.doit("generate", "compile", "output"))) == []


def test_an_unknown_kind_of_parallelism_is_refused(library: Project) -> None:
    """Without -n too, unlike core: a build that was to be on Dask is not to run here unsaid."""
    refused = library.doit("-n", "2", "-P", "fibres")
    said = "ERROR: -P: unknown kind of workers 'fibres'\n  hint: known: dask, process, thread\n"
    assert (refused.code, refused.err) == (3, said)
    misspelt = library.doit("-P", "dsk")
    said = "ERROR: -P: unknown kind of workers 'dsk'\n  hint: did you mean 'dask'?\n"
    assert (misspelt.code, misspelt.err) == (3, said)


def test_a_target_may_be_named_by_its_path_below_the_output_folder(project: Project) -> None:
    assert project.doit("ash.txt").code == 0
    assert os.listdir(project.path / "generated") == ["ash.txt"]
    assert project.doit("./generated/ash.txt").out.startswith("1 up to date")
    assert project.doit().code == 0
    assert project.doit("ash.txt").out.startswith("1 up to date")
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 5\n')
    project.write("patterns/birch.toml", 'name = "birch"\ngain = 5\n')
    found = project.codegen("diff", "ash.txt")
    assert found.out.startswith("--- a/generated/ash.txt\n")
    assert found.out.count("\n--- ") == 0
    assert ".  generate:ash.txt\n1 generated" in project.doit("ash.txt").out


def test_what_a_task_takes_as_its_arguments_is_left_alone(project: Project) -> None:
    task = "\ndef task_say():\n    return {'actions': [(print,)], 'pos_arg': 'x',"
    task = task.replace("(print,)", "show") + " 'verbosity': 2}\n"
    show = "\ndef show(x):\n    print('given', x)\n"
    project.write("dodo.py", project.read("dodo.py") + show + task)
    assert "given ['ash.txt']\n" in project.doit("say", "ash.txt").out


def test_an_unknown_name_gets_the_nearest_task_or_target_as_a_hint(project: Project) -> None:
    said = 'ERROR: Invalid parameter: "generat". Must be a command, task, or a target.\n'
    for _ in range(2):  # before the first build, and where there is nothing to do
        result = project.doit("generat")
        assert (result.code, result.err) == (3, said + "  hint: did you mean 'generate'?\n")
        result = project.doit("asch.txt")
        assert result.code == 3
        assert result.err.endswith("  hint: did you mean 'ash.txt'?\n")
        assert project.doit().code == 0
    result = project.codegen("diff", "generate:asch.txt")
    assert result.code == 3
    assert result.err.endswith("  hint: did you mean 'generate:ash.txt'?\n")
    assert 'list" to see available tasks' in project.doit("nothing at all").err  # none is near


def test_what_a_failed_task_of_the_users_printed_is_told_if_it_is_anything(
    project: Project,
) -> None:
    task = "\ndef task_{0}():\n    return {{'actions': ['{1}false'], 'verbosity': {2}}}\n"
    tasks = task.format("quiet", "", 1) + task.format("loud", "echo said; ", 0)
    tasks += "\ndef task_last():\n    return {'actions': None, 'task_dep': ['quiet', 'loud']}\n"
    project.write("dodo.py", project.read("dodo.py") + tasks)
    said = project.doit("-c", "last").out
    assert "quiet <std" not in said
    assert "loud <stdout>:\nsaid\n" in said
    assert "<stderr>" not in said
    assert "not run: last, for quiet, loud failed or was not run\n" in said
