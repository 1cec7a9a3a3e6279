"""Whatever is edited in whatever order: incremental = clean, and `doit info` knew it.

A state machine edits a small project at random (templates, macros, includes, patterns,
functions, options, rules, outputs, state), builds it fully, in part, in parallel or with
failing steps, and holds every full build against a clean one in another folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from conftest import Result
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from warm import Warm

Draw: TypeAlias = Callable[[Any], Any]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs doit in forked children")

# What the project can be like -----------------------------------------------------------

DODO = """
import decimal, functools
import helpers
from helpers import MARK, Box
from codegen_tasks import Codegen

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


codegen.filter("twice")(functools.partial(outer, {twice}))


@codegen.test
def loud(text):
    return len(text) > {loud}


def more(data):
    return {{"extra": {extra!r} + inner(str(data.get("gain", "-")))}}

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
    "extra": ["more", "less"],
    "overridden": ["", OVERRIDDEN],
    "mark": ["", "'"],
    "box": ["[", "("],
    "dot": [".", ":"],
    "page": ["{stem}.txt", "pages/{stem}.txt", "{folder}/{stem}.text"],
    "page rule": ["page", "sheet"],
    "context": ["more", "{'extra': 1}", "{'extra': '1'}"],
    "list": ["list.txt", "lists/all.txt", ""],
    "list patterns": ["patterns/**/*.*", "patterns/*.toml"],
    "plain": ["plain.txt", "", "flat.txt"],
    "module": ["{stem}.py", "", "code/{stem}.py"],
    "compile": ['"python"', "None"],
    "one": ["{stem}.one", "ash.one"],
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
        '{% include "parts/" + kind + ".j2" ignore missing %} {{ gain }} {{ extra }} {{ site }}'
        "{{ name|shout|boxed|twice|upper }}{{ later is defined }}{{ name is loud }}"
        "{{ 'const'|upper|new if 'new' is filter }}{% endblock %}",
        '{% from "macros.j2" import title %}{{ title(name)|upper }} {{ pattern.path }}'
        "{{ extra|twice }}\n",
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
    ],
    "plain.j2": [
        '{% include ["mine.j2", "parts/leaf.j2", "base.j2"] %}{{ read_json("data.json").a }}\n',
        "{{ 'plain'|shout }}{% if 'upper' is filter %}{{ 'const'|upper }}{% endif %}\n",
        '{% set wanted = read_text("notes.txt").strip() %}{% include wanted ignore missing %}.\n',
        "{% nonsense %}",
    ],
    "mine.j2": [None, "mine\n", "mine {{ later is defined }}\n"],
    "module.j2": ["VALUE = {{ gain }}  # {{ name }}\n", "VALUE = {{ gain }}, {{ 2 is odd }}\n"],
    "one.j2": ["{{ 'many' if patterns is defined else 'single' }}\n"],
}
NOTES = ["noted", "mine.j2", "parts/bark.j2", "deep/words.j2", None]
DATA = ['{"a": 1}', '{"a": 2}', '{"a": 2, "b": 3}', "{", None]
STEMS = ["ash", "birch", "deep/cedar", "oak"]
NAMES = ["ash", "elm", "cedar", "ünï"]
KINDS = ["bark", "leaf", "moss"]
VALUES = ["1", "2", '"two"', "2020-01-01", "[1, 2]"]


# All that may happen --------------------------------------------------------------------


class Edits:
    """A project, all that may happen to it, and what must hold after a build.

    Args:
        warm: runs doit.
        draw: makes the choices.
    """

    def __init__(self, warm: Warm, draw: Draw):
        self.warm = warm
        self.draw = draw
        self.home = Path(tempfile.mkdtemp(prefix="codegen-edits-"))
        self.path = self.home / "project"
        self.declared = {key: values[0] for key, values in DECLARATION.items()}
        self.edits = 0
        self.mine: dict[str, bytes] = {}
        self.write_declaration()
        for name, bodies in TEMPLATES.items():
            self.write(f"templates/{name}", bodies[0])
        for number, name in enumerate(STEMS[:3]):
            self.write(f"patterns/{name}.toml", self.pattern_text(number, number, number))
        self.write("notes.txt", NOTES[0])
        self.write("data.json", DATA[0])

    def one_round(self) -> None:
        """Edit something, build something."""
        for _ in range(self.draw(st.integers(1, 3))):
            self.edit()
        builds = (self.build_in_part, self.build_until_something_fails, self.build_everything)
        self.draw(st.sampled_from([*builds, self.build_everything]))()

    # Means ------------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes | None) -> None:
        """Make a file hold `content`; None removes it."""
        path = self.path / name
        if content is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    @staticmethod
    def pattern_text(name: int, kind: int, value: int) -> str:
        return f'name = "{NAMES[name]}"\nkind = "{KINDS[kind]}"\ngain = {VALUES[value]}\n'

    def write_declaration(self) -> None:
        d = self.declared
        rules = [
            f"codegen.rule({d['page rule']!r}, template='page.j2', patterns='patterns/**/*.toml',"
            f" target={d['page']!r}, context={d['context']})",
            f"codegen.rule('one', template='one.j2', patterns='patterns/ash.*',"
            f" target={d['one']!r})",
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
        self.write("dodo.py", DODO.format(**{**d, "rules": "\n".join(rules)}))
        self.write("helpers.py", HELPERS.format(**d))

    def doit(self, *arguments: str, folder: Path | None = None) -> Result:
        self.warm.commands += 1
        result = self.warm.run(folder or self.path, arguments)
        time.sleep(0.01)  # an edit in the clock tick of a write looks like that write
        assert result.code in (0, 1, 3), result
        assert "Traceback" not in result.out + result.err, result.out + result.err
        assert "internal error" not in result.out + result.err, result.out + result.err
        return result

    def below(self, folder: str) -> list[str]:
        """Return the files below a folder of the project."""
        at = self.path / folder
        found = [at] if at.is_file() else [path for path in at.rglob("*") if path.is_file()]
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def outputs(self, folder: Path) -> dict[str, bytes]:
        found = (path for path in (folder / "generated").rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Return inode and mtime of everything in the project, folders included."""
        return {
            path.relative_to(self.path).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in self.path.rglob("*")
        }

    # Edits ------------------------------------------------------------------------------

    def edit(self) -> None:
        edits = (
            *(self.edit_the_declaration, self.edit_a_template) * 3,
            *(self.write_a_pattern, self.edit_an_output_by_hand) * 2,
            *(self.rename_a_pattern, self.remove_a_pattern, self.write_a_json_pattern),
            *(self.edit_what_templates_read, self.touch, self.lose_state),
        )
        self.draw(st.sampled_from(edits))(self.draw)

    def edit_a_template(self, draw: Draw) -> None:
        name = draw(st.sampled_from(list(TEMPLATES)))
        self.write(f"templates/{name}", draw(st.sampled_from(TEMPLATES[name])))

    def edit_the_declaration(self, draw: Draw) -> None:
        key = draw(st.sampled_from(list(DECLARATION)))
        self.declared[key] = draw(st.sampled_from(DECLARATION[key]))
        self.write_declaration()

    def write_a_pattern(self, draw: Draw) -> None:
        numbers = (st.integers(0, len(of) - 1) for of in (NAMES, KINDS, VALUES))
        text = self.pattern_text(*(draw(number) for number in numbers))
        text += draw(st.sampled_from(["", "", "# a comment\n", "more = 1\n", "= broken\n"]))
        self.write(f"patterns/{draw(st.sampled_from(STEMS))}.toml", text)

    def write_a_json_pattern(self, draw: Draw) -> None:
        text = json.dumps({"name": draw(st.sampled_from(NAMES)), "gain": 1.0})
        self.write(f"patterns/{draw(st.sampled_from(STEMS))}.json", text)

    def remove_a_pattern(self, draw: Draw) -> None:
        self.write(draw(st.sampled_from([*self.below("patterns"), "patterns/none"])), None)

    def rename_a_pattern(self, draw: Draw) -> None:
        old = self.path / draw(st.sampled_from([*self.below("patterns"), "patterns/none"]))
        new = (self.path / "patterns" / draw(st.sampled_from(STEMS))).with_suffix(old.suffix)
        new.parent.mkdir(exist_ok=True)
        if old.exists():
            old.replace(new)

    def edit_what_templates_read(self, draw: Draw) -> None:
        self.write("notes.txt", draw(st.sampled_from(NOTES)))
        self.write("data.json", draw(st.sampled_from(DATA)))

    def touch(self, draw: Draw) -> None:
        folders = ["patterns", "templates", "generated"]
        names = [name for folder in folders for name in self.below(folder)]
        os.utime(self.path / draw(st.sampled_from(names)), (self.edits, self.edits))

    def edit_an_output_by_hand(self, draw: Draw) -> None:
        there = self.below("generated")
        if not there:
            return
        name = draw(st.sampled_from(there))
        path = self.path / name
        how = draw(st.sampled_from(["append", "same size and mtime", "remove"]))
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

    def lose_state(self, draw: Draw) -> None:
        """Remove or spoil manifest, database, caches or logs; what was kept aside stays."""
        names = ["manifest.json", "state.db", "cache", "logs", ""]
        below = self.below(f".codegen/{draw(st.sampled_from(names))}")
        how = draw(st.sampled_from(["remove", "spoil", "cut"]))
        for file in below:
            if "/kept/" not in file:
                old = (self.path / file).read_bytes()
                changed = {"remove": None, "spoil": b"spoilt", "cut": old[: len(old) // 2]}
                self.write(file, changed[how])

    # Builds -----------------------------------------------------------------------------

    def build_in_part(self) -> None:
        known = json.loads(self.doit_json() or '{"stale": [], "follows": []}')
        steps = [*known["stale"], *known["follows"]]
        names = [step["task"] for step in steps]
        names += [name for step in steps for name in step["targets"]]
        names += ["generate", "compile", "templates", "output"]
        self.doit("run", *self.workers(), self.draw(st.sampled_from(names)))

    def workers(self) -> list[str]:
        return self.draw(st.sampled_from([[], [], ["-n", "2"]]))

    def build_until_something_fails(self) -> None:
        self.doit("run")

    def build_everything(self) -> None:
        known = self.doit_json()
        built = self.doit("run", "-c", "-v", "2", *self.workers())
        clean, clean_folder = self.clean_build()
        assert built.code == clean.code, (built, clean)
        if known is None:
            assert built.code == 3, built
            return
        self.check_info(json.loads(known), built)
        assert failed(built) == failed(clean), (built.out, clean.out)
        self.check_outputs(built, self.outputs(self.path), self.outputs(clean_folder))
        self.check_nothing_is_lost(built)
        self.check_second_run(built)

    def doit_json(self) -> str | None:
        """Return what `doit info --json` says; None if the declaration is refused."""
        before = self.stamps()
        result = self.doit("info", "--json")
        assert self.stamps() == before
        return None if result.code == 3 else result.out

    def clean_build(self) -> tuple[Result, Path]:
        other = self.home / "clean"
        shutil.rmtree(other, ignore_errors=True)
        ignored = shutil.ignore_patterns("generated", ".codegen")
        shutil.copytree(self.path, other, ignore=ignored)
        return self.doit("run", "-c", "-v", "2", folder=other), other

    # What must hold ---------------------------------------------------------------------

    def check_info(self, known: dict[str, Any], built: Result) -> None:
        """See that what ran had been called stale, or to follow, and that what was stale ran."""
        steps = [step for step in known["stale"] if step["phase"] != "output"]
        stale = {step["task"] for step in steps}
        follows = {step["task"] for step in known["follows"]}
        ran = begun(built)
        assert ran <= stale | follows, (ran - stale - follows, built.out)
        if built.code == 0:
            both = {step["task"] for step in steps if step["follows"]}
            assert stale - both <= ran, (stale - ran, known, built.out)

    def check_outputs(
        self, built: Result, found: dict[str, bytes], clean: dict[str, bytes]
    ) -> None:
        """See that every file of a clean build is there, with the same bytes."""
        assert {name: found.get(name) for name in clean} == clean, built.out

    def check_nothing_is_lost(self, built: Result) -> None:
        """See that each hand edit is where it was made, or kept aside."""
        kept = [(self.path / name).read_bytes() for name in self.below(".codegen/kept")]
        for name, text in self.mine.items():
            path = self.path / name
            there = path.read_bytes() if path.is_file() else None
            assert text == there or text in kept, (name, text, built.out)

    def check_second_run(self, built: Result) -> None:
        """See that a second run does nothing but try again what failed."""
        before = self.stamps()
        again = self.doit("run", "-c", "-v", "2")
        assert again.code == built.code, again
        assert begun(again) == {name for name in failed(built) if name in begun(again)}, again.out
        assert failed(again) == failed(built), again.out
        if built.code == 0:
            after = self.stamps()
            assert after == before, {k for k in after | before if after.get(k) != before.get(k)}


def begun(result: Result) -> set[str]:
    """Return the tasks of the steps that a run with verbosity 2 has run."""
    return set(re.findall(r"^\.  (\w+:.+?)  \(pid", result.out, re.MULTILINE))


def failed(result: Result) -> set[str]:
    """Return the tasks of the steps that failed."""
    return set(re.findall(r"^failed: (\w+:\S+)$", result.out, re.MULTILINE))


def hold(examples: int, rounds: int, derandomize: bool = True, blind: str = "") -> Warm:
    """Edit and build projects at random; raise what does not hold."""
    warm = Warm(blind)

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # a failure is told in seconds, not shrunk for minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def all_holds(data: st.DataObject) -> None:
        project = Edits(warm, data.draw)
        try:
            for _ in range(rounds):
                project.one_round()
            project.build_everything()
        finally:
            shutil.rmtree(project.home)

    try:
        all_holds()
    finally:
        warm.end()
    return warm


def test_any_edits_and_builds_end_where_a_clean_build_ends() -> None:
    hold(examples=15, rounds=14)


@pytest.mark.slow
@pytest.mark.skipif("EDITS" not in os.environ, reason="takes as long as you like: set EDITS=150")
def test_many_more_edits_and_builds_end_where_a_clean_build_ends() -> None:
    examples = int(os.environ["EDITS"])
    warm = hold(examples, rounds=30, derandomize=False)
    print(f"{examples} x 30 rounds, {warm.commands} doit commands")


# The test of the test -------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "pattern",
        "template",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("missing template", "filter", "test", "global", "context", "source")
        ),
    ],
)
def test_a_build_that_is_blind_to_one_kind_of_input_is_found_out(kind: str) -> None:
    with pytest.raises(AssertionError):
        hold(examples=100, rounds=15, blind=kind)
