"""The documents are true: links lead somewhere, commands are run, screens are compared."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from executed import ROOT
from markdown_it import MarkdownIt
from markdown_it.token import Token

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/*.md", "examples/*/*.md")
    for path in ROOT.glob(pattern)
    if not {"_build", ".codegen"} & set(path.parts)
)


# Links ----------------------------------------------------------------------------------


@functools.cache
def tokens(path: Path) -> list[Token]:
    """Return a page as a code host reads it."""
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def links(path: Path) -> Iterator[str]:
    """Yield where the links and pictures of a page lead."""
    for token in tokens(path):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target is not None:
                yield str(target)


@functools.cache
def anchors(path: Path) -> set[str]:
    """Return the anchors that a code host gives to the headings of a page."""
    found: set[str] = set()
    for opening, inline in zip(tokens(path), tokens(path)[1:], strict=False):
        if opening.type == "heading_open":
            shown = "".join(child.content for child in inline.children or ())
            name = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
            numbered = (f"{name}-{number}" for number in range(1, 100))
            found.add(name if name not in found else next(n for n in numbered if n not in found))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_are_there(page: str) -> None:
    dead = []
    for link in links(ROOT / page):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_is_reached_from_the_index() -> None:
    seen: set[Path] = set()
    to_see = {ROOT / "docs/index.md"}
    while to_see:
        seen |= to_see
        named = {
            Path(page.parent, link.partition("#")[0]) for page in to_see for link in links(page)
        }
        to_see = {page.resolve() for page in named if page.suffix == ".md" and page.exists()} - seen
    assert [page for page in PAGES if page.startswith("docs/") and ROOT / page not in seen] == []
