"""Schemas: a pattern that does not fit is a failed step, which says where and what."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from conftest import Project

from codegen_tasks import places, schemas
from codegen_tasks.errors import StepError
from codegen_tasks.model import Pattern

DODO = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*", target="{stem}.txt",
             schema="schemas/page.json")
DOIT_CONFIG = codegen.doit_config
"""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "size": {"enum": ["small", "large"]},
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kind"],
                "properties": {"decay": {"type": "number", "maximum": 1}},
            },
        },
    },
}
GOOD = 'name = "ash"\n\n[[nodes]]\nkind = "fade"\ndecay = 0.5\n'


@pytest.fixture
def checked(empty_project: Project) -> Project:
    """Return a project whose patterns have a schema."""
    project = empty_project
    project.write("dodo.py", DODO)
    project.write("templates/page.j2", "{{ name }}\n")
    project.write("schemas/page.json", json.dumps(SCHEMA, indent=2))
    project.write("patterns/ash.toml", GOOD)
    return project


def failure(project: Project, *arguments: str) -> str:
    """Return what doit says of what fails."""
    result = project.doit("-c", *arguments)
    # Under `-P thread` doit itself answers 2 where a step fails.
    assert result.code == (2 if "thread" in arguments else 1), result
    assert "Traceback" not in result.out + result.err
    return result.out + result.err


def faults(schema: Any, data: Any, tmp_path: Any) -> str:
    """Return what a schema says of a pattern."""
    (tmp_path / "s.json").write_text(json.dumps(schema), encoding="utf-8")
    with pytest.raises(StepError) as raised:
        schemas.Schemas(str(tmp_path)).judge("s.json", [Pattern("p.toml", "p", data)])
    return str(raised.value)


# What doit does with it -----------------------------------------------------------------


def test_a_pattern_that_fits_is_rendered_and_then_up_to_date(checked: Project) -> None:
    assert checked.doit().code == 0
    assert checked.read("generated/ash.txt") == "ash\n"
    before = checked.stamps()
    assert checked.doit().code == 0
    assert checked.stamps() == before
    assert checked.doit("info").code == 0


def test_one_fault_is_told_with_its_line_its_key_and_what_was_expected(checked: Project) -> None:
    checked.write("patterns/ash.toml", GOOD.replace("0.5", "1.5"))
    said = failure(checked)
    assert "patterns/ash.toml:5: nodes[0].decay: 1.5 is more than the maximum of 1" in said
    assert "5 | decay = 1.5" in said
    assert not checked.exists("generated/ash.txt")


def test_all_faults_of_a_pattern_are_told_together(checked: Project) -> None:
    checked.write("patterns/ash.toml", 'nmae = 1\nsize = "smal"\n[[nodes]]\ndecay = "x"\n')
    said = failure(checked)
    assert "patterns/ash.toml: 5 faults by schemas/page.json" in said
    for line in (
        "patterns/ash.toml: lacks 'name'",
        "patterns/ash.toml:1: nmae: unknown key (did you mean 'name'?)",
        'patterns/ash.toml:2: size: "smal" is none of "small", "large" (did you mean \'small\'?)',
        "patterns/ash.toml:3: nodes[0]: lacks 'kind'",
        'patterns/ash.toml:4: nodes[0].decay: "x" is a string, not a number',
    ):
        assert f"  {line}\n" in said


def test_one_bad_pattern_leaves_the_others_alone(checked: Project) -> None:
    checked.write("patterns/birch.json", '{"name": "birch"}')
    checked.write("patterns/ash.toml", "name = 1\n")
    failure(checked)
    assert checked.read("generated/birch.txt") == "birch\n"


def test_a_key_that_no_template_reads_is_held_against_the_schema_too(checked: Project) -> None:
    assert checked.doit().code == 0
    checked.write("patterns/ash.toml", GOOD + 'colour = "red"\n')
    assert "nodes[0].colour" not in (said := checked.doit().out + checked.doit().err), said
    checked.write("patterns/ash.toml", 'colour = "red"\n' + GOOD)
    assert "patterns/ash.toml:1: colour: unknown key" in failure(checked)


def test_an_edit_of_the_schema_holds_everything_against_it_and_rewrites_nothing(
    checked: Project,
) -> None:
    assert checked.doit().code == 0
    before = checked.stamps("generated")
    loose = {**SCHEMA, "additionalProperties": True}
    checked.write("schemas/page.json", json.dumps(loose))
    info = checked.doit("info")
    assert info.code == 1
    assert "schemas/page.json: additionalProperties false → true" in info.out
    assert checked.doit().code == 0
    assert checked.stamps("generated") == before
    checked.write("schemas/page.json", json.dumps({**SCHEMA, "required": ["name", "size"]}))
    assert "patterns/ash.toml: lacks 'size'" in failure(checked)
    assert checked.read("generated/ash.txt") == "ash\n"


def test_the_layout_of_a_schema_does_not_matter(checked: Project) -> None:
    assert checked.doit().code == 0
    checked.write("schemas/page.json", json.dumps(SCHEMA))
    assert checked.doit("info").code == 0


def test_a_rule_that_gets_a_schema_is_stale(checked: Project) -> None:
    checked.write("dodo.py", DODO.replace('schema="schemas/page.json"', ""))
    assert checked.doit().code == 0
    checked.write("dodo.py", DODO)
    info = checked.doit("info")
    assert info.code == 1
    assert "schemas/page.json" in info.out
    checked.doit()
    assert checked.doit("info").code == 0


def test_a_comment_that_names_the_schema_for_an_editor_changes_nothing(checked: Project) -> None:
    assert checked.doit().code == 0
    checked.write("patterns/ash.toml", "#:schema ../schemas/page.json\n" + GOOD)
    assert checked.doit("info").code == 0


def test_info_names_the_schema(checked: Project) -> None:
    assert checked.doit().code == 0
    assert "schemas/page.json" in checked.doit("info", "generated/ash.txt").out


def test_what_a_schema_refers_to_is_an_input(checked: Project) -> None:
    main = {"properties": {"size": {"$ref": "parts/sizes.json#/$defs/size"}}}
    checked.write("schemas/page.json", json.dumps(main))
    checked.write("schemas/parts/sizes.json", '{"$defs": {"size": {"$ref": "#/$defs/inner"},')
    parts: dict[str, Any] = {"$defs": {"size": {"$ref": "more.json"}}}
    checked.write("schemas/parts/sizes.json", json.dumps(parts))
    checked.write("schemas/parts/more.json", '{"enum": ["small"]}')
    checked.write("patterns/ash.toml", 'name = "ash"\nsize = "small"\n')
    assert checked.doit().code == 0
    checked.write("schemas/parts/more.json", '{"enum": ["large"]}')
    info = checked.doit("info")
    assert "schemas/parts/more.json" in info.out
    assert 'patterns/ash.toml:2: size: "small" is none of "large"' in failure(checked)


def test_references_by_the_identity_of_a_schema_are_looked_for_beside_it(checked: Project) -> None:
    main = {
        "$id": "https://example.com/s/page.json",
        "properties": {"size": {"$ref": "https://example.com/s/size.json"}},
    }
    checked.write("schemas/page.json", json.dumps(main))
    checked.write("schemas/size.json", '{"enum": ["large"]}')
    checked.write("patterns/ash.toml", 'name = "ash"\nsize = "small"\n')
    assert 'size: "small" is none of "large"' in failure(checked)


def test_a_reference_to_nothing_is_told_and_mended_by_the_file(checked: Project) -> None:
    checked.write("schemas/page.json", '{"properties": {"name": {"$ref": "name.json"}}}')
    assert "schemas/page.json: cannot be used: " in (said := failure(checked))
    assert "name.json" in said
    checked.write("schemas/name.json", '{"type": "string"}')
    assert checked.doit().code == 0


def test_a_schema_on_the_net_is_not_fetched(checked: Project) -> None:
    there = "https://example.com/name.json"
    checked.write("schemas/page.json", json.dumps({"properties": {"name": {"$ref": there}}}))
    assert there in failure(checked)


def test_a_missing_schema_is_told_before_any_step_begins(checked: Project) -> None:
    checked.remove("schemas/page.json")
    result = checked.doit()
    assert result.code == 3
    assert "rule page: there is no schema schemas/page.json" in result.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "schemas/page.json:1: "),
        ("[]", "schemas/page.json: a schema is a table or a boolean, not a list"),
        ('{"type": "strin"}', "schemas/page.json:1: type: "),
        (
            '{"properties": {"name": {"pattern": "("}}}',
            "schemas/page.json:1: properties.name.pattern: ",
        ),
        ('{"$ref": "#"}', "schemas/page.json: refers to itself without an end"),
    ],
)
def test_a_broken_schema_is_told(checked: Project, text: str, said: str) -> None:
    checked.write("schemas/page.json", text)
    assert said in failure(checked)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("3", "rule page: schema must be the path of a JSON Schema, not 3"),
        ('"../s.json"', "rule page: the schema '../s.json' lies outside of the project"),
        ('""', "rule page: schema must be the path of a JSON Schema, not ''"),
    ],
)
def test_what_is_no_path_of_a_schema_is_refused(checked: Project, given: str, said: str) -> None:
    checked.write("dodo.py", DODO.replace('"schemas/page.json"', given))
    result = checked.doit()
    assert (result.code, "Traceback" in result.err) == (3, False)
    assert said in result.err


def test_a_schema_needs_patterns(checked: Project) -> None:
    rule = 'codegen.rule("page", template="page.j2", target="a.txt", schema="schemas/page.json")\n'
    checked.write("dodo.py", DODO.replace("DOIT", rule.replace('"page"', '"b"') + "DOIT"))
    assert "rule b: schema= needs patterns=" in checked.doit().err


def test_without_the_library_it_is_told_what_to_install(checked: Project) -> None:
    hide = (
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'jsonschema' else find(name, *a)\n"
    )
    checked.write("dodo.py", hide + DODO)
    result = checked.doit()
    assert result.code == 3
    assert "rule page: schema= needs jsonschema" in result.err
    assert "hint: pip install 'codegen-tasks[schema]'" in result.err


def test_a_file_made_from_all_patterns_holds_each_against_the_schema(checked: Project) -> None:
    checked.write("dodo.py", DODO.replace("{stem}.txt", "all.txt"))
    checked.write("templates/page.j2", "{{ patterns|length }}\n")
    checked.write("patterns/birch.toml", "name = 1\n")
    checked.write("patterns/cedar.yaml", "name: [x]\n")
    said = failure(checked)
    assert "2 patterns: 2 faults by schemas/page.json" in said
    assert "patterns/birch.toml:1: name: 1 is a number, not a string" in said
    assert "patterns/cedar.yaml:1: name: is a list, not a string" in said


def test_the_schema_is_asked_before_any_function_sees_the_pattern(checked: Project) -> None:
    context = "def more(data):\n    return {'x': data['name'].upper()}\n\n"
    dodo = DODO.replace('schema="schemas', 'context=more, schema="schemas')
    checked.write("dodo.py", context + dodo)
    checked.write("patterns/ash.toml", "name = 1\n")
    assert "patterns/ash.toml:1: name: 1 is a number, not a string" in failure(checked)


def test_a_schema_may_be_made_by_another_rule(checked: Project) -> None:
    made = 'codegen.rule("schema", template="schema.j2", target="page.json")\ncodegen.rule("page"'
    dodo = DODO.replace('codegen.rule("page"', made).replace("schemas/", "generated/")
    checked.write("dodo.py", dodo)
    checked.write("templates/schema.j2", '{"required": ["name"]}')
    assert checked.doit().code == 0
    checked.write("templates/schema.j2", '{"required": ["size"]}')
    assert "patterns/ash.toml: lacks 'size'" in failure(checked)
    checked.write("templates/schema.j2", "{}")
    assert checked.doit("-n", "2").code == 0


@pytest.mark.parametrize("options", [("-n", "2"), ("-n", "2", "-P", "thread"), ()])
def test_workers_tell_the_same(checked: Project, options: tuple[str, ...]) -> None:
    for number in range(30):
        bad = "1" if number % 10 == 0 else '"x"'
        checked.write(f"patterns/p{number}.toml", f"name = {bad}\n")
    said = failure(checked, *options)
    for number in range(30):
        fault = f"patterns/p{number}.toml:1: name: 1 is a number, not a string"
        assert (fault in said) == (number % 10 == 0)


def test_diff_tells_of_patterns_that_do_not_fit(checked: Project) -> None:
    checked.write("patterns/ash.toml", "name = 1\n")
    result = checked.codegen("diff")
    assert result.code == 1
    assert "patterns/ash.toml:1: name: 1 is a number, not a string" in result.err


def test_the_library_is_imported_only_where_a_schema_is_read(checked: Project) -> None:
    script = (
        "import sys\nfrom doit.doit_cmd import DoitMain\ncode = DoitMain().run([])\n"
        "print('jsonschema' in sys.modules, code)"
    )
    assert checked.run(sys.executable, "-c", script).out.endswith("True 0\n")
    assert checked.run(sys.executable, "-c", script).out.endswith("False 0\n")
    checked.write("dodo.py", DODO.replace('schema="schemas/page.json"', ""))
    assert checked.run(sys.executable, "-c", script).out.endswith("False 0\n")


# What is said ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": "integer"}, 1.5, "k: 1.5 is a number, not a whole number"),
        ({"type": ["string", "null"]}, 3, "k: 3 is a number, not a string or null"),
        ({"type": "string"}, {"a": 1}, "k: is a table, not a string"),
        ({"minimum": 1}, 0, "k: 0 is less than the minimum of 1"),
        ({"exclusiveMaximum": 1}, 1, "k: 1 is not less than 1"),
        ({"multipleOf": 2}, 3, "k: 3 is no multiple of 2"),
        ({"minLength": 2}, "é", "k: has 1 character, fewer than 2"),
        ({"maxItems": 1}, [1, 2], "k: has 2 items, more than 1"),
        ({"pattern": "^[a-z]+$"}, "A", 'k: "A" does not match ^[a-z]+$'),
        ({"const": "é"}, 1, 'k: 1 is not "é"'),
        ({"uniqueItems": True}, [1, 1], "k: holds an item twice"),
        (False, 1, "k: 1 is what the schema forbids"),
        ({"items": False}, [1], "k: expected at most 0 items but found 1 extra: 1"),
        ({"not": {"type": "string"}}, "x", 'k: "x" is what the schema forbids'),
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
            1,
            "k: 1 is a number, not a string or null",
        ),
        (
            {"patternProperties": {"^a": {}}, "additionalProperties": False},
            {"b": 1},
            "k.b: unknown",
        ),
    ],
)
def test_each_keyword_has_its_words(schema: Any, value: Any, said: str, tmp_path: Any) -> None:
    assert f"p.toml: {said}" in faults({"properties": {"k": schema}}, {"k": value}, tmp_path)


def test_of_alternatives_the_one_that_was_meant_is_told(tmp_path: Any) -> None:
    kinds = [
        {"properties": {"kind": {"const": "fade"}, "decay": {"maximum": 1}}},
        {"properties": {"kind": {"const": "spin"}, "speed": {"type": "integer"}}},
    ]
    said = faults({"oneOf": kinds}, {"kind": "spin", "speed": 0.5}, tmp_path)
    assert said == "p.toml: speed: 0.5 is a number, not a whole number"
    said = faults({"items": {"oneOf": kinds}}, [{"kind": "spun", "speed": 0.5}], tmp_path)
    assert said == (
        'p.toml: [0].kind: "spun" is none of "fade", "spin"\n  hint: did you mean \'spin\'?'
    )


def test_dates_are_text_as_editors_have_it_and_keys_too(tmp_path: Any) -> None:
    import datetime

    schema = {"properties": {"day": {"type": "integer"}}, "patternProperties": {"^3$": False}}
    data = {"day": datetime.date(2026, 1, 2), 3: 1}
    said = faults(schema, data, tmp_path)
    assert 'day: "2026-01-02" is a string, not a whole number' in said
    assert "3: 1 is what the schema forbids" in said


def test_of_many_faults_the_first_are_told_and_the_others_counted(tmp_path: Any) -> None:
    data = {f"k{number}": 1 for number in range(50)}
    said = faults({"additionalProperties": {"type": "string"}}, data, tmp_path)
    assert said.startswith("p.toml: 50 faults by s.json\n")
    assert said.endswith("and 30 more")


# Lines ----------------------------------------------------------------------------------

TOML = """\
# a comment
name = "x"

list = [
  1,
  2,
]
text = '''
[[nodes]]
'''
[[nodes]]
kind = "a"
[[nodes]]
kind = "b"
  [nodes.inner]
  deep.er = 1
"""
JSON = '{\n "a": [\n  1,\n  {"b": "]}",\n   "c": 2}\n ],\n "d": {},\n "a\\n": 1\n}'
YAML = "a:\n  - 1\n  - b: x\n    c: 2\nd: &n {e: 1}\nf: *n\n"


@pytest.mark.parametrize(
    ("name", "text", "place", "line"),
    [
        ("p.toml", TOML, ("name",), 2),
        ("p.toml", TOML, ("list", 1), 4),
        ("p.toml", TOML, ("text",), 8),
        ("p.toml", TOML, ("nodes", 0), 11),
        ("p.toml", TOML, ("nodes", 1, "kind"), 14),
        ("p.toml", TOML, ("nodes", 1, "inner", "deep", "er"), 16),
        ("p.toml", TOML.replace("\n", "\r\n"), ("nodes", 1, "kind"), 14),
        ("p.toml", TOML, (), 0),
        ("p.json", JSON, ("a", 1, "c"), 5),
        ("p.json", JSON, ("a", 1, "b"), 4),
        ("p.json", JSON, ("a", 0), 3),
        ("p.json", JSON, ("a\n",), 8),
        ("p.json", JSON, ("zz",), 0),
        ("p.json", '{"a": 1,\n"a": 2}', ("a",), 2),
        ("p.yaml", YAML, ("a", 1, "c"), 4),
        ("p.yaml", YAML, ("f", "e"), 5),
        ("p.yaml", YAML, ("zz",), 0),
        ("p.ini", "a", ("a",), 0),
    ],
)
def test_the_line_of_a_key(name: str, text: str, place: tuple[Any, ...], line: int) -> None:
    assert places.line_of(name, text, place) == line
