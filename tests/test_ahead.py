"""What is restored before doit has tasks for it: many steps at once, and never a wrong one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from ports import free_port
from stores import Web, nginx
from test_little_to_do import Counts, counted
from test_output_cache import Cached

from codegen_tasks import actions, ahead, digest, runs
from codegen_tasks.remote import parcels

MANY = 70
SLOW = [pytest.mark.slow]
DODO = """
import os
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.py",
             compile="python")


@codegen.function
def render(name):
    with open(os.environ["RENDERED"], "a") as log:
        log.write(name + "\\n")
    return name


DOIT_CONFIG = codegen.doit_config
"""


class Large(Cached):
    """A project with many renders that note when they run, and the output cache on."""

    def fill(self, log: Path, store: Path, many: int = MANY) -> None:
        self.keep_in(store, log)
        self.environ["RENDERED"] = str(log)
        self.write("dodo.py", DODO)
        self.write("templates/page.j2", "name = '{{ render(pattern.stem) }} {{ text }}'\n")
        for number in range(many):
            self.write(f"patterns/p{number:03d}.toml", f'text = "text {number}"\n')

    def files(self, *ignored: str) -> dict[str, bytes]:
        """Return what there is in the output folder."""
        found = super().files(*ignored)
        return {name: data for name, data in found.items() if name.startswith("generated/")}


@pytest.fixture
def checkout(tmp_path: Path, state_home: Path) -> Callable[..., Large]:
    """Return what makes another checkout, in a folder of its own."""

    def make(name: str, many: int = MANY) -> Large:
        folder = tmp_path / name
        folder.mkdir()
        project = Large(folder, state_home)
        project.fill(tmp_path / "log", tmp_path / "store", many)
        return project

    return make


@pytest.fixture
def first(checkout: Callable[..., Large]) -> Large:
    """Return a project that was built once."""
    project = checkout("first")
    project.built()
    assert len(project.ran()) == MANY
    return project


@pytest.fixture
def other(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    state_home: Path,
    once: Callable[..., Path],
    checkout: Callable[..., Large],
) -> Large:
    """Return another checkout of it, which was never built; `first` is there if asked for."""

    def built(folder: Path) -> None:
        (folder / "project").mkdir()
        project = Large(folder / "project", state_home)
        project.fill(folder / "log", folder / "store")
        project.built()
        assert len(project.ran()) == MANY

    if "first" not in request.fixturenames:
        shutil.copytree(once("ahead", built) / "store", tmp_path / "store")
    return checkout("other")


def is_as_clean(project: Large, *workers: str) -> bool:
    """Tell whether all is as a build without a cache makes it, and as `doit info` says."""
    found = project.files()
    again = project.built("run", "-a", *workers, CODEGEN_OUTPUT_CACHE="false")
    assert f"{len(found)} of them unchanged" in again.out
    return project.files() == found


def test_a_fresh_checkout_is_restored_without_a_task_for_each_step(other: Large) -> None:
    found: Counts = counted(other, started=False)
    assert f"\n{MANY} generated, {MANY} compiled, {2 * MANY} of them restored in" in found.out
    assert found.of["task"] == 5  # the phases, and the template
    assert other.ran() == []
    again = counted(other, started=False)
    assert again.out.startswith(f"{2 * MANY} up to date in")
    assert again.of["task"] == 4
    assert other.doit("info").out == f"{2 * MANY} targets up to date\n"
    assert is_as_clean(other)


def test_what_is_stale_later_is_explained_as_if_all_had_been_made(
    first: Large, other: Large
) -> None:
    other.built()
    for project in (first, other):
        project.write("patterns/p001.toml", 'text = "other"\n')
        project.write("dodo.py", project.read("dodo.py").replace("return name", "return 1"))
    said = other.doit("info").out
    assert said == first.doit("info").out
    assert 'text "text 1" → "other"' in said


def test_a_branch_and_back_is_restored_without_a_task_for_each_step(first: Large) -> None:
    page = first.read("templates/page.j2")
    before = first.files()
    first.write("templates/page.j2", page.replace("name", "title"))
    first.built()
    assert len(first.ran()) == MANY
    first.write("templates/page.j2", page)
    found = counted(first, started=False)
    assert f"{2 * MANY} of them restored in" in found.out
    assert found.of["task"] == 5
    assert (first.ran(), first.files()) == ([], before)
    assert first.doit("info").out == f"{2 * MANY} targets up to date\n"


def test_what_the_cache_does_not_know_gets_its_task(other: Large) -> None:
    for number in (0, 33, 69):
        other.write(f"patterns/p{number:03d}.toml", 'text = "new"\n')
    found = counted(other, started=False)
    assert other.ran() == ["p000", "p033", "p069"]
    known = 2 * MANY - 6
    assert f"{MANY} generated, {MANY} compiled, {known} of them restored in" in found.out
    assert is_as_clean(other)


def test_what_is_compiled_from_what_is_to_be_rendered_waits_for_that(first: Large) -> None:
    """On disk lies a source of which the cache knows what it compiles to, but it is stale."""
    page = first.read("templates/page.j2")
    first.write("templates/page.j2", page.replace("name", "title"))
    first.built()
    first.ran()
    first.write("templates/page.j2", page)
    first.write("patterns/p005.toml", 'text = "new"\n')
    assert f"{2 * MANY - 2} of them restored" in first.built().out
    assert first.ran() == ["p005"]
    assert b"new" in first.files()["generated/p005.py"]
    assert first.doit("info").out == f"{2 * MANY} targets up to date\n"
    assert is_as_clean(first)


def test_where_all_has_to_be_rendered_nothing_is_expected_of_the_cache(first: Large) -> None:
    page = first.read("templates/page.j2")
    first.write("templates/page.j2", page.replace("name", "title"))
    found = counted(first, started=False)
    assert "restored" not in found.out
    assert found.of["task"] == 2 * MANY + 5
    assert is_as_clean(first)


def test_a_hand_edited_target_is_kept_aside(first: Large) -> None:
    page = first.read("templates/page.j2")
    first.write("templates/page.j2", page.replace("name", "title"))
    first.built()
    first.write("templates/page.j2", page)
    first.write("generated/p007.py", "mine\n")
    result = first.built()
    kept = ".codegen/kept/generated/p007.py"
    assert f"   generated/p007.py: was edited by hand, kept aside as {kept}\n" in result.out
    assert first.read(kept) == "mine\n"
    assert "text 7" in first.read("generated/p007.py")


def test_what_was_there_before_is_kept_aside(other: Large) -> None:
    other.write("generated/p007.py", "mine\n")
    assert "p007.py: was there before, kept aside as" in other.built().out
    assert other.read(".codegen/kept/generated/p007.py") == "mine\n"


def test_a_step_that_doit_is_to_ignore_is_not_restored(other: Large) -> None:
    assert other.doit("ignore", "generate:p003.py").code == 0
    assert f"{2 * MANY - 2} of them restored" in other.doit().out
    assert not other.exists("generated/p003.py")
    assert not other.exists("generated/p003.pyc")


@pytest.mark.parametrize(
    ("selected", "restored", "tasks"),
    [
        (["generate"], MANY, 5 + MANY),
        (["compile"], 2 * MANY, 5),
        pytest.param(["output"], 2 * MANY, 5, marks=SLOW),
        pytest.param(["generate:p001.py"], 1, None, marks=SLOW),
        (["generated/p001.pyc"], 2, None),
        pytest.param(["generate", "compile:p001.pyc"], MANY + 1, None, marks=SLOW),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_only_what_was_selected_is_restored(
    other: Large, selected: list[str], restored: int, tasks: int | None
) -> None:
    found = counted(other, *selected, started=False)
    assert f"{restored} of them restored in" in found.out
    assert len(other.files()) == restored
    assert tasks in (None, found.of["task"])


def test_a_name_that_is_unknown_is_refused_before_anything_is_restored(other: Large) -> None:
    result = other.doit("generate", "compil")
    assert result.code == 3
    assert not other.exists("generated")


OTHERS = {
    "a task waits for a step": """
def task_after():
    return {"actions": ["cp generated/p001.py after"], "task_dep": ["generate:p001.py"]}
""",
    "a task reads a target": """
def task_after():
    return {"actions": ["cp generated/p001.py after"], "file_dep": ["generated/p001.py"],
            "targets": ["after"], "task_dep": ["output"]}
""",
    "a task asks for a value": """
def task_after():
    return {"actions": [(lambda x: open("after", "w").write(str(bool(x))) and None,)],
            "getargs": {"x": ("generate:p001.py", "references")}}
""",
    "a task makes a pattern": """
def task_after():
    return {"actions": ["echo 'text = \\"made\\"' >patterns/made.toml", "touch after"],
            "targets": ["patterns/made.toml"]}
""",
    "a task that runs first edits a pattern": """
def task_a():
    return {"actions": ["sed -i s/1/one/ patterns/p001.toml", "touch after"]}
DOIT_CONFIG = {**codegen.doit_config, "default_tasks": ["a", "output"]}
""",
    "a task between two phases": """
def task_after():
    return {"actions": ["touch after"], "task_dep": ["generate"]}
DOIT_CONFIG = {**codegen.doit_config, "default_tasks": ["after", "compile"]}
""",
    "a task comes late": """
from doit import create_after
@create_after(executed="generate")
def task_after():
    return {"actions": ["touch after"]}
""",
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=SLOW if number > 2 else []) for number, case in enumerate(OTHERS)],
)
def test_beside_tasks_that_are_not_ours_all_is_as_without_a_cache(
    other: Large, checkout: Callable[..., Large], case: str
) -> None:
    clean = checkout("clean")
    for project in (other, clean):
        text = project.read("dodo.py")
        project.write("dodo.py", text + OTHERS[case])
    built = other.built()
    clean.built(CODEGEN_OUTPUT_CACHE="false")
    assert other.files() == clean.files()
    assert other.exists("after") == clean.exists("after") is True
    assert "restored" in built.out or "edits" in case
    assert other.doit("info").out == clean.doit("info").out


TWO = """
more = Codegen(name="more", output="more", state=".more")
more.rule("copy", template="copy.j2", patterns="patterns/*.toml", target="{stem}.txt")
"""


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("\ncodegen =", id="before"),
        pytest.param("\nDOIT_CONFIG", id="after", marks=pytest.mark.slow),
    ],
)
def test_a_codegen_that_reads_what_another_makes_waits_for_it_on_every_branch(
    first: Large, place: str
) -> None:
    """Nothing that is recorded tells that it will: on this branch it has read nothing of it."""
    first.write("dodo.py", first.read("dodo.py").replace(place, TWO + place))
    page = first.read("templates/page.j2")
    reading = page + "# {{ read_text('more/p000.txt') }}\n"

    def build(copied: str, made: str) -> str:
        first.write("templates/copy.j2", f"{copied}\n")
        first.write("templates/page.j2", made)
        first.built()
        return first.read("generated/p001.py").partition("# ")[2]

    assert build("one", reading) == "one\n\n"
    assert build("two", reading) == "two\n\n"
    assert build("one", page) == ""
    assert build("two", reading) == "two\n\n"
    assert "stale" not in first.doit("info").out


FORKING = """
import os, signal, time
os.sched_getaffinity = lambda pid: range(2)
fork = os.fork
def forking():
    pid = fork()
    if pid == 0:
        open("forked", "w").close()
        os.kill({whom}, signal.{how})
        time.sleep({seconds})
    return pid
os.fork = forking
"""

CORES = """
import os, signal
os.sched_getaffinity = lambda pid: range(8)
fork, numbers = os.fork, iter(range(100))
def forking():
    number, pid = next(numbers), fork()
    if pid == 0 and number in {killed}:
        os.kill(os.getpid(), signal.SIGKILL)
    elif pid:
        open("forked", "a").write(f"{{number}} ")
    return pid
os.fork = forking
"""


def test_where_the_fork_dies_all_is_restored_by_the_other_process(
    checkout: Callable[..., Large],
) -> None:
    many = ahead.WORTH_A_FORK
    checkout("first", many).built()
    other = checkout("other", many)
    killing = FORKING.format(whom="os.getpid()", how="SIGKILL", seconds=0)
    other.write("dodo.py", killing + other.read("dodo.py"))
    assert f"{2 * many} of them restored in" in other.built().out
    assert other.exists("forked")
    assert is_as_clean(other)


@pytest.mark.parametrize("killed", [(), (1,), (0, 2)])
def test_as_many_forks_restore_as_there_are_cores_and_whichever_dies_all_is_restored(
    checkout: Callable[..., Large], killed: Sequence[int]
) -> None:
    many = 2 * ahead.WORTH_A_FORK
    checkout("first", many).built()
    other = checkout("other", many)
    other.write("dodo.py", CORES.format(killed=killed) + other.read("dodo.py"))
    assert f"{2 * many} of them restored in" in other.built().out
    # Both phases have as many steps; the sources are restored first.
    assert other.read("forked").split() == ["0", "1", "2", "3"]
    assert is_as_clean(other)


@pytest.mark.parametrize("cores", [2, 8])
def test_an_interrupt_ends_all_processes_and_the_next_run_goes_on(
    checkout: Callable[..., Large], cores: int
) -> None:
    many = 2 * ahead.WORTH_A_FORK
    checkout("first", many).built()
    other = checkout("other", many)
    dodo = other.read("dodo.py")
    killing = FORKING.format(whom="os.getppid()", how="SIGINT", seconds=60)
    many_cores = f"os.sched_getaffinity = lambda pid: range({cores})\n"
    other.write("dodo.py", killing + many_cores + dodo)
    result = other.doit()
    left = [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(other.path)]
    assert psutil.wait_procs(left, timeout=30)[1] == []
    assert result.code == 130
    assert "interrupted; what was finished is kept" in result.err
    assert " left to do" in result.out
    assert not [name for name in other.files() if ".codegen-" in name]
    other.write("dodo.py", dodo)
    other.built()
    assert is_as_clean(other)


def test_of_two_that_begin_at_once_one_waits_and_finds_nothing_to_do(other: Large) -> None:
    command = [sys.executable, "-m", "doit"]
    begun = [
        subprocess.Popen(command, cwd=other.path, env=other.environ, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].decode() for process in begun]
    assert [process.returncode for process in begun] == [0, 0]
    assert other.ran() == []
    assert sum(f"{2 * MANY} of them restored in" in text for text in said) == 1
    assert sum(f"{2 * MANY} up to date in" in text for text in said) == 1


def test_verbosity_tells_of_each_step_and_the_record_of_the_run_too(other: Large) -> None:
    out = other.built("run", "-v", "2").out
    assert out.count(", restored)\n") == 2 * MANY
    heads, problems = runs.heads(str(other.path / ".codegen/runs"))
    assert problems == []
    assert heads[0].outcomes == {"parsed": 1, "restored": 2 * MANY, "written": 1}
    assert heads[0].up_to_date == 0


def test_a_reporter_of_doits_that_tells_what_ran_tells_of_each_step(other: Large) -> None:
    out = other.built("run", "-r", "executed-only").out
    assert out.count(".  generate:") == out.count(".  compile:") == MANY
    assert other.ran() == []


def test_a_target_that_cannot_be_written_fails_as_any_step_does(other: Large) -> None:
    (other.path / "generated/p004.py").mkdir(parents=True)
    result = other.doit("run", "-c")
    assert result.code == 1
    assert "failed: generate:p004.py\n" in result.out
    assert "a folder stands where a file should be" in result.out
    assert f"{2 * MANY - 2} of them restored" in result.out


# Bundles --------------------------------------------------------------------------------


def bundle_of(project: Large) -> list[Path]:
    """Return the bundles in the store."""
    store = Path(project.environ["CODEGEN_OUTPUT_CACHE_FOLDER"])
    found = [path for path in (store / "cas").rglob("*") if path.is_file()]
    return [path for path in found if path.read_bytes().startswith(b"codegen-tasks bundle")]


def without_single_results(project: Large) -> None:
    """Remove each result that the store has by itself, so that only bundles have them."""
    store = Path(project.environ["CODEGEN_OUTPUT_CACHE_FOLDER"])
    for path in (store / "ac").rglob("*"):
        if path.is_file() and b'"outputs"' in path.read_bytes():
            path.write_bytes(b"broken")


def test_a_run_that_keeps_many_results_bundles_them(other: Large) -> None:
    assert len(bundle_of(other)) == 2  # renders, and compiles
    without_single_results(other)
    assert f"{2 * MANY} of them restored in" in other.built().out
    assert other.ran() == []
    assert len(bundle_of(other)) == 2
    assert is_as_clean(other)


@pytest.mark.parametrize(
    "change",
    [
        ("patterns/p001.toml", "text 1", "another"),
        pytest.param(("patterns/p001.toml", "text 1", "text 1 "), marks=SLOW),
        ("templates/page.j2", "name", "title"),
        ("dodo.py", "    return name", "    return name + '!'"),
        pytest.param(
            ("dodo.py", "Codegen()", "Codegen(environment={'trim_blocks': True})"), marks=SLOW
        ),
        pytest.param(("dodo.py", "{stem}.py", "x{stem}.py"), marks=SLOW),
    ],
    ids=["pattern", "space", "template", "function", "option", "target"],
)
def test_nothing_is_taken_from_a_bundle_that_was_made_of_anything_else(
    other: Large, change: tuple[str, str, str]
) -> None:
    without_single_results(other)
    name, old, new = change
    text = other.read(name)
    assert old in text
    other.write(name, text.replace(old, new))
    other.built()
    assert is_as_clean(other)


def test_a_pattern_that_means_the_same_is_found_by_itself(other: Large) -> None:
    other.write("patterns/p001.toml", '# a comment\ntext = "text 1"\n')
    assert f"{2 * MANY} of them restored in" in other.built().out
    assert other.ran() == []


def test_a_pattern_that_leads_out_of_the_project_is_refused_all_the_same(
    other: Large, tmp_path: Path
) -> None:
    path = other.path / "patterns/p001.toml"
    path.rename(tmp_path / "outside.toml")
    path.symlink_to(tmp_path / "outside.toml")
    result = other.doit("run", "-c")
    assert result.code == 1
    assert "a pattern cannot lie outside the project" in result.out


@pytest.mark.parametrize(
    "spoilt",
    [
        None,
        pytest.param(b"", marks=SLOW),
        pytest.param(b"codegen-tasks bundle 1\n{}\n", marks=SLOW),
    ],
)
def test_a_broken_bundle_is_none(other: Large, spoilt: bytes | None) -> None:
    for path in bundle_of(other):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + b"?" + data[middle + 1 :] if spoilt is None else spoilt)
    assert f"{2 * MANY} of them restored in" in other.built().out
    assert is_as_clean(other)


def test_a_pattern_that_was_edited_after_its_render_is_in_no_bundle(
    checkout: Callable[..., Large],
) -> None:
    first = checkout("first")
    editing = """
@codegen.function
def edit():
    with open("patterns/p000.toml", "a") as file:
        file.write("more = 1\\n")
    return ""
"""
    first.write(
        "dodo.py", first.read("dodo.py").replace("\nDOIT_CONFIG", editing + "\nDOIT_CONFIG")
    )
    page = first.read("templates/page.j2")
    first.write("templates/page.j2", page + "{% if text == 'text 1' %}# {{ edit() }}{% endif %}\n")
    first.built("generate")
    (found,) = bundle_of(first)
    assert b'"generate:p002.py"' in found.read_bytes()
    assert b'"generate:p000.py"' not in found.read_bytes()


@pytest.mark.slow
def test_a_store_knows_the_newest_bundles_of_a_kind(first: Large) -> None:
    page = first.read("templates/page.j2")

    def rendered(number: int) -> int:
        first.write("templates/page.j2", f"{page}# {number}\n")
        first.built("generate")
        return len(first.ran())

    assert [rendered(number) for number in range(9)] == [MANY] * 9
    without_single_results(first)
    assert rendered(1) == 0
    assert rendered(0) == MANY


def test_workers_keep_results_that_are_bundled_too(checkout: Callable[..., Large]) -> None:
    first = checkout("first")
    first.built("-n", "2")
    first.ran()
    without_single_results(first)
    assert f"{2 * MANY} of them restored in" in checkout("other").built("-n", "2").out
    assert first.ran() == []


def test_verify_finds_bundles_sound(first: Large) -> None:
    result = first.codegen("cache", "verify")
    assert result.code == 0, result
    assert len(bundle_of(first)) == 2


def slow_to_compile(project: Large) -> None:
    """Have renders take next to no time, and what compiles them some."""
    slow = """
slow = Toolchain("slow", command=["sh", "-c", 'sleep 0.1; cp "$0" "$1"', "{source}", "{target}"],
                 suffix=".out", version=["echo", "1"])
"""
    dodo = project.read("dodo.py").replace('compile="python"', "compile=slow")
    dodo = dodo.replace("import Codegen", "import Codegen, Toolchain")
    project.write("dodo.py", dodo.replace("\ncodegen =", slow + "\ncodegen ="))
    project.environ["CODEGEN_OUTPUT_CACHE_MILLISECONDS"] = "90"


def test_quick_renders_are_kept_together_with_what_is_compiled_from_them(
    checkout: Callable[..., Large],
) -> None:
    first = checkout("first")
    slow_to_compile(first)
    first.built("-n", "6")
    assert len(first.ran()) == MANY
    other = checkout("other")
    slow_to_compile(other)
    found = counted(other, started=False)
    restored = 2 * MANY
    assert f"{restored} of them restored in" in found.out
    assert (found.of["task"], other.ran()) == (5, [])
    assert is_as_clean(other, "-n", "6")


@pytest.mark.slow
def test_renders_that_are_compiled_by_nobody_and_took_no_time_are_in_no_bundle(
    checkout: Callable[..., Large],
) -> None:
    first = checkout("first")
    slow_to_compile(first)
    first.built("generate")
    assert bundle_of(first) == []


# From afar ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with nginx(tmp_path_factory.mktemp("nginx")) as found:
        yield found


@pytest.fixture
def clone(tmp_path: Path, state_home: Path, web: Web) -> Callable[..., Large]:
    """Return what makes a checkout on a machine of its own, which has a remote cache."""

    def make(name: str) -> Large:
        folder = tmp_path / name
        folder.mkdir()
        project = Large(folder, state_home)
        project.fill(tmp_path / "log", tmp_path / f"store-of-{name}", MANY)
        project.environ["CODEGEN_REMOTE_CACHE"] = f"{web.url}/{tmp_path.name}"
        project.environ.pop("CI", None)
        return project

    return make


WRITES = {"CODEGEN_REMOTE_CACHE_WRITE": "true"}
KEY = {"CODEGEN_REMOTE_CACHE_KEY": "a secret"}


@pytest.mark.parametrize(
    ("workers", "cores"),
    [((), 2), (("-n", "2"), 2), ((), 1)],
    ids=["serial", "parallel", "one core"],
)
def test_a_fresh_clone_asks_a_remote_cache_a_few_questions_for_all_its_steps(
    clone: Callable[..., Large], web: Web, workers: tuple[str, ...], cores: int
) -> None:
    having = f"import os\nos.sched_getaffinity = lambda pid: range({cores})\n"
    first = clone("first")
    first.write("dodo.py", having + DODO)
    assert first.built(*workers, **WRITES, **KEY).err == ""
    first.ran()
    second = clone("second")
    second.write("dodo.py", having + DODO)
    before = len(web.asked())
    found = second.built("run", "-v", "2", *workers, **KEY)
    assert len(web.asked()[before:]) == 4  # for each of two kinds, which bundles, and that bundle
    assert found.out.count(", restored from remote)\n") == 2 * MANY
    assert (found.err, second.ran()) == ("", [])
    assert second.files() == first.files()
    assert f"{2 * MANY} up to date" in second.built(**KEY).out
    assert len(web.asked()[before:]) == 4
    assert len(bundle_of(second)) == 2
    assert "4 hits, 0 misses" in second.codegen("cache", "status", **KEY).out


def test_a_bundle_that_was_not_signed_with_the_key_is_none(clone: Callable[..., Large]) -> None:
    first = clone("first")
    first.built("generate", **WRITES)
    first.ran()
    second = clone("second")
    assert "has nothing that is signed with our key\n" in second.built("generate", **KEY).err
    assert len(second.ran()) == MANY
    assert second.files() == first.files()


def test_a_later_bundle_does_not_take_the_place_of_a_larger_one(
    clone: Callable[..., Large], web: Web
) -> None:
    clone("first").built("generate", **WRITES)
    second = clone("second")
    for number in range(MANY):
        second.write(f"patterns/q{number:03d}.toml", f'text = "more {number}"\n')
    second.ran()
    second.built("generate", **WRITES)
    assert len(second.ran()) == MANY
    third = clone("third")
    for number in range(MANY):
        third.write(f"patterns/q{number:03d}.toml", f'text = "more {number}"\n')
    before = len(web.asked())
    assert f"{2 * MANY} of them restored" in third.built("generate").out
    assert len(web.asked()[before:]) == 3
    assert third.ran() == []


@pytest.mark.parametrize(
    "how", ["junk", pytest.param("cut", marks=SLOW), pytest.param("another", marks=SLOW)]
)
def test_a_remote_bundle_that_is_something_else_is_none(
    clone: Callable[..., Large], web: Web, tmp_path: Path, how: str
) -> None:
    first = clone("first")
    first.built("generate", **WRITES)
    first.ran()
    for path in (web.folder / tmp_path.name / "cas").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            changed = {"junk": b"<html>no</html>", "cut": data[:-9], "another": data[::-1]}
            path.write_bytes(changed[how])
    second = clone("second")
    result = second.built("generate")
    assert " of them restored" in result.out  # one by one
    assert second.files() == first.files()


def test_a_bundle_of_somebody_else_does_not_have_us_look_at_a_file_of_the_user(
    clone: Callable[..., Large], web: Web, tmp_path: Path
) -> None:
    clone("first").built("generate", **WRITES)
    store = web.folder / tmp_path.name
    guessed = digest.of_bytes(b"one")
    assert forged_bundles(store, ["file", "../secret", guessed]) == 1
    asked = []
    for said in ("one", "other"):
        (tmp_path / "secret").write_text(said)
        before = len(web.asked())
        clone(f"reader-{said}").built("generate")
        asked.append(len(web.asked()[before:]))
    assert min(asked) > 64  # it is asked step by step, whatever the file says


def forged_bundles(store: Path, row: list[str]) -> int:
    """Have each bundle of a store tell that all its steps have read something more."""
    forged = 0
    for path in sorted((store / "ac").iterdir()):
        parcel = parcels.opened(path.name, path.read_bytes())
        for name in actions.bundles_in(parcel.text):
            packed = (store / "cas" / parcel.blobs[name].name).read_bytes()
            head, told, rest = zlib.decompress(packed).split(b"\n", 2)
            data = json.loads(told)
            for step in data["steps"]:
                step[2].append(len(data["reads"]))
            data["reads"].append([row, ""])
            bundle = b"\n".join([head, json.dumps(data).encode(), rest])
            key = digest.of_bytes(bundle)
            listed = actions.written_bundles({key: len(bundle)})
            message, blobs = parcels.packed(path.name, listed, {key: bundle})
            path.write_bytes(message)
            for blob, content in blobs.items():
                (store / "cas" / blob).write_bytes(content)
            forged += 1
    return forged


def test_a_store_that_cannot_be_reached_costs_one_line(clone: Callable[..., Large]) -> None:
    project = clone("first")
    project.environ["CODEGEN_REMOTE_CACHE"] = f"http://127.0.0.1:{free_port()}"
    result = project.built("-n", "2")
    assert len(project.ran()) == MANY
    told = "cannot be reached (connection refused), so it was left alone\n"
    assert result.err.count(told) == 1
    assert result.err.count("\n") == 2  # with the hint
