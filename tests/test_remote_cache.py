"""The remote cache: nobody makes what a colleague has made; its store can do no harm."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import Web, azure, gcs, nginx, s3
from test_output_cache import ALL, Cached

WRITES = {"CODEGEN_REMOTE_CACHE_WRITE": "true"}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with nginx(tmp_path_factory.mktemp("nginx")) as found:
        yield found


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store of the kind that the test is for; http if it names none."""
    kind = getattr(request, "param", "http")
    if kind == "file":
        return f"file://{tmp_path}/shared"
    web: Web = request.getfixturevalue("web")
    return f"{web.url}/{tmp_path.name}"


@pytest.fixture
def clone(tmp_path: Path, state_home: Path, url: str) -> Callable[..., Cached]:
    """Return what makes a checkout on a machine of its own: its own output cache."""

    def make(name: str, size: int = 1) -> Cached:
        folder = tmp_path / name
        folder.mkdir()
        project = Cached(folder, state_home)
        project.fill(tmp_path / "log", tmp_path / f"store-of-{name}", size)
        project.environ["CODEGEN_REMOTE_CACHE"] = url
        project.environ.pop("CI", None)
        return project

    return make


SLOW = [pytest.mark.slow]
UNREACHED = "does it run, and is the port right?"
LOGIN = (
    "user and password stand in CODEGEN_REMOTE_CACHE, https://user:password@…; "
    "a token in CODEGEN_REMOTE_CACHE_TOKEN"
)


@pytest.mark.parametrize(
    ("url", "workers", "size"),
    [
        pytest.param("http", ("-n", "2"), 100_000, id="http-parallel-large"),
        pytest.param("file", (), 1, id="file-serial-small"),
        pytest.param("http", (), 1, id="http-serial-small", marks=SLOW),
        pytest.param("http", (), 100_000, id="http-serial-large", marks=SLOW),
        pytest.param("file", ("-n", "2"), 100_000, id="file-parallel-large", marks=SLOW),
    ],
    indirect=["url"],
)
def test_ci_on_a_fresh_clone_with_a_warm_remote_cache_runs_no_compiler_and_gives_the_same_bytes(
    clone: Callable[..., Cached], workers: tuple[str, ...], size: int
) -> None:
    first = clone("first", size)
    assert first.built(*workers, **WRITES).err == ""
    assert first.ran() == ALL
    second = clone("second", size)
    result = second.built(*workers)
    assert second.ran() == []
    assert "4 of them restored" in result.out
    assert result.err == ""
    assert second.files() == first.files()
    assert "4 up to date" in second.built(*workers).out


# Who writes -----------------------------------------------------------------------------

KEY = {"CODEGEN_REMOTE_CACHE_KEY": "a secret"}
#: As a variable of bytes that are no UTF-8 is told.
NO_TEXT = {"CODEGEN_REMOTE_CACHE_KEY": "\udcff\udcfe"}


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({"CI": "true"}, False),
        ({"CI": "true", **KEY}, True),
        pytest.param({}, False, marks=SLOW),
        pytest.param(KEY, False, marks=SLOW),
        pytest.param({"CI": "false", **KEY}, False, marks=SLOW),
        pytest.param(
            {"CI": "true", **KEY, "CODEGEN_REMOTE_CACHE_WRITE": "false"}, False, marks=SLOW
        ),
        pytest.param(WRITES, True, marks=SLOW),
    ],
)
def test_people_only_read_unless_they_say_so_and_ci_with_a_key_writes(
    clone: Callable[..., Cached], web: Web, environ: dict[str, str], sent: bool
) -> None:
    before = len(web.asked())
    clone("first").built(**environ)
    asked = web.asked()[before:]
    assert any(line.startswith("PUT ") for line in asked) == sent
    assert any(line.startswith("GET ") for line in asked)


@pytest.mark.parametrize(
    ("written", "read", "taken"),
    [
        pytest.param(KEY, KEY, True, id="signed", marks=SLOW),
        pytest.param(KEY, {"CODEGEN_REMOTE_CACHE_KEY": "another"}, False, id="signed by another"),
        pytest.param({}, KEY, False, id="not signed", marks=SLOW),
        pytest.param(KEY, {}, True, id="nobody looks", marks=SLOW),
        pytest.param(NO_TEXT, NO_TEXT, True, id="signed with no text", marks=SLOW),
    ],
)
def test_with_a_key_only_what_was_signed_with_it_is_taken(
    clone: Callable[..., Cached],
    url: str,
    written: dict[str, str],
    read: dict[str, str],
    taken: bool,
) -> None:
    first = clone("first", 100_000)
    first.built(**WRITES, **written)
    first.ran()
    second = clone("second", 100_000)
    told = (
        ""
        if taken
        else (
            f"remote cache {url}: has nothing that is signed with our key\n"
            "  hint: CODEGEN_REMOTE_CACHE_KEY must be that of who writes there\n"
        )
    )
    assert second.built(**read).err == told
    assert second.ran() == ([] if taken else ALL)
    figures = second.codegen("cache", "status", **read).out
    assert ("of the misses signed by nobody with this key" in figures) != taken
    assert second.files() == first.files()


# What is asked --------------------------------------------------------------------------


def test_nothing_is_asked_where_there_is_nothing_to_do(
    clone: Callable[..., Cached], web: Web
) -> None:
    project = clone("first")
    project.built()
    before = len(web.asked())
    # Python would tell if it were imported.
    project.write("obstore.py", "raise SystemExit('imported')\n")
    assert "4 up to date" in project.built().out
    assert web.asked()[before:] == []


def test_what_is_here_is_not_asked_for(clone: Callable[..., Cached], web: Web) -> None:
    project = clone("first")
    project.built(**WRITES)
    shutil.rmtree(project.path / "generated")
    shutil.rmtree(project.path / ".codegen")
    before = len(web.asked())
    assert ", restored)" in project.built("-v", "2").out
    asked = web.asked()[before:]
    assert len(asked) == 2  # the read sets of renders, and of compiles
    assert all(line.startswith("GET ") for line in asked)


@pytest.mark.slow
def test_what_came_is_kept_here_too(clone: Callable[..., Cached], url: str) -> None:
    clone("first", 100_000).built(**WRITES)
    second = clone("second", 100_000)
    assert ", restored from remote)" in second.built("-v", "2").out
    shutil.rmtree(second.path / "generated")
    shutil.rmtree(second.path / ".codegen")
    second.ran()
    assert ", restored)" in second.built("-v", "2", CODEGEN_REMOTE_CACHE="").out
    assert second.ran() == []


@pytest.mark.slow
def test_short_steps_are_not_asked_about_one_by_one(clone: Callable[..., Cached], web: Web) -> None:
    first = clone("first")
    for number in range(40):
        first.write(f"patterns/p{number}.toml", 'text = "many"\n')
    first.environ["CODEGEN_OUTPUT_CACHE_MILLISECONDS"] = "60000"
    before = len(web.asked())
    first.built("generate", **WRITES)
    assert len(web.asked()[before:]) == 1


@pytest.mark.slow
def test_many_steps_are_asked_about_with_one_request_each(
    clone: Callable[..., Cached], web: Web
) -> None:
    projects = [clone(name) for name in ("first", "second")]
    for project in projects:
        for number in range(60):
            project.write(f"patterns/p{number}.toml", 'text = "many"\n')
    projects[0].built("generate", **WRITES)
    projects[0].ran()
    before = len(web.asked())
    assert "62 of them restored" in projects[1].built("generate").out
    assert len(web.asked()[before:]) == 62 + 1
    assert projects[1].ran() == []


@pytest.mark.slow
def test_steps_that_no_remote_cache_has_are_run(clone: Callable[..., Cached], web: Web) -> None:
    clone("first").built(**WRITES)
    second = clone("second")
    second.ran()
    second.write("templates/page.j2", "{{ render(pattern.stem) }} other {{ text }}\n")
    second.built(**WRITES)
    assert second.ran() == ALL
    third = clone("third")
    third.write("templates/page.j2", "{{ render(pattern.stem) }} other {{ text }}\n")
    third.built()
    assert third.ran() == []


@pytest.mark.slow
def test_read_sets_of_two_writers_are_both_kept(clone: Callable[..., Cached], web: Web) -> None:
    one, other = clone("one"), clone("other")
    for project, name in ((one, "stamp.inc"), (other, "more.inc")):
        project.write("templates/page.j2", f"{{{{ render(read_text('{name}')) }}}}\n")
        project.write("more.inc", "more\n")
    one.built(**WRITES)
    other.built(**WRITES)
    for name, like in (("third", one), ("fourth", other)):
        project = clone(name)
        project.write("more.inc", "more\n")
        project.write("templates/page.j2", like.read("templates/page.j2"))
        project.ran()
        project.built()
        assert project.ran() == []


# Figures --------------------------------------------------------------------------------


def test_the_cache_command_tells_of_the_remote_and_leaves_it_alone(
    clone: Callable[..., Cached], url: str, web: Web
) -> None:
    clone("first").built(**WRITES)
    second = clone("second")
    second.built()
    status = second.codegen("cache", "status")
    assert f"remote {url}: answers, only read, not signed" in status.out
    assert "4 fetched, 0 restored, 0 kept; " in status.out
    assert "6 hits, 0 misses, " in status.out
    signed = second.codegen("cache", "status", **KEY, **WRITES)
    assert f"remote {url}: answers, read and written, signed" in signed.out
    lacking = second.codegen("cache", "status", CI="true")
    assert "answers, only read (CI writes with a CODEGEN_REMOTE_CACHE_KEY), not" in lacking.out
    stored = sorted(web.folder.rglob("*"))
    for action in ("verify", "cleanup", "clear"):
        assert f"remote {url}: left alone" in second.codegen("cache", action).out
    assert sorted(web.folder.rglob("*")) == stored


# Stores that fail -----------------------------------------------------------------------


def test_a_store_that_is_not_there_costs_one_line(clone: Callable[..., Cached]) -> None:
    project = clone("first")
    project.environ["CODEGEN_REMOTE_CACHE"] = "http://127.0.0.1:9/cache"
    result = project.built("-n", "2", **WRITES)
    what, hint = "cannot be reached (connection refused)", f"  hint: {UNREACHED}\n"
    said = f"remote cache http://127.0.0.1:9/cache: {what}, so it was left alone"
    assert result.err == f"{said}; 4 results not sent\n{hint}"
    assert project.ran() == ALL
    status = project.codegen("cache", "status").out
    assert f"remote http://127.0.0.1:9/cache: {what}, only read, not signed\n{hint}" in status


@pytest.mark.slow
def test_a_store_that_two_codegens_cannot_reach_costs_one_line(
    clone: Callable[..., Cached],
) -> None:
    project = clone("first")
    url = "http://127.0.0.1:9/cache"
    project.environ["CODEGEN_REMOTE_CACHE"] = url
    text = project.read("dodo.py")
    more = 'other = Codegen(output="other", name="other", state=".other")\n'
    more += 'other.rule("plain", template="plain.j2", target="plain.txt")\n'
    project.write("dodo.py", text.replace("DOIT_CONFIG", f"{more}DOIT_CONFIG"))
    project.write("templates/plain.j2", "plain\n")
    told = f"cannot be reached (connection refused), so it was left alone\n  hint: {UNREACHED}"
    assert project.built().err == f"remote cache {url}: {told}\n"


def test_a_folder_that_is_not_there_is_made_by_who_writes(
    clone: Callable[..., Cached], tmp_path: Path
) -> None:
    project = clone("first")
    project.environ["CODEGEN_REMOTE_CACHE"] = f"file://{tmp_path}/later"
    what = "cannot be used (no such file or directory), so it was left alone"
    hint = "  hint: is the path right? who writes makes the folder\n"
    assert project.built().err == f"remote cache file://{tmp_path}/later: {what}\n{hint}"
    assert (
        clone("second").built(CODEGEN_REMOTE_CACHE=f"file://{tmp_path}/later", **WRITES).err == ""
    )
    assert (tmp_path / "later" / "ac").is_dir()


def test_the_url_of_a_folder_is_written_as_urls_are(
    clone: Callable[..., Cached], tmp_path: Path
) -> None:
    project = clone("first")
    url = f"file://{tmp_path}/our%20store"
    assert project.built(CODEGEN_REMOTE_CACHE=url, **WRITES).err == ""
    assert (tmp_path / "our store/ac").is_dir()


def test_a_store_that_takes_nothing_costs_one_line(
    clone: Callable[..., Cached], tmp_path: Path
) -> None:
    with nginx(tmp_path / "nginx", "limit_except GET { deny all; }") as web:
        project = clone("first")
        result = project.built(CODEGEN_REMOTE_CACHE=web.url, **WRITES)
    assert project.ran() == ALL
    what = "answers with status 403, so nothing more was sent there; 4 results not sent"
    assert result.err == f"remote cache {web.url}: {what}\n  hint: {LOGIN}\n"


def test_a_result_that_was_not_sent_is_told_with_its_cause(
    clone: Callable[..., Cached], tmp_path: Path
) -> None:
    with nginx(tmp_path / "nginx", "client_max_body_size 1k;") as web:
        project = clone("first", 100_000)
        project.write("templates/page.j2", "{{ range(9999)|join(' ') }}")
        result = project.built("generate:ash.txt", CODEGEN_REMOTE_CACHE=web.url, **WRITES)
    assert result.err == (
        f"remote cache {web.url}: answers with status 413; 1 result not sent\n"
        "  hint: it takes no files so large; nginx: client_max_body_size\n"
    )


def test_without_obstore_all_is_made_here(clone: Callable[..., Cached], url: str) -> None:
    project = clone("first")
    project.write("obstore.py", "raise ImportError\n")
    told = "needs obstore, so it was left alone\n  hint: pip install 'codegen-tasks[remote]'"
    assert project.built().err == f"remote cache {url}: {told}\n"
    assert project.ran() == ALL


# Buckets --------------------------------------------------------------------------------


def status_of_another(clone: Callable[..., Cached], first: Cached, there: dict[str, str]) -> str:
    """Restore on another machine all that was made on a first; return what its cache says of it.

    Args:
        clone: makes a checkout.
        first: that was built.
        there: the environment that tells where the store is.
    """
    first.ran()
    second = clone("second", 100_000)
    assert second.built("-n", "2", **there, **KEY).err == ""
    assert second.ran() == []
    assert second.files() == first.files()
    status = second.codegen("cache", "status", **there, **KEY).out
    assert f"remote {there['CODEGEN_REMOTE_CACHE']}: answers, only read, signed" in status
    return status


@pytest.mark.slow
def test_a_bucket_is_a_store(clone: Callable[..., Cached], tmp_path: Path) -> None:
    with s3(tmp_path) as environ:
        there = {**environ, "CODEGEN_REMOTE_CACHE": "s3://team/some/prefix"}
        first = clone("first", 100_000)
        assert first.built("-n", "2", **there, **WRITES, **KEY).err == ""
        status = status_of_another(clone, first, there)
        assert "a-secret-of-s3" not in status


@pytest.mark.slow
def test_a_container_of_azure_is_a_store(clone: Callable[..., Cached], tmp_path: Path) -> None:
    with azure(tmp_path) as environ:
        there = {**environ, "CODEGEN_REMOTE_CACHE": "az://team/some/prefix"}
        first = clone("first", 100_000)
        assert first.built("-n", "2", **there, **WRITES, **KEY).err == ""
        status = status_of_another(clone, first, there)
        assert environ["AZURE_STORAGE_ACCOUNT_KEY"] not in status


@pytest.mark.slow
def test_a_bucket_of_google_is_a_store(clone: Callable[..., Cached], tmp_path: Path) -> None:
    with gcs(tmp_path) as (environ, put):
        first = clone("first", 100_000)
        first.built(CODEGEN_REMOTE_CACHE=f"file://{tmp_path}/copied", **WRITES, **KEY)
        for path in tmp_path.glob("copied/*/*"):
            put(f"some/prefix/{path.parent.name}/{path.name}", path.read_bytes())
        there = {**environ, "CODEGEN_REMOTE_CACHE": "gs://team/some/prefix"}
        status_of_another(clone, first, there)


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("s3://team", "AWS_ACCESS_KEY_ID"),
        ("gs://team", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://team", "AZURE_STORAGE_ACCOUNT_NAME"),
    ],
    ids=["s3", "gs", "az"],
)
def test_a_bucket_without_credentials_is_told_in_one_line(
    clone: Callable[..., Cached], url: str, names: str
) -> None:
    project = clone("first")
    project.environ = {
        name: value
        for name, value in project.environ.items()
        if not name.startswith(("AWS_", "GOOGLE_", "AZURE_"))
    }
    # Where there is a cloud around, it would be asked for some.
    project.environ |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    project.environ |= {"CODEGEN_REMOTE_CACHE": url, "HOME": str(project.path)}
    result = project.built()
    assert result.err == (
        f"remote cache {url}: needs credentials ({names}, …), so it was left alone\n"
    )
    assert project.ran() == ALL


# Settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('remote_cache = "cache.example.org"', "must be a URL"),
        (
            'remote_cache = "htps://cache.example.org"',
            "unknown scheme 'htps'\n  hint: did you mean 'https'?",
        ),
        ('remote_cache = "s3://"', "must name a bucket\n  hint: like s3://bucket/prefix"),
        (
            'remote_cache = "file://cache"',
            "must name a folder from the root\n  hint: like file:///srv/cache",
        ),
        (
            'remote_cache = "http://x:y/"',
            "is no URL\n  hint: like https://cache.example.org/codegen",
        ),
        ("remote_cache = ['https://ann:secret']", "must be a string\n"),
        (
            'remote_cache = "https://ann:secret@cache.example.org"',
            "must not hold a password here\n"
            "  hint: everybody reads this file; set CODEGEN_REMOTE_CACHE",
        ),
        (
            'remote_cache_key = "secret"',
            "does not belong here\n  hint: it is a secret, and everybody reads this file;"
            " set CODEGEN_REMOTE_CACHE_KEY",
        ),
        ('remote_cache_write = "yess"', "unknown value 'yess'"),
        ("remote_cache_write = 1", "must be one of auto, true, false, not 1"),
        ("remote_cache_seconds = 0", "must be a whole number from 1, not 0"),
    ],
)
def test_a_wrong_setting_is_told_before_any_step(
    clone: Callable[..., Cached], lines: str, said: str
) -> None:
    project = clone("first")
    project.environ.pop("CODEGEN_REMOTE_CACHE")
    project.write("pyproject.toml", f"[tool.codegen]\n{lines}\n")
    result = project.doit()
    assert result.code == 3
    name = lines.partition(" ")[0]
    assert f"pyproject.toml [tool.codegen] {name}: {said}" in result.err
    assert "secret'" not in result.err
    assert project.ran() == []


@pytest.mark.parametrize(("said", "written"), [("1", "read and written"), ("no", "only read")])
def test_whether_to_write_may_be_said_as_other_variables_say_it(
    clone: Callable[..., Cached], said: str, written: str
) -> None:
    status = clone("first").codegen("cache", "status", CODEGEN_REMOTE_CACHE_WRITE=said)
    assert f": answers, {written}, " in status.out


@pytest.mark.slow
def test_whether_to_write_may_be_said_as_toml_says_it(
    clone: Callable[..., Cached], web: Web
) -> None:
    project = clone("first")
    project.write("pyproject.toml", "[tool.codegen]\nremote_cache_write = true\n")
    before = len(web.asked())
    project.built()
    assert any(line.startswith("PUT ") for line in web.asked()[before:])
