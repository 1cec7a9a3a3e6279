"""Digests of functions: what counts as a change of a filter, and what does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codegen_tasks.functions import Sources

DODO = '''
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import pathlib
import re
import typing

import helpers
from helpers import (
    TABLE, Fmt, Kind, Pair, SHAPES, cached, deco, following, instance, opened, shared,
)

LIMIT = 3
NAMES = {"a", "b", "c"}
FROZEN = frozenset({"x", "y", ("z", 1)})
RAW = b"raw"
HERE = pathlib.PurePosixPath("some/path")
MONEY = decimal.Decimal("1.5")
WORD = re.compile("word", re.I)
KNOWN = {"k": [1, (2, 3)]}
TYPES = {int: "integer", str: "string"}


def inner(x):
    """Say what inner does."""
    return x + 1


def f(x):
    return inner(x) * 2 + shared(x)


def constant(x): return x + LIMIT
def of_set(x): return x in NAMES
def of_frozenset(x): return x in FROZEN
def of_bytes(x): return RAW
def of_path(x): return HERE / x
def of_decimal(x): return MONEY
def of_pattern(x): return WORD.sub("", x)
def of_dict(x): return KNOWN[x]
def of_types(x): return TYPES[type(x)]
def of_table(x): return TABLE[x]
def of_class(x): return Fmt(x).show()
def of_cached(x): return cached(x)
def of_module(x): return helpers.shared(x)
def of_follower(x): return following(x)
def of_enum(x): return Kind.ROUND
def of_pair(x): return Pair(x, x)
def of_member(x): return isinstance(x, Point)
def of_shapes(x): return x in SHAPES
def of_instance(x): return instance(x)
def of_opaque(x): return opened
def lazy(x):
    import late
    return late.LATE
def recursive(x): return mutual(x)
def mutual(x): return recursive(x - 1)
def defaults(x, y=1, *, z=frozenset({"p", "q"})): return x + y
def tried(x):
    try:
        y = int(x)
        z = float(y)
    except ValueError:
        return None
    return z


@deco
def decorated(x):
    return x


class Point(typing.NamedTuple):
    """A point."""

    x: int
    y: int = 0

    def total(self):
        """Say."""
        return inner(self.x)


@dataclasses.dataclass(frozen=True)
class Port:
    name: str
    width: int = 8


class Other:
    def method(self):
        return 1


def of_dataclass(x): return Port(x)


def make(z=5):
    def closed(x):
        return x + z
    return closed


closed = make()
part = functools.partial(inner, 7)
bound = Port("n", 16).__eq__
method = Fmt("m").show
one_of = lambda x: x in {"a", "b", "c"}
member = Kind.ROUND
'''
HELPERS = '''
import enum
import functools
import threading
from dataclasses import dataclass
from deeper import deepest

TABLE = {"a": 1}


def shared(x):
    return deepest(x)


@functools.lru_cache
def cached(x):
    return x


def deco(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x) + 10
    return wrapper


def following(x):
    return Fmt(x)


class Base:
    def show(self):
        return "base"


class Fmt(Base):
    """Format."""

    sign = "+"

    def __init__(self, x):
        self.x = x

    @property
    def shown(self):
        return self.sign


class Kind(enum.Enum):
    ROUND = "round"
    SQUARE = "square"


SHAPES = frozenset(Kind)


@dataclass
class Pair:
    a: int
    b: int = 2


class Call:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by


instance = Call(3)
opened = threading.Lock()
'''
FILES = {
    "dodo.py": DODO,
    "helpers.py": HELPERS,
    "deeper.py": "UNUSED = 1\ndef deepest(x): return x\n",
    "late.py": "import later\nLATE = 1\n",
    "later.py": "LATER = 1\n",
    "broken.py": "this is not Python\n",
}
#: Followed no further than to the module that defines it, so these change with anything in it.
OPAQUE = {"of_opaque"}
#: What hangs on helpers.py as a whole.
HELPED = {"of_module"} | OPAQUE
#: What hangs on the class `Fmt`.
FORMATS = {"of_class", "of_follower", "method"}

SCRIPT = """
import dodo
from codegen_tasks.functions import Sources
s = Sources()
others = {"inner", "mutual", "make", *vars(dodo.helpers)}
modules = {n for n, v in vars(dodo).items() if type(v) is type(dodo)}
names = [n for n in vars(dodo) if n[0].islower() and n not in others | modules]
print({n: s.of(getattr(dodo, n)) for n in names})
"""


def digests(folder: Path, files: dict[str, str], **environ: str) -> dict[str, str]:
    """Return the digest of each of a module's functions, worked out in a process of its own."""
    for name, text in files.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-B", "-c", SCRIPT],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(tmp_path_factory.mktemp("base"), FILES)


def changed(folder: Path, base: dict[str, str], file: str, old: str, new: str) -> set[str]:
    assert old in FILES[file]
    after = digests(folder, {**FILES, file: FILES[file].replace(old, new, 1)})
    return {name for name in base if base[name] != after[name]}


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_digests_are_the_same_in_every_process(
    tmp_path: Path, base: dict[str, str], seed: str
) -> None:
    assert digests(tmp_path, FILES, PYTHONHASHSEED=seed) == base


def test_comments_blank_lines_formatting_and_docstrings_do_not_count(
    tmp_path: Path, base: dict[str, str]
) -> None:
    noisy = {name: f"# hello\n{'#' * 80}\n" * 150 + text for name, text in FILES.items()}
    noisy["dodo.py"] = (
        noisy["dodo.py"]
        .replace("x + 1", "( x   +   1 )  # one more")
        .replace('"""Say what inner does."""', '"""Say so."""')
        .replace('        """Say."""\n', "")
        .replace('    """A point."""\n', "")
        .replace("def make(z=5):\n", 'def make(z=5):\n    """Make it."""\n')
        .replace("class Other:\n", 'class Other:\n    """Another."""\n\n')
    )
    noisy["helpers.py"] = '"""Help."""\n' + noisy["helpers.py"].replace('    """Format."""\n', "")
    assert digests(tmp_path, noisy) == base


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return inner(x) * 2", "return inner(x) * 3", {"f"}),
        ("return x + 1", "return x + 2", {"f", "part", "of_member"}),
        ("LIMIT = 3", "LIMIT = 4", {"constant"}),
        ("LIMIT = 3", "LIMIT = 3.0", {"constant"}),
        ('NAMES = {"a", "b"', 'NAMES = {"a", "d"', {"of_set"}),
        ('FROZEN = frozenset({"x"', 'FROZEN = frozenset({"w"', {"of_frozenset"}),
        ('b"raw"', 'b"war"', {"of_bytes"}),
        ("some/path", "other/path", {"of_path"}),
        ("PurePosixPath", "PureWindowsPath", {"of_path"}),
        ('"1.5"', '"1.50"', {"of_decimal"}),
        ('compile("word"', 'compile("words"', {"of_pattern"}),
        ("re.I", "re.M", {"of_pattern"}),
        ("(2, 3)", "(2, 4)", {"of_dict"}),
        ("(2, 3)", "[2, 3]", {"of_dict"}),
        ("str: ", "bytes: ", {"of_types"}),
        ("y=1", "y=2", {"defaults"}),
        ('frozenset({"p"', 'frozenset({"r"', {"defaults"}),
        ("z=5", "z=6", {"closed"}),
        ("partial(inner, 7)", "partial(inner, 8)", {"part"}),
        ('Port("n", 16)', 'Port("n", 17)', {"bound"}),
        ('Fmt("m")', 'Fmt("o")', {"method"}),
        ("width: int = 8", "width: int = 9", {"of_dataclass", "bound"}),
        ("frozen=True", "frozen=False", {"of_dataclass", "bound"}),
        ("y: int = 0", "y: int = 1", {"of_member"}),
        ("x: int\n    y", "w: int\n    y", {"of_member"}),
        ("mutual(x):", "mutual(x, y=None):", {"recursive"}),
        ("recursive(x - 1)", "recursive(x - 2)", {"recursive"}),
        ("member = Kind.ROUND", "member = Kind.SQUARE", {"member"}),
        (
            "        z = float(y)\n    except ValueError:\n        return None\n",
            "    except ValueError:\n        return None\n    z = float(y)\n",
            {"tried"},
        ),
        ('one_of = lambda x: x in {"a", "b", "c"}', 'one_of = lambda x: x in {"a"}', {"one_of"}),
        ("        return 1\n", "        return 2\n", set()),
        ("LIMIT = 3", "LIMIT = 3\ndef unrelated(): return 1", set()),
        ("import json\n", "", set()),
    ],
)
def test_a_change_counts_for_what_it_can_reach(
    tmp_path: Path, base: dict[str, str], old: str, new: str, expected: set[str]
) -> None:
    assert changed(tmp_path, base, "dodo.py", old, new) == expected | OPAQUE


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return deepest(x)", "return -deepest(x)", {"f"}),
        ('TABLE = {"a": 1}', 'TABLE = {"a": 2}', {"of_table"}),
        ("def cached(x):\n    return x", "def cached(x):\n    return -x", {"of_cached"}),
        ("+ 10", "+ 11", {"decorated"}),
        ('"base"', '"basis"', FORMATS),
        ('sign = "+"', 'sign = "-"', FORMATS),
        ("return self.sign", "return self.x", FORMATS),
        ("return Fmt(x)", "return Fmt(-x)", {"of_follower"}),
        ('SQUARE = "square"', 'SQUARE = "4"', {"of_enum", "of_shapes", "member"}),
        ("frozenset(Kind)", "frozenset({Kind.ROUND})", {"of_shapes"}),
        ("b: int = 2", "b: int = 3", {"of_pair"}),
        ("Call(3)", "Call(4)", {"of_instance"}),
        ("x * self.by", "x + self.by", {"of_instance"}),
        ("opened =", "unused = 1\nopened =", set()),
    ],
)
def test_what_another_module_of_the_project_defines_counts(
    tmp_path: Path, base: dict[str, str], old: str, new: str, expected: set[str]
) -> None:
    assert changed(tmp_path, base, "helpers.py", old, new) == expected | HELPED


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("deeper.py", "return x", "return -x", {"f"} | HELPED),
        ("deeper.py", "UNUSED = 1", "UNUSED = 2", HELPED),
        ("late.py", "LATE = 1", "LATE = 2", {"lazy"} | OPAQUE),
        ("later.py", "LATER = 1", "LATER = 2", {"lazy"} | OPAQUE),
        ("broken.py", "not", "no", set()),
    ],
)
def test_modules_count_with_what_they_import(
    tmp_path: Path, base: dict[str, str], file: str, old: str, new: str, expected: set[str]
) -> None:
    assert changed(tmp_path, base, file, old, new) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        (1, True),
        (1, 1.0),
        ("a", b"a"),
        (b"a", bytearray(b"a")),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2}, frozenset({1, 2})),
        (len, abs),
        ("a".join, "b".join),
        (int, str),
        ([len], (len,)),
        ({"a": len, "b": abs}, {"a": abs, "b": len}),
        (range(3), range(4)),
    ],
)
def test_values_that_render_differently_differ(one: object, other: object) -> None:
    assert Sources().of(one) != Sources().of(other)


def test_a_date_is_not_the_table_that_looks_like_it() -> None:
    from datetime import date

    day = date(2024, 1, 2)
    assert Sources().of(day) != Sources().of({"date": "2024-01-02"})
    assert Sources().of(day) == Sources().of(date(2024, 1, 2)) != Sources().of(date(2024, 1, 3))


def test_values_that_hold_themselves_have_a_digest() -> None:
    def ring() -> list[object]:
        found: list[object] = [len]
        found.append(found)
        return found

    assert Sources().of(ring()) == Sources().of(ring())


def test_a_long_chain_of_objects_has_a_digest() -> None:
    chain: tuple[object, ...] = (len,)
    for _ in range(5000):
        chain = (chain,)
    assert Sources().of(chain) != Sources().of((chain,))


def test_an_extension_given_by_name_counts_with_its_module(tmp_path: Path) -> None:
    def shape(word: str) -> str:
        (tmp_path / "myext.py").write_text(
            "from jinja2.ext import Extension\n\n\nclass Stamp(Extension):\n"
            f"    def preprocess(self, source, name, filename=None):\n        return {word!r}\n"
        )
        script = (
            "import sys\nfrom codegen_tasks import Codegen\n"
            "from codegen_tasks.functions import Sources\n"
            "codegen = Codegen(environment={'extensions': ['jinja2.ext.do', 'myext.Stamp']})\n"
            "print(codegen.project.environment_digest(Sources()))\n"
            "assert 'jinja2' not in sys.modules\n"
        )
        (tmp_path / "dodo.py").write_text(script)
        done = subprocess.run(
            [sys.executable, "-B", "dodo.py"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert shape("one") == shape("one") != shape("two")
