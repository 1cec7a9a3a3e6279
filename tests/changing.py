"""A small project in which anything may change: what it can be like, and edits of every kind."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

# What the project can be like -----------------------------------------------------------

DODO = """
import decimal, functools
import helpers
from helpers import MARK, Box
from codegen_tasks import Codegen, Toolchain

codegen = Codegen(environment={environment}, globals={globals})


def inner(text):
    return text + {inner!r}


def outer(number, text):
    return inner(text) * number


@codegen.filter
def shout(text):
    return text.upper() + {shout!r} + MARK


@codegen.filter
def boxed(text):
    return Box(text).text() + helpers.dots(2)


@codegen.filter
def dump(value):
    return repr(value)


codegen.filter("twice")(functools.partial(outer, {twice}))


@codegen.test
def loud(text):
    return len(text) > {loud}


@codegen.function
def told(value):
    return {told!r} + repr(value)


def more(data):
    return {{"extra": {extra!r} + inner(str(data.get("gain", "-")))}}


def stamp(flag):
    command = ["tool/stamp", "{{source}}", "{{target}}", "{{depfile}}", flag]
    return Toolchain("stamp", command=command, suffix=".stamped", depfile="{{target}}.d")


{overridden}
{rules}
DOIT_CONFIG = codegen.doit_config
"""
OVERRIDDEN = """
@codegen.filter
def upper(text):
    return "<" + text.swapcase() + ">"


@codegen.filter
def new(text):
    return text + " anew"


@codegen.test
def odd(number):
    return True


@codegen.function
def later():
    return "now there is one"
"""
HELPERS = "MARK = {mark!r}\nclass Box:\n    def __init__(self, text):\n        self._text = text\n"
HELPERS += "    def text(self):\n        return {box!r} + self._text\n"
HELPERS += "def dots(number):\n    return {dot!r} * number\n"
#: The compiler `stamp`, which reads a file that only its depfile tells of.
TOOL = '#!/bin/sh\n{ cat "$1" stamp.inc; echo "%s $4"; } >"$2" && echo "$2: $1 stamp.inc" >"$3"\n'
PYPROJECT = """
[tool.doit.plugins.command]
diff = "codegen_tasks.commands.diff:Diff"
prune = "codegen_tasks.commands.prune:Prune"
[tool.codegen]
key_tracking = {tracking}
template_cache = {caching}
output_cache = {restoring}
output_cache_milliseconds = 0
output_cache_folder = ""
{afar}
"""

#: What each part of the declaration may be; the first is what a project begins with.
DECLARATION: dict[str, list[Any]] = {
    "environment": [
        {"trim_blocks": True},
        {},
        {"trim_blocks": True, "lstrip_blocks": True},
        {"newline_sequence": "\r\n"},
    ],
    "globals": [
        '{"site": "here"}',
        '{"site": "there"}',
        '{"site": [1, 2]}',
        '{"site": (1, 2)}',
        '{"site": {1}}',
        '{"site": {2}}',
        '{"site": decimal.Decimal("1.0")}',
        '{"site": decimal.Decimal("2.0")}',
        '{"site": 1, "later": "a global"}',
    ],
    "inner": ["", "~", "."],
    "shout": ["!", "?"],
    "twice": [2, 3],
    "loud": [3, 4],
    "told": ["told: ", "said: "],
    "extra": ["more", "less"],
    "overridden": ["", OVERRIDDEN],
    "mark": ["", "'"],
    "box": ["[", "("],
    "dot": [".", ":"],
    "page": ["{stem}.txt", "pages/{stem}.txt", "{folder}/{stem}.text"],
    "page rule": ["page", "sheet"],
    "context": ["None", "more", "{'extra': 1}", "{'extra': '1'}"],
    "list": ["list.txt", "lists/all.txt", ""],
    "list patterns": ["patterns/**/*.*", "patterns/*.toml"],
    "plain": ["plain.txt", "", "flat.txt"],
    "module": ["{stem}.py", "", "code/{stem}.py"],
    "compile": ['"python"', "None"],
    "one": ["{stem}.one", "ash.one"],
    "stamped": ["stamp('a')", "None", "stamp('b')"],
    "keys": ["{stem}.keys", ""],
    "rows": ["rows/{stem}-{name}.txt", "", "rows/{name}-{stem}.row"],
    "entries": ["entries/{stem}-{key}.txt", "", "entries/{name}-{stem}.txt"],
    "finish": [
        ", schema='schema.json', format=['tool/tidy'], newline='\\r\\n'",
        "",
        ", schema='schema.json'",
        ", format=['tool/tidy', '-']",
        ", newline='\\n'",
    ],
    "tracking": ["true", "true", "false"],
    "caching": ["true", "true", "false"],
    "restoring": ["true", "true", "false"],
    "afar": ["", "", "", "remote_cache = 'file://{home}/afar'\nremote_cache_write = true"],
}

#: Bodies of each template, None where it may not exist; the first is there at the beginning.
TEMPLATES: dict[str, list[str | None]] = {
    "base.j2": [
        "begin\n{% block body %}{% endblock %}\nend\n",
        "{# a comment #}begin\n{% block body %}{% endblock %}\nend\n",
        "start\n{% block body %}{% endblock %}\n",
    ],
    "macros.j2": [
        '{% import "deep/words.j2" as w %}{% macro title(x) %}{{ w.word() }} {{ x }}{% endmacro %}',
        "{% macro title(x) %}== {{ x|shout }} {{ site }} =={% endmacro %}\n",
        "{% macro title(x) %}{{ x|boxed }}"
        "{% if later is defined %}{{ later is callable }}{% endif %}{% endmacro %}",
    ],
    "deep/words.j2": [
        "{% macro word() %}one{% endmacro %}",
        "{% macro word() %}two{% endmacro %}",
        "{% set told = read_text('notes.txt') %}{% macro word() %}{{ told }}{% endmacro %}",
    ],
    "page.j2": [
        '{% extends "base.j2" %}{% import "macros.j2" as m %}{% block body %}{{ m.title(name) }}'
        '{% include "parts/" + kind + ".j2" ignore missing %} {{ gain }} {{ extra|default(box.w) }}'
        " {{ site }}{{ name|shout|boxed|twice|upper }}{{ later is defined }}{{ name is loud }}"
        "{{ 'const'|upper|new if 'new' is filter }}{% endblock %}",
        '{% from "macros.j2" import title %}{{ title(name)|upper }} {{ pattern.path }}'
        "{{ extra|default('')|string|twice }}\n",
        "{{ name is loud }} {{ [name, kind]|map('shout')|join }} {{ site }}\n",
        "{{ nonsense }}\n",
    ],
    "parts/bark.j2": ["bark {{ name }}", "BARK", None],
    "parts/leaf.j2": [
        None,
        "leaf {{ site }}",
        "{% if later is defined %}{{ later is callable }}{% endif %}",
    ],
    "list.j2": [
        "{% for p in patterns %}{{ p.name }}\n{% endfor %}",
        "{% for p in patterns if p.name is loud %}{{ p.pattern.path }}{{ p.gain }}\n{% endfor %}",
        "{% for p in patterns|sort(attribute='name') %}{{ p.name|boxed }}{% endfor %}",
        "{% for p in patterns %}{{ p.box|dump if 'box' in p }}{{ p|length }}\n{% endfor %}",
        "{{ patterns|map(attribute='box.w', default=0)|join(', ') }}{{ patterns|length }}\n",
        "{{ patterns|groupby('gain', default=0)|length }}{{ told(patterns) }}\n",
    ],
    "plain.j2": [
        '{% include ["mine.j2", "parts/leaf.j2", "base.j2"] %}{{ read_json("data.json").a }}'
        '{{ read_toml("data.toml").a.b }}{{ read_yaml("data.yaml").a.c }}\n',
        "{{ 'plain'|shout }}{% if 'upper' is filter %}{{ 'const'|upper }}{% endif %}\n",
        '{% set wanted = read_text("notes.txt").strip() %}{% include wanted ignore missing %}.\n',
        "{% nonsense %}",
        '{% for k, v in read_toml("data.toml").items() %}{{ k }}{{ v.d is mapping }}{% endfor %}'
        '{{ read_json("data.json")|length }}{{ read_yaml("data.yaml").b|dump }}{{ told(1) }}\n',
        '{{ read_toml("data.toml").a|dump }}{{ "b" in read_json("data.json") }}{{ told("x") }}\n',
    ],
    "mine.j2": [None, "mine\n", "mine {{ later is defined }}\n"],
    "module.j2": ["VALUE = {{ gain }}  # {{ name }}\n", "VALUE = {{ gain }}, {{ 2 is odd }}\n"],
    "one.j2": [
        "{{ 'many' if patterns is defined else 'single' }}\n",
        "{{ told(name) if name is defined else told(2) }}\n",
    ],
    "keys.j2": [
        "{{ box.w }} {{ box.deep.x is defined }} {{ rows[0].name }} {{ told(box.deep) }}\n",
        "{% for k in box %}{{ k }} {% endfor %}{{ box|length }} {{ 'more' in box }}\n",
        "{% for k, v in box|dictsort %}{{ k }}={{ v }} {% endfor %}{{ rows|length }}\n",
        "{{ box|tojson }} {{ box.deep|dump }}\n",
        "{{ box.get('h', 'none') }}{{ box.deep.get('y') }} {{ gain == 1 }}{{ gain is boolean }}\n",
        "{{ site }} {{ later is defined }} {{ rows|map(attribute='name')|join(' ') }}\n",
        "{% set b = box %}{{ b.update({'w': 9}) }}{{ b.w }} {{ b.h|default('none') }}\n",
        "{{ box == {'w': 1} }} {{ box.deep }} {% set w = box.w %}{{ w }}\n",
        "{% import 'macros.j2' as m with context %}{{ m.title(name) }} {{ box.values()|list }}\n",
        "{% for row in rows %}{{ row.n|default(loop.index) }}{% endfor %} {{ told(gain) }}\n",
    ],
    "row.j2": [
        "{{ item.n }} {{ name }} {{ pattern.stem }}\n",
        "{{ n }} {{ gain|default('-') }} {{ kind|default('') }}\n",
        "{{ item|tojson }}{{ site }}\n",
        "{{ item|dump }}{{ box.w|default('-') }}\n",
        "{{ name }}{% for k in item %}{{ k }}{% endfor %}{{ item|length }}\n",
        "{{ told(item) }}\n",
    ],
    "entry.j2": [
        "{{ key }} {{ n }}\n",
        "{{ n }}\n",
        "{{ key|dump }}{{ name }}{{ item|tojson }}\n",
        "{{ item.n }}{{ gain|default('-') }}{{ tree.rows|length }}\n",
    ],
}
NOTES = ["noted", "mine.j2", "parts/bark.j2", "deep/words.j2", None]
DATA_FILES = ["data.json", "data.toml", "data.yaml"]
DATA = {"a": {"b": 1, "c": 2, "d": {"e": 1}}, "b": [1, 2]}
STEMS = ["ash", "birch", "deep/cedar", "oak"]
NAMES = ["ash", "elm", "cedar", "ünï"]
KINDS = ["bark", "leaf", "moss"]
#: Values that hardly differ, and some that do.
VALUES = [1, 1.0, True, 2, "1", "two", datetime.date(2020, 1, 1), [1, 2], {"w": 1}, -0.0]
#: Keys that some template reads, that hide a global, or that nobody knows.
KEYS = ["w", "h", "more", "site", "later", "extra", "n", "x", "gain", "e", "b", "c"]
#: What every pattern fits, what one with another key does not, and one that refers to another.
SCHEMAS = [
    "{}",
    '{"properties": {"e": false}}',
    '{"properties": {"box": {"$ref": "box.schema.json"}}}',
    '{"type": "object", "properties": {"rows": {"type": "array"}}}',
]
BOXES = ["{}", '{"properties": {"w": {"type": "integer"}}}', "{", None]
INCLUDED = ["by the toolchain\n", "by another\n"]


def pattern_of(name: str, kind: str, gain: Any) -> dict[str, Any]:
    """Return what a pattern says at first."""
    rows = [{"name": "first", "n": 1}, {"name": "second", "n": 2}]
    box = {"w": 1, "h": "high", "deep": {"x": 1, "y": [1, 2]}}
    tree = {"rows": {"p": {"name": "first", "n": 1}, "q": {"name": "second", "n": 2}}}
    return {"name": name, "kind": kind, "gain": gain, "box": box, "rows": rows, "tree": tree}


def toml(value: Any) -> str:
    """Return a value as TOML, tables inline."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(part)}' for key, part in value.items())}}}"
    return str(value)


def as_text(name: str, data: Any) -> str:
    """Return data as the text of a file of that name."""
    if name.endswith((".json", ".yaml")):  # JSON is YAML, too
        return json.dumps(data, ensure_ascii=False, default=str) + "\n"
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in data.items())


def parsed(name: str, text: str) -> Any:
    """Return what a file of that name says; None if it is broken."""
    try:
        if name.endswith(".yaml"):
            return yaml.safe_load(text)
        return json.loads(text) if name.endswith(".json") else tomllib.loads(text)
    except (ValueError, yaml.YAMLError):
        return None


def containers(value: Any) -> Iterator[Any]:
    """Yield all tables and lists in a value, itself included."""
    if isinstance(value, (dict, list)):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from containers(part)


def exchange(draw: Random, container: Any) -> None:
    """Exchange what two items of a list or entries of a table have under one key."""
    parts = container.values() if isinstance(container, dict) else container
    tables = [part for part in parts if isinstance(part, dict)]
    if len(tables) > 1:
        one, other = draw.sample(tables, 2)
        key = draw.choice(["name", "name", "n"])
        if key in one and key in other:
            one[key], other[key] = other[key], one[key]


# All that may happen to it --------------------------------------------------------------


class Project:
    """The project in a temporary folder, and all edits.

    Args:
        draw: makes the choices.
    """

    def __init__(self, draw: Random):
        self.draw = draw
        self.home = Path(tempfile.mkdtemp(prefix="codegen-edits-"))
        self.path = self.home / "project"
        self.declared = {key: values[0] for key, values in DECLARATION.items()}
        self.edits = 0
        self.mine: dict[str, bytes] = {}
        #: Whether the state may not tell any more what we made.
        self.forgetful = False
        self.write_declaration()
        for name, bodies in TEMPLATES.items():
            self.write(f"templates/{name}", bodies[0])
        for stem, name, kind, value in zip(STEMS[:3], NAMES, KINDS, VALUES, strict=False):
            name = f"patterns/{stem}.toml"
            self.write(name, as_text(name, pattern_of(stem[-5:], kind, value)))
        self.write("notes.txt", NOTES[0])
        self.write("data.json", as_text("data.json", DATA))
        self.write("data.toml", as_text("data.toml", DATA))
        self.write("data.yaml", as_text("data.yaml", DATA))
        self.write("schema.json", SCHEMAS[0])
        self.write("stamp.inc", INCLUDED[0])
        self.write_tool("stamped")

    def remove(self) -> None:
        """Remove all that there is of it."""
        shutil.rmtree(self.home)

    # Means ------------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes | None) -> None:
        """Make a file hold `content`; None removes it."""
        path = self.path / name
        if content is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, name: str) -> str:
        """Return a file's text; "" if there is none."""
        path = self.path / name
        return path.read_text("utf-8") if path.is_file() else ""

    def write_tool(self, says: str) -> None:
        self.write("tool/stamp", TOOL % says)
        self.write("tool/tidy", f"#!/bin/sh\ncat\necho {says}\n")
        for name in ("stamp", "tidy"):
            (self.path / f"tool/{name}").chmod(0o755)

    def write_declaration(self) -> None:
        d = self.declared
        rules = [
            f"codegen.rule({d['page rule']!r}, template='page.j2', patterns='patterns/**/*.toml',"
            f" target={d['page']!r}, context={d['context']})",
            f"codegen.rule('one', template='one.j2', patterns='patterns/ash.*',"
            f" target={d['one']!r}, compile={d['stamped']})",
        ]
        if d["list"]:
            rules.append(
                f"codegen.rule('list', template='list.j2', patterns={d['list patterns']!r},"
                f" target={d['list']!r})"
            )
        if d["plain"]:
            rules.append(f"codegen.rule('plain', template='plain.j2', target={d['plain']!r})")
        if d["module"]:
            rules.append(
                "codegen.rule('module', template='module.j2', patterns='patterns/*.toml',"
                f" target={d['module']!r}, compile={d['compile']})"
            )
        if d["keys"]:
            rules.append(
                "codegen.rule('keys', template='keys.j2', patterns='patterns/**/*.toml',"
                f" target={d['keys']!r})"
            )
        if d["rows"]:
            rules.append(
                "codegen.rule('row', template='row.j2', patterns='patterns/*.toml', each='rows',"
                f" target={d['rows']!r}{d['finish']})"
            )
        if d["entries"]:
            rules.append(
                "codegen.rule('entry', template='entry.j2', patterns='patterns/*.toml',"
                f" each='tree.rows', target={d['entries']!r})"
            )
        self.write("dodo.py", DODO.format(**{**d, "rules": "\n".join(rules)}))
        self.write("helpers.py", HELPERS.format(**d))
        afar = d["afar"].format(home=self.home)
        self.write("pyproject.toml", PYPROJECT.format(**{**d, "afar": afar}))

    def below(self, folder: str) -> list[str]:
        """Return the files below a folder of the project."""
        at = self.path / folder
        found = [at] if at.is_file() else [path for path in at.rglob("*") if path.is_file()]
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def outputs(self, folder: Path | None = None) -> dict[str, bytes]:
        """Return bytes of all that lies in the output folder."""
        folder = folder or self.path
        found = (path for path in (folder / "generated").rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    def stamps(self, folder: str = "") -> dict[str, tuple[int, int]]:
        """Return inode and mtime of everything in the project or a folder, folders included."""
        return {
            path.relative_to(self.path).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in (self.path / folder).rglob("*")
        }

    # Edits ------------------------------------------------------------------------------

    def edit(self) -> None:
        """Make one edit of any kind."""
        edits = (
            *(self.edit_the_declaration, self.edit_a_template, self.edit_a_key) * 4,
            *(self.write_a_pattern, self.edit_an_output_by_hand) * 2,
            *(self.rename_a_pattern, self.remove_a_pattern, self.write_a_json_pattern),
            *(self.edit_what_templates_read, self.edit_what_the_toolchain_is) * 2,
            *(self.touch, self.lose_state, self.move, self.mend, self.mend),
        )
        self.draw.choice(edits)(self.draw)

    def edit_a_template(self, draw: Random) -> None:
        name = draw.choice(list(TEMPLATES))
        self.write(f"templates/{name}", draw.choice(TEMPLATES[name]))

    def edit_the_declaration(self, draw: Random) -> None:
        key = draw.choice(list(DECLARATION))
        self.declared[key] = draw.choice(DECLARATION[key])
        self.write_declaration()

    def edit_a_key(self, draw: Random) -> None:
        """Add, change, remove or move one key or item of a pattern or another file of data."""
        name = draw.choice([*self.below("patterns"), *DATA_FILES])
        data = parsed(name, self.read(name))
        if isinstance(data, dict):
            self._change(draw, draw.choice(list(containers(data))))
            self.write(name, as_text(name, data))

    def _change(self, draw: Random, container: Any) -> None:
        how = draw.choice(["set", "set", "add", "remove", "move", "swap"])
        if how == "swap":
            exchange(draw, container)
            return
        value = draw.choice(VALUES)
        if isinstance(container, list):
            row = {"name": draw.choice(["new", "third", "first"]), "n": value}
            at = draw.randint(0, max(0, len(container) - 1))
            if how == "add" or not container:
                container.insert(at, row)
            elif how == "set":
                container[at] = value if not isinstance(container[at], dict) else row
            else:
                taken = container.pop(at)
                container += [taken] if how == "move" else []
            return
        known = [*container] or KEYS
        key = draw.choice(KEYS if how == "add" else known)
        if how in ("remove", "move"):
            taken = container.pop(key, value)
        if how != "remove":
            container[key] = taken if how == "move" else value

    def write_a_pattern(self, draw: Random) -> None:
        choices = (draw.choice(of) for of in (NAMES, KINDS, VALUES))
        name = f"patterns/{draw.choice(STEMS)}.toml"
        text = as_text(name, pattern_of(*choices))
        text += draw.choice(["", "", "# a comment\n", "more = 1\n", "= broken\n"])
        self.write(name, text)

    def write_a_json_pattern(self, draw: Random) -> None:
        name = f"patterns/{draw.choice(STEMS)}.json"
        data = {"name": draw.choice(NAMES), "gain": 1.0, "box": {"w": 1.5}}
        self.write(name, as_text(name, data))

    def remove_a_pattern(self, draw: Random) -> None:
        self.write(draw.choice([*self.below("patterns"), "patterns/none"]), None)

    def rename_a_pattern(self, draw: Random) -> None:
        old = self.path / draw.choice([*self.below("patterns"), "patterns/none"])
        new = (self.path / "patterns" / draw.choice(STEMS)).with_suffix(old.suffix)
        new.parent.mkdir(exist_ok=True)
        if old.exists():
            old.replace(new)

    def mend(self, draw: Random) -> None:
        """Mend most of what makes builds fail."""
        for name in {*self.below("patterns"), "patterns/ash.toml"}:
            data = parsed(name, self.read(name)) or {}
            whole = pattern_of(draw.choice(NAMES), draw.choice(KINDS), draw.choice(VALUES))
            if any(type(data.get(key)) is not type(value) for key, value in whole.items()):
                self.write(name, as_text(name, {**data, **whole}))
        for name in ("page.j2", "plain.j2"):
            if "nonsense" in self.read(f"templates/{name}"):
                self.write(f"templates/{name}", TEMPLATES[name][0])
        for name in DATA_FILES:
            self.write(name, as_text(name, DATA))
        self.write("notes.txt", NOTES[0])
        self.write("schema.json", SCHEMAS[0])

    def edit_what_templates_read(self, draw: Random) -> None:
        self.write("notes.txt", draw.choice(NOTES))
        name = draw.choice(DATA_FILES)
        texts = [as_text(name, DATA), as_text(name, {**DATA, "a": {"b": 3}}), "= {", None]
        self.write(name, draw.choice([*texts, *texts[:2]]))
        self.write("schema.json", draw.choice(SCHEMAS))
        self.write("box.schema.json", draw.choice(BOXES))

    def edit_what_the_toolchain_is(self, draw: Random) -> None:
        self.write("stamp.inc", draw.choice(INCLUDED))
        self.write_tool(draw.choice(["stamped", "sealed"]))

    def touch(self, draw: Random) -> None:
        names = [
            name for each in ("patterns", "templates", "generated") for name in self.below(each)
        ]
        path = self.path / draw.choice(names)
        self.edits += 1
        os.utime(path, (self.edits, self.edits))

    def move(self, draw: Random) -> None:
        """Move the whole project elsewhere."""
        self.edits += 1
        self.path = self.path.rename(self.home / f"moved {self.edits}")

    def edit_an_output_by_hand(self, draw: Random, among: Sequence[str] = ()) -> None:
        """Edit or remove a generated file, or one `among` others."""
        there = among or self.below("generated")
        if not there:
            return
        name = draw.choice(there)
        path = self.path / name
        how = draw.choice(["append", "same size and mtime", "remove"])
        self.mine.pop(name, None)
        if how == "remove":
            path.unlink()
            return
        self.edits += 1
        before, info = path.read_bytes(), path.stat()
        text = b"mine %d\n" % self.edits
        self.mine[name] = before + text if how == "append" else text.ljust(len(before), b".")
        path.write_bytes(self.mine[name])
        if how == "same size and mtime":
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    def lose_state(self, draw: Random) -> None:
        """Remove or spoil manifest, database, caches or logs; what was kept aside stays."""
        names = ["manifest.json", "state.db", "cache", "logs", ""]
        below = self.below(f".codegen/{draw.choice(names)}")
        how = draw.choice(["remove", "spoil", "cut"])
        for file in below:
            if "/kept/" not in file:
                old = (self.path / file).read_bytes()
                changed = {"remove": None, "spoil": b"spoilt", "cut": old[: len(old) // 2]}
                self.write(file, changed[how])
        self.forgetful = True

    # Edits that make nothing stale ------------------------------------------------------

    def edit_without_meaning(self) -> None:
        """Make an edit that no render can see."""
        edits = [self.touch, self.move, self.comment]
        if self._reads_by_key():
            edits += [self.remark] * 2
        self.draw.choice(edits)(self.draw)

    def _reads_by_key(self) -> bool:
        """Tell whether no render takes a whole pattern."""
        seen = self.read("templates/list.j2")
        through = "p|length" in seen or "told(patterns)" in seen
        return (
            not through
            and self.declared["context"] == "None"
            and not (self.declared["rows"] and "schema" in self.declared["finish"])
            and self.declared["tracking"] == "true"
        )

    def comment(self, draw: Random) -> None:
        names = [name for name in self.below("patterns") if name.endswith(".toml")]
        name = draw.choice([*names, "data.toml", "data.yaml"])
        if parsed(name, text := self.read(name)):
            self.edits += 1
            self.write(name, f"{text}# comment {self.edits}\n")

    def remark(self, draw: Random) -> None:
        """Add or change a key, at the top of a pattern, that no template names."""
        name = draw.choice(self.below("patterns"))
        data = parsed(name, self.read(name))
        if isinstance(data, dict):
            self.edits += 1
            data["remark"] = self.edits
            self.write(name, as_text(name, data))
