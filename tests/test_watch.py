"""`doit watch`: builds again what a change concerns, whatever is edited and however."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Project, Result
from ports import free_port
from proxies import Proxy

from codegen_tasks.snapshot import ABSENT
from codegen_tasks.watch import Changes, Home, Known, Need, Told, around, sign_of

#: They wait for what takes time.
pytestmark = pytest.mark.slow

_LONGEST = 120  # seconds
_STATUS = re.compile(r"watching ([\d,]+) files?: (.*) at \d\d:\d\d:\d\d")
#: As `python -m codegen_tasks`, for editors that take long to save: on a busy machine any may.
_PATIENT = """
import sys, codegen_tasks.watch
codegen_tasks.watch.GRACE = 30
from codegen_tasks.__main__ import main
sys.exit(main())
"""


class Watch:
    """A running watch of a project; a `patient` one waits long for a file to be written."""

    def __init__(self, project: Project, *arguments: str, patient: bool = False, **environ: str):
        started = ("-c", _PATIENT) if patient else ("-m", "codegen_tasks")
        self.project = project
        self._log = project.path.parent / f"watch-{os.urandom(4).hex()}.log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *started, "watch", *arguments],
                cwd=project.path,
                env={**project.environ, "TMPDIR": str(project.path.parent), **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def out(self) -> str:
        """All that it has printed."""
        return self._log.read_text("utf-8")

    @property
    def builds(self) -> list[str]:
        """What its status lines say of builds."""
        return [words for _, words in _STATUS.findall(self.out)]

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something holds."""
        end = time.monotonic() + _LONGEST
        while not reached():
            assert time.monotonic() < end, self.out
            assert self.process.poll() is None, self.out
            time.sleep(0.01)

    def until_built(self, count: int = 1) -> None:
        """Wait for a number of status lines."""
        self.until(lambda: len(self.builds) >= count)

    def until_reads(self, name: str, text: str) -> None:
        """Wait until a file of the project holds a text."""
        self.until(lambda: self.project.exists(name) and text in self.project.read(name))

    def rest(self) -> None:
        """Give it time to do what it should not do."""
        time.sleep(0.8)

    def family(self) -> list[psutil.Process]:
        """Return its processes."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def end(self, number: int = signal.SIGINT) -> int:
        """End it; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(_LONGEST)


@pytest.fixture
def watching(project: Project) -> Iterator[Callable[..., Watch]]:
    """Return what begins a watch of the project, which has no compiler."""
    begun = []

    def begin(*arguments: str, built: bool = True, patient: bool = False, **environ: str) -> Watch:
        watch = Watch(project, *arguments, patient=patient, **environ)
        begun.append(watch)
        if built:
            watch.until_built()
        return watch

    yield begin
    for watch in begun:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in watch.family():
                process.kill()
        watch.process.wait()


@contextlib.contextmanager
def silent() -> Iterator[Proxy]:
    """Start a store that takes what it is told, and never answers."""
    proxy = Proxy(free_port(), "silent")
    proxy.open()
    try:
        yield proxy
    finally:
        proxy.close()


def gone(processes: list[psutil.Process]) -> bool:
    """Tell whether processes have all ended, in a while; a zombie has."""
    end = time.monotonic() + _LONGEST
    while any(map(_runs, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


Begin = Callable[..., Watch]


# Builds ---------------------------------------------------------------------------------


def test_it_builds_once_and_then_only_what_a_change_concerns(
    project: Project, watching: Begin
) -> None:
    watch = watching()
    assert re.fullmatch(r"5 generated in [\d.]+ s", watch.builds[0])
    before = len(watch.out)
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 7\n')
    watch.until_reads("generated/ash.txt", "7")
    watch.until_built(2)
    assert "generate:ash.txt" in watch.out[before:]
    assert "generate:birch.txt" not in watch.out[before:]
    assert watch.end() == 0


def test_the_status_counts_the_files_that_can_matter(watching: Begin) -> None:
    watch = watching()
    count = _STATUS.findall(watch.out)[0][0]
    assert count == "9"  # dodo.py, five templates, three patterns


def test_it_never_triggers_itself(project: Project, watching: Begin) -> None:
    watch = watching()
    watch.rest()
    project.write("templates/macros.j2", "{% macro title(x) %}-- {{ x }} --{% endmacro %}\n")
    watch.until_built(2)
    watch.rest()
    assert len(watch.builds) == 2
    log = project.path / "note.txt"
    log.write_text("nobody reads it")
    (project.path / "generated" / "beside.txt").write_text("nor this")
    watch.rest()
    assert len(watch.builds) == 2


@pytest.mark.parametrize(
    "task",
    [
        "{'actions': ['echo ran >> runs.txt; date > last.txt'], 'targets': ['last.txt']}",
        "{'actions': ['echo ran >> runs.txt; false']}",
    ],
    ids=["always runs", "always fails"],
)
def test_a_task_that_writes_a_file_each_time_is_no_reason_to_build(
    project: Project, watching: Begin, task: str
) -> None:
    project.write("dodo.py", project.read("dodo.py") + f"def task_log():\n    return {task}\n")
    watch = watching()
    watch.rest()
    assert len(project.read("runs.txt").splitlines()) == 1


def test_a_target_edited_by_hand_is_made_again_and_kept_aside(
    project: Project, watching: Begin
) -> None:
    watch = watching()
    made = project.read("generated/ash.txt")
    project.write("generated/ash.txt", "mine\n")
    watch.until(lambda: project.read("generated/ash.txt") == made)
    assert project.read(".codegen/kept/generated/ash.txt") == "mine\n"
    watch.until_built(2)
    project.remove("generated/ash.txt")
    watch.until(lambda: project.exists("generated/ash.txt"))


def test_other_tasks_are_run_when_their_files_change(project: Project, watching: Begin) -> None:
    project.write("data/input.txt", "one")
    project.write(
        "dodo.py",
        project.read("dodo.py")
        + "def task_copy():\n    return {'actions': ['cp data/input.txt copy.txt'],"
        + " 'file_dep': ['data/input.txt'], 'targets': ['copy.txt']}\n",
    )
    watch = watching()
    project.write("data/input.txt", "two")
    watch.until_reads("copy.txt", "two")


def test_only_what_is_selected_is_built(project: Project, watching: Begin) -> None:
    watch = watching("-v", "2", "generate:ash.txt")
    assert "generate:ash.txt  (pid" in watch.out
    assert not project.exists("generated/birch.txt")
    before = len(watch.out)
    project.write("templates/macros.j2", "{% macro title(x) %}-- {{ x }} --{% endmacro %}\n")
    watch.until_reads("generated/ash.txt", "--")
    watch.until_built(2)
    assert "generate:ash.txt  (pid" in watch.out[before:]
    assert not project.exists("generated/birch.txt")


def test_options_of_run_are_handed_on(project: Project, watching: Begin) -> None:
    watch = watching("-n", "2", "-v", "2", "-c")
    pids = set(re.findall(r"generate:\w+.txt  \(pid (\d+)", watch.out))
    assert str(watch.process.pid) not in pids
    project.write("templates/page.txt.j2", "{{ nothing }}")
    project.write("templates/plain.txt.j2", "other\n")
    watch.until_reads("generated/plain.txt", "other")
    watch.until(lambda: "3 failed" in watch.out)


# Ways to save ---------------------------------------------------------------------------


def _in_place(path: Path, text: str) -> None:
    path.write_text(text)


def _renamed(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.swp")
    beside.write_text(text)
    beside.replace(path)


def _with_a_backup(path: Path, text: str) -> None:
    path.rename(path.with_name(path.name + "~"))
    path.write_text(text)
    path.with_name(path.name + "~").unlink()


def _made_anew(path: Path, text: str) -> None:
    path.unlink()
    time.sleep(0.05)
    path.write_text(text)


def _slowly(path: Path, text: str) -> None:
    with open(path, "w") as file:  # empty so long
        time.sleep(0.05)
        file.write(text)


@pytest.mark.parametrize("save", [_in_place, _renamed, _with_a_backup, _made_anew, _slowly])
def test_however_an_editor_saves_one_build_follows(
    project: Project, watching: Begin, save: Callable[[Path, str], None]
) -> None:
    watch = watching(patient=True)
    for turn in range(2, 5):
        text = "{% macro title(x) %}" + str(turn) * 5 + "{{ x }}{% endmacro %}\n"
        save(project.path / "templates/macros.j2", text)
        watch.until_reads("generated/cedar.txt", str(turn) * 5)
        watch.until_built(turn)
    watch.rest()
    assert len(watch.builds) == 4
    assert "failed" not in watch.out


def test_a_burst_of_edits_ends_with_the_last(project: Project, watching: Begin) -> None:
    watch = watching()
    for turn in range(60):
        project.write("templates/plain.txt.j2", f"turn {turn}\n")
        time.sleep(0.005)
    watch.until_reads("generated/plain.txt", "turn 59")
    watch.rest()
    assert project.read("generated/plain.txt") == "turn 59\n"
    assert len(watch.builds) < 30


_SLOW = """

@codegen.filter
def slow(text):
    import time

    open("begun", "w").close()
    time.sleep(1)
    return text
"""


def test_an_edit_during_a_build_is_built_after_it(project: Project, watching: Begin) -> None:
    project.write("dodo.py", project.read("dodo.py") + _SLOW)
    project.write("templates/plain.txt.j2", "{{ 'first'|slow }}")
    watch = watching()
    (project.path / "begun").unlink()
    project.write("templates/plain.txt.j2", "{{ 'second'|slow }}")
    watch.until(lambda: project.exists("begun"))
    project.write("templates/plain.txt.j2", "third")
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 99\n')
    watch.until_reads("generated/plain.txt", "third")
    watch.until_reads("generated/ash.txt", "99")


# What comes and goes --------------------------------------------------------------------


def test_patterns_may_come_and_go(project: Project, watching: Begin) -> None:
    watch = watching()
    project.write("patterns/dill.toml", 'name = "dill"\ngain = 4\n')
    watch.until_reads("generated/dill.txt", "dill")
    watch.until_reads("generated/list.txt", "dill")
    project.remove("patterns/dill.toml")
    watch.until(lambda: "dill" not in project.read("generated/list.txt"))


def test_patterns_may_come_in_folders_that_come(project: Project, watching: Begin) -> None:
    dodo = project.read("dodo.py").replace("patterns/*.toml", "patterns/**/*.toml")
    project.write("dodo.py", dodo)
    watch = watching()
    for number in range(3):
        stem = f"elder{number}"
        project.write(f"patterns/new{number}/deep/{stem}.toml", f'name = "{stem}"\ngain = 5\n')
        watch.until_reads(f"generated/{stem}.txt", stem)
    project.write("patterns/new0/deep/elder0.toml", 'name = "elder0"\ngain = 8\n')
    watch.until_reads("generated/elder0.txt", "8")


def test_a_whole_folder_may_go_and_come_back(project: Project, watching: Begin) -> None:
    watch = watching()
    for turn in range(2):
        before = len(watch.builds)
        (project.path / "templates").rename(project.path / "away")
        watch.until(lambda before=before: any("failed" in one for one in watch.builds[before:]))
        (project.path / "away").rename(project.path / "templates")
        watch.until(lambda: "failed" not in watch.builds[-1])
        project.write("templates/plain.txt.j2", f"again {turn}\n")
        watch.until_reads("generated/plain.txt", f"again {turn}")


def test_what_was_looked_for_in_vain_is_watched(project: Project, watching: Begin) -> None:
    project.write("templates/plain.txt.j2", '{% include "extra/x.j2" ignore missing %}.\n')
    watch = watching()
    project.write("templates/extra/x.j2", "there")
    watch.until_reads("generated/plain.txt", "there")
    project.remove("templates/extra/x.j2")
    watch.until(lambda: project.read("generated/plain.txt") == ".\n")


def test_a_file_that_a_template_reads_is_watched(project: Project, watching: Begin) -> None:
    project.write("data/deep/text.txt", "one")
    project.write("templates/plain.txt.j2", '{{ read_text("data/deep/text.txt") }}')
    watch = watching()
    project.write("data/deep/text.txt", "two")
    watch.until_reads("generated/plain.txt", "two")


def test_a_link_is_followed_to_what_is_edited(project: Project, watching: Begin) -> None:
    shared = project.write("shared/.hidden/ash.toml", 'name = "linked"\ngain = 1\n')
    project.remove("patterns/ash.toml")
    (project.path / "patterns/ash.toml").symlink_to(shared)
    watch = watching()
    shared.write_text('name = "again"\ngain = 1\n')
    watch.until_reads("generated/ash.txt", "again")


# Errors ---------------------------------------------------------------------------------


def test_a_broken_template_is_shown_and_mended(project: Project, watching: Begin) -> None:
    watch = watching()
    good = project.read("templates/macros.j2")
    project.write("templates/macros.j2", "{% macro %}")
    watch.until_built(2)
    assert "templates/macros.j2:1" in watch.out
    assert "failed in" in watch.builds[1]
    project.write("templates/macros.j2", good.replace("==", "##"))
    watch.until_reads("generated/ash.txt", "##")


def test_what_a_failing_step_alone_read_mends_it(project: Project, watching: Begin) -> None:
    project.write("data/x.json", "{")
    project.write("templates/plain.txt.j2", '{{ read_json("data/x.json").a }}')
    watch = watching()
    assert "failed" in watch.builds[0]
    project.write("data/x.json", '{"a": "mended"}')
    watch.until_reads("generated/plain.txt", "mended")


def test_a_failing_compile_is_shown_and_mended(project: Project, watching: Begin) -> None:
    project.write(
        "dodo.py",
        "from codegen_tasks import Codegen\ncodegen = Codegen()\n"
        "codegen.rule('m', template='m.py.j2', target='m.py', compile='python')\n"
        "DOIT_CONFIG = codegen.doit_config\n",
    )
    project.remove("templates/page.txt.j2")  # it asks for a filter
    project.write("templates/m.py.j2", "def (\n")
    watch = watching()
    assert "failed: compile:m.pyc" in watch.out
    project.write("templates/m.py.j2", "x = 1\n")
    watch.until(lambda: project.exists("generated/m.pyc"))


def test_what_a_build_made_before_it_failed_is_no_reason_to_build_again(
    project: Project, watching: Begin
) -> None:
    """Its compile step was not run, and remembers it as it was."""
    dodo = project.read("dodo.py").replace(
        'target="{stem}.txt")', 'target="{stem}.py", compile="python")'
    )
    project.write("dodo.py", dodo)
    project.write("n.json", '{"n": 1}')
    read = "{% set n = read_json('n.json').n %}"
    fails = "{% if n == 2 and name == 'birch' %}{{ name.nothing }}{% endif %}"
    project.write("templates/page.txt.j2", f"{read}{fails}x = {{{{ n }}}}\n")
    watch = watching()
    project.write("n.json", '{"n": 2}')
    watch.until_built(2)
    watch.rest()
    assert project.read("generated/ash.py") == "x = 2\n"
    assert len(watch.builds) == 2
    project.write("n.json", '{"n": 3}')
    watch.until_reads("generated/birch.py", "x = 3")


def test_a_remote_cache_that_does_not_answer_is_asked_once_and_not_by_each_build(
    project: Project, watching: Begin
) -> None:
    with silent() as store:
        watch = watching(
            CODEGEN_OUTPUT_CACHE="true",
            CODEGEN_OUTPUT_CACHE_MILLISECONDS="0",
            CODEGEN_REMOTE_CACHE=f"http://127.0.0.1:{store.port}/cache",
            CODEGEN_REMOTE_CACHE_SECONDS="1",
        )
        asked = store.calls
        assert asked
        project.write("patterns/ash.toml", 'name = "ash"\ngain = 7\n')
        watch.until_built(2)
        assert "ASH! 7" in project.read("generated/ash.txt")
        assert store.calls == asked
        assert watch.out.count(f"remote cache http://127.0.0.1:{store.port}/cache: ") == 1


def test_a_broken_dodo_is_shown_and_mended(project: Project, watching: Begin) -> None:
    watch = watching()
    good = project.read("dodo.py")
    project.write("dodo.py", "def broken(:\n")
    watch.until_built(2)
    assert "SyntaxError" in watch.out
    project.write("dodo.py", good.replace('+ "!"', '+ "?"'))
    watch.until_reads("generated/ash.txt", "ASH?")
    project.write("dodo.py", good.replace('+ "!"', '+ ";"'))  # as long, in the same second
    watch.until_reads("generated/ash.txt", "ASH;")


def test_it_may_begin_with_a_broken_dodo(project: Project, watching: Begin) -> None:
    good = project.read("dodo.py")
    project.write("dodo.py", "from helper import missing\n" + good)
    watch = watching()
    assert "helper" in watch.out
    project.write("helper.py", "missing = 1\n")
    watch.until_reads("generated/ash.txt", "ASH!")


def test_modules_of_dodo_are_loaded_anew(project: Project, watching: Begin) -> None:
    project.write("lib/__init__.py", "")
    project.write("lib/marks.py", 'MARK = "1"\n')
    dodo = project.read("dodo.py").replace('"!"', "MARK")
    project.write("dodo.py", "from lib.marks import MARK\n" + dodo)
    watch = watching()
    for mark in "234":
        project.write("lib/marks.py", f'MARK = "{mark}"\n')
        watch.until_reads("generated/ash.txt", f"ASH{mark}")


def test_a_module_that_a_filter_imports_late_is_watched(project: Project, watching: Begin) -> None:
    project.write("lib/__init__.py", "")
    project.write("lib/marks.py", 'MARK = "1"\n')
    dodo = project.read("dodo.py")
    late = "from lib.marks import MARK\n    return text.upper() + MARK"
    project.write("dodo.py", dodo.replace('return text.upper() + "!"', late))
    watch = watching()
    for mark in "234":
        project.write("lib/marks.py", f'MARK = "{mark}"\n')
        watch.until_reads("generated/ash.txt", f"ASH{mark}")


def test_a_file_that_dodo_reads_when_imported_is_watched(project: Project, watching: Begin) -> None:
    project.write("config/mark.txt", "1")
    dodo = project.read("dodo.py").replace('"!"', "MARK")
    project.write("dodo.py", 'MARK = open("config/mark.txt").read()\n' + dodo)
    watch = watching()
    project.write("config/mark.txt", "2")
    watch.until_reads("generated/ash.txt", "ASH2")


def test_settings_are_read_anew(project: Project, watching: Begin) -> None:
    watch = watching()
    project.write("pyproject.toml", "[tool.codegen]\nbatsh = true\n")
    watch.until_built(2)
    assert "unknown key 'batsh'" in watch.out
    project.write("pyproject.toml", "[tool.codegen\n")
    watch.until_built(3)
    assert "Traceback" not in watch.out.partition("batsh")[2]
    project.write("pyproject.toml", "[tool.codegen]\nbatch = true\n")
    project.write("templates/plain.txt.j2", "mended")
    watch.until_reads("generated/plain.txt", "mended")


# Beginning and ending -------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_0_and_leaves_nothing(
    project: Project, watching: Begin, number: int, fresh: tuple[str, ...]
) -> None:
    watch = watching(*fresh)
    family = watch.family()
    assert len(family) > 1
    assert watch.end(number) == 0
    assert gone(family)
    assert project.doit().out.startswith("5 up to date in ")


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_ctrl_c_ends_a_build_too(project: Project, watching: Begin, fresh: tuple[str, ...]) -> None:
    project.write("dodo.py", project.read("dodo.py") + _SLOW.replace("sleep(1)", "sleep(60)"))
    project.write("templates/plain.txt.j2", "{{ 'first'|slow }}")
    watch = watching(*fresh, built=False)
    watch.until(lambda: project.exists("begun"))
    family = watch.family()
    assert watch.end() == 0
    assert "interrupted; what was finished is kept" in watch.out
    assert gone(family)


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_killed_it_leaves_nothing_running(
    project: Project, watching: Begin, fresh: tuple[str, ...]
) -> None:
    project.write(
        "dodo.py",
        "from codegen_tasks import Codegen, Toolchain\ncodegen = Codegen()\n"
        "tool = Toolchain('slow', command=['sh', '-c', 'touch begun; sleep 60', '{source}',"
        " '{target}'], suffix='.out')\n"
        "codegen.rule('plain', template='plain.txt.j2', target='plain.txt', compile=tool)\n"
        "DOIT_CONFIG = codegen.doit_config\n",
    )
    project.remove("templates/page.txt.j2")  # it asks for a filter
    watch = watching(*fresh, built=False)
    watch.until(lambda: project.exists("begun"))
    watch.until(lambda: "sleep" in {one.name() for one in watch.family()})
    family = watch.family()
    watch.process.kill()
    assert gone(family)
    watch.process.wait()
    assert not list(project.path.parent.glob("codegen-watch-*"))


def test_a_killed_server_is_started_anew(project: Project, watching: Begin) -> None:
    watch = watching()
    for one in watch.family()[1:]:
        one.kill()
    project.write("templates/plain.txt.j2", "other\n")
    watch.until_reads("generated/plain.txt", "other")


def test_fresh_builds_in_a_process_of_its_own(project: Project, watching: Begin) -> None:
    watch = watching("--fresh", "-v", "2")
    project.write("templates/macros.j2", "{% macro title(x) %}-- {{ x }} --{% endmacro %}\n")
    watch.until_built(2)
    project.write("dodo.py", project.read("dodo.py").replace('"!"', '"?"'))
    watch.until_reads("generated/ash.txt", "-- ash -- ASH?")
    # The line is written when the step has ended, the file a moment before.
    processes = re.compile(r"generate:ash.txt  \(pid (\d+)")
    watch.until(lambda: len(set(processes.findall(watch.out))) == 3)


def test_a_dodo_that_starts_threads_is_not_forked(project: Project, watching: Begin) -> None:
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True)"
    project.write("dodo.py", f"{thread}.start()\n" + project.read("dodo.py"))
    watch = watching()
    project.write("templates/plain.txt.j2", "other\n")
    watch.until_reads("generated/plain.txt", "other")
    assert watch.end() == 0


def test_two_watches_in_one_project_get_on(project: Project, watching: Begin) -> None:
    watches = [watching(), watching()]
    for turn in range(4):
        project.write("templates/macros.j2", f"{{% macro title(x) %}}{turn}{{% endmacro %}}\n")
        watches[0].until_reads("generated/ash.txt", f"\n{turn} ASH!")
    watches[0].rest()
    before = [len(watch.builds) for watch in watches]
    watches[0].rest()
    assert [len(watch.builds) for watch in watches] == before
    assert [watch.end() for watch in watches] == [0, 0]
    assert project.doit().out.startswith("5 up to date in ")


def test_a_run_beside_it_is_taken_in(project: Project, watching: Begin) -> None:
    watch = watching()
    project.write("templates/plain.txt.j2", "other\n")
    assert project.doit().code == 0
    watch.rest()
    project.write("templates/plain.txt.j2", "third\n")
    watch.until_reads("generated/plain.txt", "third")


def test_where_there_is_no_dodo_it_ends_at_once(empty_project: Project) -> None:
    done = empty_project.run(sys.executable, "-m", "codegen_tasks", "watch")
    assert done.code == 3
    assert "Could not find dodo file" in done.err


def test_an_unknown_option_ends_it_at_once(project: Project) -> None:
    done = project.run(sys.executable, "-m", "codegen_tasks", "watch", "--frseh")
    assert done.code == 3
    assert "option --frseh not recognized" in done.err


def test_without_watchfiles_it_says_what_to_install(project: Project) -> None:
    blocker = project.path.parent / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text("import sys; sys.modules['watchfiles'] = None\n")
    paths = os.pathsep.join([str(blocker), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = project.run(sys.executable, "-m", "codegen_tasks", "watch", PYTHONPATH=paths)
    said = (
        "ERROR: watch: needs the package watchfiles\n  hint: pip install 'codegen-tasks[watch]'\n"
    )
    assert done == Result(3, "", said)


def test_an_unknown_task_is_told_and_may_come(project: Project, watching: Begin) -> None:
    watch = watching("more")
    assert 'command `watch` invalid parameter: "more"' in watch.out
    assert 'Type "python -m codegen_tasks list"' in watch.out
    more = "def task_more():\n    return {'actions': ['touch more.txt']}\n"
    project.write("dodo.py", project.read("dodo.py") + more)
    watch.until(lambda: project.exists("more.txt"))


def test_it_ends_when_nobody_reads_any_more(project: Project) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "codegen_tasks", "watch", "generate:plain.txt"],
        cwd=project.path,
        env=project.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    while b"watching" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    project.write("templates/plain.txt.j2", "other\n")
    assert process.wait(_LONGEST) == 0


def test_a_dodo_elsewhere_is_found_as_doit_finds_it(project: Project, watching: Begin) -> None:
    (project.path / "dodo.py").rename(project.path / "build.py")
    watch = watching("-f", "build.py")
    dodo = project.read("build.py")
    project.write("build.py", dodo.replace('"!"', '"?"'))
    watch.until_reads("generated/ash.txt", "ASH?")


def test_on_a_terminal_one_line_is_rewritten(project: Project) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "codegen_tasks", "watch"],
        cwd=project.path,
        env={**project.environ, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = ""
    try:
        while said.count("watching") < 1:
            said += os.read(ours, 1000).decode()
        project.write("templates/plain.txt.j2", "other\n")
        while said.count("watching") < 2:
            said += os.read(ours, 1000).decode()
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):
            while part := os.read(ours, 1000).decode():
                said += part
        assert process.wait(_LONGEST) == 0
    finally:
        process.kill()
        os.close(ours)
    shown, rewritten = said.split("\r\x1b[K")[0], said.split("\r\x1b[K")[1]
    assert _STATUS.search(shown.splitlines()[-1])
    assert rewritten.startswith(".  generate:plain.txt\r\n")


def test_other_commands_import_nothing_for_it(project: Project) -> None:
    project.write(
        "pyproject.toml",
        '[tool.doit.plugins.command]\nwatch = "codegen_tasks.commands.watch:Watch"\n',
    )
    script = (
        "import sys; from doit.doit_cmd import DoitMain; DoitMain().run(['list']);"
        "print([n for n in sys.modules if 'watch' in n or 'warm' in n], file=sys.stderr)"
    )
    done = project.run(sys.executable, "-c", script)
    assert done.err == "[]\n"


# What a change asks for -----------------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path) -> Known:
    """Return what is known of a project that was built."""
    known = ("dodo.py", "data.txt", "out/made.txt", "templates/a.j2", "templates/p/a.toml")
    new = ("templates/new.j2", "templates/p/b.toml", "templates/.a.j2.swp", "templates/p/n.txt")
    for name in (*known, *new):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    home = Home(
        templates=str(tmp_path / "templates"),
        output=str(tmp_path / "out"),
        state=str(tmp_path / "state"),
        snapshot="",
        globs=("templates/p/*.toml",),
    )
    made = str(tmp_path / "out/made.txt")
    told = Told(
        root=str(tmp_path),
        read=(str(tmp_path / "data.txt"),),
        made={made: sign_of(made)},
        homes=(home,),
    )
    return Known(str(tmp_path), str(tmp_path / "dodo.py"), told, failed=False)


@pytest.mark.parametrize(
    ("name", "moved", "need"),
    [
        ("dodo.py", False, Need.RESTART),
        ("pyproject.toml", True, Need.RESTART),
        ("new.py", True, Need.RESTART),
        ("out/new.py", True, Need.NOTHING),
        ("data.txt", False, Need.BUILD),
        ("out/made.txt", True, Need.NOTHING),
        ("out/.codegen-0123456789abcdef", True, Need.NOTHING),
        ("state/state.db", False, Need.NOTHING),
        ("templates/new.j2", True, Need.BUILD),
        ("templates/p/b.toml", True, Need.BUILD),
        ("templates/p/n.txt", True, Need.NOTHING),
        ("templates/.a.j2.swp", True, Need.NOTHING),
        ("templates/gone.j2", True, Need.NOTHING),
        ("templates/p", True, Need.BUILD),
        ("README.md", True, Need.NOTHING),
        ("README.md", False, Need.NOTHING),
    ],
)
def test_a_change_asks_for_what_it_can_matter_for(
    known: Known, name: str, moved: bool, need: Need
) -> None:
    assert known.need(os.path.join(known.root, name), moved) is need


def test_a_file_that_is_gone_or_empty_is_on_its_way(known: Known) -> None:
    path = Path(known.root, "data.txt")
    changes = Changes()
    changes.add([(2, str(path))])
    assert changes.needing(known, 0.0) == (Need.BUILD, False)
    path.write_text("")
    assert changes.needing(known, 0.0) == (Need.BUILD, True)
    path.unlink()
    assert changes.needing(known, 0.0) == (Need.BUILD, True)
    assert sign_of(str(path)) == ABSENT


def test_folders_that_hold_nothing_of_the_author_are_left_out(tmp_path: Path) -> None:
    for name in ("a/b", ".git/c", "node_modules/d", "env/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "env/pyvenv.cfg").touch()
    found = {os.path.relpath(path, tmp_path) for path in around(str(tmp_path))}
    assert found == {".", "a", "a/b"}
