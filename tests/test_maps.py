"""Source maps: an error in a generated file is told with the template's line and pattern's key.

Where a test is about which line made a text, every line of the templates says where it stands, so
that the generated file tells what its map has to say.
"""

from __future__ import annotations

import posixpath
import re
import shutil

import pytest
from conftest import Project

from codegen_tasks import Codegen, maps, process
from codegen_tasks.build import Build
from codegen_tasks.maps import SourceMap

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
needs_deno = pytest.mark.skipif(process.find("deno") is None, reason="no deno")

DODO = """
from codegen_tasks import Codegen

codegen = Codegen(environment={environment})
codegen.rule("x", template="{template}", patterns="patterns/*", target="{{stem}}{suffix}",
             compile="{compile}")


@codegen.filter
def dashed(text):
    assert type(text) is str
    return text + "-"


DOIT_CONFIG = codegen.doit_config
"""


def declared(
    project: Project, template: str, suffix: str, compiler: str, **environment: object
) -> Project:
    """Declare one rule that makes and compiles a file of each pattern."""
    text = DODO.format(environment=environment, template=template, suffix=suffix, compile=compiler)
    project.write("dodo.py", text)
    return project


def message(project: Project, task: str) -> str:
    """Return what a run says of a task that fails."""
    result = project.doit()
    assert result.code == 1, result.out + result.err
    found = re.search(rf"^failed: {re.escape(task)}\n((?:  .*\n)+)", result.out, re.MULTILINE)
    assert found is not None, result.out
    return re.sub("^  ", "", found[1], flags=re.MULTILINE)


def kept(project: Project, name: str) -> SourceMap:
    """Return a map that was written, its sources as paths in the project."""
    found = maps.read((project.path / f".codegen/maps/{name}.map").read_bytes())
    assert found is not None
    folder = posixpath.dirname(f".codegen/maps/{name}")
    found.sources = [posixpath.normpath(posixpath.join(folder, path)) for path in found.sources]
    return found


# --- which line made a text ---------------------------------------------------------------------


def numbered(project: Project, name: str, text: str, end: str = "\n") -> None:
    """Write a template in which each `@` is replaced by the template's name and line."""
    lines = text.removeprefix("\n").removesuffix("\n").split("\n")
    told = [line.replace("@", f"[{name}:{number}]") for number, line in enumerate(lines, 1)]
    project.write(f"templates/{name}", (end.join(told) + end).encode())


def plural(one: str, many: str, count: int) -> str:
    """Return what a language that has no plural says."""
    return one


def check_lines(project: Project, **environment: object) -> str:
    """Insist that the map of a.txt tells of each place there what the text there says."""
    codegen = Codegen(environment=environment, globals={"gettext": str, "ngettext": plural})
    codegen.rule("page", template="page.j2", patterns="patterns/*.json", target="{stem}.txt")

    @codegen.filter
    def quoted(text: str) -> str:
        return "\n".join(f"> {line}" for line in text.split("\n"))

    build = Build(codegen.project)
    (step,) = [step for step in build.plan.steps.values() if step.phase == "generate"]
    data = build.workshop.rendered(step).data
    found = build.workshop.origins.source_map("generated/a.txt", data)
    assert found is not None
    text = data.decode()
    for number, line in enumerate(text.split("\n")):
        for tag in re.finditer(r"\[([^\]]+):(\d+)\]", line):
            segment = found.at(number, maps.units(line[: tag.start()]))
            assert segment is not None, line
            assert found.sources[segment.source] == f"templates/{tag[1]}", line
            assert segment.line + 1 == int(tag[2]), line
    return text


@pytest.fixture
def page(empty_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with one pattern, and templates that `page.j2` may use."""
    project = empty_project
    project.write("patterns/a.json", '{"names": ["ä", "𝄞"], "on": true, "n": 3}')
    numbered(project, "base.j2", "top @\n{% block body %}\nof the base @\n{% endblock %}\nend @")
    numbered(project, "part.j2", "part @\n{% for x in names %}\n{{ x }} @\n{% endfor %}")
    numbered(
        project,
        "macros.j2",
        """
        {% macro one(x) -%}
            <{{ x }}> @
        {%- endmacro %}
        {% macro box(x) %}
        box @
          {{ caller() }} @
        end {{ x }} @
        {% endmacro %}
        {% set shared %}shared @{% endset %}
        """.replace("\n        ", "\n"),
    )
    monkeypatch.chdir(project.path)
    return project


CONSTRUCTS = {
    "text": "a @\n\n  b @\n",
    "loop": "{% for x in names %}\n  {{ x }} @ {{ loop.index }} @\n{% else %}\n@\n{% endfor %}\n@",
    "condition": "{% if on %}yes @{% else %}\nno @{% endif %} @\n{{ '@' if on else '' }} @",
    "block of a child": "{% extends 'base.j2' %}\n{% block body %}\nchild @\n{% endblock %}",
    "super": "{% extends 'base.j2' %}\n\n{% block body %}{{ super() }} @\n{% endblock %}",
    "block again": "{% block a %}a @{% endblock %}\n @ {{ self.a() }} @",
    "include": "@\n{% include 'part.j2' %}\n@\n  {% include 'part.j2' %}",
    "macro": "{% from 'macros.j2' import one %}\n@ {{ one(1) }} @ {{ one(2) }} @\n{{ one(3) }}",
    "macro of this file": "{% macro m(x) %}\nm @\n{% endmacro %}\n@\n{{ m(1) }}\n{{ m(2) }}",
    "call": "{% import 'macros.j2' as m %}\n{% call m.box(1) %}\ninside @\n{% endcall %}\n@",
    "set": "{% set x %}\nset @\n  more @\n{% endset %}\n@\n{{ x }} @\n{{ x }}",
    "imported set": "{% import 'macros.j2' as m %}\n@ {{ m.shared }} @",
    "indent": "{% from 'macros.j2' import one, box %}\n{% set x %}a @\nb @{% endset %}\n"
    "  {{ x|indent(4) }}\n{{ (one(1) ~ one(2))|trim|upper|lower }}",
    "filter": "{% filter indent(2) %}\na @\n{% filter quoted %}b @\n{% endfilter %}{% endfilter %}",
    "filter of ours": "{% set x %}\na @\nb @\na @\n{% endset %}{{ x|quoted }} @",
    "join": "{% macro m(x) %}{{ x }} @{% endmacro %}\n@ {{ [m(1), m(2)]|join(', ') }} @",
    "whitespace control": "a @  \n\n  {%- if on -%}  \n  b @\n\n  {%- endif +%}\n  c @ {#- x\n-#}\n"
    "@",
    "raw": "{% raw %}\n{{ @ }}\n{% endraw %}@",
    "constants": "{{ 'a @' }}@\n{{ 1 }} @ {{ 2 }} {{ 'x' ~ '@' }}",
    "across lines": "{{ [\n 'a',\n'b'\n]|join }} @\n@",
    "unicode": "ä 𝄞 @ {{ names|join }} 𝄞 @ {{ names[1] }}@\n𝄞 {{ n }} @",
    "loop controls": "{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}\n@\n{% endfor %}",
    "translated": "@\n{% trans a=n %}x {{ a }} @{% endtrans %}\n@",
    "recursive": "{% for x in [[1, [2]]] recursive %}\n@{{ loop(x) if x is iterable else x }}@"
    "\n{% endfor %}",
    "namespace": "{% set ns = namespace(t='') %}{% for x in names %}{% set ns.t = ns.t ~ x %}"
    "\n{{ ns.t }} @{% endfor %}",
}
#: Extensions that the constructs need.
EXTENSIONS = ["jinja2.ext.loopcontrols", "jinja2.ext.i18n"]


@pytest.mark.parametrize("construct", CONSTRUCTS)
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True},
        {"newline_sequence": "\r\n", "finalize": str},
    ],
    ids=["plain", "escaped", "crlf"],
)
def test_a_map_tells_what_the_text_says(
    page: Project, construct: str, environment: dict[str, object]
) -> None:
    end = "\r\n" if "newline_sequence" in environment else "\n"
    numbered(page, "page.j2", CONSTRUCTS[construct], end)
    assert "page.j2" in check_lines(page, extensions=EXTENSIONS, **environment)


def test_line_statements_and_other_delimiters_count_as_lines(page: Project) -> None:
    text = "# for x in names\n<< x >> @ << x >> @\n# endfor\n## nothing\n@"
    numbered(page, "page.j2", text)
    check_lines(
        page,
        line_statement_prefix="#",
        line_comment_prefix="##",
        variable_start_string="<<",
        variable_end_string=">>",
    )
