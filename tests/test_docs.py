"""The documents are true: links lead somewhere, commands are run, screens are compared."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import Project
from example_project import copy_into
from executed import ROOT, Shell, blocks, play
from markdown_it import MarkdownIt
from markdown_it.token import Token
from stores import nginx

from codegen_tasks.address import parsed
from codegen_tasks.remote.transfers import Transfers

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/*.md", "examples/*/*.md")
    for path in ROOT.glob(pattern)
    if not {"_build", ".codegen"} & set(path.parts)
)
TUTORIAL = "docs/tutorial.md"
#: Programs that a page calls, and that a machine may lack.
NEEDS = {"docs/how-to/toolchain.md": ["cc"], "docs/how-to/from-make.md": ["make"]}


def content(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def has_screens(page: str) -> bool:
    return any(block.content.startswith("$ ") for block in blocks(content(page), "console"))


#: Every page of the documents that shows a screen, but for the tutorial.
PLAYED = [
    page for page in PAGES if page.startswith("docs/") and has_screens(page) and page != TUTORIAL
]
#: What else is held against its language, not only shown.
PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    # A signature may show what has no default as `target=`.
    "python": lambda text: compile(text.replace("=,", "=...,"), "page", "exec"),
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}


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


@pytest.mark.one_python
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


@pytest.mark.one_python
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


# Commands -------------------------------------------------------------------------------


def played(project: Project, page: str) -> None:
    """Play a page; where `REWRITE` is in the environment, write down what its screens show."""
    text = content(page)
    shown = play(project, text)
    if shown != text:
        (ROOT / page).write_text(shown, encoding="utf-8")


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(empty_project: Project) -> None:
    played(empty_project, TUTORIAL)
    for picture in ("traffic-light.svg", "party.svg"):
        shown = ROOT / "docs/pictures" / picture
        made = empty_project.read(f"lights/generated/{picture}")
        if "REWRITE" in os.environ:
            shown.write_text(made, encoding="utf-8")
        assert shown.read_text(encoding="utf-8") == made


@pytest.mark.slow
@pytest.mark.parametrize("page", PLAYED)
def test_a_page_does_what_it_says(empty_project: Project, page: str) -> None:
    for program in NEEDS.get(page, ()):
        if shutil.which(program) is None:
            pytest.skip(f"{program}: not on this machine")
    played(empty_project, page)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kubernetes", "registers"])
def test_an_example_does_what_its_page_says(
    empty_project: Project, state_home: Path, name: str
) -> None:
    if name == "registers" and shutil.which("cc") is None:
        pytest.skip("cc: not on this machine")
    copy_into(Project(empty_project.path / "examples" / name, state_home), name)
    played(empty_project, f"examples/{name}/README.md")


@pytest.mark.slow
def test_what_the_jobs_for_ci_run_ends_well(empty_project: Project) -> None:
    text = content("docs/how-to/ci.md")
    shell = Shell(empty_project)
    shell.run("python -m codegen_tasks new . && doit")
    ran = [command for block in blocks(text, "yaml") for command in commands(block.content)]
    assert len(ran) == 8
    for command in ran:
        if not command.startswith("pip install"):
            done = shell.run(command)
            assert done.code == 0, f"{command}\n{done.out}"


def test_the_lines_for_nginx_have_all_read_and_one_user_write(tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    (block,) = blocks(content("docs/how-to/remote-cache.md"), "nginx")
    server = block.content.replace("{", "{{").replace("}", "}}")
    for shown, here in (
        ("listen 8080;", "listen 127.0.0.1:{port};"),
        ("/srv/codegen-cache", "{folder}/dav"),
        ("/etc/nginx/codegen.htpasswd", f"{tmp_path}/users"),
    ):
        assert server.count(shown) == 1
        server = server.replace(shown, here)
    (tmp_path / "users").write_text("ci:{PLAIN}word\n")
    with nginx(tmp_path / "nginx", server=server) as web:
        url = f"{web.url}/codegen"
        writer = Transfers(parsed("url", url.replace("//", "//ci:word@")), 5, writes=True)
        reader = Transfers(parsed("url", url), 5)
        assert writer.put("cas/1", b"one")
        assert reader.get([("cas/1", 3)]) == [b"one"]
        assert not reader.put("cas/2", b"two")
        assert reader.traffic.slip == "answers with status 401"


def commands(job: str) -> Iterator[str]:
    """Yield the commands of a workflow of GitHub, or of a job of GitLab."""
    told = yaml.safe_load(job)
    for each in told.get("jobs", told).values():
        yield from each.get("script", ()) if isinstance(each, dict) else ()
        yield from (step["run"] for step in each.get("steps", ()) if "run" in step)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_shown_in_a_language_is_written_in_it(page: str) -> None:
    for block in blocks(content(page), *PARSERS):
        PARSERS[block.language](block.content)


@pytest.mark.one_python
@pytest.mark.parametrize("page", PAGES)
def test_no_block_of_a_page_is_empty(page: str) -> None:
    assert all(block.content.strip() for block in blocks(content(page)))


@pytest.mark.one_python
def test_the_reference_names_every_extra_but_those_for_developers() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (ROOT / "docs/reference.md").read_text("utf-8").partition("\n## Extras\n")[2]
    named = re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], re.MULTILINE)
    assert named == sorted({*declared["optional-dependencies"]} - {"test", "dev"})
