"""Other template formats: chosen by suffix, cached and tracked by the same promises."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random

import pytest
from conftest import Project

from codegen_tasks import Codegen
from codegen_tasks.build import Build
from codegen_tasks.errors import DeclarationError

HEAD = """
from codegen_tasks import Codegen

codegen = Codegen({arguments})
"""
TAIL = """

@codegen.filter
def shout(text):
    return text.upper() + "!"


@codegen.function
def double(number=4):
    return number * 2


DOIT_CONFIG = codegen.doit_config
"""


PATTERN = 'name = "ash"\ngain = 1\n[config]\na = 1\nb = 2\n'


def declared(project: Project, template: str, text: str, arguments: str = "") -> Project:
    """Declare a rule `page` of a template and one pattern, which are there."""
    rule = (
        f'codegen.rule("page", template="{template}", patterns="p/*.toml", target="{{stem}}.txt")'
    )
    project.write("dodo.py", HEAD.format(arguments=arguments) + rule + "\n" + TAIL)
    project.write(f"templates/{template}", text)
    project.write("p/ash.toml", PATTERN)
    return project


def made(project: Project, *arguments: str) -> str:
    """Build; return the target's text."""
    result = project.doit(*arguments)
    assert (result.code, result.err) == (0, ""), result.out + result.err
    return project.read("generated/ash.txt")


def again(project: Project) -> str:
    """Build; return what the run says it came to, without the time."""
    result = project.doit()
    assert result.code == 0, result.out
    return result.out.splitlines()[-1].partition(" in ")[0]


def shout(text: str) -> str:
    return text.upper() + "!"


def boom(text: str) -> str:
    return {"": text}[text + "?"]


class Renders:
    """Renders one template of a project in this process, for what need not run doit."""

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch):
        self.project = project
        monkeypatch.chdir(project.path)
        project.write("p/ash.toml", PATTERN)

    def failure(self, template: str, text: str | bytes, **arguments: object) -> list[str]:
        """Return the message of a render that fails, line by line."""
        self.project.write(f"templates/{template}", text)
        codegen = Codegen(**arguments)  # type: ignore[arg-type]
        codegen.filter(shout)
        codegen.function(boom)
        codegen.rule("page", template=template, patterns="p/*.toml", target="{stem}.txt")
        build = Build(codegen.project)
        steps = [one for one in build.plan.steps.values() if one.phase == "generate"]
        (outcome,) = build.workshop.run(steps, {}, over={})
        assert outcome.error
        assert "Traceback" not in outcome.error
        return outcome.error.splitlines()


@pytest.fixture
def renders(empty_project: Project, monkeypatch: pytest.MonkeyPatch) -> Renders:
    """Return a project of one pattern, whose templates are rendered here."""
    return Renders(empty_project, monkeypatch)


def reasons(project: Project) -> str:
    """Return what `doit info` says of the target."""
    data = json.loads(project.doit("info", "--json").out)
    stale = (step for step in data["stale"] if step["task"].startswith("generate:"))
    return "; ".join(reason["text"] for step in stale for reason in step["reasons"])


# What renders ----------------------------------------------------------------------------

MAKO = """
<%inherit file="base.mako"/>\\
<%namespace name="m" file="sub/macros.mako"/>\\
${name | shout} ${double(gain)} ${site} ${m.item(name)}\\
<%include file="sub/part.mako" args="x=3"/>\\
${read_toml("data.toml")["key"]}${read_yaml("data.yaml")["key"]}
"""
MUSTACHE = """
{{name}} {{#shout}}x{{name}}{{/shout}} {{double}} {{site}} {{{mark}}} {{mark}}
{{#config}}
{{> sub/part}}
{{/config}}
{{#read_text}}data.toml{{/read_text}}{{^nothing}}none{{/nothing}}
"""


def mako(project: Project) -> Project:
    """Declare a Mako template with a base, a namespace, an include and a file it reads."""
    declared(project, "page.mako", MAKO, "globals={'site': 'here'}")
    project.write("templates/base.mako", "begin ${self.body()}end\n")
    project.write("templates/sub/macros.mako", '<%def name="item(x)">[${x}]</%def>')
    project.write("templates/sub/part.mako", '<%page args="x"/>(${x} ${pattern["stem"]}) ')
    project.write("data.toml", "key = 7\n")
    project.write("data.yaml", "key: 6\n")
    return project


def mustache(project: Project) -> Project:
    """Declare a Mustache template with a partial and a file it reads."""
    declared(project, "page.mustache", MUSTACHE, "globals={'site': 'here', 'mark': '<'}")
    project.write("templates/sub/part.mustache", b"  {{a}} {{b}} {{name}}\n")
    project.write("data.toml", "key = 7\n")
    return project


def test_mako_templates_inherit_include_and_call_what_the_project_declares(
    empty_project: Project,
) -> None:
    project = mako(empty_project)
    assert made(project) == "begin ASH! 2 here [ash](3 ash) 76\nend\n"
    assert again(project) == "1 up to date"


def test_mustache_templates_have_partials_and_call_what_the_project_declares(
    empty_project: Project,
) -> None:
    project = mustache(empty_project)
    assert made(project) == "ash XASH! 8 here < &lt;\n  1 2 ash\nkey = 7\nnone\n"
    assert again(project) == "1 up to date"


def test_engines_live_beside_each_other_and_build_in_parallel(empty_project: Project) -> None:
    project = mako(empty_project)
    text = project.read("dodo.py")
    for name in ("u.mustache", "j.txt.j2", "plain.txt"):
        rule = f'codegen.rule("{name[0]}", template="{name}", patterns="p/*.toml", '
        text = text.replace(
            "\n\n@codegen.filter", f'\n{rule}target="{name[0]}.{{stem}}")\n\n@codegen.filter'
        )
        project.write(f"templates/{name}", "{{ name }} {{ site }}\n")
    project.write("dodo.py", text)
    assert project.doit("-n", "2").code == 0
    assert {project.read(f"generated/{one}.ash") for one in "uj"} == {"ash here\n"}
    assert project.read("generated/p.ash") == "ash here\n"  # what claims no engine is Jinja2's


def test_a_rule_over_all_patterns_and_items_of_a_list_work_in_every_engine(
    empty_project: Project,
) -> None:
    project = declared(empty_project, "page.mako", "${name}")
    project.write("p/ash.toml", 'name = "ash"\nparts = [{n = 1}, {n = 2}]\n')
    head, tail = HEAD.format(arguments=""), TAIL
    rules = "".join(
        f'codegen.rule("all{end}", template="all.{end}", patterns="p/*.toml", target="all.{end}")\n'
        f'codegen.rule("each{end}", template="each.{end}", patterns="p/*.toml", each="parts", '
        f'target="{{n}}.{end}")\n'
        for end in ("mako", "mustache")
    )
    project.write("dodo.py", head + rules + tail)
    project.write(
        "templates/all.mako",
        '% for p in patterns:\n${p["name"]} ${p["pattern"]["stem"]}\n% endfor\n',
    )
    project.write(
        "templates/all.mustache", "{{#patterns}}\n{{name}} {{pattern.stem}}\n{{/patterns}}\n"
    )
    project.write("templates/each.mako", '${n} ${item["n"]} ${name}')
    project.write("templates/each.mustache", "{{n}} {{item.n}} {{name}}")
    assert project.doit().code == 0
    for end in ("mako", "mustache"):
        assert project.read(f"generated/all.{end}") == "ash ash\n"
        assert project.read(f"generated/2.{end}") == "2 2 ash"


# What is tracked -------------------------------------------------------------------------


def edited(project: Project, edits: list[tuple[str, str, str, str]]) -> None:
    """Edit one thing after the other; each makes the target stale, for a reason of its own."""
    text = made(project)
    for name, old, new, reason in edits:
        before = project.read(name)
        project.write(name, before.replace(old, new).encode())
        assert reasons(project).startswith(reason)
        project.write(name, before.encode())
    assert made(project) == text
    for name, old, new, _ in edits:
        project.write(name, project.read(name).replace(old, new).encode())
    changed = made(project)
    shutil.rmtree(project.path / "generated")
    shutil.rmtree(project.path / ".codegen")
    assert made(project) == changed != text


def test_what_a_mako_template_reads_makes_its_target_stale(empty_project: Project) -> None:
    edits = [
        ("templates/base.mako", "begin", "start", "templates/base.mako: "),
        ("templates/sub/macros.mako", "[", "<", "templates/sub/macros.mako: "),
        ("templates/sub/part.mako", "(", "<", "templates/sub/part.mako: "),
        ("data.toml", "7", "8", "data.toml: "),
        ("data.yaml", "6", "8", "data.yaml: "),
        ("p/ash.toml", "gain = 1", "gain = 2", "p/ash.toml: gain 1 → 2"),
        ("dodo.py", '+ "!"', '+ "?"', "filter shout: source changed"),
        ("dodo.py", "number * 2", "number * 3", "function double: source changed"),
        ("dodo.py", "'here'", "'there'", "global site: 'here' → 'there'"),
        (
            "dodo.py",
            "globals=",
            "engines={'mako': {'imports': []}}, globals=",
            "environment imports: ",
        ),
    ]
    edited(mako(empty_project), edits)


def test_what_a_mustache_template_reads_makes_its_target_stale(empty_project: Project) -> None:
    edits = [
        ("templates/sub/part.mustache", "  ", " ", "templates/sub/part.mustache: "),
        ("data.toml", "7", "8", "data.toml: "),
        ("p/ash.toml", "b = 2", "b = 3", "p/ash.toml: config.b 2 → 3"),
        ("p/ash.toml", "gain", "nothing", "p/ash.toml: nothing absent → 1"),
        ("dodo.py", '+ "!"', '+ "?"', "filter shout: source changed"),
        ("dodo.py", "number * 2", "number * 3", "function double: source changed"),
        ("dodo.py", "'here'", "'there'", "global site: 'here' → 'there'"),
        (
            "dodo.py",
            "globals=",
            "engines={'mustache': {'escape': False}}, globals=",
            "environment escape: ",
        ),
    ]
    edited(mustache(empty_project), edits)


@pytest.mark.parametrize("kind", [mako, mustache])
def test_a_key_that_no_template_asks_for_makes_nothing_stale(
    empty_project: Project, kind: object
) -> None:
    project = kind(empty_project)  # type: ignore[operator]
    made(project)
    project.write("p/ash.toml", "other = 1\n" + project.read("p/ash.toml"))
    assert again(project) == "1 up to date"


def test_without_key_tracking_a_pattern_counts_whole_in_every_engine(
    empty_project: Project,
) -> None:
    project = mustache(empty_project)
    project.write("pyproject.toml", "[tool.codegen]\nkey_tracking = false\n")
    text = made(project)
    project.write("p/ash.toml", "other = 1\n" + project.read("p/ash.toml"))
    assert again(project) == "1 generated, 1 of them unchanged"
    assert project.read("generated/ash.txt") == text


def test_a_partial_is_looked_for_beside_its_template_first_and_may_appear_there(
    empty_project: Project,
) -> None:
    project = declared(empty_project, "sub/page.mustache", "{{> part}}")
    project.write("templates/part.mustache", "far")
    assert made(project) == "far"
    project.write("templates/sub/part.mustache", "near")
    assert reasons(project) == "sub/part.mustache: added"
    assert made(project) == "near"


def test_a_template_that_mako_looked_for_in_vain_may_appear(empty_project: Project) -> None:
    text = """
    % if context.lookup.has_template("extra.mako"):
    <%include file="extra.mako"/>
    % else:
    none
    % endif
    """
    project = declared(empty_project, "page.mako", text)
    assert made(project).split() == ["none"]
    project.write("templates/extra.mako", "extra")
    assert reasons(project) == "extra.mako: added"
    assert made(project).split() == ["extra"]


def test_a_mako_template_chosen_at_run_time_is_an_input(empty_project: Project) -> None:
    project = declared(empty_project, "page.mako", '<%include file="${name}.mako"/>')
    project.write("templates/ash.mako", "one")
    assert made(project) == "one"
    project.write("templates/ash.mako", "two")
    assert again(project) == "1 generated"


def test_modules_of_the_project_that_a_mako_template_imports_count(
    empty_project: Project,
) -> None:
    texts = [
        "<%! import helpers %>${helpers.hello()}",
        "<%! from pkg import helpers %>${helpers.hello()}",
        "<% from helpers import hello %>${hello()}",
        '<%namespace name="h" module="helpers"/>${h.greet()}',
        '${__import__("helpers").hello()}',
        '<%! import importlib %>${importlib.import_module("helpers").hello()}',
    ]
    project = declared(empty_project, "page.mako", "${name}")
    rules = "".join(
        f'codegen.rule("m{n}", template="{n}.mako", target="{n}.txt")\n' for n in range(len(texts))
    )
    for number, text in enumerate(texts):
        project.write(f"templates/{number}.mako", text)
    text = project.read("dodo.py").replace("\n\n@", f"\n{rules}\n\n@", 1)
    project.write("dodo.py", "import helpers, pkg.helpers\n" + text)
    source = "def hello():\n    return 'one'\n"
    source += "def greet(context):\n    context.write(hello())\n    return ''\n"
    project.write("pkg/__init__.py", "")
    for word in ("one", "two"):
        for name in ("helpers.py", "pkg/helpers.py"):
            project.write(name, source.replace("one", word))
        if word == "two":
            assert reasons(project).count("module ") >= len(texts)
        made(project)
        assert {project.read(f"generated/{n}.txt") for n in range(len(texts))} == {word}
    assert again(project) == f"{len(texts) + 1} up to date"


def test_a_module_of_the_project_that_is_named_as_one_of_python_counts(
    empty_project: Project,
) -> None:
    project = declared(
        empty_project, "page.mako", "<%! import colorsys %>${hasattr(colorsys, 'A')}"
    )
    assert made(project) == "False"
    for text, counts in (("A = 1\n", "True"), ("B = 1000\n", "False"), ("A = 20\n", "True")):
        project.write("colorsys.py", text)
        assert reasons(project).startswith("module ")
        assert made(project) == counts


def test_a_template_may_ask_mako_for_all_variables_and_all_count(empty_project: Project) -> None:
    project = declared(empty_project, "page.mako", "${sorted(pageargs)} ${sorted(context.kwargs)}")
    assert (
        made(project)
        == "['config', 'gain', 'name', 'pattern'] ['config', 'gain', 'name', 'pattern']"
    )
    project.write("p/ash.toml", "other = 1\n" + project.read("p/ash.toml"))
    assert "'other'" in made(project)


def test_what_one_engine_hangs_on_does_not_concern_the_others(empty_project: Project) -> None:
    """A new Mako makes targets of Mako templates stale, and a new Jinja2 those of Jinja2's."""
    project = mako(empty_project)
    rule = 'codegen.rule("j", template="j.txt.j2", patterns="p/*.toml", target="j.txt")\n'
    versions = "from importlib import metadata\nversion = metadata.version\nNEW = {}\n"
    versions += "metadata.version = lambda name: NEW.get(name) or version(name)\n"
    text = versions + project.read("dodo.py").replace(
        "\n\n@codegen.filter", f"\n{rule}\n@codegen.filter"
    )
    project.write("templates/j.txt.j2", "{% for p in patterns %}{{ p.name }}{% endfor %}")
    project.write("dodo.py", text)
    made(project)
    for package, label in (("mako", "mako"), ("jinja2", "jinja2"), ("pystache", "")):
        project.write("dodo.py", text.replace("NEW = {}", f"NEW = {{{package!r}: '99'}}"))
        told = reasons(project)
        assert told.count("→ 99") == (1 if label else 0), told
        assert told.startswith(label and f"{label}: ")


# The cache -------------------------------------------------------------------------------


def test_compiled_mako_templates_are_kept_in_the_template_cache(empty_project: Project) -> None:
    project = mako(empty_project)
    text = made(project)
    status = project.codegen("cache", "status").out
    assert status.startswith("templates: 4 entries of 4 templates, ")
    shutil.rmtree(project.path / "generated")
    out = project.doit().out
    assert "(templates 4 hits)" in out
    assert project.read("generated/ash.txt") == text


@pytest.mark.parametrize("kind", [mako, mustache])
def test_output_is_the_same_without_a_template_cache(empty_project: Project, kind: object) -> None:
    project = kind(empty_project)  # type: ignore[operator]
    text = made(project)
    shutil.rmtree(project.path / "generated")
    shutil.rmtree(project.path / ".codegen")
    project.write("pyproject.toml", "[tool.codegen]\ntemplate_cache = false\n")
    assert made(project) == text
    assert not project.exists(".codegen/cache")


def test_a_spoilt_entry_of_a_mako_template_is_a_miss(empty_project: Project) -> None:
    project = mako(empty_project)
    text = made(project)
    for entry in (project.path / ".codegen/cache").rglob("*.jbc"):
        entry.write_bytes(entry.read_bytes()[:-1])
    shutil.rmtree(project.path / "generated")
    assert "(templates 4 misses)" in project.doit().out
    assert project.read("generated/ash.txt") == text


def test_a_mustache_template_is_parsed_once_however_often_it_is_a_partial(
    empty_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pystache import parser

    from codegen_tasks.engines.base import Spec
    from codegen_tasks.engines.mustache import Engine
    from codegen_tasks.keys import View

    project = mustache(empty_project)
    project.write("templates/many.mustache", "{{#list}}{{> one}}{{> one}}{{/list}}")
    project.write("templates/one.mustache", "{{.}}")
    parsed: list[str] = []
    parse = parser.parse
    monkeypatch.setattr(
        parser, "parse", lambda text, *a, **k: parsed.append(text) or parse(text, *a, **k)
    )
    engine = Engine(Spec(str(project.path), "templates", {}, {}, {}, {}, False))
    for _ in range(3):
        text, _ = engine.render("many.mustache", View([], {"list": [1, 2]}, {}))
        assert text == "1122"
    assert len(parsed) == engine.misses == 2


# What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "arguments", "message"),
    [
        (
            "page.hbs",
            {},
            "rule page: template 'page.hbs' is Handlebars, for which there is no engine\n"
            "  hint: write it in Mustache (.mustache) or Jinja2 (.j2)",
        ),
        (
            "page.mako",
            {"sandbox": True},
            "rule page: template 'page.mako' cannot be rendered in the sandbox: "
            "Mako templates are Python, which no sandbox holds\n"
            "  hint: write it in Jinja2 (.j2) or Mustache (.mustache)",
        ),
        (
            "page.mako",
            {"engines": {"mako": {"import": []}}},
            "Codegen engines mako: unknown option 'import'\n  hint: did you mean 'imports'?",
        ),
        (
            "page.mako",
            {"engines": {"mako": {"imports": "import x"}}},
            "Codegen engines mako: imports must be a list of import statements, not 'import x'",
        ),
        (
            "page.mako",
            {"engines": {"makko": {}}},
            "Codegen engines: unknown engine 'makko'\n  hint: did you mean 'mako'?",
        ),
        (
            "page.mako",
            {"engines": {"jinja2": {}}},
            "Codegen engines: Jinja2's options have a place of their own\n  hint: environment=",
        ),
        ("page.mako", {"engines": [1]}, "Codegen: engines must be a dict, not [1]"),
    ],
)
def test_what_no_engine_takes_is_refused_before_any_step(
    renders: Renders, template: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        renders.failure(template, "x", **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("package", "template", "label", "extra"),
    [
        ("mako", "page.mako", "Mako", "mako"),
        ("pystache", "page.mustache", "Mustache", "mustache"),
    ],
)
def test_an_engine_that_is_not_installed_is_told_before_any_step(
    empty_project: Project, package: str, template: str, label: str, extra: str
) -> None:
    project = declared(empty_project, template, "x")
    hide = f"import sys\nsys.modules[{package!r}] = None\n"
    project.write("dodo.py", hide + project.read("dodo.py"))
    result = project.doit()
    assert result.code == 3
    hint = f"pip install 'codegen-tasks[{extra}]'"
    assert f"rule page: template '{template}' needs {label}\n  hint: {hint}\n" in result.err
    assert not project.exists("generated")


def test_templates_of_an_engine_that_no_rule_uses_are_left_alone(empty_project: Project) -> None:
    project = declared(empty_project, "page.txt.j2", "{{ name }}", "sandbox=True")
    project.write("templates/other.mako", "<% broken")
    project.write("templates/other.mustache", "{{#broken}}")
    assert made(project) == "ash"
    assert "other" not in project.doit("list", "--all").out


def test_a_sandbox_holds_mustache_templates(renders: Renders) -> None:
    page = "page.mustache"
    renders.project.write("secret.py", "x")
    text = "{{#read_text}}secret.py{{/read_text}}"
    first = renders.failure(page, text, sandbox=True)[0]
    assert first == "secret.py: a template in the sandbox cannot read this file"
    for name in ("name.__class__", "shout.__globals__"):
        first = renders.failure(page, f"{{{{{name}}}}}", sandbox=True)[0]
        assert first == f"templates/page.mustache:1: '{name}' is undefined"
    renders.project.write("pyproject.toml", "[tool.codegen]\nsandbox_bytes = 1000\n")
    renders.project.write("p/ash.toml", f"name = {list(range(40))}\n")
    text = "{{#name}}{{#name}}x{{/name}}{{/name}}"
    first = renders.failure(page, text, sandbox=True)[0]
    what = "the output is larger than 1000 bytes (sandbox_bytes)"
    assert first == f"templates/page.mustache: {what}"


@pytest.mark.parametrize("end", ["mako", "mustache"])
def test_templates_stay_in_their_folder(renders: Renders, end: str) -> None:
    load = {"mako": '<%%include file="%s"/>', "mustache": "{{> %s}}"}[end]
    project, page = renders.project, f"page.{end}"
    project.write(f"secret.{end}", "secret")
    (project.path / "templates").mkdir()
    (project.path / f"templates/link.{end}").symlink_to(project.path / f"secret.{end}")
    outside = "a template cannot lie outside the templates folder"
    for name in (f"../secret.{end}", f"link.{end}"):
        assert renders.failure(page, load % name)[0] == f"templates/{name}: {outside}"
    absolute = f"{project.path}/secret.{end}"
    what = f"there is no template '{absolute.lstrip('/')}'"
    assert renders.failure(page, load % absolute)[0] == f"templates/page.{end}:1: {what}"


@pytest.mark.parametrize(
    ("template", "text", "other", "message"),
    [
        ("page.mako", '<%include file="b.j2"/>', "b.j2", "Jinja2 template, which a Mako"),
        ("page.mustache", "{{> b.mako}}", "b.mako", "Mako template, which a Mustache"),
        (
            "page.j2",
            "{% include 'b.mustache' %}",
            "b.mustache",
            "Mustache template, which a Jinja2",
        ),
    ],
)
def test_an_engine_loads_no_template_of_another(
    renders: Renders, template: str, text: str, other: str, message: str
) -> None:
    renders.project.write(f"templates/{other}", "b")
    first, place, *_ = renders.failure(template, f"one\n{text}\n")
    assert first == f"templates/{other}: is a {message} template cannot load"
    assert place == f"  from templates/{template}:2"


# Messages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "one\n${nmae}\n",
            ["templates/page.mako:2: 'nmae' is undefined", "  2 | ${nmae}", "    |   ^^^^"],
        ),
        (
            "<%\n  a = 1\n  b = nope\n%>\n",
            ["templates/page.mako:3: 'nope' is undefined", "  3 |   b = nope", "    |       ^^^^"],
        ),
        (
            '<%def name="d()">\n${zz}\n</%def>\n${d()}',
            ["templates/page.mako:2: 'zz' is undefined", "  2 | ${zz}", "    |   ^^"],
        ),
        ("one\n${1/0}", ["templates/page.mako:2: ZeroDivisionError: division by zero"]),
        ("one\n${1 +}", ["templates/page.mako:2: invalid syntax: '1 +'", "  2 | ${1 +}"]),
        (
            "% if x:\n% endfor\n",
            ["templates/page.mako:2: keyword 'endfor' doesn't match keyword 'if'"],
        ),
        (
            'one\n<%include file="pge.mako"/>',
            ["templates/page.mako:2: there is no template 'pge.mako'"],
        ),
        (
            '<%include file="page.mako"/>',
            ["templates/page.mako:1: loops: it loads itself without end"],
        ),
        (
            "${shout(3)}",
            ["templates/page.mako:1: AttributeError in shout (test_engines.py:"],
        ),
        (
            "<%! import nope %>",
            ["templates/page.mako:1: ModuleNotFoundError: No module named 'nope'"],
        ),
        ("<% raise SystemExit(0) %>", ["templates/page.mako:1: SystemExit: 0"]),
        (b"\n\xff", ["templates/page.mako:2: not UTF-8 (byte 0xff)"]),
        (
            '${read_text("/etc/passwd")}',
            ["/etc/passwd: a template cannot read outside the project"],
        ),
    ],
)
def test_what_is_wrong_with_a_mako_template_is_told_with_its_line(
    renders: Renders, text: str | bytes, lines: list[str]
) -> None:
    told = renders.failure("page.mako", text)
    assert [line[: len(wanted)] for line, wanted in zip(told, lines, strict=False)] == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "one\n{{nmae}}\n",
            ["templates/page.mustache:2: 'nmae' is undefined", "  2 | {{nmae}}", "    |   ^^^^"],
        ),
        ("{{config.c}}", ["templates/page.mustache:1: the table has no key 'c'"]),
        ("{{#config}}\n\n{{c}}{{/config}}", ["templates/page.mustache:3: 'c' is undefined"]),
        ("one\n{{#shout}}\n\n{{c}}\n{{/shout}}", ["templates/page.mustache:4: 'c' is undefined"]),
        ("{{=<% %>=}}\n\n<%c%>", ["templates/page.mustache:3: 'c' is undefined"]),
        ("one\n{{#config}}\n", ["templates/page.mustache:2: section 'config' is not closed"]),
        (
            "{{#config}}\n{{/confg}}",
            ["templates/page.mustache:2: '{{/confg}}' closes a section that is not the one open"],
        ),
        ("a\n{{name", ["templates/page.mustache:2: a tag is not closed"]),
        ("one\n{{> pge}}", ["templates/page.mustache:2: there is no template 'pge.mustache'"]),
        ("{{> page}}", ["templates/page.mustache:1: loops: it loads itself without end"]),
        (
            "{{name}}\n{{#boom}}{{/boom}}",
            ["templates/page.mustache:2: KeyError in boom (test_engines.py:"],
        ),
        (b"\n\xff", ["templates/page.mustache:2: not UTF-8 (byte 0xff)"]),
    ],
)
def test_what_is_wrong_with_a_mustache_template_is_told_with_its_line(
    renders: Renders, text: str | bytes, lines: list[str]
) -> None:
    told = renders.failure("page.mustache", text)
    assert [line[: len(wanted)] for line, wanted in zip(told, lines, strict=False)] == lines


@pytest.mark.parametrize("end", ["mako", "mustache"])
def test_a_message_names_the_templates_above_the_pattern_and_what_was_meant(
    renders: Renders, end: str
) -> None:
    load = {"mako": '<%include file="part.mako"/>', "mustache": "{{> part}}"}[end]
    text = {"mako": "${nmae}", "mustache": "{{nmae}}"}[end]
    renders.project.write(f"templates/part.{end}", text)
    assert renders.failure(f"page.{end}", f"one\n{load}")[3:] == [
        f"  from templates/page.{end}:2",
        "  pattern p/ash.toml",
        "  hint: did you mean 'name'?",
    ]


def test_strict_sections_tell_of_a_name_that_nothing_defines(renders: Renders) -> None:
    text = "{{^nmae}}none{{/nmae}}"
    told = renders.failure("page.mustache", text, engines={"mustache": {"strict_sections": True}})
    assert told[0] == "templates/page.mustache:1: 'nmae' is undefined"


def test_a_failing_template_fails_its_steps_and_no_others(empty_project: Project) -> None:
    project = declared(empty_project, "page.mako", "${nmae}")
    rule = 'codegen.rule("u", template="u.mustache", patterns="p/*.toml", target="{stem}.u")\n'
    project.write("dodo.py", project.read("dodo.py").replace("\n\n@", f"\n{rule}\n\n@", 1))
    project.write("templates/u.mustache", "{{name}}")
    result = project.doit("--continue")
    assert result.code == 1
    assert "Traceback" not in result.out + result.err
    assert "templates/page.mako:1: 'nmae' is undefined" in result.out
    assert project.read("generated/ash.u") == "ash"


# Beside the other commands ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [mako, mustache])
def test_every_command_does_with_templates_of_other_engines(
    empty_project: Project, kind: object
) -> None:
    project = kind(empty_project)  # type: ignore[operator]
    made(project)
    label = "Mako" if kind is mako else "Mustache"
    where = project.codegen("where", "generated/ash.txt:1")
    assert f"what made this cannot be told: there are no source maps for {label}" in where.out
    lint = project.codegen("lint", "--ignore", "unsteady")
    assert f"not looked at, but for what they read: {label} templates" in lint.err
    detail = project.doit("info", "generated/ash.txt").out
    assert "shout" in detail
    assert project.codegen("diff").code == 0
    pattern = project.read("p/ash.toml")
    project.write("p/ash.toml", pattern.replace('"ash"', '"oak"'))
    diff = project.codegen("diff")
    assert diff.code == 1
    assert "+" in diff.out
    maps = project.doit(CODEGEN_MAPS="1")
    assert maps.code == 0
    for result in (where, lint, diff, maps):
        assert "Traceback" not in result.out + result.err


# Incremental = clean ---------------------------------------------------------------------

#: What each file may hold; the first is what the project begins with, None that it is not there.
FILES: dict[str, list[str | None]] = {
    "templates/page.mako": [
        '<%inherit file="base.mako"/>${name | shout} <%include file="part.mako"/>',
        '<%! import helpers %>${helpers.mark()} ${double(gain)}\n<%include file="sub/part.mako"/>',
        '${context.lookup.has_template("extra.mako")} ${config["a"]} ${read_text("note.txt")}',
    ],
    "templates/base.mako": ["<${self.body()}>", "[${self.body()}]", "${nope}"],
    "templates/part.mako": ["part ${name}", "part ${gain} ${site}", None],
    "templates/sub/part.mako": ['<%include file="../part.mako"/>', "sub ${config}"],
    "templates/extra.mako": [None, "extra"],
    "templates/sub/page.mustache": [
        "{{name}} {{> part}} {{#shout}}{{name}}{{/shout}}",
        "{{#config}}{{> part}}{{/config}}{{site}}",
        "{{#list}}{{> ../part}}{{.}}{{/list}}{{^list}}{{double}}{{/list}}",
    ],
    "templates/part.mustache": ["far {{gain}}", "far <{{name}}>", None],
    "templates/sub/part.mustache": [
        None,
        "near {{a}}",
        "near {{{name}}} {{#read_text}}note.txt{{/read_text}}",
    ],
    "p/ash.toml": [
        'name = "<ash>"\ngain = 1\n[config]\na = 1\n',
        'name = "<ash>"\ngain = 2\n[config]\na = 1\nb = 2\n',
        'name = "oak"\ngain = 1\nlist = [1, 2]\n[config]\na = 3\n',
        'name = "oak"\ngain = 1\nhelpers = 3\nextra = 1\n[config]\na = 3\n',
    ],
    "note.txt": ["note", "another", None],
    "helpers.py": ["def mark():\n    return 1\n", "def mark():\n    return 2\n"],
    "dodo.py": [],
}
DODO = HEAD + (
    'codegen.rule("m", template="page.mako", patterns="p/*.toml", target="{{stem}}.m")\n'
    'codegen.rule("u", template="sub/page.mustache", patterns="p/*.toml", target="{{stem}}.u")\n'
)
for _arguments in (
    "globals={'site': 1}",
    "globals={'site': 2}",
    "globals={'site': 1, 'part': 3}, engines={'mustache': {'escape': False}}",
    "globals={'site': 1}, engines={'mako': {'default_filters': ['str', 'trim']}}",
):
    _text = DODO.format(arguments=_arguments)
    FILES["dodo.py"] += [_text + TAIL, _text + TAIL.replace('"!"', '"?"').replace("* 2", "* 3")]


def put(project: Project, name: str, text: str | None) -> None:
    """Make a file what it is to be."""
    if text is not None:
        project.write(name, text)
    elif project.exists(name):
        project.remove(name)


def tree(project: Project) -> dict[str, bytes]:
    return project.files(".codegen", "templates", "p/", "note", "helpers", "dodo")


def machine(project: Project, rounds: int, seed: int) -> None:
    """Edit at random; each build makes what a clean one makes, and the next one nothing.

    The builds have an output cache, for what was so before; the clean ones have none.
    """
    random = Random(seed)
    clean_environ = dict(project.environ)
    project.environ["CODEGEN_OUTPUT_CACHE"] = "true"
    project.environ["CODEGEN_OUTPUT_CACHE_FOLDER"] = f"{project.path}-outputs"
    project.environ["CODEGEN_OUTPUT_CACHE_MILLISECONDS"] = "0"
    for name, texts in FILES.items():
        put(project, name, texts[0])
    for number in range(rounds):
        for name in random.sample(sorted(FILES), random.randint(1, 2)):
            put(project, name, random.choice(FILES[name]))
        code = project.doit(*random.choice([(), ("-n", "2")])).code
        clean = Project(Path(f"{project.path}-{number}"), project.path)
        clean.environ.update(clean_environ)
        shutil.copytree(
            project.path, clean.path, ignore=shutil.ignore_patterns(".codegen", "generated")
        )
        expected = clean.doit()
        assert code == expected.code, expected.out
        if code == 0:
            assert tree(project) == tree(clean)
            assert " up to date" in project.doit().out.splitlines()[-1]
            assert json.loads(project.doit("info", "--json").out)["stale"] == []
        else:
            made_now = tree(project)
            assert {k: made_now.get(k) for k in tree(clean)} == tree(clean)
        shutil.rmtree(clean.path)


def test_whatever_is_edited_a_build_makes_what_a_clean_one_makes(empty_project: Project) -> None:
    machine(empty_project, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 4 if "EDITS" not in os.environ else 20))
def test_whatever_is_edited_a_build_makes_what_a_clean_one_makes_many_times(
    empty_project: Project, seed: int
) -> None:
    machine(empty_project, 25, seed)
