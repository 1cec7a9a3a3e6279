"""Promise 2: everything that can matter is in a step's key, and nothing that cannot.

Random templates render random patterns; wherever an edit of the pattern leaves what was
recorded of it as it was, the text is the same.  And by example: which key rebuilds what.
"""

from __future__ import annotations

import copy
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, share
from hypothesis import given, settings
from hypothesis import strategies as st
from test_keys import NAMES, TABLES

from codegen_tasks import keys
from codegen_tasks.errors import StepError
from codegen_tasks.keys import Notes, Table, View
from codegen_tasks.templates import Engine, Spec

# Random templates -----------------------------------------------------------------------

#: Expressions over a variable `X`; what else they name is there in every render.
EXPRESSIONS = [
    *("X", "X.b", "X['a']", "X.b.c", "X[0]", "X[-1].a", "X.items()|list", "X.get('a')", "X|length"),
    *("X is defined", "X.b is defined", "X is mapping", "X is iterable", "X is string"),
    *("'a' in X", "X == {'a': 1}", "X|default('-')", "X.b|default('-')", "X|list", "X|string"),
    *("X|tojson", "X|pprint", "X|items|list", "X|dictsort", "X|first", "X|last", "X|sort|list"),
    *("X|map(attribute='a')|list", "X|selectattr('a')|list", "X|attr('a')", "X|upper", "X|shown"),
    *("X is known", "[X, 1]|shown", "{'k': X}|shown", "(X,)|shown", "tell(X)", "tell(it=X)"),
    *("tell([X]|list)", "X ~ 1", "X or 1", "not X", "X if X.a else 2", "dict(X)", "dict(k=X).k"),
    *("X|length > 1", "X.keys()|list", "X.values()|list", "X.copy()", "X|xmlattr", "X|join('-')"),
    *("'%s'|format(X)", "X.pop('a', 0)", "X.update({'a': 2})", "X.setdefault('z', 1)", "X|max"),
    *("X|groupby('a')|list", "X|unique|list", "X|batch(2)|list", "X|reverse|list", "holder.at(X)"),
    *("namespace(k=X).k", "X|map('shown')|list", "X|map(attribute='b.c')|list", "X is sameas X"),
    *("change(X)", "[X, X.a]", "X.b", "X.c.b.a"),
]
STATEMENTS = [
    "{{ E }}",
    "{% if E %}yes{% else %}no{% endif %}",
    "{% for e in E %}{{ e }}{{ e.a }}{{ loop.index }}{{ loop.length }},{% endfor %}",
    "{% for k, v in E %}{{ k }}={{ v }}{% endfor %}",
    "{% for k in E %}{{ k }}{% else %}none{% endfor %}",
    "{% set x = E %}{{ x.a }}{{ x }}",
    "{% set x = E %}{% if x.b is defined %}{{ x.b }}{% endif %}",
    "{% with x = E %}{{ x.b }}{% include 'part.j2' %}{% endwith %}",
    "{% macro m(v) %}{{ v.a }}{{ v }}{% endmacro %}{{ m(E) }}",
    "{% macro m(v) %}{{ v.a }}{{ caller() }}{% endmacro %}{% call m(E) %}{{ a }}{% endcall %}",
    "{% import 'lib.j2' as lib %}{{ lib.first(E) }}",
    "{% import 'lib.j2' as lib with context %}{{ lib.first(E) }}{{ lib.own() }}",
    "{% filter upper %}{{ E }}{% endfilter %}",
    "{% set ns = namespace(v=E) %}{{ ns.v }}",
    "{% do kept.append(E) %}{{ kept }}",
    "{% include 'part.j2' %}{{ E }}",
    "{% block one scoped %}{{ E }}{% endblock %}",
]
PARTS = {
    "part.j2": "({{ a }}{{ b is defined }}{% for e in c %}{{ e }}{% endfor %})",
    "lib.j2": "{% macro first(x) %}{{ x.a }}|{{ x }}{% endmacro %}"
    "{% macro own() %}{{ a }}{% endmacro %}",
}


class Holder:
    def at(self, value: Any) -> str:
        return type(value).__name__ + repr(value)


def _change(value: Any) -> str:
    if type(value) is dict:
        value["changed"] = 1
    return type(value).__name__


FUNCTIONS = {"tell": lambda it: f"{type(it).__name__} {it!r}", "change": _change}


@st.composite
def templates(draw: Any) -> str:
    """Return a template that asks its pattern something; what fails, fails in every mode."""
    text = ""
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(["a", "b", "c", "items", "patterns", "nothing"]))
        expression = draw(st.sampled_from(EXPRESSIONS)).replace("X", name)
        text += draw(st.sampled_from(STATEMENTS)).replace("E", expression)
        # Each block and macro may be defined once only.
        text = text.replace("block one", f"block n{len(text)}").replace("macro m(", "macro m(", 1)
    return text


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    root = tmp_path_factory.mktemp("templates")
    (root / "templates").mkdir()
    for name, text in PARTS.items():
        (root / "templates" / name).write_text(text)
    return _engine(root)


def _engine(root: Path) -> Engine:
    options = {"extensions": ["jinja2.ext.do"], "undefined": _undefined()}
    filters = {"shown": FUNCTIONS["tell"]}
    known = {"known": lambda value: value == {"a": 1} or type(value) is dict}
    spec = Spec(
        str(root), "templates", options, filters, known, {**FUNCTIONS, "holder": Holder()}, False
    )
    return Engine(spec, None, "shape")


def _undefined() -> Any:
    import jinja2

    return jinja2.DebugUndefined


def _rendered(engine: Engine, name: str, data: dict[str, Any], tracked: bool) -> tuple[str, Any]:
    """Return text or message, and what was noted."""
    notes = Notes()
    data = copy.deepcopy(data)
    fixed = {"kept": []}
    if tracked:
        table = Table(data, notes)
        view = View([table], {**fixed, "patterns": [Table(data, notes)]}, {"p": notes})
    else:
        view = View([], {**data, **fixed, "patterns": [copy.deepcopy(data)]}, {"p": notes})
    try:
        text, _ = engine.render(name, view)
    except StepError as error:
        # Which key of a failing step counts is of no use: it has no trace.
        text = f"failed: {error.what}"
    return re.sub(r"0x[0-9a-f]+", "0x", text), notes.reads()


@settings(max_examples=share(400) if "EDITS" not in os.environ else 20_000)
@given(source=templates(), data=TABLES, other=TABLES, key=NAMES)
def test_an_edit_that_changes_no_recorded_key_changes_no_text(
    engine: Engine, source: str, data: dict[str, Any], other: dict[str, Any], key: str
) -> None:
    name = f"random{abs(hash(source))}.j2"
    (Path(engine.root) / "templates" / name).write_text(source)
    text, reads = _rendered(engine, name, data, tracked=True)
    plain, _ = _rendered(engine, name, data, tracked=False)
    assert text == plain, "tracking changes no output"
    if text.startswith("failed"):
        return
    without = {k: v for k, v in data.items() if k != key}
    for changed in (other, {**data, key: other}, {**data, **other}, without):
        if keys.select(changed, reads) == keys.select(data, reads):
            assert _rendered(engine, name, changed, tracked=False)[0] == text, (changed, reads)


# By example, with the real doit ---------------------------------------------------------

DODO = """
from codegen_tasks import Codegen

codegen = Codegen(globals={"site": "here"})
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")
codegen.rule("list", template="list.j2", patterns="patterns/*.toml", target="list.txt")
codegen.rule("pin", template="pin.j2", patterns="patterns/*.toml", target="{stem}-{id}.txt",
             each="pins")
codegen.rule("config", template="config.j2", target="config.txt")


@codegen.filter
def summed(table):
    return sum(table.values())


DOIT_CONFIG = codegen.doit_config
"""
PATTERN = """
name = "ash"
gain = 1
unread = 1

[meta]
author = "me"
year = 2024

[sizes]
small = 1
large = 2

[[nodes]]
kind = "source"
decay = 0.92

[[pins]]
id = "one"
level = 1

[[pins]]
id = "two"
level = 2
"""


@pytest.fixture
def built(empty_project: Project) -> Project:
    project = empty_project
    project.write("dodo.py", DODO)
    project.write("patterns/ash.toml", PATTERN)
    project.write(
        "templates/page.j2",
        "{{ name }} {{ meta.author }} {{ sizes|summed }}"
        "{% for node in nodes %}{{ node.kind }}{% endfor %}"
        "{% if more is defined %}{{ more }}{% endif %}{{ site }}\n",
    )
    project.write("templates/list.j2", "{% for p in patterns %}{{ p.name }}\n{% endfor %}")
    project.write("templates/pin.j2", "{{ id }} {{ item.level }} {{ name }}\n")
    project.write("templates/config.j2", "{{ read_toml('config.toml').paths.home }}\n")
    project.write("config.toml", '[paths]\nhome = "a"\nwork = "b"\n')
    assert project.doit().code == 0
    return project


def rebuilt(project: Project) -> set[str]:
    """Return what a build makes anew; see that `doit info` named just that before."""
    before = project.doit("info", "--json")
    result = project.doit("run", "-v", "2")
    assert result.code == 0, result
    made = set(re.findall(r"^\.  generate:(\S+)  \(", result.out, re.MULTILINE))
    stale = re.findall(r'"task": "generate:(\S+)"', before.out)
    assert made == set(stale)
    assert "generated" not in project.doit().out
    return made


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("gain = 1", "gain = 2", set()),
        ("unread = 1", "", set()),
        ("gain = 1", "gain = 1\nother = 1", set()),
        ("year = 2024", "year = 2025", set()),
        ('author = "me"', 'author = "you"', {"ash.txt"}),
        ("large = 2", "large = 3", {"ash.txt"}),
        ("decay = 0.92", "decay = 0.9", {"ash.txt"}),  # a list counts whole
        ("level = 2", "level = 3", {"ash-two.txt"}),
        ("gain = 1", "gain = 1\nmore = 1", {"ash.txt"}),
        ("gain = 1", "gain = 1\nsite = 1", {"ash.txt"}),  # hides a global
        ("gain = 1", "gain = 1\nlevel = 1", set()),  # an item's own key hides it
        ('name = "ash"', 'name = "elm"', {"ash.txt", "list.txt", "ash-one.txt", "ash-two.txt"}),
    ],
)
def test_an_edit_of_a_key_rebuilds_what_read_it_and_no_more(
    built: Project, old: str, new: str, expected: set[str]
) -> None:
    built.write("patterns/ash.toml", PATTERN.replace(old, new))
    assert rebuilt(built) == expected


def test_a_file_of_data_that_a_template_reads_counts_by_its_keys_too(built: Project) -> None:
    built.write("config.toml", '[paths]\nhome = "a"\nwork = "c"\n')
    assert rebuilt(built) == set()
    built.write("config.toml", '[paths]\nhome = "d"\nwork = "c"\n')
    assert built.doit("info").out.splitlines()[1] == '  config.toml: paths.home "a" → "d"'
    assert rebuilt(built) == {"config.txt"}


@pytest.mark.parametrize("package", ["jinja2", "tomli"])
def test_another_version_of_what_parses_rebuilds_all(built: Project, package: str) -> None:
    other = f"""
        from importlib import metadata
        known = metadata.version
        metadata.version = lambda name: "99" if name == "{package}" else known(name)
    """
    built.write("dodo.py", textwrap.dedent(other) + built.read("dodo.py"))
    assert re.search(rf"{package}: \S+ → 99\n", built.doit("info").out)
    made = {path.name for path in (built.path / "generated").iterdir()}
    assert rebuilt(built) == made


def test_a_pattern_of_which_a_template_reads_nothing_but_its_name_rebuilds_nothing(
    built: Project,
) -> None:
    built.write("templates/list.j2", "{% for p in patterns %}{{ p.pattern.stem }}{% endfor %}")
    assert rebuilt(built) == {"list.txt"}
    built.write("patterns/ash.toml", "pins = []\nname = 1\n")
    built.write("templates/page.j2", "page\n")
    assert rebuilt(built) == {"ash.txt"}


def test_a_function_that_sees_the_whole_pattern_makes_all_of_it_count(built: Project) -> None:
    dodo = DODO.replace('target="{stem}.txt"', 'target="{stem}.txt", context=whole')
    built.write(
        "dodo.py", dodo.replace("codegen =", "def whole(data):\n    return {}\n\ncodegen =", 1)
    )
    assert rebuilt(built) == {"ash.txt"}
    built.write("patterns/ash.toml", PATTERN.replace("unread = 1", "unread = 2"))
    assert rebuilt(built) == {"ash.txt"}


def test_a_function_that_is_given_the_context_makes_all_of_it_count(built: Project) -> None:
    built.write("templates/page.j2", "{{ everything()|length }}\n")
    seen = "@codegen.function\n@jinja2.pass_context\ndef everything(context):\n"
    seen += '    return str(context.get("gain"))\n'
    built.write(
        "dodo.py", "import jinja2\n" + DODO.replace("@codegen.filter", seen + "\n\n@codegen.filter")
    )
    assert "ash.txt" in rebuilt(built)
    built.write("patterns/ash.toml", PATTERN.replace("gain = 1", "gain = 10"))
    assert "ash.txt" in rebuilt(built)
    assert built.read("generated/ash.txt") == "2\n"


def test_what_a_render_changes_in_its_pattern_no_other_render_sees(built: Project) -> None:
    text = "{% do nodes.append(1) %}{% do meta.update(x=1) %}{{ nodes|length }}{{ meta|length }}"
    for name in ("page", "pin"):
        built.write(f"templates/{name}.j2", text)
    dodo = DODO.replace("Codegen(", 'Codegen(environment={"extensions": ["jinja2.ext.do"]}, ')
    built.write("dodo.py", dodo)
    assert built.doit().code == 0
    for name in ("ash", "ash-one", "ash-two"):
        assert built.read(f"generated/{name}.txt") == "23"


def test_with_key_tracking_off_every_pattern_counts_whole(built: Project) -> None:
    built.write("templates/page.j2", built.read("templates/page.j2") + "\n")
    off = {"CODEGEN_KEY_TRACKING": "off"}
    assert built.doit(**off).code == 0
    built.write("patterns/ash.toml", PATTERN.replace("unread = 1", "unread = 2"))
    assert "1 generated" in built.doit(**off).out


def test_a_file_that_changed_between_two_reads_of_a_render_is_not_recorded_as_fresh(
    built: Project,
) -> None:
    edit = "@codegen.function\ndef edit():\n    open('config.toml', 'w').write('home = 2')\n"
    built.write(
        "dodo.py", DODO.replace("@codegen.filter", f"{edit}    return ''\n\n\n@codegen.filter")
    )
    read = "{{ read_toml('config.toml').home }}"
    built.write("templates/config.j2", f"{read}{{{{ edit() }}}}{read}")
    built.write("config.toml", "home = 1\n")
    assert built.doit().code == 0
    assert built.read("generated/config.txt") == "12"
    assert rebuilt(built) == {"config.txt"}
    assert built.read("generated/config.txt") == "22"


#: A file system whose clock has not ticked for half a minute.
COARSE = """
import os

import codegen_tasks.disk

exactly = codegen_tasks.disk.signed


def coarsely(status):
    size, written, _, inode = exactly(status)
    return size, written, written, inode


codegen_tasks.disk.signed = coarsely
codegen_tasks.disk._TICK = 30 * 10**9


def edit_unseen():
    before = os.stat("patterns/ash.toml")
    with open("patterns/ash.toml", "w") as file:
        file.write("gain = 2")
    os.utime("patterns/ash.toml", ns=(before.st_atime_ns, before.st_mtime_ns))
    return ""
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["{stem}", "{stem}-{gain}"])
def test_a_pattern_that_is_edited_within_the_tick_in_which_it_was_read_is_read_again(
    empty_project: Project, name: str
) -> None:
    project = empty_project
    rule = f"template='page.j2', patterns='patterns/*.toml', target='{name}.txt'"
    project.write(
        "dodo.py",
        f"from codegen_tasks import Codegen\n{COARSE}\ncodegen = Codegen()\n"
        f"codegen.rule('page', {rule})\ncodegen.function(edit_unseen)\n"
        "DOIT_CONFIG = codegen.doit_config\n",
    )
    template = project.write("templates/page.j2", "{{ gain }}{{ edit_unseen() }}")
    os.utime(template, (1, 1))  # only the pattern is new
    project.write("patterns/ash.toml", "gain = 1")
    assert project.doit().code == 0
    assert project.read(f"generated/{name.format(stem='ash', gain=1)}.txt") == "1"
    assert "1 generated" in project.doit().out
    assert project.read(f"generated/{name.format(stem='ash', gain=2)}.txt") == "2"
    assert project.doit().out.startswith("1 up to date")
