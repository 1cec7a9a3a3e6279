"""Source maps: an error in a generated file is told with the template's line and pattern's key.

Where a test is about which line made a text, every line of the templates says where it stands, so
that the generated file tells what its map has to say.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import sys
from typing import Any

import pytest
from conftest import Project

from codegen_tasks import Codegen, maps, places, process
from codegen_tasks.build import Build
from codegen_tasks.maps import Origin, Segment, SourceMap

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


def check_lines(project: Project, finish: dict[str, Any] | None = None, **environment: Any) -> str:
    """Insist that the map of a.txt tells of each place there what the text there says.

    Args:
        project: in which the template is page.j2.
        finish: what the rule says of its formatter and line ends.
        environment: Jinja2's options.
    """
    codegen = Codegen(environment=environment, globals={"gettext": str, "ngettext": plural})
    codegen.rule(
        "page",
        template="page.j2",
        patterns="patterns/*.json",
        target="{stem}.txt",
        **(finish or {}),
    )

    @codegen.filter
    def quoted(text: str) -> str:
        return "\n".join(f"> {line}" for line in text.split("\n"))

    build = Build(codegen.project)
    (step,) = [step for step in build.plan.steps.values() if step.phase == "generate"]
    data = build.workshop.rendered(step).data
    found = build.workshop.origins.source_map("generated/a.txt", data)
    assert found is not None
    text = data.decode()
    known, unknown = 0, []
    for number, line in enumerate(text.split("\n")):
        for tag in re.finditer(r"\[([^\]]+):(\d+)\]", line):
            segment = found.at(number, maps.units(line[: tag.start()]))
            if segment is None:
                unknown.append(line)
                continue
            known += 1
            assert found.sources[segment.source] == f"templates/{tag[1]}", line
            assert segment.line + 1 == int(tag[2]), line
    # Where a formatter has dropped words, it is not known of all others which ones they are.
    assert len(unknown) <= (known / 4 if finish and "format" in finish else 0), unknown
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
    "default": "@\n{{ nothing|default('@') }} {{ nothing is defined }} @\n@",
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
#: Formatters that change what lies between words, as programs in Python.
FORMATTERS = {
    "wraps": r"text.replace(' ', '\n\n    ')",
    "joins": r"re.sub(r'\s+', ' ', text) + '\n'",
    "adds marks": r"re.sub(r'(?m)(.)$', r'\1,', text).replace(' ', '; (').replace('<', '<<')",
    "drops marks": r"re.sub(r'[<>,0-9](?=[\s>,<])', '', text)",
    "other quotes": r"text.replace('<', '(').replace('>', ')').replace(',', ' ;')",
}
#: Extensions that the constructs need.
EXTENSIONS = ["jinja2.ext.loopcontrols", "jinja2.ext.i18n"]


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_what_a_formatter_leaves_of_a_text_still_knows_its_line(
    page: Project, formatter: str
) -> None:
    """All constructs are in one text here: words are found again among many that are alike."""
    program = f"import re, sys; text = sys.stdin.read(); sys.stdout.write({FORMATTERS[formatter]})"
    finish = {"format": [sys.executable, "-IS", "-c", program], "newline": "\r\n"}
    several = [text for text in CONSTRUCTS.values() if "{% extends" not in text]
    numbered(page, "page.j2", "\n".join(several))
    assert "\r\n" in check_lines(page, finish, trim_blocks=True, extensions=EXTENSIONS)


def test_a_template_with_other_line_ends_than_its_target_is_known(page: Project) -> None:
    for construct in ("include", "call", "whitespace control"):
        numbered(page, "page.j2", CONSTRUCTS[construct])
        assert "\r\n" in check_lines(page, {"newline": "\r\n"})


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


# --- what a failing template says ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{% for n in nodes %}{{ n.size|tenth }}{% endfor %}", "a.yaml:4: nodes[1].size = 0"),
        ("{% for n in nodes %}{% set x = tenth(n) %}{% endfor %}", "a.yaml:2: nodes[0] = 1 key"),
        ("{{ box.a }}{% if box.deep.b %}{% endif %}", "a.yaml:7: box.deep = 1 key"),
        (
            "{% macro m(x) %}{{ x.deep|tenth }}{% endmacro %}{{ m(box) }}",
            "a.yaml:7: box.deep = 1 key",
        ),
        ("{{ box.missing|default(1) }}{{ 1 / nodes[1].size }}", "a.yaml:4: nodes[1].size = 0"),
    ],
)
def test_a_failing_render_tells_the_keys_that_it_was_at(
    empty_project: Project, body: str, told: str
) -> None:
    project = empty_project
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        codegen = Codegen()
        codegen.rule("a", template="a.j2", patterns="a.yaml", target="{stem}.txt")

        @codegen.filter
        @codegen.function
        def tenth(number):
            return 10 / number

        DOIT_CONFIG = codegen.doit_config
        """,
    )
    project.write(
        "a.yaml", "nodes:\n  - size: 5\n    # none\n  - size: 0\nbox:\n  a: 1\n  deep: {c: 1}\n"
    )
    project.write("templates/a.j2", body)
    assert f"    with {told}\n" in project.doit().out


# --- what a failing compiler says ---------------------------------------------------------------


def test_a_compiler_s_error_is_told_with_template_chain_and_key(empty_project: Project) -> None:
    project = declared(empty_project, "x.py.j2", ".py", "python", trim_blocks=True)
    project.write("templates/base.j2", "# begin\n{% block body %}{% endblock %}\n# end\n")
    project.write(
        "templates/m.j2", "{% macro line(n) %}\n{{ n.id }} = {{ n.decay }}\n{% endmacro %}"
    )
    project.write(
        "templates/x.py.j2",
        """
        {% extends "base.j2" %}
        {% from "m.j2" import line %}
        {% block body %}
        {% for node in nodes %}
        {{ line(node) }}
        {% endfor %}
        {% endblock %}
        """,
    )
    project.write(
        "patterns/a.toml",
        """
        [[nodes]]
        id = "glow"
        decay = 0.5

        [[nodes]]
        id = "tint"
        # too fast
        decay = "1 2"
        """,
    )
    assert message(project, "compile:a.pyc") == (
        "generated/a.py:4: invalid syntax\n"
        "  4 | tint = 1 2\n"
        "  by templates/m.j2:2\n"
        "  2 | {{ n.id }} = {{ n.decay }}\n"
        "    |              ^^^^^^^^^^^^^\n"
        "  from templates/x.py.j2:5\n"
        "  from templates/base.j2:2\n"
        "  from templates/x.py.j2:1\n"
        '  with patterns/a.toml:8: nodes[1].decay = "1 2"\n'
        "  made from templates/x.py.j2 and patterns/a.toml\n"
    )
    found = kept(project, "a.py")
    segment = found.at(3, 7)
    assert segment is not None
    assert found.names[segment.name] == "nodes[1].decay"
    assert found.origin(segment) == Origin(
        "templates/m.j2",
        *(2, 13, 13),
        (("templates/x.py.j2", 5), ("templates/base.j2", 2), ("templates/x.py.j2", 1)),
        (("patterns/a.toml", ("nodes", 1, "decay")),),
    )
    assert project.doit().out.count("nodes[1].decay") == 1  # from the map that was kept


KEYS = {
    "{{ a.b }}": ["a.b"],
    "{{ a['b'] }}": ["a.b"],
    "{{ a.list[-1] }}": ["a.list[2]"],
    "{% for x in a.list %}{% if loop.last %}{{ x }}{% endif %}{% endfor %}": ["a.list[2]"],
    "{% for k, v in a.t.items() %}{{ k }}{{ v }}{% endfor %}": ["a.t.c"],
    "{% set x = a.b %}{{ x|upper|trim }}": ["a.b"],
    "{{ a.list|join(a.b) }}": ["a.list", "a.b"],
    "{% set on = true %}{{ on }}": [],
    "{{ on }}": ["on"],
    "{{ a.b|dashed }}": ["a.b"],
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(a.b) }}": ["a.b"],
    "{% set b = 'x' %}{{ b }}": [],
    "{{ 'x' if on else a.b }}": ["on"],
    "{{ pattern.stem }}": [],
    "{{ a.list|length }}{{ a.t.c|length }}": ["a.list", "a.t.c"],
    "{{ a.t }}": ["a.t"],
}


@pytest.mark.parametrize("text", KEYS)
def test_the_keys_are_those_that_the_expression_read(empty_project: Project, text: str) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", f"= {text}\n")
    data = {"a": {"b": "x", "list": [1, 2, 3], "t": {"c": "y"}}, "on": True}
    project.write("patterns/p.json", json.dumps(data))
    project.doit()
    found = project.codegen("where", "generated/p.py:1").out
    assert re.findall(r"with patterns/p.json:1: (\S+) =", found) == KEYS[text], found


def test_keys_are_told_of_each_item_and_of_each_of_many_patterns(empty_project: Project) -> None:
    project = declared(empty_project, "x.j2", ".py", "python", trim_blocks=True)
    rules = """
codegen.rule("e", template="e.j2", patterns="each/*", each="regs", target="{stem}-{item}.py")
codegen.rule("m", template="m.j2", patterns="patterns/*", target="many.py", context={"extra": 3})
"""
    project.write("dodo.py", project.read("dodo.py") + rules)
    project.write("templates/x.j2", "")
    project.write("templates/e.j2", "{{ item }} = {{ w }}\n")
    many = "{% for p in patterns %}\n{{ p.v }} {{ extra }} {{ p.pattern.stem }}\n{% endfor %}\n"
    project.write("templates/m.j2", many)
    project.write("each/ü.json", '{"w": 1, "regs": ["a", "b"]}')
    for stem in "ab":
        project.write(f"patterns/{stem}.toml", f'v = "{stem}"\n')
    assert project.doit().code == 0
    out = project.codegen("where", "generated/ü-b.py:1", "generated/many.py:2").out
    assert re.findall("with (.*)", out) == [
        'each/ü.json:1: regs[1] = "b"',
        "each/ü.json:1: w = 1",
        'patterns/b.toml:1: v = "b"',
    ]


def test_a_file_that_renders_differently_is_not_blamed_on_a_line(empty_project: Project) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "= {{ range(1000000000)|random }}\n")
    project.write("patterns/p.toml", "")
    said = message(project, "compile:p.pyc")
    assert "  what made this cannot be told: rendered again, it is not the same\n" in said
    assert not project.exists(".codegen/maps")
    assert project.codegen("where", "generated/p.py:1").code == 1


@needs_cc
def test_cc_s_errors_are_told_though_tabs_and_letters_stand_before(empty_project: Project) -> None:
    project = declared(empty_project, "x.c.j2", ".c", "cc")
    line = '\tputs("ä"); return {{ value }};\n'
    project.write("templates/x.c.j2", f"int puts(const char *);\nint f(void)\n{{\n{line}}}\n")
    project.write("patterns/a.yaml", "# units\nvalue: bogus\n")
    assert (
        f"  by templates/x.c.j2:4\n  4 | {line}"
        "    | \t                  ^^^^^^^^^^^\n"
        '  with patterns/a.yaml:2: value = "bogus"\n'
    ) in message(project, "compile:a.o")


@needs_deno
def test_places_in_typescript_and_javascript_lead_to_the_template(empty_project: Project) -> None:
    project = declared(empty_project, "x.ts.j2", ".ts", "deno")
    project.write(
        "templates/part.j2", "const note = '𝄞ä'; export const speed: number = {{ speed }};"
    )
    project.write(
        "templates/x.ts.j2",
        "type Gone = {\n  a: number;\n};\n{% include 'part.j2' %}\n"
        "export function fail(): void {\n  throw new Error({{ text|tojson }});\n}\n",
    )
    project.write("patterns/a.toml", 'text = "oh"\nspeed = "note"\n')
    said = message(project, "compile:a.js")
    assert (
        "  by templates/part.j2:1\n"
        "  1 | const note = '𝄞ä'; export const speed: number = {{ speed }};\n"
        "    |                                 ^^^^^\n"
        "  from templates/x.ts.j2:4\n"
        '  with patterns/a.toml:2: speed = "note"\n' in said
    )
    project.write("patterns/a.toml", 'text = "oh"\nspeed = "1"\n')
    assert project.doit().code == 0
    lines = project.read("generated/a.js").split("\n")
    number = next(n for n, line in enumerate(lines, 1) if "throw" in line)
    column = lines[number - 1].index('"oh"') + 1
    result = project.codegen("where", f"generated/a.js:{number}:{column}")
    assert result.out == (
        f"generated/a.js:{number}:{column}\n"
        "  from generated/a.ts:6:19\n"
        "  by templates/x.ts.j2:6\n"
        "  6 |   throw new Error({{ text|tojson }});\n"
        "    |                   ^^^^^^^^^^^^^^^^^\n"
        '  with patterns/a.toml:1: text = "oh"\n'
    )
    segment = kept(project, "a.js").at(number - 1, column - 1)
    assert segment is not None
    assert (segment.line, segment.from_column) == (5, 18)


@pytest.mark.parametrize(("count", "rest"), [(3, ""), (4, "1 other key"), (6, "3 other keys")])
def test_of_many_keys_three_are_told_and_the_others_counted(
    empty_project: Project, count: int, rest: str
) -> None:
    project = empty_project
    rule = 'codegen.rule("a", template="a.j2", patterns="patterns/*", target="a.txt")'
    project.write("dodo.py", f"from codegen_tasks import Codegen\n\ncodegen = Codegen()\n{rule}\n")
    project.write("templates/a.j2", "".join(f"{{{{ patterns[0].k{n} }}}}" for n in range(count)))
    project.write("patterns/a.toml", "".join(f"k{n} = {n}\n" for n in range(count)))
    assert project.doit().code == 0
    told = project.codegen("where", "generated/a.txt:1").out
    assert told.count("  with patterns/a.toml:") == 3
    assert re.findall(r"  with (\d.*)\n", told) == [rest] * bool(rest)


def test_where_tells_of_the_places_in_a_stack_trace(empty_project: Project) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "x = 1\ny = {{ value }} / 0\n")
    project.write("patterns/a.toml", "value = 3\n")
    assert project.doit().code == 0
    trace = f'  File "{project.path}/generated/a.py", line 2, in <module>\nZeroDivisionError: no\n'
    project.write("trace.txt", trace)
    command = "python -m codegen_tasks where - < trace.txt".replace("python", sys.executable, 1)
    out = project.run("sh", "-c", command).out
    assert out.replace(str(project.path), "") == (
        '  File "/generated/a.py", line 2, in <module>\n'
        "    by templates/x.j2:2\n"
        "    2 | y = {{ value }} / 0\n"
        "    with patterns/a.toml:1: value = 3\n"
        "ZeroDivisionError: no\n"
    )


def test_where_takes_a_path_below_the_output_folder(empty_project: Project) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "x = 1\n")
    project.write("patterns/a.toml", "")
    assert project.doit().code == 0
    told = "  by templates/x.j2:1\n  1 | x = 1\n"
    assert project.codegen("where", "a.py:1").out == f"a.py:1\n{told}"
    assert project.codegen("where", "generated/a.py:1").out == f"generated/a.py:1\n{told}"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "generated/b.py:1",
            "generated/b.py: is no target of ours, did you mean 'generated/a.py'?",
        ),
        ("generated/a.py:99", "generated/a.py:99: there is no such place, or no map that leads"),
        ("generated/a.py", "where: 'generated/a.py' is not like generated/a.ts:12 or …:12:5"),
        ("/etc/passwd:1", "is no target of ours"),
    ],
)
def test_where_says_what_it_cannot_find(empty_project: Project, asked: str, said: str) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "x = 1\n")
    project.write("patterns/a.toml", "")
    project.doit()
    result = project.codegen("where", asked)
    assert result.code in (1, 3)
    assert said in result.out + result.err
    assert "Traceback" not in result.out + result.err


def test_where_says_of_a_blank_line_that_it_is_empty(empty_project: Project) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "x = 1\n\ny = 2\n")
    project.write("patterns/a.toml", "")
    assert project.doit().code == 0
    result = project.codegen("where", "a.py:2")
    assert result.out == "a.py:2\n  the line is empty\n  near templates/x.j2:1\n"


def test_maps_are_written_at_each_render_if_that_is_set_and_cleaned(
    empty_project: Project,
) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "x = {{ v }}\n")
    project.write("patterns/a.toml", "v = 1\n")
    assert project.doit().code == 0
    assert not project.exists(".codegen/maps")
    project.write("patterns/a.toml", "v = 2\n")
    assert project.doit(CODEGEN_MAPS="1").code == 0
    assert kept(project, "a.py").sources == ["templates/x.j2"]
    before = project.stamps()
    assert project.doit(CODEGEN_MAPS="1").code == 0
    assert project.stamps() == before
    project.doit("clean")
    assert not project.exists(".codegen/maps")


def test_the_map_of_an_orphan_is_pruned_with_it(empty_project: Project) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "x = {{ v }}\n")
    for stem in "ab":
        project.write(f"patterns/{stem}.toml", "v = 1\n")
    project.doit(CODEGEN_MAPS="1")
    project.remove("patterns/a.toml")
    assert project.codegen("prune").code == 0
    assert not project.exists(".codegen/maps/a.py.map")
    assert project.exists(".codegen/maps/b.py.map")


def test_a_map_of_other_bytes_or_a_broken_one_is_not_believed(empty_project: Project) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "x = {{ v }}\n")
    project.write("patterns/a.toml", "v = 1\n")
    project.doit(CODEGEN_MAPS="1")
    for broken in (
        b"",
        b"{}",
        b"[]",
        b'{"version": 3, "sources": [], "mappings": "AAAA"}',
        b"\xff",
    ):
        project.write(".codegen/maps/a.py.map", broken)
        assert "by templates/x.j2:1" in project.codegen("where", "generated/a.py:1").out
    project.write("templates/x.j2", "# new\nx = {{ v }}\n")
    project.doit()
    assert "by templates/x.j2:2" in project.codegen("where", "generated/a.py:2").out


def test_doit_diff_tells_the_line_and_writes_no_map(empty_project: Project) -> None:
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("templates/x.j2", "= {{ v }}\n")
    project.write("patterns/a.toml", "v = 1\n")
    assert "by templates/x.j2:1" in project.codegen("diff").err
    assert not project.exists(".codegen/maps")


def test_what_a_sandbox_rendered_is_rendered_again_only_where_somebody_asks(
    empty_project: Project,
) -> None:
    """For that render has no limit of time."""
    project = declared(empty_project, "x.j2", ".py", "python")
    project.write("dodo.py", project.read("dodo.py").replace("Codegen(", "Codegen(sandbox=True, "))
    project.write("templates/x.j2", "= {{ v ~ v }}\n")
    project.write("patterns/a.toml", "v = 1\n")
    assert "by templates" not in message(project, "compile:a.pyc")
    assert "by templates/x.j2:1" in project.codegen("where", "generated/a.py:1").out


# --- the parts ----------------------------------------------------------------------------------


def test_a_map_is_read_as_it_was_written() -> None:
    one = Origin("t/a.j2", 7, 3, 5, (("t/b.j2", 2),), (("p.toml", ("a", 1)),))
    made = maps.built("x.ts", [("ä𝄞", one), ("b\nc", Origin("t/b.j2", 1)), ("?", None)], "d")
    found = maps.read(made.to_bytes())
    assert found == made
    assert [len(line) for line in found.lines] == [2, 2]
    assert found.lines[0][1].column == 3  # the clef takes two units
    assert found.at(1, 1) is None
    segment = found.at(0, 2)
    assert segment is not None
    assert found.origin(segment) == one


def test_mappings_are_those_of_the_standard() -> None:
    found = maps.read(
        '{"version": 3, "sources": ["a"], "names": [], "mappings": "AAgBC,SAAQ;;CAEA"}'
    )
    assert found is not None
    assert found.lines == [
        [Segment(0, 0, 16, 1), Segment(9, 0, 16, 9)],
        [],
        [Segment(1, 0, 18, 9)],
    ]


TOML = """
title = "a = 1"   # a comment
text = '''
[nodes]
inner = 1
'''
list = [
  1,
  2,
]

[table.inner]
x.y = 1

[[nodes]]
id = 1
[[nodes]]

# which one
"quoted key" = 2
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("text",), 3),
        (("inner",), 0),
        (("list",), 7),
        (("list", 1), 7),
        (("table", "inner", "x", "y"), 13),
        (("nodes",), 15),
        (("nodes", 0, "id"), 16),
        (("nodes", 1), 17),
        (("nodes", 1, "quoted key"), 20),
        (("nodes", 2), 0),
        ((), 0),
    ],
    ids=str,
)
def test_the_line_of_a_key_in_toml(path: tuple[object, ...], line: int) -> None:
    assert places.line_of("a.toml", TOML, path) == line


@pytest.mark.parametrize(
    ("name", "text", "path", "line"),
    [
        ("a.json", '{"a": [\n1,\n {"b": "}",\n"c": 1}]}', ("a", 1, "c"), 4),
        ("a.json", '{"a": 1,\n"a": 2}', ("a",), 2),
        ("a.json", '{"a": 1', ("a",), 0),
        ("a.json", '{"a": 1}', ("b",), 0),
        ("a.yaml", "a:\n  - b: 1\n  - b: 2\n", ("a", 1, "b"), 3),
        ("a.yml", "a: &x\n  b: 1\nc: *x\n", ("c", "b"), 2),
        ("a.toml", "a = ", ("a",), 0),
    ],
)
def test_the_line_of_a_key_in_json_and_yaml(
    name: str, text: str, path: tuple[object, ...], line: int
) -> None:
    assert places.line_of(name, text, path) == line


# --- what a formatter has moved -----------------------------------------------------------------

FORMATTED = """
import sys
from codegen_tasks import Codegen, Formatter

codegen = Codegen()
codegen.rule("x", template="x.j2", patterns="patterns/*", target="{{stem}}{suffix}",
             compile="{compile}", format=Formatter("tidy", {command}, version=["true"]){more})
DOIT_CONFIG = codegen.doit_config
"""
#: A formatter that joins lines, splits statements, and takes other quotes.
TIDY = """
import re, sys
text = sys.stdin.read()
for number, line in enumerate(text.splitlines(), 1):
    if "%" in line:
        mark = " " * line.index("%") + "^"
        sys.exit(f"<stdin>:{number}:5: what is that?\\n{number} | {line}\\n  | {mark}")
text = re.sub(r"\\s*\\n\\s*", " ", text).replace("'", '"')
print("# tidied\\n" + re.sub(r"\\s*;\\s*", "\\n", text).strip())
"""


def tidied(project: Project, suffix: str, compiler: str, command: str, more: str = "") -> Project:
    """Declare one rule whose files go through a formatter before they are compiled."""
    text = FORMATTED.format(suffix=suffix, compile=compiler, command=command, more=more)
    project.write("dodo.py", text)
    project.write("tools/tidy.py", TIDY)
    return project


@needs_deno
def test_a_place_that_a_formatter_moved_leads_to_the_template(empty_project: Project) -> None:
    deno = process.find("deno")
    tidied(empty_project, ".ts", "deno", f"[{deno!r}, 'fmt', '--ext', 'ts', '-']")
    project = empty_project
    project.write(
        "templates/x.j2",
        "import { two,one } from './one.ts'\n"
        "{% for node in nodes %}\n"
        "  export const {{ node.name }}:number=one ;export function f_{{ node.name }}( x:string,\n"
        "     y:number ) : number{ if(y) {throw new Error('{{ node.text }}'+x)}; return two*\n"
        "       {{ node.value }}\n"
        "}{% endfor %}",
    )
    project.write("generated/one.ts", "export const one = 1, two = 2;\n")
    nodes = [{"name": f"n{n}", "text": "its", "value": f"{n}"} for n in range(40)]
    nodes[30]["value"] = "'fast'"
    project.write("patterns/a.json", json.dumps({"nodes": nodes}, indent=1))
    said = message(project, "compile:a.js")
    assert project.read("generated/a.ts").splitlines()[0] == 'import { one, two } from "./one.ts";'
    assert said.endswith(
        "  by templates/x.j2:5\n"
        "  5 |        {{ node.value }}\n"
        "    |        ^^^^^^^^^^^^^^^^\n"
        "  with patterns/a.json:156: nodes[30].value = \"'fast'\"\n"
        "  made from templates/x.j2 and patterns/a.json\n"
    )
    assert '    "fast";\n' in said  # on a line of its own now


@needs_deno
def test_javascript_leads_to_the_template_though_a_formatter_stood_between(
    empty_project: Project,
) -> None:
    deno = process.find("deno")
    tidied(empty_project, ".ts", "deno", f"[{deno!r}, 'fmt', '--ext', 'ts', '-']")
    project = empty_project
    project.write(
        "templates/x.j2",
        "export type T={a:string}\nexport function fail(t:T){\n"
        "   if(t.a) {throw new Error( {{ text|tojson }} +\nt.a)}}",
    )
    project.write("patterns/a.toml", 'text = "oh"\n')
    assert project.doit().code == 0
    lines = project.read("generated/a.js").split("\n")
    number = next(n for n, line in enumerate(lines, 1) if "throw" in line)
    column = lines[number - 1].index('"oh"') + 1
    source = project.read("generated/a.ts").split("\n")
    from_line = next(n for n, line in enumerate(source, 1) if '"oh"' in line)
    from_column = source[from_line - 1].index('"oh"') + 1
    result = project.codegen("where", f"generated/a.js:{number}:{column}")
    assert result.out == (
        f"generated/a.js:{number}:{column}\n"
        f"  from generated/a.ts:{from_line}:{from_column}\n"
        "  by templates/x.j2:3\n"
        "  3 |    if(t.a) {throw new Error( {{ text|tojson }} +\n"
        "    |                              ^^^^^^^^^^^^^^^^^\n"
        '  with patterns/a.toml:1: text = "oh"\n'
    )


def test_python_that_a_formatter_took_apart_leads_to_the_template(empty_project: Project) -> None:
    command = "[sys.executable, 'tools/tidy.py']"
    project = tidied(empty_project, ".py", "python", command, ', newline="\\r\\n"')
    project.write("templates/x.j2", "x = '1'; y = {{ value }}\n+ 1\n ;z = 3\n")
    project.write("patterns/a.toml", 'value = "1 2"\n')
    assert message(project, "compile:a.pyc") == (
        "generated/a.py:3: invalid syntax\n"
        "  3 | y = 1 2 + 1\n"
        "  by templates/x.j2:1\n"
        "  1 | x = '1'; y = {{ value }}\n"
        "    |              ^^^^^^^^^^^\n"
        '  with patterns/a.toml:1: value = "1 2"\n'
        "  made from templates/x.j2 and patterns/a.toml\n"
    )
    assert b"\r\n" in (project.path / "generated/a.py").read_bytes()
    told = project.codegen("where", *(f"generated/a.py:{line}" for line in range(1, 5)))
    assert re.findall(r"(?:py:\d)\n  (?:by|near) (.*)", told.out) == ["templates/x.j2:1"] * 2 + [
        "templates/x.j2:3"
    ]


def test_what_a_formatter_refuses_is_told_with_what_made_it(empty_project: Project) -> None:
    command = "[sys.executable, 'tools/tidy.py']"
    project = tidied(empty_project, ".py", "python", command)
    project.write("templates/x.j2", "x = 1\ny = {{ value }}\n")
    project.write("patterns/a.toml", '# here\nvalue = "%"\n')
    assert message(project, "generate:a.py") == (
        "generated/a.py:2: tidy exited with 1\n"
        "  <stdin>:2:5: what is that?\n"
        "  2 | y = %\n"
        "    |     ^\n"
        "  by templates/x.j2:2\n"
        "  2 | y = {{ value }}\n"
        "    |     ^^^^^^^^^^^\n"
        '  with patterns/a.toml:2: value = "%"\n'
        "  made from templates/x.j2 and patterns/a.toml\n"
    )


@needs_deno
def test_what_made_the_first_error_is_told_before_the_other_ones(empty_project: Project) -> None:
    project = declared(empty_project, "x.ts.j2", ".ts", "deno")
    line = "export const {}: number = {{ value|tojson }};\n"
    project.write("templates/x.ts.j2", line.replace("{}", "a", 1) + line.replace("{}", "b", 1))
    project.write("patterns/a.toml", 'value = "oh"\n')
    what = "Type 'string' is not assignable to type 'number' (TS2322)"
    assert message(project, "compile:a.js") == (
        f"generated/a.ts:1: {what}\n"
        '  1 | export const a: number = "oh";\n'
        "  by templates/x.ts.j2:1\n"
        "  1 | export const a: number = {{ value|tojson }};\n"
        "    |              ^\n"
        '  with patterns/a.toml:1: value = "oh"\n'
        f"  generated/a.ts:2: {what}\n"
        "  made from templates/x.ts.j2 and patterns/a.toml\n"
    )
