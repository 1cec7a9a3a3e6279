"""Tables behave as dicts, and what they note selects all that could have changed a render."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from conftest import Project, share
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen_tasks import keys
from codegen_tasks.keys import Notes, Reads, Table

NAMES = st.sampled_from(["a", "b", "c", "items"])
SCALARS = st.one_of(st.integers(0, 2), st.sampled_from(["", "x"]), st.booleans(), st.just(0.5))
DATA = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)
TABLES = st.dictionaries(NAMES, DATA, max_size=4)


def _failing(error: type[Exception], call: Callable[[], Any]) -> Any:
    try:
        return call()
    except error:
        return error.__name__


#: What templates and functions may ask of a table; each returns plain data.
QUESTIONS: dict[str, Callable[[Any, str], Any]] = {
    "item": lambda t, k: _failing(KeyError, lambda: t[k]),
    "get": lambda t, k: t.get(k, 5),
    "in": lambda t, k: k in t,
    "in keys": lambda t, k: k in t.keys(),  # noqa: SIM118 -- the view is what is asked
    "len": lambda t, _: len(t),
    "true": lambda t, _: bool(t),
    "list": lambda t, _: list(t),
    "reversed": lambda t, _: list(reversed(t)),
    "keys": lambda t, _: list(t.keys()),
    "values": lambda t, _: list(t.values()),
    "items": lambda t, _: [list(pair) for pair in t.items()],
    "dict": lambda t, _: dict(t),
    "spread": lambda t, _: {**t},
    "arguments": lambda t, _: dict(**t),
    "merged": lambda t, _: t | {"z": 1},
    "merged into": lambda t, _: {"z": 1} | t,
    "updated": lambda t, _: _updated({"z": 1}, t),
    "copy": lambda t, _: t.copy(),
    "shallow": lambda t, _: copy.copy(t),
    "deep": lambda t, _: copy.deepcopy(t),
    "pickle": lambda t, _: pickle.loads(pickle.dumps(t)),
    "repr": lambda t, _: repr(t),
    "str": lambda t, _: f"{t} {t!s}",
    "json": lambda t, _: json.dumps({"a": t}) if t else "",
    "equal": lambda t, _: [t == {"a": 1}, {"a": 1} == t, t != {}, t in [{"a": 1}]],  # noqa: SIM300
    "sorted": lambda t, _: sorted(t),
    "set": lambda t, _: sorted(set(t)),
    "fromkeys": lambda t, _: dict.fromkeys(t),
    "format": lambda t, _: _failing(KeyError, lambda: "%(a)s" % t),  # noqa: UP031
    "format map": lambda t, _: _failing(KeyError, lambda: "{a}".format_map(t)),
    "pop": lambda t, k: [t.pop(k, 7), list(t)],
    "setdefault": lambda t, k: [t.setdefault(k, 7), list(t)],
    "popitem": lambda t, _: _failing(KeyError, lambda: list(t.popitem())),
    "set item": lambda t, k: [t.__setitem__(k, [1]), t[k], list(t)],
    "delete": lambda t, k: _failing(KeyError, lambda: [t.__delitem__(k), list(t)]),
    "clear": lambda t, _: [t.clear(), list(t)],
    "in place": lambda t, k: [t.__ior__({k: 9}), list(t.items())],
    "plain": lambda t, _: keys.plain(t) if type(t) is Table else t,
    "handed": lambda t, _: keys.called_with_plain(lambda given: json.dumps(given), [t], {}),
    "handed inside": lambda t, _: keys.called_with_plain(json.dumps, [[{"in": (t,)}]], {}),
}


def _updated(into: dict[str, Any], given: Any) -> dict[str, Any]:
    into.update(given)
    return into


def _asked(top: Any, program: list[tuple[list[str], str, str]]) -> str:
    """Return all answers: of each question, asked of the table that a way leads to."""
    answers = []
    for way, question, key in program:
        table = top
        for step in way:
            below = table.get(step)
            table = below if isinstance(below, dict) else table
        answers.append(repr(QUESTIONS[question](table, key)))  # now: it may be changed later
    return "\n".join(answers)


PROGRAMS = st.lists(
    st.tuples(st.lists(NAMES, max_size=2), st.sampled_from(sorted(QUESTIONS)), NAMES), max_size=4
)


@settings(max_examples=share(400))
@given(data=TABLES, program=PROGRAMS)
def test_a_table_answers_as_a_dict_does(data: dict[str, Any], program: Any) -> None:
    before = copy.deepcopy(data)
    found = _asked(Table(data, Notes()), program)
    assert data == before, "what one render changes, no other sees"
    assert found == _asked(data, program)


@settings(max_examples=share(600))
@given(data=TABLES, other=TABLES, program=PROGRAMS, key=NAMES)
def test_what_was_not_noted_changes_no_answer(
    data: dict[str, Any], other: dict[str, Any], program: Any, key: str
) -> None:
    notes = Notes()
    answers = _asked(Table(data, notes), program)
    reads = notes.reads()
    for changed in (other, {**data, key: other}, {**data, **other}, _without(data, key)):
        if keys.select(changed, reads) == keys.select(data, reads):
            assert _asked(Table(changed, Notes()), program) == answers, (changed, reads)


def _without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 2}, [("a", "1", "2")]),
        ({"a": 1}, {}, [("a", "1", "absent")]),
        ({}, {"a": {"b": 1}}, [("a", "absent", '{"b": 1}')]),
        ({"a": [{"b": 0.92}, 1]}, {"a": [{"b": 0.9}, 1]}, [("a[0].b", "0.92", "0.9")]),
        ({"a": [1, 2]}, {"a": [1]}, [("a", "[1, 2]", "[1]")]),
        (
            {"a": {"b": 1, "c": 2}},
            {"a": {"c": 2, "b": 1}},
            [("a", "keys in one order", "in another")],
        ),
        ({"a": "x" * 99}, {"a": "y"}, [("a", '"' + "x" * 38 + "…", '"y"')]),
        ({"a": list(range(99))}, {"a": 0}, [("a", "99 items", "0")]),
        ({"a": 1, "b": 1, "c": 3}, {"a": 2, "b": 2, "c": 3}, [("a", "1", "2"), ("b", "1", "2")]),
    ],
)
def test_a_change_is_told_by_its_place_and_both_values(old: Any, new: Any, expected: Any) -> None:
    texts = [keys.select(data, keys.WHOLE)[1] for data in (old, new)]
    assert keys.changes(keys.WHOLE, *texts) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (lambda t: t["a"], [(("a",), "value")]),
        (lambda t: t["meta"]["b"], [(("meta",), "table"), (("meta", "b"), "value")]),
        (lambda t: [t["meta"]["b"], t["meta"] == {}], [(("meta",), "value")]),
        (lambda t: list(t), [((), "keys")]),
        (lambda t: "x" in t, [(("x",), "there")]),
        (lambda t: t.get("x"), [(("x",), "value")]),
        (lambda t: str(t), [((), "value")]),
        (lambda t: t["list"][0], [(("list",), "value")]),
    ],
)
def test_no_more_is_noted_than_was_asked(question: Callable[[Any], Any], expected: Any) -> None:
    notes = Notes()
    question(Table({"a": 1, "meta": {"b": 2}, "list": [1]}, notes))
    assert list(notes.reads()) == expected


def test_a_table_that_was_empty_and_written_as_json_counts_with_the_keys_it_gets() -> None:
    notes = Notes()
    assert json.dumps([Table({"meta": {}}, notes)]) == '[{"meta": {}}]'
    before, after = (
        keys.select(data, notes.reads()) for data in ({"meta": {}}, {"meta": {"b": 2}})
    )
    assert before != after


def test_data_that_holds_itself_or_itself_twice_is_unwrapped_in_one_pass() -> None:
    data: list[Any] = [Table({"a": 1}, Notes())]
    data.append(data)
    deep: Any = data
    for _ in range(100):
        deep = {"left": deep, "right": deep}
    assert keys.unwrapped(deep) is deep
    assert type(data[0]) is dict


def _told(reads: Reads, old: Any, new: Any) -> list[tuple[str, str, str]]:
    return keys.changes(reads, keys.select(old, reads)[1], keys.select(new, reads)[1])


def test_a_date_is_told_as_a_date_whatever_it_becomes() -> None:
    reads: Reads = ((("x",), "value"),)
    day, table = {"x": date(2020, 1, 2)}, {"x": {"w": 1}}
    assert _told(reads, day, table) == [("x", "2020-01-02", '{"w": 1}')]
    assert _told(reads, table, day) == [("x", '{"w": 1}', "2020-01-02")]
    assert _told(reads, day, {"x": date(2020, 1, 3)}) == [("x", "2020-01-02", "2020-01-03")]


def test_a_table_that_comes_or_goes_is_told_in_words_that_are_no_value() -> None:
    table: Reads = ((("x",), "table"),)
    assert _told(table, {"x": {}}, {"x": "no table"}) == [("x", "a table", "no table")]
    assert _told(table, {"x": {}}, {}) == [("x", "a table", "absent")]
    within: Reads = ((("x",), "keys"),)
    assert _told(within, {"x": {"a": 1}}, {"x": {"b": 1}}) == [
        ("x.a", "present", "absent"),
        ("x.b", "absent", "present"),
    ]
    assert _told(within, {"x": {"a": 1}}, {}) == [("x", "a table", "no table")]


# Out of the templates ---------------------------------------------------------------------


#: Ways by which a template hands a table to a filter or function of the project, inside of
#: something else; `dump` fails for anything that is not a plain dict.
WAYS = {
    "groups": "{{ patterns|groupby('name')|dump }}",
    "reversed": "{{ patterns|reverse|dump }}",
    "items": "{{ patterns[0].items()|dump }}",
    "values": "{{ patterns[0].values()|dump }}",
    "namespace": "{% set n = namespace(t=patterns[0].empty) %}{{ n|dump }}",
    "one tuple twice": "{% set t = (patterns[0].empty,) %}{{ [t, t]|dump }}",
    "imported macro": "{% import 'macros.j2' as m %}{{ m.shown(patterns[0].empty) }}",
    "a dict's method": "{{ {}.__class__.items(patterns[0].empty)|list }}",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_function_gets_plain_dicts_by_whatever_way_and_all_of_them_counts(
    empty_project: Project, way: str
) -> None:
    project = empty_project
    project.write(
        "dodo.py",
        """
        import json
        from codegen_tasks import Codegen

        codegen = Codegen()
        codegen.rule("a", template="a.j2", patterns="patterns/*.toml", target="a.txt")
        DOIT_CONFIG = codegen.doit_config


        def plainly(value):
            if type(value).__name__ == "Namespace":
                return plainly(value.t)
            if isinstance(value, dict):
                assert type(value) is dict
                return {key: plainly(part) for key, part in value.items()} if value else {}
            return value if isinstance(value, (str, int)) else [plainly(part) for part in value]


        @codegen.filter
        def dump(value):
            return json.dumps(plainly(value))


        @codegen.function
        def dumped(value):
            assert type(value) is dict
            return json.dumps(value)
        """,
    )
    project.write("templates/a.j2", WAYS[way])
    project.write("templates/macros.j2", "{% macro shown(t) %}{{ dumped(t) }}{% endmacro %}")
    project.write("patterns/a.toml", 'name = "a"\n[empty]\n[sub]\nx = 1\n')
    assert project.doit().code == 0
    project.write("patterns/a.toml", 'name = "a"\n[empty]\nnew = 1\n[sub]\nx = 2\n')
    assert project.doit().code == 0
    assert "new" in project.read("generated/a.txt")


def test_what_a_function_changes_below_a_table_is_seen_by_who_holds_that() -> None:
    top = Table({"sub": {"x": 1}}, Notes())
    sub = top["sub"]
    keys.called_with_plain(lambda given: given["sub"].update(x=2), [top], {})
    assert sub["x"] == 2
    assert top["sub"] is sub


@pytest.mark.parametrize("tracking", ["on", "off"])
def test_what_is_read_through_an_imported_template_counts_for_each_that_imports_it(
    empty_project: Project, tracking: str
) -> None:
    project = empty_project
    project.environ["CODEGEN_KEY_TRACKING"] = tracking
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        codegen = Codegen()
        for name in "abc":
            codegen.rule(name, template=f"{name}.j2", target=f"{name}.txt")
        DOIT_CONFIG = codegen.doit_config
        """,
    )
    project.write("templates/m.j2", "{% set known = read_toml('data.toml') %}")
    first = "{{ read_toml('data.toml').x }}{% import 'm.j2' as m %}"
    project.write("templates/a.j2", first + "{{ m.known.y }}")
    project.write("templates/b.j2", first + "{{ m.known.z }}")
    project.write("templates/c.j2", "{% import 'm.j2' as m %}{{ m.known.y }}")
    project.write("data.toml", "x = 1\ny = 1\nz = 1\n")
    assert project.doit().code == 0
    project.write("data.toml", "x = 1\ny = 2\nz = 3\n")
    assert project.doit().code == 0
    assert [project.read(f"generated/{name}.txt") for name in "abc"] == ["12", "13", "2"]


def test_a_key_that_is_a_number_is_another_than_its_digits() -> None:
    spellings: list[Any] = [1, "1", 1.0, True, "True", None, "null", "None"]
    texts = [keys.select({"a": {key: 5}}, keys.WHOLE)[1] for key in spellings]
    assert len(set(texts)) == len(texts)
    assert keys.changes(keys.WHOLE, texts[0], texts[1]) == [
        ("a.int 1", "5", "absent"),
        ("a.1", "absent", "5"),
    ]


def test_a_number_nobody_can_write_fails_what_reads_it_and_says_where(
    empty_project: Project,
) -> None:
    empty_project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        codegen = Codegen()
        codegen.rule("a", template="a.j2", target="a.txt")
        DOIT_CONFIG = codegen.doit_config
        """,
    )
    empty_project.write("templates/a.j2", "{{ read_toml('data.toml').x > 5 }}")
    empty_project.write("data.toml", f"x = 0x{'f' * 9000}\n")
    result = empty_project.doit()
    assert result.code == 1
    assert "data.toml: holds a value that no template can rely on" in result.out
    assert "Traceback" not in result.out + result.err


def test_a_key_that_was_looked_for_and_came_is_told_as_there() -> None:
    notes = Notes()
    assert "b" not in Table({"a": 1}, notes)
    texts = [keys.select(data, notes.reads())[1] for data in ({"a": 2}, {"b": 1})]
    assert keys.changes(notes.reads(), *texts) == [("b", "false", "true")]


def test_a_table_that_is_changed_shows_what_it_holds_now() -> None:
    table = Table({"a": [1]}, Notes())
    table["b"] = {"c": 1}
    assert table["b"] is table["b"]
    assert type(table["b"]) is dict, "it is the template's own, of which nothing is noted"


def test_a_table_that_is_cleared_is_empty_and_counts_with_its_keys() -> None:
    notes = Notes()
    Table({"a": 1}, notes).clear()
    assert ((), "keys") in notes.reads()


def test_a_list_that_a_render_changes_is_its_own() -> None:
    data = {"a": [1, {"b": [2]}]}
    Table(data, Notes())["a"][1]["b"].append(3)
    assert data == {"a": [1, {"b": [2]}]}


def test_a_table_is_no_key_of_a_dict() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Table({}, Notes()))


@pytest.mark.parametrize("left", [[], ["first"], "no list", {"first": 1}])
def test_an_item_that_a_list_lost_counts_as_not_there(left: Any) -> None:
    reads: keys.Reads = ((("items", 1), "value"),)
    assert keys.select({"items": left}, reads)[1] == "[[]]"
    assert keys.select({"items": ["first", "x"]}, reads)[1] == '[["x"]]'
    assert keys.select({"items": ["first", "x"]}, ((("items", 0), "value"),))[1] == '[["first"]]'


def test_keys_in_another_order_are_other_keys() -> None:
    one, other = (
        keys.select(data, (((), "keys"),)) for data in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert one != other
