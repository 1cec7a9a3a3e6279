"""Incremental builds: what an edit rebuilds, and that nothing else happens."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from conftest import Project

#: Put before a dodo.py, records in WATCHED every process, every write and every import.
WATCH = """
import atexit, json, os, sys
_seen = {"process": [], "write": [], "import": []}
_log = os.environ.get("WATCH_LOG")
def _watch(event, args):
    if event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "os.system"):
        _seen["process"].append(str(args[0] if args else event))
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        _seen["write"].append(str(args[0]))
    elif event == "open" and args[1] is None and args[2] & (os.O_WRONLY | os.O_RDWR):
        _seen["write"].append(str(args[0]))
    elif event in ("os.rename", "os.remove", "os.mkdir", "shutil.rmtree", "os.truncate"):
        _seen["write"].append(f"{event} {args[0]}")
    elif event == "sqlite3.connect" and "mode=ro" not in str(args[0]):
        _seen["write"].append(str(args[0]))
    elif event == "import":
        _seen["import"].append(args[0])
def _tell():
    seen = json.dumps(_seen)
    open(_log, "w").write(seen)
if _log:
    sys.addaudithook(_watch)
    atexit.register(_tell)
sys.dont_write_bytecode = True
"""


def watched(project: Project, *arguments: str) -> dict[str, list[str]]:
    """Run doit and return what it started, wrote and imported once `dodo.py` was loading."""
    log = project.path.parent / "watched.json"
    result = project.started_doit(*arguments, WATCH_LOG=str(log))
    assert result.code == 0, result.out + result.err
    seen: dict[str, list[str]] = json.loads(log.read_text())
    seen["write"] = [path for path in seen["write"] if path != str(log)]
    return seen


def ran(project: Project, *arguments: str) -> set[str]:
    """Run doit and return the targets it made or tried to make."""
    result = project.doit(*arguments)
    return set(re.findall(r"^\.  \w+:(\S+)", result.out, re.MULTILINE))


@pytest.fixture
def built(project: Project) -> Project:
    """Return the small project after its first build."""
    project.write("dodo.py", WATCH + project.read("dodo.py"))
    assert project.doit().code == 0
    return project


PAGES = {"ash.txt", "birch.txt", "cedar.txt"}


def test_the_first_build_makes_every_target(built: Project) -> None:
    made = {path.name for path in (built.path / "generated").iterdir()}
    assert made == PAGES | {"list.txt", "plain.txt"}
    assert built.read("generated/ash.txt") == "begin\n== ash == ASH! 0\nend\n"
    assert built.read("generated/list.txt") == "ash\nbirch\ncedar\n"


def test_a_null_run_starts_no_process_parses_nothing_and_writes_nothing(built: Project) -> None:
    before = built.stamps()
    seen = watched(built)
    assert seen["process"] == []
    assert seen["write"] == []
    assert [name for name in seen["import"] if name.partition(".")[0] == "jinja2"] == []
    assert built.stamps() == before


def test_a_null_run_with_workers_starts_none(built: Project) -> None:
    seen = watched(built, "-n", "3")
    assert seen["process"] == []
    assert seen["write"] == []


def test_info_writes_nothing_either(built: Project) -> None:
    built.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    before = built.stamps()
    log = built.path.parent / "watched.json"
    assert built.started_doit("info", WATCH_LOG=str(log)).code == 1
    seen = json.loads(log.read_text())
    assert [path for path in seen["write"] if path != str(log)] == []
    assert seen["process"] == []
    assert built.stamps() == before


def test_info_before_the_first_build_creates_no_database(project: Project) -> None:
    before = set(project.files())
    assert project.doit("info").code == 1
    assert set(project.files()) == before


def test_one_pattern_changed_rebuilds_its_files_only(built: Project) -> None:
    built.write("patterns/birch.toml", 'name = "birch"\ngain = 7\n')
    assert ran(built) == {"birch.txt"}  # the list reads nothing but names
    assert ran(built) == set()
    built.write("patterns/birch.toml", 'name = "oak"\ngain = 7\n')
    assert ran(built) == {"birch.txt", "list.txt"}


def test_a_template_changed_rebuilds_its_users_only(built: Project) -> None:
    built.write("templates/plain.txt.j2", "plainer\n")
    assert ran(built) == {"plain.txt"}
    assert built.read("generated/plain.txt") == "plainer\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("templates/macros.j2", "{% macro title(x) %}-- {{ x }} --{% endmacro %}\n"),
        ("templates/base.j2", "start\n{% block body %}{% endblock %}\nend\n"),
    ],
)
def test_a_macro_or_base_changed_rebuilds_its_users_only(
    built: Project, name: str, text: str
) -> None:
    built.write(name, text)
    assert ran(built) == PAGES
    assert ran(built) == set()


def test_a_comment_in_a_pattern_rebuilds_nothing(built: Project) -> None:
    text = built.read("patterns/ash.toml")
    built.write("patterns/ash.toml", "# tall\n" + text)
    before = built.stamps("generated")
    assert ran(built) == set()
    assert built.stamps("generated") == before


def test_a_touched_file_rebuilds_nothing_and_is_settled_by_one_run(built: Project) -> None:
    for name in ("patterns/ash.toml", "templates/macros.j2", "generated/birch.txt"):
        os.utime(built.path / name, (1, 1))
    assert ran(built) == set()
    assert watched(built)["write"] == []


def test_a_moved_checkout_rebuilds_nothing(built: Project, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(built.path, moved, copy_function=shutil.copy)
    other = Project(moved, Path(built.environ["XDG_STATE_HOME"]))
    assert ran(other) == set()


def test_a_new_pattern_makes_its_files_and_those_of_all_patterns(built: Project) -> None:
    built.write("patterns/oak.toml", 'name = "oak"\ngain = 1\n')
    assert ran(built) == {"oak.txt", "list.txt"}
    assert built.read("generated/list.txt") == "ash\nbirch\ncedar\noak\n"


def test_a_removed_pattern_leaves_an_orphan_and_remakes_the_list(built: Project) -> None:
    built.remove("patterns/ash.toml")
    assert ran(built) == {"list.txt"}
    assert built.read("generated/list.txt") == "birch\ncedar\n"
    assert "generated/ash.txt" in built.doit("info").out


def test_a_filter_changed_rebuilds_its_users_only(built: Project) -> None:
    dodo = built.read("dodo.py")
    built.write("dodo.py", dodo.replace('text.upper() + "!"', 'text.upper() + "?"'))
    assert ran(built) == PAGES
    assert "ASH?" in built.read("generated/ash.txt")


def test_a_comment_in_a_filter_rebuilds_nothing(built: Project) -> None:
    dodo = built.read("dodo.py")
    built.write("dodo.py", dodo.replace("    return text", "    # loudly\n    return text"))
    assert ran(built) == set()


def test_a_function_that_a_filter_calls_counts_as_its_source(project: Project) -> None:
    dodo = project.read("dodo.py").replace('return text.upper() + "!"', "return inner(text)")
    inner = "\ndef inner(text):\n    return text + '{}'\n"
    project.write("dodo.py", dodo + inner.format("1"))
    assert project.doit().code == 0
    project.write("dodo.py", dodo + inner.format("2"))
    assert ran(project) == PAGES
    assert "ash2" in project.read("generated/ash.txt")


def test_a_constant_that_a_filter_uses_counts_as_its_source(project: Project) -> None:
    dodo = project.read("dodo.py").replace('+ "!"', "+ MARK")
    project.write("dodo.py", dodo + "\nMARK = '1'\n")
    assert project.doit().code == 0
    project.write("dodo.py", dodo + "\nMARK = '2'\n")
    assert ran(project) == PAGES


def test_an_environment_option_changed_rebuilds_everything(built: Project) -> None:
    dodo = built.read("dodo.py")
    built.write("dodo.py", dodo.replace('"trim_blocks": True', '"trim_blocks": False'))
    assert ran(built) == PAGES | {"list.txt", "plain.txt"}


def test_an_include_chosen_while_rendering_is_an_input(project: Project) -> None:
    project.write("templates/plain.txt.j2", '{% set n = "no" + "te" %}{% include n + ".j2" %}')
    project.write("templates/note.j2", "one")
    assert project.doit().code == 0
    project.write("templates/note.j2", "two")
    assert ran(project) == {"plain.txt"}
    assert project.read("generated/plain.txt") == "two"


def test_a_template_looked_for_and_not_found_is_an_input(project: Project) -> None:
    project.write("templates/plain.txt.j2", '{% include ["mine.j2", "base.j2"] %}')
    assert project.doit().code == 0
    project.write("templates/mine.j2", "mine")
    assert ran(project) == {"plain.txt"}
    assert project.read("generated/plain.txt") == "mine"


def test_what_an_imported_template_loads_is_an_input_of_every_importer(project: Project) -> None:
    project.write("templates/deep.j2", "{% macro word() %}one{% endmacro %}")
    project.write(
        "templates/macros.j2",
        '{% import "deep.j2" as d %}{% macro title(x) %}{{ d.word() }}{% endmacro %}\n',
    )
    assert project.doit().code == 0
    project.write("templates/deep.j2", "{% macro word() %}two{% endmacro %}")
    assert ran(project) == PAGES
    assert "two" in project.read("generated/cedar.txt")


@pytest.mark.parametrize(
    ("call", "first", "second"),
    [
        ("read_text('notes')", "1", "2"),
        ("read_json('notes').a", '{"a": 1}', '{"a": 2}'),
        ("read_toml('notes').a", "a = 1", "a = 2"),
        ("read_yaml('notes').a", "a: 1", "a: 2"),
    ],
)
def test_a_file_read_while_rendering_is_an_input(
    project: Project, call: str, first: str, second: str
) -> None:
    project.write("templates/plain.txt.j2", "{{ " + call + " }}")
    project.write("notes", first)
    assert project.doit().code == 0
    assert project.read("generated/plain.txt") == "1"
    project.write("notes", second)
    assert ran(project) == {"plain.txt"}
    assert project.read("generated/plain.txt") == "2"


def test_a_missing_target_is_made_again(built: Project) -> None:
    built.remove("generated/ash.txt")
    assert ran(built) == {"ash.txt"}


def test_a_hand_edited_target_is_kept_aside_and_made_again(built: Project) -> None:
    built.write("generated/ash.txt", "mine\n")
    result = built.doit()
    kept = ".codegen/kept/generated/ash.txt"
    assert f"generated/ash.txt: was edited by hand, kept aside as {kept}" in result.out
    assert built.read(kept) == "mine\n"
    assert built.read("generated/ash.txt") == "begin\n== ash == ASH! 0\nend\n"


def test_an_edit_under_an_unchanged_mtime_and_size_is_noticed(built: Project) -> None:
    path = built.path / "generated/ash.txt"
    info = path.stat()
    path.write_text(path.read_text().replace("ASH", "OAK"))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert ran(built) == {"ash.txt"}


def test_our_own_older_output_is_not_taken_for_a_hand_edit(built: Project) -> None:
    built.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    assert "kept aside" not in built.doit().out
    built.write("patterns/ash.toml", "name = oak\n")
    assert built.doit("-c").code == 1
    built.write("patterns/ash.toml", 'name = "fir"\ngain = 0\n')
    result = built.doit()
    assert result.code == 0
    assert "kept aside" not in result.out


def test_a_fresh_clone_with_its_outputs_adopts_them(built: Project) -> None:
    shutil.rmtree(built.path / ".codegen")
    before = built.stamps("generated")
    result = built.doit()
    assert "5 generated, 5 of them unchanged" in result.out
    assert "kept aside" not in result.out
    assert built.stamps("generated") == before


def test_a_failed_step_is_stale_until_it_succeeds(built: Project) -> None:
    built.write("patterns/ash.toml", "name = 1")
    assert built.doit("-c").code == 1
    assert "failed last time" in built.doit("info").out
    assert built.doit("-c").code == 1
    built.write("patterns/ash.toml", 'name = "ash"\ngain = 0\n')
    assert ran(built) == {"ash.txt", "list.txt"}


def test_incremental_equals_clean_after_a_series_of_edits(built: Project) -> None:
    built.write("patterns/oak.toml", 'name = "oak"\ngain = 1\n')
    built.doit()
    built.write("templates/macros.j2", "{% macro title(x) %}{{ x }}{% endmacro %}\n")
    built.doit("generate:oak.txt")
    built.remove("patterns/birch.toml")
    built.doit("-n", "2")
    built.remove("generated/birch.txt")
    kept = built.files(".codegen", "watched")
    shutil.rmtree(built.path / ".codegen")
    shutil.rmtree(built.path / "generated")
    assert built.doit().code == 0
    assert built.files(".codegen", "watched") == kept


def test_a_comment_in_data_that_a_template_reads_rebuilds_nothing(project: Project) -> None:
    project.write("templates/plain.txt.j2", "{{ read_toml('notes.toml').a }}")
    project.write("notes.toml", "a = 1\n")
    assert project.doit().code == 0
    project.write("notes.toml", "# a comment\na = 1\n")
    assert ran(project) == set()
    project.write("notes.toml", "a = 2\n")
    assert ran(project) == {"plain.txt"}


def test_of_yaml_data_the_keys_that_are_read_count_whatever_its_file_is_called(
    project: Project,
) -> None:
    project.write("templates/plain.txt.j2", "{{ read_yaml('notes.txt').leds[2] }}")
    project.write("notes.txt", "leds: {1: red, 2: green}\n")
    assert project.doit().code == 0
    assert project.read("generated/plain.txt") == "green"
    project.write("notes.txt", "# a comment\nleds:\n  1: red\n  2: green\nmore: yes\n")
    assert ran(project) == set()
    project.write("notes.txt", "leds: {1: red, '2': green, 2: blue}\n")
    assert "notes.txt: leds" in project.codegen("info").out
    assert ran(project) == {"plain.txt"}
    assert project.read("generated/plain.txt") == "blue"


def test_data_that_is_gone_or_broken_makes_what_read_it_stale(project: Project) -> None:
    project.write("templates/plain.txt.j2", "{{ read_toml('notes.toml').a }}")
    project.write("notes.toml", "a = 1\n")
    assert project.doit().code == 0
    project.remove("notes.toml")
    assert "notes.toml: missing" in project.codegen("info").out
    project.write("notes.toml", "a = \n")
    found = project.codegen("info")
    assert found.code == 1
    assert "notes.toml: " in found.out


def test_data_that_is_read_as_text_too_counts_with_its_bytes(project: Project) -> None:
    both = "{{ read_text('notes.toml') }}{{ read_toml('notes.toml').a }}"
    project.write("templates/plain.txt.j2", both)
    project.write("notes.toml", "a = 1\n")
    assert project.doit().code == 0
    project.write("notes.toml", "# a comment\na = 1\n")
    assert ran(project) == {"plain.txt"}


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("{{ 2 is odd }}", "@codegen.test\ndef odd(n):\n    return True\n"),
        ("{{ 'a'|upper }}", "@codegen.filter\ndef upper(text):\n    return 'B'\n"),
        ("{{ later is defined }}", "@codegen.function\ndef later():\n    return 1\n"),
        ("{{ range(2)|list }}", "@codegen.function\ndef range(n):\n    return []\n"),
    ],
)
def test_a_name_that_the_project_declares_later_counts(
    project: Project, text: str, declared: str
) -> None:
    project.write("templates/plain.txt.j2", text)
    assert project.doit().code == 0
    before = project.read("generated/plain.txt")
    project.write("dodo.py", project.read("dodo.py") + "\n\n" + declared)
    assert "plain.txt" in ran(project)
    assert project.read("generated/plain.txt") != before


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_function_that_remembers_what_it_did_is_not_stale_for_it(
    project: Project, workers: tuple[str, ...]
) -> None:
    memo = (
        "\n\nSEEN = {}\n\n\n@codegen.function\ndef once(name):\n"
        "    return SEEN.setdefault(name, name * 2)\n\n\n"
        "def more(data):\n    return {'extra': SEEN.setdefault('more', 1)}\n\n\n"
        'codegen.rule("memo", template="memo.j2", patterns="patterns/*.toml",\n'
        '             target="{stem}.memo", context=more)\n'
    )
    project.write("dodo.py", project.read("dodo.py") + memo)
    project.write("templates/memo.j2", "{{ once(name) }} {{ extra }}\n")
    assert project.doit(*workers).code == 0
    assert ran(project, *workers) == set()
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    assert ran(project, *workers) == {"ash.txt", "ash.memo", "list.txt"}
    assert ran(project, *workers) == set()


def test_code_that_is_edited_twice_in_a_second_counts_though_its_size_is_the_same(
    empty_project: Project,
) -> None:
    project = empty_project
    project.write("templates/page.txt.j2", "{{ 1|own }} {{ 1|named }} {{ 1|late }}")
    project.write("templates/page.mako", "<%! import third %>${third.WORD}")
    soon = time.time() + 600  # so that it is the same second, however long a run takes

    def write(word: str) -> str:
        project.write("first.py", f"WORD = '{word}'\n")
        project.write("second.py", f"WORD = '{word}'\n")
        project.write("third.py", f"WORD = '{word}'\n")
        project.write("dodo.py", EDITED_TWICE.replace("WORD", f"'{word}'", 1))
        for name in ("dodo.py", "first.py", "second.py", "third.py"):
            os.utime(project.path / name, (soon, soon))
        result = project.started_doit(PYTHONDONTWRITEBYTECODE="")
        assert result.code == 0, result.out + result.err
        return project.read("generated/page.txt") + " " + project.read("generated/other.txt")

    assert write("one") == "one one one one"
    assert write("two") == "two two two two"


EDITED_TWICE = """
from codegen_tasks import Codegen
import first

codegen = Codegen()
codegen.rule("page", template="page.txt.j2", target="page.txt")
codegen.rule("other", template="page.mako", target="other.txt")


@codegen.filter
def own(number):
    return WORD


@codegen.filter
def named(number):
    return first.WORD


@codegen.filter
def late(number):
    import second

    return second.WORD


DOIT_CONFIG = codegen.doit_config
"""
