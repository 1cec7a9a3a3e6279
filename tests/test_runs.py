"""Run records: what each run that did something leaves behind, and what reading them survives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Project

from codegen_tasks import runs
from codegen_tasks.errors import StepError
from codegen_tasks.model import Outcome, Reason
from codegen_tasks.runs import Collected, Run

GROUPS = {"templates": "templates", "generate": "generate", "compile": "compile"}


def last(project: Project, state: str = ".codegen") -> Run:
    """Return the newest record."""
    heads, problems = runs.heads(str(project.path / state / "runs"))
    assert problems == []
    return runs.load(heads[-1])


def recorded(project: Project) -> list[str]:
    folder = project.path / ".codegen/runs"
    return sorted(os.listdir(folder)) if folder.exists() else []


# What a run leaves ----------------------------------------------------------------------


def test_a_run_that_did_something_leaves_one_record(project: Project) -> None:
    before = time.time()
    assert "5 generated" in project.doit("-n", "2").out
    run = last(project)
    head = run.head
    assert recorded(project) == ["1.json"]
    assert before <= head.start / 1e9 <= time.time()
    assert (head.number, head.selected, head.workers, head.ended) == (1, (), 2, "done")
    assert head.outcomes == {"parsed": 5, "generated": 5, "written": 1}
    assert (head.steps, head.up_to_date) == (11, 0)
    page = next(step for step in run.steps if step.task == "generate:ash.txt")
    assert (page.phase, page.outcome, page.reasons) == ("generate", "generated", ("never built",))
    assert page.start is not None
    assert 0 < page.start < page.start + page.seconds < head.seconds
    assert page.pid not in (0, head.pid)
    assert {step.phase for step in run.steps} == {"templates", "generate", "output"}


def test_a_run_that_does_nothing_writes_nothing(project: Project) -> None:
    project.doit()
    before = project.stamps()
    assert "5 up to date" in project.doit().out
    assert "5 up to date" in project.doit("-n", "2", "generate").out
    project.doit("-n", "2", "-P", "thread")
    assert project.stamps() == before


def test_hits_reasons_and_what_was_up_to_date_are_recorded(project: Project) -> None:
    project.doit()
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 7\n')
    out = project.doit("generate").out
    run = last(project)
    assert run.head.selected == ("generate",)
    assert [step.task for step in run.steps] == ["generate:ash.txt"]
    assert run.steps[0].reasons == ("patterns/ash.toml: gain 0 → 7",)
    assert f"(templates {run.head.hits} hits)" in out
    assert (run.head.hits, run.head.misses) == (3, 0) == (run.steps[0].hits, run.steps[0].misses)
    assert run.head.up_to_date == 4
    assert run.head.outcomes == {"generated": 1}


def test_a_render_of_the_same_bytes_is_recorded_as_unchanged(project: Project) -> None:
    project.doit()
    project.doit("-a")
    run = last(project)
    assert run.head.outcomes == {"parsed": 5, "unchanged": 5, "written": 1}
    assert {step.reasons for step in run.steps if step.task != "output"} == {("always",)}


def test_a_failure_and_what_it_kept_from_running_are_recorded(project: Project) -> None:
    project.write(
        "dodo.py", project.read("dodo.py").replace('.txt")', '.txt", compile=BAD)', 1)
        .replace("codegen = ", 'BAD = Toolchain("t", ["cp", "{source}", "{target}"], ".out")\n\n'
                 "codegen = ", 1)
        .replace("import Codegen", "import Codegen, Toolchain"),
    )  # fmt: skip
    project.write("patterns/ash.toml", 'gain = "no name"\n')
    assert project.doit("-c").code == 1
    run = last(project)
    came = {step.task: step.outcome for step in run.steps}
    assert run.head.ended == "failed"
    assert (came["generate:ash.txt"], came["compile:ash.out"]) == ("failed", "not run")
    assert came["compile:birch.out"] == "compiled"
    assert run.head.outcomes["failed"] == 2  # the list reads the broken pattern too
    project.doit("-c")
    assert all("failed last time" in step.reasons[0] for step in last(project).steps[:1])


def test_an_interrupted_run_says_so_and_names_what_it_left(project: Project) -> None:
    sleepy = """
@codegen.filter
def nap(text):
    import pathlib, time
    pathlib.Path("asleep").touch()
    time.sleep(60)
"""
    project.write("dodo.py", project.read("dodo.py") + sleepy)
    project.write("templates/list.txt.j2", "{{ patterns|nap }}")
    command = [sys.executable, "-m", "doit", "generate"]
    running = subprocess.Popen(command, cwd=project.path, env=project.environ, stderr=-3)
    while not project.exists("asleep"):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    run = last(project)
    assert run.head.ended == "interrupted"
    came = {step.task: step.outcome for step in run.steps}
    assert came["templates:list.txt.j2"] == "parsed"
    assert came["generate:list.txt"] == "not run"


def test_a_killed_run_leaves_no_record_and_the_next_one_does(project: Project) -> None:
    kill = "\n@codegen.filter\ndef die(text):\n    import os\n    os.kill(os.getpid(), 9)\n"
    dodo = project.read("dodo.py")
    project.write("dodo.py", dodo + kill)
    project.write("templates/list.txt.j2", "{{ patterns|die }}")
    assert project.started_doit().code == -9
    assert recorded(project) == []
    project.write("templates/list.txt.j2", "list\n")
    assert project.doit().code == 0
    assert recorded(project) == ["1.json"]


@pytest.mark.parametrize("workers", [(), ("-n", "2"), ("-n", "2", "-P", "thread")])
def test_tasks_that_are_not_ours_are_recorded_beside_ours(
    project: Project, workers: tuple[str, ...]
) -> None:
    other = '\ndef task_pack():\n    return {"actions": ["sleep 0.05"], "task_dep": ["generate"]}\n'
    project.write("dodo.py", project.read("dodo.py") + other)
    assert project.doit(*workers).code == 0
    run = last(project)
    ours = [step.task for step in run.steps if step.phase == "generate"]
    assert len(ours) == len(set(ours)) == 5
    pack = [step for step in run.steps if step.task == "pack"]
    if "thread" not in workers:  # where doit's own runner tells us of ours only
        assert (pack[0].phase, pack[0].outcome) == ("", "done")
        assert pack[0].seconds >= 0.05
        assert "done" in run.head.outcomes
    project.doit(*workers)
    assert recorded(project) == ["1.json"]  # only the other task ran


def test_steps_that_shared_a_compiler_began_together(empty_project: Project) -> None:
    project = empty_project
    for stem in ("ash", "birch", "cedar"):
        project.write(f"patterns/{stem}.toml", f'name = "{stem}"\n')
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen, Toolchain
        codegen = Codegen()
        codegen.rule("page", template="p.j2", patterns="patterns/*.toml", target="a/{stem}.src",
                     compile=Toolchain("b", ["sh", "copy.sh", "{folder}", "{sources}"], ".out",
                                       batch=True, version=["true"]))
        DOIT_CONFIG = codegen.doit_config
        """,
    )
    project.write("templates/p.j2", "{{ name }}\n")
    script = 'to=$1; shift; for f; do b=${f##*/}; cp "$f" "$to/${b%.src}.out"; done\n'
    project.write("copy.sh", script)
    result = project.doit()
    assert "3 compiled" in result.out, result
    compiled = [step for step in last(project).steps if step.phase == "compile"]
    assert len({(step.pid, step.start) for step in compiled}) == 1
    assert len(compiled) == 3


def test_two_codegens_have_one_record(project: Project) -> None:
    project.write("more/p.j2", "p\n")
    second = '\nother = Codegen(name="other", templates="more", output="other")\n'
    second += 'other.rule("p", template="p.j2", target="p.txt")\n'
    project.write("dodo.py", project.read("dodo.py") + second)
    assert project.doit().code == 0
    assert recorded(project) == ["1.json"]
    names = {step.task for step in last(project).steps}
    assert {"generate:plain.txt", "other.generate:p.txt", "other.output"} <= names


def test_clean_removes_records_and_report_and_numbers_begin_anew(project: Project) -> None:
    project.doit()
    assert project.codegen("report").code == 0
    project.doit("clean")
    assert recorded(project) == []
    assert not project.exists(".codegen/report.html")
    project.doit()
    assert recorded(project) == ["1.json"]


# What is kept ---------------------------------------------------------------------------


def collected(count: int, reasons: int = 0) -> Collected:
    found = Collected()
    for number in range(count):
        name = f"generate:{number}.txt"
        found.step(Outcome(name, changed=True, pid=7, seconds=0.001, start=found.start + number))
        if reasons:
            why = [Reason("changed", "template", f"t{n}", "1a", "2b") for n in range(reasons)]
            found.reasons[name] = tuple(why)
    return found


def keep(found: Collected, state: Path) -> None:
    found.keep(
        [str(state)],
        GROUPS,
        selected=(),
        workers=0,
        ended="done",
        up_to_date=0,
        always=False,
    )


def test_the_last_fifty_are_kept_and_numbers_go_on(tmp_path: Path) -> None:
    for _ in range(53):
        keep(collected(1), tmp_path)
    numbers = sorted(runs.numbers(str(tmp_path / "runs")))
    assert numbers == list(range(4, 54))


def test_large_records_are_kept_as_long_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(collected(100), tmp_path)
    size = (tmp_path / "runs/1.json").stat().st_size
    monkeypatch.setattr(runs, "_MOST_BYTES", 3 * size + size // 2)
    for _ in range(4):
        keep(collected(100), tmp_path)
    assert sorted(runs.numbers(str(tmp_path / "runs"))) == [3, 4, 5]
    monkeypatch.setattr(runs, "_MOST_BYTES", 1)
    keep(collected(100), tmp_path)
    assert runs.numbers(str(tmp_path / "runs")) == [6]  # the newest stays, however large


def test_ten_thousand_steps_take_little_room_and_repeat_no_text(tmp_path: Path) -> None:
    keep(collected(10_000, reasons=9), tmp_path)
    text = (tmp_path / "runs/1.json").read_text()
    assert text.count("t3: 1a") == 1
    assert len(text) < 70 * 10_000
    head = runs.heads(str(tmp_path / "runs"))[0][0]
    run = runs.load(head)
    assert run.steps[9_999].task == "generate:9999.txt"
    assert run.steps[0].reasons[-1] == "further reasons"
    assert len(run.steps[0].reasons) == 7


def test_a_record_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Build:
        class project:  # noqa: N801
            state = "."
            task = staticmethod(lambda phase: phase)
            full = staticmethod(lambda path: "/dev/null/none")

    facts = {"selected": (), "workers": 0, "ended": "done", "up_to_date": 0, "always": False}
    runs.keep(collected(1), [Build], **facts)
    said = "no record of this run is kept: a file stands where a folder should be\n"
    place, _, what = capsys.readouterr().err.partition(": ")
    assert (place.endswith("dev/null/none/runs"), what) == (True, said)


def test_what_stands_in_the_way_of_records_is_moved(project: Project) -> None:
    project.write(".codegen/runs", "mine")
    assert project.doit().err == ""
    assert recorded(project) == ["1.json"]
    assert any(name.endswith(".unreadable") for name in os.listdir(project.path / ".codegen"))


# Reading what is broken -----------------------------------------------------------------

HEAD = (
    '{"version":1,"start":5,"began":"","seconds":1,"selected":[],"workers":0,"pid":1,'
    '"ended":"done","up_to_date":0,"hits":0,"misses":0,"outcomes":{}}'
)
STEPS = (
    '{"texts":["generate:a"],"pids":[1],"whys":[[]],"task":[0],"phase":[1],"outcome":[1],'
    '"pid":[0],"start":[-1],"took":[5],"hits":[0],"misses":[0],"why":[0]}'
)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ("", "is no run record"),
        ("[]", "is no run record"),
        ("null", "is no run record"),
        ("[" * 100_000, "is no run record"),
        ("\0\xff", "is no run record"),
        (HEAD[:-9], "is no run record"),
        (HEAD.replace('"pid":1', '"pid":-1'), "is no run record"),
        (HEAD.replace('"pid":1', '"pid":true'), "is no run record"),
        (HEAD.replace('"seconds":1', '"seconds":NaN'), "is no run record"),
        (HEAD.replace('"seconds":1', '"seconds":1e999'), "is no run record"),
        (HEAD.replace('"start":5', f'"start":{10**30}'), "is no run record"),
        (HEAD.replace('"done"', '"well"'), "is no run record"),
        (HEAD.replace("[]", "[5]"), "is no run record"),
        (HEAD.replace('"outcomes":{}', '"outcomes":{"failed":"x"}'), "is no run record"),
        (HEAD.replace('"version":1', '"version":2'), "version 2 is not known"),
    ],
)
def test_a_broken_head_is_left_out_with_a_line(project: Project, head: str, problem: str) -> None:
    project.doit()
    project.write(".codegen/runs/2.json", (head + "\n" + STEPS + "\n").encode("latin-1"))
    result = project.codegen("report", "--list")
    assert (result.code, len(result.out.splitlines())) == (0, 1)
    assert result.err == f".codegen/runs/2.json: {problem}, left out\n"


@pytest.mark.parametrize(
    "steps",
    [
        "",
        "[]",
        STEPS[:-20],
        STEPS.replace('"pid":[0]', '"pid":[1]'),
        STEPS.replace('"task":[0]', '"task":[]'),
        STEPS.replace('"task":[0]', '"task":["a"]'),
        STEPS.replace('"task":[0]', '"task":0'),
        STEPS.replace('"start":[-1]', '"start":[-2]'),
        STEPS.replace('"outcome":[1]', '"outcome":[99]'),
        STEPS.replace('"whys":[[]]', '"whys":[[7]]'),
        STEPS.replace('"generate:a"', "5"),
    ],
)
def test_a_record_with_broken_steps_is_an_error_that_names_it(tmp_path: Path, steps: str) -> None:
    (tmp_path / "1.json").write_text(f"{HEAD}\n{STEPS}\n")
    heads, _ = runs.heads(str(tmp_path))
    assert runs.load(heads[0]).steps[0].task == "generate:a"
    (tmp_path / "1.json").write_text(f"{HEAD}\n{steps}\n")
    with pytest.raises(StepError, match=r"^run 1: is no run record$"):
        runs.load(heads[0])


def test_no_changed_byte_of_a_record_does_more_than_make_it_unreadable(tmp_path: Path) -> None:
    keep(collected(2, reasons=1), tmp_path)
    folder = tmp_path / "runs"
    whole = (folder / "1.json").read_bytes()
    for place in range(len(whole)):
        for new in (b"0", b'"', b"]", b"-", b"\xff"):
            (folder / "1.json").write_bytes(whole[:place] + new + whole[place + 1 :])
            heads, problems = runs.heads(str(folder))
            assert len(heads) + len(problems) == 1
            for head in heads:
                with contextlib.suppress(StepError):
                    runs.load(head)


def test_folders_pipes_and_links_among_the_records_hold_up_nobody(project: Project) -> None:
    project.doit()
    folder = project.path / ".codegen/runs"
    (folder / "2.json").mkdir()
    os.mkfifo(folder / "3.json")
    (folder / "4.json").symlink_to("nowhere")
    (folder / "notes.txt").write_text("mine")
    result = project.codegen("report", "--list")
    assert result.code == 0
    assert len(result.err.splitlines()) == 3
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 7\n')
    assert project.doit().code == 0
    assert "5.json" in recorded(project)
    assert json.loads(project.read(".codegen/runs/5.json").splitlines()[0])["version"] == 1
