"""`sandbox=True`: what a template that is not trusted can reach, change, read and make.

Escapes, bombs and reads are tables; each is rendered by the real engine, and what a user sees
of it by the real doit.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from conftest import Project

from codegen_tasks import sandbox as sandboxes
from codegen_tasks.errors import StepError
from codegen_tasks.keys import Notes, Table, View
from codegen_tasks.templates import Engine, Spec

LIMIT = 1_000_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")


class Visitor:
    """What a trusted function may hand to a template that is not trusted."""

    secret = "s3cret"

    def __init__(self) -> None:
        self._hidden = "s3cret"
        self.os = os

    def greet(self, name: object = "you") -> str:
        """Return a greeting."""
        return f"hello {name}"


def shout(text: object) -> str:
    return str(text).upper()


VARIABLES: dict[str, Any] = {
    "name": "ash",
    "gain": 1,
    "nodes": [{"kind": "mirror"}],
    "table": {"key": "value"},
    "pattern": {"stem": "ash", "path": "patterns/ash.toml"},
}
GLOBALS: dict[str, Any] = {"os": os, "visitor": Visitor(), "shared": [1], "labels": {"a", "b"}}


def view() -> View:
    """Return what a render sees of a pattern, as steps make it."""
    notes = Notes()
    return View([Table(VARIABLES, notes)], {}, {"pattern": notes})


def engine(root: Path, sandbox: bool = True, **more: Any) -> Engine:
    """Return a warm environment on the templates below `root`."""
    known = {**GLOBALS, **more.pop("names", {})}
    options = more.pop("options", {})
    spec = Spec(str(root), "templates", options, {"shout": shout}, {}, known, sandbox, LIMIT, "out")
    return Engine(spec, None, "")


def render(root: Path, text: str, sandbox: bool = True, **more: Any) -> str:
    """Render one template; others may lie beside it."""
    (root / "templates").mkdir(exist_ok=True)
    (root / "templates/t.j2").write_text(text, encoding="utf-8")
    return engine(root, sandbox, **more).render("t.j2", view())[0]


def refused(root: Path, text: str, **more: Any) -> str:
    """Return the message with which a template fails."""
    with pytest.raises(StepError) as caught:
        render(root, text, **more)
    return str(caught.value)


# Escapes --------------------------------------------------------------------------------

#: Each reaches Python's insides, or data that is not the template's, outside of a sandbox.
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__()|length }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ ''|attr('__cla' ~ 'ss__') }}",
    "{{ [name]|map(attribute='__class__')|list|first|string }}",
    "{{ [name]|map('attr', '__class__')|list|first|string }}",
    "{{ ([name]|groupby('__class__')|first).grouper }}",
    "{{ [name]|sort(attribute='__class__.__name__')|string }}",
    "{{ [name]|selectattr('__class__')|list|length }}",
    "{{ [nodes]|sum(attribute='__class__', start=0) }}",
    "{{ '{0.__class__.__mro__}'.format(name) }}",
    "{{ '{x.__class__}'.format_map({'x': name}) }}",
    "{{ ('{0.__class__}'|attr('format'))(name) }}",
    "{{ ('{0.__class__}'|safe).format(name) }}",
    "{% set f = '{0.__class__.__init__}'.format %}{{ f(name) }}",
    "{% for f in ['{0.__class__}']|map('attr', 'format') %}{{ f(1) }}{% endfor %}",
    "{% set ns = namespace(f='{0.__class__}'.format) %}{{ ns.f(name) }}",
    "{{ visitor.greet.__globals__ }}",
    "{{ visitor.greet.__func__.__code__ }}",
    "{{ visitor.greet.__self__._hidden }}",
    "{{ visitor._hidden }}",
    "{{ '{0._hidden}'.format(visitor) }}",
    "{{ '{0.os.environ}'.format(visitor) }}",
    "{{ visitor.os.getcwd() }}",
    "{{ os.getcwd() }}",
    "{{ os['getcwd']() }}",
    "{{ (os|attr('getcwd'))() }}",
    "{{ '{0.environ}'.format(os) }}",
    "{{ [os]|map(attribute='environ')|list|first|string }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ lipsum.__wrapped__.__globals__ }}",
    "{{ range.__wrapped__ }}",
    "{{ dict.__base__ }}",
    "{{ dict.mro() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{% block b %}{{ self.b.__self__ }}{% endblock %}",
    "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._func }}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% for x in [1] %}{{ loop.__init__ }}{% endfor %}",
    "{% import 'other.j2' as o %}{{ o.__class__ }}",
    "{% import 'other.j2' as o %}{{ o.m._environment }}",
    "{{ read_text.__self__ }}",
    "{{ read_text.__func__ }}",
    "{{ missing_name.__class__ }}",
    "{{ (nodes|map('upper')).gi_frame.f_back }}",
    "{{ (nodes|batch(2)).gi_code }}",
    "{{ shout.__globals__ }}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_an_escape_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/other.j2").write_text("{% macro m() %}{% endmacro %}")
    message = refused(tmp_path, text)
    assert message.startswith("templates/t.j2")
    assert "s3cret" not in message
    assert str(os.getcwd()) not in message


@pytest.mark.parametrize(
    "text",
    [
        "{{ visitor.greet() }}",
        "{{ '{0:>5}|{x}'.format(name, x=gain) }}",
        "{{ '%5s'|format(name) }}",
        "{{ '%(n)03d' % {'n': gain} }}",
        "{{ [3, 1]|sort|join(', ') }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ 'ab' * 3 }} {{ [1] + [2] }}",
        "{{ 'a b'.replace(' ', '-').center(20) }}{{ 'x'|indent(4, true) }}{{ table|tojson(2) }}",
        "{% set x %}{{ name ~ 1 }}{% endset %}{{ x|shout|replace('A', 'B') }}",
        "{% macro m(a) %}<{{ a }}>{{ caller() }}{% endmacro %}{% call m(1) %}x{% endcall %}",
        "{{ 3.14159|round(2) }} {{ 'one two'|wordwrap(3) }} {{ [1, 2, 3]|batch(2, 0)|list }}",
        "{{ range(3)|slice(2)|map('list')|list }} {{ (5).to_bytes(2, 'big')|length }}",
        "{% filter upper %}{{ name }}{% endfilter %}{{ 'a\tb'.expandtabs(4) }}{{ '7'.zfill(3) }}",
        "{{ ' '.join(['a', 'b']) }}{{ 'ab'.translate({97: 'x'}) }}{{ table.items()|list }}",
    ],
)
def test_what_is_harmless_renders_as_without_a_sandbox(tmp_path: Path, text: str) -> None:
    for options in ({}, {"autoescape": True}):
        inside = render(tmp_path, text, options=options)
        assert inside == render(tmp_path, text, sandbox=False, options=options)


@pytest.mark.parametrize(
    "text",
    [
        "{{ nodes.append(1) }}",
        "{{ nodes.clear() }}",
        "{{ (nodes|attr('append'))(1) }}",
        "{{ nodes['append'](1) }}",
        "{{ nodes[0].update(kind='x') }}",
        "{{ nodes[0].pop('kind') }}",
        "{{ nodes.sort() }}",
        "{{ nodes.__setitem__(0, 1) }}",
        "{{ shared.append(2) }}",
        "{{ shared.extend([2]) }}",
        "{{ shared.__iadd__([2]) }}",
        "{{ labels.add('c') }}",
        "{{ labels.intersection_update([]) }}",
        "{{ order.move_to_end('a') }}",
        "{{ pattern.update(stem='x') }}",
        "{{ table.setdefault('new', 1) }}",
        "{% do shared.append(2) %}",
        "{% set table.key = 1 %}",
        "{{ [shared]|map(attribute='append')|first }}",
        "{% set shared = shared + [2] %}{{ shared.append(3) }}",
    ],
)
def test_data_that_other_renders_see_cannot_be_changed(tmp_path: Path, text: str) -> None:
    order = OrderedDict(a=1, b=2)
    before = repr((VARIABLES, GLOBALS["shared"], sorted(GLOBALS["labels"]), order))
    options = {"extensions": ["jinja2.ext.do"]}
    assert refused(tmp_path, text, names={"order": order}, options=options)
    assert repr((VARIABLES, GLOBALS["shared"], sorted(GLOBALS["labels"]), order)) == before


def test_what_a_template_sets_is_gone_with_its_render(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/first.j2").write_text(
        "{% set name = 'oak' %}{% set leak = 1 %}{{ name }}"
    )
    (tmp_path / "templates/then.j2").write_text("{{ name }}{{ leak is defined }}")
    warm = engine(tmp_path)
    assert warm.render("first.j2", view())[0] == "oak"
    assert warm.render("then.j2", view())[0] == "ashFalse"


# Bombs ----------------------------------------------------------------------------------

OUTPUT = f"the output is larger than {LIMIT} bytes (sandbox_bytes)"
VALUE = f"makes too large a value: the limit is {LIMIT} bytes (sandbox_bytes)"
MEMORY = f"needs too much memory: the limit is {LIMIT} bytes (sandbox_bytes)"
RANGE = "Range too big"

BOMBS = {
    "endless output": (
        "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxxxxxxxx"
        "{% endfor %}{% endfor %}",
        OUTPUT,
    ),
    "output of four bytes a character": ("{{ '😀' * 300000 }}", OUTPUT),
    "output by includes": ("{% for i in range(9999) %}{% include 'big.j2' %}{% endfor %}", OUTPUT),
    "output of a macro": (
        "{% macro m() %}{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}"
        "{% endmacro %}{% set y = m() %}",
        OUTPUT,
    ),
    "output of a captured block": (
        "{% set y %}{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}{% endset %}",
        OUTPUT,
    ),
    "output of a filter block": (
        "{% filter upper %}{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}{% endfilter %}",
        OUTPUT,
    ),
    "text times": ("{{ 'x' * 10**10 }}", VALUE),
    "times text": ("{{ 10**10 * 'x' }}", VALUE),
    "list times": ("{{ [0] * 10**10 }}", VALUE),
    "range": ("{{ range(10**9)|list }}", RANGE),
    "power": ("{{ 10**(10**10) }}", VALUE),
    "power of a negative number": ("{{ (0-9)**(10**10) }}", VALUE),
    "product of numbers": (
        "{% set n = namespace(x=10**9) %}{% for i in range(99) %}"
        "{% set n.x = n.x * n.x %}{% endfor %}",
        VALUE,
    ),
    "doubling by +": (
        "{% set n = namespace(x='x') %}{% for i in range(99) %}"
        "{% set n.x = n.x + n.x %}{% endfor %}",
        VALUE,
    ),
    "doubling by ~": (
        "{% set n = namespace(x='x') %}{% for i in range(99) %}"
        "{% set n.x = n.x ~ n.x %}{% endfor %}",
        VALUE,
    ),
    "doubling by ~ where it is escaped": (
        "{% autoescape true %}{% set n = namespace(x='x') %}{% for i in range(99) %}"
        "{% set n.x = n.x ~ n.x %}{% endfor %}{% endautoescape %}",
        VALUE,
    ),
    "doubling a list": (
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}"
        "{% set n.x = n.x + n.x %}{% endfor %}",
        VALUE,
    ),
    "doubling by format": (
        "{% set n = namespace(x='x') %}{% for i in range(99) %}"
        "{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}",
        VALUE,
    ),
    "doubling by replace": (
        "{% set n = namespace(x='xx') %}{% for i in range(99) %}"
        "{% set n.x = n.x|replace('x', 'xx') %}{% endfor %}",
        VALUE,
    ),
    "doubling by join": (
        "{% set n = namespace(x='xx') %}{% for i in range(99) %}"
        "{% set n.x = [n.x, n.x]|join %}{% endfor %}",
        VALUE,
    ),
    "ljust": ("{{ 'a'.ljust(10**10) }}", VALUE),
    "rjust": ("{{ 'a'.rjust(10**10) }}", VALUE),
    "center": ("{{ 'a'.center(10**10) }}", VALUE),
    "zfill": ("{{ 'a'.zfill(10**10) }}", VALUE),
    "ljust by attr": ("{{ ('a'|attr('ljust'))(10**10) }}", VALUE),
    "ljust of safe text": ("{{ ('a'|safe).ljust(10**10) }}", VALUE),
    "ljust of bytes": ("{{ 'a'.encode().ljust(10**10) }}", VALUE),
    "expandtabs": ("{{ 'a\tb'.expandtabs(10**9) }}", VALUE),
    "replace": ("{{ ('a' * 9999).replace('a', 'b' * 9999) }}", VALUE),
    "replace of nothing": ("{{ ('a' * 9999).replace('', 'b' * 9999) }}", VALUE),
    "join": ("{{ ('b' * 9999).join('a' * 9999) }}", None),
    "join of a list": ("{{ ('b' * 9999).join(['a'] * 9999) }}", VALUE),
    "translate": ("{{ ('a' * 9999).translate({97: 'b' * 9999}) }}", VALUE),
    "to_bytes": ("{{ (1).to_bytes(10**10, 'big') }}", VALUE),
    "percent": ("{{ '%1000000000d' % 1 }}", VALUE),
    "percent with precision": ("{{ '%.1000000000f' % 1.5 }}", VALUE),
    "percent with a star": ("{{ '%*d' % (10**9, 1) }}", VALUE),
    "format filter": ("{{ '%1000000000d'|format(1) }}", VALUE),
    "format filter by name": ("{{ '%(a)1000000000d'|format(a=1) }}", VALUE),
    "format filter mapped": ("{{ ['%1000000000d']|map('format', 1)|list }}", VALUE),
    "format": ("{{ '{:1000000000}'.format(1) }}", VALUE),
    "format with a nested width": ("{{ '{:{}}'.format(1, 10**9) }}", VALUE),
    "format_map": ("{{ '{a:1000000000}'.format_map({'a': 1}) }}", VALUE),
    "lipsum": ("{{ lipsum(n=10**6) }}", VALUE),
    "lipsum of long paragraphs": ("{{ lipsum(1, false, 10**8, 10**8 + 1) }}", VALUE),
    "indent": ("{{ 'a\nb'|indent(10**9) }}", VALUE),
    "indent with text": ("{{ ('a\n' * 999)|indent('b' * 9999) }}", VALUE),
    "center filter": ("{{ 'a'|center(10**10) }}", VALUE),
    "center filter of constants": ("{{ 'a'|center(10000000000) }}", VALUE),
    "wordwrap": ("{{ ('a ' * 9999)|wordwrap(1, wrapstring='b' * 9999) }}", VALUE),
    "batch": ("{{ [1]|batch(10**9, 0)|list }}", VALUE),
    "slice": ("{{ [1]|slice(10**9)|list }}", VALUE),
    "tojson": ("{{ [1]|tojson(indent=10**9) }}", VALUE),
    "round": ("{{ 1.5|round(10**9, 'ceil') }}", VALUE),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_told_before_it_goes_off(tmp_path: Path, kind: str) -> None:
    text, what = BOMBS[kind]
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/big.j2").write_text("x" * 9999)
    message = refused(tmp_path, text)
    assert message.startswith("templates/t.j2")
    assert what is None or what in message


#: Nothing tells how large these become; the end of memory does.
DEEP = (
    "{% set n = namespace(x=['x' * 99]) %}"
    "{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
)


@linux
@pytest.mark.parametrize(
    "text",
    [
        DEEP + "{{ n.x }}",
        DEEP + "{{ n.x|string|length }}",
        DEEP + "{{ n.x|tojson|length }}",
        DEEP + "{{ '%s' % (n.x,) }}",
        DEEP + "{{ '{}'.format(n.x) }}",
        "{% macro m() %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{{ i ~ 'x' * 999 ~ j }}{% endfor %}{% endfor %}{% endmacro %}{{ m() }}",
    ],
)
def test_a_render_gets_only_so_much_memory(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    if text != DEEP + "{{ n.x }}":  # that one reaches the real limit
        monkeypatch.setattr(sandboxes, "_LEAST_MEMORY", 32_000_000)
    before = resource.getrlimit(resource.RLIMIT_AS)
    assert refused(tmp_path, text) == f"templates/t.j2: {MEMORY}"
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert render(tmp_path, "{{ name }}") == "ash"


@pytest.mark.parametrize(
    "text",
    [
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "[" * 3000 + "]" * 3000 + " }}",
        "{{ " + "+".join(["1"] * 20000) + " }}",
        "{{ " + "not " * 20000 + "1 }}",
        "{{ 1" + "|string" * 20000 + " }}",
        "{{ name" + ".x" * 20000 + " }}",
        "{% if 1 %}" * 300 + "{% endif %}" * 300,
        "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "9" * 5000 + " }}",
        "{{ (10 ** 5000)|string }}",
        "{% include 't.j2' %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_template_that_python_cannot_compile_or_run_fails_as_a_step(
    tmp_path: Path, text: str
) -> None:
    assert refused(tmp_path, text)


def test_the_limit_is_a_setting_and_the_other_targets_are_made(project: Project) -> None:
    dodo = project.read("dodo.py").replace("Codegen(", "Codegen(sandbox=True, ")
    project.write("dodo.py", dodo)
    project.write("pyproject.toml", "[tool.codegen]\nsandbox_bytes = 2000\n")
    project.write("templates/plain.txt.j2", "{% for i in range(99) %}{{ 'x' * 99 }}{% endfor %}\n")
    for jobs in ([], ["-n", "2"]):
        result = project.doit("-c", *jobs)
        assert result.code == 1
        said = "templates/plain.txt.j2: the output is larger than 2000 bytes (sandbox_bytes)"
        assert said in result.out
        assert "Traceback" not in result.out + result.err
        assert project.read("generated/list.txt") == "ash\nbirch\ncedar\n"
        assert not project.exists("generated/plain.txt")


def test_a_sandboxed_project_makes_the_same_bytes(project: Project) -> None:
    assert project.doit().code == 0
    plain = project.files(".codegen", "dodo.py")
    project.write("dodo.py", project.read("dodo.py").replace("Codegen(", "Codegen(sandbox=True, "))
    assert project.doit().code == 0
    assert project.files(".codegen", "dodo.py") == plain
    assert project.doit().out.startswith("5 up to date in")


# Reading --------------------------------------------------------------------------------


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """Return a project with things to read, and with secrets in and around it."""
    root = tmp_path / "project"
    for name in ("templates", "data", ".git", "out", "lib"):
        (root / name).mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("s3cret")
    for name in (".git/config", ".env", "out/state.db", "dodo.py", "lib/keys.py", "pyproject.toml"):
        (root / name).write_text("s3cret = 1")
    (root / "data/open.txt").write_text("open")
    (root / "data/open.json").write_text('{"a": 1}')
    (root / "data/up").symlink_to("../..")
    (root / "data/git").symlink_to("../.git")
    (root / "data/env").symlink_to("../.env")
    (root / "data/out.txt").symlink_to("../../secret.txt")
    (root / "data/zero").symlink_to("/dev/zero")
    (root / "data/round").symlink_to("round")
    os.mkfifo(root / "data/pipe")
    (root / "data/large.txt").write_text("x" * (LIMIT + 1))
    return root


OUTSIDE = [
    "../secret.txt",
    "data/../../secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "data/up/secret.txt",
    "data/out.txt",
    "data/zero",
    "/dev/zero",
    "/proc/self/environ",
    "..",
    ".",
]
PRIVATE = [
    ".git/config",
    "data/../.git/config",
    "data/git/config",
    ".env",
    "data/env",
    "out/state.db",
    "OUT/state.db",
    "dodo.py",
    "DODO.PY",
    "./dodo.py",
    "lib/keys.py",
    "pyproject.toml",
]


@pytest.mark.parametrize("sandbox", [True, False])
@pytest.mark.parametrize("path", OUTSIDE)
def test_no_template_reads_outside_of_the_project(vault: Path, path: str, sandbox: bool) -> None:
    for function in ("read_text", "read_json", "read_toml", "read_yaml"):
        message = refused(vault, f"{{{{ {function}('{path}') }}}}", sandbox=sandbox)
        assert "cannot read outside the project" in message
        assert "s3cret" not in message


@pytest.mark.parametrize("path", PRIVATE)
def test_a_sandboxed_template_reads_nothing_private(vault: Path, path: str) -> None:
    for function in ("read_text", "read_json", "read_toml", "read_yaml"):
        message = refused(vault, f"{{{{ {function}('{path}') }}}}")
        assert "a template in the sandbox cannot read this file" in message
        assert "s3cret" not in message


def test_a_sandboxed_template_reads_what_is_open(vault: Path) -> None:
    text = "{{ read_text('data/open.txt') }}{{ read_json('data/open.json').a }}"
    assert render(vault, text) == "open1"


@pytest.mark.parametrize("sandbox", [True, False])
@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("data/pipe", "data/pipe: cannot read: not a regular file"),
        ("data", "data: cannot read: is a directory"),
        ("data/round", "data/round: cannot read: "),
        ("data/none", "data/none: cannot read: no such file or directory"),
        ("data/a\\\\0b", "data/a\\0b: cannot read: no such file or directory"),
        ("data/a\\0b", r"'data/a\x00b': no file has such a name"),
        ("x" * 300, "cannot read: file name too long"),
    ],
)
def test_what_is_no_file_is_not_waited_for(
    vault: Path, path: str, what: str, sandbox: bool
) -> None:
    text = "{{ read_text('" + path + "') }}"
    assert what in refused(vault, text, sandbox=sandbox)


def test_a_sandboxed_template_reads_no_more_than_its_limit(vault: Path) -> None:
    message = refused(vault, "{{ read_text('data/large.txt')|length }}")
    assert message.startswith(f"data/large.txt: is larger than {LIMIT} bytes (sandbox_bytes)")


@pytest.mark.parametrize("sandbox", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "../dodo.py",
        "sub/../../dodo.py",
        "/etc/passwd",
        "link.j2",
        "folder/secret.txt",
        "..\\\\dodo.py",
        "pipe",
        "zero",
        "a\\0b",
        "",
        ".",
    ],
)
@pytest.mark.parametrize("how", ["include", "import", "extends"])
def test_no_template_comes_from_outside_of_its_folder(
    vault: Path, name: str, how: str, sandbox: bool
) -> None:
    templates = vault / "templates"
    (templates / "link.j2").symlink_to("../dodo.py")
    (templates / "folder").symlink_to("../..")
    (templates / "zero").symlink_to("/dev/zero")
    os.mkfifo(templates / "pipe")
    text = f"{{% {how} '{name}' {'as m ' if how == 'import' else ''}%}}"
    message = refused(vault, text, sandbox=sandbox)
    assert "s3cret" not in message
    assert "cannot lie outside" in message or "there is no template" in message


def test_a_pipe_does_not_keep_an_optional_include_waiting(vault: Path) -> None:
    os.mkfifo(vault / "templates/pipe")
    assert render(vault, "{% include 'pipe' ignore missing %}x") == "x"


# What is shown --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{{ name.nope }}{# \x1b[2J\x1b]0;owned\x07 #}\n",
        "{{ name['\x1b[2J'] }}\n",
        "{{ table['\x1b[2J'] }}{{ '\u202e' }}\n",
        "{% include '\x1b[2J' %}\n",
        "{{ read_text('\x1b[2J') }}\n",
        "{{ '\x1b[2J'|nope }}\n",
        "{% nope \x1b[2J %}\n",
        "{{ 1 / 0 }}\r\x9b2J\n",
    ],
)
def test_no_message_moves_the_cursor_of_a_terminal(project: Project, template: str) -> None:
    project.write("dodo.py", project.read("dodo.py").replace("Codegen(", "Codegen(sandbox=True, "))
    project.write("templates/plain.txt.j2", template)
    result = project.doit("generate:plain.txt", CODEGEN_TEMPLATE_CACHE="off")
    assert result.code == 1
    shown = result.out + result.err
    assert "templates/plain.txt.j2" in shown
    assert all(char.isprintable() or char == "\n" for char in shown), shown
