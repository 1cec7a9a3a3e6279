"""Dask workers and a remote cache: outputs go by way of the store, or are sent; none is lost."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import Project, Result
from dask_cluster import Cluster, cluster
from proxies import proxy
from stores import Web, nginx
from test_dask import made, notes, targets, traces
from test_remote_hostile import forge, of_inputs

from codegen_tasks import model
from codegen_tasks.distributed.deliveries import Deliveries
from codegen_tasks.distributed.messages import Access, Afar, Delivery, Shared
from codegen_tasks.distributed.storing import Storing, access, shared
from codegen_tasks.remote.parcels import Blob
from codegen_tasks.settings import Settings

pytest.importorskip("distributed")
pytest.importorskip("obstore")
pytestmark = pytest.mark.slow

KEY = {"CODEGEN_REMOTE_CACHE_KEY": "a secret"}
WRITES = {"CODEGEN_REMOTE_CACHE_WRITE": "true"}
#: Renders note that they run; every second one makes much, which no result holds itself.
DODO = """
from codegen_tasks import Codegen, Toolchain

codegen = Codegen()
copy = Toolchain("copy", ["tools/copy", "{source}", "{target}"], suffix=".out",
                 version=["tools/copy", "--version"])
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt",
             compile=copy)


@codegen.function
def render(name):
    with open(LOG, "a") as log:
        log.write("render " + name + "\\n")
    return name


DOIT_CONFIG = codegen.doit_config
"""
TOOL = (
    '#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit\necho "compile $1" >>LOG\ntr x y <$1 >$2\n'
)
STEMS = ("ash", "birch", "cedar", "elm")
ALL = sorted([f"render {s}" for s in STEMS] + [f"compile generated/{s}.txt" for s in STEMS])


class Checkout(Project):
    """A checkout on a machine of its own, with its own output cache."""

    log: Path

    def fill(self, log: Path, store: Path, url: str) -> None:
        self.log = log
        self.environ |= {
            "CODEGEN_OUTPUT_CACHE": "true",
            "CODEGEN_OUTPUT_CACHE_FOLDER": str(store),
            "CODEGEN_OUTPUT_CACHE_MILLISECONDS": "0",
            "CODEGEN_REMOTE_CACHE": url,
        }
        self.environ.pop("CI", None)
        self.write("dodo.py", DODO.replace("LOG", repr(str(log))))
        self.write("templates/page.j2", "{{ render(pattern.stem) }}\n{{ 'x' * size }}\n")
        for number, stem in enumerate(STEMS):
            self.write(f"patterns/{stem}.toml", f"size = {100_000 * (number % 2)}\n")
        self.write("tools/copy", TOOL.replace("LOG", str(log))).chmod(0o755)

    def ran(self) -> list[str]:
        """Return what ran since it was asked last, wherever that was."""
        found = sorted(self.log.read_text().splitlines()) if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return found

    def on(self, there: Cluster, *arguments: str, **environ: str) -> Result:
        """Build on a cluster."""
        asked = ("-P", "dask", "--scheduler", there.address, *arguments)
        result = self.doit(*asked, **environ)
        assert result.code == 0, result
        return result

    def traffic(self) -> dict[str, Any]:
        """Return what went to and from the remote cache, over all runs."""
        found: dict[str, Any] = json.loads(self.read(".codegen/cache/outputs.json"))["remote"]
        return found


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with nginx(tmp_path_factory.mktemp("nginx")) as found:
        yield found


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster whose workers have the key in their environment."""
    with cluster(tmp_path_factory.mktemp("trusted")) as found:
        found.start_worker("first", **KEY)
        found.start_worker("second", **KEY)
        yield found


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster whose workers know of no key."""
    with cluster(tmp_path_factory.mktemp("strangers"), "first") as found:
        yield found


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, web: Web) -> str:
    kind = getattr(request, "param", "http")
    return f"file://{tmp_path}/shared" if kind == "file" else f"{web.url}/{tmp_path.name}"


@pytest.fixture
def clone(tmp_path: Path, state_home: Path, url: str) -> Callable[[str], Checkout]:
    """Return what makes a checkout."""

    def make(name: str) -> Checkout:
        folder = tmp_path / name
        folder.mkdir()
        project = Checkout(folder, state_home)
        project.fill(tmp_path / "log", tmp_path / f"store-of-{name}", url)
        return project

    return make


def right(project: Checkout) -> None:
    """See that all is made as it would be here, and nothing is left to do."""
    for number, stem in enumerate(STEMS):
        text = f"{stem}\n{'x' * 100_000 * (number % 2)}\n"
        assert project.read(f"generated/{stem}.txt") == text
        assert project.read(f"generated/{stem}.out") == text.replace("x", "y")
    assert "8 up to date" in project.doit().out


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_what_reads_headers_of_the_machine_is_restored_by_workers(
    clone: Callable[[str], Checkout], trusted: Cluster
) -> None:
    first, second = clone("first"), clone("second")
    for project in (first, second):
        project.write("templates/page.j2", "#include <stddef.h>\n{{ render('size_t') }} n;\n")
        text = project.read("dodo.py").replace("compile=copy", 'compile="cc"')
        project.write("dodo.py", text.replace("{stem}.txt", "{stem}.c"))
    assert "restored" not in first.on(trusted, **KEY, **WRITES).out
    first.ran()
    assert "8 of them restored" in second.on(trusted, **KEY).out
    assert second.ran() == []


@pytest.mark.parametrize("url", ["http", "file"], indirect=True)
def test_what_workers_make_comes_by_way_of_the_store_and_is_there_for_all(
    clone: Callable[[str], Checkout], trusted: Cluster
) -> None:
    first = clone("first")
    result = first.on(trusted, **KEY, **WRITES)
    assert (result.err, notes(result)) == ("", [])
    assert first.ran() == ALL
    right(first)
    traffic = first.traffic()
    # Two renders, and what is compiled of them, are too long for an answer.
    assert (traffic["kept"], traffic["unsent"]) == (8, 0)
    assert traffic["found"] >= 4
    assert traffic["sent"] > traffic["received"] > 0
    for number, how in enumerate([("-n", "2"), ("-P", "dask", "--scheduler", trusted.address)]):
        other = clone(f"other{number}")
        result = other.doit(*how, "-v", "2", **KEY)
        assert (result.code, result.err, notes(result)) == (0, "", [])
        assert other.ran() == []
        assert result.out.count(", restored from remote)") == 8
        assert "8 of them restored" in result.out
        assert (made(other), traces(other)) == (made(first), traces(first))
        right(other)
        assert other.traffic()["kept"] == 0


def test_many_results_of_workers_are_sent_as_a_bundle_too(
    clone: Callable[[str], Checkout], trusted: Cluster, web: Web
) -> None:
    first, other = clone("first"), clone("other")
    for number in range(80):
        for project in (first, other):
            project.write(f"patterns/more{number:02}.toml", "size = 1\n")
    assert first.on(trusted, **KEY, **WRITES).err == ""
    before = len(web.asked())
    assert "168 of them restored" in other.doit(**KEY).out
    assert len(web.asked()) - before < 30
    first.ran()


def test_workers_of_this_machine_use_the_store_too(clone: Callable[[str], Checkout]) -> None:
    first = clone("first")
    assert first.doit("-P", "dask", "-n", "2", **KEY, **WRITES).err == ""
    assert first.traffic()["kept"] == 8
    right(first)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_who_may_not_write_only_reads_and_workers_neither(
    clone: Callable[[str], Checkout], trusted: Cluster, strangers: Cluster, web: Web, signed: bool
) -> None:
    there, key = (trusted, KEY) if signed else (strangers, {})
    before = len(web.asked())
    first = clone("first")
    assert first.on(there, **key).err == ""
    asked = web.asked()[before:]
    assert not any(line.startswith("PUT ") for line in asked)
    assert any(line.startswith("GET ") for line in asked)
    right(first)


def test_with_a_always_all_is_made_anew_and_kept_anew(
    clone: Callable[[str], Checkout], trusted: Cluster
) -> None:
    clone("first").on(trusted, **KEY, **WRITES)
    other = clone("other")
    other.ran()
    assert other.on(trusted, "-a", **KEY, **WRITES).err == ""
    assert other.ran() == ALL
    assert other.traffic()["kept"] == 8


# Who has the key ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "why"),
    [({}, "it has no key"), ({"CODEGEN_REMOTE_CACHE_KEY": "x"}, "its key is not that of here")],
)
def test_a_worker_without_our_key_sends_what_it_makes_and_we_give_it_to_the_store(
    clone: Callable[[str], Checkout], tmp_path: Path, key: dict[str, str], why: str
) -> None:
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("first", **key)
        first = clone("first")
        result = first.on(there, **KEY, **WRITES)
        what = "asks nothing of the remote cache, and sends what it makes here"
        assert (result.err, notes(result)) == ("", [f"-P dask: worker first {what}: {why}"])
        right(first)
        assert first.traffic()["kept"] == 8
        first.ran()
    other = clone("other")
    assert "8 of them restored" in other.doit(**KEY).out
    assert other.ran() == []


def test_no_secret_travels_to_workers_of_which_each_has_its_own(
    clone: Callable[[str], Checkout], tmp_path: Path, web: Web
) -> None:
    plain = {"DASK_DISTRIBUTED__COMM__COMPRESSION": "None"}
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("first", CODEGEN_REMOTE_CACHE_KEY="key-of-ours", **plain)
        with proxy(there.port, "listen") as between:
            first = clone("first")
            url = first.environ["CODEGEN_REMOTE_CACHE"].replace("//", "//me:pass-word@")
            asked = ("-P", "dask", "--scheduler", f"tcp://127.0.0.1:{between.port}")
            secret = {
                "CODEGEN_REMOTE_CACHE": url,
                "CODEGEN_REMOTE_CACHE_KEY": "key-of-ours",
                "CODEGEN_REMOTE_CACHE_TOKEN": "token-of-ours",
            }
            result = first.doit(*asked, **secret, **WRITES, **plain)
    assert (result.code, result.err, notes(result)) == (0, "", [])
    assert first.traffic()["kept"] == 8
    assert b"render(pattern.stem)" in between.heard
    for word in (b"key-of-ours", b"pass-word", b"token-of-ours", b"bWU6cGFzcy13b3Jk"):
        assert word not in between.heard


def test_a_worker_may_reach_the_store_by_another_url(
    clone: Callable[[str], Checkout], tmp_path: Path, web: Web
) -> None:
    first = clone("first")
    inner = first.environ["CODEGEN_REMOTE_CACHE"].replace("127.0.0.1", "localhost")
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("first", CODEGEN_REMOTE_CACHE=inner)
        assert first.on(there, **WRITES).err == ""
    right(first)
    assert first.traffic()["kept"] == 8


def test_a_worker_without_the_extra_leaves_the_store_alone(
    clone: Callable[[str], Checkout], tmp_path: Path
) -> None:
    (tmp_path / "start").mkdir()
    lacking = 'import sys\nsys.modules["obstore"] = sys.modules["obstore.store"] = None\n'
    (tmp_path / "start/sitecustomize.py").write_text(lacking)
    first = clone("first")
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("first", PYTHONPATH=str(tmp_path / "start"))
        result = first.on(there, **WRITES)
    url = first.environ["CODEGEN_REMOTE_CACHE"]
    needs = "needs obstore, so it was left alone\n  hint: pip install 'codegen-tasks[remote]'"
    assert result.err == f"remote cache {url}: for worker first it {needs}\n"
    assert first.traffic()["kept"] == 8
    right(first)


# What goes wrong on the way -------------------------------------------------------------

LOST = "-P dask: what is in the remote cache for a worker is not there for us, so it is sent"


@pytest.mark.parametrize(
    ("fault", "at"),
    [("an error", 0), ("reset at once", 0), ("silent", 0), ("garble", -9), ("a page", 0)],
)
def test_what_does_not_come_from_the_store_is_sent_and_made_only_once(
    clone: Callable[[str], Checkout], tmp_path: Path, web: Web, fault: str, at: int
) -> None:
    first = clone("first")
    url = first.environ["CODEGEN_REMOTE_CACHE"]
    with cluster(tmp_path / "cluster") as there, proxy(web.port, fault, at) as between:
        there.start_worker("first", CODEGEN_REMOTE_CACHE=url)
        ours = url.replace(str(web.port), str(between.port))
        first.environ["CODEGEN_REMOTE_CACHE"] = ours
        result = first.on(there, CODEGEN_REMOTE_CACHE_SECONDS="1", **WRITES)
    assert notes(result) == [LOST]
    assert len(result.err.replace("\n  hint: ", " ").splitlines()) <= 1
    assert first.ran() == ALL
    first.environ["CODEGEN_REMOTE_CACHE"] = url
    right(first)


@pytest.mark.parametrize("fault", ["an error", "reset at once", "silent", "drip", "flood"])
def test_a_store_that_fails_for_workers_costs_a_line(
    clone: Callable[[str], Checkout], tmp_path: Path, web: Web, fault: str
) -> None:
    first = clone("first")
    url = first.environ["CODEGEN_REMOTE_CACHE"]
    with cluster(tmp_path / "cluster") as there, proxy(web.port, fault) as between:
        theirs = url.replace(str(web.port), str(between.port))
        there.start_worker("first", CODEGEN_REMOTE_CACHE=theirs)
        result = first.on(there, CODEGEN_REMOTE_CACHE_SECONDS="1", **WRITES)
    assert notes(result) == []
    line, *hint = result.err.splitlines()
    assert all(one.startswith("  hint: ") for one in hint)
    assert re.fullmatch(f"remote cache {url}: for worker first it [^;]+", line)
    assert first.ran() == ALL
    # What workers could not send, we have.
    assert (first.traffic()["kept"], first.traffic()["unsent"]) == (8, 0)
    right(first)


def test_contents_that_were_evicted_are_made_again(
    clone: Callable[[str], Checkout], trusted: Cluster, web: Web
) -> None:
    first = clone("first")
    first.on(trusted, **KEY, **WRITES)
    shutil.rmtree(web.folder / first.environ["CODEGEN_REMOTE_CACHE"].rpartition("/")[2] / "cas")
    first.ran()
    other = clone("other")
    result = other.on(trusted, **KEY)
    assert (result.err, notes(result)) == ("", [LOST])
    assert "4 of them restored" in result.out
    assert other.ran() == [one for one in ALL if "birch" in one or "elm" in one]
    assert (made(other), traces(other)) == (made(first), traces(first))


def test_a_store_that_loses_all_is_given_nothing_more_by_workers(
    clone: Callable[[str], Checkout], tmp_path: Path
) -> None:
    """A folder that only the worker has: it puts there, and nobody finds it."""
    first = clone("first")
    for number in range(40):
        first.write(f"patterns/more{number:02}.toml", "size = 50000\n")
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("first", CODEGEN_REMOTE_CACHE=f"file://{tmp_path}/only-there")
        result = first.on(there, "-v", "2", **WRITES)
    assert notes(result) == [LOST]
    assert len(first.ran()) == 88
    ran = re.findall(r"(?:generate|compile):\S+  \((\w+)", result.out)
    assert set(ran) == {"first"}
    assert len(targets(first)) == 88


def test_a_slow_store_is_told_of_each_result_once(
    clone: Callable[[str], Checkout], tmp_path: Path, web: Web
) -> None:
    """What workers have sent may be there only after they have waited for it long enough."""
    first = clone("first")
    for stem in (*STEMS, *(f"more{number:02}" for number in range(46))):
        first.write(f"patterns/{stem}.toml", "size = 1\n")
    url = first.environ["CODEGEN_REMOTE_CACHE"]
    with cluster(tmp_path / "cluster") as there, proxy(web.port, "slow", pause=1.5) as between:
        theirs = url.replace(str(web.port), str(between.port))
        there.start_worker("first", CODEGEN_REMOTE_CACHE=theirs)
        # It waits for four seconds in all, and what is under way is there half a second later.
        result = first.on(there, CODEGEN_REMOTE_CACHE_SECONDS="2", **WRITES)
    slow = "takes what is sent too slowly, so nothing more was sent there"
    assert result.err == f"remote cache {url}: for worker first it {slow}\n"
    assert notes(result) == []
    ran = first.ran()
    assert len(ran) == len(set(ran)) == 100
    assert "100 up to date" in first.doit().out


# What steps make, and what it is made of ------------------------------------------------

ODD = """
import json, os
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")
with open(LOG, "a") as log:
    log.write(f"loaded {os.getpid() if 'scratch' in os.getcwd() else 'here'}\\n")


@codegen.function
def say():
    print("half of one \\ud83d")
    return "said"


@codegen.function
def where():
    return json.dumps(os.getcwd())


DOIT_CONFIG = codegen.doit_config
"""


def test_what_cannot_be_kept_is_made_without_harm_to_what_makes_it(
    clone: Callable[[str], Checkout], trusted: Cluster
) -> None:
    first = clone("first")
    first.write("dodo.py", ODD.replace("LOG", repr(str(first.log))))
    first.write("templates/page.j2", "{{ say() }}\n")
    result = first.on(trusted, **KEY, **WRITES)
    assert (result.err, notes(result)) == ("", [])
    assert first.read("generated/ash.txt") == "said\n"
    loaded = [line for line in first.ran() if line != "loaded here"]
    assert 1 <= len(loaded) <= 2  # once a worker
    assert "4 up to date" in first.doit().out


def test_the_folder_of_a_worker_is_in_no_output_however_it_is_written(
    clone: Callable[[str], Checkout], tmp_path: Path
) -> None:
    first, other = clone("first"), clone("other")
    for project in (first, other):
        project.write("dodo.py", ODD.replace("LOG", repr(str(first.log))))
        project.write("templates/page.j2", "{{ where() }}\n")
    (tmp_path / "the wörker's").mkdir()
    with cluster(tmp_path / "cluster") as there:
        there.start_worker("first", "--local-directory", str(tmp_path / "the wörker's"))
        result = first.on(there, **WRITES)
    what = "what it makes names the folder in which it was made, so it is made here"
    assert notes(result) == [f"-P dask: rule page: {what}"]
    assert other.doit().code == 0
    for project in (first, other):
        assert json.loads(project.read("generated/ash.txt")) == str(project.path)


def test_what_a_store_says_that_inputs_were_is_not_taken_for_it(
    clone: Callable[[str], Checkout], strangers: Cluster, web: Web
) -> None:
    first, other = clone("first"), clone("other")
    first.on(strangers, **WRITES)
    store = web.folder / first.environ["CODEGEN_REMOTE_CACHE"].rpartition("/")[2]
    assert forge(store, of_inputs(4, '[[["size"], "value", 999]]'), "outputs") == 8
    assert "8 of them restored" in other.on(strangers).out
    other.write("patterns/birch.toml", "size = 5\n")
    info = other.doit("info")
    assert "size 100000 → 5" in info.out
    assert "999" not in info.out


# What workers may ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "writes"),
    [("", True), ("auto", True), ("TRUE", True), ("false", False), ("0", False), ("never", False)],
)
def test_whatever_else_a_worker_says_of_writing_is_no_leave(said: str, writes: bool) -> None:
    given = access(Shared("http://host/x", 5, True, "", ""), {"CODEGEN_REMOTE_CACHE_WRITE": said})
    assert isinstance(given, Access)
    assert given.writes == writes


def test_a_key_of_any_bytes_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    key = os.fsdecode(b"\xff\xfe key")
    monkeypatch.setenv("CODEGEN_REMOTE_CACHE_KEY", key)
    told = shared(Settings(remote_cache="http://host/x", remote_cache_write="true"), "run")
    assert told is not None
    given = access(told, {"CODEGEN_REMOTE_CACHE_KEY": key})
    assert isinstance(given, Access)
    assert given.secret == b"\xff\xfe key"
    assert access(told, {"CODEGEN_REMOTE_CACHE_KEY": "key"}) == "its key is not that of here"


# How much at once -----------------------------------------------------------------------


def test_of_much_that_is_there_workers_leave_a_part_for_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is fetched for one order is held as a whole."""
    storing = Storing(Access("file:///not/there", 1, False, b"", ""))
    afar = Afar("x", 30_000_000, Blob("x", 1))
    there = {"a", "b", "c", "e"}

    def delivery(step: Any) -> Delivery | None:
        return Delivery(model.Result((), {}), {"p": afar}, True) if step.task in there else None

    shelf = SimpleNamespace(expect=lambda *_: None, delivery=delivery)
    monkeypatch.setattr(storing, "_shelf", lambda *_: shelf)
    nothing = cast(Any, None)
    steps = [cast(Any, SimpleNamespace(task=task)) for task in "abdcef"]
    known, left = storing.found(nothing, nothing, steps, {})
    assert (set(known), left) == ({"a", "b", "c"}, {"e", "f"})


def test_what_comes_is_taken_before_more_is_fetched() -> None:
    fetched: SimpleQueue[int] = SimpleQueue()

    def contents(wanted: dict[str, tuple[Blob, int]]) -> dict[str, bytes]:
        for _, size in wanted.values():
            fetched.put(size)
        return dict.fromkeys(wanted, b"")

    remote = SimpleNamespace(contents=contents, spares=lambda seconds: None)
    build = SimpleNamespace(workshop=SimpleNamespace(outputs=SimpleNamespace(remote=remote)))
    deliveries = Deliveries([cast(Any, build)], lambda kind, text: None)
    for number in range(40):
        afar = Afar(str(number), 10_000_000, Blob(str(number), 1))
        delivery = Delivery(model.Result((), {}), {"path": afar}, False)
        answer = {"made": {f"task{number}": pickle.dumps(delivery)}}
        assert deliveries.open(number, 0, answer) is None
    taken: list[Any] = []
    held, end = 0, time.monotonic() + 30
    while len(taken) < 40 and time.monotonic() < end:
        with contextlib.suppress(Empty):
            while True:
                held += fetched.get(timeout=0.1)
        assert held < 150_000_000
        came = deliveries.come()
        taken += [what for what, _, _ in came]
        held -= 10_000_000 * len(came)
    assert sorted(taken) == list(range(40))
