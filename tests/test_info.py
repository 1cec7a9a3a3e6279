"""doit info: what is stale and why, what follows, what is orphaned; and its exit code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import jsonschema
import pytest
from conftest import Project


@pytest.fixture
def built(project: Project) -> Project:
    """Return the small project after its first build."""
    assert project.doit().code == 0
    return project


def info(project: Project, *arguments: str) -> Any:
    return json.loads(project.doit("info", "--json", *arguments).out)


def reasons(project: Project) -> dict[str, list[str]]:
    """Return the wording of each stale step's reasons."""
    return {s["task"]: [r["text"] for r in s["reasons"]] for s in info(project)["stale"]}


def test_a_built_project_is_up_to_date_with_exit_code_0(built: Project) -> None:
    result = built.doit("info")
    assert (result.code, result.out) == (0, "5 targets up to date\n")


def test_before_the_first_build_all_is_stale_with_exit_code_1(project: Project) -> None:
    result = project.doit("info")
    assert result.code == 1
    assert "never built" in result.out
    assert "5 templates to parse\n5 stale, 0 to follow, 0 up to date\n" in result.out


def test_a_changed_template_is_named_with_its_digests(built: Project) -> None:
    built.write("templates/plain.txt.j2", "new\n")
    found = reasons(built)
    assert set(found) == {"templates:plain.txt.j2", "generate:plain.txt"}
    (text,) = found["generate:plain.txt"]
    assert text.startswith("templates/plain.txt.j2: ")
    assert "… → " in text


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (("patterns/ash.toml", 'name = "x"\ngain = 0\n'), 'patterns/ash.toml: name "ash" → "x"'),
        (("templates/macros.j2", "{% macro title(x) %}{% endmacro %}"), "templates/macros.j2: "),
        (("generated/ash.txt", "x"), "generated/ash.txt: edited"),
    ],
)
def test_each_kind_of_edit_has_its_reason(
    built: Project, edit: tuple[str, str], expected: str
) -> None:
    built.write(*edit)
    assert any(text.startswith(expected) for text in reasons(built)["generate:ash.txt"])


def test_a_changed_filter_an_option_and_a_rule_have_theirs(built: Project) -> None:
    dodo = built.read("dodo.py")
    built.write("dodo.py", dodo.replace('"!"', '"?"'))
    assert any(t == "filter shout: source changed" for t in reasons(built)["generate:ash.txt"])
    built.write("dodo.py", dodo.replace("trim_blocks", "lstrip_blocks"))
    found = reasons(built)["generate:plain.txt"]
    assert found == [
        "environment trim_blocks: True → default",
        "environment lstrip_blocks: default → True",
    ]
    built.write("dodo.py", dodo.replace('template="plain.txt.j2"', 'template="base.j2"'))
    found = reasons(built)["generate:plain.txt"]
    assert found == ["rule plain: template plain.txt.j2 → base.j2", "templates/base.j2: added"]


def test_an_added_and_a_removed_pattern_are_reasons_of_the_list(built: Project) -> None:
    built.write("patterns/oak.toml", 'name = "oak"\ngain = 0\n')
    built.remove("patterns/ash.toml")
    found = reasons(built)
    assert found["generate:list.txt"] == [
        "patterns/ash.toml: removed",
        "patterns/oak.toml: added",
    ]
    assert found["generate:oak.txt"] == ["never built"]


def test_a_missing_target_is_a_reason(built: Project) -> None:
    built.remove("generated/ash.txt")
    assert reasons(built) == {"generate:ash.txt": ["generated/ash.txt: missing"]}


def test_orphans_are_listed_and_hand_edited_ones_marked(built: Project) -> None:
    built.remove("patterns/ash.toml")
    built.remove("patterns/birch.toml")
    built.write("generated/birch.txt", "mine")
    assert info(built)["orphans"] == [
        {"path": "generated/ash.txt", "edited": False},
        {"path": "generated/birch.txt", "edited": True},
    ]
    out = built.doit("info").out
    assert (
        "made by no rule any more, remove them if nothing needs them:\n"
        "  generated/ash.txt\n"
        "  generated/birch.txt (edited by hand)\n"
        "  hint: python -m codegen_tasks prune removes those that nobody edited\n"
    ) in out
    built.remove("generated/ash.txt")
    hint = "  hint: python -m codegen_tasks prune --edited keeps them aside first\n"
    assert hint in built.doit("info").out
    built.write(
        "pyproject.toml",
        '[tool.doit.plugins.command]\nprune = "codegen_tasks.commands.prune:Prune"\n',
    )
    assert "  hint: doit prune --edited keeps them aside first\n" in built.doit("info").out


def test_what_a_stale_step_feeds_is_listed_as_to_follow(built: Project) -> None:
    dodo = built.read("dodo.py").replace('target="plain.txt")', 'target="m.py", compile="python")')
    built.write("dodo.py", dodo)
    built.write("templates/plain.txt.j2", "x = 1\n")
    assert built.doit().code == 0
    built.write("templates/plain.txt.j2", "x = 2\n")
    found = info(built)
    assert [s["task"] for s in found["follows"]] == ["compile:m.pyc"]
    assert found["follows"][0]["follows"] == ["generate:m.py"]
    assert "  m.pyc\n    after m.py\n" in built.doit("info").out


def test_info_of_a_task_tells_what_it_was_made_from_and_what_depends_on_it(built: Project) -> None:
    """Its pattern and the keys read of it, its templates as they load each other, its filters."""
    built.write(
        "dodo.py",
        built.read("dodo.py")
        + "\ndef task_ship():\n    return {'actions': [], 'file_dep': ['generated/ash.txt']}\n",
    )
    result = built.doit("info", "generate:ash.txt")
    assert result.code == 0
    made = re.search(r"^  made .*", result.out, re.MULTILINE)
    assert made is not None
    assert re.fullmatch(
        r"  made          \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, took \d+\.\d ms", made[0]
    )
    environment = re.search(r"^  environment .*\n(?: {16}.*\n)*", result.out, re.MULTILINE)
    assert environment is not None
    assert environment[0].startswith("  environment   trim_blocks True, sandbox False, jinja2 3.")
    assert result.out.replace(made[0], "  made").replace(environment[0], "") == (
        """\
generated/ash.txt
  status        up to date
  task          generate:ash.txt
  template      templates/page.txt.j2
  pattern       patterns/ash.toml
  rule          page
  made
what it read; it is stale when any of this changes:
  patterns      patterns/ash.toml: name, gain
  templates     templates/page.txt.j2
                ├─ templates/base.j2
                └─ templates/macros.j2
  filters       shout
  rule          its template=, each= and patterns=
  itself        as it was made: not edited, not missing
what depends on it:
  tasks         ship
"""
    )


def test_with_all_info_shows_what_doit_knows_of_the_task_too(built: Project) -> None:
    out = built.doit("info", "--all", "ash.txt").out
    assert "\nfile_dep   : \n - patterns/ash.toml\n - templates/base.j2\n" in out
    assert "\ntask_dep   : \n - templates:page.txt.j2\n" in out
    assert "\ntargets    : \n - generated/ash.txt\n" in out
    assert "meta" not in out


def test_info_takes_a_target_and_options_after_it(built: Project) -> None:
    found = info(built, "generated/ash.txt")
    assert found["task"] == "generate:ash.txt"
    assert info(built, "ash.txt") == info(built, "./generated/ash.txt") == found
    after = built.doit("info", "generated/ash.txt", "--json")
    assert json.loads(after.out) == found
    built.remove("generated/ash.txt")
    assert built.doit("info", "generated/ash.txt").code == 1


def test_info_of_something_unknown_is_an_error(built: Project) -> None:
    result = built.doit("info", "generate:nothing")
    assert result.code == 3
    assert 'nvalid parameter: "generate:nothing"' in result.err
    result = built.doit("info", "generated/asch.txt")
    assert result.code == 3
    assert "  hint: did you mean 'generated/ash.txt'?\n" in result.err


def test_other_tasks_are_listed_apart_and_leave_the_exit_code_alone(built: Project) -> None:
    built.write(
        "dodo.py", built.read("dodo.py") + "\ndef task_hi():\n    return {'actions': ['echo hi']}\n"
    )
    result = built.doit("info")
    assert result.code == 0
    assert "other tasks: hi (run)" in result.out


def test_info_says_what_doit_then_does(built: Project) -> None:
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    built.write("patterns/oak.toml", 'name = "oak"\ngain = 0\n')
    said = {task for task in reasons(built) if task.startswith("generate:")}
    out = built.doit().out
    assert {line[3:] for line in out.splitlines() if line.startswith(".  ")} == said


def test_targets_are_listed_by_cause_and_what_many_share_comes_first(built: Project) -> None:
    built.write("patterns/birch.toml", 'name = "birch"\ngain = 7\n')
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    assert built.doit("info").out == (
        """\
stale:
  templates/macros.j2: changed
    → ash.txt, birch.txt, cedar.txt
  patterns/birch.toml: gain 1 → 7
    → birch.txt
1 template to parse: macros.j2
3 stale, 0 to follow, 2 up to date
"""
    )


def test_of_many_targets_the_first_are_named_unless_all_are_asked_for(built: Project) -> None:
    for number in range(210):
        built.write(f"patterns/p{number:03}.toml", f'name = "p{number}"\ngain = 0\n')
    assert built.doit().code == 0
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    said = "    → 213 targets: ash.txt, birch.txt, cedar.txt and 210 more\n"
    assert said in built.doit("info").out
    out = built.doit("info", "--all").out
    assert "p007.txt" in out
    assert "more" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_of_many_causes_the_others_are_counted_by_kind(built: Project) -> None:
    for number in range(30):
        built.write(f"patterns/p{number:03}.toml", f'name = "p{number}"\ngain = 0\n')
    assert built.doit().code == 0
    for number in range(30):
        built.write(f"patterns/p{number:03}.toml", f'name = "p{number}"\ngain = 1\n')
    out = built.doit("info").out
    assert out.count("gain 0 → 1") == 20
    assert (
        "  and 10 more patterns changed → 10 targets\n"
        "  hint: --all shows each of them\n"
        "30 stale, 0 to follow, 5 up to date\n"
    ) in out
    assert built.doit("info", "--all").out.count("gain 0 → 1") == 30


def test_what_follows_many_steps_is_counted_by_rule(built: Project) -> None:
    built.write(
        "dodo.py",
        built.read("dodo.py").replace(
            'target="{stem}.txt")', 'target="{stem}.py", compile="python")'
        ),
    )
    built.write("templates/page.txt.j2", "x = {{ gain }}\n")
    for number in range(30):
        built.write(f"patterns/p{number:03}.toml", f'name = "p{number}"\ngain = 0\n')
    assert built.doit().code == 0
    built.write("templates/page.txt.j2", "y = {{ gain }}\n")
    assert (
        "to follow, if what they are made from changes:\n"
        "  33 targets compiled by rule page: ash.pyc, birch.pyc, cedar.pyc and 30 more\n"
    ) in built.doit("info").out


def test_several_keys_of_one_pattern_are_one_cause(built: Project) -> None:
    built.write("patterns/ash.toml", 'name = "oak"\ngain = 9\n')
    out = built.doit("info").out
    assert '  patterns/ash.toml: name "ash" → "oak", gain 0 → 9\n    → ash.txt, list.txt\n' in out


def test_missing_targets_are_one_cause(built: Project) -> None:
    built.remove("generated/ash.txt")
    built.remove("generated/birch.txt")
    assert (
        "stale:\n  the target itself is missing\n    → ash.txt, birch.txt\n"
        in built.doit("info").out
    )


def test_hand_edits_have_a_section_that_says_what_becomes_of_them(built: Project) -> None:
    built.write("generated/ash.txt", "mine")
    result = built.doit("info")
    assert result.code == 1
    assert result.out == (
        """\
edited by hand; doit keeps a copy in .codegen/kept/ and makes them anew:
  generated/ash.txt
1 stale, 0 to follow, 4 up to date
"""
    )


def test_a_tree_shows_templates_targets_and_what_follows(built: Project) -> None:
    built.write("templates/mid.j2", '{% import "macros.j2" as m %}{{ m.title(name) }}\n')
    built.write("templates/page.txt.j2", '{% include "mid.j2" %}x = {{ gain }}\n')
    built.write(
        "dodo.py",
        built.read("dodo.py")
        + 'codegen.rule("data", template="data.j2", patterns="patterns/*.toml", '
        'target="{stem}.json")\n'
        'codegen.rule("sum", template="sum.j2", patterns="generated/*.json", target="sum.txt")\n',
    )
    built.write("templates/data.j2", '{% import "macros.j2" as m %}{"x": "{{ m.title(name) }}"}')
    built.write("templates/sum.j2", "{% for p in patterns %}{{ p.x }}\n{% endfor %}")
    assert built.doit().code == 0
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    assert built.doit("info", "--tree").out == (
        """\
templates/macros.j2: changed
├─ templates/mid.j2
│  └─ templates/page.txt.j2
│     ├─ ash.txt
│     ├─ birch.txt
│     └─ cedar.txt
└─ templates/data.j2
   ├─ ash.json
   │  └─ sum.txt
   ├─ birch.json
   │  └─ sum.txt
   └─ cedar.json
      └─ sum.txt
1 template to parse: macros.j2
6 stale, 1 to follow, 2 up to date
"""
    )


def test_a_tree_is_of_all_targets(built: Project) -> None:
    result = built.doit("info", "--tree", "ash.txt")
    assert (result.code, result.out) == (3, "")
    assert "ERROR: `info --tree` takes no name: it is for all targets" in result.err


def test_a_tree_names_the_first_of_many_and_counts_the_others(built: Project) -> None:
    for number in range(30):
        built.write(f"patterns/p{number:03}.toml", f'name = "p{number}"\ngain = 0\n')
    assert built.doit().code == 0
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    assert "   ├─ cedar.txt\n   └─ and 30 more\n" in built.doit("info", "--tree").out
    assert "   └─ p029.txt\n" in built.doit("info", "--tree", "--all").out


def test_what_follows_the_stale_step_of_another_codegen_is_listed(project: Project) -> None:
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        one = Codegen(output="data", name="one")
        one.rule("data", template="data.j2", patterns="patterns/*.toml", target="{stem}.json")
        two = Codegen(output="text", name="two")
        two.rule("text", template="text.j2", patterns="data/*.json", target="{stem}.txt")
        DOIT_CONFIG = one.doit_config
        """,
    )
    project.remove("templates/page.txt.j2")
    project.write("templates/data.j2", '{"name": "{{ name }}"}')
    project.write("templates/text.j2", "{{ name }}\n")
    assert project.doit().code == 0
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    found = info(project)
    assert [s["task"] for s in found["stale"]] == ["one.generate:ash.json"]
    assert [(s["task"], s["follows"]) for s in found["follows"]] == [
        ("two.generate:ash.txt", ["one.generate:ash.json"])
    ]
    out = project.doit("info").out
    assert "  text/ash.txt\n    after one.generate:ash.json\n" in out
    assert "after one.generate:ash.json\n" in project.doit("info", "text/ash.txt").out
    dependents = info(project, "data/ash.json")["dependents"]
    assert dependents == {"compiles": [], "renders": ["two.generate:ash.txt"], "tasks": []}


@pytest.mark.parametrize("snapshot", [True, False])
def test_what_depends_on_a_target_is_known_from_what_steps_have_read(
    built: Project, snapshot: bool
) -> None:
    """With the snapshot, which knows all readers, and without, from the records of all steps."""
    built.write("templates/plain.txt.j2", "{{ read_text('generated/ash.txt') }}")
    wild = "\ndef task_all():\n    return {'actions': [], 'task_dep': ['generate:a*']}\n"
    named = "\ndef task_one():\n    return {'actions': [], 'setup': ['generate:ash.txt']}\n"
    group = "\ndef task_every():\n    return {'actions': [], 'task_dep': ['generate']}\n"
    none = "\ndef task_none():\n    return {'actions': [], 'task_dep': ['generate:birch.txt']}\n"
    built.write("dodo.py", built.read("dodo.py") + wild + named + group + none)
    assert built.doit().code == 0
    if not snapshot:
        built.remove(".codegen/snapshot")
    assert info(built, "ash.txt")["dependents"] == {
        "compiles": [],
        "renders": ["generate:plain.txt"],
        "tasks": ["all", "one", "every"],
    }
    readers = ["generate:ash.txt", "generate:birch.txt", "generate:cedar.txt"]
    assert info(built, "templates:macros.j2")["dependents"]["renders"] == readers
    assert info(built, "templates:plain.txt.j2")["dependents"]["renders"] == ["generate:plain.txt"]


def test_a_task_of_the_users_is_told_as_doit_does_whatever_it_hangs_on(built: Project) -> None:
    built.write(
        "dodo.py",
        built.read("dodo.py")
        + """
from doit.task import result_dep


def task_ship():
    return {
        "actions": ["echo"],
        "uptodate": [result_dep("generate:ash.txt")],
        "targets": ["patterns/made.toml"],
    }
""",
    )
    result = built.doit("info", "ship")
    assert (result.code, result.err) == (1, "")
    assert "task_dep   : \n - generate:ash.txt" in result.out
    told = built.doit("info", "list.txt")
    assert (told.code, told.err) == (1, "")
    assert "- after ship\n" in told.out


@pytest.mark.slow
def test_a_long_chain_is_no_error(empty_project: Project) -> None:
    """Longer than Python's stack is deep."""
    lines = [
        "from codegen_tasks import Codegen",
        "codegen = Codegen(templates='t')",
        "codegen.rule('r0', template='x', patterns='p/*.json', target='0.json')",
        *(
            f"codegen.rule('r{n}', template='x', patterns='generated/{n - 1}.json', "
            f"target='{n}.json')"
            for n in range(1, 400)
        ),
        "DOIT_CONFIG = codegen.doit_config",
    ]
    empty_project.write("dodo.py", "\n".join(lines))
    empty_project.write("t/x", '{"x": {{ patterns[0].x }}}')
    empty_project.write("p/one.json", '{"x": 1}')
    assert empty_project.doit().code == 0
    empty_project.write("p/one.json", '{"x": 2}')
    assert info(empty_project, "399.json")["follows"] == ["generate:398.json"]
    assert len(info(empty_project)["follows"]) == 399
    tree = empty_project.doit("info", "--tree", "--all").out
    assert tree.count("└─ ") == 400


def test_lines_are_as_wide_as_the_cells_they_fill(built: Project) -> None:
    for number in range(11):
        built.write(f"patterns/名前の長い模様{number}.toml", 'name = "n"\ngain = 0\n')
    out = built.doit("info").out
    lines = out.splitlines()
    wide = [sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in x) for x in lines]
    assert max(wide) <= 80
    assert "名前の長い模様10.txt" in out


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no such terminals here")
@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["plain", "NO_COLOR", "dumb"],
)
def test_colours_are_for_terminals_and_not_with_no_color(
    built: Project, environ: dict[str, str], coloured: bool
) -> None:
    built.write("templates/plain.txt.j2", "new\n")
    whole = {**built.environ, "NO_COLOR": "", "TERM": "xterm", **environ}
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "doit", "info"], cwd=built.path, env=whole, stdout=theirs
    ) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # Linux has the end of a terminal be an error
            while more := os.read(ours, 4096):
                said += more
    os.close(ours)
    assert process.returncode == 1
    assert b"plain.txt" in said
    assert (b"\033[33m" in said) == coloured
    assert "\033" not in built.doit("info", **{**environ, "NO_COLOR": ""}).out


def test_a_pipe_that_nobody_reads_is_no_error(built: Project) -> None:
    for number in range(2000):
        built.write(f"patterns/p{number:04}.toml", f'name = "p{number}"\ngain = 0\n')
    command = f'"{sys.executable}" -m doit info --all | head -n 1'
    result = built.run("sh", "-c", command)
    assert (result.out, result.err) == ("stale:\n", "")


# As data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> Any:
    """Return the published schema, under which a field that it does not name is refused."""
    text = resources.files("codegen_tasks.commands").joinpath("info.schema.json").read_text("utf-8")
    found = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(found)
    closed = dict(found["$defs"])
    for table in tables(closed):
        if "properties" in table:
            table["unevaluatedProperties"] = table.get("type") != "object"
    for shared in ("step", "reason"):
        del closed[shared]["unevaluatedProperties"]
    return found


def tables(data: Any) -> Iterator[dict[str, Any]]:
    """Yield all tables inside of JSON data."""
    if isinstance(data, dict):
        yield data
    for part in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from tables(part)


def broken(project: Project) -> None:
    project.write("patterns/ash.toml", "name = 1 2\n")
    project.doit("-c")


def gone(project: Project) -> None:
    project.remove("patterns/ash.toml")
    project.write("generated/ash.txt", "mine")
    project.remove("generated/birch.txt")


def edited(project: Project) -> None:
    project.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    project.write("generated/birch.txt", "mine")


def declared(project: Project) -> None:
    dodo = project.read("dodo.py").replace("trim_blocks", "lstrip_blocks").replace('"!"', '"?"')
    task = "\ndef task_hi():\n    return {'actions': ['echo hi']}\n"
    project.write("dodo.py", dodo.replace('plain.txt")', 'm.py", compile="python")') + task)


def late(project: Project) -> None:
    project.write(
        "dodo.py",
        project.read("dodo.py")
        + 'codegen.rule("late", template="list.txt.j2", patterns="made/*.toml", target="{key}.x")\n'
        "\n\ndef task_make():\n"
        "    return {'actions': ['false'], 'targets': ['made/one.toml']}\n",
    )


@pytest.fixture(scope="module")
def validator(schema: Any) -> Any:
    """Return what holds data against the schema; made once, for that takes long."""
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("change", [None, broken, gone, edited, declared, late])
@pytest.mark.parametrize("first", ["built", "new"])
def test_what_programs_read_is_as_its_schema_says(
    project: Project, validator: Any, first: str, change: Callable[[Project], None] | None
) -> None:
    if first == "built":
        assert project.doit().code == 0
    if change is not None and (first == "built" or change is not gone):
        change(project)
    whole = info(project)
    validator.validate(whole)
    named = {state["task"] for state in (*whole["stale"], *whole["follows"])} - {"output"}
    for task in [*named, "generate:list.txt", "templates:base.j2"]:
        validator.validate(info(project, task))


def test_info_prints_its_schema(built: Project, schema: Any) -> None:
    result = built.doit("info", "--schema")
    assert result.code == 0
    assert json.loads(result.out)["$id"] == schema["$id"] == "urn:codegen-tasks:info:1"


def test_causes_are_there_for_programs_too(built: Project) -> None:
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    (cause,) = info(built)["causes"]
    assert cause["text"] == "templates/macros.j2: changed"
    assert cause["tasks"] == ["generate:ash.txt", "generate:birch.txt", "generate:cedar.txt"]


# How little it does ------------------------------------------------------------------------

COUNTING = """
import atexit
from codegen_tasks.build import Build

asked = []
verdict = Build.verdict


def counted(self, step, values):
    asked.append(step.task)
    return verdict(self, step, values)


Build.verdict = counted
atexit.register(lambda: print("asked", *sorted(asked)))
"""


def test_one_target_asks_for_the_verdicts_of_what_it_hangs_on_alone(built: Project) -> None:
    dodo = built.read("dodo.py").replace('target="plain.txt")', 'target="m.py", compile="python")')
    built.write("templates/plain.txt.j2", "x = 1\n")
    built.write("dodo.py", dodo)
    assert built.doit().code == 0
    built.write("dodo.py", dodo + COUNTING)
    assert built.doit("info", "m.pyc").out.splitlines()[-1] == "asked compile:m.pyc generate:m.py"


def test_a_template_that_is_not_in_the_cache_makes_nothing_stale(built: Project) -> None:
    built.codegen("cache", "clear")
    result = built.doit("info")
    assert (result.code, result.out) == (0, "5 templates to parse\n5 targets up to date\n")


def test_a_missing_manifest_is_stale_as_it_is_for_doit(built: Project) -> None:
    built.remove(".codegen/manifest.json")
    result = built.doit("info")
    assert result.code == 1
    assert "  manifest .codegen/manifest.json: missing\n    → output\n" in result.out
    assert built.doit().code == 0
    assert built.doit("info").code == 0


def test_a_failed_step_says_why_it_failed(built: Project) -> None:
    built.write("patterns/ash.toml", "name = 1 2\n")
    assert built.doit("-c").code == 1
    out = built.doit("info").out
    assert "  failed last time: patterns/ash.toml:1: " in out
    assert "\n    → ash.txt, list.txt\n" in out


def test_what_follows_a_stale_step_is_not_called_up_to_date(built: Project) -> None:
    dodo = built.read("dodo.py").replace('target="plain.txt")', 'target="m.py", compile="python")')
    built.write("dodo.py", dodo)
    built.write("templates/plain.txt.j2", "x = 1\n")
    assert built.doit().code == 0
    built.write("templates/plain.txt.j2", "x = 2\n")
    result = built.doit("info", "compile:m.pyc")
    assert result.code == 1
    assert "  status        to follow\n                - after generate:m.py\n" in result.out


def test_a_screen_without_arrows_is_no_error(built: Project) -> None:
    built.write("patterns/ash.toml", 'name = "ash"\ngain = 7\n')
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = built.doit("info", **plain)
    assert result.code == 1
    assert "  patterns/ash.toml: gain 0 \\u2192 7\n    -> ash.txt\n" in result.out
    assert "\\u2192 7\n`- ash.txt\n" in built.doit("info", "--tree", **plain).out


def test_what_reads_an_edited_target_follows_it_as_doit_finds_it_up_to_date(
    built: Project,
) -> None:
    dodo = built.read("dodo.py").replace('target="plain.txt")', 'target="m.py", compile="python")')
    dodo += (
        'codegen.rule("data", template="data.j2", target="data.json")\n'
        'codegen.rule("sum", template="sum.j2", patterns="generated/*.json", target="sum.txt")\n'
    )
    built.write("dodo.py", dodo)
    built.write("templates/plain.txt.j2", "x = 1\n")
    built.write("templates/data.j2", '{"x": 1}')
    built.write("templates/sum.j2", "{% for p in patterns %}{{ p.x }}\n{% endfor %}")
    assert built.doit().code == 0
    built.write("generated/m.py", "x = 2\n")
    built.write("generated/data.json", '{"x": 2}')
    said = built.doit("info").out
    assert said.startswith(
        "to follow, if what they are made from changes:\n"
        "  sum.txt\n    after data.json\n  m.pyc\n    after m.py\nedited by hand"
    )
    assert said.endswith("2 stale, 2 to follow, 4 up to date\n")
    found = built.doit("info", "compile:m.pyc").out
    assert "  status        to follow\n                - after generate:m.py\n" in found
    ran = built.doit().out
    assert sorted(line for line in ran.splitlines() if line.startswith(".  ")) == [
        ".  generate:data.json",
        ".  generate:m.py",
    ]
    built.remove("generated/m.py")
    assert "1 stale, 1 to follow, 6 up to date\n" in built.doit("info").out


def test_what_reads_an_edited_target_is_stale_if_it_had_read_another(built: Project) -> None:
    dodo = built.read("dodo.py").replace('target="plain.txt")', 'target="m.py", compile="python")')
    built.write("dodo.py", dodo)
    built.write("templates/plain.txt.j2", "x = 1\n")
    assert built.doit().code == 0
    built.write("templates/plain.txt.j2", "x = 2\n")
    assert built.doit("generate:m.py").code == 0
    built.write("generated/m.py", "x = 3\n")
    assert [step["task"] for step in info(built)["stale"]] == ["generate:m.py", "compile:m.pyc"]
