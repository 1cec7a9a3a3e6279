"""A store that somebody else has filled on purpose: whole entries, with right seals, that lie.

Whoever can write to a store without a key decides what outputs say; nothing else of a machine
may hang on it: no file outside of the project, no build, no time without end.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import Web
from test_output_cache import ALL, Cached
from test_remote_cache import WRITES, clone, url, web

from codegen_tasks import actions, digest
from codegen_tasks.remote import parcels

__all__ = ["clone", "url", "web"]  # fixtures

#: What is told under one key, as data.
Told = dict[str, Any]
Forge = Callable[[Told], None]

DODO_OF_C = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("unit", template="unit.c.j2", patterns="patterns/*.toml", target="{stem}.c",
             compile="cc")
DOIT_CONFIG = codegen.doit_config
"""


def forge(store: Path, change: Forge, kind: str) -> int:
    """Change what a store tells, seals and all; return how many entries that were.

    Args:
        store: its folder.
        change: is given the data of an entry, to be changed.
        kind: of the entries: "sets" or "outputs".
    """
    forged = 0
    for path in sorted((store / "ac").iterdir()):
        parcel = parcels.opened(path.name, path.read_bytes())
        told = json.loads(parcel.text.partition(b"\n")[2])
        if kind not in told:
            continue
        change(told)
        text = json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")
        sealed = digest.of_bytes(text).encode() + b"\n" + text
        contents = {
            content: zlib.decompress((store / "cas" / blob.name).read_bytes())
            for content, blob in parcel.blobs.items()
        }
        message, _ = parcels.packed(path.name, sealed, contents)
        path.write_bytes(message)
        forged += 1
    return forged


def rest(name: str, value: Any) -> Forge:
    return lambda told: told.update({name: value})


def of_inputs(place: int, value: Any) -> Forge:
    def change(told: Told) -> None:
        for row in told["inputs"]:
            while len(row) <= place:
                row.append("" if len(row) in (4, 6) else None if len(row) == 3 else [])
            row[place] = value

    return change


def of_outputs(change: Callable[[list[Any]], object]) -> Forge:
    def forged(told: Told) -> None:
        for one in told["outputs"]:
            change(one)

    return forged


def _also_elsewhere(told: Told) -> None:
    told["outputs"].append(["../victim", digest.of_bytes(b"x"), 1, "x"])


def _elsewhere(told: Told) -> None:
    told["outputs"] = [["../victim", *one[1:]] for one in told["outputs"]]


#: Lies of results, and whether what they tell of outputs can be used all the same.
RESULTS: dict[str, tuple[Forge, bool]] = {
    "a negative size": (of_outputs(lambda one: one.__setitem__(2, -5)), False),
    "a huge size": (of_outputs(lambda one: one.__setitem__(2, 10**30)), False),
    "another file as well": (_also_elsewhere, False),
    "another file": (_elsewhere, False),
    "no outputs": (rest("outputs", []), False),
    "an age to make": (rest("seconds", 1e300), False),
    "a day to make": (rest("seconds", 86_400), True),
    "shown that is no JSON": (of_inputs(4, "{["), True),
    "shown that is no text": (of_inputs(4, "\ud800\0"), True),
    "shown that is a number": (of_inputs(4, "5"), True),
    "shown that is a list": (of_inputs(4, "[5]"), True),
    "shown that is a text": (of_inputs(4, '"x"'), True),
    "shown that is deep": (of_inputs(4, "[" * 9_000 + "]" * 9_000), True),
    "shown that is long": (of_inputs(4, "x" * 1_000_000), True),
    "via nowhere": (of_inputs(6, "\ud800/../../x"), True),
    "references to nowhere": (rest("references", ["\ud800", "a\0b", "/etc/passwd", ".."]), True),
    "references to all": (rest("references", ["generated/birch.txt", "generated/ash.txt"]), True),
    "many references": (rest("references", [f"x{n}" for n in range(100_000)]), True),
    "printed for a terminal": (rest("printed", "\x1b]0;owned\x07\x1b[2J\r\n\0"), True),
}


#: Those that are told in the fast tests, too.
_FAST = [("a negative size", 100_000), ("shown that is no JSON", 1)]


@pytest.mark.parametrize(
    ("lie", "size"),
    [
        pytest.param(lie, size, marks=[] if (lie, size) in _FAST else [pytest.mark.slow])
        for lie in RESULTS
        for size in (1, 100_000)
    ],
)
@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_what_a_result_lies_about_fails_no_build(
    clone: Callable[..., Cached], url: str, lie: str, size: int
) -> None:
    first, second = clone("first", size), clone("second", size)
    first.built(**WRITES)
    first.ran()
    change, of_use = RESULTS[lie]
    assert forge(Path(url.removeprefix("file://")), change, "outputs") == 4
    assert second.built().err == ""
    assert second.files() == first.files()
    assert not (second.path / "../victim").exists()
    assert second.ran() == ([] if of_use else ALL)
    assert "4 up to date" in second.built().out
    for command in (("info",), ("info", "--json"), ("info", "generated/ash.out")):
        info = second.doit(*command)
        assert (info.code, info.err) == (0, ""), info
    second.write("patterns/ash.toml", 'text = "three"\n')
    second.write("stamp.inc", "another\n")
    second.write("dodo.py", second.read("dodo.py").replace("mode=0o755", "mode=0o744"))
    assert (second.doit("info").code, second.doit("info", "--json").code) == (1, 1)
    for name in (("status",), ("verify",), ("why", "generated/ash.out")):
        told = second.codegen("cache", *name)
        assert (told.code, told.err) == (0, ""), told
    assert "2 generated, 2 compiled" in second.built("-v", "2").out


# Read sets ------------------------------------------------------------------------------


def with_more(*rows: list[Any]) -> Forge:
    """Return what adds to each read set one like it with more in it."""

    def change(told: Told) -> None:
        told["sets"] = [[*one, *rows] for one in told["sets"]] + told["sets"]

    return change


#: What a read set may name, {secret} being a file outside of the project.
SECRETS: dict[str, list[Any]] = {
    "by its path": ["file", "{secret}", []],
    "relative": ["file", "../secret.toml", []],
    "through a folder": ["file", "generated/../../secret.toml", []],
    "as an import": ["import", "{secret}", []],
    "as a source": ["source", "{secret}", []],
    "as a template": ["template", "{secret}", []],
    "as a template that is missing": ["missing template", "../../secret.toml", []],
    "a part of it": ["toml", "{secret}", [[["password"], "value"]]],
    "as a pattern": ["pattern", "../secret.toml", [[["password"], "value"]]],
    "through a link": ["file", "link/secret.toml", []],
    "a hidden one": ["file", ".env", []],
    "in a hidden folder": ["file", ".git/config", []],
    "of the user": ["import", "{home}/.ssh/id_rsa", []],
}


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(secret, marks=[] if secret == "by its path" else [pytest.mark.slow])
        for secret in SECRETS
    ],
)
def test_a_read_set_of_somebody_else_does_not_have_us_tell_what_is_in_a_file_of_the_user(
    clone: Callable[..., Cached], web: Web, tmp_path: Path, url: str, secret: str
) -> None:
    first = clone("first")
    first.built(**WRITES)
    home = tmp_path / "home"
    kind, name, reads = SECRETS[secret]
    name = name.format(secret=tmp_path / "secret.toml", home=home)
    store = web.folder / url.rpartition("/")[2]
    assert forge(store, with_more([kind, name, reads]), "sets") > 0
    asked = []
    for said in ("one", "other"):
        clone_of = clone(f"reader-{said}")
        for path in (
            tmp_path / "secret.toml",
            clone_of.path / ".env",
            clone_of.path / ".git/config",
            home / ".ssh/id_rsa",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"password = '{said}'\n")
        (clone_of.path / "link").symlink_to("..")
        before = len(web.asked())
        clone_of.built(HOME=str(home))
        asked.append(sorted(web.asked()[before:]))
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    "reads",
    [
        [[[["nested"]], "value"]],
        [[[{"a": 1}], "value"]],
        [[["a"], "value "]],
        [[["a"], [[[]]]]],
        [[["a"], None]],
        [["a"]],
        ["a"],
        5,
        {"a": "value"},
    ],
    ids=str,
)
def test_a_read_set_that_nobody_can_have_read_is_none(reads: Any) -> None:
    def sealed(keys: Any) -> bytes:
        told = {"version": actions.FORMAT, "sets": [[["pattern", "a.toml", keys]]]}
        text = json.dumps(told).encode()
        return digest.of_bytes(text).encode() + b"\n" + text

    assert len(actions.sets_in(sealed([[["a", 1, None, True, 0.5], "value"]]))) == 1
    assert actions.sets_in(sealed(reads)) == []


def test_the_headers_of_the_system_are_looked_at_for_anybody(
    clone: Callable[..., Cached], url: str
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    for name in ("first", "second"):
        project = clone(name)
        project.write("dodo.py", DODO_OF_C)
        project.write("templates/unit.c.j2", "#include <stdint.h>\nuint8_t {{ pattern.stem }};\n")
        result = project.built(**WRITES)
    assert "2 generated, 2 compiled, 4 of them restored" in result.out


def test_folders_that_are_declared_may_be_hidden(
    clone: Callable[..., Cached], web: Web, url: str
) -> None:
    for name in ("first", "second"):
        project = clone(name)
        declared = project.read("dodo.py").replace("Codegen(", 'Codegen(".templates", ".made", ')
        project.write("dodo.py", declared)
        project.write(".templates/page.j2", "{% include 'part.j2' %}\n")
        project.write(".templates/part.j2", "{{ text }}\n")
        result = project.built(**WRITES)
    assert "4 of them restored" in result.out


def test_a_read_set_of_very_many_files_costs_a_bounded_time(
    clone: Callable[..., Cached], web: Web, url: str
) -> None:
    first, second = clone("first"), clone("second")
    for project in (first, second):
        for number in range(18):
            project.write(f"patterns/p{number}.toml", 'text = "many"\n')
    first.built("generate", **WRITES)
    many = [["file", f"x{number}", []] for number in range(60_000)]
    store = web.folder / url.rpartition("/")[2]

    def change(told: Told) -> None:
        told["sets"] = [[*one, *many, ["file", f"y{n}", []]] for one in told["sets"] for n in "abc"]

    assert forge(store, change, "sets") > 0
    result = second.built("generate", CODEGEN_REMOTE_CACHE_SECONDS="1")
    # On a busy machine, answers so long may also come too late one by one.
    told = "(is too slow to be of use|does not answer in time), so it was left alone"
    assert re.fullmatch(f"remote cache {url}: {told}\n", result.err), result.err
    assert second.files("generated/manifest.json") == first.files("generated/manifest.json")
