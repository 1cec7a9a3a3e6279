"""What a message points at in a template: the right word, or none."""

from __future__ import annotations

import pytest

from codegen_tasks.blame import marked


@pytest.mark.parametrize(
    ("source", "what", "under"),
    [
        ("{{ x.nam ~ 'nam' ~ f(nam=1) ~ nam }}", "'nam' is undefined", (30, 33)),
        ("nam: {# nam #} {{ nam }} nam", "'nam' is undefined", (18, 21)),
        ("{% if nam == nam %}", "'nam' is undefined", (6, 9)),
        ("{{ a['kye'] }}", "the table has no key 'kye'", (6, 9)),
        ("{{ a.kye ~ b.kye }}", "the table has no key 'kye'", None),
        ("{{ kye }}", "the table has no key 'kye'", None),
        ("{{ x|upr|upr }}", "no filter named 'upr'", (5, 8)),
        ("{% filter upr %}", "no filter named 'upr'", (10, 13)),
        ("{{ x is not od }}", "no test named 'od'", (12, 14)),
        ("{% include ['a', 'b'] %}", "there is no template 'a' or 'b'", (13, 14)),
        ("{% from 'm' import titel %}", "template 'm' defines no 'titel' (imported on)", (19, 24)),
        ("{%+ fro %}", "encountered unknown tag 'fro'", (4, 7)),
        ("{{ a ? }}", "unexpected char '?' at 5", None),
        ("{{ a + -}}", "unexpected 'end of print statement'", (7, 10)),
        ("<% nam %>", "'nam' is undefined", (3, 6)),
        ("{{ f(x) }}", "TypeError in f (dodo.py:3): no", (3, 4)),
        ("{{ a }}", "something else", None),
    ],
)
def test_the_word_is_marked_if_it_is_sure(
    source: str, what: str, under: tuple[int, int] | None
) -> None:
    shown = [f"1 | {source}"]
    if under is not None:
        shown.append(f"  | {' ' * under[0]}{'^' * (under[1] - under[0])}")
    assert marked([source], 1, what) == shown


def test_a_long_line_is_shown_around_the_mark() -> None:
    line, mark = marked(["a" * 500 + "{{ nam }}" + "b" * 500], 1, "'nam' is undefined")
    assert len(line) < 130
    start = mark.index("^")
    assert (line[start : start + 3], mark[start:]) == ("nam", "^^^")
    (plain,) = marked(["a" * 500], 1, "something else")
    assert plain == "1 | " + "a" * 120 + "…"


def test_a_tab_before_the_mark_stays_one() -> None:
    assert marked(["\t{{ nam }}"], 1, "'nam' is undefined")[1] == "  | \t   ^^^"


def test_the_word_is_not_looked_for_after_the_tag() -> None:
    assert marked(["{{ 1 }}", "{{ nam }}"], 1, "'nam' is undefined") == ["1 | {{ 1 }}"]


def test_a_line_that_there_is_not_is_not_shown() -> None:
    assert marked(["{{ nam }}"], 9, "'nam' is undefined") == []
