"""The output cache: what was made once, in whichever checkout, is not made again; never wrong."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Project, Result

from codegen_tasks import actions, runs
from codegen_tasks.model import Input
from codegen_tasks.model import Result as Made
from codegen_tasks.store import ACTIONS, CONTENTS, Store

DODO = """
from codegen_tasks import Codegen, Toolchain

stamp = Toolchain(
    "stamp", command=["tool/stamp", "{{source}}", "{{target}}", "{{depfile}}"], suffix=".out",
    depfile="{{target}}.d", version=["tool/stamp", "--version"],
)
codegen = Codegen(globals={{"size": {size}}})
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{{stem}}.txt",
             compile=stamp, mode=0o755)


@codegen.function
def render(name):
    with open({log!r}, "a") as log:
        log.write("render " + name + "\\n")
    return name


DOIT_CONFIG = codegen.doit_config
"""
#: Copies its source and a file that it includes, says something, and notes that it has run.
TOOL = """\
#!/bin/sh
[ "$1" = --version ] && { echo stamp 1; exit; }
echo "compile $1" >>"LOG"
echo "warning: $1 is stamped"
{ cat "$1" stamp.inc; } >"$2"
echo "$2: $1 stamp.inc" >"$3"
"""


class Cached(Project):
    """A project with renders and compiles that note when they run, and the output cache on."""

    log: Path

    def keep_in(self, store: Path, log: Path) -> None:
        """Keep everything in a store, and note in a log what runs."""
        self.log = log
        self.environ |= {
            "CODEGEN_OUTPUT_CACHE": "true",
            "CODEGEN_OUTPUT_CACHE_FOLDER": str(store),
            "CODEGEN_OUTPUT_CACHE_MILLISECONDS": "0",
        }

    def fill(self, log: Path, store: Path, size: int = 1) -> None:
        self.keep_in(store, log)
        self.write("dodo.py", DODO.format(log=str(log), size=size))
        self.write("templates/page.j2", "{{ render(pattern.stem) }} {{ text }}\n{{ 'x' * size }}\n")
        self.write("patterns/ash.toml", 'text = "one"\n')
        self.write("patterns/birch.toml", 'text = "two"\n')
        self.write("stamp.inc", "included\n")
        self.write("tool/stamp", TOOL.replace("LOG", str(log))).chmod(0o755)

    def ran(self) -> list[str]:
        """Return the renders and compiles that ran since it was asked last."""
        found = sorted(self.log.read_text().splitlines()) if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return found

    def built(self, *arguments: str, **environ: str) -> Result:
        result = self.doit(*arguments, **environ)
        assert result.code == 0, result
        return result

    def files(self, *ignored: str) -> dict[str, bytes]:  # type: ignore[override]
        return super().files(".codegen", *ignored)


@pytest.fixture
def checkout(tmp_path: Path, state_home: Path) -> Callable[..., Cached]:
    """Return what makes another checkout, in a folder of its own."""

    def make(name: str, size: int = 1) -> Cached:
        folder = tmp_path / name
        folder.mkdir()
        project = Cached(folder, state_home)
        project.fill(tmp_path / "log", tmp_path / "store", size)
        return project

    return make


@pytest.fixture
def cached(checkout: Callable[..., Cached]) -> Cached:
    """Return a project that was built once."""
    project = checkout("first")
    project.built()
    assert len(project.ran()) == 4
    return project


ALL = ["compile generated/ash.txt", "compile generated/birch.txt", "render ash", "render birch"]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "parallel"])
def test_another_checkout_makes_nothing_again(
    cached: Cached, checkout: Callable[..., Cached], workers: tuple[str, ...]
) -> None:
    other = checkout("second")
    result = other.built(*workers)
    assert other.ran() == []
    assert "2 generated, 2 compiled, 4 of them restored in" in result.out
    assert other.files() == cached.files()
    assert other.doit("info").out == "4 targets up to date\n"
    assert other.built().out.startswith("4 up to date")


def test_a_branch_and_back_makes_nothing_again(cached: Cached) -> None:
    before = cached.files()
    cached.write("patterns/ash.toml", 'text = "three"\n')
    cached.write("stamp.inc", "included too\n")
    cached.built()
    assert cached.ran() == [name for name in ALL if name != "render birch"]
    cached.write("patterns/ash.toml", 'text = "one"\n')
    cached.write("stamp.inc", "included\n")
    result = cached.built()
    assert cached.ran() == []
    assert "1 generated, 2 compiled, 3 of them restored, 1 up to date in" in result.out
    assert cached.files() == before
    assert cached.built().out.startswith("4 up to date")


@pytest.mark.parametrize(
    ("name", "text", "ran"),
    [
        ("patterns/ash.toml", 'text = "other"\n', ["compile generated/ash.txt", "render ash"]),
        ("patterns/ash.toml", 'text = "one"  # said again\n', []),
        ("stamp.inc", "other\n", ALL[:2]),
        ("templates/page.j2", "{{ render(pattern.stem) }} {{ text }}!\n", ALL),
        ("tool/stamp", TOOL.replace("stamp 1", "stamp 2"), ALL[:2]),
    ],
    ids=["pattern", "comment", "file a compiler read", "template", "version of a compiler"],
)
def test_what_was_made_of_anything_else_is_not_taken(
    cached: Cached, checkout: Callable[..., Cached], name: str, text: str, ran: list[str]
) -> None:
    other = checkout("second")
    other.write(name, text.replace("LOG", str(other.log))).chmod(0o755)
    other.built()
    assert other.ran() == ran


def test_what_the_compiler_said_is_said_again(
    cached: Cached, checkout: Callable[..., Cached]
) -> None:
    other = checkout("second")
    assert "  warning: generated/ash.txt is stamped\n" in other.built().out
    log = ".codegen/logs/compile/ash.out.log"
    assert other.read(log) == "warning: generated/ash.txt is stamped\n"


def test_a_run_record_says_what_was_restored(
    cached: Cached, checkout: Callable[..., Cached]
) -> None:
    other = checkout("second")
    other.built()
    heads, problems = runs.heads(str(other.path / ".codegen/runs"))
    assert problems == []
    assert heads[0].outcomes == {"parsed": 1, "restored": 4, "written": 1}


def test_permissions_are_those_of_the_rule(cached: Cached, checkout: Callable[..., Cached]) -> None:
    other = checkout("second")
    other.built()
    assert other.ran() == []
    assert (other.path / "generated/ash.txt").stat().st_mode & 0o777 == 0o755


def test_a_hand_edited_target_is_kept_aside_before_it_is_restored(cached: Cached) -> None:
    cached.write("generated/ash.out", "mine\n")
    result = cached.built()
    assert cached.ran() == []
    kept = ".codegen/kept/generated/ash.out"
    assert f"generated/ash.out: was edited by hand, kept aside as {kept}" in result.out
    assert cached.read(kept) == "mine\n"
    assert "included" in cached.read("generated/ash.out")


def test_a_target_is_no_link_into_the_store(
    checkout: Callable[..., Cached], tmp_path: Path
) -> None:
    first = checkout("first", size=100_000)
    first.built()
    other = checkout("second", size=100_000)
    other.built()
    assert other.ran() == ALL  # of the first build
    target = other.path / "generated/ash.txt"
    assert target.stat().st_nlink == 1
    assert not target.is_symlink()
    target.write_text("changed through the target")
    third = checkout("third", size=100_000)
    third.built()
    assert third.files() == first.files()


def test_minus_a_runs_steps_whatever_is_known(cached: Cached) -> None:
    result = cached.built("-a")
    assert cached.ran() == ALL
    assert "restored" not in result.out


def test_it_can_be_switched_off(cached: Cached, checkout: Callable[..., Cached]) -> None:
    other = checkout("second")
    other.built(CODEGEN_OUTPUT_CACHE="0")
    assert other.ran() == ALL
    assert other.files() == cached.files()


def test_what_takes_no_time_is_not_kept(checkout: Callable[..., Cached], tmp_path: Path) -> None:
    first = checkout("first")
    first.built(CODEGEN_OUTPUT_CACHE_MILLISECONDS="60000")
    assert not (tmp_path / "store").exists()
    out = first.codegen("cache", "status", CODEGEN_OUTPUT_CACHE_MILLISECONDS="60000").out
    assert "0 restored, 0 kept, 4 not kept: took less than 60000 ms; 0.0 s saved\n" in out


def test_what_holds_the_path_of_the_checkout_is_not_shared(
    checkout: Callable[..., Cached],
) -> None:
    first = checkout("first")
    first.write("tool/stamp", first.read("tool/stamp").replace("cat", "pwd; cat")).chmod(0o755)
    first.built()
    first.ran()
    other = checkout("second")
    other.write("tool/stamp", other.read("tool/stamp").replace("cat", "pwd; cat")).chmod(0o755)
    other.built()
    assert other.ran() == ALL[:2]
    assert str(other.path) in other.read("generated/ash.out")
    assert "2 not kept: holds the path of the checkout" in other.codegen("cache", "status").out


@pytest.mark.parametrize("how", ["json.dumps", "urllib.parse.quote"])
def test_a_path_of_the_checkout_is_found_however_it_is_written(
    checkout: Callable[..., Cached], how: str
) -> None:
    project = checkout("first ché<kout")
    function = f"\n\n@codegen.function\ndef here():\n    return {how}(os.getcwd())\n"
    declared = project.read("dodo.py").replace("\n\nDOIT_CONFIG", f"{function}\n\nDOIT_CONFIG")
    project.write("dodo.py", f"import json, os, urllib.parse\n{declared}")
    project.write("templates/page.j2", "{{ here() }}\n")
    project.built("generate")
    assert "2 not kept: holds the path of the" in project.codegen("cache", "status").out


IN_VAIN = """
#include "stdbool.h"
#if __has_include("extra.h")
#include "extra.h"
#else
#define EXTRA 1
#endif
int {{ pattern.stem }}(void) { return true + EXTRA; }
"""


@pytest.fixture
def in_c(checkout: Callable[..., Cached]) -> Callable[[str], Cached]:
    """Return what makes a checkout whose units look for headers that are not there."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")

    def make(name: str) -> Cached:
        project = checkout(name)
        declared = project.read("dodo.py").replace("{stem}.txt", "{stem}.c")
        project.write("dodo.py", declared.replace("compile=stamp, mode=0o755", 'compile="cc"'))
        project.write("templates/page.j2", IN_VAIN)
        return project

    return make


def test_a_header_that_was_looked_for_in_vain_is_part_of_what_is_kept(
    in_c: Callable[[str], Cached],
) -> None:
    first, second = in_c("first"), in_c("second")
    first.built()
    assert "not kept" not in first.codegen("cache", "status").out
    assert "2 compiled, 4 of them restored" in second.built().out
    without = second.files()
    for name, text in (("stdbool.h", "#define true 40\n"), ("extra.h", "#define EXTRA 2\n")):
        second.write(f"generated/{name}", text)
        result = second.built()
        assert "2 compiled" in result.out
        assert "restored" not in result.out
        assert second.files()["generated/ash.o"] != without["generated/ash.o"]
        second.remove(f"generated/{name}")
        assert "2 compiled, 2 of them restored" in second.built().out
        assert second.files() == without
        assert "4 up to date" in second.built().out


def test_a_header_that_comes_while_it_is_looked_for_in_vain_counts(
    in_c: Callable[[str], Cached], tmp_path: Path
) -> None:
    project = in_c("first")
    project.write(
        "bin/cc",
        f"""\
        #!/bin/sh
        {shutil.which("cc")} "$@" || exit
        [ "$1" = --version ] || echo '#define EXTRA 2' >generated/extra.h
        """,
    ).chmod(0o755)
    project.environ["PATH"] = f"{project.path}/bin:{os.environ['PATH']}"
    project.built()
    assert "an input changed meanwhile" in project.codegen("cache", "status").out
    assert "2 compiled" in project.built().out
    other = in_c("other")
    other.write("generated/extra.h", "#define EXTRA 2\n")
    other.built(CODEGEN_OUTPUT_CACHE="false")
    made = project.files("generated/manifest.json")["generated/ash.o"]
    assert made == other.files()["generated/ash.o"]


def test_what_was_made_while_an_input_changed_is_not_kept(
    checkout: Callable[..., Cached],
) -> None:
    first = checkout("first")
    changing = first.read("tool/stamp") + "echo more >>stamp.inc\n"
    first.write("tool/stamp", changing).chmod(0o755)
    first.built()
    first.ran()
    other = checkout("second")
    other.write("tool/stamp", changing).chmod(0o755)
    other.built("generate")
    assert other.ran() == []
    other.built()
    assert other.ran() == ALL[:2]


def spoil_each(store: Path, how: Callable[[Path], None]) -> int:
    """Do something to each file of a store; return how many there were."""
    files = [path for kind in ("ac", "cas") for path in (store / kind).rglob("*") if path.is_file()]
    for path in files:
        how(path)
    return len(files)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def unreadable(path: Path) -> None:
    path.chmod(0)


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "how",
    [
        flipped,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 3000),
        made_a_folder,
        lambda path: (path.unlink(), os.mkfifo(path)),
        unreadable,
    ],
    ids=["flipped", "cut", "empty", "garbage", "folder", "pipe", "unreadable"],
)
def test_a_broken_store_is_a_miss(
    checkout: Callable[..., Cached], tmp_path: Path, how: Callable[[Path], None]
) -> None:
    first = checkout("first", size=50_000)
    first.built()
    first.ran()
    assert spoil_each(tmp_path / "store", how) > 6
    other = checkout("second", size=50_000)
    result = other.built()
    assert "Traceback" not in result.err
    ran = other.ran()
    assert ran == ALL or (ran == [] and how is unreadable and os.geteuid() == 0)
    assert other.files() == first.files()


def test_results_under_each_others_names_are_misses(
    cached: Cached, checkout: Callable[..., Cached], tmp_path: Path
) -> None:
    paths = sorted(path for path in (tmp_path / "store/ac").rglob("*") if path.is_file())
    contents = [path.read_bytes() for path in paths]
    for path, data in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(data)
    other = checkout("second")
    other.built()
    assert other.ran() == ALL
    assert other.files() == cached.files()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions are those of POSIX")
def test_a_store_in_which_others_can_write_is_not_used(
    cached: Cached, checkout: Callable[..., Cached], tmp_path: Path
) -> None:
    (tmp_path / "store").chmod(0o777)
    other = checkout("second")
    other.built()
    assert other.ran() == ALL
    said = f"{tmp_path}/store: can be written by others, so the output cache is not used\n"
    assert said in other.codegen("cache", "status").out


@pytest.mark.parametrize("workers", [(), ("-n", "3")], ids=["here", "workers"])
def test_a_store_that_cannot_be_written_costs_one_line(
    checkout: Callable[..., Cached], tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "store").write_text("in the way")
    first = checkout("first")
    result = first.built(*workers)
    assert len(first.ran()) == 4
    told = "a file stands where a folder should be, so outputs are not kept for other builds"
    assert result.err == f"{tmp_path}/store: {told}\n"
    counted = "0 restored, 0 kept, 4 not kept: cannot be stored: a file stands where"
    assert counted in first.codegen("cache", "status").out


def test_more_ways_to_read_than_are_kept_together_are_found_too(
    checkout: Callable[..., Cached],
) -> None:
    def furnish(project: Cached) -> None:
        project.write("templates/page.j2", "{{ render(pattern.stem) }}{% include pick + '.j2' %}\n")
        for number in range(actions.SETS + 5):
            project.write(f"templates/t{number}.j2", f"this is {number}")
            project.write(f"patterns/p{number}.toml", f'pick = "t{number}"\n')
        project.remove("patterns/ash.toml")
        project.remove("patterns/birch.toml")

    first = checkout("first")
    furnish(first)
    first.built()
    assert len(first.ran()) == 2 * (actions.SETS + 5)
    other = checkout("second")
    furnish(other)
    other.built()
    assert other.ran() == []
    assert other.files() == first.files()


def test_it_is_not_looked_for_what_is_made_as_soon(
    checkout: Callable[..., Cached], tmp_path: Path
) -> None:
    names = [f"p{number:02}" for number in range(30)]

    def furnish(project: Cached) -> None:
        for name in names:
            project.write(f"patterns/{name}.toml", 'text = "some"\n')

    first = checkout("first")
    furnish(first)
    first.built("generate")  # all of them are kept
    first.ran()
    other = checkout("second")
    furnish(other)
    other.write("templates/page.j2", "{{ render(pattern.stem) }}!\n")
    traced = other.path.parent / "traced"
    other.write(
        "dodo.py",
        other.read("dodo.py")
        + "from codegen_tasks.store import Store\n_get = Store.get\n"
        + "def get(self, kind, name):\n"
        + f"    open({str(traced)!r}, 'a').write('x')\n    return _get(self, kind, name)\n"
        + "Store.get = get\n",
    )
    other.built("generate", CODEGEN_OUTPUT_CACHE_MILLISECONDS="60000")
    assert len(other.ran()) == 32
    assert len(traced.read_text()) < 20


def test_two_that_build_at_once_share_a_store(
    checkout: Callable[..., Cached], tmp_path: Path
) -> None:
    import subprocess

    both = [checkout("first"), checkout("second")]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "doit", "-n", "2"],
            cwd=each.path,
            env=each.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for each in both
    ]
    for process in started:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
    both[0].ran()
    third = checkout("third")
    third.built()
    assert third.ran() == []
    assert third.files() == both[0].files() == both[1].files()


# doit cache -----------------------------------------------------------------------------


def test_status_tells_what_it_holds_and_has_done(
    cached: Cached, checkout: Callable[..., Cached], tmp_path: Path
) -> None:
    other = checkout("second")
    other.built()
    lines = other.codegen("cache", "status").out.splitlines()
    assert lines[2].startswith("outputs: 6 files, ")
    assert lines[2].endswith(f" of 5.0 GB, in {tmp_path}/store")
    assert lines[3].startswith("4 restored, 0 kept; ")


STAGES = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("pattern", template="pattern.j2", patterns="patterns/*.toml", target="{stem}.toml")
codegen.rule("page", template="page.j2", patterns="generated/*.toml", target="{name}.txt")
DOIT_CONFIG = codegen.doit_config
"""


def test_a_run_in_stages_counts_all_of_them(checkout: Callable[..., Cached]) -> None:
    for name in ("first", "second"):
        project = checkout(name)
        project.write("dodo.py", STAGES)
        project.write("templates/page.j2", "{{ text }}\n")
        project.write("templates/pattern.j2", "name = '{{ text }}'\ntext = 'made'\n")
        result = project.built()
    assert "4 generated, 4 of them restored" in result.out
    assert "4 restored, 0 kept" in project.codegen("cache", "status").out


def test_verify_removes_what_cannot_be_used(cached: Cached, tmp_path: Path) -> None:
    assert "outputs: 6 files verified, 0 removed\n" in cached.codegen("cache", "verify").out
    spoilt = next(path for path in (tmp_path / "store/ac").rglob("*") if path.is_file())
    flipped(spoilt)
    result = cached.codegen("cache", "verify")
    assert f"{spoilt}: cannot be used, removed\n" in result.out
    assert "outputs: 6 files verified, 1 removed\n" in result.out
    assert not spoilt.exists()


def test_clear_removes_all_of_it(cached: Cached, checkout: Callable[..., Cached]) -> None:
    assert "outputs: 6 files removed\n" in cached.codegen("cache", "clear").out
    other = checkout("second")
    other.built()
    assert other.ran() == ALL


def test_cleanup_removes_what_is_too_old(
    cached: Cached, checkout: Callable[..., Cached], tmp_path: Path
) -> None:
    long_ago = time.time() - 31 * 86_400
    spoil_each(tmp_path / "store", lambda path: os.utime(path, (long_ago, long_ago)))
    out = cached.codegen("cache", "cleanup").out
    assert "removed, kept are 30 days, 5.0 GB\n" in out
    other = checkout("second")
    other.built()
    assert other.ran() == ALL


def test_a_run_keeps_the_store_within_its_limit(
    checkout: Callable[..., Cached], tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    for number in range(6):
        project = checkout(f"number {number}", size=20_000 + number)
        project.built(CODEGEN_OUTPUT_CACHE_BYTES="100000")
        assert sum(one.size for one in store.held()) <= 100_000


# The store by itself --------------------------------------------------------------------


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    for number, name in enumerate(("aa", "bb", "cc", "dd")):
        store.put(ACTIONS, name, b"x" * 100)
        when = time.time() - 10_000 + number
        os.utime(store.path(ACTIONS, name), (when, when))
    assert store.get(ACTIONS, "aa") == b"x" * 100  # and now it is the newest
    assert store.tidy(most=399, days=30) == 100
    assert [store.has(ACTIONS, name) for name in ("aa", "bb", "cc", "dd")] == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "tally",
    [
        "",
        "[]",
        '{"bytes": "many", "looked": 1}',
        '{"bytes": -1e15, "looked": 1}',
        '{"bytes": -999999999999, "looked": 1}',
        '{"bytes": NaN, "looked": Infinity}',
        '{"bytes": 0, "looked": 99999999999}',
    ],
)
def test_a_size_that_cannot_be_is_found_out_anew(tmp_path: Path, tally: str) -> None:
    store = Store(str(tmp_path / "store"))
    for name in ("aa", "bb"):
        store.put(ACTIONS, name, b"x" * 100)
    (tmp_path / "store/size.json").write_text(tally)
    assert store.grown(1, most=150, days=30) == 100
    assert store.grown(20, most=150, days=30) == 0
    assert store.grown(50, most=150, days=30) == 0  # that they are not there was looked at


def test_what_was_used_in_the_future_ages_from_now_on(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.put(ACTIONS, "aa", b"x")
    path = store.path(ACTIONS, "aa")
    os.utime(path, (time.time() + 10_000_000, time.time() + 10_000_000))
    assert store.tidy(most=1000, days=30) == 0
    assert os.stat(path).st_mtime <= time.time()


def test_what_a_killed_writer_has_left_is_removed_and_not_counted(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.put(ACTIONS, "aa", b"x" * 100)
    left = [tmp_path / f"store/ac/aa/.codegen-{number:016x}" for number in range(2)]
    for path in left:
        path.write_bytes(b"y" * 1000)
    os.utime(left[0], (time.time() - 10_000, time.time() - 10_000))
    assert [one.name for one in store.held()] == ["aa"]
    assert store.tidy(most=500, days=30) == 0
    assert [path.exists() for path in left] == [False, True]  # which is being written, maybe
    assert store.clear() == 1
    assert not left[1].exists()


def test_a_content_that_is_another_is_removed(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    name = actions.digest.of_bytes(b"content")
    store.put(CONTENTS, name, b"content")
    assert store.content(name) == b"content"
    Path(store.path(CONTENTS, name)).write_bytes(b"CONTENT")
    assert store.content(name) is None
    assert not store.has(CONTENTS, name)


def test_a_store_is_private(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.put(ACTIONS, "aa", b"x")
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_a_result_is_read_back_as_it_was() -> None:
    inputs = (
        Input("pattern", "patterns/a.toml", "a" * 64, (1, 2, 3, 4), "shown", (((), "value"),)),
        Input("template", "templates/b.j2", "b" * 64, via="templates/a.j2"),
        Input("missing template", "c.j2", ""),
    )
    outputs = {"generated/a": bytes(range(256)), "generated/b": b"y" * actions.INLINE + b"y"}
    made = Made(inputs, outputs, ("generated/c",), "said\udcff", 0.5)
    record, beside = actions.written(made)
    stored = actions.stored_in(record)
    assert stored is not None
    assert list(beside.values()) == [outputs["generated/b"]]
    back = actions.complete(stored, beside)
    assert back == replace(made, inputs=tuple(replace(one, stat=None) for one in inputs))


def test_each_byte_of_a_record_is_checked() -> None:
    record, _ = actions.written(Made((Input("file", "a", "a" * 64),), {"b": b"c"}))
    for position in range(len(record)):
        torn = bytearray(record)
        torn[position] ^= 1
        assert actions.stored_in(bytes(torn)) is None
        assert actions.stored_in(record[:position]) is None
