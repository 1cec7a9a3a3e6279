"""Digests of functions: what counts as a change of a filter, and what does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BASE = """
import json
from helpers import shared

LIMIT = 3


def inner(x):
    return x + 1


def f(x):
    return inner(x) * 2 + shared(x)


def with_constant(x):
    return x + LIMIT


def with_default(x, y=1):
    return x + y


def make():
    z = 5

    def closed(x):
        return x + z

    return closed


closed = make()


class C:
    def __call__(self, x):
        return x


instance = C()
one_of = lambda x: x in {"a", "b", "c"}
"""


def digests(folder: Path, source: str, helpers: str = "def shared(x):\n    return x\n") -> dict:
    """Return the digest of each of a module's functions, worked out in a process of its own."""
    (folder / "dodo.py").write_text(source)
    (folder / "helpers.py").write_text(helpers)
    script = (
        "import dodo\nfrom codegen_tasks.functions import Sources\ns = Sources()\n"
        "names = ['f', 'with_constant', 'with_default', 'closed', 'instance', 'one_of']\n"
        "print({n: s.of(getattr(dodo, n)) for n in names})"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return eval(done.stdout)


def changed(folder: Path, old: str, new: str) -> set[str]:
    assert old in BASE
    before, after = digests(folder, BASE), digests(folder, BASE.replace(old, new))
    return {name for name in before if before[name] != after[name]}


def test_digests_are_the_same_in_every_process(tmp_path: Path) -> None:
    assert digests(tmp_path, BASE) == digests(tmp_path, BASE)


def test_comments_blank_lines_and_formatting_do_not_count(tmp_path: Path) -> None:
    noisy = "# hello\n\n\n" + BASE.replace("x + 1", "( x   +   1 )  # one more")
    assert digests(tmp_path, noisy) == digests(tmp_path, BASE)


# What cannot be followed counts with its whole module, so these change with anything in it.
WHOLE = {"with_constant", "with_default", "closed", "instance"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return inner(x) * 2", "return inner(x) * 3", {"f"} | WHOLE),
        ("return x + 1", "return x + 2", {"f"} | WHOLE),
        ("LIMIT = 3", "LIMIT = 4", WHOLE),
        ("y=1", "y=2", WHOLE),
        ("z = 5", "z = 6", WHOLE),
        ("        return x\n", "        return -x\n", WHOLE),
        ('{"a", "b", "c"}', '{"a", "b"}', {"one_of"} | WHOLE),
    ],
)
def test_a_change_counts_for_what_it_can_reach(
    tmp_path: Path, old: str, new: str, expected: set[str]
) -> None:
    assert changed(tmp_path, old, new) == expected


def test_a_function_of_another_module_of_the_project_counts(tmp_path: Path) -> None:
    before = digests(tmp_path, BASE)
    after = digests(tmp_path, BASE, "def shared(x):\n    return -x\n")
    assert {name for name in before if before[name] != after[name]} == {"f"}
