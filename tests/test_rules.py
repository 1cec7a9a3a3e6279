"""Rules: which targets they make, and what their templates see."""

from __future__ import annotations

import pytest
from conftest import Project

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
