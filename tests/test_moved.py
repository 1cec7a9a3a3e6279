"""What a formatter has moved is told by where it came from, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from conftest import share
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen_tasks.maps import Origin
from codegen_tasks.moved import matched, moved

#: A token of a text, and what a formatter wrote instead; None for what it has added.
Token = tuple[str, int | None]

WORDS = st.sampled_from(["a", "b", "if", "x1", "12", "ä", "𐐀x"])
SIGNS = st.sampled_from(list("()[]{},;='\"+-"))
TEXTS = st.lists(st.one_of(WORDS, SIGNS), max_size=60)


def spaced(tokens: Sequence[str], draw: Callable[[Sequence[str]], str]) -> Iterator[str]:
    """Yield tokens with white space between, where there must be some or may be."""
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else ""
        needs = re.fullmatch(r"\w+", before) and re.fullmatch(r"\w+", token)
        yield draw([" ", "\n", "\n  ", "\r\n\t"] if needs else ["", "", " ", "\n", "\r\n    "])
        yield token


def formatted(tokens: Sequence[str], draw: Callable[[Sequence[str]], str]) -> list[Token]:
    """Return tokens as a formatter may leave them, each with the number that it had."""
    made: list[Token] = []
    for number, token in enumerate(tokens):
        what = draw(["keep", "keep", "keep", "keep", "change", "drop", "add"])
        if what == "drop" and token in "();":
            continue
        if what == "add":
            made.append((draw([",", "{", "}"]), None))
        changed = {"'": '"', '"': "'", "12": "12e0"} if what == "change" else {}
        made.append((changed.get(token, token), number))
    return made


@settings(max_examples=share(200))
@given(TEXTS, st.data())
def test_a_token_that_is_told_at_all_is_told_by_its_own_place(
    tokens: list[str], data: st.DataObject
) -> None:
    def draw(choices: Sequence[str]) -> str:
        return data.draw(st.sampled_from(choices))

    before = list(spaced(tokens, draw))
    pieces = [
        (text, Origin("t", number // 2 + 1) if number % 2 else None)
        for number, text in enumerate(before)
    ]
    result = formatted(tokens, draw)
    after = list(spaced([token for token, _ in result], draw))
    made = moved(pieces, "".join(after))
    assert "".join(text for text, _ in made) == "".join(after)
    told = [origin for text, origin in made for _ in text]
    at = 0
    for number, text in enumerate(after):
        origins = {one.line - 1 for one in told[at : at + len(text)] if one is not None}
        at += len(text)
        if number % 2:
            assert origins <= {result[number // 2][1]}, (tokens, result, number)
        else:
            assert not origins or not text


@given(TEXTS, st.data())
def test_all_is_told_where_only_white_space_and_quotes_differ(
    tokens: list[str], data: st.DataObject
) -> None:
    def draw(choices: Sequence[str]) -> str:
        return data.draw(st.sampled_from(choices))

    pieces = [(text, Origin("t", n)) for n, text in enumerate(spaced(tokens, draw), 1)]
    quoted = [token.replace('"', "'") for token in tokens]
    after = "".join(spaced(quoted, draw))
    told = [origin for text, origin in moved(pieces, after) for _ in text]
    words = [match.start() for match in re.finditer(r"\w+", after)]
    assert None not in [told[at] for at in words]


@pytest.mark.parametrize(
    ("old", "new", "pairs"),
    [
        ("a b c", "a b c", "aa bb cc"),
        ("a X c", "a Y c", "aa XY cc"),
        (") ;", ", ) ;", ")) ;;"),
        (") )", ") ) )", ""),
        ("k b k a", "k a k b", "aa"),
        ("b a", "a b", "aa"),
        ("a a b b", "a b", ""),
        ("x a b a b y", "x b a b a y", "xx yy"),
        ("", "a", ""),
    ],
)
def test_what_could_be_one_of_several_is_none(old: str, new: str, pairs: str) -> None:
    found = matched(old.split(), new.split())
    assert " ".join(old.split()[i] + new.split()[j] for i, j in found) == pairs


def test_a_table_without_a_word_that_it_has_once_is_matched_around_what_was_changed() -> None:
    rows = [str(pow(3, n, 30011) % 97) for n in range(3000)]
    changed = [f"new{n}" if n % 500 == 250 else word for n, word in enumerate(rows)]
    found = matched(rows, changed)
    assert all(i == j for i, j in found)
    assert len(found) >= len(rows) - 6
    del changed[1000]
    assert all(i == j + (i > 1000) for i, j in matched(rows, changed))


def test_imports_that_were_sorted_are_not_mixed_up() -> None:
    lines = ["import { b } from 'q';\n", "import { a } from 'p';\n", "a(b);\n"]
    pieces = [(text, Origin("t", number)) for number, text in enumerate(lines, 1)]
    told = moved(pieces, 'import { a } from "p";\nimport { b } from "q";\na(b);\n')
    lines_of = {
        word: origin.line
        for text, origin in told
        for word in re.findall(r"\w+", text)
        if origin is not None
    }
    assert lines_of in ({"a": 3, "from": 2, "p": 2, "b": 3}, {"b": 3, "q": 1, "a": 3})
