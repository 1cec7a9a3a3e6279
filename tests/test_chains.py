"""What one task of a `dodo.py` makes and a step of ours reads is made first, in the same run."""

from __future__ import annotations

import json
import re

import pytest
from conftest import Project, Result

HEAD = """
import json, pathlib
from codegen_tasks import Codegen

codegen = Codegen()
DOIT_CONFIG = codegen.doit_config
"""
WORKERS = pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["serial", "-n 2"])
THREADS = ["-n", "2", "-P", "thread"]


def right(project: Project, *arguments: str) -> Result:
    """Build; see that `doit info` calls nothing stale then, and that a second run does nothing."""
    result = project.doit(*arguments)
    assert result.code == 0, result
    info = project.doit("info")
    assert info.code == 0, info
    before = project.stamps()
    again = project.doit(*arguments)
    assert "generated" not in again.out, again.out
    assert "compiled" not in again.out, again.out
    assert {k: v for k, v in project.stamps().items() if "made" not in k} == {
        k: v for k, v in before.items() if "made" not in k
    }
    return result


# Rules over earlier targets -------------------------------------------------------------


@pytest.fixture
def two_rules(empty_project: Project) -> Project:
    """Return a project whose second and third rule take what the first makes as patterns."""
    project = empty_project
    project.write(
        "dodo.py",
        HEAD
        + """
codegen.rule("data", template="data.j2", patterns="specs/*.toml", target="{stem}.json")
codegen.rule("text", template="text.j2", patterns="generated/*.json", target="{stem}.txt")
codegen.rule("all", template="all.j2", patterns="generated/*.json", target="all.txt")
codegen.rule("item", template="item.j2", patterns="generated/*.json", target="{id}.item",
             each="items")
""",
    )
    project.write("templates/data.j2", '{"name": "{{ name }}", "items": {{ items|tojson }}}\n')
    project.write("templates/text.j2", "text of {{ name }}\n")
    project.write("templates/all.j2", "{% for p in patterns %}{{ p.name }}\n{% endfor %}")
    project.write("templates/item.j2", "{{ id }} of {{ name }}\n")
    project.write("specs/ash.toml", 'name = "ash"\nitems = [{id = "a1"}]\n')
    project.write("specs/elm.toml", 'name = "elm"\nitems = [{id = "e1"}, {id = "e2"}]\n')
    return project


@WORKERS
def test_a_rule_takes_earlier_targets_as_patterns(two_rules: Project, workers: list[str]) -> None:
    right(two_rules, *workers)
    assert two_rules.read("generated/ash.txt") == "text of ash\n"
    assert two_rules.read("generated/all.txt") == "ash\nelm\n"
    assert two_rules.read("generated/e2.item") == "e2 of elm\n"


def test_threads_make_the_whole_chain_too(two_rules: Project) -> None:
    right(two_rules, *THREADS)
    assert two_rules.read("generated/all.txt") == "ash\nelm\n"
    assert two_rules.read("generated/e2.item") == "e2 of elm\n"


@WORKERS
def test_an_edit_goes_through_the_whole_chain_in_one_run(
    two_rules: Project, workers: list[str]
) -> None:
    right(two_rules)
    two_rules.write("specs/ash.toml", 'name = "oak"\nitems = [{id = "a1"}, {id = "a2"}]\n')
    info = two_rules.doit("info")
    assert "  ash.txt, all.txt, a1.item\n    after ash.json\n" in info.out
    right(two_rules, *workers)
    assert two_rules.read("generated/ash.txt") == "text of oak\n"
    assert two_rules.read("generated/all.txt") == "oak\nelm\n"
    assert two_rules.read("generated/a2.item") == "a2 of oak\n"


@WORKERS
def test_what_a_removed_pattern_made_is_no_pattern_any_more(
    two_rules: Project, workers: list[str]
) -> None:
    right(two_rules)
    two_rules.remove("specs/elm.toml")
    result = two_rules.doit(*workers)
    assert result.code == 0, result
    assert two_rules.read("generated/all.txt") == "ash\n"
    assert two_rules.exists("generated/elm.json"), "an orphan stays until it is pruned"


def test_a_target_of_the_chain_can_be_selected_before_anything_was_built(
    two_rules: Project,
) -> None:
    assert two_rules.doit("generated/e2.item").code == 0
    assert two_rules.read("generated/e2.item") == "e2 of elm\n"
    assert not two_rules.exists("generated/ash.txt")


def test_info_tells_which_rule_will_make_more_before_its_patterns_are_made(
    two_rules: Project,
) -> None:
    expected = "rule item: further targets after generate:ash.json, generate:elm.json"
    assert expected in two_rules.doit("info").out.splitlines()
    known = json.loads(two_rules.doit("info", "--json").out)
    assert known["unknown"] == [
        {"rule": "item", "after": ["generate:ash.json", "generate:elm.json"]}
    ]
    right(two_rules)
    assert json.loads(two_rules.doit("info", "--json").out)["unknown"] == []


def test_an_item_that_the_chain_drops_is_an_orphan(two_rules: Project) -> None:
    right(two_rules)
    two_rules.write("specs/elm.toml", 'name = "elm"\nitems = [{id = "e1"}]\n')
    right(two_rules)
    orphans = json.loads(two_rules.doit("info", "--json").out)["orphans"]
    assert orphans == [{"path": "generated/e2.item", "edited": False}]


def test_a_failure_stops_what_hangs_on_it_and_no_more(two_rules: Project) -> None:
    two_rules.write("specs/ash.toml", "items = []\n")
    result = two_rules.doit("-c")
    assert result.code == 1
    assert two_rules.read("generated/elm.txt") == "text of elm\n"
    assert not two_rules.exists("generated/all.txt")
    two_rules.write("specs/ash.toml", 'name = "ash"\nitems = []\n')
    right(two_rules)
    assert two_rules.read("generated/all.txt") == "ash\nelm\n"


LEVELS = """
codegen.rule("data", template="data.j2", patterns="specs/*.toml", target="{stem}.json")
codegen.rule("item", template="item.j2", patterns="generated/*.json", target="items/{id}.json",
             each="items")
"""
LAST = """
{0}.rule("last", template="last.j2", patterns="generated/items/*.json", target="{{id}}.last")
{0}.rule("all", template="all.j2", patterns="generated/items/*.json", target="all.txt")


def task_hello():
    return {{"actions": ["echo hello"]}}
"""
SECOND = """
second = Codegen(name="second", output="second", state=".second")
"""


@pytest.fixture(params=["one", "two", "two, last first"])
def levels(request: pytest.FixtureRequest, empty_project: Project) -> Project:
    """Return a project where names of targets come from what is itself named so."""
    project = empty_project
    second = SECOND + LAST.format("second")
    rules = {
        "one": LEVELS + LAST.format("codegen"),
        "two": LEVELS + second,
        "two, last first": second + LEVELS,
    }
    project.write("dodo.py", HEAD + rules[request.param])
    project.write("templates/data.j2", '{"items": {{ items|tojson }}}')
    project.write("templates/item.j2", '{"id": "{{ id }}"}')
    project.write("templates/last.j2", "last {{ id }}")
    project.write("templates/all.j2", "{% for p in patterns %}{{ p.id }} {% endfor %}")
    project.write("specs/ash.toml", 'items = [{id = "a"}, {id = "b"}]\n')
    return project


def made_last(project: Project, name: str) -> str:
    found = list(project.path.glob(f"*/{name}"))
    assert len(found) == 1, found
    return found[0].read_text()


@WORKERS
def test_what_has_its_name_from_a_pattern_can_name_others_in_turn(
    levels: Project, workers: list[str]
) -> None:
    right(levels, *workers)
    assert (made_last(levels, "b.last"), made_last(levels, "all.txt")) == ("last b", "a b ")
    levels.write("specs/ash.toml", 'items = [{id = "a"}, {id = "c"}]\n')
    right(levels, *workers)
    assert (made_last(levels, "c.last"), made_last(levels, "all.txt")) == ("last c", "a c ")
    left = levels.read("generated/items/b.json")
    assert left == '{"id": "b"}', "what is to be an orphan was not made again as something else"


def test_a_task_that_needs_nothing_of_ours_makes_no_patterns_first(levels: Project) -> None:
    result = levels.doit("hello")
    assert (result.code, result.out.splitlines()) == (0, [".  hello"])
    assert not levels.exists("generated")


def test_a_rule_that_finds_nothing_at_last_is_refused_as_ever(levels: Project) -> None:
    levels.write("specs/ash.toml", "items = []\n")
    for command in ("run", "run", "info"):
        result = levels.doit(command)
        assert result.code == 3
        assert result.err.startswith("ERROR: rule last: no file matches generated/items/*.json\n")
        assert "Traceback" not in result.err
    levels.write("specs/ash.toml", 'items = [{id = "a"}]\n')
    right(levels)
    levels.write("specs/ash.toml", "items = 5\n")
    assert levels.doit("-c").code == 1


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        (
            'codegen.rule("b", template="x.j2", patterns="generated/*.json", target="b.txt")\n'
            'codegen.rule("a", template="x.j2", target="a.json")',
            "rule b: its pattern generated/a.json is made by rule a\n"
            "  hint: declare rule a first\n",
        ),
        (
            'codegen.rule("z", template="x.j2", target="z.json")\n'
            'codegen.rule("b", template="x.j2", patterns="generated/**/*.json", target="{stem}")\n'
            'codegen.rule("c", template="x.j2", target="c/z.json")',
            "rule b: its pattern generated/c/z.json is made by rule c\n"
            "  hint: declare rule c first\n",
        ),
    ],
)
def test_a_rule_over_later_targets_is_refused(
    empty_project: Project, rules: str, error: str
) -> None:
    empty_project.write("templates/x.j2", "{}")
    empty_project.write("dodo.py", HEAD + rules)
    result = empty_project.doit("info")
    assert (result.code, result.err) == (3, f"ERROR: {error}")


def test_a_pattern_that_somebody_wrote_in_the_output_folder_is_one(two_rules: Project) -> None:
    two_rules.write("generated/own.json", '{"name": "own", "items": []}\n')
    right(two_rules)
    assert two_rules.read("generated/all.txt") == "ash\nelm\nown\n"
    two_rules.remove("specs/elm.toml")
    assert two_rules.doit().code == 0
    assert two_rules.read("generated/all.txt") == "ash\nown\n"


# Tasks of the user's ----------------------------------------------------------------------


@pytest.fixture
def tasks_first(empty_project: Project) -> Project:
    """Return a project in which other tasks make pattern, template, include and read file."""
    project = empty_project
    project.write(
        "dodo.py",
        HEAD
        + """
codegen.rule("page", template="made.j2", patterns="patterns/*.toml", target="{stem}.txt")
codegen.rule("named", template="named.j2", patterns="patterns/*.toml", target="{name}.named")


def copied(source, target):
    def copy(targets):
        pathlib.Path(targets[0]).parent.mkdir(exist_ok=True)
        pathlib.Path(targets[0]).write_text(pathlib.Path(source).read_text())
    return {"actions": [copy], "file_dep": [source], "targets": [target]}


def task_make():
    for source, target in [
        ("in/pattern", "patterns/made.toml"),
        ("in/template", "templates/made.j2"),
        ("in/part", "./templates/part.j2"),
        ("in/text", "made.text"),
    ]:
        yield {"name": source[3:], **copied(source, target)}
""",
    )
    project.write("templates/named.j2", "{{ name }}{{ read_text('made.text') }}")
    project.write("in/pattern", 'name = "one"\n')
    project.write("in/template", "{% include 'part.j2' %} {{ name }}\n")
    project.write("in/part", "part")
    project.write("in/text", "text\n")
    return project


@WORKERS
def test_patterns_templates_and_read_files_that_tasks_make_are_made_first(
    tasks_first: Project, workers: list[str]
) -> None:
    result = tasks_first.doit(*workers, "generate")
    assert result.code == 0, result
    assert tasks_first.read("generated/made.txt") == "part one\n"
    assert tasks_first.read("generated/one.named") == "onetext\n"
    right(tasks_first, *workers)
    for name, text in [("part", "PART"), ("text", "TEXT\n"), ("pattern", 'name = "two"\n')]:
        tasks_first.write(f"in/{name}", text)
    tasks_first.remove("generated/one.named")
    right(tasks_first, *workers)
    assert tasks_first.read("generated/made.txt") == "PART two\n"
    assert tasks_first.read("generated/two.named") == "twoTEXT\n"


def test_info_tells_what_follows_from_a_task_that_would_run(tasks_first: Project) -> None:
    right(tasks_first)
    tasks_first.write("in/part", "PART")
    result = tasks_first.doit("info")
    assert "after make:part" in result.out
    assert "other tasks: make:part (run)" in result.out


def test_a_file_that_is_only_read_is_made_by_its_task_first(project: Project) -> None:
    project.write("templates/plain.txt.j2", "{{ read_toml('notes.toml').a }}")
    project.write("notes.toml", "a = 1\n")
    project.write(
        "dodo.py",
        project.read("dodo.py")
        + """

def task_zz():
    return {"actions": ["echo a = 2 > notes.toml"], "targets": ["notes.toml"]}
""",
    )
    result = project.doit("generated/plain.txt")
    assert result.code == 0, result.out + result.err
    assert project.read("generated/plain.txt") == "2"


def test_without_the_task_that_makes_it_a_template_is_missed_as_ever(tasks_first: Project) -> None:
    dodo = tasks_first.read("dodo.py").replace('("in/template", "templates/made.j2"),', "")
    tasks_first.write("dodo.py", dodo)
    result = tasks_first.doit()
    assert result.code == 3
    assert result.err.startswith("ERROR: rule page: there is no template templates/made.j2\n")
    assert "Traceback" not in result.err
    assert tasks_first.doit(*THREADS).err == result.err
    for command in (["info"], ["list"], ["diff"], ["prune"]):
        assert "Traceback" not in tasks_first.codegen(*command).err


# Files that templates read ----------------------------------------------------------------


READS = """
codegen.rule("first", template="first.j2", patterns="specs/*.toml", target="first.txt")
codegen.rule("data", template="data.j2", patterns="specs/*.toml", target="z/{stem}.json")
"""


@pytest.fixture
def reads(empty_project: Project) -> Project:
    """Return a project whose first target reads what later ones are."""
    project = empty_project
    project.write("dodo.py", HEAD + READS)
    project.write("templates/data.j2", '{"name": "{{ name }}"}\n')
    project.write(
        "templates/first.j2",
        "{% for p in patterns %}"
        "{{ read_json('generated/z/' ~ p.pattern.stem ~ '.json').name }}\n{% endfor %}",
    )
    for name in ("ash", "elm"):
        project.write(f"specs/{name}.toml", f'name = "{name}"\n')
    return project


@WORKERS
def test_a_template_reads_targets_of_other_steps(reads: Project, workers: list[str]) -> None:
    right(reads, *workers)
    assert reads.read("generated/first.txt") == "ash\nelm\n"
    reads.write("specs/elm.toml", 'name = "oak"\n')
    right(reads, *workers)
    assert reads.read("generated/first.txt") == "ash\noak\n"


def test_what_a_selected_target_reads_is_made_though_nobody_selected_it(reads: Project) -> None:
    assert reads.doit("generate:first.txt").code == 0
    assert reads.read("generated/first.txt") == "ash\nelm\n"
    reads.write("specs/elm.toml", 'name = "oak"\n')
    assert reads.doit("generate:first.txt").code == 0
    assert reads.read("generated/first.txt") == "ash\noak\n"


@WORKERS
def test_steps_that_read_each_other_fail_and_say_so(reads: Project, workers: list[str]) -> None:
    reads.write("templates/data.j2", "{{ read_text('generated/first.txt') }}")
    result = reads.doit("-c", *workers)
    assert result.code == 1
    assert "waits for it in turn" in result.out
    assert "Traceback" not in result.out + result.err
    reads.write("templates/data.j2", '{"name": "{{ name }}"}\n')
    right(reads, *workers)
    assert reads.read("generated/first.txt") == "ash\nelm\n"


@WORKERS
def test_two_steps_that_exchange_roles_are_no_circle(reads: Project, workers: list[str]) -> None:
    right(reads)
    reads.write("templates/first.j2", '{"name": "first"}\n')
    reads.write("templates/data.j2", "{{ read_json('generated/first.txt').name }}{{ name }}\n")
    right(reads, *workers)
    assert reads.read("generated/z/ash.json") == "firstash\n"


def test_a_step_cannot_read_its_own_target(reads: Project) -> None:
    reads.write("templates/data.j2", "{{ read_text('generated/z/ash.json') }}")
    result = reads.doit("generate:z/ash.json")
    assert result.code == 1
    assert "generated/z/ash.json: is what this step makes, so it cannot read it" in result.out


@WORKERS
def test_what_reads_the_file_of_a_failing_step_is_not_run(
    reads: Project, workers: list[str]
) -> None:
    reads.write("specs/elm.toml", "other = 1\n")
    for _ in range(2):  # when it is found out, and when it is known from the last run
        result = reads.doit(*workers, "-c")
        assert result.code == 1
        assert re.search(r"\b1 failed, 1 not run in ", result.out)
        assert "failed: generate:first.txt" not in result.out
    assert "never built\n    → first.txt\n" in reads.doit("info").out
    reads.write("specs/elm.toml", 'name = "elm"\n')
    right(reads, *workers)


@WORKERS
def test_a_compiled_file_can_be_read_and_be_a_pattern(
    empty_project: Project, workers: list[str]
) -> None:
    project = empty_project
    project.write(
        "dodo.py",
        HEAD
        + """
from codegen_tasks import Toolchain
up = Toolchain("up", ["tools/up", "{source}", "{target}"], ".json")
codegen.rule("a", template="a.j2", patterns="specs/*.toml", target="{stem}.txt", compile=up)
codegen.rule("b", template="b.j2", patterns="generated/*.json", target="{stem}.b")
codegen.rule("c", template="c.j2", target="c.txt")
""",
    )
    project.write("tools/up", '#!/bin/sh\ntr a-z A-Z < "$1" > "$2"\n').chmod(0o755)
    project.write("templates/a.j2", '{"name": "{{ name }}"}\n')
    project.write("templates/b.j2", "{{ NAME }}\n")
    project.write("templates/c.j2", "{{ read_text('generated/ash.json') }}")
    project.write("specs/ash.toml", 'name = "ash"\n')
    right(project, *workers)
    assert project.read("generated/ash.b") == "ASH\n"
    project.write("specs/ash.toml", 'name = "oak"\n')
    right(project, *workers)
    assert project.read("generated/ash.b") == "OAK\n"
    assert project.read("generated/c.txt") == '{"NAME": "OAK"}\n'


def test_a_pattern_written_in_the_tick_of_its_render_is_settled_when_the_run_ends(
    empty_project: Project,
) -> None:
    project = empty_project
    project.write(
        "dodo.py",
        HEAD
        + """
def write():
    pathlib.Path("patterns").mkdir(exist_ok=True)
    pathlib.Path("patterns/a.toml").write_text("name = 1")


def task_write():
    return {"actions": [write], "targets": ["patterns/a.toml"], "uptodate": [True]}


codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")
""",
    )
    project.write("templates/page.j2", "{{ name }}")
    for _ in range(3):
        right(project)
        project.remove("patterns/a.toml")
        project.remove("generated/a.txt")


def test_an_action_that_doit_refuses_when_it_runs_is_told_without_a_traceback(
    levels: Project,
) -> None:
    wrong = (
        'def wrong(targets=None):\n    pass\n\n\ndef task_wrong():\n    return {"actions": [wrong]}'
    )
    levels.write("dodo.py", f"{levels.read('dodo.py')}\n\n{wrong}\n")
    result = levels.doit("-n", "2", "wrong")
    assert result.code == 2
    assert "Task wrong, action wrong():" in result.out + result.err
    assert "Traceback" not in result.out + result.err
