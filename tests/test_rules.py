"""Rules: which targets they make, and what their templates see."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import Project

from codegen_tasks import Codegen, patterns, plan

HEAD = "from codegen_tasks import Codegen\n\ncodegen = Codegen()\n"
FOOT = "\nDOIT_CONFIG = codegen.doit_config\n"


def declared(project: Project, body: str) -> Project:
    project.write("dodo.py", HEAD + body + FOOT)
    return project


def generated(project: Project) -> dict[str, str]:
    return {
        name.removeprefix("generated/"): data.decode()
        for name, data in project.files().items()
        if name.startswith("generated/")
    }


def built(project: Project, body: str) -> dict[str, str]:
    declared(project, body)
    result = project.doit()
    assert result.code == 0, result.out + result.err
    return generated(project)


def test_a_rule_without_patterns_renders_its_template_once(empty_project: Project) -> None:
    empty_project.write("templates/a.j2", "one")
    rule = 'codegen.rule("a", template="a.j2", target="sub/a.txt")'
    assert built(empty_project, rule) == {"sub/a.txt": "one"}


def test_toml_json_and_yaml_patterns_mean_the_same(empty_project: Project) -> None:
    project = empty_project
    project.write(
        "templates/a.j2", "{{ name }} {{ list[1] }} {{ pattern.stem }} {{ pattern.path }}"
    )
    project.write("p/t.toml", 'name = "n"\nlist = [1, 2]\n')
    project.write("p/j.json", '{"name": "n", "list": [1, 2]}')
    project.write("p/y.yaml", "name: n\nlist: [1, 2]\n")
    rule = 'codegen.rule("a", template="a.j2", patterns="p/*", target="{stem}.txt")'
    assert built(project, rule) == {
        "t.txt": "n 2 t p/t.toml",
        "j.txt": "n 2 j p/j.json",
        "y.txt": "n 2 y p/y.yaml",
    }


def test_several_globs_find_each_pattern_once_in_order_of_path(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{% for p in patterns %}{{ p.pattern.path }} {% endfor %}")
    for name in ("b/2.toml", "a/1.toml", "a/x/3.toml"):
        project.write(name, "k = 1\n")
    rule = (
        'codegen.rule("a", template="a.j2", patterns=["b/*.toml", "a/**/*.toml", "a/1.toml"],'
        ' target="a.txt")'
    )
    assert built(project, rule) == {"a.txt": "a/1.toml a/x/3.toml b/2.toml "}


def test_folder_is_the_part_below_the_fixed_part_of_the_glob(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ k }}")
    for number, name in enumerate(("s/1.toml", "s/x/1.toml", "s/x/y/1.toml")):
        project.write(name, f"k = {number}\n")
    rule = (
        'codegen.rule("a", template="a.j2", patterns="s/**/*.toml", target="{folder}/{stem}.txt")'
    )
    assert built(project, rule) == {"1.txt": "0", "x/1.txt": "1", "x/y/1.txt": "2"}


def test_a_scalar_key_can_name_the_target(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ name }}")
    project.write("p/1.toml", 'name = "Ash"\nmajor = 2\n')
    rule = 'codegen.rule("a", template="a.j2", patterns="p/*", target="{name}-v{major}.txt")'
    assert built(project, rule) == {"Ash-v2.txt": "Ash"}


def test_each_makes_a_target_for_every_item_of_a_list(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ chip }}.{{ item.name }} = {{ address }}")
    project.write(
        "p/chip.json",
        '{"chip": "led", "registers": [{"name": "CTRL", "address": 0},'
        ' {"name": "DATA", "address": 4}]}',
    )
    rule = (
        'codegen.rule("a", template="a.j2", patterns="p/*", each="registers",'
        ' target="{stem}/{name}.txt")'
    )
    assert built(project, rule) == {
        "chip/CTRL.txt": "led.CTRL = 0",
        "chip/DATA.txt": "led.DATA = 4",
    }


def test_each_of_plain_values_names_targets_by_item(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ item }}")
    project.write("p/x.toml", 'colors = ["red", "blue"]\n')
    rule = 'codegen.rule("a", template="a.j2", patterns="p/*", each="colors", target="{item}.txt")'
    assert built(project, rule) == {"red.txt": "red", "blue.txt": "blue"}


def test_each_makes_a_target_for_every_entry_of_a_table(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ key }}: {{ item.type }} {{ type }} {{ unit }}")
    project.write("templates/b.j2", "{{ key }} {{ item }}")
    project.write(
        "p/api.json",
        """
        {"unit": "ms", "parts": {"all": {"Box": {"type": "object"}, "Lid": {"type": "string"}}},
         "sizes": {"s": 1, "m": [2]}}
        """,
    )
    body = (
        'codegen.rule("a", template="a.j2", patterns="p/*", each="parts.all", target="{key}.a")\n'
        'codegen.rule("b", template="b.j2", patterns="p/*", each="sizes", target="{stem}/{key}.b")'
    )
    made = {"Box.a": "Box: object object ms", "Lid.a": "Lid: string string ms"}
    assert built(project, body) == {**made, "api/s.b": "s 1", "api/m.b": "m [2]"}


def test_of_a_table_only_the_entries_that_changed_are_rendered_anew(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ key }} {{ item.v }}")
    project.write("p/x.toml", "[all]\na = { v = 1 }\nb = { v = 2 }\n")
    rule = 'codegen.rule("a", template="a.j2", patterns="p/*", each="all", target="{key}.txt")'
    assert built(project, rule) == {"a.txt": "a 1", "b.txt": "b 2"}
    project.write("p/x.toml", "[all]\nc = { v = 3 }\nb = { v = 4, w = 1 }\na = { v = 1 }\n")
    told = "  never built\n    → c.txt\n  p/x.toml: all.b.v 2 → 4\n    → b.txt\n"
    assert told in project.doit("info").out
    assert project.doit().out.splitlines()[:2] == [".  generate:c.txt", ".  generate:b.txt"]
    assert project.read("generated/b.txt") == "b 4"
    assert "pattern       p/x.toml: all.b\n" in project.doit("info", "b.txt").out


def test_items_that_exchange_their_names_exchange_their_targets(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ v }}{{ key is defined and key }}")
    rule = 'codegen.rule("a", template="a.j2", patterns="p/*", each="all", target="{name}.txt")'
    for data in (
        '[{"name": "x", "v": 1}, {"name": "y", "v": 2}]',
        '[{"name": "y", "v": 1}, {"name": "x", "v": 2}]',
        '{"k": {"name": "x", "v": 1}, "l": {"name": "y", "v": 1}}',
        '{"k": {"name": "y", "v": 1}, "l": {"name": "x", "v": 1}}',
    ):
        project.write("p/p.json", f'{{"all": {data}}}')
        built(project, rule)
        renewed = project.files(".codegen")
        project.doit("clean")
        assert project.doit().code == 0
        assert project.files(".codegen") == renewed


def test_context_is_a_dict_or_a_function_of_the_pattern(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ unit }} {{ k }}")
    project.write("templates/b.j2", "{{ double }}")
    project.write("p/x.toml", "k = 4\n")
    body = (
        "def more(data):\n    return {'double': 2 * data['k']}\n\n"
        'codegen.rule("a", template="a.j2", patterns="p/*", target="{stem}.a",'
        ' context={"unit": "ms"})\n'
        'codegen.rule("b", template="b.j2", patterns="p/*", target="{stem}.b", context=more)\n'
    )
    assert built(project, body) == {"x.a": "ms 4", "x.b": "8"}
    declared(project, body.replace("2 *", "3 *"))
    assert ".  generate:x.b\n1 generated, 1 up to date" in project.doit().out
    declared(project, body.replace("2 *", "3 *").replace('"ms"', '"s"'))
    assert ".  generate:x.a\n1 generated, 1 up to date" in project.doit().out


@pytest.mark.parametrize(
    ("text", "rule", "made"),
    [
        ("{{ unit }} {{ a }}", 'target="{stem}.txt"', "ms 1"),
        ("{{ unit }} {{ x }}", 'each="items", target="{x}.txt"', "ms 3"),
        ("{{ unit }}{% for p in patterns %} {{ p.a }}{% endfor %}", 'target="all.txt"', "ms 1"),
    ],
)
def test_a_dict_as_context_hides_keys_and_reads_none(
    empty_project: Project, text: str, rule: str, made: str
) -> None:
    project = empty_project
    project.write("templates/a.j2", text)
    pattern = {"a": 1, "unit": "m", "unread": 2, "items": [{"x": 3}]}
    project.write("p/x.json", json.dumps(pattern))
    context = '{"unit": "ms"}'
    body = f'codegen.rule("a", template="a.j2", patterns="p/*", context={context}, {rule})'
    assert list(built(project, body).values()) == [made]
    project.write("p/x.json", json.dumps({**pattern, "unit": "km", "unread": 5}))
    assert "1 up to date" in project.doit().out


def test_filters_tests_functions_and_globals_reach_the_templates(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ 2|twice }} {{ 3 is odd_one }} {{ add(1, 2) }} {{ WORD }}")
    body = (
        'codegen = Codegen(globals={"WORD": "w"})\n'
        "@codegen.filter\ndef twice(x):\n    return 2 * x\n\n"
        "@codegen.test('odd_one')\ndef is_odd(x):\n    return x % 2 == 1\n\n"
        "@codegen.function\ndef add(a, b):\n    return a + b\n\n"
        'codegen.rule("a", template="a.j2", target="a.txt")\n'
    )
    assert built(project, body) == {"a.txt": "4 True 3 w"}
    declared(project, body.replace('"w"', '"v"'))
    assert "1 generated" in project.doit().out
    declared(project, body.replace('"w"', '"v"').replace("% 2 == 1", "% 2 != 0"))
    assert "1 generated" in project.doit().out


def test_environment_options_and_extensions_are_jinjas(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "<< 1 >>{% set n = [] %}{% do n.append(2) %}<< n[0] >>")
    body = (
        'codegen = Codegen(environment={"variable_start_string": "<<",'
        ' "variable_end_string": ">>", "extensions": ["jinja2.ext.do"]})\n'
        'codegen.rule("a", template="a.j2", target="a.txt")\n'
    )
    assert built(project, body) == {"a.txt": "12"}


def test_a_sandboxed_template_cannot_reach_python(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ ''.__class__.__mro__ }}")
    declared(
        project,
        'codegen = Codegen(sandbox=True)\ncodegen.rule("a", template="a.j2", target="a.txt")\n',
    )
    result = project.doit()
    assert result.code == 1
    assert "templates/a.j2:1: access to attribute '__class__'" in result.out


def test_two_codegens_live_beside_each_other(empty_project: Project) -> None:
    project = empty_project
    project.write("templates/a.j2", "a")
    project.write("docs/b.j2", "b")
    body = (
        'codegen.rule("a", template="a.j2", target="a.txt")\n'
        'docs = Codegen(templates="docs", output="site", name="docs")\n'
        'docs.rule("b", template="b.j2", target="b.txt")\n'
    )
    built(project, body)
    assert project.read("generated/a.txt") + project.read("site/b.txt") == "ab"
    assert project.exists(".codegen/docs/manifest.json")
    assert "2 up to date" in project.doit().out
    project.write("docs/b.j2", "c")
    assert ".  docs.generate:b.txt\n" in project.doit("docs.generate").out


@pytest.mark.parametrize("name", ["sp ace.toml", "quo'te\".toml", "ünï-日本.toml", "-dash.toml"])
def test_a_pattern_file_may_have_an_unusual_name(empty_project: Project, name: str) -> None:
    project = empty_project
    project.write("templates/a.j2", "{{ pattern.stem }}")
    project.write(f"p/{name}", "k = 1\n")
    rule = 'codegen.rule("a", template="a.j2", patterns="p/*", target="{stem}.txt")'
    stem = name.removesuffix(".toml")
    assert built(project, rule) == {f"{stem}.txt": stem}
    assert "1 up to date" in project.doit("-n", "2").out


def test_a_target_is_named_by_its_plain_path(empty_project: Project) -> None:
    """`./sub//a.py` is `generate:sub/a.py` and `compile:sub/a.pyc`, and so is its log."""
    project = empty_project
    project.write("templates/a.j2", "a = 1\n")
    rule = 'codegen.rule("a", template="a.j2", target="./sub//x/../a.py", compile="python")'
    declared(project, rule)
    result = project.doit()
    assert result.code == 0
    assert ".  generate:sub/a.py\n.  compile:sub/a.pyc\n" in result.out
    assert project.exists("generated/sub/a.pyc")
    assert "2 up to date" in project.doit("generate:sub/a.py", "compile:sub/a.pyc").out


def test_a_target_that_leads_out_and_back_is_named_by_its_plain_path(
    empty_project: Project,
) -> None:
    empty_project.write("templates/a.j2", "a\n")
    declared(empty_project, 'codegen.rule("a", template="a.j2", target="../generated/a.txt")')
    assert ".  generate:a.txt\n" in empty_project.doit().out
    assert generated(empty_project) == {"a.txt": "a\n"}


def test_a_templates_name_may_hold_an_equals_sign(empty_project: Project) -> None:
    """It has no task of its own, for doit allows no `=` there; what loads it notices a change."""
    project = empty_project
    project.write("templates/a.j2", '{% include "x=y.j2" %}')
    project.write("templates/x=y.j2", "one")
    body = (
        'codegen.rule("a", template="a.j2", target="a.txt")\n'
        'codegen.rule("b", template="x=y.j2", target="b.txt")\n'
    )
    assert built(project, body) == {"a.txt": "one", "b.txt": "one"}
    project.write("templates/x=y.j2", "two")
    assert project.doit().code == 0
    assert generated(project) == {"a.txt": "two", "b.txt": "two"}


def test_links_are_followed_once_a_folder_and_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A null run of ten thousand targets must not ask for ten thousand real paths."""
    asked: list[str] = []
    real = os.path.realpath
    monkeypatch.setattr("os.path.realpath", lambda path: asked.append(path) or real(path))
    monkeypatch.chdir(tmp_path)
    fence = plan.Fence(Codegen().project)
    assert [fence.fault(f"{folder}/{n}.txt") for folder in "ab" for n in range(9)] == [""] * 18
    assert len(asked) == 5  # output, templates, state; then each folder of targets


@pytest.mark.parametrize("glob", ["a/*.toml", "a/**/*.toml", "**", "a/**", "*/b", "a", "a/.h*"])
@pytest.mark.parametrize("path", ["a/b.toml", "a/.h.toml", "a/b/c.toml", "b.toml", "a/b", ".h/a"])
def test_a_file_that_is_to_be_made_matches_a_glob_as_one_on_disk(
    tmp_path: Path, path: str, glob: str
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("")
    assert patterns.matches(path, glob) == (path in patterns.discover(str(tmp_path), [glob]))
