"""doit lint: what is probably a mistake, and nothing that is none."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import pytest
from conftest import Project

from codegen_tasks.lint import CODES

#: They wait for what takes time.
pytestmark = pytest.mark.slow

HEAD = """
from codegen_tasks import Codegen

codegen = Codegen()
"""
PAGE = 'codegen.rule("page", template="page.j2", patterns="p/*.toml", target="{stem}.txt"'


def declared(project: Project, body: str = f"{PAGE})", template: str = "{{ name }}") -> Project:
    """Declare a rule, whose template and one pattern are there."""
    tail = "\nDOIT_CONFIG = codegen.doit_config\n"
    project.write("dodo.py", HEAD + textwrap.dedent(body) + tail)
    project.write("templates/page.j2", template)
    project.write("p/ash.toml", 'name = "ash"\n')
    return project


def found(project: Project, *arguments: str, repeated: bool = False) -> list[str]:
    """Return the findings without their hints."""
    once = () if repeated else ("--ignore", "unsteady")
    result = project.codegen("lint", *once, *arguments)
    lines = [line for line in result.out.splitlines() if not line.startswith("  hint: ")]
    assert "Traceback" not in result.err
    assert (result.code == 1) == bool(lines), result
    return lines


def test_a_sound_project_has_none_and_is_told_so(project: Project) -> None:
    assert found(project, repeated=True) == []
    once = project.codegen("lint", "--ignore", "unsteady")
    assert (once.code, once.out, once.err) == (0, "", "no findings\n")


def test_our_own_pattern_library_has_none(empty_project: Project) -> None:
    ours = Path(__file__).parent.parent
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ours / name, empty_project.path / name)
    shutil.copytree(ours / "templates", empty_project.path / "templates")
    assert found(empty_project, repeated=True) == []


def test_nothing_is_written(project: Project) -> None:
    before = project.stamps()
    found(project, repeated=True)
    assert project.stamps() == before
    project.doit()
    project.write("templates/page.txt.j2", "{{ name }} {{ gain }}")
    before = project.stamps()
    found(project, repeated=True)
    assert project.stamps() == before


# Variables ------------------------------------------------------------------------------


def test_a_variable_that_nothing_defines_is_told_where_it_is_used(empty_project: Project) -> None:
    declared(empty_project, template="{{ name }}\n{% if name == 'x' %}{{ nmae }}{% endif %}\n")
    assert found(empty_project) == [
        "templates/page.j2:2: nothing defines 'nmae' [undefined-variable]"
    ]


@pytest.mark.parametrize(
    "template",
    [
        "{% if false %}{{ x if x is defined }}{{ x|default('') }}{% endif %}{{ name }}",
        "{% for n in [name] %}{{ loop.index }}{{ n }}{% endfor %}",
        "{% macro m(a) %}{{ a }}{{ caller() }}{{ varargs }}{% endmacro %}"
        "{% call m(name) %}{% endcall %}",
        "{% set x = name %}{% include 'part.j2' %}",
        "{% block b %}{{ name }}{% endblock %}{{ self.b() }}{{ pattern.stem }}",
        "{% with y = name %}{{ y }}{% endwith %}{{ range(2)|list }}{{ g }}{{ f() }}",
    ],
)
def test_what_is_defined_somehow_is_not_told(empty_project: Project, template: str) -> None:
    body = """
    codegen = Codegen(globals={"g": 1})
    codegen.rule("page", template="page.j2", patterns="p/*.toml", target="{stem}.txt")

    @codegen.function
    def f():
        return 1
    """
    declared(empty_project, body, template)
    if "part.j2" in template:
        empty_project.write("templates/part.j2", "{{ x }}")
    assert found(empty_project) == []


def test_what_a_context_function_gives_is_defined(empty_project: Project) -> None:
    body = f"def more(data):\n    return {{'x': 1}}\n\n{PAGE}, context=more)"
    declared(empty_project, body, "{{ name }}{% if x > 1 %}{{ x }}{{ y }}{% endif %}")
    assert found(empty_project) == ["templates/page.j2:1: nothing defines 'y' [undefined-variable]"]


def test_a_template_of_two_rules_lacks_only_what_neither_has(empty_project: Project) -> None:
    body = f'{PAGE})\ncodegen.rule("all", template="all.j2", patterns="p/*.toml", target="all.txt")'
    declared(empty_project, body, "{% include 'part.j2' %}")
    empty_project.write("templates/all.j2", "{% include 'part.j2' %}")
    part = "{% if patterns is defined %}{{ patterns|length }}{% else %}{{ name }}{% endif %}"
    empty_project.write("templates/part.j2", part)
    assert found(empty_project) == []


# Keys -----------------------------------------------------------------------------------


def test_a_key_that_no_template_uses_is_told_once_for_all_patterns(empty_project: Project) -> None:
    declared(empty_project)
    for stem in ("ash", "birch", "cedar"):
        empty_project.write(f"p/{stem}.toml", f'name = "{stem}"\ncolour = "red"\n')
    assert found(empty_project) == [
        "p/ash.toml:2: no template uses the key 'colour', and in 2 more [unused-key]"
    ]


def test_a_key_in_a_table_is_told_by_its_place(empty_project: Project) -> None:
    declared(empty_project, template="{{ name }}{{ size.width }}")
    empty_project.write("p/ash.toml", 'name = "a"\n[size]\nwidth = 1\nheight = 2\n[other]\nx = 1\n')
    assert found(empty_project) == [
        "p/ash.toml:4: no template uses the key 'size.height' [unused-key]",
        "p/ash.toml:5: no template uses the key 'other' [unused-key]",
    ]


@pytest.mark.parametrize(
    ("template", "target"),
    [
        ("{{ name }}{% if false %}{{ colour }}{% endif %}", "{stem}.txt"),
        ("{{ name }}", "{colour}.txt"),
        ("{{ name }}{% for k in pattern if k == 'x' %}{{ colour }}{% endfor %}", "{stem}.txt"),
        ("{{ name|whole(colour) }}", "{stem}.txt"),
    ],
)
def test_a_key_that_may_be_used_is_not_told(
    empty_project: Project, template: str, target: str
) -> None:
    body = f"@codegen.filter\ndef whole(a, b):\n    return a\n\n{PAGE})"
    declared(empty_project, body.replace("{stem}.txt", target), template)
    empty_project.write("p/ash.toml", 'name = "ash"\ncolour = "red"\n')
    assert found(empty_project) == []


def test_a_schema_uses_no_key(empty_project: Project) -> None:
    declared(empty_project, f'{PAGE}, schema="s.json")')
    empty_project.write("s.json", '{"properties": {"colour": {}}}')
    empty_project.write("p/ash.toml", 'colour = "red"\nname = "ash"\n')
    assert found(empty_project) == ["p/ash.toml:1: no template uses the key 'colour' [unused-key]"]


# Templates and macros -------------------------------------------------------------------


def test_templates_and_macros_that_nothing_uses_are_told(empty_project: Project) -> None:
    template = "{% import 'm.j2' as m %}{% from 'm.j2' import b as c %}{{ m.a(name) }}{{ c() }}"
    declared(empty_project, template=template)
    macros = "".join(f"{{% macro {name}(x) %}}{{% endmacro %}}\n" for name in "abd")
    empty_project.write("templates/m.j2", macros)
    empty_project.write("templates/old/left.j2", "{{ anything }}")
    assert found(empty_project) == [
        "templates/m.j2:3: no template uses the macro 'd' [unused-macro]",
        "templates/old/left.j2: no rule and no template names it [unused-template]",
    ]


def test_names_of_templates_that_are_put_together_count(empty_project: Project) -> None:
    declared(
        empty_project,
        template="{% include 'kinds/' ~ name ~ '.j2' %}{% include ['x.j2', 'y.j2'] %}",
    )
    for name in ("kinds/ash.j2", "kinds/elm.j2", "x.j2", "y.j2", "other/ash.j2"):
        empty_project.write(f"templates/{name}", "x")
    assert found(empty_project) == [
        "templates/other/ash.j2: no rule and no template names it [unused-template]"
    ]


# Reads and repetition -------------------------------------------------------------------


def test_a_function_that_opens_a_file_by_itself_is_told(empty_project: Project) -> None:
    body = f"""
    import os, subprocess
    @codegen.filter
    def table(name):
        return open("data.txt").read() + str(os.listdir("p"))

    {PAGE})
    """
    declared(empty_project, body, "{{ name|table }}{{ read_text('data.txt2') }}")
    empty_project.write("data.txt", "x")
    empty_project.write("data.txt2", "x")
    assert found(empty_project) == [
        "dodo.py:8: lists p in generate:ash.txt [undeclared-read]",
        "dodo.py:8: reads data.txt in generate:ash.txt [undeclared-read]",
    ]


def test_imports_within_a_function_are_no_reads(empty_project: Project) -> None:
    function = "def up(x):\n    import helper, colorsys\n    return helper.up(x)"
    body = f"@codegen.filter\n{function}\n\n{PAGE})"
    declared(empty_project, body, "{{ name|up }}")
    empty_project.write("helper.py", "def up(x):\n    return x.upper()\n")
    assert found(empty_project) == []


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('time').time_ns()",
        "int(__import__('time').time())",
        "list({*'abcdefghijklmnop'})",
    ],
)
def test_a_render_that_differs_when_it_is_repeated_is_told(
    empty_project: Project, expression: str
) -> None:
    body = f"@codegen.function\ndef other():\n    return {expression}\n\n{PAGE})"
    declared(empty_project, body, "{{ name }}\n{{ other() }}")
    rows = json.loads(empty_project.codegen("lint", "--json").out)["findings"]
    assert [(row["path"], row["code"]) for row in rows] == [("templates/page.j2", "unsteady")]
    assert "generate:ash.txt differs when it is rendered again, in its line 2" in rows[0]["text"]


# Names that hide others -----------------------------------------------------------------


def test_names_that_hide_others_are_told(empty_project: Project) -> None:
    body = f"@codegen.filter\ndef title(x):\n    return x\n\n{PAGE})"
    template = "{{ name|title }}{{ range }}\n{% for name in [1] %}{{ name }}{% endfor %}"
    declared(empty_project, body, template)
    empty_project.write("p/ash.toml", 'name = "ash"\nrange = 3\n')
    assert found(empty_project) == [
        "dodo.py:4: the filter 'title' hides Jinja2's own [shadowed]",
        "p/ash.toml:2: the key 'range' hides the function of that name in its templates [shadowed]",
        "templates/page.j2:2: the loop's 'name' hides the variable of that name [shadowed]",
    ]


# What fails -----------------------------------------------------------------------------


def test_a_key_that_a_method_of_tables_hides_is_told(empty_project: Project) -> None:
    template = "{{ name }}\n{{ led.values }}{{ led.items() }}{{ led['keys'] }}{{ led.get }}\n"
    project = declared(empty_project, template=template)
    project.write("p/ash.toml", 'name = "ash"\n[[leds]]\nvalues = 1\nitems = 2\nkeys = 3\n')
    template = template.replace("led.", "leds[0].").replace("led[", "leds[0][")
    project.write("templates/page.j2", template)
    assert found(project) == [
        "templates/page.j2:2: the method 'values' of tables hides the key of that name [shadowed]"
    ]
    hint = "  hint: write ['values'], not .values\n"
    assert hint in project.codegen("lint", "--ignore", "unsteady").out


def test_what_cannot_be_rendered_is_told_and_the_rest_looked_at(empty_project: Project) -> None:
    declared(empty_project, template="{{ name }}{{ size }}")
    empty_project.write("p/birch.toml", 'name = "b"\nsize = 1\n')
    empty_project.write("p/cedar.toml", "name = \n")
    empty_project.write("templates/broken.j2", "{% if %}")
    lines = found(empty_project)
    assert [line.partition(": ")[0] for line in lines] == [
        "p/ash.toml",
        "p/cedar.toml",
        "templates/broken.j2",
    ]
    assert all(line.endswith(("[fails]", "[unused-template]")) for line in lines)


def test_two_codegens_may_share_templates(empty_project: Project) -> None:
    body = f"""
    {PAGE})
    other = Codegen(name="other", output="out", state=".other", environment={{"trim_blocks": True}})
    other.rule("b", template="b.j2", target="b.txt")
    """
    declared(empty_project, body)
    empty_project.write("templates/b.j2", "{% include 'part.j2' %}")
    empty_project.write("templates/part.j2", "x")
    empty_project.write("templates/left.j2", "x")
    assert found(empty_project, repeated=True) == [
        "templates/left.j2: no rule and no template names it [unused-template]"
    ]


# The command ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ("{# codegen: ignore[undefined-variable] #}\n", ""),
        ("", "{# codegen: ignore[shadowed, undefined-variable] #}"),
        ("{# codegen: ignore-file[undefined-variable] #}\n\n\n", ""),
    ],
)
def test_a_comment_silences_a_finding(empty_project: Project, before: str, line: str) -> None:
    body = "{{ name }}{% if false %}{{ x }}{% endif %}"
    declared(empty_project, template=f"{before}{body}{line}\n")
    assert found(empty_project) == []
    declared(
        empty_project, template=f"{before}{body}{line}\n".replace("undefined-variable", "fails")
    )
    assert len(found(empty_project)) == 1


def test_a_comment_in_a_pattern_silences_one_too(empty_project: Project) -> None:
    declared(empty_project)
    text = 'name = "ash"\nnote = 1  # codegen: ignore[unused-key]\nother = 1\n'
    empty_project.write("p/ash.toml", text + "# codegen: ignore[unused-key]\nlast = 1\n")
    assert found(empty_project) == ["p/ash.toml:3: no template uses the key 'other' [unused-key]"]


def test_a_kind_of_finding_can_be_left_out(empty_project: Project) -> None:
    declared(empty_project, template="{{ name }}{% if false %}{{ x }}{% endif %}")
    assert len(found(empty_project)) == 1
    assert found(empty_project, "--ignore", "undefined-variable") == []
    refused = empty_project.codegen("lint", "--ignore", "undefined-variables")
    assert refused.code == 3
    assert "did you mean 'undefined-variable'?" in refused.err
    assert empty_project.codegen("lint", "generate").code == 3


def test_json_tells_the_same(empty_project: Project) -> None:
    declared(empty_project, template="{{ name }}{% if false %}{{ é }}{% endif %}")
    result = empty_project.codegen("lint", "--json")
    assert result.code == 1
    assert json.loads(result.out) == {
        "version": 1,
        "findings": [
            {
                "code": "undefined-variable",
                "path": "templates/page.j2",
                "line": 1,
                "text": "nothing defines 'é'",
                "hint": "",
            }
        ],
    }
    empty_project.write("templates/page.j2", "{{ name }}")
    result = empty_project.codegen("lint", "--json")
    assert (result.code, json.loads(result.out)["findings"]) == (0, [])


def test_a_project_without_a_codegen_has_none(empty_project: Project) -> None:
    empty_project.write("dodo.py", "def task_a():\n    return {'actions': ['true']}\n")
    assert found(empty_project) == []


def test_every_kind_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs/reference.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"| `{code}` |" not in text] == []
